//! The data directory of a node: who may use it, and in which format it is.
//!
//! ```text
//! DIR/lock     held by the process that uses the directory
//! DIR/format   which format everything here has, and the identity of the log
//! DIR/log/     the write-ahead log
//! DIR/store/   the store behind it, or the first of several: `stores`
//! DIR/cluster  the name of the cluster that the data belongs to (`server::belonging`)
//! DIR/reset    what lets a restarted node end the connections of its former life (`server::reset`)
//! ```

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use thiserror::Error;
use xxhash_rust::xxh3::xxh3_64;

use super::log::sync_folder;
use crate::protocol::storage::engine::RecoverError;
use crate::protocol::storage::log::{LogId, Untrusted};
use crate::protocol::storage::store::StoreError;

/// The format of everything in the directory. Raised with every change that an older program could not read.
const FORMAT: u32 = 1;

/// How long a start waits for another process to let go of the directory.
const LOCK_PATIENCE: Duration = Duration::from_millis(500);

/// How often it tries meanwhile.
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// What to do with a directory that cannot be trusted.
const WAY_BACK: &str = "It counts as a lost disk; the other replicas have the data. To begin anew under the same name \
                        and fetch it from them, start the node with --recover";

/// Why a data directory cannot be used. Its log was not changed, unless the text says that writing failed.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The path names something else.
    #[error("{} is not a directory", .0.display())]
    NotADirectory(PathBuf),
    /// Another process works with it.
    #[error("the data directory {} is in use by another process", .0.display())]
    InUse(PathBuf),
    /// It was written by another version of the program.
    #[error(
        "the data directory {} has format {found}; this program reads format {FORMAT} only. \
         Use the version of starling that wrote it",
        path.display()
    )]
    AnotherFormat {
        /// The directory.
        path: PathBuf,
        /// What it says about itself.
        found: String,
    },
    /// Its contents contradict each other.
    #[error("the data directory can no longer be trusted: {0}. {WAY_BACK}")]
    Untrusted(#[from] Untrusted),
    /// The file that names the log, or the one that says which store counts, is damaged.
    #[error("the data directory can no longer be trusted: the file {} is damaged. {WAY_BACK}", .0.display())]
    Pointer(PathBuf),
    /// The store failed.
    #[error("the store in the data directory cannot be opened: {0}. {WAY_BACK}")]
    Store(#[from] StoreError),
    /// There is no room left.
    #[error("there is no space left on the disk of {}", .0.display())]
    NoSpace(PathBuf),
    /// The operating system refused something.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

impl OpenError {
    pub(super) fn io(doing: &'static str, path: &Path, source: io::Error) -> OpenError {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => OpenError::NoSpace(path),
            _ => OpenError::Io { doing, path, source },
        }
    }
}

impl From<RecoverError> for OpenError {
    fn from(error: RecoverError) -> OpenError {
        match error {
            RecoverError::Untrusted(error) => error.into(),
            RecoverError::Store(error) => error.into(),
        }
    }
}

/// A data directory that this process, and no other, works with.
#[derive(Debug)]
pub(super) struct Directory {
    pub(super) path: PathBuf,
    pub(super) log: LogId,
    /// The lock lasts as long as this is open, and ends with the process however it ends.
    _lock: File,
}

impl Directory {
    /// Takes the directory, and makes it if it is not there.
    pub(super) fn open(path: &Path) -> Result<Directory, OpenError> {
        if path.exists() && !path.is_dir() {
            return Err(OpenError::NotADirectory(path.to_owned()));
        }
        fs::create_dir_all(path).map_err(|source| OpenError::io("create", path, source))?;
        let lock_path = path.join("lock");
        let mut options = OpenOptions::new();
        let lock = options.create(true).truncate(false).write(true).open(&lock_path);
        let lock = lock.map_err(|source| OpenError::io("open", &lock_path, source))?;
        let begun = Instant::now();
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                // A process that was just killed may still be dying, and one between fork and exec holds what its
                // parent held.
                Err(TryLockError::WouldBlock) if begun.elapsed() < LOCK_PATIENCE => thread::sleep(LOCK_PAUSE),
                Err(TryLockError::WouldBlock) => return Err(OpenError::InUse(path.to_owned())),
                Err(TryLockError::Error(source)) => return Err(OpenError::io("lock", &lock_path, source)),
            }
        }
        let log = read_format(path)?;
        Ok(Directory { path: path.to_owned(), log, _lock: lock })
    }

    /// Where the log lies.
    pub(super) fn log_folder(&self) -> PathBuf {
        self.path.join("log")
    }
}

