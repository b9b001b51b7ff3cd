#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use super::*;
use crate::protocol::ring::entry::Name;
use crate::transport::authority::Authority;
use crate::transport::endpoint::EndpointOptions;

fn endpoint(authority: &Authority, name: &str) -> Endpoint {
    let credentials = authority.issue_node("test", name).unwrap().credentials().unwrap();
    Endpoint::bind("127.0.0.1:0".parse().unwrap(), &credentials, EndpointOptions::default()).unwrap()
}

fn hello(node: u64, name: &str, incarnation: u64) -> Hello {
    let name = Name::new(name).unwrap();
    Hello { node: NodeId(node), name, cluster: None, incarnation: Incarnation(incarnation) }
}

fn waiting(to: u64, bytes: usize) -> Option<Waiting> {
    Some(Waiting { to: Some(NodeId(to)), message: vec![0; bytes] })
}

/// Two nodes, and so many links between them; whoever dialled holds the first halves.
async fn linked(links: usize) -> (Endpoint, Endpoint, Vec<Link>, Vec<Link>) {
    let authority = Authority::create("test").unwrap();
    let (here, there) = (endpoint(&authority, "n1"), endpoint(&authority, "n2"));
    let (mut dialled, mut accepted) = (Vec::new(), Vec::new());
    for _ in 0..links {
        dialled.push(here.connect(there.local_address(), Protocol::Peer).await.unwrap());
        accepted.push(there.accept().await.unwrap());
    }
    (here, there, dialled, accepted)
}

#[test]
fn no_two_links_have_one_number_even_if_the_first_is_gone() {
    async_std::task::block_on(async {
        let (here, _there, dialled, _accepted) = linked(2).await;
        let peers = Peers::new(here, Clock::start());
        let (own, other) = (hello(1, "n1", 1), hello(2, "n2", 1));
        let first = peers.register(&own, &other, own.node, &dialled[0].sender);
        peers.lock().links.clear();
        let second = peers.register(&own, &other, own.node, &dialled[1].sender);
        assert_ne!(first.serial, second.serial);
    });
}

#[test]
fn of_two_links_both_nodes_keep_the_one_that_the_lower_id_opened_unless_it_was_given_up() {
    async_std::task::block_on(async {
        let (here, _there, dialled, _accepted) = linked(2).await;
        let kept = |own: u64, old: (u64, u64), new: (u64, u64), later: Duration| {
            let active = |(opened_by, incarnation), serial, sender: &LinkSender| Active {
                sender: sender.clone(),
                incarnation: Incarnation(incarnation),
                opened_by: NodeId(opened_by),
                since: Moment::default(),
                heard: Arc::new(AtomicU64::new((Moment::default() + later).0)),
                asked: None,
                serial,
            };
            let (peer, mut table) = (NodeId(3 - own), Table::default());
            table.links.insert(peer, active(old, 1, &dialled[0].sender));
            let new = active(new, 2, &dialled[1].sender);
            let superfluous = table.register(NodeId(own), peer, new, Moment::default() + later).unwrap();
            assert_eq!(superfluous.serial + table.links[&peer].serial, 3);
            table.links[&peer].serial
        };
        let soon = Duration::from_millis(50);
        for own in [1, 2] {
            assert_eq!(kept(own, (1, 1), (2, 1), soon), 1);
            assert_eq!(kept(own, (2, 1), (1, 1), soon), 2);
            // Whoever dials beside a link that has long been there cannot use that.
            assert_eq!(kept(own, (1, 1), (2, 1), SETTLED_AFTER), 2);
            // A new life of the peer, and a late word of an old one.
            assert_eq!(kept(own, (1, 1), (2, 2), soon), 2);
            assert_eq!(kept(own, (2, 2), (1, 1), SETTLED_AFTER), 1);
        }
        drop(here);
    });
}

#[test]
fn silence_does_not_make_a_link_stale_but_silence_as_an_answer_does() {
    async_std::task::block_on(async {
        let (here, there, dialled, accepted) = linked(1).await;
        let peers = Peers::new(here, Clock::start());
        let mut active =
            peers.register(&hello(1, "n1", 1), &hello(2, "n2", 1), NodeId(1), &dialled[0].sender);
        let mut now = Moment(active.heard.load(Ordering::Relaxed)) + Duration::from_secs(3_600);
        assert!(!active.is_stale(now), "nothing was sent in that hour");
        // Something came since it was asked.
        active.asked = Some((Moment::default(), active.sender.datagrams_received() - 1));
        assert!(!active.is_stale(now));
        // Now nobody is there any more, and the count stands still sooner or later.
        drop((there, accepted));
        active.sender.closed().await;
        let is_stale = (0..1_000).any(|_| {
            now = now + STALE_AFTER;
            active.is_stale(now)
        });
        assert!(is_stale);
    });
}

#[test]
fn what_waits_for_an_address_is_bounded_in_number_and_in_bytes() {
    let (address, now) = ("127.0.0.1:9".parse().unwrap(), Moment::default());
    let mut table = Table::default();
    assert!(table.dial(address, now, waiting(2, 1)));
    for _ in 0..2 * WAITING_MAX {
        assert!(!table.dial(address, now, waiting(2, 1)), "one attempt at a time");
    }
    assert_eq!(table.dials[&address].waiting.len(), WAITING_MAX);
    table.missed(address, now);
    assert!(!table.dial(address, now, waiting(2, 1)), "after a failure comes a pause");
    let now = now + PAUSE_MIN;
    assert!(table.dial(address, now, waiting(2, WAITING_BYTES_MAX)));
    table.dial(address, now, waiting(2, 1));
    assert_eq!(table.reached(address, NodeId(2)).len(), 1);
    assert!(table.dials.is_empty());
}

#[test]
fn an_address_where_another_node_lives_is_not_dialled_for_its_former_tenant() {
    async_std::task::block_on(async {
        let (here, there, dialled, _accepted) = linked(1).await;
        let address = there.local_address();
        let peers = Peers::new(here, Clock::start());
        peers.register(&hello(1, "n1", 1), &hello(2, "n2", 1), NodeId(1), &dialled[0].sender);
        let mut table = peers.lock();
        assert!(!table.is_taken(address, NodeId(9)), "nobody has answered there yet");
        table.reached(address, NodeId(2));
        assert!(table.is_taken(address, NodeId(9)));
        assert!(!table.is_taken(address, NodeId(2)));
        dialled[0].close(CloseCode::DONE, "gone");
        assert!(!table.is_taken(address, NodeId(9)), "whoever lived there is gone");
    });
}
