//! `Idempotency-Key` of what is asked of a run, and of schedules: sent again, alone or fifty times at once, after kill -9, a restart
//! or the run's end, it is done once and answered the same.

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::{Arc, Barrier};

use serde_json::{Value, json};

use crate::harness::http::Response;
use crate::harness::{Client, Node, Options, in_background};
use crate::patches::{add, start, walk};

fn send(client: &mut Client, path: &str, key: &str, body: &Value) -> Response {
    client.post_with(path, &[("idempotency-key", key)], body).unwrap()
}

fn replayed(answer: &Response) -> bool {
    answer.header("idempotent-replayed") == Some("true")
}

fn events(client: &mut Client, run: &str) -> Vec<Value> {
    let page = client.get(&format!("/v1/runs/{run}/timeline?limit=1000")).expect(200).json();
    page["events"].as_array().unwrap().clone()
}

fn count(client: &mut Client, run: &str, kind: &str) -> usize {
    events(client, run).iter().filter(|event| event["type"] == kind).count()
}

fn ended(client: &mut Client, run: &str) -> Value {
    let path = format!("/v1/runs/{run}");
    client.request("GET", &path, &[("prefer", "wait=60")], b"").unwrap().expect(200).json()
}

/// The same request at the same time, each over a connection of its own.
fn at_once(node: &Node, path: &str, body: &Value) -> Vec<Response> {
    const CLIENTS: usize = 50;
    let together = Arc::new(Barrier::new(CLIENTS));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (mut client, together) = (node.client(), together.clone());
            let (path, body) = (path.to_owned(), body.clone());
            in_background(move || {
                client.get("/livez").expect(200);
                together.wait();
                send(&mut client, &path, "together", &body)
            })
        })
        .collect();
    clients.into_iter().map(|client| client.join().unwrap()).collect()
}

/// Waits for `go`, answered by `tell`, and then for `stop`.
fn asking(mode: &str) -> Value {
    json!({"name": format!("ask-{mode}"), "mode": mode, "nodes": {
        "ask": {"type": "wait", "with": {"signal": "go", "reply": "tell"}},
        "tell": {"type": "function", "needs": ["ask"], "with": {"expr": "input.n * 2"}},
        "stop": {"type": "wait", "needs": ["tell"], "with": {"signal": "stop"}}}})
}

#[test]
fn a_signal_is_one_signal_however_often_it_is_sent() {
    // E11
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&Options::serve(directory.path()));
    let mut client = node.client();
    let run = start(&mut client, &asking("full"));
    let path = format!("/v1/runs/{run}/signals/later");
    let body = json!({"payload": {"a": 1, "b": [2]}});
    let first = send(&mut client, &path, "k", &body).expect(202);
    assert!(!replayed(&first));
    let before = events(&mut client, &run);
    let [.., received, remembered] = &before[..] else { panic!("{before:?}") };
    assert_eq!(
        (&received["type"], &remembered["type"]),
        (&json!("signal.received"), &json!("request.remembered"))
    );
    assert_eq!((&remembered["received_seq"], &first.json()["seq"]), (&received["seq"], &remembered["seq"]));
    // The body means the same, however it is spelt.
    let spelt = br#"{ "payload": {"b": [2], "a": 1} }"#;
    let headers = [("content-type", "application/json"), ("idempotency-key", "k")];
    let again = client.request("POST", &path, &headers, spelt).unwrap().expect(202);
    assert!(replayed(&again));
    assert_eq!((again.json(), again.header("etag")), (first.json(), first.header("etag")));
    // If-Match was judged the first time.
    let headers = [("content-type", "application/json"), ("idempotency-key", "k"), ("if-match", "\"1\"")];
    assert!(replayed(&client.request("POST", &path, &headers, spelt).unwrap().expect(202)));
    let other = send(&mut client, &path, "k", &json!({"payload": 2})).expect(422).json();
    assert_eq!(other["code"], "idempotency_key_reused");
    assert_eq!(events(&mut client, &run), before, "nothing else is recorded");
    // A key belongs to its run and route.
    let other = format!("/v1/runs/{run}/signals/sooner");
    assert!(!replayed(&send(&mut client, &other, "k", &body).expect(202)));
    // What no key may be is none here either.
    let long = "k".repeat(256);
    for key in ["", "a b", &long] {
        let refused = send(&mut client, &path, key, &body).expect(400).json();
        assert_eq!(refused["code"], "invalid_idempotency_key");
    }
    let answers = at_once(&node, &format!("/v1/runs/{run}/signals/race"), &body);
    let bodies: BTreeSet<String> = answers.iter().map(|answer| answer.json().to_string()).collect();
    assert_eq!(bodies.len(), 1, "{bodies:?}");
    assert_eq!(answers.iter().filter(|answer| !replayed(answer)).count(), 1);
    let raced = events(&mut client, &run);
    assert_eq!(raced.iter().filter(|event| event["signal"] == "race").count(), 1);
}

