//! Reviews that are over, by how they ended, from the index: also those of runs that have ended.

use std::sync::Arc;

use crate::api::services::{Services, blocking};
use crate::model::Ticket;
use crate::model::approval::{Row, State};
use crate::store::approvals::Query;
use crate::wire::Shown;
use crate::wire::approval::Line;
use crate::wire::problem::Problem;

/// The state that a listing asks for; `None`: what waits, which the shards know.
pub(super) fn state(text: &str) -> Result<Option<State>, Box<Problem>> {
    if text == State::Pending.as_str() {
        return Ok(None);
    }
    State::OVER.into_iter().find(|state| state.as_str() == text).map(Some).ok_or_else(|| {
        let text: String = text.chars().take(64).collect();
        let detail = format!("state is {text:?}, which is none of pending, approved, rejected, expired");
        Problem::new(400, "invalid_parameter", detail)
    })
}

/// A page of them, and where the next one begins.
pub(super) async fn page(
    services: &Services,
    query: Query,
) -> Result<(Vec<Row>, Option<Ticket>), Box<Problem>> {
    let approvals = services.reviewing.approvals.clone();
    let page = blocking(move || approvals.over(&query)).await?;
    let page = page.map_err(|error| Problem::unavailable("storage_failed", error.to_string()))?;
    Ok((page.rows, page.next))
}

/// One of them.
pub(super) fn line<'a>(row: &'a Row, reviewers: &'a [Arc<str>]) -> Line<'a> {
    let request = &row.request;
    let line = Line::new(row.ticket, (&request.workflow, &request.node), reviewers, (row.since, request.due));
    Line {
        status: row.state.as_str(),
        decided_by: row.verdict.as_ref().map(|verdict| &*verdict.reviewer),
        reason: row.verdict.as_ref().and_then(|verdict| verdict.reason.as_deref()),
        ended_at: Some(Shown(row.last.1)),
        ..line
    }
}
