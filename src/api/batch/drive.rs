//! What does the work of batches: one control core, one batch of a workspace at a time, [`limits::BATCHES_AT_ONCE`] in all.
//!
//! The agenda of the index has every batch that is not over, by its age, so nothing here has to outlive a crash. A batch lists a page of
//! runs, writes it down, deals with its runs one after the other at the pace that was asked for, and writes down what came of them; found
//! after a crash it goes on with the page. A shard or a store that has no room for now is waited for, later each time; so no run
//! is passed over, but one that alone makes trouble for [`limits::BATCH_RUN_TRIES_MAX`] tries: that one is a failure. A node that stops
//! finishes the run under way and leaves the rest.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::act::{act, is_passing};
use crate::api::services::Services;
use crate::api::triggers;
use crate::limits;
use crate::model::batch::{Batch, Came, State};
use crate::model::{RunId, Workspace};
use crate::store::triggers::{Change, Table};
use crate::telemetry::log::{self, Target};
use crate::time::{Clock as _, Timestamp};
use crate::wire::problem::Problem;

/// How far a batch that was held up may run behind its pace, to make up for it.
const BEHIND_US: u64 = 100_000;
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// What is under way.
struct Drive {
    services: Rc<Services>,
    working: RefCell<BTreeSet<Workspace>>,
    room: Semaphore,
}

/// Does the work of batches; runs as long as the core does.
pub async fn run_batches(services: Rc<Services>) {
    let room = Semaphore::new(limits::BATCHES_AT_ONCE);
    let drive = Rc::new(Drive { services, working: RefCell::default(), room });
    let most = Duration::from_millis(limits::BATCH_LOOK_MILLIS);
    while !drive.services.stopping.get() {
        if let Err(problem) = look(&drive).await {
            crate::api::records::background("batches", &problem);
        }
        let _ = tokio::time::timeout(most, drive.services.triggers.batches.notified()).await;
    }
}

/// Begins with the oldest batch of each workspace that has none under way.
async fn look(drive: &Rc<Drive>) -> Result<(), Box<Problem>> {
    let agenda =
        triggers::agenda(&drive.services.triggers, Table::Batches, limits::BATCHES_LOOKED_AT).await?;
    for (_, key) in agenda {
        let Some(workspace) = triggers::workspace_of(&key) else { continue };
        if !drive.working.borrow_mut().insert(workspace.clone()) {
            continue;
        }
        let drive = drive.clone();
        crate::io::spawn_local(async move {
            if let Ok(_permit) = drive.room.acquire().await {
                let work = Work { services: &drive.services, workspace: &workspace, key: &key };
                match work.run().await {
                    // The next one of the workspace may begin.
                    Ok(()) => drive.services.triggers.batches.notify_one(),
                    Err(problem) => crate::api::records::background("a batch", &problem),
                }
            }
            drive.working.borrow_mut().remove(&workspace);
        });
    }
    Ok(())
}

/// One batch.
struct Work<'a> {
    services: &'a Services,
    workspace: &'a Workspace,
    key: &'a [u8],
}

