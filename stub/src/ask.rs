//! One call, as both APIs mean it: who is asked, what was said, what may be called, and what it costs.
//!
//! Tokens follow from bytes alone: one token for each four bytes begun, of all texts, names and arguments of tools, results of
//! tools, and the JSON of the tools themselves; a part that is no text counts as 1,024 bytes.

use serde_json::Value;

use crate::behaviour::{Refusal, Usage};
use crate::{directive, limits};

/// Bytes that a picture or a document stands for.
const PART_BYTES: usize = 1_024;

/// Which API was called.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum Api {
    #[default]
    Chat,
    Messages,
    Embeddings,
}

impl Api {
    pub(crate) fn named(name: &str) -> Option<Self> {
        match name {
            "chat" => Some(Self::Chat),
            "messages" => Some(Self::Messages),
            "embeddings" => Some(Self::Embeddings),
            _ => None,
        }
    }
}

/// A call.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ask {
    pub(crate) api: Api,
    pub(crate) model: String,
    pub(crate) stream: bool,
    /// A stream says in the end what it has cost.
    pub(crate) include_usage: bool,
    pub(crate) system: String,
    /// What the user said in all messages.
    pub(crate) user_texts: String,
    /// What the user said last.
    pub(crate) asked: String,
    /// Text of the last message, whoever said it, and results of tools in it.
    pub(crate) last: String,
    /// From 1: one more than there are answers in the conversation.
    pub(crate) turn: usize,
    /// The last text with directives, and which of its turns this is.
    pub(crate) directives: Option<(String, usize)>,
    pub(crate) tools: Vec<Tool>,
    pub(crate) choice: Choice,
    /// Only one tool may be asked for at a time.
    pub(crate) one_call: bool,
    /// Schema of the answer.
    pub(crate) schema: Option<Value>,
    pub(crate) output_tokens_max: Option<u64>,
    /// What was said so far; `output` is 0.
    pub(crate) usage: Usage,
    /// Of the whole request.
    pub(crate) hash: u64,
}

/// A tool that may be asked for.
#[derive(Clone, Debug)]
pub(crate) struct Tool {
    pub(crate) name: String,
    pub(crate) schema: Value,
}

/// Which tools must be asked for.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum Choice {
    #[default]
    Free,
    None,
    Any,
    Named(String),
}

/// Who says something.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Role {
    System,
    User,
    Assistant,
    Tool,
}

/// One message.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) role: Role,
    pub(crate) text: String,
    /// What tools have said.
    pub(crate) results: String,
    /// Of all parts.
    pub(crate) bytes: usize,
    /// What comes up to here is for the cache.
    pub(crate) cached: bool,
}

impl Message {
    pub(crate) fn new(role: Role) -> Self {
        Self { role, text: String::new(), results: String::new(), bytes: 0, cached: false }
    }

    /// Adds a part that is a text.
    pub(crate) fn say(&mut self, text: &str) {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        self.text.push_str(text);
        self.bytes += text.len();
    }

    /// Adds a part that is none.
    pub(crate) fn show(&mut self) {
        self.bytes += PART_BYTES;
    }
}

impl Ask {
    /// Takes in what both APIs name alike.
    pub(crate) fn begin(api: Api, request: &Value, hash: u64) -> Result<Self, Refusal> {
        let model = request.get("model").and_then(Value::as_str).unwrap_or_default();
        if model.is_empty() || model.len() > limits::MODEL_BYTES_MAX {
            let most = limits::MODEL_BYTES_MAX;
            return Err(Refusal::invalid(format!(
                "you must provide a model parameter, of at most {most} bytes"
            )));
        }
        let stream = request.get("stream").and_then(Value::as_bool).unwrap_or(false);
        Ok(Self { api, model: model.to_owned(), stream, hash, ..Self::default() })
    }

    /// Lets go of what was said, once it is decided what to answer: calls may be held back in great numbers.
    pub(crate) fn forget_texts(&mut self) {
        for text in [&mut self.system, &mut self.user_texts, &mut self.asked, &mut self.last] {
            *text = String::new();
        }
        (self.directives, self.schema) = (None, None);
        self.tools = Vec::new();
    }

