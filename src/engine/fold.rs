//! The fold: one event in, the state after it out. Evaluates nothing; refuses what could not have happened.

use std::sync::Arc;

use super::Timer;
use super::route;
use super::run::{Items, Node, Phase, Run, Scope};
use crate::ir::{Kind, OnItemError};
use crate::model::event::{Verdicts, Waiting};
use crate::model::{EventBody, Failure, Place, Status, Value};
use crate::time::Timestamp;

/// The event does not fit the run's state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FoldError {
    /// The first event is not `run.started` with number 1.
    #[error("a history begins with run.started, number 1")]
    NotStarted,
    /// Written by an engine with another meaning.
    #[error("written under semantics {found}; this node knows {known}", known = crate::ir::SEMANTICS_VERSION)]
    Semantics {
        /// The event's.
        found: u32,
    },
    /// The IR is that of another document.
    #[error("the run executes another document")]
    Document,
    /// An event after the run's last.
    #[error("{event} after the run has ended")]
    Ended {
        /// Its type.
        event: &'static str,
    },
    /// No node stands there, or it is not where this event could have found it.
    #[error("{event} at {place}: {problem}")]
    Misplaced {
        /// Its type.
        event: &'static str,
        /// Where.
        place: String,
        /// What stands against it.
        problem: &'static str,
    },
}

/// Folds one event; timers that it arms are appended to `timers`.
pub(super) fn fold(
    run: &mut Run,
    body: &EventBody,
    at: Timestamp,
    timers: &mut Vec<(Timestamp, Timer)>,
) -> Result<(), FoldError> {
    if run.status.is_terminal() {
        return Err(FoldError::Ended { event: body.type_name() });
    }
    match body {
        EventBody::RunStarted(_) => return Err(FoldError::NotStarted),
        EventBody::NodeStarted { place, attempt } => {
            let node = expect(run, body, place, &[Phase::Ready])?;
            node.phase = Phase::Running;
            node.attempts = *attempt;
            leave_agenda(run, place);
        }
        EventBody::NodeWaiting { place, waiting } => {
            expect(run, body, place, &[Phase::Running])?.phase = Phase::Waiting;
            wait(run, place, waiting, timers);
        }
        EventBody::TimerFired { place } => expect(run, body, place, &[Phase::Waiting])?.due = None,
        EventBody::NodeCompleted { place, output, edges } => {
            if place.node == Place::PASS {
                settle_pass(run, place, Ok(output.clone()), body)?;
            } else {
                complete(run, place, output, edges, body)?;
            }
        }
        EventBody::NodeFailed { place, failure, edges, continued } => {
            if place.node == Place::PASS {
                settle_pass(run, place, Err(failure), body)?;
            } else {
                fail(run, place, failure, (edges, *continued), body)?;
            }
        }
        EventBody::NodeSkipped { place } => {
            expect(run, body, place, &[Phase::Ready])?.phase = Phase::Skipped;
            leave_agenda(run, place);
            route::settle(run, place, &[]);
        }
        EventBody::SignalReceived { name, payload, waiter } => {
            if waiter.is_none() {
                run.value_bytes += payload.weight();
                run.signals.push_back((name.clone(), payload.clone()));
            }
        }
        EventBody::RunCancelRequested { .. } => {}
        EventBody::RunCompleted { outputs } => {
            run.outputs = Some(outputs.clone());
            end(run, Status::Completed, at);
        }
        EventBody::RunFailed { failure, place } => {
            run.failure = Some(failure.clone());
            run.failed_at.clone_from(place);
            end(run, Status::Failed, at);
        }
        EventBody::RunCancelled { .. } => end(run, Status::Cancelled, at),
    }
    run.seq += 1;
    Ok(())
}

fn end(run: &mut Run, status: Status, at: Timestamp) {
    run.status = status;
    run.ended_at = Some(at);
    run.agenda.clear();
    run.waiting.clear();
}

fn misplaced(run: &Run, body: &EventBody, place: &Place, problem: &'static str) -> FoldError {
    FoldError::Misplaced { event: body.type_name(), place: run.ir.path(place), problem }
}

/// The node at `place`, in one of these phases.
fn expect<'a>(
    run: &'a mut Run,
    body: &EventBody,
    place: &Place,
    phases: &[Phase],
) -> Result<&'a mut Node, FoldError> {
    match run.node(place) {
        None => Err(misplaced(run, body, place, "there is no such node")),
        Some(node) if !phases.contains(&node.phase) => {
            Err(misplaced(run, body, place, "the node is not where this event could have found it"))
        }
        Some(_) => route::node_mut(run, place).ok_or(FoldError::NotStarted),
    }
}

