//! A lab of real processes, started by the real program as a person would, that ends with its test.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Child, Stdio};

use futures_lite::future::block_on;
use starling::client::{Client, ConnectOptions};
use starling::lab::record::LabRecord;
use starling::protocol::ring::entry::Name;

use crate::program::{Place, Ran, eventually, runs};

/// Looks again and again until there is something to see.
#[track_caller]
pub(crate) fn poll<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let mut seen = None;
    eventually(what, || {
        seen = look();
        seen.is_some()
    });
    seen.unwrap()
}

/// One of a node's counts, as `starling status` has them; `None` while it does not answer.
pub(crate) fn count(client: &Client, node: &str, name: &str) -> Option<u64> {
    let status = block_on(client.status(&Name::new(node).unwrap())).ok()?;
    status.counts.iter().find(|(known, _)| known == name).map(|(_, count)| *count)
}

/// All processes whose command line holds `words`.
fn processes_with(words: &str) -> Vec<u64> {
    let pids = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u64>().ok());
    let holds = |pid: &u64| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).replace('\0', " ").contains(words)
    };
    pids.filter(holds).filter(|pid| runs(*pid)).collect()
}

/// A lab in a directory that goes away with it. It reads its commands from a pipe of this process, so that it ends
/// however the test ends.
pub(crate) struct TestLab {
    place: Place,
    child: Child,
}

impl TestLab {
    /// Starts one and waits until all its nodes serve.
    pub(crate) fn start(nodes: u16) -> TestLab {
        let place = Place::new();
        let said = std::fs::File::create(place.path("said")).unwrap();
        let child = place
            .command(&["lab", "--nodes", &nodes.to_string(), "--dir", &place.text("lab")])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(said)
            .spawn()
            .unwrap();
        let mut lab = TestLab { place, child };
        eventually("the lab starts", || {
            let said = std::fs::read_to_string(lab.place.path("said")).unwrap_or_default();
            assert!(lab.child.try_wait().unwrap().is_none(), "the lab ended: {said}");
            said.contains("talk to them")
        });
        lab
    }

    /// Where it lives.
    pub(crate) fn dir(&self) -> PathBuf {
        self.place.path("lab")
    }

    /// The process of a node, as long as it runs.
    pub(crate) fn pid_of(&self, node: &str) -> Option<u64> {
        let dir = self.dir().canonicalize().unwrap();
        processes_with(&format!("--data {}/{node}/data ", dir.display())).first().copied()
    }

    /// All processes that belong to it: the lab, its guardian and its nodes.
    pub(crate) fn processes(&self) -> Vec<u64> {
        let lab = u64::from(self.child.id());
        let children =
            std::fs::read_to_string(format!("/proc/{lab}/task/{lab}/children")).unwrap_or_default();
        let dir = self.dir().canonicalize().unwrap();
        let mut all = processes_with(&format!("--data {}/", dir.display()));
        all.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u64>().ok()));
        all.push(lab);
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Gives the lab a command, from elsewhere.
    pub(crate) fn command(&self, line: &str) -> Ran {
        self.place.run(&["lab", "--dir", &self.place.text("lab"), line])
    }

    /// Runs any other command against it.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        self.place.run(&[arguments, &["--lab", &self.place.text("lab")]].concat())
    }

    /// SIGKILL for the lab itself.
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
        poll("a client", || block_on(Client::connect(options.clone())).ok())
    }

    /// A client that finds its way.
    pub(crate) fn client(&self) -> Client {
        poll("a client", || block_on(Client::connect(self.options())).ok())
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
