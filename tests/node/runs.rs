//! One real workflow end to end: register, start, wait, look, stream, signal, cancel, list, restart.

use serde_json::{Value, json};

use crate::harness::{Client, Node, Options, chain, store};

fn node() -> (tempfile::TempDir, Node) {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&Options::serve(directory.path()));
    (directory, node)
}

fn start(client: &mut Client, workflow: &str, inputs: &Value) -> String {
    let reply = client.post("/v1/runs", &json!({"workflow": workflow, "inputs": inputs})).expect(202);
    let location = reply.header("location").expect("a Location").to_owned();
    let run = reply.json();
    for member in ["run_id", "status", "seq", "durability", "epoch"] {
        assert!(!run[member].is_null(), "F115: {member} in {run}");
    }
    assert_eq!(location, format!("/v1/runs/{}", run["run_id"].as_str().unwrap()));
    run["run_id"].as_str().unwrap().to_owned()
}

fn ended(client: &mut Client, run_id: &str) -> Value {
    let path = format!("/v1/runs/{run_id}");
    client.request("GET", &path, &[("prefer", "wait=30")], b"").unwrap().expect(200).json()
}

fn timeline(client: &mut Client, run_id: &str) -> Vec<Value> {
    let mut events = Vec::new();
    let mut after = 0;
    loop {
        let page =
            client.get(&format!("/v1/runs/{run_id}/timeline?after={after}&limit=7")).expect(200).json();
        events.extend(page["events"].as_array().unwrap().iter().cloned());
        if page["next_cursor"].is_null() {
            return events;
        }
        after = events.last().unwrap()["seq"].as_u64().unwrap();
    }
}

fn types(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["type"].as_str().unwrap()).collect()
}

// F010, F016, F113, F115, F275, F301
#[test]
fn a_chain_runs_and_its_history_is_whole_before_and_after_a_restart() {
    let (directory, node) = node();
    let mut client = node.client();
    let registered = client.post("/v1/workflows", &chain("chain5", 5)).expect(201).json();
    assert_eq!(registered["version"], "1");
    assert_eq!(client.post("/v1/workflows", &chain("chain5", 5)).expect(200).json()["version"], "1");
    let run_id = start(&mut client, "chain5", &json!({"n": 37}));
    let run = ended(&mut client, &run_id);
    assert_eq!((run["status"].as_str(), &run["outputs"]["n"]), (Some("completed"), &json!(42)));
    let events = timeline(&mut client, &run_id);
    let seqs: Vec<_> = events.iter().map(|event| event["seq"].as_u64().unwrap()).collect();
    assert_eq!(seqs, (1..=12).collect::<Vec<_>>(), "gapless, one started and one completed a node");
    assert_eq!(types(&events)[..3], ["run.started", "node.started", "node.completed"]);
    assert_eq!(types(&events)[11], "run.completed");
    assert_eq!(events[3]["node"], "s1");
    let graph = client.get(&format!("/v1/runs/{run_id}/graph")).expect(200).json();
    assert!(graph["document"]["nodes"]["s4"].is_object() && graph["hash"].is_string(), "{graph}");
    node.kill();
    let node = Node::start(&Options::serve(directory.path()));
    let mut client = node.client();
    assert_eq!(ended(&mut client, &run_id)["outputs"]["n"], 42);
    assert_eq!(timeline(&mut client, &run_id), events, "the same bytes for ever");
    let listed = client.get("/v1/runs?status=completed&workflow=chain5").expect(200).json();
    assert_eq!(listed["runs"][0]["run_id"], run_id.as_str());
}

// F262, F265
#[test]
fn yaml_and_json_are_one_language_and_only_the_chosen_branch_runs() {
    let (_directory, node) = node();
    let mut client = node.client();
    let yaml = "
name: triage
nodes:
  kind:
    type: conditional
    with:
      branches:
        - {name: large, when: 'inputs.n > 10', to: large}
      default: small
  large: {type: function, with: {expr: '\"large\"'}}
  small: {type: function, with: {expr: '\"small\"'}}
  last: {type: join, with: {wait: any, merge: array}}
edges:
  - {from: kind, to: small, on: small}
  - {from: large, to: last}
  - {from: small, to: last}
";
    let reply =
        client.request("POST", "/v1/workflows", &[("content-type", "application/yaml")], yaml.as_bytes());
    reply.unwrap().expect(201);
    for (n, taken, other) in [(11, "large", "small"), (10, "small", "large")] {
        let run_id = start(&mut client, "triage", &json!({"n": n}));
        let run = ended(&mut client, &run_id);
        assert_eq!(run["outputs"]["last"], json!([taken]), "{run}");
        let graph = client.get(&format!("/v1/runs/{run_id}/graph")).expect(200).json();
        let state = |id: &str| graph["nodes"][id]["state"].as_str().unwrap().to_owned();
        assert_eq!((state(taken), state(other)), (String::from("completed"), String::from("skipped")));
    }
}

