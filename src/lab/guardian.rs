//! The guardian: a tiny process that sees that nothing outlives the lab.
//!
//! A lab that ends in good order ends its nodes first. A lab that is killed cannot. Its nodes notice, since their
//! standard input ends with it, but a node that is paused (SIGSTOP) notices nothing. So one more process waits at the
//! end of one more pipe whose other end only the lab holds. The lab tells it the nodes' process ids; when the pipe
//! ends, it kills those that are still there. SIGKILL ends stopped processes too.
//!
//! A process id alone may have passed on to a stranger in the meantime, so each comes with the time at which its
//! process began, as the system tells it.

use std::collections::BTreeMap;
use std::io::{BufRead, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::record::LabError;

/// The hidden command of the program that runs a guardian.
pub const COMMAND: &str = "lab-guardian";

/// One process for all time: its id, and when it began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Identity {
    /// The process id.
    pub pid: u32,
    /// Clock ticks after the start of the system, 0 where the system does not tell.
    pub started: u64,
}

impl Identity {
    /// The process that has this id now.
    #[must_use]
    pub fn of(pid: u32) -> Option<Identity> {
        Some(Identity { pid, started: start_time(pid)? })
    }

    /// Whether the process still exists (a zombie that nobody waited for does, too).
    #[must_use]
    pub fn exists(&self) -> bool {
        Identity::of(self.pid) == Some(*self)
    }

    /// Sends a signal, unless the process is gone and its id perhaps somebody else's.
    pub fn signal(&self, signal: Signal) -> bool {
        let Ok(pid) = i32::try_from(self.pid) else { return false };
        self.exists() && kill(Pid::from_raw(pid), signal).is_ok()
    }
}

/// The 22nd field of `/proc/PID/stat`. The second one, the program's name, may hold blanks and parentheses, so counting
/// begins behind its end.
fn start_time(pid: u32) -> Option<u64> {
    if !cfg!(target_os = "linux") {
        let pid = i32::try_from(pid).ok()?;
        return kill(Pid::from_raw(pid), None).is_ok().then_some(0);
    }
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, behind) = stat.rsplit_once(')')?;
    behind.split_whitespace().nth(19)?.parse().ok()
}

/// The lab's end of a guardian.
#[derive(Debug)]
pub struct Guardian {
    child: Child,
    pipe: Option<ChildStdin>,
}

impl Guardian {
    /// Starts one.
    pub fn start() -> Result<Guardian, LabError> {
        let failed =
            |error: std::io::Error| LabError::Process(format!("the guardian cannot be started: {error}"));
        let program = std::env::current_exe().map_err(failed)?;
        let mut child = Command::new(program)
            .arg(COMMAND)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Ctrl-C at the terminal is for the lab alone.
            .process_group(0)
            .spawn()
            .map_err(failed)?;
        let pipe = child.stdin.take();
        Ok(Guardian { child, pipe })
    }

    /// Gives a node into its care.
    pub fn watch(&mut self, process: Identity) -> Result<(), LabError> {
        self.tell('+', process)
    }

    /// Takes a node out of its care: it has ended.
    pub fn forget(&mut self, process: Identity) -> Result<(), LabError> {
        self.tell('-', process)
    }

    fn tell(&mut self, sign: char, Identity { pid, started }: Identity) -> Result<(), LabError> {
        let gone = || {
            LabError::Process("the guardian of the lab is gone; stop the lab and start it again".to_owned())
        };
        let pipe = self.pipe.as_mut().ok_or_else(gone)?;
        writeln!(pipe, "{sign}{pid} {started}").map_err(|_| gone())
    }
}

impl Drop for Guardian {
    fn drop(&mut self) {
        // The end of the pipe is its sign to finish.
        self.pipe = None;
        let _ = self.child.wait();
    }
}

/// Runs a guardian to its end.
pub fn run(orders: impl BufRead) {
    let mut watched = BTreeMap::new();
    for line in orders.lines() {
        // An error on a pipe is its end.
        let Ok(line) = line else { break };
        obey(&line, &mut watched);
    }
    for process in watched.into_values() {
        process.signal(Signal::SIGKILL);
    }
}

fn obey(line: &str, watched: &mut BTreeMap<u32, Identity>) {
    let parse = || {
        let (pid, started) = line.get(1..)?.split_once(' ')?;
        Some(Identity { pid: pid.parse().ok()?, started: started.parse().ok()? })
    };
    match (line.chars().next(), parse()) {
        (Some('+'), Some(process)) => {
            watched.insert(process.pid, process);
        }
        (Some('-'), Some(process)) => {
            watched.remove(&process.pid);
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper() -> Child {
        Command::new("sleep").arg("600").spawn().unwrap()
    }

    #[test]
    fn what_is_watched_dies_with_the_pipe_even_if_it_is_stopped() {
        let mut stopped = sleeper();
        let mut spared = sleeper();
        let identity = Identity::of(stopped.id()).unwrap();
        let other = Identity::of(spared.id()).unwrap();
        assert!(identity.signal(Signal::SIGSTOP));
        let orders = format!(
            "+{} {}\n+{} {}\n-{} {}\n",
            identity.pid, identity.started, other.pid, other.started, other.pid, other.started
        );
        run(orders.as_bytes());
        let status = stopped.wait().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
        assert_eq!(spared.try_wait().unwrap(), None);
        spared.kill().unwrap();
        spared.wait().unwrap();
    }

    #[test]
    fn a_process_id_that_passed_on_is_left_alone() {
        let mut stranger = sleeper();
        let identity = Identity::of(stranger.id()).unwrap();
        run(format!("+{} {}\n", identity.pid, identity.started + 1).as_bytes());
        assert_eq!(stranger.try_wait().unwrap(), None);
        stranger.kill().unwrap();
        stranger.wait().unwrap();
        assert!(!identity.exists());
    }

    #[test]
    fn nonsense_is_ignored() {
        run("".as_bytes());
        run("\n+\n+x y\nhello\n\u{e9}\n".as_bytes());
    }
}
