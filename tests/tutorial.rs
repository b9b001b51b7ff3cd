//! The walk of `docs/tutorial.md`, smaller: real processes, a package index, a kill, a partition, a conflict, a restart.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "tests wait with real deadlines and may panic"
)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::Stdio;

use serde_json::{Value, json};

#[path = "support/program.rs"]
mod program;

use program::{Place, Ran, eventually};

/// How many packages the index has.
const PACKAGES: usize = 2_000;

/// A detached lab of five nodes that is stopped when the test ends, however it ends.
struct Walk {
    place: Place,
    dir: String,
}

impl Drop for Walk {
    fn drop(&mut self) {
        let _ = self.command("stop");
    }
}

impl Walk {
    fn begin() -> Walk {
        let place = Place::new();
        let dir = place.text("lab");
        let walk = Walk { place, dir };
        walk.start();
        walk
    }

    fn start(&self) {
        self.place.run(&["lab", "--dir", &self.dir, "--detach"]).ok();
    }

    fn command(&self, line: &str) -> Ran {
        self.place.run(&["lab", "--dir", &self.dir, "--json", line])
    }

    /// Runs operations one by one in one shell; the answers in order.
    fn shell(&self, operations: &[Value]) -> Vec<Value> {
        let mut input = String::new();
        for operation in operations {
            writeln!(input, "{operation}").unwrap();
        }
        let ran = self.place.run_with(&["shell", "--json", "--lab", &self.dir], &input);
        let answers = ran.json_lines();
        assert_eq!(answers.len(), operations.len(), "{}", ran.err);
        answers
    }

    fn one(&self, operation: Value) -> Value {
        self.shell(&[operation]).remove(0)
    }

    /// Keys at all nodes together: every record counts once for each owner that has it.
    fn copies(&self) -> u64 {
        self.command("status").ok().json_lines().iter().filter_map(|node| node["keys"].as_u64()).sum()
    }

    fn owners(&self, key: &str) -> Vec<String> {
        let ring = self.command(&format!("ring {key}")).ok().json();
        ring["owners"].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect()
    }

    /// Every record is there, byte for byte, and none has a sibling.
    fn verify(&self, index: &BTreeMap<String, String>) {
        let gets: Vec<Value> = index.keys().map(|key| json!({"op": "get", "key": key})).collect();
        for (answer, (key, value)) in self.shell(&gets).iter().zip(index) {
            assert_eq!(answer["key"], json!(key), "{answer}");
            assert_eq!(answer["values"], json!([value]), "{answer}");
        }
    }
}

/// Stanzas like those of a package index: some 800 bytes, with everything that JSON has to escape, and a key each.
fn index() -> BTreeMap<String, String> {
    let stanza = |number: usize| {
        let name = format!("package-{number}");
        let mut text = format!(
            "Package: {name}\nVersion: 1.{number}\nMaintainer: Zoë \"the packager\" <z@example.org>\n"
        );
        for part in 0..12 {
            writeln!(text, "Depends: lib{part}-{number} (>= 0.{part}), \\\tβeta | γamma-{}", number * part)
                .unwrap();
        }
        (name, text)
    };
    (0..PACKAGES).map(stanza).collect()
}

/// As `starling import` reads them.
fn lines(index: &BTreeMap<String, String>) -> Vec<String> {
    index.iter().map(|(key, value)| format!("{}\n", json!({"key": key, "value": value}))).collect()
}

