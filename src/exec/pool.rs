//! Jobs that wait for workers, and leases that workers hold.
//!
//! Everything here follows from the log and is made again from it after a restart: a job is an attempt that a run handed
//! out, a lease is a `node.leased`. So nothing here is durable, and nothing here may be the only place where something
//! stands. One room for each queue of each workspace; the rooms are spread over locks that only control cores take, each
//! for less than a microsecond's work. A runner never comes here.
//!
//! Who goes first: the job with the least `handed out + AGEING x level`, so a job of high priority overtakes, and one of
//! low priority waits no longer than twice the ageing behind any that came after it. As many jobs wait as there are
//! attempts under way; a full node refuses starts, not jobs.

#![expect(
    clippy::disallowed_types,
    reason = "short, between control cores only, and spread over rooms (docs/adr/0011)"
)]

mod standing;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::limits;
use crate::model::event::DocumentHash;
use crate::model::{Place, Priority, RunId, Seq, Value};
use crate::time::Timestamp;

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

#[derive(Debug)]
struct Lease {
    place: Place,
    worker: Arc<str>,
    expires_us: u64,
    cancelled: bool,
}

#[derive(Debug, Default)]
struct Queue {
    /// By priority: when it came, and what.
    waiting: [VecDeque<(u64, Job)>; 3],
    /// Those of `waiting` that nobody called back.
    wanted: BTreeSet<Name>,
    /// On their way to a worker: their lease is being written down.
    offered: BTreeMap<Name, Job>,
    leased: BTreeMap<Name, Lease>,
    news: Arc<Notify>,
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
}

impl Default for Workers {
    fn default() -> Self {
        Self { lease_seconds: limits::LEASE_SECONDS_DEFAULT, queue_limits: BTreeMap::new() }
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
    rooms: [Mutex<BTreeMap<Room, Queue>>; LOCKS],
    /// How long a lease lasts without a heartbeat.
    lease_us: u64,
    /// Most leases of a queue at once.
    limits: BTreeMap<Arc<str>, usize>,
}

impl Queue {
    /// The job that goes next.
    fn pop(&mut self) -> Option<Job> {
        for jobs in &mut self.waiting {
            while jobs.front().is_some_and(|(_, job)| !self.wanted.contains(&name(job))) {
                jobs.pop_front();
            }
        }
        let firsts = self.waiting.iter_mut().enumerate().filter_map(|(level, jobs)| {
            let (came_us, _) = jobs.front()?;
            Some((came_us.saturating_add(AGEING_US.saturating_mul(level as u64)), jobs))
        });
        let (_, jobs) = firsts.min_by_key(|(score, _)| *score)?;
        let (_, job) = jobs.pop_front()?;
        self.wanted.remove(&name(&job));
        Some(job)
    }

    fn waits(&self) -> usize {
        self.wanted.len()
    }

    fn is_empty(&self) -> bool {
        self.waits() == 0 && self.offered.is_empty() && self.leased.is_empty()
    }

    fn out(&self) -> usize {
        self.offered.len() + self.leased.len()
    }
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
        Self { rooms: Default::default(), lease_us, limits: settings.queue_limits }
    }

    /// How long a lease lasts without a heartbeat.
    pub fn lease_seconds(&self) -> u64 {
        self.lease_us / 1_000_000
    }

