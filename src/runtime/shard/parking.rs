//! Runs that wait for nothing but time, a signal or a human, kept as the bytes of their images.
//!
//! Such a run costs its image, a line for listings and its timers; it is unpacked, at once and without I/O, when anything
//! is to be done with it. What must hold: only a run is parked whose image in the index is what it is now, so nothing is
//! lost by unpacking; nobody sees whether a run is parked. One that was only looked at is parked again after
//! [`LOOKED_AT_FOR`]; one that has changed is parked when its next image is in the index. Runs under way, waiting to be
//! admitted, watched, with values in the content
//! store, or larger than [`PARKED_BYTES_MAX`] are not parked.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::image::{self, Decoded, Graphs};
use super::timers::Held;
use super::{Entry, IdMap, Shard};
use crate::engine::command::Located;
use crate::ir::Ir;
use crate::model::{RunId, RunSummary, Seq};
use crate::time::Timestamp;

/// Largest image that is kept instead of its run: unpacking it holds nobody up.
const PARKED_BYTES_MAX: usize = 32 << 10;
/// How long a run stays unpacked that nothing has changed in.
const LOOKED_AT_FOR: Duration = Duration::from_secs(10);
/// Runs looked at again in one turn.
const LOOKS_PER_TURN: usize = 256;

/// A run that is kept as its image.
#[derive(Debug)]
pub(super) struct Parked {
    pub(super) summary: RunSummary,
    ir: Arc<Ir>,
    timers: Held,
    image: Arc<[u8]>,
}

/// All parked runs of a shard.
#[derive(Debug, Default)]
pub(super) struct Parking {
    runs: IdMap<RunId, Box<Parked>>,
    /// Runs that were unpacked and when, with their images and the last event in these.
    unpacked: VecDeque<(Timestamp, RunId, Seq, Arc<[u8]>)>,
}

impl Parking {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.runs.len()
    }

    /// Is it here?
    pub(super) fn contains(&self, run_id: RunId) -> bool {
        self.runs.contains_key(&run_id)
    }

    /// Number of the last event of a parked run.
    pub(super) fn seq(&self, run_id: RunId) -> Option<Seq> {
        self.runs.get(&run_id).map(|parked| parked.summary.seq)
    }

    /// For listings.
    pub(super) fn summaries(&self) -> impl Iterator<Item = &RunSummary> {
        self.runs.values().map(|parked| &parked.summary)
    }

    /// For listings.
    pub(super) fn summary(&self, run_id: RunId) -> Option<&RunSummary> {
        self.runs.get(&run_id).map(|parked| &parked.summary)
    }

    /// Where the events of a parked run are; it stays parked. All that is parked is durable.
    pub(super) fn located(&self, run_id: RunId) -> Option<Located> {
        let parked = self.runs.get(&run_id)?;
        let Decoded { run, notes, .. } =
            image::decode(run_id, &parked.image, Graphs::Known(parked.ir.clone())).ok()?;
        Some(Entry::restored(run, notes).located())
    }

    /// Keeps an entry as its image.
    pub(super) fn put(&mut self, run_id: RunId, entry: Entry, image: Arc<[u8]>) {
        let (summary, ir) = (entry.run.summary(), entry.run.ir().clone());
        self.runs.insert(run_id, Box::new(Parked { summary, ir, timers: entry.timers, image }));
    }
}

impl Entry {
    /// May it be kept as an image of this size, which the index has?
    pub(super) fn may_park(&self, image: &[u8]) -> bool {
        image.len() <= PARKED_BYTES_MAX
            && self.saved.seq == self.run.seq()
            && self.durable_seq == self.run.seq()
            && self.saved.frames == self.frames.len()
            && !(self.queued || !self.watchers.is_empty() || self.saved.is_under_way())
            && self.waiters.is_empty()
            && self.kept.is_none()
            && self.run.is_at_rest()
    }
}

impl Shard {
    /// Keeps a run as its image if it may be.
    pub(super) fn park(&mut self, run_id: RunId, image: Arc<[u8]>) {
        if self.runs.get(&run_id).is_some_and(|entry| entry.may_park(&image))
            && let Some(entry) = self.runs.remove(&run_id)
        {
            if self.reviews.is_changed(run_id) {
                self.reviews.note(&entry.run);
            }
            self.parking.put(run_id, *entry, image);
        }
    }

