//! Artifacts of patches, with the real binaries: made in batches, waited for, found again after a kill, gone with their run.

use serde_json::{Value, json};

use crate::harness::http::Response;
use crate::harness::{Client, Node, Options};

/// A long while: nothing is stored unless something else makes it be.
const HOUR: &str = "3600000";

fn waiting() -> Value {
    json!({"name": "walk", "version": "1", "nodes": {"fetch": {"type": "wait", "with": {"signal": "go"}}}})
}

fn start(client: &mut Client) -> String {
    client.post("/v1/workflows", &waiting());
    let started = client.post("/v1/runs", &json!({"workflow": "walk"})).expect(202).json();
    started["run_id"].as_str().unwrap().to_owned()
}

fn add(id: &str) -> Value {
    json!({"operations": [
        {"op": "add", "path": format!("/nodes/{id}"), "value": {"type": "function", "with": {"expr": "1"}}}]})
}

/// The same, behind the node that waits.
fn add_behind(id: &str) -> Value {
    let mut body = add(id);
    let edge =
        json!({"op": "add", "path": format!("/edges/fetch~1{id}"), "value": {"from": "fetch", "to": id}});
    body["operations"].as_array_mut().unwrap().push(edge);
    body
}

fn patch(client: &mut Client, run: &str, id: &str, (query, prefer): (&str, &str)) -> Response {
    let path = format!("/v1/runs/{run}/patches{query}");
    let headers = [("content-type", "application/json"), ("prefer", prefer)];
    client.request("POST", &path, &headers, add(id).to_string().as_bytes()).unwrap()
}

fn artifacts(client: &mut Client, run: &str) -> Vec<Value> {
    let list = client.get(&format!("/v1/runs/{run}/artifacts")).expect(200).json();
    assert_eq!(list["run_id"], run);
    list["artifacts"].as_array().unwrap().clone()
}

/// Asks until there are so many.
fn until(client: &mut Client, run: &str, count: usize) -> Vec<Value> {
    for _ in 0..100_000 {
        let found = artifacts(client, run);
        if found.len() == count {
            return found;
        }
    }
    panic!("{run} has no {count} artifacts: {:?}", artifacts(client, run));
}

fn lag(client: &mut Client) -> u64 {
    let lag = client.get("/v1/node").expect(200).json()["materializer"]["lag_patches"].as_u64().unwrap();
    let metrics = client.get("/metrics").expect(200);
    let text = String::from_utf8(metrics.body).unwrap();
    assert!(text.contains(&format!("aob_materializer_lag_patches {lag}\n")), "{text}");
    lag
}

/// Waits until so many patches are noted as waiting: an author is answered without that.
fn until_waiting(client: &mut Client, count: u64) {
    while client.get("/v1/node").expect(200).json()["materializer"]["lag_patches"] != count {}
}

/// Is the artifact the document of that version, with its hash?
fn assert_whole(client: &mut Client, run: &str, artifact: &Value) {
    let (hash, version) = (artifact["hash"].as_str().unwrap(), artifact["version"].as_u64().unwrap());
    let stored = client.get(&format!("/v1/cas/{hash}")).expect(200);
    assert_eq!(stored.body.len() as u64, artifact["bytes"].as_u64().unwrap());
    let graph = client.get(&format!("/v1/runs/{run}/graph")).expect(200).json();
    if graph["graph_version"] == json!(version) {
        assert_eq!(stored.json(), graph["document"]);
    }
    assert_eq!(stored.json()["nodes"].as_object().unwrap().len() as u64, version);
}

