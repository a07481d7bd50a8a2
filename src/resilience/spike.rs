//! When a service that answers is too slow, too dear, or fails too often to be asked first.
//!
//! Calm, everything goes to it. When the mean over [`Policy::window`] of at least [`Policy::calls_min`] calls is over a threshold, it
//! spikes: calls go elsewhere for [`Policy::rest`]. Then it is tried out with one call at a time; [`Policy::probes`] of them in a
//! row, each within the thresholds, calm it, and any other makes it rest again. Functions of (policy, state, event, now), which
//! is monotonic.
//!
//! ```
//! use std::time::Duration;
//! use aob::resilience::spike::{Measure, Policy, Sample, Watch};
//!
//! let policy = Policy { calls_min: 2, call_max: Some(Duration::from_millis(500)), ..Policy::default() };
//! let mut watch = Watch::default();
//! for now_us in [0, 1_000_000] {
//!     let ticket = watch.ask(&policy, now_us).unwrap();
//!     watch.ended(&policy, (ticket, Some(Sample { took_us: Some(800_000), ..Sample::default() })), now_us);
//! }
//! let spike = watch.ask(&policy, 2_000_000).unwrap_err();
//! assert_eq!((spike.measure, spike.measured, spike.threshold), (Measure::CallTime, 800, 500));
//! // After a rest one call at a time tries it out.
//! let later_us = 2_000_000 + policy.rest.as_micros() as u64;
//! let probe = watch.ask(&policy, later_us).unwrap();
//! assert!(watch.ask(&policy, later_us).is_err());
//! # let _ = probe;
//! ```
//!
//! What must hold: a call counts for the state in which it was asked for, and no other, so a slow answer to a call that began before
//! neither prolongs a spike nor ends one; a probe whose end nobody hears of holds the others up for [`Policy::rest`], not for
//! ever. A watch has a fixed size: the window is ten buckets, and what leaves it does so a tenth of it at a time.

use std::time::Duration;

const BUCKETS: u64 = 10;

/// What is too much, and for how long it is left alone. A threshold that is `None` is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Over how long the mean is taken.
    pub window: Duration,
    /// Calls in it before anything is concluded; 0 is taken for 1.
    pub calls_min: u32,
    /// The mean time of a call.
    pub call_max: Option<Duration>,
    /// The mean time of a token of output.
    pub token_max: Option<Duration>,
    /// The mean cost of a call, in billionths of a dollar.
    pub cost_max_nanos: Option<u64>,
    /// Failures in a thousand calls.
    pub errors_max_permille: Option<u32>,
    /// How long it is left alone.
    pub rest: Duration,
    /// Calls within the thresholds, in a row, after which it is asked as before; 0 is taken for 1.
    pub probes: u32,
}

/// No threshold; a minute, 5 calls, 30 s, 2 probes.
impl Default for Policy {
    fn default() -> Self {
        Self {
            window: Duration::from_secs(60),
            calls_min: 5,
            call_max: None,
            token_max: None,
            cost_max_nanos: None,
            errors_max_permille: None,
            rest: Duration::from_secs(30),
            probes: 2,
        }
    }
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// Milliseconds of a call.
    CallTime,
    /// Microseconds of a token of output.
    TokenTime,
    /// Billionths of a dollar of a call.
    Cost,
    /// Failures in a thousand calls.
    Errors,
}

/// What is over its threshold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spike {
    /// Which.
    pub measure: Measure,
    /// The mean over the window, or of the probe.
    pub measured: u64,
    /// What it may be.
    pub threshold: u64,
}

/// What came of a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// How long it took; `None` when that says nothing, as of a connection that was refused.
    pub took_us: Option<u64>,
    /// Tokens of its output.
    pub output_tokens: u64,
    /// What it cost in billionths of a dollar, when that is known.
    pub cost_nanos: Option<u64>,
    /// The service failed.
    pub failed: bool,
}

/// How it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// As any.
    Calm,
    /// Others are asked.
    Spiking,
    /// One call at a time tries it out.
    Probing,
}

/// Given to whoever asks it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    turn: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sums {
    /// Which stretch of the window they are of, counted from the beginning of time.
    stretch: u64,
    calls: u64,
    failed: u64,
    timed: u64,
    took_us: u64,
    token_us: u64,
    tokens: u64,
    priced: u64,
    nanos: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Calm,
    Spiking { until_us: u64 },
    Probing { good: u32, probe_until_us: Option<u64> },
}

