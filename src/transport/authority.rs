//! The authority: issues the certificates that nodes and clients trust each other by.
//!
//! A real cluster makes one authority, keeps its key away from the nodes, and hands each node and client what was
//! issued to it. On one machine nobody should have to: the *development authority* lives in the user's configuration
//! directory and is made when it is first needed, by whichever process comes first.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use etcetera::BaseStrategy;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use thiserror::Error;
use time::{Duration, OffsetDateTime};

use super::certificate::{Credentials, CredentialsError};
use super::identity::{Identity, IdentityError, NODE_SERVER_NAME, Role};

/// Names the directory that holds the development authority in place of `starling` in the user's configuration
/// directory. Tests and labs set it.
pub const CONFIG_DIR_VARIABLE: &str = "STARLING_CONFIG_DIR";

/// How long an authority is valid. Ten years: there is no rotation of authorities yet, and an authority that expires
/// takes its whole cluster down with it.
pub const AUTHORITY_DAYS: i64 = 3_650;

/// How long an issued certificate is valid unless [`Authority::issuing_for_days`] says otherwise. What the development
/// authority issues is issued anew at every start of a process.
pub const ISSUED_DAYS: i64 = 730;

/// Certificates are valid from this long before they were issued, for machines whose clocks run behind.
const CLOCK_SKEW: Duration = Duration::DAY;

const CERTIFICATE_FILE: &str = "ca.pem";
const KEY_FILE: &str = "ca.key";

/// Signs certificates. Holds a private key: keep it where nodes are not.
pub struct Authority {
    certificate: String,
    key: String,
    issuer: Issuer<'static, KeyPair>,
    issued_days: i64,
}

/// An authority could not be made, found or used. Nothing was issued.
#[derive(Debug, Error)]
pub enum AuthorityError {
    /// A file or directory could not be read or written.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There are files, but no authority in them.
    #[error(
        "the authority in {} is of no use: {problem}; restore its two files ({CERTIFICATE_FILE} and {KEY_FILE}), \
         or remove the directory to begin with a new authority, which makes all that it issued worthless",
        dir.display()
    )]
    Damaged {
        /// Where the authority lives.
        dir: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A name cannot be used.
    #[error(transparent)]
    Name(#[from] IdentityError),
    /// The user has no home directory, so there is no place for a development authority.
    #[error(
        "no home directory is known, so there is no place for a development authority: set {CONFIG_DIR_VARIABLE}"
    )]
    NoHome,
    /// The generator failed.
    #[error("a certificate could not be made: {0}")]
    Generation(#[from] rcgen::Error),
    /// The system gave no random bytes.
    #[error("the system gave no random bytes: {0}")]
    Randomness(getrandom::Error),
}

/// A certificate and its key, fresh from the authority, as PEM texts.
#[derive(Clone)]
pub struct Issued {
    /// The authority's certificate.
    pub ca: String,
    /// The certificate.
    pub chain: String,
    /// The private key (PKCS #8).
    pub key: String,
}

/// Where [`Issued::save`] put the three files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialPaths {
    /// The authority's certificate, `ca.pem`.
    pub ca: PathBuf,
    /// The certificate, `NAME.pem`.
    pub certificate: PathBuf,
    /// The private key, `NAME.key`, readable by its owner alone.
    pub key: PathBuf,
}

impl Authority {
    /// Makes a new authority. `name` is for people; two authorities of one name are still two.
    pub fn create(name: &str) -> Result<Authority, AuthorityError> {
        let mut params = params(&format!("{name} {:016x}", random_number()?), AUTHORITY_DAYS);
        // No authorities below this one: it signs nodes and clients, nothing else.
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?.pem();
        let key_text = key.serialize_pem();
        Ok(Authority {
            issuer: Issuer::new(params, key),
            certificate,
            key: key_text,
            issued_days: ISSUED_DAYS,
        })
    }

    /// Loads the authority that [`save`](Authority::save) put into `dir`.
    pub fn load(dir: &Path) -> Result<Authority, AuthorityError> {
        let read = |file: &str| {
            let path = dir.join(file);
            fs::read_to_string(&path).map_err(|source| io_error("reading the authority's", &path, source))
        };
        let (certificate, key_text) = (read(CERTIFICATE_FILE)?, read(KEY_FILE)?);
        let damaged = |problem: String| AuthorityError::Damaged { dir: dir.to_owned(), problem };
        let key = KeyPair::from_pem(&key_text)
            .map_err(|error| damaged(format!("{KEY_FILE} holds no key that can be read ({error})")))?;
        let der = CertificateDer::from_pem_slice(certificate.as_bytes())
            .map_err(|error| damaged(format!("{CERTIFICATE_FILE} holds no certificate ({error})")))?;
        let belongs = x509_parser::parse_x509_certificate(&der)
            .map_err(|error| damaged(format!("{CERTIFICATE_FILE} holds no certificate ({error})")))
            .map(|(_, parsed)| parsed.public_key().subject_public_key.data == key.public_key_raw())?;
        if !belongs {
            return Err(damaged(format!("{KEY_FILE} does not belong to {CERTIFICATE_FILE}")));
        }
        let issuer = Issuer::from_ca_cert_der(&der, key).map_err(|error| damaged(error.to_string()))?;
        Ok(Authority { certificate, key: key_text, issuer, issued_days: ISSUED_DAYS })
    }

