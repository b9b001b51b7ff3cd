//! Requests that cannot be done.

use bytes::Bytes;
use serde_json::json;
use starling::client::{Code, Context, WriteError};
use starling::protocol::causality::ContextToken;

use super::*;

/// A write that must be refused with this code and these words, and have changed nothing.
#[track_caller]
fn refused(write: starling::client::Put, code: Code, words: &str) {
    let error = block_on(write.into_future()).unwrap_err();
    assert!(matches!(error, WriteError::NotApplied { .. }), "{error:?}");
    assert_eq!(error.problem().code, code, "{error}");
    assert!(error.to_string().contains(words), "{words:?} is not in {error}");
}

#[test]
fn a_key_is_neither_empty_nor_over_long() {
    let mut victim = Victim::start();
    let longest = "k".repeat(4_096);
    victim.run(&["put", &longest, "v"]).ok();
    assert_eq!(victim.run(&["get", &longest]).ok().out, "v\n");
    let too_long = "k".repeat(4_097);
    for verb in [&["put", &too_long, "v"][..], &["get", &too_long], &["delete", &too_long]] {
        victim.run(verb).failed(1, "4097 bytes").failed(1, "4096");
    }
    for verb in [&["put", "", "v"][..], &["get", ""], &["delete", ""]] {
        victim.run(verb).failed(1, "the key is empty");
    }
    let json = victim.run(&["put", "", "v", "--json"]);
    assert_eq!((json.code, &json.json()["outcome"]), (Some(1), &json!("not_applied")));
    assert_eq!(json.json()["error"]["code"], json!("bad_key"));
    victim.is_unharmed();
}

#[test]
fn a_value_has_at_most_a_mebibyte() {
    let mut victim = Victim::start();
    let client = victim.client();
    let largest = Bytes::from(vec![b'v'; 1 << 20]);
    block_on(client.put_blind("large", largest.clone()).into_future()).unwrap();
    for bytes in [(1 << 20) + 1, 3 << 20] {
        let seen = block_on(client.get("kept").into_future()).unwrap().into_context();
        let error = block_on(client.put_with(&seen, vec![0; bytes]).into_future()).unwrap_err();
        assert!(matches!(error, WriteError::NotApplied { .. }), "{error:?}");
        assert_eq!(error.problem().code, Code::ValueTooLarge, "{error}");
        assert!(error.to_string().contains("at most"), "{error}");
    }
    assert_eq!(block_on(client.get("large").into_future()).unwrap().values(), [largest]);
    victim.is_unharmed();
}

#[test]
fn a_context_of_another_key_is_refused() {
    let mut victim = Victim::start();
    let client = victim.client();
    let seen = block_on(client.get("kept").into_future()).unwrap().into_context();
    let moved = Context::from_token("other", seen.token().cloned());
    refused(client.put_with(&moved, "v"), Code::ContextOfAnotherKey, "another key");
    refused(client.delete_with(&moved), Code::ContextOfAnotherKey, "another key");
    assert!(block_on(client.get("other").into_future()).unwrap().is_absent());
    victim.is_unharmed();
}

#[test]
fn a_damaged_context_is_refused_wherever_it_is_damaged() {
    let mut victim = Victim::start();
    let client = victim.client();
    let seen = block_on(client.get("kept").into_future()).unwrap().into_context();
    let token = seen.token().unwrap().as_bytes().clone();
    let damaged = |bytes: Vec<u8>| Context::from_token("kept", Some(ContextToken::from(Bytes::from(bytes))));
    let refused = |bytes: Vec<u8>| {
        let error = block_on(client.put_with(&damaged(bytes), "v").into_future()).unwrap_err();
        let code = error.problem().code;
        assert!([Code::ContextDamaged, Code::ContextOfAnotherKey].contains(&code), "{error}");
        assert!(matches!(error, WriteError::NotApplied { .. }), "{error:?}");
    };
    for at in 0..token.len() {
        let mut bytes = token.to_vec();
        bytes[at] ^= 1;
        refused(bytes);
        refused(token[..at].to_vec());
    }
    refused([&token[..], b"x"].concat());
    refused(vec![0xff; 1 << 16]);
    victim.is_unharmed();
}

