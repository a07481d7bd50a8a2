//! Schedules as JSON.

use serde_json::{Value as Json, json};

use crate::limits;
use crate::schedule::{Calendar, Entry, Outcome, Schedule};
use crate::time::Timestamp;

/// A row of a listing.
pub(super) fn line(schedule: &Schedule, now: Timestamp) -> Json {
    let spec = &schedule.spec;
    let calendar = Calendar::parse(&spec.cron, &spec.timezone).ok();
    let next = calendar.and_then(|calendar| schedule.upcoming(&calendar, now, 1).first().copied());
    json!({
        "name": spec.name,
        "workflow": spec.workflow,
        "cron": spec.cron,
        "timezone": spec.timezone,
        "overlap": spec.overlap.as_str(),
        "paused": schedule.paused,
        "next": next.map(|due| due.to_string()),
    })
}

/// All of it.
pub(super) fn whole(schedule: &Schedule, calendar: Option<&Calendar>, now: Timestamp) -> Json {
    let next = calendar.map(|calendar| schedule.upcoming(calendar, now, limits::SCHEDULE_UPCOMING));
    let next: Vec<_> = next.unwrap_or_default().iter().map(Timestamp::to_string).collect();
    let more = json!({
        "id": id(schedule),
        "created_at": schedule.created_at.to_string(),
        "considered": schedule.considered.to_string(),
        "next": next,
        "buffered": schedule.buffered.map(|due| due.to_string()),
        "running": schedule.runs.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "history": schedule.history.iter().rev().map(entry).collect::<Vec<_>>(),
    });
    with(said(schedule), more)
}

/// Both as one object.
fn with(mut shown: Json, more: Json) -> Json {
    if let (Some(shown), Json::Object(more)) = (shown.as_object_mut(), more) {
        shown.extend(more);
    }
    shown
}

/// What its author said, as a request says it.
pub(super) fn said(schedule: &Schedule) -> Json {
    let spec = &schedule.spec;
    json!({
        "name": spec.name,
        "workflow": spec.workflow,
        "inputs": serde_json::from_str::<Json>(&spec.inputs).unwrap_or_default(),
        "cron": spec.cron,
        "timezone": spec.timezone,
        "overlap": spec.overlap.as_str(),
        "catch_up": duration(spec.catch_up_us),
        "jitter": duration(spec.jitter_us),
        "paused": schedule.paused,
    })
}

/// What tells it from one of the same name that was there before.
pub(super) fn id(schedule: &Schedule) -> String {
    format!("sch_{:016x}", schedule.id)
}

/// As a request may say it.
fn duration(micros: u64) -> String {
    if micros.is_multiple_of(1_000_000) {
        format!("{}s", micros / 1_000_000)
    } else {
        format!("{}ms", micros / 1_000)
    }
}

fn entry(entry: &Entry) -> Json {
    let (outcome, more) = match &entry.outcome {
        Outcome::Started { run_id, manual } => {
            ("started", json!({"run_id": run_id.to_string(), "manual": manual}))
        }
        Outcome::Skipped => ("skipped", json!({})),
        Outcome::Buffered => ("buffered", json!({})),
        Outcome::Missed { more } => ("missed", json!({"more": more})),
        Outcome::Failed { code, detail } => {
            ("failed", json!({"failure": {"code": &**code, "detail": &**detail}}))
        }
    };
    let shown = json!({
        "due": entry.due.to_string(),
        "until": entry.until.to_string(),
        "count": entry.count,
        "at": entry.at.to_string(),
        "outcome": outcome,
    });
    with(shown, more)
}
