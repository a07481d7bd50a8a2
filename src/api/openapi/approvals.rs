//! The operations of reviews.

use schemars::SchemaGenerator;
use serde_json::{Value as Json, json};

use super::described::{BAD, Paths, UNFIT, limit, of};
use super::operation::operation;
use super::parameters::TICKET;
use super::shapes::{nullable, request, text};
use crate::limits;
use crate::wire::approval::{Full, Page, Settled};

const NO_TICKET: (&str, &str) = ("404", "There is no such review in this workspace");

pub(super) fn approvals(generator: &mut SchemaGenerator, paths: &mut Paths) {
    super::webhooks::webhooks(generator, paths);
    let page = of::<Page<'static>>(generator);
    let full = of::<Full<'static>>(generator);
    let settled = of::<Settled<'static>>(generator);
    operation(
        "GET /v1/approvals",
        "listApprovals",
        "Reviews that wait for a decision, or that ended so, in pages",
    )
    .query("reviewer", &text(), &json!("ops"), "Only those that this one may decide")
    .query(
        "state",
        &json!({"enum": ["pending", "approved", "rejected", "expired"]}),
        &json!("pending"),
        "How they stand; pending when nothing is said",
    )
    .query("workflow", &text(), &json!("greet"), "Only those of runs of this workflow")
    .query("limit", &limit(), &json!(10), "Rows of a page")
    .query(
        "cursor",
        &json!({"type": "string", "pattern": "^tkt_[0-9a-f]{12}7[0-9a-f]{19}_[1-9][0-9]{0,17}$"}),
        &json!(TICKET),
        "`next_cursor` of the page before",
    )
    .answers(200, "A page, those of the newest runs first; `Link: rel=\"next\"` leads on", &page)
    .problems(&[BAD])
    .add(paths);
    operation(
        "GET /v1/approvals/{ticket}",
        "getApproval",
        "One review: what is asked, whom, what was decided",
    )
    .answers(200, "The review", &full)
    .problems(&[BAD, NO_TICKET])
    .add(paths);
    let members: [(&str, Json); 6] = [
        ("decision", json!({"enum": ["approve", "reject"]})),
        ("approved", json!({"type": "boolean"})),
        ("reason", nullable(json!({"type": "string", "maxLength": limits::REASON_BYTES_MAX}))),
        ("form", json!({"description": "What the review's form asks for"})),
        (
            "reviewer",
            nullable(json!({"type": "string", "maxLength": limits::NAME_BYTES_MAX,
                "description": "Who decides; a token says it itself, and only the role admin may name another"})),
        ),
        (
            "digest",
            nullable(json!({"type": "string", "pattern": "^sha256:[0-9a-f]{64}$",
                "description": "Of what was shown; the decision is refused when something else is"})),
        ),
    ];
    let mut body = request(0, &members);
    body["oneOf"] = json!([{"required": ["decision"]}, {"required": ["approved"]}]);
    operation("POST /v1/approvals/{ticket}/decision", "decideApproval", "Approve or reject")
        .body(&body, &json!({"decision": "approve", "reason": "looks good", "reviewer": "ops"}), true)
        .answers(200, "It is decided, durably; the same again is answered the same", &settled)
        .problems(&[BAD, NO_TICKET, UNFIT])
        .problems(&[("403", "This one was not asked, or the token's role is too small")])
        .problems(&[(
            "409",
            "It was decided otherwise, has expired, is gone, or shows something else by now",
        )])
        .add(paths);
}
