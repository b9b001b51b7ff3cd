//! `starling lab`: a cluster on this machine, and the means to break it.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::failure::{Done, Failure};
use super::output::{self, OutputOptions};
use crate::lab::cluster::Lab;
use crate::lab::control::{self, ControlReply, ControlRequest};
use crate::lab::record::LabRecord;

mod events;
mod interpreter;
mod supervisor;

use events::{Event, Events};
use interpreter::Interpreter;
pub(crate) use supervisor::{COMMAND as SUPERVISOR, SupervisorArgs};

/// Run a cluster on this machine and break it
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Starts real node processes on loopback, waits until all see all, and takes commands from the terminal or from standard \
input. `help` lists them. All nodes end with the lab, even if it is killed; their data stays in the directory, and \
starting again there brings the same cluster back. Without --dir everything is in a temporary directory that goes away.

A lab that runs, here or detached, takes commands from elsewhere too: starling lab --dir DIR COMMAND.

Examples:
  starling lab                                              five nodes, until you leave
  starling lab --nodes 3 --dir ./lab                        three, kept in ./lab
  starling lab --dir ./lab --detach                         leave it running, until `starling lab --dir ./lab stop`
  starling lab --dir ./lab 'partition n1,n2 | n3,n4,n5'     in quotes: | and > mean something to your shell
  starling lab --dir ./lab kill n2
  starling lab --scenario tests/scenarios/split_brain.scenario
  printf 'put k v\\nkill n1\\nget k\\n' | starling lab         a script; exit code 1 if any command fails")]
pub(crate) struct LabArgs {
    /// How many nodes a new lab has [default: 5]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=200))]
    nodes: Option<u16>,
    /// Replicas of every key in a new lab [default: 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=7))]
    replicas: Option<u8>,
    /// Where the lab lives
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Leave the lab running in the background
    #[arg(long, requires = "dir", conflicts_with = "command")]
    detach: bool,
    /// Run the scenario in this file on a lab of the size that it wants, and end
    #[arg(long, value_name = "FILE", conflicts_with_all = ["nodes", "replicas", "detach", "command"])]
    scenario: Option<PathBuf>,
    #[command(flatten)]
    shown: OutputOptions,
    /// A command for the lab that runs in --dir
    #[arg(requires = "dir", trailing_var_arg = true, allow_hyphen_values = true, conflicts_with_all = ["nodes", "replicas"])]
    command: Vec<String>,
}

impl LabArgs {
    /// Runs it.
    pub(crate) fn run(self) -> Done {
        match (&self.dir, self.detach) {
            (Some(dir), _) if !self.command.is_empty() => ask(dir, &self.command, self.shown),
            (Some(dir), true) => supervisor::detach(dir, self.nodes, self.replicas),
            _ => self.run_here(),
        }
    }

    fn run_here(mut self) -> Done {
        let scenario = self.scenario.as_deref().map(super::scenario::read).transpose()?;
        if let Some(scenario) = &scenario {
            scenario.check_for_lab().map_err(Failure::Failed)?;
            self.nodes = Some(scenario.nodes);
            self.replicas = u8::try_from(scenario.replicas.get()).ok();
        }
        let temporary;
        let dir = match &self.dir {
            Some(dir) => dir.clone(),
            None => {
                temporary = Temporary::new("starling-lab")?;
                temporary.path().to_owned()
            }
        };
        let interrupted = catch_signals()?;
        let mut lab =
            Lab::open(&dir, self.nodes, self.replicas, Arc::clone(&interrupted)).map_err(Failure::failed)?;
        let progress = output::spinner("starting");
        let started = lab.start(&mut |message| progress.set_message(message.to_owned()));
        progress.finish_and_clear();
        if let Err(error) = started {
            lab.shutdown();
            return Err(Failure::failed(error));
        }
        if let Some(scenario) = scenario {
            let done = super::scenario::play_in(&mut lab, &scenario, self.shown.json);
            lab.shutdown();
            return done;
        }
        let interactive = std::io::stdin().is_terminal();
        let greeting = greeting(lab.dir(), lab.record());
        if interactive {
            output::line(&greeting);
        } else {
            eprintln!("{greeting}");
        }
        let names = lab.record().names();
        let mut events = Events::new(lab.dir())?;
        events.read_standard_input(self.shown, names)?;
        let ended = serve(lab, &mut events);
        if ended.failed && !interactive { Err(Failure::Said) } else { Ok(()) }
    }
}

