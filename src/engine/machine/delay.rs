//! `delay`: lets time pass; output null. Never early, once.
//!
//! | state | input | event | next |
//! | --- | --- | --- | --- |
//! | ready | continue | `node.started`, `node.waiting` with the due time | waiting |
//! | ready | continue, no duration or time | `node.started`, `node.failed` `invalid_duration` | failed |
//! | waiting | timer, due | `timer.fired`, `node.completed` | completed |
//! | waiting | timer, early | - (stale) | waiting |
//! | any other | timer | - (stale) | same |
//! | any | signal | - (kept or given to a `wait`) | same |

use std::time::Duration;

use super::Step;
use crate::engine::env::Surroundings;
use crate::ir::Span;
use crate::limits;
use crate::model::event::Waiting;
use crate::model::{Failure, Value};
use crate::time::Timestamp;

pub(crate) fn step(span: &Span, surroundings: &Surroundings<'_>, now: Timestamp) -> Step {
    let due = match span {
        Span::For(duration) => Ok(now.saturating_add(*duration)),
        Span::ForExpr(template) => {
            surroundings.fill(template).and_then(|value| duration(&value)).map(|duration| now.saturating_add(duration))
        }
        Span::Until(template) => surroundings.fill(template).and_then(|value| point(&value, now)),
    };
    match due {
        Ok(due) => Step::Wait(Waiting::Timer { due }),
        Err(failure) => Step::Failed(failure, false),
    }
}

fn invalid(value: &Value, expected: &str) -> Failure {
    let shown: String = value.to_json().chars().take(80).collect();
    Failure::fatal("invalid_duration", format!("{shown} is no {expected} (limit duration_seconds_max)"))
}

/// `90s`, `PT90S`, or a number of seconds.
fn duration(value: &Value) -> Result<Duration, Failure> {
    let most = Duration::from_secs(limits::DURATION_SECONDS_MAX);
    let duration = match value {
        Value::Int(seconds) => u64::try_from(*seconds).ok().map(Duration::from_secs),
        Value::Float(seconds) => Duration::try_from_secs_f64(*seconds).ok(),
        Value::String(text) => text.parse::<jiff::SignedDuration>().ok().and_then(|span| span.try_into().ok()),
        _ => None,
    };
    duration.filter(|duration| *duration <= most).ok_or_else(|| invalid(value, "duration"))
}

/// RFC 3339. What has passed already is now.
fn point(value: &Value, now: Timestamp) -> Result<Timestamp, Failure> {
    let most = now.saturating_add(Duration::from_secs(limits::DURATION_SECONDS_MAX));
    let parsed = value.as_str().and_then(|text| text.parse::<jiff::Timestamp>().ok());
    let micros = parsed.map(|point| u64::try_from(point.as_microsecond()).unwrap_or(0));
    let due = micros.map(|micros| Timestamp::from_micros(micros).max(now));
    due.filter(|due| *due <= most).ok_or_else(|| invalid(value, "point in time"))
}
