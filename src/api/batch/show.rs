//! Batches as JSON.

use serde_json::{Map, Value as Json, json};

use crate::model::batch::{Batch, Spec, State};
use crate::model::workspace::shown;
use crate::model::{RunFilter, RunId, Status};

/// The conditions as a request gives them; those that were not given are left out.
fn filter(filter: &RunFilter) -> Json {
    let statuses: Vec<&str> = filter.statuses.iter().copied().map(Status::as_str).collect();
    let texts = [
        ("status", (!statuses.is_empty()).then(|| statuses.join(","))),
        ("workflow", filter.workflow.as_deref().map(|name| shown(name).to_owned())),
        ("version", filter.version.as_deref().map(str::to_owned)),
        ("run_key", filter.run_key.as_deref().map(str::to_owned)),
        ("started_after", filter.started_after.map(|at| at.to_string())),
        ("started_before", filter.started_before.map(|at| at.to_string())),
    ];
    let given = texts.into_iter().filter_map(|(name, text)| Some((name.to_owned(), Json::from(text?))));
    Json::Object(given.collect::<Map<_, _>>())
}

/// What a dry run tells.
pub(super) fn counted(spec: &Spec, (matched, skipped, more): (u64, u64, bool), runs: &[RunId]) -> Json {
    json!({
        "dry_run": true,
        "action": spec.action.as_str(),
        "filter": filter(&spec.filter),
        "limit": spec.runs_max,
        "matched": matched,
        "skipped": skipped,
        "more": more,
        "runs": runs.iter().map(ToString::to_string).collect::<Vec<_>>(),
    })
}

/// All of it.
pub(super) fn whole(batch: &Batch) -> Json {
    let (spec, counts) = (&batch.spec, &batch.counts);
    let failure = match &batch.state {
        State::Failed { code, detail } => json!({"code": &**code, "detail": &**detail}),
        _ => Json::Null,
    };
    let failures = batch.failures.iter();
    let failures = failures.map(|(run_id, code)| json!({"run_id": run_id.to_string(), "code": &**code}));
    json!({
        "id": batch.id.to_string(),
        "action": spec.action.as_str(),
        "filter": filter(&spec.filter),
        "reason": spec.reason.as_deref(),
        "limit": spec.runs_max,
        "rate_per_second": spec.per_second,
        "by": &*batch.by,
        "state": batch.state.as_str(),
        "matched": counts.matched,
        "done": counts.done,
        "skipped": counts.skipped,
        "failed": counts.failed,
        "limited": batch.limited,
        "waits": batch.waits.as_deref(),
        "failure": failure,
        "failures": failures.collect::<Vec<_>>(),
        "created_at": batch.created_at.to_string(),
        "started_at": batch.started_at.map(|at| at.to_string()),
        "ended_at": batch.ended_at.map(|at| at.to_string()),
    })
}
