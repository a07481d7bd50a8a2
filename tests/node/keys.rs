//! Runs under `limits.concurrency` and `limits.rate`, seen by a worker: never more of a key than may be, across kill -9 too,
//! and all of them in the end.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::harness::{Client, Node, Options};

fn register(client: &mut Client, name: &str, limits: &Value, nodes: &Value) {
    client.post("/v1/workflows", &json!({"name": name, "limits": limits, "nodes": nodes})).expect(201);
}

fn work() -> Value {
    json!({"work": {"type": "task", "with": {"queue": "work", "payload": "${ inputs }"}}})
}

fn start(client: &mut Client, workflow: &str, inputs: &Value) -> Value {
    client.post("/v1/runs", &json!({"workflow": workflow, "inputs": inputs})).expect(202).json()
}

fn id(run: &Value) -> String {
    run["run_id"].as_str().unwrap().to_owned()
}

fn get(client: &mut Client, run_id: &str) -> Value {
    client.get(&format!("/v1/runs/{run_id}")).expect(200).json()
}

fn ended(client: &mut Client, run_id: &str) -> Value {
    let path = format!("/v1/runs/{run_id}");
    client.request("GET", &path, &[("prefer", "wait=60")], b"").unwrap().expect(200).json()
}

/// The run once it is in this status.
fn once(client: &mut Client, run_id: &str, status: &str) -> Value {
    for _ in 0..100_000 {
        let run = get(client, run_id);
        if run["status"] == status {
            return run;
        }
    }
    panic!("{run_id} never was {status}: {}", get(client, run_id));
}

fn types(client: &mut Client, run_id: &str) -> Vec<String> {
    let page = client.get(&format!("/v1/runs/{run_id}/timeline")).expect(200).json();
    page["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| event["type"].as_str().unwrap().to_owned())
        .collect()
}

/// The jobs there are: key of the run, its id, lease.
fn poll(client: &mut Client, wait_ms: u64) -> Vec<(String, String, Value)> {
    let asked = json!({"queues": ["work"], "max": 100, "wait_ms": wait_ms, "worker": "w"});
    let jobs = client.post("/v1/workers/poll", &asked).expect(200).json();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let jobs = jobs["jobs"].as_array().unwrap().iter();
    jobs.map(|job| (text(&job["input"]["key"]), text(&job["run_id"]), job["lease"].clone())).collect()
}

fn complete(client: &mut Client, lease: &Value) {
    let results = json!({"results": [{"lease": lease, "output": null}]});
    client.post("/v1/workers/complete", &results).expect(200);
}

/// Works runs off, and looks how many of a key are in its hands at once. `after` each completion the node may die.
fn work_off(mut node: Node, runs: usize, max: usize, again: &dyn Fn(usize, Node) -> Node) -> (Node, usize) {
    let mut held: BTreeMap<String, BTreeMap<String, Value>> = BTreeMap::new();
    let (mut done, mut most) = (0, 0);
    while done < runs {
        let mut client = node.client();
        // More than may be would come within the time of the poll.
        let full = !held.is_empty() && held.values().all(|of_key| of_key.len() == max);
        for (key, run_id, lease) in poll(&mut client, if full { 50 } else { 1_000 }) {
            let of_key = held.entry(key).or_default();
            of_key.insert(run_id, lease);
            assert!(of_key.len() <= max, "{of_key:?} at once");
            most = most.max(of_key.len());
        }
        let of_key = held.values_mut().max_by_key(|of_key| of_key.len());
        if let Some((_, lease)) = of_key.and_then(BTreeMap::pop_first) {
            complete(&mut client, &lease);
            done += 1;
            node = again(done, node);
        }
        held.retain(|_, of_key| !of_key.is_empty());
    }
    (node, most)
}

// F381, I-21
#[test]
fn no_more_runs_of_a_key_than_its_max_are_under_way_and_all_complete() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&Options::serve(directory.path()).set("cores.runner", "2"));
    let mut client = node.client();
    let limits = json!({"concurrency": {"key": "${ inputs.key }", "max": 3}});
    register(&mut client, "limited", &limits, &work());
    let runs: Vec<_> = (0..20).map(|_| start(&mut client, "limited", &json!({"key": "a"}))).collect();
    assert!(runs.iter().all(|run| run["status"] == "pending"), "{runs:?}");
    let others: Vec<_> = (0..4).map(|_| start(&mut client, "limited", &json!({"key": "b"}))).collect();
    let (node, most) = work_off(node, 24, 3, &|_, node| node);
    assert_eq!(most, 3);
    let mut client = node.client();
    for run in runs.iter().chain(&others) {
        assert_eq!(ended(&mut client, &id(run))["status"], "completed");
    }
    let told = types(&mut client, &id(&runs[0]));
    assert_eq!(told[..4], ["run.started", "run.waiting", "run.admitted", "node.started"]);
    let metrics = String::from_utf8(client.get("/metrics").expect(200).body).unwrap();
    assert!(!metrics.contains("aob_runs_keyed{"), "nobody holds or waits: {metrics}");
}

