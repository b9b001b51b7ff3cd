//! What is durable of a lab: `lab.json` in its directory.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::transport::authority::{Authority, AuthorityError, CONFIG_DIR_VARIABLE, development_directory};
use crate::transport::certificate::{Credentials, CredentialsError};
use crate::transport::identity::Role;

const FILE: &str = "lab.json";
const LOCK: &str = "lab.lock";

/// A lab as it is recorded: enough to bring the same cluster back, and to talk to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LabRecord {
    /// The cluster's name in certificates, of this lab alone: labs of one user share an authority and may come to use
    /// each other's old ports, and must not take each other's nodes for their own.
    pub cluster: String,
    /// Replicas of every key.
    pub replicas: u8,
    /// The directory in place of the user's configuration directory, where the authority is.
    pub config_dir: PathBuf,
    /// The nodes, in order.
    pub nodes: Vec<NodeRecord>,
}

/// One node as it is recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeRecord {
    /// n1, n2, ...
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
}

/// A lab cannot be used. Nothing was started.
#[derive(Debug, Error)]
pub enum LabError {
    /// A file or directory failed.
    #[error("{}: {error}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// There is no lab.
    #[error("there is no lab in {}; start one with `starling lab --dir {}`", .0.display(), .0.display())]
    NoLab(PathBuf),
    /// The record is no record.
    #[error("{} does not describe a lab: {error}", path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
        /// Why.
        error: serde_json::Error,
    },
    /// Another lab runs there.
    #[error(
        "a lab is running in {dir} already ({holder}); speak to it with `starling lab --dir {dir} COMMAND`, \
         or end it with `starling lab --dir {dir} stop`"
    )]
    Running {
        /// The directory.
        dir: String,
        /// The process.
        holder: String,
    },
    /// It was made otherwise than it is asked for now.
    #[error("{0}")]
    Mismatch(String),
    /// The authority failed.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The certificate failed.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// A child process failed.
    #[error("{0}")]
    Process(String),
}

/// The right to run the lab of a directory, given back when dropped or when the process ends, however it ends.
#[derive(Debug)]
pub struct LabLock {
    _file: File,
}

impl LabLock {
    /// Takes it, or tells who has it.
    pub fn take(dir: &Path) -> Result<LabLock, LabError> {
        let path = dir.join(LOCK);
        let failed = |error| LabError::File { path: path.clone(), error };
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // Who holds it is for the message only.
                let _ = file.read_to_string(&mut holder);
                let holder = format!("process {}", holder.trim());
                return Err(LabError::Running { dir: dir.display().to_string(), holder });
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        let written = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| write!(file, "{}", std::process::id()));
        written.map_err(failed)?;
        Ok(LabLock { _file: file })
    }
}

/// Who runs the lab of a directory, or ran it last. For people: nothing rests on it.
pub(super) fn holder(dir: &Path) -> Option<String> {
    let holder = fs::read_to_string(dir.join(LOCK)).ok()?;
    Some(holder.trim().to_owned()).filter(|holder| !holder.is_empty())
}

impl LabRecord {
    /// A new lab: names n1, n2, ... and ports that the system picks.
    pub fn new(nodes: u16, replicas: u8) -> Result<LabRecord, LabError> {
        let mut random = [0; 6];
        getrandom::fill(&mut random)
            .map_err(|error| LabError::Process(format!("the system gives no randomness: {error}")))?;
        let cluster = random.iter().fold("lab-".to_owned(), |name, byte| format!("{name}{byte:02x}"));
        let authority = development_directory()?;
        // The authority has a directory of its own below the configuration directory.
        let config_dir = authority.parent().unwrap_or(&authority);
        let config_dir = std::path::absolute(config_dir)
            .map_err(|error| LabError::File { path: config_dir.to_owned(), error })?;
        let addresses = free_addresses(usize::from(nodes))?;
        let nodes = addresses.into_iter().enumerate();
        let nodes = nodes.map(|(at, address)| NodeRecord { name: format!("n{}", at + 1), address }).collect();
        Ok(LabRecord { cluster, replicas, config_dir, nodes })
    }

