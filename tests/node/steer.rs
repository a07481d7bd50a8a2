//! Pause, resume, cancel, terminate, from outside; and what may not be started here.

use serde_json::{Value, json};

use crate::harness::{Client, Node, Options, in_background};

/// `hold` waits for `go`, then `after` runs.
fn workflow() -> Value {
    json!({
        "name": "held",
        "nodes": {
            "hold": {"type": "wait", "with": {"signal": "go"}},
            "after": {"type": "function", "with": {"expr": "input + 1"}, "needs": ["hold"]}
        }
    })
}

fn start(client: &mut Client) -> String {
    client.post("/v1/workflows", &workflow());
    let run = client.post("/v1/runs", &json!({"workflow": "held"})).expect(202).json();
    run["run_id"].as_str().unwrap().to_owned()
}

fn get(client: &mut Client, run_id: &str) -> Value {
    client.get(&format!("/v1/runs/{run_id}")).expect(200).json()
}

fn state(client: &mut Client, run_id: &str, node: &str) -> Value {
    let graph = client.get(&format!("/v1/runs/{run_id}/graph")).expect(200).json();
    let nodes = &graph["nodes"];
    nodes[node]["state"].clone()
}

// I-1: an acknowledged signal was dropped.
#[test]
fn a_signal_to_a_run_that_is_being_cancelled_is_refused_and_not_dropped() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&Options::serve(directory.path()));
    let mut client = node.client();
    let flow = json!({"name": "flow", "nodes": {"t": {"type": "task"}, "w": {"type": "wait", "with": {"signal": "go"}}}});
    client.post("/v1/workflows", &flow).expect(201);
    let run = client.post("/v1/runs", &json!({"workflow": "flow"})).expect(202).json();
    let route = |verb: &str| format!("/v1/runs/{}/{verb}", run["run_id"].as_str().unwrap());
    // A worker has the job, so the run is not cancelled until it has said how that ended.
    let poll = json!({"queues": ["t"], "wait_ms": 30_000});
    let jobs = client.post("/v1/workers/poll", &poll).expect(200).json();
    client.post(&route("cancel"), &json!({})).expect(202);
    let refused = client.post(&route("signals/go"), &json!({"payload": 1})).expect(409).json();
    assert_eq!(refused["code"], "illegal_transition", "{refused}");
    client.post("/v1/workers/complete", &json!({"lease": jobs["jobs"][0]["lease"]})).expect(200);
    let events = client.get(&route("timeline")).expect(200).json();
    assert!(!events.to_string().contains("signal.received"), "{events}");
}

// F044, F294, F298, F299
#[test]
fn a_paused_run_stays_paused_across_kill_9_and_goes_on_when_resumed() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options::serve(directory.path());
    let node = Node::start(&options);
    let mut client = node.client();
    let run_id = start(&mut client);
    let route = |verb: &str| format!("/v1/runs/{run_id}/{verb}");
    let refused = client.post(&route("resume"), &json!({})).expect(409).json();
    assert_eq!(refused["code"], "illegal_transition");
    assert!(refused["detail"].as_str().unwrap().contains("running"), "{refused}");
    let paused = client.post(&route("pause"), &json!({"reason": "wait a moment"})).expect(202).json();
    assert_eq!(paused["status"], "paused");
    client.post(&route("pause"), &json!({})).expect(202);
    client.post(&route("signals/go"), &json!({"payload": 41})).expect(202);
    node.kill();

    let node = Node::start(&options);
    let mut client = node.client();
    assert_eq!(get(&mut client, &run_id)["status"], "paused");
    assert_eq!(state(&mut client, &run_id, "after"), "ready", "nothing starts");
    let listed = client.get("/v1/runs?status=paused").expect(200).json();
    assert_eq!(listed["runs"][0]["run_id"], run_id.as_str());
    client.post(&route("resume"), &json!({}));
    let path = format!("/v1/runs/{run_id}");
    let run = client.request("GET", &path, &[("prefer", "wait=30")], b"").unwrap().expect(200).json();
    assert_eq!((run["status"].as_str(), &run["outputs"]["after"]), (Some("completed"), &json!(42)));
    let timeline = client.get(&route("timeline")).expect(200).json();
    let types: Vec<_> = timeline["events"].as_array().unwrap().iter().map(|event| &event["type"]).collect();
    assert!(types.contains(&&json!("run.paused")) && types.contains(&&json!("run.resumed")), "{types:?}");
    for verb in ["pause", "resume", "cancel", "terminate"] {
        assert_eq!(client.post(&route(verb), &json!({})).expect(409).json()["code"], "run_finished");
    }
}

