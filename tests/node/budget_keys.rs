//! More budget under an `Idempotency-Key`: sent twice it is given once, and once only is the run resumed by it.

use serde_json::{Value, json};

use crate::agents::{options, stub};
use crate::harness::{Client, Node};

fn given(client: &mut Client, run_id: &str) -> Vec<Value> {
    let page = client.get(&format!("/v1/runs/{run_id}/timeline?limit=1000")).expect(200).json();
    let events = page["events"].as_array().unwrap().iter();
    events.filter(|event| event["type"] == "budget.raised").cloned().collect()
}

fn run(client: &mut Client, run_id: &str, wait: &str) -> Value {
    let path = format!("/v1/runs/{run_id}");
    client.request("GET", &path, &[("prefer", wait)], b"").unwrap().expect(200).json()
}

// F403, N7
#[test]
fn more_budget_under_a_key_is_given_once_across_kill_9_and_the_runs_end() {
    let (directory, stub) = (tempfile::tempdir().unwrap(), stub());
    let options = options(directory.path(), &stub);
    let node = Node::start(&options);
    let mut client = node.client();
    let ask = json!({"type": "agent", "with": {"task": "[[say: dear]]"}});
    let hold = json!({"type": "wait", "needs": ["ask"], "with": {"signal": "go"}});
    let workflow = json!({"name": "dear", "limits": {"budget": {"usd": "0.0001", "on_breach": "pause"}},
        "nodes": {"ask": ask, "hold": hold}});
    client.post("/v1/workflows", &workflow).expect(201);
    let run_id = client.post("/v1/runs", &json!({"workflow": "dear"})).expect(202).json()["run_id"].clone();
    let run_id = run_id.as_str().unwrap();
    while run(&mut client, run_id, "wait=0")["status"] != "paused" {}
    let path = format!("/v1/runs/{run_id}/budget");
    let more = json!({"usd": "0.5", "reason": "worth it", "resume": true});
    let key = [("idempotency-key", "raise-1")];
    let first = client.post_with(&path, &key, &more).unwrap().expect(202);
    assert_eq!((first.header("idempotent-replayed"), &first.json()["status"]), (None, &json!("running")));
    // What it says counts, not how it is spelt.
    let spelt = json!({"resume": true, "usd": 0.50, "tokens": null, "reason": "worth it"});
    let again = client.post_with(&path, &key, &spelt).unwrap().expect(202);
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    let line = |answer: &Value| ["run_id", "status", "seq"].map(|member| answer[member].clone());
    assert_eq!(line(&again.json()), line(&first.json()), "as it was then");
    let other = json!({"usd": "5", "reason": "worth it", "resume": true});
    let reused = client.post_with(&path, &key, &other).unwrap().expect(422).json();
    assert_eq!(reused["code"], "idempotency_key_reused");
    assert_eq!(given(&mut client, run_id).len(), 1);

    // A pause that came later is somebody else's.
    while stub.stats()["finished"] != 1 {}
    client.post(&format!("/v1/runs/{run_id}/pause"), &json!({})).expect(202);
    node.kill();
    let node = Node::start(&options);
    let mut client = node.client();
    let again = client.post_with(&path, &key, &more).unwrap().expect(202);
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    assert_eq!(run(&mut client, run_id, "wait=0")["status"], "paused");
    let shown = client.get(&format!("/v1/runs/{run_id}/cost")).expect(200).json();
    assert_eq!(shown["budget"]["raised_usd"], "0.50", "{shown}");
    // Without a key it is another one.
    client.post(&path, &json!({"usd": "0.5", "reason": "worth it"})).expect(202);
    assert_eq!(given(&mut client, run_id).len(), 2);
    client.post(&format!("/v1/runs/{run_id}/resume"), &json!({})).expect(202);
    client.post(&format!("/v1/runs/{run_id}/signals/go"), &json!({}));
    assert_eq!(run(&mut client, run_id, "wait=60")["status"], "completed");
    let over = client.post_with(&path, &key, &more).unwrap();
    assert_eq!(over.header("idempotent-replayed"), Some("true"), "{}", over.status);
    client.post(&path, &more).expect(409);
    // The record says why the run went on: decided again, it is the same.
    let (code, said, wrong) = super::replay::aob(Some(&node), &["replay", run_id, "--mode", "freeze"]);
    assert_eq!(code, 0, "{said} {wrong}");
}
