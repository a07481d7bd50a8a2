//! What keeps the failure of one service from becoming everybody's: circuit breakers, bulkheads, time limits, retries (F437).
//!
//! For whoever builds on this library, and for the node. Each wraps a call that returns a `Result` and refuses in its place with
//! a [`Refusal`], which the caller's own error type is made from, so they may stand within each other in any order:
//!
//! ```
//! use std::time::Duration;
//! use aob::resilience::{Bulkhead, CircuitBreaker, Config, Refusal, within};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let service = CircuitBreaker::new(Config::default());
//! let pool = Bulkhead::new(10, 100);
//! let fetched: Result<u32, Box<dyn std::error::Error>> = service
//!     .call(|| pool.call(|| within(Duration::from_secs(5), async { Ok(7) })))
//!     .await;
//! assert_eq!(fetched.unwrap(), 7);
//! # }
//! ```
//!
//! What must hold: a refused call was not begun; a call that is dropped gives back what it held. Decisions are made by functions
//! of (policy, state, event, now) ([`breaker`], [`bulkhead`], [`mod@retry`], [`spike`]); here are the clock, the waiting and the locks around them.

pub mod breaker;
pub mod bulkhead;
pub mod overload;
pub mod retry;
pub mod spike;

use std::future::Future;
use std::sync::PoisonError;
use std::time::Duration;

use self::breaker::{Breaker, Ended, Ticket};
pub use self::breaker::{Config, State};
pub use self::bulkhead::Bulkhead;
pub use self::retry::{Retryable, retry};
use crate::time::{Clock, SystemClock, Timestamp};

/// Why a call was not made, or not waited for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// What is called has failed too often; it is left alone for a while.
    #[error(
        "the circuit breaker is open: the last failure was at {last_failure_at}; the next try may be in {retry_after:?}"
    )]
    Open {
        /// When it last failed (F367).
        last_failure_at: Timestamp,
        /// When a call may be let through again, from now.
        retry_after: Duration,
    },
    /// So many calls are under way, and so many wait.
    #[error("{running} calls are under way and {waiting} wait; there is room for no more")]
    Full {
        /// Under way.
        running: usize,
        /// Waiting.
        waiting: usize,
    },
    /// There was no answer in time; the call was dropped.
    #[error("there was no answer within {after:?}")]
    TimedOut {
        /// The time it had.
        after: Duration,
    },
}

impl Refusal {
    /// As a node's failure has it.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Open { .. } => "circuit_breaker_open",
            Self::Full { .. } => "overloaded",
            Self::TimedOut { .. } => "timeout",
        }
    }
}

/// Leaves a service that fails alone for a while, and tries it with one call before it lets all through again.
///
/// Shared by all callers of one service. A call that is dropped before its end counts as neither success nor failure.
///
/// ```
/// use std::time::Duration;
/// use aob::resilience::{CircuitBreaker, Config, Refusal, State};
///
/// #[derive(Debug, PartialEq)]
/// enum Error {
///     Down,
///     Refused(Refusal),
/// }
/// impl From<Refusal> for Error {
///     fn from(refusal: Refusal) -> Self {
///         Self::Refused(refusal)
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let config = Config { failure_threshold: 2, timeout: Duration::from_secs(60), success_threshold: 2 };
/// let breaker = CircuitBreaker::new(config);
/// for _ in 0..2 {
///     assert_eq!(breaker.call(|| async { Err::<(), _>(Error::Down) }).await, Err(Error::Down));
/// }
/// assert_eq!(breaker.state(), State::Open);
/// let refused = breaker.call(|| async { Ok::<_, Error>(()) }).await;
/// assert!(matches!(refused, Err(Error::Refused(Refusal::Open { .. }))));
/// # }
/// ```
#[derive(Debug)]
pub struct CircuitBreaker<C = SystemClock> {
    config: Config,
    clock: C,
    #[expect(clippy::disallowed_types, reason = "held for a few comparisons, never across an await")]
    breaker: std::sync::Mutex<Breaker>,
}

