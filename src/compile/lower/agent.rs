//! What an agent's call becomes: one object of all its settings, its role's filled in.
//!
//! What a node says comes before what its role says, but for `tools`: a node may name some of those that its role lists, and
//! none besides (F414). Its input is a part of what the model reads when the node asks for it, or when its task says nothing of what came
//! before.
//!
//! One that asks for vectors (`embed`) has no conversation: of its role it takes the first model and `capture`. Another model's
//! vectors cannot be compared with the first one's, so there is none further down its ladder.

use std::sync::Arc;

use super::secrets;
use crate::compile::document::Reading;
use crate::compile::finding::quoted;
use crate::compile::names::View;
use crate::compile::{agents, braces, pointer};
use crate::ir::{Executor, Kind, Template};
use crate::model::node::{self, Node};
use crate::model::workflow::Written;
use crate::model::{Map, Value};

/// The JSON Schema that a node's `with` asks its output to fit.
pub(super) fn output_schema(written: &Node) -> Option<Written> {
    let node::Kind::Call { name: "agent", with: Written { value: Value::Map(with), at } } = &written.kind
    else {
        return None;
    };
    let value = with.get("output_schema")?.clone();
    Some(Written { value, at: pointer::join(at, "output_schema") })
}

/// The settings of an agent.
pub(super) fn call(
    (written, with): (&Node, &Written),
    view: &View<'_, '_>,
    reading: &mut Reading<'_>,
) -> Option<Kind> {
    let nothing = Map::default();
    let map = match &with.value {
        Value::Map(map) => map,
        _ => &nothing,
    };
    let at = |key: &str| pointer::join(&with.at, key);
    for (key, value) in map.iter() {
        secrets::refuse_literal(value, &at(key), reading);
    }
    if map.get("embed").is_some() {
        return embedding((written, with), map, view, reading);
    }
    let mut entries: Vec<(Arc<str>, Template)> = Vec::new();
    let mut refers = false;
    for (key, value) in map.iter().filter(|(key, _)| !key.starts_with("x-") && &***key != "output_schema") {
        let template = match value {
            Value::String(text) if &**key == "task" => {
                let text = braces::expand(text, &at(key), view, reading)?;
                let template =
                    view.template(&Written { value: Value::String(text), at: at(key) }, reading)?;
                refers = !matches!(template, Template::Value(_));
                template
            }
            value => Template::Value(value.clone()),
        };
        entries.push((key.clone(), template));
    }
    if let Some(Value::String(name)) = map.get("role") {
        let role = agents::role_of(name, &at("role"), reading).cloned().unwrap_or_default();
        if let (Some(Value::List(own)), Some(allowed)) = (map.get("tools"), tools(&role.settings))
            && let Some(tool) = own.iter().find(|tool| !allowed.contains(tool))
        {
            let message = format!("{tool} is no tool of the role {}", quoted(name));
            let help = Some("a node may use some of its role's tools; give it to the role first".into());
            reading.findings.error_with("tool_not_allowed", at("tools"), message, help);
        }
        let own = |key: &Arc<str>| map.get(key).is_some();
        let of_role = role.settings.into_iter().filter(|(key, _)| !own(key));
        entries.extend(of_role.map(|(key, value)| (key, Template::Value(value))));
    }
    let schema = written.output_schema.clone().or_else(|| output_schema(written)).map(|schema| schema.value);
    if let Some(schema) = schema.or_else(|| object_of(&written.outputs)) {
        entries.push(("output_schema".into(), Template::Value(schema)));
    }
    if !written.outputs.is_empty() {
        let names = written.outputs.iter().cloned().map(Value::String).collect();
        entries.push(("outputs".into(), Template::Value(Value::list(names))));
    }
    if written.input.is_some() || !refers {
        let value = Value::string("${ input }");
        entries.push(("input".into(), view.template(&Written { value, at: with.at.clone() }, reading)?));
    }
    Some(Kind::Call { executor: Executor::Agent, request: Template::Map(entries) })
}

/// The settings of one that asks for vectors.
fn embedding(
    (written, with): (&Node, &Written),
    map: &Map,
    view: &View<'_, '_>,
    reading: &mut Reading<'_>,
) -> Option<Kind> {
    let at = |key: &str| pointer::join(&with.at, key);
    let mut entries: Vec<(Arc<str>, Template)> = Vec::new();
    for (key, value) in map.iter().filter(|(key, _)| !key.starts_with("x-")) {
        let template = match &**key {
            "embed" => view.template(&Written { value: value.clone(), at: at(key) }, reading)?,
            _ => Template::Value(value.clone()),
        };
        entries.push((key.clone(), template));
    }
    let role = map.get("role").and_then(Value::as_str);
    let role = role.and_then(|name| agents::role_of(name, &at("role"), reading)).cloned().unwrap_or_default();
    for (key, value) in role.settings {
        match (&*key, value) {
            ("models", Value::List(models)) => {
                let first = models.iter().take(1).cloned().collect();
                entries.push((key, Template::Value(Value::list(first))));
            }
            ("capture", value) if map.get("capture").is_none() => entries.push((key, Template::Value(value))),
            _ => {}
        }
    }
    // Nobody reads vectors in a timeline, and they are long.
    if !entries.iter().any(|(key, _)| &**key == "capture") {
        entries.push(("capture".into(), Template::Value(Value::string("hash"))));
    }
    if let [_, second, ..] = &written.outputs[..] {
        let message = format!("the vectors are one output, and {} is another", quoted(second));
        reading.findings.error("unknown_value", at("embed"), message);
    }
    if !written.outputs.is_empty() {
        let names = written.outputs.iter().cloned().map(Value::String).collect();
        entries.push(("outputs".into(), Template::Value(Value::list(names))));
    }
    Some(Kind::Call { executor: Executor::Agent, request: Template::Map(entries) })
}

fn tools(settings: &[(Arc<str>, Value)]) -> Option<&[Value]> {
    let tools = settings.iter().find(|(key, _)| &**key == "tools").map(|(_, tools)| tools)?;
    match tools {
        Value::List(tools) => Some(tools),
        _ => None,
    }
}

/// Several outputs are the members of an object; one may be a text.
fn object_of(names: &[Arc<str>]) -> Option<Value> {
    let anything = || Value::Map(Arc::default());
    (names.len() > 1).then(|| {
        Value::map([
            ("type", Value::string("object")),
            ("required", Value::list(names.iter().cloned().map(Value::String).collect())),
            ("properties", Value::map(names.iter().map(|name| (name.clone(), anything())))),
        ])
    })
}
