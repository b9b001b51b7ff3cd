//! Histories of one key before the linearizability tester of `stateright`.

use std::collections::BTreeSet;

use starling::protocol::time::Moment;
use starling::sim::history::{Action, Basis, Ending, History, WriteId};
use stateright::semantics::{ConsistencyTester, LinearizabilityTester, SequentialSpec};

/// A register for one key with siblings, as a single machine would keep it.
#[derive(Clone, Debug, Default)]
struct Register {
    live: BTreeSet<WriteId>,
    /// What may never be live again, since a client that had been shown it has written.
    covered: BTreeSet<WriteId>,
}

#[derive(Clone, Debug)]
enum Op {
    Write { id: WriteId, deletes: bool, shown: BTreeSet<WriteId> },
    Read,
}

#[derive(Clone, Debug, PartialEq)]
enum Ret {
    Written,
    Shown(BTreeSet<WriteId>),
}

impl SequentialSpec for Register {
    type Op = Op;
    type Ret = Ret;

    fn invoke(&mut self, op: &Op) -> Ret {
        let Op::Write { id, deletes, shown } = op else { return Ret::Shown(self.live.clone()) };
        self.covered.extend(shown);
        self.live.retain(|id| !shown.contains(id));
        if !deletes && !self.covered.contains(id) {
            self.live.insert(*id);
        }
        Ret::Written
    }
}

/// Whether the history of one key is linearizable, all reads taken as atomic.
///
/// A write of unknown outcome is an operation without a return, on a thread that does nothing else: it may take
/// effect at any time after it began, or never. A write that was not applied and a read that was not answered are
/// no operations at all.
pub(crate) fn is_linearizable(history: &History) -> bool {
    /// At the same moment what begins comes first: the judges take equal times as concurrent.
    #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
    enum Side {
        Invoke,
        Return,
    }
    let mut events = Vec::new();
    for (index, operation) in history.operations.iter().enumerate() {
        let is_without_return = match (&operation.action, &operation.ending) {
            (Action::Write { .. }, Ending::Unknown | Ending::Open) => true,
            (Action::Write { .. }, Ending::Committed(_)) | (Action::Read { .. }, Ending::Answered(_)) => {
                false
            }
            _ => continue,
        };
        events.push((operation.invoked, Side::Invoke, index));
        let returns = if is_without_return { Moment::NEVER } else { operation.ended };
        if returns != Moment::NEVER {
            events.push((returns, Side::Return, index));
        }
    }
    events.sort();
    // Each operation has a thread of its own: what came before it in real time is all that counts.
    let mut tester = LinearizabilityTester::new(Register::default());
    for (_, side, index) in events {
        let operation = &history.operations[index];
        let told = match (side, &operation.action, &operation.ending) {
            (Side::Invoke, Action::Write { id, deletes, basis, .. }, _) => {
                let Basis::Shown(shown) = basis else { panic!("a delete without a context") };
                let op = Op::Write { id: *id, deletes: *deletes, shown: shown.clone() };
                tester.on_invoke(index, op).map(drop)
            }
            (Side::Invoke, ..) => tester.on_invoke(index, Op::Read).map(drop),
            (Side::Return, _, Ending::Answered(seen)) => {
                tester.on_return(index, Ret::Shown(seen.ids())).map(drop)
            }
            (Side::Return, ..) => tester.on_return(index, Ret::Written).map(drop),
        };
        told.expect("a well-formed history");
    }
    tester.is_consistent()
}
