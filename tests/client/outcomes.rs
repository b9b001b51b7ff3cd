//! What a write is said to have come to, whatever its attempts came to.

use super::*;

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
        for turns in &all {
            let came_through = (0..20).any(|_| check_outcome(&client, &cluster, &acts, turns));
            assert!(came_through, "{turns:?}: some attempt never arrived");
        }
        sequences = all;
    }
}

/// Runs one sequence; tells whether every attempt arrived.
fn check_outcome(
    client: &Client,
    cluster: &Cluster,
    acts: &std::sync::Mutex<Vec<Turn>>,
    turns: &[Turn],
) -> bool {
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
