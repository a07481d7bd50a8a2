//! Room on the disk: new work is refused before there is none, what was accepted goes on, and work is taken again by itself.

use std::path::Path;

use serde_json::{Value, json};

use crate::harness::http::Response;
use crate::harness::{Client, Node, Options};

/// More than any disk has.
const ALL: &str = "1125899906842624";

fn small(directory: &Path) -> Options {
    Options::serve(directory)
        .set("storage.free_bytes_min", "0")
        .set("journal.segment_bytes", "33554432")
        .set("cores.runner", "1")
        // What is large stands in the journal, so that it is soon full.
        .set("limits.inline_value_bytes_max", "4194304")
}

fn documents() -> [Value; 2] {
    let quick = json!({"name": "quick", "outputs": {"n": "${ nodes.a.output }"},
        "nodes": {"a": {"type": "function", "with": {"expr": "inputs.n + 1"}}}});
    let waits = json!({"name": "waits", "nodes": {"a": {"type": "wait", "with": {"signal": "go"}}}});
    [quick, waits]
}

fn register(client: &mut Client) {
    for document in documents() {
        client.post("/v1/workflows", &document).expect(201);
    }
}

fn id(reply: &Response) -> String {
    reply.json()["run_id"].as_str().unwrap().to_owned()
}

fn go(client: &mut Client, run_id: &str, payload: &Value) -> Response {
    client.post(&format!("/v1/runs/{run_id}/signals/go"), &json!({"payload": payload}))
}

fn ended(client: &mut Client, run_id: &str) -> Value {
    let run = client.request("GET", &format!("/v1/runs/{run_id}"), &[("prefer", "wait=30")], b"").unwrap();
    run.expect(200).json()
}

/// A refusal that may be sent again, and that names its reason, the key and its value.
fn refused(reply: Response, (code, key, value): (&str, &str, &str)) {
    assert_eq!(reply.status, 503, "{}", String::from_utf8_lossy(&reply.body));
    assert!(reply.header("retry-after").is_some());
    let problem = reply.json();
    assert_eq!((&problem["code"], &problem["limit"]), (&json!(code), &json!(key)), "{problem}");
    assert_eq!((&problem["retryable"], &problem["outcome"]), (&json!(true), &json!("not_applied")));
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains(key) && detail.contains(value), "{detail}");
}

fn large(client: &mut Client) -> Response {
    let body = json!({"workflow": "quick", "inputs": {"n": 1, "filler": "x".repeat(400_000)}});
    client.post("/v1/runs", &body)
}

/// Starts large runs until one is refused; that answer.
fn fill(client: &mut Client) -> Response {
    for _ in 0..20_000 {
        let reply = large(client);
        if reply.status != 202 {
            return reply;
        }
    }
    panic!("never refused: {}", client.get("/v1/node").json()["storage"]);
}

/// Starts runs until one is taken; its id.
fn taken_again(client: &mut Client, code: &str) -> String {
    loop {
        let reply = client.post("/v1/runs", &json!({"workflow": "quick", "inputs": {"n": 1}}));
        if reply.status == 202 {
            return id(&reply);
        }
        assert_eq!(reply.json()["code"], code);
        std::thread::yield_now();
    }
}

fn storage(client: &mut Client) -> Value {
    client.get("/v1/node").expect(200).json()["storage"].clone()
}

fn metric(client: &mut Client, line: &str) -> bool {
    let text = client.get("/metrics").expect(200);
    String::from_utf8_lossy(&text.body).lines().any(|found| found == line)
}

fn files_below(directory: &Path) -> usize {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| if entry.path().is_dir() { files_below(&entry.path()) } else { 1 }).sum()
}

// RELIABILITY B4
#[test]
fn without_room_nothing_is_begun_and_what_was_accepted_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options::serve(directory.path());
    let node = Node::start(&options.clone().set("storage.free_bytes_min", "0"));
    let mut client = node.client();
    register(&mut client);
    let key = [("idempotency-key", "once")];
    let body = json!({"workflow": "waits", "inputs": {}});
    let keyed = id(&client.post_with("/v1/runs", &key, &body).unwrap().expect(202));
    let other = id(&client.post("/v1/runs", &json!({"workflow": "waits", "run_key": "mine"})).expect(202));
    assert!(storage(&mut client)["no_room"].is_null());
    assert_eq!(client.get("/readyz").expect(200).body, b"ok\n");
    assert!(metric(&mut client, "aob_new_work_refused{reason=\"disk_low\"} 0"));
    node.kill();

    let node = Node::start(&options.clone().set("storage.free_bytes_min", ALL));
    assert!(node.says("no new work is taken").contains("storage.free_bytes_min"));
    let mut client = node.client();
    let low = ("disk_low", "storage.free_bytes_min", ALL);
    let contents = files_below(&directory.path().join("cas"));
    refused(client.post("/v1/runs", &json!({"workflow": "quick", "inputs": {"n": 1}})), low);
    refused(large(&mut client), low);
    refused(client.post("/workflows/execute", &json!({"workflow_name": "quick", "inputs": {"n": 1}})), low);
    let [quick, waits] = documents();
    let mut another = quick.clone();
    another["name"] = json!("another");
    refused(client.post("/v1/workflows", &another), low);
    refused(client.post("/v1/runs", &json!({"workflow": another, "inputs": {"n": 1}})), low);
    let replace = json!({"workflow": "waits", "run_key": "mine", "on_conflict": "replace"});
    refused(client.post("/v1/runs", &replace), low);
    assert_eq!(files_below(&directory.path().join("cas")), contents, "nothing was written");
    // What was done before is answered as before.
    assert_eq!(client.post("/v1/workflows", &waits).expect(200).json()["created"], false);
    let again = client.post_with("/v1/runs", &key, &body).unwrap().expect(202);
    assert_eq!((again.header("idempotent-replayed"), id(&again)), (Some("true"), keyed.clone()));
    let held = json!({"workflow": "waits", "run_key": "mine", "on_conflict": "return"});
    assert_eq!(id(&client.post("/v1/runs", &held).expect(200)), other);
    // It is told.
    let ready = client.get("/readyz").expect(200);
    assert!(String::from_utf8_lossy(&ready.body).contains("disk_low"));
    let told = storage(&mut client);
    assert_eq!(told["no_room"]["code"], "disk_low");
    assert!(told["free_bytes"].as_u64().unwrap() > 0);
    assert!(metric(&mut client, "aob_new_work_refused{reason=\"disk_low\"} 1"));
    // Runs go on, also with what is large.
    assert!(go(&mut client, &keyed, &json!("y".repeat(200_000))).status < 300);
    assert_eq!(ended(&mut client, &keyed)["status"], "completed");
    assert!(files_below(&directory.path().join("cas")) > contents);
    assert!(client.post(&format!("/v1/runs/{other}/cancel"), &json!({})).status < 300);
    assert_eq!(ended(&mut client, &other)["status"], "cancelled");
    let replayed = client.post_with("/v1/runs", &key, &body).unwrap().expect(202);
    assert_eq!(id(&replayed), keyed, "also when it has ended");
    let listed = client.get("/v1/runs?limit=100").expect(200).json();
    assert_eq!(listed["runs"].as_array().unwrap().len(), 2);
    assert!(node.terminate().0.success());
}

