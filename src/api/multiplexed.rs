//! HTTP/2 (RFC 9113) on a control core: many requests on one connection, streams and WebSockets (RFC 8441) among them. They stay on
//! the core that took the connection, because others are said beside them.
//!
//! Every request is dispatched as over HTTP/1.1, and counted by itself. What one connection may cost is bounded: streams at once
//! ([`limits::H2_STREAMS_MAX`]), bytes of a head, resets, what waits for a client that does not read
//! ([`Untaken`]), and, by the [`Meter`](super::metered::Meter), frames that ask for nothing. A connection without a request for
//! [`limits::REQUEST_HEAD_SECONDS_MAX`] is told to go and closed; one whose client answers no ping is closed. When the node
//! stops, streams end and WebSockets are closed; requests under way are heard out.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use http::header::{HOST, HeaderValue};
use http::{Method, Request, Response};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::watch;
use tokio::time::Instant;

use super::metered::Metered;
use super::respond::{self, Body};
use super::server::Closed;
use super::services::Services;
use super::untaken::{Held, Untaken};
use super::{asked, dispatch};
use crate::fanout::websocket::Session;
use crate::limits;

/// Where a client's requests come from, and when all of them end.
#[derive(Clone)]
pub(super) struct Door {
    pub(super) services: Rc<Services>,
    pub(super) peer: IpAddr,
    pub(super) closing: watch::Receiver<bool>,
}

/// Serves a connection until it ends.
pub(super) async fn serve(stream: Metered, door: Door, closed: &Closed) {
    let under_way = Rc::new(UnderWay { count: Cell::new(0), since: Cell::new(Instant::now()) });
    let untaken = Untaken::new(door.services.door.untaken.clone());
    let (busy, waiting, own) = (under_way.clone(), untaken.clone(), door.clone());
    let handler = service_fn(move |request| {
        let (door, guard, waiting) = (own.clone(), Guard::new(&busy), waiting.clone());
        async move { Ok::<_, Infallible>(answer(door, (guard, waiting), request).await) }
    });
    let mut connection = pin!(builder().serve_connection(stream, handler));
    let patience = Duration::from_secs(limits::REQUEST_HEAD_SECONDS_MAX);
    let mut alarm = pin!(tokio::time::sleep(patience));
    let (mut known, mut told) = (false, false);
    poll_fn(|context| {
        if !known {
            known = true;
            closed.note(context.waker());
        }
        if !told && door.services.closing.get() {
            told = true;
            connection.as_mut().graceful_shutdown();
        }
        while alarm.as_mut().poll(context).is_ready() {
            let now = Instant::now();
            if untaken.is_stalled(now) {
                return Poll::Ready(());
            }
            let idle = under_way.count.get() == 0;
            let due = if idle { under_way.since.get() + patience } else { now + patience };
            if due > now {
                alarm.as_mut().reset(due);
            } else if told {
                return Poll::Ready(());
            } else {
                told = true;
                connection.as_mut().graceful_shutdown();
                alarm.as_mut().reset(now + Duration::from_secs(1));
            }
        }
        connection.as_mut().poll(context).map(drop)
    })
    .await;
}

fn builder() -> http2::Builder<Local> {
    let mut builder = http2::Builder::new(Local);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits::H2_STREAMS_MAX)
        // A head that is a little too large is answered by us, which says why.
        .max_header_list_size(2 * limits::REQUEST_HEAD_BYTES_MAX as u32)
        .max_pending_accept_reset_streams(limits::H2_RESETS_MAX)
        .max_local_error_reset_streams(limits::H2_RESETS_MAX)
        .initial_stream_window_size(limits::H2_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(limits::H2_WINDOW_BYTES)
        .max_send_buf_size(limits::H2_SEND_BUFFER_BYTES_MAX)
        .keep_alive_interval(Duration::from_secs(limits::H2_PING_SECONDS))
        .keep_alive_timeout(Duration::from_secs(limits::H2_PONG_SECONDS_MAX))
        .enable_connect_protocol();
    builder
}

