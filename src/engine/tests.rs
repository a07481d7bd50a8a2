//! Tests of the engine: a builder for graphs, a driver that plays the shard, and the invariants that hold after every
//! event. The cases are beside, by theme.

mod admission;
mod agent;
mod build;
mod calls;
mod gate;
mod hostile;
mod keys;
mod lifecycle;
mod limit;
mod map;
mod node;
mod oracle;
mod passes;
mod patch;
mod property;
mod random;
mod route;
mod run;
mod spikes;
mod updates;
mod waits;

use std::collections::BTreeSet;
use std::sync::Arc;

use super::command::Start;
use super::run::Run;
use super::scope::{self, Node, Phase, Scope};
use super::{Claiming, Dispatch, Input, Outcome, Raise, Recall, Says, Timer, advance, apply, decide};
use crate::ir::Ir;
use crate::model::event::Decision;
use crate::model::{Event, EventBody, Failure, Partition, Place, RunId, Value};
use crate::time::Timestamp;

/// When all runs of these tests start.
const START: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);

fn run_id() -> RunId {
    RunId::new(START, Partition::new(7), [5; 10])
}

fn start(ir: &Arc<Ir>, inputs: Value) -> Start {
    Start {
        run_id: run_id(),
        ir: ir.clone(),
        inputs,
        seed: 42,
        idempotency: None,
        deadline: None,
        parent: None,
        run_key: None,
        mode: None,
        layered: None,
    }
}

fn value(json: &str) -> Value {
    Value::from_json(json.as_bytes()).unwrap()
}

/// An input that can be given again.
#[derive(Clone, Debug)]
enum Given {
    Timer(Timer),
    Signal(String, Value),
    Cancel,
    Terminate,
    Pause,
    Resume,
    Settle(Place, u64, Result<Value, Failure>),
    Lost(Place, u64),
    Lease(Place, u64),
    Admitted(u64),
    Denied(u64, Failure),
    Decide(Place, u64, Decision),
    Agent(Place, u64, Says),
    Raise(Raise),
}

impl Given {
    fn input(&self) -> Input<'_> {
        match self {
            Self::Timer(timer) => Input::Timer(timer),
            Self::Signal(name, payload) => Input::Signal { name, payload, key: None },
            Self::Cancel => Input::Cancel { reason: "enough" },
            Self::Terminate => Input::Terminate { reason: "now" },
            Self::Pause => Input::Pause { reason: "wait" },
            Self::Resume => Input::Resume,
            Self::Settle(place, seq, result) => Input::Settle { place, seq: *seq, result },
            Self::Lost(place, seq) => Input::Lost { place, seq: *seq },
            Self::Lease(place, seq) => Input::Lease { place, seq: *seq, worker: "w" },
            Self::Admitted(seq) => Input::Admitted { seq: *seq },
            Self::Denied(seq, failure) => Input::Denied { seq: *seq, failure },
            Self::Decide(place, seq, decision) => Input::Decide { place, seq: *seq, decision },
            Self::Agent(place, seq, says) => Input::Agent { place, seq: *seq, says },
            Self::Raise(raise) => Input::Raise { raise },
        }
    }
}

/// How a driver takes events in.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mode {
    /// As the shard does: bursts of so many steps.
    Bursts(u32),
    /// The node dies after every event: the rest of the step is lost, the run is rebuilt from the bytes of its history.
    CrashAfterEachEvent,
}

/// Plays the shard for one run.
struct Driver {
    ir: Arc<Ir>,
    run: Run,
    history: Vec<Event>,
    timers: BTreeSet<(Timestamp, Timer)>,
    now: Timestamp,
    mode: Mode,
    out: Outcome,
    settled: BTreeSet<Place>,
    /// What was handed out, and what was called back, in order.
    dispatched: Vec<Dispatch>,
    recalled: Vec<Recall>,
    /// Changes of its claim, in order.
    claimed: Vec<Claiming>,
}

impl Driver {
    /// Starts a run and goes on until it needs somebody.
    fn begin(start: &Start, mode: Mode) -> Self {
        let body = Run::begin(start, START, 3);
        let event = Event { seq: 1, at: START, body };
        let run = Run::from_started(start.run_id, start.ir.clone(), &event).unwrap();
        let mut driver = Self {
            ir: start.ir.clone(),
            timers: run.timers().collect(),
            run,
            history: vec![event],
            now: START,
            mode,
            out: Outcome::default(),
            settled: BTreeSet::new(),
            dispatched: Vec::new(),
            recalled: Vec::new(),
            claimed: Vec::new(),
        };
        driver.check();
        driver.go_on();
        driver
    }

    fn of(ir: &Arc<Ir>) -> Self {
        Self::begin(&start(ir, Value::Null), Mode::Bursts(512))
    }

    fn with(ir: &Arc<Ir>, inputs: &str) -> Self {
        Self::begin(&start(ir, value(inputs)), Mode::Bursts(512))
    }

    fn go_on(&mut self) {
        while self.run.is_ready() {
            let before = self.history.len();
            self.input(Input::Continue);
            assert!(self.history.len() > before, "a ready run went nowhere: {:#?}", self.run);
        }
    }

