//! Who may begin: the runs that wait for a slot of their key, or for their turn at a rate, and those that have it.
//!
//! Everything here follows from the runs and is made again from them after a restart: a claim is a `run.waiting` (or a
//! `run.resumed`), an admission a `run.admitted`. So nothing here is durable. What must hold: of a key's runs no more than
//! their `max` hold a slot, and a slot is free again only once the end of its run is durable; so no more than `max` runs
//! are under way by their own histories, whenever the node dies. For that the claims of all runs of all shards are
//! [restored](Slots::restore) before the first is [granted](Slots::open).
//!
//! Who goes first: the run with the least `since + ageing x level`, so a run of high priority overtakes, and one of low
//! priority waits no longer than twice the ageing behind any that came after it. The slot is taken first, then the turn at
//! the rate (GCRA): so many at once as `max` says, then one each `per / max`.
//!
//! One book for each workflow, spread over locks that only control cores take, each for a few lookups in maps. As many
//! claims as there are unfinished runs; a full node refuses starts, not claims. A rate's key outlives its runs until its
//! time is over; when [`limits::RATE_KEYS_MAX`] such keys are kept, runs of further keys wait until one is not.

#![expect(
    clippy::disallowed_types,
    reason = "short, between control cores only, and spread over locks (docs/adr/0013)"
)]

mod flow;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use self::flow::{Fading, Flow, Moment};
use crate::model::{Claim, RunId, Seq};

const LOCKS: usize = 16;

/// A run that may begin: it is to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Which.
    pub run_id: RunId,
    /// Number of the event that made its claim.
    pub seq: Seq,
}

/// A key of a rate that is to be looked at again, not before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// Of which workflow.
    pub workflow: Arc<str>,
    /// Which key.
    pub key: Arc<str>,
    /// When, by the clock that `now_us` is of.
    pub at_us: u64,
}

/// What came of a change.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct News {
    /// In this order.
    pub grants: Vec<Grant>,
    /// When to come back.
    pub looks: Vec<Look>,
}

/// For what a run waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A slot of its key.
    Concurrency,
    /// Its turn at the rate of its key.
    Rate,
}

/// Where a waiting run stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// For what it waits.
    pub reason: Reason,
    /// Runs that go before it; [`limits::AHEAD_COUNTED_MAX`](crate::limits::AHEAD_COUNTED_MAX) stands for more.
    pub ahead: usize,
    /// Slots of its key that are taken.
    pub held: usize,
    /// Who has them; the oldest, [`limits::HOLDERS_SHOWN_MAX`](crate::limits::HOLDERS_SHOWN_MAX) at most.
    pub holders: Vec<RunId>,
}

/// Runs of a workflow that had to be admitted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Admitted, and not over.
    pub held: usize,
    /// Waiting for a slot, or to be looked at first.
    pub waiting_concurrency: usize,
    /// Waiting for their turn at a rate.
    pub waiting_rate: usize,
}

impl Counts {
    /// Both together.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        Self {
            held: self.held + other.held,
            waiting_concurrency: self.waiting_concurrency + other.waiting_concurrency,
            waiting_rate: self.waiting_rate + other.waiting_rate,
        }
    }
}

/// All claims of a node.
#[derive(Debug, Default)]
pub struct Slots {
    rooms: [Mutex<Room>; LOCKS],
    /// Every shard's claims are in.
    open: AtomicBool,
    /// There was a node here before.
    restarted: AtomicBool,
    /// When it was opened, if so: what rates had used up by then is not known.
    reopened_us: AtomicU64,
}

#[derive(Debug, Default)]
struct Room {
    flows: BTreeMap<Arc<str>, Flow>,
    /// Rate keys that nobody waits for, by the time from which they mean nothing any more.
    fading: Fading,
}

impl Room {
    /// Two keys whose time is over are forgotten each time: more than come with each claim.
    fn forget_faded(&mut self, moment: &Moment) {
        for _ in 0..2 {
            if self.fading.first().is_none_or(|(faded_ns, ..)| *faded_ns > moment.now_ns) {
                return;
            }
            let Some((_, workflow, key)) = self.fading.pop_first() else { return };
            if let Some(flow) = self.flows.get_mut(&workflow) {
                flow.forget(&key);
                if flow.is_empty() {
                    self.flows.remove(&workflow);
                }
            }
        }
    }
}

