//! What a client has seen of a key.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::protocol::causality::ContextToken;
use crate::protocol::codec;

/// What this client has seen of one key, to be handed back with the next write of that key: the write replaces what was
/// seen and nothing else (Version Vector).
///
/// A context remembers its key, and the verbs that take a context take the key from it: it cannot be used for another
/// one by mistake. A key that was never written has a context too, the one that has seen nothing.
///
/// It is the reading that makes a context true. Whoever writes with a context says "I have seen those values and this
/// one takes their place": pass on contexts together with the values, never alone.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Context {
    key: Bytes,
    token: Option<ContextToken>,
}

/// The bytes are no stored context. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("these bytes are no context that `Context::to_bytes` made: {0}")]
pub struct BadContext(codec::DecodeError);

impl Context {
    /// Binds the token of a node to the key that it was given out for; no token means that nothing was seen.
    ///
    /// For programs that keep keys and tokens apart, like the command line. If the token is of another key, the node
    /// refuses the write with `context_of_another_key` and changes nothing.
    #[must_use]
    pub fn from_token(key: impl AsRef<[u8]>, token: Option<ContextToken>) -> Context {
        Context { key: Bytes::copy_from_slice(key.as_ref()), token }
    }

    pub(super) fn new(key: Bytes, token: Option<ContextToken>) -> Context {
        Context { key, token }
    }

    /// The key that it belongs to.
    #[must_use]
    pub fn key(&self) -> &Bytes {
        &self.key
    }

    /// The opaque token of the nodes; `None` if nothing was seen.
    #[must_use]
    pub fn token(&self) -> Option<&ContextToken> {
        self.token.as_ref()
    }

    /// Whether no node knew anything of the key: neither a value nor a deletion.
    #[must_use]
    pub fn has_seen_nothing(&self) -> bool {
        self.token.is_none()
    }

    /// Bytes to store it by, key included.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// The context that [`to_bytes`](Context::to_bytes) made these bytes of.
    ///
    /// Damage within the token itself is found by the node that the next write goes to, which refuses it and changes
    /// nothing.
    pub fn from_bytes(bytes: &[u8]) -> Result<Context, BadContext> {
        codec::decode(bytes).map_err(BadContext)
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Context of {:?}: ", self.key)?;
        match &self.token {
            Some(token) => token.fmt(f),
            None => f.write_str("nothing seen"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_context_comes_back_with_its_key() {
        let token = ContextToken::from(Bytes::from_static(b"opaque"));
        for context in [Context::from_token("k", Some(token)), Context::from_token(b"", None)] {
            assert_eq!(Context::from_bytes(&context.to_bytes()), Ok(context));
        }
    }

    #[test]
    fn bytes_that_are_no_context_are_refused() {
        let bytes =
            Context::from_token("k", Some(ContextToken::from(Bytes::from_static(b"opaque")))).to_bytes();
        for end in 0..bytes.len() {
            assert!(Context::from_bytes(&bytes[..end]).is_err(), "{end}");
        }
        assert!(Context::from_bytes(&[bytes.as_slice(), b"x"].concat()).is_err());
    }
}
