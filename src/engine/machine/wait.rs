//! `wait`: waits for a signal; output is its payload. A signal goes to one waiter, the one that has waited longest; one
//! that comes before anyone waits is kept, first in, first out.
//!
//! | state | input | event | next |
//! | --- | --- | --- | --- |
//! | ready | continue, none kept | `node.started`, `node.waiting` | waiting |
//! | ready | continue, one kept | `node.started`, `node.waiting`, `node.completed` | completed |
//! | ready | continue, no name | `node.started`, `node.failed` `invalid_signal` | failed |
//! | waiting | its signal | `signal.received` for it, `node.completed` | completed |
//! | waiting | timer, due | `timer.fired`, `node.failed` `wait_timeout`; `timeout` edges live | failed |
//! | waiting | timer, early | - (stale) | waiting |
//! | any other | signal | `signal.received`, kept | same |

use std::sync::Arc;
use std::time::Duration;

use super::{Step, end};
use crate::engine::Outcome;
use crate::engine::env::Surroundings;
use crate::engine::run::Run;
use crate::ir::Template;
use crate::model::event::Waiting;
use crate::model::{EventBody, Failure, Value};
use crate::time::Timestamp;

pub(crate) fn step(
    signal: &Template,
    timeout: Option<Duration>,
    surroundings: &Surroundings<'_>,
    now: Timestamp,
) -> Step {
    match surroundings.fill(signal) {
        Ok(Value::String(name)) if !name.is_empty() => {
            Step::Wait(Waiting::Signal { name, due: timeout.map(|timeout| now.saturating_add(timeout)) })
        }
        Ok(other) => {
            let message = format!("a signal's name is text, {} is not", other.type_name());
            Step::Failed(Failure::fatal("invalid_signal", message), false)
        }
        Err(failure) => Step::Failed(failure, false),
    }
}

/// The payload of the first kept signal that a node about to wait would take.
pub(crate) fn kept(run: &Run, waiting: &Waiting) -> Option<Value> {
    let Waiting::Signal { name, .. } = waiting else { return None };
    run.signals.iter().find(|(kept, _)| kept == name).map(|(_, payload)| payload.clone())
}

/// A signal has come.
pub(crate) fn signal(run: &Run, name: &Arc<str>, payload: &Value, out: &mut Outcome) {
    let waiter = run.waiting.iter().find(|(wanted, _)| wanted == name).map(|(_, place)| place.clone());
    out.push(EventBody::SignalReceived { name: name.clone(), payload: payload.clone(), waiter: waiter.clone() });
    if let Some(place) = waiter {
        end(run, &place, Step::Done(payload.clone(), None), out);
    }
}
