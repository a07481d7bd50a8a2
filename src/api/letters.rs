//! Dead letters: listed, shown, redriven, purged (docs/resilience.md).
//!
//! A letter says which run it is of, so it is of that run's workspace, and does not exist for others. What it was asked
//! for stands in the run's record and is read there when somebody wants to see it. A redrive is a fork; it has one key for each
//! letter, so a letter is redriven once, however often and by whomever it is asked for.

use std::sync::Arc;

use http::request::Parts;
use http::{Response, StatusCode, header};
use sha2::{Digest as _, Sha256};

use super::replay::Given;
use super::respond::{Body, bytes, json};
use super::services::{Services, blocking};
use super::{admission, replay, request};
use crate::limits;
use crate::model::event::Idempotency;
use crate::model::letter::{Letter, LetterId, State};
use crate::model::{RunId, Value, Workspace};
use crate::store::letters::{self, Query};
use crate::wire::Shown;
use crate::wire::letter::{Full, Line, Page, Purged};
use crate::wire::problem::Problem;

type Answer = Result<Response<Body>, Box<Problem>>;

fn no_letter(text: &str) -> Box<Problem> {
    let text: String = text.chars().take(64).collect();
    Problem::new(404, "dead_letter_not_found", format!("there is no dead letter {text:?}"))
}

fn failed(error: &crate::store::Error) -> Box<Problem> {
    Problem::unavailable("storage_failed", error.to_string())
}

/// The letter that a path names, when it is of the caller's workspace.
async fn named(services: &Services, head: &Parts, text: &str) -> Result<Letter, Box<Problem>> {
    let id: LetterId = text.parse().map_err(|_| no_letter(text))?;
    let (letters, workspace) = (services.letters.clone(), admission::workspace(head).clone());
    let found = services.read(move || letters.letter(&workspace, id).map_err(|error| failed(&error))).await?;
    found.ok_or_else(|| no_letter(text))
}

fn cursor(text: Option<&str>) -> Result<Option<LetterId>, Box<Problem>> {
    let Some(text) = text else { return Ok(None) };
    text.parse().map(Some).map_err(|_| {
        let text: String = text.chars().take(64).collect();
        let detail = format!("cursor {text:?} did not come from this listing's next_cursor");
        Problem::new(400, "invalid_cursor", detail)
    })
}

/// Is `status` the word for those that were redriven?
fn redriven(status: Option<&str>) -> Result<bool, Box<Problem>> {
    match status {
        None | Some("dead") => Ok(false),
        Some("redriven") => Ok(true),
        Some(text) => {
            let text: String = text.chars().take(64).collect();
            let detail = format!("status is {text:?}, which is none of dead, redriven");
            Err(Problem::new(400, "invalid_parameter", detail))
        }
    }
}

/// The conditions of a listing; `None` when nothing can fit.
fn query(head: &Parts, workflow: Option<&str>, code: Option<&str>, limit: usize) -> Option<Query> {
    let workspace = admission::workspace(head);
    let workflow = match workflow {
        None => None,
        // What cannot be a name has no runs.
        Some(name) => Some(Arc::from(&*workspace.qualified(name)?)),
    };
    Some(Query {
        workspace: workspace.clone(),
        redriven: false,
        before: None,
        workflow,
        code: code.map(Arc::from),
        limit,
        scan_limit: limits::LETTERS_SCANNED_MAX,
    })
}

async fn page(services: &Services, query: Query) -> Result<letters::Page, Box<Problem>> {
    let letters = services.letters.clone();
    services.read(move || letters.letters(&query).map_err(|error| failed(&error))).await
}

/// `GET /v1/dlq`
pub(super) async fn list(services: &Services, head: &Parts) -> Answer {
    request::require_accept(&head.headers, "application/json")?;
    let known = ["workflow", "code", "status", "limit", "cursor"];
    let [workflow, code, status, limit, cursor_text] = request::parameters(head, known)?;
    let limit = request::page_limit(limit.as_deref())?;
    let (before, redriven) = (cursor(cursor_text.as_deref())?, redriven(status.as_deref())?);
    let found = match query(head, workflow.as_deref(), code.as_deref(), limit) {
        Some(query) => page(services, Query { before, redriven, ..query }).await?,
        None => letters::Page::default(),
    };
    let letters = found.letters.iter().map(Line::new).collect();
    Ok(json(StatusCode::OK, &Page { letters, next_cursor: found.next.map(Shown) }))
}

