//! Credentials: a certificate, its private key, and the authority that both sides trust.
//!
//! They come from three PEM files ([`Credentials::load`]) or straight from an
//! [`Authority`](super::authority::Authority). Everything that can be wrong with them is found here, with the file and
//! the remedy in the message, rather than later as a handshake that fails at both ends for no stated reason.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::sign::CertifiedKey;
use thiserror::Error;

use super::identity::{Identity, IdentityError};
use super::tls;

/// What one side shows in a handshake, and whom it trusts. Checked: the key belongs to the certificate, the authority
/// signed it, it is valid now, and it names an identity.
pub struct Credentials {
    pub(super) ca: Vec<CertificateDer<'static>>,
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKeyDer<'static>,
    identity: Identity,
}

/// Credentials cannot be used. Nothing was changed.
#[derive(Debug, Error)]
pub enum CredentialsError {
    /// A file could not be read.
    #[error("{role} {} cannot be read: {source}", path.display())]
    Unreadable {
        /// Which of the three files.
        role: FileRole,
        /// Where it was looked for.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The content is not what it should be.
    #[error("{role} {origin} is of no use: {problem}")]
    Unusable {
        /// Which of the three parts.
        role: FileRole,
        /// The file, or where else the text came from.
        origin: String,
        /// What is wrong and what to do.
        problem: String,
    },
    /// The key does not belong to the certificate.
    #[error(
        "the key {key} does not belong to the certificate {chain}: give the two files that were issued together"
    )]
    KeyMismatch {
        /// The file of the certificate.
        chain: String,
        /// The file of the key.
        key: String,
    },
    /// The certificate cannot be trusted under this authority.
    #[error("the certificate {chain} does not stand under the authority {ca}: {problem}")]
    NotTrusted {
        /// The file of the certificate.
        chain: String,
        /// The file of the authority.
        ca: String,
        /// What is wrong and what to do.
        problem: String,
    },
    /// The certificate does not say who its holder is.
    #[error("the certificate {chain}: {source}")]
    Identity {
        /// The file of the certificate.
        chain: String,
        /// What is wrong.
        source: IdentityError,
    },
}

/// Which part of the credentials a message is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileRole {
    /// The authority that both sides trust (`--ca`).
    Authority,
    /// One's own certificate, with the ones that lead to the authority (`--cert`).
    Certificate,
    /// One's own private key (`--key`).
    Key,
}

impl fmt::Display for FileRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FileRole::Authority => "the authority (--ca)",
            FileRole::Certificate => "the certificate (--cert)",
            FileRole::Key => "the private key (--key)",
        })
    }
}

/// A PEM text and where it came from, for messages.
struct Source {
    role: FileRole,
    origin: String,
    text: Vec<u8>,
}

impl Source {
    fn read(role: FileRole, path: &Path) -> Result<Source, CredentialsError> {
        let text = fs::read(path).map_err(|source| CredentialsError::Unreadable {
            role,
            path: path.to_owned(),
            source,
        })?;
        Ok(Source { role, origin: path.display().to_string(), text })
    }

    fn unusable(&self, problem: impl Into<String>) -> CredentialsError {
        CredentialsError::Unusable { role: self.role, origin: self.origin.clone(), problem: problem.into() }
    }

    fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, CredentialsError> {
        let certificates = CertificateDer::pem_slice_iter(&self.text)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| self.unusable(format!("its PEM text is damaged ({error})")))?;
        if certificates.is_empty() {
            return Err(self.unusable("it holds no certificate (a block that begins with BEGIN CERTIFICATE)"));
        }
        Ok(certificates)
    }

    fn key(&self) -> Result<PrivateKeyDer<'static>, CredentialsError> {
        PrivateKeyDer::from_pem_slice(&self.text).map_err(|error| {
            self.unusable(format!(
                "it holds no private key that can be read ({error}); keys are not encrypted"
            ))
        })
    }
}

impl Credentials {
    /// Reads the authority, the certificate (with its chain, if any) and the private key from PEM files. A key that
    /// other users can read is used all the same, with a warning.
    pub fn load(ca: &Path, certificate: &Path, key: &Path) -> Result<Credentials, CredentialsError> {
        if fs::metadata(key).is_ok_and(|metadata| metadata.permissions().mode() & 0o077 != 0) {
            tracing::warn!(key = %key.display(), "other users may read the private key: chmod 600 it");
        }
        Credentials::check(
            &Source::read(FileRole::Authority, ca)?,
            &Source::read(FileRole::Certificate, certificate)?,
            &Source::read(FileRole::Key, key)?,
        )
    }

    /// The same from PEM texts in memory.
    pub fn from_pem(ca: &str, certificate: &str, key: &str) -> Result<Credentials, CredentialsError> {
        let given =
            |role, text: &str| Source { role, origin: "given in memory".to_owned(), text: text.into() };
        Credentials::check(
            &given(FileRole::Authority, ca),
            &given(FileRole::Certificate, certificate),
            &given(FileRole::Key, key),
        )
    }

