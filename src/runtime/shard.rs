//! A shard: the owner of some partitions' runs, as a state machine without I/O.
//!
//! It owns the runs, their timers, their keys and the outbox. The loop around it (`runtime::plane::runner`) brings
//! commands, time and the log's progress in, and carries batches and releases out. What must hold: state changes only
//! by folding events; every event goes into the open batch in the same call that folds it; nothing is released before
//! the batch it depends on is durable; every command is answered exactly once. When too much waits for the disk
//! ([`Shard::is_backlogged`]) the loop brings no more commands, the queue fills, and callers are refused there.

mod attempts;
mod commands;
mod entry;
mod errands;
mod fence;
mod finish;
mod fork;
pub(crate) mod image;
mod letters;
mod once;
mod outbox;
mod parking;
mod patches;
mod recalls;
mod recover;
mod reviews;
mod run_key;
mod segments;
mod signals;
mod timers;
mod unreadable;
mod unsaved;
mod waiters;
mod work;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

pub(crate) use self::recover::{Counts, Recovery, Sources};
pub(crate) use self::segments::SegmentStep;

use self::image::Taken;
use self::outbox::{Batch, Outbox, Release};
use self::parking::Parking;
use self::recalls::Recalls;
use self::reviews::Reviews;
use self::run_key::RunKeys;
use self::segments::Segments;
use self::timers::{Held, Timers, Turn};
use self::unreadable::Unreadable;
use self::unsaved::Images;
use self::waiters::Waiter;
use self::work::WorkQueue;
use crate::engine::command::{Errand, Refusal, Reply, ReplyTo};
use crate::engine::{self, Derived, Input, Outcome, Run};
use crate::failpoint;
use crate::fanout::{Cores, Push, Whose};
use crate::limits;
use crate::model::approval::Noted;
use crate::model::event::{EventBody, Idempotency};
use crate::model::money::Usd;
use crate::model::{Claim, FrameRef, Kept, Place, RunId, Seq, Status, kept};
use crate::store::archive::ArchiveRow;
use crate::store::artifacts::Due;
use crate::store::log::Sealed;
use crate::store::record::{self, BurstHead};
use crate::telemetry::ShardCells;
use crate::time::Timestamp;

/// Map from things whose order is never seen; fixed keys, so that a shard behaves the same every time.
type IdMap<K, V> = ahash::AHashMap<K, V>;

/// What a shard is told once.
#[derive(Clone, Debug)]
pub(crate) struct ShardConfig {
    /// Which.
    pub(crate) index: u16,
    /// Owner epoch: every acknowledgement carries it.
    pub(crate) epoch: u64,
    /// How long finished runs stay readable whose document does not say.
    pub(crate) retention: Duration,
    /// Unfinished runs it holds at most.
    pub(crate) runs_live_max: usize,
}

/// One run and what the shard knows about it.
#[derive(Debug)]
struct Entry {
    run: Run,
    /// The batch with its latest events.
    batch: Batch,
    /// Number of its latest durable event.
    durable_seq: Seq,
    /// Where its durable events stand.
    frames: SmallVec<[FrameRef; 2]>,
    /// What of it the index has an image of.
    saved: unsaved::Saved,
    timers: Held,
    waiters: Vec<Waiter>,
    /// Its summary when its first burst was over: what the acknowledgement of the start said.
    acknowledged: (Status, Seq),
    /// Which fanout cores want its events.
    watchers: Cores,
    /// It stands in the work queue.
    queued: bool,
    /// Its values that are contents of the content store; `None` for most runs.
    kept: Option<Arc<Kept>>,
}

/// What an idempotency key stands for.
#[derive(Clone, Copy, Debug)]
struct Keyed {
    run_id: RunId,
    fingerprint: [u8; 16],
}

/// What leaves the shard in one turn.
#[derive(Debug, Default)]
pub(crate) struct Releases {
    /// Answers.
    pub(crate) replies: Vec<(ReplyTo, Reply)>,
    /// Answers that wait for the sync at every level of durability.
    pub(crate) hand_outs: Vec<(ReplyTo, Reply)>,
    /// Events of watched runs.
    pub(crate) pushes: Vec<Push>,
    /// What happened to reviews, for the index. It goes before images and rows: these say that it need not be read again.
    pub(crate) reviews: Vec<Noted>,
    /// Changes of graphs for the index. They go before the images.
    pub(crate) patched: Vec<Due>,
    /// Unfinished runs for the index. They go before the rows: a run's row takes its image away.
    pub(crate) images: Vec<Taken>,
    /// Finished runs for the index.
    pub(crate) rows: Vec<ArchiveRow>,
    /// What is to be done elsewhere.
    pub(crate) errands: Vec<Errand>,
}

