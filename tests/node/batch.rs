//! Batches: what is done to many runs is done to each of them once, to no others, whatever falls down meanwhile.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use aob::time::{Clock as _, SystemClock};
use serde_json::{Value, json};

use crate::harness::http::Response;
use crate::harness::{Client, Node, Options};

/// What may take seconds, on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(120);

fn options(directory: &Path) -> Options {
    Options::serve(directory).driver().set("cores.runner", "2")
}

fn hold(name: &str) -> Value {
    json!({"name": name, "version": "1", "nodes": {"w": {"type": "wait", "with": {"signal": "go"}}}})
}

/// Fails when `n` is 0.
fn divide() -> Value {
    json!({"name": "divide", "version": "1", "nodes": {"a": {"type": "function", "with": {"expr": "1 / inputs.n"}}}})
}

fn start(client: &mut Client, workflow: &str, count: usize, inputs: &Value) -> Vec<String> {
    let body = json!({"workflow": workflow, "inputs": inputs});
    let one = |_| client.post("/v1/runs", &body).expect(202).json()["run_id"].as_str().unwrap().to_owned();
    (0..count).map(one).collect()
}

fn make(client: &mut Client, body: &Value) -> String {
    let made = client.post("/v1/batch", body).expect(202);
    let id = made.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(made.header("location"), Some(&*format!("/v1/batch/{id}")));
    id
}

/// Looks at a batch until it is as wanted; a request goes to the node in between, and nothing else.
fn until(client: &mut Client, id: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let began_us = SystemClock.monotonic_us();
    loop {
        let shown = client.get(&format!("/v1/batch/{id}")).expect(200).json();
        if wanted(&shown) {
            return shown;
        }
        let passed = Duration::from_micros(SystemClock.monotonic_us() - began_us);
        assert!(passed < PATIENCE, "{shown:#}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

fn over(client: &mut Client, id: &str) -> Value {
    until(client, id, |shown| shown["ended_at"].is_string())
}

fn counts(shown: &Value) -> [u64; 4] {
    ["matched", "done", "skipped", "failed"].map(|member| shown[member].as_u64().unwrap())
}

/// Every run of a workflow by id, with its status.
fn runs(client: &mut Client, workflow: &str) -> BTreeMap<String, String> {
    let first = format!("/v1/runs?workflow={workflow}&limit=1000");
    let (mut path, mut found) = (first.clone(), BTreeMap::new());
    loop {
        let page = client.get(&path).expect(200).json();
        for run in page["runs"].as_array().unwrap() {
            let text = |member: &str| run[member].as_str().unwrap().to_owned();
            found.insert(text("run_id"), text("status"));
        }
        let Some(cursor) = page["next_cursor"].as_str() else { return found };
        path = format!("{first}&cursor={cursor}");
    }
}

fn all_are<'a>(runs: &BTreeMap<String, String>, ids: impl IntoIterator<Item = &'a String>, status: &str) {
    for id in ids {
        assert_eq!(runs.get(id).map(String::as_str), Some(status), "{id}");
    }
}

fn events(client: &mut Client, run: &str, kind: &str) -> Vec<Value> {
    let page = client.get(&format!("/v1/runs/{run}/timeline?limit=1000")).expect(200).json();
    page["events"].as_array().unwrap().iter().filter(|event| event["type"] == kind).cloned().collect()
}

#[test]
fn runs_that_fit_are_cancelled_and_no_others() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&options(directory.path()));
    let mut client = node.client();
    for document in [hold("hold"), hold("other"), divide()] {
        client.post("/v1/workflows", &document).expect(201);
    }
    let old = start(&mut client, "hold", 300, &json!({}));
    let others = start(&mut client, "other", 30, &json!({}));
    let ended = start(&mut client, "divide", 20, &json!({"n": 1}));
    for run in &old[..10] {
        client.post(&format!("/v1/runs/{run}/terminate"), &json!({})).expect(200);
    }
    let body = json!({"action": "cancel", "filter": {"workflow": "hold"}, "reason": "a mistake",
        "rate_per_second": 1000, "dry_run": true});
    let counted = client.post("/v1/batch", &body).expect(200).json();
    assert_eq!(
        (&counted["matched"], &counted["skipped"], &counted["more"]),
        (&json!(290), &json!(0), &json!(false))
    );
    // Ids sort by the millisecond of the start; two starts of the same millisecond have no order that a client knows.
    assert_eq!(counted["runs"][0].as_str(), old.iter().max().map(String::as_str), "the newest first");
    assert_eq!(client.get("/v1/batch").expect(200).json()["batches"], json!([]), "nothing was stored");
    let mut body = body;
    body["dry_run"] = json!(false);
    let id = make(&mut client, &body);
    let young = start(&mut client, "hold", 20, &json!({}));
    let done = over(&mut client, &id);
    assert_eq!((&done["state"], counts(&done)), (&json!("done"), [290, 290, 0, 0]), "{done:#}");
    assert_eq!(
        (&done["by"], &done["limited"], &done["failures"]),
        (&json!("anyone"), &json!(false), &json!([]))
    );
    let holding = runs(&mut client, "hold");
    all_are(&holding, &old, "cancelled");
    all_are(&holding, &young, "running");
    all_are(&runs(&mut client, "other"), &others, "running");
    all_are(&runs(&mut client, "divide"), &ended, "completed");
    let cancelled = events(&mut client, &old[150], "run.cancelled");
    assert_eq!(cancelled.len(), 1);
    let told = client.get(&format!("/v1/runs/{}/timeline", old[150])).json().to_string();
    assert!(told.contains(&format!("batch {id}: a mistake")), "{told}");
    // Those that are named although the action is not for them are counted and left alone.
    let again = make(
        &mut client,
        &json!({"action": "cancel", "filter": {"workflow": "hold",
        "status": ["cancelled", "running"]}, "rate_per_second": 1000}),
    );
    let done = over(&mut client, &again);
    assert_eq!(counts(&done), [320, 20, 300, 0], "{done:#}");
    let told = String::from_utf8(client.get("/metrics").expect(200).body).unwrap();
    for line in ["{outcome=\"done\"} 310", "{outcome=\"skipped\"} 300", "{outcome=\"failed\"} 0"] {
        assert!(told.contains(&format!("aob_batch_runs_total{line}")), "{line}");
    }
    // The newest first, and what is recorded of who made and stopped them.
    let listed = client.get("/v1/batch?limit=1").expect(200).json();
    assert_eq!((&listed["batches"][0]["id"], &listed["next_cursor"]), (&json!(again), &json!(again)));
    let rest = client.get(&format!("/v1/batch?cursor={again}")).expect(200).json();
    assert_eq!((&rest["batches"][0]["id"], &rest["next_cursor"]), (&json!(id), &Value::Null));
    let audit = client.get("/v1/audit?limit=1000").expect(200).json().to_string();
    assert!(audit.contains("POST /v1/batch"), "{audit}");
}