#[test]
fn a_terminated_run_is_cancelled_and_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&Options::serve(directory.path()));
    let mut client = node.client();
    let run_id = start(&mut client);
    let ended =
        client.post(&format!("/v1/runs/{run_id}/terminate"), &json!({"reason": "enough"})).expect(200);
    assert_eq!(ended.json()["status"], "cancelled");
    let timeline = client.get(&format!("/v1/runs/{run_id}/timeline")).expect(200).json();
    let events = timeline["events"].as_array().unwrap();
    let last = events.last().unwrap();
    assert_eq!((&last["type"], &last["reason"]), (&json!("run.cancelled"), &json!("terminated")));
    assert_eq!(events[events.len() - 2]["reason"], "enough");
}

/// What needs somebody who is not there is registered, and refused at the start before anything is written.
#[test]
fn a_run_that_needs_a_model_is_refused_before_anything_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&Options::serve(directory.path()));
    let mut client = node.client();
    let calls = json!({"name": "calls", "nodes": {"ask": {"type": "agent", "with": {"task": "t"}}}});
    let verdict = client.post("/v1/workflows/validate", &calls).expect(200).json();
    assert_eq!((&verdict["valid"], &verdict["warnings"][0]["code"]), (&json!(true), &json!("no_model")));
    client.post("/v1/workflows", &calls).expect(201);
    let refused = client.post("/v1/runs", &json!({"workflow": "calls"})).expect(422).json();
    assert_eq!(refused["code"], "workflow_unstartable");
    assert_eq!(refused["errors"][0]["code"], "no_model");
    assert_eq!(client.get("/v1/runs").expect(200).json()["runs"], json!([]));
}

// F267
#[test]
fn a_start_takes_the_version_of_the_tag_and_a_run_keeps_it() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options::serve(directory.path());
    let node = Node::start(&options);
    let mut client = node.client();
    let version = |expr: &str| {
        json!({"name": "w", "nodes": {
            "hold": {"type": "wait", "with": {"signal": "go"}},
            "out": {"type": "function", "with": {"expr": expr}, "needs": ["hold"]}
        }})
    };
    client.post("/v1/workflows", &version("'one'")).expect(201);
    client.post("/v1/workflows", &version("'two'")).expect(201);
    let tag = |client: &mut Client, version: &str| {
        let body = json!({"version": version}).to_string();
        let headers = [("content-type", "application/json")];
        client.request("PUT", "/v1/workflows/w/tags/prod", &headers, body.as_bytes()).unwrap()
    };
    assert_eq!(tag(&mut client, "9").expect(404).json()["code"], "workflow_not_found");
    assert_eq!(tag(&mut client, "1").expect(200).json()["version"], "1");
    let start = |client: &mut Client| {
        let run = client.post("/v1/runs", &json!({"workflow": "w@prod"})).expect(202).json();
        (run["run_id"].as_str().unwrap().to_owned(), run["version"].as_str().unwrap().to_owned())
    };
    let (first, version) = start(&mut client);
    assert_eq!(version, "1");
    assert_eq!(client.get("/v1/workflows/w/tags").expect(200).json()["tags"][0]["version"], "1");
    let named = json!({"name": "w", "version": "prod", "nodes": {"a": {"type": "function"}}});
    assert_eq!(client.post("/v1/workflows", &named).expect(409).json()["code"], "tag_is_version");
    tag(&mut client, "2").expect(200);
    node.kill();
    let node = Node::start(&options);
    let mut client = node.client();
    let (second, version) = start(&mut client);
    assert_eq!(version, "2", "a tag that was moved stays moved");
    for (run_id, out) in [(first, "one"), (second, "two")] {
        client.post(&format!("/v1/runs/{run_id}/signals/go"), &json!({}));
        let path = format!("/v1/runs/{run_id}");
        let run = client.request("GET", &path, &[("prefer", "wait=30")], b"").unwrap().expect(200).json();
        assert_eq!(run["outputs"]["out"], out);
    }
}