#[test]
fn an_update_that_is_sent_again_has_the_first_ones_answer() {
    for mode in ["full", "fast"] {
        let directory = tempfile::tempdir().unwrap();
        let options = Options::serve(directory.path());
        let node = Node::start(&options);
        let mut client = node.client();
        let run = start(&mut client, &asking(mode));
        let path = format!("/v1/runs/{run}/updates/go");
        let body = json!({"payload": {"n": 21}});
        let answers = at_once(&node, &path, &body);
        assert_eq!(answers.iter().filter(|answer| !replayed(answer)).count(), 1);
        for answer in &answers {
            let told = answer.json();
            assert_eq!(
                (answer.status, &told["state"], &told["output"]),
                (200, &json!("completed"), &json!(42))
            );
        }
        let first = answers[0].json();
        assert_eq!(count(&mut client, &run, "signal.received"), 1);
        let reused = send(&mut client, &path, "together", &json!({"payload": {"n": 22}})).expect(422).json();
        assert_eq!(reused["code"], "idempotency_key_reused");
        let unkeyed = client.post(&path, &body).expect(409).json();
        assert_eq!(unkeyed["code"], "update_not_awaited");

        let same = |client: &mut Client| {
            let again = send(client, &path, "together", &body).expect(200);
            assert!(replayed(&again));
            let again = again.json();
            for member in ["run_id", "received_seq", "node", "reply", "state", "output"] {
                assert_eq!(again[member], first[member], "{member} of {again}");
            }
        };
        node.kill();
        let node = Node::start(&options);
        let mut client = node.client();
        same(&mut client);
        client.post(&format!("/v1/runs/{run}/signals/stop"), &json!({})).expect(200);
        assert_eq!(ended(&mut client, &run)["status"], "completed");
        same(&mut client);
        node.terminate();
        let node = Node::start(&options);
        let mut client = node.client();
        same(&mut client);
        let reused = send(&mut client, &path, "together", &json!({"payload": {"n": 22}})).expect(422).json();
        assert_eq!(reused["code"], "idempotency_key_reused");
        let other = send(&mut client, &path, "another", &body).expect(409).json();
        assert_eq!(other["code"], "run_finished");
    }
}

#[test]
fn an_update_whose_node_failed_says_so_again() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&Options::serve(directory.path()));
    let mut client = node.client();
    let document = json!({"name": "fails", "nodes": {
        "ask": {"type": "wait", "with": {"signal": "go", "reply": "tell"}},
        "tell": {"type": "function", "needs": ["ask"], "on_error": "continue", "with": {"expr": "1 / input"}},
        "stop": {"type": "wait", "needs": ["tell"], "with": {"signal": "stop"}}}});
    let run = start(&mut client, &document);
    let path = format!("/v1/runs/{run}/updates/go");
    let first = send(&mut client, &path, "k", &json!({"payload": 0})).expect(200).json();
    assert_eq!(
        (&first["state"], &first["error"]["code"]),
        (&json!("failed"), &json!("expression_division_by_zero"))
    );
    for live in [true, false] {
        let again = send(&mut client, &path, "k", &json!({"payload": 0})).expect(200);
        assert!(replayed(&again));
        let again = again.json();
        assert_eq!((&again["state"], &again["error"]), (&first["state"], &first["error"]), "{again}");
        if live {
            client.post(&format!("/v1/runs/{run}/signals/stop"), &json!({})).expect(200);
            ended(&mut client, &run);
        }
    }
}

