//! Dead letters that are redriven have all their attempts again, also after a timeout and under limits on how many runs of a
//! kind go on; an agent asks its model again.

use serde_json::{Value, json};

use super::resilience::{Service, run};
use crate::agents;
use crate::harness::{Client, Node, Options, in_background};

fn options(directory: &std::path::Path) -> Options {
    Options::serve(directory).driver().set("http.allow", "127.0.0.1").set("http.breaker.enabled", "false")
}

fn letter(client: &mut Client, workflow: &str) -> Value {
    for _ in 0..100_000 {
        let page = client.get(&format!("/v1/dlq?workflow={workflow}")).expect(200).json();
        if let Some(letter) = page["letters"].get(0) {
            return letter.clone();
        }
    }
    panic!("{workflow} left no letter");
}

fn redrive(client: &mut Client, letter: &Value) -> String {
    let path = format!("/v1/dlq/{}/redrive", letter["id"].as_str().unwrap());
    let run = client.post(&path, &json!({})).expect(202).json();
    let again = client.post(&path, &json!({})).expect(202);
    assert_eq!(
        (again.header("idempotent-replayed"), &again.json()["run_id"]),
        (Some("true"), &run["run_id"])
    );
    run["run_id"].as_str().unwrap().to_owned()
}

fn ended(client: &mut Client, run_id: &str) -> Value {
    let path = format!("/v1/runs/{run_id}");
    client.request("GET", &path, &[("prefer", "wait=60")], b"").unwrap().expect(200).json()
}

fn timeline(client: &mut Client, run_id: &str) -> Vec<Value> {
    let page = client.get(&format!("/v1/runs/{run_id}/timeline?limit=1000")).expect(200).json();
    page["events"].as_array().unwrap().clone()
}

/// Attempts that a run made itself, after what it was forked with.
fn attempts(events: &[Value], node: &str) -> Vec<u64> {
    let forked = events.iter().rposition(|event| event["type"] == "run.forked").unwrap();
    let own = events[forked..].iter();
    let started = own.filter(|event| event["type"] == "node.started" && event["node"] == node);
    started.map(|event| event["attempt"].as_u64().unwrap()).collect()
}

fn verified(node: &Node, run_id: &str) {
    let (code, said, wrong) = super::replay::aob(Some(node), &["replay", run_id, "--mode", "freeze"]);
    assert_eq!(code, 0, "{said} {wrong}");
}

fn to(service: &Service) -> Value {
    json!({"type": "http", "retry": {"max_attempts": 3, "initial": "1ms", "jitter": false},
        "with": {"url": format!("http://{}/crm", service.address)}})
}

// F370
#[test]
fn a_redrive_makes_every_attempt_of_the_policy_again_and_leaves_a_letter_when_all_fail() {
    let directory = tempfile::tempdir().unwrap();
    let settings = options(directory.path());
    let bad = Service::start(503);
    let node = Node::start(&settings);
    let mut client = node.client();
    client.post("/v1/workflows", &json!({"name": "flow", "nodes": {"crm": to(&bad)}})).expect(201);
    run(&mut client, &[], "flow");
    assert_eq!(bad.asked(), 3);
    let first = letter(&mut client, "flow");
    let new = redrive(&mut client, &first);
    assert_eq!(ended(&mut client, &new)["status"], "failed");
    assert_eq!(bad.asked(), 6, "as often as the first time");
    let events = timeline(&mut client, &new);
    assert_eq!(attempts(&events, "crm"), [1, 2, 3]);
    assert_eq!(events.iter().filter(|event| event["type"] == "node.redriven").count(), 1);
    verified(&node, &new);
    // The new run has a letter of its own, and that is redriven as well, after a crash too.
    let second = loop {
        let letter = letter(&mut client, "flow");
        if letter["run_id"] == json!(new) {
            break letter;
        }
    };
    node.kill();
    let node = Node::start(&settings);
    let mut client = node.client();
    bad.becomes(200);
    let last = redrive(&mut client, &second);
    let done = ended(&mut client, &last);
    assert_eq!((&done["status"], bad.asked()), (&json!("completed"), 7), "{done}");
    verified(&node, &last);
}

// F370, F380: what ran out of time has all of it again.
#[test]
fn a_redrive_after_a_timeout_has_the_whole_time_again() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&options(directory.path()));
    let mut client = node.client();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    let slow = json!({"type": "http", "timeout": "300ms", "retry": {"max_attempts": 1},
        "with": {"url": format!("http://{address}/")}});
    client.post("/v1/workflows", &json!({"name": "slow", "nodes": {"slow": slow}})).expect(201);
    assert_eq!(run(&mut client, &[], "slow")["error"]["code"], "timeout");
    let letter = letter(&mut client, "slow");
    // From now on somebody answers.
    in_background(move || {
        use std::io::{Read as _, Write as _};
        for stream in silent.incoming() {
            let mut stream = stream.unwrap();
            let mut head = [0; 1024];
            if stream.read(&mut head).unwrap_or(0) > 0 {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
            }
        }
    });
    let new = redrive(&mut client, &letter);
    let done = ended(&mut client, &new);
    assert_eq!(done["status"], "completed", "{done}");
    assert_eq!(attempts(&timeline(&mut client, &new), "slow"), [1]);
    verified(&node, &new);
}

