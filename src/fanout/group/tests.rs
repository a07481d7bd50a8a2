//! The join, under random interleavings: whatever comes late, twice or never, whatever a filter keeps back and however often a
//! reader leaves and comes back, each gets n+1, n+2, ... once.

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

use proptest::prelude::*;

use super::*;
use crate::engine::command::Located;
use crate::fanout::reader::Found;
use crate::model::event::Patched;
use crate::model::{Partition, RunSummary, Status};
use crate::queue::{FullPolicy, bounded};
use crate::wire::filter::Filter;
use crate::wire::sse;
use crate::wire::stream::{Subscription, ToHub, subscription};

/// One run, its shard, and the readers of its events; every step is chosen by the test.
struct World {
    run_id: RunId,
    group: Group,
    log: Vec<EventBody>,
    ended: bool,
    watched: bool,
    lagged: bool,
    pushes: VecDeque<Push>,
    commands: VecDeque<()>,
    replies: VecDeque<Option<Location>>,
    jobs: VecDeque<Action>,
    readers: Vec<Client>,
    /// As the hub knows them, by their numbers.
    known: BTreeMap<u64, Rc<Reader>>,
    next_id: u64,
    to_hub: crate::queue::Receiver<ToHub>,
    hub: crate::queue::Sender<ToHub>,
    now_us: u64,
    /// Of the graph, as far as the shard says.
    version: u32,
}

struct Client {
    from: From,
    /// Events there were when it came.
    there: Seq,
    filter: Filter,
    stream: Subscription,
    got: Vec<Seq>,
    ended: bool,
    words: Vec<String>,
}

impl Client {
    /// Those of the log, which is so long, that it is to get. From now on: as many of the last as it got.
    fn wanted(&self, log: &[EventBody]) -> Vec<Seq> {
        let after = match self.from {
            From::After(seq) => seq,
            From::Now => self.there,
        };
        let all = (1..).zip(log).filter(|(seq, body)| {
            *seq > after && self.filter.passes(body.type_name(), None, body.ends_run())
        });
        let mut all: Vec<Seq> = all.map(|(seq, _)| seq).collect();
        if self.from == From::Now {
            all.drain(..all.len().saturating_sub(self.got.len()));
        }
        all
    }
}

impl World {
    fn new() -> Self {
        let run_id = RunId::new(Timestamp::from_micros(1), Partition::new(0), [1; 10]);
        let (hub, to_hub) = bounded("hub", 64, FullPolicy::RefuseCaller);
        Self {
            run_id,
            group: Group::new(run_id),
            log: vec![cancel_requested()],
            ended: false,
            watched: false,
            lagged: false,
            pushes: VecDeque::new(),
            commands: VecDeque::new(),
            replies: VecDeque::new(),
            jobs: VecDeque::new(),
            readers: Vec::new(),
            known: BTreeMap::new(),
            next_id: 0,
            to_hub,
            hub,
            now_us: 0,
            version: 1,
        }
    }

    fn act(&mut self, act: impl FnOnce(&mut Group, u64, &mut Vec<Action>)) {
        let mut actions = Vec::new();
        act(&mut self.group, self.now_us, &mut actions);
        for action in actions {
            match action {
                Action::Watch => self.commands.push_back(()),
                Action::Closed { subscriber, .. } => drop(self.known.remove(&subscriber)),
                job => self.jobs.push_back(job),
            }
        }
    }

    fn location(&self) -> Location {
        let summary = RunSummary {
            run_id: self.run_id,
            workflow: "w".into(),
            version: "1".into(),
            status: if self.ended { Status::Cancelled } else { Status::Running },
            seq: self.log.len() as Seq,
            epoch: 1,
            started_at: Timestamp::from_micros(1),
            ended_at: None,
            run_key: None,
        };
        Location {
            shard: 0,
            located: Located {
                summary,
                document: [0; 32],
                graph: None,
                version: self.version,
                frames: Vec::new(),
            },
        }
    }

    fn append(&mut self, count: usize, drop_it: bool) {
        if self.ended {
            return;
        }
        let first_seq = self.log.len() as Seq + 1;
        let events: Vec<_> = (first_seq..).take(count).map(event).collect();
        self.push_events(first_seq, events, drop_it);
    }

