//! Where state is kept: traits that say what durable obliges, and the embedded back end.
//!
//! [`Journal`] is the truth, [`log`] its embedded form, [`memory`] its reference. [`Archive`] and
//! [`Registry`] live in an embedded index ([`index`]). [`images`] are kept there too. [`layout`] owns the data directory, [`history`] reads
//! the events of one run back. Nothing here decides what is kept: the shard says what to append and which
//! segments it no longer needs. A failed write or sync is final ([`Error::Fenced`]): the only way on is a
//! restart with recovery.

pub mod approvals;
pub mod archive;
pub mod artifacts;
#[cfg(test)]
pub(crate) mod conformance;
pub mod files;
pub mod frames;
pub mod history;
pub mod images;
pub mod index;
pub mod journal;
pub mod keyspaces;
pub mod layout;
pub mod letters;
pub mod log;
pub mod memory;
pub mod record;
#[cfg(feature = "redis")]
pub mod redis;
pub mod references;
pub mod signing;
#[cfg(test)]
pub(crate) mod testing;
pub mod triggers;

use std::path::PathBuf;
use std::sync::Arc;

pub use approvals::Approvals;
pub use archive::{Archive, Registry};
pub use artifacts::Artifacts;
pub use journal::{Durability, Fence, Journal, Position};
pub use letters::Letters;
pub use references::References;
pub use triggers::TriggerStore;

/// What can go wrong with what is kept.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused.
    #[error("cannot {doing}: {source}")]
    Io {
        /// What was tried, with the path.
        doing: String,
        /// Its answer.
        source: std::io::Error,
    },
    /// No room on the file system.
    #[error("disk_full: cannot {doing}: the file system has no room left; free some and start again")]
    DiskFull {
        /// What was tried, with the path.
        doing: String,
    },
    /// An earlier failure ended this journal.
    #[error("the journal is fenced until a restart: {cause}")]
    Fenced {
        /// The first failure.
        cause: Arc<str>,
    },
    /// Another owner has claimed the journal.
    #[error("fence {given} is stale: the journal is held by {held}")]
    StaleFence {
        /// Who holds it.
        held: Fence,
        /// Who asked.
        given: Fence,
    },
    /// Not the next position.
    #[error("position {given} is not the next one, {expected}")]
    WrongPosition {
        /// What would be taken.
        expected: Position,
        /// What was given.
        given: Position,
    },
    /// Another batch stands at this position.
    #[error("position {position} holds another batch")]
    DifferentBatch {
        /// Where.
        position: Position,
    },
    /// What was asked for has been given back.
    #[error("positions below {first} have been trimmed; {wanted} is gone")]
    Trimmed {
        /// First one kept.
        first: Position,
        /// What was asked for.
        wanted: Position,
    },
    /// A batch that can not be written as one frame.
    #[error("a batch of {bytes} bytes; at most {max} fit in a segment (limit journal_segment_bytes)")]
    BatchTooLarge {
        /// Its size.
        bytes: usize,
        /// What fits.
        max: usize,
    },
    /// The journal is damaged where it had been synced, or made of files that do not belong together.
    #[error("the journal is corrupt: {file} at byte {offset}, position {position}: {why}")]
    Corrupt {
        /// Which file.
        file: PathBuf,
        /// Where in it.
        offset: u64,
        /// What should stand there.
        position: Position,
        /// What is wrong.
        why: String,
    },
    /// A history file is damaged, or not the one it should be.
    #[error("history_corrupt: {file} at byte {offset}: {why}")]
    HistoryCorrupt {
        /// Which file.
        file: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong.
        why: String,
    },
    /// Bytes that are no record.
    #[error("a record cannot be read: {why}")]
    Record {
        /// What is wrong.
        why: String,
    },
    /// The events were in a segment that has been used again.
    #[error("the history has been given back: segment {segment} is gone")]
    Gone {
        /// Which.
        segment: u64,
    },
    /// Another process serves this directory.
    #[error("{dir} is in use by process {pid}; one process may serve a data directory")]
    Locked {
        /// Which.
        dir: PathBuf,
        /// Who holds it.
        pid: String,
    },
    /// The directory is of another format.
    #[error("{dir} has format {found}; this binary knows up to {known}")]
    Format {
        /// Which.
        dir: PathBuf,
        /// What stands there.
        found: String,
        /// What this binary can read.
        known: u32,
    },
    /// There is neither journal nor index nor history in this directory.
    #[error("the state of {dir} is in Redis, not in the directory (store.url)")]
    Elsewhere {
        /// Which.
        dir: PathBuf,
    },
    /// The directory and the store do not belong together.
    #[error(
        "{dir} does not belong to the store at {server}: {why}; give the node another data_dir, or another store (store.url)"
    )]
    OtherStore {
        /// Which directory.
        dir: PathBuf,
        /// Address of the store.
        server: String,
        /// What differs.
        why: String,
    },
    /// Same name and version, another document.
    #[error("workflow {name} version {version} is registered with another document")]
    Conflict {
        /// Its name.
        name: String,
        /// Its version.
        version: String,
    },
    /// The index failed.
    #[error("the index failed: {why}")]
    Index {
        /// Its words.
        why: String,
    },
    /// The store does not answer, or takes no writes now. Nothing was written.
    #[error("the store at {server} cannot be used now: {why}")]
    StoreUnreachable {
        /// Its address.
        server: String,
        /// What it said, or did not say.
        why: String,
    },
    /// The store refuses. Nothing was written, and nothing will be until somebody sees to it.
    #[error("the store at {server} refuses: {why}")]
    StoreRefused {
        /// Its address.
        server: String,
        /// Its words.
        why: String,
    },
    /// The store is not set up to keep what it acknowledges at the level asked for.
    #[error(
        "the store at {server} does not give {level}: {why}; change it there, or ask for another level (durability)"
    )]
    StoreTooWeak {
        /// Its address.
        server: String,
        /// What was asked for.
        level: String,
        /// Which setting.
        why: String,
    },
    /// The store has less than it once acknowledged.
    #[error(
        "the store at {server} has lost what it acknowledged: it has {found}, and had {known}; nothing is taken until an operator decides"
    )]
    StoreRegressed {
        /// Its address.
        server: String,
        /// What it has now.
        found: String,
        /// What it had.
        known: String,
    },
    /// What stands in the store was not written by a node.
    #[error("the store is damaged at {key}: {why}")]
    StoreDamaged {
        /// Which key.
        key: String,
        /// What is wrong.
        why: String,
    },
    /// An earlier failure ended writing to the index.
    #[error("the index takes no writes until a restart: {cause}")]
    IndexFenced {
        /// The first failure.
        cause: Arc<str>,
    },
}

