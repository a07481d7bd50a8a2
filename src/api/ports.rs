//! What the API asks of storage: small blocking traits, so that it names no back end.
//!
//! All methods may touch the disk and are called from blocking threads, with one exception that says so. An error is
//! a failure of the storage, never "not there".

use std::sync::Arc;

use crate::engine::command::{Ir, ListQuery};
use crate::model::event::{DocumentHash, Forked, Idempotency};
use crate::model::patch::Layer;
use crate::model::usage::DayUsage;
pub use crate::model::workflow::{Amendment, Notes};
use crate::model::{
    ContentHash, Event, EventBody, FrameRef, Kept, RunFilter, RunId, RunSummary, Seq, Status, Value,
    Workspace,
};
use crate::replay::Bundle;
use crate::store::history::RunAudit;
use crate::telemetry::Cell;

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

    /// Changes what is noted about a workflow, durably and in one step.
    ///
    /// # Errors
    /// The storage failed.
    fn amend(&self, name: &str, amendment: &Amendment<'_>) -> Result<(), StorageError>;

    /// Notes about a workflow whose keys begin so, in the order of their keys.
    ///
    /// # Errors
    /// The storage failed.
    fn notes(&self, name: &str, prefix: &[u8]) -> Result<Notes, StorageError>;

    /// Tags of a workflow with their versions, by tag.
    ///
    /// # Errors
    /// The storage failed.
    fn tags(&self, name: &str) -> Result<Tags, StorageError>;

    /// Keeps a document that runs of the workflow of this name run, durably, without registering it as a version.
    ///
    /// # Errors
    /// The storage failed.
    fn keep(&self, name: &str, canonical: &[u8], hash: &DocumentHash) -> Result<(), StorageError>;

    /// The document with this hash.
    ///
    /// # Errors
    /// The storage failed.
    fn by_hash(&self, hash: &DocumentHash) -> Result<Option<Registration>, StorageError>;

    /// The text of a document that a run in fast mode was patched to, and refers to; of no other.
    ///
    /// # Errors
    /// The storage failed, or what it has is damaged.
    fn patched(&self, _: &DocumentHash) -> Result<Option<Vec<u8>>, StorageError> {
        Ok(None)
    }

    /// At most `limit` registrations after `after` (name, version), in that order, without their documents.
    ///
    /// # Errors
    /// The storage failed.
    fn list(&self, after: Option<(&str, &str)>, limit: usize) -> Result<Vec<Registration>, StorageError>;
}

/// Where the events of a run are.
#[derive(Clone, Debug)]
pub struct Location {
    /// The run in one line, as of its last durable event.
    pub summary: RunSummary,
    /// Hash of its document.
    pub document: DocumentHash,
    /// Its graph, when it is not over.
    pub graph: Option<Arc<Ir>>,
    /// Version of its graph.
    pub version: u32,
    /// Whose journal holds the frames.
    pub shard: u16,
    /// Frames that hold its events, oldest first.
    pub frames: Vec<FrameRef>,
}

/// What there is of a content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Its bytes, verified.
    Whole(Vec<u8>),
    /// It is there and is not what its name says; in words.
    Damaged(String),
    /// Something refers to it, and it is not there; in words.
    Missing(String),
    /// Nobody in this workspace refers to it.
    Unknown,
}

/// What is counted of the content store.
#[derive(Debug, Default)]
pub struct ContentCells {
    /// Contents stored (a level).
    pub blobs: Cell,
    /// Their bytes (a level).
    pub bytes: Cell,
    /// Contents that were to be stored and were there already.
    pub shared: Cell,
    /// Contents removed because nothing refers to them.
    pub collected: Cell,
    /// Damaged contents met.
    pub damaged: Cell,
}

/// The content store, and who refers to what in it.
pub trait Contents: Send + Sync {
    /// Bytes of a value up to which it is not stored here. Not blocking.
    fn inline_max(&self) -> usize;

    /// What is counted. Not blocking.
    fn cells(&self) -> &Arc<ContentCells>;

    /// How long a content without a reference is kept at least. Not blocking.
    fn grace(&self) -> std::time::Duration;

    /// Stores a document that the run is about to be patched to, and that the run refers to it, durably.
    ///
    /// # Errors
    /// The storage failed: nothing may name it.
    fn keep_document(
        &self,
        run: (RunId, &Workspace),
        document: (&DocumentHash, &str),
    ) -> Result<(), StorageError>;

