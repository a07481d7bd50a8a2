//! A provider that sheds load while it answers others: its callers wait as it says, and nobody leaves it alone for that.

use serde_json::json;

use crate::agents::{options, stub};
use crate::harness::Node;

// F364, F373, F388
#[test]
fn a_burst_of_refusals_is_waited_out_and_opens_no_breaker() {
    let (directory, stub) = (tempfile::tempdir().unwrap(), stub());
    // More in a row, and at once, than failures open a breaker.
    stub.script(&json!({"rules": [
        {"when": {"nth": {"to": 12}}, "do": {"status": 529, "retry_after": 0}},
        {"when": {"nth": {"to": 12}}, "do": {"status": 429, "retry_after": 0}},
    ]}))
    .unwrap();
    let node = Node::start(&options(directory.path(), &stub));
    let mut client = node.client();
    let ask = json!({"type": "agent", "with": {"task": "[[say: ${ item }]]"},
        "retry": {"max_attempts": 25, "initial": "1ms", "backoff": "fixed", "jitter": false}});
    let each = json!({"type": "map", "with": {"over": "inputs.items", "max_concurrency": 10, "body": ask}});
    client.post("/v1/workflows", &json!({"name": "burst", "nodes": {"each": each}})).expect(201);
    let items: Vec<u32> = (0..10).collect();
    let body = json!({"workflow": "burst", "inputs": {"items": items}});
    let run = client.post("/v1/runs", &body).expect(202).json();
    let path = format!("/v1/runs/{}", run["run_id"].as_str().unwrap());
    let run = client.request("GET", &path, &[("prefer", "wait=60")], b"").unwrap().expect(200).json();
    assert_eq!(run["status"], "completed", "{run}");
    let stats = stub.stats();
    assert_eq!((&stats["by_status"]["529"], &stats["by_status"]["429"]), (&json!(12), &json!(12)), "{stats}");
    let metrics = String::from_utf8(client.get("/metrics").expect(200).body).unwrap();
    let state = "aob_breaker_state{service=\"openai/big\"} 0";
    assert!(metrics.contains(state), "{metrics}");
    // It would have been refused without a call.
    assert!(!metrics.contains("circuit_breaker_open"), "{metrics}");
    let timeline = client.get(&format!("{path}/timeline?limit=1000")).expect(200).json().to_string();
    assert!(!timeline.contains("circuit_breaker_open") && timeline.contains("overloaded"), "{timeline}");
}