impl Slots {
    fn lock(&self, workflow: &str) -> MutexGuard<'_, Room> {
        let sum =
            workflow.bytes().fold(0_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(byte)));
        let at = self.rooms.get(sum % LOCKS).unwrap_or(&self.rooms[0]);
        at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn moment(&self, now_us: u64) -> Moment {
        Moment {
            now_ns: now_us.saturating_mul(1_000),
            reopened_ns: self.reopened_us.load(Ordering::Acquire).saturating_mul(1_000),
            open: self.open.load(Ordering::Acquire),
            fading_max: crate::limits::RATE_KEYS_MAX / LOCKS,
        }
    }

    /// Does something with the book of a workflow; one that is empty afterwards is thrown away.
    fn with<T>(
        &self,
        workflow: &Arc<str>,
        moment: &Moment,
        change: impl FnOnce(&mut Flow, &mut Fading) -> T,
    ) -> T {
        let mut room = self.lock(workflow);
        room.forget_faded(moment);
        let Room { flows, fading } = &mut *room;
        let flow = flows.entry(workflow.clone()).or_default();
        let done = change(flow, fading);
        if flow.is_empty() {
            flows.remove(workflow);
        }
        done
    }

    /// A claim that was made before the node started; `held` when it was admitted. Before [`open`](Self::open) only.
    pub fn restore(&self, run_id: RunId, claim: Claim, held: bool) {
        let workflow = claim.workflow.clone();
        // Nobody stands in line before it is known when the node was opened: the rates' keys are made then.
        self.with(&workflow, &self.moment(0), |flow, _| match held {
            true => flow.hold(run_id, claim),
            false => drop(flow.ask(run_id, claim)),
        });
    }

    /// There was a node here before this one.
    pub fn restarted(&self) {
        self.restarted.store(true, Ordering::Release);
    }

    /// Every shard's claims are in: from now on runs are admitted. After a restart a rate's key counts as if as many as
    /// may had just been admitted, for nobody remembers how many were.
    pub fn open(&self, now_us: u64) -> News {
        if self.restarted.load(Ordering::Acquire) {
            self.reopened_us.store(now_us.max(1), Ordering::Release);
        }
        self.open.store(true, Ordering::Release);
        let moment = self.moment(now_us);
        let mut news = News::default();
        for room in &self.rooms {
            let mut room = room.lock().unwrap_or_else(PoisonError::into_inner);
            let Room { flows, fading } = &mut *room;
            for (workflow, flow) in flows {
                flow.enter_all(is_below, fading, &moment);
                flow.settle(workflow, fading, &moment, &mut news);
            }
        }
        news
    }

    /// A run asks. True when it must be looked at first: it is a child, and may wait for what a run above it has. One that
    /// asked before stays where it is.
    pub fn ask(&self, run_id: RunId, claim: Claim, now_us: u64) -> (bool, News) {
        let (below, workflow) = (is_below(&claim), claim.workflow.clone());
        self.with(&workflow, &self.moment(now_us), |flow, _| flow.ask(run_id, claim));
        if below {
            return (true, News::default());
        }
        (false, self.looked_at(run_id, &workflow, now_us))
    }

    /// Nothing speaks against the run's claim: it gets its place in the line.
    pub fn looked_at(&self, run_id: RunId, workflow: &Arc<str>, now_us: u64) -> News {
        let moment = self.moment(now_us);
        let mut news = News::default();
        self.with(workflow, &moment, |flow, fading| {
            if let Some(key) = flow.enter(run_id, fading, &moment) {
                flow.settle_key(workflow, &key, (fading, &moment), &mut news);
            }
        });
        news
    }

    /// The run has ended, or waits no more: what it had is free.
    pub fn release(&self, run_id: RunId, workflow: &Arc<str>, now_us: u64) -> News {
        let moment = self.moment(now_us);
        let mut news = News::default();
        self.with(workflow, &moment, |flow, fading| {
            if let Some(key) = flow.leave(run_id, fading, &moment) {
                flow.settle_key(workflow, &key, (fading, &moment), &mut news);
            }
        });
        news
    }

    /// The time of a [`Look`] has come.
    pub fn look(&self, look: &Look, now_us: u64) -> News {
        let moment = self.moment(now_us);
        let mut news = News::default();
        self.with(&look.workflow, &moment, |flow, fading| {
            flow.looked(&look.key, &moment);
            let key = flow::Key::Rate(look.key.clone());
            flow.settle_key(&look.workflow, &key, (fading, &moment), &mut news);
        });
        news
    }

    /// Where a run stands; `None` when it does not wait here.
    pub fn standing(&self, run_id: RunId, workflow: &str) -> Option<Standing> {
        self.lock(workflow).flows.get(workflow)?.standing(run_id)
    }

    /// By workflow, by its name inside the node.
    pub fn counts(&self) -> Vec<(Arc<str>, Counts)> {
        let mut counts = Vec::new();
        for room in &self.rooms {
            let room = room.lock().unwrap_or_else(PoisonError::into_inner);
            let told = room.flows.iter().filter(|(_, flow)| flow.counts != Counts::default());
            counts.extend(told.map(|(workflow, flow)| (workflow.clone(), flow.counts.clone())));
        }
        counts.sort_by(|(a, _), (b, _)| a.cmp(b));
        counts
    }
}

/// May the run wait for what a run above it has?
fn is_below(claim: &Claim) -> bool {
    claim.parent.is_some() && claim.wanted.concurrency.is_some()
}

#[cfg(test)]
mod tests;
