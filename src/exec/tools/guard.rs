//! What stands before one tool server, or one host of HTTP tools: its pace (F383), its circuit breaker (F379, F388), and so many
//! calls at once. Decisions are made in [`super::pace`] and `resilience::breaker`; here are the clock and the places.
//!
//! What must hold: a call that is refused was not begun and takes nothing of the pace; what a tool says is wrong with a call is no
//! failure of its server. When [`limits::TOOL_CALLS_WAITING_MAX`] calls wait for a place, further ones are refused.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use tokio::sync::Semaphore;

use super::pace::{Pace, Policy};
use crate::limits;
use crate::model::{Class, Failure, Value};
use crate::resilience::{CircuitBreaker, Config, Refusal, State, breaker, overload};
use crate::time::{Clock, SystemClock};

/// One server's, or one host's.
pub(super) struct Guard<C: Clock = SystemClock> {
    /// As failures name it.
    name: String,
    policy: Option<Policy>,
    pace: RefCell<Pace>,
    breaker: CircuitBreaker<C>,
    clock: C,
    places: Semaphore,
    waiting: Cell<usize>,
}

/// What it is told.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) calls_per_minute: u64,
    pub(super) max_in_flight: usize,
}

/// A call's failure, or that it was not let through.
struct Ended(Box<Failure>, bool);

impl From<Refusal> for Ended {
    fn from(refusal: Refusal) -> Self {
        let mut failure = Failure::classed("tool_unavailable", refusal.to_string());
        if let Refusal::Open { last_failure_at, retry_after } = refusal {
            failure.details = Value::map([
                ("last_failure_at", Value::string(last_failure_at.to_string())),
                ("retry_after_ms", millis(retry_after)),
            ]);
        }
        Self(Box::new(failure), true)
    }
}

fn millis(duration: Duration) -> Value {
    Value::unsigned(u64::try_from(duration.as_micros().div_ceil(1_000)).unwrap_or(u64::MAX))
}

/// Whose fault is it? What the server does not answer, or not in time, counts against it; that it has too much to do says neither
/// that it works nor that it fails.
fn weight(failure: &Failure) -> breaker::Ended {
    match &*failure.code {
        "tool_unavailable" | "tool_timeout" => breaker::Ended::Failed,
        "tool_rate_limited" => overload::overloaded(failure.retry_after()),
        _ => breaker::Ended::Succeeded,
    }
}

/// One more waits.
struct Waiting<'a>(&'a Cell<usize>);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

impl Guard {
    pub(super) fn new(name: String, bounds: Bounds) -> Self {
        Self::with_clock(name, bounds, SystemClock)
    }
}

impl<C: Clock + Copy> Guard<C> {
    pub(super) fn with_clock(name: String, bounds: Bounds, clock: C) -> Self {
        Self {
            name,
            policy: Policy::of(bounds.calls_per_minute),
            pace: RefCell::default(),
            breaker: CircuitBreaker::with_clock(Config::default(), clock),
            clock,
            places: Semaphore::new(bounds.max_in_flight.max(1)),
            waiting: Cell::new(0),
        }
    }

    /// Makes the call within `timeout`, or says why not. Only what is `paced` counts as one of a minute's calls.
    pub(super) async fn call<T, F: Future<Output = Result<T, Failure>>>(
        &self,
        timeout: Duration,
        paced: bool,
        call: impl FnOnce() -> F,
    ) -> Result<T, Failure> {
        let policy = self.policy.filter(|_| paced);
        self.take_turn(policy)?;
        let guarded = self.breaker.call_weighing(
            |ended: &Ended| weight(&ended.0),
            || async { self.placed(timeout, call).await.map_err(|failure| Ended(Box::new(failure), false)) },
        );
        guarded.await.map_err(|Ended(failure, refused)| {
            if refused && let Some(policy) = policy {
                self.pace.borrow_mut().give_back(policy);
            }
            let message = match refused {
                true => format!("{}: {}", self.name, failure.message).into(),
                false => failure.message.clone(),
            };
            Failure { message, ..*failure }
        })
    }

    fn take_turn(&self, policy: Option<Policy>) -> Result<(), Failure> {
        let Some(policy) = policy else { return Ok(()) };
        self.pace.borrow_mut().take(policy, self.clock.monotonic_us()).map_err(|wait_us| {
            let message = format!(
                "{} takes {} calls a minute (calls_per_minute), and had them",
                self.name, policy.calls_per_minute
            );
            let details = Value::map([("retry_after_ms", Value::unsigned(wait_us.div_ceil(1_000)))]);
            Failure { class: Class::Recoverable, details, ..Failure::fatal("tool_rate_limited", message) }
        })
    }

    async fn placed<T, F: Future<Output = Result<T, Failure>>>(
        &self,
        timeout: Duration,
        call: impl FnOnce() -> F,
    ) -> Result<T, Failure> {
        if self.places.available_permits() == 0 && self.waiting.get() >= limits::TOOL_CALLS_WAITING_MAX {
            let message = format!(
                "{} calls of {} wait already (limit tool_calls_waiting_max)",
                self.waiting.get(),
                self.name
            );
            let details = Value::map([("retry_after_ms", Value::Int(1_000))]);
            let refused = Failure::fatal("tool_rate_limited", message);
            return Err(Failure { class: Class::Recoverable, details, ..refused });
        }
        self.waiting.set(self.waiting.get() + 1);
        let waiting = Waiting(&self.waiting);
        let work = async {
            let _place = self.places.acquire().await;
            drop(waiting);
            call().await
        };
        tokio::time::timeout(timeout, work).await.unwrap_or_else(|_| {
            let message = format!("{} has not answered within {timeout:?}", self.name);
            Err(Failure::transient("tool_timeout", message))
        })
    }

