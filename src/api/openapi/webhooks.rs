//! The operations of webhooks, and the page of a review.

use schemars::SchemaGenerator;
use serde_json::json;

use super::described::{BAD, Paths, UNFIT, limit, of};
use super::operation::operation;
use super::shapes::{nullable, request, text};
use crate::limits;
use crate::model::webhook::EVENTS;
use crate::wire::webhook::{Deliveries, List, Redriven, Webhook};

const NO_WEBHOOK: (&str, &str) = ("404", "There is no such webhook in this workspace");

pub(super) fn webhooks(generator: &mut SchemaGenerator, paths: &mut Paths) {
    let webhook = of::<Webhook<'static>>(generator);
    let list = of::<List<'static>>(generator);
    let deliveries = of::<Deliveries<'static>>(generator);
    let redriven = of::<Redriven>(generator);
    operation("GET /v1/webhooks", "listWebhooks", "Who is told what happens to reviews")
        .answers(200, "All webhooks of the workspace", &list)
        .problems(&[BAD])
        .add(paths);
    let members = [
        ("url", json!({"type": "string", "format": "uri", "maxLength": limits::WEBHOOK_URL_BYTES_MAX})),
        ("events", json!({"type": "array", "items": {"enum": EVENTS}})),
        ("reviewer", nullable(json!({"type": "string", "maxLength": limits::NAME_BYTES_MAX}))),
    ];
    operation("POST /v1/webhooks", "addWebhook", "Tell a URL what happens to reviews")
        .body(&request(1, &members), &json!({"url": "https://example.com/hook"}), true)
        .answers(201, "It is told from now on; the secret is shown this once", &webhook)
        .problems(&[BAD, UNFIT])
        .add(paths);
    operation("GET /v1/webhooks/{webhook_id}", "getWebhook", "One webhook")
        .answers(200, "The webhook, without its secret", &webhook)
        .problems(&[BAD, NO_WEBHOOK])
        .add(paths);
    operation("DELETE /v1/webhooks/{webhook_id}", "removeWebhook", "Tell it nothing more")
        .answers_nothing(204, "It is gone, with what was on its way to it")
        .problems(&[BAD, NO_WEBHOOK])
        .add(paths);
    operation("GET /v1/webhooks/{webhook_id}/deliveries", "listDeliveries", "What has not arrived")
        .query("status", &json!({"enum": ["dead"]}), &json!("dead"), "Only what is not tried any more")
        .query("limit", &limit(), &json!(10), "At most so many")
        .answers(200, "Deliveries that wait for their time, or were given up", &deliveries)
        .problems(&[BAD, NO_WEBHOOK])
        .add(paths);
    operation("POST /v1/webhooks/{webhook_id}/redrive", "redriveWebhook", "Try again what was given up")
        .answers(200, "How many are tried again", &redriven)
        .problems(&[BAD, NO_WEBHOOK])
        .add(paths);
    let page = "text/html; charset=utf-8";
    let shows = operation(
        "GET /reviews/{ticket}",
        "showReview",
        "A page that says what is to be decided, for a browser; `key` of a signed link stands for a token",
    )
    .answers_with((200, page), "What is to be decided, or how it ended", &text());
    let sends = operation("POST /reviews/{ticket}", "sendReview", "The form of that page").answers_with(
        (200, page),
        "It is decided",
        &text(),
    );
    for described in [shows, sends] {
        let refused = [400, 401, 403, 404, 409, 413, 415, 422];
        refused.into_iter().fold(described, |described, status| described.or_page(status)).add(paths);
    }
}
