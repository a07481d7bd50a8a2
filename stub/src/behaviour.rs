//! What to do with one call: what to answer, and how to get it wrong. Read from the JSON of a script's `do` or of a `[[do: ...]]`
//! directive; a member that nobody knows, or one that is out of bounds, is refused with its name.

use serde_json::{Map, Value};

use crate::limits;

/// Parts that are not given are left to what would be answered anyway.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Behaviour {
    pub(crate) text: Option<String>,
    pub(crate) calls: Vec<Call>,
    pub(crate) usage: UsageRule,
    /// Why the answer ends, in the words of the provider.
    pub(crate) stop: Option<String>,
    /// An error in place of an answer.
    pub(crate) refusal: Option<Refusal>,
    pub(crate) delay_ms: u64,
    pub(crate) chunk_delay_ms: u64,
    pub(crate) chunk_chars: Option<usize>,
    pub(crate) fault: Option<Fault>,
    /// A stream breaks off with an error of this status.
    pub(crate) stream_error: Option<u16>,
    pub(crate) same_tool_id: bool,
}

/// A tool call to ask for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Call {
    pub(crate) name: String,
    /// As they are sent; not always JSON.
    pub(crate) arguments: String,
    pub(crate) id: Option<String>,
}

/// What the answer says it has cost.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum UsageRule {
    /// One token for each four bytes begun.
    #[default]
    Counted,
    Given(Usage),
    /// Nothing is said.
    Missing,
}

/// Tokens of one answer.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Usage {
    /// Those from or into a cache not counted.
    pub(crate) input: u64,
    pub(crate) output: u64,
    pub(crate) cache_read: u64,
    pub(crate) cache_write: u64,
}

impl Usage {
    /// More than anybody should add up without looking.
    const HUGE: Self =
        Self { input: i64::MAX as u64, output: i64::MAX as u64, cache_read: 0, cache_write: 0 };
}

/// An error, in each provider's words.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    pub(crate) cause: Cause,
    /// In place of the provider's own sentence.
    pub(crate) message: Option<String>,
    /// As the header has it.
    pub(crate) retry_after: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum Cause {
    /// As the status says.
    #[default]
    Status,
    ContextLength,
    Quota,
}

impl Refusal {
    pub(crate) fn new(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self { status: 400, message: Some(message.into()), ..Self::default() }
    }
}

/// A way to break an answer on the wire.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fault {
    /// A page of HTML with status 200.
    Html,
    /// Status 200 and no body.
    Empty,
    /// The answer ends in the middle, and says that it is whole.
    Truncated,
    /// `content-length` says more than comes; then the connection closes.
    LongerLength,
    /// `content-length` says less than the answer has.
    ShorterLength,
    /// The connection closes in the middle of the answer.
    Closed,
    /// The connection closes before the answer.
    NoAnswer,
    /// The answer goes on until the caller leaves.
    Endless,
}

const FAULTS: [(&str, Fault); 8] = [
    ("html", Fault::Html),
    ("empty", Fault::Empty),
    ("truncated", Fault::Truncated),
    ("longer_length", Fault::LongerLength),
    ("shorter_length", Fault::ShorterLength),
    ("closed", Fault::Closed),
    ("no_answer", Fault::NoAnswer),
    ("endless", Fault::Endless),
];

impl Behaviour {
    /// Reads a `do`.
    pub(crate) fn read(value: &Value) -> Result<Self, String> {
        let members = value.as_object().ok_or("a behaviour is an object")?;
        let mut behaviour = Self::default();
        let mut refusal = Refusal::default();
        for (name, value) in members {
            behaviour.member(name, value, &mut refusal).map_err(|what| format!("`{name}`: {what}"))?;
        }
        if refusal != Refusal::default() {
            if refusal.status == 0 {
                return Err("`error`, `message` and `retry_after` need a `status`".into());
            }
            behaviour.refusal = Some(refusal);
        }
        if behaviour.calls.len() > limits::CALLS_MAX {
            return Err(format!("{} tool calls; {} are allowed", behaviour.calls.len(), limits::CALLS_MAX));
        }
        Ok(behaviour)
    }

