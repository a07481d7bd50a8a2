//! Patches of a running graph: proposed, taken back, listed, shown.
//!
//! A patch is put on the graph as it is, checked and compiled here, and made by the run's shard if the graph has not
//! changed meanwhile; if it has, it is put on the new graph ([`limits::PATCH_REBASES_MAX`] times), unless what changed
//! since the version that its author knew touches the same: that is 409, with both sides. Only the shard's step of the log
//! changes anything. A patch that is refused leaves nothing but `patch.rejected`.

mod envelope;
mod refusal;
mod revoke;
mod show;

use std::sync::Arc;

use http::request::Parts;
use http::{Response, StatusCode, header};
use hyper::body::Incoming;
use serde::Serialize;

use self::envelope::Envelope;
pub(super) use self::refusal::refused;
use self::refusal::{Refused, conflict, over};
pub(super) use self::revoke::revoke;
pub(super) use self::show::{list, show};
use super::catalog::{Catalog, Entry};
use super::respond::{Body, json, with};
use super::services::{Services, blocking, unexpected};
use super::{admission, request};
use crate::compile;
use crate::engine::command::{self, Command, LayersView, Refusal, Reply};
use crate::limits;
use crate::model::patch::{Change, PatchId, Proposal, Rejection};
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
    graph_version: u32,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    revoked: Vec<Shown<PatchId>>,
    hash: String,
}

/// A change on its way to the shard.
struct Ready {
    command: command::Patch,
    /// The document after it.
    entry: Arc<Entry>,
}

/// `POST /v1/runs/{id}/patches`, `/v1/runs/{id}/patch`, `/runs/{id}/patch`
pub(super) async fn propose(services: &Services, head: &Parts, incoming: Incoming, run_id: RunId) -> Answer {
    services.refuse_when_stopping()?;
    let bytes = request::body(head, incoming).await?;
    let envelope = Envelope::read(&head.headers, &bytes)?;
    let author = author(head);
    let patch_id = services.new_patch(run_id);
    let read = match compile::patch::read(&envelope.operations) {
        Ok(read) => read,
        Err(refusal) => return Err(reject(services, run_id, (patch_id, author), refusal.into()).await),
    };
    for _ in 0..limits::PATCH_REBASES_MAX {
        let view = layers(services, run_id).await?;
        let put = Put { view, patch_id, author: author.clone(), envelope: &envelope, patch: &read };
        let ready = match put.compile(services).await? {
            Ok(Some(ready)) => ready,
            Ok(None) => return Ok(unchanged(services, &put.view)),
            Err(refused) => return Err(reject(services, run_id, (patch_id, author), refused).await),
        };
        let hash = Hash(&ready.entry.compiled.hash).to_string();
        match services.ask(run_id, Command::Patch(Box::new(ready.command))).await? {
            Reply::Patched(run, version) => {
                let made = (&run, version, hash);
                return Ok(answer(services, made, Some(patch_id), Vec::new()));
            }
            Reply::Refused(Refusal::GraphChanged { .. }) => {}
            Reply::Refused(Refusal::NotFound(_)) => return Err(over(services, run_id).await),
            Reply::Refused(Refusal::NotPatched(why)) => {
                let refused = Refused::new(refused(why));
                return Err(reject(services, run_id, (patch_id, author), refused).await);
            }
            other => return Err(unexpected(other)),
        }
    }
    Err(busy(run_id))
}

/// A patch on one version of the graph.
struct Put<'a> {
    view: LayersView,
    patch_id: PatchId,
    author: Arc<str>,
    envelope: &'a Envelope,
    patch: &'a compile::patch::Patch,
}

