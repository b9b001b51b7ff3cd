//! Nodes whose data directory was damaged while they were down: they say so, and how to go on.

use std::fs;
use std::path::PathBuf;

use super::*;

/// The words that lead on.
const WAY_BACK: &str = "--recover";

/// What is damaged, and what the node says to it beside the way back.
type Case = (&'static str, fn(&Victim) -> PathBuf, fn(&mut Vec<u8>), &'static str);

fn segment(victim: &Victim) -> PathBuf {
    let files = fs::read_dir(victim.place.path("data/log")).unwrap().map(|file| file.unwrap().path());
    files.filter(|file| file.extension().is_some_and(|extension| extension == "seg")).min().unwrap()
}

#[test]
fn a_damaged_directory_is_refused_with_the_way_back_and_left_as_it_is() {
    let cases: [Case; 6] = [
        ("the head of the first group", segment, |bytes| bytes[9] ^= 1, "the log"),
        ("a length in it", segment, |bytes| bytes[33] ^= 0x40, "the log"),
        ("its body", segment, |bytes| bytes[70] ^= 2, "the log"),
        ("its checksum", segment, |bytes| bytes[50] ^= 0x80, "the log"),
        (
            "the name of the log",
            |victim| victim.place.path("data/format"),
            |bytes| bytes[20] = if bytes[20] == b'0' { b'1' } else { b'0' },
            "format is damaged",
        ),
        (
            "the name of the store",
            |victim| victim.place.path("data/current"),
            |bytes| *bytes = b"store-7 0123\n".to_vec(),
            "current is damaged",
        ),
    ];
    let mut victim = Victim::start();
    for (what, file, damage, words) in cases {
        victim.node.child.kill().unwrap();
        victim.node.child.wait().unwrap();
        let file = file(&victim);
        let good = fs::read(&file).ok();
        let mut bytes = good.clone().unwrap_or_default();
        damage(&mut bytes);
        fs::write(&file, &bytes).unwrap();
        let (data, address) = (victim.place.text("data"), victim.address.clone());
        let node = ["node", "--data", &data, "--name", "n1", "--listen", &address];
        let ran = victim.place.run(&node).failed(1, words);
        assert!(ran.err.contains(WAY_BACK), "{what}: {}", ran.err);
        assert_eq!(fs::read(&file).unwrap(), bytes, "{what} is left for whoever wants to know");
        match good {
            Some(good) => fs::write(&file, good).unwrap(),
            None => fs::remove_file(&file).unwrap(),
        }
        (victim.node, victim.address) = victim.place.lone_node();
        victim.is_unharmed();
    }
}
