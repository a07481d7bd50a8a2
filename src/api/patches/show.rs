//! The patches of a run, finished or not, read from its events: those made, taken back and refused.

use std::sync::Arc;

use http::request::Parts;
use http::{Response, StatusCode};
use serde::Serialize;

use super::super::ports::{Location, Runs, StorageError};
use super::super::request;
use super::super::respond::{Body, json};
use super::super::services::{Services, blocking};
use crate::model::event::DocumentHash;
use crate::model::patch::{PatchId, Proposal, Rejection};
use crate::model::{EventBody, RunId, Seq, Value};
use crate::time::Timestamp;
use crate::wire::problem::Problem;
use crate::wire::{Hash, Shown};

type Answer = Result<Response<Body>, Box<Problem>>;

/// Events read at a time.
const EVENTS_AT_ONCE: usize = 1_000;

#[derive(Serialize)]
struct List {
    run_id: Shown<RunId>,
    graph_version: u32,
    base: String,
    patches: Vec<Patch>,
}

#[derive(Serialize)]
struct Patch {
    patch_id: Shown<PatchId>,
    /// `applied`, `revoked`, `rejected`.
    state: &'static str,
    /// Version of the graph that it made.
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    base_version: Option<u32>,
    author: Arc<str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    justification: Option<Arc<str>>,
    seq: Seq,
    at: Shown<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hash: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    verdict: Option<Verdict>,
    #[serde(skip_serializing_if = "Option::is_none")]
    revoked: Option<Revoked>,
    #[serde(skip_serializing_if = "Option::is_none")]
    operations: Option<Value>,
}

#[derive(Serialize)]
struct Verdict {
    code: Arc<str>,
    detail: Arc<str>,
}

#[derive(Serialize)]
struct Revoked {
    by: Arc<str>,
    reason: Arc<str>,
    version: u32,
    at: Shown<Timestamp>,
}

impl Patch {
    fn applied(proposal: &Proposal, (seq, at): (Seq, Timestamp), version: u32, hash: &DocumentHash) -> Self {
        Self {
            patch_id: Shown(proposal.patch_id),
            state: "applied",
            version: Some(version),
            base_version: Some(proposal.base_version),
            author: proposal.author.clone(),
            justification: Some(proposal.justification.clone()).filter(|text| !text.is_empty()),
            seq,
            at: Shown(at),
            hash: Some(Hash(hash).to_string()),
            verdict: None,
            revoked: None,
            operations: Some(proposal.operations.clone()),
        }
    }

    fn rejected(rejection: &Rejection, (seq, at): (Seq, Timestamp)) -> Self {
        Self {
            patch_id: Shown(rejection.patch_id),
            state: "rejected",
            version: None,
            base_version: None,
            author: rejection.author.clone(),
            justification: None,
            seq,
            at: Shown(at),
            hash: None,
            verdict: Some(Verdict { code: rejection.code.clone(), detail: rejection.message.clone() }),
            revoked: None,
            operations: None,
        }
    }
}

/// `GET /v1/runs/{id}/patches`
pub(in crate::api) async fn list(services: &Services, head: &Parts, run_id: RunId) -> Answer {
    request::require_accept(&head.headers, "application/json")?;
    let mut list = read(services, run_id).await?;
    for patch in &mut list.patches {
        patch.operations = None;
    }
    Ok(json(StatusCode::OK, &list))
}

/// `GET /v1/runs/{id}/patches/{patch}`
pub(in crate::api) async fn show(
    services: &Services,
    head: &Parts,
    (run_id, patch_id): (RunId, PatchId),
) -> Answer {
    request::require_accept(&head.headers, "application/json")?;
    let patches = read(services, run_id).await?.patches;
    let patch = patches.into_iter().find(|patch| patch.patch_id.0 == patch_id);
    let patch = patch.ok_or_else(|| no_patch(run_id, patch_id))?;
    Ok(json(StatusCode::OK, &patch))
}

/// 404 for a patch.
pub(super) fn no_patch(run_id: RunId, patch_id: PatchId) -> Box<Problem> {
    Problem::new(404, "patch_not_found", format!("run {run_id} has no patch {patch_id}"))
}

async fn read(services: &Services, run_id: RunId) -> Result<List, Box<Problem>> {
    let (location, runs) = (services.locate(run_id).await?, services.runs.clone());
    Ok(blocking(move || folded(&*runs, &location)).await??)
}

fn folded(runs: &dyn Runs, location: &Location) -> Result<List, StorageError> {
    let run_id = Shown(location.summary.run_id);
    let mut list = List { run_id, graph_version: 1, base: String::new(), patches: Vec::new() };
    let (mut after, mut proposed): (Seq, Option<EventBody>) = (0, None);
    loop {
        let events = runs.events(location, after, EVENTS_AT_ONCE)?;
        let Some(last) = events.last() else { return Ok(list) };
        after = last.seq;
        for event in events {
            let when = (event.seq, event.at);
            match event.body {
                EventBody::RunStarted(started) => list.base = Hash(&started.document).to_string(),
                EventBody::PatchRejected(rejection) => list.patches.push(Patch::rejected(&rejection, when)),
                body @ (EventBody::PatchCreated(_) | EventBody::PatchRevoked(_)) => proposed = Some(body),
                EventBody::PatchApplied(patched) => {
                    list.graph_version = patched.version;
                    list.applied(proposed.take(), when, (patched.version, &patched.document));
                }
                _ => {}
            }
        }
    }
}

impl List {
    fn applied(
        &mut self,
        proposed: Option<EventBody>,
        when: (Seq, Timestamp),
        (version, hash): (u32, &DocumentHash),
    ) {
        match proposed {
            Some(EventBody::PatchCreated(proposal)) => {
                self.patches.push(Patch::applied(&proposal, when, version, hash));
            }
            Some(EventBody::PatchRevoked(revocation)) => {
                let gone = |patch: &&mut Patch| revocation.patch_ids.contains(&patch.patch_id.0);
                for patch in self.patches.iter_mut().filter(gone) {
                    patch.state = "revoked";
                    patch.revoked = Some(Revoked {
                        by: revocation.author.clone(),
                        reason: revocation.reason.clone(),
                        version,
                        at: Shown(when.1),
                    });
                }
            }
            _ => {}
        }
    }
}
