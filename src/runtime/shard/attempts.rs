//! What others say of attempts and claims: their ends, who has taken them, whose turn has come.

use super::Shard;
use super::outbox::Release;
use crate::engine::Input;
use crate::engine::command::{Command, Lease, Refusal, Reply, ReplyTo, Says, Settle, Turn};
use crate::failpoint;
use crate::model::{Place, RunId, Seq};
use crate::time::Timestamp;

impl Shard {
    /// What somebody says of an attempt, or of a claim.
    pub(super) fn told(&mut self, reply_to: ReplyTo, command: Command, now: Timestamp) {
        match command {
            Command::Settle(settle) => {
                let Settle { run_id, place, mut seq, result } = *settle;
                if failpoint::mutant("take_answer_of_old_attempt") {
                    seq = self.under_way(run_id, &place).unwrap_or(seq);
                }
                let input = Input::Settle { place: &place, seq, result: &result };
                failpoint::pass("shard::outcome");
                self.attempt(reply_to, (run_id, seq), input, now);
                failpoint::pass("shard::outcome_written");
            }
            Command::Lease(lease) => {
                let Lease { run_id, place, seq, worker } = *lease;
                let input = Input::Lease { place: &place, seq, worker: &worker };
                failpoint::pass("shard::lease");
                self.attempt(reply_to, (run_id, seq), input, now);
                failpoint::pass("shard::lease_written");
            }
            Command::Agent(turn) => {
                let Turn { run_id, place, seq, says } = *turn;
                let input = Input::Agent { place: &place, seq, says: &says };
                self.attempt(reply_to, (run_id, seq), input, now);
            }
            Command::Admit { run_id, seq, denied } => {
                let input = match &denied {
                    None => Input::Admitted { seq },
                    Some(failure) => Input::Denied { seq, failure },
                };
                failpoint::pass("admission::admitted");
                self.attempt(reply_to, (run_id, seq), input, now);
            }
            _ => {}
        }
    }

    /// For a planted bug: the attempt under way at a place.
    fn under_way(&self, run_id: RunId, place: &Place) -> Option<Seq> {
        let dispatches = self.runs.get(&run_id)?.run.dispatches();
        dispatches.iter().find(|dispatch| dispatch.place == *place).map(|dispatch| dispatch.seq)
    }

    /// Gives an input that a caller waits for.
    /// Somebody says something of an attempt, which may not be waited for.
    fn attempt(&mut self, reply_to: ReplyTo, (run_id, seq): (RunId, Seq), input: Input<'_>, now: Timestamp) {
        let found = self.runs.get(&run_id).map(|entry| (entry.batch, entry.run.status()));
        if found.is_none_or(|(_, status)| status.is_terminal()) {
            self.cells.stale_dropped.increment();
            let refusal = Reply::Refused(Refusal::Stale { run_id, seq });
            // That the run has ended is not said before it is durable.
            return match found {
                Some((batch, _)) => self.reply_after(batch, reply_to, refusal),
                None => self.reply_now(reply_to, refusal),
            };
        }
        let hands_out = matches!(input, Input::Lease { .. } | Input::Agent { says: Says::Reserve(_), .. });
        let reserves = match input {
            Input::Agent { place, says: Says::Reserve(_), .. } => Some(place.clone()),
            _ => None,
        };
        self.input(run_id, input, now);
        if self.is_fenced() {
            return self.refuse_fenced(reply_to);
        }
        // What there was no money for is decided, and no call.
        let reserved =
            |place: &Place| self.runs.get(&run_id).is_some_and(|entry| entry.run.is_reserved(place, seq));
        let stale = self.outcome.stale || reserves.is_some_and(|place| !reserved(&place));
        if hands_out
            && !stale
            && let Some(entry) = self.runs.get(&run_id)
        {
            let (batch, reply) = (entry.batch, Reply::Accepted(entry.run.summary()));
            if let Some(release) = self.outbox.put(batch, Release::HandOut(reply_to, Box::new(reply))) {
                self.let_go(release);
            }
            return;
        }
        self.read(reply_to, run_id, |entry| match stale {
            true => Reply::Refused(Refusal::Stale { run_id, seq }),
            false => Reply::Accepted(entry.run.summary()),
        });
    }
}
