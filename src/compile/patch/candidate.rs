//! Layers 2 and 3: the document that follows is compiled, measured against what patches may add, and looked over for gates
//! that somebody was led around.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::gates::{self, Gates};
use super::governed;
use super::operation::{Operation, Verb, ends};
use super::scope::{Scope, count, kind};
use super::{Aim, Base, Finding, Layer, Patch, Refusal};
use crate::compile::{Compiled, Diagnostic, compile_made, pointer};
use crate::limits;
use crate::model::Value;

/// What a patch makes of a document.
#[derive(Debug)]
pub struct Candidate {
    /// The document that follows.
    pub compiled: Compiled,
    /// Nodes of the outermost scope that were there and are not what they were: their JSON differs, or what an edge from them
    /// asks for (`when`) does, for an edge is told from others by its ends alone.
    pub touched: BTreeSet<Arc<str>>,
    /// Nodes of the outermost scope that were not there.
    pub added: BTreeSet<Arc<str>>,
    /// Nodes of the outermost scope that are not there any more.
    pub removed: BTreeSet<Arc<str>>,
}

/// Applies a patch to a canonical document that compiles, and checks what follows.
///
/// # Errors
/// Of every layer from [`Layer::Limit`] on.
pub fn candidate<'d>(base: impl Into<Base<'d>>, patch: &Patch) -> Result<Candidate, Refusal> {
    candidate_for(base, patch, Aim::Make)
}

/// The same for what is not somebody's patch.
///
/// # Errors
/// As [`candidate`].
pub fn candidate_for<'d>(base: impl Into<Base<'d>>, patch: &Patch, aim: Aim) -> Result<Candidate, Refusal> {
    let Base { document, known } = base.into();
    let operations = &patch.parsed;
    let next = patch.apply(document)?;
    let compiled = match compile_made(&next, known) {
        Ok(compiled) => compiled,
        Err(refused) => return Err(wrong(operations, &refused.errors)),
    };
    let (before, after) = (Scope::of(document), Scope::of(&compiled.document));
    spawned((document, &before), &after, operations)?;
    if !compiled.unavailable.is_empty() || !compiled.unstartable.is_empty() {
        let all: Vec<Diagnostic> =
            compiled.unavailable.iter().chain(&compiled.unstartable).cloned().collect();
        return Err(wrong(operations, &all));
    }
    let not_in = |ids: &Scope<'_>, other: &Scope<'_>| -> BTreeSet<Arc<str>> {
        ids.nodes.keys().filter(|id| !other.nodes.contains_key(*id)).map(|id| Arc::from(*id)).collect()
    };
    let (added, removed) = (not_in(&after, &before), not_in(&before, &after));
    let touched = touched(&before, &after);
    let governed = governed::check(document, &compiled.document);
    // What a rule's gate shows may follow what is done, as long as every gate is there.
    let gates = if governed.is_empty() { Gates::Follow } else { Gates::Stay };
    let mut around = gates::check(document, &compiled.document, (aim, gates));
    around.extend(governed);
    go_around(operations, around)?;
    Ok(Candidate { compiled, touched, added, removed })
}

/// Refuses what goes around somebody.
pub(super) fn go_around(operations: &[Operation], found: Vec<(String, String)>) -> Result<(), Refusal> {
    if found.is_empty() {
        return Ok(());
    }
    let finding =
        |(at, message): (String, String)| Finding::new("gate_removed", meant(operations, &at), at, message);
    Err(Refusal::of(Layer::Security, found.into_iter().map(finding).collect()))
}

fn touched(before: &Scope<'_>, after: &Scope<'_>) -> BTreeSet<Arc<str>> {
    let changed = before.nodes.iter().filter(|(id, was)| after.nodes.get(*id).is_some_and(|is| is != *was));
    let mut touched: BTreeSet<Arc<str>> = changed.map(|(id, _)| Arc::from(*id)).collect();
    let whens: BTreeMap<&str, Option<&Value>> =
        after.edges.iter().map(|edge| (edge.key, edge.when)).collect();
    let edges = before.edges.iter().filter(|was| whens.get(was.key).is_some_and(|is| *is != was.when));
    touched.extend(edges.map(|edge| Arc::from(edge.from)));
    touched
}

