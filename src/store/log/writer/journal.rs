//! A log as a [`Journal`]: one batch at a time, each synced before the next. The shard goes through the
//! committer instead.

use std::collections::VecDeque;

use super::super::frame::{Kind, frame_bytes};
use super::super::{Fence, Position, reader};
use super::{Log, Write};
use crate::store::Error;
use crate::store::journal::Journal;

impl Journal for Log {
    async fn claim(&mut self, nonce: u64) -> Result<Fence, Error> {
        self.check()?;
        crate::failpoint::pass("journal::before_claim");
        let fence = Fence { epoch: self.last_fence.epoch + 1, nonce };
        if self.current.offset + frame_bytes(0) as u64 > self.current.bytes {
            self.roll().await?;
        }
        let mut write = Write::new(self, fence, frame_bytes(0));
        let mut done = Vec::new();
        write.add(Kind::Claim, &[], &mut done).ok_or_else(|| self.fail("a claim was not built".into()))?;
        self.put(write).await?;
        self.fence = Some(fence);
        self.sync().await?;
        crate::failpoint::pass("journal::after_claim");
        Ok(fence)
    }

    async fn append(&mut self, fence: Fence, position: Position, batch: &[u8]) -> Result<(), Error> {
        self.check_fence(fence)?;
        self.check()?;
        if batch.len() > Self::batch_bytes_max(&self.config) {
            let (bytes, max) = (batch.len(), Self::batch_bytes_max(&self.config));
            return Err(Error::BatchTooLarge { bytes, max });
        }
        if position > self.next || position == 0 {
            return Err(Error::WrongPosition { expected: self.next, given: position });
        }
        if position < self.next {
            return self.check_repeated(fence, position, batch).await;
        }
        let mut queue = VecDeque::from([batch.to_vec()]);
        self.write(&mut queue, &mut Vec::new(), &mut Vec::new()).await?;
        self.sync().await
    }

    fn next(&self) -> Position {
        self.next
    }

    fn durable(&self) -> Position {
        self.synced
    }

    async fn read(&mut self, from: Position, bytes_max: usize) -> Result<Vec<(Position, Vec<u8>)>, Error> {
        let found = self.reader(from, bytes_max).await?;
        let batches = found.into_iter().filter(|found| found.kind == Kind::Batch);
        Ok(batches.map(|found| (found.position, found.payload)).collect())
    }

    async fn trim(&mut self, before: Position) -> Result<(), Error> {
        let below: Vec<u64> =
            self.sealed.iter().filter(|sealed| sealed.last < before).map(|sealed| sealed.segment).collect();
        below.into_iter().for_each(|segment| self.release(segment));
        Ok(())
    }
}

impl Log {
    fn check_fence(&self, given: Fence) -> Result<(), Error> {
        let held = self.fence.unwrap_or(self.last_fence);
        if self.fence == Some(given) { Ok(()) } else { Err(Error::StaleFence { held, given }) }
    }

    /// What stands at a position below the next one.
    async fn check_repeated(&mut self, fence: Fence, position: Position, batch: &[u8]) -> Result<(), Error> {
        let found = self.reader(position, 1).await?;
        let same = found.first().is_some_and(|found| {
            (found.position, found.fence) == (position, fence) && found.payload == batch
        });
        if same { Ok(()) } else { Err(Error::DifferentBatch { position }) }
    }

    async fn reader(&mut self, from: Position, bytes_max: usize) -> Result<Vec<reader::Stored>, Error> {
        let current = (self.current.segment, self.current.first);
        let sealed = self.sealed.iter().map(|sealed| (sealed.segment, sealed.first));
        let query = reader::Query {
            dir: self.config.dir.clone(),
            identity: self.config.identity,
            segments: sealed.chain([current]).collect(),
            from,
            end: self.next,
            bytes_max,
        };
        let read = self.helper.run(move || reader::read(&query)).await;
        read.map_err(|error| Error::io("read the journal back", error))?
    }
}
