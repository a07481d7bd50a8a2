//! Requests that are made to hurt: what hides in another request is not served, who is slow costs only themselves, and what
//! is too much is refused and counted.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::json;

use crate::harness::{Node, Options};

/// Sends bytes and gives everything that comes back until the node closes.
fn said(address: &str, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    // It may be closed before everything is sent.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

/// Two readers of such a request could see different ends of it; `HIDDEN` is what the second one would take for a request.
const HIDDEN: &str = "GET /v1/node HTTP/1.1\r\nhost: x\r\n\r\n";

#[test]
fn a_request_that_hides_another_is_refused_and_the_hidden_one_is_not_served() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&Options::serve(directory.path()).driver());
    let post = "POST /v1/workflows/validate HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n";
    let length = HIDDEN.len();
    let chunked = format!("{:x}\r\n{HIDDEN}\r\n0\r\n\r\n", HIDDEN.len());
    let cases = [
        (
            "both lengths, chunks end first",
            format!(
                "{post}content-length: {}\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{HIDDEN}",
                length + 5
            ),
        ),
        (
            "both lengths, the other way round",
            format!("{post}transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n{HIDDEN}"),
        ),
        ("two lengths", format!("{post}content-length: 0\r\ncontent-length: {length}\r\n\r\n{HIDDEN}")),
        ("a list of lengths", format!("{post}content-length: 0, {length}\r\n\r\n{HIDDEN}")),
        ("a length with a sign", format!("{post}content-length: +{length}\r\n\r\n{HIDDEN}")),
        ("a length below zero", format!("{post}content-length: -1\r\n\r\n{HIDDEN}")),
        ("a length in another base", format!("{post}content-length: 0x0\r\n\r\n{HIDDEN}")),
        ("a length beyond numbers", format!("{post}content-length: 99999999999999999999\r\n\r\n{HIDDEN}")),
        ("a coding nobody knows", format!("{post}transfer-encoding: xchunked\r\n\r\n{chunked}")),
        ("a coding after chunked", format!("{post}transfer-encoding: chunked, identity\r\n\r\n{chunked}")),
        ("a space before the colon", format!("{post}content-length : {length}\r\n\r\n{HIDDEN}")),
        ("a folded header", format!("{post}x: a\r\n content-length: {length}\r\n\r\n{HIDDEN}")),
        ("a header without a name", format!("{post}: x\r\n\r\n{HIDDEN}")),
        ("a NUL in a header", format!("{post}x: a\0b\r\n\r\n{HIDDEN}")),
        ("a bare CR in a header", format!("{post}x: a\rcontent-length: {length}\r\n\r\n{HIDDEN}")),
        (
            "a chunk's size with a sign",
            format!("{post}transfer-encoding: chunked\r\n\r\n+5\r\nhello\r\n0\r\n\r\n{HIDDEN}"),
        ),
        (
            "a chunk's size beyond numbers",
            format!("{post}transfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\nx\r\n0\r\n\r\n{HIDDEN}"),
        ),
        (
            "a chunk that ends elsewhere",
            format!("{post}transfer-encoding: chunked\r\n\r\n3\r\nhello\r\n0\r\n\r\n{HIDDEN}"),
        ),
        ("two versions", format!("POST /v1/workflows/validate HTTP/1.1 HTTP/1.1\r\nhost: x\r\n\r\n{HIDDEN}")),
        ("a version to come", format!("POST /v1/workflows/validate HTTP/9.9\r\nhost: x\r\n\r\n{HIDDEN}")),
    ];
    for (what, bytes) in cases {
        let answer = said(&node.address, bytes.as_bytes());
        let answers: Vec<_> = answer.lines().filter(|line| line.starts_with("HTTP/1.1 ")).collect();
        assert!(matches!(answers[..], [one] if one.starts_with("HTTP/1.1 4")), "{what}: {answer}");
    }
    assert_eq!(node.client().get("/livez").status, 200);
}

// RELIABILITY F2
#[test]
fn slow_connections_are_cut_and_cost_nobody_else() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&Options::serve(directory.path()).driver());
    let before = node.resident_kib();
    let mut slow: Vec<TcpStream> = (0..1_000)
        .map(|_| {
            let mut stream = TcpStream::connect(&node.address).unwrap();
            stream.write_all(b"POST /v1/runs HTTP/1.1\r\nhost: x\r\nx-slow: ").unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
            stream
        })
        .collect();
    let mut client = node.client();
    client.post("/v1/workflows", &json!({"name": "w", "nodes": {"a": {"type": "function"}}})).expect(201);
    for _ in 0..100 {
        client
            .post_with("/v1/runs", &[("prefer", "wait=10")], &json!({"workflow": "w"}))
            .unwrap()
            .expect(200);
    }
    // One letter at a time does not buy more time.
    for stream in &mut slow {
        let _ = stream.write_all(b"a");
    }
    for mut stream in slow {
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408 "), "{answer}");
    }
    let after = node.resident_kib();
    assert!(after < before + 64 * 1024, "memory stays flat: {before} -> {after} KiB");
}

#[test]
fn ten_times_more_starts_than_fit_are_refused_counted_and_lose_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options::serve(directory.path()).driver().set("limits.runs_live_per_shard_max", "20");
    let node = Node::start(&options);
    let mut client = node.client();
    let hold = json!({"name": "hold", "nodes": {"a": {"type": "wait", "with": {"signal": "go"}}}});
    client.post("/v1/workflows", &hold).expect(201);
    let mut started = Vec::new();
    let mut refused = 0;
    for _ in 0..400 {
        let reply = client.post("/v1/runs", &json!({"workflow": "hold"}));
        if reply.status == 202 {
            started.push(reply.json()["run_id"].as_str().unwrap().to_owned());
        } else {
            assert_eq!((reply.status, &reply.json()["code"]), (503, &json!("too_many_runs")));
            assert!(reply.header("retry-after").is_some());
            refused += 1;
        }
    }
    assert!(refused > 300 && started.len() >= 20 && started.len() % 20 == 0, "{refused} {}", started.len());
    for run_id in &started {
        assert!(client.post(&format!("/v1/runs/{run_id}/signals/go"), &json!({})).status < 300);
        let path = format!("/v1/runs/{run_id}");
        let run = client.request("GET", &path, &[("prefer", "wait=30")], b"").unwrap().expect(200).json();
        assert_eq!(run["status"], "completed");
    }
    client.post("/v1/runs", &json!({"workflow": "hold"})).expect(202);
}
