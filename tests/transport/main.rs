//! Links between real sockets on loopback: order, limits, strangers, certificates, faults.
#![cfg(feature = "transport")]
#![expect(clippy::unwrap_used, reason = "a test that panics has failed, which is what it is for")]

mod faults;
mod raw;

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use async_io::Timer;
use bytes::Bytes;
use futures_lite::future::or;
use starling::protocol::rng::Rng;
use starling::protocol::wire::frame::CLIENT_REQUEST_BYTES_MAX;
use starling::transport::faults::{Direction, Fault, Faults};
use starling::transport::{
    Authority, BindError, CloseCode, ConnectError, Credentials, Endpoint, EndpointOptions, Identity, Link,
    LinkError, LinkReceiver, LinkSender, Protocol, PushError, ResetSecret, Role,
};

static AUTHORITY: LazyLock<Authority> = LazyLock::new(|| Authority::create("test").unwrap());
static OTHER_AUTHORITY: LazyLock<Authority> = LazyLock::new(|| Authority::create("other").unwrap());

const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Runs a test on async-std under a deadline that no healthy run comes near.
fn run(test: impl Future<Output = ()>) {
    async_std::task::block_on(or(test, async {
        Timer::after(Duration::from_secs(60)).await;
        panic!("the test hangs");
    }));
}

/// A test that expects a deadline to pass should not take long.
fn impatient() -> EndpointOptions {
    EndpointOptions { handshake_timeout: Duration::from_millis(300), ..EndpointOptions::default() }
}

fn node_credentials(name: &str) -> Credentials {
    AUTHORITY.issue_node("c", name).unwrap().credentials().unwrap()
}

fn node_with(name: &str, options: EndpointOptions) -> Endpoint {
    Endpoint::bind(ANY_PORT, &node_credentials(name), options).unwrap()
}

fn node(name: &str) -> Endpoint {
    node_with(name, EndpointOptions::default())
}

fn client_of(authority: &Authority, options: EndpointOptions) -> Endpoint {
    let credentials = authority.issue_client("shop", Role::Writer).unwrap().credentials().unwrap();
    Endpoint::bind(ANY_PORT, &credentials, EndpointOptions { accepts: false, ..options }).unwrap()
}

fn client() -> Endpoint {
    client_of(&AUTHORITY, EndpointOptions::default())
}

async fn linked(from: &Endpoint, to: &Endpoint, protocol: Protocol) -> (Link, Link) {
    let (dialled, accepted) =
        futures_lite::future::zip(from.connect(to.local_address(), protocol), to.accept()).await;
    (dialled.unwrap(), accepted.unwrap())
}

fn push(sender: &LinkSender, payload: &[u8]) {
    sender.push(|out| out.extend_from_slice(payload)).unwrap();
}

/// Reads exactly `count` frames.
async fn read(receiver: &mut LinkReceiver, count: usize) -> Vec<Bytes> {
    let mut frames = Vec::new();
    while frames.len() < count {
        receiver.next_batch(&mut frames).await.unwrap();
    }
    assert_eq!(frames.len(), count, "more frames than were sent");
    frames
}

/// Sends every frame back, until the link ends. Returns why it ended.
async fn echo(mut link: Link) -> LinkError {
    let mut batch = Vec::new();
    loop {
        if let Err(error) = link.receiver.next_batch(&mut batch).await {
            return error;
        }
        for payload in batch.drain(..) {
            push(&link.sender, &payload);
        }
    }
}

/// That a node still serves: what every attack ends with.
async fn assert_serves(server: &Endpoint) {
    let client = client();
    let (mut dialled, accepted) = linked(&client, server, Protocol::Client).await;
    let echo = async_std::task::spawn(echo(accepted));
    push(&dialled.sender, b"still there?");
    assert_eq!(read(&mut dialled.receiver, 1).await[0], "still there?");
    dialled.close(CloseCode::DONE, "yes");
    echo.await;
}

