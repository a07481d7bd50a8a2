//! Those who wait for something of a run: for its end, or for the end of the node that answers their update.
//!
//! What must hold: each of them is answered once, when it comes about, when they are told to wait no longer, or when it can
//! no longer come about; and after the batch that says so is durable. At most [`limits::WAITERS_PER_RUN_MAX`] wait for one
//! run: of more, one that wants its end is refused, and an update is answered with what there is.

use super::{Entry, Shard};
use crate::engine::command::{Refusal, Reply, ReplyTo, Updated};
use crate::engine::{Awaited, Outcome, Settled};
use crate::limits;
use crate::model::{Place, RunId, Seq};

/// Somebody who waits.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) reply_to: ReplyTo,
    pub(super) until: Until,
}

/// For what.
#[derive(Debug)]
pub(super) enum Until {
    /// The run's end.
    Ended,
    /// The end of the node that answers this update.
    Answered(Box<Taken>),
}

/// An update that was taken.
#[derive(Clone, Debug)]
pub(super) struct Taken {
    /// Number of its event.
    pub(super) seq: Seq,
    /// Who took it, and who answers.
    pub(super) awaited: Awaited,
    /// That was before, under the same key.
    pub(super) replayed: bool,
}

impl Waiter {
    /// The node whose end it waits for.
    fn place(&self) -> Option<&Place> {
        match &self.until {
            Until::Ended => None,
            Until::Answered(taken) => Some(&taken.awaited.reply),
        }
    }
}

impl Entry {
    /// The ends of these nodes are to be noted.
    pub(super) fn watch(&self, outcome: &mut Outcome) {
        outcome.watched.extend(self.waiters.iter().filter_map(Waiter::place).cloned());
    }

    /// How a node that is waited for has settled: as was noted, or as the run remembers.
    pub(super) fn settled(&self, noted: &[(Place, Settled)], place: &Place) -> Option<Settled> {
        let how = noted.iter().find(|(noted, _)| noted == place).map(|(_, how)| how.clone());
        how.or_else(|| self.run.settled(place))
    }

    /// The answer to an update.
    pub(super) fn updated(&self, taken: &Taken, settled: Option<Settled>) -> Reply {
        let Taken { seq, awaited: Awaited { place, reply }, replayed } = taken;
        let path = |place| self.run.ir().path(place);
        Reply::Updated(Box::new(Updated {
            run: self.run.summary(),
            seq: *seq,
            node: path(place),
            reply: (place != reply).then(|| path(reply)),
            settled,
            replayed: *replayed,
            kept: self.kept.clone(),
        }))
    }

    /// Is there room for one more who waits?
    pub(super) fn takes_waiter(&self) -> bool {
        self.waiters.len() < limits::WAITERS_PER_RUN_MAX
    }
}

impl Shard {
    /// Answers when the run has ended.
    pub(super) fn await_end(&mut self, reply_to: ReplyTo, run_id: RunId) {
        let Some(entry) = self.runs.get_mut(&run_id) else {
            return self.reply_now(reply_to, Reply::Refused(Refusal::NotFound(run_id)));
        };
        if entry.run.status().is_terminal() {
            return self.read(reply_to, run_id, |entry| Reply::Run(Box::new(entry.view())));
        }
        if !entry.takes_waiter() {
            let refusal = Refusal::Limit {
                limit: "waiters_per_run_max",
                what: "clients waiting for this run",
                value: entry.waiters.len() as u64,
            };
            return self.reply_now(reply_to, Reply::Refused(refusal));
        }
        entry.waiters.push(Waiter { reply_to, until: Until::Ended });
    }

    /// One that waits is told what there is.
    pub(super) fn stop_waiting(&mut self, reply_to: ReplyTo, (run_id, waiter): (RunId, ReplyTo)) {
        if let Some(entry) = self.runs.get_mut(&run_id)
            && let Some(at) = entry.waiters.iter().position(|waiting| waiting.reply_to == waiter)
        {
            match entry.waiters.swap_remove(at).until {
                Until::Ended => self.reply_now(waiter, Reply::Done),
                Until::Answered(taken) => {
                    let (batch, reply) = (entry.batch, entry.updated(&taken, None));
                    self.reply_after(batch, waiter, reply);
                }
            }
        }
        self.reply_now(reply_to, Reply::Done);
    }

    /// Something has happened in the run: answers those whose node has settled, or is gone.
    pub(super) fn answer_settled(&mut self, run_id: RunId) {
        let Some(entry) = self.runs.get_mut(&run_id) else { return };
        if entry.waiters.iter().all(|waiter| waiter.place().is_none()) {
            return;
        }
        let (batch, mut at) = (entry.batch, 0);
        let mut answers = Vec::new();
        while let Some(waiter) = entry.waiters.get(at) {
            let how = match &waiter.until {
                Until::Ended => None,
                Until::Answered(taken) => {
                    let how = entry.settled(&self.outcome.settled, &taken.awaited.reply);
                    how.map(|how| entry.updated(taken, Some(how)))
                }
            };
            match how {
                Some(reply) => answers.push((entry.waiters.remove(at).reply_to, reply)),
                None => at += 1,
            }
        }
        for (reply_to, reply) in answers {
            self.reply_after(batch, reply_to, reply);
        }
    }

    /// The run has ended: everybody is answered.
    pub(super) fn answer_all(&mut self, run_id: RunId) {
        let Some(entry) = self.runs.get_mut(&run_id) else { return };
        let waiters = std::mem::take(&mut entry.waiters);
        let batch = entry.batch;
        if waiters.is_empty() {
            return;
        }
        let view = entry.view();
        let answer = |waiter: Waiter| match waiter.until {
            Until::Ended => (waiter.reply_to, Reply::Run(Box::new(view.clone()))),
            Until::Answered(taken) => (waiter.reply_to, entry.updated(&taken, Some(Settled::Gone))),
        };
        let answers: Vec<_> = waiters.into_iter().map(answer).collect();
        for (reply_to, reply) in answers {
            self.reply_after(batch, reply_to, reply);
        }
    }
}
