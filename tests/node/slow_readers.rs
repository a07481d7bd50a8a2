//! Clients that stop reading, on real sockets: each is told why it is closed, comes back with its cursor, and costs nobody else
//! anything.

use std::net::TcpStream;

use quinn::{TransportConfig, VarInt};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::harness::{Client, Node, Options, in_background};
use crate::quic::{Remote, Told, block_on, metric, rows, subscribe, two_cores};
use crate::sockets::open;

const SLOW: &str = "aob_stream_slow_consumers_total";
/// Bytes of each event, and how many there are: more than the system keeps for a socket (4 MiB) and the node for a reader (1 MiB).
const EVENT_BYTES: usize = 48 << 10;
const EVENTS: usize = 200;

/// A run that waits for `go`, and then has much to say.
fn loud(client: &mut Client) -> String {
    let mut nodes = json!({"hold": {"type": "wait", "with": {"signal": "go"}}});
    let mut edges = Vec::new();
    for at in 0..EVENTS {
        nodes[format!("n{at}")] = json!({"type": "function", "with": {"expr": "inputs.text"}});
        let from = at.checked_sub(1).map_or("hold".to_owned(), |before| format!("n{before}"));
        edges.push(json!({"from": from, "to": format!("n{at}")}));
    }
    let flow = json!({"name": "loud", "nodes": nodes, "edges": edges, "outputs": {"n": 1}});
    client.post("/v1/workflows", &flow).expect(201);
    let wish = json!({"workflow": "loud", "inputs": {"text": "x".repeat(EVENT_BYTES)}});
    client.post("/v1/runs", &wish).expect(202).json()["run_id"].as_str().unwrap().to_owned()
}

/// Lets it speak, and waits until somebody was closed because he did not listen.
fn until_one_is_slow(client: &mut Client, run_id: &str) {
    let before = metric(client, SLOW);
    assert!(client.post(&format!("/v1/runs/{run_id}/signals/go"), &json!({})).status < 300);
    while metric(client, SLOW) == before {
        // Its answer takes its time: the next look is not at once.
        let later = format!("/v1/runs/{run_id}?wait=1");
        client.request("GET", &later, &[("prefer", "wait=1")], b"").unwrap();
    }
    assert_eq!(metric(client, SLOW), before + 1);
}

/// Somebody who reads all the time: what came.
fn other(node: &Node, run_id: &str) -> std::thread::JoinHandle<Vec<Value>> {
    let (client, path) = (node.client(), format!("/v1/runs/{run_id}/events"));
    in_background(move || client.events(&path, &[], |_| true).into_iter().map(|event| event.data).collect())
}

/// A small buffer for what comes.
fn narrow(address: &str) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4 << 10).unwrap();
    socket.connect(&address.parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
    TcpStream::from(socket)
}

/// Number and data of the messages of a WebSocket up to its close, what was said last, and the code.
fn heard(address: &str, path: &str, stop: impl FnOnce()) -> (Vec<(u64, String)>, Option<Value>, u16) {
    let mut socket = open(narrow(address), (address, path), &[]).expect("it is opened");
    stop();
    let (mut events, mut words) = (Vec::new(), None);
    loop {
        match socket.read().unwrap() {
            Message::Text(text) => {
                let message: Value = serde_json::from_str(&text).unwrap();
                if message["id"].is_null() {
                    words = Some(message);
                    continue;
                }
                let (_, data) = text.split_once(",\"data\":").unwrap();
                let seq = message["data"]["seq"].as_u64().unwrap();
                events.push((seq, data.strip_suffix('}').unwrap().to_owned()));
            }
            Message::Close(close) => {
                // The rest of the close.
                while socket.read().is_ok() {}
                return (events, words, close.unwrap().code.into());
            }
            _ => {}
        }
    }
}

// F033 F036
#[test]
fn a_websocket_that_is_not_read_is_closed_as_slow_and_goes_on_from_its_cursor() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&two_cores(Options::serve(directory.path())));
    let mut client = node.client();
    let run_id = loud(&mut client);
    let other = other(&node, &run_id);
    let path = format!("/v1/runs/{run_id}/events");
    let (mut events, words, code) = heard(&node.address, &path, || until_one_is_slow(&mut client, &run_id));
    let (after, _) = *events.last().unwrap();
    let words = words.expect("it says why");
    assert_eq!((&words["event"], code), (&json!("slow_consumer"), 4001));
    assert_eq!(words["data"]["reason"], "slow_consumer");
    let rows = rows(&mut client, &run_id);
    assert!(events.len() < rows.len(), "all of it was kept for a client that does not read");
    let (rest, words, code) = heard(&node.address, &format!("{path}?after={after}"), || {});
    events.extend(rest);
    assert_eq!((words, code), (None, 1000));
    assert!(events == rows, "{} events, {} rows", events.len(), rows.len());
    let expected: Vec<Value> = rows.iter().map(|(_, row)| serde_json::from_str(row).unwrap()).collect();
    assert!(other.join().unwrap() == expected, "who reads notices nothing");
}

// F036 F228 F235
#[test]
fn a_stream_of_quic_that_is_not_read_is_closed_as_slow_and_goes_on_from_its_cursor() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&two_cores(Options::serve(directory.path())));
    let mut client = node.client();
    let run_id = loud(&mut client);
    let other = other(&node, &run_id);
    let (remote, path) = (Remote::of(&node), format!("/v1/runs/{run_id}/events"));
    let mut told = Told::default();
    block_on(async {
        let mut small = TransportConfig::default();
        small.stream_receive_window(VarInt::from_u32(64 << 10));
        small.keep_alive_interval(Some(std::time::Duration::from_secs(1)));
        let (_endpoint, connection) = remote.connect_with(b"aob/1", small).await;
        let (_send, mut receive) = subscribe(&connection, &path, json!({})).await;
        told.read(&mut receive, 1).await;
        // The connection lives on while nobody reads the stream.
        let (mut asking, run) = (node.client(), run_id.clone());
        tokio::task::spawn_blocking(move || until_one_is_slow(&mut asking, &run)).await.unwrap();
        assert!(!told.read(&mut receive, usize::MAX).await);
        assert_eq!(told.closing["reason"], "slow_consumer");
        assert!(connection.close_reason().is_none(), "the connection is there still");
        told.closing = Value::Null;
        let begun = told.events.len();
        let after = told.events.last().unwrap().0;
        let again = Told::whole(&connection, &format!("{path}?after={after}"), json!({})).await;
        assert!(!again.events.is_empty() && begun > 1);
        assert_eq!(again.closing, Value::Null);
        told.events.extend(again.events);
    });
    // The connection from before was idle for too long.
    let rows = rows(&mut node.client(), &run_id);
    assert!(told.events == rows, "{} events, {} rows", told.events.len(), rows.len());
    let expected: Vec<Value> = rows.iter().map(|(_, row)| serde_json::from_str(row).unwrap()).collect();
    assert!(other.join().unwrap() == expected, "who reads notices nothing");
}