/// What was done about a place is off the agenda. It stands in front, except when another input came between.
fn leave_agenda(run: &mut Run, place: &Place) {
    if run.agenda.front() == Some(place) {
        run.agenda.pop_front();
    } else if let Some(at) = run.agenda.iter().position(|other| other == place) {
        run.agenda.remove(at);
    }
}

fn wait(run: &mut Run, place: &Place, waiting: &Waiting, timers: &mut Vec<(Timestamp, Timer)>) {
    let due = match waiting {
        Waiting::Timer { due } => Some(*due),
        Waiting::Signal { name, due } => {
            run.waiting.push((name.clone(), place.clone()));
            *due
        }
        Waiting::Items { items } => {
            begin_items(run, place, items);
            None
        }
    };
    if let Some(due) = due {
        timers.push((due, Timer::Node(place.clone())));
        if let Some(node) = route::node_mut(run, place) {
            node.due = Some(due);
        }
    }
}

fn complete(
    run: &mut Run,
    place: &Place,
    output: &Value,
    edges: &Verdicts,
    body: &EventBody,
) -> Result<(), FoldError> {
    let node = expect(run, body, place, &[Phase::Running, Phase::Waiting])?;
    let waited = node.phase == Phase::Waiting;
    node.phase = Phase::Completed;
    node.output = output.clone();
    node.due = None;
    let items = node.items.take();
    run.value_bytes += output.weight();
    if waited {
        stop_waiting(run, place, true);
    }
    if items.is_some() {
        leave_agenda(run, place);
    }
    route::settle(run, place, edges);
    finish_pass_of(run, place);
    Ok(())
}

fn fail(
    run: &mut Run,
    place: &Place,
    failure: &Failure,
    (edges, continued): (&Verdicts, bool),
    body: &EventBody,
) -> Result<(), FoldError> {
    let node = expect(run, body, place, &[Phase::Ready, Phase::Running, Phase::Waiting])?;
    let waited = node.phase == Phase::Waiting;
    node.phase = if continued { Phase::Completed } else { Phase::Failed };
    node.due = None;
    node.items = None;
    if waited {
        stop_waiting(run, place, false);
    }
    drop_agenda_below(run, place);
    leave_agenda(run, place);
    let handled = continued || edges.iter().any(|live| *live);
    route::settle(run, place, edges);
    match place.owner() {
        Some(pass) if !handled => settle_pass(run, &pass, Err(failure), body)?,
        _ => finish_pass_of(run, place),
    }
    Ok(())
}

/// A node that waited for a signal waits no more; `took` when it took one that was kept.
fn stop_waiting(run: &mut Run, place: &Place, took: bool) {
    let Some(at) = run.waiting.iter().position(|(_, waiter)| waiter == place) else { return };
    let (name, _) = run.waiting.remove(at);
    if took && let Some(kept) = run.signals.iter().position(|(kept, _)| *kept == name) {
        run.signals.remove(kept);
    }
}

/// Begins as many items of a map as may be under way.
fn begin_items(run: &mut Run, place: &Place, list: &Value) {
    let list: Arc<[Value]> = match list {
        Value::List(items) => items.clone(),
        _ => Arc::default(),
    };
    let items = Items {
        next: 0,
        done: 0,
        results: vec![None; list.len()],
        scopes: std::collections::BTreeMap::new(),
        failure: None,
        finishing: false,
        list,
    };
    if let Some(node) = route::node_mut(run, place) {
        node.items = Some(Box::new(items));
    }
    begin_more(run, place);
}

/// Begins items up to the window; a map whose items are all done goes on the agenda.
fn begin_more(run: &mut Run, place: &Place) {
    let ir = run.ir.clone();
    let (body, window) = match route::graph_node(run, place).map(|node| &node.kind) {
        Some(Kind::Map { body, max_concurrency, .. }) => (*body, max_concurrency.unwrap_or(u32::MAX)),
        _ => return,
    };
    let mut agenda = std::mem::take(&mut run.agenda);
    let mut finished = false;
    if let Some(items) = route::node_mut(run, place).and_then(|node| node.items.as_mut()) {
        let mut path = place.scopes.to_vec();
        path.push((place.node, 0));
        while (items.scopes.len() as u64) < u64::from(window) && items.failure.is_none() {
            let Some(item) = items.list.get(items.next as usize).cloned() else { break };
            if let Some(last) = path.last_mut() {
                last.1 = items.next;
            }
            let scope = Scope::open(&ir, body, Some((item, items.next)), &path, &mut agenda);
            items.scopes.insert(items.next, scope);
            items.next += 1;
        }
        finished = !items.finishing && (items.failure.is_some() || items.done as usize == items.list.len());
        items.finishing |= finished;
    }
    if finished {
        agenda.push_back(place.clone());
    }
    run.agenda = agenda;
}

