//! Group commit: the shard submits batches, one task writes and syncs them, a batch fills while one is in
//! flight. What it writes to is a [`Sink`]: the files of a [`Log`](super::Log), or a store elsewhere.
//!
//! [`CommitHandle`] is the shard's end: cheap to clone, never blocks. What is submitted gets its position at
//! once and waits; at most one write is in flight, and what waits when it ends goes into the next one, a
//! frame each. When [`durable`](CommitHandle::durable) advances, or the journal fails, every waker given to
//! [`poll_progress`](CommitHandle::poll_progress) is called. Buffers come back for reuse.
//!
//! What waits is bounded by the shard: it looks at [`backlog_bytes`](CommitHandle::backlog_bytes) and stops
//! taking commands at `limits::JOURNAL_BACKLOG_BYTES_MAX`. After a failure submits are refused and nothing
//! becomes durable any more.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::{Durability, Fence, Position, Sealed, Sink};
use crate::io;
use crate::limits;
use crate::model::FrameRef;
use crate::store::Error;

/// Spent buffers kept for reuse.
const SPENT_BUFFERS_MAX: usize = 8;

#[derive(Debug)]
struct Shared {
    fence: Fence,
    batch_bytes_max: usize,
    next: Cell<Position>,
    durable: Cell<Position>,
    synced: Cell<Position>,
    backlog_bytes: Cell<usize>,
    sync_due: Cell<bool>,
    sync_armed: Cell<bool>,
    stopping: Cell<bool>,
    in_flight: Cell<bool>,
    queue: RefCell<VecDeque<Vec<u8>>>,
    spent: RefCell<Vec<Vec<u8>>>,
    done: RefCell<Vec<(Position, FrameRef)>>,
    released: RefCell<Vec<u64>>,
    sealed: RefCell<Vec<Sealed>>,
    sealed_version: Cell<u64>,
    failure: RefCell<Option<Arc<str>>>,
    committer: RefCell<Option<Waker>>,
    watchers: RefCell<Vec<Waker>>,
    counts: Counts,
}

/// What the committer has done.
#[derive(Debug, Default)]
struct Counts {
    writes: Cell<u64>,
    frames: Cell<u64>,
}

/// The shard's end of a journal.
#[derive(Clone, Debug)]
pub struct CommitHandle(Rc<Shared>);

impl CommitHandle {
    /// Queues a batch (`store::record`) and says which position it gets. It is durable once
    /// [`durable`](Self::durable) is there.
    ///
    /// # Errors
    /// `Fenced` after a failure or a stop, `BatchTooLarge`; nothing was queued.
    pub fn submit(&self, batch: Vec<u8>) -> Result<Position, Error> {
        let shared = &self.0;
        if let Some(cause) = self.failure() {
            return Err(Error::Fenced { cause });
        }
        if shared.stopping.get() {
            return Err(Error::Fenced { cause: "the journal is closing".into() });
        }
        let max = shared.batch_bytes_max;
        if batch.len() > max {
            return Err(Error::BatchTooLarge { bytes: batch.len(), max });
        }
        let position = shared.next.get();
        shared.next.set(position + 1);
        shared.backlog_bytes.set(shared.backlog_bytes.get() + batch.len());
        shared.queue.borrow_mut().push_back(batch);
        shared.wake_committer();
        Ok(position)
    }

    /// An empty buffer for the next batch, used before where possible.
    pub fn buffer(&self) -> Vec<u8> {
        let mut buffer = self.0.spent.borrow_mut().pop().unwrap_or_default();
        buffer.clear();
        buffer
    }

    /// The last position acknowledged at the configured level; everything before it is too.
    pub fn durable(&self) -> Position {
        self.0.durable.get()
    }

    /// The last position that is synced, whatever the level. External calls wait for this one (RELIABILITY
    /// 2.5).
    pub fn synced(&self) -> Position {
        self.0.synced.get()
    }

    /// Has what is written synced without waiting for its time; for levels that acknowledge before.
    pub fn sync_soon(&self) {
        if self.0.synced.get() < self.0.durable.get() {
            self.0.sync_due.set(true);
            self.0.wake_committer();
        }
    }

    /// The position the next batch gets.
    pub fn next(&self) -> Position {
        self.0.next.get()
    }

    /// Is a write under way, or about to be?
    pub fn is_busy(&self) -> bool {
        self.0.in_flight.get() || !self.0.queue.borrow().is_empty()
    }

