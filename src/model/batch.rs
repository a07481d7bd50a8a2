//! Batches: one action on many runs, as it is written down, and how far it has come.
//!
//! A batch goes through the runs that fit its filter from the newest to the oldest. `before` is where the next listing goes on,
//! `page` what was listed and is not dealt with. Both are moved by [`Batch::take`] and [`Batch::note`] only, so whoever finds the
//! row after a crash goes on where it was. A run of `page` may have been dealt with already: what is done to it must bear that.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{RunFilter, RunId, Status};
use crate::limits;
use crate::time::Timestamp;

const SCHEME: &str = "batch_";

/// What a batch is called. Ids sort by the millisecond in which they were made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct BatchId([u8; 16]);

/// The text is not `batch_` and 32 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a batch: `batch_` and 32 digits 0-9 a-f are expected")]
pub struct BatchIdError;

impl BatchId {
    /// A new id.
    pub fn new(now: Timestamp, random: [u8; 16]) -> Self {
        let mut bytes = random;
        let millis = now.as_millis().to_be_bytes();
        for (byte, from) in bytes.iter_mut().zip(millis.iter().skip(2)) {
            *byte = *from;
        }
        Self(bytes)
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// A text that sorts the newest first.
    pub fn newest_first(self) -> String {
        self.0.iter().map(|byte| format!("{:02x}", !byte)).collect()
    }
}

impl fmt::Display for BatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(SCHEME)?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for BatchId {
    type Err = BatchIdError;

    fn from_str(text: &str) -> Result<Self, BatchIdError> {
        let digits = text.strip_prefix(SCHEME).filter(|digits| digits.len() == 32).ok_or(BatchIdError)?;
        let digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if !digits.as_bytes().iter().all(digit) {
            return Err(BatchIdError);
        }
        let number = u128::from_str_radix(digits, 16).map_err(|_| BatchIdError)?;
        Ok(Self(number.to_be_bytes()))
    }
}

/// What is done to each run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// What is under way is told, and waited for.
    Cancel,
    /// Cancelled without waiting.
    Terminate,
    /// Nothing of it starts.
    Pause,
    /// It goes on.
    Resume,
    /// A new run does its work again from the beginning.
    Retry,
    /// It is forgotten.
    Delete,
}

impl Action {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Cancel, Self::Terminate, Self::Pause, Self::Resume, Self::Retry, Self::Delete];

    /// Lower case, as in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cancel => "cancel",
            Self::Terminate => "terminate",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Retry => "retry",
            Self::Delete => "delete",
        }
    }

    /// Do events of the run carry a reason for it?
    pub fn has_reason(self) -> bool {
        matches!(self, Self::Cancel | Self::Terminate | Self::Pause)
    }

    /// What it is for. A run in another status is passed over.
    pub fn fits(self, status: Status) -> bool {
        self.statuses().contains(&status)
    }

    /// The statuses that it is for: those looked through when a filter names none.
    pub fn statuses(self) -> &'static [Status] {
        match self {
            Self::Cancel | Self::Terminate => &[Status::Pending, Status::Running, Status::Paused],
            Self::Pause => &[Status::Pending, Status::Running],
            Self::Resume => &[Status::Paused],
            Self::Retry => &[Status::Failed, Status::Cancelled],
            Self::Delete => &[Status::Completed, Status::Failed, Status::Cancelled],
        }
    }

    /// Would a run in this status be so by the action? Where that is asked, the run fitted before.
    pub fn has_made(self, status: Status) -> bool {
        match self {
            Self::Cancel | Self::Terminate => status == Status::Cancelled,
            Self::Pause => status == Status::Paused,
            Self::Resume => matches!(status, Status::Pending | Status::Running),
            Self::Retry | Self::Delete => false,
        }
    }
}

/// What is asked for. The same twice is equal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spec {
    /// What to do.
    pub action: Action,
    /// To which runs; its workspace is the one of the batch, and is not written down.
    pub filter: RunFilter,
    /// Why.
    pub reason: Option<Arc<str>>,
    /// Runs at most.
    pub runs_max: u64,
    /// Runs in a second at most.
    pub per_second: u32,
}

/// How far it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// It waits for its turn.
    Queued,
    /// Under way.
    Running,
    /// Every run that was to be looked at was.
    Done,
    /// It was stopped.
    Cancelled,
    /// It cannot go on.
    Failed {
        /// Stable code.
        code: Arc<str>,
        /// In words.
        detail: Arc<str>,
    },
}

impl State {
    /// Lower case, as in JSON.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Done => "done",
            Self::Cancelled => "cancelled",
            Self::Failed { .. } => "failed",
        }
    }

    /// Nothing more is done.
    pub fn is_over(&self) -> bool {
        !matches!(self, Self::Queued | Self::Running)
    }
}

/// What became of runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// They fitted the filter when they were listed.
    pub matched: u64,
    /// The action was done.
    pub done: u64,
    /// There was nothing to do.
    pub skipped: u64,
    /// It was refused.
    pub failed: u64,
}

