//! Runs in fast mode: they write less, do the same, and come back from it.

use serde_json::{Value, json};

use crate::harness::{Client, Node, Options, chain};

fn ended(client: &mut Client, run_id: &str) -> Value {
    let path = format!("/v1/runs/{run_id}");
    client.request("GET", &path, &[("prefer", "wait=30")], b"").unwrap().expect(200).json()
}

fn timeline(client: &mut Client, run_id: &str) -> Vec<Value> {
    let page = client.get(&format!("/v1/runs/{run_id}/timeline?limit=1000")).expect(200).json();
    page["events"].as_array().unwrap().clone()
}

fn types(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["type"].as_str().unwrap()).collect()
}

fn start(client: &mut Client, body: &Value) -> String {
    client.post("/v1/runs", body).expect(202).json()["run_id"].as_str().unwrap().to_owned()
}

fn states(client: &mut Client, run_id: &str) -> Vec<String> {
    let graph = client.get(&format!("/v1/runs/{run_id}/graph")).expect(200).json();
    graph["nodes"].as_object().unwrap().values().map(|node| node["state"].as_str().unwrap().into()).collect()
}

// F242, F247: the mode of a workflow, and of one run of it.
#[test]
fn a_fast_run_writes_three_events_and_gives_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&Options::serve(directory.path()));
    let mut client = node.client();
    client.post("/v1/workflows", &chain("full", 5)).expect(201);
    let mut document = chain("fast", 5);
    document["mode"] = json!("fast");
    client.post("/v1/workflows", &document).expect(201);
    let fast = start(&mut client, &json!({"workflow": "fast", "inputs": {"n": 1}}));
    let full = start(&mut client, &json!({"workflow": "full", "inputs": {"n": 1}}));
    let asked = start(&mut client, &json!({"workflow": "full", "inputs": {"n": 1}, "mode": "fast"}));
    let back = start(&mut client, &json!({"workflow": "fast", "inputs": {"n": 1}, "mode": "full"}));
    for run_id in [&fast, &full, &asked, &back] {
        let run = ended(&mut client, run_id);
        assert_eq!((run["status"].as_str(), &run["outputs"]["n"]), (Some("completed"), &json!(6)));
        assert_eq!(states(&mut client, run_id), ["completed"; 5], "{run}");
    }
    let written = timeline(&mut client, &fast);
    assert_eq!(types(&written), ["run.started", "events.derived", "run.completed"]);
    assert_eq!((&written[1]["count"], &written[2]["seq"]), (&json!(10), &json!(3)));
    let started = ["run.started", "mode.changed", "events.derived", "run.completed"];
    assert_eq!(types(&timeline(&mut client, &asked)), started);
    assert_eq!(timeline(&mut client, &full).len(), 12);
    assert_eq!(timeline(&mut client, &back).len(), 13);
    let metrics = String::from_utf8(client.get("/metrics").expect(200).body).unwrap();
    let completed: u64 = metrics
        .lines()
        .filter(|line| line.starts_with("aob_nodes_completed_total"))
        .map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
        .sum();
    assert_eq!(completed, 20, "nodes are counted, written down or not");
    let wrong = client.post("/v1/runs", &json!({"workflow": "full", "mode": "swift"})).expect(400).json();
    assert_eq!(wrong["errors"][0]["pointer"], "/mode");
    node.kill();
    let node = Node::start(&Options::serve(directory.path()));
    let mut client = node.client();
    assert_eq!(timeline(&mut client, &fast), written);
    assert_eq!(states(&mut client, &fast), ["completed"; 5]);
}

// F242, I-17: a run in fast mode that is under way comes back, with what it had decided.
#[test]
fn a_fast_run_goes_on_after_a_kill() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&Options::serve(directory.path()));
    let mut client = node.client();
    let document = json!({
        "aob": "1", "name": "pause", "mode": "fast",
        "nodes": {
            "before": {"type": "function", "with": {"expr": "inputs.n + 1"}},
            "each": {"type": "map", "with": {"over": "[1, 2, 3]", "body": {"type": "function", "with": {"expr": "item * 10"}}}},
            "go": {"type": "wait", "with": {"signal": "go"}},
            "after": {"type": "function", "with": {"expr": "nodes.before.output + nodes.each.output[2] + input.more"}},
        },
        "edges": [{"from": "before", "to": "each"}, {"from": "each", "to": "go"}, {"from": "go", "to": "after"}],
        "outputs": {"n": "${ nodes.after.output }"},
    });
    client.post("/v1/workflows", &document).expect(201);
    let run_id = start(&mut client, &json!({"workflow": "pause", "inputs": {"n": 1}}));
    let before = client.get(&format!("/v1/runs/{run_id}/graph")).expect(200).json();
    assert_eq!(before["nodes"]["go"]["state"], "waiting", "{before}");
    let written = timeline(&mut client, &run_id);
    assert_eq!(types(&written), ["run.started", "events.derived", "node.waiting"]);
    node.kill();
    let node = Node::start(&Options::serve(directory.path()));
    let mut client = node.client();
    let after = client.get(&format!("/v1/runs/{run_id}/graph")).expect(200).json();
    assert_eq!((&before["nodes"], &before["seq"]), (&after["nodes"], &after["seq"]));
    client.post(&format!("/v1/runs/{run_id}/signals/go"), &json!({"payload": {"more": 5}})).expect(200);
    assert_eq!(ended(&mut client, &run_id)["outputs"]["n"], 37);
    let told = timeline(&mut client, &run_id);
    assert_eq!(told[..3], written);
    assert_eq!(types(&told)[3..], ["signal.received", "events.derived", "run.completed"]);
    assert_eq!(states(&mut client, &run_id), ["completed"; 4]);
}
