//! The pure engine: [`decide`] evaluates one step and changes nothing; [`apply`] folds one event and evaluates nothing.
//!
//! Live execution, recovery and replay are the same two functions. Everything that was decided (verdicts of edges,
//! branches, lists, due times) stands in the events, so a fold under another binary gives the same state, and a history
//! may be cut after any event: what is missing is decided again, the same. No clock, no I/O, no randomness: `now` is
//! handed in, and a run's draws come from the seed in its `run.started`.
//!
//! A run's nodes are tokens: a node is open from the moment it is ready until it settles. A run completes when nothing is
//! open (F116); that is one counter a scope. The end of a run comes before anything else that could be done.
//!
//! Over a limit the run fails with the limit's name: `history_limit` (`run_events_max`), `run_value_bytes_max`.

mod admission;
mod agenda;
mod agent;
mod asked;
mod calls;
mod cause;
mod check;
pub mod command;
pub mod effect;
mod env;
mod error;
mod fast;
mod fold;
mod fork;
mod image;
mod keys;
mod machine;
mod passes;
mod patch;
mod retry;
mod route;
mod run;
mod scope;
mod settled;
mod spend;
#[cfg(test)]
mod tests;
mod view;
mod waits;

pub use self::admission::Claiming;
pub use self::agent::Says;
pub use self::cause::Cause;
pub use self::effect::{Dispatch, Effects, Keep, Recall, Recalled, Timer, Work};
pub use self::error::FoldError;
pub use self::fast::replay;
pub use self::fork::{Origin, fork};
pub use self::image::{Graphs, IMAGE_VERSION, ImageError};
pub use self::keys::Known;
pub use self::machine::wait::Awaited;
pub use self::patch::{PatchRefusal, apply_patched};
pub use self::run::Run;
pub use self::settled::Settled;
pub use self::spend::{Bill, Raise, Short, Spend, Whose};
pub use self::waits::{Waits, Why};
use crate::limits;
use crate::model::agent::Returned;
use crate::model::event::Idempotency;
use crate::model::{EventBody, Failure, Mode, Place, Value};
use crate::time::Timestamp;

/// What comes to a run from outside.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// Nothing: go on with what is ready.
    Continue,
    /// A timer's time has come.
    Timer(&'a Timer),
    /// A signal.
    Signal {
        /// Its name.
        name: &'a str,
        /// What it brings.
        payload: &'a Value,
        /// The key under which it is to be remembered, when it has one. That it is not yet, and that there is room for it, is
        /// judged before.
        key: Option<&'a Idempotency>,
    },
    /// Somebody wants the run to end; attempts under way are told and waited for, within
    /// [`limits::CANCEL_GRACE_SECONDS_MAX`].
    Cancel {
        /// In the caller's words.
        reason: &'a str,
    },
    /// Somebody wants the run to end, waiting for nobody.
    Terminate {
        /// In the caller's words.
        reason: &'a str,
    },
    /// Nothing is to start until further notice. Stale unless [`Run::may`] says so.
    Pause {
        /// In the caller's words.
        reason: &'a str,
    },
    /// The pause is over. Stale unless [`Run::may`] says so.
    Resume,
    /// An attempt has ended.
    Settle {
        /// Of which node.
        place: &'a Place,
        /// Which attempt ([`Dispatch::seq`]).
        seq: crate::model::Seq,
        /// How. What it brought, checked for size by whoever brings it, or why there is nothing.
        result: &'a Result<Value, Failure>,
    },
    /// An attempt was under way when the node that made it went down. It is made again, unless it must not be made twice
    /// ([`Dispatch::at_most_once`]).
    Lost {
        /// Of which node.
        place: &'a Place,
        /// Which attempt ([`Dispatch::seq`]).
        seq: crate::model::Seq,
    },
    /// A worker wants to take an attempt. Stale when it has been taken, or the run is paused.
    Lease {
        /// Of which node.
        place: &'a Place,
        /// Which attempt ([`Dispatch::seq`]).
        seq: crate::model::Seq,
        /// What the worker calls itself.
        worker: &'a str,
    },
    /// Whoever makes an agent's turns says something of the one under way. Stale when it is over, or another one; what is not
    /// reserved because there is no money for it is no call, either ([`Run::is_reserved`]).
    Agent {
        /// Which node.
        place: &'a Place,
        /// Which turn ([`Dispatch::seq`]).
        seq: crate::model::Seq,
        /// What.
        says: &'a Says,
    },
    /// Somebody gives the run more to spend.
    Raise {
        /// How much, and who.
        raise: &'a Raise,
    },
    /// A human decides a review. Stale when it has been decided, has expired, or is gone.
    Decide {
        /// Of which node.
        place: &'a Place,
        /// Number of the event that asked.
        seq: crate::model::Seq,
        /// How, and by whom; whether that one was asked is judged before.
        decision: &'a crate::model::event::Decision,
    },
    /// The run may begin. Stale unless it made this claim and still waits.
    Admitted {
        /// Number of the event that made the claim.
        seq: crate::model::Seq,
    },
    /// The run can never be admitted, and fails. Stale unless it made this claim and still waits.
    Denied {
        /// Number of the event that made the claim.
        seq: crate::model::Seq,
        /// Why.
        failure: &'a Failure,
    },
}

