//! The index in memory, as forgetful as it may be: rows that no mark has made durable may be gone after a crash.

#![expect(clippy::disallowed_types, reason = "one thread uses it")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::io::disk::simulated::Random;
use crate::limits;
use crate::model::approval::{Noted, Row, What};
use crate::model::letter::{Letter, LetterId};
use crate::model::usage::{DayUsage, MinuteUsage};
use crate::model::webhook::{Delivery, DeliveryId, Webhook, WebhookId};
use crate::model::{FrameRef, Place, RetentionClass, RunId, RunSummary, Seq, Ticket, Workspace};
use crate::store::approvals::{self, Approvals};
use crate::store::archive::{
    ArchivePage, ArchiveQuery, ArchiveRow, Erasure, Expiry, FileRow, KeyAnswer, Known, SegmentMark,
};
use crate::store::history::{FileId, Moved};
use crate::store::images::{Image, Seen, Tally};
use crate::store::letters::{self, Letters};
use crate::store::references::{MemoryReferences, References as _};
use crate::store::{Archive, Error};
use crate::time::Timestamp;

type KeyRow = (KeyAnswer, Timestamp);

#[derive(Clone, Default)]
struct Tables {
    runs: BTreeMap<RunId, ArchiveRow>,
    keys: BTreeMap<[u8; 16], KeyRow>,
    marks: BTreeMap<(u16, u64), SegmentMark>,
    /// Forgotten, with events in these segments of a shard: when they ended.
    tombstones: BTreeMap<RunId, (u16, Timestamp, BTreeSet<u64>)>,
    /// They lived when events of theirs were moved to this class.
    spanning: BTreeMap<RunId, RetentionClass>,
    /// Files, and the runs in them that lived then.
    files: BTreeMap<FileId, (FileRow, Vec<RunId>)>,
    reviews: BTreeMap<Ticket, Row>,
    places: BTreeMap<(RunId, Place), Seq>,
    images: BTreeMap<(u16, RunId), Arc<[u8]>>,
    tallies: BTreeMap<u16, Tally>,
}

/// What one call puts.
#[derive(Clone)]
enum Batch {
    Reviews(Vec<Noted>),
    Rows(Vec<ArchiveRow>),
    Images(u16, Vec<Image>),
}

#[derive(Default)]
struct State {
    durable: Tables,
    /// Batches since then.
    batches: Vec<Batch>,
    /// Shards with an image that is not what was put.
    damaged: BTreeSet<u16>,
    now: Tables,
}

/// Shared by all lives of the node.
#[derive(Default)]
pub(super) struct SimulatedArchive {
    state: Mutex<State>,
    /// Durable at once.
    pub(super) references: Arc<MemoryReferences>,
    moves: AtomicU64,
}

impl Tables {
    fn put(&mut self, batch: &Batch) {
        match batch {
            Batch::Reviews(noted) => noted.iter().for_each(|noted| self.put_noted(noted)),
            Batch::Rows(rows) => self.put_rows(rows),
            Batch::Images(shard, images) => images.iter().for_each(|image| self.put_image(*shard, image)),
        }
    }

    fn put_noted(&mut self, noted: &Noted) {
        let place = (noted.run_id, noted.place.clone());
        if let What::Asked(_) = &noted.what {
            self.places.insert(place.clone(), noted.seq);
        }
        let Some(seq) = self.places.get(&place).copied() else { return };
        let ticket = Ticket { run_id: noted.run_id, seq };
        if let Some(row) = Row::after(self.reviews.get(&ticket).cloned(), noted) {
            self.reviews.insert(ticket, row);
        }
    }

    fn put_image(&mut self, shard: u16, image: &Image) {
        self.remove_image(shard, image.run_id);
        self.images.insert((shard, image.run_id), image.bytes.clone());
        self.tallies.entry(shard).or_default().add(image.run_id, &image.bytes);
    }

    fn remove_image(&mut self, shard: u16, run_id: RunId) {
        if let Some(bytes) = self.images.remove(&(shard, run_id)) {
            self.tallies.entry(shard).or_default().remove(run_id, &bytes);
        }
    }

