//! Durations as text: `90s`, `1h30m`, `500ms`, `PT90S`. Never longer than [`limits::DURATION_SECONDS_MAX`].

use std::time::Duration;

use crate::limits;

const UNITS: [(&str, u64); 6] =
    [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000), ("w", 604_800_000)];
const ISO_DAYS: [(&str, u64); 2] = [("D", 86_400_000), ("W", 604_800_000)];
const ISO_TIME: [(&str, u64); 3] = [("S", 1_000), ("M", 60_000), ("H", 3_600_000)];

/// Reads `90s 5m 2h 1h30m 500ms 7d 0s`, or ISO 8601 `PT90S` `P1DT2H`. Units go from large to small, each at most once.
/// `None` for anything else and for more than [`limits::DURATION_SECONDS_MAX`].
pub fn parse_duration(text: &str) -> Option<Duration> {
    let millis = match text.strip_prefix('P') {
        Some(iso) => {
            let (days, time) = match iso.split_once('T') {
                Some((_, "")) => return None,
                Some((days, time)) => (days, time),
                None => (iso, ""),
            };
            if days.is_empty() && time.is_empty() {
                return None;
            }
            sum(days, &ISO_DAYS)?.checked_add(sum(time, &ISO_TIME)?)?
        }
        None if text.is_empty() => return None,
        None => sum(text, &UNITS)?,
    };
    let longest = limits::DURATION_SECONDS_MAX.checked_mul(1_000)?;
    (millis <= longest).then(|| Duration::from_millis(millis))
}

/// Sum of numbers with units, the units falling; 0 for an empty text.
fn sum(mut text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let mut total = 0_u64;
    let mut above = u64::MAX;
    while !text.is_empty() {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, rest) = text.split_at_checked(digits)?;
        let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, rest) = rest.split_at_checked(letters)?;
        let millis = units.iter().find(|(name, _)| *name == unit)?.1;
        if millis >= above {
            return None;
        }
        above = millis;
        total = total.checked_add(number.parse::<u64>().ok()?.checked_mul(millis)?)?;
        text = rest;
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_within_their_limit() {
        // F116
        for (text, millis) in [
            ("90s", 90_000),
            ("5m", 300_000),
            ("2h", 7_200_000),
            ("1h30m", 5_400_000),
            ("500ms", 500),
            ("7d", 604_800_000),
            ("0s", 0),
            ("PT90S", 90_000),
            ("P1DT2H", 93_600_000),
            ("PT1H30M", 5_400_000),
            ("366d", 31_622_400_000),
        ] {
            assert_eq!(parse_duration(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in [
            "",
            "s",
            "5",
            "-5s",
            "5 s",
            "5x",
            "30m1h",
            "1h1h",
            "P",
            "PT",
            "P1DT",
            "PTS",
            "367d",
            "1.5h",
            "99999999999999999999s",
            "18446744073709551615w",
            "5s\u{e9}",
            "pt5s",
        ] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }
}
