//! The turns of agents and what they cost, as clients see them.
//!
//! How much is seen of what was said follows from the agent's `capture`: `none` shows that there was something, `hash` its
//! sha-256, `redacted` all of it but what looks like a key, `full` everything. What it cost is always seen.

use serde::ser::SerializeMap;
use serde_json::{Value as Json, json};
use sha2::{Digest as _, Sha256};

use super::event::Error;
use super::{Hash, Shown};
use crate::model::agent::{Answer, Capture, Quote, Returned, ToolCall, Trimmed};
use crate::model::budget::Wider;
use crate::model::{EventBody, Value, credential};

/// What an event about an agent, or about money, says.
pub(super) fn content<M: SerializeMap>(body: &EventBody, map: &mut M) -> Result<(), M::Error> {
    match body {
        EventBody::ModelCalled { quote, .. } => quoted(quote, map),
        EventBody::ModelAnswered { answer, capture, .. } => answered(answer, *capture, map),
        EventBody::ToolCalled { calls, capture, .. } => {
            let calls: Vec<Json> = calls.iter().map(|call| called(call, *capture)).collect();
            map.serialize_entry("calls", &calls)
        }
        EventBody::ToolReturned { results, capture, .. } => {
            let results: Vec<Json> = results.iter().map(|result| returned(result, *capture)).collect();
            map.serialize_entry("results", &results)
        }
        EventBody::AgentCorrected { message, .. } => map.serialize_entry("message", &**message),
        EventBody::ModelDegraded { to, failure, quote, .. } => {
            let reason = if quote.is_some() { "budget" } else { "failure" };
            map.serialize_entry("reason", reason)?;
            map.serialize_entry("to", to)?;
            map.serialize_entry("error", &Error(failure))?;
            quote.as_ref().map_or(Ok(()), |quote| quoted(quote, map))
        }
        EventBody::ModelSpiked { spiked, .. } => {
            map.serialize_entry("reason", spiked.measure.reason())?;
            map.serialize_entry("from_model", &*spiked.from)?;
            map.serialize_entry("to_model", &*spiked.to)?;
            map.serialize_entry("measured", &spiked.measured)?;
            map.serialize_entry("threshold", &spiked.threshold)?;
            map.serialize_entry("unit", spiked.measure.unit())
        }
        EventBody::ModelRecovered { from, to, .. } => {
            map.serialize_entry("from_model", &**from)?;
            map.serialize_entry("to_model", &**to)
        }
        EventBody::ContextTrimmed { trimmed, .. } => trimmed_as(trimmed, map),
        EventBody::BudgetWarned { used, tokens } => {
            map.serialize_entry("used_usd", used)?;
            map.serialize_entry("used_tokens", tokens)
        }
        EventBody::BudgetExceeded { quote, .. } => quoted(quote, map),
        EventBody::WiderExceeded { over, .. } => {
            quoted(&over.quote, map)?;
            wider(&over.by, map)?;
            map.serialize_entry("on_breach", over.by.on_breach.as_str())
        }
        EventBody::WiderWarned { by, .. } => {
            map.serialize_entry("used_usd", &by.usd.map(|(left, of)| of.less(left)))?;
            map.serialize_entry("used_tokens", &by.tokens.map(|(left, of)| of.saturating_sub(left)))?;
            wider(by, map)
        }
        EventBody::BudgetRaised { usd, tokens, by, reason } => {
            map.serialize_entry("usd", usd)?;
            map.serialize_entry("tokens", tokens)?;
            map.serialize_entry("by", &**by)?;
            map.serialize_entry("reason", &**reason)
        }
        _ => Ok(()),
    }
}

/// F404: which budget, what it may spend, and what was left of it.
fn wider<M: SerializeMap>(by: &Wider, map: &mut M) -> Result<(), M::Error> {
    map.serialize_entry("scope", &*by.scope)?;
    map.serialize_entry("per", &*by.per)?;
    map.serialize_entry("usd", &by.usd.map(|(_, of)| of))?;
    map.serialize_entry("left_usd", &by.usd.map(|(left, _)| left))?;
    map.serialize_entry("tokens", &by.tokens.map(|(_, of)| of))?;
    map.serialize_entry("left_tokens", &by.tokens.map(|(left, _)| left))
}

