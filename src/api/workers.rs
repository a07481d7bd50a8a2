//! Workers: they poll for jobs, say how each ended, and say meanwhile that they live.
//!
//! Polls are in [`poll`]. A lease is an event (`node.leased`) and durable before the worker has the job; it is held by
//! heartbeats and fails the attempt with `lease_expired` without them. A result goes to the run that waits for it, wherever
//! the worker got the job from; one that nobody waits for is answered `stale`, and counted. Whoever has the role `admin` may
//! answer for leases of every workspace.

mod poll;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use http::request::Parts;
use serde_json::{Value as Json, json};
use tokio::task::JoinSet;

use super::errands::tell;
use super::request::Incoming;
use super::respond::{Body, json as respond};
use super::services::{Services, unexpected};
use super::{admission, body, errands, request, worklog};
use crate::auth::Role;
use crate::engine::command::{Command, Dispatch, Reply, Settle, Work};
use crate::exec::Ticket;
use crate::exec::pool::{Beat, Job};
use crate::limits;
use crate::model::{Class, Failure, Map, RunId, Value, Workspace};
use crate::time::Clock as _;
use crate::wire::problem::Problem;

type Answer = Result<http::Response<Body>, Box<Problem>>;

/// A job of a shard's: into the pool with it.
pub(super) fn add(services: &Services, (run_id, epoch): (RunId, u64), dispatch: Dispatch) {
    let Work::Call { request, .. } = dispatch.work else { return };
    let queue: Arc<str> = match request.get("queue") {
        Some(Value::String(queue)) => queue.clone(),
        _ => dispatch.path.as_str().into(),
    };
    let room = (Workspace::of(&dispatch.workflow).name().into(), queue.clone());
    let job = Job {
        run_id,
        place: dispatch.place,
        seq: dispatch.seq,
        path: dispatch.path,
        workflow: dispatch.workflow,
        document: dispatch.document,
        attempt: dispatch.attempt,
        epoch,
        priority: dispatch.priority,
        queue,
        payload: request.get("payload").cloned().unwrap_or_default(),
        due: dispatch.due,
        worker: dispatch.worker,
    };
    services.executors.pool.add(&room, job, services.clock.monotonic_us());
}

/// `POST /v1/workers/{poll,complete,fail,heartbeat}`
pub(super) async fn answer(services: &Services, head: &Parts, incoming: Incoming, verb: &str) -> Answer {
    request::require_json(&head.headers)?;
    let bytes = request::body(head, incoming).await?;
    match verb {
        "poll" => poll::poll(services, admission::caller(head), &bytes).await,
        "heartbeat" => heartbeat(services, scope(head), &bytes),
        "complete" => {
            let [results, lease, output] = body::members(&bytes, ["results", "lease", "output"])?;
            let ended = ended(
                "results",
                results,
                lease.map(|lease| vec![("lease", Some(lease)), ("output", output)]),
            )?;
            settle(services, scope(head), ended).await
        }
        _ => {
            let [failures, lease, error] = body::members(&bytes, ["failures", "lease", "error"])?;
            let ended = ended(
                "failures",
                failures,
                lease.map(|lease| vec![("lease", Some(lease)), ("error", error)]),
            )?;
            settle(services, scope(head), ended).await
        }
    }
}

/// `POST /v1/callbacks/{lease}`: how an attempt ended, from somebody who knows no more than this URL.
pub(super) async fn callback(services: &Services, head: &Parts, incoming: Incoming, lease: &str) -> Answer {
    request::require_json(&head.headers)?;
    let bytes = request::body(head, incoming).await?;
    let [output, error] = body::members(&bytes, ["output", "error"])?;
    if services.executors.leases.open(lease).is_none() {
        return Err(Problem::new(404, "lease_unknown", "this node gave out no such lease"));
    }
    let item = Value::map(
        [("lease", Some(Value::string(lease))), ("output", output), ("error", error)]
            .into_iter()
            .filter_map(|(key, value)| Some((key, value?))),
    );
    settle(services, None, vec![item]).await
}

/// `GET /v1/workers/queues`
pub(super) fn queues(services: &Services, head: &Parts) -> Answer {
    let depths = services.executors.pool.depths();
    let own = admission::workspace(head).name();
    let rows = depths.iter().filter(|depth| &*depth.workspace == own).map(|depth| {
        json!({"queue": &*depth.queue, "waiting": depth.waiting, "leased": depth.leased, "max": depth.max})
    });
    Ok(respond(StatusCode::OK, &json!({"queues": rows.collect::<Vec<_>>()})))
}

