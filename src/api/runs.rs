//! Runs: one in full, a page of them, cancel, and what else is asked of one as a whole.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use http::request::Parts;
use http::{HeaderName, Response, StatusCode, header};

use super::ports::Location;
use super::request::Incoming;
use super::respond::{self, Body, bytes, json, with};
use super::services::{Services, blocking, unexpected};
use super::{admission, approvals, body, conditions, filter, request, waits};
use crate::engine::command::{Command, ListQuery, Refusal, Reply, RunView, Verb};
use crate::limits;
use crate::model::{EventBody, RunId, RunSummary, Seq, Status, Value, kept};
use crate::telemetry::log::{self, Target};
use crate::time::Clock as _;
use crate::wire::problem::Problem;
use crate::wire::run::{Full, Line, Page};
use crate::wire::{self, Hash, Shown};

type Answer = Result<Response<Body>, Box<Problem>>;

/// `GET /v1/runs/{id}`
pub(super) async fn get(services: &Services, head: &Parts, run_id: RunId) -> Answer {
    request::require_accept(&head.headers, "application/json")?;
    let wait = request::prefer_wait(&head.headers);
    let ended = match wait {
        Some(seconds) => ended_within(services, run_id, seconds).await,
        None => None,
    };
    let applied = ended.is_some();
    let view = match ended {
        Some(view) => view,
        None => view(services, run_id).await?,
    };
    super::catalog::at_hand(services, &view.document).await?;
    let view = waits::since(services, view).await?;
    let tag = conditions::tag(view.summary.seq);
    // How many are ahead of a pending run changes without an event of its own.
    let known = conditions::known(&head.headers, &tag).filter(|_| view.summary.status != Status::Pending);
    let response = match known {
        Some(known) => respond::not_modified(&known),
        None => with(whole(services, &view), header::ETAG, tag),
    };
    let preferred = HeaderName::from_static("preference-applied");
    Ok(if applied { with(response, preferred, super::start::preference(wait)) } else { response })
}

/// A run in full, wherever it is.
pub(super) async fn view(services: &Services, run_id: RunId) -> Result<RunView, Box<Problem>> {
    match services.ask(run_id, Command::Get(run_id)).await? {
        Reply::Run(view) => Ok(*view),
        Reply::Refused(Refusal::NotFound(_)) => {
            let location = services.finished(run_id).await?;
            finished_view(services, location).await
        }
        other => Err(unexpected(other)),
    }
}

/// A run in full, with the outputs themselves wherever they are kept: what another run goes on with.
pub(super) async fn outcome(services: &Services, run_id: RunId) -> Result<RunView, Box<Problem>> {
    match services.ask(run_id, Command::Get(run_id)).await? {
        Reply::Run(view) => Ok(*view),
        Reply::Refused(Refusal::NotFound(_)) => {
            let location = services.finished(run_id).await?;
            let mut view = finished_view(services, location.clone()).await?;
            let runs = services.runs.clone();
            if let Some(last) = services.read(move || runs.last_event(&location)).await?
                && let EventBody::RunCompleted { outputs } = last.body
            {
                view.outputs = Some(outputs);
            }
            Ok(view)
        }
        other => Err(unexpected(other)),
    }
}

/// The run once it has ended; `None` when the time is up first, or it cannot be told.
pub(super) async fn ended_within(services: &Services, run_id: RunId, seconds: u64) -> Option<RunView> {
    let asked = services.ask(run_id, Command::AwaitEnd(run_id));
    match tokio::time::timeout(Duration::from_secs(seconds), asked).await {
        Ok(Ok(Reply::Run(view))) if view.summary.status.is_terminal() => Some(*view),
        Ok(Ok(Reply::Refused(Refusal::NotFound(_)))) => {
            let location = services.finished(run_id).await.ok()?;
            finished_view(services, location).await.ok()
        }
        // Too many wait for it already, or its shard is in trouble: the caller gets what is known without waiting.
        _ => None,
    }
}

