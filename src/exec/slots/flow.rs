//! The book of one workflow: its claims, the line of each key, the pace of each rate's key.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Counts, Grant, Look, News, Reason, Standing};
use crate::limits;
use crate::model::{Claim, Priority, Rate, RunId};

/// Rate keys that nobody waits for: when their time is over, workflow, key.
pub(super) type Fading = BTreeSet<(u64, Arc<str>, Arc<str>)>;
/// What decides who goes first, and the run.
type Place = (u64, RunId);

/// What is true while a book is worked on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    pub(super) now_ns: u64,
    /// 0 when nobody was here before.
    pub(super) reopened_ns: u64,
    pub(super) open: bool,
    pub(super) fading_max: usize,
}

/// A line or a pace of the workflow.
#[derive(Clone, Debug)]
pub(super) enum Key {
    Concurrency(Arc<str>),
    Rate(Arc<str>),
}

/// Where a claim stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// It has to be looked at first.
    New,
    /// In the line for a slot.
    Slot,
    /// In the line for a turn; it has its slot.
    Turn,
    /// It may begin, or has begun.
    Admitted,
}

#[derive(Debug)]
struct Entry {
    claim: Claim,
    stage: Stage,
}

#[derive(Debug, Default)]
struct Line {
    held: BTreeSet<RunId>,
    waiting: BTreeSet<Place>,
}

/// A rate's key: the generic cell rate algorithm.
#[derive(Debug)]
struct Pace {
    /// The theoretical arrival time: when what was admitted so far is used up.
    tat_ns: u64,
    waiting: BTreeSet<Place>,
    /// When somebody comes to look again.
    look_ns: Option<u64>,
}

#[derive(Debug, Default)]
pub(super) struct Flow {
    claims: BTreeMap<RunId, Entry>,
    lines: BTreeMap<Arc<str>, Line>,
    paces: BTreeMap<Arc<str>, Pace>,
    pub(super) counts: Counts,
}

/// Nanoseconds between two turns, and how far ahead of its time a turn may be taken.
fn spacing(rate: &Rate) -> (u64, u64) {
    let per = u64::try_from(rate.per.as_nanos()).unwrap_or(u64::MAX);
    let between = per.div_ceil(u64::from(rate.max.max(1)));
    (between, between.saturating_mul(u64::from(rate.max.saturating_sub(1))))
}

/// Microseconds that a level of priority is worth.
const AGEING_US: u64 = limits::ADMISSION_AGEING_SECONDS * 1_000_000;

fn place(run_id: RunId, claim: &Claim) -> Place {
    let level = match claim.priority {
        Priority::High => 0,
        Priority::Medium => 1,
        Priority::Low => 2,
    };
    (claim.since.as_micros().saturating_add(AGEING_US.saturating_mul(level)), run_id)
}

fn concurrency(claim: &Claim) -> Option<&Arc<str>> {
    claim.wanted.concurrency.as_ref().map(|concurrency| &concurrency.key)
}

impl Flow {
    pub(super) fn is_empty(&self) -> bool {
        self.claims.is_empty() && self.lines.is_empty() && self.paces.is_empty()
    }

    /// A new claim, outside of every line. False when it is here already.
    pub(super) fn ask(&mut self, run_id: RunId, claim: Claim) -> bool {
        if self.claims.contains_key(&run_id) {
            return false;
        }
        self.counts.waiting_concurrency += 1;
        self.claims.insert(run_id, Entry { claim, stage: Stage::New });
        true
    }

    /// A run that was admitted before the node started.
    pub(super) fn hold(&mut self, run_id: RunId, claim: Claim) {
        if let Some(key) = concurrency(&claim) {
            self.lines.entry(key.clone()).or_default().held.insert(run_id);
        }
        self.counts.held += 1;
        self.claims.insert(run_id, Entry { claim, stage: Stage::Admitted });
    }

    /// Moves a claim on; the counts follow.
    fn go(&mut self, run_id: RunId, stage: Stage) {
        let Some(entry) = self.claims.get_mut(&run_id) else { return };
        let before = std::mem::replace(&mut entry.stage, stage);
        for (stage, enters) in [(before, false), (stage, true)] {
            let count = match stage {
                Stage::New | Stage::Slot => &mut self.counts.waiting_concurrency,
                Stage::Turn => &mut self.counts.waiting_rate,
                Stage::Admitted => &mut self.counts.held,
            };
            *count = if enters { *count + 1 } else { count.saturating_sub(1) };
        }
    }

