//! Chat completions: how requests are written and answers read, whole or in pieces. Pure.
//!
//! What must hold: what is missing or of another type than it should be is left out or makes the answer invalid; it never
//! panics and is never guessed.

use serde_json::json;

use super::events::Event;
use super::prompt::{Json, Prompt, shown, tool_name};
use super::refusal;
use super::reply::{Raw, invalid};
use super::settings::Model;
use crate::model::agent::{Answer, Said, Stop};
use crate::model::money::Tokens;
use crate::model::{Failure, Value};

/// The body of a request.
pub(super) fn request(prompt: &Prompt<'_>, model: &Model) -> Json {
    let mut messages = Vec::with_capacity(prompt.said.len() + 2);
    if !prompt.system.is_empty() {
        messages.push(json!({"role": "system", "content": prompt.system}));
    }
    messages.push(json!({"role": "user", "content": prompt.user}));
    for said in &prompt.said {
        match said {
            Said::Model(answer) => messages.push(assistant(answer)),
            Said::Tools(returned) => messages.extend(
                returned
                    .iter()
                    .map(|one| json!({"role": "tool", "tool_call_id": &*one.id, "content": shown(one)})),
            ),
            Said::Correction(text) => messages.push(json!({"role": "user", "content": &**text})),
            Said::Aside(_) | Said::Trimmed(_) => {}
        }
    }
    let mut body = json!({"model": model.id, "messages": messages});
    let mut set = |key: &str, value: Json| {
        if let Json::Object(members) = &mut body {
            members.insert(key.to_owned(), value);
        }
    };
    set(&model.max_tokens_key, prompt.max_output_tokens.into());
    if let Some(temperature) = prompt.temperature {
        set("temperature", temperature.into());
    }
    if !prompt.tools.is_empty() {
        let tools = prompt.tools.iter().map(|tool| {
            let function =
                json!({"name": &*tool.name, "description": &*tool.description, "parameters": &tool.parameters});
            json!({"type": "function", "function": function})
        });
        set("tools", tools.collect());
    }
    if let Some(schema) = prompt.schema {
        set(
            "response_format",
            json!({"type": "json_schema", "json_schema": {"name": "output", "schema": schema}}),
        );
    }
    if model.provider.stream {
        set("stream", true.into());
        set("stream_options", json!({"include_usage": true}));
    }
    body
}

fn assistant(answer: &Answer) -> Json {
    if answer.calls.is_empty() {
        return json!({"role": "assistant", "content": &*answer.content});
    }
    let calls = answer.calls.iter().map(|call| {
        // What was no JSON is shown as it came.
        let arguments = match &call.arguments {
            Value::String(text) if call.refused.is_some() => text.to_string(),
            other => other.to_json(),
        };
        let function = json!({"name": tool_name(&call.name), "arguments": arguments});
        json!({"id": &*call.id, "type": "function", "function": function})
    });
    let content = (!answer.content.is_empty()).then_some(&*answer.content);
    json!({"role": "assistant", "content": content, "tool_calls": calls.collect::<Vec<_>>()})
}

/// Reads a whole answer.
///
/// # Errors
/// `model_answer_invalid`, or what the provider says went wrong.
pub(super) fn read(body: &Json) -> Result<Raw, Failure> {
    if let Some(error) = body.get("error").filter(|error| !error.is_null()) {
        return Err(refusal::told(error, false));
    }
    let choice = body.pointer("/choices/0").ok_or_else(|| invalid("it has no choices"))?;
    let message = choice.get("message").ok_or_else(|| invalid("its choice has no message"))?;
    let mut raw = Raw::default();
    name(&mut raw, body);
    raw.say(text_of(message))?;
    for (index, call) in items(message.get("tool_calls")).enumerate() {
        raw.call(index as u64, text(call, "/id"), text(call, "/function/name"))?;
        raw.argue(index as u64, text(call, "/function/arguments"))?;
    }
    raw.stop = stop(choice, message);
    raw.usage = body.get("usage").cloned().unwrap_or_default();
    raw.over = true;
    Ok(raw)
}

/// Takes one event of a streamed answer; gives the text that it brings.
///
/// # Errors
/// As for [`read`].
pub(super) fn take(raw: &mut Raw, event: &Event) -> Result<String, Failure> {
    if event.data.trim() == "[DONE]" {
        raw.over = true;
        return Ok(String::new());
    }
    let chunk: Json = serde_json::from_str(&event.data)
        .map_err(|error| invalid(&format!("a piece of it is no JSON: {error}")))?;
    if let Some(error) = chunk.get("error").filter(|error| !error.is_null()) {
        return Err(refusal::told(error, raw.has_begun()));
    }
    name(raw, &chunk);
    if let Some(usage) = chunk.get("usage").filter(|usage| !usage.is_null()) {
        raw.usage = usage.clone();
    }
    let Some(choice) = chunk.pointer("/choices/0") else { return Ok(String::new()) };
    let delta = choice.get("delta").unwrap_or(&Json::Null);
    let piece = text_of(delta);
    raw.say(piece)?;
    for call in items(delta.get("tool_calls")) {
        let mut index = call.get("index").and_then(Json::as_u64).unwrap_or_default();
        let (id, called) = (text(call, "/id"), text(call, "/function/name"));
        // Some number all their calls alike: another id is another call.
        if raw.calls.iter().any(|other| other.index == index && !id.is_empty() && other.id != id) {
            index = raw.calls.iter().map(|other| other.index).max().unwrap_or_default().saturating_add(1);
        }
        raw.call(index, id, called)?;
        raw.argue(index, text(call, "/function/arguments"))?;
    }
    if let Some(stop) = stop(choice, delta) {
        raw.stop = Some(stop);
    }
    Ok(piece.to_owned())
}

/// What it took; `None` when the provider does not say so plainly.
pub(super) fn tokens(usage: &Json) -> Option<Tokens> {
    let read = usage.get("prompt_tokens")?.as_u64()?;
    let output = usage.get("completion_tokens")?.as_u64()?;
    let cache_read = match usage.pointer("/prompt_tokens_details/cached_tokens") {
        None | Some(Json::Null) => 0,
        Some(cached) => cached.as_u64()?,
    };
    Some(Tokens { input: read.checked_sub(cache_read)?, output, cache_read, cache_write: 0 })
}

fn name(raw: &mut Raw, body: &Json) {
    if raw.id.is_empty() {
        raw.id = text(body, "/id").to_owned();
    }
    if raw.model.is_empty() {
        raw.model = text(body, "/model").to_owned();
    }
}

/// What it says, or why it says nothing.
fn text_of(message: &Json) -> &str {
    let said = text(message, "/content");
    if said.is_empty() { text(message, "/refusal") } else { said }
}

fn stop(choice: &Json, message: &Json) -> Option<Stop> {
    let reason = choice.get("finish_reason")?.as_str()?;
    let refused = !text(message, "/refusal").is_empty();
    Some(match reason {
        "length" => Stop::Length,
        "content_filter" => Stop::Filtered,
        "tool_calls" | "function_call" => Stop::Tools,
        _ if refused => Stop::Filtered,
        _ => Stop::End,
    })
}

/// A text at a place; empty when there is none.
pub(super) fn text<'j>(json: &'j Json, pointer: &str) -> &'j str {
    json.pointer(pointer).and_then(Json::as_str).unwrap_or_default()
}

/// The items of a list; none when it is no list.
pub(super) fn items(json: Option<&Json>) -> impl Iterator<Item = &Json> {
    json.and_then(Json::as_array).into_iter().flatten()
}

#[cfg(test)]
#[path = "tests/openai.rs"]
pub(super) mod tests;
