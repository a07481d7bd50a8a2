//! What is recorded of requests, and what is told of the records (docs/audit.md).
//!
//! Recorded are refusals (401, 403, and 404 for what a path names) and accepted changes; not reads, not what workers say, not
//! starts of runs unless `audit.starts` asks for it. A change's answer waits until its record is durable; when it cannot be
//! recorded the answer is 503, and further changes are refused before they are made. A refusal's answer waits for nothing.

use std::cell::Cell;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode};
use serde::Serialize;

use super::respond::{Body, json};
use super::services::{Services, blocking};
use super::{admission, request};
use crate::audit::{self, Entry, Log, Record};
use crate::limits;
use crate::model::RunId;
use crate::store::signing::hex;
use crate::time::{Clock as _, Timestamp};
use crate::wire::Shown;
use crate::wire::problem::Problem;

type Answer = Result<Response<Body>, Box<Problem>>;

/// Paths whose accepted requests change nothing that an auditor asks for, or say so themselves in events.
const UNRECORDED: [&str; 3] = ["/v1/workers/", "/v1/callbacks/", "/v1/workflows/validate"];
/// Starts of runs: their events say what was started.
const STARTS: [&str; 3] = ["/v1/runs", "/runs", "/workflows/execute"];

/// Would an accepted request like this be recorded?
fn is_change(head: &Parts, log: &Log) -> bool {
    if matches!(head.method, Method::GET | Method::HEAD) {
        return false;
    }
    let path = head.uri.path();
    if STARTS.contains(&path) {
        return log.settings().starts;
    }
    !UNRECORDED.iter().any(|prefix| path.starts_with(prefix))
}

/// 503 for a change that could not be recorded. For a start of a run it is one look at a path.
pub(super) fn check(services: &Services, head: &Parts) -> Result<(), Box<Problem>> {
    let Some(log) = services.door.audit.get().filter(|log| is_change(head, log)) else { return Ok(()) };
    log.failure().map_or(Ok(()), |error| Err(unrecordable(&error, "not_applied")))
}

fn unrecordable(error: &audit::Error, outcome: &'static str) -> Box<Problem> {
    let mut problem = Problem::unavailable(error.code(), error.to_string());
    problem.outcome = Some(outcome.into());
    match error {
        audit::Error::Full(_) => problem.limit("audit_pending_bytes_max"),
        audit::Error::Failed(_) => problem,
    }
}

/// Is there anything to record of this answer?
pub(super) fn concerns(services: &Services, head: &Parts, answer: &Answer) -> bool {
    let Some(log) = services.door.audit.get() else { return false };
    match answer {
        Ok(response) => response.status().is_success() && is_change(head, log),
        Err(problem) => is_refusal(problem),
    }
}

fn is_refusal(problem: &Problem) -> bool {
    matches!(problem.status, 401 | 403) || (problem.status == 404 && problem.code != "route_not_found")
}

/// Records an answer before it leaves.
pub(super) async fn record(
    services: &Services,
    head: &Parts,
    (peer, request_id): (IpAddr, &HeaderValue),
    answer: Answer,
) -> Answer {
    let Some(log) = services.door.audit.get().cloned() else { return answer };
    let (refused, status, code) = match &answer {
        Ok(response) => (false, response.status().as_u16(), None),
        Err(problem) => (true, problem.status, Some(problem.code.to_string())),
    };
    let now = services.clock.now();
    let entry = Entry { refused, status, code, ..entry(services, head, (peer, request_id)) };
    let seq = match log.note(entry, now) {
        Ok(Some(seq)) => seq,
        Err(error) if !refused => return Err(unrecordable(&error, "unknown")),
        // A refusal that cannot be recorded is one all the same.
        Ok(None) | Err(_) => return answer,
    };
    if refused {
        // It changed nothing, so nobody waits for it.
        drop(tokio::task::spawn_blocking(move || log.flush(seq, now)));
        return answer;
    }
    match flushed(services, &log, (seq, now)).await? {
        Ok(()) => answer,
        Err(error) => Err(unrecordable(&error, "unknown")),
    }
}

/// Waits until a record is durable. One flush of a core at a time, which takes all that was recorded before it began: those who wait for
/// it hold no thread, which others need to read and compile. A change that comes alone is flushed at once; while
/// several wait a flush begins [`limits::AUDIT_GATHER_MICROS`] after the one before, so that it takes several: each is a thread's wake and
/// a sync of the disk, which the journal's have to share.
async fn flushed(
    services: &Services,
    log: &Arc<Log>,
    (seq, now): (u64, Timestamp),
) -> Result<Result<(), audit::Error>, Box<Problem>> {
    let _waits = Waits::new(&services.audit_waits);
    let _turn = services.auditing.lock().await;
    if log.is_durable(seq) {
        return Ok(Ok(()));
    }
    let since_us = services.clock.monotonic_us().saturating_sub(services.audited_us.get());
    if let Some(left_us) = limits::AUDIT_GATHER_MICROS.checked_sub(since_us)
        && services.audit_waits.get() > 1
    {
        tokio::time::sleep(Duration::from_micros(left_us)).await;
        // Another core may have had it done meanwhile.
        if log.is_durable(seq) {
            return Ok(Ok(()));
        }
    }
    services.audited_us.set(services.clock.monotonic_us());
    let log = log.clone();
    blocking(move || log.flush(seq, now)).await
}

