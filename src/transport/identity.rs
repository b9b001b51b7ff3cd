//! Identities: who is at the other end, as its certificate says.
//!
//! The identity rides in a URI among the subject's alternative names (RFC 5280, 4.2.1.6):
//!
//! ```text
//! starling://node/<cluster>/<name>      a node of that cluster
//! starling://client/<role>/<name>       a client that may read, write or administer
//! ```

use std::fmt;
use std::str::FromStr;

use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// The one DNS name that every node's certificate carries besides its identity. Dialers use it as the TLS server name:
/// nodes are found by address and known by identity, so a host name would prove nothing here.
pub const NODE_SERVER_NAME: &str = "node.starling.internal";

/// The longest name of a cluster, a node or a client, in bytes.
pub const NAME_BYTES_MAX: usize = 64;

const SCHEME: &str = "starling://";

/// What a client may do. Each role may do all that the ones before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Reads keys and the state of the cluster.
    Reader,
    /// Reads and writes keys.
    Writer,
    /// Also injects faults, explains, and changes the cluster.
    Admin,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Role::Reader => "reader",
            Role::Writer => "writer",
            Role::Admin => "admin",
        })
    }
}

impl FromStr for Role {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Role, IdentityError> {
        match text {
            "reader" => Ok(Role::Reader),
            "writer" => Ok(Role::Writer),
            "admin" => Ok(Role::Admin),
            _ => Err(IdentityError::UnknownRole { role: text.to_owned() }),
        }
    }
}

/// Who holds a certificate.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Identity {
    /// A node. Only nodes may speak the peer protocol.
    Node {
        /// The cluster that it belongs to.
        cluster: String,
        /// Its name, unique within the cluster.
        name: String,
    },
    /// A program or a person that uses a cluster.
    Client {
        /// What it may do.
        role: Role,
        /// Its name, for logs.
        name: String,
    },
}

/// A certificate or a name does not say who somebody is.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum IdentityError {
    /// Names go into URIs and file names as they are.
    #[error(
        "{name:?} cannot be a name: use 1 to {NAME_BYTES_MAX} letters, digits, dots, hyphens or underscores, \
         and a letter or digit first"
    )]
    BadName {
        /// What was given.
        name: String,
    },
    /// Roles are reader, writer and admin.
    #[error("{role:?} is no role: use reader, writer or admin")]
    UnknownRole {
        /// What was given.
        role: String,
    },
    /// The bytes are no X.509 certificate.
    #[error("the certificate cannot be parsed: {problem}")]
    NotACertificate {
        /// What the parser says.
        problem: String,
    },
    /// The certificate was not made for Starling.
    #[error(
        "the certificate names no Starling identity (a {SCHEME} URI among its alternative names); \
         issue one with `starling cert node` or `starling cert client`"
    )]
    Missing,
    /// Two identities in one certificate would let its holder choose.
    #[error("the certificate names more than one Starling identity")]
    Ambiguous,
    /// The URI has the scheme, but not the form.
    #[error("{uri:?} is no identity: expected {SCHEME}node/CLUSTER/NAME or {SCHEME}client/ROLE/NAME")]
    Malformed {
        /// The URI in the certificate.
        uri: String,
    },
}

impl Identity {
    /// A node's identity, if both names are usable.
    pub fn node(cluster: &str, name: &str) -> Result<Identity, IdentityError> {
        Ok(Identity::Node { cluster: checked(cluster)?, name: checked(name)? })
    }

    /// A client's identity, if its name is usable.
    pub fn client(role: Role, name: &str) -> Result<Identity, IdentityError> {
        Ok(Identity::Client { role, name: checked(name)? })
    }

    /// The URI that names this identity in a certificate.
    #[must_use]
    pub fn uri(&self) -> String {
        match self {
            Identity::Node { cluster, name } => format!("{SCHEME}node/{cluster}/{name}"),
            Identity::Client { role, name } => format!("{SCHEME}client/{role}/{name}"),
        }
    }

    /// Reads the identity from a certificate. Whether the certificate can be trusted is for TLS to say.
    pub fn of_certificate(certificate: &CertificateDer<'_>) -> Result<Identity, IdentityError> {
        let not_a_certificate = |problem: String| IdentityError::NotACertificate { problem };
        let (_, parsed) =
            X509Certificate::from_der(certificate).map_err(|error| not_a_certificate(error.to_string()))?;
        let names =
            parsed.subject_alternative_name().map_err(|error| not_a_certificate(error.to_string()))?;
        let mut found = None;
        for name in names.iter().flat_map(|extension| &extension.value.general_names) {
            if let GeneralName::URI(uri) = name
                && uri.starts_with(SCHEME)
                && found.replace(uri.parse()?).is_some()
            {
                return Err(IdentityError::Ambiguous);
            }
        }
        found.ok_or(IdentityError::Missing)
    }

    /// The holder's own name, without cluster or role.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Identity::Node { name, .. } | Identity::Client { name, .. } => name,
        }
    }

    /// Whether this is a node.
    #[must_use]
    pub fn is_node(&self) -> bool {
        matches!(self, Identity::Node { .. })
    }
}

impl FromStr for Identity {
    type Err = IdentityError;

    fn from_str(uri: &str) -> Result<Identity, IdentityError> {
        let malformed = || IdentityError::Malformed { uri: uri.to_owned() };
        let mut parts = uri.strip_prefix(SCHEME).ok_or_else(malformed)?.split('/');
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some("node"), Some(cluster), Some(name), None) => Identity::node(cluster, name),
            (Some("client"), Some(role), Some(name), None) => Identity::client(role.parse()?, name),
            _ => Err(malformed()),
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Identity::Node { cluster, name } => write!(f, "node {name} of cluster {cluster}"),
            Identity::Client { role, name } => write!(f, "client {name} ({role})"),
        }
    }
}

fn checked(name: &str) -> Result<String, IdentityError> {
    let fits = name.len() <= NAME_BYTES_MAX
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))
        && name.starts_with(|first: char| first.is_ascii_alphanumeric());
    if fits { Ok(name.to_owned()) } else { Err(IdentityError::BadName { name: name.to_owned() }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_survives_its_uri() {
        for identity in
            [Identity::node("orders", "n1").unwrap(), Identity::client(Role::Writer, "shop-7.eu").unwrap()]
        {
            assert_eq!(identity.uri().parse(), Ok(identity));
        }
    }

    #[test]
    fn whatever_is_not_exactly_an_identity_is_refused() {
        for uri in [
            "",
            "starling://",
            "starling://node/a",
            "starling://node/a/b/c",
            "starling://node//b",
            "starling://node/a/../b",
            "starling://client/owner/b",
            "starling://Node/a/b",
            "https://node/a/b",
            "starling://node/a/.b",
            "starling://node/a/b c",
        ] {
            assert!(uri.parse::<Identity>().is_err(), "{uri}");
        }
        assert!(Identity::node(&"x".repeat(65), "n1").is_err());
    }

    #[test]
    fn roles_rise() {
        assert!(Role::Reader < Role::Writer && Role::Writer < Role::Admin);
    }
}
