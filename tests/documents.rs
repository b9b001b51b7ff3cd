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

/// The names of tests in the last cells of the tables of a document.
fn proofs(document: &str) -> Vec<String> {
    let text = read(document);
    let rows = text.lines().filter(|line| line.starts_with("| ")).skip(2);
    let cells = rows.map(|row| row.trim_end_matches('|').rsplit(" | ").next().unwrap());
    // Commands and files are not functions.
    let is_function =
        |name: &String| name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    cells.flat_map(quoted).filter(is_function).collect()
}

#[test]
fn tests_that_documents_name_as_proofs_are_there() {
    let mut functions_found = BTreeSet::new();
    for folder in ["src", "tests"] {
        functions(&root().join(folder), &mut functions_found);
    }
    for document in ["docs/patterns.md", "docs/findings.md"] {
        let named = proofs(document);
        assert!(named.len() > 15, "only {} tests found in {document}: it would prove nothing", named.len());
        let missing: Vec<&String> = named.iter().filter(|name| !functions_found.contains(*name)).collect();
        assert!(missing.is_empty(), "{document}: {missing:#?}");
    }
}

#[test]
fn scenarios_that_the_findings_name_are_there() {
    let text = read("docs/findings.md");
    let rows = text.lines().filter(|line| line.starts_with("| ")).skip(2);
    let named: Vec<String> = rows.filter_map(|row| row.rsplit(" | ").nth(1)).flat_map(quoted).collect();
    assert!(named.len() > 10, "only {} scenarios found: the check would prove nothing", named.len());
    for name in named {
        let file = root().join("tests/scenarios").join(&name).with_extension("scenario");
        assert!(file.exists(), "there is no scenario {name}");
    }
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
