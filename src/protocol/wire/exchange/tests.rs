use std::fmt::Write as _;
use std::path::PathBuf;

use super::*;
use crate::protocol::causality::{Age, Applied, Change, Dot, OperationId, Put};
use crate::protocol::codec;
use crate::protocol::config::Limits;
use crate::protocol::id::Actor;
use crate::protocol::time::{Timestamp, WallTime};
use crate::protocol::wire::peer::PeerMessage;

fn item() -> Item {
    let put = Put {
        context: Default::default(),
        dot: Dot { actor: Actor(7), at: Timestamp(9) },
        value: Some(Bytes::from_static(b"value")),
        operation: OperationId { started: WallTime(1_000), nonce: 3 },
        base: None,
        age: Age::default(),
        limits: Limits::default(),
    };
    match Record::apply(&Change::Put(put), None) {
        Applied::Changed { record, .. } => {
            Item { key: Bytes::from_static(b"key"), epoch: ReapEpoch(0), record }
        }
        other => panic!("{other:?}"),
    }
}

fn one_of_each() -> Vec<Exchange> {
    let slot = Slot::new(258).unwrap();
    let (id, digest, salt) = (QuestionId(1), PairDigest(2), Salt(3));
    vec![
        Exchange::Compare { id, digest, salt, arcs: vec![(Arc::CIRCLE, Mark(4))] },
        Exchange::Compared {
            id,
            differing: vec![Parts { arc: Arc::of_slot(slot), marks: vec![ShortMark(5), ShortMark(6)] }],
            left: vec![Arc::of_slot(slot)],
        },
        Exchange::Offer { id, digest, salt, arcs: vec![(Arc::of_slot(slot), vec![ShortMark(7)])] },
        Exchange::Records { digest, items: vec![item()] },
        Exchange::Answered { id, lacking: vec![ShortMark(8)], left: vec![Arc::of_slot(slot)] },
        Exchange::Refused { id, reason: ExchangeRefusal::OtherRing(Vec::new()) },
        Exchange::Nudge { slots: vec![slot] },
        Exchange::Weigh { id, digest, salt, slots: vec![(slot, Mark(9))] },
        Exchange::Weighed {
            id,
            differing: vec![slot],
            voteless: vec![slot, slot],
            closed: vec![],
            epochs: vec![(slot, Default::default())],
        },
        Exchange::Draw { id, digest, salt, slot, after: Some(Bytes::from_static(b"k")), held: vec![Mark(1)] },
        Exchange::Drawn { id, items: vec![item()], next: None, is_whole: true },
    ]
}

#[test]
fn the_length_that_is_charged_is_the_length_on_the_wire() {
    for message in one_of_each() {
        let bytes = codec::encode(&PeerMessage::Exchange(message.clone())).len() as u64;
        let empty_list_of_entries = if let Exchange::Refused { .. } = message { 8 } else { 0 };
        assert_eq!(message.wire_bytes() + empty_list_of_entries, bytes, "{message:?}");
    }
    let busy = Exchange::Refused { id: QuestionId(1), reason: ExchangeRefusal::Busy };
    assert_eq!(busy.wire_bytes(), codec::encode(&PeerMessage::Exchange(busy)).len() as u64);
}

/// The bytes of the messages, pinned: nodes of this version must understand each other for ever. `STARLING_BLESS=1`
/// rewrites the file; a change there is a change of the protocol.
#[test]
fn the_bytes_are_the_pinned_ones() {
    let mut text =
        String::from("# One exchange message of each kind, a line each, as it travels between nodes.\n");
    for message in one_of_each() {
        codec::encode(&PeerMessage::Exchange(message))
            .iter()
            .for_each(|byte| write!(text, "{byte:02x}").unwrap());
        text.push('\n');
    }
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/exchange-v1.hex");
    if std::env::var_os("STARLING_BLESS").is_some_and(|value| value == "1") {
        std::fs::write(&path, &text).unwrap();
    }
    let pinned = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text, pinned, "the bytes of exchanges are no longer the pinned ones");
    let lines = pinned.lines().filter(|line| !line.starts_with('#'));
    for (line, message) in lines.zip(one_of_each()) {
        let bytes: Vec<u8> =
            (0..line.len()).step_by(2).map(|at| u8::from_str_radix(&line[at..at + 2], 16).unwrap()).collect();
        assert_eq!(codec::decode::<PeerMessage>(&bytes), Ok(PeerMessage::Exchange(message)));
    }
}
