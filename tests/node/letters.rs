//! Dead letters: work that was given up is listed until somebody sees to it, done again once when it is redriven, and gone
//! when it is purged, whatever falls down meanwhile.

use std::time::Duration;

use aob::time::{Clock as _, SystemClock};
use serde_json::{Value, json};

use super::resilience::{Service, run};
use crate::harness::{Client, Node, Options};

/// What may take seconds, on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(60);

fn listed(client: &mut Client, query: &str) -> Vec<Value> {
    client.get(&format!("/v1/dlq?{query}")).expect(200).json()["letters"].as_array().unwrap().clone()
}

/// Lists until there are so many.
fn until(client: &mut Client, query: &str, count: usize) -> Vec<Value> {
    let began_us = SystemClock.monotonic_us();
    loop {
        let letters = listed(client, query);
        if letters.len() == count {
            return letters;
        }
        let passed = Duration::from_micros(SystemClock.monotonic_us() - began_us);
        assert!(passed < PATIENCE, "{letters:#?}");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

fn options(directory: &std::path::Path, services: &[&Service]) -> Options {
    let allow: Vec<_> = services.iter().map(|service| service.address.to_string()).collect();
    Options::serve(directory)
        .driver()
        .set("http.allow", &allow.join(","))
        .set("http.breaker.enabled", "false")
}

fn to(service: &Service, more: &Value) -> Value {
    let mut node = json!({"type": "http", "retry": {"max_attempts": 2, "initial": "1ms"},
        "with": {"url": format!("http://{}/crm", service.address)}});
    node.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    node
}

// F370, F388
#[test]
fn work_that_was_given_up_is_done_again_once_when_its_service_is_mended() {
    let directory = tempfile::tempdir().unwrap();
    let (good, bad) = (Service::start(200), Service::start(503));
    let options = options(directory.path(), &[&good, &bad]).env("AOB_SECRET_CRM", "very-secret-indeed");
    let node = Node::start(&options);
    let mut client = node.client();
    let with = json!({"url": format!("http://{}/crm", bad.address), "headers": {"x-key": "${secret:CRM}"}});
    let flow = json!({"name": "flow", "version": "3", "nodes": {
        "first": to(&good, &json!({})), "crm": to(&bad, &json!({"with": with})),
        "last": {"type": "function", "with": {"expr": "nodes.crm.output.status"}}},
        "edges": [{"from": "first", "to": "crm"}, {"from": "crm", "to": "last"}]});
    client.post("/v1/workflows", &flow).expect(201);
    let failed = run(&mut client, &[], "flow");
    assert_eq!((&failed["status"], bad.asked()), (&json!("failed"), 2));

    let letter = until(&mut client, "workflow=flow&code=http_status", 1)[0].clone();
    let id = letter["id"].as_str().unwrap().to_owned();
    for (member, value) in [
        ("run_id", &failed["run_id"]),
        ("node", &json!("crm")),
        ("workflow", &json!("flow")),
        ("version", &json!("3")),
        ("status", &json!("dead")),
        ("class", &json!("recoverable")),
        ("continued", &json!(false)),
    ] {
        assert_eq!(&letter[member], value, "{member}");
    }
    assert!(
        listed(&mut client, "code=timeout").is_empty() && listed(&mut client, "workflow=other").is_empty()
    );
    let path = format!("/v1/dlq/{id}");
    let full = client.get(&path).expect(200).json();
    assert_eq!((&full["attempts"], &full["error"]["details"]["answer"]["status"]), (&json!(2), &json!(503)));
    assert_eq!(full["request"]["url"], format!("http://{}/crm", bad.address));
    assert!(
        full.to_string().contains("${secret:CRM}") && !full.to_string().contains("very-secret"),
        "{full}"
    );

    // For another workspace there is none.
    let acme = [("aob-workspace", "acme")];
    let theirs = client.request("GET", "/v1/dlq", &acme, b"").unwrap().expect(200).json();
    assert_eq!(theirs["letters"], json!([]));
    for (method, path) in
        [("GET", path.clone()), ("DELETE", path.clone()), ("POST", format!("{path}/redrive"))]
    {
        let refused = client.request(method, &path, &acme, b"").unwrap().expect(404).json();
        assert_eq!(refused["code"], "dead_letter_not_found");
    }
    let purged = client.request("DELETE", "/v1/dlq?all=true", &acme, b"").unwrap().expect(200).json();
    assert_eq!(purged, json!({"purged": 0, "more": false}));

    node.kill();
    let node = Node::start(&options);
    let mut client = node.client();
    assert_eq!(until(&mut client, "", 1), [letter]);
    bad.becomes(200);
    let redrive = format!("{path}/redrive");
    let first = client.post_with(&redrive, &[("idempotency-key", "k")], &json!({})).unwrap().expect(202);
    let again = client.post_with(&redrive, &[("idempotency-key", "k")], &json!({})).unwrap().expect(202);
    assert_eq!(
        (first.header("idempotent-replayed"), again.header("idempotent-replayed")),
        (None, Some("true"))
    );
    let new = first.json()["run_id"].as_str().unwrap().to_owned();
    assert_eq!(
        (&again.json()["run_id"], &client.post(&redrive, &json!({})).expect(202).json()["run_id"]),
        (&json!(new), &json!(new))
    );
    let done = client.request("GET", &format!("/v1/runs/{new}"), &[("prefer", "wait=60")], b"").unwrap();
    let done = done.expect(200).json();
    assert_eq!((&done["status"], &done["outputs"]["last"]), (&json!("completed"), &json!(200)), "{done}");
    assert_eq!((good.asked(), bad.asked()), (1, 3), "what was done is not done again");
    assert_eq!(done["forked_from"]["run_id"], failed["run_id"], "{done}");

    assert!(listed(&mut client, "").is_empty());
    assert_eq!(listed(&mut client, "status=redriven")[0]["redriven_as"], new);
    client.request("DELETE", &path, &[], b"").unwrap().expect(204);
    client.get(&path).expect(404);
    node.kill();
    let node = Node::start(&options);
    let mut client = node.client();
    client.get(&path).expect(404);
    assert!(listed(&mut client, "").is_empty() && listed(&mut client, "status=redriven").is_empty());
}

// F370
#[test]
fn letters_are_paged_and_purged_by_what_they_are_of() {
    let directory = tempfile::tempdir().unwrap();
    let bad = Service::start(404);
    let node = Node::start(&options(directory.path(), &[&bad]));
    let mut client = node.client();
    for name in ["one", "two"] {
        client
            .post("/v1/workflows", &json!({"name": name, "nodes": {"crm": to(&bad, &json!({}))}}))
            .expect(201);
    }
    for name in ["one", "two", "one", "two", "one"] {
        run(&mut client, &[], name);
    }
    let all = until(&mut client, "", 5);
    let (mut path, mut paged) = (String::from("/v1/dlq?limit=2"), Vec::new());
    loop {
        let page = client.get(&path).expect(200).json();
        paged.extend(page["letters"].as_array().unwrap().clone());
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        path = format!("/v1/dlq?limit=2&cursor={cursor}");
    }
    assert_eq!(paged, all);
    for refused in ["?cursor=x", "?status=gone", "?limit=0", "?colour=red"] {
        client.get(&format!("/v1/dlq{refused}")).expect(400);
    }
    client.get("/v1/dlq/dead_1").expect(404);
    let purge = |client: &mut Client, query: &str| {
        client.request("DELETE", &format!("/v1/dlq{query}"), &[], b"").unwrap()
    };
    assert_eq!(purge(&mut client, "").expect(422).json()["code"], "invalid_parameter");
    assert_eq!(purge(&mut client, "?all=false").expect(400).json()["code"], "invalid_parameter");
    let gone = purge(&mut client, "?workflow=one&code=http_status").expect(200).json();
    assert_eq!(gone, json!({"purged": 3, "more": false}));
    let left = listed(&mut client, "");
    assert!(left.len() == 2 && left.iter().all(|letter| letter["workflow"] == "two"), "{left:?}");
}

// F370, F371: a failure that somebody takes care of leaves nothing behind.
#[test]
fn what_is_taken_care_of_is_no_dead_letter() {
    let directory = tempfile::tempdir().unwrap();
    let bad = Service::start(404);
    let node = Node::start(&options(directory.path(), &[&bad]));
    let mut client = node.client();
    let plain = to(&bad, &json!({}));
    let one = json!({"type": "function", "with": {"expr": "1"}});
    let around = |more: &Value| {
        let mut node = json!({"type": "composite", "with": {"body": {"nodes": {"in": plain}}}});
        node.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        node
    };
    let other = json!({"a": {"type": "function", "with": {"expr": "2"}}});
    for (name, nodes, edges) in [
        ("value", json!({"a": to(&bad, &json!({"fallback": {"value": 1}}))}), json!([])),
        ("edge", json!({"a": plain, "b": one}), json!([{"from": "a", "to": "b", "on": "error"}])),
        ("body", json!({"a": around(&json!({"fallback": {"value": 1}}))}), json!([])),
        ("way", json!({"a": around(&json!({})), "b": one}), json!([{"from": "a", "to": "b", "on": "error"}])),
        ("continued", json!({"a": to(&bad, &json!({"on_error": "continue"}))}), json!([])),
        ("inside", json!({"a": around(&json!({}))}), json!([])),
        ("tried", json!({"a": around(&json!({"retry": {"max_attempts": 2, "initial": "1ms"}}))}), json!([])),
        ("fine", other, json!([])),
    ] {
        client.post("/v1/workflows", &json!({"name": name, "nodes": nodes, "edges": edges})).expect(201);
        run(&mut client, &[], name);
    }
    let letters = until(&mut client, "", 3);
    let told = |member: &str| letters.iter().map(|letter| letter[member].clone()).collect::<Vec<_>>();
    assert_eq!(told("workflow"), ["tried", "inside", "continued"]);
    assert_eq!(told("node"), ["a", "a.in", "a"]);
    assert_eq!(told("continued"), [false, false, true]);
    // One that is no call begins anew.
    bad.becomes(200);
    for letter in &letters {
        let path = format!("/v1/dlq/{}/redrive", letter["id"].as_str().unwrap());
        let new = client.post(&path, &json!({})).expect(202).json();
        let path = format!("/v1/runs/{}", new["run_id"].as_str().unwrap());
        let done = client.request("GET", &path, &[("prefer", "wait=60")], b"").unwrap().expect(200).json();
        assert_eq!(done["status"], "completed", "{letter}: {done}");
    }
}

// F242, F370: what a run in fast mode writes down is enough; a fork has the events of the other run, and not its letters.
#[test]
fn letters_of_fast_runs_are_redriven_and_a_fork_inherits_none() {
    let directory = tempfile::tempdir().unwrap();
    let bad = Service::start(404);
    let options = options(directory.path(), &[&bad]);
    let node = Node::start(&options);
    let mut client = node.client();
    let one = json!({"type": "function", "with": {"expr": "1"}});
    let fast = json!({"name": "fast", "mode": "fast", "nodes": {"one": one, "crm": to(&bad, &json!({})), "two": one},
        "edges": [{"from": "one", "to": "crm"}, {"from": "crm", "to": "two"}]});
    client.post("/v1/workflows", &fast).expect(201);
    let held = json!({"name": "held", "nodes": {"crm": to(&bad, &json!({"on_error": "continue"})),
        "w": {"type": "wait", "with": {"signal": "go"}}}, "edges": [{"from": "crm", "to": "w"}]});
    client.post("/v1/workflows", &held).expect(201);
    run(&mut client, &[], "fast");
    let held = client.post("/v1/runs", &json!({"workflow": "held"})).expect(202).json()["run_id"].clone();
    let letters = until(&mut client, "", 2);
    assert_eq!(letters[0]["run_id"], held);
    let held = format!("/v1/runs/{}", held.as_str().unwrap());
    let seq = client.get(&held).expect(200).json()["seq"].clone();
    let fork = client.post(&format!("{held}/fork"), &json!({"at": seq})).expect(202).json();
    assert_ne!(fork["run_id"], letters[0]["run_id"]);
    node.kill();
    let node = Node::start(&options);
    let mut client = node.client();
    assert_eq!(listed(&mut client, ""), letters);
    bad.becomes(200);
    let redrive = format!("/v1/dlq/{}/redrive", letters[1]["id"].as_str().unwrap());
    let new = client.post(&redrive, &json!({})).expect(202).json();
    let path = format!("/v1/runs/{}", new["run_id"].as_str().unwrap());
    let done = client.request("GET", &path, &[("prefer", "wait=60")], b"").unwrap().expect(200).json();
    assert_eq!(done["status"], "completed", "{done}");
}
