//! Why a node does not run: each reason, as the node says it and as `aob run explain` does.

use std::net::TcpListener;

use serde_json::{Value, json};

use crate::harness::{Client, Node, Options};

fn start(client: &mut Client, workflow: &Value) -> String {
    client.post("/v1/workflows", workflow).expect(201);
    let run = client.post("/v1/runs", &json!({"workflow": workflow["name"]})).expect(202).json();
    run["run_id"].as_str().unwrap().to_owned()
}

/// The graph once this holds of its nodes.
fn graph(client: &mut Client, run_id: &str, holds: impl Fn(&Value) -> bool) -> Value {
    for _ in 0..100_000 {
        let graph = client.get(&format!("/v1/runs/{run_id}/graph")).expect(200).json();
        if holds(&graph["nodes"]) {
            return graph;
        }
    }
    panic!("never: {}", client.get(&format!("/v1/runs/{run_id}/graph")).json()["nodes"]);
}

fn explained(node: &Node, run_id: &str) -> String {
    let told = std::process::Command::new(env!("CARGO_BIN_EXE_aob"))
        .args(["--url", &format!("http://{}", node.address), "run", "explain", run_id])
        .output()
        .unwrap();
    assert!(told.status.success(), "{told:?}");
    String::from_utf8(told.stdout).unwrap()
}

#[test]
fn every_node_that_does_not_run_says_why() {
    // It takes connections and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let service = silent.local_addr().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let options = Options::serve(directory.path())
        .set("http.allow", "127.0.0.1")
        .set("http.calls_per_host_max", "1")
        .set("workers.queue_limits", "q = 1");
    let node = Node::start(&options);
    let mut client = node.client();
    let held = json!({"name": "held", "nodes": {"stay": {"type": "wait", "with": {"signal": "go"}}}});
    client.post("/v1/workflows", &held).expect(201);
    let task = |priority: &str| {
        json!({"type": "task", "priority": priority, "timeout": "1h", "with": {"queue": "q"},
            "retry": {"max_attempts": 3, "backoff": "fixed", "initial": "1h", "max": "1h"}})
    };
    let call = || json!({"type": "http", "with": {"url": format!("http://{service}/")}});
    let workflow = json!({
        "name": "all",
        "nodes": {
            "pause": {"type": "delay", "with": {"for": "1h"}},
            "ask": {"type": "human_review", "timeout": "2h", "with": {"reviewers": ["ops", "lead"]}},
            "hear": {"type": "wait", "with": {"signal": "go"}},
            "first": task("high"), "second": task("medium"), "third": task("low"),
            "call1": call(), "call2": call(),
            "below": {"type": "composite", "with": {"workflow": "held"}},
            "each": {"type": "map", "with": {"over": "[1, 2]",
                "body": {"type": "wait", "with": {"signal": "never"}}}},
            "after": {"type": "join", "with": {"wait": "all"}, "needs": ["pause", "hear"], "priority": "low"}
        }
    });
    let run_id = start(&mut client, &workflow);
    let reason =
        |nodes: &Value, node: &str| nodes[node]["waiting"]["reason"].as_str().unwrap_or("").to_owned();
    let calls = |nodes: &Value| {
        let mut reasons = ["call1", "call2"].map(|call| reason(nodes, call));
        reasons.sort();
        reasons == ["answer", "http_slot"] && nodes["third"]["waiting"]["ahead"] == 2
    };
    let nodes = graph(&mut client, &run_id, calls)["nodes"].clone();
    let until = |node: &str| nodes[node]["waiting"]["until"].as_str().map(str::to_owned);
    for (node, why) in [
        ("pause", json!({"reason": "timer", "until": until("pause").unwrap()})),
        (
            "ask",
            json!({"reason": "human", "reviewers": ["ops", "lead"], "until": until("ask").unwrap(),
                "ticket": nodes["ask"]["waiting"]["ticket"].as_str().unwrap()}),
        ),
        ("hear", json!({"reason": "signal", "signal": "go"})),
        ("each", json!({"reason": "passes"})),
        ("after", json!({"reason": "edges", "nodes": ["hear", "pause"]})),
    ] {
        assert_eq!(nodes[node]["waiting"], why, "{node}");
    }
    for (ahead, node) in ["first", "second", "third"].into_iter().enumerate() {
        let mut why = nodes[node]["waiting"].clone();
        why.as_object_mut().unwrap().remove("until").unwrap();
        let wanted = json!({"reason": "worker", "queue": "q", "ahead": ahead, "leased": 0, "max": 1});
        assert_eq!(why, wanted, "{node}");
    }
    assert_eq!((&nodes["first"]["priority"], &nodes["after"]["priority"]), (&json!("high"), &json!("low")));
    let queued = ["call1", "call2"].into_iter().find(|call| reason(&nodes, call) == "http_slot").unwrap();
    let why = &nodes[queued]["waiting"];
    assert_eq!((&why["limit"], &why["max"]), (&json!("http.calls_per_host_max"), &json!(1)));
    assert_eq!(why["host"], service.to_string());
    let nodes = graph(&mut client, &run_id, |nodes| reason(nodes, "below") == "child")["nodes"].clone();
    let child = nodes["below"]["waiting"]["run_id"].as_str().unwrap();
    // The run names its child before it has asked for it.
    let child_run = loop {
        let answer = client.get(&format!("/v1/runs/{child}"));
        if answer.status != 404 {
            break answer.expect(200).json();
        }
    };
    assert_eq!(child_run["parent"], run_id.as_str());

    // A worker has one, fails it, and takes the next.
    let poll = json!({"queues": ["q"], "max": 5, "wait_ms": 30_000, "worker": "w"});
    let jobs = client.post("/v1/workers/poll", &poll).expect(200).json();
    assert_eq!(jobs["jobs"].as_array().unwrap().len(), 1);
    let nodes = graph(&mut client, &run_id, |nodes| nodes["first"]["state"] == "running")["nodes"].clone();
    assert_eq!(nodes["first"].get("waiting"), None, "it runs");
    let second = &nodes["second"]["waiting"];
    assert_eq!((&second["ahead"], &second["leased"], &second["max"]), (&json!(0), &json!(1), &json!(1)));
    let told = explained(&node, &run_id);
    for line in [
        "What it waits for",
        "hear, pause to settle  (priority low)",
        "a worker of queue q, 0 ahead of it, 1 of 1 leased, until ",
        "signal go",
        "a decision of ops, lead, until ",
        "a place: 1 calls to 127.0.0.1:",
        "the answer of 127.0.0.1:",
        &format!("the end of {child}"),
    ] {
        assert!(told.contains(line), "{line:?} in {told}");
    }
    let failed = json!({"failures": [{"lease": jobs["jobs"][0]["lease"],
        "error": {"code": "busy", "message": "no", "class": "transient"}}]});
    client.post("/v1/workers/fail", &failed).expect(200);
    let nodes = graph(&mut client, &run_id, |nodes| nodes["first"]["state"] == "retrying")["nodes"].clone();
    assert_eq!(reason(&nodes, "first"), "retry");
    assert!(nodes["first"]["waiting"]["until"].is_string());

    // Paused: what is ready, and what no worker has taken, waits for the pause to end.
    client.post(&format!("/v1/runs/{run_id}/pause"), &json!({})).expect(202);
    client.post(&format!("/v1/runs/{run_id}/signals/go"), &json!({})).expect(202);
    let nodes = graph(&mut client, &run_id, |nodes| nodes["hear"]["state"] == "completed")["nodes"].clone();
    assert_eq!(nodes["after"]["waiting"], json!({"reason": "edges", "nodes": ["pause"]}));
    assert_eq!(nodes["second"]["waiting"]["reason"], "paused");
}

