//! SIGTERM while calls are under way: those that end in time are recorded and not made again, the others are.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::harness::{Client, Node, Options, in_background};

/// A call that has arrived: its path, and the door to answer it by.
type Arrived = (String, Sender<()>);

/// A service that answers a call when the test says so.
fn service() -> (SocketAddr, Receiver<Arrived>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (arrived, arrivals) = channel();
    in_background(move || {
        for stream in listener.incoming() {
            let (stream, arrived) = (stream.unwrap(), arrived.clone());
            in_background(move || connection(stream, &arrived));
        }
    });
    (address, arrivals)
}

fn connection(stream: TcpStream, arrived: &Sender<Arrived>) {
    let mut reader = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head).unwrap_or(0) == 0 {
                return;
            }
        }
        let path = head.split(' ').nth(1).unwrap().to_owned();
        let (answer, answered) = channel();
        if arrived.send((path, answer)).is_err() || answered.recv().is_err() {
            return;
        }
        let _ = reader.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    }
}

fn options(directory: &std::path::Path, drain_seconds: &str) -> Options {
    Options::serve(directory).set("http.allow", "127.0.0.1").set("shutdown.drain_seconds", drain_seconds)
}

fn ask_to_end(node: &Node) {
    kill_process(Pid::from_raw(node.pid() as i32).unwrap(), Signal::TERM).unwrap();
}

fn start(client: &mut Client, flow: &Value) -> String {
    client.post("/v1/workflows", flow).expect(201);
    let start = json!({"workflow": flow["name"], "inputs": {}});
    client.post("/v1/runs", &start).expect(202).json()["run_id"].as_str().unwrap().to_owned()
}

fn ended(client: &mut Client, run_id: &str) -> Value {
    let path = format!("/v1/runs/{run_id}");
    client.request("GET", &path, &[("prefer", "wait=60")], b"").unwrap().expect(200).json()
}

/// How often this happened to a node of a run.
fn count(client: &mut Client, run_id: &str, node: &str, kind: &str) -> usize {
    let page = client.get(&format!("/v1/runs/{run_id}/timeline?limit=1000")).expect(200).json();
    let events = page["events"].as_array().unwrap().iter();
    events.filter(|event| event["node"] == node && event["type"] == kind).count()
}

// F306, RELIABILITY A7
#[test]
fn a_call_under_way_is_heard_out_and_what_comes_after_it_is_left_for_the_next_start() {
    let directory = tempfile::tempdir().unwrap();
    let (service, arrivals) = service();
    let url = |path: &str| format!("http://{service}/{path}");
    let flow = json!({"name": "flow", "version": "1", "nodes": {
        "slow": {"type": "http", "with": {"method": "POST", "url": url("slow")}},
        "after": {"type": "http", "with": {"url": url("after")}},
        // Nobody could tell after a restart whether this was sent: it is not left behind.
        "once": {"type": "http", "with": {"method": "POST", "url": url("once"), "headers": {"Idempotency-Key": null}}},
    }, "edges": [{"from": "slow", "to": "after"}, {"from": "slow", "to": "once"}]});
    let node = Node::start(&options(directory.path(), "60"));
    let mut client = node.client();
    let job = json!({"name": "job", "version": "1", "nodes": {"t": {"type": "task"}}});
    let job_run = start(&mut client, &job);
    let poll = json!({"queues": ["t"], "wait_ms": 30_000});
    let jobs = client.post("/v1/workers/poll", &poll).expect(200).json();
    let run_id = start(&mut client, &flow);
    let (path, answer) = arrivals.recv().unwrap();
    assert_eq!(path, "/slow");

    ask_to_end(&node);
    // It is there still, and says that it is not ready.
    while client.get("/readyz").status == 200 {}
    let mut another = node.client();
    for (path, body) in [("/v1/runs", json!({"workflow": "job", "inputs": {}})), ("/v1/workers/poll", poll)] {
        let refused = another.post(path, &body).expect(503).json();
        assert_eq!(refused["code"], "stopping", "{refused}");
    }
    let done = json!({"lease": jobs["jobs"][0]["lease"], "output": 42});
    let said = another.post("/v1/workers/complete", &done).expect(200).json();
    assert_eq!(said["results"][0]["status"], "accepted");
    answer.send(()).unwrap();
    let (path, answer) = arrivals.recv().unwrap();
    assert_eq!(path, "/once");
    answer.send(()).unwrap();
    let (status, log) = node.finish();
    assert!(status.success(), "{log}");
    assert!(arrivals.try_recv().is_err(), "what may wait was left");

    let node = Node::start(&options(directory.path(), "60"));
    let mut client = node.client();
    let (path, answer) = arrivals.recv().unwrap();
    assert_eq!(path, "/after");
    answer.send(()).unwrap();
    assert_eq!(ended(&mut client, &run_id)["status"], "completed");
    for (name, lost) in [("slow", 0), ("once", 0), ("after", 1)] {
        assert_eq!(count(&mut client, &run_id, name, "node.lost"), lost, "{name}");
        assert_eq!(count(&mut client, &run_id, name, "node.completed"), 1, "{name}");
    }
    assert_eq!(ended(&mut client, &job_run)["outputs"]["t"], 42);
    assert!(arrivals.try_recv().is_err(), "nothing is made twice");
}

