//! Patches of a workflow's scope, with the real binaries: new runs begin with them, and say so; nothing else changes.

use std::process::Command;

use serde_json::{Value, json};

use crate::harness::{Client, Node, Options};
use crate::patches::{add, ended, signal, walk};

fn start(client: &mut Client, body: &Value) -> String {
    let started = client.post("/v1/runs", body).expect(202).json();
    started["run_id"].as_str().unwrap().to_owned()
}

fn run(client: &mut Client, run: &str) -> Value {
    client.get(&format!("/v1/runs/{run}")).expect(200).json()
}

const PATCHES: &str = "/v1/workflows/walk/patches";

// F112, F017, F095, D2
#[test]
fn new_runs_begin_with_the_patches_of_their_workflow() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options::serve(directory.path());
    let node = Node::start(&options);
    let mut client = node.client();
    let base = client.post("/v1/workflows", &walk()).expect(201).json()["hash"].clone();
    let old = start(&mut client, &json!({"workflow": "walk"}));
    let made = client.post(PATCHES, &add("copy", "process")).expect(202);
    let place = made.header("location").unwrap().to_owned();
    let made = made.json();
    assert_eq!((&made["state"], &made["overlay_version"]), (&json!("applied"), &json!(2)));
    let second = client.post(PATCHES, &add("more", "copy")).expect(202).json();
    let new = start(&mut client, &json!({"workflow": "walk"}));
    // What it began with stands in the run, and in its log.
    let shown = run(&mut client, &new);
    assert_eq!((&shown["hash"], &shown["layered"]["base"]), (&second["hash"], &base));
    assert_eq!(shown["layered"]["patches"], json!([made["patch_id"], second["patch_id"]]));
    let page = client.get(&format!("/v1/runs/{new}/timeline")).expect(200).json();
    let row = page["events"].as_array().unwrap().iter().find(|row| row["type"] == "run.layered").unwrap();
    assert_eq!((&row["seq"], &row["base"]), (&json!(2), &base), "{row}");
    // A run's own patches stand on top; what ran before knows nothing.
    client.post(&format!("/v1/runs/{new}/patches"), &add("own", "more")).expect(202);
    assert!(run(&mut client, &old)["layered"].is_null());
    node.kill();
    let node = Node::start(&options);
    let mut client = node.client();
    for (id, outputs) in [(&old, json!({"process": 7})), (&new, json!({"own": 7}))] {
        signal(&mut client, id);
        assert_eq!(ended(&mut client, id)["outputs"], outputs);
    }
    let shown = run(&mut client, &new);
    assert_eq!(shown["layered"]["patches"].as_array().unwrap().len(), 2, "when it is over too: {shown}");
    // The same base and the same patches are the same document, after a restart too.
    let again = start(&mut client, &json!({"workflow": "walk"}));
    assert_eq!(run(&mut client, &again)["hash"], second["hash"]);
    // The registered document stays what it is.
    assert_eq!(client.get("/v1/workflows/walk").expect(200).json()["hash"], base);
    let shown = client.get(&place).expect(200).json();
    assert_eq!(
        (&shown["state"], &shown["operations"][0]["path"]),
        (&json!("applied"), &json!("/nodes/copy"))
    );
}

