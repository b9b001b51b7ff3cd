//! Whoever can send packets to the port of a node, with a certificate or without one.

use std::net::UdpSocket;
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::QuicClientConfig;
use quinn::{Connection, ConnectionError, SendStream};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use starling::protocol::rng::Rng;
use starling::transport::authority::Issued;
use starling::transport::runtime::AsyncStd;
use starling::transport::{CloseCode, Endpoint, EndpointOptions, LinkError, Protocol};

use super::*;

fn local() -> UdpSocket {
    UdpSocket::bind("127.0.0.1:0").unwrap()
}

/// Bare QUIC with this certificate and protocol, without any of the manners of a link.
async fn bare(
    victim: &Victim,
    issued: &Issued,
    alpn: &str,
) -> (quinn::Endpoint, Result<Connection, ConnectionError>) {
    let mut roots = rustls::RootCertStore::empty();
    let authority = victim.authority();
    roots.add(CertificateDer::from_pem_slice(authority.certificate_pem().as_bytes()).unwrap()).unwrap();
    let chain = vec![CertificateDer::from_pem_slice(issued.chain.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .unwrap();
    tls.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    let mut endpoint =
        quinn::Endpoint::new(quinn::EndpointConfig::default(), None, local(), Arc::new(AsyncStd)).unwrap();
    let config = QuicClientConfig::try_from(tls).unwrap();
    endpoint.set_default_client_config(quinn::ClientConfig::new(Arc::new(config)));
    let connection = endpoint.connect(victim.address(), "node.starling.internal").unwrap().await;
    (endpoint, connection)
}

/// The same, greeted as links are.
async fn greeted(victim: &Victim, issued: &Issued, alpn: &str) -> (quinn::Endpoint, Connection, SendStream) {
    let (endpoint, connection) = bare(victim, issued, alpn).await;
    let connection = connection.unwrap();
    let (mut send, mut receive) = connection.open_bi().await.unwrap();
    send.write_all(&[0; 4]).await.unwrap();
    receive.read_exact(&mut [1; 4]).await.unwrap();
    (endpoint, connection, send)
}

fn client(victim: &Victim) -> Issued {
    victim.authority().issue_client("stranger", Role::Admin).unwrap()
}

/// Why the node closed the connection.
async fn closed(connection: &Connection) -> (u64, String) {
    match connection.closed().await {
        ConnectionError::ApplicationClosed(close) => {
            (close.error_code.into_inner(), String::from_utf8_lossy(&close.reason).into_owned())
        }
        other => panic!("{other}"),
    }
}

#[test]
fn garbage_datagrams_are_ignored() {
    let mut victim = Victim::start();
    let mut rng = Rng::from_number(7);
    let socket = local();
    for number in 0..5_000_u64 {
        let mut datagram: Vec<u8> = (0..rng.below(1_500)).map(|_| rng.below(256) as u8).collect();
        // Every other one looks like the first packet of a QUIC connection for as long as possible.
        if number % 2 == 0 && datagram.len() > 5 {
            datagram[0] |= 0xc0;
            datagram[1..5].copy_from_slice(&[0, 0, 0, 1]);
        }
        // A full buffer loses datagrams, as networks do.
        let _ = socket.send_to(&datagram, victim.address());
    }
    victim.is_unharmed();
}

#[test]
fn half_open_handshakes_are_in_nobodys_way() {
    let mut victim = Victim::start();
    // First packets of true handshakes, each sent on from an address that will never answer.
    let sink = local();
    sink.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let options =
        EndpointOptions { handshake_timeout: Duration::from_millis(10), ..EndpointOptions::dialling_only() };
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let dialler = Endpoint::bind(any, &victim.credentials(Role::Admin), options).unwrap();
    let mut silent = Vec::new();
    for _ in 0..300 {
        block_on(dialler.connect(sink.local_addr().unwrap(), Protocol::Client)).unwrap_err();
        let mut packet = [0; 1_500];
        let (bytes, _) = sink.recv_from(&mut packet).unwrap();
        let socket = local();
        socket.send_to(&packet[..bytes], victim.address()).unwrap();
        silent.push(socket);
    }
    victim.is_unharmed();
}

#[test]
fn a_connection_that_is_never_opened_is_closed() {
    let mut victim = Victim::start();
    let (code, reason) = block_on(async {
        let (_endpoint, connection) = bare(&victim, &client(&victim), "starling-client/1").await;
        closed(&connection.unwrap()).await
    });
    assert_eq!(code, u64::from(CloseCode::TOO_SLOW.0), "{reason}");
    assert!(reason.contains("not opened in time"), "{reason}");
    victim.is_unharmed();
}

#[test]
fn a_frame_that_never_ends_is_in_nobodys_way() {
    let mut victim = Victim::start();
    let issued = client(&victim);
    let _held = block_on(async {
        let (endpoint, connection, mut send) = greeted(&victim, &issued, "starling-client/1").await;
        send.write_all(&1_000_u32.to_le_bytes()).await.unwrap();
        send.write_all(b"the beginning").await.unwrap();
        (endpoint, connection, send)
    });
    victim.is_unharmed();
}

#[test]
fn an_over_long_frame_ends_the_connection_of_its_sender() {
    let mut victim = Victim::start();
    for length in [(2 << 20) + 1, u32::MAX] {
        let (code, reason) = block_on(async {
            let (_endpoint, connection, mut send) =
                greeted(&victim, &client(&victim), "starling-client/1").await;
            send.write_all(&length.to_le_bytes()).await.unwrap();
            closed(&connection).await
        });
        assert_eq!(code, u64::from(CloseCode::VIOLATION.0), "{reason}");
        assert!(reason.contains(&format!("{length} bytes")), "{reason}");
    }
    victim.is_unharmed();
}

#[test]
fn garbage_frames_end_the_connection_of_their_sender() {
    let mut victim = Victim::start();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let credentials = victim.credentials(Role::Admin);
    let mut rng = Rng::from_number(7);
    for bytes in [0, 1, 9, 100, 100_000] {
        let garbage: Vec<u8> = (0..bytes).map(|_| rng.below(256) as u8).collect();
        let ended = block_on(async {
            let endpoint = Endpoint::bind(any, &credentials, EndpointOptions::dialling_only()).unwrap();
            let mut link = endpoint.connect(victim.address(), Protocol::Client).await.unwrap();
            link.sender.push(|out| out.extend_from_slice(&garbage)).unwrap();
            link.receiver.next_batch(&mut Vec::new()).await.unwrap_err()
        });
        let LinkError::ClosedThere { code, reason } = ended else { panic!("{bytes}: {ended}") };
        assert_eq!(code, CloseCode::VIOLATION);
        assert!(reason.contains("no request of this version"), "{reason}");
    }
    victim.is_unharmed();
}

#[test]
fn a_peer_that_talks_nonsense_is_refused() {
    let mut victim = Victim::start();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let peer = victim.authority().issue_node("starling", "n2").unwrap().credentials().unwrap();
    let ended = block_on(async {
        let options = EndpointOptions { accepts: false, ..EndpointOptions::default() };
        let endpoint = Endpoint::bind(any, &peer, options).unwrap();
        let mut link = endpoint.connect(victim.address(), Protocol::Peer).await.unwrap();
        link.sender.push(|out| out.extend_from_slice(b"nonsense")).unwrap();
        loop {
            // Its own hello may come first.
            if let Err(error) = link.receiver.next_batch(&mut Vec::new()).await {
                return error;
            }
        }
    });
    assert!(matches!(ended, LinkError::ClosedThere { code: CloseCode::VIOLATION, .. }), "{ended}");
    victim.logs("refused a peer: the first message was no hello");
    victim.is_unharmed();
}

#[test]
fn a_program_of_another_version_is_told_so() {
    let mut victim = Victim::start();
    let (_endpoint, connection) = block_on(bare(&victim, &client(&victim), "starling-client/99"));
    let error = connection.unwrap_err().to_string();
    assert!(error.contains("120"), "TLS calls it no_application_protocol: {error}");
    victim.is_unharmed();
}
