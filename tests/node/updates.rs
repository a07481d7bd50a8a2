//! Updates: a run takes what it waits for now, once, and answers; whatever else is refused and leaves nothing behind.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::{Command, Output};
use std::sync::{Arc, Barrier};

use serde_json::{Value, json};

use crate::harness::http::Response;
use crate::harness::{Client, Node, Options, in_background};

fn start(client: &mut Client, workflow: &Value) -> String {
    client.post("/v1/workflows", workflow).expect(201);
    let run = client.post("/v1/runs", &json!({"workflow": workflow["name"]})).expect(202).json();
    run["run_id"].as_str().unwrap().to_owned()
}

/// An update that waits so long for its answer.
fn update(client: &mut Client, (run_id, name): (&str, &str), payload: &Value, wait: u32) -> Response {
    let path = format!("/v1/runs/{run_id}/updates/{name}");
    let (wait, body) = (format!("wait={wait}"), json!({"payload": payload}).to_string());
    let headers = [("content-type", "application/json"), ("prefer", wait.as_str())];
    client.request("POST", &path, &headers, body.as_bytes()).unwrap()
}

fn timeline(client: &mut Client, run_id: &str) -> Vec<Value> {
    let page = client.get(&format!("/v1/runs/{run_id}/timeline?limit=1000")).expect(200).json();
    page["events"].as_array().unwrap().clone()
}

fn received(client: &mut Client, run_id: &str) -> usize {
    timeline(client, run_id).iter().filter(|event| event["type"] == "signal.received").count()
}

/// Waits until the run has taken a signal.
fn taken(client: &mut Client, run_id: &str) {
    while received(client, run_id) == 0 {}
}

/// `order` accepts an address and is answered by `check`, which is of this type.
fn asking(name: &str, check: Value) -> Value {
    let address = json!({"type": "object", "required": ["street"],
        "properties": {"street": {"type": "string", "minLength": 1}, "number": {"type": "integer"}}});
    json!({
        "name": name,
        "nodes": {
            "order": {"type": "wait", "with": {"signal": "address", "accepts": address, "reply": "check"}},
            "check": check,
            "ship": {"type": "wait", "needs": ["check"], "with": {"signal": "ship"}}
        },
        "edges": [{"from": "order", "to": "check"}]
    })
}

fn ended(client: &mut Client, run_id: &str) -> Value {
    let path = format!("/v1/runs/{run_id}");
    client.request("GET", &path, &[("prefer", "wait=60")], b"").unwrap().expect(200).json()
}

/// A worker's next job.
fn job(client: &mut Client, queue: &str) -> Value {
    let jobs = client.post("/v1/workers/poll", &json!({"queues": [queue], "wait_ms": 60_000})).expect(200);
    jobs.json()["jobs"][0].clone()
}