/// What is left out, and how much is left.
fn trimmed_as<M: SerializeMap>(trimmed: &Trimmed, map: &mut M) -> Result<(), M::Error> {
    let Trimmed { overflow, turns, tokens_after, .. } = trimmed;
    map.serialize_entry("reason", &overflow.limit)?;
    map.serialize_entry("model", &*overflow.model)?;
    map.serialize_entry("turns_left_out", turns)?;
    map.serialize_entry("tokens_before", &overflow.tokens)?;
    map.serialize_entry("tokens_max", &overflow.most)?;
    map.serialize_entry("tokens_after", tokens_after)
}

fn quoted<M: SerializeMap>(quote: &Quote, map: &mut M) -> Result<(), M::Error> {
    map.serialize_entry("model", &*quote.model)?;
    map.serialize_entry("reserved_usd", &quote.cost)?;
    map.serialize_entry("reserved_tokens", &quote.tokens)
}

/// F339, F344, F394: who said it, what it took, what it cost.
fn answered<M: SerializeMap>(answer: &Answer, capture: Capture, map: &mut M) -> Result<(), M::Error> {
    map.serialize_entry("model", &*answer.model)?;
    map.serialize_entry("provider", &*answer.provider)?;
    map.serialize_entry("answered_by", &*answer.answered_by)?;
    map.serialize_entry("response_id", &*answer.response_id)?;
    map.serialize_entry("stop", &answer.stop)?;
    map.serialize_entry("tokens", &answer.tokens)?;
    map.serialize_entry("measured", &answer.measured)?;
    map.serialize_entry("cost_usd", &answer.cost)?;
    map.serialize_entry("took_ms", &answer.took_ms)?;
    map.serialize_entry("content", &text(&answer.content, capture))?;
    let calls: Vec<Json> = answer.calls.iter().map(|call| called(call, capture)).collect();
    map.serialize_entry("calls", &calls)
}

fn called(call: &ToolCall, capture: Capture) -> Json {
    let (id, tool, arguments) = (&*call.id, &*call.name, value(&call.arguments, capture));
    match &call.refused {
        Some(failure) => {
            json!({"id": id, "tool": tool, "arguments": arguments, "refused": Error(failure)})
        }
        None => json!({"id": id, "tool": tool, "arguments": arguments}),
    }
}

fn returned(result: &Returned, capture: Capture) -> Json {
    let (id, tool, took_ms) = (&*result.id, &*result.name, result.took_ms);
    match &result.outcome {
        Ok(output) => {
            json!({"id": id, "tool": tool, "took_ms": took_ms, "ok": true, "output": value(output, capture)})
        }
        Err(failure) => {
            json!({"id": id, "tool": tool, "took_ms": took_ms, "ok": false, "error": Error(failure)})
        }
    }
}

fn text(text: &str, capture: Capture) -> Json {
    match capture {
        Capture::None => Json::Null,
        Capture::Hash => hash(text.as_bytes()),
        Capture::Redacted => credential::masked(text).into(),
        Capture::Full => text.into(),
    }
}

fn value(value: &Value, capture: Capture) -> Json {
    let whole = || serde_json::to_value(value).unwrap_or_default();
    match capture {
        Capture::None => Json::Null,
        Capture::Hash => hash(value.to_json().as_bytes()),
        Capture::Redacted => masked(whole()),
        Capture::Full => whole(),
    }
}

fn hash(bytes: &[u8]) -> Json {
    let hash: [u8; 32] = Sha256::digest(bytes).into();
    Shown(Hash(&hash)).0.to_string().into()
}

fn masked(value: Json) -> Json {
    match value {
        Json::String(text) => credential::masked(&text).into(),
        Json::Array(items) => items.into_iter().map(masked).collect(),
        Json::Object(members) => members
            .into_iter()
            .map(|(name, member)| (name, masked(member)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // F412
    #[test]
    fn what_is_seen_of_what_was_said_follows_from_capture() {
        let said = "the key is sk-proj-abcdefghijklmnopqrstuvwx";
        assert_eq!(text(said, Capture::None), Json::Null);
        assert!(text(said, Capture::Hash).as_str().unwrap().starts_with("sha256:"));
        assert_eq!(text(said, Capture::Redacted), "the key is [redacted]");
        assert_eq!(text(said, Capture::Full), said);
        let nested = Value::map([("a", Value::list(vec![Value::string(said)]))]);
        assert_eq!(value(&nested, Capture::Redacted), json!({"a": ["the key is [redacted]"]}));
    }
}