    /// Puts a new claim into its line; gives the key that may have become settled by it.
    pub(super) fn enter(&mut self, run_id: RunId, fading: &mut Fading, moment: &Moment) -> Option<Key> {
        let entry = self.claims.get(&run_id).filter(|entry| entry.stage == Stage::New)?;
        let place = place(run_id, &entry.claim);
        if let Some(key) = concurrency(&entry.claim).cloned() {
            self.lines.entry(key.clone()).or_default().waiting.insert(place);
            self.go(run_id, Stage::Slot);
            return Some(Key::Concurrency(key));
        }
        self.take_turn(run_id, place, fading, moment).map(Key::Rate)
    }

    /// Puts all new claims into their lines, but for those that have to be looked at.
    pub(super) fn enter_all(
        &mut self,
        is_below: impl Fn(&Claim) -> bool,
        fading: &mut Fading,
        moment: &Moment,
    ) {
        let new =
            self.claims.iter().filter(|(_, entry)| entry.stage == Stage::New && !is_below(&entry.claim));
        let new: Vec<RunId> = new.map(|(run_id, _)| *run_id).collect();
        for run_id in new {
            self.enter(run_id, fading, moment);
        }
    }

    /// Puts a claim that has its slot into the line for its turn.
    fn take_turn(
        &mut self,
        run_id: RunId,
        place: Place,
        fading: &mut Fading,
        moment: &Moment,
    ) -> Option<Arc<str>> {
        let claim = &self.claims.get(&run_id)?.claim;
        let rate = claim.wanted.rate.as_ref()?;
        let (key, workflow) = (rate.key.clone(), claim.workflow.clone());
        let pace = self.paces.entry(key.clone()).or_insert_with(|| {
            let (between, ahead) = spacing(rate);
            let used_up = moment.reopened_ns.saturating_add(between).saturating_add(ahead);
            let tat_ns = if moment.reopened_ns == 0 { 0 } else { used_up };
            Pace { tat_ns, waiting: BTreeSet::new(), look_ns: None }
        });
        if pace.waiting.is_empty() {
            fading.remove(&(pace.tat_ns, workflow, key.clone()));
        }
        pace.waiting.insert(place);
        self.go(run_id, Stage::Turn);
        Some(key)
    }

    /// Takes a claim out; gives the key that may admit another now.
    pub(super) fn leave(&mut self, run_id: RunId, fading: &mut Fading, moment: &Moment) -> Option<Key> {
        let stage = self.claims.get(&run_id)?.stage;
        self.go(run_id, Stage::New);
        self.counts.waiting_concurrency = self.counts.waiting_concurrency.saturating_sub(1);
        let Entry { claim, .. } = self.claims.remove(&run_id)?;
        let place = place(run_id, &claim);
        let mut freed = None;
        if stage == Stage::Turn
            && let Some(rate) = &claim.wanted.rate
            && let Some(pace) = self.paces.get_mut(&rate.key)
        {
            pace.waiting.remove(&place);
            freed = Some(Key::Rate(rate.key.clone()));
            self.fade(&claim.workflow, &rate.key, fading, moment);
        }
        if let Some(key) = concurrency(&claim)
            && let Some(line) = self.lines.get_mut(key)
        {
            line.waiting.remove(&place);
            line.held.remove(&run_id);
            freed = Some(Key::Concurrency(key.clone()));
        }
        freed
    }

    /// Everything that may be admitted, is.
    pub(super) fn settle(
        &mut self,
        workflow: &Arc<str>,
        fading: &mut Fading,
        moment: &Moment,
        news: &mut News,
    ) {
        let lines = self.lines.keys().cloned().map(Key::Concurrency);
        let keys: Vec<Key> = lines.chain(self.paces.keys().cloned().map(Key::Rate)).collect();
        for key in keys {
            self.settle_key(workflow, &key, (fading, moment), news);
        }
    }

    /// Admits who may be admitted under this key.
    pub(super) fn settle_key(
        &mut self,
        workflow: &Arc<str>,
        key: &Key,
        (fading, moment): (&mut Fading, &Moment),
        news: &mut News,
    ) {
        if !moment.open {
            return;
        }
        match key {
            Key::Rate(key) => self.settle_pace(workflow, key, (fading, moment), news),
            Key::Concurrency(key) => {
                let mut paces = BTreeSet::new();
                while let Some((run_id, place)) = self.next_in_line(key) {
                    match self.take_turn(run_id, place, fading, moment) {
                        Some(pace) => drop(paces.insert(pace)),
                        None => self.admit(run_id, news),
                    }
                }
                if self.lines.get(key).is_some_and(|line| line.held.is_empty() && line.waiting.is_empty()) {
                    self.lines.remove(key);
                }
                for pace in paces {
                    self.settle_pace(workflow, &pace, (fading, moment), news);
                }
            }
        }
    }

