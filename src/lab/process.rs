//! One node of the lab: a child process that can be stopped, killed, paused and started again.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::guardian::{Guardian, Identity};
use super::record::{LabError, LabRecord};

/// How long a node may take to stop in good order before it is killed.
pub const STOP_DEADLINE: Duration = Duration::from_secs(15);

/// How a node's process is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It runs.
    Running {
        /// Its process id.
        pid: u32,
    },
    /// It is stopped by SIGSTOP.
    Paused {
        /// Its process id.
        pid: u32,
    },
    /// The lab killed or stopped it, or it was not started yet.
    Down(String),
    /// It ended, and nobody told it to.
    Failed(String),
}

impl State {
    /// Whether it can answer.
    #[must_use]
    pub fn is_running(&self) -> bool {
        matches!(self, State::Running { .. })
    }
}

/// One node of the lab.
#[derive(Debug)]
pub struct NodeProcess {
    /// n1, n2, ...
    pub name: String,
    directory: PathBuf,
    running: Option<Running>,
    paused: bool,
    /// Why it does not run.
    ended: State,
}

#[derive(Debug)]
struct Running {
    child: Child,
    identity: Identity,
}

impl NodeProcess {
    /// The node of this name of the lab in `dir`; it does not run yet.
    #[must_use]
    pub fn new(dir: &Path, name: &str) -> NodeProcess {
        NodeProcess {
            name: name.to_owned(),
            directory: dir.join(name),
            running: None,
            paused: false,
            ended: State::Down("not started".to_owned()),
        }
    }

