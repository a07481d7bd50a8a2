//! `agents` (who a document's agents are) and `limits.budget` (what they may spend), and what both have in common with the
//! `with` of a node: settings of an agent, checked in one place.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Compiled;
use super::document::Reading;
use super::fields::{Fields, shown, wrong};
use super::finding::{Findings, did_you_mean, quoted};
use super::lower::secrets;
use crate::ir::{Executor, Kind, Template};
use crate::limits;
use crate::model::budget::{Budget, OnBreach};
use crate::model::money::Usd;
use crate::model::workflow::Role;
use crate::model::{Value, tools};

/// Keys of a node's `with`.
pub(super) const WITH: [&str; 12] = [
    "role",
    "task",
    "tools",
    "output_schema",
    "max_turns",
    "max_output_tokens",
    "temperature",
    "system",
    "capture",
    "embed",
    "dimensions",
    "memory",
];
/// Those of them that a node which asks for vectors may have.
const EMBED: [&str; 4] = ["role", "capture", "embed", "dimensions"];
/// Keys of a role.
const ROLE: [&str; 12] = [
    "model",
    "fallback",
    "tools",
    "system",
    "max_turns",
    "max_output_tokens",
    "temperature",
    "capture",
    "memory",
    "max_concurrency",
    "description",
    "metadata",
];
/// What is kept of a conversation where it is shown.
const CAPTURE: [&str; 4] = ["none", "hash", "redacted", "full"];

/// The roles of a document.
pub(super) fn read(document: &Fields<'_>, reading: &mut Reading<'_>) -> BTreeMap<Arc<str>, Role> {
    let Some(value) = document.get("agents") else { return BTreeMap::new() };
    let Some(roles) = Fields::new(value, document.at("agents"), "agents", reading.findings) else {
        return BTreeMap::new();
    };
    let most = limits::AGENT_ROLES_MAX;
    if roles.iter().count() > most {
        let message = format!("more than {most} roles (limit agent_roles_max)");
        reading.findings.error("agent_roles_max", roles.at.clone(), message);
        return BTreeMap::new();
    }
    let roles = roles.iter().filter_map(|(name, value)| {
        if name.starts_with("x-") {
            return None;
        }
        let at = roles.at(name);
        let fields = Fields::new(value, at, &format!("the role {}", quoted(name)), reading.findings)?;
        Some((name.clone(), role(&fields, name, reading)))
    });
    roles.collect()
}

fn role(fields: &Fields<'_>, name: &str, reading: &mut Reading<'_>) -> Role {
    let findings = &mut *reading.findings;
    fields.only(&ROLE, &format!("the role {}", quoted(name)), findings);
    settings(fields, findings);
    for (key, value) in fields.iter() {
        secrets::refuse_literal(value, &fields.at(key), reading);
    }
    let findings = &mut *reading.findings;
    let mut models: Vec<Arc<str>> = fields.text("model", findings).into_iter().collect();
    let fallback = match fields.get("fallback") {
        Some(Value::String(model)) => vec![(model.clone(), fields.at("fallback"))],
        _ => fields.texts("fallback", findings),
    };
    if models.is_empty() && !fallback.is_empty() {
        let message = format!("the role {} has a fallback and no model", quoted(name));
        findings.error("missing_key", fields.at.clone(), message);
    }
    models.extend(fallback.into_iter().map(|(model, _)| model));
    let most = limits::AGENT_MODELS_MAX;
    if models.len() > most {
        let message =
            format!("the role {} has {} models (limit agent_models_max: {most})", quoted(name), models.len());
        findings.error("agent_models_max", fields.at("fallback"), message);
    }
    fields.number("max_concurrency", 1, limits::AGENTS_CONCURRENCY_MAX, findings);
    let own = [
        "system",
        "tools",
        "max_turns",
        "max_output_tokens",
        "temperature",
        "capture",
        "memory",
        "max_concurrency",
    ];
    let own = own.iter().filter_map(|key| Some((Arc::from(*key), fields.get(key)?.clone())));
    let mut settings: Vec<(Arc<str>, Value)> = own.collect();
    if !models.is_empty() {
        settings.push(("models".into(), Value::list(models.into_iter().map(Value::String).collect())));
    }
    Role { settings, at: fields.at.clone() }
}

/// Checks what a role and a node may both say.
pub(super) fn settings(fields: &Fields<'_>, findings: &mut Findings) {
    fields.number("max_turns", 1, limits::AGENT_TURNS_MAX, findings);
    fields.number("max_output_tokens", 1, limits::OUTPUT_TOKENS_MAX, findings);
    fields.word("capture", &CAPTURE, findings);
    fields.text("system", findings);
    if let Some(memory) = fields.get("memory")
        && let Some(memory) = Fields::new(memory, fields.at("memory"), "memory", findings)
    {
        memory.only(&["max_tokens", "keep_turns"], "memory", findings);
        memory.number("max_tokens", 1, limits::MEMORY_TOKENS_MAX, findings);
        memory.number("keep_turns", 1, limits::AGENT_TURNS_MAX, findings);
    }
    match fields.get("temperature") {
        None | Some(Value::Int(0..=2)) => {}
        Some(Value::Float(heat)) if (0.0..=2.0).contains(heat) => {}
        Some(other) => {
            let message = format!("temperature must be a number from 0 to 2, not {}", shown(other));
            findings.error("out_of_range", fields.at("temperature"), message);
        }
    }
    match fields.get("tools") {
        None => {}
        Some(list @ Value::List(_)) => {
            if let Err(wrong) = tools::read(list) {
                let at = format!("{}{}", fields.at("tools"), wrong.pointer);
                findings.error("tools_invalid", at, wrong.message);
            }
        }
        Some(other) => wrong(findings, fields.at("tools"), "tools", "a list", other),
    }
}

