//! Changes of a run's graph, and the refusals that are written down.
//!
//! A change was compiled against one version of the graph; the shard makes it if that version stands, in one step of the
//! log: `patch.created` (or `patch.revoked`), `patch.applied`, and what follows at once. Of another version nothing is
//! taken: whoever compiled it does so again.

use std::sync::Arc;

use super::Shard;
use crate::engine::command::{Patch, Refusal, Reply, ReplyTo};
use crate::engine::{self, Input, PatchRefusal};
use crate::failpoint;
use crate::limits;
use crate::model::event::EventBody;
use crate::model::patch::{Change, Rejection};
use crate::model::{RunId, Seq};
use crate::time::Timestamp;

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
        let advanced =
            engine::advance(&mut entry.run, Input::Continue, now, limits::STEPS_PER_SLICE, &mut self.outcome);
        if let Err(error) = advanced {
            return self.own_event_refused(run_id, reply_to, &error);
        }
        self.burst(run_id, first_seq, now);
        if self.is_fenced() {
            return self.refuse_fenced(reply_to);
        }
        failpoint::pass("shard::patched");
        self.read(reply_to, run_id, |entry| Reply::Patched(entry.run.summary(), entry.run.version()));
    }

    /// Folds the change and leaves its events in `outcome`; gives the number of the first.
    fn decide_patch(&mut self, patch: &Patch, now: Timestamp) -> Result<Seq, Refusal> {
        let run_id = patch.run_id;
        let entry = self.runs.get_mut(&run_id).ok_or(Refusal::NotFound(run_id))?;
        let status = entry.run.status();
        if status.is_terminal() {
            return Err(Refusal::Finished { run_id, status });
        }
        let version = entry.run.version();
        if version != patch.version {
            return Err(Refusal::GraphChanged { run_id, version });
        }
        entry.run.room_for(&patch.change).map_err(Refusal::NotPatched)?;
        let applied = entry.run.patch(&patch.ir, &patch.touched, now).map_err(Refusal::NotPatched)?;
        let EventBody::PatchApplied(patched) = &applied else {
            return Err(Refusal::NotPatched(PatchRefusal::Unaligned));
        };
        let first_seq = entry.run.seq() + 1;
        let proposed = match &patch.change {
            Change::Patch(proposal) => EventBody::PatchCreated(proposal.clone()),
            Change::Revoked(revocation) => EventBody::PatchRevoked(revocation.clone()),
        };
        self.outcome.clear();
        let folded = engine::apply(&mut entry.run, &proposed, now)
            .and_then(|()| engine::apply_patched(&mut entry.run, patched, patch.ir.clone(), now));
        if let Err(error) = folded {
            entry.batch = self.outbox.open();
            let cause: Arc<str> = format!("the engine refused its own event in {run_id}: {error}").into();
            self.fence(cause.clone());
            return Err(Refusal::Fenced { shard: self.config.index, cause, untouched: true });
        }
        self.outcome.events.extend([proposed, applied]);
        Ok(first_seq)
    }

    pub(super) fn reject(
        &mut self,
        reply_to: ReplyTo,
        run_id: RunId,
        rejection: Box<Rejection>,
        now: Timestamp,
    ) {
        let Some(entry) = self.runs.get_mut(&run_id) else {
            return self.reply_now(reply_to, Reply::Refused(Refusal::NotFound(run_id)));
        };
        let status = entry.run.status();
        let refusal = if status.is_terminal() {
            Some(Refusal::Finished { run_id, status })
        } else {
            entry.run.patch_limit().map(Refusal::NotPatched)
        };
        if let Some(refusal) = refusal {
            let batch = entry.batch;
            return self.reply_after(batch, reply_to, Reply::Refused(refusal));
        }
        let first_seq = entry.run.seq() + 1;
        let rejected = EventBody::PatchRejected(rejection);
        self.outcome.clear();
        if let Err(error) = engine::apply(&mut entry.run, &rejected, now) {
            return self.own_event_refused(run_id, reply_to, &error);
        }
        self.outcome.events.push(rejected);
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