impl Work<'_> {
    /// Goes on until it is over, or the node stops. The error is one of the store: it is looked at again.
    async fn run(&self) -> Result<(), Box<Problem>> {
        let Some(mut batch) = self.change(Batch::begin).await? else { return Ok(()) };
        let id = batch.id;
        // Whoever had it before may have dealt with some of these.
        let mut again = !batch.page.is_empty();
        log::info(Target::Work, format_args!("batch {id} {}", if again { "goes on" } else { "begins" }));
        let mut pace = Pace::new(batch.spec.per_second);
        let mut pause = FIRST_PAUSE;
        while !batch.state.is_over() && !self.services.stopping.get() {
            let changed = if batch.page.is_empty() {
                again = false;
                self.list(&batch, &mut pause).await?
            } else {
                self.deal(&batch, again, &mut pace).await?
            };
            let Some(changed) = changed else { return Ok(()) };
            batch = changed;
        }
        let (state, counts) = (batch.state.as_str(), batch.counts);
        log::info(
            Target::Work,
            format_args!(
                "batch {id} is {state}: matched={} done={} skipped={} failed={}",
                counts.matched, counts.done, counts.skipped, counts.failed
            ),
        );
        Ok(())
    }

    /// Changes the row; `None`: it is gone.
    async fn change(
        &self,
        change: impl FnOnce(&mut Batch, Timestamp) + Send + 'static,
    ) -> Result<Option<Batch>, Box<Problem>> {
        let now = self.services.clock.now();
        let workspace = self.workspace.clone();
        triggers::update(&self.services.triggers, Table::Batches, self.key.to_vec(), move |row| {
            let Some(row) = row else { return Ok((Change::Keep, None)) };
            let mut batch: Batch = triggers::decode(row)?;
            let before = batch.clone();
            change(&mut batch, now);
            let look_at = (!batch.state.is_over()).then_some(batch.created_at);
            let changed = if batch == before {
                Change::Keep
            } else {
                Change::Put { row: triggers::encode(&batch), look_at }
            };
            batch.spec.filter.workspace = workspace;
            Ok((changed, Some(batch)))
        })
        .await
    }

    /// Lists the next page.
    async fn list(&self, batch: &Batch, pause: &mut Duration) -> Result<Option<Batch>, Box<Problem>> {
        let place = (batch.before, batch.room());
        match super::listed(self.services, &batch.spec, place).await {
            Ok(listed) => {
                *pause = FIRST_PAUSE;
                self.services.triggers.batch_cells.skipped.add(listed.skipped);
                self.change(move |batch, now| batch.take(listed, now)).await
            }
            Err(problem) if is_passing(&problem) => {
                wait(&problem, pause).await;
                self.change(waiting(&problem)).await
            }
            Err(problem) => {
                let (code, detail) = (problem.code.as_ref().into(), problem.detail.as_str().into());
                self.change(move |batch, now| batch.end(State::Failed { code, detail }, now)).await
            }
        }
    }

    /// Deals with some runs of the page, and writes down what came of them.
    async fn deal(&self, batch: &Batch, again: bool, pace: &mut Pace) -> Result<Option<Batch>, Box<Problem>> {
        let began_us = self.services.clock.monotonic_us();
        let mut came: Vec<(RunId, Came)> = Vec::new();
        for run_id in batch.page.iter().take(limits::BATCH_NOTED_RUNS) {
            pace.wait(self.services).await;
            if self.services.stopping.get() {
                break;
            }
            let Some(outcome) = self.insist(batch, *run_id, again).await? else { break };
            came.push((*run_id, outcome));
            let since_us = self.services.clock.monotonic_us().saturating_sub(began_us);
            if since_us > limits::BATCH_NOTE_MILLIS * 1_000 {
                break;
            }
        }
        let cells = &self.services.triggers.batch_cells;
        for (_, came) in &came {
            match came {
                Came::Done => cells.done.increment(),
                Came::Skipped => cells.skipped.increment(),
                Came::Failed(_) => cells.failed.increment(),
            }
        }
        self.change(move |batch, now| batch.note(came, None, now)).await
    }

    /// Does it to one run, however often that takes; `None`: the batch was stopped, or the node stops.
    async fn insist(&self, batch: &Batch, run_id: RunId, again: bool) -> Result<Option<Came>, Box<Problem>> {
        let (mut again, mut pause, mut tries) = (again, FIRST_PAUSE, 0_u32);
        loop {
            let problem = match act(self.services, (self.workspace, batch), run_id, again).await {
                Ok(came) => return Ok(Some(came)),
                Err(problem) => problem,
            };
            tries += 1;
            if tries >= limits::BATCH_RUN_TRIES_MAX && is_of_the_run(&problem) {
                return Ok(Some(Came::Failed(problem.code.as_ref().into())));
            }
            // Of one without an answer nobody knows whether it was done.
            again |= problem.status == 504;
            self.services.triggers.batch_cells.held_up.increment();
            wait(&problem, &mut pause).await;
            if self.services.stopping.get() {
                return Ok(None);
            }
            match self.change(waiting(&problem)).await? {
                Some(batch) if !batch.state.is_over() => {}
                _ => return Ok(None),
            }
        }
    }
}

/// May it be the trouble of this run alone, that will not pass? Shards, queues and disks are everybody's.
fn is_of_the_run(problem: &Problem) -> bool {
    matches!(&*problem.code, "run_unfinished" | "storage_failed" | "store_unavailable")
}

/// Notes what a batch waits for.
fn waiting(problem: &Problem) -> impl FnOnce(&mut Batch, Timestamp) + Send + use<> {
    let code: Arc<str> = problem.code.as_ref().into();
    move |batch, now| batch.note(Vec::new(), Some(code), now)
}

/// Waits, longer each time.
async fn wait(problem: &Problem, pause: &mut Duration) {
    let asked = Duration::from_millis(problem.retry_after_ms.unwrap_or_default());
    let most = Duration::from_millis(limits::BATCH_RETRY_MILLIS_MAX);
    // What a store or a shard says to clients is longer than one who waits in turn has to wait at first.
    let this = if *pause >= Duration::from_secs(1) { asked.max(*pause) } else { *pause };
    tokio::time::sleep(this.min(most)).await;
    *pause = (*pause * 2).min(most);
}

/// How fast it may go.
struct Pace {
    interval_us: u64,
    next_us: u64,
}

impl Pace {
    fn new(per_second: u32) -> Self {
        Self { interval_us: 1_000_000 / u64::from(per_second.max(1)), next_us: 0 }
    }

    /// The moment of the next one, at `now_us`.
    fn next(&mut self, now_us: u64) -> u64 {
        let at = self.next_us.max(now_us.saturating_sub(BEHIND_US));
        self.next_us = at.saturating_add(self.interval_us);
        at
    }

    async fn wait(&mut self, services: &Services) {
        let now_us = services.clock.monotonic_us();
        let at = self.next(now_us);
        if at > now_us {
            tokio::time::sleep(Duration::from_micros(at - now_us)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_everybodys_trouble_is_waited_for_without_end() {
        for (code, own) in
            [("storage_failed", true), ("run_unfinished", true), ("disk_low", false), ("shard_fenced", false)]
        {
            let mut problem = Problem::unavailable("overloaded", "x");
            problem.code = code.into();
            assert!(is_passing(&problem));
            assert_eq!(is_of_the_run(&problem), own, "{code}");
        }
    }

    #[test]
    fn the_pace_is_held_and_what_was_lost_is_made_up_for_a_little_only() {
        let mut pace = Pace::new(100);
        let start = 1_000_000;
        let first: Vec<u64> = (0..30).map(|_| pace.next(start)).collect();
        assert!(first.windows(2).all(|pair| pair[1] - pair[0] == 10_000));
        let ahead = first.iter().filter(|at| **at <= start).count();
        assert_eq!(ahead, 11, "a tenth of a second at once, and no more");
        let later = start + 60_000_000;
        let after: Vec<u64> = (0..30).map(|_| pace.next(later)).collect();
        assert_eq!(after.iter().filter(|at| **at <= later).count(), 11, "a long halt is not made up for");
    }
}
