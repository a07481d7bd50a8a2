//! What a shard sends to the fanout plane for a run that is watched.

use std::sync::Arc;

use crate::model::{EventBody, Kept, RunId, Seq};
use crate::time::Timestamp;

/// Durable events of one burst of one run, in order.
///
/// Sent only after they are durable. When the queue is full the shard drops the push, remembers that it did, and sets
/// `lagged` on the next push of that run; a push may then have no events at all. The hub reads again what is missing.
#[derive(Clone, Debug)]
pub struct Push {
    /// Whose events.
    pub run_id: RunId,
    /// Number of the first of them.
    pub first_seq: Seq,
    /// When they were decided.
    pub at: Timestamp,
    /// What happened.
    pub events: Vec<EventBody>,
    /// Which values in them are shown by reference.
    pub kept: Option<Arc<Kept>>,
    /// Pushes of this run before this one were dropped.
    pub lagged: bool,
}
