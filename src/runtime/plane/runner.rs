//! The runner plane's loop: one task per shard, on its core, from commands to durable batches to releases.
//!
//! A batch fills while the one before it is on its way to the disk (compute ahead, release after). The loop turns while
//! there is anything to do and yields each turn, so that the ring is looked at; otherwise it waits for a command, the
//! log, a timer or the index. It never waits for the disk with work at hand, and never takes commands it could not
//! write down ([`Shard::is_backlogged`]).

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::pushing::Pushing;
use crate::engine::command::{Envelope, Errand, Refusal, Reply, ReplyTo};
use crate::failpoint;
use crate::fanout::Push;
use crate::model::approval::Noted;
use crate::model::{FrameRef, RunId};
use crate::queue::{Receiver, Sender};
use crate::runtime::clock::ShardClock;
use crate::runtime::index::IndexJob;
use crate::runtime::shard::image::{Saved, Taken};
use crate::runtime::shard::{Releases, SegmentStep, Shard};
use crate::store::Position;
use crate::store::archive::ArchiveRow;
use crate::store::artifacts::Due;
use crate::store::log::CommitHandle;
use crate::telemetry::ShardCells;
use crate::time::Timestamp;

type Sleep = Pin<Box<dyn Future<Output = ()>>>;

/// Commands taken in one turn.
const COMMANDS_PER_TURN: usize = 256;
/// Timers fired in one turn.
const TIMERS_PER_TURN: usize = 1_024;
/// Slices of work in one turn.
const SLICES_PER_TURN: usize = 32;
/// How long the end of the node waits for images and rows; what is not saved is read again at the next start.
const SAVE_WITHIN_US: u64 = 5_000_000;
/// How often segments are looked over.
const SEGMENTS_EVERY_US: u64 = 1_000_000;

/// What the index thread tells a shard.
#[derive(Debug)]
pub(crate) enum Indexed {
    /// These runs are in the index.
    Rows(Vec<RunId>),
    /// These images are.
    Images(Vec<Saved>),
    /// The segment is in history: its file may be used again.
    Moved(u64),
    /// It could not be moved.
    Stays(u64),
}

/// The doors of one shard.
pub(crate) struct Doors {
    /// From every core that asks.
    pub(crate) commands: Receiver<Envelope>,
    /// To every core that asked, by its index.
    pub(crate) replies: Vec<Sender<(ReplyTo, Reply)>>,
    /// To the fanout cores; each has asked for what it gets.
    pub(crate) pushes: Vec<Sender<Push>>,
    /// To the control cores, for what is to be done elsewhere; a run's partition says which.
    pub(crate) errands: Vec<Sender<Errand>>,
    /// To the index thread.
    pub(crate) index: Sender<IndexJob>,
    /// And back.
    pub(crate) indexed: Receiver<Indexed>,
}

/// What waits for the index, in order.
enum ForIndex {
    Reviews(Vec<Noted>),
    Patched(Vec<Due>),
    Rows(Vec<ArchiveRow>),
    Images(Vec<Taken>),
}

/// One shard's loop.
pub(crate) struct Runner {
    shard: Shard,
    doors: Doors,
    log: CommitHandle,
    clock: ShardClock,
    cells: Arc<ShardCells>,
    stop: Arc<std::sync::atomic::AtomicBool>,
    /// What happened to reviews, rows and images that wait for a sync or for room, each with the position they follow from: the index must not know
    /// more than the log will after a power cut.
    rows: VecDeque<(Position, ForIndex)>,
    /// Errands that wait for a sync or for room, oldest first, each with the position it follows from. What leaves the node
    /// waits for the sync also where acknowledgements do not (RELIABILITY 2.5).
    errands: VecDeque<(Position, Errand)>,
    /// Jobs for workers that wait for the sync of their leases.
    hand_outs: VecDeque<(Position, (ReplyTo, Reply))>,
    pushing: Pushing,
    steps: Vec<SegmentStep>,
    /// Position of the last batch known to be durable.
    seen: Position,
    completed: Vec<(Position, FrameRef)>,
    segments_seen_us: u64,
    /// Since when segments that were given back wait for a frame that says so.
    giving_back: Option<u64>,
    /// When it was first seen that the node stops.
    stopping_us: Option<u64>,
    /// When the batch under way was handed to the log.
    submitted_us: u64,
    /// When it ends, and itself.
    sleep: Option<(Timestamp, Sleep)>,
}

