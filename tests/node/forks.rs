//! Forks and live replays, with the real binary: what was settled stays, what was under way is done again, once for each run.

use std::path::Path;

use serde_json::{Value, json};

use crate::harness::{Client, Node, Options};

fn options(directory: &Path) -> Options {
    Options::serve(directory).driver().set("cores.runner", "2").set("limits.inline_value_bytes_max", "2048")
}

/// first -> work (a job) -> ask (a human) -> last; `later` waits beside them.
fn flow() -> Value {
    json!({"name": "flow", "version": "1", "inputs": {"type": "object", "properties": {"n": {"type": "integer"}}},
        "nodes": {
            "first": {"type": "function", "with": {"expr": "{'n': inputs.n, 'text': inputs.text}"}},
            "work": {"type": "task", "with": {"queue": "work", "payload": {"n": "${ nodes.first.output.n }"}}},
            "ask": {"type": "human_review", "with": {"reviewers": ["ops"]}},
            "last": {"type": "function", "with": {"expr": "[inputs.n, nodes.first.output.n, nodes.work.output, size(nodes.first.output.text)]"}},
            "later": {"type": "delay", "with": {"for": "300ms"}}},
        "edges": [{"from": "first", "to": "work"}, {"from": "work", "to": "ask"}, {"from": "ask", "to": "last", "on": "approved"}],
        "outputs": {"all": "${ nodes.last.output }"}})
}

fn start(client: &mut Client, inputs: &Value) -> String {
    client.post("/v1/workflows", &flow()).expect(201);
    let run = client.post("/v1/runs", &json!({"workflow": "flow", "inputs": inputs})).expect(202).json();
    run["run_id"].as_str().unwrap().to_owned()
}

fn run_of(client: &mut Client, run: &str) -> Value {
    client.get(&format!("/v1/runs/{run}")).expect(200).json()
}

fn ended(client: &mut Client, run: &str) -> Value {
    let waited = client.request("GET", &format!("/v1/runs/{run}"), &[("prefer", "wait=30")], b"");
    waited.unwrap().expect(200).json()
}

fn job(client: &mut Client) -> Value {
    let poll = json!({"worker": "w", "queues": ["work"], "max": 1, "wait_ms": 30_000});
    client.post("/v1/workers/poll", &poll).expect(200).json()["jobs"][0].clone()
}

fn complete(client: &mut Client, job: &Value, output: &str) {
    let results = json!({"results": [{"lease": job["lease"], "output": output}]});
    let answer = client.post("/v1/workers/complete", &results).expect(200).json();
    assert!(!answer.to_string().contains("stale"), "{answer}");
}

/// Approves what the run asks, once it does.
fn approve(client: &mut Client, id: &str) -> String {
    let ticket = loop {
        if let Some(ticket) = run_of(client, id)["approvals"][0]["ticket"].as_str() {
            break ticket.to_owned();
        }
    };
    let decision = json!({"decision": "approve", "reviewer": "ops"});
    client.post(&format!("/v1/approvals/{ticket}/decision"), &decision);
    ticket
}

fn events(client: &mut Client, run: &str) -> Vec<Value> {
    let page = client.get(&format!("/v1/runs/{run}/timeline?limit=1000")).expect(200).json();
    page["events"].as_array().unwrap().clone()
}

fn seq_of(events: &[Value], kind: &str, node: &str) -> u64 {
    let found =
        events.iter().find(|event| event["type"] == kind && (node.is_empty() || event["node"] == node));
    found.unwrap_or_else(|| panic!("no {kind} of {node}: {events:#?}"))["seq"].as_u64().unwrap()
}

fn hash(client: &mut Client, run: &str, seq: u64) -> Value {
    client.get(&format!("/v1/runs/{run}/state?seq={seq}")).expect(200).json()["hash"].clone()
}

fn fork(client: &mut Client, source: &str, body: &Value, key: Option<&str>) -> (u16, Value) {
    let headers: Vec<(&str, &str)> = key.map(|key| ("idempotency-key", key)).into_iter().collect();
    let answer = client.post_with(&format!("/v1/runs/{source}/fork"), &headers, body).unwrap();
    (answer.status, answer.json())
}

