//! Changes of a run's graph, and the refusals that are written down.
//!
//! A change was compiled against one version of the graph; the shard makes it if that version stands, in one step of the
//! log: `patch.created` (or `patch.revoked`), `patch.applied`, and what follows at once. Of another version nothing is
//! taken: whoever compiled it does so again. A patch that is to wait for a human is judged in the same way, and leaves only
//! `patch.held`; once it is approved, `patch.decided` comes before the others. One with a key has `request.remembered` behind it.

use std::sync::Arc;

use super::Shard;
use super::outbox::Release;
use crate::engine::command::{Patch, Refusal, Reply, ReplyTo, Step};
use crate::engine::{self, Input, PatchRefusal, Run};
use crate::failpoint;
use crate::limits;
use crate::model::event::{Done, EventBody};
use crate::model::patch::{Change, Decided, Held, Rejection};
use crate::model::{RunId, Seq};
use crate::store::artifacts::Due;
use crate::time::Timestamp;

/// The latest change of a run's graph, as what is to be made of it.
pub(super) fn due(run: &Run) -> Option<Due> {
    let (layer, before) = run.layers().split_last()?;
    Some(Due {
        run_id: run.id(),
        version: run.version(),
        workflow: run.workflow().into(),
        before: before.last().map_or(*run.base_document(), |layer| layer.document),
        document: layer.document,
        operations: layer.change.operations().clone(),
    })
}

impl Shard {
    pub(super) fn patch(&mut self, reply_to: ReplyTo, patch: Patch, now: Timestamp) {
        let run_id = patch.run_id;
        failpoint::pass("shard::patch");
        let first_seq = match self.decide_patch(&patch, now) {
            Ok(first_seq) => first_seq,
            Err(refusal) => {
                // What it says of the run must be durable first.
                let batch = self.runs.get(&run_id).map_or(0, |entry| entry.batch);
                return self.reply_after(batch, reply_to, Reply::Refused(refusal));
            }
        };
        let Some(entry) = self.runs.get_mut(&run_id) else { return };
        // One that waits has made nothing.
        let made = self.outcome.events.iter().any(|event| matches!(event, EventBody::PatchApplied(_)));
        let due = due(&entry.run).filter(|_| made);
        entry.watch(&mut self.outcome);
        let advanced =
            engine::advance(&mut entry.run, Input::Continue, now, limits::STEPS_PER_SLICE, &mut self.outcome);
        if let Err(error) = advanced {
            return self.own_event_refused(run_id, reply_to, &error);
        }
        self.burst(run_id, first_seq, now);
        if self.is_fenced() {
            return self.refuse_fenced(reply_to);
        }
        if let Some(due) = due {
            self.outbox.open_held().releases.push(Release::Patched(Box::new(due)));
        }
        failpoint::pass("shard::patched");
        let key = self.key_of(run_id).map(|asked| asked.key);
        self.read(reply_to, run_id, |entry| Reply::Patched(entry.done_now(key), entry.run.version()));
    }

    /// Folds the change and leaves its events in `outcome`; gives the number of the first.
    fn decide_patch(&mut self, patch: &Patch, now: Timestamp) -> Result<Seq, Refusal> {
        let run_id = patch.run_id;
        let key = self.key_of(run_id);
        let entry = self.runs.get_mut(&run_id).ok_or(Refusal::NotFound(run_id))?;
        let status = entry.run.status();
        if status.is_terminal() {
            return Err(Refusal::Finished { run_id, status });
        }
        let version = entry.run.version();
        if version != patch.version {
            return Err(Refusal::GraphChanged { run_id, version });
        }
        if let (Step::Approve(decided), Change::Patch(_)) = (&patch.step, &patch.change)
            && !entry.run.holds(decided.patch_id)
        {
            return Err(Refusal::NotPatched(PatchRefusal::NotHeld(decided.patch_id)));
        }
        entry.run.room_for(&patch.change).map_err(Refusal::NotPatched)?;
        let applied = entry.run.patch(&patch.ir, &patch.touched, now).map_err(Refusal::NotPatched)?;
        let first_seq = entry.run.seq() + 1;
        self.outcome.clear();
        self.outcome.events.extend(events_of(patch, applied));
        // Last, so that patch.applied directly follows what it is about.
        let remembered = key.map(|key| entry.run.remember(key, done(patch, &entry.run)));
        self.outcome.events.extend(remembered);
        for event in &self.outcome.events {
            let folded = match event {
                EventBody::PatchApplied(patched) => {
                    engine::apply_patched(&mut entry.run, patched, patch.ir.clone(), now)
                }
                event => engine::apply(&mut entry.run, event, now),
            };
            if let Err(error) = folded {
                entry.batch = self.outbox.open();
                let cause: Arc<str> = format!("the engine refused its own event in {run_id}: {error}").into();
                self.fence(cause.clone());
                return Err(Refusal::Fenced { shard: self.config.index, cause, untouched: true });
            }
        }
        Ok(first_seq)
    }

