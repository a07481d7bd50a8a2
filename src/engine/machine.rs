//! One step of one node: what its kind does, and how its end is written down. Reads the run, changes nothing.
//!
//! | the front of the agenda | then |
//! | --- | --- |
//! | ready, nothing live arrived | `node.skipped` |
//! | ready, its join can no longer be met | `node.failed` `join_unsatisfiable` |
//! | ready | `node.started`, then its kind's step |
//! | running (the history was cut after `node.started`) | its kind's step |
//! | fired, handed, gathered | its end, as its kind says |
//! | a pass | its output, or its failure (`map`) |
//!
//! A node's end carries the verdicts on its edges. When the `when` of an edge fails, the node's end stands, but its
//! verdicts stop before that edge: the run (in a body: the item) fails next, with the expression's code and the edge's
//! name. It is no failure of the node, so neither its `error` edges nor its `on_error` apply.

pub(super) mod conditional;
pub(super) mod delay;
pub(super) mod function;
pub(super) mod join;
pub(super) mod map;
pub(super) mod wait;

use std::sync::Arc;

use smallvec::SmallVec;

use super::Outcome;
use super::check::check;
use super::env::Surroundings;
use super::route::graph_node;
use super::run::{Node, Phase, Run};
use crate::ir::{self, Kind, On, OnError, Policy};
use crate::model::event::{Verdicts, Waiting};
use crate::model::{EventBody, Failure, Map, Place, Value};
use crate::time::Timestamp;

/// How a node's step ended.
pub(super) enum Step {
    /// With an output, and the branch that was taken when it is a conditional.
    Done(Value, Option<Arc<str>>),
    /// It waits.
    Wait(Waiting),
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
pub(super) fn step(run: &Run, place: &Place, now: Timestamp, out: &mut Outcome) {
    if place.node == Place::PASS {
        return map::finish_pass(run, place, out);
    }
    let (Some(node), Some(state)) = (graph_node(run, place), run.node(place)) else { return };
    let step = match state.phase {
        Phase::Ready => return start(run, place, (node, state), now, out),
        Phase::Running => work(run, place, (node, state), now),
        Phase::Handed => Step::Done(state.output.clone(), None),
        Phase::Gathered => map::finish(state),
        Phase::Fired => match &node.kind {
            Kind::Wait { .. } => wait::timed_out(),
            _ => Step::Done(Value::Null, None),
        },
        Phase::Pending | Phase::Waiting | Phase::Completed | Phase::Failed | Phase::Skipped => return,
    };
    end(run, place, node, step, out);
}

fn start(run: &Run, place: &Place, (node, state): (&ir::Node, &Node), now: Timestamp, out: &mut Outcome) {
    let entry = node.incoming.is_empty();
    if !entry && state.live.is_empty() {
        return out.push(EventBody::NodeSkipped { place: place.clone() });
    }
    if let Policy::AtLeast(k) = node.policy
        && !entry
        && (state.live.len() as u64) < u64::from(k)
    {
        let message = format!("{} of {k} branches arrived and no more can", state.live.len());
        let failure = Failure::fatal("join_unsatisfiable", message);
        return end(run, place, node, Step::Failed(failure, false), out);
    }
    out.push(EventBody::NodeStarted { place: place.clone(), attempt: state.attempts + 1 });
    let step = work(run, place, (node, state), now);
    end(run, place, node, step, out);
}

/// What the node's kind makes of its input.
fn work(run: &Run, place: &Place, (node, state): (&ir::Node, &Node), now: Timestamp) -> Step {
    let mut surroundings = Surroundings::new(run, place);
    match input(run, place, (node, state), &surroundings) {
        Ok(input) => surroundings.input = input,
        Err(failure) => return Step::Failed(failure, false),
    }
    match &node.kind {
        Kind::Function { expr } => function::step(expr.as_ref(), surroundings),
        Kind::Map { over, .. } => map::step(over, &surroundings),
        Kind::Join { merge } => join::step(run, place, (node, state), merge, surroundings),
        Kind::Conditional { branches, default } => {
            conditional::step(branches, default.as_ref(), surroundings)
        }
        Kind::Delay { span } => delay::step(span, &surroundings, now),
        Kind::Wait { signal, timeout } => wait::step(signal, *timeout, &surroundings, now),
        _ => Step::Done(Value::Null, None),
    }
}

/// The node's input: its template, else what arrived.
fn input(
    run: &Run,
    place: &Place,
    (node, state): (&ir::Node, &Node),
    surroundings: &Surroundings<'_>,
) -> Result<Value, Failure> {
    if let Some(template) = &node.input {
        return surroundings.fill(template);
    }
    let Some(scope) = run.scope(place) else { return Ok(Value::Null) };
    Ok(match state.live.as_slice() {
        [] => scope.item.as_ref().map_or_else(|| run.started.inputs.clone(), |(item, _)| item.clone()),
        // An object by predecessor is what a join makes of even one.
        [first, rest @ ..] if rest.iter().all(|other| other == first) && !is_join(node) => {
            scope.nodes.get(*first as usize).map_or(Value::Null, |node| node.output.clone())
        }
        _ => arrived(run, place, (node, state)),
    })
}

fn is_join(node: &ir::Node) -> bool {
    matches!(node.kind, Kind::Join { .. })
}

/// What arrived over live edges, by predecessor id.
fn arrived(run: &Run, place: &Place, (node, state): (&ir::Node, &Node)) -> Value {
    let by_id =
        sources(run, place, (node, state)).into_iter().map(|(id, output)| (id.clone(), output.clone()));
    Value::Map(Arc::new(by_id.collect::<Map>()))
}

/// Predecessors whose edges are live, each once, in document order of the edges.
pub(super) fn sources<'a>(
    run: &'a Run,
    place: &Place,
    (node, state): (&'a ir::Node, &'a Node),
) -> Vec<(&'a Arc<str>, &'a Value)> {
    let (Some(scope), Some(graph)) = (run.scope(place), run.graph_of(place)) else { return Vec::new() };
    let mut unseen: SmallVec<[u32; 8]> = state.live.iter().copied().collect();
    unseen.sort_unstable();
    unseen.dedup();
    let mut seen: SmallVec<[bool; 32]> = SmallVec::from_elem(false, unseen.len());
    let from_each = node.incoming.iter().filter_map(|edge| {
        let from = graph.edges.get(*edge as usize)?.from;
        let mark = seen.get_mut(unseen.binary_search(&from).ok()?)?;
        if std::mem::replace(mark, true) {
            return None;
        }
        Some((&graph.nodes.get(from as usize)?.id, &scope.nodes.get(from as usize)?.output))
    });
    from_each.collect()
}

