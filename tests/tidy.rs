//! The repository checks itself: what the compiler does not see of its own rules.
//!
//! Layers, who may name which library, file length, what may lie at the top level, unfinished work.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// All Rust files below `folder`, as (path from the root, text).
fn sources(folder: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut open = vec![root().join(folder)];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
            let path = entry.expect("a readable directory").path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root()).expect("below the root").to_string_lossy().into_owned();
                found.push((name, fs::read_to_string(&path).expect("readable text")));
            }
        }
    }
    found.sort();
    assert!(!found.is_empty(), "no sources below {folder}: the check would prove nothing");
    found
}

/// The code without comments and without what stands in doc text.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .map(|(at, line)| (at + 1, line.split("//").next().unwrap_or("")))
        .filter(|(_, l)| !l.is_empty())
}

fn is_test(path: &str) -> bool {
    path.contains("/tests") || path.ends_with("laws.rs") || path.contains("/laws/")
}

fn complain(found: &[String]) {
    assert!(found.is_empty(), "{} findings:\n{}", found.len(), found.join("\n"));
}

/// Which worlds and layers of the crate a layer may name. The order of the list is the order of the house.
const LAYERS: &[(&str, &[&str])] = &[
    ("src/protocol/causality", &["causality", "codec", "config", "id", "planted", "rng", "time", "ring"]),
    ("src/protocol/ring", &["ring", "codec", "id", "rng", "time"]),
    (
        "src/protocol/storage",
        &["storage", "ring", "causality", "codec", "config", "id", "planted", "rng", "time"],
    ),
    ("src/protocol/wire", &["wire", "ring", "storage", "causality", "codec", "config", "id", "rng", "time"]),
    (
        "src/protocol/membership",
        &[
            "membership",
            "output",
            "wire",
            "ring",
            "storage",
            "causality",
            "codec",
            "config",
            "id",
            "rng",
            "time",
            "input",
        ],
    ),
    (
        "src/protocol/antientropy",
        &[
            "antientropy",
            "ledger",
            "wire",
            "ring",
            "storage",
            "causality",
            "codec",
            "config",
            "id",
            "planted",
            "rng",
            "time",
        ],
    ),
    (
        "src/protocol/replication",
        &[
            "replication",
            "ledger",
            "output",
            "wire",
            "ring",
            "storage",
            "causality",
            "codec",
            "config",
            "id",
            "planted",
            "rng",
            "time",
            "input",
        ],
    ),
];

#[test]
fn layers_point_downwards() {
    let mut found = Vec::new();
    for (folder, allowed) in LAYERS {
        let allowed: BTreeSet<&str> = allowed.iter().copied().collect();
        for (path, text) in sources(folder) {
            for (line, code) in code(&text) {
                for named in code.split("crate::protocol::").skip(1) {
                    let layer: String =
                        named.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                    if !layer.is_empty() && !allowed.contains(layer.as_str()) {
                        found.push(format!("{path}:{line}: {folder} may not name protocol::{layer}"));
                    }
                }
            }
        }
    }
    complain(&found);
}

/// Which other worlds a world may name.
const WORLDS: &[(&str, &[&str])] = &[
    ("src/protocol", &["protocol"]),
    ("src/sim", &["protocol", "sim"]),
    ("src/transport", &["protocol", "transport"]),
    ("src/server", &["protocol", "transport", "server"]),
    ("src/client", &["protocol", "transport", "client"]),
    ("src/lab", &["protocol", "transport", "client", "sim", "lab"]),
];

/// The parts of the simulator that are about what clients saw, and not about a simulated world: those that the lab may name.
const OF_CLIENTS: &[&str] = &["history", "invariants", "scenario"];

#[test]
fn worlds_meet_only_at_the_protocol() {
    let mut found = Vec::new();
    for (folder, allowed) in WORLDS {
        if !root().join(folder).exists() {
            found.push(format!("{folder} is gone; mend this list"));
            continue;
        }
        for (path, text) in sources(folder) {
            for (line, code) in code(&text) {
                for named in code.split("crate::").skip(1) {
                    let world: String =
                        named.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                    let is_world = WORLDS.iter().any(|(folder, _)| folder.ends_with(&format!("/{world}")))
                        || world == "cli";
                    if is_world && !allowed.contains(&world.as_str()) {
                        found.push(format!("{path}:{line}: {folder} may not name {world}"));
                    }
                    let part = named.strip_prefix("sim::").filter(|_| *folder == "src/lab");
                    if let Some(part) = part
                        && !OF_CLIENTS.iter().any(|allowed| part.starts_with(allowed))
                    {
                        found.push(format!("{path}:{line}: {folder} may name sim::{OF_CLIENTS:?} only"));
                    }
                }
            }
        }
    }
    complain(&found);
}

