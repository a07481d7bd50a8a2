//! When the node tries again what is its own affair, such as telling others: by the same reckoning as nodes of a run.

use std::time::Duration;

use crate::engine::retry;
use crate::ir::{Backoff, Retry};
use crate::model::Failure;
use crate::time::Timestamp;

/// When the next attempt begins after this one, the `n`-th from 0: twice as long each time, from the first pause to the longest, with
/// jitter; later when whoever failed asked for more. `draw` is uniform over all of `u32`.
pub fn next_attempt(
    n: u32,
    (first, longest): (Duration, Duration),
    draw: u32,
    failure: &Failure,
    now: Timestamp,
) -> Timestamp {
    let policy = Retry {
        max_attempts: u32::MAX,
        backoff: Backoff::Exponential,
        initial: first,
        max: longest,
        multiplier: 2.0,
        jitter: true,
    };
    retry::due(&policy, n, draw, failure, now)
}