    fn end(&mut self, drop_it: bool) {
        if !self.ended {
            self.ended = true;
            let last = EventBody::RunCancelled { reason: "x".into() };
            self.push_events(self.log.len() as Seq + 1, vec![last], drop_it);
        }
    }

    fn push_events(&mut self, first_seq: Seq, events: Vec<EventBody>, drop_it: bool) {
        self.log.extend(events.iter().cloned());
        if !self.watched {
            return;
        }
        if drop_it {
            self.lagged = true;
            return;
        }
        let lagged = std::mem::take(&mut self.lagged);
        self.pushes.push_back(Push {
            first_seq,
            at: Timestamp::from_micros(5),
            events,
            lagged,
            feed_lagged: false,
            ..Push::gap(self.run_id)
        });
    }

    fn subscribe(&mut self, after: Seq) {
        self.subscribe_as(From::After(after), Filter::default());
    }

    fn subscribe_as(&mut self, from: From, filter: Filter) {
        let stream = self.open(from, filter.clone());
        let there = self.log.len() as Seq;
        let (got, words) = (Vec::new(), Vec::new());
        self.readers.push(Client { from, there, filter, stream, got, ended: false, words });
    }

    fn open(&mut self, from: From, filter: Filter) -> Subscription {
        let (sink, stream) = subscription(self.hub.clone());
        self.next_id += 1;
        let id = self.next_id;
        let reader = Rc::new(Reader::new(id, sink, (filter, false), self.now_us));
        self.known.insert(id, reader.clone());
        self.act(|group, _, actions| group.subscribe(id, (reader, from), actions));
        stream
    }

    /// The connection is cut, and the client comes back from where it was; nothing that was on its way arrives.
    fn cut(&mut self, which: usize) {
        let at = which % self.readers.len().max(1);
        let Some(client) = self.readers.get(at).filter(|client| !client.ended) else { return };
        let (got, filter) = (client.got.last().copied(), client.filter.clone());
        let Some(from) = got.map(From::After).or(Some(client.from).filter(|from| *from != From::Now)) else {
            return;
        };
        let stream = self.open(from, filter);
        self.readers[at].stream = stream;
    }

    fn read(&mut self, which: usize, count: usize) {
        let readers = self.readers.len();
        let Some(reader) = self.readers.get_mut(which % readers.max(1)) else { return };
        for _ in 0..count {
            match reader.stream.poll_next(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(Some(frame)) => {
                    let text = String::from_utf8(frame.sse().to_vec()).unwrap();
                    match text.strip_prefix("id: ").and_then(|rest| rest.lines().next()) {
                        Some(id) => reader.got.push(sse::parse_event_id(id).unwrap().1),
                        None => reader.words.push(text),
                    }
                }
                Poll::Ready(None) => {
                    reader.ended = true;
                    break;
                }
                Poll::Pending => break,
            }
        }
    }

    fn shard_answers(&mut self) {
        if self.commands.pop_front().is_some() {
            // An ended run has left its shard.
            self.watched = !self.ended;
            let reply = (!self.ended).then(|| self.location());
            self.replies.push_back(reply);
        }
    }

    fn reply_arrives(&mut self) {
        match self.replies.pop_front() {
            Some(Some(location)) => self.act(|group, _, actions| group.on_located(location, actions)),
            Some(None) => self.act(|group, _, actions| group.on_missing(false, actions)),
            None => {}
        }
    }

    fn push_arrives(&mut self) {
        if let Some(push) = self.pushes.pop_front() {
            self.act(|group, now_us, actions| group.on_push(push, now_us, actions));
        }
    }

    fn job_ends(&mut self, which: usize) {
        let at = which % self.jobs.len().max(1);
        match self.jobs.remove(at) {
            Some(Action::Names(_)) => self.act(|group, _, actions| group.on_names(None, actions)),
            Some(Action::Finished) => {
                let location = self.location();
                self.act(|group, _, actions| group.on_located(location, actions));
            }
            Some(Action::Read { subscriber, after, limit, .. }) => {
                let events: Vec<_> = (after + 1..)
                    .zip(self.log.iter().skip(after as usize))
                    .take(limit)
                    .map(|(seq, body)| Event { seq, at: Timestamp::from_micros(5), body: body.clone() })
                    .collect();
                self.act(|group, _, actions| group.on_page(subscriber, Ok(events), actions));
            }
            _ => {}
        }
    }

