//! How a shard comes back: the same fold over the same events, then timers, keys and work from the state it gives.
//!
//! Runs that had ended are handed to the index again ([`Recovery::take_rows`]): a row there is written without a sync,
//! so it may be missing, and writing it twice changes nothing. They are not kept, so memory holds unfinished runs only.
//!
//! A run with an image begins with what that holds, and only later events of it are folded. What is neither in the log nor
//! in an image belongs to a run that has ended, and the index says so; if it does not, an image is missing and everything
//! is read again without any ([`Error::spoils_images`]).

mod error;

use std::sync::Arc;

use super::image::{self, Decoded, Graphs};
use super::recalls::Left;
use super::{Entry, Keyed, Shard, ShardConfig, errands, patches, recalls, reviews};
use crate::engine::command::Errand;
use crate::engine::{self, Run};
use crate::model::approval::Noted;
use crate::model::patch;
use crate::model::{Content, Event, EventBody, FrameRef, RunId, Value};
use crate::store::archive::ArchiveRow;
use crate::store::artifacts::Due;
use crate::store::record::{Burst, BurstHead};
use crate::telemetry::ShardCells;
use crate::time::Timestamp;

pub(crate) use error::Error;
use error::Unfolded;

/// What recovery asks of the rest of the node: graphs, and these.
pub(crate) trait Sources: engine::Graphs {
    /// The value of a content. The error says what is missing, in words for an operator.
    fn content(&mut self, content: &Content) -> Result<Value, String>;
    /// When the run ended, if it is in the index as finished. The error is the index's.
    fn ended(&mut self, run_id: RunId) -> Result<Option<Timestamp>, String>;
}

/// A shard that is being folded from its log.
pub(crate) struct Recovery {
    pub(super) shard: Shard,
    pub(super) last_at: Timestamp,
    pub(super) rows: Vec<(ArchiveRow, Left)>,
    /// What happened to reviews, for the index once more.
    noted: Vec<Noted>,
    /// Changes of graphs: of some the artifacts may not have been made.
    patched: Vec<Due>,
    /// Events of finished runs may be missing: a segment is skipped, or was given back.
    partial: bool,
    first_segment: Option<u64>,
    counts: Counts,
    /// What a run in fast mode decided again; nobody asks for it here.
    derived: Vec<EventBody>,
}

/// What a recovery did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Runs that came back from an image.
    pub(crate) images: u64,
    /// Events folded.
    pub(crate) events: u64,
    /// Bursts that an image held already.
    pub(crate) skipped: u64,
}

impl Recovery {
    /// Nothing folded yet.
    pub(crate) fn new(config: ShardConfig, cells: Arc<ShardCells>) -> Self {
        let shard = Shard::new(config, cells);
        Self {
            shard,
            last_at: Timestamp::default(),
            rows: Vec::new(),
            noted: Vec::new(),
            patched: Vec::new(),
            partial: false,
            first_segment: None,
            derived: Vec::new(),
            counts: Counts::default(),
        }
    }

    /// A sealed segment whose runs are all in the index and which was therefore not read.
    pub(crate) fn archived(&mut self, segment: u64, moved: bool) {
        self.partial = true;
        self.shard.segments.archived(segment, moved);
    }

    /// Runs that have ended may be forgotten in part.
    pub(crate) fn forgets(&mut self) {
        self.partial = true;
    }