    /// Bytes submitted and not yet acknowledged.
    pub fn backlog_bytes(&self) -> usize {
        self.0.backlog_bytes.get()
    }

    /// Moves the places of batches that became durable since the last call to `out`, in order.
    pub fn drain_completed(&self, out: &mut Vec<(Position, FrameRef)>) {
        out.append(&mut self.0.done.borrow_mut());
    }

    /// The owner under which everything is written.
    pub fn fence(&self) -> Fence {
        self.0.fence
    }

    /// Why the journal has stopped, when it has.
    pub fn failure(&self) -> Option<Arc<str>> {
        self.0.failure.borrow().clone()
    }

    /// Ready once `durable` is above `seen`, or `synced` is above `synced_seen`, or the journal failed; else
    /// the task is woken then.
    pub fn poll_progress(
        &self,
        context: &mut Context<'_>,
        seen: Position,
        synced_seen: Position,
    ) -> Poll<()> {
        if self.durable() > seen || self.synced() > synced_seen || self.0.failure.borrow().is_some() {
            return Poll::Ready(());
        }
        let mut watchers = self.0.watchers.borrow_mut();
        if !watchers.iter().any(|waker| waker.will_wake(context.waker())) {
            watchers.push(context.waker().clone());
        }
        Poll::Pending
    }

    /// Waits until `position` is acknowledged.
    ///
    /// # Errors
    /// `Fenced`: the journal failed before; whether the batch survives is unknown.
    pub async fn wait(&self, position: Position) -> Result<(), Error> {
        loop {
            let (durable, synced) = (self.durable(), self.synced());
            if durable >= position {
                return Ok(());
            }
            if let Some(cause) = self.failure() {
                return Err(Error::Fenced { cause });
            }
            poll_fn(|context| self.poll_progress(context, durable, synced)).await;
        }
    }

    /// Segments that take no more frames and are not given back, oldest first.
    pub fn sealed(&self) -> Vec<Sealed> {
        self.0.sealed.borrow().clone()
    }

    /// How many these are.
    pub fn sealed_count(&self) -> usize {
        self.0.sealed.borrow().len()
    }

    /// Gives a sealed segment back: its frames may be overwritten from now on. It is used again once all
    /// older ones are given back.
    pub fn release(&self, segment: u64) {
        self.0.sealed.borrow_mut().retain(|sealed| sealed.segment != segment);
        self.0.released.borrow_mut().push(segment);
    }

    /// Frames written and the writes they took.
    pub fn frames_and_writes(&self) -> (u64, u64) {
        (self.0.counts.frames.get(), self.0.counts.writes.get())
    }

    /// Takes no more batches. [`Committer::run`] ends when everything submitted is synced.
    pub fn stop(&self) {
        self.0.stopping.set(true);
        self.0.wake_committer();
    }
}

impl Shared {
    fn wake_committer(&self) {
        if let Some(waker) = self.committer.borrow_mut().take() {
            waker.wake();
        }
    }

    fn wake_watchers(&self) {
        let watchers = std::mem::take(&mut *self.watchers.borrow_mut());
        watchers.into_iter().for_each(Waker::wake);
    }

    fn poll_work(&self, context: &mut Context<'_>) -> Poll<()> {
        if self.sync_due.get() || self.stopping.get() || !self.queue.borrow().is_empty() {
            return Poll::Ready(());
        }
        *self.committer.borrow_mut() = Some(context.waker().clone());
        Poll::Pending
    }
}

/// The task that owns a log. Spawn [`run`](Self::run) on the shard's core.
#[derive(Debug)]
pub struct Committer<S> {
    log: S,
    durability: Durability,
    shared: Rc<Shared>,
    batches: VecDeque<Vec<u8>>,
    spent: Vec<Vec<u8>>,
    done: Vec<(Position, FrameRef)>,
}

