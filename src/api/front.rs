//! A node that does not own its store: it takes any request and passes it on to the node that does ([`forward`]).
//!
//! What concerns this process is answered here: `/livez`, `/readyz`, `/version`, `/metrics`, `/v1/node`. When the node comes to own the
//! store, its control cores take the connections from then on; those that are open here are told to come again
//! (`connection: close`, GOAWAY) and served until they do.
//!
//! Full: connections as on a control core; of requests see [`forward`].

mod bodies;
mod forward;
pub(super) mod hop;

use std::cell::Cell;
use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, HeaderValue, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;

pub use forward::Owner;
pub use hop::HopKey;

use self::bodies::Passed;
use self::forward::{AGAIN, Forwarder};
use super::respond::{self, Body};
use crate::auth::Door;
use crate::limits;
use crate::telemetry;
use crate::wire::node::NodeInfo;
use crate::wire::problem::Problem;

/// What a front counts.
#[derive(Debug, Default)]
pub struct Counters {
    /// Requests that were passed on and answered.
    pub passed: telemetry::Cell,
}

/// What a front is made of.
pub struct FrontParts {
    /// Who owns the store.
    pub owner: watch::Receiver<Owner>,
    /// What the nodes of the store share.
    pub key: HopKey,
    /// Who may come in; asked for its certificate alone, the owner asks for the rest.
    pub door: Arc<Door>,
    /// What is counted.
    pub counters: Arc<Counters>,
    /// What this node says about itself.
    pub info: Box<dyn Fn() -> NodeInfo>,
    /// Open connections.
    pub connections_max: usize,
}

/// One front, on one thread.
struct Front {
    forwarder: Forwarder,
    owner: watch::Receiver<Owner>,
    key: HopKey,
    door: Arc<Door>,
    counters: Arc<Counters>,
    info: Box<dyn Fn() -> NodeInfo>,
}

/// Serves until this node owns the store and serves itself, and the connections have ended; on a thread's `LocalSet`.
///
/// # Errors
/// A listener cannot be used.
pub async fn serve(listeners: Vec<std::net::TcpListener>, parts: FrontParts) -> std::io::Result<()> {
    let FrontParts { owner, key, door, counters, info, connections_max } = parts;
    let forwarder = Forwarder::new(owner.clone(), key.clone(), counters.clone());
    let front = Rc::new(Front { forwarder, owner, key, door, counters, info });
    let room = Arc::new(Semaphore::new(connections_max));
    let mut accepting = Vec::new();
    for listener in listeners {
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let (front, room) = (front.clone(), room.clone());
        accepting.push(async move {
            tokio::select! {
                biased;
                () = front.owns() => {}
                () = accept(&listener, &front, &room) => {}
            }
        });
    }
    futures_util::future::join_all(accepting).await;
    // All places are free when all connections have ended.
    let all = u32::try_from(connections_max).unwrap_or(u32::MAX);
    let _ = room.acquire_many(all).await;
    Ok(())
}

async fn accept(listener: &TcpListener, front: &Rc<Front>, room: &Arc<Semaphore>) {
    while let Ok(place) = room.clone().acquire_owned().await {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let front = front.clone();
                crate::io::spawn_local(async move {
                    connection((stream, peer.ip()), front).await;
                    drop(place);
                });
            }
            // Out of descriptors or memory.
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

async fn opened(stream: TcpStream, door: &Door) -> Option<Box<dyn Stream>> {
    let _ = stream.set_nodelay(true);
    let Some(tls) = &door.tls else { return Some(Box::new(stream)) };
    let limit = Duration::from_secs(limits::TLS_HANDSHAKE_SECONDS_MAX);
    let shaken = tokio::time::timeout(limit, TlsAcceptor::from(tls.current()).accept(stream)).await;
    Some(Box::new(shaken.ok()?.ok()?))
}

async fn connection((stream, peer): (TcpStream, IpAddr), front: Rc<Front>) {
    let Some(stream) = opened(stream, &front.door).await else { return };
    // Said by its first request: an idle connection of HTTP/1.1 is not closed under a client that may be sending.
    let multiplexed = Rc::new(Cell::new(false));
    let (own, speaks) = (front.clone(), multiplexed.clone());
    let handler = service_fn(move |request: Request<Incoming>| {
        speaks.set(request.version() == Version::HTTP_2);
        let front = own.clone();
        async move { Ok::<_, Infallible>(front.answer(peer, request).await) }
    });
    let mut builder = auto::Builder::new(Local);
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(limits::REQUEST_HEAD_SECONDS_MAX))
        .max_buf_size(4 * limits::REQUEST_HEAD_BYTES_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits::H2_STREAMS_MAX)
        .max_header_list_size(2 * limits::REQUEST_HEAD_BYTES_MAX as u32)
        .max_pending_accept_reset_streams(limits::H2_RESETS_MAX)
        .max_local_error_reset_streams(limits::H2_RESETS_MAX)
        .max_send_buf_size(limits::H2_SEND_BUFFER_BYTES_MAX)
        .keep_alive_interval(Duration::from_secs(limits::H2_PING_SECONDS))
        .keep_alive_timeout(Duration::from_secs(limits::H2_PONG_SECONDS_MAX));
    let mut connection = pin!(builder.serve_connection_with_upgrades(TokioIo::new(stream), handler));
    tokio::select! {
        _ = connection.as_mut() => return,
        () = front.owns() => {}
    }
    if multiplexed.get() {
        connection.as_mut().graceful_shutdown();
    }
    let _ = connection.await;
}

