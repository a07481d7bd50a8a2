//! What is answered: the script's word if it has one, else the directives', else what follows from the request: a forced tool is
//! called, a schema gets its least instance, anything else gets words drawn from a hash.

use std::borrow::Cow;

use serde_json::Value;

use crate::ask::{Api, Ask, Choice, tokens};
use crate::behaviour::{Behaviour, Call, Refusal, Usage, UsageRule};
use crate::{directive, hash, instance, limits};

/// Characters of a fragment, unless the behaviour says otherwise.
const CHUNK_CHARS: usize = 16;

/// An answer before it is put in an API's words.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Reply {
    pub(crate) text: Option<String>,
    pub(crate) calls: Vec<Asked>,
    pub(crate) stop: Stop,
    /// What the answer says; none when it is to say nothing.
    pub(crate) usage: Option<Usage>,
    /// What it has cost by the stub's own account.
    pub(crate) cost: Usage,
    pub(crate) chunk_chars: usize,
}

/// A tool call with its id.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Asked {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) arguments: String,
}

/// Why the answer ends.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Stop {
    End,
    Tools,
    Length,
    Named(String),
}

/// The behaviour in full: always with something to say, or a refusal.
pub(crate) fn decide(ask: &Ask, rule: Option<&Behaviour>) -> Result<Behaviour, Refusal> {
    if let Some(rule) = rule.filter(|rule| rule.says_what() || rule.refusal.is_some()) {
        return Ok(rule.clone());
    }
    let mut behaviour = match &ask.directives {
        Some((text, turn)) => directive::at_turn(text, *turn).map_err(Refusal::invalid)?.unwrap_or_default(),
        None => Behaviour::default(),
    };
    if let Some(rule) = rule {
        behaviour.take_over(rule.clone());
    }
    if !behaviour.says_what() && behaviour.refusal.is_none() {
        unscripted(ask, &mut behaviour)?;
    }
    Ok(behaviour)
}

fn unscripted(ask: &Ask, behaviour: &mut Behaviour) -> Result<(), Refusal> {
    let forced = match &ask.choice {
        Choice::Any => ask.tools.first(),
        Choice::Named(name) => ask.tools.iter().find(|tool| tool.name == *name),
        Choice::Free | Choice::None => None,
    };
    let least =
        |schema: &Value| instance::instance(schema).map_err(|what| Refusal::invalid(format!("stub: {what}")));
    if let Some(tool) = forced {
        let arguments = least(&tool.schema)?.to_string();
        behaviour.calls.push(Call { name: tool.name.clone(), arguments, id: None });
    } else if let Some(schema) = &ask.schema {
        behaviour.say(&least(schema)?.to_string());
    } else {
        behaviour.say(&hash::answer(&ask.model, &ask.asked));
    }
    Ok(())
}

/// The answer that a behaviour without refusal gives.
pub(crate) fn reply(ask: &Ask, behaviour: &Behaviour) -> Reply {
    let mut text = behaviour.text.clone();
    let most = match ask.choice {
        Choice::None => 0,
        _ if ask.one_call => 1,
        _ => usize::MAX,
    };
    let calls = behaviour.calls.iter().take(most).enumerate();
    let calls: Vec<Asked> = calls.map(|(at, call)| asked(ask, behaviour, at, call)).collect();
    if calls.is_empty() && text.is_none() {
        text = Some(String::new());
    }
    let mut stop = if calls.is_empty() { Stop::End } else { Stop::Tools };
    let of_calls: usize = calls.iter().map(|call| call.name.len() + call.arguments.len()).sum();
    let whole = tokens(text.as_ref().map_or(0, String::len) + of_calls);
    let most = ask.output_tokens_max.unwrap_or(u64::MAX);
    // Calls are never cut: which of them would be left is nothing a caller could learn from.
    if let Some(text) = text.as_mut().filter(|_| calls.is_empty() && whole > most) {
        let most = usize::try_from(most.saturating_mul(4)).unwrap_or(usize::MAX);
        text.truncate(text.floor_char_boundary(most));
        stop = Stop::Length;
    }
    let counted = Usage { output: whole.min(most), ..ask.usage };
    let (usage, cost) = match behaviour.usage {
        UsageRule::Counted => (Some(counted), counted),
        UsageRule::Given(given) => (Some(given), given),
        UsageRule::Missing => (None, counted),
    };
    if let Some(named) = &behaviour.stop {
        stop = Stop::Named(named.clone());
    }
    // Of one byte to a character there are the most.
    let bytes = text.as_ref().map_or(0, String::len) + of_calls;
    let chunk_chars = behaviour.chunk_chars.unwrap_or(CHUNK_CHARS).max(bytes / limits::FRAGMENTS_MAX);
    Reply { text, calls, stop, usage, cost, chunk_chars }
}

