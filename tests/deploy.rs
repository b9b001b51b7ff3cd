//! What lies in `deploy/` is true: the example configuration loads and names the defaults, the unit is one.
#![cfg(feature = "server")]
#![allow(clippy::unwrap_used, reason = "tests may panic")]

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use starling::server::config::{LogFormat, Settings};

fn deploy(file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("deploy").join(file)
}

/// The example with every default in force by name: `#name = value` without the mark.
fn spelled_out(example: &str) -> String {
    let uncommented = |line: &str| {
        let named = line.strip_prefix('#').filter(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase()));
        format!("{}\n", named.unwrap_or(line))
    };
    example.lines().map(uncommented).collect()
}

#[test]
fn the_example_configuration_loads_and_its_comments_name_the_defaults() {
    let dir = tempfile::tempdir().unwrap();
    let full = dir.path().join("full.toml");
    fs::write(&full, spelled_out(&fs::read_to_string(deploy("node.example.toml")).unwrap())).unwrap();
    let (example, full) =
        (Settings::load(&deploy("node.example.toml")).unwrap(), Settings::load(&full).unwrap());

    // Every setting is in the example, but for the three files that differ from node to node. The debug form is the
    // one place that lists all fields of all tables.
    let shown = format!("{full:#?}");
    let unset: Vec<&str> = shown.lines().filter(|line| line.ends_with(": None,")).map(str::trim).collect();
    assert_eq!(unset, ["ca: None,", "cert: None,", "key: None,"]);
    let defaults = shown.lines().filter(|line| line.contains(": Some(")).count()
        - format!("{example:#?}").lines().filter(|line| line.contains(": Some(")).count();
    assert!(defaults > 20, "only {defaults} defaults are in comments: this test would prove little");

    // Spelling out the defaults changes nothing.
    let (example, full) = (example.resolve().unwrap(), full.resolve().unwrap());
    assert_eq!(format!("{example:#?}"), format!("{full:#?}"));
    assert_eq!(example.node.name.as_str(), "n1");
    assert_eq!((example.node.seeds.len(), example.node.found), (2, Some(3)));
    assert_eq!(example.log.format, LogFormat::Text);
    assert!(!example.faults);
}

#[test]
fn a_misspelt_setting_is_named_together_with_the_known_ones() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("node.toml");
    let text = fs::read_to_string(deploy("node.example.toml")).unwrap();
    fs::write(&path, text.replace("found = 3", "founds = 3")).unwrap();
    let error = Settings::load(&path).unwrap_err().to_string();
    assert!(error.contains("founds") && error.contains("`found`") && error.contains("node.toml"), "{error}");
}

#[test]
fn the_unit_is_one_that_systemd_understands() {
    let unit = fs::read_to_string(deploy("starling.service")).unwrap();
    let program = "/usr/local/bin/starling";
    assert!(unit.contains(&format!("ExecStart={program} node ")), "{unit}");
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        eprintln!("there is no systemd-analyze here: the unit is not verified");
        return;
    }
    // The check wants the program to exist; where it will be installed is not here.
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("starling.service");
    fs::write(&copy, unit.replace(program, env!("CARGO_BIN_EXE_starling"))).unwrap();
    let ran = Command::new("systemd-analyze").arg("verify").arg("--man=no").arg(&copy).output().unwrap();
    let said = String::from_utf8_lossy(&ran.stderr);
    // Other units of the machine may be at fault; what concerns ours names it.
    let ours: Vec<&str> = said.lines().filter(|line| line.contains("starling")).collect();
    assert!(ran.status.success() && ours.is_empty(), "{said}");
}
