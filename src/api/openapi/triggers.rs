//! The operations of schedules and hooks.

use serde_json::{Value as Json, json};

use super::described::{BAD, Paths, UNFIT, limit};
use super::operation::operation;
use super::parameters::{HOOK, SCHEDULE};
use super::shapes::{list, maybe_text, nullable, object, request, text, whole};
use crate::limits;

const NO_SCHEDULE: (&str, &str) = ("404", "There is no such schedule in this workspace");
const NO_HOOK: (&str, &str) = ("404", "There is no such hook in this workspace");
const NO_WORKFLOW: (&str, &str) = ("404", "There is no such workflow in this workspace");
const NAME: &str = "^[A-Za-z0-9_.-]+$";

fn name() -> Json {
    json!({"type": "string", "minLength": 1, "maxLength": limits::NAME_BYTES_MAX, "pattern": NAME})
}

fn time() -> Json {
    json!({"type": "string", "format": "date-time"})
}

fn maybe_time() -> Json {
    json!({"type": ["string", "null"], "format": "date-time"})
}

fn overlap() -> Json {
    json!({"enum": ["skip", "allow", "cancel_other", "buffer_one"]})
}

fn flag() -> Json {
    json!({"type": "boolean"})
}

/// A row of a listing.
fn line() -> Json {
    object(&[
        ("name", text()),
        ("workflow", text()),
        ("cron", text()),
        ("timezone", text()),
        ("overlap", overlap()),
        ("paused", flag()),
        ("next", maybe_time()),
    ])
}

/// What became of a due time, or of several in a row.
fn entry() -> Json {
    let outcome = json!({"enum": ["started", "skipped", "buffered", "missed", "failed"]});
    let mut entry = object(&[
        ("due", time()),
        ("until", time()),
        ("count", whole()),
        ("at", time()),
        ("outcome", outcome),
    ]);
    entry["properties"]["run_id"] = text();
    entry["properties"]["manual"] = flag();
    entry["properties"]["more"] = flag();
    entry["properties"]["failure"] = object(&[("code", text()), ("detail", text())]);
    entry
}

fn schedule() -> Json {
    object(&[
        ("name", text()),
        ("id", text()),
        ("workflow", text()),
        ("inputs", json!({})),
        ("cron", text()),
        ("timezone", text()),
        ("overlap", overlap()),
        ("catch_up", text()),
        ("jitter", text()),
        ("paused", flag()),
        ("created_at", time()),
        ("considered", time()),
        ("next", list(&time())),
        ("buffered", maybe_time()),
        ("running", list(&text())),
        ("history", list(&entry())),
    ])
}

fn duration(description: &str) -> Json {
    nullable(json!({"type": "string", "description": description}))
}

/// All of them.
pub(super) fn triggers(paths: &mut Paths) {
    make_schedules(paths);
    schedules(paths);
    make_hooks(paths);
    hooks(paths);
}