    /// May it be forgotten? Nothing is owed, nothing under way, and it does not fail.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.get() == 0
            && self.pace.borrow().is_idle(self.clock.monotonic_us())
            && self.breaker.state() == State::Closed
    }

    /// Is it left alone at the moment?
    pub(super) fn is_open(&self) -> bool {
        self.breaker.state() == State::Open
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;
    use crate::time::Timestamp;

    #[derive(Clone, Copy)]
    struct Hand(&'static std::sync::atomic::AtomicU64);

    impl Hand {
        fn new() -> Self {
            Self(Box::leak(Box::new(std::sync::atomic::AtomicU64::new(60_000_000))))
        }

        fn turn(&self, us: u64) {
            self.0.fetch_add(us, std::sync::atomic::Ordering::Relaxed);
        }
    }

    impl Clock for Hand {
        fn now(&self) -> Timestamp {
            Timestamp::from_micros(1_000_000_000_000_000 + self.monotonic_us())
        }

        fn monotonic_us(&self) -> u64 {
            self.0.load(std::sync::atomic::Ordering::Relaxed)
        }
    }

    const LONG: Duration = Duration::from_secs(60);

    fn guard(calls_per_minute: u64, clock: Hand) -> Guard<Hand> {
        Guard::with_clock("the server x".into(), Bounds { calls_per_minute, max_in_flight: 2 }, clock)
    }

    async fn down(guard: &Guard<Hand>) -> Failure {
        let down = || async { Err::<(), _>(Failure::transient("tool_unavailable", "it is down")) };
        guard.call(LONG, true, down).await.unwrap_err()
    }

    // F379, F388
    #[tokio::test]
    async fn a_server_that_is_down_is_left_alone_and_says_until_when() {
        let clock = Hand::new();
        let guard = guard(0, clock);
        for _ in 0..5 {
            assert_eq!(&*down(&guard).await.message, "it is down");
        }
        clock.turn(1_000_000);
        let called = Cell::new(false);
        let call = || async {
            called.set(true);
            Ok(())
        };
        let refused = guard.call(LONG, true, call).await.unwrap_err();
        assert!(!called.get() && guard.is_open() && !guard.is_idle());
        assert_eq!((&*refused.code, refused.retryable()), ("tool_unavailable", true));
        assert!(refused.message.starts_with("the server x: the circuit breaker is open"), "{refused}");
        assert_eq!(refused.retry_after(), Some(Duration::from_secs(59)));
        let at = refused.details.get("last_failure_at").and_then(Value::as_str).unwrap().to_owned();
        assert_eq!(at.parse::<Timestamp>().unwrap().as_micros(), 1_000_000_060_000_000);
        clock.turn(59_000_000);
        for _ in 0..2 {
            guard.call(LONG, true, || async { Ok(()) }).await.unwrap();
        }
        assert!(!guard.is_open() && guard.is_idle());
    }

    #[tokio::test]
    async fn what_a_tool_says_is_wrong_is_no_failure_of_its_server() {
        let guard = guard(0, Hand::new());
        for _ in 0..20 {
            let failed = || async { Err::<(), _>(Failure::fatal("tool_failed", "no such city")) };
            assert_eq!(&*guard.call(LONG, true, failed).await.unwrap_err().code, "tool_failed");
        }
        assert!(!guard.is_open());
    }

    // F383
    #[tokio::test]
    async fn calls_above_the_pace_are_told_when_to_come_back_and_refused_ones_take_nothing_of_it() {
        let clock = Hand::new();
        let guard = guard(6, clock);
        for _ in 0..5 {
            down(&guard).await;
        }
        // Open: these take none of the last place.
        for _ in 0..10 {
            assert_eq!(&*down(&guard).await.code, "tool_unavailable");
        }
        let guard = self::guard(6, clock);
        for _ in 0..6 {
            guard.call(LONG, true, || async { Ok(()) }).await.unwrap();
        }
        let refused = guard.call(LONG, true, || async { Ok(()) }).await.unwrap_err();
        assert_eq!((&*refused.code, refused.class), ("tool_rate_limited", Class::Recoverable));
        assert_eq!(refused.retry_after(), Some(Duration::from_secs(10)));
        clock.turn(10_000_000);
        guard.call(LONG, true, || async { Ok(()) }).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn so_many_go_at_once_so_many_wait_and_nobody_waits_for_ever() {
        let local = tokio::task::LocalSet::new();
        let work = async {
            let guard = Rc::new(guard(0, Hand::new()));
            let hang = |guard: Rc<Guard<Hand>>| async move {
                guard.call(LONG, true, std::future::pending::<Result<(), Failure>>).await.unwrap_err()
            };
            let all: Vec<_> = (0..limits::TOOL_CALLS_WAITING_MAX + 2)
                .map(|_| tokio::task::spawn_local(hang(guard.clone())))
                .collect();
            while guard.waiting.get() < limits::TOOL_CALLS_WAITING_MAX {
                tokio::task::yield_now().await;
            }
            let refused = guard.call(LONG, true, || async { Ok(()) }).await.unwrap_err();
            assert!(refused.message.contains("tool_calls_waiting_max"), "{refused}");
            for one in all {
                assert_eq!(&*one.await.unwrap().code, "tool_timeout");
            }
        };
        local.run_until(work).await;
    }
}