fn asked(ask: &Ask, behaviour: &Behaviour, at: usize, call: &Call) -> Asked {
    let prefix = if ask.api == Api::Messages { "toolu" } else { "call" };
    let place = if behaviour.same_tool_id { 0 } else { at };
    let id = call.id.clone().unwrap_or_else(|| format!("{prefix}_{:016x}{place:04}", ask.hash));
    Asked { id, name: call.name.clone(), arguments: call.arguments.clone() }
}

/// A text in fragments of so many characters; an empty text has none.
pub(crate) fn fragments(text: &str, chars: usize) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end = rest.char_indices().nth(chars).map_or(rest.len(), |(at, _)| at);
        let (fragment, after) = rest.split_at(end);
        rest = after;
        Some(fragment)
    })
}

/// A text as JSON has it, with its quotes.
pub(crate) fn quoted(text: &str) -> String {
    serde_json::to_string(text).unwrap_or_default()
}

/// Arguments as a JSON value: those that are none become a text.
pub(crate) fn as_value(arguments: &str) -> Cow<'_, str> {
    match serde_json::from_str::<Value>(arguments) {
        Ok(_) => Cow::Borrowed(arguments),
        Err(_) => Cow::Owned(quoted(arguments)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::ask::Tool;

    fn of(ask: &Ask, rule: Option<&Value>) -> Reply {
        let rule = rule.map(|rule| Behaviour::read(rule).unwrap());
        reply(ask, &decide(ask, rule.as_ref()).unwrap())
    }

    #[test]
    fn the_script_comes_before_directives_and_directives_before_the_rest() {
        let ask = Ask { directives: Some(("[[say: directed]]".into(), 1)), ..Ask::default() };
        assert_eq!(of(&ask, None).text.as_deref(), Some("directed"));
        assert_eq!(of(&ask, Some(&json!({"text": "scripted"}))).text.as_deref(), Some("scripted"));
        let slow = of(&ask, Some(&json!({"usage": "missing"})));
        assert_eq!((slow.text.as_deref(), slow.usage), (Some("directed"), None), "the rule says only how");
        let later = Ask { directives: Some(("[[say: directed]]".into(), 2)), ..Ask::default() };
        assert!(of(&later, None).text.unwrap().starts_with("Answer "));
    }

    #[test]
    fn a_forced_tool_is_called_and_a_schema_is_answered() {
        let schema = json!({"required": ["a"], "properties": {"a": {"type": "integer"}}});
        let tools = vec![Tool { name: "f".into(), schema: schema.clone() }];
        let forced = Ask { tools, choice: Choice::Any, ..Ask::default() };
        let reply = of(&forced, None);
        assert_eq!((&*reply.calls[0].arguments, reply.stop), (r#"{"a":0}"#, Stop::Tools));
        let shaped = Ask { schema: Some(schema), ..Ask::default() };
        assert_eq!(of(&shaped, None).text.as_deref(), Some(r#"{"a":0}"#));
        let refused = Ask { choice: Choice::None, ..Ask::default() };
        assert!(of(&refused, Some(&json!({"tools": [{"name": "f"}]}))).calls.is_empty());
    }

    #[test]
    fn an_answer_that_is_too_long_is_cut_and_says_so() {
        let ask = Ask { output_tokens_max: Some(2), ..Ask::default() };
        let reply = of(&ask, Some(&json!({"text": "1234567äöü"})));
        assert_eq!(
            (reply.text.as_deref(), reply.stop, reply.cost.output),
            (Some("1234567"), Stop::Length, 2)
        );
    }

    #[test]
    fn a_long_answer_has_no_more_fragments_than_may_be() {
        let text = "x".repeat(1 << 20);
        let reply = of(&Ask::default(), Some(&json!({"text": text, "chunk_chars": 1})));
        let count = fragments(&text, reply.chunk_chars).count();
        assert!(count > 5_000 && count <= limits::FRAGMENTS_MAX + 100, "{count}");
    }

    #[test]
    fn fragments_are_whole_characters_and_make_the_text() {
        let parts: Vec<&str> = fragments("aäöbc", 2).collect();
        assert_eq!(parts, ["aä", "öb", "c"]);
        assert_eq!(fragments("", 2).count(), 0);
    }
}