impl Put<'_> {
    /// What to ask of the shard; `None` when nothing would change. The inner error is a verdict on the patch.
    async fn compile(&self, services: &Services) -> Result<Result<Option<Ready>, Refused>, Box<Problem>> {
        if let Err(refused) = self.check_base() {
            return Ok(Err(refused));
        }
        let (catalog, view, patch) = (services.catalog.clone(), self.view.clone(), self.patch.clone());
        let proposal = Proposal {
            patch_id: self.patch_id,
            author: self.author.clone(),
            justification: self.envelope.justification.clone(),
            base_version: self.envelope.base_version.unwrap_or(self.view.version),
            operations: self.patch.operations.clone(),
        };
        let change = Change::Patch(Box::new(proposal));
        let based = self.envelope.base_version.is_some();
        blocking(move || {
            let before = catalog.with_layers(&view.base, &view.layers)?;
            if !based && patch.overwrites(&before.compiled.document) {
                return Ok(Err(base_required()));
            }
            ready(&catalog, &view, &patch, change)
        })
        .await?
    }

    /// May it be put on this version, by what its author knew?
    fn check_base(&self) -> Result<(), Refused> {
        let current = self.view.version;
        let Some(base) = self.envelope.base_version else {
            if self.patch.needs_base() {
                return Err(base_required());
            }
            return Ok(());
        };
        if base == 0 || base > current {
            let detail = format!("base_version {base}: the graph has the versions 1 to {current}");
            return Err(Refused::new(Problem::new(422, "invalid_base_version", detail)));
        }
        let touched = self.patch.touched();
        let since = self.view.layers.iter().skip(base as usize - 1);
        let overlapping = since.filter(|layer| {
            compile::patch::read(layer.change.operations())
                .map_or(true, |other| other.touched().overlaps(&touched))
        });
        let overlapping: Vec<_> = overlapping.cloned().collect();
        if overlapping.is_empty() {
            return Ok(());
        }
        Err(Refused::new(conflict((base, current), &overlapping, &self.patch.operations)))
    }
}

fn base_required() -> Refused {
    let detail = "replace, remove, move, and an add onto what is there need `base_version`, or a `test` in front of them";
    Refused::new(Problem::new(422, "base_version_required", detail))
}

/// Puts a change on the document of this version and compiles it. Blocks.
fn ready(
    catalog: &Catalog,
    view: &LayersView,
    patch: &compile::patch::Patch,
    change: Change,
) -> Result<Result<Option<Ready>, Refused>, Box<Problem>> {
    let before = catalog.with_layers(&view.base, &view.layers)?;
    let candidate = match compile::patch::candidate(&before.compiled.document, patch) {
        Ok(candidate) => candidate,
        Err(refusal) => return Ok(Err(refusal.into())),
    };
    if candidate.compiled.hash == before.compiled.hash {
        return Ok(Ok(None));
    }
    let touched = candidate.touched.union(&candidate.removed).cloned().collect();
    let entry = catalog.hold(&before, candidate.compiled);
    let ir = Arc::new(entry.compiled.ir.aligned(&view.ir));
    let run_id = view.summary.run_id;
    let command = command::Patch { run_id, change, version: view.version, ir, touched };
    Ok(Ok(Some(Ready { command, entry })))
}

/// How the graph of an unfinished run came to be.
async fn layers(services: &Services, run_id: RunId) -> Result<LayersView, Box<Problem>> {
    match services.ask(run_id, Command::Layers(run_id)).await? {
        Reply::Layers(view) if view.summary.status.is_terminal() => {
            let status = view.summary.status;
            Err(unexpected(Reply::Refused(Refusal::Finished { run_id, status })))
        }
        Reply::Layers(view) => Ok(*view),
        Reply::Refused(Refusal::NotFound(_)) => Err(over(services, run_id).await),
        other => Err(unexpected(other)),
    }
}

/// The document of a run as its patches left it, finished or not.
pub(super) async fn document(services: &Services, run_id: RunId) -> Result<Arc<Entry>, Box<Problem>> {
    let catalog = services.catalog.clone();
    match services.ask(run_id, Command::Layers(run_id)).await? {
        Reply::Layers(view) => Ok(blocking(move || catalog.with_layers(&view.base, &view.layers)).await??),
        Reply::Refused(Refusal::NotFound(_)) => {
            let (location, runs) = (services.finished(run_id).await?, services.runs.clone());
            blocking(move || {
                let (base, layers) = runs.overlay(&location)?;
                Ok(catalog.with_layers(&base, &layers)?)
            })
            .await?
        }
        other => Err(unexpected(other)),
    }
}

/// Who asks, for the record.
fn author(head: &Parts) -> Arc<str> {
    admission::caller(head).token.clone().unwrap_or_else(|| "anyone".into())
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
    patch_id: Option<PatchId>,
    revoked: Vec<PatchId>,
) -> Response<Body> {
    let body = Made {
        line: Line::new(run, &services.durability),
        patch_id: patch_id.map(Shown),
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
        graph_version: view.version,
        revoked: Vec::new(),
        hash: Hash(&view.ir.document).to_string(),
    };
    json(StatusCode::OK, &body)
}
