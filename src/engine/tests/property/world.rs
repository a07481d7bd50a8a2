//! Plays the shard for one run, and the world around it: fires timers that were armed, answers work that was handed out,
//! sends signals, pauses, cancels, crashes. What it knows of the run's wishes it knows from effects, until a crash; then
//! from [`Run::timers`] and [`Run::dispatches`], as a shard does.

use std::sync::Arc;

use super::Bytes;
use super::ledger::Ledger;
use super::watch::{folded, told};
use crate::engine::scope;
use crate::engine::tests::{Given, START, check_scope, refold, relive, start};
use crate::engine::{Dispatch, Effects, Input, Outcome, Run, Timer, Work, advance, apply, decide, fork};
use crate::ir::Ir;
use crate::model::event::Forked;
use crate::model::{Event, EventBody, Mode, Value};
use crate::replay::{self, Burst, Record};
use crate::time::Timestamp;

/// A run to begin.
pub(super) struct Begun {
    pub(super) ir: Arc<Ir>,
    pub(super) inputs: Value,
    pub(super) pace: Pace,
    /// It may be terminated without having been cancelled.
    pub(super) terminated: bool,
}

/// How the shard takes its time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Pace {
    /// Slices of so many steps, until nothing is ready.
    Slices(u32),
    /// One slice of so many steps after each input, whatever is ready then.
    Hurried(u32),
    /// After every event all else is lost, and the run is rebuilt from the bytes of its history.
    CrashAfterEachEvent,
}

/// What happened, to be done again.
#[derive(Clone, Debug)]
pub(super) enum Move {
    Give(Given),
    /// Another slice.
    GoOn,
    Crash,
}

/// One run and what is around it.
#[derive(Clone)]
pub(super) struct World {
    pub(super) run: Run,
    pub(super) history: Vec<Event>,
    /// How many events there were before each burst.
    bursts: Vec<usize>,
    pub(super) moves: Vec<(Timestamp, Move)>,
    pace: Pace,
    pub(super) now: Timestamp,
    ledger: Ledger,
    /// Armed and not fired yet, stale ones among them.
    pub(super) timers: Vec<(Timestamp, Timer)>,
    /// Handed out and not answered yet, stale ones among them.
    pub(super) work: Vec<Dispatch>,
    /// What is being given.
    taken: Option<Given>,
    pub(super) terminated: bool,
}

impl World {
    pub(super) fn begin(begun: Begun) -> Self {
        let start = start(&begun.ir, begun.inputs);
        let event = Event { seq: 1, at: START, body: Run::begin(&start, START, 3) };
        let run = Run::from_started(start.run_id, start.ir, &event).unwrap();
        let mut ledger = Ledger::new(begun.ir);
        ledger.record(event.at, &event.body);
        let mut world = Self {
            timers: run.timers().collect(),
            run,
            history: vec![event],
            bursts: Vec::new(),
            moves: Vec::new(),
            pace: begun.pace,
            now: START,
            ledger,
            work: Vec::new(),
            taken: None,
            terminated: begun.terminated,
        };
        world.go_on(None);
        world
    }

    /// Things that happen, as the bytes say.
    pub(super) fn play(&mut self, script: &[u8]) {
        let mut script = Bytes(script);
        while !script.0.is_empty() && !self.run.status().is_terminal() {
            self.now = self.now.saturating_add(script.seconds(2));
            let next = self.happening(&mut script);
            self.make(next);
        }
    }

    /// The same again.
    pub(super) fn replay(&mut self, moves: &[(Timestamp, Move)]) {
        for (now, next) in moves {
            self.now = *now;
            self.make(next.clone());
        }
    }

    /// I-21: once everything that was asked for has come, the run is over.
    pub(super) fn settle(&mut self) {
        for round in 0..3_000 {
            if self.run.status().is_terminal() {
                return self.ledger.over(&self.run);
            }
            if self.run.is_ready() {
                assert!(matches!(self.pace, Pace::Hurried(_)), "ready, and left alone");
                self.make(Move::GoOn);
                continue;
            }
            let given = self.wanted(round).unwrap_or_else(|| panic!("stuck: {:#?}", self.told()));
            let stale = self.make(Move::Give(given.clone()));
            assert!(!stale, "what the run waits for is stale: {given:?} {:#?}", self.told());
        }
        panic!("it never ends: {:#?}", self.told());
    }