    /// Where its log is.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.directory.join("log")
    }

    /// Deletes what is on its disk; it must not run. That is remembered beside the data until it has come back.
    pub fn wipe(&mut self) -> Result<(), LabError> {
        let failed = |error: std::io::Error| {
            LabError::Process(format!("the disk of {} cannot be wiped: {error}", self.name))
        };
        File::create(self.loss()).map_err(failed)?;
        remove_tree(&self.directory.join("data")).map_err(failed)
    }

    /// Copies what is on its disk, as it is at this moment; if it runs, it stands still meanwhile. An earlier copy is
    /// replaced.
    pub fn back_up(&mut self) -> Result<(), LabError> {
        let is_mine = !self.paused && self.pause();
        let (data, copy) = (self.directory.join("data"), self.copy());
        // Half a copy must not pass for one, nor cost the one before.
        let begun = self.directory.join("backup.begun");
        let copied = remove_tree(&begun)
            .and_then(|()| copy_tree(&data, &begun))
            .and_then(|()| remove_tree(&copy))
            .and_then(|()| fs::rename(&begun, &copy));
        if is_mine {
            self.resume();
        }
        copied.map_err(|error| {
            LabError::Process(format!("the disk of {} cannot be copied: {error}", self.name))
        })
    }

    /// Whether there is a copy of its disk.
    #[must_use]
    pub fn has_copy(&self) -> bool {
        self.copy().exists()
    }

    /// Puts the last copy of its disk in the place of what is there; it must not run. If the others remember more of
    /// the node than that, the next start recovers it.
    pub fn restore(&mut self) -> Result<(), LabError> {
        let data = self.directory.join("data");
        let restored = File::create(self.loss())
            .and_then(|_| remove_tree(&data))
            .and_then(|()| copy_tree(&self.copy(), &data));
        restored.map_err(|error| {
            LabError::Process(format!("the disk of {} cannot be put back: {error}", self.name))
        })
    }

    fn copy(&self) -> PathBuf {
        self.directory.join("backup")
    }

    /// It answers: whatever it had lost, it is itself again.
    pub fn has_recovered(&self) {
        let _ = fs::remove_file(self.loss());
    }

    fn loss(&self) -> PathBuf {
        self.directory.join("lost-its-disk")
    }

    /// Starts it.
    pub fn start(
        &mut self,
        record: &LabRecord,
        address: SocketAddr,
        guardian: &mut Guardian,
    ) -> Result<(), LabError> {
        let failed =
            |error: std::io::Error| LabError::Process(format!("{} cannot be started: {error}", self.name));
        let data = self.directory.join("data");
        fs::create_dir_all(&data).map_err(failed)?;
        let log = File::options().create(true).append(true).open(self.log()).map_err(failed)?;
        let (variable, config_dir) = record.environment();
        let mut command = Command::new(std::env::current_exe().map_err(failed)?);
        command.arg("node").arg("--data").arg(data);
        command.args(["--name", &self.name, "--cluster", &record.cluster, "--faults", "--exit-with-stdin"]);
        command.args(["--listen", &address.to_string(), "--replicas", &record.replicas.to_string()]);
        command.args(["--found", &record.nodes.len().to_string()]);
        if self.loss().exists() {
            command.arg("--recover");
        }
        for seed in record.nodes.iter().filter(|node| node.name != self.name) {
            command.args(["--seed", &seed.address.to_string()]);
        }
        let child = command
            .env(variable, config_dir)
            .stdin(Stdio::piped())
            .stdout(log.try_clone().map_err(failed)?)
            .stderr(log)
            // Signals of the terminal are for the lab alone.
            .process_group(0)
            .spawn()
            .map_err(failed)?;
        let mut running = Running { identity: Identity { pid: child.id(), started: 0 }, child };
        // A child that has ended already is a zombie until it is waited for, so its identity can still be told.
        match Identity::of(running.child.id()) {
            Some(identity) => running.identity = identity,
            None => {
                let _ = running.child.kill();
                return Err(LabError::Process(format!("{} vanished as it started", self.name)));
            }
        }
        let watched = guardian.watch(running.identity);
        self.running = Some(running);
        self.paused = false;
        watched
    }

    /// How it is now.
    pub fn state(&mut self, guardian: &mut Guardian) -> State {
        let Some(running) = &mut self.running else { return self.ended.clone() };
        match running.child.try_wait() {
            Ok(None) => {
                let pid = running.identity.pid;
                if self.paused { State::Paused { pid } } else { State::Running { pid } }
            }
            Ok(Some(status)) => {
                let state = State::Failed(format!("{}; see {}", end_of(status), self.log().display()));
                self.has_ended(state.clone(), guardian);
                state
            }
            Err(error) => State::Failed(error.to_string()),
        }
    }

    /// SIGKILL, and waits for the end.
    pub fn kill(&mut self, guardian: &mut Guardian) {
        if let Some(running) = &mut self.running {
            running.identity.signal(Signal::SIGKILL);
            let _ = running.child.wait();
            self.has_ended(State::Down("killed".to_owned()), guardian);
        }
    }

    /// Asks it to stop in good order. A paused node is woken to do so.
    pub fn ask_to_stop(&mut self) {
        if let Some(running) = &self.running {
            running.identity.signal(Signal::SIGTERM);
            if self.paused {
                running.identity.signal(Signal::SIGCONT);
                self.paused = false;
            }
        }
    }

    /// Waits until it has ended, and kills it at the deadline. Tells whether it ended by itself.
    pub fn await_end(&mut self, deadline: Instant, guardian: &mut Guardian) -> bool {
        loop {
            let Some(running) = &mut self.running else { return true };
            if !matches!(running.child.try_wait(), Ok(None)) {
                self.has_ended(State::Down("stopped".to_owned()), guardian);
                return true;
            }
            if Instant::now() >= deadline {
                self.kill(guardian);
                return false;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// SIGSTOP. Tells whether there was anything to stop.
    pub fn pause(&mut self) -> bool {
        let paused = self.running.as_ref().is_some_and(|running| running.identity.signal(Signal::SIGSTOP));
        self.paused |= paused;
        paused
    }

    /// SIGCONT. Tells whether there was anything to continue.
    pub fn resume(&mut self) -> bool {
        let was_paused = std::mem::take(&mut self.paused);
        was_paused && self.running.as_ref().is_some_and(|running| running.identity.signal(Signal::SIGCONT))
    }

    fn has_ended(&mut self, state: State, guardian: &mut Guardian) {
        if let Some(running) = self.running.take() {
            // A guardian that is gone is told of when the next node starts.
            let _ = guardian.forget(running.identity);
        }
        self.paused = false;
        self.ended = state;
    }

    /// The last lines of its log, for messages.
    #[must_use]
    pub fn last_words(&self) -> String {
        let log = fs::read(self.log()).unwrap_or_default();
        let text = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = text.lines().rev().take(3).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        if let Some(running) = &mut self.running {
            let _ = running.child.kill();
            let _ = running.child.wait();
        }
    }
}

/// Removes a directory with all that is in it, if it is there.
fn remove_tree(path: &Path) -> std::io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Copies a directory with all that is in it.
fn copy_tree(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

fn end_of(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended by itself with code {code}"),
        (_, Some(signal)) => format!("ended by signal {signal}"),
        _ => "ended".to_owned(),
    }
}
