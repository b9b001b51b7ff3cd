//! The byte formats, pinned by files: records, operation marks and context tokens that were written once must be read
//! for ever. `STARLING_BLESS=1` rewrites the files in `tests/golden`; a change there is a change of the format.

use std::fmt::Write as _;
use std::path::PathBuf;

use bytes::Bytes;

use super::{
    Age, Applied, Change, ClusterSecret, ContextToken, Dot, OperationId, Operations, Put, Record,
    VersionVector,
};
use crate::protocol::codec;
use crate::protocol::config::Limits;
use crate::protocol::id::Actor;
use crate::protocol::rng::Rng;
use crate::protocol::time::{Timestamp, WallTime};

/// Compares `bytes` with the golden file of that name, or writes it when told to; gives back the bytes of the file.
fn golden(name: &str, comment: &str, bytes: &[u8]) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("{name}.hex"));
    let mut text = String::new();
    for line in comment.lines() {
        writeln!(text, "# {line}").unwrap();
    }
    for line in bytes.chunks(32) {
        line.iter().for_each(|byte| write!(text, "{byte:02x}").unwrap());
        text.push('\n');
    }
    if std::env::var_os("STARLING_BLESS").is_some_and(|value| value == "1") {
        std::fs::write(&path, &text).unwrap();
    }
    let pinned = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(text, pinned, "the format of {name} is no longer the pinned one");
    let digits: String = pinned.lines().filter(|line| !line.starts_with('#')).collect();
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

fn dot(actor: u64, millis: u64) -> Dot {
    Dot { actor: Actor(actor), at: Timestamp::at(WallTime(millis)) }
}

/// The `number`-th operation writes at the `number`-th second; a later attempt gets another dot.
fn put(context: &[Dot], dot: Dot, value: Option<&'static str>, number: u64) -> Put {
    Put {
        context: context.iter().copied().collect(),
        dot,
        value: value.map(Bytes::from),
        operation: OperationId { started: WallTime(1_000 * number), nonce: 0xabcd_0000 + number },
        base: Some(Record::default()),
        age: Age::default(),
        limits: Limits::default(),
    }
}

fn apply(puts: impl IntoIterator<Item = Put>) -> Record {
    puts.into_iter().fold(Record::default(), |record, put| {
        match Record::apply(&Change::Put(put), Some(&record)) {
            Applied::Changed { record, amnesia: false } => record,
            other => panic!("the put came out as {other:?}"),
        }
    })
}

fn retried() -> Record {
    let first = apply([put(&[], dot(1, 1_000), Some("tea"), 1)]);
    let again = apply([put(&[], dot(2, 1_200), Some("tea"), 1)]);
    first.merged(&again)
}

#[test]
fn records() {
    let siblings = [
        put(&[], dot(1, 1_000), Some("tea"), 1),
        put(&[], dot(2, 2_000), Some(""), 2),
        put(&[dot(1, 1_000)], dot(0xffff_ffff_ffff_ffff, 3_000), None, 3),
    ];
    let files = [
        ("record-empty", "The record of an absent key.", Record::default()),
        (
            "record-value",
            "One value, \"tea\", written by actor 1 at 1 s as operation abcd0001 that started at 1 s.",
            apply(siblings[..1].to_vec()),
        ),
        (
            "record-siblings",
            "An empty value of actor 2 (2 s) beside a deletion by actor ffffffffffffffff (3 s),\n\
             which superseded a value of actor 1 (1 s).",
            apply(siblings),
        ),
        ("record-retried", "One operation with two attempts, by actors 1 and 2.", retried()),
        (
            "record-tombstone",
            "Actor 3 deleted both attempts at 4 s.",
            apply([put(&[dot(1, 1_000), dot(2, 1_200)], dot(3, 4_000), None, 4)]).merged(&retried()),
        ),
    ];
    for (name, comment, record) in files {
        let layout = "epoch u64; context: count u64, then actor u64, timestamp u64 (48 bits of ms, 16 of counter);\n\
                      siblings: count u64, then actor, timestamp, 1 and length u64 and bytes, or 0 for a deletion;\n\
                      operations: count u64, then start in ms u64, nonce u64, actor, timestamp. All little-endian.";
        let hash = record.hash(b"key");
        let comment = format!("{comment}\n{layout}\nHash under the key \"key\": {:032x}", hash.0);
        let pinned = golden(name, &comment, &codec::encode(&record));
        assert_eq!(codec::decode::<Record>(&pinned).unwrap(), record);
        assert_eq!(Record::hash_of(b"key", &pinned), hash);
    }
}

#[test]
fn operations() {
    let record = retried().merged(&apply([put(&[], dot(3, 2_000), Some("milk"), 2)]));
    let comment = "Operation abcd0001 (1 s) with attempts by actors 1 and 2, abcd0002 (2 s) with one by actor 3.\n\
                   count u64, then start in ms u64, nonce u64, actor u64, timestamp u64. All little-endian.";
    let pinned = golden("operations", comment, &codec::encode(record.operations()));
    assert_eq!(&codec::decode::<Operations>(&pinned).unwrap(), record.operations());
}

#[test]
fn context_token() {
    let secret = ClusterSecret::draw(&mut Rng::from_number(1));
    let context: VersionVector = [dot(1, 1_000), dot(2, 1_200)].into_iter().collect();
    let comment = "What actors 1 (1 s) and 2 (1.2 s) wrote of the key \"key\", under the secret of seed 1.\n\
                   version u8; key id u8; xxh3-64 of the key u64; the version vector; 16 bytes of BLAKE3.";
    let token = ContextToken::seal(&context, b"key", &secret);
    let pinned = golden("context-token", comment, token.as_bytes());
    assert_eq!(ContextToken::from(Bytes::from(pinned)).open(b"key", &secret), Ok(context));
}
