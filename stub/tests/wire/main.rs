//! The stub over real sockets: both APIs to the byte, every way of being wrong, and the account that it keeps.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::too_many_lines,
    reason = "tests fail loudly by design"
)]

mod account;
mod chat;
mod embeddings;
mod faults;
mod messages;
mod program;
mod scripts;

use std::net::SocketAddr;

use aob_stub_model::{Options, Stub};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{HeaderMap, Request};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};

/// What came back.
struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Vec<u8>,
    /// Whether the body broke off.
    broken: bool,
}

impl Answer {
    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The `data` of each event, `[DONE]` left out.
    fn events(&self) -> Vec<Value> {
        let data = self.text().lines().filter_map(|line| line.strip_prefix("data: "));
        data.filter(|data| *data != "[DONE]").map(|data| serde_json::from_str(data).unwrap()).collect()
    }
}

async fn started() -> Stub {
    Stub::start(Options::default()).await.unwrap()
}

async fn scripted(rules: Value) -> Stub {
    Stub::start(Options { script: Some(json!({"rules": rules})), ..Options::default() }).await.unwrap()
}

/// A request on a connection of its own; none when there is no answer at all.
async fn try_send(to: SocketAddr, request: Request<Full<Bytes>>) -> Option<Answer> {
    let stream = tokio::net::TcpStream::connect(to).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let (parts, mut body) = sender.send_request(request).await.ok()?.into_parts();
    let mut answer =
        Answer { status: parts.status.as_u16(), headers: parts.headers, body: Vec::new(), broken: false };
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => answer.body.extend_from_slice(&frame.into_data().unwrap()),
            Err(_) => {
                answer.broken = true;
                break;
            }
        }
    }
    Some(answer)
}

fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Request<Full<Bytes>> {
    let mut request = Request::builder().method(method).uri(path).header("host", "stub");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Full::new(Bytes::copy_from_slice(body.as_bytes()))).unwrap()
}

async fn post_with(stub: &Stub, path: &str, headers: &[(&str, &str)], body: &Value) -> Answer {
    try_send(stub.address, request("POST", path, headers, &body.to_string())).await.expect("an answer")
}

async fn post(stub: &Stub, path: &str, body: &Value) -> Answer {
    post_with(stub, path, &[], body).await
}

async fn get(stub: &Stub, path: &str) -> Value {
    try_send(stub.address, request("GET", path, &[], "")).await.unwrap().json()
}

const CHAT: &str = "/v1/chat/completions";
const MESSAGES: &str = "/v1/messages";

/// A request for either API with one text of the user.
fn ask(path: &str, text: &str) -> Value {
    let mut body = json!({"model": "m", "messages": [{"role": "user", "content": text}]});
    if path == MESSAGES {
        body["max_tokens"] = json!(1_000);
    }
    body
}

fn streamed(mut body: Value) -> Value {
    body["stream"] = json!(true);
    body
}

/// What is said, in either API.
fn said(path: &str, answer: &Answer) -> String {
    let pointer = if path == MESSAGES { "/content/0/text" } else { "/choices/0/message/content" };
    answer
        .json()
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_else(|| panic!("{}", answer.text()))
        .to_owned()
}