/// What a finished run was given and gave stands in its first and last event.
async fn finished_view(services: &Services, location: Location) -> Result<RunView, Box<Problem>> {
    let runs = services.runs.clone();
    services
        .read(move || {
            let mut view = RunView {
                summary: location.summary.clone(),
                document: location.document,
                layered: None,
                inputs: Value::Null,
                outputs: None,
                failure: None,
                failed_node: None,
                current_nodes: Vec::new(),
                deadline: None,
                parent: None,
                admission: None,
                reviews: Vec::new(),
                pauses: Vec::new(),
                kept: None,
                origin: None,
            };
            // run.started, and what comes with it: run.linked or run.keyed, mode.changed, run.layered.
            let mut events = runs.events(&location, 0, 4)?;
            events.extend(runs.events(&location, location.summary.seq.saturating_sub(1), 1)?);
            for event in events {
                match event.body {
                    EventBody::RunStarted(started) => {
                        view.inputs = started.inputs;
                        view.deadline = started.deadline;
                    }
                    EventBody::RunLayered(layered) => view.layered = Some(layered),
                    EventBody::RunLinked { parent } => view.parent = Some(parent.run_id),
                    EventBody::RunCompleted { outputs } => view.outputs = Some(outputs),
                    EventBody::RunFailed { failure, place } => {
                        view.failure = Some(failure);
                        // Without its graph the path stays unsaid; the failure does not.
                        let graph = place.as_ref().and_then(|_| runs.graph(&location).ok().flatten());
                        view.failed_node = graph.zip(place).map(|(graph, place)| graph.path(&place));
                    }
                    _ => {}
                }
            }
            if let Some(forked) = runs.forked(&location)? {
                super::replay::forked(&mut view, *forked);
            }
            Ok::<_, super::ports::StorageError>(view)
        })
        .await
}

/// The answer about a run in full, with references where its values are kept by reference.
pub(super) fn whole_with(view: &RunView, body: &impl serde::Serialize) -> Response<Body> {
    kept::naming(view.kept.as_ref(), || json(StatusCode::OK, body))
}

/// The answer about a run in full.
pub(super) fn whole(services: &Services, view: &RunView) -> Response<Body> {
    whole_with(view, &full(services, view))
}

/// The body of a run in full.
pub(super) fn full<'a>(services: &'a Services, view: &'a RunView) -> Full<'a> {
    Full {
        line: Line::new(&view.summary, &services.durability),
        hash: Hash(&view.document).to_string(),
        layered: view.layered.as_deref().map(Into::into),
        policy: services.catalog.policy_of(&view.document),
        inputs: &view.inputs,
        outputs: view.outputs.as_ref(),
        error: Full::error(view.failure.as_ref()),
        failed_node: view.failed_node.as_deref(),
        current_nodes: &view.current_nodes,
        deadline: view.deadline.map(Shown),
        parent: view.parent.map(Shown),
        forked: view.origin.map(|origin| wire::run::Forked::new(origin.run_id, origin.seq, origin.replay)),
        waiting: waits::of_run(services, &view.summary, view.admission.as_ref()),
        approvals: approvals(view),
        pauses: waits::pauses(view),
    }
}

/// What humans are asked.
fn approvals(view: &RunView) -> Vec<wire::approval::Line<'_>> {
    let summary = &view.summary;
    view.reviews.iter().map(|review| approvals::line(summary.run_id, &summary.workflow, review)).collect()
}

/// What a listing may be asked for, as in its query.
const LIST_PARAMETERS: [&str; 8] =
    ["status", "workflow", "version", "run_key", "started_after", "started_before", "limit", "cursor"];

