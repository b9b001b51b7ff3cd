//! `starling import`: loads a file, many records at once, and again as often as one likes.
//!
//! Every record is read first. One that is there already is skipped, anything else is replaced with the context of what
//! was read, so that an import leaves no concurrent values of its own making, and a second import of the same file
//! changes nothing. That makes it resumable by itself; `--resume` only saves the reading of what was done.

use std::fs::File;
use std::io::{BufRead, BufReader, IsTerminal, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use async_std::channel::{Receiver, Sender, bounded, unbounded};
use futures_lite::future::block_on;
use serde::Serialize;

use super::answer::to_line;
use super::connection::Connection;
use super::failure::{Done, Failure};
use super::output;
use super::session::Session;
use crate::client::{Client, ReadError, WriteError};
use crate::protocol::ring::slot::key_hash;
use crate::protocol::wire::client::Code;

mod mark;
mod parse;

use mark::Mark;
use parse::{Format, Pair};

/// Load a file of keys and values
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A file holds a record a line: KEY, a tab, VALUE; or objects with the fields \"key\" and \"value\". A line that is neither \
is reported with its number, the rest is loaded, and the exit code is 1. Of several lines with one key the last one \
counts. `-` reads standard input.

Values that are equal already are skipped, so an import can be repeated after any failure.

Examples:
  starling import packages.jsonl --lab ./lab
  starling import words.tsv --w all --connect 10.0.0.1:7400
  starling import big.jsonl --resume big.progress --lab ./lab")]
pub(crate) struct ImportArgs {
    /// The file
    file: PathBuf,
    /// How to read it [default: by its name, else by its first line]
    #[arg(long)]
    format: Option<Format>,
    /// How many records are under way at once
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u16).range(1..=4096))]
    in_flight: u16,
    /// How many owners must have each record on disk: one, majority, all or a number
    #[arg(long, value_name = "LEVEL", default_value = "majority", value_parser = super::operation::parse_level)]
    w: crate::protocol::wire::client::Level,
    /// How long to go on trying a record that the cluster cannot take
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = super::operation::parse_duration)]
    patience: Duration,
    /// Keep in this file how far the import came, and begin there
    #[arg(long, value_name = "FILE")]
    resume: Option<PathBuf>,
    /// Print the summary as a JSON object
    #[arg(long)]
    json: bool,
    /// Keys and values in tab-separated files are base64
    #[arg(long)]
    base64: bool,
    #[command(flatten)]
    connection: Connection,
}

/// A record on its way.
struct Job {
    pair: Pair,
    line: u64,
    start: u64,
    end: u64,
}

/// What became of it.
struct Finished {
    line: u64,
    start: u64,
    end: u64,
    bytes: u64,
    result: Result<Loaded, String>,
}

enum Loaded {
    Written,
    Unchanged,
}

/// What became of the file.
#[derive(Debug, Default, PartialEq, Serialize)]
struct Summary {
    records: u64,
    written: u64,
    unchanged: u64,
    failed: u64,
    malformed: u64,
    bytes: u64,
    seconds: f64,
    records_per_second: f64,
}

/// Lines longer than this hold more than any record.
const LINE_BYTES_MAX: u64 = 16 << 20;

/// After how many malformed lines the rest is counted only.
const COMPLAINTS_MAX: u64 = 100;

