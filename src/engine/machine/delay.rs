//! `delay`: lets time pass; output null. Never early, once. What lies in the past is due at once.
//!
//! | phase | input | events | next |
//! | --- | --- | --- | --- |
//! | ready | continue | `node.started`, `node.waiting` with the due time | waiting |
//! | ready | continue, no duration or point in time | `node.started`, `node.failed` `invalid_duration` | failed |
//! | running | continue (cut history) | as for ready, without `node.started` | waiting, failed |
//! | waiting | timer, due | `timer.fired` | fired |
//! | waiting | timer, early | - (stale) | waiting |
//! | fired | continue | `node.completed` | completed |
//! | any other | timer | - (stale) | same |
//! | any | signal | - (for a `wait`, or kept) | same |

use std::time::Duration;

use super::Step;
use crate::engine::env::Surroundings;
use crate::ir::Span;
use crate::limits;
use crate::model::event::{DURATION_MAX, Waiting};
use crate::model::{Failure, Value};
use crate::time::Timestamp;

pub(super) fn step(span: &Span, surroundings: &Surroundings<'_>, now: Timestamp) -> Step {
    let due = match span {
        Span::For(duration) => Ok(now.saturating_add(*duration)),
        Span::ForExpr(template) => {
            let duration = surroundings.fill(template).and_then(|value| duration(&value));
            duration.map(|duration| now.saturating_add(duration))
        }
        Span::Until(template) => surroundings.fill(template).and_then(|value| point(&value, now)),
    };
    match due {
        Ok(due) => Step::Wait(Waiting::Timer { due }),
        Err(failure) => Step::Failed(failure, false),
    }
}

fn invalid(value: &Value, expected: &str) -> Failure {
    let shown = match value {
        Value::List(_) | Value::Map(_) => format!("a {}", value.type_name()),
        value => value.to_json().chars().take(60).collect(),
    };
    let days = limits::DURATION_SECONDS_MAX / (24 * 60 * 60);
    let message = format!("{shown} is no {expected} within {days} days (limit duration_seconds_max)");
    Failure::fatal("invalid_duration", message)
}

/// `90s`, `1h30m`, `PT90S`, `7d`, or a number of seconds. A day has 24 hours.
fn duration(value: &Value) -> Result<Duration, Failure> {
    let duration = match value {
        Value::Int(seconds) => u64::try_from(*seconds).ok().map(Duration::from_secs),
        Value::Float(seconds) => Duration::try_from_secs_f64(*seconds).ok(),
        Value::String(text) => {
            let span = text.parse::<jiff::Span>().ok();
            let days = jiff::SpanRelativeTo::days_are_24_hours();
            span.and_then(|span| span.to_duration(days).ok()).and_then(|span| span.try_into().ok())
        }
        _ => None,
    };
    duration.filter(|duration| *duration <= DURATION_MAX).ok_or_else(|| invalid(value, "duration"))
}

/// RFC 3339. What has passed already is now.
fn point(value: &Value, now: Timestamp) -> Result<Timestamp, Failure> {
    let parsed = value.as_str().and_then(|text| text.parse::<jiff::Timestamp>().ok());
    let micros = parsed.map(|point| u64::try_from(point.as_microsecond()).unwrap_or(0));
    let due = micros.map(|micros| Timestamp::from_micros(micros).max(now));
    due.filter(|due| *due <= now.saturating_add(DURATION_MAX)).ok_or_else(|| invalid(value, "point in time"))
}
