//! The client library against nodes that answer from a script: what it does when they are slow, wrong or gone.
#![cfg(feature = "client")]

#[path = "support/scripted.rs"]
mod scripted;

use std::collections::BTreeSet;
use std::future::{Future, IntoFuture};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_std::task::block_on;
use bytes::Bytes;
use scripted::{
    Act, Cluster, NODE_TIME, Shelf, committed, dot, found, member, not_applied, poll, problem, refused,
    status, token, unknown, value,
};
use starling::client::{
    AdminError, AskError, Client, Code, ConnectError, ConnectOptions, Context, Level, ReadError,
    UnmergedReason, UpdateError, Updated, WriteError,
};
use starling::protocol::causality::Sibling;
use starling::protocol::id::{ClusterId, NodeId};
use starling::protocol::ring::entry::Name;
use starling::protocol::wire::client::{AdminAnswer, AdminRequest, Answer, ClientFrame, Request, Write};
use starling::transport::{Authority, Role};

const SHORT: Duration = Duration::from_millis(300);

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn write_of(frame: &ClientFrame) -> &Write {
    match &frame.request {
        Request::Write(write) => write,
        other => panic!("a write is expected, not {other:?}"),
    }
}

/// What the script does with the attempts of a write, one after the other; the last entry goes on for ever.
fn in_turn(acts: Vec<Turn>) -> impl Fn(usize, &ClientFrame) -> Act + Send + Sync {
    move |_, frame| {
        let turn = (write_of(frame).attempt as usize - 1).min(acts.len() - 1);
        acts[turn].act()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    Committed,
    /// Some replica may hold it; worth another attempt.
    Unknown,
    /// Explicitly not applied; worth another attempt.
    NotApplied,
    /// Explicitly refused; worth another attempt.
    Overloaded,
    /// Explicitly refused for good.
    TooManySiblings,
    /// The connection breaks.
    HangUp,
    /// An answer that does not decode.
    Garbage,
    /// An answer to another question.
    Nonsense,
}

impl Turn {
    const ALL: [Turn; 8] = [
        Turn::Committed,
        Turn::Unknown,
        Turn::NotApplied,
        Turn::Overloaded,
        Turn::TooManySiblings,
        Turn::HangUp,
        Turn::Garbage,
        Turn::Nonsense,
    ];

    fn act(self) -> Act {
        match self {
            Turn::Committed => Act::Answer(committed(1)),
            Turn::Unknown => Act::Answer(unknown(Code::Unavailable)),
            Turn::NotApplied => Act::Answer(not_applied(Code::NotReady)),
            Turn::Overloaded => Act::Answer(refused(Code::Overloaded, "too much")),
            Turn::TooManySiblings => Act::Answer(refused(Code::TooManySiblings, "too many")),
            Turn::HangUp => Act::HangUp,
            Turn::Garbage => Act::Garbage,
            Turn::Nonsense => Act::Answer(value("not a write at all")),
        }
    }

    fn ends(self) -> bool {
        matches!(self, Turn::Committed | Turn::TooManySiblings)
    }

    fn is_explicit_refusal(self) -> bool {
        matches!(self, Turn::NotApplied | Turn::Overloaded | Turn::TooManySiblings)
    }
}

#[test]
fn requests_go_to_owners_of_their_key_and_spread_over_them() {
    let cluster = Cluster::start(5, |_, _| Act::Answer(value("v")));
    let client = cluster.client();
    for key in ["a", "b", "c"] {
        let mut asked = BTreeSet::new();
        for _ in 0..40 {
            let reading = block_on(client.get(key).into_future()).unwrap();
            assert_eq!(reading.values(), ["v"]);
            asked.insert(reading.coordinator().0 as usize - 1);
        }
        assert_eq!(asked, cluster.owners(key).into_iter().collect(), "{key}");
        let owners: Vec<usize> = client.owners(key).iter().map(|node| node.0 as usize - 1).collect();
        assert_eq!(owners, cluster.owners(key));
    }
}

#[test]
fn a_retried_write_keeps_its_operation_and_raises_its_attempt() {
    let turns = [Turn::Overloaded, Turn::Unknown, Turn::HangUp, Turn::Committed];
    let cluster = Cluster::start(3, in_turn(turns.to_vec()));
    let client = cluster.client();
    let receipt = block_on(client.put_blind("k", "v").w(Level::All).sloppy().into_future()).unwrap();
    assert_eq!(receipt.attempt, 4);
    let writes = cluster.writes();
    assert_eq!(writes.iter().map(|(_, write)| write.attempt).collect::<Vec<_>>(), [1, 2, 3, 4]);
    let operation = writes[0].1.operation;
    assert!(writes.iter().all(|(_, write)| write.operation == operation));
    assert!(writes.iter().all(|(_, write)| write.w == Level::All && write.sloppy));
    let age = operation.started.0 - NODE_TIME.0;
    assert!(age < 10_000, "operation ids carry node time: {operation:?}");
    let nodes: BTreeSet<usize> = writes[..3].iter().map(|(node, _)| *node).collect();
    assert_eq!(nodes.len(), 3, "every attempt goes to another node while there are some");

    block_on(client.put_blind("k", "v").into_future()).unwrap();
    assert_ne!(cluster.writes().last().unwrap().1.operation, operation, "another write is another operation");
}

/// Over every sequence of up to three attempts: *committed* if one was, *not applied* only if each of them was
/// explicitly refused, *unknown* otherwise.
#[test]
fn the_outcome_of_a_write_never_lies() {
    let acts: Arc<std::sync::Mutex<Vec<Turn>>> = Arc::default();
    let script = Arc::clone(&acts);
    let cluster =
        Cluster::start(3, move |_, frame| script.lock().unwrap()[write_of(frame).attempt as usize - 1].act());
    let client = cluster.client();
    let mut sequences: Vec<Vec<Turn>> = vec![vec![]];
    for _ in 0..3 {
        let longer = |turns: &Vec<Turn>| {
            let may_go_on = turns.last().is_none_or(|last| !last.ends());
            let next: Vec<Turn> = if may_go_on { Turn::ALL.to_vec() } else { vec![] };
            next.into_iter().map(|turn| [turns.as_slice(), &[turn]].concat()).collect::<Vec<_>>()
        };
        let all: Vec<Vec<Turn>> = sequences.iter().flat_map(longer).collect();
        let complete = all.iter().filter(|turns| check_outcome(&client, &cluster, &acts, turns)).count();
        assert!(complete * 10 >= all.len() * 8, "only {complete} of {} sequences came through", all.len());
        sequences = all;
    }
}

/// Runs one sequence; tells whether every attempt arrived.

fn check_outcome(client: &Client, cluster: &Cluster, acts: &std::sync::Mutex<Vec<Turn>>, turns: &[Turn]) {
    *acts.lock().unwrap() = turns.to_vec();
    let before = cluster.writes().len();
    let put = client.put_blind("k", "v").attempts(turns.len() as u32);
    let outcome = block_on(put.deadline(Duration::from_secs(20)).into_future());
    // An attempt may meet a connection that an earlier one has just broken, and never arrive.
    let arrived: Vec<Turn> =
        cluster.writes()[before..].iter().map(|(_, write)| turns[write.attempt as usize - 1]).collect();
    let all_arrived = arrived.len() == turns.len();
    let all_refused = arrived.iter().all(|turn| turn.is_explicit_refusal());
    match outcome {
        Ok(_) => assert!(arrived.contains(&Turn::Committed), "{turns:?}"),
        Err(WriteError::NotApplied { .. }) => assert!(all_refused, "{turns:?}: {arrived:?}"),
        Err(WriteError::Unknown(_)) => {
            assert!(!arrived.contains(&Turn::Committed), "{turns:?}");
            assert!(!all_refused || !all_arrived, "{turns:?}: {arrived:?}");
        }
    }
    all_arrived
}

#[test]
fn an_unknown_write_tells_what_is_known_of_it() {
    let cluster = Cluster::start(3, |_, frame| match write_of(frame).attempt {
        1 => Act::Answer(scripted::written(
            starling::protocol::wire::client::Outcome::Unknown,
            Some(dot(9)),
            1,
            Some(problem(Code::Timeout)),
        )),
        _ => Act::Answer(refused(Code::TooManySiblings, "too many")),
    });
    let error = block_on(cluster.client().put_blind("k", "v").into_future()).unwrap_err();
    let WriteError::Unknown(unsettled) = error else { panic!("{error}") };
    assert_eq!(unsettled.dot, Some(dot(9)));
    assert_eq!(unsettled.acks, [NodeId(1)]);
    assert_eq!((unsettled.attempts, unsettled.problem.code), (2, Code::TooManySiblings));
}

#[test]
fn a_silent_coordinator_is_passed_by_and_its_late_answer_counts() {
    let cluster = Cluster::start(3, |_, frame| match write_of(frame).attempt {
        1 => Act::Later(Duration::from_millis(200), committed(1)),
        _ => Act::Silence,
    });
    let mut options = cluster.options();
    options.deadlines.patience = Duration::from_millis(50);
    let client = block_on(Client::connect(options)).unwrap();
    let receipt = block_on(client.put_blind("k", "v").into_future()).unwrap();
    assert_eq!(receipt.attempt, 1);
    assert!(cluster.writes().len() > 1);
    let deadlines: Vec<u32> = cluster.seen().iter().map(|(_, frame)| frame.deadline_ms).collect();
    assert!(deadlines[0] <= 5_000 && deadlines.is_sorted_by(|a, b| a > b), "{deadlines:?}");
}

#[test]
fn a_request_ends_at_its_deadline() {
    let cluster = Cluster::start(3, |_, _| Act::Silence);
    let client = cluster.client();
    let Err(ReadError::Unavailable(problem)) = block_on(client.get("k").deadline(SHORT).into_future()) else {
        panic!("nobody answered")
    };
    assert_eq!(problem.code, Code::Timeout);
    assert!(problem.message.contains("300 ms from n"), "{problem}");
    let error = block_on(client.put_blind("k", "v").deadline(SHORT).into_future()).unwrap_err();
    assert!(matches!(error, WriteError::Unknown(_)), "{error}");
}

#[test]
fn a_read_is_repeated_while_the_key_is_unavailable_and_says_why_at_the_end() {
    let tries = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&tries);
    let cluster = Cluster::start(3, move |_, _| match count.fetch_add(1, Ordering::SeqCst) {
        0..4 => Act::Answer(refused(Code::Unavailable, "two of three owners are gone")),
        _ => Act::Answer(value("v")),
    });
    let client = cluster.client();
    let error = block_on(client.get("k").attempts(2).into_future()).unwrap_err();
    assert_eq!(error.problem().code, Code::Unavailable);
    assert!(error.to_string().contains("two of three owners"), "{error}");
    assert_eq!(block_on(client.get("k").into_future()).unwrap().values(), ["v"]);
    assert_eq!(tries.load(Ordering::SeqCst), 5);
}

