//! Streams over WebSocket and over HTTP/2: the same events, byte for byte, and the same rights; who misuses one is closed and
//! costs nobody else.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::handshake::HandshakeError;
use tokio_tungstenite::tungstenite::{Error, Message, WebSocket, client};

use crate::harness::{Client, Node, Options, chain, in_background};

const PATIENCE: Duration = Duration::from_secs(60);

fn node(directory: &std::path::Path) -> Node {
    Node::start(&Options::serve(directory).driver().set("http.origins", "https://app.example"))
}

/// A run that ended, and its timeline as it was answered.
fn ended_run(client: &mut Client, name: &str) -> (String, Vec<String>) {
    client.post("/v1/workflows", &chain(name, 5)).expect(201);
    let start = json!({"workflow": name, "inputs": {"n": 0}});
    let run = client.post_with("/v1/runs", &[("prefer", "wait=30")], &start).unwrap().expect(200).json();
    let run_id = run["run_id"].as_str().unwrap().to_owned();
    let page = client.get(&format!("/v1/runs/{run_id}/timeline?limit=1000")).expect(200);
    let text = String::from_utf8(page.body).unwrap();
    #[derive(serde::Deserialize)]
    struct Page {
        events: Vec<Box<serde_json::value::RawValue>>,
    }
    let page: Page = serde_json::from_str(&text).unwrap();
    (run_id, page.events.iter().map(|row| row.get().to_owned()).collect())
}

/// A run that waits for the signal `go`.
fn waiting_run(client: &mut Client) -> String {
    let hold = json!({"name": "hold", "nodes": {"a": {"type": "wait", "with": {"signal": "go"}}}});
    client.post("/v1/workflows", &hold).expect(201);
    let start = json!({"workflow": "hold"});
    client.post("/v1/runs", &start).expect(202).json()["run_id"].as_str().unwrap().to_owned()
}

/// Lets it end.
fn go(client: &mut Client, run_id: &str) {
    let answer = client.post(&format!("/v1/runs/{run_id}/signals/go"), &json!({}));
    assert!(matches!(answer.status, 200 | 202), "{}", answer.status);
}

