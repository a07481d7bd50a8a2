//! When to send: a schedule that depends on nothing but rate, kind and seed. It never looks at replies.

use crate::options::{Arrivals, Rate};
use crate::random::Random;

/// Moments to send at, in microseconds from the start; ascending, without end.
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    /// Mean distance in microseconds; zero: at once (closed loop).
    mean_us: f64,
    arrivals: Arrivals,
    /// This is stream `part` of `parts`.
    part: usize,
    parts: usize,
    index: u64,
    poisson_us: f64,
    random: Random,
}

impl Schedule {
    /// The share of thread `part` in a load that `parts` threads send together.
    pub(crate) fn new(rate: Rate, arrivals: Arrivals, seed: u64, (part, parts): (usize, usize)) -> Self {
        let mean_us = match rate {
            Rate::Max => 0.0,
            Rate::PerSecond(rate) => 1e6 / rate,
        };
        let random = Random::new(seed ^ (part as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        Self { mean_us, arrivals, part, parts, index: 0, poisson_us: 0.0, random }
    }

    /// The next moment, or `None` in a closed loop: now.
    pub(crate) fn next_us(&mut self) -> Option<u64> {
        if self.mean_us == 0.0 {
            return None;
        }
        let at = match self.arrivals {
            // From the index, not from the last moment: no error adds up.
            Arrivals::Constant => (self.index * self.parts as u64 + self.part as u64) as f64 * self.mean_us,
            // The sum of independent Poisson streams is one.
            Arrivals::Poisson => {
                self.poisson_us += -self.random.uniform().ln() * self.mean_us * self.parts as f64;
                self.poisson_us
            }
        };
        self.index += 1;
        Some(at as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moments(schedule: &mut Schedule, count: usize) -> Vec<u64> {
        (0..count).map(|_| schedule.next_us().unwrap()).collect()
    }

    #[test]
    fn constant_arrivals_have_equal_distances_and_do_not_drift() {
        let mut schedule = Schedule::new(Rate::PerSecond(30_000.0), Arrivals::Constant, 1, (0, 1));
        let moments = moments(&mut schedule, 30_001);
        assert_eq!((moments[0], moments[1], moments[3], moments[30_000]), (0, 33, 100, 1_000_000));
    }

    #[test]
    fn constant_arrivals_of_several_threads_interleave() {
        let part = |part| {
            let mut schedule = Schedule::new(Rate::PerSecond(1_000.0), Arrivals::Constant, 1, (part, 2));
            moments(&mut schedule, 3)
        };
        assert_eq!((part(0), part(1)), (vec![0, 2_000, 4_000], vec![1_000, 3_000, 5_000]));
    }

    #[test]
    fn poisson_arrivals_keep_the_rate_and_vary_as_poisson_does() {
        let mut schedule = Schedule::new(Rate::PerSecond(10_000.0), Arrivals::Poisson, 7, (1, 4));
        let moments = moments(&mut schedule, 100_000);
        assert!(moments.is_sorted());
        // A quarter of 10,000 a second: 400 us apart in the mean.
        let gaps: Vec<f64> = moments.windows(2).map(|pair| (pair[1] - pair[0]) as f64).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!((mean - 400.0).abs() < 8.0, "mean {mean}");
        // An exponential distance has its mean as standard deviation.
        assert!((variance.sqrt() / mean - 1.0).abs() < 0.05, "deviation {}", variance.sqrt());
    }

    #[test]
    fn a_seed_gives_the_same_schedule_and_another_seed_another() {
        let first =
            |seed| moments(&mut Schedule::new(Rate::PerSecond(100.0), Arrivals::Poisson, seed, (0, 1)), 20);
        assert_eq!(first(3), first(3));
        assert_ne!(first(3), first(4));
    }

    #[test]
    fn a_closed_loop_has_no_schedule() {
        assert_eq!(Schedule::new(Rate::Max, Arrivals::Constant, 1, (0, 1)).next_us(), None);
    }
}
