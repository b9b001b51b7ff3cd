//! Read, modify, write; and contexts.

use super::*;

#[test]
fn an_update_merges_all_siblings_and_writes_with_their_context() {
    let shelf = Arc::new(Shelf::default());
    let answers = Arc::clone(&shelf);
    let cluster = Cluster::start(3, move |_, frame| Act::Answer(answers.answer(frame)));
    let client = cluster.client();
    shelf.intrude("set", "b");
    shelf.intrude("set", "a");
    let union = |values: &[Bytes]| {
        let items: BTreeSet<&[u8]> =
            values.iter().flat_map(|value| value.split(|byte| *byte == b' ')).collect();
        items.into_iter().collect::<Vec<_>>().join(&b' ')
    };
    let with_c = |values: &[Bytes]| union(&[values, &[Bytes::from("c")]].concat());
    let updated = block_on(client.update("set", with_c)).unwrap();
    assert!(matches!(updated, Updated::Written(receipt) if receipt.siblings == 1));
    assert_eq!(block_on(client.get("set").into_future()).unwrap().values(), ["a b c"]);
    assert_eq!(cluster.writes()[0].1.context, Some(token()));

    // A key that nobody has written: no values, and a write without a context.
    block_on(client.update("fresh", |values: &[Bytes]| format!("{} before", values.len()))).unwrap();
    assert_eq!(block_on(client.get("fresh").into_future()).unwrap().values(), ["0 before"]);
    assert_eq!(cluster.writes()[1].1.context, None);

    // Nothing to do, and nothing left.
    let kept = block_on(client.update("set", |_: &[Bytes]| starling::client::Edit::Keep)).unwrap();
    assert!(matches!(kept, Updated::Kept(reading) if reading.values() == ["a b c"]));
    assert_eq!(cluster.writes().len(), 2);
    block_on(client.update("set", |_: &[Bytes]| None::<Bytes>)).unwrap();
    assert!(block_on(client.get("set").into_future()).unwrap().is_deleted());
    let writes = cluster.writes().len();
    let kept = block_on(client.update("never written", |_: &[Bytes]| None::<Bytes>)).unwrap();
    assert!(matches!(kept, Updated::Kept(_)), "{kept:?}");
    assert_eq!(cluster.writes().len(), writes);
}

#[test]
fn an_update_merges_what_came_in_between_and_changes_only_once() {
    let shelf = Arc::new(Shelf::default());
    let (answers, intruder) = (Arc::clone(&shelf), Arc::clone(&shelf));
    let cluster = Cluster::start(3, move |_, frame| {
        let answer = answers.answer(frame);
        match (&frame.request, answer) {
            // Just after the first write another one lands beside it.
            (Request::Write(write), Answer::Written(mut written))
                if write.value == Some("old+mine".into()) =>
            {
                intruder.intrude("log", "theirs");
                written.siblings = 2;
                Act::Answer(Answer::Written(written))
            }
            (_, answer) => Act::Answer(answer),
        }
    });
    let client = cluster.client();
    shelf.intrude("log", "old");
    let updated = block_on(client.update_merging(
        "log",
        |logs| logs.join(&b'|'),
        |log| [log.unwrap_or_default().as_ref(), b"+mine"].concat(),
    ));
    assert!(matches!(updated, Ok(Updated::Written(_))), "{updated:?}");
    assert_eq!(block_on(client.get("log").into_future()).unwrap().values(), ["old+mine|theirs"]);
}

#[test]
fn an_update_gives_up_against_endless_contention_and_says_that_it_is_written() {
    let cluster = Cluster::start(3, |_, frame| {
        let two = ["a", "b"].map(|text| Sibling { dot: dot(text.len() as u64), value: Some(text.into()) });
        Act::Answer(if matches!(frame.request, Request::Read(_)) { found(&two) } else { committed(2) })
    });
    let error = block_on(cluster.client().update("k", |values: &[Bytes]| values.concat())).unwrap_err();
    let UpdateError::Unmerged(unmerged) = &error else { panic!("{error}") };
    assert_eq!(unmerged.reason, UnmergedReason::Contention(5));
    assert_eq!(unmerged.receipt.siblings, 2);
    assert!(error.to_string().contains("was written"), "{error}");
    assert_eq!(cluster.writes().len(), 5);
}

#[test]
fn the_context_of_a_reading_goes_with_its_own_key() {
    let cluster = Cluster::start(3, |_, frame| match frame.request {
        Request::Read(_) => Act::Answer(value("v")),
        _ => Act::Answer(committed(1)),
    });
    let client = cluster.client();
    let reading = block_on(client.get("k").r(Level::One).atomic().into_future()).unwrap();
    let stored = reading.context().to_bytes();
    let context = Context::from_bytes(&stored).unwrap();
    block_on(client.put_with(&context, "w").into_future()).unwrap();
    block_on(client.delete_with(reading.context()).into_future()).unwrap();
    block_on(client.delete("k").into_future()).unwrap();
    let sent: Vec<_> = cluster.writes().into_iter().map(|(_, w)| (w.key, w.value, w.context)).collect();
    let key = Bytes::from("k");
    assert_eq!(
        sent,
        [
            (key.clone(), Some("w".into()), Some(token())),
            (key.clone(), None, Some(token())),
            (key, None, None)
        ]
    );
    // A context that has seen nothing deletes nothing: the nodes would take it for "delete whatever is there".
    let nothing = Context::from_token("k", None);
    let error = block_on(client.delete_with(&nothing).into_future()).unwrap_err();
    assert!(matches!(error, WriteError::NotApplied { .. }), "{error}");
    assert_eq!(cluster.writes().len(), 3);
    let first = &cluster.seen()[0].1.request;
    assert!(matches!(first, Request::Read(read) if read.r == Level::One && read.atomic));
}
