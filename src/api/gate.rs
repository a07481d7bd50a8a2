//! A control core's door to the shards: sends commands, and brings each answer to whoever waits for it.
//!
//! One core, one gate, never shared between threads. It owns the table of pending requests: a slab whose entries
//! carry a generation, so that an answer to a request that was given up finds nobody and is dropped. What a shard
//! owes is counted apart from who still waits, because the reply queue needs room for every answer under way. When
//! the table or a shard's queue is full the call is refused at once and nothing was sent.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use slab::Slab;

use crate::engine::command::{Command, Envelope, Reply, ReplyTo};
use crate::limits;
use crate::model::{Partition, RunId};
use crate::queue::{Receiver, Sender};
use crate::time::Clock;
use crate::wire::problem::Problem;

/// The door; clones are the same door.
#[derive(Clone, Debug)]
pub struct Gate(Rc<Inner>);

#[derive(Debug)]
struct Inner {
    core: u16,
    shards: Vec<Sender<Envelope>>,
    slots: RefCell<Slab<Slot>>,
    generation: Cell<u32>,
    /// Answers that shards still have to give, whether anybody waits for them or not.
    owed: Cell<usize>,
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    shard: u16,
    sent_us: u64,
    state: State,
}

#[derive(Debug)]
enum State {
    Waiting(Option<Waker>),
    Answered(Box<Reply>),
    Overdue,
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Too many requests are under way on this core. Nothing was sent.
    #[error("this core has {0} requests under way (limit requests_in_flight_per_core_max)")]
    TableFull(usize),
    /// The shard's queue is full. Nothing was sent.
    #[error("shard {shard} has {depth} commands waiting (limit shard_queue_commands_max)")]
    ShardFull {
        /// Which.
        shard: u16,
        /// How many wait.
        depth: usize,
    },
    /// The shard did not answer in time. Whether it did as asked is unknown.
    #[error("shard {0} did not answer in time (limit shard_answer_seconds_max)")]
    Overdue(u16),
}

impl Error {
    /// Stable name of the error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::TableFull(_) => "overloaded",
            Self::ShardFull { .. } => "shard_queue_full",
            Self::Overdue(_) => "shard_overdue",
        }
    }
}

impl From<Error> for Box<Problem> {
    fn from(error: Error) -> Self {
        let (code, detail) = (error.code(), error.to_string());
        match error {
            Error::TableFull(_) => {
                Problem::unavailable(code, detail).limit("requests_in_flight_per_core_max")
            }
            Error::ShardFull { .. } => Problem::unavailable(code, detail).limit("shard_queue_commands_max"),
            Error::Overdue(_) => {
                let mut problem = Problem::new(504, code, detail).limit("shard_answer_seconds_max");
                problem.outcome = Some("unknown".into());
                problem
            }
        }
    }
}

impl Gate {
    /// The gate of control core `core`, whose answers come by the reply queue of the same index.
    pub fn new(core: u16, shards: Vec<Sender<Envelope>>) -> Self {
        Self(Rc::new(Inner {
            core,
            shards,
            slots: RefCell::new(Slab::new()),
            generation: Cell::new(0),
            owed: Cell::new(0),
        }))
    }

    /// How many shards there are.
    pub fn shards(&self) -> u16 {
        u16::try_from(self.0.shards.len()).unwrap_or(u16::MAX)
    }

    /// The shard that owns `run_id`.
    pub fn shard_of(&self, run_id: RunId) -> u16 {
        self.owner(run_id.partition())
    }

    /// The shard that owns a partition.
    pub fn owner(&self, partition: Partition) -> u16 {
        u16::try_from(partition.shard(self.0.shards.len())).unwrap_or(u16::MAX)
    }

