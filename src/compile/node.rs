//! One node of a document: its kind, its settings, its common keys. Sugar that makes edges (`needs`, `on_error: {goto}`,
//! branches with `to`, `default`) is handed to the caller as [`Sugar`].

mod keys;
mod kinds;

use std::collections::BTreeSet;
use std::sync::Arc;

use super::document::Reading;
use super::fields::Fields;
use super::finding::{Findings, did_you_mean, quoted};
use crate::limits;
use crate::model::node::Node;
use crate::model::{Map, Value};

/// Edges that a node's own keys ask for.
#[derive(Default)]
pub(super) struct Sugar {
    /// (source, where it was said): on success.
    pub(super) needs: Vec<(Arc<str>, String)>,
    /// (target, on, where).
    pub(super) leads: Vec<(Arc<str>, Arc<str>, String)>,
    /// `default` of a conditional, as written.
    pub(super) default: Option<(Arc<str>, String)>,
}

/// Kinds with their aliases.
const KINDS: [(&str, &str); 16] = [
    ("function", "function"),
    ("map", "map"),
    ("join", "join"),
    ("parallel", "parallel"),
    ("conditional", "conditional"),
    ("loop", "loop"),
    ("composite", "composite"),
    ("human_review", "human_review"),
    ("approval", "human_review"),
    ("delay", "delay"),
    ("wait", "wait"),
    ("http", "http"),
    ("http_request", "http"),
    ("agent", "agent"),
    ("agent_task", "agent"),
    ("task", "task"),
];

const COMMON: [&str; 18] = [
    "type",
    "with",
    "input",
    "outputs",
    "output_schema",
    "timeout",
    "retry",
    "cache",
    "priority",
    "on_error",
    "fallback",
    "at_most_once",
    "needs",
    "tags",
    "metadata",
    "description",
    "id",
    "name",
];

pub(super) use keys::{DEFAULTS, is_tag, policy, retry, tags};

pub(super) fn canonical_kind(written: &str) -> Option<&'static str> {
    KINDS.iter().find(|(name, _)| *name == written).map(|(_, kind)| *kind)
}

/// Reads one node. `None` when there is a finding that leaves no node.
pub(super) fn read(value: &Value, at: String, id: &str, reading: &mut Reading<'_>) -> Option<(Node, Sugar)> {
    let fields = Fields::new(value, at, "a node", reading.findings)?;
    fields.only(&COMMON, "a node", reading.findings);
    let kind_name = kind_name(&fields, id, reading.findings)?;
    let mut sugar = Sugar::default();
    let kind = kinds::read(kind_name, &fields, id, &mut sugar, reading);
    let keys = keys::read(&fields, id, (kind_name, kind.as_ref()), reading);
    sugar.needs = fields.texts("needs", reading.findings);
    let continues = on_error(&fields, &mut sugar, reading.findings);
    let outputs = outputs(&fields, reading.findings);
    let rest = fields
        .iter()
        .filter(|(key, _)| {
            !matches!(
                &***key,
                "type"
                    | "with"
                    | "input"
                    | "outputs"
                    | "on_error"
                    | "needs"
                    | "id"
                    | "retry"
                    | "fallback"
                    | "output_schema"
                    | "at_most_once"
            )
        })
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    let input = fields.written("input");
    let own = |with: &Map| {
        with.iter().filter(|(key, _)| key.starts_with("x-")).map(|(k, v)| (k.clone(), v.clone())).collect()
    };
    let with_rest = match fields.get("with") {
        Some(Value::Map(with)) => own(with),
        _ => Vec::new(),
    };
    let node = Node {
        kind: kind?,
        input,
        outputs,
        continues,
        retry: keys.retry,
        timeout: keys.timeout,
        output_schema: keys.output_schema,
        fallback: keys.fallback,
        at_most_once: keys.at_most_once,
        priority: keys.priority,
        with_rest,
        rest,
        at: fields.at,
    };
    Some((node, sugar))
}

fn kind_name(fields: &Fields<'_>, id: &str, findings: &mut Findings) -> Option<&'static str> {
    let Some(value) = fields.get("type") else {
        findings.error("missing_key", fields.at.clone(), format!("node {} has no `type`", quoted(id)));
        return None;
    };
    let written = value.as_str().map(str::to_owned).unwrap_or_else(|| value.to_json());
    let kind = canonical_kind(&written);
    if kind.is_none() {
        let names = KINDS.iter().map(|(name, _)| *name);
        let help = did_you_mean(&written, names.clone())
            .unwrap_or_else(|| format!("known types: {}", names.collect::<Vec<_>>().join(", ")));
        let message = format!("node {} has the unknown type {}", quoted(id), quoted(&written));
        findings.error_with("unknown_kind", fields.at("type"), message, Some(help));
    }
    kind
}

/// Is it `continue`? `{goto: id}` becomes an edge.
fn on_error(fields: &Fields<'_>, sugar: &mut Sugar, findings: &mut Findings) -> bool {
    match fields.get("on_error") {
        Some(Value::Map(_)) => {
            let written = fields.get("on_error").unwrap_or(&Value::Null);
            let Some(inner) = Fields::new(written, fields.at("on_error"), "on_error", findings) else {
                return false;
            };
            inner.only(&["goto"], "on_error", findings);
            match inner.text("goto", findings) {
                Some(target) => sugar.leads.push((target, "error".into(), inner.at("goto"))),
                None if !inner.has("goto") => {
                    findings.error("missing_key", inner.at.clone(), "on_error has no `goto`");
                }
                None => {}
            }
            false
        }
        Some(_) => {
            fields.word("on_error", &["fail", "continue"], findings).is_some_and(|word| &*word == "continue")
        }
        None => false,
    }
}

fn outputs(fields: &Fields<'_>, findings: &mut Findings) -> Vec<Arc<str>> {
    let mut names: Vec<Arc<str>> = Vec::new();
    let mut seen = BTreeSet::new();
    for (name, at) in fields.texts("outputs", findings) {
        if name.is_empty() || name.len() > limits::KEY_BYTES_MAX {
            findings.error(
                "output_name",
                at,
                "the name of an output must have 1 to 1024 bytes (limit key_bytes_max)",
            );
        } else if !seen.insert(name.clone()) {
            findings.error("duplicate_output", at, format!("the output {} is named twice", quoted(&name)));
        } else {
            names.push(name);
        }
    }
    names
}
