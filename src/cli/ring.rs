//! `starling ring`: who owns what, and how even it is.

use futures_lite::future::block_on;
use serde::Serialize;

use super::answer::to_line;
use super::connection::Connection;
use super::failure::{Done, Failure};
use super::members::natural;
use super::names::Names;
use super::output::{self, Columns, OutputOptions};
use super::session::Session;
use super::text::{self, Text};
use crate::protocol::ring::placement::Ring;
use crate::protocol::ring::slot::{SLOTS, Slot};
use crate::protocol::ring::view::RingView;
use crate::protocol::wire::client::Topology;

/// Show who owns which share of the ring, or which nodes own a key
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The hash circle is cut into 16384 slots; a key's hash picks the slot, and the ring gives every slot to N owners.

Examples:
  starling ring --lab ./lab
  starling ring user:1 --lab ./lab")]
pub(crate) struct RingArgs {
    /// A key: show its slot and owners
    #[arg(value_name = "KEY", allow_hyphen_values = true)]
    name: Option<String>,
    #[command(flatten)]
    shown: OutputOptions,
    #[command(flatten)]
    connection: Connection,
}

impl RingArgs {
    /// Runs it.
    pub(crate) fn run(self) -> Done {
        let key = self.name.as_deref().map(|key| text::bytes_of_word(key, self.shown.base64));
        let key = key.transpose().map_err(Failure::Usage)?;
        let session = Session::connect(&self.connection)?;
        let topology = block_on(session.client().topology()).map_err(Failure::failed)?;
        output::line(&shown(&topology, key.as_deref(), self.shown).map_err(Failure::failed)?);
        Ok(())
    }
}

#[derive(Serialize)]
struct KeyJson {
    key: Text,
    slot: u16,
    owners: Vec<String>,
}

#[derive(Serialize)]
struct ShareJson {
    node: String,
    id: String,
    zone: String,
    weight: u16,
    slots: u32,
    share: f64,
    of_fair: f64,
}

/// The ring that follows from a topology, or the owners of a key.
pub(crate) fn shown(topology: &Topology, key: Option<&[u8]>, shown: OutputOptions) -> Result<String, String> {
    let Some(cluster) = topology.cluster else {
        return Err("the cluster is not founded yet: there is no ring".to_owned());
    };
    let entries = topology.members.iter().map(|member| &member.entry);
    let view = RingView::build(cluster, topology.replicas, entries).ok_or("nobody is in the ring yet")?;
    let names = Names::of_members(&topology.members);
    Ok(match key {
        Some(key) => owners(view.ring(), key, &names, shown),
        None => shares(view.ring(), &names, shown.json),
    })
}

fn owners(ring: &Ring, key: &[u8], names: &Names, shown: OutputOptions) -> String {
    let slot = Slot::of_key(key);
    // In the order of the ring, the first one first.
    let owners: Vec<String> = ring.owners(slot).iter().map(|node| names.of(*node)).collect();
    if shown.json {
        to_line(&KeyJson { key: Text::of(key, shown.base64), slot: slot.get(), owners })
    } else {
        format!("{}: slot {slot}, owned by {}", text::shown(key, shown.base64), owners.join(", "))
    }
}

fn shares(ring: &Ring, names: &Names, json: bool) -> String {
    let mut shares: Vec<ShareJson> = ring
        .members()
        .iter()
        .map(|member| {
            let slots = ring.load(member.node);
            ShareJson {
                node: names.of(member.node),
                id: member.node.to_string(),
                zone: member.zone.to_string(),
                weight: member.weight.get(),
                slots,
                share: rounded(f64::from(slots) / f64::from(SLOTS)),
                of_fair: rounded(f64::from(slots) / ring.fair_share(member.node).max(1.0)),
            }
        })
        .collect();
    shares.sort_by_key(|share| natural(&share.node));
    if json {
        return shares.iter().map(to_line).collect::<Vec<_>>().join("\n");
    }
    let mut columns = Columns::new(&["node", "zone", ">weight", ">slots", ">of all keys", ">of fair share"]);
    for share in &shares {
        columns.row([
            share.node.clone(),
            share.zone.clone(),
            share.weight.to_string(),
            share.slots.to_string(),
            format!("{:.1}%", 100.0 * share.share),
            format!("{:.3}", share.of_fair),
        ]);
    }
    let most = shares.iter().map(|share| share.of_fair).fold(0.0, f64::max);
    let least = shares.iter().map(|share| share.of_fair).fold(f64::INFINITY, f64::min);
    let mut zones: Vec<&str> = shares.iter().map(|share| share.zone.as_str()).collect();
    zones.sort_unstable();
    zones.dedup();
    format!(
        "{}\n{SLOTS} slots with {} owners each, {} nodes, {} zones; loads from {least:.3} to {most:.3} of the fair share",
        columns.text(),
        ring.replicas().get().min(shares.len()),
        shares.len(),
        zones.len(),
    )
}

/// Four digits: more would be noise.
fn rounded(share: f64) -> f64 {
    (share * 1e4).round() / 1e4
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::id::NodeId;
    use crate::protocol::ring::member::RingMember;
    use crate::protocol::ring::replicas::Replicas;

    fn ring() -> (Ring, Names) {
        let members: Vec<_> = (1..=3).map(|id| RingMember::new(NodeId(id))).collect();
        let names = (1..=3).map(|id| (NodeId(id), format!("n{id}"))).collect();
        (Ring::build(&members, Replicas::THREE), names)
    }

    #[test]
    fn three_nodes_own_everything() {
        let (ring, names) = ring();
        let json = shares(&ring, &names, true);
        assert_eq!(
            json.lines().next().unwrap(),
            r#"{"node":"n1","id":"0000000000000001","zone":"default","weight":1,"slots":16384,"share":1.0,"of_fair":1.0}"#
        );
        assert!(
            shares(&ring, &names, false)
                .ends_with("3 nodes, 1 zones; loads from 1.000 to 1.000 of the fair share")
        );
    }

    #[test]
    fn a_key_has_its_slot_and_three_owners() {
        let (ring, names) = ring();
        let json = owners(&ring, b"k", &names, OutputOptions { json: true, base64: false });
        let slot = Slot::of_key(b"k");
        assert!(json.starts_with(&format!(r#"{{"key":"k","slot":{slot},"owners":["n"#)), "{json}");
        assert!(owners(&ring, b"k", &names, OutputOptions::default()).starts_with("k: slot "));
    }
}