    fn put_rows(&mut self, rows: &[ArchiveRow]) {
        for row in rows.iter().filter(|row| row.imaged) {
            self.remove_image(row.shard, row.summary.run_id);
        }
        for row in rows.iter().filter(|row| !self.tombstones.contains_key(&row.summary.run_id)) {
            let (run_id, mut row) = (row.summary.run_id, row.clone());
            let before = self.runs.get(&run_id).and_then(|row| row.class);
            row.class = self.spanning.remove(&run_id).or(before).or(row.class);
            if let Some(idempotency) = &row.idempotency {
                let ended = row.summary.ended_at.unwrap_or(row.summary.started_at);
                let least = Duration::from_secs(limits::IDEMPOTENCY_KEY_SECONDS);
                let expires = ended.saturating_add(row.class.unwrap().duration().max(least));
                let (status, seq) = row.acknowledged;
                let ended_at = row.summary.ended_at.filter(|_| row.summary.seq == seq);
                let run_key = row.run_key.clone();
                let summary = RunSummary { status, seq, ended_at, run_key, ..row.summary.clone() };
                let fingerprint = idempotency.fingerprint;
                let answer = KeyAnswer { run_id, fingerprint, summary: Some(summary) };
                self.keys.insert(idempotency.key, (answer, expires));
            }
            self.runs.insert(run_id, row);
        }
    }

    fn less(&mut self, run_id: RunId, segment: u64) {
        if let Some((.., left)) = self.tombstones.get_mut(&run_id) {
            left.remove(&segment);
        }
        self.tombstones.retain(|_, (.., left)| !left.is_empty());
    }

    fn ended(&self, run_id: RunId) -> Option<Timestamp> {
        self.runs.get(&run_id).map(|row| row.summary.ended_at.unwrap_or(row.summary.started_at))
    }
}

fn segments(frames: &[FrameRef]) -> BTreeSet<u64> {
    frames.iter().map(|frame| frame.segment).collect()
}

impl State {
    fn sync(&mut self) {
        self.batches.clear();
        self.durable = self.now.clone();
    }
}

impl SimulatedArchive {
    fn put_batch(&self, batch: Batch) {
        let mut state = self.state();
        state.now.put(&batch);
        state.batches.push(batch);
    }

    /// Something goes wrong with an image: a byte is not what it was, or it is gone. False when there is none.
    pub(super) fn damage(&self, random: &mut Random) -> bool {
        let mut state = self.state();
        let count = state.durable.images.len() as u64;
        if count == 0 {
            return false;
        }
        let at = random.draw(count) as usize;
        let Some((key, bytes)) =
            state.durable.images.iter().nth(at).map(|(key, bytes)| (*key, bytes.to_vec()))
        else {
            return false;
        };
        let mut damaged = bytes;
        if random.draw(3) == 0 {
            state.durable.images.remove(&key);
        } else {
            let byte = random.draw(damaged.len() as u64) as usize;
            damaged[byte] ^= 1 << random.draw(8);
            state.durable.images.insert(key, damaged.into());
        }
        state.now = state.durable.clone();
        state.damaged.insert(key.0);
        true
    }

    pub(super) fn is_damaged(&self, shard: u16) -> bool {
        self.state().damaged.contains(&shard)
    }

