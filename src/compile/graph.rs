//! Nodes and edges of one scope, from maps or arrays to a normalised [`Graph`]: sugar has become edges, every edge has
//! two ends, its `on` means something, and the edges stand in the order of their keys.
//!
//! # Branches of a conditional
//!
//! - A branch is called by its `name`, else by its `to`. `to` makes an edge `on: <branch>`.
//! - `default: X` names, in this order: a branch of that name; the branch that edges of this node with `on: X` make;
//!   the node X, and then it makes an edge to X with `on: X`.
//! - `on: default` stands for the branch that `default` names. Without a `default` (and without a branch of that name)
//!   it makes a default branch called `default`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::document::{Reading, id_fits};
use super::fields::{Fields, wrong};
use super::finding::{did_you_mean, quoted};
use super::node::{self, Sugar};
use super::pointer;
use crate::limits;
use crate::model::Value;
use crate::model::node::{Kind, Node};
use crate::model::workflow::{Edge, Graph, ON_SUCCESS};

/// The sugar of every node of a scope.
pub(super) type Sugars = BTreeMap<Arc<str>, Sugar>;

/// A body: one node, or `{nodes, edges, outputs?}`.
pub(super) fn read_body(value: &Value, at: String, reading: &mut Reading<'_>) -> Option<Graph> {
    if reading.depth >= limits::SCOPE_DEPTH_MAX {
        let message =
            format!("bodies nested deeper than {} (limit scope_depth_max)", limits::SCOPE_DEPTH_MAX);
        reading.findings.error("scope_depth_max", at, message);
        return None;
    }
    reading.depth += 1;
    let graph = body(value, at, reading);
    reading.depth -= 1;
    graph
}

fn body(value: &Value, at: String, reading: &mut Reading<'_>) -> Option<Graph> {
    let fields = Fields::new(value, at, "a body", reading.findings)?;
    if fields.has("nodes") {
        fields.only(&["nodes", "edges", "outputs"], "a body", reading.findings);
        let mut graph = read(&fields, reading)?;
        graph.outputs = fields.written("outputs");
        graph.rest = fields.own();
        return Some(graph);
    }
    if !reading.count_node(&fields.at) {
        return None;
    }
    let (node, sugar) = node::read(value, fields.at.clone(), "body", reading)?;
    for at in sugar.needs.iter().map(|(_, at)| at).chain(sugar.leads.iter().map(|(_, _, at)| at)) {
        reading.findings.error("body_edge", at.clone(), "a body that is one node has no edges");
    }
    if let Kind::Conditional { .. } = node.kind {
        reading.findings.error("body_edge", fields.at.clone(), "a conditional alone in a body leads nowhere");
        return None;
    }
    let nodes = BTreeMap::from([(Arc::from(""), node)]);
    Some(Graph { nodes, anonymous: true, ..Graph::default() })
}

/// `nodes` and `edges` of a scope.
pub(super) fn read(fields: &Fields<'_>, reading: &mut Reading<'_>) -> Option<Graph> {
    let mut sugars = Sugars::new();
    let mut graph = Graph { nodes: nodes(fields, &mut sugars, reading)?, ..Graph::default() };
    match fields.get("edges") {
        None | Some(Value::Null) => {}
        Some(Value::List(items)) => {
            for (index, item) in items.iter().enumerate() {
                let at = pointer::index(&fields.at("edges"), index);
                graph.edges.extend(edge(item, at, None, reading));
            }
        }
        Some(Value::Map(map)) => {
            let parent = fields.at("edges");
            for (key, item) in map.iter() {
                graph.edges.extend(edge(item, pointer::join(&parent, key), Some(key), reading));
            }
        }
        Some(other) => wrong(reading.findings, fields.at("edges"), "edges", "a list or a map", other),
    }
    normalise(&mut graph, sugars, reading);
    Some(graph)
}

fn nodes(
    fields: &Fields<'_>,
    sugars: &mut Sugars,
    reading: &mut Reading<'_>,
) -> Option<BTreeMap<Arc<str>, Node>> {
    let at = fields.at("nodes");
    let mut nodes = BTreeMap::new();
    match fields.get("nodes") {
        Some(Value::Map(map)) => {
            for (id, value) in map.iter() {
                add(&mut nodes, sugars, (id.clone(), value, pointer::join(&at, id)), reading);
            }
        }
        Some(Value::List(items)) => {
            for (index, value) in items.iter().enumerate() {
                let at = pointer::index(&at, index);
                match value.get("id") {
                    Some(Value::String(id)) if nodes.contains_key(id) => {
                        let message = format!("a second node {}", quoted(id));
                        reading.findings.error("duplicate_node", pointer::join(&at, "id"), message);
                    }
                    Some(Value::String(id)) => add(&mut nodes, sugars, (id.clone(), value, at), reading),
                    Some(other) => wrong(reading.findings, pointer::join(&at, "id"), "id", "text", other),
                    None => reading.findings.error("missing_key", at, "a node in a list needs an `id`"),
                }
            }
        }
        Some(other) => {
            wrong(reading.findings, at, "nodes", "a map or a list", other);
            return None;
        }
        None => {
            reading.findings.error("missing_key", fields.at.clone(), "there are no `nodes`");
            return None;
        }
    }
    if nodes.is_empty() && reading.findings.errors.is_empty() {
        reading.findings.error("empty_nodes", at, "there must be at least one node");
    }
    (!nodes.is_empty()).then_some(nodes)
}

