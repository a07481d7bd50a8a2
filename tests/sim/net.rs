//! HTTP between clients and the node, over connections that take their time and break when the node ends.

use base64::Engine as _;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use serde_json::Value;

use super::world::World;
use super::{clock, held};

/// Milliseconds until a client gives up.
const ANSWER_MS: u64 = 40_000;
const PIPE_BYTES: usize = 256 << 10;

/// A request.
pub(super) struct Request<'a> {
    pub(super) method: &'a str,
    pub(super) path: &'a str,
    pub(super) headers: &'a [(&'a str, String)],
    pub(super) body: Option<Value>,
}

/// What a client knows of a request.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Answer {
    /// Nobody took it: it has done nothing.
    NotSent,
    /// It may have been done.
    Unknown,
    /// Status, body, whether it was answered from memory, and whether it is about a run that somebody else started.
    Given { status: u16, body: Value, replayed: bool, existing: bool },
}

impl Answer {
    /// The body of a success.
    pub(super) fn ok(&self) -> Option<&Value> {
        match self {
            Self::Given { status: 200..300, body, .. } => Some(body),
            _ => None,
        }
    }
}

pub(super) async fn get(world: &World, path: &str) -> Answer {
    send(world, Request { method: "GET", path, headers: &[], body: None }).await
}

pub(super) async fn post(world: &World, path: &str, body: Value) -> Answer {
    send(world, Request { method: "POST", path, headers: &[], body: Some(body) }).await
}

/// The same in somebody's name.
pub(super) async fn post_as(world: &World, who: &str, path: &str, body: Value) -> Answer {
    let headers = [("authorization", format!("Bearer {who}"))];
    send(world, Request { method: "POST", path, headers: &headers, body: Some(body) }).await
}

/// Sends a request over a connection of its own.
pub(super) async fn send(world: &World, request: Request<'_>) -> Answer {
    delay(world).await;
    let Some(door) = world.door.borrow().clone() else { return Answer::NotSent };
    let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
    if door.send(theirs).is_err() {
        return Answer::NotSent;
    }
    let exchange = async {
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(ours)).await.ok()?;
        let connection = tokio::task::spawn_local(connection);
        let mut built =
            hyper::Request::builder().method(request.method).uri(request.path).header("host", "node");
        for (name, value) in request.headers {
            built = built.header(*name, value);
        }
        if !request.headers.iter().any(|(name, _)| *name == "authorization") {
            built = built.header("authorization", format!("Bearer {}", held::HUMAN));
        }
        let body = request.body.map(|body| Bytes::from(body.to_string()));
        if body.is_some() {
            built = built.header("content-type", "application/json");
        }
        let response =
            sender.send_request(built.body(Full::new(body.unwrap_or_default())).unwrap()).await.ok()?;
        let (head, body) = response.into_parts();
        let bytes = body.collect().await.ok()?.to_bytes();
        connection.abort();
        let is_file = head.headers.get("content-type").is_some_and(|kind| kind == "application/octet-stream");
        let body = if is_file {
            Value::String(base64::engine::general_purpose::STANDARD.encode(&bytes))
        } else {
            serde_json::from_slice(&bytes).unwrap_or_default()
        };
        let replayed = head.headers.contains_key("idempotent-replayed");
        let existing = head.headers.contains_key("aob-existing-run");
        Some(Answer::Given { status: head.status.as_u16(), body, replayed, existing })
    };
    let within = std::time::Duration::from_millis(ANSWER_MS);
    let answer = tokio::time::timeout(within, exchange).await.ok().flatten().unwrap_or(Answer::Unknown);
    delay(world).await;
    answer
}

async fn delay(world: &World) {
    clock::sleep_ms(world.draw(world.options.network_ms + 1)).await;
}
