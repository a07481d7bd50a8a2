//! Why a shard does not do as asked.

use std::sync::Arc;

use crate::engine::patch::PatchRefusal;
use crate::ir::Violation;
use crate::model::{NoRoom, RunId, Seq, Status};

/// Why a shard did not do as asked. Nothing was applied.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// No such unfinished run on this shard; a finished one is in the archive.
    #[error("no run {0}")]
    NotFound(RunId),
    /// The run has ended.
    #[error("run {run_id} is {status}, which is final", status = status.as_str())]
    Finished {
        /// Which.
        run_id: RunId,
        /// How.
        status: Status,
    },
    /// The run's status does not allow this (F299).
    #[error("run {run_id} is {status}: it cannot be {verb}", status = status.as_str())]
    Illegal {
        /// Which.
        run_id: RunId,
        /// Its status.
        status: Status,
        /// `paused`, `resumed`.
        verb: &'static str,
    },
    /// Nobody waits for this attempt, or somebody else has it.
    #[error("attempt {seq} of {run_id} is not waited for")]
    Stale {
        /// Which run.
        run_id: RunId,
        /// Number of the event that handed it out.
        seq: Seq,
    },
    /// No such review waits in this run.
    #[error("no such review waits in {run_id}")]
    NoReview {
        /// Which run.
        run_id: RunId,
    },
    /// The review does not ask this one.
    #[error("{reviewer:?} was not asked: this review asks {asked}")]
    NotAsked {
        /// Who wants to decide.
        reviewer: Arc<str>,
        /// Who was asked so far, with commas between.
        asked: String,
    },
    /// Nobody waits for this update.
    #[error("nothing in run {run_id} waits for {name:?} now; {}", told(awaited))]
    NotAwaited {
        /// Which run.
        run_id: RunId,
        /// Its name.
        name: Arc<str>,
        /// What the run waits for, of this kind.
        awaited: Vec<Arc<str>>,
    },
    /// What a signal or an update brings is not what the node that waits for it accepts.
    #[error("the payload does not fit what the node {node} accepts: {} finding(s)", found.len())]
    Unfit {
        /// Path of the node.
        node: String,
        /// Where, and how.
        found: Vec<Violation>,
    },
    /// The key stands for another request.
    #[error("this Idempotency-Key was used for another request")]
    KeyReused,
    /// The run has gone on since the caller looked at it.
    #[error("run {run_id} is at event {seq}, which is not what If-Match names")]
    Changed {
        /// Which run.
        run_id: RunId,
        /// Number of its last event.
        seq: Seq,
    },
    /// The graph has another version than the patch was compiled against.
    #[error("the graph of run {run_id} has version {version}")]
    GraphChanged {
        /// Which run.
        run_id: RunId,
        /// Of its graph.
        version: u32,
    },
    /// The graph cannot be changed so, as the run stands.
    #[error("{0}")]
    NotPatched(PatchRefusal),
    /// An unfinished run has the business key.
    #[error("the unfinished run {run_id} has this run_key")]
    RunKeyInUse {
        /// Which.
        run_id: RunId,
    },
    /// The run's history cannot be read: a content that it refers to is damaged or gone. The run goes on once the content is
    /// back and the node has been started again.
    #[error("run {run_id} cannot be read: {why}")]
    Unreadable {
        /// Which run.
        run_id: RunId,
        /// What is missing.
        why: Arc<str>,
    },
    /// A limit is reached.
    #[error("{what}: {value} (limit {limit})")]
    Limit {
        /// Name of the limit.
        limit: &'static str,
        /// What there is too much of.
        what: &'static str,
        /// How much.
        value: u64,
    },
    /// Nothing new is begun.
    #[error("{0}")]
    NoRoom(NoRoom),
    /// A token's bytes do not check out.
    #[error("malformed token: {0}")]
    Malformed(String),
    /// The journal failed; this shard answers nothing more until the node restarts.
    #[error("shard {shard} is fenced: {cause}")]
    Fenced {
        /// Which shard.
        shard: u16,
        /// Why.
        cause: Arc<str>,
        /// It came after that, so nothing was done. Otherwise nobody knows.
        untouched: bool,
    },
}

fn told(awaited: &[Arc<str>]) -> String {
    match awaited {
        [] => String::from("it waits for no signal"),
        names => format!("it waits for {}", names.join(", ")),
    }
}
