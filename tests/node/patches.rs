//! Patches of running graphs, with the real binaries: the walk of the seed, versions and conflicts, taking back, restarts.

use serde_json::{Value, json};

use crate::harness::{Client, Node, Options, in_background};

/// fetch -> process, where fetch waits for a signal.
pub(crate) fn walk() -> Value {
    json!({"name": "walk", "version": "1", "nodes": {
        "fetch": {"type": "wait", "with": {"signal": "go"}},
        "process": {"type": "function", "needs": ["fetch"], "with": {"expr": "input"}}}})
}

pub(crate) fn start(client: &mut Client, document: &Value) -> String {
    client.post("/v1/workflows", document);
    let started = client.post("/v1/runs", &json!({"workflow": document["name"]})).expect(202).json();
    started["run_id"].as_str().unwrap().to_owned()
}

/// The seed's own patch: a task behind `process`.
pub(crate) fn email() -> Value {
    json!({"operations": [
        {"op": "add", "path": "/nodes/-", "value": {"id": "email", "type": "task", "with": {"queue": "mail"}}},
        {"op": "add", "path": "/edges/-", "value": {"from": "process", "to": "email"}}]})
}

pub(crate) fn add(id: &str, from: &str) -> Value {
    json!({"operations": [
        {"op": "add", "path": format!("/nodes/{id}"), "value": {"type": "function", "with": {"expr": "input"}}},
        {"op": "add", "path": format!("/edges/{from}~1{id}"), "value": {"from": from, "to": id}}]})
}

pub(crate) fn timeline(client: &mut Client, run: &str) -> Vec<(String, String)> {
    let page = client.get(&format!("/v1/runs/{run}/timeline?limit=1000")).expect(200).json();
    let text = |event: &Value, member: &str| event[member].as_str().unwrap_or_default().to_owned();
    let events = page["events"].as_array().unwrap().iter();
    events.map(|event| (text(event, "type"), text(event, "node"))).collect()
}

pub(crate) fn signal(client: &mut Client, run: &str) {
    let answer = client.post(&format!("/v1/runs/{run}/signals/go"), &json!({"payload": 7}));
    assert!(matches!(answer.status, 200 | 202), "{}", answer.json());
}

pub(crate) fn ended(client: &mut Client, run: &str) -> Value {
    let waited = client.request("GET", &format!("/v1/runs/{run}"), &[("prefer", "wait=30")], b"");
    let run = waited.unwrap().expect(200).json();
    assert_ne!(run["status"], "running", "{run}");
    run
}

/// Takes the one job of a queue and completes it.
pub(crate) fn work(client: &mut Client, queue: &str) {
    let poll = json!({"worker": "w", "queues": [queue], "max": 1, "wait_ms": 30_000});
    let jobs = client.post("/v1/workers/poll", &poll).expect(200).json();
    let lease = jobs["jobs"][0]["lease"].clone();
    assert!(lease.is_string(), "{jobs}");
    let results = json!({"results": [{"lease": lease, "output": "sent"}]});
    client.post("/v1/workers/complete", &results).expect(200);
}