// F102, F119, F120, F132
#[test]
fn who_waits_is_told_when_the_artifact_is_stored_and_who_does_not_is_answered_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&Options::serve(directory.path()).set("materializer.window_ms", "50"));
    let mut client = node.client();
    let run = start(&mut client);
    assert_eq!(artifacts(&mut client, &run), [] as [Value; 0]);
    let made = patch(&mut client, &run, "a", ("?wait=materialized", "")).expect(201);
    assert!(made.header("location").unwrap().contains("/patches/patch_"));
    assert_eq!(made.header("preference-applied"), None);
    let made = made.json();
    assert_eq!(made["graph_version"], 2);
    let made_too = patch(&mut client, &run, "b", ("", "wait=20")).expect(201);
    assert_eq!(made_too.header("preference-applied"), Some("wait=20"));
    let made_too = made_too.json();
    let found = artifacts(&mut client, &run);
    for (artifact, made) in found.iter().zip([&made, &made_too]) {
        assert_eq!((&artifact["version"], &artifact["hash"]), (&made["graph_version"], &made["hash"]));
        assert_whole(&mut client, &run, artifact);
    }
    assert_eq!((found.len(), lag(&mut client)), (2, 0));
    let wrong = patch(&mut client, &run, "c", ("?wait=forever", "")).expect(422).json();
    assert_eq!(wrong["code"], "invalid_parameter");
    let text = String::from_utf8(client.get("/metrics").expect(200).body).unwrap();
    assert!(text.contains("aob_materialize_batch_size_count 2\n"), "{text}");
}

// F119, F126: killed before anything was stored, also of a run that has ended; the next life stores all of it.
#[test]
fn what_was_not_stored_before_a_kill_is_stored_after_it() {
    let directory = tempfile::tempdir().unwrap();
    let slow = Options::serve(directory.path()).set("materializer.window_ms", HOUR);
    let node = Node::start(&slow);
    let mut client = node.client();
    let (live, ended) = (start(&mut client), start(&mut client));
    for id in ["a", "b", "c"] {
        for run in [&live, &ended] {
            patch(&mut client, run, id, ("", "")).expect(202);
        }
    }
    let late = patch(&mut client, &live, "d", ("", "wait=1")).expect(202);
    assert_eq!(late.header("preference-applied"), None, "it was waited for in vain");
    client.post(&format!("/v1/runs/{ended}/terminate"), &json!({})).expect(200);
    assert_eq!(artifacts(&mut client, &live), [] as [Value; 0]);
    node.kill();

    let node = Node::start(&slow);
    let mut client = node.client();
    for (run, count) in [(&live, 4), (&ended, 3)] {
        for artifact in until(&mut client, run, count) {
            assert_whole(&mut client, run, &artifact);
        }
    }
    let before = artifacts(&mut client, &live);
    patch(&mut client, &live, "e", ("", "")).expect(202);
    // Noted, or, while what the last life left is read still, stored with it.
    let waiting = |client: &mut Client| {
        client.get("/v1/node").expect(200).json()["materializer"]["lag_patches"].clone()
    };
    while waiting(&mut client) == 0 && artifacts(&mut client, &live).len() < 5 {}
    node.kill();

    // Read again from the journal, and stored once.
    let node = Node::start(&slow);
    let mut client = node.client();
    let after = until(&mut client, &live, 5);
    assert_eq!(after[..4], before);
    assert_eq!(lag(&mut client), 0);
    let (status, _) = node.terminate();
    assert!(status.success());
}

// F123, F125
#[test]
fn the_hundredth_patch_stores_all_of_them_together() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&Options::serve(directory.path()).set("materializer.window_ms", HOUR));
    let mut client = node.client();
    let run = start(&mut client);
    for number in 0..99 {
        patch(&mut client, &run, &format!("n{number}"), ("", "")).expect(202);
    }
    until_waiting(&mut client, 99);
    assert_eq!((artifacts(&mut client, &run).len(), lag(&mut client)), (0, 99));
    patch(&mut client, &run, "last", ("", "wait=60")).expect(201);
    let found = artifacts(&mut client, &run);
    let versions: Vec<u64> = found.iter().map(|row| row["version"].as_u64().unwrap()).collect();
    assert_eq!(versions, (2..102).collect::<Vec<_>>());
    assert_whole(&mut client, &run, &found[99]);
    let text = String::from_utf8(client.get("/metrics").expect(200).body).unwrap();
    assert!(text.contains("aob_materialize_batch_size_count 1\n"), "one batch\n{text}");
}

