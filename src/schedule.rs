//! Schedules: when a workflow is to be started by the clock, and what becomes of each time that it was due.
//!
//! Pure: [`Schedule::advance`] says what to do from the schedule as it was written down, which of its runs live, and the
//! wall clock; whoever calls it writes the schedule down before doing so. `considered` only grows, and each due time up
//! to it has been decided, so no time is decided twice, whatever the clock does. A decided start stands in
//! `decided` until its run is known. History is bounded: the oldest entries go, and equal ones in a row are one.

pub mod calendar;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use calendar::{Calendar, Invalid};

use crate::limits;
use crate::model::RunId;
use crate::time::Timestamp;

/// What to do when a start is due and a run of the schedule lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Overlap {
    /// Nothing.
    #[default]
    Skip,
    /// Start.
    Allow,
    /// Cancel what lives, and start.
    CancelOther,
    /// Start when it has ended; one start waits at most.
    BufferOne,
}

impl Overlap {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Skip, Self::Allow, Self::CancelOther, Self::BufferOne];

    /// As in requests.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Skip => "skip",
            Self::Allow => "allow",
            Self::CancelOther => "cancel_other",
            Self::BufferOne => "buffer_one",
        }
    }
}

/// What its author said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// Unique in its workspace.
    pub name: Arc<str>,
    /// What is started: name, name@version or name@tag, looked up at each start.
    pub workflow: Arc<str>,
    /// Its inputs, as JSON.
    pub inputs: Arc<str>,
    /// When it is due.
    pub cron: Arc<str>,
    /// On whose wall clock.
    pub timezone: Arc<str>,
    /// When a run of it lives.
    pub overlap: Overlap,
    /// Microseconds after which a time that passed unseen is not made up for.
    pub catch_up_us: u64,
    /// Microseconds that a start may be put off, by an amount of its own.
    pub jitter_us: u64,
}

/// A start that was decided, and has to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fire {
    /// When it was due; with the schedule's id it names the start.
    pub due: Timestamp,
    /// Asked for by somebody, not by the clock.
    pub manual: bool,
}

/// What became of a due time, or of several in a row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The first.
    pub due: Timestamp,
    /// The last.
    pub until: Timestamp,
    /// How many; at least so many when [`Outcome::Missed`] says so.
    pub count: u32,
    /// When it was decided, or done.
    pub at: Timestamp,
    /// What.
    pub outcome: Outcome,
}

/// See [`Entry`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// This run was started.
    Started {
        /// Which.
        run_id: RunId,
        /// Somebody asked for it.
        manual: bool,
    },
    /// A run lived.
    Skipped,
    /// A run lived; it is started when that has ended.
    Buffered,
    /// Nobody was there to see it, and it is too late.
    Missed {
        /// There were more than were counted.
        more: bool,
    },
    /// It was refused.
    Failed {
        /// The problem's code.
        code: Arc<str>,
        /// Its sentence.
        detail: Arc<str>,
    },
}

/// A start that was asked for under a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// The key's hash.
    pub key: [u8; 16],
    /// Which start.
    pub due: Timestamp,
    /// Its run, once that is known.
    pub run_id: Option<RunId>,
}

/// Rows that were written before there were keys end without them.
fn asked_or_none<'de, D: serde::Deserializer<'de>>(row: D) -> Result<VecDeque<Asked>, D::Error> {
    Ok(VecDeque::deserialize(row).unwrap_or_default())
}

/// One schedule, as it is written down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    /// What its author said.
    pub spec: Spec,
    /// Another one for each that was ever made.
    pub id: u64,
    /// When it was made.
    pub created_at: Timestamp,
    /// Nothing new is decided.
    pub paused: bool,
    /// Every due time up to this one has been decided.
    pub considered: Timestamp,
    /// A start that waits for a run's end.
    pub buffered: Option<Timestamp>,
    /// Starts to be made.
    pub decided: Vec<Fire>,
    /// Runs of it that are not known to have ended, newest last.
    pub runs: Vec<RunId>,
    /// What became of times that were due, newest last.
    pub history: VecDeque<Entry>,
    /// Starts that were asked for under keys, newest last: for 24 hours at least. Stays the last member.
    #[serde(deserialize_with = "asked_or_none")]
    pub asked: VecDeque<Asked>,
}

