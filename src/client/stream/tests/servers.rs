//! A small node: each connection goes as its turn says, a byte at a time.

#![expect(clippy::disallowed_types, reason = "turns are shared with the tasks of a test")]

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::ops::{Range, RangeInclusive};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use web_transport_proto::{ConnectRequest, ConnectResponse, Settings};

use crate::model::RunId;
use crate::wire::quic::take_varint;

pub(super) const RUN: &str = "run_018bcfe568007fffbfffffffffffffff";
/// The run ends with this one.
const LAST: u64 = 12;

/// What happens on one connection.
#[derive(Clone, Debug)]
pub(super) struct Turn {
    /// The cursor that has to be asked with.
    after: u64,
    events: Range<u64>,
    named: Vec<(&'static str, &'static str)>,
    refused: Option<u16>,
}

impl Turn {
    pub(super) fn events(after: u64, events: RangeInclusive<u64>) -> Self {
        Self { after, events: *events.start()..events.end() + 1, named: Vec::new(), refused: None }
    }

    /// Nothing comes.
    pub(super) fn silent(after: u64) -> Self {
        Self { after, events: 0..0, named: Vec::new(), refused: None }
    }

    pub(super) fn refused(status: u16) -> Self {
        Self { refused: Some(status), ..Self::silent(0) }
    }

    pub(super) fn then(mut self, name: &'static str, data: &'static str) -> Self {
        self.named.push((name, data));
        self
    }
}

fn kind(seq: u64) -> &'static str {
    if seq == LAST { "run.completed" } else { "node.completed" }
}

/// Data of an event.
pub(super) fn row(seq: u64) -> String {
    format!("{{\"seq\":{seq},\"type\":\"{}\",\"node\":\"ü\"}}", kind(seq))
}

fn problem(status: u16) -> String {
    let retryable = status >= 500;
    format!(
        "{{\"type\":\"t\",\"title\":\"t\",\"status\":{status},\"code\":\"no\",\"detail\":\"d\",\"retryable\":{retryable}}}"
    )
}

type Turns = Arc<Mutex<VecDeque<Turn>>>;

/// The next turn; a client that asks with the wrong cursor fails the test by what it then gets.
fn turn(turns: &Turns, after: u64) -> Turn {
    let turn = turns.lock().unwrap().pop_front().unwrap_or_else(|| Turn::refused(410));
    if turn.refused.is_none() && turn.after != after { Turn::refused(409) } else { turn }
}

fn asked(path: &str) -> u64 {
    path.rsplit_once("after=").and_then(|(_, after)| after.parse().ok()).unwrap_or(0)
}

pub(super) async fn serve(turns: Turns) -> SocketAddr {
    serve_with(turns, None).await
}

/// Serves all transports; `hash` is told in place of the certificate's.
pub(super) async fn serve_with(turns: Turns, hash: Option<String>) -> SocketAddr {
    let made = rcgen::generate_simple_self_signed(vec![String::from("127.0.0.1")]).unwrap();
    let certificate = made.cert.der().clone();
    let digest = ring::digest::digest(&ring::digest::SHA256, &certificate);
    let hex: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config =
        rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = config.with_no_client_auth().with_single_cert(vec![certificate], key).unwrap();
    config.alpn_protocols = vec![b"aob/1".to_vec(), b"h3".to_vec()];
    let crypto = quinn::crypto::rustls::QuicServerConfig::try_from(config).unwrap();
    let config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    let endpoint = quinn::Endpoint::server(config, ([127, 0, 0, 1], 0).into()).unwrap();
    let node = serde_json::json!({"quic": {"address": endpoint.local_addr().unwrap().to_string(),
        "certificate_sha256": hash.unwrap_or(hex)}});
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(quic(endpoint, turns.clone()));
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            tokio::spawn(http(Dribble(stream), turns.clone(), node.to_string()));
        }
    });
    address
}

/// Writes a byte at a time.
struct Dribble(TcpStream);