pub(crate) fn tcp(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

pub(crate) type Refused = Box<http::Response<Option<Vec<u8>>>>;

/// A WebSocket on this path; the answer when it is refused.
pub(crate) fn open<S: Read + Write>(
    stream: S,
    (address, path): (&str, &str),
    headers: &[(&'static str, &str)],
) -> Result<WebSocket<S>, Refused> {
    let mut request = format!("ws://{address}{path}").into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", "aob.v1".parse().unwrap());
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    match client(request, stream) {
        Ok((socket, answer)) => {
            assert_eq!(answer.headers()["sec-websocket-protocol"], "aob.v1");
            Ok(socket)
        }
        Err(HandshakeError::Failure(Error::Http(answer))) => Err(answer),
        Err(other) => panic!("{other}"),
    }
}

pub(crate) fn opened(address: &str, path: &str) -> WebSocket<TcpStream> {
    open(tcp(address), (address, path), &[]).expect("it is opened")
}

/// The next text.
fn text<S: Read + Write>(socket: &mut WebSocket<S>) -> Result<String, u16> {
    loop {
        match socket.read() {
            Ok(Message::Text(text)) => return Ok(text.as_str().to_owned()),
            Ok(Message::Close(close)) => {
                while socket.read().is_ok() {}
                return Err(close.map_or(1005, |close| close.code.into()));
            }
            Ok(_) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// The `data` of all events up to the close, as it was sent, and the code of the close.
pub(crate) fn rows<S: Read + Write>(socket: &mut WebSocket<S>, run_id: &str) -> (Vec<String>, u16) {
    let mut rows = Vec::new();
    loop {
        match text(socket) {
            Ok(text) => rows.push(row(&text, run_id)),
            Err(code) => return (rows, code),
        }
    }
}

/// The `data` of a message of a run, which must be well formed.
fn row(text: &str, run_id: &str) -> String {
    let (_, data) = text.split_once(",\"data\":").unwrap();
    let data = data.strip_suffix('}').unwrap();
    let (message, inner): (Value, Value) =
        (serde_json::from_str(text).unwrap(), serde_json::from_str(data).unwrap());
    assert_eq!(message["event"], inner["type"], "{text}");
    assert_eq!(message["id"], format!("{run_id}:{}", inner["seq"]), "{text}");
    data.to_owned()
}

fn value(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

// F033, F034
#[test]
fn a_websocket_has_the_events_of_the_timeline_and_goes_where_its_client_wants() {
    let directory = tempfile::tempdir().unwrap();
    let node = node(directory.path());
    let mut client = node.client();
    let (run_id, timeline) = ended_run(&mut client, "chain5");
    let path = format!("/v1/runs/{run_id}/events");
    assert_eq!(rows(&mut opened(&node.address, &path), &run_id), (timeline.clone(), 1000));
    let (rest, code) = rows(&mut opened(&node.address, &format!("{path}?after=3")), &run_id);
    assert_eq!((&rest[..], code), (&timeline[3..], 1000));

    // Another run, then the same from elsewhere, then nothing that there is.
    let mut socket = opened(&node.address, &format!("/v1/runs/{}/events", waiting_run(&mut client)));
    assert_eq!(value(&text(&mut socket).unwrap())["event"], "run.started");
    let nowhere = "/v1/runs/run_018bcfe568007fffbfffffffffffffff/events";
    for (wish, status, code) in [
        (json!({"subscribe": nowhere}), 404, "run_not_found"),
        (json!({"subscribe": "/v1/runs"}), 404, "route_not_found"),
        (json!({"subscribe": 1}), 400, "invalid_body"),
    ] {
        socket.send(wish.to_string().into()).unwrap();
        let refused = loop {
            let message = value(&text(&mut socket).unwrap());
            if message["event"] == "refused" {
                break message;
            }
        };
        assert_eq!((&refused["data"]["status"], &refused["data"]["code"]), (&json!(status), &json!(code)));
    }
    socket.send(json!({"subscribe": format!("{path}?after=2")}).to_string().into()).unwrap();
    let subscribed = value(&text(&mut socket).unwrap());
    assert_eq!(subscribed, json!({"event": "subscribed", "data": {"path": format!("{path}?after=2")}}));
    assert_eq!(rows(&mut socket, &run_id), (timeline[2..].to_vec(), 1000));
    let mut ahead = opened(&node.address, &format!("{path}?after=999"));
    assert_eq!(value(&text(&mut ahead).unwrap())["event"], "resync");
    assert_eq!(text(&mut ahead), Err(4002));
}

#[test]
fn a_handshake_is_refused_as_a_request_is() {
    let directory = tempfile::tempdir().unwrap();
    let node = node(directory.path());
    let (run_id, timeline) = ended_run(&mut node.client(), "chain5");
    let path = format!("/v1/runs/{run_id}/events");
    let nowhere = "/v1/runs/run_018bcfe568007fffbfffffffffffffff/events";
    let at = |path: &str, headers: &[(&'static str, &str)]| {
        open(tcp(&node.address), (&node.address, path), headers)
    };
    for (path, header, status, code) in [
        (&*path, ("origin", "https://evil.example"), 403, "origin_refused"),
        (&*path, ("origin", "null"), 403, "origin_refused"),
        (&*path, ("sec-websocket-version", "8"), 400, "handshake_invalid"),
        (nowhere, ("x-y", "z"), 404, "run_not_found"),
    ] {
        let answer = at(path, &[header]).err().unwrap();
        let problem = value(std::str::from_utf8(answer.body().as_deref().unwrap()).unwrap());
        assert_eq!((answer.status().as_u16(), &problem["code"]), (status, &json!(code)), "{header:?}");
        if code == "handshake_invalid" {
            assert_eq!(answer.headers()["sec-websocket-version"], "13");
        }
    }
    for origin in ["https://app.example".to_owned(), format!("http://{}", node.address)] {
        let mut socket = at(&path, &[("origin", &origin)]).expect("a page that may");
        assert_eq!(rows(&mut socket, &run_id), (timeline.clone(), 1000));
    }
}

/// Bytes a client sends after its handshake, and the code it is closed with.
fn broken(address: &str, path: &str, bytes: &[u8]) -> u16 {
    let mut socket = opened(address, path);
    let stream = socket.get_mut();
    // It may be closed before everything is sent.
    let _ = stream.write_all(bytes);
    loop {
        match text(&mut socket) {
            Ok(_) => {}
            Err(code) => return code,
        }
    }
}

// RELIABILITY E13
#[test]
fn who_breaks_the_rules_of_a_websocket_is_closed_and_others_go_on() {
    let directory = tempfile::tempdir().unwrap();
    let node = node(directory.path());
    let mut client = node.client();
    let run_id = waiting_run(&mut client);
    let path = format!("/v1/runs/{run_id}/events");
    let mut other = opened(&node.address, &path);
    let masked =
        |first: u8, payload: &[u8]| [&[first, 0x80 | payload.len() as u8, 0, 0, 0, 0][..], payload].concat();
    let before = node.resident_kib();
    for (what, bytes, code) in [
        ("unmasked", vec![0x81, 1, b'x'], 1002),
        ("a reserved bit", masked(0xf1, b"x"), 1002),
        ("2^63 bytes", [&[0x81, 0xff, 0x7f][..], &[0xff; 11]].concat(), 1009),
        ("a binary message", masked(0x82, b"x"), 1003),
        ("no UTF-8", masked(0x81, b"\xff"), 1007),
        ("fragments without end", [masked(0x01, b"x"), masked(0x00, b"").repeat(20_000)].concat(), 1009),
        ("pings without end", masked(0x89, b"x").repeat(20_000), 1008),
    ] {
        assert_eq!(broken(&node.address, &path, &bytes), code, "{what}");
    }
    assert!(node.resident_kib() < before + 16 * 1024);
    go(&mut client, &run_id);
    let (rows, code) = rows(&mut other, &run_id);
    assert_eq!((value(rows.last().unwrap())["type"].as_str(), code), (Some("run.completed"), 1000));
}

#[test]
fn websockets_are_closed_when_the_node_stops() {
    let directory = tempfile::tempdir().unwrap();
    let node = node(directory.path());
    let run_id = waiting_run(&mut node.client());
    let mut reading = opened(&node.address, &format!("/v1/runs/{run_id}/events"));
    let mut refused = opened(&node.address, &format!("/v1/runs/{run_id}/events"));
    refused.send("{}".into()).unwrap();
    while value(&text(&mut refused).unwrap())["event"] != "refused" {}
    node.ask_to_end();
    for socket in [&mut reading, &mut refused] {
        let code = loop {
            if let Err(code) = text(socket) {
                break code;
            }
        };
        assert_eq!(code, 1001);
    }
    let (status, log) = node.finish();
    assert!(status.success(), "{log}");
}

fn on_runtime<F: Future>(test: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(PATIENCE, test).await.expect("in time") })
}

pub(crate) type Http2 = hyper::client::conn::http2::SendRequest<Empty<Bytes>>;

pub(crate) async fn http2(address: &str) -> Http2 {
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

/// What is answered over HTTP/2: status and body.
pub(crate) async fn got(mut http2: Http2, uri: String) -> (u16, String) {
    let request = http::Request::get(uri).body(Empty::new()).unwrap();
    let answer = http2.send_request(request).await.unwrap();
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

// F224
#[test]
fn a_hundred_streams_on_one_connection_of_http2_are_those_of_http1() {
    let directory = tempfile::tempdir().unwrap();
    let node = node(directory.path());
    let mut client = node.client();
    let run_id = waiting_run(&mut client);
    let path = format!("/v1/runs/{run_id}/events");
    let (address, at) = (node.address.clone(), path.clone());
    let over_http1 = in_background(move || Client::new(&address).events(&at, &[], |_| true));
    let uri = format!("http://{}{path}", node.address);
    let all = on_runtime(async {
        let connection = http2(&node.address).await;
        let streams: Vec<_> = (0..100).map(|_| tokio::spawn(got(connection.clone(), uri.clone()))).collect();
        // Beside them all it answers still.
        let (status, _) = got(connection.clone(), format!("http://{}/readyz", node.address)).await;
        assert_eq!(status, 200);
        go(&mut client, &run_id);
        let mut all = Vec::new();
        for stream in streams {
            all.push(stream.await.unwrap());
        }
        all
    });
    let expected: Vec<Value> = over_http1.join().unwrap().into_iter().map(|event| event.data).collect();
    assert_eq!(all.len(), 100);
    for (status, body) in all {
        assert_eq!(status, 200);
        let data = body.lines().filter_map(|line| line.strip_prefix("data: "));
        assert_eq!(data.map(value).collect::<Vec<_>>(), expected);
    }
}

// F224
#[test]
fn a_websocket_over_http2_is_that_over_http1() {
    let directory = tempfile::tempdir().unwrap();
    let node = node(directory.path());
    let (run_id, timeline) = ended_run(&mut node.client(), "chain5");
    let address = node.address.clone();
    let uri = |path: &str| format!("http://{address}{path}");
    on_runtime(async {
        let mut connection = http2(&node.address).await;
        let request = |uri: String, origin: Option<&str>| {
            let mut request = http::Request::connect(uri)
                .header("sec-websocket-version", "13")
                .header("sec-websocket-protocol", "aob.v1");
            if let Some(origin) = origin {
                request = request.header("origin", origin);
            }
            let protocol = hyper::ext::Protocol::from_static("websocket");
            request.extension(protocol).body(Empty::new()).unwrap()
        };
        let path = format!("/v1/runs/{run_id}/events");
        // The server's settings, which allow this, come with its first answer.
        assert_eq!(got(connection.clone(), uri("/readyz")).await.0, 200);
        let refused = connection.send_request(request(uri(&path), Some("https://evil.example"))).await;
        assert_eq!(refused.unwrap().status(), 403);
        let answer = connection.send_request(request(uri(&path), None)).await.unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["sec-websocket-protocol"], "aob.v1");
        let stream = TokioIo::new(hyper::upgrade::on(answer).await.unwrap());
        let role = tokio_tungstenite::tungstenite::protocol::Role::Client;
        let mut socket = tokio_tungstenite::WebSocketStream::from_raw_socket(stream, role, None).await;
        let mut seen = Vec::new();
        let mut code = None;
        while let Some(message) = socket.next().await {
            match message {
                Ok(Message::Text(text)) => seen.push(row(text.as_str(), &run_id)),
                Ok(Message::Close(close)) => code = close.map(|close| u16::from(close.code)),
                Ok(_) => {}
                Err(_) => break,
            }
        }
        assert_eq!((seen, code), (timeline, Some(1000)));
    });
}

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// `GET` of this path, its head in HPACK without a table.
pub(crate) fn get_head(address: &str, path: &str) -> Vec<u8> {
    assert!(path.len() < 127 && address.len() < 127, "each has a length of one byte");
    let mut out = vec![0x82, 0x86, 0x04, path.len() as u8];
    out.extend_from_slice(path.as_bytes());
    out.extend_from_slice(&[0x01, address.len() as u8]);
    out.extend_from_slice(address.as_bytes());
    out
}

/// Sends bytes without end; true once the node closes the connection.
fn flood(address: &str, first: &[u8], mut more: impl FnMut(u32) -> Vec<u8>) -> bool {
    let mut stream = tcp(address);
    stream.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut answers = stream.try_clone().unwrap();
    // What it answers is read away, so that it is not that for which it waits.
    let read = in_background(move || std::io::copy(&mut answers, &mut std::io::sink()));
    stream.write_all(&[PREFACE, &frame(4, 0, 0, &[]), first].concat()).unwrap();
    let broken = (0..200_000).find_map(|at| stream.write_all(&more(at)).err());
    let closed = broken.is_some_and(|error| error.kind() != std::io::ErrorKind::WouldBlock);
    let _ = stream.shutdown(std::net::Shutdown::Both);
    let _ = read.join();
    closed
}

// RELIABILITY E8
#[test]
fn floods_of_http2_are_closed_and_others_go_on() {
    let directory = tempfile::tempdir().unwrap();
    let node = node(directory.path());
    let mut client = node.client();
    let run_id = waiting_run(&mut client);
    let mut other = opened(&node.address, &format!("/v1/runs/{run_id}/events"));
    let before = node.resident_kib();
    let address = node.address.clone();
    let head = get_head(&address, "/readyz");
    let odd = |at: u32| 2 * at + 1;
    let reset = |at: u32| [frame(1, 5, odd(at), &head), frame(3, 0, odd(at), &[0, 0, 0, 8])].concat();
    assert!(flood(&address, &[], reset), "rapid reset");
    assert!(flood(&address, &[], |_| frame(6, 0, 0, &[0; 8])), "pings");
    assert!(flood(&address, &[], |_| frame(4, 0, 0, &[])), "settings");
    assert!(flood(&address, &[], |_| frame(2, 0, 1, &[0, 0, 0, 0, 1])), "priorities");
    assert!(flood(&address, &frame(1, 1, 1, &head), |_| frame(9, 0, 1, &[])), "continuations");
    let bomb = [&[0x40, 1, b'x', 0x7f, 0xa1, 0x1e][..], &[b'y'; 4_000]].concat();
    assert!(flood(&address, &frame(1, 1, 1, &head), |_| frame(9, 0, 1, &bomb)), "headers without end");
    // Windows of one byte: it is served byte by byte until that is too much.
    let narrow = frame(4, 0, 0, &[0, 4, 0, 0, 0, 1]);
    let begun = [narrow, frame(1, 5, 1, &head)].concat();
    assert!(flood(&address, &begun, |_| frame(8, 0, 1, &[0, 0, 0, 1]).repeat(100)), "windows of one byte");
    assert!(node.resident_kib() < before + 32 * 1024, "memory stays flat");
    assert_eq!(client.get("/readyz").status, 200);
    go(&mut client, &run_id);
    assert_eq!(rows(&mut other, &run_id).1, 1000);
}

#[test]
fn a_connection_of_http2_that_asks_for_nothing_is_closed() {
    let directory = tempfile::tempdir().unwrap();
    let node = node(directory.path());
    for bytes in [&PREFACE[..9], PREFACE, &[PREFACE, &frame(4, 0, 0, &[])].concat()] {
        let mut stream = tcp(&node.address);
        stream.write_all(bytes).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
    }
    assert_eq!(node.client().get("/readyz").status, 200);
}
