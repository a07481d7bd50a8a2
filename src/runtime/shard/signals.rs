//! Signals and updates: a token's bytes become an input of the run.
//!
//! What must hold: what does not fit what the waiting node accepts is refused before anything is written down; so is an
//! update that nobody waits for. One that is taken is one event, `signal.received`, and no other signal goes to that node.
//! The answer leaves when the event is durable.

use std::sync::Arc;

use super::Shard;
use super::waiters::{Taken, Until, Waiter};
use crate::engine::command::{Command, Refusal, Reply, ReplyTo, Update};
use crate::engine::{Awaited, Input, Run, Settled};
use crate::failpoint;
use crate::limits;
use crate::model::token::{ArchivedToken, Token};
use crate::model::{RunId, Value, kept};
use crate::time::Timestamp;

/// What a token says.
struct Brought {
    run_id: RunId,
    name: Arc<str>,
    payload: Value,
}

impl Shard {
    /// Does what is asked about signals.
    pub(super) fn signalled(&mut self, reply_to: ReplyTo, command: Command, now: Timestamp) {
        match command {
            Command::Signal(bytes) => self.signal(reply_to, &bytes, now),
            Command::Update(update) => self.update(reply_to, &update, now),
            _ => {}
        }
    }

    fn brought(&mut self, bytes: &[u8]) -> Result<Brought, Refusal> {
        // What is kept by reference is only named in a token, and comes beside it.
        let given = self.given.as_ref().map(|(_, kept)| kept);
        let value = |token: &ArchivedToken| match given {
            Some(kept) => kept::loading(kept, || token.value()),
            None => token.value(),
        };
        let decoded = Token::access_copied(bytes, &mut self.token_buffer).and_then(|token| {
            Ok(Brought { run_id: token.run(), name: token.name.as_str().into(), payload: value(token)? })
        });
        decoded.map_err(|error| Refusal::Malformed(error.to_string()))
    }

    fn signal(&mut self, reply_to: ReplyTo, bytes: &[u8], now: Timestamp) {
        let Brought { run_id, name, payload } = match self.brought(bytes) {
            Ok(brought) => brought,
            Err(refusal) => return self.reply_now(reply_to, Reply::Refused(refusal)),
        };
        self.unpark(run_id, now);
        if let Some(entry) = self.runs.get(&run_id)
            && !entry.run.status().is_terminal()
        {
            if let Some(limit) = entry.run.signal_limit(&name, &payload) {
                let value = entry.run.signals_kept() as u64;
                let what = "a signal that nobody waits for yet does not fit; kept already";
                return self.reply_now(reply_to, Reply::Refused(Refusal::Limit { limit, what, value }));
            }
            let awaited = entry.run.awaited(&name);
            if let Some(refusal) = awaited.and_then(|awaited| misfit(&entry.run, &awaited, &payload)) {
                return self.reply_after(entry.batch, reply_to, Reply::Refused(refusal));
            }
        }
        failpoint::pass("shard::signal");
        let key = self.key_of(run_id);
        let input = Input::Signal { name: &name, payload: &payload, key: key.as_ref() };
        self.change(reply_to, run_id, input, now);
    }

    fn update(&mut self, reply_to: ReplyTo, update: &Update, now: Timestamp) {
        let Brought { run_id, name, payload } = match self.brought(&update.token) {
            Ok(brought) => brought,
            Err(refusal) => return self.reply_now(reply_to, Reply::Refused(refusal)),
        };
        self.unpark(run_id, now);
        let Some(entry) = self.runs.get(&run_id) else {
            return self.reply_now(reply_to, Reply::Refused(Refusal::NotFound(run_id)));
        };
        let awaited = match awaited(&entry.run, &name, &payload) {
            Ok(awaited) => awaited,
            Err(refusal) => return self.reply_after(entry.batch, reply_to, Reply::Refused(refusal)),
        };
        let taken = Taken { seq: entry.run.seq() + 1, awaited, replayed: false };
        failpoint::pass("shard::signal");
        let key = self.key_of(run_id);
        let input = Input::Signal { name: &name, payload: &payload, key: key.as_ref() };
        self.input_watching(run_id, input, Some(&taken.awaited.reply), now);
        if self.is_fenced() {
            return self.refuse_fenced(reply_to);
        }
        if self.outcome.stale {
            return self.refuse_dropped(reply_to, run_id, "updated, for it is being cancelled");
        }
        let Some(entry) = self.runs.get(&run_id) else { return };
        let settled = entry.settled(&self.outcome.settled, &taken.awaited.reply);
        self.taken(reply_to, run_id, (taken, update.wait), settled);
    }

    /// Answers an update that was taken, or lets whoever brought it wait.
    pub(super) fn taken(
        &mut self,
        reply_to: ReplyTo,
        run_id: RunId,
        (taken, wait): (Taken, bool),
        settled: Option<Settled>,
    ) {
        let Some(entry) = self.runs.get_mut(&run_id) else { return };
        // What was handed over, and is too much for one slice, comes to its end in the next.
        let own = taken.awaited.reply == taken.awaited.place && entry.run.is_handed(&taken.awaited.place);
        if settled.is_none() && (wait || own) && entry.takes_waiter() {
            return entry.waiters.push(Waiter { reply_to, until: Until::Answered(Box::new(taken)) });
        }
        let (batch, reply) = (entry.batch, entry.updated(&taken, settled));
        self.reply_after(batch, reply_to, reply);
    }
}

/// The node that takes an update, or why none does.
fn awaited(run: &Run, name: &Arc<str>, payload: &Value) -> Result<Awaited, Refusal> {
    let (run_id, status) = (run.id(), run.status());
    if status.is_terminal() {
        return Err(Refusal::Finished { run_id, status });
    }
    let Some(awaited) = run.awaited(name) else {
        let names = run.awaited_names(limits::SIGNAL_NAMES_TOLD_MAX);
        return Err(Refusal::NotAwaited { run_id, name: name.clone(), awaited: names });
    };
    misfit(run, &awaited, payload).map_or(Ok(awaited), Err)
}

/// Why the node that waits for it does not accept it.
fn misfit(run: &Run, awaited: &Awaited, payload: &Value) -> Option<Refusal> {
    let found = run.unfit(&awaited.place, payload);
    (!found.is_empty()).then(|| Refusal::Unfit { node: run.ir().path(&awaited.place), found })
}

#[cfg(test)]
pub(super) mod tests;