impl Runner {
    pub(crate) fn new(
        shard: Shard,
        doors: Doors,
        log: CommitHandle,
        clock: ShardClock,
        shared: (Arc<ShardCells>, Arc<std::sync::atomic::AtomicBool>),
    ) -> Self {
        let (cells, stop) = shared;
        Self {
            seen: log.durable(),
            shard,
            doors,
            log,
            clock,
            cells,
            stop,
            rows: VecDeque::new(),
            errands: VecDeque::new(),
            hand_outs: VecDeque::new(),
            pushing: Pushing::default(),
            steps: Vec::new(),
            completed: Vec::new(),
            segments_seen_us: 0,
            giving_back: None,
            stopping_us: None,
            submitted_us: 0,
            sleep: None,
        }
    }

    /// Runs until told to stop, everything sealed is durable, and the index has images of what goes on (F306).
    pub(crate) async fn run(mut self) {
        loop {
            let busy = self.turn();
            if self.is_over() {
                // What the last images have settled need not be read at the next start.
                self.segments_seen_us = 0;
                self.look_over_segments(self.clock.now());
                self.log.stop();
                break;
            }
            if busy {
                crate::io::yield_now().await;
            } else {
                self.wait().await;
            }
        }
    }

    /// Everything that can be done now. Returns whether there is more.
    fn turn(&mut self) -> bool {
        let now = self.clock.now();
        self.cells.heartbeat_us.set(self.clock.monotonic_us());
        failpoint::pass("shard::turn");
        self.take_from_index(now);
        self.take_from_log();
        let stopping = self.stop.load(std::sync::atomic::Ordering::Acquire);
        if stopping {
            self.stopping_us.get_or_insert(self.clock.monotonic_us());
        }
        let mut busy = false;
        // Told to stop, it begins nothing more: what a run has left to do is found by the next start, and a run that always has something
        // would keep the log busy for ever.
        if !stopping && !self.shard.is_backlogged() && !self.shard.is_fenced() {
            busy |= self.shard.fire_timers(now, TIMERS_PER_TURN);
            self.shard.work(now, SLICES_PER_TURN);
            busy |= self.shard.has_work();
        }
        if !self.shard.is_backlogged() {
            busy |= self.take_commands(now);
        }
        busy |= self.shard.take_images(stopping, now) | self.shard.park_again(now);
        self.submit();
        self.look_over_segments(now);
        self.deliver();
        busy
    }

    fn take_commands(&mut self, now: Timestamp) -> bool {
        for _ in 0..COMMANDS_PER_TURN {
            if self.shard.is_backlogged() {
                return false;
            }
            let Some(envelope) = self.doors.commands.try_recv() else { return false };
            self.shard.command(envelope, now);
        }
        true
    }

    fn take_from_index(&mut self, now: Timestamp) {
        while let Some(indexed) = self.doors.indexed.try_recv() {
            match indexed {
                Indexed::Rows(run_ids) => self.shard.indexed(&run_ids, now),
                Indexed::Images(saved) => self.shard.imaged(saved),
                Indexed::Moved(segment) => self.give_back(segment),
                Indexed::Stays(segment) => self.shard.segment_stays(segment, now),
            }
        }
    }

    fn take_from_log(&mut self) {
        self.cells.unmoved_segments.set(self.log.sealed_count() as u64);
        self.log.drain_completed(&mut self.completed);
        for (position, frame) in self.completed.drain(..) {
            self.seen = position;
            self.cells.sync_us.add(self.clock.monotonic_us().saturating_sub(self.submitted_us));
            self.shard.committed(frame);
        }
        if let Some(cause) = self.log.failure() {
            self.shard.fence(cause);
        }
    }

    /// Gives the open batch to the log when nothing is on its way.
    fn submit(&mut self) {
        if self.log.is_busy() || self.shard.is_fenced() {
            return;
        }
        let batch = self.shard.seal(self.log.buffer());
        let due = |since_us| self.clock.monotonic_us().saturating_sub(since_us) >= SEGMENTS_EVERY_US;
        let batch = match batch {
            // Nobody writes; without another frame the disk would never have the segments back.
            None if self.giving_back.is_some_and(due) && self.stopping_us.is_none() => {
                Some(self.shard.seal_nothing())
            }
            batch => batch,
        };
        if let Some(batch) = batch {
            self.giving_back = None;
            self.cells.batch_bytes.add(batch.len() as u64);
            self.submitted_us = self.clock.monotonic_us();
            if let Err(error) = self.log.submit(batch) {
                self.shard.fence(error.to_string().into());
            }
        }
    }

