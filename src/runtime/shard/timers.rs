//! Timers of a shard, by due time. Data only: the loop asks what is due and when to look again.

use std::collections::BTreeMap;

use crate::engine::Timer;
use crate::model::RunId;
use crate::time::Timestamp;

/// Names one armed timer, so that it can be disarmed.
pub(super) type TimerKey = (Timestamp, u64);

/// Armed timers in due order; those due at the same time in the order of arming.
#[derive(Debug, Default)]
pub(super) struct Timers {
    armed: BTreeMap<TimerKey, (RunId, Timer)>,
    next: u64,
}

impl Timers {
    /// Arms a timer.
    pub(super) fn arm(&mut self, due: Timestamp, run_id: RunId, timer: Timer) -> TimerKey {
        self.next += 1;
        let key = (due, self.next);
        self.armed.insert(key, (run_id, timer));
        key
    }

    /// Forgets a timer; one that has fired is forgotten already.
    pub(super) fn disarm(&mut self, key: TimerKey) {
        self.armed.remove(&key);
    }

    /// The earliest due time.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        self.armed.first_key_value().map(|((due, _), _)| *due)
    }

    /// Takes the earliest timer if its time has come: never early, once.
    pub(super) fn pop_due(&mut self, now: Timestamp) -> Option<(RunId, Timer)> {
        let first = self.armed.first_entry()?;
        (first.key().0 <= now).then(|| first.remove())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Partition;

    #[test]
    fn timers_fire_in_due_order_never_early_and_once() {
        let at = Timestamp::from_micros;
        let run = |n: u8| RunId::new(at(0), Partition::new(0), [n; 10]);
        let mut timers = Timers::default();
        timers.arm(at(20), run(1), Timer::Deadline);
        timers.arm(at(10), run(2), Timer::Deadline);
        let gone = timers.arm(at(5), run(3), Timer::Deadline);
        timers.disarm(gone);
        assert_eq!(timers.next_due(), Some(at(10)));
        assert!(timers.pop_due(at(9)).is_none());
        assert_eq!(timers.pop_due(at(30)).map(|(id, _)| id), Some(run(2)));
        assert_eq!(timers.pop_due(at(30)).map(|(id, _)| id), Some(run(1)));
        assert!(timers.pop_due(at(30)).is_none());
        assert_eq!(timers.next_due(), None);
    }
}
