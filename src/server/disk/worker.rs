//! What the two threads below a node have in common, and the one that writes the log; the other is the feeder.
//!
//! Each does one job after the other and reports what became of it. A failure, a panic included, is reported as such
//! and ends the thread: there is no second try, since nobody knows what a failed write or sync left behind.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::{Builder, JoinHandle};

use super::compaction::Step;
use super::feeder::Findings;
use super::log::SegmentedLog;
use super::sled::text_of;
use crate::protocol::storage::engine::Feed;
use crate::protocol::storage::log::Group;
use crate::protocol::storage::op::Lsn;

/// What the writer does.
pub(super) enum WriterJob {
    /// Write and sync a group.
    Write(Group),
    /// The same with a seal, which completes nothing.
    Seal(Group),
    /// Give up the segments below a low-water mark.
    Free(Lsn),
}

/// What the threads report.
pub(super) enum Event {
    /// A group is synced.
    Synced(Lsn),
    /// A seal is synced.
    Sealed,
    /// A feed is in the store.
    Fed(Feed),
    /// Everything up to here is durable in the store.
    Checkpointed(Lsn),
    /// A range of slots was compared.
    Verified(Findings),
    /// A step of rewriting the store is done.
    Compacted(Step),
    /// Nothing happened for a while; time to look whether a checkpoint is due.
    Idle,
    /// Writing or storing failed. The thread has ended.
    Failed(String),
}

/// Where events go, and who is told that there is one.
#[derive(Clone)]
pub(super) struct Reporter {
    pub(super) events: Sender<Event>,
    pub(super) wake: Arc<dyn Fn() + Send + Sync>,
}

impl Reporter {
    pub(super) fn report(&self, event: Event) {
        // Without a receiver the disk is gone, and nobody waits for this.
        let _ = self.events.send(event);
        (self.wake)();
    }
}

/// A thread and the way to it. Ends when the way is closed.
pub(super) struct Worker<J> {
    jobs: Option<Sender<J>>,
    thread: Option<JoinHandle<()>>,
}

impl<J: Send + 'static> Worker<J> {
    pub(super) fn spawn(
        name: &str,
        reporter: Reporter,
        run: impl FnOnce(&Receiver<J>, &Reporter) -> Result<(), String> + Send + 'static,
    ) -> io::Result<Worker<J>> {
        let (jobs, inbox) = channel();
        let thread = Builder::new().name(name.to_owned()).spawn(move || {
            let outcome = catch_unwind(AssertUnwindSafe(|| run(&inbox, &reporter)));
            match outcome {
                Ok(Ok(())) => {}
                Ok(Err(reason)) => reporter.report(Event::Failed(reason)),
                Err(panic) => reporter.report(Event::Failed(text_of(panic.as_ref()))),
            }
        })?;
        Ok(Worker { jobs: Some(jobs), thread: Some(thread) })
    }

    /// Hands over a job. If the thread has ended, it has said why.
    pub(super) fn send(&self, job: J) {
        if let Some(jobs) = &self.jobs {
            let _ = jobs.send(job);
        }
    }

    /// Gives the thread up without waiting for it: after a failure it may hang for ever.
    pub(super) fn abandon(&mut self) {
        self.jobs = None;
        self.thread = None;
    }
}

impl<J> Drop for Worker<J> {
    /// Lets the thread finish the jobs that it has, and waits for it.
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Starts the thread that writes and syncs the log.
pub(super) fn writer(mut log: SegmentedLog, reporter: Reporter) -> io::Result<Worker<WriterJob>> {
    Worker::spawn("starling-log", reporter, move |jobs, reporter| {
        loop {
            let job = match jobs.try_recv() {
                Ok(job) => job,
                Err(TryRecvError::Disconnected) => return Ok(()),
                Err(TryRecvError::Empty) => {
                    if log.fill_ahead().map_err(log_failed)? {
                        continue;
                    }
                    match jobs.recv() {
                        Ok(job) => job,
                        Err(_) => return Ok(()),
                    }
                }
            };
            match job {
                WriterJob::Write(group) => {
                    let through = group.through();
                    log.append(group).map_err(log_failed)?;
                    reporter.report(Event::Synced(through));
                }
                WriterJob::Seal(group) => {
                    log.append(group).map_err(log_failed)?;
                    reporter.report(Event::Sealed);
                }
                WriterJob::Free(low_water) => log.free(low_water).map_err(log_failed)?,
            }
        }
    })
}

fn log_failed(error: io::Error) -> String {
    format!("the log could not be written: {error}")
}
