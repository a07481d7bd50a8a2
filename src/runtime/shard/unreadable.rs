//! Runs whose history cannot be read: a content that their events name is damaged or gone.
//!
//! Such a run is not folded, because its state would be a guess. It is set aside, alone, and whoever asks for it is told what
//! is missing ([`Refusal::Unreadable`]); its keys start no other run. Its segments stay, so once the content is back a
//! restart of the node brings the run back as it was. One that has ended needs no values: it goes to the index as any
//! other, and only its parent, if it has one, is told that its outputs are lost. A slot that the run held is free.

use std::sync::Arc;

use super::recalls::Left;
use super::recover::{Error, Recovery};
use super::{Entry, Shard, ShardConfig};
use crate::engine::command::{Command, Errand, Refusal};
use crate::model::event::Parent;
use crate::model::run_key::{self, Claim};
use crate::model::{Event, EventBody, Failure, FrameRef, RetentionClass, RunId, RunSummary, Seq, Status};
use crate::store::archive::ArchiveRow;
use crate::store::record::Burst;

/// What is known of a run without its values.
#[derive(Debug)]
pub(super) struct Unreadable {
    why: Arc<str>,
    row: ArchiveRow,
    parent: Option<Parent>,
    /// So many of its frames an image holds.
    saved: usize,
}

impl Unreadable {
    /// A run that was readable up to here.
    fn of(entry: &Entry, config: &ShardConfig, why: Arc<str>) -> Self {
        let parent = entry.run.parent().cloned();
        Self { why, row: entry.row(config), parent, saved: entry.saved.frames }
    }

    /// A run of which nothing was read yet.
    fn begun(run_id: RunId, event: &Event, config: &ShardConfig, why: Arc<str>) -> Option<Self> {
        let EventBody::RunStarted(started) = &event.body else { return None };
        let summary = RunSummary {
            run_id,
            workflow: started.workflow.clone(),
            version: started.version.clone(),
            status: Status::Running,
            seq: 0,
            epoch: started.epoch,
            started_at: event.at,
            ended_at: None,
            run_key: None,
        };
        let row = ArchiveRow {
            summary,
            document: started.document,
            shard: config.index,
            frames: Vec::new(),
            idempotency: started.idempotency.clone(),
            acknowledged: (Status::Running, 0),
            run_key: None,
            class: Some(RetentionClass::of(config.retention)),
            version: Some(1),
            arm: None,
            imaged: false,
            used: Vec::new(),
        };
        Some(Self { why, row, parent: None, saved: 0 })
    }

    fn event(&mut self, event: &Event) {
        let summary = &mut self.row.summary;
        summary.seq = event.seq;
        match &event.body {
            EventBody::RunLinked { parent } => self.parent = Some(parent.clone()),
            EventBody::RunKeyed { run_key, .. } => {
                summary.run_key = Some(run_key.clone());
                self.row.run_key = Some(run_key.clone());
            }
            EventBody::RunLayered(layered) => self.row.arm.clone_from(&layered.set),
            EventBody::PatchApplied(patched) => {
                (self.row.document, self.row.version) = (patched.document, Some(patched.version));
            }
            EventBody::RunForked(forked) => {
                (self.parent, self.row.run_key, summary.run_key) = (None, None, None);
                self.row.idempotency.clone_from(&forked.idempotency);
                (summary.started_at, summary.epoch) = (event.at, forked.epoch);
            }
            EventBody::RunWaiting(_) => summary.status = Status::Pending,
            EventBody::RunAdmitted | EventBody::RunResumed => summary.status = Status::Running,
            EventBody::RunPaused { .. } => summary.status = Status::Paused,
            EventBody::RunCompleted { .. } => summary.status = Status::Completed,
            EventBody::RunFailed { .. } => summary.status = Status::Failed,
            EventBody::RunCancelled { .. } => summary.status = Status::Cancelled,
            _ => {}
        }
        if event.body.ends_run() {
            summary.ended_at = Some(event.at);
        }
    }

    fn claim(&self) -> Option<Claim> {
        self.row.run_key.as_ref().map(|key| run_key::claim(key, &self.row.summary.workflow))
    }

    fn refusal(&self) -> Refusal {
        Refusal::Unreadable { run_id: self.row.summary.run_id, why: self.why.clone() }
    }
}

impl Shard {
    /// Runs that cannot be read, and what is missing.
    pub(crate) fn unreadable_runs(&self) -> impl Iterator<Item = (RunId, &str)> {
        self.unreadable.iter().map(|(run_id, run)| (*run_id, &*run.why))
    }