/// How much a patch, and all patches of a document together, may add.
fn spawned(
    (document, before): (&Value, &Scope<'_>),
    after: &Scope<'_>,
    operations: &[Operation],
) -> Result<(), Refusal> {
    let any = |_: &Value| true;
    let refuse = |at: String, message: String| {
        let finding = Finding::new("spawn_limit", meant(operations, &at), at, message);
        Err(Refusal::one(Layer::Limit, finding))
    };
    let mut added = 0;
    for (id, node) in &after.nodes {
        let was = before.nodes.get(id).map_or(0, |was| count(was, &any));
        added += count(node, &any).saturating_sub(was);
        if added > limits::PATCH_NODES_ADDED_MAX {
            let message = format!(
                "more than {} nodes are added, bodies included (limit patch_nodes_added_max)",
                limits::PATCH_NODES_ADDED_MAX
            );
            return refuse(pointer::join("/nodes", id), message);
        }
    }
    let agent = |node: &Value| kind(node) == "agent";
    let sum = |scope: &Scope<'_>, agents: bool| -> usize {
        let counts = |node: &Value| !agents || agent(node);
        scope.nodes.values().map(|node| count(node, &counts)).sum()
    };
    for (key, what, agents) in [("nodes", "nodes", false), ("agents", "nodes of type agent", true)] {
        let Some(Value::Int(most)) = document.get("limits").and_then(|limits| limits.get(key)) else {
            continue;
        };
        let (was, is) = (sum(before, agents), sum(after, agents));
        // A document that stood above it from the start may be patched as long as it does not grow.
        if is > was && usize::try_from(*most).is_ok_and(|most| is > most) {
            let message = format!(
                "the workflow would have {is} {what}, bodies included; its limits.{key} allows {most}, all patches together"
            );
            return refuse("/nodes".into(), message);
        }
    }
    Ok(())
}

/// What the compiler says, as findings of the patch.
pub(super) fn wrong(operations: &[Operation], found: &[Diagnostic]) -> Refusal {
    // Limits that a document has whether it was patched or not.
    let is_limit = found.iter().all(|diagnostic| diagnostic.code.ends_with("_max"));
    let finding = |diagnostic: &Diagnostic| {
        let message = match &diagnostic.help {
            Some(help) => format!("{}; {help}", diagnostic.message),
            None => diagnostic.message.clone(),
        };
        let at = diagnostic.pointer.clone();
        let operation = meant(operations, &at).or_else(|| taken(operations, &at));
        Finding { code: diagnostic.code, message, operation, pointer: at }
    };
    let layer = if is_limit { Layer::Limit } else { Layer::Schema };
    Refusal::of(layer, found.iter().map(finding).collect())
}

/// Of an edge that no operation wrote: the one that changed a node at its end.
fn taken(operations: &[Operation], at: &str) -> Option<usize> {
    let key = at.strip_prefix("/edges/")?.split('/').next()?;
    let key = pointer::unescape(key);
    let (from, to) = ends(&key)?;
    [to, from].into_iter().find_map(|id| meant(operations, &pointer::join("/nodes", id)))
}

/// The operation that wrote what stands at `wanted`: the last one with the longest path that leads there. Else the last one
/// that wrote something in it, unless it is all of `nodes` or more.
pub(super) fn meant(operations: &[Operation], wanted: &str) -> Option<usize> {
    let leads = |path: &str, to: &str| {
        to.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let mut changes = Vec::new();
    for (index, operation) in operations.iter().enumerate() {
        if operation.verb != Verb::Test {
            changes.push((operation.path.text.as_str(), index));
        }
        if let (Verb::Move, Some(from)) = (operation.verb, &operation.from) {
            changes.push((from.text.as_str(), index));
        }
    }
    let around = changes.iter().filter(|(path, _)| leads(path, wanted));
    let inside = changes.iter().filter(|(path, _)| wanted.matches('/').count() > 1 && leads(wanted, path));
    around
        .max_by_key(|(path, index)| (path.len(), *index))
        .or_else(|| inside.max_by_key(|(_, index)| *index))
        .map(|(_, index)| *index)
}
