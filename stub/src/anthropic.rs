//! The messages API of Anthropic, as its reference has it: requests are read and held to its rules about tool blocks, answers and
//! streams are written member by member in its order.

use std::io::Write as _;

use serde_json::{Value, json};

use crate::ask::{Api, Ask, Choice, Message, Role, Tool, list};
use crate::behaviour::{Cause, Refusal, Usage};
use crate::frames::Frames;
use crate::limits;
use crate::openai::check_choice;
use crate::reply::{Reply, Stop, as_value, fragments, quoted};
use crate::strict::{self, is_tool_name};

/// Reads a request. `counting`: nothing is to be answered, so nothing bounds the answer.
pub(crate) fn read(request: &Value, hash: u64, counting: bool) -> Result<Ask, Refusal> {
    let mut ask = Ask::begin(Api::Messages, request, hash)?;
    ask.include_usage = true;
    ask.output_tokens_max = request.get("max_tokens").and_then(Value::as_u64).filter(|most| *most > 0);
    if ask.output_tokens_max.is_none() && !counting {
        return Err(Refusal::invalid("max_tokens: Field required"));
    }
    let (mut tools_bytes, mut tools_cached) = (0, false);
    for (at, tool) in list(request, "tools", limits::TOOLS_MAX)?.iter().enumerate() {
        let Some(name) = tool.get("name").and_then(Value::as_str) else {
            return Err(Refusal::invalid(format!("tools.{at}.name: Field required")));
        };
        if !is_tool_name(name, 128) {
            let what =
                format!("tools.{at}.custom.name: String should match pattern '^[a-zA-Z0-9_-]{{1,128}}$'");
            return Err(Refusal::invalid(what));
        }
        if tool.pointer("/input_schema/type") != Some(&json!("object"))
            && tool.get("type").is_none_or(|kind| kind == "custom")
        {
            return Err(Refusal::invalid(format!(
                "tools.{at}.custom.input_schema.type: Field required, 'object'"
            )));
        }
        tools_bytes += tool.to_string().len();
        tools_cached |= marked(tool);
        let schema = tool.get("input_schema").cloned().unwrap_or_else(|| json!({"type": "object"}));
        ask.tools.push(Tool { name: name.to_owned(), schema });
    }
    if strict::repeated(&ask.tools).is_some() {
        return Err(Refusal::invalid("tools: Tool names must be unique."));
    }
    let choice = request.get("tool_choice").filter(|choice| !choice.is_null());
    ask.one_call =
        choice.and_then(|choice| choice.get("disable_parallel_tool_use")) == Some(&Value::Bool(true));
    ask.choice = check_choice(read_choice(choice)?, &ask.tools)?;
    // The second name is that of the time when it was new.
    let format = request.pointer("/output_config/format").or_else(|| request.get("output_format"));
    let schema = format.filter(|format| format.get("type") == Some(&json!("json_schema")));
    ask.schema = schema.and_then(|format| format.get("schema")).cloned();
    let messages = list(request, "messages", limits::MESSAGES_MAX)?;
    if messages.is_empty() {
        return Err(Refusal::invalid("messages: at least one message is required"));
    }
    let mut said = Vec::with_capacity(messages.len() + 1);
    if let Some(system) = request.get("system") {
        let mut message = Message::new(Role::System);
        blocks(&mut message, system, "system")?;
        said.push(message);
    }
    conversation(messages, &mut said)?;
    ask.converse(&said, tools_bytes, tools_cached);
    Ok(ask)
}

fn marked(block: &Value) -> bool {
    block.get("cache_control").is_some_and(|mark| !mark.is_null())
}

fn read_choice(choice: Option<&Value>) -> Result<Choice, Refusal> {
    let Some(choice) = choice else { return Ok(Choice::Free) };
    match choice.get("type").and_then(Value::as_str) {
        Some("auto") => Ok(Choice::Free),
        Some("none") => Ok(Choice::None),
        Some("any") => Ok(Choice::Any),
        Some("tool") => {
            let name = choice.get("name").and_then(Value::as_str);
            name.map(|name| Choice::Named(name.to_owned()))
                .ok_or_else(|| Refusal::invalid("tool_choice.tool.name: Field required"))
        }
        _ => Err(Refusal::invalid("tool_choice: Input tag must be one of 'auto', 'any', 'tool', 'none'")),
    }
}

