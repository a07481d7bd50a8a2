//! A connection whose bare refusals are given a body.
//!
//! What hyper cannot parse it answers by itself, with a status and nothing else, before any handler is asked. Such an
//! answer is recognised on its way out (a 4xx without a body is never one of ours) and replaced by a problem document.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;

use super::respond;
use super::socket::Socket;
use crate::limits;
use crate::wire;
use crate::wire::problem::Problem;

/// A connection to a client.
#[derive(Debug)]
pub(super) struct Plain {
    inner: TokioIo<Socket>,
    /// Read already.
    before: Bytes,
    /// What is being written in place of a bare refusal, and how far.
    instead: Option<(Vec<u8>, usize)>,
}

impl Plain {
    /// Of which this was read already.
    pub(super) fn new(stream: Socket, before: Bytes) -> Self {
        Self { inner: TokioIo::new(stream), before, instead: None }
    }

    pub(super) fn into_inner(self) -> Socket {
        self.inner.into_inner()
    }

    /// Writes the replacement; ready once it is out.
    fn poll_instead(&mut self, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        while let Some((bytes, written)) = &mut self.instead {
            let rest = bytes.get(*written..).unwrap_or_default();
            if rest.is_empty() {
                self.instead = None;
                break;
            }
            *written += match ready!(Pin::new(&mut self.inner).poll_write(context, rest))? {
                0 => return Poll::Ready(Err(std::io::ErrorKind::WriteZero.into())),
                count => count,
            };
        }
        Poll::Ready(Ok(()))
    }
}

impl Read for Plain {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<std::io::Result<()>> {
        if !self.before.is_empty() {
            let length = self.before.len().min(buffer.remaining());
            buffer.put_slice(&self.before.split_to(length));
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl Write for Plain {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        if self.instead.is_none() {
            self.instead = replacement(bytes).map(|replacement| (replacement, 0));
        }
        if self.instead.is_some() {
            ready!(self.poll_instead(context))?;
            return Poll::Ready(Ok(bytes.len()));
        }
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
        match buffers {
            [only] => self.poll_write(context, only),
            _ => Pin::new(&mut self.inner).poll_write_vectored(context, buffers),
        }
    }
}

/// The problem document for a bare refusal; `None` for anything else.
fn replacement(bytes: &[u8]) -> Option<Vec<u8>> {
    let rest = bytes.strip_prefix(b"HTTP/1.1 4")?;
    let bare = rest.windows(17).any(|window| window.eq_ignore_ascii_case(b"content-length: 0"));
    let problem = match rest.get(..2).filter(|_| bare)? {
        b"00" => Problem::new(400, "malformed_request", "the bytes sent are no HTTP/1.1 request"),
        b"14" => Problem::new(414, "uri_too_long", "the request's target is too long")
            .limit("request_head_bytes_max"),
        b"31" => {
            let detail = format!(
                "the request's head is larger than {} bytes or has more than 100 headers",
                limits::REQUEST_HEAD_BYTES_MAX
            );
            Problem::new(431, "head_too_large", detail).limit("request_head_bytes_max")
        }
        _ => return None,
    };
    Some(whole_answer(&problem))
}

/// A problem as the bytes of a last answer, for where no handler can be asked.
pub(super) fn whole_answer(problem: &Problem) -> Vec<u8> {
    let body = wire::to_json(problem);
    let mut answer = format!(
        "HTTP/1.1 {} {}\r\ncontent-type: {}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        problem.status,
        problem.title,
        respond::PROBLEM_TYPE,
        body.len()
    )
    .into_bytes();
    answer.extend_from_slice(&body);
    answer
}
