//! Answers over HTTP/2 that nobody takes: what they may have of the node's memory is bounded, counted and given back.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use serde_json::json;

use crate::harness::{Client, Node, Options};
use crate::quic::{block_on, metric};
use crate::sockets::{PREFACE, frame, get_head, got, http2, tcp};

const CONNECTIONS: usize = 24;
const STREAMS: u32 = 20;
/// What may wait on all connections (`limits::H2_UNTAKEN_BYTES_TOTAL_MAX`).
const MOST_BYTES: u64 = 256 << 20;

/// The path of a page of a few megabytes.
fn large_page(client: &mut Client) -> String {
    let mut nodes = json!({});
    for at in 0..64 {
        nodes[format!("n{at}")] = json!({"type": "function", "with": {"expr": "inputs.text"}});
    }
    client.post("/v1/workflows", &json!({"name": "large", "nodes": nodes, "outputs": {"n": 1}})).expect(201);
    let wish = json!({"workflow": "large", "inputs": {"text": "x".repeat(48 << 10)}});
    let run = client.post_with("/v1/runs", &[("prefer", "wait=60")], &wish).unwrap().expect(200).json();
    format!("/v1/runs/{}/timeline?limit=1000", run["run_id"].as_str().unwrap())
}

/// A connection that asks for this on so many streams, takes nothing of it, and has heard the heads of all answers.
fn untaken(address: &str, path: &str) -> TcpStream {
    let mut stream = tcp(address);
    let no_window = frame(4, 0, 0, &[0, 4, 0, 0, 0, 0]);
    let head = get_head(address, path);
    let asked: Vec<u8> = (0..STREAMS).flat_map(|at| frame(1, 5, 2 * at + 1, &head)).collect();
    stream.write_all(&[PREFACE, &no_window, &asked].concat()).unwrap();
    let mut heads = 0;
    while heads < STREAMS {
        let mut header = [0; 9];
        stream.read_exact(&mut header).unwrap();
        let length = u32::from_be_bytes([0, header[0], header[1], header[2]]);
        stream.read_exact(&mut vec![0; length as usize]).unwrap();
        assert_ne!(header[3], 7, "it goes away");
        heads += u32::from(header[3] == 1);
    }
    stream
}

// F224, RELIABILITY E8
#[test]
fn answers_that_nobody_takes_have_a_bounded_part_of_the_memory() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&Options::serve(directory.path()).driver());
    let mut client = node.client();
    let path = large_page(&mut client);
    let page = client.get(&path).expect(200).body;
    assert!(page.len() > 3 << 20);
    assert!((CONNECTIONS * STREAMS as usize * page.len()) as u64 > 4 * MOST_BYTES, "more than may wait");
    let before = node.resident_kib();
    let connections: Vec<TcpStream> = (0..CONNECTIONS).map(|_| untaken(&node.address, &path)).collect();
    let (waiting, refused) = (
        metric(&mut client, "aob_http2_untaken_bytes"),
        metric(&mut client, "aob_http2_answers_refused_total"),
    );
    assert!(waiting > MOST_BYTES / 2 && waiting <= MOST_BYTES, "{waiting}");
    assert!(refused > 0);
    let grown = node.resident_kib().saturating_sub(before);
    // What an answer was written into may be twice as large as the answer.
    assert!(grown < 2 * (MOST_BYTES >> 10) + (64 << 10), "{grown} KiB for {waiting} bytes");
    // Who asks for more hears why it has to wait; over HTTP/1.1 nothing waits.
    let uri = format!("http://{}{path}", node.address);
    let ask = || block_on(async { got(http2(&node.address).await, uri.clone()).await });
    let (status, body) = ask();
    assert_eq!(status, 503, "{} bytes", body.len());
    let problem: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!((&problem["code"], &problem["retryable"]), (&json!("answers_untaken"), &json!(true)));
    assert!(client.get(&path).expect(200).body == page);
    // With the connections goes what waited on them, and whoever reads has all of it.
    drop(connections);
    while metric(&mut client, "aob_http2_untaken_bytes") > 0 {}
    let (status, body) = ask();
    assert_eq!(status, 200);
    assert!(body.as_bytes() == page, "the same as over HTTP/1.1");
    while metric(&mut client, "aob_http2_untaken_bytes") > 0 {}
}
