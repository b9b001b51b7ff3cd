//! Which of the stores in a data directory is the one: a store that is rewritten gets a new folder.
//!
//! ```text
//! DIR/store     the first one
//! DIR/store-2   the one it was rewritten into, and so on
//! DIR/current   the name of the one that counts; without this file it is the first
//! ```
//!
//! A store counts from the moment in which the file that names it has its new contents, which it gets by a rename.
//! Before that, what lies beside it is the beginning of a copy; after that, what lies beside it is done with. Either
//! is removed by the next start, when it has succeeded.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::OpenError;
use super::log::sync_folder;
use crate::protocol::storage::log::LogId;

/// So many places are tried for a new store, where what lies in them cannot be removed.
const PLACES_MAX: usize = 8;

/// The stores of one data directory.
#[derive(Clone, Debug)]
pub(super) struct Stores {
    path: PathBuf,
    log: LogId,
}

/// Names one of them; they count up from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct StoreNumber(pub(super) u64);

impl StoreNumber {
    pub(super) fn next(self) -> StoreNumber {
        StoreNumber(self.0 + 1)
    }

    fn name(self) -> String {
        if self.0 == 1 { "store".to_owned() } else { format!("store-{}", self.0) }
    }

    fn of_name(name: &str) -> Option<StoreNumber> {
        let number = match name.strip_prefix("store-") {
            Some(number) => StoreNumber(number.parse().ok()?),
            None => StoreNumber(1),
        };
        (number.name() == name).then_some(number)
    }
}

impl Stores {
    pub(super) fn new(path: &Path, log: LogId) -> Stores {
        Stores { path: path.to_owned(), log }
    }

    /// Where a store lies.
    pub(super) fn folder(&self, number: StoreNumber) -> PathBuf {
        self.path.join(number.name())
    }

    /// The store that counts.
    pub(super) fn current(&self) -> Result<StoreNumber, OpenError> {
        let path = self.pointer();
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(StoreNumber(1)),
            Err(source) => return Err(OpenError::io("read", &path, source)),
        };
        let text = String::from_utf8(bytes).ok();
        let name = text.as_deref().and_then(|text| text.split(' ').next());
        let number = name.and_then(StoreNumber::of_name);
        // The checksum tells a name that was damaged into another from the name that was written.
        number.filter(|number| text == Some(self.text(*number))).ok_or(OpenError::Pointer(path))
    }

    /// Makes another store the one that counts. When this returns, that survives a power cut; when it fails, it may
    /// or may not.
    pub(super) fn choose(&self, number: StoreNumber) -> io::Result<()> {
        let path = self.pointer();
        let draft = path.with_extension("new");
        let mut file = File::create(&draft)?;
        file.write_all(self.text(number).as_bytes())?;
        file.sync_all()?;
        fs::rename(&draft, &path)?;
        sync_folder(&self.path)
    }

    /// Removes a store that does not count, if it is there. Tells whether its place is free: one that stays takes space, and harms
    /// nobody.
    pub(super) fn remove(&self, number: StoreNumber) -> bool {
        match fs::remove_dir_all(self.folder(number)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                let folder = self.folder(number);
                tracing::warn!(%error, ?folder, "what is left of a rewritten store cannot be removed; remove it by hand");
                false
            }
            _ => true,
        }
    }

    /// The first place behind this store that is free, or can be made so.
    pub(super) fn free_after(&self, number: StoreNumber) -> Option<StoreNumber> {
        std::iter::successors(Some(number.next()), |number| Some(number.next()))
            .take(PLACES_MAX)
            .find(|number| self.remove(*number))
    }

    /// Removes every store but one, as far as possible.
    pub(super) fn remove_others(&self, current: StoreNumber) {
        let names = match fs::read_dir(&self.path) {
            Ok(entries) => entries.filter_map(|entry| Some(entry.ok()?.file_name())),
            Err(error) => {
                tracing::warn!(%error, path = ?self.path, "cannot look for what is left of rewritten stores");
                return;
            }
        };
        for name in names {
            if let Some(number) = name.to_str().and_then(StoreNumber::of_name)
                && number != current
            {
                tracing::info!(folder = ?name, "removing what is left of a rewritten store");
                self.remove(number);
            }
        }
    }

    fn pointer(&self) -> PathBuf {
        self.path.join("current")
    }

    fn text(&self, number: StoreNumber) -> String {
        let name = number.name();
        let checksum = xxh3_64_with_seed(name.as_bytes(), self.log.0);
        format!("{name} {checksum:016x}\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_store_that_was_chosen_is_the_one_and_the_others_go() {
        let folder = tempfile::tempdir().unwrap();
        let stores = Stores::new(folder.path(), LogId(5));
        assert_eq!(stores.current().unwrap(), StoreNumber(1));
        for number in [1, 2, 3] {
            fs::create_dir_all(stores.folder(StoreNumber(number)).join("blobs")).unwrap();
        }
        fs::create_dir(folder.path().join("storehouse")).unwrap();
        stores.choose(StoreNumber(2)).unwrap();
        assert_eq!(stores.current().unwrap(), StoreNumber(2));
        stores.remove_others(StoreNumber(2));
        let left = |name: &str| folder.path().join(name).exists();
        assert_eq!(["store", "store-2", "store-3", "storehouse"].map(left), [false, true, false, true]);
        assert!(stores.remove(StoreNumber(9)));
    }

    #[test]
    fn what_cannot_be_removed_is_left_and_its_place_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let stores = Stores::new(folder.path(), LogId(5));
        // A file is no folder, and is not removed as one, also not by a test that may do everything.
        for number in [3, 4] {
            fs::write(stores.folder(StoreNumber(number)), "in the way").unwrap();
        }
        fs::create_dir(stores.folder(StoreNumber(1))).unwrap();
        stores.remove_others(StoreNumber(2));
        assert!(!stores.folder(StoreNumber(1)).exists());
        assert!(!stores.remove(StoreNumber(3)));
        assert_eq!(stores.free_after(StoreNumber(2)), Some(StoreNumber(5)));
        for number in 5..3 + PLACES_MAX as u64 {
            fs::write(stores.folder(StoreNumber(number)), "in the way").unwrap();
        }
        assert_eq!(stores.free_after(StoreNumber(2)), None);
    }

    #[test]
    fn no_flipped_byte_leads_to_another_store() {
        let folder = tempfile::tempdir().unwrap();
        let stores = Stores::new(folder.path(), LogId(5));
        stores.choose(StoreNumber(12)).unwrap();
        let good = fs::read(stores.pointer()).unwrap();
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                fs::write(stores.pointer(), &bad).unwrap();
                let error = stores.current().unwrap_err();
                assert!(matches!(error, OpenError::Pointer(_)), "{error}");
            }
        }
        for length in 0..good.len() {
            fs::write(stores.pointer(), &good[..length]).unwrap();
            assert!(stores.current().is_err());
        }
    }
}
