//! One operation on a key, as words or as a JSON object.
//!
//! ```text
//! put KEY VALUE [context=C] [w=LEVEL] [sloppy] [via=NAME] [deadline=2s]
//! get KEY [r=LEVEL] [atomic] [latest] [via=NAME] [deadline=2s]
//! delete KEY [context=C] [w=LEVEL] [sloppy] [via=NAME] [deadline=2s]
//! explain KEY [via=NAME] [deadline=2s]
//!
//! {"op":"put","key":K,"value":V,"context":C,"w":"majority"}
//! ```
//!
//! Words are quoted as in a shell. `--w=one` and `--w one` are understood like `w=one`.

use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;

use super::text::{self, Text};
use crate::protocol::causality::ContextToken;
use crate::protocol::ring::entry::Name;
use crate::protocol::wire::client::Level;

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Operation {
    /// The verb.
    pub(crate) action: Action,
    /// The key.
    pub(crate) key: Bytes,
    /// How.
    pub(crate) options: Options,
}

/// The verb.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Store this value.
    Put(Bytes),
    /// Read.
    Get,
    /// Delete.
    Delete,
    /// Show what each owner holds.
    Explain,
}

/// How an operation is to be done. Each verb reads the ones that concern it; the parsers refuse the others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// Owners that must reply to a get.
    pub(crate) r: Level,
    /// Owners that must have a write on disk.
    pub(crate) w: Level,
    /// Whether a get's answer is at a majority before it is given.
    pub(crate) atomic: bool,
    /// Whether a get shows only the value with the newest timestamp.
    pub(crate) latest: bool,
    /// Whether hints may count.
    pub(crate) sloppy: bool,
    /// What the write replaces.
    pub(crate) context: Option<ContextToken>,
    /// The node that runs it.
    pub(crate) via: Option<Name>,
    /// How long it may take.
    pub(crate) deadline: Option<Duration>,
}

impl Action {
    /// The verb's name, as in `"op"`.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Action::Put(_) => "put",
            Action::Get => "get",
            Action::Delete => "delete",
            Action::Explain => "explain",
        }
    }

    /// The options that concern it.
    fn takes(&self) -> &'static [&'static str] {
        match self {
            Action::Put(_) | Action::Delete => &["context", "w", "sloppy", "via", "deadline"],
            Action::Get => &["r", "atomic", "latest", "via", "deadline"],
            Action::Explain => &["via", "deadline"],
        }
    }
}

/// Whether `word` begins an operation.
pub(crate) fn is_verb(word: &str) -> bool {
    matches!(word, "put" | "get" | "delete" | "explain")
}

impl Operation {
    /// Reads a line: a JSON object if it begins with `{`, words otherwise. With `base64`, words that stand for keys and
    /// values are base64.
    pub(crate) fn parse_line(line: &str, base64: bool) -> Result<Operation, String> {
        if line.trim_start().starts_with('{') {
            return Operation::parse_json(line);
        }
        let words = shell_words::split(line).map_err(|_| "a quote is not closed".to_owned())?;
        Operation::parse_words(&words, base64)
    }