/// `GET /v1/dlq/{id}`
pub(super) async fn get(services: &Services, head: &Parts, text: &str) -> Answer {
    request::require_accept(&head.headers, "application/json")?;
    let letter = named(services, head, text).await?;
    let line = Line::new(&letter);
    let body = match replay::given_up(services, &letter).await {
        Ok(Given { attempts, failure, request }) => {
            let full = Full {
                line,
                attempts: Some(attempts),
                error: Full::error(failure.as_ref()),
                request: &request,
                unreadable: None,
            };
            json(StatusCode::OK, &full)
        }
        // That it is there is known all the same.
        Err(problem) if problem.status != 503 => {
            let (request, unreadable) = (&Value::Null, Some(&*problem.detail));
            json(StatusCode::OK, &Full { line, attempts: None, error: None, request, unreadable })
        }
        Err(problem) => return Err(problem),
    };
    Ok(body)
}

/// `POST /v1/dlq/{id}/redrive`
pub(super) async fn redrive(services: &Services, head: &Parts, text: &str) -> Answer {
    services.refuse_when_stopping()?;
    // Whatever key there is: that of the letter stands for all.
    request::idempotency_key(&head.headers)?;
    let letter = named(services, head, text).await?;
    let workspace = admission::workspace(head).clone();
    if let State::Redriven(run_id) = letter.state {
        return redriven_before(services, letter.id, run_id).await;
    }
    let key = key(&workspace, letter.id);
    let (run_id, answer) = replay::redrive(services, &workspace, &letter, key).await?;
    // Between the two the key of the letter finds the run.
    let letters = services.letters.clone();
    let marked = blocking(move || letters.redriven(&workspace, letter.id, run_id)).await?;
    marked.map_err(|error| failed(&error))?;
    Ok(answer)
}

/// What a redrive is answered once there has been one.
async fn redriven_before(services: &Services, id: LetterId, run_id: RunId) -> Answer {
    match services.locate(run_id).await {
        Ok(location) => replay::redriven(services, &location.summary),
        Err(problem) if problem.status == 404 => {
            let detail = format!("{id} was redriven, and {run_id}, which did its work, is forgotten");
            let mut problem = Problem::new(409, "already_redriven", detail);
            problem.run_id = Some(run_id.to_string());
            Err(problem)
        }
        Err(problem) => Err(problem),
    }
}

/// The key that a letter's run is started under.
fn key(workspace: &Workspace, id: LetterId) -> Idempotency {
    let scope = format!("/v1/dlq@{}\0{id}", workspace.name());
    let hash: [u8; 32] = Sha256::digest(scope).into();
    let half = |half: Option<&[u8; 16]>| half.copied().unwrap_or_default();
    Idempotency { key: half(hash.first_chunk()), fingerprint: half(hash.last_chunk()) }
}

/// `DELETE /v1/dlq/{id}`
pub(super) async fn remove(services: &Services, head: &Parts, text: &str) -> Answer {
    let letter = named(services, head, text).await?;
    purge(services, head, vec![letter.id]).await?;
    let mut response = bytes(StatusCode::NO_CONTENT, "application/json", "");
    response.headers_mut().remove(header::CONTENT_TYPE);
    Ok(response)
}

/// `DELETE /v1/dlq`
pub(super) async fn purge_some(services: &Services, head: &Parts) -> Answer {
    let [workflow, code, all] = request::parameters(head, ["workflow", "code", "all"])?;
    if let Some(other) = all.as_deref().filter(|all| *all != "true") {
        let other: String = other.chars().take(64).collect();
        return Err(Problem::new(
            400,
            "invalid_parameter",
            format!("all={other:?}: it is true, or left out"),
        ));
    }
    if workflow.is_none() && code.is_none() && all.is_none() {
        let detail = "say which: workflow, code, or all=true for every dead letter of the workspace";
        return Err(Problem::new(422, "invalid_parameter", detail));
    }
    let most = limits::LETTERS_PURGED_MAX;
    let Some(query) = query(head, workflow.as_deref(), code.as_deref(), most) else {
        return Ok(json(StatusCode::OK, &Purged { purged: 0, more: false }));
    };
    let found = page(services, query).await?;
    let more = found.next.is_some();
    let ids = found.letters.iter().map(|letter| letter.id).collect();
    let purged = purge(services, head, ids).await?;
    Ok(json(StatusCode::OK, &Purged { purged, more }))
}

async fn purge(services: &Services, head: &Parts, ids: Vec<LetterId>) -> Result<usize, Box<Problem>> {
    let (letters, workspace) = (services.letters.clone(), admission::workspace(head).clone());
    blocking(move || letters.purge(&workspace, &ids)).await?.map_err(|error| failed(&error))
}
