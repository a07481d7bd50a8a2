//! The spelling with `steps`: each step is a node, `next_steps` are its edges. Without any `next_steps` the steps run
//! in the order of the list.
//!
//! - `conditional`: the first next step when its condition holds, the second when it does not.
//! - `parallel`: its next steps are its branches, each a step by itself; what they lead to, the same for all, comes after it.
//! - `loop`: `condition` is its `while`; its body is `with.body`.
//! - `human_review`: `task` is what the reviewers are shown.

mod parallel;

use std::collections::BTreeMap;
use std::sync::Arc;

use super::document::{Reading, id_fits};
use super::fields::{Fields, wrong};
use super::finding::{did_you_mean, quoted};
use super::graph::{self, Sugars};
use super::{node, pointer};
use crate::model::Value;
use crate::model::node::{Branch, Kind, Node};
use crate::model::workflow::{Edge, Graph, ON_SUCCESS, Written};

const KNOWN: [&str; 18] = [
    "id",
    "type",
    "agent_role",
    "task",
    "inputs",
    "outputs",
    "next_steps",
    "retry_policy",
    "condition",
    "with",
    "timeout",
    "input",
    "on_error",
    "name",
    "description",
    "metadata",
    "tags",
    "max_iterations",
];

/// Steps to a graph.
pub(super) fn read(fields: &Fields<'_>, reading: &mut Reading<'_>) -> Option<Graph> {
    let at = fields.at("steps");
    let Some(Value::List(items)) = fields.get("steps") else {
        wrong(reading.findings, at, "steps", "a list", fields.get("steps").unwrap_or(&Value::Null));
        return None;
    };
    if items.is_empty() {
        reading.findings.error("empty_nodes", at, "there must be at least one step");
        return None;
    }
    let listed = !items.iter().any(|item| item.get("next_steps").is_some());
    let mut graph = Graph::default();
    let mut sugars = Sugars::new();
    let mut previous: Option<Arc<str>> = None;
    let mut parallels = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let at = pointer::index(&at, index);
        if !reading.count_node(&at) {
            return None;
        }
        let Some(step) = Fields::new(item, at, "a step", reading.findings) else { continue };
        step.only(&KNOWN, "a step", reading.findings);
        let Some(id) = step.text("id", reading.findings) else {
            if !step.has("id") {
                reading.findings.error("missing_key", step.at.clone(), "a step needs an `id`");
            }
            continue;
        };
        id_fits(&id, &step.at("id"), reading.findings);
        if graph.nodes.contains_key(&id) {
            reading.findings.error("duplicate_node", step.at("id"), format!("a second step {}", quoted(&id)));
            continue;
        }
        let next = step.texts("next_steps", reading.findings);
        let (node, mut sugar) = one(&step, &id, reading);
        if parallel::is_one(&step) {
            parallels.push((id.clone(), next));
            graph.nodes.insert(id.clone(), node);
            sugars.insert(id, sugar);
            continue;
        }
        let labels: Vec<Arc<str>> = match &node.kind {
            Kind::Conditional { .. } if !listed => vec!["yes".into(), "no".into()],
            _ => Vec::new(),
        };
        for (position, (to, at)) in next.into_iter().enumerate() {
            let on = labels.get(position).cloned().unwrap_or_else(|| ON_SUCCESS.into());
            sugar.leads.push((to, on, at));
        }
        if let Some(from) = previous.replace(id.clone()).filter(|_| listed) {
            graph.edges.push(after(from, &id, &step));
        }
        graph.nodes.insert(id.clone(), node);
        sugars.insert(id, sugar);
    }
    if graph.nodes.is_empty() {
        return None;
    }
    for (id, branches) in parallels {
        parallel::gather(&mut graph, &mut sugars, (id, branches), reading);
    }
    graph::normalise(&mut graph, sugars, reading);
    Some(graph)
}

