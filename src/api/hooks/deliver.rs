//! A message to a hook: judged, made into inputs, and answered with the run that it has started.
//!
//! Until its signature is found good nothing of it is read but its size, and the answer to a bad one does not say what is wrong
//! with it. The run is durable before the answer, so whoever is answered need not send again.

use http::request::Parts;
use http::{HeaderMap, Response, StatusCode};
use hyper::body::Body as _;
use sha2::{Digest as _, Sha256};

use super::{Hook, no_hook, program, workspace_of};
use crate::api::request::{self, Incoming};
use crate::api::respond::{Body, json};
use crate::api::services::Services;
use crate::api::{start, triggers};
use crate::auth::rate::Who;
use crate::exec::standard_webhooks::{self as webhooks, Headers, Secret};
use crate::expr::{Budget, Env};
use crate::limits;
use crate::model::{RunKey, Value};
use crate::store::triggers::Table;
use crate::telemetry::log::{self, Target};
use crate::time::Clock as _;
use crate::wire::problem::Problem;
use crate::wire::run::Line;

type Refused = Box<Problem>;

/// Whatever a mapping asks for is the message.
struct Message(Value);

impl Env for Message {
    fn value(&self, _: usize) -> Value {
        self.0.clone()
    }
}

/// `POST /v1/hooks/{hook}`
pub(super) async fn deliver(
    services: &Services,
    head: &Parts,
    incoming: Incoming,
    id: &str,
) -> Result<Response<Body>, Refused> {
    services.refuse_when_stopping()?;
    let workspace = workspace_of(id).ok_or_else(|| no_hook(id))?;
    let found: Option<Hook> =
        triggers::get(&services.triggers, Table::Hooks, triggers::key(&workspace, id)).await?;
    let hook = found.ok_or_else(|| no_hook(id))?;
    within_rate(services, id)?;
    request::require_json(&head.headers)?;
    small(incoming.size_hint().lower())?;
    let bytes = request::body(head, incoming).await?;
    small(bytes.len() as u64)?;
    let message_id = proven(services, &hook, &head.headers, &bytes)?;
    let inputs = inputs(&hook, &bytes)?;
    let wanted =
        start::Triggered { workflow: hook.workflow.clone(), inputs, run_key: run_key(id, message_id)? };
    let (summary, origin) = start::triggered(services, &workspace, wanted).await?;
    let origin = match origin {
        start::Origin::Started => start::Origin::Started,
        start::Origin::Replayed | start::Origin::Existing => start::Origin::Replayed,
    };
    let line = json(StatusCode::ACCEPTED, &Line::new(&summary, &services.durability));
    Ok(start::located(line, summary.run_id, origin))
}

fn within_rate(services: &Services, id: &str) -> Result<(), Refused> {
    let standing = services.triggers.allowances.take(Who::Token(id), services.clock.monotonic_us());
    let Some(wait) = standing.refused_for_ns else { return Ok(()) };
    let (each, burst) = (limits::HOOK_REQUESTS_PER_SECOND, limits::HOOK_REQUESTS_BURST);
    let detail = format!("this hook takes {each} messages a second and {burst} at once");
    let mut problem = Problem::new(429, "rate_limited", detail).limit("hook_requests_per_second");
    problem.retryable = true;
    problem.outcome = Some("not_applied".into());
    problem.retry_after_ms = Some(wait.div_ceil(1_000_000).max(1));
    Err(problem)
}

fn small(bytes: u64) -> Result<(), Refused> {
    if bytes <= limits::HOOK_BODY_BYTES_MAX as u64 {
        return Ok(());
    }
    let detail = format!("a message of {bytes} bytes; at most {} are read", limits::HOOK_BODY_BYTES_MAX);
    Err(Problem::new(413, "body_too_large", detail).limit("hook_body_bytes_max"))
}

/// The id of a message that was signed with one of the hook's secrets.
fn proven<'h>(
    services: &Services,
    hook: &Hook,
    headers: &'h HeaderMap,
    body: &[u8],
) -> Result<&'h str, Refused> {
    let now = services.clock.now();
    let previous = hook.previous.as_ref().filter(|(_, until)| *until > now).map(|(sealed, _)| sealed);
    let sealed = std::iter::once(&hook.secret).chain(previous);
    let opened = sealed.filter_map(|sealed| services.triggers.open(hook.id.as_bytes(), sealed));
    let secrets: Vec<Secret> = opened.filter_map(|bytes| Secret::new(bytes).ok()).collect();
    if secrets.is_empty() {
        log::warn(
            Target::Api,
            format_args!("{}: its secret was sealed with another lease.key; rotate it", hook.id),
        );
    }
    let one = |name: &str| {
        let mut values = headers.get_all(name).iter();
        let value = values.next().and_then(|value| value.to_str().ok()).unwrap_or_default();
        if values.next().is_some() { "" } else { value }
    };
    let given = Headers {
        id: one(webhooks::ID_HEADER),
        timestamp: one(webhooks::TIMESTAMP_HEADER),
        signature: one(webhooks::SIGNATURE_HEADER),
    };
    webhooks::verify(&secrets, given, body, now).map(|()| given.id).map_err(|_| {
        let detail = "the message is not signed with this hook's secret, or not now";
        Problem::new(401, "signature_refused", detail)
    })
}

fn inputs(hook: &Hook, bytes: &[u8]) -> Result<Value, Refused> {
    let message = Value::from_json(bytes).map_err(|error| {
        let detail = error.to_string();
        match detail.rsplit_once("(limit ").map(|(_, name)| name.split(')').next().unwrap_or(name).to_owned())
        {
            Some(limit) => Problem::new(422, "limit_exceeded", detail).limit(limit),
            None => Problem::new(400, "malformed_json", detail),
        }
    })?;
    let Some(mapping) = hook.mapping.as_deref() else { return Ok(message) };
    let mut budget = Budget { steps: limits::EXPRESSION_STEPS_MAX };
    program(mapping)?.evaluate(&Message(message), &mut budget).map_err(|error| {
        Problem::new(422, "mapping_failed", format!("the hook's mapping does not fit the message: {error}"))
    })
}

/// What the run is known by; an id that is too long for it goes in by its hash.
fn run_key(id: &str, message_id: &str) -> Result<RunKey, Refused> {
    let mut text = format!("hook/{id}/{message_id}");
    if text.len() > limits::RUN_KEY_BYTES_MAX {
        let hash: String = Sha256::digest(message_id).iter().map(|byte| format!("{byte:02x}")).collect();
        text = format!("hook/{id}/sha256:{hash}");
    }
    RunKey::new(&text.into()).map_err(|error| Problem::new(500, "internal", error.to_string()))
}