// F012, F084, RELIABILITY I-20
#[test]
fn a_fork_goes_on_for_real_and_what_it_was_forked_from_stays_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let settings = options(directory.path());
    let node = Node::start(&settings);
    let mut client = node.client();
    let text = "x".repeat(9_000);
    let source = start(&mut client, &json!({"n": 4, "text": text}));
    let first = job(&mut client);
    complete(&mut client, &first, "theirs");
    let ticket = approve(&mut client, &source);
    let over = ended(&mut client, &source);
    assert_eq!(over["outputs"], json!({"all": [4, 4, "theirs", 9_000]}));
    let told = events(&mut client, &source);
    let last = over["seq"].as_u64().unwrap();
    // Where the job was under way: it is another job, of the new run.
    let at = seq_of(&told, "node.waiting", "work");
    let (status, made) =
        fork(&mut client, &source, &json!({"at": at, "inputs": {"n": 7, "text": "new"}}), Some("k"));
    assert_eq!(status, 202, "{made}");
    let forked = made["run_id"].as_str().unwrap().to_owned();
    assert_eq!(made["forked_from"], json!({"run_id": source, "seq": at}));
    assert_eq!(hash(&mut client, &forked, at), hash(&mut client, &source, at), "equal up to the fork");
    assert_ne!(hash(&mut client, &forked, at + 1), hash(&mut client, &source, at + 1));
    // The same key: the same run, and none for another request.
    let again = fork(&mut client, &source, &json!({"at": at, "inputs": {"n": 7, "text": "new"}}), Some("k"));
    assert_eq!((again.0, &again.1["run_id"]), (202, &json!(forked)));
    assert_eq!(fork(&mut client, &source, &json!({"at": at}), Some("k")).1["code"], "idempotency_key_reused");
    node.kill();
    let node = Node::start(&settings);
    let mut client = node.client();
    let again =
        fork(&mut client, &source, &json!({"at": at, "inputs": {"n": 7, "text": "new"}}), Some("k")).1;
    assert_eq!((&again["run_id"], &again["seq"]), (&json!(forked), &made["seq"]), "as it was acknowledged");
    let second = job(&mut client);
    assert_eq!((&second["run_id"], &second["input"]), (&json!(forked), &json!({"n": 4})), "{second}");
    assert_ne!(second["idempotency_key"], first["idempotency_key"]);
    complete(&mut client, &second, "ours");
    assert_ne!(approve(&mut client, &forked), ticket, "a ticket of the new run");
    let end = ended(&mut client, &forked);
    assert_eq!(
        end["outputs"],
        json!({"all": [7, 4, "ours", 9_000]}),
        "settled values stay, inputs are new: {end}"
    );
    assert_eq!((&end["forked_from"]["seq"], &end["inputs"]["n"]), (&json!(at), &json!(7)));
    let theirs = events(&mut client, &forked);
    assert_eq!(theirs[at as usize]["type"], "run.forked");
    assert_eq!(theirs[at as usize]["forked_from"], json!({"run_id": source, "seq": at}));
    assert_eq!(theirs[..at as usize], told[..at as usize], "the history that they share");
    // What it was forked from is as it was.
    assert_eq!(run_of(&mut client, &source), over);
    assert_eq!(events(&mut client, &source), told);
    // Where nothing can go on.
    assert_eq!(fork(&mut client, &source, &json!({"at": last}), None).1["code"], "not_forkable");
    assert_eq!(fork(&mut client, &source, &json!({"at": last + 1}), None).1["code"], "event_not_found");
    assert_eq!(fork(&mut client, &source, &json!({"at": 0}), None).0, 404);
    assert_eq!(
        fork(&mut client, &source, &json!({"at": at, "inputs": {"n": "x"}}), None).1["code"],
        "invalid_inputs"
    );
    assert_eq!(fork(&mut client, &source, &json!({"at": "1"}), None).0, 400);
    // A fork's own record holds, and so does that of a fork of a fork.
    let deeper =
        fork(&mut client, &forked, &json!({"at": at + 1}), None).1["run_id"].as_str().unwrap().to_owned();
    for run in [&forked, &deeper] {
        let out = std::process::Command::new(env!("CARGO_BIN_EXE_aob"))
            .args(["--url", &format!("http://{}", node.address), "replay", run, "-o", "json"])
            .output()
            .unwrap();
        let said: Value = serde_json::from_slice(&out.stdout).unwrap();
        assert_eq!(said["verified"], true, "{said}");
    }
    client.post(&format!("/v1/runs/{deeper}/terminate"), &json!({})).expect(200);
    let end = ended(&mut client, &deeper);
    assert_eq!((&end["forked_from"]["run_id"], &end["inputs"]["n"]), (&json!(forked), &json!(7)), "{end}");
}

// F012, F188, F189: live
#[test]
fn a_live_replay_does_the_work_again_from_a_node_on_as_a_new_run() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&options(directory.path()));
    let mut client = node.client();
    let source = start(&mut client, &json!({"n": 4, "text": ""}));
    let first = job(&mut client);
    complete(&mut client, &first, "then");
    approve(&mut client, &source);
    ended(&mut client, &source);
    let told = events(&mut client, &source);
    for (from, jobs) in [(None, 1), (Some("work"), 1), (Some("ask"), 0)] {
        let mut arguments = vec!["replay", &source, "--mode", "live", "-o", "json"];
        arguments.extend(from.iter().flat_map(|node| ["--from", *node]));
        let out = std::process::Command::new(env!("CARGO_BIN_EXE_aob"))
            .args(["--url", &format!("http://{}", node.address)])
            .args(arguments)
            .output()
            .unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        let made: Value = serde_json::from_slice(&out.stdout).unwrap();
        let again = made["run_id"].as_str().unwrap();
        assert_eq!(made["replay_of"], source.as_str());
        let before = from.map_or(1, |node| seq_of(&told, "node.started", node) - 1);
        assert_eq!(made["forked_from"]["seq"], before);
        if jobs > 0 {
            let job = job(&mut client);
            assert_eq!(job["run_id"], again);
            complete(&mut client, &job, "now");
        }
        approve(&mut client, again);
        let end = ended(&mut client, again);
        let said = if jobs > 0 { "now" } else { "then" };
        assert_eq!(end["outputs"], json!({"all": [4, 4, said, 0]}));
        assert_eq!(end["replay_of"], source.as_str());
    }
    let refused = client.post(&format!("/v1/runs/{source}/replay"), &json!({"from": "nowhere"}));
    assert_eq!(refused.expect(422).json()["code"], "unknown_node");
}

