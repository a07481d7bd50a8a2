//! What an event did to the edges behind its node (F345), and its summary (F340): more of a row of the timeline, for whoever asks.
//!
//! Verdicts stand in the event of a node's end, one for each edge that leads from it, in the order of the graph in force then;
//! nothing is evaluated here. In a run whose graph was patched the order may have changed since, so the names of edges are left
//! out there; the verdicts are told all the same.

use serde::Serialize;
use serde_json::value::RawValue;

use super::told::Told;
use crate::engine::command::Ir;
use crate::model::{Event, EventBody};
use crate::wire::summary;

/// Which members are asked for.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    /// `edges`
    pub(super) edges: bool,
    /// `summary`
    pub(super) summaries: bool,
    /// Where a model's summaries are, when the node has a model for them.
    pub(super) told: Option<Told>,
}

/// An edge that has settled.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Edge<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    on: Option<&'a str>,
    live: bool,
}

/// The row with what is wanted beside; as it was when nothing is.
pub(super) fn widened(
    row: Box<RawValue>,
    event: &Event,
    (graph, patched): (Option<&Ir>, bool),
    wanted: &Wanted,
) -> Box<RawValue> {
    let mut more: Vec<(&str, String)> = Vec::new();
    if wanted.summaries {
        let by_rule = || summary::of(&serde_json::from_str(row.get()).unwrap_or_default());
        let told = wanted.told.as_ref().and_then(|told| told.summary(event.seq, &row));
        more.push(("summary", serde_json::Value::from(told.unwrap_or_else(by_rule)).to_string()));
    }
    if wanted.edges
        && let Some(edges) = settled(event, graph.filter(|_| !patched))
        && let Ok(text) = serde_json::to_string(&edges)
    {
        more.push(("edges", text));
    }
    let Some(open) = row.get().strip_suffix('}').filter(|_| !more.is_empty()) else { return row };
    let more: String = more.iter().map(|(name, value)| format!(",\"{name}\":{value}")).collect();
    RawValue::from_string(format!("{open}{more}}}")).unwrap_or(row)
}

/// What became of the edges; `None`: the event is no node's end, or no edge leads on.
fn settled<'g>(event: &Event, graph: Option<&'g Ir>) -> Option<Vec<Edge<'g>>> {
    let found = event.body.place().zip(graph).and_then(|(place, graph)| graph.at(place));
    let outgoing = found.map(|(_, node)| node.outgoing.as_slice()).unwrap_or_default();
    let verdicts: Vec<bool> = match &event.body {
        EventBody::NodeCompleted { edges, .. } | EventBody::NodeFailed { edges, .. } => edges.to_vec(),
        // Its edges die with it.
        EventBody::NodeSkipped { .. } => vec![false; outgoing.len()],
        _ => return None,
    };
    let edge = |(at, live): (usize, &bool)| {
        let known = found.zip(outgoing.get(at)).and_then(|((scope, _), edge)| {
            let edge = scope.edges.get(*edge as usize)?;
            Some((&*scope.nodes.get(edge.to as usize)?.id, edge.on.as_str()))
        });
        Edge { to: known.map(|(to, _)| to), on: known.map(|(_, on)| on), live: *live }
    };
    (!verdicts.is_empty()).then(|| verdicts.iter().enumerate().map(edge).collect())
}

#[cfg(test)]
#[path = "transitions_tests.rs"]
mod tests;
