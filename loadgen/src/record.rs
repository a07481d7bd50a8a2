//! What was seen: latencies in histograms, errors by kind. A latency counts from the scheduled moment.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::series::Seconds;

/// Longest latency told apart; longer ones count as this.
const LATENCY_US_MAX: u64 = 600_000_000;

/// Points of a curve until half of what is left is left.
const CURVE_TICKS: u32 = 4;

/// Latencies in microseconds, to three digits.
#[derive(Clone, Debug)]
pub(crate) struct Latencies(Histogram<u64>);

impl Default for Latencies {
    fn default() -> Self {
        // These bounds are always valid; if the crate thought otherwise, an unbounded histogram does as well.
        let bounded = Histogram::new_with_bounds(1, LATENCY_US_MAX, 3);
        Self(bounded.or_else(|_| Histogram::new(3)).unwrap_or_else(|_| unreachable!("3 digits are valid")))
    }
}

impl Latencies {
    /// From the scheduled moment to the reply.
    pub(crate) fn record(&mut self, scheduled_us: u64, replied_us: u64) {
        self.0.saturating_record(replied_us.saturating_sub(scheduled_us).max(1));
    }

    /// Adds what another thread saw.
    pub(crate) fn merge(&mut self, other: &Self) {
        let _ = self.0.add(&other.0);
    }

    /// Quantile and microseconds, denser towards the tail, for a curve. Empty when nothing was recorded.
    pub(crate) fn curve(&self) -> Vec<(f64, u64)> {
        let mut curve: Vec<(f64, u64)> = Vec::new();
        for step in self.0.iter_quantiles(CURVE_TICKS) {
            curve.push((step.quantile_iterated_to(), step.value_iterated_to()));
        }
        curve
    }

    /// In figures; `None` when nothing was recorded.
    pub(crate) fn summary(&self) -> Option<Percentiles> {
        (!self.0.is_empty()).then(|| Percentiles {
            p50: self.0.value_at_quantile(0.5),
            p90: self.0.value_at_quantile(0.9),
            p99: self.0.value_at_quantile(0.99),
            p999: self.0.value_at_quantile(0.999),
            max: self.0.max(),
            count: self.0.len(),
        })
    }
}

/// Of a histogram, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Percentiles {
    pub(crate) p50: u64,
    pub(crate) p90: u64,
    pub(crate) p99: u64,
    pub(crate) p999: u64,
    pub(crate) max: u64,
    pub(crate) count: u64,
}

/// What one sending thread saw.
#[derive(Clone, Debug, Default)]
pub(crate) struct Record {
    /// Scheduled moment to acknowledged start, for arrivals in the measured window.
    pub(crate) start: Latencies,
    /// Scheduled moment to finished run, for the sample that waited.
    pub(crate) run: Latencies,
    /// Scheduled moment to sending, for arrivals in the measured window: what the generator itself adds.
    pub(crate) lag: Latencies,
    /// The same second by second, warm-up included.
    pub(crate) seconds: Seconds,
    /// Starts that the node acknowledged, warm-up included.
    pub(crate) acknowledged: u64,
    /// Those whose moment was in the measured window.
    pub(crate) acknowledged_in_window: u64,
    /// Requests sent.
    pub(crate) sent: u64,
    /// What went wrong, by kind, warm-up included.
    pub(crate) errors: BTreeMap<String, u64>,
}

impl Record {
    /// Counts one error.
    pub(crate) fn error(&mut self, kind: impl Into<String>) {
        *self.errors.entry(kind.into()).or_default() += 1;
    }

    /// Adds what another thread saw.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.start.merge(&other.start);
        self.run.merge(&other.run);
        self.lag.merge(&other.lag);
        self.seconds.merge(&other.seconds);
        self.acknowledged += other.acknowledged;
        self.acknowledged_in_window += other.acknowledged_in_window;
        self.sent += other.sent;
        for (kind, count) in &other.errors {
            *self.errors.entry(kind.clone()).or_default() += count;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arrival::Schedule;
    use crate::options::{Arrivals, Rate};

    #[test]
    fn a_stall_shows_in_every_arrival_that_fell_into_it() {
        // 1,000 a second for 10 s over one connection; each takes 100 us, but the server stalls from 5 s to 6 s.
        let mut schedule = Schedule::new(Rate::PerSecond(1_000.0), Arrivals::Constant, 1, (0, 1));
        let (mut latencies, mut free_us, mut naive) = (Latencies::default(), 0, Latencies::default());
        for _ in 0..10_000 {
            let scheduled = schedule.next_us().unwrap();
            let sent = free_us.max(scheduled);
            let replied = if (5_000_000..6_000_000).contains(&sent) { 6_000_000 } else { sent } + 100;
            latencies.record(scheduled, replied);
            naive.record(sent, replied);
            free_us = replied;
        }
        let (corrected, naive) = (latencies.summary().unwrap(), naive.summary().unwrap());
        // A tenth of all arrivals fell into the stall and waited 500 ms in the mean; counted from the send it was one.
        assert!((850_000..=1_001_000).contains(&corrected.p99), "{corrected:?}");
        assert!(corrected.p50 <= 110 && naive.p99 <= 110, "{corrected:?} {naive:?}");
    }

    #[test]
    fn records_of_threads_add_up() {
        let mut one = Record { acknowledged: 2, sent: 3, ..Record::default() };
        one.start.record(10, 110);
        one.error("timeout");
        let mut two = one.clone();
        two.start.record(10, 1_010);
        one.merge(&two);
        assert_eq!((one.acknowledged, one.sent, one.errors.get("timeout")), (4, 6, Some(&2)));
        let summary = one.start.summary().unwrap();
        assert_eq!((summary.count, summary.p50, summary.max), (3, 100, 1_000));
        assert_eq!(Latencies::default().summary(), None);
    }
}