#[test]
fn runs_are_paused_resumed_terminated_and_deleted() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&options(directory.path()));
    let mut client = node.client();
    client.post("/v1/workflows", &hold("hold")).expect(201);
    let ids = start(&mut client, "hold", 40, &json!({}));
    for (action, status, before) in [
        ("pause", "paused", "running"),
        ("resume", "running", "paused"),
        ("terminate", "cancelled", "running"),
    ] {
        all_are(&runs(&mut client, "hold"), &ids, before);
        let id = make(&mut client, &json!({"action": action, "all": true, "rate_per_second": 1000}));
        assert_eq!(counts(&over(&mut client, &id)), [40, 40, 0, 0], "{action}");
        all_are(&runs(&mut client, "hold"), &ids, status);
    }
    let kept = start(&mut client, "hold", 3, &json!({}));
    let id = make(&mut client, &json!({"action": "delete", "all": true, "rate_per_second": 1000}));
    assert_eq!(counts(&over(&mut client, &id)), [40, 40, 0, 0]);
    let left = runs(&mut client, "hold");
    assert_eq!(left.len(), 3);
    all_are(&left, &kept, "running");
    client.get(&format!("/v1/runs/{}", ids[7])).expect(404);
}

/// New runs by the run whose work they do again.
fn retried(client: &mut Client, workflow: &str) -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for id in runs(client, workflow).into_keys() {
        let run = client.get(&format!("/v1/runs/{id}")).expect(200).json();
        if let Some(source) = run["replay_of"]["run_id"].as_str().or(run["replay_of"].as_str()) {
            found.entry(source.to_owned()).or_default().push(id);
        }
    }
    found
}