    /// Does it, checks what holds, and remembers it. Answers whether an input was dropped.
    fn make(&mut self, next: Move) -> bool {
        let next = self.untorn(next);
        self.moves.push((self.now, next.clone()));
        match next {
            Move::Crash => {
                self.crash();
                false
            }
            Move::GoOn => self.step(Input::Continue),
            Move::Give(given) => self.give(&given),
        }
    }

    fn give(&mut self, given: &Given) -> bool {
        let early = matches!(given, Given::Timer(timer)
            if self.run.timers().all(|(due, armed)| armed != *timer || due > self.now));
        let asked = matches!(given, Given::Settle(place, attempt, _) if self.run.dispatches().iter()
            .any(|dispatch| (&dispatch.place, dispatch.seq) == (place, *attempt)));
        let before = self.history.len();
        self.taken = Some(given.clone());
        let stale = self.go_on(Some(given.input()));
        assert!(stale || self.history.len() > before, "taken, but nothing came of it: {given:?}");
        assert!(!early || stale, "a timer fired early, or that was not armed: {given:?}");
        assert!(
            !asked || !stale || self.run.status().is_terminal(),
            "not listened to: {given:?} {:#?}",
            self.told()
        );
        stale
    }

    /// The node goes down and comes up again.
    fn crash(&mut self) {
        let rebuilt = self.rebuilt();
        assert_eq!(rebuilt, self.run, "a refold gives the same state");
        // RELIABILITY 2.7: whatever follows is decided and folded on what came back from an image.
        let imaged = Run::from_image(&rebuilt.to_image().unwrap(), &mut Same(rebuilt.ir().clone()));
        assert_eq!(imaged.as_ref(), Ok(&rebuilt), "an image gives the same state");
        self.run = imaged.unwrap();
        self.timers = self.run.timers().collect();
        self.work = self.run.dispatches();
        if self.pace == Pace::CrashAfterEachEvent {
            return;
        }
        let armed_again = self.timers.clone();
        assert_eq!(armed_again, self.run.timers().collect::<Vec<_>>());
    }

    /// Back to the moment after the first `cut` events.
    pub(super) fn cut(&mut self, cut: usize) {
        self.history.truncate(cut);
        self.bursts.clear();
        self.moves.clear();
        self.run = self.rebuilt();
        self.now = self.history.last().map_or(START, |event| event.at);
        self.timers = self.run.timers().collect();
        self.work = self.run.dispatches();
        self.ledger = Ledger::new(self.run.ir().clone());
        let (_, whole) = relive(self.run.ir(), &self.history);
        whole.iter().for_each(|(at, body)| self.ledger.record(*at, body));
        self.go_on(None);
    }

    /// Another run that goes on from the moment after the first `cut` events; none where it may not.
    pub(super) fn fork(&self, cut: usize) -> Option<Self> {
        let (id, seq) = (self.run.id(), cut as u64);
        let prefix =
            replay::fork::prefix(&self.record()?, &mut Same(self.run.ir().clone()), (id, seq)).ok()?;
        let mut world = Self { run: prefix.run, moves: Vec::new(), taken: None, ..self.clone() };
        world.history.truncate(cut);
        world.bursts.retain(|at| *at < cut);
        world.ledger = Ledger::new(world.run.ir().clone());
        let (_, whole) = relive(world.run.ir(), &world.history);
        whole.iter().for_each(|(at, body)| world.ledger.record(*at, body));
        let body = EventBody::RunForked(Box::new(Forked {
            run_id: id,
            seq,
            since: prefix.since,
            replay: false,
            inputs: None,
            deadline: world.run.deadline_of_fork(self.now),
            idempotency: None,
            epoch: 4,
        }));
        let mut out = Outcome::default();
        fork(&mut world.run, &body, self.now, &mut out).unwrap();
        (world.timers, world.work) = (out.effects.timers, out.effects.dispatches);
        world.bursts.push(cut);
        world.note(body);
        // What follows at once stands in the burst of the fork.
        world.step(Input::Continue);
        world.bursts.retain(|at| *at != cut + 1);
        world.go_on(None);
        Some(world)
    }

