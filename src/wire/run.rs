//! Bodies about runs: what a start is answered with, a run in one line, a run in full.

use serde::{Deserialize, Serialize};

use super::Shown;
use super::event::Error;
use crate::model::workspace::shown;
use crate::model::{Failure, RunId, RunSummary, Status, Value};
use crate::time::Timestamp;

/// A run in one line; every acknowledgement has these members.
#[derive(Clone, Copy, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "RunLine"))]
pub struct Line<'a> {
    run_id: Shown<RunId>,
    workflow: &'a str,
    version: &'a str,
    status: Status,
    seq: u64,
    durability: &'a str,
    epoch: u64,
    started_at: Shown<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_at: Option<Shown<Timestamp>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    run_key: Option<&'a str>,
}

impl<'a> Line<'a> {
    /// Of this run, durable at this level.
    pub fn new(run: &'a RunSummary, durability: &'a str) -> Self {
        Self {
            run_id: Shown(run.run_id),
            workflow: shown(&run.workflow),
            version: &run.version,
            status: run.status,
            seq: run.seq,
            durability,
            epoch: run.epoch,
            started_at: Shown(run.started_at),
            ended_at: run.ended_at.map(Shown),
            run_key: run.run_key.as_deref(),
        }
    }
}

/// A run in full.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Run"))]
pub struct Full<'a> {
    /// In one line.
    #[serde(flatten)]
    pub line: Line<'a>,
    /// Hash of its document.
    pub hash: String,
    /// What it was given.
    #[cfg_attr(test, schemars(with = "serde_json::Value"))]
    pub inputs: &'a Value,
    /// What it gave; absent until it completes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<serde_json::Value>"))]
    pub outputs: Option<&'a Value>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<super::event::ErrorShape>"))]
    pub error: Option<Error<'a>>,
    /// The node that brought it down.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed_node: Option<&'a str>,
    /// Nodes that run or wait.
    #[cfg_attr(test, schemars(with = "Vec<String>"))]
    pub current_nodes: &'a [String],
    /// When it fails by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Shown<Timestamp>>,
    /// The run whose child it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<Shown<RunId>>,
}

impl Full<'_> {
    /// The failure as clients see it.
    pub fn error(failure: Option<&Failure>) -> Option<Error<'_>> {
        failure.map(Error)
    }
}

/// A page of runs.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "RunPage"))]
pub struct Page<'a> {
    /// Newest first.
    pub runs: Vec<Line<'a>>,
    /// Give it back as `cursor` for the next page; null at the end.
    pub next_cursor: Option<Shown<RunId>>,
}

/// What a client reads of any answer about one run.
#[derive(Clone, Debug, Deserialize)]
pub struct Run {
    /// Its id.
    pub run_id: String,
    /// Name of its workflow.
    pub workflow: String,
    /// And its version.
    pub version: String,
    /// Its status.
    pub status: Status,
    /// Number of its last event.
    pub seq: u64,
    /// How safe the answer is.
    pub durability: String,
    /// Owner epoch.
    pub epoch: u64,
    /// What it gave.
    #[serde(default)]
    pub outputs: Option<serde_json::Value>,
    /// Why it failed.
    #[serde(default)]
    pub error: Option<serde_json::Value>,
}
