//! Routes of earlier interfaces, each a thin name for one of `/v1`: an execution is a run, and nothing is done twice.
//!
//! An execution's id, `exec_` and 12 hexadecimal digits, is the business key of its run (docs/adr/0014): drawn for each
//! start, and for a start with an `Idempotency-Key` made from it, so that the same key asks the same owner. Every route that
//! takes a run's id takes it too, and these take a run's id.
//!
//! `POST /workflows/execute`, `GET /workflows/{execution_id}`, `POST /workflows/{execution_id}/{pause|resume}`. Whatever is
//! refused is refused by the route that stands behind.

use http::request::Parts;
use http::{Response, StatusCode};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use std::sync::Arc;

use super::request::Incoming;
use super::respond::{Body, json};
use super::services::{Services, execution_id};
use super::start::Launched;
use super::{admission, body, rate, request, runs, start};
use crate::engine::command::{OnConflict, Verb};
use crate::model::{RunKey, Value, run_key};
use crate::wire::problem::Problem;
use crate::wire::run::Full;

/// Execution ids drawn for one start: of 2^48 even the second is hardly ever needed.
const DRAWS_MAX: usize = 8;

type Answer = Result<Response<Body>, Box<Problem>>;

/// An execution in one line.
#[derive(Serialize)]
struct Execution<'a> {
    execution_id: &'a str,
    status: &'a str,
}

/// An execution in full: its run under another name.
#[derive(Serialize)]
struct Whole<'a> {
    execution_id: &'a str,
    #[serde(flatten)]
    run: Full<'a>,
}

/// `POST /workflows/execute`
pub(super) async fn execute(services: &Services, head: &Parts, incoming: Incoming) -> Answer {
    request::require_json(&head.headers)?;
    services.refuse_when_stopping()?;
    let key = request::idempotency_key(&head.headers)?;
    let bytes = request::body(head, incoming).await?;
    let [workflow, inputs] = body::members(&bytes, ["workflow_name", "inputs"])?;
    let Some(name) = body::text("workflow_name", workflow)? else {
        let detail = "\"workflow_name\" is missing: a name or name@version";
        return Err(Problem::new(400, "invalid_body", detail));
    };
    let Launched { summary: run, origin, taken } =
        launched(services, head, Asked { key, name, inputs }).await?;
    let id = run.run_key.as_deref().unwrap_or_default();
    let answer = Execution { execution_id: id, status: "started" };
    let mut response = start::located(json(StatusCode::ACCEPTED, &answer), run.run_id, origin);
    rate::tell_start(taken.as_ref(), &mut response);
    Ok(response)
}

/// What is to be executed.
struct Asked<'a> {
    key: Option<&'a [u8]>,
    name: Arc<str>,
    inputs: Option<Value>,
}

/// Starts a run under an execution id that no other run has.
async fn launched(services: &Services, head: &Parts, asked: Asked<'_>) -> Result<Launched, Box<Problem>> {
    let workspace = admission::workspace(head);
    let Asked { key, name, inputs } = asked;
    for _ in 0..DRAWS_MAX {
        let id: Arc<str> = match key {
            Some(key) => {
                let hash = Sha256::new().chain_update(workspace.name()).chain_update(b"\0").chain_update(key);
                execution_id(&hash.finalize()).into()
            }
            None => services.execution_id().into(),
        };
        let Some(claim) = run_key::execution_claim(workspace, &id) else { break };
        if key.is_none() && services.keyed(workspace, (&id, &claim)).await?.is_some() {
            continue;
        }
        let run_key = RunKey::new(&id).ok().map(|key| (key, OnConflict::Reject));
        let workflow = Some(Value::String(name));
        let asked =
            start::Asked { key, workflow, version: None, inputs, run_key, mode: None, patch_set: None };
        return start::launch(services, head, asked).await;
    }
    Err(Problem::new(500, "internal", "no execution id was free"))
}

/// `GET /workflows/{execution_id}`
pub(super) async fn get(services: &Services, head: &Parts, id: &str) -> Answer {
    request::require_accept(&head.headers, "application/json")?;
    let run_id = admission::run(services, head, id).await?;
    let view = runs::view(services, run_id).await?;
    let execution_id = executed_as(view.summary.run_key.as_deref(), id);
    let body = Whole { execution_id, run: runs::full(services, &view) };
    Ok(runs::whole_with(&view, &body))
}

/// What an execution is called: its own id when it has one, else what the caller called it.
fn executed_as<'a>(run_key: Option<&'a str>, asked: &'a str) -> &'a str {
    run_key.filter(|key| run_key::is_execution_id(key)).unwrap_or(asked)
}

/// `POST /workflows/{execution_id}/{pause|resume}`
pub(super) async fn steer(
    services: &Services,
    head: &Parts,
    incoming: Incoming,
    (id, verb): (&str, &str),
) -> Answer {
    let run_id = admission::run(services, head, id).await?;
    let (verb, status) = if verb == "pause" { (Verb::Pause, "paused") } else { (Verb::Resume, "resumed") };
    let answer = runs::steer(services, head, incoming, (run_id, verb)).await?;
    Ok(json(answer.status(), &Execution { execution_id: id, status }))
}
