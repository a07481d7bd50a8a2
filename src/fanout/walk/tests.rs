//! Walks under random starts, events, ends, late ids, slow queues and slow readers: each run's events once and in order, from the
//! first on, or the stream ends with a word.

use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use proptest::prelude::*;

use super::*;
use crate::engine::command::Located;
use crate::fanout::feed::Feed;
use crate::fanout::reader::Found;
use crate::model::event::Forked;
use crate::model::{EventBody, Partition, RunFilter, RunSummary, Status};
use crate::queue::{FullPolicy, Receiver, Sender, bounded};
use crate::time::Timestamp;
use crate::wire::event::Row;
use crate::wire::filter::Filter;
use crate::wire::sse;
use crate::wire::stream::{OfFeed, Since, Subscription, ToHub, subscription};

const WORKFLOWS: [&str; 3] = ["flow", "other", "acme/flow"];
const SHARDS: usize = 2;
const SMALL: Sizes = Sizes { page: 3, window: 10, few: 4, notes: 60 };

#[derive(Debug)]
struct Run {
    workflow: &'static str,
    durable: Seq,
    /// A fork: number of `run.forked`. What is before it was never pushed.
    forked: Option<Seq>,
    ended: bool,
    archived: bool,
    on_shard: bool,
    forgotten: bool,
}

#[derive(Debug)]
enum Push {
    Event(RunId, Seq),
    Gap,
}

#[derive(Debug)]
enum Heard {
    Listed(u64, Vec<RunId>, usize),
    Located(u64, Location),
    Unlocated(u64, RunId),
}

#[derive(Debug)]
enum Done {
    Finished(Vec<Location>, Option<RunId>),
    Found(Vec<Location>),
    Read(Vec<Piece>),
}

/// Answers leave a shard before the pushes of the same turn, as they do in the runner.
#[derive(Default)]
struct Shard {
    held: Vec<Push>,
    asked: VecDeque<(u64, Need)>,
}

struct Client {
    id: u64,
    of: OfFeed,
    stream: Subscription,
    /// There before it.
    old: Vec<RunId>,
    got: Vec<(RunId, Seq)>,
    words: Vec<String>,
    ended: bool,
}

struct World {
    feed: Feed,
    runs: BTreeMap<RunId, Run>,
    shards: Vec<Shard>,
    queue: VecDeque<Push>,
    heard: VecDeque<Heard>,
    jobs: VecDeque<(u64, RunFilter, Need)>,
    done: VecDeque<(u64, Done)>,
    known: BTreeMap<u64, Rc<Reader>>,
    clients: Vec<Client>,
    millis: u64,
    now_us: u64,
    hub: Sender<ToHub>,
    to_hub: Receiver<ToHub>,
}

impl World {
    fn new(sizes: Sizes) -> Self {
        let (hub, to_hub) = bounded("hub", 64, FullPolicy::RefuseCaller);
        Self {
            feed: Feed::new(SHARDS).walking_by(sizes),
            runs: BTreeMap::new(),
            shards: (0..SHARDS).map(|_| Shard::default()).collect(),
            queue: VecDeque::new(),
            heard: VecDeque::new(),
            jobs: VecDeque::new(),
            done: VecDeque::new(),
            known: BTreeMap::new(),
            clients: Vec::new(),
            millis: 1_000,
            now_us: 0,
            hub,
            to_hub,
        }
    }

    fn subscribe(&mut self, which: usize) {
        let (sink, stream) = subscription(self.hub.clone());
        let id = self.clients.len() as u64 + 1;
        let workflow = (which % 4 == 1).then(|| "other".into());
        let workspace = if which % 4 == 2 { "acme" } else { "default" };
        let of = OfFeed { workspace: workspace.parse().unwrap(), workflow, since: Since::Start };
        let reader = Rc::new(Reader::new(id, sink, (Filter::default(), true), self.now_us));
        self.known.insert(id, reader.clone());
        let over = self.feed.subscribe(id, reader, of.clone());
        self.forget(over);
        for (shard, wanted) in self.feed.wish(self.now_us, 0) {
            self.feed.on_told(shard, (wanted, true));
        }
        let old = self.runs.keys().copied().collect();
        let (got, words) = (Vec::new(), Vec::new());
        self.clients.push(Client { id, of, stream, old, got, words, ended: false });
    }

    fn forget(&mut self, ids: Vec<u64>) {
        for id in ids {
            self.known.remove(&id);
            self.feed.leave(id);
        }
    }

