//! Why what is on disk does not fold.

use crate::model::RunId;
use crate::runtime::shard::image::Unusable;

/// Why a history cannot be folded. The shard is refused; nothing is guessed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A burst's bytes do not decode.
    #[error("events of {run_id} at segment {segment} offset {offset} do not decode: {cause}")]
    Undecodable {
        /// Which run.
        run_id: RunId,
        /// Where.
        segment: u64,
        /// Where in it.
        offset: u32,
        /// The decoder's words.
        cause: String,
    },
    /// The fold refused an event.
    #[error("event {seq} of {run_id} does not fit its history: {cause}")]
    Misfit {
        /// Which run.
        run_id: RunId,
        /// Which event.
        seq: u64,
        /// The engine's words.
        cause: String,
    },
    /// The index cannot say whether a run has ended.
    #[error("the index cannot say whether {run_id} has ended: {cause}")]
    Index {
        /// Which run.
        run_id: RunId,
        /// The index's words.
        cause: String,
    },
    /// Events of a run are not there, and neither the index nor an image says why.
    #[error(
        "events {expected} to {last} of {run_id} are missing: no image holds them, and the index does not say that it has ended",
        last = first_seq - 1
    )]
    Gap {
        /// Which run.
        run_id: RunId,
        /// The first that is missing.
        expected: u64,
        /// The first that is there again.
        first_seq: u64,
    },
    /// An image cannot be gone on from.
    #[error("the image of {run_id} cannot be used: {why}")]
    Image {
        /// Of which run.
        run_id: RunId,
        /// What is wrong.
        why: Unusable,
    },
    /// The document a run executes is not registered.
    #[error("the document of {run_id} is not in the registry")]
    NoDocument {
        /// Which run.
        run_id: RunId,
    },
}

/// Why a burst is not folded.
pub(super) enum Unfolded {
    /// A content that it names is not to be had.
    Lost(String),
    /// Its bytes are no events.
    Undecodable(crate::store::Error),
}

impl From<crate::store::Error> for Unfolded {
    fn from(error: crate::store::Error) -> Self {
        Self::Undecodable(error)
    }
}

impl Error {
    /// May it be gone when no image is used and everything is read?
    pub(crate) fn spoils_images(&self) -> bool {
        matches!(self, Self::Gap { .. } | Self::Image { .. } | Self::Misfit { .. })
    }
}