    /// One input, then everything that needs nobody. Answers whether the input was dropped.
    fn give(&mut self, given: &Given) -> bool {
        let stale = self.input(given.input());
        self.go_on();
        stale
    }

    fn input(&mut self, input: Input<'_>) -> bool {
        self.out.clear();
        match self.mode {
            Mode::Bursts(steps) => {
                let mut folded = self.run.clone();
                advance(&mut self.run, input, self.now, steps, &mut self.out).unwrap();
                assert!(self.out.steps <= steps.max(1));
                self.timers.extend(self.out.effects.timers.drain(..));
                self.dispatched.append(&mut self.out.effects.dispatches);
                self.recalled.append(&mut self.out.effects.recalls);
                self.claimed.append(&mut self.out.effects.claims);
                for body in std::mem::take(&mut self.out.events) {
                    apply(&mut folded, &body, self.now).unwrap();
                    self.record(body);
                }
                assert_eq!(folded, self.run, "what advance left is the fold of its events");
            }
            Mode::CrashAfterEachEvent => {
                let before = self.run.clone();
                decide(&self.run, &input, self.now, &mut self.out);
                assert_eq!(before, self.run, "decide changes nothing");
                if let Some(body) = self.out.events.first().cloned() {
                    apply(&mut self.run, &body, self.now).unwrap();
                    self.record(body);
                    let rebuilt = self.rebuilt();
                    assert_eq!(rebuilt, self.run, "a refold gives the same state");
                    self.run = rebuilt;
                    self.timers = self.run.timers().collect();
                }
            }
        }
        self.check();
        self.out.stale
    }

    fn record(&mut self, body: EventBody) {
        let ended = self.history.last().is_some_and(|last| last.body.ends_run());
        assert!(!ended, "{} after the run's end", body.type_name());
        let cancelled =
            self.history.iter().any(|event| matches!(event.body, EventBody::RunCancelRequested { .. }));
        let starts = matches!(body, EventBody::NodeStarted { .. } | EventBody::NodeRetryScheduled { .. });
        assert!(!cancelled || !starts, "{} after the cancel", body.type_name());
        let paused = self.history.iter().rev().find_map(|event| match event.body {
            EventBody::RunPaused { .. } => Some(true),
            EventBody::RunResumed => Some(false),
            _ => None,
        });
        let started = matches!(body, EventBody::NodeStarted { .. });
        let waits = self.history.iter().rev().find_map(|event| match event.body {
            EventBody::RunWaiting(_) => Some(true),
            EventBody::RunAdmitted => Some(false),
            _ => None,
        });
        assert!(!(started && waits == Some(true)), "{} before it was admitted", body.type_name());
        assert!(!(started && paused == Some(true)), "{} while paused", body.type_name());
        if let EventBody::NodeCompleted { place, .. }
        | EventBody::NodeFailed { place, .. }
        | EventBody::NodeSkipped { place } = &body
        {
            assert!(self.settled.insert(place.clone()), "a second outcome for {place:?}");
        }
        self.history.push(Event { seq: self.history.len() as u64 + 1, at: self.now, body });
    }

    /// The run as its history's bytes tell it.
    fn rebuilt(&self) -> Run {
        refold(&self.ir, &self.history)
    }

    /// What holds after every event.
    fn check(&self) {
        assert_eq!(self.run.seq(), self.history.len() as u64, "gapless");
        let ended = self.history.last().is_some_and(|last| last.body.ends_run());
        assert_eq!(self.run.status().is_terminal(), ended);
        assert_eq!(self.run.ended_at(), ended.then_some(self.now).filter(|_| ended).or(self.run.ended_at()));
        check_scope(&self.run.root);
        let armed: BTreeSet<_> = self.run.timers().collect();
        assert!(armed.is_subset(&self.timers), "every due time was armed: {armed:?} of {:?}", self.timers);
        let mut under_way = 0;
        self.run.root.walk(&mut smallvec::SmallVec::new(), &mut |_, _, node| {
            under_way += u32::from(node.call_under_way().is_some());
            true
        });
        assert!(ended || self.run.under_way == under_way, "calls: {} of {under_way}", self.run.under_way);
    }

    /// Lets the earliest timer that the run still has fire on time.
    fn fire_next(&mut self) -> bool {
        let next = self.run.timers().min();
        let Some((due, timer)) = next else { return false };
        self.now = self.now.max(due);
        assert!(!self.give(&Given::Timer(timer)), "an armed timer is not stale when due");
        true
    }

    fn signal(&mut self, name: &str, payload: &str) -> bool {
        self.give(&Given::Signal(name.into(), value(payload)))
    }

    /// Answers the attempt of the node called `path` that is under way.
    fn settle(&mut self, path: &str, result: Result<&str, Failure>) -> bool {
        let dispatches = self.run.dispatches();
        let dispatch = dispatches.iter().find(|dispatch| self.ir.path(&dispatch.place) == path);
        let dispatch = dispatch.unwrap_or_else(|| panic!("{path} is not under way: {dispatches:?}"));
        let result = result.map(value);
        self.give(&Given::Settle(dispatch.place.clone(), dispatch.seq, result))
    }