// F120
#[test]
fn in_sync_mode_each_patch_is_answered_with_its_artifact_and_an_end_in_order_stores_what_waits() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options::serve(directory.path()).set("materializer.window_ms", HOUR);
    let node = Node::start(&options.clone().set("materializer.mode", "sync"));
    let mut client = node.client();
    let run = start(&mut client);
    for (at, id) in ["a", "b"].into_iter().enumerate() {
        patch(&mut client, &run, id, ("", "")).expect(201);
        assert_eq!(artifacts(&mut client, &run).len(), at + 1);
    }
    patch(&mut client, &run, "c", ("", "respond-async")).expect(202);
    until(&mut client, &run, 3);
    node.terminate();
    let node = Node::start(&options);
    let mut client = node.client();
    patch(&mut client, &run, "d", ("", "")).expect(202);
    node.terminate();
    let node = Node::start(&options);
    assert_eq!(artifacts(&mut node.client(), &run).len(), 4);
}

// F102: with the run goes what was stored for it, and what was still to be.
#[test]
fn an_erased_run_takes_its_artifacts_along() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&Options::serve(directory.path()).set("materializer.batch_patches", "1"));
    let mut client = node.client();
    let run = start(&mut client);
    patch(&mut client, &run, "a", ("", "wait=60")).expect(201);
    let stored = format!("/v1/cas/{}", artifacts(&mut client, &run)[0]["hash"].as_str().unwrap());
    client.get(&stored).expect(200);
    client.post(&format!("/v1/runs/{run}/terminate"), &json!({})).expect(200);
    for _ in 0..100_000 {
        // Its row goes to the index first.
        let erased = client.request("DELETE", &format!("/v1/runs/{run}"), &[], b"").unwrap();
        if erased.status == 204 {
            break;
        }
        assert_eq!(erased.status, 409, "{}", erased.json());
    }
    client.get(&format!("/v1/runs/{run}/artifacts")).expect(404);
    client.get(&stored).expect(404);
}

// F132: rules about metrics that there are.
#[test]
fn the_rules_for_prometheus_are_about_metrics_of_the_node() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&Options::serve(directory.path()));
    let metrics = String::from_utf8(node.client().get("/metrics").expect(200).body).unwrap();
    let rules = std::fs::read_to_string(crate::harness::root().join("docs/operating/alerts.yml")).unwrap();
    let rules: Vec<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("expr: ")).collect();
    assert!(rules.iter().any(|rule| rule.contains("aob_materializer_lag_patches")), "{rules:?}");
    for rule in rules {
        let words = rule.split(|one: char| !one.is_ascii_alphanumeric() && one != '_');
        for name in words.filter(|word| word.starts_with("aob_")) {
            assert!(
                metrics.lines().any(|line| line.split([' ', '{']).next() == Some(name)),
                "{name} of {rule}"
            );
        }
    }
}

fn hash_of(client: &mut Client, run: &str) -> Value {
    client.get(&format!("/v1/runs/{run}/graph")).expect(200).json()["hash"].clone()
}