#[test]
fn an_update_is_taken_and_answered_when_it_fits_and_refused_without_a_trace_when_not() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&Options::serve(directory.path()));
    let mut client = node.client();
    let check = json!({"type": "function", "with": {"expr": "'to ' + input.street"}});
    let run_id = start(&mut client, &asking("orders", check));
    let before = timeline(&mut client, &run_id);

    let path = format!("/v1/runs/{run_id}/updates/address");
    let refused =
        client.post(&path, &json!({"payload": {"street": "", "number": "nine"}})).expect(422).json();
    assert_eq!((&refused["code"], &refused["outcome"]), (&json!("update_invalid"), &json!("not_applied")));
    let mut places: Vec<_> =
        refused["errors"].as_array().unwrap().iter().map(|e| e["pointer"].clone()).collect();
    places.sort_by_key(ToString::to_string);
    assert_eq!(places, ["/payload/number", "/payload/street"]);
    let refused = client.post(&format!("/v1/runs/{run_id}/signals/address"), &json!({})).expect(422).json();
    assert_eq!(
        (&refused["code"], &refused["errors"][0]["pointer"]),
        (&json!("payload_invalid"), &json!("/payload"))
    );
    let refused = client.post(&format!("/v1/runs/{run_id}/updates/ship"), &json!({})).expect(409).json();
    assert_eq!(
        (&refused["code"], &refused["outcome"]),
        (&json!("update_not_awaited"), &json!("not_applied"))
    );
    assert!(refused["detail"].as_str().unwrap().ends_with("it waits for address"), "{refused}");
    client.post("/v1/runs/run_018bcfe568007fffbfffffffffffffff/updates/x", &json!({})).expect(404);
    assert_eq!(timeline(&mut client, &run_id), before, "nothing is recorded");

    // Only of the run as the caller knows it.
    let body = json!({"payload": {"street": "High Street"}}).to_string();
    let headers = [("content-type", "application/json"), ("if-match", "\"999\"")];
    client.request("POST", &path, &headers, body.as_bytes()).unwrap().expect(412);
    let etag = client.get(&format!("/v1/runs/{run_id}")).header("etag").unwrap().to_owned();
    let headers = [("content-type", "application/json"), ("if-match", etag.as_str())];
    let answer = client.request("POST", &path, &headers, body.as_bytes()).unwrap().expect(200);
    assert!(answer.header("etag").is_some());
    let answer = answer.json();
    let members = ["run_id", "status", "node", "reply", "state", "output", "durability"];
    let told = members.map(|member| answer[member].clone());
    let wanted =
        json!([run_id, "running", "order", "check", "completed", "to High Street", answer["durability"]]);
    assert_eq!(json!(told), wanted);
    let events = timeline(&mut client, &run_id);
    let event = events.iter().find(|event| event["seq"] == answer["received_seq"]).unwrap();
    assert_eq!((&event["type"], &event["node"]), (&json!("signal.received"), &json!("order")));

    // It is asked once; without a reply the answer is what was brought; and then the run is over.
    let refused = client.post(&path, &json!({"payload": {"street": "Again"}})).expect(409).json();
    assert_eq!(refused["code"], "update_not_awaited");
    let answer = update(&mut client, (&run_id, "ship"), &json!({"by": "sea"}), 5).expect(200);
    assert_eq!(answer.header("preference-applied"), Some("wait=5"));
    let answer = answer.json();
    assert_eq!((&answer["output"], &answer["node"]), (&json!({"by": "sea"}), &json!("ship")));
    assert_eq!((&answer["status"], answer.get("reply")), (&json!("completed"), None));
    let refused = client.post(&path, &json!({"payload": {"street": "Late"}})).expect(409).json();
    assert_eq!(refused["code"], "run_finished");
}

#[test]
fn a_signal_kept_for_a_node_that_does_not_accept_it_fails_the_node() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&Options::serve(directory.path()));
    let mut client = node.client();
    let workflow = json!({"name": "late", "nodes": {
        "open": {"type": "wait", "with": {"signal": "open"}},
        "count": {"type": "wait", "needs": ["open"], "with": {"signal": "count", "accepts": {"type": "integer"}}},
        "mend": {"type": "function", "with": {"expr": "'mended'"}}
    }, "edges": [{"from": "count", "to": "mend", "on": "error"}]});
    let run_id = start(&mut client, &workflow);
    // Nobody waits for it, so nobody says what it must be.
    client.post(&format!("/v1/runs/{run_id}/signals/count"), &json!({"payload": "many"})).expect(202);
    client.post(&format!("/v1/runs/{run_id}/updates/open"), &json!({})).expect(200);
    let run = ended(&mut client, &run_id);
    assert_eq!((&run["status"], &run["outputs"]["mend"]), (&json!("completed"), &json!("mended")), "{run}");
    let events = timeline(&mut client, &run_id);
    let failed = events.iter().find(|event| event["type"] == "node.failed").unwrap();
    assert_eq!(failed["error"]["code"], "payload_invalid", "{failed}");
    assert_eq!(failed["error"]["retryable"], false, "{failed}");
}

/// Answers one call.
fn service() -> (String, std::thread::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let serving = in_background(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut seen = Vec::new();
        while !seen.windows(4).any(|four| four == b"\r\n\r\n") {
            let mut buffer = [0; 1024];
            let read = stream.read(&mut buffer).unwrap();
            seen.extend_from_slice(&buffer[..read]);
        }
        let body = r#"{"known": true}"#;
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n";
        write!(stream, "{head}content-length: {}\r\n\r\n{body}", body.len()).unwrap();
    });
    (address, serving)
}

