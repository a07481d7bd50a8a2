//! A connection of HTTP/3 that carries one WebTransport session: SETTINGS, one `CONNECT`, then streams with frames of `aob/1`.
//!
//! The session's path says what it is about: `/v1/runs/{id}/stream` is that run's events, on a stream that the server opens;
//! `/v1/stream` is nothing yet. Pages of other sites are refused ([`Origins`](crate::wire::origin::Origins)). Everything else of
//! HTTP/3 is answered 405: requests belong to the HTTP API. The framing is that of the library `web-transport-proto`, which takes
//! what fits in memory; what it is given was bounded here ([`limits::QUIC_CONTROL_FRAME_BYTES_MAX`]).

use std::rc::Rc;
use std::time::Duration;

use bytes::{BufMut as _, BytesMut};
use http::{HeaderValue, StatusCode, header};
use quinn::{RecvStream, SendStream, VarInt};
use tokio::io::AsyncReadExt as _;
use web_transport_proto::{
    Capsule, ConnectRequest, ConnectResponse, Frame, Settings, StreamUni, VarInt as Number,
};

use super::line::{Busy, Line};
use super::subscription::{self, Stream};
use crate::limits;
use crate::wire::problem::Problem;
use crate::wire::quic::{self, Code, Subscribe, VERSION};
use crate::wire::stream::Subscription;

/// The name of HTTP/3 in the handshake.
pub(super) const ALPN: &[u8] = b"h3";

/// Errors of HTTP/3 (RFC 9114, 8.1).
const H3_NO_ERROR: u32 = 0x100;
const H3_STREAM_CREATION_ERROR: u32 = 0x103;
const H3_REQUEST_REJECTED: u32 = 0x10b;

/// The first frame of a stream of the client's.
enum First {
    /// A request, its head whole.
    Request(BytesMut),
    /// A stream of the session with this id.
    OfSession(u64),
}

/// Serves it until it is closed, by whomever.
pub(super) async fn serve(line: &Rc<Line>) {
    let settings = async {
        let mut control = line.connection.open_uni().await.ok()?;
        let (mut settings, mut out) = (Settings::default(), BytesMut::new());
        settings.enable_webtransport(1);
        settings.encode(&mut out);
        control.write_chunk(out.freeze()).await.ok()?;
        Some(control)
    };
    let (ended, end) = tokio::sync::watch::channel(None);
    // Kept: the end of a control stream is the end of a connection.
    let Some(Some(_control)) = line.unless_closed(settings).await else { return };
    tokio::select! {
        code = line.tend() => {
            let _ = ended.send(Some(code));
            // The session hears why, then the connection goes.
            let said = async {
                while ended.receiver_count() > 1 {
                    line.changed.notified().await;
                }
            };
            let _ = tokio::time::timeout(Duration::from_secs(1), said).await;
        }
        () = accept(line, &end) => {}
    }
    line.connection.close(VarInt::from_u32(H3_NO_ERROR), b"");
}

type End = tokio::sync::watch::Receiver<Option<Code>>;

/// Ends with the connection.
async fn accept(line: &Rc<Line>, end: &End) {
    // Critical streams of HTTP/3, as many as a client may open: they are never stopped, whatever is on them.
    let mut kept = Vec::new();
    loop {
        tokio::select! {
            opened = line.connection.accept_bi() => match opened {
                Ok((send, receive)) => {
                    let busy = line.begin();
                    tokio::task::spawn_local(stream(busy, send, receive, end.clone()));
                }
                Err(_) => return,
            },
            opened = line.connection.accept_uni() => match opened {
                Ok(receive) => kept.push(tokio::task::spawn_local(one_way(line.clone(), receive))),
                Err(_) => return,
            },
        }
        kept.retain(|task| !task.is_finished());
    }
}

