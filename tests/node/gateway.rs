//! Vectors through the gateway to models, and agents as they are told.

use serde_json::{Value, json};

use crate::agents::{options, stub};
use crate::harness::{Client, Node};

fn ended(client: &mut Client, run_id: &str) -> Value {
    let path = format!("/v1/runs/{run_id}");
    client.request("GET", &path, &[("prefer", "wait=60")], b"").unwrap().expect(200).json()
}

fn started(client: &mut Client, body: &Value) -> String {
    client.post("/v1/runs", body).expect(202).json()["run_id"].as_str().unwrap().to_owned()
}

fn timeline(client: &mut Client, run_id: &str) -> Vec<Value> {
    let page = client.get(&format!("/v1/runs/{run_id}/timeline?limit=1000")).expect(200).json();
    page["events"].as_array().unwrap().clone()
}

fn aob(node: &Node, arguments: &[&str]) -> String {
    let done = std::process::Command::new(env!("CARGO_BIN_EXE_aob"))
        .args(arguments)
        .args(["--url", &format!("http://{}", node.address)])
        .output()
        .unwrap();
    assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

fn nanos(amount: &Value) -> u64 {
    let amount: f64 = amount.as_str().unwrap_or_else(|| panic!("no amount: {amount}")).parse().unwrap();
    (amount * 1e9).round() as u64
}

/// Texts become vectors, and the nearest is found by an expression.
fn search() -> Value {
    json!({
        "name": "search",
        "limits": {"budget": {"usd": "0.10"}},
        "agents": {"index": {"model": "big", "fallback": ["small"]}},
        "inputs": {"type": "object", "required": ["texts"]},
        "nodes": {
            "embed": {"type": "agent", "outputs": ["vectors"], "retry": {"max_attempts": 2, "initial": "10ms", "jitter": false},
                "with": {"role": "index", "embed": "${ inputs.texts }", "dimensions": 8}},
            "size": {"type": "function", "needs": ["embed"],
                "with": {"expr": "outputs.vectors.map(v, size(v))"}},
        },
        "outputs": {"sizes": "${ nodes.size.output }", "vectors": "${ outputs.vectors }"},
    })
}

// F430, F394, F404, F406: a call for vectors is reserved, made, retried, counted and paid as any call of an agent.
#[test]
fn texts_become_vectors_and_are_paid_as_any_call_of_an_agent() {
    let (directory, stub) = (tempfile::tempdir().unwrap(), stub());
    stub.script(&json!({"rules": [{"when": {"api": "embeddings", "nth": 1}, "do": {"status": 500}}]}))
        .unwrap();
    let node = Node::start(&options(directory.path(), &stub));
    let mut client = node.client();
    client.post("/v1/workflows", &search()).expect(201);
    let texts = json!({"texts": ["red green", "green red", "seven"]});
    let run_id = started(&mut client, &json!({"workflow": "search", "inputs": texts}));
    let run = ended(&mut client, &run_id);
    assert_eq!(run["status"], "completed", "{run}");
    assert_eq!(run["outputs"]["sizes"], json!([8, 8, 8]), "{run}");
    let vectors: Vec<Vec<f64>> = serde_json::from_value(run["outputs"]["vectors"].clone()).unwrap();
    let near = |a: usize, b: usize| vectors[a].iter().zip(&vectors[b]).map(|(a, b)| a * b).sum::<f64>();
    assert!(near(0, 1) > 0.99 && near(0, 2) < 0.99, "{vectors:?}");
    let events = timeline(&mut client, &run_id);
    let of = |kind: &str| events.iter().filter(|event| event["type"] == kind).collect::<Vec<_>>();
    assert_eq!((of("model.called").len(), of("node.retry_scheduled").len()), (2, 1), "{events:?}");
    let [answer] = of("model.answered")[..] else { panic!("{events:?}") };
    assert!(nanos(&of("model.called")[0]["reserved_usd"]) > 0);
    assert_eq!(
        (&answer["model"], &answer["stop"], &answer["measured"]),
        (&json!("big"), &json!("end"), &json!(true))
    );
    assert!(answer["content"].as_str().unwrap().starts_with("sha256:"), "vectors are not shown: {answer}");
    let tokens = answer["tokens"]["input"].as_u64().unwrap();
    assert_eq!((nanos(&answer["cost_usd"]), answer["tokens"]["output"].as_u64()), (tokens * 1_000, Some(0)));
    // The call that failed may have been billed.
    let cost = client.get(&format!("/v1/runs/{run_id}/cost")).expect(200).json();
    let reserved = nanos(&of("model.called")[0]["reserved_usd"]);
    assert_eq!(nanos(&cost["usd"]), tokens * 1_000 + reserved, "{cost}");
    let metrics = String::from_utf8(client.get("/metrics").expect(200).body).unwrap();
    let line = format!(
        r#"gen_ai_client_token_usage_sum{{gen_ai_operation_name="embeddings",gen_ai_provider_name="openai",gen_ai_request_model="big",gen_ai_token_type="input"}} {tokens}.0"#
    );
    assert!(metrics.contains(&line), "{line}\n{metrics}");
    // Nothing is asked for that is no text, and no other model's vectors take the place of these.
    let bad = started(&mut client, &json!({"workflow": "search", "inputs": {"texts": [1]}}));
    let bad = ended(&mut client, &bad);
    assert_eq!(
        (&bad["status"], &bad["error"]["code"]),
        (&json!("failed"), &json!("model_request_invalid")),
        "{bad}"
    );
    assert_eq!(stub.stats()["calls"], 2);
}

// F430: before anything is written, whoever registers hears that a model gives no vectors.
#[test]
fn a_run_whose_model_gives_no_vectors_is_refused() {
    let (directory, stub) = (tempfile::tempdir().unwrap(), stub());
    let node = Node::start(&options(directory.path(), &stub));
    let mut client = node.client();
    let mut workflow = search();
    workflow["agents"]["index"] = json!({"model": "small"});
    let verdict = client.post("/v1/workflows/validate", &workflow).expect(200).json();
    assert_eq!(verdict["warnings"][0]["code"], "model_request_invalid", "{verdict}");
    client.post("/v1/workflows", &workflow).expect(201);
    let refused =
        client.post("/v1/runs", &json!({"workflow": "search", "inputs": {"texts": "a"}})).expect(422).json();
    assert!(refused.to_string().contains("no embeddings"), "{refused}");
}

// F285, F395: what agents there are, what they may, what they spent and how they failed.
#[test]
fn agents_are_listed_and_shown_with_what_they_do() {
    let (directory, stub) = (tempfile::tempdir().unwrap(), stub());
    stub.script(&json!({"rules": [{"when": {"text": "fail", "nth": 1}, "do": {"status": 500}}]})).unwrap();
    let node = Node::start(&options(directory.path(), &stub));
    let mut client = node.client();
    let role = json!({"model": "big", "fallback": ["small"], "tools": ["patch"], "max_turns": 3, "system": "You write."});
    let workflow = json!({
        "name": "desk", "version": "1",
        "agents": {"writer": role, "idle": {"description": "Waits."}},
        "nodes": {"a": {"type": "agent", "retry": {"max_attempts": 2, "initial": "1ms", "jitter": false},
            "with": {"role": "writer", "task": "please fail once. [[say: done]]"}}},
    });
    client.post("/v1/workflows", &workflow).expect(201);
    client.post("/v1/workflows", &json!({"name": "none", "nodes": {"a": {"type": "function"}}})).expect(201);
    let other =
        json!({"name": "zoo", "agents": {"keeper": {"model": "gone"}}, "nodes": {"a": {"type": "function"}}});
    client.post("/v1/workflows", &other).expect(201);
    let run_id = started(&mut client, &json!({"workflow": "desk"}));
    assert_eq!(ended(&mut client, &run_id)["status"], "completed");
    let spent = client.get(&format!("/v1/runs/{run_id}/cost")).expect(200).json();
    let mut names = Vec::new();
    let mut path = String::from("/v1/agents?limit=1");
    loop {
        let page = client.get(&path).expect(200).json();
        names.extend(
            page["agents"].as_array().unwrap().iter().map(|agent| agent["role"].as_str().unwrap().to_owned()),
        );
        let Some(next) = page["next_cursor"].as_str() else { break };
        path = format!("/v1/agents?limit=1&cursor={next}");
    }
    assert_eq!(names, ["idle", "writer", "keeper"]);
    let page = client.get("/v1/agents?workflow=desk").expect(200).json();
    assert_eq!(page["agents"].as_array().unwrap().len(), 2, "{page}");
    let writer = client.get("/v1/agents/desk/writer").expect(200).json();
    assert_eq!(
        (&writer["models"], &writer["tools"]),
        (&json!(["big", "small"]), &json!(["patch"])),
        "{writer}"
    );
    assert_eq!(
        (&writer["system"], &writer["limits"]["max_turns"]),
        (&json!("You write."), &json!(3)),
        "{writer}"
    );
    assert_eq!(
        (&writer["ladder"][0]["breaker"], &writer["ladder"][1]["provider"]),
        (&json!("closed"), &json!("anthropic"))
    );
    let live = &writer["live"];
    assert_eq!(
        (&live["calls"], &live["answers"], &live["failures"], &live["under_way"]),
        (&json!(2), &json!(1), &json!(1), &json!(0))
    );
    assert_eq!(live["last_failure"]["code"], "api_error", "{live}");
    assert!(live["context_tokens"].as_u64().unwrap() > 0 && nanos(&live["usd"]) > 0, "{live}");
    // A run's sums are in the index when its row is.
    let usage = (0..10_000).map(|_| client.get("/v1/agents/desk/writer").expect(200).json()["usage"].clone());
    let usage = usage.into_iter().find(|usage| usage["answers"] == 1).expect("the run is never in the sums");
    assert_eq!((&usage["usd"], &usage["calls"]), (&spent["usd"], &spent["calls"]), "{usage} {spent}");
    let idle = client.get("/v1/agents/desk/idle").expect(200).json();
    assert_eq!(
        (&idle["live"]["calls"], &idle["ladder"][0]["name"]),
        (&json!(0), &json!("big")),
        "the default: {idle}"
    );
    let keeper = client.get("/v1/agents/zoo/keeper").expect(200).json();
    assert_eq!(
        (&keeper["ladder"][0]["known"], &keeper["ladder"][0]["breaker"]),
        (&json!(false), &Value::Null)
    );
    for (path, status) in [
        ("/v1/agents/desk/nobody", 404),
        ("/v1/agents/nothing/writer", 404),
        ("/v1/agents?cursor=x", 400),
        ("/v1/agents?limit=0", 400),
    ] {
        client.get(path).expect(status);
    }
    let listed = aob(&node, &["agent", "list"]);
    let line = listed.lines().find(|line| line.contains("writer")).unwrap_or_else(|| panic!("{listed}"));
    assert!(line.contains("big,small") && line.contains("api_error"), "{listed}");
    let shown: Value =
        serde_json::from_str(&aob(&node, &["agent", "show", "desk", "writer", "-o", "json"])).unwrap();
    assert_eq!(shown["ladder"], writer["ladder"]);
}