// RELIABILITY B4, F086
#[test]
fn a_full_history_refuses_new_runs_until_retention_has_made_room() {
    let directory = tempfile::tempdir().unwrap();
    let options = small(directory.path()).set("history.bytes_max", "1").set("retention", "1s");
    let node = Node::start(&options);
    let mut client = node.client();
    register(&mut client);
    refused(fill(&mut client), ("history_full", "history.bytes_max", " 1;"));
    node.says("no new work is taken");
    assert!(metric(&mut client, "aob_history_dropped_runs_total 0"));
    let run = taken_again(&mut client, "history_full");
    assert_eq!(ended(&mut client, &run)["status"], "completed");
    node.says("new work is taken again");
    assert!(node.terminate().0.success());
}

// F086
#[test]
fn the_oldest_runs_are_dropped_but_none_that_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let options =
        small(directory.path()).set("history.bytes_max", "1").set("history.when_full", "drop_oldest");
    let node = Node::start(&options);
    let mut client = node.client();
    register(&mut client);
    let first = id(&large(&mut client));
    // Its file cannot go: then the bound is kept by beginning nothing.
    let lives = id(&client.post("/v1/runs", &json!({"workflow": "waits"})).expect(202));
    refused(fill(&mut client), ("history_full", "history.bytes_max", " 1;"));
    client.get(&format!("/v1/runs/{first}")).expect(200);
    node.kill();

    let node = Node::start(&options);
    let mut client = node.client();
    let timeline = client.get(&format!("/v1/runs/{lives}/timeline")).expect(200).json();
    assert_eq!(timeline["events"][0]["type"], "run.started", "no event of it is gone");
    assert!(go(&mut client, &lives, &json!(1)).status < 300);
    assert_eq!(ended(&mut client, &lives)["status"], "completed");
    taken_again(&mut client, "history_full");
    assert!(node.says("before their time").contains("history.bytes_max"));
    client.get(&format!("/v1/runs/{first}")).expect(404);
    let told = storage(&mut client);
    assert!(told["dropped_runs"].as_u64() > Some(10) && told["dropped_files"].as_u64() >= Some(1), "{told}");
    assert_eq!(told["history_bytes"], json!({}));
    node.kill();

    let node = Node::start(&options);
    node.client().get(&format!("/v1/runs/{first}")).expect(404);
    assert!(node.terminate().0.success());
    let mut fsck = std::process::Command::new(crate::harness::AOBD);
    let fsck = fsck.arg("fsck").arg("--data-dir").arg(directory.path()).output().unwrap();
    assert!(fsck.status.success(), "{}", String::from_utf8_lossy(&fsck.stdout));
}

#[test]
fn a_journal_that_is_not_moved_away_is_bounded_and_work_goes_on_when_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let options = small(directory.path()).set("journal.unmoved_bytes_max", "67108864");
    let node = Node::start(&options);
    let mut client = node.client();
    register(&mut client);
    // Files cannot be made where directories stand.
    let history = directory.path().join("history/000");
    let blocks: Vec<_> = (1..64).map(|n| history.join(format!("{n:016x}-7d.tmp"))).collect();
    blocks.iter().for_each(|block| std::fs::create_dir_all(block).unwrap());
    refused(fill(&mut client), ("journal_behind", "journal.unmoved_bytes_max", "67108864"));
    let told = storage(&mut client);
    assert!(told["unmoved_bytes"].as_u64() > Some(67_108_864), "{told}");
    let entries = std::fs::read_dir(directory.path().join("shards/000")).unwrap();
    let full: u64 = entries.map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
    println!("refused with {full} bytes of journal");
    assert!(full <= 8 * 33_554_432, "what was accepted, and no more: {told}");
    assert!(metric(&mut client, "aob_new_work_refused{reason=\"journal_behind\"} 1"));
    blocks.iter().for_each(|block| std::fs::remove_dir(block).unwrap());
    let run = taken_again(&mut client, "journal_behind");
    assert_eq!(ended(&mut client, &run)["status"], "completed");
    assert!(node.terminate().0.success());
}
