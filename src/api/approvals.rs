//! Reviews that humans decide: those that wait, one in full, and the decision.
//!
//! A ticket says which run it is of and which event asked, so nothing is looked up but the run; who asks for a ticket of
//! another workspace is told that there is none. What waits is asked of its shard; what was decided, or expired, stands in
//! the events of its run and is read there. What does not fit (reviewer, digest, form) is refused before the decision goes
//! to the shard, which judges once more whether it waits, and for whom.

mod decide;
mod over;
mod past;

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use http::request::Parts;
use http::{Response, StatusCode, header};
use sha2::{Digest as _, Sha256};

use super::respond::{Body, json, with};
use super::services::{Services, blocking, unexpected};
use super::{admission, request, runs};
use crate::engine::command::{ApprovalQuery, Command, ListedReview, Refusal, Reply, TicketView, Which};
use crate::limits;
use crate::model::approval::Row;
use crate::model::{RunFilter, RunId, RunSummary, Seq, Ticket, Value, kept, run_key};
use crate::store::approvals::Query;
use crate::time::Clock as _;
use crate::wire::Shown;
use crate::wire::approval::{Decided, Full, Line, Page};
use crate::wire::problem::Problem;

pub(super) use self::decide::{Asked, decide, reviewer_of, settle, short};
pub(super) use self::past::{End, Past};

type Answer = Result<Response<Body>, Box<Problem>>;

/// What a ticket is called in words, by run and node.
const REVIEW: &str = "review_";
/// `run_` and 32 digits.
const RUN_ID_BYTES: usize = 36;
/// `exec_` and 12 digits.
const EXECUTION_ID_BYTES: usize = 17;

fn no_approval(text: &str) -> Box<Problem> {
    let text: String = text.chars().take(256).collect();
    Problem::new(404, "approval_not_found", format!("there is no review {text:?}"))
}

fn no_ticket(text: &str) -> Box<Problem> {
    let text: String = text.chars().take(256).collect();
    let detail = format!(
        "{text:?} is no ticket: tkt_ with a run's 32 digits, _ and a number, or review_ with a run's id, _ and a node"
    );
    Problem::new(400, "invalid_ticket", detail)
}

/// The review that a path names, when its run is the caller's.
pub(super) async fn named(
    services: &Services,
    head: &Parts,
    text: &str,
) -> Result<(RunId, Which), Box<Problem>> {
    let text = request::percent_decoded(text, false).ok_or_else(|| no_ticket(text))?;
    let (run, which) = match (text.parse::<Ticket>(), text.strip_prefix(REVIEW)) {
        (Ok(ticket), _) => (ticket.run_id.to_string(), Which::Asked(ticket.seq)),
        (Err(_), None) => return Err(no_ticket(&text)),
        (Err(_), Some(rest)) => {
            let end = if rest.starts_with("exec_") { EXECUTION_ID_BYTES } else { RUN_ID_BYTES };
            let (run, path) = rest.split_at_checked(end).ok_or_else(|| no_ticket(&text))?;
            let path = path.strip_prefix('_').filter(|path| !path.is_empty());
            (run.to_owned(), Which::At(path.ok_or_else(|| no_ticket(&text))?.into()))
        }
    };
    let run_id = admission::run(services, head, &run).await.map_err(|problem| match problem.status {
        404 => no_approval(&text),
        400 => no_ticket(&text),
        _ => problem,
    })?;
    Ok((run_id, which))
}

/// The review, if it waits.
pub(super) async fn waiting(
    services: &Services,
    run_id: RunId,
    which: &Which,
) -> Result<Option<Box<TicketView>>, Box<Problem>> {
    match services.ask(run_id, Command::Ticket { run_id, which: which.clone() }).await? {
        Reply::Ticket(view) => Ok(Some(view)),
        Reply::Refused(Refusal::NoReview { .. } | Refusal::NotFound(_)) => Ok(None),
        other => Err(unexpected(other)),
    }
}