    fn outputs(&self) -> Value {
        let view = self.run.view();
        view.outputs.unwrap_or_else(|| panic!("{:?} {:?}", view.summary.status, view.failure))
    }

    fn failure(&self) -> (String, Option<String>) {
        let view = self.run.view();
        let failure = view.failure.unwrap_or_else(|| panic!("{:?}", view.summary.status));
        (failure.code.to_string(), view.failed_node)
    }

    /// States of the outermost nodes, by id.
    fn states(&self) -> Vec<(String, &'static str)> {
        self.run.graph().nodes.into_iter().map(|node| (node.path, node.state)).collect()
    }

    fn state(&self, id: &str) -> &'static str {
        self.states().into_iter().find(|(path, _)| path == id).unwrap().1
    }

    /// Types and places of the history, as a client would see them.
    fn told(&self) -> Vec<String> {
        let events = self.history.iter().map(|event| match event.body.place() {
            Some(place) => format!("{} {}", event.body.type_name(), self.ir.path(place)),
            None => event.body.type_name().to_owned(),
        });
        events.collect()
    }
}

fn refold(ir: &Arc<Ir>, history: &[Event]) -> Run {
    refold_patched(ir, &[], history)
}

/// Folds a history; gives with the run all that happened to it, with what a run in fast mode does not write down.
fn relive(ir: &Arc<Ir>, history: &[Event]) -> (Run, Vec<(Timestamp, EventBody)>) {
    let (first, others) = history.split_first().unwrap();
    let mut run = Run::from_started(run_id(), ir.clone(), first).unwrap();
    let mut whole = vec![(first.at, first.body.clone())];
    for event in others {
        let mut derived = Vec::new();
        super::replay(&mut run, &event.body, event.at, &mut derived).unwrap();
        whole.extend(derived.into_iter().chain([event.body.clone()]).map(|body| (event.at, body)));
    }
    (run, whole)
}

/// Folds a history in which the graph changed to each of `patched` in turn, as they were compiled.
fn refold_patched(ir: &Arc<Ir>, patched: &[Ir], history: &[Event]) -> Run {
    let mut patched = patched.iter();
    let mut rebuilt: Option<Run> = None;
    for event in history {
        let bytes = postcard::to_stdvec(&event.body).unwrap();
        let body: EventBody = postcard::from_bytes(&bytes).unwrap();
        assert_eq!(body, event.body);
        match &mut rebuilt {
            None => {
                rebuilt = Some(Run::from_started(run_id(), ir.clone(), &Event { body, ..*event }).unwrap())
            }
            Some(run) => match &body {
                EventBody::PatchApplied(patch) => {
                    let ir = Arc::new(patched.next().unwrap().aligned(run.ir()));
                    super::apply_patched(run, patch, ir, event.at).unwrap();
                }
                body => super::replay(run, body, event.at, &mut Vec::new()).unwrap(),
            },
        }
    }
    rebuilt.unwrap()
}

/// F116: the counter is the tokens; and the bytes are what is there.
fn check_scope(scope: &Scope) {
    let open = scope.nodes.iter().filter(|node| is_open(node)).count();
    assert_eq!(scope.open as usize, open, "tokens: {scope:#?}");
    let mut bytes = size_of::<Scope>() + scope.nodes.len() * size_of::<Node>();
    for node in &scope.nodes {
        if node.phase.is_settled() || node.phase == Phase::Handed {
            bytes += node.output.weight();
        } else {
            assert_eq!(node.output, Value::Null);
        }
        bytes += node.own.as_ref().map_or(0, |own| own.weight());
        if let Some(passes) = node.passes() {
            let given: usize = match &passes.given {
                scope::Given::Each(list) => list.iter().map(Value::weight).sum(),
                scope::Given::All(value) => value.weight(),
            };
            let results: usize = passes.results.iter().flatten().map(Value::weight).sum();
            let slots = passes.results.len() * size_of::<Option<Value>>();
            assert_eq!(passes.bytes, given + slots + results);
            passes.scopes.values().for_each(check_scope);
        }
    }
    assert_eq!(scope.bytes, bytes);
}

fn is_open(node: &Node) -> bool {
    node.phase != Phase::Pending && !node.phase.is_settled()
}

/// Runs what needs nobody, as the shard does and without checks in between.
fn plain(start: &Start) -> (Vec<Event>, Run) {
    let body = Run::begin(start, START, 3);
    let event = Event { seq: 1, at: START, body };
    let mut run = Run::from_started(start.run_id, start.ir.clone(), &event).unwrap();
    let mut history = vec![event];
    let mut out = Outcome::default();
    while run.is_ready() {
        out.clear();
        advance(&mut run, Input::Continue, START, 512, &mut out).unwrap();
        for body in out.events.drain(..) {
            history.push(Event { seq: history.len() as u64 + 1, at: START, body });
        }
    }
    assert_eq!(run.seq(), history.len() as u64);
    (history, run)
}