/// A shard.
#[derive(Debug)]
pub(crate) struct Shard {
    config: ShardConfig,
    cells: Arc<ShardCells>,
    runs: IdMap<RunId, Box<Entry>>,
    /// Runs at rest, kept as bytes: never in both.
    parking: Parking,
    /// Finished, durable, and not yet in the index.
    unindexed: usize,
    keys: IdMap<[u8; 16], Keyed>,
    /// The latest run under each business key, until it is in the index.
    run_keys: RunKeys,
    /// Keys of indexed runs, and when each was indexed: the index answers for them now.
    keys_indexed: VecDeque<(Timestamp, [u8; 16])>,
    timers: Timers,
    /// Runs that can go on without anyone.
    work: WorkQueue,
    outbox: Outbox,
    /// The open batch.
    open: Vec<u8>,
    segments: Segments,
    images: Images,
    recalls: Recalls,
    reviews: Reviews,
    releases: Releases,
    outcome: Outcome,
    finished_cells: IdMap<Arc<str>, Arc<[crate::telemetry::Cell; 3]>>,
    fenced: Option<Arc<str>>,
    /// Attempts made at most once that were under way when the node went down.
    lost: Vec<(RunId, Place, Seq)>,
    /// Signals whose bytes start where a token must not.
    token_buffer: rkyv::util::AlignedVec,
    /// What the command under way brings that is kept by reference, and for which run.
    given: Option<(RunId, Arc<Kept>)>,
    /// The key of the command under way, and for which run.
    asked: Option<(RunId, Idempotency)>,
    /// Unfinished runs whose history cannot be read.
    unreadable: IdMap<RunId, Box<Unreadable>>,
    /// Fanout cores that want the events of all runs.
    feeds: Cores,
}

impl Shard {
    /// A shard without runs.
    pub(crate) fn new(config: ShardConfig, cells: Arc<ShardCells>) -> Self {
        Self {
            segments: Segments::default(),
            images: Images::default(),
            recalls: Recalls::default(),
            reviews: Reviews::default(),
            config,
            cells,
            runs: IdMap::default(),
            parking: Parking::default(),
            unindexed: 0,
            keys: IdMap::default(),
            run_keys: IdMap::default(),
            keys_indexed: VecDeque::new(),
            timers: Timers::default(),
            work: WorkQueue::default(),
            outbox: Outbox::new(),
            open: Vec::new(),
            releases: Releases::default(),
            outcome: Outcome::default(),
            finished_cells: IdMap::default(),
            fenced: None,
            lost: Vec::new(),
            token_buffer: rkyv::util::AlignedVec::new(),
            given: None,
            asked: None,
            unreadable: IdMap::default(),
            feeds: Cores::default(),
        }
    }

    /// Claims of all unfinished runs, and whether each was admitted.
    pub(crate) fn claims(&self) -> impl Iterator<Item = (RunId, Claim, bool)> {
        let runs = self.runs.iter();
        runs.filter_map(|(run_id, entry)| entry.run.claim().map(|(claim, held)| (*run_id, claim, held)))
    }

    /// What unfinished runs have spent on models: workflow, role, dollars, tokens. Asked before any is parked.
    pub(crate) fn charges(&self) -> impl Iterator<Item = (Arc<str>, Arc<str>, Usd, u64)> {
        self.runs.values().flat_map(|entry| {
            let charges = entry.run.charges().into_iter();
            let workflow = (charges.len() > 0).then(|| entry.run.summary().workflow);
            charges.zip(workflow.into_iter().cycle()).map(|((role, usd, tokens), of)| (of, role, usd, tokens))
        })
    }

    /// The owner epoch, known once the log is claimed. What recovery wants handed out again goes out under it.
    pub(crate) fn set_epoch(&mut self, epoch: u64) {
        self.config.epoch = epoch;
        errands::set_epoch(&mut self.releases.errands, epoch);
    }

    /// Fires what is due, at most `count_max` timers. Returns whether more are due.
    pub(crate) fn fire_timers(&mut self, now: Timestamp, count_max: usize) -> bool {
        let mut turn = Turn::of(count_max);
        loop {
            if self.is_backlogged() {
                return false;
            }
            let Some((run_id, timer)) = self.timers.pop_due(now, &mut turn) else { break };
            failpoint::pass("shard::timer");
            self.input(run_id, Input::Timer(&timer), now);
        }
        self.timers.next_due().is_some_and(|due| due <= now)
    }

    /// Lets runs that can go on do so, at most `slices` of [`limits::STEPS_PER_SLICE`] steps.
    pub(crate) fn work(&mut self, now: Timestamp, slices: usize) {
        self.give_lost(now);
        for _ in 0..slices {
            if self.is_backlogged() {
                return;
            }
            let Some(run_id) = self.work.pop() else { return };
            if let Some(entry) = self.runs.get_mut(&run_id) {
                entry.queued = false;
            }
            self.input(run_id, Input::Continue, now);
        }
    }

