//! Bounded queues with a name: the only doors between planes.
//!
//! Many senders, one receiver. A queue never blocks a sender and never grows: when it is full, `send` gives the item
//! back and counts the refusal, and the sender acts on the queue's stated [`FullPolicy`]. Items of one sender stay in
//! order. Every send wakes the receiver, from any thread; a receiver that was not woken all the same is the
//! watchdog's business (`runtime::watchdog`), for which [`Stats`] can wake it too.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use atomic_waker::AtomicWaker;
use crossbeam::queue::ArrayQueue;

/// What happens when a queue is full. It stands in `/v1/node`, so that an operator need not read the code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FullPolicy {
    /// The caller is told `503` and nothing was applied.
    RefuseCaller,
    /// The item is dropped; the receiver re-reads from history.
    DropAndResync,
    /// Cannot happen: room is reserved before. A refusal counts as a bug.
    Reserved,
}

/// What can be seen of a queue from outside.
#[derive(Debug)]
pub struct Stats {
    name: String,
    capacity: usize,
    full_policy: FullPolicy,
    depth: Box<dyn DepthAndWake>,
    sent: AtomicU64,
    refused: AtomicU64,
}

trait DepthAndWake: Send + Sync + std::fmt::Debug {
    fn depth(&self) -> usize;
    fn wake(&self);
}

struct Shared<T> {
    items: ArrayQueue<T>,
    receiver: AtomicWaker,
}

impl<T> std::fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("len", &self.items.len()).finish()
    }
}

impl<T: Send> DepthAndWake for Arc<Shared<T>> {
    fn depth(&self) -> usize {
        self.items.len()
    }

    fn wake(&self) {
        self.receiver.wake();
    }
}

/// The sending end. Clone it for more senders.
#[derive(Debug)]
pub struct Sender<T> {
    shared: Arc<Shared<T>>,
    stats: Arc<Stats>,
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone(), stats: self.stats.clone() }
    }
}

/// The receiving end; there is one.
#[derive(Debug)]
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
    stats: Arc<Stats>,
}

/// A queue of at most `capacity` items.
pub fn bounded<T: Send + 'static>(
    name: impl Into<String>,
    capacity: usize,
    full_policy: FullPolicy,
) -> (Sender<T>, Receiver<T>) {
    let shared = Arc::new(Shared { items: ArrayQueue::new(capacity), receiver: AtomicWaker::new() });
    let stats = Arc::new(Stats {
        name: name.into(),
        capacity,
        full_policy,
        depth: Box::new(shared.clone()),
        sent: AtomicU64::new(0),
        refused: AtomicU64::new(0),
    });
    (Sender { shared: shared.clone(), stats: stats.clone() }, Receiver { shared, stats })
}

impl<T> Sender<T> {
    /// Hands `item` over and wakes the receiver.
    ///
    /// # Errors
    /// The queue is full: the item comes back.
    pub fn send(&self, item: T) -> Result<(), T> {
        self.push(item)?;
        self.shared.receiver.wake();
        Ok(())
    }

    /// Hands `item` over without a wake: for a burst that ends with [`wake`](Self::wake).
    ///
    /// # Errors
    /// The queue is full: the item comes back.
    pub fn push(&self, item: T) -> Result<(), T> {
        match self.shared.items.push(item) {
            Ok(()) => {
                self.stats.sent.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            Err(item) => {
                self.stats.refused.fetch_add(1, Ordering::Relaxed);
                Err(item)
            }
        }
    }

    /// Wakes the receiver.
    pub fn wake(&self) {
        self.shared.receiver.wake();
    }

    /// What can be seen from outside.
    pub fn stats(&self) -> &Arc<Stats> {
        &self.stats
    }
}

impl<T> Receiver<T> {
    /// The oldest item, when there is one.
    pub fn try_recv(&mut self) -> Option<T> {
        self.shared.items.pop()
    }

    /// Ready when there is an item; otherwise the task is woken by the next send.
    pub fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if !self.shared.items.is_empty() {
            return Poll::Ready(());
        }
        self.shared.receiver.register(context.waker());
        // A send between the look and the registration would otherwise go unseen.
        if self.shared.items.is_empty() { Poll::Pending } else { Poll::Ready(()) }
    }

    /// Waits for an item.
    pub async fn recv(&mut self) -> T {
        loop {
            std::future::poll_fn(|context| self.poll_ready(context)).await;
            if let Some(item) = self.try_recv() {
                return item;
            }
        }
    }

    /// What can be seen from outside.
    pub fn stats(&self) -> &Arc<Stats> {
        &self.stats
    }
}

impl Stats {
    /// As given at birth.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Items it can hold.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// What happens when it is full.
    pub fn full_policy(&self) -> FullPolicy {
        self.full_policy
    }

    /// Items waiting now.
    pub fn depth(&self) -> usize {
        self.depth.depth()
    }

    /// Items ever taken in.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Items ever given back because the queue was full.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Wakes the receiver without an item.
    pub fn wake(&self) {
        self.depth.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_gives_the_item_back_and_counts_it() {
        let (sender, mut receiver) = bounded("test", 2, FullPolicy::RefuseCaller);
        assert_eq!(sender.send(1), Ok(()));
        assert_eq!(sender.send(2), Ok(()));
        assert_eq!(sender.send(3), Err(3));
        assert_eq!((sender.stats().depth(), sender.stats().sent(), sender.stats().refused()), (2, 2, 1));
        assert_eq!((receiver.try_recv(), receiver.try_recv(), receiver.try_recv()), (Some(1), Some(2), None));
    }
}
