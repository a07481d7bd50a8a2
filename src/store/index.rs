//! The embedded index: finished runs and registered workflows in one fjall database.
//!
//! Rows and images of runs are written in bulk and without a sync: after a crash they are derived again from the
//! journal. Marks of segments and registrations are synced before the call returns. Small on purpose: one
//! worker thread, small caches and memtables. Everything blocks; it is used from helper threads. A failure
//! of the database is final for it (it poisons itself): every later call says so.

mod images;
mod keys;
mod references;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use fjall::{Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::Error;
use super::archive::{
    Archive, ArchivePage, ArchiveQuery, ArchiveRow, Registered, Registration, Registry, SegmentMark, Tags,
};
use super::images::{Image, Seen, Tally};
use crate::limits;
use crate::model::event::DocumentHash;
use crate::model::{RunId, Workspace};
use crate::time::Timestamp;

/// Bytes of blocks kept in memory.
const CACHE_BYTES: u64 = 16 << 20;
/// Bytes of new rows of one keyspace kept in memory.
const MEMTABLE_BYTES: u64 = 8 << 20;
/// Bytes of the database's own journals.
const JOURNAL_BYTES: u64 = 64 << 20;
/// Descriptors it may keep open.
const FILES_MAX: usize = 64;

/// An open index. Share it as an `Arc`.
pub struct Index {
    db: Database,
    runs: Keyspace,
    keys: Keyspace,
    key_expiry: Keyspace,
    members: Keyspace,
    marks: Keyspace,
    /// Runs that are forgotten while frames of theirs are left.
    ended: Keyspace,
    run_keys: Keyspace,
    workflows: Keyspace,
    versions: Keyspace,
    by_document: Keyspace,
    numbers: Keyspace,
    documents: Keyspace,
    /// Hash, workspace, name: under which names a document is registered.
    document_names: Keyspace,
    tags: Keyspace,
    /// Content, workspace, run: a run refers to a content.
    blob_refs: Keyspace,
    /// The same by run.
    run_blobs: Keyspace,
    /// Of unfinished runs.
    images: Keyspace,
    tallies: Keyspace,
    /// The last expired segment of each shard.
    expired: Keyspace,
    #[expect(clippy::disallowed_types, reason = "the index thread has it, and start-up before")]
    tallying: std::sync::Mutex<()>,
    #[expect(clippy::disallowed_types, reason = "registrations are rare and wait on blocking threads only")]
    registering: std::sync::Mutex<()>,
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
}

/// What is kept of a run that is forgotten while frames of it are left.
#[derive(Serialize, Deserialize)]
struct EndedRow {
    ended_at: Timestamp,
    last_segment: u64,
}

/// A version of a workflow.
#[derive(Serialize, Deserialize)]
struct VersionRow {
    version: Arc<str>,
    hash: DocumentHash,
}

impl Index {
    /// Opens the index in `dir`, made when there is none.
    ///
    /// # Errors
    /// The database can not be opened or recovered.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        let db = Database::builder(dir)
            .cache_size(CACHE_BYTES)
            .worker_threads(1)
            .max_cached_files(Some(FILES_MAX))
            .max_journaling_size(JOURNAL_BYTES)
            .open()?;
        let open = |name: &str| {
            db.keyspace(name, || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES))
        };
        let index = Self {
            runs: open("runs")?,
            keys: open("keys")?,
            key_expiry: open("key_expiry")?,
            members: open("members")?,
            marks: open("marks")?,
            run_keys: open("run_keys")?,
            workflows: open("workflows")?,
            versions: open("versions")?,
            by_document: open("by_document")?,
            numbers: open("numbers")?,
            ended: open("ended")?,
            documents: open("documents")?,
            document_names: open("document_names")?,
            tags: open("tags")?,
            blob_refs: open("blob_refs")?,
            run_blobs: open("run_blobs")?,
            images: open("images")?,
            tallies: open("tallies")?,
            expired: open("expired")?,
            tallying: Default::default(),
            db,
            registering: Default::default(),
        };
        index.name_documents()?;
        Ok(index)
    }

    fn put_row(&self, batch: &mut OwnedWriteBatch, row: &ArchiveRow) -> Result<(), Error> {
        let run_id = row.summary.run_id;
        batch.insert(&self.runs, *run_id.as_bytes(), encode(row)?);
        for segment in keys::segments(&row.frames) {
            batch.insert(&self.members, keys::member(row.shard, segment, run_id), []);
        }
        if let Some(run_key) = &row.run_key {
            batch.insert(
                &self.run_keys,
                keys::run_key(&Workspace::of(&row.summary.workflow), run_key, run_id),
                [],
            );
        }
        if let Some(idempotency) = &row.idempotency {
            let ended = row.summary.ended_at.unwrap_or(row.summary.started_at);
            let expires_at = ended.saturating_add(Duration::from_secs(limits::IDEMPOTENCY_KEY_SECONDS));
            let fingerprint = idempotency.fingerprint;
            batch.insert(&self.keys, idempotency.key, encode(&KeyRow { run_id, fingerprint, expires_at })?);
            batch.insert(&self.key_expiry, keys::expiry(expires_at, &idempotency.key), []);
        }
        Ok(())
    }

    fn ended_row(&self, run_id: RunId) -> Result<Option<EndedRow>, Error> {
        self.row_of(&self.ended, run_id.as_bytes())
    }

    fn run(&self, run_id: RunId) -> Result<Option<ArchiveRow>, Error> {
        self.runs.get(run_id.as_bytes())?.map(|bytes| decode_row(&bytes)).transpose()
    }

    /// Runs with a business key, newest first; a key has few, so all of them are looked at.
    fn list_keyed(&self, run_key: &str, query: &ArchiveQuery) -> Result<ArchivePage, Error> {
        let (from, end) = bounds(query);
        let key = |run_id| keys::run_key(&query.filter.workspace, run_key, run_id);
        let mut page = ArchivePage::default();
        let mut last = None;
        for (looked_at, guard) in self.run_keys.range(key(from)..key(end)).rev().enumerate() {
            if page.rows.len() >= query.limit || looked_at >= query.scan_limit {
                page.next = last;
                break;
            }
            let Some(run_id) = keys::parse_member(&guard.key()?) else { continue };
            last = Some(run_id);
            page.rows.extend(self.run(run_id)?.filter(|row| query.filter.fits_summary(&row.summary)));
        }
        Ok(page)
    }

    fn row_of<T: DeserializeOwned>(&self, keyspace: &Keyspace, key: &[u8]) -> Result<Option<T>, Error> {
        keyspace.get(key)?.map(|bytes| decode(&bytes)).transpose()
    }
}

