//! Nodes that are started wrongly.

use super::program::free_address;
use super::*;

fn free() -> String {
    free_address().to_string()
}

#[test]
fn a_misspelt_setting_is_named_together_with_those_that_there_are() {
    let place = Place::new();
    let data = place.text("data");
    for (text, words) in [
        (format!("data = '{data}'\nsegment = 1\n"), ["unknown field `segment`", "`seeds`", "line 2"]),
        (
            format!("data = '{data}'\n[disk]\nsegment_byte = 1\n"),
            ["unknown field `segment_byte`", "`segment_bytes`", "line 3"],
        ),
        (format!("data = '{data}'\n[dsk]\n"), ["unknown field `dsk`", "`disk`", "line 2"]),
        (format!("data = '{data}'\nweight = 'two'\n"), ["invalid type", "u16", "line 2"]),
        ("data = \n".to_owned(), ["line 1", "node.toml", "not understood"]),
    ] {
        let config = place.write("node.toml", text.as_bytes());
        let ran = place.run(&["node", "--config", &config]).failed(1, &config);
        words.iter().for_each(|word| assert!(ran.err.contains(word), "{word:?} is not in {}", ran.err));
    }
    assert!(!place.path("data").exists(), "nothing was begun");
    place.run(&["node", "--config", &place.text("none.toml")]).failed(1, "none.toml");
}

#[test]
fn settings_without_sense_are_refused_before_anything_is_begun() {
    let place = Place::new();
    let data = place.text("data");
    for (arguments, words) in [
        (&["--seed", "nowhere"][..], "seeds: "),
        (&["--listen", "127.0.0.1"], "listen: "),
        (&["--name", "not a name"], "name: "),
        (&["--found", "0"], "found: "),
        (&["--weight", "0"], "weight: "),
        (&["--replicas", "0"], "replicas: "),
        (&["--cert", "x.pem"], "go together"),
    ] {
        let ran = place.run(&[&["node", "--data", &data], arguments].concat());
        ran.failed(1, words);
    }
    assert!(!place.path("data").exists());
    place.run(&["node", "--weight", "x"]).failed(2, "--weight");
}

#[test]
fn a_used_port_is_named() {
    let mut victim = Victim::start();
    let (data, address) = (victim.place.text("other"), victim.address.clone());
    let node = ["node", "--data", &data, "--name", "n2", "--listen", &address];
    let port = victim.address().port();
    victim.place.run(&node).failed(1, &format!("UDP port {port} at 127.0.0.1 is in use"));
    victim.is_unharmed();
}

#[test]
fn a_directory_in_use_stays_with_its_node() {
    let mut victim = Victim::start();
    let data = victim.place.text("data");
    let node = ["node", "--data", &data, "--name", "n1", "--listen", &free()];
    victim.place.run(&node).failed(1, &format!("{data} is in use by another process"));
    victim.is_unharmed();
}

/// Stops the victim, tries to start a node with its data and these arguments, which must fail with these words, and
/// brings the victim back.
fn misuse_the_data_of(mut victim: Victim, arguments: &[&str], words: &str) {
    victim.node.child.kill().unwrap();
    victim.node.child.wait().unwrap();
    let (data, address) = (victim.place.text("data"), victim.address.clone());
    let node = ["node", "--data", &data, "--listen", &address];
    victim.place.run(&[&node, arguments].concat()).failed(1, words);
    (victim.node, victim.address) = victim.place.lone_node();
    victim.is_unharmed();
}

#[test]
fn data_of_another_node_is_refused() {
    let words = "the data belongs to node n1, not to n2: start it as n1, or give n2 a directory of its own";
    misuse_the_data_of(Victim::start(), &["--name", "n2"], words);
}

#[test]
fn data_of_another_cluster_is_refused() {
    let words = "belongs to cluster starling, not to shop: start the node with --cluster starling";
    misuse_the_data_of(Victim::start(), &["--name", "n1", "--cluster", "shop"], words);
}