#[test]
fn ten_thousand_pipelined_frames_come_back_in_order() {
    run(async {
        let (server, client) = (node("n1"), client());
        let (mut dialled, accepted) = linked(&client, &server, Protocol::Client).await;
        assert_eq!(*accepted.identity(), Identity::client(Role::Writer, "shop").unwrap());
        assert_eq!(*dialled.identity(), Identity::node("c", "n1").unwrap());
        assert_eq!(accepted.protocol(), Protocol::Client);
        assert_eq!(accepted.remote_address(), client.local_address());
        let echo = async_std::task::spawn(echo(accepted));
        for number in 0..10_000_u32 {
            // Sizes from none to a few hundred bytes.
            let mut payload = number.to_le_bytes().to_vec();
            payload.resize(4 + number as usize % 300, number as u8);
            push(&dialled.sender, &payload);
        }
        for (number, payload) in (0_u32..).zip(read(&mut dialled.receiver, 10_000).await) {
            assert_eq!(payload[..4], number.to_le_bytes());
            assert_eq!(payload.len(), 4 + number as usize % 300);
            assert!(payload[4..].iter().all(|byte| *byte == number as u8));
        }
        dialled.close(CloseCode(300), "enough");
        let closed = LinkError::ClosedThere { code: CloseCode(300), reason: "enough".to_owned() };
        assert_eq!(echo.await, closed);
        let here = LinkError::ClosedHere { code: CloseCode(300), reason: "enough".to_owned() };
        assert_eq!(dialled.sender.closed().await, here);
        assert_eq!(dialled.sender.push(|_| ()), Err(PushError::Closed));
    });
}

#[test]
fn large_frames_pass_between_nodes() {
    run(async {
        let (a, b) = (node("n1"), node("n2"));
        let (mut dialled, accepted) = linked(&a, &b, Protocol::Peer).await;
        async_std::task::spawn(echo(accepted));
        let large: Vec<u8> = (0..12_u32 << 20).map(|n| (n / 7) as u8).collect();
        push(&dialled.sender, &large);
        push(&dialled.sender, b"small");
        let frames = read(&mut dialled.receiver, 2).await;
        assert!(frames[0] == large && frames[1] == "small");
    });
}

#[test]
fn requests_pass_bulk_that_nobody_reads() {
    run(async {
        let (a, b) = (node("n1"), node("n2"));
        let (mut dialled, accepted) = linked(&a, &b, Protocol::Peer).await;
        let bulk = accepted.receiver.bulk();
        async_std::task::spawn(echo(accepted));
        // More than all windows hold.
        let large = vec![7_u8; 12 << 20];
        for _ in 0..2 {
            dialled.sender.push_bulk(|out| out.extend_from_slice(&large)).unwrap();
        }
        let mut unread = bulk.await.unwrap();
        for number in 0..100_u8 {
            push(&dialled.sender, &[number]);
            assert_eq!(read(&mut dialled.receiver, 1).await[0][..], [number]);
        }
        // And it was only waiting.
        let frames = read(&mut unread, 2).await;
        assert!(frames.iter().all(|frame| *frame == large));
    });
}

#[test]
fn bulk_flows_both_ways_in_order_and_its_end_is_not_that_of_the_link() {
    run(async {
        let (a, b) = (node("n1"), node("n2"));
        let (mut dialled, mut accepted) = linked(&a, &b, Protocol::Peer).await;
        let (to_b, to_a) = (accepted.receiver.bulk(), dialled.receiver.bulk());
        for number in 0..100_u8 {
            dialled.sender.push_bulk(|out| out.push(number)).unwrap();
            accepted.sender.push_bulk(|out| out.push(number)).unwrap();
        }
        let (mut to_b, mut to_a) = (to_b.await.unwrap(), to_a.await.unwrap());
        for bulk in [&mut to_b, &mut to_a] {
            let frames = read(bulk, 100).await;
            assert!((0..100_u8).zip(&frames).all(|(number, frame)| frame[..] == [number]));
        }
        push(&dialled.sender, b"last");
        let finishing = dialled.sender.clone();
        let finished = async_std::task::spawn(async move { finishing.finish().await });
        assert_eq!(to_b.next_batch(&mut Vec::new()).await, Err(LinkError::Finished));
        assert_eq!(dialled.sender.push_bulk(|_| ()), Err(PushError::Closed));
        assert_eq!(read(&mut accepted.receiver, 1).await[0], "last");
        finished.await.unwrap();
        push(&accepted.sender, b"the other direction goes on");
        assert_eq!(read(&mut dialled.receiver, 1).await[0], "the other direction goes on");
    });
}

