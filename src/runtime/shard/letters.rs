//! Which failed nodes leave a dead letter (docs/resilience.md): work that was given up, and that nobody took care of.
//!
//! A node leaves one when its work is somebody's answer (a call, a child run), or when it has a `retry` or a `fallback` of its
//! own, which are used up then; not when a node around it is such a one, or has an edge for its failure: then that one
//! decides. Read off the graph and the event alone, so it is the same whenever it is asked again.

use crate::engine::Run;
use crate::ir::{Kind, Node, On, Scope};
use crate::limits;
use crate::model::letter::GaveUp;
use crate::model::{Failure, Place};

/// Is it given up as a whole?
fn is_unit(node: &Node) -> bool {
    let retried = node.retry.as_ref().is_some_and(|retry| retry.max_attempts > 1);
    node.is_call() || retried || node.fallback.is_some()
}

/// Does somebody come after its failure?
fn has_way_out(scope: &Scope, node: &Node) -> bool {
    let mut edges = node.outgoing.iter().filter_map(|edge| scope.edges.get(*edge as usize));
    edges.any(|edge| matches!(edge.on, On::Error | On::Timeout))
}

/// The letter of a node whose failure made no edge live; `None` when it leaves none.
pub(super) fn letter(run: &Run, place: &Place, failure: &Failure, continued: bool) -> Option<GaveUp> {
    // Whoever cancels a run wants nothing of it any more.
    if run.is_cancelling() {
        return None;
    }
    let ir = run.ir();
    let mut scope = ir.root();
    for (owner, pass) in &place.scopes {
        let node = scope.nodes.get(*owner as usize)?;
        if is_unit(node) || has_way_out(scope, node) {
            return None;
        }
        scope = ir.scopes.get(node.body(*pass)? as usize)?;
    }
    let node = scope.nodes.get(place.node as usize).filter(|node| is_unit(node))?;
    let message: String = failure.message.chars().take(limits::LETTER_MESSAGE_LETTERS_MAX).collect();
    Some(GaveUp {
        workflow: run.workflow().into(),
        // What it started as, like the name: a graph that was compiled again knows the document's own words only.
        version: run.facts().version.into(),
        node: ir.path(place).into(),
        code: failure.code.clone(),
        message: message.into(),
        class: failure.class,
        continued,
        call: matches!(node.kind, Kind::Call { .. }),
    })
}