    /// Takes in the conversation, and counts it. `tools_bytes` are the tools' own.
    pub(crate) fn converse(&mut self, messages: &[Message], tools_bytes: usize, tools_cached: bool) {
        let (mut total, mut cached) = (tools_bytes, if tools_cached { tools_bytes } else { 0 });
        let mut answers_after_directives = 0;
        self.turn = 1;
        for message in messages {
            total += message.bytes;
            if message.cached {
                cached = total;
            }
            match message.role {
                Role::System => push(&mut self.system, &message.text),
                Role::Assistant => {
                    self.turn += 1;
                    answers_after_directives += 1;
                }
                Role::User if !message.text.is_empty() => {
                    push(&mut self.user_texts, &message.text);
                    self.asked.clone_from(&message.text);
                    if directive::is_in(&message.text) {
                        self.directives = Some((message.text.clone(), 0));
                        answers_after_directives = 0;
                    }
                }
                Role::User | Role::Tool => {}
            }
        }
        if let Some((_, turn)) = &mut self.directives {
            *turn = answers_after_directives + 1;
        }
        if let Some(last) = messages.last() {
            self.last.clone_from(&last.results);
            push(&mut self.last, &last.text);
        }
        let (whole, kept) = (tokens(total), tokens(cached));
        self.usage = Usage { input: whole - kept, ..Usage::default() };
        // The cache is filled at the first turn and read at all others: this follows from the request alone.
        *(if self.turn == 1 { &mut self.usage.cache_write } else { &mut self.usage.cache_read }) = kept;
    }
}

fn push(whole: &mut String, part: &str) {
    if !whole.is_empty() {
        whole.push('\n');
    }
    whole.push_str(part);
}

/// One for each four bytes begun.
pub(crate) fn tokens(bytes: usize) -> u64 {
    bytes.div_ceil(4) as u64
}

/// A list within bounds; none is an empty one.
pub(crate) fn list<'v>(request: &'v Value, name: &str, most: usize) -> Result<&'v [Value], Refusal> {
    match request.get(name) {
        None | Some(Value::Null) => Ok(&[]),
        Some(Value::Array(list)) if list.len() <= most => Ok(list),
        Some(Value::Array(list)) => {
            Err(Refusal::invalid(format!("{name}: {} entries; {most} are allowed", list.len())))
        }
        Some(_) => Err(Refusal::invalid(format!("{name}: must be an array"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(role: Role, text: &str, cached: bool) -> Message {
        let mut message = Message { cached, ..Message::new(role) };
        message.say(text);
        message
    }

    #[test]
    fn turns_are_counted_from_the_text_with_directives() {
        let mut ask = Ask::default();
        ask.converse(
            &[
                message(Role::System, "be brief", false),
                message(Role::User, "hello", false),
                message(Role::Assistant, "hi", false),
                message(Role::User, "[[say: a]]", false),
                message(Role::Assistant, "a", false),
                message(Role::User, "once more, that is no JSON", false),
            ],
            0,
            false,
        );
        assert_eq!((ask.turn, ask.directives), (3, Some(("[[say: a]]".into(), 2))));
        assert_eq!((&*ask.asked, &*ask.last), ("once more, that is no JSON", "once more, that is no JSON"));
        assert_eq!((&*ask.system, ask.user_texts.lines().count()), ("be brief", 3));
    }

    #[test]
    fn what_is_marked_is_written_to_the_cache_first_and_then_read() {
        let mut first = Ask::default();
        first.converse(
            &[message(Role::System, "12345678", true), message(Role::User, "1234", false)],
            5,
            false,
        );
        assert_eq!(first.usage, Usage { input: 1, cache_write: 4, ..Usage::default() });
        let mut second = Ask::default();
        second.converse(
            &[message(Role::User, "1", true), message(Role::Assistant, "12345", false)],
            0,
            false,
        );
        assert_eq!(second.usage, Usage { input: 1, cache_read: 1, ..Usage::default() });
    }
}