    fn member(&mut self, name: &str, value: &Value, refusal: &mut Refusal) -> Result<(), String> {
        match name {
            "text" => self.say(&text(value)?),
            "json" => self.say(&value.to_string()),
            "tools" => {
                let list = value.as_array().ok_or("a list of tool calls")?;
                self.calls.extend(list.iter().map(call).collect::<Result<Vec<_>, _>>()?);
            }
            "patch" => self.calls.push(patch(value)?),
            "usage" => self.usage = usage(value)?,
            "stop" => self.stop = Some(text(value)?),
            "status" => refusal.status = status(value)?,
            "error" => {
                refusal.cause = match value.as_str() {
                    Some("context_length") => Cause::ContextLength,
                    Some("quota") => Cause::Quota,
                    _ => return Err("context_length or quota".into()),
                }
            }
            "message" => refusal.message = Some(text(value)?),
            "retry_after" => {
                let shown = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                if !shown.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
                    return Err("a number of seconds, or the text of a header".into());
                }
                refusal.retry_after = Some(shown);
            }
            "delay_ms" => self.delay_ms = number(value, 0, limits::DELAY_MS_MAX)?,
            "chunk_delay_ms" => self.chunk_delay_ms = number(value, 0, limits::DELAY_MS_MAX)?,
            "chunk_chars" => {
                let chars = number(value, 1, limits::CHUNK_CHARS_MAX)?;
                self.chunk_chars = usize::try_from(chars).ok();
            }
            "fault" => {
                let named = FAULTS.iter().find(|(name, _)| value.as_str() == Some(name));
                let names = || FAULTS.map(|(name, _)| name).join(", ");
                self.fault = Some(named.ok_or_else(|| format!("one of {}", names()))?.1);
            }
            "stream_error" => self.stream_error = Some(status(value)?),
            "same_tool_id" => self.same_tool_id = value.as_bool().ok_or("true or false")?,
            _ => return Err("there is no such member of a behaviour".into()),
        }
        Ok(())
    }

    /// Adds to the text.
    pub(crate) fn say(&mut self, more: &str) {
        match &mut self.text {
            Some(text) => {
                text.push('\n');
                text.push_str(more);
            }
            None => self.text = Some(more.to_owned()),
        }
    }

    /// Whether it says what to answer, not only how.
    pub(crate) fn says_what(&self) -> bool {
        self.text.is_some() || !self.calls.is_empty()
    }

    /// Takes over what `other` says; texts and calls are added to those here.
    pub(crate) fn take_over(&mut self, other: Self) {
        if let Some(text) = &other.text {
            self.say(text);
        }
        self.calls.extend(other.calls);
        if other.usage != UsageRule::Counted {
            self.usage = other.usage;
        }
        self.stop = other.stop.or(self.stop.take());
        self.refusal = other.refusal.or(self.refusal.take());
        self.delay_ms = self.delay_ms.max(other.delay_ms);
        self.chunk_delay_ms = self.chunk_delay_ms.max(other.chunk_delay_ms);
        self.chunk_chars = other.chunk_chars.or(self.chunk_chars);
        self.fault = other.fault.or(self.fault);
        self.stream_error = other.stream_error.or(self.stream_error);
        self.same_tool_id |= other.same_tool_id;
    }
}

/// A call of the tool by which an agent changes its run. A list is the operations, an object all the arguments.
pub(crate) fn patch(value: &Value) -> Result<Call, String> {
    let arguments = match value {
        Value::Array(_) => {
            let mut members = Map::new();
            members.insert("operations".into(), value.clone());
            members.insert("justification".into(), "asked for by the script".into());
            Value::Object(members)
        }
        Value::Object(_) => value.clone(),
        _ => return Err("a list of operations, or an object with `operations`".into()),
    };
    Ok(Call { name: "propose_patch".into(), arguments: arguments.to_string(), id: None })
}