    /// Stores these parts of a value, and that the run refers to them, durably.
    ///
    /// # Errors
    /// The storage failed: nothing may name them.
    fn keep(&self, run_id: RunId, workspace: &Workspace, parts: Vec<Value>) -> Result<Kept, StorageError>;

    /// A content that a run of this workspace refers to, or a document registered in it.
    ///
    /// # Errors
    /// The storage failed.
    fn read(&self, sha256: &ContentHash, workspace: &Workspace) -> Result<Content, StorageError>;

    /// How many runs of this workspace refer to a content, counted up to a limit.
    ///
    /// # Errors
    /// The storage failed.
    fn references(&self, sha256: &ContentHash, workspace: &Workspace) -> Result<usize, StorageError>;

    /// The next runs with references that are not in the archive, as the collector goes round.
    ///
    /// # Errors
    /// The storage failed.
    fn unarchived(&self) -> Result<Vec<RunId>, StorageError>;

    /// Notes that no shard has this run. Once that has been so for the time of grace, and it is not in the archive either,
    /// its references are dropped.
    ///
    /// # Errors
    /// The storage failed.
    fn nowhere(&self, run_id: RunId, now_us: u64) -> Result<(), StorageError>;

    /// Looks over some contents, and removes those that nothing has referred to for the time of grace.
    ///
    /// # Errors
    /// The storage failed.
    fn sweep(&self, now_us: u64) -> Result<(), StorageError>;
}

/// The document that a run began with, and the changes of its graph.
pub type Overlay = (DocumentHash, Vec<Arc<Layer>>);

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// The patch set of its workflow that it was an arm of.
    pub arm: Option<Arc<str>>,
    /// Its status.
    pub status: Status,
    /// From its start to its end.
    pub took_us: u64,
}

/// Finished runs, and the events of all runs.
pub trait Runs: Send + Sync {
    /// The chain of hashes over all events of a run, as they are stored, with its links after `after`, at most `limit`; and what the
    /// seals of its segments say.
    ///
    /// # Errors
    /// The storage failed. Damage is a finding.
    fn audit(&self, location: &Location, after: Seq, limit: usize) -> Result<RunAudit, StorageError>;

    /// The graph that names the nodes of a run. `None`: its document is not to be had.
    ///
    /// # Errors
    /// The storage failed, or a patched document cannot be made again.
    fn graph(&self, location: &Location) -> Result<Option<Arc<Ir>>, StorageError>;

    /// How the graph of a run came to be, from its events.
    ///
    /// # Errors
    /// The storage failed.
    fn overlay(&self, location: &Location) -> Result<Overlay, StorageError>;

    /// What the finished runs of a workspace used of models, from one day to another (since 1970, both included), oldest first;
    /// at most `limit` sums.
    ///
    /// # Errors
    /// The storage failed.
    fn usage(&self, _: &Workspace, _: (u32, u32), _: usize) -> Result<Vec<DayUsage>, StorageError> {
        Ok(Vec::new())
    }

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

    /// Shows how finished runs of a workflow ended, newest first. False: there were too many to look at them all.
    ///
    /// # Errors
    /// The storage failed.
    fn endings(&self, filter: &RunFilter, seen: &mut dyn FnMut(Ending)) -> Result<bool, StorageError>;

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

    /// At most `limit` events of a run after number `after`, in order, as clients see them: a value that is kept by
    /// reference is its reference.
    ///
    /// # Errors
    /// The storage failed.
    fn events(&self, location: &Location, after: Seq, limit: usize) -> Result<Vec<Event>, StorageError>;

    /// Gives all that happened in a finished run to `seen`, in order: its events, and what a run in fast mode did not write
    /// down.
    ///
    /// # Errors
    /// The storage failed; or the history of a run in fast mode is not one that it could have had.
    fn each(&self, location: &Location, seen: &mut dyn FnMut(&EventBody)) -> Result<(), StorageError>;

    /// The record of a run up to the burst with event `upto`: its events, the contents they name, the document it began
    /// with. `None`: its events have more than `most` bytes.
    ///
    /// # Errors
    /// The storage failed, or something of it is damaged or gone.
    fn bundle(&self, location: &Location, upto: Seq, most: usize) -> Result<Option<Bundle>, StorageError>;

    /// Of a run that is a fork: the event that says so.
    ///
    /// # Errors
    /// The storage failed.
    fn forked(&self, location: &Location) -> Result<Option<Box<Forked>>, StorageError>;

    /// The last event of a run, with all its values: what another run goes on with.
    ///
    /// # Errors
    /// The storage failed, or a value of it is damaged or gone.
    fn last_event(&self, location: &Location) -> Result<Option<Event>, StorageError>;
}
