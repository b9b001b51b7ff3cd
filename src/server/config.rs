//! What an operator may set for a node: from a file, from flags, checked once.
//!
//! A file holds the same names as the flags, plus tables for what is rarely changed; see `deploy/node.example.toml`.
//! A flag wins over the file. A name that nobody knows is an error that lists the known ones: a misspelt setting that
//! is silently ignored is found at the worst moment.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use thiserror::Error;

use super::disk::DiskOptions;
use crate::protocol::config::{
    ExchangeConfig, HintConfig, Limits, MembershipConfig, NodeConfig, ReplicationConfig,
};
use crate::protocol::ring::entry::Name;
use crate::protocol::ring::member::{Weight, Zone};
use crate::protocol::ring::replicas::Replicas;

/// Where a node listens, and where clients look for one, if nothing else is said.
pub const ADDRESS_DEFAULT: &str = "127.0.0.1:7400";

/// The name of the cluster in certificates, if nothing else is said.
pub const CLUSTER_DEFAULT: &str = "starling";

/// Everything that one node process is told.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// What the protocol is told. Its addresses are the advertised ones.
    pub node: NodeConfig,
    /// The cluster's name, as in the certificates of its nodes.
    pub cluster: String,
    /// Where the data lives. One process at a time.
    pub data: PathBuf,
    /// The address to listen on. Port 0 lets the system choose, and the node then advertises what it got.
    pub listen: SocketAddr,
    /// The addresses that others are told; empty means the one listened on.
    pub advertise: Vec<SocketAddr>,
    /// Who the node is; `None` means a certificate of the development authority.
    pub credentials: Option<CredentialFiles>,
    /// Whether faults may be injected. Never in production.
    pub faults: bool,
    /// Whether a node without data, or with data that cannot be trusted, gets it back from the others.
    pub recover: bool,
    /// The disk.
    pub disk: DiskOptions,
    /// How to log.
    pub log: LogConfig,
}

/// Three PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialFiles {
    /// The authority's certificate.
    pub ca: PathBuf,
    /// One's own certificate.
    pub certificate: PathBuf,
    /// One's own private key.
    pub key: PathBuf,
}

/// How to log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// In which form. Default text.
    pub format: LogFormat,
    /// What: a level, or directives like `info,starling::server=debug`. Default `info`.
    pub level: String,
}

impl Default for LogConfig {
    fn default() -> Self {
        LogConfig { format: LogFormat::default(), level: "info".to_owned() }
    }
}

/// The form of a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// What was set, in a file or by flags; what is `None` was not. Two of them add up by [`or`](Settings::or).
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The data directory.
    pub data: Option<PathBuf>,
    /// `HOST:PORT` to listen on.
    pub listen: Option<String>,
    /// `HOST:PORT`s that others are told.
    pub advertise: Option<Vec<String>>,
    /// `HOST:PORT`s of other nodes.
    pub seeds: Option<Vec<String>>,
    /// With how many nodes to found a cluster.
    pub found: Option<u16>,
    /// The node's name.
    pub name: Option<String>,
    /// The node's zone.
    pub zone: Option<String>,
    /// The node's weight.
    pub weight: Option<u16>,
    /// The cluster's name.
    pub cluster: Option<String>,
    /// Replicas of every key, at founding.
    pub replicas: Option<u8>,
    /// Whether faults may be injected.
    pub faults: Option<bool>,
    /// Whether a node that has lost its data gets it back from the others.
    pub recover: Option<bool>,
    /// Whether slots that no other node owns are served again after a loss.
    pub accept_loss: Option<bool>,
    /// The authority's certificate.
    pub ca: Option<PathBuf>,
    /// The node's certificate.
    pub cert: Option<PathBuf>,
    /// The node's private key.
    pub key: Option<PathBuf>,
    /// The log.
    #[serde(default)]
    pub log: LogSettings,
    /// The disk.
    #[serde(default)]
    pub disk: DiskSettings,
    /// What is too large.
    #[serde(default)]
    pub limits: LimitSettings,
    /// How nodes watch each other.
    #[serde(default)]
    pub membership: MembershipSettings,
    /// How requests are run.
    #[serde(default)]
    pub replication: ReplicationSettings,
    /// How owners compare themselves.
    #[serde(default)]
    pub exchange: ExchangeSettings,
    /// What is kept for owners that cannot be reached.
    #[serde(default)]
    pub hints: HintSettings,
}