    /// Which shard.
    pub(crate) fn index(&self) -> u16 {
        self.config.index
    }

    /// Unfinished runs.
    fn live(&self) -> usize {
        (self.runs.len() + self.parking.len()).saturating_sub(self.unindexed)
    }

    /// Is there anything in the open batch?
    pub(crate) fn has_open_batch(&self) -> bool {
        !self.open.is_empty()
    }

    /// Is there work that waits for nobody?
    pub(crate) fn has_work(&self) -> bool {
        !self.work.is_empty() || !self.lost.is_empty()
    }

    /// When to look at the timers again. While none may fire there is no such time: sleeping until one that is due would
    /// be no sleep at all.
    pub(crate) fn next_due(&self) -> Option<Timestamp> {
        if self.is_backlogged() || self.is_fenced() { None } else { self.timers.next_due() }
    }

    /// Does too much wait for the disk, or for the index?
    pub(crate) fn is_backlogged(&self) -> bool {
        self.open.len() >= limits::JOURNAL_BATCH_BYTES_FULL || self.unindexed >= limits::UNINDEXED_RUNS_MAX
    }

    /// The open batch, when there is anything in it. A new one is opened in `spare`.
    pub(crate) fn seal(&mut self, spare: Vec<u8>) -> Option<Vec<u8>> {
        if self.open.is_empty() {
            return None;
        }
        failpoint::pass("shard::seal");
        self.outbox.seal();
        Some(std::mem::replace(&mut self.open, spare))
    }

    /// A batch without events, when the open one has none.
    pub(crate) fn seal_nothing(&mut self) -> Vec<u8> {
        self.outbox.seal();
        Vec::new()
    }

    /// The oldest sealed batch is durable, in `frame`.
    pub(crate) fn committed(&mut self, frame: FrameRef) {
        let mut held = self.outbox.release();
        for (run_id, seq) in held.touched.drain(..) {
            if let Some(entry) = self.runs.get_mut(&run_id) {
                entry.events_in(frame, &mut self.segments);
                entry.durable_seq = seq;
                self.images.touched(run_id, entry, frame);
            }
        }
        self.images.writing(frame.segment);
        failpoint::pass("shard::committed");
        for release in held.releases.drain(..) {
            self.let_go(release);
        }
        self.outbox.reuse(held);
        self.cells.batches.increment();
        self.cells.runs_active.set(self.live() as u64);
    }

    /// What may leave now.
    pub(crate) fn releases(&mut self) -> &mut Releases {
        &mut self.releases
    }

    /// Steps to be done for the segments that take no more frames.
    pub(crate) fn segment_steps(&mut self, sealed: &[Sealed], now: Timestamp, steps: &mut Vec<SegmentStep>) {
        if let Some(last) = sealed.last() {
            self.images.writing(last.segment + 1);
        }
        self.segments.steps(sealed, now, steps);
    }

    /// The segment was moved to history; it goes back to the log.
    pub(crate) fn segment_moved(&mut self, segment: u64) {
        self.segments.forget(segment);
    }

    /// The segment could not be moved; it is tried again later.
    pub(crate) fn segment_stays(&mut self, segment: u64, now: Timestamp) {
        self.segments.stays(segment, now);
    }

    fn let_go(&mut self, release: Release) {
        match release {
            Release::Reply(reply_to, reply) => self.releases.replies.push((reply_to, *reply)),
            Release::HandOut(reply_to, reply) => self.releases.hand_outs.push((reply_to, *reply)),
            Release::Push(push) => self.releases.pushes.push(push),
            Release::Located(reply_to, run_id) => {
                let reply = match self.runs.get(&run_id) {
                    Some(entry) => Reply::Located(entry.located()),
                    None => Reply::Refused(Refusal::NotFound(run_id)),
                };
                self.releases.replies.push((reply_to, reply));
            }
            Release::Errand(errand) => self.releases.errands.push(*errand),
            Release::Ended(run_id) => self.archive(run_id),
            Release::Review(noted) => self.releases.reviews.push(*noted),
            Release::Image(taken) => self.image_leaves(*taken),
            Release::Patched(due) => self.releases.patched.push(*due),
        }
    }

    /// Holds an answer back until `batch` is durable.
    fn reply_after(&mut self, batch: Batch, reply_to: ReplyTo, reply: Reply) {
        let release = Release::Reply(reply_to, Box::new(reply));
        let unheld = outbox::mutated(&release);
        if let Some(release) = if unheld { Some(release) } else { self.outbox.put(batch, release) } {
            self.let_go(release);
        }
    }

    /// An answer that depends on nothing.
    fn reply_now(&mut self, reply_to: ReplyTo, reply: Reply) {
        self.releases.replies.push((reply_to, reply));
    }

