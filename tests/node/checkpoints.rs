//! Short restarts: runs that go on come back from images, and only what follows is read.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{AOBD, Client, Node, Options, chain};

/// Runs that wait in each test.
const WAITING: usize = 60;

fn waiter() -> Value {
    json!({"name": "waiter", "nodes": {
        "first": {"type": "function"},
        "hear": {"type": "wait", "with": {"signal": "go"}},
        "stay": {"type": "delay", "with": {"for": "200h"}},
    }, "edges": [{"from": "first", "to": "hear"}, {"from": "first", "to": "stay"}]})
}

fn options(directory: &std::path::Path) -> Options {
    // The smallest there are, so that a test can fill some.
    Options::serve(directory)
        .set("journal.segment_bytes", &(32_u64 << 20).to_string())
        .set("limits.inline_value_bytes_max", "4194304")
}

/// What shards said of how they came back: (runs from images, events folded).
fn came_back(stderr: &str) -> (u64, u64) {
    let mut sums = (0, 0);
    for line in stderr.lines().filter(|line| line.contains(": back in ")) {
        let number = |before: &str| {
            let head = &line[..line.find(before).unwrap_or_else(|| panic!("{line}"))];
            head.rsplit(' ').next().unwrap().parse::<u64>().unwrap()
        };
        sums.0 += number(" runs from images");
        sums.1 += number(" events folded");
    }
    sums
}

fn start(client: &mut Client, workflow: &str, n: usize, pad: usize) -> String {
    let key = format!("{workflow}-{n}");
    let body = json!({"workflow": workflow, "inputs": {"n": n, "pad": "x".repeat(pad)}});
    let reply = client.post_with("/v1/runs", &[("idempotency-key", &key)], &body).unwrap().expect(202);
    reply.json()["run_id"].as_str().unwrap().to_owned()
}

fn waiting(client: &mut Client) -> Vec<String> {
    client.post("/v1/workflows", &waiter()).expect(201);
    client.post("/v1/workflows", &chain("chain5", 5)).expect(201);
    (0..WAITING).map(|n| start(client, "waiter", n, 100)).collect()
}

/// Finished runs that fill more than two segments of each of two shards.
fn fill(client: &mut Client, from: usize) {
    for n in from..from + 160 {
        start(client, "chain5", n, 1 << 20);
    }
}

fn dump(client: &mut Client, ids: &[String]) -> BTreeMap<String, Value> {
    let get = |run_id: &String| {
        let timeline = client.get(&format!("/v1/runs/{run_id}/timeline?limit=1000")).expect(200).json();
        let run = client.get(&format!("/v1/runs/{run_id}")).expect(200).json();
        (run_id.clone(), json!([run, timeline["events"]]))
    };
    ids.iter().map(get).collect()
}

/// Everything still works for a run that came back.
fn ends(client: &mut Client, run_id: &str) {
    assert!(client.post(&format!("/v1/runs/{run_id}/signals/go"), &json!({"payload": 5})).status < 300);
    let graph = client.get(&format!("/v1/runs/{run_id}/graph")).expect(200).json();
    assert_eq!(graph["nodes"]["hear"]["state"], "completed", "{graph}");
    client.post(&format!("/v1/runs/{run_id}/terminate"), &json!({}));
    let run = client.get(&format!("/v1/runs/{run_id}")).expect(200).json();
    assert_eq!(run["status"], "cancelled", "{run}");
}

// F303, F306, RELIABILITY 2.7
#[test]
fn after_an_orderly_end_nothing_is_folded_again_and_every_run_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&options(directory.path()));
    let mut client = node.client();
    let ids = waiting(&mut client);
    let before = dump(&mut client, &ids);
    let (status, _) = node.terminate();
    assert!(status.success(), "{status}");
    for round in 0..2 {
        let node = Node::start(&options(directory.path()));
        let mut client = node.client();
        assert_eq!(dump(&mut client, &ids), before, "round {round}");
        let again = start(&mut client, "waiter", 7, 100);
        assert_eq!(again, ids[7], "the key leads to the run that came back");
        if round == 1 {
            ends(&mut client, &ids[3]);
        }
        let (status, stderr) = node.terminate();
        assert!(status.success(), "{status}");
        assert_eq!(came_back(&stderr), (WAITING as u64, 0), "{stderr}");
    }
}

// RELIABILITY 2.7, A3: kill -9 when it is up, and again and again while it comes up.
#[test]
fn a_killed_node_reads_what_follows_the_images_and_comes_back_the_same_however_often() {
    let directory = tempfile::tempdir().unwrap();
    let options = options(directory.path());
    let node = Node::start(&options);
    let mut client = node.client();
    let ids = waiting(&mut client);
    fill(&mut client, 0);
    fill(&mut client, 1_000);
    let before = dump(&mut client, &ids);
    // The images are durable once the segments with those runs are moved.
    while client.get("/v1/node").json()["storage"]["history_bytes"].as_object().unwrap().is_empty() {}
    node.kill();
    for round in 0..20_u64 {
        let mut command = Command::new(AOBD);
        command.args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]).arg(directory.path());
        command.args(&options.arguments).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let (_never, moment) = mpsc::channel::<()>();
        let _ = moment.recv_timeout(Duration::from_millis(50 + round * 250 / 19));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let node = Node::start(&options);
    let mut client = node.client();
    assert_eq!(dump(&mut client, &ids), before);
    ends(&mut client, &ids[0]);
    let stderr = node.kill();
    let (images, folded) = came_back(&stderr);
    assert_eq!(images, WAITING as u64, "they were in segments that are full: {stderr}");
    let finished: u64 = 320 * 12;
    assert!(folded < finished, "{folded} of more than {finished} events: {stderr}");
}