/// What [`Schedule::advance`] came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// A start was decided.
    Fire(Fire),
    /// Nothing before then; never when there is no time.
    At(Option<Timestamp>),
    /// There is more to decide at once.
    More,
}

impl Schedule {
    /// A new one, that begins now.
    pub fn new(spec: Spec, id: u64, now: Timestamp) -> Self {
        Self {
            spec,
            id,
            created_at: now,
            paused: false,
            considered: now,
            buffered: None,
            decided: Vec::new(),
            runs: Vec::new(),
            history: VecDeque::new(),
            asked: VecDeque::new(),
        }
    }

    /// When what is due then is started: later by a part of the jitter, the same one each time it is asked.
    pub fn ready(&self, due: Timestamp) -> Timestamp {
        let jitter = self.spec.jitter_us;
        let offset = if jitter == 0 { 0 } else { mix(self.id ^ due.as_micros()) % (jitter + 1) };
        due.saturating_add(Duration::from_micros(offset))
    }

    /// Decides what is due, up to one start. `lives` says it of runs in [`runs`](Self::runs).
    pub fn advance(&mut self, calendar: &Calendar, lives: impl Fn(RunId) -> bool, now: Timestamp) -> Next {
        self.runs.retain(|run_id| lives(*run_id));
        let busy = !self.runs.is_empty();
        if let Some(due) = self.buffered.filter(|_| !busy && !self.paused) {
            self.buffered = None;
            return self.fire(Fire { due, manual: false });
        }
        for _ in 0..limits::SCHEDULE_STEPS_MAX {
            let Some(due) = calendar.next_after(self.considered).filter(|_| !self.paused) else {
                return Next::At(None);
            };
            let ready = self.ready(due);
            if ready > now {
                let look = now.saturating_add(Duration::from_millis(limits::SCHEDULE_LOOK_MILLIS));
                return Next::At(Some(if self.buffered.is_some() { look.min(ready) } else { ready }));
            }
            if self.is_late(due, now) {
                self.miss(calendar, due, now);
                continue;
            }
            self.considered = due;
            match self.spec.overlap {
                Overlap::Skip if busy => self.note(due, now, Outcome::Skipped),
                Overlap::BufferOne if busy && self.buffered.is_some() => {
                    self.note(due, now, Outcome::Skipped);
                }
                Overlap::BufferOne if busy => {
                    self.buffered = Some(due);
                    self.note(due, now, Outcome::Buffered);
                }
                _ => return self.fire(Fire { due, manual: false }),
            }
        }
        Next::More
    }

    /// A start that somebody asks for now, whatever lives; `None` when too many wait to be made.
    pub fn trigger(&mut self, now: Timestamp) -> Option<Fire> {
        if self.decided.len() >= limits::SCHEDULE_RUNS_KEPT_MAX {
            return None;
        }
        let mut due = now;
        let taken = |schedule: &Self, due: Timestamp| {
            schedule.decided.iter().any(|fire| fire.manual && fire.due == due)
                || schedule.asked.iter().any(|asked| asked.due == due)
        };
        while taken(self, due) {
            due = due.saturating_add(Duration::from_micros(1));
        }
        let fire = Fire { due, manual: true };
        self.decided.push(fire);
        Some(fire)
    }

    /// The start that was asked for under this key, as far as it is remembered.
    pub fn triggered(&self, key: &[u8; 16]) -> Option<Asked> {
        self.asked.iter().find(|asked| asked.key == *key).copied()
    }

    /// A start that somebody asks for now under a key that is not remembered; `None` when too many wait to be made, or too many keys
    /// are younger than a day: to forget one of these would be to start again when it is sent again.
    pub fn trigger_once(&mut self, key: [u8; 16], now: Timestamp) -> Option<Fire> {
        let kept = Duration::from_secs(limits::IDEMPOTENCY_KEY_SECONDS);
        let old = self.asked.iter().take_while(|asked| asked.due.saturating_add(kept) <= now).count();
        if self.asked.len() - old >= limits::SCHEDULE_KEYS_MAX {
            return None;
        }
        let fire = self.trigger(now)?;
        self.asked.drain(..old);
        self.asked.push_back(Asked { key, due: fire.due, run_id: None });
        Some(fire)
    }

    /// Decides nothing from now on.
    pub fn pause(&mut self, now: Timestamp) {
        self.paused = true;
        if let Some(due) = self.buffered.take() {
            self.note(due, now, Outcome::Skipped);
        }
    }

