//! Bodies of answers: pieces with pauses between them, broken in whatever way was asked for. When the last byte is given away the
//! call is counted as finished; a body that is dropped before counts as unfinished.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use tokio::time::Sleep;

use crate::account::Tally;
use crate::limits;

/// How a body ends.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum Ending {
    #[default]
    Whole,
    /// As if it were whole; it is not counted as such.
    Short,
    /// The connection closes.
    Closed,
    /// It does not: the last piece comes again and again.
    Never,
}

#[derive(Debug, Default)]
pub(crate) struct Body {
    pieces: std::vec::IntoIter<Bytes>,
    ending: Ending,
    pause: Duration,
    sleep: Option<Pin<Box<Sleep>>>,
    /// What is repeated when it never ends, and how much may still come.
    filler: Bytes,
    left: u64,
    /// What was given was also sent on: only then may the connection close.
    flushed: bool,
    /// Nobody is told how long it is.
    chunked: bool,
    tally: Option<Tally>,
}

impl Body {
    /// Pieces of a call's answer.
    pub(crate) fn new(pieces: Vec<Bytes>, ending: Ending, pause: Duration, tally: Tally) -> Self {
        let pieces: Vec<Bytes> = pieces.into_iter().filter(|piece| !piece.is_empty()).collect();
        let filler = if ending == Ending::Never { pieces.last().cloned() } else { None };
        let mut body = Self {
            pieces: pieces.into_iter(),
            ending,
            pause,
            filler: filler.unwrap_or_default(),
            left: limits::ENDLESS_BYTES_MAX,
            tally: Some(tally),
            ..Self::default()
        };
        body.given();
        body
    }

    /// The same, with a length that is not known or not to be believed.
    pub(crate) fn chunked(self) -> Self {
        Self { chunked: true, ..self }
    }

    /// An answer that is no call's.
    pub(crate) fn plain(text: impl Into<Bytes>) -> Self {
        let text = text.into();
        let pieces = if text.is_empty() { Vec::new() } else { vec![text] };
        Self { pieces: pieces.into_iter(), ..Self::default() }
    }

    /// Counts the call when nothing is left to give.
    fn given(&mut self) {
        if self.ending == Ending::Whole && self.pieces.as_slice().is_empty() {
            self.tally.iter_mut().for_each(Tally::finish);
        }
    }

    fn wait(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if let Some(sleep) = &mut self.sleep {
            ready!(sleep.as_mut().poll(context));
            self.sleep = None;
        }
        Poll::Ready(())
    }

    fn piece(&mut self) -> Option<Bytes> {
        if let Some(piece) = self.pieces.next() {
            return Some(piece);
        }
        let piece = self.filler.clone();
        self.left = self.left.checked_sub(piece.len() as u64)?;
        Some(piece).filter(|piece| !piece.is_empty())
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        ready!(self.wait(context));
        if let Some(piece) = self.piece() {
            if !self.pause.is_zero() {
                self.sleep = Some(Box::pin(tokio::time::sleep(self.pause)));
            }
            self.given();
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        if self.ending != Ending::Closed && self.ending != Ending::Never {
            return Poll::Ready(None);
        }
        if !std::mem::replace(&mut self.flushed, true) {
            // The connection writes what it has when a body pauses, and not when it fails.
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Some(Err(io::Error::other("the answer breaks off here"))))
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.as_slice().is_empty() && matches!(self.ending, Ending::Whole | Ending::Short)
    }

    fn size_hint(&self) -> SizeHint {
        if self.chunked || !matches!(self.ending, Ending::Whole | Ending::Short) {
            return SizeHint::default();
        }
        SizeHint::with_exact(self.pieces.as_slice().iter().map(|piece| piece.len() as u64).sum())
    }
}
