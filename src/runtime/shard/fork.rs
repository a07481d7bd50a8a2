//! Forks: the other run's events, `run.forked` and what follows go into one batch, so a fork is there whole or not at all.

use super::outbox::Batch;
use super::{Entry, Keyed, Shard};
use crate::engine::command::{Fork, Refusal, Reply, ReplyTo};
use crate::engine::{self, Input};
use crate::limits;
use crate::model::event::{EventBody, Forked};
use crate::model::kept;
use crate::store::record::{self, BurstHead};
use crate::time::Timestamp;

impl Shard {
    pub(super) fn fork(&mut self, reply_to: ReplyTo, fork: Fork, now: Timestamp) {
        let run_id = fork.run.id();
        if let Some(idempotency) = &fork.idempotency
            && let Some(keyed) = self.keys.get(&idempotency.key).copied()
        {
            self.unpark(keyed.run_id, now);
            return self.start_again(reply_to, keyed, &idempotency.fingerprint);
        }
        if let Some(no_room) = fork.no_room {
            return self.reply_now(reply_to, Reply::Refused(Refusal::NoRoom(no_room)));
        }
        let live = self.live();
        if live >= self.config.runs_live_max {
            let what = "unfinished runs on this shard";
            let refusal = Refusal::Limit { limit: "runs_live_per_shard_max", what, value: live as u64 };
            return self.reply_now(reply_to, Reply::Refused(refusal));
        }
        let idempotency = fork.idempotency.clone();
        let (entry, first_seq, batch) = match self.forked(fork, now) {
            Ok(forked) => forked,
            Err(why) => return self.reply_now(reply_to, Reply::Refused(Refusal::Malformed(why))),
        };
        if self.is_fenced() {
            return self.refuse_fenced(reply_to);
        }
        let run = entry.run.summary();
        if let Some(idempotency) = idempotency {
            self.keys.insert(idempotency.key, Keyed { run_id, fingerprint: idempotency.fingerprint });
        }
        self.runs.insert(run_id, entry);
        self.cells.runs_started.increment();
        self.burst(run_id, first_seq, now);
        self.reply_after(batch, reply_to, Reply::Started { run, replayed: false });
    }

    /// Writes what the fork begins with, and decides what follows; that is left in `outcome`.
    fn forked(&mut self, fork: Fork, now: Timestamp) -> Result<(Box<Entry>, u64, Batch), String> {
        let Fork { mut run, bursts, source, seq, since, replay, redriven, inputs, idempotency, .. } = fork;
        let run_id = run.id();
        let deadline = run.deadline_of_fork(now);
        let epoch = self.config.epoch;
        let forked = Forked { run_id: source, seq, since, replay, inputs, deadline, idempotency, epoch };
        let body = EventBody::RunForked(Box::new(forked));
        self.outcome.clear();
        engine::fork(&mut run, &body, now, &mut self.outcome).map_err(|error| error.to_string())?;
        self.outcome.events.push(body);
        let first_seq = run.seq();
        if let Some(place) = redriven.filter(|place| run.may_redrive(place)) {
            let body = EventBody::NodeRedriven { place };
            engine::fork(&mut run, &body, now, &mut self.outcome).map_err(|error| error.to_string())?;
            self.outcome.events.push(body);
        }
        let batch = self.outbox.open();
        let mut entry = Entry::new(run, batch);
        entry.kept = self.given.as_ref().filter(|(whose, _)| *whose == run_id).map(|(_, kept)| kept.clone());
        for (first_seq, at, events) in &bursts {
            let head = BurstHead { run_id, first_seq: *first_seq, at: *at };
            let open = &mut self.open;
            if let Err(error) = kept::naming(entry.kept.as_ref(), || record::append(open, head, events)) {
                self.fence(format!("events of {run_id} cannot be written down: {error}").into());
                return Ok((entry, *first_seq, batch));
            }
            self.reviews.happened(run_id, events);
        }
        let outcome = &mut self.outcome;
        let advanced =
            engine::advance(&mut entry.run, Input::Continue, now, limits::STEPS_PER_SLICE, outcome);
        if let Err(error) = advanced {
            self.fence(format!("the engine refused its own event in {run_id}: {error}").into());
        }
        entry.acknowledged = (entry.run.status(), entry.run.seq());
        Ok((entry, first_seq, batch))
    }
}