#[test]
fn the_answer_comes_from_the_node_that_the_document_names_however_it_ends() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&Options::serve(directory.path()).set("http.allow", "127.0.0.1"));
    let mut client = node.client();
    let address = json!({"street": "High Street"});

    let (url, serving) = service();
    let check = json!({"type": "http", "with": {"url": format!("http://{url}/")}});
    let run_id = start(&mut client, &asking("by-http", check));
    let answer = update(&mut client, (&run_id, "address"), &address, 60).expect(200).json();
    serving.join().unwrap();
    assert_eq!((&answer["reply"], &answer["state"]), (&json!("check"), &json!("completed")));
    assert_eq!(answer["output"]["body"]["known"], true, "{answer}");

    let run_id = start(&mut client, &asking("by-task", json!({"type": "task", "with": {"queue": "q"}})));
    let (mut other, run) = (node.client(), run_id.clone());
    let waiting = in_background({
        let address = address.clone();
        move || update(&mut other, (&run, "address"), &address, 60).expect(200).json()
    });
    let lease = job(&mut client, "q")["lease"].clone();
    client.post("/v1/workers/complete", &json!({"lease": lease, "output": 42})).expect(200);
    let answer = waiting.join().unwrap();
    assert_eq!((&answer["output"], &answer["status"]), (&json!(42), &json!("running")));

    // A failure is an answer, too: the update was taken.
    let run_id =
        start(&mut client, &asking("by-none", json!({"type": "function", "with": {"expr": "1 / 0"}})));
    let answer = update(&mut client, (&run_id, "address"), &address, 60).expect(200).json();
    assert_eq!((&answer["state"], &answer["status"]), (&json!("failed"), &json!("failed")));
    assert_eq!(answer["error"]["code"], "expression_division_by_zero");
    assert_eq!(answer.get("output"), None);
}

#[test]
fn an_update_whose_answer_takes_too_long_is_taken_all_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&Options::serve(directory.path()));
    let mut client = node.client();
    let run_id = start(&mut client, &asking("slow", json!({"type": "task", "with": {"queue": "q"}})));
    let address = json!({"street": "High Street"});
    let answer = update(&mut client, (&run_id, "address"), &address, 1).expect(202);
    assert_eq!(answer.header("location"), Some(&*format!("/v1/runs/{run_id}")));
    assert_eq!(answer.header("preference-applied"), None);
    let answer = answer.json();
    assert_eq!(
        (&answer["state"], &answer["node"], &answer["reply"]),
        (&json!("waiting"), &json!("order"), &json!("check"))
    );
    assert_eq!(received(&mut client, &run_id), 1);
    let lease = job(&mut client, "q")["lease"].clone();
    client.post("/v1/workers/complete", &json!({"lease": lease, "output": 42})).expect(200);
    // Who does not say that he wants to wait does not; and what is there already needs no waiting.
    let done = client.post(&format!("/v1/runs/{run_id}/updates/ship"), &json!({})).expect(200).json();
    assert_eq!(done["status"], "completed");
    let run_id = {
        let run = client.post("/v1/runs", &json!({"workflow": "slow"})).expect(202).json();
        run["run_id"].as_str().unwrap().to_owned()
    };
    let path = format!("/v1/runs/{run_id}/updates/address");
    client.post(&path, &json!({"payload": address})).expect(202);
    // A client that goes away takes nothing with it.
    client.post(&format!("/v1/runs/{run_id}/terminate"), &json!({})).expect(200);
}

#[test]
fn an_update_that_was_taken_is_taken_exactly_once_across_kill_9() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options::serve(directory.path());
    let node = Node::start(&options);
    let mut client = node.client();
    let run_id = start(&mut client, &asking("crash", json!({"type": "task", "with": {"queue": "q"}})));
    let (mut other, run) = (node.client(), run_id.clone());
    let waiting = in_background(move || {
        let path = format!("/v1/runs/{run}/updates/address");
        let headers = [("content-type", "application/json"), ("prefer", "wait=60")];
        other.request("POST", &path, &headers, br#"{"payload": {"street": "High Street"}}"#).is_ok()
    });
    taken(&mut client, &run_id);
    node.kill();
    assert!(!waiting.join().unwrap(), "nobody was answered");

    let node = Node::start(&options);
    let mut client = node.client();
    let refused = update(&mut client, (&run_id, "address"), &json!({"street": "High Street"}), 5).expect(409);
    assert_eq!(refused.json()["code"], "update_not_awaited", "sent again, it is not taken again");
    let lease = job(&mut client, "q")["lease"].clone();
    client.post("/v1/workers/complete", &json!({"lease": lease, "output": "known"})).expect(200);
    update(&mut client, (&run_id, "ship"), &json!(null), 5).expect(200);
    let run = ended(&mut client, &run_id);
    assert_eq!(run["status"], "completed");
    let events = timeline(&mut client, &run_id);
    let taken = |node: &str| {
        events.iter().filter(|event| event["type"] == "signal.received" && event["node"] == node).count()
    };
    assert_eq!((taken("order"), taken("ship")), (1, 1));
    let payload = events.iter().find(|event| event["type"] == "signal.received").unwrap();
    assert_eq!(payload["payload"], json!({"street": "High Street"}));
}

