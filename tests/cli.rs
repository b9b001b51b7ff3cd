//! The command line against one real node: output, exit codes, bad input.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "tests wait with real deadlines and may panic"
)]

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use serde_json::json;

#[path = "support/program.rs"]
mod program;

use program::{Place, eventually, free_address};

#[test]
fn what_makes_no_sense_is_usage_and_ends_with_2() {
    let place = Place::new();
    for arguments in [
        &["frobnicate"][..],
        &["put", "k"],
        &["get", "k", "--r", "most"],
        &["get", "k", "--ca", "x"],
        &["put", "k", "v", "--context", "%"],
        &["lab", "status"],
        &["lab", "--detach"],
        &["get", "k", "--connect", "nowhere"],
        &["put", "!", "v", "--base64"],
    ] {
        let ran = place.run(arguments);
        assert_eq!(ran.code, Some(2), "{arguments:?} {ran:#?}");
        assert!(ran.out.is_empty() && !ran.err.is_empty(), "{ran:#?}");
    }
    place.run(&["--help"]).ok();
    place.run(&["lab", "--help"]).ok();
    assert!(place.run(&["completions", "bash"]).ok().out.contains("starling"));
}

#[test]
fn a_cluster_that_is_not_there_is_an_outcome() {
    let place = Place::new();
    let address = free_address().to_string();
    let get = place.run(&["get", "k", "--json", "--connect", &address]).failed(1, "no node could be reached");
    let answer = get.json();
    assert_eq!((&answer["outcome"], &answer["error"]["code"]), (&json!("unavailable"), &json!("connection")));
    let put = place.run(&["put", "k", "v", "--json", "--connect", &address]).failed(1, &address);
    assert_eq!(put.json()["outcome"], "not_applied");
    place.run(&["get", "k", "--lab", &place.text("none")]).failed(1, "there is no lab in");
}

#[test]
fn one_operation_at_a_time() {
    let place = Place::new();
    let (_node, address) = place.lone_node();
    let run = |arguments: &[&str]| place.run(&[arguments, &["--connect", &address]].concat());

    let absent = run(&["get", "k", "--json"]).ok().json();
    assert_eq!(
        (&absent["values"], &absent["deleted"], &absent["context"]),
        (&json!([]), &json!(false), &json!(null))
    );
    let put = run(&["put", "k", "v1", "--json"]).ok().json();
    assert_eq!(
        (&put["outcome"], &put["siblings"], &put["acks"]),
        (&json!("committed"), &json!(1), &json!(["n1"]))
    );
    let got = run(&["get", "k"]).ok();
    assert_eq!(got.out, "v1\n");
    assert!(got.err.contains("context=") && got.err.contains("n1 replied"), "{got:#?}");
    let blind = run(&["put", "k", "v2", "--json"]).ok().json();
    assert_eq!(blind["siblings"], 2);
    let both = run(&["get", "k", "--json", "--atomic"]).ok().json();
    assert_eq!(both["values"].as_array().unwrap().len(), 2);
    assert_eq!(run(&["get", "k", "--latest"]).ok().out, "v2\n");
    let context = both["context"].as_str().unwrap();

    run(&["put", "other", "x", "--context", context]).failed(1, "another key");
    let mut forged = context.to_owned();
    forged.replace_range(20..21, if &forged[20..21] == "A" { "B" } else { "A" });
    let refused = run(&["put", "k", "x", "--context", &forged, "--json"]);
    assert_eq!((refused.code, &refused.json()["error"]["code"]), (Some(1), &json!("context_damaged")));
    run(&["put", &"k".repeat(5_000), "v"]).failed(1, "key");
    assert_eq!(
        run(&["get", "k", "--json"]).ok().json()["values"].as_array().unwrap().len(),
        2,
        "nothing changed"
    );

    run(&["put", "k", "v3", "--context", context]).ok();
    assert_eq!(run(&["get", "k", "--json"]).ok().json()["values"], json!(["v3"]));
    run(&["delete", "k"]).ok();
    let deleted = run(&["get", "k", "--json"]).ok().json();
    assert_eq!((&deleted["values"], &deleted["deleted"]), (&json!([]), &json!(true)));

    run(&["put", "/w==", "AP8=", "--base64"]).ok();
    assert_eq!(run(&["get", "/w==", "--base64"]).ok().out, "AP8=\n");
    let bytes = run(&["get", "/w==", "--base64", "--json"]).ok().json();
    assert_eq!((&bytes["key"], &bytes["values"]), (&json!({"base64": "/w=="}), &json!([{"base64": "AP8="}])));

    assert!(run(&["explain", "k"]).ok().out.contains("a deletion by"));
    assert_eq!(run(&["members", "--json"]).ok().json()["stage"], "active");
    assert_eq!(run(&["ring", "--json"]).ok().json()["slots"], 16_384);
    assert_eq!(run(&["ring", "k", "--json"]).ok().json()["owners"], json!(["n1"]));
    run(&["get", "k", "--via", "n7"]).failed(1, "no node n7");
}

