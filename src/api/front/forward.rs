//! Passes requests on to the node that owns the store, and answers back.
//!
//! ```text
//!   client ─► this node ══ HTTP/2, a few connections ══► the owner
//! ```
//!
//! Must hold: one hop; what another node passed on goes no further. A request is sent twice only when nothing can have been done by the
//! first: it was not sent, the owner says so (`aob-hop: again`), or it only reads. While nobody owns the store requests wait, for
//! [`limits::FORWARD_HOLD_MILLIS`]. Full: [`limits::FORWARDS_MAX`] under way, bodies of more than
//! [`limits::FORWARD_BODY_BYTES_MAX`] are not kept and so sent once.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::header::{self, HOST, HeaderMap, HeaderName};
use http::request::Parts;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Request, Response, StatusCode, Uri, Version};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::bodies::{Counted, Passed, Sent, kept};
use super::hop::{self, HOP, HopKey};
use super::{Counters, Local};
use crate::limits;
use crate::wire::problem::Problem;

/// Who owns the store, as far as this node knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Nobody, or nobody knows.
    Unknown,
    /// Another node, to be reached at `HOST:PORT`.
    Other(Arc<str>),
    /// This one, which does not serve yet.
    Starting,
    /// This one, at the address where it listens.
    Own(Arc<str>),
}

/// Said to a node that passed a request on: nothing was done, ask whoever owns the store by then.
pub(super) const AGAIN: HeaderValue = HeaderValue::from_static("again");
/// Between two looks for an owner that does not answer.
const PAUSE: Duration = Duration::from_millis(25);

/// A connection to an owner.
struct Line {
    to: Arc<str>,
    sender: http2::SendRequest<Sent>,
    streams: Rc<Cell<usize>>,
}

/// What passes requests on, for one thread.
pub(super) struct Forwarder {
    owner: watch::Receiver<Owner>,
    key: HopKey,
    counters: Arc<Counters>,
    lines: RefCell<Vec<Line>>,
    /// Whoever has it connects; the others then find what it made.
    connecting: tokio::sync::Mutex<()>,
    under_way: Rc<Cell<usize>>,
}

/// How a try ended that gave no answer.
enum Failed {
    /// Nothing was done.
    Unsent,
    /// Perhaps it was.
    Lost(String),
}

impl Forwarder {
    pub(super) fn new(owner: watch::Receiver<Owner>, key: HopKey, counters: Arc<Counters>) -> Self {
        Self {
            owner,
            key,
            counters,
            lines: RefCell::default(),
            connecting: tokio::sync::Mutex::default(),
            under_way: Rc::default(),
        }
    }

