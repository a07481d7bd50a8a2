//! Items of a map, as the fold keeps them: begun in order, a window of them under way, each with a scope of its own that
//! goes when the item is done, results in order.
//!
//! | an item | `fail` | `collect` | `skip` |
//! | --- | --- | --- | --- |
//! | gives an output | its place in the list | same | same |
//! | fails | every other item is dropped, the map is gathered | `{error: {code, message}}` in its place | no place |
//!
//! A pass of an anonymous body (one node) ends with its node; any other pass ends by an event of its own, at
//! [`Place::PASS`], because its output may have to be evaluated.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::FoldError;
use super::fold::misplaced;
use super::route::{charge, node_mut, scope_mut};
use super::run::{Items, Phase, Run, Scope};
use crate::ir::{Kind, OnItemError};
use crate::limits;
use crate::model::{EventBody, Failure, Place, Value};

impl Items {
    /// Everything that goes when the map ends.
    pub(super) fn weight(&self) -> usize {
        self.bytes + self.scopes.values().map(|scope| scope.bytes).sum::<usize>()
    }
}

/// The map at `place` begins its items, as many as may be under way.
pub(super) fn begin(run: &mut Run, place: &Place, list: Arc<[Value]>) {
    let bytes = list.iter().map(Value::weight).sum::<usize>() + list.len() * size_of::<Option<Value>>();
    charge(&mut run.root, &place.scopes, bytes, 0);
    let items = Items {
        next: 0,
        done: 0,
        results: vec![None; list.len()],
        scopes: BTreeMap::new(),
        failure: None,
        list,
        bytes,
    };
    if let Some(node) = node_mut(&mut run.root, place) {
        node.items = Some(Box::new(items));
    }
    begin_more(run, place);
}

/// Begins items up to the window; a map whose items are all done is gathered.
///
/// The window is `max_concurrency`, and never more than [`limits::MAP_NODES_OPEN_MAX`] nodes of items under way.
fn begin_more(run: &mut Run, place: &Place) {
    let Run { ir, root, agenda, .. } = run;
    let Some(scope) = scope_mut(root, &place.scopes) else { return };
    let graph = ir.scopes.get(scope.graph as usize).and_then(|graph| graph.nodes.get(place.node as usize));
    let Some(Kind::Map { body, max_concurrency, .. }) = graph.map(|node| &node.kind) else { return };
    let Some(node) = scope.nodes.get_mut(place.node as usize) else { return };
    let Some(items) = node.items.as_deref_mut() else { return };
    if items.done as usize == items.list.len() {
        node.phase = Phase::Gathered;
        agenda.push_back(place.clone());
        return;
    }
    let nodes = ir.scopes.get(*body as usize).map_or(1, |body| body.nodes.len().max(1));
    let window = max_concurrency.map_or(usize::MAX, |window| window.max(1) as usize);
    let window = window.min((limits::MAP_NODES_OPEN_MAX / nodes).max(1));
    let mut opened = 0;
    while items.scopes.len() < window
        && let Some(item) = items.list.get(items.next as usize)
    {
        let mut scopes = place.scopes.clone();
        scopes.push((place.node, items.next));
        let scope = Scope::open(ir, *body, Some((item.clone(), items.next)), &scopes, agenda);
        opened += scope.bytes;
        items.scopes.insert(items.next, scope);
        items.next += 1;
    }
    charge(root, &place.scopes, opened, 0);
}

/// When nothing of the pass around `place` is open any more: its output is that of its only node, or it goes on the
/// agenda to have its output put together.
pub(super) fn finish_pass_of(run: &mut Run, place: &Place) {
    let Some(pass) = place.owner() else { return };
    let Some(scope) = run.scope(place) else { return };
    if scope.open > 0 {
        return;
    }
    let anonymous = run.ir.scopes.get(scope.graph as usize).is_some_and(|graph| graph.anonymous);
    if anonymous {
        let output = scope.nodes.first().map_or(Value::Null, |node| node.output.clone());
        over(run, &pass, Ok(output));
    } else {
        run.agenda.push_back(pass);
    }
}

/// Folds the end of a pass.
pub(super) fn end_pass(
    run: &mut Run,
    body: &EventBody,
    pass: &Place,
    result: Result<Value, &Failure>,
) -> Result<(), FoldError> {
    match run.scope(pass) {
        Some(scope) if pass.scopes.is_empty() || (result.is_ok() && scope.open > 0) => {
            Err(misplaced(run, body, pass, "the pass is not over"))
        }
        Some(_) => {
            over(run, pass, result);
            Ok(())
        }
        None => Err(misplaced(run, body, pass, "there is no such pass")),
    }
}

/// The pass is over: its scope goes, its result stays with the map.
fn over(run: &mut Run, pass: &Place, result: Result<Value, &Failure>) {
    let Some((map, item)) = pass.node_of_pass() else { return };
    let on_item_error = match super::route::graph_node(run, &map).map(|node| &node.kind) {
        Some(Kind::Map { on_item_error, .. }) => *on_item_error,
        _ => OnItemError::Fail,
    };
    let Some(node) = node_mut(&mut run.root, &map) else { return };
    let Some(items) = node.items.as_deref_mut() else { return };
    let mut gone = items.scopes.remove(&item).map_or(0, |scope| scope.bytes);
    items.done += 1;
    let result = match (result, on_item_error) {
        (Ok(output), _) => Some(output),
        (Err(failure), OnItemError::Collect) => Some(Value::map([("error", described(failure))])),
        (Err(_), OnItemError::Skip) => None,
        (Err(failure), OnItemError::Fail) => {
            gone += items.scopes.values().map(|scope| scope.bytes).sum::<usize>();
            items.scopes.clear();
            items.failure = Some((item, failure.clone()));
            node.phase = Phase::Gathered;
            run.agenda.push_front(map.clone());
            charge(&mut run.root, &map.scopes, 0, gone);
            return;
        }
    };
    let kept = result.as_ref().map_or(0, Value::weight);
    items.bytes += kept;
    if let Some(slot) = items.results.get_mut(item as usize) {
        *slot = result;
    }
    charge(&mut run.root, &map.scopes, kept, gone);
    begin_more(run, &map);
}

/// A failure as a value, as `on_item_error: collect` keeps it.
fn described(failure: &Failure) -> Value {
    Value::map([
        ("code", Value::String(failure.code.clone())),
        ("message", Value::String(failure.message.clone())),
    ])
}
