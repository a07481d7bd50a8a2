//! `wait`: waits for a signal; output is its payload. A signal goes to one waiter, the one that has waited longest; one
//! that comes before anyone waits is kept, first in, first out. An update is a signal that is never kept: whoever brings
//! it asks first ([`Run::awaited`]).
//!
//! What a payload must look like (`accepts`) is judged by whoever acknowledges signals, so that one that does not fit is
//! refused. One that was kept meets the schema when its node begins, and fails the node.
//!
//! | phase | input | events | next |
//! | --- | --- | --- | --- |
//! | ready | continue, none kept | `node.started`, `node.waiting` | waiting |
//! | ready | continue, one kept | `node.started`, `node.waiting`; the oldest is handed over | handed |
//! | ready | continue, no name | `node.started`, `node.failed` `invalid_signal` | failed |
//! | running | continue (cut history) | as for ready, without `node.started` | as for ready |
//! | waiting | its signal | `signal.received` for it | handed |
//! | handed | continue | `node.completed` with the payload | completed |
//! | handed | continue, the payload does not fit `accepts` | `node.failed` `payload_invalid` | failed |
//! | waiting | timer, due | `timer.fired` | fired |
//! | waiting | timer, early | - (stale) | waiting |
//! | fired | continue | `node.failed` `wait_timeout`; `timeout` edges live | failed |
//! | any other | signal | - (for another, or kept) | same |
//! | any other | timer | - (stale) | same |

use std::sync::Arc;
use std::time::Duration;

use super::{Step, Way};
use crate::engine::Outcome;
use crate::engine::env::Surroundings;
use crate::engine::route::graph_node;
use crate::engine::run::Run;
use crate::engine::scope::Phase;
use crate::ir::{Kind, Schema, Template, Violation};
use crate::limits;
use crate::model::event::{Done, Idempotency, Waiting};
use crate::model::{EventBody, Failure, Place, Value};
use crate::time::Timestamp;

/// A node that a signal would go to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Awaited {
    /// Which.
    pub place: Place,
    /// The node whose output answers an update; the node itself when its document names none.
    pub reply: Place,
}

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

/// What was handed over is the output, if it fits.
pub(super) fn handed(accepts: Option<&Schema>, payload: &Value) -> Step {
    let Some(Err(found)) = accepts.map(|schema| schema.check(payload, 1)) else {
        return Step::Done(payload.clone(), Way::Plain);
    };
    let first = found.into_iter().next();
    let (pointer, message) = first.map_or_else(Default::default, |first| (first.pointer, first.message));
    let pointer = if pointer.is_empty() { String::from("what the signal brings") } else { pointer };
    Step::Failed(Failure::fatal("payload_invalid", format!("{pointer}: {message} (accepts)")), false)
}

/// A signal has come, for the node that has waited longest for it, or to be kept while there is room. One with a key is
/// remembered in the same step.
pub(in crate::engine) fn signal(
    run: &Run,
    (name, payload): (&str, &Value),
    key: Option<&Idempotency>,
    out: &mut Outcome,
) {
    if run.signal_limit(name, payload).is_some() {
        out.stale = true;
        return;
    }
    let taken = run.awaited(name).map(|awaited| (awaited.place, awaited.reply));
    let waiter = taken.as_ref().map(|(place, _)| place.clone());
    out.push(EventBody::SignalReceived { name: name.into(), payload: payload.clone(), waiter });
    if let Some(key) = key {
        out.push(run.remember(key.clone(), Done::Signal { seq: run.seq() + 1, taken }));
    }
}

impl Run {
    /// The node that a signal of this name would go to now.
    pub fn awaited(&self, name: &str) -> Option<Awaited> {
        let place = self.waiter(name)?;
        let reply = match graph_node(self, place).map(|node| &node.kind) {
            Some(Kind::Wait { reply: Some(reply), .. }) => {
                Place { scopes: place.scopes.clone(), node: *reply }
            }
            _ => place.clone(),
        };
        Some(Awaited { place: place.clone(), reply })
    }

    /// Has the node at this place what it waited for, so that its end comes next?
    pub fn is_handed(&self, place: &Place) -> bool {
        self.node(place).is_some_and(|node| node.phase == Phase::Handed)
    }

    /// Names of signals that somebody waits for now, in order, at most so many.
    pub fn awaited_names(&self, count_max: usize) -> Vec<Arc<str>> {
        let names = self.waiting.keys().filter(|name| self.waiter(name).is_some());
        names.take(count_max).cloned().collect()
    }

    /// Where this payload does not fit what the node at `place` accepts; empty when it does.
    pub fn unfit(&self, place: &Place, payload: &Value) -> Vec<Violation> {
        match graph_node(self, place).map(|node| &node.kind) {
            Some(Kind::Wait { accepts: Some(schema), .. }) => {
                schema.check(payload, limits::DIAGNOSTICS_MAX).err().unwrap_or_default()
            }
            _ => Vec::new(),
        }
    }

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