#[test]
fn what_is_refused_for_good_is_not_repeated() {
    let cluster = Cluster::start(3, |_, _| Act::Answer(refused(Code::Forbidden, "readers cannot")));
    let client = cluster.client();
    let error = block_on(client.put_blind("k", "v").into_future()).unwrap_err();
    assert!(matches!(error, WriteError::NotApplied { .. }), "{error}");
    let error = block_on(client.get("k").into_future()).unwrap_err();
    assert!(matches!(error, ReadError::Refused(_)), "{error}");
    assert_eq!(cluster.seen().len(), 2);
}

#[test]
fn an_over_long_value_is_refused_before_it_costs_the_connection() {
    let cluster = Cluster::start(3, |_, _| Act::Answer(committed(1)));
    let client = cluster.client();
    for (bytes, code) in [(3 << 20, Code::ValueTooLarge), (20 << 20, Code::ValueTooLarge)] {
        let error = block_on(client.put_blind("k", vec![0; bytes]).into_future()).unwrap_err();
        assert!(matches!(error, WriteError::NotApplied { .. }), "{error}");
        assert_eq!(error.problem().code, code);
    }
    let error = block_on(client.get(vec![0; 3 << 20]).into_future()).unwrap_err();
    assert_eq!(error.problem().code, Code::BadKey);
    assert!(cluster.seen().is_empty());
    block_on(client.put_blind("k", vec![0; 1 << 20]).into_future()).unwrap();
}