// F025: children are their parent's.
#[test]
fn no_run_goes_on_with_the_children_of_another() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&options(directory.path()));
    let mut client = node.client();
    let wait = json!({"name": "child", "nodes": {"w": {"type": "wait", "with": {"signal": "go"}}}});
    client.post("/v1/workflows", &wait).expect(201);
    let sub = json!({"type": "composite", "with": {"workflow": "child"}});
    client.post("/v1/workflows", &json!({"name": "parent", "nodes": {"sub": sub}})).expect(201);
    let run = client.post("/v1/runs", &json!({"workflow": "parent"})).expect(202).json();
    let id = run["run_id"].as_str().unwrap();
    let told = events(&mut client, id);
    let at = seq_of(&told, "node.waiting", "sub");
    let (status, refused) = fork(&mut client, id, &json!({"at": at}), None);
    assert_eq!((status, &refused["code"]), (409, &json!("not_forkable")), "{refused}");
    assert!(refused["detail"].as_str().unwrap().contains("child runs are under way"), "{refused}");
    // The child itself can be: the fork is nobody's child.
    let child = told.iter().find_map(|event| event["child"].as_str()).unwrap().to_owned();
    let (seq, forked) = loop {
        // It is being started.
        let answer = client.get(&format!("/v1/runs/{child}"));
        if answer.status == 200 {
            let seq = answer.json()["seq"].as_u64().unwrap();
            break (seq, fork(&mut client, &child, &json!({"at": seq}), None).1);
        }
    };
    let forked = forked["run_id"].as_str().unwrap_or_else(|| panic!("{forked}")).to_owned();
    client.post(&format!("/v1/runs/{forked}/signals/go"), &json!({"payload": 1}));
    let end = ended(&mut client, &forked);
    assert_eq!((&end["outputs"], end.get("parent")), (&json!({"w": 1}), None), "at {seq}: {end}");
    assert_eq!(run_of(&mut client, id)["status"], "running", "its parent's node still waits");
    client.post(&format!("/v1/runs/{child}/signals/go"), &json!({"payload": 2}));
    assert_eq!(ended(&mut client, id)["outputs"], json!({"sub": {"w": 2}}));
}

// F084, F098: a fork has the graph that its source had there.
#[test]
fn a_fork_of_a_patched_run_has_its_patches_and_takes_more() {
    let directory = tempfile::tempdir().unwrap();
    let settings = options(directory.path());
    let node = Node::start(&settings);
    let mut client = node.client();
    let walk = json!({"name": "walk", "mode": "fast", "nodes": {
        "fetch": {"type": "wait", "with": {"signal": "go"}},
        "process": {"type": "function", "needs": ["fetch"], "with": {"expr": "input"}}}});
    client.post("/v1/workflows", &walk).expect(201);
    let run = client.post("/v1/runs", &json!({"workflow": "walk", "run_key": "one"})).expect(202).json();
    let source = run["run_id"].as_str().unwrap().to_owned();
    let add = |id: &str, from: &str| {
        let node = json!({"type": "function", "with": {"expr": "input + 1"}});
        json!({"operations": [{"op": "add", "path": format!("/nodes/{id}"), "value": node},
            {"op": "add", "path": format!("/edges/{from}~1{id}"), "value": {"from": from, "to": id}}]})
    };
    client.post(&format!("/v1/runs/{source}/patches"), &add("more", "process")).expect(202);
    let told = events(&mut client, &source);
    let created = seq_of(&told, "patch.created", "");
    let refused = fork(&mut client, &source, &json!({"at": created}), None).1;
    assert_eq!(refused["code"], "not_forkable", "{refused}");
    let forked = fork(&mut client, &source, &json!({"at": created + 1}), None).1["run_id"].clone();
    let forked = forked.as_str().unwrap().to_owned();
    node.kill();
    let node = Node::start(&settings);
    let mut client = node.client();
    client.post(&format!("/v1/runs/{forked}/patches"), &add("most", "more")).expect(202);
    for (run, payload) in [(&source, 1), (&forked, 10)] {
        client.post(&format!("/v1/runs/{run}/signals/go"), &json!({"payload": payload}));
    }
    assert_eq!(ended(&mut client, &source)["outputs"], json!({"more": 2}));
    let end = ended(&mut client, &forked);
    assert_eq!((&end["outputs"], end.get("run_key")), (&json!({"most": 12}), None), "{end}");
    let out = std::process::Command::new(env!("CARGO_BIN_EXE_aob"))
        .args(["--url", &format!("http://{}", node.address), "replay", &forked])
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}