impl AsyncRead for Dribble {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Dribble {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, &bytes[..bytes.len().min(1)])
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

async fn http(mut stream: Dribble, turns: Turns, node: String) {
    let mut seen = [0; 2_048];
    let mut length = 0;
    while !seen[..length].ends_with(b"\r\n\r\n") {
        length = stream.0.peek(&mut seen).await.unwrap();
        tokio::task::yield_now().await;
    }
    let head = String::from_utf8_lossy(&seen[..length]).to_lowercase();
    if head.contains("upgrade: websocket") {
        return socket(stream, turns).await;
    }
    stream.0.read_exact(&mut seen[..length]).await.unwrap();
    if head.starts_with("get /v1/node ") {
        let answer =
            format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{node}", node.len());
        return stream.write_all(answer.as_bytes()).await.unwrap();
    }
    assert!(head.contains("authorization: bearer s3cr3t") && head.contains("aob-workspace: here"), "{head}");
    let after = head
        .split_once("last-event-id: ")
        .map_or(0, |(_, rest)| rest.lines().next().unwrap().rsplit_once(':').unwrap().1.parse().unwrap());
    let turn = turn(&turns, after);
    let text = match turn.refused {
        Some(status) => {
            let problem = problem(status);
            format!(
                "HTTP/1.1 {status} No\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{problem}",
                problem.len()
            )
        }
        None => {
            let mut text = String::from(
                "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\nretry: 1\n\n",
            );
            for seq in turn.events {
                text += &format!("id: {RUN}:{seq}\nevent: {}\ndata: {}\n\n: hb\n\n", kind(seq), row(seq));
            }
            for (name, data) in turn.named {
                text += &format!("event: {name}\ndata: {data}\n\n");
            }
            text
        }
    };
    // Who has heard the end goes away before the last byte.
    let _ = stream.write_all(text.as_bytes()).await;
}

#[allow(clippy::result_large_err, reason = "the shape that the handshake asks for")]
async fn socket(stream: Dribble, turns: Turns) {
    let mut said = None;
    let shaken = tokio_tungstenite::accept_hdr_async(stream, |request: &Request, mut response: Response| {
        let header = |name: &str| request.headers()[name].to_str().unwrap().to_owned();
        assert_eq!((&*header("authorization"), &*header("aob-workspace")), ("Bearer s3cr3t", "here"));
        let turn = turn(&turns, asked(&request.uri().to_string()));
        if let Some(status) = turn.refused {
            let answer = http::Response::builder().status(status).header("connection", "close");
            return Err(answer.body(Some(problem(status))).unwrap());
        }
        said = Some(turn);
        let protocol = request.headers()["sec-websocket-protocol"].clone();
        response.headers_mut().insert("sec-websocket-protocol", protocol);
        Ok(response)
    });
    let (Ok(mut socket), Some(turn)) = (shaken.await, said) else { return };
    let mut messages: Vec<Message> = Vec::new();
    for seq in turn.events {
        messages.push(Message::Ping(Default::default()));
        let text = format!("{{\"id\":\"{RUN}:{seq}\",\"event\":\"{}\",\"data\":{}}}", kind(seq), row(seq));
        messages.push(Message::text(text));
    }
    for (name, data) in turn.named {
        messages.push(Message::text(format!("{{\"event\":\"{name}\",\"data\":{data}}}")));
    }
    for message in messages {
        if socket.send(message).await.is_err() {
            return;
        }
    }
    let _ = socket.close(None).await;
    // What the client says meanwhile is read, or the end would take what is on its way with it.
    while let Some(Ok(_)) = socket.next().await {}
}

async fn quic(endpoint: quinn::Endpoint, turns: Turns) {
    while let Some(incoming) = endpoint.accept().await {
        let turns = turns.clone();
        tokio::spawn(async move {
            let Ok(connection) = incoming.await else { return };
            let data = connection.handshake_data().unwrap();
            let data = data.downcast::<quinn::crypto::rustls::HandshakeData>().unwrap();
            let mut kept = Vec::new();
            if data.protocol.as_deref() == Some(b"h3") {
                let mut settings = Settings::default();
                settings.enable_webtransport(1);
                let mut send = connection.open_uni().await.unwrap();
                settings.write(&mut send).await.unwrap();
                kept.push(send);
            }
            while let Ok((send, receive)) = connection.accept_bi().await {
                match kept.len() {
                    0 => native(send, receive, &turns).await,
                    1 => kept.extend(session(&connection, send, receive, &turns).await),
                    // As the node has it: a connection is there for one session.
                    _ => return connection.close(0_u32.into(), b"one session"),
                }
            }
        });
    }
}

async fn native(send: quinn::SendStream, mut receive: quinn::RecvStream, turns: &Turns) {
    // No wish is so short that one byte says its length.
    let mut head = [0; 2];
    receive.read_exact(&mut head).await.unwrap();
    let (length, _) = take_varint(&head).unwrap();
    let mut body = vec![0; length as usize];
    receive.read_exact(&mut body).await.unwrap();
    let wish: serde_json::Value = serde_json::from_slice(&body[1..]).unwrap();
    assert_eq!((body[0], &wish["version"]), (0x10, &1.into()));
    assert_eq!(
        wish["headers"],
        serde_json::json!({"authorization": "Bearer s3cr3t", "aob-workspace": "here"})
    );
    let turn = turn(turns, asked(wish["path"].as_str().unwrap()));
    dribble(send, said(turn)).await;
}

/// Gives what has to stay open.
async fn session(
    connection: &quinn::Connection,
    mut send: quinn::SendStream,
    mut receive: quinn::RecvStream,
    turns: &Turns,
) -> Option<quinn::SendStream> {
    let request = ConnectRequest::read(&mut receive).await.unwrap();
    assert_eq!(request.headers["authorization"], "Bearer s3cr3t");
    let turn = turn(turns, asked(request.url.as_str()));
    if let Some(status) = turn.refused {
        ConnectResponse::new(http::StatusCode::from_u16(status).unwrap()).write(&mut send).await.unwrap();
        return Some(send);
    }
    ConnectResponse::OK.write(&mut send).await.unwrap();
    let events = connection.open_uni().await.unwrap();
    let head = [&[0x40, 0x54][..], &number(u64::from(quinn::VarInt::from(send.id())))].concat();
    dribble(events, [head, said(turn)].concat()).await;
    Some(send)
}

async fn dribble(mut send: quinn::SendStream, bytes: Vec<u8>) {
    for byte in bytes {
        if send.write_all(&[byte]).await.is_err() {
            return;
        }
        tokio::task::yield_now().await;
    }
    let _ = send.finish();
    // To drop it is to end it; what was written arrives before.
    let _ = send.stopped().await;
}

fn said(turn: Turn) -> Vec<u8> {
    if let Some(status) = turn.refused {
        return frame(7, problem(status).as_bytes());
    }
    let run: RunId = RUN.parse().unwrap();
    let mut bytes = frame(6, b"{\"version\":1,\"path\":\"/\",\"stream\":1}");
    for seq in turn.events {
        bytes.extend(frame(1, &[&run.as_bytes()[..], &[seq as u8], row(seq).as_bytes()].concat()));
        bytes.extend(frame(4, b""));
    }
    for (name, data) in turn.named {
        let closing = data.replacen('{', &format!("{{\"reason\":\"{name}\""), 1).replace("\"\"", "\",\"");
        bytes.extend(match name {
            "node.delta" => frame(2, format!("{{\"event\":\"{name}\",\"data\":{data}}}").as_bytes()),
            _ => frame(3, closing.as_bytes()),
        });
    }
    bytes
}

fn number(value: u64) -> Vec<u8> {
    (u32::try_from(value).unwrap() | 0x8000_0000).to_be_bytes().to_vec()
}

fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
    [&number(body.len() as u64 + 1)[..], &[kind], body].concat()
}
