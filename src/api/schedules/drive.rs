//! The clock's side of schedules: one control core looks at those that are due, in the order of their times.
//!
//! What is due is decided from what is written down, and the decision is written down before anything is started, so nothing here
//! has to outlive a crash: the agenda is in the index. It follows the wall clock, and looks again at least every
//! [`limits::SCHEDULE_LOOK_MILLIS`], so a clock that jumps is noticed. At most [`limits::SCHEDULES_AT_ONCE`] are worked on at once; the
//! starts of a workspace are counted by the minute, and those beyond the limit have to wait for the next.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::fire;
use crate::api::services::{Services, unexpected};
use crate::api::triggers;
use crate::engine::command::{Command, Refusal, Reply};
use crate::limits;
use crate::model::{RunId, Workspace};
use crate::schedule::{Calendar, Next, Overlap, Schedule};
use crate::store::triggers::{Change, Table};
use crate::telemetry::log::{self, Target};
use crate::time::{Clock as _, Timestamp};
use crate::wire::problem::Problem;

const MINUTE_US: u64 = 60_000_000;
/// How soon the agenda is looked at again while something is worked on.
const BUSY_MILLIS: u64 = 25;

/// Starts of this minute, by workspace.
#[derive(Default)]
struct Minute {
    number: u64,
    starts: BTreeMap<Workspace, u32>,
}

impl Minute {
    /// Counts a start; when there is no room for it, says when there will be.
    fn take(&mut self, workspace: &Workspace, now: Timestamp) -> Result<(), Timestamp> {
        let number = now.as_micros() / MINUTE_US;
        if number != self.number {
            *self = Self { number, starts: BTreeMap::new() };
        }
        let starts = self.starts.entry(workspace.clone()).or_default();
        if *starts >= limits::SCHEDULE_FIRES_PER_MINUTE_MAX {
            return Err(Timestamp::from_micros((number + 1).saturating_mul(MINUTE_US)));
        }
        *starts += 1;
        Ok(())
    }
}

/// What is under way.
struct Drive {
    services: Rc<Services>,
    working: RefCell<BTreeSet<Vec<u8>>>,
    minute: RefCell<Minute>,
    room: Semaphore,
}

/// Starts what is due; runs as long as the core does.
pub async fn run_schedules(services: Rc<Services>) {
    let room = Semaphore::new(limits::SCHEDULES_AT_ONCE);
    let drive = Rc::new(Drive { services, working: RefCell::default(), minute: RefCell::default(), room });
    while !drive.services.stopping.get() {
        let wait = look(&drive).await;
        tokio::time::sleep(wait).await;
    }
}

/// Begins what is due; how long until the next look.
async fn look(drive: &Rc<Drive>) -> Duration {
    let most = Duration::from_millis(limits::SCHEDULE_LOOK_MILLIS);
    let page = limits::SCHEDULES_AT_ONCE * 2;
    let agenda = match triggers::agenda(&drive.services.triggers, Table::Schedules, page).await {
        Ok(agenda) => agenda,
        Err(problem) => {
            log::warn(Target::Work, format_args!("schedules cannot be read: {}", problem.detail));
            return most;
        }
    };
    let now = drive.services.clock.now();
    let mut wait = most;
    for (at, key) in agenda {
        if at > now {
            wait = wait.min(now.until(at));
            break;
        }
        if drive.working.borrow_mut().insert(key.clone()) {
            let drive = drive.clone();
            crate::io::spawn_local(async move {
                if let Ok(_permit) = drive.room.acquire().await
                    && let Err(problem) = work(&drive, &key).await
                {
                    put_off(&drive, &key, problem).await;
                }
                drive.working.borrow_mut().remove(&key);
            });
        }
    }
    if !drive.working.borrow().is_empty() {
        wait = wait.min(Duration::from_millis(BUSY_MILLIS));
    }
    wait.max(Duration::from_millis(1))
}

/// It is looked at again later: nothing is lost, for what was decided is written down.
async fn put_off(drive: &Drive, key: &[u8], problem: Box<Problem>) {
    let name =
        String::from_utf8_lossy(key.split(|byte| *byte == 0).next_back().unwrap_or_default()).into_owned();
    log::warn(Target::Work, format_args!("schedule {name:?} waits: {}: {}", problem.code, problem.detail));
    let at = drive.services.clock.now().saturating_add(Duration::from_millis(limits::SCHEDULE_RETRY_MILLIS));
    look_at(drive, key, at).await;
}