#[test]
fn a_slow_read_is_hedged_after_the_percentile_and_the_first_answer_wins() {
    let slow: Arc<AtomicUsize> = Arc::new(AtomicUsize::new(usize::MAX));
    let slow_node = Arc::clone(&slow);
    let cluster = Cluster::start(3, move |node, _| {
        if node == slow_node.load(Ordering::SeqCst) { Act::Silence } else { Act::Answer(value("v")) }
    });
    let mut options = cluster.options();
    options.hedge = true;
    let client = block_on(Client::connect(options)).unwrap();
    for _ in 0..64 {
        block_on(client.get("k").into_future()).unwrap();
    }
    slow.store(cluster.owners("k")[0], Ordering::SeqCst);
    let before = cluster.seen().len();
    for _ in 0..20 {
        // Far less than the patience of 1.5 s: only a hedge can be that fast.
        let reading = block_on(client.get("k").deadline(Duration::from_secs(1)).into_future()).unwrap();
        assert_ne!(reading.coordinator().0 as usize - 1, slow.load(Ordering::SeqCst));
    }
    assert!(cluster.seen()[before..].iter().any(|(node, _)| *node == slow.load(Ordering::SeqCst)));
}

#[test]
fn many_requests_share_a_connection_and_a_dropped_one_harms_none() {
    let cluster = Cluster::start(1, |_, frame| match &frame.request {
        Request::Read(read) if read.key.starts_with(b"slow") => Act::Silence,
        Request::Read(read) => {
            let sibling = Sibling { dot: dot(1), value: Some(read.key.clone()) };
            // Answers overtake each other.
            Act::Later(Duration::from_millis(u64::from(read.key[0]) % 7), found(&[sibling]))
        }
        other => panic!("{other:?}"),
    });
    let client = cluster.client();
    block_on(async {
        let mut given_up = Vec::new();
        for index in 0..50 {
            let mut get = client.get(format!("slow {index}")).into_future();
            assert!(futures_lite::future::poll_once(&mut get).await.is_none());
            given_up.push(get);
        }
        let tasks: Vec<_> = (0..200_u32)
            .map(|index| {
                let client = client.clone();
                async_std::task::spawn(async move {
                    let key = index.to_le_bytes();
                    let reading = client.get(key).await.unwrap();
                    assert_eq!(reading.values(), [Bytes::copy_from_slice(&key)]);
                })
            })
            .collect();
        drop(given_up);
        for task in tasks {
            task.await;
        }
    });
}

