//! Child runs: started once, on any shard, and their end is their node's, whatever dies in between.

use serde_json::{Value, json};

use crate::harness::{Client, Node, Options};

/// Several shards, so that parents and children have different owners.
fn options(directory: &std::path::Path) -> Options {
    Options::serve(directory).set("cores.runner", "2")
}

fn register(client: &mut Client, name: &str, nodes: &Value) {
    client.post("/v1/workflows", &json!({"name": name, "nodes": nodes})).expect(201);
}

/// `parent` runs as many `workflow`s as its inputs have items.
fn parent_of(client: &mut Client, workflow: &str, parent_close: &str) {
    let sub = json!({"type": "composite", "with": {"workflow": workflow, "parent_close": parent_close}});
    let each = json!({"type": "map", "with": {"over": "inputs.items", "body": sub}});
    register(client, "parent", &json!({"each": each}));
}

fn start(client: &mut Client, workflow: &str, inputs: &Value) -> String {
    let run = client.post("/v1/runs", &json!({"workflow": workflow, "inputs": inputs})).expect(202).json();
    run["run_id"].as_str().unwrap().to_owned()
}

fn ended(client: &mut Client, run_id: &str) -> Value {
    let path = format!("/v1/runs/{run_id}");
    client.request("GET", &path, &[("prefer", "wait=30")], b"").unwrap().expect(200).json()
}

/// Runs of a workflow, once there are `count` of them.
fn runs_of(client: &mut Client, workflow: &str, count: usize) -> Vec<Value> {
    for _ in 0..100_000 {
        let page = client.get(&format!("/v1/runs?workflow={workflow}&limit=100")).expect(200).json();
        let runs = page["runs"].as_array().unwrap().clone();
        if runs.len() >= count {
            return runs;
        }
    }
    panic!("there are not {count} runs of {workflow}");
}

// F025
#[test]
fn a_child_run_gives_its_outputs_to_the_node_that_waits_for_it() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&options(directory.path()));
    let mut client = node.client();
    register(&mut client, "double", &json!({"out": {"type": "function", "with": {"expr": "inputs * 2"}}}));
    parent_of(&mut client, "double", "cancel");
    let run_id = start(&mut client, "parent", &json!({"items": [1, 2, 3, 4, 5, 6, 7, 8]}));
    let run = ended(&mut client, &run_id);
    let expected: Vec<_> = (1..=8).map(|n| json!({"out": 2 * n})).collect();
    assert_eq!(run["outputs"]["each"], json!(expected), "{run}");
    let children = runs_of(&mut client, "double", 8);
    assert_eq!(children.len(), 8);
    let child = client.get(&format!("/v1/runs/{}", children[0]["run_id"].as_str().unwrap())).expect(200);
    assert_eq!(child.json()["parent"], run_id.as_str());
}

#[test]
fn a_child_that_fails_or_cannot_be_started_fails_its_node_under_its_own_code() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&options(directory.path()));
    let mut client = node.client();
    register(
        &mut client,
        "broken",
        &json!({"out": {"type": "function", "with": {"expr": "1 / (inputs - inputs)"}}}),
    );
    register(&mut client, "calls", &json!({"out": {"type": "http"}}));
    let strict =
        json!({"name": "strict", "inputs": {"type": "object"}, "nodes": {"a": {"type": "function"}}});
    client.post("/v1/workflows", &strict).expect(201);
    let again = json!({"type": "composite", "with": {"workflow": "again"}});
    register(&mut client, "again", &json!({"deeper": again}));
    for (index, (workflow, code)) in [
        ("broken", "division_by_zero"),
        ("nowhere", "workflow_not_found"),
        ("broken@7", "workflow_not_found"),
        ("calls", "workflow_unstartable"),
        ("strict", "invalid_inputs"),
        ("again", "child_depth_max"),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("parent{index}");
        let sub = json!({"type": "composite", "with": {"workflow": workflow}});
        register(&mut client, &name, &json!({"sub": sub}));
        let run_id = start(&mut client, &name, &json!(5));
        let run = ended(&mut client, &run_id);
        assert_eq!((run["status"].as_str(), run["failed_node"].as_str()), (Some("failed"), Some("sub")));
        let found = run["error"]["code"].as_str().unwrap();
        assert!(found == code || workflow == "broken" && found.contains("expression"), "{workflow}: {run}");
    }
}

// F025, I-17
#[test]
fn parents_and_children_survive_kill_9_and_end_once() {
    let directory = tempfile::tempdir().unwrap();
    let options = options(directory.path());
    let node = Node::start(&options);
    let mut client = node.client();
    let held = json!({
        "hold": {"type": "wait", "with": {"signal": "go"}},
        "out": {"type": "function", "with": {"expr": "inputs * 10 + input"}, "needs": ["hold"]}
    });
    register(&mut client, "held", &held);
    parent_of(&mut client, "held", "cancel");
    let run_id = start(&mut client, "parent", &json!({"items": [1, 2, 3, 4]}));
    let children = runs_of(&mut client, "held", 4);
    node.kill();

    // Both are waiting; half of the children end in this life, and the node dies again.
    let node = Node::start(&options);
    let mut client = node.client();
    for child in &children[..2] {
        let child = child["run_id"].as_str().unwrap();
        client.post(&format!("/v1/runs/{child}/signals/go"), &json!({"payload": 5}));
    }
    node.kill();

    let node = Node::start(&options);
    let mut client = node.client();
    for child in &children[2..] {
        let child = child["run_id"].as_str().unwrap();
        client.post(&format!("/v1/runs/{child}/signals/go"), &json!({"payload": 5}));
    }
    let run = ended(&mut client, &run_id);
    let expected: Vec<_> = (1..=4).map(|n| json!({"out": 10 * n + 5})).collect();
    assert_eq!(run["outputs"]["each"], json!(expected), "{run}");
    assert_eq!(runs_of(&mut client, "held", 4).len(), 4, "no child was started twice");
}

#[test]
fn a_child_is_cancelled_with_its_parent_unless_it_was_to_be_left_alone() {
    for (parent_close, status) in [("cancel", "cancelled"), ("abandon", "running")] {
        let directory = tempfile::tempdir().unwrap();
        let options = options(directory.path());
        let node = Node::start(&options);
        let mut client = node.client();
        register(&mut client, "held", &json!({"hold": {"type": "wait", "with": {"signal": "go"}}}));
        parent_of(&mut client, "held", parent_close);
        let run_id = start(&mut client, "parent", &json!({"items": [1]}));
        let children = runs_of(&mut client, "held", 1);
        let child = children[0]["run_id"].as_str().unwrap();
        client.post(&format!("/v1/runs/{run_id}/cancel"), &json!({}));
        assert_eq!(ended(&mut client, &run_id)["status"], "cancelled");
        if status == "cancelled" {
            assert_eq!(ended(&mut client, child)["status"], status);
        } else {
            client.post(&format!("/v1/runs/{child}/signals/go"), &json!({}));
            assert_eq!(ended(&mut client, child)["status"], "completed");
        }
    }
}
