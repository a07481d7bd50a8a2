//! The reference journal, in memory, with faults: what every other one is compared with, and what the shard
//! is tested on.
//!
//! A [`MemoryDisk`] outlives its journals as a disk outlives processes. It can *freeze* at the n-th sync
//! (the sync and everything after it report success and never reach the disk: a crash at that moment) or
//! *fail* the n-th sync. Reopening after a crash shows what had been synced before.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use super::Error;
use super::journal::{Fence, Journal, Position};

#[derive(Clone, Debug)]
struct Entry {
    fence: Fence,
    /// `None` is a claim.
    batch: Option<Vec<u8>>,
}

#[derive(Debug, Default)]
struct Image {
    entries: Vec<Entry>,
    trimmed: Position,
    synced: usize,
    syncs: u64,
    freeze_at: Option<u64>,
    fail_at: Option<u64>,
}

/// Where a memory journal keeps its batches. Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct MemoryDisk(Rc<RefCell<Image>>);

impl MemoryDisk {
    /// The `nth` sync from now on, and everything after it, is lost, though it reports success.
    pub fn freeze_at_sync(&self, nth: u64) {
        let mut image = self.0.borrow_mut();
        image.freeze_at = Some(image.syncs + nth);
    }

    /// The `nth` sync from now on fails.
    pub fn fail_sync(&self, nth: u64) {
        let mut image = self.0.borrow_mut();
        image.fail_at = Some(image.syncs + nth);
    }

    /// Syncs asked for.
    pub fn syncs(&self) -> u64 {
        self.0.borrow().syncs
    }

    /// The process died: what was not synced is gone, faults are over.
    pub fn crash(&self) {
        let mut image = self.0.borrow_mut();
        let synced = image.synced;
        image.entries.truncate(synced);
        (image.freeze_at, image.fail_at) = (None, None);
    }
}

/// A journal on a [`MemoryDisk`].
#[derive(Debug)]
pub struct MemoryJournal {
    disk: MemoryDisk,
    durable: Position,
    failure: Option<Arc<str>>,
}

impl MemoryJournal {
    /// Opens what is on `disk`.
    pub fn open(disk: &MemoryDisk) -> Self {
        let durable = disk.0.borrow().entries.len() as Position;
        Self { disk: disk.clone(), durable, failure: None }
    }

    fn push(&mut self, entry: Entry) -> Result<(), Error> {
        let mut image = self.disk.0.borrow_mut();
        image.entries.push(entry);
        image.syncs += 1;
        if image.fail_at == Some(image.syncs) {
            let cause: Arc<str> = "the sync failed".into();
            self.failure = Some(cause.clone());
            return Err(Error::Fenced { cause });
        }
        if image.freeze_at.is_none_or(|at| image.syncs < at) {
            image.synced = image.entries.len();
        }
        self.durable = image.entries.len() as Position;
        Ok(())
    }

    fn check(&self) -> Result<(), Error> {
        self.failure.as_ref().map_or(Ok(()), |cause| Err(Error::Fenced { cause: cause.clone() }))
    }

    fn entry(&self, position: Position) -> Option<Entry> {
        let index = usize::try_from(position.checked_sub(1)?).ok()?;
        self.disk.0.borrow().entries.get(index).cloned()
    }
}

impl Journal for MemoryJournal {
    async fn claim(&mut self, nonce: u64) -> Result<Fence, Error> {
        self.check()?;
        let epoch = self.disk.0.borrow().entries.last().map_or(0, |entry| entry.fence.epoch) + 1;
        let fence = Fence { epoch, nonce };
        self.push(Entry { fence, batch: None })?;
        Ok(fence)
    }

    async fn append(&mut self, fence: Fence, position: Position, batch: &[u8]) -> Result<(), Error> {
        let held = self.disk.0.borrow().entries.last().map(|entry| entry.fence).unwrap_or_default();
        if held != fence || held == Fence::default() {
            return Err(Error::StaleFence { held, given: fence });
        }
        self.check()?;
        let next = self.next();
        if position > next || position == 0 {
            return Err(Error::WrongPosition { expected: next, given: position });
        }
        if position < next {
            let same = self
                .entry(position)
                .is_some_and(|entry| entry.fence == fence && entry.batch.as_deref() == Some(batch));
            return if same { Ok(()) } else { Err(Error::DifferentBatch { position }) };
        }
        self.push(Entry { fence, batch: Some(batch.to_vec()) })
    }

    fn next(&self) -> Position {
        self.disk.0.borrow().entries.len() as Position + 1
    }

    fn durable(&self) -> Position {
        self.durable
    }

    async fn read(&mut self, from: Position, bytes_max: usize) -> Result<Vec<(Position, Vec<u8>)>, Error> {
        let first = self.disk.0.borrow().trimmed + 1;
        if from < first {
            return Err(Error::Trimmed { first, wanted: from });
        }
        let (mut found, mut bytes) = (Vec::new(), 0);
        for position in from..=self.durable {
            let Some(Entry { batch: Some(batch), .. }) = self.entry(position) else { continue };
            bytes += batch.len();
            found.push((position, batch));
            if bytes >= bytes_max {
                break;
            }
        }
        Ok(found)
    }

    async fn trim(&mut self, before: Position) -> Result<(), Error> {
        let durable = self.durable;
        let mut image = self.disk.0.borrow_mut();
        image.trimmed = image.trimmed.max(before.saturating_sub(1).min(durable));
        Ok(())
    }
}