    /// Sends `command` now; the answer is awaited later. Dropping the [`Pending`] gives the answer up.
    ///
    /// # Errors
    /// The table or the shard's queue is full; nothing was sent.
    pub fn send(&self, shard: u16, command: Command, now_us: u64) -> Result<Pending, Error> {
        let inner = &*self.0;
        let mut slots = inner.slots.borrow_mut();
        if slots.len() >= limits::REQUESTS_IN_FLIGHT_PER_CORE_MAX
            || inner.owed.get() >= limits::REPLY_QUEUE_MAX
        {
            return Err(Error::TableFull(slots.len().max(inner.owed.get())));
        }
        let waits_for = command.waits_for();
        let generation = inner.generation.get().wrapping_add(1);
        inner.generation.set(generation);
        let entry = slots.vacant_entry();
        let reply_to =
            ReplyTo { core: inner.core, slot: u32::try_from(entry.key()).unwrap_or(u32::MAX), generation };
        let queue = inner.shards.get(usize::from(shard)).ok_or(Error::ShardFull { shard, depth: 0 })?;
        if queue.send(Envelope { reply_to, command }).is_err() {
            return Err(Error::ShardFull { shard, depth: queue.stats().depth() });
        }
        entry.insert(Slot {
            generation,
            shard,
            // One that waits for something of a run is bounded by its caller, not by us.
            sent_us: if waits_for.is_some() { u64::MAX } else { now_us },
            state: State::Waiting(None),
        });
        inner.owed.set(inner.owed.get() + 1);
        drop(slots);
        Ok(Pending { gate: self.clone(), reply_to, waits_for, taken: false })
    }

    /// Sends and waits for the answer.
    ///
    /// # Errors
    /// As [`send`](Self::send), and when the shard does not answer in time.
    pub async fn call(&self, shard: u16, command: Command, now_us: u64) -> Result<Reply, Error> {
        self.send(shard, command, now_us)?.await
    }

    /// Brings answers to those who wait; runs as long as the core does. One wake serves all that have come.
    pub async fn deliver(self, mut replies: Receiver<(ReplyTo, Reply)>) {
        loop {
            poll_fn(|context| replies.poll_ready(context)).await;
            while let Some((to, reply)) = replies.try_recv() {
                self.answer(to, reply);
            }
        }
    }

    /// Gives up on answers that are overdue; runs as long as the core does.
    pub async fn watch_overdue(self, clock: impl Clock) {
        let mut tick = tokio::time::interval(std::time::Duration::from_secs(1));
        loop {
            tick.tick().await;
            self.give_up_before(
                clock.monotonic_us().saturating_sub(limits::SHARD_ANSWER_SECONDS_MAX * 1_000_000),
            );
        }
    }

