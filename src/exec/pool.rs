//! Jobs that wait for workers, and leases that workers hold.
//!
//! Everything here follows from the log and is made again from it after a restart: a job is an attempt that a run handed
//! out, a lease is a `node.leased`. So nothing here is durable, and nothing here may be the only place where something
//! stands. One room for each queue of each workspace; the queues are spread over locks that only control cores take, each
//! for less than a microsecond's work. A runner never comes here.
//!
//! Who goes first: in a room the job with the least `handed out + AGEING x level`, so a job of high priority overtakes,
//! and one of low priority waits no longer than twice the ageing behind any that came after it. Workers that serve several
//! workspaces take from them in turn, by weight ([`turns`]). As many jobs wait as there are attempts under way; a full
//! node refuses starts, not jobs.

#![expect(
    clippy::disallowed_types,
    reason = "short, between control cores only, and spread over queues (docs/adr/0011)"
)]

mod line;
mod standing;
mod turns;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::limits;
use crate::model::event::DocumentHash;
use crate::model::{Place, Priority, RunId, Seq, Value};
use crate::time::Timestamp;
use line::{Lease, Line, Queue};

/// An attempt for a worker.
#[derive(Clone, Debug)]
pub struct Job {
    /// Of which run.
    pub run_id: RunId,
    /// Of which node.
    pub place: Place,
    /// Number of the event that handed it out.
    pub seq: Seq,
    /// The node's path.
    pub path: String,
    /// The workflow's name inside the node.
    pub workflow: Arc<str>,
    /// Identity of the document.
    pub document: DocumentHash,
    /// Which attempt, from 1.
    pub attempt: u32,
    /// Of the shard.
    pub epoch: u64,
    /// What goes first.
    pub priority: Priority,
    /// Where workers look for it.
    pub queue: Arc<str>,
    /// What is to be done.
    pub payload: Value,
    /// When it is given up.
    pub due: Option<Timestamp>,
    /// Who had it before a restart.
    pub worker: Option<Arc<str>>,
}

/// Whose jobs a worker takes that serves more than one workspace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whose {
    /// Of these.
    These(Vec<Arc<str>>),
    /// Of every workspace.
    All,
}

/// A queue of a workspace.
pub type Room = (Arc<str>, Arc<str>);
type Name = (RunId, Seq);

/// A lease that has run out.
#[derive(Clone, Debug, PartialEq)]
pub struct Expired {
    /// Of which run.
    pub run_id: RunId,
    /// Of which node.
    pub place: Place,
    /// Number of the event that handed it out.
    pub seq: Seq,
    /// Who had it.
    pub worker: Arc<str>,
    /// The node's path.
    pub path: Arc<str>,
    /// Which attempt, from 1.
    pub attempt: u32,
}

/// Whose attempt a lease was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The node's path.
    pub path: Arc<str>,
    /// Which attempt, from 1.
    pub attempt: u32,
}

/// What a heartbeat is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beat {
    /// Go on.
    Held,
    /// Nobody waits for the result any more.
    Cancelled,
    /// This node knows no such lease.
    Unknown,
}

/// How a queue is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Depth {
    /// The workspace.
    pub workspace: Arc<str>,
    /// Its name.
    pub queue: Arc<str>,
    /// Jobs nobody has.
    pub waiting: usize,
    /// Jobs that workers have.
    pub leased: usize,
    /// Most of these at once, when the configuration says so.
    pub max: Option<usize>,
}

const LOCKS: usize = 16;
/// Microseconds that a level of priority is worth.
const AGEING_US: u64 = limits::TASK_AGEING_SECONDS * 1_000_000;

/// What workers get.
#[derive(Clone, Debug)]
pub struct Workers {
    /// How long a lease lasts without a heartbeat.
    pub lease_seconds: u64,
    /// Most leases of a queue at once.
    pub queue_limits: BTreeMap<Arc<str>, usize>,
    /// What a workspace's share of workers that serve several is worth; 1 unless it stands here.
    pub weights: BTreeMap<Arc<str>, u64>,
}

impl Default for Workers {
    fn default() -> Self {
        Self {
            lease_seconds: limits::LEASE_SECONDS_DEFAULT,
            queue_limits: BTreeMap::new(),
            weights: BTreeMap::new(),
        }
    }
}

