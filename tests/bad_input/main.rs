//! Bad input of every kind against real nodes: each is refused with words that say what to do, nothing is lost, and the
//! same process serves afterwards.
#![cfg(feature = "cli")]
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "tests wait with real deadlines and may panic"
)]

#[path = "../support/program.rs"]
mod program;

mod authority;
mod directories;
mod requests;
mod starting;
mod strangers;

use std::net::SocketAddr;

use futures_lite::future::block_on;
use program::{Node, Place, Ran, eventually};
use starling::client::{Client, ConnectOptions};
use starling::transport::{Authority, Credentials, Role};

/// A node that is to survive what a test does to it, with a value that it must not lose.
struct Victim {
    place: Place,
    node: Node,
    address: String,
}

impl Victim {
    fn start() -> Victim {
        let place = Place::new();
        let (node, address) = place.lone_node();
        let victim = Victim { place, node, address };
        victim.run(&["put", "kept", "as it was"]).ok();
        victim
    }

    /// Runs a command against it.
    fn run(&self, arguments: &[&str]) -> Ran {
        self.place.run(&[arguments, &["--connect", &self.address]].concat())
    }

    fn address(&self) -> SocketAddr {
        self.address.parse().unwrap()
    }

    /// The authority that it and its clients trust.
    fn authority(&self) -> Authority {
        Authority::load_or_create(&self.place.path("config/authority")).unwrap()
    }

    fn credentials(&self, role: Role) -> Credentials {
        self.authority().issue_client("test", role).unwrap().credentials().unwrap()
    }

    fn client(&self) -> Client {
        let options = ConnectOptions::new([self.address()], self.credentials(Role::Admin));
        block_on(Client::connect(options)).unwrap()
    }

    /// The same process still serves, and what it had it has.
    #[track_caller]
    fn is_unharmed(&mut self) {
        assert_eq!(self.node.child.try_wait().unwrap(), None, "it ended:\n{}", self.node.log());
        assert_eq!(self.run(&["get", "kept"]).ok().out, "as it was\n");
        self.run(&["put", "afterwards", "v"]).ok();
        assert!(!self.node.log().contains("panicked"), "{}", self.node.log());
    }

    /// Waits until it has logged this.
    #[track_caller]
    fn logs(&self, words: &str) {
        logs(&self.node, words);
    }
}

#[track_caller]
fn logs(node: &Node, words: &str) {
    eventually(words, || node.log().contains(words));
}
