//! Members of a map, read one by one with findings for what does not fit. Keys that nobody knows are errors with a
//! proposal; `x-` keys pass.

use std::sync::Arc;
use std::time::Duration;

use super::finding::{Findings, did_you_mean, quoted};
use super::pointer;
use crate::limits;
use crate::model::parse_duration;
use crate::model::workflow::Written;
use crate::model::{Map, Value};

/// A map of the document and where it stands.
pub(super) struct Fields<'v> {
    map: &'v Map,
    pub(super) at: String,
}

impl<'v> Fields<'v> {
    /// `None`, and a finding, when the value is no map.
    pub(super) fn new(value: &'v Value, at: String, what: &str, findings: &mut Findings) -> Option<Self> {
        if let Value::Map(map) = value {
            return Some(Self { map, at });
        }
        wrong(findings, at, what, "a map", value);
        None
    }

    /// Reports keys that are not among `known`.
    pub(super) fn only(&self, known: &[&str], what: &str, findings: &mut Findings) {
        for (key, _) in self.map.iter() {
            if !key.starts_with("x-") && !known.contains(&&**key) {
                let message = format!("{what} has no key {}", quoted(key));
                let help = did_you_mean(key, known.iter().copied()).or_else(|| {
                    Some(format!("known keys: {}; keys of your own start with x-", known.join(", ")))
                });
                findings.error_with("unknown_key", self.at(key), message, help);
            }
        }
    }

    pub(super) fn get(&self, key: &str) -> Option<&'v Value> {
        self.map.get(key)
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.map.get(key).is_some()
    }

    pub(super) fn at(&self, key: &str) -> String {
        pointer::join(&self.at, key)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&'v Arc<str>, &'v Value)> + use<'v> {
        self.map.iter()
    }

    /// Keys of the user's own, as written.
    pub(super) fn own(&self) -> Vec<(Arc<str>, Value)> {
        let own = self.map.iter().filter(|(key, _)| key.starts_with("x-"));
        own.map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    pub(super) fn written(&self, key: &str) -> Option<Written> {
        self.get(key).map(|value| Written { value: value.clone(), at: self.at(key) })
    }

    /// A member that must be text.
    pub(super) fn text(&self, key: &str, findings: &mut Findings) -> Option<Arc<str>> {
        match self.get(key)? {
            Value::String(text) => Some(text.clone()),
            other => {
                wrong(findings, self.at(key), key, "text", other);
                None
            }
        }
    }

    /// A member that holds bare CEL: text, or a literal that stands for itself.
    pub(super) fn cel(&self, key: &str, findings: &mut Findings) -> Option<Written> {
        let written = self.written(key)?;
        match &written.value {
            Value::String(_) => Some(written),
            Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::UInt(_) | Value::Null => {
                let text = written.value.to_json();
                Some(Written { value: Value::string(text), at: written.at })
            }
            other => {
                wrong(findings, written.at, key, "a CEL expression", other);
                None
            }
        }
    }

    /// A whole number within bounds.
    pub(super) fn number(&self, key: &str, least: u32, most: u32, findings: &mut Findings) -> Option<u32> {
        let value = self.get(key)?;
        let number = match value {
            Value::Int(number) => {
                u32::try_from(*number).ok().filter(|number| (least..=most).contains(number))
            }
            _ => None,
        };
        if number.is_none() {
            let message =
                format!("{key} must be a whole number from {least} to {most}, not {}", shown(value));
            findings.error("out_of_range", self.at(key), message);
        }
        number
    }

    /// One of a few words.
    pub(super) fn word(&self, key: &str, known: &[&str], findings: &mut Findings) -> Option<Arc<str>> {
        let text = self.text(key, findings)?;
        if known.contains(&&*text) {
            return Some(text);
        }
        let message = format!("{key} must be one of {}, not {}", known.join(", "), quoted(&text));
        findings.error_with(
            "unknown_value",
            self.at(key),
            message,
            did_you_mean(&text, known.iter().copied()),
        );
        None
    }

    /// A duration: text or a number of seconds.
    pub(super) fn duration(&self, key: &str, findings: &mut Findings) -> Option<Duration> {
        duration(self.get(key)?, || self.at(key), key, findings)
    }

    /// A list of texts.
    pub(super) fn texts(&self, key: &str, findings: &mut Findings) -> Vec<(Arc<str>, String)> {
        let mut texts = Vec::new();
        match self.get(key) {
            None => {}
            Some(Value::List(items)) => {
                for (index, item) in items.iter().enumerate() {
                    let at = pointer::index(&self.at(key), index);
                    match item {
                        Value::String(text) => texts.push((text.clone(), at)),
                        other => wrong(findings, at, key, "a list of texts", other),
                    }
                }
            }
            Some(other) => wrong(findings, self.at(key), key, "a list of texts", other),
        }
        texts
    }
}

/// A duration within its limit, with a finding when it is none.
pub(super) fn duration(
    value: &Value,
    at: impl FnOnce() -> String,
    key: &str,
    findings: &mut Findings,
) -> Option<Duration> {
    let found = match value {
        Value::String(text) => parse_duration(text),
        other => seconds(other),
    };
    if found.is_none() {
        let message = format!(
            "{key} must be a duration such as 90s, 1h30m or 500ms of at most {} seconds (limit \
             duration_seconds_max), not {}",
            limits::DURATION_SECONDS_MAX,
            shown(value)
        );
        findings.error("duration", at(), message);
    }
    found
}

/// A number of seconds as a duration, to the millisecond, within the limit.
#[expect(clippy::cast_precision_loss, reason = "the limit is far below 2^53")]
pub(super) fn seconds(value: &Value) -> Option<Duration> {
    match value {
        Value::Int(number) => {
            let number = u64::try_from(*number).ok().filter(|number| *number <= limits::DURATION_SECONDS_MAX);
            number.map(Duration::from_secs)
        }
        Value::Float(number) if (0.0..=limits::DURATION_SECONDS_MAX as f64).contains(number) => {
            Duration::try_from_secs_f64(*number).ok()
        }
        _ => None,
    }
}

/// A value, shortened for a message.
pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => quoted(text),
        Value::List(_) => "a list".into(),
        Value::Map(_) => "a map".into(),
        other => other.to_json(),
    }
}

pub(super) fn wrong(findings: &mut Findings, at: String, what: &str, expected: &str, found: &Value) {
    findings.error("wrong_type", at, format!("{what} must be {expected}, not {}", shown(found)));
}
