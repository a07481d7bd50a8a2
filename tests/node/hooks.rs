//! Runs started by signed messages: who sends them, how often, and what becomes of the same message sent again.

use aob::exec::standard_webhooks::Secret;
use aob::time::{Clock as _, SystemClock};
use serde_json::{Value, json};

use crate::harness::http::Response;
use crate::harness::{Client, Node, Options};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

fn register(client: &mut Client) {
    let document = json!({"name": "take", "inputs": {"type": "object", "required": ["n"]},
        "nodes": {"a": {"type": "function", "with": {"expr": "inputs.n"}}}, "outputs": {"n": "${ nodes.a.output }"}});
    client.post("/v1/workflows", &document).expect(201);
}

fn make(client: &mut Client, body: &Value) -> (String, Secret) {
    let made = client.post("/v1/hooks", body).expect(201).json();
    assert_eq!(made["url"], format!("/v1/hooks/{}", made["id"].as_str().unwrap()));
    (made["id"].as_str().unwrap().to_owned(), made["secret"].as_str().unwrap().parse().unwrap())
}

fn now() -> u64 {
    SystemClock.now().as_micros() / 1_000_000
}

/// Sends a message; `at` is its second, and `extra` stands beside or in place of its headers.
fn send(client: &mut Client, hook: &str, (secret, id, at): (&Secret, &str, u64), body: &str) -> Response {
    let signature = secret.sign(id, at, body.as_bytes());
    let at = at.to_string();
    let headers = [
        ("content-type", "application/json"),
        ("webhook-id", id),
        ("webhook-timestamp", &at),
        ("webhook-signature", &signature),
    ];
    client.request("POST", &format!("/v1/hooks/{hook}"), &headers, body.as_bytes()).unwrap()
}