macro_rules! settings_table {
    ($(#[$meta:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident: $type:ty),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            $($(#[$field_meta])* pub $field: Option<$type>),+
        }

        impl $name {
            fn or(self, other: $name) -> $name {
                $name { $($field: self.$field.or(other.$field)),+ }
            }
        }
    };
}

settings_table! {
    /// The table `[log]`; see [`LogConfig`].
    LogSettings {
        /// `text` or `json`.
        format: LogFormat,
        /// A level or directives.
        level: String,
    }
}
settings_table! {
    /// The table `[disk]`; see [`DiskOptions`].
    DiskSettings {
        /// Size of a log segment.
        segment_bytes: u64,
        /// Bytes of log between checkpoints.
        checkpoint_bytes: u64,
        /// Time between checkpoints.
        checkpoint_interval_ms: u64,
        /// Log that may wait for the store.
        backlog_bytes_max: u64,
        /// Free space below which writes are refused.
        free_space_floor_bytes: u64,
        /// Memory for sled.
        cache_bytes: u64,
        /// Of the live data, how much the store may take before it is rewritten.
        compact_percent: u64,
        /// Below this it is not worth it.
        compact_floor_bytes: u64,
        /// Pace of the rewriting.
        compact_bytes_per_second: u64,
        /// Pace of the scrub.
        scrub_bytes_per_second: u64,
    }
}
settings_table! {
    /// The table `[limits]`; see [`Limits`].
    LimitSettings {
        /// Bytes of a key.
        key_bytes_max: usize,
        /// Bytes of a value.
        value_bytes_max: usize,
        /// Bytes of a record.
        record_bytes_max: u64,
        /// Concurrent values of a key.
        siblings_max: usize,
        /// Actors in a context.
        context_entries_max: usize,
    }
}
settings_table! {
    /// The table `[membership]`; see [`MembershipConfig`].
    MembershipSettings {
        /// Between two rounds of gossip.
        period_ms: u64,
        /// Who watches each node.
        observers: usize,
        /// Silence before others are asked.
        silence_max_ms: u64,
        /// How long a suspicion stands.
        suspicion_ms: u64,
        /// Remembered members that left.
        book_max: usize,
    }
}
settings_table! {
    /// The table `[replication]`; see [`ReplicationConfig`].
    ReplicationSettings {
        /// Requests under way at once.
        requests_max: usize,
        /// Before a message is sent again.
        resend_after_ms: u64,
        /// Before a slow replica is hedged.
        hedge_min_ms: u64,
    }
}

settings_table! {
    /// The table `[exchange]`; see [`ExchangeConfig`].
    ExchangeSettings {
        /// Between two comparisons of owners that are equal.
        cycle_ms: u64,
        /// Records sent in a second at most.
        keys_per_second: u64,
        /// Bytes sent in a second at most.
        bytes_per_second: u64,
    }
}

settings_table! {
    /// The table `[hints]`; see [`HintConfig`].
    HintSettings {
        /// Bytes of hints in all.
        bytes_max: u64,
        /// Bytes of hints for any one owner.
        bytes_per_target_max: u64,
        /// Between two looks for hints that may be replayed.
        replay_every_ms: u64,
        /// Hints that are replayed after each look at most.
        replay_batch: usize,
    }
}

