//! What happened in at most fifteen words (F340): by rules, from a row of the timeline and nothing else. Pure.
//!
//! What must hold: no summary has more than [`limits::SUMMARY_WORDS_MAX`] words, whatever a run brings; nothing of what agents said
//! or were told is in one. Names, codes, numbers and reasons are; what looks like a key is taken out of them. An event of a
//! type that is not known here is told by its type.

use serde_json::Value as Json;

use crate::limits;
use crate::model::credential;

/// Letters of one word: a name, a code, an amount.
const WORD_LETTERS_MAX: usize = 96;

/// A row of the timeline in a few words.
pub fn of(row: &Json) -> String {
    limited(&credential::masked(&sentence(row)))
}

/// A run in a few words, by its view.
pub fn of_run(run: &Json) -> String {
    let workflow = text(run, "workflow");
    let told = match text(run, "status") {
        "failed" => format!("{workflow} failed with {}", code(run)),
        "" => workflow.to_owned(),
        status => format!("{workflow} {status} after {} events", number(run, "seq")),
    };
    limited(&credential::masked(&told))
}

/// What a model said of an event, as it is told.
pub fn said(words: &str) -> String {
    limited(&credential::masked(words))
}

fn limited(told: &str) -> String {
    let words = told.split_whitespace().take(limits::SUMMARY_WORDS_MAX);
    let short = |word: &str| match word.char_indices().nth(WORD_LETTERS_MAX) {
        Some((at, _)) => format!("{}…", word.get(..at).unwrap_or_default()),
        None => word.to_owned(),
    };
    words.map(short).collect::<Vec<_>>().join(" ")
}

fn text<'j>(json: &'j Json, member: &str) -> &'j str {
    json.get(member).and_then(Json::as_str).unwrap_or_default()
}

fn number(json: &Json, member: &str) -> u64 {
    json.get(member).and_then(Json::as_u64).unwrap_or_default()
}

fn code(json: &Json) -> &str {
    let code = json.pointer("/error/code").and_then(Json::as_str);
    code.unwrap_or("an error")
}

fn list<'j>(json: &'j Json, member: &str) -> &'j [Json] {
    json.get(member).and_then(Json::as_array).map_or(&[], Vec::as_slice)
}

/// The names of tools, the first few of them.
fn tools(items: &[Json]) -> String {
    let names: Vec<&str> = items.iter().take(3).map(|item| text(item, "tool")).collect();
    let more = items.len().saturating_sub(names.len());
    if more > 0 { format!("{} and {more} more", names.join(", ")) } else { names.join(", ") }
}

fn sentence(row: &Json) -> String {
    let (kind, node) = (text(row, "type"), text(row, "node"));
    match kind.split_once('.').unwrap_or((kind, "")).0 {
        "run" => run(row, kind),
        "node" | "timer" | "signal" => of_node(row, kind, node),
        "model" | "tool" | "agent" | "budget" => agent(row, kind, node),
        "patch" => {
            let by = [text(row, "author"), text(row, "by")].concat();
            let by = if by.is_empty() { by } else { format!(" by {by}") };
            format!("patch {}{by}", kind.trim_start_matches("patch."))
        }
        "approval" => match row.get("approved").and_then(Json::as_bool) {
            Some(true) => format!("{node} approved by {}", text(row, "reviewer")),
            Some(false) => format!("{node} rejected by {}", text(row, "reviewer")),
            None => format!("{node}: {kind}"),
        },
        _ => format!("{node} {kind}"),
    }
}

fn run(row: &Json, kind: &str) -> String {
    match kind {
        "run.started" => format!("{}@{} started", text(row, "workflow"), text(row, "version")),
        "run.failed" => format!("run failed with {}", code(row)),
        "run.completed" => "run completed".into(),
        "run.cancelled" | "run.cancel_requested" | "run.paused" => {
            let what = kind.trim_start_matches("run.").replace('_', " ");
            format!("run {what}: {}", text(row, "reason"))
        }
        _ => format!("run {}", kind.trim_start_matches("run.").replace('_', " ")),
    }
}

fn of_node(row: &Json, kind: &str, node: &str) -> String {
    match kind {
        "node.started" => format!("{node} started, attempt {}", number(row, "attempt")),
        "node.waiting" => format!("{node} waits for {}", text(row, "waiting_for")),
        "node.failed" => format!("{node} failed with {}", code(row)),
        "node.retry_scheduled" => {
            format!("{node} failed with {}, tried again at {}", code(row), text(row, "due"))
        }
        "node.fell_back" => format!("{node} fell back after {}", code(row)),
        "signal.received" => format!("signal {} received", text(row, "signal")),
        _ => format!("{node} {}", kind.split_once('.').map_or("", |(_, verb)| verb).replace('_', " ")),
    }
}