    /// Goes on from now: what was due meanwhile is not made up for.
    pub fn resume(&mut self, now: Timestamp) {
        if std::mem::take(&mut self.paused) {
            self.considered = now;
        }
    }

    /// Goes on as its author says now. By another clock or pattern nothing is due that was before.
    pub fn change(&mut self, spec: Spec, paused: bool, now: Timestamp) {
        if spec.cron != self.spec.cron || spec.timezone != self.spec.timezone {
            self.considered = self.considered.max(now);
        }
        if paused && !self.paused {
            self.pause(now);
        } else if !paused {
            self.resume(now);
        }
        self.spec = spec;
    }

    /// What came of a start; false when that was known.
    pub fn settle(&mut self, fire: Fire, outcome: Outcome, now: Timestamp) -> bool {
        let before = self.decided.len();
        self.decided.retain(|other| *other != fire);
        if self.decided.len() == before {
            return false;
        }
        if fire.manual && matches!(outcome, Outcome::Failed { .. }) {
            // Asked for again it is judged anew.
            self.asked.retain(|asked| asked.due != fire.due);
        }
        if let Outcome::Started { run_id, .. } = outcome {
            let same = |asked: &&mut Asked| fire.manual && asked.due == fire.due;
            self.asked.iter_mut().filter(same).for_each(|asked| asked.run_id = Some(run_id));
            self.runs.retain(|other| *other != run_id);
            self.runs.push(run_id);
            let over = self.runs.len().saturating_sub(limits::SCHEDULE_RUNS_KEPT_MAX);
            self.runs.drain(..over);
        }
        self.note(fire.due, now, outcome);
        true
    }

    /// The next times at which it is due.
    pub fn upcoming(&self, calendar: &Calendar, now: Timestamp, count: usize) -> Vec<Timestamp> {
        let from = self.considered.max(now);
        let due = std::iter::successors(calendar.next_after(from), |due| calendar.next_after(*due));
        if self.paused { Vec::new() } else { due.take(count).collect() }
    }

    fn fire(&mut self, fire: Fire) -> Next {
        self.decided.push(fire);
        Next::Fire(fire)
    }

    fn is_late(&self, due: Timestamp, now: Timestamp) -> bool {
        self.ready(due).saturating_add(Duration::from_micros(self.spec.catch_up_us)) < now
    }

    /// Notes that this time and what follows was missed, as far as it is too late for it.
    fn miss(&mut self, calendar: &Calendar, first: Timestamp, now: Timestamp) {
        let (mut last, mut count) = (first, 1);
        let mut next = calendar.next_after(first);
        while let Some(due) = next.filter(|due| self.is_late(*due, now)) {
            if count == limits::SCHEDULE_MISSED_COUNTED_MAX {
                // Whatever is before this is too late by any jitter.
                let before = self.spec.catch_up_us.saturating_add(self.spec.jitter_us).saturating_add(1);
                let all = now.as_micros().saturating_sub(before);
                last = last.max(Timestamp::from_micros(all));
                return self.missed((first, last, count), true, now);
            }
            (last, count) = (due, count + 1);
            next = calendar.next_after(due);
        }
        self.missed((first, last, count), false, now);
    }

    fn missed(&mut self, (due, until, count): (Timestamp, Timestamp, u32), more: bool, now: Timestamp) {
        self.considered = until;
        self.keep(Entry { due, until, count, at: now, outcome: Outcome::Missed { more } });
    }

    fn note(&mut self, due: Timestamp, now: Timestamp, outcome: Outcome) {
        match self.history.back_mut() {
            Some(last) if last.outcome == outcome && outcome == Outcome::Skipped => {
                (last.until, last.at, last.count) = (due, now, last.count.saturating_add(1));
            }
            _ => self.keep(Entry { due, until: due, count: 1, at: now, outcome }),
        }
    }

    fn keep(&mut self, entry: Entry) {
        while self.history.len() >= limits::SCHEDULE_HISTORY_ROWS_MAX {
            self.history.pop_front();
        }
        self.history.push_back(entry);
    }
}

/// Spreads numbers that are alike (splitmix64).
fn mix(number: u64) -> u64 {
    let one = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let two = (one ^ (one >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let three = (two ^ (two >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    three ^ (three >> 31)
}

#[cfg(test)]
mod tests;
