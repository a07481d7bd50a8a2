//! One queue: what waits in it, workspace by workspace, and whose turn it is.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use tokio::sync::Notify;

use super::turns::Turns;
use super::{AGEING_US, Expired, Job, Name, level, name};
use crate::model::Place;

#[derive(Debug)]
pub(super) struct Lease {
    pub(super) place: Place,
    pub(super) path: Arc<str>,
    pub(super) attempt: u32,
    pub(super) worker: Arc<str>,
    pub(super) expires_us: u64,
    pub(super) cancelled: bool,
}

#[derive(Debug, Default)]
pub(super) struct Queue {
    /// By priority: when it came, and what.
    pub(super) waiting: [VecDeque<(u64, Job)>; 3],
    /// Those of `waiting` that nobody called back.
    pub(super) wanted: BTreeSet<Name>,
    /// On their way to a worker: their lease is being written down.
    pub(super) offered: BTreeMap<Name, Job>,
    pub(super) leased: BTreeMap<Name, Lease>,
    pub(super) news: Arc<Notify>,
}

impl Lease {
    pub(super) fn of(job: &Job, worker: Arc<str>, expires_us: u64) -> Self {
        let (place, path) = (job.place.clone(), job.path.as_str().into());
        Self { place, path, attempt: job.attempt, worker, expires_us, cancelled: false }
    }
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

    /// A job that was handed out, or that a worker had before a restart. One that is here already stays as it is.
    pub(super) fn add(&mut self, job: Job, now_us: u64, expires_us: u64) {
        let name = name(&job);
        let known = self.wanted.contains(&name) || self.offered.contains_key(&name);
        if known || self.leased.contains_key(&name) {
            return;
        }
        if let Some(worker) = &job.worker {
            self.leased.insert(name, Lease::of(&job, worker.clone(), expires_us));
        } else if let Some(jobs) = self.waiting.get_mut(level(job.priority)) {
            jobs.push_back((now_us, job));
            self.wanted.insert(name);
        }
    }

    /// Puts the job that goes next on offer, unless as many are out as may be.
    pub(super) fn offer(&mut self, most: usize) -> Option<Job> {
        if self.out() >= most {
            return None;
        }
        let job = self.pop()?;
        self.offered.insert(name(&job), job.clone());
        Some(job)
    }

    /// Nobody waits for an attempt any more; `false` when it is not here.
    pub(super) fn recall(&mut self, name: &Name) -> bool {
        if let Some(lease) = self.leased.get_mut(name) {
            lease.cancelled = true;
            return true;
        }
        // One that waits is left out when its turn comes.
        self.offered.remove(name).is_some() || self.wanted.remove(name)
    }

    /// Takes out the leases that have run out; `false` when there are none.
    pub(super) fn expire(&mut self, now_us: u64, expired: &mut Vec<Expired>) -> bool {
        let before = self.leased.len();
        let gone = self.leased.extract_if(.., |_, lease| lease.expires_us <= now_us);
        expired.extend(gone.filter(|(_, lease)| !lease.cancelled).map(|((run_id, seq), lease)| Expired {
            run_id,
            seq,
            place: lease.place,
            worker: lease.worker,
            path: lease.path,
            attempt: lease.attempt,
        }));
        self.leased.len() < before
    }

    pub(super) fn waits(&self) -> usize {
        self.wanted.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waits() == 0 && self.offered.is_empty() && self.leased.is_empty()
    }

    pub(super) fn out(&self) -> usize {
        self.offered.len() + self.leased.len()
    }
}

/// A queue, with the part of each workspace.
#[derive(Debug, Default)]
pub(super) struct Line {
    pub(super) parts: BTreeMap<Arc<str>, Queue>,
    pub(super) turns: Turns,
    /// For those who serve all workspaces.
    pub(super) news: Arc<Notify>,
}

impl Line {
    /// To be called after every change of a part: whether it has a job to give, and who is to be told.
    pub(super) fn changed(&mut self, workspace: &Arc<str>, most: usize) {
        let Some(part) = self.parts.get(workspace) else { return self.turns.note(workspace, false) };
        let has_job = part.waits() > 0 && part.out() < most;
        self.turns.note(workspace, has_job);
        if has_job {
            // One wake for many jobs: whoever is woken and takes some comes here, and wakes the next.
            part.news.notify_one();
            self.news.notify_one();
        }
        if part.is_empty() && Arc::strong_count(&part.news) == 1 {
            // Where nothing is and nobody waits it takes no memory.
            self.parts.remove(workspace);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.parts.is_empty() && Arc::strong_count(&self.news) == 1
    }
}
