//! What came from outside, read off what a run wrote down: the input that a shard gave when it decided a burst of events.
//!
//! A burst is one input and what followed from it, so its first event says which input it was. What such an event carries
//! from outside (an answer, a signal, a decision, who has taken an attempt) is taken from it; all the rest of the burst is
//! decided again by whoever replays, and compared.
//!
//! | first event | where the run stands | then it was |
//! | --- | --- | --- |
//! | any | its end is decided | nothing: the end comes before any input |
//! | `timer.fired`, `approval.escalated`, `approval.expired` | | that node's timer |
//! | `node.completed`, `node.failed`, `node.retry_scheduled`, `node.fell_back`, `node.uncertain` | the node waits for an answer | that answer; an attempt that was lost |
//! | `signal.received`, with the key of the `request.remembered` behind it | | that signal |
//! | `approval.decided`, `node.leased`, `node.lost`, `run.paused`, `run.resumed`, `run.admitted`, `run.cancel_requested` | | the input of that name |
//! | `model.called`, `budget.exceeded`, `model.degraded` with a quote | a model's turn is under way | that much is to be reserved |
//! | `budget.exceeded`, `budget.warned` with a scope | a model's turn is under way | so says the wider budget |
//! | `model.degraded` without | a model was called | that failure |
//! | `model.answered`, `tool.returned` | under way | that answer, those results |
//! | `model.degraded` with a measure, `model.recovered`, `context.trimmed` | a model's turn is under way | what is said of that model, of the conversation |
//! | `budget.raised` | | the input of that name |
//! | `run.cancelled` | being cancelled, attempts under way | the end of the time of grace, or a terminate |
//! | `run.failed` | | a limit, the deadline, or an admission denied |
//! | anything else | | nothing: the run went on by itself |
//!
//! An answer that did not fit (`output_schema`, a limit) is not in the record; what is, is the failure that it became, and
//! that is given in its place: it has the same consequences.

use std::sync::Arc;

use super::run::Run;
use super::scope::Phase;
use super::{Input, Raise, Says, TERMINATED, Timer, admission, decided_end, limit_reached};
use crate::model::agent::Quote;
use crate::model::event::{Decision, Idempotency};
use crate::model::{EventBody, Failure, Place, Seq, Status, Value};
use crate::time::Timestamp;

/// An input, with what it brings.
#[derive(Clone, Debug, PartialEq)]
pub enum Cause {
    /// None: the run went on by itself.
    Own,
    /// One that met a limit and was dropped; which does not matter.
    Dropped,
    /// [`Input::Timer`]
    Timer(Timer),
    /// [`Input::Signal`]
    Signal(Arc<str>, Value, Option<Idempotency>),
    /// [`Input::Cancel`]
    Cancel(Arc<str>),
    /// [`Input::Terminate`]
    Terminate(Arc<str>),
    /// [`Input::Pause`]
    Pause(Arc<str>),
    /// [`Input::Resume`]
    Resume,
    /// [`Input::Settle`]
    Settle(Place, Seq, Result<Value, Failure>),
    /// [`Input::Lost`]
    Lost(Place, Seq),
    /// [`Input::Lease`]
    Lease(Place, Seq, Arc<str>),
    /// [`Input::Decide`]
    Decide(Place, Seq, Box<Decision>),
    /// [`Input::Agent`]
    Agent(Place, Seq, Says),
    /// [`Input::Raise`]
    Raise(Raise),
    /// [`Input::Admitted`]
    Admitted(Seq),
    /// [`Input::Denied`]
    Denied(Seq, Failure),
}

const NOTHING: &Value = &Value::Null;