#[test]
fn a_lost_node_is_passed_by_and_used_again_when_it_is_back() {
    let mut cluster = Cluster::start(3, |_, _| Act::Answer(value("v")));
    let client = cluster.client();
    let read =
        |client: &Client| block_on(client.get("k").into_future()).unwrap().coordinator().0 as usize - 1;
    poll("every node to be used", || {
        read(&client);
        let used: BTreeSet<usize> = cluster.seen().iter().map(|(node, _)| *node).collect();
        (used.len() == 3).then_some(())
    });
    let asked_before = cluster.topologies();
    cluster.stop(1);
    for _ in 0..50 {
        assert_ne!(read(&client), 1);
    }
    poll("a look at the topology", || (cluster.topologies() > asked_before).then_some(()));
    cluster.restart(1);
    poll("the node to be used again", || (read(&client) == 1).then_some(()));
}

#[test]
fn a_client_whose_nodes_all_restart_goes_on() {
    let mut cluster = Cluster::start(2, |_, _| Act::Answer(value("v")));
    let client = cluster.client();
    block_on(client.get("k").into_future()).unwrap();
    for index in 0..2 {
        cluster.stop(index);
    }
    let error = block_on(client.get("k").deadline(SHORT).into_future()).unwrap_err();
    assert!(matches!(error, ReadError::Unavailable(_)), "{error}");
    let error = block_on(client.put_blind("k", "v").deadline(SHORT).into_future()).unwrap_err();
    assert!(matches!(error, WriteError::NotApplied { .. }), "nothing left this process: {error}");
    for index in 0..2 {
        cluster.restart(index);
    }
    let get = client.get("k").deadline(Duration::from_secs(10));
    assert_eq!(block_on(get.into_future()).unwrap().values(), ["v"]);
}

