//! What an operator may set of a node's disk.

use std::time::Duration;

/// What an operator may set.
#[derive(Clone, Debug)]
pub struct DiskOptions {
    /// Size of a log segment in bytes. Default 64 MiB. A group larger than that gets a segment of its own.
    pub segment_bytes: u64,
    /// A checkpoint is made after this many bytes of log. Default 48 MiB. Bounds the time of a replay.
    pub checkpoint_bytes: u64,
    /// A checkpoint is made at the latest this long after an entry. Default 30 s.
    pub checkpoint_interval: Duration,
    /// Above this many bytes of entries that wait for the store, updates are refused as overloaded. Default 64 MiB.
    pub backlog_bytes_max: u64,
    /// Below this many free bytes on the file system, updates are refused. Default 512 MiB.
    pub free_space_floor: u64,
    /// A thread that is busy with one job for longer than this is taken for hung, and the disk for failed. Default
    /// 60 s. sled is known to hang when it runs out of space behind our back.
    pub stall_limit: Duration,
    /// What sled keeps in memory, in bytes of its own form and counted generously; a node takes up to 1.4 times that,
    /// and some 60 MB for all else. Default 256 MiB. What is not there costs several times as much to read or to
    /// replace, since its whole page is put together from pieces all over the file. Doubled while the store is
    /// rewritten.
    pub cache_bytes: u64,
    /// The store is rewritten into a fresh one when it takes more than this many hundredths of the live data. Default
    /// 300; zero turns that off.
    pub compact_percent: u64,
    /// A store of less than this is not worth rewriting. Default 64 MiB.
    pub compact_floor_bytes: u64,
    /// Live data that is rewritten per second, at most. Default 16 MiB.
    pub compact_bytes_per_second: u64,
    /// Live data that is read and checked in the background per second, at most. Default 1 MiB; zero turns that off.
    pub scrub_bytes_per_second: u64,
}

impl Default for DiskOptions {
    fn default() -> Self {
        DiskOptions {
            segment_bytes: 64 << 20,
            checkpoint_bytes: 48 << 20,
            checkpoint_interval: Duration::from_secs(30),
            backlog_bytes_max: 64 << 20,
            free_space_floor: 512 << 20,
            stall_limit: Duration::from_secs(60),
            cache_bytes: 256 << 20,
            compact_percent: 300,
            compact_floor_bytes: 64 << 20,
            compact_bytes_per_second: 16 << 20,
            scrub_bytes_per_second: 1 << 20,
        }
    }
}
