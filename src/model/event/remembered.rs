//! What a run remembers of a request with an `Idempotency-Key`. Part of the journal's format, like every event.

use serde::{Deserialize, Serialize};

use super::{DocumentHash, Idempotency, Place};
use crate::model::patch::PatchId;
use crate::model::{Seq, Status};

/// A request that was done once, and how it is answered from then on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remembered {
    /// Its key, with the run and the route as its scope, and what it asked for.
    pub idempotency: Idempotency,
    /// Of the run, when it was done.
    pub status: Status,
    /// What was done.
    pub done: Done,
}

/// What was done for a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Done {
    /// A signal or an update was taken.
    Signal {
        /// Number of its event.
        seq: Seq,
        /// Who took it, and who answers when it is an update; `None`: it was kept.
        taken: Option<(Place, Place)>,
    },
    /// The run's graph was changed, or is to be when a human says so.
    Patch {
        /// The patch that was made; `None` when patches were taken back.
        patch_id: Option<PatchId>,
        /// It waits for a human.
        held: bool,
        /// Version of the graph from then on.
        version: u32,
        /// Hash of its document.
        document: DocumentHash,
        /// What was taken back.
        revoked: Vec<PatchId>,
    },
    /// The run was given more to spend.
    Budget {
        /// Number of its event.
        seq: Seq,
    },
}