fn read_format(folder: &Path) -> Result<LogId, OpenError> {
    let path = folder.join("format");
    let another = |found: String| OpenError::AnotherFormat { path: folder.to_owned(), found };
    match fs::read_to_string(&path) {
        Ok(text) => {
            let mut words = text.split_whitespace();
            let found = match (words.next(), words.next()) {
                (Some("starling-data"), Some(format)) => format.to_owned(),
                _ => return Err(another("unknown".to_owned())),
            };
            let log = words.next().and_then(|id| u64::from_str_radix(id, 16).ok());
            if found != FORMAT.to_string() {
                return Err(another(found));
            }
            let Some(log) = log else { return Err(OpenError::Pointer(path)) };
            // With another identity the whole log would look like nothing. Directories of the first days have no
            // checksum here.
            match words.next() {
                Some(sum) if sum != checksum(log) => Err(OpenError::Pointer(path)),
                _ => Ok(LogId(log)),
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // A log without its identity could not be told from bytes that look like one.
            if folder.join("log").exists() || folder.join("store").exists() {
                return Err(another("unknown (the file named format is missing)".to_owned()));
            }
            write_format(folder, &path).map_err(|source| OpenError::io("write", &path, source))
        }
        Err(source) => Err(OpenError::io("read", &path, source)),
    }
}

fn checksum(log: u64) -> String {
    format!("{:016x}", xxh3_64(&log.to_le_bytes()))
}

fn write_format(folder: &Path, path: &Path) -> io::Result<LogId> {
    let log = getrandom::u64().map_err(|error| io::Error::other(error.to_string()))?;
    let draft = path.with_extension("new");
    let mut file = File::create(&draft)?;
    writeln!(file, "starling-data {FORMAT} {log:016x} {}", checksum(log))?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    sync_folder(folder)?;
    // The folders above may be new as well. Some of them may be none of ours to open; those are not new.
    for above in fs::canonicalize(folder)?.ancestors().skip(1) {
        let _ = sync_folder(above);
    }
    Ok(LogId(log))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_belongs_to_one_process_and_keeps_its_identity() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b");
        let directory = Directory::open(&path).unwrap();
        assert!(matches!(Directory::open(&path), Err(OpenError::InUse(used)) if used == path));
        let log = directory.log;
        drop(directory);
        assert_eq!(Directory::open(&path).unwrap().log, log);
    }

    #[test]
    fn no_flipped_bit_leads_to_another_identity() {
        let folder = tempfile::tempdir().unwrap();
        let log = Directory::open(folder.path()).unwrap().log;
        let path = folder.path().join("format");
        let good = fs::read(&path).unwrap();
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                fs::write(&path, &bad).unwrap();
                if let Ok(found) = read_format(folder.path()) {
                    assert_eq!(found, log, "byte {at}, bit {bit}");
                }
            }
        }
    }

    #[test]
    fn what_is_no_data_directory_of_ours_is_named_clearly() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "x").unwrap();
        assert!(matches!(Directory::open(&file), Err(OpenError::NotADirectory(_))));
        for (text, is_another) in [
            ("starling-data 2 00\n", true),
            ("", true),
            ("else 1 00\n", true),
            ("starling-data 1\n", false),
            ("starling-data 1 not-hex\n", false),
            ("starling-data 1 00 00\n", false),
        ] {
            fs::write(folder.path().join("format"), text).unwrap();
            let error = Directory::open(folder.path()).unwrap_err();
            assert_eq!(matches!(error, OpenError::AnotherFormat { .. }), is_another, "{text:?}: {error}");
            assert_eq!(matches!(error, OpenError::Pointer(_)), !is_another, "{text:?}: {error}");
        }
        fs::remove_file(folder.path().join("format")).unwrap();
        fs::create_dir(folder.path().join("log")).unwrap();
        assert!(matches!(Directory::open(folder.path()), Err(OpenError::AnotherFormat { .. })));
    }
}