/// What may be asked of a run that is not over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// [`Input::Pause`]
    Pause,
    /// [`Input::Resume`]
    Resume,
    /// [`Input::Cancel`]
    Cancel,
    /// [`Input::Terminate`]
    Terminate,
    /// [`Input::Raise`]
    Raise,
}

/// Whether a run may do what is asked of it, by its status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permit {
    /// It may.
    Go,
    /// It has done so already: nothing happens, and that is no error.
    Already,
    /// Its status does not allow it.
    Illegal(crate::model::Status),
}

/// What was decided. Buffers are reused: call [`clear`](Self::clear) between inputs.
#[derive(Debug, Default)]
pub struct Outcome {
    /// In order.
    pub events: Vec<EventBody>,
    /// What the events ask of the world.
    pub effects: Effects,
    /// Steps taken.
    pub steps: u32,
    /// The input came too late, too early, or over a limit, and was dropped.
    pub stale: bool,
    /// Weight of the values in `events`.
    pub value_bytes: usize,
    /// What happened to nodes and is not in `events` ([`Mode::Fast`]).
    pub derived: Derived,
    /// Nodes whose end the caller wants to know of: filled in before [`advance`].
    pub watched: Vec<Place>,
    /// Those of `watched` that settled, and how; also what is not in `events`.
    pub settled: Vec<(Place, Settled)>,
}

/// Events of nodes that were decided and not written down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Derived {
    /// `node.started`
    pub started: u64,
    /// `node.completed`
    pub completed: u64,
    /// `node.failed`
    pub failed: u64,
}

impl Derived {
    fn add(&mut self, event: &EventBody) {
        match event {
            EventBody::NodeStarted { .. } => self.started += 1,
            EventBody::NodeCompleted { .. } => self.completed += 1,
            EventBody::NodeFailed { .. } => self.failed += 1,
            _ => {}
        }
    }
}

impl Outcome {
    /// Empty again, buffers kept.
    pub fn clear(&mut self) {
        self.events.clear();
        self.effects.clear();
        self.steps = 0;
        self.stale = false;
        self.value_bytes = 0;
        self.derived = Derived::default();
        self.watched.clear();
        self.settled.clear();
    }

    fn push(&mut self, event: EventBody) {
        self.events.push(event);
    }
}

/// Decides one step, appending its events to `out`. Changes nothing: the caller folds the new events.
///
/// The end of a run that is already decided comes first: an input that meets it is dropped.
pub fn decide(run: &Run, input: &Input<'_>, now: Timestamp, out: &mut Outcome) {
    let idle = matches!(input, Input::Continue);
    if run.status().is_terminal() {
        out.stale |= !idle;
        return;
    }
    if let Some(end) = decided_end(run) {
        out.stale |= !idle;
        return out.push(end);
    }
    if admission::must_ask(run) {
        out.stale |= !idle;
        return out.push(admission::ask(run));
    }
    match input {
        Input::Timer(Timer::Deadline) => match run.deadline() {
            Some(deadline) if deadline <= now => {
                let message = format!("the run was not done by its deadline, {deadline}");
                let failure = Failure::fatal("deadline_exceeded", message);
                out.push(EventBody::RunFailed { failure, place: None });
            }
            _ => out.stale = true,
        },
        Input::Timer(Timer::Grace) => match &run.cancel {
            Some(cancel) if cancel.until <= now => {
                out.push(EventBody::RunCancelled { reason: cancel.reason.clone() });
            }
            _ => out.stale = true,
        },
        Input::Pause { .. }
        | Input::Resume
        | Input::Cancel { .. }
        | Input::Terminate { .. }
        | Input::Raise { .. } => {
            command(run, input, out);
        }
        Input::Admitted { seq } | Input::Denied { seq, .. } if !admission::counts(run, *seq) => {
            out.stale = true
        }
        Input::Admitted { .. } => out.push(EventBody::RunAdmitted),
        Input::Denied { failure, .. } => {
            out.push(EventBody::RunFailed { failure: (*failure).clone(), place: None });
        }
        Input::Continue
        | Input::Timer(_)
        | Input::Signal { .. }
        | Input::Settle { .. }
        | Input::Lease { .. }
        | Input::Agent { .. }
        | Input::Decide { .. }
        | Input::Lost { .. } => {
            go_on(run, input, now, out);
        }
    }
}

