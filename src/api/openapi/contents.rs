//! What is read as a file: contents, and the records of runs with what is made of them.

use serde_json::json;

use super::described::{BAD, Paths};
use super::operation::operation;

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
    // The media type is the whole document's (RFC 9110, 15.3.7); a part of it is a JSON text only by chance.
    .answers_part((206, "application/json"), "The range asked for, as bytes: a part of the JSON text")
    .problems(&[
        BAD,
        ("404", "Nothing in this workspace refers to such a content"),
        ("416", "None of the range is in it"),
        ("500", "It is damaged, or gone though it is referred to"),
    ])
    .add(paths);
    super::replay::replay(paths);
}
