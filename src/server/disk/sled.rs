//! The store on sled 0.34: the one file that names it, and the one that knows its hazards.
//!
//! Measured, and handled here:
//! * `flush` writes, but never syncs on Linux. A checkpoint syncs the files itself.
//! * A kill while a snapshot is being written leaves an empty `snap.*.generating`, which the next start would take for
//!   the newest snapshot and fail on for ever. It is removed before opening.
//! * Damaged files make it panic, also while opening. Every call runs under `catch_unwind`.
//! * After an error, `flush` may hang for ever, and dropping the database flushes. So nothing is called again, and the
//!   database is leaked; the process is about to stop.
//! * Values beyond a quarter of the segment size go to files that are never synced. Segments are as large as is
//!   sensible, and the checkpoint syncs those files too.
//! * Concurrent `flush_async` deadlocks, and batches cost more than inserts. Neither is used.
//! * A truncated file opens without an error and without its keys. Only counting finds that out; see
//!   [`sums_of`](crate::protocol::storage::store::sums_of).

use std::fs::{self, File};
use std::io;
use std::mem;
use std::ops::Bound;
use std::os::unix::fs::MetadataExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sled::{Config, Db};

use super::OpenError;
use super::log::sync_folder;
use crate::protocol::ring::slot::Slot;
use crate::protocol::storage::op::Lsn;
use crate::protocol::storage::store::{Replacement, Store, StoreError, StoredValue};

/// Fixed for the life of a database. A record of less than a quarter of this stays out of separate files.
const SEGMENT_BYTES: usize = 8 << 20;

/// How often sled writes out what it holds back; also the only thing that makes it reuse old segments.
const FLUSH_MILLIS: u64 = 500;

/// How sled words that another process has the database.
const LOCKED: &str = "could not acquire lock";

/// How long to wait for that to pass.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);

/// How often to try.
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// Where the applied position lies: behind every key, since slot numbers end far below 0xffff.
const THROUGH: &[u8] = b"\xff\xffthrough";

/// A handle to one sled database: one tree under `slot (big-endian) ++ key`, so that a slot is one range.
///
/// Handles share everything. Only one thread may write.
#[derive(Debug)]
pub(super) struct SledStore {
    /// `None` only while being dropped.
    db: Option<Db>,
    folder: PathBuf,
    /// Why nothing may reach sled any more; set once.
    failure: Arc<OnceLock<StoreError>>,
}

impl SledStore {
    /// Behind the places of all keys.
    pub(super) const END: &[u8] = THROUGH;

    /// Opens or creates the database in `folder`.
    pub(super) fn open(folder: &Path, cache_bytes: u64) -> Result<SledStore, OpenError> {
        let refused = |source| OpenError::io("open the store in", folder, source);
        fs::create_dir_all(folder).map_err(refused)?;
        for name in entries(folder).map_err(refused)? {
            if name.extension().is_some_and(|extension| extension == "generating") {
                fs::remove_file(name).map_err(refused)?;
            }
        }
        let config = Config::new()
            .path(folder)
            .cache_capacity(cache_bytes)
            .flush_every_ms(Some(FLUSH_MILLIS))
            .segment_size(SEGMENT_BYTES);
        let begun = Instant::now();
        loop {
            match catch_unwind(AssertUnwindSafe(|| config.open())) {
                Ok(Ok(db)) => {
                    return Ok(SledStore {
                        db: Some(db),
                        folder: folder.to_owned(),
                        failure: Arc::default(),
                    });
                }
                // The directory is ours, so whoever has sled's own lock is about to let go: the threads of a database
                // that was just closed, or a process between fork and exec.
                Ok(Err(error)) if error.to_string().contains(LOCKED) && begun.elapsed() < LOCK_PATIENCE => {
                    thread::sleep(LOCK_PAUSE);
                }
                // What the operating system refuses says nothing about the data.
                Ok(Err(sled::Error::Io(source))) => return Err(refused(source)),
                Ok(Err(error)) => return Err(failed(error).into()),
                Err(panic) => return Err(StoreError(text_of(panic.as_ref())).into()),
            }
        }
    }

    /// Opens another database, which shares its fate with this one: after a failure of either, nothing reaches any.
    pub(super) fn open_beside(&self, folder: &Path, cache_bytes: u64) -> Result<SledStore, StoreError> {
        let mut other = SledStore::open(folder, cache_bytes).map_err(|error| self.fail(failed(error)))?;
        other.failure = Arc::clone(&self.failure);
        Ok(other)
    }

    /// Another handle to the same database.
    pub(super) fn handle(&self) -> SledStore {
        SledStore { db: self.db.clone(), folder: self.folder.clone(), failure: Arc::clone(&self.failure) }
    }

