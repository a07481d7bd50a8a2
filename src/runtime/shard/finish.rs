//! How a run leaves the shard: its end becomes durable, its row goes to the index, then it is forgotten here.

use std::sync::Arc;
use std::time::Duration;

use super::recalls::Left;
use super::{Release, Shard, errands};
use crate::model::{RunId, Status};
use crate::time::Timestamp;

/// How long a key is still answered here after its run was indexed. A start looks in the index first and waits in
/// the queue afterwards; the queue is bounded and drained far faster than this.
const KEY_LINGERS: Duration = Duration::from_secs(60);

impl Shard {
    /// The run has just ended (not yet durably).
    pub(super) fn ended(&mut self, run_id: RunId) {
        let Some(entry) = self.runs.get_mut(&run_id) else { return };
        crate::failpoint::pass("shard::ended");
        self.timers.disarm(&mut entry.timers);
        self.reviews.gone(run_id);
        let batch = entry.batch;
        self.answer_all(run_id);
        let errand = self.runs.get(&run_id).and_then(|entry| errands::ended(&entry.run));
        if let Some(errand) = errand
            && let Some(release) = self.outbox.put(batch, Release::Errand(Box::new(errand)))
        {
            self.let_go(release);
        }
        if let Some(release) = self.outbox.put(batch, Release::Ended(run_id)) {
            self.let_go(release);
        }
    }

    /// The run's end is durable: its row goes to the index.
    pub(super) fn archive(&mut self, run_id: RunId) {
        let Some(entry) = self.runs.get(&run_id) else { return };
        let mut row = entry.row(&self.config);
        row.imaged = row.imaged && !self.recalls.withhold(run_id);
        self.count_finished(&row.summary.workflow.clone(), row.summary.status);
        self.unindexed += 1;
        self.releases.rows.push(row);
    }

    /// The rows of these runs are in the index: readers find them there, so the shard forgets them.
    pub(crate) fn indexed(&mut self, run_ids: &[RunId], now: Timestamp) {
        for run_id in run_ids {
            let Some(entry) = self.runs.remove(run_id) else {
                self.image_gone(*run_id);
                continue;
            };
            self.unindexed = self.unindexed.saturating_sub(1);
            self.free_segments(*run_id, Left::of(&entry, &self.config));
            if let Some(idempotency) = entry.idempotency() {
                self.keys_indexed.push_back((now, idempotency.key));
            }
            if let Some(claim) = entry.claim()
                && self.run_keys.get(&claim) == Some(run_id)
            {
                self.run_keys.remove(&claim);
            }
        }
        while let Some((at, key)) = self.keys_indexed.front().copied() {
            if at.saturating_add(KEY_LINGERS) > now {
                break;
            }
            self.keys_indexed.pop_front();
            self.keys.remove(&key);
        }
    }

    fn count_finished(&mut self, workflow: &Arc<str>, status: Status) {
        let finished = &self.cells.finished;
        let cells = self.finished_cells.entry(workflow.clone()).or_insert_with(|| finished.cells(workflow));
        let [completed, failed, cancelled] = &**cells;
        match status {
            Status::Failed => failed.increment(),
            Status::Cancelled => cancelled.increment(),
            _ => completed.increment(),
        }
    }
}