/// What `with` says of a node that asks for vectors (`embed`): texts, and how long vectors are to be.
pub(super) fn embedding(with: &Fields<'_>, findings: &mut Findings) {
    let Some(embed) = with.get("embed") else {
        if with.has("dimensions") {
            findings.error("unknown_key", with.at("dimensions"), "`dimensions` belongs to `embed`");
        }
        return;
    };
    let words = WITH.iter().filter(|key| !EMBED.contains(key));
    for key in words.filter(|key| with.has(key)) {
        let message = format!("`{key}` says nothing beside `embed`: no words are asked for");
        findings.error("unknown_key", with.at(key), message);
    }
    with.number("dimensions", 1, limits::EMBED_DIMENSIONS_MAX, findings);
    let is_text = |value: &Value| value.as_str().is_some_and(|text| !text.trim().is_empty());
    let most = limits::EMBED_TEXTS_MAX;
    match embed {
        Value::List(items) if (1..=most).contains(&items.len()) && items.iter().all(is_text) => {}
        text if is_text(text) => {}
        _ => {
            let message =
                format!("embed must be a text, or a list of 1 to {most} texts (limit embed_texts_max)");
            findings.error("unknown_value", with.at("embed"), message);
        }
    }
}

/// `limits.budget`.
pub(super) fn budget(document: &Fields<'_>, findings: &mut Findings) -> Option<Budget> {
    let Some(Value::Map(limits)) = document.get("limits") else { return None };
    let value = limits.get("budget")?;
    let at = super::pointer::join(&document.at("limits"), "budget");
    let fields = Fields::new(value, at, "budget", findings)?;
    fields.only(&["usd", "tokens", "warn_at", "on_breach", "allow_unpriced"], "budget", findings);
    let usd = fields.get("usd").and_then(|value| usd(value, &fields, findings));
    let tokens = fields.get("tokens").and_then(|value| match value {
        Value::Int(tokens) if *tokens >= 0 => u64::try_from(*tokens).ok(),
        other => {
            let message = format!("tokens must be a whole number, not {}", shown(other));
            findings.error("out_of_range", fields.at("tokens"), message);
            None
        }
    });
    let on_breach = fields.word("on_breach", &["stop", "pause", "degrade"], findings);
    let allow_unpriced = match fields.get("allow_unpriced") {
        None => false,
        Some(Value::Bool(allowed)) => *allowed,
        Some(other) => {
            wrong(findings, fields.at("allow_unpriced"), "allow_unpriced", "true or false", other);
            false
        }
    };
    Some(Budget {
        usd,
        tokens,
        warn_at_permille: warn_at(&fields, findings),
        on_breach: match on_breach.as_deref() {
            Some("pause") => OnBreach::Pause,
            Some("degrade") => OnBreach::Degrade,
            _ => OnBreach::Stop,
        },
        allow_unpriced,
    })
}

/// An amount: text, so that no digit is lost, or a number.
fn usd(value: &Value, fields: &Fields<'_>, findings: &mut Findings) -> Option<Usd> {
    let text = match value {
        Value::String(text) => text.to_string(),
        Value::Int(_) | Value::Float(_) => value.to_json(),
        other => {
            wrong(findings, fields.at("usd"), "usd", "an amount such as \"5.00\"", other);
            return None;
        }
    };
    text.parse()
        .map_err(|error| findings.error("out_of_range", fields.at("usd"), format!("usd: {error}")))
        .ok()
}

/// In thousandths; 0.8 when nothing is said (F403).
fn warn_at(fields: &Fields<'_>, findings: &mut Findings) -> u32 {
    let thousandths = |part: f64| (0.0..=1.0).contains(&part).then_some((part * 1_000.0).round() as u32);
    let part = match fields.get("warn_at") {
        None => return 800,
        Some(Value::Int(part)) => u32::try_from(*part).ok().and_then(|part| thousandths(f64::from(part))),
        Some(Value::Float(part)) => thousandths(*part),
        Some(_) => None,
    };
    part.unwrap_or_else(|| {
        let message = "warn_at must be a number from 0 to 1";
        findings.error("out_of_range", fields.at("warn_at"), message);
        800
    })
}

/// The role of a node, when the document has it. One that it has not takes the default agent, and a hint says so.
pub(super) fn role_of<'r>(name: &str, at: &str, reading: &'r mut Reading<'_>) -> Option<&'r Role> {
    if !reading.agents.contains_key(name) {
        let message = format!("no agent has the role {}; the node's default model takes it", quoted(name));
        let names: Vec<Arc<str>> = reading.agents.keys().cloned().collect();
        let help = did_you_mean(name, names.iter().map(|name| &**name));
        reading.findings.warning_with("role_undefined", at, message, help);
    }
    reading.agents.get(name)
}

impl Compiled {
    /// The agents, in any scope, by id, the first model on the ladder of each (`None`: it names none), and whether it asks for
    /// vectors.
    pub fn models(&self) -> impl Iterator<Item = (&str, Option<&str>, bool)> {
        self.ir.scopes.iter().flat_map(|scope| &scope.nodes).filter_map(|node| {
            let Kind::Call { executor: Executor::Agent, request: Template::Map(settings) } = &node.kind
            else {
                return None;
            };
            let named = settings.iter().find(|(key, _)| &**key == "models");
            let first = named.and_then(|(_, models)| match models {
                Template::Value(Value::List(models)) => models.first().and_then(Value::as_str),
                _ => None,
            });
            let embeds = settings.iter().any(|(key, _)| &**key == "embed");
            Some((&*node.id, first, embeds))
        })
    }
}
