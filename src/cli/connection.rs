//! The options by which every command finds a cluster and says who it is.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use super::failure::Failure;
use super::operation::parse_duration;
use crate::client::ConnectOptions;
use crate::lab::record::LabRecord;
use crate::protocol::ring::entry::Name;
use crate::server::config::ADDRESS_DEFAULT;
use crate::transport::authority::Authority;
use crate::transport::certificate::Credentials;
use crate::transport::identity::Role;

/// How to find a cluster and who to be there.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Connection")]
pub(crate) struct Connection {
    /// Addresses of some nodes; the others are learned from them [default: 127.0.0.1:7400]
    #[arg(long, value_name = "ADDR,..", value_delimiter = ',')]
    pub(crate) connect: Vec<String>,
    /// The authority that both sides trust (PEM) [default: this user's development authority]
    #[arg(long, value_name = "FILE", requires_all = ["cert", "key"])]
    pub(crate) ca: Option<PathBuf>,
    /// Your certificate (PEM)
    #[arg(long, value_name = "FILE", requires_all = ["ca", "key"])]
    pub(crate) cert: Option<PathBuf>,
    /// Your private key (PEM)
    #[arg(long = "key", id = "key", value_name = "FILE", requires_all = ["ca", "cert"])]
    pub(crate) private_key: Option<PathBuf>,
    /// Talk to the lab in this directory: finds addresses and certificates by itself
    #[arg(long, value_name = "DIR", conflicts_with_all = ["connect", "ca"])]
    pub(crate) lab: Option<PathBuf>,
    /// Send every request to the node of this name, whether it owns the key or not
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
    pub(crate) via: Option<Name>,
    /// How long an operation may take, as in 500ms or 2s [default: 5s]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub(crate) deadline: Option<Duration>,
}

/// A node's name, for clap.
pub(crate) fn parse_name(text: &str) -> Result<Name, String> {
    Name::new(text)
}

impl Connection {
    /// What the client library needs.
    pub(crate) fn options(&self) -> Result<ConnectOptions, Failure> {
        let (seeds, credentials) = match &self.lab {
            Some(dir) => {
                let record = LabRecord::load(dir).map_err(Failure::failed)?;
                (record.addresses(), record.client_credentials().map_err(Failure::failed)?)
            }
            None => (self.seeds()?, self.credentials()?),
        };
        let mut options = ConnectOptions::new(seeds, credentials);
        options.via = self.via.clone();
        if let Some(deadline) = self.deadline {
            options.deadlines.request = deadline;
        }
        Ok(options)
    }

    fn seeds(&self) -> Result<Vec<SocketAddr>, Failure> {
        if self.connect.is_empty() {
            return resolve(ADDRESS_DEFAULT);
        }
        let mut seeds = Vec::new();
        for text in &self.connect {
            seeds.extend(resolve(text.trim())?);
        }
        Ok(seeds)
    }

    fn credentials(&self) -> Result<Credentials, Failure> {
        match (&self.ca, &self.cert, &self.private_key) {
            (Some(ca), Some(cert), Some(key)) => Credentials::load(ca, cert, key).map_err(Failure::failed),
            _ => development_credentials(),
        }
    }
}

/// A fresh certificate of the development authority: on one's own machine everybody is an admin.
fn development_credentials() -> Result<Credentials, Failure> {
    let authority = Authority::load_or_create_development().map_err(Failure::failed)?;
    let issued = authority.issue_client("cli", Role::Admin).map_err(Failure::failed)?;
    issued.credentials().map_err(Failure::failed)
}

fn resolve(text: &str) -> Result<Vec<SocketAddr>, Failure> {
    let found = text
        .to_socket_addrs()
        .map_err(|error| Failure::Usage(format!("{text:?} is no HOST:PORT: {error}")))?;
    Ok(found.collect())
}
