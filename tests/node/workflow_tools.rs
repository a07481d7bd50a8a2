//! A workflow as a tool of an agent: a run below the agent's, which succeeds, fails, waits for a human and is called back like
//! any child, and which a crash does not start a second time.

use serde_json::{Value, json};

use crate::agents::{options, stub};
use crate::harness::{Client, Node};

/// A workflow that waits for `go`, and gives what came.
fn held(client: &mut Client) {
    let nodes = json!({"hold": {"type": "wait", "with": {"signal": "go"}}});
    client.post("/v1/workflows", &json!({"name": "held", "nodes": nodes})).expect(201);
}

/// An agent with these tools that does what its inputs say, and gives what it says at last.
fn caller(client: &mut Client, name: &str, tools: &Value, more: &Value) {
    let mut ask = json!({"type": "agent", "with": {"role": "r", "task": "${ inputs.how }"}});
    ask.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let agents = json!({"r": {"model": "big", "tools": tools}});
    let workflow = json!({"name": name, "agents": agents, "nodes": {"ask": ask}});
    client.post("/v1/workflows", &workflow).expect(201);
}

fn call(client: &mut Client, name: &str, how: &str) -> String {
    let body = json!({"workflow": name, "inputs": {"how": how}});
    client.post("/v1/runs", &body).expect(202).json()["run_id"].as_str().unwrap().to_owned()
}

fn ended(client: &mut Client, run_id: &str) -> Value {
    let path = format!("/v1/runs/{run_id}");
    client.request("GET", &path, &[("prefer", "wait=60")], b"").unwrap().expect(200).json()
}

/// Runs of a workflow, once there are so many.
fn runs_of(client: &mut Client, workflow: &str, count: usize) -> Vec<Value> {
    for _ in 0..100_000 {
        let page = client.get(&format!("/v1/runs?workflow={workflow}&limit=100")).expect(200).json();
        let runs = page["runs"].as_array().unwrap().clone();
        if runs.len() >= count {
            return runs;
        }
    }
    panic!("there are not {count} runs of {workflow}");
}

fn id(run: &Value) -> String {
    run["run_id"].as_str().unwrap().to_owned()
}

/// What the tools of a run brought, in order.
fn returned(client: &mut Client, run_id: &str) -> Vec<Value> {
    let page = client.get(&format!("/v1/runs/{run_id}/timeline?limit=1000")).expect(200).json();
    let events = page["events"].as_array().unwrap().iter();
    let returned = events.filter(|event| event["type"] == "tool.returned");
    returned.flat_map(|event| event["results"].as_array().unwrap().clone()).collect()
}

// F025, F106, F414: what it is called with fits its inputs, what it gives is the tool's; another workspace's is none.
#[test]
fn a_workflow_is_a_tool_that_takes_its_inputs_and_gives_its_outputs() {
    let (directory, stub) = (tempfile::tempdir().unwrap(), stub());
    let node = Node::start(&options(directory.path(), &stub));
    let mut client = node.client();
    let schema = json!({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]});
    let out = json!({"type": "function", "with": {"expr": "inputs.n * 2"}});
    let double = json!({"name": "double", "inputs": schema, "nodes": {"out": out},
        "metadata": {"description": "Doubles a number."}});
    client.post("/v1/workflows", &double).expect(201);
    caller(&mut client, "caller", &json!(["workflow:double"]), &json!({}));
    let how = r#"[[tool:workflow__double {"n": "four"}]] [[tool:workflow__double {"n": 4}]] [[turn]] [[say: eight]]"#;
    let run_id = call(&mut client, "caller", how);
    let run = ended(&mut client, &run_id);
    assert_eq!(run["outputs"], json!({"ask": "eight"}), "{run}");
    let results = returned(&mut client, &run_id);
    assert_eq!(results.len(), 2, "{results:?}");
    assert_eq!(results[0]["error"]["code"], "tool_arguments_invalid", "{}", results[0]);
    assert_eq!(results[1]["output"], json!({"out": 8}), "{}", results[1]);
    let children = runs_of(&mut client, "double", 1);
    assert_eq!(children.len(), 1, "the one whose arguments fit");
    let child = client.get(&format!("/v1/runs/{}", id(&children[0]))).expect(200).json();
    assert_eq!((&child["parent"], &child["inputs"]), (&json!(run_id), &json!({"n": 4})), "{child}");
    // The model was told what it takes and does.
    let asked = stub.requests(1_000).to_string();
    assert!(asked.contains("Doubles a number.") && asked.contains("workflow__double"), "{asked}");

    let acme = [("aob-workspace", "acme")];
    let agents = json!({"r": {"model": "big", "tools": ["workflow:double"]}});
    let ask = json!({"type": "agent", "with": {"role": "r", "task": how}});
    let theirs = json!({"name": "caller", "agents": agents, "nodes": {"ask": ask}});
    client.post_with("/v1/workflows", &acme, &theirs).unwrap().expect(201);
    let run = client.post_with("/v1/runs", &acme, &json!({"workflow": "caller"})).unwrap().expect(202);
    let path = format!("/v1/runs/{}", id(&run.json()));
    let headers = [acme[0], ("prefer", "wait=60")];
    let run = client.request("GET", &path, &headers, b"").unwrap().expect(200).json();
    assert_eq!(run["error"]["code"], "tool_unavailable", "{run}");
    assert_eq!(runs_of(&mut client, "double", 1).len(), 1);
}

