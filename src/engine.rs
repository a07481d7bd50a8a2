//! The pure engine: [`decide`] evaluates one step and changes nothing; [`apply`] folds one event and evaluates nothing.
//!
//! Live execution, recovery and replay are the same two functions. Everything that was decided (verdicts of edges,
//! branches, lists, due times) stands in the events, so a fold under another binary gives the same state. No clock, no
//! I/O, no randomness: `now` is handed in, and a run's draws come from the seed in its `run.started`.
//!
//! A run's nodes are tokens: a node is open from the moment it is ready until it settles. A run completes when nothing is
//! open (F116); that is one counter.

pub mod command;
mod env;
mod fold;
mod machine;
mod route;
mod run;

use std::sync::Arc;

pub use self::fold::FoldError;
pub use self::run::Run;
use crate::limits;
use crate::model::{EventBody, Failure, Place, Value};
use crate::time::Timestamp;

/// A point in time that a run waits for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// A node's due time.
    Node(Place),
    /// The run's own.
    Deadline,
}

/// What comes to a run from outside.
#[derive(Clone, Debug)]
pub enum Input<'a> {
    /// Nothing: go on with what is ready.
    Continue,
    /// A timer's time has come.
    Timer(&'a Timer),
    /// A signal.
    Signal {
        /// Its name.
        name: &'a Arc<str>,
        /// What it brings.
        payload: &'a Value,
    },
    /// Somebody wants the run to end.
    Cancel {
        /// In the caller's words.
        reason: &'a Arc<str>,
    },
}

/// What was decided. Buffers are reused: call [`clear`](Self::clear) between inputs.
#[derive(Debug, Default)]
pub struct Outcome {
    /// In order.
    pub events: Vec<EventBody>,
    /// Newly armed.
    pub timers: Vec<(Timestamp, Timer)>,
    /// Steps taken.
    pub steps: u32,
    /// The input came too late and was dropped.
    pub stale: bool,
    /// Weight of the values in `events`.
    pub value_bytes: usize,
}

impl Outcome {
    /// Empty again, buffers kept.
    pub fn clear(&mut self) {
        self.events.clear();
        self.timers.clear();
        self.steps = 0;
        self.stale = false;
        self.value_bytes = 0;
    }

    fn push(&mut self, event: EventBody) {
        self.events.push(event);
    }
}

/// Decides one step, appending its events to `out`. Changes nothing: the caller folds the new events.
pub fn decide(run: &Run, input: &Input<'_>, now: Timestamp, out: &mut Outcome) {
    if run.status().is_terminal() {
        out.stale = !matches!(input, Input::Continue);
        return;
    }
    match input {
        Input::Continue => step(run, now, out),
        Input::Timer(Timer::Deadline) => match run.deadline() {
            Some(deadline) if deadline <= now => {
                let message = format!("the run was not done by its deadline, {deadline}");
                out.push(EventBody::RunFailed { failure: Failure::fatal("deadline_exceeded", message), place: None });
            }
            _ => out.stale = true,
        },
        Input::Timer(Timer::Node(place)) => machine::timer_fired(run, place, now, out),
        Input::Signal { name, payload } => machine::wait::signal(run, name, payload, out),
        Input::Cancel { reason } => {
            out.push(EventBody::RunCancelRequested { reason: (*reason).clone() });
            out.push(EventBody::RunCancelled { reason: (*reason).clone() });
        }
    }
}

/// One step of a run that needs nobody: the next ready node, or the run's end.
fn step(run: &Run, now: Timestamp, out: &mut Outcome) {
    if run.seq() >= limits::RUN_EVENTS_MAX {
        let message = format!("its history has {} events (limit run_events_max)", run.seq());
        out.push(EventBody::RunFailed { failure: Failure::fatal("history_limit", message), place: None });
        return;
    }
    if run.value_bytes() > limits::RUN_VALUE_BYTES_MAX {
        let message = format!("its values weigh {} bytes (limit run_value_bytes_max)", run.value_bytes());
        out.push(EventBody::RunFailed { failure: Failure::fatal("run_value_bytes_max", message), place: None });
        return;
    }
    match run.next_ready() {
        Some(place) => machine::start(run, place, now, out),
        None if run.is_drained() => out.push(machine::complete_run(run)),
        None => {}
    }
}

/// Gives `input` to the run and goes on until nothing is ready or the slice is used up: `steps_max` steps, or
/// [`limits::SLICE_BYTES_MAX`] of values.
///
/// # Errors
/// The fold refused an event that was just decided: a bug in the engine, never the caller's fault.
pub fn advance(
    run: &mut Run,
    input: Input<'_>,
    now: Timestamp,
    steps_max: u32,
    out: &mut Outcome,
) -> Result<(), FoldError> {
    let mut input = input;
    loop {
        let before = out.events.len();
        decide(run, &input, now, out);
        out.steps += 1;
        if out.events.len() == before && matches!(input, Input::Continue) {
            return Ok(());
        }
        for event in out.events.get(before..).unwrap_or_default() {
            fold::fold(run, event, now, &mut out.timers)?;
            if let EventBody::NodeCompleted { output, .. } = event {
                out.value_bytes += output.weight();
            }
        }
        input = Input::Continue;
        if !run.is_ready() || out.steps >= steps_max || out.value_bytes > limits::SLICE_BYTES_MAX {
            return Ok(());
        }
    }
}

/// Folds one event, the run's next. Evaluates nothing.
///
/// # Errors
/// The event does not fit the run's state: the history is not one that this engine could have written.
pub fn apply(run: &mut Run, body: &EventBody, at: Timestamp) -> Result<(), FoldError> {
    fold::fold(run, body, at, &mut Vec::new())
}