#[test]
fn failed_runs_are_retried_with_their_inputs() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&options(directory.path()));
    let mut client = node.client();
    client.post("/v1/workflows", &divide()).expect(201);
    let failed = start(&mut client, "divide", 60, &json!({"n": 0}));
    start(&mut client, "divide", 10, &json!({"n": 1}));
    // One that was forked has other inputs than those that its record begins with.
    let forked =
        client.post(&format!("/v1/runs/{}/replay", failed[0]), &json!({"inputs": {"n": 0, "own": true}}));
    let forked = forked.expect(202).json()["run_id"].as_str().unwrap().to_owned();
    let body = json!({"action": "retry", "filter": {"workflow": "divide", "status": "failed"}, "rate_per_second": 1000});
    let id = make(&mut client, &body);
    let done = over(&mut client, &id);
    assert_eq!(counts(&done), [61, 61, 0, 0], "{done:#}");
    let new = retried(&mut client, "divide");
    for source in &failed[1..] {
        assert_eq!(new[source].len(), 1, "{source}");
    }
    let run = client.get(&format!("/v1/runs/{}", new[&forked][0])).expect(200).json();
    assert_eq!(
        (&run["inputs"], &run["status"]),
        (&json!({"n": 0, "own": true}), &json!("failed")),
        "{run:#}"
    );
    let run = client.get(&format!("/v1/runs/{}", new[&failed[5]][0])).expect(200).json();
    assert_eq!((&run["inputs"], &run["version"]), (&json!({"n": 0}), &json!("1")), "{run:#}");
    // Another batch is another retry.
    let again = make(&mut client, &json!({"action": "retry", "filter": {"workflow": "divide"}, "limit": 5}));
    let done = over(&mut client, &again);
    assert_eq!((counts(&done), &done["limited"]), ([5, 5, 0, 0], &json!(true)), "{done:#}");
}

#[test]
fn killed_in_the_middle_a_batch_goes_on_and_does_each_run_once() {
    let directory = tempfile::tempdir().unwrap();
    let options = options(directory.path());
    let node = Node::start(&options);
    let mut client = node.client();
    client.post("/v1/workflows", &hold("hold")).expect(201);
    client.post("/v1/workflows", &divide()).expect(201);
    let held = start(&mut client, "hold", 700, &json!({}));
    let failed = start(&mut client, "divide", 300, &json!({"n": 0}));
    let body = json!({"action": "cancel", "filter": {"workflow": "hold", "status": "running"}, "rate_per_second": 300});
    let cancels = make(&mut client, &body);
    let retries = make(
        &mut client,
        &json!({"action": "retry", "filter": {"status": "failed"}, "rate_per_second": 150}),
    );
    let mut node = Some(node);
    for (id, done) in [(&cancels, 80), (&cancels, 400), (&retries, 30), (&retries, 150)] {
        until(&mut client, id, |shown| shown["done"].as_u64() >= Some(done));
        node.take().unwrap().kill();
        let started = Node::start(&options);
        client = started.client();
        node = Some(started);
    }
    let done = over(&mut client, &cancels);
    assert_eq!((&done["state"], counts(&done)), (&json!("done"), [700, 700, 0, 0]), "{done:#}");
    all_are(&runs(&mut client, "hold"), &held, "cancelled");
    for run in held.iter().step_by(70) {
        assert_eq!(events(&mut client, run, "run.cancelled").len(), 1, "{run}");
    }
    let done = over(&mut client, &retries);
    assert_eq!((&done["state"], counts(&done)), (&json!("done"), [300, 300, 0, 0]), "{done:#}");
    let new = retried(&mut client, "divide");
    assert_eq!(new.len(), 300);
    assert!(failed.iter().all(|source| new[source].len() == 1), "each was started again once");
    assert_eq!(runs(&mut client, "divide").len(), 600);
}

