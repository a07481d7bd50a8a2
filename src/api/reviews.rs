//! `/reviews/{id}`: a page for a human with a browser and nothing else: no script, no cookie.
//!
//! What must hold: everything on a page that is not ours is escaped ([`page`]); a page loads nothing from anywhere; a form is only
//! taken from somebody who shows a token or the signed key of this very review, which no other site can know, so nobody is
//! made to decide by a page of somebody else's. Decisions are judged where those of the API are ([`approvals::settle`]).

mod form;
mod page;

use std::sync::Arc;

use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Response, StatusCode, header};

use self::page::{Page, Waiting};
use super::approvals::{self, Asked, End, Past};
use super::request::Incoming;
use super::respond::{Body, bytes};
use super::services::{Services, blocking};
use super::{admission, request};
use crate::auth::{Caller, Role};
use crate::engine::command::TicketView;
use crate::exec::review::Link;
use crate::limits;
use crate::model::approval::Row;
use crate::model::{RunId, Ticket, Workspace, kept};
use crate::time::{Clock as _, Timestamp};
use crate::wire::problem::Problem;

type Answer = Result<Response<Body>, Box<Problem>>;

const PATH: &str = "/reviews/";

/// Lets whoever shows a good key in; false when there is none, and the caller is judged like any other.
pub(super) fn admit(services: &Services, head: &mut Parts) -> Result<bool, Box<Problem>> {
    let Some(review) = head.uri.path().strip_prefix(PATH) else { return Ok(false) };
    let Some(key) = key(head) else { return Ok(false) };
    let link = Link::open(&services.executors.leases, key, services.clock.now());
    let link = link.filter(|link| link.ticket.to_string() == review);
    let refused = || {
        Problem::new(401, "unauthenticated", "this link is not good, or not any more; ask for another one")
    };
    let link = link.ok_or_else(refused)?;
    let workspace: Workspace = link.workspace().ok_or_else(refused)?;
    let caller = Caller { token: None, workspace, role: Role::Read, reviewer: link.reviewer.clone() };
    head.extensions.insert(Arc::new(caller));
    head.extensions.insert(Arc::new(link));
    Ok(true)
}

/// `key` of the query.
fn key(head: &Parts) -> Option<&str> {
    head.uri.query()?.split('&').find_map(|pair| pair.strip_prefix("key="))
}

/// A signed link to a review, for this reviewer; good as long as the review waits, or a week.
pub(super) fn link(services: &Services, row: &Row, reviewer: Option<Arc<str>>, now: Timestamp) -> String {
    let workspace = Workspace::of(&row.request.workflow);
    let key = sealed(services, row.ticket, &workspace, (reviewer, row.request.due), now);
    format!("{}{PATH}{}?key={key}", services.reviewing.url, row.ticket)
}

fn sealed(
    services: &Services,
    ticket: Ticket,
    workspace: &Workspace,
    (reviewer, due): (Option<Arc<str>>, Option<Timestamp>),
    now: Timestamp,
) -> String {
    let week = now.saturating_add(std::time::Duration::from_secs(limits::REVIEW_LINK_SECONDS_MAX));
    let expires = due.unwrap_or(week);
    Link { ticket, workspace: workspace.name().into(), reviewer, expires }.seal(&services.executors.leases)
}

/// `/reviews/{id}`: problems are pages, too.
pub(super) async fn route(services: &Services, head: &Parts, incoming: Incoming, review: &str) -> Answer {
    let answered = match head.method {
        Method::POST => decide(services, head, incoming, review).await,
        _ => show(services, head, review).await,
    };
    let (status, page) = match answered {
        Ok(page) => (StatusCode::OK, page),
        // What went wrong with the node is for its operator: it is logged, and says when to come again.
        Err(problem) if problem.status >= 500 => return Err(problem),
        Err(problem) => (
            StatusCode::from_u16(problem.status).unwrap_or(StatusCode::BAD_REQUEST),
            Page::problem(&problem, &action(head)),
        ),
    };
    Ok(html(status, page))
}

/// Where this very page is.
fn action(head: &Parts) -> String {
    head.uri.path_and_query().map_or_else(|| head.uri.path().to_owned(), ToString::to_string)
}