    pub(super) fn rebuilt(&self) -> Run {
        refold(self.run.ir(), &self.history)
    }

    /// The bytes of all events.
    pub(super) fn bytes(&self) -> Vec<u8> {
        self.history.iter().flat_map(|event| postcard::to_stdvec(&event.body).unwrap()).collect()
    }

    /// The history in words, for whoever reads a failed test.
    fn told(&self) -> Vec<String> {
        self.history.iter().map(|event| told(&self.run, event)).collect()
    }

    /// The first event in which two histories differ.
    pub(super) fn difference(&self, other: &Self) -> Option<String> {
        let at = (0..).zip(self.history.iter().zip(&other.history)).find(|(_, (a, b))| a != b);
        let at = match at {
            Some((at, _)) => at,
            None if self.history.len() == other.history.len() => return None,
            None => self.history.len().min(other.history.len()),
        };
        let from = |world: &Self| world.told().split_off(at.saturating_sub(3));
        Some(format!("from event {at}: {:#?}\nand: {:#?}", from(self), from(other)))
    }

    /// Codes of all failures.
    pub(super) fn failures(&self) -> Vec<String> {
        let codes = self.history.iter().filter_map(|event| match &event.body {
            EventBody::NodeFailed { failure, .. }
            | EventBody::RunFailed { failure, .. }
            | EventBody::NodeFellBack { failure, .. }
            | EventBody::NodeRetryScheduled { failure, .. } => Some(failure.code.to_string()),
            _ => None,
        });
        codes.collect()
    }

    /// Gives the input, and goes on as the pace says.
    fn go_on(&mut self, mut input: Option<Input<'_>>) -> bool {
        let mut stale = false;
        if let Some(input) = input.take() {
            stale = self.step(input);
        }
        while self.run.is_ready() && (!matches!(self.pace, Pace::Hurried(_)) || self.history.len() == 1) {
            let before = self.history.len();
            self.step(Input::Continue);
            assert!(self.history.len() > before, "a ready run went nowhere: {:#?}", self.told());
        }
        stale
    }

    /// The world forgets a timer that fired and work that was answered, unless the shard refused to hear of it.
    fn forget(&mut self, stale: bool) {
        match self.taken.take() {
            Some(Given::Timer(timer)) => {
                let armed: Vec<_> = self.run.timers().collect();
                let now = self.now;
                self.timers
                    .retain(|other| other.1 != timer || other.0 > now || (stale && armed.contains(other)));
            }
            Some(Given::Settle(place, attempt, _) | Given::Lost(place, attempt)) => {
                let asked = self.run.dispatches();
                self.work.retain(|other| {
                    (&other.place, other.seq) != (&place, attempt) || (stale && asked.contains(other))
                });
            }
            // A turn that is over is called back by nobody.
            Some(Given::Agent(place, seq, _)) if !stale => {
                let asked = self.run.dispatches();
                // The same turn may have another model by now.
                self.work.retain_mut(|other| {
                    let same = |now: &&Dispatch| (&now.place, now.seq) == (&place, seq);
                    if !same(&&*other) {
                        return true;
                    }
                    let now = asked.iter().find(same);
                    now.inspect(|now| other.clone_from(now)).is_some()
                });
            }
            Some(Given::Lease(place, attempt)) if !stale => {
                let taken =
                    self.work.iter_mut().filter(|other| (&other.place, other.seq) == (&place, attempt));
                taken.for_each(|dispatch| dispatch.worker = Some("w".into()));
            }
            _ => {}
        }
    }

    /// What happened, in the bursts in which it was decided.
    pub(super) fn record(&self) -> Option<Record> {
        let (Pace::Slices(steps) | Pace::Hurried(steps)) = self.pace else { return None };
        let mut bursts: Vec<Burst> = Vec::new();
        for (at, event) in self.history.iter().enumerate() {
            // `run.started` stands in the burst of what follows it.
            let begins = at == 0
                || (self.bursts.contains(&at) && (at != 1 || matches!(event.body, EventBody::RunForked(_))));
            if begins {
                bursts.push(Burst { first_seq: event.seq, at: event.at, events: Vec::new() });
            }
            bursts.last_mut().unwrap().events.push(event.body.clone());
        }
        Some(Record { run_id: self.run.id(), bursts, steps })
    }