impl Default for Pool {
    fn default() -> Self {
        Self::new(Workers::default())
    }
}

/// All queues of a node.
#[derive(Debug)]
pub struct Pool {
    lines: [Mutex<BTreeMap<Arc<str>, Line>>; LOCKS],
    /// How long a lease lasts without a heartbeat.
    lease_us: u64,
    /// Most leases of a queue at once.
    limits: BTreeMap<Arc<str>, usize>,
    /// Of workspaces; 1 unless it stands here.
    weights: BTreeMap<Arc<str>, u64>,
}

fn name(job: &Job) -> Name {
    (job.run_id, job.seq)
}

fn level(priority: Priority) -> usize {
    match priority {
        Priority::High => 0,
        Priority::Medium => 1,
        Priority::Low => 2,
    }
}

impl Pool {
    /// No jobs yet.
    pub fn new(settings: Workers) -> Self {
        let lease_us = settings.lease_seconds.saturating_mul(1_000_000);
        Self { lines: Default::default(), lease_us, limits: settings.queue_limits, weights: settings.weights }
    }

    /// How long a lease lasts without a heartbeat.
    pub fn lease_seconds(&self) -> u64 {
        self.lease_us / 1_000_000
    }

    fn lock(&self, queue: &str) -> MutexGuard<'_, BTreeMap<Arc<str>, Line>> {
        let sum = queue.bytes().fold(0_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
        let at = self.lines.get(sum % LOCKS).unwrap_or(&self.lines[0]);
        at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn most(&self, queue: &str) -> usize {
        self.limits.get(queue).copied().unwrap_or(usize::MAX)
    }

    /// Changes a room that is there; what follows from it is seen to.
    fn change<T>(&self, (workspace, queue): &Room, change: impl FnOnce(&mut Queue) -> T) -> Option<T> {
        let mut lines = self.lock(queue);
        let line = lines.get_mut(queue)?;
        let done = change(line.parts.get_mut(workspace)?);
        line.changed(workspace, self.most(queue));
        if line.is_empty() {
            lines.remove(queue);
        }
        Some(done)
    }

    /// A job that was handed out. One that is here already stays as it is.
    pub fn add(&self, room: &Room, job: Job, now_us: u64) {
        let (workspace, queue) = room;
        let expires_us = now_us.saturating_add(self.lease_us);
        let mut lines = self.lock(queue);
        let line = lines.entry(queue.clone()).or_default();
        line.parts.entry(workspace.clone()).or_default().add(job, now_us, expires_us);
        line.changed(workspace, self.most(queue));
    }

    /// At most `max` jobs that go first. They are on offer until [`leased`](Self::leased) or [`drop_offer`](Self::drop_offer).
    pub fn offer(&self, room: &Room, max: usize) -> Vec<Job> {
        let most = self.most(&room.1);
        self.change(room, |part| std::iter::from_fn(|| part.offer(most)).take(max).collect())
            .unwrap_or_default()
    }

    /// As [`offer`](Self::offer), from several workspaces by turns.
    pub fn offer_in_turn(&self, whose: &Whose, queue: &Arc<str>, max: usize) -> Vec<(Room, Job)> {
        let mut lines = self.lock(queue);
        let Some(line) = lines.get_mut(queue) else { return Vec::new() };
        let most = self.most(queue);
        let mut jobs = Vec::new();
        while jobs.len() < max {
            let first = match whose {
                Whose::All => line.turns.first().cloned(),
                Whose::These(some) => line.turns.first_of(some).cloned(),
            };
            let Some(workspace) = first else { break };
            line.turns.take(&workspace, self.weights.get(&workspace).copied().unwrap_or(1));
            let job = line.parts.get_mut(&workspace).and_then(|part| part.offer(most));
            line.changed(&workspace, most);
            jobs.extend(job.map(|job| ((workspace, queue.clone()), job)));
        }
        jobs
    }

    /// The offer was taken: the lease is durable.
    pub fn leased(&self, room: &Room, job: &Job, worker: Arc<str>, now_us: u64) {
        let name = name(job);
        let expires_us = now_us.saturating_add(self.lease_us);
        self.change(room, |part| {
            // Called back meanwhile: the worker hears of it with its first heartbeat.
            let cancelled = part.offered.remove(&name).is_none();
            part.leased.insert(name, Lease { cancelled, ..Lease::of(job, worker, expires_us) });
        });
    }

    /// The offer was not taken. `again`: it may be offered again.
    pub fn drop_offer(&self, room: &Room, job: &Job, again: bool, now_us: u64) {
        let expires_us = now_us.saturating_add(self.lease_us);
        self.change(room, |part| {
            if let (Some(job), true) = (part.offered.remove(&name(job)), again) {
                part.add(job, now_us, expires_us);
            }
        });
    }

    /// The worker is alive: the lease starts anew.
    pub fn beat(&self, (workspace, queue): &Room, name: Name, now_us: u64) -> Beat {
        let mut lines = self.lock(queue);
        let part = lines.get_mut(queue).and_then(|line| line.parts.get_mut(workspace));
        match part.and_then(|part| part.leased.get_mut(&name)) {
            Some(lease) if lease.cancelled => Beat::Cancelled,
            Some(lease) => {
                lease.expires_us = now_us.saturating_add(self.lease_us);
                Beat::Held
            }
            None => Beat::Unknown,
        }
    }

    /// The attempt has ended; whose it was, when the lease was here.
    pub fn settled(&self, room: &Room, name: Name) -> Option<Attempt> {
        let lease = self.change(room, |part| part.leased.remove(&name))??;
        Some(Attempt { path: lease.path, attempt: lease.attempt })
    }

    /// Nobody waits for the attempt any more: it is not given to a worker, or the worker that has it is told.
    pub fn recall(&self, name: Name) {
        for lock in &self.lines {
            let mut lines = lock.lock().unwrap_or_else(PoisonError::into_inner);
            for (queue, line) in lines.iter_mut() {
                let found = line
                    .parts
                    .iter_mut()
                    .find_map(|(workspace, part)| part.recall(&name).then(|| workspace.clone()));
                if let Some(workspace) = found {
                    return line.changed(&workspace, self.most(queue));
                }
            }
        }
    }

    /// Takes out leases that have run out; those whose attempt was called back say nothing.
    pub fn expired(&self, now_us: u64) -> Vec<Expired> {
        let mut expired = Vec::new();
        for lock in &self.lines {
            let mut lines = lock.lock().unwrap_or_else(PoisonError::into_inner);
            for (queue, line) in lines.iter_mut() {
                // Most parts stay as they are, and cost a look.
                let mut others = Vec::new();
                for (workspace, part) in &mut line.parts {
                    if part.expire(now_us, &mut expired) || part.is_empty() {
                        others.push(workspace.clone());
                    }
                }
                for workspace in &others {
                    line.changed(workspace, self.most(queue));
                }
            }
            lines.retain(|_, line| !line.is_empty());
        }
        expired
    }

    /// Is woken when there is something to be had.
    pub fn news(&self, (workspace, queue): &Room) -> Arc<Notify> {
        let mut lines = self.lock(queue);
        let line = lines.entry(queue.clone()).or_default();
        line.parts.entry(workspace.clone()).or_default().news.clone()
    }

    /// Is woken when there is something to be had in a queue of any workspace.
    pub fn news_of_all(&self, queue: &Arc<str>) -> Arc<Notify> {
        self.lock(queue).entry(queue.clone()).or_default().news.clone()
    }

    /// How all queues are doing.
    pub fn depths(&self) -> Vec<Depth> {
        let mut depths = Vec::new();
        for lock in &self.lines {
            let lines = lock.lock().unwrap_or_else(PoisonError::into_inner);
            let parts =
                lines.iter().flat_map(|(queue, line)| line.parts.iter().map(move |part| (queue, part)));
            depths.extend(parts.map(|(queue, (workspace, part))| Depth {
                workspace: workspace.clone(),
                queue: queue.clone(),
                waiting: part.waits(),
                leased: part.out(),
                max: self.limits.get(queue).copied(),
            }));
        }
        depths.sort_by(|a, b| (&a.workspace, &a.queue).cmp(&(&b.workspace, &b.queue)));
        depths
    }
}

#[cfg(test)]
#[path = "pool_tests.rs"]
mod tests;
