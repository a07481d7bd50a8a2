//! The runs of a shard that can go on without anyone, by priority.
//!
//! Each level is first in, first out. While all have work, the levels share the turns 16 : 4 : 1 (F047): each has that
//! many credits, a turn takes one, the most urgent level that still has both work and a credit is next, and when none
//! has both, all get their credits again. So high goes first, a level without work costs the others nothing, and
//! between two turns of a level lie at most the credits of the other two: nothing is left lying for ever. All of it is
//! decided by what was pushed and popped, so that a shard behaves the same every time.
//!
//! Taking and putting are O(1). A run stands in it once (`Entry::queued`), so it holds no more than the shard has runs.

use std::collections::VecDeque;

use crate::model::{Priority, RunId};

/// Turns that each level gets while all have work, the most urgent first.
const CREDITS: [u32; LEVELS] = [16, 4, 1];
const LEVELS: usize = Priority::ALL.len();

/// Runs that can go on.
#[derive(Debug, Default)]
pub(super) struct WorkQueue {
    levels: [Level; LEVELS],
}

#[derive(Debug, Default)]
struct Level {
    runs: VecDeque<RunId>,
    credits: u32,
}

impl WorkQueue {
    /// Puts a run behind the others of its level.
    pub(super) fn push(&mut self, run_id: RunId, priority: Priority) {
        let [high, medium, low] = &mut self.levels;
        let level = match priority {
            Priority::High => high,
            Priority::Medium => medium,
            Priority::Low => low,
        };
        level.runs.push_back(run_id);
    }

    /// The run whose turn it is.
    pub(super) fn pop(&mut self) -> Option<RunId> {
        if let Some(run_id) = self.pop_with_credit() {
            return Some(run_id);
        }
        for (level, credits) in self.levels.iter_mut().zip(CREDITS) {
            level.credits = credits;
        }
        self.pop_with_credit()
    }

    /// Is there nothing to do?
    pub(super) fn is_empty(&self) -> bool {
        self.levels.iter().all(|level| level.runs.is_empty())
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        for level in &mut self.levels {
            level.runs.clear();
        }
    }

    fn pop_with_credit(&mut self) -> Option<RunId> {
        let level = self.levels.iter_mut().find(|level| level.credits > 0 && !level.runs.is_empty())?;
        level.credits -= 1;
        level.runs.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use Priority::{High, Low, Medium};

    use super::*;
    use crate::model::Partition;
    use crate::time::Timestamp;

    fn run(number: u32) -> RunId {
        let mut random = [0; 10];
        random[6..].copy_from_slice(&number.to_be_bytes());
        RunId::new(Timestamp::from_micros(0), Partition::new(0), random)
    }

    fn queue(counts: [(Priority, u32); 3]) -> WorkQueue {
        let mut queue = WorkQueue::default();
        for (level, (priority, count)) in counts.into_iter().enumerate() {
            (0..count).for_each(|n| queue.push(run(1_000_000 * level as u32 + n), priority));
        }
        queue
    }

    fn order(queue: &mut WorkQueue, count: usize, of: &[RunId]) -> Vec<Option<usize>> {
        (0..count).map(|_| queue.pop().and_then(|popped| of.iter().position(|run| *run == popped))).collect()
    }

    // F047
    #[test]
    fn high_goes_first_and_each_level_is_in_order() {
        let mut queue = WorkQueue::default();
        for (number, priority) in [Low, Medium, High, Low, Medium, High].into_iter().enumerate() {
            queue.push(run(number as u32), priority);
        }
        assert!(!queue.is_empty());
        let runs: Vec<_> = (0..6).map(run).collect();
        assert_eq!(order(&mut queue, 7, &runs), [Some(2), Some(5), Some(1), Some(4), Some(0), Some(3), None]);
        assert!(queue.is_empty());
    }

    // F047
    #[test]
    fn low_is_not_starved_by_high_and_medium_that_never_run_dry() {
        let mut queue = queue([(High, 1), (Medium, 1), (Low, 50)]);
        let (mut since_low, mut lows, mut highs, mut mediums) = (0, 0, 0, 0);
        while lows < 50 {
            let popped = queue.pop().unwrap();
            since_low += 1;
            if popped == run(0) {
                highs += 1;
                queue.push(popped, High);
            } else if popped == run(1_000_000) {
                mediums += 1;
                queue.push(popped, Medium);
            } else {
                assert_eq!(popped, run(2_000_000 + lows), "the oldest of its level");
                assert!(since_low <= 21, "{since_low} turns passed before low had one");
                (since_low, lows) = (0, lows + 1);
            }
        }
        assert_eq!((highs, mediums, lows), (50 * 16, 50 * 4, 50));
    }

    // F047
    #[test]
    fn a_level_that_was_idle_is_not_made_to_wait_and_one_that_is_alone_gets_every_turn() {
        let mut queue = queue([(High, 0), (Medium, 0), (Low, 1_000)]);
        (0..999).for_each(|n| assert_eq!(queue.pop(), Some(run(2_000_000 + n))));
        queue.push(run(7), High);
        assert_eq!(queue.pop(), Some(run(7)));
        queue.push(run(8), Medium);
        queue.clear();
        assert!(queue.is_empty() && queue.pop().is_none());
    }
}
