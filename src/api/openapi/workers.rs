//! The operations of workers: jobs taken, completed, failed, kept.

use schemars::SchemaGenerator;
use serde_json::{Value as Json, json};

use super::described::{BAD, Paths, UNFIT, of};
use super::operation::operation;
use super::shapes::{self, nullable, request, whole};
use crate::limits;
use crate::wire::breaker::List;

/// An object with either the first or the second of these, and maybe others of them.
fn either(members: &[(&str, Json)]) -> Json {
    let mut schema = request(0, members);
    schema["oneOf"] = members.iter().take(2).map(|(name, _)| json!({"required": [name]})).collect();
    schema
}

pub(super) fn workers(generator: &mut SchemaGenerator, paths: &mut Paths) {
    let poll = [
        ("queues", shapes::texts(limits::POLL_QUEUES_MAX)),
        ("workspaces", shapes::texts_or_all(limits::POLL_WORKSPACES_MAX)),
        ("max", nullable(whole())),
        ("wait_ms", nullable(whole())),
        ("worker", nullable(json!({"type": "string", "maxLength": limits::NAME_BYTES_MAX}))),
    ];
    operation("POST /v1/workers/poll", "pollJobs", "Take jobs from queues, waiting for them if need be")
        .body(&request(1, &poll), &json!({"queues": ["mail"], "max": 4, "wait_ms": 0, "worker": "w1"}), true)
        .answers(200, "Jobs under leases that are durable; none when the wait is over", &shapes::jobs())
        .problems(&[BAD, UNFIT])
        .add(paths);
    let one = json!({"description": "For a single one, in place of the list"});
    let complete = [("results", shapes::items()), ("lease", one.clone()), ("output", json!({}))];
    let fail = [("failures", shapes::items()), ("lease", one), ("error", shapes::failure())];
    for (route, id, members, example) in [
        (
            "POST /v1/workers/complete",
            "completeJobs",
            complete,
            json!({"lease": "lease_sealed", "output": {"sent": true}}),
        ),
        (
            "POST /v1/workers/fail",
            "failJobs",
            fail,
            json!({"lease": "lease_sealed", "error": {"code": "task_failed", "message": "no route", "class": "transient"}}),
        ),
    ] {
        operation(route, id, "Say how jobs ended: a list of them, or one")
            .body(&either(&members), &example, true)
            .answers(200, "Each for itself: accepted, stale or refused", &shapes::settled())
            .problems(&[BAD, UNFIT])
            .add(paths);
    }
    let leases = [("leases", shapes::texts(limits::WORKER_ITEMS_MAX))];
    operation("POST /v1/workers/heartbeat", "heartbeat", "Keep leases")
        .body(&request(1, &leases), &json!({"leases": ["lease_sealed"]}), true)
        .answers(200, "What each is worth still", &shapes::beats())
        .problems(&[BAD, UNFIT])
        .add(paths);
    let breakers = of::<List<'static>>(generator);
    operation("GET /v1/breakers", "listBreakers", "Services that are left alone because their calls fail")
        .answers(200, "Services of this workspace's calls that have failed since the node started", &breakers)
        .problems(&[BAD])
        .add(paths);
    operation("GET /v1/workers/queues", "listQueues", "Queues of this workspace")
        .answers(200, "Jobs that wait and jobs under a lease", &shapes::queues())
        .add(paths);
    let ended = [("output", json!({})), ("error", shapes::failure())];
    operation(
        "POST /v1/callbacks/{lease}",
        "answerCallback",
        "Say how one attempt ended; the URL is the proof",
    )
    .public()
    .body(&request(0, &ended), &json!({"output": {"sent": true}}), true)
    .answers(200, "Accepted, stale or refused", &shapes::settled())
    .problems(&[BAD, ("404", "This node gave out no such lease")])
    .add(paths);
}