/// What a schedule is made of.
fn said() -> [(&'static str, Json); 9] {
    [
        ("name", name()),
        (
            "workflow",
            json!({"type": "string", "description": "A name, name@version or name@tag; looked up at each start"}),
        ),
        (
            "cron",
            json!({"type": "string", "description": "minute hour day month weekday, or with seconds first"}),
        ),
        (
            "timezone",
            nullable(json!({"type": "string", "description": "Of the IANA database; UTC when left out"})),
        ),
        (
            "inputs",
            json!({"description": "What the workflow's schema of its inputs says; any value without one"}),
        ),
        ("overlap", json!({"enum": ["skip", "allow", "cancel_other", "buffer_one", null]})),
        ("catch_up", duration("Make up for what was missed less than so long ago; an hour when left out")),
        ("jitter", duration("Put each start off by up to so much")),
        ("paused", nullable(flag())),
    ]
}

fn make_schedules(paths: &mut Paths) {
    let members = said();
    let example = json!({"name": SCHEDULE, "workflow": "greet@1", "cron": "30 2 * * *",
        "timezone": "Europe/Berlin", "overlap": "skip", "catch_up": "1h", "jitter": "30s", "inputs": {}});
    operation("POST /v1/schedules", "createSchedule", "Start a workflow by the clock")
        .body(&request(3, &members), &example, true)
        .answers(201, "It is durable", &schedule())
        .answers(200, "This very schedule is there already", &schedule())
        .problems(&[BAD, NO_WORKFLOW, ("409", "Another schedule has this name"), UNFIT])
        .add(paths);
}

fn schedules(paths: &mut Paths) {
    operation("GET /v1/schedules", "listSchedules", "Schedules, by name, in pages")
        .query("limit", &limit(), &json!(10), "Rows of a page")
        .query("cursor", &text(), &json!(SCHEDULE), "`next_cursor` of the page before")
        .answers(
            200,
            "A page; `Link: rel=\"next\"` leads on",
            &object(&[("schedules", list(&line())), ("next_cursor", maybe_text())]),
        )
        .problems(&[BAD])
        .add(paths);
    operation(
        "GET /v1/schedules/{schedule}",
        "getSchedule",
        "When it is due next, and what became of its due times",
    )
    .answers(200, "The schedule", &schedule())
    .problems(&[NO_SCHEDULE])
    .add(paths);
    let mut patch = request(0, &said());
    for (name, schema) in patch["properties"].as_object_mut().unwrap() {
        // In a merge patch null takes a member away; these a schedule cannot do without.
        if !["name", "workflow", "cron"].contains(&name.as_str()) {
            *schema = json!({"anyOf": [schema, {"type": "null"}]});
        }
    }
    operation(
        "PATCH /v1/schedules/{schedule}",
        "changeSchedule",
        "Change it where it stands, by a JSON Merge Patch (RFC 7396)",
    )
    .body(&patch, &json!({"cron": "45 2 * * *", "jitter": null}), true)
    .answers(200, "It is durable", &schedule())
    .problems(&[BAD, NO_SCHEDULE, UNFIT])
    .add(paths);
    operation("DELETE /v1/schedules/{schedule}", "deleteSchedule", "Remove it; its runs go on")
        .answers_nothing(204, "It is gone, durably")
        .problems(&[NO_SCHEDULE])
        .add(paths);
    for (route, id, summary) in [
        ("POST /v1/schedules/{schedule}/pause", "pauseSchedule", "Start nothing more"),
        (
            "POST /v1/schedules/{schedule}/resume",
            "resumeSchedule",
            "Go on from now; what was due meanwhile is not made up for",
        ),
    ] {
        operation(route, id, summary)
            .answers(200, "It is durable", &schedule())
            .problems(&[NO_SCHEDULE])
            .add(paths);
    }
    let run = json!({"$ref": "#/components/schemas/RunLine"});
    operation("POST /v1/schedules/{schedule}/trigger", "triggerSchedule", "Start a run now, whatever lives")
        .header("Idempotency-Key")
        .answers(202, "The run; it is durable", &run)
        .problems(&[NO_SCHEDULE, UNFIT])
        .add(paths);
}

fn hook() -> Json {
    object(&[
        ("id", text()),
        ("name", text()),
        ("workflow", text()),
        ("mapping", maybe_text()),
        ("url", text()),
        ("created_at", time()),
        ("previous_secret_until", maybe_time()),
    ])
}

/// One that is given.
fn secret() -> Json {
    nullable(json!({"type": "string", "description": "`whsec_` and base64, when the other side has made it"}))
}

/// The same with its secret.
fn with_secret() -> Json {
    let mut hook = hook();
    hook["properties"]["secret"] = text();
    hook["required"] = hook["properties"].as_object().unwrap().keys().cloned().collect();
    hook
}

fn make_hooks(paths: &mut Paths) {
    let members = [
        ("name", name()),
        (
            "workflow",
            json!({"type": "string", "description": "A name, name@version or name@tag; looked up at each start"}),
        ),
        (
            "mapping",
            nullable(
                json!({"type": "string", "description": "An expression over `input`, the message, that makes the inputs"}),
            ),
        ),
        ("secret", secret()),
    ];
    operation("POST /v1/hooks", "createHook", "Start a workflow by signed messages from outside")
        .body(
            &request(2, &members),
            &json!({"name": "payments", "workflow": "greet@1", "mapping": "input.data"}),
            true,
        )
        .answers(201, "It is durable; its secret is shown now and never again", &with_secret())
        .problems(&[BAD, NO_WORKFLOW, UNFIT])
        .add(paths);
}

fn hooks(paths: &mut Paths) {
    operation("GET /v1/hooks", "listHooks", "Hooks, in pages")
        .query("limit", &limit(), &json!(10), "Rows of a page")
        .query("cursor", &text(), &json!(HOOK), "`next_cursor` of the page before")
        .answers(
            200,
            "A page; `Link: rel=\"next\"` leads on",
            &object(&[("hooks", list(&hook())), ("next_cursor", maybe_text())]),
        )
        .problems(&[BAD])
        .add(paths);
    operation("GET /v1/hooks/{hook}", "getHook", "One hook, without its secret")
        .answers(200, "The hook", &hook())
        .problems(&[NO_HOOK])
        .add(paths);
    operation("DELETE /v1/hooks/{hook}", "deleteHook", "Remove it; what it has started goes on")
        .answers_nothing(204, "It is gone, durably")
        .problems(&[NO_HOOK])
        .add(paths);
    let overlap = duration("How long the secret before is good; a day when left out");
    operation(
        "POST /v1/hooks/{hook}/rotate",
        "rotateHook",
        "Make a new secret; the one before is good for a while",
    )
    .body(&request(0, &[("overlap", overlap), ("secret", secret())]), &json!({"overlap": "1h"}), false)
    .answers(200, "It is durable; the secret is shown now and never again", &with_secret())
    .problems(&[BAD, NO_HOOK, UNFIT])
    .add(paths);
    let run = json!({"$ref": "#/components/schemas/RunLine"});
    operation(
        "POST /v1/hooks/{hook}",
        "callHook",
        "A message, signed as Standard Webhooks has it; takes no token",
    )
    .public()
    .header("webhook-id")
    .header("webhook-timestamp")
    .header("webhook-signature")
    .body(&json!({"description": "The message"}), &json!({"data": {}}), true)
    .answers(202, "The run that it has started; the same message again is answered with the same run", &run)
    .problems(&[BAD, NO_HOOK, UNFIT, ("401", "It is not signed with this hook's secret, or not now")])
    .problems(&[
        ("413", "It is too large"),
        ("415", "It is not JSON"),
        ("429", "The hook takes no more for now"),
    ])
    .add(paths);
}