    /// Its id may say that it was made a while ago.
    fn start(&mut self, which: usize) {
        self.millis += 1;
        let late = if which.is_multiple_of(3) { which as u64 % 400 } else { 0 };
        let at = Timestamp::from_micros(self.millis.saturating_sub(late) * 1_000);
        let mut random = [which as u8; 10];
        random[..8].copy_from_slice(&(self.millis ^ (which as u64) << 32).to_be_bytes());
        let run_id = RunId::new(at, Partition::new(which as u16 & 1), random);
        let forked = which.is_multiple_of(7).then_some(3);
        let durable = forked.map_or(0, |seq| seq - 1);
        let workflow = WORKFLOWS[which % WORKFLOWS.len()];
        let run = Run {
            workflow,
            durable,
            forked,
            ended: false,
            archived: false,
            on_shard: true,
            forgotten: false,
        };
        self.runs.insert(run_id, run);
        self.happens(run_id, 1 + which % 5);
    }

    fn happens(&mut self, run_id: RunId, count: usize) {
        let Some(run) = self.runs.get_mut(&run_id).filter(|run| !run.ended) else { return };
        for _ in 0..count {
            run.durable += 1;
            // Unless the feed is wanted nothing is pushed.
            if self.feed.is_live() {
                self.shards[run_id.partition().shard(SHARDS)].held.push(Push::Event(run_id, run.durable));
            }
        }
    }

    fn some_run(&self, which: usize) -> Option<RunId> {
        self.runs.keys().nth(which % self.runs.len().max(1)).copied()
    }

    /// One more step to where a run is forgotten.
    fn ends(&mut self, run_id: RunId, forgets: bool) {
        let held = &self.shards[run_id.partition().shard(SHARDS)].held;
        let held = held.iter().any(|push| matches!(push, Push::Event(whose, _) if *whose == run_id));
        let run = self.runs.get_mut(&run_id).unwrap();
        match run {
            Run { ended: false, .. } => run.ended = true,
            // Rows leave a shard behind the pushes that they follow from.
            Run { archived: false, .. } => run.archived = !held,
            Run { on_shard: true, .. } => run.on_shard = false,
            _ => run.forgotten |= forgets,
        }
    }

    fn shard_turn(&mut self, which: usize, room: usize) {
        let shard = &mut self.shards[which % SHARDS];
        self.queue.extend(shard.held.drain(..));
        let asked: Vec<_> = shard.asked.drain(..room.min(shard.asked.len())).collect();
        for (id, need) in asked {
            let heard = match need {
                Need::List { from, before, limit, .. } => {
                    let filter = self.feed.filter_of(id);
                    let here = self.runs.iter().filter(|(run_id, run)| {
                        run.on_shard
                            && run_id.partition().shard(SHARDS) == which % SHARDS
                            && (from..before).contains(run_id)
                            && filter
                                .as_ref()
                                .is_some_and(|filter| filter.fits_summary(&summary(**run_id, run)))
                    });
                    Heard::Listed(id, here.map(|(run_id, _)| *run_id).take(limit).collect(), limit)
                }
                Need::Locate(run_id) => match self.runs.get(&run_id).filter(|run| run.on_shard) {
                    Some(run) => Heard::Located(id, location(run_id, run)),
                    None => Heard::Unlocated(id, run_id),
                },
                other => panic!("{other:?}"),
            };
            self.heard.push_back(heard);
        }
    }

    fn work(&mut self) {
        let Some((id, filter, need)) = self.jobs.pop_front() else { return };
        let archived = |run_id: &RunId| self.runs.get(run_id).filter(|run| run.archived && !run.forgotten);
        let done = match need {
            Need::Finished { from, before, limit } => {
                let mut all = self.runs.range(from..before).filter(|(run_id, run)| {
                    archived(run_id).is_some() && filter.fits_summary(&summary(**run_id, run))
                });
                let found: Vec<_> =
                    all.by_ref().take(limit).map(|(run_id, run)| location(*run_id, run)).collect();
                let last = found.last().map(|location| location.located.summary.run_id);
                Done::Finished(found, last.filter(|_| all.next().is_some()))
            }
            Need::Find(run_ids) => {
                let found = run_ids.iter().filter_map(|id| Some(location(*id, archived(id)?)));
                Done::Found(found.collect())
            }
            Need::Read(parcels, limit) => Done::Read(self.read_some(&parcels, limit)),
            other => panic!("{other:?}"),
        };
        self.done.push_back((id, done));
    }

    fn read_some(&self, parcels: &[Parcel], limit: usize) -> Vec<Piece> {
        let mut pieces = Vec::new();
        for parcel in parcels {
            let RunSummary { run_id, seq, .. } = parcel.location.located.summary;
            let run = &self.runs[&run_id];
            if run.forgotten {
                pieces.push(Piece::Gone);
                continue;
            }
            for seq in parcel.after + 1..=seq {
                if pieces.len() >= limit {
                    return pieces;
                }
                pieces.push(Piece::Event(seq, frame(run_id, run, seq)));
            }
        }
        pieces
    }

