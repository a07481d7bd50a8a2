//! The loop of one fanout core: takes subscriptions, pushes and answers, and does what the groups ask for.
//!
//! A reader of several runs is a member of the group of each, and leaves the others when one breaks it off. Any hub can watch any
//! run: a shard pushes to those that asked.
//!
//! The hub owns a slot table of its own for questions to shards, like a control core, so the shards answer it by a
//! reply queue with a core index of its own. History is read on blocking threads, at most
//! [`limits::HUB_READS_MAX`] at a time; the rest waits in line, one read a subscriber.

mod readers;
mod walking;

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use ahash::AHashMap;
use slab::Slab;

use self::readers::Known;
use super::asking::Asking;
use super::feed::Feed;
use super::group::{self, Action, Group};
use super::push::Push;
use super::reader::Found;
use super::serve::Connections;
use super::source::{Location, Source, SourceError};
use super::walk::Need;
use crate::engine::command::{Command, Envelope, Refusal, Reply, ReplyTo};
use crate::ir::Ir;
use crate::limits;
use crate::model::{Event, RunFilter, RunId, kept};
use crate::queue::{FullPolicy, Receiver, Sender, bounded};
use crate::telemetry;
use crate::time::{Clock, SystemClock};
use crate::wire::frame::Frame;
use crate::wire::stream::ToHub;

/// What a hub is built from.
pub struct Parts {
    /// Index of this hub's reply queue, beside those of the control cores.
    pub core: u16,
    /// Which of the fanout cores it is.
    pub index: u16,
    /// Doors of all shards.
    pub shards: Vec<Sender<Envelope>>,
    /// Answers of the shards; room for `REPLY_QUEUE_MAX`.
    pub replies: Receiver<(ReplyTo, Reply)>,
    /// Events of watched runs.
    pub pushes: Receiver<Push>,
    /// Subscriptions from control cores.
    pub requests: Receiver<ToHub>,
    /// Where streams are asked for that come without a request over HTTP.
    pub asking: Asking,
    /// History and documents.
    pub source: Arc<dyn Source>,
    /// What this core counts of its streams.
    pub subscribers: Arc<telemetry::StreamCells>,
}

/// One fanout core.
pub struct Hub {
    parts: Parts,
    groups: AHashMap<RunId, Entry>,
    feed: Feed,
    readers: AHashMap<u64, Known>,
    /// Readers of several runs that are to be looked at, because a page was read or a member left.
    turns: VecDeque<u64>,
    next_id: u64,
    /// Questions under way at the shards.
    questions: Slab<Question>,
    generation: u32,
    jobs: VecDeque<Job>,
    running: usize,
    done_sender: Sender<Done>,
    done: Receiver<Done>,
    connections: Connections,
    clock: SystemClock,
}

/// A group and its number: an answer meant for an earlier group of the same run is not for this one.
struct Entry {
    number: u64,
    group: Group,
}

struct Question {
    generation: u32,
    about: About,
}

/// What was asked.
#[derive(Clone, Copy)]
enum About {
    /// Where a run stands, for this group of it.
    Group(RunId, u64),
    /// Whether a shard feeds this core.
    Feed(u16, bool),
    /// For the walk of this reader: so many ids at most.
    Ids(u64, usize),
    /// For the walk of this reader: where a run stands.
    Place(u64, RunId),
    /// The answer is only counted.
    Nothing,
}

/// What is read on a blocking thread.
enum Job {
    Group((RunId, u64), Action),
    Walk(u64, RunFilter, Need),
}

enum Done {
    Group((RunId, u64), JobResult),
    Walk(u64, walking::Walked),
}

enum JobResult {
    Names(Option<Arc<Ir>>),
    Finished(Result<Option<Location>, SourceError>),
    Page(u64, Result<Vec<Event>, SourceError>),
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hub").field("runs", &self.groups.len()).field("readers", &self.readers.len()).finish()
    }
}

