//! When calls to what fails are given up at once: the states of a circuit breaker.
//!
//! Closed, it lets every call through; [`Config::failure_threshold`] failures in a row open it (F364). Open, it refuses all for
//! [`Config::timeout`] (F365). Then it is half open: one call at a time goes through, [`Config::success_threshold`] successes close
//! it, any failure opens it again (F366; D12); while the service says that it has too much to do nothing is counted, and half open the
//! next call waits as told ([`super::overload`]). Functions of policy, state, event and `now`, which is monotonic.
//!
//! What must hold: a call counts for the state in which it was asked for, and no other, so the late answer of one that began
//! before it opened neither closes nor opens anything; a probe whose end nobody hears of holds the others up for
//! [`Config::timeout`], not for ever.

use std::time::Duration;

/// When it opens, for how long, and when it closes again. The field names are those of the seeds (F387).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Failures in a row that open it; 0 is taken for 1.
    pub failure_threshold: u32,
    /// How long it stays open.
    pub timeout: Duration,
    /// Successes in a row, half open, that close it; 0 is taken for 1.
    pub success_threshold: u32,
}

/// 5 failures, 60 s, 2 successes.
impl Default for Config {
    fn default() -> Self {
        Self { failure_threshold: 5, timeout: Duration::from_secs(60), success_threshold: 2 }
    }
}

impl Config {
    fn until(&self, now_us: u64) -> u64 {
        now_us.saturating_add(u64::try_from(self.timeout.as_micros()).unwrap_or(u64::MAX))
    }
}

/// What it does with the next call (F367).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Lets it through.
    Closed,
    /// Refuses it.
    Open,
    /// Lets it through if no other is under way.
    HalfOpen,
}

impl State {
    /// As metrics and answers have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

/// What came of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// What is called answers.
    Succeeded,
    /// It does not.
    Failed,
    /// It answers others, and has too much to do for this call ([`super::overload`]).
    Overloaded {
        /// When to come back, as it says, from now; 0: it does not say.
        wait_us: u64,
    },
    /// The call was dropped.
    Unknown,
}

/// Given to a call that is let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    turn: u64,
}

/// A call is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Open {
    /// When the last failure was.
    pub failed_us: u64,
    /// When a call may be let through, from now.
    pub retry_after_us: u64,
}

/// A circuit breaker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Breaker {
    phase: Phase,
    /// Goes up whenever answers to earlier calls cease to count.
    turn: u64,
    failed_us: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Closed { failures: u32 },
    Open { until_us: u64 },
    HalfOpen { successes: u32, probe_until_us: Option<u64> },
}

impl Default for Phase {
    fn default() -> Self {
        Self::Closed { failures: 0 }
    }
}

impl Breaker {
    /// Is a call let through? Whoever has the ticket says what came of it.
    ///
    /// # Errors
    /// It is open, or half open with a call under way.
    pub fn ask(&mut self, config: &Config, now_us: u64) -> Result<Ticket, Open> {
        let (successes, held_until_us) = match self.phase {
            Phase::Closed { .. } => return Ok(Ticket { turn: self.turn }),
            Phase::Open { until_us } => (0, Some(until_us)),
            Phase::HalfOpen { successes, probe_until_us } => (successes, probe_until_us),
        };
        if let Some(until_us) = held_until_us.filter(|until_us| now_us < *until_us) {
            return Err(Open { failed_us: self.failed_us, retry_after_us: until_us - now_us });
        }
        self.turn += 1;
        self.phase = Phase::HalfOpen { successes, probe_until_us: Some(config.until(now_us)) };
        Ok(Ticket { turn: self.turn })
    }