    fn hub_turn(&mut self, answers: usize, reads: usize, pushes: usize) {
        for heard in self.heard.drain(..answers.min(self.heard.len())) {
            let upto = self.feed.taken() + self.queue.len() as u64;
            match heard {
                Heard::Listed(id, run_ids, limit) => {
                    self.feed.with_walk(id, |walk, _, _| walk.on_listed(run_ids, limit, upto));
                }
                Heard::Located(id, location) => {
                    self.feed.with_walk(id, |walk, _, needs| walk.on_located(location, needs));
                }
                Heard::Unlocated(id, run_id) => {
                    self.feed.with_walk(id, |walk, _, needs| walk.on_unlocated(run_id, needs));
                }
            }
        }
        for (id, done) in self.done.drain(..reads.min(self.done.len())) {
            self.feed.with_walk(id, |walk, reader, needs| match done {
                Done::Finished(found, last) => walk.on_finished(found, last, needs),
                Done::Found(found) => walk.on_found(found),
                Done::Read(pieces) => walk.on_read(pieces, reader),
            });
        }
        for push in self.queue.drain(..pushes.min(self.queue.len())).collect::<Vec<_>>() {
            self.feed.took();
            match push {
                Push::Gap => {
                    let over = self.feed.on_gap();
                    self.forget(over);
                }
                Push::Event(run_id, seq) => {
                    let run = &self.runs[&run_id];
                    self.feed.tell((run_id, seq), &run.workflow.into(), frame(run_id, run, seq));
                }
            }
        }
        let over = self.feed.pump_all(self.millis);
        self.forget(over);
        for (id, need) in self.feed.needs() {
            let shard = match &need {
                Need::List { shard, .. } => Some(usize::from(*shard)),
                Need::Locate(run_id) => Some(run_id.partition().shard(SHARDS)),
                _ => None,
            };
            match (shard, self.feed.filter_of(id)) {
                (_, None) => {}
                (Some(shard), _) => self.shards[shard].asked.push_back((id, need)),
                (None, Some(filter)) => self.jobs.push_back((id, filter, need)),
            }
        }
    }

    fn read(&mut self, which: usize, count: usize) {
        let all = self.clients.len().max(1);
        let Some(client) = self.clients.get_mut(which % all) else { return };
        for _ in 0..count {
            match client.stream.poll_next(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(Some(frame)) => {
                    let text = String::from_utf8(frame.sse().to_vec()).unwrap();
                    match text.strip_prefix("id: ").and_then(|rest| rest.lines().next()) {
                        Some(id) => client.got.push(sse::parse_event_id(id).unwrap()),
                        None => client.words.push(text),
                    }
                }
                Poll::Ready(None) => client.ended = true,
                Poll::Pending => break,
            }
        }
        while self.to_hub.try_recv().is_some() {}
    }

    fn stir(&mut self) {
        self.now_us += 1_000_000;
        let mut over = Vec::new();
        for (id, reader) in &self.known {
            if reader.stir(self.now_us, &Frame::heartbeat()) == Found::Slow {
                reader.say_last(reader.too_slow());
                over.push(*id);
            }
        }
        self.forget(over);
    }

    /// Until nothing more is to come.
    fn settle(&mut self) {
        for _ in 0..3_000 {
            (0..SHARDS).for_each(|shard| self.shard_turn(shard, 9));
            self.work();
            self.hub_turn(9, 9, 200);
            (0..self.clients.len()).for_each(|which| self.read(which, 300));
        }
    }

    fn check(&self) -> Result<(), TestCaseError> {
        for client in &self.clients {
            let filter = RunFilter {
                workspace: client.of.workspace.clone(),
                workflow: client.of.workflow.clone(),
                ..RunFilter::default()
            };
            let mut told: BTreeMap<RunId, (Seq, Seq)> = BTreeMap::new();
            let mut order = Vec::new();
            for (run_id, seq) in &client.got {
                let run = &self.runs[run_id];
                prop_assert!(filter.fits_summary(&summary(*run_id, run)), "not asked for");
                let (_, last) = told.entry(*run_id).or_insert_with(|| {
                    order.push(*run_id);
                    (*seq, seq - 1)
                });
                prop_assert_eq!(*last + 1, *seq, "{} {:?} of client {}", run_id, run, client.id);
                *last = *seq;
            }
            for (run_id, (first, _)) in &told {
                let live_fork = self.runs[run_id].forked == Some(*first) && !client.old.contains(run_id);
                prop_assert!(*first == 1 || live_fork, "{run_id} begins with {first}");
            }
            order.retain(|run_id| client.old.contains(run_id));
            prop_assert!(order.is_sorted(), "what was there is told in the order of ids");
            let words = client.words.last().map(String::as_str).unwrap_or_default();
            if client.ended {
                let said = words.starts_with("event: resync") || words.starts_with("event: slow_consumer");
                prop_assert!(said, "it ended without a word: {words:?}");
                continue;
            }
            let lives = client.words.iter().filter(|words| words.starts_with("event: live")).count();
            prop_assert_eq!(lives, 1, "{:?}", client.words);
            let all = self.runs.iter().filter(|(run_id, run)| filter.fits_summary(&summary(**run_id, run)));
            for (run_id, run) in all.filter(|(_, run)| !run.forgotten) {
                let last = told.get(run_id).map(|(_, last)| *last);
                prop_assert_eq!(last, Some(run.durable), "{} {:?} of {}", run_id, run, client.id);
            }
        }
        Ok(())
    }
}

