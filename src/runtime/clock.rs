//! A shard's clock: wall time at start, then carried on by the monotonic clock. The shards of a node share one.
//!
//! So a jump of the wall clock while the node lives fires no timer early or late, and time never goes back: not within
//! a life, and not across a restart, for the clock does not start before the last event of the log. A wall clock that
//! went back while the node was down means that no time passed; one that went forward cannot be told from real time.

use crate::time::{Clock, SystemClock, Timestamp};

/// Time as one shard sees it.
#[derive(Clone, Debug)]
pub(crate) struct ShardClock<C = SystemClock> {
    clock: C,
    wall_at_start: Timestamp,
    monotonic_at_start_us: u64,
}

impl ShardClock {
    /// Starts now, or at `not_before` when the wall clock has gone back since.
    pub(crate) fn start(not_before: Timestamp) -> Self {
        Self::start_on(SystemClock, not_before)
    }
}

impl<C: Clock> ShardClock<C> {
    fn start_on(clock: C, not_before: Timestamp) -> Self {
        let wall_at_start = clock.now().max(not_before);
        Self { wall_at_start, monotonic_at_start_us: clock.monotonic_us(), clock }
    }

    /// Now.
    pub(crate) fn now(&self) -> Timestamp {
        let passed = self.monotonic_us().saturating_sub(self.monotonic_at_start_us);
        Timestamp::from_micros(self.wall_at_start.as_micros().saturating_add(passed))
    }

    /// Microseconds on the monotonic clock.
    pub(crate) fn monotonic_us(&self) -> u64 {
        self.clock.monotonic_us()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    const HOUR_US: u64 = 60 * 60 * 1_000_000;

    /// Both clocks, moved by hand.
    #[derive(Debug, Default)]
    struct Hands {
        wall_us: Cell<u64>,
        monotonic_us: Cell<u64>,
    }

    impl Clock for &Hands {
        fn now(&self) -> Timestamp {
            Timestamp::from_micros(self.wall_us.get())
        }

        fn monotonic_us(&self) -> u64 {
            self.monotonic_us.get()
        }
    }

    fn at(micros: u64) -> Timestamp {
        Timestamp::from_micros(micros)
    }

    // RELIABILITY D1
    #[test]
    fn a_jump_of_the_wall_clock_in_a_life_is_not_seen() {
        let hands = Hands::default();
        hands.wall_us.set(100 * HOUR_US);
        hands.monotonic_us.set(77);
        let clock = ShardClock::start_on(&hands, at(0));
        assert_eq!(clock.now(), at(100 * HOUR_US));
        for wall_us in [99 * HOUR_US, 101 * HOUR_US, 0, u64::MAX] {
            hands.wall_us.set(wall_us);
            let before = clock.now();
            hands.monotonic_us.set(hands.monotonic_us.get() + 5);
            assert_eq!(clock.now(), at(before.as_micros() + 5), "what passed, and no more");
        }
    }

    // RELIABILITY D2
    #[test]
    fn a_wall_clock_that_went_back_across_a_restart_means_that_no_time_passed() {
        let hands = Hands::default();
        hands.wall_us.set(100 * HOUR_US);
        let last_event = ShardClock::start_on(&hands, at(0)).now();
        // The next life has a monotonic clock of its own.
        hands.wall_us.set(90 * HOUR_US);
        hands.monotonic_us.set(3);
        let clock = ShardClock::start_on(&hands, last_event);
        assert_eq!(clock.now(), last_event);
        hands.monotonic_us.set(3 + HOUR_US);
        assert_eq!(clock.now(), at(101 * HOUR_US), "from there on it goes as usual");
        hands.wall_us.set(200 * HOUR_US);
        assert_eq!(
            ShardClock::start_on(&hands, last_event).now(),
            at(200 * HOUR_US),
            "time that passed counts"
        );
    }

    #[test]
    fn the_clock_stops_at_the_end_of_time() {
        let hands = Hands::default();
        let clock = ShardClock::start_on(&hands, at(u64::MAX));
        hands.monotonic_us.set(HOUR_US);
        assert_eq!(clock.now(), at(u64::MAX));
    }

    #[test]
    fn the_machines_clock_does_not_start_before_the_last_event_of_the_log() {
        let future = at(u64::MAX / 2);
        assert!(ShardClock::start(future).now() >= future);
    }
}