    /// A run comes back from its image. Before any burst.
    ///
    /// # Errors
    /// The image cannot be used; nothing of the set is then to be used.
    pub(crate) fn image(
        &mut self,
        run_id: RunId,
        bytes: &[u8],
        sources: &mut dyn Sources,
    ) -> Result<(), Error> {
        let Decoded { run, notes, contents } = image::decode(run_id, bytes, Graphs::Find(sources))
            .map_err(|why| Error::Image { run_id, why })?;
        self.last_at = self.last_at.max(notes.at);
        let mut entry = Entry::restored(run, notes);
        self.counts.images += 1;
        let shard = &mut self.shard;
        shard.segments.restored(&entry.frames, entry.saved.frames);
        match contents {
            Ok(contents) => entry.kept = contents,
            Err(why) => {
                self.set_entry_aside(&entry, why);
                return Ok(());
            }
        }
        if entry.may_park(bytes) {
            shard.come_back(run_id, &mut entry);
            shard.parking.put(run_id, *entry, bytes.into());
        } else {
            shard.runs.insert(run_id, entry);
        }
        Ok(())
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
        let parked = self.shard.parking.seq(run_id).map(|seq| (seq + 1, seq));
        let aside = self.noted(run_id).map(|seq| (seq + 1, seq));
        let known = self.shard.runs.get(&run_id).map(|entry| (entry.run.seq() + 1, entry.saved.seq));
        let (expected, imaged) = known.or(parked).or(aside).unwrap_or((1, 0));
        self.partial |= frame.segment != 1 && self.first_segment.is_none();
        self.first_segment.get_or_insert(frame.segment);
        self.shard.images.writing(frame.segment);
        self.last_at = self.last_at.max(burst.head.at);
        if first_seq <= imaged {
            self.counts.skipped += 1;
            return Ok(());
        }
        if first_seq > expected {
            // What is missing lies in a segment that was skipped or given back: all runs in those have ended.
            if !self.partial {
                let cause = format!("event {expected} was expected");
                return Err(Error::Misfit { run_id, seq: first_seq, cause });
            }
            if imaged > 0 || ended(sources, run_id)?.is_none() {
                return Err(Error::Gap { run_id, expected, first_seq });
            }
            self.forget(run_id);
            return Ok(());
        }
        if aside.is_some() {
            return self.note(burst, frame);
        }
        self.unpark(run_id);
        let mut kept = self.shard.runs.get_mut(&run_id).and_then(|entry| entry.kept.take());
        let mut load = |content: &Content| sources.content(content).map_err(Unfolded::Lost);
        let events = match burst.hydrated(&mut kept, &mut load) {
            Ok(events) => events,
            Err(Unfolded::Lost(why)) => return self.set_aside(burst, frame, why),
            Err(Unfolded::Undecodable(error)) => {
                let (segment, offset) = (frame.segment, frame.offset);
                return Err(Error::Undecodable { run_id, segment, offset, cause: error.to_string() });
            }
        };
        // Where no operations are kept, the document is a content like others: without it the run cannot be read.
        let stored = patch::unkept(&events).map(|sha256| Content { sha256, bytes: 0, items: None });
        if let Some(why) = stored.into_iter().find_map(|content| sources.content(&content).err()) {
            return self.set_aside(burst, frame, why);
        }
        let forks = matches!(events.first().map(|event| &event.body), Some(EventBody::RunForked(_)));
        for event in &events {
            self.event(run_id, event, sources)?;
            self.counts.events += 1;
        }
        if let Some(entry) = self.shard.runs.get_mut(&run_id) {
            self.noted.extend(reviews::noted_in(&entry.run, &events));
            entry.kept = kept;
            entry.events_in(frame, &mut self.shard.segments);
            entry.durable_seq = entry.run.seq();
            if first_seq == 1 || forks {
                entry.acknowledged = (entry.run.status(), entry.run.seq());
            }
            if entry.run.status().is_terminal() {
                self.over(run_id);
            }
        }
        Ok(())
    }

    /// The run has ended: its row goes to the index.
    fn over(&mut self, run_id: RunId) {
        let Some(entry) = self.shard.runs.remove(&run_id) else { return };
        self.shard.recalls.opened(run_id, recalls::of_children(entry.run.recalls()));
        let recalls = entry.run.recalls().iter().cloned();
        let recalls = recalls.map(|recall| Errand::Recall { run_id, recall });
        // Told again, like its parent: nobody knows whether they heard of it.
        self.shard.releases.errands.extend(recalls.chain(errands::ended(&entry.run)));
        let mut row = entry.row(&self.shard.config);
        row.imaged = row.imaged && !self.shard.recalls.withhold(run_id);
        self.rows.push((row, Left::of(&entry, &self.shard.config)));
    }

    /// More events of a run that came back from an image; its timers are armed when all are folded.
    fn unpark(&mut self, run_id: RunId) {
        if self.shard.parking.contains(run_id) {
            self.shard.unpark(run_id, self.last_at);
            if let Some(entry) = self.shard.runs.get_mut(&run_id) {
                self.shard.timers.disarm(&mut entry.timers);
            }
        }
    }

    fn event(&mut self, run_id: RunId, event: &Event, sources: &mut dyn Sources) -> Result<(), Error> {
        let misfit = |cause: String| Error::Misfit { run_id, seq: event.seq, cause };
        self.last_at = self.last_at.max(event.at);
        if let EventBody::RunStarted(start) = &event.body {
            let ir = sources.of(&start.document).ok_or(Error::NoDocument { run_id })?;
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
            let run = &mut entry.run;
            let change = run.proposed().ok_or_else(|| misfit(String::from("nobody proposed it")))?;
            let ir = sources.after(run.base_document(), run.layers(), change, &patched.document);
            let ir = Arc::new(ir.ok_or(Error::NoDocument { run_id })?.aligned(run.ir()));
            engine::apply_patched(run, patched, ir, event.at).map_err(|error| misfit(error.to_string()))?;
            self.patched.extend(patches::due(run));
            return Ok(());
        }
        engine::replay(&mut entry.run, &event.body, event.at, &mut self.derived)
            .map_err(|error| misfit(error.to_string()))?;
        self.derived.clear();
        Ok(())
    }

