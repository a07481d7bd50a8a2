//! How a node's step ends: what is written down, and what it makes of the node's edges.
//!
//! | the step | then |
//! | --- | --- |
//! | done, its output fits | `node.completed` |
//! | done, it does not (`output_schema`, a limit) | as failed |
//! | waits, with bodies and a timeout | `timer.set`, `node.waiting` |
//! | waits | `node.waiting` |
//! | goes round again | `node.progress` |
//! | failed: a call made at most once, and nobody knows what became of it | `node.uncertain` |
//! | failed, and may be tried again | `node.retry_scheduled` |
//! | failed, with a fallback | `node.fell_back`, and `node.completed` when the fallback is a value |
//! | failed | `node.failed` |
//!
//! A node's end carries the verdicts on its edges. When the `when` of an edge fails, the node's end stands, but its
//! verdicts stop before that edge: the run (in a body: the pass) fails next, with the expression's code and the edge's
//! name. It is no failure of the node, so neither its `error` edges nor its `on_error` apply.
//!
//! In a run that is to be cancelled an end is written down for the record: every edge is dead, nothing is tried again.

use super::{At, Step, Way, agent, input};
use crate::engine::Outcome;
use crate::engine::check::check;
use crate::engine::env::Surroundings;
use crate::engine::retry;
use crate::engine::scope::{Call, Callee};
use crate::ir::{self, Executor, Fallback, On, OnError};
use crate::limits;
use crate::model::event::{Verdicts, Waiting};
use crate::model::{EventBody, Failure, Place, Seq, Value};

/// Writes down how a node's step ended.
pub(super) fn end(at: At<'_>, step: Step, out: &mut Outcome) {
    match step {
        Step::Done(output, way) => match fits(at, &output) {
            Ok(()) => completed(at, output, &way, out),
            Err(failure) => failed(at, failure, false, out),
        },
        Step::Wait(waiting) => {
            let has_bodies = matches!(waiting, Waiting::Items { .. } | Waiting::Passes { .. });
            if let (true, Some(timeout), None) = (has_bodies, at.node.timeout, at.state.due) {
                let due = at.now.saturating_add(timeout);
                out.push(EventBody::TimerSet { place: at.place.clone(), due });
            }
            out.push(EventBody::NodeWaiting { place: at.place.clone(), waiting });
        }
        Step::Again(iteration) => {
            out.push(EventBody::LoopContinued { place: at.place.clone(), iteration });
        }
        Step::Failed(failure, timed_out) => failed(at, failure, timed_out, out),
    }
}

/// May this be the node's output?
pub(super) fn fits(at: At<'_>, output: &Value) -> Result<(), Failure> {
    check("its output", output)?;
    let Some(schema) = &at.node.output_schema else { return Ok(()) };
    schema.check(output, 1).map_err(|found| {
        let found = found.into_iter().next();
        let (pointer, message) = found.map_or_else(Default::default, |found| (found.pointer, found.message));
        let pointer = if pointer.is_empty() { String::from("its output") } else { pointer };
        Failure::fatal("output_schema", format!("{pointer}: {message} (output_schema)"))
    })
}

fn completed(at: At<'_>, output: Value, way: &Way, out: &mut Outcome) {
    let edges = judge(at, &output, |edge| match (&edge.on, way) {
        (On::Success, way) => !matches!(way, Way::Rejected { .. }),
        (On::Branch(name), Way::Branch(taken)) => taken == name,
        (On::Approved, Way::Approved { .. }) | (On::Rejected, Way::Rejected { .. }) => true,
        (On::Timeout, Way::Approved { expired } | Way::Rejected { expired }) => *expired,
        _ => false,
    });
    out.push(EventBody::NodeCompleted { place: at.place.clone(), output, edges });
}

/// What follows from a failure.
fn failed(at: At<'_>, failure: Failure, timed_out: bool, out: &mut Outcome) {
    let At { run, place, node, state, now } = at;
    let in_fallback = state.passes().is_some_and(|passes| passes.fallback);
    if in_fallback || run.cancel.is_some() {
        return out.push(given_up(at, failure, timed_out));
    }
    let known = state.phase == crate::engine::scope::Phase::Uncertain;
    if node.at_most_once && node.is_call() && (timed_out || is_unknown(&failure)) && !known {
        return out.push(EventBody::NodeUncertain { place: place.clone(), failure });
    }
    let attempt = at.attempt_of_turn();
    let retry = node.retry.as_ref().filter(|retry| {
        failure.retryable() && !node.at_most_once && attempt >= 1 && attempt < retry.max_attempts
    });
    if let Some(degraded) = agent::degraded(at, &failure, retry.is_some()) {
        return out.push(degraded);
    }
    if let Some(retry) = retry {
        let draw =
            if retry.jitter { retry::jitter(run.id(), run.started.seed, place, at.next_seq()) } else { 0 };
        let due = retry::due(retry, attempt - 1, draw, &failure, now);
        return out.push(EventBody::NodeRetryScheduled { place: place.clone(), failure, due, draw });
    }
    match &node.fallback {
        Some(Fallback::Value(_)) => {
            out.push(EventBody::NodeFellBack { place: place.clone(), failure, input: None });
            fallback(at, out);
        }
        Some(Fallback::Body(_)) => match input(at, &Surroundings::new(run, place)) {
            Ok(input) => {
                out.push(EventBody::NodeFellBack { place: place.clone(), failure, input: Some(input) });
            }
            // What it would be given is what failed.
            Err(_) => out.push(given_up(at, failure, timed_out)),
        },
        None => out.push(given_up(at, failure, timed_out)),
    }
}