#[test]
fn a_shell_answers_every_line_in_order_and_survives_bad_ones() {
    let place = Place::new();
    let (_node, address) = place.lone_node();
    let mut child = place
        .command(&["shell", "--json", "--connect", &address])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    // Every answer is read before the next line is written: nothing waits in a buffer.
    let mut ask = |line: &str| -> serde_json::Value {
        writeln!(input, "{line}").unwrap();
        let mut answer = String::new();
        output.read_line(&mut answer).unwrap();
        serde_json::from_str(&answer).unwrap()
    };
    assert_eq!(ask(r#"put "my key" 'v 1' w=all"#)["key"], "my key");
    let got = ask(r#"{"op":"get","key":"my key"}"#);
    assert_eq!(got["values"], json!(["v 1"]));
    let bad = ask("put k");
    assert_eq!((&bad["op"], &bad["error"]["code"]), (&json!(null), &json!("bad_request")));
    assert_eq!(ask("{\"op\":\"get\"")["outcome"], "not_applied");
    let context = got["context"].as_str().unwrap();
    assert_eq!(ask(&format!("put 'my key' v2 context={context}"))["siblings"], 1);
    assert_eq!(ask("delete 'my key'")["op"], "delete");
    assert_eq!(ask("get absent r=1 atomic")["outcome"], "ok");
    drop(input);
    assert_eq!(child.wait().unwrap().code(), Some(1), "two lines were bad");
    let words = place.run_with(&["shell", "--connect", &address], "put a 1\nget a\n\nexit\nget b\n").ok();
    assert_eq!(words.out.lines().count(), 2, "{words:#?}");
}

#[test]
fn an_import_reports_bad_lines_and_changes_nothing_the_second_time() {
    let place = Place::new();
    let (_node, address) = place.lone_node();
    let mut lines: Vec<String> = (0..300)
        .map(|n| json!({"key": format!("p{n}"), "value": format!("v{n}\n"), "x": n}).to_string())
        .collect();
    lines.insert(7, "{broken".to_owned());
    lines.push(json!({"key": "p0", "value": "last"}).to_string());
    lines.push(json!({"key": "big", "value": "x".repeat(2 << 20)}).to_string());
    let file = place.write("packages.jsonl", lines.join("\n").as_bytes());
    let import =
        |more: &[&str]| place.run(&[&["import", &file, "--json", "--connect", &address], more].concat());
    let first = import(&[]).failed(1, "line 8: ");
    assert!(first.err.contains("line 303: not loaded"), "{}", first.err);
    let summary = first.json();
    assert_eq!(
        (&summary["written"], &summary["failed"], &summary["malformed"]),
        (&json!(301), &json!(1), &json!(1))
    );
    let get = |key: &str| place.run(&["get", key, "--json", "--connect", &address]).ok().json();
    assert_eq!((&get("p0")["values"], &get("p299")["values"]), (&json!(["last"]), &json!(["v299\n"])));
    let before = get("p5");
    let second = import(&[]).failed(1, "line 8: ").json();
    // p0 is in the file twice: the first line puts back what the last one replaces again.
    assert_eq!((&second["written"], &second["unchanged"]), (&json!(2), &json!(299)));
    assert_eq!(get("p5"), before);
    assert_eq!(get("p0")["values"], json!(["last"]));

    let tsv = place.write("words.tsv", b"key\tvalue\na\t1\nb\t2\n");
    let progress = place.text("progress");
    let import = ["import", &tsv, "--resume", &progress, "--connect", &address];
    assert!(place.run(&import).ok().out.starts_with("2 records, 2 written"));
    assert!(place.run(&import).ok().out.starts_with("0 records"), "nothing is left to do");
    place.run(&["import", &place.text("none"), "--connect", &address]).failed(1, "cannot be read");
}

#[test]
fn a_bench_measures() {
    let place = Place::new();
    let (_node, address) = place.lone_node();
    let arguments =
        ["bench", "--seconds", "1", "--keys", "100", "--in-flight", "8", "--json", "--connect", &address];
    let result = place.run(&arguments).ok().json();
    assert_eq!(result["failed"], 0, "{result}");
    for kind in ["put", "get"] {
        assert!(result[kind]["operations"].as_u64().unwrap() > 0, "{result}");
        assert!(result[kind]["p99_us"].as_u64().unwrap() >= result[kind]["p50_us"].as_u64().unwrap());
    }
    assert!(result["nodes_cpu_us_per_operation"].as_f64().unwrap() > 0.0, "{result}");
}

#[test]
fn a_seed_is_simulated() {
    let place = Place::new();
    let run = || place.run(&["sim", "--seed", "3", "--seconds", "5", "--json"]).ok().json();
    assert_eq!(run(), run());
    assert_eq!(run()["ok"], true);
}

#[test]
fn seeds_are_told_in_order_and_add_up() {
    let place = Place::new();
    let run = |jobs| {
        let words = ["sim", "--seed", "3", "--count", "5", "--seconds", "2", "--json", "--jobs", jobs];
        place.run(&words).ok().json_lines()
    };
    let (alone, together) = (run("1"), run("3"));
    assert_eq!(alone.len(), 6, "five seeds and the totals");
    assert_eq!(alone[..5], together[..5]);
    let operations: u64 = alone[..5].iter().map(|seed| seed["operations"].as_u64().unwrap()).sum();
    assert_eq!(alone[5]["operations"].as_u64(), Some(operations));
    assert!(operations > 0 && alone[5]["totals"] == true && alone[5]["seeds"] == 5, "{}", alone[5]);
}

#[test]
fn a_trace_goes_into_a_file() {
    let place = Place::new();
    let file = place.text("trace.txt");
    place.run(&["sim", "--seed", "3", "--seconds", "2", "--trace", &file]).ok();
    let written = std::fs::read_to_string(&file).unwrap();
    assert!(written.contains("gossip") && written.contains("everything heals"), "{written}");
    place.run(&["sim", "--count", "2", "--trace", &file]).failed(2, "one seed");
}

#[test]
fn a_node_that_cannot_start_says_why() {
    let place = Place::new();
    let (_node, address) = place.lone_node();
    let (data, other) = (place.text("data"), place.text("other"));
    let free = free_address().to_string();
    place.run(&["node", "--data", &data, "--name", "n1", "--listen", &free]).failed(1, "data");
    place.run(&["node", "--data", &other, "--name", "n2", "--listen", &address]).failed(1, "is in use");
    let config = place.write("node.toml", b"data = 'x'\nseed = ['a:1']\n");
    place.run(&["node", "--config", &config]).failed(1, "unknown field `seed`").failed(1, "`seeds`");
    place.run(&["node", "--listen", &free]).failed(1, "--data DIR");
    place.run(&["node", "--data", &other, "--listen", "0.0.0.0:1"]).failed(1, "--advertise");
    place.run(&["node", "--data", &other, "--log", "x=y=z"]).failed(2, "--log");
}

#[test]
fn real_certificates_open_the_door_and_others_do_not() {
    let place = Place::new();
    let (authority, certs) = (place.text("authority"), place.text("certs"));
    place.run(&["cert", "authority", "--dir", &authority, "--name", "prod"]).ok();
    place.run(&["cert", "authority", "--dir", &authority]).failed(1, "authority");
    let issue = |arguments: &[&str]| {
        let all = [&["cert"], arguments, &["--authority", &authority, "--out", &certs]].concat();
        place.run(&all).ok();
    };
    issue(&["node", "--cluster", "prod", "--name", "n1"]);
    issue(&["client", "--name", "app"]);
    issue(&["client", "--name", "boss", "--role", "admin"]);
    issue(&["client", "--name", "guest", "--role", "reader"]);
    let file = |name: &str| place.text(&format!("certs/{name}"));
    let (ca, pem, key) = (file("ca.pem"), file("n1.pem"), file("n1.key"));
    let (address, data) = (free_address().to_string(), place.text("data"));
    let tls = ["--ca", &ca, "--cert", &pem, "--key", &key];
    let named = ["--data", &data, "--listen", &address, "--cluster", "prod"];
    place.run(&[&["node", "--name", "n2"], &named[..], &tls].concat()).failed(1, "starling cert node");
    let _node = place.node(&[&["--name", "n1"], &named[..], &tls].concat());
    let run = |arguments: &[&str], who: &str| {
        let (cert, key) = (file(&format!("{who}.pem")), file(&format!("{who}.key")));
        place
            .run(&[arguments, &["--connect", &address, "--ca", &ca, "--cert", &cert, "--key", &key]].concat())
    };
    eventually("the node serves", || run(&["put", "k", "v"], "app").code == Some(0));
    assert_eq!(run(&["get", "k"], "guest").ok().out, "v\n");
    run(&["put", "k", "v"], "guest").failed(1, "not applied");
    run(&["explain", "k"], "boss").ok();
    // A certificate of the development authority: another authority, another world.
    place.run(&["get", "k", "--connect", &address]).failed(1, "no node could be reached");
    run(&["get", "k"], "app").ok();
}
