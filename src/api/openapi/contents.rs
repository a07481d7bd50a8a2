//! The operation of the content store.

use serde_json::json;

use super::described::{BAD, Paths};
use super::operation::operation;
use super::shapes::text;

pub(super) fn contents(paths: &mut Paths) {
    operation(
        "GET /v1/cas/{hash}",
        "getContent",
        "A value that is shown by reference, or a registered document, as JSON text",
    )
    .header("Range")
    .header("If-Range")
    .or_not_modified()
    .answers(200, "All of it; ETag and Repr-Digest are its hash", &json!({}))
    .answers_with((206, "application/json"), "The range asked for", &text())
    .problems(&[
        BAD,
        ("404", "Nothing in this workspace refers to such a content"),
        ("416", "None of the range is in it"),
        ("500", "It is damaged, or gone though it is referred to"),
    ])
    .add(paths);
}
