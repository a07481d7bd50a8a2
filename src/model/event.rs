//! Facts of a run: the only thing a journal holds. State is the fold of these and nothing else.
//!
//! An event carries everything that was decided: verdicts of edges, branches taken, items of a map, due times,
//! the run's random seed. A fold never evaluates. Nodes are named by their index in the IR of the run's current
//! document ([`Place`]); the document's hash stands in `run.started`, so a reader can name them.
//!
//! The order of the variants and of their fields is the journal's format (`docs/formats/journal.md`): append only.

mod place;
mod remembered;

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

pub use self::place::Place;
pub use self::remembered::{Done, Remembered};
use super::agent::{Answer, Capture, Quote, Returned, Spiked, ToolCall, Trimmed};
use super::budget::{Over, Wider};
use super::money::Usd;
use super::patch::{Decided, Held, Layered, Proposal, Rejection, Revocation};
use super::{Admission, Failure, Mode, RunId, Seq, Value};
use crate::time::Timestamp;

/// Sha-256 of a canonical document (RFC 8785).
pub type DocumentHash = [u8; 32];

/// The verdict on each outgoing edge of a node that settled, in the IR's order of that node's edges: live or dead.
pub type Verdicts = SmallVec<[bool; 8]>;

/// One event: its number, its time, its content.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// 1, 2, 3, ... in its run.
    pub seq: Seq,
    /// When it was decided. All events of one burst share it.
    pub at: Timestamp,
    /// What happened.
    pub body: EventBody,
}

/// How a run was asked for twice without starting twice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Idempotency {
    /// First 16 bytes of sha-256 over scope and key.
    pub key: [u8; 16],
    /// First 16 bytes of sha-256 over the request's meaning; another fingerprint under the same key is refused.
    pub fingerprint: [u8; 16],
}

/// The first event of every run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunStarted {
    /// Name of the workflow.
    pub workflow: Arc<str>,
    /// Its version.
    pub version: Arc<str>,
    /// Identity of the document the run executes.
    pub document: DocumentHash,
    /// Version of the engine's meaning; a fold under another one is refused.
    pub semantics: u32,
    /// What the caller gave.
    pub inputs: Value,
    /// Source of every random draw of this run.
    pub seed: u64,
    /// When the run fails with `deadline_exceeded`.
    pub deadline: Option<Timestamp>,
    /// The caller's key, when there was one.
    pub idempotency: Option<Idempotency>,
    /// Owner epoch under which the run was started.
    pub epoch: u64,
}

/// What a node waits for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Waiting {
    /// A point in time (`delay`).
    Timer {
        /// Never fires before.
        due: Timestamp,
    },
    /// A signal (`wait`), until `due` when there is one.
    Signal {
        /// Its name.
        name: Arc<str>,
        /// When waiting ends with `timeout`.
        due: Option<Timestamp>,
    },
    /// The items of its scope (`map`).
    Items {
        /// The list gone over, as evaluated.
        items: Value,
    },
    /// The passes through its bodies (`parallel`, `loop`, `composite`).
    Passes {
        /// What the bodies are given, as evaluated.
        input: Value,
    },
    /// The answer to a call (`http`, `task`, `agent`).
    Call {
        /// What is asked for, as evaluated; secrets are names in it. `None`: the same as in the attempt before.
        request: Option<Value>,
        /// When the attempt is given up.
        due: Timestamp,
    },
    /// The end of a child run (`composite` with `workflow`).
    Child {
        /// The child.
        run_id: RunId,
        /// Its inputs, as evaluated. `None`: the same as in the attempt before.
        inputs: Option<Value>,
        /// When the attempt is given up.
        due: Option<Timestamp>,
    },
    /// A human (`human_review`).
    Review(Box<Review>),
}

/// What a human is asked (`human_review`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Review {
    /// Who is asked first.
    pub reviewers: Vec<Arc<str>>,
    /// What they are shown.
    pub data: Value,
    /// When nobody is waited for any more.
    pub due: Option<Timestamp>,
    /// Who is asked next, and when, in that order.
    pub escalations: Vec<Escalation>,
}

/// One step of an escalation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Escalation {
    /// When.
    pub at: Timestamp,
    /// Whom.
    pub to: Vec<Arc<str>>,
}