impl ImportArgs {
    /// Runs it.
    pub(crate) fn run(self) -> Done {
        let mut input = Input::open(&self.file, self.resume.as_deref())?;
        let session = Session::connect(&self.connection)?;
        let begun = Instant::now();
        let (finished, results) = unbounded();
        let workers = self.start_workers(session.client(), &finished);
        drop(finished);
        let mut import = Import {
            results,
            mark: Mark::new(input.position),
            summary: Summary::default(),
            bar: output::bytes_bar(input.length),
            resume: self.resume.clone(),
            saved: Instant::now(),
            begun,
        };
        let mut format = self.format.or_else(|| Format::of_name(&self.file.to_string_lossy()));
        let mut line = Vec::new();
        while let Some((number, start, end)) = input.next_line(&mut line)? {
            let form = *format.get_or_insert_with(|| Format::of_line(&line));
            match parse::parse(form, &line, number, self.base64) {
                Ok(Some(pair)) => {
                    import.mark.begin(start);
                    // One key is always the same worker's, so the lines of a key are written in their order.
                    let worker = key_hash(&pair.key) as usize % workers.len();
                    let mut job = Job { pair, line: number, start, end };
                    while let Err(full) = workers[worker].try_send(job) {
                        if full.is_closed() || !import.take_one() {
                            return Err(Failure::failed(
                                "a worker of the import ended; import the file again",
                            ));
                        }
                        job = full.into_inner();
                    }
                }
                Ok(None) => {}
                Err(why) => import.complain(number, &why),
            }
            import.take_ready();
        }
        drop(workers);
        while import.take_one() {}
        import.finish(self.json)
    }

    fn start_workers(&self, client: &Client, finished: &Sender<Finished>) -> Vec<Sender<Job>> {
        let start = |_| {
            let (jobs, queue) = bounded::<Job>(4);
            let worker = Worker { client: client.clone(), w: self.w, patience: self.patience };
            async_std::task::spawn(worker.run(queue, finished.clone()));
            jobs
        };
        (0..self.in_flight).map(start).collect()
    }
}

/// Writes its share of the records, one after the other.
struct Worker {
    client: Client,
    w: crate::protocol::wire::client::Level,
    patience: Duration,
}

impl Worker {
    async fn run(self, queue: Receiver<Job>, finished: Sender<Finished>) {
        while let Ok(Job { pair, line, start, end }) = queue.recv().await {
            let bytes = (pair.key.len() + pair.value.len()) as u64;
            let result = self.load(&pair).await;
            if finished.send(Finished { line, start, end, bytes, result }).await.is_err() {
                return;
            }
        }
    }

    /// Tries until the record is there, or the cluster refuses it, or patience ends. An unknown outcome is tried again
    /// like a failure: the read before the next write finds out what became of it.
    async fn load(&self, pair: &Pair) -> Result<Loaded, String> {
        let deadline = Instant::now() + self.patience;
        let mut pause = Duration::from_millis(20);
        loop {
            let error = match self.try_load(pair).await {
                Ok(loaded) => return Ok(loaded),
                Err((code, message)) if is_final(code) => return Err(message),
                Err((_, message)) => message,
            };
            if Instant::now() + pause > deadline {
                return Err(error);
            }
            async_std::task::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(2));
        }
    }

    async fn try_load(&self, pair: &Pair) -> Result<Loaded, (Code, String)> {
        let reading = self.client.get(&pair.key).await.map_err(|error| {
            let (ReadError::Unavailable(problem) | ReadError::Refused(problem)) = error;
            (problem.code, problem.message)
        })?;
        // A deletion that stands beside the value may still win over it for others; then there is something to resolve.
        let only_this = [pair.value.clone()] == reading.values();
        if only_this && reading.siblings().iter().all(|sibling| sibling.value.is_some()) {
            return Ok(Loaded::Unchanged);
        }
        let context = reading.into_context();
        match self.client.put_with(&context, pair.value.clone()).w(self.w).await {
            Ok(_) => Ok(Loaded::Written),
            Err(WriteError::NotApplied { problem }) => Err((problem.code, problem.message)),
            Err(WriteError::Unknown(unsettled)) => Err((unsettled.problem.code, unsettled.problem.message)),
        }
    }
}

/// Whether trying again would end the same way.
fn is_final(code: Code) -> bool {
    matches!(
        code,
        Code::BadKey
            | Code::ValueTooLarge
            | Code::RecordTooLarge
            | Code::Forbidden
            | Code::BadRequest
            | Code::TooManySiblings
            | Code::ContextTooLong
    )
}