    /// Unpacks a run if it is parked: from now on it is like the others.
    pub(super) fn unpark(&mut self, run_id: RunId, now: Timestamp) {
        let Some(parked) = self.parking.runs.remove(&run_id) else { return };
        let Parked { summary, ir, timers, image } = *parked;
        match image::decode(run_id, &image, Graphs::Known(ir)) {
            Ok(Decoded { run, notes, .. }) => {
                let mut entry = Entry::restored(run, notes);
                entry.timers = timers;
                self.runs.insert(run_id, entry);
                self.parking.unpacked.push_back((now, run_id, summary.seq, image));
            }
            // These bytes were read or made by this process.
            Err(error) => self.fence(format!("the parked run {run_id} cannot be unpacked: {error}").into()),
        }
    }

    /// Parks runs again that were unpacked a while ago and have not changed. Returns whether there are more.
    pub(crate) fn park_again(&mut self, now: Timestamp) -> bool {
        for _ in 0..LOOKS_PER_TURN {
            let unpacked = &mut self.parking.unpacked;
            let next = unpacked.pop_front_if(|(since, ..)| since.saturating_add(LOOKED_AT_FOR) <= now);
            let Some((_, run_id, seq, image)) = next else { return false };
            if self.runs.get(&run_id).is_some_and(|entry| entry.run.seq() == seq) {
                self.park(run_id, image);
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::command::{
        ApprovalQuery, Command, Decide, Envelope, ListQuery, Refusal, Reply, ReplyTo, Start, Stretch, Which,
    };
    use crate::model::event::{Decision, Idempotency};
    use crate::model::token::Token;
    use crate::model::{FrameRef, Partition, RunFilter, Status, Value};
    use crate::runtime::shard::ShardConfig;

    const NOW: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);

    fn shard() -> Shard {
        let config = ShardConfig { index: 0, epoch: 1, retention: Duration::ZERO, runs_live_max: 3 };
        Shard::new(config, Arc::default())
    }

    fn start(byte: u8) -> Start {
        start_of(byte, br#"{"name": "w", "nodes": {"hear": {"type": "wait", "timeout": "1h", "with": {"signal": "go"}}}}"#)
    }

    fn start_of(byte: u8, document: &[u8]) -> Start {
        let compiled =
            crate::compile::compile(document, crate::compile::Format::Json, &Default::default()).unwrap();
        Start {
            run_id: RunId::new(NOW, Partition::new(0), [byte; 10]),
            ir: compiled.ir,
            inputs: Value::Int(7),
            seed: 1,
            idempotency: Some(Idempotency { key: [byte; 16], fingerprint: [0; 16] }),
            run_key: None,
            mode: None,
            layered: None,
            deadline: None,
            parent: None,
        }
    }

    fn give(shard: &mut Shard, command: Command, now: Timestamp) -> Vec<Reply> {
        shard.command(Envelope { reply_to: ReplyTo { core: 0, slot: 0, generation: 0 }, command }, now);
        commit(shard);
        shard.releases().replies.drain(..).map(|(_, reply)| reply).collect()
    }

    /// What is in the open batch becomes durable, each time in another frame.
    fn commit(shard: &mut Shard) {
        if shard.seal(Vec::new()).is_some() {
            let offset = u32::try_from(shard.outbox.open()).unwrap() * 4_096;
            shard.committed(FrameRef { segment: 1, offset });
        }
    }

    /// All images that can be taken are put into the index.
    fn save(shard: &mut Shard) -> usize {
        while shard.take_images(true, NOW) {}
        let taken: Vec<_> = shard.releases().images.drain(..).collect();
        let saved = taken.iter().map(|taken| taken.encode().unwrap().1).collect();
        shard.imaged(saved);
        taken.len()
    }

    fn parked(count: u8) -> Shard {
        let mut shard = shard();
        for byte in 1..=count {
            give(&mut shard, Command::Start(Box::new(start(byte))), NOW);
        }
        assert_eq!(save(&mut shard), usize::from(count));
        assert_eq!((shard.parking.len(), shard.runs.len()), (usize::from(count), 0));
        shard
    }

    fn status(replies: &[Reply]) -> Status {
        match replies {
            [Reply::Run(view)] => view.summary.status,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn nobody_sees_whether_a_run_is_parked() {
        let mut shard = parked(3);
        let run_id = start(1).run_id;
        let all = ListQuery { before: None, filter: RunFilter::default(), limit: 10 };
        let [Reply::List(rows)] = &give(&mut shard, Command::List(all), NOW)[..] else { panic!() };
        assert_eq!(rows.len(), 3);
        assert_eq!(shard.parking.len(), 3, "a listing unpacks nothing");
        let (from, before) = (RunId::FIRST, RunId::LAST);
        let stretch = |limit| Box::new(Stretch { from, before, filter: RunFilter::default(), limit });
        let [Reply::Ids(oldest)] = &give(&mut shard, Command::Ids(stretch(2)), NOW)[..] else { panic!() };
        assert_eq!(*oldest, [1, 2].map(|byte| start(byte).run_id), "the oldest first");
        let [Reply::Ids(none)] = &give(&mut shard, Command::Ids(stretch(0)), NOW)[..] else { panic!() };
        assert!(none.is_empty());
        let [Reply::Located(located)] = &give(&mut shard, Command::Locate(run_id), NOW)[..] else { panic!() };
        assert_eq!((located.summary.run_id, located.summary.seq), (run_id, rows[0].seq));
        assert!(!located.frames.is_empty());
        assert_eq!(shard.parking.len(), 3, "who walks through all runs unpacks none");
        let [Reply::Refused(_)] = &give(&mut shard, Command::Start(Box::new(start(4))), NOW)[..] else {
            panic!("they count")
        };
        let [Reply::Started { run, replayed: true }] =
            &give(&mut shard, Command::Start(Box::new(start(1))), NOW)[..]
        else {
            panic!("a key leads to a parked run")
        };
        assert_eq!(run.run_id, run_id);
        assert_eq!(status(&give(&mut shard, Command::Get(start(2).run_id), NOW)), Status::Running);
        assert_eq!(shard.parking.len(), 1);
        // What was only looked at is parked again after a while.
        shard.park_again(NOW.saturating_add(LOOKED_AT_FOR / 2));
        assert_eq!(shard.parking.len(), 1);
        shard.park_again(NOW.saturating_add(LOOKED_AT_FOR));
        assert_eq!((shard.parking.len(), shard.has_unsaved()), (3, false));
    }

    #[test]
    fn a_timer_and_a_signal_find_a_parked_run_and_what_changed_is_not_parked_as_it_was() {
        let mut shard = parked(2);
        let (one, two) = (start(1).run_id, start(2).run_id);
        let mut signal = rkyv::util::AlignedVec::new();
        Token::signal(two, "go", &Value::Int(1)).unwrap().encode(&mut signal).unwrap();
        give(&mut shard, Command::Signal(signal.to_vec()), NOW);
        assert_eq!(status(&give(&mut shard, Command::Get(two), NOW)), Status::Completed);
        assert_eq!(shard.releases().rows.len(), 1);
        assert!(shard.releases().rows[0].imaged, "its row takes the image away");
        let due = NOW.saturating_add(Duration::from_secs(3_600));
        give(&mut shard, Command::Pause { run_id: one, reason: "wait".into() }, NOW);
        shard.park_again(due);
        assert!(!shard.parking.contains(one), "its image is older than it is");
        save(&mut shard);
        assert!(shard.parking.contains(one));
        while shard.fire_timers(due, 100) {}
        commit(&mut shard);
        assert_eq!(shard.parking.len(), 0, "its timer was found");
        assert!(!shard.is_fenced());
    }

    // F319
    #[test]
    fn reviews_of_parked_runs_are_listed_without_unpacking_them_and_decided() {
        let mut shard = shard();
        let ask = br#"{"name": "ask", "nodes": {"r": {"type": "human_review", "timeout": "1h", "with": {"reviewers": ["ops"]}}}}"#;
        for byte in 1..=2 {
            give(&mut shard, Command::Start(Box::new(start_of(byte, ask))), NOW);
        }
        give(&mut shard, Command::Start(Box::new(start(3))), NOW);
        let listed = |shard: &mut Shard, reviewer: &str, before| -> Vec<(RunId, Seq)> {
            let query = ApprovalQuery {
                before,
                filter: RunFilter::default(),
                reviewer: Some(reviewer.into()),
                limit: 10,
            };
            match &give(shard, Command::Approvals(Box::new(query)), NOW)[..] {
                [Reply::Approvals(rows)] => rows.iter().map(|row| (row.run_id, row.review.seq)).collect(),
                other => panic!("{other:?}"),
            }
        };
        let all = listed(&mut shard, "ops", None);
        assert_eq!(all.len(), 2, "while they are not parked");
        assert_eq!((save(&mut shard), shard.parking.len()), (3, 3));
        assert_eq!(listed(&mut shard, "ops", None), all);
        assert_eq!(listed(&mut shard, "ops", Some(all[0])), all[1..]);
        assert_eq!(listed(&mut shard, "eve", None), []);
        assert_eq!(shard.parking.len(), 3, "a listing unpacks nothing");

        let (run_id, seq) = all[0];
        let shown = give(&mut shard, Command::Ticket { run_id, which: Which::Asked(seq) }, NOW);
        let [Reply::Ticket(view)] = &shown[..] else { panic!("{shown:?}") };
        let decide = |reviewer: &str| {
            let decision = Decision {
                approved: true,
                reviewer: reviewer.into(),
                reason: None,
                form: Value::Null,
                digest: [0; 32],
            };
            Command::Decide(Box::new(Decide { run_id, place: view.place.clone(), seq, decision }))
        };
        let [Reply::Refused(Refusal::NotAsked { .. })] = &give(&mut shard, decide("eve"), NOW)[..] else {
            panic!("eve was not asked")
        };
        let [Reply::Accepted(run)] = &give(&mut shard, decide("ops"), NOW)[..] else { panic!("not taken") };
        assert_eq!(run.status, Status::Completed);
        let [Reply::Refused(Refusal::NoReview { .. })] = &give(&mut shard, decide("ops"), NOW)[..] else {
            panic!("taken twice")
        };
        assert_eq!(listed(&mut shard, "ops", None), all[1..]);
        let due = NOW.saturating_add(Duration::from_secs(3_600));
        while shard.fire_timers(due, 100) {}
        commit(&mut shard);
        assert_eq!(listed(&mut shard, "ops", None), [], "it has expired");
    }

    #[test]
    fn a_run_that_is_watched_or_waited_for_is_not_parked() {
        let mut shard = shard();
        for byte in 1..=2 {
            give(&mut shard, Command::Start(Box::new(start(byte))), NOW);
        }
        give(&mut shard, Command::Watch { run_id: start(1).run_id, hub: 0 }, NOW);
        give(&mut shard, Command::AwaitEnd(start(2).run_id), NOW);
        assert_eq!(save(&mut shard), 2);
        assert_eq!(shard.parking.len(), 0);
    }

    // F036: what nobody reads is not even copied.
    #[test]
    fn events_go_to_the_fanout_cores_that_asked_and_to_no_other() {
        let mut shard = shard();
        let run_ids = [1, 2].map(|byte| {
            give(&mut shard, Command::Start(Box::new(start(byte))), NOW);
            start(byte).run_id
        });
        assert!(shard.releases().pushes.is_empty(), "nobody asked");
        let pause = |shard: &mut Shard, run_id| {
            give(shard, Command::Pause { run_id, reason: "r".into() }, NOW);
            give(shard, Command::Resume(run_id), NOW);
            let pushes = std::mem::take(&mut shard.releases().pushes);
            let cores = |push: &crate::fanout::Push| {
                let fed = push.feed.as_ref().map(|feed| feed.cores).unwrap_or_default();
                [0, 3].map(|core| (push.watchers.has(core), fed.has(core)))
            };
            pushes.iter().map(|push| (push.run_id, cores(push))).collect::<Vec<_>>()
        };
        assert_eq!(pause(&mut shard, run_ids[0]), []);
        give(&mut shard, Command::Watch { run_id: run_ids[0], hub: 3 }, NOW);
        let watched = (run_ids[0], [(false, false), (true, false)]);
        assert_eq!(pause(&mut shard, run_ids[0]), [watched, watched]);
        assert_eq!(pause(&mut shard, run_ids[1]), []);
        assert!(matches!(give(&mut shard, Command::Feed { hub: 0, wanted: true }, NOW)[..], [Reply::Done]));
        let fed = (run_ids[1], [(false, true), (false, false)]);
        assert_eq!(pause(&mut shard, run_ids[1]), [fed, fed]);
        give(&mut shard, Command::Unwatch { run_id: run_ids[0], hub: 3 }, NOW);
        give(&mut shard, Command::Feed { hub: 0, wanted: false }, NOW);
        assert_eq!(pause(&mut shard, run_ids[0]), []);
    }
}