    /// What came of a call that was let through.
    pub fn ended(&mut self, config: &Config, (ticket, ended): (Ticket, Ended), now_us: u64) {
        if ticket.turn != self.turn {
            return;
        }
        match (self.phase, ended) {
            (Phase::Open { .. }, _) | (Phase::Closed { .. }, Ended::Unknown | Ended::Overloaded { .. }) => {}
            (Phase::Closed { .. }, Ended::Succeeded) => self.phase = Phase::default(),
            (Phase::Closed { failures }, Ended::Failed) => {
                let failures = failures.saturating_add(1);
                self.failed_us = now_us;
                self.phase = Phase::Closed { failures };
                if failures >= config.failure_threshold.max(1) {
                    self.open(config, now_us);
                }
            }
            (Phase::HalfOpen { .. }, Ended::Failed) => self.open(config, now_us),
            (Phase::HalfOpen { successes, .. }, Ended::Unknown) => {
                self.phase = Phase::HalfOpen { successes, probe_until_us: None };
            }
            (Phase::HalfOpen { successes, .. }, Ended::Overloaded { wait_us }) => {
                let until_us = now_us.saturating_add(wait_us).min(config.until(now_us));
                self.phase = Phase::HalfOpen { successes, probe_until_us: Some(until_us) };
            }
            (Phase::HalfOpen { successes, .. }, Ended::Succeeded) => {
                let successes = successes.saturating_add(1);
                self.phase = Phase::HalfOpen { successes, probe_until_us: None };
                if successes >= config.success_threshold.max(1) {
                    self.turn += 1;
                    self.phase = Phase::default();
                }
            }
        }
    }

    /// What it does with a call at this moment.
    pub fn state(&self, now_us: u64) -> State {
        match self.phase {
            Phase::Closed { .. } => State::Closed,
            Phase::Open { until_us } if now_us < until_us => State::Open,
            Phase::Open { .. } | Phase::HalfOpen { .. } => State::HalfOpen,
        }
    }

