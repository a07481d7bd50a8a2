//! One subscription: `subscribe` on a stream, then the events, written many at a time.
//!
//! Who does not read is closed by the hub, as on every transport ([`limits::SUBSCRIBER_STALL_SECONDS_MAX`]); what was said last has
//! [`limits::STREAM_LINGER_SECONDS_MAX`] from then on, however little of it is taken at a time, and then the stream is reset. A
//! stream on which nothing gets on for that long is reset too.

use std::future::{Future, pending, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use quinn::{RecvStream, SendStream};
use tokio::time::Instant;

use super::line::{Busy, Line};
use crate::limits;
use crate::wire::problem::Problem;
use crate::wire::quic::{self, Code, Said, Subscribe, kind};
use crate::wire::stream::Subscription;

/// Frames, and bytes, that are written at once.
const FRAMES_AT_ONCE: usize = 64;
const BYTES_AT_ONCE: usize = 256 << 10;
/// Frames smaller than this are written together: whoever sends them looks for each piece from the beginning.
const SMALL_BYTES: usize = 4 << 10;
/// Bytes of a piece of small frames.
const PIECE_BYTES: usize = 16 << 10;

/// Answers what is asked for on a stream of the client's, of which this was read already.
pub(super) async fn answer(mut busy: Busy, send: SendStream, mut receive: RecvStream, read: Vec<u8>) {
    let line = busy.line().clone();
    if line.is_stopping() {
        return;
    }
    let within = Duration::from_secs(limits::QUIC_FIRST_ASK_SECONDS_MAX);
    let mut stream = Stream { send, number: line.number() };
    let wish = match tokio::time::timeout(within, wish(&mut receive, read)).await {
        Ok(Wish::Subscribe(wish)) => wish,
        Ok(Wish::Refused(problem)) => return stream.refuse(&line, &problem).await,
        Ok(Wish::Left) | Err(_) => return stream.reset(&line, Code::Idle),
    };
    busy.asked();
    let opened = {
        let mut gone = pin!(gone(stream.send.stopped(), Some(&mut receive)));
        let open = async {
            let head = wish.head(&line.headers.borrow())?;
            line.core.asking.open(head, line.connection.remote_address().ip()).await
        };
        let mut stop = line.core.stop.clone();
        tokio::select! {
            biased;
            () = &mut gone => return,
            _ = stop.wait_for(|stop| *stop) => return stream.refuse(&line, &stopping()).await,
            opened = open => opened,
        }
    };
    match opened {
        Err(problem) => stream.refuse(&line, &problem).await,
        Ok(subscription) => {
            busy.is_useful();
            stream.feed(&line, Some(&mut receive), (&wish.path, subscription)).await;
        }
    }
}

fn stopping() -> Box<Problem> {
    Problem::unavailable("stopping", "the node stops")
}

/// What came of reading a `subscribe`.
enum Wish {
    Subscribe(Subscribe),
    Refused(Box<Problem>),
    /// The stream ended before.
    Left,
}

async fn wish(receive: &mut RecvStream, mut read: Vec<u8>) -> Wish {
    let mut others = 0;
    loop {
        match quic::take_frame(&read) {
            Said::Frame(kind::SUBSCRIBE, body, _) => {
                return match Subscribe::parse(body) {
                    Ok(wish) => Wish::Subscribe(wish),
                    Err(problem) => Wish::Refused(problem),
                };
            }
            Said::Frame(_, _, rest) if others < limits::QUIC_UNKNOWN_FRAMES_MAX => {
                others += 1;
                let rest = read.len() - rest.len();
                read.drain(..rest);
                continue;
            }
            Said::Frame(..) | Said::TooLong => return Wish::Refused(too_long()),
            Said::Part => {}
        }
        match receive.read_chunk(limits::QUIC_CONTROL_FRAME_BYTES_MAX, true).await {
            Ok(Some(chunk)) => read.extend_from_slice(&chunk.bytes),
            Ok(None) | Err(_) => return Wish::Left,
        }
    }
}

fn too_long() -> Box<Problem> {
    let most = limits::QUIC_CONTROL_FRAME_BYTES_MAX;
    let detail = format!("a frame of 1 to {most} bytes with a `subscribe` is expected");
    Problem::new(400, "invalid_subscribe", detail).limit("quic_control_frame_bytes_max")
}

/// Ready when the client has given the stream up, or has all of it.
async fn gone(stopped: impl Future, receive: Option<&mut RecvStream>) {
    let left = async {
        match receive {
            // Its side has ended well: it goes on reading.
            Some(receive) => {
                if let Ok(None) = receive.received_reset().await {
                    pending().await
                }
            }
            None => pending().await,
        }
    };
    tokio::select! {
        _ = stopped => {}
        () = left => {}
    }
}

/// The server's side of a stream.
pub(super) struct Stream {
    pub(super) send: SendStream,
    /// Of the subscription.
    pub(super) number: u64,
}

impl Stream {
    fn reset(&mut self, line: &Line, code: Code) {
        let _ = self.send.reset(line.stream_code(code));
    }

    /// Says why there is no subscription.
    async fn refuse(mut self, line: &Line, problem: &Problem) {
        let said = async {
            self.send.write_chunk(quic::refused(problem)).await.ok()?;
            self.send.finish().ok()?;
            self.send.stopped().await.ok()
        };
        let within = Duration::from_secs(limits::QUIC_FIRST_ASK_SECONDS_MAX);
        let _ = line.unless_closed(tokio::time::timeout(within, said)).await;
    }

    /// Writes the events until the last, or until the client has gone. `receive`: its side, when it has one.
    pub(super) async fn feed(
        mut self,
        line: &Line,
        receive: Option<&mut RecvStream>,
        (path, subscription): (&str, Subscription),
    ) {
        let linger = Duration::from_secs(limits::STREAM_LINGER_SECONDS_MAX);
        let mut gone = pin!(gone(self.send.stopped(), receive));
        let mut source = Source { line, subscription, number: self.number, ended: false };
        let mut batch = vec![quic::subscribed(path, self.number)];
        let (mut at, mut until) = (0, None);
        loop {
            let rest = batch.get_mut(at..).unwrap_or_default();
            if rest.is_empty() {
                if source.ended {
                    break;
                }
                (at, batch) = (0, Vec::new());
                tokio::select! {
                    biased;
                    () = &mut gone => return,
                    () = poll_fn(|context| source.poll_fill(context, &mut batch)) => {}
                }
                continue;
            }
            let patience = until.unwrap_or_else(|| Instant::now() + linger);
            tokio::select! {
                biased;
                () = &mut gone => return,
                written = self.send.write_chunks(rest) => match written {
                    Ok(written) => at += written.chunks,
                    Err(_) => return,
                },
                () = tokio::time::sleep_until(patience) => return self.reset(line, Code::Slow),
            }
            if until.is_none() && source.subscription.is_closed() {
                until = Some(Instant::now() + linger);
            }
        }
        let _ = self.send.finish();
        if tokio::time::timeout(linger, gone).await.is_err() {
            self.reset(line, Code::Slow);
        }
    }
}

/// Where the frames come from.
struct Source<'l> {
    line: &'l Line,
    subscription: Subscription,
    number: u64,
    ended: bool,
}

