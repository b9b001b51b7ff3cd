//! The ring: which nodes own which keys, as a pure function of who is a member.
//!
//! ```text
//!   key ──xxh3──▶ 64-bit circle ──top 14 bits──▶ slot ──array read──▶ owners [A, D, C]
//!
//!         0 ┌───┬───┬───┬── ··· ──┬───┐ 2⁶⁴
//!     slot  │ 0 │ 1 │ 2 │         │16383         fixed for ever: a key never changes its slot
//!           └─┬─┴─┬─┴─┬─┴── ··· ──┴─┬─┘
//!   owners   ADC BAD CEB           EAC          a function of the members: Ring::build
//!                                        ▲
//!   members: (node, place, zone, weight) ┘      cheapest bids win, zones and caps permitting
//! ```
//!
//! * [`Slot`] cuts the circle into 16,384 equal arcs and maps keys to them.
//! * [`SlotSet`] is some of them.
//! * [`RingMember`] is what placement knows of a node: [`Zone`], [`Weight`] and the place that is hashed.
//! * [`Replicas`] is N, the number of owners of a slot.
//! * [`Ring`] holds the owners of every slot; `placement` says how they are chosen.
//! * [`Preference`] continues the owners of a slot with the nodes that stand in for them.
//!
//! Everything here is *placement version 1*: the key hash, the number of slots, the integer logarithm, the caps. Nodes
//! that compute it differently would give one slot two sets of owners, so tests pin the rings bit by bit and a change
//! needs a new version, chosen when a cluster is founded.

pub mod arc;
pub mod common;
pub mod entry;
pub mod member;
pub mod placement;
pub mod preference;
pub mod replicas;
pub mod slot;
pub mod slot_set;
pub mod view;

pub use member::{BadWeight, BadZone, RingMember, Weight, Zone};
pub use placement::Ring;
pub use preference::Preference;
pub use replicas::{BadReplicas, Replicas};
pub use slot::{NoSuchSlot, SLOTS, Slot, key_hash};
pub use slot_set::SlotSet;
