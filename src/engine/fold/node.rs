//! Events about a node.
//!
//! | event | phase before | phase after |
//! | --- | --- | --- |
//! | `node.started` | ready | running |
//! | `node.skipped` | ready, nothing live arrived | skipped |
//! | `timer.set` | running, it has bodies | running, with a due time |
//! | `node.waiting` time, passes, call, child, review | running | waiting |
//! | `node.waiting` signal | running | waiting; handed when such a signal was kept |
//! | `timer.fired` | running, waiting or gathered, with a due time | fired; its passes are gone, its call is given up |
//! | `timer.fired` | backoff | ready, for the next attempt |
//! | `signal.received` for it | waiting for that signal | handed |
//! | its last pass ended, or one failed for all | waiting for passes | gathered |
//! | `node.progress` | gathered after a pass, a loop | waiting for the next pass |
//! | `approval.escalated` | waiting for a human | waiting, with the next due time |
//! | `approval.expired`, `approval.decided` | waiting for a human | fired |
//! | `node.retry_scheduled` | begun, not settled | backoff |
//! | `node.fell_back` with an input | begun, not settled | waiting for the fallback's pass |
//! | `node.fell_back` without | begun, not settled | fell back |
//! | `node.uncertain` | a call under way, or fired | uncertain |
//! | `node.completed` | running, fired, handed, gathered, fell back, uncertain, a call under way | completed |
//! | `node.failed` | the same, or ready | failed; completed when `continued` |
//! | `model.called` and the like | an agent's (`fold::agent`) | |
//! | anything else | any | - (refused) |
//!
//! Fewer verdicts than edges say that the `when` of the next edge failed: nothing settles, the pass (or run) fails next.

use super::{agent, misplaced, waiting};
use crate::engine::route::{charge, graph_node, node_mut, scope_mut, settle};
use crate::engine::run::Run;
use crate::engine::scope::{Given, Node, Own, Phase};
use crate::engine::{Effects, FoldError, Keep, Timer, calls, passes};
use crate::ir::{Executor, Fallback, Kind};
use crate::model::event::Verdicts;
use crate::model::{EventBody, Failure, Place, Value};
use crate::time::Timestamp;

pub(super) fn fold(
    run: &mut Run,
    body: &EventBody,
    at: Timestamp,
    effects: &mut Effects,
) -> Result<(), FoldError> {
    match body {
        EventBody::NodeStarted { place, attempt } => started(run, body, place, *attempt),
        EventBody::NodeSkipped { place } => skipped(run, body, place, effects),
        EventBody::NodeWaiting { place, waiting } => waiting::wait(run, body, (place, waiting, at), effects),
        EventBody::TimerSet { place, due } => timer_set(run, body, (place, *due), effects),
        EventBody::TimerFired { place } => fired(run, body, place, effects),
        EventBody::ApprovalEscalated { place, level } => {
            waiting::escalated(run, body, (place, *level), effects)
        }
        EventBody::ApprovalExpired { place } => waiting::expired(run, body, place),
        EventBody::ApprovalDecided { place, decision } => waiting::decided(run, body, place, decision),
        EventBody::LoopContinued { place, iteration } => continued(run, body, place, *iteration),
        EventBody::NodeRetryScheduled { place, due, failure, .. } => {
            agent::failed(run, place, failure);
            retry_scheduled(run, body, (place, *due), effects)
        }
        EventBody::NodeFellBack { place, input, failure } => {
            agent::failed(run, place, failure);
            fell_back(run, body, (place, input.as_ref()), effects)
        }
        EventBody::NodeUncertain { place, .. } => uncertain(run, body, place, effects),
        EventBody::NodeLost { place } => waiting::lost(run, body, place, effects),
        EventBody::NodeLeased { place, worker } => waiting::leased(run, body, place, worker),
        EventBody::NodeCompleted { place, output, .. } if place.node == Place::PASS => {
            passes::end_pass(run, body, place, Ok(output.clone()), effects)
        }
        EventBody::NodeCompleted { place, output, edges } => {
            completed(run, body, (place, output, edges), effects)
        }
        EventBody::NodeFailed { place, failure, .. } if place.node == Place::PASS => {
            passes::end_pass(run, body, place, Err(failure), effects)
        }
        EventBody::NodeFailed { place, failure, edges, continued } => {
            agent::failed(run, place, failure);
            failed(run, body, (place, failure), (edges, *continued), effects)
        }
        _ => agent::fold(run, body, effects),
    }
}

/// The node at `place`, in one of these phases.
pub(super) fn expect<'a>(
    run: &'a Run,
    body: &EventBody,
    place: &Place,
    phases: &[Phase],
) -> Result<&'a Node, FoldError> {
    match run.node(place) {
        None => Err(misplaced(run, body, place, "there is no such node")),
        Some(node) if !phases.contains(&node.phase) => Err(astray(run, body, place)),
        Some(node) => Ok(node),
    }
}