#[test]
fn where_there_is_no_room_a_batch_waits_and_passes_over_no_run() {
    let directory = tempfile::tempdir().unwrap();
    let roomy = options(directory.path()).set("storage.free_bytes_min", "0");
    let node = Node::start(&roomy);
    let mut client = node.client();
    client.post("/v1/workflows", &divide()).expect(201);
    let failed = start(&mut client, "divide", 12, &json!({"n": 0}));
    node.kill();
    let node = Node::start(&options(directory.path()).set("storage.free_bytes_min", "1125899906842624"));
    let mut client = node.client();
    let id = make(&mut client, &json!({"action": "retry", "filter": {"status": "failed"}}));
    let waits = until(&mut client, &id, |shown| shown["waits"].is_string());
    assert_eq!((&waits["state"], &waits["waits"]), (&json!("running"), &json!("disk_low")), "{waits:#}");
    assert_eq!(counts(&waits), [12, 0, 0, 0]);
    node.kill();
    let node = Node::start(&roomy);
    let mut client = node.client();
    let done = over(&mut client, &id);
    assert_eq!((counts(&done), &done["waits"]), ([12, 12, 0, 0], &Value::Null), "{done:#}");
    let new = retried(&mut client, "divide");
    assert!(failed.iter().all(|source| new[source].len() == 1));
}

fn delete(client: &mut Client, path: &str) -> Response {
    client.request("DELETE", path, &[], b"").unwrap()
}

#[test]
fn a_batch_is_stopped_and_the_next_of_the_workspace_begins_then() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&options(directory.path()));
    let mut client = node.client();
    client.post("/v1/workflows", &hold("hold")).expect(201);
    let ids = start(&mut client, "hold", 200, &json!({}));
    let slow =
        make(&mut client, &json!({"action": "pause", "filter": {"workflow": "hold"}, "rate_per_second": 5}));
    let next = make(
        &mut client,
        &json!({"action": "cancel", "filter": {"workflow": "hold"}, "rate_per_second": 1000}),
    );
    until(&mut client, &slow, |shown| shown["done"].as_u64() > Some(0));
    let waits = client.get(&format!("/v1/batch/{next}")).expect(200).json();
    assert_eq!((&waits["state"], counts(&waits)), (&json!("queued"), [0; 4]), "one at a time");
    let stopped = delete(&mut client, &format!("/v1/batch/{slow}")).expect(200).json();
    assert_eq!(stopped["state"], "cancelled");
    assert_eq!(counts(&over(&mut client, &next)), [200, 200, 0, 0]);
    all_are(&runs(&mut client, "hold"), &ids, "cancelled");
    let stopped = client.get(&format!("/v1/batch/{slow}")).expect(200).json();
    assert!(stopped["done"].as_u64() < Some(150), "{stopped:#}");
    delete(&mut client, &format!("/v1/batch/{slow}")).expect(204);
    let gone = delete(&mut client, &format!("/v1/batch/{slow}")).expect(404).json();
    assert_eq!(gone["code"], "batch_not_found");
    client.get(&format!("/v1/batch/{slow}")).expect(404);
}

#[test]
fn a_batch_that_cannot_be_is_refused_and_a_key_makes_one() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&options(directory.path()));
    let mut client = node.client();
    client.post("/v1/workflows", &hold("hold")).expect(201);
    start(&mut client, "hold", 30, &json!({}));
    for (body, status, code) in [
        (json!({"action": "cancel"}), 422, "batch_fits_all"),
        (json!({"action": "cancel", "filter": {}}), 422, "batch_fits_all"),
        (json!({"action": "stop", "all": true}), 422, "invalid_parameter"),
        (json!({"action": "cancel", "filter": {"statu": "failed"}}), 400, "unknown_member"),
        (json!({"action": "cancel", "filter": {"workflow": "a/b"}}), 422, "invalid_name"),
        (json!({"action": "cancel", "all": true, "limit": 10_000_000}), 422, "limit_exceeded"),
        (json!({"action": "cancel", "all": true, "reason": "x".repeat(1_024)}), 422, "limit_exceeded"),
    ] {
        assert_eq!(client.post("/v1/batch", &body).expect(status).json()["code"], code, "{body}");
    }
    assert_eq!(client.get("/v1/batch?cursor=x").expect(400).json()["code"], "invalid_cursor");
    assert_eq!(client.get("/v1/batch/batch_1").expect(404).json()["code"], "batch_not_found");
    let slow = json!({"action": "pause", "filter": {"workflow": "hold"}, "rate_per_second": 1});
    let key = [("idempotency-key", "one")];
    let first = client.post_with("/v1/batch", &key, &slow).unwrap().expect(202);
    let same = client.post_with("/v1/batch", &key, &slow).unwrap().expect(202);
    assert_eq!(
        (first.json()["id"].clone(), same.header("idempotent-replayed")),
        (same.json()["id"].clone(), Some("true"))
    );
    let other = json!({"action": "cancel", "filter": {"workflow": "hold"}});
    let refused = client.post_with("/v1/batch", &key, &other).unwrap().expect(422).json();
    assert_eq!(refused["code"], "idempotency_key_reused");
    for _ in 1..aob::limits::BATCHES_UNFINISHED_MAX {
        make(&mut client, &slow);
    }
    let full = client.post("/v1/batch", &slow).expect(429).json();
    assert_eq!((&full["limit"], &full["retryable"]), (&json!("batches_unfinished_max"), &json!(true)));
}

