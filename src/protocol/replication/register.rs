//! Who may keep hints of this node's slots.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use super::desk::Errand;
use super::scope::Scope;
use crate::protocol::codec;
use crate::protocol::id::{NodeId, RequestId};
use crate::protocol::ring::slot::Slot;
use crate::protocol::ring::slot_set::SlotSet;
use crate::protocol::ring::view::RingView;
use crate::protocol::storage::op::{DiskRequest, MetaKey};
use crate::protocol::time::Moment;
use crate::protocol::wire::peer::PeerMessage;

/// How often the nodes on the register are asked whether they may be struck off.
const ASK_EVERY: Duration = Duration::from_secs(10);

/// How many slots one question names at most.
const SLOTS_MAX: usize = 1_024;

/// An owner's durable register of the nodes that it has asked to keep hints, by slot.
///
/// A deletion may only be forgotten when no older copy of the record can come back, and a hint is such a copy. So an owner
/// writes down *durably* that a node may keep hints of a slot **before** it asks that node to, and strikes it off only when
/// the node has said that it keeps none and that this is durable, in answer to a question that was asked after the last time that
/// it was asked to keep one: any older answer may be overtaken by that hint. Whoever wants to know where old copies may be asks the
/// register, and not every member: a dead node that was never asked blocks nothing.
///
/// An owner that has lost its disk has lost its register too. Then every member that owns nothing of a slot is *suspected*
/// to keep hints of it, until it has said that it does not.
#[derive(Debug, Default)]
pub struct HintRegister {
    entries: BTreeMap<Slot, BTreeMap<NodeId, Entry>>,
    suspects: BTreeMap<NodeId, SlotSet>,
    /// The newest question.
    asked: RequestId,
    /// Answers to questions up to this one count for nothing: they were put by a former life, or before a suspicion arose.
    void: RequestId,
    next_ask: Moment,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    is_durable: bool,
    /// When an operation last asked the node for it.
    used: Moment,
    /// The newest question at that time. What the node was asked for then may have reached it after the question.
    asked: RequestId,
}

impl HintRegister {
    /// The register as it was written down.
    pub fn parse(meta: &BTreeMap<MetaKey, Bytes>) -> Result<HintRegister, codec::DecodeError> {
        let mut register = HintRegister::default();
        for (key, bytes) in meta {
            match key {
                MetaKey::HintHolders(slot) => {
                    let holders: Vec<NodeId> = codec::decode(bytes)?;
                    let entry = Entry { is_durable: true, used: Moment::default(), asked: RequestId(0) };
                    let holders = holders.into_iter().map(|holder| (holder, entry)).collect();
                    register.entries.insert(*slot, holders);
                }
                MetaKey::HintSuspects => {
                    let suspects: Vec<(NodeId, SlotSet)> = codec::decode(bytes)?;
                    register.suspects = suspects.into_iter().collect();
                }
                _ => {}
            }
        }
        Ok(register)
    }

    /// Questions are numbered from here on. From anywhere: answers to a former life of this node must not be taken for
    /// answers to this one.
    pub fn number_from(&mut self, number: u64) {
        // Room to count up.
        self.asked = RequestId(number >> 2);
        self.void = self.asked;
    }

    /// The nodes that may keep hints of a slot.
    pub fn holders(&self, slot: Slot) -> impl Iterator<Item = NodeId> + '_ {
        let asked = self.entries.get(&slot).into_iter().flat_map(|holders| holders.keys());
        let suspected = self.suspects.iter().filter(move |(_, slots)| slots.contains(slot));
        asked.chain(suspected.map(|(node, _)| node)).copied()
    }

    /// How many entries there are, those of suspects included.
    #[must_use]
    pub fn len(&self) -> usize {
        let asked: usize = self.entries.values().map(BTreeMap::len).sum();
        asked + self.suspects.values().map(SlotSet::len).sum::<usize>()
    }

    /// Whether nobody is on it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.suspects.is_empty()
    }

    /// What the register had to say of these slots is lost. Gives back what is to be written down *before* the node votes
    /// for any of them: the log keeps the order.
    #[must_use]
    pub fn lost(&mut self, slots: &SlotSet, view: &RingView) -> (MetaKey, Option<Bytes>) {
        for member in view.ring().members() {
            let strange: SlotSet =
                slots.iter().filter(|slot| !view.slot(*slot).is_owner(member.node)).collect();
            self.suspects.entry(member.node).or_default().extend(strange.iter());
        }
        self.suspects.retain(|_, slots| !slots.is_empty());
        self.void = self.asked;
        self.suspicion()
    }

    fn suspicion(&self) -> (MetaKey, Option<Bytes>) {
        let suspects: Vec<_> = self.suspects.iter().collect();
        (MetaKey::HintSuspects, (!suspects.is_empty()).then(|| codec::encode(&suspects).into()))
    }

    /// It is durable that `holder` may keep hints of `slot`.
    pub fn confirm(&mut self, slot: Slot, holder: NodeId) {
        if let Some(entry) = self.entries.get_mut(&slot).and_then(|holders| holders.get_mut(&holder)) {
            entry.is_durable = true;
        }
    }

    /// Whether an operation has asked the node for a hint of the slot a moment ago, so that it may be on its way.
    fn is_in_use(&self, slot: Slot, holder: NodeId, now: Moment) -> bool {
        let entry = self.entries.get(&slot).and_then(|holders| holders.get(&holder));
        entry.is_some_and(|entry| entry.used >= now - ASK_EVERY)
    }

    fn strike_off(&mut self, from: NodeId, request: RequestId, slot: Slot) -> bool {
        let Some(holders) = self.entries.get_mut(&slot) else { return false };
        // What was asked for after the question may have arrived after the answer.
        if holders.get(&from).is_none_or(|entry| request <= entry.asked) {
            return false;
        }
        holders.remove(&from);
        if holders.is_empty() {
            self.entries.remove(&slot);
        }
        true
    }

    /// Tells whether anything that was suspected of a node is not suspected any more.
    fn clear(&mut self, from: NodeId, slots: &[Slot]) -> bool {
        let Some(suspected) = self.suspects.get_mut(&from) else { return false };
        let before = suspected.len();
        slots.iter().for_each(|slot| {
            suspected.remove(*slot);
        });
        let is_news = suspected.len() < before;
        if suspected.is_empty() {
            self.suspects.remove(&from);
        }
        is_news
    }

    fn line(&self, slot: Slot) -> (MetaKey, Option<Bytes>) {
        let holders: Vec<NodeId> =
            self.entries.get(&slot).into_iter().flat_map(BTreeMap::keys).copied().collect();
        (MetaKey::HintHolders(slot), (!holders.is_empty()).then(|| codec::encode(&holders).into()))
    }

    /// When to call [`tick`].
    #[must_use]
    pub fn next_deadline(&self) -> Moment {
        if self.is_empty() { Moment::NEVER } else { self.next_ask }
    }
}