fn agent(row: &Json, kind: &str, node: &str) -> String {
    let model = text(row, "model");
    let tokens = || {
        let of = |member| row.get("tokens").map_or(0, |tokens| number(tokens, member));
        ["input", "output", "cache_read", "cache_write"].into_iter().map(of).fold(0, u64::saturating_add)
    };
    let usd =
        |member| row.get(member).and_then(Json::as_str).map_or("unpriced".into(), |usd| format!("${usd}"));
    match kind {
        "model.called" => format!("{node} asks {model}, {} reserved", usd("reserved_usd")),
        "model.answered" => {
            format!(
                "{model} answered {node}: {} tokens, {}, {} ms",
                tokens(),
                usd("cost_usd"),
                number(row, "took_ms")
            )
        }
        "model.degraded" => format!("{node} takes its next model after {}", code(row)),
        "tool.called" => format!("{node} calls {}", tools(list(row, "calls"))),
        "tool.returned" => {
            let results = list(row, "results");
            let failed = results.iter().filter(|result| result.get("ok") == Some(&Json::Bool(false))).count();
            match failed {
                0 => format!("{} returned to {node}", tools(results)),
                _ => format!("{} returned to {node}, {failed} failed", tools(results)),
            }
        }
        "agent.corrected" => format!("{node} is told what is wrong with its answer"),
        "budget.exceeded" => format!("{node} would exceed the budget with {model}"),
        "budget.warned" => format!("${} of the budget used", text(row, "used_usd")),
        "budget.raised" => format!("budget raised by {}", text(row, "by")),
        _ => format!("{node} {kind}"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    // F340
    #[test]
    fn what_happened_is_told_in_a_few_words_without_what_was_said() {
        let said = json!({"type": "model.answered", "node": "write", "model": "big", "cost_usd": "0.02", "took_ms": 9,
            "tokens": {"input": 7, "output": 3}, "content": "the secret plan"});
        let calls = json!([{"tool": "a", "arguments": "x"}, {"tool": "b"}, {"tool": "c"}, {"tool": "d"}]);
        for (row, told) in [
            (json!({"type": "run.started", "workflow": "w", "version": "1"}), "w@1 started"),
            (
                json!({"type": "node.started", "node": "each[3].score", "attempt": 2}),
                "each[3].score started, attempt 2",
            ),
            (
                json!({"type": "node.failed", "node": "a", "error": {"code": "timeout"}}),
                "a failed with timeout",
            ),
            (json!({"type": "node.completed", "node": "a", "output": "secret"}), "a completed"),
            (said, "big answered write: 10 tokens, $0.02, 9 ms"),
            (json!({"type": "tool.called", "node": "a", "calls": calls}), "a calls a, b, c and 1 more"),
            (
                json!({"type": "tool.returned", "node": "a", "results": [{"tool": "x", "ok": false}]}),
                "x returned to a, 1 failed",
            ),
            (
                json!({"type": "patch.created", "author": "agent:r", "justification": "long"}),
                "patch created by agent:r",
            ),
            (
                json!({"type": "approval.decided", "node": "r", "approved": false, "reviewer": "ops"}),
                "r rejected by ops",
            ),
            (
                json!({"type": "run.paused", "reason": "sk-proj-abcdefghijklmnopqrstuvwx"}),
                "run paused: [redacted]",
            ),
            (json!({"type": "edge.taken"}), "edge.taken"),
        ] {
            assert_eq!(of(&row), told);
        }
        assert_eq!(
            of_run(&json!({"workflow": "w", "status": "failed", "error": {"code": "timeout"}})),
            "w failed with timeout"
        );
        assert_eq!(
            of_run(&json!({"workflow": "w", "status": "running", "seq": 4})),
            "w running after 4 events"
        );
        let long = json!({"type": "run.paused", "reason": "a b c d e f g h i j k l m n o p q r s t"});
        assert_eq!(of(&long), "run paused: a b c d e f g h i j k l m");
    }

    proptest! {
        // F340
        #[test]
        fn no_summary_is_longer_than_fifteen_words(
            kind in prop::sample::select(vec!["run.paused", "run.failed", "node.failed", "signal.received", "tool.called",
                "patch.created", "approval.decided", "budget.raised", "model.answered", "x"]),
            words in ".{0,200}",
        ) {
            let row = json!({"type": kind, "node": words, "reason": words, "signal": words, "author": words, "by": words, "reviewer": words,
                "approved": true, "model": words, "cost_usd": words, "error": {"code": words}, "calls": [{"tool": words}, {"tool": words}]});
            for told in [of(&row), of_run(&json!({"workflow": words, "status": words}))] {
                prop_assert!(told.split_whitespace().count() <= 15, "{told}");
                prop_assert!(told.len() <= 15 * 4 * (WORD_LETTERS_MAX + 2), "{told}");
            }
        }
    }
}