/// When nothing of a body's pass is open any more: its output is that of its only last node, or it goes on the agenda
/// to have its output put together.
fn finish_pass_of(run: &mut Run, place: &Place) {
    let Some(pass) = place.owner() else { return };
    let Some(scope) = run.scope(place) else { return };
    if scope.open > 0 {
        return;
    }
    let ir = run.ir.clone();
    let Some(graph) = ir.scopes.get(scope.graph as usize) else { return };
    if graph.anonymous {
        let output = scope.nodes.first().map_or(Value::Null, |node| node.output.clone());
        end_pass(run, &pass, Ok(output));
    } else {
        run.agenda.push_back(pass);
    }
}

/// An event about a pass as a whole.
fn settle_pass(
    run: &mut Run,
    pass: &Place,
    result: Result<Value, &Failure>,
    body: &EventBody,
) -> Result<(), FoldError> {
    if run.scope(pass).is_none() || pass.scopes.is_empty() {
        return Err(misplaced(run, body, pass, "there is no such pass"));
    }
    leave_agenda(run, pass);
    end_pass(run, pass, result);
    Ok(())
}

/// The pass is over: its scope goes, its result stays with the map.
fn end_pass(run: &mut Run, pass: &Place, result: Result<Value, &Failure>) {
    let Some((map, item)) = pass.map_of_pass() else { return };
    let on_item_error = match route::graph_node(run, &map).map(|node| &node.kind) {
        Some(Kind::Map { on_item_error, .. }) => *on_item_error,
        _ => OnItemError::Fail,
    };
    drop_agenda_of_pass(run, pass);
    let mut gone = 0;
    if let Some(items) = route::node_mut(run, &map).and_then(|node| node.items.as_mut()) {
        if let Some(scope) = items.scopes.remove(&item) {
            gone = scope.nodes.iter().map(|node| node.output.weight()).sum();
        }
        items.done += 1;
        let slot = items.results.get_mut(item as usize);
        match (result, on_item_error) {
            (Ok(output), _) => set(slot, output),
            (Err(failure), OnItemError::Collect) => set(slot, Value::map([("error", described(failure))])),
            (Err(_), OnItemError::Skip) => {}
            (Err(failure), OnItemError::Fail) => items.failure = Some((item, failure.clone())),
        }
    }
    run.value_bytes = run.value_bytes.saturating_sub(gone);
    if run.node(&map).and_then(|node| node.items.as_ref()).is_some_and(|items| items.failure.is_some()) {
        // One has failed for all: nothing more is begun in the others.
        drop_agenda_below(run, &map);
    }
    begin_more(run, &map);
}

fn set(slot: Option<&mut Option<Value>>, value: Value) {
    if let Some(slot) = slot {
        *slot = Some(value);
    }
}

/// A failure as a value, as `on_item_error: collect` keeps it.
fn described(failure: &Failure) -> Value {
    Value::map([
        ("code", Value::String(failure.code.clone())),
        ("message", Value::String(failure.message.clone())),
    ])
}

/// Whatever was to be done inside the items of the map at `place` is off the agenda, and nothing there waits any more.
fn drop_agenda_below(run: &mut Run, place: &Place) {
    let depth = place.scopes.len();
    let inside = |other: &Place| {
        other.scopes.get(..depth) == Some(&place.scopes[..])
            && other.scopes.get(depth).is_some_and(|(owner, _)| *owner == place.node)
    };
    run.agenda.retain(|other| !inside(other));
    run.waiting.retain(|(_, other)| !inside(other));
}

fn drop_agenda_of_pass(run: &mut Run, pass: &Place) {
    let inside = |other: &Place| other.scopes.starts_with(&pass.scopes);
    if run.agenda.iter().any(inside) {
        run.agenda.retain(|other| !inside(other));
    }
    if !run.waiting.is_empty() {
        run.waiting.retain(|(_, other)| !inside(other));
    }
}
