//! Lines from a person or a program: a prompt with history and completion on a terminal, plain lines otherwise.

use std::io::{BufRead, BufReader, IsTerminal, Stdin};

use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::history::DefaultHistory;
use rustyline::{Editor, Helper, Highlighter, Hinter, Validator};

use super::failure::Failure;

/// What was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// A line without its end.
    Text(String),
    /// A line that cannot be one: too long, or no UTF-8.
    Bad(String),
}

/// A line of a program longer than this is skipped: twice the largest value in JSON, in its costliest spelling.
const LINE_BYTES_MAX: usize = 16 << 20;

/// Where lines come from.
pub(crate) enum Lines {
    /// A person.
    Prompt {
        /// Reads and edits.
        editor: Box<Editor<Completion, DefaultHistory>>,
        /// What is shown.
        prompt: &'static str,
    },
    /// A program or a file.
    Plain(BufReader<Stdin>),
}

impl Lines {
    /// Standard input, with a prompt if it is a terminal. First words complete to `verbs`, later ones to `names`.
    pub(crate) fn standard_input(
        prompt: &'static str,
        verbs: &'static [&'static str],
        names: Vec<String>,
    ) -> Result<Lines, Failure> {
        if !std::io::stdin().is_terminal() {
            return Ok(Lines::Plain(BufReader::new(std::io::stdin())));
        }
        let mut editor = Editor::new().map_err(Failure::failed)?;
        editor.set_helper(Some(Completion { verbs, names }));
        Ok(Lines::Prompt { editor: Box::new(editor), prompt })
    }

    /// The next line; `None` at the end.
    pub(crate) fn next(&mut self) -> Option<Line> {
        match self {
            Lines::Prompt { editor, prompt } => match editor.readline(prompt) {
                Ok(line) => {
                    // A line that the history does not take is no reason to refuse it.
                    let _ = editor.add_history_entry(&line);
                    Some(Line::Text(line))
                }
                Err(ReadlineError::Interrupted | ReadlineError::Eof) => None,
                Err(error) => {
                    eprintln!("starling: the terminal failed: {error}");
                    None
                }
            },
            Lines::Plain(reader) => read_plain(reader),
        }
    }
}

fn read_plain(reader: &mut impl BufRead) -> Option<Line> {
    let mut line = Vec::new();
    let mut too_long = false;
    loop {
        let chunk = match reader.fill_buf() {
            Ok(chunk) => chunk,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(_) => return None,
        };
        if chunk.is_empty() {
            if line.is_empty() && !too_long {
                return None;
            }
            break;
        }
        let end = chunk.iter().position(|byte| *byte == b'\n');
        let taken = end.unwrap_or(chunk.len());
        too_long |= line.len() + taken > LINE_BYTES_MAX;
        if !too_long {
            line.extend_from_slice(&chunk[..taken]);
        }
        let consumed = taken + usize::from(end.is_some());
        reader.consume(consumed);
        if end.is_some() {
            break;
        }
    }
    if too_long {
        return Some(Line::Bad(format!("the line is longer than {LINE_BYTES_MAX} bytes")));
    }
    Some(match String::from_utf8(line) {
        Ok(text) => Line::Text(text),
        Err(_) => Line::Bad(
            "the line is not UTF-8; give other bytes as {\"base64\":..} or with --base64".to_owned(),
        ),
    })
}

/// Completes verbs and names of nodes.
#[derive(Helper, Hinter, Highlighter, Validator)]
pub(crate) struct Completion {
    verbs: &'static [&'static str],
    names: Vec<String>,
}

impl Completer for Completion {
    type Candidate = String;

    fn complete(
        &self,
        line: &str,
        position: usize,
        _context: &rustyline::Context<'_>,
    ) -> rustyline::Result<(usize, Vec<String>)> {
        let before = &line[..position];
        let start = before.rfind([' ', ',', '|', '=', '>']).map_or(0, |at| at + 1);
        let word = &before[start..];
        let first = before[..start].trim().is_empty();
        let verbs = self.verbs.iter().map(|verb| (*verb).to_owned()).filter(|_| first);
        let names = self.names.iter().filter(|_| !first).cloned();
        Ok((start, verbs.chain(names).filter(|candidate| candidate.starts_with(word)).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(bytes: &[u8]) -> Vec<Line> {
        let mut reader = BufReader::with_capacity(4, bytes);
        std::iter::from_fn(|| read_plain(&mut reader)).collect()
    }

    #[test]
    fn lines_end_at_line_feeds_and_at_the_end() {
        let text = |text: &str| Line::Text(text.to_owned());
        assert_eq!(all(b"put a 1\n\nget a"), [text("put a 1"), text(""), text("get a")]);
        assert_eq!(all(b""), []);
    }

    #[test]
    fn lines_that_cannot_be_are_skipped_whole() {
        let mut bytes = vec![b'x'; LINE_BYTES_MAX + 1];
        bytes.extend_from_slice(b"\n\xff\nget a\n");
        let lines = all(&bytes);
        assert!(matches!(&lines[0], Line::Bad(why) if why.contains("longer")));
        assert!(matches!(&lines[1], Line::Bad(why) if why.contains("UTF-8")));
        assert_eq!(lines[2], Line::Text("get a".to_owned()));
    }

    #[test]
    fn first_words_complete_to_verbs_and_later_ones_to_nodes() {
        let completion = Completion { verbs: &["pause", "partition"], names: vec!["n1".into(), "n2".into()] };
        let history = DefaultHistory::new();
        let context = rustyline::Context::new(&history);
        let complete = |line: &str| completion.complete(line, line.len(), &context).unwrap();
        assert_eq!(complete("pa"), (0, vec!["pause".to_owned(), "partition".to_owned()]));
        assert_eq!(complete("partition n1,n"), (13, vec!["n1".to_owned(), "n2".to_owned()]));
    }
}