fn summary(run_id: RunId, run: &Run) -> RunSummary {
    RunSummary {
        run_id,
        workflow: run.workflow.into(),
        version: "1".into(),
        status: if run.ended { Status::Completed } else { Status::Running },
        seq: run.durable,
        epoch: 1,
        started_at: Timestamp::from_micros(1),
        ended_at: None,
        run_key: None,
    }
}

fn location(run_id: RunId, run: &Run) -> Location {
    let summary = summary(run_id, run);
    let located = Located { summary, document: [0; 32], graph: None, version: 1, frames: Vec::new() };
    Location { shard: 0, located }
}

fn frame(run_id: RunId, run: &Run, seq: Seq) -> Frame {
    let at = Timestamp::from_micros(5);
    let forked = || Forked {
        run_id,
        seq: seq - 1,
        since: at,
        replay: false,
        inputs: None,
        deadline: None,
        idempotency: None,
        epoch: 1,
    };
    let body = match run.forked == Some(seq) {
        true => EventBody::RunForked(Box::new(forked())),
        false => EventBody::RunResumed,
    };
    Frame::event(run_id, &Row { seq, at, node: None, body: &body })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    // F036, N12
    #[test]
    fn a_walk_tells_every_event_of_every_run_once_and_in_order_or_says_that_it_cannot(
        before in 0usize..60,
        steps in proptest::collection::vec((0u8..32, any::<u8>()), 1..500),
    ) {
        let mut world = World::new(SMALL);
        for which in 0..before {
            world.start(which);
            let run_id = world.some_run(which * 7).unwrap();
            (0..which % 4).for_each(|_| world.ends(run_id, false));
        }
        world.subscribe(0);
        for (choice, n) in steps {
            let which = usize::from(n);
            let run_id = world.some_run(which);
            match (choice, run_id) {
                (0..=3, _) => world.start(which),
                (4..=8, Some(run_id)) => world.happens(run_id, 1 + which % 7),
                (9..=11, Some(run_id)) => world.ends(run_id, which.is_multiple_of(4)),
                (12..=15, _) => world.shard_turn(which, which % 5),
                (16..=18, _) => world.work(),
                (19..=25, _) => world.hub_turn(which % 4, which % 3, which % 6),
                (26..=28, _) => world.read(which, which),
                (29, _) if world.clients.len() < 6 => world.subscribe(which),
                (30, _) => world.stir(),
                (31, _) if which.is_multiple_of(32) => world.shards[which % SHARDS].held.push(Push::Gap),
                // The ring goes on without those who are walked.
                (31, _) if which % 16 == 1 => {
                    world.start(2);
                    let last = world.some_run(usize::MAX).filter(|id| world.runs[id].workflow == "acme/flow");
                    last.into_iter().for_each(|run_id| world.happens(run_id, limits::FEED_EVENTS_MAX));
                }
                _ => {}
            }
        }
        world.settle();
        world.check()?;
    }
}

// F036: what the limits are for is not met by a walk beside load, however long it takes.
#[test]
fn a_long_walk_beside_load_comes_to_its_end_and_is_live() {
    let mut world = World::new(Sizes { page: 8, window: 64, few: 24, notes: 128 });
    for which in 0..3_000 {
        world.start(which);
        let run_id = world.some_run(which * 31).unwrap();
        (0..which % 4).for_each(|_| world.ends(run_id, false));
    }
    world.subscribe(0);
    let is_live = |world: &World| world.clients[0].words.iter().any(|words| words.starts_with("event: live"));
    for round in 0..40_000 {
        if is_live(&world) {
            break;
        }
        if round % 6 == 0 {
            world.start(round);
        }
        let run_id = world.some_run(round * 97).unwrap();
        world.happens(run_id, round % 3);
        world.ends(run_id, false);
        world.shard_turn(round, 8);
        world.work();
        world.hub_turn(8, 2, 8);
        world.read(0, 64);
    }
    assert!(is_live(&world), "it catches up with what happens meanwhile");
    world.settle();
    assert!(!world.clients[0].ended, "{:?}", world.clients[0].words);
    world.check().unwrap();
}
