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
    /// The end of time.
    pub const MAX: Self = Self(u64::MAX);

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

/// The text is no RFC 3339 time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a time such as 2026-11-21T08:00:00Z (RFC 3339) is expected")]
pub struct TimestampError;

/// From RFC 3339. What was before 1970 is 1970: nothing of ours is older.
impl std::str::FromStr for Timestamp {
    type Err = TimestampError;

    fn from_str(text: &str) -> Result<Self, TimestampError> {
        // What the parser takes beside RFC 3339 (a time zone in brackets, spaces, no seconds) is not taken here.
        let plain = |byte: u8| byte.is_ascii_digit() || b"-:.+TtZz".contains(&byte);
        let clock = text.get(10..).unwrap_or_default();
        let seconds = clock.bytes().filter(|byte| *byte == b':').count() >= 2;
        if !seconds || text.len() > 40 || !text.bytes().all(plain) {
            return Err(TimestampError);
        }
        let parsed = text.parse::<jiff::Timestamp>().or_else(|error| match text.strip_prefix("9999-12-3") {
            // The last day of all, which the parser keeps for its time zones.
            Some(rest) => format!("2000-12-3{rest}").parse().map(|_: jiff::Timestamp| jiff::Timestamp::MAX),
            None => Err(error),
        });
        let point = parsed.map_err(|_| TimestampError)?;
        Ok(Self(u64::try_from(point.as_microsecond()).unwrap_or(0)))
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
    fn rfc_3339_is_read_and_nothing_else() {
        for (text, micros) in [
            ("2018-02-07T01:26:13.840Z", 1_517_966_773_840_000),
            ("2018-02-07t02:26:13.84+01:00", 1_517_966_773_840_000),
            ("1970-01-01T00:00:00Z", 0),
            ("0024-10-12T05:16:34-01:53", 0),
            ("9999-12-31T23:59:59Z", 253_402_207_200_999_999),
        ] {
            assert_eq!(text.parse(), Ok(Timestamp::from_micros(micros)), "{text}");
        }
        for text in [
            "",
            "yesterday",
            "1517966773",
            "2018-02-07",
            "2018-02-07T01:26Z",
            "2018-02-07T01:26:13",
            "2018-02-07 01:26:13Z",
            "2018-02-30T01:26:13Z",
            "2018-02-07T01:26:13Z[UTC]",
            "9999-12-32T23:59:59Z",
        ] {
            assert_eq!(text.parse::<Timestamp>(), Err(TimestampError), "{text}");
        }
    }

    #[test]
    fn arithmetic_stops_at_the_ends() {
        let end = Timestamp::from_micros(u64::MAX);
        assert_eq!(end.saturating_add(Duration::from_secs(1)), end);
        assert_eq!(end.until(Timestamp::from_micros(5)), Duration::ZERO);
    }
}