/// The value of a node's fallback is its output.
pub(super) fn fallback(at: At<'_>, out: &mut Outcome) {
    let Some(Fallback::Value(template)) = &at.node.fallback else { return };
    let mut surroundings = Surroundings::new(at.run, at.place);
    let filled = input(at, &surroundings).and_then(|input| {
        surroundings.input = input;
        let output = surroundings.fill(template)?;
        fits(at, &output).map(|()| output)
    });
    match filled {
        Ok(output) => completed(at, output, &Way::Plain, out),
        Err(failure) => {
            let message = format!("in its fallback: {}", failure.message);
            let failure = Failure { message: message.into(), ..failure };
            out.push(given_up(at, failure, false));
        }
    }
}

/// A node's failure. Somebody takes care of it when an edge is live; else it may count as completed with null.
fn given_up(at: At<'_>, failure: Failure, timed_out: bool) -> EventBody {
    let has_timeout_edge = at.run.graph_of(at.place).is_some_and(|graph| {
        let mut edges = at.node.outgoing.iter().filter_map(|edge| graph.edges.get(*edge as usize));
        edges.any(|edge| edge.on == On::Timeout)
    });
    let mut edges = judge(at, &Value::Null, |edge| match edge.on {
        On::Timeout => timed_out,
        On::Error => !(timed_out && has_timeout_edge),
        On::Success | On::Branch(_) | On::Approved | On::Rejected => false,
    });
    let judged = edges.len() == at.node.outgoing.len();
    let mut continued = false;
    if judged && at.node.on_error == OnError::Continue && !edges.iter().any(|live| *live) {
        continued = true;
        edges = judge(at, &Value::Null, |edge| edge.on == On::Success);
    }
    EventBody::NodeFailed { place: at.place.clone(), failure, edges, continued }
}

/// The verdict on each outgoing edge: live when the node ended in its way and its `when` holds. Stops before an edge
/// whose `when` fails.
fn judge(at: At<'_>, output: &Value, ends_in: impl Fn(&ir::Edge) -> bool) -> Verdicts {
    let Some(graph) = at.run.graph_of(at.place) else { return Verdicts::new() };
    if at.run.cancel.is_some() {
        return Verdicts::from_elem(false, at.node.outgoing.len());
    }
    let mut surroundings = None;
    let mut verdicts = Verdicts::with_capacity(at.node.outgoing.len());
    for edge in &at.node.outgoing {
        let Some(edge) = graph.edges.get(*edge as usize) else { break };
        let live = match &edge.when {
            _ if !ends_in(edge) => Ok(false),
            None => Ok(true),
            Some(when) => surroundings
                .get_or_insert_with(|| Surroundings::on_edge(at.run, at.place, output.clone()))
                .holds(when),
        };
        match live {
            Ok(live) => verdicts.push(live),
            Err(_) => break,
        }
    }
    verdicts
}

/// An answer has come for the node at `place`.
pub(in crate::engine) fn answered(at: At<'_>, seq: Seq, result: &Result<Value, Failure>, out: &mut Outcome) {
    use crate::engine::scope::Phase;
    let listened_to = match at.state.phase {
        Phase::Waiting => at.state.call_under_way().is_some(),
        Phase::Uncertain => true,
        _ => false,
    };
    if !listened_to || at.state.call().map(|call| call.seq) != Some(seq) {
        out.stale = true;
        return;
    }
    match result {
        Ok(output) => end(at, Step::Done(output.clone(), Way::Plain), out),
        Err(failure) => match check("its failure", &failure.details) {
            Ok(()) => failed(at, failure.clone(), &*failure.code == "timeout", out),
            Err(over) => failed(at, over, false, out),
        },
    }
}

/// The call under way at `place` was lost in a crash.
pub(in crate::engine) fn lost(at: At<'_>, seq: Seq, out: &mut Outcome) {
    let under_way = at.state.call_under_way().filter(|call| call.seq == seq);
    if under_way.is_none_or(|call| matches!(call.to, Callee::Child(..))) {
        out.stale = true;
        return;
    }
    if !at.node.at_most_once {
        // A run that is to end makes no call again; it waits no longer than its grace time.
        out.stale = at.run.cancel.is_some();
        if out.stale {
            return;
        }
        return out.push(EventBody::NodeLost { place: at.place.clone() });
    }
    let message = "its call was under way when the node went down; nobody knows its outcome";
    let failure = Failure::fatal("lost", message);
    out.push(EventBody::NodeUncertain { place: at.place.clone(), failure });
}

/// A worker takes the attempt under way at `place`.
pub(in crate::engine) fn leased(at: At<'_>, seq: Seq, worker: &str, out: &mut Outcome) {
    let under_way = at.state.call_under_way().filter(|call| call.seq == seq);
    let free = |call: &Call| call.worker.is_none() && call.to == Callee::Executor(Executor::Task);
    if !under_way.is_some_and(free) || at.run.is_paused() || at.run.cancel.is_some() {
        out.stale = true;
        return;
    }
    out.push(EventBody::NodeLeased { place: at.place.clone(), worker: worker.into() });
}

/// Nobody knows whether a call that ended like this had its effect.
fn is_unknown(failure: &Failure) -> bool {
    matches!(&*failure.code, "lease_expired" | "connection_lost")
}

/// Places have room for so many passes.
const _: () = assert!(
    limits::LOOP_ITERATIONS_MAX < Place::FALLBACK && limits::MAP_ITEMS_MAX < Place::FALLBACK as usize
);
