//! Updates: signals that somebody waits for, and that are answered.

use std::sync::Arc;

use crate::engine::Settled;
use crate::model::{Kept, RunId, RunSummary, Seq};

/// A signal for a node that waits for it now; it is taken or refused, never kept.
#[derive(Debug)]
pub struct Update {
    /// For which run.
    pub run_id: RunId,
    /// A token (`model::token`) as bytes.
    pub token: Vec<u8>,
    /// The answer is to come when the node that answers has settled, or when it is told not to wait (`StopWaiting`); otherwise
    /// with what there is.
    pub wait: bool,
}

/// An update that was taken, durably.
#[derive(Clone, Debug)]
pub struct Updated {
    /// The run in one line.
    pub run: RunSummary,
    /// Number of `signal.received`.
    pub seq: Seq,
    /// Path of the node that took it.
    pub node: String,
    /// Path of the node that answers, when it is another one.
    pub reply: Option<String>,
    /// How the node that answers settled; `None`: it has not.
    pub settled: Option<Settled>,
    /// It was taken before, under the same key.
    pub replayed: bool,
    /// Which of the run's values are shown by reference.
    pub kept: Option<Arc<Kept>>,
}