fn add(
    nodes: &mut BTreeMap<Arc<str>, Node>,
    sugars: &mut Sugars,
    (id, value, at): (Arc<str>, &Value, String),
    reading: &mut Reading<'_>,
) {
    if !reading.count_node(&at) {
        return;
    }
    id_fits(&id, &at, reading.findings);
    match value.get("id") {
        Some(Value::String(inner)) if *inner != id => {
            let message = format!("the node {} says its id is {}", quoted(&id), quoted(inner));
            reading.findings.error("node_id", pointer::join(&at, "id"), message);
        }
        _ => {}
    }
    if let Some((node, sugar)) = node::read(value, at.clone(), &id, reading) {
        nodes.insert(id.clone(), node);
        sugars.insert(id, sugar);
    } else {
        // Something must stand for it, or everything that names it would be reported too.
        nodes.insert(id, broken(at));
    }
}

/// Stands for a node that has been reported.
pub(super) fn broken(at: String) -> Node {
    let kind = Kind::Function { expr: None };
    Node {
        kind,
        input: None,
        outputs: Vec::new(),
        continues: false,
        retry: None,
        timeout: None,
        output_schema: None,
        fallback: None,
        at_most_once: false,
        priority: None,
        with_rest: Vec::new(),
        rest: Vec::new(),
        at,
    }
}

fn edge(value: &Value, at: String, key: Option<&Arc<str>>, reading: &mut Reading<'_>) -> Option<Edge> {
    if !reading.count_edge(&at) {
        return None;
    }
    let fields = Fields::new(value, at, "an edge", reading.findings)?;
    fields.only(&["from", "to", "on", "when", "metadata"], "an edge", reading.findings);
    let mut ends = (fields.text("from", reading.findings), fields.text("to", reading.findings));
    let mut on = fields.text("on", reading.findings);
    if let Some(key) = key {
        let (pair, label) = match key.split_once(':') {
            Some((pair, label)) => (pair, Some(label)),
            None => (&**key, None),
        };
        if let Some((from, to)) = pair.split_once('/') {
            ends.0 = ends.0.or_else(|| (!fields.has("from")).then(|| from.into()));
            ends.1 = ends.1.or_else(|| (!fields.has("to")).then(|| to.into()));
        }
        if !fields.has("on") {
            on = label.map(Arc::from);
        }
    }
    for (name, end) in [("from", &ends.0), ("to", &ends.1)] {
        if end.is_none() && !fields.has(name) {
            reading.findings.error("missing_key", fields.at.clone(), format!("an edge has no `{name}`"));
        }
    }
    let when = fields.cel("when", reading.findings);
    let on = on.unwrap_or_else(|| ON_SUCCESS.into());
    let mut rest = fields.own();
    rest.extend(fields.get("metadata").map(|metadata| ("metadata".into(), metadata.clone())));
    let edge = Edge { from: ends.0?, to: ends.1?, on, when, rest, at: fields.at };
    if let Some(key) = key
        && edge.key() != **key
    {
        let message = format!("the edge under {} is {}", quoted(key), quoted(&edge.key()));
        reading.findings.error("edge_key", edge.at.clone(), message);
    }
    Some(edge)
}

