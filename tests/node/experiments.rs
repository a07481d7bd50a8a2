//! Patch sets: arms of an experiment, chosen by name or by weight, and what became of their runs.

use std::process::Command;

use serde_json::{Value, json};

use crate::harness::{Client, Node, Options};

const SETS: &str = "/v1/workflows/price/patch-sets";

/// Completes, or fails when an arm divides by nothing.
fn document() -> Value {
    json!({"name": "price", "version": "1", "nodes": {"a": {"type": "function", "with": {"expr": "10"}}}})
}

fn put(client: &mut Client, set: &str, body: &Value) -> crate::harness::http::Response {
    let headers = [("content-type", "application/json")];
    client.request("PUT", &format!("{SETS}/{set}"), &headers, body.to_string().as_bytes()).unwrap()
}

/// Starts, waits for the end, and gives the run.
fn finished(client: &mut Client, body: &Value) -> Value {
    let headers = [("content-type", "application/json"), ("prefer", "wait=30")];
    let run = client.request("POST", "/v1/runs", &headers, body.to_string().as_bytes()).unwrap();
    let run = run.expect(200).json();
    assert_ne!(run["status"], "running", "{run}");
    run
}

fn patch(client: &mut Client, expr: &str, set: &str) -> Value {
    let body = json!({"base_version": 1, "patch_set": set, "operations": [
        {"op": "replace", "path": "/nodes/a/with/expr", "value": expr}]});
    client.post("/v1/workflows/price/patches", &body).expect(202).json()
}

fn arm<'a>(report: &'a Value, set: &str) -> &'a Value {
    report["arms"].as_array().unwrap().iter().find(|arm| arm["patch_set"] == set).unwrap()
}

/// A report once it counts this many runs: rows reach the index a moment after the end.
fn report(client: &mut Client, runs: u64) -> Value {
    loop {
        let report = client.get("/v1/workflows/price/experiments").expect(200).json();
        let counted: u64 =
            report["arms"].as_array().unwrap().iter().map(|arm| arm["runs"].as_u64().unwrap()).sum();
        assert!(counted <= runs, "{report}");
        if counted == runs {
            return report;
        }
        std::thread::yield_now();
    }
}

// F097
#[test]
fn arms_are_chosen_and_compared() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options::serve(directory.path());
    let node = Node::start(&options);
    let mut client = node.client();
    client.post("/v1/workflows", &document()).expect(201);
    put(&mut client, "A", &json!({"patches": []})).expect(200);
    put(&mut client, "B", &json!({"patches": []})).expect(200);
    patch(&mut client, "20", "A");
    let bad = json!({"base_version": 2, "patch_set": "B", "operations": [
        {"op": "replace", "path": "/nodes/a/with/expr", "value": "1 / (1 - 1)"}]});
    client.post("/v1/workflows/price/patches", &bad).expect(202);
    // By name; who names none, and there are no weights, is in none.
    let of_a = finished(&mut client, &json!({"workflow": "price", "patch_set": "A"}));
    assert_eq!((&of_a["outputs"]["a"], &of_a["layered"]["patch_set"]), (&json!(20), &json!("A")), "{of_a}");
    assert_eq!(finished(&mut client, &json!({"workflow": "price", "patch_set": "B"}))["status"], "failed");
    let of_none = finished(&mut client, &json!({"workflow": "price"}));
    assert_eq!((&of_none["outputs"]["a"], &of_none["layered"]), (&json!(10), &Value::Null), "{of_none}");
    let unknown = client.post("/v1/runs", &json!({"workflow": "price", "patch_set": "C"})).expect(422).json();
    assert_eq!(unknown["code"], "patch_set_unknown");
    // By weight: about as often as they weigh, and always the same for one key.
    let sets = client.get(SETS).expect(200).json();
    let patches = |set: usize| sets["patch_sets"][set]["patches"].clone();
    put(&mut client, "A", &json!({"patches": patches(0), "weight": 3})).expect(200);
    put(&mut client, "B", &json!({"patches": patches(1), "weight": 1})).expect(200);
    let mut drawn = Vec::new();
    for at in 0..40 {
        let run = finished(&mut client, &json!({"workflow": "price", "run_key": format!("order-{at}")}));
        drawn.push(run["layered"]["patch_set"].as_str().unwrap().to_owned());
    }
    let count = drawn.iter().filter(|set| *set == "A").count();
    assert!((20..40).contains(&count), "{count} of 40 with 3 of 4 parts");
    for (at, set) in drawn.iter().enumerate().take(4) {
        let again = finished(&mut client, &json!({"workflow": "price", "run_key": format!("order-{at}")}));
        assert_eq!(again["layered"]["patch_set"], **set, "the same key is of the same arm");
    }
    let again = drawn.iter().take(4).filter(|set| *set == "A").count();
    let (of_a, of_b) = ((count + again + 1) as u64, (40 - count + 4 - again + 1) as u64);
    let told = report(&mut client, 47);
    let a = arm(&told, "A");
    assert_eq!(
        (&a["runs"], &a["completed"], &a["success_rate"]),
        (&json!(of_a), &json!(of_a), &json!(1.0)),
        "{told}"
    );
    assert!(a["latency_us"]["p50"].as_u64().unwrap() <= a["latency_us"]["p99"].as_u64().unwrap());
    let b = arm(&told, "B");
    assert_eq!((&b["failed"], &b["success_rate"], &b["weight"]), (&json!(of_b), &json!(0.0), &json!(1)));
    assert_eq!((&b["latency_us"], &b["cost"]), (&Value::Null, &json!("no priced calls")));
    // Counted from what is kept, so a restart changes nothing.
    node.kill();
    let node = Node::start(&options);
    let mut client = node.client();
    assert_eq!(report(&mut client, 47), told);
    let aob = Command::new(env!("CARGO_BIN_EXE_aob"))
        .args(["--url", &format!("http://{}", node.address), "--output", "table"])
        .args(["workflow", "experiment", "price"])
        .output()
        .unwrap();
    let table = String::from_utf8(aob.stdout).unwrap();
    assert!(table.contains("SUCCESS_RATE") && table.contains("no priced calls"), "{table}");
    // Without its set a patch is for all again.
    client.request("DELETE", &format!("{SETS}/A"), &[], b"").unwrap().expect(200);
    let told = client.request("DELETE", &format!("{SETS}/A"), &[], b"").unwrap().expect(404).json();
    assert_eq!(told["code"], "patch_set_not_found");
    for (body, code) in [
        (json!({"patches": ["wpatch_0000000000000000_price"]}), "patch_set_invalid"),
        (json!({"weight": 1}), "patch_set_invalid"),
        (json!({"patches": [], "weight": -1}), "patch_set_invalid"),
    ] {
        assert_eq!(put(&mut client, "X", &body).expect(422).json()["code"], code);
    }
}
