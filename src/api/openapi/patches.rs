//! The operations on a run's graph.

use serde_json::{Value as Json, json};

use super::described::{BAD, Paths};
use super::operation::{Operation, operation};
use super::shapes::{nullable, object, request, text, whole};
use crate::limits;

const NO_RUN: (&str, &str) = ("404", "There is no such run in this workspace");
const NO_PATCH: (&str, &str) = ("404", "There is no such run in this workspace, or it has no such patch");
const OVER: (&str, &str) =
    ("409", "The run has ended, a node has started, or the graph has changed in the same place");

pub(super) fn patches(paths: &mut Paths) {
    for (route, id, summary) in [
        ("POST /v1/runs/{run_id}/patches", "patchRun", "Change the graph of a run"),
        ("POST /v1/runs/{run_id}/patch", "patchRunCompat", "The same"),
        ("POST /runs/{run_id}/patch", "patchRunOld", "The same"),
    ] {
        proposed(operation(route, id, summary)).add(paths);
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
    let reason = nullable(json!({"type": "string", "maxLength": limits::JUSTIFICATION_BYTES_MAX}));
    operation("POST /v1/runs/{run_id}/patches/{patch_id}/revoke", "revokePatch", "Take a patch back")
        .body(
            &request(0, &[("reason", reason), ("cascade", nullable(json!({"type": "boolean"})))]),
            &json!({"reason": "no longer wanted"}),
            false,
        )
        .answers(202, "The graph goes on without it", &made())
        .problems(&[BAD, NO_PATCH, OVER, UNFIT])
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
    operation
        .body(&request(1, &members), &example, true)
        .answers(202, "The graph has changed, durably", &made())
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
        ("state", json!({"enum": ["applied", "revoked", "rejected"]})),
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