/// What a human decided (`human_review`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// Or rejected.
    pub approved: bool,
    /// Who decided.
    pub reviewer: Arc<str>,
    /// In the reviewer's words.
    pub reason: Option<Arc<str>>,
    /// What was filled in; null when nothing was.
    pub form: Value,
    /// Sha-256 of what was shown.
    pub digest: [u8; 32],
}

/// The run that started this one, and where it waits for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parent {
    /// Which run.
    pub run_id: RunId,
    /// Its node.
    pub place: Place,
    /// Number of the parent's event that asked for this run.
    pub seq: Seq,
    /// How many runs are above this one: 1 for the child of a run that nobody's run started.
    pub depth: u32,
}

/// The graph of a run has changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Patched {
    /// 2 for the first patch; a run starts with version 1.
    pub version: u32,
    /// Identity of the document from here on.
    pub document: DocumentHash,
    /// Verdicts on the edges that are new and whose source has settled, in the order of the new graph.
    pub verdicts: Verdicts,
}

/// Where a run goes on that another one began.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Forked {
    /// The other run, whose the events before are.
    pub run_id: RunId,
    /// The last of them.
    pub seq: Seq,
    /// When that was.
    pub since: Timestamp,
    /// It is made to do that run's work again (`mode: live`).
    pub replay: bool,
    /// What it is given instead of what that run was.
    pub inputs: Option<Value>,
    /// When the run fails with `deadline_exceeded`.
    pub deadline: Option<Timestamp>,
    /// The caller's key, when there was one.
    pub idempotency: Option<Idempotency>,
    /// Owner epoch under which it begins.
    pub epoch: u64,
}