/// An import under way.
struct Import {
    results: Receiver<Finished>,
    mark: Mark,
    summary: Summary,
    bar: indicatif::ProgressBar,
    resume: Option<PathBuf>,
    saved: Instant,
    begun: Instant,
}

impl Import {
    fn complain(&mut self, line: u64, why: &str) {
        self.summary.malformed += 1;
        if self.summary.malformed <= COMPLAINTS_MAX {
            self.bar.suspend(|| eprintln!("line {line}: {why}"));
        }
    }

    /// Waits for one record; false if there are no more.
    fn take_one(&mut self) -> bool {
        match block_on(self.results.recv()) {
            Ok(finished) => {
                self.note(finished);
                true
            }
            Err(_) => false,
        }
    }

    fn take_ready(&mut self) {
        while let Ok(finished) = self.results.try_recv() {
            self.note(finished);
        }
    }

    fn note(&mut self, finished: Finished) {
        self.summary.records += 1;
        match finished.result {
            Ok(loaded) => {
                self.summary.bytes += finished.bytes;
                match loaded {
                    Loaded::Written => self.summary.written += 1,
                    Loaded::Unchanged => self.summary.unchanged += 1,
                }
                self.mark.finish(finished.start, finished.end);
            }
            Err(why) => {
                self.summary.failed += 1;
                if self.summary.failed <= COMPLAINTS_MAX {
                    self.bar.suspend(|| eprintln!("line {}: not loaded: {why}", finished.line));
                }
                // The mark stays below it, so that a resumed import tries again.
            }
        }
        self.bar.set_position(finished.end.max(self.bar.position()));
        if self.summary.records.is_multiple_of(64) {
            let seconds = self.begun.elapsed().as_secs_f64();
            self.bar.set_message(format!(
                "{} records, {:.0}/s",
                self.summary.records,
                self.summary.records as f64 / seconds
            ));
            if self.saved.elapsed() > Duration::from_secs(1) {
                self.save();
            }
        }
    }

    /// Writes down how far it came. If that fails, the next import only begins earlier.
    fn save(&mut self) {
        if let Some(path) = &self.resume {
            let fresh = path.with_extension("new");
            let _ = std::fs::write(&fresh, format!("{}\n", self.mark.done()))
                .and_then(|()| std::fs::rename(&fresh, path));
        }
        self.saved = Instant::now();
    }

    fn finish(mut self, json: bool) -> Done {
        self.save();
        self.bar.finish_and_clear();
        let summary = &mut self.summary;
        summary.seconds = (self.begun.elapsed().as_secs_f64() * 1e3).round() / 1e3;
        summary.records_per_second = (summary.records as f64 / summary.seconds.max(0.001)).round();
        output::line(&if json { to_line(summary) } else { told(summary) });
        if summary.failed + summary.malformed > 0 { Err(Failure::Said) } else { Ok(()) }
    }
}

fn told(summary: &Summary) -> String {
    let mut told = format!(
        "{} records, {} written, {} unchanged, {} bytes in {:.1} s ({:.0} records/s)",
        summary.records,
        summary.written,
        summary.unchanged,
        summary.bytes,
        summary.seconds,
        summary.records_per_second
    );
    if summary.failed > 0 {
        told += &format!("; {} not loaded", summary.failed);
    }
    if summary.malformed > 0 {
        told += &format!("; {} malformed lines", summary.malformed);
    }
    told
}

/// The lines of a file with their numbers and positions.
struct Input {
    reader: Box<dyn BufRead>,
    /// How many bytes there are, as far as that is known.
    length: u64,
    position: u64,
    line: u64,
    name: String,
}

