//! Agents, with a model that is none: what is asked, what is done with the answer, what it costs, and what a crash costs.

use std::path::Path;

use aob_stub_model::Stub;
use serde_json::{Value, json};

use crate::harness::{Client, Node, Options, in_background};

/// A stub of models, and how a node is told of it: `big` speaks as OpenAI does, `small` as Anthropic.
pub(crate) fn stub() -> Stub {
    Stub::start_blocking(aob_stub_model::Options::default()).unwrap()
}

pub(crate) fn options(directory: &Path, stub: &Stub) -> Options {
    let url = stub.url();
    let model = |provider: &str, model: &str| {
        format!(
            r#"{{provider = "{provider}", model = "{model}", context_tokens = 100000, max_output_tokens = 1000, price = {{input_per_million = "1", output_per_million = "2"}}}}"#
        )
    };
    Options::serve(directory)
        .set("http.allow", "127.0.0.1")
        .set("models.providers.openai", &format!(r#"{{kind = "openai", base_url = "{url}"}}"#))
        .set("models.providers.anthropic", &format!(r#"{{kind = "anthropic", base_url = "{url}"}}"#))
        .set("models.names.big", &model("openai", "big-1"))
        .set("models.names.small", &model("anthropic", "small-1"))
        .set("models.default", "big")
}

pub(crate) fn start(client: &mut Client, workflow: &Value) -> String {
    client.post("/v1/workflows", workflow).expect(201);
    let run = client.post("/v1/runs", &json!({"workflow": workflow["name"]})).expect(202).json();
    run["run_id"].as_str().unwrap().to_owned()
}

pub(crate) fn ended(client: &mut Client, run_id: &str) -> Value {
    let path = format!("/v1/runs/{run_id}");
    client.request("GET", &path, &[("prefer", "wait=60")], b"").unwrap().expect(200).json()
}

pub(crate) fn timeline(client: &mut Client, run_id: &str) -> Vec<Value> {
    let page = client.get(&format!("/v1/runs/{run_id}/timeline?limit=1000")).expect(200).json();
    page["events"].as_array().unwrap().clone()
}

fn types(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["type"].as_str().unwrap()).collect()
}

/// One agent with this task.
fn asking(name: &str, task: &str) -> Value {
    json!({"name": name, "nodes": {"ask": {"type": "agent", "with": {"task": task}}}})
}

// F029, F285, F430, F435, F436
#[test]
fn both_apis_answer_and_the_answer_is_the_nodes_output() {
    let (directory, stub) = (tempfile::tempdir().unwrap(), stub());
    let node = Node::start(&options(directory.path(), &stub));
    let mut client = node.client();
    for model in ["big", "small"] {
        let workflow = json!({
            "name": model,
            "agents": {"writer": {"model": model, "system": "You write."}},
            "nodes": {"ask": {"type": "agent", "outputs": ["text"],
                "with": {"role": "writer", "task": "Say it. [[say: as you wish]]"}}},
            "outputs": {"said": "${ outputs.text }"}
        });
        let run_id = start(&mut client, &workflow);
        let run = ended(&mut client, &run_id);
        assert_eq!(run["outputs"], json!({"said": "as you wish"}), "{run}");
        let events = timeline(&mut client, &run_id);
        let answer = events.iter().find(|event| event["type"] == "model.answered").unwrap();
        assert_eq!(answer["model"], model);
        assert_eq!(answer["measured"], true);
        let cost: f64 = answer["cost_usd"].as_str().unwrap().parse().unwrap();
        let tokens = &answer["tokens"];
        let expected = tokens["input"].as_f64().unwrap() * 1e-6 + tokens["output"].as_f64().unwrap() * 2e-6;
        assert!((cost - expected).abs() < 1e-9, "{answer}");
    }
    assert_eq!(stub.stats()["calls"], 2);
}

// F030, F031, F106, F414: what an agent proposes goes the way of any patch, with the agent as its author.
#[test]
fn an_agent_patches_its_own_run_and_is_told_why_when_it_may_not() {
    let (directory, stub) = (tempfile::tempdir().unwrap(), stub());
    let node = Node::start(&options(directory.path(), &stub));
    let mut client = node.client();
    let good = r#"[[patch: [{"op": "add", "path": "/nodes/extra", "value": {"type": "function", "with": {"expr": "'patched'"}}}]]]"#;
    let wider = r#"[[patch: [{"op": "add", "path": "/nodes/thief", "value": {"type": "agent", "with": {"task": "x", "tools": ["mcp:bank/*"]}}}]]]"#;
    let workflow = json!({
        "name": "patching",
        "agents": {"planner": {"model": "big", "tools": ["patch"]}},
        "nodes": {
            "plan": {"type": "agent", "with": {"role": "planner",
                "task": "Plan. ${ inputs.how }"}},
        }
    });
    client.post("/v1/workflows", &workflow).expect(201);
    let how = format!("{wider} [[turn]] {good} [[turn]] [[say: done]]");
    let body = json!({"workflow": "patching", "inputs": {"how": how}});
    let run_id = client.post("/v1/runs", &body).expect(202).json()["run_id"].as_str().unwrap().to_owned();
    let run = ended(&mut client, &run_id);
    assert_eq!(run["status"], "completed", "{run}");
    assert_eq!(run["outputs"]["extra"], "patched", "{run}");
    let events = timeline(&mut client, &run_id);
    let results: Vec<&Value> = events
        .iter()
        .filter(|event| event["type"] == "tool.returned")
        .map(|event| &event["results"][0])
        .collect();
    assert_eq!(results.len(), 2, "{:?}", types(&events));
    assert_eq!(
        (&results[0]["ok"], &results[0]["error"]["retryable"]),
        (&json!(false), &json!(false)),
        "{}",
        results[0]
    );
    assert!(results[0]["error"].to_string().contains("tool_not_allowed"), "{}", results[0]);
    assert_eq!(results[1]["output"]["state"], "applied", "{}", results[1]);
    let made = events.iter().find(|event| event["type"] == "patch.created").unwrap();
    assert_eq!(made["author"], "agent:planner");
    assert_eq!(events.iter().filter(|event| event["type"] == "patch.rejected").count(), 1);
}

// F352, F373: what passes is tried again, by the node's policy; nothing is paid for it.
#[test]
fn an_overloaded_model_is_asked_again_and_another_one_when_it_stays_so() {
    let (directory, stub) = (tempfile::tempdir().unwrap(), stub());
    stub.script(&json!({"rules": [
        {"when": {"model": "big-1", "text": "busy", "nth": 1}, "do": {"status": 429, "retry_after": 0}},
        {"when": {"model": "big-1", "text": "full"}, "do": {"status": 529, "retry_after": 0}},
    ]}))
    .unwrap();
    let node = Node::start(&options(directory.path(), &stub));
    let mut client = node.client();
    let retry = json!({"max_attempts": 2, "initial": "10ms", "backoff": "fixed", "jitter": false});
    let agent = |task: &str| json!({"type": "agent", "retry": retry, "with": {"role": "r", "task": task}});
    let workflow = json!({
        "name": "busy",
        "agents": {"r": {"model": "big", "fallback": ["small"]}},
        "nodes": {"busy": agent("busy [[say: late]]"), "full": agent("full [[say: from the other]]")}
    });
    let run_id = start(&mut client, &workflow);
    let run = ended(&mut client, &run_id);
    assert_eq!(run["outputs"], json!({"busy": "late", "full": "from the other"}), "{run}");
    let events = timeline(&mut client, &run_id);
    let degraded: Vec<&Value> = events.iter().filter(|event| event["type"] == "model.degraded").collect();
    assert_eq!(degraded.len(), 1);
    assert_eq!(degraded[0]["error"]["code"], "overloaded", "{}", degraded[0]);
    assert_eq!(stub.stats()["finished"].as_u64().map(|finished| finished >= 2), Some(true));
}

// F402, F407, N7
#[test]
fn a_budget_stops_a_call_before_it_is_made() {
    let (directory, stub) = (tempfile::tempdir().unwrap(), stub());
    let node = Node::start(&options(directory.path(), &stub));
    let mut client = node.client();
    let mut workflow = asking("dear", "[[say: hello]]");
    // A thousand tokens of output may cost $0.002.
    workflow["limits"] = json!({"budget": {"usd": "0.001"}});
    let run_id = start(&mut client, &workflow);
    let run = ended(&mut client, &run_id);
    assert_eq!(
        (&run["status"], &run["error"]["code"]),
        (&json!("failed"), &json!("budget_exceeded")),
        "{run}"
    );
    assert_eq!(stub.stats()["calls"], 0, "nobody was asked");
}

// F092: what was said is pinned; nobody is asked again.
#[test]
fn a_run_with_an_agent_replays_without_its_model() {
    let (directory, stub) = (tempfile::tempdir().unwrap(), stub());
    let node = Node::start(&options(directory.path(), &stub));
    let mut client = node.client();
    let run_id = start(&mut client, &asking("replayed", "[[say: once]]"));
    ended(&mut client, &run_id);
    let before = stub.stats()["calls"].clone();
    for mode in ["freeze", "shadow"] {
        let (code, said, wrong) = super::replay::aob(Some(&node), &["replay", &run_id, "--mode", mode]);
        assert_eq!(code, 0, "{mode}: {said} {wrong}");
    }
    assert_eq!(stub.stats()["calls"], before);
}

#[test]
fn without_a_model_a_run_with_an_agent_is_not_begun() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&Options::serve(directory.path()));
    let mut client = node.client();
    client.post("/v1/workflows", &asking("none", "x")).expect(201);
    let refused = client.post("/v1/runs", &json!({"workflow": "none"})).expect(422).json();
    assert_eq!(refused["code"], "workflow_unstartable", "{refused}");
}

// F392: a crash costs the turn under way and no other.
#[test]
fn kill_9_in_the_middle_of_conversations_pays_no_recorded_answer_twice() {
    let (directory, stub) = (tempfile::tempdir().unwrap(), stub());
    stub.script(&json!({"rules": [{"do": {"delay_ms": 20}}]})).unwrap();
    let rounds = if std::env::var_os("AOB_FULL").is_some() { 50 } else { 4 };
    let options = options(directory.path(), &stub);
    let mut runs = Vec::new();
    let turns = "[[tool:nothing]] [[turn]] [[tool:nothing]] [[turn]] [[tool:nothing]] [[turn]] [[say: done]]";
    for round in 0..rounds {
        let node = Node::start(&options);
        let mut client = node.client();
        let mut workflow = asking("talk", turns);
        workflow["version"] = json!("1");
        if round == 0 {
            client.post("/v1/workflows", &workflow).expect(201);
        }
        for _ in 0..4 {
            let run = client.post("/v1/runs", &json!({"workflow": "talk"})).expect(202).json();
            runs.push(run["run_id"].as_str().unwrap().to_owned());
        }
        let calls = stub.stats()["calls"].as_u64().unwrap();
        // Four runs of this round make sixteen calls, so that many come for certain.
        while stub.stats()["calls"].as_u64().unwrap() < calls + 3 + round % 12 {}
        node.kill();
    }
    let node = Node::start(&options);
    let mut client = node.client();
    let mut recorded = 0;
    for run_id in &runs {
        let run = ended(&mut client, run_id);
        assert_eq!(run["status"], "completed", "{run}");
        let events = timeline(&mut client, run_id);
        let answers: Vec<&Value> = events.iter().filter(|event| event["type"] == "model.answered").collect();
        assert_eq!(answers.len(), 4, "{:?}", types(&events));
        recorded += answers.len() as u64;
        let lost = events.iter().filter(|event| event["type"] == "node.lost").count();
        assert!(lost as u64 <= rounds, "{lost}");
    }
    // A turn's calls carry one key: what was paid more than once was never recorded before the crash.
    let stats = stub.stats();
    let keys = &stats["keys"]["idempotency-key"];
    assert_eq!(keys["distinct"], recorded, "one key a turn: {keys}");
    // Whatever was called more often than it was recorded was under way in a crash.
    assert!(stats["calls"].as_u64().unwrap() <= recorded + 4 * rounds * 4, "{stats}");
}

// F033: an answer is seen as it comes, by whoever is there, and in whole in the timeline.
#[test]
fn pieces_of_an_answer_are_streamed_without_a_number() {
    let (directory, stub) = (tempfile::tempdir().unwrap(), stub());
    stub.script(&json!({"rules": [{"do": {"chunk_delay_ms": 20}}]})).unwrap();
    let node = Node::start(&options(directory.path(), &stub));
    let mut client = node.client();
    let said = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen";
    let mut workflow = asking("live", &format!("[[say: {said}]]"));
    workflow["nodes"]["go"] = json!({"type": "wait", "with": {"signal": "go"}});
    workflow["nodes"]["ask"]["needs"] = json!(["go"]);
    let run_id = start(&mut client, &workflow);
    let path = format!("/v1/runs/{run_id}/events");
    let (watcher, begun) = (node.client(), std::sync::mpsc::sync_channel(1));
    let (tell, told) = begun;
    let watched = in_background(move || {
        watcher.events(&path, &[], |event| {
            if event.event == "node.waiting" {
                let _ = tell.try_send(());
            }
            event.event != "run.completed"
        })
    });
    told.recv().unwrap();
    client.post(&format!("/v1/runs/{run_id}/signals/go"), &json!({})).expect(202);
    let events = watched.join().unwrap();
    let pieces: Vec<Value> =
        events.iter().filter(|event| event.event == "node.delta").map(|event| event.data.clone()).collect();
    assert!(pieces.len() > 1, "{:?}", events.iter().map(|event| &event.event).collect::<Vec<_>>());
    assert!(pieces.iter().all(|piece| piece["node"] == "ask"), "{pieces:?}");
    // In order, none twice, none made up; which of them a stream gets is promised to nobody.
    let texts: Vec<&str> = pieces.iter().map(|piece| piece["text"].as_str().unwrap()).collect();
    let mut rest = said;
    for text in &texts {
        rest = rest.split_once(text).unwrap_or_else(|| panic!("{text:?} is not in {rest:?}: {texts:?}")).1;
    }
    let numbered = events.iter().filter(|event| event.event != "node.delta").count();
    assert_eq!(timeline(&mut client, &run_id).len(), numbered, "pieces are no events");
}

/// A run's review is approved, once it waits.
fn approve(client: &mut Client, run_id: &str) {
    for _ in 0..100_000 {
        let run = client.get(&format!("/v1/runs/{run_id}")).expect(200).json();
        if let Some(review) = run["approvals"].get(0) {
            let path = format!("/v1/approvals/{}/decision", review["ticket"].as_str().unwrap());
            let body = json!({"approved": true, "reviewer": "owner", "reason": "so be it"});
            client.post(&path, &body).expect(200);
            return;
        }
        assert_eq!(run["status"], "running", "{run}");
    }
    panic!("nobody is asked");
}

// F043, F286, F288: what is shown to users runs, with roles that somebody defined and with roles that nobody did.
#[test]
fn examples_of_agents_run_to_their_end() {
    let (directory, stub) = (tempfile::tempdir().unwrap(), stub());
    let root = crate::harness::root();
    let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap();
    let mut script: Value = serde_json::from_str(&read("examples/agents/stub.json")).unwrap();
    // A call that is made once, and meets a busy model, waits for a human.
    script["rules"].as_array_mut().unwrap().retain(|rule| rule["do"]["status"].is_null());
    stub.script(&script).unwrap();
    let node = Node::start(&options(directory.path(), &stub));
    let mut client = node.client();
    let examples = [
        ("agents/plan_build", json!({"task": "a list"})),
        ("agents/plan_build_review", json!({"task": "a list"})),
        ("agents/plan_build_review_fix", json!({"task": "a list"})),
        ("agents/research_analysis_report", json!({"topic": "tides"})),
        ("agents/review_fix_test_deploy", json!({"change": "a list"})),
        ("agents/collect_process_validate_store", json!({"sources": ["a", "b"], "day": "2026-11-22"})),
        ("seeds/research_and_report", json!({"topic": "tides"})),
    ];
    let runs: Vec<(&str, String)> = examples
        .iter()
        .map(|(name, inputs)| {
            let text = read(&format!("examples/{name}.yaml"));
            let yaml = [("content-type", "application/yaml")];
            let made = client.request("POST", "/v1/workflows", &yaml, text.as_bytes()).unwrap().expect(201);
            let body = json!({"workflow": made.json()["name"], "inputs": inputs});
            let run = client.post("/v1/runs", &body).expect(202).json();
            (*name, run["run_id"].as_str().unwrap().to_owned())
        })
        .collect();
    for (name, run_id) in runs {
        if name == "agents/review_fix_test_deploy" {
            approve(&mut client, &run_id);
        }
        let run = ended(&mut client, &run_id);
        assert_eq!(run["status"], "completed", "{name}: {run}");
        let events = timeline(&mut client, &run_id);
        let roles = types(&events).iter().filter(|kind| **kind == "model.answered").count();
        assert!(roles >= 2, "{name}: {roles} answers");
    }
}
