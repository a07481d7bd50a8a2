//! What may be asked of a shard, and what it answers: plain data that crosses between planes.
//!
//! Every command carries where its reply goes; a shard answers each exactly once, after everything the answer depends
//! on is durable (outbox rule, reads included).

mod again;
mod approval;
mod fork;
mod patch;
mod refusal;
mod update;
mod view;

use std::sync::Arc;
use std::time::Duration;

pub use super::admission::Claiming;
pub use super::agent::run_of_tool;
pub use super::effect::{Dispatch, Keep, Recall, Recalled, Work};
pub use super::fork::Origin;
pub use super::patch::PatchRefusal;
pub use super::waits::{Waits, Why};
pub use super::{Bill, Known, Raise, Says, Settled, Short, Spend, Verb, Whose};
pub use crate::ir::{Executor, Ir, Violation};
use crate::model::event::{Done, Idempotency, Parent};
use crate::model::patch::{Decided, Layered, Rejection};
use crate::model::run_key::RunKey;
use crate::model::{Failure, Kept, Mode, NoRoom, Place, RunFilter, RunId, RunSummary, Seq, Value, run_key};
pub use again::next_attempt;
pub use approval::{ApprovalQuery, Decide, ListedReview, OpenReview, Pause, Paused, TicketView, Which};
pub use fork::Fork;
pub use patch::{LayersView, Patch, Step};
pub use refusal::Refusal;
pub use update::{Update, Updated};
pub use view::{GraphView, Located, NodeView, RunView};

/// Where a reply goes: a control core's slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyTo {
    /// Index of the control (or fanout) core's reply queue.
    pub core: u16,
    /// Slot in that core's table of pending requests.
    pub slot: u32,
    /// Guards against a slot used again.
    pub generation: u32,
}

/// A command on its way to a shard.
#[derive(Debug)]
pub struct Envelope {
    /// Where the answer goes.
    pub reply_to: ReplyTo,
    /// What is asked.
    pub command: Command,
}

