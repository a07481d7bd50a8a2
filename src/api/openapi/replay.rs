//! The operations that read a run's record, and those that make a new run of it.

use serde_json::{Value as Json, json};

use super::described::{BAD, NO_RUN, Paths};
use super::operation::{Operation, operation};
use super::shapes::{nullable, object, request, text, whole};

const NO_EVENT: (&str, &str) = ("404", "There is no such run in this workspace, or it has no such event");
const NOT_FROM_THERE: (&str, &str) = ("409", "No run can go on from there; `detail` says why");
const UNFIT: (&str, &str) =
    ("422", "The inputs do not fit, there is no such node, or the record is too large");
const BUSY: (&str, &str) = ("503", "Too many records are being read; send it again");

pub(super) fn replay(paths: &mut Paths) {
    operation(
        "GET /v1/runs/{run_id}/bundle",
        "getBundle",
        "The record of a run as one file (docs/formats/bundle.md)",
    )
    .answers_with(
        (200, "application/octet-stream"),
        "The file",
        &json!({"type": "string", "format": "binary"}),
    )
    .problems(&[BAD, NO_RUN, UNFIT, BUSY])
    .add(paths);
    let seq = json!({"type": "integer", "minimum": 1, "maximum": u32::MAX});
    operation(
        "GET /v1/runs/{run_id}/state",
        "getState",
        "The state of a run after one of its events, and its hash",
    )
    .query("seq", &seq, &json!(1), "After which event; the last one when left out")
    .answers(200, "The state", &state())
    .problems(&[BAD, NO_EVENT, UNFIT, BUSY])
    .add(paths);
    let inputs = json!({"description": "Instead of the run's own; null is none"});
    let fork = operation(
        "POST /v1/runs/{run_id}/fork",
        "forkRun",
        "A new run that goes on after an event of this one",
    )
    .body(&request(1, &[("at", seq), ("inputs", inputs.clone())]), &json!({"at": 1}), true)
    .header("Idempotency-Key");
    made(fork).problems(&[BAD, NO_EVENT, NOT_FROM_THERE, UNFIT, BUSY]).add(paths);
    let from =
        nullable(json!({"type": "string", "description": "Path of the node from which on it is done again"}));
    let replay = operation(
        "POST /v1/runs/{run_id}/replay",
        "replayRun",
        "A new run that does the work of this one again",
    )
    .body(&request(0, &[("from", from), ("inputs", inputs)]), &json!({}), false)
    .header("Idempotency-Key");
    made(replay).problems(&[BAD, NO_EVENT, NOT_FROM_THERE, UNFIT, BUSY]).add(paths);
}

fn made(operation: Operation) -> Operation {
    let from = object(&[("run_id", text()), ("seq", whole())]);
    let members = [("run_id", text()), ("status", text()), ("seq", whole()), ("durability", text())];
    let mut made = object(&members);
    if let Some(properties) = made.get_mut("properties").and_then(Json::as_object_mut) {
        properties.insert("forked_from".into(), from);
        properties.insert("replay_of".into(), text());
    }
    operation.answers(202, "The run is started, durably", &made)
}

fn state() -> Json {
    let node = object(&[("path", text()), ("state", text()), ("attempts", whole())]);
    object(&[
        ("run_id", text()),
        ("seq", whole()),
        ("hash", text()),
        ("format", whole()),
        ("status", text()),
        ("workflow", text()),
        ("graph_version", whole()),
        ("document", text()),
        ("nodes", json!({"type": "array", "items": node})),
    ])
}
