//! A load second by second: what was acknowledged, how long starts took, and from when on it was steady.
//!
//! A start belongs to the second of its scheduled moment, as its latency does, so a stall stands where it began.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::Serialize;

/// Two digits: an hour of seconds takes a tenth of what it would with three.
const DIGITS: u8 = 2;
const LATENCY_US_MAX: u64 = 600_000_000;
/// Shorter series have no steady state to speak of.
const SECONDS_MIN: usize = 10;
/// What the second half may differ from the first, in parts of it.
const DRIFT_MAX: f64 = 0.05;

/// Latencies in microseconds by second of the load.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seconds(BTreeMap<u32, Histogram<u64>>);

/// One second; times count from the beginning of the measured window, so warm-up is negative.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Second {
    pub(crate) at_s: f64,
    pub(crate) starts: u64,
    pub(crate) p50: u64,
    pub(crate) p99: u64,
    pub(crate) max: u64,
}

/// Whether the measured window was in a steady state.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Steady {
    /// From here on the mean of starts is known best (MSER, White 1997); none: not within the first half.
    pub(crate) from_s: Option<f64>,
    /// How much more was started in the second half of the window than in the first, in parts of the first.
    pub(crate) drift: f64,
    /// From the beginning of the window, and with a drift of 5 % at most.
    pub(crate) is_steady: bool,
}

impl Seconds {
    /// A start at `at_us` of the load that took so long.
    pub(crate) fn record(&mut self, at_us: u64, latency_us: u64) {
        let second = u32::try_from(at_us / 1_000_000).unwrap_or(u32::MAX);
        let Some(histogram) = self.at(second) else { return };
        histogram.saturating_record(latency_us.max(1));
    }

    /// Adds what another thread saw.
    pub(crate) fn merge(&mut self, other: &Self) {
        for (second, theirs) in &other.0 {
            if let Some(ours) = self.at(*second) {
                let _ = ours.add(theirs);
            }
        }
    }

    fn at(&mut self, second: u32) -> Option<&mut Histogram<u64>> {
        if let std::collections::btree_map::Entry::Vacant(entry) = self.0.entry(second) {
            entry.insert(Histogram::new_with_bounds(1, LATENCY_US_MAX, DIGITS).ok()?);
        }
        self.0.get_mut(&second)
    }

    /// In figures, for a window that begins so many seconds into the load.
    pub(crate) fn rows(&self, warmup_s: f64) -> Vec<Second> {
        let row = |(second, seen): (&u32, &Histogram<u64>)| Second {
            at_s: f64::from(*second) - warmup_s,
            starts: seen.len(),
            p50: seen.value_at_quantile(0.5),
            p99: seen.value_at_quantile(0.99),
            max: seen.max(),
        };
        self.0.iter().map(row).collect()
    }

    /// Second and latencies, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &Histogram<u64>)> {
        self.0.iter().map(|(second, seen)| (*second, seen))
    }
}

impl Steady {
    /// Of the rows of a window; `None` when they are too few to say.
    pub(crate) fn of(rows: &[Second]) -> Option<Self> {
        let window: Vec<&Second> = rows.iter().filter(|row| row.at_s >= 0.0).collect();
        // The last second is rarely whole.
        let (_, window) = window.split_last()?;
        if window.len() < SECONDS_MIN {
            return None;
        }
        let starts: Vec<f64> = window.iter().map(|row| row.starts as f64).collect();
        let (first, second) = starts.split_at(starts.len() / 2);
        let drift = mean(second) / mean(first).max(f64::MIN_POSITIVE) - 1.0;
        let cut = truncation(&starts);
        let from_s = window.get(cut).map(|row| row.at_s).filter(|_| cut <= starts.len() / 2);
        let is_steady = from_s.is_some() && drift.abs() <= DRIFT_MAX;
        Some(Self { from_s, drift, is_steady })
    }
}

/// How many samples to leave out at the beginning, so that the standard error of the mean of the rest is the least. Five at
/// least are kept: of fewer nothing is known.
fn truncation(samples: &[f64]) -> usize {
    let error = |cut: usize| {
        let rest = samples.get(cut..).unwrap_or_default();
        let mean = mean(rest);
        rest.iter().map(|sample| (sample - mean).powi(2)).sum::<f64>() / (rest.len() as f64).powi(2)
    };
    let errors = (0..=samples.len().saturating_sub(5)).map(|cut| (cut, error(cut)));
    errors.min_by(|one, two| one.1.total_cmp(&two.1)).map_or(0, |(cut, _)| cut)
}

pub(crate) fn mean(samples: &[f64]) -> f64 {
    samples.iter().sum::<f64>() / samples.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(starts: impl IntoIterator<Item = u64>) -> Vec<Second> {
        let row = |(at, starts): (usize, u64)| Second { at_s: at as f64, starts, p50: 1, p99: 2, max: 3 };
        starts.into_iter().enumerate().map(row).collect()
    }

    #[test]
    fn a_start_stands_in_the_second_of_its_moment() {
        let (mut one, mut two) = (Seconds::default(), Seconds::default());
        one.record(999_999, 500);
        two.record(1_000_000, 800);
        two.record(1_999_999, 3_000);
        one.merge(&two);
        let rows = one.rows(1.0);
        assert_eq!(rows.iter().map(|row| (row.at_s, row.starts)).collect::<Vec<_>>(), [(-1.0, 1), (0.0, 2)]);
        assert!(rows[1].max >= 3_000 && rows[1].max < 3_100, "{rows:?}");
    }

    #[test]
    fn what_rises_falls_or_settles_late_is_not_steady() {
        let noise = |at: u64| 1_000 + at * 7_919 % 31;
        assert!(Steady::of(&rows((0..60).map(noise))).unwrap().is_steady);
        let settles =
            Steady::of(&rows((0..60).map(|at| noise(at).saturating_sub(if at < 10 { 600 } else { 0 }))))
                .unwrap();
        assert_eq!(settles.from_s, Some(10.0));
        assert!(!settles.is_steady, "{settles:?}");
        let falls = Steady::of(&rows((0..60).map(|at| 1_000 - at * 8))).unwrap();
        assert!(!falls.is_steady && falls.drift < -0.2, "{falls:?}");
        assert_eq!(Steady::of(&rows((0..10).map(noise))), None);
        assert_eq!(Steady::of(&[]), None);
    }
}