/// What happened. Read `Waiting` for what a node waits for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum EventBody {
    /// `run.started`
    RunStarted(Box<RunStarted>),
    /// `node.started`: attempt `attempt` (1, 2, ...) begins.
    NodeStarted {
        /// Which.
        place: Place,
        /// 1 for the first.
        attempt: u32,
    },
    /// `node.waiting`
    NodeWaiting {
        /// Which.
        place: Place,
        /// For what.
        waiting: Waiting,
    },
    /// `timer.fired`: the node's due time has come. What follows from it is an event of its own.
    TimerFired {
        /// Which node's.
        place: Place,
    },
    /// `node.completed`
    NodeCompleted {
        /// Which.
        place: Place,
        /// Its output.
        output: Value,
        /// Its edges.
        edges: Verdicts,
    },
    /// `node.failed`: attempts are used up. `continued` when `on_error: continue` made its output null.
    NodeFailed {
        /// Which.
        place: Place,
        /// Why.
        failure: Failure,
        /// Its edges.
        edges: Verdicts,
        /// Whether the run goes on as if it had completed with null.
        continued: bool,
    },
    /// `node.skipped`: every incoming edge is dead. Its own edges are dead.
    NodeSkipped {
        /// Which.
        place: Place,
    },
    /// `signal.received`, for `waiter` when a node waits for it, kept otherwise.
    SignalReceived {
        /// Its name.
        name: Arc<str>,
        /// What it brings.
        payload: Value,
        /// The node it goes to.
        waiter: Option<Place>,
    },
    /// `run.cancel_requested`
    RunCancelRequested {
        /// The caller's words.
        reason: Arc<str>,
    },
    /// `run.completed`
    RunCompleted {
        /// The workflow's `outputs`, evaluated; without any, the outputs of the nodes nothing follows.
        outputs: Value,
    },
    /// `run.failed`
    RunFailed {
        /// Why.
        failure: Failure,
        /// The node that brought it down, when one did.
        place: Option<Place>,
    },
    /// `run.cancelled`
    RunCancelled {
        /// The caller's words; `terminated` when nobody was waited for.
        reason: Arc<str>,
    },
    /// `run.linked`: the run is another's child. Follows `run.started` in the same burst.
    RunLinked {
        /// Whose.
        parent: Parent,
    },
    /// `run.paused`: nothing starts from here on.
    RunPaused {
        /// The caller's words.
        reason: Arc<str>,
    },
    /// `run.resumed`
    RunResumed,
    /// `timer.set`: a node that waits for its passes must be done by `due`.
    TimerSet {
        /// Which.
        place: Place,
        /// When it is given up.
        due: Timestamp,
    },
    /// `node.retry_scheduled`: an attempt failed; the next one begins at `due`.
    NodeRetryScheduled {
        /// Which.
        place: Place,
        /// How the attempt failed.
        failure: Failure,
        /// Not before.
        due: Timestamp,
        /// The uniform draw behind the jitter, in units of 2^-32; 0 without jitter.
        draw: u32,
    },
    /// `node.fell_back`: attempts are used up, its fallback takes its place.
    NodeFellBack {
        /// Which.
        place: Place,
        /// How the last attempt failed.
        failure: Failure,
        /// What the fallback's body is given; `None` when the fallback is a value, which follows as its output.
        input: Option<Value>,
    },
    /// `node.uncertain`: a call that may be made at most once has no known outcome. A human says what became of it.
    NodeUncertain {
        /// Which.
        place: Place,
        /// What is known.
        failure: Failure,
    },
    /// `node.progress`: a loop goes round once more.
    LoopContinued {
        /// Which.
        place: Place,
        /// The iteration that begins, from 0.
        iteration: u32,
    },
    /// `approval.escalated`
    ApprovalEscalated {
        /// Which node's.
        place: Place,
        /// How many escalations there have been, this one included.
        level: u32,
    },
    /// `approval.expired`: nobody decided in time. What follows is the node's `on_timeout`.
    ApprovalExpired {
        /// Which node's.
        place: Place,
    },
    /// `patch.applied`
    PatchApplied(Box<Patched>),
    /// `node.lost`: the node went down while it made the attempt; the attempt is made again, under this event's number.
    NodeLost {
        /// Which.
        place: Place,
    },
    /// `node.leased`: a worker has the attempt.
    NodeLeased {
        /// Which.
        place: Place,
        /// What the worker calls itself.
        worker: Arc<str>,
    },
    /// `run.waiting`: nothing of the run starts before it is admitted. Follows `run.started`, or `run.linked`.
    RunWaiting(Box<Admission>),
    /// `run.admitted`: its turn has come.
    RunAdmitted,
    /// `run.keyed`: the run has a business key. Follows `run.started` in the same burst.
    RunKeyed {
        /// The key, as the caller gave it.
        run_key: Arc<str>,
        /// The unfinished run that had it and was ended for this one.
        replaces: Option<RunId>,
    },
    /// `mode.changed`: the caller wants another mode than the document says. Comes before anything starts.
    ModeChanged {
        /// From here on.
        mode: Mode,
    },
    /// `events.derived`: that many events were decided by the run itself and are not written down ([`Mode::Fast`]).
    /// Whoever folds decides them again.
    EventsDerived {
        /// How many.
        count: u32,
    },
    /// `patch.created`: the patch holds; `patch.applied` comes next.
    PatchCreated(Box<Proposal>),
    /// `patch.rejected`
    PatchRejected(Box<Rejection>),
    /// `patch.revoked`; `patch.applied` comes next.
    PatchRevoked(Box<Revocation>),
    /// `approval.decided`: a human answered in time. What follows is the node's end.
    ApprovalDecided {
        /// Which node's.
        place: Place,
        /// How, and by whom.
        decision: Box<Decision>,
    },
    /// `patch.held`: the patch is good, and waits for a human.
    PatchHeld(Box<Held>),
    /// `patch.decided`: a human decided about a patch that waited. One that is approved is made at once: `patch.created` and
    /// `patch.applied` come next.
    PatchDecided(Box<Decided>),
    /// `run.forked`: what comes before is another run's history; from here on it is this one's own.
    RunForked(Box<Forked>),
    /// `run.layered`: the document of the run is a registered one with patches of its workflow on it. The last of those that
    /// directly follow `run.started`.
    RunLayered(Arc<Layered>),
    /// `request.remembered`: what stands right before it was asked for under a key. Asked again, it is answered from here.
    RequestRemembered(Arc<Remembered>),
    /// `model.called`: an agent's next turn is asked for. What it may cost at most is reserved from here on.
    ModelCalled {
        /// Which agent's.
        place: Place,
        /// Of whom, and what it may take.
        quote: Box<Quote>,
    },
    /// `model.answered`: what was said, and what it cost. What was reserved for it is free again.
    ModelAnswered {
        /// Which agent.
        place: Place,
        /// The answer.
        answer: Box<Answer>,
        /// How much of it is shown.
        capture: Capture,
    },
    /// `tool.called`: the tools that the last answer asks for and may have.
    ToolCalled {
        /// Which agent's.
        place: Place,
        /// With what.
        calls: Vec<ToolCall>,
        /// How much of it is shown.
        capture: Capture,
    },
    /// `tool.returned`: what all tools of the last answer brought; the next turn begins.
    ToolReturned {
        /// Which agent's.
        place: Place,
        /// In the order of the answer's calls.
        results: Vec<Returned>,
        /// How much of it is shown.
        capture: Capture,
    },
    /// `agent.corrected`: the last answer is not what was asked for; the model is told, and the next turn begins.
    AgentCorrected {
        /// Which agent.
        place: Place,
        /// As it is told.
        message: Arc<str>,
    },
    /// `model.degraded`: from here on the agent asks the next model on its ladder; the turn begins again.
    ModelDegraded {
        /// Which agent.
        place: Place,
        /// Position of that model on the ladder, from 0.
        to: u32,
        /// Why.
        failure: Failure,
        /// What could not be reserved, when money was the reason.
        quote: Option<Box<Quote>>,
    },
    /// `budget.warned`: what is spent and reserved has come to the part of the run's budget at which it warns.
    BudgetWarned {
        /// Spent and reserved.
        used: Usd,
        /// Tokens taken and reserved.
        tokens: u64,
    },
    /// `budget.exceeded`: the agent's next turn could cost more than is left. What follows is what the budget says.
    BudgetExceeded {
        /// Which agent.
        place: Place,
        /// What it would have asked for.
        quote: Box<Quote>,
    },
    /// `budget.raised`: somebody gives the run more to spend.
    BudgetRaised {
        /// More dollars.
        usd: Usd,
        /// More tokens.
        tokens: u64,
        /// Who.
        by: Arc<str>,
        /// In their words.
        reason: Arc<str>,
    },
    /// `node.redriven`: in a fork, directly behind `run.forked`: work that was given up begins again with attempt 1.
    NodeRedriven {
        /// Which.
        place: Place,
    },
    /// `budget.exceeded`, with a scope: of a budget wider than the run too little is left for the agent's next turn. What follows
    /// is what that budget says.
    WiderExceeded {
        /// Which agent.
        place: Place,
        /// What it would have asked for, and what was left.
        over: Box<Over>,
    },
    /// `budget.warned`, with a scope: with this agent's call a budget wider than the run has come to where it warns.
    WiderWarned {
        /// Which agent's.
        place: Place,
        /// How it stood.
        by: Box<Wider>,
    },
    /// `model.degraded`, because the model spikes: another one is asked in its place from here on.
    ModelSpiked {
        /// Which agent.
        place: Place,
        /// From whom to whom, and why.
        spiked: Box<Spiked>,
    },
    /// `model.recovered`: the model on the agent's ladder is asked again.
    ModelRecovered {
        /// Which agent.
        place: Place,
        /// The model that was asked in its place.
        from: Arc<str>,
        /// The one that is asked again.
        to: Arc<str>,
    },
    /// `context.trimmed`: the conversation did not fit; its oldest turns are not told any more, and the turn begins again.
    ContextTrimmed {
        /// Which agent's.
        place: Place,
        /// What is left out, and why.
        trimmed: Box<Trimmed>,
    },
}

