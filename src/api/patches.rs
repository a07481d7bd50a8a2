//! Patches of a running graph: proposed, taken back, listed, shown.
//!
//! A patch is put on the graph as it is, checked and compiled here, and made by the run's shard if the graph has not
//! changed meanwhile; if it has, it is put on the new graph ([`limits::PATCH_REBASES_MAX`] times), unless what changed
//! since the version that its author knew touches the same: that is 409, with both sides. Only the shard's step of the log
//! changes anything. A patch that is refused leaves nothing but `patch.rejected`, and one that waits for a human (`held`)
//! nothing but `patch.held`.

mod again;
mod blame;
mod differ;
mod envelope;
mod forward;
mod held;
mod put;
mod refusal;
mod revoke;
mod show;

use std::sync::Arc;

use http::request::Parts;
use http::{Response, StatusCode, header};
use serde::Serialize;

use self::again::Begun;
pub(super) use self::blame::blame;
pub(super) use self::differ::{of_graph, of_patch};
pub(super) use self::envelope::{Envelope, reasons};
pub(super) use self::forward::{Forwarded, Proposing, forward};
pub(super) use self::held::{approve, decline};
pub(super) use self::put::Ready;
pub(super) use self::put::base_required;
use self::put::ready;
pub(super) use self::refusal::Refused;
use self::refusal::over;
pub(super) use self::refusal::refused;
pub(super) use self::revoke::revoke;
pub(super) use self::show::{list, show};
use super::catalog::Entry;
use super::request::Incoming;
use super::respond::{Body, json, with};
use super::services::{Services, blocking, unexpected};
use super::{admission, artifacts, keys, request};
use crate::engine::command::{Command, LayersView, Refusal, Reply};
use crate::limits;
use crate::model::patch::{PatchId, Rejection};
use crate::model::{RunId, RunSummary};
use crate::wire::problem::Problem;
use crate::wire::run::Line;
use crate::wire::{Hash, Shown};

type Answer = Result<Response<Body>, Box<Problem>>;

/// What is answered about a change that was made.
#[derive(Serialize)]
struct Made<'a> {
    #[serde(flatten)]
    line: Line<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch_id: Option<Shown<PatchId>>,
    /// `applied`, or `held`: then nothing has changed yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'static str>,
    graph_version: u32,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    revoked: Vec<Shown<PatchId>>,
    hash: String,
}

/// `POST /v1/runs/{id}/patches`, `/v1/runs/{id}/patch`, `/runs/{id}/patch`
pub(super) async fn propose(services: &Services, head: &Parts, incoming: Incoming, run_id: RunId) -> Answer {
    services.refuse_when_stopping()?;
    let given = request::idempotency_key(&head.headers)?;
    let bytes = request::body(head, incoming).await?;
    let envelope = Envelope::read(&head.headers, &bytes)?;
    let wait = artifacts::Wait::read(services, head)?;
    let key = given.map(|given| keys::of(given, (run_id, "patches"), &envelope.meaning()));
    let (author, caller) = (admission::who(head).into(), admission::caller(head).clone());
    match forward(services, Proposing { run_id, author, caller, envelope, key, tools: None }).await? {
        Forwarded::Again(again) => again.answer(services, wait).await,
        Forwarded::Unchanged(view) => Ok(unchanged(services, &view)),
        Forwarded::Made { run, version, hash, patch_id, is_held } => {
            let state = if is_held { "held" } else { "applied" };
            let response = answer(services, (&run, version, hash), Some((patch_id, state)), Vec::new());
            Ok(artifact(services, wait.filter(|_| !is_held), (run_id, version), response).await)
        }
    }
}

/// How the graph of an unfinished run came to be.
async fn layers(services: &Services, run_id: RunId) -> Result<LayersView, Box<Problem>> {
    match again::layers(services, run_id, None).await? {
        Begun::Fresh(view) => Ok(view),
        Begun::Again(_) => Err(Problem::new(500, "internal", "what has no key was done before")),
    }
}

/// The answer to a patch that was made; by somebody who waits for its artifact, when that is there.
async fn artifact(
    services: &Services,
    wait: Option<artifacts::Wait>,
    made: (RunId, u32),
    response: Response<Body>,
) -> Response<Body> {
    match wait {
        Some(wait) => wait.answered(services, made, response).await,
        None => response,
    }
}

/// The document of a run at a version of its graph, finished or not.
pub(super) async fn document(
    services: &Services,
    run_id: RunId,
    version: u32,
) -> Result<Arc<Entry>, Box<Problem>> {
    let (location, runs) = (services.locate(run_id).await?, services.runs.clone());
    let catalog = services.catalog.clone();
    blocking(move || {
        let (base, mut layers) = runs.overlay(&location)?;
        layers.truncate(version.saturating_sub(1) as usize);
        Ok(catalog.with_layers(&base, &layers)?)
    })
    .await?
}

/// Writes the verdict down, and is the answer.
async fn reject(
    services: &Services,
    run_id: RunId,
    (patch_id, author): (PatchId, Arc<str>),
    refused: Refused,
) -> Box<Problem> {
    let mut problem = refused.problem;
    let rejection = Rejection {
        patch_id,
        author,
        code: problem.code.as_ref().into(),
        message: problem.detail.chars().take(limits::JUSTIFICATION_BYTES_MAX / 4).collect::<String>().into(),
    };
    let command = Command::Reject { run_id, rejection: Box::new(rejection) };
    match services.ask(run_id, command).await {
        Ok(Reply::Accepted(_)) => {
            problem.outcome = Some("not_applied".into());
            problem
        }
        Ok(Reply::Refused(Refusal::NotFound(_))) => over(services, run_id).await,
        Ok(other) => unexpected(other),
        Err(failed) => failed,
    }
}

fn busy(run_id: RunId) -> Box<Problem> {
    let detail = format!("the graph of {run_id} changed {} times meanwhile", limits::PATCH_REBASES_MAX);
    let mut problem = Problem::new(409, "patch_conflict", detail).limit("patch_rebases_max");
    problem.retryable = true;
    problem.outcome = Some("not_applied".into());
    problem
}

fn answer(
    services: &Services,
    (run, version, hash): (&RunSummary, u32, String),
    patch: Option<(PatchId, &'static str)>,
    revoked: Vec<PatchId>,
) -> Response<Body> {
    let patch_id = patch.map(|(patch_id, _)| patch_id);
    let body = Made {
        line: Line::new(run, &services.durability),
        patch_id: patch_id.map(Shown),
        state: patch.map(|(_, state)| state),
        graph_version: version,
        revoked: revoked.into_iter().map(Shown).collect(),
        hash,
    };
    let response = json(StatusCode::ACCEPTED, &body);
    let place = patch_id.map(|patch_id| format!("/v1/runs/{}/patches/{patch_id}", run.run_id));
    match place {
        Some(place) => with(response, header::LOCATION, place),
        None => response,
    }
}

/// Nothing but tests, all of which hold: no version is made.
fn unchanged(services: &Services, view: &LayersView) -> Response<Body> {
    let body = Made {
        line: Line::new(&view.summary, &services.durability),
        patch_id: None,
        state: None,
        graph_version: view.version,
        revoked: Vec::new(),
        hash: Hash(&view.ir.document).to_string(),
    };
    json(StatusCode::OK, &body)
}