    fn give_back(&mut self, segment: u64) {
        self.shard.segment_moved(segment);
        self.log.release(segment);
        self.giving_back.get_or_insert(self.clock.monotonic_us());
    }

    fn look_over_segments(&mut self, now: Timestamp) {
        let monotonic_us = self.clock.monotonic_us();
        if monotonic_us < self.segments_seen_us + SEGMENTS_EVERY_US {
            return;
        }
        self.segments_seen_us = monotonic_us;
        let (mut sealed, synced) = (self.log.sealed(), self.log.synced());
        // Where nothing durable follows, the log may end: recovery reads that segment, so it must stay what it is.
        sealed.retain(|sealed| sealed.last < synced);
        self.shard.segment_steps(&sealed, now, &mut self.steps);
        let shard = self.shard.index();
        for step in std::mem::take(&mut self.steps) {
            match step {
                SegmentStep::Release { segment } => self.give_back(segment),
                SegmentStep::Move(sealed) => {
                    if self.doors.index.send(IndexJob::Move { shard, sealed }).is_err() {
                        self.steps.push(step);
                    }
                }
            }
        }
    }

    /// Lets go of what may leave. Reply queues have room by construction; a full push queue makes watchers resync.
    fn deliver(&mut self) {
        self.hold_hand_outs();
        let Releases { replies, pushes, reviews, patched, images, rows, errands, .. } = self.shard.releases();
        let mut woken = 0_u64;
        let replying = !replies.is_empty();
        if replying {
            failpoint::pass("runner::reply");
        }
        for (reply_to, reply) in replies.drain(..) {
            if let Some(sender) = self.doors.replies.get(usize::from(reply_to.core)) {
                // A full queue is a bug (its room is reserved): counted by the queue, and the caller times out.
                let _ = sender.push((reply_to, reply));
                woken |= 1 << (reply_to.core & 63);
            }
        }
        for (index, sender) in self.doors.replies.iter().enumerate() {
            if woken & (1 << (index & 63)) != 0 {
                sender.wake();
            }
        }
        if replying {
            failpoint::pass("runner::reply_left");
        }
        self.pushing.deliver(&self.doors.pushes, pushes);
        let follows_from = self.seen;
        self.errands.extend(errands.drain(..).map(|errand| (follows_from, errand)));
        if !reviews.is_empty() {
            self.rows.push_back((follows_from, ForIndex::Reviews(std::mem::take(reviews))));
        }
        if !patched.is_empty() {
            self.rows.push_back((follows_from, ForIndex::Patched(std::mem::take(patched))));
        }
        if !images.is_empty() {
            self.rows.push_back((follows_from, ForIndex::Images(std::mem::take(images))));
        }
        if !rows.is_empty() {
            self.rows.push_back((follows_from, ForIndex::Rows(std::mem::take(rows))));
        }
        self.run_errands();
        self.send_rows();
    }

    /// Hands rows and images to the index, in order, as far as the log is synced.
    fn send_rows(&mut self) {
        let (synced, shard) = (self.log.synced(), self.shard.index());
        while let Some((follows_from, what)) =
            self.rows.pop_front_if(|(follows_from, _)| *follows_from <= synced)
        {
            failpoint::pass("runner::rows");
            let job = match what {
                ForIndex::Reviews(noted) => IndexJob::Reviews(noted),
                ForIndex::Patched(patches) => IndexJob::Patched(patches),
                ForIndex::Rows(rows) => IndexJob::Rows { shard, rows },
                ForIndex::Images(images) => IndexJob::Images { shard, images },
            };
            let back = match self.doors.index.send(job) {
                Err(IndexJob::Reviews(noted)) => ForIndex::Reviews(noted),
                Err(IndexJob::Patched(patches)) => ForIndex::Patched(patches),
                Err(IndexJob::Rows { rows, .. }) => ForIndex::Rows(rows),
                Err(IndexJob::Images { images, .. }) => ForIndex::Images(images),
                _ => continue,
            };
            return self.rows.push_front((follows_from, back));
        }
    }