impl Archive for Index {
    fn put(&self, rows: &[ArchiveRow]) -> Result<(), Error> {
        let mut batch = self.db.batch();
        for row in rows {
            self.put_row(&mut batch, row)?;
        }
        let _one_at_a_time = self.tallying.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let imaged: BTreeSet<u16> = rows.iter().filter(|row| row.imaged).map(|row| row.shard).collect();
        for shard in imaged {
            let of_shard = rows.iter().filter(|row| row.imaged && row.shard == shard);
            self.remove_images(&mut batch, shard, of_shard.map(|row| row.summary.run_id))?;
        }
        Ok(batch.commit()?)
    }

    fn put_images(&self, shard: u16, images: &[Image]) -> Result<(), Error> {
        self.put_some_images(shard, images)
    }

    fn images(&self, shard: u16, visit: &mut Seen<'_>) -> Result<Tally, Error> {
        self.visit_images(shard, visit)
    }

    fn drop_images(&self, shard: u16) -> Result<(), Error> {
        self.forget_images(shard)
    }

    fn get(&self, run_id: RunId) -> Result<Option<ArchiveRow>, Error> {
        self.run(run_id)
    }

    fn list(&self, query: &ArchiveQuery) -> Result<ArchivePage, Error> {
        if let Some(run_key) = &query.filter.run_key {
            return self.list_keyed(run_key, query);
        }
        let mut page = ArchivePage::default();
        let (from, end) = bounds(query);
        let mut last = None;
        for (looked_at, guard) in self.runs.range(*from.as_bytes()..*end.as_bytes()).rev().enumerate() {
            if page.rows.len() >= query.limit || looked_at >= query.scan_limit {
                page.next = last;
                break;
            }
            let row = decode_row(&guard.value()?)?;
            last = Some(row.summary.run_id);
            if query.filter.fits_summary(&row.summary) {
                page.rows.push(row);
            }
        }
        Ok(page)
    }

    fn key(&self, key: &[u8; 16], now: Timestamp) -> Result<Option<(RunId, [u8; 16])>, Error> {
        let row: Option<KeyRow> = self.row_of(&self.keys, key)?;
        Ok(row.filter(|row| row.expires_at > now).map(|row| (row.run_id, row.fingerprint)))
    }

    fn sweep_keys(&self, now: Timestamp, limit: usize) -> Result<usize, Error> {
        let mut batch = self.db.batch();
        let mut swept = 0;
        for guard in self.key_expiry.range(..keys::expiry(now, &[0; 16])).take(limit) {
            let entry = guard.key()?;
            let Some((expires_at, key)) = keys::parse_expiry(&entry) else { continue };
            // The key may have been used again since.
            let row: Option<KeyRow> = self.row_of(&self.keys, &key)?;
            if row.is_some_and(|row| row.expires_at == expires_at) {
                batch.remove(&self.keys, key);
            }
            batch.remove(&self.key_expiry, entry);
            swept += 1;
        }
        batch.commit()?;
        Ok(swept)
    }

