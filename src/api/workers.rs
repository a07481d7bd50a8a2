//! Workers: they poll for jobs, say how each ended, and say meanwhile that they live.
//!
//! A lease is an event (`node.leased`) and durable before the worker has the job; it is held by heartbeats and fails the
//! attempt with `lease_expired` without them. A result goes to the run that waits for it, wherever the worker got the job
//! from; one that nobody waits for is answered `stale`, and counted. Who waits in a poll costs a task and nothing else;
//! at most [`limits::POLLS_WAITING_MAX`] wait, further ones are answered at once.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use http::StatusCode;
use http::request::Parts;
use hyper::body::Incoming;
use serde_json::{Value as Json, json};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::errands::{is_passing, tell};
use super::respond::{Body, json as respond};
use super::services::{Services, unexpected};
use super::{admission, body, request};
use crate::engine::command::{Command, Dispatch, Lease, Reply, Settle, Work};
use crate::exec::pool::{Beat, Job, Room};
use crate::exec::{Ticket, idempotency_key, traceparent};
use crate::limits;
use crate::model::workspace::shown;
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
        "poll" => poll(services, admission::workspace(head), &bytes).await,
        "heartbeat" => heartbeat(services, admission::workspace(head), &bytes),
        "complete" => {
            let [results, lease, output] = body::members(&bytes, ["results", "lease", "output"])?;
            let ended = ended(
                "results",
                results,
                lease.map(|lease| vec![("lease", Some(lease)), ("output", output)]),
            )?;
            settle(services, Some(admission::workspace(head)), ended).await
        }
        _ => {
            let [failures, lease, error] = body::members(&bytes, ["failures", "lease", "error"])?;
            let ended = ended(
                "failures",
                failures,
                lease.map(|lease| vec![("lease", Some(lease)), ("error", error)]),
            )?;
            settle(services, Some(admission::workspace(head)), ended).await
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

fn number(member: &str, value: Option<Value>, most: u64, otherwise: u64) -> Result<u64, Box<Problem>> {
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
fn texts(
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

async fn poll(services: &Services, workspace: &Workspace, bytes: &[u8]) -> Answer {
    services.refuse_when_stopping()?;
    let [queues, max, wait, worker] = body::members(bytes, ["queues", "max", "wait_ms", "worker"])?;
    let queues = texts("queues", queues, (limits::POLL_QUEUES_MAX, "poll_queues_max"))?;
    let max = number("max", max, limits::POLL_JOBS_MAX as u64, 1)?;
    let wait_ms = number("wait_ms", wait, limits::POLL_WAIT_MILLIS_MAX, 0)?;
    let worker = body::text("worker", worker)?.unwrap_or_else(|| "worker".into());
    if worker.len() > limits::NAME_BYTES_MAX {
        let detail = format!("\"worker\" has {} bytes", worker.len());
        return Err(Problem::new(422, "limit_exceeded", detail).limit("name_bytes_max"));
    }
    let rooms: Vec<Room> = queues.into_iter().map(|queue| (workspace.name().into(), queue)).collect();
    let until_us = services.clock.monotonic_us().saturating_add(wait_ms * 1_000);
    let max = usize::try_from(max).unwrap_or(usize::MAX);
    loop {
        let jobs = granted(services, &rooms, max, &worker).await;
        let left_us = until_us.saturating_sub(services.clock.monotonic_us());
        let full = services.polls.get() >= limits::POLLS_WAITING_MAX;
        if !jobs.is_empty() || max == 0 || left_us == 0 || full || services.stopping.get() {
            return Ok(respond(StatusCode::OK, &json!({"jobs": jobs})));
        }
        // Now and then it looks up whether the node is stopping.
        let nap = Duration::from_micros(left_us).min(Duration::from_secs(1));
        let news: Vec<_> = rooms.iter().map(|room| services.executors.pool.news(room)).collect();
        services.polls.set(services.polls.get() + 1);
        let waiting = Waiting(services);
        let _ = tokio::time::timeout(nap, any(&news)).await;
        drop(waiting);
    }
}

/// Counts a poll out that no longer waits, however that came.
struct Waiting<'a>(&'a Services);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.polls.set(self.0.polls.get().saturating_sub(1));
    }
}

