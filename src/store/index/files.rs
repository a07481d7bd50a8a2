//! History files in the index: what a move leaves, which files are due, which runs are forgotten or to be taken out.
//!
//! A run's end, forgetting and erasure touch all its rows in one batch. A *tombstone* stands for a run that is forgotten while
//! events of it lie in a segment or a file that is still there; it names these, and goes with the last of them. One lock for
//! all that reads and then writes tombstones: the index thread, and blocking threads that erase.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::listing::{Lists, read_ids, write_ids};
use super::{Index, decode, decode_row, decode_short, encode, keys, unreadable};
use crate::model::RunId;
use crate::store::Error;
use crate::store::archive::{ArchiveRow, Erasure, Expiry, FileRow, Known, SegmentMark};
use crate::store::history::{FileId, Moved};
use crate::store::keyspaces::{Batch, Bytes, Gaps, Guard, Keyspace};
use crate::store::log::Sealed;
use crate::time::Timestamp;

/// A file with live runs in it is looked at again after its class's time, and not sooner than this.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// Runs of a file in one row.
const RUNS_PER_ROW: usize = 1_024;
/// Runs taken from one file at a time.
const ERASURES_AT_ONCE: usize = 8_192;

/// A mark as it is written.
#[derive(Serialize, Deserialize)]
struct MarkRow {
    sealed: Sealed,
    /// Format 1: when the segment's runs may be forgotten.
    expires_at: Timestamp,
    /// Format 1 ends before it.
    moved: Option<()>,
}

/// A history file as it is written.
#[derive(Serialize, Deserialize)]
struct Stored {
    bytes: u64,
    runs: u64,
    expires_at: Timestamp,
}

/// A run that is forgotten while events of it are left.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Tombstone {
    pub(super) ended_at: Timestamp,
    /// Whose journal. Those of format 1 do not say.
    pub(super) shard: Option<u16>,
    /// Segments with events of it, moved or not.
    pub(super) left: Vec<u64>,
    /// It was erased on request.
    pub(super) erased: bool,
}

/// Runs that are about to be forgotten, in one batch.
#[derive(Default)]
struct Leaving {
    batch: Batch,
    lists: Lists,
    /// Most runs have rows in few keyspaces.
    gaps: Gaps,
}

impl Leaving {
    fn whole(mut self, index: &Index) -> Result<Batch, Error> {
        self.lists.write(index, &mut self.batch)?;
        Ok(self.batch)
    }
}

pub(super) fn decode_mark(bytes: &[u8]) -> Result<SegmentMark, Error> {
    let row: MarkRow = decode_short(bytes, 1)?;
    Ok(SegmentMark { sealed: row.sealed, moved: row.moved.is_some() })
}

pub(super) fn decode_file(guard: Guard) -> Result<FileRow, Error> {
    let (key, value) = guard.into_inner()?;
    let file = keys::parse_file(&key).ok_or_else(|| unreadable("a file's key"))?;
    let Stored { bytes, runs, expires_at } = decode(&value)?;
    Ok(FileRow { file, bytes, runs, expires_at })
}

/// What stands under the ids of runs.
fn values(keyspace: &Keyspace, run_ids: &[RunId]) -> Result<Vec<Option<Bytes>>, Error> {
    let keys: Vec<&[u8]> = run_ids.iter().map(|run_id| run_id.as_bytes().as_slice()).collect();
    keyspace.get_all(&keys)
}

impl Index {
    /// A poisoned lock protects nothing but the order of changes.
    pub(super) fn forgetting(&self) -> std::sync::MutexGuard<'_, ()> {
        self.forgetting.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub(super) fn tombstone(&self, run_id: RunId) -> Result<Option<Tombstone>, Error> {
        self.row_of(&self.tombstones, run_id.as_bytes())
    }

    /// The rows of these runs that are there.
    pub(super) fn runs(&self, run_ids: &[RunId]) -> Result<Vec<ArchiveRow>, Error> {
        let found = values(&self.runs, run_ids)?.into_iter().flatten();
        found.map(|bytes| decode_row(&bytes)).collect()
    }

