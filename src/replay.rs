//! Replay: what a run's record says, decided again without the world.
//!
//! A [`Record`] is everything that is known of one run: its events in the bursts in which they were decided, the values that
//! they name, its document. A [`Bundle`] is a record as one file. [`freeze`] gives a run the inputs of its record again and
//! compares every event; [`state`] is the run as it was after some event; [`shadow`] runs it again with other inputs or
//! another document, answers taken from the record; [`fork`] is the state that another run goes on from.
//!
//! What must hold: nothing in here calls anything, reads a clock or draws; time is the record's. A record may be anybody's:
//! its sizes are bounded by [`crate::limits`], and one that no node could have written is refused, never believed.

pub mod bundle;
pub mod difference;
pub mod documents;
pub mod fork;
pub mod freeze;
pub mod record;
pub mod shadow;
pub mod state;
#[cfg(test)]
mod tests;

pub use bundle::Bundle;
pub use documents::Documents;
pub use freeze::{Divergence, Verified, freeze};
pub use record::{Burst, Record};
pub use state::Folding;

use crate::engine::{FoldError, ImageError};
use crate::ir;
use crate::model::Seq;

/// Why a record cannot be replayed, or is not what it should be.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Error {
    /// The engine decides something else than the record has.
    #[error("{0}")]
    Diverged(Box<Divergence>),
    /// The file is none that a node writes.
    #[error("the bundle is not usable: {0}")]
    Bundle(String),
    /// Something is larger than it may be.
    #[error("{what}: {value}; at most {most} (limit {limit})")]
    Limit {
        /// Of what there is too much.
        what: &'static str,
        /// How much there is.
        value: u64,
        /// The most.
        most: u64,
        /// Its name.
        limit: &'static str,
    },
    /// The run was begun under another meaning.
    #[error("the run has semantics {found}; this program knows {known}", known = ir::SEMANTICS_VERSION)]
    Semantics {
        /// The run's.
        found: u32,
    },
    /// A document is missing, or a patch gives another one than the record says.
    #[error("event {seq}: {why}")]
    Document {
        /// Where it is needed.
        seq: Seq,
        /// What is wrong.
        why: String,
    },
    /// An event does not fit what comes before it.
    #[error("event {seq} does not fit: {why}")]
    Unfit {
        /// Its number.
        seq: Seq,
        /// What is wrong.
        why: String,
    },
    /// There is no such node.
    #[error("the run has no node {0:?}")]
    NoNode(String),
    /// The node has not begun in this record.
    #[error("the node {0:?} has not begun in this run")]
    NotBegun(String),
    /// There is no such event.
    #[error("the run has the events 1 to {last}; {seq} is none of them")]
    NoEvent {
        /// What was asked for.
        seq: Seq,
        /// Number of the last one.
        last: Seq,
    },
    /// No other run can go on from there.
    #[error("no run can go on from event {seq}: {why}")]
    NoFork {
        /// The event.
        seq: Seq,
        /// What stands against it.
        why: String,
    },
    /// What is to be run instead cannot be.
    #[error("{0}")]
    Other(String),
}

impl Error {
    fn unfit(seq: Seq, error: &FoldError) -> Self {
        Self::Unfit { seq, why: error.to_string() }
    }

    /// Does it say that the record is not what the engine decides? Everything else says that nobody can tell.
    pub fn is_divergence(&self) -> bool {
        matches!(self, Self::Diverged(_))
    }
}

impl From<ImageError> for Error {
    fn from(error: ImageError) -> Self {
        Self::Other(error.to_string())
    }
}
