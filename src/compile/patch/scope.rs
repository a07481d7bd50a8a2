//! A canonical document as scopes: its own nodes and edges, and those of every body in them.

use std::collections::BTreeMap;

use crate::compile::pointer;
use crate::model::Value;
use crate::model::workflow::ON_SUCCESS;

/// One scope.
#[derive(Debug, Default)]
pub(in crate::compile) struct Scope<'d> {
    /// By id; the only node of a body that is one node stands under the empty id.
    pub(in crate::compile) nodes: BTreeMap<&'d str, &'d Value>,
    pub(in crate::compile) edges: Vec<Edge<'d>>,
}

/// One edge.
#[derive(Clone, Copy, Debug)]
pub(in crate::compile) struct Edge<'d> {
    pub(in crate::compile) key: &'d str,
    pub(in crate::compile) from: &'d str,
    pub(in crate::compile) to: &'d str,
    pub(in crate::compile) on: &'d str,
    pub(in crate::compile) when: Option<&'d Value>,
}

impl<'d> Scope<'d> {
    /// Of the document, or of a body.
    pub(in crate::compile) fn of(value: &'d Value) -> Self {
        let Some(nodes) = value.get("nodes") else {
            return Self { nodes: BTreeMap::from([("", value)]), edges: Vec::new() };
        };
        let edges = members(value.get("edges")).filter_map(|(key, edge)| {
            let text = |key| edge.get(key).and_then(Value::as_str);
            let on = text("on").unwrap_or(ON_SUCCESS);
            Some(Edge { key, from: text("from")?, to: text("to")?, on, when: edge.get("when") })
        });
        Self { nodes: members(Some(nodes)).collect(), edges: edges.collect() }
    }
}

/// Members of a map.
pub(super) fn members(value: Option<&Value>) -> impl Iterator<Item = (&str, &Value)> {
    let map = match value {
        Some(Value::Map(map)) => Some(map),
        _ => None,
    };
    map.into_iter().flat_map(|map| map.iter()).map(|(key, value)| (&**key, value))
}

/// The kind of a node.
pub(in crate::compile) fn kind(node: &Value) -> &str {
    node.get("type").and_then(Value::as_str).unwrap_or_default()
}

/// The bodies of a node, each with the pointer to it from the node.
pub(super) fn bodies(node: &Value) -> Vec<(String, &Value)> {
    let with = |key: &str| node.get("with").and_then(|with| with.get(key));
    let mut bodies: Vec<(String, &Value)> = match kind(node) {
        "map" | "loop" | "composite" => {
            with("body").map(|body| ("/with/body".into(), body)).into_iter().collect()
        }
        "parallel" => members(with("branches"))
            .map(|(name, body)| (pointer::join("/with/branches", name), body))
            .collect(),
        _ => Vec::new(),
    };
    let is_body = |value: &&Value| value.get("type").is_some() || value.get("nodes").is_some();
    bodies.extend(node.get("fallback").filter(is_body).map(|body| ("/fallback".into(), body)));
    bodies
}

/// Nodes in a node that `counts` holds for: itself and those of its bodies.
pub(super) fn count(node: &Value, counts: &impl Fn(&Value) -> bool) -> usize {
    let inner = bodies(node).into_iter().flat_map(|(_, body)| Scope::of(body).nodes.into_values());
    usize::from(counts(node)) + inner.map(|node| count(node, counts)).sum::<usize>()
}

/// Is there a node, in the document or in a body, that this holds for? Asked before anything that notes where nodes stand.
pub(super) fn any(value: &Value, holds: &impl Fn(&Value) -> bool) -> bool {
    let within = |node: &Value| holds(node) || bodies(node).into_iter().any(|(_, body)| any(body, holds));
    match value.get("nodes") {
        Some(nodes) => members(Some(nodes)).any(|(_, node)| within(node)),
        None => within(value),
    }
}

/// Every node of a document and of its bodies, with its path: `/pay`, `/each/with/body/nodes/pay`.
pub(in crate::compile) fn each(value: &Value, seen: &mut impl FnMut(&str, &Value)) {
    walk(value, "", seen);
}

fn walk(value: &Value, at: &str, seen: &mut impl FnMut(&str, &Value)) {
    for (id, node) in &Scope::of(value).nodes {
        let at = if id.is_empty() { at.to_owned() } else { pointer::join(&format!("{at}/nodes"), id) };
        seen(&at, node);
        for (slot, body) in bodies(node) {
            walk(body, &format!("{at}{slot}"), seen);
        }
    }
}
