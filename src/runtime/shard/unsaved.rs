//! Which runs the index has no image of yet, and how images leave the shard.
//!
//! A run with new events stands in a queue once, in the order of its first event that is in no image, so finding what
//! keeps a sealed segment from being skipped at start walks over nothing else: runs that wait cost nothing. An image is a
//! copy of the run, released like everything else when the events that made it are durable, put into the index by its
//! thread, and counted when that thread says so. At most [`OUT_MAX`] and [`OUT_BYTES_MAX`] are on their way; the rest
//! waits in the queue, and its segments are kept as long.

use std::collections::VecDeque;

use super::image::{self, Notes, Saved as InIndex, Taken, Unusable};
use super::outbox::Release;
use super::{Entry, Shard};
use crate::model::{FrameRef, RunId, Seq, kept};
use crate::store::images::Image;
use crate::time::Timestamp;

/// Images on their way to the index.
const OUT_MAX: usize = 1_024;
/// Their weight; one is always let through.
const OUT_BYTES_MAX: usize = 16 << 20;
/// Images taken in one turn.
const TAKEN_PER_TURN: usize = 64;
/// Weight after which a turn takes no more.
const TAKEN_BYTES_PER_TURN: usize = 1 << 20;

/// What the index has of one run.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Saved {
    /// So many of its frames are in an image.
    pub(super) frames: usize,
    /// The last event in an image; 0 when there is none. Also while it is on its way.
    pub(super) seq: Seq,
    /// An image is on its way.
    out: bool,
    /// It stands in the queue.
    queued: bool,
}

impl Saved {
    /// All of a run that came back from an image.
    pub(super) fn restored(seq: Seq, frames: usize) -> Self {
        Self { frames, seq, ..Self::default() }
    }

    /// Is an image of it to be taken, or on its way?
    pub(super) fn is_under_way(self) -> bool {
        self.out || self.queued
    }

    /// May the index have an image?
    pub(super) fn is_any(self) -> bool {
        self.seq > 0
    }
}

/// Runs with events that are in no image.
#[derive(Debug, Default)]
pub(super) struct Images {
    /// By the segment of the first such event.
    queue: VecDeque<(u64, RunId)>,
    /// Images on their way, and their weight.
    out: usize,
    out_bytes: usize,
    /// The segment that is being written; all before it are sealed.
    current: u64,
}

impl Images {
    /// A segment takes frames.
    pub(super) fn writing(&mut self, segment: u64) {
        self.current = self.current.max(segment);
    }

    /// Durable events of a run stand in `frame`.
    pub(super) fn touched(&mut self, run_id: RunId, entry: &mut Entry, frame: FrameRef) {
        let saved = &mut entry.saved;
        if !saved.queued && !saved.out && entry.durable_seq > saved.seq {
            saved.queued = true;
            self.queue.push_back((frame.segment, run_id));
        }
    }

    /// One of this weight is no longer on its way.
    fn gone(&mut self, weight: usize) {
        self.out = self.out.saturating_sub(1);
        self.out_bytes = self.out_bytes.saturating_sub(weight);
    }

    /// After recovery: what was read and is in no image, oldest first.
    pub(super) fn recovered(&mut self, unsaved: impl IntoIterator<Item = (FrameRef, RunId)>) {
        let mut unsaved: Vec<_> = unsaved.into_iter().collect();
        unsaved.sort_unstable_by_key(|(frame, run_id)| (frame.segment, frame.offset, *run_id));
        self.queue = unsaved.into_iter().map(|(frame, run_id)| (frame.segment, run_id)).collect();
    }
}

impl Entry {
    /// The first frame that is not in an image.
    pub(super) fn unsaved(&self) -> Option<FrameRef> {
        self.frames.get(self.saved.frames).copied()
    }

    /// It was put into the queue.
    pub(super) fn queue_for_image(&mut self) {
        self.saved.queued = true;
    }
}