/// Messages, with every `tool_use` answered in the message after it, and nothing else answered.
fn conversation(messages: &[Value], said: &mut Vec<Message>) -> Result<(), Refusal> {
    let mut open: Vec<String> = Vec::new();
    for (at, value) in messages.iter().enumerate() {
        let role = match value.get("role").and_then(Value::as_str) {
            Some("user") => Role::User,
            Some("assistant") if at > 0 => Role::Assistant,
            Some("assistant") => {
                return Err(Refusal::invalid("messages: first message must use the \"user\" role"));
            }
            _ => {
                let what = format!("messages.{at}.role: Input should be 'user' or 'assistant'");
                return Err(Refusal::invalid(what));
            }
        };
        let mut message = Message::new(role);
        let content = value.get("content").unwrap_or(&Value::Null);
        let mut tools = blocks(&mut message, content, &format!("messages.{at}.content"))?;
        let is_empty = content.as_str() == Some("") || content.as_array().is_some_and(Vec::is_empty);
        if is_empty && (role == Role::User || at + 1 < messages.len()) {
            return Err(Refusal::invalid(format!(
                "messages.{at}: all messages must have non-empty content except for the optional final assistant message"
            )));
        }
        if let Some(stray) = tools.results.iter().find(|id| !open.contains(id)) {
            return Err(Refusal::invalid(format!(
                "messages.{at}.content.0: unexpected `tool_use_id` found in `tool_result` blocks: {stray}. Each `tool_result` \
                 block must have a corresponding `tool_use` block in the previous message."
            )));
        }
        open.retain(|id| !tools.results.contains(id));
        unanswered(&open, at.saturating_sub(1))?;
        open.append(&mut tools.uses);
        said.push(message);
    }
    unanswered(&open, messages.len() - 1)
}

fn unanswered(open: &[String], at: usize) -> Result<(), Refusal> {
    if open.is_empty() {
        return Ok(());
    }
    Err(Refusal::invalid(format!(
        "messages.{at}: `tool_use` ids were found without `tool_result` blocks immediately after: {}. Each `tool_use` block \
         must have a corresponding `tool_result` block in the next message.",
        open.join(", ")
    )))
}

/// Ids of the tools that a message names.
#[derive(Default)]
struct Tools {
    uses: Vec<String>,
    results: Vec<String>,
}

fn blocks(message: &mut Message, content: &Value, place: &str) -> Result<Tools, Refusal> {
    let mut tools = Tools::default();
    let blocks = match content {
        Value::String(text) => {
            message.say(text);
            return Ok(tools);
        }
        Value::Array(blocks) => blocks,
        _ => return Err(Refusal::invalid(format!("{place}: Input should be a valid list"))),
    };
    for (at, block) in blocks.iter().enumerate() {
        let text = |name: &str| {
            let found = block.get(name).and_then(Value::as_str);
            found.ok_or_else(|| Refusal::invalid(format!("{place}.{at}.{name}: Field required")))
        };
        match block.get("type").and_then(Value::as_str) {
            Some("text") if text("text")?.is_empty() => {
                return Err(Refusal::invalid("messages: text content blocks must be non-empty"));
            }
            Some("text") => message.say(text("text")?),
            // Results come first; one that comes later counts as none.
            Some("tool_result") if at > tools.results.len() => {}
            Some("tool_use") => {
                let input = block.get("input").filter(|input| input.is_object()).ok_or_else(|| {
                    Refusal::invalid(format!(
                        "{place}.{at}.tool_use.input: Input should be a valid dictionary"
                    ))
                })?;
                message.bytes += text("name")?.len() + input.to_string().len();
                tools.uses.push(text("id")?.to_owned());
            }
            Some("tool_result") => {
                tools.results.push(text("tool_use_id")?.to_owned());
                // What a tool says is not what the user says.
                let mut result = Message::new(Role::Tool);
                let content = block.get("content").filter(|content| !content.is_null());
                if let Some(content) = content {
                    blocks_of_result(&mut result, content);
                }
                message.bytes += result.bytes;
                if !message.results.is_empty() {
                    message.results.push('\n');
                }
                message.results.push_str(&result.text);
            }
            Some(_) => message.show(),
            None => return Err(Refusal::invalid(format!("{place}.{at}.type: Field required"))),
        }
        message.cached |= marked(block);
    }
    Ok(tools)
}

fn blocks_of_result(result: &mut Message, content: &Value) {
    match content {
        Value::String(text) => result.say(text),
        Value::Array(parts) => {
            for part in parts {
                match part.get("text").and_then(Value::as_str) {
                    Some(text) => result.say(text),
                    None => result.show(),
                }
            }
        }
        _ => {}
    }
}

