//! Routes of earlier interfaces, each a thin name for one of `/v1`: an execution is a run, and nothing is done twice.
//!
//! `POST /workflows/execute`, `GET /workflows/{execution_id}`, `POST /workflows/{execution_id}/{pause|resume}`. Whatever is
//! refused is refused by the route that stands behind.

use http::request::Parts;
use http::{Response, StatusCode};
use hyper::body::Incoming;
use serde::Serialize;

use super::respond::{Body, json};
use super::services::Services;
use super::{admission, body, request, runs, start};
use crate::engine::command::Verb;
use crate::model::RunId;
use crate::wire::Shown;
use crate::wire::problem::Problem;
use crate::wire::run::Full;

type Answer = Result<Response<Body>, Box<Problem>>;

/// An execution in one line.
#[derive(Serialize)]
struct Execution<'a> {
    execution_id: Shown<RunId>,
    status: &'a str,
}

/// An execution in full: its run under another name.
#[derive(Serialize)]
struct Whole<'a> {
    execution_id: Shown<RunId>,
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
    let workflow = Some(crate::model::Value::String(name));
    let asked = start::Asked { key, workflow, version: None, inputs };
    let (run, replayed) = start::launch(services, head, asked).await?;
    let answer = Execution { execution_id: Shown(run.run_id), status: "started" };
    Ok(start::located(json(StatusCode::ACCEPTED, &answer), run.run_id, replayed))
}

/// `GET /workflows/{execution_id}`
pub(super) async fn get(services: &Services, head: &Parts, id: &str) -> Answer {
    request::require_accept(&head.headers, "application/json")?;
    let run_id = admission::run(services, head, id).await?;
    let view = runs::view(services, run_id).await?;
    let whole = Whole { execution_id: Shown(run_id), run: runs::full(services, &view) };
    Ok(json(StatusCode::OK, &whole))
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
    Ok(json(answer.status(), &Execution { execution_id: Shown(run_id), status }))
}
