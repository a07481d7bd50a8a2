//! Parameters that several operations take.

use serde_json::{Value as Json, json};

use super::shapes::text;
use crate::limits;

/// A run that is like any other.
pub(super) const RUN: &str = "run_01968d0d000070008000000000000000";

/// A review of that run.
pub(super) const TICKET: &str = "tkt_01968d0d000070008000000000000000_3";

/// A schedule that is like any other.
pub(super) const SCHEDULE: &str = "nightly";

/// A hook that is like any other.
pub(super) const HOOK: &str = "hook_01968d0d000070008000000000000000";

/// A batch that is like any other.
pub(super) const BATCH: &str = "batch_01968d0d000070008000000000000000";

/// Entity tags with commas between them, or any.
fn tags() -> Json {
    let tag = r#"(W/)?"[!#-~]*""#;
    json!({"anyOf": [{"const": "*"}, {"type": "string", "pattern": format!("^{tag}( *, *{tag})*$")}]})
}

/// Of an event of a stream; nothing is its beginning.
pub(super) fn event_id() -> Json {
    json!({"type": "string", "pattern": "^(run_[0-9a-f]{32}:[0-9]{1,19})?$"})
}

/// Of a run, or of an execution.
fn run_id() -> Json {
    json!({"type": "string", "pattern": "^(run_[0-9a-f]{12}7[0-9a-f]{19}|exec_[0-9a-f]{12})$"})
}

/// Name, place, schema, example, description.
type Described = (&'static str, &'static str, Json, Json, &'static str);

/// Those of batches, schedules, hooks, webhooks and patches of workflows.
fn of_nouns() -> [Described; 9] {
    [
        (
            "batch_id",
            "path",
            json!({"type": "string", "pattern": "^batch_[0-9a-f]{32}$"}),
            json!(BATCH),
            "Id of a batch",
        ),
        (
            "letter",
            "path",
            json!({"type": "string", "pattern": "^dead_[0-9a-f]{32}_[1-9][0-9]{0,19}$"}),
            json!(format!("dead_{}_7", "0".repeat(32))),
            "Id of a dead letter",
        ),
        (
            "webhook_id",
            "path",
            json!({"type": "string", "pattern": "^wh_[0-9a-f]{32}$"}),
            json!(format!("wh_{}", "0".repeat(32))),
            "Id of a webhook",
        ),
        (
            "wpatch_id",
            "path",
            json!({"type": "string", "pattern": "^wpatch_[0-9a-f]{16}_[A-Za-z0-9_.-]+$"}),
            json!("wpatch_0000000000000000_greet"),
            "Id of a patch of a workflow",
        ),
        (
            "schedule",
            "path",
            json!({"type": "string", "minLength": 1, "maxLength": limits::NAME_BYTES_MAX, "pattern": "^[A-Za-z0-9_.-]+$"}),
            json!(SCHEDULE),
            "Name of a schedule",
        ),
        (
            "hook",
            "path",
            json!({"type": "string", "pattern": "^hook_[0-9a-f]{32}(_[a-z0-9][a-z0-9_-]{0,31})?$"}),
            json!(HOOK),
            "Id of a hook",
        ),
        (
            "webhook-id",
            "header",
            text(),
            json!("msg_1"),
            "Names the message; the same one each time that it is sent",
        ),
        (
            "webhook-timestamp",
            "header",
            text(),
            json!("1614265330"),
            "When it was sent, in seconds since 1970",
        ),
        (
            "webhook-signature",
            "header",
            text(),
            json!("v1,c2lnbmVk"),
            "`v1,` and base64; several with spaces between",
        ),
    ]
}

/// All of them, by name.
pub(super) fn parameters() -> Json {
    let name = json!({"type": "string", "minLength": 1, "maxLength": limits::NAME_BYTES_MAX});
    let visible =
        json!({"type": "string", "pattern": "^[!-~]+$", "maxLength": limits::IDEMPOTENCY_KEY_BYTES_MAX});
    let all = [
        ("run_id", "path", run_id(), json!(RUN), "Id of a run, or of an execution"),
        (
            "ticket",
            "path",
            json!({"type": "string", "pattern": "^(tkt_[0-9a-f]{12}7[0-9a-f]{19}_[1-9][0-9]*|review_run_[0-9a-f]{12}7[0-9a-f]{19}_[A-Za-z].*)$"}),
            json!(TICKET),
            "Ticket of a review; or `review_`, its run's id, `_` and its node",
        ),
        ("execution_id", "path", run_id(), json!(RUN), "Id of an execution, or of its run"),
        ("name", "path", name.clone(), json!("greet"), "Name of a workflow"),
        ("role", "path", name.clone(), json!("writer"), "A role of the `agents` of a workflow"),
        ("version", "path", name.clone(), json!("1"), "A version, or a tag"),
        ("tag", "path", name.clone(), json!("live"), "A name for a version"),
        ("set", "path", name.clone(), json!("control"), "Name of a patch set"),
        ("signal", "path", name, json!("go"), "Name of a signal"),
        (
            "hash",
            "path",
            json!({"type": "string", "pattern": "^sha256:[0-9a-f]{64}$"}),
            json!("sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"),
            "Hash of a content",
        ),
        (
            "patch_id",
            "path",
            json!({"type": "string", "pattern": "^patch_[0-9a-f]{48}$"}),
            json!(format!("patch_{}{}", RUN.trim_start_matches("run_"), "0".repeat(16))),
            "Id of a patch",
        ),
        ("lease", "path", text(), json!("lease_sealed"), "A lease, which is its own proof"),
        (
            "Idempotency-Key",
            "header",
            visible,
            json!("order-1"),
            "What is asked for under the same key, with the same body, is done once",
        ),
        (
            "Prefer",
            "header",
            text(),
            json!("wait=0"),
            "`wait=N`: answer when the run has ended (a patch: when its artifact is stored), at most N seconds",
        ),
        ("Range", "header", text(), json!("bytes=0-"), "One range of bytes"),
        ("If-Range", "header", text(), json!("\"none\""), "The ETag that the range is of"),
        ("If-None-Match", "header", text(), json!("\"none\""), "ETags that are known"),
        ("If-Match", "header", tags(), json!("*"), "ETags, one of which the run must still have"),
        ("Last-Event-ID", "header", event_id(), json!(""), "Id of the event to go on after"),
        (
            "Aob-Workspace",
            "header",
            json!({"type": "string", "pattern": "^[a-z0-9][a-z0-9_-]{0,31}$"}),
            json!("default"),
            "Another workspace than the token's takes the role admin",
        ),
    ];
    let all = all.into_iter().chain(of_nouns()).map(|(name, place, schema, example, description)| {
        let it = json!({"name": name, "in": place, "required": place == "path", "schema": schema,
            "example": example, "description": description});
        (name.to_owned(), it)
    });
    Json::Object(all.collect())
}
