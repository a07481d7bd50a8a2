//! What the index owes: finished runs ([`Archive`]) and registered workflows ([`Registry`]).
//!
//! Obligations of an archive:
//! 1. `put` is one batch: all rows or none. Rows are derived from the journal, so they need not be durable;
//!    putting a row twice is putting it once. A run that was forgotten or erased does not come back by being put again.
//! 2. `moved` returns only when the move and *every row and image put before it* are durable, these first. From then on the segment need
//!    not be read at start, and its files are found under the addresses that the segment had.
//! 3. `expire` and `expire_early` forget the runs of a history file that is about to go, `erase` one run. Either is durable on return, all that
//!    is known of a run in one step. While events of such a run lie anywhere, `ended` goes on to say that it has ended: whoever
//!    reads only some of its events must not take it for a live one, whatever the order in which files go. What such a run
//!    referred to in the content store it refers to no longer, in the same step ([`super::references`]).
//! 4. An image is put in one batch with the tally that it makes, in order with rows, and need not be durable before
//!    `moved` returns; a row with `imaged` takes its run's image away in its own batch.
//! 5. A key answers until it expires, also when its run has been forgotten.
//!
//! Obligations of a registry: what `register` returned is durable; a (name, version) never changes its
//! document; versions that the registry makes up grow by one. Both are used by several threads at once, and
//! block: never call them on a shard's core while it has work.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Error;
use super::history::{FileId, Moved};
use super::images::{Image, Seen, Tally};
use super::log::Sealed;
use crate::model::approval::Noted;
use crate::model::event::{DocumentHash, Idempotency};
use crate::model::usage::{DayUsage, MinuteUsage, Used};
use crate::model::{FrameRef, RetentionClass, RunFilter, RunId, RunSummary, Seq, Status, Workspace};
use crate::time::Timestamp;

/// A finished run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ArchiveRow {
    /// Its last state.
    pub summary: RunSummary,
    /// The document it executed.
    pub document: DocumentHash,
    /// The shard whose journal holds its events.
    pub shard: u16,
    /// The frames that hold them, in order.
    pub frames: Vec<FrameRef>,
    /// The key it was started with.
    pub idempotency: Option<Idempotency>,
    /// Status and last event when its start was acknowledged: what a repeated start is answered.
    pub acknowledged: (Status, Seq),
    /// Its business key. Rows written before there were keys end before it, and have none.
    pub run_key: Option<Arc<str>>,
    /// How long it is kept. Rows of format 1 do not say.
    pub class: Option<RetentionClass>,
    /// Version of its graph. Rows of formats before 3 end before it: those runs were not patched.
    pub version: Option<u32>,
    /// The patch set of its workflow that it was an arm of. Rows written before there were sets end before it.
    pub arm: Option<Arc<str>>,
    /// It may have an image, which goes when this row is put. Not kept.
    #[serde(skip)]
    pub imaged: bool,
    /// What it used of models; goes into the sums of its day when this row is put. Not kept.
    #[serde(skip)]
    pub used: Vec<Used>,
}

/// Which finished runs.
#[derive(Clone, Debug)]
pub struct ArchiveQuery {
    /// Ids below this one: the cursor of the page before.
    pub before: Option<RunId>,
    /// Ids from this one on, the oldest first, in place of the newest first.
    pub from: Option<RunId>,
    /// Like this.
    pub filter: RunFilter,
    /// At most this many rows.
    pub limit: usize,
    /// At most this many are looked at.
    pub scan_limit: usize,
}

/// A page of finished runs, newest first unless it was asked from an id on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ArchivePage {
    /// Those that match.
    pub rows: Vec<ArchiveRow>,
    /// The last that was looked at, when the page ended before the runs did: `before` of the next one, or `from` behind it.
    pub next: Option<RunId>,
    /// Rows looked at.
    pub looked_at: usize,
}

/// A sealed segment that need not be read at start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentMark {
    /// Where recovery goes on.
    pub sealed: Sealed,
    /// It was moved to history. Format 1 marked segments and let them stay.
    pub moved: bool,
}