    /// Gives a slot to the first of the line, when one is free.
    fn next_in_line(&mut self, key: &Arc<str>) -> Option<(RunId, Place)> {
        let line = self.lines.get_mut(key)?;
        let place = *line.waiting.first()?;
        let wanted = &self.claims.get(&place.1)?.claim.wanted;
        let max = wanted.concurrency.as_ref().map_or(0, |concurrency| concurrency.max as usize);
        if line.held.len() >= max {
            return None;
        }
        line.waiting.pop_first();
        line.held.insert(place.1);
        Some((place.1, place))
    }

    fn admit(&mut self, run_id: RunId, news: &mut News) {
        self.go(run_id, Stage::Admitted);
        if let Some(entry) = self.claims.get(&run_id) {
            news.grants.push(Grant { run_id, seq: entry.claim.seq });
        }
    }

    fn settle_pace(
        &mut self,
        workflow: &Arc<str>,
        key: &Arc<str>,
        (fading, moment): (&mut Fading, &Moment),
        news: &mut News,
    ) {
        loop {
            let Some(pace) = self.paces.get_mut(key) else { return };
            let Some((_, first)) = pace.waiting.first().copied() else { break };
            let rate = self.claims.get(&first).and_then(|entry| entry.claim.wanted.rate.as_ref());
            let Some((between, ahead)) = rate.map(spacing) else { break };
            let full = fading.len() >= moment.fading_max;
            let room_ns = fading.first().filter(|_| full).map_or(0, |(faded_ns, ..)| *faded_ns);
            let due_ns = pace.tat_ns.saturating_sub(ahead).max(room_ns);
            if due_ns > moment.now_ns {
                if pace.look_ns.is_none_or(|look_ns| due_ns < look_ns) {
                    pace.look_ns = Some(due_ns);
                    let at_us = due_ns.div_ceil(1_000);
                    news.looks.push(Look { workflow: workflow.clone(), key: key.clone(), at_us });
                }
                return;
            }
            pace.tat_ns = pace.tat_ns.max(moment.now_ns).saturating_add(between);
            pace.waiting.pop_first();
            self.admit(first, news);
        }
        self.fade(workflow, key, fading, moment);
    }

    /// Somebody came to look.
    pub(super) fn looked(&mut self, key: &Arc<str>, moment: &Moment) {
        if let Some(pace) = self.paces.get_mut(key) {
            pace.look_ns = pace.look_ns.filter(|look_ns| *look_ns > moment.now_ns);
        }
    }

    /// A key that nobody waits for is kept until its time is over.
    fn fade(&mut self, workflow: &Arc<str>, key: &Arc<str>, fading: &mut Fading, moment: &Moment) {
        let Some(pace) = self.paces.get(key).filter(|pace| pace.waiting.is_empty()) else { return };
        if pace.tat_ns <= moment.now_ns {
            self.paces.remove(key);
        } else {
            fading.insert((pace.tat_ns, workflow.clone(), key.clone()));
        }
    }

    /// The time of a key that nobody waits for is over.
    pub(super) fn forget(&mut self, key: &Arc<str>) {
        if self.paces.get(key).is_some_and(|pace| pace.waiting.is_empty()) {
            self.paces.remove(key);
        }
    }

    pub(super) fn standing(&self, run_id: RunId) -> Option<Standing> {
        let entry = self.claims.get(&run_id)?;
        let line = concurrency(&entry.claim).and_then(|key| self.lines.get(key));
        let rate = entry.claim.wanted.rate.as_ref();
        let place = place(run_id, &entry.claim);
        let (reason, waiting) = match entry.stage {
            Stage::Admitted => return None,
            Stage::Turn => {
                (Reason::Rate, rate.and_then(|rate| self.paces.get(&rate.key)).map(|pace| &pace.waiting))
            }
            Stage::New | Stage::Slot if concurrency(&entry.claim).is_none() => (Reason::Rate, None),
            Stage::New | Stage::Slot => (Reason::Concurrency, line.map(|line| &line.waiting)),
        };
        let ahead =
            waiting.map_or(0, |waiting| waiting.range(..place).take(limits::AHEAD_COUNTED_MAX).count());
        let held = line.map(|line| &line.held);
        let holders = held.into_iter().flatten().take(limits::HOLDERS_SHOWN_MAX).copied().collect();
        Some(Standing { reason, ahead, held: held.map_or(0, BTreeSet::len), holders })
    }
}
