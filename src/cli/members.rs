//! `starling members`: what a node believes of the others.

use futures_lite::future::block_on;
use serde::Serialize;

use super::answer::to_line;
use super::connection::Connection;
use super::failure::{Done, Failure};
use super::output::{self, Columns, judged};
use super::session::Session;
use crate::protocol::ring::entry::Stage;
use crate::protocol::wire::client::{Health, MemberView, Topology};

/// Show the members of the cluster as one node believes them to be
#[derive(Debug, clap::Args)]
#[command(after_help = "\
`stage` is active for members of the ring, learning for those that wait to be admitted. `health` is what gossip says of \
a member; `reachable` is whether the answering node can reach it now, which is what requests go by.

Examples:
  starling members --lab ./lab
  starling members --via n4 --lab ./lab      as n4 sees it, from its side of a cut")]
pub(crate) struct MembersArgs {
    /// Print one JSON object per member
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

impl MembersArgs {
    /// Runs it.
    pub(crate) fn run(self) -> Done {
        let session = Session::connect(&self.connection)?;
        let topology = block_on(session.client().topology()).map_err(Failure::failed)?;
        output::line(&shown(&topology, self.json));
        Ok(())
    }
}

/// The members, as a table or as JSON lines.
pub(crate) fn shown(topology: &Topology, json: bool) -> String {
    let mut members: Vec<&MemberView> = topology.members.iter().collect();
    members.sort_by_key(|member| natural(member.entry.name.as_str()));
    if json {
        members.iter().map(|member| to_line(&MemberJson::of(member))).collect::<Vec<_>>().join("\n")
    } else {
        table(&members)
    }
}

fn table(members: &[&MemberView]) -> String {
    let mut columns = Columns::new(&[
        "node",
        "address",
        "health",
        "reachable",
        "stage",
        "zone",
        ">weight",
        ">incarnation",
        "id",
    ]);
    for member in members {
        let entry = &member.entry;
        let address = entry.addresses.first().map(ToString::to_string).unwrap_or_default();
        columns.row([
            entry.name.as_str().into(),
            address.into(),
            judged(health_name(member.health), member.health == Health::Alive),
            judged(if member.reachable { "yes" } else { "no" }, member.reachable),
            stage_name(entry.phase.stage).into(),
            entry.zone.as_str().into(),
            entry.weight.to_string().into(),
            entry.incarnation.to_string().into(),
            entry.id.to_string().into(),
        ]);
    }
    columns.text()
}

#[derive(Serialize)]
struct MemberJson<'a> {
    node: &'a str,
    id: String,
    addresses: Vec<String>,
    health: &'static str,
    reachable: bool,
    stage: &'static str,
    zone: &'a str,
    weight: u16,
    incarnation: u64,
}

impl MemberJson<'_> {
    fn of(member: &MemberView) -> MemberJson<'_> {
        let entry = &member.entry;
        MemberJson {
            node: entry.name.as_str(),
            id: entry.id.to_string(),
            addresses: entry.addresses.iter().map(ToString::to_string).collect(),
            health: health_name(member.health),
            reachable: member.reachable,
            stage: stage_name(entry.phase.stage),
            zone: entry.zone.as_str(),
            weight: entry.weight.get(),
            incarnation: entry.incarnation.0,
        }
    }
}

/// In JSON and in tables.
pub(crate) fn health_name(health: Health) -> &'static str {
    match health {
        Health::Alive => "alive",
        Health::Stopped => "stopped",
        Health::Suspect => "suspect",
        Health::Down => "down",
    }
}

/// In JSON and in tables.
pub(crate) fn stage_name(stage: Stage) -> &'static str {
    match stage {
        Stage::Learning => "learning",
        Stage::Active => "active",
    }
}

/// Orders n2 before n10: the text without its last digits, then their number.
pub(crate) fn natural(name: &str) -> (String, u64, String) {
    let text = name.trim_end_matches(|c: char| c.is_ascii_digit());
    (text.to_owned(), name[text.len()..].parse().unwrap_or(0), name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::id::{ClusterId, Incarnation, NodeId, Place};
    use crate::protocol::ring::entry::{Entry, Name, Phase};
    use crate::protocol::ring::member::{Weight, Zone};
    use crate::protocol::ring::replicas::Replicas;
    use crate::protocol::time::WallTime;

    fn topology() -> Topology {
        let member = |number: u64| MemberView {
            entry: Entry {
                id: NodeId(number),
                place: Place(number),
                name: Name::new(format!("n{number}")).unwrap(),
                addresses: vec![([127, 0, 0, 1], 7_000).into()],
                zone: Zone::default(),
                weight: Weight::default(),
                incarnation: Incarnation(3),
                version: 0,
                amnesia: 0,
                phase: Phase { generation: 1, stage: Stage::Active },
            },
            health: if number == 2 { Health::Down } else { Health::Alive },
            reachable: number != 2,
        };
        Topology {
            node: NodeId(1),
            cluster: Some(ClusterId(9)),
            replicas: Replicas::THREE,
            members: vec![member(10), member(2)],
            time: WallTime(0),
            version: 1,
        }
    }

    #[test]
    fn names_are_in_the_order_that_people_count() {
        let table = shown(&topology(), false);
        let firsts: Vec<_> = table.lines().map(|line| line.split(' ').next().unwrap()).collect();
        assert_eq!(firsts, ["node", "n2", "n10"]);
    }

    #[test]
    fn one_object_a_member() {
        let first = shown(&topology(), true).lines().next().unwrap().to_owned();
        assert_eq!(
            first,
            r#"{"node":"n2","id":"0000000000000002","addresses":["127.0.0.1:7000"],"health":"down","reachable":false,"stage":"active","zone":"default","weight":1,"incarnation":3}"#
        );
    }
}