    /// Forgets runs of a file, and with the last of them the file.
    fn forget_file(&self, state: &mut State, file: FileId, limit: usize) -> Result<Expiry, Error> {
        let here = |row: &&ArchiveRow| {
            row.shard == file.shard
                && row.class == Some(file.class)
                && segments(&row.frames).contains(&file.segment)
        };
        let rows: Vec<_> = state.now.runs.values().filter(here).take(limit + 1).cloned().collect();
        for row in rows.iter().take(limit) {
            let run_id = row.summary.run_id;
            let mut left = segments(&row.frames);
            left.remove(&file.segment);
            state.now.runs.remove(&run_id);
            self.references.forget(run_id)?;
            if !left.is_empty() {
                state.now.tombstones.insert(run_id, (file.shard, row.summary.ended_at.unwrap(), left));
            }
        }
        if rows.len() > limit {
            state.sync();
            return Ok(Expiry::Some(limit));
        }
        // Of those forgotten before, nothing is left here either.
        let gone: Vec<_> = state
            .now
            .tombstones
            .iter()
            .filter(|(_, (shard, ..))| *shard == file.shard)
            .map(|(id, _)| *id)
            .collect();
        gone.into_iter().for_each(|run_id| state.now.less(run_id, file.segment));
        state.now.files.remove(&file);
        state.sync();
        Ok(Expiry::All(rows.len()))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Segments moved so far, over all lives.
    pub(super) fn moves(&self) -> u64 {
        self.moves.load(Ordering::Relaxed)
    }

    /// A crash: a beginning of what is not durable is kept. Gives how many batches were lost.
    pub(super) fn crash(&self, random: &mut Random) -> usize {
        let mut state = self.state();
        let batches = std::mem::take(&mut state.batches);
        let kept = random.draw(batches.len() as u64 + 1) as usize;
        for batch in batches.iter().take(kept) {
            state.durable.put(batch);
        }
        state.now = state.durable.clone();
        batches.len() - kept
    }
}

fn ended_us(row: &ArchiveRow) -> u64 {
    row.summary.ended_at.unwrap_or(row.summary.started_at).as_micros()
}

fn days(row: &ArchiveRow) -> impl Iterator<Item = DayUsage> + '_ {
    let day = u32::try_from(ended_us(row) / 86_400_000_000).unwrap_or(u32::MAX);
    row.used.iter().map(move |used| DayUsage {
        day,
        workflow: row.summary.workflow.clone(),
        role: used.role.clone(),
        model: used.model.clone(),
        runs: 1,
        part: used.part.clone(),
    })
}

impl Archive for SimulatedArchive {
    fn put_reviews(&self, noted: &[Noted]) -> Result<bool, Error> {
        if !noted.is_empty() {
            self.put_batch(Batch::Reviews(noted.to_vec()));
        }
        Ok(false)
    }

    fn put(&self, rows: &[ArchiveRow]) -> Result<(), Error> {
        self.put_batch(Batch::Rows(rows.to_vec()));
        Ok(())
    }

    fn usage(
        &self,
        workspace: &Workspace,
        (from, to): (u32, u32),
        limit: usize,
    ) -> Result<Vec<DayUsage>, Error> {
        let state = self.state();
        let rows = state.now.runs.values().filter(|row| Workspace::of(&row.summary.workflow) == *workspace);
        Ok(rows.flat_map(days).filter(|row| (from..=to).contains(&row.day)).take(limit).collect())
    }

    fn usage_of_all(&self, seen: &mut dyn FnMut(DayUsage)) -> Result<(), Error> {
        self.state().now.runs.values().flat_map(days).for_each(seen);
        Ok(())
    }

    fn usage_since(&self, from: u32, seen: &mut dyn FnMut(MinuteUsage)) -> Result<(), Error> {
        let state = self.state();
        let used = state.now.runs.values().flat_map(|row| {
            let minute = u32::try_from(ended_us(row) / 60_000_000).unwrap_or(u32::MAX);
            row.used.iter().map(move |used| MinuteUsage {
                minute,
                workflow: row.summary.workflow.clone(),
                role: used.role.clone(),
                usd: used.part.usd,
                tokens: used.part.tokens_taken(),
            })
        });
        let mut used: Vec<_> = used.filter(|row| row.minute >= from).collect();
        used.sort_by_key(|row| row.minute);
        used.into_iter().for_each(seen);
        Ok(())
    }

    fn put_images(&self, shard: u16, images: &[Image]) -> Result<(), Error> {
        self.put_batch(Batch::Images(shard, images.to_vec()));
        Ok(())
    }

    fn images(&self, shard: u16, visit: &mut Seen<'_>) -> Result<Tally, Error> {
        let (images, tally) = {
            let state = self.state();
            let tally = state.now.tallies.get(&shard).copied().unwrap_or_default();
            let of_shard = state.now.images.iter().filter(|((of, _), _)| *of == shard);
            (of_shard.map(|((_, run_id), bytes)| (*run_id, bytes.clone())).collect::<Vec<_>>(), tally)
        };
        images.iter().try_for_each(|(run_id, bytes)| visit(*run_id, bytes))?;
        Ok(tally)
    }

    fn replace_images(
        &self,
        shard: u16,
        images: &mut dyn Iterator<Item = Result<Image, Error>>,
    ) -> Result<(), Error> {
        let images: Vec<_> = images.collect::<Result<_, _>>()?;
        let mut state = self.state();
        state.now.images.retain(|(of, _), _| *of != shard);
        state.now.tallies.remove(&shard);
        images.iter().for_each(|image| state.now.put_image(shard, image));
        state.sync();
        assert!(state.damaged.remove(&shard), "sound images of shard {shard} were dropped");
        Ok(())
    }