/// What came of one run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Came {
    /// Done.
    Done,
    /// There was nothing to do.
    Skipped,
    /// Refused for good, with this code.
    Failed(Arc<str>),
}

/// One batch, as it is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Batch {
    /// What it is called.
    pub id: BatchId,
    /// What is asked for.
    pub spec: Spec,
    /// By whom.
    pub by: Arc<str>,
    /// Hash of the `Idempotency-Key` that it was made with.
    pub key: Option<[u8; 16]>,
    /// When.
    pub created_at: Timestamp,
    /// When its turn came.
    pub started_at: Option<Timestamp>,
    /// When it was over.
    pub ended_at: Option<Timestamp>,
    /// How far it is.
    pub state: State,
    /// What became of its runs.
    pub counts: Counts,
    /// The first runs that refused, with the code.
    pub failures: Vec<(RunId, Arc<str>)>,
    /// Runs with smaller ids have not been listed; none: all were.
    pub before: Option<RunId>,
    /// Runs that were listed and are still to be dealt with, in order.
    pub page: Vec<RunId>,
    /// It ended at `runs_max`, and there may be more runs.
    pub limited: bool,
    /// Code of the trouble that it waits for the end of.
    pub waits: Option<Arc<str>>,
}

/// What was found by one listing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listed {
    /// Runs that the action is for, in order.
    pub page: Vec<RunId>,
    /// Runs that it is not for.
    pub skipped: u64,
    /// Where the next listing goes on.
    pub next: Option<RunId>,
}

impl Batch {
    /// One that waits for its turn. Runs made after this millisecond are not its concern.
    pub fn new((id, now): (BatchId, Timestamp), spec: Spec, (by, key): (Arc<str>, Option<[u8; 16]>)) -> Self {
        Self {
            id,
            spec,
            by,
            key,
            created_at: now,
            started_at: None,
            ended_at: None,
            state: State::Queued,
            counts: Counts::default(),
            failures: Vec::new(),
            before: Some(RunId::first_of(now.as_millis().saturating_add(1))),
            page: Vec::new(),
            limited: false,
            waits: None,
        }
    }

    /// Why its runs are steered: what their events say.
    pub fn reason(&self) -> Arc<str> {
        reason(self.id, self.spec.reason.as_deref()).into()
    }

    /// Its turn has come. One that is under way, or over, stays so.
    pub fn begin(&mut self, now: Timestamp) {
        if self.state == State::Queued {
            (self.state, self.started_at) = (State::Running, Some(now));
        }
    }

    /// How many runs the next listing may give at most.
    pub fn room(&self) -> usize {
        let left = self.spec.runs_max.saturating_sub(self.counts.matched);
        usize::try_from(left).unwrap_or(usize::MAX).min(limits::BATCH_PAGE_RUNS)
    }

    /// Takes what was listed. It is over when that was the last.
    pub fn take(&mut self, listed: Listed, now: Timestamp) {
        if self.state.is_over() {
            return;
        }
        self.counts.matched += listed.page.len() as u64 + listed.skipped;
        self.counts.skipped += listed.skipped;
        (self.page, self.before, self.waits) = (listed.page, listed.next, None);
        if self.before.is_some() && self.counts.matched >= self.spec.runs_max {
            (self.before, self.limited) = (None, true);
        }
        self.end_when_done(now);
    }

    /// Takes what came of the first runs of the page. Of one that was stopped meanwhile it counts all the same.
    pub fn note(&mut self, came: Vec<(RunId, Came)>, waits: Option<Arc<str>>, now: Timestamp) {
        for (run_id, came) in came {
            if self.page.first() == Some(&run_id) {
                self.page.remove(0);
            }
            match came {
                Came::Done => self.counts.done += 1,
                Came::Skipped => self.counts.skipped += 1,
                Came::Failed(code) => {
                    self.counts.failed += 1;
                    if self.failures.len() < limits::BATCH_FAILURES_KEPT {
                        self.failures.push((run_id, code));
                    }
                }
            }
        }
        if !self.state.is_over() {
            self.waits = waits;
            self.end_when_done(now);
        }
    }

    fn end_when_done(&mut self, now: Timestamp) {
        if self.page.is_empty() && self.before.is_none() {
            self.end(State::Done, now);
        }
    }

    /// It is over.
    pub fn end(&mut self, state: State, now: Timestamp) {
        if !self.state.is_over() {
            (self.state, self.ended_at, self.waits) = (state, Some(now), None);
        }
    }
}

