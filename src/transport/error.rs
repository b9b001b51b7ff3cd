//! What can go wrong when an endpoint is opened or a link is dialled, in words that say what to do about it.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use quinn::{ConnectionError, TransportErrorCode};
use thiserror::Error;

use super::identity::Identity;
use super::link::{CloseCode, LinkError, explain};
use super::tls::{self, Protocol, TlsError};

/// TLS alerts travel as QUIC error codes from here on (RFC 9001, 4.8).
const CRYPTO_ERRORS: u64 = 0x100;

/// The socket of an endpoint could not be opened.
#[derive(Debug, Error)]
pub enum BindError {
    /// Another process has the port.
    #[error(
        "UDP port {} at {} is in use: stop the process that has it, or listen elsewhere (port 0 lets the system pick)",
        address.port(), address.ip()
    )]
    InUse {
        /// Where the endpoint was to listen.
        address: SocketAddr,
    },
    /// The address belongs to no interface of this machine.
    #[error("{} is no address of this machine: listen on one that is, or on 0.0.0.0 or [::] for all", address.ip())]
    NotHere {
        /// Where the endpoint was to listen.
        address: SocketAddr,
    },
    /// Only a node may be dialled.
    #[error("{identity} cannot accept links: that takes a node's certificate (`starling cert node`)")]
    NotANode {
        /// Whom the credentials belong to.
        identity: Identity,
    },
    /// The credentials, though valid, cannot be used.
    #[error("{0}")]
    Tls(String),
    /// Anything else.
    #[error("UDP address {address} cannot be opened: {source}")]
    Io {
        /// Where the endpoint was to listen.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

impl BindError {
    pub(super) fn from_io(address: SocketAddr, source: io::Error) -> BindError {
        match source.kind() {
            io::ErrorKind::AddrInUse => BindError::InUse { address },
            io::ErrorKind::AddrNotAvailable => BindError::NotHere { address },
            _ => BindError::Io { address, source },
        }
    }
}

impl From<TlsError> for BindError {
    fn from(error: TlsError) -> BindError {
        BindError::Tls(error.to_string())
    }
}

/// A link could not be established.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ConnectError {
    /// Nothing came back, or it stopped coming: no node there, or a network that does not let packets through.
    #[error(
        "nobody answers at {address} (waited {:.1} s): is the node running, and is UDP let through?",
        waited.as_secs_f64()
    )]
    NobodyAnswers {
        /// Whom was dialled.
        address: SocketAddr,
        /// For how long.
        waited: Duration,
    },
    /// This side does not accept the node's certificate.
    #[error("the node at {address} cannot be trusted: {problem}")]
    TheirCertificate {
        /// Whom was dialled.
        address: SocketAddr,
        /// What is wrong and what to do.
        problem: String,
    },
    /// The node does not accept this side's certificate.
    #[error("{address} refused this side's certificate: {problem}")]
    OurCertificate {
        /// Whom was dialled.
        address: SocketAddr,
        /// What is wrong and what to do.
        problem: String,
    },
    /// The certificates are good, but do not allow this link.
    #[error("{address} refused the link: {reason}")]
    Refused {
        /// Whom was dialled.
        address: SocketAddr,
        /// [`CloseCode::FORBIDDEN`], [`CloseCode::WRONG_CLUSTER`], [`CloseCode::TOO_SLOW`] and so on.
        code: CloseCode,
        /// What the other side said.
        reason: String,
    },
    /// The other side has as many links or handshakes as it allows.
    #[error("{address} has as many connections as it allows: try again later or another node")]
    Busy {
        /// Whom was dialled.
        address: SocketAddr,
    },
    /// Both sides have no version of the protocol in common.
    #[error(
        "{address} does not speak {}: it runs another version of Starling, or another program altogether",
        protocol.alpn()
    )]
    WrongProtocol {
        /// Whom was dialled.
        address: SocketAddr,
        /// What was asked for.
        protocol: Protocol,
    },
    /// The other side is trusted, but no node.
    #[error("{address} is no Starling node: {found}")]
    NotANode {
        /// Whom was dialled.
        address: SocketAddr,
        /// What it is instead.
        found: String,
    },
    /// The address cannot be dialled from this endpoint.
    #[error("{address} cannot be dialled from here: {problem}")]
    BadAddress {
        /// Whom was to be dialled.
        address: SocketAddr,
        /// Why not.
        problem: String,
    },
    /// This endpoint has been closed.
    #[error("this endpoint is closed")]
    EndpointClosed,
    /// Anything else.
    #[error("the link to {address} broke while it was established: {problem}")]
    Broken {
        /// Whom was dialled.
        address: SocketAddr,
        /// What happened.
        problem: String,
    },
}

impl ConnectError {
    pub(super) fn from_start(address: SocketAddr, error: quinn::ConnectError) -> ConnectError {
        match error {
            quinn::ConnectError::EndpointStopping => ConnectError::EndpointClosed,
            other => ConnectError::BadAddress { address, problem: other.to_string() },
        }
    }

    /// What the end of a connection means before the link was established.
    pub(super) fn from_connection(
        address: SocketAddr,
        protocol: Protocol,
        error: ConnectionError,
    ) -> ConnectError {
        let broken = |problem| ConnectError::Broken { address, problem };
        match error {
            ConnectionError::VersionMismatch => ConnectError::WrongProtocol { address, protocol },
            ConnectionError::LocallyClosed => ConnectError::EndpointClosed,
            // TLS ended it: here, ...
            ConnectionError::TransportError(ref here) => match alert(here.code) {
                Some(code) if tls::is_no_common_protocol(code) => {
                    ConnectError::WrongProtocol { address, protocol }
                }
                Some(code) => {
                    let problem = match tls::explain_alert(code) {
                        Some(text) => format!("{text} ({})", here.reason),
                        None => here.reason.clone(),
                    };
                    ConnectError::TheirCertificate { address, problem }
                }
                None => broken(error.to_string()),
            },
            // ... or there.
            ConnectionError::ConnectionClosed(ref there) => match alert(there.error_code) {
                _ if there.error_code == TransportErrorCode::CONNECTION_REFUSED => {
                    ConnectError::Busy { address }
                }
                Some(code) if tls::is_no_common_protocol(code) => {
                    ConnectError::WrongProtocol { address, protocol }
                }
                Some(code) => {
                    let said = String::from_utf8_lossy(&there.reason);
                    let problem = tls::explain_alert(code).map_or_else(|| said.into_owned(), str::to_owned);
                    ConnectError::OurCertificate { address, problem }
                }
                None => broken(error.to_string()),
            },
            other => match explain(other) {
                LinkError::ClosedThere { code: CloseCode::BUSY, .. } => ConnectError::Busy { address },
                LinkError::ClosedThere { code, reason } => ConnectError::Refused { address, code, reason },
                LinkError::TimedOut => broken("the other side fell silent".to_owned()),
                other => broken(other.to_string()),
            },
        }
    }
}

fn alert(code: TransportErrorCode) -> Option<u8> {
    u64::from(code).checked_sub(CRYPTO_ERRORS).and_then(|alert| u8::try_from(alert).ok())
}