impl CircuitBreaker {
    /// Closed.
    pub fn new(config: Config) -> Self {
        Self::with_clock(config, SystemClock)
    }
}

impl<C: Clock> CircuitBreaker<C> {
    /// Closed, on another clock.
    pub fn with_clock(config: Config, clock: C) -> Self {
        Self { config, clock, breaker: Default::default() }
    }

    /// Makes the call, or refuses to. Every error counts as a failure.
    ///
    /// # Errors
    /// The call's own, or [`Refusal::Open`].
    pub async fn call<T, E, F>(&self, call: impl FnOnce() -> F) -> Result<T, E>
    where
        E: From<Refusal>,
        F: Future<Output = Result<T, E>>,
    {
        self.call_counting(|_| true, call).await
    }

    /// Makes the call, or refuses to. An error that does not `count` is the caller's own fault, and as good as a success: the
    /// service answers.
    ///
    /// # Errors
    /// The call's own, or [`Refusal::Open`].
    pub async fn call_counting<T, E, F>(
        &self,
        counts: impl FnOnce(&E) -> bool,
        call: impl FnOnce() -> F,
    ) -> Result<T, E>
    where
        E: From<Refusal>,
        F: Future<Output = Result<T, E>>,
    {
        self.call_weighing(|error| if counts(error) { Ended::Failed } else { Ended::Succeeded }, call).await
    }

    /// Makes the call, or refuses to; `weigh` says what an error says of what is called ([`overload::weigh`]).
    ///
    /// # Errors
    /// The call's own, or [`Refusal::Open`].
    pub async fn call_weighing<T, E, F>(
        &self,
        weigh: impl FnOnce(&E) -> Ended,
        call: impl FnOnce() -> F,
    ) -> Result<T, E>
    where
        E: From<Refusal>,
        F: Future<Output = Result<T, E>>,
    {
        let mut asked = self.ask()?;
        let answer = call().await;
        asked.ended = answer.as_ref().err().map_or(Ended::Succeeded, weigh);
        answer
    }

    /// What it is at the moment.
    pub fn state(&self) -> State {
        let now_us = self.clock.monotonic_us();
        self.with(|breaker| breaker.state(now_us))
    }

    fn ask(&self) -> Result<Asked<'_, C>, Refusal> {
        let now_us = self.clock.monotonic_us();
        let asked = self.with(|breaker| breaker.ask(&self.config, now_us));
        let ticket = asked.map_err(|open| {
            let since = Duration::from_micros(now_us.saturating_sub(open.failed_us));
            let wall = self.clock.now().as_micros();
            let since_us = u64::try_from(since.as_micros()).unwrap_or(u64::MAX);
            Refusal::Open {
                last_failure_at: Timestamp::from_micros(wall.saturating_sub(since_us)),
                retry_after: Duration::from_micros(open.retry_after_us),
            }
        })?;
        Ok(Asked { of: self, ticket, ended: Ended::Unknown })
    }

    fn with<T>(&self, look: impl FnOnce(&mut Breaker) -> T) -> T {
        look(&mut self.breaker.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A call that was let through. Its end is told when this goes, whether it was waited for or not.
struct Asked<'a, C: Clock> {
    of: &'a CircuitBreaker<C>,
    ticket: Ticket,
    ended: Ended,
}

impl<C: Clock> Drop for Asked<'_, C> {
    fn drop(&mut self) {
        let now_us = self.of.clock.monotonic_us();
        self.of.with(|breaker| breaker.ended(&self.of.config, (self.ticket, self.ended), now_us));
    }
}

/// Waits for a call for so long; then it is dropped (F380). Needs tokio's time.
///
/// # Errors
/// The call's own, or [`Refusal::TimedOut`].
pub async fn within<T, E: From<Refusal>>(
    after: Duration,
    call: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    match tokio::time::timeout(after, call).await {
        Ok(answer) => answer,
        Err(_) => Err(Refusal::TimedOut { after }.into()),
    }
}

#[cfg(test)]
mod tests;
