//! I-18: whatever happens to a run, what it has spent and reserved never comes to more than its budget, and its ledger is what
//! the provider counted. Recounted from the timeline, with nothing of the node's own arithmetic.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::agents::{options, stub};
use crate::harness::{Client, Node};

/// Billionths of a dollar.
pub(crate) fn nanos(amount: &Value) -> u64 {
    let text = amount.as_str().unwrap_or_else(|| panic!("no amount: {amount}"));
    let (whole, places) = text.split_once('.').unwrap_or((text, ""));
    format!("{whole}{places:0<9}").parse().unwrap()
}

pub(crate) fn whole_timeline(client: &mut Client, run_id: &str) -> Vec<Value> {
    let (mut events, mut cursor) = (Vec::new(), String::new());
    loop {
        let path = format!("/v1/runs/{run_id}/timeline?limit=1000{cursor}");
        let page = client.get(&path).expect(200).json();
        events.extend(page["events"].as_array().unwrap().iter().cloned());
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return events,
        }
    }
}

/// What a ledger comes to.
#[derive(Debug, Default, PartialEq)]
struct Recount {
    /// By answers.
    answered: u64,
    answers: u64,
    /// Of calls of which nobody knows.
    unknown: u64,
    most: u64,
    refused: u64,
}

/// Goes through a run's events.
fn recount(events: &[Value], limit: u64) -> Recount {
    let unbilled = ["rate_limited", "overloaded", "circuit_breaker_open"];
    let mut reserved: BTreeMap<String, u64> = BTreeMap::new();
    let mut count = Recount::default();
    for event in events {
        let node = event["node"].as_str().unwrap_or_default().to_owned();
        match event["type"].as_str().unwrap() {
            "model.called" => {
                let before = reserved.insert(node, nanos(&event["reserved_usd"]));
                assert_eq!(before, None, "two calls at once: {event}");
            }
            "model.answered" => {
                let held = reserved.remove(&node).unwrap_or_else(|| panic!("never reserved: {event}"));
                let cost = nanos(&event["cost_usd"]);
                assert!(cost <= held, "it cost more than was reserved: {event}");
                count.answered += cost;
                count.answers += 1;
            }
            "node.retry_scheduled" | "node.failed" | "node.lost" => {
                let code = event["error"]["code"].as_str().unwrap_or_default();
                if let Some(held) = reserved.remove(&node)
                    && !unbilled.contains(&code)
                {
                    count.unknown += held;
                }
            }
            "budget.exceeded" => count.refused += 1,
            _ => {}
        }
        let used = count.answered + count.unknown + reserved.values().sum::<u64>();
        assert!(used <= limit, "{used} of {limit} at {event}");
        count.most = count.most.max(used);
    }
    assert!(reserved.is_empty(), "still reserved: {reserved:?}");
    count
}

/// A thousand agents side by side, of which each answers at a price of its own; every so many-th call fails.
pub(crate) fn crowd(limit: &str, count: u64) -> (Value, Value) {
    let agent = json!({"type": "agent", "with": {"task": "${ item }", "max_output_tokens": 500},
        "retry": {"max_attempts": 5, "initial": "5ms", "backoff": "fixed", "jitter": false}});
    let workflow = json!({
        "name": "crowd",
        "limits": {"budget": {"usd": limit}},
        "nodes": {"each": {"type": "map", "with": {"over": "inputs.items", "on_item_error": "collect",
            "max_concurrency": 1000, "body": agent}}}
    });
    let item = |number: u64| {
        let output = number.wrapping_mul(2_654_435_761) % 500;
        format!("[[say: {number}]] [[usage: {}, {}]]", 1 + number % 20, 1 + output % 490)
    };
    (workflow, json!((0..count).map(item).collect::<Vec<_>>()))
}

/// Calls at once, where the node is killed among them: what is lost with them counts in full.
const UNDER_WAY: u64 = 20;

fn played(kills: u64) {
    let (directory, stub) = (tempfile::tempdir().unwrap(), stub());
    stub.script(&json!({"rules": [
        {"when": {"nth": {"every": 60}}, "do": {"status": 529, "retry_after": 0, "delay_ms": 5}},
        {"do": {"delay_ms": if kills == 0 { 5 } else { 100 }}},
    ]}))
    .unwrap();
    let provider = format!(
        r#"{{kind = "openai", base_url = "{}", max_in_flight = {}}}"#,
        stub.url(),
        if kills == 0 { 1_000 } else { UNDER_WAY }
    );
    let options = options(directory.path(), &stub).set("models.providers.openai", &provider);
    let mut node = Node::start(&options);
    // In both, less than all would take: some are to be refused.
    let limit = if kills == 0 { "0.60" } else { "0.35" };
    let (workflow, items) = crowd(limit, 1_000);
    let mut client = node.client();
    client.post("/v1/workflows", &workflow).expect(201);
    let body = json!({"workflow": "crowd", "inputs": {"items": items}});
    let run = client.post("/v1/runs", &body).expect(202).json();
    let run_id = run["run_id"].as_str().unwrap().to_owned();
    // Fewer than the breaker takes for an outage, however they come.
    for round in 1..=kills {
        // Answers have come, and the run is not over.
        while stub.stats()["finished"].as_u64().unwrap() < UNDER_WAY * round {
            let status = client.get(&format!("/v1/runs/{run_id}")).expect(200).json()["status"].clone();
            assert_eq!(status, "running", "killed too late");
        }
        node.kill();
        node = Node::start(&options);
        client = node.client();
    }
    let path = format!("/v1/runs/{run_id}");
    let run = client.request("GET", &path, &[("prefer", "wait=60")], b"").unwrap().expect(200).json();
    assert_eq!(run["status"], "completed", "{}", run["error"]);
    let count = recount(&whole_timeline(&mut client, &run_id), nanos(&json!(limit)));
    assert!(count.refused > 0 && count.answers > 100, "{count:?}");
    // What the provider counted, at the model's price.
    let tokens = &stub.stats()["tokens"];
    let billed = tokens["in"].as_u64().unwrap() * 1_000 + tokens["out"].as_u64().unwrap() * 2_000;
    if kills == 0 {
        assert_eq!((billed, count.unknown), (count.answered, 0), "{count:?}");
    } else {
        assert!((count.answered..=count.answered + count.unknown).contains(&billed), "{billed}: {count:?}");
    }
}

// F402, F404, D16
#[test]
fn a_thousand_calls_at_once_never_spend_more_than_the_budget_and_the_ledger_is_the_providers() {
    played(0);
}

#[test]
fn neither_do_they_when_the_node_is_killed_among_them() {
    played(3);
}