    /// Whether there is a lab in a directory.
    #[must_use]
    pub fn exists(dir: &Path) -> bool {
        dir.join(FILE).exists()
    }

    /// Reads the record of the lab in a directory.
    pub fn load(dir: &Path) -> Result<LabRecord, LabError> {
        let path = dir.join(FILE);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(LabError::NoLab(dir.to_owned()));
            }
            Err(error) => return Err(LabError::File { path, error }),
        };
        serde_json::from_slice(&text).map_err(|error| LabError::Damaged { path, error })
    }

    /// Writes it, whole or not at all.
    pub fn save(&self, dir: &Path) -> Result<(), LabError> {
        let path = dir.join(FILE);
        let fresh = dir.join("lab.json.new");
        let text = serde_json::to_vec_pretty(self)
            .map_err(|error| LabError::Damaged { path: path.clone(), error })?;
        let written = File::create(&fresh)
            .and_then(|mut file| file.write_all(&text).and_then(|()| file.sync_all()))
            .and_then(|()| fs::rename(&fresh, &path));
        written.map_err(|error| LabError::File { path, error })
    }

    /// Where the nodes listen.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(|node| node.address).collect()
    }

    /// The names of the nodes.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.name.clone()).collect()
    }

    /// A fresh admin's certificate of the lab's authority.
    pub fn client_credentials(&self) -> Result<Credentials, LabError> {
        let authority = Authority::load_or_create(&self.config_dir.join("authority"))?;
        Ok(authority.issue_client("lab", Role::Admin)?.credentials()?)
    }

    /// The environment by which the nodes find the same authority.
    #[must_use]
    pub fn environment(&self) -> (&'static str, &Path) {
        (CONFIG_DIR_VARIABLE, &self.config_dir)
    }
}

/// Loopback addresses whose ports are free now. All are held at once while they are picked, so that they differ.
pub fn free_addresses(count: usize) -> Result<Vec<SocketAddr>, LabError> {
    let failed = |error| LabError::File { path: PathBuf::from("127.0.0.1"), error };
    let sockets =
        (0..count).map(|_| UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))).collect::<Result<Vec<_>, _>>();
    sockets.map_err(failed)?.iter().map(|socket| socket.local_addr().map_err(failed)).collect()
}

/// Whether an address can be bound now.
#[must_use]
pub fn is_free(address: SocketAddr) -> bool {
    UdpSocket::bind(address).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_comes_back_and_damage_is_named() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(LabRecord::load(dir.path()), Err(LabError::NoLab(_))));
        let nodes = vec![NodeRecord { name: "n1".to_owned(), address: ([127, 0, 0, 1], 7_000).into() }];
        let record = LabRecord { cluster: "lab-1".to_owned(), replicas: 3, config_dir: "/c".into(), nodes };
        record.save(dir.path()).unwrap();
        assert_eq!(LabRecord::load(dir.path()).unwrap(), record);
        fs::write(dir.path().join(FILE), "{").unwrap();
        let error = LabRecord::load(dir.path()).unwrap_err().to_string();
        assert!(error.contains("lab.json does not describe a lab"), "{error}");
    }

    #[test]
    fn two_labs_cannot_run_in_one_directory() {
        let dir = tempfile::tempdir().unwrap();
        let lock = LabLock::take(dir.path()).unwrap();
        let error = LabLock::take(dir.path()).unwrap_err().to_string();
        assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
        drop(lock);
        LabLock::take(dir.path()).unwrap();
    }

    #[test]
    fn free_addresses_differ() {
        let mut addresses = free_addresses(5).unwrap();
        addresses.sort();
        addresses.dedup();
        assert_eq!(addresses.len(), 5);
    }
}