#[test]
fn a_signed_message_starts_a_run_once() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options::serve(directory.path());
    let node = Node::start(&options);
    let mut client = node.client();
    register(&mut client);
    let (hook, secret) = make(&mut client, &json!({"name": "pay", "workflow": "take"}));
    let first = send(&mut client, &hook, (&secret, "msg_1", now()), r#"{"n": 5}"#).expect(202);
    assert_eq!(first.header("idempotent-replayed"), None);
    let run = first.json()["run_id"].as_str().unwrap().to_owned();
    let ended = client.request("GET", &format!("/v1/runs/{run}"), &[("prefer", "wait=30")], b"").unwrap();
    let ended = ended.expect(200).json();
    assert_eq!(
        (&ended["outputs"]["n"], &ended["run_key"]),
        (&json!(5), &json!(format!("hook/{hook}/msg_1")))
    );
    // Again: at another second, with another body, with the node killed in between.
    for (at, body) in [(now(), r#"{"n": 5}"#), (now() - 60, r#"{"n": 6}"#)] {
        let again = send(&mut client, &hook, (&secret, "msg_1", at), body).expect(202);
        assert_eq!(again.header("idempotent-replayed"), Some("true"));
        assert_eq!(again.json()["run_id"], run.as_str());
    }
    node.kill();
    let node = Node::start(&options);
    let mut client = node.client();
    let again = send(&mut client, &hook, (&secret, "msg_1", now()), r#"{"n": 5}"#).expect(202);
    assert_eq!((again.header("idempotent-replayed"), &again.json()["run_id"]), (Some("true"), &json!(run)));
    let other = send(&mut client, &hook, (&secret, "msg_2", now()), r#"{"n": 5}"#).expect(202);
    assert_ne!(other.json()["run_id"], run.as_str());
    // An id that is too long for a business key still names one run.
    let long = format!("msg_{}", "x".repeat(250));
    let one = send(&mut client, &hook, (&secret, &long, now()), r#"{"n": 5}"#).expect(202).json();
    let two = send(&mut client, &hook, (&secret, &long, now()), r#"{"n": 5}"#).expect(202).json();
    assert_eq!(one["run_id"], two["run_id"]);
    assert_eq!(client.get("/v1/runs?limit=100").json()["runs"].as_array().unwrap().len(), 3);
}

#[test]
fn a_message_that_proves_nothing_is_refused_without_saying_why() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&Options::serve(directory.path()));
    let mut client = node.client();
    register(&mut client);
    let (hook, secret) = make(&mut client, &json!({"name": "pay", "workflow": "take"}));
    let path = format!("/v1/hooks/{hook}");
    let body = r#"{"n": 5}"#;
    let at = now();
    let (good, time) = (secret.sign("msg_1", at, body.as_bytes()), at.to_string());
    let other: Secret = SECRET.parse().unwrap();
    let foreign = other.sign("msg_1", at, body.as_bytes());
    let old = secret.sign("msg_1", at - 400, body.as_bytes());
    let new = secret.sign("msg_1", at + 400, body.as_bytes());
    let (early, late) = ((at - 400).to_string(), (at + 400).to_string());
    let (time, good) = (time.as_str(), good.as_str());
    let mut said = std::collections::BTreeSet::new();
    for (id, time, signature) in [
        ("msg_1", time, foreign.as_str()),
        ("msg_2", time, good),
        ("msg_1", early.as_str(), old.as_str()),
        ("msg_1", late.as_str(), new.as_str()),
        ("msg_1", time, ""),
        ("", time, good),
        ("msg_1", "soon", good),
    ] {
        let headers = [
            ("content-type", "application/json"),
            ("webhook-id", id),
            ("webhook-timestamp", time),
            ("webhook-signature", signature),
        ];
        let refused = client.request("POST", &path, &headers, body.as_bytes()).unwrap().expect(401).json();
        said.insert(refused["detail"].as_str().unwrap().to_owned());
        assert_eq!(refused["code"], "signature_refused");
    }
    let json = [("content-type", "application/json")];
    client.request("POST", &path, &json, body.as_bytes()).unwrap().expect(401);
    let twice = [
        ("content-type", "application/json"),
        ("webhook-id", "msg_1"),
        ("webhook-id", "msg_1"),
        ("webhook-timestamp", time),
        ("webhook-signature", good),
    ];
    client.request("POST", &path, &twice, body.as_bytes()).unwrap().expect(401);
    assert_eq!(said.len(), 1, "{said:?}");
    client.request("POST", &path, &[("content-type", "text/plain")], body.as_bytes()).unwrap().expect(415);
    let huge = format!("{{\"n\": \"{}\"}}", "x".repeat(1 << 20));
    let refused = send(&mut client, &hook, (&secret, "msg_1", at), &huge).expect(413).json();
    assert_eq!(refused["limit"], "hook_body_bytes_max");
    let mut client = node.client();
    for (message, status, code) in [("{\"n\": 5", 400, "malformed_json"), ("{}", 422, "invalid_inputs")] {
        let refused = send(&mut client, &hook, (&secret, "msg_1", at), message).expect(status).json();
        assert_eq!(refused["code"], code, "{refused}");
    }
    let unknown = format!("hook_{}", "0".repeat(32));
    send(&mut client, &unknown, (&secret, "msg_1", at), body).expect(404);
    send(&mut client, "nothing", (&secret, "msg_1", at), body).expect(404);
    assert_eq!(client.get("/v1/runs").json()["runs"], json!([]));
    // None of it has used the id up.
    send(&mut client, &hook, (&secret, "msg_1", at), body).expect(202);
}

#[test]
fn a_secret_is_rotated_with_an_overlap_and_lies_nowhere_in_the_open() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&Options::serve(directory.path()));
    let mut client = node.client();
    register(&mut client);
    let (hook, first) = make(&mut client, &json!({"name": "pay", "workflow": "take", "secret": SECRET}));
    assert_eq!(first, SECRET.parse().unwrap());
    let path = format!("/v1/hooks/{hook}");
    let body = r#"{"n": 5}"#;
    let shown = client.get(&path).expect(200).json();
    assert!(shown.get("secret").is_none() && shown["previous_secret_until"].is_null(), "{shown}");
    let turned = client.post(&format!("{path}/rotate"), &json!({"overlap": "1h"})).expect(200).json();
    let second: Secret = turned["secret"].as_str().unwrap().parse().unwrap();
    assert!(turned["previous_secret_until"].is_string());
    send(&mut client, &hook, (&first, "a", now()), body).expect(202);
    send(&mut client, &hook, (&second, "b", now()), body).expect(202);
    // A third: the first is good no more, and the second at once neither.
    let turned = client.post(&format!("{path}/rotate"), &json!({"overlap": "0s"})).expect(200).json();
    let third: Secret = turned["secret"].as_str().unwrap().parse().unwrap();
    for (secret, status) in [(&first, 401), (&second, 401), (&third, 202)] {
        send(&mut client, &hook, (secret, "c", now()), body).expect(status);
    }
    let listed = client.get("/v1/hooks").expect(200).json();
    assert_eq!(listed["hooks"][0]["id"], hook.as_str());
    assert!(!listed.to_string().contains("whsec_"));
    for (member, value, code) in [
        ("secret", "whsec_short", "invalid_secret"),
        ("mapping", "inputs.x", "invalid_mapping"),
        ("mapping", "input +", "invalid_mapping"),
        ("name", "a b", "invalid_name"),
    ] {
        let mut body = json!({"name": "pay", "workflow": "take"});
        body[member] = value.into();
        assert_eq!(client.post("/v1/hooks", &body).expect(422).json()["code"], code, "{member}");
    }
    let long = client.post(&format!("{path}/rotate"), &json!({"overlap": "31d"})).expect(422).json();
    assert_eq!(long["code"], "invalid_duration");
    client.post("/v1/hooks", &json!({"name": "pay", "workflow": "none"})).expect(404);
    node.kill();
    // Neither as text nor as bytes.
    let raw = [first.bytes(), second.bytes(), third.bytes()];
    let mut folders = vec![directory.path().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
                continue;
            }
            let bytes = std::fs::read(entry.path()).unwrap();
            for secret in &raw {
                assert!(!bytes.windows(secret.len()).any(|part| part == *secret), "{:?}", entry.path());
            }
            assert!(!bytes.windows(6).any(|part| part == b"whsec_"), "{:?}", entry.path());
        }
    }
    let node = Node::start(&Options::serve(directory.path()));
    let mut client = node.client();
    send(&mut client, &hook, (&third, "d", now()), body).expect(202);
    assert_eq!(client.request("DELETE", &path, &[], b"").unwrap().status, 204);
    send(&mut client, &hook, (&third, "d", now()), body).expect(404);
    client.request("DELETE", &path, &[], b"").unwrap().expect(404);
}

