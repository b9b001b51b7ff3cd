//! Frames: how a byte stream is cut into messages.
//!
//! ```text
//! ┌────────────────────┬─────────────────────────┐
//! │ payload length     │ payload                 │  repeated, nothing between two frames
//! │ u32, little-endian │ that many bytes         │
//! └────────────────────┴─────────────────────────┘
//! ```
//!
//! A stream delivers bytes in whatever pieces the network made of them. [`FrameReader`] is fed these pieces and yields
//! whole payloads; [`append`] writes them. A claimed length is checked against a maximum before a byte is allocated for
//! it, and memory grows only with bytes that have really arrived: a length prefix alone costs the receiver nothing.

use bytes::{Buf, Bytes, BytesMut};
use thiserror::Error;

use crate::protocol::codec::DECODED_BYTES_MAX;

/// The length prefix of a frame, in bytes.
pub const HEADER_BYTES: usize = 4;

/// The longest request of a client: a value of 1 MiB, its key, its context, and room.
pub const CLIENT_REQUEST_BYTES_MAX: usize = 2 << 20;

/// The longest frame between two nodes: what the codec agrees to decode, less room for an envelope around it.
pub const PEER_FRAME_BYTES_MAX: usize = DECODED_BYTES_MAX as usize - ENVELOPE_ROOM_BYTES;

/// The longest answer to a client: all siblings of a record, which may have grown to three times its limit by merges.
pub const RESPONSE_BYTES_MAX: usize = DECODED_BYTES_MAX as usize - ENVELOPE_ROOM_BYTES;

const ENVELOPE_ROOM_BYTES: usize = 64 << 10;

/// A partial payload reserves at most this much on the word of its length prefix alone.
const TRUSTED_BYTES: usize = 64 << 10;

/// A frame claims to be longer than the reader allows. The stream cannot be read any further: where the next frame
/// begins is only known by reading this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a frame of {bytes} bytes arrived, at most {max} are allowed here")]
pub struct FrameTooLong {
    /// The claimed length of the payload, in bytes.
    pub bytes: usize,
    /// The maximum of this reader, in bytes.
    pub max: usize,
}

/// Appends a frame to `out`; its payload is what `encode` appends. Returns the length of the payload in bytes.
///
/// Panics if the payload is longer than 4 GiB or if `encode` shortens the buffer: both are mistakes of the caller.
pub fn append(out: &mut Vec<u8>, encode: impl FnOnce(&mut Vec<u8>)) -> usize {
    let header = out.len();
    out.extend_from_slice(&[0; HEADER_BYTES]);
    let start = out.len();
    encode(out);
    assert!(out.len() >= start, "an encoder appends, it does not shorten the buffer");
    let payload_bytes = out.len() - start;
    #[expect(clippy::expect_used, reason = "every caller's limit is far below 4 GiB, see above")]
    let length = u32::try_from(payload_bytes).expect("a frame is shorter than 4 GiB");
    out[header..start].copy_from_slice(&length.to_le_bytes());
    payload_bytes
}

/// Cuts a stream into frames again. Fed with chunks of any size, it yields payloads in order.
///
/// A payload that lies within one chunk is a slice of that chunk and is not copied; it keeps the whole chunk alive, so
/// whoever keeps a payload for long copies it. A payload that spans chunks is assembled in a buffer of its own.
#[derive(Debug)]
pub struct FrameReader {
    payload_bytes_max: usize,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Some bytes of a length prefix have arrived, `filled` of them.
    Header { bytes: [u8; HEADER_BYTES], filled: usize },
    /// The prefix said `length`; less than that has arrived.
    Payload { length: usize, arrived: BytesMut },
    /// An over-long frame was announced. Nothing after it can be understood.
    Lost(FrameTooLong),
}

impl State {
    const START: State = State::Header { bytes: [0; HEADER_BYTES], filled: 0 };
}

impl FrameReader {
    /// A reader at the beginning of a stream that refuses payloads longer than `payload_bytes_max` bytes.
    #[must_use]
    pub fn new(payload_bytes_max: usize) -> FrameReader {
        FrameReader { payload_bytes_max, state: State::START }
    }

    /// How long a payload may be, in bytes.
    #[must_use]
    pub fn payload_bytes_max(&self) -> usize {
        self.payload_bytes_max
    }