#[test]
fn links_of_clients_have_no_bulk() {
    run(async {
        let (server, client) = (node("n1"), client());
        let (dialled, accepted) = linked(&client, &server, Protocol::Client).await;
        for sender in [&dialled.sender, &accepted.sender] {
            assert_eq!(sender.push_bulk(|out| out.push(1)), Err(PushError::Closed));
        }
        // Whoever tries all the same is not allowed to open a stream for it.
        let raw = raw::Raw::client(b"starling-client/1");
        let (connection, _send, _receive) = raw.greeted(server.local_address()).await;
        let opened = async { connection.open_uni().await.is_ok() };
        let tired = async {
            Timer::after(Duration::from_millis(200)).await;
            false
        };
        assert!(!or(opened, tired).await);
    });
}

#[test]
fn what_was_pushed_before_the_end_arrives() {
    run(async {
        let (a, b) = (node("n1"), node("n2"));
        let (dialled, mut accepted) = linked(&a, &b, Protocol::Peer).await;
        let payload = vec![7; 3 << 20];
        push(&dialled.sender, &payload);
        let reader = async_std::task::spawn(async move {
            let frames = read(&mut accepted.receiver, 1).await;
            (frames[0].len(), accepted.receiver.next_batch(&mut Vec::new()).await)
        });
        dialled.sender.finish().await.unwrap();
        assert_eq!(dialled.sender.push(|_| ()), Err(PushError::Closed));
        assert_eq!(reader.await, (3 << 20, Err(LinkError::Finished)));
    });
}

#[test]
fn a_sender_refuses_what_is_too_long_and_a_full_queue_says_so() {
    run(async {
        let server = node("n1");
        let options = EndpointOptions { queued_bytes_max: 1 << 20, ..EndpointOptions::default() };
        let client = client_of(&AUTHORITY, options);
        let (dialled, _accepted) = linked(&client, &server, Protocol::Client).await;
        let long = dialled.sender.push(|out| out.resize(out.len() + CLIENT_REQUEST_BYTES_MAX + 1, 0));
        let max = CLIENT_REQUEST_BYTES_MAX;
        assert_eq!(long, Err(PushError::TooLong { bytes: max + 1, max }));
        // Nobody reads at the other side: windows fill, then the queue.
        let mut pushed = 0;
        while dialled.sender.push(|out| out.resize(out.len() + (64 << 10), 0)).is_ok() {
            pushed += 1;
            assert!(pushed < 10_000, "the queue has no bound");
            futures_lite::future::yield_now().await;
        }
        assert_eq!(dialled.sender.push(|_| ()), Err(PushError::Full));
        assert!(dialled.sender.queued_bytes() >= 1 << 20);
    });
}

/// A link's own sender refuses such a frame, hence the bare connection.
#[test]
fn an_over_long_frame_closes_the_link_with_a_reason() {
    run(async {
        let server = node("n1");
        let raw = raw::Raw::client(b"starling-client/1");
        let (connection, mut send, _receive) = raw.greeted(server.local_address()).await;
        let mut link = server.accept().await.unwrap();
        let mut stream = Vec::new();
        stream.extend_from_slice(&2_u32.to_le_bytes());
        stream.extend_from_slice(b"ok");
        stream.extend_from_slice(&(CLIENT_REQUEST_BYTES_MAX as u32 + 1).to_le_bytes());
        send.write_all(&stream).await.unwrap();
        assert_eq!(read(&mut link.receiver, 1).await[0], "ok");
        let error = link.receiver.next_batch(&mut Vec::new()).await.unwrap_err();
        assert!(matches!(error, LinkError::FrameTooLong(_)), "{error}");
        let reason = connection.closed().await.to_string();
        assert!(reason.contains("at most 2097152 are allowed"), "{reason}");
        assert_serves(&server).await;
    });
}