#[test]
fn whoever_sends_an_update_again_waits_with_the_first_across_kill_9() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options::serve(directory.path());
    let node = Node::start(&options);
    let mut client = node.client();
    let document = json!({"name": "work", "nodes": {
        "ask": {"type": "wait", "with": {"signal": "go", "reply": "do"}},
        "do": {"type": "task", "needs": ["ask"], "with": {"queue": "q"}},
        "stop": {"type": "wait", "needs": ["do"], "with": {"signal": "stop"}}}});
    let run = start(&mut client, &document);
    let path = format!("/v1/runs/{run}/updates/go");
    let ask = |client: &mut Client, path: &str, seconds: &str| {
        let headers = [("content-type", "application/json"), ("idempotency-key", "k"), ("prefer", seconds)];
        client.request("POST", path, &headers, br#"{"payload": 1}"#)
    };
    let (mut other, first) = (node.client(), path.clone());
    let waiting = in_background(move || ask(&mut other, &first, "wait=60").is_ok());
    while count(&mut client, &run, "request.remembered") == 0 {}
    let early = ask(&mut client, &path, "wait=0").unwrap().expect(202);
    assert!(replayed(&early));
    node.kill();
    assert!(!waiting.join().unwrap(), "nobody was answered");

    let node = Node::start(&options);
    let mut client = node.client();
    let (mut other, second) = (node.client(), path.clone());
    let waiting = in_background(move || ask(&mut other, &second, "wait=60").unwrap());
    let poll = json!({"queues": ["q"], "wait_ms": 60_000});
    let job = client.post("/v1/workers/poll", &poll).expect(200).json()["jobs"][0].clone();
    client.post("/v1/workers/complete", &json!({"lease": job["lease"], "output": "done"})).expect(200);
    let answer = waiting.join().unwrap().expect(200);
    assert!(replayed(&answer));
    assert_eq!((&answer.json()["state"], &answer.json()["output"]), (&json!("completed"), &json!("done")));
    assert_eq!(answer.json()["received_seq"], early.json()["received_seq"]);
    assert_eq!(count(&mut client, &run, "signal.received"), 1);
}

#[test]
fn a_patch_is_made_once_and_taken_back_once() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options::serve(directory.path());
    let node = Node::start(&options);
    let mut client = node.client();
    let run = start(&mut client, &walk());
    let path = format!("/v1/runs/{run}/patches");
    let answers = at_once(&node, &path, &add("email", "process"));
    let bodies: BTreeSet<String> = answers.iter().map(|answer| answer.json().to_string()).collect();
    assert_eq!(bodies.len(), 1, "{bodies:?}");
    assert_eq!(answers.iter().filter(|answer| !replayed(answer)).count(), 1);
    assert!(answers.iter().all(|answer| answer.status == 202 && answer.header("location").is_some()));
    let first = answers[0].json();
    assert_eq!((&first["graph_version"], &first["state"]), (&json!(2), &json!("applied")));
    assert_eq!(
        (count(&mut client, &run, "patch.applied"), count(&mut client, &run, "patch.rejected")),
        (1, 0)
    );
    let reused = send(&mut client, &path, "together", &add("sms", "process")).expect(422).json();
    assert_eq!(reused["code"], "idempotency_key_reused");
    // The seed's own routes are the same route.
    let old =
        send(&mut client, &format!("/runs/{run}/patch"), "together", &add("email", "process")).expect(202);
    assert!(replayed(&old));
    assert_eq!(old.json(), first);
    // Without its key it is another patch, which finds the node there.
    assert!(client.post(&path, &add("email", "process")).status >= 400);

    let back = format!("{path}/{}/revoke", first["patch_id"].as_str().unwrap());
    let answers = at_once(&node, &back, &json!({"reason": "no"}));
    let bodies: BTreeSet<String> = answers.iter().map(|answer| answer.json().to_string()).collect();
    assert_eq!((bodies.len(), answers[0].status), (1, 202), "{bodies:?}");
    assert_eq!(count(&mut client, &run, "patch.revoked"), 1);
    let revoked = answers[0].json();
    assert_eq!(revoked["revoked"], json!([first["patch_id"]]));
    node.kill();
    let node = Node::start(&options);
    let mut client = node.client();
    let again = |client: &mut Client| {
        let made = send(client, &path, "together", &add("email", "process")).expect(202);
        assert!(replayed(&made));
        assert_eq!(made.json(), first);
        let gone = send(client, &back, "together", &json!({"reason": "no"})).expect(202);
        assert!(replayed(&gone));
        assert_eq!(gone.json(), revoked);
    };
    again(&mut client);
    client.post(&format!("/v1/runs/{run}/signals/go"), &json!({})).expect(200);
    ended(&mut client, &run);
    again(&mut client);
    // A key stands for nothing when what it came with was refused.
    let run = start(&mut client, &walk());
    let path = format!("/v1/runs/{run}/patches");
    let missing = json!({"operations": [{"op": "remove", "path": "/nodes/none"}], "base_version": 1});
    for refused in 1..=2 {
        let answer = send(&mut client, &path, "k", &missing);
        assert!((400..500).contains(&answer.status) && !replayed(&answer), "{}", answer.json());
        assert_eq!(count(&mut client, &run, "patch.rejected"), refused);
    }
    send(&mut client, &path, "k", &add("email", "process")).expect(202);
}

