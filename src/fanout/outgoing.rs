//! What is about to be written to one connection: frames that all subscribers share, many in one call.
//!
//! Whoever owns it fills it up to [`FRAMES_AT_ONCE`] and then waits for the connection.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};

use crate::wire::stream::Connection;

/// Frames that are written in one call.
pub(super) const FRAMES_AT_ONCE: usize = 64;
/// Bytes that are put together where the connection takes one piece at a time (a stream of HTTP/2).
const TOGETHER_BYTES: usize = 16 << 10;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    /// Begun to be written, or next.
    pending: VecDeque<Bytes>,
    unflushed: bool,
}

impl Outgoing {
    pub(super) fn push(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.pending.push_back(bytes);
        }
    }

    /// Pieces that wait.
    pub(super) fn len(&self) -> usize {
        self.pending.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// Writes some of it.
    ///
    /// # Errors
    /// The connection broke.
    pub(super) fn poll_write<C: Connection + ?Sized>(
        &mut self,
        connection: &mut C,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        if !connection.is_write_vectored() {
            self.put_together();
        }
        let mut slices = [IoSlice::new(&[]); FRAMES_AT_ONCE];
        let mut count = 0;
        for (slice, bytes) in slices.iter_mut().zip(&self.pending) {
            *slice = IoSlice::new(bytes);
            count += 1;
        }
        let slices = slices.get(..count).unwrap_or_default();
        let mut written = ready!(Pin::new(connection).poll_write_vectored(context, slices))?;
        if written == 0 {
            return Poll::Ready(Err(std::io::ErrorKind::WriteZero.into()));
        }
        self.unflushed = true;
        while let Some(first) = self.pending.front_mut() {
            if first.len() > written {
                first.advance(written);
                break;
            }
            written -= first.len();
            self.pending.pop_front();
        }
        Poll::Ready(Ok(()))
    }

    /// Sends on what was written.
    ///
    /// # Errors
    /// The connection broke.
    pub(super) fn poll_flush<C: Connection + ?Sized>(
        &mut self,
        connection: &mut C,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        if self.unflushed {
            ready!(Pin::new(connection).poll_flush(context))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Makes one piece of the first ones.
    fn put_together(&mut self) {
        let mut length = self.pending.front().map_or(0, Bytes::len);
        let fits = |bytes: &&Bytes| {
            length += bytes.len();
            length <= TOGETHER_BYTES
        };
        let more = self.pending.iter().skip(1).take_while(fits).count();
        if more > 0 {
            let first: Vec<Bytes> = self.pending.drain(..=more).collect();
            self.pending.push_front(first.concat().into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_written_is_what_was_pushed_however_it_is_taken() {
        // A pipe that takes 7 bytes at a time, one piece a call.
        let (mut near, mut far) = tokio::io::duplex(7);
        let pieces: Vec<Bytes> = (0..200u8).map(|at| Bytes::from(vec![at; usize::from(at) * 20])).collect();
        let mut outgoing = Outgoing::default();
        pieces.iter().for_each(|piece| outgoing.push(piece.clone()));
        let writing = async {
            while !outgoing.is_empty() {
                std::future::poll_fn(|context| outgoing.poll_write(&mut near, context)).await.unwrap();
            }
            std::future::poll_fn(|context| outgoing.poll_flush(&mut near, context)).await.unwrap();
            drop(near);
        };
        let mut read = Vec::new();
        let (_, result) = tokio::join!(writing, tokio::io::AsyncReadExt::read_to_end(&mut far, &mut read));
        result.unwrap();
        assert_eq!(read, pieces.concat());
    }
}
