//! What each reader of a feed gets, under random pushes, cuts and gaps: nothing twice, nothing left out unless it is said.

use std::task::{Context, Poll, Waker};

use proptest::prelude::*;

use super::*;
use crate::fanout::reader::Found;
use crate::model::{EventBody, Partition};
use crate::queue::{FullPolicy, Receiver, Sender, bounded};
use crate::time::Timestamp;
use crate::wire::event::Row;
use crate::wire::filter::Filter;
use crate::wire::sse;
use crate::wire::stream::{Subscription, ToHub, subscription};

const WORKFLOWS: [&str; 3] = ["flow", "other", "acme/flow"];

struct Client {
    of: OfFeed,
    filter: Filter,
    stream: Subscription,
    got: Vec<(RunId, Seq)>,
    words: Vec<String>,
    ended: bool,
}

struct World {
    feed: Feed,
    /// What happened while the feed was live, in order, with the workflow and the type.
    log: Vec<((RunId, Seq), &'static str, &'static str)>,
    seqs: [Seq; 6],
    known: BTreeMap<u64, Rc<Reader>>,
    clients: Vec<Client>,
    next_id: u64,
    now_us: u64,
    hub: Sender<ToHub>,
    to_hub: Receiver<ToHub>,
}

fn run_id(which: usize) -> RunId {
    RunId::new(Timestamp::from_micros(1), Partition::new(0), [which as u8; 10])
}

impl World {
    fn new() -> Self {
        let (hub, to_hub) = bounded("hub", 64, FullPolicy::RefuseCaller);
        Self {
            feed: Feed::new(2),
            log: Vec::new(),
            seqs: [0; 6],
            known: BTreeMap::new(),
            clients: Vec::new(),
            next_id: 0,
            now_us: 0,
            hub,
            to_hub,
        }
    }

    fn open(&mut self, of: OfFeed, filter: Filter) -> Subscription {
        let (sink, stream) = subscription(self.hub.clone());
        self.next_id += 1;
        let id = self.next_id;
        let reader = Rc::new(Reader::new(id, sink, (filter, true), self.now_us));
        self.known.insert(id, reader.clone());
        let over = self.feed.subscribe(id, reader, of);
        self.forget(over);
        self.tell_shards();
        stream
    }

    fn forget(&mut self, ids: Vec<u64>) {
        for id in ids {
            self.known.remove(&id);
            self.feed.leave(id);
        }
    }

    fn tell_shards(&mut self) {
        for (shard, wanted) in self.feed.wish(self.now_us, 0) {
            self.feed.on_told(shard, (wanted, true));
        }
    }

    fn subscribe(&mut self, which: usize) {
        let workspace = if which.is_multiple_of(2) { "default" } else { "acme" };
        let of = OfFeed {
            workspace: workspace.parse().unwrap(),
            workflow: (which % 4 == 2).then(|| "other".into()),
            since: Since::Now,
        };
        let kinds = if which % 3 == 1 { vec!["run.resumed".into()] } else { Vec::new() };
        let filter = Filter { kinds, ..Filter::default() };
        let stream = self.open(of.clone(), filter.clone());
        let (got, words) = (Vec::new(), Vec::new());
        self.clients.push(Client { of, filter, stream, got, words, ended: false });
    }

    fn happens(&mut self, which: usize) {
        let run = which % self.seqs.len();
        self.seqs[run] += 1;
        let (event, workflow) = ((run_id(run), self.seqs[run]), WORKFLOWS[run % WORKFLOWS.len()]);
        let body = match which % 5 {
            0 => EventBody::RunResumed,
            _ => EventBody::RunCancelRequested { reason: "x".into() },
        };
        let row = Row { seq: event.1, at: Timestamp::from_micros(5), node: None, body: &body };
        if self.feed.is_live() {
            self.log.push((event, workflow, body.type_name()));
        }
        self.feed.tell(event, &workflow.into(), Frame::event(event.0, &row));
        let over = self.feed.pump_all(0);
        self.forget(over);
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
        while let Some(heard) = self.to_hub.try_recv() {
            match heard {
                ToHub::Drained(id) => {
                    let over = self.feed.pump(id);
                    self.forget(over);
                }
                ToHub::Gone(id) => self.forget(vec![id]),
                _ => {}
            }
        }
    }

    /// The connection is cut; the client comes back with the last id that it has seen.
    fn cut(&mut self, which: usize) {
        let at = which % self.clients.len().max(1);
        let Some(client) = self.clients.get(at).filter(|client| !client.ended) else { return };
        let Some(after) = client.got.last().copied() else { return };
        let of = OfFeed { since: Since::After(after), ..client.of.clone() };
        let stream = self.open(of, client.filter.clone());
        self.clients[at].stream = stream;
    }