/// What may be asked of a shard.
#[derive(Debug)]
pub enum Command {
    /// Start a run.
    Start(Box<Start>),
    /// Answer what a start is answered whose keys have started a run before; nothing new is begun.
    StartedBefore {
        /// What was asked for.
        start: Box<Start>,
        /// Why nothing new is begun.
        no_room: NoRoom,
    },
    /// Start a run where another one was.
    Fork(Box<Fork>),
    /// State of a run.
    Get(RunId),
    /// Node states of a run.
    Graph(RunId),
    /// Answer when the run has ended (or at once when it has).
    AwaitEnd(RunId),
    /// Whoever sent `AwaitEnd` or `Update` from this address no longer waits: if it is still waiting, its answer is `Done`, now,
    /// or says that the update was taken. This command's own answer is `Done` either way.
    StopWaiting {
        /// For which run it waited.
        run_id: RunId,
        /// Where its answer goes.
        waiter: ReplyTo,
    },
    /// Cancel a run.
    Cancel {
        /// Which.
        run_id: RunId,
        /// The caller's words.
        reason: Arc<str>,
    },
    /// Pause a run: nothing of it starts until it is resumed.
    Pause {
        /// Which.
        run_id: RunId,
        /// The caller's words.
        reason: Arc<str>,
    },
    /// Resume a paused run.
    Resume(RunId),
    /// End a run without waiting for anyone.
    Terminate {
        /// Which.
        run_id: RunId,
        /// The caller's words.
        reason: Arc<str>,
    },
    /// How an attempt of a call or a child run ended.
    Settle(Box<Settle>),
    /// A worker takes an attempt; refused with [`Refusal::Stale`] when it cannot.
    Lease(Box<Lease>),
    /// Whoever makes an agent's turns says something of the one under way: refused with [`Refusal::Stale`] when it is over, and
    /// when its model may not be called.
    Agent(Box<Turn>),
    /// Give a run more to spend.
    Raise {
        /// Which run.
        run_id: RunId,
        /// How much, and who.
        raise: Box<Raise>,
    },
    /// The run may begin, or never will; refused with [`Refusal::Stale`] when it does not wait under this claim.
    Admit {
        /// Which.
        run_id: RunId,
        /// Number of the event that made the claim.
        seq: Seq,
        /// Why it never will.
        denied: Option<Box<Failure>>,
    },
    /// Change a run's graph.
    Patch(Box<Patch>),
    /// Write down that a patch was refused.
    Reject {
        /// Of which run.
        run_id: RunId,
        /// What stands against it.
        rejection: Box<Rejection>,
    },
    /// A human does not want a patch that waits.
    Decline {
        /// Of which run.
        run_id: RunId,
        /// Which, and why not.
        decided: Box<Decided>,
    },
    /// How the graph of a run came to be.
    Layers(RunId),
    /// Deliver a signal: a token (`model::token`) as bytes.
    Signal(Vec<u8>),
    /// Deliver a signal that somebody waits for: refused with [`Refusal::NotAwaited`] when nobody does, and with
    /// [`Refusal::Unfit`] when it is not what they accept.
    Update(Update),
    /// A human decides a review; refused with [`Refusal::NoReview`] when nobody waits for it (any more).
    Decide(Box<Decide>),
    /// A review that waits; refused with [`Refusal::NoReview`] when there is none.
    Ticket {
        /// Of which run.
        run_id: RunId,
        /// Which of its.
        which: Which,
    },
    /// Reviews that wait on this shard, those of the newest runs first.
    Approvals(Box<ApprovalQuery>),
    /// Unfinished runs of this shard, newest first.
    List(ListQuery),
    /// Ids of unfinished runs of this shard, oldest first.
    Ids(Box<Stretch>),
    /// Where the run's durable events stand, and from then on push its events to this fanout core.
    Watch {
        /// Which run.
        run_id: RunId,
        /// Which of the fanout cores.
        hub: u16,
    },
    /// Stop pushing them to it.
    Unwatch {
        /// Which run.
        run_id: RunId,
        /// Which of the fanout cores.
        hub: u16,
    },
    /// Push the events of all runs to this fanout core, or no longer. Answered when what came before is durable.
    Feed {
        /// Which of the fanout cores.
        hub: u16,
        /// Whether it wants them.
        wanted: bool,
    },
    /// Where the run's durable events stand.
    Locate(RunId),
    /// A child that this run called back has heard, or is not there: the recall need not be told again.
    Recalled(RunId),
    /// What is asked of a run (the command in it), if its last event is one of these; [`Refusal::Changed`] otherwise. Judged
    /// where the command is taken, so nothing comes between.
    Guarded {
        /// Which run.
        run_id: RunId,
        /// Numbers of events.
        seqs: Vec<Seq>,
        /// What is asked.
        command: Box<Command>,
    },
    /// What is asked of a run (the command in it), with values of which some are contents of the content store: durable,
    /// with the run's reference to them. The run's events name them from then on.
    Keeping {
        /// Which run.
        run_id: RunId,
        /// Which values.
        kept: Arc<Kept>,
        /// What is asked.
        command: Box<Command>,
    },
    /// What is asked of a run (the command in it: a signal, an update, a change of its graph) under a key: answered as it was
    /// the first time when the run remembers it, refused with [`Refusal::KeyReused`] when that was another request. Of the
    /// other commands nothing is remembered.
    Once {
        /// Which run.
        run_id: RunId,
        /// The key, and what the request means.
        idempotency: Idempotency,
        /// What is asked.
        command: Box<Command>,
    },
    /// The run that has a business key, by the key's claim, unfinished or not yet in the index.
    Keyed(run_key::Claim),
}

impl Command {
    /// The run that this is about; `None` when it is about several, or about one that is not known.
    pub fn run_id(&self) -> Option<RunId> {
        match self {
            Self::Start(start) | Self::StartedBefore { start, .. } => Some(start.run_id),
            Self::Fork(fork) => Some(fork.run.id()),
            Self::Get(run_id)
            | Self::Graph(run_id)
            | Self::AwaitEnd(run_id)
            | Self::StopWaiting { run_id, .. }
            | Self::Cancel { run_id, .. }
            | Self::Pause { run_id, .. }
            | Self::Resume(run_id)
            | Self::Terminate { run_id, .. }
            | Self::Admit { run_id, .. }
            | Self::Watch { run_id, .. }
            | Self::Unwatch { run_id, .. }
            | Self::Locate(run_id)
            | Self::Recalled(run_id)
            | Self::Reject { run_id, .. }
            | Self::Decline { run_id, .. }
            | Self::Layers(run_id)
            | Self::Guarded { run_id, .. }
            | Self::Once { run_id, .. }
            | Self::Ticket { run_id, .. }
            | Self::Raise { run_id, .. }
            | Self::Keeping { run_id, .. } => Some(*run_id),
            Self::Settle(settle) => Some(settle.run_id),
            Self::Lease(lease) => Some(lease.run_id),
            Self::Agent(turn) => Some(turn.run_id),
            Self::Patch(patch) => Some(patch.run_id),
            Self::Decide(decide) => Some(decide.run_id),
            Self::Update(update) => Some(update.run_id),
            Self::Signal(_) | Self::List(_) | Self::Ids(_) | Self::Approvals(_) => None,
            Self::Keyed(_) | Self::Feed { .. } => None,
        }
    }