    fn get(&self, run_id: RunId) -> Result<Option<ArchiveRow>, Error> {
        Ok(self.state().now.runs.get(&run_id).cloned())
    }

    fn list(&self, query: &ArchiveQuery) -> Result<ArchivePage, Error> {
        let state = self.state();
        let rows = state.now.runs.iter().rev().filter(|(run_id, row)| {
            query.before.is_none_or(|before| **run_id < before) && query.filter.fits_summary(&row.summary)
        });
        let rows: Vec<_> = rows.map(|(_, row)| row.clone()).take(query.limit).collect();
        let next = rows.last().filter(|_| rows.len() == query.limit).map(|row| row.summary.run_id);
        Ok(ArchivePage { looked_at: rows.len(), rows, next })
    }

    fn key(&self, key: &[u8; 16], now: Timestamp) -> Result<Option<KeyAnswer>, Error> {
        let found = self.state().now.keys.get(key).cloned();
        Ok(found.filter(|(_, expires)| *expires > now).map(|(answer, _)| answer))
    }

    fn sweep_keys(&self, _: Timestamp, _: usize) -> Result<usize, Error> {
        Ok(0)
    }

    fn known(&self, run_ids: &[RunId]) -> Result<Vec<Known>, Error> {
        let Tables { runs, tombstones, spanning, .. } = &self.state().now;
        let known = |run_id| match (runs.get(run_id), tombstones.get(run_id), spanning.get(run_id)) {
            (Some(row), ..) => Known::Ended(row.summary.ended_at.unwrap(), row.class),
            (None, Some(_), _) => Known::Forgotten,
            (None, None, Some(class)) => Known::Live(*class),
            (None, None, None) => Known::Nothing,
        };
        Ok(run_ids.iter().map(known).collect())
    }

