//! One WebSocket, subprotocol `aob.v1` (docs/formats/stream.md): events out, wishes for other streams in.
//!
//! It runs on the core that feeds its stream (HTTP/1.1: the connection was handed over) or on a control core (HTTP/2: it is one
//! stream of a connection that has more), and does not know which; what it is given to open other streams with does.
//!
//! What must hold: a session waits for its own client and for nobody else. While a stream is being opened, or so much is about to
//! be written that it waits, nothing is read from the client. Full: the hub closes whoever does not read; a client that takes
//! nothing for [`limits::STREAM_LINGER_SECONDS_MAX`], answers no ping or takes no part in a close is cut.

mod heard;
mod wish;

use std::future::{Future, poll_fn};
use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::Uri;
use http::request::Parts;
use tokio::io::{AsyncRead as _, AsyncReadExt as _, AsyncWriteExt as _, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::outgoing::{FRAMES_AT_ONCE, Outgoing};
use crate::limits;
use crate::wire;
use crate::wire::asked::{Opened, Opener};
use crate::wire::frame::text;
use crate::wire::problem::Problem;
use crate::wire::stream::{Connection, Subscription};
use heard::{Broken, Heard, Said};

/// Pieces that wait to be written, above which nothing is read that would be answered by more.
const PENDING_MAX: usize = 2 * FRAMES_AT_ONCE;
/// Reads in one turn; others have theirs then.
const READS_AT_ONCE: usize = 4;
/// Bytes that are read, and not looked at, of a client that was told why it is closed.
const LEFT_BYTES_MAX: u64 = 256 << 10;

type Opening = Pin<Box<dyn Future<Output = Opened>>>;

/// See the module.
pub struct Session {
    connection: Box<dyn Connection>,
    open: Box<dyn Fn(Parts, IpAddr) -> Opening>,
    opener: Opener,
    /// `None`: none is open, or no more is said.
    subscription: Option<Subscription>,
    /// How the stream ends when it ends now.
    end: Option<&'static str>,
    opening: Option<(Uri, Opening)>,
    heard: Heard,
    outgoing: Outgoing,
    phase: Phase,
    last_written: Instant,
    /// Since when an answer is waited for.
    pinged: Option<Instant>,
    alarm: Pin<Box<Sleep>>,
    /// `None`: the node goes on, or its stop was told.
    stop: Option<Pin<Box<dyn Future<Output = ()>>>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    /// Our close is said; the client's is waited for.
    Closing,
    /// Nothing more is heard.
    Over,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("uri", &self.opener.uri)
            .field("phase", &self.phase)
            .finish_non_exhaustive()
    }
}