// F370: a run that had a slot stands in line for one, and goes on from where it was once it has it.
#[test]
fn a_redrive_under_a_limit_on_runs_waits_for_its_turn_and_does_nothing_twice() {
    let directory = tempfile::tempdir().unwrap();
    let settings = options(directory.path());
    let (good, bad) = (Service::start(200), Service::start(503));
    let node = Node::start(&settings);
    let mut client = node.client();
    let one = json!({"type": "http", "with": {"url": format!("http://{}/", good.address)}});
    let slow = json!({"type": "delay", "with": {"for": "1ms"}});
    let mut crm = to(&bad);
    crm["needs"] = json!(["one", "slow"]);
    crm["priority"] = json!("high");
    let hold = json!({"type": "wait", "needs": ["crm"], "with": {"signal": "go"}});
    let limits = json!({"concurrency": {"key": "crm", "max": 1},
        "rate": {"key": "crm", "max": 100, "per": "1s"}});
    let flow = json!({"name": "flow", "limits": limits, "nodes": {"one": one, "slow": slow, "crm": crm, "hold": hold}});
    client.post("/v1/workflows", &flow).expect(201);
    run(&mut client, &[], "flow");
    let letter = letter(&mut client, "flow");
    assert_eq!((good.asked(), bad.asked()), (1, 3));
    bad.becomes(200);
    // Somebody else has the only slot by now.
    let other = client.post("/v1/runs", &json!({"workflow": "flow"})).expect(202).json();
    let other = other["run_id"].as_str().unwrap().to_owned();
    while !timeline(&mut client, &other).iter().any(|event| event["waiting_for"] == "signal") {}
    let new = redrive(&mut client, &letter);
    assert_eq!(client.get(&format!("/v1/runs/{new}")).expect(200).json()["status"], "pending");
    assert_eq!((good.asked(), bad.asked()), (2, 4), "nothing is begun before its turn");
    node.kill();
    let node = Node::start(&settings);
    let mut client = node.client();
    assert_eq!(client.get(&format!("/v1/runs/{new}")).expect(200).json()["status"], "pending");
    for run_id in [&other, &new] {
        client.post(&format!("/v1/runs/{run_id}/signals/go"), &json!({}));
        let done = ended(&mut client, run_id);
        assert_eq!(done["status"], "completed", "{done}");
    }
    assert_eq!((good.asked(), bad.asked()), (2, 5), "what was done is not done again");
    let events = timeline(&mut client, &new);
    assert_eq!(attempts(&events, "crm"), [1]);
    assert!(attempts(&events, "one").is_empty());
    verified(&node, &new);
}

// F370, F392: an agent goes on with what was said, and asks for what it was not answered.
#[test]
fn an_agent_that_was_given_up_goes_on_with_its_conversation() {
    let (directory, stub) = (tempfile::tempdir().unwrap(), agents::stub());
    let busy = json!({"rules": [{"when": {"turn": 2}, "do": {"status": 503}}]});
    stub.script(&busy).unwrap();
    let node = Node::start(&agents::options(directory.path(), &stub));
    let mut client = node.client();
    let ask = json!({"type": "agent", "retry": {"max_attempts": 2, "initial": "1ms", "jitter": false},
        "with": {"task": "[[tool:nothing]] [[turn]] [[say: at last]]"}});
    client
        .post(
            "/v1/workflows",
            &json!({"name": "talk", "limits": {"budget": {"usd": "1"}}, "nodes": {"ask": ask}}),
        )
        .expect(201);
    assert_eq!(run(&mut client, &[], "talk")["status"], "failed");
    let letter = letter(&mut client, "talk");
    let asked = stub.stats()["calls"].as_u64().unwrap();
    stub.script(&json!({"rules": []})).unwrap();
    let new = redrive(&mut client, &letter);
    let done = ended(&mut client, &new);
    assert_eq!(
        (&done["status"], &done["outputs"]["ask"]),
        (&json!("completed"), &json!("at last")),
        "{done}"
    );
    assert_eq!(stub.stats()["calls"].as_u64().unwrap(), asked + 1, "the first answer stands");
    let cost = client.get(&format!("/v1/runs/{new}/cost")).expect(200).json();
    // One of the source's, one of its own; nothing is held for the call that only the source made.
    assert_eq!((&cost["answers"], &cost["reserved_usd"]), (&json!(2), &json!("0.00")), "{cost}");
    verified(&node, &new);
}