impl Source<'_> {
    /// Takes what is there, as much as is written at once; pending when that is nothing.
    fn poll_fill(&mut self, context: &mut Context<'_>, batch: &mut Vec<Bytes>) -> Poll<()> {
        let (mut small, mut bytes) = (BytesMut::new(), 0);
        let mut waits = false;
        for _ in 0..FRAMES_AT_ONCE {
            let frame = match self.subscription.poll_next(context) {
                Poll::Ready(Some(frame)) => frame,
                Poll::Ready(None) => {
                    self.ended = true;
                    break;
                }
                Poll::Pending => {
                    waits = true;
                    break;
                }
            };
            if self.line.tell(&frame, self.number) {
                continue;
            }
            let whole = frame.quic();
            bytes += whole.len();
            if whole.len() < SMALL_BYTES {
                small.extend_from_slice(whole);
            }
            if whole.len() >= SMALL_BYTES || small.len() >= PIECE_BYTES {
                if !small.is_empty() {
                    batch.push(small.split().freeze());
                }
                if whole.len() >= SMALL_BYTES {
                    batch.push(whole.clone());
                }
            }
            if bytes >= BYTES_AT_ONCE {
                break;
            }
        }
        if !small.is_empty() {
            batch.push(small.freeze());
        }
        if !batch.is_empty() || self.ended {
            return Poll::Ready(());
        }
        if !waits {
            // All of it went as datagrams, and there may be more.
            context.waker().wake_by_ref();
        }
        Poll::Pending
    }
}