#[test]
fn a_fork_knows_no_keys_and_a_record_with_keys_is_verified() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&Options::serve(directory.path()));
    let mut client = node.client();
    let run = start(&mut client, &walk());
    send(&mut client, &format!("/v1/runs/{run}/signals/later"), "k", &json!({"payload": 1})).expect(202);
    send(&mut client, &format!("/v1/runs/{run}/patches"), "p", &add("email", "process")).expect(202);
    let at = events(&mut client, &run).len();
    let fork = client.post(&format!("/v1/runs/{run}/fork"), &json!({"at": at})).expect(202).json();
    let fork = fork["run_id"].as_str().unwrap();
    let path = format!("/v1/runs/{fork}/signals/later");
    assert!(!replayed(&send(&mut client, &path, "k", &json!({"payload": 2})).expect(202)));
    for run in [run.as_str(), fork] {
        send(&mut client, &format!("/v1/runs/{run}/signals/go"), "go", &json!({"payload": 7})).expect(202);
        ended(&mut client, run);
        let bundle = client.get(&format!("/v1/runs/{run}/bundle")).expect(200);
        let file = directory.path().join("bundle");
        std::fs::write(&file, &bundle.body).unwrap();
        let verified =
            Command::new(env!("CARGO_BIN_EXE_aob")).args(["replay", "--bundle"]).arg(&file).output().unwrap();
        assert!(verified.status.success(), "{verified:?}");
    }
    // And in the fork's history it is the fork's own.
    assert!(replayed(&send(&mut client, &path, "k", &json!({"payload": 2})).expect(202)));
    let reused = send(&mut client, &path, "k", &json!({"payload": 1})).expect(422).json();
    assert_eq!(reused["code"], "idempotency_key_reused");
}

#[test]
fn a_schedule_is_triggered_once_for_a_key() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options::serve(directory.path());
    let node = Node::start(&options);
    let mut client = node.client();
    client.post("/v1/workflows", &walk()).expect(201);
    let schedule = json!({"name": "nightly", "workflow": "walk", "cron": "0 0 1 1 *", "paused": true});
    client.post("/v1/schedules", &schedule).expect(201);
    let path = "/v1/schedules/nightly/trigger";
    let answers = at_once(&node, path, &json!({}));
    let runs: BTreeSet<String> = answers.iter().map(|answer| answer.json()["run_id"].to_string()).collect();
    assert_eq!(runs.len(), 1, "{runs:?}");
    assert_eq!(answers.iter().filter(|answer| !replayed(answer)).count(), 1);
    let run = answers[0].json()["run_id"].clone();
    node.kill();
    let node = Node::start(&options);
    let mut client = node.client();
    let again = send(&mut client, path, "together", &json!({})).expect(202);
    assert!(replayed(&again));
    assert_eq!(again.json()["run_id"], run);
    let other = send(&mut client, path, "another", &json!({})).expect(202);
    assert!(!replayed(&other));
    assert_ne!(other.json()["run_id"], run);
    let listed = client.get("/v1/runs?workflow=walk").expect(200).json();
    assert_eq!(listed["runs"].as_array().unwrap().len(), 2);
    // A forgotten run is no reason to start another one.
    let run = run.as_str().unwrap();
    client.post(&format!("/v1/runs/{run}/terminate"), &json!({})).expect(200);
    let erased =
        |client: &mut Client| client.request("DELETE", &format!("/v1/runs/{run}"), &[], b"").unwrap();
    // It is erased once the index has it.
    while erased(&mut client).status != 204 {}
    send(&mut client, path, "together", &json!({})).expect(404);
    assert_eq!(send(&mut client, path, "", &json!({})).expect(400).json()["code"], "invalid_idempotency_key");
}
