//! Changes of a graph that are asked for again under the same `Idempotency-Key`: answered as the first time, before anything is
//! compiled. A patch that was refused is remembered by nobody: it is judged anew, and its refusal stands in the log once more.

use super::super::services::{Services, unexpected};
use super::super::{artifacts, keys};
use super::{Answer, answer, artifact, over};
use crate::engine::command::{Command, LayersView, Refusal, Reply};
use crate::model::event::{Done, Idempotency};
use crate::model::{RunId, RunSummary};
use crate::wire::Hash;
use crate::wire::problem::Problem;

/// A change that was made before.
pub(in crate::api) struct Again {
    /// The run as it was then.
    pub(super) run: RunSummary,
    pub(in crate::api) done: Done,
}

/// How a change begins.
pub(super) enum Begun {
    /// With this graph.
    Fresh(LayersView),
    /// It was made before.
    Again(Again),
}

/// How the graph of an unfinished run came to be, unless what is asked for under this key was done before.
pub(super) async fn layers(
    services: &Services,
    run_id: RunId,
    key: Option<&Idempotency>,
) -> Result<Begun, Box<Problem>> {
    match services.ask(run_id, Command::Layers(run_id).once(run_id, key)).await? {
        Reply::Repeated(run, done) => Ok(Begun::Again(Again { run, done })),
        Reply::Layers(view) if view.summary.status.is_terminal() => {
            let status = view.summary.status;
            Err(unexpected(Reply::Refused(Refusal::Finished { run_id, status })))
        }
        Reply::Layers(view) => artifacts::with_operations(services, *view).await.map(Begun::Fresh),
        Reply::Refused(Refusal::NotFound(_)) => match keys::before(services, run_id, key).await? {
            Some(again) => Ok(Begun::Again(Again { run: again.summary(), done: again.done().clone() })),
            None => Err(over(services, run_id).await),
        },
        other => Err(unexpected(other)),
    }
}

/// What was done under this key; `None` when nothing was, or the run is over and had none.
pub(super) async fn of(
    services: &Services,
    run_id: RunId,
    key: Option<&Idempotency>,
) -> Result<Option<Again>, Box<Problem>> {
    if key.is_none() {
        return Ok(None);
    }
    match layers(services, run_id, key).await {
        Ok(Begun::Again(again)) => Ok(Some(again)),
        Ok(Begun::Fresh(_)) => Ok(None),
        Err(problem) if problem.code == "run_finished" => Ok(None),
        Err(problem) => Err(problem),
    }
}

impl Again {
    /// The answer that it had.
    pub(super) async fn answer(self, services: &Services, wait: Option<artifacts::Wait>) -> Answer {
        let Self { run, done } = self;
        let Done::Patch { patch_id, held, version, document, revoked } = done else {
            return Err(Problem::new(500, "internal", "a patch was remembered as something else"));
        };
        let state = if held { "held" } else { "applied" };
        let made = (&run, version, Hash(&document).to_string());
        let response = answer(services, made, patch_id.map(|patch_id| (patch_id, state)), revoked);
        let response = artifact(services, wait.filter(|_| !held), (run.run_id, version), response).await;
        Ok(keys::replayed(response))
    }
}
