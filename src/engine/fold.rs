//! The fold: one event in, the state after it out. Evaluates nothing; refuses what could not have happened, and then
//! changes nothing.
//!
//! | event at a node | its phase | next phase |
//! | --- | --- | --- |
//! | `node.started` | ready | running |
//! | `node.skipped` | ready, nothing live arrived | skipped |
//! | `node.waiting` time, items | running | waiting |
//! | `node.waiting` signal | running | waiting; handed when such a signal was kept |
//! | `timer.fired` | waiting with a due time | fired |
//! | `signal.received` for it | waiting for that signal | handed |
//! | its last item ended, or one failed for all | waiting for items | gathered |
//! | `node.completed` | running, fired, handed, gathered | completed |
//! | `node.failed` | ready, running, fired, handed, gathered | failed; completed when `continued` |
//! | anything else | any | - (refused) |
//!
//! Fewer verdicts than edges say that the `when` of the next edge failed: nothing settles, the pass (or run) fails next.

use super::items;
use super::route::{charge, freshen, graph_node, node_mut, scope_mut, settle};
use super::run::{Node, Phase, Run};
use super::{Effects, FoldError, Timer};
use crate::ir::Kind;
use crate::model::event::{Verdicts, Waiting};
use crate::model::{EventBody, Failure, Place, Status, Value};
use crate::time::Timestamp;

/// Folds one event; timers that it arms are appended to `timers`.
pub(super) fn fold(
    run: &mut Run,
    body: &EventBody,
    at: Timestamp,
    effects: &mut Effects,
) -> Result<(), FoldError> {
    let timers = &mut effects.timers;
    if run.status.is_terminal() {
        return Err(FoldError::Ended { event: body.type_name() });
    }
    match body {
        EventBody::RunStarted(_) => return Err(unfit(body, "a run starts once")),
        EventBody::NodeStarted { place, attempt } => started(run, body, place, *attempt)?,
        EventBody::NodeWaiting { place, waiting } => wait(run, body, (place, waiting), timers)?,
        EventBody::TimerFired { place } => fired(run, body, place)?,
        EventBody::NodeCompleted { place, output, .. } if place.node == Place::PASS => {
            items::end_pass(run, body, place, Ok(output.clone()))?;
        }
        EventBody::NodeCompleted { place, output, edges } => completed(run, body, (place, output), edges)?,
        EventBody::NodeFailed { place, failure, .. } if place.node == Place::PASS => {
            items::end_pass(run, body, place, Err(failure))?;
        }
        EventBody::NodeFailed { place, failure, edges, continued } => {
            failed(run, body, (place, failure), (edges, *continued))?;
        }
        EventBody::NodeSkipped { place } => skipped(run, body, place)?,
        EventBody::SignalReceived { name, payload, waiter } => {
            signalled(run, body, (name, payload), waiter.as_ref())?;
        }
        EventBody::RunCancelRequested { reason } if run.cancel.is_none() => run.cancel = Some(reason.clone()),
        EventBody::RunCancelRequested { .. } => return Err(unfit(body, "it was asked for already")),
        EventBody::RunCompleted { outputs } if run.is_drained() && !run.is_ending() => {
            run.outputs = Some(outputs.clone());
            end(run, Status::Completed, at);
        }
        EventBody::RunCompleted { .. } => {
            return Err(unfit(body, "nodes are ready or under way, or its end is decided"));
        }
        EventBody::RunFailed { failure, place } => {
            run.failure = Some(failure.clone());
            run.failed_at.clone_from(place);
            end(run, Status::Failed, at);
        }
        EventBody::RunCancelled { .. } if run.cancel.is_some() => end(run, Status::Cancelled, at),
        EventBody::RunCancelled { .. } => return Err(unfit(body, "nobody asked for it")),
        EventBody::RunLinked { parent } => run.parent = Some(parent.clone()),
        _ => return Err(unfit(body, "not understood")),
    }
    freshen(run);
    run.seq += 1;
    Ok(())
}

fn end(run: &mut Run, status: Status, at: Timestamp) {
    run.status = status;
    run.ended_at = Some(at);
    run.agenda.clear();
    run.waiting.clear();
    run.kept.clear();
}

