//! Patches that wait for a human: approved or rejected, once and for ever.
//!
//! An approved patch is checked again and put on the graph as it is now, unless what came since it was held touches the same:
//! then it is 409 and still waits, so that whoever decides can reject it. Its author cannot approve it.

use std::sync::Arc;

use http::StatusCode;
use http::request::Parts;

use super::super::request::Incoming;
use super::super::respond::json;
use super::super::services::{Services, unexpected};
use super::super::{admission, artifacts, keys, request};
use super::again::{self, Again};
use super::put::{Purpose, Put};
use super::refusal::{over, refused};
use super::show::{Patch, no_patch, one};
use super::{Answer, answer, busy, envelope, layers};
use crate::compile;
use crate::engine::command::{Command, LayersView, PatchRefusal, Refusal, Reply};
use crate::limits;
use crate::model::RunId;
use crate::model::patch::{Decided, Held, PatchId};
use crate::wire::Hash;
use crate::wire::problem::Problem;

/// `POST /v1/runs/{id}/patches/{patch}/approve`
pub(in crate::api) async fn approve(
    services: &Services,
    head: &Parts,
    incoming: Incoming,
    (run_id, patch_id): (RunId, PatchId),
) -> Answer {
    let given = request::idempotency_key(&head.headers)?;
    let decided = decision(services, head, incoming, (patch_id, true)).await?;
    let route = format!("patches/{patch_id}/approve");
    let key = given.map(|given| keys::of(given, (run_id, &route), &[&*decided.reason]));
    for _ in 0..limits::PATCH_REBASES_MAX {
        let found = waiting(services, run_id, &decided).await;
        // Looked up last, so that it is known who has decided.
        if let Some(again) = again::of(services, run_id, key.as_ref()).await? {
            return again.answer(services, None).await;
        }
        let (view, held) = match found? {
            Found::Waits(view, held) => (*view, held),
            Found::Decided(answer) => return Ok(answer),
        };
        let holding = &services.door.holding;
        holding.may_approve(admission::caller(head), &held.proposal.author).map_err(forbidden)?;
        let read = compile::patch::read(&held.proposal.operations)
            .map_err(|refusal| super::Refused::from(refusal).problem)?;
        let put = Put { view, proposal: held.proposal.clone(), base: Some(held.version), patch: &read };
        let purpose = Purpose::Approve(Box::new(decided.clone()));
        let ready = match put.compile(services, purpose).await? {
            Ok(Some(ready)) => artifacts::kept(services, &put.view, ready).await?,
            Ok(None) => {
                let detail = format!("the graph is the same with {patch_id} by now; it can be rejected");
                return Err(Problem::new(409, "patch_conflict", detail));
            }
            Err(refused) => return Err(refused.problem),
        };
        let hash = Hash(&ready.entry.compiled.hash).to_string();
        let command = Command::Patch(Box::new(ready.command)).once(run_id, key.as_ref());
        match services.ask(run_id, command).await? {
            Reply::Repeated(run, done) => return Again { run, done }.answer(services, None).await,
            Reply::Patched(run, version) => {
                let made = (&run, version, hash);
                return Ok(answer(services, made, Some((patch_id, "applied")), Vec::new()));
            }
            // Somebody else was faster: look again.
            Reply::Refused(Refusal::GraphChanged { .. } | Refusal::NotPatched(PatchRefusal::NotHeld(_))) => {}
            Reply::Refused(Refusal::NotFound(_)) => return Err(over(services, run_id).await),
            Reply::Refused(Refusal::NotPatched(why)) => return Err(refused(why)),
            other => return Err(unexpected(other)),
        }
    }
    Err(busy(run_id))
}

/// `POST /v1/runs/{id}/patches/{patch}/reject`
pub(in crate::api) async fn decline(
    services: &Services,
    head: &Parts,
    incoming: Incoming,
    (run_id, patch_id): (RunId, PatchId),
) -> Answer {
    let decided = decision(services, head, incoming, (patch_id, false)).await?;
    for _ in 0..limits::PATCH_REBASES_MAX {
        let held = match waiting(services, run_id, &decided).await? {
            Found::Waits(_, held) => held,
            Found::Decided(answer) => return Ok(answer),
        };
        let holding = &services.door.holding;
        holding.may_decline(admission::caller(head), &held.proposal.author).map_err(forbidden)?;
        match services.ask(run_id, Command::Decline { run_id, decided: Box::new(decided.clone()) }).await? {
            Reply::Accepted(_) => {
                let patch = one(services, (run_id, patch_id)).await?;
                return patch
                    .map(|patch| json(StatusCode::OK, &patch))
                    .ok_or_else(|| no_patch(run_id, patch_id));
            }
            Reply::Refused(Refusal::NotPatched(PatchRefusal::NotHeld(_))) => {}
            Reply::Refused(Refusal::NotFound(_)) => return Err(over(services, run_id).await),
            other => return Err(unexpected(other)),
        }
    }
    Err(busy(run_id))
}

fn forbidden(why: String) -> Box<Problem> {
    Problem::new(403, "forbidden", why)
}

async fn decision(
    services: &Services,
    head: &Parts,
    incoming: Incoming,
    (patch_id, approved): (PatchId, bool),
) -> Result<Decided, Box<Problem>> {
    services.refuse_when_stopping()?;
    let bytes = request::body(head, incoming).await?;
    let (reason, _) = envelope::reasons(head, &bytes, false)?;
    let by = Arc::<str>::from(admission::who(head));
    Ok(Decided { patch_id, approved, by, reason })
}

/// What there is to decide about.
enum Found {
    Waits(Box<LayersView>, Arc<Held>),
    /// The same was decided before.
    Decided(http::Response<super::Body>),
}

/// The patch, when it waits; else what was decided about it, when that is the same.
async fn waiting(services: &Services, run_id: RunId, decided: &Decided) -> Result<Found, Box<Problem>> {
    let patch_id = decided.patch_id;
    let open = layers(services, run_id).await;
    if let Ok(view) = &open
        && let Some(held) = view.held.iter().find(|held| held.proposal.patch_id == patch_id)
    {
        let held = held.clone();
        return Ok(Found::Waits(Box::new(open?), held));
    }
    let patch = one(services, (run_id, patch_id)).await?.ok_or_else(|| no_patch(run_id, patch_id))?;
    match patch.approved() {
        Some(approved) if approved == decided.approved => Ok(Found::Decided(json(StatusCode::OK, &patch))),
        Some(approved) => Err(otherwise(&patch, approved)),
        // It waits in a run that is over, or it never waited.
        None if patch.waits() => Err(open.err().unwrap_or_else(|| busy(run_id))),
        None => {
            let detail = format!("{patch_id} of {run_id} did not wait for a decision");
            Err(Problem::new(409, "patch_decided", detail))
        }
    }
}

fn otherwise(patch: &Patch, approved: bool) -> Box<Problem> {
    let verdict = if approved { "approved" } else { "rejected" };
    let detail = format!("{} was {verdict} already, by {}", patch.patch_id(), patch.decider());
    Problem::new(409, "patch_decided", detail)
}