#[test]
fn of_updates_at_the_same_time_exactly_one_is_taken() {
    const CLIENTS: usize = 8;
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&Options::serve(directory.path()));
    let mut client = node.client();
    let workflow = json!({"name": "race", "nodes": {
        "ask": {"type": "wait", "with": {"signal": "go", "reply": "tell"}},
        "tell": {"type": "function", "needs": ["ask"], "with": {"expr": "input"}},
        "stay": {"type": "wait", "needs": ["tell"], "with": {"signal": "never"}}}});
    let run_id = start(&mut client, &workflow);
    let together = Arc::new(Barrier::new(CLIENTS));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let (mut client, together, run_id) = (node.client(), together.clone(), run_id.clone());
            in_background(move || {
                client.get("/livez").expect(200);
                together.wait();
                let answer = update(&mut client, (&run_id, "go"), &json!(number), 30);
                (number, answer.status, answer.json())
            })
        })
        .collect();
    let answers: Vec<_> = clients.into_iter().map(|client| client.join().unwrap()).collect();
    let (won, lost): (Vec<_>, Vec<_>) = answers.into_iter().partition(|(_, status, _)| *status == 200);
    let [(number, _, answer)] = &won[..] else { panic!("{won:?} {lost:?}") };
    assert_eq!(answer["output"], json!(number));
    for (_, status, answer) in &lost {
        assert_eq!((*status, &answer["code"]), (409, &json!("update_not_awaited")), "{answer}");
    }
    assert_eq!(received(&mut client, &run_id), 1);
}

fn aob(node: &Node, args: &[&str]) -> Output {
    let url = format!("http://{}", node.address);
    Command::new(env!("CARGO_BIN_EXE_aob")).args(["--url", &url]).args(args).output().unwrap()
}

#[test]
fn the_command_line_brings_an_update_and_shows_its_answer_and_the_audit_log_has_it() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&Options::serve(directory.path()));
    let mut client = node.client();
    let check = json!({"type": "task", "with": {"queue": "q"}});
    let run_id = start(&mut client, &asking("cli", check));
    let refused = aob(&node, &["run", "update", &run_id, "address", "--payload", "{}"]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("update_invalid"), "{refused:?}");
    let refused = aob(&node, &["run", "update", &run_id, "nothing"]);
    assert_eq!(refused.status.code(), Some(5), "{refused:?}");
    let broken = aob(&node, &["run", "update", &run_id, "address", "--payload", "{"]);
    assert_eq!(broken.status.code(), Some(1), "{broken:?}");
    let file = directory.path().join("address.json");
    std::fs::write(&file, r#"{"street": "High Street"}"#).unwrap();
    let payload = format!("@{}", file.display());
    let late = aob(&node, &["run", "update", &run_id, "address", "--payload", &payload, "--wait", "1"]);
    assert_eq!(late.status.code(), Some(8), "{late:?}");
    assert!(String::from_utf8_lossy(&late.stdout).contains("waiting"), "{late:?}");
    let lease = job(&mut client, "q")["lease"].clone();
    client.post("/v1/workers/complete", &json!({"lease": lease, "output": 1})).expect(200);
    let done = aob(&node, &["run", "update", &run_id, "ship", "--payload", "[1]", "-o", "json"]);
    assert!(done.status.success(), "{done:?}");
    let done: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!((&done["output"], &done["status"]), (&json!([1]), &json!("completed")));
    let log = client.get("/v1/audit?all=true&limit=1000").expect(200).json();
    let taken = log["records"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|record| record["action"] == "POST /v1/runs/{id}/updates/{id}");
    let told: Vec<_> = taken.map(|record| (record["outcome"].clone(), record["status"].clone())).collect();
    assert_eq!(told, [(json!("accepted"), json!(202)), (json!("accepted"), json!(200))], "{log}");
}