/// Enters a node for an operation. Tells whether that is durable already; if not, the operation hears of it when it is.
pub(super) fn enter(slot: Slot, holder: NodeId, request: RequestId, scope: &mut Scope<'_>) -> bool {
    let (now, asked) = (scope.now.monotonic, scope.register.asked);
    let holders = scope.register.entries.entry(slot).or_default();
    let entry = holders.entry(holder).or_insert(Entry { is_durable: false, used: now, asked });
    (entry.used, entry.asked) = (now, asked);
    if entry.is_durable {
        return true;
    }
    let entries = vec![scope.register.line(slot)];
    let errand = Errand::Register(slot, holder, request);
    scope.desk.ask(errand, |ticket| DiskRequest::Meta { ticket, entries }, scope.out);
    false
}

/// A node has said that it keeps a hint. Tells whether it is still on the register: only then is the hint taken into
/// account by whoever asks that.
pub(super) fn confirmed(slot: Slot, holder: NodeId, scope: &mut Scope<'_>) -> bool {
    let (now, asked) = (scope.now.monotonic, scope.register.asked);
    let entry = scope.register.entries.get_mut(&slot).and_then(|holders| holders.get_mut(&holder));
    // What it says now overtakes what it may have answered before.
    entry.map(|entry| (entry.used, entry.asked) = (now, asked)).is_some()
}

/// Asks the nodes on the register, now and then, whether they still keep hints.
pub fn tick(scope: &mut Scope<'_>) {
    let now = scope.now.monotonic;
    if now < scope.register.next_ask || scope.register.is_empty() {
        return;
    }
    scope.register.next_ask = now + ASK_EVERY;
    let mut questions: BTreeMap<NodeId, Vec<Slot>> = BTreeMap::new();
    for (slot, holders) in &scope.register.entries {
        for (holder, entry) in holders {
            let is_in_use = scope.register.is_in_use(*slot, *holder, now);
            if entry.is_durable && !is_in_use && scope.can_reach(*holder) {
                let slots = questions.entry(*holder).or_default();
                if slots.len() < SLOTS_MAX {
                    slots.push(*slot);
                }
            }
        }
    }
    for (suspect, suspected) in &scope.register.suspects {
        if scope.can_reach(*suspect) {
            let slots = questions.entry(*suspect).or_default();
            let idle = suspected.iter().filter(|slot| !scope.register.is_in_use(*slot, *suspect, now));
            slots.extend(idle.take(SLOTS_MAX - slots.len()));
        }
    }
    for (holder, slots) in questions.into_iter().filter(|(_, slots)| !slots.is_empty()) {
        let request = RequestId(scope.register.asked.0 + 1);
        scope.register.asked = request;
        scope.send(holder, PeerMessage::AskHints { request, slots });
    }
}

/// A node kept no hints of these slots when this question reached it, and that is durable.
pub fn on_no_hints(from: NodeId, request: RequestId, slots: &[Slot], scope: &mut Scope<'_>) {
    if request <= scope.register.void || request > scope.register.asked {
        return;
    }
    let is_gone = |slot: &Slot| scope.register.strike_off(from, request, *slot);
    let gone: Vec<Slot> = slots.iter().copied().filter(is_gone).collect();
    let mut entries: Vec<_> = gone.into_iter().map(|slot| scope.register.line(slot)).collect();
    if scope.register.clear(from, slots) {
        entries.push(scope.register.suspicion());
        if scope.register.suspects.contains_key(&from) {
            // One question does not hold all slots: the next one goes out at once.
            scope.register.next_ask = scope.now.monotonic;
        }
    }
    if entries.is_empty() {
        return;
    }
    scope.desk.ask(Errand::StrikeOff, |ticket| DiskRequest::Meta { ticket, entries }, scope.out);
}