/// Turns sugar into edges, checks every end and every `on`, and sorts.
pub(super) fn normalise(graph: &mut Graph, sugars: Sugars, reading: &mut Reading<'_>) {
    ends(graph, reading);
    let written: Vec<usize> = (0..graph.edges.len()).collect();
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    // Edges by source with `on`, for the rules on branches.
    let mut labels: BTreeMap<Arc<str>, BTreeSet<Arc<str>>> = BTreeMap::new();
    for edge in &graph.edges {
        labels.entry(edge.from.clone()).or_default().insert(edge.on.clone());
    }
    let mut made: Vec<Edge> = Vec::new();
    for (id, sugar) in sugars {
        let make = |from: &Arc<str>, to: &Arc<str>, on: Arc<str>, at: String| Edge {
            from: from.clone(),
            to: to.clone(),
            on,
            when: None,
            rest: Vec::new(),
            at,
        };
        made.extend(sugar.needs.iter().map(|(from, at)| make(from, &id, ON_SUCCESS.into(), at.clone())));
        made.extend(sugar.leads.iter().map(|(to, on, at)| make(&id, to, on.clone(), at.clone())));
        let empty = BTreeSet::new();
        let lead = default(graph, &id, sugar.default, labels.get(&id).unwrap_or(&empty), reading);
        made.extend(lead.map(|(to, at)| make(&id, &to, to.clone(), at)));
    }
    for edge in &mut graph.edges {
        if &*edge.on == "default"
            && let Some(Node { kind: Kind::Conditional { branches, default: Some(name) }, .. }) =
                graph.nodes.get(&edge.from)
            && !branches.iter().any(|branch| &*branch.name == "default")
        {
            edge.on = name.clone();
        }
    }
    let mut kept = Vec::with_capacity(graph.edges.len());
    for (index, edge) in written.into_iter().zip(std::mem::take(&mut graph.edges)) {
        let key = edge.key();
        if seen.insert(key.clone(), index).is_some() {
            reading.findings.error("duplicate_edge", edge.at, format!("a second edge {key}"));
        } else {
            kept.push(edge);
        }
    }
    graph.edges = made;
    ends(graph, reading);
    for edge in std::mem::take(&mut graph.edges) {
        // What sugar asks for may stand there already.
        if !seen.contains_key(&edge.key()) && reading.count_edge(&edge.at) {
            seen.insert(edge.key(), usize::MAX);
            kept.push(edge);
        }
    }
    kept.retain(|edge| means_something(graph, edge, reading));
    kept.sort_by_cached_key(Edge::key);
    graph.edges = kept;
}

/// Drops edges whose ends are not there or are the same, with a finding.
fn ends(graph: &mut Graph, reading: &mut Reading<'_>) {
    let nodes = &graph.nodes;
    graph.edges.retain(|edge| {
        let mut whole = true;
        for (name, end) in [("from", &edge.from), ("to", &edge.to)] {
            if !nodes.contains_key(end) {
                let room = reading.findings.has_room();
                let help = if room { did_you_mean(end, nodes.keys().map(|id| &**id)) } else { None };
                let message =
                    format!("the edge {} names the node {}, which is not there", edge.key(), quoted(end));
                let at = reading.end_of(&edge.at, name);
                reading.findings.error_with("dangling_edge", at, message, help);
                whole = false;
            }
        }
        if whole && edge.from == edge.to {
            let message = format!("the edge {} leads from a node to itself", edge.key());
            reading.findings.error("self_edge", edge.at.clone(), message);
            whole = false;
        }
        whole
    });
}

/// Settles the name of a conditional's default branch; gives the node that it leads to, when that is sugar.
fn default(
    graph: &mut Graph,
    id: &Arc<str>,
    written: Option<(Arc<str>, String)>,
    labels: &BTreeSet<Arc<str>>,
    reading: &mut Reading<'_>,
) -> Option<(Arc<str>, String)> {
    let nodes: Vec<Arc<str>> = match &written {
        Some((name, _)) => graph.nodes.get_key_value(name).map(|(id, _)| id.clone()).into_iter().collect(),
        None => Vec::new(),
    };
    let help = match &written {
        Some((name, _)) if nodes.is_empty() && reading.findings.has_room() => {
            did_you_mean(name, graph.nodes.keys().map(|id| &**id))
        }
        _ => None,
    };
    let Some(Node { kind: Kind::Conditional { branches, default }, .. }) = graph.nodes.get_mut(id) else {
        return None;
    };
    let declared = |name: &str| branches.iter().any(|branch| &*branch.name == name);
    match written {
        None => {
            if labels.contains("default") && !declared("default") {
                *default = Some("default".into());
            }
            None
        }
        Some((name, at)) => {
            *default = Some(name.clone());
            if declared(&name) || labels.contains(&name) {
                return None;
            }
            if nodes.is_empty() {
                let message =
                    format!("default names {}, which is neither a branch nor a node", quoted(&name));
                reading.findings.error_with("unknown_branch", at, message, help);
                return None;
            }
            Some((name, at))
        }
    }
}

/// Does `on` name an end that the source can have?
fn means_something(graph: &Graph, edge: &Edge, reading: &mut Reading<'_>) -> bool {
    let Some(source) = graph.nodes.get(&edge.from) else { return false };
    let mut known = vec![ON_SUCCESS, "error", "timeout"];
    match &source.kind {
        Kind::Conditional { branches, default } => {
            known.extend(branches.iter().map(|branch| &*branch.name));
            known.extend(default.as_deref());
        }
        Kind::HumanReview { .. } => known.extend(["approved", "rejected"]),
        _ => {}
    }
    if known.contains(&&*edge.on) {
        return true;
    }
    let message = format!(
        "the edge {} waits for {}, but {} (a {}) can only end in {}",
        edge.key(),
        quoted(&edge.on),
        quoted(&edge.from),
        source.kind.name(),
        known.get(..known.len().min(20)).unwrap_or_default().join(", ")
    );
    let at = reading.end_of(&edge.at, "on");
    let room = reading.findings.has_room();
    let help = if room { did_you_mean(&edge.on, known.iter().copied()) } else { None };
    reading.findings.error_with("unknown_branch", at, message, help);
    false
}