    /// Gives one input to a run and goes on with it for a slice. An input for a run that is gone is dropped.
    fn input(&mut self, run_id: RunId, input: Input<'_>, now: Timestamp) {
        self.input_watching(run_id, input, None, now);
    }

    /// The same; the end of this node is noted, besides those of the nodes that somebody waits for.
    fn input_watching(&mut self, run_id: RunId, input: Input<'_>, watch: Option<&Place>, now: Timestamp) {
        self.unpark(run_id, now);
        let Some(entry) = self.runs.get_mut(&run_id) else {
            self.cells.stale_dropped.increment();
            return;
        };
        let first_seq = entry.run.seq() + 1;
        self.outcome.clear();
        self.outcome.watched.extend(watch.cloned());
        entry.watch(&mut self.outcome);
        if let Err(error) =
            engine::advance(&mut entry.run, input, now, limits::STEPS_PER_SLICE, &mut self.outcome)
        {
            // The engine refused its own event: a bug. The log must not learn what the state does not say, nor any reader.
            entry.batch = self.outbox.open();
            self.fence(format!("the engine refused its own event in {run_id}: {error}").into());
            return;
        }
        if self.outcome.stale {
            self.cells.stale_dropped.increment();
        }
        self.burst(run_id, first_seq, now);
    }

    /// Writes what `advance` left in `outcome` into the open batch, and does what follows from it.
    fn burst(&mut self, run_id: RunId, first_seq: Seq, now: Timestamp) {
        let batch = self.outbox.open();
        let Some(entry) = self.runs.get_mut(&run_id) else { return };
        for (due, timer) in self.outcome.effects.timers.drain(..) {
            self.timers.arm(&mut entry.timers, due, run_id, timer);
        }
        if !entry.queued && entry.run.is_ready() {
            entry.queued = true;
            self.work.push(run_id, entry.run.priority());
        }
        if self.outcome.events.is_empty() {
            return;
        }
        if let Some((_, given)) = self.given.as_ref().filter(|(whose, _)| *whose == run_id) {
            Arc::make_mut(entry.kept.get_or_insert_default()).absorb(given);
        }
        entry.batch = batch;
        let head = BurstHead { run_id, first_seq, at: now };
        let (open, events) = (&mut self.open, &self.outcome.events);
        if let Err(error) = kept::naming(entry.kept.as_ref(), || record::append(open, head, events)) {
            return self.fence(format!("events of {run_id} cannot be written down: {error}").into());
        }
        let seq = entry.run.seq();
        let (watchers, ended) = (entry.watchers, entry.run.status().is_terminal());
        let pushed = !watchers.and(self.feeds).is_empty();
        let kept = entry.kept.clone().filter(|_| pushed);
        let feed = (!self.feeds.is_empty()).then(|| Whose {
            workflow: entry.run.workflow_shared().clone(),
            graph: entry.run.ir().clone(),
            cores: self.feeds,
        });
        let depth = errands::depth(&entry.run);
        count(&self.cells, &self.outcome);
        self.reviews.happened(run_id, &self.outcome.events);
        let held = self.outbox.open_held();
        let happened = (first_seq..).zip(&self.outcome.events).map(|(seq, event)| (seq, now, event));
        reviews::hold(held, reviews::noted(&entry.run, happened));
        match held.touched.last_mut() {
            Some(last) if last.0 == run_id => last.1 = seq,
            _ => held.touched.push((run_id, seq)),
        }
        self.recalls.opened(run_id, recalls::of_children(&self.outcome.effects.recalls));
        let ahead = &mut self.releases.errands;
        errands::hold(held, (run_id, depth, self.config.epoch), &mut self.outcome.effects, ahead);
        self.releases.errands.extend(errands::mutated(held));
        if pushed {
            let events = std::mem::take(&mut self.outcome.events);
            let push = Push {
                run_id,
                first_seq,
                at: now,
                events,
                kept,
                lagged: false,
                watchers,
                feed,
                feed_lagged: false,
            };
            held.releases.push(Release::Push(push));
        }
        self.answer_settled(run_id);
        if ended {
            self.ended(run_id);
        }
    }
}

/// Counts the events of a burst.
fn count(cells: &ShardCells, outcome: &Outcome) {
    let Derived { mut started, mut completed, mut failed } = outcome.derived;
    let events = &outcome.events;
    for event in events {
        match event {
            EventBody::NodeStarted { .. } => started += 1,
            EventBody::NodeCompleted { .. } => completed += 1,
            EventBody::NodeFailed { .. } => failed += 1,
            _ => {}
        }
    }
    cells.events.add(events.len() as u64);
    cells.nodes_started.add(started);
    cells.nodes_completed.add(completed);
    if failed > 0 {
        cells.nodes_failed.add(failed);
    }
}
