//! One step of one node: what its kind does, and how its end is written down.
//!
//! | the node is | and | then |
//! | --- | --- | --- |
//! | ready | nothing live arrived | `node.skipped` |
//! | ready | its join can no longer be met | `node.failed` `join_unsatisfiable` |
//! | ready | - | `node.started`, then its kind's step |
//! | waiting for items | all done, or one failed | its end (`map`) |
//! | a pass | nothing open in it | its output |

pub(super) mod conditional;
pub(super) mod delay;
pub(super) mod function;
pub(super) mod join;
pub(super) mod map;
pub(super) mod wait;

use std::sync::Arc;

use super::Outcome;
use super::env::Surroundings;
use super::route::graph_node;
use super::run::{Node, Phase, Run};
use crate::ir::{self, Kind, On, OnError, Policy};
use crate::limits;
use crate::model::event::Verdicts;
use crate::model::{EventBody, Failure, Map, Place, Value};
use crate::time::Timestamp;

/// How a node's step ended.
pub(super) enum Step {
    /// With an output, and the branch that was taken when it is a conditional.
    Done(Value, Option<Arc<str>>),
    /// It waits.
    Wait(crate::model::event::Waiting),
    /// It failed; `true` when its time ran out.
    Failed(Failure, bool),
}

impl From<Result<Value, Failure>> for Step {
    fn from(result: Result<Value, Failure>) -> Self {
        match result {
            Ok(output) => Self::Done(output, None),
            Err(failure) => Self::Failed(failure, false),
        }
    }
}

/// Does what is to be done about the first place of the agenda.
pub(super) fn start(run: &Run, place: &Place, now: Timestamp, out: &mut Outcome) {
    if place.node == Place::PASS {
        return map::finish_pass(run, place, out);
    }
    let (Some(node), Some(state)) = (graph_node(run, place), run.node(place)) else { return };
    if state.phase == Phase::Waiting {
        return map::finish(run, place, node, out);
    }
    if !node.incoming.is_empty() && state.live.is_empty() {
        return out.push(EventBody::NodeSkipped { place: place.clone() });
    }
    if let Policy::AtLeast(k) = node.policy
        && (state.live.len() as u64) < u64::from(k)
    {
        let message = format!("{} of {k} branches arrived and no more can", state.live.len());
        return end(run, place, Step::Failed(Failure::fatal("join_unsatisfiable", message), false), out);
    }
    out.push(EventBody::NodeStarted { place: place.clone(), attempt: state.attempts + 1 });
    let mut surroundings = Surroundings::new(run, place);
    let step = match input(run, place, node, state, &surroundings) {
        Err(failure) => Step::Failed(failure, false),
        Ok(input) => {
            surroundings.input = input;
            match &node.kind {
                Kind::Function { expr } => function::step(expr.as_ref(), &surroundings),
                Kind::Map { over, .. } => map::step(over, &surroundings),
                Kind::Join { merge } => join::step(run, place, merge, &mut surroundings),
                Kind::Conditional { branches, default } => {
                    conditional::step(branches, default.as_ref(), &surroundings)
                }
                Kind::Delay { span } => delay::step(span, &surroundings, now),
                Kind::Wait { signal, timeout } => wait::step(signal, *timeout, &surroundings, now),
            }
        }
    };
    match step {
        Step::Wait(waiting) => {
            let kept = wait::kept(run, &waiting);
            out.push(EventBody::NodeWaiting { place: place.clone(), waiting });
            if let Some(payload) = kept {
                end(run, place, Step::Done(payload, None), out);
            }
        }
        step => end(run, place, step, out),
    }
}

