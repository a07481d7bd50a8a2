//! Keys that every kind shares: retry, timeout, output schema, fallback, priority, cache.
//!
//! # `retry`, in the words of each source
//!
//! | written | calls | delays |
//! | --- | --- | --- |
//! | `max_attempts: n` | n | `backoff`, `initial`, `max`, `multiplier`, `jitter` |
//! | `max_retries: n` | n + 1 (D11) | the same |
//! | `max_attempts: n, backoff_base: b, max_backoff: s` | n (F359) | `min(b^attempt, s)`, no jitter |
//! | `max_retries: n, base_delay: d, max_delay: s, exponential_base: b` | n (F360) | `min(d * b^attempt, s)`, jitter |
//! | `unlimited: true` | without end (F363) | |
//!
//! `backoff: constant` is `fixed`.

use std::sync::Arc;

use crate::compile::document::Reading;
use crate::compile::fields::{Fields, shown, wrong};
use crate::compile::finding::{Findings, quoted};
use crate::compile::graph;
use crate::limits;
use crate::model::node::{Fallback, Kind, Retry};
use crate::model::workflow::Written;
use crate::model::{Priority, Value};

/// What the common keys of a node say.
#[derive(Default)]
pub(super) struct Keys {
    pub(super) retry: Option<Retry>,
    pub(super) timeout: Option<std::time::Duration>,
    pub(super) output_schema: Option<Written>,
    pub(super) fallback: Option<Fallback>,
    pub(super) at_most_once: bool,
    pub(super) priority: Option<Priority>,
}

/// Keys of `defaults`.
pub(in crate::compile) const DEFAULTS: [&str; 2] = ["timeout", "retry"];

pub(super) fn read(
    fields: &Fields<'_>,
    id: &str,
    (name, kind): (&str, Option<&Kind>),
    reading: &mut Reading<'_>,
) -> Keys {
    let findings = &mut *reading.findings;
    let priority = fields.word("priority", &["high", "medium", "low"], findings).map(|word| match &*word {
        "high" => Priority::High,
        "low" => Priority::Low,
        _ => Priority::Medium,
    });
    cache(fields, id, findings);
    tags(fields, (id, name), findings);
    let at_most_once = flag(fields, "at_most_once", findings);
    let timeout = fields.duration("timeout", findings);
    let retry = retry(fields, findings);
    let is_call = matches!(kind, Some(Kind::Call { .. } | Kind::Child { .. }));
    let has_bodies = matches!(
        kind,
        Some(Kind::Map { .. } | Kind::Parallel { .. } | Kind::Loop { .. } | Kind::Composite { .. })
    );
    let waits = matches!(kind, Some(Kind::Wait { .. } | Kind::HumanReview { .. }));
    if kind.is_some() {
        for (key, has_effect) in [
            ("retry", is_call || has_bodies),
            ("timeout", is_call || has_bodies || waits),
            ("at_most_once", is_call),
        ] {
            if fields.has(key) && !has_effect {
                let message = format!("`{key}` has no effect on a {name}");
                findings.warning("key_ignored", fields.at(key), message);
            }
        }
    }
    Keys {
        retry,
        timeout,
        output_schema: fields.written("output_schema"),
        fallback: fallback(fields, (id, kind), reading),
        at_most_once: at_most_once.unwrap_or(false),
        priority,
    }
}

fn flag(fields: &Fields<'_>, key: &str, findings: &mut Findings) -> Option<bool> {
    match fields.get(key)? {
        Value::Bool(flag) => Some(*flag),
        other => {
            wrong(findings, fields.at(key), key, "true or false", other);
            None
        }
    }
}

fn cache(fields: &Fields<'_>, id: &str, findings: &mut Findings) {
    let Some(cache) = fields.get("cache") else { return };
    let Some(cache) = Fields::new(cache, fields.at("cache"), "cache", findings) else { return };
    cache.only(&["policy", "ttl", "key"], "cache", findings);
    cache.duration("ttl", findings);
    let policies = ["off", "read_only", "read_through", "write_only"];
    if cache.word("policy", &policies, findings).is_none_or(|policy| &*policy != "off") {
        let message = format!("node {}: `cache` is not supported yet", quoted(id));
        findings.unavailable("key_not_available", fields.at("cache"), message);
    }
}

