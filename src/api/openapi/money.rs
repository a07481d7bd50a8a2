//! The operations about what runs spend.

use serde_json::{Value as Json, json};

use super::described::{BAD, NO_RUN, Paths, UNFIT};
use super::operation::operation;
use super::shapes::{list, object, request, text, whole};
use crate::limits;

pub(super) fn usd() -> Json {
    json!({"type": "string", "pattern": "^[0-9]+\\.[0-9]{2,9}$", "description": "Dollars, exact"})
}

/// Members of every sum.
pub(super) fn sums() -> Vec<(&'static str, Json)> {
    let tokens = ["input", "output", "cache_read", "cache_write"].map(|name| (name, whole()));
    let mut members =
        vec![("usd", usd()), ("reserved_usd", usd()), ("unknown_usd", usd()), ("tokens", object(&tokens))];
    let counts = [
        "reserved_tokens",
        "unknown_tokens",
        "calls",
        "answers",
        "unpriced_answers",
        "estimated_answers",
        "took_ms",
    ];
    members.extend(counts.map(|name| (name, whole())));
    members
}

pub(super) fn maybe(mut schema: Json) -> Json {
    schema["type"] = json!([schema["type"], "null"]);
    schema
}

/// The shared budget that refused a call.
fn wide() -> Json {
    object(&[
        ("scope", text()),
        ("per", text()),
        ("usd", maybe(usd())),
        ("left_usd", maybe(usd())),
        ("tokens", maybe(whole())),
        ("left_tokens", maybe(whole())),
        ("on_breach", text()),
    ])
}

pub(super) fn money(paths: &mut Paths, line: &Json) {
    let row = object(&[sums(), vec![("name", text())]].concat());
    let budget = object(&[
        ("usd", maybe(usd())),
        ("tokens", maybe(whole())),
        ("raised_usd", usd()),
        ("raised_tokens", whole()),
        ("warn_at", json!({"type": "number"})),
        ("on_breach", json!({"enum": ["stop", "pause", "degrade"]})),
        ("left_usd", maybe(usd())),
        ("left_tokens", maybe(whole())),
    ]);
    let cost = [
        vec![("run_id", text()), ("status", text()), ("seq", whole())],
        sums(),
        vec![("inherited_usd", usd()), ("budget", maybe(budget)), ("refused_by", maybe(wide()))],
        ["by_node", "by_role", "by_model"].map(|by| (by, list(&row))).to_vec(),
    ];
    operation(
        "GET /v1/runs/{run_id}/cost",
        "costOfRun",
        "What a run has spent, by node, role and model, and what is left of its budget",
    )
    .answers(200, "The sums, from its events", &object(&cost.concat()))
    .problems(&[BAD, NO_RUN])
    .add(paths);
    let sum = object(&sums());
    let usage = [
        vec![("from", text()), ("to", text()), ("cut", json!({"type": "boolean"}))],
        sums(),
        vec![("usage", list(&sum))],
    ];
    let day = json!({"type": "string", "format": "date"});
    operation(
        "GET /v1/usage",
        "usage",
        "What finished runs spent on models, by workflow, agent, model or day",
    )
    .query("from", &day, &json!("2026-01-01"), "The first day, in UTC; 29 before the last when left out")
    .query("to", &day, &json!("2026-01-31"), "The last day; today when left out")
    .query(
        "by",
        &text(),
        &json!("workflow,day"),
        "What is told apart: workflow, agent, model, day, with commas between",
    )
    .answers(200, "The sums; rows have the members that `by` names", &object(&usage.concat()))
    .problems(&[BAD])
    .add(paths);
    let amount = json!({"type": ["string", "number", "null"], "description": "Dollars: a text such as \"5.00\", or a number"});
    let members = [
        ("reason", json!({"type": "string", "maxLength": limits::REASON_BYTES_MAX})),
        ("usd", amount),
        ("tokens", json!({"type": ["integer", "null"], "minimum": 0, "maximum": i64::MAX})),
        ("resume", json!({"type": ["boolean", "null"]})),
    ];
    operation("POST /v1/runs/{run_id}/budget", "raiseBudget", "Give a run more to spend")
        .header("If-Match")
        .header("Idempotency-Key")
        .body(&request(1, &members), &json!({"usd": "5.00", "reason": "worth it", "resume": true}), true)
        .answers(202, "It is durable, and the run goes on, or is paused", line)
        .answers(200, "It is durable, and the run has ended since", line)
        .problems(&[BAD, NO_RUN, UNFIT, ("409", "The run has ended, or its document limits nothing of this")])
        .problems(&[("412", "The run's last event is not what If-Match names")])
        .add(paths);
}

/// Budgets that runs share.
pub(super) fn budgets(paths: &mut Paths) {
    let shared = object(&[
        (
            "scope",
            json!({"type": "string", "description": "node, workspace:NAME, workflow:NAME or agent:ROLE"}),
        ),
        ("per", json!({"enum": ["hour", "day", "total"]})),
        ("usd", maybe(usd())),
        ("spent_usd", usd()),
        ("reserved_usd", usd()),
        ("left_usd", maybe(usd())),
        ("tokens", maybe(whole())),
        ("spent_tokens", whole()),
        ("reserved_tokens", whole()),
        ("left_tokens", maybe(whole())),
        ("window_seconds", maybe(whole())),
        ("warn_at", json!({"type": "number"})),
        ("warned", json!({"type": "boolean"})),
        ("on_breach", json!({"enum": ["stop", "pause", "degrade"]})),
        ("allow_unpriced", json!({"type": "boolean"})),
        ("refused", whole()),
    ]);
    operation("GET /v1/budgets", "listBudgets", "How budgets that runs share stand")
        .answers(
            200,
            "Those of this workspace; of the whole node for the role admin",
            &object(&[("budgets", list(&shared))]),
        )
        .problems(&[BAD])
        .add(paths);
}
