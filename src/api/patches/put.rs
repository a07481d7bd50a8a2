//! A patch on one version of a run's graph: may it be put there, by what its author knew, and what follows.

use std::sync::Arc;

use super::super::catalog::{Catalog, Entry};
use super::super::services::{Services, blocking};
use super::refusal::{Refused, conflict};
use crate::auth::{Caller, Holding};
use crate::compile;
use crate::compile::patch::{Aim, candidate_for};
use crate::engine::command::{self, LayersView, Step};
use crate::model::Value;
use crate::model::patch::{Change, Decided, Proposal};
use crate::wire::problem::Problem;

/// A change on its way to the shard.
pub(in crate::api) struct Ready {
    pub(in crate::api) command: command::Patch,
    /// The document after it.
    pub(in crate::api) entry: Arc<Entry>,
}

/// What a patch is put on a graph for.
pub(super) enum Purpose {
    /// This caller wants it made; this policy says whether it waits. What an agent may use, when it is one.
    Propose(Arc<Holding>, Caller, Option<Value>),
    /// It has waited, and a human wants it made.
    Approve(Box<Decided>),
}

/// A patch on one version of the graph.
pub(super) struct Put<'a> {
    pub(super) view: LayersView,
    pub(super) proposal: Proposal,
    /// The version up to which whoever wants it knows what it is put on.
    pub(super) base: Option<u32>,
    pub(super) patch: &'a compile::patch::Patch,
}

impl Put<'_> {
    /// What to ask of the shard; `None` when nothing would change. The inner error is a verdict on the patch.
    pub(super) async fn compile(
        &self,
        services: &Services,
        purpose: Purpose,
    ) -> Result<Result<Option<Ready>, Refused>, Box<Problem>> {
        if let Err(refused) = self.check_base() {
            return Ok(Err(refused));
        }
        let (catalog, view, patch) = (services.catalog.clone(), self.view.clone(), self.patch.clone());
        let reach = services.executors.reach.clone();
        let change = Change::Patch(Box::new(self.proposal.clone()));
        let proposed = change.clone();
        let based = self.base.is_some();
        blocking(move || {
            let before = catalog.with_layers(&view.base, &view.layers)?;
            if !based && patch.overwrites(&before.compiled.document) {
                return Ok(Err(base_required()));
            }
            let mut ready = match ready(&catalog, (&view, &before), &patch, change) {
                Ok(Some(ready)) => ready,
                other => return Ok(other),
            };
            let documents = (&before.compiled.document, &ready.entry.compiled.document);
            // Calls may reach every URL that a patch brings in.
            let reached =
                compile::patch::reach(documents.0, documents.1, &patch, &|url| reach.refuses_url(url));
            if let Err(refusal) = reached {
                return Ok(Err(refusal.into()));
            }
            ready.command.step = match purpose {
                Purpose::Approve(decided) => Step::Approve(decided),
                Purpose::Propose(policy, caller, tools) => {
                    let wider =
                        tools.map(|allowed| compile::patch::no_wider_tools(documents, &allowed, &patch));
                    if let Some(Err(refusal)) = wider {
                        return Ok(Err(refusal.into()));
                    }
                    let why = policy.why(&caller, || compile::patch::only_adds(documents.0, documents.1));
                    why.map_or(Step::Make, |why| Step::Hold(why.into()))
                }
            };
            // One that waits is kept as it was proposed: the gates of a policy are put on it when it is made.
            if matches!(ready.command.step, Step::Hold(_)) {
                ready.command.change = proposed;
            }
            Ok(Ok(Some(ready)))
        })
        .await?
    }

    /// May it be put on this version, by what its author knew?
    fn check_base(&self) -> Result<(), Refused> {
        let current = self.view.version;
        let Some(base) = self.base else {
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

pub(in crate::api) fn base_required() -> Refused {
    let detail = "replace, remove, move, and an add onto what is there need `base_version`, or a `test` in front of them";
    Refused::new(Problem::new(422, "base_version_required", detail))
}

/// Puts a change on the document of this version and compiles it; `None` when it is the same. Blocks.
pub(super) fn ready(
    catalog: &Catalog,
    (view, before): (&LayersView, &Entry),
    patch: &compile::patch::Patch,
    change: Change,
) -> Result<Option<Ready>, Refused> {
    let aim = match &change {
        Change::Patch(_) => Aim::Make,
        Change::Revoked(_) => Aim::TakeBack,
    };
    let gated = compile::patch::with_gates(&before.compiled.document, patch, aim)?;
    let change = gated.iter().fold(change, |change, gated| change.with_operations(gated.operations.clone()));
    let candidate = candidate_for(&before.compiled.document, gated.as_ref().unwrap_or(patch), aim)?;
    if candidate.compiled.hash == before.compiled.hash {
        return Ok(None);
    }
    let touched = candidate.touched.union(&candidate.removed).cloned().collect();
    let entry = catalog.hold(before, candidate.compiled);
    let ir = Arc::new(entry.compiled.ir.aligned(&view.ir));
    let run_id = view.summary.run_id;
    let command = command::Patch { run_id, change, version: view.version, ir, touched, step: Step::Make };
    Ok(Some(Ready { command, entry }))
}
