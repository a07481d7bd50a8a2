//! Updates, as the description has them.

use schemars::SchemaGenerator;
use serde_json::json;

use super::described::{BAD, NO_RUN, Paths, UNFIT, of};
use super::operation::operation;
use super::shapes::request;
use crate::wire::update::Update;

pub(super) fn updates(generator: &mut SchemaGenerator, paths: &mut Paths) {
    let taken = of::<Update<'static>>(generator);
    let route = "POST /v1/runs/{run_id}/updates/{signal}";
    operation(route, "updateRun", "Bring a run what it waits for now, and hear what came of it")
        .header("Idempotency-Key")
        .header("If-Match")
        .header("Prefer")
        .body(&request(0, &[("payload", json!({}))]), &json!({"payload": {"approved": true}}), false)
        .answers(200, "It was taken, durably, and the node that answers has settled", &taken)
        .answers(202, "It was taken, durably; the node that answers has not settled", &taken)
        .problems(&[BAD, NO_RUN, UNFIT])
        .problems(&[(
            "409",
            "Nothing in the run waits for it now, or the run has ended or is being cancelled",
        )])
        .problems(&[("412", "The run's last event is not what If-Match names")])
        .add(paths);
}