fn call(value: &Value) -> Result<Call, String> {
    let members = value.as_object().ok_or("a tool call is an object")?;
    let (mut name, mut arguments, mut id) = (None, None, None);
    for (member, value) in members {
        match member.as_str() {
            "name" => name = Some(text(value)?),
            "arguments" => arguments = Some(value.to_string()),
            "raw" => arguments = Some(text(value)?),
            "id" => id = Some(text(value)?),
            _ => return Err(format!("a tool call has no `{member}`")),
        }
    }
    let name = name.ok_or("a tool call needs a `name`")?;
    Ok(Call { name, arguments: arguments.unwrap_or_else(|| "{}".into()), id })
}

fn usage(value: &Value) -> Result<UsageRule, String> {
    match value {
        Value::String(word) if word == "missing" => Ok(UsageRule::Missing),
        Value::String(word) if word == "huge" => Ok(UsageRule::Given(Usage::HUGE)),
        Value::Object(members) => {
            let mut usage = Usage::default();
            for (name, value) in members {
                let tokens = value.as_u64().ok_or_else(|| format!("{name} is a number of tokens"))?;
                match name.as_str() {
                    "in" => usage.input = tokens,
                    "out" => usage.output = tokens,
                    "cache_read" => usage.cache_read = tokens,
                    "cache_write" => usage.cache_write = tokens,
                    _ => return Err(format!("there is no {name}")),
                }
            }
            Ok(UsageRule::Given(usage))
        }
        _ => Err("{in, out, cache_read, cache_write}, missing or huge".into()),
    }
}

fn text(value: &Value) -> Result<String, String> {
    value.as_str().map(str::to_owned).ok_or_else(|| "a text".into())
}

fn number(value: &Value, least: u64, most: u64) -> Result<u64, String> {
    let fits = value.as_u64().filter(|number| (least..=most).contains(number));
    fits.ok_or_else(|| format!("a number from {least} to {most}"))
}

fn status(value: &Value) -> Result<u16, String> {
    let number = number(value, 400, 599)?;
    u16::try_from(number).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_behaviour_says_what_and_how() {
        let read = |value| Behaviour::read(&value).unwrap();
        let tools = json!([{"name": "a", "arguments": {"b": 1}, "id": "x"}, {"name": "c"}, {"name": "d", "raw": "{"}]);
        let behaviour = read(json!({"text": "hi", "tools": tools, "usage": {"in": 3, "cache_read": 2}}));
        assert_eq!(behaviour.text.as_deref(), Some("hi"));
        let arguments: Vec<&str> = behaviour.calls.iter().map(|call| call.arguments.as_str()).collect();
        assert_eq!(arguments, [r#"{"b":1}"#, "{}", "{"]);
        assert_eq!(behaviour.usage, UsageRule::Given(Usage { input: 3, cache_read: 2, ..Usage::default() }));
        let busy = read(json!({"status": 429, "retry_after": 2})).refusal.unwrap();
        assert_eq!((busy.status, busy.retry_after.as_deref()), (429, Some("2")));
        let patch = read(json!({"patch": [{"op": "add"}]}));
        assert!(patch.calls[0].arguments.contains(r#""operations":[{"op":"add"}]"#));
    }

    #[test]
    fn what_is_no_behaviour_is_refused_by_name() {
        for (value, part) in [
            (json!({"txt": "a"}), "`txt`"),
            (json!({"status": 200}), "`status`: a number from 400 to 599"),
            (json!({"message": "a"}), "need a `status`"),
            (json!({"fault": "boom"}), "no_answer"),
            (json!({"delay_ms": 600_001}), "`delay_ms`"),
            (json!({"tools": [{"arguments": {}}]}), "needs a `name`"),
            (json!({"usage": {"inn": 1}}), "no inn"),
            (json!({"status": 429, "retry_after": "a\nb"}), "`retry_after`"),
            (json!([]), "an object"),
        ] {
            let error = Behaviour::read(&value).unwrap_err();
            assert!(error.contains(part), "{value}: {error}");
        }
    }
}
