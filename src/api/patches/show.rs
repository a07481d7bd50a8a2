//! The patches of a run, finished or not, read from its events: those made, taken back, refused, and waiting for a human.

use std::sync::Arc;

use http::request::Parts;
use http::{Response, StatusCode};
use serde::Serialize;

use super::super::ports::{Location, Runs, StorageError};
use super::super::request;
use super::super::respond::{Body, json};
use super::super::services::{Services, blocking};
use crate::model::event::DocumentHash;
use crate::model::patch::{Decided, Held, PatchId, Proposal, Rejection};
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
pub(super) struct Patch {
    patch_id: Shown<PatchId>,
    /// `applied`, `revoked`, `rejected`, `held`.
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
    /// Why it waits for a human, or did, and for which version it was found good.
    #[serde(skip_serializing_if = "Option::is_none")]
    held: Option<Waits>,
    #[serde(skip_serializing_if = "Option::is_none")]
    decided: Option<Decision>,
    #[serde(skip_serializing_if = "Option::is_none")]
    revoked: Option<Revoked>,
    #[serde(skip_serializing_if = "Option::is_none")]
    operations: Option<Value>,
    /// `false` in a run in fast mode, which keeps the document only.
    #[serde(skip_serializing_if = "Option::is_none")]
    operations_kept: Option<bool>,
}

#[derive(Serialize)]
struct Verdict {
    code: Arc<str>,
    detail: Arc<str>,
}

#[derive(Serialize)]
struct Waits {
    reason: Arc<str>,
    version: u32,
}

#[derive(Serialize)]
struct Decision {
    approved: bool,
    by: Arc<str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    reason: Arc<str>,
    at: Shown<Timestamp>,
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
            held: None,
            decided: None,
            revoked: None,
            operations: Some(proposal.operations.clone()).filter(|operations| *operations != Value::Null),
            operations_kept: (proposal.operations == Value::Null).then_some(false),
        }
    }

    fn held(held: &Held, when: (Seq, Timestamp)) -> Self {
        let made = Self::applied(&held.proposal, when, held.version, &DocumentHash::default());
        let waits = Waits { reason: held.reason.clone(), version: held.version };
        Self { state: "held", version: None, hash: None, held: Some(waits), ..made }
    }

    pub(super) fn patch_id(&self) -> PatchId {
        self.patch_id.0
    }

    /// Did a human want it? `None`: nobody has decided.
    pub(super) fn approved(&self) -> Option<bool> {
        self.decided.as_ref().map(|decided| decided.approved)
    }

    /// Who has decided.
    pub(super) fn decider(&self) -> &str {
        self.decided.as_ref().map_or("", |decided| &decided.by)
    }

    pub(super) fn waits(&self) -> bool {
        self.state == "held"
    }

    pub(super) fn state(&self) -> &'static str {
        self.state
    }

    /// Of one that waits or did: the version that it was found good for, and its operations.
    pub(super) fn held_for(&self) -> Option<(u32, &Value)> {
        self.held.as_ref().map(|held| held.version).zip(self.operations.as_ref())
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
            held: None,
            decided: None,
            revoked: None,
            operations: None,
            operations_kept: None,
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
    let patch = one(services, (run_id, patch_id)).await?.ok_or_else(|| no_patch(run_id, patch_id))?;
    Ok(json(StatusCode::OK, &patch))
}

/// One patch of a run.
pub(super) async fn one(
    services: &Services,
    (run_id, patch_id): (RunId, PatchId),
) -> Result<Option<Patch>, Box<Problem>> {
    let patches = read(services, run_id).await?.patches;
    Ok(patches.into_iter().find(|patch| patch.patch_id.0 == patch_id))
}

/// 404 for a patch.
pub(super) fn no_patch(run_id: RunId, patch_id: PatchId) -> Box<Problem> {
    Problem::new(404, "patch_not_found", format!("run {run_id} has no patch {patch_id}"))
}

/// One patch of a run at this place. Blocks.
pub(super) fn found(
    runs: &dyn Runs,
    location: &Location,
    (run_id, patch_id): (RunId, PatchId),
) -> Result<Patch, Box<Problem>> {
    let patches = folded(runs, location)?.patches;
    patches.into_iter().find(|patch| patch.patch_id() == patch_id).ok_or_else(|| no_patch(run_id, patch_id))
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
                EventBody::PatchHeld(held) => list.patches.push(Patch::held(&held, when)),
                EventBody::PatchDecided(decided) => list.decided(&decided, event.at),
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
    fn find(&mut self, patch_id: PatchId) -> Option<&mut Patch> {
        self.patches.iter_mut().find(|patch| patch.patch_id.0 == patch_id)
    }

    fn decided(&mut self, decided: &Decided, at: Timestamp) {
        let Some(patch) = self.find(decided.patch_id) else { return };
        if !decided.approved {
            patch.state = "rejected";
        }
        patch.decided = Some(Decision {
            approved: decided.approved,
            by: decided.by.clone(),
            reason: decided.reason.clone(),
            at: Shown(at),
        });
    }

    fn applied(
        &mut self,
        proposed: Option<EventBody>,
        when: (Seq, Timestamp),
        (version, hash): (u32, &DocumentHash),
    ) {
        match proposed {
            Some(EventBody::PatchCreated(proposal)) => {
                let made = Patch::applied(&proposal, when, version, hash);
                match self.find(proposal.patch_id) {
                    None => self.patches.push(made),
                    Some(waited) => {
                        let (held, decided) = (waited.held.take(), waited.decided.take());
                        *waited = Patch { held, decided, ..made };
                    }
                }
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
