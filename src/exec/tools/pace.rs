//! How many calls a minute go to one tool server or host (F383): the generic cell rate algorithm, as a function of policy, state
//! and `now`. A minute's calls may go at once after a quiet minute; then they are as far apart as they would be evenly spread.

use crate::limits;

/// How many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Policy {
    /// From 1.
    pub(super) calls_per_minute: u64,
}

/// When what was let through so far is used up (monotonic).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Pace {
    spent_until_us: u64,
}

const MINUTE_US: u64 = 60_000_000;

impl Policy {
    /// `None` for 0: nobody is counted.
    pub(super) fn of(calls_per_minute: u64) -> Option<Self> {
        (calls_per_minute > 0)
            .then_some(Self { calls_per_minute: calls_per_minute.min(limits::TOOL_CALLS_PER_MINUTE_MAX) })
    }

    fn between_us(self) -> u64 {
        MINUTE_US.div_ceil(self.calls_per_minute.max(1))
    }
}

impl Pace {
    /// Lets a call through.
    ///
    /// # Errors
    /// Microseconds until one may go.
    pub(super) fn take(&mut self, policy: Policy, now_us: u64) -> Result<(), u64> {
        let between = policy.between_us();
        let ahead = between.saturating_mul(policy.calls_per_minute.saturating_sub(1));
        let due_us = self.spent_until_us.saturating_sub(ahead);
        if due_us > now_us {
            return Err(due_us - now_us);
        }
        self.spent_until_us = self.spent_until_us.max(now_us).saturating_add(between);
        Ok(())
    }

    /// A call that was let through was not made.
    pub(super) fn give_back(&mut self, policy: Policy) {
        self.spent_until_us = self.spent_until_us.saturating_sub(policy.between_us());
    }

    /// Nothing is owed.
    pub(super) fn is_idle(&self, now_us: u64) -> bool {
        self.spent_until_us <= now_us
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    // F383
    #[test]
    fn a_minutes_calls_go_at_once_and_then_evenly() {
        let policy = Policy::of(6).unwrap();
        let (mut pace, start) = (Pace::default(), 1_000 * MINUTE_US);
        for _ in 0..6 {
            assert_eq!(pace.take(policy, start), Ok(()));
        }
        assert_eq!(pace.take(policy, start), Err(10_000_000));
        assert_eq!(pace.take(policy, start + 9_999_999), Err(1));
        assert_eq!(pace.take(policy, start + 10_000_000), Ok(()));
        assert_eq!(pace.take(policy, start + 10_000_000), Err(10_000_000));
        pace.give_back(policy);
        assert_eq!(pace.take(policy, start + 10_000_000), Ok(()));
        assert!(!pace.is_idle(start + 20_000_000) && pace.is_idle(start + 70_000_000));
        assert_eq!(Policy::of(0), None);
    }

    proptest! {
        /// In no minute go more than twice the calls, in the long run not more than the calls; and what is said is true.
        #[test]
        fn whatever_comes_the_pace_is_kept(per_minute in 1_u64..40, steps in prop::collection::vec(0_u64..20_000_000, 1..300)) {
            let policy = Policy::of(per_minute).unwrap();
            let (mut pace, mut now_us, mut gone) = (Pace::default(), MINUTE_US, Vec::new());
            for later in steps {
                now_us += later;
                match pace.take(policy, now_us) {
                    Ok(()) => gone.push(now_us),
                    Err(wait_us) => {
                        let (mut then, mut before) = (pace, pace);
                        prop_assert!(before.take(policy, now_us + wait_us - 1).is_err());
                        prop_assert!(then.take(policy, now_us + wait_us).is_ok());
                    }
                }
            }
            for (at, first_us) in gone.iter().enumerate() {
                let within = gone[at..].iter().take_while(|us| **us - first_us < MINUTE_US).count() as u64;
                prop_assert!(within <= 2 * per_minute, "{within} of {per_minute}");
            }
            let minutes = (now_us - MINUTE_US).div_ceil(MINUTE_US);
            prop_assert!(gone.len() as u64 <= per_minute * (minutes + 1) + 1);
        }
    }
}
