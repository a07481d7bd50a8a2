//! The page of examples/browser in a real browser: a run's events over each transport that the node has, and over the first that works.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use aob::time::{Clock as _, SystemClock};
use serde_json::json;

use super::devtools::{self, Browser};
use super::harness::{Node, Options, root};

/// A page that does not show the end of its run by then is broken.
const PATIENCE: Duration = Duration::from_secs(60);

/// What serves the page; ends with the test.
struct Proxy(Child);

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn serve(node: &str, port: u16) -> Proxy {
    let mut child = Command::new("python3")
        .arg(root().join("examples/browser/serve.py"))
        .args(["--node", &format!("http://{node}"), "--listen", &format!("127.0.0.1:{port}")])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with("http://"), "{line}");
    Proxy(child)
}

/// Does the node speak WebSocket?
fn upgrades(address: &str, run: &str) -> bool {
    let mut stream = TcpStream::connect(address).unwrap();
    let ask = format!(
        "GET /v1/runs/{run}/events HTTP/1.1\r\nhost: {address}\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-protocol: aob.v1\r\n\r\n"
    );
    stream.write_all(ask.as_bytes()).unwrap();
    let mut status = [0; 12];
    stream.read_exact(&mut status).unwrap();
    status.ends_with(b"101")
}

// F032, F033
#[test]
fn the_page_of_the_example_shows_a_run_over_each_transport() {
    let Some(binary) = devtools::binary() else { return };
    let directory = tempfile::tempdir().unwrap();
    // The node has to know the page's origin before the page is served; the port is free again by then.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let options = Options::serve(directory.path()).set("http.origins", &format!("http://127.0.0.1:{port}"));
    let node = Node::start(&options);
    let mut client = node.client();
    let document = json!({"aob": "1", "name": "shown", "nodes": {"before": {"type": "function", "with": {"expr": "1"}},
        "pause": {"type": "delay", "with": {"for": "1s"}}, "after": {"type": "function", "with": {"expr": "2"}}},
        "edges": [{"from": "before", "to": "pause"}, {"from": "pause", "to": "after"}]});
    client.post("/v1/workflows", &document).expect(201);
    let _proxy = serve(&node.address, port);
    let mut start = || {
        let run = client.post("/v1/runs", &json!({"workflow": "shown"})).expect(202).json();
        run["run_id"].as_str().unwrap().to_owned()
    };
    let quic = !node.client().get("/v1/node").expect(200).json()["quic"].is_null();
    let mut transports = Vec::new();
    for (name, there) in
        [("webtransport", quic), ("websocket", upgrades(&node.address, &start())), ("sse", true)]
    {
        match there {
            true => transports.push(name),
            false => println!("SKIPPED the page over {name}: the node does not speak it"),
        }
    }
    let mut browser = Browser::start(&binary, true);
    for asked in transports.iter().copied().chain([""]) {
        let run = start();
        let page =
            format!("http://127.0.0.1:{port}/?run={run}&node=http://{}&transport={asked}", node.address);
        browser.open(&page);
        let began_us = SystemClock.monotonic_us();
        while !browser.html().contains(">ended<") {
            let passed = Duration::from_micros(SystemClock.monotonic_us() - began_us);
            assert!(passed < PATIENCE, "{}", browser.html());
        }
        let wanted = if asked.is_empty() { transports[0] } else { asked };
        assert!(browser.html().contains(&format!("<b id=\"over\">{wanted}</b>")), "{}", browser.html());
        let seen = client_rows(&node, &run);
        assert_eq!(browser.count("#events li"), seen, "{asked}");
    }
}

/// How many events the run had.
fn client_rows(node: &Node, run: &str) -> usize {
    let run = node.client().get(&format!("/v1/runs/{run}")).expect(200).json();
    usize::try_from(run["seq"].as_u64().unwrap()).unwrap()
}