    /// The run for which whoever asks this waits, as long as they like; `None` when the answer comes at once.
    pub fn waits_for(&self) -> Option<RunId> {
        match self.inmost() {
            Self::AwaitEnd(run_id) => Some(*run_id),
            Self::Update(update) => update.wait.then_some(update.run_id),
            _ => None,
        }
    }

    /// What is asked, without what is said about it.
    pub fn inmost(&self) -> &Self {
        match self {
            Self::Guarded { command, .. } | Self::Keeping { command, .. } | Self::Once { command, .. } => {
                command.inmost()
            }
            command => command,
        }
    }

    /// The same, once for this key if there is one.
    #[must_use]
    pub fn once(self, run_id: RunId, key: Option<&Idempotency>) -> Self {
        match key {
            Some(key) => Self::Once { run_id, idempotency: key.clone(), command: Box::new(self) },
            None => self,
        }
    }

    /// The same, if the run's last event is one of these.
    #[must_use]
    pub fn guarded(self, run_id: RunId, seqs: Option<Vec<Seq>>) -> Self {
        match seqs {
            Some(seqs) => Self::Guarded { run_id, seqs, command: Box::new(self) },
            None => self,
        }
    }

    /// The same with these values kept, if there are any.
    #[must_use]
    pub fn keeping(self, run_id: RunId, kept: Option<Arc<Kept>>) -> Self {
        match kept {
            Some(kept) => Self::Keeping { run_id, kept, command: Box::new(self) },
            None => self,
        }
    }
}

/// The end of an attempt, on its way to the run that waits for it. One that comes twice, or too late, is dropped.
#[derive(Debug)]
pub struct Settle {
    /// Which run.
    pub run_id: RunId,
    /// Its node.
    pub place: Place,
    /// Number of the event that handed the attempt out.
    pub seq: Seq,
    /// How it ended.
    pub result: Result<Value, Failure>,
}

/// A worker wants to have an attempt.
#[derive(Debug)]
pub struct Lease {
    /// Of which run.
    pub run_id: RunId,
    /// Its node.
    pub place: Place,
    /// Number of the event that handed the attempt out.
    pub seq: Seq,
    /// What the worker calls itself.
    pub worker: Arc<str>,
}

/// What is said of a turn of an agent.
#[derive(Debug)]
pub struct Turn {
    /// Of which run.
    pub run_id: RunId,
    /// Its node.
    pub place: Place,
    /// Number of the event that the turn follows from.
    pub seq: Seq,
    /// What.
    pub says: Says,
}

/// What a shard wants done elsewhere, once the events it follows from are durable. None is ever lost: what a full queue or
/// a crash keeps back is asked for again, so whoever does it must be able to do it twice.
#[derive(Debug)]
pub enum Errand {
    /// An attempt is to be made.
    Dispatch {
        /// For which run.
        run_id: RunId,
        /// How many runs are above it.
        depth: u32,
        /// Of the shard that asks.
        epoch: u64,
        /// What.
        dispatch: Dispatch,
    },
    /// An attempt is given up.
    Recall {
        /// By which run.
        run_id: RunId,
        /// Which.
        recall: Recall,
    },
    /// A run wants to be admitted, or gives its claim up.
    Claim {
        /// Which.
        run_id: RunId,
        /// What.
        claiming: Claiming,
    },
    /// A call's answer is to be kept for when the same call fails.
    Keep {
        /// The run that made it.
        run_id: RunId,
        /// What.
        keep: Box<Keep>,
    },
    /// A child run has ended: its parent is to know.
    Ended {
        /// Who waits for it.
        parent: Parent,
        /// The child.
        child: RunId,
        /// How it ended.
        result: Result<Value, Failure>,
    },
}

/// The failure of a node whose child failed: the child's, under its own code.
pub fn child_failed(child: RunId, failure: Option<Failure>) -> Failure {
    let failure = failure.unwrap_or_else(|| Failure::fatal("child_failed", "it failed"));
    let message = format!("child {child}: {}", failure.message);
    Failure { message: message.into(), ..failure }
}