#[test]
fn libraries_stay_where_they_can_be_replaced() {
    // A library, and the only places that may name it.
    let rules: &[(&str, &[&str])] = &[
        ("bincode", &["src/protocol/codec.rs"]),
        ("sled", &["src/server/disk/sled.rs"]),
        (
            "async_std",
            &["src/server/", "src/transport/", "src/client/", "src/cli/", "src/lab/", "src/main.rs"],
        ),
        ("quinn", &["src/transport/"]),
        ("rustls", &["src/transport/"]),
        ("rcgen", &["src/transport/"]),
        ("rand_chacha", &["src/protocol/rng.rs"]),
        ("blake3", &["src/protocol/causality/context.rs", "src/transport/afterlife.rs"]),
    ];
    let mut found = Vec::new();
    for (path, text) in sources("src") {
        for (line, code) in code(&text) {
            for (library, places) in rules {
                let names = code.match_indices(&format!("{library}::")).any(|(at, _)| {
                    !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':')
                });
                if names && !places.iter().any(|place| path.starts_with(place)) {
                    found.push(format!("{path}:{line}: {library} may be named in {places:?} only"));
                }
            }
        }
    }
    complain(&found);
}

#[test]
fn the_pure_worlds_use_no_platform_floats() {
    // Their last digits differ from machine to machine, and rings and simulations must not.
    let banned =
        [".ln()", ".exp()", ".sqrt()", ".powf(", ".powi(", ".log2()", ".log10()", ".sin()", ".cos()"];
    let mut found = Vec::new();
    for folder in ["src/protocol", "src/sim"] {
        for (path, text) in sources(folder) {
            for (line, code) in code(&text) {
                if let Some(name) = banned.iter().find(|name| code.contains(**name)) {
                    found.push(format!("{path}:{line}: {name}"));
                }
            }
        }
    }
    complain(&found);
}

#[test]
fn files_hold_one_noun() {
    let mut found = Vec::new();
    for folder in ["src", "tests"] {
        for (path, text) in sources(folder) {
            let (lines, limit) =
                (text.lines().count(), if is_test(&path) || folder == "tests" { 800 } else { 600 });
            if lines > limit {
                found.push(format!(
                    "{path}: {lines} lines, at most {limit}; is there more than one noun in it?"
                ));
            }
        }
    }
    complain(&found);
}

#[test]
fn nothing_is_left_unfinished() {
    let marks = ["todo!(", "unimplemented!(", "FIXME", "XXX", "#[ignore"];
    let mut found = Vec::new();
    for folder in ["src", "tests"] {
        for (path, text) in sources(folder) {
            if path == "tests/tidy.rs" {
                continue;
            }
            for (at, line) in text.lines().enumerate() {
                if let Some(mark) = marks.iter().find(|mark| line.contains(**mark)) {
                    found.push(format!("{path}:{}: {mark}", at + 1));
                }
            }
        }
    }
    complain(&found);
}

#[test]
fn the_top_level_is_as_agreed() {
    let allowed = [
        "Cargo.toml",
        "Cargo.lock",
        "src",
        "tests",
        "deploy",
        "docs",
        "README.md",
        "LICENSE-MIT",
        "LICENSE-APACHE",
        "target",
    ];
    let mut found = Vec::new();
    for entry in fs::read_dir(root()).expect("the root is readable") {
        let name = entry.expect("a readable entry").file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') && !allowed.contains(&name.as_str()) {
            found.push(format!("{name} does not belong at the top level"));
        }
    }
    complain(&found);
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut open = vec![root().join("docs"), root().join("README.md")];
    let mut found = Vec::new();
    let mut seen = 0;
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(fs::read_dir(&path).expect("readable").map(|entry| entry.expect("readable").path()));
            continue;
        }
        if path.extension().is_none_or(|extension| extension != "md") {
            continue;
        }
        seen += 1;
        let text = fs::read_to_string(&path).expect("readable text");
        let folder = path.parent().unwrap_or(Path::new("."));
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = target.split('#').next().unwrap_or("");
            if !target.is_empty() && !target.contains("://") && !folder.join(target).exists() {
                found.push(format!("{}: {target}", path.strip_prefix(root()).expect("below").display()));
            }
        }
    }
    assert!(seen > 3, "only {seen} documents found");
    complain(&found);
}
