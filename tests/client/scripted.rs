//! A cluster that exists only in the eyes of its clients: real endpoints on loopback, whose answers come from a script.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_std::task::{self, JoinHandle};
use bytes::Bytes;
use starling::client::{Client, ConnectOptions};
use starling::protocol::causality::{ContextToken, Dot, Sibling};
use starling::protocol::codec;
use starling::protocol::id::{Actor, ClusterId, Incarnation, NodeId, Place};
use starling::protocol::ring::entry::{Entry, Name, Phase, Stage};
use starling::protocol::ring::{Replicas, Ring, RingMember, Slot, Weight, Zone};
use starling::protocol::time::{Timestamp, WallTime};
use starling::protocol::wire::client::{
    Answer, AnswerFrame, ClientFrame, Code, Health, MemberView, Outcome, Problem, ReadAnswer, Request,
    Status, Topology, Write, Written,
};
use starling::transport::{
    Authority, CloseCode, Credentials, Endpoint, EndpointOptions, Link, LinkSender, Protocol, Role,
};

/// What a node does with a request.
pub(crate) enum Act {
    /// Answers.
    Answer(Answer),
    /// Answers this much later.
    Later(Duration, Answer),
    /// Says nothing.
    Silence,
    /// Closes the connection.
    HangUp,
    /// Sends bytes that are no answer.
    Garbage,
}

/// What the nodes do: called with the index of the node and the request.
pub(crate) type Script = dyn Fn(usize, &ClientFrame) -> Act + Send + Sync;

/// The node time that scripted nodes tell.
pub(crate) const NODE_TIME: WallTime = WallTime(1_000_000);

/// See the module.
pub(crate) struct Cluster {
    pub(crate) authority: Authority,
    shared: Arc<Shared>,
    nodes: Vec<Node>,
}

struct Shared {
    script: Box<Script>,
    members: Mutex<Vec<MemberView>>,
    /// Every request but those for the topology, with the index of the node that got it.
    seen: Mutex<Vec<(usize, ClientFrame)>>,
    topologies: AtomicU64,
    cluster: AtomicU64,
}

struct Node {
    endpoint: Option<Endpoint>,
    credentials: Credentials,
    address: SocketAddr,
    frozen: Arc<AtomicBool>,
    accepting: Option<JoinHandle<()>>,
}

impl Cluster {
    /// Starts `count` nodes, n1, n2, ..., of a cluster with three replicas.
    pub(crate) fn start(
        count: usize,
        script: impl Fn(usize, &ClientFrame) -> Act + Send + Sync + 'static,
    ) -> Cluster {
        let authority = Authority::create("test").unwrap();
        let shared = Arc::new(Shared {
            script: Box::new(script),
            members: Mutex::default(),
            seen: Mutex::default(),
            topologies: AtomicU64::new(0),
            cluster: AtomicU64::new(1),
        });
        let mut cluster = Cluster { authority, shared, nodes: Vec::new() };
        for index in 0..count {
            let issued = cluster.authority.issue_node("test", &format!("n{}", index + 1)).unwrap();
            let mut node = Node {
                endpoint: None,
                credentials: issued.credentials().unwrap(),
                address: "127.0.0.1:0".parse().unwrap(),
                frozen: Arc::default(),
                accepting: None,
            };
            node.listen(index, &cluster.shared);
            cluster.shared.members.lock().unwrap().push(member(index, node.address));
            cluster.nodes.push(node);
        }
        cluster
    }

    /// The address of a node.
    pub(crate) fn address(&self, index: usize) -> SocketAddr {
        self.nodes[index].address
    }

    /// A client's credentials under the authority of this cluster.
    pub(crate) fn credentials(&self) -> Credentials {
        self.authority.issue_client("tester", Role::Admin).unwrap().credentials().unwrap()
    }

    /// Options with the first node as the seed and deadlines for the impatient.
    pub(crate) fn options(&self) -> ConnectOptions {
        let mut options = ConnectOptions::new([self.address(0)], self.credentials());
        options.deadlines.dial = Duration::from_millis(500);
        options.hedge = false;
        options
    }

    /// A client with these options.
    pub(crate) fn client(&self) -> Client {
        task::block_on(Client::connect(self.options())).unwrap()
    }

    /// The indices of the owners of a key.
    pub(crate) fn owners(&self, key: &str) -> Vec<usize> {
        let members = self.shared.members.lock().unwrap();
        let members: Vec<RingMember> = members.iter().map(|member| ring_member(&member.entry)).collect();
        let ring = Ring::build(&members, Replicas::THREE);
        ring.owners(Slot::of_key(key.as_bytes())).iter().map(|node| node.0 as usize - 1).collect()
    }