/// In a list without `next_steps` each step leads to the one behind it.
fn after(from: Arc<str>, id: &Arc<str>, step: &Fields<'_>) -> Edge {
    let (to, at) = (id.clone(), step.at.clone());
    Edge { from, to, on: ON_SUCCESS.into(), when: None, rest: Vec::new(), at }
}

/// Reads one step as the node that it means.
fn one(step: &Fields<'_>, id: &Arc<str>, reading: &mut Reading<'_>) -> (Node, node::Sugar) {
    let kind = match step.get("type").and_then(Value::as_str).and_then(node::canonical_kind) {
        Some("conditional") => return (conditional(step, id, reading), node::Sugar::default()),
        kind => kind,
    };
    let mut with: BTreeMap<Arc<str>, Value> = BTreeMap::new();
    if let Some(Value::Map(map)) = step.get("with") {
        with.extend(map.iter().map(|(key, value)| (key.clone(), value.clone())));
    }
    let moved: &[(&str, &str)] = match kind {
        Some("agent") => &[("agent_role", "role"), ("task", "task")],
        Some("loop") => &[("condition", "while"), ("max_iterations", "max_iterations")],
        _ => &[],
    };
    with.extend(moved.iter().filter_map(|(from, to)| Some(((*to).into(), step.get(from)?.clone()))));
    if let (Some("human_review"), Some(task)) = (kind, step.get("task")) {
        with.entry("data".into()).or_insert_with(|| Value::map([("task", task.clone())]));
    }
    let kept = ["type", "outputs", "timeout", "input", "on_error", "metadata", "description", "name", "tags"];
    let mut entries: Vec<(Arc<str>, Value)> =
        kept.iter().filter_map(|key| Some((Arc::from(*key), step.get(key)?.clone()))).collect();
    if parallel::is_one(step) {
        // Its branches are steps of their own; they are put into it when all steps are read.
        entries.retain(|(key, _)| &**key != "type");
        entries.push(("type".into(), "function".into()));
    }
    if !with.is_empty() {
        entries.push(("with".into(), Value::map(with)));
    }
    if let Some(inputs) = step.get("inputs") {
        entries.push(("input".into(), inputs.clone()));
    }
    entries.extend(retry(step, reading).map(|retry| ("retry".into(), retry)));
    match node::read(&Value::map(entries), step.at.clone(), id, reading) {
        Some(read) => read,
        None => (graph::broken(step.at.clone()), node::Sugar::default()),
    }
}

/// `condition`: true leads to the first next step, false to the second.
fn conditional(step: &Fields<'_>, id: &str, reading: &mut Reading<'_>) -> Node {
    let mut node = graph::broken(step.at.clone());
    node::tags(step, (id, "conditional"), reading.findings);
    if step.get("condition").and_then(Value::as_str).is_some_and(|text| text.starts_with("lambda")) {
        let message = format!("step {}: a condition is a CEL expression, not a function", quoted(id));
        let help = Some("for example: outputs.draft == null".into());
        reading.findings.error_with("expression_syntax", step.at("condition"), message, help);
        return node;
    }
    let Some(Written { value, at }) = step.cel("condition", reading.findings) else {
        if !step.has("condition") {
            let message = format!("step {} has no `condition`", quoted(id));
            let help = did_you_mean("condition", step.iter().map(|(key, _)| &**key));
            reading.findings.error_with("missing_key", step.at.clone(), message, help);
        }
        return node;
    };
    let otherwise = Written { value: "true".into(), at: at.clone() };
    let branches = vec![
        Branch { name: "yes".into(), when: Written { value, at }, rest: Vec::new() },
        Branch { name: "no".into(), when: otherwise, rest: Vec::new() },
    ];
    node.kind = Kind::Conditional { branches, default: None };
    node
}

/// `retry_policy`: `max_retries: n` is n calls after the first. In the words of the language.
fn retry(step: &Fields<'_>, reading: &mut Reading<'_>) -> Option<Value> {
    let value = step.get("retry_policy")?;
    let policy = node::policy(value, step.at("retry_policy"), reading.findings)?;
    Some(policy.written)
}
