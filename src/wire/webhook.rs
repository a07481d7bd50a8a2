//! Bodies about webhooks: whom the node tells of reviews, what is on its way, and what is told (CloudEvents 1.0).

use std::collections::BTreeMap;

use serde::Serialize;

use super::Shown;
use crate::model::approval::{Row, State};
use crate::model::webhook::{self, Delivery, WebhookId};
use crate::model::workspace::shown;
use crate::model::{RunId, Ticket, Workspace};
use crate::time::Timestamp;

/// A webhook.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Webhook"))]
pub struct Webhook<'a> {
    /// What it is called.
    pub id: Shown<WebhookId>,
    /// Where it is told.
    pub url: &'a str,
    /// Of what: `approval.requested`, `approval.escalated`, `approval.decided`.
    pub events: Vec<&'static str>,
    /// Only of reviews that this one may decide.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reviewer: Option<&'a str>,
    /// Since when.
    pub created_at: Shown<Timestamp>,
    /// Deliveries that arrived.
    pub delivered: u64,
    /// When the last one did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delivered_at: Option<Shown<Timestamp>>,
    /// What deliveries are signed with; shown when the webhook is made, and never again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
}

impl<'a> Webhook<'a> {
    /// Without its secret.
    pub fn new(webhook: &'a webhook::Webhook) -> Self {
        let event = |number: &u8| webhook::EVENTS.get(usize::from(*number)).copied();
        Self {
            id: Shown(webhook.id),
            url: &webhook.url,
            events: webhook.events.iter().filter_map(event).collect(),
            reviewer: webhook.reviewer.as_deref(),
            created_at: Shown(webhook.created_at),
            delivered: webhook.delivered,
            delivered_at: webhook.delivered_at.map(Shown),
            secret: None,
        }
    }
}

/// The webhooks of a workspace.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "WebhookList"))]
pub struct List<'a> {
    /// All of them.
    pub webhooks: Vec<Webhook<'a>>,
}

/// Something on its way, or given up.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "WebhookDelivery"))]
pub struct OnItsWay<'a> {
    /// `webhook-id` of the delivery, whenever it is made.
    pub id: String,
    /// What is told.
    pub event: &'static str,
    /// Of which review.
    pub ticket: Shown<Ticket>,
    /// Of which run.
    pub run_id: Shown<RunId>,
    /// `pending`, or `dead` when it is not tried any more.
    pub status: &'static str,
    /// Attempts so far.
    pub attempts: u32,
    /// When the next one is made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_at: Option<Shown<Timestamp>>,
    /// How the last one failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<&'a str>,
}

impl<'a> OnItsWay<'a> {
    /// Under this id.
    pub fn new(id: String, delivery: &'a Delivery) -> Self {
        Self {
            id,
            event: delivery.row.event(),
            ticket: Shown(delivery.row.ticket),
            run_id: Shown(delivery.row.ticket.run_id),
            status: if delivery.next_at.is_some() { "pending" } else { "dead" },
            attempts: delivery.attempts,
            next_at: delivery.next_at.map(Shown),
            error: delivery.error.as_deref(),
        }
    }
}

/// Deliveries of a webhook.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "WebhookDeliveries"))]
pub struct Deliveries<'a> {
    /// Those that have not arrived.
    pub deliveries: Vec<OnItsWay<'a>>,
}

/// What a redrive did.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "WebhookRedriven"))]
pub struct Redriven {
    /// Dead letters that are tried again.
    pub redriven: usize,
}

/// What is told: a CloudEvent.
#[derive(Debug, Serialize)]
pub struct CloudEvent<'a> {
    specversion: &'static str,
    id: String,
    source: String,
    #[serde(rename = "type")]
    kind: String,
    subject: Shown<Ticket>,
    time: Shown<Timestamp>,
    datacontenttype: &'static str,
    data: Data<'a>,
}

#[derive(Debug, Serialize)]
struct Data<'a> {
    title: String,
    ticket: Shown<Ticket>,
    run_id: Shown<RunId>,
    workflow: &'a str,
    node: &'a str,
    status: &'static str,
    reviewers: Vec<std::sync::Arc<str>>,
    created_at: Shown<Timestamp>,
    due_at: Option<Shown<Timestamp>>,
    escalations: u32,
    /// Where it is decided; signed when it is known who does.
    review_url: &'a str,
    /// Signed, by reviewer.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    review_urls: &'a BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    decision: Option<Told<'a>>,
}

#[derive(Debug, Serialize)]
struct Told<'a> {
    approved: bool,
    reviewer: &'a str,
    reason: Option<&'a str>,
}

impl<'a> CloudEvent<'a> {
    /// Of a review as it was then.
    pub fn new(row: &'a Row, review_url: &'a str, review_urls: &'a BTreeMap<String, String>) -> Self {
        let (request, run_id) = (&row.request, row.ticket.run_id);
        let workspace = Workspace::of(&request.workflow);
        let (workflow, node) = (shown(&request.workflow), &*request.node);
        let title = match (row.state, &row.verdict, row.level) {
            (State::Pending, _, 0) => format!("A decision is needed: {node} of {workflow}"),
            (State::Pending, ..) => format!("A decision is still needed: {node} of {workflow}"),
            (_, Some(verdict), _) => {
                format!("{node} of {workflow} was {} by {}", row.state.as_str(), verdict.reviewer)
            }
            _ => format!("Nobody decided in time: {node} of {workflow}"),
        };
        Self {
            specversion: "1.0",
            id: format!("{run_id}_{}", row.last.0),
            source: format!("/workspaces/{}/runs/{run_id}", workspace.name()),
            kind: format!("aob.{}.v1", row.event()),
            subject: Shown(row.ticket),
            time: Shown(row.last.1),
            datacontenttype: "application/json",
            data: Data {
                title,
                ticket: Shown(row.ticket),
                run_id: Shown(run_id),
                workflow,
                node,
                status: row.state.as_str(),
                reviewers: row.reviewers(),
                created_at: Shown(row.since),
                due_at: request.due.map(Shown),
                escalations: row.level,
                review_url,
                review_urls,
                decision: row.verdict.as_ref().map(|verdict| Told {
                    approved: verdict.approved,
                    reviewer: &verdict.reviewer,
                    reason: verdict.reason.as_deref(),
                }),
            },
        }
    }
}