/// The failure of a node whose child was cancelled.
pub fn child_cancelled(child: RunId) -> Failure {
    Failure::fatal("child_cancelled", format!("child {child} was cancelled"))
}

impl Errand {
    /// The run that wants it.
    pub fn run_id(&self) -> RunId {
        match self {
            Self::Dispatch { run_id, .. }
            | Self::Recall { run_id, .. }
            | Self::Claim { run_id, .. }
            | Self::Keep { run_id, .. } => *run_id,
            Self::Ended { child, .. } => *child,
        }
    }
}

/// Everything a start needs, checked and compiled.
#[derive(Debug)]
pub struct Start {
    /// The id the run gets. With an idempotency key its partition is the key's, so that key and run share an owner.
    pub run_id: RunId,
    /// What to run.
    pub ir: Arc<Ir>,
    /// Its inputs, valid against the document's schema.
    pub inputs: Value,
    /// Source of the run's random draws.
    pub seed: u64,
    /// The caller's key, when there was one.
    pub idempotency: Option<Idempotency>,
    /// Overrides the document's deadline when shorter.
    pub deadline: Option<Duration>,
    /// The run whose child this is.
    pub parent: Option<Parent>,
    /// The business key it is to have, and what to do when an unfinished run has it. The run's partition is then that of
    /// the key's claim, and so is the idempotency key's scope.
    pub run_key: Option<(RunKey, OnConflict)>,
    /// The mode it is to run in, when not the document's.
    pub mode: Option<Mode>,
    /// What `ir` is made of, when that is not just a registered version.
    pub layered: Option<Arc<Layered>>,
}

/// What becomes of a start whose `run_key` an unfinished run has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnConflict {
    /// It is refused.
    #[default]
    Reject,
    /// It is answered with that run.
    Return,
    /// That run is ended, and this one started, in one step of the log.
    Replace,
}

impl OnConflict {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Reject, Self::Return, Self::Replace];

    /// Lower case, as in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reject => "reject",
            Self::Return => "return",
            Self::Replace => "replace",
        }
    }
}

/// Which unfinished runs to list.
#[derive(Clone, Debug)]
pub struct ListQuery {
    /// Ids below this one.
    pub before: Option<RunId>,
    /// Like this.
    pub filter: RunFilter,
    /// At most this many.
    pub limit: usize,
}

/// A stretch of runs in the order of their ids.
#[derive(Clone, Debug)]
pub struct Stretch {
    /// From this id on.
    pub from: RunId,
    /// Ids below this one.
    pub before: RunId,
    /// Like this.
    pub filter: RunFilter,
    /// At most this many.
    pub limit: usize,
}

/// What a shard answers.
#[derive(Debug)]
pub enum Reply {
    /// To `Start`.
    Started {
        /// State once the start was durable.
        run: RunSummary,
        /// The key had started this run before.
        replayed: bool,
    },
    /// To `Start`: this unfinished run has the key, and nothing was started.
    Existing(RunSummary),
    /// To `Keyed`.
    Keyed(Option<RunId>),
    /// To `Get`, `AwaitEnd`.
    Run(Box<RunView>),
    /// To `Graph`.
    Graph(Box<GraphView>),
    /// To `Cancel`, `Pause`, `Resume`, `Terminate`, `Signal`, `Settle`, `Decide` and `Reject`: done, and durable.
    Accepted(RunSummary),
    /// To `Update`: taken, and durable.
    Updated(Box<Updated>),
    /// To `Once`: it was done before. The run as it was then, and what was done. An update is answered with `Updated`.
    Repeated(RunSummary, Done),
    /// To `Patch`: done, and durable; the graph has this version.
    Patched(RunSummary, u32),
    /// To `Layers`.
    Layers(Box<LayersView>),
    /// To `List`.
    List(Vec<RunSummary>),
    /// To `Ids`.
    Ids(Vec<RunId>),
    /// To `Ticket`.
    Ticket(Box<TicketView>),
    /// To `Approvals`.
    Approvals(Vec<ListedReview>),
    /// To `Watch` and `Locate`.
    Located(Located),
    /// To `Unwatch`, to `Feed`, to `Recalled`, to `StopWaiting`, and to the `AwaitEnd` it ended.
    Done,
    /// Anything else.
    Refused(Refusal),
}