    /// Every request so far but those for the topology, with the index of the node that got it.
    pub(crate) fn seen(&self) -> Vec<(usize, ClientFrame)> {
        self.shared.seen.lock().unwrap().clone()
    }

    /// Every write so far.
    pub(crate) fn writes(&self) -> Vec<(usize, Write)> {
        let write = |(node, frame): (usize, ClientFrame)| match frame.request {
            Request::Write(write) => Some((node, write)),
            _ => None,
        };
        self.seen().into_iter().filter_map(write).collect()
    }

    /// How often the topology was asked for.
    pub(crate) fn topologies(&self) -> u64 {
        self.shared.topologies.load(Ordering::SeqCst)
    }

    /// Changes what the nodes say of their members.
    pub(crate) fn change_members(&self, change: impl FnOnce(&mut Vec<MemberView>)) {
        change(&mut self.shared.members.lock().unwrap());
    }

    /// The nodes now say that they belong to this cluster; at first it is 1.
    pub(crate) fn change_cluster(&self, cluster: u64) {
        self.shared.cluster.store(cluster, Ordering::SeqCst);
    }

    /// Stops a node: connections close, and nobody is at its address any more.
    pub(crate) fn stop(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        if let Some(endpoint) = node.endpoint.take() {
            task::block_on(endpoint.close("the node stops"));
        }
        if let Some(accepting) = node.accepting.take() {
            task::block_on(accepting.cancel());
        }
    }

    /// Starts a stopped node again, at the same address.
    pub(crate) fn restart(&mut self, index: usize) {
        let shared = Arc::clone(&self.shared);
        poll("the port to be free", || self.nodes[index].try_listen(index, &shared).then_some(()));
    }

    /// A frozen node reads requests and does nothing about them.
    pub(crate) fn freeze(&self, index: usize, frozen: bool) {
        self.nodes[index].frozen.store(frozen, Ordering::SeqCst);
    }
}

impl Node {
    fn listen(&mut self, index: usize, shared: &Arc<Shared>) {
        assert!(self.try_listen(index, shared));
    }

    fn try_listen(&mut self, index: usize, shared: &Arc<Shared>) -> bool {
        let Ok(endpoint) = Endpoint::bind(self.address, &self.credentials, EndpointOptions::default()) else {
            return false;
        };
        self.address = endpoint.local_address();
        let (accepting, shared, frozen) = (endpoint.clone(), Arc::clone(shared), Arc::clone(&self.frozen));
        self.accepting = Some(task::spawn(async move {
            while let Some(link) = accepting.accept().await {
                assert_eq!(link.protocol(), Protocol::Client);
                task::spawn(serve(index, link, Arc::clone(&shared), Arc::clone(&frozen)));
            }
        }));
        self.endpoint = Some(endpoint);
        true
    }
}

async fn serve(index: usize, mut link: Link, shared: Arc<Shared>, frozen: Arc<AtomicBool>) {
    let mut payloads = Vec::new();
    while link.receiver.next_batch(&mut payloads).await.is_ok() {
        for payload in payloads.drain(..) {
            let frame: ClientFrame = codec::decode(&payload).unwrap();
            if frozen.load(Ordering::SeqCst) {
                continue;
            }
            let act = if frame.request == Request::Topology {
                shared.topologies.fetch_add(1, Ordering::SeqCst);
                Act::Answer(Answer::Topology(shared.topology(index)))
            } else {
                shared.seen.lock().unwrap().push((index, frame.clone()));
                (shared.script)(index, &frame)
            };
            perform(act, frame.id, &link.sender);
        }
    }
}

fn perform(act: Act, id: u64, sender: &LinkSender) {
    let push = move |sender: &LinkSender, answer| {
        // The client may be gone, which is its right.
        let _ = sender.push(|out| codec::encode_into(&AnswerFrame { id, answer }, out));
    };
    match act {
        Act::Answer(answer) => push(sender, answer),
        Act::Later(after, answer) => {
            let sender = sender.clone();
            task::spawn(async move {
                task::sleep(after).await;
                push(&sender, answer);
            });
        }
        Act::Silence => {}
        Act::HangUp => sender.close(CloseCode::DONE, "the script says so"),
        Act::Garbage => {
            let _ = sender.push(|out| out.extend_from_slice(b"no answer at all"));
        }
    }
}

impl Shared {
    fn topology(&self, index: usize) -> Topology {
        Topology {
            node: NodeId(index as u64 + 1),
            cluster: Some(ClusterId(self.cluster.load(Ordering::SeqCst))),
            replicas: Replicas::THREE,
            members: self.members.lock().unwrap().clone(),
            time: NODE_TIME,
            version: 1,
        }
    }
}

