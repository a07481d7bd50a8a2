//! The index: finished runs and registered workflows, in keyspaces of a database of this machine or of a store elsewhere.
//!
//! Rows of runs are written in bulk and without a sync: after a crash they are derived again from the
//! journal. Marks of segments and registrations are synced before the call returns. Everything blocks; it is used from helper
//! threads. On this machine a write that failed is the last one until the index is opened again, which mends it first (`mending`).
//! What must hold: one `Index` at a time has the keyspaces; what it knows beside them (locks, fronts, counts) is its own.

mod approvals;
mod artifacts;
mod files;
mod images;
mod keys;
mod letters;
mod listing;
mod mending;
mod names;
mod references;
mod registry;
mod triggers;
mod upgrade;
mod usage;
mod webhooks;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use self::listing::Lists;
pub use self::mending::{Cut, kept};
pub use self::names::NAMES;
use super::Error;
use super::archive::{
    Archive, ArchivePage, ArchiveQuery, ArchiveRow, Erasure, Expiry, FileRow, KeyAnswer, Known, SegmentMark,
};
use super::history::{FileId, Moved};
use super::images::{Image, Seen, Tally};
use super::keyspaces::{Batch, Embedded, Keyspace, Keyspaces};
use crate::limits;
use crate::model::approval::Noted;
use crate::model::event::DocumentHash;
use crate::model::usage::{DayUsage, MinuteUsage};
use crate::model::{RetentionClass, RunId, RunSummary, Workspace};
use crate::time::Timestamp;

/// An open index. Share it as an `Arc`.
pub struct Index {
    keyspaces: Arc<dyn Keyspaces>,
    /// What could not be read when it was opened.
    cuts: Vec<Cut>,
    runs: Keyspace,
    keys: Keyspace,
    key_expiry: Keyspace,
    marks: Keyspace,
    /// Which runs finished, of a workspace and of a workflow, by status and time.
    lists: Keyspace,
    /// Runs that are forgotten while events of theirs are left.
    tombstones: Keyspace,
    /// Runs that had not ended when events of theirs were moved, and the class these went to.
    spanning: Keyspace,
    /// History files, when each may go, the runs in them, those that had not ended, and those to be taken out.
    files: Keyspace,
    file_expiry: Keyspace,
    file_runs: Keyspace,
    open_members: Keyspace,
    erasures: Keyspace,
    run_keys: Keyspace,
    workflows: Keyspace,
    versions: Keyspace,
    by_document: Keyspace,
    numbers: Keyspace,
    documents: Keyspace,
    /// Hash, workspace, name: under which names a document is registered.
    document_names: Keyspace,
    tags: Keyspace,
    /// (name, key) -> what is noted about a workflow: patches of its scope, patch sets, moves of its tags.
    notes: Keyspace,
    /// Content, workspace, run: a run refers to a content.
    blob_refs: Keyspace,
    /// The same by run.
    run_blobs: Keyspace,
    /// Documents that patches made, by run and version; and those that are still to be stored.
    artifacts: Keyspace,
    artifacts_due: Keyspace,
    /// What finished runs used, by workspace and day.
    usage: Keyspace,
    /// How many are still to be stored.
    due_count: std::sync::atomic::AtomicU64,
    /// Of unfinished runs.
    images: Keyspace,
    tallies: Keyspace,
    /// Reviews by run, and by how they ended; what is to be told of them, to whom, and what is on its way.
    reviews: Keyspace,
    review_lists: Keyspace,
    /// Dead letters by run, and by what became of them.
    letters: Keyspace,
    letter_lists: Keyspace,
    notices: Keyspace,
    fronts: webhooks::Fronts,
    webhooks: Keyspace,
    deliveries: Keyspace,
    /// What was done once.
    meta: Keyspace,
    schedules: triggers::Kept,
    hooks: triggers::Kept,
    batches: triggers::Kept,
    #[expect(clippy::disallowed_types, reason = "held on blocking threads for one small synced change")]
    triggering: std::sync::Mutex<()>,
    #[expect(clippy::disallowed_types, reason = "the index thread has it, and start-up before")]
    tallying: std::sync::Mutex<()>,
    #[expect(clippy::disallowed_types, reason = "registrations are rare and wait on blocking threads only")]
    registering: std::sync::Mutex<()>,
    #[expect(
        clippy::disallowed_types,
        reason = "the index thread has it; erasing, on blocking threads, is rare"
    )]
    forgetting: std::sync::Mutex<()>,
}

impl std::fmt::Debug for Index {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Index").finish_non_exhaustive()
    }
}

