//! TLS: mutual, version 1.3, one protocol name per kind of link.
//!
//! Both sides show a certificate. What TLS itself checks is that it stands under the authority and serves for its
//! side of the handshake; what the certificate *says*, and whether that fits the protocol asked for, is checked by the
//! [endpoint](super::endpoint) right after, because only then is it known. There is no early data (0-RTT): it can be
//! replayed, and a write must not be.

use std::sync::Arc;

use quinn::crypto::rustls::{HandshakeData, QuicClientConfig, QuicServerConfig};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::CertificateDer;
use rustls::server::WebPkiClientVerifier;
use rustls::{AlertDescription, CertificateError, ClientConfig, ServerConfig};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::certificate::Credentials;
use super::identity::{Identity, IdentityError};

/// What a link is for. The name, with its version, is negotiated in the handshake (ALPN, RFC 7301).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Protocol {
    /// Between two nodes of one cluster.
    Peer,
    /// Between a client and a node.
    Client,
}

impl Protocol {
    /// The protocol's name and version on the wire.
    #[must_use]
    pub fn alpn(self) -> &'static str {
        match self {
            Protocol::Peer => "starling-peer/1",
            Protocol::Client => "starling-client/1",
        }
    }

    fn from_alpn(name: &[u8]) -> Option<Protocol> {
        [Protocol::Peer, Protocol::Client].into_iter().find(|protocol| protocol.alpn().as_bytes() == name)
    }
}

/// TLS could not be set up with these credentials.
#[derive(Debug, Error)]
#[error("TLS cannot be set up: {0}")]
pub struct TlsError(String);

impl TlsError {
    fn new(error: impl std::fmt::Display) -> TlsError {
        TlsError(error.to_string())
    }
}

/// What both sides compute with: ring, given explicitly since a process may hold more than one provider, with
/// AES-128-GCM first, which is the cheapest where the processor helps with AES.
pub(super) fn crypto_provider() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider {
        cipher_suites: vec![
            ring::cipher_suite::TLS13_AES_128_GCM_SHA256,
            ring::cipher_suite::TLS13_AES_256_GCM_SHA384,
            ring::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        ],
        ..ring::default_provider()
    })
}

/// The accepting side: demands a certificate and offers both protocols.
pub(super) fn server(credentials: &Credentials) -> Result<Arc<QuicServerConfig>, TlsError> {
    let roots = credentials.roots().map_err(TlsError::new)?;
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), crypto_provider())
        .build()
        .map_err(TlsError::new)?;
    let mut config = ServerConfig::builder_with_provider(crypto_provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::new)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(credentials.chain.clone(), credentials.key.clone_key())
        .map_err(TlsError::new)?;
    config.alpn_protocols =
        vec![Protocol::Peer.alpn().as_bytes().to_vec(), Protocol::Client.alpn().as_bytes().to_vec()];
    config.max_early_data_size = 0;
    // A resumed session would skip the certificates; links are long-lived, so there is little to gain from it.
    config.send_tls13_tickets = 0;
    Ok(Arc::new(QuicServerConfig::try_from(config).map_err(TlsError::new)?))
}

/// The dialling side, for one protocol.
pub(super) fn client(
    credentials: &Credentials,
    protocol: Protocol,
) -> Result<Arc<QuicClientConfig>, TlsError> {
    let mut config = ClientConfig::builder_with_provider(crypto_provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::new)?
        .with_root_certificates(credentials.roots().map_err(TlsError::new)?)
        .with_client_auth_cert(credentials.chain.clone(), credentials.key.clone_key())
        .map_err(TlsError::new)?;
    config.alpn_protocols = vec![protocol.alpn().as_bytes().to_vec()];
    config.enable_early_data = false;
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(QuicClientConfig::try_from(config).map_err(TlsError::new)?))
}

/// Who is at the other end of a connection whose handshake is over, and what it wants to speak.
pub(super) fn parties(connection: &quinn::Connection) -> Result<(Identity, Option<Protocol>), IdentityError> {
    let certificates = connection.peer_identity().and_then(|any| any.downcast::<Vec<CertificateDer>>().ok());
    let leaf = certificates.as_ref().and_then(|chain| chain.first()).ok_or(IdentityError::Missing)?;
    let data = connection.handshake_data().and_then(|any| any.downcast::<HandshakeData>().ok());
    let alpn = data.and_then(|data| data.protocol);
    Ok((Identity::of_certificate(leaf)?, alpn.as_deref().and_then(Protocol::from_alpn)))
}

/// What a failed verification of a certificate means and what to do about it.
pub(super) fn explain_certificate_error(error: &rustls::Error) -> String {
    let rustls::Error::InvalidCertificate(problem) = error else { return error.to_string() };
    match problem {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => SIGNED_BY_ANOTHER.to_owned(),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => EXPIRED.to_owned(),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "the certificate is not valid yet: compare the clocks of both machines".to_owned()
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "the certificate was not issued for this use: a client's certificate cannot serve a node"
                .to_owned()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "the certificate was not issued to a Starling node".to_owned()
        }
        other => format!("the certificate is not acceptable ({other:?})"),
    }
}

const SIGNED_BY_ANOTHER: &str = "the certificate is signed by another authority than the one trusted here: \
    both sides need certificates of one authority (--ca, --cert, --key)";
const EXPIRED: &str = "the certificate has expired: issue a new one with `starling cert`";

/// What a TLS alert (RFC 8446, 6.2) means for the side that received it, if it is about certificates.
pub(super) fn explain_alert(alert: u8) -> Option<&'static str> {
    match AlertDescription::from(alert) {
        AlertDescription::UnknownCA | AlertDescription::DecryptError => Some(SIGNED_BY_ANOTHER),
        AlertDescription::CertificateExpired => Some(EXPIRED),
        AlertDescription::CertificateRequired => {
            Some("no certificate was shown: give --ca, --cert and --key")
        }
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::AccessDenied => Some("the certificate is not acceptable to the other side"),
        _ => None,
    }
}

/// Whether a TLS alert says that both sides have no protocol in common.
pub(super) fn is_no_common_protocol(alert: u8) -> bool {
    AlertDescription::from(alert) == AlertDescription::NoApplicationProtocol
}