/// `GET /v1/runs`
pub(super) async fn list(services: &Services, head: &Parts) -> Answer {
    request::require_accept(&head.headers, "application/json")?;
    let given = request::parameters(head, LIST_PARAMETERS)?;
    let [status, workflow, version, run_key, after, before, limit, cursor] = &given;
    let conditions = [status, workflow, version, run_key, after, before].map(Option::as_deref);
    let before = cursor.as_deref().map(cursor_run).transpose()?;
    let limit = request::page_limit(limit.as_deref())?;
    let Some(filter) = filter::read(admission::workspace(head), conditions)? else {
        // What cannot be a name has no runs.
        return Ok(json(StatusCode::OK, &Page { runs: Vec::new(), next_cursor: None }));
    };
    let query = ListQuery { before, filter, limit };
    let (runs, next_cursor) = whole_page(services, &query).await?;
    let lines = runs.iter().map(|run| Line::new(run, &services.durability)).collect();
    let response = json(StatusCode::OK, &Page { runs: lines, next_cursor: next_cursor.map(Shown) });
    let Some(next) = next_cursor else { return Ok(response) };
    let mut link = format!("</v1/runs?cursor={next}&limit={}", query.limit);
    let conditions =
        LIST_PARAMETERS.iter().zip(&given).filter(|(name, _)| !["limit", "cursor"].contains(*name));
    for (name, value) in conditions {
        if let Some(value) = value {
            link.push_str(&format!("&{name}={}", percent_encoded(value)));
        }
    }
    Ok(with(response, header::LINK, format!("{link}>; rel=\"next\"")))
}

/// A page, newest first, and where the next one begins. Runs that do not fit are looked through, up to a bound: then the
/// page is shorter than asked for, and its cursor goes on behind them.
pub(super) async fn whole_page(
    services: &Services,
    asked: &ListQuery,
) -> Result<(Vec<RunSummary>, Option<RunId>), Box<Problem>> {
    let mut query = asked.clone();
    let mut found: Vec<RunSummary> = Vec::new();
    for _ in 0..limits::LIST_ROUNDS_MAX {
        let (page, next) = page(services, &query).await?;
        found.extend(page);
        let Some(next) = next else { return Ok((found, None)) };
        query.before = Some(next);
        query.limit = asked.limit.saturating_sub(found.len());
        if query.limit == 0 {
            break;
        }
    }
    Ok((found, query.before))
}

/// At most a page of what fits, newest first, and from which id on (downwards) nobody has looked yet. Shards are asked
/// before the archive: a run that ends meanwhile is then in both, never in neither, and the archive's word stands.
async fn page(
    services: &Services,
    query: &ListQuery,
) -> Result<(Vec<RunSummary>, Option<RunId>), Box<Problem>> {
    let asked = ListQuery { limit: query.limit + 1, ..query.clone() };
    let now_us = services.clock.monotonic_us();
    let mut pending = Vec::with_capacity(usize::from(services.gate.shards()));
    for shard in 0..services.gate.shards() {
        pending.push(services.gate.send(shard, Command::List(asked.clone()), now_us)?);
    }
    let mut found: BTreeMap<Reverse<RunId>, RunSummary> = BTreeMap::new();
    for answer in pending {
        match answer.await? {
            Reply::List(runs) => found.extend(runs.into_iter().map(|run| (Reverse(run.run_id), run))),
            other => return Err(unexpected(other)),
        }
    }
    let runs = services.runs.clone();
    let (archived, stopped_at) = services.read(move || runs.list(&asked)).await?;
    found.extend(archived.into_iter().map(|run| (Reverse(run.run_id), run)));
    let looked_at = |run: &RunSummary| stopped_at.is_none_or(|last| run.run_id >= last);
    let mut found: Vec<RunSummary> = found.into_values().take_while(looked_at).collect();
    if found.len() > query.limit {
        found.truncate(query.limit);
        let last = found.last().map(|run| run.run_id);
        return Ok((found, last));
    }
    Ok((found, stopped_at))
}

pub(super) fn cursor_run(text: &str) -> Result<RunId, Box<Problem>> {
    text.parse().map_err(|_| {
        Problem::new(
            400,
            "invalid_cursor",
            format!("cursor {text:?} did not come from this listing's next_cursor"),
        )
    })
}

pub(super) fn percent_encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                char::from(byte).to_string()
            }
            byte => format!("%{byte:02X}"),
        })
        .collect()
}