    fn moved(&self, moved: &Moved, now: Timestamp) -> Result<(), Error> {
        let mut state = self.state();
        let (shard, sealed) = (moved.shard, moved.sealed);
        state.now.marks.insert((shard, sealed.segment), SegmentMark { sealed, moved: true });
        for of in &moved.files {
            let kept = of.file.class.duration();
            let mut expires_at = of.last_ended.saturating_add(kept);
            for run_id in &of.live {
                state.now.spanning.insert(*run_id, of.file.class);
                expires_at = expires_at.max(now.saturating_add(kept.max(Duration::from_secs(10))));
            }
            let row = FileRow {
                file: of.file,
                bytes: of.bytes,
                runs: (of.ended.len() + of.live.len()) as u64,
                expires_at,
            };
            state.now.files.insert(of.file, (row, of.live.clone()));
        }
        for run_id in &moved.forgotten {
            state.now.less(*run_id, sealed.segment);
        }
        state.sync();
        self.moves.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn marks(&self, shard: u16) -> Result<Vec<SegmentMark>, Error> {
        let state = self.state();
        Ok(state.now.marks.iter().filter(|((of, _), _)| *of == shard).map(|(_, mark)| *mark).collect())
    }

    fn unmark(&self, shard: u16, before: u64) -> Result<(), Error> {
        // Not durable: a mark that comes back does no harm.
        self.state().now.marks.retain(|(of, segment), _| *of != shard || *segment >= before);
        Ok(())
    }

    fn ended(&self, run_id: RunId) -> Result<Option<Timestamp>, Error> {
        let state = self.state();
        let forgotten = state.now.tombstones.get(&run_id).map(|(_, ended_at, _)| *ended_at);
        Ok(state.now.ended(run_id).or(forgotten))
    }

    fn files(&self, shard: u16) -> Result<Vec<FileRow>, Error> {
        let state = self.state();
        Ok(state.now.files.values().map(|(row, _)| *row).filter(|row| row.file.shard == shard).collect())
    }

    fn due(&self, now: Timestamp, limit: usize) -> Result<Vec<FileId>, Error> {
        let state = self.state();
        let mut due: Vec<_> =
            state.now.files.values().map(|(row, _)| *row).filter(|row| row.expires_at <= now).collect();
        due.sort_by_key(|row| (row.expires_at, row.file));
        Ok(due.into_iter().map(|row| row.file).take(limit).collect())
    }

    fn expire(&self, file: FileId, now: Timestamp, limit: usize) -> Result<Expiry, Error> {
        let mut state = self.state();
        let kept = file.class.duration();
        let open = state.now.files.get(&file).map(|(_, live)| live.clone()).unwrap_or_default();
        let later = open.iter().map(|run_id| match state.now.ended(*run_id) {
            Some(ended) => ended.saturating_add(kept),
            None if state.now.tombstones.contains_key(run_id) => Timestamp::default(),
            None => now.saturating_add(kept.max(Duration::from_secs(10))),
        });
        if let Some(at) = later.max().filter(|at| *at > now) {
            state.now.files.get_mut(&file).unwrap().0.expires_at = at;
            state.sync();
            return Ok(Expiry::Later(at));
        }
        self.forget_file(&mut state, file, limit)
    }

    fn expire_early(&self, file: FileId, limit: usize) -> Result<Expiry, Error> {
        let mut state = self.state();
        let open = state.now.files.get(&file).map(|(_, live)| live.clone()).unwrap_or_default();
        let lives = |run_id| state.now.ended(run_id).is_none() && !state.now.tombstones.contains_key(&run_id);
        if open.into_iter().any(lives) {
            return Ok(Expiry::Later(Timestamp::default()));
        }
        self.forget_file(&mut state, file, limit)
    }

    fn erase(&self, _: RunId) -> Result<bool, Error> {
        Ok(false)
    }

    fn erasure(&self) -> Result<Option<Erasure>, Error> {
        Ok(None)
    }

    fn erased(&self, _: &Erasure, _: Option<(u64, u64)>) -> Result<(), Error> {
        Ok(())
    }
}

/// Nobody has webhooks here; reviews that are over are listed.
impl Approvals for SimulatedArchive {
    fn over(&self, query: &approvals::Query) -> Result<approvals::Page, Error> {
        let state = self.state();
        let rows = state.now.reviews.iter().rev().filter(|(ticket, row)| {
            query.before.is_none_or(|before| **ticket < before)
                && row.state == query.state
                && query.workflow.as_ref().is_none_or(|name| *name == row.request.workflow)
                && query.reviewer.as_deref().is_none_or(|reviewer| row.asks(reviewer))
        });
        let rows: Vec<_> = rows.map(|(_, row)| row.clone()).take(query.limit).collect();
        let next = rows.last().filter(|_| rows.len() == query.limit).map(|row| row.ticket);
        Ok(approvals::Page { rows, next })
    }

    fn add(&self, _: &Webhook) -> Result<bool, Error> {
        Ok(false)
    }

    fn webhooks(&self, _: &Workspace) -> Result<Vec<Webhook>, Error> {
        Ok(Vec::new())
    }

    fn webhook(&self, _: &Workspace, _: WebhookId) -> Result<Option<Webhook>, Error> {
        Ok(None)
    }

    fn remove(&self, _: &Workspace, _: WebhookId) -> Result<bool, Error> {
        Ok(false)
    }

    fn spread(&self, _: Timestamp, _: usize) -> Result<Vec<Row>, Error> {
        Ok(Vec::new())
    }

    fn due(&self, _: Timestamp, _: usize) -> Result<approvals::Due, Error> {
        Ok((Vec::new(), None))
    }

    fn attempted(&self, _: DeliveryId, _: &approvals::Attempted, _: Timestamp) -> Result<(), Error> {
        Ok(())
    }

    fn deliveries(&self, _: approvals::Which, _: usize) -> Result<Vec<Delivery>, Error> {
        Ok(Vec::new())
    }

    fn redrive(&self, _: WebhookId, _: Timestamp) -> Result<usize, Error> {
        Ok(0)
    }
}

/// Nobody asks for dead letters here.
impl Letters for SimulatedArchive {
    fn letters(&self, _: &letters::Query) -> Result<letters::Page, Error> {
        Ok(letters::Page::default())
    }

    fn letter(&self, _: &Workspace, _: LetterId) -> Result<Option<Letter>, Error> {
        Ok(None)
    }

    fn redriven(&self, _: &Workspace, _: LetterId, _: RunId) -> Result<(), Error> {
        Ok(())
    }

    fn purge(&self, _: &Workspace, _: &[LetterId]) -> Result<usize, Error> {
        Ok(0)
    }
}
