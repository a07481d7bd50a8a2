//! `wait`: waits for a signal; output is its payload. A signal goes to one waiter, the one that has waited longest; one
//! that comes before anyone waits is kept, first in, first out.
//!
//! | phase | input | events | next |
//! | --- | --- | --- | --- |
//! | ready | continue, none kept | `node.started`, `node.waiting` | waiting |
//! | ready | continue, one kept | `node.started`, `node.waiting`; the oldest is handed over | handed |
//! | ready | continue, no name | `node.started`, `node.failed` `invalid_signal` | failed |
//! | running | continue (cut history) | as for ready, without `node.started` | as for ready |
//! | waiting | its signal | `signal.received` for it | handed |
//! | handed | continue | `node.completed` with the payload | completed |
//! | waiting | timer, due | `timer.fired` | fired |
//! | waiting | timer, early | - (stale) | waiting |
//! | fired | continue | `node.failed` `wait_timeout`; `timeout` edges live | failed |
//! | any other | signal | - (for another, or kept) | same |
//! | any other | timer | - (stale) | same |

use std::time::Duration;

use super::Step;
use crate::engine::Outcome;
use crate::engine::env::Surroundings;
use crate::engine::run::Run;
use crate::ir::Template;
use crate::limits;
use crate::model::event::Waiting;
use crate::model::{EventBody, Failure, Value};
use crate::time::Timestamp;

pub(super) fn step(
    signal: &Template,
    timeout: Option<Duration>,
    surroundings: &Surroundings<'_>,
    now: Timestamp,
) -> Step {
    let problem = match surroundings.fill(signal) {
        Ok(Value::String(name)) if !name.is_empty() && name.len() <= limits::NAME_BYTES_MAX => {
            return Step::Wait(Waiting::Signal {
                name,
                due: timeout.map(|timeout| now.saturating_add(timeout)),
            });
        }
        Ok(Value::String(name)) => format!("a text of {} bytes", name.len()),
        Ok(other) => format!("a {}", other.type_name()),
        Err(failure) => return Step::Failed(failure, false),
    };
    let most = limits::NAME_BYTES_MAX;
    let message = format!("{problem} names no signal; 1 to {most} bytes of text do (limit name_bytes_max)");
    Step::Failed(Failure::fatal("invalid_signal", message), false)
}

pub(super) fn timed_out() -> Step {
    Step::Failed(Failure::fatal("wait_timeout", "no signal came in time"), true)
}

/// A signal has come, for the node that has waited longest for it, or to be kept while there is room.
pub(in crate::engine) fn signal(run: &Run, name: &str, payload: &Value, out: &mut Outcome) {
    if run.signal_limit(name, payload).is_some() {
        out.stale = true;
        return;
    }
    let waiter = run.waiter(name).cloned();
    out.push(EventBody::SignalReceived { name: name.into(), payload: payload.clone(), waiter });
}

impl Run {
    /// The limit that stands against this signal, by name: it would have to be kept, and there is no room. Such a signal
    /// is dropped; whoever acknowledges signals asks first.
    pub fn signal_limit(&self, name: &str, payload: &Value) -> Option<&'static str> {
        if self.waiter(name).is_some() {
            return None;
        }
        if self.kept.len() >= limits::SIGNALS_KEPT_MAX {
            return Some("signals_kept_max");
        }
        let bytes = self.value_bytes().saturating_add(payload.weight());
        (bytes > limits::RUN_VALUE_BYTES_MAX).then_some("run_value_bytes_max")
    }
}