/// What is known of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// It has ended then, and is kept by this class.
    Ended(Timestamp, Option<RetentionClass>),
    /// It had not ended when its first events were moved; they went to this class.
    Live(RetentionClass),
    /// It is forgotten or erased, and events of it may be left.
    Forgotten,
    /// Nothing: it has not ended, and nothing of it was moved.
    Nothing,
}

/// What a key leads to.
#[derive(Clone, Debug, PartialEq)]
pub struct KeyAnswer {
    /// The run.
    pub run_id: RunId,
    /// Of the request that started it.
    pub fingerprint: [u8; 16],
    /// What its start was answered. Keys of format 1 do not say; their run does, as long as it is kept.
    pub summary: Option<RunSummary>,
}

/// A history file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileRow {
    /// Which.
    pub file: FileId,
    /// Its bytes.
    pub bytes: u64,
    /// Runs with events in it.
    pub runs: u64,
    /// When it may go, or is looked at again.
    pub expires_at: Timestamp,
}

/// What became of a file that was due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// Runs in it live, or have ended later than was known: not before then.
    Later(Timestamp),
    /// So many runs are forgotten, and there are more.
    Some(usize),
    /// So many runs are forgotten, and nothing leads to the file any more.
    All(usize),
}

/// A file from which runs are to be taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Erasure {
    /// Which.
    pub file: FileId,
    /// Whose events.
    pub runs: Vec<RunId>,
}

/// Finished runs. The module says what is owed.
pub trait Archive: Send + Sync {
    /// Why nothing more is written until a restart; `None`: it is.
    fn fenced(&self) -> Option<Arc<str>> {
        None
    }

    /// Puts rows, in one batch, and what their runs used into the sums of their days: once, however often a row is put.
    fn put(&self, rows: &[ArchiveRow]) -> Result<(), Error>;

    /// What the finished runs of a workspace used, from one day to another (since 1970, both included), oldest first, at most
    /// `limit` sums.
    fn usage(&self, workspace: &Workspace, days: (u32, u32), limit: usize) -> Result<Vec<DayUsage>, Error>;

    /// Shows what finished runs used by the minute in which they ended, from one on, oldest first; as far back as
    /// [`USAGE_MINUTES_MAX`](crate::limits::USAGE_MINUTES_MAX).
    fn usage_since(&self, minute: u32, seen: &mut dyn FnMut(MinuteUsage)) -> Result<(), Error>;

    /// Shows what finished runs of all workspaces used, by day, as far back as that is kept.
    fn usage_of_all(&self, seen: &mut dyn FnMut(DayUsage)) -> Result<(), Error>;

    /// Writes down what happened to reviews, and dead letters ([`super::Letters`]), in order; true when somebody is to be told ([`super::Approvals::spread`]). Like rows
    /// they follow from the journal: they are put before the rows and images that follow from the same events, an event
    /// that is put twice is put once, and what is known of a run's reviews goes when the run is forgotten.
    fn put_reviews(&self, noted: &[Noted]) -> Result<bool, Error>;

    /// One run.
    fn get(&self, run_id: RunId) -> Result<Option<ArchiveRow>, Error>;

    /// A page.
    fn list(&self, query: &ArchiveQuery) -> Result<ArchivePage, Error>;

    /// What a key leads to, unless it has expired.
    fn key(&self, key: &[u8; 16], now: Timestamp) -> Result<Option<KeyAnswer>, Error>;

    /// Forgets up to `limit` expired keys; returns how many.
    fn sweep_keys(&self, now: Timestamp, limit: usize) -> Result<usize, Error>;

    /// Puts images of unfinished runs of a shard, each in place of the one before; no run twice.
    fn put_images(&self, shard: u16, images: &[Image]) -> Result<(), Error>;