#[test]
fn a_changed_ring_is_followed_at_once() {
    let told = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&told);
    let cluster = Cluster::start(4, move |_, _| match count.fetch_add(1, Ordering::SeqCst) {
        0 => Act::Answer(refused(Code::RingChanged, "look again")),
        _ => Act::Answer(value("v")),
    });
    cluster.change_members(|members| {
        for member in &mut members[1..] {
            member.entry.phase.stage = starling::protocol::ring::entry::Stage::Learning;
        }
    });
    let client = cluster.client();
    assert_eq!(client.owners("k"), [NodeId(1)]);
    cluster.change_members(|members| {
        for member in members {
            member.entry.phase.stage = starling::protocol::ring::entry::Stage::Active;
        }
    });
    block_on(client.get("k").into_future()).unwrap();
    poll("the new ring", || (client.owners("k").len() == 3).then_some(()));
    assert_eq!(client.owners("k").iter().map(|n| n.0 as usize - 1).collect::<Vec<_>>(), cluster.owners("k"));
}

#[test]
fn any_seed_will_do_and_if_none_does_the_error_says_what_each_said() {
    let cluster = Cluster::start(2, |_, _| Act::Answer(value("v")));
    let nobody = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let nobody_address = nobody.local_addr().unwrap();
    let mut options = cluster.options();
    options.seeds = vec![nobody_address, cluster.address(1)];
    block_on(Client::connect(options)).unwrap();

    let strangers = Cluster::start(1, |_, _| Act::Silence);
    let mut options = cluster.options();
    options.seeds = vec![nobody_address, strangers.address(0)];
    let error = block_on(Client::connect(options)).unwrap_err();
    let text = error.to_string();
    for words in [
        format!("nobody answers at {nobody_address}"),
        format!("{}: ", strangers.address(0)),
        "signed by another authority".to_owned(),
    ] {
        assert!(text.contains(&words), "{text:?} should say {words:?}");
    }

    let options = ConnectOptions::new([], cluster.credentials());
    assert!(matches!(block_on(Client::connect(options)), Err(ConnectError::NoSeeds)));
}

#[test]
fn a_frozen_seed_does_not_keep_the_others_from_answering() {
    let cluster = Cluster::start(2, |_, _| Act::Answer(value("v")));
    cluster.freeze(0, true);
    let mut options = cluster.options();
    options.seeds = vec![cluster.address(0), cluster.address(1)];
    block_on(Client::connect(options.clone())).unwrap();
    options.seeds.pop();
    options.deadlines.connect = SHORT;
    let error = block_on(Client::connect(options)).unwrap_err();
    assert!(error.to_string().contains("no answer within 0.3 s"), "{error}");
}

#[test]
fn a_client_with_a_foreign_certificate_is_told_so() {
    let cluster = Cluster::start(1, |_, _| Act::Silence);
    // It trusts the cluster's authority, but shows a certificate of another one.
    let (ours, other) = (cluster.authority.certificate_pem(), Authority::create("test").unwrap());
    let foreign = other.issue_client("stranger", Role::Admin).unwrap();
    let both = format!("{ours}\n{}", foreign.ca);
    let credentials =
        starling::transport::Credentials::from_pem(&both, &foreign.chain, &foreign.key).unwrap();
    let error =
        block_on(Client::connect(ConnectOptions::new([cluster.address(0)], credentials))).unwrap_err();
    assert!(error.to_string().contains("refused this side's certificate"), "{error}");
}

#[test]
fn via_pins_the_coordinator() {
    let cluster = Cluster::start(5, |_, _| Act::Answer(value("v")));
    let client = block_on(Client::connect(cluster.options().via(name("n4")))).unwrap();
    for key in ["a", "b", "c", "d"] {
        assert_eq!(block_on(client.get(key).into_future()).unwrap().coordinator(), NodeId(4));
    }
    assert_eq!(block_on(client.topology()).unwrap().node, NodeId(4));
    let error = block_on(Client::connect(cluster.options().via(name("n9")))).unwrap_err();
    assert!(error.to_string().contains("no node n9 in the cluster: it has n1, n2, n3, n4, n5"), "{error}");
}

#[test]
fn a_cluster_of_another_identity_is_not_believed() {
    let cluster = Cluster::start(2, |_, _| Act::Answer(refused(Code::RingChanged, "look again")));
    let client = cluster.client();
    assert_eq!(client.owners("k").len(), 2);
    cluster.change_cluster(2);
    cluster.change_members(|members| members.truncate(1));
    let looks = cluster.topologies();
    poll("two more looks", || {
        block_on(client.get("k").deadline(SHORT).into_future()).unwrap_err();
        (cluster.topologies() >= looks + 2).then_some(())
    });
    assert_eq!(client.owners("k").len(), 2);
    assert_eq!(
        block_on(client.topology()).unwrap().cluster,
        Some(ClusterId(2)),
        "what was asked for is told"
    );
}

