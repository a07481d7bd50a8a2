//! The accept loop and the connections of one control core.
//!
//! At most `limits.connections_per_core_max` connections are open, those in their TLS handshake counted; further ones
//! wait in the kernel. A handshake that does not end in time is cut. A head that does not arrive in time is answered 408
//! and the connection closed.
//!
//! A connection speaks HTTP/1.1, or [HTTP/2](super::multiplexed): inside TLS as agreed, else when it begins as one.
//!
//! On shutdown nothing new is begun (503 `stopping`, also for readiness), but connections are taken still while calls of
//! runs are under way: workers tell how their jobs ended. When the calls have ended nothing is accepted any more, and
//! requests under way end. All of that has `shutdown.drain_seconds`; then the rest is cut, requests not before
//! [`limits::DRAIN_GRACE_MILLIS`].

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioTimer;
use slab::Slab;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio_rustls::TlsAcceptor;

use super::dispatch;
use super::handover::{self, Departures};
use super::metered::{Metered, PREFACE};
use super::multiplexed::{self, Door};
use super::plain::{self, Plain};
use super::services::Services;
use super::socket::{Movable, Socket};
use crate::limits;
use crate::wire::problem::Problem;

/// Becomes true when the node stops.
pub type Shutdown = watch::Receiver<bool>;

/// The connections of a core.
struct Open {
    /// True when connections end with the requests that they have under way.
    closing: watch::Sender<bool>,
    /// The waker of each, for the one moment when all of them must look up: shutdown.
    tasks: RefCell<Slab<Waker>>,
    one_closed: Notify,
}

impl Open {
    fn count(&self) -> usize {
        self.tasks.borrow().len()
    }
}

/// Serves `listener` on this thread's `LocalSet` until `shutdown` becomes true and the connections have ended.
///
/// # Errors
/// The listener cannot be used. A failing accept is tried again.
pub async fn serve(
    listener: std::net::TcpListener,
    services: Rc<Services>,
    mut shutdown: Shutdown,
) -> std::io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let open = Rc::new(Open {
        closing: watch::Sender::new(false),
        tasks: RefCell::default(),
        one_closed: Notify::new(),
    });
    let stopped = async {
        let _ = shutdown.wait_for(|stop| *stop).await;
    };
    accept_until(stopped, &listener, &services, &open).await;
    services.stop();
    let until = tokio::time::Instant::now() + services.drain;
    accept_until(calls_ended(&services, until), &listener, &services, &open).await;
    services.closing.set(true);
    open.closing.send_replace(true);
    drop(listener);
    let tasks: Vec<Waker> = open.tasks.borrow().iter().map(|(_, waker)| waker.clone()).collect();
    tasks.into_iter().for_each(Waker::wake);
    let drained = async {
        while open.count() > 0 {
            open.one_closed.notified().await;
        }
    };
    let grace = tokio::time::Instant::now() + Duration::from_millis(limits::DRAIN_GRACE_MILLIS);
    let _ = tokio::time::timeout_at(until.max(grace), drained).await;
    Ok(())
}

/// Waits until no run waits for a call of this node's, or the time is over: those that are left are handed out again by
/// the next start.
async fn calls_ended(services: &Services, until: tokio::time::Instant) {
    let http = &services.executors.http;
    while http.under_way() > 0 && tokio::time::Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(limits::DRAIN_LOOK_MILLIS)).await;
    }
}

/// Takes connections until `end`.
async fn accept_until(
    end: impl Future<Output = ()>,
    listener: &TcpListener,
    services: &Rc<Services>,
    open: &Rc<Open>,
) {
    let mut end = pin!(end);
    loop {
        tokio::select! {
            biased;
            () = &mut end => return,
            accepted = accept(listener, open, services.connections_max) => match accepted {
                Ok((stream, peer)) => {
                    let key = open.tasks.borrow_mut().insert(Waker::noop().clone());
                    let closed = Closed { open: open.clone(), key };
                    tokio::task::spawn_local(connection((stream, peer), services.clone(), closed));
                }
                // Out of descriptors or memory: a connection that closes frees some.
                Err(_) => {
                    let pause = Duration::from_millis(50);
                    let _ = tokio::time::timeout(pause, open.one_closed.notified()).await;
                }
            },
        }
    }
}

async fn accept(listener: &TcpListener, open: &Open, most: usize) -> std::io::Result<(TcpStream, IpAddr)> {
    while open.count() >= most {
        open.one_closed.notified().await;
    }
    let (stream, peer) = listener.accept().await?;
    Ok((stream, peer.ip()))
}