fn unfit(body: &EventBody, problem: &'static str) -> FoldError {
    FoldError::Unfit { event: body.type_name(), problem }
}

pub(super) fn misplaced(run: &Run, body: &EventBody, place: &Place, problem: &'static str) -> FoldError {
    FoldError::Misplaced { event: body.type_name(), place: run.ir.path(place), problem }
}

/// The node at `place`, in one of these phases.
fn expect<'a>(
    run: &'a Run,
    body: &EventBody,
    place: &Place,
    phases: &[Phase],
) -> Result<&'a Node, FoldError> {
    match run.node(place) {
        None => Err(misplaced(run, body, place, "there is no such node")),
        Some(node) if !phases.contains(&node.phase) => {
            Err(misplaced(run, body, place, "the node is not where this event could have found it"))
        }
        Some(node) => Ok(node),
    }
}

/// Changes the node at `place`, which is known to be there.
fn change(run: &mut Run, place: &Place, change: impl FnOnce(&mut Node)) {
    if let Some(node) = node_mut(&mut run.root, place) {
        change(node);
    }
}

fn started(run: &mut Run, body: &EventBody, place: &Place, attempt: u32) -> Result<(), FoldError> {
    let node = expect(run, body, place, &[Phase::Ready])?;
    if attempt != node.attempts + 1 {
        return Err(misplaced(run, body, place, "its attempts are 1, 2, 3, ..."));
    }
    change(run, place, |node| {
        node.phase = Phase::Running;
        node.attempts = attempt;
    });
    Ok(())
}

fn wait(
    run: &mut Run,
    body: &EventBody,
    (place, waiting): (&Place, &Waiting),
    timers: &mut Vec<(Timestamp, Timer)>,
) -> Result<(), FoldError> {
    expect(run, body, place, &[Phase::Running])?;
    let due = match (waiting, graph_node(run, place).map(|node| &node.kind)) {
        (Waiting::Timer { due }, Some(Kind::Delay { .. })) => Some(*due),
        (Waiting::Signal { name, due }, Some(Kind::Wait { .. })) => {
            if let Some(at) = run.kept.iter().position(|(kept, _)| kept == name)
                && let Some((_, payload)) = run.kept.remove(at)
            {
                run.own_bytes = run.own_bytes.saturating_sub(payload.weight());
                hand(run, place, payload);
                return Ok(());
            }
            run.waiting.entry(name.clone()).or_default().push_back(place.clone());
            *due
        }
        (Waiting::Items { items: Value::List(list) }, Some(Kind::Map { .. })) => {
            change(run, place, |node| node.phase = Phase::Waiting);
            items::begin(run, place, list.clone());
            return Ok(());
        }
        _ => return Err(misplaced(run, body, place, "a node of this kind waits for something else")),
    };
    timers.extend(due.map(|due| (due, Timer::Node(place.clone()))));
    change(run, place, |node| {
        node.phase = Phase::Waiting;
        node.due = due;
    });
    Ok(())
}

/// A signal's payload goes to the node at `place`, whose end is the next thing to decide.
fn hand(run: &mut Run, place: &Place, payload: Value) {
    charge(&mut run.root, &place.scopes, payload.weight(), 0);
    change(run, place, |node| {
        node.phase = Phase::Handed;
        node.due = None;
        node.output = payload;
    });
    run.agenda.push_front(place.clone());
}

fn fired(run: &mut Run, body: &EventBody, place: &Place) -> Result<(), FoldError> {
    if expect(run, body, place, &[Phase::Waiting])?.due.is_none() {
        return Err(misplaced(run, body, place, "it has no due time"));
    }
    change(run, place, |node| {
        node.phase = Phase::Fired;
        node.due = None;
    });
    run.agenda.push_front(place.clone());
    Ok(())
}

