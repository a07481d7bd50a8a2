//! The operations on patches of a workflow's scope.

use serde_json::{Value as Json, json};

use super::described::{BAD, Paths};
use super::operation::operation;
use super::shapes::{nullable, object, request, text, whole};
use crate::limits;

const NO_WORKFLOW: (&str, &str) =
    ("404", "There is no such workflow in this workspace, or it has no such version");
const NO_PATCH: (&str, &str) =
    ("404", "There is no such workflow in this workspace, or it has no such patch");
const FORBIDDEN: (&str, &str) = ("403", "The caller may not, or the patch takes away what protects runs");
const UNFIT: (&str, &str) = ("422", "The patch cannot be used; `errors` names operations and pointers");

pub(super) fn overlays(paths: &mut Paths) {
    operation(
        "GET /v1/workflows/{name}/patches",
        "listWorkflowPatches",
        "Patches that runs of a workflow begin with",
    )
    .answers(200, "All of them, oldest first, and what runs of the latest version begin with", &list())
    .problems(&[BAD, NO_WORKFLOW])
    .add(paths);
    proposed(paths);
    sets(paths);
    operation(
        "GET /v1/workflows/{name}/patches/{wpatch_id}",
        "getWorkflowPatch",
        "Its operations, and what became of it",
    )
    .answers(200, "The patch", &patch())
    .problems(&[BAD, NO_PATCH])
    .add(paths);
    let reason = nullable(json!({"type": "string", "maxLength": limits::JUSTIFICATION_BYTES_MAX}));
    let once = ("409", "Something else was decided already, or it does not fit any more");
    for (route, id, summary) in [
        (
            "POST /v1/workflows/{name}/patches/{wpatch_id}/approve",
            "approveWorkflowPatch",
            "Let runs begin with a patch that waits",
        ),
        (
            "POST /v1/workflows/{name}/patches/{wpatch_id}/reject",
            "rejectWorkflowPatch",
            "Refuse a patch that waits",
        ),
    ] {
        let body = request(0, &[("reason", reason.clone())]);
        let operation = operation(route, id, summary)
            .body(&body, &json!({"reason": "as agreed"}), false)
            .answers(200, "It is decided, or was decided so before", &patch())
            .problems(&[BAD, FORBIDDEN, NO_PATCH, once, UNFIT]);
        let operation = match id {
            "approveWorkflowPatch" => operation.answers(202, "Runs begin with it from now on", &patch()),
            _ => operation,
        };
        operation.add(paths);
    }
    operation(
        "POST /v1/workflows/{name}/patches/{wpatch_id}/revoke",
        "revokeWorkflowPatch",
        "Let runs begin without a patch again",
    )
    .header("Idempotency-Key")
    .body(
        &request(0, &[("reason", reason), ("cascade", nullable(json!({"type": "boolean"})))]),
        &json!({"reason": "no longer wanted"}),
        false,
    )
    .answers(202, "Runs begin without it from now on", &changed())
    .problems(&[BAD, FORBIDDEN, NO_PATCH, ("409", "It is not in force, or others build on it"), UNFIT])
    .add(paths);
    let moved = object(&[("by", text()), ("at", json!({"type": "string", "format": "date-time"}))]);
    let history =
        object(&[("name", text()), ("tag", text()), ("moves", json!({"type": "array", "items": moved}))]);
    operation("GET /v1/workflows/{name}/tags/{tag}/history", "tagHistory", "How a tag was moved")
        .answers(200, "Its moves, oldest first", &history)
        .problems(&[BAD, ("404", "There is no such workflow in this workspace, or it never had such a tag")])
        .add(paths);
}

