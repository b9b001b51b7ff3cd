//! A detached lab: a process in a session of its own that keeps the lab until it is told to stop.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use super::super::failure::{Done, Failure};
use super::super::output;
use super::events::Events;
use crate::lab::cluster::Lab;
use crate::lab::record::LabRecord;

/// The hidden command of the program that keeps a detached lab.
pub(crate) const COMMAND: &str = "lab-supervisor";

/// What begins a line of the supervisor's standard output that says that the lab is complete.
const READY: &str = "ready";

/// What begins a line that says why it never will be.
const FAILED: &str = "failed ";

#[derive(Debug, clap::Args)]
pub(crate) struct SupervisorArgs {
    #[arg(long)]
    dir: PathBuf,
    #[arg(long)]
    nodes: Option<u16>,
    #[arg(long)]
    replicas: Option<u8>,
}

/// Starts a supervisor and waits until its lab is complete.
pub(super) fn detach(dir: &Path, nodes: Option<u16>, replicas: Option<u8>) -> Done {
    std::fs::create_dir_all(dir).map_err(Failure::failed)?;
    let log = dir.join("supervisor.log");
    let log = File::options().create(true).append(true).open(&log).map_err(Failure::failed)?;
    let mut command = Command::new(std::env::current_exe().map_err(Failure::failed)?);
    command.arg(COMMAND).arg("--dir").arg(dir);
    if let Some(nodes) = nodes {
        command.args(["--nodes", &nodes.to_string()]);
    }
    if let Some(replicas) = replicas {
        command.args(["--replicas", &replicas.to_string()]);
    }
    // It must hold nothing of ours open: whoever waits for our output to end would wait for the lab.
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).spawn();
    let mut child = child.map_err(Failure::failed)?;
    let progress = output::spinner("starting");
    let mut error = "the supervisor of the lab ended; see supervisor.log in its directory".to_owned();
    let mut ready = false;
    if let Some(said) = child.stdout.take() {
        for line in BufReader::new(said).lines().map_while(Result::ok) {
            if line == READY {
                ready = true;
                break;
            }
            match line.strip_prefix(FAILED) {
                Some(why) => error = unescaped(why),
                None => progress.set_message(line),
            }
        }
    }
    progress.finish_and_clear();
    if !ready {
        let _ = child.wait();
        return Err(Failure::Failed(error));
    }
    let record = LabRecord::load(dir).map_err(Failure::failed)?;
    let dir = dir.canonicalize().map_err(Failure::failed)?;
    output::line(&super::greeting(&dir, &record));
    output::line(&format!("end it:        starling lab --dir {} stop", dir.display()));
    Ok(())
}

impl SupervisorArgs {
    /// Keeps the lab.
    pub(crate) fn run(self) -> Done {
        // A session of its own: the end of the terminal is not the end of the lab. It fails only for the leader of a
        // process group, which a child that was just spawned is not.
        let _ = nix::unistd::setsid();
        match self.start() {
            Ok((lab, mut events)) => {
                tell(READY);
                super::serve(lab, &mut events);
                Ok(())
            }
            Err(failure) => {
                if let Failure::Failed(why) | Failure::Usage(why) = &failure {
                    tell(&format!("{FAILED}{}", escaped(why)));
                }
                Err(failure)
            }
        }
    }

    fn start(&self) -> Result<(Lab, Events), Failure> {
        let interrupted = super::catch_signals()?;
        let mut lab = Lab::open(&self.dir, self.nodes, self.replicas, Arc::clone(&interrupted))
            .map_err(Failure::failed)?;
        if let Err(error) = lab.start(&mut tell) {
            lab.shutdown();
            return Err(Failure::failed(error));
        }
        let events = Events::new(lab.dir())?;
        Ok((lab, events))
    }
}

/// Says a line to whoever started us, if they still listen.
fn tell(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// Several lines as one.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\n', "\\n")
}

fn unescaped(text: &str) -> String {
    let mut plain = String::new();
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        match c {
            '\\' if characters.next() == Some('n') => plain.push('\n'),
            '\\' => plain.push('\\'),
            other => plain.push(other),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_several_lines_survive() {
        for text in ["", "one", "two\nlines", "a \\n that is none", "\\", "\\\n\\"] {
            assert!(!escaped(text).contains('\n'));
            assert_eq!(unescaped(&escaped(text)), text);
        }
    }
}
