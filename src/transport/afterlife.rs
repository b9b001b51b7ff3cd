//! What a node that has restarted owes to those who still speak to the process before it: a word that it is gone.
//!
//! A killed process closes nothing. Whoever had a connection to it goes on sending to the same address, and the process
//! that listens there now knows nothing of the connection. QUIC has an answer to that, the *stateless reset* (RFC 9000,
//! 10.3): a datagram that ends in a token which only the two ends of the connection know. For the new process to know
//! it, the token is a keyed hash of the connection's id, and the key outlives the process. Without that the other side
//! waits for its idle timeout, and every request that it makes meanwhile is lost.

use std::fmt;
use std::sync::Arc;

use quinn::crypto::{CryptoError, HmacKey};
use quinn::{ConnectionId, ConnectionIdGenerator};

/// Bytes of a connection id: RFC 9000 asks for at least 8 random ones where ids are to be unguessable.
const CONNECTION_ID_BYTES: usize = 8;

/// Bytes of a keyed hash.
const HASH_BYTES: usize = 32;

/// Separates these hashes from every other use of the same secret.
const PURPOSE: &str = "starling 2026-11 tokens of QUIC stateless resets";

/// What the tokens of an endpoint are made from. Who knows it can end the connections of the endpoint's former lives,
/// and nothing else.
#[derive(Clone, PartialEq, Eq)]
pub struct ResetSecret([u8; ResetSecret::BYTES]);

impl ResetSecret {
    /// How long one is, in bytes.
    pub const BYTES: usize = 32;

    /// One that was kept.
    #[must_use]
    pub fn new(secret: [u8; ResetSecret::BYTES]) -> ResetSecret {
        ResetSecret(secret)
    }

    /// For an endpoint that is not coming back.
    pub(super) fn random() -> Result<ResetSecret, getrandom::Error> {
        let mut secret = [0; ResetSecret::BYTES];
        getrandom::fill(&mut secret)?;
        Ok(ResetSecret(secret))
    }
}

impl fmt::Debug for ResetSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResetSecret(..)")
    }
}

/// The key of the tokens.
pub(super) struct ResetKey([u8; HASH_BYTES]);

impl ResetKey {
    /// The key that belongs to a secret.
    pub(super) fn of(secret: &ResetSecret) -> Arc<ResetKey> {
        Arc::new(ResetKey(blake3::derive_key(PURPOSE, &secret.0)))
    }

    fn hash(&self, data: &[u8]) -> [u8; HASH_BYTES] {
        *blake3::keyed_hash(&self.0, data).as_bytes()
    }
}

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature_out: &mut [u8]) {
        signature_out.copy_from_slice(&self.hash(data)[..signature_out.len()]);
    }

    fn signature_len(&self) -> usize {
        HASH_BYTES
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        // Comparing hashes takes the same time whatever they are.
        let signature: [u8; HASH_BYTES] = signature.try_into().map_err(|_| CryptoError)?;
        if blake3::Hash::from(self.hash(data)) == blake3::Hash::from(signature) {
            Ok(())
        } else {
            Err(CryptoError)
        }
    }
}

/// Ids that are nothing but random. Those of quinn's default are checked against a key of the process, so that a
/// packet for a connection of the process before is dropped without a word.
#[derive(Debug)]
pub(super) struct RandomIds;

impl ConnectionIdGenerator for RandomIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id = [0; CONNECTION_ID_BYTES];
        // Two connections with one id are told apart by nobody, so quinn draws again where it knows the id already; a
        // system without random numbers has failed to set up TLS long before.
        let _ = getrandom::fill(&mut id);
        ConnectionId::new(&id)
    }

    fn cid_len(&self) -> usize {
        CONNECTION_ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<std::time::Duration> {
        None
    }
}