    /// A patch that waits is not wanted.
    pub(super) fn decline(
        &mut self,
        reply_to: ReplyTo,
        run_id: RunId,
        decided: Box<Decided>,
        now: Timestamp,
    ) {
        let patch_id = decided.patch_id;
        let unless = |run: &Run| (!run.holds(patch_id)).then_some(PatchRefusal::NotHeld(patch_id));
        self.note(reply_to, run_id, (EventBody::PatchDecided(decided), unless), now);
    }

    /// A patch was refused; that stands in the log while there is room for it.
    pub(super) fn reject(
        &mut self,
        reply_to: ReplyTo,
        run_id: RunId,
        rejection: Box<Rejection>,
        now: Timestamp,
    ) {
        self.note(reply_to, run_id, (EventBody::PatchRejected(rejection), Run::patch_limit), now);
    }

    /// Writes down one event that changes no graph, unless the run is over or something else stands against it.
    fn note(
        &mut self,
        reply_to: ReplyTo,
        run_id: RunId,
        (event, unless): (EventBody, impl FnOnce(&Run) -> Option<PatchRefusal>),
        now: Timestamp,
    ) {
        let Some(entry) = self.runs.get_mut(&run_id) else {
            return self.reply_now(reply_to, Reply::Refused(Refusal::NotFound(run_id)));
        };
        let status = entry.run.status();
        let refusal = match status.is_terminal() {
            true => Some(Refusal::Finished { run_id, status }),
            false => unless(&entry.run).map(Refusal::NotPatched),
        };
        if let Some(refusal) = refusal {
            let batch = entry.batch;
            return self.reply_after(batch, reply_to, Reply::Refused(refusal));
        }
        let first_seq = entry.run.seq() + 1;
        self.outcome.clear();
        if let Err(error) = engine::apply(&mut entry.run, &event, now) {
            return self.own_event_refused(run_id, reply_to, &error);
        }
        self.outcome.events.push(event);
        self.burst(run_id, first_seq, now);
        if self.is_fenced() {
            return self.refuse_fenced(reply_to);
        }
        self.read(reply_to, run_id, |entry| Reply::Accepted(entry.run.summary()));
    }

    /// A bug: the log must not learn what the state does not say.
    fn own_event_refused(&mut self, run_id: RunId, reply_to: ReplyTo, error: &engine::FoldError) {
        if let Some(entry) = self.runs.get_mut(&run_id) {
            entry.batch = self.outbox.open();
        }
        self.fence(format!("the engine refused its own event in {run_id}: {error}").into());
        self.refuse_fenced(reply_to);
    }
}

/// How a change that may be made is answered when it is asked for again.
fn done(patch: &Patch, run: &Run) -> Done {
    let held = matches!((&patch.step, &patch.change), (Step::Hold(_), Change::Patch(_)));
    let (patch_id, revoked) = match &patch.change {
        Change::Patch(proposal) => (Some(proposal.patch_id), Vec::new()),
        Change::Revoked(revocation) => (None, revocation.patch_ids.clone()),
    };
    let (version, document) =
        if held { (run.version(), run.ir().document) } else { (run.version() + 1, patch.ir.document) };
    Done::Patch { patch_id, held, version, document, revoked }
}

/// What the log is to have of a change that may be made.
fn events_of(patch: &Patch, applied: EventBody) -> Vec<EventBody> {
    let proposed = match &patch.change {
        Change::Patch(proposal) => EventBody::PatchCreated(proposal.clone()),
        Change::Revoked(revocation) => EventBody::PatchRevoked(revocation.clone()),
    };
    match (&patch.step, &patch.change) {
        (Step::Hold(reason), Change::Patch(proposal)) => {
            let held =
                Held { proposal: (**proposal).clone(), version: patch.version, reason: reason.clone() };
            vec![EventBody::PatchHeld(Box::new(held))]
        }
        (Step::Approve(decided), _) => vec![EventBody::PatchDecided(decided.clone()), proposed, applied],
        _ => vec![proposed, applied],
    }
}