/// Imports the index, kills n2 when the first half was read, and gives the summary.
fn import_and_kill(walk: &Walk, lines: &[String]) -> Value {
    let arguments = ["import", "-", "--format", "jsonl", "--json", "--lab", &walk.dir];
    let mut child = walk
        .place
        .command(&arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let (before, after) = lines.split_at(lines.len() / 2);
    before.iter().for_each(|line| input.write_all(line.as_bytes()).unwrap());
    eventually("the import is on its way", || walk.copies() > PACKAGES as u64 / 2);
    walk.command("kill n2").ok();
    after.iter().for_each(|line| input.write_all(line.as_bytes()).unwrap());
    drop(input);
    let ended = child.wait_with_output().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    serde_json::from_slice(&ended.stdout).unwrap()
}

/// Under `partition n1,n2 | n3,n4,n5`: is each key served where two of its three owners are, and only there?
fn each_key_on_the_side_of_its_majority(walk: &Walk, index: &BTreeMap<String, String>) {
    // How many owners are on the side of n1 and n2. All three cases occur among few keys.
    let mut cases: BTreeMap<usize, &String> = BTreeMap::new();
    let mut keys = index.keys();
    while cases.len() < 3 {
        let key = keys.next().expect("2,000 keys hold every case");
        let here = walk.owners(key).iter().filter(|owner| *owner == "n1" || *owner == "n2").count();
        cases.entry(here).or_insert(key);
    }
    let get = |key: &str, via: &str, r: &str| json!({"op": "get", "key": key, "via": via, "r": r, "deadline": "1s"});
    for (here, key) in cases {
        let value = json!([index[key]]);
        let (served, refused) = if here == 2 { ("n1", "n3") } else { ("n3", "n1") };
        let refused_there = get(key, refused, "majority");
        // Until the nodes have noticed the partition, the refusal is a deadline that passed.
        eventually("the minority says why", || {
            let answer = walk.one(refused_there.clone());
            assert_eq!(answer["outcome"], "unavailable", "{answer}");
            answer["error"]["message"].as_str().unwrap().contains("of the key's 3 owners are needed")
        });
        assert_eq!(walk.one(get(key, served, "majority"))["values"], value);
        let one = walk.one(get(key, refused, "one"));
        if here == 0 {
            assert_eq!(one["outcome"], "unavailable", "no owner is there: {one}");
        } else {
            assert_eq!(one["values"], value, "{one}");
        }
    }
}

/// Writes one key on both sides, heals, and resolves what came of it. Gives the key and its value.
fn conflict_and_resolution(walk: &Walk, index: &BTreeMap<String, String>) -> (String, String) {
    let split = |key: &&String| {
        let owners = walk.owners(key);
        owners.contains(&"n1".to_owned()) && owners.contains(&"n3".to_owned())
    };
    let key = index.keys().find(split).expect("a key of both sides");
    let seen = walk.one(json!({"op": "get", "key": key, "r": "one"}));
    let put = |value: &str, via: &str| json!({"op": "put", "key": key, "value": value, "context": seen["context"], "w": "one", "via": via});
    for answer in walk.shell(&[put("left", "n1"), put("right", "n3")]) {
        assert_eq!(answer["outcome"], "committed", "{answer}");
    }
    walk.command("heal").ok();
    walk.command("wait").ok();
    let both = walk.one(json!({"op": "get", "key": key, "r": "all"}));
    let mut values: Vec<&str> = both["values"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    values.sort_unstable();
    assert_eq!(values, ["left", "right"], "{both}");
    let merged = "left and right";
    let resolved =
        walk.one(json!({"op": "put", "key": key, "value": merged, "context": both["context"], "w": "all"}));
    assert_eq!((&resolved["outcome"], &resolved["siblings"]), (&json!("committed"), &json!(1)), "{resolved}");
    (key.clone(), merged.to_owned())
}

#[test]
fn a_package_index_survives_a_kill_a_partition_and_a_restart() {
    let walk = Walk::begin();
    let mut index = index();
    let lines = lines(&index);

    let summary = import_and_kill(&walk, &lines);
    assert_eq!((&summary["written"], &summary["failed"]), (&json!(PACKAGES), &json!(0)), "{summary}");
    walk.command("restart n2").ok();
    walk.command("wait").ok();

    walk.command("partition n1,n2 | n3,n4,n5").ok();
    each_key_on_the_side_of_its_majority(&walk, &index);
    let (key, value) = conflict_and_resolution(&walk, &index);
    index.insert(key, value);

    walk.command("stop").ok();
    walk.start();
    walk.verify(&index);

    // The import knows too what is there already, and puts back the one record that was changed since.
    let file = walk.place.write("packages.jsonl", lines.concat().as_bytes());
    let again = walk.place.run(&["import", &file, "--json", "--lab", &walk.dir]).ok().json();
    assert_eq!((&again["written"], &again["unchanged"]), (&json!(1), &json!(PACKAGES - 1)), "{again}");
}