#[test]
fn of_those_who_steer_by_what_they_have_seen_one_wins() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&Options::serve(directory.path()));
    let mut client = node.client();
    let run_id = start(&mut client);
    let path = format!("/v1/runs/{run_id}");
    for round in 0..10 {
        let tag = client.get(&path).expect(200).header("etag").unwrap().to_owned();
        let verb = if round % 2 == 0 { "pause" } else { "resume" };
        let racers: Vec<_> = (0..6)
            .map(|_| {
                let (mut client, route, tag) = (node.client(), format!("{path}/{verb}"), tag.clone());
                in_background(move || {
                    client.post_with(&route, &[("if-match", &tag)], &json!({})).unwrap().status
                })
            })
            .collect();
        let mut answers: Vec<_> = racers.into_iter().map(|racer| racer.join().unwrap()).collect();
        answers.sort_unstable();
        assert_eq!(answers, [202, 412, 412, 412, 412, 412], "round {round}");
    }
    let tag = client.get(&path).expect(200).header("etag").unwrap().to_owned();
    let signal = format!("{path}/signals/go");
    let stale = client.post_with(&signal, &[("if-match", "\"2\"")], &json!({"payload": 1})).unwrap();
    assert_eq!(stale.expect(412).json()["code"], "precondition_failed");
    client.post_with(&signal, &[("if-match", &tag)], &json!({"payload": 1})).unwrap().expect(200);
    let ended = client.request("GET", &path, &[("prefer", "wait=30")], b"").unwrap().expect(200);
    assert_eq!(ended.json()["outputs"]["after"], 2, "one signal went through");
    // Also when it is forgotten by its shard and read from the index.
    let last = ended.header("etag").unwrap();
    client.post_with(&format!("{path}/cancel"), &[("if-match", &tag)], &json!({})).unwrap().expect(412);
    client.post_with(&format!("{path}/cancel"), &[("if-match", last)], &json!({})).unwrap().expect(409);
}

#[test]
fn an_execution_is_found_by_its_id_across_kill_9_and_after_its_end() {
    // F302
    let directory = tempfile::tempdir().unwrap();
    let options = Options::serve(directory.path());
    let node = Node::start(&options);
    let mut client = node.client();
    client.post("/v1/workflows", &workflow());
    let body = json!({"workflow_name": "held", "inputs": {}});
    let execute = |client: &mut Client, key: &str| {
        let answer = client.post_with("/workflows/execute", &[("idempotency-key", key)], &body).unwrap();
        answer.expect(202).json()["execution_id"].as_str().unwrap().to_owned()
    };
    let id = execute(&mut client, "a");
    assert_eq!(execute(&mut client, "a"), id);
    assert_ne!(execute(&mut client, "b"), id);
    let plain = client.post("/workflows/execute", &body).expect(202).json()["execution_id"].clone();
    assert!(plain != id.as_str() && plain.as_str().unwrap().starts_with("exec_"), "{plain}");
    let run_id = client.get(&format!("/workflows/{id}")).expect(200).json()["run_id"].clone();
    node.kill();

    let node = Node::start(&options);
    let mut client = node.client();
    assert_eq!(execute(&mut client, "a"), id);
    assert_eq!(client.get(&format!("/v1/runs/{id}")).expect(200).json()["run_id"], run_id);
    client.post(&format!("/v1/runs/{id}/signals/go"), &json!({"payload": 1})).expect(200);
    let path = format!("/workflows/{id}");
    client.request("GET", &format!("/v1/runs/{id}"), &[("prefer", "wait=30")], b"").unwrap().expect(200);
    node.kill();

    let node = Node::start(&options);
    let mut client = node.client();
    let ended = client.get(&path).expect(200).json();
    assert_eq!((&ended["run_id"], &ended["status"]), (&run_id, &json!("completed")));
    assert_eq!(execute(&mut client, "a"), id, "the key remembers what it started");
}

// Also of a run whose failing node a patch brought, and when the node has started again since.
#[test]
fn a_failed_run_names_the_node_that_brought_it_down() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options::serve(directory.path());
    let node = Node::start(&options);
    let mut client = node.client();
    let document = json!({"name": "patched", "nodes": {"go": {"type": "wait", "with": {"signal": "go"}}}});
    client.post("/v1/workflows", &document).expect(201);
    let run = client.post("/v1/runs", &json!({"workflow": "patched"})).expect(202).json();
    let run = format!("/v1/runs/{}", run["run_id"].as_str().unwrap());
    let breaks = json!({"type": "function", "needs": ["go"], "with": {"expr": "1 / input"}});
    let patch = json!({"operations": [{"op": "add", "path": "/nodes/breaks", "value": breaks}]});
    client.post(&format!("{run}/patches"), &patch).expect(202);
    client.post(&format!("{run}/signals/go"), &json!({"payload": 0}));
    let waited = client.request("GET", &run, &[("prefer", "wait=30")], b"").unwrap();
    let told = |run: &Value| (run["status"].clone(), run["failed_node"].clone());
    let failed = (json!("failed"), json!("breaks"));
    assert_eq!(told(&waited.expect(200).json()), failed);
    assert_eq!(told(&client.get(&run).expect(200).json()), failed);
    node.terminate();
    let node = Node::start(&options);
    assert_eq!(told(&node.client().get(&run).expect(200).json()), failed);
}
