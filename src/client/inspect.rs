//! Questions about the cluster, and administration of its nodes.

use std::time::Duration;

use super::cluster::Cluster;
use super::error::{AdminError, AskError};
use super::follower::{TopologyAsk, learn_anew};
use super::operation::{self, Ask, Judgement, Target};
use super::options::CommonOptions;
use super::outcome::Fate;
use super::{Client, bytes_of};
use crate::protocol::id::NodeId;
use crate::protocol::ring::entry::Name;
use crate::protocol::wire::client::{
    AdminAnswer, AdminRequest, Answer, Explanation, Request, Status, Topology,
};

impl Client {
    /// Which replica holds which sibling of a key, and why. Takes a certificate of the admin role.
    pub async fn explain(&self, key: impl AsRef<[u8]>) -> Result<Explanation, AskError> {
        let key = bytes_of(key);
        let pick = |answer| match answer {
            Answer::Explained(explanation) => Some(explanation),
            _ => None,
        };
        let target = self.cluster.via().map_or(Target::Key(&key), Target::Node);
        self.ask(target, Request::Explain { key: key.clone() }, pick).await
    }

    /// What some node believes of the members, or the node of [`ConnectOptions::via`](super::ConnectOptions::via).
    pub async fn topology(&self) -> Result<Topology, AskError> {
        let target = self.cluster.via().map_or(Target::Any, Target::Node);
        let ask = TopologyAsk::of(&self.cluster);
        let ran = operation::run(&self.cluster, target, self.common(), None, ask).await;
        ran.map(|success| success.done).map_err(AskError::new)
    }

    /// What the node of this name believes of the members.
    pub async fn topology_of(&self, node: &Name) -> Result<Topology, AskError> {
        let target = Target::Node(self.node(node).await.ok_or_else(|| AskError::NoSuchNode(node.clone()))?);
        let ask = TopologyAsk::of(&self.cluster);
        let ran = operation::run(&self.cluster, target, self.common(), None, ask).await;
        ran.map(|success| success.done).map_err(AskError::new)
    }

    /// How the node of this name is.
    pub async fn status(&self, node: &Name) -> Result<Status, AskError> {
        let target = Target::Node(self.node(node).await.ok_or_else(|| AskError::NoSuchNode(node.clone()))?);
        let pick = |answer| match answer {
            Answer::Status(status) => Some(status),
            _ => None,
        };
        self.ask(target, Request::Status, pick).await
    }

    /// Administers the node of this name. Takes a certificate of the admin role.
    ///
    /// It is sent once: if the answer is lost, the error says that it is not known whether the node did it.
    pub async fn admin(&self, node: &Name, request: AdminRequest) -> Result<AdminAnswer, AdminError> {
        let target = Target::Node(self.node(node).await.ok_or_else(|| AdminError::NoSuchNode(node.clone()))?);
        let pick = |answer| match answer {
            Answer::Admin(answer) => Some(answer),
            _ => None,
        };
        let question = Question { request: Request::Admin(request), pick, patience: self.patience() };
        let once = CommonOptions { attempts: 1, ..self.common() };
        let ran = operation::run(&self.cluster, target, once, None, question).await;
        ran.map(|success| success.done).map_err(AdminError::new)
    }

    async fn ask<T>(
        &self,
        target: Target<'_>,
        request: Request,
        pick: impl Fn(Answer) -> Option<T>,
    ) -> Result<T, AskError> {
        let question = Question { request, pick, patience: self.patience() };
        let ran = operation::run(&self.cluster, target, self.common(), None, question).await;
        ran.map(|success| success.done).map_err(AskError::new)
    }

    fn common(&self) -> CommonOptions {
        CommonOptions::new(&self.cluster.options.deadlines)
    }

    fn patience(&self) -> Duration {
        self.cluster.options.deadlines.patience
    }

    /// The node of this name; one that is not known yet is asked for.
    async fn node(&self, name: &Name) -> Option<NodeId> {
        let known = self.cluster.view().named(name);
        if known.is_none() {
            let _ = learn_anew(&self.cluster).await;
        }
        known.or_else(|| self.cluster.view().named(name))
    }
}

impl Cluster {
    /// The node that all requests go through, if the client was connected so.
    pub(super) fn via(&self) -> Option<NodeId> {
        let name = self.options.via.as_ref()?;
        self.view().named(name).or(self.pinned)
    }
}

struct Question<P> {
    request: Request,
    pick: P,
    patience: Duration,
}

impl<T, P: Fn(Answer) -> Option<T>> Ask for Question<P> {
    type Done = T;

    fn request(&self, _attempt: u32) -> Request {
        self.request.clone()
    }

    fn judge(&mut self, answer: Answer) -> Judgement<T> {
        match answer {
            Answer::Refused(problem) => Judgement::Failed(Fate::NotApplied, problem),
            answer => (self.pick)(answer).map_or_else(Judgement::nonsense, Judgement::Done),
        }
    }

    fn patience(&self, _attempt: u32) -> Duration {
        self.patience
    }
}
