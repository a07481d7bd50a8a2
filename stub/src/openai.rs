//! The chat API of OpenAI, as its reference has it: requests are read and held to its rules about tool calls, answers and streams
//! are written member by member in its order.

use std::io::Write as _;

use serde_json::{Value, json};

use crate::ask::{Api, Ask, Choice, Message, Role, Tool, list};
use crate::behaviour::{Cause, Refusal, Usage};
use crate::frames::Frames;
use crate::reply::{Reply, Stop, fragments, quoted};
use crate::strict::is_tool_name;
use crate::{limits, strict};

/// When everything was made: answers follow from requests alone.
pub(crate) const CREATED: u64 = 1_767_225_600;

/// Reads a request.
pub(crate) fn read(request: &Value, hash: u64) -> Result<Ask, Refusal> {
    let mut ask = Ask::begin(Api::Chat, request, hash)?;
    ask.include_usage = request.pointer("/stream_options/include_usage") == Some(&Value::Bool(true));
    if request.get("n").and_then(Value::as_u64).unwrap_or(1) != 1 {
        return Err(Refusal::invalid("stub: 'n' other than 1 is not supported"));
    }
    let most = request.get("max_completion_tokens").or_else(|| request.get("max_tokens"));
    ask.output_tokens_max = most.and_then(Value::as_u64);
    let mut tools_bytes = 0;
    for (at, tool) in list(request, "tools", limits::TOOLS_MAX)?.iter().enumerate() {
        let function = tool.get("function").filter(|_| tool.get("type") == Some(&json!("function")));
        let name = function.and_then(|function| function.get("name")).and_then(Value::as_str);
        let (Some(function), Some(name)) = (function, name) else {
            return Err(Refusal::invalid(format!("Missing required parameter: 'tools[{at}].function'.")));
        };
        if !is_tool_name(name, 64) {
            return Err(Refusal::invalid(format!(
                "Invalid 'tools[{at}].function.name': string does not match pattern. Expected a string that matches the pattern \
                 '^[a-zA-Z0-9_-]+$', of at most 64 characters."
            )));
        }
        tools_bytes += tool.to_string().len();
        let schema = function.get("parameters").cloned().unwrap_or_else(|| json!({"type": "object"}));
        if let Some(lack) =
            strict::lack(&schema).filter(|_| function.get("strict") == Some(&Value::Bool(true)))
        {
            return Err(Refusal::invalid(format!("Invalid schema for function '{name}': {lack}")));
        }
        ask.tools.push(Tool { name: name.to_owned(), schema });
    }
    if let Some(name) = strict::repeated(&ask.tools) {
        return Err(Refusal::invalid(format!("Invalid 'tools': two of them are called '{name}'.")));
    }
    ask.one_call = request.get("parallel_tool_calls") == Some(&Value::Bool(false));
    ask.choice = choice(request.get("tool_choice"), &ask.tools)?;
    ask.schema = schema(request.get("response_format"))?;
    let messages = list(request, "messages", limits::MESSAGES_MAX)?;
    if messages.is_empty() {
        return Err(Refusal::invalid("Missing required parameter: 'messages'."));
    }
    ask.converse(&conversation(messages)?, tools_bytes, false);
    Ok(ask)
}

fn choice(value: Option<&Value>, tools: &[Tool]) -> Result<Choice, Refusal> {
    let choice = match value {
        None | Some(Value::Null) => Choice::Free,
        Some(Value::String(word)) => match word.as_str() {
            "auto" => Choice::Free,
            "none" => Choice::None,
            "required" => Choice::Any,
            _ => {
                return Err(Refusal::invalid(format!(
                    "Invalid value: '{word}'. Supported values are: 'none', 'auto', and 'required'."
                )));
            }
        },
        Some(named) => {
            let name = named.pointer("/function/name").and_then(Value::as_str).unwrap_or_default();
            Choice::Named(name.to_owned())
        }
    };
    check_choice(choice, tools)
}

/// A tool that must be called has to be there.
pub(crate) fn check_choice(choice: Choice, tools: &[Tool]) -> Result<Choice, Refusal> {
    match &choice {
        Choice::Named(name) if !tools.iter().any(|tool| tool.name == *name) => {
            Err(Refusal::invalid(format!("Tool choice '{name}' not found in 'tools' parameter.")))
        }
        Choice::Any if tools.is_empty() => {
            Err(Refusal::invalid("'tool_choice' is only allowed when 'tools' are specified."))
        }
        _ => Ok(choice),
    }
}

fn schema(format: Option<&Value>) -> Result<Option<Value>, Refusal> {
    let Some(format) = format.filter(|format| !format.is_null()) else { return Ok(None) };
    match format.get("type").and_then(Value::as_str) {
        Some("text") => Ok(None),
        Some("json_object") => Ok(Some(json!({"required": ["answer"]}))),
        Some("json_schema") => {
            let Some(name) = format.pointer("/json_schema/name").and_then(Value::as_str) else {
                return Err(Refusal::invalid(
                    "Missing required parameter: 'response_format.json_schema.name'.",
                ));
            };
            let schema =
                format.pointer("/json_schema/schema").cloned().unwrap_or_else(|| json!({"type": "object"}));
            let is_strict = format.pointer("/json_schema/strict") == Some(&Value::Bool(true));
            match strict::lack(&schema).filter(|_| is_strict) {
                Some(lack) => {
                    Err(Refusal::invalid(format!("Invalid schema for response_format '{name}': {lack}")))
                }
                None => Ok(Some(schema)),
            }
        }
        _ => Err(Refusal::invalid("Invalid value: 'response_format.type'.")),
    }
}

