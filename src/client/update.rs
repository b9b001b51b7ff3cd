//! The read-modify-write: the verb for everyday use.
//!
//! ```text
//! read all values ─▶ change them into one ─▶ write it with the context of the read ─▶ the only value? done
//!      ▲                                                                               │ no: others wrote meanwhile
//!      └────────────────────────── merge ◀──────────────────────────────────────────────┘ (bounded)
//! ```

use std::sync::Arc;

use bytes::Bytes;

use super::cluster::Cluster;
use super::error::{ReadError, Unmerged, UnmergedReason, UpdateError, WriteError};
use super::get::Get;
use super::options::{ReadOptions, WriteOptions};
use super::put::Put;
use super::reading::Reading;
use super::receipt::Receipt;

/// After how many writes an update leaves the merging of what others keep writing to them.
const ROUNDS_MAX: u32 = 5;

/// What an update makes of a key. Values convert into it, and `Option`s too: `None` deletes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    /// This value takes the place of all that was read.
    Put(Bytes),
    /// The key is deleted.
    Delete,
    /// Nothing is written.
    Keep,
}

macro_rules! edit_from {
    ($($value:ty),*) => { $(
        impl From<$value> for Edit {
            fn from(value: $value) -> Edit {
                Edit::Put(value.into())
            }
        }
    )* };
}

edit_from!(Bytes, Vec<u8>, String, &'static str, &'static [u8]);

impl<V: Into<Bytes>> From<Option<V>> for Edit {
    fn from(value: Option<V>) -> Edit {
        value.map_or(Edit::Delete, |value| Edit::Put(value.into()))
    }
}

/// How an update ended well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Updated {
    /// The result is committed and is the key's only value, as far as the coordinator of the write can see.
    Written(Receipt),
    /// The change was to keep what was read.
    Kept(Reading),
}

/// Which values a change is made of.
pub(super) struct Round<'a> {
    pub(super) values: &'a [Bytes],
    /// False in the rounds in which this update's own result is among the values, beside those of others.
    pub(super) first: bool,
}

/// Runs an update.
pub(super) async fn run(
    cluster: Arc<Cluster>,
    key: Bytes,
    mut change: impl FnMut(Round<'_>) -> Edit,
) -> Result<Updated, UpdateError> {
    let deadlines = &cluster.options.deadlines;
    let (reads, writes) = (ReadOptions::new(deadlines), WriteOptions::new(deadlines));
    debug_assert_eq!(reads.common, writes.common);
    let read = || Get::new(Arc::clone(&cluster), key.clone()).run();
    let write = |reading: Reading, edit: Edit| {
        let value = match edit {
            Edit::Put(value) => Some(value),
            Edit::Delete | Edit::Keep => None,
        };
        let token = reading.context().token().cloned();
        Put::new(Arc::clone(&cluster), key.clone(), value, token).options(writes).run()
    };

    let mut written: Option<Receipt> = None;
    for round in 1..=ROUNDS_MAX {
        let stopped = |written: Option<Receipt>, why: Stopped| match written {
            None => match why {
                Stopped::Read(error) => UpdateError::Read(error),
                Stopped::Write(error) => UpdateError::Write(error),
            },
            Some(receipt) => UpdateError::Unmerged(Box::new(Unmerged {
                receipt,
                reason: match why {
                    Stopped::Read(error) => UnmergedReason::Read(error),
                    Stopped::Write(error) => UnmergedReason::Write(error),
                },
            })),
        };
        let reading = match read().await {
            Ok(reading) => reading,
            Err(error) => return Err(stopped(written, Stopped::Read(error))),
        };
        if let Some(receipt) = &written
            && reading.siblings().len() <= 1
        {
            // Somebody else has merged already.
            return Ok(Updated::Written(receipt.clone()));
        }
        let edit = change(Round { values: reading.values(), first: round == 1 });
        // To delete what nobody has seen would be to delete whatever has come since.
        let nothing_to_delete = edit == Edit::Delete && reading.context().has_seen_nothing();
        if edit == Edit::Keep || nothing_to_delete {
            return Ok(match written {
                None => Updated::Kept(reading),
                Some(receipt) => Updated::Written(receipt),
            });
        }
        match write(reading, edit).await {
            Ok(receipt) if receipt.siblings <= 1 => return Ok(Updated::Written(receipt)),
            Ok(receipt) => written = Some(receipt),
            Err(error) => return Err(stopped(written, Stopped::Write(error))),
        }
    }
    match written {
        Some(receipt) => {
            let reason = UnmergedReason::Contention(ROUNDS_MAX);
            Err(UpdateError::Unmerged(Box::new(Unmerged { receipt, reason })))
        }
        None => unreachable!("every round either returns or writes"),
    }
}

enum Stopped {
    Read(ReadError),
    Write(WriteError),
}
