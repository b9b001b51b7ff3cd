//! Bytes in and out: the one file that names bincode.
//!
//! Everything that Starling writes to a socket or a disk goes through [`encode`] and comes back through [`decode`]:
//! fixed-width little-endian integers, lengths as 64 bits, decoded only from slices whose length was checked before,
//! with every claimed length bounded by what is really there and trailing bytes refused. Bulk bytes use `serde_bytes`
//! or [`bytes::Bytes`], which copy as a block; a plain `Vec<u8>` under serde costs ten times as much.

use bincode::Options;
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

/// The bytes are not what they should be. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the bytes do not decode: {0}")]
pub struct DecodeError(String);

/// No frame, record or log entry may be larger than this when decoded: three records of 4 MiB and room for names.
pub const DECODED_BYTES_MAX: u64 = 16 << 20;

fn options() -> impl Options {
    bincode::DefaultOptions::new().with_fixint_encoding().reject_trailing_bytes()
}

/// Appends the encoding of `value` to `out`.
///
/// Panics if the encoding is larger than [`DECODED_BYTES_MAX`]: whoever builds such a value has forgotten a limit, and
/// writing what can never be read again would be worse.
pub fn encode_into<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) {
    let begin = out.len();
    // With the limit among its options bincode would go through the value once more before, to count its bytes.
    #[expect(clippy::expect_used, reason = "serializing into memory without a limit does not fail")]
    options().serialize_into(&mut *out, value).expect("there is room for the value");
    assert!((out.len() - begin) as u64 <= DECODED_BYTES_MAX, "the value is within the limits");
}

/// The encoding of `value`. Panics as [`encode_into`] does.
#[must_use]
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    let mut out = Vec::new();
    encode_into(value, &mut out);
    out
}

/// Decodes a value that takes up all of `bytes`.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    options().with_limit(DECODED_BYTES_MAX).deserialize(bytes).map_err(|error| DecodeError(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_fixed_width_and_little_endian() {
        assert_eq!(encode(&(1_u32, "ab")), [1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, b'a', b'b']);
    }

    #[test]
    fn trailing_bytes_are_refused() {
        assert!(decode::<u8>(&[1]).is_ok());
        assert!(decode::<u8>(&[1, 2]).is_err());
    }

    #[test]
    #[should_panic(expected = "within the limits")]
    fn what_could_never_be_read_again_is_not_written() {
        let _ = encode(&bytes::Bytes::from(vec![0; DECODED_BYTES_MAX as usize]));
    }

    #[test]
    fn a_huge_claimed_length_is_an_error_and_allocates_nothing() {
        let mut bytes = (1_u64 << 40).to_le_bytes().to_vec();
        bytes.push(7);
        assert!(decode::<bytes::Bytes>(&bytes).is_err());
        assert!(decode::<Vec<u64>>(&bytes).is_err());
    }
}
