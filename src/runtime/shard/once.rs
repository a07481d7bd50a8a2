//! Commands with an `Idempotency-Key`: each is done once, and answered the same from then on.
//!
//! The run remembers it (`engine::keys`), by an event in the same burst as what was done, so neither is there without the
//! other. What must hold: whoever asks again is answered after the batch with that event is durable; of two at the same time
//! the second finds what the first has done; a refused command is remembered by nobody, and judged anew. When the run
//! remembers as many as it may a further key is refused (`keys_per_run_max`) before anything is done.

use super::waiters::Taken;
use super::{Entry, Shard};
use crate::engine::command::{Command, Envelope, Refusal, Reply, ReplyTo};
use crate::engine::{Awaited, Known};
use crate::failpoint;
use crate::model::event::{Done, Idempotency};
use crate::model::{RunId, RunSummary};
use crate::time::Timestamp;

impl Entry {
    /// The run in one line; of what was just done under a key, as it will be told again.
    pub(super) fn done_now(&self, key: Option<[u8; 16]>) -> RunSummary {
        let known = key.and_then(|key| self.run.remembered(&key));
        match known {
            Some(known) => known.summary(self.run.summary()),
            None => self.run.summary(),
        }
    }
}

impl Shard {
    pub(super) fn once(
        &mut self,
        reply_to: ReplyTo,
        (run_id, idempotency): (RunId, Idempotency),
        command: Command,
        now: Timestamp,
    ) {
        if let Some(entry) = self.runs.get(&run_id) {
            let batch = entry.batch;
            if let Some(known) = entry.run.remembered(&idempotency.key) {
                if known.request.idempotency.fingerprint != idempotency.fingerprint {
                    return self.reply_after(batch, reply_to, Reply::Refused(Refusal::KeyReused));
                }
                let known = known.clone();
                return self.repeat(reply_to, (run_id, &known), &command);
            }
            if let Some(full) = entry.run.keys_full(now) {
                let what = "requests with a key that the run remembers";
                let refusal = Refusal::Limit { limit: "keys_per_run_max", what, value: full as u64 };
                return self.reply_after(batch, reply_to, Reply::Refused(refusal));
            }
        }
        if !failpoint::mutant("key_not_kept") {
            self.asked = Some((run_id, idempotency));
        }
        self.command(Envelope { reply_to, command }, now);
        self.asked = None;
    }

    /// The key that what is done for this run now is remembered under.
    pub(super) fn key_of(&self, run_id: RunId) -> Option<Idempotency> {
        let (whose, key) = self.asked.as_ref()?;
        (*whose == run_id).then(|| key.clone())
    }

    /// Answers what was answered before. An update that still waits for its answer waits with the first.
    fn repeat(&mut self, reply_to: ReplyTo, (run_id, known): (RunId, &Known), command: &Command) {
        let Some(entry) = self.runs.get(&run_id) else { return };
        match (&known.request.done, command.inmost()) {
            (Done::Signal { seq, taken: Some((place, reply)) }, Command::Update(update)) => {
                let awaited = Awaited { place: place.clone(), reply: reply.clone() };
                let settled = entry.settled(&[], reply);
                let taken = Taken { seq: *seq, awaited, replayed: true };
                self.taken(reply_to, run_id, (taken, update.wait), settled);
            }
            (done, _) => {
                let (batch, done) = (entry.batch, done.clone());
                let summary = known.summary(entry.run.summary());
                self.reply_after(batch, reply_to, Reply::Repeated(summary, done));
            }
        }
    }
}

#[cfg(test)]
mod tests;