#[test]
fn garbage_datagrams_disturb_nobody() {
    run(async {
        let (server, client) = (node("n1"), client());
        let (mut dialled, accepted) = linked(&client, &server, Protocol::Client).await;
        async_std::task::spawn(echo(accepted));
        let stranger = UdpSocket::bind(ANY_PORT).unwrap();
        let mut rng = Rng::from_number(3);
        for number in 0..3_000_u32 {
            let mut datagram: Vec<u8> = (0..rng.below(1_400)).map(|_| rng.bits() as u8).collect();
            // A third looks like an initial packet of QUIC version 1, a third like one of an unknown version.
            if number % 3 != 0 && datagram.len() > 6 {
                datagram[0] = 0xc0 | (datagram[0] & 0x0f);
                datagram[1..5].copy_from_slice(&if number % 3 == 1 { [0, 0, 0, 1] } else { [9; 4] });
                datagram[5] = 8;
                datagram.resize(1_200, 0);
            }
            stranger.send_to(&datagram, server.local_address()).unwrap();
            if number % 100 == 0 {
                push(&dialled.sender, b"ping");
                assert_eq!(read(&mut dialled.receiver, 1).await[0], "ping");
            }
        }
        assert_serves(&server).await;
    });
}

#[test]
fn half_open_links_end_at_the_deadline_and_are_told_why() {
    run(async {
        let server = node_with("n1", impatient());
        let raw = raw::Raw::client(b"starling-client/1");
        // A handshake, but no stream; and a stream that says nothing useful.
        let silent = raw.connection(server.local_address()).await.unwrap();
        let rude = raw.connection(server.local_address()).await.unwrap();
        rude.open_bi().await.unwrap().0.write_all(b"GET / HTTP/1.1").await.unwrap();
        let reason = silent.closed().await.to_string();
        assert!(reason.contains("not opened in time"), "{reason}");
        let reason = rude.closed().await.to_string();
        assert!(reason.contains("begins with an empty frame"), "{reason}");
        assert_serves(&server).await;
    });
}

#[test]
fn handshakes_that_never_go_on_are_bounded_and_others_still_come_in() {
    run(async {
        // Two for the strangers, and one more for whoever proves its address.
        let options =
            EndpointOptions { handshakes_unproven_max: 2, handshakes_max: 3, ..EndpointOptions::default() };
        let server = node_with("n1", options);
        // First packets of true handshakes, whose senders then never say another word.
        let stranger = UdpSocket::bind(ANY_PORT).unwrap();
        for _ in 0..20 {
            // A recorder each: an ended dialler says goodbye, and that must not be taken for a first packet.
            let recorder = UdpSocket::bind(ANY_PORT).unwrap();
            recorder.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            let dialler = client_of(&AUTHORITY, impatient());
            let target = recorder.local_addr().unwrap();
            let dialling =
                async_std::task::spawn(async move { dialler.connect(target, Protocol::Client).await });
            let mut packet = [0; 2_000];
            let (bytes, _) = recorder.recv_from(&mut packet).unwrap();
            dialling.cancel().await;
            stranger.send_to(&packet[..bytes], server.local_address()).unwrap();
        }
        // Now an address has to prove itself, which an honest dialler does without noticing.
        assert_serves(&server).await;
    });
}

#[test]
fn links_beyond_the_cap_are_refused_at_once_and_the_place_comes_back() {
    run(async {
        let server = node_with("n1", EndpointOptions { links_max: 1, ..EndpointOptions::default() });
        let client = client();
        let (first, accepted) = linked(&client, &server, Protocol::Client).await;
        let error = client.connect(server.local_address(), Protocol::Client).await.unwrap_err();
        assert_eq!(error, ConnectError::Busy { address: server.local_address() });
        first.close(CloseCode::DONE, "next, please");
        accepted.sender.closed().await;
        loop {
            match client.connect(server.local_address(), Protocol::Client).await {
                Ok(_) => break,
                Err(ConnectError::Busy { .. }) => futures_lite::future::yield_now().await,
                Err(error) => panic!("{error}"),
            }
        }
    });
}

#[test]
fn nobody_there_is_said_after_the_deadline() {
    run(async {
        let silent = UdpSocket::bind(ANY_PORT).unwrap();
        let address = silent.local_addr().unwrap();
        let error = client_of(&AUTHORITY, impatient()).connect(address, Protocol::Client).await.unwrap_err();
        let waited = Duration::from_millis(300);
        assert_eq!(error, ConnectError::NobodyAnswers { address, waited });
        assert!(error.to_string().contains("is the node running"), "{error}");
    });
}