/// The stream as it is, or inside TLS once the handshake is done; `None` when that fails, takes too long, or the node
/// stops first. What rustls has to say about a failure it tells the client in an alert.
async fn opened(stream: TcpStream, services: &Services, closed: &Closed) -> Option<Socket> {
    // Without it small answers wait for the client's acknowledgement of the one before.
    let _ = stream.set_nodelay(true);
    let stream = Movable::Here(stream);
    let Some(tls) = &services.door.tls else { return Some(Socket::Plain(stream)) };
    let acceptor = TlsAcceptor::from(tls.current());
    let mut handshake = pin!(acceptor.accept(stream));
    let shaken = poll_fn(|context| {
        closed.note(context.waker());
        if services.closing.get() {
            return Poll::Ready(None);
        }
        handshake.as_mut().poll(context).map(Result::ok)
    });
    let limit = Duration::from_secs(limits::TLS_HANDSHAKE_SECONDS_MAX);
    let stream = tokio::time::timeout(limit, shaken).await.ok().flatten()?;
    Some(Socket::Tls(Box::new(stream)))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Speaks {
    Http1,
    Http2,
}

/// Which version of HTTP is spoken, and what was read to find out: inside TLS it was agreed, else a client of HTTP/2 says so first.
/// `None` when it says nothing in time, or the node stops first.
async fn listened(
    mut stream: Socket,
    services: &Services,
    closed: &Closed,
) -> Option<(Socket, Bytes, Speaks)> {
    if let Socket::Tls(tls) = &stream {
        let agreed = tls.get_ref().1.alpn_protocol() == Some(b"h2");
        return Some((stream, Bytes::new(), if agreed { Speaks::Http2 } else { Speaks::Http1 }));
    }
    // Most requests fit, and are then read in one call.
    let mut read = BytesMut::with_capacity(2 << 10);
    let deadline = Duration::from_secs(limits::REQUEST_HEAD_SECONDS_MAX);
    let mut deadline = pin!(tokio::time::sleep(deadline));
    loop {
        let mut reading = pin!(stream.read_buf(&mut read));
        let more = poll_fn(|context| {
            closed.note(context.waker());
            if services.closing.get() || deadline.as_mut().poll(context).is_ready() {
                return Poll::Ready(None);
            }
            reading.as_mut().poll(context).map(Result::ok)
        });
        let more = more.await;
        let begun = PREFACE.get(..read.len()).is_some_and(|begin| *begin == *read);
        if read.starts_with(PREFACE) {
            return Some((stream, read.freeze(), Speaks::Http2));
        } else if !begun || (more == Some(0) && !read.is_empty()) {
            return Some((stream, read.freeze(), Speaks::Http1));
        } else if more.is_none_or(|count| count == 0) {
            if !read.is_empty() {
                let _ = stream.write_all(&head_timeout()).await;
            }
            let _ = stream.shutdown().await;
            return None;
        }
    }
}

async fn connection((stream, peer): (TcpStream, IpAddr), services: Rc<Services>, closed: Closed) {
    // Boxed: a handshake is large, and over soon.
    let Some(stream) = Box::pin(opened(stream, &services, &closed)).await else { return };
    let Some((stream, before, speaks)) = Box::pin(listened(stream, &services, &closed)).await else { return };
    if speaks == Speaks::Http2 {
        let door = Door { services, peer, closing: closed.open.closing.subscribe() };
        return Box::pin(multiplexed::serve(Metered::new(stream, before), door, &closed)).await;
    }
    let core = services.clone();
    let departures = Rc::new(Departures::default());
    let leaving = departures.clone();
    let handler = service_fn(move |request| {
        let (services, leaving) = (services.clone(), leaving.clone());
        // Boxed, so that a connection can be taken apart again.
        Box::pin(async move {
            let may_leave = handover::may_leave(&request);
            let response = dispatch(&services, peer, request).await;
            Ok::<_, Infallible>(if may_leave { leaving.note(response).await } else { response })
        })
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(limits::REQUEST_HEAD_SECONDS_MAX))
        .max_buf_size(4 * limits::REQUEST_HEAD_BYTES_MAX)
        .serve_connection(Plain::new(stream, before), handler);
    let (mut known, mut told) = (false, false);
    let ended = poll_fn(|context| {
        if !known {
            // A task's waker stays the same, so it is noted once.
            known = true;
            closed.note(context.waker());
        }
        if !told && core.closing.get() {
            told = true;
            Pin::new(&mut connection).graceful_shutdown();
        }
        match connection.poll_without_shutdown(context) {
            Poll::Pending if departures.are_noted() => Poll::Ready(Ok(())),
            polled => polled,
        }
    })
    .await;
    let parts = connection.into_parts();
    let mut stream = parts.io.into_inner();
    if let Some(departure) = departures.take() {
        return departure.leave(stream, parts.read_buf);
    }
    if ended.is_err_and(|error| error.is_timeout()) && !parts.read_buf.is_empty() {
        // Only a client that began a request is told; an idle connection is just closed.
        let _ = stream.write_all(&head_timeout()).await;
    }
    let _ = stream.shutdown().await;
}

/// Serves one connection that is no socket, until it ends.
#[cfg(test)]
pub(crate) async fn serve_stream(stream: tokio::io::DuplexStream, services: Rc<Services>) {
    let peer = IpAddr::from([127, 0, 0, 1]);
    let handler = service_fn(move |request| {
        let services = services.clone();
        Box::pin(async move { Ok::<_, Infallible>(dispatch(&services, peer, request).await) })
    });
    let stream = hyper_util::rt::TokioIo::new(stream);
    let _ = http1::Builder::new().timer(TokioTimer::new()).serve_connection(stream, handler).await;
}

fn head_timeout() -> Vec<u8> {
    let detail = format!("the request's head did not arrive within {} s", limits::REQUEST_HEAD_SECONDS_MAX);
    let problem = Problem::new(408, "head_timeout", detail).limit("request_head_seconds_max");
    plain::whole_answer(&problem)
}

/// Counts a connection out, however it ends.
pub(super) struct Closed {
    open: Rc<Open>,
    key: usize,
}

impl Closed {
    /// Wakes this one when the node stops.
    pub(super) fn note(&self, waker: &Waker) {
        if let Some(noted) = self.open.tasks.borrow_mut().get_mut(self.key) {
            noted.clone_from(waker);
        }
    }
}

impl Drop for Closed {
    fn drop(&mut self) {
        self.open.tasks.borrow_mut().try_remove(self.key);
        self.open.one_closed.notify_one();
    }
}
