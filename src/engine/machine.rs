//! One step of one node: what its kind does, and how its end is written down (`machine::end`). Reads the run, changes
//! nothing.
//!
//! | the front of the agenda | then |
//! | --- | --- |
//! | ready, nothing live arrived | `node.skipped` |
//! | ready, its join can no longer be met | it fails with `join_unsatisfiable` |
//! | ready | `node.started`, then its kind's step |
//! | running (the history was cut after `node.started`) | its kind's step |
//! | fired, handed, gathered, fell back | what follows, as its kind says |
//! | a pass | its output, or its failure (`machine::pass`) |

pub(super) mod agent;
mod call;
mod child;
mod composite;
mod conditional;
mod delay;
pub(super) mod end;
mod function;
mod join;
mod loops;
mod map;
mod parallel;
mod pass;
pub(super) mod review;
pub(super) mod wait;

use std::sync::Arc;

use smallvec::SmallVec;

use super::Outcome;
use super::check::check;
use super::env::Surroundings;
use super::route::graph_node;
use super::run::Run;
use super::scope::{Node, Phase};
use crate::ir::{self, Kind, Policy};
use crate::model::event::Waiting;
use crate::model::{EventBody, Failure, Map, Mode, Place, Seq, Value};
use crate::time::Timestamp;

/// How a node's step ended.
pub(super) enum Step {
    /// With an output.
    Done(Value, Way),
    /// It waits.
    Wait(Waiting),
    /// Its next pass begins.
    Again(u32),
    /// It failed; `true` when its time ran out.
    Failed(Failure, bool),
}

/// Which edges are live when a node completes, besides those on success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// None.
    Plain,
    /// Those of the branch that was taken.
    Branch(Arc<str>),
    /// Those of an approval; `expired`: and those on timeout.
    Approved { expired: bool },
    /// Those of a rejection, and not those on success; `expired`: and those on timeout.
    Rejected { expired: bool },
}

impl From<Result<Value, Failure>> for Step {
    fn from(result: Result<Value, Failure>) -> Self {
        match result {
            Ok(output) => Self::Done(output, Way::Plain),
            Err(failure) => Self::Failed(failure, false),
        }
    }
}

impl From<Result<Waiting, Failure>> for Step {
    fn from(result: Result<Waiting, Failure>) -> Self {
        match result {
            Ok(waiting) => Self::Wait(waiting),
            Err(failure) => Self::Failed(failure, false),
        }
    }
}

/// A node of a run, compiled and as it stands.
#[derive(Clone, Copy)]
pub(super) struct At<'a> {
    pub(super) run: &'a Run,
    pub(super) place: &'a Place,
    pub(super) node: &'a ir::Node,
    pub(super) state: &'a Node,
    pub(super) now: Timestamp,
}

impl<'a> At<'a> {
    pub(super) fn new(run: &'a Run, place: &'a Place, now: Timestamp) -> Option<Self> {
        let (node, state) = (graph_node(run, place)?, run.node(place)?);
        Some(Self { run, place, node, state, now })
    }

    /// Number of the event that is decided on, behind `node.started` when the attempt begins with it. A history that is cut
    /// between the two gives the same.
    pub(super) fn next_seq(&self) -> Seq {
        let started = self.state.phase == Phase::Ready && self.run.mode == Mode::Full;
        self.run.seq() + 1 + u64::from(started)
    }

    /// The attempt that is under way, or would begin now.
    pub(super) fn attempt(&self) -> u32 {
        self.state.attempts + u32::from(self.state.phase == Phase::Ready)
    }

    /// Which attempt of what is tried: of the turn under way of an agent, of the node of anything else.
    pub(super) fn attempt_of_turn(&self) -> u32 {
        self.attempt().saturating_sub(self.state.agent().map_or(0, |agent| agent.earlier))
    }
}

/// Does what is to be done about the first place of the agenda.
pub(super) fn step(run: &Run, place: &Place, now: Timestamp, out: &mut Outcome) {
    if place.node == Place::PASS {
        return pass::finish(run, place, out);
    }
    let Some(at) = At::new(run, place, now) else { return };
    let step = match at.state.phase {
        Phase::Ready => return start(at, out),
        Phase::Running => work(at),
        Phase::Handed => handed(at),
        Phase::Gathered if at.state.agent().is_some() => return agent::answered(at, out),
        Phase::Gathered => gathered(at),
        Phase::Fired => fired(at),
        Phase::FellBack => return end::fallback(at, out),
        Phase::Pending
        | Phase::Waiting
        | Phase::Backoff
        | Phase::Uncertain
        | Phase::Completed
        | Phase::Failed
        | Phase::Skipped => return,
    };
    end::end(at, step, out);
}

fn start(at: At<'_>, out: &mut Outcome) {
    let At { place, node, state, .. } = at;
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
        return end::end(at, Step::Failed(failure, false), out);
    }
    out.push(EventBody::NodeStarted { place: place.clone(), attempt: state.attempts + 1 });
    end::end(at, work(at), out);
}

