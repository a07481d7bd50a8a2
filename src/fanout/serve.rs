//! Connections that the fanout core serves itself: server-sent events over HTTP/1.1, and [WebSockets](super::websocket).
//!
//! What must hold: a connection waits for its own client and for nobody else; what is written comes from frames that all
//! subscribers share, many in one call. Full: the hub closes whoever does not read ([`limits::SUBSCRIBER_STALL_SECONDS_MAX`]);
//! who takes nothing of what waits here for [`limits::STREAM_LINGER_SECONDS_MAX`] is cut off. Of what a client of
//! server-sent events says nothing is read but that it left.

use std::future::{Future as _, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::sync::{Notify, watch};
use tokio::time::Sleep;

use super::asking::Asking;
use super::outgoing::{FRAMES_AT_ONCE, Outgoing};
use super::websocket::Session;
use crate::limits;
use crate::wire::stream::{Connection, Handed, Spoken, Subscription};

/// The last chunk.
const END: &[u8] = b"0\r\n\r\n";

/// The connections of a core.
#[derive(Clone, Debug, Default)]
pub(super) struct Connections(Arc<Open>);

#[derive(Debug, Default)]
struct Open {
    count: AtomicUsize,
    stop: watch::Sender<bool>,
    one_closed: Notify,
}

impl Connections {
    /// Serves one from now on. At [`limits::SUBSCRIBERS_PER_CORE_MAX`], those that only wait to be read to their end counted, it
    /// is closed; its client comes back. Other streams that it wants are `asked` for.
    pub(super) fn serve(&self, handed: Handed, asking: &Asking) {
        if self.0.count.load(Ordering::Acquire) >= limits::SUBSCRIBERS_PER_CORE_MAX {
            return;
        }
        self.0.count.fetch_add(1, Ordering::AcqRel);
        let closed = Closed(self.0.clone());
        let (asking, mut stop) = (asking.clone(), self.0.stop.subscribe());
        tokio::task::spawn_local(async move {
            let Handed { connection, head, spoken, subscription } = handed;
            match (connection(), spoken) {
                (Ok(connection), Spoken::Events) => Served::new(connection, head, subscription).run().await,
                (Ok(connection), Spoken::Messages(opener)) => {
                    let open = move |head, peer| {
                        let asking = asking.clone();
                        async move { asking.open(head, peer).await }
                    };
                    let stop = async move {
                        let _ = stop.wait_for(|stop| *stop).await;
                    };
                    let session = Session::new(connection, (*opener, subscription), open);
                    session.after(head).until(stop).run().await;
                }
                (Err(_), _) => {}
            }
            drop(closed);
        });
    }

    /// Waits until all are closed, who is told that the node stops, but no longer than this.
    pub(super) async fn closed(&self, at_most: Duration) {
        self.0.stop.send_replace(true);
        let all = async {
            while self.0.count.load(Ordering::Acquire) > 0 {
                self.0.one_closed.notified().await;
            }
        };
        let _ = tokio::time::timeout(at_most, all).await;
    }
}

/// Counts a connection out, however it ends.
struct Closed(Arc<Open>);

impl Drop for Closed {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::AcqRel);
        self.0.one_closed.notify_one();
    }
}

struct Served {
    connection: Box<dyn Connection>,
    subscription: Subscription,
    outgoing: Outgoing,
    /// The hub has said its last.
    ended: bool,
    /// Runs while nothing is taken.
    linger: Option<Pin<Box<Sleep>>>,
}

impl Served {
    fn new(connection: Box<dyn Connection>, head: Bytes, subscription: Subscription) -> Self {
        let mut outgoing = Outgoing::default();
        outgoing.push(head);
        Self { connection, subscription, outgoing, ended: false, linger: None }
    }

    /// Until all is written, the client leaves, or it does not read to the end.
    async fn run(mut self) {
        let written = poll_fn(|context| self.poll(context)).await;
        if written.is_ok() {
            let shut = poll_fn(|context| Pin::new(&mut self.connection).poll_shutdown(context));
            let _ = tokio::time::timeout(Duration::from_secs(1), shut).await;
        }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        self.poll_gone(context)?;
        loop {
            self.fill(context);
            if self.outgoing.is_empty() {
                ready!(self.outgoing.poll_flush(&mut self.connection, context))?;
                return if self.ended { Poll::Ready(Ok(())) } else { Poll::Pending };
            }
            match self.outgoing.poll_write(&mut self.connection, context) {
                Poll::Ready(result) => result?,
                Poll::Pending => return self.poll_linger(context),
            }
            self.linger = None;
        }
    }

    /// Takes what is there, as much as is written at once.
    fn fill(&mut self, context: &mut Context<'_>) {
        while !self.ended && self.outgoing.len() < FRAMES_AT_ONCE {
            match self.subscription.poll_next(context) {
                Poll::Ready(Some(frame)) => self.outgoing.push(frame.chunk().clone()),
                Poll::Ready(None) => {
                    self.ended = true;
                    self.outgoing.push(Bytes::from_static(END));
                }
                Poll::Pending => return,
            }
        }
    }

    /// Ends when what waits has waited long enough. Not only the last words: whoever takes nothing never gets so far that the
    /// end of the stream is seen.
    fn poll_linger(&mut self, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        let most = Duration::from_secs(limits::STREAM_LINGER_SECONDS_MAX);
        let linger = self.linger.get_or_insert_with(|| Box::pin(tokio::time::sleep(most)));
        ready!(linger.as_mut().poll(context));
        Poll::Ready(Err(std::io::ErrorKind::TimedOut.into()))
    }

    /// An error when the client left, or says more than it has to.
    fn poll_gone(&mut self, context: &mut Context<'_>) -> std::io::Result<()> {
        let mut space = [0; 256];
        for _ in 0..4 {
            let mut buffer = ReadBuf::new(&mut space);
            match Pin::new(&mut self.connection).poll_read(context, &mut buffer) {
                Poll::Pending => return Ok(()),
                Poll::Ready(result) => result?,
            }
            if buffer.filled().is_empty() {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
        Err(std::io::ErrorKind::InvalidData.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::{FullPolicy, bounded};
    use crate::wire::frame::Frame;
    use crate::wire::stream::subscription;

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_is_cut_however_much_waits() {
        for frames in [1, 2 * FRAMES_AT_ONCE] {
            let (hub, _hub_end) = bounded("hub", 4, FullPolicy::RefuseCaller);
            let (sink, reader) = subscription(hub);
            for _ in 0..frames {
                sink.push(&Frame::delta("n", 1, "x")).unwrap();
            }
            let (near, _far) = tokio::io::duplex(7);
            let served =
                tokio::spawn(Served::new(Box::new(near), Bytes::from_static(b"HTTP/1.1"), reader).run());
            tokio::time::sleep(Duration::from_secs(5)).await;
            drop(sink);
            tokio::time::sleep(Duration::from_secs(limits::STREAM_LINGER_SECONDS_MAX - 6)).await;
            assert!(!served.is_finished(), "{frames}");
            tokio::time::sleep(Duration::from_secs(2)).await;
            assert!(served.is_finished(), "{frames}");
        }
    }
}
