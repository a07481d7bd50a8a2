//! Nodes that fall back on what the same call brought before.

use serde_json::{Value, json};

use crate::agents;
use crate::harness::{Client, Node, Options};
use crate::resilience::Service;

fn ran(client: &mut Client, headers: &[(&str, &str)], workflow: &str, inputs: &Value) -> (String, Value) {
    let body = json!({"workflow": workflow, "inputs": inputs});
    let started = client.post_with("/v1/runs", headers, &body).unwrap().expect(202).json();
    let run_id = started["run_id"].as_str().unwrap().to_owned();
    let headers = [headers, &[("prefer", "wait=60")]].concat();
    let run = client.request("GET", &format!("/v1/runs/{run_id}"), &headers, b"").unwrap();
    (run_id, run.expect(200).json())
}

fn timeline(client: &mut Client, run_id: &str) -> Vec<Value> {
    let page = client.get(&format!("/v1/runs/{run_id}/timeline?limit=1000")).expect(200).json();
    page["events"].as_array().unwrap().clone()
}

fn replayed(node: &Node, run_id: &str) -> String {
    let url = format!("http://{}", node.address);
    let done = std::process::Command::new(env!("CARGO_BIN_EXE_aob"))
        .args(["replay", run_id, "--mode", "freeze", "--url", &url])
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

// F369, F370
#[test]
fn a_call_whose_breaker_is_open_answers_what_it_brought_before_and_says_how_old_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let service = Service::start(200);
    let options = Options::serve(directory.path()).driver().set("http.allow", &service.address.to_string());
    let options = options.set("http.breaker.failures", "1").set("http.breaker.open_for", "10m");
    let node = Node::start(&options);
    let mut client = node.client();
    let url = format!("http://{}/${{ item }}", service.address);
    let rates = json!({
        "name": "rates",
        "inputs": {"type": "object"},
        "nodes": {
            "begin": {"type": "function", "with": {"expr": "inputs.of"}},
            "each": {"type": "map", "needs": ["begin"], "with": {"over": "input", "body": {
                "type": "http", "with": {"url": url, "headers": {"x-of": "${ nodes.begin.output[0] }"}},
                "retry": {"max_attempts": 1}, "fallback": {"cache": {"max_age": "10m"}},
            }}},
        },
    });
    client.post("/v1/workflows", &rates).expect(201);
    let acme = [("aob-workspace", "acme")];
    client.post_with("/v1/workflows", &acme, &rates).unwrap().expect(201);

    let (first, run) = ran(&mut client, &[], "rates", &json!({"of": ["usd", "eur"]}));
    assert_eq!(run["status"], "completed", "{run}");
    let brought = run["outputs"]["each"].clone();
    assert_eq!((&brought[0]["status"], service.asked()), (&json!(200), 2), "{brought}");

    service.becomes(500);
    let (second, run) = ran(&mut client, &[], "rates", &json!({"of": ["usd", "eur"]}));
    assert_eq!(run["status"], "completed", "{run}");
    assert_eq!(run["outputs"]["each"], brought, "the same as it was, by item");
    let (third, run) = ran(&mut client, &[], "rates", &json!({"of": ["usd", "eur"]}));
    assert_eq!(run["outputs"]["each"], brought, "{run}");
    let events = timeline(&mut client, &third);
    let fell: Vec<_> = events.iter().filter(|event| event["type"] == "node.fell_back").collect();
    assert!(fell.iter().all(|event| event["error"]["code"] == "circuit_breaker_open"), "{fell:?}");
    assert_eq!(fell.len(), 2, "{events:?}");
    let used: Vec<_> = events
        .iter()
        .filter(|event| event["type"] == "node.completed" && event["output"]["age_ms"].is_u64())
        .collect();
    assert_eq!(used.len(), 2, "{events:?}");
    for event in used {
        assert_eq!(event["output"]["run_id"], first, "what stood in was no answer: {event}");
        assert!(event["output"]["age_ms"].as_u64().unwrap() < 600_000, "{event}");
        assert!(event["node"].as_str().unwrap().ends_with("[fallback].cached"), "{event}");
    }
    for run_id in [&first, &second, &third] {
        replayed(&node, run_id);
    }

    let (_, run) = ran(&mut client, &[], "rates", &json!({"of": ["gbp"]}));
    assert_eq!(run["error"]["code"], "no_cached_answer", "another question: {run}");
    let (_, run) = ran(&mut client, &acme, "rates", &json!({"of": ["usd", "eur"]}));
    assert_eq!(run["error"]["code"], "no_cached_answer", "another workspace: {run}");
    assert!(node.terminate().0.success());

    // It is of the process.
    let node = Node::start(&options);
    let (_, run) = ran(&mut node.client(), &[], "rates", &json!({"of": ["usd", "eur"]}));
    assert_eq!(run["error"]["code"], "no_cached_answer", "{run}");
    replayed(&node, &third);
}

// F369
#[test]
fn an_agent_whose_model_fails_answers_what_it_said_before() {
    let (directory, stub) = (tempfile::tempdir().unwrap(), agents::stub());
    stub.script(&json!({"rules": [{"when": {"nth": 1}, "do": {"text": "blue"}}, {"do": {"status": 400}}]}))
        .unwrap();
    let node = Node::start(&agents::options(directory.path(), &stub));
    let mut client = node.client();
    let says = json!({"name": "says", "inputs": {"type": "object"},
        "agents": {"one": {"model": "big"}},
        "nodes": {"ask": {"type": "agent", "with": {"role": "one", "task": "Which colour has ${ inputs.of }?"},
            "retry": {"max_attempts": 1}, "fallback": {"cache": {"max_age": "1h"}}}}});
    client.post("/v1/workflows", &says).expect(201);
    let sky = json!({"of": "the sky"});
    let (_, run) = ran(&mut client, &[], "says", &sky);
    assert_eq!(run["status"], "completed", "{run}");
    let said = run["outputs"]["ask"].clone();
    assert!(said.to_string().contains("blue"), "{said}");
    let (run_id, run) = ran(&mut client, &[], "says", &sky);
    assert_eq!((&run["status"], &run["outputs"]["ask"]), (&json!("completed"), &said), "{run}");
    assert!(timeline(&mut client, &run_id).iter().any(|event| event["type"] == "node.fell_back"));
    replayed(&node, &run_id);
    let (_, run) = ran(&mut client, &[], "says", &json!({"of": "grass"}));
    assert_eq!(run["status"], "failed", "{run}");
}