/// A configuration cannot be used. Nothing was started.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("the configuration {} cannot be read: {error}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The file is not understood. The message names the line, and for an unknown name the known ones.
    #[error("the configuration {} is not understood: {error}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and why.
        error: Box<toml::de::Error>,
    },
    /// A setting has no sense.
    #[error("{setting}: {reason}")]
    Setting {
        /// The name of the setting.
        setting: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

impl Settings {
    /// Reads a file.
    pub fn load(path: &Path) -> Result<Settings, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| ConfigError::File { path: path.to_owned(), error })?;
        let syntax = |error| ConfigError::Syntax { path: path.to_owned(), error: Box::new(error) };
        toml::from_str(&text).map_err(syntax)
    }

    /// These settings, and `other` where they say nothing.
    #[must_use]
    pub fn or(self, other: Settings) -> Settings {
        Settings {
            data: self.data.or(other.data),
            listen: self.listen.or(other.listen),
            advertise: self.advertise.or(other.advertise),
            seeds: self.seeds.or(other.seeds),
            found: self.found.or(other.found),
            name: self.name.or(other.name),
            zone: self.zone.or(other.zone),
            weight: self.weight.or(other.weight),
            cluster: self.cluster.or(other.cluster),
            replicas: self.replicas.or(other.replicas),
            faults: self.faults.or(other.faults),
            recover: self.recover.or(other.recover),
            accept_loss: self.accept_loss.or(other.accept_loss),
            ca: self.ca.or(other.ca),
            cert: self.cert.or(other.cert),
            key: self.key.or(other.key),
            log: self.log.or(other.log),
            disk: self.disk.or(other.disk),
            limits: self.limits.or(other.limits),
            membership: self.membership.or(other.membership),
            replication: self.replication.or(other.replication),
            exchange: self.exchange.or(other.exchange),
            hints: self.hints.or(other.hints),
        }
    }

    /// Checks everything and fills in the defaults. Host names are resolved here, once.
    pub fn resolve(self) -> Result<ServerConfig, ConfigError> {
        let setting = |setting, reason: String| ConfigError::Setting { setting, reason };
        let data =
            self.data.ok_or_else(|| setting("data", "say where the data lives: --data DIR".to_owned()))?;
        let listen = address("listen", self.listen.as_deref().unwrap_or(ADDRESS_DEFAULT))?;
        let advertise = addresses("advertise", self.advertise.unwrap_or_default())?;
        if listen.ip().is_unspecified() && advertise.is_empty() {
            let reason = format!("{listen} is no address that others can reach; add --advertise HOST:PORT");
            return Err(setting("listen", reason));
        }
        let seeds = addresses("seeds", self.seeds.unwrap_or_default())?;
        if self.found == Some(0) {
            return Err(setting("found", "a cluster is founded with at least one node".to_owned()));
        }
        // Without a name of its own a node takes its address: unique, and people can find it.
        let default_name = || listen.to_string().replace([':', '[', ']'], "-").trim_matches('-').to_owned();
        if listen.port() == 0 && self.name.is_none() {
            let reason =
                "a node whose port the system chooses needs a name of its own: --name NAME".to_owned();
            return Err(setting("name", reason));
        }
        let name =
            Name::new(self.name.unwrap_or_else(default_name)).map_err(|reason| setting("name", reason))?;
        let mut node = NodeConfig::new(name, advertise.first().copied().unwrap_or(listen));
        if !advertise.is_empty() {
            node.addresses = advertise.clone();
        }
        node.seeds = seeds;
        node.found = self.found;
        node.accept_loss = self.accept_loss.unwrap_or(false);
        if let Some(zone) = self.zone {
            node.zone = Zone::new(zone).map_err(|error| setting("zone", error.to_string()))?;
        }
        if let Some(weight) = self.weight {
            node.weight = Weight::new(weight).map_err(|error| setting("weight", error.to_string()))?;
        }
        if let Some(replicas) = self.replicas {
            node.replicas =
                Replicas::new(replicas).map_err(|error| setting("replicas", error.to_string()))?;
        }
        node.limits = self.limits.resolve()?;
        node.membership = self.membership.resolve()?;
        node.replication = self.replication.resolve()?;
        node.exchange = self.exchange.resolve()?;
        node.hints = self.hints.resolve()?;
        let credentials = match (self.ca, self.cert, self.key) {
            (None, None, None) => None,
            (Some(ca), Some(certificate), Some(key)) => Some(CredentialFiles { ca, certificate, key }),
            _ => {
                let reason =
                    "ca, cert and key go together: give all three, or none for the development authority";
                return Err(setting("ca, cert, key", reason.to_owned()));
            }
        };
        let log = LogConfig::default();
        Ok(ServerConfig {
            node,
            cluster: self.cluster.unwrap_or_else(|| CLUSTER_DEFAULT.to_owned()),
            data,
            listen,
            advertise,
            credentials,
            faults: self.faults.unwrap_or(false),
            recover: self.recover.unwrap_or(false),
            disk: self.disk.resolve()?,
            log: LogConfig {
                format: self.log.format.unwrap_or(log.format),
                level: self.log.level.unwrap_or(log.level),
            },
        })
    }
}

