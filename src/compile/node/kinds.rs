//! `with` of each kind.

mod bodies;
mod review;

use std::sync::Arc;

use super::Sugar;
use crate::compile::document::{Reading, is_id};
use crate::compile::fields::{Fields, wrong};
use crate::compile::finding::{Findings, quoted};
use crate::compile::{agents, graph, pointer};
use crate::limits;
use crate::model::node::{Branch, Kind, Merge, Wait};
use crate::model::workflow::Written;
use crate::model::{Map, Value};

/// Keys of `with`, by kind.
fn known(kind: &str) -> &'static [&'static str] {
    match kind {
        "function" => &["expr", "wasm", "export"],
        "map" => &["over", "body", "max_concurrency", "on_item_error"],
        "join" => &["wait", "merge"],
        "parallel" => &["branches", "results"],
        "conditional" => &["branches", "default"],
        "loop" => &["while", "body", "max_iterations", "on_exhausted"],
        "composite" => &["body", "workflow", "parent_close"],
        "human_review" => {
            &["reviewers", "timeout", "escalate", "on_timeout", "form", "data", "reason", "policy"]
        }
        "delay" => &["for", "until"],
        "wait" => &["signal", "timeout", "accepts", "reply"],
        "http" => &["method", "url", "query", "headers", "body", "expect", "service"],
        "agent" => &agents::WITH,
        _ => &["queue", "payload"],
    }
}

/// Reads the settings of a node of a canonical kind.
pub(super) fn read(
    kind: &'static str,
    node: &Fields<'_>,
    id: &str,
    sugar: &mut Sugar,
    reading: &mut Reading<'_>,
) -> Option<Kind> {
    let nothing = Value::Map(Arc::new(Map::default()));
    let value = node.get("with").unwrap_or(&nothing);
    let with = Fields::new(value, node.at("with"), "`with`", reading.findings)?;
    with.only(known(kind), &format!("`with` of a {kind}"), reading.findings);
    match kind {
        "function" if with.has("wasm") || with.has("export") => {
            let message = format!("node {}: WASM in a function is not supported yet", quoted(id));
            reading.findings.unavailable("key_not_available", with.at("wasm"), message);
            Some(Kind::Other { name: kind, with: Written { value: value.clone(), at: with.at } })
        }
        "function" => function(&with, reading.findings),
        "map" => map(&with, id, reading),
        "join" => Some(join(&with, reading.findings)),
        "conditional" => conditional(&with, id, sugar, reading.findings),
        "delay" => delay(&with, id, reading.findings),
        "wait" => wait(&with, id, reading.findings),
        "parallel" => bodies::parallel(&with, id, reading),
        "loop" => bodies::repeat(&with, id, reading),
        "composite" => bodies::composite(&with, id, reading),
        "human_review" => review::read(&with, reading),
        name => {
            call(name, &with, reading.findings);
            Some(Kind::Call { name, with: Written { value: value.clone(), at: with.at } })
        }
    }
}

fn missing(with: &Fields<'_>, id: &str, key: &str, findings: &mut Findings) {
    if !with.has(key) {
        findings.error("missing_key", with.at.clone(), format!("node {} has no `with.{key}`", quoted(id)));
    }
}

fn function(with: &Fields<'_>, findings: &mut Findings) -> Option<Kind> {
    let expr = with.cel("expr", findings);
    (expr.is_some() || !with.has("expr")).then_some(Kind::Function { expr })
}

fn map(with: &Fields<'_>, id: &str, reading: &mut Reading<'_>) -> Option<Kind> {
    missing(with, id, "over", reading.findings);
    missing(with, id, "body", reading.findings);
    let items = u32::try_from(limits::MAP_ITEMS_MAX).unwrap_or(u32::MAX);
    let max_concurrency = with.number("max_concurrency", 1, items, reading.findings);
    let on_item_error = with.word("on_item_error", &["fail", "collect", "skip"], reading.findings);
    let over = with.cel("over", reading.findings);
    let body = with.get("body").and_then(|body| graph::read_body(body, with.at("body"), reading));
    Some(Kind::Map { over: over?, body: Box::new(body?), max_concurrency, on_item_error })
}

fn join(with: &Fields<'_>, findings: &mut Findings) -> Kind {
    let wait = match with.get("wait") {
        Some(value @ Value::Map(_)) => {
            Fields::new(value, with.at("wait"), "wait", findings).and_then(|wait| {
                wait.only(&["at_least"], "wait", findings);
                let edges = u32::try_from(limits::EDGES_MAX).unwrap_or(u32::MAX);
                wait.number("at_least", 1, edges, findings).map(Wait::AtLeast)
            })
        }
        Some(_) => with.word("wait", &["all", "any"], findings).map(|word| match &*word {
            "any" => Wait::Any,
            _ => Wait::All,
        }),
        None => None,
    };
    let merge = match with.get("merge") {
        Some(value @ Value::Map(_)) => {
            Fields::new(value, with.at("merge"), "merge", findings).and_then(|merge| {
                merge.only(&["cel"], "merge", findings);
                if !merge.has("cel") {
                    findings.error("missing_key", merge.at.clone(), "merge has no `cel`");
                }
                merge.cel("cel", findings).map(Merge::Cel)
            })
        }
        Some(_) => with.word("merge", &["object", "array"], findings).map(|word| match &*word {
            "array" => Merge::Array,
            _ => Merge::Object,
        }),
        None => None,
    };
    Kind::Join { wait, merge }
}

