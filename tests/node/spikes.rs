//! Models that are slow or dear, and conversations that are too long: who is asked instead, what is left out, and how it ends.

use serde_json::{Value, json};

use crate::agents::{ended, options, start, stub, timeline};
use crate::harness::{Client, Node};

const REFUSED: &str = "[[tool:nothing]] [[turn]] ";

fn of<'e>(events: &'e [Value], kind: &str) -> Vec<&'e Value> {
    events.iter().filter(|event| event["type"] == kind).collect()
}

fn answered_by(events: &[Value]) -> Vec<&str> {
    of(events, "model.answered").iter().map(|event| event["model"].as_str().unwrap()).collect()
}

fn metrics(client: &mut Client) -> String {
    String::from_utf8(client.get("/metrics").expect(200).body).unwrap()
}

/// The same comes of the same events again.
fn replays(node: &Node, run_id: &str) {
    for mode in ["freeze", "shadow"] {
        let (code, said, wrong) = crate::replay::aob(Some(node), &["replay", run_id, "--mode", mode]);
        assert_eq!(code, 0, "{mode}: {said} {wrong}");
    }
}

// F389: too slow, then good again; the record says when and why.
#[test]
fn a_model_that_is_slow_is_left_for_the_next_and_asked_again_when_it_is_good() {
    let (directory, stub) = (tempfile::tempdir().unwrap(), stub());
    stub.script(&json!({"rules": [
        {"when": {"model": "big-1", "nth": {"to": 2}}, "do": {"delay_ms": 500}},
        {"when": {"model": "small-1"}, "do": {"delay_ms": 40}},
    ]}))
    .unwrap();
    let options = options(directory.path(), &stub).set("models.spike.latency", "300ms");
    let options = options.set("models.spike.calls_min", "2").set("models.spike.probes", "1");
    let node = Node::start(&options.set("models.spike.rest", "200ms"));
    let mut client = node.client();
    let task = format!("{}[[say: done]]", REFUSED.repeat(17));
    let workflow = json!({
        "name": "slow",
        "agents": {"r": {"model": "big", "fallback": ["small"]}},
        "nodes": {"ask": {"type": "agent", "with": {"role": "r", "task": task}}},
    });
    let run_id = start(&mut client, &workflow);
    let run = ended(&mut client, &run_id);
    assert_eq!(run["outputs"]["ask"], "done", "{run}");
    let events = timeline(&mut client, &run_id);
    assert_eq!(answered_by(&events)[..3], ["big", "big", "small"]);
    let degraded = of(&events, "model.degraded")[0];
    assert_eq!(
        (&degraded["reason"], &degraded["from_model"], &degraded["to_model"], &degraded["unit"]),
        (&json!("latency"), &json!("big"), &json!("small"), &json!("ms_per_call")),
        "{degraded}"
    );
    assert_eq!(degraded["threshold"], 300);
    assert!(degraded["measured"].as_u64().unwrap() >= 500, "{degraded}");
    let recovered = of(&events, "model.recovered");
    assert_eq!((&recovered[0]["from_model"], &recovered[0]["to_model"]), (&json!("small"), &json!("big")));
    let after = events.iter().position(|event| event["type"] == "model.recovered").unwrap();
    assert_eq!(answered_by(&events[after..])[0], "big", "it is asked again");
    let told = metrics(&mut client);
    assert!(
        told.contains(r#"aob_llm_spikes_total{provider="openai",model="big",reason="latency"} "#),
        "{told}"
    );
    assert!(told.contains(r#"aob_llm_spike_state{provider="openai",model="big"} "#), "{told}");
    assert!(!told.contains(r#"model="big",reason="latency"} 0"#), "{told}");
    node.says("the model big has a spike of latency");
    // What was decided stands in events: the same comes of them again.
    replays(&node, &run_id);
}

// F389: too dear, and the node's own ladder for an agent that has none.
#[test]
fn a_model_that_is_dear_is_left_for_the_next_on_the_nodes_ladder() {
    let (directory, stub) = (tempfile::tempdir().unwrap(), stub());
    stub.script(&json!({"rules": [{"when": {"model": "big-1"}, "do": {"usage": {"in": 300, "out": 900}}}]}))
        .unwrap();
    let options = options(directory.path(), &stub).set("models.ladder", "big, small");
    let options = options.set("models.spike.cost_usd", "0.001").set("models.spike.calls_min", "2");
    let node = Node::start(&options.set("models.spike.rest", "10m"));
    let mut client = node.client();
    let task = format!("{}[[say: done]]", REFUSED.repeat(3));
    let workflow = json!({"name": "dear", "nodes": {"ask": {"type": "agent", "with": {"task": task}}}});
    let run_id = start(&mut client, &workflow);
    assert_eq!(ended(&mut client, &run_id)["outputs"]["ask"], "done");
    let events = timeline(&mut client, &run_id);
    assert_eq!(answered_by(&events), ["big", "big", "small", "small"]);
    let degraded = of(&events, "model.degraded");
    assert_eq!((degraded.len(), &degraded[0]["reason"]), (1, &json!("cost")), "{degraded:?}");
    // Dollars in billionths: 300 tokens read at 1, 900 written at 2 a million.
    assert_eq!((&degraded[0]["measured"], &degraded[0]["threshold"]), (&json!(2_100_000), &json!(1_000_000)));
    // Another run begins with whom there is.
    client.post("/v1/runs", &json!({"workflow": "dear"})).expect(202);
    let run = client.post("/v1/runs", &json!({"workflow": "dear"})).expect(202).json();
    let run_id = run["run_id"].as_str().unwrap();
    ended(&mut client, run_id);
    assert_eq!(answered_by(&timeline(&mut client, run_id)), ["small"; 4]);
}

// F372, F390: what is too long is shorter the next time, by the agent's own word and by the provider's.
#[test]
fn a_conversation_that_is_too_long_loses_its_oldest_turns() {
    let (directory, stub) = (tempfile::tempdir().unwrap(), stub());
    let long = "all work and no play ".repeat(100);
    let goes_on = json!({"text": long, "tools": [{"name": "nothing", "arguments": {}}]});
    stub.script(&json!({"rules": [
        {"when": {"text": "refuse", "nth": 3}, "do": {"status": 400, "error": "context_length"}},
        {"when": {"nth": {"to": 4}, "per": "aob-run-id"}, "do": goes_on},
    ]}))
    .unwrap();
    let node = Node::start(&options(directory.path(), &stub));
    let mut client = node.client();
    let memory = json!({"max_tokens": 1_500, "keep_turns": 1});
    let workflow = json!({
        "name": "own",
        "agents": {"r": {"model": "big", "fallback": ["small"], "memory": memory}},
        "nodes": {"ask": {"type": "agent", "with": {"role": "r", "task": "Go on."}}},
    });
    let run_id = start(&mut client, &workflow);
    assert_eq!(ended(&mut client, &run_id)["status"], "completed");
    let events = timeline(&mut client, &run_id);
    let trimmed = of(&events, "context.trimmed");
    assert_eq!(trimmed[0]["reason"], "memory", "{events:?}");
    for event in &trimmed {
        let tokens = |name: &str| event[name].as_u64().unwrap();
        assert_eq!(tokens("tokens_max"), 1_500);
        assert!(tokens("tokens_before") > 1_500 && tokens("tokens_after") <= 1_500, "{event}");
        assert!(tokens("turns_left_out") >= 1);
    }
    assert!(of(&events, "model.degraded").is_empty(), "no other model is needed for that");
    assert_eq!(answered_by(&events), ["big"; 5]);
    // What is sent is the task, and whole turns: the stub refuses a result without its call.
    for request in stub.requests(100)["requests"].as_array().unwrap() {
        let body = request["body"].to_string();
        assert!(body.contains("Go on.") && body.len() < 4 * 1_500 + 1_000, "{} bytes", body.len());
    }
    replays(&node, &run_id);

    // The provider says so, and there is no other model.
    let mut workflow =
        json!({"name": "theirs", "nodes": {"ask": {"type": "agent", "with": {"task": "refuse"}}}});
    workflow["agents"] = json!({"r": {"model": "big"}});
    workflow["nodes"]["ask"]["with"]["memory"] = json!({"keep_turns": 1});
    let run_id = start(&mut client, &workflow);
    let run = ended(&mut client, &run_id);
    assert_eq!(run["status"], "completed", "{run}");
    let events = timeline(&mut client, &run_id);
    let trimmed = of(&events, "context.trimmed");
    assert_eq!((trimmed.len(), &trimmed[0]["reason"]), (1, &json!("provider")), "{events:?}");
    let cost = client.get(&format!("/v1/runs/{run_id}/cost")).expect(200).json();
    let reserved: f64 = cost["reserved_usd"].as_str().unwrap().parse().unwrap();
    assert_eq!(reserved.to_bits(), 0.0_f64.to_bits(), "{cost}");
}

// F382
#[test]
fn no_more_agents_of_a_role_than_may_be_are_at_work_and_whoever_waits_says_so() {
    let (directory, stub) = (tempfile::tempdir().unwrap(), stub());
    stub.script(
        &json!({"rules": [{"when": {"text": "held"}, "do": {"delay_ms": 60_000}}, {"do": {"delay_ms": 20}}]}),
    )
    .unwrap();
    let node = Node::start(&options(directory.path(), &stub));
    let mut client = node.client();
    let agents = json!({"one": {"model": "big", "max_concurrency": 2}});
    let agent = |task: &str| json!({"type": "agent", "with": {"role": "one", "task": task}});
    let task = format!("{}[[say: done]]", REFUSED.repeat(2));
    let many = json!({"name": "many", "agents": agents, "nodes": {"ask": agent(&task)}});
    client.post("/v1/workflows", &many).expect(201);
    let begin = |client: &mut Client, name: &str| {
        let run = client.post("/v1/runs", &json!({"workflow": name})).expect(202).json();
        run["run_id"].as_str().unwrap().to_owned()
    };
    let runs: Vec<String> = (0..8).map(|_| begin(&mut client, "many")).collect();
    for run_id in &runs {
        assert_eq!(ended(&mut client, run_id)["outputs"]["ask"], "done");
    }
    assert_eq!(stub.stats()["in_flight_max"], 2, "two at once, and both places are used");

    let held = json!({"name": "held", "agents": agents, "nodes": {"ask": agent("held")}});
    client.post("/v1/workflows", &held).expect(201);
    let held: Vec<String> = (0..3).map(|_| begin(&mut client, "held")).collect();
    let waiting = |client: &mut Client, run_id: &str| {
        let graph = client.get(&format!("/v1/runs/{run_id}/graph")).expect(200).json();
        graph["nodes"]["ask"]["waiting"].clone()
    };
    let in_line = loop {
        let all: Vec<Value> = held.iter().map(|run_id| waiting(&mut client, run_id)).collect();
        if let Some(at) = all.iter().position(|waiting| waiting["reason"] == "agent_slot") {
            assert_eq!(
                (&all[at]["limit"], &all[at]["max"]),
                (&json!("max_concurrency"), &json!(2)),
                "{all:?}"
            );
            break at;
        }
    };
    assert!(metrics(&mut client).contains("aob_agents_waiting 1"), "{}", metrics(&mut client));
    // Whoever is called back leaves the line, and its place.
    while stub.stats()["in_flight"] != 2 {}
    let calls = stub.stats()["calls"].as_u64().unwrap();
    for at in [in_line, (in_line + 1) % 3] {
        client.post(&format!("/v1/runs/{}/terminate", held[at]), &json!({"reason": "enough"})).expect(200);
        assert_eq!(ended(&mut client, &held[at])["status"], "cancelled");
    }
    assert_eq!(stub.stats()["calls"], calls, "who stood in line asked nobody");
    let run_id = begin(&mut client, "held");
    while stub.stats()["calls"].as_u64().unwrap() == calls {}
    assert_eq!(waiting(&mut client, &run_id)["reason"], "answer", "there is room again");
}