impl LimitSettings {
    fn resolve(self) -> Result<Limits, ConfigError> {
        let default = Limits::default();
        let limits = Limits {
            key_bytes_max: self.key_bytes_max.unwrap_or(default.key_bytes_max),
            value_bytes_max: self.value_bytes_max.unwrap_or(default.value_bytes_max),
            record_bytes_max: self.record_bytes_max.unwrap_or(default.record_bytes_max),
            siblings_max: self.siblings_max.unwrap_or(default.siblings_max),
            context_entries_max: self.context_entries_max.unwrap_or(default.context_entries_max),
        };
        limits.check().map_err(|reason| ConfigError::Setting { setting: "limits", reason })?;
        Ok(limits)
    }
}

impl MembershipSettings {
    fn resolve(self) -> Result<MembershipConfig, ConfigError> {
        let default = MembershipConfig::default();
        if self.period_ms == Some(0) || self.observers == Some(0) {
            let reason = "period_ms and observers are at least 1".to_owned();
            return Err(ConfigError::Setting { setting: "membership", reason });
        }
        let period = self.period_ms.map_or(default.period, Duration::from_millis);
        let silence_max = self.silence_max_ms.map_or(default.silence_max, Duration::from_millis);
        if silence_max < period {
            let reason = format!(
                "silence_max_ms is {} and has to be at least period_ms = {}, or nobody is ever heard often enough to count \
                 as reachable",
                silence_max.as_millis(),
                period.as_millis()
            );
            return Err(ConfigError::Setting { setting: "membership", reason });
        }
        Ok(MembershipConfig {
            period,
            observers: self.observers.unwrap_or(default.observers),
            silence_max,
            suspicion: self.suspicion_ms.map_or(default.suspicion, Duration::from_millis),
            book_max: self.book_max.unwrap_or(default.book_max),
        })
    }
}

impl ReplicationSettings {
    fn resolve(self) -> Result<ReplicationConfig, ConfigError> {
        let default = ReplicationConfig::default();
        if self.requests_max == Some(0) || self.resend_after_ms == Some(0) {
            let reason = "requests_max and resend_after_ms are at least 1".to_owned();
            return Err(ConfigError::Setting { setting: "replication", reason });
        }
        Ok(ReplicationConfig {
            requests_max: self.requests_max.unwrap_or(default.requests_max),
            resend_after: self.resend_after_ms.map_or(default.resend_after, Duration::from_millis),
            hedge_min: self.hedge_min_ms.map_or(default.hedge_min, Duration::from_millis),
        })
    }
}

impl ExchangeSettings {
    fn resolve(self) -> Result<ExchangeConfig, ConfigError> {
        let default = ExchangeConfig::default();
        if [self.cycle_ms, self.keys_per_second, self.bytes_per_second].contains(&Some(0)) {
            let reason = "cycle_ms, keys_per_second and bytes_per_second are at least 1".to_owned();
            return Err(ConfigError::Setting { setting: "exchange", reason });
        }
        Ok(ExchangeConfig {
            cycle: self.cycle_ms.map_or(default.cycle, Duration::from_millis),
            keys_per_second: self.keys_per_second.unwrap_or(default.keys_per_second),
            bytes_per_second: self.bytes_per_second.unwrap_or(default.bytes_per_second),
        })
    }
}

