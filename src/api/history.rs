//! What happened in a run: its timeline in pages, its graph with the state of every node.

use std::collections::BTreeMap;

use http::request::Parts;
use http::{Response, StatusCode};
use serde::Serialize;
use serde_json::value::RawValue;

use super::catalog::Entry;
use super::ports::{Location, Runs, StorageError};
use super::respond::{Body, json};
use super::services::{Services, unexpected};
use super::told::Told;
use super::transitions::{self, Wanted};
use super::{patches, request, waits};
use crate::engine::command::{Command, GraphView, Ir, NodeView, Refusal, Reply};
use crate::model::event::{DocumentHash, Waiting};
use crate::model::{EventBody, RunId, Seq, Value, kept};
use crate::wire::problem::Problem;
use crate::wire::run::{NodeWaiting, RunWaiting};
use crate::wire::{self, Hash, Shown, event::Row};
use std::sync::Arc;

type Answer = Result<Response<Body>, Box<Problem>>;

#[derive(Serialize)]
struct Timeline {
    events: Vec<Box<RawValue>>,
    next_cursor: Option<String>,
}

/// `GET /v1/runs/{id}/timeline`
pub(super) async fn timeline(services: &Services, head: &Parts, run_id: RunId) -> Answer {
    request::require_accept(&head.headers, "application/json")?;
    let known = ["after", "cursor", "limit", "edges", "summaries"];
    let [after, cursor, limit, edges, summaries] = request::parameters(head, known)?;
    let (edges, summaries) = (flag("edges", edges)?, flag("summaries", summaries)?);
    // Both are read, so that what is wrong in either is told.
    let (after, cursor) = (number(after)?, number(cursor)?);
    let after = cursor.or(after).unwrap_or(0);
    let limit = request::page_limit(limit.as_deref())?;
    let location = services.locate(run_id).await?;
    let runs = services.runs.clone();
    let last = location.summary.seq;
    let told = summaries.then(|| Told::of(services, run_id, &location.summary.workflow)).flatten();
    let wanted = Wanted { edges, summaries, told };
    let events: Vec<Box<RawValue>> = services
        .read(move || {
            let graph = runs.graph(&location)?;
            let events = runs.events(&location, after, limit)?;
            let graph = (graph.as_deref(), location.version > 1);
            let shown =
                |event| row(event, graph.0).map(|row| transitions::widened(row, event, graph, &wanted));
            Ok::<_, StorageError>(events.iter().filter_map(shown).collect())
        })
        .await?;
    let reached = after + events.len() as u64;
    let next_cursor = (!events.is_empty() && reached < last).then(|| reached.to_string());
    Ok(json(StatusCode::OK, &Timeline { events, next_cursor }))
}

fn flag(name: &str, text: Option<String>) -> Result<bool, Box<Problem>> {
    match text.as_deref() {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(_) => Err(Problem::new(400, "invalid_parameter", format!("{name} is true or false"))),
    }
}

fn row(event: &crate::model::Event, graph: Option<&Ir>) -> Option<Box<RawValue>> {
    let node = event.body.place().zip(graph).map(|(place, graph)| graph.path(place));
    let row = Row { seq: event.seq, at: event.at, node: node.as_deref(), body: &event.body };
    String::from_utf8(wire::to_json(&row)).ok().and_then(|text| RawValue::from_string(text).ok())
}

pub(super) fn seq(text: &str) -> Result<Seq, Box<Problem>> {
    text.parse().map_err(|_| {
        Problem::new(400, "invalid_cursor", format!("{text:?} is no event number; 0, 1, 2, ... is expected"))
    })
}

pub(super) fn number(text: Option<String>) -> Result<Option<Seq>, Box<Problem>> {
    text.map(|text| seq(&text)).transpose()
}

async fn document(services: &Services, hash: &DocumentHash) -> Result<Option<Arc<Entry>>, Box<Problem>> {
    if let Some(entry) = services.catalog.cached_hash(hash) {
        return Ok(Some(entry));
    }
    let (catalog, hash) = (services.catalog.clone(), *hash);
    services.read(move || catalog.load_hash(&hash)).await
}

#[derive(Serialize)]
struct Graph<'a> {
    run_id: Shown<RunId>,
    status: crate::model::Status,
    seq: Seq,
    version: u32,
    hash: Shown<Hash<'a>>,
    document: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    waiting: Option<RunWaiting>,
    nodes: BTreeMap<&'a str, NodeState<'a>>,
}

#[derive(Serialize)]
struct NodeState<'a> {
    state: &'a str,
    attempts: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    waiting_for: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    waiting: Option<NodeWaiting>,
    #[serde(skip_serializing_if = "Option::is_none")]
    priority: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    items: Option<Items>,
}