    fn mark_segment(&self, shard: u16, mark: &SegmentMark) -> Result<(), Error> {
        // Rows first: a mark without its rows would hide runs for ever.
        self.db.persist(PersistMode::SyncAll)?;
        self.marks.insert(keys::segment(shard, mark.sealed.segment), encode(mark)?)?;
        Ok(self.db.persist(PersistMode::SyncAll)?)
    }

    fn marks(&self, shard: u16) -> Result<Vec<SegmentMark>, Error> {
        self.marks.prefix(shard.to_be_bytes()).map(|guard| decode(&guard.value()?)).collect()
    }

    fn ended(&self, run_id: RunId) -> Result<Option<Timestamp>, Error> {
        if let Some(row) = Archive::get(self, run_id)? {
            return Ok(Some(row.summary.ended_at.unwrap_or(row.summary.started_at)));
        }
        Ok(self.ended_row(run_id)?.map(|row| row.ended_at))
    }

    fn expire(&self, shard: u16, segment: u64) -> Result<usize, Error> {
        let mut batch = self.db.batch();
        let mut expired = 0;
        for guard in self.members.prefix(keys::segment(shard, segment)) {
            let member = guard.key()?;
            let Some(run_id) = keys::parse_member(&member) else { continue };
            if let Some(row) = Archive::get(self, run_id)? {
                let last_segment = keys::segments(&row.frames).last().copied().unwrap_or(segment);
                let ended_at = row.summary.ended_at.unwrap_or(row.summary.started_at);
                batch.insert(&self.ended, *run_id.as_bytes(), encode(&EndedRow { ended_at, last_segment })?);
                if let Some(run_key) = &row.run_key {
                    let workspace = Workspace::of(&row.summary.workflow);
                    batch.remove(&self.run_keys, keys::run_key(&workspace, run_key, run_id));
                }
                batch.remove(&self.runs, *run_id.as_bytes());
                self.drop_references(&mut batch, run_id)?;
                expired += 1;
                if last_segment == segment {
                    batch.remove(&self.ended, *run_id.as_bytes());
                }
            } else if self.ended_row(run_id)?.is_some_and(|row| row.last_segment <= segment) {
                batch.remove(&self.ended, *run_id.as_bytes());
            }
            batch.remove(&self.members, member);
        }
        batch.remove(&self.marks, keys::segment(shard, segment));
        batch.insert(&self.expired, shard.to_be_bytes(), encode(&segment.max(self.expired(shard)?))?);
        batch.durability(Some(PersistMode::SyncAll)).commit()?;
        Ok(expired)
    }

    fn expired(&self, shard: u16) -> Result<u64, Error> {
        Ok(self.row_of(&self.expired, &shard.to_be_bytes())?.unwrap_or(0))
    }
}

impl Registry for Index {
    fn register(
        &self,
        name: &str,
        version: Option<&str>,
        canonical: &[u8],
        hash: DocumentHash,
    ) -> Result<Registered, Error> {
        if name.contains('\0') || version.is_some_and(|version| version.contains('\0')) {
            return Err(Error::Index { why: "a name holds a zero byte".into() });
        }
        // A poisoned lock protects nothing but the order of registrations.
        let _one_at_a_time = self.registering.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let known = match version {
            Some(version) => self.versions.get(keys::named(name, version.as_bytes()))?,
            None => self.by_document.get(keys::named(name, &hash))?,
        };
        if let Some(order) = known {
            let row: Option<VersionRow> = self.row_of(&self.workflows, &keys::named(name, &order))?;
            let row = row.ok_or_else(|| Error::Index { why: format!("{name} has lost a version") })?;
            if row.hash == hash {
                return Ok(Registered { version: row.version, created: false });
            }
            return Err(Error::Conflict { name: name.into(), version: row.version.to_string() });
        }
        let highest: u64 = self.row_of(&self.numbers, name.as_bytes())?.unwrap_or(0);
        let number = version.map_or(Some(highest.saturating_add(1)), |version| version.parse().ok());
        let version: Arc<str> =
            version.map_or_else(|| highest.saturating_add(1).to_string().into(), Into::into);
        let last = self.workflows.prefix(keys::named(name, &[])).next_back();
        let last = last.map(|guard| guard.key()).transpose()?;
        let order = last.and_then(|key| keys::order(&key)).unwrap_or(0).saturating_add(1).to_be_bytes();
        let mut batch = self.db.batch().durability(Some(PersistMode::SyncAll));
        batch.insert(&self.documents, hash, canonical);
        batch.insert(
            &self.workflows,
            keys::named(name, &order),
            encode(&VersionRow { version: version.clone(), hash })?,
        );
        batch.insert(&self.versions, keys::named(name, version.as_bytes()), order);
        if self.by_document.get(keys::named(name, &hash))?.is_none() {
            batch.insert(&self.by_document, keys::named(name, &hash), order);
            batch.insert(&self.document_names, keys::document_name(&hash, name), []);
        }
        if let Some(number) = number.filter(|number| *number > highest) {
            batch.insert(&self.numbers, name.as_bytes(), encode(&number)?);
        }
        batch.commit()?;
        Ok(Registered { version, created: true })
    }

