//! What a request says, through the interface's own readers: bodies, packed bodies, parameters.

#![allow(missing_docs, clippy::indexing_slicing, reason = "this is a test, and compiled into nothing else")]

use http::Request;

use super::{batch, body, coding, filter, request, runs, start, workers};
use crate::limits;
use crate::model::{Value, Workspace};
use crate::wire::problem::Problem;

type Refused = Box<Problem>;

/// A refusal is a complete problem: a status of the client's fault, a code, words.
fn refused(problem: &Problem) {
    assert!((400..500).contains(&problem.status), "{problem:?}");
    assert!(!problem.code.is_empty() && !problem.detail.is_empty(), "{problem:?}");
    assert!(
        problem.detail.len() < 16 << 10,
        "a stranger's text comes back at length: {}",
        problem.detail.len()
    );
}

fn start_body(bytes: &[u8]) -> Result<(), Refused> {
    let [_, tag, version, inputs, run_key, on_conflict] =
        body::members(bytes, ["workflow", "tag", "version", "inputs", "run_key", "on_conflict"])?;
    body::only_text("tag", tag)?;
    body::text("version", version)?;
    let run_key = body::only_text("run_key", run_key)?;
    start::business_key(run_key, body::only_text("on_conflict", on_conflict)?)?;
    if let Some(inputs) = inputs {
        let text = inputs.to_json();
        let again: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        assert_eq!(again, inputs, "{text}");
    }
    Ok(())
}

fn poll_body(bytes: &[u8]) -> Result<(), Refused> {
    let [queues, workspaces, max, wait, worker] =
        body::members(bytes, ["queues", "workspaces", "max", "wait_ms", "worker"])?;
    let most = limits::POLL_WAIT_MILLIS_MAX;
    assert!(workers::number("wait_ms", wait, most, 0)? <= most);
    workers::number("max", max, limits::POLL_JOBS_MAX as u64, 1)?;
    let queues = workers::texts("queues", queues, (limits::POLL_QUEUES_MAX, "poll_queues_max"))?;
    assert!(queues.len() <= limits::POLL_QUEUES_MAX);
    workers::texts("workspaces", workspaces, (limits::POLL_WORKSPACES_MAX, "poll_workspaces_max"))?;
    body::text("worker", worker)?;
    Ok(())
}

fn end_body(bytes: &[u8]) -> Result<(), Refused> {
    let [failures, _, error] = body::members(bytes, ["failures", "lease", "error"])?;
    let listed = match &failures {
        Some(Value::List(list)) => list.iter().filter_map(|item| item.get("error")).collect(),
        _ => Vec::new(),
    };
    for error in listed.into_iter().chain(&error) {
        let failure = workers::failure(error);
        assert!(failure.message.chars().count() <= limits::FAILURE_LETTERS_MAX);
    }
    Ok(())
}

fn small_bodies(bytes: &[u8]) -> Result<(), Refused> {
    match batch::ask::read(bytes, &Workspace::DEFAULT) {
        Ok(asked) => assert!(asked.spec.runs_max <= limits::BATCH_RUNS_MAX),
        Err(problem) => refused(&problem),
    }
    let [reason] = body::members(bytes, ["reason"])?;
    body::text("reason", reason)?;
    Ok(())
}

/// The first byte says which body it is, and how it is packed.
pub(crate) fn bodies(bytes: &[u8]) {
    let Some((&kind, rest)) = bytes.split_first() else { return };
    let unpacked = match kind >> 6 {
        0 | 1 => Ok(rest.to_vec()),
        2 => coding::unpack(coding::Coding::Gzip, rest),
        _ => coding::unpack(coding::Coding::Zstd, rest),
    };
    let read = unpacked.and_then(|bytes| {
        assert!(bytes.len() <= limits::REQUEST_BODY_BYTES_MAX);
        match kind & 3 {
            0 => start_body(&bytes),
            1 => poll_body(&bytes),
            2 => end_body(&bytes),
            _ => small_bodies(&bytes),
        }
    });
    if let Err(problem) = read {
        refused(&problem);
    }
}

fn listing(text: &str) -> Result<(), Refused> {
    let Ok(head) = Request::builder().uri(format!("/v1/runs?{text}")).body(()) else { return Ok(()) };
    let (head, ()) = head.into_parts();
    let known =
        ["status", "workflow", "version", "run_key", "started_after", "started_before", "limit", "cursor"];
    let given = request::parameters(&head, known)?;
    let [conditions @ .., limit, cursor] = &given;
    filter::read(&Workspace::DEFAULT, conditions.each_ref().map(Option::as_deref))?;
    let limit = request::page_limit(limit.as_deref())?;
    assert!((1..=limits::PAGE_ROWS_MAX).contains(&limit));
    cursor.as_deref().map(runs::cursor_run).transpose()?;
    Ok(())
}

fn heads(bytes: &[u8]) -> Result<(), Refused> {
    let Ok(value) = http::HeaderValue::from_bytes(bytes) else { return Ok(()) };
    let names = ["idempotency-key", "prefer", "accept", "content-type", "content-encoding"];
    let headers: http::HeaderMap =
        names.into_iter().map(|name| (http::HeaderName::from_static(name), value.clone())).collect();
    let wait = request::prefer_wait(&headers);
    assert!(wait.is_none_or(|seconds| seconds <= limits::WAIT_SECONDS_MAX));
    let _ = request::media_type(&headers);
    if let Err(problem) = request::require_accept(&headers, "application/json") {
        refused(&problem);
    }
    coding::check(&headers).or_else(|problem| {
        refused(&problem);
        Ok::<(), Refused>(())
    })?;
    request::idempotency_key(&headers).map(drop)
}

/// Parameters of a query, segments of a path, values of headers.
pub(crate) fn parameters(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        if let Err(problem) = listing(text) {
            refused(&problem);
        }
        let _ = request::percent_decoded(text, false);
        if let Err(problem) = request::run_id(text) {
            refused(&problem);
        }
    }
    if let Err(problem) = heads(bytes) {
        refused(&problem);
    }
}