// F306, RELIABILITY A7
#[test]
fn a_call_that_outlives_the_stop_is_handed_out_again_by_the_next_start() {
    let directory = tempfile::tempdir().unwrap();
    let (service, arrivals) = service();
    let flow = json!({"name": "flow", "version": "1", "nodes": {
        "slow": {"type": "http", "with": {"method": "POST", "url": format!("http://{service}/slow")}}}});
    let node = Node::start(&options(directory.path(), "1"));
    let run_id = start(&mut node.client(), &flow);
    let (_, held) = arrivals.recv().unwrap();
    ask_to_end(&node);
    let (status, log) = node.finish();
    assert!(status.success(), "{log}");

    let node = Node::start(&options(directory.path(), "1"));
    let (path, answer) = arrivals.recv().unwrap();
    assert_eq!(path, "/slow");
    answer.send(()).unwrap();
    let mut client = node.client();
    assert_eq!(ended(&mut client, &run_id)["status"], "completed");
    assert_eq!(count(&mut client, &run_id, "slow", "node.lost"), 1);
    assert_eq!(count(&mut client, &run_id, "slow", "node.completed"), 1);
    drop(held);
}

// F306: what a run has left to compute does not hold an end up; it goes on where it was.
#[test]
fn runs_that_compute_and_wait_for_nobody_do_not_hold_an_end_up() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&options(directory.path(), "1"));
    let mut client = node.client();
    let counting = |from: &str, body: Value| json!({"type": "loop", "input": from, "with": {"while": "input < 10000", "max_iterations": 10_000, "body": body}});
    let one = json!({"type": "function", "with": {"expr": "input + 1"}});
    let nothing = json!({"type": "function", "with": {"expr": "0"}});
    // Each as far as a run may go.
    let within = counting("${ 0 }", one);
    let nodes = json!({"within": within, "next": nothing});
    let edges = json!([{"from": "within", "to": "next"}]);
    let whole = json!({"nodes": nodes, "edges": edges, "outputs": "${ nodes.next.output }"});
    let body = json!({"type": "composite", "with": {"body": whole}});
    let pause = json!({"type": "delay", "with": {"for": "1s"}});
    let nodes = json!({"pause": pause, "count": counting("${ 0 }", body)});
    let edges = json!([{"from": "pause", "to": "count"}]);
    let flow = json!({"name": "flow", "version": "1", "nodes": nodes, "edges": edges});
    let mut runs = vec![start(&mut client, &flow)];
    for _ in 1..200 {
        let again = json!({"workflow": "flow", "inputs": {}});
        runs.push(client.post("/v1/runs", &again).expect(202).json()["run_id"].as_str().unwrap().to_owned());
    }
    while count(&mut client, &runs[0], "pause", "node.completed") == 0 {}
    let (status, stderr) = node.terminate();
    assert!(status.success(), "{status}: {stderr}");

    let node = Node::start(&options(directory.path(), "1"));
    let mut client = node.client();
    let goes_on =
        |run_id: &String| client.get(&format!("/v1/runs/{run_id}")).expect(200).json()["status"] == "running";
    assert!(runs.iter().any(goes_on), "it was not over before they all were");
}