/// What the node's kind makes of its input.
fn work(at: At<'_>) -> Step {
    let mut surroundings = Surroundings::new(at.run, at.place);
    match input(at, &surroundings) {
        Ok(input) => surroundings.input = input,
        Err(failure) => return Step::Failed(failure, false),
    }
    match &at.node.kind {
        Kind::Function { expr } => function::step(expr.as_ref(), surroundings),
        Kind::Map { over, .. } => map::step(over, &surroundings),
        Kind::Join { merge } => join::step(at, merge, surroundings),
        Kind::Parallel { .. } => parallel::step(surroundings),
        Kind::Conditional { branches, default } => {
            conditional::step(branches, default.as_ref(), surroundings)
        }
        Kind::Loop { condition, .. } => loops::step(condition, surroundings),
        Kind::Composite { .. } => composite::step(surroundings),
        Kind::Child { .. } => child::step(at, surroundings).into(),
        Kind::HumanReview(review) => review::step(at, review, &surroundings).into(),
        Kind::Delay { span } => delay::step(span, &surroundings, at.now),
        Kind::Wait { signal, timeout, .. } => wait::step(signal, *timeout, &surroundings, at.now),
        Kind::Call { executor, request } => call::step(at, *executor, request, &surroundings).into(),
        Kind::Removed => Step::Done(Value::Null, Way::Plain),
    }
}

/// Did the conditional at `place`, which completed, take this branch?
pub(super) fn took_branch(run: &Run, place: &Place, name: &Arc<str>, now: Timestamp) -> bool {
    let Some(at) = At::new(run, place, now) else { return false };
    let Kind::Conditional { branches, default } = &at.node.kind else { return false };
    let mut surroundings = Surroundings::new(run, place);
    surroundings.input = at.state.output.clone();
    match conditional::step(branches, default.as_ref(), surroundings) {
        Step::Done(_, Way::Branch(taken)) => taken == *name,
        _ => false,
    }
}

/// What follows when all passes are over, or one has failed for all.
fn gathered(at: At<'_>) -> Step {
    let Some(passes) = at.state.passes() else { return Step::Done(Value::Null, Way::Plain) };
    if passes.fallback {
        return pass::only(passes, "the fallback");
    }
    match &at.node.kind {
        Kind::Parallel { branches, results } => parallel::finish(passes, branches, *results),
        Kind::Loop { condition, max_iterations, on_exhausted, .. } => {
            loops::next(at, passes, condition, (*max_iterations, *on_exhausted))
        }
        Kind::Composite { .. } => match pass::only(passes, "its body") {
            // Without a time of its own it has that of what is in it.
            Step::Failed(failure, _) if at.node.timeout.is_none() => {
                let timed_out = matches!(&*failure.code, "timeout" | "wait_timeout");
                Step::Failed(failure, timed_out)
            }
            step => step,
        },
        _ => map::finish(passes),
    }
}

/// What follows from a signal.
fn handed(at: At<'_>) -> Step {
    let accepts = match &at.node.kind {
        Kind::Wait { accepts, .. } => accepts.as_ref(),
        _ => None,
    };
    wait::handed(accepts, &at.state.output)
}

/// What follows when a node's time has come.
fn fired(at: At<'_>) -> Step {
    match &at.node.kind {
        Kind::Delay { .. } => Step::Done(Value::Null, Way::Plain),
        Kind::Wait { .. } => wait::timed_out(),
        Kind::HumanReview(review) => review::settled(review, at.state.asked()),
        _ => {
            let allowed = at.node.timeout.unwrap_or_default().as_secs_f64();
            let message = format!("attempt {} was not done within {allowed} s (timeout)", at.attempt());
            Step::Failed(Failure::transient("timeout", message), true)
        }
    }
}

/// The node's input: its template, else what arrived.
fn input(at: At<'_>, surroundings: &Surroundings<'_>) -> Result<Value, Failure> {
    if let Some(template) = &at.node.input {
        return surroundings.fill(template);
    }
    let Some(scope) = at.run.scope(at.place) else { return Ok(Value::Null) };
    Ok(match at.state.live.as_slice() {
        [] => scope.given.clone().unwrap_or_else(|| at.run.started.inputs.clone()),
        // An object by predecessor is what a join makes of even one.
        [first, rest @ ..] if rest.iter().all(|other| other == first) && !is_join(at.node) => {
            scope.nodes.get(*first as usize).map_or(Value::Null, |node| node.output.clone())
        }
        _ => arrived(at),
    })
}

fn is_join(node: &ir::Node) -> bool {
    matches!(node.kind, Kind::Join { .. })
}

/// What arrived over live edges, by predecessor id.
fn arrived(at: At<'_>) -> Value {
    let by_id = sources(at).into_iter().map(|(id, output)| (id.clone(), output.clone()));
    Value::Map(Arc::new(by_id.collect::<Map>()))
}

/// Predecessors whose edges are live, each once, in document order of the edges.
pub(super) fn sources(at: At<'_>) -> Vec<(&Arc<str>, &Value)> {
    let (Some(scope), Some(graph)) = (at.run.scope(at.place), at.run.graph_of(at.place)) else {
        return Vec::new();
    };
    let mut unseen: SmallVec<[u32; 8]> = at.state.live.iter().copied().collect();
    unseen.sort_unstable();
    unseen.dedup();
    let mut seen: SmallVec<[bool; 32]> = SmallVec::from_elem(false, unseen.len());
    let from_each = at.node.incoming.iter().filter_map(|edge| {
        let from = graph.edges.get(*edge as usize)?.from;
        let mark = seen.get_mut(unseen.binary_search(&from).ok()?)?;
        if std::mem::replace(mark, true) {
            return None;
        }
        Some((&graph.nodes.get(from as usize)?.id, &scope.nodes.get(from as usize)?.output))
    });
    from_each.collect()
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
        Ok(pass::last_outputs(run, &root))
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