#[test]
fn a_paused_and_a_pending_run_say_why_their_entries_do_not_start() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&Options::serve(directory.path()));
    let mut client = node.client();
    let nodes = json!({"hold": {"type": "wait", "with": {"signal": "go"}}, "next": {"type": "wait", "needs": ["hold"], "with": {"signal": "on"}}});
    let limits = json!({"concurrency": {"key": "k", "max": 1}});
    let first = start(&mut client, &json!({"name": "one", "nodes": nodes, "limits": limits}));
    let held = |nodes: &Value| nodes["hold"]["state"] == "waiting";
    graph(&mut client, &first, held);
    let run = client.post("/v1/runs", &json!({"workflow": "one"})).expect(202).json();
    let second = run["run_id"].as_str().unwrap();
    let waits = graph(&mut client, second, |nodes| nodes["hold"]["waiting"]["reason"] == "admission");
    assert_eq!(waits["nodes"]["next"]["waiting"], json!({"reason": "edges", "nodes": ["hold"]}));
    assert_eq!(
        waits["waiting"],
        json!({"reason": "concurrency", "key": "k", "max": 1, "held": 1, "holders": [first], "ahead": 0})
    );
    let told = explained(&node, second);
    assert!(told.contains(&format!("key k has 1, 1 taken (by {first}), 0 ahead of it")), "{told}");
    assert!(told.contains("the run to be admitted"), "{told}");

    // A run that is paused before it was admitted waits for that first.
    client.post(&format!("/v1/runs/{second}/pause"), &json!({})).expect(202);
    graph(&mut client, second, |nodes| nodes["hold"]["waiting"]["reason"] == "paused");
    client.post(&format!("/v1/runs/{first}/pause"), &json!({})).expect(202);
    client.post(&format!("/v1/runs/{first}/signals/go"), &json!({})).expect(202);
    graph(&mut client, &first, |nodes| nodes["next"]["waiting"]["reason"] == "paused");
}
