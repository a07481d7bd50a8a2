//! Timers of a shard: a [`Wheel`] of what each run waits for. Data only: the loop asks what is due and when to look again.

use crate::engine::Timer;
use crate::model::RunId;
use crate::runtime::wheel::{Key, Wheel};
use crate::time::Timestamp;

/// Names one armed timer, so that it can be disarmed.
pub(super) type TimerKey = Key;

/// Moves of timers within the wheel for each timer that the loop would fire in a turn. A timer moves seven times in its
/// life at most, mostly less; what is left is done in the next turn.
const STEPS_PER_TIMER: usize = 4;

/// Armed timers; they come out in due order, those due at the same time in the order of arming.
#[derive(Debug, Default)]
pub(super) struct Timers {
    wheel: Wheel<(RunId, Timer)>,
}

/// How much one turn may do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turn {
    timers: usize,
    steps: usize,
}

impl Turn {
    /// At most `timers` fire, and the wheel does work in proportion.
    pub(super) fn of(timers: usize) -> Self {
        Self { timers, steps: timers.saturating_mul(STEPS_PER_TIMER) }
    }
}

impl Timers {
    /// Arms a timer.
    pub(super) fn arm(&mut self, due: Timestamp, run_id: RunId, timer: Timer) -> TimerKey {
        self.wheel.arm(due, (run_id, timer))
    }

    /// Forgets a timer; one that has fired is forgotten already.
    pub(super) fn disarm(&mut self, key: TimerKey) {
        self.wheel.disarm(key);
    }

    /// When to look again: not after the earliest due time, and not now when nothing is due now.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        self.wheel.next_due()
    }

    /// Takes the earliest timer if its time has come: never early, once. `None` also when the turn is over.
    pub(super) fn pop_due(&mut self, now: Timestamp, turn: &mut Turn) -> Option<(RunId, Timer)> {
        turn.timers = turn.timers.checked_sub(1)?;
        self.wheel.pop_due(now, &mut turn.steps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Partition;

    // RELIABILITY D3
    #[test]
    fn a_turn_fires_no_more_than_it_may_and_says_that_there_is_more() {
        const COUNT: u64 = 10_000;
        const IN_A_TURN: usize = 64;
        let at = Timestamp::from_micros;
        let now = at(1_800_000_000_000_000);
        let mut timers = Timers::default();
        for number in 0..COUNT {
            let mut random = [0; 10];
            random[2..].copy_from_slice(&number.to_be_bytes());
            timers.arm(
                at(now.as_micros() - number),
                RunId::new(at(0), Partition::new(0), random),
                Timer::Deadline,
            );
        }
        let mut fired = 0;
        while timers.next_due().is_some_and(|due| due <= now) {
            let mut turn = Turn::of(IN_A_TURN);
            let in_turn = std::iter::from_fn(|| timers.pop_due(now, &mut turn)).count();
            assert!(in_turn <= IN_A_TURN);
            assert!(
                in_turn == IN_A_TURN || turn.steps == 0 || fired + in_turn == COUNT as usize,
                "it does its share"
            );
            fired += in_turn;
        }
        assert_eq!((fired, timers.next_due()), (COUNT as usize, None));
    }
}
