//! Bodies about runs: what a start is answered with, a run in one line, a run in full.

use serde::{Deserialize, Serialize};

use super::Shown;
use super::event::Error;
use crate::model::patch::Layered;
use crate::model::workspace::shown;
use crate::model::{Admission, Failure, RunId, RunSummary, Status, Value};
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
    /// What the document is made of, when patches of the workflow are on it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layered: Option<Layers<'a>>,
    /// The policy that it runs under: `base`, the hash of the document as registered, and `gates`, its rules.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<serde_json::Value>"))]
    pub policy: Option<Value>,
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
    /// Where it was forked from.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub forked: Option<Forked>,
    /// Why it is pending.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting: Option<RunWaiting>,
    /// What humans are asked before it goes on: whom, since when, until when, and by which ticket they answer.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub approvals: Vec<super::approval::Line<'a>>,
    /// Why it does not go on by itself, and what is needed (a hundred at most): reviews, signals, a pause by hand or by its budget.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pauses: Vec<Pause>,
}

/// Why a run does not go on, and what is needed that it does.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "RunPause"))]
pub struct Pause {
    /// Path of the node that waits; null: the run as a whole.
    pub node: Option<String>,
    /// `review`, `signal`, `paused`, `budget`, `outcome`.
    pub reason: &'static str,
    /// Why, in words.
    pub why: String,
    /// What somebody has to do.
    pub needed: String,
    /// Since when.
    pub since: Shown<Timestamp>,
    /// When waiting is over, however it goes; null: never.
    pub due_at: Option<Shown<Timestamp>>,
    /// `review`: by what it is answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ticket: Option<Shown<crate::model::Ticket>>,
}

/// Where a run was forked from.
#[derive(Clone, Copy, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Forked {
    /// The other run, and its event after which this one went on.
    forked_from: ForkedFrom,
    /// The run whose work is done again (`aob replay --mode live`).
    #[serde(skip_serializing_if = "Option::is_none")]
    replay_of: Option<Shown<RunId>>,
}

/// A run, and an event of it.
#[derive(Clone, Copy, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct ForkedFrom {
    run_id: Shown<RunId>,
    seq: u64,
}

impl Forked {
    /// From this run, after its event `seq`; to do its work again, or not.
    pub fn new(run_id: RunId, seq: u64, replay: bool) -> Self {
        let forked_from = ForkedFrom { run_id: Shown(run_id), seq };
        Self { forked_from, replay_of: replay.then_some(Shown(run_id)) }
    }
}

/// A registered document with patches of its workflow on it.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Layers<'a> {
    /// Hash of the registered document.
    pub base: String,
    /// Ids of the patches on it, in order.
    #[cfg_attr(test, schemars(with = "Vec<String>"))]
    pub patches: &'a [std::sync::Arc<str>],
    /// Patches in force that do not fit this version of the workflow.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<LeftOut<'a>>,
    /// The patch set that the run is an arm of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patch_set: Option<&'a str>,
}

/// A patch that does not fit a version of its workflow.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct LeftOut<'a> {
    /// Its id.
    pub patch_id: &'a str,
    /// Why not, in words.
    pub reason: &'a str,
}

impl<'a> From<&'a Layered> for Layers<'a> {
    fn from(layered: &'a Layered) -> Self {
        Self {
            base: super::Hash(&layered.base).to_string(),
            patches: &layered.patches,
            left_out: left_out(layered),
            patch_set: layered.set.as_deref(),
        }
    }
}

/// Patches that a run was started without.
pub(super) fn left_out(layered: &Layered) -> Vec<LeftOut<'_>> {
    layered.left_out.iter().map(|(patch_id, reason)| LeftOut { patch_id, reason }).collect()
}

/// Why a run does not begin.
#[derive(Debug, Default, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RunWaiting {
    /// `concurrency`: for a slot of its key; `rate`: for its turn at the rate of its key.
    pub reason: &'static str,
    /// The key, as evaluated.
    pub key: String,
    /// `max` of the limit.
    pub max: u32,
    /// Of a rate: in how many milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_ms: Option<u64>,
    /// Slots of the key that are taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held: Option<usize>,
    /// Runs that have them, eight at most.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub holders: Vec<Shown<RunId>>,
    /// Runs that go first; 10000 stands for more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ahead: Option<usize>,
}

/// Why a node neither runs nor has settled.
#[derive(Debug, Default, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct NodeWaiting {
    /// `edges`, `admission`, `paused`, `cancelling`, `turn`, `timer`, `signal`, `human`, `retry`, `passes`, `worker`,
    /// `http_slot`, `agent_slot`, `answer`, `child`, `outcome`.
    pub reason: &'static str,
    /// When waiting is over, however it goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Shown<Timestamp>>,
    /// `edges`: nodes that have not settled.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<String>,
    /// `signal`: its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
    /// `human`: by what they answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ticket: Option<Shown<crate::model::Ticket>>,
    /// `human`: who was asked; nobody by name when anybody may decide.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reviewers: Vec<String>,
    /// `worker`: of this queue.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// `worker`: jobs that go first; 10000 stands for more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ahead: Option<usize>,
    /// `worker`: jobs of the queue that workers have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leased: Option<usize>,
    /// How many there may be: of leases of the queue, of calls under way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<usize>,
    /// `http_slot`, `agent_slot`: which setting says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<&'static str>,
    /// `http_slot`, `answer`: where the call goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// `child`: the run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_id: Option<Shown<RunId>>,
}

impl RunWaiting {
    /// For a slot; `at_rate`: it has that, and waits for its turn.
    pub fn new(wanted: &Admission, at_rate: bool) -> Self {
        match (&wanted.concurrency, &wanted.rate) {
            (Some(limit), rate) if !at_rate || rate.is_none() => {
                Self { reason: "concurrency", key: limit.key.to_string(), max: limit.max, ..Self::default() }
            }
            (_, Some(rate)) => Self {
                reason: "rate",
                key: rate.key.to_string(),
                max: rate.max,
                per_ms: Some(u64::try_from(rate.per.as_millis()).unwrap_or(u64::MAX)),
                ..Self::default()
            },
            (_, None) => Self { reason: "concurrency", ..Self::default() },
        }
    }

    /// With its place in the line, and who has the slots.
    #[must_use]
    pub fn standing(mut self, ahead: usize, held: usize, holders: &[RunId]) -> Self {
        self.ahead = Some(ahead);
        if self.per_ms.is_none() {
            self.held = Some(held);
            self.holders = holders.iter().copied().map(Shown).collect();
        }
        self
    }
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
    /// Why it is pending.
    #[serde(default)]
    pub waiting: Option<serde_json::Value>,
}