pub(super) fn number(
    member: &str,
    value: Option<Value>,
    most: u64,
    otherwise: u64,
) -> Result<u64, Box<Problem>> {
    match value {
        None | Some(Value::Null) => Ok(otherwise),
        Some(Value::Int(number)) => Ok(u64::try_from(number)
            .map_err(|_| body::wrong_type(member, "a whole number from 0", &Value::Int(number)))?
            .min(most)),
        Some(Value::UInt(number)) => Ok(number.min(most)),
        // 4.0 is a whole number to JSON Schema, and to some clients the only way to write one.
        Some(Value::Float(number)) if number >= 0.0 && number.fract() == 0.0 => Ok((number as u64).min(most)),
        Some(other) => Err(body::wrong_type(member, "a whole number", &other)),
    }
}

/// Texts of a list, at most `most`.
pub(super) fn texts(
    member: &'static str,
    value: Option<Value>,
    (most, limit): (usize, &'static str),
) -> Result<Vec<Arc<str>>, Box<Problem>> {
    let list = match value {
        Some(Value::List(list)) => list,
        Some(other) => return Err(body::wrong_type(member, "a list of strings", &other)),
        None => {
            return Err(Problem::new(
                400,
                "invalid_body",
                format!("{member:?} is missing: a list of strings"),
            ));
        }
    };
    if list.len() > most {
        let detail = format!("{member:?} has {} entries, at most {most} may be", list.len());
        return Err(Problem::new(422, "limit_exceeded", detail).limit(limit));
    }
    list.iter()
        .map(|item| match item {
            Value::String(text) => Ok(text.clone()),
            other => Err(body::wrong_type(member, "a list of strings", other)),
        })
        .collect()
}

/// Has a shard do something; anything but its consent is a problem.
async fn accepted(services: &Services, run_id: RunId, command: Command) -> Result<(), Box<Problem>> {
    match services.ask(run_id, command).await? {
        Reply::Accepted(_) => Ok(()),
        other => Err(unexpected(other)),
    }
}

/// The workspace whose leases a caller may answer for; `None` is every one.
fn scope(head: &Parts) -> Option<&Workspace> {
    let caller = admission::caller(head);
    (caller.role < Role::Admin).then_some(&caller.workspace)
}

fn is_within(ticket: &Ticket, scope: Option<&Workspace>) -> bool {
    scope.is_none_or(|own| *ticket.room.0 == *own.name())
}

fn heartbeat(services: &Services, scope: Option<&Workspace>, bytes: &[u8]) -> Answer {
    let [leases] = body::members(bytes, ["leases"])?;
    let leases = texts("leases", leases, (limits::WORKER_ITEMS_MAX, "worker_items_max"))?;
    let now_us = services.clock.monotonic_us();
    let rows = leases.iter().map(|lease| {
        let beat = match services.executors.leases.open(lease) {
            Some(ticket) if is_within(&ticket, scope) => {
                services.executors.pool.beat(&ticket.room, (ticket.run_id, ticket.seq), now_us)
            }
            _ => Beat::Unknown,
        };
        let state = match beat {
            Beat::Held => "held",
            Beat::Cancelled => "cancelled",
            Beat::Unknown => "unknown",
        };
        json!({"lease": &**lease, "state": state})
    });
    Ok(respond(StatusCode::OK, &json!({"leases": rows.collect::<Vec<_>>()})))
}

/// The items of a request: a list of them, or the one that the request itself is.
fn ended(
    member: &'static str,
    list: Option<Value>,
    alone: Option<Vec<(&'static str, Option<Value>)>>,
) -> Result<Vec<Value>, Box<Problem>> {
    match (list, alone) {
        (Some(Value::List(list)), None) if list.len() <= limits::WORKER_ITEMS_MAX => Ok(list.to_vec()),
        (Some(Value::List(list)), None) => {
            let detail =
                format!("{member:?} has {} entries, at most {} may be", list.len(), limits::WORKER_ITEMS_MAX);
            Err(Problem::new(422, "limit_exceeded", detail).limit("worker_items_max"))
        }
        (Some(other), None) => Err(body::wrong_type(member, "a list", &other)),
        (None, Some(alone)) => {
            Ok(vec![Value::map(alone.into_iter().filter_map(|(key, value)| Some((key, value?))))])
        }
        (Some(_), Some(_)) => {
            Err(Problem::new(400, "invalid_body", format!("either {member:?} or \"lease\", not both")))
        }
        (None, None) => Err(Problem::new(400, "invalid_body", format!("{member:?} is missing: a list"))),
    }
}

/// Tells runs of a workspace how their attempts ended. Each item is answered for itself.
async fn settle(services: &Services, workspace: Option<&Workspace>, items: Vec<Value>) -> Answer {
    let Some(services) = services.own() else {
        return Err(Problem::new(500, "internal", "the core is ending"));
    };
    let mut asked = JoinSet::new();
    for (at, item) in items.into_iter().enumerate() {
        let (services, workspace) = (services.clone(), workspace.cloned());
        asked.spawn_local(async move { (at, one(&services, workspace.as_ref(), item).await) });
    }
    let mut rows = asked.join_all().await;
    rows.sort_by_key(|(at, _)| *at);
    let rows: Vec<_> = rows.into_iter().map(|(_, row)| row).collect();
    Ok(respond(StatusCode::OK, &json!({"results": rows})))
}

async fn one(services: &Services, workspace: Option<&Workspace>, item: Value) -> Json {
    let lease = item.get("lease").and_then(Value::as_str).unwrap_or_default();
    let ticket = services.executors.leases.open(lease);
    let ticket = ticket.filter(|ticket| is_within(ticket, workspace));
    let Some(ticket) = ticket else {
        return json!({"lease": lease, "status": "refused", "code": "lease_unknown",
            "detail": "this node gave out no such lease"});
    };
    let result = match (item.get("error"), item.get("output")) {
        (Some(error), _) => Err(failure(error)),
        (None, output) => Ok(output.cloned().unwrap_or_default()),
    };
    let Ticket { run_id, place, seq, room } = ticket;
    let failure = result.as_ref().err().cloned();
    let settle = Settle { run_id, place, seq, result };
    let command = errands::settled(services, settle).await;
    let told = match command {
        Ok(command) => accepted(services, run_id, command).await,
        Err(problem) => Err(problem),
    };
    match told {
        Ok(()) => {
            let attempt = services.executors.pool.settled(&room, (run_id, seq));
            worklog::settled(run_id, attempt.as_ref(), failure.as_ref());
            json!({"lease": lease, "status": "accepted"})
        }
        Err(problem) if matches!(&*problem.code, "attempt_stale" | "run_not_found" | "run_finished") => {
            services.executors.pool.settled(&room, (run_id, seq));
            json!({"lease": lease, "status": "stale"})
        }
        Err(problem) => json!({"lease": lease, "status": "refused", "code": problem.code,
            "detail": problem.detail, "retryable": problem.retryable}),
    }
}

/// A failure as a worker words it: text, or `{code, message, class, retryable, retry_after_ms, details}`.
pub(super) fn failure(error: &Value) -> Failure {
    let text = |key: &str| error.get(key).and_then(Value::as_str).map(cut);
    let message = error.as_str().map(cut).or_else(|| text("message"));
    let mut failure =
        Failure::fatal("task_failed", message.unwrap_or_else(|| "the worker gave no reason".into()));
    if let Some(named) = text("code") {
        failure.code = named.into();
    }
    failure.class = match (text("class").as_deref(), error.get("retryable")) {
        (Some("transient"), _) => Class::Transient,
        (Some("recoverable"), _) | (None, Some(Value::Bool(true))) => Class::Recoverable,
        (Some("fatal"), _) | (None, Some(Value::Bool(false))) => Class::Fatal,
        _ => Class::of(&failure.code),
    };
    let mut details = match error.get("details") {
        Some(Value::Map(map)) => Map::clone(map),
        _ => Map::default(),
    };
    if let Some(after) = error.get("retry_after_ms") {
        details.insert("retry_after_ms".into(), after.clone());
    }
    if !details.is_empty() {
        failure.details = Value::Map(Arc::new(details));
    }
    failure
}

fn cut(text: &str) -> String {
    text.chars().take(limits::FAILURE_LETTERS_MAX).collect()
}

/// Fails attempts whose workers are silent. Runs on one core of the node.
pub async fn watch_leases(services: Rc<Services>) {
    loop {
        tokio::time::sleep(Duration::from_millis(limits::LEASE_LOOK_MILLIS)).await;
        for expired in services.executors.pool.expired(services.clock.monotonic_us()) {
            let message = format!(
                "the worker {} gave no sign for {} s",
                expired.worker,
                services.executors.pool.lease_seconds()
            );
            worklog::expired(&expired, &message);
            let result = Err(Failure::transient("lease_expired", message));
            let services = services.clone();
            crate::io::spawn_local(async move {
                let settle =
                    Settle { run_id: expired.run_id, place: expired.place, seq: expired.seq, result };
                tell(&services, settle).await;
            });
        }
    }
}