/// The node's input: its template, else what arrived.
fn input(
    run: &Run,
    place: &Place,
    node: &ir::Node,
    state: &Node,
    surroundings: &Surroundings<'_>,
) -> Result<Value, Failure> {
    if let Some(template) = &node.input {
        return surroundings.fill(template);
    }
    let Some(scope) = run.scope(place) else { return Ok(Value::Null) };
    match state.live.as_slice() {
        [] => Ok(scope.item.as_ref().map_or_else(|| run.started.inputs.clone(), |(item, _)| item.clone())),
        [only] if !matches!(node.kind, Kind::Join { .. }) => {
            Ok(scope.nodes.get(*only as usize).map_or(Value::Null, |node| node.output.clone()))
        }
        _ => Ok(arrived(run, place, node, state)),
    }
}

/// What arrived over live edges, by predecessor id.
pub(super) fn arrived(run: &Run, place: &Place, node: &ir::Node, state: &Node) -> Value {
    let by_id = sources(run, place, node, state).map(|(id, output)| (id.clone(), output.clone()));
    Value::Map(Arc::new(by_id.collect::<Map>()))
}

/// Predecessors whose edges are live, in document order of the edges.
pub(super) fn sources<'a>(
    run: &'a Run,
    place: &Place,
    node: &'a ir::Node,
    state: &'a Node,
) -> impl Iterator<Item = (&'a Arc<str>, &'a Value)> {
    let scope = run.scope(place);
    let graph = scope.and_then(|scope| run.ir.scopes.get(scope.graph as usize));
    let mut seen: smallvec::SmallVec<[u32; 8]> = smallvec::SmallVec::new();
    node.incoming.iter().filter_map(move |edge| {
        let (scope, graph) = (scope?, graph?);
        let from = graph.edges.get(*edge as usize)?.from;
        if !state.live.contains(&from) || seen.contains(&from) {
            return None;
        }
        seen.push(from);
        Some((&graph.nodes.get(from as usize)?.id, &scope.nodes.get(from as usize)?.output))
    })
}

/// Writes a node's end down: its verdicts, and the run's failure when nobody takes care of the node's.
pub(super) fn end(run: &Run, place: &Place, step: Step, out: &mut Outcome) {
    let Some(node) = graph_node(run, place) else { return };
    match step {
        Step::Wait(_) => {}
        Step::Done(output, branch) => {
            let judged = check_size(&output).and_then(|()| judge(run, place, &output, |edge| match &edge.on {
                On::Success => true,
                On::Branch(name) => branch.as_ref() == Some(name),
                On::Error | On::Timeout => false,
            }));
            match judged {
                Ok(edges) => out.push(EventBody::NodeCompleted { place: place.clone(), output, edges }),
                Err(failure) => fail(run, place, node, (failure, false), out),
            }
        }
        Step::Failed(failure, timed_out) => fail(run, place, node, (failure, timed_out), out),
    }
}

fn fail(run: &Run, place: &Place, node: &ir::Node, (failure, timed_out): (Failure, bool), out: &mut Outcome) {
    let Some(graph) = run.scope(place).and_then(|scope| run.ir.scopes.get(scope.graph as usize)) else { return };
    let mut outgoing = node.outgoing.iter().filter_map(|edge| graph.edges.get(*edge as usize));
    let has_timeout_edge = outgoing.any(|edge| edge.on == On::Timeout);
    let mut edges = judge(run, place, &Value::Null, |edge| match edge.on {
        On::Timeout => timed_out,
        On::Error => !(timed_out && has_timeout_edge),
        On::Success | On::Branch(_) => false,
    })
    .unwrap_or_else(|_| node.outgoing.iter().map(|_| false).collect());
    let mut continued = false;
    if !edges.iter().any(|live| *live) && node.on_error == OnError::Continue {
        continued = true;
        let judged = judge(run, place, &Value::Null, |edge| edge.on == On::Success);
        edges = judged.unwrap_or_else(|_| node.outgoing.iter().map(|_| false).collect());
    }
    let handled = continued || edges.iter().any(|live| *live);
    let failed = EventBody::NodeFailed { place: place.clone(), failure: failure.clone(), edges, continued };
    out.push(failed);
    // In a body the item has failed; what that means is the map's to say.
    if !handled && place.scopes.is_empty() {
        out.push(EventBody::RunFailed { failure, place: Some(place.clone()) });
    }
}

