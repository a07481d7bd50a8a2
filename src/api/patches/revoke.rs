//! Taking a patch back: the graph goes on as if it had not been made. What has started stays as it is.

use std::collections::BTreeSet;
use std::sync::Arc;

use http::request::Parts;

use super::super::catalog::{self, Turn};
use super::super::request::Incoming;
use super::super::services::{Services, blocking, unexpected};
use super::super::{admission, artifacts, keys, request};
use super::again::{self, Again, Begun};
use super::refusal::{Refused, over, refused};
use super::{Answer, Ready, busy, envelope, ready};
use crate::compile::patch;
use crate::engine::command::{Command, LayersView, Refusal, Reply};
use crate::limits;
use crate::model::RunId;
use crate::model::patch::{Change, PatchId, Proposal, Revocation, in_force};
use crate::wire::Hash;
use crate::wire::problem::Problem;

/// `POST /v1/runs/{id}/patches/{patch}/revoke`
pub(in crate::api) async fn revoke(
    services: &Services,
    head: &Parts,
    incoming: Incoming,
    (run_id, patch_id): (RunId, PatchId),
) -> Answer {
    services.refuse_when_stopping()?;
    let given = request::idempotency_key(&head.headers)?;
    let bytes = request::body(head, incoming).await?;
    let (reason, cascade) = envelope::reasons(head, &bytes, true)?;
    let route = format!("patches/{patch_id}/revoke");
    let key =
        given.map(|given| keys::of(given, (run_id, &route), &[&*reason, if cascade { "all" } else { "" }]));
    let author = Arc::<str>::from(admission::who(head));
    let (caller, holding) = (admission::caller(head), &services.door.holding);
    if holding.why(caller, || None).is_some() && caller.role < holding.decider {
        let detail = "whose patches wait for a human takes none back; whoever may approve them does";
        return Err(Problem::new(403, "forbidden", detail));
    }
    for _ in 0..limits::PATCH_REBASES_MAX {
        let view = match again::layers(services, run_id, key.as_ref()).await? {
            Begun::Fresh(view) => view,
            Begun::Again(again) => return again.answer(services, None).await,
        };
        let patch_ids = going(&view, patch_id, cascade)?;
        let (catalog, gone) = (services.catalog.clone(), patch_ids.clone());
        let (who, why) = (author.clone(), reason.clone());
        let (ready, view) = blocking(move || (without(&catalog, &view, gone, (who, why)), view)).await?;
        let ready = artifacts::kept(services, &view, ready?).await?;
        let hash = Hash(&ready.entry.compiled.hash).to_string();
        let command = Command::Patch(Box::new(ready.command)).once(run_id, key.as_ref());
        match services.ask(run_id, command).await? {
            Reply::Repeated(run, done) => return Again { run, done }.answer(services, None).await,
            Reply::Patched(run, version) => {
                return Ok(super::answer(services, (&run, version, hash), None, patch_ids));
            }
            Reply::Refused(Refusal::GraphChanged { .. }) => {}
            Reply::Refused(Refusal::NotFound(_)) => return Err(over(services, run_id).await),
            Reply::Refused(Refusal::NotPatched(why)) => return Err(refused(why)),
            other => return Err(unexpected(other)),
        }
    }
    Err(busy(run_id))
}

/// The patches that go: the one that is named, and those that build on it.
fn going(view: &LayersView, patch_id: PatchId, cascade: bool) -> Result<Vec<PatchId>, Box<Problem>> {
    let run_id = view.summary.run_id;
    let in_force = in_force(&view.layers);
    let Some(at) = in_force.iter().position(|(_, proposal)| proposal.patch_id == patch_id) else {
        let taken_back = view.layers.iter().any(|layer| match &layer.change {
            Change::Patch(_) => false,
            Change::Revoked(revocation) => revocation.patch_ids.contains(&patch_id),
        });
        if taken_back {
            let detail = format!("{patch_id} of {run_id} was taken back already");
            return Err(Problem::new(409, "patch_revoked", detail));
        }
        return Err(super::show::no_patch(run_id, patch_id));
    };
    let mut gone: Vec<&Proposal> = Vec::new();
    for (_, proposal) in in_force.iter().skip(at) {
        if gone.is_empty() || gone.iter().any(|gone| builds_on(proposal, gone)) {
            gone.push(proposal);
        }
    }
    let gone: Vec<PatchId> = gone.iter().map(|proposal| proposal.patch_id).collect();
    if gone.len() > 1 && !cascade {
        let dependants: Vec<_> = gone.iter().skip(1).map(ToString::to_string).collect();
        let detail = format!(
            "{} build on {patch_id}; take these back too with \"cascade\": true",
            dependants.join(", ")
        );
        return Err(Problem::new(409, "patch_has_dependants", detail));
    }
    Ok(gone)
}

fn builds_on(later: &Proposal, earlier: &Proposal) -> bool {
    match (patch::read(&later.operations), patch::read(&earlier.operations)) {
        (Ok(later), Ok(earlier)) => later.touched().overlaps(&earlier.touched()),
        _ => true,
    }
}

/// The document without these patches, as a change of the one there is. Blocks.
fn without(
    catalog: &catalog::Catalog,
    view: &LayersView,
    patch_ids: Vec<PatchId>,
    (author, reason): (Arc<str>, Arc<str>),
) -> Result<Ready, Box<Problem>> {
    let gone: BTreeSet<PatchId> = patch_ids.iter().copied().collect();
    let mut document = catalog.with_layers(&view.base, &[])?.compiled.document.clone();
    let left = in_force(&view.layers).into_iter().filter(|(_, left)| !gone.contains(&left.patch_id));
    for (_, proposal) in left {
        let applied = patch::read(&proposal.operations).and_then(|patch| patch.apply(&document));
        document = applied.map_err(|refusal| {
            let detail =
                format!("{} does not stand without what is taken back: {refusal}", proposal.patch_id);
            Problem::new(409, "patch_has_dependants", detail)
        })?;
    }
    let now = catalog.with_layers(&view.base, &view.layers)?;
    let operations = patch::difference(&now.compiled.document, &document);
    let patch = patch::read(&operations).map_err(|refusal| Refused::from(refusal).problem)?;
    let operations = patch.operations.clone();
    let change = Change::Revoked(Box::new(Revocation { patch_ids, author, reason, operations }));
    match ready((catalog, Turn::Blocking), (view, &now), &patch, change) {
        Ok(Some(ready)) => Ok(ready),
        // Another patch has made the same by itself: there is nothing to undo, and no version to make.
        Ok(None) => Err(Problem::new(409, "patch_conflict", "the graph is the same without it")),
        Err(refused) => Err(refused.problem),
    }
}