/// What a key leads to.
#[derive(Serialize, Deserialize)]
struct KeyRow {
    run_id: RunId,
    fingerprint: [u8; 16],
    expires_at: Timestamp,
    /// What its start was answered, and its business key. Rows of format 1 end before it.
    answer: Option<(RunSummary, Option<Arc<str>>)>,
}

/// A version of a workflow.
#[derive(Serialize, Deserialize)]
struct VersionRow {
    version: Arc<str>,
    hash: DocumentHash,
}

impl Index {
    /// Opens the index in `dir`, made when there is none. What its journal has behind the last whole write is cut off
    /// before ([`cuts`](Self::cuts)).
    ///
    /// # Errors
    /// The database can not be opened or recovered.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        let cuts = mending::mend(dir)?;
        let embedded = Arc::new(Embedded::open(dir, &NAMES)?);
        let index = Self { cuts, ..Self::in_keyspaces(embedded.clone())? };
        upgrade::upgrade(&index, &embedded)?;
        index.ready()
    }

    /// Opens the index in keyspaces of a store, numbered as their [`NAMES`] are.
    ///
    /// # Errors
    /// The store's.
    pub fn over(keyspaces: Arc<dyn Keyspaces>) -> Result<Self, Error> {
        Self::in_keyspaces(keyspaces)?.ready()
    }

    fn ready(self) -> Result<Self, Error> {
        self.name_documents()?;
        self.count_due()?;
        Ok(self)
    }

    /// What was cut off when it was opened.
    pub fn cuts(&self) -> &[Cut] {
        &self.cuts
    }

    /// Shows every row of a finished run, in the order of their ids.
    ///
    /// # Errors
    /// A row cannot be read; the visitor's.
    pub fn each_row(&self, visit: &mut dyn FnMut(ArchiveRow) -> Result<(), Error>) -> Result<(), Error> {
        self.runs.iter().try_for_each(|guard| visit(decode_row(&guard.value()?)?))
    }

    fn in_keyspaces(keyspaces: Arc<dyn Keyspaces>) -> Result<Self, Error> {
        let open = |name: &str| {
            let number = NAMES.iter().position(|known| *known == name);
            let number =
                number.ok_or_else(|| Error::Index { why: format!("there is no keyspace {name}") })?;
            Ok::<_, Error>(Keyspace::new(&keyspaces, number))
        };
        let notices = open("notices")?;
        Ok(Self {
            runs: open("runs")?,
            keys: open("keys")?,
            key_expiry: open("key_expiry")?,
            marks: open("marks")?,
            run_keys: open("run_keys")?,
            workflows: open("workflows")?,
            versions: open("versions")?,
            by_document: open("by_document")?,
            numbers: open("numbers")?,
            lists: open("lists")?,
            tombstones: open("tombstones")?,
            spanning: open("spanning")?,
            files: open("files")?,
            file_expiry: open("file_expiry")?,
            file_runs: open("file_runs")?,
            open_members: open("open_members")?,
            erasures: open("erasures")?,
            documents: open("documents")?,
            document_names: open("document_names")?,
            tags: open("tags")?,
            notes: open("workflow_notes")?,
            blob_refs: open("blob_refs")?,
            run_blobs: open("run_blobs")?,
            artifacts: open("artifacts")?,
            artifacts_due: open("artifacts_due")?,
            usage: open("usage")?,
            due_count: Default::default(),
            images: open("images")?,
            tallies: open("tallies")?,
            reviews: open("reviews")?,
            review_lists: open("review_lists")?,
            letters: open("letters")?,
            letter_lists: open("letter_lists")?,
            fronts: webhooks::Fronts::open(&notices)?,
            notices,
            webhooks: open("webhooks")?,
            deliveries: open("deliveries")?,
            schedules: triggers::Kept { rows: open("schedules")?, agenda: open("schedule_agenda")? },
            hooks: triggers::Kept { rows: open("hooks")?, agenda: open("hook_agenda")? },
            batches: triggers::Kept { rows: open("batches")?, agenda: open("batch_agenda")? },
            triggering: Default::default(),
            tallying: Default::default(),
            meta: open("meta")?,
            keyspaces: keyspaces.clone(),
            cuts: Vec::new(),
            registering: Default::default(),
            forgetting: Default::default(),
        })
    }

    fn put_row(&self, batch: &mut Batch, lists: &mut Lists, row: &ArchiveRow) -> Result<(), Error> {
        let run_id = row.summary.run_id;
        let segments = keys::segments(&row.frames);
        let mut row = std::borrow::Cow::Borrowed(row);
        if segments.len() > 1 {
            let moved: Option<RetentionClass> = self.row_of(&self.spanning, run_id.as_bytes())?;
            let before = self.run(run_id)?.and_then(|row| row.class);
            // Where its first events went, the others go.
            if let Some(class) = moved.or(before) {
                row.to_mut().class = Some(class);
            }
            if moved.is_some() {
                batch.remove(&self.spanning, *run_id.as_bytes());
            }
        }
        batch.insert(&self.runs, *run_id.as_bytes(), encode(&row)?);
        lists.put(&row);
        if let Some(key) = keys::run_key_of(&row) {
            batch.insert(&self.run_keys, key, []);
        }
        if let Some(idempotency) = &row.idempotency {
            let ended = row.summary.ended_at.unwrap_or(row.summary.started_at);
            let least = Duration::from_secs(limits::IDEMPOTENCY_KEY_SECONDS);
            let kept = row.class.map_or(least, |class| class.duration().max(least));
            let expires_at = ended.saturating_add(kept);
            let (status, seq) = row.acknowledged;
            let ended_at = row.summary.ended_at.filter(|_| row.summary.seq == seq);
            let summary = RunSummary { status, seq, ended_at, ..row.summary.clone() };
            let fingerprint = idempotency.fingerprint;
            let answer = Some((summary, row.run_key.clone()));
            let key = KeyRow { run_id, fingerprint, expires_at, answer };
            batch.insert(&self.keys, idempotency.key, encode(&key)?);
            batch.insert(&self.key_expiry, keys::expiry(expires_at, &idempotency.key), []);
        }
        Ok(())
    }

    fn key_row(&self, key: &[u8; 16]) -> Result<Option<KeyRow>, Error> {
        self.keys.get(key)?.map(|bytes| decode_short(&bytes, 1)).transpose()
    }

    fn run(&self, run_id: RunId) -> Result<Option<ArchiveRow>, Error> {
        self.runs.get(run_id.as_bytes())?.map(|bytes| decode_row(&bytes)).transpose()
    }

    /// Writes a batch, all of it or nothing. Every write of the index comes here.
    fn commit(&self, batch: Batch) -> Result<(), Error> {
        self.keyspaces.commit(batch)
    }

    /// Syncs what was written.
    fn sync(&self) -> Result<(), Error> {
        self.keyspaces.sync()
    }

    fn row_of<T: DeserializeOwned>(&self, keyspace: &Keyspace, key: &[u8]) -> Result<Option<T>, Error> {
        keyspace.get(key)?.map(|bytes| decode(&bytes)).transpose()
    }
}

