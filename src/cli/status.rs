//! `starling status`: how every node is, and the cluster as a whole.

mod health;

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::time::Duration;

use futures_lite::future::block_on;
use serde::Serialize;

use self::health::Health;
use super::answer::{ErrorJson, to_line};
use super::connection::Connection;
use super::failure::Done;
use super::members::natural;
use super::output::{self, Columns, judged};
use super::session::{Session, ask_problem};
use crate::client::Client;
use crate::protocol::ring::entry::Name;
use crate::protocol::wire::client::{Problem, Status};

/// Show how every node is, and the cluster as a whole
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Asks every member itself. One that does not answer gets a line that says so; that is a report, not a failure. Below the \
nodes stands how the cluster is: for how many of the 16384 slots a majority of the owners can be reached, how many have \
all of their copies, how many are known to differ somewhere, and what repair has still to move. With --via only that \
node is asked, and nothing is said of the cluster.

Examples:
  starling status --lab ./lab
  starling status --watch --lab ./lab          again every second, with the progress of repairs, until Ctrl-C
  starling status --json --lab ./lab | jq 'select(.node) | {node, cpu: .counts.cpu_micros}'
  starling status --json --lab ./lab | jq 'select(.node == null) | .slots_dirty'")]
pub(crate) struct StatusArgs {
    /// Print one JSON object per node, with all of its counts, and one for the cluster, whose `node` is null
    #[arg(long)]
    json: bool,
    /// Show it again and again, every second or every SECONDS
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "1",
        value_parser = clap::value_parser!(u64).range(1..=3_600))]
    watch: Option<u64>,
    #[command(flatten)]
    connection: Connection,
}

impl StatusArgs {
    /// Runs it.
    pub(crate) fn run(self) -> Done {
        let mut options = self.connection.options()?;
        options.deadlines.request = self.connection.deadline.unwrap_or(Duration::from_secs(2));
        let session = Session::open(options)?;
        let Some(pause) = self.watch else {
            output::line(&self.look(session.client(), &mut 0));
            return Ok(());
        };
        let mut most = 0;
        loop {
            let text = self.look(session.client(), &mut most);
            // On a terminal the new picture takes the place of the old one.
            let is_redrawn = !self.json && std::io::stdout().is_terminal();
            output::line(&if is_redrawn { format!("\x1b[H\x1b[2J{text}") } else { text });
            std::thread::sleep(Duration::from_secs(pause));
        }
    }

    /// Asks everybody once. `most` is how many records there were to repair when there were most.
    fn look(&self, client: &Client, most: &mut u64) -> String {
        if let Some(via) = &self.connection.via {
            return shown(&of(client, vec![via.clone()]), self.json);
        }
        let names = client.members().iter().map(|member| member.entry.name.clone()).collect();
        let answers = of(client, names);
        let health = block_on(client.topology()).ok().and_then(|topology| Health::of(&topology, &answers));
        let nodes = shown(&answers, self.json);
        let Some(health) = health else { return nodes };
        if self.json {
            return format!("{nodes}\n{}", to_line(&health.json()));
        }
        *most = if health.debt_keys() == 0 { 0 } else { health.debt_keys().max(*most) };
        format!("{nodes}\n\n{}", health.lines(if self.watch.is_some() { *most } else { 0 }))
    }
}

/// What every node says, or why it says nothing.
pub(crate) type Answers = Vec<(Name, Result<Status, Problem>)>;

/// The answer, or silence, of every node of these names, in the order that people count.
pub(crate) fn of(client: &Client, names: Vec<Name>) -> Answers {
    let asked: Vec<_> = names
        .into_iter()
        .map(|name| {
            let client = client.clone();
            let asked = name.clone();
            (name, async_std::task::spawn(async move { client.status(&asked).await.map_err(ask_problem) }))
        })
        .collect();
    let mut answers: Vec<_> = asked.into_iter().map(|(name, task)| (name, block_on(task))).collect();
    answers.sort_by_key(|(name, _)| natural(name.as_str()));
    answers
}

/// The statuses, as a table or as JSON lines.
pub(crate) fn shown(answers: &[(Name, Result<Status, Problem>)], json: bool) -> String {
    if json {
        let lines = answers.iter().map(|(name, answer)| to_line(&StatusJson::of(name, answer)));
        return lines.collect::<Vec<_>>().join("\n");
    }
    let mut columns = Columns::new(&[
        "node",
        "state",
        ">up",
        ">slots",
        ">keys",
        ">requests",
        ">memory",
        ">cpu",
        ">clock",
        "address",
    ]);
    for (name, answer) in answers {
        match answer {
            Ok(status) => columns.row([
                name.as_str().into(),
                judged(state(status), status.waiting_for.is_none() && !is_refilling(status)),
                span(status.uptime_ms).into(),
                status.slots_owned.to_string().into(),
                count(status, "keys").map(|keys| keys.to_string()).unwrap_or_default().into(),
                status.requests.to_string().into(),
                count(status, "memory_bytes").map(|b| format!("{} MiB", b >> 20)).unwrap_or_default().into(),
                count(status, "cpu_micros").map(|us| span(us / 1_000)).unwrap_or_default().into(),
                format!("{:+} ms", status.clock_offset_ms).into(),
                status.address.map(|address| address.to_string()).unwrap_or_default().into(),
            ]),
            Err(problem) => {
                columns.row([name.as_str().into(), judged(format!("no answer: {problem}"), false)])
            }
        }
    }
    columns.text()
}

