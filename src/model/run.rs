//! What is said about a run outside of it: its status, its one-line summary, where its events stand.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{RunId, Seq};
use crate::time::Timestamp;

/// Status of a run (WORKFLOW.md; D18).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum Status {
    /// Accepted, nothing started.
    Pending,
    /// Under way.
    Running,
    /// Nothing starts until resumed.
    Paused,
    /// Ended well.
    Completed,
    /// Ended badly.
    Failed,
    /// Ended by request.
    Cancelled,
}

impl Status {
    /// Lower case, as in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// No status follows this one.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }
}

/// What is written down of a run (F242, F247).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum Mode {
    /// Every transition.
    #[default]
    Full,
    /// Only what cannot be decided again: everything that comes from outside, everything that goes there.
    Fast,
}

impl Mode {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Full, Self::Fast];

    /// Lower case, as in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Fast => "fast",
        }
    }
}

/// How soon a run goes on when others could go on too (F047). It decides only between runs of one shard, and only while
/// the shard has more to do than time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// Before the others.
    High,
    /// Where nothing is said.
    #[default]
    Medium,
    /// When there is time; but never not at all.
    Low,
}

impl Priority {
    /// All, the most urgent first.
    pub const ALL: [Self; 3] = [Self::High, Self::Medium, Self::Low];

    /// Lower case, as in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::High => "high",
            Self::Medium => "medium",
            Self::Low => "low",
        }
    }
}

/// One line about a run; also what every acknowledgement carries.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunSummary {
    /// Which.
    pub run_id: RunId,
    /// Name of its workflow.
    pub workflow: Arc<str>,
    /// And its version.
    pub version: Arc<str>,
    /// Its status.
    pub status: Status,
    /// Number of its last event.
    pub seq: Seq,
    /// Owner epoch.
    pub epoch: u64,
    /// Start.
    pub started_at: Timestamp,
    /// End, when it has ended.
    pub ended_at: Option<Timestamp>,
    /// Its business key. Rows of the index hold it beside the summary.
    #[serde(skip)]
    pub run_key: Option<Arc<str>>,
}

/// A frame of a shard's journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FrameRef {
    /// Number of the segment.
    pub segment: u64,
    /// Byte offset of the frame in it.
    pub offset: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_priority_reads_as_it_is_written() {
        for priority in Priority::ALL {
            let text = format!("\"{}\"", priority.as_str());
            assert_eq!(serde_json::to_string(&priority).unwrap(), text);
            assert_eq!(serde_json::from_str::<Priority>(&text).unwrap(), priority);
        }
        assert_eq!(Priority::default(), Priority::Medium);
        assert!(serde_json::from_str::<Priority>("\"urgent\"").is_err());
    }
}
