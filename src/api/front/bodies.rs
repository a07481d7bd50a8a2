//! Bodies of requests and answers that are passed on.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use tokio::time::timeout;

use crate::limits;
use crate::wire::problem::Problem;

/// What is sent: bytes that are kept, or what comes from the client as it comes.
pub(super) enum Sent {
    Kept(Option<Bytes>),
    Coming(Incoming),
}

impl hyper::body::Body for Sent {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut *self {
            Self::Kept(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Coming(body) => Pin::new(body).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Kept(bytes) => bytes.is_none(),
            Self::Coming(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Kept(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Coming(body) => body.size_hint(),
        }
    }
}

/// What comes back. It counts as under way until it has ended.
pub(super) struct Passed {
    pub(super) body: Incoming,
    pub(super) _counted: [Counted; 2],
}

impl hyper::body::Body for Passed {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Counts one while it is there.
pub(super) struct Counted(Rc<Cell<usize>>);

impl Counted {
    pub(super) fn new(count: &Rc<Cell<usize>>) -> Self {
        count.set(count.get() + 1);
        Self(count.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

/// All of the body when it is small and its length known.
pub(super) async fn kept(body: Incoming) -> Result<Sent, Box<Problem>> {
    let most = limits::FORWARD_BODY_BYTES_MAX;
    if body.is_end_stream() {
        return Ok(Sent::Kept(None));
    }
    if body.size_hint().upper().is_none_or(|upper| upper > most as u64) {
        return Ok(Sent::Coming(body));
    }
    let seconds = limits::REQUEST_BODY_SECONDS_MAX;
    match timeout(Duration::from_secs(seconds), Limited::new(body, most).collect()).await {
        Ok(Ok(read)) => Ok(Sent::Kept(Some(read.to_bytes()))),
        Ok(Err(error)) => {
            Err(Problem::new(400, "body_broken", format!("the body ended before its end: {error}")))
        }
        Err(_) => {
            let detail = format!("the body did not arrive within {seconds} s");
            Err(Problem::new(408, "body_timeout", detail).limit("request_body_seconds_max"))
        }
    }
}