/// Writes down how a node's step ended.
fn end(run: &Run, place: &Place, node: &ir::Node, step: Step, out: &mut Outcome) {
    match step {
        Step::Done(output, branch) => match check("its output", &output) {
            Ok(()) => {
                let edges = judge(run, place, node, &output, |edge| match &edge.on {
                    On::Success => true,
                    On::Branch(name) => branch.as_ref() == Some(name),
                    _ => false,
                });
                out.push(EventBody::NodeCompleted { place: place.clone(), output, edges });
            }
            Err(failure) => out.push(failed(run, place, node, (failure, false))),
        },
        Step::Wait(waiting) => out.push(EventBody::NodeWaiting { place: place.clone(), waiting }),
        Step::Failed(failure, timed_out) => out.push(failed(run, place, node, (failure, timed_out))),
    }
}

/// A node's failure. Somebody takes care of it when an edge is live; else it may count as completed with null.
fn failed(run: &Run, place: &Place, node: &ir::Node, (failure, timed_out): (Failure, bool)) -> EventBody {
    let has_timeout_edge = run.graph_of(place).is_some_and(|graph| {
        let mut edges = node.outgoing.iter().filter_map(|edge| graph.edges.get(*edge as usize));
        edges.any(|edge| edge.on == On::Timeout)
    });
    let mut edges = judge(run, place, node, &Value::Null, |edge| match edge.on {
        On::Timeout => timed_out,
        On::Error => !(timed_out && has_timeout_edge),
        _ => false,
    });
    let judged = edges.len() == node.outgoing.len();
    let mut continued = false;
    if judged && node.on_error == OnError::Continue && !edges.iter().any(|live| *live) {
        continued = true;
        edges = judge(run, place, node, &Value::Null, |edge| edge.on == On::Success);
    }
    EventBody::NodeFailed { place: place.clone(), failure, edges, continued }
}

/// The verdict on each outgoing edge: live when the node ended in its way and its `when` holds. Stops before an edge
/// whose `when` fails.
fn judge(
    run: &Run,
    place: &Place,
    node: &ir::Node,
    output: &Value,
    ends_in: impl Fn(&ir::Edge) -> bool,
) -> Verdicts {
    let Some(graph) = run.graph_of(place) else { return Verdicts::new() };
    let mut surroundings = None;
    let mut verdicts = Verdicts::with_capacity(node.outgoing.len());
    for edge in &node.outgoing {
        let Some(edge) = graph.edges.get(*edge as usize) else { break };
        let live = match &edge.when {
            _ if !ends_in(edge) => Ok(false),
            None => Ok(true),
            Some(when) => surroundings
                .get_or_insert_with(|| Surroundings::on_edge(run, place, output.clone()))
                .holds(when),
        };
        match live {
            Ok(live) => verdicts.push(live),
            Err(_) => break,
        }
    }
    verdicts
}

/// Why the scope that holds `place` fails: the `when` that gave no verdict, evaluated once more for its words. Answers
/// the edge's source too.
pub(super) fn unjudged(run: &Run, place: &Place) -> Option<(Failure, Place)> {
    let (source, at) = run.scope(place)?.unjudged?;
    let source = Place { scopes: place.scopes.clone(), node: source };
    let graph = run.graph_of(place)?;
    let node = graph.nodes.get(source.node as usize)?;
    let edge = graph.edges.get(*node.outgoing.get(at as usize)? as usize)?;
    let output = run.node(&source).map_or(Value::Null, |node| node.output.clone());
    let held = edge.when.as_ref().map(|when| Surroundings::on_edge(run, &source, output).holds(when));
    let failure = match held {
        Some(Err(failure)) => failure,
        _ => Failure::fatal("expression_failed", "its `when` gave no verdict"),
    };
    let to = graph.nodes.get(edge.to as usize).map_or("?", |node| &node.id);
    let message = format!("on the edge from {} to {to}: {}", node.id, failure.message);
    Some((Failure { message: message.into(), ..failure }, source))
}

/// The run's last word: its outputs, or why there are none.
pub(super) fn complete_run(run: &Run) -> EventBody {
    let root = Place::root(0);
    let outputs = if run.ir.outputs.is_empty() {
        Ok(map::last_outputs(run, &root))
    } else {
        let surroundings = Surroundings::new(run, &root);
        let filled = run.ir.outputs.iter().map(|(name, value)| Ok((name.clone(), surroundings.fill(value)?)));
        filled.collect::<Result<Map, Failure>>().map(|map| Value::Map(Arc::new(map)))
    };
    match outputs.and_then(|outputs| check("the run's outputs", &outputs).map(|()| outputs)) {
        Ok(outputs) => EventBody::RunCompleted { outputs },
        Err(failure) => EventBody::RunFailed { failure, place: None },
    }
}