    /// Puts the authority into the new directory `dir`, whole or not at all, and durably. Fails if there is something
    /// in `dir` already; an authority is never overwritten.
    pub fn save(&self, dir: &Path) -> Result<(), AuthorityError> {
        let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(parent)
            .map_err(|source| io_error("creating", parent, source))?;
        let name = dir.file_name().unwrap_or_default().to_string_lossy();
        let beside = parent.join(format!(".{name}.{:016x}", random_number()?));
        let saved = self.write_beside(&beside).and_then(|()| {
            // Renaming a directory replaces an empty one and fails on any other: of many processes one wins.
            fs::rename(&beside, dir).map_err(|source| io_error("creating the authority", dir, source))?;
            sync_dir(parent)
        });
        if saved.is_err() {
            // The error that led here says more than one about the cleaning would.
            let _ = fs::remove_dir_all(&beside);
        }
        saved
    }

    fn write_beside(&self, dir: &Path) -> Result<(), AuthorityError> {
        fs::DirBuilder::new().mode(0o700).create(dir).map_err(|source| io_error("creating", dir, source))?;
        write_new(&dir.join(CERTIFICATE_FILE), &self.certificate, 0o644)?;
        write_new(&dir.join(KEY_FILE), &self.key, 0o600)?;
        sync_dir(dir)
    }

    /// Loads the authority in `dir`, or makes one there. Any number of processes may do this at once: all of them end
    /// up with the same authority.
    pub fn load_or_create(dir: &Path) -> Result<Authority, AuthorityError> {
        match Authority::load(dir) {
            Err(AuthorityError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Authority::create_or_load(dir)
            }
            other => other,
        }
    }

    /// Makes one in `dir` after a look that found none. Another process may have made it since: then that is loaded, and
    /// if something is missing there, loading says so.
    fn create_or_load(dir: &Path) -> Result<Authority, AuthorityError> {
        if !is_absent_or_empty(dir) {
            return Authority::load(dir);
        }
        match Authority::create("Starling development authority")?.save(dir) {
            Ok(()) => {
                tracing::info!(dir = %dir.display(), "made a development authority");
                Authority::load(dir)
            }
            // Either another process was faster, or its authority tells what is wrong.
            Err(error) => Authority::load(dir).map_err(|_| error),
        }
    }

    /// The development authority of this user, made on first use. See [`development_directory`].
    pub fn load_or_create_development() -> Result<Authority, AuthorityError> {
        Authority::load_or_create(&development_directory()?)
    }

    /// The same authority, whose certificates are valid for `days` days from now on.
    #[must_use]
    pub fn issuing_for_days(self, days: i64) -> Authority {
        Authority { issued_days: days, ..self }
    }

    /// The authority's own certificate as PEM, for whoever is to trust it.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.certificate
    }

    /// Issues a certificate to a node. It serves for both directions, since nodes dial each other.
    pub fn issue_node(&self, cluster_name: &str, node_name: &str) -> Result<Issued, AuthorityError> {
        let usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(&Identity::node(cluster_name, node_name)?, usages)
    }

    /// Issues a certificate to a client. TLS refuses it on the accepting side.
    pub fn issue_client(&self, name: &str, role: Role) -> Result<Issued, AuthorityError> {
        self.issue(&Identity::client(role, name)?, vec![ExtendedKeyUsagePurpose::ClientAuth])
    }

    fn issue(
        &self,
        identity: &Identity,
        usages: Vec<ExtendedKeyUsagePurpose>,
    ) -> Result<Issued, AuthorityError> {
        // A common name has room for 64 bytes, as has a name; who the holder is says the URI.
        let mut params = params(identity.name(), self.issued_days);
        params.subject_alt_names.push(SanType::URI(identity.uri().try_into()?));
        if identity.is_node() {
            params.subject_alt_names.push(SanType::DnsName(NODE_SERVER_NAME.try_into()?));
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = usages;
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Issued { ca: self.certificate.clone(), chain: certificate.pem(), key: key.serialize_pem() })
    }
}

/// Shows the kind, never the key.
impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("issued_days", &self.issued_days).finish_non_exhaustive()
    }
}

impl Issued {
    /// Ready for use.
    pub fn credentials(&self) -> Result<Credentials, CredentialsError> {
        Credentials::from_pem(&self.ca, &self.chain, &self.key)
    }

