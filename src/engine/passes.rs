//! Passes of a node, as the fold keeps them: items of a map, branches of a parallel, iterations of a loop, the body of a
//! composite or of a fallback. Begun in order, a window of them under way, each with a scope of its own that goes when the
//! pass is over, results in order.
//!
//! | a pass | map: `fail` | `collect` | `skip` | any other node |
//! | --- | --- | --- | --- | --- |
//! | gives an output | its place in the list | same | same | its result |
//! | fails | the others are dropped, gathered | `{error: {code, message}}` in its place | no place | as `fail` |
//!
//! A pass of an anonymous body (one node) ends with its node; any other pass ends by an event of its own, at
//! [`Place::PASS`], because its output may have to be evaluated. A loop has one pass at a time: after each it is gathered,
//! and goes on by an event.

use std::collections::BTreeMap;

use super::agenda::Agenda;
use super::calls;
use super::fold::misplaced;
use super::route::{charge, node_mut, scope_mut};
use super::run::Run;
use super::scope::{Given, Own, Passes, Phase, Scope};
use super::{Effects, FoldError};
use crate::ir::{self, Ir, Kind, OnItemError};
use crate::limits;
use crate::model::{EventBody, Failure, Place, Value};

/// The node at `place` begins its passes, as many as may be under way.
pub(super) fn begin(run: &mut Run, place: &Place, given: Given, fallback: bool) {
    let kind = super::route::graph_node(run, place).map(|node| &node.kind);
    let (count, results) = match (&given, kind) {
        _ if fallback => (1, 1),
        (Given::Each(list), _) => (number(list.len()), list.len()),
        (Given::All(_), Some(Kind::Parallel { branches, .. })) => (number(branches.len()), branches.len()),
        (Given::All(_), _) => (1, 1),
    };
    let bytes = match &given {
        Given::Each(list) => list.iter().map(Value::weight).sum::<usize>(),
        Given::All(value) => value.weight(),
    };
    let bytes = bytes + results * size_of::<Option<Value>>();
    charge(&mut run.root, &place.scopes, bytes, 0);
    let passes = Passes {
        given,
        count,
        next: 0,
        done: 0,
        results: vec![None; results],
        scopes: BTreeMap::new(),
        failure: None,
        bytes,
        fallback,
    };
    if let Some(node) = node_mut(&mut run.root, place) {
        node.own = Some(Box::new(Own::Passes(passes)));
    }
    begin_more(run, place);
}

fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// How many passes may be under way: `max_concurrency` of a map, and never more than [`limits::MAP_NODES_OPEN_MAX`]
/// nodes of items.
fn window(ir: &Ir, node: &ir::Node) -> usize {
    match &node.kind {
        Kind::Map { body, max_concurrency, .. } => {
            let nodes = ir.scopes.get(*body as usize).map_or(1, |body| body.nodes.len().max(1));
            let window = max_concurrency.map_or(usize::MAX, |window| window.max(1) as usize);
            window.min((limits::MAP_NODES_OPEN_MAX / nodes).max(1))
        }
        _ => usize::MAX,
    }
}

/// Begins passes up to the window; a node whose passes are all over is gathered.
fn begin_more(run: &mut Run, place: &Place) {
    let Run { ir, root, agenda, .. } = run;
    let Some(scope) = scope_mut(root, &place.scopes) else { return };
    let graph = ir.scopes.get(scope.graph as usize).and_then(|graph| graph.nodes.get(place.node as usize));
    let Some(graph) = graph else { return };
    let Some(node) = scope.nodes.get_mut(place.node as usize) else { return };
    let Some(Own::Passes(passes)) = node.own.as_deref_mut() else { return };
    if passes.done == passes.count {
        node.phase = Phase::Gathered;
        agenda.end_next(place.clone());
        return;
    }
    let window = window(ir, graph);
    let mut opened = 0;
    while passes.next < passes.count && passes.scopes.len() < window {
        let given = match &passes.given {
            Given::Each(list) => list.get(passes.next as usize).cloned(),
            Given::All(value) => Some(value.clone()),
        };
        let pass = if passes.fallback { Place::FALLBACK } else { passes.next };
        opened += open_pass(ir, graph, (passes, given), (place, pass), agenda);
        passes.next += 1;
    }
    charge(root, &place.scopes, opened, 0);
}

/// Opens one pass; gives what its scope weighs.
fn open_pass(
    ir: &Ir,
    graph: &ir::Node,
    (passes, given): (&mut Passes, Option<Value>),
    (place, pass): (&Place, u32),
    agenda: &mut Agenda,
) -> usize {
    let mut scopes = place.scopes.clone();
    scopes.push((place.node, pass));
    // A pass through a body that is not there has no nodes: it is over at once, and gives null.
    let body = graph.body(pass).unwrap_or(u32::MAX);
    let scope = Scope::open(ir, body, (given, pass), &scopes, agenda);
    let bytes = scope.bytes;
    passes.scopes.insert(pass, scope);
    bytes
}

