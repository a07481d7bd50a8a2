//! Durations and points in time: from text, to text, and their parts. Always UTC, never the present.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::arithmetic::overflow;
use super::error::{self, Error, excerpt};

/// CEL's range, the years 1 to 9999, without the last 26 hours (jiff keeps them for its time zones).
const SECONDS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_207_200;

/// Reads `1h30m`, `90s`, `1.5h`, `-2m`, `250ms`, `PT90S`.
pub(super) fn parse_duration(text: &str) -> Result<SignedDuration, Error> {
    let iso = text.trim_start_matches('-').starts_with(['P', 'p']);
    let parsed = if iso { text.parse().ok() } else { parse_units(text) };
    parsed.ok_or_else(|| {
        Error::new(
            error::INVALID,
            format!("{:?} is no duration; write for example \"1h30m\", \"90s\" or \"250ms\"", excerpt(text)),
        )
    })
}

fn parse_units(text: &str) -> Option<SignedDuration> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(SignedDuration::ZERO);
    }
    if rest.is_empty() {
        return None;
    }
    let mut nanos: i128 = 0;
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (digits, after) = rest.split_at(number);
        let unit = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit);
        let scale: i128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        nanos = nanos.checked_add(scaled(digits, scale)?)?;
        rest = after;
    }
    let nanos = if negative { nanos.checked_neg()? } else { nanos };
    let seconds = i64::try_from(nanos.checked_div(1_000_000_000)?).ok()?;
    let nanos = i32::try_from(nanos.checked_rem(1_000_000_000)?).ok()?;
    Some(SignedDuration::new(seconds, nanos))
}

/// `1.5` times a unit, in nanoseconds; what is finer than a nanosecond is cut off.
fn scaled(digits: &str, scale: i128) -> Option<i128> {
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let mut total = whole.checked_mul(scale)?;
    let mut place = scale;
    for digit in fraction.bytes() {
        place /= 10;
        total = total.checked_add(place.checked_mul(i128::from(digit - b'0'))?)?;
    }
    Some(total)
}

/// `90s`, `1.5s`, `-0.25s`.
pub(super) fn duration_text(duration: SignedDuration) -> String {
    let sign = if duration.is_negative() { "-" } else { "" };
    let seconds = duration.as_secs().unsigned_abs();
    let nanos = duration.subsec_nanos().unsigned_abs();
    if nanos == 0 {
        return format!("{sign}{seconds}s");
    }
    let fraction = format!("{nanos:09}");
    format!("{sign}{seconds}.{}s", fraction.trim_end_matches('0'))
}

/// Reads RFC 3339.
pub(super) fn parse_timestamp(text: &str) -> Result<Timestamp, Error> {
    text.parse().ok().filter(in_range).ok_or_else(|| {
        Error::new(
            error::INVALID,
            format!(
                "{:?} is no timestamp; write RFC 3339, for example \"2026-11-21T08:00:00Z\"",
                excerpt(text)
            ),
        )
    })
}

/// From seconds since 1970.
pub(super) fn from_seconds(seconds: i64) -> Result<Timestamp, Error> {
    Timestamp::from_second(seconds)
        .ok()
        .filter(in_range)
        .ok_or_else(|| overflow(&format!("the timestamp {seconds} s")))
}

/// `point + by`.
pub(super) fn shift(point: Timestamp, by: SignedDuration) -> Result<Timestamp, Error> {
    point.checked_add(by).ok().filter(in_range).ok_or_else(|| overflow("the timestamp"))
}

fn in_range(point: &Timestamp) -> bool {
    SECONDS.contains(&point.as_second())
}

/// A part of a point in time or of a duration.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Part {
    FullYear,
    Month,
    DayOfMonth,
    Date,
    DayOfWeek,
    DayOfYear,
    Hours,
    Minutes,
    Seconds,
    Milliseconds,
}

/// Counted as CEL does: months, days of the month, of the week (Sunday) and of the year from 0; `getDate` from 1.
pub(super) fn part_of(point: Timestamp, part: Part) -> i64 {
    let civil: DateTime = TimeZone::UTC.to_datetime(point);
    i64::from(match part {
        Part::FullYear => civil.year(),
        Part::Month => i16::from(civil.month()) - 1,
        Part::DayOfMonth => i16::from(civil.day()) - 1,
        Part::Date => i16::from(civil.day()),
        Part::DayOfWeek => i16::from(civil.weekday().to_sunday_zero_offset()),
        Part::DayOfYear => civil.day_of_year() - 1,
        Part::Hours => i16::from(civil.hour()),
        Part::Minutes => i16::from(civil.minute()),
        Part::Seconds => i16::from(civil.second()),
        Part::Milliseconds => civil.millisecond(),
    })
}

/// The whole duration in a unit, or `None` for what a duration does not have.
pub(super) fn whole_of(duration: SignedDuration, part: Part) -> Option<i64> {
    match part {
        Part::Hours => Some(duration.as_hours()),
        Part::Minutes => Some(duration.as_mins()),
        Part::Seconds => Some(duration.as_secs()),
        Part::Milliseconds => i64::try_from(duration.as_millis()).ok(),
        _ => None,
    }
}