#[test]
fn a_node_at_the_address_of_another_is_not_taken_for_it() {
    let cluster = Cluster::start(1, |node, _| Act::Answer(status(node)));
    let address = cluster.address(0);
    cluster.change_members(|members| members.push(member(1, address)));
    let mut options = cluster.options();
    options.deadlines.request = SHORT;
    let client = block_on(Client::connect(options)).unwrap();
    assert!(block_on(client.status(&name("n1"))).is_ok());
    let error = block_on(client.status(&name("n2"))).unwrap_err();
    assert!(error.to_string().contains("is node n1 of cluster test now"), "{error}");
}

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
    let first = &cluster.seen()[0].1.request;
    assert!(matches!(first, Request::Read(read) if read.r == Level::One && read.atomic));
}

#[test]
fn questions_and_administration_go_to_the_node_that_is_named() {
    let cluster = Cluster::start(3, |node, frame| match &frame.request {
        Request::Status => Act::Answer(status(node)),
        Request::Admin(AdminRequest::ListFaults) => Act::Answer(Answer::Admin(AdminAnswer::Faults(vec![]))),
        Request::Admin(AdminRequest::Stop) => Act::HangUp,
        Request::Admin(_) => Act::Answer(refused(Code::Forbidden, "not without --faults")),
        other => panic!("{other:?}"),
    });
    let client = cluster.client();
    for node in ["n1", "n2", "n3"] {
        assert_eq!(block_on(client.status(&name(node))).unwrap().name, name(node));
        assert_eq!(client.name_of(block_on(client.topology_of(&name(node))).unwrap().node), Some(name(node)));
    }
    let admin = |request| block_on(client.admin(&name("n2"), request));
    assert_eq!(admin(AdminRequest::ListFaults), Ok(AdminAnswer::Faults(vec![])));
    assert!(matches!(admin(AdminRequest::ClearFaults), Err(AdminError::NotDone(_))));
    assert!(matches!(admin(AdminRequest::Stop), Err(AdminError::Unknown(_))));
    assert!(matches!(block_on(client.status(&name("n7"))), Err(AskError::NoSuchNode(_))));
    assert_eq!(cluster.seen().iter().filter(|(_, f)| matches!(f.request, Request::Admin(_))).count(), 3);
}

#[test]
fn a_closed_client_says_so() {
    let cluster = Cluster::start(1, |_, _| Act::Silence);
    let client = cluster.client();
    block_on(async {
        let waiting = async_std::task::spawn({
            let client = client.clone();
            async move { client.get("k").attempts(1).await }
        });
        poll("the request", || (cluster.seen().len() == 1).then_some(()));
        client.close().await;
        let error = waiting.await.unwrap_err();
        assert_eq!(error.problem().code, Code::Connection, "{error}");
        let error = client.put_blind("k", "v").attempts(1).await.unwrap_err();
        assert!(matches!(error, WriteError::NotApplied { .. }), "{error}");
    });
}

/// What the examples and most programs do, on whatever runtime drives it.
async fn read_and_write(options: ConnectOptions) {
    let client = Client::connect(options).await.unwrap();
    client.put_blind("k", "a").await.unwrap();
    client.update("k", |values: &[Bytes]| [values.concat().as_slice(), b"b"].concat()).await.unwrap();
    assert_eq!(client.get("k").await.unwrap().single().unwrap().unwrap(), "ab");
    client.close().await;
}

fn is_send<F: Future + Send>(future: F) -> F {
    future
}

#[test]
fn it_works_from_tokio() {
    let shelf = Shelf::default();
    let cluster = Cluster::start(3, move |_, frame| Act::Answer(shelf.answer(frame)));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    // The runtime has neither its timers nor its sockets switched on: the client brings its own.
    runtime.block_on(async {
        tokio::spawn(is_send(read_and_write(cluster.options()))).await.unwrap();
    });
}

#[test]
fn it_works_from_async_std() {
    let shelf = Shelf::default();
    let cluster = Cluster::start(3, move |_, frame| Act::Answer(shelf.answer(frame)));
    block_on(async_std::task::spawn(is_send(read_and_write(cluster.options()))));
}