// F098, F099, F100, F101, F104, F105, F093, F112
#[test]
fn the_walk_of_the_seed() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&Options::serve(directory.path()));
    let mut client = node.client();
    let run = start(&mut client, &walk());
    let other = start(&mut client, &walk());
    let base = client.get("/v1/workflows/walk").expect(200).json()["hash"].clone();
    let made = client.post(&format!("/runs/{run}/patch"), &email()).expect(202);
    let place = made.header("location").unwrap().to_owned();
    let made = made.json();
    assert_eq!((&made["graph_version"], &made["status"]), (&json!(2), &json!("running")));
    let patch = client.get(&place).expect(200).json();
    assert_eq!((&patch["state"], &patch["version"]), (&json!("applied"), &json!(2)));
    assert_eq!(patch["operations"][0]["path"], "/nodes/email", "by id, as it is kept");
    signal(&mut client, &run);
    work(&mut client, "mail");
    assert_eq!(ended(&mut client, &run)["outputs"], json!({"email": "sent"}));
    let told = timeline(&mut client, &run);
    let at = |kind: &str, node: &str| {
        told.iter().position(|event| *event == (kind.to_owned(), node.to_owned())).unwrap()
    };
    assert!(at("patch.created", "") < at("patch.applied", ""));
    assert!(at("patch.applied", "") < at("node.completed", "email"), "{told:?}");
    // The base stands, and another run of it knows nothing of the patch.
    assert_eq!(client.get("/v1/workflows/walk").expect(200).json()["hash"], base);
    signal(&mut client, &other);
    assert_eq!(ended(&mut client, &other)["outputs"], json!({"process": 7}));
    let list = client.get(&format!("/v1/runs/{run}/patches")).expect(200).json();
    assert_eq!((&list["base"], list["patches"].as_array().unwrap().len()), (&base, 1));
    let graph = client.get(&format!("/v1/runs/{run}/graph")).expect(200).json();
    assert_eq!(graph["nodes"]["email"]["state"], "completed");
    assert!(graph["document"]["nodes"]["email"].is_object(), "{graph}");
    client.post(&format!("/v1/runs/{run}/patches"), &add("late", "process")).expect(409);
}

// F096, F094
#[test]
fn what_is_taken_back_never_runs() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&Options::serve(directory.path()));
    let mut client = node.client();
    let run = start(&mut client, &walk());
    let patches = format!("/v1/runs/{run}/patches");
    let first = client.post(&patches, &email()).expect(202).json();
    let second = client.post(&patches, &add("after", "email")).expect(202).json();
    assert_eq!(second["graph_version"], 3);
    let place = format!("{patches}/{}/revoke", first["patch_id"].as_str().unwrap());
    let refused = client.post(&place, &json!({})).expect(409).json();
    assert_eq!(refused["code"], "patch_has_dependants", "{refused}");
    let gone = client.post(&place, &json!({"cascade": true, "reason": "no mail"})).expect(202).json();
    assert_eq!((&gone["graph_version"], gone["revoked"].as_array().unwrap().len()), (&json!(4), 2));
    assert_eq!(client.post(&place, &json!({})).expect(409).json()["code"], "patch_revoked");
    signal(&mut client, &run);
    assert_eq!(ended(&mut client, &run)["outputs"], json!({"process": 7}));
    let list = client.get(&patches).expect(200).json();
    let states: Vec<_> = list["patches"].as_array().unwrap().iter().map(|patch| &patch["state"]).collect();
    assert_eq!(states, ["revoked", "revoked"]);
    assert_eq!(list["graph_version"], 4);
    assert!(timeline(&mut client, &run).iter().all(|(_, node)| node != "email" && node != "after"));
}