impl EventBody {
    /// The event's type as clients see it.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::RunStarted(_) => "run.started",
            Self::NodeStarted { .. } => "node.started",
            Self::NodeWaiting { .. } => "node.waiting",
            Self::TimerFired { .. } => "timer.fired",
            Self::NodeCompleted { .. } => "node.completed",
            Self::NodeFailed { .. } => "node.failed",
            Self::NodeSkipped { .. } => "node.skipped",
            Self::SignalReceived { .. } => "signal.received",
            Self::RunCancelRequested { .. } => "run.cancel_requested",
            Self::RunCompleted { .. } => "run.completed",
            Self::RunFailed { .. } => "run.failed",
            Self::RunCancelled { .. } => "run.cancelled",
            Self::RunLinked { .. } => "run.linked",
            Self::RunPaused { .. } => "run.paused",
            Self::RunResumed => "run.resumed",
            Self::TimerSet { .. } => "timer.set",
            Self::NodeRetryScheduled { .. } => "node.retry_scheduled",
            Self::NodeFellBack { .. } => "node.fell_back",
            Self::NodeUncertain { .. } => "node.uncertain",
            Self::LoopContinued { .. } => "node.progress",
            Self::ApprovalEscalated { .. } => "approval.escalated",
            Self::ApprovalExpired { .. } => "approval.expired",
            Self::PatchApplied(_) => "patch.applied",
            Self::NodeLost { .. } => "node.lost",
            Self::NodeLeased { .. } => "node.leased",
            Self::RunWaiting(_) => "run.waiting",
            Self::RunAdmitted => "run.admitted",
            Self::RunKeyed { .. } => "run.keyed",
            Self::ModeChanged { .. } => "mode.changed",
            Self::EventsDerived { .. } => "events.derived",
            Self::PatchCreated(_) => "patch.created",
            Self::PatchRejected(_) => "patch.rejected",
            Self::PatchRevoked(_) => "patch.revoked",
            Self::ApprovalDecided { .. } => "approval.decided",
            Self::PatchHeld(_) => "patch.held",
            Self::PatchDecided(_) => "patch.decided",
            Self::RunForked(_) => "run.forked",
            Self::RunLayered(_) => "run.layered",
            Self::RequestRemembered(_) => "request.remembered",
            Self::ModelCalled { .. } => "model.called",
            Self::ModelAnswered { .. } => "model.answered",
            Self::ToolCalled { .. } => "tool.called",
            Self::ToolReturned { .. } => "tool.returned",
            Self::AgentCorrected { .. } => "agent.corrected",
            Self::ModelDegraded { .. } => "model.degraded",
            Self::BudgetWarned { .. } | Self::WiderWarned { .. } => "budget.warned",
            Self::BudgetExceeded { .. } | Self::WiderExceeded { .. } => "budget.exceeded",
            Self::BudgetRaised { .. } => "budget.raised",
            Self::NodeRedriven { .. } => "node.redriven",
            Self::ModelSpiked { .. } => "model.degraded",
            Self::ModelRecovered { .. } => "model.recovered",
            Self::ContextTrimmed { .. } => "context.trimmed",
        }
    }

    /// The node this is about.
    pub fn place(&self) -> Option<&Place> {
        match self {
            Self::NodeStarted { place, .. }
            | Self::NodeWaiting { place, .. }
            | Self::TimerFired { place }
            | Self::NodeCompleted { place, .. }
            | Self::NodeFailed { place, .. }
            | Self::NodeSkipped { place }
            | Self::TimerSet { place, .. }
            | Self::NodeRetryScheduled { place, .. }
            | Self::NodeFellBack { place, .. }
            | Self::NodeUncertain { place, .. }
            | Self::LoopContinued { place, .. }
            | Self::ApprovalEscalated { place, .. }
            | Self::NodeLost { place }
            | Self::NodeLeased { place, .. }
            | Self::ApprovalDecided { place, .. }
            | Self::ModelCalled { place, .. }
            | Self::ModelAnswered { place, .. }
            | Self::ToolCalled { place, .. }
            | Self::ToolReturned { place, .. }
            | Self::AgentCorrected { place, .. }
            | Self::ModelDegraded { place, .. }
            | Self::BudgetExceeded { place, .. }
            | Self::NodeRedriven { place }
            | Self::WiderExceeded { place, .. }
            | Self::WiderWarned { place, .. }
            | Self::ModelSpiked { place, .. }
            | Self::ModelRecovered { place, .. }
            | Self::ContextTrimmed { place, .. }
            | Self::ApprovalExpired { place } => Some(place),
            Self::SignalReceived { waiter, .. } => waiter.as_ref(),
            Self::RunFailed { place, .. } => place.as_ref(),
            _ => None,
        }
    }

    /// Does the run end with this?
    pub fn ends_run(&self) -> bool {
        matches!(self, Self::RunCompleted { .. } | Self::RunFailed { .. } | Self::RunCancelled { .. })
    }
}

/// Longest time a duration in an event may span; documents are refused above it.
pub const DURATION_MAX: Duration = Duration::from_secs(crate::limits::DURATION_SECONDS_MAX);
