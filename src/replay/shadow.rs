//! `shadow`: a run is made again with other inputs or another document, and nothing is called.
//!
//! What an effect gave is taken from the record, by the path of the node and the number of its attempt, after as long as it
//! took then; so are signals, decisions, steering and patches, at the times when they came. A call that the record knows no
//! answer of is listed as one that would be made, and the node is given nothing: what follows from it does not happen, and
//! its time does not run out. Time is the record's, drawn out along what happens, and the draws are those of the run.

mod recorded;
mod report;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use self::recorded::{Given, Recorded};
pub use self::report::{Call, Difference, Ended, Report};
use super::{Documents, Error, Record};
use crate::compile::Compiled;
use crate::engine::{self, Cause, Claiming, Dispatch, Graphs, Outcome, Run, Timer, Work};
use crate::limits;
use crate::model::event::{Event, RunStarted, Waiting};
use crate::model::{EventBody, Mode, Place, Value};
use crate::time::Timestamp;

/// What is to be otherwise.
#[derive(Debug, Default)]
pub struct Change {
    /// Inputs.
    pub inputs: Option<Value>,
    /// Document.
    pub workflow: Option<Compiled>,
}

/// Makes the run of a record again, and says what comes out otherwise.
///
/// # Errors
/// The record is not one that a node could have written, or what is to be run instead does not fit.
pub fn shadow(record: &Record, mut documents: Documents, change: Change) -> Result<Report, Error> {
    let recorded = Recorded::of(record, &mut documents)?;
    let patched = change.workflow.is_none();
    let mut graphs = match change.workflow {
        Some(compiled) => Documents::of(compiled).named(&recorded.started),
        None => documents,
    };
    let base = graphs.base().cloned().ok_or_else(|| Error::Other("there is no document".into()))?;
    if let Some(wrong) = base.unavailable.first().or(base.unstartable.first()) {
        return Err(Error::Other(format!("{} at {}: {}", wrong.code, wrong.pointer, wrong.message)));
    }
    let inputs = change.inputs.unwrap_or_else(|| recorded.started.inputs.clone());
    base.inputs.check(&inputs).map_err(|found| {
        let first = found.first().map(|wrong| format!("{}: {}", wrong.pointer, wrong.message));
        Error::Other(format!("the inputs do not fit: {}", first.unwrap_or_default()))
    })?;
    let started = RunStarted { inputs, document: base.hash, ..recorded.started.clone() };
    let mut world = World::begin(&recorded, &mut graphs, started)?;
    world.go_on(patched)?;
    Ok(world.report())
}

/// What is to happen, by time and then in the order in which it was planned.
#[derive(Debug)]
enum Next {
    Cause(Cause),
    /// A patch of the record, by its number.
    Patch(usize),
}

/// The run, and what is around it.
struct World<'r> {
    recorded: &'r Recorded,
    graphs: &'r mut Documents,
    run: Run,
    now: Timestamp,
    out: Outcome,
    planned: BTreeMap<(Timestamp, u64), Next>,
    count: u64,
    /// Nodes that are given nothing.
    left: BTreeSet<Place>,
    results: BTreeMap<String, Ended>,
    calls: Vec<Call>,
    would: Vec<Call>,
    notes: Vec<String>,
    /// What the run has asked of humans: path and attempt, decided or not.
    asked: BTreeSet<(String, u32)>,
    events: u64,
}

impl<'r> World<'r> {
    fn begin(recorded: &'r Recorded, graphs: &'r mut Documents, started: RunStarted) -> Result<Self, Error> {
        let at = recorded.began;
        let ir = graphs.of(&started.document).ok_or_else(|| super::state::no_document(1))?;
        let mut started = started;
        started.deadline = match (ir.deadline, recorded.started.deadline) {
            (Some(span), _) => Some(at.saturating_add(span)),
            (None, deadline) => deadline,
        };
        let event = Event { seq: 1, at, body: EventBody::RunStarted(Box::new(started)) };
        let run = Run::from_started(recorded.run_id, ir, &event);
        let mut run = run.map_err(|error| Error::unfit(1, &error))?;
        for event in &recorded.preface {
            // A mode that the other document has already is none to change to.
            let _ = engine::apply(&mut run, event, at);
        }
        let mut world = Self {
            recorded,
            graphs,
            now: at,
            out: Outcome::default(),
            planned: BTreeMap::new(),
            count: 0,
            left: BTreeSet::new(),
            results: BTreeMap::new(),
            calls: Vec::new(),
            would: Vec::new(),
            notes: Vec::new(),
            asked: BTreeSet::new(),
            events: run.seq(),
            run,
        };
        for (due, timer) in world.run.timers().collect::<Vec<_>>() {
            world.plan(due, Next::Cause(Cause::Timer(timer)));
        }
        Ok(world)
    }

    fn plan(&mut self, at: Timestamp, next: Next) {
        self.count += 1;
        self.planned.insert((at.max(self.now), self.count), next);
    }

    fn go_on(&mut self, patched: bool) -> Result<(), Error> {
        for (at, given) in &self.recorded.given {
            match given {
                Given::Cause(cause) => self.plan(*at, Next::Cause(cause.clone())),
                Given::Patch(number) if patched => self.plan(*at, Next::Patch(*number)),
                Given::Patch(_) => {
                    self.notes.push("a patch of the run is left out: its document is another".into())
                }
            }
        }
        self.step(&Cause::Own)?;
        while !self.run.status().is_terminal() && self.events < limits::RUN_EVENTS_MAX {
            if self.run.is_ready() {
                self.step(&Cause::Own)?;
                continue;
            }
            let Some(((at, _), next)) = self.planned.pop_first() else { break };
            // Whatever waits for an answer that nobody has waits for good, and the run with it.
            let timer = match &next {
                Next::Cause(Cause::Timer(Timer::Node(place))) => self.left.contains(place),
                Next::Cause(Cause::Timer(_)) => !self.left.is_empty(),
                _ => false,
            };
            if timer {
                continue;
            }
            self.now = self.now.max(at);
            match next {
                Next::Cause(cause) => self.step(&cause)?,
                Next::Patch(number) => self.patch(number)?,
            }
        }
        Ok(())
    }