    /// Why this cannot be done: it is about a run that cannot be read, or one that has the same key.
    pub(super) fn unreadable(&self, command: &Command) -> Option<Refusal> {
        if self.unreadable.is_empty() {
            return None;
        }
        if let Command::Start(start) | Command::StartedBefore { start, .. } = command.inmost() {
            let key = start.idempotency.as_ref().map(|idempotency| &idempotency.key);
            let claim = start.run_key.as_ref().map(|(key, _)| key.claim(&start.ir.name));
            let held = self.unreadable.values().find(|run| {
                let own = run.row.idempotency.as_ref().map(|idempotency| &idempotency.key);
                (key.is_some() && own == key) || (claim.is_some() && run.claim() == claim)
            });
            return held.map(|run| run.refusal());
        }
        let run = self.unreadable.get(&command.run_id()?)?;
        Some(run.refusal())
    }
}

impl Recovery {
    /// Number of the last event that was noted of a run that is set aside.
    pub(super) fn noted(&self, run_id: RunId) -> Option<Seq> {
        self.shard.unreadable.get(&run_id).map(|run| run.row.summary.seq)
    }

    /// Sets a run aside that came back from an image, without the values that are not to be had.
    pub(super) fn set_entry_aside(&mut self, entry: &Entry, why: String) {
        let run = Unreadable::of(entry, &self.shard.config, why.into());
        self.shard.unreadable.insert(entry.run.id(), Box::new(run));
    }

    /// Sets a run aside with all that was read of it; `burst` is the first that cannot be read.
    pub(super) fn set_aside(&mut self, burst: &Burst<'_>, frame: FrameRef, why: String) -> Result<(), Error> {
        let run_id = burst.head.run_id;
        let why: Arc<str> = why.into();
        let run = match self.shard.runs.remove(&run_id) {
            Some(entry) => Some(Unreadable::of(&entry, &self.shard.config, why)),
            None => burst
                .shown()
                .next()
                .and_then(Result::ok)
                .and_then(|event| Unreadable::begun(run_id, &event, &self.shard.config, why)),
        };
        let run = run.ok_or_else(|| Error::Misfit {
            run_id,
            seq: burst.head.first_seq,
            cause: String::from("it comes before run.started"),
        })?;
        self.shard.unreadable.insert(run_id, Box::new(run));
        self.note(burst, frame)
    }

    /// Notes what can be told of a burst without its values.
    pub(super) fn note(&mut self, burst: &Burst<'_>, frame: FrameRef) -> Result<(), Error> {
        let run_id = burst.head.run_id;
        let Some(run) = self.shard.unreadable.get_mut(&run_id) else { return Ok(()) };
        for event in burst.shown() {
            let event = event.map_err(|error| Error::Undecodable {
                run_id,
                segment: frame.segment,
                offset: frame.offset,
                cause: error.to_string(),
            })?;
            run.event(&event);
            self.last_at = self.last_at.max(event.at);
        }
        if run.row.frames.last() != Some(&frame) {
            self.shard.segments.touch((&run.row.frames, run.saved), frame);
            run.row.frames.push(frame);
        }
        if burst.head.first_seq == 1 {
            run.row.acknowledged = (run.row.summary.status, run.row.summary.seq);
        }
        if run.row.summary.status.is_terminal()
            && let Some(run) = self.shard.unreadable.remove(&run_id)
        {
            let result = Err(Failure::fatal("child_lost", format!("{run_id} cannot be read: {}", run.why)));
            let told = run.parent.map(|parent| Errand::Ended { parent, child: run_id, result });
            self.shard.releases.errands.extend(told);
            let left = Left::of_row(&run.row, run.saved);
            self.rows.push((run.row, left));
        }
        Ok(())
    }

    /// Lets go of runs that were set aside and are in the index as ended.
    pub(super) fn forget_ended(
        &mut self,
        ended: &mut dyn FnMut(RunId) -> Result<Option<crate::time::Timestamp>, Error>,
    ) -> Result<(), Error> {
        let mut aside: Vec<_> = self.shard.unreadable.keys().copied().collect();
        aside.sort_unstable();
        for run_id in aside {
            if ended(run_id)?.is_some()
                && let Some(run) = self.shard.unreadable.remove(&run_id)
            {
                let frames = &run.row.frames;
                self.shard.segments.settled(frames, run.saved, frames.len());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
