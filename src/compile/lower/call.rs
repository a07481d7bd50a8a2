//! What calls become: one object of all their settings, with the defaults filled in; and the retries and timeouts of every
//! kind.

use std::sync::Arc;
use std::time::Duration;

use super::kind::plain_duration;
use super::{agent, secrets};
use crate::compile::document::Reading;
use crate::compile::finding::quoted;
use crate::compile::names::View;
use crate::compile::pointer;
use crate::ir::{Backoff, Executor, Kind, Retry, Template};
use crate::model::node::{self, Node};
use crate::model::workflow::{Defaults, Written};
use crate::model::{Map, Value};

/// Where a secret may be named: whoever sends it puts the value in.
fn sends_secrets(name: &str, key: &str) -> bool {
    name == "http" && matches!(key, "headers" | "query" | "body")
}

/// Settings that are no templates.
fn is_plain(key: &str) -> bool {
    key == "expect"
}

/// A call. What it needs to be made, and lacks, is a finding that stops a start, not a registration.
pub(super) fn call(
    name: &'static str,
    (written, with): (&Node, &Written),
    id: &Arc<str>,
    view: &View<'_, '_>,
    reading: &mut Reading<'_>,
) -> Option<Kind> {
    let executor = match name {
        "http" => Executor::Http,
        "agent" => return agent::call((written, with), view, reading),
        _ => Executor::Task,
    };
    let nothing = Map::default();
    let map = match &with.value {
        Value::Map(map) => map,
        _ => &nothing,
    };
    let mut entries: Vec<(Arc<str>, Template)> = Vec::with_capacity(map.len() + 1);
    for (key, value) in map.iter().filter(|(key, _)| !key.starts_with("x-")) {
        let at = pointer::join(&with.at, key);
        let view = View { secrets: sends_secrets(name, key), ..*view };
        let template = match value {
            value if is_plain(key) => Template::Value(value.clone()),
            value => view.template(&Written { value: value.clone(), at }, reading)?,
        };
        entries.push((key.clone(), template));
    }
    if name == "task" && map.get("queue").is_none() {
        entries.push(("queue".into(), Template::Value(Value::String(id.clone()))));
    }
    let mut secrets = Vec::new();
    for (key, value) in map.iter() {
        secrets::refuse_literal(value, &pointer::join(&with.at, key), reading);
        if sends_secrets(name, key) {
            secrets::named(value, &pointer::join("", key), &mut secrets);
        }
    }
    if !secrets.is_empty() {
        entries.push(("secrets".into(), Template::Value(Value::list(secrets))));
    }
    if name == "http" && map.get("url").is_none() {
        let message = format!("node {} has no `with.url`", quoted(id));
        reading.findings.unstartable("missing_key", with.at.clone(), message);
    }
    Some(Kind::Call { executor, request: Template::Map(entries) })
}

/// An `http` that may have had its effect and carries no key (`Idempotency-Key: null`) is not sent a second time.
fn is_unrepeatable(kind: &node::Kind) -> bool {
    let node::Kind::Call { name, with } = kind else { return false };
    let Value::Map(with) = &with.value else { return false };
    let method = with.get("method").and_then(Value::as_str).unwrap_or("GET").to_ascii_uppercase();
    let Some(Value::Map(headers)) = with.get("headers") else { return false };
    let unkeyed = |(key, value): (&Arc<str>, &Value)| {
        key.eq_ignore_ascii_case("idempotency-key") && matches!(value, Value::Null)
    };
    *name == "http" && matches!(method.as_str(), "POST" | "PATCH") && headers.iter().any(unkeyed)
}

/// The policy of a node. Calls get the defaults; a node with bodies, or a child run, is tried again only when it says so
/// itself, or attempts would multiply.
pub(super) fn retry(written: &Node, defaults: &Defaults) -> Option<Retry> {
    let is_call = matches!(written.kind, node::Kind::Call { .. });
    if written.at_most_once || (!is_call && written.retry.is_none()) || is_unrepeatable(&written.kind) {
        return None;
    }
    let none = node::Retry::default();
    let own = written.retry.as_ref().unwrap_or(&none);
    let general = defaults.retry.as_ref().filter(|_| is_call).unwrap_or(&none);
    let backoff = own.backoff.as_deref().or(general.backoff.as_deref());
    Some(Retry {
        max_attempts: own.max_attempts.or(general.max_attempts).unwrap_or(3),
        backoff: match backoff {
            Some("linear") => Backoff::Linear,
            Some("fixed") => Backoff::Fixed,
            _ => Backoff::Exponential,
        },
        initial: own.initial.or(general.initial).unwrap_or(Duration::from_secs(1)),
        max: own.max.or(general.max).unwrap_or(Duration::from_secs(60)),
        multiplier: own.multiplier.or(general.multiplier).unwrap_or(2.0),
        jitter: own.jitter.or(general.jitter).unwrap_or(true),
    })
}

/// How long a node may take: its own `timeout`, the shorter of the two of a review, the default of a call.
pub(super) fn timeout(written: &Node, defaults: &Defaults) -> Option<Duration> {
    match &written.kind {
        node::Kind::Call { .. } => written.timeout.or(defaults.timeout),
        node::Kind::HumanReview { timeout, .. } => {
            let own = timeout.as_ref().and_then(|timeout| plain_duration(&timeout.value));
            [own, written.timeout].into_iter().flatten().min()
        }
        node::Kind::Map { .. }
        | node::Kind::Parallel { .. }
        | node::Kind::Loop { .. }
        | node::Kind::Composite { .. }
        | node::Kind::Child { .. } => written.timeout,
        _ => None,
    }
}