#[test]
fn a_mapping_makes_inputs_of_a_message() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&Options::serve(directory.path()));
    let mut client = node.client();
    register(&mut client);
    let mapped = json!({"name": "pay", "workflow": "take@1", "mapping": "{'n': input.data.amount * 2}"});
    let (hook, secret) = make(&mut client, &mapped);
    let started = send(&mut client, &hook, (&secret, "a", now()), r#"{"data": {"amount": 21}}"#).expect(202);
    let run = client.get(&format!("/v1/runs/{}", started.json()["run_id"].as_str().unwrap())).expect(200);
    assert_eq!(run.json()["inputs"], json!({"n": 42}));
    let refused = send(&mut client, &hook, (&secret, "b", now()), r#"{"data": {}}"#).expect(422).json();
    assert_eq!(refused["code"], "mapping_failed");
}

#[test]
fn a_hook_takes_so_many_messages_and_no_more() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&Options::serve(directory.path()));
    let mut client = node.client();
    register(&mut client);
    let (hook, _) = make(&mut client, &json!({"name": "pay", "workflow": "take"}));
    let (quiet, secret) = make(&mut client, &json!({"name": "quiet", "workflow": "take"}));
    let path = format!("/v1/hooks/{hook}");
    let json = [("content-type", "application/json")];
    let refused = (0..5_000).find_map(|_| {
        let answer = client.request("POST", &path, &json, b"{}").unwrap();
        assert!(matches!(answer.status, 401 | 429), "{}", answer.status);
        (answer.status == 429).then_some(answer)
    });
    let refused = refused.expect("somebody who guesses is held back");
    assert_eq!(refused.json()["limit"], "hook_requests_per_second");
    assert!(refused.header("retry-after").is_some());
    send(&mut client, &quiet, (&secret, "a", now()), r#"{"n": 1}"#).expect(202);
}