    fn step(&mut self, cause: &Cause) -> Result<(), Error> {
        self.out.clear();
        let seq = self.run.seq() + 1;
        let before = self.run.seq();
        let shown = (self.run.mode() == Mode::Fast).then(|| self.run.clone());
        engine::advance(&mut self.run, cause.input(), self.now, limits::STEPS_PER_SLICE, &mut self.out)
            .map_err(|error| Error::unfit(seq, &error))?;
        self.events += self.run.seq() - before;
        let events = std::mem::take(&mut self.out.events);
        self.note(shown, &events)?;
        let asks =
            |event: &EventBody| matches!(event, EventBody::NodeWaiting { waiting: Waiting::Review(_), .. });
        let asks = events.iter().any(asks);
        let effects = std::mem::take(&mut self.out.effects);
        for (due, timer) in effects.timers {
            self.plan(due, Next::Cause(Cause::Timer(timer)));
        }
        for claim in effects.claims {
            if let Claiming::Ask(claim) = claim {
                let at = self.now.saturating_add(self.recorded.admitted_after);
                self.plan(at, Next::Cause(Cause::Admitted(claim.seq)));
            }
        }
        for dispatch in effects.dispatches {
            self.dispatched(&dispatch);
        }
        if asks {
            self.reviews();
        }
        Ok(())
    }

    /// What became of nodes, those included that a run in fast mode does not write down.
    fn note(&mut self, mut before: Option<Run>, events: &[EventBody]) -> Result<(), Error> {
        let Some(before) = &mut before else {
            events.iter().for_each(|event| Ended::note(&mut self.results, &self.run, event));
            return Ok(());
        };
        for event in events {
            let mut derived = Vec::new();
            let seq = before.seq() + 1;
            engine::replay(before, event, self.now, &mut derived)
                .map_err(|error| Error::unfit(seq, &error))?;
            for event in derived.iter().chain([event]) {
                Ended::note(&mut self.results, before, event);
            }
        }
        Ok(())
    }

    /// An effect is suppressed: its answer is the recorded one.
    fn dispatched(&mut self, dispatch: &Dispatch) {
        let attempt = dispatch.attempt.saturating_sub(dispatch.lost);
        let (kind, request) = match &dispatch.work {
            Work::Call { executor, request } => (executor.kind(), request),
            Work::Child { inputs, .. } => ("child", inputs),
            Work::Agent(ask) => ("agent", &ask.request),
        };
        let mut call = Call::new(&dispatch.path, attempt, kind, request);
        match self.recorded.answers.get(&(dispatch.path.clone(), attempt)) {
            Some(answer) => {
                call.changed = answer.request.as_ref().is_some_and(|before| before != request);
                if let Some(result) = &answer.result {
                    let settle = Cause::Settle(dispatch.place.clone(), dispatch.seq, result.clone());
                    self.plan(self.now.saturating_add(answer.after), Next::Cause(settle));
                }
                self.calls.push(call);
            }
            None => {
                self.left.insert(dispatch.place.clone());
                self.would.push(call);
            }
        }
    }

    /// Humans who are asked answer as they did.
    fn reviews(&mut self) {
        for review in self.run.open_reviews(usize::MAX) {
            let Some((place, attempt)) = self.run.review_at(review.seq) else { continue };
            let name = (review.node.clone(), attempt);
            if !self.asked.insert(name.clone()) {
                continue;
            }
            if let Some((after, decision)) = self.recorded.decisions.get(&name) {
                let decide = Cause::Decide(place, review.seq, decision.clone());
                self.plan(self.now.saturating_add(*after), Next::Cause(decide));
            }
        }
    }

    /// A patch that was made then is made again, if it still may.
    fn patch(&mut self, number: usize) -> Result<(), Error> {
        let Some((proposed, document)) = self.recorded.patches.get(number) else { return Ok(()) };
        let seq = self.run.seq() + 1;
        let mut trial = self.run.clone();
        let made =
            engine::apply(&mut trial, proposed, self.now).map_err(|error| error.to_string()).and_then(|()| {
                let change = trial.proposed().cloned().ok_or("nobody proposed it")?;
                let (base, layers) = (*trial.base_document(), trial.layers().to_vec());
                let ir = self.graphs.after(&base, &layers, &change, document);
                let ir = Arc::new(ir.ok_or("its graph is not to be had")?.aligned(trial.ir()));
                let decided =
                    self.run.patch(&ir, &BTreeSet::new(), self.now).map_err(|why| why.to_string())?;
                let EventBody::PatchApplied(patched) = decided else {
                    return Err("it was not decided".into());
                };
                engine::apply_patched(&mut trial, &patched, ir, self.now).map_err(|error| error.to_string())
            });
        match made {
            Ok(()) => {
                self.run = trial;
                self.step(&Cause::Own)
            }
            Err(why) => {
                self.notes.push(format!("the patch of event {seq} is left out: {why}"));
                Ok(())
            }
        }
    }

    fn report(self) -> Report {
        let view = self.run.view();
        report::of(self.recorded, view, (self.results, self.calls, self.would), self.notes)
    }
}