/// How a lab ended.
struct Ended {
    /// Whether any command from standard input failed.
    failed: bool,
}

/// Takes commands until one ends the lab, or standard input ends, or a signal comes. Then ends all nodes.
fn serve(lab: Lab, events: &mut Events) -> Ended {
    let dir = lab.dir().to_owned();
    let mut interpreter = Interpreter::new(lab);
    let mut failed = false;
    let last = loop {
        match events.next() {
            Event::Command(command) => {
                let reply = interpreter.run(&command.request);
                if interpreter.is_asked_to_stop() {
                    break Some((command, reply));
                }
                failed |= command.from_standard_input && !reply.ok;
                command.answer(reply);
            }
            Event::End => break None,
        }
    };
    let killed = interpreter.into_lab().shutdown();
    control::close(&dir);
    let mut said = String::new();
    if !killed.is_empty() {
        said = format!("{} did not stop in time and had to be killed", killed.join(", "));
    }
    match last {
        Some((command, reply)) => command.answer(ControlReply { err: said, ..reply }),
        None if !said.is_empty() => eprintln!("{said}"),
        None => {}
    }
    Ended { failed }
}

/// Sends a command to a lab that runs elsewhere.
fn ask(dir: &std::path::Path, command: &[String], shown: OutputOptions) -> Done {
    // One word is a line that was quoted as a whole; several were split by a shell already.
    let line = match command {
        [line] => line.clone(),
        words => shell_words::join(words),
    };
    let request = ControlRequest { line, json: shown.json, base64: shown.base64 };
    let reply = control::ask(dir, &request).map_err(Failure::failed)?;
    print(&reply);
    if reply.ok { Ok(()) } else { Err(Failure::Said) }
}

fn print(reply: &ControlReply) {
    if !reply.out.is_empty() {
        output::line(&reply.out);
    }
    if !reply.err.is_empty() {
        eprintln!("{}", reply.err);
    }
}

/// Raises a flag on the first signal, so that what is under way can end in good order, and ends the process on the
/// second one; the guardian then ends the nodes.
pub(super) fn catch_signals() -> Result<Arc<AtomicBool>, Failure> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&interrupted))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&interrupted)))
            .map_err(Failure::failed)?;
    }
    Ok(interrupted)
}

/// How to talk to the lab.
fn greeting(dir: &std::path::Path, record: &LabRecord) -> String {
    let addresses: Vec<_> =
        record.nodes.iter().map(|node| format!("  {}  {}", node.name, node.address)).collect();
    let dir = dir.display();
    format!(
        "{count} nodes are running in {dir}\n{addresses}\n\
         talk to them:  starling put KEY VALUE --lab {dir}\n\
         \x20              starling get KEY --lab {dir}\n\
         break them:    starling lab --dir {dir} 'partition n1,n2 | n3'      (help lists all)",
        count = record.nodes.len(),
        addresses = addresses.join("\n"),
    )
}

/// A directory that goes away with the lab.
pub(super) struct Temporary(PathBuf);

impl Temporary {
    /// Makes one, with a name that begins so.
    pub(super) fn new(prefix: &str) -> Result<Temporary, Failure> {
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(Failure::failed)?;
        let name = random.iter().fold(format!("{prefix}-"), |name, byte| format!("{name}{byte:02x}"));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path)
            .map_err(|error| Failure::Failed(format!("{}: {error}", path.display())))?;
        Ok(Temporary(path))
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Lets it stay.
    pub(super) fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // What cannot be removed is in nobody's way.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
