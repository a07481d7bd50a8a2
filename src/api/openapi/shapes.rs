//! Bodies that no type of `wire` describes: their schemas by hand, each held to what the node answers by the examples.

use serde_json::{Value as Json, json};

use crate::limits;

/// An object with these required members; more may come.
pub(super) fn object(members: &[(&str, Json)]) -> Json {
    let required: Vec<_> = members.iter().map(|(name, _)| *name).collect();
    let properties: serde_json::Map<_, _> =
        members.iter().map(|(name, schema)| ((*name).to_owned(), schema.clone())).collect();
    json!({"type": "object", "required": required, "properties": properties})
}

/// An object that may have these members and no others; the first `required` must be there.
pub(super) fn request(required: usize, members: &[(&str, Json)]) -> Json {
    let mut schema = object(members);
    schema["required"] = members.iter().take(required).map(|(name, _)| *name).collect();
    schema["additionalProperties"] = false.into();
    schema
}

pub(super) fn text() -> Json {
    json!({"type": "string"})
}

pub(super) fn whole() -> Json {
    json!({"type": "integer", "minimum": 0})
}

pub(super) fn list(items: &Json) -> Json {
    json!({"type": "array", "items": items})
}

pub(super) fn maybe_text() -> Json {
    json!({"type": ["string", "null"]})
}

/// A page of events.
pub(super) fn timeline() -> Json {
    let event = object(&[
        ("seq", whole()),
        ("type", text()),
        ("at", json!({"type": "string", "format": "date-time"})),
    ]);
    object(&[("events", list(&event)), ("next_cursor", maybe_text())])
}

/// A document and the state of each node.
pub(super) fn graph() -> Json {
    let mut node = object(&[("state", text()), ("attempts", whole())]);
    if let Some(members) = node.get_mut("properties").and_then(Json::as_object_mut) {
        members.insert(String::from("priority"), json!({"enum": ["high", "medium", "low"]}));
        members.insert(String::from("waiting"), object(&[("reason", text())]));
    }
    object(&[
        ("run_id", text()),
        ("status", text()),
        ("seq", whole()),
        ("version", whole()),
        ("hash", text()),
        ("document", json!({"type": ["object", "null"]})),
        ("nodes", json!({"type": "object", "additionalProperties": node})),
    ])
}

fn listed() -> [(&'static str, Json); 3] {
    [("name", text()), ("version", text()), ("hash", text())]
}

/// A page of versions.
pub(super) fn workflows() -> Json {
    object(&[("workflows", list(&object(&listed()))), ("next_cursor", maybe_text())])
}

/// One version with its document.
pub(super) fn workflow() -> Json {
    let [name, version, hash] = listed();
    object(&[name, version, hash, ("document", json!({"type": "object"}))])
}

/// One tag.
pub(super) fn tag() -> Json {
    object(&[("name", text()), ("tag", text()), ("version", text())])
}

/// All tags of a workflow.
pub(super) fn tags() -> Json {
    object(&[("name", text()), ("tags", list(&tag()))])
}

/// Queues of jobs and how full they are.
pub(super) fn queues() -> Json {
    let max = json!({"type": ["integer", "null"]});
    let row = object(&[("queue", text()), ("waiting", whole()), ("leased", whole()), ("max", max)]);
    object(&[("queues", list(&row))])
}

/// Jobs under a lease.
pub(super) fn jobs() -> Json {
    let members = [
        "callback",
        "lease",
        "run_id",
        "node",
        "workspace",
        "workflow",
        "queue",
        "idempotency_key",
        "config_digest",
    ];
    let mut members: Vec<_> = members.into_iter().map(|name| (name, text())).collect();
    members.extend([("attempt", whole()), ("lease_seconds", whole()), ("input", json!({}))]);
    object(&[("jobs", list(&object(&members)))])
}

/// What came of each result.
pub(super) fn settled() -> Json {
    let status = json!({"enum": ["accepted", "stale", "refused"]});
    object(&[("results", list(&object(&[("lease", text()), ("status", status)])))])
}

/// What each lease is worth still.
pub(super) fn beats() -> Json {
    let state = json!({"enum": ["held", "cancelled", "unknown"]});
    object(&[("leases", list(&object(&[("lease", text()), ("state", state)])))])
}

/// A list of texts.
pub(super) fn texts(most: usize) -> Json {
    json!({"type": "array", "items": text(), "maxItems": most})
}

/// A list of texts, or `*` for everything there is.
pub(super) fn texts_or_all(most: usize) -> Json {
    json!({"oneOf": [texts(most), {"const": "*"}, {"type": "null"}]})
}

/// A failure as a worker words it.
pub(super) fn failure() -> Json {
    json!({"description": "A text, or {code, message, class, retryable, retry_after_ms, details}; whatever else it is, the attempt has failed"})
}

/// The same, or null, which is as good as nothing.
pub(super) fn nullable(mut schema: Json) -> Json {
    schema["type"] = json!([schema["type"], "null"]);
    schema
}

/// Items that are each answered for themselves.
pub(super) fn items() -> Json {
    json!({"type": "array", "maxItems": limits::WORKER_ITEMS_MAX,
        "items": {"description": "{lease, output} or {lease, error}; one that is not is answered `refused`"}})
}
