//! Whole answers over HTTP/2 that wait for their clients: how much of the node's memory they may have.
//!
//! A client that opens no window lets its answers lie, as many as it has streams and connections. Every answer is counted from when it
//! is made until its last piece is on its way ([`Held`]). Full, on a connection or on all of them: what was asked for then is refused
//! (503 `answers_untaken`) before it is looked at, and what was only read is given back; others let lie what they may, small answers
//! to a client that takes them still come ([`limits::H2_UNTAKEN_BYTES_SPARED`]). An answer to what was done is kept in any case:
//! there are [`limits::H2_STREAMS_MAX`] of them at most. A connection of which nothing is taken for
//! [`limits::H2_UNTAKEN_SECONDS_MAX`] is closed.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::limits;
use crate::telemetry::UntakenCells;
use crate::wire::problem::Problem;

/// What waits on one connection.
#[derive(Debug)]
pub(super) struct Untaken {
    all: Arc<UntakenCells>,
    bytes: Cell<usize>,
    /// When something was taken last, or began to wait where nothing did.
    taken: Cell<Instant>,
}

impl Untaken {
    pub(super) fn new(all: Arc<UntakenCells>) -> Rc<Self> {
        Rc::new(Self { all, bytes: Cell::new(0), taken: Cell::new(Instant::now()) })
    }

    /// Refuses what would be more than may wait, were there so many bytes more.
    pub(super) fn check(&self, more: usize) -> Result<(), Box<Problem>> {
        let here = self.bytes.get();
        let all = self.all.bytes.value().saturating_add(more as u64);
        let limit = if here > 0 && here.saturating_add(more) > limits::H2_UNTAKEN_BYTES_MAX {
            "h2_untaken_bytes_max"
        } else if here.saturating_add(more) > limits::H2_UNTAKEN_BYTES_SPARED
            && all > limits::H2_UNTAKEN_BYTES_TOTAL_MAX as u64
        {
            "h2_untaken_bytes_total_max"
        } else {
            return Ok(());
        };
        self.all.refused.increment();
        let detail = format!("{here} bytes of answers wait on this connection to be taken");
        Err(Problem::unavailable("answers_untaken", detail).limit(limit))
    }

    /// So many bytes wait from now on.
    pub(super) fn hold(self: &Rc<Self>, bytes: usize) -> Held {
        if self.bytes.get() == 0 {
            self.taken.set(Instant::now());
        }
        self.bytes.set(self.bytes.get().saturating_add(bytes));
        self.all.bytes.add(bytes as u64);
        Held { of: self.clone(), bytes }
    }

    /// Does something wait of which nothing was taken for too long?
    pub(super) fn is_stalled(&self, now: Instant) -> bool {
        let most = Duration::from_secs(limits::H2_UNTAKEN_SECONDS_MAX);
        let stalled = self.bytes.get() > 0 && now.duration_since(self.taken.get()) >= most;
        if stalled {
            self.all.stalled.increment();
        }
        stalled
    }
}

/// An answer that waits.
#[derive(Debug)]
pub(super) struct Held {
    of: Rc<Untaken>,
    bytes: usize,
}

impl Held {
    /// A piece of it is on its way.
    pub(super) fn taken(&self) {
        self.of.taken.set(Instant::now());
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.taken();
        self.of.bytes.set(self.of.bytes.get().saturating_sub(self.bytes));
        self.of.all.bytes.subtract(self.bytes as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_waits_is_bounded_on_a_connection_and_on_all_of_them() {
        let all = Arc::new(UntakenCells::default());
        let one = Untaken::new(all.clone());
        let large = 2 * limits::H2_UNTAKEN_BYTES_MAX;
        assert!(one.check(large).is_ok(), "alone");
        let held = one.hold(large);
        assert_eq!(one.check(0).unwrap_err().code, "answers_untaken");
        let other = Untaken::new(all.clone());
        assert!(other.check(1).is_ok());
        let rest = other.hold(limits::H2_UNTAKEN_BYTES_TOTAL_MAX - large);
        let third = Untaken::new(all.clone());
        let more = limits::H2_UNTAKEN_BYTES_SPARED + 1;
        assert_eq!(third.check(more).unwrap_err().limit.as_deref(), Some("h2_untaken_bytes_total_max"));
        assert!(third.check(more - 1).is_ok(), "what is small hurts nobody, whatever others let lie");
        drop(held);
        assert!(one.check(1).is_ok() && third.check(1).is_ok());
        drop(rest);
        assert_eq!((all.bytes.value(), all.refused.value()), (0, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_stalls_when_nothing_is_taken_of_what_waits() {
        let one = Untaken::new(Arc::default());
        let most = Duration::from_secs(limits::H2_UNTAKEN_SECONDS_MAX);
        tokio::time::advance(2 * most).await;
        assert!(!one.is_stalled(Instant::now()), "nothing waits");
        let held = one.hold(1);
        tokio::time::advance(most - Duration::from_secs(1)).await;
        held.taken();
        tokio::time::advance(most - Duration::from_secs(1)).await;
        assert!(!one.is_stalled(Instant::now()));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(one.is_stalled(Instant::now()));
    }
}
