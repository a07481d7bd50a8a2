//! Directives in a user's text: what to do, turn by turn, without any other script (docs/operating/stub-model.md).
//!
//! `[[turn]]` ends a turn; what stands before the first one is for the first turn. After the last turn the answer is what it would
//! be without directives. `[[` followed by any other word is text. A directive that is begun and broken is an error, because a
//! test that has a typo in it should not pass.

use serde_json::{Deserializer, Value};

use crate::behaviour::{Behaviour, Call, Usage, UsageRule, patch};
use crate::limits;

/// The words that make it a directive, each with what ends the word.
const WORDS: [&str; 8] = ["tool:", "tool-raw:", "say:", "json:", "usage:", "patch:", "do:", "turn]]"];

/// Whether there is a directive in a text.
pub(crate) fn is_in(text: &str) -> bool {
    next(text).is_some()
}

/// What the directives ask for at this turn, the first being 1. None when they have nothing to say about it.
pub(crate) fn at_turn(text: &str, turn: usize) -> Result<Option<Behaviour>, String> {
    let mut found: Option<Behaviour> = None;
    let (mut rest, mut current) = (text, 1);
    for _ in 0..limits::DIRECTIVES_MAX {
        let Some((word, after)) = next(rest) else { return Ok(found) };
        if word == "turn]]" {
            current += 1;
            rest = after;
            continue;
        }
        let (asked, after) =
            directive(word, after).map_err(|what| format!("stub: [[{word} ...]]: {what}"))?;
        if current == turn {
            found.get_or_insert_default().take_over(asked);
        }
        rest = after;
    }
    Err(format!("stub: more than {} directives in one text", limits::DIRECTIVES_MAX))
}

/// The next directive's word, and what follows it.
fn next(text: &str) -> Option<(&'static str, &str)> {
    let mut rest = text;
    while let Some((_, after)) = rest.split_once("[[") {
        // Of `[[[` the last two count.
        let after = after.trim_start_matches('[');
        if let Some(found) = WORDS.iter().find_map(|word| Some((*word, after.strip_prefix(word)?))) {
            return Some(found);
        }
        rest = after;
    }
    None
}

fn directive<'t>(word: &str, text: &'t str) -> Result<(Behaviour, &'t str), String> {
    let mut behaviour = Behaviour::default();
    let rest = match word {
        "say:" => {
            let (said, rest) = words(text)?;
            behaviour.say(said);
            rest
        }
        "json:" => {
            let (value, rest) = value(text)?;
            behaviour.say(&value.to_string());
            rest
        }
        "tool:" => {
            let (name, after) = name(text)?;
            let (arguments, rest) = match after.trim_start().strip_prefix("]]") {
                Some(rest) => ("{}".to_owned(), rest),
                None => value(after).map(|(value, rest)| (value.to_string(), rest))?,
            };
            behaviour.calls.push(Call { name, arguments, id: None });
            rest
        }
        "tool-raw:" => {
            let (name, after) = name(text)?;
            let (arguments, rest) = words(after)?;
            behaviour.calls.push(Call { name, arguments: arguments.to_owned(), id: None });
            rest
        }
        "usage:" => {
            let (numbers, rest) = words(text)?;
            behaviour.usage = usage(numbers)?;
            rest
        }
        "patch:" => {
            let (value, rest) = value(text)?;
            behaviour.calls.push(patch(&value)?);
            rest
        }
        _ => {
            let (value, rest) = value(text)?;
            behaviour = Behaviour::read(&value)?;
            rest
        }
    };
    Ok((behaviour, rest))
}

/// A text up to the end of the directive.
fn words(text: &str) -> Result<(&str, &str), String> {
    let (inner, rest) = text.split_once("]]").ok_or("has no end")?;
    Ok((inner.trim(), rest))
}

/// A JSON value and the end of the directive; `]]` inside the value does not end it.
fn value(text: &str) -> Result<(Value, &str), String> {
    let mut values = Deserializer::from_str(text).into_iter::<Value>();
    let value = values.next().ok_or("has no value")?.map_err(|error| error.to_string())?;
    let after = text.get(values.byte_offset()..).unwrap_or_default();
    let rest = after.trim_start().strip_prefix("]]").ok_or("something stands between the value and ]]")?;
    Ok((value, rest))
}

fn name(text: &str) -> Result<(String, &str), String> {
    let text = text.trim_start();
    let end =
        text.find(|character: char| character.is_whitespace() || character == ']').unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    if name.is_empty() { Err("has no name".into()) } else { Ok((name.to_owned(), rest)) }
}

fn usage(text: &str) -> Result<UsageRule, String> {
    let numbers: Option<Vec<u64>> = text.split(',').map(|number| number.trim().parse().ok()).collect();
    let usage = match numbers.as_deref() {
        Some([input, output]) => Usage { input: *input, output: *output, ..Usage::default() },
        Some([input, output, cache_read, cache_write]) => {
            Usage { input: *input, output: *output, cache_read: *cache_read, cache_write: *cache_write }
        }
        _ => return Err("in,out or in,out,cache_read,cache_write".into()),
    };
    Ok(UsageRule::Given(usage))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directives_are_taken_turn_by_turn() {
        let text = r#"Do it. [[tool:search {"q": [["a"]]}]] and [[tool:now]] [[usage: 7, 8]] [[turn]]
            [[say: I thought about it. ]][[json: {"a": [1]}]] [[turn]] [[turn]] [[patch: [{"op": "test"}]]]"#;
        let at = |turn| at_turn(text, turn).unwrap();
        let first = at(1).unwrap();
        let calls: Vec<(&str, &str)> =
            first.calls.iter().map(|call| (call.name.as_str(), call.arguments.as_str())).collect();
        assert_eq!(calls, [("search", r#"{"q":[["a"]]}"#), ("now", "{}")]);
        assert_eq!(first.usage, UsageRule::Given(Usage { input: 7, output: 8, ..Usage::default() }));
        assert_eq!(at(2).unwrap().text.as_deref(), Some("I thought about it.\n{\"a\":[1]}"));
        assert_eq!((at(3), at(5)), (None, None));
        assert_eq!(at(4).unwrap().calls[0].name, "propose_patch");
    }

    #[test]
    fn other_brackets_are_text_and_a_broken_directive_is_an_error() {
        for text in ["", "[[", "see [[wiki]] and a[[0]]", "[[turns]]", "[[ say: no]]"] {
            assert!(!is_in(text) && at_turn(text, 1).unwrap().is_none(), "{text}");
        }
        assert!(is_in("a[[[[say: b]]"));
        let raw = at_turn("[[tool-raw:f {not json]] [[do: {\"status\": 529}]]", 1).unwrap().unwrap();
        assert_eq!((raw.calls[0].arguments.as_str(), raw.refusal.unwrap().status), ("{not json", 529));
        for (text, part) in [
            ("[[say: a", "has no end"),
            ("[[tool: ]]", "has no name"),
            ("[[tool:f {a}]]", "[[tool: ...]]"),
            ("[[json: 1 2]]", "between"),
            ("[[usage: 1]]", "in,out"),
            ("[[do: {\"x\": 1}]]", "`x`"),
            ("[[turn]] [[patch: 1]]", "operations"),
        ] {
            let error = at_turn(text, 1).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
        assert!(at_turn(&"[[turn]]".repeat(1_001), 1).is_err());
    }
}