#[test]
fn another_authority_is_told_apart_on_either_side() {
    run(async {
        let server = node("n1");
        // Trusts nothing that the server shows.
        let stranger = client_of(&OTHER_AUTHORITY, EndpointOptions::default());
        let error = stranger.connect(server.local_address(), Protocol::Client).await.unwrap_err();
        assert!(matches!(error, ConnectError::TheirCertificate { .. }), "{error:?}");
        assert!(error.to_string().contains("another authority"), "{error}");
        // Trusts the server, but shows what the server does not trust.
        let raw = raw::Raw::new(
            &OTHER_AUTHORITY.issue_client("shop", Role::Admin).unwrap(),
            AUTHORITY.certificate_pem(),
            b"starling-client/1",
        );
        // TLS 1.3: the dialler is through before it is refused.
        let connection = raw.connection(server.local_address()).await.unwrap();
        let reason = connection.closed().await.to_string();
        assert!(reason.contains("UnknownIssuer") || reason.contains("error 48"), "{reason}");
        assert_serves(&server).await;
    });
}

#[test]
fn a_dialler_that_is_not_trusted_learns_that_it_is_its_own_certificate() {
    run(async {
        let server = node("n1");
        let issued = OTHER_AUTHORITY.issue_client("shop", Role::Admin).unwrap();
        // A file that holds both authorities trusts both; the server trusts one.
        let both = format!("{}{}", AUTHORITY.certificate_pem(), OTHER_AUTHORITY.certificate_pem());
        let credentials = Credentials::from_pem(&both, &issued.chain, &issued.key).unwrap();
        let client = Endpoint::bind(ANY_PORT, &credentials, EndpointOptions::dialling_only()).unwrap();
        let error = client.connect(server.local_address(), Protocol::Client).await.unwrap_err();
        assert!(matches!(error, ConnectError::OurCertificate { .. }), "{error:?}");
        assert!(error.to_string().contains("another authority"), "{error}");
    });
}

#[test]
fn a_client_cannot_speak_the_peer_protocol_nor_a_node_to_another_cluster() {
    run(async {
        let server = node("n1");
        let refused = |error: ConnectError, expected: CloseCode| match error {
            ConnectError::Refused { code, reason, .. } if code == expected => reason,
            other => panic!("{other:?}"),
        };
        let error = client().connect(server.local_address(), Protocol::Peer).await.unwrap_err();
        let reason = refused(error, CloseCode::FORBIDDEN);
        assert!(reason.contains("client shop (writer)") && reason.contains("only nodes"), "{reason}");

        let credentials = AUTHORITY.issue_node("d", "n1").unwrap().credentials().unwrap();
        let foreign = Endpoint::bind(ANY_PORT, &credentials, EndpointOptions::default()).unwrap();
        let error = foreign.connect(server.local_address(), Protocol::Peer).await.unwrap_err();
        let reason = refused(error, CloseCode::WRONG_CLUSTER);
        assert!(reason.contains("cluster d") && reason.contains("cluster c"), "{reason}");
        assert_serves(&server).await;
    });
}

#[test]
fn an_unknown_protocol_is_said_to_be_one() {
    run(async {
        let server = node("n1");
        let raw = raw::Raw::client(b"starling-client/99");
        let error = raw.connection(server.local_address()).await.unwrap_err();
        assert!(error.to_string().contains("error 120"), "{error}");
        // The other way round: a program that is no Starling node, yet holds a node's certificate.
        let other = raw::Raw::server(&AUTHORITY.issue_node("c", "n9").unwrap(), b"h3");
        let error = client().connect(other.address(), Protocol::Client).await.unwrap_err();
        let expected = ConnectError::WrongProtocol { address: other.address(), protocol: Protocol::Client };
        assert_eq!(error, expected);
    });
}

#[test]
fn a_client_certificate_does_not_make_a_node() {
    let credentials = AUTHORITY.issue_client("shop", Role::Admin).unwrap().credentials().unwrap();
    let error = Endpoint::bind(ANY_PORT, &credentials, EndpointOptions::default()).unwrap_err();
    assert!(matches!(error, BindError::NotANode { .. }), "{error}");
    run(async {
        // One that accepts all the same, by other means.
        let impostor = raw::Raw::server(
            &AUTHORITY.issue_client("shop", Role::Admin).unwrap(),
            Protocol::Client.alpn().as_bytes(),
        );
        let error = client().connect(impostor.address(), Protocol::Client).await.unwrap_err();
        assert!(matches!(error, ConnectError::TheirCertificate { .. }), "{error:?}");
    });
}