    /// What hands something out is an answer like the others once its cause is synced; or is refused, when it never will be.
    fn hold_hand_outs(&mut self) {
        let (follows_from, synced) = (self.seen, self.log.synced());
        let cause = self.log.failure();
        let shard = self.shard.index();
        let Releases { replies, hand_outs, .. } = self.shard.releases();
        self.hand_outs.extend(hand_outs.drain(..).map(|reply| (follows_from, reply)));
        while let Some((_, reply)) = self.hand_outs.pop_front_if(|(follows_from, _)| *follows_from <= synced)
        {
            replies.push(reply);
        }
        if let Some(cause) = cause {
            let fenced = || Refusal::Fenced { shard, cause: cause.clone(), untouched: false };
            let refused = self.hand_outs.drain(..).map(|(_, (to, _))| (to, Reply::Refused(fenced())));
            replies.extend(refused);
        } else if !self.hand_outs.is_empty() {
            self.log.sync_soon();
        }
    }

    /// Hands out errands in order; what a full queue does not take is kept, and tried again within a second.
    fn run_errands(&mut self) {
        let doors = self.doors.errands.len().max(1);
        while let Some((follows_from, errand)) = self.errands.pop_front() {
            if follows_from > self.log.synced() && !failpoint::mutant("effect_before_durable") {
                self.errands.push_front((follows_from, errand));
                return self.log.sync_soon();
            }
            let at = usize::from(errand.run_id().partition().index()) % doors;
            let Some(sender) = self.doors.errands.get(at) else { return };
            failpoint::pass("runner::errand");
            if let Err(errand) = sender.send(errand) {
                return self.errands.push_front((follows_from, errand));
            }
            failpoint::pass("runner::errand_left");
        }
    }

    fn is_quiet(&self) -> bool {
        self.shard.is_fenced() || (!self.log.is_busy() && !self.shard.has_open_batch())
    }

    /// Told to stop, and nothing is left to be done, or no time.
    fn is_over(&self) -> bool {
        if !self.stop.load(std::sync::atomic::Ordering::Acquire) || !self.is_quiet() {
            return false;
        }
        let saved = !self.shard.has_unsaved() && self.rows.is_empty();
        saved
            || self.shard.is_fenced()
            || self
                .stopping_us
                .is_some_and(|since| self.clock.monotonic_us().saturating_sub(since) > SAVE_WITHIN_US)
    }

    /// Waits for a command, the log, the index or the next timer.
    async fn wait(&mut self) {
        self.arm_sleep();
        poll_fn(|context| self.poll_anything(context)).await;
    }

    fn poll_anything(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let mut ready = !self.shard.is_backlogged() && self.doors.commands.poll_ready(context).is_ready();
        ready |= self.doors.indexed.poll_ready(context).is_ready();
        // A log that has failed says so for ever; once that is known there is nothing to wait for.
        let synced = self.log.synced();
        let waits_for_sync = self.errands.front().is_some_and(|(follows_from, _)| *follows_from > synced)
            || self.hand_outs.front().is_some_and(|(follows_from, _)| *follows_from > synced)
            || self.rows.front().is_some_and(|(follows_from, _)| *follows_from > synced);
        let synced_seen = if waits_for_sync { synced } else { u64::MAX };
        ready |=
            !self.shard.is_fenced() && self.log.poll_progress(context, self.seen, synced_seen).is_ready();
        if let Some((_, sleep)) = &mut self.sleep
            && sleep.as_mut().poll(context).is_ready()
        {
            self.sleep = None;
            ready = true;
        }
        ready |= self.is_over();
        if ready { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Makes the sleep end when the next timer is due, or within a second for house-keeping while there is any.
    fn arm_sleep(&mut self) {
        let now = self.clock.now();
        let house_keeping = now.saturating_add(Duration::from_secs(1));
        let due = self.shard.next_due().map_or(house_keeping, |due| due.min(house_keeping));
        if self.sleep.as_ref().is_none_or(|(at, _)| due < *at || *at <= now) {
            self.sleep = Some((due, Box::pin(crate::io::sleep(now.until(due)))));
        }
    }
}