/// Messages, with every tool call answered before anything else is said.
fn conversation(messages: &[Value]) -> Result<Vec<Message>, Refusal> {
    let mut said = Vec::with_capacity(messages.len());
    let mut open: Vec<String> = Vec::new();
    for (at, value) in messages.iter().enumerate() {
        let role = match value.get("role").and_then(Value::as_str) {
            Some("system" | "developer") => Role::System,
            Some("user") => Role::User,
            Some("assistant") => Role::Assistant,
            Some("tool") => Role::Tool,
            _ => return Err(Refusal::invalid(format!("Invalid value: 'messages[{at}].role'."))),
        };
        if role == Role::Tool {
            let id = value.get("tool_call_id").and_then(Value::as_str).unwrap_or_default();
            let place = open.iter().position(|open| open == id).ok_or_else(|| {
                Refusal::invalid(
                    "Invalid parameter: messages with role 'tool' must be a response to a preceeding message with 'tool_calls'.",
                )
            })?;
            open.swap_remove(place);
        } else {
            all_answered(&open)?;
        }
        let mut message = Message::new(role);
        content(&mut message, value.get("content"), at)?;
        if role == Role::Assistant {
            for call in list(value, "tool_calls", limits::CALLS_MAX)? {
                let text = |pointer| call.pointer(pointer).and_then(Value::as_str);
                let (Some(id), Some(name), Some(arguments)) =
                    (text("/id"), text("/function/name"), text("/function/arguments"))
                else {
                    return Err(Refusal::invalid(format!(
                        "Missing required parameter: 'messages[{at}].tool_calls[0]'."
                    )));
                };
                message.bytes += name.len() + arguments.len();
                open.push(id.to_owned());
            }
        }
        said.push(message);
    }
    all_answered(&open)?;
    Ok(said)
}

fn all_answered(open: &[String]) -> Result<(), Refusal> {
    if open.is_empty() {
        return Ok(());
    }
    Err(Refusal::invalid(format!(
        "An assistant message with 'tool_calls' must be followed by tool messages responding to each 'tool_call_id'. \
         The following tool_call_ids did not have response messages: {}",
        open.join(", ")
    )))
}

fn content(message: &mut Message, content: Option<&Value>, at: usize) -> Result<(), Refusal> {
    match content {
        Some(Value::String(text)) => message.say(text),
        Some(Value::Array(parts)) => {
            for part in parts {
                match part.get("text").and_then(Value::as_str) {
                    Some(text) => message.say(text),
                    None => message.show(),
                }
            }
        }
        None | Some(Value::Null) if message.role == Role::Assistant => {}
        _ => {
            return Err(Refusal::invalid(format!(
                "Invalid type for 'messages[{at}].content': expected one of a string or array of objects."
            )));
        }
    }
    Ok(())
}