/// Words about what a node does, for rules that ask a human first (docs/policy.md). A node that only leads on does nothing
/// that could be asked about: there a tag would promise a gate that never stands.
pub(in crate::compile) fn tags(fields: &Fields<'_>, (id, kind): (&str, &str), findings: &mut Findings) {
    if !fields.has("tags") {
        return;
    }
    if matches!(kind, "join" | "conditional" | "human_review") {
        let message = format!("node {}: a {kind} does nothing that a rule could gate", quoted(id));
        let help = Some("tag the node that has the effect".into());
        return findings.error_with("tags_not_here", fields.at("tags"), message, help);
    }
    let written = fields.texts("tags", findings);
    let most = limits::TAGS_PER_NODE_MAX;
    if written.len() > most {
        let message = format!("{} tags; a node may have {most} (limit tags_per_node_max)", written.len());
        findings.error("tags_per_node_max", fields.at("tags"), message);
    }
    for (tag, at) in written.iter().take(most).filter(|(tag, _)| !is_tag(tag)) {
        let message = format!(
            "the tag {} does not fit [A-Za-z0-9_.:-]{{1,{}}} (limit tag_bytes_max)",
            quoted(tag),
            limits::TAG_BYTES_MAX
        );
        findings.error("invalid_tag", at.clone(), message);
    }
}

/// Can a tag be called so?
pub(in crate::compile) fn is_tag(tag: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b':' | b'-');
    !tag.is_empty() && tag.len() <= limits::TAG_BYTES_MAX && tag.bytes().all(fits)
}

/// A body has a `type` or `nodes`; `{cache: ...}` is what the same call brought before; `{value: ...}` is a value whatever it
/// looks like; anything else is a value.
fn fallback(
    fields: &Fields<'_>,
    (id, kind): (&str, Option<&Kind>),
    reading: &mut Reading<'_>,
) -> Option<Fallback> {
    let written = fields.written("fallback")?;
    match &written.value {
        Value::Map(map) if map.len() == 1 && map.get("cache").is_some() => {
            if !matches!(kind, None | Some(Kind::Call { .. })) {
                let message = format!("node {} makes no call whose answers could be kept", quoted(id));
                let help = Some("`fallback: {cache: ...}` is for http, task and agent".into());
                reading.findings.error_with("fallback_not_here", written.at, message, help);
                return None;
            }
            let at = crate::compile::pointer::join(&written.at, "cache");
            let cache = Fields::new(map.get("cache")?, at, "cache", reading.findings)?;
            cache.only(&["max_age"], "cache", reading.findings);
            if !cache.has("max_age") {
                let message = "`cache` has no `max_age`: how old may the answer be?";
                reading.findings.error("missing_key", cache.at.clone(), message);
            }
            let max_age = cache.duration("max_age", reading.findings)?;
            let most = limits::CACHED_AGE_SECONDS_MAX;
            if max_age.is_zero() || max_age.as_secs() > most {
                let message =
                    format!("max_age must be above 0 and at most {most} s (limit cached_age_seconds_max)");
                reading.findings.error("out_of_range", cache.at("max_age"), message);
            }
            Some(Fallback::Cached { max_age, written: written.value.clone() })
        }
        Value::Map(map) if map.len() == 1 && map.get("value").is_some() => {
            let at = crate::compile::pointer::join(&written.at, "value");
            Some(Fallback::Value(Written { value: map.get("value").cloned()?, at }))
        }
        Value::Map(map) if map.get("type").is_some() || map.get("nodes").is_some() => {
            let body = graph::read_body(&written.value, written.at.clone(), reading)?;
            Some(Fallback::Body(Box::new(body)))
        }
        _ => Some(Fallback::Value(written)),
    }
}

/// `retry`, wherever it stands.
pub(in crate::compile) fn retry(fields: &Fields<'_>, findings: &mut Findings) -> Option<Retry> {
    let value = fields.get("retry")?;
    policy(value, fields.at("retry"), findings)
}

