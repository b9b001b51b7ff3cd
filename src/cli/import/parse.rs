//! The two forms of a file to import.
//!
//! * Tab-separated: `key`, a tab, `value`; one record a line. The first tab ends the key, so values may hold tabs. A
//!   first line that reads `key<TAB>value` is a heading.
//! * JSON lines: `{"key":K,"value":V}`. Other fields are ignored: files rarely come with two fields alone.

use bytes::Bytes;
use serde::Deserialize;

use crate::cli::text::Text;

/// One record of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pair {
    /// The key.
    pub(crate) key: Bytes,
    /// The value.
    pub(crate) value: Bytes,
}

/// How the lines of a file are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// A key, a tab, a value.
    Tsv,
    /// One JSON object a line.
    Jsonl,
}

impl Format {
    /// Tells by a file's name: `.json`, `.jsonl` and `.ndjson` hold JSON lines.
    pub(crate) fn of_name(name: &str) -> Option<Format> {
        match name.rsplit_once('.')?.1 {
            "json" | "jsonl" | "ndjson" => Some(Format::Jsonl),
            "tsv" | "txt" | "tab" => Some(Format::Tsv),
            _ => None,
        }
    }

    /// Tells by the first line.
    pub(crate) fn of_line(line: &[u8]) -> Format {
        if line.trim_ascii_start().starts_with(b"{") { Format::Jsonl } else { Format::Tsv }
    }
}

/// Reads a line without its line feed. `Ok(None)` for lines that hold no record: empty ones and a heading.
pub(crate) fn parse(format: Format, line: &[u8], number: u64, base64: bool) -> Result<Option<Pair>, String> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.trim_ascii().is_empty() {
        return Ok(None);
    }
    let (key, value) = match format {
        Format::Tsv => {
            if number == 1 && line == b"key\tvalue" {
                return Ok(None);
            }
            let Some(tab) = line.iter().position(|byte| *byte == b'\t') else {
                return Err("there is no tab between key and value".to_owned());
            };
            let (key, value) = (&line[..tab], &line[tab + 1..]);
            if base64 {
                let decoded = |bytes: &[u8]| {
                    let base64 = String::from_utf8_lossy(bytes).into_owned();
                    Text::Encoded { base64 }.into_bytes()
                };
                (decoded(key)?, decoded(value)?)
            } else {
                (Bytes::copy_from_slice(key), Bytes::copy_from_slice(value))
            }
        }
        Format::Jsonl => {
            let object: Object = serde_json::from_slice(line).map_err(|error| error.to_string())?;
            (object.key.into_bytes()?, object.value.into_bytes()?)
        }
    };
    if key.is_empty() {
        return Err("the key is empty".to_owned());
    }
    Ok(Some(Pair { key, value }))
}

#[derive(Deserialize)]
struct Object {
    key: Text,
    value: Text,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(key: &'static str, value: &'static str) -> Option<Pair> {
        Some(Pair { key: key.into(), value: value.into() })
    }

    #[test]
    fn a_tab_parts_key_and_value() {
        let tsv = |line: &[u8], number| parse(Format::Tsv, line, number, false);
        assert_eq!(tsv(b"k\tv\tw\r", 2), Ok(pair("k", "v\tw")));
        assert_eq!(tsv(b"k\t", 2), Ok(pair("k", "")));
        assert_eq!(tsv(b"key\tvalue", 1), Ok(None));
        assert_eq!(tsv(b"key\tvalue", 2), Ok(pair("key", "value")));
        assert_eq!(tsv(b" \r", 5), Ok(None));
        assert!(tsv(b"no tab", 2).unwrap_err().contains("no tab"));
        assert!(tsv(b"\tv", 2).unwrap_err().contains("empty"));
        let bytes = tsv(&[0xff, b'\t', 0xfe], 2).unwrap().unwrap();
        assert_eq!((bytes.key.as_ref(), bytes.value.as_ref()), (&[0xff][..], &[0xfe][..]));
        assert_eq!(parse(Format::Tsv, b"aw==\tdg==", 2, true), Ok(pair("k", "v")));
    }

    #[test]
    fn an_object_a_line() {
        let json = |line: &str| parse(Format::Jsonl, line.as_bytes(), 1, false);
        assert_eq!(json(r#"{"key":"k","value":"v","size":3}"#), Ok(pair("k", "v")));
        assert_eq!(json(r#"{"key":{"base64":"aw=="},"value":"a\nb"}"#), Ok(pair("k", "a\nb")));
        assert_eq!(json(""), Ok(None));
        assert!(json(r#"{"key":"k"}"#).unwrap_err().contains("missing field `value`"));
        assert!(json(r#"{"key":"k","value":7}"#).is_err());
        assert!(json(r#"{"key":"","value":"v"}"#).unwrap_err().contains("empty"));
        assert!(json(r#"{"key":"k","#).is_err());
    }

    #[test]
    fn the_format_shows_in_the_name_or_in_the_first_line() {
        assert_eq!(Format::of_name("a/b.jsonl"), Some(Format::Jsonl));
        assert_eq!(Format::of_name("a/b.tsv"), Some(Format::Tsv));
        assert_eq!(Format::of_name("packages"), None);
        assert_eq!(Format::of_line(b" {\"key\""), Format::Jsonl);
        assert_eq!(Format::of_line(b"key\tvalue"), Format::Tsv);
    }
}
