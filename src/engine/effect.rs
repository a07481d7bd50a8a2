//! What the fold asks of the world: timers to arm, work to hand out, work to call back. Plain data.
//!
//! All of it follows from events and from nothing else, so [`Run::timers`](super::Run::timers) and
//! [`Run::dispatches`](super::Run::dispatches) give it again after a restart. The caller lets none of it out before the
//! events it follows from are durable.

use serde::{Deserialize, Serialize};

use crate::ir::{Executor, ParentClose};
use crate::model::agent::Ask;
use crate::model::{Place, RunId, Seq, Value};
use crate::time::Timestamp;

/// A point in time that a run waits for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// A node's due time.
    Node(Place),
    /// The run's own.
    Deadline,
    /// A cancelled run waits no longer for its attempts under way.
    Grace,
}

/// Work for somebody else: one attempt of a node.
#[derive(Clone, Debug, PartialEq)]
pub struct Dispatch {
    /// Which node.
    pub place: Place,
    /// Which attempt of it, from 1.
    pub attempt: u32,
    /// Number of the event that handed it out; an answer carries it back. It names the attempt once and for all, also when a
    /// body is gone through again.
    pub seq: Seq,
    /// What is to be done.
    pub work: Work,
    /// When the attempt is given up.
    pub due: Option<Timestamp>,
    /// The node's path: `each[3].call`.
    pub path: String,
    /// Name of the workflow.
    pub workflow: std::sync::Arc<str>,
    /// Identity of the document as it is now.
    pub document: crate::model::event::DocumentHash,
    /// What goes first.
    pub priority: crate::model::Priority,
    /// The worker that has taken it before a restart.
    pub worker: Option<std::sync::Arc<str>>,
    /// How often the attempt was lost with the node that made it; each time counts in `attempt`.
    pub lost: u32,
    /// If the attempt was handed out before a crash, it must not be handed out again: [`super::Input::Lost`] instead.
    pub at_most_once: bool,
}

/// What is to be done for an attempt.
#[derive(Clone, Debug, PartialEq)]
pub enum Work {
    /// A call. The request holds names of secrets, never secrets.
    Call {
        /// By whom.
        executor: Executor,
        /// What is asked for.
        request: Value,
    },
    /// The next turn of an agent: a model's, which is reserved first ([`super::Says::Reserve`]), or that of tools.
    Agent(Box<Ask>),
    /// A child run. Its id is the attempt's own, so that starting it twice starts it once.
    Child {
        /// The id it has.
        run_id: RunId,
        /// `name`, `name@version` or `name@tag`.
        workflow: std::sync::Arc<str>,
        /// Its inputs, not checked yet.
        inputs: Value,
        /// What becomes of it when nobody waits for it any more.
        parent_close: ParentClose,
    },
}

impl Work {
    /// What is left where the work was taken out.
    pub const NONE: Self = Self::Call { executor: Executor::Agent, request: Value::Null };
}

/// An attempt that nobody waits for any more.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recall {
    /// Of which node.
    pub place: Place,
    /// Number of the event that handed it out.
    pub seq: Seq,
    /// Whom to tell.
    pub whom: Recalled,
}

/// Who is told that an attempt is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Recalled {
    /// Whoever makes such calls.
    Executor(Executor),
    /// The child run, which is to be cancelled.
    Child(RunId),
}

/// What a call brought whose node falls back on earlier answers: to be kept for the next time.
#[derive(Clone, Debug, PartialEq)]
pub struct Keep {
    /// Name of the workflow.
    pub workflow: std::sync::Arc<str>,
    /// The node's id.
    pub node: std::sync::Arc<str>,
    /// What was asked for.
    pub request: Value,
    /// The node's output.
    pub output: Value,
}

/// What one fold asks for.
#[derive(Debug, Default)]
pub struct Effects {
    /// Newly armed. A timer whose node no longer waits is stale when it fires.
    pub timers: Vec<(Timestamp, Timer)>,
    /// To be handed out.
    pub dispatches: Vec<Dispatch>,
    /// To be called back.
    pub recalls: Vec<Recall>,
    /// Changes of the run's claim to be admitted, in order.
    pub claims: Vec<super::Claiming>,
    /// To be kept.
    pub keeps: Vec<Keep>,
}

impl Effects {
    /// Empty again, buffers kept.
    pub fn clear(&mut self) {
        self.timers.clear();
        self.dispatches.clear();
        self.recalls.clear();
        self.claims.clear();
        self.keeps.clear();
    }
}