    fn stir(&mut self) {
        self.now_us += 1_000_000;
        let mut over = Vec::new();
        for (id, reader) in &self.known {
            match reader.stir(self.now_us, &Frame::heartbeat()) {
                Found::Well => continue,
                Found::Gone => {}
                Found::Slow => reader.say_last(reader.too_slow()),
            }
            over.push(*id);
        }
        self.forget(over);
        self.tell_shards();
    }

    /// Of the log, those that this client wants.
    fn wanted(&self, client: &Client) -> Vec<(RunId, Seq)> {
        let all = self.log.iter().filter(|(_, workflow, kind)| {
            is_of(workflow, &client.of) && client.filter.passes(kind, None, false)
        });
        all.map(|(event, ..)| *event).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    // F036, N12
    #[test]
    fn a_reader_gets_all_that_happens_from_its_beginning_to_its_end_once(
        steps in proptest::collection::vec((0u8..16, any::<u8>()), 1..400),
    ) {
        let mut world = World::new();
        world.subscribe(0);
        for (choice, n) in steps {
            let which = usize::from(n);
            match choice {
                0..=6 => (0..=which % 60).for_each(|more| world.happens(which + more)),
                7 => world.subscribe(which),
                8..=11 => world.read(which, which),
                12 => world.cut(which),
                13 if which.is_multiple_of(16) => {
                    let over = world.feed.on_gap();
                    world.forget(over);
                    // What they miss.
                    world.seqs.iter_mut().for_each(|seq| *seq += 1);
                }
                _ => world.stir(),
            }
        }
        for which in 0..world.clients.len() {
            for _ in 0..200 {
                world.read(which, 300);
            }
        }
        for client in &world.clients {
            let wanted = world.wanted(client);
            let Some(first) = client.got.first() else { continue };
            let begin = wanted.iter().position(|event| event == first).unwrap();
            let run = &wanted[begin..];
            prop_assert!(client.got.len() <= run.len());
            prop_assert_eq!(&client.got, &run[..client.got.len()], "{:?}", client.words);
            if client.ended {
                let words = client.words.last().map(String::as_str).unwrap_or_default();
                let said = words.starts_with("event: resync") || words.starts_with("event: slow_consumer");
                prop_assert!(said, "it ended without a word: {words:?}");
            } else {
                prop_assert_eq!(client.got.len(), run.len(), "what it wants is not all there");
            }
        }
    }
}

#[test]
fn the_shards_are_told_once_and_the_feed_goes_on_for_a_while_without_readers() {
    let mut world = World::new();
    assert!(world.feed.wish(0, 0).is_empty(), "nobody reads: nobody is told");
    world.happens(0);
    assert!(world.log.is_empty());
    world.subscribe(0);
    assert!(world.feed.is_live() && world.feed.wish(0, 0).is_empty());
    (0..10).for_each(|which| world.happens(which * 6));
    world.read(0, 100);
    assert_eq!(world.clients[0].words, ["event: live\ndata: {}\n\n"]);
    assert_eq!(world.clients[0].got.len(), 10);
    world.clients.clear();
    world.read(0, 0);
    for _ in 1..limits::FEED_LINGER_SECONDS {
        world.stir();
        assert!(world.feed.is_live());
    }
    world.stir();
    world.stir();
    assert!(!world.feed.is_live() && world.feed.ring.is_empty());
    // What was pushed before is still in the queue: the feed does not begin before it is through.
    let (sink, _stream) = subscription(world.hub.clone());
    let reader = Rc::new(Reader::new(99, sink, (Filter::default(), true), world.now_us));
    let of = OfFeed { workspace: Workspace::DEFAULT, workflow: None, since: Since::Now };
    world.feed.stage = Stage::Closing;
    assert!(world.feed.subscribe(99, reader, of).is_empty());
    assert!(world.feed.wish(world.now_us, 1).is_empty());
    assert_eq!(world.feed.wish(world.now_us, 0).len(), 2);
}

#[test]
fn who_comes_back_too_late_is_told_so() {
    let mut world = World::new();
    world.subscribe(0);
    (0..3).for_each(|which| world.happens(which * 6));
    world.read(0, 10);
    assert_eq!(world.clients[0].got.len(), 3);
    for which in 0..limits::FEED_EVENTS_MAX + 10 {
        world.happens(which);
    }
    world.cut(0);
    world.read(0, 10);
    let client = &world.clients[0];
    assert!(
        client.ended && client.words.last().unwrap().starts_with("event: resync\n"),
        "{:?}",
        client.words
    );
}