    /// Who the holder of these credentials is.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The authorities that are trusted, as TLS wants them.
    pub(super) fn roots(&self) -> Result<RootCertStore, rustls::Error> {
        let mut roots = RootCertStore::empty();
        for certificate in &self.ca {
            roots.add(certificate.clone())?;
        }
        Ok(roots)
    }

    fn check(ca: &Source, chain: &Source, key: &Source) -> Result<Credentials, CredentialsError> {
        let (certificates, private_key) = (chain.certificates()?, key.key()?);
        let identity = Identity::of_certificate(&certificates[0])
            .map_err(|source| CredentialsError::Identity { chain: chain.origin.clone(), source })?;
        let credentials =
            Credentials { ca: ca.certificates()?, chain: certificates, key: private_key, identity };

        match CertifiedKey::from_der(
            credentials.chain.clone(),
            credentials.key.clone_key(),
            &tls::crypto_provider(),
        ) {
            Ok(_) => {}
            Err(rustls::Error::InconsistentKeys(_)) => {
                return Err(CredentialsError::KeyMismatch {
                    chain: chain.origin.clone(),
                    key: key.origin.clone(),
                });
            }
            Err(error) => return Err(key.unusable(format!("the key cannot be used ({error})"))),
        }

        let roots = credentials.roots().map_err(|error| ca.unusable(error.to_string()))?;
        // Both kinds of certificate are good for the dialling side, so that this one check covers them.
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), tls::crypto_provider())
            .build()
            .map_err(|error| ca.unusable(error.to_string()))?;
        verifier
            .verify_client_cert(&credentials.chain[0], &credentials.chain[1..], UnixTime::now())
            .map_err(|error| CredentialsError::NotTrusted {
                chain: chain.origin.clone(),
                ca: ca.origin.clone(),
                problem: tls::explain_certificate_error(&error),
            })?;
        Ok(credentials)
    }
}

impl Clone for Credentials {
    fn clone(&self) -> Credentials {
        Credentials {
            ca: self.ca.clone(),
            chain: self.chain.clone(),
            key: self.key.clone_key(),
            identity: self.identity.clone(),
        }
    }
}

/// Shows who, never the key.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("identity", &self.identity).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::super::authority::Authority;
    use super::super::identity::Role;
    use super::*;

    fn write(dir: &Path, name: &str, text: &str) -> PathBuf {
        let path = dir.join(name);
        fs::write(&path, text).unwrap();
        path
    }

    #[test]
    fn saved_credentials_load_again() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::create("test").unwrap();
        let paths = authority.issue_node("c", "n1").unwrap().save(dir.path(), "n1").unwrap();
        let loaded = Credentials::load(&paths.ca, &paths.certificate, &paths.key).unwrap();
        assert_eq!(*loaded.identity(), Identity::node("c", "n1").unwrap());
        assert!(!format!("{loaded:?}").contains("PRIVATE"));
    }

    #[test]
    fn each_mistake_names_the_file_and_what_is_wrong() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::create("test").unwrap();
        let (a, b) =
            (authority.issue_node("c", "n1").unwrap(), authority.issue_client("b", Role::Admin).unwrap());
        let ca = write(dir.path(), "ca.pem", &a.ca);
        let cert = write(dir.path(), "n1.pem", &a.chain);
        let key = write(dir.path(), "n1.key", &a.key);
        let other_key = write(dir.path(), "b.key", &b.key);
        let other_ca = write(dir.path(), "other.pem", Authority::create("test").unwrap().certificate_pem());
        let empty = write(dir.path(), "empty.pem", "");
        let damaged = write(dir.path(), "damaged.pem", &a.chain.replace("M", "*"));
        let missing = dir.path().join("missing.pem");

        let says = |ca: &Path, cert: &Path, key: &Path, words: &[&str]| {
            let message = Credentials::load(ca, cert, key).unwrap_err().to_string();
            for word in words {
                assert!(message.contains(word), "{message:?} should say {word:?}");
            }
        };
        assert!(Credentials::load(&ca, &cert, &key).is_ok());
        says(&missing, &cert, &key, &["--ca", "missing.pem", "cannot be read"]);
        says(&empty, &cert, &key, &["--ca", "empty.pem", "no certificate"]);
        says(&ca, &damaged, &key, &["--cert", "damaged.pem", "damaged"]);
        says(&ca, &cert, &empty, &["--key", "empty.pem", "no private key"]);
        says(&ca, &cert, &other_key, &["n1.pem", "b.key", "does not belong"]);
        says(&other_ca, &cert, &key, &["n1.pem", "other.pem", "another authority"]);
        says(&ca, &ca, &key, &["ca.pem", "no Starling identity"]);
    }

    #[test]
    fn an_expired_certificate_says_so() {
        let issued = Authority::create("test").unwrap().issuing_for_days(-1).issue_node("c", "n1").unwrap();
        let message = issued.credentials().unwrap_err().to_string();
        assert!(message.contains("expired"), "{message}");
    }
}
