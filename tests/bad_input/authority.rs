//! Certificates that do not fit.

use starling::client::{ConnectError, Level, WriteError};
use starling::transport::{CloseCode, Endpoint, EndpointOptions, Protocol};

use super::program::free_address;
use super::*;

async fn dial(credentials: &Credentials, to: SocketAddr, protocol: Protocol) -> String {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let endpoint = Endpoint::bind(any, credentials, EndpointOptions::dialling_only()).unwrap();
    let error = endpoint.connect(to, protocol).await.unwrap_err();
    if let starling::transport::ConnectError::Refused { code, .. } = &error {
        assert!([CloseCode::FORBIDDEN, CloseCode::WRONG_CLUSTER].contains(code), "{error:?}");
    }
    error.to_string()
}

#[test]
fn a_node_of_another_authority_stays_outside() {
    let mut victim = Victim::start();
    // Another configuration directory has another development authority.
    let elsewhere = Place::new();
    let (data, own) = (elsewhere.text("data"), free_address().to_string());
    let stranger =
        elsewhere.node(&["--data", &data, "--name", "n2", "--listen", &own, "--seed", &victim.address]);
    logs(&stranger, "signed by another authority");
    logs(&stranger, &victim.address);
    assert_eq!(victim.run(&["members", "--json"]).ok().json_lines().len(), 1);
    victim.is_unharmed();
}

#[test]
fn a_client_of_another_authority_stays_outside() {
    let mut victim = Victim::start();
    let elsewhere = Place::new();
    let get = elsewhere.run(&["get", "kept", "--connect", &victim.address]);
    get.failed(1, "signed by another authority");
    let foreign = Authority::create("other").unwrap().issue_client("me", Role::Admin).unwrap();
    let options = ConnectOptions::new([victim.address()], foreign.credentials().unwrap());
    assert!(matches!(block_on(Client::connect(options)), Err(ConnectError::NoNode(_))));
    victim.is_unharmed();
}

#[test]
fn files_that_are_no_certificates_are_named() {
    let place = Place::new();
    let authority = Authority::create("prod").unwrap();
    let node = authority.issue_node("prod", "n1").unwrap();
    let client = authority.issue_client("me", Role::Admin).unwrap();
    let (ca, cert, key) = (
        place.write("ca.pem", node.ca.as_bytes()),
        place.write("n1.pem", node.chain.as_bytes()),
        place.write("n1.key", node.key.as_bytes()),
    );
    let (client_cert, client_key) =
        (place.write("me.pem", client.chain.as_bytes()), place.write("me.key", client.key.as_bytes()));
    let (broken, none) = (place.write("broken.pem", b"no PEM"), place.text("none.pem"));
    let data = place.text("data");
    let start = |ca: &str, cert: &str, key: &str| {
        let tls = ["--ca", ca, "--cert", cert, "--key", key];
        place.run(&[&["node", "--data", &data, "--name", "n1", "--cluster", "prod"], &tls[..]].concat())
    };
    start(&none, &cert, &key).failed(1, "none.pem");
    start(&ca, &broken, &key).failed(1, "broken.pem");
    start(&ca, &cert, &client_key).failed(1, "me.key");
    start(&ca, &client_cert, &client_key).failed(1, "starling cert node");
    assert!(!place.path("data").exists());
}

#[test]
fn a_client_cannot_speak_as_a_peer() {
    let mut victim = Victim::start();
    let refusal = block_on(dial(&victim.credentials(Role::Admin), victim.address(), Protocol::Peer));
    assert!(refusal.contains("only nodes speak starling-peer/1"), "{refusal}");
    victim.is_unharmed();
}

#[test]
fn a_node_of_another_cluster_cannot_speak_as_a_peer() {
    let mut victim = Victim::start();
    let other = victim.authority().issue_node("shop", "n1").unwrap().credentials().unwrap();
    let refusal = block_on(dial(&other, victim.address(), Protocol::Peer));
    assert!(refusal.contains("this node belongs to cluster starling"), "{refusal}");
    victim.is_unharmed();
}

#[test]
fn a_reader_cannot_write() {
    let mut victim = Victim::start();
    let options = ConnectOptions::new([victim.address()], victim.credentials(Role::Reader));
    let reader = block_on(Client::connect(options)).unwrap();
    let seen = block_on(reader.get("kept").r(Level::All).into_future()).unwrap().into_context();
    for write in [reader.put_with(&seen, "mine"), reader.put_blind("kept", "mine"), reader.delete("kept")] {
        let error = block_on(write.into_future()).unwrap_err();
        assert!(matches!(error, WriteError::NotApplied { .. }), "{error}");
        assert!(error.to_string().contains("role is reader, and this needs the role writer"), "{error}");
    }
    victim.is_unharmed();
}

#[test]
fn a_writer_cannot_administer() {
    use starling::protocol::wire::client::AdminRequest;
    let mut victim = Victim::start();
    let options = ConnectOptions::new([victim.address()], victim.credentials(Role::Writer));
    let writer = block_on(Client::connect(options)).unwrap();
    let name = starling::protocol::ring::entry::Name::new("n1").unwrap();
    let error = block_on(writer.admin(&name, AdminRequest::Stop)).unwrap_err();
    assert!(error.to_string().contains("role is writer, and this needs the role admin"), "{error}");
    victim.is_unharmed();
}