async fn look_at(drive: &Drive, key: &[u8], at: Timestamp) {
    let changed = triggers::update(&drive.services.triggers, Table::Schedules, key.to_vec(), move |_| {
        Ok((Change::Look(at), ()))
    });
    if let Err(problem) = changed.await {
        log::warn(Target::Work, format_args!("a schedule cannot be written: {}", problem.detail));
    }
}

/// Does what one schedule has to do now.
async fn work(drive: &Drive, key: &[u8]) -> Result<(), Box<Problem>> {
    let services = &drive.services;
    let Some(workspace) = triggers::workspace_of(key) else { return Ok(()) };
    loop {
        let found: Option<Schedule> =
            triggers::get(&services.triggers, Table::Schedules, key.to_vec()).await?;
        let Some(schedule) = found else { return Ok(()) };
        for fire in &schedule.decided {
            match fire::carry_out(services, (&workspace, key), &schedule, *fire).await {
                // What was refused for good is noted.
                Err(problem) if fire::is_passing(&problem) => return Err(problem),
                _ => {}
            }
        }
        if services.stopping.get() {
            return Ok(());
        }
        let ended = ended(services, &schedule).await?;
        let counted = drive.minute.borrow_mut().take(&workspace, services.clock.now());
        if let Err(at) = counted {
            look_at(drive, key, at).await;
            return Ok(());
        }
        match advance(services, key, ended).await? {
            Next::Fire(_) => {}
            next => {
                // Nothing was started.
                let mut minute = drive.minute.borrow_mut();
                minute
                    .starts
                    .entry(workspace.clone())
                    .and_modify(|starts| *starts = starts.saturating_sub(1));
                if !matches!(next, Next::More) {
                    return Ok(());
                }
            }
        }
    }
}

/// Decides, and writes the decision down.
async fn advance(services: &Services, key: &[u8], ended: BTreeSet<RunId>) -> Result<Next, Box<Problem>> {
    let now = services.clock.now();
    triggers::update(&services.triggers, Table::Schedules, key.to_vec(), move |row| {
        let Some(row) = row else { return Ok((Change::Keep, Next::At(None))) };
        let before: Schedule = triggers::decode(row)?;
        let spec = &before.spec;
        // It was read when it was made: another build may know fewer zones.
        let calendar = Calendar::parse(&spec.cron, &spec.timezone)
            .map_err(|invalid| Problem::unavailable("storage_failed", invalid.to_string()))?;
        let mut after = before.clone();
        let next = after.advance(&calendar, |run_id| !ended.contains(&run_id), now);
        let look_at = match next {
            Next::Fire(_) | Next::More => Some(now),
            Next::At(at) => at,
        };
        let change = match look_at {
            // Only looked at: that need not be synced.
            Some(at) if after == before => Change::Look(at),
            look_at => Change::Put { row: triggers::encode(&after), look_at },
        };
        Ok((change, next))
    })
    .await
}

/// Runs of the schedule that have ended, as far as that matters to it.
async fn ended(services: &Services, schedule: &Schedule) -> Result<BTreeSet<RunId>, Box<Problem>> {
    let mut ended = BTreeSet::new();
    if schedule.spec.overlap == Overlap::Allow {
        return Ok(ended);
    }
    for run_id in &schedule.runs {
        let is_over = match services.ask(*run_id, Command::Get(*run_id)).await? {
            Reply::Run(view) => view.summary.status.is_terminal(),
            // Its shard has forgotten it: it has ended, and may even be erased.
            Reply::Refused(Refusal::NotFound(_)) => true,
            other => return Err(unexpected(other)),
        };
        if is_over {
            ended.insert(*run_id);
        }
    }
    Ok(ended)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_starts_of_a_workspace_are_counted_by_the_minute() {
        let (mut minute, acme): (Minute, Workspace) = (Minute::default(), "acme".parse().unwrap());
        let at = |seconds: u64| Timestamp::from_micros(seconds * 1_000_000);
        for _ in 0..limits::SCHEDULE_FIRES_PER_MINUTE_MAX {
            minute.take(&acme, at(130)).unwrap();
        }
        assert_eq!(minute.take(&acme, at(131)), Err(at(180)));
        assert_eq!(minute.take(&Workspace::DEFAULT, at(131)), Ok(()), "another's are not counted");
        assert_eq!(minute.take(&acme, at(180)), Ok(()));
    }
}