    fn hub_hears(&mut self) {
        match self.to_hub.try_recv() {
            Some(ToHub::Drained(id)) => self.act(|group, _, actions| group.pump(id, actions)),
            Some(ToHub::Gone(id)) => {
                self.known.remove(&id);
                self.group.leave(id);
            }
            _ => {}
        }
    }

    fn step(&mut self, (choice, n): (u8, u8)) {
        let n = usize::from(n);
        match choice {
            0..=2 => self.append(n % 7 + 1, false),
            3 => self.append(n % 7 + 1, true),
            4 => self.append(n * 4, false),
            5 => self.subscribe((n % self.log.len()) as Seq),
            18 => self.cut(n),
            19 => {
                let kinds = vec![Box::from("run.resumed")];
                let from = if n % 2 == 0 { From::Now } else { From::After((n % self.log.len()) as Seq) };
                self.subscribe_as(from, Filter { kinds, ..Filter::default() });
            }
            6 | 7 => self.read(n, n / 8),
            8 | 9 => self.shard_answers(),
            10 | 11 => self.reply_arrives(),
            12 | 13 => self.push_arrives(),
            14 | 15 => self.job_ends(n),
            16 => self.hub_hears(),
            _ => self.stir(),
        }
    }

    fn stir(&mut self) {
        self.now_us += 1_000_000;
        for (id, reader) in self.known.clone() {
            match reader.stir(self.now_us, &Frame::heartbeat()) {
                Found::Well => continue,
                Found::Gone => {}
                Found::Slow => reader.say_last(reader.too_slow()),
            }
            self.known.remove(&id);
            self.group.leave(id);
        }
        self.act(|group, now_us, actions| group.stir(now_us, actions));
    }

    /// Lets everything that is under way arrive, until nothing moves any more.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            if self.readers.iter().all(|reader| reader.ended) {
                return;
            }
            self.shard_answers();
            self.reply_arrives();
            self.push_arrives();
            self.job_ends(0);
            for which in 0..self.readers.len() {
                self.read(which, 64);
            }
            self.hub_hears();
            self.stir();
        }
    }
}

/// Of two kinds, by its number.
fn event(seq: Seq) -> EventBody {
    if seq.is_multiple_of(3) { EventBody::RunResumed } else { cancel_requested() }
}

fn cancel_requested() -> EventBody {
    EventBody::RunCancelRequested { reason: "x".into() }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]
    // F036, N12
    #[test]
    fn every_reader_gets_every_event_that_it_wants_after_its_cursor_once_and_in_order(
        steps in proptest::collection::vec((0u8..20, any::<u8>()), 1..250),
        last_push_lost in any::<bool>(),
    ) {
        let mut world = World::new();
        world.subscribe(0);
        for step in steps {
            world.step(step);
        }
        world.end(last_push_lost);
        world.settle();
        for reader in &world.readers {
            let stalled = reader.words.iter().any(|words| words.starts_with("event: slow_consumer"));
            prop_assert!(reader.ended, "{:?}: got {:?} of {}", reader.from, reader.got.last(), world.log.len());
            let wanted = reader.wanted(&world.log);
            // One that did not read for long was closed, and told so; what it got until then has no gap either.
            let until = if stalled { reader.got.len().min(wanted.len()) } else { wanted.len() };
            if stalled && reader.from == From::Now {
                continue;
            }
            prop_assert_eq!(&reader.got, &wanted[..until]);
            prop_assert!(!reader.words.iter().any(|words| words.starts_with("event: resync")));
        }
    }
}

#[test]
fn a_cursor_ahead_of_the_log_is_told_to_resync() {
    let mut world = World::new();
    world.subscribe(9);
    world.settle();
    let reader = &world.readers[0];
    assert!(reader.ended && reader.got.is_empty());
    assert!(
        reader.words[0].starts_with("event: resync\ndata: {\"reason\":\"resync\",\"seq\":1,"),
        "{:?}",
        reader.words
    );
}

