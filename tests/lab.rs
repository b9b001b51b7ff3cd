//! The lab, as real processes: what it promises, and that nothing outlives it.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "tests wait with real deadlines and may panic"
)]

use std::process::Stdio;

use serde_json::Value;

#[path = "support/program.rs"]
mod program;

use program::{Place, eventually, runs, signal};

/// A detached lab that is stopped when the test ends, however it ends.
struct Detached<'a> {
    place: &'a Place,
    dir: String,
}

impl<'a> Detached<'a> {
    fn start(place: &'a Place, nodes: &str) -> Detached<'a> {
        let dir = place.text("lab");
        place.run(&["lab", "--dir", &dir, "--nodes", nodes, "--detach"]).ok();
        Detached { place, dir }
    }

    fn command(&self, line: &str) -> program::Ran {
        self.place.run(&["lab", "--dir", &self.dir, "--json", line])
    }

    fn status(&self) -> Vec<Value> {
        self.command("status").ok().json_lines()
    }

    fn pids(&self) -> Vec<u64> {
        self.status().iter().filter_map(|node| node["pid"].as_u64()).collect()
    }

    fn supervisor(&self) -> u64 {
        std::fs::read_to_string(self.place.path("lab/lab.lock")).unwrap().trim().parse().unwrap()
    }

    fn get(&self, key: &str, more: &[&str]) -> program::Ran {
        let mut arguments = vec!["get", key, "--json", "--lab", &self.dir];
        arguments.extend_from_slice(more);
        self.place.run(&arguments)
    }
}

impl Drop for Detached<'_> {
    fn drop(&mut self) {
        let _ = self.command("stop");
    }
}

