//! Settling edges and finding what is ready (WORKFLOW.md, "When does a node run").
//!
//! | arrivals at a pending node | all | any | at_least k |
//! | --- | --- | --- | --- |
//! | the rule is met | ready: all settled, one live | ready: the first live | ready: the k-th live |
//! | all settled, none live | ready, to be skipped | same | same |
//! | one live, live + unsettled < k | - | - | ready, to fail with `join_unsatisfiable` |
//! | anything else | pending | pending | pending |
//! | anything, once it is not pending any more | - | counted, ignored | counted, ignored |
//!
//! Nothing recurses: a skip is an event of its own, and the agenda is the worklist.

use super::agenda::QUEUES;
use super::run::Run;
use super::scope::{Node, Phase, Scope};
use crate::ir::{self, Policy};
use crate::model::Place;

/// The scope that `scopes` leads to, to be changed.
pub(super) fn scope_mut<'a>(root: &'a mut Scope, scopes: &[(u32, u32)]) -> Option<&'a mut Scope> {
    let mut scope = root;
    for (owner, pass) in scopes {
        scope = scope.nodes.get_mut(*owner as usize)?.passes_mut()?.scopes.get_mut(pass)?;
    }
    Some(scope)
}

/// The node at `place`, to be changed.
pub(super) fn node_mut<'a>(root: &'a mut Scope, place: &Place) -> Option<&'a mut Node> {
    scope_mut(root, &place.scopes)?.nodes.get_mut(place.node as usize)
}

/// The compiled node at `place`.
pub(super) fn graph_node<'a>(run: &'a Run, place: &Place) -> Option<&'a ir::Node> {
    run.graph_of(place)?.nodes.get(place.node as usize)
}

/// The scope at the end of `scopes`, and all around it, keep `more` bytes more and `less` less.
pub(super) fn charge(root: &mut Scope, scopes: &[(u32, u32)], more: usize, less: usize) {
    let change = |bytes: usize| bytes.saturating_add(more).saturating_sub(less);
    root.bytes = change(root.bytes);
    let mut scope = root;
    for (owner, pass) in scopes {
        let node = scope.nodes.get_mut(*owner as usize);
        let inner = node.and_then(|node| node.passes_mut()?.scopes.get_mut(pass));
        let Some(inner) = inner else { return };
        inner.bytes = change(inner.bytes);
        scope = inner;
    }
}

/// The node at `place` has settled: its edges do too, live where the verdicts say so. What is due then goes on the
/// agenda, a token each.
pub(super) fn settle(run: &mut Run, place: &Place, verdicts: &[bool]) {
    let Run { ir, root, agenda, .. } = run;
    let Some(scope) = scope_mut(root, &place.scopes) else { return };
    let Some(graph) = ir.scopes.get(scope.graph as usize) else { return };
    let Some(node) = graph.nodes.get(place.node as usize) else { return };
    for (at, edge) in node.outgoing.iter().enumerate() {
        let Some(to) = graph.edges.get(*edge as usize).map(|edge| edge.to) else { continue };
        let Some(target) = graph.nodes.get(to as usize) else { continue };
        let Some(state) = scope.nodes.get_mut(to as usize) else { continue };
        state.settled += 1;
        if state.phase != Phase::Pending {
            continue;
        }
        if verdicts.get(at).copied().unwrap_or(false) {
            state.live.push(place.node);
        }
        if is_due(target, state) {
            state.phase = Phase::Ready;
            scope.open += 1;
            agenda.start(Place { scopes: place.scopes.clone(), node: to }, target.priority);
        }
    }
}

/// Is there something to be done about this node: start it, skip it, or fail it?
pub(super) fn is_due(target: &ir::Node, state: &Node) -> bool {
    let live = state.live.len() as u64;
    let unsettled = (target.incoming.len() as u64).saturating_sub(u64::from(state.settled));
    unsettled == 0
        || match target.policy {
            Policy::All => false,
            Policy::Any => live >= 1,
            Policy::AtLeast(k) => live >= 1 && (live >= u64::from(k) || live + unsettled < u64::from(k)),
        }
}

/// Takes stale entries off the front of the agenda.
pub(super) fn freshen(run: &mut Run) {
    for queue in 0..QUEUES {
        while let Some(place) = run.agenda.queue_mut(queue).front() {
            let (root, node) = (&run.root, place.node);
            let mut scope = Some(root);
            for (owner, pass) in &place.scopes {
                scope = scope.and_then(|scope| scope.nodes.get(*owner as usize)?.pass(*pass));
            }
            let fresh = match scope {
                Some(_) if node == Place::PASS => true,
                Some(scope) => scope.nodes.get(node as usize).is_some_and(|node| node.phase.is_due()),
                None => false,
            };
            if fresh {
                break;
            }
            run.agenda.queue_mut(queue).pop_front();
        }
    }
}