pub(super) fn astray(run: &Run, body: &EventBody, place: &Place) -> FoldError {
    misplaced(run, body, place, "the node is not where this event could have found it")
}

/// Changes the node at `place`, which is known to be there.
pub(super) fn change(run: &mut Run, place: &Place, change: impl FnOnce(&mut Node)) {
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

fn timer_set(
    run: &mut Run,
    body: &EventBody,
    (place, due): (&Place, Timestamp),
    effects: &mut Effects,
) -> Result<(), FoldError> {
    let node = expect(run, body, place, &[Phase::Running])?;
    let has_bodies = graph_node(run, place).is_some_and(|node| {
        matches!(
            node.kind,
            Kind::Map { .. } | Kind::Parallel { .. } | Kind::Loop { .. } | Kind::Composite { .. }
        )
    });
    if node.due.is_some() || !has_bodies {
        return Err(astray(run, body, place));
    }
    change(run, place, |node| node.due = Some(due));
    effects.timers.push((due, Timer::Node(place.clone())));
    Ok(())
}

fn fired(run: &mut Run, body: &EventBody, place: &Place, effects: &mut Effects) -> Result<(), FoldError> {
    let phases = [Phase::Running, Phase::Waiting, Phase::Gathered, Phase::Backoff];
    let node = expect(run, body, place, &phases)?;
    if node.due.is_none() || node.asked().is_some() {
        return Err(misplaced(run, body, place, "it has no due time that ends it"));
    }
    if node.phase == Phase::Backoff {
        change(run, place, |node| {
            node.phase = Phase::Ready;
            node.due = None;
        });
        let priority = graph_node(run, place).map(|node| node.priority).unwrap_or_default();
        run.agenda.start(place.clone(), priority);
        return Ok(());
    }
    calls::give_up(run, place, effects);
    let gone = passes::drop_passes(run, place, effects);
    charge(&mut run.root, &place.scopes, 0, gone);
    change(run, place, |node| {
        node.phase = Phase::Fired;
        node.due = None;
    });
    run.agenda.end_first(place.clone());
    Ok(())
}

fn continued(run: &mut Run, body: &EventBody, place: &Place, iteration: u32) -> Result<(), FoldError> {
    let node = expect(run, body, place, &[Phase::Gathered])?;
    let is_loop = graph_node(run, place).is_some_and(|node| matches!(node.kind, Kind::Loop { .. }));
    let next = node.passes().filter(|passes| !passes.fallback && passes.failure.is_none());
    if !is_loop || next.map(|passes| passes.next) != Some(iteration) {
        return Err(astray(run, body, place));
    }
    passes::go_round(run, place);
    Ok(())
}

/// Phases of a node whose attempt may have ended.
const BEGUN: [Phase; 4] = [Phase::Running, Phase::Fired, Phase::Handed, Phase::Gathered];

/// The node's attempt has ended in a way that its phase allows.
fn expect_begun(run: &Run, body: &EventBody, place: &Place, more: &[Phase]) -> Result<(), FoldError> {
    let node = run.node(place).ok_or_else(|| misplaced(run, body, place, "there is no such node"))?;
    let answered = node.phase == Phase::Waiting && node.call_under_way().is_some();
    if answered || BEGUN.contains(&node.phase) || more.contains(&node.phase) {
        Ok(())
    } else {
        Err(astray(run, body, place))
    }
}

/// Drops the passes of the node at `place`, and what it kept for them; a call's request stays for the next attempt.
fn clear(run: &mut Run, place: &Place, effects: &mut Effects) {
    calls::answered(run, place);
    let gone = passes::drop_passes(run, place, effects);
    let mut less = gone;
    change(run, place, |node| {
        node.due = None;
        if node.phase == Phase::Handed {
            less += node.output.weight();
            node.output = Value::Null;
        }
        if !matches!(node.own.as_deref(), Some(Own::Call(_) | Own::Agent(_))) {
            less += node.own.take().map_or(0, |own| own.weight());
        }
    });
    charge(&mut run.root, &place.scopes, 0, less);
}

fn retry_scheduled(
    run: &mut Run,
    body: &EventBody,
    (place, due): (&Place, Timestamp),
    effects: &mut Effects,
) -> Result<(), FoldError> {
    expect_begun(run, body, place, &[])?;
    if graph_node(run, place).is_none_or(|node| node.retry.is_none() || node.at_most_once) {
        return Err(misplaced(run, body, place, "it is not tried again"));
    }
    clear(run, place, effects);
    change(run, place, |node| {
        node.phase = Phase::Backoff;
        node.due = Some(due);
    });
    effects.timers.push((due, Timer::Node(place.clone())));
    Ok(())
}

fn fell_back(
    run: &mut Run,
    body: &EventBody,
    (place, input): (&Place, Option<&Value>),
    effects: &mut Effects,
) -> Result<(), FoldError> {
    expect_begun(run, body, place, &[Phase::Ready, Phase::Uncertain])?;
    let twice = run.node(place).and_then(Node::passes).is_some_and(|passes| passes.fallback);
    if twice || graph_node(run, place).is_none_or(|node| node.fallback.is_none()) {
        return Err(misplaced(run, body, place, "it has no fallback, or it is under way"));
    }
    clear(run, place, effects);
    let mut less = 0;
    change(run, place, |node| less = node.own.take().map_or(0, |own| own.weight()));
    charge(&mut run.root, &place.scopes, 0, less);
    match input {
        Some(input) => {
            change(run, place, |node| node.phase = Phase::Waiting);
            passes::begin(run, place, Given::All(input.clone()), true);
        }
        None => {
            change(run, place, |node| node.phase = Phase::FellBack);
            run.agenda.end_first(place.clone());
        }
    }
    Ok(())
}

fn uncertain(run: &mut Run, body: &EventBody, place: &Place, effects: &mut Effects) -> Result<(), FoldError> {
    expect_begun(run, body, place, &[])?;
    if graph_node(run, place).is_none_or(|node| !node.at_most_once || !node.is_call()) {
        return Err(misplaced(run, body, place, "its call may be made again"));
    }
    clear(run, place, effects);
    change(run, place, |node| node.phase = Phase::Uncertain);
    Ok(())
}

fn skipped(run: &mut Run, body: &EventBody, place: &Place, effects: &mut Effects) -> Result<(), FoldError> {
    let node = expect(run, body, place, &[Phase::Ready])?;
    let entry = graph_node(run, place).is_none_or(|node| node.incoming.is_empty());
    if entry || !node.live.is_empty() {
        return Err(misplaced(run, body, place, "not all of its edges are dead"));
    }
    leave(run, place, Phase::Skipped, Value::Null, effects);
    settle(run, place, &[]);
    passes::finish_pass_of(run, place, effects);
    Ok(())
}

fn completed(
    run: &mut Run,
    body: &EventBody,
    (place, output, edges): (&Place, &Value, &Verdicts),
    effects: &mut Effects,
) -> Result<(), FoldError> {
    expect_begun(run, body, place, &[Phase::FellBack, Phase::Uncertain])?;
    check_verdicts(run, body, place, edges)?;
    effects.keeps.extend(kept(run, place, output));
    leave(run, place, Phase::Completed, output.clone(), effects);
    if !is_unjudged(run, place, edges) {
        settle(run, place, edges);
        passes::finish_pass_of(run, place, effects);
    }
    Ok(())
}

/// What a call brought, when its node falls back on such answers.
fn kept(run: &Run, place: &Place, output: &Value) -> Option<Keep> {
    let node = graph_node(run, place)?;
    let Some(Fallback::Body(body)) = &node.fallback else { return None };
    let stands_in = run.ir().scopes.get(*body as usize)?.nodes.first()?;
    if !matches!(stands_in.kind, Kind::Call { executor: Executor::Cached, .. }) {
        return None;
    }
    // A fallback's own answer is in the place of a call's, and no call.
    let request = run.node(place)?.call()?.request.clone();
    let workflow = run.started.workflow.clone();
    Some(Keep { workflow, node: node.id.clone(), request, output: output.clone() })
}

fn failed(
    run: &mut Run,
    body: &EventBody,
    (place, failure): (&Place, &Failure),
    (edges, continued): (&Verdicts, bool),
    effects: &mut Effects,
) -> Result<(), FoldError> {
    expect_begun(run, body, place, &[Phase::Ready, Phase::FellBack, Phase::Uncertain])?;
    check_verdicts(run, body, place, edges)?;
    let phase = if continued { Phase::Completed } else { Phase::Failed };
    leave(run, place, phase, Value::Null, effects);
    if is_unjudged(run, place, edges) {
        return Ok(());
    }
    if continued || edges.iter().any(|live| *live) {
        settle(run, place, edges);
        passes::finish_pass_of(run, place, effects);
    } else if run.cancel.is_some() {
        // It came too late to matter: the run is to be cancelled, and is not brought down by it.
        settle(run, place, edges);
    } else if let Some(pass) = place.owner() {
        passes::end_pass(run, body, &pass, Err(failure), effects)?;
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
fn leave(run: &mut Run, place: &Place, phase: Phase, output: Value, effects: &mut Effects) {
    let mut less = 0;
    let node = node_mut(&mut run.root, place);
    if node.is_some_and(|node| node.own.is_some() || node.phase == Phase::Handed) {
        calls::answered(run, place);
        less = passes::drop_passes(run, place, effects);
    }
    let Some(scope) = scope_mut(&mut run.root, &place.scopes) else { return };
    scope.open = scope.open.saturating_sub(1);
    let Some(node) = scope.nodes.get_mut(place.node as usize) else { return };
    let more = output.weight();
    less += node.own.take().map_or(0, |own| own.weight());
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
        run.agenda.end_first(pass);
    }
    true
}