/// Until one of them has news.
async fn any(news: &[Arc<Notify>]) {
    let mut all: Vec<_> = news.iter().map(|one| Box::pin(one.notified())).collect();
    std::future::poll_fn(|context| {
        let ready = all.iter_mut().any(|one| one.as_mut().poll(context).is_ready());
        if ready { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}

/// Jobs whose leases are durable. Goes on when the one who asks has gone: what is on offer must come to an end.
async fn granted(services: &Services, rooms: &[Room], max: usize, worker: &Arc<str>) -> Vec<Json> {
    let mut offers = Vec::new();
    let turn = services.turn();
    for at in 0..rooms.len() {
        // Polls that name the same queues begin at another one each time.
        let Some(room) = rooms.get((turn + at) % rooms.len().max(1)) else { continue };
        let jobs = services.executors.pool.offer(room, max - offers.len());
        offers.extend(jobs.into_iter().map(|job| (room.clone(), job)));
        if offers.len() >= max {
            break;
        }
    }
    let Some(services) = services.own() else { return Vec::new() };
    if offers.is_empty() {
        return Vec::new();
    }
    let worker = worker.clone();
    let all = tokio::task::spawn_local(async move {
        let mut asked = JoinSet::new();
        for (room, job) in offers {
            asked.spawn_local(lease(services.clone(), room, job, worker.clone()));
        }
        let mut jobs: Vec<_> = asked.join_all().await.into_iter().flatten().collect();
        jobs.sort_by_key(|(seq, _)| *seq);
        jobs.into_iter().map(|(_, job)| job).collect()
    });
    all.await.unwrap_or_default()
}

/// Has a shard do something; anything but its consent is a problem.
async fn accepted(services: &Services, run_id: RunId, command: Command) -> Result<(), Box<Problem>> {
    match services.ask(run_id, command).await? {
        Reply::Accepted(_) => Ok(()),
        other => Err(unexpected(other)),
    }
}

/// Has one lease written down.
async fn lease(services: Rc<Services>, room: Room, job: Job, worker: Arc<str>) -> Option<(u64, Json)> {
    let asked = Lease { run_id: job.run_id, place: job.place.clone(), seq: job.seq, worker: worker.clone() };
    let pool = &services.executors.pool;
    match accepted(&services, job.run_id, Command::Lease(Box::new(asked))).await {
        Ok(()) => {
            pool.leased(&room, &job, worker, services.clock.monotonic_us());
            Some((job.seq, described(&services, room, &job)))
        }
        Err(problem) => {
            pool.drop_offer(&room, &job, is_passing(&problem), services.clock.monotonic_us());
            None
        }
    }
}

/// A job as its worker sees it.
fn described(services: &Services, room: Room, job: &Job) -> Json {
    let ticket = Ticket { run_id: job.run_id, place: job.place.clone(), seq: job.seq, room };
    let lease = services.executors.leases.seal(&ticket);
    let hash = base64::engine::general_purpose::STANDARD.encode(job.document);
    json!({
        "callback": format!("/v1/callbacks/{lease}"),
        "lease": lease,
        "lease_seconds": services.executors.pool.lease_seconds(),
        "run_id": job.run_id.to_string(),
        "node": job.path,
        "workflow": shown(&job.workflow),
        "queue": &*job.queue,
        "attempt": job.attempt,
        "epoch": job.epoch,
        "priority": job.priority.as_str(),
        "config_digest": format!("sha-256=:{hash}:"),
        "idempotency_key": idempotency_key(job.run_id, &job.place),
        "traceparent": traceparent(job.run_id, job.seq),
        "deadline": job.due.map(|due| due.to_string()),
        "input": job.payload,
    })
}

fn heartbeat(services: &Services, workspace: &Workspace, bytes: &[u8]) -> Answer {
    let [leases] = body::members(bytes, ["leases"])?;
    let leases = texts("leases", leases, (limits::WORKER_ITEMS_MAX, "worker_items_max"))?;
    let now_us = services.clock.monotonic_us();
    let rows = leases.iter().map(|lease| {
        let beat = match services.executors.leases.open(lease) {
            Some(ticket) if *ticket.room.0 == *workspace.name() => {
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
    let ticket = ticket.filter(|ticket| workspace.is_none_or(|own| *ticket.room.0 == *own.name()));
    let Some(ticket) = ticket else {
        return json!({"lease": lease, "status": "refused", "code": "lease_unknown",
            "detail": "this node gave out no such lease"});
    };
    let result = match (item.get("error"), item.get("output")) {
        (Some(error), _) => Err(failure(error)),
        (None, output) => Ok(output.cloned().unwrap_or_default()),
    };
    let Ticket { run_id, place, seq, room } = ticket;
    let settle = Settle { run_id, place, seq, result };
    match accepted(services, run_id, Command::Settle(Box::new(settle))).await {
        Ok(()) => {
            services.executors.pool.settled(&room, (run_id, seq));
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
fn failure(error: &Value) -> Failure {
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
            let result = Err(Failure::transient("lease_expired", message));
            let services = services.clone();
            tokio::task::spawn_local(async move {
                let settle =
                    Settle { run_id: expired.run_id, place: expired.place, seq: expired.seq, result };
                tell(&services, settle).await;
            });
        }
    }
}