    /// The owner's answer to a request of `client`, which another node passed on or not.
    pub(super) async fn pass(
        &self,
        (client, by_hop): (IpAddr, bool),
        mut head: Parts,
        body: Incoming,
    ) -> Result<Response<Passed>, Box<Problem>> {
        let counted = self.enter()?;
        let target = prepared(&mut head);
        let mut body = kept(body).await?;
        let until = Instant::now() + Duration::from_millis(limits::FORWARD_HOLD_MILLIS);
        loop {
            let to = self.whereabouts(by_hop, until).await?;
            // What is not kept can be sent once.
            let (again, sent) = match &mut body {
                Sent::Kept(bytes) => (true, Sent::Kept(bytes.clone())),
                Sent::Coming(_) => (false, std::mem::replace(&mut body, Sent::Kept(None))),
            };
            let failed = match self.send(&to, client, (&head, &target, sent), until).await {
                Ok((answer, stream)) => {
                    let refused = again && answer.headers().get(HOP) == Some(&AGAIN);
                    if !refused || Instant::now() >= until {
                        self.counters.passed.increment();
                        return Ok(answered(answer, [counted, stream]));
                    }
                    Failed::Unsent
                }
                Err(failed) => failed,
            };
            match failed {
                Failed::Unsent if again => {}
                Failed::Lost(_) if again && head.method.is_safe() => {}
                Failed::Unsent => return Err(nobody("it went before the request was sent")),
                Failed::Lost(why) => return Err(lost(&to, &why)),
            }
            if Instant::now() >= until {
                return Err(nobody(&format!("{to} does not answer")));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn enter(&self) -> Result<Counted, Box<Problem>> {
        let (count, max) = (self.under_way.get(), limits::FORWARDS_MAX);
        if count >= max {
            let detail = format!("{count} requests are passed on at this moment (limit forwards_max)");
            return Err(Problem::unavailable("overloaded", detail).limit("forwards_max"));
        }
        Ok(Counted::new(&self.under_way))
    }

    /// Where the owner is, once there is one.
    async fn whereabouts(&self, by_hop: bool, until: Instant) -> Result<Arc<str>, Box<Problem>> {
        let mut owner = self.owner.clone();
        let known = owner.wait_for(|owner| matches!(owner, Owner::Own(_) | Owner::Other(_)));
        let known = tokio::time::timeout_at(until, known).await.ok().and_then(Result::ok);
        match known.as_deref() {
            Some(Owner::Own(to)) => Ok(to.clone()),
            Some(Owner::Other(_)) if by_hop => {
                Err(nobody("the node that was asked by another owns it no more"))
            }
            Some(Owner::Other(to)) => Ok(to.clone()),
            _ => Err(nobody("no node owns the store at this moment")),
        }
    }

    async fn send(
        &self,
        to: &Arc<str>,
        client: IpAddr,
        (head, target, body): (&Parts, &Target, Sent),
        until: Instant,
    ) -> Result<(Response<Incoming>, Counted), Failed> {
        let line = tokio::time::timeout_at(until, self.line(to)).await;
        let (mut sender, stream) = line.ok().and_then(Result::ok).ok_or(Failed::Unsent)?;
        let mut request = Request::new(body);
        *request.method_mut() = head.method.clone();
        *request.headers_mut() = head.headers.clone();
        *request.uri_mut() = target.uri(to);
        *request.version_mut() = Version::HTTP_2;
        self.sign(&mut request, client);
        let answer = sender.send_request(request).await;
        let failed = |error: hyper::Error| match error.is_canceled() {
            true => Failed::Unsent,
            false => Failed::Lost(error.to_string()),
        };
        answer.map(|answer| (answer, stream)).map_err(failed)
    }

    fn sign(&self, request: &mut Request<Sent>, client: IpAddr) {
        let said = self.key.sign((request.method(), request.uri()), client, hop::now());
        if let Some(said) = said {
            request.headers_mut().insert(HOP, said);
        }
    }

    /// A connection to the owner that has room for another request.
    async fn line(&self, to: &Arc<str>) -> Result<(http2::SendRequest<Sent>, Counted), String> {
        let (mut sender, counted) = match self.with_room(to) {
            Some(found) => found,
            None => {
                let _alone = self.connecting.lock().await;
                match self.with_room(to) {
                    Some(found) => found,
                    None => self.connect(to).await?,
                }
            }
        };
        sender.ready().await.map_err(|error| error.to_string())?;
        Ok((sender, counted))
    }

    fn with_room(&self, to: &Arc<str>) -> Option<(http2::SendRequest<Sent>, Counted)> {
        let mut lines = self.lines.borrow_mut();
        lines.retain(|line| line.to == *to && !line.sender.is_closed());
        let room = lines.iter().find(|line| line.streams.get() < limits::H2_STREAMS_MAX as usize / 2)?;
        Some((room.sender.clone(), Counted::new(&room.streams)))
    }

    async fn connect(&self, to: &Arc<str>) -> Result<(http2::SendRequest<Sent>, Counted), String> {
        let stream = reached(to).await?;
        let mut builder = http2::Builder::new(Local);
        builder
            .timer(TokioTimer::new())
            .initial_stream_window_size(limits::H2_STREAM_WINDOW_BYTES)
            .initial_connection_window_size(limits::H2_WINDOW_BYTES)
            .keep_alive_interval(Duration::from_secs(limits::FORWARD_PING_SECONDS))
            .keep_alive_timeout(Duration::from_secs(limits::FORWARD_PING_SECONDS));
        let (sender, connection) =
            builder.handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
        crate::io::spawn_local(async move {
            // What is lost with it is told to whoever waits.
            let _ = connection.await;
        });
        let streams = Rc::default();
        let counted = Counted::new(&streams);
        self.lines.borrow_mut().push(Line { to: to.clone(), sender: sender.clone(), streams });
        Ok((sender, counted))
    }

    /// A connection that becomes something else (a WebSocket), joined with one to the owner.
    pub(super) async fn join(
        &self,
        (client, by_hop): (IpAddr, bool),
        mut request: Request<Incoming>,
    ) -> Result<Response<Incoming>, Box<Problem>> {
        let counted = self.enter()?;
        let until = Instant::now() + Duration::from_millis(limits::FORWARD_HOLD_MILLIS);
        let to = self.whereabouts(by_hop, until).await?;
        let stream = reached(&to).await.map_err(|why| nobody(&format!("{to} does not answer: {why}")))?;
        let (mut sender, connection) = http1::Builder::new()
            .handshake::<_, Sent>(TokioIo::new(stream))
            .await
            .map_err(|error| nobody(&error.to_string()))?;
        crate::io::spawn_local(async move {
            let _ = connection.with_upgrades().await;
        });
        let here = hyper::upgrade::on(&mut request);
        let (head, body) = request.into_parts();
        let mut request = Request::from_parts(head, Sent::Coming(body));
        self.sign(&mut request, client);
        let mut answer = sender.send_request(request).await.map_err(|error| lost(&to, &error.to_string()))?;
        if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
            let there = hyper::upgrade::on(&mut answer);
            crate::io::spawn_local(async move {
                let _counted = counted;
                if let (Ok(here), Ok(there)) = tokio::join!(here, there) {
                    let (mut here, mut there) = (TokioIo::new(here), TokioIo::new(there));
                    let _ = tokio::io::copy_bidirectional(&mut here, &mut there).await;
                }
            });
        }
        self.counters.passed.increment();
        Ok(answer)
    }
}

async fn reached(to: &str) -> Result<TcpStream, String> {
    let limit = Duration::from_millis(limits::FORWARD_CONNECT_MILLIS_MAX);
    let connected = timeout(limit, TcpStream::connect(to)).await;
    let stream = connected.map_err(|_| format!("no connection within {limit:?}"))?;
    let stream = stream.map_err(|error| error.to_string())?;
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

/// What is asked for, and of whom the client believes to ask.
struct Target {
    authority: Option<Authority>,
    path: PathAndQuery,
}

impl Target {
    fn uri(&self, to: &str) -> Uri {
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(Scheme::HTTP);
        parts.authority = self.authority.clone().or_else(|| to.parse().ok());
        parts.path_and_query = Some(self.path.clone());
        Uri::from_parts(parts).unwrap_or_default()
    }
}

/// Takes out what concerns the client's connection alone (RFC 9110, 7.6.1).
fn prepared(head: &mut Parts) -> Target {
    let host = head.headers.remove(HOST);
    let named = host.as_ref().and_then(|host| host.to_str().ok()).and_then(|host| host.parse().ok());
    strip(&mut head.headers);
    Target {
        authority: head.uri.authority().cloned().or(named),
        path: head.uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/")),
    }
}

fn strip(headers: &mut HeaderMap) {
    const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
    for name in [header::CONNECTION, header::TRANSFER_ENCODING, header::UPGRADE, header::TE, KEEP_ALIVE] {
        headers.remove(name);
    }
}

fn answered(answer: Response<Incoming>, counted: [Counted; 2]) -> Response<Passed> {
    let (mut head, body) = answer.into_parts();
    head.version = Version::default();
    head.headers.remove(HOP);
    strip(&mut head.headers);
    Response::from_parts(head, Passed { body, _counted: counted })
}

/// Nothing was done: it may be sent again.
fn nobody(why: &str) -> Box<Problem> {
    Problem::unavailable("no_owner", format!("there is nobody to pass this on to: {why}"))
}

/// Nobody knows what was done.
fn lost(to: &str, why: &str) -> Box<Problem> {
    let detail = format!("the node at {to} went while it answered: {why}");
    let mut problem = Problem::new(504, "owner_lost", detail);
    problem.outcome = Some("unknown".into());
    problem.retry_after_ms = Some(1_000);
    problem
}