/// What is known of one service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watch {
    phase: Phase,
    /// The last one.
    spike: Option<Spike>,
    /// Goes up whenever calls that were asked for before cease to count.
    turn: u64,
    sums: [Sums; BUCKETS as usize],
}

impl Default for Watch {
    fn default() -> Self {
        Self { phase: Phase::Calm, spike: None, turn: 0, sums: [Sums::default(); BUCKETS as usize] }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

impl Policy {
    /// Is anything too much?
    pub fn is_none(&self) -> bool {
        self.call_max.is_none()
            && self.token_max.is_none()
            && self.cost_max_nanos.is_none()
            && self.errors_max_permille.is_none()
    }

    /// What of these calls is over its threshold.
    fn judge(&self, sums: &Sums) -> Option<Spike> {
        let mean = |sum: u64, count: u64| sum.checked_div(count);
        let over = |measure, measured: Option<u64>, threshold: Option<u64>, unit: u64| {
            let (measured, threshold) = (measured?, threshold?);
            let spike = Spike { measure, measured: measured / unit, threshold: threshold / unit };
            (measured > threshold).then_some(spike)
        };
        over(Measure::CallTime, mean(sums.took_us, sums.timed), self.call_max.map(micros), 1_000)
            .or_else(|| {
                over(Measure::TokenTime, mean(sums.token_us, sums.tokens), self.token_max.map(micros), 1)
            })
            .or_else(|| over(Measure::Cost, mean(sums.nanos, sums.priced), self.cost_max_nanos, 1))
            .or_else(|| {
                let permille = mean(sums.failed.saturating_mul(1_000), sums.calls);
                over(Measure::Errors, permille, self.errors_max_permille.map(u64::from), 1)
            })
    }
}

impl Sums {
    fn add(&mut self, more: &Self) {
        for (sum, more) in [
            (&mut self.calls, more.calls),
            (&mut self.failed, more.failed),
            (&mut self.timed, more.timed),
            (&mut self.took_us, more.took_us),
            (&mut self.token_us, more.token_us),
            (&mut self.tokens, more.tokens),
            (&mut self.priced, more.priced),
            (&mut self.nanos, more.nanos),
        ] {
            *sum = sum.saturating_add(more);
        }
    }
}

impl From<&Sample> for Sums {
    fn from(sample: &Sample) -> Self {
        let took_us = sample.took_us.unwrap_or_default();
        let by_token = sample.took_us.is_some() && sample.output_tokens > 0;
        Self {
            stretch: 0,
            calls: 1,
            failed: sample.failed.into(),
            timed: sample.took_us.is_some().into(),
            took_us,
            token_us: if by_token { took_us } else { 0 },
            tokens: if by_token { sample.output_tokens } else { 0 },
            priced: sample.cost_nanos.is_some().into(),
            nanos: sample.cost_nanos.unwrap_or_default(),
        }
    }
}

impl Watch {
    /// May it be asked as any? Whoever has the ticket says what came of it.
    ///
    /// # Errors
    /// It spikes, or is being tried out.
    pub fn ask(&mut self, policy: &Policy, now_us: u64) -> Result<Ticket, Spike> {
        if let Some(spike) = self.spike.filter(|_| !self.is_free(now_us)) {
            return Err(spike);
        }
        if self.phase != Phase::Calm {
            let good = if let Phase::Probing { good, .. } = self.phase { good } else { 0 };
            let probe_until_us = Some(now_us.saturating_add(micros(policy.rest)));
            self.phase = Phase::Probing { good, probe_until_us };
            self.turn += 1;
        }
        Ok(Ticket { turn: self.turn })
    }

    /// Would it be asked as any?
    pub fn is_free(&self, now_us: u64) -> bool {
        match self.phase {
            Phase::Calm => true,
            Phase::Spiking { until_us } => now_us >= until_us,
            Phase::Probing { probe_until_us, .. } => probe_until_us.is_none_or(|until_us| now_us >= until_us),
        }
    }

    /// What came of a call; `None`: nobody knows. Answers the spike that this call has made.
    pub fn ended(
        &mut self,
        policy: &Policy,
        (ticket, sample): (Ticket, Option<Sample>),
        now_us: u64,
    ) -> Option<Spike> {
        if ticket.turn != self.turn {
            return None;
        }
        let sums = sample.as_ref().map(Sums::from);
        let spike = match (self.phase, &sums) {
            (Phase::Spiking { .. }, _) | (Phase::Calm, None) => None,
            (Phase::Calm, Some(sums)) => {
                let all = self.count(policy, sums, now_us);
                policy.judge(&all).filter(|_| all.calls >= u64::from(policy.calls_min.max(1)))
            }
            (Phase::Probing { good, .. }, None) => {
                self.phase = Phase::Probing { good, probe_until_us: None };
                None
            }
            (Phase::Probing { good, .. }, Some(sums)) => {
                // Of one call any failure is too many.
                let failed = Spike { measure: Measure::Errors, measured: 1_000, threshold: 0 };
                let spike = policy.judge(sums).or_else(|| (sums.failed > 0).then_some(failed));
                if spike.is_none() {
                    let good = good + 1;
                    self.phase = Phase::Probing { good, probe_until_us: None };
                    if good >= policy.probes.max(1) {
                        *self = Self { turn: self.turn + 1, ..Self::default() };
                    }
                }
                spike
            }
        };
        if spike.is_some() {
            let until_us = now_us.saturating_add(micros(policy.rest));
            *self =
                Self { phase: Phase::Spiking { until_us }, spike, turn: self.turn + 1, ..Self::default() };
        }
        spike
    }

    /// Takes a call into the window; all that is in it.
    fn count(&mut self, policy: &Policy, sums: &Sums, now_us: u64) -> Sums {
        let stretch = now_us / (micros(policy.window) / BUCKETS).max(1);
        if let Some(bucket) = self.sums.get_mut((stretch % BUCKETS) as usize) {
            if bucket.stretch != stretch {
                *bucket = Sums { stretch, ..Sums::default() };
            }
            bucket.add(sums);
        }
        let mut all = Sums::default();
        self.sums
            .iter()
            .filter(|sums| stretch - sums.stretch.min(stretch) < BUCKETS)
            .for_each(|sums| all.add(sums));
        all
    }

    /// What it is at the moment.
    pub fn state(&self, now_us: u64) -> State {
        match self.phase {
            Phase::Calm => State::Calm,
            Phase::Spiking { until_us } if now_us < until_us => State::Spiking,
            Phase::Spiking { .. } | Phase::Probing { .. } => State::Probing,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000;

    fn policy() -> Policy {
        Policy {
            calls_min: 3,
            call_max: Some(Duration::from_millis(500)),
            cost_max_nanos: Some(1_000),
            errors_max_permille: Some(500),
            ..Policy::default()
        }
    }

    fn took(millis: u64) -> Option<Sample> {
        Some(Sample { took_us: Some(millis * 1_000), ..Sample::default() })
    }

    fn call(watch: &mut Watch, sample: Option<Sample>, now_us: u64) -> Option<Spike> {
        let ticket = watch.ask(&policy(), now_us).unwrap();
        watch.ended(&policy(), (ticket, sample), now_us)
    }

    // F389
    #[test]
    fn it_spikes_when_the_mean_of_enough_calls_is_over_a_threshold() {
        let mut watch = Watch::default();
        assert_eq!(call(&mut watch, took(5_000), 0), None, "too few calls to say");
        assert_eq!(call(&mut watch, took(100), 0), None);
        let spike = Spike { measure: Measure::CallTime, measured: 1_733, threshold: 500 };
        assert_eq!(call(&mut watch, took(100), 0), Some(spike));
        assert_eq!((watch.ask(&policy(), SECOND), watch.state(SECOND)), (Err(spike), State::Spiking));
        for (sample, measure) in [
            (Sample { cost_nanos: Some(1_001), ..Sample::default() }, Measure::Cost),
            (Sample { failed: true, ..Sample::default() }, Measure::Errors),
        ] {
            let mut watch = Watch::default();
            let spikes: Vec<_> = (0..3).filter_map(|at| call(&mut watch, Some(sample), at)).collect();
            assert_eq!(spikes.iter().map(|spike| spike.measure).collect::<Vec<_>>(), [measure]);
        }
        let slow = Policy { calls_min: 1, token_max: Some(Duration::from_millis(10)), ..Policy::default() };
        let mut watch = Watch::default();
        let ticket = watch.ask(&slow, 0).unwrap();
        let sample = Sample { took_us: Some(SECOND), output_tokens: 50, ..Sample::default() };
        let spike = Spike { measure: Measure::TokenTime, measured: 20_000, threshold: 10_000 };
        assert_eq!(watch.ended(&slow, (ticket, Some(sample)), 0), Some(spike));
        assert!(Policy::default().is_none() && !slow.is_none());
    }

    #[test]
    fn what_has_left_the_window_counts_no_more_and_what_is_good_makes_up_for_what_is_not() {
        let mut watch = Watch::default();
        for _ in 0..2 {
            assert_eq!(call(&mut watch, took(5_000), 0), None);
        }
        for at in 0..30 {
            assert_eq!(call(&mut watch, took(100), (70 + at) * SECOND), None);
        }
        let mut watch = Watch::default();
        for _ in 0..100 {
            assert_eq!(call(&mut watch, took(100), 0), None);
        }
        assert_eq!(call(&mut watch, took(5_000), SECOND), None);
        assert_eq!(watch.state(SECOND), State::Calm);
    }

    #[test]
    fn one_call_at_a_time_tries_it_out_and_two_good_ones_calm_it() {
        let mut watch = Watch::default();
        let late = watch.ask(&policy(), 0).unwrap();
        for _ in 0..3 {
            call(&mut watch, took(900), 0);
        }
        assert_eq!(watch.ended(&policy(), (late, took(1)), SECOND), None, "an earlier call ends no spike");
        let mut now_us = 30 * SECOND;
        assert_eq!(watch.state(now_us), State::Probing);
        let probe = watch.ask(&policy(), now_us).unwrap();
        assert!(watch.ask(&policy(), now_us).is_err(), "one at a time");
        assert!(watch.ended(&policy(), (probe, took(800)), now_us).is_some(), "still slow");
        assert!(watch.ask(&policy(), now_us + 29 * SECOND).is_err());
        now_us += 30 * SECOND;
        assert_eq!(call(&mut watch, took(100), now_us), None);
        assert_eq!(watch.state(now_us), State::Probing, "one is not enough");
        // One that nobody hears of holds the others up for a while.
        watch.ask(&policy(), now_us).unwrap();
        assert!(watch.ask(&policy(), now_us + SECOND).is_err());
        now_us += 30 * SECOND;
        assert_eq!(call(&mut watch, None, now_us), None, "given up: the next one may try");
        assert_eq!(call(&mut watch, took(100), now_us), None);
        assert_eq!(watch.state(now_us), State::Calm);
        assert_eq!(call(&mut watch, took(900), now_us), None, "it begins anew");
        // A failure while it is tried out.
        for _ in 0..2 {
            call(&mut watch, took(900), now_us);
        }
        now_us += 30 * SECOND;
        assert!(call(&mut watch, Some(Sample { failed: true, ..Sample::default() }), now_us).is_some());
    }

    proptest! {
        /// Whatever happens: what is refused may be asked after a rest, and only one tries it out at a time.
        #[test]
        fn it_is_never_left_alone_for_ever(
            steps in proptest::collection::vec((0_u64..40, 0_u8..3, 0_u64..2_000, any::<bool>()), 1..200),
        ) {
            let policy = policy();
            let (mut watch, mut now_us, mut open) = (Watch::default(), 0, Vec::new());
            for (later, what, millis, failed) in steps {
                now_us += later * SECOND;
                if what > 0 || open.is_empty() {
                    let before = watch.state(now_us);
                    match watch.ask(&policy, now_us) {
                        Ok(ticket) => {
                            prop_assert_ne!(before, State::Spiking);
                            if before == State::Probing {
                                prop_assert!(watch.ask(&policy, now_us).is_err());
                            }
                            open.push(ticket);
                        }
                        Err(_) => {
                            prop_assert_ne!(before, State::Calm);
                            let mut then = watch;
                            prop_assert!(then.ask(&policy, now_us + 30 * SECOND).is_ok());
                        }
                    }
                    continue;
                }
                let ticket = open.remove(millis as usize % open.len());
                let sample = Sample { took_us: Some(millis * 1_000), failed, ..Sample::default() };
                let spiked = watch.ended(&policy, (ticket, Some(sample)), now_us).is_some();
                prop_assert_eq!(spiked, spiked && watch.state(now_us) == State::Spiking);
            }
        }
    }
}