#[test]
fn a_script_runs_from_standard_input_and_everything_ends_with_it() {
    let place = Place::new();
    let dir = place.text("lab");
    let script = "# a comment\nput k 'v 1'\nget k\nstatus\nring k\nmembers n2\nhelp\nstop\n";
    let ran = place.run_with(&["lab", "--dir", &dir, "--nodes", "3"], script).ok();
    assert!(ran.out.contains("k: committed at ") && ran.out.contains(r#"k: "v 1""#), "{ran:#?}");
    assert!(ran.out.contains("k: slot ") && ran.err.contains("3 nodes are running"), "{ran:#?}");
    let failing = "kill n9\nget k\n";
    let ran = place.run_with(&["lab", "--dir", &dir, "--json"], failing).failed(1, "there is no node \"n9\"");
    let lines = ran.json_lines();
    assert_eq!((&lines[0]["command"], &lines[0]["done"]), (&"kill".into(), &false.into()));
    assert_eq!(lines[1]["values"], serde_json::json!(["v 1"]), "the same cluster came back: {lines:?}");
    place.run(&["get", "k", "--lab", &dir]).failed(1, "no node could be reached");
    place.run(&["lab", "--dir", &dir, "status"]).failed(1, "no lab is running in");
    place.run(&["lab", "--dir", &dir, "--nodes", "4"]).failed(1, "has 3 nodes");
}

#[test]
fn a_partition_serves_each_key_on_the_side_of_its_majority_and_heals_with_both_siblings() {
    let place = Place::new();
    let lab = Detached::start(&place, "3");
    place.run(&["put", "k", "old", "--w", "all", "--lab", &lab.dir]).ok();
    let context = lab.get("k", &[]).ok().json()["context"].as_str().unwrap().to_owned();
    lab.command("partition n1 | n2,n3").ok();
    let refused = lab.get("k", &["--via", "n1", "--deadline", "2s"]);
    assert_eq!(refused.code, Some(1), "{refused:#?}");
    assert_eq!(refused.json()["outcome"], "unavailable");
    let one = lab.get("k", &["--via", "n1", "--r", "one"]).ok().json();
    assert_eq!((&one["values"], &one["replies"]), (&serde_json::json!(["old"]), &serde_json::json!(["n1"])));
    let put = |value: &str, via: &str, w: &str| {
        place
            .run(&[
                "put",
                "k",
                value,
                "--context",
                &context,
                "--via",
                via,
                "--w",
                w,
                "--json",
                "--lab",
                &lab.dir,
            ])
            .ok()
            .json()
    };
    assert_eq!(put("left", "n1", "one")["acks"], serde_json::json!(["n1"]));
    assert_eq!(put("right", "n2", "majority")["acks"], serde_json::json!(["n2", "n3"]));
    lab.command("heal").ok();
    lab.command("wait").ok();
    let mut both = lab.get("k", &["--r", "all"]).ok().json();
    let values = both["values"].as_array_mut().unwrap();
    values.sort_by_key(|value| value.as_str().unwrap().to_owned());
    assert_eq!(*values, ["left", "right"]);
    let context = both["context"].as_str().unwrap();
    place.run(&["put", "k", "merged", "--context", context, "--w", "all", "--lab", &lab.dir]).ok();
    assert_eq!(lab.get("k", &["--r", "all"]).ok().json()["values"], serde_json::json!(["merged"]));
}

#[test]
fn nodes_are_killed_restarted_paused_and_resumed_and_faults_outlast_it() {
    let place = Place::new();
    let lab = Detached::start(&place, "3");
    place.run(&["put", "k", "v", "--w", "all", "--lab", &lab.dir]).ok();
    place.run(&["lab", "--dir", &lab.dir, "--nodes", "3", "--detach"]).failed(1, "a lab is running in");

    lab.command("kill n2").ok();
    let killed = &lab.status()[1];
    assert_eq!((&killed["process"], &killed["pid"]), (&"down".into(), &Value::Null));
    assert_eq!(lab.get("k", &[]).ok().json()["values"], serde_json::json!(["v"]));

    lab.command("cut n1 > n2").ok();
    lab.command("delay 5ms n2 > n3").ok();
    lab.command("restart n2").ok();
    let status = lab.status();
    assert_eq!(status[0]["faults"], serde_json::json!(["cut > n2"]));
    assert_eq!(status[1]["faults"], serde_json::json!(["delay 5±0 ms > n3"]));
    assert_eq!(status[1]["process"], "running");

    lab.command("pause n3").ok();
    assert_eq!(lab.status()[2]["process"], "paused");
    let healed = lab.command("heal").ok().json();
    assert!(healed["said"].to_string().contains("n3: paused, will be told when it is resumed"), "{healed}");
    lab.command("resume n3").ok();
    lab.command("wait").ok();
    assert_eq!(lab.get("k", &["--r", "all"]).ok().json()["values"], serde_json::json!(["v"]));

    let pids = lab.pids();
    let supervisor = lab.supervisor();
    lab.command("stop").ok();
    assert!(pids.iter().all(|pid| !runs(*pid)), "stop returns when all is over");
    eventually("the supervisor ends", || !runs(supervisor));
    place.run(&["lab", "--dir", &lab.dir, "--detach"]).ok();
    assert_eq!(lab.get("k", &["--r", "all"]).ok().json()["values"], serde_json::json!(["v"]));
    assert_eq!(lab.status().len(), 3);
}

#[test]
fn nothing_outlives_a_lab_that_is_killed_not_even_what_is_paused() {
    let place = Place::new();
    let lab = Detached::start(&place, "3");
    lab.command("pause n2").ok();
    let pids = lab.pids();
    assert_eq!(pids.len(), 3);
    signal(lab.supervisor(), "-KILL");
    eventually("all nodes are gone", || pids.iter().all(|pid| !runs(*pid)));
    // And the directory is as good as before.
    eventually("the lab starts again", || place.run(&["lab", "--dir", &lab.dir, "--detach"]).code == Some(0));
    assert_eq!(lab.pids().len(), 3);
}

#[test]
fn a_lab_whose_process_is_stopped_is_not_waited_for_for_ever() {
    let place = Place::new();
    let lab = Detached::start(&place, "1");
    let supervisor = lab.supervisor();
    signal(supervisor, "-STOP");
    let ran = lab.command("status");
    signal(supervisor, "-CONT");
    assert_eq!(ran.code, Some(1), "{}", ran.err);
    assert!(ran.err.contains(&format!("kill -CONT {supervisor}")), "{}", ran.err);
    assert_eq!(lab.status().len(), 1);
}

#[test]
fn a_signal_ends_a_lab_in_good_order() {
    let place = Place::new();
    let dir = place.text("lab");
    let mut child = place
        .command(&["lab", "--dir", &dir, "--nodes", "3"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    eventually("the lab runs", || place.run(&["lab", "--dir", &dir, "status"]).code == Some(0));
    let status = place.run(&["lab", "--dir", &dir, "--json", "status"]).ok().json_lines();
    let pids: Vec<u64> = status.iter().filter_map(|node| node["pid"].as_u64()).collect();
    assert_eq!(pids.len(), 3);
    signal(u64::from(child.id()), "-TERM");
    assert!(child.wait().unwrap().success());
    assert!(pids.iter().all(|pid| !runs(*pid)));
    let log = std::fs::read_to_string(place.path("lab/n1/log")).unwrap();
    assert!(log.trim_end().ends_with("stopped"), "{log}");
}

#[test]
fn a_port_that_was_taken_meanwhile_is_replaced() {
    let place = Place::new();
    let dir = place.text("lab");
    place.run_with(&["lab", "--dir", &dir, "--nodes", "3"], "put k v w=all\n").ok();
    let record: Value = serde_json::from_slice(&std::fs::read(place.path("lab/lab.json")).unwrap()).unwrap();
    let address = record["nodes"][1]["address"].as_str().unwrap();
    let _thief = std::net::UdpSocket::bind(address).unwrap();
    let ran = place.run_with(&["lab", "--dir", &dir, "--json"], "status\nget k r=all\n").ok();
    let lines = ran.json_lines();
    assert_ne!(lines[1]["address"], address);
    assert_eq!(lines[3]["values"], serde_json::json!(["v"]));
}