// F025, F402: a child that fails is a tool that failed; what it spends is its own, and runs are only so deep.
#[test]
fn a_child_that_fails_is_told_to_the_model_and_spends_and_nests_within_limits_of_its_own() {
    let (directory, stub) = (tempfile::tempdir().unwrap(), stub());
    let node = Node::start(&options(directory.path(), &stub));
    let mut client = node.client();
    let broken = json!({"out": {"type": "function", "with": {"expr": "1 / (inputs.n - 1)"}}});
    let schema = json!({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]});
    let broken = json!({"name": "broken", "inputs": schema, "nodes": broken});
    client.post("/v1/workflows", &broken).expect(201);
    let task = json!({"type": "agent", "with": {"task": "[[say: dear]]"}});
    let poor = json!({"name": "poor", "limits": {"budget": {"usd": "0.0001"}}, "nodes": {"ask": task}});
    client.post("/v1/workflows", &poor).expect(201);
    let task = json!({"type": "agent", "with": {"role": "r",
        "task": "[[tool:workflow__deep]] [[turn]] [[say: as deep as it goes]]"}});
    let agents = json!({"r": {"model": "big", "tools": ["workflow:deep"]}});
    let deep = json!({"name": "deep", "agents": agents, "nodes": {"ask": task}});
    client.post("/v1/workflows", &deep).expect(201);
    caller(&mut client, "caller", &json!(["workflow:broken", "workflow:poor", "workflow:deep"]), &json!({}));
    let how = r#"[[tool:workflow__broken {"n": 1}]] [[tool:workflow__poor]] [[tool:workflow__deep]] [[turn]] [[say: done]]"#;
    let run_id = call(&mut client, "caller", how);
    let run = ended(&mut client, &run_id);
    assert_eq!(run["outputs"], json!({"ask": "done"}), "{run}");
    let results = returned(&mut client, &run_id);
    let codes: Vec<_> = results.iter().map(|result| result["error"]["code"].clone()).collect();
    assert_eq!(
        codes,
        [json!("expression_division_by_zero"), json!("budget_exceeded"), Value::Null],
        "{results:?}"
    );
    // Each is one deeper than the one before; the deepest was told that it may go no further.
    let runs = runs_of(&mut client, "deep", aob::limits::CHILD_DEPTH_MAX as usize);
    assert_eq!(runs.len(), aob::limits::CHILD_DEPTH_MAX as usize);
    let refused: Vec<Value> = runs.iter().flat_map(|run| returned(&mut client, &id(run))).collect();
    let deepest = refused.iter().filter(|result| result["error"]["code"] == "child_depth_max");
    assert_eq!(deepest.count(), 1, "{refused:?}");
    // The parent paid for its own two turns and for nothing of its children's.
    let cost = client.get(&format!("/v1/runs/{run_id}/cost")).expect(200).json();
    assert_eq!(cost["answers"], 2, "{cost}");
}