/// A loop goes round once more: its next pass is given the last one's output.
pub(super) fn go_round(run: &mut Run, place: &Place) {
    let Run { ir, root, agenda, .. } = run;
    let Some(scope) = scope_mut(root, &place.scopes) else { return };
    let graph = ir.scopes.get(scope.graph as usize).and_then(|graph| graph.nodes.get(place.node as usize));
    let (Some(graph), Some(node)) = (graph, scope.nodes.get_mut(place.node as usize)) else { return };
    node.phase = Phase::Waiting;
    let Some(Own::Passes(passes)) = node.own.as_deref_mut() else { return };
    passes.count = passes.count.max(passes.next + 1);
    let given = match (passes.results.first(), &passes.given) {
        (Some(Some(last)), _) => last.clone(),
        (_, Given::All(value)) => value.clone(),
        (_, Given::Each(_)) => Value::Null,
    };
    let pass = passes.next;
    passes.next += 1;
    let opened = open_pass(ir, graph, (passes, Some(given)), (place, pass), agenda);
    charge(root, &place.scopes, opened, 0);
}

/// When nothing of the pass around `place` is open any more: its output is that of its only node, or it goes on the
/// agenda to have its output put together.
pub(super) fn finish_pass_of(run: &mut Run, place: &Place, effects: &mut Effects) {
    let Some(pass) = place.owner() else { return };
    let Some(scope) = run.scope(place) else { return };
    if scope.open > 0 {
        return;
    }
    let anonymous = run.ir.scopes.get(scope.graph as usize).is_some_and(|graph| graph.anonymous);
    if anonymous {
        let output = scope.nodes.first().map_or(Value::Null, |node| node.output.clone());
        over(run, &pass, Ok(output), effects);
    } else {
        run.agenda.end_next(pass);
    }
}

/// Folds the end of a pass.
pub(super) fn end_pass(
    run: &mut Run,
    body: &EventBody,
    pass: &Place,
    result: Result<Value, &Failure>,
    effects: &mut Effects,
) -> Result<(), FoldError> {
    match run.scope(pass) {
        Some(scope) if pass.scopes.is_empty() || (result.is_ok() && scope.open > 0) => {
            Err(misplaced(run, body, pass, "the pass is not over"))
        }
        Some(_) => {
            over(run, pass, result, effects);
            Ok(())
        }
        None => Err(misplaced(run, body, pass, "there is no such pass")),
    }
}

/// All passes of the node at `place` that are under way are gone; gives what they weighed.
pub(super) fn drop_passes(run: &mut Run, place: &Place, effects: &mut Effects) -> usize {
    let node = node_mut(&mut run.root, place);
    let Some(passes) = node.and_then(|node| node.passes_mut()) else { return 0 };
    let scopes = std::mem::take(&mut passes.scopes);
    calls::abandon(run, place, &scopes, effects);
    scopes.values().map(|scope| scope.bytes).sum()
}

/// The pass is over: its scope goes, its result stays with the node.
fn over(run: &mut Run, pass: &Place, result: Result<Value, &Failure>, effects: &mut Effects) {
    let Some((owner, number)) = pass.node_of_pass() else { return };
    let kind = super::route::graph_node(run, &owner).map(|node| &node.kind);
    let (on_item_error, is_loop) = match kind {
        Some(Kind::Map { on_item_error, .. }) => (*on_item_error, false),
        kind => (OnItemError::Fail, matches!(kind, Some(Kind::Loop { .. }))),
    };
    let Some(passes) = node_mut(&mut run.root, &owner).and_then(|node| node.passes_mut()) else { return };
    let fallback = passes.fallback;
    let gone = passes.scopes.remove(&number);
    passes.done += 1;
    let mut less = gone.as_ref().map_or(0, |scope| scope.bytes);
    if let (Some(scope), Err(_)) = (gone, &result) {
        // A pass that failed may have left calls under way.
        calls::abandon(run, &owner, &BTreeMap::from([(number, scope)]), effects);
    }
    let result = match (result, on_item_error) {
        (Ok(output), _) => Some(output),
        (Err(failure), OnItemError::Collect) if !fallback => {
            Some(Value::map([("error", described(failure))]))
        }
        (Err(_), OnItemError::Skip) if !fallback => None,
        (Err(failure), _) => {
            let failure = failure.clone();
            less += drop_passes(run, &owner, effects);
            if let Some(node) = node_mut(&mut run.root, &owner) {
                node.phase = Phase::Gathered;
                if let Some(passes) = node.passes_mut() {
                    passes.failure = Some((number, failure));
                }
            }
            run.agenda.end_first(owner.clone());
            return charge(&mut run.root, &owner.scopes, 0, less);
        }
    };
    let Some(passes) = node_mut(&mut run.root, &owner).and_then(|node| node.passes_mut()) else { return };
    let kept = result.as_ref().map_or(0, Value::weight);
    let slot = if fallback || is_loop { 0 } else { number as usize };
    let mut before = 0;
    if let Some(slot) = passes.results.get_mut(slot) {
        before = slot.as_ref().map_or(0, Value::weight);
        *slot = result;
    }
    passes.bytes = (passes.bytes + kept).saturating_sub(before);
    charge(&mut run.root, &owner.scopes, kept, less + before);
    begin_more(run, &owner);
}

/// A failure as a value, as `on_item_error: collect` keeps it.
fn described(failure: &Failure) -> Value {
    Value::map([
        ("code", Value::String(failure.code.clone())),
        ("message", Value::String(failure.message.clone())),
    ])
}

/// What a node's passes gave, in order; those left out are not in it.
pub(super) fn results(passes: &Passes) -> impl Iterator<Item = &Value> {
    passes.results.iter().flatten()
}