impl HintSettings {
    fn resolve(self) -> Result<HintConfig, ConfigError> {
        let default = HintConfig::default();
        let wrong = |reason: &str| ConfigError::Setting { setting: "hints", reason: reason.to_owned() };
        if self.replay_every_ms == Some(0) || self.replay_batch == Some(0) {
            return Err(wrong(
                "replay_every_ms and replay_batch are at least 1; bytes_max = 0 keeps no hints",
            ));
        }
        let bytes_max = self.bytes_max.unwrap_or(default.bytes_max);
        if self.bytes_per_target_max.is_some_and(|bytes| bytes > bytes_max) {
            return Err(wrong("bytes_per_target_max is at most bytes_max"));
        }
        Ok(HintConfig {
            bytes_max,
            bytes_per_target_max: self.bytes_per_target_max.unwrap_or(bytes_max / 2),
            replay_every: self.replay_every_ms.map_or(default.replay_every, Duration::from_millis),
            replay_batch: self.replay_batch.unwrap_or(default.replay_batch),
        })
    }
}

impl DiskSettings {
    fn resolve(self) -> Result<DiskOptions, ConfigError> {
        let default = DiskOptions::default();
        if self.segment_bytes.is_some_and(|bytes| bytes < 64 << 10) {
            let reason = "a segment of the log has at least 65536 bytes".to_owned();
            return Err(ConfigError::Setting { setting: "disk.segment_bytes", reason });
        }
        if self.compact_bytes_per_second == Some(0) {
            let reason = "a store is copied at some pace; compact_percent = 0 never rewrites it".to_owned();
            return Err(ConfigError::Setting { setting: "disk.compact_bytes_per_second", reason });
        }
        Ok(DiskOptions {
            segment_bytes: self.segment_bytes.unwrap_or(default.segment_bytes),
            checkpoint_bytes: self.checkpoint_bytes.unwrap_or(default.checkpoint_bytes),
            checkpoint_interval: self
                .checkpoint_interval_ms
                .map_or(default.checkpoint_interval, Duration::from_millis),
            backlog_bytes_max: self.backlog_bytes_max.unwrap_or(default.backlog_bytes_max),
            free_space_floor: self.free_space_floor_bytes.unwrap_or(default.free_space_floor),
            cache_bytes: self.cache_bytes.unwrap_or(default.cache_bytes),
            compact_percent: self.compact_percent.unwrap_or(default.compact_percent),
            compact_floor_bytes: self.compact_floor_bytes.unwrap_or(default.compact_floor_bytes),
            compact_bytes_per_second: self
                .compact_bytes_per_second
                .unwrap_or(default.compact_bytes_per_second),
            scrub_bytes_per_second: self.scrub_bytes_per_second.unwrap_or(default.scrub_bytes_per_second),
            ..default
        })
    }
}

/// Resolves `HOST:PORT`.
fn address(setting: &'static str, text: &str) -> Result<SocketAddr, ConfigError> {
    let wrong = |reason| ConfigError::Setting { setting, reason };
    let found =
        text.to_socket_addrs().map_err(|error| wrong(format!("{text:?} is no HOST:PORT: {error}")))?;
    let mut found: Vec<_> = found.collect();
    // A name like `localhost` may have addresses of both kinds; most networks have working IPv4.
    found.sort_by_key(SocketAddr::is_ipv6);
    found.first().copied().ok_or_else(|| wrong(format!("{text:?} has no address")))
}

fn addresses(setting: &'static str, texts: Vec<String>) -> Result<Vec<SocketAddr>, ConfigError> {
    texts.iter().map(|text| address(setting, text)).collect()
}

#[cfg(test)]
mod tests;