fn proposed(paths: &mut Paths) {
    let version = nullable(json!({"type": "integer", "minimum": 1, "maximum": u32::MAX}));
    let words = nullable(json!({"type": "string", "maxLength": limits::JUSTIFICATION_BYTES_MAX}));
    let operations = json!({"type": "array", "items": {"type": "object"},
        "description": "RFC 6902, on /nodes, /edges and /metadata of the canonical document"});
    let base = nullable(json!({"type": "string", "minLength": 1, "maxLength": limits::NAME_BYTES_MAX,
        "description": "The version or tag that it is made for; the latest version when left out"}));
    let members = [
        ("operations", operations),
        ("justification", words),
        ("base_version", version),
        ("scope", json!({"type": "string", "enum": ["workflow"]})),
        ("base", base),
        ("patch_set", nullable(text())),
    ];
    let example = json!({"operations": [{"op": "add", "path": "/nodes/-", "value":
        {"id": "count", "type": "function", "with": {"expr": "1"}}}], "justification": "it is counted"});
    operation(
        "POST /v1/workflows/{name}/patches",
        "patchWorkflow",
        "Let runs of a workflow begin with a change",
    )
    .header("Idempotency-Key")
    .body(&request(1, &members), &example, true)
    .answers(202, "Runs begin with it from now on; or it waits for a human (state held)", &changed())
    .answers(200, "All tests hold, and nothing was to be changed", &changed())
    .problems(&[BAD, FORBIDDEN, NO_WORKFLOW, ("409", "Others have changed the same"), UNFIT])
    .add(paths);
}

fn sets(paths: &mut Paths) {
    let weight = json!({"type": "integer", "minimum": 0, "maximum": limits::PATCH_SET_WEIGHT_MAX});
    let ids = json!({"type": "array", "items": text()});
    let set = object(&[("patch_set", text()), ("patches", ids.clone()), ("weight", weight.clone())]);
    let sets =
        object(&[("workflow", text()), ("patch_sets", json!({"type": "array", "items": set.clone()}))]);
    operation(
        "GET /v1/workflows/{name}/patch-sets",
        "listPatchSets",
        "Arms of the experiments of a workflow",
    )
    .answers(200, "All of them, by name", &sets)
    .problems(&[BAD, NO_WORKFLOW])
    .add(paths);
    let body = request(1, &[("patches", ids), ("weight", nullable(weight))]);
    operation(
        "PUT /v1/workflows/{name}/patch-sets/{set}",
        "putPatchSet",
        "Set the patches of an arm, and its share",
    )
    .body(&body, &json!({"patches": [], "weight": 1}), true)
    .answers(200, "The set as it is from now on", &set)
    .problems(&[BAD, NO_WORKFLOW, ("409", "A patch does not fit in this set"), UNFIT])
    .add(paths);
    let gone = ("404", "There is no such workflow in this workspace, or it has no such patch set");
    operation(
        "DELETE /v1/workflows/{name}/patch-sets/{set}",
        "deletePatchSet",
        "Take an arm away; its patches are for all again",
    )
    .answers(200, "The set that is no more, empty", &set)
    .problems(&[BAD, gone])
    .add(paths);
    let count = whole();
    let arm = object(&[
        ("runs", count.clone()),
        ("completed", count.clone()),
        ("failed", count.clone()),
        ("cancelled", count),
        ("cost", text()),
    ]);
    let report = object(&[
        ("workflow", text()),
        ("complete", json!({"type": "boolean"})),
        ("arms", json!({"type": "array", "items": arm})),
    ]);
    operation("GET /v1/workflows/{name}/experiments", "experiments", "What became of the runs of each arm")
        .answers(200, "Counts, success rate and latency of each", &report)
        .problems(&[BAD, NO_WORKFLOW])
        .add(paths);
}

fn changed() -> Json {
    object(&[("workflow", text()), ("overlay_version", whole()), ("hash", text())])
}

fn patch() -> Json {
    object(&[
        ("patch_id", text()),
        ("workflow", text()),
        ("state", json!({"enum": ["applied", "revoked", "rejected", "held"]})),
        ("base", object(&[("version", text()), ("hash", text())])),
        ("author", text()),
        ("at", json!({"type": "string", "format": "date-time"})),
    ])
}

fn list() -> Json {
    object(&[
        ("workflow", text()),
        ("overlay_version", whole()),
        ("latest", object(&[("version", text()), ("base", text()), ("hash", text())])),
        ("patches", json!({"type": "array", "items": patch()})),
    ])
}
