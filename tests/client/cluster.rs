//! Finding a cluster, routing to its nodes, and following it as it changes.

use super::*;

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
    // Which of its waits ends first is a matter of chance: the handshake's, the question's or the whole attempt's.
    let text = error.to_string();
    let ends = ["no answer within 0.3 s", "nobody answers at", "accepted the connection and never answered"];
    assert!(ends.iter().any(|end| text.contains(end)), "{text}");
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
