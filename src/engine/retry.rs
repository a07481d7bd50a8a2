//! How long to wait before the next attempt, and every other draw of a run (WORKFLOW.md, "Retry and errors"; D11).
//!
//! A draw is a hash of the run's seed, of where in its history it is made, and of what it is for, so it is the same whenever
//! it is made again; what was made of it stands in the event.

use sha2::{Digest, Sha256};

use crate::ir::{self, Retry};
use crate::model::event::DURATION_MAX;
use crate::model::{Failure, Partition, Place, RunId, Seq};
use crate::resilience::retry::{Backoff, Policy};
use crate::time::Timestamp;

/// The policy as whoever waits has it.
fn policy(retry: &Retry) -> Policy {
    let Retry { max_attempts, initial, max, multiplier, jitter, .. } = *retry;
    let backoff = match retry.backoff {
        ir::Backoff::Exponential => Backoff::Exponential,
        ir::Backoff::Linear => Backoff::Linear,
        ir::Backoff::Fixed => Backoff::Fixed,
    };
    Policy { max_attempts, backoff, initial, max, multiplier, jitter }
}

/// When the next attempt begins: after the policy's delay, and not before the failed one asked for; `draw` is uniform over
/// all of `u32`.
pub(super) fn due(retry: &Retry, n: u32, draw: u32, failure: &Failure, now: Timestamp) -> Timestamp {
    now.saturating_add(policy(retry).wait(n, draw, failure.retry_after()).min(DURATION_MAX))
}

/// What a draw is for.
#[derive(Clone, Copy)]
pub(super) enum Draw {
    Jitter = 1,
    Child = 2,
}

fn hash(run_id: RunId, seed: u64, place: &Place, seq: Seq, draw: Draw) -> [u8; 32] {
    let mut hasher = Sha256::new();
    hasher.update(run_id.as_bytes());
    hasher.update(seed.to_le_bytes());
    hasher.update([draw as u8]);
    for (owner, pass) in &place.scopes {
        hasher.update(owner.to_le_bytes());
        hasher.update(pass.to_le_bytes());
    }
    hasher.update(place.node.to_le_bytes());
    hasher.update(seq.to_le_bytes());
    hasher.finalize().into()
}

/// The draw behind the jitter of event `seq`.
pub(super) fn jitter(run_id: RunId, seed: u64, place: &Place, seq: Seq) -> u32 {
    let [a, b, c, d, ..] = hash(run_id, seed, place, seq, Draw::Jitter);
    u32::from_le_bytes([a, b, c, d])
}

/// The id of the child run that event `seq` asks for; its partition is drawn too, so that children spread over the shards.
pub(super) fn child(run_id: RunId, seed: u64, place: &Place, seq: Seq, now: Timestamp) -> RunId {
    let [high, low, random @ ..] = hash(run_id, seed, place, seq, Draw::Child);
    let partition = Partition::new(u16::from_be_bytes([high, low]));
    let mut ten = [0; 10];
    ten.iter_mut().zip(random).for_each(|(into, from)| *into = from);
    RunId::new(now, partition, ten)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::ir::Backoff;
    use crate::limits;
    use crate::model::{Class, Value};

    fn delay(retry: &Retry, n: u32, draw: u32) -> Duration {
        super::policy(retry).delay(n, draw)
    }

    fn policy(backoff: Backoff) -> Retry {
        let seconds = Duration::from_secs;
        let (initial, max) = (seconds(1), seconds(60));
        Retry { max_attempts: 3, backoff, initial, max, multiplier: 2.0, jitter: false }
    }

    fn seconds(retry: &Retry) -> Vec<f64> {
        (0..8).map(|n| delay(retry, n, 0).as_secs_f64()).collect()
    }

    #[test]
    fn the_seeds_vectors_hold() {
        // F355, F356, F357, F359, F360
        let exponential = policy(Backoff::Exponential);
        assert_eq!(seconds(&exponential), [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]);
        assert_eq!(seconds(&policy(Backoff::Linear)), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
        assert_eq!(seconds(&policy(Backoff::Fixed)), [1.0; 8]);
        assert_eq!(delay(&policy(Backoff::Linear), 200, 0), Duration::from_secs(60));
        assert_eq!(delay(&exponential, u32::MAX, 0), Duration::from_secs(60), "no overflow");
    }

    #[test]
    fn jitter_stays_within_half_and_one_and_a_half_and_under_the_cap() {
        // F358
        let retry = Retry { jitter: true, ..policy(Backoff::Exponential) };
        assert_eq!(delay(&retry, 0, 0), Duration::from_millis(500));
        assert_eq!(delay(&retry, 0, 1 << 31), Duration::from_secs(1));
        assert!(delay(&retry, 0, u32::MAX) <= Duration::from_millis(1_500), "rounded to a nanosecond");
        assert_eq!(delay(&retry, 6, u32::MAX), Duration::from_secs(60), "capped again");
        let id = RunId::new(Timestamp::from_micros(0), Partition::new(0), [7; 10]);
        let draws: Vec<u32> = (0..4_000).map(|seq| jitter(id, 42, &Place::root(3), seq)).collect();
        let mean = draws.iter().map(|draw| delay(&retry, 1, *draw).as_secs_f64()).sum::<f64>() / 4_000.0;
        assert!((1.95..2.05).contains(&mean), "{mean}");
        let low = draws.iter().filter(|draw| **draw < 1 << 30).count();
        assert!((900..1_100).contains(&low), "a quarter of the draws is in the lowest quarter: {low}");
    }

    #[test]
    fn whoever_failed_may_ask_for_more_time_but_not_for_ever() {
        let now = Timestamp::from_micros(5);
        let mut failure = Failure { class: Class::Recoverable, ..Failure::fatal("rate_limit", "slow down") };
        let retry = policy(Backoff::Fixed);
        let waits = |failure: &Failure| now.until(due(&retry, 0, 0, failure, now));
        assert_eq!(waits(&failure), Duration::from_secs(1));
        failure.details = Value::map([("retry_after_ms", Value::Int(7_000))]);
        assert_eq!(waits(&failure), Duration::from_secs(7));
        failure.details = Value::map([("retry_after_ms", Value::Int(i64::MAX))]);
        assert_eq!(waits(&failure), Duration::from_secs(limits::RETRY_AFTER_SECONDS_MAX));
    }

    #[test]
    fn draws_differ_by_what_they_are_for() {
        let id = RunId::new(Timestamp::from_micros(0), Partition::new(0), [7; 10]);
        let at = |node, seq| child(id, 42, &Place::root(node), seq, Timestamp::from_micros(0));
        assert_eq!(at(1, 1), at(1, 1));
        assert_ne!(at(1, 1), at(2, 1));
        assert_ne!(at(1, 1), at(1, 2));
    }
}
