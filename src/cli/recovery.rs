//! Running a node, and bringing it back if its disk is lost.
//!
//! ```text
//! run ──▶ its data is gone, or cannot be trusted ──▶ ask the members who has its name ──▶ move aside what is there ──▶ run
//!                                                          └──▶ refuse: nobody knows it, too few answer, or it is alive
//! ```

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::failure::{Done, Failure};
use crate::client::{Client, ConnectOptions};
use crate::protocol::id::NodeId;
use crate::protocol::ring::entry::{Entry, Name, Stage};
use crate::protocol::wire::client::Topology;
use crate::server::{self, Launch, Recovery, RunError};

/// How long the others may take to notice that the node is not there: it may have been killed a moment ago.
const UNNOTICED_MAX: Duration = Duration::from_secs(30);

/// How often they are asked meanwhile.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// How long a member may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// Runs a node. If it has lost its data and is told to recover, it comes back as the member that the others know by its
/// name; whatever is in its directory is moved aside first, and never deleted.
pub(super) async fn run(
    launch: Launch,
    name: &Name,
    seeds: &[SocketAddr],
    until: impl Future<Output = ()>,
) -> Done {
    let mut until = std::pin::pin!(until);
    let lost = match server::run(launch.clone(), |_: SocketAddr| {}, until.as_mut()).await {
        Err(error) if matches!(launch.recovery, Recovery::Wanted) && error.is_loss() => error,
        outcome => return outcome.map_err(Failure::failed),
    };
    tracing::warn!("{lost}; asking the other members what they know of {name}");
    let known = ask_until_gone(&launch, name, seeds).await.map_err(|why| {
        Failure::Failed(format!("{lost}, and {name} cannot be recovered: {why}. Nothing was changed"))
    })?;
    if !matches!(lost, RunError::NoData(_)) {
        let aside = move_aside(&launch.data).map_err(Failure::failed)?;
        tracing::warn!(from = %launch.data.display(), to = %aside.display(), "what is left was moved aside");
    }
    tracing::info!(id = %known.id, incarnation = known.incarnation.0, "coming back as the member that the others know");
    let launch = Launch { recovery: Recovery::As(Box::new(known)), ..launch };
    server::run(launch, |_: SocketAddr| {}, until).await.map_err(Failure::failed)
}

/// Asks the members until none of them hears of a node of this name any more.
async fn ask_until_gone(launch: &Launch, name: &Name, seeds: &[SocketAddr]) -> Result<Entry, String> {
    if seeds.is_empty() {
        return Err("no other node was named (--seed)".to_owned());
    }
    let deadline = Instant::now() + UNNOTICED_MAX;
    loop {
        match judge(name, &ask(launch, name, seeds).await?)? {
            Answer::Gone(entry) => return Ok(*entry),
            Answer::Alive(by) if Instant::now() >= deadline => {
                return Err(format!(
                    "a node {name} is alive somewhere: {by} hears from it. Stop it, or give this one another name"
                ));
            }
            Answer::Alive(_) => async_io::Timer::after(ASK_AGAIN).await,
        };
    }
}

/// What every member that answers believes of all of them.
async fn ask(launch: &Launch, name: &Name, seeds: &[SocketAddr]) -> Result<Vec<Topology>, String> {
    let mut options = ConnectOptions::new(seeds, launch.credentials.clone());
    options.deadlines.request = ANSWER_MAX;
    let client = Client::connect(options).await.map_err(|error| error.to_string())?;
    let mut believed = Vec::new();
    for member in client.members() {
        if member.entry.name != *name
            && let Ok(topology) = client.topology_of(&member.entry.name).await
        {
            believed.push(topology);
        }
    }
    client.close().await;
    Ok(believed)
}

/// What the members say of a node.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    /// It is not there, and this is what is known of it.
    Gone(Box<Entry>),
    /// This member hears from it.
    Alive(String),
}

