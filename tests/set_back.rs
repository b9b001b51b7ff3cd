//! Old copies of a real node's directory are found out before they have a say.
#![cfg(feature = "cli")]
#![allow(clippy::disallowed_methods, reason = "tests wait with real deadlines")]
#![allow(clippy::unwrap_used, reason = "a test that panics has failed, which is what it is for")]

#[path = "support/lab.rs"]
#[allow(dead_code, reason = "each test uses its part")]
mod lab;
#[path = "support/program.rs"]
mod program;

use std::process::{Command, Stdio};

use async_std::task::block_on;
use lab::{TestLab, count, poll};
use starling::client::{Client, Level};

/// What a node says of another: its incarnation and amnesia generation.
fn known(client: &Client, node: &str) -> Option<(u64, u32)> {
    let topology = block_on(client.topology()).ok()?;
    let member = topology.members.into_iter().find(|member| member.entry.name.as_str() == node)?;
    Some((member.entry.incarnation.0, member.entry.amnesia))
}

/// Writes a key to all of its owners, of which every node is one.
fn put(client: &Client, key: &str) {
    poll("a write by all owners", || {
        block_on(async { client.put_blind(key, &b"value"[..]).w(Level::All).await }).ok()
    });
}

fn values(client: &Client, key: &str) -> usize {
    poll("a read", || block_on(async { client.get(key).r(Level::Majority).await }).ok()).values().len()
}

/// A lab of three with a client of n1, whose n2 has acknowledged a write since its disk was copied, and has the copy now.
fn set_back() -> (TestLab, Client) {
    let lab = TestLab::start(3);
    let client = lab.client_via("n1");
    put(&client, "before");
    lab.command("backup n2").ok();
    // It starts once more, and acknowledges what the copy does not hold.
    lab.command("restart n2").ok();
    put(&client, "after");
    lab.command("restore n2").ok();
    (lab, client)
}

#[test]
fn a_restored_backup_is_found_out_and_the_node_comes_back_from_the_others() {
    let (lab, client) = set_back();
    let before = known(&client, "n2").unwrap();
    lab.command("restart n2").ok();
    let after = poll("n2 in a new generation", || known(&client, "n2").filter(|after| after.1 > before.1));
    assert!(after.0 > before.0, "a new incarnation");
    poll("a whole n2", || count(&client, "n2", "slots_refilling").filter(|slots| *slots == 0));
    let log = std::fs::read_to_string(lab.dir().join("n2/log")).unwrap();
    assert!(log.contains("remembers more of this node than its data directory holds"), "{log}");
    let aside = lab.dir().join("n2/data.lost-1");
    assert!(aside.is_dir(), "what was restored is still there");

    // Without the third node, the one that was set back decides.
    lab.command("kill n1").ok();
    let client = lab.client_via("n2");
    for key in ["before", "after"] {
        assert_eq!(values(&client, key), 1, "{key}");
    }
}

/// No heartbeat needs to come between: n1 was told by the acknowledgement itself.
#[test]
fn what_was_acknowledged_a_moment_before_a_backup_was_restored_is_known_to_who_waited_for_it() {
    let lab = TestLab::start(3);
    let client = lab.client_via("n1");
    for round in 0..3 {
        put(&client, &format!("before {round}"));
        lab.command("backup n2").ok();
        let before = known(&client, "n2").unwrap();
        put(&client, &format!("after {round}"));
        lab.command("restore n2").ok();
        lab.command("restart n2").ok();
        poll("n2 in a new generation", || known(&client, "n2").filter(|after| after.1 > before.1));
        poll("a whole n2", || count(&client, "n2", "slots_refilling").filter(|slots| *slots == 0));
    }
    lab.command("kill n1").ok();
    let client = lab.client_via("n2");
    for round in 0..3 {
        assert_eq!(values(&client, &format!("after {round}")), 1, "{round}");
    }
}

#[test]
fn a_copy_that_starts_without_being_told_to_recover_says_what_to_do_and_leaves_everything_as_it_is() {
    let (lab, client) = set_back();
    std::fs::remove_file(lab.dir().join("n2/lost-its-disk")).unwrap();
    let _ = lab.command("restart n2");
    let log = lab.dir().join("n2/log");
    let denial = poll("the end of n2", || {
        let log = std::fs::read_to_string(&log).unwrap();
        log.lines().find(|line| line.contains("remembers more of this node")).map(str::to_owned)
    });
    assert!(denial.contains("--recover"), "{denial}");
    poll("no n2", || lab.pid_of("n2").is_none().then_some(()));
    assert!(lab.dir().join("n2/data").is_dir() && !lab.dir().join("n2/data.lost-1").exists());
    // The others go on.
    assert_eq!(values(&client, "after"), 1);
}

/// A cloned directory: a second process on a copy of it, while the node itself goes on. Both others count on what the copy lacks:
/// a member that did not would believe the clone, and deny the original then.
#[test]
fn a_clone_that_starts_beside_its_original_is_denied_and_the_original_goes_on() {
    let lab = TestLab::start(3);
    let client = lab.client_via("n1");
    put(&client, "before");
    lab.command("backup n2").ok();
    put(&client, "after");
    put(&lab.client_via("n3"), "after that");

    let original = lab.pid_of("n2").unwrap();
    let line = std::fs::read_to_string(format!("/proc/{original}/cmdline")).unwrap();
    let mut words: Vec<String> =
        line.split('\0').filter(|word| !word.is_empty()).map(str::to_owned).collect();
    let mut set = |name: &str, value: &str| {
        let at = words.iter().position(|word| word == name).unwrap();
        words[at + 1] = value.to_owned();
    };
    set("--data", lab.dir().join("n2/backup").to_str().unwrap());
    set("--listen", "127.0.0.1:0");
    let environment = std::fs::read_to_string(format!("/proc/{original}/environ")).unwrap();
    let mut clone = Command::new(&words[0])
        .args(&words[1..])
        .envs(environment.split('\0').filter_map(|entry| entry.split_once('=')))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A node of a lab ends with its standard input.
    let _stdin = clone.stdin.take();
    poll("the end of the clone", || clone.try_wait().unwrap());
    let clone = clone.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&clone.stdout) + String::from_utf8_lossy(&clone.stderr);
    assert!(!clone.status.success() && said.contains("remembers more of this node"), "{said}");

    assert_eq!(lab.pid_of("n2"), Some(original));
    put(&client, "beside it");
    let (_, amnesia) = poll("n2", || known(&client, "n2"));
    assert_eq!(amnesia, 0, "nobody takes the original for the clone");
    lab.command("kill n1").ok();
    let client = lab.client_via("n2");
    for key in ["before", "after", "after that", "beside it"] {
        assert_eq!(values(&client, key), 1, "{key}");
    }
}

#[test]
fn every_ordinary_restart_is_believed() {
    let lab = TestLab::start(3);
    let client = lab.client_via("n1");
    for round in 0..3 {
        put(&client, &format!("key {round}"));
        lab.command("kill n2").ok();
        lab.command("restart n2").ok();
        lab.command("restart all").ok();
    }
    put(&client, "last");
    let (_, amnesia) = poll("n2", || known(&client, "n2"));
    assert_eq!(amnesia, 0, "nothing was lost, and nobody was denied");
}
