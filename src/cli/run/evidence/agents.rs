//! What the agents of a run did and why, from the events about their turns; and who changed the node that failed.
//!
//! What was said is not kept: counts, names, and the words of corrections and refusals, which the caller bounds with the number
//! of events.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;
use serde_json::Value;

use super::{error, text};

/// An agent.
#[derive(Debug, Default, Serialize)]
pub(in crate::cli::run) struct Agent {
    pub(in crate::cli::run) node: String,
    /// Answers by model.
    pub(in crate::cli::run) answers: BTreeMap<String, u64>,
    /// Calls by tool, those that failed and were refused among them.
    pub(in crate::cli::run) tools: BTreeMap<String, u64>,
    pub(in crate::cli::run) why: Vec<Turned>,
}

/// Why it took another turn than it would have.
#[derive(Debug, Serialize)]
pub(in crate::cli::run) struct Turned {
    /// `corrected`, `degraded`, `tool_failed`, `budget_exceeded`.
    pub(in crate::cli::run) what: &'static str,
    /// The tool, or the model.
    pub(in crate::cli::run) of: Option<String>,
    /// In the words of the record.
    pub(in crate::cli::run) said: String,
}

/// Does this module know what to make of it?
pub(super) fn concerns(kind: &str) -> bool {
    matches!(
        kind,
        "model.called"
            | "model.answered"
            | "tool.called"
            | "tool.returned"
            | "agent.corrected"
            | "model.degraded"
            | "model.recovered"
            | "context.trimmed"
            | "budget.exceeded"
    )
}

/// Takes the next event about an agent.
pub(super) fn take(agents: &mut Vec<Agent>, kind: &str, row: &Value) {
    let node = text(row, "node");
    let at = agents.iter().position(|agent| agent.node == node).unwrap_or_else(|| {
        agents.push(Agent { node: node.to_owned(), ..Agent::default() });
        agents.len() - 1
    });
    let Some(agent) = agents.get_mut(at) else { return };
    let of = |member: &str| Some(text(row, member).to_owned()).filter(|name| !name.is_empty());
    match kind {
        "model.answered" => {
            *agent.answers.entry(text(row, "model").to_owned()).or_default() += 1;
        }
        "tool.returned" => {
            for result in row.get("results").and_then(Value::as_array).into_iter().flatten() {
                let tool = text(result, "tool");
                *agent.tools.entry(tool.to_owned()).or_default() += 1;
                if result.get("ok") == Some(&Value::Bool(false)) {
                    let said = fault(&error(result));
                    agent.why.push(Turned { what: "tool_failed", of: Some(tool.to_owned()), said });
                }
            }
        }
        "agent.corrected" => {
            agent.why.push(Turned { what: "corrected", of: None, said: text(row, "message").to_owned() });
        }
        "model.degraded" => {
            let figure = |member: &str| row.get(member).and_then(Value::as_u64).unwrap_or_default();
            let (said, model) = match of("from_model") {
                // Another model is asked while this one spikes.
                Some(from) => {
                    let (measured, threshold) = (figure("measured"), figure("threshold"));
                    let (reason, to, unit) = (text(row, "reason"), text(row, "to_model"), text(row, "unit"));
                    (
                        format!("{reason}: {measured} over {threshold} {unit}; {to} is asked instead"),
                        Some(from),
                    )
                }
                None => (fault(&error(row)), of("model")),
            };
            agent.why.push(Turned { what: "degraded", of: model, said });
        }
        "model.recovered" => {
            let said = String::from("it is asked again");
            agent.why.push(Turned { what: "recovered", of: of("to_model"), said });
        }
        "context.trimmed" => {
            let figure = |member: &str| row.get(member).and_then(Value::as_u64).unwrap_or_default();
            let said = format!(
                "{} answers left out; about {} tokens, now {}",
                figure("turns_left_out"),
                figure("tokens_before"),
                figure("tokens_after")
            );
            agent.why.push(Turned { what: "trimmed", of: of("model"), said });
        }
        "budget.exceeded" => {
            let usd = of("reserved_usd").map(|usd| format!("${usd}, ")).unwrap_or_default();
            let tokens = row.get("reserved_tokens").and_then(Value::as_u64).unwrap_or_default();
            let by =
                of("scope").map(|scope| format!("; {scope} per {}", text(row, "per"))).unwrap_or_default();
            let left = of("left_usd").map(|left| format!(", ${left} of ${} are left", text(row, "usd")));
            let left = left.unwrap_or_default();
            let said = format!("its next call may take {usd}{tokens} tokens{by}{left}");
            agent.why.push(Turned { what: "budget_exceeded", of: of("model"), said });
        }
        _ => {}
    }
}

fn fault(error: &Value) -> String {
    format!("{}: {}", text(error, "code"), text(error, "message"))
}

impl Agent {
    /// In one line.
    pub(in crate::cli::run) fn told(&self) -> String {
        let mut told = String::new();
        let count = |count: &u64| if *count == 1 { String::new() } else { format!(" x{count}") };
        for (at, (model, answers)) in self.answers.iter().enumerate() {
            let _ = write!(told, "{}{model}{}", if at == 0 { "asked " } else { ", " }, count(answers));
        }
        for (at, (tool, calls)) in self.tools.iter().enumerate() {
            let _ = write!(told, "{}{tool}{}", if at == 0 { "; used " } else { ", " }, count(calls));
        }
        if told.is_empty() { String::from("asked nobody yet") } else { told }
    }
}

/// The lines of what was spent, from `GET /v1/runs/{id}/cost`.
pub(in crate::cli::run) fn spent(cost: &Value) -> Vec<String> {
    let line = |name: &str, part: &Value| {
        let count =
            |member: &str| part.pointer(&format!("/tokens/{member}")).and_then(Value::as_u64).unwrap_or(0);
        let read = ["input", "cache_read", "cache_write"].into_iter().map(count).fold(0, u64::saturating_add);
        let answers = part.get("answers").and_then(Value::as_u64).unwrap_or(0);
        let unpriced = match part.get("unpriced_answers").and_then(Value::as_u64).unwrap_or(0) {
            0 => String::new(),
            unpriced => format!(", {unpriced} without a price"),
        };
        format!(
            "{name}  ${}  {answers} answers{unpriced}, {read} tokens read, {} written",
            text(part, "usd"),
            count("output")
        )
    };
    let rows = cost.get("by_node").and_then(Value::as_array).into_iter().flatten();
    std::iter::once(line("run", cost)).chain(rows.map(|row| line(text(row, "name"), row))).collect()
}

/// The layer that the failed node is of, when a patch put it there: its row of `GET /v1/runs/{id}/blame`.
pub(in crate::cli::run) fn patched<'b>(blame: &'b Value, node: &str) -> Option<&'b Value> {
    let outermost = node.split(['[', '.']).next().unwrap_or_default();
    let rows = blame.get("nodes").and_then(Value::as_array)?;
    rows.iter().find(|row| text(row, "id") == outermost && row.get("author").is_some_and(Value::is_string))
}