impl Archive for Index {
    fn fenced(&self) -> Option<Arc<str>> {
        self.keyspaces.fenced()
    }

    fn put(&self, rows: &[ArchiveRow]) -> Result<(), Error> {
        let _one_at_a_time = self.forgetting();
        let (mut batch, mut lists) = (Batch::default(), Lists::default());
        let mut used = usage::Sums::default();
        // A run that is forgotten may be read once more from a segment that has not been moved.
        let forgotten = self.are_in(&self.tombstones, rows.iter().map(|row| &row.summary.run_id))?;
        for (row, _) in rows.iter().zip(forgotten).filter(|(_, forgotten)| !forgotten) {
            self.put_row(&mut batch, &mut lists, row)?;
            used.add(self, row)?;
        }
        lists.write(self, &mut batch)?;
        used.write(self, &mut batch)?;
        self.put_with_images(batch, rows)
    }

    fn usage_since(&self, minute: u32, seen: &mut dyn FnMut(MinuteUsage)) -> Result<(), Error> {
        self.usage_since(minute, seen)
    }

    fn usage_of_all(&self, seen: &mut dyn FnMut(DayUsage)) -> Result<(), Error> {
        self.usage_of_all(seen)
    }

    fn usage(&self, workspace: &Workspace, days: (u32, u32), limit: usize) -> Result<Vec<DayUsage>, Error> {
        self.usage_of(workspace, days, limit)
    }

    fn put_reviews(&self, noted: &[Noted]) -> Result<bool, Error> {
        self.put_noted(noted)
    }

    fn put_images(&self, shard: u16, images: &[Image]) -> Result<(), Error> {
        self.put_some_images(shard, images)
    }

    fn images(&self, shard: u16, visit: &mut Seen<'_>) -> Result<Tally, Error> {
        self.visit_images(shard, visit)
    }

    fn replace_images(
        &self,
        shard: u16,
        images: &mut dyn Iterator<Item = Result<Image, Error>>,
    ) -> Result<(), Error> {
        self.put_all_images(shard, images)
    }

    fn get(&self, run_id: RunId) -> Result<Option<ArchiveRow>, Error> {
        self.run(run_id)
    }

    fn list(&self, query: &ArchiveQuery) -> Result<ArchivePage, Error> {
        self.page(query)
    }