impl Error {
    /// Stable, snake_case.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Io { .. } => "io",
            Self::DiskFull { .. } => "disk_full",
            Self::Fenced { .. } => "journal_fenced",
            Self::StaleFence { .. } => "stale_fence",
            Self::WrongPosition { .. } => "wrong_position",
            Self::DifferentBatch { .. } => "different_batch",
            Self::Trimmed { .. } => "trimmed",
            Self::BatchTooLarge { .. } => "batch_too_large",
            Self::Corrupt { .. } => "journal_corrupt",
            Self::HistoryCorrupt { .. } => "history_corrupt",
            Self::Record { .. } => "record_invalid",
            Self::Gone { .. } => "history_gone",
            Self::Locked { .. } => "data_dir_locked",
            Self::Format { .. } => "data_dir_format",
            Self::Elsewhere { .. } => "data_dir_elsewhere",
            Self::OtherStore { .. } => "store_mismatch",
            Self::Conflict { .. } => "workflow_conflict",
            Self::StoreUnreachable { .. } => "store_unreachable",
            Self::StoreRefused { .. } => "store_refused",
            Self::StoreTooWeak { .. } => "store_too_weak",
            Self::StoreRegressed { .. } => "store_regressed",
            Self::StoreDamaged { .. } => "store_damaged",
            Self::Index { .. } => "index_failed",
            Self::IndexFenced { .. } => "index_fenced",
        }
    }

    /// Could something not be read, which says nothing of what it is?
    pub fn is_unread(&self) -> bool {
        matches!(
            self,
            Self::Io { .. }
                | Self::DiskFull { .. }
                | Self::StoreUnreachable { .. }
                | Self::StoreRefused { .. }
                | Self::StoreTooWeak { .. }
        )
    }

    /// From the operating system's answer; a full disk is named.
    pub(crate) fn io(doing: impl Into<String>, source: std::io::Error) -> Self {
        if source.kind() == std::io::ErrorKind::StorageFull {
            Self::DiskFull { doing: doing.into() }
        } else {
            Self::Io { doing: doing.into(), source }
        }
    }
}

impl From<fjall::Error> for Error {
    fn from(error: fjall::Error) -> Self {
        match error {
            fjall::Error::Io(source) => Self::io("write the index", source),
            // Its calls are refused by us after one has failed.
            fjall::Error::Poisoned => Self::Index { why: "what it does in the background failed".into() },
            other => Self::Index { why: other.to_string() },
        }
    }
}
