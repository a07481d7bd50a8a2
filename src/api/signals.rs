//! What is brought to a run that goes on: signals, and updates, which are answered.
//!
//! Both are one token for the run's owner, who judges whether somebody waits for it and whether it fits. A signal that nobody
//! waits for is kept; an update is refused. Who does not hear the answer sends it again under the same `Idempotency-Key` and gets
//! the answer; without one it would be another signal, or an update that nobody waits for.

use std::sync::Arc;

use http::request::Parts;
use http::{HeaderName, Response, StatusCode, header};
use rkyv::util::AlignedVec;

use super::request::Incoming;
use super::respond::{Body, json, with};
use super::services::{Services, unexpected};
use super::{body, conditions, keys, request, runs, start};
use crate::engine::command::{Command, Refusal, Reply, Settled, Update, Updated};
use crate::model::event::Idempotency;
use crate::model::token::Token;
use crate::model::{Kept, RunId, Value, kept};
use crate::wire::problem::{Problem, Wrong};
use crate::wire::run::{Full, Line};
use crate::wire::update;

type Answer = Result<Response<Body>, Box<Problem>>;

/// `POST /v1/runs/{id}/signals/{name}`
pub(super) async fn signal(
    services: &Services,
    head: &Parts,
    incoming: Incoming,
    (run_id, name): (RunId, &str),
) -> Answer {
    let expected = conditions::expected(&head.headers)?;
    let route = format!("signals/{name}");
    let Brought { token, kept, key } = brought(services, head, incoming, (run_id, name, &route)).await?;
    let command = Command::Signal(token).keeping(run_id, kept).guarded(run_id, expected.clone());
    match services.ask(run_id, command.once(run_id, key.as_ref())).await? {
        Reply::Accepted(run) => Ok(runs::accepted(services, &run)),
        Reply::Repeated(run, _) => Ok(keys::replayed(runs::accepted(services, &run))),
        Reply::Refused(Refusal::NotFound(_)) => {
            if let Some(again) = keys::before(services, run_id, key.as_ref()).await? {
                return Ok(keys::replayed(runs::accepted(services, &again.summary())));
            }
            Err(runs::over(services, run_id, expected).await?)
        }
        other => Err(unexpected(other)),
    }
}

/// `POST /v1/runs/{id}/updates/{name}`
pub(super) async fn update(
    services: &Services,
    head: &Parts,
    incoming: Incoming,
    (run_id, name): (RunId, &str),
) -> Answer {
    let expected = conditions::expected(&head.headers)?;
    let seconds = request::prefer_wait(&head.headers);
    let route = format!("updates/{name}");
    let Brought { token, kept, key } = brought(services, head, incoming, (run_id, name, &route)).await?;
    let wait = seconds.is_some_and(|seconds| seconds > 0);
    let command = Command::Update(Update { run_id, token, wait }).keeping(run_id, kept);
    let command = command.guarded(run_id, expected.clone()).once(run_id, key.as_ref());
    match services.ask_within(run_id, command, seconds.unwrap_or_default()).await? {
        // Its owner forgets how a node failed, and what was in passes that are over; its history does not.
        Reply::Updated(mut updated) if updated.replayed && is_vague(updated.settled.as_ref()) => {
            let location = services.locate(run_id).await?;
            updated.settled = keys::settled(services, &location, key.as_ref()).await?;
            Ok(answer(services, &updated, seconds))
        }
        Reply::Updated(updated) => Ok(answer(services, &updated, seconds)),
        Reply::Refused(Refusal::NotFound(_)) => {
            if let Some(again) = keys::before(services, run_id, key.as_ref()).await? {
                return Ok(answer(services, &keys::updated(services, again).await?, seconds));
            }
            Err(runs::over(services, run_id, expected).await?)
        }
        Reply::Refused(refusal @ Refusal::Unfit { .. }) => Err(payload_refused("update_invalid", refusal)),
        other => Err(unexpected(other)),
    }
}

/// May it have settled otherwise? One that failed and was gone on without has completed with null.
fn is_vague(settled: Option<&Settled>) -> bool {
    matches!(settled, Some(Settled::Gone | Settled::Completed(Value::Null)))
}

/// What a request brings.
struct Brought {
    /// As a token.
    token: Vec<u8>,
    /// What of it is kept by reference.
    kept: Option<Arc<Kept>>,
    key: Option<Idempotency>,
}

async fn brought(
    services: &Services,
    head: &Parts,
    incoming: Incoming,
    (run_id, name, route): (RunId, &str, &str),
) -> Result<Brought, Box<Problem>> {
    let given = request::idempotency_key(&head.headers)?;
    let bytes = request::body(head, incoming).await?;
    let payload = if bytes.is_empty() {
        None
    } else {
        request::require_json(&head.headers)?;
        let [payload] = body::members(&bytes, ["payload"])?;
        payload
    };
    let payload = payload.unwrap_or_default();
    let key = given.map(|given| keys::of(given, (run_id, route), &[payload.to_json()]));
    let kept = services.keep_for(run_id, &payload).await?;
    let token = kept::naming(kept.as_ref(), || Token::signal(run_id, name, &payload));
    let mut buffer = AlignedVec::new();
    token.and_then(|token| token.encode(&mut buffer)).map_err(|error| {
        let problem = Problem::new(422, "invalid_signal", error.to_string());
        match error {
            crate::model::token::Error::Limit { limit, .. } => problem.limit(limit),
            _ => problem,
        }
    })?;
    Ok(Brought { token: buffer.to_vec(), kept, key })
}

/// 200 once the node that answers has settled, however it did; 202 while it has not.
fn answer(services: &Services, updated: &Updated, wait: Option<u64>) -> Response<Body> {
    let (state, output, failure) = match &updated.settled {
        Some(Settled::Completed(output)) => ("completed", Some(output), None),
        Some(Settled::Failed(failure)) => ("failed", None, Some(failure)),
        Some(Settled::Skipped) => ("skipped", None, None),
        Some(Settled::Gone) => ("cancelled", None, None),
        None => ("waiting", None, None),
    };
    let told = update::Update {
        line: Line::new(&updated.run, &services.durability),
        received_seq: updated.seq,
        node: &updated.node,
        reply: updated.reply.as_deref(),
        state,
        output,
        error: Full::error(failure),
    };
    let settled = updated.settled.is_some();
    let status = if settled { StatusCode::OK } else { StatusCode::ACCEPTED };
    let response = kept::naming(updated.kept.as_ref(), || json(status, &told));
    let response = with(response, header::ETAG, conditions::tag(updated.run.seq));
    let response = if updated.replayed { keys::replayed(response) } else { response };
    if !settled {
        return with(response, header::LOCATION, format!("/v1/runs/{}", updated.run.run_id));
    }
    match wait {
        Some(_) => with(response, HeaderName::from_static("preference-applied"), start::preference(wait)),
        None => response,
    }
}

/// What a signal or an update brings does not fit.
pub(super) fn payload_refused(code: &'static str, refusal: Refusal) -> Box<Problem> {
    let mut problem = Problem::new(422, code, refusal.to_string());
    problem.outcome = Some("not_applied".into());
    let Refusal::Unfit { found, .. } = refusal else { return problem };
    found.into_iter().fold(problem, |problem, found| {
        let pointer = Some(format!("/payload{}", found.pointer));
        problem.at(&Wrong { pointer, detail: found.message, ..Wrong::default() })
    })
}
