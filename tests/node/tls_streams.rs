//! Streams inside TLS: over HTTP/1.1, HTTP/2 and WebSocket the rows of the timeline, also when the certificate changes under them.

use std::path::Path;
use std::sync::Arc;

use aob::client::{Call, Client};
use futures_util::StreamExt as _;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{Message, client::IntoClientRequest as _};

use crate::harness::{Node, Options};
use crate::quic::{block_on, certificate, pinned, rows_of, two_cores};

type Tls = TlsStream<TcpStream>;

/// A connection on which this certificate was shown, and this protocol agreed.
async fn connect(address: &str, sha256: &str, protocol: &str) -> std::io::Result<Tls> {
    let tls = Arc::new(pinned(sha256, protocol.as_bytes()));
    let stream = TcpStream::connect(address).await?;
    let stream = TlsConnector::from(tls).connect(ServerName::try_from("localhost").unwrap(), stream).await?;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(protocol.as_bytes()));
    Ok(stream)
}

/// One stream, and what came of it.
struct Reader {
    source: Source,
    text: String,
    rows: Vec<String>,
}

enum Source {
    Body(Incoming),
    Socket(Box<WebSocketStream<Tls>>),
}

impl Reader {
    async fn open(protocol: &str, (address, sha256): (&str, &str), path: &str) -> Self {
        let stream =
            connect(address, sha256, if protocol == "h2" { "h2" } else { "http/1.1" }).await.unwrap();
        let uri = if protocol == "h2" { format!("https://{address}{path}") } else { path.to_owned() };
        let request = http::Request::get(uri).header("host", address).body(Empty::<bytes::Bytes>::new());
        let request = request.unwrap();
        let source = match protocol {
            "h1" => {
                let shaken = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
                let (mut http, connection) = shaken.unwrap();
                tokio::spawn(connection);
                Source::Body(answered(http.send_request(request).await.unwrap()))
            }
            "h2" => {
                let executor = TokioExecutor::new();
                let shaken = hyper::client::conn::http2::handshake(executor, TokioIo::new(stream)).await;
                let (mut http, connection) = shaken.unwrap();
                tokio::spawn(connection);
                Source::Body(answered(http.send_request(request).await.unwrap()))
            }
            _ => {
                let mut request = format!("wss://{address}{path}").into_client_request().unwrap();
                request.headers_mut().insert("sec-websocket-protocol", "aob.v1".parse().unwrap());
                let (socket, _) = tokio_tungstenite::client_async(request, stream).await.unwrap();
                Source::Socket(Box::new(socket))
            }
        };
        Self { source, text: String::new(), rows: Vec::new() }
    }

    /// Reads on; false when the stream has ended, as it should.
    async fn read(&mut self) -> bool {
        match &mut self.source {
            Source::Body(body) => {
                let Some(frame) = body.frame().await else { return false };
                self.text.push_str(std::str::from_utf8(&frame.unwrap().into_data().unwrap()).unwrap());
                while let Some(end) = self.text.find("\n\n") {
                    let block: String = self.text.drain(..end + 2).collect();
                    self.rows.extend(
                        block.lines().find_map(|line| line.strip_prefix("data: ")).map(str::to_owned),
                    );
                }
                true
            }
            Source::Socket(socket) => match socket.next().await.unwrap().unwrap() {
                Message::Text(text) => {
                    let (_, data) = text.split_once(",\"data\":").unwrap();
                    self.rows.push(data.strip_suffix('}').unwrap().to_owned());
                    true
                }
                Message::Close(close) => {
                    assert_eq!(u16::from(close.unwrap().code), 1000);
                    false
                }
                _ => true,
            },
        }
    }
}

fn answered(answer: http::Response<Incoming>) -> Incoming {
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    answer.into_body()
}

fn post(path: impl Into<String>, body: &Value) -> Call {
    Call::post(path, "application/json", body.to_string())
}

fn client(address: &str, directory: &Path) -> Client {
    let port = address.rsplit_once(':').unwrap().1;
    Client::trusting(&format!("https://localhost:{port}"), Some(&directory.join("crt"))).unwrap()
}

// F006 F008 F033 F224
#[test]
fn streams_inside_tls_are_the_timeline_and_outlive_their_certificate() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name).display().to_string();
    let first = certificate(directory.path());
    let options = two_cores(Options::serve(&directory.path().join("data")))
        .set("tls.certificate", &file("crt"))
        .set("tls.key", &file("key"));
    let node = Node::start(&options);
    let address = node.address.as_str();
    let hold = json!({"name": "hold", "nodes": {
        "a": {"type": "wait", "with": {"signal": "go"}},
        "b": {"type": "function", "with": {"expr": "1"}}}, "edges": [{"from": "a", "to": "b"}]});
    block_on(async {
        let mut asking = client(address, directory.path());
        asking.call(post("/v1/workflows", &hold)).await.unwrap();
        let run: Value = asking.json(post("/v1/runs", &json!({"workflow": "hold"}))).await.unwrap();
        let run = format!("/v1/runs/{}", run["run_id"].as_str().unwrap());
        let path = format!("{run}/events");
        let mut readers = Vec::new();
        for protocol in ["h1", "h2", "wss"] {
            let mut reader = Reader::open(protocol, (address, &first), &path).await;
            // It has begun before anything changes.
            while reader.rows.is_empty() {
                assert!(reader.read().await);
            }
            readers.push(reader);
        }
        let second = certificate(directory.path());
        node.hang_up();
        node.says("reloaded");
        assert!(connect(address, &first, "h2").await.is_err(), "the old one is shown still");
        for protocol in ["h1", "h2", "wss"] {
            readers.push(Reader::open(protocol, (address, &second), &path).await);
        }
        let mut asking = client(address, directory.path());
        asking.call(post(format!("{run}/signals/go"), &json!({}))).await.unwrap();
        for reader in &mut readers {
            while reader.read().await {}
        }
        let (_, page) = asking.call(Call::get(format!("{run}/timeline?limit=1000"))).await.unwrap();
        let rows: Vec<String> = rows_of(&page).into_iter().map(|(_, row)| row).collect();
        assert!(rows.last().unwrap().contains("run.completed"));
        for (at, reader) in readers.iter().enumerate() {
            assert_eq!(reader.rows, rows, "reader {at}");
        }
    });
    assert!(node.terminate().0.success());
}