// F091, F106, F109, F021
#[test]
fn conflicts_are_told_and_refusals_written_down() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&Options::serve(directory.path()));
    let mut client = node.client();
    let run = start(&mut client, &walk());
    let patches = format!("/v1/runs/{run}/patches");
    let with_base = |mut patch: Value, version: u32| {
        patch["base_version"] = version.into();
        patch
    };
    client.post(&patches, &with_base(add("a", "process"), 1)).expect(202);
    // Apart from what the first has touched: it is put on the new graph.
    let rebased = client.post(&patches, &with_base(add("b", "process"), 1)).expect(202).json();
    assert_eq!(rebased["graph_version"], 3);
    let replace = json!({"operations": [{"op": "replace", "path": "/nodes/a/with/expr", "value": "1"}]});
    assert_eq!(client.post(&patches, &replace).expect(422).json()["code"], "base_version_required");
    let conflict = client.post(&patches, &with_base(replace.clone(), 1)).expect(409).json();
    assert_eq!(conflict["code"], "patch_conflict");
    assert_eq!(
        (&conflict["errors"][0]["version"], &conflict["errors"][1]["operations"][0]["path"]),
        (&json!(3), &json!("/nodes/a")),
        "both sides: {conflict}"
    );
    client.post(&patches, &with_base(replace, 3)).expect(202);
    let cycle =
        json!({"operations": [{"op": "add", "path": "/edges/-", "value": {"from": "a", "to": "process"}}]});
    for (patch, status, code) in [
        (json!({"operations": [{"op": "frob", "path": "/nodes/x"}]}), 422, "patch_invalid"),
        (cycle, 422, "patch_graph_invalid"),
        (
            json!({"operations": [{"op": "test", "path": "/nodes/a/type", "value": "http"}]}),
            409,
            "patch_conflict",
        ),
        (
            with_base(
                json!({"operations": [{"op": "remove", "path": "/nodes/fetch"},
                {"op": "remove", "path": "/edges/fetch~1process"}]}),
                4,
            ),
            409,
            "node_started",
        ),
    ] {
        let problem = client.post(&patches, &patch).expect(status).json();
        assert_eq!(
            (&problem["code"], &problem["outcome"]),
            (&json!(code), &json!("not_applied")),
            "{problem}"
        );
    }
    let list = client.get(&patches).expect(200).json();
    let rejected: Vec<_> =
        list["patches"].as_array().unwrap().iter().filter(|patch| patch["state"] == "rejected").collect();
    assert_eq!((rejected.len(), &list["graph_version"]), (6, &json!(4)));
    // Nothing but tests: no version.
    let test = json!({"operations": [{"op": "test", "path": "/nodes/a/type", "value": "function"}]});
    assert_eq!(client.post(&patches, &test).expect(200).json()["graph_version"], 4);
}

// F095, F017: after kill -9 the graph is made again from the log alone.
#[test]
fn a_patched_run_goes_on_after_a_crash() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options::serve(directory.path());
    let (run, hash) = {
        let node = Node::start(&options);
        let mut client = node.client();
        let run = start(&mut client, &walk());
        client.post(&format!("/v1/runs/{run}/patches"), &email()).expect(202);
        let made =
            client.post(&format!("/v1/runs/{run}/patches"), &add("a_first", "email")).expect(202).json();
        node.kill();
        (run, made["hash"].clone())
    };
    let node = Node::start(&options);
    let mut client = node.client();
    let graph = client.get(&format!("/v1/runs/{run}/graph")).expect(200).json();
    assert_eq!((&graph["hash"], &graph["version"]), (&hash, &json!(3)));
    assert!(graph["document"]["nodes"]["a_first"].is_object(), "{graph}");
    signal(&mut client, &run);
    work(&mut client, "mail");
    assert_eq!(ended(&mut client, &run)["outputs"], json!({"a_first": "sent"}));
    let told = timeline(&mut client, &run);
    assert!(told.contains(&("node.completed".to_owned(), "a_first".to_owned())), "{told:?}");
}

// F106: a stream that was open before the patch names what the patch has added.
#[test]
fn a_stream_names_nodes_that_came_while_it_was_open() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&Options::serve(directory.path()));
    let mut client = node.client();
    let run = start(&mut client, &walk());
    let (watcher, path) = (node.client(), format!("/v1/runs/{run}/events"));
    let (open, opened) = std::sync::mpsc::channel();
    let seen = in_background(move || {
        watcher.events(&path, &[], |event| {
            let _ = open.send(());
            event.event != "run.completed"
        })
    });
    opened.recv().unwrap();
    client.post(&format!("/v1/runs/{run}/patches"), &add("a_first", "process")).expect(202);
    signal(&mut client, &run);
    let seen = seen.join().unwrap();
    let completed: Vec<_> = seen
        .iter()
        .filter(|event| event.event == "node.completed")
        .map(|event| event.data["node"].as_str().unwrap_or_default())
        .collect();
    assert_eq!(completed, ["fetch", "process", "a_first"]);
    assert_eq!(seen.len(), timeline(&mut client, &run).len(), "none is left out");
}