impl Session {
    /// For a connection whose handshake is done, with the first stream; `open` opens others.
    pub fn new<F: Future<Output = Opened> + 'static>(
        connection: Box<dyn Connection>,
        (opener, subscription): (Opener, Subscription),
        open: impl Fn(Parts, IpAddr) -> F + 'static,
    ) -> Self {
        let now = Instant::now();
        let alarm = tokio::time::sleep(Duration::from_secs(limits::WEBSOCKET_PING_SECONDS));
        Self {
            connection,
            open: Box::new(move |head, peer| Box::pin(open(head, peer))),
            heard: Heard::new(&opener.rest),
            opener: Opener { rest: Bytes::new(), ..opener },
            subscription: Some(subscription),
            end: None,
            opening: None,
            outgoing: Outgoing::default(),
            phase: Phase::Open,
            last_written: now,
            pinged: None,
            alarm: Box::pin(alarm),
            stop: None,
        }
    }

    /// Closes it when this is ready: the node stops.
    #[must_use]
    pub fn until(mut self, stop: impl Future<Output = ()> + 'static) -> Self {
        self.stop = Some(Box::pin(stop));
        self
    }

    /// Says this first: the answer to the handshake.
    #[must_use]
    pub fn after(mut self, head: Bytes) -> Self {
        self.outgoing.push(head);
        self
    }

    /// Until it is closed, or the client leaves.
    pub async fn run(mut self) {
        if poll_fn(|context| self.poll(context)).await.is_err() {
            return;
        }
        // What the client says still is read away, so that no reset overtakes what it was told.
        let left = async {
            if self.connection.shutdown().await.is_ok() {
                let mut rest = (&mut self.connection).take(LEFT_BYTES_MAX);
                let _ = tokio::io::copy(&mut rest, &mut tokio::io::sink()).await;
            }
        };
        let _ = tokio::time::timeout(Duration::from_secs(1), left).await;
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        loop {
            self.poll_alarm(context)?;
            self.poll_stop(context);
            self.poll_opening(context);
            self.poll_heard(context)?;
            self.fill(context);
            if self.outgoing.is_empty() {
                ready!(self.outgoing.poll_flush(&mut self.connection, context))?;
                return if self.phase == Phase::Over { Poll::Ready(Ok(())) } else { Poll::Pending };
            }
            ready!(self.outgoing.poll_write(&mut self.connection, context))?;
            self.last_written = Instant::now();
        }
    }

    /// Takes what is there, as much as is written at once.
    fn fill(&mut self, context: &mut Context<'_>) {
        while let Some(subscription) = &mut self.subscription
            && self.outgoing.len() < FRAMES_AT_ONCE
        {
            match subscription.poll_next(context) {
                Poll::Ready(Some(frame)) => {
                    self.end = frame.end();
                    self.outgoing.push(frame.message().cloned().unwrap_or_default());
                }
                Poll::Ready(None) => self.ended(),
                Poll::Pending => return,
            }
        }
    }

    /// The hub has said its last.
    fn ended(&mut self) {
        match self.end {
            Some("slow_consumer") => self.close(4001, "slow_consumer"),
            Some("resync") => self.close(4002, "resync"),
            // A stream of many runs goes on when one of them has ended.
            Some(reason) if self.opener.uri.path() != wire::asked::ALL => self.close(1000, reason),
            _ => self.close(1001, "come back from where you were"),
        }
    }

    fn poll_stop(&mut self, context: &mut Context<'_>) {
        if let Some(stop) = &mut self.stop
            && stop.as_mut().poll(context).is_ready()
        {
            self.stop = None;
            if self.phase == Phase::Open {
                self.close(1001, "the node stops");
            }
        }
    }

    /// What is open or asked for goes.
    fn drop_stream(&mut self) {
        (self.subscription, self.end, self.opening) = (None, None, None);
    }

    fn close(&mut self, code: u16, reason: &'static str) {
        self.drop_stream();
        self.heard.close(code, reason);
        self.outgoing.push(self.heard.answers());
        self.phase = Phase::Closing;
        let by = Instant::now() + Duration::from_secs(limits::WEBSOCKET_CLOSE_SECONDS_MAX);
        self.alarm.as_mut().reset(by);
    }

    fn poll_opening(&mut self, context: &mut Context<'_>) {
        let Some((_, opening)) = &mut self.opening else { return };
        let Poll::Ready(opened) = opening.as_mut().poll(context) else { return };
        let Some((uri, _)) = self.opening.take() else { return };
        match opened {
            Ok(subscription) => {
                let path = wire::to_json(&uri.to_string());
                let parts = [&b"{\"event\":\"subscribed\",\"data\":{\"path\":"[..], &path, b"}}"];
                self.outgoing.push(text(&parts));
                self.opener.uri = uri;
                self.subscription = Some(subscription);
            }
            Err(problem) => self.refuse(&problem),
        }
    }

    fn refuse(&mut self, problem: &Problem) {
        let problem = wire::to_json(problem);
        self.outgoing.push(text(&[b"{\"event\":\"refused\",\"data\":", &problem, b"}"]));
    }

    /// Is nothing heard for now?
    fn is_deaf(&self) -> bool {
        self.opening.is_some() || self.outgoing.len() >= PENDING_MAX || self.phase == Phase::Over
    }

    /// An error when the client left.
    fn poll_heard(&mut self, context: &mut Context<'_>) -> std::io::Result<()> {
        let mut space = [0; 1024];
        for _ in 0..READS_AT_ONCE {
            self.listen();
            self.poll_opening(context);
            if self.is_deaf() {
                return Ok(());
            }
            let mut buffer = ReadBuf::new(&mut space);
            match Pin::new(&mut self.connection).poll_read(context, &mut buffer) {
                Poll::Pending => return Ok(()),
                Poll::Ready(result) => result?,
            }
            if buffer.filled().is_empty() {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            self.heard.take(buffer.filled());
        }
        context.waker().wake_by_ref();
        Ok(())
    }

    /// Does what was said.
    fn listen(&mut self) {
        while !self.is_deaf() {
            let said = match self.heard.next() {
                Ok(Some(said)) => said,
                Ok(None) => return,
                Err(Broken(code, reason)) => {
                    self.outgoing.push(self.heard.answers());
                    if self.phase == Phase::Open {
                        self.close(code, reason);
                    }
                    self.phase = Phase::Over;
                    return;
                }
            };
            self.pinged = None;
            self.outgoing.push(self.heard.answers());
            match said {
                Said::Alive => {}
                Said::Close => {
                    self.drop_stream();
                    self.phase = Phase::Over;
                }
                Said::Text(text) if self.phase == Phase::Open => self.wish(&text),
                Said::Text(_) => {}
            }
        }
    }

    /// Whatever was read is read no more: another stream is wanted.
    fn wish(&mut self, text: &str) {
        self.drop_stream();
        match wish::read(text, &self.opener.uri) {
            Ok(uri) => {
                let opening = (self.open)(self.opener.request(uri.clone()), self.opener.peer);
                self.opening = Some((uri, opening));
            }
            Err(problem) => self.refuse(&problem),
        }
    }

    /// An error when the client has had its time.
    fn poll_alarm(&mut self, context: &mut Context<'_>) -> std::io::Result<()> {
        while self.alarm.as_mut().poll(context).is_ready() {
            let (now, due) = (Instant::now(), self.due());
            if now < due {
                self.alarm.as_mut().reset(due);
            } else if !self.outgoing.is_empty() || self.phase != Phase::Open || self.pinged.is_some() {
                return Err(std::io::ErrorKind::TimedOut.into());
            } else {
                self.heard.ping();
                self.outgoing.push(self.heard.answers());
                self.pinged = Some(now);
                self.alarm.as_mut().reset(now + Duration::from_secs(limits::WEBSOCKET_PONG_SECONDS_MAX));
            }
        }
        Ok(())
    }

    fn due(&self) -> Instant {
        let (since, seconds) = if !self.outgoing.is_empty() {
            (self.last_written, limits::STREAM_LINGER_SECONDS_MAX)
        } else if self.phase != Phase::Open {
            (self.last_written, limits::WEBSOCKET_CLOSE_SECONDS_MAX)
        } else if let Some(pinged) = self.pinged {
            (pinged, limits::WEBSOCKET_PONG_SECONDS_MAX)
        } else {
            (self.last_written, limits::WEBSOCKET_PING_SECONDS)
        };
        since + Duration::from_secs(seconds)
    }
}

#[cfg(test)]
mod tests;
