//! Where a lab's commands come from: standard input, other processes, signals. One queue for all of them, so that a
//! lab does one thing at a time.

use std::io::IsTerminal;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::super::failure::Failure;
use super::super::lines::{Line, Lines};
use super::super::output::OutputOptions;
use super::interpreter::WORDS;
use crate::lab::control::{self, ControlReply, ControlRequest};

/// What happens to a lab.
pub(super) enum Event {
    /// Somebody wants something.
    Command(Pending),
    /// The end of standard input, or a signal.
    End,
}

/// A command that waits for its answer.
pub(super) struct Pending {
    /// The command.
    pub(super) request: ControlRequest,
    /// Whether it came from standard input.
    pub(super) from_standard_input: bool,
    reply: Sender<ControlReply>,
    /// Ends when the answer was passed on.
    passed_on: Receiver<()>,
}

impl Pending {
    /// Answers, and waits until the answer was passed on: the process may end right after.
    pub(super) fn answer(self, reply: ControlReply) {
        if self.reply.send(reply).is_ok() {
            let _ = self.passed_on.recv();
        }
    }
}

/// The queue.
pub(super) struct Events {
    sender: Sender<Event>,
    receiver: Receiver<Event>,
}

impl Events {
    /// Listens to other processes and to signals.
    pub(super) fn new(dir: &Path) -> Result<Events, Failure> {
        let (sender, receiver) = channel();
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).map_err(Failure::failed)?;
        let ends = sender.clone();
        std::thread::spawn(move || {
            for _ in signals.forever() {
                if ends.send(Event::End).is_err() {
                    return;
                }
            }
        });
        let listener = control::listen(dir).map_err(Failure::failed)?;
        let commands = sender.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let commands = commands.clone();
                // A connection of its own thread: one that says nothing is in nobody's way.
                std::thread::spawn(move || {
                    let mut stream = stream;
                    if let Ok(request) = control::read_request(&stream) {
                        // Whoever asked may have gone away.
                        submit(&commands, request, false, |said| {
                            let _ = match said {
                                Said::AtWork => control::write_sign(&mut stream),
                                Said::Done(reply) => control::write_reply(&mut stream, &reply),
                            };
                        });
                    }
                });
            }
        });
        Ok(Events { sender, receiver })
    }

    /// Takes commands from standard input too, and its end as the end of the lab.
    pub(super) fn read_standard_input(
        &mut self,
        shown: OutputOptions,
        names: Vec<String>,
    ) -> Result<(), Failure> {
        let mut lines = Lines::standard_input("lab> ", WORDS, names)?;
        let commands = self.sender.clone();
        let interactive = std::io::stdin().is_terminal();
        std::thread::spawn(move || {
            while let Some(line) = lines.next() {
                let line = match line {
                    Line::Text(line) => line,
                    Line::Bad(message) => {
                        eprintln!("{message}");
                        // An empty operation fails, which is what this line did.
                        "{}".to_owned()
                    }
                };
                if line.trim().is_empty() || line.trim_start().starts_with('#') {
                    continue;
                }
                let request = ControlRequest { line, json: shown.json, base64: shown.base64 };
                let shown = |said| {
                    if let Said::Done(reply) = said {
                        super::print(&reply);
                    }
                };
                if !submit(&commands, request, true, shown) {
                    return;
                }
            }
            if interactive {
                eprintln!("ending the lab");
            }
            let _ = commands.send(Event::End);
        });
        Ok(())
    }

    /// The next event.
    pub(super) fn next(&mut self) -> Event {
        // There is always a sender: this one.
        self.receiver.recv().unwrap_or(Event::End)
    }
}

/// What whoever gave a command hears.
enum Said {
    /// It waits for its turn, or is being done.
    AtWork,
    /// What became of it.
    Done(ControlReply),
}

/// Puts a command in the queue and passes its answer on, with a sign of life now and then until there is one. Tells whether
/// there was an answer.
fn submit(
    commands: &Sender<Event>,
    request: ControlRequest,
    from_standard_input: bool,
    mut pass_on: impl FnMut(Said),
) -> bool {
    let (reply, replied) = channel();
    let (_done, passed_on) = channel();
    let pending = Pending { request, from_standard_input, reply, passed_on };
    if commands.send(Event::Command(pending)).is_err() {
        return false;
    }
    loop {
        match replied.recv_timeout(control::SIGN_EVERY) {
            Ok(reply) => {
                pass_on(Said::Done(reply));
                return true;
            }
            Err(RecvTimeoutError::Timeout) => pass_on(Said::AtWork),
            Err(RecvTimeoutError::Disconnected) => return false,
        }
    }
}
