//! A patch on one version of a run's graph: may it be put there, by what its author knew, and what follows.

use std::sync::Arc;

use super::super::catalog::{Catalog, Entry, Turn};
use super::super::services::{Services, blocking};
use super::refusal::{Refused, conflict};
use crate::auth::{Caller, Holding};
use crate::compile;
use crate::compile::patch::{Aim, candidate_for};
use crate::engine::command::{self, LayersView, Step};
use crate::exec::Reach;
use crate::limits;
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
        let judging = Judging {
            reach: services.executors.reach.clone(),
            change: Change::Patch(Box::new(self.proposal.clone())),
            is_based: self.base.is_some(),
            purpose,
        };
        // What is small and at hand costs a core less than handing it to a thread that may block.
        if let Some(before) = self.at_hand(&services.catalog) {
            return Ok(judging.judge((&services.catalog, Turn::Core), (&self.view, &before), self.patch));
        }
        let (catalog, view, patch) = (services.catalog.clone(), self.view.clone(), self.patch.clone());
        blocking(move || {
            let before = catalog.with_layers(&view.base, &view.layers)?;
            Ok(judging.judge((&catalog, Turn::Blocking), (&view, &before), &patch))
        })
        .await?
    }

    /// The document of this version, when that and the patch are so small that a core may do it, and nobody is waited for.
    fn at_hand(&self, catalog: &Catalog) -> Option<Arc<Entry>> {
        if self.patch.weight() > limits::PATCH_ON_CORE_BYTES_MAX {
            return None;
        }
        let latest = self.view.layers.last().map_or(&self.view.base, |layer| &layer.document);
        let before = catalog.at_hand_at_once(latest)?;
        let is_small = before.compiled.canonical.len() <= limits::PATCH_ON_CORE_DOCUMENT_BYTES_MAX;
        is_small.then_some(before)
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

/// What a patch is judged by, besides the graph.
struct Judging {
    reach: Arc<Reach>,
    change: Change,
    /// Its author said which version it was made for.
    is_based: bool,
    purpose: Purpose,
}

impl Judging {
    /// What to ask of the shard; `None` when nothing would change.
    fn judge(
        self,
        (catalog, turn): (&Catalog, Turn),
        (view, before): (&LayersView, &Entry),
        patch: &compile::patch::Patch,
    ) -> Result<Option<Ready>, Refused> {
        let Self { reach, change, is_based, purpose } = self;
        if !is_based && patch.overwrites(&before.compiled.document) {
            return Err(base_required());
        }
        let proposed = change.clone();
        let Some(mut ready) = ready((catalog, turn), (view, before), patch, change)? else {
            return Ok(None);
        };
        let documents = (&before.compiled.document, &ready.entry.compiled.document);
        // Calls may reach every URL that a patch brings in.
        compile::patch::reach(documents.0, documents.1, patch, &|url| reach.refuses_url(url))?;
        ready.command.step = match purpose {
            Purpose::Approve(decided) => Step::Approve(decided),
            Purpose::Propose(policy, caller, tools) => {
                if let Some(allowed) = tools {
                    compile::patch::no_wider_tools(documents, &allowed, patch)?;
                }
                let why = policy.why(&caller, || compile::patch::only_adds(documents.0, documents.1));
                why.map_or(Step::Make, |why| Step::Hold(why.into()))
            }
        };
        // One that waits is kept as it was proposed: the gates of a policy are put on it when it is made.
        if matches!(ready.command.step, Step::Hold(_)) {
            ready.command.change = proposed;
        }
        Ok(Some(ready))
    }
}

/// Puts a change on the document of this version and compiles it; `None` when it is the same. Waits as `turn` may.
pub(super) fn ready(
    (catalog, turn): (&Catalog, Turn),
    (view, before): (&LayersView, &Entry),
    patch: &compile::patch::Patch,
    change: Change,
) -> Result<Option<Ready>, Refused> {
    let aim = match &change {
        Change::Patch(_) => Aim::Make,
        Change::Revoked(_) => Aim::TakeBack,
    };
    let gated = compile::patch::with_gates(&before.compiled, patch, aim)?;
    let change = gated.iter().fold(change, |change, gated| change.with_operations(gated.operations.clone()));
    let candidate = candidate_for(&before.compiled, gated.as_ref().unwrap_or(patch), aim)?;
    if candidate.compiled.hash == before.compiled.hash {
        return Ok(None);
    }
    let touched = candidate.touched.union(&candidate.removed).cloned().collect();
    let entry = catalog.hold(before, candidate.compiled, turn);
    let ir = Arc::new(entry.compiled.ir.aligned(&view.ir));
    let run_id = view.summary.run_id;
    let command = command::Patch { run_id, change, version: view.version, ir, touched, step: Step::Make };
    Ok(Some(Ready { command, entry }))
}