/// Somebody wants something of the run as a whole.
fn command(run: &Run, input: &Input<'_>, out: &mut Outcome) {
    let verb = match input {
        Input::Pause { .. } => Verb::Pause,
        Input::Resume => Verb::Resume,
        Input::Cancel { .. } => Verb::Cancel,
        Input::Raise { .. } => Verb::Raise,
        _ => Verb::Terminate,
    };
    if run.may(verb) != Permit::Go {
        out.stale = true;
        return;
    }
    match input {
        Input::Pause { reason } => out.push(EventBody::RunPaused { reason: (*reason).into() }),
        Input::Resume => out.push(EventBody::RunResumed),
        Input::Raise { raise } => machine::agent::raised(run, raise, out),
        Input::Cancel { reason } => out.push(EventBody::RunCancelRequested { reason: (*reason).into() }),
        Input::Terminate { reason } => {
            if run.cancel.is_none() {
                out.push(EventBody::RunCancelRequested { reason: (*reason).into() });
            }
            out.push(EventBody::RunCancelled { reason: TERMINATED.into() });
        }
        _ => {}
    }
}

/// Reason of the end of a run that waited for nobody.
pub const TERMINATED: &str = "terminated";

/// What a run does that is not at its end: an input for one of its nodes, or the next thing on its agenda.
fn go_on(run: &Run, input: &Input<'_>, now: Timestamp, out: &mut Outcome) {
    let idle = matches!(input, Input::Continue);
    let next = if run.cancel.is_some() { None } else { run.next() };
    if idle && next.is_none() {
        if run.is_drained() && run.cancel.is_none() && !run.is_paused() && !run.is_outside() {
            out.push(machine::complete_run(run));
        }
        return;
    }
    if let Some(failure) = limit_reached(run) {
        out.stale |= !idle;
        return out.push(EventBody::RunFailed { failure, place: None });
    }
    // A fork has what the other run had under way, and stands in line all the same.
    if run.is_outside() && !idle && !matches!(input, Input::Signal { .. }) {
        out.stale = true;
        return;
    }
    match input {
        Input::Timer(Timer::Node(place)) if run.cancel.is_none() => timer(run, place, now, out),
        Input::Signal { name, payload, key } if run.cancel.is_none() => {
            machine::wait::signal(run, (name, payload), *key, out);
        }
        Input::Settle { place, seq, result } => match machine::At::new(run, place, now) {
            Some(at) => machine::end::answered(at, *seq, result, out),
            None => out.stale = true,
        },
        Input::Lost { place, seq } => match machine::At::new(run, place, now) {
            Some(at) => machine::end::lost(at, *seq, out),
            None => out.stale = true,
        },
        Input::Lease { place, seq, worker } => match machine::At::new(run, place, now) {
            Some(at) => machine::end::leased(at, *seq, worker, out),
            None => out.stale = true,
        },
        Input::Agent { place, seq, says } => match machine::At::new(run, place, now) {
            Some(at) => machine::agent::said(at, *seq, says, out),
            None => out.stale = true,
        },
        Input::Decide { place, seq, decision } if run.cancel.is_none() => {
            match machine::At::new(run, place, now) {
                Some(at) => machine::review::decide(at, *seq, decision, out),
                None => out.stale = true,
            }
        }
        Input::Continue => {
            if let Some(place) = next {
                machine::step(run, place, now, out);
            }
        }
        _ => out.stale = true,
    }
}

