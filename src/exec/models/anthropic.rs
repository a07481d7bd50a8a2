//! Messages: how requests are written and answers read, whole or in pieces. Pure.
//!
//! As in `openai`, what is not as it should be is left out or makes the answer invalid. A schema that the answer has to fit
//! is asked for in words: the interface has no field for one.

use serde_json::json;

use super::events::Event;
use super::openai::{items, text};
use super::prompt::{Json, Prompt, shown, tool_name};
use super::refusal;
use super::reply::{Raw, invalid};
use super::settings::Model;
use crate::model::agent::{Answer, Returned, Said, Stop};
use crate::model::money::Tokens;
use crate::model::{Failure, Value};

/// The version of the interface that requests name.
pub(super) const VERSION: &str = "2023-06-01";

/// The body of a request.
pub(super) fn request(prompt: &Prompt<'_>, model: &Model) -> Json {
    let mut turns = Turns::default();
    turns.user(json!({"type": "text", "text": prompt.user}));
    for said in &prompt.said {
        match said {
            Said::Model(answer) => turns.assistant(answer),
            Said::Tools(returned) => returned.iter().for_each(|one| turns.user(result(one))),
            Said::Correction(correction) => turns.user(json!({"type": "text", "text": &**correction})),
            Said::Aside(_) | Said::Trimmed(_) => {}
        }
    }
    let mut body =
        json!({"model": model.id, "max_tokens": prompt.max_output_tokens, "messages": turns.messages});
    let mut set = |key: &str, value: Json| {
        if let Json::Object(members) = &mut body {
            members.insert(key.to_owned(), value);
        }
    };
    let system = match prompt.schema {
        None => prompt.system.clone(),
        Some(schema) => prompt.system_with(&format!(
            "Your last answer is one JSON value that fits this JSON Schema, and nothing beside it, no marks around it:\n{}",
            schema.to_json()
        )),
    };
    if !system.is_empty() {
        set("system", system.into());
    }
    if let Some(temperature) = prompt.temperature {
        // It goes up to 1 here.
        set("temperature", temperature.min(1.0).into());
    }
    if !prompt.tools.is_empty() {
        let tools = prompt.tools.iter().map(|tool| {
            json!({"name": &*tool.name, "description": &*tool.description, "input_schema": &tool.parameters})
        });
        set("tools", tools.collect());
    }
    if model.provider.stream {
        set("stream", true.into());
    }
    body
}

/// Messages, whose sides take turns.
#[derive(Default)]
struct Turns {
    messages: Vec<Json>,
}

impl Turns {
    /// Adds to the user's message when it is the last one.
    fn user(&mut self, block: Json) {
        let last =
            self.messages.last_mut().filter(|last| last.get("role").and_then(Json::as_str) == Some("user"));
        match last.and_then(|last| last.get_mut("content")).and_then(Json::as_array_mut) {
            Some(blocks) => blocks.push(block),
            None => self.messages.push(json!({"role": "user", "content": [block]})),
        }
    }

    fn assistant(&mut self, answer: &Answer) {
        let mut blocks = Vec::with_capacity(answer.calls.len() + 1);
        if !answer.content.trim().is_empty() {
            blocks.push(json!({"type": "text", "text": &*answer.content}));
        }
        blocks.extend(answer.calls.iter().map(|call| {
            let input = match &call.arguments {
                Value::Map(_) => json!(&call.arguments),
                other => json!({"arguments": other}),
            };
            json!({"type": "tool_use", "id": &*call.id, "name": tool_name(&call.name), "input": input})
        }));
        if blocks.is_empty() {
            // A message of nothing is refused.
            blocks.push(json!({"type": "text", "text": "(nothing)"}));
        }
        self.messages.push(json!({"role": "assistant", "content": blocks}));
    }
}

fn result(one: &Returned) -> Json {
    let failed = one.outcome.is_err();
    json!({"type": "tool_result", "tool_use_id": &*one.id, "content": shown(one), "is_error": failed})
}