const WAITING: &str = "
name: waiting
nodes:
  pause: {type: delay, with: {for: 300ms}}
  answer: {type: wait, with: {signal: go, timeout: 1h}}
  each: {type: map, with: {over: 'nodes.answer.output.items', body: {type: function, with: {expr: 'item * 2 + index'}}}}
edges:
  - {from: pause, to: answer}
  - {from: answer, to: each}
outputs: {doubled: '${ nodes.each.output }'}
";

fn register_waiting(client: &mut Client) {
    let yaml = [("content-type", "application/yaml")];
    client.request("POST", "/v1/workflows", &yaml, WAITING.as_bytes()).unwrap().expect(201);
}

// F019, F023, F117
#[test]
fn a_delay_and_a_wait_survive_kill_9_and_the_signal_is_kept() {
    let (directory, node) = node();
    let mut client = node.client();
    register_waiting(&mut client);
    let run_id = start(&mut client, "waiting", &json!({}));
    // Before anyone waits for it: it is kept, and durable when acknowledged.
    client
        .post(&format!("/v1/runs/{run_id}/signals/go"), &json!({"payload": {"items": [1, 2, 3]}}))
        .expect(202);
    node.kill();
    let node = Node::start(&Options::serve(directory.path()));
    let mut client = node.client();
    let run = ended(&mut client, &run_id);
    assert_eq!(run["outputs"]["doubled"], json!([2, 5, 8]), "{run}");
    let events = timeline(&mut client, &run_id);
    assert_eq!(types(&events).iter().filter(|name| **name == "timer.fired").count(), 1, "once: {events:#?}");
    let at = |name: &str| {
        let event = events.iter().find(|event| event["type"] == name).unwrap();
        event["at"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap()
    };
    let waited = at("timer.fired").duration_since(at("run.started"));
    assert!(waited >= jiff::SignedDuration::from_millis(300), "never early: {waited:?}");
    assert!(events.iter().any(|event| event["node"] == "each[2]"), "{events:#?}");
}

// F008, F034, F195
#[test]
fn a_stream_resumes_where_it_broke_off_without_gap_or_double() {
    let (_directory, node) = node();
    let mut client = node.client();
    register_waiting(&mut client);
    let run_id = start(&mut client, "waiting", &json!({}));
    let path = format!("/v1/runs/{run_id}/events");
    let first = client.events(&path, &[], |event| event.event != "node.waiting");
    let last = first.last().unwrap().id.clone().unwrap();
    assert!(last.starts_with(&format!("{run_id}:")));
    // The second stream is live while the run goes on.
    let address = node.address.clone();
    let (path2, id) = (path.clone(), last.clone());
    let follower = crate::harness::in_background(move || {
        Client::new(&address).events(&path2, &[("last-event-id", &id)], |_| true)
    });
    client.post(&format!("/v1/runs/{run_id}/signals/go"), &json!({"payload": {"items": []}})).expect(202);
    let second = follower.join().unwrap();
    let seqs: Vec<_> = first.iter().chain(&second).map(|event| event.seq()).collect();
    assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<_>>());
    assert_eq!(second.last().unwrap().event, "run.completed", "the stream ends with the run");
    let rows = timeline(&mut client, &run_id);
    let streamed: Vec<_> = first.iter().chain(&second).map(|event| event.data.clone()).collect();
    assert_eq!(streamed, rows, "a stream and a timeline show the same");
    let ahead = [("last-event-id", format!("{run_id}:999"))];
    let resync = client.events(&path, &[(ahead[0].0, &ahead[0].1)], |_| true);
    assert_eq!(resync.first().map(|event| event.event.as_str()), Some("resync"), "{resync:?}");
}

// F011
#[test]
fn a_cancelled_run_starts_nothing_more_and_a_finished_one_is_not_cancelled() {
    let (_directory, node) = node();
    let mut client = node.client();
    register_waiting(&mut client);
    let run_id = start(&mut client, "waiting", &json!({}));
    client.post(&format!("/v1/runs/{run_id}/cancel"), &json!({"reason": "enough"})).expect(200);
    assert_eq!(ended(&mut client, &run_id)["status"], "cancelled");
    let events = timeline(&mut client, &run_id);
    let names = types(&events);
    let requested = names.iter().position(|name| *name == "run.cancel_requested").unwrap();
    assert!(!names[requested..].contains(&"node.started"), "{names:?}");
    let refused = client.post(&format!("/v1/runs/{run_id}/cancel"), &json!({})).expect(409).json();
    assert_eq!(refused["code"], "run_finished", "{refused}");
    assert!(refused["detail"].as_str().unwrap().contains("cancelled"));
}

