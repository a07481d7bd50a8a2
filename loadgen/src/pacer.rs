//! Wakes senders at their moment, to about 200 us; the runtime's own timers know only milliseconds.
//!
//! A thread sleeps until the earliest moment and then notifies the sending thread, at most every [`TICK_US`]: at high
//! rates one wake serves many arrivals, and the generator leaves the cores to the node. How late a request was sent
//! stands in the report (`generator.lag_us`). Waiters number at most one a connection.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Poll, Waker};
use std::thread::JoinHandle;
use std::time::Duration;

use aob::time::{Clock, SystemClock};

/// Shortest time between two wakes.
const TICK_US: u64 = 200;
/// Longest sleep of the ticking thread: a moment that is announced while it sleeps is met this late at worst.
const SLEEP_US_MAX: u64 = 1_000;

/// Microseconds on the clock that all of the generator uses.
pub(crate) fn now_us() -> u64 {
    SystemClock.monotonic_us()
}

/// One sending thread's alarm clock. Not shared between threads.
#[derive(Debug)]
pub(crate) struct Pacer {
    /// Earliest first.
    waiting: RefCell<VecDeque<(u64, Waker)>>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    next_us: AtomicU64,
    stop: AtomicBool,
    due: tokio::sync::Notify,
}

/// Keeps the ticking thread; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Ticking {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Ticking {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Pacer {
    /// An alarm clock; [`run`](Self::run) must be polled for it to ring.
    pub(crate) fn start() -> std::io::Result<(Rc<Self>, Ticking)> {
        let shared = Arc::new(Shared {
            next_us: AtomicU64::new(u64::MAX),
            stop: AtomicBool::new(false),
            due: tokio::sync::Notify::new(),
        });
        let ticker = shared.clone();
        let thread = std::thread::Builder::new().name("pacer".into()).spawn(move || tick(&ticker))?;
        let pacer = Rc::new(Self { waiting: RefCell::default(), shared: shared.clone() });
        Ok((pacer, Ticking { shared, thread: Some(thread) }))
    }

    /// Wakes whoever is due, for ever.
    pub(crate) async fn run(&self) {
        loop {
            self.shared.due.notified().await;
            let mut waiting = self.waiting.borrow_mut();
            let now = now_us();
            while waiting.front().is_some_and(|(at, _)| *at <= now) {
                if let Some((_, waker)) = waiting.pop_front() {
                    waker.wake();
                }
            }
            self.announce(&waiting);
        }
    }

    /// Waits until `at_us`.
    pub(crate) async fn until(&self, at_us: u64) {
        let mut queued = false;
        poll_fn(|context| {
            if now_us() >= at_us {
                return Poll::Ready(());
            }
            if !queued {
                queued = true;
                let mut waiting = self.waiting.borrow_mut();
                let place = waiting.partition_point(|(at, _)| *at <= at_us);
                waiting.insert(place, (at_us, context.waker().clone()));
                if place == 0 {
                    self.announce(&waiting);
                }
            }
            Poll::Pending
        })
        .await;
    }

    fn announce(&self, waiting: &VecDeque<(u64, Waker)>) {
        let next = waiting.front().map_or(u64::MAX, |(at, _)| *at);
        self.shared.next_us.store(next, Ordering::Relaxed);
    }
}

#[expect(clippy::disallowed_methods, reason = "a thread of its own that does nothing but sleep precisely")]
fn tick(shared: &Shared) {
    while !shared.stop.load(Ordering::Relaxed) {
        let next = shared.next_us.load(Ordering::Relaxed);
        let now = now_us();
        let sleep = if next <= now {
            // Whoever is woken announces the next moment; until then there is none.
            let taken = shared.next_us.compare_exchange(next, u64::MAX, Ordering::Relaxed, Ordering::Relaxed);
            if taken.is_ok() {
                shared.due.notify_one();
            }
            TICK_US
        } else {
            (next - now).min(SLEEP_US_MAX)
        };
        std::thread::sleep(Duration::from_micros(sleep));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn waiters_are_woken_in_order_of_their_moments_and_never_early() {
        let (pacer, _ticking) = Pacer::start().unwrap();
        let order = Rc::new(RefCell::new(Vec::new()));
        let local = tokio::task::LocalSet::new();
        let start = now_us();
        for at in [9_000, 1_000, 5_000, 1_001, 0] {
            let (pacer, order) = (pacer.clone(), order.clone());
            local.spawn_local(async move {
                pacer.until(start + at).await;
                assert!(now_us() >= start + at, "early");
                order.borrow_mut().push(at);
            });
        }
        tokio::select! {
            () = local => {}
            () = pacer.run() => {}
        }
        assert_eq!(*order.borrow(), [0, 1_000, 1_001, 5_000, 9_000]);
    }
}