    /// Writes `ca.pem`, `NAME.pem` and `NAME.key` (mode 0600) into `dir`, which is made if need be. A certificate or
    /// key that is there already is not overwritten; the same `ca.pem` may be.
    pub fn save(&self, dir: &Path, name: &str) -> Result<CredentialPaths, AuthorityError> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(|source| io_error("creating", dir, source))?;
        let paths = CredentialPaths {
            ca: dir.join(CERTIFICATE_FILE),
            certificate: dir.join(format!("{name}.pem")),
            key: dir.join(format!("{name}.key")),
        };
        if fs::read_to_string(&paths.ca).ok().as_ref() != Some(&self.ca) {
            write_new(&paths.ca, &self.ca, 0o644)?;
        }
        write_new(&paths.key, &self.key, 0o600)?;
        write_new(&paths.certificate, &self.chain, 0o644)?;
        Ok(paths)
    }
}

/// Where the development authority of this user lives: `authority` in `$STARLING_CONFIG_DIR`, or else in `starling` in
/// the user's configuration directory (`$XDG_CONFIG_HOME`, `~/.config`).
pub fn development_directory() -> Result<PathBuf, AuthorityError> {
    let config = match std::env::var_os(CONFIG_DIR_VARIABLE) {
        Some(dir) if !dir.is_empty() => PathBuf::from(dir),
        _ => {
            let strategy =
                etcetera::base_strategy::choose_base_strategy().map_err(|_| AuthorityError::NoHome)?;
            strategy.config_dir().join("starling")
        }
    };
    Ok(config.join("authority"))
}

fn params(common_name: &str, days: i64) -> CertificateParams {
    let now = OffsetDateTime::now_utc();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.not_before = now - CLOCK_SKEW;
    params.not_after = now + Duration::days(days);
    params
}

fn random_number() -> Result<u64, AuthorityError> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(AuthorityError::Randomness)?;
    Ok(u64::from_le_bytes(bytes))
}

fn is_absent_or_empty(dir: &Path) -> bool {
    match fs::read_dir(dir) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

fn write_new(path: &Path, text: &str, mode: u32) -> Result<(), AuthorityError> {
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().map_err(|source| io_error("writing", path, source))
}

fn sync_dir(dir: &Path) -> Result<(), AuthorityError> {
    File::open(dir).and_then(|file| file.sync_all()).map_err(|source| io_error("syncing", dir, source))
}

fn io_error(action: &'static str, path: &Path, source: io::Error) -> AuthorityError {
    AuthorityError::Io { action, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::sync::Barrier;

    use super::*;

    #[test]
    fn many_threads_that_start_at_once_share_one_authority() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("config").join("authority");
        let barrier = Barrier::new(16);
        let made: Vec<String> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..16)
                .map(|_| {
                    scope.spawn(|| {
                        barrier.wait();
                        Authority::load_or_create(&home).unwrap().certificate
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(made.iter().all(|certificate| *certificate == made[0]));
        let left: Vec<_> = fs::read_dir(home.parent().unwrap()).unwrap().collect();
        assert_eq!(left.len(), 1, "nothing but the authority stays: {left:?}");
        let mode = fs::metadata(home.join(KEY_FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn an_authority_that_another_process_made_since_the_first_look_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("authority");
        let other = Authority::create("test").unwrap();
        other.save(&home).unwrap();
        assert_eq!(Authority::create_or_load(&home).unwrap().certificate, other.certificate);
    }

    #[test]
    fn what_a_loaded_authority_issues_is_trusted_under_the_first_one() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("authority");
        let made = Authority::create("test").unwrap();
        made.save(&home).unwrap();
        let issued = Authority::load(&home).unwrap().issue_client("shop", Role::Writer).unwrap();
        let credentials = Credentials::from_pem(made.certificate_pem(), &issued.chain, &issued.key).unwrap();
        assert_eq!(*credentials.identity(), Identity::client(Role::Writer, "shop").unwrap());
    }

    #[test]
    fn an_authority_is_never_overwritten_and_a_damaged_one_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("authority");
        Authority::create("test").unwrap().save(&home).unwrap();
        assert!(Authority::create("test").unwrap().save(&home).is_err());

        fs::write(home.join(KEY_FILE), KeyPair::generate().unwrap().serialize_pem()).unwrap();
        let message = Authority::load_or_create(&home).unwrap_err().to_string();
        assert!(message.contains("does not belong") && message.contains("restore"), "{message}");

        fs::remove_file(home.join(KEY_FILE)).unwrap();
        let message = Authority::load_or_create(&home).unwrap_err().to_string();
        assert!(message.contains("ca.key"), "{message}");
    }

    #[test]
    fn a_saved_certificate_is_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::create("test").unwrap();
        authority.issue_node("c", "n1").unwrap().save(dir.path(), "n1").unwrap();
        authority.issue_node("c", "n2").unwrap().save(dir.path(), "n2").unwrap();
        assert!(authority.issue_node("c", "n1").unwrap().save(dir.path(), "n1").is_err());
    }

    #[test]
    fn unusable_names_are_refused() {
        let authority = Authority::create("test").unwrap();
        assert!(matches!(authority.issue_node("a/b", "n1"), Err(AuthorityError::Name(_))));
    }
}