/// An answer in one piece.
pub(crate) fn whole(ask: &Ask, reply: &Reply) -> Vec<u8> {
    let mut out = Vec::with_capacity(768);
    let content = reply.text.as_deref().map_or_else(|| "null".into(), quoted);
    let _ = write!(
        out,
        r#"{{"id":"chatcmpl-{:016x}","object":"chat.completion","created":{CREATED},"model":{},"choices":[{{"index":0,"message":{{"role":"assistant","content":{content},"refusal":null"#,
        ask.hash,
        quoted(&ask.model)
    );
    for (at, call) in reply.calls.iter().enumerate() {
        let _ = write!(
            out,
            r#"{}{{"id":{},"type":"function","function":{{"name":{},"arguments":{}}}}}"#,
            if at == 0 { r#","tool_calls":["# } else { "," },
            quoted(&call.id),
            quoted(&call.name),
            quoted(&call.arguments)
        );
    }
    let end = if reply.calls.is_empty() { "" } else { "]" };
    let _ = write!(out, r#"{end}}},"logprobs":null,"finish_reason":{}}}]"#, quoted(finish(&reply.stop)));
    if let Some(usage) = &reply.usage {
        let _ = write!(out, r#","usage":{}"#, shown(usage));
    }
    out.extend_from_slice(br#","system_fingerprint":"fp_stub"}"#);
    out
}

fn finish(stop: &Stop) -> &str {
    match stop {
        Stop::End => "stop",
        Stop::Tools => "tool_calls",
        Stop::Length => "length",
        Stop::Named(named) => named,
    }
}

/// What the API counts as prompt includes what came from the cache.
fn shown(usage: &Usage) -> String {
    let prompt = usage.input.saturating_add(usage.cache_read).saturating_add(usage.cache_write);
    format!(
        r#"{{"prompt_tokens":{prompt},"completion_tokens":{},"total_tokens":{},"prompt_tokens_details":{{"cached_tokens":{}}},"completion_tokens_details":{{"reasoning_tokens":0}}}}"#,
        usage.output,
        prompt.saturating_add(usage.output),
        usage.cache_read
    )
}

/// An answer as events.
pub(crate) struct Stream {
    head: String,
    tail: &'static str,
}

impl Stream {
    pub(crate) fn new(ask: &Ask) -> Self {
        let head = format!(
            r#"data: {{"id":"chatcmpl-{:016x}","object":"chat.completion.chunk","created":{CREATED},"model":{},"system_fingerprint":"fp_stub","choices":["#,
            ask.hash,
            quoted(&ask.model)
        );
        Self { head, tail: if ask.include_usage { r#","usage":null}"# } else { "}" } }
    }

    pub(crate) fn frames(&self, ask: &Ask, reply: &Reply) -> Frames {
        let mut frames = Frames::default();
        let opening = if reply.text.is_some() { r#""""# } else { "null" };
        self.chunk(&mut frames, &format!(r#""role":"assistant","content":{opening},"refusal":null"#), None);
        for fragment in fragments(reply.text.as_deref().unwrap_or_default(), reply.chunk_chars) {
            self.text(&mut frames, fragment);
        }
        for (at, call) in reply.calls.iter().enumerate() {
            let function = format!(r#"{{"name":{},"arguments":""}}"#, quoted(&call.name));
            let id = quoted(&call.id);
            let opened = format!(
                r#""tool_calls":[{{"index":{at},"id":{id},"type":"function","function":{function}}}]"#
            );
            self.chunk(&mut frames, &opened, None);
            for fragment in fragments(&call.arguments, reply.chunk_chars) {
                let arguments = quoted(fragment);
                let more =
                    format!(r#""tool_calls":[{{"index":{at},"function":{{"arguments":{arguments}}}}}]"#);
                self.chunk(&mut frames, &more, None);
            }
        }
        self.chunk(&mut frames, "", Some(finish(&reply.stop)));
        if let Some(usage) = reply.usage.as_ref().filter(|_| ask.include_usage) {
            let _ = write!(frames.buffer, "{}],\"usage\":{}}}\n\n", self.head, shown(usage));
            frames.end();
        }
        frames.push("data: [DONE]\n\n");
        frames
    }

    /// One chunk with some more text.
    pub(crate) fn text(&self, frames: &mut Frames, text: &str) {
        self.chunk(frames, &format!(r#""content":{}"#, quoted(text)), None);
    }

    fn chunk(&self, frames: &mut Frames, delta: &str, finish: Option<&str>) {
        let finish = finish.map_or_else(|| "null".into(), quoted);
        let _ = write!(
            frames.buffer,
            "{}{{\"index\":0,\"delta\":{{{delta}}},\"logprobs\":null,\"finish_reason\":{finish}}}]{}\n\n",
            self.head, self.tail
        );
        frames.end();
    }
}

/// An error's body.
pub(crate) fn error(refusal: &Refusal, model: &str) -> String {
    let (kind, code, param, sentence) = match (refusal.status, refusal.cause) {
        (_, Cause::ContextLength) => (
            "invalid_request_error",
            Some("context_length_exceeded"),
            Some("messages"),
            "This model's maximum context length is 128000 tokens. However, your messages resulted in 128001 tokens. \
             Please reduce the length of the messages."
                .into(),
        ),
        (_, Cause::Quota) => (
            "insufficient_quota",
            Some("insufficient_quota"),
            None,
            "You exceeded your current quota, please check your plan and billing details.".into(),
        ),
        (401, _) => {
            ("invalid_request_error", Some("invalid_api_key"), None, "Incorrect API key provided.".to_owned())
        }
        (403, _) => ("permission_error", None, None, format!("You are not allowed to use {model}.")),
        (404, _) => (
            "invalid_request_error",
            Some("model_not_found"),
            None,
            format!("The model `{model}` does not exist or you do not have access to it."),
        ),
        (429, _) => (
            "requests",
            Some("rate_limit_exceeded"),
            None,
            format!("Rate limit reached for {model} on requests per min (RPM): Limit 3, Used 3, Requested 1."),
        ),
        (503 | 529, _) => {
            let sentence = "The engine is currently overloaded, please try again later";
            ("service_unavailable_error", None, None, sentence.to_owned())
        }
        (500.., _) => {
            let sentence = "The server had an error while processing your request. Sorry about that!";
            ("server_error", None, None, sentence.to_owned())
        }
        _ => ("invalid_request_error", None, None, "Invalid request.".to_owned()),
    };
    let message = quoted(refusal.message.as_ref().unwrap_or(&sentence));
    let text = |value: Option<&str>| value.map_or_else(|| "null".into(), quoted);
    let (param, code) = (text(param), text(code));
    format!(r#"{{"error":{{"message":{message},"type":"{kind}","param":{param},"code":{code}}}}}"#)
}
