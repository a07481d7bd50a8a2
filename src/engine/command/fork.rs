//! Forks: a run that goes on where another one was.

use crate::engine::Run;
use crate::model::event::Idempotency;
use crate::model::{EventBody, NoRoom, Place, RunId, Seq, Value};
use crate::time::Timestamp;

/// Everything a fork needs, read and folded.
#[derive(Debug)]
pub struct Fork {
    /// The other run's state after the event, under the new run's id. It may be forked ([`Run::may_fork`]).
    pub run: Run,
    /// The events that it is of: (number of the first, when, which), as they were decided.
    pub bursts: Vec<(Seq, Timestamp, Vec<EventBody>)>,
    /// The other run.
    pub source: RunId,
    /// The last of its events that is taken.
    pub seq: Seq,
    /// When that was.
    pub since: Timestamp,
    /// It is made to do that run's work again.
    pub replay: bool,
    /// The call that was given up next, which begins again with its first attempt.
    pub redriven: Option<Place>,
    /// What it is given instead.
    pub inputs: Option<Value>,
    /// The caller's key, when there was one.
    pub idempotency: Option<Idempotency>,
    /// Why nothing new is begun.
    pub no_room: Option<NoRoom>,
}