/// The review, if it was asked for once.
pub(super) async fn past(
    services: &Services,
    run_id: RunId,
    which: &Which,
) -> Result<Option<(RunSummary, Past)>, Box<Problem>> {
    let location = services.locate(run_id).await?;
    let (runs, which) = (services.runs.clone(), which.clone());
    Ok(blocking(move || {
        let graph = runs.graph(&location)?;
        let found = past::find(&*runs, &location, &which, graph.as_deref())?;
        Ok::<_, super::ports::StorageError>(found.map(|found| (location.summary, found)))
    })
    .await??)
}

/// SHA-256 of what a review shows, canonical (RFC 8785): the run, the node, the data, the form.
pub(super) async fn digest(view: &TicketView) -> Result<[u8; 32], Box<Problem>> {
    let members = [
        ("run_id", Value::string(view.run.run_id.to_string())),
        ("node", Value::string(view.open.node.clone())),
        ("data", view.review.data.clone()),
        ("form", view.form.as_ref().map_or(Value::Null, |form| form.written.clone())),
    ];
    let shown = Value::map(members);
    blocking(move || {
        let text = serde_json_canonicalizer::to_string(&shown).unwrap_or_else(|_| shown.to_json());
        Sha256::digest(text.as_bytes()).into()
    })
    .await
}

fn executed_as(run: &RunSummary) -> String {
    let own = run.run_key.as_deref().filter(|key| run_key::is_execution_id(key));
    own.map_or_else(|| run.run_id.to_string(), str::to_owned)
}

/// `GET /v1/approvals/{ticket}`
pub(super) async fn get(services: &Services, head: &Parts, text: &str) -> Answer {
    request::require_accept(&head.headers, "application/json")?;
    let (run_id, which) = named(services, head, text).await?;
    if let Some(view) = waiting(services, run_id, &which).await? {
        let digest = digest(&view).await?;
        return Ok(kept::naming(view.kept.as_ref(), || json(StatusCode::OK, &whole(&view, &digest))));
    }
    let (run, past) = past(services, run_id, &which).await?.ok_or_else(|| no_approval(text))?;
    let reviewers = past.reviewers();
    let ticket = Ticket { run_id, seq: past.seq };
    let mut line = Line::new(ticket, (&run.workflow, &past.node), &reviewers, (past.since, past.review.due));
    let (decision, digest) = match &past.end {
        End::Decided(decision, at) => {
            (Some(Decided::new(decision, Some(*at))), Some(kept::name(&decision.digest)))
        }
        End::Expired | End::Cancelled => (None, None),
    };
    line.status = match (&decision, &past.end) {
        (Some(decided), _) => decided.status(),
        (None, End::Expired) => "expired",
        (None, _) => "cancelled",
    };
    let body = Full {
        line,
        execution_id: executed_as(&run),
        step_id: &past.node,
        data: &past.review.data,
        form: None,
        reason_required: false,
        escalations: past.level,
        digest,
        decision,
    };
    Ok(json(StatusCode::OK, &body))
}

fn whole<'a>(view: &'a TicketView, digest: &[u8; 32]) -> Full<'a> {
    let open = &view.open;
    Full {
        line: line(view.run.run_id, &view.run.workflow, open),
        execution_id: executed_as(&view.run),
        step_id: &open.node,
        data: &view.review.data,
        form: view.form.as_ref().map(|form| &form.written),
        reason_required: view.reason_required,
        escalations: view.level,
        digest: Some(kept::name(digest)),
        decision: None,
    }
}

/// A review that waits, of a listing.
pub(super) fn line<'a>(
    run_id: RunId,
    workflow: &'a str,
    review: &'a crate::engine::command::OpenReview,
) -> Line<'a> {
    let ticket = Ticket { run_id, seq: review.seq };
    let line = Line::new(ticket, (workflow, &review.node), &review.reviewers, (review.since, review.until));
    Line { policy: review.policy.as_deref(), ..line }
}

/// What a listing may be asked for.
const LIST_PARAMETERS: [&str; 5] = ["reviewer", "state", "workflow", "limit", "cursor"];

