//! One action on one run, asked for as the single action is asked for. Whoever asks twice finds it done.
//!
//! `again` says that it may have been asked for before, by somebody who died before he wrote that down, or who got no answer: then a
//! run that is as the action makes it was made so by this batch, and counts as done. A retry has a key made of the batch and the run,
//! so there is one new run however often it is asked for.

use sha2::{Digest as _, Sha256};

use crate::api::services::{Services, unexpected};
use crate::api::{replay, runs};
use crate::engine::command::{Command, Refusal, Reply};
use crate::model::batch::{Action, Batch, Came};
use crate::model::event::Idempotency;
use crate::model::{RunId, Workspace};
use crate::wire::problem::Problem;

/// Will the same meet other circumstances?
pub(super) fn is_passing(problem: &Problem) -> bool {
    problem.retryable || matches!(problem.status, 503 | 504)
}

/// Does it, for a batch of this workspace. The error is one to wait for the end of.
pub(super) async fn act(
    services: &Services,
    (workspace, batch): (&Workspace, &Batch),
    run_id: RunId,
    again: bool,
) -> Result<Came, Box<Problem>> {
    let came = match batch.spec.action {
        Action::Retry => retry(services, workspace, batch, run_id).await,
        Action::Delete => delete(services, batch, run_id, again).await,
        _ => steer(services, batch, run_id, again).await,
    };
    match came {
        Err(problem) if problem.status == 404 => Ok(Came::Skipped),
        Err(problem) if !is_passing(&problem) => Ok(Came::Failed(problem.code.as_ref().into())),
        came => came,
    }
}

async fn steer(services: &Services, batch: &Batch, run_id: RunId, again: bool) -> Result<Came, Box<Problem>> {
    let (action, reason) = (batch.spec.action, batch.reason());
    let command = match action {
        Action::Cancel => Command::Cancel { run_id, reason },
        Action::Terminate => Command::Terminate { run_id, reason },
        Action::Pause => Command::Pause { run_id, reason },
        _ => Command::Resume(run_id),
    };
    let status = match services.ask(run_id, command).await? {
        Reply::Accepted(_) => return Ok(Came::Done),
        Reply::Refused(Refusal::Finished { status, .. } | Refusal::Illegal { status, .. }) => status,
        // It has ended, and is in the index.
        Reply::Refused(Refusal::NotFound(_)) if again => services.finished(run_id).await?.summary.status,
        Reply::Refused(Refusal::NotFound(_)) => return Ok(Came::Skipped),
        other => return Err(unexpected(other)),
    };
    Ok(if again && action.has_made(status) { Came::Done } else { Came::Skipped })
}

async fn retry(
    services: &Services,
    workspace: &Workspace,
    batch: &Batch,
    run_id: RunId,
) -> Result<Came, Box<Problem>> {
    let hash = Sha256::new_with_prefix(b"batch retry\0")
        .chain_update(batch.id.as_bytes())
        .chain_update(run_id.as_bytes())
        .finalize();
    let key: [u8; 16] = hash.first_chunk().copied().unwrap_or_default();
    let idempotency = Idempotency { key, fingerprint: key };
    replay::retry(services, workspace, run_id, idempotency).await?;
    Ok(Came::Done)
}

async fn delete(
    services: &Services,
    batch: &Batch,
    run_id: RunId,
    again: bool,
) -> Result<Came, Box<Problem>> {
    match runs::forget(services, run_id, &batch.reason()).await {
        Ok(()) => Ok(Came::Done),
        Err(problem) if problem.status == 404 && again => Ok(Came::Done),
        Err(mut problem) => {
            // It has ended, and is on its way to the index.
            problem.retryable |= problem.code == "run_unfinished";
            Err(problem)
        }
    }
}
