//! Batches as clients see them: one action on every run that fits a filter, made, looked at, stopped.
//!
//! A batch belongs to a workspace, and does not exist for others. It is durable before it is answered; what it does is done by
//! [`drive`], on one core, one batch of a workspace at a time. Its row is changed by whoever drives it and by whoever stops it, each by
//! one read and write that nobody comes between. No room for another: 422 or 429, and nothing was stored.

mod act;
pub(super) mod ask;
mod drive;
mod show;

use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::{Method, Response, StatusCode, header};
use sha2::{Digest as _, Sha256};

pub use self::drive::run_batches;

use self::ask::Asked;
use super::request::Incoming;
use super::respond::{Body, json, with};
use super::services::Services;
use super::{admission, allow, keys, no_route, request, runs, schedules, triggers};
use crate::engine::command::ListQuery;
use crate::limits;
use crate::model::batch::{Batch, BatchId, Listed, Spec, State};
use crate::model::{RunId, Workspace};
use crate::store::triggers::{Change, Table};
use crate::telemetry::log::{self, Target};
use crate::time::Clock as _;
use crate::wire::problem::Problem;

type Refused = Box<Problem>;
type Answer = Result<Response<Body>, Refused>;

/// What is served below `/v1/batch`.
pub(super) async fn route(services: &Services, head: &Parts, incoming: Incoming, rest: &[&str]) -> Answer {
    match rest {
        [] => {
            allow(head, "GET, HEAD, POST")?;
            if head.method == Method::POST {
                return create(services, head, incoming).await;
            }
            list(services, head).await
        }
        [id] => {
            allow(head, "GET, HEAD, DELETE")?;
            if head.method == Method::DELETE {
                return stop(services, head, id).await;
            }
            let found = triggers::get(&services.triggers, Table::Batches, own_key(head, id)?).await?;
            let batch: Batch = found.ok_or_else(|| no_batch(id))?;
            Ok(json(StatusCode::OK, &show::whole(&batch)))
        }
        _ => Err(no_route(head.uri.path())),
    }
}

fn no_batch(id: &str) -> Refused {
    let id: String = id.chars().take(64).collect();
    Problem::new(404, "batch_not_found", format!("there is no batch {id:?}"))
}

fn key(workspace: &Workspace, id: BatchId) -> Vec<u8> {
    triggers::key(workspace, &id.newest_first())
}

/// The key of an id in the caller's workspace.
fn own_key(head: &Parts, id: &str) -> Result<Vec<u8>, Refused> {
    let parsed = id.parse().map_err(|_| no_batch(id))?;
    Ok(key(admission::workspace(head), parsed))
}

/// `POST /v1/batch`
async fn create(services: &Services, head: &Parts, incoming: Incoming) -> Answer {
    request::require_json(&head.headers)?;
    services.refuse_when_stopping()?;
    let given = request::idempotency_key(&head.headers)?.map(|given| {
        let hash = Sha256::new_with_prefix(b"batch\0").chain_update(given).finalize();
        hash.first_chunk().copied().unwrap_or_default()
    });
    let bytes = request::body(head, incoming).await?;
    let workspace = admission::workspace(head).clone();
    let Asked { spec, dry_run } = ask::read(&bytes, &workspace)?;
    if dry_run {
        return count(services, &spec).await;
    }
    make_room(services, &workspace).await?;
    let now = services.clock.now();
    let id = BatchId::new(now, services.random());
    let batch = Batch::new((id, now), spec, (admission::who(head).into(), given));
    let (batch, created) = store(services, &workspace, batch).await?;
    let id = batch.id;
    if created {
        let (who, action) = (&batch.by, batch.spec.action.as_str());
        log::info(Target::Api, format_args!("audit: batch created id={id} action={action} by={who:?}"));
        // Runs that are made after the answer have a later id than the batch looks at.
        while services.clock.now().as_millis() <= now.as_millis() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        services.triggers.batches.notify_one();
    }
    let answer = json(StatusCode::ACCEPTED, &show::whole(&batch));
    let answer = with(answer, header::LOCATION, format!("/v1/batch/{id}"));
    Ok(if created { answer } else { keys::replayed(answer) })
}

/// Puts it into its place, unless its key made another before.
async fn store(services: &Services, workspace: &Workspace, batch: Batch) -> Result<(Batch, bool), Refused> {
    let (shared, workspace) = (services.triggers.clone(), workspace.clone());
    let own = key(&workspace, batch.id);
    triggers::update(&services.triggers, Table::Batches, own, move |_| {
        let kept = triggers::all(&shared, Table::Batches, &workspace, limits::BATCHES_PER_WORKSPACE_MAX)?;
        let mut unfinished = 0;
        for row in &kept {
            let mut known: Batch = triggers::decode(row)?;
            known.spec.filter.workspace = workspace.clone();
            if batch.key.is_some() && known.key == batch.key {
                return again(known, &batch.spec).map(|known| (Change::Keep, (known, false)));
            }
            unfinished += usize::from(!known.state.is_over());
        }
        if kept.len() >= limits::BATCHES_PER_WORKSPACE_MAX || unfinished >= limits::BATCHES_UNFINISHED_MAX {
            return Err(full(unfinished));
        }
        let look_at = Some(batch.created_at);
        Ok((Change::Put { row: triggers::encode(&batch), look_at }, (batch, true)))
    })
    .await
}