    fn open(&mut self, config: &Config, now_us: u64) {
        self.failed_us = now_us;
        self.turn += 1;
        self.phase = Phase::Open { until_us: config.until(now_us) };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000;

    fn opened(config: &Config) -> Breaker {
        let mut breaker = Breaker::default();
        for second in 0..u64::from(config.failure_threshold) {
            let ticket = breaker.ask(config, second).unwrap();
            breaker.ended(config, (ticket, Ended::Failed), second);
        }
        breaker
    }

    #[test]
    fn the_fifth_failure_in_a_row_opens_it_for_a_minute() {
        // F364, F365, F367
        let config = Config::default();
        let mut breaker = Breaker::default();
        for (n, ended) in [(0, 4), (4, 0), (5, 4)] {
            for _ in 0..ended {
                let ticket = breaker.ask(&config, n).unwrap();
                breaker.ended(&config, (ticket, Ended::Failed), n);
            }
            let ticket = breaker.ask(&config, n).unwrap();
            breaker.ended(&config, (ticket, Ended::Succeeded), n);
        }
        assert_eq!(
            breaker,
            Breaker { failed_us: 5, ..Breaker::default() },
            "a success in between begins anew"
        );
        let mut breaker = opened(&config);
        assert_eq!(breaker.state(SECOND), State::Open);
        let refused = Open { failed_us: 4, retry_after_us: 59 * SECOND + 4 };
        assert_eq!(breaker.ask(&config, SECOND), Err(refused));
        assert_eq!(breaker.state(60 * SECOND + 3), State::Open);
        assert_eq!(breaker.state(60 * SECOND + 4), State::HalfOpen);
    }

    #[test]
    fn one_probe_at_a_time_two_successes_close_it_and_any_failure_opens_it_again() {
        // F366
        let config = Config::default();
        let late = 61 * SECOND;
        let mut breaker = opened(&config);
        let first = breaker.ask(&config, late).unwrap();
        assert_eq!(
            breaker.ask(&config, late + 1),
            Err(Open { failed_us: 4, retry_after_us: 60 * SECOND - 1 })
        );
        breaker.ended(&config, (first, Ended::Succeeded), late + 2);
        let second = breaker.ask(&config, late + 3).unwrap();
        assert_eq!(breaker.state(late + 4), State::HalfOpen);
        let mut failing = breaker;
        breaker.ended(&config, (second, Ended::Succeeded), late + 5);
        assert_eq!(breaker.state(late + 6), State::Closed);
        failing.ended(&config, (second, Ended::Failed), late + 5);
        assert_eq!(failing.ask(&config, late + 6).unwrap_err().failed_us, late + 5);
        assert_eq!(failing.state(late + 5 + 60 * SECOND), State::HalfOpen);
    }

    #[test]
    fn a_call_counts_for_the_state_in_which_it_was_asked_for() {
        let config = Config::default();
        let mut breaker = Breaker::default();
        let early = breaker.ask(&config, 0).unwrap();
        for _ in 0..5 {
            let ticket = breaker.ask(&config, 0).unwrap();
            breaker.ended(&config, (ticket, Ended::Failed), 0);
        }
        let probe = breaker.ask(&config, 60 * SECOND).unwrap();
        for ended in [Ended::Succeeded, Ended::Failed, Ended::Unknown] {
            let before = breaker;
            breaker.ended(&config, (early, ended), 60 * SECOND + 1);
            assert_eq!(breaker, before, "{ended:?}");
        }
        // Nobody says what came of the probe: another one after a minute, and the first is not heard any more.
        let next = breaker.ask(&config, 120 * SECOND).unwrap();
        breaker.ended(&config, (probe, Ended::Failed), 120 * SECOND + 1);
        assert_eq!(breaker.state(120 * SECOND + 2), State::HalfOpen);
        // One that was dropped makes room at once.
        breaker.ended(&config, (next, Ended::Unknown), 120 * SECOND + 3);
        assert!(breaker.ask(&config, 120 * SECOND + 3).is_ok());
    }

    proptest! {
        /// Against a list of what was asked and told: the rules, written down once more in the plainest way.
        #[test]
        fn whatever_comes_the_rules_hold(
            (threshold, successes) in (1_u32..4, 1_u32..4),
            steps in prop::collection::vec((0_u8..4, 0_usize..6, 0_u64..40), 1..200),
        ) {
            let config = Config {
                failure_threshold: threshold, timeout: Duration::from_micros(50), success_threshold: successes,
            };
            let (mut breaker, mut now_us) = (Breaker::default(), 0);
            // Tickets that nobody has told the end of, with the state they were given in.
            let mut open: Vec<(Ticket, State)> = Vec::new();
            for (what, which, later) in steps {
                now_us += later;
                let before = breaker.state(now_us);
                if what == 0 || open.is_empty() {
                    match breaker.ask(&config, now_us) {
                        Ok(ticket) => {
                            prop_assert_ne!(before, State::Open);
                            open.push((ticket, before));
                        }
                        Err(refused) => {
                            prop_assert_ne!(before, State::Closed);
                            prop_assert!(refused.retry_after_us > 0 && refused.retry_after_us <= 50);
                            prop_assert!(refused.failed_us <= now_us);
                            // As it says.
                            let mut then = breaker;
                            prop_assert!(then.ask(&config, now_us + refused.retry_after_us).is_ok());
                        }
                    }
                    continue;
                }
                let (ticket, given) = open.remove(which % open.len());
                let ended = [Ended::Succeeded, Ended::Failed, Ended::Unknown][usize::from(what) - 1];
                breaker.ended(&config, (ticket, ended), now_us);
                let after = breaker.state(now_us);
                match (before, after) {
                    (State::Closed, State::Open) => prop_assert!(ended == Ended::Failed && given == State::Closed),
                    (State::HalfOpen, State::Open) => prop_assert!(ended == Ended::Failed && given == State::HalfOpen),
                    (State::HalfOpen, State::Closed) => {
                        prop_assert!(ended == Ended::Succeeded && given == State::HalfOpen);
                    }
                    (before, after) => prop_assert_eq!(before, after),
                }
            }
        }
    }
}
