//! The operations of the audit log and of chains over runs.

use serde_json::{Value as Json, json};

use super::described::{BAD, NO_RUN, Paths, limit};
use super::operation::operation;
use super::shapes::{object, text, whole};

fn number() -> Json {
    json!({"type": "string", "pattern": "^[0-9]{1,19}$"})
}

fn list(items: &Json) -> Json {
    json!({"type": "array", "items": items})
}

fn maybe(schema: &str) -> Json {
    json!({"type": [schema, "null"]})
}

pub(super) fn audit(paths: &mut Paths) {
    let hash = json!({"type": "string", "pattern": "^[0-9a-f]{64}$"});
    let record = object(&[
        ("seq", whole()),
        ("at", json!({"type": "string", "format": "date-time"})),
        ("action", text()),
        ("outcome", json!({"enum": ["accepted", "refused", "noted"]})),
        ("hash", hash.clone()),
    ]);
    operation("GET /v1/audit", "listAudit", "Who did what, and what was refused; takes the role admin")
        .query("after", &number(), &json!("0"), "Records after this number")
        .query("cursor", &number(), &json!("0"), "`next_cursor` of the page before")
        .query("limit", &limit(), &json!(10), "Rows of a page")
        .query(
            "all",
            &json!({"type": "boolean"}),
            &json!(true),
            "Of all workspaces, and of requests from nobody that is known",
        )
        .answers(
            200,
            "A page, oldest first",
            &object(&[("records", list(&record)), ("next_cursor", maybe("string"))]),
        )
        .problems(&[BAD])
        .add(paths);
    let verdict = object(&[
        ("sound", json!({"type": "boolean"})),
        ("first", whole()),
        ("last", whole()),
        ("head", hash.clone()),
        ("checkpoints", whole()),
        ("findings", list(&text())),
    ]);
    operation(
        "GET /v1/audit/verify",
        "verifyAudit",
        "Recompute the audit log's chain from what is stored; takes the role admin",
    )
    .answers(200, "What was found", &verdict)
    .add(paths);
    let link = object(&[
        ("seq", whole()),
        ("at", json!({"type": "string", "format": "date-time"})),
        ("hash", hash.clone()),
    ]);
    let part = object(&[("segment", whole()), ("first", whole()), ("last", whole()), ("key", hash.clone())]);
    let run = object(&[
        ("run_id", text()),
        ("events", whole()),
        ("head", hash),
        ("sound", json!({"type": "boolean"})),
        ("finding", maybe("object")),
        ("chain", list(&link)),
        ("next_cursor", maybe("string")),
        ("sealed", list(&part)),
    ]);
    operation(
        "GET /v1/runs/{run_id}/audit",
        "auditRun",
        "The chain of hashes over a run's events, as they are stored",
    )
    .query("after", &number(), &json!("0"), "Links after this number")
    .query("cursor", &number(), &json!("0"), "`next_cursor` of the page before")
    .query("limit", &limit(), &json!(10), "Links of a page")
    .answers(200, "The chain, and what the seals of history say of it", &run)
    .problems(&[BAD, NO_RUN])
    .add(paths);
}
