//! The scenario of `transports` over HTTP/2, where streams share their connections: single streams are reset, whole connections
//! are cut under all of their streams, and each stream comes to exactly the rows of the timeline.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::StreamExt as _;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::task::{AbortHandle, JoinSet};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{Message, protocol::Role};

use crate::harness::{Node, Options, chain};
use crate::quic::{block_on, rows, two_cores};
use crate::sockets::Http2;
use crate::transports::{Drawn, Load, many};

/// Streams at once on one connection; the node allows 128.
const AT_ONCE: u64 = 100;
/// Attempts to open a stream, or to read on, that may come to nothing one after the other: others cut the connection.
const FAILURES_MAX: u32 = 100;

#[derive(Clone, Copy, Debug)]
enum Over {
    Events,
    WebSocket,
}

/// A connection, and how to cut it.
type Line = (Http2, AbortHandle);

/// The one connection that all streams are on; a new one when it was cut.
struct Shared {
    address: String,
    line: tokio::sync::Mutex<Option<Line>>,
    connections: AtomicU64,
    resets: AtomicU64,
}

impl Shared {
    async fn http2(&self) -> Http2 {
        let mut line = self.line.lock().await;
        if let Some((http2, _)) = &*line
            && !http2.is_closed()
        {
            return http2.clone();
        }
        self.connections.fetch_add(1, Ordering::Relaxed);
        let stream = tokio::net::TcpStream::connect(&self.address).await.unwrap();
        let shaken = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
        let (mut http2, connection) = shaken.unwrap();
        let task = tokio::spawn(connection).abort_handle();
        // What the server allows, WebSockets among it, comes with its first answer.
        let request = http::Request::get(format!("http://{}/readyz", self.address)).body(Empty::new());
        assert_eq!(http2.send_request(request.unwrap()).await.unwrap().status(), 200);
        *line = Some((http2.clone(), task));
        http2
    }

    async fn cut(&self) {
        if let Some((_, task)) = self.line.lock().await.take() {
            task.abort();
        }
    }

    /// A stream from behind this event on; `None` when the connection is cut meanwhile.
    async fn open(&self, over: Over, run: &str, after: usize) -> Option<Stream> {
        let uri = format!("http://{}/v1/runs/{run}/events?after={after}", self.address);
        let request = match over {
            Over::Events => http::Request::get(uri),
            Over::WebSocket => http::Request::connect(uri)
                .header("sec-websocket-version", "13")
                .header("sec-websocket-protocol", "aob.v1")
                .extension(hyper::ext::Protocol::from_static("websocket")),
        };
        let request = request.body(Empty::new()).unwrap();
        let answer = self.http2().await.send_request(request).await.ok()?;
        assert_eq!(answer.status(), 200);
        Some(match over {
            Over::Events => Stream::Events(answer.into_body(), String::new()),
            Over::WebSocket => {
                let stream = TokioIo::new(hyper::upgrade::on(answer).await.ok()?);
                Stream::Socket(Box::new(WebSocketStream::from_raw_socket(stream, Role::Client, None).await))
            }
        })
    }
}

enum Stream {
    Events(Incoming, String),
    Socket(Box<WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>>),
}

impl Stream {
    /// Number and data of the next event; `None` when the connection was cut. A stream that ends well before its run does has broken
    /// its promise.
    async fn next(&mut self) -> Option<(u64, String)> {
        match self {
            Self::Events(body, text) => loop {
                if let Some(end) = text.find("\n\n") {
                    let block: String = text.drain(..end + 2).collect();
                    let field = |name| block.lines().find_map(|line| line.strip_prefix(name));
                    let Some(id) = field("id: ") else {
                        assert_eq!(field("event: "), None, "{block}");
                        continue;
                    };
                    return Some((number(id), field("data: ").unwrap().to_owned()));
                }
                let frame = body.frame().await.expect("it ends with its run").ok()?;
                text.push_str(std::str::from_utf8(&frame.into_data().unwrap()).unwrap());
            },
            Self::Socket(socket) => loop {
                match socket.next().await?.ok()? {
                    Message::Text(text) => {
                        let message: Value = serde_json::from_str(&text).unwrap();
                        let (_, data) = text.split_once(",\"data\":").unwrap();
                        let id = message["id"].as_str().unwrap_or_else(|| panic!("{text}"));
                        return Some((number(id), data.strip_suffix('}').unwrap().to_owned()));
                    }
                    Message::Close(close) => panic!("closed before its run ended: {close:?}"),
                    _ => {}
                }
            },
        }
    }
}

fn number(id: &str) -> u64 {
    id.rsplit_once(':').unwrap().1.parse().unwrap()
}

/// The data of all events of a run, read in pieces between which the stream is reset, or everybody's connection cut.
async fn read(shared: Arc<Shared>, (over, run): (Over, String), mut drawn: Drawn) -> (String, Vec<String>) {
    let (mut got, mut failed) = (Vec::new(), 0);
    loop {
        assert!(failed <= FAILURES_MAX, "{over:?} {run} comes to nothing after {}", got.len());
        failed += 1;
        let Some(mut stream) = shared.open(over, &run, got.len()).await else { continue };
        for _ in 0..=drawn.below(12) {
            let Some((seq, data)) = stream.next().await else { break };
            assert_eq!(seq, got.len() as u64 + 1, "{over:?} {run}: none is left out and none comes twice");
            let row: Value = serde_json::from_str(&data).unwrap();
            got.push(data);
            failed = 0;
            if row["type"] == "run.completed" {
                return (run, got);
            }
        }
        // To give it up is to reset it.
        drop(stream);
        shared.resets.fetch_add(1, Ordering::Relaxed);
        if drawn.below(12) == 0 {
            shared.cut().await;
        }
    }
}

// F008 F033 F036 F224 N11 N12, RELIABILITY I-13 I-14
#[test]
fn streams_on_one_connection_of_http2_come_to_the_timeline_whatever_is_cut() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&two_cores(Options::serve(directory.path())));
    let mut client = node.client();
    client.post("/v1/workflows", &chain("cut", 12)).expect(201);
    let load = Load::of(&node, "cut");
    for over in [Over::Events, Over::WebSocket] {
        let shared = Arc::new(Shared {
            address: node.address.clone(),
            line: tokio::sync::Mutex::default(),
            connections: AtomicU64::new(0),
            resets: AtomicU64::new(0),
        });
        let mut begun = 0;
        while begun < many() {
            let count = AT_ONCE.min(many() - begun);
            let runs: Vec<String> = (0..count)
                .map(|_| {
                    let wish = json!({"workflow": "cut", "inputs": {"n": 1}});
                    client.post("/v1/runs", &wish).expect(202).json()["run_id"].as_str().unwrap().to_owned()
                })
                .collect();
            let all = block_on(async {
                let mut readers = JoinSet::new();
                for (at, run) in runs.into_iter().enumerate() {
                    readers.spawn(read(shared.clone(), (over, run), Drawn(begun + at as u64)));
                }
                let all = readers.join_all().await;
                // It ends with the runtime.
                shared.cut().await;
                all
            });
            for (run, got) in all {
                let expected: Vec<String> = rows(&mut client, &run).into_iter().map(|(_, row)| row).collect();
                assert_eq!(got, expected, "{over:?} {run}");
            }
            begun += count;
        }
        let (connections, resets) =
            (shared.connections.load(Ordering::Relaxed), shared.resets.load(Ordering::Relaxed));
        println!("{over:?} over HTTP/2: {begun} streams, {resets} resets, {connections} connections");
        assert!(resets >= begun && connections >= 3, "hardly cut: {resets}, {connections}");
    }
    load.end();
}