/// The membership entry of a node, as all nodes tell it.
pub(crate) fn member(index: usize, address: SocketAddr) -> MemberView {
    let id = index as u64 + 1;
    let entry = Entry {
        id: NodeId(id),
        place: Place(id),
        name: Name::new(format!("n{id}")).unwrap(),
        addresses: vec![address],
        zone: Zone::default(),
        weight: Weight::default(),
        incarnation: Incarnation(1),
        version: 1,
        amnesia: 0,
        phase: Phase { generation: 1, stage: Stage::Active },
    };
    MemberView { entry, health: Health::Alive, reachable: true }
}

fn ring_member(entry: &Entry) -> RingMember {
    RingMember { node: entry.id, place: entry.place, zone: entry.zone.clone(), weight: entry.weight }
}

/// A node that keeps every write as a sibling of the key, unless it comes with a context: then it replaces them all.
/// Good enough to be read from and written to; no model of the real thing.
#[derive(Default)]
pub(crate) struct Shelf(Mutex<BTreeMap<Bytes, Vec<Sibling>>>);

impl Shelf {
    /// What a node answers that all see the same shelf.
    pub(crate) fn answer(&self, frame: &ClientFrame) -> Answer {
        let mut shelf = self.0.lock().unwrap();
        match &frame.request {
            Request::Write(write) => {
                let siblings = shelf.entry(write.key.clone()).or_default();
                if write.context.is_some() {
                    siblings.clear();
                }
                let dot = dot(siblings.len() as u64 + 1);
                siblings.push(Sibling { dot, value: write.value.clone() });
                committed(siblings.len() as u32)
            }
            Request::Read(read) => {
                let siblings = shelf.get(&read.key).cloned().unwrap_or_default();
                found(&siblings)
            }
            other => refused(Code::BadRequest, &format!("{other:?} is not on the shelf")),
        }
    }

    /// Puts a value beside those that are there, as a concurrent writer would.
    pub(crate) fn intrude(&self, key: &'static str, value: &'static str) {
        let mut shelf = self.0.lock().unwrap();
        let siblings = shelf.entry(Bytes::from(key)).or_default();
        siblings.push(Sibling { dot: dot(1_000 + siblings.len() as u64), value: Some(Bytes::from(value)) });
    }
}

pub(crate) fn dot(at: u64) -> Dot {
    Dot { actor: Actor(1), at: Timestamp(at) }
}

pub(crate) fn token() -> ContextToken {
    ContextToken::from(Bytes::from_static(b"seen"))
}

pub(crate) fn found(siblings: &[Sibling]) -> Answer {
    Answer::Read(ReadAnswer {
        available: true,
        values: siblings.to_vec(),
        deleted: !siblings.is_empty() && siblings.iter().all(|sibling| sibling.value.is_none()),
        context: (!siblings.is_empty()).then(token),
        replies: vec![NodeId(1), NodeId(2)],
        problem: None,
    })
}

pub(crate) fn value(text: &'static str) -> Answer {
    found(&[Sibling { dot: dot(1), value: Some(Bytes::from(text)) }])
}

pub(crate) fn committed(siblings: u32) -> Answer {
    written(Outcome::Committed, Some(dot(7)), siblings, None)
}

pub(crate) fn written(outcome: Outcome, dot: Option<Dot>, siblings: u32, problem: Option<Problem>) -> Answer {
    Answer::Written(Written {
        outcome,
        context: Some(token()),
        dot,
        siblings,
        acks: vec![NodeId(1)],
        hinted: vec![],
        problem,
    })
}

pub(crate) fn problem(code: Code) -> Problem {
    Problem::new(code, format!("scripted: {}", code.name()))
}

pub(crate) fn unknown(code: Code) -> Answer {
    written(Outcome::Unknown, None, 0, Some(problem(code)))
}

pub(crate) fn not_applied(code: Code) -> Answer {
    written(Outcome::NotApplied, None, 0, Some(problem(code)))
}

pub(crate) fn refused(code: Code, message: &str) -> Answer {
    Answer::Refused(Problem::new(code, message))
}

pub(crate) fn status(index: usize) -> Answer {
    Answer::Status(Status {
        node: NodeId(index as u64 + 1),
        name: Name::new(format!("n{}", index + 1)).unwrap(),
        address: None,
        cluster: Some(ClusterId(1)),
        waiting_for: None,
        incarnation: Incarnation(1),
        uptime_ms: 1,
        slots_owned: 1,
        requests: 0,
        clock_offset_ms: 0,
        counts: vec![],
        dirty: vec![],
        unreachable: vec![],
    })
}

/// Waits until `look` finds something, for ten seconds at most.
#[expect(clippy::disallowed_methods, reason = "a test that waits for the real world needs a real clock")]
pub(crate) fn poll<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < Duration::from_secs(10), "waited in vain for {what}");
        std::thread::yield_now();
        std::thread::park_timeout(Duration::from_millis(5));
    }
}
