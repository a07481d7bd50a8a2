//! A connection that speaks HTTP/2, read with a count of the frames that ask for nothing.
//!
//! HTTP/2 lets a client say much that costs the server and bounds nothing of it: pings, settings, priorities, resets, empty frames,
//! windows opened by one byte. h2 bounds what it keeps in memory for them; the [`Meter`] bounds how many there are in a second. Full:
//! reading fails, and with it the connection.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead as _, ReadBuf};
use tokio::time::Instant;

use super::socket::Socket;
use crate::limits;

/// What a client of HTTP/2 says first (RFC 9113, 3.4).
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes of a frame's header.
const HEADER_BYTES: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const WINDOW_UPDATE: u8 = 8;

/// See the module.
pub(super) struct Metered {
    inner: TokioIo<Socket>,
    /// Read already.
    before: Bytes,
    meter: Meter,
}

impl Metered {
    /// Of which this was read already.
    pub(super) fn new(stream: Socket, before: Bytes) -> Self {
        Self { inner: TokioIo::new(stream), before, meter: Meter::new() }
    }
}

/// Follows the frames of a connection, and counts.
#[derive(Debug)]
struct Meter {
    /// Bytes to come of the preface, or of the frame.
    skip: usize,
    header: [u8; HEADER_BYTES],
    known: usize,
    since: Instant,
    idle: u32,
    updates: u32,
}

impl Meter {
    fn new() -> Self {
        let header = [0; HEADER_BYTES];
        Self { skip: PREFACE.len(), header, known: 0, since: Instant::now(), idle: 0, updates: 0 }
    }

    /// Takes what was read; false: it is too much.
    fn allows(&mut self, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes.advance(skipped);
            let space = self.header.get_mut(self.known..).unwrap_or_default();
            let taken = space.len().min(bytes.len());
            bytes.copy_to_slice(space.get_mut(..taken).unwrap_or_default());
            self.known += taken;
            if self.known == HEADER_BYTES {
                self.known = 0;
                let [a, b, c, kind, ..] = self.header;
                self.skip = u32::from_be_bytes([0, a, b, c]) as usize;
                if !self.count(kind) {
                    return false;
                }
            }
        }
        true
    }

    fn count(&mut self, kind: u8) -> bool {
        let now = Instant::now();
        if now.duration_since(self.since) >= Duration::from_secs(1) {
            (self.since, self.idle, self.updates) = (now, 0, 0);
        }
        match kind {
            HEADERS => {}
            DATA if self.skip > 0 => {}
            WINDOW_UPDATE => self.updates += 1,
            _ => self.idle += 1,
        }
        self.idle <= limits::H2_IDLE_FRAMES_PER_SECOND_MAX
            && self.updates <= limits::H2_WINDOW_UPDATES_PER_SECOND_MAX
    }
}

impl Read for Metered {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<std::io::Result<()>> {
        let this = &mut *self;
        let mut space = [0; 4096];
        let room = buffer.remaining().min(space.len());
        let mut read = ReadBuf::new(space.get_mut(..room).unwrap_or_default());
        if this.before.is_empty() {
            ready!(Pin::new(this.inner.inner_mut()).poll_read(context, &mut read))?;
        } else {
            read.put_slice(&this.before.split_to(room.min(this.before.len())));
        }
        if !this.meter.allows(read.filled()) {
            return Poll::Ready(Err(std::io::ErrorKind::InvalidData.into()));
        }
        buffer.put_slice(read.filled());
        Poll::Ready(Ok(()))
    }
}

impl Write for Metered {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(context, buffers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, length: usize) -> Vec<u8> {
        let length = (length as u32).to_be_bytes();
        let mut out = vec![length[1], length[2], length[3], kind, 0, 0, 0, 0, 1];
        out.resize(HEADER_BYTES + u32::from_be_bytes(length) as usize, 6);
        out
    }

    #[test]
    fn requests_are_free_and_what_asks_for_nothing_is_counted_however_it_is_cut() {
        let most = limits::H2_IDLE_FRAMES_PER_SECOND_MAX as usize;
        for size in [1, 7, 4096] {
            for (kind, length, limited) in [
                (HEADERS, 30, false),
                (DATA, 5, false),
                (DATA, 0, true),
                (3, 4, true),
                (6, 8, true),
                (0xbe, 0, true),
            ] {
                let bytes = [PREFACE, &frame(kind, length).repeat(2 * most)].concat();
                let mut meter = Meter::new();
                let allowed = bytes.chunks(size).all(|piece| meter.allows(piece));
                assert_eq!(allowed, !limited, "{kind} {length} by {size}");
            }
        }
    }
}
