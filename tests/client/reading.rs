//! Reads: repeated, hedged, many at once, and given up.

use super::*;

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