    /// Lets nothing reach sled any more, also not the flush of its end. For when something else has failed and the
    /// process is about to stop.
    pub(super) fn abandon(&self, reason: &str) {
        self.fail(StoreError(reason.to_owned()));
    }

    /// Closes the database, if this is the last handle: flushes and ends its threads.
    pub(super) fn close(mut self) -> Result<(), StoreError> {
        let db = self.db.take();
        match catch_unwind(AssertUnwindSafe(|| drop(db))) {
            Ok(()) => Ok(()),
            Err(panic) => Err(self.fail(StoreError(text_of(panic.as_ref())))),
        }
    }

    /// Bytes that the files of the database take on the disk.
    pub(super) fn bytes_on_disk(&self) -> io::Result<u64> {
        bytes_in(&self.folder)
    }

    /// Where a key lies.
    pub(super) fn place(slot: Slot, key: &[u8]) -> Vec<u8> {
        place(slot, key)
    }

    /// Like [`replace`](Store::replace); shows for each key its slot and what it took before and takes now, in bytes.
    pub(super) fn replace_weighing(
        &mut self,
        batch: &[Replacement],
        through: Lsn,
        weigh: &mut dyn FnMut(Slot, u64, u64),
    ) -> Result<(), StoreError> {
        self.call(|db| {
            for Replacement { slot, key, value } in batch {
                let place = place(*slot, key);
                let old = match value {
                    Some(value) => db.insert(place, value.as_bytes().as_ref())?,
                    None => db.remove(place)?,
                };
                let bytes = |value: usize| (key.len() + value) as u64;
                let new = value.as_ref().map_or(0, |value| bytes(value.as_bytes().len()));
                weigh(*slot, old.map_or(0, |old| bytes(old.len())), new);
            }
            db.insert(THROUGH, &through.0.to_be_bytes())?;
            Ok(())
        })
    }

    /// Copies keys behind the place `after`, in order, until `bytes_max` bytes were copied. Returns how many bytes that
    /// were and the place of the last key, or `None` if there is nothing left.
    pub(super) fn copy_to(
        &self,
        fresh: &SledStore,
        after: Option<&[u8]>,
        bytes_max: u64,
    ) -> Result<(u64, Option<Vec<u8>>), StoreError> {
        let begin = after.map_or(Bound::Unbounded, |after| Bound::Excluded(after.to_vec()));
        let end = Bound::Excluded(THROUGH.to_vec());
        self.call(|db| {
            let mut bytes = 0;
            for entry in db.range((begin, end)) {
                let (place, value) = entry?;
                bytes += (place.len() + value.len()) as u64;
                let until = place.to_vec();
                // Both databases fail together, and the error of either is an error of sled.
                if let Some(fresh) = &fresh.db {
                    fresh.insert(place, value)?;
                }
                if bytes >= bytes_max {
                    return Ok((bytes, Some(until)));
                }
            }
            Ok((bytes, None))
        })
    }

    /// Remembers the first failure, and gives it back.
    fn fail(&self, error: StoreError) -> StoreError {
        self.failure.get_or_init(|| error).clone()
    }

    /// Runs one call into sled, unless an earlier one has failed.
    fn call<T>(&self, call: impl FnOnce(&Db) -> sled::Result<T>) -> Result<T, StoreError> {
        if let Some(error) = self.failure.get() {
            return Err(error.clone());
        }
        let Some(db) = self.db.as_ref() else { return Err(failed("it is closed")) };
        match catch_unwind(AssertUnwindSafe(|| call(db))) {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(self.fail(failed(error))),
            Err(panic) => Err(self.fail(StoreError(text_of(panic.as_ref())))),
        }
    }