const WORDS: [&str; 13] = [
    "max_attempts",
    "max_retries",
    "unlimited",
    "backoff",
    "initial",
    "max",
    "multiplier",
    "jitter",
    "backoff_base",
    "max_backoff",
    "base_delay",
    "max_delay",
    "exponential_base",
];

/// A retry policy in any of its spellings.
pub(in crate::compile) fn policy(value: &Value, at: String, findings: &mut Findings) -> Option<Retry> {
    let fields = Fields::new(value, at, "retry", findings)?;
    fields.only(&WORDS, "retry", findings);
    let counts_calls = ["base_delay", "max_delay", "exponential_base"].iter().any(|key| fields.has(key));
    let from_base = fields.has("backoff_base") || fields.has("max_backoff");
    let most = limits::ATTEMPTS_MAX;
    let unlimited = flag(&fields, "unlimited", findings).unwrap_or(false);
    let attempts = fields.number("max_attempts", 1, most, findings);
    let retries = if counts_calls {
        fields.number("max_retries", 1, most, findings)
    } else {
        fields.number("max_retries", 0, most - 1, findings).map(|retries| retries + 1)
    };
    if [fields.has("max_attempts"), fields.has("max_retries"), unlimited].iter().filter(|is| **is).count() > 1
    {
        let message = "only one of max_attempts, max_retries and unlimited says how often";
        findings.error("retry_conflict", fields.at.clone(), message);
        return None;
    }
    let first = |keys: &[&str], findings: &mut Findings| {
        keys.iter().filter(|key| fields.has(key)).find_map(|key| fields.duration(key, findings))
    };
    let initial = first(&["initial", "base_delay"], findings);
    let max = first(&["max", "max_backoff", "max_delay"], findings);
    let multiplier = ["multiplier", "backoff_base", "exponential_base"]
        .into_iter()
        .find_map(|key| factor(&fields, key, findings));
    let backoff = fields.word("backoff", &["exponential", "linear", "fixed", "constant"], findings);
    let backoff = backoff.map(|word| if &*word == "constant" { Arc::from("fixed") } else { word });
    let jitter = flag(&fields, "jitter", findings).or(from_base.then_some(false));
    let max_attempts = if unlimited { Some(u32::MAX) } else { attempts.or(retries) };
    let mut retry = Retry { max_attempts, backoff, initial, max, multiplier, jitter, written: Value::Null };
    retry.written = canonical(&retry, &fields);
    Some(retry)
}

/// What delays grow by: a number from 1 to 1000.
fn factor(fields: &Fields<'_>, key: &str, findings: &mut Findings) -> Option<f64> {
    let value = fields.get(key)?;
    #[expect(clippy::cast_precision_loss, reason = "only small numbers are let through")]
    let number = match value {
        Value::Int(number) => Some(*number as f64),
        Value::Float(number) => Some(*number),
        _ => None,
    };
    let number = number.filter(|number| (1.0..=1_000.0).contains(number));
    if number.is_none() {
        let message = format!("{key} must be a number from 1 to 1000, not {}", shown(value));
        findings.error("out_of_range", fields.at(key), message);
    }
    number
}

/// The policy in the words of the language, its values as they were written.
fn canonical(retry: &Retry, fields: &Fields<'_>) -> Value {
    let written = |keys: &[&str]| keys.iter().find_map(|key| fields.get(key)).cloned();
    let attempts = match retry.max_attempts {
        Some(u32::MAX) => Some(("unlimited", Value::Bool(true))),
        attempts => attempts.map(|attempts| ("max_attempts", Value::Int(attempts.into()))),
    };
    let others = [
        ("backoff", retry.backoff.clone().map(Value::String)),
        ("initial", written(&["initial", "base_delay"])),
        ("max", written(&["max", "max_backoff", "max_delay"])),
        ("multiplier", written(&["multiplier", "backoff_base", "exponential_base"])),
        ("jitter", retry.jitter.map(Value::Bool)),
    ];
    let others = others.into_iter().filter_map(|(key, value)| Some((key, value?)));
    Value::map(attempts.into_iter().chain(others).map(|(key, value)| (Arc::<str>::from(key), value)))
}