// F381, I-21
#[test]
fn across_kill_9_no_more_than_max_are_under_way_and_all_complete() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options::serve(directory.path()).set("cores.runner", "2");
    let node = Node::start(&options);
    let mut client = node.client();
    let limits = json!({"concurrency": {"key": "${ inputs.key }", "max": 3}});
    register(&mut client, "limited", &limits, &work());
    let runs: Vec<_> = (0..20).map(|_| start(&mut client, "limited", &json!({"key": "a"}))).collect();
    let (node, most) = work_off(node, 20, 3, &|done, node| {
        if done % 3 != 0 {
            return node;
        }
        node.kill();
        Node::start(&options)
    });
    assert_eq!(most, 3);
    let mut client = node.client();
    for run in &runs {
        let run_id = id(run);
        assert_eq!(ended(&mut client, &run_id)["status"], "completed");
        let admitted = types(&mut client, &run_id).iter().filter(|kind| *kind == "run.admitted").count();
        assert_eq!(admitted, 1);
    }
}

#[test]
fn a_pending_run_says_why_and_a_pause_a_cancel_and_a_deadline_take_it_out_of_the_line() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&Options::serve(directory.path()));
    let mut client = node.client();
    let hold = json!({"hold": {"type": "wait", "with": {"signal": "go"}}});
    let limits = json!({"concurrency": {"key": "one at a time", "max": 1}, "deadline": "60s"});
    register(&mut client, "single", &limits, &hold);
    let ids: Vec<_> = (0..5).map(|_| id(&start(&mut client, "single", &json!({})))).collect();
    once(&mut client, &ids[0], "running");
    for (ahead, run_id) in ids[1..].iter().enumerate() {
        let waiting = &get(&mut client, run_id)["waiting"];
        let wanted = json!({"reason": "concurrency", "key": "one at a time", "max": 1, "held": 1, "holders": [&ids[0]], "ahead": ahead});
        assert_eq!(*waiting, wanted);
    }
    assert_eq!(get(&mut client, &ids[0]).get("waiting"), None);
    let metrics = String::from_utf8(client.get("/metrics").expect(200).body).unwrap();
    for (state, count) in [("held", 1), ("waiting_concurrency", 4), ("waiting_rate", 0)] {
        let line =
            format!("aob_runs_keyed{{workspace=\"default\",workflow=\"single\",state=\"{state}\"}} {count}");
        assert!(metrics.contains(&line), "{line} in {metrics}");
    }
    let pending = client.get("/v1/runs?status=pending").expect(200).json();
    assert_eq!(pending["runs"].as_array().unwrap().len(), 4);

    client.post(&format!("/v1/runs/{}/pause", ids[1]), &json!({})).expect(202);
    let cancelled = client.post(&format!("/v1/runs/{}/cancel", ids[2]), &json!({})).expect(200).json();
    assert_eq!(cancelled["status"], "cancelled");
    client.post(&format!("/v1/runs/{}/signals/go", ids[0]), &json!({})).expect(200);
    once(&mut client, &ids[3], "running");
    assert_eq!(get(&mut client, &ids[4])["waiting"]["ahead"], 0, "a paused run is not in line");
    client.post(&format!("/v1/runs/{}/resume", ids[1]), &json!({})).expect(202);
    // Its old place, once its word has arrived.
    (0..100_000).find(|_| get(&mut client, &ids[4])["waiting"]["ahead"] == 1).expect("it has its old place");
    client.post(&format!("/v1/runs/{}/terminate", ids[3]), &json!({})).expect(200);
    once(&mut client, &ids[1], "running");
    client.post(&format!("/v1/runs/{}/signals/go", ids[1]), &json!({})).expect(200);
    once(&mut client, &ids[4], "running");

    let limits = json!({"concurrency": {"key": "${ inputs.key }", "max": 1}, "deadline": "20ms"});
    let late = json!({"hold": {"type": "wait", "with": {"signal": "go"}}});
    register(&mut client, "late", &limits, &late);
    let runs: Vec<_> = (0..3).map(|_| id(&start(&mut client, "late", &json!({"key": 7})))).collect();
    for run_id in &runs {
        let run = ended(&mut client, run_id);
        assert_eq!(run["error"]["code"], "deadline_exceeded", "{run}");
    }
    let bad = id(&start(&mut client, "late", &json!({"key": []})));
    assert_eq!(ended(&mut client, &bad)["error"]["code"], "admission_key");
}

