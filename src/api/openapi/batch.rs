//! The operations of batches.

use serde_json::{Value as Json, json};

use super::described::{BAD, Paths, UNFIT, limit};
use super::operation::operation;
use super::parameters::BATCH;
use super::shapes::{list, maybe_text, nullable, object, request, text, whole};
use crate::limits;

const NO_BATCH: (&str, &str) = ("404", "There is no such batch in this workspace");

fn time() -> Json {
    json!({"type": "string", "format": "date-time"})
}

fn maybe_time() -> Json {
    nullable(time())
}

fn flag() -> Json {
    json!({"type": "boolean"})
}

fn action() -> Json {
    json!({"enum": ["cancel", "terminate", "pause", "resume", "retry", "delete"]})
}

/// The conditions of a listing of runs.
fn filter() -> Json {
    let name = |most: usize| nullable(json!({"type": "string", "maxLength": most}));
    let statuses = ["pending", "running", "paused", "completed", "failed", "cancelled"];
    let status = json!({"oneOf": [
        {"type": "array", "minItems": 1, "maxItems": statuses.len(), "items": {"enum": statuses}},
        {"type": "string", "pattern": format!("^({0})(,({0})){{0,5}}$", statuses.join("|"))},
        {"type": "null"}]});
    let mut filter = request(
        0,
        &[
            ("status", status),
            ("workflow", name(limits::NAME_BYTES_MAX)),
            ("version", name(limits::NAME_BYTES_MAX)),
            ("run_key", name(limits::RUN_KEY_BYTES_MAX)),
            ("started_after", maybe_time()),
            ("started_before", maybe_time()),
        ],
    );
    filter["description"] = "What GET /v1/runs may be asked for".into();
    filter
}

fn batch() -> Json {
    let failure = object(&[("code", text()), ("detail", text())]);
    object(&[
        ("id", text()),
        ("action", action()),
        ("filter", json!({"type": "object"})),
        ("reason", maybe_text()),
        ("limit", whole()),
        ("rate_per_second", whole()),
        ("by", text()),
        ("state", json!({"enum": ["queued", "running", "done", "cancelled", "failed"]})),
        ("matched", whole()),
        ("done", whole()),
        ("skipped", whole()),
        ("failed", whole()),
        ("limited", flag()),
        ("waits", maybe_text()),
        ("failure", nullable(failure)),
        ("failures", list(&object(&[("run_id", text()), ("code", text())]))),
        ("created_at", time()),
        ("started_at", maybe_time()),
        ("ended_at", maybe_time()),
    ])
}

/// What a dry run tells.
fn counted() -> Json {
    object(&[
        ("dry_run", flag()),
        ("action", action()),
        ("filter", json!({"type": "object"})),
        ("limit", whole()),
        ("matched", whole()),
        ("skipped", whole()),
        ("more", flag()),
        ("runs", list(&text())),
    ])
}

/// All of them.
pub(super) fn batches(paths: &mut Paths) {
    let bounded = |most: u64| json!({"type": ["integer", "null"], "minimum": 1, "maximum": most});
    let mut filter = filter();
    filter["type"] = json!(["object", "null"]);
    let members = [
        ("action", action()),
        ("filter", filter),
        (
            "all",
            nullable(json!({"type": "boolean", "description": "Needed when the filter has no condition"})),
        ),
        (
            "reason",
            nullable(json!({"type": "string", "maxLength": limits::REASON_BYTES_MAX - 64,
                "description": "Stands in the events of runs that are cancelled, terminated or paused; of no use to others"})),
        ),
        ("limit", bounded(limits::BATCH_RUNS_MAX)),
        ("rate_per_second", bounded(u64::from(limits::BATCH_RUNS_PER_SECOND_MAX))),
        ("dry_run", nullable(json!({"type": "boolean", "description": "Only count, and name the first"}))),
    ];
    let example = json!({"action": "cancel", "filter": {"workflow": "nothing", "status": "running,paused"},
        "reason": "a mistake"});
    operation("POST /v1/batch", "createBatch", "Do one thing to every run that fits")
        .header("Idempotency-Key")
        .body(&request(1, &members), &example, true)
        .answers(202, "It is durable, and begins when its turn comes; `Location` names it", &batch())
        .answers(200, "A dry run: nothing is stored", &counted())
        .problems(&[BAD, UNFIT, ("429", "Too many batches of this workspace are not over")])
        .add(paths);
    let cursor = json!({"type": "string", "pattern": "^batch_[0-9a-f]{32}$"});
    operation("GET /v1/batch", "listBatches", "Batches, newest first, in pages")
        .query("limit", &limit(), &json!(10), "Rows of a page")
        .query("cursor", &cursor, &json!(BATCH), "`next_cursor` of the page before")
        .answers(
            200,
            "A page; `Link: rel=\"next\"` leads on",
            &object(&[("batches", list(&batch())), ("next_cursor", maybe_text())]),
        )
        .problems(&[BAD])
        .add(paths);
    operation("GET /v1/batch/{batch_id}", "getBatch", "How far it is, and what was refused")
        .answers(200, "The batch", &batch())
        .problems(&[NO_BATCH])
        .add(paths);
    operation("DELETE /v1/batch/{batch_id}", "deleteBatch", "Stop it, or remove one that is over")
        .answers(200, "It is stopped, durably; a run that is being dealt with still is", &batch())
        .answers_nothing(204, "It was over, and is gone, durably")
        .problems(&[NO_BATCH])
        .add(paths);
}
