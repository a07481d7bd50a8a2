//! The operations on a run's graph.

use serde_json::{Value as Json, json};

use super::described::{BAD, NO_RUN, Paths};
use super::operation::{Operation, operation};
use super::shapes::{nullable, object, request, text, whole};
use crate::limits;

const NO_PATCH: (&str, &str) = ("404", "There is no such run in this workspace, or it has no such patch");
const OVER: (&str, &str) =
    ("409", "The run has ended, a node has started, or the graph has changed in the same place");

pub(super) fn patches(paths: &mut Paths) {
    artifacts(paths);
    for (route, id, summary) in [
        ("POST /v1/runs/{run_id}/patches", "patchRun", "Change the graph of a run"),
        ("POST /v1/runs/{run_id}/patch", "patchRunCompat", "The same"),
        ("POST /runs/{run_id}/patch", "patchRunOld", "The same"),
    ] {
        proposed(operation(route, id, summary).header("Idempotency-Key")).add(paths);
    }
    operation("GET /v1/runs/{run_id}/patches", "listPatches", "Patches made, taken back and refused")
        .answers(200, "All of them, oldest first", &list())
        .problems(&[BAD, NO_RUN])
        .add(paths);
    operation(
        "GET /v1/runs/{run_id}/patches/{patch_id}",
        "getPatch",
        "Its operations, and what became of it",
    )
    .answers(200, "The patch", &patch())
    .problems(&[BAD, NO_PATCH])
    .add(paths);
    compared(paths);
    decided(paths);
    let reason = nullable(json!({"type": "string", "maxLength": limits::JUSTIFICATION_BYTES_MAX}));
    operation("POST /v1/runs/{run_id}/patches/{patch_id}/revoke", "revokePatch", "Take a patch back")
        .header("Idempotency-Key")
        .body(
            &request(0, &[("reason", reason), ("cascade", nullable(json!({"type": "boolean"})))]),
            &json!({"reason": "no longer wanted"}),
            false,
        )
        .answers(202, "The graph goes on without it", &made())
        .problems(&[BAD, NO_PATCH, OVER, UNFIT])
        .add(paths);
}

/// Patches that wait for a human.
fn decided(paths: &mut Paths) {
    let reason = nullable(json!({"type": "string", "maxLength": limits::JUSTIFICATION_BYTES_MAX}));
    let once = ("409", "Something else was decided already, or the graph has changed in the same place");
    let forbidden = ("403", "The caller may not decide about this patch");
    for (route, id, summary) in [
        ("POST /v1/runs/{run_id}/patches/{patch_id}/approve", "approvePatch", "Make a patch that waits"),
        ("POST /v1/runs/{run_id}/patches/{patch_id}/reject", "rejectPatch", "Refuse a patch that waits"),
    ] {
        let body = request(0, &[("reason", reason.clone())]);
        let operation = operation(route, id, summary)
            .body(&body, &json!({"reason": "as agreed"}), false)
            .answers(200, "It is decided, or was decided so before", &patch())
            .problems(&[BAD, forbidden, NO_PATCH, once, UNFIT]);
        let operation = match id {
            "approvePatch" => {
                operation.header("Idempotency-Key").answers(202, "The graph has changed, durably", &made())
            }
            _ => operation,
        };
        operation.add(paths);
    }
}

/// What differs, and whose it is.
fn compared(paths: &mut Paths) {
    operation(
        "GET /v1/runs/{run_id}/patches/{patch_id}/diff",
        "diffPatch",
        "What a patch changed; as text/plain and image/svg+xml too, by Accept",
    )
    .answers(200, "Nodes, edges and metadata that differ", &diff())
    .problems(&[BAD, NO_PATCH, ("409", "The patch made no version of the graph")])
    .add(paths);
    let version = json!({"type": "integer", "minimum": 1, "maximum": u32::MAX});
    operation(
        "GET /v1/runs/{run_id}/graph/diff",
        "diffGraph",
        "What differs between two versions of the graph; as text/plain and image/svg+xml too, by Accept",
    )
    .query("from", &version, &json!(1), "The version before; 1 when left out")
    .query("to", &version, &json!(1), "The version after; the latest when left out")
    .answers(200, "Nodes, edges and metadata that differ", &diff())
    .problems(&[BAD, ("404", "There is no such run in this workspace, or its graph has no such version")])
    .add(paths);
    let row = object(&[("id", text()), ("layer", text()), ("version", whole())]);
    let rows = json!({"type": "array", "items": row});
    let blame = object(&[
        ("run_id", text()),
        ("graph_version", whole()),
        ("base", text()),
        ("nodes", rows.clone()),
        ("edges", rows),
    ]);
    operation("GET /v1/runs/{run_id}/blame", "blameRun", "Which layer put each node and edge there")
        .answers(200, "Every node and edge of the graph as it is", &blame)
        .problems(&[BAD, NO_RUN])
        .add(paths);
}