#[test]
fn a_deadline_fails_the_run_by_name() {
    let (_directory, node) = node();
    let mut client = node.client();
    let document = json!({
        "name": "late", "limits": {"deadline": "100ms"},
        "nodes": {"wait": {"type": "wait", "with": {"signal": "never"}}},
    });
    client.post("/v1/workflows", &document).expect(201);
    let run_id = start(&mut client, "late", &json!({}));
    let run = ended(&mut client, &run_id);
    assert_eq!(
        (run["status"].as_str(), run["error"]["code"].as_str()),
        (Some("failed"), Some("deadline_exceeded"))
    );
}

#[test]
fn starting_and_waiting_takes_one_request() {
    let (_directory, node) = node();
    let mut client = node.client();
    client.post("/v1/workflows", &chain("chain5", 5)).expect(201);
    let body = json!({"workflow": "chain5", "inputs": {"n": 0}});
    let reply = client.post_with("/v1/runs", &[("prefer", "wait=10")], &body).unwrap().expect(200);
    assert!(reply.header("preference-applied").is_some());
    assert_eq!(reply.json()["outputs"]["n"], 5);
    register_waiting(&mut client);
    let body = json!({"workflow": "waiting", "inputs": {}});
    let reply = client.post_with("/v1/runs", &[("prefer", "wait=1")], &body).unwrap().expect(202);
    assert_eq!(reply.json()["status"], "running", "what could not be waited for is still acknowledged");
}

// RELIABILITY 2.3
#[test]
fn a_key_starts_one_run_and_another_request_under_it_is_refused() {
    let (_directory, node) = node();
    let mut client = node.client();
    client.post("/v1/workflows", &chain("chain5", 5)).expect(201);
    let key = [("idempotency-key", "order-17")];
    let body = json!({"workflow": "chain5", "inputs": {"n": 1}});
    let first = client.post_with("/v1/runs", &key, &body).unwrap().expect(202);
    let again = client.post_with("/v1/runs", &key, &body).unwrap().expect(202);
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    assert_eq!(first.json(), again.json(), "the same body");
    let other = json!({"workflow": "chain5", "inputs": {"n": 2}});
    let refused = client.post_with("/v1/runs", &key, &other).unwrap().expect(422).json();
    assert_eq!(refused["code"], "idempotency_key_reused", "{refused}");
    // Many at once: one run.
    let ids: std::collections::BTreeSet<_> = (0..8)
        .map(|_| {
            let address = node.address.clone();
            crate::harness::in_background(move || {
                let body = json!({"workflow": "chain5", "inputs": {"n": 3}});
                let key = [("idempotency-key", "at-once")];
                let reply = Client::new(&address).post_with("/v1/runs", &key, &body).unwrap().expect(202);
                reply.json()["run_id"].as_str().unwrap().to_owned()
            })
        })
        .map(|thread| thread.join().unwrap())
        .collect();
    assert_eq!(ids.len(), 1);
}

#[test]
fn the_node_describes_itself() {
    let (_directory, node) = node();
    let mut client = node.client();
    assert_eq!(client.get("/livez").status, 200);
    assert_eq!(client.get("/readyz").status, 200);
    client.post("/v1/workflows", &chain("chain5", 5)).expect(201);
    let run_id = start(&mut client, "chain5", &json!({"n": 1}));
    ended(&mut client, &run_id);
    let about = client.get("/v1/node").expect(200).json();
    assert_eq!(about["durability"], if store::is_redis() { "redis-aof" } else { "fsync" });
    assert!(about["cpu_us"].as_u64().unwrap() > 0);
    let metrics = String::from_utf8(client.get("/metrics").expect(200).body).unwrap();
    let finished = "aob_runs_finished_total{workflow=\"chain5\",status=\"completed\"} 1";
    assert!(metrics.contains(finished), "{metrics}");
    let workflows = client.get("/v1/workflows").expect(200).json();
    assert_eq!(workflows["workflows"][0]["name"], "chain5", "{workflows}");
}

#[test]
fn sigterm_ends_the_node_well_and_loses_nothing() {
    // RELIABILITY A7
    let (directory, node) = node();
    let mut client = node.client();
    client.post("/v1/workflows", &chain("chain5", 5)).expect(201);
    let run_id = start(&mut client, "chain5", &json!({"n": 1}));
    let (status, stderr) = node.terminate();
    assert!(status.success(), "{status}: {stderr}");
    let node = Node::start(&Options::serve(directory.path()));
    assert_eq!(ended(&mut node.client(), &run_id)["outputs"]["n"], 6);
}