impl Input {
    fn open(path: &Path, resume: Option<&Path>) -> Result<Input, Failure> {
        let name = path.display().to_string();
        let failed = |error: std::io::Error| Failure::Failed(format!("{name} cannot be read: {error}"));
        if path == Path::new("-") {
            if resume.is_some() {
                return Err(Failure::Usage("an import of standard input cannot be resumed".to_owned()));
            }
            if std::io::stdin().is_terminal() {
                eprintln!("reading records from the terminal; end with Ctrl-D");
            }
            let reader = Box::new(BufReader::new(std::io::stdin()));
            return Ok(Input { reader, length: 0, position: 0, line: 0, name });
        }
        let file = File::open(path).map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        let mut reader = BufReader::with_capacity(1 << 20, file);
        let from = resume.map_or(Ok(0), |resume| read_mark(resume, length))?;
        // Lines are numbered from the beginning of the file, so what was done is counted, though not parsed.
        let line = count_lines(&mut reader, from).map_err(failed)?;
        reader.seek(SeekFrom::Start(from)).map_err(failed)?;
        Ok(Input { reader: Box::new(reader), length, position: from, line, name })
    }

    /// Reads the next line without its end into `line`; gives its number, and where it begins and ends.
    fn next_line(&mut self, line: &mut Vec<u8>) -> Result<Option<(u64, u64, u64)>, Failure> {
        line.clear();
        let failed =
            |error: std::io::Error| Failure::Failed(format!("{} cannot be read: {error}", self.name));
        let read = (&mut self.reader).take(LINE_BYTES_MAX).read_until(b'\n', line).map_err(failed)? as u64;
        if read == 0 {
            return Ok(None);
        }
        self.line += 1;
        if read == LINE_BYTES_MAX && line.last() != Some(&b'\n') {
            let line = self.line;
            return Err(Failure::Failed(format!(
                "{}: line {line} has more than {LINE_BYTES_MAX} bytes",
                self.name
            )));
        }
        if line.last() == Some(&b'\n') {
            line.pop();
        }
        let start = self.position;
        self.position += read;
        Ok(Some((self.line, start, self.position)))
    }
}

/// How far an earlier import came; the beginning if there was none.
fn read_mark(path: &Path, length: u64) -> Result<u64, Failure> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(Failure::Failed(format!("{}: {error}", path.display()))),
    };
    match text.trim().parse() {
        Ok(done) if done <= length => Ok(done),
        _ => Err(Failure::Failed(format!(
            "{} does not say how far an import of this file came; remove it to begin anew",
            path.display()
        ))),
    }
}

fn count_lines(reader: &mut impl BufRead, until: u64) -> std::io::Result<u64> {
    let mut lines = 0;
    let mut left = until;
    while left > 0 {
        let chunk = reader.fill_buf()?;
        if chunk.is_empty() {
            break;
        }
        let seen = chunk.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        lines += chunk[..seen].iter().filter(|byte| **byte == b'\n').count() as u64;
        left -= seen as u64;
        reader.consume(seen);
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resumed_file_goes_on_with_the_right_line_numbers() {
        let dir = tempfile::tempdir().unwrap();
        let (file, resume) = (dir.path().join("f"), dir.path().join("r"));
        std::fs::write(&file, "a\t1\nb\t2\nc\t3").unwrap();
        std::fs::write(&resume, "8\n").unwrap();
        let mut line = Vec::new();
        let mut input = Input::open(&file, Some(&resume)).unwrap();
        assert_eq!(input.next_line(&mut line).unwrap(), Some((3, 8, 11)));
        assert_eq!(line, b"c\t3");
        assert_eq!(input.next_line(&mut line).unwrap(), None);
        std::fs::write(&resume, "99").unwrap();
        assert!(
            matches!(Input::open(&file, Some(&resume)), Err(Failure::Failed(why)) if why.contains("remove it"))
        );
        std::fs::remove_file(&resume).unwrap();
        let mut input = Input::open(&file, Some(&resume)).unwrap();
        assert_eq!(input.next_line(&mut line).unwrap(), Some((1, 0, 4)));
    }

    #[test]
    fn the_summary_names_what_went_wrong() {
        let summary =
            Summary { records: 3, written: 2, failed: 1, malformed: 4, seconds: 2.0, ..Summary::default() };
        let told = told(&summary);
        assert!(
            told.contains("3 records, 2 written") && told.contains("1 not loaded; 4 malformed lines"),
            "{told}"
        );
    }
}
