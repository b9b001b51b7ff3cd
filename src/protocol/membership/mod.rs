//! stub
#![allow(missing_docs, unused)]
use crate::protocol::{
    causality::ClusterSecret,
    config::NodeConfig,
    id::*,
    output::*,
    ring::{Replicas, entry::*},
    rng::Rng,
    storage::op::MetaKey,
    time::*,
    wire::{client::*, gossip::Gossip},
};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::net::SocketAddr;
#[derive(Debug)]
pub struct Membership(Entry);
#[derive(Debug)]
pub struct Cluster {
    pub id: ClusterId,
    pub secret: ClusterSecret,
    pub replicas: Replicas,
}
#[derive(Debug)]
pub struct Recovered;
pub enum Effect {
    Send { to: Destination, message: Gossip },
    Persist { token: u64, entries: Vec<(MetaKey, Option<Bytes>)> },
    Notice(Notice),
    Changed,
    Founded,
}
impl Recovered {
    pub fn from_meta(_: &BTreeMap<MetaKey, Bytes>) -> Result<Recovered, String> {
        Ok(Recovered)
    }
    pub fn entry(&self, _: NodeId) -> Option<&Entry> {
        None
    }
}
impl Membership {
    pub fn new(_: &NodeConfig, own: Entry, _: Recovered, _: Rng) -> Membership {
        Membership(own)
    }
    pub fn start(&mut self, _: Now, _: &mut Vec<Effect>) {}
    pub fn handle(&mut self, _: Now, _: NodeId, _: Gossip, _: &mut Vec<Effect>) {}
    pub fn tick(&mut self, _: Now, _: &mut Vec<Effect>) {}
    pub fn next_deadline(&self) -> Moment {
        Moment::NEVER
    }
    pub fn heard(&mut self, _: Now, _: NodeId) {}
    pub fn persisted(&mut self, _: Now, _: u64, _: &mut Vec<Effect>) {}
    pub fn say_goodbye(&mut self, _: Now, _: &mut Vec<Effect>) {}
    pub fn absorb(&mut self, _: Now, _: Vec<Entry>, _: &mut Vec<Effect>) {}
    pub fn own(&self) -> &Entry {
        &self.0
    }
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        std::iter::once(&self.0)
    }
    pub fn members(&self) -> Vec<MemberView> {
        vec![]
    }
    pub fn entry(&self, _: NodeId) -> Option<&Entry> {
        None
    }
    pub fn name(&self, _: NodeId) -> Option<&Name> {
        None
    }
    pub fn address(&self, _: NodeId) -> Option<SocketAddr> {
        None
    }
    pub fn is_reachable(&self, _: NodeId) -> bool {
        false
    }
    pub fn cluster(&self) -> Option<&Cluster> {
        None
    }
    pub fn clock_offset(&self) -> i64 {
        0
    }
    pub fn version(&self) -> u64 {
        0
    }
    pub fn waiting_for(&self) -> Option<String> {
        None
    }
}