    /// How many rows [`take_rows`](Self::take_rows) and [`take_noted`](Self::take_noted) would give.
    pub(crate) fn rows_waiting(&self) -> usize {
        self.rows.len() + self.noted.len()
    }

    /// What happened to reviews since the last call. The caller puts it into the index, before the rows.
    pub(crate) fn take_noted(&mut self) -> Vec<Noted> {
        std::mem::take(&mut self.noted)
    }

    /// Rows of ended runs since the last call. The caller puts them into the index.
    pub(crate) fn take_rows(&mut self) -> Vec<ArchiveRow> {
        let rows = std::mem::take(&mut self.rows);
        let freed = rows.into_iter().map(|(row, left)| {
            self.shard.free_segments(row.summary.run_id, left);
            row
        });
        freed.collect()
    }

    /// Changes of graphs since the last call, once there are `least`. The caller has them made into artifacts.
    pub(crate) fn take_patched(&mut self, least: usize) -> Vec<Due> {
        if self.patched.len() < least { Vec::new() } else { std::mem::take(&mut self.patched) }
    }

    /// What was done so far.
    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    /// The latest time in the log: the clock does not go on before it.
    pub(crate) fn last_at(&self) -> Timestamp {
        self.last_at
    }

    /// A run that is in the index is none of the shard's, whatever was read of it.
    fn forget(&mut self, run_id: RunId) {
        if let Some(entry) = self.shard.runs.remove(&run_id) {
            self.shard.segments.settled(&entry.frames, entry.saved.frames, entry.frames.len());
        }
    }

    /// Everything is folded: arms timers, remembers keys, queues work.
    ///
    /// # Errors
    /// The index cannot say which runs have ended.
    pub(crate) fn finish(mut self, sources: &mut dyn Sources) -> Result<Shard, Error> {
        let mut live: Vec<_> = self.shard.runs.keys().copied().collect();
        live.sort_unstable();
        let partial = self.partial;
        // The end of a run may lie in a segment that was skipped, though its beginning does not. Not of one with an image:
        // its row would have taken that away.
        let beginnings = |run_id: &&RunId| {
            partial && self.shard.runs.get(run_id).is_some_and(|entry| !entry.saved.is_any())
        };
        let beginnings: Vec<_> = live.iter().filter(beginnings).copied().collect();
        for run_id in &beginnings {
            if ended(sources, *run_id)?.is_some() {
                self.forget(*run_id);
            }
        }
        if partial {
            self.forget_ended(&mut |run_id| ended(sources, run_id))?;
        }
        let Self { mut shard, .. } = self;
        for run_id in live {
            let Some(mut entry) = shard.runs.remove(&run_id) else { continue };
            shard.come_back(run_id, &mut entry);
            if entry.run.is_ready() {
                entry.queued = true;
                shard.work.push(run_id, entry.run.priority());
            }
            if entry.unsaved().is_some() {
                entry.queue_for_image();
            }
            shard.runs.insert(run_id, entry);
            shard.ask_again(run_id);
        }
        let unsaved = shard.runs.iter().filter_map(|(run_id, entry)| Some((entry.unsaved()?, *run_id)));
        shard.images.recovered(unsaved);
        shard.cells.runs_active.set(shard.live() as u64);
        Ok(shard)
    }
}

impl Shard {
    /// Keys and timers of a run that came back.
    fn come_back(&mut self, run_id: RunId, entry: &mut Entry) {
        if let Some(idempotency) = entry.run.idempotency() {
            let keyed = Keyed { run_id, fingerprint: idempotency.fingerprint };
            self.keys.insert(idempotency.key, keyed);
        }
        if let Some(claim) = entry.claim() {
            self.run_keys.insert(claim, run_id);
        }
        self.reviews.note(&entry.run);
        for (due, timer) in entry.run.timers() {
            self.timers.arm(&mut entry.timers, due, run_id, timer);
        }
    }
}

fn ended(sources: &mut dyn Sources, run_id: RunId) -> Result<Option<Timestamp>, Error> {
    sources.ended(run_id).map_err(|cause| Error::Index { run_id, cause })
}

#[cfg(test)]
mod tests;
