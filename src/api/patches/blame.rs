//! Blame: which layer put each node and edge of a run's graph there as it is, who made it, and why.
//!
//! Told from the versions of the document, not from what the operations say, so an operation that changes nothing is
//! nobody's. When patches are taken back, a node is again whose it was before them. Blocks; one pass over the versions,
//! each derived from the one before it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use http::StatusCode;
use http::request::Parts;
use serde::Serialize;

use super::super::catalog::Catalog;
use super::super::ports::Overlay;
use super::super::request;
use super::super::respond::json;
use super::super::services::{Services, blocking};
use super::Answer;
use crate::compile::patch::{Item, diff};
use crate::model::patch::{Change, Layer, PatchId};
use crate::model::{RunId, Value};
use crate::time::Timestamp;
use crate::wire::problem::Problem;
use crate::wire::{Hash, Shown};

#[derive(Serialize)]
struct Shape {
    run_id: Shown<RunId>,
    graph_version: u32,
    base: String,
    nodes: Vec<Row>,
    edges: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    id: Arc<str>,
    /// `base`, or the patch's id.
    layer: String,
    /// Version of the graph from which on it is as it is.
    version: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    author: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    justification: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<Shown<Timestamp>>,
}

/// Who has changed what, oldest first; what is not in it is the base's.
#[derive(Default)]
struct Hands {
    nodes: BTreeMap<Arc<str>, Vec<usize>>,
    edges: BTreeMap<Arc<str>, Vec<usize>>,
}

/// `GET /v1/runs/{id}/blame`
pub(in crate::api) async fn blame(services: &Services, head: &Parts, run_id: RunId) -> Answer {
    request::require_accept(&head.headers, "application/json")?;
    let [] = request::parameters(head, [])?;
    let (location, runs) = (services.locate(run_id).await?, services.runs.clone());
    let catalog = services.catalog.clone();
    blocking(move || {
        let overlay = runs.overlay(&location)?;
        Ok(json(StatusCode::OK, &shape(&catalog, run_id, &overlay)?))
    })
    .await?
}

fn shape(catalog: &Catalog, run_id: RunId, (base, layers): &Overlay) -> Result<Shape, Box<Problem>> {
    let mut hands = Hands::default();
    let mut entry = catalog.with_layers(base, &[])?;
    for (at, layer) in layers.iter().enumerate() {
        let before = layers.get(..at).unwrap_or_default();
        let next = catalog.after(base, before, &layer.change, &layer.document)?;
        match &layer.change {
            Change::Patch(_) => {
                let diff = diff(&entry.compiled.document, &next.compiled.document);
                touch(&mut hands.nodes, &diff.nodes, at);
                touch(&mut hands.edges, &diff.edges, at);
            }
            Change::Revoked(revocation) => {
                let gone: BTreeSet<PatchId> = revocation.patch_ids.iter().copied().collect();
                let stays = |at: &usize| made(layers, *at).is_none_or(|patch_id| !gone.contains(&patch_id));
                let all = hands.nodes.values_mut().chain(hands.edges.values_mut());
                all.for_each(|hands| hands.retain(stays));
            }
        }
        entry = next;
    }
    let document = &entry.compiled.document;
    Ok(Shape {
        run_id: Shown(run_id),
        graph_version: u32::try_from(layers.len()).unwrap_or(u32::MAX).saturating_add(1),
        base: Hash(base).to_string(),
        nodes: rows(document.get("nodes"), &hands.nodes, layers),
        edges: rows(document.get("edges"), &hands.edges, layers),
    })
}

fn made(layers: &[Arc<Layer>], at: usize) -> Option<PatchId> {
    match &layers.get(at)?.change {
        Change::Patch(proposal) => Some(proposal.patch_id),
        Change::Revoked(_) => None,
    }
}

fn touch(hands: &mut BTreeMap<Arc<str>, Vec<usize>>, items: &[Item], at: usize) {
    for item in items {
        hands.entry(item.key.clone()).or_default().push(at);
    }
}

fn rows(members: Option<&Value>, hands: &BTreeMap<Arc<str>, Vec<usize>>, layers: &[Arc<Layer>]) -> Vec<Row> {
    let Some(Value::Map(members)) = members else { return Vec::new() };
    let row = |id: &Arc<str>| {
        let last = hands.get(id).and_then(|hands| hands.last().copied());
        let layer = last.and_then(|at| layers.get(at).map(|layer| (at, layer)));
        match layer.map(|(at, layer)| (at, layer, &layer.change)) {
            Some((at, layer, Change::Patch(proposal))) => Row {
                id: id.clone(),
                layer: proposal.patch_id.to_string(),
                version: u32::try_from(at).unwrap_or(u32::MAX).saturating_add(2),
                author: Some(proposal.author.clone()),
                justification: Some(proposal.justification.clone()).filter(|text| !text.is_empty()),
                at: Some(Shown(layer.at)),
            },
            _ => Row {
                id: id.clone(),
                layer: "base".into(),
                version: 1,
                author: None,
                justification: None,
                at: None,
            },
        }
    };
    members.iter().map(|(id, _)| row(id)).collect()
}