fn conditional(with: &Fields<'_>, id: &str, sugar: &mut Sugar, findings: &mut Findings) -> Option<Kind> {
    missing(with, id, "branches", findings);
    let items = match with.get("branches")? {
        Value::List(items) => items,
        other => {
            wrong(findings, with.at("branches"), "branches", "a list", other);
            return None;
        }
    };
    if items.len() > limits::BRANCHES_MAX {
        let message = format!(
            "{} branches; at most {} are allowed (limit branches_max)",
            items.len(),
            limits::BRANCHES_MAX
        );
        findings.error("branches_max", with.at("branches"), message);
        return None;
    }
    let mut branches: Vec<Branch> = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let at = pointer::index(&with.at("branches"), index);
        let Some(fields) = Fields::new(item, at, "a branch", findings) else { continue };
        if let Some(branch) = branch(&fields, sugar, findings) {
            if branches.iter().any(|other| other.name == branch.name) {
                let message = format!("a second branch {}", quoted(&branch.name));
                let help = Some("give each branch a `name` of its own".into());
                findings.error_with("duplicate_branch", fields.at.clone(), message, help);
            } else {
                branches.push(branch);
            }
        }
    }
    if let Some(name) = with.text("default", findings) {
        branch_name(&name, with.at("default"), findings);
        sugar.default = Some((name, with.at("default")));
    }
    Some(Kind::Conditional { branches, default: None })
}

fn branch(fields: &Fields<'_>, sugar: &mut Sugar, findings: &mut Findings) -> Option<Branch> {
    fields.only(&["name", "when", "to"], "a branch", findings);
    let to = fields.text("to", findings);
    let name = fields.text("name", findings).or_else(|| to.clone());
    if !fields.has("when") {
        findings.error("missing_key", fields.at.clone(), "a branch has no `when`");
    }
    let when = fields.cel("when", findings);
    let Some(name) = name else {
        if !fields.has("name") && !fields.has("to") {
            findings.error("missing_key", fields.at.clone(), "a branch needs a `name` or a `to`");
        }
        return None;
    };
    branch_name(&name, fields.at.clone(), findings);
    if let Some(to) = to {
        sugar.leads.push((to, name.clone(), fields.at("to")));
    }
    Some(Branch { name, when: when?, rest: fields.own() })
}

fn branch_name(name: &str, at: String, findings: &mut Findings) {
    if matches!(name, "success" | "error" | "timeout") {
        findings.error(
            "branch_name",
            at,
            format!("a branch cannot be called {name:?}: `on: {name}` has a meaning"),
        );
    } else if !is_id(name) {
        let message = format!(
            "the branch name {} does not fit [A-Za-z0-9_-]{{1,{}}} (limit node_id_bytes_max)",
            quoted(name),
            limits::NODE_ID_BYTES_MAX
        );
        findings.error("branch_name", at, message);
    }
}

fn delay(with: &Fields<'_>, id: &str, findings: &mut Findings) -> Option<Kind> {
    if with.has("for") == with.has("until") {
        let message = format!("node {}: a delay needs either `for` or `until`", quoted(id));
        findings.error("missing_key", with.at.clone(), message);
        return None;
    }
    Some(Kind::Delay { span: with.written("for"), until: with.written("until") })
}

fn wait(with: &Fields<'_>, id: &str, findings: &mut Findings) -> Option<Kind> {
    missing(with, id, "signal", findings);
    with.duration("timeout", findings);
    with.text("reply", findings);
    with.text("signal", findings)?;
    Some(Kind::Wait {
        signal: with.written("signal")?,
        timeout: with.written("timeout"),
        accepts: with.written("accepts"),
        reply: with.written("reply"),
    })
}

/// Settings of calls are templates; only what is plain is checked here.
fn call(kind: &str, with: &Fields<'_>, findings: &mut Findings) {
    match kind {
        "agent" => {
            agents::settings(with, findings);
            agents::embedding(with, findings);
            for key in ["role", "task"] {
                with.text(key, findings);
            }
            if with.get("role").and_then(Value::as_str).is_some_and(str::is_empty) {
                findings.error("unknown_value", with.at("role"), "role must not be empty");
            }
        }
        "http" => {
            for key in ["method", "url", "service"] {
                with.text(key, findings);
            }
            if let Some(expect) = with.get("expect").filter(|expect| !is_expectation(expect, true)) {
                let message =
                    format!("expect {expect} is no status, class such as \"2xx\", or list of these");
                findings.error("unknown_value", with.at("expect"), message);
            }
        }
        _ => {
            with.text("queue", findings);
        }
    }
}

/// A status, a class of them, or a list of these.
fn is_expectation(expect: &Value, list: bool) -> bool {
    match expect {
        Value::Int(status) => (100..=599).contains(status),
        Value::String(class) => {
            matches!(class.as_bytes(), [b'1'..=b'5', b'x' | b'X', b'x' | b'X'])
        }
        Value::List(items) => list && items.iter().all(|item| is_expectation(item, false)),
        _ => false,
    }
}