/// The review that somebody waits for, once it is asked, is approved.
fn approve(client: &mut Client) {
    for _ in 0..100_000 {
        let waiting = client.get("/v1/approvals").expect(200).json();
        if let Some(ticket) = waiting["approvals"][0]["ticket"].as_str() {
            let body = json!({"approved": true, "reviewer": "owner", "reason": "so be it"});
            client.post(&format!("/v1/approvals/{ticket}/decision"), &body).expect(200);
            return;
        }
    }
    panic!("nobody is asked");
}

// F025, F392, I-17: neither kill -9 nor an orderly end in the middle starts a second child, or cancels the first.
#[test]
fn a_child_waits_for_a_human_across_kill_9_and_an_orderly_end() {
    let (directory, stub) = (tempfile::tempdir().unwrap(), stub());
    // A human takes days: an orderly end does not wait for this one.
    let options = options(directory.path(), &stub).set("shutdown.drain_seconds", "600");
    let node = Node::start(&options);
    let mut client = node.client();
    let ask = json!({"type": "human_review", "with": {"reviewers": ["owner"]}});
    let asked =
        json!({"name": "asked", "nodes": {"ask": ask}, "outputs": {"yes": "${ nodes.ask.output.approved }"}});
    client.post("/v1/workflows", &asked).expect(201);
    caller(&mut client, "caller", &json!(["workflow:asked"]), &json!({}));
    let run_id = call(&mut client, "caller", "[[tool:workflow__asked]] [[turn]] [[say: asked]]");
    let child = id(&runs_of(&mut client, "asked", 1)[0]);
    node.kill();
    let node = Node::start(&options);
    assert_eq!(runs_of(&mut node.client(), "asked", 1).len(), 1);
    assert!(node.terminate().0.success());
    let node = Node::start(&options);
    let mut client = node.client();
    approve(&mut client);
    let run = ended(&mut client, &run_id);
    assert_eq!(run["outputs"], json!({"ask": "asked"}), "{run}");
    assert_eq!(returned(&mut client, &run_id)[0]["output"], json!({"yes": true}));
    let children = runs_of(&mut client, "asked", 1);
    assert_eq!((children.len(), id(&children[0])), (1, child), "one child in three lives");
    assert_eq!(stub.stats()["calls"], 2, "no answer was asked for twice");
}

// F025: a child that nobody waits for any more is cancelled, whether the agent's time is over or its run is cancelled, and
// although the node dies in between.
#[test]
fn a_child_that_is_a_tool_is_cancelled_with_the_call() {
    let (directory, stub) = (tempfile::tempdir().unwrap(), stub());
    let options = options(directory.path(), &stub);
    let node = Node::start(&options);
    let mut client = node.client();
    held(&mut client);
    caller(
        &mut client,
        "caller",
        &json!(["workflow:held"]),
        &json!({"timeout": "1500ms", "retry": {"max_attempts": 1}}),
    );
    let how = "[[tool:workflow__held]] [[turn]] [[say: done]]";
    let late = call(&mut client, "caller", how);
    let child = id(&runs_of(&mut client, "held", 1)[0]);
    let run = ended(&mut client, &late);
    assert_eq!(run["error"]["code"], "timeout", "{run}");
    assert_eq!(ended(&mut client, &child)["status"], "cancelled");

    caller(&mut client, "patient", &json!(["workflow:held"]), &json!({}));
    let cancelled = call(&mut client, "patient", how);
    let child = id(&runs_of(&mut client, "held", 2)[0]);
    client.post(&format!("/v1/runs/{cancelled}/cancel"), &json!({})).expect(202);
    // Whatever it had time for: it is told again.
    node.kill();
    let node = Node::start(&options);
    let mut client = node.client();
    assert_eq!(ended(&mut client, &child)["status"], "cancelled");
    assert_eq!(ended(&mut client, &cancelled)["status"], "cancelled");
    assert_eq!(runs_of(&mut client, "held", 2).len(), 2);
}