// F112, F096: checked like any other, taken back with what builds on it, and rebased or said to be left out.
#[test]
fn patches_of_a_workflow_are_checked_taken_back_and_never_dropped_unsaid() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&Options::serve(directory.path()));
    let mut client = node.client();
    client.post("/v1/workflows", &walk()).expect(201);
    client.post("/v1/workflows/nothing/patches", &add("copy", "process")).expect(404);
    let cycle = json!({"operations": [{"op": "add", "path": "/edges/-", "value": {"from": "process", "to": "process"}}]});
    assert_eq!(client.post(PATCHES, &cycle).expect(422).json()["code"], "patch_graph_invalid");
    let bad = json!({"operations": [{"op": "frob", "path": "/nodes/x"}]});
    assert_eq!(client.post(PATCHES, &bad).expect(422).json()["code"], "patch_invalid");
    let mut scoped = add("copy", "process");
    scoped["scope"] = "workflow".into();
    let id = start(&mut client, &json!({"workflow": "walk"}));
    let told = client.post(&format!("/v1/runs/{id}/patches"), &scoped).expect(422).json();
    assert!(told["detail"].as_str().unwrap().contains("/v1/workflows/{name}/patches"), "{told}");
    let first = client.post(PATCHES, &scoped).expect(202).json();
    let second = client.post(PATCHES, &add("more", "copy")).expect(202).json();
    let apart = client.post(PATCHES, &add("apart", "process")).expect(202).json();
    let replace = json!({"base_version": 2, "operations": [
        {"op": "replace", "path": "/nodes/more/with/expr", "value": "1"}]});
    let conflict = client.post(PATCHES, &replace).expect(409).json();
    assert_eq!((&conflict["code"], &conflict["errors"][0]["version"]), (&json!("patch_conflict"), &json!(4)));
    let place =
        |patch: &Value, verb: &str| format!("{PATCHES}/{}/{verb}", patch["patch_id"].as_str().unwrap());
    let refused = client.post(&place(&first, "revoke"), &json!({})).expect(409).json();
    assert_eq!(refused["code"], "patch_has_dependants");
    // A version in which `process` is another: what touches it is left out, and said so.
    let other = json!({"name": "walk", "version": "2", "nodes": {
        "fetch": {"type": "wait", "with": {"signal": "go"}},
        "process": {"type": "function", "needs": ["fetch"], "with": {"expr": "input"}},
        "copy": {"type": "function", "needs": ["process"], "with": {"expr": "input + 1"}}}});
    client.post("/v1/workflows", &other).expect(201);
    let id = start(&mut client, &json!({"workflow": "walk"}));
    let layered = run(&mut client, &id)["layered"].clone();
    assert_eq!(layered["patches"], json!([apart["patch_id"]]), "{layered}");
    let left: Vec<_> = layered["left_out"].as_array().unwrap().iter().map(|row| &row["patch_id"]).collect();
    assert_eq!(left, [&first["patch_id"], &second["patch_id"]]);
    let list = client.get(PATCHES).expect(200).json();
    assert_eq!(list["latest"]["version"], "2");
    assert!(list["patches"][0]["left_out"].is_string() && list["patches"][2]["left_out"].is_null(), "{list}");
    let of_old = start(&mut client, &json!({"workflow": "walk@1"}));
    assert_eq!(run(&mut client, &of_old)["layered"]["patches"].as_array().unwrap().len(), 3);
    let gone =
        client.post(&place(&first, "revoke"), &json!({"cascade": true, "reason": "no"})).expect(202).json();
    assert_eq!((&gone["overlay_version"], gone["revoked"].as_array().unwrap().len()), (&json!(5), 2));
    assert_eq!(client.post(&place(&first, "revoke"), &json!({})).expect(409).json()["code"], "patch_revoked");
    assert_eq!(
        client.post(&place(&apart, "approve"), &json!({})).expect(409).json()["code"],
        "patch_decided"
    );
    let id = start(&mut client, &json!({"workflow": "walk@1"}));
    assert_eq!(run(&mut client, &id)["layered"]["patches"], json!([apart["patch_id"]]));
    let own = start(&mut client, &json!({"workflow": "walk", "inputs": {}}));
    signal(&mut client, &own);
    ended(&mut client, &own);
}

// F111: a tag is resolved at the start, and every move of it is remembered.
#[test]
fn a_tag_pins_what_it_stood_for_and_its_moves_are_remembered() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options::serve(directory.path());
    let node = Node::start(&options);
    let mut client = node.client();
    let mut versions = Vec::new();
    for version in ["1", "2"] {
        let mut document = walk();
        document["version"] = version.into();
        document["metadata"] = json!({"of": version});
        versions.push(client.post("/v1/workflows", &document).expect(201).json()["hash"].clone());
    }
    let tag = |client: &mut Client, version: &str| {
        let body = json!({"version": version}).to_string();
        let headers = [("content-type", "application/json")];
        client.request("PUT", "/v1/workflows/walk/tags/main", &headers, body.as_bytes()).unwrap().expect(200);
    };
    tag(&mut client, "1");
    let first = start(&mut client, &json!({"workflow": "walk", "tag": "main"}));
    tag(&mut client, "2");
    tag(&mut client, "2");
    let second = start(&mut client, &json!({"workflow": "walk@main"}));
    let hashes = [first, second].map(|id| run(&mut client, &id)["hash"].clone());
    assert_eq!(hashes.to_vec(), versions);
    client.request("DELETE", "/v1/workflows/walk/tags/main", &[], b"").unwrap().expect(200);
    node.kill();
    let node = Node::start(&options);
    let mut client = node.client();
    let told = client.get("/v1/workflows/walk/tags/main/history").expect(200).json();
    let moves: Vec<_> =
        told["moves"].as_array().unwrap().iter().map(|row| (&row["from"], &row["to"])).collect();
    let (one, two, none) = (json!("1"), json!("2"), Value::Null);
    assert_eq!(moves, [(&none, &one), (&one, &two), (&two, &none)], "{told}");
    assert_eq!(told["moves"][0]["by"], "anyone");
    client.get("/v1/workflows/walk/tags/never/history").expect(404);
    let aob = |arguments: &[&str]| {
        let url = format!("http://{}", node.address);
        let mut command = Command::new(env!("CARGO_BIN_EXE_aob"));
        let made = command.args(["--url", &url, "--output", "table"]).args(arguments).output().unwrap();
        assert!(made.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&made.stderr));
        String::from_utf8(made.stdout).unwrap()
    };
    assert_eq!(aob(&["workflow", "tag", "walk", "main", "--history"]).lines().count(), 4);
    let file = directory.path().join("patch.json");
    std::fs::write(&file, add("copy", "process")["operations"].to_string()).unwrap();
    let made = aob(&["patch", "propose", "walk", file.to_str().unwrap(), "--justification", "a copy"]);
    let patch = made.split_whitespace().next().unwrap().to_owned();
    assert!(patch.starts_with("wpatch_") && patch.ends_with("_walk") && made.contains("version 2"), "{made}");
    assert!(aob(&["patch", "list", "walk"]).contains(&patch));
    assert!(aob(&["patch", "show", &patch]).contains("a copy"));
    assert!(aob(&["patch", "revoke", &patch]).contains("version 3"));
}

