//! The context in the hands of a client: sealed, so that it can neither be forged nor taken from one key to another.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use xxhash_rust::xxh3::xxh3_64;

use super::VersionVector;
use crate::protocol::codec;
#[cfg(test)]
use crate::protocol::planted::{self, Planted};
use crate::protocol::rng::Rng;

/// What the nodes of a cluster seal contexts with. Drawn at founding, given only to holders of a node certificate.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterSecret {
    /// Tells secrets apart when one replaces another.
    pub key_id: u8,
    key: [u8; 32],
}

impl ClusterSecret {
    /// Draws a new secret.
    #[must_use]
    pub fn draw(rng: &mut Rng) -> ClusterSecret {
        let mut key = [0; 32];
        for chunk in key.chunks_exact_mut(8) {
            chunk.copy_from_slice(&rng.bits().to_le_bytes());
        }
        ClusterSecret { key_id: 1, key }
    }
}

impl fmt::Debug for ClusterSecret {
    /// Never shows the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClusterSecret(key {})", self.key_id)
    }
}

/// A context as clients hold it: opaque bytes that they hand back with their next write.
///
/// Layout, version 1: version (1 byte), key id of the secret (1), xxh3-64 of the key (8, little-endian), the version
/// vector in the codec's form, and the first 16 bytes of a BLAKE3 keyed hash of all of that.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ContextToken(Bytes);

/// Why a context was refused. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum ContextError {
    /// It was given out for another key.
    #[error("the context belongs to another key; use the context that reading this key returned")]
    AnotherKey,
    /// It is not what a node of this cluster gave out.
    #[error("the context is damaged, forged or from another cluster; read the key again for a fresh one")]
    Damaged,
}

const VERSION: u8 = 1;
const HEADER: usize = 10;
const TAG: usize = 16;

impl ContextToken {
    /// Seals a version vector for `key`.
    #[must_use]
    pub fn seal(context: &VersionVector, key: &[u8], secret: &ClusterSecret) -> ContextToken {
        let mut bytes = Vec::with_capacity(HEADER + 8 + 16 * context.len() + TAG);
        bytes.push(VERSION);
        bytes.push(secret.key_id);
        bytes.extend_from_slice(&xxh3_64(key).to_le_bytes());
        codec::encode_into(context, &mut bytes);
        let tag = tag(&bytes, secret);
        bytes.extend_from_slice(&tag);
        ContextToken(bytes.into())
    }

    /// Checks the seal and gives back what the client had seen.
    pub fn open(&self, key: &[u8], secret: &ClusterSecret) -> Result<VersionVector, ContextError> {
        let bytes = &self.0;
        if bytes.len() < HEADER + TAG || bytes[0] != VERSION || bytes[1] != secret.key_id {
            return Err(ContextError::Damaged);
        }
        let (body, seal) = bytes.split_at(bytes.len() - TAG);
        // Every byte is looked at, so that the time it takes does not tell how far a guess was right.
        let difference = tag(body, secret).iter().zip(seal).fold(0, |sum, (a, b)| sum | (a ^ b));
        #[cfg(test)]
        let difference = if planted::is(Planted::ForgedContext) { 0 } else { difference };
        if difference != 0 {
            return Err(ContextError::Damaged);
        }
        let is_of_key = body[2..HEADER] == xxh3_64(key).to_le_bytes();
        #[cfg(test)]
        let is_of_key = is_of_key || planted::is(Planted::ContextOfAnotherKey);
        if !is_of_key {
            return Err(ContextError::AnotherKey);
        }
        codec::decode(&body[HEADER..]).map_err(|_| ContextError::Damaged)
    }

    /// The opaque bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }
}

impl From<Bytes> for ContextToken {
    fn from(bytes: Bytes) -> ContextToken {
        ContextToken(bytes)
    }
}

impl fmt::Debug for ContextToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ContextToken({} bytes)", self.0.len())
    }
}

fn tag(body: &[u8], secret: &ClusterSecret) -> [u8; TAG] {
    let mut tag = [0; TAG];
    tag.copy_from_slice(&blake3::keyed_hash(&secret.key, body).as_bytes()[..TAG]);
    tag
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::causality::Dot;
    use crate::protocol::id::Actor;
    use crate::protocol::time::Timestamp;

    fn context() -> VersionVector {
        [Dot { actor: Actor(1), at: Timestamp(5) }, Dot { actor: Actor(2), at: Timestamp(9) }]
            .into_iter()
            .collect()
    }

    #[test]
    fn what_was_sealed_opens_for_its_key_only() {
        let secret = ClusterSecret::draw(&mut Rng::from_number(1));
        let token = ContextToken::seal(&context(), b"k1", &secret);
        assert_eq!(token.open(b"k1", &secret), Ok(context()));
        assert_eq!(token.open(b"k2", &secret), Err(ContextError::AnotherKey));
        let other = ClusterSecret::draw(&mut Rng::from_number(2));
        assert_eq!(token.open(b"k1", &other), Err(ContextError::Damaged));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let secret = ClusterSecret::draw(&mut Rng::from_number(1));
        let token = ContextToken::seal(&context(), b"k1", &secret);
        for at in 0..token.0.len() {
            for bit in 0..8 {
                let mut bytes = token.0.to_vec();
                bytes[at] ^= 1 << bit;
                assert!(ContextToken(bytes.into()).open(b"k1", &secret).is_err());
            }
            assert!(ContextToken(token.0.slice(..at)).open(b"k1", &secret).is_err());
        }
    }
}
