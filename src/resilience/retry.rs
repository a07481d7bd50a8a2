//! When a call that failed is made again: how long to wait in between, and how often (F354 to F363; D11).
//!
//! The delays are those of the node's own retries. `max_attempts` counts calls, the first one included; the cap holds after
//! the jitter, too. What must hold: a failure that another call would meet again is not tried again, and whoever failed
//! is left alone for as long as it asked, an hour at most.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::time::Duration;

use super::Refusal;
use crate::limits;

/// How delays grow from retry to retry (n = 0, 1, ...).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backoff {
    /// `initial * multiplier^n`
    Exponential,
    /// `initial * n`
    Linear,
    /// `initial`
    Fixed,
}

/// How often, and how long in between.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Policy {
    /// Calls in all; 0 is taken for 1.
    pub max_attempts: u32,
    /// How delays grow.
    pub backoff: Backoff,
    /// The first delay.
    pub initial: Duration,
    /// No delay is longer, unless whoever failed asked for it.
    pub max: Duration,
    /// What each exponential delay is of the one before.
    pub multiplier: f64,
    /// Whether delays are multiplied by a draw from 0.5 to 1.5.
    pub jitter: bool,
}

/// 3 calls, 1 s doubled up to 60 s, jitter.
impl Default for Policy {
    fn default() -> Self {
        Self {
            max_attempts: 3,
            backoff: Backoff::Exponential,
            initial: Duration::from_secs(1),
            max: Duration::from_secs(60),
            multiplier: 2.0,
            jitter: true,
        }
    }
}

impl Policy {
    /// The delay before retry `n` = 0, 1, ...; `draw` is uniform over all of `u32`.
    pub fn delay(&self, n: u32, draw: u32) -> Duration {
        let most = self.max.as_secs_f64();
        let initial = self.initial.as_secs_f64();
        let exponent = i32::try_from(n).unwrap_or(i32::MAX);
        let plain = match self.backoff {
            Backoff::Exponential => initial * self.multiplier.powi(exponent),
            Backoff::Linear => initial * f64::from(n),
            Backoff::Fixed => initial,
        };
        let plain = plain.min(most);
        let drawn = if self.jitter { plain * (0.5 + f64::from(draw) / 4_294_967_296.0) } else { plain };
        // 0 * infinity is no number; neither is a delay then.
        Duration::try_from_secs_f64(drawn.min(most)).unwrap_or(self.max)
    }

    /// The same, and not before whoever failed asked for.
    pub fn wait(&self, n: u32, draw: u32, asked: Option<Duration>) -> Duration {
        let most = Duration::from_secs(limits::RETRY_AFTER_SECONDS_MAX);
        self.delay(n, draw).max(asked.unwrap_or_default().min(most))
    }
}

/// An error that says whether the call may be made again.
pub trait Retryable {
    /// May another call succeed?
    fn retryable(&self) -> bool;
    /// How long whoever failed asks to be left alone.
    fn retry_after(&self) -> Option<Duration> {
        None
    }
}

/// Every refusal passes.
impl Retryable for Refusal {
    fn retryable(&self) -> bool {
        true
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Open { retry_after, .. } => Some(*retry_after),
            Self::Full { .. } | Self::TimedOut { .. } => None,
        }
    }
}

/// Makes a call until it succeeds, fails for good, or has been made often enough. Needs tokio's time.
///
/// ```
/// use std::time::Duration;
/// use aob::resilience::{Retryable, retry};
/// use aob::resilience::retry::Policy;
///
/// #[derive(Debug)]
/// struct Down;
/// impl Retryable for Down {
///     fn retryable(&self) -> bool {
///         true
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let policy = Policy { initial: Duration::from_millis(1), ..Policy::default() };
/// let mut calls = 0;
/// let fetched = retry(&policy, || {
///     calls += 1;
///     let answer = if calls < 3 { Err(Down) } else { Ok(7) };
///     async move { answer }
/// });
/// assert_eq!(fetched.await.unwrap(), 7);
/// assert_eq!(calls, 3);
/// # }
/// ```
///
/// # Errors
/// That of the last call.
pub async fn retry<T, E, F>(policy: &Policy, call: impl FnMut() -> F) -> Result<T, E>
where
    E: Retryable,
    F: Future<Output = Result<T, E>>,
{
    retry_with(policy, (tokio::time::sleep, draw), call).await
}