/// What events of runs say of a batch.
pub fn reason(id: BatchId, why: Option<&str>) -> String {
    match why.filter(|why| !why.is_empty()) {
        Some(why) => format!("batch {id}: {why}"),
        None => format!("batch {id}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Partition;
    use super::*;

    const GOLDEN: &str = "0000000186a0070707070707070707070001017700000104000001037768790a0a03616e6e0080c2d72f000000020001000001000000001b587700870707070707070701000000002328790089090909090909090000";

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    fn run(n: u8) -> RunId {
        RunId::new(at(u64::from(n)), Partition::new(0), [n; 10])
    }

    fn batch(runs_max: u64) -> Batch {
        let spec = Spec {
            action: Action::Cancel,
            filter: RunFilter::default(),
            reason: Some("why".into()),
            runs_max,
            per_second: 10,
        };
        Batch::new((BatchId::new(at(100), [7; 16]), at(100)), spec, ("ann".into(), None))
    }

    fn listed(runs: &[u8], skipped: u64, next: Option<u8>) -> Listed {
        Listed { page: runs.iter().copied().map(run).collect(), skipped, next: next.map(run) }
    }

    #[test]
    fn an_id_is_read_as_it_is_shown_and_sorts_by_its_time() {
        let (older, newer) = (BatchId::new(at(1), [9; 16]), BatchId::new(at(2), [0; 16]));
        assert!(older < newer && older.newest_first() > newer.newest_first());
        assert_eq!(older.to_string().parse(), Ok(older));
        for wrong in ["", "batch_", &older.to_string()[1..], &older.to_string().to_uppercase()] {
            assert_eq!(wrong.parse::<BatchId>(), Err(BatchIdError), "{wrong}");
        }
    }

    #[test]
    fn it_goes_page_by_page_and_ends_with_the_last_run_of_the_last() {
        let mut batch = batch(10);
        assert!(batch.before.is_some_and(|before| run(100) < before && before < run(101)));
        batch.begin(at(101));
        batch.take(listed(&[9, 8], 1, Some(7)), at(102));
        assert_eq!((batch.counts.matched, batch.counts.skipped, batch.room()), (3, 1, 7));
        batch.note(vec![(run(9), Came::Done)], Some("shard_queue_full".into()), at(103));
        assert_eq!((&batch.page[..], batch.waits.as_deref()), (&[run(8)][..], Some("shard_queue_full")));
        batch.note(vec![(run(8), Came::Failed("not_forkable".into()))], None, at(104));
        assert_eq!(batch.state, State::Running, "{batch:?}");
        batch.take(listed(&[], 0, None), at(105));
        assert_eq!((&batch.state, batch.ended_at), (&State::Done, Some(at(105))));
        assert_eq!(batch.counts, Counts { matched: 3, done: 1, skipped: 1, failed: 1 });
        assert_eq!(batch.failures, [(run(8), "not_forkable".into())]);
    }

    #[test]
    fn it_ends_at_its_limit_and_says_so() {
        let mut limited = batch(2);
        limited.begin(at(101));
        limited.take(listed(&[9, 8], 0, Some(7)), at(102));
        assert!(limited.limited && !limited.state.is_over());
        limited.note(vec![(run(9), Came::Done), (run(8), Came::Done)], None, at(103));
        assert_eq!((&limited.state, limited.room()), (&State::Done, 0));
        let mut exact = batch(2);
        exact.take(listed(&[9, 8], 0, None), at(102));
        assert!(!exact.limited, "there are no more");
    }

    #[test]
    fn one_that_was_stopped_counts_what_was_under_way_and_takes_no_more() {
        let mut batch = batch(10);
        batch.begin(at(101));
        batch.take(listed(&[9, 8], 0, Some(7)), at(102));
        batch.end(State::Cancelled, at(103));
        batch.note(vec![(run(9), Came::Done)], None, at(104));
        batch.take(listed(&[6], 0, None), at(105));
        assert_eq!((batch.counts.matched, batch.counts.done), (2, 1));
        assert_eq!((&batch.state, batch.ended_at), (&State::Cancelled, Some(at(103))));
    }

    #[test]
    fn only_some_failures_are_kept_and_all_are_counted() {
        let mut batch = batch(10_000);
        let many = limits::BATCH_FAILURES_KEPT as u64 + 5;
        for n in 0..many {
            batch.note(vec![(run(u8::try_from(n % 250).unwrap()), Came::Failed("x".into()))], None, at(1));
        }
        assert_eq!((batch.counts.failed, batch.failures.len()), (many, limits::BATCH_FAILURES_KEPT));
    }

    // Whoever changes this changes the format of rows (docs/formats/triggers.md): old ones cannot be read then.
    #[test]
    fn a_row_is_written_as_it_always_was() {
        let mut batch = batch(10);
        batch.spec.filter.statuses = vec![Status::Failed];
        batch.spec.filter.workflow = Some("w".into());
        batch.take(listed(&[9], 1, Some(7)), at(102));
        let row = postcard::to_stdvec(&batch).unwrap();
        let digits: String = row.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(digits, GOLDEN);
        assert_eq!(postcard::from_bytes::<Batch>(&row).unwrap(), batch);
    }

    #[test]
    fn an_action_is_for_its_statuses_and_its_reason_names_the_batch() {
        for action in Action::ALL {
            assert!(!action.statuses().is_empty());
            assert!(action.statuses().iter().all(|status| action.fits(*status)));
            assert!(!action.statuses().iter().any(|status| action.has_made(*status)), "{action:?}");
        }
        let id = batch(1).id;
        assert_eq!(reason(id, Some("why")), format!("batch {id}: why"));
        assert_eq!(reason(id, Some("")), format!("batch {id}"));
    }
}