    fn step(&mut self, input: Input<'_>) -> bool {
        self.bursts.push(self.history.len());
        let mut out = Outcome::default();
        match self.pace {
            Pace::Slices(steps) | Pace::Hurried(steps) => {
                let mut shadow = self.run.clone();
                advance(&mut self.run, input, self.now, steps, &mut out).unwrap();
                let mut effects = Effects::default();
                if self.run.mode() == Mode::Fast {
                    effects = std::mem::take(&mut out.effects);
                    for body in std::mem::take(&mut out.events) {
                        self.record_derived(&mut shadow, body);
                    }
                }
                let others = self.run.mode() == Mode::Full;
                for body in std::mem::take(&mut out.events) {
                    let each = folded(&mut shadow, &body, self.now);
                    effects.timers.extend(each.timers);
                    effects.dispatches.extend(each.dispatches);
                    effects.recalls.extend(each.recalls);
                    self.note(body);
                }
                assert_eq!(shadow, self.run, "what advance left is the fold of its events");
                if others {
                    assert_eq!(effects.timers, out.effects.timers);
                    assert_eq!(effects.dispatches, out.effects.dispatches);
                    assert_eq!(effects.recalls, out.effects.recalls);
                }
                self.forget(out.stale);
                self.timers.extend(effects.timers);
                self.work.extend(effects.dispatches);
            }
            Pace::CrashAfterEachEvent => {
                decide(&self.run, &input, self.now, &mut out);
                if let Some(body) = out.events.first().cloned() {
                    apply(&mut self.run, &body, self.now).unwrap();
                    self.note(body);
                    self.crash();
                }
            }
        }
        self.check();
        out.stale
    }

    fn note(&mut self, body: EventBody) {
        let event = Event { seq: self.history.len() as u64 + 1, at: self.now, body };
        self.ledger.record(event.at, &event.body);
        self.history.push(event);
    }

    /// An event of a run in fast mode: whoever reads the history has to decide again what it stands for.
    fn record_derived(&mut self, shadow: &mut Run, body: EventBody) {
        let mut derived = Vec::new();
        crate::engine::replay(shadow, &body, self.now, &mut derived).unwrap();
        for body in &derived {
            self.ledger.record(self.now, body);
        }
        self.note(body);
    }

    /// What holds whenever the shard has time to look.
    fn check(&self) {
        assert_eq!(self.run.seq(), self.history.len() as u64, "gapless");
        check_scope(&self.run.root);
        let over = self.run.status().is_terminal();
        if over {
            assert_eq!((self.run.timers().count(), self.run.dispatches().len()), (0, 0), "over is over");
            assert!(!self.run.is_ready());
            return;
        }
        let kept: usize = self.run.kept.iter().map(|(_, payload)| payload.weight()).sum();
        assert_eq!(
            self.run.own_bytes,
            self.run.started.inputs.weight() + kept,
            "bytes of inputs and signals"
        );
        // Effects are what a restart would find.
        for armed in self.run.timers().filter(|(_, timer)| *timer != Timer::Grace || self.run.under_way > 0) {
            assert!(self.timers.contains(&armed), "never armed: {armed:?}, only {:?}", self.timers);
        }
        for dispatch in self.run.dispatches() {
            let held_back = self.run.is_paused() && matches!(dispatch.work, Work::Agent(_));
            assert!(held_back || self.work.contains(&dispatch), "never handed out: {dispatch:?}");
        }
        let mut under_way = 0;
        self.run.root.walk(&mut smallvec::SmallVec::new(), &mut |_, _, node: &scope::Node| {
            under_way += u32::from(node.call_under_way().is_some());
            true
        });
        assert_eq!(self.run.under_way, under_way, "calls under way");
    }
}

/// One graph, whatever it is asked for.
pub(super) struct Same(pub(super) Arc<Ir>);

impl crate::engine::Graphs for Same {
    fn of(&mut self, _: &crate::model::event::DocumentHash) -> Option<Arc<Ir>> {
        Some(self.0.clone())
    }
}