    /// Shows every image of a shard to `visit`; gives what they should add up to.
    fn images(&self, shard: u16, visit: &mut Seen<'_>) -> Result<Tally, Error>;

    /// Puts these images in place of all that there are. Durable on return; after a crash or an error in between,
    /// the images do not add up.
    fn replace_images(
        &self,
        shard: u16,
        images: &mut dyn Iterator<Item = Result<Image, Error>>,
    ) -> Result<(), Error>;

    /// What is known of each of these runs.
    fn known(&self, run_ids: &[RunId]) -> Result<Vec<Known>, Error>;

    /// A segment's files are there. Durable on return, after all rows.
    fn moved(&self, moved: &Moved, now: Timestamp) -> Result<(), Error>;

    /// The marks of a shard, oldest first.
    fn marks(&self, shard: u16) -> Result<Vec<SegmentMark>, Error>;

    /// The journal of a shard begins with this segment: marks of those before it are of no use.
    fn unmark(&self, shard: u16, before: u64) -> Result<(), Error>;

    /// When a run ended, also when it is forgotten but some of its events are still there.
    fn ended(&self, run_id: RunId) -> Result<Option<Timestamp>, Error>;

    /// The history files of a shard, by segment and class.
    fn files(&self, shard: u16) -> Result<Vec<FileRow>, Error>;

    /// Up to `limit` history files of all shards that are due, the longest first.
    fn due(&self, now: Timestamp, limit: usize) -> Result<Vec<FileId>, Error>;

    /// Forgets up to `limit` runs of a file that is due. Durable on return.
    fn expire(&self, file: FileId, now: Timestamp, limit: usize) -> Result<Expiry, Error>;

    /// Forgets up to `limit` runs of a file before its time. `Later`, and nothing is changed, when a run with events in it is not
    /// known to have ended. Durable on return.
    fn expire_early(&self, file: FileId, limit: usize) -> Result<Expiry, Error>;

    /// Forgets a finished run for good; false when there is none. Durable on return. Its events are dropped when their segment
    /// is moved; in files that are there, they are named by `erasures`.
    fn erase(&self, run_id: RunId) -> Result<bool, Error>;

    /// A file from which runs are to be taken, when there is one.
    fn erasure(&self) -> Result<Option<Erasure>, Error>;

    /// The runs are taken from the file, which has this many bytes now, or is to go (`None`). Durable on return.
    fn erased(&self, erasure: &Erasure, left: Option<(u64, u64)>) -> Result<(), Error>;
}

/// A registered workflow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// Its name.
    pub name: Arc<str>,
    /// Its version.
    pub version: Arc<str>,
    /// Identity of its document.
    pub hash: DocumentHash,
}

/// Tags of a workflow, each with its version.
pub type Tags = Vec<(Arc<str>, Arc<str>)>;

/// What became of a registration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    /// The version it has.
    pub version: Arc<str>,
    /// Whether it is new.
    pub created: bool,
}

/// Registered workflows. The module says what is owed.
pub trait Registry: Send + Sync {
    /// Registers a canonical document under a name. With a version: the same document again is fine, another
    /// one is `Conflict`. Without: a version that already has this document is returned, else the next
    /// integer is given.
    fn register(
        &self,
        name: &str,
        version: Option<&str>,
        canonical: &[u8],
        hash: DocumentHash,
    ) -> Result<Registered, Error>;

    /// A version of a workflow, or the one registered last.
    fn get(&self, name: &str, version: Option<&str>) -> Result<Option<Registration>, Error>;

    /// Changes what is noted about a workflow (`None` takes a note away), stores documents that patches made of its versions, and
    /// moves tags to versions that are there, from anywhere: all of it durably, in one step.
    fn amend(&self, name: &str, amendment: &Amendment<'_>) -> Result<(), Error>;

    /// Notes about a workflow whose keys begin so, in the order of their keys.
    fn notes(&self, name: &str, prefix: &[u8]) -> Result<Notes, Error>;

    /// Tags of a workflow with their versions, by tag.
    fn tags(&self, name: &str) -> Result<Tags, Error>;

    /// Is the document with this hash registered under a name in this workspace?
    fn is_registered(&self, hash: &DocumentHash, workspace: &Workspace) -> Result<bool, Error>;

    /// Keeps a document that runs of the workflow of this name run, durably, without registering it as a version.
    fn keep(&self, name: &str, canonical: &[u8], hash: &DocumentHash) -> Result<(), Error>;

    /// The canonical document with this hash.
    fn by_hash(&self, hash: &DocumentHash) -> Result<Option<Vec<u8>>, Error>;

    /// Everything registered, by name and in order of registration; at most `limit` after (name, version).
    fn list(&self, after: Option<(&str, &str)>, limit: usize) -> Result<Vec<Registration>, Error>;
}

pub use crate::model::workflow::{Amendment, Notes};