/// Half of the hash of nothing under keys of the system's choice: enough to keep callers from coming back together.
fn draw() -> u32 {
    (RandomState::new().build_hasher().finish() >> 32) as u32
}

/// The same with another way to wait, and another source of draws, uniform over all of `u32`.
///
/// # Errors
/// That of the last call.
pub async fn retry_with<T, E, F, W>(
    policy: &Policy,
    (mut sleep, mut draw): (impl FnMut(Duration) -> W, impl FnMut() -> u32),
    mut call: impl FnMut() -> F,
) -> Result<T, E>
where
    E: Retryable,
    F: Future<Output = Result<T, E>>,
    W: Future<Output = ()>,
{
    let mut retries = 0;
    loop {
        let error = match call().await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        if !error.retryable() || retries + 1 >= policy.max_attempts {
            return Err(error);
        }
        sleep(policy.wait(retries, draw(), error.retry_after())).await;
        retries += 1;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Fails as said, then gives the number of calls; also what was waited.
    async fn run(policy: &Policy, failures: &[Refusal]) -> (Result<usize, Refusal>, Vec<Duration>) {
        let (mut calls, waits) = (0, RefCell::new(Vec::new()));
        let sleep = |delay| {
            waits.borrow_mut().push(delay);
            std::future::ready(())
        };
        let answer = retry_with(policy, (sleep, || 0), || {
            calls += 1;
            std::future::ready(failures.get(calls - 1).map_or(Ok(calls), |failure| Err(failure.clone())))
        });
        (answer.await, waits.take())
    }

    // F354, F355, F358, F359, F360, F363, F437
    #[tokio::test]
    async fn calls_are_counted_and_delays_grow_as_the_nodes_do() {
        let policy = Policy { jitter: false, ..Policy::default() };
        let down = Refusal::TimedOut { after: SECOND };
        let downs = vec![down.clone(); 9];
        assert_eq!(run(&policy, &downs).await, (Err(down.clone()), vec![SECOND, 2 * SECOND]));
        assert_eq!(run(&policy, &downs[..2]).await, (Ok(3), vec![SECOND, 2 * SECOND]));
        let (_, waits) = run(&Policy { max_attempts: 9, ..policy }, &downs).await;
        assert_eq!(waits.iter().map(Duration::as_secs).collect::<Vec<_>>(), [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(run(&Policy { max_attempts: 0, ..policy }, &downs).await, (Err(down), vec![]));
        let (_, waits) = run(&Policy::default(), &downs).await;
        assert_eq!(waits, [SECOND / 2, SECOND], "the least draw");
    }

    // F437
    #[tokio::test]
    async fn whoever_asks_to_be_left_alone_is_left_alone_but_not_for_ever() {
        let at = crate::time::Timestamp::from_micros(0);
        let open = |seconds| Refusal::Open { last_failure_at: at, retry_after: seconds * SECOND };
        let policy = Policy { jitter: false, ..Policy::default() };
        let (answer, waits) = run(&policy, &[open(30), open(1_000_000)]).await;
        assert_eq!((answer, waits), (Ok(3), vec![30 * SECOND, 3_600 * SECOND]));
    }

    #[derive(Debug, PartialEq)]
    struct Wrong;

    impl Retryable for Wrong {
        fn retryable(&self) -> bool {
            false
        }
    }

    // F362
    #[tokio::test]
    async fn what_would_fail_again_is_not_tried_again() {
        let mut calls = 0;
        let answer: Result<(), Wrong> = retry(&Policy::default(), || {
            calls += 1;
            std::future::ready(Err(Wrong))
        })
        .await;
        assert_eq!((answer, calls), (Err(Wrong), 1));
    }
}