impl Front {
    /// Ends when this node serves itself.
    async fn owns(&self) {
        let mut owner = self.owner.clone();
        if owner.wait_for(|owner| matches!(owner, Owner::Own(_))).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    async fn answer(&self, peer: IpAddr, request: Request<Incoming>) -> Response<Answer> {
        let (mut head, body) = request.into_parts();
        let by_hop = hop::came(&mut head, Some(&self.key));
        let client = (by_hop.unwrap_or(peer), by_hop.is_some());
        let is_old = head.version <= Version::HTTP_11;
        let answered = match self.own(&head) {
            Some(answer) => answer.map(|answer| answer.map(Answer::Own)),
            None if becomes_another(&head) => {
                let joined = self.forwarder.join(client, Request::from_parts(head, body)).await;
                joined.map(|answer| answer.map(Answer::Joined))
            }
            None => self.forwarder.pass(client, head, body).await.map(|answer| answer.map(Answer::Passed)),
        };
        let mut answer =
            answered.unwrap_or_else(|problem| refused(&problem, by_hop.is_some()).map(Answer::Own));
        let is_own = matches!(*self.owner.borrow(), Owner::Own(_));
        if is_own && is_old && answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        answer
    }

    /// What this process answers for itself.
    fn own(&self, head: &Parts) -> Option<Result<Response<Body>, Box<Problem>>> {
        const TEXT: &str = "text/plain; charset=utf-8";
        if !matches!(head.method, Method::GET | Method::HEAD) {
            return None;
        }
        let owner = self.owner.borrow().clone();
        Some(Ok(match (head.uri.path(), owner) {
            ("/livez" | "/healthz", _) => respond::bytes(StatusCode::OK, TEXT, "ok\n"),
            ("/readyz", Owner::Other(address)) => {
                let text = format!("ok, requests are passed on to {address}\n");
                respond::bytes(StatusCode::OK, TEXT, text)
            }
            ("/readyz", _) => {
                return Some(Err(Problem::unavailable("not_ready", "no node owns the store at this moment")));
            }
            ("/version", _) => respond::json(StatusCode::OK, &super::node::version()),
            ("/v1/node", _) => respond::json(StatusCode::OK, &(self.info)()),
            ("/metrics", _) => {
                let passed = self.counters.passed.value();
                let text = format!(
                    "# TYPE aob_forwarded_requests counter\n\
                     # HELP aob_forwarded_requests Requests passed on to the node that owns the store.\n\
                     aob_forwarded_requests_total {passed}\n# EOF\n"
                );
                respond::bytes(StatusCode::OK, super::node::METRICS_TYPE, text)
            }
            _ => return None,
        }))
    }
}

/// A problem as an answer. Another node that passed a request on is told when it may be sent again because nothing was done here and
/// another will own the store.
pub(super) fn refused(problem: &Problem, by_hop: bool) -> Response<Body> {
    let mut answer = respond::problem(problem);
    if by_hop && matches!(&*problem.code, "no_owner" | "stopping") {
        answer.headers_mut().insert(hop::HOP, AGAIN);
    }
    answer
}

/// Does the client want its connection to be something else?
fn becomes_another(head: &Parts) -> bool {
    let names = |headers: &HeaderMap| {
        let said = headers.get(CONNECTION).and_then(|value| value.to_str().ok()).unwrap_or_default();
        said.split(',').any(|name| name.trim().eq_ignore_ascii_case("upgrade"))
    };
    head.version == Version::HTTP_11 && head.headers.contains_key(UPGRADE) && names(&head.headers)
}

/// Body of an answer: our own, or the owner's.
enum Answer {
    Own(Body),
    Passed(Passed),
    Joined(Incoming),
}

impl hyper::body::Body for Answer {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match &mut *self {
            Self::Own(body) => Pin::new(body).poll_frame(context).map_err(Into::into),
            Self::Passed(body) => Pin::new(body).poll_frame(context).map_err(Into::into),
            Self::Joined(body) => Pin::new(body).poll_frame(context).map_err(Into::into),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(body) => body.is_end_stream(),
            Self::Passed(body) => body.is_end_stream(),
            Self::Joined(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(body) => body.size_hint(),
            Self::Passed(body) => body.size_hint(),
            Self::Joined(body) => body.size_hint(),
        }
    }
}

/// Runs tasks on this thread.
#[derive(Clone, Copy)]
struct Local;

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for Local {
    fn execute(&self, task: F) {
        crate::io::spawn_local(task);
    }
}