/// The last event of a run whose end was decided by the event before.
fn decided_end(run: &Run) -> Option<EventBody> {
    if let Some(cancel) = &run.cancel {
        let reason = cancel.reason.clone();
        return (run.under_way == 0).then_some(EventBody::RunCancelled { reason });
    }
    let doomed = run.doom.clone().or_else(|| machine::unjudged(run, &Place::root(0)));
    doomed.map(|(failure, place)| EventBody::RunFailed { failure, place: Some(place) })
}

/// Why a run may not go on. Events are kept back for its end.
fn limit_reached(run: &Run) -> Option<Failure> {
    const KEPT_BACK: u64 = 8;
    let events = run.seq() + run.derived;
    if events + KEPT_BACK > limits::RUN_EVENTS_MAX {
        let message = format!("the history has {events} events, no room for more (limit run_events_max)");
        return Some(Failure::fatal("history_limit", message));
    }
    if run.value_bytes() > limits::RUN_VALUE_BYTES_MAX {
        let message = format!(
            "the run keeps {} bytes of values; at most {} are allowed (limit run_value_bytes_max)",
            run.value_bytes(),
            limits::RUN_VALUE_BYTES_MAX
        );
        return Some(Failure::fatal("run_value_bytes_max", message));
    }
    None
}

/// A node's time has come, if it still waits for it. A loop's may come between two of its passes.
fn timer(run: &Run, place: &Place, now: Timestamp, out: &mut Outcome) {
    use scope::Phase;
    let at = machine::At::new(run, place, now).filter(|at| {
        let waits = match at.state.phase {
            Phase::Waiting | Phase::Backoff | Phase::Running => true,
            Phase::Gathered => matches!(at.node.kind, crate::ir::Kind::Loop { .. }),
            _ => false,
        };
        waits && at.state.due.is_some_and(|due| due <= now)
    });
    match at {
        Some(at) if at.state.asked().is_some() => machine::review::due(at, out),
        Some(_) => out.push(EventBody::TimerFired { place: place.clone() }),
        None => out.stale = true,
    }
}

/// Gives `input` to the run and goes on until nothing is ready or the slice is used up: `steps_max` steps, or
/// [`limits::SLICE_BYTES_MAX`] of values. Is the run still ready afterwards, it wants another slice.
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
    let mut fast = (run.mode == Mode::Fast).then(fast::Slice::default);
    loop {
        let before = out.events.len();
        decide(run, &input, now, out);
        out.steps += 1;
        let alone = matches!(input, Input::Continue);
        let idle = out.events.len() == before && alone;
        match &mut fast {
            Some(fast) => fast.step(run, (before, alone), now, out)?,
            None => {
                for event in out.events.get(before..).unwrap_or_default() {
                    fold::fold(run, event, now, &mut out.effects)?;
                    out.value_bytes = out.value_bytes.saturating_add(weight(event));
                }
                out.observe_from(before);
            }
        }
        input = Input::Continue;
        if idle || !run.is_ready() || out.steps >= steps_max || out.value_bytes > limits::SLICE_BYTES_MAX {
            break;
        }
    }
    if let Some(fast) = fast {
        fast.end(run, out);
    }
    Ok(())
}

/// Weight of the values an event carries.
fn weight(event: &EventBody) -> usize {
    use crate::model::event::Waiting;
    match event {
        EventBody::NodeCompleted { output: value, .. }
        | EventBody::SignalReceived { payload: value, .. }
        | EventBody::RunCompleted { outputs: value }
        | EventBody::NodeFellBack { input: Some(value), .. } => value.weight(),
        EventBody::NodeWaiting { waiting, .. } => match waiting {
            Waiting::Items { items: value }
            | Waiting::Passes { input: value }
            | Waiting::Call { request: Some(value), .. }
            | Waiting::Child { inputs: Some(value), .. } => value.weight(),
            Waiting::Review(review) => scope::weight_of(review),
            _ => 0,
        },
        EventBody::ApprovalDecided { decision, .. } => scope::answer_weight(decision),
        EventBody::ModelAnswered { answer, .. } => answer.weight(),
        EventBody::ToolReturned { results, .. } => results.iter().map(Returned::weight).sum(),
        _ => 0,
    }
}

/// Folds one event, the run's next. Evaluates nothing; what [`replay`] decides again is refused here.
///
/// # Errors
/// The event does not fit the run's state, which stays as it is: the history is not one that this engine could have
/// written.
pub fn apply(run: &mut Run, body: &EventBody, at: Timestamp) -> Result<(), FoldError> {
    fold::fold(run, body, at, &mut Effects::default())
}