fn html(status: StatusCode, page: Page) -> Response<Body> {
    let mut response = bytes(status, "text/html; charset=utf-8", page.finish());
    let headers = response.headers_mut();
    if let Ok(policy) = HeaderValue::from_str(&page::policy()) {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    response
}

/// A review as it stands.
enum Found {
    Waits(Box<TicketView>),
    Over(RunId, Box<Past>),
}

async fn find(services: &Services, head: &Parts, review: &str) -> Result<Found, Box<Problem>> {
    let (run_id, which) = approvals::named(services, head, review).await.map_err(|problem| {
        // A page that is not there, however the address is misspelt.
        if problem.status == 400 { Problem::new(404, "approval_not_found", problem.detail) } else { problem }
    })?;
    if let Some(view) = approvals::waiting(services, run_id, &which).await? {
        return Ok(Found::Waits(view));
    }
    let (_, past) = approvals::past(services, run_id, &which).await?.ok_or_else(|| {
        Problem::new(
            404,
            "approval_not_found",
            "there is no such review; it may have been erased with its run",
        )
    })?;
    Ok(Found::Over(run_id, Box::new(past)))
}

async fn show(services: &Services, head: &Parts, review: &str) -> Result<Page, Box<Problem>> {
    match find(services, head, review).await? {
        Found::Waits(view) => {
            let digest = approvals::digest(&view).await?;
            let (action, reviewer) = action_for(services, head, &view);
            // In full, whatever of it is kept by reference, and it may be large.
            blocking(move || {
                let ticket = Ticket { run_id: view.run.run_id, seq: view.open.seq };
                let digest = kept::name(&digest);
                Page::waiting(&Waiting { view: &view, ticket, action, digest, reviewer: reviewer.as_deref() })
            })
            .await
        }
        Found::Over(run_id, past) => Ok(over(run_id, &past)),
    }
}

/// Where the form goes, with the key that it needs; and who decides, when that is known.
fn action_for(services: &Services, head: &Parts, view: &TicketView) -> (String, Option<Arc<str>>) {
    let ticket = Ticket { run_id: view.run.run_id, seq: view.open.seq };
    let caller = admission::caller(head);
    let own = caller.reviewer.as_ref().or(caller.token.as_ref());
    // Who came with a token sends it again with the form; everybody else shows a key.
    let key = match (key(head), &caller.token) {
        (Some(key), _) => Some(key.to_owned()),
        (None, Some(_)) => None,
        (None, None) => {
            let (workspace, now) = (&caller.workspace, services.clock.now());
            Some(sealed(services, ticket, workspace, (None, view.open.until), now))
        }
    };
    let query = key.map_or_else(String::new, |key| format!("?key={key}"));
    (format!("{PATH}{ticket}{query}"), own.cloned())
}

fn over(run_id: RunId, past: &Past) -> Page {
    let ticket = Ticket { run_id, seq: past.seq };
    match &past.end {
        End::Decided(decision, at) => Page::decided(ticket, &past.node, decision, *at),
        End::Expired => Page::message("Nobody decided in time", &format!("{ticket} waits no more.")),
        End::Cancelled => {
            let text = format!("{ticket} waits no more: its run has ended, or went on without it.");
            Page::message("No decision is needed any more", &text)
        }
    }
}

/// `POST /reviews/{id}`: a form that was sent.
async fn decide(
    services: &Services,
    head: &Parts,
    incoming: Incoming,
    review: &str,
) -> Result<Page, Box<Problem>> {
    let caller = admission::caller(head);
    let keyed = head.extensions.get::<Arc<Link>>().is_some();
    if !keyed && caller.token.is_none() {
        let detail = "a decision takes a token, or the link that the page was opened with";
        return Err(Problem::new(403, "forbidden", detail));
    }
    same_origin(head)?;
    let kind = request::media_type(&head.headers);
    if !kind.is_some_and(|kind| kind.eq_ignore_ascii_case("application/x-www-form-urlencoded")) {
        return Err(request::unsupported(kind, "application/x-www-form-urlencoded"));
    }
    let body = request::body(head, incoming).await?;
    let sent = form::Sent::read(&body)?;
    let text = |name: &str| sent.text(name).filter(|text| !text.trim().is_empty());
    let approved = match text("decision") {
        Some("approve") => true,
        Some("reject") => false,
        _ => return Err(Problem::new(422, "invalid_form", "decision is approve or reject")),
    };
    let digest = text("digest").and_then(kept::parse_name).ok_or_else(|| {
        Problem::new(422, "invalid_form", "the form has no digest of what was shown; open the page again")
    })?;
    let reviewer = approvals::reviewer_of(head, text("reviewer").map(Arc::from))?;
    let reason = text("reason").map(|reason| Arc::from(reason.replace("\r\n", "\n")));
    approvals::short(reason.as_deref())?;
    let filled = match find(services, head, review).await? {
        Found::Waits(view) => match &view.form {
            Some(form) => form::filled(&form.written, &sent, approved)?,
            None => None,
        },
        Found::Over(..) => None,
    };
    let asked = Asked { approved, reviewer, reason, form: filled, digest: Some(digest) };
    approvals::settle(services, head, &asked, review).await?;
    let title = if approved { "Approved" } else { "Rejected" };
    Ok(Page::message(
        title,
        &format!("Your decision is recorded, {}. You may close this page.", asked.reviewer),
    ))
}

/// A browser says where a form was sent from. `null` is what ours says: its page gives no referrer away, and the key in its
/// address stands for it.
fn same_origin(head: &Parts) -> Result<(), Box<Problem>> {
    const SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
    let text = |name: HeaderName| head.headers.get(name).and_then(|value| value.to_str().ok());
    let host = text(header::HOST).unwrap_or_default();
    let own = match text(header::ORIGIN) {
        None | Some("null") => true,
        Some(origin) => {
            origin.split_once("://").is_some_and(|(_, authority)| authority.eq_ignore_ascii_case(host))
        }
    };
    if own && text(SITE).is_none_or(|site| matches!(site, "same-origin" | "none")) {
        return Ok(());
    }
    Err(Problem::new(403, "cross_origin", "this form was sent from a page of somebody else's"))
}
