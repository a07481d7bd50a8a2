//! The operations of dead letters.

use schemars::SchemaGenerator;
use serde_json::json;

use super::described::{BAD, Paths, limit, of};
use super::operation::operation;
use super::shapes::text;
use crate::wire::letter::{Full, Page, Purged};
use crate::wire::run::Line;

const NO_LETTER: (&str, &str) = ("404", "There is no such dead letter in this workspace");

pub(super) fn letters(generator: &mut SchemaGenerator, paths: &mut Paths) {
    let page = of::<Page<'static>>(generator);
    let full = of::<Full<'static>>(generator);
    let purged = of::<Purged>(generator);
    let line = of::<Line<'static>>(generator);
    operation("GET /v1/dlq", "listDeadLetters", "Work that was given up")
        .query("workflow", &text(), &json!("greet"), "Only of this workflow")
        .query("code", &text(), &json!("http_status"), "Only with this code")
        .query("status", &json!({"enum": ["dead", "redriven"]}), &json!("dead"), "How they stand")
        .query("limit", &limit(), &json!(10), "At most so many")
        .answers(200, "Dead letters, those of the newest runs first", &page)
        .problems(&[BAD])
        .add(paths);
    operation("DELETE /v1/dlq", "purgeDeadLetters", "Put dead letters away; takes a condition, or all=true")
        .query("workflow", &text(), &json!("greet"), "Those of this workflow")
        .query("code", &text(), &json!("http_status"), "Those with this code")
        .query("all", &json!({"enum": ["true"]}), &json!("true"), "Every one of the workspace")
        .answers(200, "How many are gone, and whether there are more", &purged)
        .problems(&[BAD])
        .add(paths);
    operation("GET /v1/dlq/{letter}", "getDeadLetter", "How it failed, and what was asked for")
        .answers(200, "The dead letter", &full)
        .problems(&[NO_LETTER])
        .add(paths);
    operation("DELETE /v1/dlq/{letter}", "purgeDeadLetter", "Put it away")
        .answers_nothing(204, "It is gone")
        .problems(&[NO_LETTER])
        .add(paths);
    let refused = ("409", "It was redriven too long ago to say it again, or no run can go on from there");
    operation("POST /v1/dlq/{letter}/redrive", "redriveDeadLetter", "Do the work again, once")
        .answers(202, "The run that does it: a fork of the other", &line)
        .problems(&[NO_LETTER, refused])
        .add(paths);
}
