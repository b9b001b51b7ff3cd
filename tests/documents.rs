//! What the documents say of the code is there: files, tests, and the program in the README.
#![allow(clippy::unwrap_used, reason = "tests may panic")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// What stands between backticks, outside of fenced code.
fn quoted(text: &str) -> Vec<String> {
    let mut fenced = false;
    let mut found = Vec::new();
    for line in text.lines() {
        if line.starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            found.extend(line.split('`').skip(1).step_by(2).map(str::to_owned));
        }
    }
    found
}

/// The names of all functions below `folder`, with the path of their file.
fn functions(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            functions(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            found.extend(text.lines().filter_map(|line| {
                let name = line.trim_start().strip_prefix("fn ")?.split(['(', '<']).next()?;
                Some(name.to_owned())
            }));
        }
    }
}

#[test]
fn files_that_documents_name_are_there() {
    let mut missing = Vec::new();
    let mut seen = 0;
    for document in [
        "README.md",
        "docs/architecture.md",
        "docs/protocol.md",
        "docs/patterns.md",
        "docs/lab.md",
        "docs/repair.md",
    ] {
        for name in quoted(&read(document)) {
            if name.ends_with(".rs") && !name.contains(' ') {
                seen += 1;
                // Files of the library are named from `src`, or from the world that the document is about.
                let places = ["", "src", "src/protocol"];
                if !places.iter().any(|place| root().join(place).join(&name).exists()) {
                    missing.push(format!("{document}: {name}"));
                }
            }
        }
    }
    assert!(seen > 30, "only {seen} files found: the check would prove nothing");
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn tests_that_the_tour_of_the_patterns_names_are_there() {
    let mut functions_found = BTreeSet::new();
    for folder in ["src", "tests"] {
        functions(&root().join(folder), &mut functions_found);
    }
    let mut missing = Vec::new();
    let mut seen = 0;
    for row in read("docs/patterns.md").lines().filter(|line| line.starts_with("| ")).skip(2) {
        let proof = row.trim_end_matches('|').rsplit(" | ").next().unwrap();
        for name in quoted(proof) {
            // Commands and files are not functions.
            if name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_') {
                seen += 1;
                if !functions_found.contains(&name) {
                    missing.push(name);
                }
            }
        }
    }
    assert!(seen > 15, "only {seen} tests found: the check would prove nothing");
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn the_program_in_the_readme_is_a_piece_of_the_example() {
    let readme = read("README.md");
    let program = readme.split("```rust\n").nth(1).unwrap().split("\n```").next().unwrap();
    let example: Vec<String> =
        read("tests/examples/read_modify_write.rs").lines().map(|line| line.trim().to_owned()).collect();
    let lines: Vec<&str> = program.lines().map(str::trim).collect();
    assert!(lines.len() > 10, "{program}");
    assert!(example.windows(lines.len()).any(|window| window == lines), "{program}");
}
