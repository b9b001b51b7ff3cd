//! Bytes as people and programs see them: text where they are text, base64 where they are not.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::protocol::causality::ContextToken;

/// Bytes in JSON: a string if they are UTF-8, `{"base64":"..."}` otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
pub(crate) enum Text {
    /// UTF-8.
    Plain(String),
    /// Anything.
    Encoded {
        /// RFC 4648, section 4, with padding.
        base64: String,
    },
}

impl Text {
    /// The bytes for output; `always_base64` is the flag `--base64`.
    pub(crate) fn of(bytes: &[u8], always_base64: bool) -> Text {
        match std::str::from_utf8(bytes) {
            Ok(text) if !always_base64 => Text::Plain(text.to_owned()),
            _ => Text::Encoded { base64: STANDARD.encode(bytes) },
        }
    }

    /// The bytes that were meant.
    pub(crate) fn into_bytes(self) -> Result<Bytes, String> {
        match self {
            Text::Plain(text) => Ok(text.into()),
            Text::Encoded { base64 } => decode_base64(&base64),
        }
    }
}

/// Bytes given as a word: as they are, or as base64 under the flag `--base64`.
pub(crate) fn bytes_of_word(word: &str, base64: bool) -> Result<Bytes, String> {
    if base64 { decode_base64(word) } else { Ok(Bytes::copy_from_slice(word.as_bytes())) }
}

fn decode_base64(text: &str) -> Result<Bytes, String> {
    match STANDARD.decode(text).or_else(|_| URL_SAFE_NO_PAD.decode(text)) {
        Ok(bytes) => Ok(bytes.into()),
        Err(error) => Err(format!("{text:?} is not base64: {error}")),
    }
}

/// Bytes on one line of a terminal: text with its control characters escaped, or `base64:...`. Text that needs no
/// quotes gets none.
pub(crate) fn shown(bytes: &[u8], base64: bool) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !base64 => {
            let simple = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '\'' | '\\' | ',' | '|');
            if !text.is_empty() && text.chars().all(simple) { text.to_owned() } else { format!("{text:?}") }
        }
        _ => format!("base64:{}", STANDARD.encode(bytes)),
    }
}

/// A context as users hold it: base64 for URLs and file names (RFC 4648, section 5), without padding.
pub(crate) fn context_text(context: &ContextToken) -> String {
    URL_SAFE_NO_PAD.encode(context.as_bytes())
}

/// The context that [`context_text`] wrote. Whether it is genuine is for the nodes to say.
pub(crate) fn parse_context(text: &str) -> Result<ContextToken, String> {
    match URL_SAFE_NO_PAD.decode(text) {
        Ok(bytes) => Ok(ContextToken::from(Bytes::from(bytes))),
        Err(error) => {
            Err(format!("the context is damaged ({error}): pass it on exactly as a get returned it"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_stays_text_and_the_rest_becomes_base64() {
        let json = |bytes: &[u8], force| serde_json::to_string(&Text::of(bytes, force)).unwrap();
        assert_eq!(json("ä\n".as_bytes(), false), r#""ä\n""#);
        assert_eq!(json(&[0xff, 0], false), r#"{"base64":"/wA="}"#);
        assert_eq!(json(b"k", true), r#"{"base64":"aw=="}"#);
    }

    #[test]
    fn every_byte_string_survives_the_way_out_and_in() {
        for bytes in [&b""[..], b"plain", &[0xff, 0xfe], "\u{0}é".as_bytes()] {
            for force in [false, true] {
                let text = serde_json::to_string(&Text::of(bytes, force)).unwrap();
                let back: Text = serde_json::from_str(&text).unwrap();
                assert_eq!(back.into_bytes().unwrap(), bytes);
            }
        }
    }

    #[test]
    fn what_is_not_base64_is_refused() {
        assert!(bytes_of_word("not base64!", true).unwrap_err().contains("not base64"));
        assert!(serde_json::from_str::<Text>(r#"{"base64":"aw==","x":1}"#).is_err());
        assert!(parse_context("***").unwrap_err().contains("damaged"));
    }

    #[test]
    fn one_line_stays_one_line() {
        assert_eq!(shown(b"v1", false), "v1");
        assert_eq!(shown(b"", false), r#""""#);
        assert_eq!(shown(b"a b\n", false), r#""a b\n""#);
        assert_eq!(shown(&[0xff], false), "base64:/w==");
    }

    #[test]
    fn contexts_survive() {
        let token = ContextToken::from(Bytes::from_static(&[0xfb, 0xff, 1]));
        assert_eq!(context_text(&token), "-_8B");
        assert_eq!(parse_context("-_8B"), Ok(token));
    }
}
