//! A key that is rewritten while its coordinators are killed and started again, two thousand times.

use super::*;
use crate::protocol::causality::ContextToken;
use crate::protocol::wire::client::Level;

/// How often a coordinator is killed; the nodes take turns.
const RESTARTS: usize = 2_000;

/// The operations of a minute keep the entries of their actors, 64 at most; eleven more entries are not worth a round, and some
/// are added until a round is over.
const ENTRIES_MAX: usize = 64 + 11 + 10;

/// Three nodes, all of them owners of the key.
fn theatre() -> Theatre {
    let scenario = Scenario::parse("nodes 3\nat 1s get cart\n").unwrap();
    let mut theatre = Theatre::new(&scenario, &options(&scenario, Recording::Nothing));
    theatre.found().unwrap();
    theatre
}

impl Theatre {
    fn go_on(&mut self, span: Duration) {
        let until = self.world.now + span;
        self.world.run_until(until, |_| false);
    }

    fn answer(&mut self, number: usize, via: &str, request: Wanted) -> Answer {
        let order = Order { via: Some(via.to_owned()), deadline: Duration::from_secs(5), request };
        self.ask(number, order);
        self.next_reply(None).unwrap().1.answer
    }

    /// Reads the key and writes it, as one does who modifies it.
    fn rewrite(&mut self, number: usize, via: &str) -> Answer {
        let key = Bytes::from_static(b"cart");
        let context: Option<ContextToken> = match self.answer(
            2 * number,
            via,
            Wanted::Read { key: key.clone(), r: Level::Majority, atomic: false },
        ) {
            Answer::Read(read) => read.context,
            other => panic!("restart {number}: {other:?}"),
        };
        let value = Some(Bytes::from(format!("v{number}")));
        self.answer(
            2 * number + 1,
            via,
            Wanted::Write { key, value, context, w: Level::Majority, sloppy: false },
        )
    }

    /// How many actors the context of the key has, at the owner where it has most of them.
    fn entries(&mut self) -> usize {
        let key = Bytes::from_static(b"cart");
        let looks = self.world.hosts.iter_mut().map(|host| host.disk.look(Slot::of_key(&key), &key));
        let entries = looks.map(|look| match look {
            Some(Stored::Present(record)) => record.context().len(),
            _ => 0,
        });
        entries.max().unwrap_or_default()
    }
}

#[test]
fn a_key_that_is_rewritten_through_two_thousand_restarts_keeps_a_short_context() {
    let mut theatre = theatre();
    for number in 0..RESTARTS {
        let name = host::name(number % 3);
        theatre.command(&Command::Kill(vec![name.clone()])).unwrap();
        theatre.command(&Command::Restart(vec![name.clone()])).unwrap();
        match theatre.rewrite(number, &name) {
            Answer::Written(written) if written.outcome == Written::Committed => {}
            other => panic!("restart {number}: {other:?}"),
        }
        let entries = theatre.entries();
        assert!(entries <= ENTRIES_MAX, "{entries} entries after {number} restarts");
        theatre.go_on(Duration::from_secs(1));
    }
    // When the key rests, so do the retries that its context is longer for.
    theatre.rewrite(RESTARTS, "n1");
    theatre.go_on(Duration::from_secs(180));
    assert!(theatre.entries() <= 11, "{} entries at the end", theatre.entries());
    assert_eq!(theatre.world.violations, []);
}
