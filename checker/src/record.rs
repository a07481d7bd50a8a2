//! One line of a recorded history (`docs/formats/client-history.md`). Recorders write these, the checker reads them.
//!
//! A member that is not known is refused: a history that says more than the checker understands was not checked.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Version of the format.
pub const VERSION: u32 = 1;

/// What a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// A run.
    Start,
    /// A signal to a run.
    Signal,
    /// A run's graph to be changed.
    Patch,
    /// A change of a run's graph to be taken back.
    Revoke,
    /// A patch that waits for a human to be made.
    Approve,
    /// A patch that waits for a human not to be made.
    Decline,
    /// A review to be decided.
    Decide,
    /// A run to be cancelled.
    Cancel,
    /// A run to be paused.
    Pause,
    /// A run to go on.
    Resume,
    /// A run to end at once.
    Terminate,
    /// A worker's result.
    Complete,
    /// A worker's failure.
    Fail,
    /// Jobs for a worker.
    Poll,
    /// One run.
    Read,
}

impl What {
    /// Does it change anything when it is acknowledged?
    pub fn changes(self) -> bool {
        !matches!(self, Self::Poll | Self::Read)
    }
}

/// What was done to the node, from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// `kill -9`, or an end by a failpoint.
    Kill,
    /// An orderly end.
    Stop,
    /// A power cut.
    Cut,
    /// It serves again.
    Restart,
    /// The disk reported a failed sync.
    SyncFailed,
    /// What was acknowledged, read or streamed between `from_us` and `at_us` may be lost (level `os`, power cut).
    LossWindow,
    /// From here on nothing goes wrong.
    Heal,
}

/// The first line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// [`VERSION`].
    pub version: u32,
    /// Where every choice of the recorder came from.
    pub seed: u64,
    /// Level that every acknowledgement must name.
    pub durability: String,
    /// How far the clock of the ledgers may be from the node's.
    pub clock_slack_ms: u64,
    /// A timer may fire so much after it was due while nothing was done to the node; absent: that is not checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timer_late_ms_max: Option<u64>,
}

/// A client begins an operation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Invoke {
    /// Monotonic time.
    pub at_us: u64,
    /// Number of the operation; another for every try.
    pub op: u64,
    /// Who: a client does one thing at a time.
    pub process: String,
    /// What.
    pub what: What,
    /// The run it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// `Idempotency-Key`, with its scope.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// A text that stands nowhere else, and in the event that follows from it. All tries of one start share it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// Of a worker's result: the node it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Of a read: what it must include.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_seq: Option<u64>,
    /// In whose name, where the node keeps workspaces apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace: Option<String>,
}

/// An operation ended well.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Done {
    /// Monotonic time.
    pub at_us: u64,
    /// Which.
    pub op: u64,
    /// The run that was answered with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// Its number of events then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    /// Its status then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// The level it was acknowledged at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub durability: Option<String>,
    /// The owner's epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
    /// `Idempotent-Replayed: true`.
    #[serde(default, skip_serializing_if = "is_false")]
    pub replayed: bool,
    /// The answer itself, where a repetition must be the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<Value>,
}

/// Something that a service or a worker was asked to do, as it saw it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Call {
    /// Monotonic time.
    pub at_us: u64,
    /// Time of day, in milliseconds since 1970.
    pub wall_ms: u64,
    /// Whose ledger: `worker` for a job, anything else for an HTTP service.
    pub service: String,
    /// `Idempotency-Key`, when it was sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// For which run.
    pub run: String,
    /// For which node.
    pub node: String,
    /// Which attempt.
    pub attempt: u64,
    /// Under which epoch.
    pub epoch: u64,
    /// The service keeps keys: a repeated one has no effect.
    pub honours: bool,
    /// It had an effect.
    pub effect: bool,
    /// What it answered; stands in the output of the node when the answer arrives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
    /// Of a worker: in whose name it asked for jobs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace: Option<String>,
}

/// A run as the node tells of it in a dump.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// In which dump.
    pub dump: u64,
    /// Which.
    pub run: String,
    /// The run in full, as answered.
    pub body: Value,
    /// It was in the listing.
    pub listed: bool,
    /// What its nodes wait for, when it has not ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waits: Vec<String>,
    /// In whose name it was found, where the node keeps workspaces apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace: Option<String>,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Record {
    /// The first line.
    Head(Head),
    /// An operation begins.
    Invoke(Invoke),
    /// It ended well.
    Ok(Done),
    /// It was refused: it did not happen and will not.
    Fail {
        /// Monotonic time.
        at_us: u64,
        /// Which.
        op: u64,
        /// The refusal's code.
        code: String,
    },
    /// Nobody knows whether it happened.
    Unknown {
        /// Monotonic time.
        at_us: u64,
        /// Which.
        op: u64,
    },
    /// A stream is opened.
    Open {
        /// Monotonic time.
        at_us: u64,
        /// Number of this connection.
        stream: u64,
        /// Who.
        process: String,
        /// Of which run.
        run: String,
        /// `Last-Event-ID`; 0 for all.
        after: u64,
        /// In whose name, where the node keeps workspaces apart.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        workspace: Option<String>,
    },
    /// It delivers an event.
    Event {
        /// Monotonic time.
        at_us: u64,
        /// Which connection.
        stream: u64,
        /// The number in its id.
        seq: u64,
        /// Its data.
        event: Value,
    },
    /// It says that it cannot go on from there.
    Resync {
        /// Monotonic time.
        at_us: u64,
        /// Which connection.
        stream: u64,
    },
    /// It ends.
    Close {
        /// Monotonic time.
        at_us: u64,
        /// Which connection.
        stream: u64,
    },
    /// Something in a ledger.
    Call(Call),
    /// Something was done to the node.
    Fault {
        /// Monotonic time.
        at_us: u64,
        /// What.
        what: FaultKind,
        /// Since when it counts.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from_us: Option<u64>,
        /// Time of day.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        wall_ms: Option<u64>,
    },
    /// A dump of all runs begins; its lines follow.
    Dump {
        /// Monotonic time.
        at_us: u64,
        /// 1, 2, ...
        dump: u64,
        /// Nothing was under way, and nothing since the dump before: all of both must be the same.
        still: bool,
    },
    /// A run of a dump.
    Run(Run),
    /// An event of a run of a dump.
    Row {
        /// In which dump.
        dump: u64,
        /// Of which run.
        run: String,
        /// As answered.
        event: Value,
    },
    /// A document that runs execute.
    Document {
        /// As runs name it.
        hash: String,
        /// Itself.
        document: Value,
    },
}

impl Record {
    /// When, for lines that have a time.
    pub fn at_us(&self) -> Option<u64> {
        match self {
            Self::Invoke(Invoke { at_us, .. })
            | Self::Ok(Done { at_us, .. })
            | Self::Call(Call { at_us, .. })
            | Self::Fail { at_us, .. }
            | Self::Unknown { at_us, .. }
            | Self::Open { at_us, .. }
            | Self::Event { at_us, .. }
            | Self::Resync { at_us, .. }
            | Self::Close { at_us, .. }
            | Self::Fault { at_us, .. }
            | Self::Dump { at_us, .. } => Some(*at_us),
            Self::Head(_) | Self::Run(_) | Self::Row { .. } | Self::Document { .. } => None,
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_false(flag: &bool) -> bool {
    !flag
}
