//! What the index owes: finished runs ([`Archive`]) and registered workflows ([`Registry`]).
//!
//! Obligations of an archive:
//! 1. `put` is one batch: all rows or none. Rows are derived from the journal, so they need not be durable;
//!    putting a row twice is putting it once.
//! 2. `mark_segment` returns only when the mark and *every row put before it* are durable, rows first. A
//!    mark says: this segment need not be read at start.
//! 3. `expire` forgets the runs that have frames in a segment that is being given back, and its mark. It is
//!    durable before the segment is written over. While a later segment has frames of such a run too, `ended` goes on
//!    to say that it has ended: whoever reads only some of its events at start must not take it for a live one.
//!    What such a run referred to in the content store it refers to no longer, in the same batch ([`super::references`]).
//! 4. An image is put in one batch with the tally that it makes, in order with rows, and need not be durable before
//!    `mark_segment` returns; a row with `imaged` takes its run's image away in its own batch. So a run has a row or an
//!    image or neither, never both.
//! 5. A key answers until it expires, also when its run has been forgotten.
//!
//! Obligations of a registry: what `register` returned is durable; a (name, version) never changes its
//! document; versions that the registry makes up grow by one. Both are used by several threads at once, and
//! block: never call them on a shard's core while it has work.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Error;
use super::images::{Image, Seen, Tally};
use super::log::Sealed;
use crate::model::event::{DocumentHash, Idempotency};
use crate::model::{FrameRef, RunFilter, RunId, RunSummary, Seq, Status, Workspace};
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
    /// It may have an image, which goes when this row is put. Not kept.
    #[serde(skip)]
    pub imaged: bool,
}

/// Which finished runs.
#[derive(Clone, Debug)]
pub struct ArchiveQuery {
    /// Ids below this one: the cursor of the page before.
    pub before: Option<RunId>,
    /// Like this.
    pub filter: RunFilter,
    /// At most this many rows.
    pub limit: usize,
    /// At most this many are looked at.
    pub scan_limit: usize,
}

/// A page of finished runs, newest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ArchivePage {
    /// Those that match.
    pub rows: Vec<ArchiveRow>,
    /// Where to go on (`before`), when the page ended before the runs did.
    pub next: Option<RunId>,
}

/// A sealed segment in which every run is finished and put.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentMark {
    /// Where recovery goes on.
    pub sealed: Sealed,
    /// When the last of its runs may be forgotten; [`Timestamp::MAX`] while a run in it goes on.
    pub expires_at: Timestamp,
}

/// Finished runs. The module says what is owed.
pub trait Archive: Send + Sync {
    /// Puts rows, in one batch.
    fn put(&self, rows: &[ArchiveRow]) -> Result<(), Error>;

    /// One run.
    fn get(&self, run_id: RunId) -> Result<Option<ArchiveRow>, Error>;

    /// A page, newest first.
    fn list(&self, query: &ArchiveQuery) -> Result<ArchivePage, Error>;

    /// The run that was started with a key, and the fingerprint of the request, unless the key has expired.
    fn key(&self, key: &[u8; 16], now: Timestamp) -> Result<Option<(RunId, [u8; 16])>, Error>;

    /// Forgets up to `limit` expired keys; returns how many.
    fn sweep_keys(&self, now: Timestamp, limit: usize) -> Result<usize, Error>;

    /// Puts images of unfinished runs of a shard, each in place of the one before.
    fn put_images(&self, shard: u16, images: &[Image]) -> Result<(), Error>;

    /// Shows every image of a shard to `visit`; gives what they should add up to.
    fn images(&self, shard: u16, visit: &mut Seen<'_>) -> Result<Tally, Error>;

    /// Forgets all images and all marks of a shard, so that everything is read again at start. Durable on return; after a
    /// crash in between, either nothing is marked or nothing has happened.
    fn drop_images(&self, shard: u16) -> Result<(), Error>;

    /// Marks a segment of a shard, or marks it anew. Durable on return, after all rows and images.
    fn mark_segment(&self, shard: u16, mark: &SegmentMark) -> Result<(), Error>;

    /// The marks of a shard, oldest first.
    fn marks(&self, shard: u16) -> Result<Vec<SegmentMark>, Error>;

    /// When a run ended, also when it is forgotten but some of its frames are still there.
    fn ended(&self, run_id: RunId) -> Result<Option<Timestamp>, Error>;

    /// Forgets the runs with frames in a segment, and its mark; returns how many. Durable on return.
    fn expire(&self, shard: u16, segment: u64) -> Result<usize, Error>;

    /// The last segment of a shard that was expired; 0 when none was. It may still be there after a crash: what is in it and
    /// in those before belongs to nobody.
    fn expired(&self, shard: u16) -> Result<u64, Error>;
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

    /// Points a tag of a workflow at one of its versions, from anywhere; `None` takes the tag away. False when there is no
    /// such version.
    fn tag(&self, name: &str, tag: &str, version: Option<&str>) -> Result<bool, Error>;

    /// Tags of a workflow with their versions, by tag.
    fn tags(&self, name: &str) -> Result<Tags, Error>;

    /// Is the document with this hash registered under a name in this workspace?
    fn is_registered(&self, hash: &DocumentHash, workspace: &Workspace) -> Result<bool, Error>;

    /// The canonical document with this hash.
    fn by_hash(&self, hash: &DocumentHash) -> Result<Option<Vec<u8>>, Error>;

    /// Everything registered, by name and in order of registration; at most `limit` after (name, version).
    fn list(&self, after: Option<(&str, &str)>, limit: usize) -> Result<Vec<Registration>, Error>;
}
