//! How a shard comes back: the same fold over the same events, then timers, keys and work from the state it gives.
//!
//! Runs that had ended are handed to the index again ([`Recovery::take_rows`]): a row there is written without a sync,
//! so it may be missing, and writing it twice changes nothing. They are not kept, so memory holds unfinished runs only.

use std::sync::Arc;

use super::{Entry, Keyed, Shard, ShardConfig, errands};
use crate::engine::command::Errand;
use crate::engine::{self, Run};
use crate::ir::Ir;
use crate::model::event::DocumentHash;
use crate::model::{Event, EventBody, FrameRef, RunId};
use crate::store::archive::ArchiveRow;
use crate::store::record::{Burst, BurstHead};
use crate::telemetry::ShardCells;
use crate::time::Timestamp;

/// Why a history cannot be folded. The shard is refused; nothing is guessed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A burst's bytes do not decode.
    #[error("events of {run_id} at segment {segment} offset {offset} do not decode: {cause}")]
    Undecodable {
        /// Which run.
        run_id: RunId,
        /// Where.
        segment: u64,
        /// Where in it.
        offset: u32,
        /// The decoder's words.
        cause: String,
    },
    /// The fold refused an event.
    #[error("event {seq} of {run_id} does not fit its history: {cause}")]
    Misfit {
        /// Which run.
        run_id: RunId,
        /// Which event.
        seq: u64,
        /// The engine's words.
        cause: String,
    },
    /// The document a run executes is not registered.
    #[error("the document of {run_id} is not in the registry")]
    NoDocument {
        /// Which run.
        run_id: RunId,
    },
}

/// What recovery asks of the rest of the node.
pub(crate) trait Sources {
    /// The compiled document of this hash.
    fn ir(&mut self, document: &DocumentHash) -> Option<Arc<Ir>>;
    /// Is the run in the index as finished?
    fn is_indexed(&mut self, run_id: RunId) -> bool;
}

/// A shard that is being folded from its log.
pub(crate) struct Recovery {
    shard: Shard,
    last_at: Timestamp,
    rows: Vec<ArchiveRow>,
}

impl Recovery {
    /// Nothing folded yet.
    pub(crate) fn new(config: ShardConfig, cells: Arc<ShardCells>) -> Self {
        let shard = Shard::new(config, cells);
        Self { shard, last_at: Timestamp::default(), rows: Vec::new() }
    }

    /// A sealed segment whose runs are all in the index and which was therefore not read.
    pub(crate) fn archived(&mut self, segment: u64, expires_at: Timestamp) {
        self.shard.segments.archived(segment, expires_at);
    }

    /// Folds one burst.
    ///
    /// # Errors
    /// The burst does not decode, or does not fit what came before.
    pub(crate) fn burst(
        &mut self,
        burst: &Burst<'_>,
        frame: FrameRef,
        sources: &mut dyn Sources,
    ) -> Result<(), Error> {
        let BurstHead { run_id, first_seq, .. } = burst.head;
        if first_seq > 1 && !self.shard.runs.contains_key(&run_id) {
            // Its beginning lies in a segment that was skipped: then it has ended and is in the index.
            let cause = String::from("its run.started is missing");
            let misfit = Error::Misfit { run_id, seq: first_seq, cause };
            return if sources.is_indexed(run_id) { Ok(()) } else { Err(misfit) };
        }
        for event in burst.events() {
            let event = event.map_err(|error| Error::Undecodable {
                run_id,
                segment: frame.segment,
                offset: frame.offset,
                cause: error.to_string(),
            })?;
            self.event(run_id, &event, sources)?;
        }
        if let Some(entry) = self.shard.runs.get_mut(&run_id) {
            if entry.frames.last() != Some(&frame) {
                self.shard.segments.touch(entry.frames.last().copied(), frame);
                entry.frames.push(frame);
            }
            entry.durable_seq = entry.run.seq();
            if first_seq == 1 {
                entry.acknowledged = (entry.run.status(), entry.run.seq());
            }
            if entry.run.status().is_terminal()
                && let Some(entry) = self.shard.runs.remove(&run_id)
            {
                let recalls = entry.run.recalls().iter().cloned();
                let recalls = recalls.map(|recall| Errand::Recall { run_id, recall });
                // Told again, like its parent: nobody knows whether they heard of it.
                self.shard.releases.errands.extend(recalls.chain(errands::ended(&entry.run)));
                self.rows.push(entry.row(self.shard.config.index));
            }
        }
        Ok(())
    }

    fn event(&mut self, run_id: RunId, event: &Event, sources: &mut dyn Sources) -> Result<(), Error> {
        let misfit = |cause: String| Error::Misfit { run_id, seq: event.seq, cause };
        self.last_at = self.last_at.max(event.at);
        if let EventBody::RunStarted(start) = &event.body {
            let ir = sources.ir(&start.document).ok_or(Error::NoDocument { run_id })?;
            let run = Run::from_started(run_id, ir, event).map_err(|error| misfit(error.to_string()))?;
            self.shard.runs.insert(run_id, Entry::new(run, 0));
            return Ok(());
        }
        let Some(entry) = self.shard.runs.get_mut(&run_id) else {
            return Err(misfit(String::from("it comes before run.started")));
        };
        if entry.run.seq() + 1 != event.seq {
            return Err(misfit(format!("event {} was expected", entry.run.seq() + 1)));
        }
        if let EventBody::PatchApplied(patched) = &event.body {
            let ir = sources.ir(&patched.document).ok_or(Error::NoDocument { run_id })?;
            let ir = Arc::new(ir.aligned(entry.run.ir()));
            let folded = engine::apply_patched(&mut entry.run, patched, ir);
            return folded.map_err(|error| misfit(error.to_string()));
        }
        engine::apply(&mut entry.run, &event.body, event.at).map_err(|error| misfit(error.to_string()))
    }

    /// How many rows [`take_rows`](Self::take_rows) would give.
    pub(crate) fn rows_waiting(&self) -> usize {
        self.rows.len()
    }

    /// Rows of ended runs since the last call. The caller puts them into the index.
    pub(crate) fn take_rows(&mut self) -> Vec<ArchiveRow> {
        let rows = std::mem::take(&mut self.rows);
        for row in &rows {
            self.shard.segments.indexed(&row.frames, row.summary.ended_at.unwrap_or(self.last_at));
        }
        rows
    }

    /// The latest time in the log: the clock does not go on before it.
    pub(crate) fn last_at(&self) -> Timestamp {
        self.last_at
    }

    /// Everything is folded: arms timers, remembers keys, queues work.
    pub(crate) fn finish(self) -> Shard {
        let Self { mut shard, .. } = self;
        let mut live: Vec<_> = shard.runs.keys().copied().collect();
        live.sort_unstable();
        for run_id in live {
            let Some(entry) = shard.runs.get_mut(&run_id) else { continue };
            if let Some(idempotency) = entry.run.idempotency() {
                let keyed = Keyed { run_id, fingerprint: idempotency.fingerprint };
                shard.keys.insert(idempotency.key, keyed);
            }
            if let Some(claim) = entry.claim() {
                shard.run_keys.insert(claim, run_id);
            }
            let armed: Vec<_> = entry.run.timers().collect();
            for (due, timer) in armed {
                shard.timers.arm(&mut entry.timers, due, run_id, timer);
            }
            if entry.run.is_ready() {
                entry.queued = true;
                shard.work.push(run_id, entry.run.priority());
            }
            shard.ask_again(run_id);
        }
        shard.cells.runs_active.set(shard.runs.len() as u64);
        shard
    }
}
