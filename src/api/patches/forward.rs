//! A proposal on its way to the shard, whoever it is from: a client, or an agent of the run itself.

use std::sync::Arc;

use super::again::{self, Again, Begun};
use super::put::{Purpose, Put};
use super::{Envelope, Refused, busy, over, refused, reject};
use crate::api::artifacts;
use crate::api::services::{Services, unexpected};
use crate::auth::Caller;
use crate::compile;
use crate::engine::command::{Command, LayersView, Refusal, Reply, Step};
use crate::limits;
use crate::model::event::Idempotency;
use crate::model::patch::{PatchId, Proposal};
use crate::model::{RunId, RunSummary, Value};
use crate::wire::Hash;
use crate::wire::problem::Problem;

/// A patch that somebody wants.
pub(in crate::api) struct Proposing {
    pub(in crate::api) run_id: RunId,
    /// As events name them.
    pub(in crate::api) author: Arc<str>,
    /// Whose rights count.
    pub(in crate::api) caller: Caller,
    pub(in crate::api) envelope: Envelope,
    /// Under which it is done once.
    pub(in crate::api) key: Option<Idempotency>,
    /// What an agent may use, when it is one: nodes that it adds may use nothing else.
    pub(in crate::api) tools: Option<Value>,
}

/// What became of it.
pub(in crate::api) enum Forwarded {
    /// It was made, or is held for a human.
    Made {
        run: RunSummary,
        version: u32,
        /// Of the document, with its algorithm.
        hash: String,
        patch_id: PatchId,
        is_held: bool,
    },
    /// It was made before.
    Again(Again),
    /// Nothing but tests, all of which hold: no version is made.
    Unchanged(LayersView),
}

/// Puts it on the graph as it is, until that has not changed meanwhile.
pub(in crate::api) async fn forward(
    services: &Services,
    proposing: Proposing,
) -> Result<Forwarded, Box<Problem>> {
    let Proposing { run_id, author, caller, envelope, key, tools } = proposing;
    let patch_id = services.new_patch(run_id);
    let read = match compile::patch::read(&envelope.operations) {
        Ok(read) => read,
        Err(refusal) => {
            if let Some(again) = again::of(services, run_id, key.as_ref()).await? {
                return Ok(Forwarded::Again(again));
            }
            return Err(reject(services, run_id, (patch_id, author), refusal.into()).await);
        }
    };
    for _ in 0..limits::PATCH_REBASES_MAX {
        let view = match again::layers(services, run_id, key.as_ref()).await? {
            Begun::Fresh(view) => view,
            Begun::Again(again) => return Ok(Forwarded::Again(again)),
        };
        let proposal = Proposal {
            patch_id,
            author: author.clone(),
            justification: envelope.justification.clone(),
            base_version: envelope.base_version.unwrap_or(view.version),
            operations: read.operations.clone(),
        };
        let put = Put { view, proposal, base: envelope.base_version, patch: &read };
        let purpose = Purpose::Propose(services.door.holding.clone(), caller.clone(), tools.clone());
        let ready = match put.compile(services, purpose).await? {
            Ok(Some(ready)) => artifacts::kept(services, &put.view, ready).await?,
            Ok(None) => return Ok(Forwarded::Unchanged(put.view)),
            Err(refused) => return Err(reject(services, run_id, (patch_id, author), refused).await),
        };
        let is_held = matches!(ready.command.step, Step::Hold(_));
        let hash = if is_held { &put.view.ir.document } else { &ready.entry.compiled.hash };
        let hash = Hash(hash).to_string();
        let command = Command::Patch(Box::new(ready.command)).once(run_id, key.as_ref());
        match services.ask(run_id, command).await? {
            Reply::Repeated(run, done) => return Ok(Forwarded::Again(Again { run, done })),
            Reply::Patched(run, version) => {
                return Ok(Forwarded::Made { run, version, hash, patch_id, is_held });
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