    /// The sync that sled leaves out: its file, the separate files of large values, the snapshots, and their names.
    fn sync_files(&self) -> io::Result<()> {
        let blobs = self.folder.join("blobs");
        for folder in [&blobs, &self.folder] {
            if !folder.is_dir() {
                continue;
            }
            for path in entries(folder)? {
                match File::open(&path) {
                    Ok(file) => file.sync_all()?,
                    // sled removes snapshots and separate files behind our back.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
            sync_folder(folder)?;
        }
        Ok(())
    }
}

impl Store for SledStore {
    fn get(&self, slot: Slot, key: &[u8]) -> Result<Option<StoredValue>, StoreError> {
        let found = self.call(|db| db.get(place(slot, key)))?;
        Ok(found.map(|value| Bytes::from_owner(value).into()))
    }

    fn replace(&mut self, batch: &[Replacement], through: Lsn) -> Result<(), StoreError> {
        self.replace_weighing(batch, through, &mut |_, _, _| {})
    }

    fn through(&self) -> Result<Lsn, StoreError> {
        let Some(found) = self.call(|db| db.get(THROUGH))? else { return Ok(Lsn(0)) };
        match <[u8; 8]>::try_from(found.as_ref()) {
            Ok(bytes) => Ok(Lsn(u64::from_be_bytes(bytes))),
            Err(_) => Err(StoreError("the applied position is damaged".to_owned())),
        }
    }

    fn scan(
        &self,
        first: Slot,
        last: Slot,
        visit: &mut dyn FnMut(Slot, &[u8], &StoredValue),
    ) -> Result<(), StoreError> {
        let begin = first.get().to_be_bytes();
        let end = (last.get() + 1).to_be_bytes();
        self.call(|db| {
            for entry in db.range(begin..end) {
                let (place, value) = entry?;
                // Every place in the range has a slot in front, and the range has only true slots in it.
                if let Some((slot, key)) = place.split_first_chunk::<2>()
                    && let Ok(slot) = Slot::new(u16::from_be_bytes(*slot))
                {
                    visit(slot, key, &Bytes::from_owner(value).into());
                }
            }
            Ok(())
        })
    }

    fn page(
        &self,
        slot: Slot,
        after: Option<&[u8]>,
        visit: &mut dyn FnMut(&[u8], &StoredValue) -> bool,
    ) -> Result<(), StoreError> {
        let begin = match after {
            Some(after) => Bound::Excluded(place(slot, after)),
            None => Bound::Included(place(slot, &[])),
        };
        let end = Bound::Excluded((slot.get() + 1).to_be_bytes().to_vec());
        self.call(|db| {
            for entry in db.range((begin, end)) {
                let (place, value) = entry?;
                if let Some((_, key)) = place.split_first_chunk::<2>()
                    && !visit(key, &Bytes::from_owner(value).into())
                {
                    break;
                }
            }
            Ok(())
        })
    }

    fn checkpoint(&mut self) -> Result<(), StoreError> {
        self.call(|db| {
            db.flush()?;
            self.sync_files()?;
            Ok(())
        })
    }
}

impl Drop for SledStore {
    /// Dropping the last handle flushes, which may hang after an error.
    fn drop(&mut self) {
        if self.failure.get().is_some() {
            mem::forget(self.db.take());
        }
    }
}

fn place(slot: Slot, key: &[u8]) -> Vec<u8> {
    let mut place = Vec::with_capacity(2 + key.len());
    place.extend_from_slice(&slot.get().to_be_bytes());
    place.extend_from_slice(key);
    place
}

/// What the files in a folder and in those below it take on the disk.
pub(super) fn bytes_in(folder: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        bytes += match entry.metadata() {
            Ok(file) if file.is_dir() => bytes_in(&entry.path())?,
            Ok(file) => file.blocks() * 512,
            // sled removes snapshots and separate files behind our back.
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
    }
    Ok(bytes)
}

fn entries(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            paths.push(entry.path());
        }
    }
    Ok(paths)
}

fn failed(error: impl std::fmt::Display) -> StoreError {
    StoreError(error.to_string())
}

/// What a panic said.
pub(super) fn text_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "it panicked".to_owned())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::protocol::storage::store::contract;

    #[test]
    fn sled_keeps_the_contract() {
        let folders = tempfile::tempdir().unwrap();
        let count = std::cell::Cell::new(0);
        contract::check(|| {
            count.set(count.get() + 1);
            SledStore::open(&folders.path().join(count.get().to_string()), 8 << 20).unwrap()
        });
    }

    #[test]
    fn contents_and_position_survive_reopening_beside_an_unfinished_snapshot() {
        let folder = tempfile::tempdir().unwrap();
        let slot = contract::slot(5);
        let value = StoredValue::seal(b"k", &contract::record(1, b"v"));
        let key = Bytes::from_static(b"k");
        let mut store = SledStore::open(folder.path(), 8 << 20).unwrap();
        store.replace(&[Replacement { slot, key, value: Some(value.clone()) }], Lsn(3)).unwrap();
        store.checkpoint().unwrap();
        drop(store);
        let leftover = folder.path().join("snap.0000000000000ABC.generating");
        File::create(&leftover).unwrap().flush().unwrap();
        let store = SledStore::open(folder.path(), 8 << 20).unwrap();
        assert!(!leftover.exists());
        assert_eq!(store.get(slot, b"k").unwrap(), Some(value));
        assert_eq!(store.through().unwrap(), Lsn(3));
    }

    #[test]
    fn after_a_failure_no_handle_reaches_sled_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = SledStore::open(folder.path(), 8 << 20).unwrap();
        let handle = store.handle();
        let error = store.call(|_| -> sled::Result<()> { panic!("a planted panic") }).unwrap_err();
        assert_eq!(error, StoreError("a planted panic".to_owned()));
        assert_eq!(handle.get(contract::slot(1), b"k"), Err(error));
        assert!(store.checkpoint().is_err());
    }
}