impl Cause {
    /// As it is given to [`advance`](super::advance).
    pub fn input(&self) -> Input<'_> {
        match self {
            Self::Own => Input::Continue,
            Self::Dropped => Input::Signal { name: "", payload: NOTHING, key: None },
            Self::Timer(timer) => Input::Timer(timer),
            Self::Signal(name, payload, key) => Input::Signal { name, payload, key: key.as_ref() },
            Self::Cancel(reason) => Input::Cancel { reason },
            Self::Terminate(reason) => Input::Terminate { reason },
            Self::Pause(reason) => Input::Pause { reason },
            Self::Resume => Input::Resume,
            Self::Settle(place, seq, result) => Input::Settle { place, seq: *seq, result },
            Self::Lost(place, seq) => Input::Lost { place, seq: *seq },
            Self::Lease(place, seq, worker) => Input::Lease { place, seq: *seq, worker },
            Self::Decide(place, seq, decision) => Input::Decide { place, seq: *seq, decision },
            Self::Agent(place, seq, says) => Input::Agent { place, seq: *seq, says },
            Self::Raise(raise) => Input::Raise { raise },
            Self::Admitted(seq) => Input::Admitted { seq: *seq },
            Self::Denied(seq, failure) => Input::Denied { seq: *seq, failure },
        }
    }

    /// Of a burst, the run's next, decided at this time. What the run does not know of it finds out: a burst that no input
    /// could have given comes out otherwise.
    pub fn of(run: &Run, burst: &[EventBody], at: Timestamp) -> Self {
        let Some(first) = burst.first() else { return Self::Own };
        if decided_end(run).is_some() {
            return Self::Own;
        }
        if let Some((place, says)) = said(run, first) {
            return Self::Agent(place.clone(), attempt(run, place), says);
        }
        match first {
            EventBody::TimerFired { place }
            | EventBody::ApprovalEscalated { place, .. }
            | EventBody::ApprovalExpired { place } => Self::Timer(Timer::Node(place.clone())),
            EventBody::ApprovalDecided { place, decision } => {
                let seq = run.node(place).and_then(|node| node.asked()).map_or(0, |asked| asked.seq);
                Self::Decide(place.clone(), seq, decision.clone())
            }
            EventBody::SignalReceived { name, payload, .. } => {
                Self::Signal(name.clone(), payload.clone(), key(burst, 1))
            }
            EventBody::RunPaused { reason } => Self::Pause(reason.clone()),
            EventBody::RunResumed => Self::Resume,
            EventBody::RunAdmitted => Self::Admitted(admission::asked(run)),
            EventBody::RunCancelRequested { reason } => match burst.get(1) {
                Some(EventBody::RunCancelled { reason: end }) if **end == *TERMINATED => {
                    Self::Terminate(reason.clone())
                }
                _ => Self::Cancel(reason.clone()),
            },
            EventBody::RunCancelled { reason } => ended(run, reason, at),
            EventBody::RunFailed { failure, .. } => failed(run, failure, at),
            EventBody::NodeLeased { place, worker } => {
                Self::Lease(place.clone(), attempt(run, place), worker.clone())
            }
            EventBody::BudgetRaised { usd, tokens, by, reason } => {
                let resume = matches!(burst.get(1), Some(EventBody::RunResumed));
                let (by, reason, key) = (by.clone(), reason.clone(), key(burst, 1 + usize::from(resume)));
                Self::Raise(Raise { usd: *usd, tokens: *tokens, by, reason, resume, key })
            }
            EventBody::NodeLost { place } => Self::Lost(place.clone(), attempt(run, place)),
            EventBody::NodeUncertain { place, failure } if &*failure.code == "lost" && waits(run, place) => {
                Self::Lost(place.clone(), attempt(run, place))
            }
            EventBody::NodeCompleted { place, output, .. } if listens(run, place) => {
                Self::Settle(place.clone(), attempt(run, place), Ok(output.clone()))
            }
            EventBody::ModelDegraded { place, failure, quote: None, .. }
            | EventBody::NodeFailed { place, failure, .. }
            | EventBody::NodeRetryScheduled { place, failure, .. }
            | EventBody::NodeFellBack { place, failure, .. }
            | EventBody::NodeUncertain { place, failure }
                if listens(run, place) =>
            {
                Self::Settle(place.clone(), attempt(run, place), Err(failure.clone()))
            }
            _ => Self::Own,
        }
    }
}

/// The key that what a burst begins with is remembered under, when its event of this number says so.
fn key(burst: &[EventBody], at: usize) -> Option<Idempotency> {
    match burst.get(at) {
        Some(EventBody::RequestRemembered(request)) => Some(request.idempotency.clone()),
        _ => None,
    }
}

/// What was said of an agent's turn.
fn said<'b>(run: &Run, first: &'b EventBody) -> Option<(&'b Place, Says)> {
    Some(match first {
        EventBody::ModelCalled { place, quote }
        | EventBody::BudgetExceeded { place, quote }
        | EventBody::ModelDegraded { place, quote: Some(quote), .. } => {
            (place, Says::Reserve(Quote::clone(quote)))
        }
        EventBody::ModelAnswered { place, answer, .. } => (place, Says::Answered(answer.clone())),
        EventBody::ToolReturned { place, results, .. } if waits(run, place) => {
            (place, Says::Returned(results.clone()))
        }
        EventBody::WiderExceeded { place, over } => (place, Says::Refused(over.clone())),
        EventBody::WiderWarned { place, by } => (place, Says::Warned(by.clone())),
        EventBody::ModelSpiked { place, spiked } => (place, Says::Spiked(spiked.clone())),
        EventBody::ModelRecovered { place, from, to } => {
            (place, Says::Recovered { from: from.clone(), to: to.clone() })
        }
        EventBody::ContextTrimmed { place, trimmed } => (place, Says::Overflow(trimmed.overflow.clone())),
        _ => return None,
    })
}

/// Number of the attempt at `place`.
fn attempt(run: &Run, place: &Place) -> Seq {
    run.node(place).and_then(|node| node.call()).map_or(0, |call| call.seq)
}

fn waits(run: &Run, place: &Place) -> bool {
    run.node(place).is_some_and(|node| node.call_under_way().is_some())
}

/// Does the node at `place` wait for an answer from outside?
fn listens(run: &Run, place: &Place) -> bool {
    waits(run, place) || run.node(place).is_some_and(|node| node.phase == Phase::Uncertain)
}

/// The end of a run that is being cancelled, with attempts under way.
fn ended(run: &Run, reason: &Arc<str>, at: Timestamp) -> Cause {
    match &run.cancel {
        Some(cancel) if cancel.until <= at && (cancel.reason == *reason || **reason != *TERMINATED) => {
            Cause::Timer(Timer::Grace)
        }
        _ => Cause::Terminate(reason.clone()),
    }
}

fn failed(run: &Run, failure: &Failure, at: Timestamp) -> Cause {
    if limit_reached(run).is_some() {
        return Cause::Dropped;
    }
    if &*failure.code == "deadline_exceeded" && run.deadline().is_some_and(|deadline| deadline <= at) {
        return Cause::Timer(Timer::Deadline);
    }
    match run.status() {
        Status::Pending => Cause::Denied(admission::asked(run), failure.clone()),
        _ => Cause::Own,
    }
}