#[test]
fn data_of_another_format_or_of_none_is_refused() {
    let place = Place::new();
    let data = place.text("data");
    std::fs::create_dir(&data).unwrap();
    place.write("data/format", b"starling-data 99 00\n");
    let node = ["node", "--name", "n1", "--listen", &free(), "--data"];
    place.run(&[&node[..], &[&data]].concat()).failed(1, "Use the version of starling that wrote it");
    let file = place.write("file", b"x");
    place.run(&[&node[..], &[&file]].concat()).failed(1, "file is not a directory");
}

#[test]
fn two_clusters_of_one_name_do_not_mix() {
    let mut one = Victim::start();
    let (data, address) = (one.place.text("two"), free());
    let two = ["--data", &data, "--name", "n2", "--listen", &address];
    let run = |place: &Place, words: &[&str]| place.run(&[words, &["--connect", &address]].concat());
    let node = one.place.node(&two);
    eventually("the second cluster", || run(&one.place, &["put", "k", "two"]).code == Some(0));
    drop(node);
    let mut node = one.place.node(&[&two[..], &["--seed", &one.address]].concat());
    logs(&node, "this node to cluster");
    eventually("it serves its own", || run(&one.place, &["get", "k"]).out == "two\n");
    assert_eq!(one.run(&["get", "k", "--json"]).ok().json()["values"], serde_json::json!([]));
    assert_eq!(one.run(&["members", "--json"]).ok().json_lines().len(), 1);
    assert_eq!(node.child.try_wait().unwrap(), None);
    // Whoever notices first says so; the words of the other one say which side they are of.
    one.logs("this node to cluster");
    one.is_unharmed();
    let told = one.node.log().matches("refused a peer").count();
    assert_eq!(told, 1, "it tells of every attempt:\n{}", one.node.log());
}

#[test]
fn a_seed_that_does_not_answer_is_named_and_waited_for() {
    let place = Place::new();
    let (seed, own, data) = (free(), free(), place.text("late"));
    let late = place.node(&["--data", &data, "--name", "n2", "--listen", &own, "--seed", &seed]);
    logs(&late, &format!("nobody answers at {seed}"));
    let status = place.run(&["status", "--json", "--connect", &own]).ok().json();
    assert_eq!(status["serving"], serde_json::json!(false), "{status}");
    let get = place.run(&["get", "k", "--deadline", "1s", "--connect", &own]);
    assert_eq!(get.code, Some(1), "{get:?}");
    let first = place.text("first");
    let _seed = place.node(&["--data", &first, "--name", "n1", "--listen", &seed]);
    eventually("the late one joins", || {
        place.run(&["members", "--json", "--connect", &seed]).out.lines().count() == 2
    });
    let told = late.log().matches(&format!("nobody answers at {seed}")).count();
    assert_eq!(told, 1, "once, not at every attempt:\n{}", late.log());
}

#[test]
fn surplus_founders_are_told() {
    let place = Place::new();
    let (one, two) = (free(), free());
    let found = |name: &str, listen: &str, seed: &str| {
        let data = place.text(name);
        place.node(&["--data", &data, "--name", name, "--listen", listen, "--seed", seed, "--found", "2"])
    };
    let (_n1, _n2) = (found("n1", &one, &two), found("n2", &two, &one));
    eventually("the cluster", || place.run(&["put", "k", "v", "--connect", &one]).code == Some(0));
    let (three, data) = (free(), place.text("n3"));
    let surplus = found("n3", &three, &one);
    let words = "was founded without this node; start it without --found";
    logs(&surplus, words);
    assert!(place.run(&["status", "--connect", &three]).ok().out.contains(words), "its status says so too");
    place.run(&["get", "k", "--deadline", "1s", "--connect", &three]).failed(1, words);
    drop(surplus);
    let _n3 = place.node(&["--data", &data, "--name", "n3", "--listen", &three, "--seed", &one]);
    eventually("it is a member that learns", || {
        place.run(&["members", "--json", "--connect", &one]).out.contains("learning")
    });
    place.run(&["get", "k", "--connect", &two]).ok();
}