#[test]
fn a_batch_is_of_one_workspace() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&options(directory.path()));
    let mut client = node.client();
    let acme = [("aob-workspace", "acme"), ("content-type", "application/json")];
    let inside = |client: &mut Client, method: &str, path: &str, body: Value| {
        client.request(method, path, &acme, body.to_string().as_bytes()).unwrap()
    };
    client.post("/v1/workflows", &hold("hold")).expect(201);
    inside(&mut client, "POST", "/v1/workflows", hold("hold")).expect(201);
    let ours = start(&mut client, "hold", 20, &json!({}));
    for _ in 0..20 {
        inside(&mut client, "POST", "/v1/runs", json!({"workflow": "hold"})).expect(202);
    }
    let body = json!({"action": "cancel", "all": true, "rate_per_second": 1000});
    let made = inside(&mut client, "POST", "/v1/batch", body).expect(202).json();
    let path = format!("/v1/batch/{}", made["id"].as_str().unwrap());
    client.get(&path).expect(404);
    delete(&mut client, &path).expect(404);
    assert_eq!(client.get("/v1/batch").expect(200).json()["batches"], json!([]));
    let shown = loop {
        let shown = inside(&mut client, "GET", &path, Value::Null).expect(200).json();
        if shown["ended_at"].is_string() {
            break shown;
        }
        std::thread::park_timeout(Duration::from_millis(20));
    };
    assert_eq!(counts(&shown), [20, 20, 0, 0], "{shown:#}");
    all_are(&runs(&mut client, "hold"), &ours, "running");
}

/// The command line: its exit code and what it printed.
fn aob(node: &Node, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_aob"));
    command.args(["--url", &format!("http://{}", node.address)]).args(arguments);
    let done = command.stdin(std::process::Stdio::null()).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (done.status.code(), text(&done.stdout), text(&done.stderr))
}

#[test]
fn the_command_line_asks_first_and_waits() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&options(directory.path()));
    let mut client = node.client();
    client.post("/v1/workflows", &hold("hold")).expect(201);
    let ids = start(&mut client, "hold", 25, &json!({}));
    let filter = ["batch", "cancel", "--workflow", "hold", "--status", "running"];
    let (code, out, _) = aob(&node, &[&filter[..], &["--dry-run"]].concat());
    assert!(code == Some(0) && out.contains("25"), "{out}");
    let (code, _, said) = aob(&node, &filter);
    assert!(code == Some(2) && said.contains("--yes"), "{said}");
    all_are(&runs(&mut client, "hold"), &ids, "running");
    let (code, _, said) = aob(&node, &["batch", "cancel", "--yes"]);
    assert!(code == Some(1) && said.contains("all"), "{said}");
    let (code, out, said) =
        aob(&node, &[&filter[..], &["--yes", "--wait", "--reason", "enough", "-o", "json"]].concat());
    assert_eq!(code, Some(0), "{said}");
    let shown: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&shown["state"], counts(&shown)), (&json!("done"), [25, 25, 0, 0]));
    all_are(&runs(&mut client, "hold"), &ids, "cancelled");
    let id = shown["id"].as_str().unwrap();
    assert!(aob(&node, &["batch", "list"]).1.contains(id));
    assert!(aob(&node, &["batch", "show", id]).1.contains("enough"));
    assert_eq!(aob(&node, &["batch", "stop", id]).0, Some(0));
    assert_eq!(aob(&node, &["batch", "show", id]).0, Some(3));
}
