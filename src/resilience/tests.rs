//! Circuit breakers, bulkheads and time limits around calls, on a clock that is turned by hand.

use std::cell::Cell;
use std::future::pending;
use std::rc::Rc;
use std::task::Poll;

use super::*;

#[derive(Debug, PartialEq)]
enum Error {
    Down,
    NotFound,
    Refused(Refusal),
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// Microseconds, turned by hand; the wall clock is an hour ahead.
#[derive(Clone, Debug, Default)]
struct Hand(Rc<Cell<u64>>);

const HOUR_US: u64 = 3_600_000_000;

impl Clock for Hand {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(HOUR_US + self.0.get())
    }

    fn monotonic_us(&self) -> u64 {
        self.0.get()
    }
}

fn breaker() -> (CircuitBreaker<Hand>, Hand) {
    let hand = Hand::default();
    let config = Config { failure_threshold: 2, timeout: Duration::from_secs(60), success_threshold: 1 };
    (CircuitBreaker::with_clock(config, hand.clone()), hand)
}

async fn fail(breaker: &CircuitBreaker<Hand>) -> Result<(), Error> {
    breaker.call(|| async { Err(Error::Down) }).await
}

/// Polls once.
fn begun<F: Future>(call: &mut std::pin::Pin<&mut F>) -> Poll<F::Output> {
    call.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop()))
}

#[tokio::test]
async fn an_open_breaker_says_when_it_failed_and_when_to_come_again() {
    // F367, F378, F387
    let (breaker, hand) = breaker();
    hand.0.set(5);
    assert_eq!(fail(&breaker).await, Err(Error::Down));
    hand.0.set(7);
    assert_eq!(fail(&breaker).await, Err(Error::Down));
    hand.0.set(1_000_007);
    let last_failure_at = Timestamp::from_micros(HOUR_US + 7);
    let refusal = Refusal::Open { last_failure_at, retry_after: Duration::from_secs(59) };
    assert_eq!(refusal.code(), "circuit_breaker_open");
    assert_eq!(fail(&breaker).await, Err(Error::Refused(refusal)));
    hand.0.set(60_000_007);
    assert_eq!(breaker.state(), State::HalfOpen);
    assert_eq!(breaker.call(|| async { Ok::<_, Error>(3) }).await, Ok(3));
    assert_eq!(breaker.state(), State::Closed);
}

#[tokio::test]
async fn an_error_that_is_the_callers_own_is_no_failure_of_the_service() {
    let (breaker, _) = breaker();
    assert_eq!(fail(&breaker).await, Err(Error::Down));
    let own = || {
        breaker.call_counting(|error| *error != Error::NotFound, || async { Err::<(), _>(Error::NotFound) })
    };
    assert_eq!(own().await, Err(Error::NotFound));
    assert_eq!(fail(&breaker).await, Err(Error::Down));
    assert_eq!(breaker.state(), State::Closed, "it has answered in between");
}

#[tokio::test]
async fn a_call_that_is_dropped_is_neither_and_makes_room_for_the_next_probe() {
    let (breaker, hand) = breaker();
    for _ in 0..2 {
        assert_eq!(fail(&breaker).await, Err(Error::Down));
    }
    hand.0.set(60_000_000);
    {
        let mut probe = std::pin::pin!(breaker.call(pending::<Result<(), Error>>));
        assert!(begun(&mut probe).is_pending());
        assert!(matches!(fail(&breaker).await, Err(Error::Refused(Refusal::Open { .. }))), "one at a time");
    }
    assert_eq!(breaker.state(), State::HalfOpen);
    assert_eq!(breaker.call(|| async { Ok::<_, Error>(()) }).await, Ok(()));
}

#[tokio::test]
async fn calls_wait_in_line_and_places_come_back_however_a_call_ends() {
    // F381
    let pool = Bulkhead::new(1, 1);
    let (done, first) = tokio::sync::oneshot::channel::<()>();
    let mut one = std::pin::pin!(pool.call(|| async { first.await.map_err(|_| Error::Down) }));
    assert!(begun(&mut one).is_pending());
    {
        let mut gone = std::pin::pin!(pool.call(pending::<Result<(), Error>>));
        assert!(begun(&mut gone).is_pending());
        assert_eq!((pool.running(), pool.waiting()), (1, 1));
        let full = pool.call(|| async { Ok::<(), Error>(()) }).await;
        assert_eq!(full, Err(Error::Refused(Refusal::Full { running: 1, waiting: 1 })));
    }
    assert_eq!((pool.running(), pool.waiting(), pool.refused()), (1, 0, 1), "whoever waited has gone");
    let mut two = std::pin::pin!(pool.call(|| async { Ok::<_, Error>(2) }));
    assert!(begun(&mut two).is_pending());
    done.send(()).unwrap();
    assert_eq!(one.await, Ok(()));
    assert_eq!(two.await, Ok(2));
    assert_eq!((pool.running(), pool.waiting()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn what_does_not_answer_in_time_is_dropped_and_counts_as_a_failure() {
    // F380
    let (breaker, _) = breaker();
    let after = Duration::from_secs(5);
    for _ in 0..2 {
        let late = breaker.call(|| within(after, pending::<Result<(), Error>>())).await;
        assert_eq!(late, Err(Error::Refused(Refusal::TimedOut { after })));
    }
    assert_eq!(breaker.state(), State::Open);
}
