//! The index in memory, as forgetful as it may be: rows that no mark has made durable may be gone after a crash.

#![expect(clippy::disallowed_types, reason = "one thread uses it")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::io::disk::simulated::Random;
use crate::limits;
use crate::model::{FrameRef, RunId};
use crate::store::archive::{ArchivePage, ArchiveQuery, ArchiveRow, SegmentMark};
use crate::store::references::{MemoryReferences, References as _};
use crate::store::{Archive, Error};
use crate::time::Timestamp;

type KeyRow = (RunId, [u8; 16], Timestamp);

#[derive(Clone, Default)]
struct Tables {
    runs: BTreeMap<RunId, ArchiveRow>,
    keys: BTreeMap<[u8; 16], KeyRow>,
    marks: BTreeMap<(u16, u64), SegmentMark>,
    /// Forgotten, with frames in later segments: when they ended, and their last segment.
    ended: BTreeMap<RunId, (u16, Timestamp, u64)>,
}

#[derive(Default)]
struct State {
    durable: Tables,
    /// Batches since then.
    batches: Vec<Vec<ArchiveRow>>,
    now: Tables,
}

/// Shared by all lives of the node.
#[derive(Default)]
pub(super) struct SimulatedArchive {
    state: Mutex<State>,
    /// Durable at once.
    pub(super) references: Arc<MemoryReferences>,
}

impl Tables {
    fn put(&mut self, rows: &[ArchiveRow]) {
        for row in rows {
            let run_id = row.summary.run_id;
            if let Some(idempotency) = &row.idempotency {
                let ended = row.summary.ended_at.unwrap_or(row.summary.started_at);
                let expires = ended.saturating_add(Duration::from_secs(limits::IDEMPOTENCY_KEY_SECONDS));
                self.keys.insert(idempotency.key, (run_id, idempotency.fingerprint, expires));
            }
            self.runs.insert(run_id, row.clone());
        }
    }
}

fn segments(frames: &[FrameRef]) -> BTreeSet<u64> {
    frames.iter().map(|frame| frame.segment).collect()
}

impl SimulatedArchive {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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

impl Archive for SimulatedArchive {
    fn put(&self, rows: &[ArchiveRow]) -> Result<(), Error> {
        let mut state = self.state();
        state.now.put(rows);
        state.batches.push(rows.to_vec());
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
        Ok(ArchivePage { rows, next })
    }

    fn key(&self, key: &[u8; 16], now: Timestamp) -> Result<Option<(RunId, [u8; 16])>, Error> {
        let found = self.state().now.keys.get(key).copied();
        Ok(found.filter(|(.., expires)| *expires > now).map(|(run_id, fingerprint, _)| (run_id, fingerprint)))
    }

    fn sweep_keys(&self, _: Timestamp, _: usize) -> Result<usize, Error> {
        Ok(0)
    }

    fn mark_segment(&self, shard: u16, mark: &SegmentMark) -> Result<(), Error> {
        let mut state = self.state();
        state.now.marks.insert((shard, mark.sealed.segment), *mark);
        state.batches.clear();
        state.durable = state.now.clone();
        Ok(())
    }

    fn marks(&self, shard: u16) -> Result<Vec<SegmentMark>, Error> {
        let state = self.state();
        Ok(state.now.marks.iter().filter(|((of, _), _)| *of == shard).map(|(_, mark)| *mark).collect())
    }

    fn ended(&self, run_id: RunId) -> Result<Option<Timestamp>, Error> {
        let state = self.state();
        let row = state.now.runs.get(&run_id);
        let row = row.map(|row| row.summary.ended_at.unwrap_or(row.summary.started_at));
        Ok(row.or_else(|| state.now.ended.get(&run_id).map(|(_, ended_at, _)| *ended_at)))
    }

    fn expire(&self, shard: u16, segment: u64) -> Result<usize, Error> {
        let mut state = self.state();
        let before = state.now.runs.len();
        let mut gone = Vec::new();
        let Tables { runs, ended, .. } = &mut state.now;
        ended.retain(|_, (of, _, last)| *of != shard || *last > segment);
        runs.retain(|run_id, row| {
            let within = segments(&row.frames);
            let goes = row.shard == shard && within.contains(&segment);
            if let (true, Some(last)) = (goes, within.last().filter(|last| **last > segment)) {
                let ended_at = row.summary.ended_at.unwrap_or(row.summary.started_at);
                ended.insert(*run_id, (shard, ended_at, *last));
            }
            if goes {
                gone.push(*run_id);
            }
            !goes
        });
        gone.into_iter().try_for_each(|run_id| self.references.forget(run_id))?;
        state.now.marks.remove(&(shard, segment));
        state.batches.clear();
        state.durable = state.now.clone();
        Ok(before - state.now.runs.len())
    }
}