/// `POST /v1/runs/{id}/{pause|resume|cancel|terminate}`
pub(super) async fn steer(
    services: &Services,
    head: &Parts,
    incoming: Incoming,
    (run_id, verb): (RunId, Verb),
) -> Answer {
    let expected = conditions::expected(&head.headers)?;
    let bytes = request::body(head, incoming).await?;
    let reason = if bytes.is_empty() {
        None
    } else {
        request::require_json(&head.headers)?;
        let [reason] = body::members(&bytes, ["reason"])?;
        body::text("reason", reason)?
    };
    let reason = reason.unwrap_or_default();
    if reason.len() > limits::REASON_BYTES_MAX {
        let detail = format!("a reason of {} bytes; at most {}", reason.len(), limits::REASON_BYTES_MAX);
        return Err(Problem::new(422, "limit_exceeded", detail).limit("reason_bytes_max"));
    }
    let command = match verb {
        Verb::Pause => Command::Pause { run_id, reason },
        Verb::Resume | Verb::Raise => Command::Resume(run_id),
        Verb::Cancel => Command::Cancel { run_id, reason },
        Verb::Terminate => Command::Terminate { run_id, reason },
    };
    changed(services, (run_id, command), expected).await
}

/// Asks for a change of a run, if it is as expected. 202 while the run goes on, 200 once it has ended, 409 when it had
/// before, 412 when it is not as expected.
pub(super) async fn changed(
    services: &Services,
    (run_id, command): (RunId, Command),
    expected: Option<Vec<Seq>>,
) -> Answer {
    match services.ask(run_id, command.guarded(run_id, expected.clone())).await? {
        Reply::Accepted(run) => Ok(accepted(services, &run)),
        Reply::Refused(Refusal::NotFound(_)) => Err(over(services, run_id, expected).await?),
        other => Err(unexpected(other)),
    }
}

/// The answer about a run that was changed.
pub(super) fn accepted(services: &Services, run: &RunSummary) -> Response<Body> {
    let status = if run.status.is_terminal() { StatusCode::OK } else { StatusCode::ACCEPTED };
    let line = json(status, &Line::new(run, &services.durability));
    with(line, header::ETAG, conditions::tag(run.seq))
}

/// Why a run that its owner does not know is not changed: it has ended, and does not change any more.
pub(super) async fn over(
    services: &Services,
    run_id: RunId,
    expected: Option<Vec<Seq>>,
) -> Result<Box<Problem>, Box<Problem>> {
    let RunSummary { status, seq, .. } = services.finished(run_id).await?.summary;
    let refusal = match expected {
        Some(seqs) if !seqs.contains(&seq) => Refusal::Changed { run_id, seq },
        _ => Refusal::Finished { run_id, status },
    };
    Ok(unexpected(Reply::Refused(refusal)))
}

/// `DELETE /v1/runs/{id}`
pub(super) async fn erase(
    services: &Services,
    head: &Parts,
    run_id: RunId,
) -> Result<Response<Body>, Box<Problem>> {
    forget(services, run_id, admission::who(head)).await?;
    let mut response = bytes(StatusCode::NO_CONTENT, "application/json", "");
    response.headers_mut().remove(header::CONTENT_TYPE);
    Ok(response)
}

/// Forgets a run that has ended, for `who`.
pub(super) async fn forget(services: &Services, run_id: RunId, who: &str) -> Result<(), Box<Problem>> {
    if let Reply::Located(located) = services.ask(run_id, Command::Locate(run_id)).await? {
        // One that has just ended is on its way to the index.
        let detail = format!(
            "run {run_id} is {}; only a run that has ended is erased",
            located.summary.status.as_str()
        );
        return Err(Problem::new(409, "run_unfinished", detail));
    }
    let runs = services.runs.clone();
    if !blocking(move || runs.erase(run_id)).await?? {
        return Err(Problem::new(404, "run_not_found", format!("no run {run_id}")));
    }
    log::info(Target::Api, format_args!("audit: run erased run_id={run_id} by={who:?}"));
    Ok(())
}
