//! Business keys: at most one unfinished run has one, and whoever comes second is refused, answered with the first, or
//! takes its place.
//!
//! Key and run have one owner, so the answer is this shard's alone and stands in the order of its log. What is
//! remembered here follows from `run.keyed` and is folded again at start.

use super::{IdMap, Shard};
use crate::engine::Input;
use crate::engine::command::{OnConflict, Refusal, Reply, ReplyTo};
use crate::model::RunId;
use crate::model::run_key::Claim;
use crate::time::Timestamp;

/// The latest run under each key, until it is in the index.
pub(super) type RunKeys = IdMap<Claim, RunId>;

impl Shard {
    /// The unfinished run that has this key.
    pub(super) fn holder(&mut self, claim: &Claim, now: Timestamp) -> Option<RunId> {
        let run_id = *self.run_keys.get(claim)?;
        self.unpark(run_id, now);
        let entry = self.runs.get(&run_id)?;
        (!entry.run.status().is_terminal()).then_some(run_id)
    }

    /// Answers a start whose key `run_id` has.
    pub(super) fn key_in_use(&mut self, reply_to: ReplyTo, run_id: RunId, how: OnConflict) {
        self.read(reply_to, run_id, |entry| match how {
            OnConflict::Return => Reply::Existing(entry.run.summary()),
            OnConflict::Reject | OnConflict::Replace => Reply::Refused(Refusal::RunKeyInUse { run_id }),
        });
    }

    /// Ends `old` for `new`. Both stand in the open batch, which is written as a whole or not at all; attempts under way
    /// are called back and not waited for, or two unfinished runs would have the key.
    pub(super) fn replace(&mut self, old: RunId, new: RunId, now: Timestamp) {
        let reason = format!("replaced by {new}, started under the same run_key");
        self.input(old, Input::Terminate { reason: &reason }, now);
    }

    /// Which run has the key, or had it last and is not in the index yet.
    pub(super) fn keyed(&mut self, reply_to: ReplyTo, claim: &Claim, now: Timestamp) {
        let run_id = self.run_keys.get(claim).copied();
        if let Some(run_id) = run_id {
            self.unpark(run_id, now);
        }
        match run_id {
            Some(run_id) if self.runs.contains_key(&run_id) => {
                self.read(reply_to, run_id, |_| Reply::Keyed(Some(run_id)));
            }
            _ => self.reply_now(reply_to, Reply::Keyed(None)),
        }
    }
}