    fn answer(&self, to: ReplyTo, reply: Reply) {
        self.0.owed.set(self.0.owed.get().saturating_sub(1));
        let mut slots = self.0.slots.borrow_mut();
        let Some(slot) = slots.get_mut(to.slot as usize).filter(|slot| slot.generation == to.generation)
        else {
            // Its caller went away.
            return;
        };
        if let State::Waiting(waker) = std::mem::replace(&mut slot.state, State::Answered(Box::new(reply))) {
            drop(slots);
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }

    fn give_up_before(&self, before_us: u64) {
        let mut wakers = Vec::new();
        for (_, slot) in self.0.slots.borrow_mut().iter_mut() {
            if slot.sent_us < before_us
                && let State::Waiting(waker) = &mut slot.state
            {
                wakers.extend(waker.take());
                slot.state = State::Overdue;
            }
        }
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Tells the shard that nobody waits for something of a run any more. When its queue is full the answer comes when
    /// that comes about, at the run's end at the latest, and is dropped then.
    fn stop_waiting(&self, run_id: RunId, waiter: ReplyTo) {
        let Some(queue) = self.0.shards.get(usize::from(self.shard_of(run_id))) else { return };
        if self.0.owed.get() >= limits::REPLY_QUEUE_MAX {
            return;
        }
        // Generation 0 is nobody's, so the answer is only counted.
        let reply_to = ReplyTo { core: self.0.core, slot: u32::MAX, generation: 0 };
        if queue.send(Envelope { reply_to, command: Command::StopWaiting { run_id, waiter } }).is_ok() {
            self.0.owed.set(self.0.owed.get() + 1);
        }
    }
}

/// An answer on its way.
#[derive(Debug)]
#[must_use = "dropping it gives the answer up"]
pub struct Pending {
    gate: Gate,
    reply_to: ReplyTo,
    waits_for: Option<RunId>,
    taken: bool,
}

impl Pending {
    /// Waits no longer: the shard is told to answer with what there is. From here on the answer may be overdue.
    pub fn hurry(&mut self, now_us: u64) {
        let Some(run_id) = self.waits_for.take() else { return };
        let key = self.reply_to.slot as usize;
        if let Some(slot) = self.gate.0.slots.borrow_mut().get_mut(key)
            && slot.generation == self.reply_to.generation
        {
            slot.sent_us = now_us;
        }
        self.gate.stop_waiting(run_id, self.reply_to);
    }
}

impl Future for Pending {
    type Output = Result<Reply, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let gate = self.gate.clone();
        let mut slots = gate.0.slots.borrow_mut();
        let key = self.reply_to.slot as usize;
        let mine = |slot: &&mut Slot| slot.generation == self.reply_to.generation;
        let Some(slot) = slots.get_mut(key).filter(mine) else {
            return Poll::Ready(Err(Error::Overdue(0)));
        };
        if let State::Waiting(waker) = &mut slot.state {
            if !waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
                *waker = Some(context.waker().clone());
            }
            return Poll::Pending;
        }
        let slot = slots.remove(key);
        self.taken = true;
        Poll::Ready(match slot.state {
            State::Answered(reply) => Ok(*reply),
            State::Waiting(_) | State::Overdue => Err(Error::Overdue(slot.shard)),
        })
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if self.taken {
            return;
        }
        let mut slots = self.gate.0.slots.borrow_mut();
        let key = self.reply_to.slot as usize;
        let Some(slot) = slots.get(key).filter(|slot| slot.generation == self.reply_to.generation) else {
            return;
        };
        let answered = matches!(slot.state, State::Answered(_));
        slots.remove(key);
        drop(slots);
        if let (Some(run_id), false) = (self.waits_for, answered) {
            self.gate.stop_waiting(run_id, self.reply_to);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::{FullPolicy, bounded};
    use crate::time::Timestamp;

    fn run_id() -> RunId {
        RunId::new(Timestamp::from_micros(1), Partition::new(0), [7; 10])
    }

    fn gate(capacity: usize) -> (Gate, Receiver<Envelope>) {
        let (sender, receiver) = bounded("shard", capacity, FullPolicy::RefuseCaller);
        (Gate::new(3, vec![sender]), receiver)
    }

    fn poll(pending: &mut Pending) -> Poll<Result<Reply, Error>> {
        Pin::new(pending).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn an_answer_reaches_the_caller_that_asked() {
        let (gate, mut shard) = gate(4);
        let mut first = gate.send(0, Command::Get(run_id()), 0).unwrap();
        let mut second = gate.send(0, Command::Locate(run_id()), 0).unwrap();
        let (a, b) = (shard.try_recv().unwrap(), shard.try_recv().unwrap());
        gate.answer(b.reply_to, Reply::Done);
        assert!(poll(&mut first).is_pending());
        assert!(matches!(poll(&mut second), Poll::Ready(Ok(Reply::Done))));
        gate.answer(a.reply_to, Reply::List(Vec::new()));
        assert!(matches!(poll(&mut first), Poll::Ready(Ok(Reply::List(_)))));
        assert_eq!((gate.0.slots.borrow().len(), gate.0.owed.get()), (0, 0));
    }

    #[test]
    fn a_late_answer_to_a_slot_used_again_is_dropped() {
        let (gate, mut shard) = gate(4);
        drop(gate.send(0, Command::Get(run_id()), 0).unwrap());
        let mut again = gate.send(0, Command::Get(run_id()), 0).unwrap();
        let (old, new) = (shard.try_recv().unwrap().reply_to, shard.try_recv().unwrap().reply_to);
        assert_eq!(old.slot, new.slot);
        assert_ne!(old.generation, new.generation);
        gate.answer(old, Reply::List(Vec::new()));
        assert!(poll(&mut again).is_pending());
        gate.answer(new, Reply::Done);
        assert!(matches!(poll(&mut again), Poll::Ready(Ok(Reply::Done))));
    }

    #[test]
    fn full_queues_and_tables_refuse_at_once_and_leave_nothing_behind() {
        let (full, _shard) = gate(1);
        let _first = full.send(0, Command::Get(run_id()), 0).unwrap();
        let refused = full.send(0, Command::Get(run_id()), 0).unwrap_err();
        assert_eq!(refused, Error::ShardFull { shard: 0, depth: 1 });
        assert_eq!(full.0.slots.borrow().len(), 1);
        let problem = Box::<Problem>::from(refused);
        assert_eq!((problem.status, problem.outcome.as_deref()), (503, Some("not_applied")));
        assert!(problem.retry_after_ms.is_some());

        let (gate, _shard) = gate(limits::REQUESTS_IN_FLIGHT_PER_CORE_MAX + 1);
        let held: Vec<_> = (0..limits::REQUESTS_IN_FLIGHT_PER_CORE_MAX)
            .map(|_| gate.send(0, Command::Get(run_id()), 0).unwrap())
            .collect();
        assert!(matches!(gate.send(0, Command::Get(run_id()), 0), Err(Error::TableFull(_))));
        drop(held);
        // The callers are gone, their answers are still owed: the reply queue must keep room for them.
        assert_eq!(gate.0.owed.get(), limits::REQUESTS_IN_FLIGHT_PER_CORE_MAX);
        assert!(gate.send(0, Command::Get(run_id()), 0).is_ok());
    }

    #[test]
    fn giving_up_a_wait_tells_the_shard() {
        let (gate, mut shard) = gate(4);
        drop(gate.send(0, Command::AwaitEnd(run_id()), 0).unwrap());
        let waiting = shard.try_recv().unwrap();
        let stop = shard.try_recv().unwrap();
        assert!(matches!(stop.command, Command::StopWaiting { waiter, .. } if waiter == waiting.reply_to));
        gate.answer(waiting.reply_to, Reply::Done);
        gate.answer(stop.reply_to, Reply::Done);
        assert_eq!(gate.0.owed.get(), 0);
    }

    #[test]
    fn who_hurries_gets_what_there_is_or_is_told_that_nobody_knows() {
        let update = |wait| {
            let update = crate::engine::command::Update { run_id: run_id(), token: Vec::new(), wait };
            Command::Update(update).guarded(run_id(), Some(vec![1]))
        };
        let (gate, mut shard) = gate(9);
        let mut waits = gate.send(0, update(true), 0).unwrap();
        let mut plain = gate.send(0, update(false), 0).unwrap();
        let waiting = shard.try_recv().unwrap();
        drop(shard.try_recv().unwrap());
        gate.give_up_before(5);
        assert!(poll(&mut waits).is_pending(), "it is bounded by its caller");
        assert!(matches!(poll(&mut plain), Poll::Ready(Err(Error::Overdue(0)))));
        waits.hurry(10);
        plain.hurry(10);
        let stop = shard.try_recv().unwrap();
        assert!(matches!(stop.command, Command::StopWaiting { waiter, .. } if waiter == waiting.reply_to));
        gate.give_up_before(10);
        assert!(poll(&mut waits).is_pending());
        gate.give_up_before(11);
        assert!(matches!(poll(&mut waits), Poll::Ready(Err(Error::Overdue(0)))));
        drop(waits);
        assert!(shard.try_recv().is_none(), "the shard is told once");
    }

    #[test]
    fn an_overdue_answer_is_an_unknown_outcome_but_waiting_for_an_end_is_not() {
        let (gate, _shard) = gate(4);
        let mut asked = gate.send(0, Command::Get(run_id()), 10).unwrap();
        let mut waits = gate.send(0, Command::AwaitEnd(run_id()), 10).unwrap();
        gate.give_up_before(11);
        let Poll::Ready(Err(error)) = poll(&mut asked) else { panic!("still waiting") };
        assert_eq!(error, Error::Overdue(0));
        assert_eq!(Box::<Problem>::from(error).outcome.as_deref(), Some("unknown"));
        assert!(poll(&mut waits).is_pending());
    }
}