    fn get(&self, name: &str, version: Option<&str>) -> Result<Option<Registration>, Error> {
        let row: Option<VersionRow> = match version {
            Some(version) => match self.versions.get(keys::named(name, version.as_bytes()))? {
                Some(order) => self.row_of(&self.workflows, &keys::named(name, &order))?,
                None => None,
            },
            None => {
                let last = self.workflows.prefix(keys::named(name, &[])).next_back();
                last.map(|guard| decode(&guard.value()?)).transpose()?
            }
        };
        Ok(row.map(|row| Registration { name: name.into(), version: row.version, hash: row.hash }))
    }

    fn tag(&self, name: &str, tag: &str, version: Option<&str>) -> Result<bool, Error> {
        let _one_at_a_time = self.registering.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut batch = self.db.batch().durability(Some(PersistMode::SyncAll));
        match version {
            Some(version) if self.versions.get(keys::named(name, version.as_bytes()))?.is_none() => {
                return Ok(false);
            }
            Some(version) => batch.insert(&self.tags, keys::named(name, tag.as_bytes()), version.as_bytes()),
            None => batch.remove(&self.tags, keys::named(name, tag.as_bytes())),
        }
        batch.commit()?;
        Ok(true)
    }

    fn tags(&self, name: &str) -> Result<Tags, Error> {
        let text = |bytes: &[u8]| Arc::<str>::from(String::from_utf8_lossy(bytes));
        let rows = self.tags.prefix(keys::named(name, &[]));
        rows.map(|guard| {
            let (key, version) = guard.into_inner()?;
            Ok((text(key.get(name.len() + 1..).unwrap_or_default()), text(&version)))
        })
        .collect()
    }

    fn is_registered(&self, hash: &DocumentHash, workspace: &Workspace) -> Result<bool, Error> {
        Ok(self.document_names.prefix(keys::content(hash, Some(workspace))).next().is_some())
    }

    fn by_hash(&self, hash: &DocumentHash) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.documents.get(hash)?.map(|bytes| bytes.to_vec()))
    }

    fn list(&self, after: Option<(&str, &str)>, limit: usize) -> Result<Vec<Registration>, Error> {
        let mut start = Vec::new();
        if let Some((name, version)) = after {
            let order = self.versions.get(keys::named(name, version.as_bytes()))?;
            // The first key after this one; of an unknown version, the first of the next name.
            start = order.map_or_else(|| keys::named(name, &[0xff; 9]), |order| keys::named(name, &order));
            start.push(0);
        }
        let rows = self.workflows.range(start..).take(limit);
        rows.map(|guard| {
            let (key, value) = guard.into_inner()?;
            let row: VersionRow = decode(&value)?;
            Ok(Registration { name: keys::name(&key).into(), version: row.version, hash: row.hash })
        })
        .collect()
    }
}

/// The ids that a page may have: from the first on, before the second. Times narrow them, so that what is older or newer
/// is not looked at.
fn bounds(query: &ArchiveQuery) -> (RunId, RunId) {
    let last = RunId::from_bytes([0xff; 16]);
    let (from, end) = query.filter.ids();
    let end = end.unwrap_or(last).min(query.before.unwrap_or(last));
    (from.unwrap_or(RunId::from_bytes([0; 16])).min(end), end)
}

/// A row of a run. One written before there were business keys ends where the key would stand.
fn decode_row(bytes: &[u8]) -> Result<ArchiveRow, Error> {
    let mut row: ArchiveRow = match postcard::from_bytes(bytes) {
        Ok(row) => row,
        Err(postcard::Error::DeserializeUnexpectedEnd) => decode(&[bytes, &[0]].concat())?,
        Err(_) => decode(bytes)?,
    };
    row.summary.run_key.clone_from(&row.run_key);
    Ok(row)
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
mod tests;