/// What a node is doing, for people.
fn state(status: &Status) -> String {
    match (&status.waiting_for, count(status, "slots_refilling")) {
        (Some(waiting), _) => waiting.clone(),
        (None, Some(slots @ 1..)) => format!("refilling {slots} slots"),
        (None, _) => "serving".to_owned(),
    }
}

fn is_refilling(status: &Status) -> bool {
    count(status, "slots_refilling").is_some_and(|slots| slots > 0)
}

/// One of a status's counts.
pub(crate) fn count(status: &Status, name: &str) -> Option<u64> {
    status.counts.iter().find(|(known, _)| known == name).map(|(_, count)| *count)
}

/// A span of time for people: `850ms`, `12.3s`, `4m05s`, `3h20m`.
pub(crate) fn span(millis: u64) -> String {
    let seconds = millis / 1_000;
    match seconds {
        0 => format!("{millis}ms"),
        1..=59 => format!("{seconds}.{}s", millis % 1_000 / 100),
        60..=3_599 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h{:02}m", seconds / 3_600, seconds % 3_600 / 60),
    }
}

#[derive(Serialize)]
struct StatusJson<'a> {
    node: &'a str,
    id: Option<String>,
    address: Option<String>,
    cluster: Option<String>,
    serving: bool,
    waiting_for: Option<&'a str>,
    incarnation: Option<u64>,
    uptime_ms: Option<u64>,
    slots_owned: Option<u32>,
    requests: Option<u32>,
    clock_offset_ms: Option<i64>,
    counts: BTreeMap<&'a str, u64>,
    error: Option<ErrorJson>,
}

impl<'a> StatusJson<'a> {
    fn of(name: &'a Name, answer: &'a Result<Status, Problem>) -> StatusJson<'a> {
        let status = answer.as_ref().ok();
        StatusJson {
            node: name.as_str(),
            id: status.map(|status| status.node.to_string()),
            address: status.and_then(|status| status.address).map(|address| address.to_string()),
            cluster: status.and_then(|status| status.cluster).map(|cluster| cluster.to_string()),
            serving: status.is_some_and(|status| status.waiting_for.is_none()),
            waiting_for: status.and_then(|status| status.waiting_for.as_deref()),
            incarnation: status.map(|status| status.incarnation.0),
            uptime_ms: status.map(|status| status.uptime_ms),
            slots_owned: status.map(|status| status.slots_owned),
            requests: status.map(|status| status.requests),
            clock_offset_ms: status.map(|status| status.clock_offset_ms),
            counts: status
                .map(|status| status.counts.iter().map(|(name, count)| (name.as_str(), *count)).collect())
                .unwrap_or_default(),
            error: answer.as_ref().err().map(ErrorJson::from),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::id::{Incarnation, NodeId};
    use crate::protocol::wire::client::Code;

    fn answers() -> Vec<(Name, Result<Status, Problem>)> {
        let status = Status {
            node: NodeId(1),
            name: Name::new("n1").unwrap(),
            address: Some(([127, 0, 0, 1], 7_000).into()),
            cluster: None,
            waiting_for: Some("2 more nodes to found a cluster of 3".to_owned()),
            incarnation: Incarnation(2),
            uptime_ms: 65_432,
            slots_owned: 0,
            requests: 0,
            clock_offset_ms: -3,
            counts: vec![("cpu_micros".to_owned(), 1_234_000)],
            dirty: vec![],
            unreachable: vec![],
        };
        let silent = Problem::new(Code::Timeout, "no answer within 2 s");
        vec![(Name::new("n1").unwrap(), Ok(status)), (Name::new("n2").unwrap(), Err(silent))]
    }

    #[test]
    fn one_object_a_node_also_for_a_silent_one() {
        let json = shown(&answers(), true);
        let mut lines = json.lines();
        assert_eq!(
            lines.next().unwrap(),
            r#"{"node":"n1","id":"0000000000000001","address":"127.0.0.1:7000","cluster":null,"serving":false,"waiting_for":"2 more nodes to found a cluster of 3","incarnation":2,"uptime_ms":65432,"slots_owned":0,"requests":0,"clock_offset_ms":-3,"counts":{"cpu_micros":1234000},"error":null}"#
        );
        assert!(
            lines
                .next()
                .unwrap()
                .ends_with(r#""counts":{},"error":{"code":"timeout","message":"no answer within 2 s"}}"#)
        );
    }

    #[test]
    fn people_see_what_a_node_waits_for() {
        let table = shown(&answers(), false);
        assert!(
            table.contains("2 more nodes") && table.contains("1m05s") && table.contains("1.2s"),
            "{table}"
        );
        assert!(table.contains("no answer: no answer within 2 s"));
    }

    #[test]
    fn spans() {
        assert_eq!(
            [span(850), span(12_345), span(245_000), span(12_000_000)],
            ["850ms", "12.3s", "4m05s", "3h20m"]
        );
    }
}