#[test]
fn a_forged_context_is_refused() {
    let mut victim = Victim::start();
    let forger = Victim::start();
    // A true context of the same key, under the secret of another cluster.
    let (own, others) = (victim.client(), forger.client());
    let forged = block_on(others.get("kept").into_future()).unwrap().into_context();
    refused(own.put_with(&forged, "v"), Code::ContextDamaged, "read the key again");
    let text = victim.run(&["put", "kept", "v", "--context", "Zm9yZ2Vk"]);
    text.failed(1, "read the key again");
    victim.run(&["put", "kept", "v", "--context", "no base64!"]).failed(2, "--context");
    victim.is_unharmed();
}

#[test]
fn a_shell_answers_every_malformed_line_and_goes_on() {
    let mut victim = Victim::start();
    let lines = [
        "put",
        "put k",
        "put k v w",
        "put k v w=",
        "put k v w=most",
        "put k v w=-1",
        "put k v colour=red",
        "put k v context=%%",
        "put 'k v",
        "get",
        "get k v",
        "get k r=none",
        "frobnicate k",
        "{",
        "{}",
        "[]",
        "{\"op\":\"put\",\"key\":\"k\"}",
        "{\"op\":\"put\",\"key\":\"k\",\"value\":\"v\",\"valeu\":1}",
        "{\"op\":\"put\",\"key\":1,\"value\":\"v\"}",
        "{\"op\":\"get\",\"key\":{\"base64\":\"!\"}}",
        "{\"op\":\"steal\",\"key\":\"k\"}",
        "put '' v",
        "\u{0}\u{1}\u{2}",
    ];
    let input = lines.join("\n") + "\nput good v\nget good\n";
    let ran = victim.place.run_with(&["shell", "--json", "--connect", &victim.address], &input);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let answers = ran.json_lines();
    assert_eq!(answers.len(), lines.len() + 2, "{ran:#?}");
    for (line, answer) in lines.iter().zip(&answers) {
        let message = answer["error"]["message"].as_str();
        assert!(message.is_some_and(|message| !message.is_empty()), "{line:?}: {answer}");
        assert_ne!(answer["outcome"], json!("committed"), "{line:?}");
    }
    assert_eq!(answers[lines.len()]["outcome"], json!("committed"));
    assert_eq!(answers[lines.len() + 1]["values"], json!(["v"]));
    let words = victim.place.run_with(&["shell", "--connect", &victim.address], "put k\nget good\n");
    assert!(words.out.starts_with("line 1: "), "{words:?}");
    assert_eq!(words.code, Some(1));
    assert!(victim.run(&["get", "k", "--json"]).ok().json()["values"].as_array().unwrap().is_empty());
    victim.is_unharmed();
}

#[test]
fn an_import_loads_what_is_good_and_names_the_rest_by_line() {
    let mut victim = Victim::start();
    let long = "k".repeat(4_097);
    let text = format!("key\tvalue\na\t1\nno tab\n\t2\nb\t2\n{long}\tv\nc\t3\n");
    let file = victim.place.write("words.tsv", text.as_bytes());
    let ran = victim.run(&["import", &file, "--json"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    for words in ["line 3: ", "line 4: the key is empty", "line 6: not loaded: "] {
        assert!(ran.err.contains(words), "{words:?} is not in {}", ran.err);
    }
    let summary = ran.json();
    assert_eq!(
        (&summary["written"], &summary["malformed"], &summary["failed"]),
        (&json!(3), &json!(2), &json!(1))
    );
    for (key, value) in [("a", "1\n"), ("b", "2\n"), ("c", "3\n")] {
        assert_eq!(victim.run(&["get", key]).ok().out, value);
    }
    victim.is_unharmed();
}