/// One of those who wait for the log.
struct Waits<'a>(&'a Cell<usize>);

impl<'a> Waits<'a> {
    fn new(count: &'a Cell<usize>) -> Self {
        count.set(count.get() + 1);
        Self(count)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

fn entry(services: &Services, head: &Parts, (peer, request_id): (IpAddr, &HeaderValue)) -> Entry {
    let path = head.uri.path();
    let known = admission::known(services, head);
    Entry {
        action: action(&head.method, path),
        workspace: known.map(|caller| caller.workspace.name().to_owned()),
        who: known.map(|caller| caller.token.as_deref().unwrap_or("anyone").to_owned()),
        from: Some(peer.to_canonical().to_string()),
        target: harmless(path, limits::AUDIT_TARGET_BYTES_MAX),
        request_id: request_id.to_str().ok().map(|id| harmless(id, limits::REQUEST_ID_BYTES_MAX)),
        ..Entry::default()
    }
}

/// Method and route: what is a name or an id in the path is `{id}`.
fn action(method: &Method, path: &str) -> String {
    let method: String = method.as_str().chars().take(16).collect();
    let mut route = String::new();
    for segment in path.split('/').skip(1).take(super::SEGMENTS_MAX) {
        route.push('/');
        route.push_str(if is_fixed(segment) { segment } else { "{id}" });
    }
    format!("{method} {route}")
}

/// Segments that are the same in every path of a route.
fn is_fixed(segment: &str) -> bool {
    const FIXED: [&str; 38] = [
        "v1",
        "runs",
        "run",
        "workflows",
        "approvals",
        "decision",
        "cas",
        "workers",
        "queues",
        "poll",
        "complete",
        "fail",
        "heartbeat",
        "callbacks",
        "signals",
        "patch",
        "patches",
        "revoke",
        "graph",
        "timeline",
        "events",
        "audit",
        "verify",
        "tags",
        "versions",
        "validate",
        "execute",
        "pause",
        "resume",
        "cancel",
        "terminate",
        "node",
        "metrics",
        "admin",
        "schedules",
        "hooks",
        "batch",
        "updates",
    ];
    FIXED.contains(&segment)
}

/// A text without what could be a token or a sealed lease, and not too long.
fn harmless(text: &str, most: usize) -> String {
    let secret = |segment: &str| {
        segment.contains("aob_") || segment.contains("whsec_") || segment.len() > limits::NAME_BYTES_MAX
    };
    let mut previous = "";
    let parts = text.split('/').map(|segment| {
        let hidden = secret(segment) || previous == "callbacks";
        previous = segment;
        if hidden { "[redacted]" } else { segment }
    });
    let shown: String = parts.collect::<Vec<_>>().join("/");
    shown.chars().take(most).collect()
}

#[derive(Serialize)]
struct Row {
    hash: String,
    #[serde(flatten)]
    record: Record,
}

#[derive(Serialize)]
struct Rows {
    records: Vec<Row>,
    next_cursor: Option<String>,
}

fn log_of(services: &Services) -> Result<Arc<Log>, Box<Problem>> {
    let log = services.door.audit.get().cloned();
    log.ok_or_else(|| Problem::new(404, "audit_not_kept", "this node keeps no audit log"))
}

fn number(name: &str, text: Option<String>) -> Result<u64, Box<Problem>> {
    let Some(text) = text else { return Ok(0) };
    text.parse().map_err(|_| {
        let text: String = text.chars().take(32).collect();
        Problem::new(
            400,
            "invalid_cursor",
            format!("parameter {name:?} is {text:?}; the number of a record is expected"),
        )
    })
}

fn failed(error: &std::io::Error) -> Box<Problem> {
    Problem::unavailable("storage_failed", format!("the audit log cannot be read: {error}"))
}

/// `GET /v1/audit`: records of the caller's workspace; with `all=true` of all, and of requests from nobody that is known.
pub(super) async fn list(services: &Services, head: &Parts) -> Answer {
    request::require_accept(&head.headers, "application/json")?;
    let [after, cursor, limit, all] = request::parameters(head, ["after", "cursor", "limit", "all"])?;
    let (after, cursor) = (number("after", after)?, number("cursor", cursor)?);
    let all = match all.as_deref() {
        None | Some("false") => false,
        Some("true") => true,
        Some(other) => {
            let other: String = other.chars().take(32).collect();
            let detail = format!("parameter \"all\" is {other:?}; true or false is expected");
            return Err(Problem::new(400, "invalid_parameter", detail));
        }
    };
    let limit = request::page_limit(limit.as_deref())?;
    let (log, workspace) = (log_of(services)?, admission::workspace(head).clone());
    let read = blocking(move || {
        log.page((after.max(cursor), limit), &mut |record| {
            all || record.workspace.as_deref() == Some(workspace.name())
        })
    });
    let page = read.await?.map_err(|error| failed(&error))?;
    let records = page.records.into_iter().map(|(hash, record)| Row { hash, record }).collect();
    Ok(json(StatusCode::OK, &Rows { records, next_cursor: page.next.map(|next| next.to_string()) }))
}

#[derive(Serialize)]
struct Verdict {
    sound: bool,
    first: u64,
    last: u64,
    head: String,
    checkpoints: u64,
    set_aside: Vec<String>,
    findings: Vec<String>,
}

/// `GET /v1/audit/verify`: the whole log, recomputed from what is stored.
pub(super) async fn verify(services: &Services, head: &Parts) -> Answer {
    request::require_accept(&head.headers, "application/json")?;
    let [] = request::parameters(head, [])?;
    let log = log_of(services)?;
    let report = blocking(move || log.verify()).await?.map_err(|error| failed(&error))?;
    let audit::LogReport { first, last, head, checkpoints, set_aside, findings } = report;
    let sound = findings.is_empty();
    Ok(json(StatusCode::OK, &Verdict { sound, first, last, head, checkpoints, set_aside, findings }))
}

#[derive(Serialize)]
struct RunAnswer {
    run_id: Shown<RunId>,
    events: u64,
    head: String,
    sound: bool,
    finding: Option<FindingRow>,
    chain: Vec<LinkRow>,
    next_cursor: Option<String>,
    sealed: Vec<SealedRow>,
    algorithm: &'static str,
}

#[derive(Serialize)]
struct FindingRow {
    code: &'static str,
    seq: Option<u64>,
    detail: String,
}

#[derive(Serialize)]
struct LinkRow {
    seq: u64,
    at: Shown<Timestamp>,
    hash: String,
}

#[derive(Serialize)]
struct SealedRow {
    segment: u64,
    first: u64,
    last: u64,
    at: Shown<Timestamp>,
    key: String,
}

/// `GET /v1/runs/{id}/audit`: the chain over its events, computed from the stored bytes, and what seals say of them.
pub(super) async fn run(services: &Services, head: &Parts, run_id: RunId) -> Answer {
    request::require_accept(&head.headers, "application/json")?;
    let [after, cursor, limit] = request::parameters(head, ["after", "cursor", "limit"])?;
    let after = number("after", after)?.max(number("cursor", cursor)?);
    let limit = request::page_limit(limit.as_deref())?;
    let location = services.locate(run_id).await?;
    let runs = services.runs.clone();
    let found = services.read(move || runs.audit(&location, after, limit)).await?;
    let last = found.links.last().map(|link| link.seq);
    let finding = found.finding.map(|finding| FindingRow {
        code: finding.code,
        seq: finding.seq,
        detail: finding.what,
    });
    let chain =
        found.links.iter().map(|link| LinkRow { seq: link.seq, at: Shown(link.at), hash: hex(&link.hash) });
    let sealed = found.sealed.iter().map(|part| SealedRow {
        segment: part.segment,
        first: part.first,
        last: part.last,
        at: Shown(part.at),
        key: hex(&part.key),
    });
    let body = RunAnswer {
        run_id: Shown(run_id),
        events: found.events,
        head: hex(&found.head),
        sound: finding.is_none(),
        finding,
        chain: chain.collect(),
        next_cursor: last.filter(|last| *last < found.events).map(|last| last.to_string()),
        sealed: sealed.collect(),
        algorithm: "sha256 aob chain v1",
    };
    Ok(json(StatusCode::OK, &body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_action_names_the_route_and_a_target_no_secret() {
        let action = |path| action(&Method::POST, path);
        assert_eq!(action("/v1/runs/run_01/cancel"), "POST /v1/runs/{id}/cancel");
        assert_eq!(action("/v1/workflows/pay/tags/live"), "POST /v1/workflows/{id}/tags/{id}");
        assert_eq!(action("/a/b/c/d/e/f/g/h/i"), "POST /{id}/{id}/{id}/{id}/{id}/{id}/{id}");
        let shown = |path: &str| harmless(path, 256);
        assert_eq!(shown("/v1/callbacks/sealed"), "/v1/callbacks/[redacted]");
        assert_eq!(shown("/v1/runs/aob_0123/graph"), "/v1/runs/[redacted]/graph");
        assert_eq!(shown(&format!("/v1/runs/{}", "x".repeat(5_000))), "/v1/runs/[redacted]");
        assert_eq!(harmless("aob_0123", 256), "[redacted]");
    }
}
