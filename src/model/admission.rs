//! What a run waits for before anything of it starts: a slot among the runs of its key, its turn at a rate.
//!
//! Plain data, resolved: the keys are texts here. Keys belong to their workflow: the same text under another workflow, or
//! in another workspace, is another key.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Priority, RunId, Seq};
use crate::time::Timestamp;

/// What a run waits for; at least one of them. The slot comes first, then the turn.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admission {
    /// `limits.concurrency`
    pub concurrency: Option<Concurrency>,
    /// `limits.rate`
    pub rate: Option<Rate>,
}

/// At most so many runs of a key under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Concurrency {
    /// As evaluated.
    pub key: Arc<str>,
    /// How many.
    pub max: u32,
}

/// At most so many runs of a key admitted in a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate {
    /// As evaluated.
    pub key: Arc<str>,
    /// How many.
    pub max: u32,
    /// In how long.
    pub per: Duration,
}

/// What a run says to whoever admits it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Number of the event that asks. An admission names it, so that one that comes too late is told from the one that
    /// counts.
    pub seq: Seq,
    /// The workflow's name inside the node.
    pub workflow: Arc<str>,
    /// What it waits for.
    pub wanted: Arc<Admission>,
    /// What goes first.
    pub priority: Priority,
    /// Since when.
    pub since: Timestamp,
    /// The run whose child it is.
    pub parent: Option<RunId>,
}
