//! Links over a network that cuts, delays, loses, duplicates and reorders.

use super::*;

fn faulty(name: &str, seed: u64) -> (Endpoint, Arc<Faults>) {
    let faults = Arc::new(Faults::new(Rng::from_number(seed)));
    let options = EndpointOptions { faults: Some(Arc::clone(&faults)), ..EndpointOptions::default() };
    (node_with(name, options), faults)
}

#[test]
fn a_cut_that_heals_within_the_idle_timeout_loses_nothing() {
    run(async {
        let ((a, faults), b) = (faulty("n1", 1), node("n2"));
        let (mut dialled, accepted) = linked(&a, &b, Protocol::Peer).await;
        async_std::task::spawn(echo(accepted));
        for direction in [Direction::Outbound, Direction::Inbound] {
            faults.set(b.local_address(), direction, Fault::CUT).unwrap();
        }
        for number in 0..100_u32 {
            push(&dialled.sender, &number.to_le_bytes());
        }
        // Until something has run into the cut, nothing is shown.
        while faults.injected().cut == 0 {
            Timer::after(Duration::from_millis(5)).await;
        }
        let mut early = Vec::new();
        let answer = or(async { Some(dialled.receiver.next_batch(&mut early).await) }, async {
            Timer::after(Duration::from_millis(300)).await;
            None
        });
        assert_eq!(answer.await, None);
        faults.clear_all();
        for (number, payload) in (0_u32..).zip(read(&mut dialled.receiver, 100).await) {
            assert_eq!(payload[..], number.to_le_bytes());
        }
    });
}

#[test]
fn a_one_way_cut_ends_the_link_at_the_idle_timeout() {
    run(async {
        let faults = Arc::new(Faults::new(Rng::from_number(1)));
        let options = EndpointOptions {
            faults: Some(Arc::clone(&faults)),
            idle_timeout: Duration::from_millis(500),
            keep_alive_interval: Some(Duration::from_millis(100)),
            ..EndpointOptions::default()
        };
        let (a, b) = (node_with("n1", options), node("n2"));
        let (dialled, _accepted) = linked(&a, &b, Protocol::Peer).await;
        faults.set(b.local_address(), Direction::Inbound, Fault::CUT).unwrap();
        assert_eq!(dialled.sender.closed().await, LinkError::TimedOut);
        assert!(faults.injected().cut > 0);
    });
}

#[test]
fn whoever_speaks_to_a_node_that_was_killed_and_restarted_is_told_so_by_nobody_else() {
    run(async {
        let faults = Arc::new(Faults::new(Rng::from_number(1)));
        let with = |secret| EndpointOptions {
            reset_secret: Some(ResetSecret::new([secret; ResetSecret::BYTES])),
            ..EndpointOptions::default()
        };
        let server = node_with("n1", EndpointOptions { faults: Some(Arc::clone(&faults)), ..with(1) });
        let client = client();
        let (mut dialled, accepted) = linked(&client, &server, Protocol::Client).await;
        let address = server.local_address();
        // Nobody hears a killed process close anything.
        faults.set(client.local_address(), Direction::Outbound, Fault::CUT).unwrap();
        drop((server, accepted));
        let another = rebound(address, with(2)).await;
        push(&dialled.sender, b"said to nobody");
        let mut payloads = Vec::new();
        let told = or(async { Some(dialled.receiver.next_batch(&mut payloads).await) }, async {
            Timer::after(Duration::from_millis(500)).await;
            None
        });
        assert_eq!(told.await, None, "a node with another secret ends links that are not its own");
        drop(another);
        let _restarted = rebound(address, with(1)).await;
        // Long before the idle timeout: what was pushed is sent again and again until somebody says something.
        let told = or(async { Some(dialled.receiver.next_batch(&mut payloads).await) }, async {
            Timer::after(Duration::from_secs(5)).await;
            None
        });
        let gone = LinkError::Broken("the other side no longer knows the link".to_owned());
        assert_eq!(told.await, Some(Err(gone)));
    });
}

/// An endpoint at an address that another one has just left, or is about to leave.
async fn rebound(address: SocketAddr, options: EndpointOptions) -> Endpoint {
    // A node of the development authority has another certificate after every start.
    let credentials = node_credentials("n1");
    loop {
        match Endpoint::bind(address, &credentials, options.clone()) {
            Ok(endpoint) => return endpoint,
            Err(_) => futures_lite::future::yield_now().await,
        }
    }
}

fn frames_survive(seed: u64, outbound: Fault, inbound: Fault) -> starling::transport::faults::Injected {
    let (a, faults) = faulty("n1", seed);
    let counters = Arc::clone(&faults);
    run(async move {
        let b = node("n2");
        let (mut dialled, accepted) = linked(&a, &b, Protocol::Peer).await;
        // Not before: lost handshakes are retried after a second and more.
        faults.set(b.local_address(), Direction::Outbound, outbound).unwrap();
        faults.set(b.local_address(), Direction::Inbound, inbound).unwrap();
        async_std::task::spawn(echo(accepted));
        let payload = |number: u32| {
            let mut payload = number.to_le_bytes().to_vec();
            payload.resize(4 + number as usize * 7 % 900, number as u8);
            payload
        };
        // In bursts, so that there are many datagrams of all kinds rather than a few full ones.
        for burst in 0..50 {
            let numbers = burst * 20..(burst + 1) * 20;
            for number in numbers.clone() {
                push(&dialled.sender, &payload(number));
            }
            for (number, arrived) in numbers.zip(read(&mut dialled.receiver, 20).await) {
                assert_eq!(arrived, payload(number));
            }
        }
    });
    counters.injected()
}

#[test]
fn delay_keeps_frames_whole_and_in_order() {
    let fault = Fault { delay_ms: 10, jitter_ms: 5, ..Fault::default() };
    assert!(frames_survive(1, fault, Fault::default()).delayed > 50);
}

#[test]
fn loss_keeps_frames_whole_and_in_order() {
    let fault = Fault { loss_per_mille: 200, ..Fault::default() };
    assert!(frames_survive(2, fault, fault).lost > 10);
}

#[test]
fn duplicates_and_reordering_keep_frames_whole_and_in_order() {
    let fault = Fault { duplicate_per_mille: 300, reorder_per_mille: 300, ..Fault::default() };
    let injected = frames_survive(3, fault, Fault::default());
    assert!(injected.duplicated > 10 && injected.reordered > 10, "{injected:?}");
}

#[test]
fn a_rule_for_one_address_leaves_the_others_alone() {
    run(async {
        let (a, faults) = faulty("n1", 1);
        let b = node("n2");
        faults.set(b.local_address(), Direction::Outbound, Fault::CUT).unwrap();
        assert_serves(&a).await;
        assert_eq!(faults.injected().cut, 0);
    });
}
