//! A shard's clock: wall time at start, then carried on by the monotonic clock.
//!
//! So a jump of the wall clock while the node lives fires no timer early or late, and time never goes back: not within
//! a life, and not across a restart, for the clock does not start before the last event of the log.

use crate::time::{Clock, SystemClock, Timestamp};

/// Time as one shard sees it.
#[derive(Clone, Debug)]
pub(crate) struct ShardClock {
    wall_at_start: Timestamp,
    monotonic_at_start_us: u64,
}

impl ShardClock {
    /// Starts now, or at `not_before` when the wall clock has gone back since.
    pub(crate) fn start(not_before: Timestamp) -> Self {
        let clock = SystemClock;
        Self { wall_at_start: clock.now().max(not_before), monotonic_at_start_us: clock.monotonic_us() }
    }

    /// Now.
    pub(crate) fn now(&self) -> Timestamp {
        let passed = self.monotonic_us().saturating_sub(self.monotonic_at_start_us);
        Timestamp::from_micros(self.wall_at_start.as_micros().saturating_add(passed))
    }

    /// Microseconds on the monotonic clock.
    #[expect(clippy::unused_self, reason = "the clock is the door to time, simulated or not")]
    pub(crate) fn monotonic_us(&self) -> u64 {
        SystemClock.monotonic_us()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_does_not_start_before_the_last_event_of_the_log() {
        let future = Timestamp::from_micros(u64::MAX / 2);
        assert!(ShardClock::start(future).now() >= future);
    }
}