// F111
#[test]
fn a_patch_of_a_workflow_is_made_and_taken_back_once_under_a_key_across_a_crash() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options::serve(directory.path());
    let node = Node::start(&options);
    let mut client = node.client();
    client.post("/v1/workflows", &walk()).expect(201);
    let json_with = |key| [("content-type", "application/json"), ("idempotency-key", key)];
    let body = add("copy", "process").to_string();
    let first =
        client.request("POST", PATCHES, &json_with("once"), body.as_bytes()).unwrap().expect(202).json();
    node.kill();
    let node = Node::start(&options);
    let mut client = node.client();
    let again = client.request("POST", PATCHES, &json_with("once"), body.as_bytes()).unwrap().expect(202);
    assert_eq!((again.header("idempotent-replayed"), again.json()), (Some("true"), first.clone()));
    let other = add("other", "process").to_string();
    let refused = client.request("POST", PATCHES, &json_with("once"), other.as_bytes()).unwrap().expect(422);
    assert_eq!(refused.json()["code"], "idempotency_key_reused");
    let revoke = format!("{PATCHES}/{}/revoke", first["patch_id"].as_str().unwrap());
    let gone = client.request("POST", &revoke, &json_with("back"), b"{}").unwrap().expect(202).json();
    let again = client.request("POST", &revoke, &json_with("back"), b"{}").unwrap().expect(202);
    assert_eq!((again.header("idempotent-replayed"), again.json()), (Some("true"), gone));
    client.request("POST", &revoke, &json_with("other"), b"{}").unwrap().expect(409);
    client.request("POST", &revoke, &json_with("back"), br#"{"reason": "r"}"#).unwrap().expect(422);
    // What was made under it was taken back; it is not made again.
    client.request("POST", PATCHES, &json_with("once"), body.as_bytes()).unwrap().expect(202);
    let listed = client.get(PATCHES).expect(200).json();
    assert_eq!(listed["patches"].as_array().unwrap().len(), 1, "{listed}");
    assert_eq!(listed["overlay_version"], 3, "{listed}");
}

// F108, F324
#[test]
fn a_patch_of_a_workflow_reaches_no_further_than_its_runs_and_speaks_for_no_policy() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&Options::serve(directory.path()));
    let mut client = node.client();
    client.post("/v1/workflows", &walk()).expect(201);
    let node_of = |value: Value| json!({"operations": [{"op": "add", "path": "/nodes/new", "value": value}]});
    let url = node_of(json!({"type": "http", "with": {"url": "http://169.254.169.254/latest/meta-data"}}));
    let refused = client.post(PATCHES, &url).expect(403).json();
    assert_eq!(refused["code"], "patch_forbidden", "{refused}");
    let gate = node_of(json!({"type": "human_review", "with": {"reviewers": ["me"], "policy": "tag money"}}));
    let refused = client.post(PATCHES, &gate);
    assert!(matches!(refused.status, 403 | 422), "{}", refused.json());
    assert_eq!(client.get(PATCHES).expect(200).json()["patches"], json!([]));
}