fn signalled(
    run: &mut Run,
    body: &EventBody,
    (name, payload): (&std::sync::Arc<str>, &Value),
    waiter: Option<&Place>,
) -> Result<(), FoldError> {
    if run.waiter(name) != waiter {
        return Err(unfit(body, "it goes to the node that has waited longest, and is kept when none waits"));
    }
    let Some(place) = waiter else {
        run.waiting.remove(name);
        run.own_bytes = run.own_bytes.saturating_add(payload.weight());
        run.kept.push_back((name.clone(), payload.clone()));
        return Ok(());
    };
    // Those before it wait no more: their time ran out, or their items have ended.
    if let Some(places) = run.waiting.get_mut(name) {
        while places.pop_front().is_some_and(|other| other != *place) {}
        if places.is_empty() {
            run.waiting.remove(name);
        }
    }
    hand(run, place, payload.clone());
    Ok(())
}

fn skipped(run: &mut Run, body: &EventBody, place: &Place) -> Result<(), FoldError> {
    let node = expect(run, body, place, &[Phase::Ready])?;
    let entry = graph_node(run, place).is_none_or(|node| node.incoming.is_empty());
    if entry || !node.live.is_empty() {
        return Err(misplaced(run, body, place, "not all of its edges are dead"));
    }
    leave(run, place, Phase::Skipped, Value::Null);
    settle(run, place, &[]);
    items::finish_pass_of(run, place);
    Ok(())
}

fn completed(
    run: &mut Run,
    body: &EventBody,
    (place, output): (&Place, &Value),
    edges: &Verdicts,
) -> Result<(), FoldError> {
    expect(run, body, place, &[Phase::Running, Phase::Fired, Phase::Handed, Phase::Gathered])?;
    check_verdicts(run, body, place, edges)?;
    leave(run, place, Phase::Completed, output.clone());
    if !is_unjudged(run, place, edges) {
        settle(run, place, edges);
        items::finish_pass_of(run, place);
    }
    Ok(())
}

fn failed(
    run: &mut Run,
    body: &EventBody,
    (place, failure): (&Place, &Failure),
    (edges, continued): (&Verdicts, bool),
) -> Result<(), FoldError> {
    let phases = [Phase::Ready, Phase::Running, Phase::Fired, Phase::Handed, Phase::Gathered];
    expect(run, body, place, &phases)?;
    check_verdicts(run, body, place, edges)?;
    leave(run, place, if continued { Phase::Completed } else { Phase::Failed }, Value::Null);
    if is_unjudged(run, place, edges) {
        return Ok(());
    }
    if continued || edges.iter().any(|live| *live) {
        settle(run, place, edges);
        items::finish_pass_of(run, place);
    } else if let Some(pass) = place.owner() {
        items::end_pass(run, body, &pass, Err(failure))?;
    } else {
        run.doom = Some((failure.clone(), place.clone()));
    }
    Ok(())
}

fn check_verdicts(run: &Run, body: &EventBody, place: &Place, edges: &Verdicts) -> Result<(), FoldError> {
    match graph_node(run, place) {
        Some(node) if edges.len() <= node.outgoing.len() => Ok(()),
        _ => Err(misplaced(run, body, place, "it has more verdicts than edges")),
    }
}

/// The node has settled: its token is used up, what it kept goes, its output stands.
fn leave(run: &mut Run, place: &Place, phase: Phase, output: Value) {
    let Some(scope) = scope_mut(&mut run.root, &place.scopes) else { return };
    scope.open = scope.open.saturating_sub(1);
    let Some(node) = scope.nodes.get_mut(place.node as usize) else { return };
    let more = output.weight();
    let mut less = node.items.take().map_or(0, |items| items.weight());
    if node.phase == Phase::Handed {
        less += node.output.weight();
    }
    node.phase = phase;
    node.due = None;
    node.output = output;
    charge(&mut run.root, &place.scopes, more, less);
}

/// Was there an edge whose `when` failed? Then the node's pass comes next, to fail.
fn is_unjudged(run: &mut Run, place: &Place, edges: &Verdicts) -> bool {
    if graph_node(run, place).is_none_or(|node| edges.len() >= node.outgoing.len()) {
        return false;
    }
    if let Some(scope) = scope_mut(&mut run.root, &place.scopes) {
        scope.unjudged = Some((place.node, u32::try_from(edges.len()).unwrap_or(u32::MAX)));
    }
    if let Some(pass) = place.owner() {
        run.agenda.push_front(pass);
    }
    true
}
