//! Points in time, and the only clock: the rest of the node is handed `now`.
//!
//! A [`Timestamp`] is wall-clock time in microseconds since the Unix epoch, UTC. Intervals are measured on the
//! monotonic clock ([`Clock::monotonic_us`]) while the process lives; wall time is used across restarts.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Microseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Timestamp(u64);

impl Timestamp {
    /// From microseconds since the epoch.
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// Microseconds since the epoch.
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// Milliseconds since the epoch.
    pub const fn as_millis(self) -> u64 {
        self.0 / 1_000
    }

    /// This point plus `duration`, stopping at the end of time.
    pub fn saturating_add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)))
    }

    /// How far `self` is behind `later`; zero when it is not.
    pub fn until(self, later: Self) -> Duration {
        Duration::from_micros(later.0.saturating_sub(self.0))
    }
}

/// RFC 3339 in UTC with milliseconds, e.g. `2026-11-21T08:00:00.123Z`.
impl std::fmt::Display for Timestamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let millis = i64::try_from(self.as_millis()).unwrap_or(i64::MAX);
        let point = jiff::Timestamp::from_millisecond(millis).unwrap_or(jiff::Timestamp::MAX);
        write!(f, "{point:.3}")
    }
}

/// Where time comes from. Everything that needs the time takes one of these or is told `now`.
pub trait Clock {
    /// Wall-clock time.
    fn now(&self) -> Timestamp;
    /// Microseconds on a clock that never goes back, from an arbitrary start.
    fn monotonic_us(&self) -> u64;
}

/// The machine's clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one place where the wall clock is read")]
    fn now(&self) -> Timestamp {
        #[cfg(test)]
        if let Some((wall_us, _)) = simulated::now() {
            return Timestamp(wall_us);
        }
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Timestamp(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
    }

    #[expect(clippy::disallowed_methods, reason = "this is the one place where the monotonic clock is read")]
    fn monotonic_us(&self) -> u64 {
        #[cfg(test)]
        if let Some((_, monotonic_us)) = simulated::now() {
            return monotonic_us;
        }
        static START: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
        let start = START.get_or_init(std::time::Instant::now);
        u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

/// Clocks of a thread, for tests.
#[cfg(test)]
pub(crate) mod simulated {
    use std::cell::Cell;

    /// Gives wall clock and monotonic clock, in microseconds.
    pub(crate) type Hands = fn() -> (u64, u64);

    thread_local! {
        static HANDS: Cell<Option<Hands>> = const { Cell::new(None) };
    }

    /// From now on this thread's clocks are `hands`, or the machine's again.
    pub(crate) fn set(hands: Option<Hands>) {
        HANDS.set(hands);
    }

    pub(super) fn now() -> Option<(u64, u64)> {
        HANDS.get().map(|hands| hands())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_is_shown_with_milliseconds_in_utc() {
        assert_eq!(Timestamp::from_micros(1_517_966_773_840_999).to_string(), "2018-02-07T01:26:13.840Z");
        assert_eq!(Timestamp::from_micros(0).to_string(), "1970-01-01T00:00:00.000Z");
    }

    #[test]
    fn arithmetic_stops_at_the_ends() {
        let end = Timestamp::from_micros(u64::MAX);
        assert_eq!(end.saturating_add(Duration::from_secs(1)), end);
        assert_eq!(end.until(Timestamp::from_micros(5)), Duration::ZERO);
    }
}
