//! The operations whose answer is a stream of events.

use serde_json::{Value as Json, json};

use super::described::{BAD, NO_RUN, Paths, number};
use super::operation::{Operation, operation};
use super::parameters::event_id;
use super::shapes::text;
use crate::limits;
use crate::wire::filter::{KINDS, Level};

/// A server-sent event, or the stream of them.
fn events() -> Json {
    json!({"description": "Events: `id` is run:number, `event` the type, `data` a row of the timeline"})
}

pub(super) fn streams(paths: &mut Paths) {
    let run = operation(
        "GET /v1/runs/{run_id}/events",
        "streamEvents",
        "Events as they happen, until the run has ended",
    )
    .query("after", &number(), &json!(0), "Events after this number");
    filtered(run)
        .header("Last-Event-ID")
        .answers_with(
            (200, "text/event-stream"),
            "Server-sent events; ids are run:number. With `Upgrade: websocket` the same as messages (aob.v1)",
            &events(),
        )
        .problems(&[BAD, NO_RUN])
        .add(paths);
    let many = operation(
        "GET /v1/events",
        "streamManyEvents",
        "Events of some runs until these have ended, or of all runs of the workspace as they happen, or from the start",
    )
    .query(
        "run",
        &text(),
        &json!("run_018bcfe568007fffbfffffffffffffff:0"),
        "Of these runs, each once; behind a colon the number of the event after which it begins. Several with commas, or again",
    )
    .query("workflow", &text(), &json!("greet"), "Without runs: only of this workflow")
    .query(
        "after",
        &event_id(),
        &json!("run_018bcfe568007fffbfffffffffffffff:3"),
        "Without runs: what happened after the event with this id",
    );
    filtered(many)
        .answers_with(
            (200, "text/event-stream"),
            "Server-sent events; ids are run:number. `Last-Event-ID` is taken of one run, and of a feed",
            &events(),
        )
        .problems(&[BAD, NO_RUN])
        .add(paths);
}

fn filtered(operation: Operation) -> Operation {
    operation
        .query(
            "from",
            &json!({"enum": ["start", "now"]}),
            &json!("start"),
            "Where it begins when no number says so. A feed begins now; from its start, all events of all runs that are kept come first",
        )
        .query(
            "node",
            &text(),
            &json!("a"),
            "Only of this node and what is inside. Several with commas, or again",
        )
        .query(
            "kind",
            &kinds(),
            &json!("node.*"),
            "Only events of this type, or of those that begin so. Several with commas, or again",
        )
        .query("level", &json!({"enum": Level::NAMES}), &json!("debug"), "Only events from this level on")
}

/// Types of events, and their first parts with a `*`; commas between them.
fn kinds() -> Json {
    let families: std::collections::BTreeSet<&str> =
        KINDS.iter().filter_map(|(name, _)| name.split('.').next()).collect();
    let names = KINDS.iter().map(|(name, _)| name.replace('.', "\\."));
    let named: Vec<String> = names.chain(families.iter().map(|family| format!("{family}\\.\\*"))).collect();
    let one = format!("({})", named.join("|"));
    json!({"type": "string", "pattern": format!("^{one}(,{one})*$"), "maxLength": limits::STREAM_FILTER_BYTES_MAX})
}