// F243, F248: in fast mode the document stands for the operations, and nothing else is another.
#[test]
fn a_run_in_fast_mode_keeps_documents_and_comes_back_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options::serve(directory.path()).set("materializer.window_ms", HOUR);
    let node = Node::start(&options);
    let mut client = node.client();
    client.post("/v1/workflows", &waiting());
    let [full, fast] = ["full", "fast"].map(|mode| {
        let body = json!({"workflow": "walk", "mode": mode});
        client.post("/v1/runs", &body).expect(202).json()["run_id"].as_str().unwrap().to_owned()
    });
    let patches = |client: &mut Client, run: &str| {
        let list = client.get(&format!("/v1/runs/{run}/patches")).expect(200).json();
        list["patches"].as_array().unwrap().clone()
    };
    let mut hashes = Vec::new();
    for run in [&full, &fast] {
        let patches_of = format!("/v1/runs/{run}/patches");
        let first = client.post(&patches_of, &add_behind("a")).expect(202).json();
        let replaced = json!({"base_version": 2, "operations": [
            {"op": "replace", "path": "/nodes/a/with/expr", "value": "2"}]});
        client.post(&format!("/v1/runs/{run}/patches"), &replaced).expect(202);
        // What touches the same since the version that its author knew is found without operations, too.
        let late = client.post(&format!("/v1/runs/{run}/patches"), &replaced).expect(409).json();
        assert_eq!(late["code"], "patch_conflict");
        let place = format!("/v1/runs/{run}/patches/{}", first["patch_id"].as_str().unwrap());
        let refused = client.post(&format!("{place}/revoke"), &json!({})).expect(409).json();
        assert_eq!(refused["code"], "patch_has_dependants");
        client.post(&patches_of, &add_behind("b")).expect(202);
        client.post(&format!("{place}/revoke"), &json!({"cascade": true})).expect(202);
        hashes.push(hash_of(&mut client, run));
        let shown = client.get(&place).expect(200).json();
        assert_eq!(
            (shown["operations"].is_null(), shown["operations_kept"] == json!(false)),
            (*run == fast, *run == fast)
        );
        for listed in patches(&mut client, run) {
            let unkept = *run == fast && listed["state"] != "rejected";
            assert_eq!(listed["operations_kept"] == json!(false), unkept, "{listed}");
        }
        let timeline = client.get(&format!("/v1/runs/{run}/timeline?limit=1000")).expect(200).json();
        for event in timeline["events"].as_array().unwrap() {
            if matches!(event["type"].as_str(), Some("patch.created" | "patch.revoked")) {
                assert_eq!(event["operations"].is_null(), *run == fast, "{event}");
            }
        }
    }
    assert_eq!(hashes[0], hashes[1], "both modes come to the same document");
    node.kill();

    let node = Node::start(&options);
    let mut client = node.client();
    for run in [&full, &fast] {
        assert_eq!(hash_of(&mut client, run), hashes[0]);
        let found = until(&mut client, run, 4);
        assert_eq!(found[3]["hash"], hashes[0]);
        client.post(&format!("/v1/runs/{run}/signals/go"), &json!({"payload": 1}));
        let ended = client.request("GET", &format!("/v1/runs/{run}"), &[("prefer", "wait=30")], b"");
        let ended = ended.unwrap().expect(200).json();
        assert_eq!((&ended["status"], &ended["outputs"]["b"]), (&json!("completed"), &json!(1)), "{ended}");
        assert_eq!(hash_of(&mut client, run), hashes[0], "also when it is over");
    }
}

// F108
#[test]
fn a_patch_with_a_url_that_no_call_may_reach_is_refused_when_it_is_made() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&Options::serve(directory.path()));
    let mut client = node.client();
    let run = start(&mut client);
    let call = |url: &str| {
        json!({"operations": [{"op": "add", "path": "/nodes/c", "value":
            {"type": "http", "needs": ["fetch"], "with": {"url": url}}}]})
    };
    for url in [
        "http://169.254.169.254/latest/meta-data/",
        "http://0x7f.1/",
        "http://[::ffff:a9fe:a9fe]/",
        "http://10.1/",
    ] {
        let refused = client.post(&format!("/v1/runs/{run}/patches"), &call(url)).expect(403).json();
        assert_eq!(refused["code"], "patch_forbidden");
        let error = &refused["errors"][0];
        assert_eq!(
            (&error["operation"], &error["pointer"]),
            (&json!(0), &json!("/nodes/c/with/url")),
            "{refused}"
        );
    }
    client.post(&format!("/v1/runs/{run}/patches"), &call("https://example.com/")).expect(202);
}
