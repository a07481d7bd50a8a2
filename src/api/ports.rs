//! What the API asks of storage: small blocking traits, so that it names no back end.
//!
//! All methods may touch the disk and are called from blocking threads, with one exception that says so. An error is
//! a failure of the storage, never "not there".

use std::sync::Arc;

use crate::engine::command::ListQuery;
use crate::model::event::{DocumentHash, Idempotency};
use crate::model::{Event, FrameRef, RunId, RunSummary, Seq};

/// The storage failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct StorageError(pub String);

/// One registered document.
#[derive(Clone, Debug, PartialEq)]
pub struct Registration {
    /// Name of the workflow.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Hash of the canonical document.
    pub hash: DocumentHash,
    /// The canonical document (RFC 8785); empty in listings.
    pub canonical: Vec<u8>,
}

/// What came of a registration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It stands under this version.
    Registered {
        /// The document's own, or the one assigned.
        version: String,
        /// False when this very document stood there before.
        created: bool,
    },
    /// Another document stands under this name and version.
    Conflict {
        /// Its hash.
        existing: DocumentHash,
    },
}

/// Tags of a workflow, each with its version.
pub type Tags = Vec<(Arc<str>, Arc<str>)>;

/// Registered workflows.
pub trait Workflows: Send + Sync {
    /// Registers a document, durably. Without a version the next free number is assigned, unless the very document is
    /// registered under this name already.
    ///
    /// # Errors
    /// The storage failed.
    fn register(
        &self,
        name: &str,
        version: Option<&str>,
        canonical: &[u8],
        hash: &DocumentHash,
    ) -> Result<Outcome, StorageError>;

    /// One version, or the one registered last.
    ///
    /// # Errors
    /// The storage failed.
    fn get(&self, name: &str, version: Option<&str>) -> Result<Option<Registration>, StorageError>;

    /// Points a tag at a version, durably; `None` takes it away. False when there is no such version.
    ///
    /// # Errors
    /// The storage failed.
    fn tag(&self, name: &str, tag: &str, version: Option<&str>) -> Result<bool, StorageError>;

    /// Tags of a workflow with their versions, by tag.
    ///
    /// # Errors
    /// The storage failed.
    fn tags(&self, name: &str) -> Result<Tags, StorageError>;

    /// The document with this hash.
    ///
    /// # Errors
    /// The storage failed.
    fn by_hash(&self, hash: &DocumentHash) -> Result<Option<Registration>, StorageError>;

    /// At most `limit` registrations after `after` (name, version), in that order, without their documents.
    ///
    /// # Errors
    /// The storage failed.
    fn list(&self, after: Option<(&str, &str)>, limit: usize) -> Result<Vec<Registration>, StorageError>;
}

/// Where the events of a run are.
#[derive(Clone, Debug, PartialEq)]
pub struct Location {
    /// The run in one line, as of its last durable event.
    pub summary: RunSummary,
    /// Hash of its document.
    pub document: DocumentHash,
    /// Whose journal holds the frames.
    pub shard: u16,
    /// Frames that hold its events, oldest first.
    pub frames: Vec<FrameRef>,
}

/// Finished runs, and the events of all runs.
pub trait Runs: Send + Sync {
    /// A finished run.
    ///
    /// # Errors
    /// The storage failed.
    fn get(&self, run_id: RunId) -> Result<Option<Location>, StorageError>;

    /// Finished runs, newest first. When it stopped before all were looked at: the id of the last one that was; runs with
    /// smaller ids may be missing.
    ///
    /// # Errors
    /// The storage failed.
    fn list(&self, query: &ListQuery) -> Result<(Vec<RunSummary>, Option<RunId>), StorageError>;

    /// The finished run that an idempotency key started. Called on the control core for every start with a key: for a
    /// key that was never used it must be answered from memory.
    ///
    /// # Errors
    /// The storage failed.
    fn by_key(&self, key: &[u8; 16]) -> Result<Option<(RunSummary, Idempotency)>, StorageError>;

    /// Forgets a finished run for good, durably; false when there is none.
    ///
    /// # Errors
    /// The storage failed.
    fn erase(&self, run_id: RunId) -> Result<bool, StorageError>;

    /// At most `limit` events of a run after number `after`, in order.
    ///
    /// # Errors
    /// The storage failed.
    fn events(&self, location: &Location, after: Seq, limit: usize) -> Result<Vec<Event>, StorageError>;
}
