//! Timers of a shard: a [`Wheel`] of what each run waits for. Data only: the loop asks what is due and when to look again.

use smallvec::SmallVec;

use crate::engine::Timer;
use crate::model::RunId;
use crate::runtime::wheel::{Key, Wheel};
use crate::time::Timestamp;

/// Moves of timers within the wheel for each timer that the loop would fire in a turn. A timer moves seven times in its
/// life at most, mostly less; what is left is done in the next turn.
const STEPS_PER_TIMER: usize = 4;

/// Armed timers; they come out in due order, those due at the same time in the order of arming.
#[derive(Debug, Default)]
pub(super) struct Timers {
    wheel: Wheel<(RunId, Timer)>,
}

/// The timers of one run, so that they can be disarmed. Those that have fired are forgotten now and then: a run that
/// waits again and again holds no more than twice what it has armed at most at one time.
#[derive(Debug, Default)]
pub(super) struct Held(SmallVec<[Key; 1]>);

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
    /// Arms a timer for the run that holds these.
    pub(super) fn arm(&mut self, held: &mut Held, due: Timestamp, run_id: RunId, timer: Timer) {
        let keys = &mut held.0;
        let count = keys.len();
        if count == keys.capacity() {
            keys.retain(|key| self.wheel.is_armed(*key));
            // With room for as many again, this look is paid for by those that come until the next.
            if keys.len() > count / 2 {
                keys.reserve(count);
            }
        }
        keys.push(self.wheel.arm(due, (run_id, timer)));
    }

    /// Forgets all timers of a run.
    pub(super) fn disarm(&mut self, held: &mut Held) {
        for key in held.0.drain(..) {
            self.wheel.disarm(key);
        }
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
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::limits;
    use crate::model::Partition;
    use crate::runtime::shard::{Shard, ShardConfig};

    fn run(number: u64) -> RunId {
        let mut random = [0; 10];
        random[2..].copy_from_slice(&number.to_be_bytes());
        RunId::new(at(0), Partition::new(0), random)
    }

    fn at(micros: u64) -> Timestamp {
        Timestamp::from_micros(micros)
    }

    fn fired(timers: &mut Timers, now: Timestamp, mut turn: Turn) -> Vec<RunId> {
        std::iter::from_fn(|| timers.pop_due(now, &mut turn)).map(|(run_id, _)| run_id).collect()
    }

    // RELIABILITY D3
    #[test]
    fn a_turn_fires_no_more_than_it_may_and_says_that_there_is_more() {
        const COUNT: u64 = 10_000;
        const IN_A_TURN: usize = 64;
        let now = 1_800_000_000_000_000;
        let mut timers = Timers::default();
        for number in 0..COUNT {
            timers.arm(&mut Held::default(), at(now - number), run(number), Timer::Deadline);
        }
        let (mut order, mut turns) = (Vec::new(), 0);
        while timers.next_due().is_some_and(|due| due <= at(now)) {
            let in_turn = fired(&mut timers, at(now), Turn::of(IN_A_TURN));
            assert!(in_turn.len() <= IN_A_TURN);
            order.extend(in_turn);
            turns += 1;
        }
        assert!(order.iter().copied().eq((0..COUNT).rev().map(run)), "in due order");
        assert!(turns <= 8 * COUNT as usize / IN_A_TURN, "{turns} turns");
    }

    #[test]
    fn timers_that_may_not_fire_do_not_keep_the_loop_awake() {
        let config = ShardConfig { index: 0, epoch: 1, retention: Duration::ZERO, runs_live_max: 1 };
        let mut shard = Shard::new(config, Arc::default());
        shard.timers.arm(&mut Held::default(), at(5), run(1), Timer::Deadline);
        assert_eq!(shard.next_due(), Some(at(5)));
        shard.open = vec![0; limits::JOURNAL_BATCH_BYTES_FULL];
        assert_eq!(shard.next_due(), None, "the disk comes first");
        shard.open.clear();
        assert_eq!(shard.next_due(), Some(at(5)));
        shard.fence("gone".into());
        assert_eq!(shard.next_due(), None, "nothing fires any more");
    }

    #[test]
    fn the_timers_of_a_run_go_with_it_and_no_others() {
        let (mut timers, mut one, mut two) = (Timers::default(), Held::default(), Held::default());
        for due in 1..100 {
            timers.arm(&mut one, at(due), run(1), Timer::Deadline);
            timers.arm(&mut two, at(due), run(2), Timer::Deadline);
        }
        let plenty = Turn::of(1_000);
        assert_eq!(fired(&mut timers, at(1), plenty), [run(1), run(2)]);
        timers.disarm(&mut one);
        assert_eq!(fired(&mut timers, at(1_000), plenty), [run(2); 98]);
        assert_eq!(timers.next_due(), None);
    }

    #[test]
    fn a_run_that_waits_again_and_again_holds_only_what_it_has_armed() {
        let (mut timers, mut once, mut many) = (Timers::default(), Held::default(), Held::default());
        for _ in 0..100 {
            timers.arm(&mut many, at(u64::MAX), run(2), Timer::Deadline);
        }
        for now in 1..10_000 {
            timers.arm(&mut once, at(now), run(1), Timer::Deadline);
            timers.arm(&mut many, at(now), run(2), Timer::Deadline);
            assert_eq!(fired(&mut timers, at(now), Turn::of(100)).len(), 2);
        }
        assert!(!once.0.spilled(), "one at a time needs no memory of its own");
        assert!(many.0.capacity() <= 512, "{}", many.0.capacity());
    }
}