/// Answers one request. A WebSocket goes on by itself once its answer is on the way.
async fn answer(
    door: Door,
    (guard, untaken): (Guard, Rc<Untaken>),
    mut request: Request<Incoming>,
) -> Response<Answered> {
    if let Err(problem) = untaken.check(0) {
        return whole(respond::problem(&problem), guard, None);
    }
    let only_reads = request.method().is_safe();
    let upgrading = (request.method() == Method::CONNECT).then(|| hyper::upgrade::on(&mut request));
    name_host(&mut request);
    let Door { services, peer, closing } = door;
    // Boxed: it is large, and most of the connection's tasks are streams by then.
    let answer = Box::pin(dispatch(&services, peer, request)).await;
    if let Body::Whole(Some(bytes)) = answer.body() {
        let length = bytes.len();
        if only_reads && let Err(problem) = untaken.check(length) {
            return whole(respond::problem(&problem), guard, None);
        }
        return whole(answer, guard, Some(untaken.hold(length)));
    }
    let (parts, body) = answer.into_parts();
    let answered = match (body, upgrading) {
        (Body::Messages(opened), Some(upgrading)) => {
            tokio::task::spawn_local(messages(upgrading, services, *opened, (guard, closing)));
            Answered { body: Body::Whole(None), ended: None, held: None, _guard: None }
        }
        (body, _) => {
            let stream = matches!(body, Body::Stream(..));
            let ended = stream.then(|| Box::pin(stopped(closing)) as Pin<Box<dyn Future<Output = ()>>>);
            Answered { body, ended, held: None, _guard: Some(guard) }
        }
    };
    Response::from_parts(parts, answered)
}

fn whole(answer: Response<Body>, guard: Guard, held: Option<Held>) -> Response<Answered> {
    answer.map(|body| Answered { body, ended: None, held, _guard: Some(guard) })
}

/// Says in `Host` what is asked, where HTTP/1.1 has it and whoever compares it looks.
fn name_host<B>(request: &mut Request<B>) {
    let host = request.uri().authority().and_then(|host| HeaderValue::from_str(host.as_str()).ok());
    if let Some(host) = host {
        request.headers_mut().insert(HOST, host);
    }
}

async fn stopped(mut closing: watch::Receiver<bool>) {
    let _ = closing.wait_for(|closing| *closing).await;
}

async fn messages(
    upgrading: OnUpgrade,
    services: Rc<Services>,
    opened: (crate::wire::asked::Opener, crate::wire::stream::Subscription),
    (guard, closing): (Guard, watch::Receiver<bool>),
) {
    let Ok(upgraded) = upgrading.await else { return };
    let open = move |head, peer| {
        let services = services.clone();
        async move { asked::opened(&services, head, peer).await }
    };
    let connection = Box::new(TokioIo::new(upgraded));
    Session::new(connection, opened, open).until(stopped(closing)).run().await;
    drop(guard);
}

/// Runs the tasks of a connection on its core.
#[derive(Clone, Copy)]
struct Local;

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for Local {
    fn execute(&self, task: F) {
        tokio::task::spawn_local(task);
    }
}

/// Requests of a connection that are not answered to their end.
struct UnderWay {
    count: Cell<usize>,
    /// When that was one less or more last.
    since: Cell<Instant>,
}

struct Guard(Rc<UnderWay>);

impl Guard {
    fn new(under_way: &Rc<UnderWay>) -> Self {
        under_way.count.set(under_way.count.get() + 1);
        Self(under_way.clone())
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.count.set(self.0.count.get().saturating_sub(1));
        self.0.since.set(Instant::now());
    }
}

/// A body that is counted while it is sent; a stream ends when the node stops. What is whole goes in copied pieces: a piece that
/// waits in h2 must not keep all of it.
struct Answered {
    body: Body,
    ended: Option<Pin<Box<dyn Future<Output = ()>>>>,
    held: Option<Held>,
    _guard: Option<Guard>,
}

impl hyper::body::Body for Answered {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(held) = &self.held {
            held.taken();
        }
        if let Body::Whole(Some(bytes)) = &mut self.body {
            let length = bytes.len().min(limits::H2_PIECE_BYTES);
            let piece = Bytes::copy_from_slice(bytes.get(..length).unwrap_or_default());
            bytes.advance(length);
            if bytes.is_empty() {
                (self.body, self.held) = (Body::Whole(None), None);
            }
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            return Poll::Ready(frame);
        }
        if let Some(ended) = &mut self.ended
            && ended.as_mut().poll(context).is_ready()
        {
            (self.ended, self.body) = (None, Body::Whole(None));
            return Poll::Ready(None);
        }
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_is_named_where_it_is_looked_for() {
        let request = Request::get("https://node.example:7400/reviews/x").header(HOST, "elsewhere.example");
        let mut request = request.body(()).unwrap();
        name_host(&mut request);
        assert_eq!(request.headers().get_all(HOST).iter().collect::<Vec<_>>(), ["node.example:7400"]);
        let mut request = Request::get("/x").header(HOST, "node.example").body(()).unwrap();
        name_host(&mut request);
        assert_eq!(request.headers()[HOST], "node.example");
    }
}
