//! A lab of real processes, started by the real program as a person would, that ends with its test.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use starling::client::{Client, ConnectOptions};
use starling::lab::record::LabRecord;
use starling::protocol::ring::entry::Name;
use starling::transport::authority::CONFIG_DIR_VARIABLE;

/// The program under test.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_starling");

/// How long anything may take that takes a moment on an idle machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Looks again and again until there is something to see. Panics after [`PATIENCE`].
pub(crate) fn poll<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What a command came to.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) out: String,
    pub(crate) err: String,
    pub(crate) code: Option<i32>,
}

impl Said {
    pub(crate) fn of(output: Output) -> Said {
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        Said { out: text(&output.stdout), err: text(&output.stderr), code: output.status.code() }
    }

    /// That the command was done.
    #[track_caller]
    pub(crate) fn done(self) -> Said {
        assert_eq!(self.code, Some(0), "{self:?}");
        self
    }
}

/// Runs the program to its end, with its own configuration directory and these words, and nothing on standard input.
pub(crate) fn starling(config: &Path, words: &[&str]) -> Said {
    let run =
        Command::new(PROGRAM).args(words).env(CONFIG_DIR_VARIABLE, config).stdin(Stdio::null()).output();
    Said::of(run.unwrap())
}

/// A process of this machine, as `/proc` shows it.
pub(crate) fn is_alive(pid: u32) -> bool {
    // The state follows the name, which is in parentheses and may hold anything. A zombie runs no more.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").and_then(|(_, behind)| behind.chars().next());
    state.is_some_and(|state| !"ZX".contains(state))
}

/// All processes whose command line holds `words`.
pub(crate) fn processes_with(words: &str) -> Vec<u32> {
    let pids = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let holds = |pid: &u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).replace('\0', " ").contains(words)
    };
    pids.filter(holds).filter(|pid| is_alive(*pid)).collect()
}

/// A lab in a directory that goes away with it. It reads its commands from a pipe of this process, so that it ends
/// however the test ends.
pub(crate) struct TestLab {
    folder: tempfile::TempDir,
    child: Child,
}

impl TestLab {
    /// Starts one and waits until all its nodes serve.
    pub(crate) fn start(nodes: u16) -> TestLab {
        let folder = tempfile::tempdir().unwrap();
        let child = Command::new(PROGRAM)
            .args(["lab", "--nodes", &nodes.to_string(), "--dir"])
            .arg(folder.path().join("lab"))
            .env(CONFIG_DIR_VARIABLE, folder.path().join("config"))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(folder.path().join("said")).unwrap())
            .spawn()
            .unwrap();
        let mut lab = TestLab { folder, child };
        poll("the lab to start", || {
            let said = std::fs::read_to_string(lab.folder.path().join("said")).unwrap_or_default();
            assert!(lab.child.try_wait().unwrap().is_none(), "the lab ended: {said}");
            said.contains("talk to them").then_some(())
        });
        lab
    }

    /// Where it lives.
    pub(crate) fn dir(&self) -> PathBuf {
        self.folder.path().join("lab")
    }

    /// The process of the lab itself.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The process of a node, as long as it runs.
    pub(crate) fn pid_of(&self, node: &str) -> Option<u32> {
        let dir = self.dir().canonicalize().unwrap();
        processes_with(&format!("--data {}/{node}/data ", dir.display())).first().copied()
    }

    /// Gives the lab a command, from elsewhere.
    pub(crate) fn command(&self, line: &str) -> Said {
        starling(&self.folder.path().join("config"), &["lab", "--dir", self.dir().to_str().unwrap(), line])
    }

    /// Kills the lab itself.
    pub(crate) fn kill_the_lab(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// What a client needs that finds the cluster by itself.
    pub(crate) fn options(&self) -> ConnectOptions {
        let record = LabRecord::load(&self.dir()).unwrap();
        ConnectOptions::new(record.addresses(), record.client_credentials().unwrap())
    }

    /// A client that sends everything to one node.
    pub(crate) fn client_via(&self, node: &str) -> Client {
        let options = self.options().via(Name::new(node).unwrap());
        poll("a client", || futures_lite::future::block_on(Client::connect(options.clone())).ok())
    }

    /// A client that finds its way.
    pub(crate) fn client(&self) -> Client {
        poll("a client", || futures_lite::future::block_on(Client::connect(self.options())).ok())
    }
}

impl Drop for TestLab {
    fn drop(&mut self) {
        if let Some(mut pipe) = self.child.stdin.take() {
            let _ = pipe.write_all(b"stop\n");
        }
        let _ = self.child.wait();
        if std::thread::panicking() {
            for node in 1..=9 {
                let log = self.dir().join(format!("n{node}/log"));
                if let Ok(text) = std::fs::read_to_string(&log) {
                    let lines: Vec<&str> = text.lines().rev().take(8).collect();
                    eprintln!("-- n{node}, its last words, newest first:\n{}", lines.join("\n"));
                }
            }
        }
    }
}
