//! What a committer writes to: the files of a [`Log`], or a store elsewhere.

use std::collections::VecDeque;

use super::{Durability, Fence, Log, Position, Sealed};
use crate::model::FrameRef;
use crate::store::Error;
use crate::store::journal::Journal;

/// Where batches go, once it is claimed. One call at a time; after an error of a write or a sync nothing more is written.
pub trait Sink {
    /// The owner; `None`: it is not claimed.
    fn fence(&self) -> Option<Fence>;

    /// When batches are acknowledged.
    fn durability(&self) -> Durability;

    /// Bytes of the largest batch that it takes.
    fn batch_bytes_max(&self) -> usize;

    /// The position of the next batch.
    fn next_position(&self) -> Position;

    /// The last position that is synced.
    fn synced(&self) -> Position;

    /// Segments that take no more batches, oldest first; without those given back.
    fn sealed(&self) -> Vec<Sealed>;

    /// Grows whenever a segment is sealed.
    fn sealed_version(&self) -> u64;

    /// Nobody needs this sealed segment any more. It is forgotten once all older ones are given back too.
    fn release(&mut self, segment: u64);

    /// Writes batches from the front of `queue`, as many as one write takes, at least one, and at level `fsync` makes them durable. Their
    /// memory goes to `spent`, their places to `done`.
    fn write(
        &mut self,
        queue: &mut VecDeque<Vec<u8>>,
        spent: &mut Vec<Vec<u8>>,
        done: &mut Vec<(Position, FrameRef)>,
    ) -> impl Future<Output = Result<(), Error>>;

    /// Makes everything written durable.
    fn sync(&mut self) -> impl Future<Output = Result<(), Error>>;

    /// Lets go of what it holds. Nothing is synced.
    fn close(self) -> impl Future<Output = ()>;
}

impl Sink for Log {
    fn fence(&self) -> Option<Fence> {
        Self::fence(self)
    }

    fn durability(&self) -> Durability {
        self.config().durability
    }

    fn batch_bytes_max(&self) -> usize {
        Self::batch_bytes_max(self.config())
    }

    fn next_position(&self) -> Position {
        Journal::next(self)
    }

    fn synced(&self) -> Position {
        Self::synced(self)
    }

    fn sealed(&self) -> Vec<Sealed> {
        Self::sealed(self).copied().collect()
    }

    fn sealed_version(&self) -> u64 {
        Self::sealed_version(self)
    }

    fn release(&mut self, segment: u64) {
        Self::release(self, segment);
    }

    async fn write(
        &mut self,
        queue: &mut VecDeque<Vec<u8>>,
        spent: &mut Vec<Vec<u8>>,
        done: &mut Vec<(Position, FrameRef)>,
    ) -> Result<(), Error> {
        Self::write(self, queue, spent, done).await
    }

    async fn sync(&mut self) -> Result<(), Error> {
        Self::sync(self).await
    }

    async fn close(self) {
        Self::close(self).await;
    }
}