#[test]
fn a_used_port_and_a_foreign_address_are_clear_errors() {
    let first = node("n1");
    let bind = |address| Endpoint::bind(address, &node_credentials("n2"), EndpointOptions::default());
    let error = bind(first.local_address()).unwrap_err();
    assert!(matches!(error, BindError::InUse { .. }), "{error}");
    assert!(error.to_string().contains("in use"), "{error}");
    let error = bind("192.0.2.1:0".parse().unwrap()).unwrap_err();
    assert!(matches!(error, BindError::NotHere { .. }), "{error}");
}

#[test]
fn closing_an_endpoint_tells_everybody_and_frees_the_port() {
    run(async {
        let (server, client) = (node("n1"), client());
        let (mut dialled, _accepted) = linked(&client, &server, Protocol::Client).await;
        server.close("the node is stopping").await;
        assert!(server.accept().await.is_none());
        let error = dialled.receiver.next_batch(&mut Vec::new()).await.unwrap_err();
        let reason = "the node is stopping".to_owned();
        assert_eq!(error, LinkError::ClosedThere { code: CloseCode::DONE, reason });
        let address = server.local_address();
        drop((server, _accepted));
        // The driver of the socket ends a moment after the last handle is gone.
        while UdpSocket::bind(address).is_err() {
            futures_lite::future::yield_now().await;
        }
    });
}

#[test]
fn an_idle_link_lives_by_its_signs_of_life_and_dies_without_them() {
    run(async {
        let short = Duration::from_millis(400);
        let with = |keep_alive_interval| EndpointOptions {
            idle_timeout: short,
            keep_alive_interval,
            ..EndpointOptions::default()
        };
        let server = node_with("n1", with(None));
        let (lively, quiet) =
            (client_of(&AUTHORITY, with(Some(Duration::from_millis(50)))), client_of(&AUTHORITY, with(None)));
        let (lively, _a) = linked(&lively, &server, Protocol::Client).await;
        let (quiet, _b) = linked(&quiet, &server, Protocol::Client).await;
        assert_eq!(quiet.sender.closed().await, LinkError::TimedOut);
        assert_eq!(lively.sender.close_reason(), None);
        // One more idle timeout on top: only signs of life explain that the link is there.
        let ended = or(async { Some(lively.sender.closed().await) }, async {
            Timer::after(short).await;
            None
        });
        assert_eq!(ended.await, None);
    });
}

#[test]
fn links_work_from_a_program_on_tokio() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let server = node("n1");
        assert_serves(&server).await;
    });
}

#[test]
fn one_socket_serves_both_families() {
    run(async {
        // A machine without IPv6 cannot tell.
        let Ok(_) = UdpSocket::bind("[::1]:0") else { return };
        let any = "[::]:0".parse().unwrap();
        let server = Endpoint::bind(any, &node_credentials("n1"), EndpointOptions::default()).unwrap();
        let (four, six) = (client(), node_credentials("n2"));
        let six = Endpoint::bind("[::1]:0".parse().unwrap(), &six, EndpointOptions::default()).unwrap();
        for (dialler, ip) in [(&four, "127.0.0.1"), (&six, "::1")] {
            let address = SocketAddr::new(ip.parse().unwrap(), server.local_address().port());
            let (dialled, accepted) =
                futures_lite::future::zip(dialler.connect(address, Protocol::Client), server.accept()).await;
            assert_eq!(dialled.unwrap().remote_address(), address);
            // The plain address, not the mapped one under which the socket sees it.
            assert_eq!(accepted.unwrap().remote_address(), dialler.local_address());
        }
        let error = four.connect("[::1]:9".parse().unwrap(), Protocol::Client).await.unwrap_err();
        assert!(matches!(error, ConnectError::BadAddress { .. }), "{error}");
    });
}

#[test]
fn a_node_that_takes_no_links_refuses_them_once_its_backlog_is_full() {
    run(async {
        let (server, client) = (node("n1"), client());
        let mut links = Vec::new();
        let error = loop {
            match client.connect(server.local_address(), Protocol::Client).await {
                Ok(link) => links.push(link),
                Err(error) => break error,
            }
            assert!(links.len() < 1_000, "the backlog has no bound");
        };
        assert_eq!(error, ConnectError::Busy { address: server.local_address() });
        // Taking some makes room again.
        server.accept().await.unwrap();
        client.connect(server.local_address(), Protocol::Client).await.unwrap();
    });
}