fn diff() -> Json {
    let side = object(&[("version", whole()), ("hash", text())]);
    let what = json!({"enum": ["added", "removed", "changed"]});
    let items = json!({"type": "array", "items": object(&[("id", text()), ("what", what)])});
    let members = json!({"type": "array", "items": object(&[("path", text())])});
    object(&[
        ("run_id", text()),
        ("from", side.clone()),
        ("to", side),
        ("nodes", items.clone()),
        ("edges", items),
        ("metadata", members),
    ])
}

/// `GET /v1/runs/{run_id}/artifacts`
fn artifacts(paths: &mut Paths) {
    let artifact = object(&[
        ("version", whole()),
        ("hash", text()),
        ("bytes", whole()),
        ("materialised_at", json!({"type": "string", "format": "date-time"})),
    ]);
    let list = object(&[("run_id", text()), ("artifacts", json!({"type": "array", "items": artifact}))]);
    operation(
        "GET /v1/runs/{run_id}/artifacts",
        "listArtifacts",
        "Documents that patches made of the run's, as they are stored",
    )
    .answers(200, "All of them, by version; `GET /v1/cas/{hash}` has each", &list)
    .problems(&[BAD, NO_RUN])
    .add(paths);
}

const UNFIT: (&str, &str) = ("422", "The patch cannot be used; `errors` names operations and pointers");

fn proposed(operation: Operation) -> Operation {
    let version = nullable(json!({"type": "integer", "minimum": 1, "maximum": u32::MAX}));
    let words = nullable(json!({"type": "string", "maxLength": limits::JUSTIFICATION_BYTES_MAX}));
    let operations = json!({"type": "array", "items": {"type": "object"},
        "description": "RFC 6902, on /nodes, /edges and /metadata of the canonical document"});
    let members = [
        ("operations", operations),
        ("justification", words),
        ("base_version", version),
        ("scope", json!({"type": "string", "enum": ["run"]})),
    ];
    let example = json!({"operations": [{"op": "add", "path": "/nodes/-", "value":
        {"id": "email", "type": "task", "with": {"queue": "mail"}}}], "justification": "the report is wanted"});
    let waits = json!({"type": "string", "enum": ["materialized"]});
    operation
        .header("Prefer")
        .query("wait", &waits, &json!("materialized"), "Answer when the artifact is stored")
        .body(&request(1, &members), &example, true)
        .answers(201, "The graph has changed, durably, and its document is stored as an artifact", &made())
        .answers(202, "The graph has changed, durably; or the patch waits for a human (state held)", &made())
        .answers(200, "All tests hold, and nothing was to be changed", &made())
        .problems(&[BAD, NO_RUN, OVER, UNFIT, ("403", "The patch takes away what protects the run")])
}

fn made() -> Json {
    object(&[
        ("run_id", text()),
        ("status", text()),
        ("seq", whole()),
        ("durability", text()),
        ("graph_version", whole()),
        ("hash", text()),
    ])
}

fn patch() -> Json {
    object(&[
        ("patch_id", text()),
        ("state", json!({"enum": ["applied", "revoked", "rejected", "held"]})),
        ("author", text()),
        ("seq", whole()),
        ("at", json!({"type": "string", "format": "date-time"})),
    ])
}

fn list() -> Json {
    object(&[
        ("run_id", text()),
        ("graph_version", whole()),
        ("base", text()),
        ("patches", json!({"type": "array", "items": patch()})),
    ])
}
