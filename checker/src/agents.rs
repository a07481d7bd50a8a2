//! Turns of agents and their money (I-18), from the events of the last dump alone: what is reserved and spent stays within
//! the budget at every event, and nobody is asked again for a turn that is recorded.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::fold;
use crate::history::{Dumped, History, Row, text};
use crate::report::Findings;

/// Failures that no provider bills: nothing was sent, or it was refused before the model was asked.
const UNBILLED: [&str; 15] = [
    "address_refused",
    "circuit_breaker_open",
    "connection_refused",
    "context_overflow",
    "http_request_invalid",
    "model_request_invalid",
    "model_unauthorized",
    "model_unknown",
    "name_not_found",
    "no_model",
    "overloaded",
    "rate_limited",
    "redirect_refused",
    "secret_not_found",
    "tls_failed",
];

pub(crate) fn check(history: &History, findings: &mut Findings) {
    for run in history.last().into_iter().flat_map(|dump| dump.runs.values()) {
        let document = fold::base(history, run);
        let limit = document.and_then(|document| document.pointer("/limits/budget/usd")).and_then(nanos);
        let mut purse = Purse { run, limit, spent: 0, turns: BTreeMap::new() };
        for row in &run.rows {
            history.step();
            purse.event(row, findings);
        }
    }
}

/// Dollars, written as a text, in billionths.
fn nanos(dollars: &Value) -> Option<u64> {
    let (whole, part) = dollars.as_str()?.split_once('.').unwrap_or((dollars.as_str()?, ""));
    let part = format!("{part:0<9}");
    whole.parse::<u64>().ok()?.checked_mul(1_000_000_000)?.checked_add(part.get(..9)?.parse().ok()?)
}

/// Where an agent stands.
#[derive(Default)]
struct Turn {
    /// The answer of this turn.
    answered: Option<usize>,
    /// What is reserved for its call.
    open: Option<(usize, u64)>,
}

struct Purse<'h> {
    run: &'h Dumped,
    limit: Option<u64>,
    spent: u64,
    turns: BTreeMap<String, Turn>,
}

impl Purse<'_> {
    fn event(&mut self, row: &Row, findings: &mut Findings) {
        let id = &self.run.run.run;
        let amount = |member: &str| row.event.get(member).and_then(nanos).unwrap_or(0);
        if row.kind() == "budget.raised" {
            self.limit = self.limit.map(|limit| limit.saturating_add(amount("usd")));
            return;
        }
        if row.kind() == "run.forked" {
            // The other run pays for the calls that were under way there.
            self.turns.values_mut().for_each(|turn| turn.open = None);
        }
        if row.node().is_empty() {
            return;
        }
        let turn = self.turns.entry(row.node().to_owned()).or_default();
        match row.kind() {
            kind @ ("model.called" | "model.answered") => {
                if let Some(line) = turn.answered {
                    let what = format!("{} of {id} has its answer, and {kind} follows", row.node());
                    findings.add("paid_twice", vec![line, row.line], what);
                }
                if kind == "model.called" {
                    if let Some((line, _)) = turn.open.replace((row.line, amount("reserved_usd"))) {
                        let what = format!("{} of {id} has two calls at once", row.node());
                        findings.add("paid_twice", vec![line, row.line], what);
                    }
                } else {
                    if turn.open.take().is_none() {
                        let what = format!("nothing was reserved for this answer of {} of {id}", row.node());
                        findings.add("unreserved_answer", vec![row.line], what);
                    }
                    turn.answered = Some(row.line);
                    self.spent = self.spent.saturating_add(amount("cost_usd"));
                }
            }
            "tool.returned" | "agent.corrected" => turn.answered = None,
            // A provider that finds a conversation too long bills nothing.
            "context.trimmed" => turn.open = None,
            "node.started" if row.event.get("attempt").and_then(Value::as_u64) == Some(1) => {
                turn.answered = None;
            }
            "node.lost"
            | "node.retry_scheduled"
            | "node.failed"
            | "node.fell_back"
            | "node.uncertain"
            | "model.degraded"
            | "timer.fired"
            | "node.completed" => {
                let code = row.event.pointer("/error/code").and_then(Value::as_str).unwrap_or_default();
                if let Some((_, quote)) = turn.open.take()
                    && !UNBILLED.contains(&code)
                {
                    self.spent = self.spent.saturating_add(quote);
                }
            }
            _ => {}
        }
        self.within(row, findings);
    }

    fn within(&self, row: &Row, findings: &mut Findings) {
        let open = self.turns.values().filter_map(|turn| turn.open);
        let reserved = open.clone().fold(0_u64, |sum, (_, quote)| sum.saturating_add(quote));
        let all = self.spent.saturating_add(reserved);
        if let Some(limit) = self.limit.filter(|limit| all > *limit) {
            let lines = open.map(|(line, _)| line).chain([row.line]).take(10).collect();
            let what = format!(
                "{} has spent {} and reserved {reserved} of {limit} billionths",
                text(&self.run.run.body, "run_id"),
                self.spent
            );
            findings.add("overspent", lines, what);
        }
    }
}