impl<S: Sink> Committer<S> {
    /// Takes a claimed log over.
    ///
    /// # Errors
    /// `StaleFence` when the log is not claimed.
    pub fn start(log: S) -> Result<(CommitHandle, Self), Error> {
        let unclaimed = Error::StaleFence { held: Fence::default(), given: Fence::default() };
        let fence = log.fence().ok_or(unclaimed)?;
        let shared = Rc::new(Shared {
            fence,
            batch_bytes_max: log.batch_bytes_max(),
            next: Cell::new(log.next_position()),
            durable: Cell::new(log.synced()),
            synced: Cell::new(log.synced()),
            backlog_bytes: Cell::new(0),
            sync_due: Cell::new(false),
            sync_armed: Cell::new(false),
            stopping: Cell::new(false),
            in_flight: Cell::new(false),
            queue: RefCell::default(),
            spent: RefCell::default(),
            done: RefCell::default(),
            released: RefCell::default(),
            sealed: RefCell::new(log.sealed()),
            sealed_version: Cell::new(log.sealed_version()),
            failure: RefCell::default(),
            committer: RefCell::default(),
            watchers: RefCell::default(),
            counts: Counts::default(),
        });
        let durability = log.durability();
        let (batches, spent, done) = Default::default();
        let committer = Self { log, durability, shared: shared.clone(), batches, spent, done };
        Ok((CommitHandle(shared), committer))
    }

    /// Writes and syncs until stopped or failed.
    ///
    /// # Errors
    /// `Fenced`: the first failure. Nothing submitted after the last durable position is acknowledged.
    pub async fn run(mut self) -> Result<(), Error> {
        let ended = self.serve().await;
        if let Err(error) = &ended {
            let cause = match error {
                Error::Fenced { cause } => cause.clone(),
                other => other.to_string().into(),
            };
            *self.shared.failure.borrow_mut() = Some(cause);
            self.shared.wake_watchers();
        }
        self.log.close().await;
        ended
    }

    async fn serve(&mut self) -> Result<(), Error> {
        let shared = self.shared.clone();
        loop {
            if self.batches.is_empty() {
                poll_fn(|context| shared.poll_work(context)).await;
            }
            for segment in shared.released.take() {
                self.log.release(segment);
            }
            if shared.sync_due.replace(false) {
                self.log.sync().await?;
                self.publish(0);
            }
            self.batches.append(&mut shared.queue.borrow_mut());
            if !self.batches.is_empty() {
                self.write().await?;
            } else if shared.stopping.get() {
                self.log.sync().await?;
                self.publish(0);
                return Ok(());
            }
        }
    }

    async fn write(&mut self) -> Result<(), Error> {
        self.shared.in_flight.set(true);
        let written = self.log.write(&mut self.batches, &mut self.spent, &mut self.done).await;
        self.shared.in_flight.set(false);
        written?;
        self.shared.counts.writes.set(self.shared.counts.writes.get() + 1);
        self.shared.counts.frames.set(self.shared.counts.frames.get() + self.done.len() as u64);
        let bytes = self.spent.iter().map(Vec::len).sum();
        let mut kept = self.shared.spent.borrow_mut();
        for buffer in self.spent.drain(..) {
            // One huge batch must not hold its memory for ever.
            if kept.len() < SPENT_BUFFERS_MAX && buffer.capacity() <= limits::JOURNAL_BATCH_BYTES_MAX {
                kept.push(buffer);
            }
        }
        drop(kept);
        crate::failpoint::pass("journal::before_publish");
        self.shared.done.borrow_mut().append(&mut self.done);
        self.publish(bytes);
        crate::failpoint::pass("journal::after_publish");
        if self.durability == Durability::Os && self.log.synced() + 1 < self.log.next_position() {
            self.arm_sync();
        }
        Ok(())
    }

    /// Shows what is durable now, and wakes those who wait for it.
    fn publish(&self, acknowledged_bytes: usize) {
        let shared = &self.shared;
        shared.backlog_bytes.set(shared.backlog_bytes.get().saturating_sub(acknowledged_bytes));
        shared.synced.set(self.log.synced());
        shared.durable.set(match self.durability {
            Durability::Fsync => self.log.synced(),
            Durability::Os => self.log.next_position() - 1,
        });
        if shared.sealed_version.replace(self.log.sealed_version()) != self.log.sealed_version() {
            let released = shared.released.borrow();
            let mut sealed = self.log.sealed();
            sealed.retain(|sealed| !released.contains(&sealed.segment));
            *shared.sealed.borrow_mut() = sealed;
        }
        shared.wake_watchers();
    }

    /// A sync is due soon, unless one is already.
    fn arm_sync(&self) {
        let shared = self.shared.clone();
        if shared.sync_armed.replace(true) {
            return;
        }
        io::spawn_local(async move {
            io::sleep(Duration::from_millis(limits::JOURNAL_UNSYNCED_MILLIS_MAX)).await;
            shared.sync_armed.set(false);
            shared.sync_due.set(true);
            shared.wake_committer();
        });
    }
}