/// The verdict on each outgoing edge: live when the node ended in its way and its `when` holds.
fn judge(
    run: &Run,
    place: &Place,
    output: &Value,
    ends_in: impl Fn(&ir::Edge) -> bool,
) -> Result<Verdicts, Failure> {
    let (Some(node), Some(scope)) = (graph_node(run, place), run.scope(place)) else { return Ok(Verdicts::new()) };
    let Some(graph) = run.ir.scopes.get(scope.graph as usize) else { return Ok(Verdicts::new()) };
    let mut surroundings = None;
    let mut verdicts = Verdicts::with_capacity(node.outgoing.len());
    for edge in &node.outgoing {
        let Some(edge) = graph.edges.get(*edge as usize) else { continue };
        let live = ends_in(edge)
            && match &edge.when {
                None => true,
                Some(when) => {
                    let surroundings = surroundings.get_or_insert_with(|| {
                        let mut surroundings = Surroundings::new(run, place);
                        surroundings.output = Some((place.node, output.clone()));
                        surroundings
                    });
                    surroundings.holds(when).map_err(|failure| {
                        let to = graph.nodes.get(edge.to as usize).map_or("?", |node| &node.id);
                        let message = format!("on the edge from {} to {to}: {}", node.id, failure.message);
                        Failure { message: message.into(), ..failure }
                    })?
                }
            };
        verdicts.push(live);
    }
    Ok(verdicts)
}

fn check_size(output: &Value) -> Result<(), Failure> {
    let weight = output.weight();
    if weight <= limits::VALUE_BYTES_MAX {
        return Ok(());
    }
    let message = format!("its output weighs {weight} bytes; at most {} may (limit value_bytes_max)", limits::VALUE_BYTES_MAX);
    Err(Failure::fatal("value_bytes_max", message))
}

/// A timer of a node has come due.
pub(super) fn timer_fired(run: &Run, place: &Place, now: Timestamp, out: &mut Outcome) {
    let waiting = run.node(place).filter(|node| node.phase == Phase::Waiting && node.due.is_some_and(|due| due <= now));
    let Some(node) = waiting.and_then(|_| graph_node(run, place)) else {
        out.stale = true;
        return;
    };
    out.push(EventBody::TimerFired { place: place.clone() });
    let step = match &node.kind {
        Kind::Wait { .. } => {
            let failure = Failure::fatal("wait_timeout", "no signal came in time");
            Step::Failed(failure, true)
        }
        _ => Step::Done(Value::Null, None),
    };
    end(run, place, step, out);
}

/// The run's last word: its outputs.
pub(super) fn complete_run(run: &Run) -> EventBody {
    let surroundings = Surroundings::new(run, &Place::root(0));
    let outputs = if run.ir.outputs.is_empty() {
        Ok(last_outputs(run, &Place::root(0)))
    } else {
        let filled = run.ir.outputs.iter().map(|(name, value)| Ok((name.clone(), surroundings.fill(value)?)));
        filled.collect::<Result<Map, Failure>>().map(|map| Value::Map(Arc::new(map)))
    };
    match outputs.and_then(|outputs| check_size(&outputs).map(|()| outputs)) {
        Ok(outputs) => EventBody::RunCompleted { outputs },
        Err(failure) => EventBody::RunFailed { failure, place: None },
    }
}

/// Outputs of the nodes of a scope that nothing follows, by id; skipped ones are left out.
pub(super) fn last_outputs(run: &Run, place: &Place) -> Value {
    let Some(scope) = run.scope(place) else { return Value::Null };
    let Some(graph) = run.ir.scopes.get(scope.graph as usize) else { return Value::Null };
    let last = graph.nodes.iter().zip(&scope.nodes);
    let last = last.filter(|(node, state)| node.outgoing.is_empty() && state.phase == Phase::Completed);
    Value::map(last.map(|(node, state)| (node.id.clone(), state.output.clone())))
}