    fn key(&self, key: &[u8; 16], now: Timestamp) -> Result<Option<KeyAnswer>, Error> {
        let row = self.key_row(key)?.filter(|row| row.expires_at > now);
        Ok(row.map(|row| {
            let summary = row.answer.map(|(summary, run_key)| RunSummary { run_key, ..summary });
            KeyAnswer { run_id: row.run_id, fingerprint: row.fingerprint, summary }
        }))
    }

    fn sweep_keys(&self, now: Timestamp, limit: usize) -> Result<usize, Error> {
        let mut batch = Batch::default();
        let mut swept = 0;
        for guard in self.key_expiry.range(..keys::expiry(now, &[0; 16])).take(limit) {
            let entry = guard.key()?;
            let Some((expires_at, key)) = keys::parse_expiry(&entry) else { continue };
            // The key may have been used again since.
            if self.key_row(&key)?.is_some_and(|row| row.expires_at == expires_at) {
                batch.remove(&self.keys, key);
            }
            batch.remove(&self.key_expiry, entry);
            swept += 1;
        }
        self.commit(batch)?;
        Ok(swept)
    }

    fn known(&self, run_ids: &[RunId]) -> Result<Vec<Known>, Error> {
        self.known_of(run_ids)
    }

    fn moved(&self, moved: &Moved, now: Timestamp) -> Result<(), Error> {
        self.put_moved(moved, now)
    }

    fn marks(&self, shard: u16) -> Result<Vec<SegmentMark>, Error> {
        self.marks.prefix(shard.to_be_bytes()).map(|guard| files::decode_mark(&guard.value()?)).collect()
    }

    fn unmark(&self, shard: u16, before: u64) -> Result<(), Error> {
        let mut batch = Batch::default();
        for guard in self.marks.range(keys::segment(shard, 0)..keys::segment(shard, before)) {
            batch.remove(&self.marks, guard.key()?);
        }
        self.commit(batch)
    }

    fn ended(&self, run_id: RunId) -> Result<Option<Timestamp>, Error> {
        if let Some(row) = self.run(run_id)? {
            return Ok(Some(row.summary.ended_at.unwrap_or(row.summary.started_at)));
        }
        Ok(self.tombstone(run_id)?.map(|row| row.ended_at))
    }

    fn files(&self, shard: u16) -> Result<Vec<FileRow>, Error> {
        self.files.prefix(shard.to_be_bytes()).map(files::decode_file).collect()
    }

    fn due(&self, now: Timestamp, limit: usize) -> Result<Vec<FileId>, Error> {
        let due = self.file_expiry.range(..=keys::file_expiry_end(now)).take(limit);
        due.map(|guard| keys::parse_file(&guard.key()?).ok_or_else(|| unreadable("a file's end"))).collect()
    }

    fn expire(&self, file: FileId, now: Timestamp, limit: usize) -> Result<Expiry, Error> {
        self.expire_file(file, now, limit)
    }

    fn expire_early(&self, file: FileId, limit: usize) -> Result<Expiry, Error> {
        self.expire_file_early(file, limit)
    }

    fn erase(&self, run_id: RunId) -> Result<bool, Error> {
        self.erase_run(run_id)
    }

    fn erasure(&self) -> Result<Option<Erasure>, Error> {
        self.next_erasure()
    }

    fn erased(&self, erasure: &Erasure, left: Option<(u64, u64)>) -> Result<(), Error> {
        self.put_erased(erasure, left)
    }
}

/// A row of a run. One written before there were business keys ends where the key would stand, one of format 1 where the
/// class would, one of format 2 where the graph's version would.
fn decode_row(bytes: &[u8]) -> Result<ArchiveRow, Error> {
    let mut row: ArchiveRow = decode_short(bytes, 4)?;
    row.summary.run_key.clone_from(&row.run_key);
    Ok(row)
}

/// Reads what may end before its last `optional` fields, all of them options.
fn decode_short<T: DeserializeOwned>(bytes: &[u8], optional: usize) -> Result<T, Error> {
    let mut bytes = std::borrow::Cow::Borrowed(bytes);
    for _ in 0..optional {
        match postcard::from_bytes::<T>(&bytes) {
            Err(postcard::Error::DeserializeUnexpectedEnd) => bytes.to_mut().push(0),
            _ => break,
        }
    }
    decode(&bytes)
}

fn unreadable(what: &str) -> Error {
    Error::Index { why: format!("{what} cannot be read") }
}

fn encode<T: Serialize>(row: &T) -> Result<Vec<u8>, Error> {
    postcard::to_stdvec(row)
        .map_err(|error| Error::Index { why: format!("a row can not be written: {error}") })
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    postcard::from_bytes(bytes)
        .map_err(|error| Error::Index { why: format!("a row cannot be read: {error}") })
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