impl Shard {
    /// Takes images of runs that keep sealed segments from being skipped, or of `all` with new events. Returns whether more
    /// could be taken now.
    pub(crate) fn take_images(&mut self, all: bool, now: Timestamp) -> bool {
        let mut weight = 0;
        for _ in 0..TAKEN_PER_TURN {
            if self.is_fenced() || weight > TAKEN_BYTES_PER_TURN {
                return !self.is_fenced();
            }
            let full = self.images.out >= OUT_MAX || self.images.out_bytes > OUT_BYTES_MAX;
            let due = |(segment, _): &mut (u64, RunId)| all || *segment < self.images.current;
            if full {
                return false;
            }
            let Some((_, run_id)) = self.images.queue.pop_front_if(due) else { return false };
            weight += self.take_image(run_id, now);
        }
        true
    }

    /// Images of all unfinished runs, after a recovery without any.
    pub(crate) fn all_images(&self, at: Timestamp) -> impl Iterator<Item = Result<Image, Unusable>> {
        self.runs.iter().map(move |(run_id, entry)| {
            let notes = Notes {
                frames: entry.frames.clone(),
                covers: u32::try_from(entry.frames.len()).unwrap_or(u32::MAX),
                acknowledged: Some(entry.acknowledged),
                at,
            };
            let bytes = kept::naming(entry.kept.as_ref(), || image::encode(&entry.run, &notes))?;
            Ok(Image { run_id: *run_id, bytes: bytes.into() })
        })
    }

    /// All those are in the index.
    pub(crate) fn all_saved(&mut self) {
        self.images.queue.clear();
        for entry in self.runs.values_mut() {
            self.segments.settled(&entry.frames, entry.saved.frames, entry.frames.len());
            entry.saved = Saved::restored(entry.run.seq(), entry.frames.len());
        }
    }

    /// Is something not in the index of what is durable?
    pub(crate) fn has_unsaved(&self) -> bool {
        self.images.out > 0 || !self.images.queue.is_empty()
    }

    fn take_image(&mut self, run_id: RunId, now: Timestamp) -> usize {
        let Some(entry) = self.runs.get_mut(&run_id) else { return 0 };
        entry.saved.queued = false;
        if entry.run.status().is_terminal() {
            // Its row follows.
            return 0;
        }
        entry.saved.out = true;
        entry.saved.seq = entry.run.seq();
        let notes = Notes { acknowledged: Some(entry.acknowledged), at: now, ..Notes::default() };
        let contents = entry.kept.clone();
        let (batch, taken) = (entry.batch, Box::new(Taken { run: entry.run.clone(), notes, contents }));
        let weight = entry.run.value_bytes();
        self.images.out += 1;
        self.images.out_bytes += weight;
        if let Some(release) = self.outbox.put(batch, Release::Image(taken)) {
            self.let_go(release);
        }
        weight
    }

    /// The events that made it are durable. Where they stand is known only now; the last frame may hold later ones too.
    pub(super) fn image_leaves(&mut self, mut taken: Taken) {
        let Some(entry) = self.runs.get(&taken.run.id()) else {
            return self.images.gone(taken.run.value_bytes());
        };
        let later = usize::from(entry.durable_seq != taken.run.seq());
        taken.notes.frames.clone_from(&entry.frames);
        taken.notes.covers = u32::try_from(entry.frames.len().saturating_sub(later)).unwrap_or(u32::MAX);
        self.releases.images.push(taken);
    }

    /// These images are in the index.
    pub(crate) fn imaged(&mut self, saved: Vec<InIndex>) {
        for InIndex { run_id, covers, weight, image } in saved {
            self.images.gone(weight);
            let Some(entry) = self.runs.get_mut(&run_id) else { continue };
            entry.saved.out = false;
            self.segments.settled(&entry.frames, entry.saved.frames, covers);
            entry.saved.frames = entry.saved.frames.max(covers);
            let unsaved = entry.unsaved();
            if let Some(frame) = unsaved.filter(|_| !entry.saved.queued) {
                entry.queue_for_image();
                // What is not due yet is in the newest segment, so the order of the queue holds.
                if frame.segment < self.images.current {
                    self.images.queue.push_front((frame.segment, run_id));
                } else {
                    self.images.queue.push_back((frame.segment, run_id));
                }
            }
            self.park(run_id, image);
        }
    }
}