    /// Which of these runs have a row there.
    pub(super) fn are_in<'a>(
        &self,
        keyspace: &Keyspace,
        run_ids: impl Iterator<Item = &'a RunId>,
    ) -> Result<Vec<bool>, Error> {
        let run_ids: Vec<RunId> = run_ids.copied().collect();
        Ok(values(keyspace, &run_ids)?.iter().map(Option::is_some).collect())
    }

    pub(super) fn known_of(&self, run_ids: &[RunId]) -> Result<Vec<Known>, Error> {
        let rows = values(&self.runs, run_ids)?;
        let forgotten = self.are_in(&self.tombstones, run_ids.iter())?;
        let spanning = values(&self.spanning, run_ids)?;
        let known = rows.into_iter().zip(forgotten).zip(spanning).map(|((row, forgotten), class)| {
            Ok(match (row, class) {
                (Some(row), _) => {
                    let row = decode_row(&row)?;
                    Known::Ended(row.summary.ended_at.unwrap_or(row.summary.started_at), row.class)
                }
                (None, _) if forgotten => Known::Forgotten,
                (None, Some(class)) => Known::Live(decode(&class)?),
                (None, None) => Known::Nothing,
            })
        });
        known.collect()
    }

    fn file(&self, file: FileId) -> Result<Option<Stored>, Error> {
        self.row_of(&self.files, &keys::file(file))
    }

    fn put_file(&self, batch: &mut Batch, file: FileId, stored: &Stored) -> Result<(), Error> {
        if let Some(before) = self.file(file)? {
            batch.remove(&self.file_expiry, keys::file_expiry(before.expires_at, file));
        }
        batch.insert(&self.files, keys::file(file), encode(stored)?);
        batch.insert(&self.file_expiry, keys::file_expiry(stored.expires_at, file), []);
        Ok(())
    }

    fn drop_file(&self, batch: &mut Batch, file: FileId) -> Result<(), Error> {
        if let Some(before) = self.file(file)? {
            batch.remove(&self.file_expiry, keys::file_expiry(before.expires_at, file));
        }
        batch.remove(&self.files, keys::file(file));
        for keyspace in [&self.file_runs, &self.open_members, &self.erasures] {
            for guard in keyspace.prefix(keys::file(file)) {
                batch.remove(keyspace, guard.key()?);
            }
        }
        Ok(())
    }

    /// The events of a forgotten run in this segment are gone.
    fn less(&self, batch: &mut Batch, segment: u64, run_id: RunId) -> Result<(), Error> {
        let Some(mut tombstone) = self.tombstone(run_id)? else { return Ok(()) };
        tombstone.left.retain(|left| *left != segment);
        if tombstone.left.is_empty() {
            batch.remove(&self.tombstones, *run_id.as_bytes());
        } else {
            batch.insert(&self.tombstones, *run_id.as_bytes(), encode(&tombstone)?);
        }
        Ok(())
    }

    pub(super) fn put_moved(&self, moved: &Moved, now: Timestamp) -> Result<(), Error> {
        let _one_at_a_time = self.forgetting();
        // Rows first: a mark without its rows would hide runs for ever.
        self.sync()?;
        let (shard, segment) = (moved.shard, moved.sealed.segment);
        let mut batch = Batch::default();
        let mark = MarkRow { sealed: moved.sealed, expires_at: Timestamp::default(), moved: Some(()) };
        batch.insert(&self.marks, keys::segment(shard, segment), encode(&mark)?);
        for of in &moved.files {
            let kept = of.file.class.duration();
            let mut expires_at = of.last_ended.saturating_add(kept);
            for run_id in &of.live {
                batch.insert(&self.open_members, keys::in_file(of.file, *run_id), []);
                batch.insert(&self.spanning, *run_id.as_bytes(), encode(&of.file.class)?);
                expires_at = expires_at.max(now.saturating_add(kept.max(LOOK_AGAIN)));
            }
            let stored =
                Stored { bytes: of.bytes, runs: of.ended.len() as u64 + of.live.len() as u64, expires_at };
            self.put_file(&mut batch, of.file, &stored)?;
            let run_ids: Vec<RunId> = of.ended.iter().chain(&of.live).copied().collect();
            self.put_file_runs(&mut batch, of.file, &run_ids);
        }
        for run_id in &moved.forgotten {
            self.less(&mut batch, segment, *run_id)?;
        }
        // Erased while the segment was being moved: then their events are in the files.
        for guard in self.tombstones.iter() {
            let (key, value) = guard.into_inner()?;
            let Some(run_id) = keys::parse_run(&key) else { continue };
            let tombstone: Tombstone = decode(&value)?;
            let here = tombstone.shard == Some(shard) && tombstone.left.contains(&segment);
            if here && tombstone.erased && !moved.forgotten.contains(&run_id) {
                for of in &moved.files {
                    batch.insert(&self.erasures, keys::in_file(of.file, run_id), []);
                }
            }
        }
        self.commit(batch.synced(true))
    }

    /// Whose events a file has: what is forgotten with it.
    pub(super) fn put_file_runs(&self, batch: &mut Batch, file: FileId, run_ids: &[RunId]) {
        for (number, run_ids) in (0..).zip(run_ids.chunks(RUNS_PER_ROW)) {
            batch.insert(&self.file_runs, keys::file_runs(file, number), write_ids(run_ids));
        }
    }

    /// Takes all rows of a run away. The tombstone stays for the segments of it that are `left`.
    fn forget(
        &self,
        Leaving { batch, lists, gaps }: &mut Leaving,
        row: &ArchiveRow,
        left: Vec<u64>,
        erased: bool,
    ) -> Result<(), Error> {
        let run_id = row.summary.run_id;
        self.drop_references((batch, gaps), run_id)?;
        self.drop_reviews((batch, gaps), run_id)?;
        self.drop_letters((batch, gaps), run_id)?;
        self.drop_artifacts((batch, gaps), run_id)?;
        batch.remove(&self.runs, *run_id.as_bytes());
        lists.remove(row);
        if let Some(key) = keys::run_key_of(row) {
            batch.remove(&self.run_keys, key);
        }
        if !left.is_empty() {
            let ended_at = row.summary.ended_at.unwrap_or(row.summary.started_at);
            let tombstone = Tombstone { ended_at, shard: Some(row.shard), left, erased };
            batch.insert(&self.tombstones, *run_id.as_bytes(), encode(&tombstone)?);
        }
        Ok(())
    }

    pub(super) fn expire_file(&self, file: FileId, now: Timestamp, limit: usize) -> Result<Expiry, Error> {
        let _one_at_a_time = self.forgetting();
        let mut batch = Batch::durable();
        if let Some(at) = self.not_yet(&mut batch, file, now)? {
            if let Some(stored) = self.file(file)? {
                self.put_file(&mut batch, file, &Stored { expires_at: at, ..stored })?;
            }
            self.commit(batch)?;
            return Ok(Expiry::Later(at));
        }
        self.forget_file(batch, file, limit)
    }

    pub(super) fn expire_file_early(&self, file: FileId, limit: usize) -> Result<Expiry, Error> {
        let _one_at_a_time = self.forgetting();
        for guard in self.open_members.prefix(keys::file(file)) {
            let Some(run_id) = keys::parse_run(&guard.key()?) else { continue };
            if self.run(run_id)?.is_none() && self.tombstone(run_id)?.is_none() {
                return Ok(Expiry::Later(Timestamp::default()));
            }
        }
        let batch = Batch::durable();
        self.forget_file(batch, file, limit)
    }

    /// Forgets up to `limit` runs of a file, and with the last of them the file.
    fn forget_file(&self, batch: Batch, file: FileId, limit: usize) -> Result<Expiry, Error> {
        let (mut forgotten, mut room) = (0, limit);
        let mut leaving = Leaving { batch, ..Leaving::default() };
        for guard in self.file_runs.prefix(keys::file(file)) {
            let (key, run_ids) = guard.into_inner()?;
            let run_ids = read_ids(&run_ids)?;
            let (now, later) = run_ids.split_at(run_ids.len().min(room));
            room -= now.len();
            // In their order, and their rows at once: of a store that is far away little is asked then.
            let mut now = now.to_vec();
            now.sort_unstable();
            let keys: Vec<&[u8]> = now.iter().map(|run_id| &run_id.as_bytes()[..]).collect();
            for (run_id, row) in now.iter().zip(self.runs.get_all(&keys)?) {
                if let Some(row) = row.map(|row| decode_row(&row)).transpose()? {
                    let mut left = keys::segments(&row.frames);
                    left.remove(&file.segment);
                    let left = left.into_iter().collect();
                    self.forget(&mut leaving, &row, left, false)?;
                    forgotten += 1;
                } else {
                    self.less(&mut leaving.batch, file.segment, *run_id)?;
                }
            }
            if later.is_empty() {
                leaving.batch.remove(&self.file_runs, key);
                continue;
            }
            leaving.batch.insert(&self.file_runs, key, write_ids(later));
            self.commit(leaving.whole(self)?)?;
            return Ok(Expiry::Some(forgotten));
        }
        let mut batch = leaving.whole(self)?;
        self.drop_file(&mut batch, file)?;
        self.commit(batch)?;
        Ok(Expiry::All(forgotten))
    }

    /// Runs that had not ended when the file was written: when it may go for them, if that is not now.
    fn not_yet(&self, batch: &mut Batch, file: FileId, now: Timestamp) -> Result<Option<Timestamp>, Error> {
        let kept = file.class.duration();
        let mut at = Timestamp::default();
        for guard in self.open_members.prefix(keys::file(file)) {
            let key = guard.key()?;
            let Some(run_id) = keys::parse_run(&key) else { continue };
            let ended = self.run(run_id)?.map(|row| row.summary.ended_at.unwrap_or(row.summary.started_at));
            let gone = ended.is_none() && self.tombstone(run_id)?.is_some();
            if ended.is_some() || gone {
                batch.remove(&self.open_members, key);
            }
            at = match ended {
                Some(ended) => at.max(ended.saturating_add(kept)),
                None if gone => at,
                None => at.max(now.saturating_add(kept.max(LOOK_AGAIN))),
            };
        }
        Ok((at > now).then_some(at))
    }

    pub(super) fn erase_run(&self, run_id: RunId) -> Result<bool, Error> {
        let _one_at_a_time = self.forgetting();
        let Some(row) = self.run(run_id)? else { return Ok(false) };
        let mut leaving = Leaving { batch: Batch::durable(), ..Leaving::default() };
        let segments = keys::segments(&row.frames);
        for segment in &segments {
            for guard in self.files.prefix(keys::segment(row.shard, *segment)) {
                let Some(file) = keys::parse_file(&guard.key()?) else { continue };
                if row.class.is_none_or(|class| class == file.class) {
                    leaving.batch.insert(&self.erasures, keys::in_file(file, run_id), []);
                }
            }
        }
        self.forget(&mut leaving, &row, segments.into_iter().collect(), true)?;
        let mut batch = leaving.whole(self)?;
        // The key goes on to answer, without what was the caller's.
        if let Some(idempotency) = &row.idempotency
            && let Some(mut key) = self.key_row(&idempotency.key)?.filter(|key| key.run_id == run_id)
        {
            key.answer = key.answer.map(|(summary, _)| (summary, None));
            batch.insert(&self.keys, idempotency.key, encode(&key)?);
        }
        self.commit(batch)?;
        Ok(true)
    }

    pub(super) fn next_erasure(&self) -> Result<Option<Erasure>, Error> {
        let mut found: BTreeMap<FileId, Vec<RunId>> = BTreeMap::new();
        for guard in self.erasures.iter().take(ERASURES_AT_ONCE) {
            let key = guard.key()?;
            if let (Some(file), Some(run_id)) = (keys::parse_in_file(&key), keys::parse_run(&key)) {
                found.entry(file).or_default().push(run_id);
            }
        }
        Ok(found.pop_first().map(|(file, runs)| Erasure { file, runs }))
    }

    pub(super) fn put_erased(&self, erasure: &Erasure, left: Option<(u64, u64)>) -> Result<(), Error> {
        let _one_at_a_time = self.forgetting();
        let mut batch = Batch::durable();
        let file = erasure.file;
        // Which of a segment's files has them may not have been known: the last one to be looked through says that they are gone.
        let others = self.erasures.prefix(keys::segment(file.shard, file.segment));
        let others: BTreeSet<_> = others
            .filter_map(|guard| guard.key().ok())
            .filter(|key| keys::parse_in_file(key) != Some(file))
            .filter_map(|key| keys::parse_run(&key))
            .collect();
        for run_id in &erasure.runs {
            batch.remove(&self.erasures, keys::in_file(file, *run_id));
            if !others.contains(run_id) {
                self.less(&mut batch, file.segment, *run_id)?;
            }
        }
        match (left, self.file(file)?) {
            (Some((bytes, runs)), Some(stored)) => {
                self.put_file(&mut batch, file, &Stored { bytes, runs, ..stored })?;
            }
            _ => self.drop_file(&mut batch, file)?,
        }
        self.commit(batch)
    }
}