    /// Reads words that were split already.
    pub(crate) fn parse_words(words: &[String], base64: bool) -> Result<Operation, String> {
        let Some((verb, rest)) = words.split_first() else { return Err("there is nothing to do".to_owned()) };
        let usage = match verb.as_str() {
            "put" => {
                "put KEY VALUE [context=C] [w=one|majority|all|NUMBER] [sloppy] [via=NAME] [deadline=2s]"
            }
            "get" => "get KEY [r=one|majority|all|NUMBER] [atomic] [latest] [via=NAME] [deadline=2s]",
            "delete" => {
                "delete KEY [context=C] [w=one|majority|all|NUMBER] [sloppy] [via=NAME] [deadline=2s]"
            }
            "explain" => "explain KEY [via=NAME] [deadline=2s]",
            other => {
                return Err(format!("{other:?} is no operation; there are put, get, delete and explain"));
            }
        };
        let wrong = || format!("usage: {usage}");
        let (key, rest) = rest.split_first().ok_or_else(wrong)?;
        let key = text::bytes_of_word(key, base64)?;
        let (action, rest) = match verb.as_str() {
            "put" => {
                let (value, rest) = rest.split_first().ok_or_else(wrong)?;
                (Action::Put(text::bytes_of_word(value, base64)?), rest)
            }
            "get" => (Action::Get, rest),
            "delete" => (Action::Delete, rest),
            _ => (Action::Explain, rest),
        };
        let mut options = Options::default();
        let mut rest = rest.iter();
        while let Some(word) = rest.next() {
            let bare = word.strip_prefix("--");
            let (name, mut value) = match bare.unwrap_or(word).split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (bare.unwrap_or(word), None),
            };
            if bare.is_some() && value.is_none() && !is_flag(name) {
                value = rest.next().map(String::as_str);
            }
            if !action.takes().contains(&name) {
                return Err(format!("{} does not understand {word:?}; {}", action.name(), wrong()));
            }
            options.set(name, value)?;
        }
        Ok(Operation { action, key, options })
    }

    /// Reads an object.
    pub(crate) fn parse_json(line: &str) -> Result<Operation, String> {
        let object: Object = serde_json::from_str(line).map_err(|error| error.to_string())?;
        let key = object.key.into_bytes()?;
        let action = match (object.op.as_str(), object.value) {
            ("put", Some(value)) => Action::Put(value.into_bytes()?),
            ("put", None) => return Err("a put needs a \"value\"".to_owned()),
            ("get" | "delete" | "explain", Some(_)) => {
                return Err(format!("a {} takes no \"value\"", object.op));
            }
            ("get", None) => Action::Get,
            ("delete", None) => Action::Delete,
            ("explain", None) => Action::Explain,
            (other, _) => {
                return Err(format!("{other:?} is no operation; there are put, get, delete and explain"));
            }
        };
        let mut options = Options::default();
        for (name, value) in object.options {
            if !action.takes().contains(&name.as_str()) {
                let known = action.takes().join(", ");
                return Err(format!(
                    "{} does not understand {name:?}; its options are {known}",
                    action.name()
                ));
            }
            match value {
                Value::Null | Value::Bool(false) => {}
                Value::Bool(true) => options.set(&name, None)?,
                Value::String(text) => options.set(&name, Some(&text))?,
                Value::Number(number) => options.set(&name, Some(&number.to_string()))?,
                other => return Err(format!("{name:?} cannot be {other}")),
            }
        }
        Ok(Operation { action, key, options })
    }
}

/// An operation as an object. What is not named here is an option.
#[derive(Deserialize)]
struct Object {
    op: String,
    key: Text,
    value: Option<Text>,
    #[serde(flatten)]
    options: std::collections::BTreeMap<String, Value>,
}

fn is_flag(name: &str) -> bool {
    matches!(name, "atomic" | "latest" | "sloppy")
}

impl Options {
    fn set(&mut self, name: &str, value: Option<&str>) -> Result<(), String> {
        if is_flag(name) {
            let on = match value {
                None | Some("true") => true,
                Some("false") => false,
                Some(other) => return Err(format!("{name} is true or false, not {other:?}")),
            };
            match name {
                "atomic" => self.atomic = on,
                "latest" => self.latest = on,
                _ => self.sloppy = on,
            }
            return Ok(());
        }
        let value = value.ok_or_else(|| format!("{name} needs a value, as in {name}=..."))?;
        match name {
            "r" => self.r = parse_level(value)?,
            "w" => self.w = parse_level(value)?,
            "context" => self.context = Some(text::parse_context(value)?),
            "via" => self.via = Some(Name::new(value)?),
            "deadline" => self.deadline = Some(parse_duration(value)?),
            other => return Err(format!("there is no option {other:?}")),
        }
        Ok(())
    }
}

/// Reads how many owners: `one`, `majority`, `all` or a number from 1 to 255.
pub(crate) fn parse_level(text: &str) -> Result<Level, String> {
    match text {
        "one" => Ok(Level::One),
        "majority" => Ok(Level::Majority),
        "all" => Ok(Level::All),
        _ => match text.parse() {
            Ok(0) | Err(_) => {
                Err(format!("{text:?} is no number of owners: one, majority, all, or a number from 1"))
            }
            Ok(count) => Ok(Level::Count(count)),
        },
    }
}

