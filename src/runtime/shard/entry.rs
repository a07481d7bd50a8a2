//! One run and what its shard knows about it: made, brought back, and shown to others.

use smallvec::SmallVec;

use super::image::Notes;
use super::outbox::Batch;
use super::segments::Segments;
use super::timers::Held;
use super::unsaved::Saved;
use super::{Entry, ShardConfig};
use crate::engine::Run;
use crate::engine::command::{Located, RunView};
use crate::fanout::Cores;
use crate::model::event::Idempotency;
use crate::model::run_key::{Claim, claim};
use crate::model::{FrameRef, RetentionClass, RunSummary, Status};
use crate::store::archive::ArchiveRow;

impl Entry {
    pub(super) fn new(run: Run, batch: Batch) -> Box<Self> {
        Box::new(Self {
            run,
            batch,
            durable_seq: 0,
            frames: SmallVec::new(),
            saved: Saved::default(),
            timers: Held::default(),
            waiters: Vec::new(),
            acknowledged: (Status::Pending, 0),
            watchers: Cores::default(),
            queued: false,
            kept: None,
        })
    }

    /// As an image says; nothing is armed or queued.
    pub(super) fn restored(run: Run, notes: Notes) -> Box<Self> {
        let mut entry = Self::new(run, 0);
        entry.durable_seq = entry.run.seq();
        entry.saved = Saved::restored(entry.run.seq(), notes.frames.len().min(notes.covers as usize));
        entry.frames = notes.frames;
        entry.acknowledged = notes.acknowledged.unwrap_or(entry.acknowledged);
        entry
    }

    /// Where its durable events stand, and what they say.
    pub(super) fn located(&self) -> Located {
        let mut summary = self.run.summary();
        if summary.seq != self.durable_seq {
            summary.seq = self.durable_seq;
            summary.ended_at = None;
            if summary.status.is_terminal() {
                summary.status = Status::Running;
            }
        }
        Located {
            summary,
            document: self.run.ir().document,
            graph: Some(self.run.ir().clone()),
            version: self.run.version(),
            frames: self.frames.to_vec(),
        }
    }

    /// The run in full, with what of it is shown by reference.
    pub(super) fn view(&self) -> RunView {
        RunView { kept: self.kept.clone(), ..self.run.view() }
    }

    /// The summary that the acknowledgement of the start carried.
    pub(super) fn acknowledgement(&self) -> RunSummary {
        let mut summary = self.run.summary();
        let (status, seq) = self.acknowledged;
        if summary.seq != seq {
            summary.ended_at = None;
        }
        summary.status = status;
        summary.seq = seq;
        summary
    }

    /// What the index keeps of it.
    pub(super) fn row(&self, ShardConfig { index: shard, retention, .. }: &ShardConfig) -> ArchiveRow {
        let (shard, retention) = (*shard, *retention);
        let class = RetentionClass::of(self.run.ir().retention.unwrap_or(retention));
        let class = if self.run.parent().is_some() { class.of_child() } else { class };
        ArchiveRow {
            summary: self.run.summary(),
            document: self.run.ir().document,
            shard,
            frames: self.frames.to_vec(),
            idempotency: self.idempotency().cloned(),
            acknowledged: self.acknowledged,
            run_key: self.run.run_key().cloned(),
            class: Some(class),
            version: Some(self.run.version()),
            arm: self.run.arm().cloned(),
            imaged: self.saved.is_any(),
            used: self.run.spend().map(|spend| spend.used.clone()).unwrap_or_default(),
        }
    }

    /// More of its durable events stand in `frame`.
    pub(super) fn events_in(&mut self, frame: FrameRef, segments: &mut Segments) {
        let known = self.frames.last() == Some(&frame);
        if !known || self.saved.frames == self.frames.len() {
            segments.touch((&self.frames, self.saved.frames), frame);
        }
        if known {
            self.saved.frames = self.saved.frames.min(self.frames.len() - 1);
        } else {
            self.frames.push(frame);
        }
    }

    /// What its business key is known by.
    pub(super) fn claim(&self) -> Option<Claim> {
        self.run.run_key().map(|key| claim(key, self.run.workflow()))
    }

    pub(super) fn idempotency(&self) -> Option<&Idempotency> {
        self.run.idempotency()
    }
}