#[test]
fn a_child_below_a_run_of_its_own_key_fails_instead_of_waiting_for_ever() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&Options::serve(directory.path()).set("cores.runner", "2"));
    let mut client = node.client();
    let nested =
        |workflow: &str| json!({"type": "composite", "with": {"workflow": workflow}, "input": "${ inputs }"});
    let limits = json!({"concurrency": {"key": "${ inputs.key }", "max": 5}});
    let choice = json!({
        "deeper": {"type": "conditional", "with": {"branches": [{"name": "yes", "when": "inputs.deeper"}], "default": "no"}},
        "next": {"type": "composite", "with": {"workflow": "between"}, "input": {"key": "${ inputs.next }", "deeper": false}},
        "stop": {"type": "function", "with": {"expr": "'done'"}}
    });
    let edges =
        json!([{"from": "deeper", "to": "next", "on": "yes"}, {"from": "deeper", "to": "stop", "on": "no"}]);
    let document = json!({"name": "again", "limits": limits, "nodes": choice, "edges": edges});
    client.post("/v1/workflows", &document).expect(201);
    register(&mut client, "between", &json!({}), &json!({"below": nested("again")}));
    let run = start(&mut client, "again", &json!({"key": "a", "next": "b", "deeper": true}));
    assert_eq!(ended(&mut client, &id(&run))["status"], "completed", "another key is another line");
    let run = start(&mut client, "again", &json!({"key": "a", "next": "a", "deeper": true}));
    let run = ended(&mut client, &id(&run));
    assert_eq!(
        (run["status"].as_str(), run["failed_node"].as_str()),
        (Some("failed"), Some("next")),
        "{run}"
    );
    assert_eq!(run["error"]["code"], "concurrency_deadlock", "{run}");
}

#[test]
fn a_rate_admits_so_many_at_once_then_one_at_a_time_and_a_restart_gives_nothing_away() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options::serve(directory.path()).set("cores.runner", "2");
    let node = Node::start(&options);
    let mut client = node.client();
    let limits = json!({"rate": {"key": "all", "max": 4, "per": "2s"}});
    let nothing = json!({"a": {"type": "function"}});
    register(&mut client, "paced", &limits, &nothing);
    let begun = jiff::Timestamp::now().as_millisecond();
    let ids: Vec<_> = (0..9).map(|_| id(&start(&mut client, "paced", &json!({})))).collect();
    let last = get(&mut client, &ids[8])["waiting"].clone();
    assert_eq!((last["reason"].as_str(), last["per_ms"].as_u64()), (Some("rate"), Some(2_000)), "{last}");
    ended(&mut client, &ids[3]);
    node.kill();

    let node = Node::start(&options);
    let mut client = node.client();
    let mut admitted = Vec::new();
    for run_id in &ids {
        assert_eq!(ended(&mut client, run_id)["status"], "completed");
        let page = client.get(&format!("/v1/runs/{run_id}/timeline")).expect(200).json();
        let events = page["events"].as_array().unwrap();
        let event = events.iter().find(|event| event["type"] == "run.admitted").unwrap();
        let at: jiff::Timestamp = event["at"].as_str().unwrap().parse().unwrap();
        admitted.push(at.as_millisecond() - begun);
    }
    // The moment of an event is never before that of its admission, and on a busy machine a good deal later, on one core
    // later than on the other: what can be held to is that nothing comes too early, counted from before the first. That
    // holds to the order as well, since whoever came before its turn was too early.
    for (place, at) in admitted.iter().enumerate().skip(4) {
        let earliest = (i64::try_from(place).unwrap() - 3) * 500 - 5;
        assert!(*at >= earliest, "{place} at {at}: {admitted:?}");
    }
}
