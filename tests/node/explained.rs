//! A failure that was planted, end to end: an agent patches its run, the node that it added fails, and `aob run explain` says
//! where, by what code, whose patch that was, and what all of it cost - as the ledger has it, and as the provider counted.

use std::process::Command;

use serde_json::{Value, json};

use crate::agents::{options, stub};
use crate::harness::Node;

fn explained(node: &Node, arguments: &[&str]) -> String {
    let url = format!("http://{}", node.address);
    let out = Command::new(env!("CARGO_BIN_EXE_aob"))
        .args(["--url", &url, "run", "explain"])
        .args(arguments)
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

/// Dollars as the API writes them, in billionths.
fn nanos(amount: &Value) -> u64 {
    let text = amount.as_str().unwrap_or_else(|| panic!("no amount: {amount}"));
    let (whole, places) = text.split_once('.').unwrap_or((text, ""));
    format!("{whole}{places:0<9}").parse().unwrap()
}

// F341, F031, F402
#[test]
fn a_failure_that_an_agent_planted_is_explained_with_its_author_and_its_cost() {
    let (directory, stub) = (tempfile::tempdir().unwrap(), stub());
    let node = Node::start(&options(directory.path(), &stub));
    let mut client = node.client();
    let patch = json!({
        "justification": "the sum must be divided",
        "operations": [
            {"op": "add", "path": "/nodes/planted", "value":
                {"type": "function", "with": {"expr": "1 / (inputs.n - 1)"}}},
            {"op": "add", "path": "/edges/review~1planted", "value": {"from": "review", "to": "planted"}},
        ]
    });
    let how = format!("[[patch: {patch}]] [[usage: 700, 30]] [[turn]] [[say: planned]] [[usage: 900, 11]]");
    let workflow = json!({
        "name": "planted",
        "agents": {"planner": {"model": "big", "tools": ["patch"]}, "reviewer": {"model": "small"}},
        "nodes": {
            "plan": {"type": "agent", "with": {"role": "planner", "task": "Plan. ${ inputs.how }"}},
            "review": {"type": "agent", "needs": ["plan"], "with": {"role": "reviewer",
                "task": "[[say: good]] [[usage: 50, 5]]"}},
        }
    });
    client.post("/v1/workflows", &workflow).expect(201);
    let body = json!({"workflow": "planted", "inputs": {"n": 1, "how": how}});
    let run = client.post("/v1/runs", &body).expect(202).json();
    let run_id = run["run_id"].as_str().unwrap();
    let path = format!("/v1/runs/{run_id}");
    let run = client.request("GET", &path, &[("prefer", "wait=60")], b"").unwrap().expect(200).json();
    assert_eq!((&run["status"], &run["failed_node"]), (&json!("failed"), &json!("planted")), "{run}");

    let told: Value = serde_json::from_str(&explained(&node, &[run_id, "-o", "json"])).unwrap();
    let failure = &told["failure"];
    assert_eq!(failure["node"], "planted", "{told}");
    assert_eq!(failure["error"]["code"], "expression_division_by_zero", "{told}");
    let patched = &told["patched"];
    assert_eq!(patched["author"], "agent:planner", "{told}");
    assert_eq!(patched["justification"], "the sum must be divided", "{told}");
    let agents = told["agents"].as_array().unwrap();
    assert_eq!(agents.iter().map(|agent| &agent["node"]).collect::<Vec<_>>(), ["plan", "review"]);
    assert_eq!(agents[0]["tools"], json!({"propose_patch": 1}), "{told}");

    // Three counts of one sum: what explain says, what the ledger has, what the provider served at the models' price.
    let ledger = client.get(&format!("/v1/runs/{run_id}/cost")).expect(200).json();
    let stats = stub.stats();
    let tokens = &stats["tokens"];
    let served = tokens["in"].as_u64().unwrap() * 1_000 + tokens["out"].as_u64().unwrap() * 2_000;
    assert_eq!((stats["calls"].as_u64(), ledger["answers"].as_u64()), (Some(3), Some(3)));
    assert_eq!((nanos(&told["spent"]["usd"]), nanos(&ledger["usd"])), (served, served), "{ledger}");
    assert!(served > 0 && nanos(&ledger["unknown_usd"]) == 0, "{ledger}");

    let text = explained(&node, &[run_id]);
    let usd = ledger["usd"].as_str().unwrap();
    for part in ["planted", "expression_division_by_zero", "by agent:planner: the sum must be divided", usd] {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
}