/// What a client says on a stream of its own: nothing that matters. What HTTP/3 wants open is read to its end and dropped.
async fn one_way(line: Rc<Line>, mut receive: RecvStream) {
    let critical = [StreamUni::CONTROL, StreamUni::QPACK_ENCODER, StreamUni::QPACK_DECODER];
    match Number::read(&mut receive).await {
        Ok(kind) if critical.contains(&StreamUni(kind)) => {
            let mut bytes = 0;
            while let Ok(Some(chunk)) = receive.read_chunk(limits::QUIC_CONTROL_FRAME_BYTES_MAX, true).await {
                bytes += chunk.bytes.len();
                if bytes > limits::QUIC_CONTROL_FRAME_BYTES_MAX {
                    // Its window stays as it is now.
                    let _ = line.connection.closed().await;
                }
            }
        }
        _ => {
            let _ = receive.stop(VarInt::from_u32(H3_STREAM_CREATION_ERROR));
            line.waste();
        }
    }
}

async fn stream(busy: Busy, mut send: SendStream, mut receive: RecvStream, end: End) {
    let line = busy.line().clone();
    let within = Duration::from_secs(limits::QUIC_FIRST_ASK_SECONDS_MAX);
    let reject = VarInt::from_u32(H3_REQUEST_REJECTED);
    match tokio::time::timeout(within, first(&mut receive)).await {
        Ok(Some(First::Request(head))) => request(busy, (send, receive), head, end).await,
        Ok(Some(First::OfSession(id))) => {
            // It may have overtaken the request that opens the session.
            let there = async {
                while line.session.get().is_none() {
                    line.changed.notified().await;
                }
            };
            let there = line.unless_closed(tokio::time::timeout(within, there)).await;
            if !matches!(there, Some(Ok(()))) || line.session.get() != Some(id) {
                let _ = (send.reset(reject), receive.stop(reject));
                return;
            }
            drop(end);
            subscription::answer(busy, send, receive, Vec::new()).await;
        }
        _ => {
            let _ = (send.reset(reject), receive.stop(reject));
        }
    }
}

/// Reads to the end of a request's head, or to where a stream of the session begins; `None` for anything else.
async fn first(receive: &mut RecvStream) -> Option<First> {
    for _ in 0..limits::QUIC_UNKNOWN_FRAMES_MAX {
        let kind = Number::read(receive).await.ok()?;
        let number = Number::read(receive).await.ok()?;
        if Frame(kind) == Frame::WEBTRANSPORT {
            return Some(First::OfSession(number.into_inner()));
        }
        let length = usize::try_from(number.into_inner()).ok()?;
        if length > limits::QUIC_CONTROL_FRAME_BYTES_MAX {
            return None;
        }
        let mut body = vec![0; length];
        receive.read_exact(&mut body).await.ok()?;
        if Frame(kind) == Frame::HEADERS {
            let mut head = BytesMut::with_capacity(16 + length);
            kind.encode(&mut head);
            number.encode(&mut head);
            head.put_slice(&body);
            return Some(First::Request(head));
        }
        if !Frame(kind).is_grease() {
            return None;
        }
    }
    None
}

async fn request(
    mut busy: Busy,
    (mut send, mut receive): (SendStream, RecvStream),
    mut head: BytesMut,
    end: End,
) {
    let line = busy.line().clone();
    let id = u64::from(VarInt::from(send.id()));
    let opened = match ConnectRequest::decode(&mut head) {
        Err(_) => Err(StatusCode::METHOD_NOT_ALLOWED),
        // One at a time: a page that wants more opens another connection.
        Ok(_) if line.session.get().is_some() => Err(StatusCode::TOO_MANY_REQUESTS),
        Ok(_) if line.is_stopping() => Err(StatusCode::SERVICE_UNAVAILABLE),
        Ok(asked) => {
            let open = open(&line, asked);
            let opened = line.unless_closed(open).await;
            let Some(opened) = opened else { return };
            opened.map_err(|problem| StatusCode::from_u16(problem.status).unwrap_or(StatusCode::BAD_REQUEST))
        }
    };
    let (status, opened) = match opened {
        Ok(opened) => (StatusCode::OK, opened),
        Err(status) => (status, None),
    };
    let mut out = BytesMut::new();
    if ConnectResponse::new(status).encode(&mut out).is_err() || send.write_chunk(out.freeze()).await.is_err()
    {
        return;
    }
    if status != StatusCode::OK {
        let _ = send.finish();
        let within = Duration::from_secs(limits::QUIC_FIRST_ASK_SECONDS_MAX);
        let _ = line.unless_closed(tokio::time::timeout(within, send.stopped())).await;
        return;
    }
    busy.is_useful();
    line.session.set(Some(id));
    if let Some((path, subscription)) = opened {
        tokio::task::spawn_local(events(line.begin(), id, path, subscription));
    }
    // From here on the session's own stream counts as none.
    drop(busy);
    let left = hold((&mut send, &mut receive), end).await;
    if left {
        // The connection is there for the session.
        line.connection.close(VarInt::from_u32(H3_NO_ERROR), b"");
    }
    line.changed.notify_waiters();
}

