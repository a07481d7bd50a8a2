//! Settling edges and finding what is ready (WORKFLOW.md, "When does a node run").
//!
//! | arrivals at a node | all | any | at_least k |
//! | --- | --- | --- | --- |
//! | some unsettled, rule not met | wait | wait | wait |
//! | rule met | ready when all settled, one live | ready at the first live | ready at the k-th live |
//! | all settled, none live | skip | skip | skip |
//! | live + unsettled < k, one live | - | - | ready, and fails with `join_unsatisfiable` |
//! | more, after it was ready | - | recorded, ignored | recorded, ignored |
//!
//! Nothing recurses: what follows from a skip is an event of its own, found on the agenda.

use super::run::{Node, Phase, Run, Scope};
use crate::ir::{self, Policy};
use crate::model::Place;

/// The node at `place`, to be changed.
pub(super) fn node_mut<'a>(run: &'a mut Run, place: &Place) -> Option<&'a mut Node> {
    scope_mut(run, place)?.nodes.get_mut(place.node as usize)
}

pub(super) fn scope_mut<'a>(run: &'a mut Run, place: &Place) -> Option<&'a mut Scope> {
    let mut scope = &mut run.root;
    for (owner, item) in &place.scopes {
        scope = scope.nodes.get_mut(*owner as usize)?.items.as_mut()?.scopes.get_mut(item)?;
    }
    Some(scope)
}

/// The compiled node at `place`.
pub(super) fn graph_node<'a>(run: &'a Run, place: &Place) -> Option<&'a ir::Node> {
    let graph = run.scope(place)?.graph;
    run.ir.scopes.get(graph as usize)?.nodes.get(place.node as usize)
}

/// The node at `place` has settled: its edges do too, live where the verdicts say so, and what becomes ready or has to
/// be skipped goes on the agenda.
pub(super) fn settle(run: &mut Run, place: &Place, verdicts: &[bool]) {
    let ir = run.ir.clone();
    let Some(scope) = scope_mut(run, place) else { return };
    let Some(graph) = ir.scopes.get(scope.graph as usize) else { return };
    scope.open = scope.open.saturating_sub(1);
    let Some(node) = graph.nodes.get(place.node as usize) else { return };
    let mut found: smallvec::SmallVec<[u32; 8]> = smallvec::SmallVec::new();
    for (at, edge) in node.outgoing.iter().enumerate() {
        let Some(edge) = graph.edges.get(*edge as usize) else { continue };
        let (Some(target), Some(state)) =
            (graph.nodes.get(edge.to as usize), scope.nodes.get_mut(edge.to as usize))
        else {
            continue;
        };
        state.settled += 1;
        if verdicts.get(at).copied().unwrap_or(false) {
            state.live.push(place.node);
        }
        if state.phase == Phase::Pending && is_due(target, state) {
            state.phase = Phase::Ready;
            scope.open += 1;
            found.push(edge.to);
        }
    }
    for node in found {
        run.agenda.push_back(Place { scopes: place.scopes.clone(), node });
    }
}

/// Is there something to be done about this node: start it, skip it, or fail it?
fn is_due(target: &ir::Node, state: &Node) -> bool {
    let incoming = u32::try_from(target.incoming.len()).unwrap_or(u32::MAX);
    let live = u32::try_from(state.live.len()).unwrap_or(u32::MAX);
    let unsettled = incoming.saturating_sub(state.settled);
    match target.policy {
        Policy::All => unsettled == 0,
        Policy::Any => live >= 1 || unsettled == 0,
        Policy::AtLeast(k) => live >= k || unsettled == 0 || (live > 0 && live + unsettled < k),
    }
}