#[derive(Serialize)]
struct Items {
    done: u32,
    all: u32,
}

/// `GET /v1/runs/{id}/graph`
pub(super) async fn graph(services: &Services, head: &Parts, run_id: RunId) -> Answer {
    request::require_accept(&head.headers, "application/json")?;
    let view = match services.ask(run_id, Command::Graph(run_id)).await? {
        Reply::Graph(view) => *view,
        Reply::Refused(Refusal::NotFound(_)) => {
            let location = services.finished(run_id).await?;
            let (summary, document, version) =
                (location.summary.clone(), location.document, location.version);
            let runs = services.runs.clone();
            let nodes = services.read(move || {
                let graph = runs.graph(&location)?;
                graph.map(|graph| folded(&*runs, &location, &graph)).transpose()
            });
            let nodes = nodes.await?.unwrap_or_default();
            GraphView { summary, document, nodes, version, admission: None }
        }
        other => return Err(unexpected(other)),
    };
    let entry = if view.version == 1 {
        document(services, &view.document).await?
    } else {
        Some(patches::document(services, run_id, view.version).await?)
    };
    Ok(graph_body(services, &view, entry.as_deref()))
}

fn graph_body(services: &Services, view: &GraphView, entry: Option<&Entry>) -> Response<Body> {
    let waiting = waits::of_nodes(services, view);
    let nodes = view.nodes.iter().zip(waiting).map(|(node, waiting)| {
        let state = NodeState {
            state: node.state,
            attempts: node.attempts,
            waiting_for: node.waiting_for.as_deref(),
            priority: waiting.as_ref().map(|_| node.priority.as_str()),
            waiting,
            items: node.items.map(|(done, all)| Items { done, all }),
        };
        (&*node.path, state)
    });
    json(
        StatusCode::OK,
        &Graph {
            run_id: Shown(view.summary.run_id),
            status: view.summary.status,
            seq: view.summary.seq,
            version: view.version,
            hash: Shown(Hash(&view.document)),
            document: entry.map(|entry| &entry.compiled.document),
            waiting: waits::of_run(services, &view.summary, view.admission.as_ref()),
            nodes: nodes.collect(),
        },
    )
}

/// States of a finished run's outermost nodes, from its events. What had not ended when the run did was cancelled.
fn folded(runs: &dyn Runs, location: &Location, graph: &Ir) -> Result<Vec<NodeView>, StorageError> {
    let mut nodes: Vec<NodeView> = graph
        .root()
        .nodes
        .iter()
        .map(|node| NodeView {
            path: node.id.to_string(),
            state: if node.is_removed() { REMOVED } else { "pending" },
            attempts: 0,
            waiting_for: None,
            waits: None,
            priority: node.priority,
            items: None,
        })
        .collect();
    runs.each(location, &mut |body| {
        let place = body.place().filter(|place| place.scopes.is_empty());
        if let Some(node) = place.and_then(|place| nodes.get_mut(place.node as usize)) {
            fold_node(node, body);
        }
    })?;
    for node in &mut nodes {
        if matches!(node.state, "pending" | "running" | "waiting" | "retrying" | "uncertain") {
            node.state = "cancelled";
        }
    }
    nodes.retain(|node| node.state != REMOVED);
    Ok(nodes)
}

/// A patch took the node out: it is not shown.
const REMOVED: &str = "removed";

fn fold_node(node: &mut NodeView, body: &EventBody) {
    match body {
        EventBody::NodeStarted { attempt, .. } => {
            node.state = "running";
            node.attempts = *attempt;
        }
        EventBody::NodeWaiting { waiting, .. } => {
            node.state = "waiting";
            if let Waiting::Items { items } = waiting
                && let Some(count) = kept::items_of(items)
            {
                node.items = Some((0, u32::try_from(count).unwrap_or(u32::MAX)));
            }
        }
        EventBody::NodeCompleted { .. } => {
            node.state = "completed";
            node.items = node.items.map(|(_, all)| (all, all));
        }
        EventBody::NodeFailed { continued, .. } => {
            node.state = if *continued { "completed" } else { "failed" };
        }
        EventBody::NodeSkipped { .. } => node.state = "skipped",
        EventBody::NodeRetryScheduled { .. } => node.state = "retrying",
        EventBody::NodeLeased { .. } => node.state = "running",
        EventBody::NodeLost { .. } => node.state = "waiting",
        EventBody::NodeUncertain { .. } => node.state = "uncertain",
        _ => {}
    }
}
