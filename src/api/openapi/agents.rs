//! The operations about agents.

use serde_json::{Value as Json, json};

use super::described::{BAD, Paths, limit};
use super::money::{maybe, sums, usd};
use super::operation::operation;
use super::shapes::{list, maybe_text, object, text, whole};

/// What a role is.
fn role() -> Vec<(&'static str, Json)> {
    let any = || json!({"description": "As the document says it; null: nothing, and the default holds"});
    let limits =
        ["max_turns", "max_output_tokens", "temperature", "capture", "budget"].map(|key| (key, any()));
    vec![
        ("workflow", text()),
        ("version", text()),
        ("role", text()),
        ("description", any()),
        ("models", list(&text())),
        ("tools", list(&any())),
        ("limits", object(&limits)),
    ]
}

/// What it does, as far as this process has seen.
fn live() -> Json {
    let at = || json!({"type": "string", "format": "date-time"});
    let failed = object(&[("at", at()), ("model", text()), ("code", text()), ("message", text())]);
    let mut members: Vec<(&str, Json)> =
        ["under_way", "calls", "answers", "failures", "tokens", "context_tokens"]
            .map(|name| (name, whole()))
            .into();
    members.extend([
        ("usd", usd()),
        ("last_model", maybe_text()),
        ("last_called_at", maybe(at())),
        ("last_failure", maybe(failed)),
    ]);
    object(&members)
}

pub(super) fn agents(paths: &mut Paths) {
    let row = object(&[role(), vec![("live", live())]].concat());
    operation("GET /v1/agents", "listAgents", "Roles of registered workflows, and what their agents do")
        .query("workflow", &text(), &json!("greet"), "Only of this workflow")
        .query("limit", &limit(), &json!(10), "At most so many")
        .answers(
            200,
            "A page, by workflow and role; it may be short. `Link: rel=\"next\"` leads on",
            &object(&[("agents", list(&row)), ("next_cursor", maybe_text())]),
        )
        .problems(&[BAD])
        .add(paths);
    let rung = object(&[
        ("name", text()),
        ("known", json!({"type": "boolean"})),
        ("provider", maybe_text()),
        ("context_tokens", maybe(whole())),
        ("max_output_tokens", maybe(whole())),
        ("priced", maybe(json!({"type": "boolean"}))),
        ("breaker", json!({"enum": ["closed", "half_open", "open", null]})),
    ]);
    let usage = [vec![("days", whole()), ("cut", json!({"type": "boolean"}))], sums()].concat();
    let system = json!({"description": "What every model is told before the task; null: nothing"});
    let own = vec![("live", live()), ("system", system), ("ladder", list(&rung)), ("usage", object(&usage))];
    operation(
        "GET /v1/agents/{name}/{role}",
        "getAgent",
        "One agent: its models and their breakers, and what it spent",
    )
    .answers(200, "The agent", &object(&[role(), own].concat()))
    .problems(&[("404", "There is no such agent in this workspace")])
    .add(paths);
}