/// `GET /v1/approvals`
pub(super) async fn list(services: &Services, head: &Parts) -> Answer {
    request::require_accept(&head.headers, "application/json")?;
    let [reviewer, state, workflow, limit, cursor] = request::parameters(head, LIST_PARAMETERS)?;
    let over = state.as_deref().map_or(Ok(None), over::state)?;
    let before = cursor.as_deref().map(|text| {
        text.parse::<Ticket>().map_err(|_| {
            let text: String = text.chars().take(64).collect();
            let detail = format!("cursor {text:?} did not come from this listing's next_cursor");
            Problem::new(400, "invalid_cursor", detail)
        })
    });
    let before = before.transpose()?.map(|ticket| (ticket.run_id, ticket.seq));
    let workspace = admission::workspace(head);
    let inside = workflow.as_deref().map(|name| workspace.qualified(name));
    let limit = request::page_limit(limit.as_deref())?;
    if let Some(None) = inside {
        // What cannot be a name has no runs.
        return Ok(json(StatusCode::OK, &Page { approvals: Vec::new(), next_cursor: None }));
    }
    let given = [("reviewer", &reviewer), ("workflow", &workflow), ("state", &state)];
    if let Some(state) = over {
        let query = Query {
            workspace: workspace.clone(),
            state,
            before: before.map(|(run_id, seq)| Ticket { run_id, seq }),
            workflow: inside.flatten().map(|name| Arc::from(&*name)),
            reviewer: reviewer.as_deref().map(Arc::from),
            limit,
            scan_limit: limits::APPROVALS_SCANNED_MAX,
        };
        let (rows, next) = over::page(services, query).await?;
        let reviewers: Vec<_> = rows.iter().map(Row::reviewers).collect();
        let approvals =
            rows.iter().zip(&reviewers).map(|(row, reviewers)| over::line(row, reviewers)).collect();
        return Ok(linked(approvals, next, limit, given));
    }
    let filter = RunFilter {
        workspace: workspace.clone(),
        workflow: inside.flatten().map(|name| Arc::from(&*name)),
        ..RunFilter::default()
    };
    let query =
        ApprovalQuery { before, filter, reviewer: reviewer.as_deref().map(Arc::from), limit: limit + 1 };
    let mut found = page(services, &query).await?;
    let more = found.len() > limit;
    found.truncate(limit);
    let next = found.last().filter(|_| more).map(|row| Ticket { run_id: row.run_id, seq: row.review.seq });
    let approvals = found.iter().map(|row| line(row.run_id, &row.workflow, &row.review)).collect();
    Ok(linked(approvals, next, limit, given))
}

/// A page, and where the next one is.
fn linked(
    approvals: Vec<Line<'_>>,
    next: Option<Ticket>,
    limit: usize,
    given: [(&str, &Option<String>); 3],
) -> Response<Body> {
    let response = json(StatusCode::OK, &Page { approvals, next_cursor: next.map(Shown) });
    let Some(next) = next else { return response };
    let mut link = format!("</v1/approvals?cursor={next}&limit={limit}");
    for (name, value) in given {
        if let Some(value) = value {
            link.push_str(&format!("&{name}={}", runs::percent_encoded(value)));
        }
    }
    with(response, header::LINK, format!("{link}>; rel=\"next\""))
}

/// What waits on all shards, those of the newest runs first.
async fn page(services: &Services, query: &ApprovalQuery) -> Result<Vec<ListedReview>, Box<Problem>> {
    let now_us = services.clock.monotonic_us();
    let mut pending = Vec::with_capacity(usize::from(services.gate.shards()));
    for shard in 0..services.gate.shards() {
        let command = Command::Approvals(Box::new(query.clone()));
        pending.push(services.gate.send(shard, command, now_us)?);
    }
    let mut found: BTreeMap<Reverse<(RunId, Seq)>, ListedReview> = BTreeMap::new();
    for answer in pending {
        match answer.await? {
            Reply::Approvals(rows) => {
                found.extend(rows.into_iter().map(|row| (Reverse((row.run_id, row.review.seq)), row)));
            }
            other => return Err(unexpected(other)),
        }
    }
    Ok(found.into_values().collect())
}
