//! The accept loop and the connections of one control core.
//!
//! At most `limits.connections_per_core_max` connections are open, those in their TLS handshake counted; further ones
//! wait in the kernel. A handshake that does not end in time is cut. A head that does not arrive in time is answered 408
//! and the connection closed. On shutdown nothing is accepted any more,
//! requests under way end, and after [`limits::DRAIN_SECONDS_MAX`] the rest is cut.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioTimer;
use slab::Slab;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio_rustls::TlsAcceptor;

use super::dispatch;
use super::plain::{self, Plain};
use super::services::Services;
use super::socket::Socket;
use crate::limits;
use crate::wire::problem::Problem;

/// Becomes true when the node stops.
pub type Shutdown = watch::Receiver<bool>;

/// The connections of a core.
struct Open {
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
    let open = Rc::new(Open { tasks: RefCell::new(Slab::new()), one_closed: Notify::new() });
    loop {
        tokio::select! {
            biased;
            _ = shutdown.wait_for(|stop| *stop) => break,
            accepted = accept(&listener, &open, services.connections_max) => match accepted {
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
    services.stopping.set(true);
    drop(listener);
    let tasks: Vec<Waker> = open.tasks.borrow().iter().map(|(_, waker)| waker.clone()).collect();
    tasks.into_iter().for_each(Waker::wake);
    let drained = async {
        while open.count() > 0 {
            open.one_closed.notified().await;
        }
    };
    let _ = tokio::time::timeout(Duration::from_secs(limits::DRAIN_SECONDS_MAX), drained).await;
    Ok(())
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
    let Some(tls) = &services.door.tls else { return Some(Socket::Plain(stream)) };
    let acceptor = TlsAcceptor::from(tls.current());
    let mut handshake = pin!(acceptor.accept(stream));
    let shaken = poll_fn(|context| {
        closed.note(context.waker());
        if services.stopping.get() {
            return Poll::Ready(None);
        }
        handshake.as_mut().poll(context).map(Result::ok)
    });
    let limit = Duration::from_secs(limits::TLS_HANDSHAKE_SECONDS_MAX);
    let stream = tokio::time::timeout(limit, shaken).await.ok().flatten()?;
    Some(Socket::Tls(Box::new(stream)))
}

async fn connection((stream, peer): (TcpStream, IpAddr), services: Rc<Services>, closed: Closed) {
    // Boxed: a handshake is large, and over soon.
    let Some(stream) = Box::pin(opened(stream, &services, &closed)).await else { return };
    let core = services.clone();
    let handler = service_fn(move |request| {
        let services = services.clone();
        // Boxed, so that a connection can be taken apart again.
        Box::pin(async move { Ok::<_, Infallible>(dispatch(&services, peer, request).await) })
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(limits::REQUEST_HEAD_SECONDS_MAX))
        .max_buf_size(4 * limits::REQUEST_HEAD_BYTES_MAX)
        .serve_connection(Plain::new(stream), handler);
    let (mut known, mut told) = (false, false);
    let ended = poll_fn(|context| {
        if !known {
            // A task's waker stays the same, so it is noted once.
            known = true;
            closed.note(context.waker());
        }
        if !told && core.stopping.get() {
            told = true;
            Pin::new(&mut connection).graceful_shutdown();
        }
        connection.poll_without_shutdown(context)
    })
    .await;
    let parts = connection.into_parts();
    let mut stream = parts.io.into_inner();
    if ended.is_err_and(|error| error.is_timeout()) && !parts.read_buf.is_empty() {
        // Only a client that began a request is told; an idle connection is just closed.
        let _ = stream.write_all(&head_timeout()).await;
    }
    let _ = stream.shutdown().await;
}

fn head_timeout() -> Vec<u8> {
    let detail = format!("the request's head did not arrive within {} s", limits::REQUEST_HEAD_SECONDS_MAX);
    let problem = Problem::new(408, "head_timeout", detail).limit("request_head_seconds_max");
    plain::whole_answer(&problem)
}

/// Counts a connection out, however it ends.
struct Closed {
    open: Rc<Open>,
    key: usize,
}

impl Closed {
    fn note(&self, waker: &Waker) {
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