    /// Takes the next bytes of the stream and appends every payload that is now complete to `out`.
    ///
    /// After an error the reader stays in error; payloads that were complete before it have been appended.
    pub fn feed(&mut self, mut chunk: Bytes, out: &mut Vec<Bytes>) -> Result<(), FrameTooLong> {
        loop {
            match &mut self.state {
                State::Lost(error) => return Err(*error),
                State::Header { bytes, filled } => {
                    let n = chunk.len().min(HEADER_BYTES - *filled);
                    bytes[*filled..*filled + n].copy_from_slice(&chunk[..n]);
                    chunk.advance(n);
                    *filled += n;
                    if *filled < HEADER_BYTES {
                        return Ok(());
                    }
                    let length = u32::from_le_bytes(*bytes) as usize;
                    if length > self.payload_bytes_max {
                        self.state = State::Lost(FrameTooLong { bytes: length, max: self.payload_bytes_max });
                    } else if length <= chunk.len() {
                        out.push(chunk.split_to(length));
                        self.state = State::START;
                    } else {
                        let arrived = BytesMut::with_capacity(length.min(TRUSTED_BYTES));
                        self.state = State::Payload { length, arrived };
                    }
                }
                State::Payload { length, arrived } => {
                    let n = chunk.len().min(*length - arrived.len());
                    arrived.extend_from_slice(&chunk[..n]);
                    chunk.advance(n);
                    if arrived.len() < *length {
                        return Ok(());
                    }
                    out.push(std::mem::take(arrived).freeze());
                    self.state = State::START;
                }
            }
        }
    }

    /// Whether the stream stands between two frames. A stream that ends elsewhere was cut off.
    #[must_use]
    pub fn is_between_frames(&self) -> bool {
        matches!(self.state, State::Header { filled: 0, .. })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(payloads: &[Vec<u8>]) -> Vec<u8> {
        let mut stream = Vec::new();
        for payload in payloads {
            assert_eq!(append(&mut stream, |out| out.extend_from_slice(payload)), payload.len());
        }
        stream
    }

    #[test]
    fn the_bytes_of_a_frame() {
        assert_eq!(written(&[b"ab".to_vec(), vec![]]), [2, 0, 0, 0, b'a', b'b', 0, 0, 0, 0]);
    }

    #[test]
    fn a_payload_within_a_chunk_is_not_copied() {
        let chunk = Bytes::from(written(&[b"one".to_vec(), b"two".to_vec()]));
        let mut out = Vec::new();
        FrameReader::new(10).feed(chunk.clone(), &mut out).unwrap();
        assert_eq!(out[1].as_ptr(), chunk[chunk.len() - 3..].as_ptr());
    }

    #[test]
    fn an_over_long_frame_is_an_error_that_stays_and_earlier_frames_are_kept() {
        let mut stream = written(&[b"fine".to_vec()]);
        stream.extend_from_slice(&u32::MAX.to_le_bytes());
        let mut reader = FrameReader::new(4);
        let mut out = Vec::new();
        let error = FrameTooLong { bytes: u32::MAX as usize, max: 4 };
        assert_eq!(reader.feed(Bytes::from(stream), &mut out), Err(error));
        assert_eq!(out, [Bytes::from_static(b"fine")]);
        assert_eq!(reader.feed(Bytes::from(written(&[b"x".to_vec()])), &mut out), Err(error));
        assert_eq!(out.len(), 1);
    }

    #[test]
    fn a_claimed_length_alone_reserves_little() {
        let mut reader = FrameReader::new(PEER_FRAME_BYTES_MAX);
        let header = (PEER_FRAME_BYTES_MAX as u32).to_le_bytes();
        reader.feed(Bytes::copy_from_slice(&header), &mut Vec::new()).unwrap();
        let State::Payload { arrived, .. } = &reader.state else { panic!("a payload is expected") };
        assert!(arrived.capacity() <= 2 * TRUSTED_BYTES);
        assert!(!reader.is_between_frames());
    }

    proptest! {
        #[test]
        fn any_chunking_yields_the_same_payloads(
            payloads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..20),
            cuts in proptest::collection::vec(0_usize..6_000, 0..40),
        ) {
            let stream = Bytes::from(written(&payloads));
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(stream.len())).collect();
            cuts.push(0);
            cuts.push(stream.len());
            cuts.sort_unstable();
            let mut reader = FrameReader::new(300);
            let mut out = Vec::new();
            for pair in cuts.windows(2) {
                reader.feed(stream.slice(pair[0]..pair[1]), &mut out).unwrap();
            }
            prop_assert_eq!(out, payloads.into_iter().map(Bytes::from).collect::<Vec<_>>());
            prop_assert!(reader.is_between_frames());
        }
    }
}