/// The batch that a key has made, when the same is asked for.
fn again(known: Batch, asked: &Spec) -> Result<Batch, Refused> {
    if known.spec == *asked {
        return Ok(known);
    }
    let detail = format!("this Idempotency-Key made {} with another request", known.id);
    Err(Problem::new(422, "idempotency_key_reused", detail))
}

fn full(unfinished: usize) -> Refused {
    let detail = format!("{unfinished} batches of this workspace are not over; wait, or stop one");
    let mut problem = Problem::new(429, "limit_reached", detail).limit("batches_unfinished_max");
    problem.retryable = true;
    problem.outcome = Some("not_applied".into());
    problem.retry_after_ms = Some(limits::BATCH_RETRY_MILLIS_MAX);
    problem
}

/// Lets the oldest batches go that are over, so that there is room for one more.
async fn make_room(services: &Services, workspace: &Workspace) -> Result<(), Refused> {
    let place = (workspace, "");
    let most = limits::BATCHES_PER_WORKSPACE_MAX;
    let kept: Vec<Batch> = triggers::page(&services.triggers, Table::Batches, place, most).await?;
    let too_many = (kept.len() + 1).saturating_sub(most);
    let over = kept.iter().rev().filter(|batch| batch.state.is_over()).take(too_many);
    for batch in over {
        let removed = triggers::update(&services.triggers, Table::Batches, key(workspace, batch.id), |_| {
            Ok((Change::Remove, ()))
        });
        removed.await?;
    }
    Ok(())
}

/// What a batch would do, as far as that can be told without doing it.
async fn count(services: &Services, spec: &Spec) -> Answer {
    let most = spec.runs_max.min(limits::BATCH_COUNTED_RUNS_MAX);
    let (mut before, mut matched, mut skipped, mut more) = (None, 0, 0, true);
    let mut shown: Vec<RunId> = Vec::new();
    while more && matched < most {
        let room = usize::try_from(most - matched).unwrap_or(usize::MAX).min(limits::PAGE_ROWS_MAX);
        let listed = listed(services, spec, (before, room)).await?;
        matched += listed.page.len() as u64 + listed.skipped;
        skipped += listed.skipped;
        shown.extend(listed.page.into_iter().take(limits::BATCH_SHOWN_RUNS.saturating_sub(shown.len())));
        (before, more) = (listed.next, listed.next.is_some());
    }
    Ok(json(StatusCode::OK, &show::counted(spec, (matched, skipped, more), &shown)))
}

/// The next runs that fit, newest first: those that the action is for, and how many it is not for.
async fn listed(
    services: &Services,
    spec: &Spec,
    (before, limit): (Option<RunId>, usize),
) -> Result<Listed, Refused> {
    let mut filter = spec.filter.clone();
    if filter.statuses.is_empty() {
        filter.statuses = spec.action.statuses().to_vec();
    }
    let (found, next) = runs::whole_page(services, &ListQuery { before, filter, limit }).await?;
    let all = found.len();
    let page: Vec<RunId> =
        found.iter().filter(|run| spec.action.fits(run.status)).map(|run| run.run_id).collect();
    Ok(Listed { skipped: (all - page.len()) as u64, page, next })
}

/// `GET /v1/batch`
async fn list(services: &Services, head: &Parts) -> Answer {
    let [limit, cursor] = request::parameters(head, ["limit", "cursor"])?;
    let limit = request::page_limit(limit.as_deref())?;
    let after = match cursor.as_deref() {
        None => String::new(),
        Some(text) => text.parse::<BatchId>().map(BatchId::newest_first).map_err(|_| {
            let text: String = text.chars().take(64).collect();
            let detail = format!("cursor {text:?} did not come from this listing's next_cursor");
            Problem::new(400, "invalid_cursor", detail)
        })?,
    };
    let place = (admission::workspace(head), after.as_str());
    let mut rows: Vec<Batch> = triggers::page(&services.triggers, Table::Batches, place, limit + 1).await?;
    let more = rows.len() > limit;
    rows.truncate(limit);
    let next = rows.last().filter(|_| more).map(|last| last.id.to_string());
    let shown: Vec<_> = rows.iter().map(show::whole).collect();
    let page = json(StatusCode::OK, &serde_json::json!({"batches": shown, "next_cursor": next}));
    Ok(triggers::linked(page, ("/v1/batch", limit), next.as_deref()))
}

/// `DELETE /v1/batch/{id}`: stops one that is not over, removes one that is.
async fn stop(services: &Services, head: &Parts, id: &str) -> Answer {
    let (own, owned, now) = (own_key(head, id)?, id.to_owned(), services.clock.now());
    let stopped = triggers::update(&services.triggers, Table::Batches, own, move |row| {
        let mut batch: Batch = triggers::decode(row.ok_or_else(|| no_batch(&owned))?)?;
        if batch.state.is_over() {
            return Ok((Change::Remove, None));
        }
        batch.end(State::Cancelled, now);
        Ok((Change::Put { row: triggers::encode(&batch), look_at: None }, Some(batch)))
    });
    let (stopped, who): (Option<Batch>, Arc<str>) = (stopped.await?, admission::who(head).into());
    let what = if stopped.is_some() { "stopped" } else { "removed" };
    log::info(Target::Api, format_args!("audit: batch {what} id={id:?} by={who:?}"));
    // The next in line may begin.
    services.triggers.batches.notify_one();
    Ok(match stopped {
        Some(batch) => json(StatusCode::OK, &show::whole(&batch)),
        None => schedules::nothing(),
    })
}