/// What the session is about, when its path says so.
async fn open(line: &Line, asked: ConnectRequest) -> Result<Option<(String, Subscription)>, Box<Problem>> {
    let authority = asked.url.host_str().map(|host| match asked.url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    });
    line.core.origins.check(&asked.headers, authority.as_deref())?;
    let mut headers = asked.headers;
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    let mut empty = true;
    for (name, value) in asked.url.query_pairs() {
        if name == "access_token" {
            if let Ok(bearer) = HeaderValue::try_from(format!("Bearer {value}")) {
                headers.entry(header::AUTHORIZATION).or_insert(bearer);
            }
        } else {
            query.append_pair(&name, &value);
            empty = false;
        }
    }
    let query = if empty { String::new() } else { format!("?{}", query.finish()) };
    let path = asked.url.path();
    let run = path.strip_prefix("/v1/runs/").and_then(|rest| rest.strip_suffix("/stream"));
    let opened = match run {
        None if path == "/v1/stream" => None,
        None => {
            return Err(Problem::new(
                404,
                "route_not_found",
                "sessions are at /v1/stream and /v1/runs/{id}/stream",
            ));
        }
        Some(run) => {
            let path = format!("/v1/runs/{run}/events{query}");
            let wish = Subscribe { version: VERSION, path, ..Subscribe::default() };
            let head = wish.head(&headers)?;
            let subscription = line.core.asking.open(head, line.connection.remote_address().ip()).await?;
            Some((wish.path, subscription))
        }
    };
    headers.remove("last-event-id");
    line.headers.replace(headers);
    line.asked();
    Ok(opened)
}

/// The events of the session's run, on a stream of the server's.
async fn events(mut busy: Busy, session: u64, path: String, subscription: Subscription) {
    busy.is_useful();
    let line = busy.line().clone();
    let mut head = Vec::new();
    quic::put_varint(&mut head, StreamUni::WEBTRANSPORT.0.into_inner());
    quic::put_varint(&mut head, session);
    let Some(Ok(mut send)) = line.unless_closed(line.connection.open_uni()).await else { return };
    if send.write_chunk(head.into()).await.is_ok() {
        let stream = Stream { send, number: line.number() };
        stream.feed(&line, None, (&path, subscription)).await;
    }
}

/// Until the client ends the session (true), or we do.
async fn hold((send, receive): (&mut SendStream, &mut RecvStream), mut end: End) -> bool {
    let code = tokio::select! {
        biased;
        end = end.wait_for(Option::is_some) => end.ok().and_then(|code| *code).unwrap_or(Code::Done),
        // Capsules: whatever they say, there is nothing to do but to go when they end.
        () = read_to_end(receive) => {
            let _ = send.finish();
            return true;
        }
    };
    let (mut capsule, mut out) = (BytesMut::new(), BytesMut::new());
    Capsule::CloseWebTransportSession { code: code as u32, reason: String::new() }.encode(&mut capsule);
    Frame::DATA.encode(&mut out);
    Number::from_u32(u32::try_from(capsule.len()).unwrap_or(0)).encode(&mut out);
    out.extend_from_slice(&capsule);
    if send.write_chunk(out.freeze()).await.is_ok() && send.finish().is_ok() {
        let _ = send.stopped().await;
    }
    false
}

/// Capsules are short, and few; a client that says more than a control frame may hold has no reason to.
async fn read_to_end(receive: &mut RecvStream) {
    let mut capsules = receive.take(limits::QUIC_CONTROL_FRAME_BYTES_MAX as u64);
    let _ = tokio::io::copy(&mut capsules, &mut tokio::io::sink()).await;
}