/// An answer in one piece.
pub(crate) fn whole(ask: &Ask, reply: &Reply) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    let _ = write!(
        out,
        r#"{{"id":"msg_{:016x}","type":"message","role":"assistant","model":{},"content":["#,
        ask.hash,
        quoted(&ask.model)
    );
    let mut comma = "";
    if let Some(text) = reply.text.as_deref().filter(|text| !text.is_empty()) {
        let _ = write!(out, r#"{{"type":"text","text":{}}}"#, quoted(text));
        comma = ",";
    }
    for call in &reply.calls {
        let (id, name, input) = (quoted(&call.id), quoted(&call.name), as_value(&call.arguments));
        let _ = write!(out, r#"{comma}{{"type":"tool_use","id":{id},"name":{name},"input":{input}}}"#);
        comma = ",";
    }
    let _ = write!(out, r#"],"stop_reason":{},"stop_sequence":null"#, quoted(finish(&reply.stop)));
    if let Some(usage) = &reply.usage {
        let _ = write!(out, r#","usage":{}"#, shown(usage, usage.output));
    }
    out.push(b'}');
    out
}

fn finish(stop: &Stop) -> &str {
    match stop {
        Stop::End => "end_turn",
        Stop::Tools => "tool_use",
        Stop::Length => "max_tokens",
        Stop::Named(named) => named,
    }
}

fn shown(usage: &Usage, output: u64) -> String {
    format!(
        r#"{{"input_tokens":{},"cache_creation_input_tokens":{},"cache_read_input_tokens":{},"output_tokens":{output}}}"#,
        usage.input, usage.cache_write, usage.cache_read
    )
}

/// An answer as events.
pub(crate) fn frames(ask: &Ask, reply: &Reply) -> Frames {
    let mut frames = Frames::default();
    let usage = reply
        .usage
        .map_or_else(String::new, |usage| format!(r#","usage":{}"#, shown(&usage, usage.output.min(1))));
    event(
        &mut frames,
        "message_start",
        &format!(
            r#","message":{{"id":"msg_{:016x}","type":"message","role":"assistant","model":{},"content":[],"stop_reason":null,"stop_sequence":null{usage}}}"#,
            ask.hash,
            quoted(&ask.model)
        ),
    );
    let mut index = 0;
    if let Some(text) = reply.text.as_deref().filter(|text| !text.is_empty()) {
        start(&mut frames, index, r#"{"type":"text","text":""}"#);
        for fragment in fragments(text, reply.chunk_chars) {
            text_delta(&mut frames, index, fragment);
        }
        event(&mut frames, "content_block_stop", &format!(r#","index":{index}"#));
        index += 1;
    }
    for call in &reply.calls {
        let (id, name) = (quoted(&call.id), quoted(&call.name));
        start(&mut frames, index, &format!(r#"{{"type":"tool_use","id":{id},"name":{name},"input":{{}}}}"#));
        for fragment in std::iter::once("").chain(fragments(&call.arguments, reply.chunk_chars)) {
            let delta = format!(r#"{{"type":"input_json_delta","partial_json":{}}}"#, quoted(fragment));
            event(&mut frames, "content_block_delta", &format!(r#","index":{index},"delta":{delta}"#));
        }
        event(&mut frames, "content_block_stop", &format!(r#","index":{index}"#));
        index += 1;
    }
    let usage = reply
        .usage
        .map_or_else(String::new, |usage| format!(r#","usage":{{"output_tokens":{}}}"#, usage.output));
    let stop = quoted(finish(&reply.stop));
    event(
        &mut frames,
        "message_delta",
        &format!(r#","delta":{{"stop_reason":{stop},"stop_sequence":null}}{usage}"#),
    );
    event(&mut frames, "message_stop", "");
    frames
}

/// Begins a block; the first one is followed by a ping.
fn start(frames: &mut Frames, index: usize, block: &str) {
    event(frames, "content_block_start", &format!(r#","index":{index},"content_block":{block}"#));
    if index == 0 {
        event(frames, "ping", "");
    }
}

/// One event with some more text.
pub(crate) fn text_delta(frames: &mut Frames, index: usize, text: &str) {
    let delta = format!(r#"{{"type":"text_delta","text":{}}}"#, quoted(text));
    event(frames, "content_block_delta", &format!(r#","index":{index},"delta":{delta}"#));
}

/// `members` begin with a comma, or there are none.
fn event(frames: &mut Frames, name: &str, members: &str) {
    let _ = write!(frames.buffer, "event: {name}\ndata: {{\"type\":\"{name}\"{members}}}\n\n");
    frames.end();
}

/// An error's body.
pub(crate) fn error(refusal: &Refusal, model: &str, request_id: &str) -> String {
    let (kind, sentence) = match (refusal.status, refusal.cause) {
        (_, Cause::ContextLength) => ("invalid_request_error", "prompt is too long: 200001 tokens > 200000 maximum".into()),
        (_, Cause::Quota) => (
            "invalid_request_error",
            "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing to upgrade or purchase credits."
                .into(),
        ),
        (401, _) => ("authentication_error", "invalid x-api-key".to_owned()),
        (402, _) => ("billing_error", "There is an issue with your billing or payment information.".into()),
        (403, _) => ("permission_error", "Your API key does not have permission to use the specified resource.".into()),
        (404, _) => ("not_found_error", format!("model: {model}")),
        (413, _) => ("request_too_large", "Request exceeds the maximum size".into()),
        (429, _) => (
            "rate_limit_error",
            "This request would exceed the rate limit for your organization of 3 requests per minute.".into(),
        ),
        (504, _) => ("timeout_error", "Request timed out".into()),
        (529, _) => ("overloaded_error", "Overloaded".into()),
        (500.., _) => ("api_error", "Internal server error".into()),
        _ => ("invalid_request_error", "Invalid request.".into()),
    };
    let message = quoted(refusal.message.as_ref().unwrap_or(&sentence));
    format!(
        r#"{{"type":"error","error":{{"type":"{kind}","message":{message}}},"request_id":"{request_id}"}}"#
    )
}