#[test]
fn a_reader_that_stands_still_is_closed_and_delays_nobody() {
    let mut world = World::new();
    world.subscribe(0);
    world.subscribe(0);
    for _ in 0..200 {
        world.append(5, false);
        for _ in 0..4 {
            world.shard_answers();
            world.reply_arrives();
            world.push_arrives();
            world.job_ends(0);
            world.read(1, 10);
            world.hub_hears();
        }
        world.stir();
    }
    assert!(world.readers[1].got.len() > 900, "the other went on: {}", world.readers[1].got.len());
    world.read(0, 1_000);
    let slow = &world.readers[0];
    assert_eq!(slow.got.len(), limits::SUBSCRIBER_EVENTS_MAX);
    assert!(slow.ended && slow.words[0].starts_with("event: slow_consumer"), "{:?}", slow.words);
}

#[test]
fn an_idle_stream_says_that_it_lives() {
    let mut world = World::new();
    world.subscribe(1);
    for _ in 0..=limits::HEARTBEAT_SECONDS {
        world.shard_answers();
        world.reply_arrives();
        world.job_ends(0);
        world.stir();
    }
    world.read(0, 10);
    assert_eq!(world.readers[0].words, [String::from_utf8(sse::HEARTBEAT.to_vec()).unwrap()]);
}

#[test]
fn a_page_that_was_read_before_a_patch_is_read_again_with_the_names_after_it() {
    let mut world = World::new();
    world.subscribe(0);
    world.shard_answers();
    world.reply_arrives();
    world.job_ends(0);
    // The page is on its way when the graph changes.
    assert!(matches!(world.jobs.front(), Some(Action::Read { .. })));
    let patched = Patched { version: 2, document: [1; 32], verdicts: [].into_iter().collect() };
    world.push_events(2, vec![EventBody::PatchApplied(Box::new(patched))], false);
    world.push_arrives();
    world.job_ends(0);
    world.read(0, 10);
    assert!(world.readers[0].got.is_empty(), "nobody could name its nodes");
    // An answer from before the patch does not know them either.
    world.shard_answers();
    world.reply_arrives();
    assert!(!matches!(world.group.names, Names::Known(_)));
    world.version = 2;
    world.end(false);
    world.settle();
    assert_eq!(world.readers[0].got, [1, 2, 3]);
}

// F035
#[test]
fn a_page_is_read_once_for_all_who_stand_there_and_outlives_the_one_it_was_read_for() {
    let mut world = World::new();
    for _ in 0..20 {
        world.append(5, true);
    }
    for _ in 0..10 {
        world.subscribe(0);
    }
    world.subscribe(30);
    world.shard_answers();
    world.reply_arrives();
    world.job_ends(0);
    // One that stands further on is in the same page.
    assert_eq!(world.jobs.len(), 1, "{:?}", world.jobs);
    // The first goes, and its page comes.
    world.group.leave(1);
    world.job_ends(0);
    (1..world.readers.len()).for_each(|at| world.read(at, 1_000));
    let got: Vec<usize> = world.readers.iter().map(|reader| reader.got.len()).collect();
    assert_eq!(got, [[0].as_slice(), &[101; 9], &[71]].concat());
    assert!(world.jobs.is_empty());
}

#[test]
fn when_a_page_cannot_be_read_the_others_ask_for_themselves() {
    let mut world = World::new();
    world.append(20, true);
    world.subscribe(0);
    world.subscribe(0);
    world.shard_answers();
    world.reply_arrives();
    world.job_ends(0);
    world.jobs.clear();
    let failed = || Err(crate::fanout::source::SourceError("gone".into()));
    world.act(|group, _, actions| group.on_page(1, failed(), actions));
    world.job_ends(0);
    world.read(0, 100);
    world.read(1, 100);
    assert_eq!((world.readers[0].got.len(), world.readers[0].ended), (0, true));
    assert_eq!(world.readers[1].got.len(), 21);
}