/// Reads a span of time: `250ms`, `2s`, `1.5s`, `1m`; a bare number means milliseconds.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no span of time: write 250ms, 2s or 1m");
    let unit_at = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let millis = match unit {
        "" | "ms" => number,
        "s" => number * 1e3,
        "m" | "min" => number * 60e3,
        _ => return Err(wrong()),
    };
    // A year is more than anything here can mean.
    if !(0.0..=3.2e10).contains(&millis) {
        return Err(wrong());
    }
    Ok(Duration::from_micros((millis * 1e3).round() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(line: &str) -> Result<Operation, String> {
        Operation::parse_line(line, false)
    }

    #[test]
    fn words_are_quoted_as_in_a_shell() {
        let put = line(r#"put 'my key' "a \"b\"" w=one sloppy"#).unwrap();
        assert_eq!((put.key.as_ref(), put.action), (&b"my key"[..], Action::Put(Bytes::from(r#"a "b""#))));
        assert_eq!(put.options, Options { w: Level::One, sloppy: true, ..Options::default() });
        assert_eq!(line("put k ''").unwrap().action, Action::Put(Bytes::new()));
        assert!(line("put k 'open").unwrap_err().contains("quote"));
    }

    #[test]
    fn options_come_in_three_spellings() {
        for words in ["get k r=2 atomic", "get k --r=2 --atomic", "get k --r 2 --atomic"] {
            let get = line(words).unwrap();
            assert_eq!(
                get.options,
                Options { r: Level::Count(2), atomic: true, ..Options::default() },
                "{words}"
            );
        }
    }

    #[test]
    fn a_value_that_looks_like_an_option_is_a_value() {
        assert_eq!(line("put k w=one").unwrap().action, Action::Put(Bytes::from("w=one")));
        assert_eq!(line("put --k {}").unwrap().key, "--k");
    }

    #[test]
    fn objects_mean_the_same_as_words() {
        let word = line("put k v w=all context=-_8B via=n2 deadline=1500").unwrap();
        let object =
            r#"{"op":"put","key":"k","value":"v","w":"all","context":"-_8B","via":"n2","deadline":1500}"#;
        assert_eq!(line(object), Ok(word));
        let get =
            line(r#" {"op":"get","key":{"base64":"/w=="},"r":1,"latest":true,"atomic":false}"#).unwrap();
        assert_eq!(get.key.as_ref(), [0xff]);
        assert_eq!(get.options, Options { r: Level::Count(1), latest: true, ..Options::default() });
        assert_eq!(line(r#"{"op":"delete","key":"k","context":null}"#), line("delete k"));
    }

    #[test]
    fn what_cannot_be_meant_is_refused_and_says_why() {
        for (text, reason) in [
            ("", "nothing to do"),
            ("fetch k", "no operation"),
            ("put k", "usage: put KEY VALUE"),
            ("get", "usage: get KEY"),
            ("get k v", "does not understand \"v\""),
            ("get k w=one", "does not understand \"w=one\""),
            ("put k v w=most", "no number of owners"),
            ("put k v w=0", "no number of owners"),
            ("put k v w", "needs a value"),
            ("get k --r", "needs a value"),
            ("get k deadline=soon", "no span of time"),
            ("get k atomic=perhaps", "true or false"),
            ("delete k context=%", "context is damaged"),
            ("get k via=a/b", "no name"),
            (r#"{"op":"get"}"#, "missing field `key`"),
            (r#"{"op":"put","key":"k"}"#, "needs a \"value\""),
            (r#"{"op":"get","key":"k","value":"v"}"#, "takes no \"value\""),
            (r#"{"op":"get","key":"k","ttl":1}"#, "\"ttl\""),
            (r#"{"op":"drop","key":"k"}"#, "no operation"),
            (r#"{"op":"get","key":"k","r":[1]}"#, "cannot be"),
            (r#"{"op":"get","key":"k""#, "EOF"),
        ] {
            let error = line(text).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn base64_words_stand_for_any_bytes() {
        let put = Operation::parse_line("put /w== AA== w=one", true).unwrap();
        assert_eq!((put.key.as_ref(), put.action), (&[0xff][..], Action::Put(Bytes::from_static(&[0]))));
    }

    #[test]
    fn spans_of_time() {
        let spans = [("250", 250), ("250ms", 250), ("2s", 2_000), ("1.5s", 1_500), ("1m", 60_000)];
        for (text, millis) in spans {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "s", "-1s", "1h", "1e99s", "999999999999999m"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}
