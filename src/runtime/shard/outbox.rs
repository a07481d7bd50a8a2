//! The outbox: everything that leaves a shard waits here for the batch it depends on.
//!
//! Batches are numbered 1, 2, 3, ... in the order in which they are written. What depends on batch `n` is released
//! when `n` is durable, in the order in which it was put in. What depends on nothing that is still on its way leaves
//! at once. A batch that never becomes durable releases nothing.

use std::collections::VecDeque;

use super::image::Taken;
use crate::engine::command::{Errand, Reply, ReplyTo};
use crate::failpoint;
use crate::fanout::push::Push;
use crate::model::approval::Noted;
use crate::model::{RunId, Seq};
use crate::store::artifacts::Due;

/// Number of a batch of this shard, since it started.
pub(super) type Batch = u64;

/// Something that leaves the shard.
#[derive(Debug)]
pub(super) enum Release {
    /// An answer.
    Reply(ReplyTo, Box<Reply>),
    /// An answer that hands something out: at no level of durability does it leave before its cause is synced.
    HandOut(ReplyTo, Box<Reply>),
    /// An answer that says where durable events stand, so it is made when they are.
    Located(ReplyTo, RunId),
    /// Events for the fanout plane.
    Push(Push),
    /// Something to be done elsewhere.
    Errand(Box<Errand>),
    /// The run's last event is durable: to the archive with it.
    Ended(RunId),
    /// What happened to a review: for the index.
    Review(Box<Noted>),
    /// What the run was when its events so far were decided: for the index.
    Image(Box<Taken>),
    /// A change of a graph, to be made into an artifact.
    Patched(Box<Due>),
}

/// Is a bug planted that lets this one go at once?
pub(super) fn mutated(release: &Release) -> bool {
    let Release::Reply(_, reply) = release else { return false };
    let reads = matches!(**reply, Reply::Run(_) | Reply::Graph(_) | Reply::List(_) | Reply::Located(_));
    let acknowledges = matches!(
        **reply,
        Reply::Started { .. } | Reply::Accepted(_) | Reply::Updated(_) | Reply::Repeated(..)
    );
    (reads && failpoint::mutant("read_before_durable"))
        || (acknowledges && failpoint::mutant("acknowledge_before_durable"))
}

/// What one batch holds back.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// In order.
    pub(super) releases: Vec<Release>,
    /// Runs with events in the batch, and the last event's number.
    pub(super) touched: Vec<(RunId, Seq)>,
}

/// Holds releases until their batch is durable.
#[derive(Debug)]
pub(super) struct Outbox {
    durable: Batch,
    /// For batches `durable + 1 ..= open`.
    held: VecDeque<Held>,
    spare: Vec<Held>,
}

impl Outbox {
    /// Nothing held; the open batch is number 1.
    pub(super) fn new() -> Self {
        Self { durable: 0, held: VecDeque::from([Held::default()]), spare: Vec::new() }
    }

    /// The batch that is being filled.
    pub(super) fn open(&self) -> Batch {
        self.durable + self.held.len() as u64
    }

    /// What the open batch holds.
    pub(super) fn open_held(&mut self) -> &mut Held {
        if self.held.is_empty() {
            self.held.push_back(Held::default());
        }
        let last = self.held.len() - 1;
        #[expect(clippy::indexing_slicing, reason = "the queue was made non-empty just above")]
        &mut self.held[last]
    }

    /// Is this batch durable?
    pub(super) fn is_durable(&self, batch: Batch) -> bool {
        batch <= self.durable
    }

    /// Holds `release` back until `batch` is durable; gives it back when it is already.
    pub(super) fn put(&mut self, batch: Batch, release: Release) -> Option<Release> {
        let Some(ahead) = batch.checked_sub(self.durable + 1) else { return Some(release) };
        match self.held.get_mut(usize::try_from(ahead).unwrap_or(usize::MAX)) {
            Some(held) => {
                held.releases.push(release);
                None
            }
            None => {
                debug_assert!(false, "batch {batch} is after the open one");
                self.open_held().releases.push(release);
                None
            }
        }
    }

    /// The open batch goes to the log; what comes next belongs to a new one.
    pub(super) fn seal(&mut self) {
        let next = self.spare.pop().unwrap_or_default();
        self.held.push_back(next);
    }

    /// The oldest sealed batch is durable: gives out what it held.
    pub(super) fn release(&mut self) -> Held {
        debug_assert!(self.held.len() > 1, "only a sealed batch becomes durable");
        self.durable += 1;
        self.held.pop_front().unwrap_or_default()
    }

    /// Gives the buffers of a batch back for reuse.
    pub(super) fn reuse(&mut self, mut held: Held) {
        held.releases.clear();
        held.touched.clear();
        if self.spare.len() < 8 {
            self.spare.push(held);
        }
    }

    /// The log failed: nothing held will ever be released. Gives out every reply that was waiting.
    pub(super) fn abandon(&mut self) -> Vec<ReplyTo> {
        let mut waiting = Vec::new();
        for held in &mut self.held {
            for release in held.releases.drain(..) {
                match release {
                    Release::Reply(to, _) | Release::HandOut(to, _) | Release::Located(to, _) => {
                        waiting.push(to)
                    }
                    Release::Push(_) | Release::Errand(_) | Release::Ended(_) => {}
                    Release::Review(_) | Release::Image(_) | Release::Patched(_) => {}
                }
            }
        }
        waiting
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(slot: u32) -> Release {
        Release::Reply(ReplyTo { core: 0, slot, generation: 0 }, Box::new(Reply::Done))
    }

    fn slots(held: &Held) -> Vec<u32> {
        let slot = |release: &Release| match release {
            Release::Reply(to, _) => to.slot,
            _ => u32::MAX,
        };
        held.releases.iter().map(slot).collect()
    }

    #[test]
    fn nothing_leaves_before_its_batch_is_durable() {
        let mut outbox = Outbox::new();
        assert_eq!(outbox.open(), 1);
        assert!(outbox.put(1, reply(1)).is_none());
        outbox.seal();
        assert!(outbox.put(2, reply(2)).is_none());
        assert!(outbox.put(1, reply(3)).is_none(), "a read of what is in flight waits for the flight");
        outbox.seal();
        assert_eq!(slots(&outbox.release()), [1, 3]);
        assert!(outbox.put(1, reply(4)).is_some(), "what is durable leaves at once");
        assert_eq!(slots(&outbox.release()), [2]);
        assert_eq!(outbox.open(), 3);
    }

    #[test]
    fn a_failed_log_releases_nothing_but_the_names_of_those_who_wait() {
        let mut outbox = Outbox::new();
        assert!(outbox.put(1, reply(7)).is_none());
        outbox.seal();
        assert!(outbox.put(2, reply(8)).is_none());
        let waiting: Vec<_> = outbox.abandon().iter().map(|to| to.slot).collect();
        assert_eq!(waiting, [7, 8]);
    }
}