impl Hub {
    /// A hub that watches nothing yet.
    pub fn new(parts: Parts) -> Self {
        let (done_sender, done) = bounded("hub-done", limits::HUB_READS_MAX, FullPolicy::Reserved);
        Self {
            feed: Feed::new(parts.shards.len()),
            parts,
            groups: AHashMap::new(),
            turns: VecDeque::new(),
            readers: AHashMap::new(),
            next_id: 0,
            questions: Slab::new(),
            generation: 0,
            jobs: VecDeque::new(),
            running: 0,
            done_sender,
            done,
            connections: Connections::default(),
            clock: SystemClock,
        }
    }

    /// Runs on this thread's tokio runtime until `stop` is ready; then every stream is ended, and readers go elsewhere
    /// or come back.
    pub async fn run(mut self, stop: impl Future<Output = ()>) {
        let mut stop = std::pin::pin!(stop);
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let stopped = tokio::select! {
                biased;
                () = &mut stop => true,
                () = poll_fn(|context| self.poll_queues(context)) => false,
                _ = tick.tick() => {
                    self.stir();
                    false
                }
            };
            if stopped {
                break;
            }
            self.turn();
            // A hub with much to do must not keep its own timers and blocking results from running.
            tokio::task::yield_now().await;
        }
        self.groups.clear();
        self.feed = Feed::new(0);
        self.readers.clear();
        self.parts.subscribers.open.set(0);
        // Nobody asks to be served any more; what came before is told that it is over, and ends.
        while self.parts.requests.try_recv().is_some() {}
        self.connections.closed(Duration::from_millis(limits::DRAIN_GRACE_MILLIS)).await;
    }

    fn poll_queues(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let ready = [
            self.parts.replies.poll_ready(context),
            self.done.poll_ready(context),
            self.parts.pushes.poll_ready(context),
            self.parts.requests.poll_ready(context),
        ];
        if ready.iter().any(Poll::is_ready) { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Takes what has come, a bounded number of each.
    fn turn(&mut self) {
        const EACH: usize = 256;
        for _ in 0..EACH {
            let Some((to, reply)) = self.parts.replies.try_recv() else { break };
            self.on_reply(to, reply);
        }
        for _ in 0..EACH {
            let Some(done) = self.done.try_recv() else { break };
            self.on_done(done);
        }
        for _ in 0..EACH {
            let Some(push) = self.parts.pushes.try_recv() else { break };
            self.on_push(push);
        }
        for _ in 0..EACH {
            let Some(request) = self.parts.requests.try_recv() else { break };
            self.on_request(request);
        }
        let over = self.feed.pump_all(self.clock.now().as_millis());
        self.parts.subscribers.slow.add(self.feed.slow());
        self.forget_all(over);
        self.serve_walks();
        while let Some(id) = self.turns.pop_front() {
            self.take_turns(id);
        }
    }

    fn on_push(&mut self, push: Push) {
        crate::failpoint::pass("fanout::deliver");
        let (run_id, now_us) = (push.run_id, self.clock.monotonic_us());
        self.feed.took();
        if push.feed_lagged {
            let over = self.feed.on_gap();
            self.forget_all(over);
        }
        let fed = push.feed.clone().filter(|feed| feed.cores.has(self.parts.index) && self.feed.is_live());
        let Some(feed) = fed else {
            return self.with_group(run_id, None, |group, actions| group.on_push(push, now_us, actions));
        };
        let told = push.clone();
        self.with_group(run_id, None, |group, actions| group.on_push(push, now_us, actions));
        let group = self.groups.get(&run_id).map(|entry| &entry.group);
        for (seq, body) in (told.first_seq..).zip(&told.events) {
            let said = group.and_then(|group| group.recent(seq)).cloned().unwrap_or_else(|| {
                kept::naming(told.kept.as_ref(), || {
                    group::frame(run_id, Some(&feed.graph), (seq, told.at), body)
                })
            });
            self.feed.tell((run_id, seq), &feed.workflow, said);
        }
    }

    fn on_request(&mut self, request: ToHub) {
        match request {
            ToHub::Subscribe(subscribe) => self.subscribe(subscribe),
            ToHub::Serve(handed) => self.connections.serve(handed, &self.parts.asking),
            ToHub::Drained(id) => {
                let Some(known) = self.readers.get(&id) else { return };
                match *known.runs {
                    [] => {
                        let over = self.feed.pump(id);
                        self.forget_all(over);
                    }
                    [run_id] => {
                        self.with_group(run_id, None, |group, actions| group.pump(id, actions));
                    }
                    _ => self.turns.push_back(id),
                }
            }
            ToHub::Delta { run_id, frame } => {
                if let Some(entry) = self.groups.get(&run_id) {
                    entry.group.on_delta(&frame);
                }
            }
            ToHub::Gone(id) => {
                if self.readers.get(&id).is_some_and(|known| known.reader.is_gone()) {
                    self.forget(id);
                }
            }
        }
    }

    fn on_reply(&mut self, to: ReplyTo, reply: Reply) {
        let key = to.slot as usize;
        if self.questions.get(key).is_none_or(|question| question.generation != to.generation) {
            return;
        }
        let (run_id, number) = match self.questions.remove(key).about {
            About::Group(run_id, number) => (run_id, number),
            About::Feed(shard, wanted) => {
                return self.feed.on_told(shard, (wanted, matches!(reply, Reply::Done)));
            }
            About::Ids(id, limit) => return self.on_ids(id, limit, reply),
            About::Place(id, run_id) => return self.on_place((id, run_id), reply),
            About::Nothing => return,
        };
        let shard = self.shard_of(run_id);
        self.with_group(run_id, Some(number), |group, actions| match reply {
            Reply::Located(located) => group.on_located(Location { shard, located }, actions),
            Reply::Refused(Refusal::NotFound(_)) => group.on_missing(false, actions),
            Reply::Refused(_) => group.close_all(actions),
            _ => group.on_not_asked(),
        });
    }

    fn on_done(&mut self, done: Done) {
        self.running -= 1;
        let ((run_id, number), result) = match done {
            Done::Group(group, result) => (group, result),
            Done::Walk(id, walked) => {
                self.on_walked(id, walked);
                return self.start_jobs();
            }
        };
        if let JobResult::Page(id, _) = &result
            && self.readers.get(id).is_some_and(|known| known.runs.len() > 1)
        {
            self.turns.push_back(*id);
        }
        self.with_group(run_id, Some(number), |group, actions| match result {
            JobResult::Names(ir) => group.on_names(ir, actions),
            JobResult::Finished(Ok(Some(location))) => group.on_located(location, actions),
            JobResult::Finished(Ok(None)) => group.on_missing(true, actions),
            JobResult::Finished(Err(_)) => group.close_all(actions),
            JobResult::Page(id, page) => group.on_page(id, page, actions),
        });
        self.start_jobs();
    }

    fn stir(&mut self) {
        let (now_us, heartbeat) = (self.clock.monotonic_us(), Frame::heartbeat());
        let mut over = Vec::new();
        for (id, known) in &self.readers {
            match known.reader.stir(now_us, &heartbeat) {
                Found::Well => {}
                Found::Gone => over.push(*id),
                Found::Slow => {
                    known.reader.say_last(known.reader.too_slow());
                    self.parts.subscribers.slow.increment();
                    over.push(*id);
                }
            }
            if known.reader.has_waiting() {
                self.turns.push_back(*id);
            }
        }
        self.forget_all(over);
        let all: Vec<RunId> = self.groups.keys().copied().collect();
        for run_id in all {
            self.with_group(run_id, None, |group, actions| group.stir(now_us, actions));
        }
        self.ask_for_feeds();
    }

    /// Lets a group act, does what it asks for, and forgets it when nobody reads it any more.
    fn with_group(
        &mut self,
        run_id: RunId,
        number: Option<u64>,
        act: impl FnOnce(&mut Group, &mut Vec<Action>),
    ) {
        let Some(entry) = self.groups.get_mut(&run_id) else { return };
        if number.is_some_and(|number| number != entry.number) {
            return;
        }
        let number = entry.number;
        let mut actions = Vec::new();
        act(&mut entry.group, &mut actions);
        let mut over = Vec::new();
        for action in actions {
            match action {
                Action::Watch => {
                    let command = Command::Watch { run_id, hub: self.parts.index };
                    let about = About::Group(run_id, number);
                    if !self.question(self.shard_of(run_id), command, about)
                        && let Some(entry) = self.groups.get_mut(&run_id)
                    {
                        entry.group.on_not_asked();
                    }
                }
                Action::Closed { subscriber, ended } => over.push((subscriber, ended)),
                action => self.jobs.push_back(Job::Group((run_id, number), action)),
            }
        }
        for (id, ended) in over {
            self.closed(id, ended);
        }
        if let Some(entry) = self.groups.get(&run_id)
            && entry.group.is_empty()
        {
            let ended = entry.group.has_ended();
            self.groups.remove(&run_id);
            if !ended {
                // When its queue is full the shard goes on pushing, to nobody, until the run ends.
                let command = Command::Unwatch { run_id, hub: self.parts.index };
                self.question(self.shard_of(run_id), command, About::Nothing);
            }
        }
        self.start_jobs();
    }

    fn question(&mut self, shard: u16, command: Command, about: About) -> bool {
        if self.questions.len() >= limits::REQUESTS_IN_FLIGHT_PER_CORE_MAX {
            return false;
        }
        let Some(shard) = self.parts.shards.get(usize::from(shard)) else { return false };
        self.generation = self.generation.wrapping_add(1);
        let entry = self.questions.vacant_entry();
        let reply_to = ReplyTo {
            core: self.parts.core,
            slot: u32::try_from(entry.key()).unwrap_or(u32::MAX),
            generation: self.generation,
        };
        let sent = shard.send(Envelope { reply_to, command }).is_ok();
        if sent {
            entry.insert(Question { generation: self.generation, about });
        }
        sent
    }

    fn shard_of(&self, run_id: RunId) -> u16 {
        u16::try_from(run_id.partition().shard(self.parts.shards.len())).unwrap_or(u16::MAX)
    }

    fn start_jobs(&mut self) {
        while self.running < limits::HUB_READS_MAX
            && let Some(job) = self.jobs.pop_front()
        {
            let is_wanted = match &job {
                Job::Group((run_id, number), _) => {
                    self.groups.get(run_id).is_some_and(|entry| entry.number == *number)
                }
                Job::Walk(id, ..) => self.readers.contains_key(id),
            };
            if !is_wanted {
                continue;
            }
            self.running += 1;
            let (source, done) = (self.parts.source.clone(), self.done_sender.clone());
            tokio::task::spawn_blocking(move || {
                let result = match job {
                    Job::Group(group, action) => {
                        let Some(result) = work(&*source, group.0, action) else { return };
                        Done::Group(group, result)
                    }
                    Job::Walk(id, filter, need) => {
                        let Some(walked) = walking::work(&*source, filter, need) else { return };
                        Done::Walk(id, walked)
                    }
                };
                // Room is reserved by `running`.
                let _ = done.send(result);
            });
        }
    }
}

fn work(source: &dyn Source, run_id: RunId, action: Action) -> Option<JobResult> {
    Some(match action {
        Action::Names(location) => JobResult::Names(source.graph(&location).ok().flatten()),
        Action::Finished => JobResult::Finished(source.finished(run_id)),
        Action::Read { subscriber, location, after, limit } => {
            JobResult::Page(subscriber, source.events(&location, after, limit))
        }
        Action::Watch | Action::Closed { .. } => return None,
    })
}