/// What follows from the beliefs of the members that answered: each of another member.
fn judge(name: &Name, believed: &[Topology]) -> Result<Answer, String> {
    let founded: Vec<&Topology> = believed.iter().filter(|topology| topology.cluster.is_some()).collect();
    if founded.is_empty() {
        return Err("the nodes that answer belong to no cluster yet".to_owned());
    }
    let mut known: BTreeMap<NodeId, Entry> = BTreeMap::new();
    let mut ring: BTreeMap<NodeId, bool> = BTreeMap::new();
    for member in founded.iter().flat_map(|topology| &topology.members) {
        let is_in_ring = ring.entry(member.entry.id).or_default();
        *is_in_ring |= member.entry.phase.stage == Stage::Active;
        if member.entry.name != *name {
            continue;
        }
        let newest = known.entry(member.entry.id).or_insert_with(|| member.entry.clone());
        let amnesia = newest.amnesia.max(member.entry.amnesia);
        newest.merge(&member.entry);
        newest.amnesia = amnesia;
    }
    // Another identity of this name may have been a member once that never got into the ring.
    let counts = known.values().any(|entry| entry.phase.stage == Stage::Active);
    known.retain(|_, entry| !counts || entry.phase.stage == Stage::Active);
    let mut known = known.into_values();
    let (entry, other) = (known.next(), known.next());
    let Some(entry) = entry else {
        return Err(format!(
            "no member of the cluster is called {name}; without --recover it joins as a new one"
        ));
    };
    if let Some(other) = other {
        return Err(format!("two members are called {name}: {} and {}", entry.id, other.id));
    }
    let members = ring.values().filter(|is_in_ring| **is_in_ring).count();
    let needed = (members / 2 + 1).min(members.saturating_sub(1)).max(1);
    if founded.len() < needed {
        return Err(format!(
            "{needed} of the other {} members of the ring have to say what they know of it, and {} can be asked",
            members.saturating_sub(1),
            founded.len(),
        ));
    }
    let hears = |topology: &&&Topology| {
        topology.members.iter().any(|member| member.entry.id == entry.id && member.reachable)
    };
    if let Some(topology) = founded.iter().find(hears) {
        let by = topology.members.iter().find(|member| member.entry.id == topology.node);
        let by = by.map_or_else(|| topology.node.to_string(), |member| member.entry.name.to_string());
        return Ok(Answer::Alive(by));
    }
    Ok(Answer::Gone(Box::new(entry)))
}

/// Moves a directory to the first free name beside it.
fn move_aside(data: &Path) -> Result<PathBuf, String> {
    let file = data.file_name().ok_or_else(|| format!("{} has no name to move it to", data.display()))?;
    let aside = (1..u32::MAX).map(|number| {
        let mut name = file.to_os_string();
        name.push(format!(".lost-{number}"));
        data.with_file_name(name)
    });
    let aside = aside.into_iter().find(|path| !path.exists()).ok_or("there are too many lost directories")?;
    std::fs::rename(data, &aside)
        .map_err(|error| format!("{} cannot be moved to {}: {error}", data.display(), aside.display()))?;
    Ok(aside)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::id::{ClusterId, Incarnation, Place};
    use crate::protocol::ring::entry::Phase;
    use crate::protocol::ring::member::{Weight, Zone};
    use crate::protocol::ring::replicas::Replicas;
    use crate::protocol::time::WallTime;
    use crate::protocol::wire::client::{Health, MemberView};

    fn name(number: u64) -> Name {
        Name::new(format!("n{number}")).unwrap()
    }

    fn member(number: u64, incarnation: u64, reachable: bool) -> MemberView {
        let entry = Entry {
            id: NodeId(number),
            place: Place(number),
            name: name(number),
            addresses: Vec::new(),
            zone: Zone::default(),
            weight: Weight::default(),
            incarnation: Incarnation(incarnation),
            version: 0,
            amnesia: 0,
            phase: Phase { generation: 1, stage: Stage::Active },
        };
        MemberView { entry, health: Health::Alive, reachable }
    }

    fn topology(node: u64, members: Vec<MemberView>) -> Topology {
        Topology {
            node: NodeId(node),
            cluster: Some(ClusterId(7)),
            replicas: Replicas::default(),
            members,
            time: WallTime(0),
            version: 1,
        }
    }

    fn of(node: u64, third: MemberView) -> Topology {
        topology(node, vec![member(1, 1, true), member(2, 1, true), third])
    }

    #[test]
    fn it_comes_back_above_all_that_anybody_knows_of_it() {
        let mut forgetful = member(3, 4, false);
        forgetful.entry.amnesia = 9;
        let believed = [of(1, forgetful), of(2, member(3, 6, false))];
        let Ok(Answer::Gone(entry)) = judge(&name(3), &believed) else { panic!("it is gone") };
        assert_eq!((entry.id, entry.incarnation, entry.amnesia), (NodeId(3), Incarnation(6), 9));
    }

    #[test]
    fn it_does_not_come_back_if_it_is_alive_unknown_or_known_to_too_few() {
        let believed = [of(1, member(3, 4, false)), of(2, member(3, 4, true))];
        assert_eq!(judge(&name(3), &believed), Ok(Answer::Alive("n2".to_owned())));
        let refused = |believed: &[Topology], wanted: u64| judge(&name(wanted), believed).unwrap_err();
        assert!(refused(&believed, 4).contains("no member of the cluster is called n4"));
        assert!(refused(&believed[..1], 3).contains("2 of the other 2 members"));
        assert!(refused(&[], 3).contains("belong to no cluster"));
        let mut twin = member(5, 1, false);
        twin.entry.name = name(3);
        let two = topology(1, vec![member(1, 1, true), member(3, 1, false), twin]);
        assert!(refused(&[two], 3).contains("two members are called n3"));
    }

    #[test]
    fn what_is_left_is_moved_and_not_deleted() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        for number in 1..3 {
            std::fs::create_dir(&data).unwrap();
            let aside = move_aside(&data).unwrap();
            assert_eq!(aside, folder.path().join(format!("data.lost-{number}")));
            assert!(aside.exists() && !data.exists());
        }
    }
}