    fn lock(&self, (workspace, queue): &Room) -> MutexGuard<'_, BTreeMap<Room, Queue>> {
        let sum = workspace
            .bytes()
            .chain(queue.bytes())
            .fold(0_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(byte)));
        let at = self.rooms.get(sum % LOCKS).unwrap_or(&self.rooms[0]);
        at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A job that was handed out. One that is here already stays as it is.
    pub fn add(&self, room: &Room, job: Job, now_us: u64) {
        let mut rooms = self.lock(room);
        let queue = rooms.entry(room.clone()).or_default();
        let name = name(&job);
        let known = queue.wanted.contains(&name) || queue.offered.contains_key(&name);
        if known || queue.leased.contains_key(&name) {
            return;
        }
        if let Some(worker) = job.worker {
            let lease = Lease {
                place: job.place,
                worker,
                expires_us: now_us.saturating_add(self.lease_us),
                cancelled: false,
            };
            queue.leased.insert(name, lease);
            return;
        }
        if let Some(jobs) = queue.waiting.get_mut(level(job.priority)) {
            jobs.push_back((now_us, job));
            queue.wanted.insert(name);
        }
        queue.news.notify_one();
    }

    /// At most `max` jobs that go first. They are on offer until [`leased`](Self::leased) or [`drop_offer`](Self::drop_offer).
    pub fn offer(&self, room: &Room, max: usize) -> Vec<Job> {
        let mut rooms = self.lock(room);
        let Some(queue) = rooms.get_mut(room) else { return Vec::new() };
        let most = self.limits.get(&room.1).copied().unwrap_or(usize::MAX);
        let mut jobs = Vec::new();
        while jobs.len() < max
            && queue.out() < most
            && let Some(job) = queue.pop()
        {
            queue.offered.insert(name(&job), job.clone());
            jobs.push(job);
        }
        if queue.waits() > 0 && queue.out() < most {
            // One wake for many jobs: whoever is woken wakes the next.
            queue.news.notify_one();
        }
        jobs
    }

    /// The offer was taken: the lease is durable.
    pub fn leased(&self, room: &Room, job: &Job, worker: Arc<str>, now_us: u64) {
        let mut rooms = self.lock(room);
        let Some(queue) = rooms.get_mut(room) else { return };
        let name = name(job);
        // Called back meanwhile: the worker hears of it with its first heartbeat.
        let cancelled = queue.offered.remove(&name).is_none();
        let expires_us = now_us.saturating_add(self.lease_us);
        queue.leased.insert(name, Lease { place: job.place.clone(), worker, expires_us, cancelled });
    }

    /// The offer was not taken. `again`: it may be offered again.
    pub fn drop_offer(&self, room: &Room, job: &Job, again: bool, now_us: u64) {
        let held = self.lock(room).get_mut(room).and_then(|queue| queue.offered.remove(&name(job)));
        if let (Some(job), true) = (held, again) {
            self.add(room, job, now_us);
        }
        self.tidy(room);
    }

    /// The worker is alive: the lease starts anew.
    pub fn beat(&self, room: &Room, name: Name, now_us: u64) -> Beat {
        let mut rooms = self.lock(room);
        match rooms.get_mut(room).and_then(|queue| queue.leased.get_mut(&name)) {
            Some(lease) if lease.cancelled => Beat::Cancelled,
            Some(lease) => {
                lease.expires_us = now_us.saturating_add(self.lease_us);
                Beat::Held
            }
            None => Beat::Unknown,
        }
    }

    /// The attempt has ended.
    pub fn settled(&self, room: &Room, name: Name) {
        let mut rooms = self.lock(room);
        if let Some(queue) = rooms.get_mut(room) {
            queue.leased.remove(&name);
            if queue.waits() > 0 {
                // There may have been as many leases as there may be.
                queue.news.notify_one();
            }
        }
        drop(rooms);
        self.tidy(room);
    }

    /// Nobody waits for the attempt any more: it is not given to a worker, or the worker that has it is told.
    pub fn recall(&self, name: Name) {
        for lock in &self.rooms {
            let mut rooms = lock.lock().unwrap_or_else(PoisonError::into_inner);
            for queue in rooms.values_mut() {
                queue.offered.remove(&name);
                if let Some(lease) = queue.leased.get_mut(&name) {
                    lease.cancelled = true;
                    return;
                }
                // It is left out when its turn comes.
                queue.wanted.remove(&name);
            }
        }
    }

    /// Takes out leases that have run out; those whose attempt was called back say nothing.
    pub fn expired(&self, now_us: u64) -> Vec<Expired> {
        let mut expired = Vec::new();
        for lock in &self.rooms {
            let mut rooms = lock.lock().unwrap_or_else(PoisonError::into_inner);
            for queue in rooms.values_mut() {
                let gone = queue.leased.extract_if(.., |_, lease| lease.expires_us <= now_us);
                expired.extend(gone.filter(|(_, lease)| !lease.cancelled).map(|((run_id, seq), lease)| {
                    Expired { run_id, seq, place: lease.place, worker: lease.worker }
                }));
                if queue.waits() > 0 {
                    queue.news.notify_one();
                }
            }
            rooms.retain(|_, queue| !queue.is_empty() || Arc::strong_count(&queue.news) > 1);
        }
        expired
    }

    /// Is woken when there is something to be had.
    pub fn news(&self, room: &Room) -> Arc<Notify> {
        self.lock(room).entry(room.clone()).or_default().news.clone()
    }

    /// How all queues are doing.
    pub fn depths(&self) -> Vec<Depth> {
        let mut depths = Vec::new();
        for lock in &self.rooms {
            let rooms = lock.lock().unwrap_or_else(PoisonError::into_inner);
            depths.extend(rooms.iter().map(|((workspace, name), queue)| Depth {
                workspace: workspace.clone(),
                queue: name.clone(),
                waiting: queue.waits(),
                leased: queue.out(),
                max: self.limits.get(name).copied(),
            }));
        }
        depths.sort_by(|a, b| (&a.workspace, &a.queue).cmp(&(&b.workspace, &b.queue)));
        depths
    }

    /// A room in which nothing is and nobody waits takes no memory.
    fn tidy(&self, room: &Room) {
        let mut rooms = self.lock(room);
        if rooms.get(room).is_some_and(|queue| queue.is_empty() && Arc::strong_count(&queue.news) == 1) {
            rooms.remove(room);
        }
    }
}

#[cfg(test)]
#[path = "pool_tests.rs"]
mod tests;
