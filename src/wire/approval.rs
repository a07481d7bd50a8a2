//! Bodies about reviews: one in a listing, one in full, and what a decision is answered with.

use std::sync::Arc;

use serde::Serialize;

use super::Shown;
use crate::model::workspace::shown;
use crate::model::{RunId, Ticket, Value};
use crate::time::Timestamp;

/// A review that waits, in one line.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "ApprovalLine"))]
pub struct Line<'a> {
    /// What it is called.
    pub ticket: Shown<Ticket>,
    /// The same by run and node.
    pub review_id: String,
    /// Its run.
    pub run_id: Shown<RunId>,
    /// Name of its workflow.
    pub workflow: &'a str,
    /// Path of its node.
    pub node: &'a str,
    /// `pending`, `approved`, `rejected`, `expired`, or `cancelled` when the run went on or ended without it.
    pub status: &'static str,
    /// Who was asked so far; nobody by name when anybody may decide.
    #[cfg_attr(test, schemars(with = "Vec<String>"))]
    pub reviewers: &'a [Arc<str>],
    /// When it was asked.
    pub created_at: Shown<Timestamp>,
    /// When nobody is waited for any more; null when there is no such time.
    pub timeout_at: Option<Shown<Timestamp>>,
    /// Of one that is over: who decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decided_by: Option<&'a str>,
    /// In the words of who did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'a str>,
    /// When it was over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Shown<Timestamp>>,
    /// The rule of the node that asks, such as `tag money`; absent when the workflow itself asks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<&'a str>,
}

impl<'a> Line<'a> {
    /// Of this ticket, at this node.
    pub fn new(
        ticket: Ticket,
        (workflow, node): (&'a str, &'a str),
        reviewers: &'a [Arc<str>],
        (since, until): (Timestamp, Option<Timestamp>),
    ) -> Self {
        Self {
            ticket: Shown(ticket),
            review_id: format!("review_{}_{node}", ticket.run_id),
            run_id: Shown(ticket.run_id),
            workflow: shown(workflow),
            node,
            status: "pending",
            reviewers,
            created_at: Shown(since),
            timeout_at: until.map(Shown),
            decided_by: None,
            reason: None,
            ended_at: None,
            policy: None,
        }
    }
}

/// A page of reviews.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "ApprovalPage"))]
pub struct Page<'a> {
    /// Those of the newest runs first.
    pub approvals: Vec<Line<'a>>,
    /// Give it back as `cursor` for the next page; null at the end.
    pub next_cursor: Option<Shown<Ticket>>,
}

/// A review in full.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Approval"))]
pub struct Full<'a> {
    /// In one line.
    #[serde(flatten)]
    pub line: Line<'a>,
    /// The run, as whoever started it calls it.
    pub execution_id: String,
    /// The node, under another name.
    pub step_id: &'a str,
    /// What reviewers are shown.
    #[cfg_attr(test, schemars(with = "serde_json::Value"))]
    pub data: &'a Value,
    /// JSON Schema of what they fill in; null when they fill in nothing.
    #[cfg_attr(test, schemars(with = "Option<serde_json::Value>"))]
    pub form: Option<&'a Value>,
    /// A decision needs a reason.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub reason_required: bool,
    /// How often others were asked besides.
    pub escalations: u32,
    /// SHA-256 of what is shown. Given back with a decision, that is refused when something else is shown by then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// What was decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decision: Option<Decided<'a>>,
}

/// What was decided, and by whom.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Decision"))]
pub struct Decided<'a> {
    /// Or rejected.
    pub approved: bool,
    /// Who decided.
    pub reviewer: &'a str,
    /// In the reviewer's words.
    pub reason: Option<&'a str>,
    /// What was filled in.
    #[cfg_attr(test, schemars(with = "serde_json::Value"))]
    pub form: &'a Value,
    /// When.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decided_at: Option<Shown<Timestamp>>,
}

impl<'a> Decided<'a> {
    /// As written down, at this time.
    pub fn new(decision: &'a crate::model::event::Decision, at: Option<Timestamp>) -> Self {
        Self {
            approved: decision.approved,
            reviewer: &decision.reviewer,
            reason: decision.reason.as_deref(),
            form: &decision.form,
            decided_at: at.map(Shown),
        }
    }

    /// The status of a review that ended with it.
    pub fn status(&self) -> &'static str {
        if self.approved { "approved" } else { "rejected" }
    }
}

/// What a decision is answered with.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "ApprovalSettled"))]
pub struct Settled<'a> {
    /// The review.
    pub ticket: Shown<Ticket>,
    /// Its run.
    pub run_id: Shown<RunId>,
    /// Path of its node.
    pub node: &'a str,
    /// `approved` or `rejected`.
    pub status: &'static str,
    /// What is decided now, and durably so.
    pub decision: Decided<'a>,
}