/// Reads a whole answer.
///
/// # Errors
/// `model_answer_invalid`, or what the provider says went wrong.
pub(super) fn read(body: &Json) -> Result<Raw, Failure> {
    if let Some(error) = body.get("error").filter(|error| !error.is_null()) {
        return Err(refusal::told(error, false));
    }
    let blocks = body.get("content").and_then(Json::as_array).ok_or_else(|| invalid("it has no content"))?;
    let mut raw = Raw { id: text(body, "/id").into(), model: text(body, "/model").into(), ..Raw::default() };
    for (index, block) in blocks.iter().enumerate() {
        begin(&mut raw, index as u64, block)?;
        if let Some(input) = block.get("input") {
            raw.argue(index as u64, &input.to_string())?;
        }
    }
    raw.stop = stop(body);
    raw.usage = body.get("usage").cloned().unwrap_or_default();
    raw.over = true;
    Ok(raw)
}

/// A block begins: of text, or a call. Others (thoughts) are not for us.
fn begin(raw: &mut Raw, index: u64, block: &Json) -> Result<String, Failure> {
    match text(block, "/type") {
        "text" => {
            let said = text(block, "/text");
            raw.say(said)?;
            Ok(said.to_owned())
        }
        "tool_use" => raw.call(index, text(block, "/id"), text(block, "/name")).map(|()| String::new()),
        _ => Ok(String::new()),
    }
}

/// Takes one event of a streamed answer; gives the text that it brings.
///
/// # Errors
/// As for [`read`].
pub(super) fn take(raw: &mut Raw, event: &Event) -> Result<String, Failure> {
    let said: Json = serde_json::from_str(&event.data)
        .map_err(|error| invalid(&format!("a piece of it is no JSON: {error}")))?;
    let index = said.get("index").and_then(Json::as_u64).unwrap_or_default();
    match text(&said, "/type") {
        "message_start" => {
            raw.id = text(&said, "/message/id").into();
            raw.model = text(&said, "/message/model").into();
            merge(&mut raw.usage, said.pointer("/message/usage"));
            for block in items(said.pointer("/message/content")) {
                begin(raw, 0, block)?;
            }
        }
        "content_block_start" => {
            if let Some(block) = said.get("content_block") {
                return begin(raw, index, block);
            }
        }
        "content_block_delta" => match text(&said, "/delta/type") {
            "text_delta" => {
                let piece = text(&said, "/delta/text");
                raw.say(piece)?;
                return Ok(piece.to_owned());
            }
            "input_json_delta" => raw.argue(index, text(&said, "/delta/partial_json"))?,
            _ => {}
        },
        "message_delta" => {
            if let Some(delta) = said.get("delta") {
                raw.stop = stop(delta).or(raw.stop);
            }
            merge(&mut raw.usage, said.get("usage"));
        }
        "message_stop" => raw.over = true,
        "error" => return Err(refusal::told(said.get("error").unwrap_or(&Json::Null), raw.has_begun())),
        // Pings, ends of blocks, and what is to come.
        _ => {}
    }
    Ok(String::new())
}

/// What is said later counts.
fn merge(usage: &mut Json, more: Option<&Json>) {
    let Some(more) = more.and_then(Json::as_object) else { return };
    match usage.as_object_mut() {
        Some(members) => {
            let told = more.iter().filter(|(_, figure)| !figure.is_null());
            members.extend(told.map(|(key, figure)| (key.clone(), figure.clone())));
        }
        None => *usage = Json::Object(more.clone()),
    }
}

/// What it took; `None` when the provider does not say so plainly.
pub(super) fn tokens(usage: &Json) -> Option<Tokens> {
    let figure = |key: &str| usage.get(key)?.as_u64();
    let cached = |key: &str| match usage.get(key) {
        None | Some(Json::Null) => Some(0),
        Some(figure) => figure.as_u64(),
    };
    Some(Tokens {
        input: figure("input_tokens")?,
        output: figure("output_tokens")?,
        cache_read: cached("cache_read_input_tokens")?,
        cache_write: cached("cache_creation_input_tokens")?,
    })
}

fn stop(message: &Json) -> Option<Stop> {
    Some(match message.get("stop_reason")?.as_str()? {
        "max_tokens" | "model_context_window_exceeded" => Stop::Length,
        "tool_use" => Stop::Tools,
        "refusal" => Stop::Filtered,
        _ => Stop::End,
    })
}

#[cfg(test)]
#[path = "tests/anthropic.rs"]
pub(super) mod tests;
