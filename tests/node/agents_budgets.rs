//! Budgets that runs share: I-18 for a workspace and an hour, whoever asks at once and whenever the node dies; and what becomes of
//! agents whom one refuses.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use crate::agents::{options, stub};
use crate::agents_money::{crowd, nanos, whole_timeline};
use crate::harness::{Client, Node, Options};

/// Of several histories, in the order of time: what all calls came to together, which was never more than the limit.
#[derive(Debug, Default, PartialEq)]
struct Recount {
    answered: u64,
    answers: u64,
    unknown: u64,
    refused: u64,
    warned: u64,
}

/// Recounted from the timelines alone. At one time what frees goes first: a call that took its place came after it.
fn recount(histories: &[Vec<Value>], limit: u64) -> Recount {
    let mut events: Vec<(&str, bool, usize, &Value)> = Vec::new();
    for (run, history) in histories.iter().enumerate() {
        for event in history {
            events.push((event["at"].as_str().unwrap(), event["type"] == "model.called", run, event));
        }
    }
    events.sort_by_key(|(at, called, ..)| (*at, *called));
    let unbilled = ["rate_limited", "overloaded", "circuit_breaker_open"];
    let (mut reserved, mut count) = (BTreeMap::new(), Recount::default());
    for (_, _, run, event) in events {
        let place = (run, event["node"].as_str().unwrap_or_default().to_owned());
        match event["type"].as_str().unwrap() {
            "model.called" => {
                assert_eq!(
                    reserved.insert(place, nanos(&event["reserved_usd"])),
                    None,
                    "two at once: {event}"
                );
            }
            "model.answered" => {
                let held: u64 = reserved.remove(&place).unwrap_or_else(|| panic!("never reserved: {event}"));
                assert!(nanos(&event["cost_usd"]) <= held, "{event}");
                count.answered += nanos(&event["cost_usd"]);
                count.answers += 1;
            }
            "node.retry_scheduled" | "node.failed" | "node.lost" => {
                let code = event["error"]["code"].as_str().unwrap_or_default();
                if let Some(held) = reserved.remove(&place)
                    && !unbilled.contains(&code)
                {
                    count.unknown += held;
                }
            }
            "budget.exceeded" => {
                assert_eq!((&event["scope"], &event["per"]), (&json!("workspace:default"), &json!("hour")));
                count.refused += 1;
            }
            "budget.warned" => {
                assert_eq!(event["scope"], "workspace:default");
                count.warned += 1;
            }
            _ => {}
        }
        let used = count.answered + count.unknown + reserved.values().sum::<u64>();
        assert!(used <= limit, "{used} of {limit} at {event}");
    }
    assert!(reserved.is_empty(), "still reserved: {reserved:?}");
    count
}

/// How the only budget stands, once nothing is reserved any more: what runs are told comes before what the ledger is told.
fn settled(client: &mut Client) -> Value {
    loop {
        let budgets = client.get("/v1/budgets").expect(200).json();
        assert_eq!(budgets["budgets"].as_array().unwrap().len(), 1, "{budgets}");
        if budgets["budgets"][0]["reserved_usd"] == "0.00" {
            return budgets["budgets"][0].clone();
        }
    }
}

fn budget(scope: &str, usd: &str, on_breach: &str) -> String {
    format!(r#"[{{scope = "{scope}", per = "hour", usd = "{usd}", on_breach = "{on_breach}"}}]"#)
}

const RUNS: usize = 4;
/// Calls at once, where the node is killed among them.
const UNDER_WAY: u64 = 20;

fn played(kills: u64) {
    let (directory, stub) = (tempfile::tempdir().unwrap(), stub());
    stub.script(&json!({"rules": [
        {"when": {"nth": {"every": 60}}, "do": {"status": 529, "retry_after": 0, "delay_ms": 5}},
        {"do": {"delay_ms": if kills == 0 { 5 } else { 100 }}},
    ]}))
    .unwrap();
    let at_once = if kills == 0 { 1_000 } else { UNDER_WAY };
    let provider = format!(r#"{{kind = "openai", base_url = "{}", max_in_flight = {at_once}}}"#, stub.url());
    // In both, less than all would take: some are to be refused.
    let limit = if kills == 0 { "0.60" } else { "0.35" };
    let options = options(directory.path(), &stub)
        .set("models.providers.openai", &provider)
        .set("budgets", &budget("workspace:default", limit, "stop"));
    let mut node = Node::start(&options);
    let mut client = node.client();
    let (mut workflow, items) = crowd(limit, 1_000);
    // Nothing but what they share limits them.
    workflow.as_object_mut().unwrap().remove("limits");
    client.post("/v1/workflows", &workflow).expect(201);
    let items = items.as_array().unwrap();
    let runs: Vec<String> = (0..RUNS)
        .map(|run| {
            let own: Vec<&Value> = items.iter().skip(run).step_by(RUNS).collect();
            let body = json!({"workflow": "crowd", "inputs": {"items": own}});
            let run = client.post("/v1/runs", &body).expect(202).json();
            run["run_id"].as_str().unwrap().to_owned()
        })
        .collect();
    // Fewer than the breaker takes for an outage, however they come.
    for round in 1..=kills {
        while stub.stats()["finished"].as_u64().unwrap() < UNDER_WAY * round {
            let last = client.get(&format!("/v1/runs/{}", runs[0])).expect(200).json();
            assert_eq!(last["status"], "running", "killed too late");
        }
        node.kill();
        node = Node::start(&options);
        client = node.client();
    }
    let histories: Vec<Vec<Value>> = runs
        .iter()
        .map(|run_id| {
            let path = format!("/v1/runs/{run_id}");
            let run = client.request("GET", &path, &[("prefer", "wait=60")], b"").unwrap().expect(200).json();
            assert_eq!(run["status"], "completed", "{}", run["error"]);
            whole_timeline(&mut client, run_id)
        })
        .collect();
    let count = recount(&histories, nanos(&json!(limit)));
    assert!(count.refused > 0 && count.answers > 100, "{count:?}");
    // The ledger of the workspace is what the histories say, to the billionth, also when it was made again from them.
    let standing = settled(&mut client);
    assert_eq!(nanos(&standing["spent_usd"]), count.answered + count.unknown, "{standing} {count:?}");
    let tokens = &stub.stats()["tokens"];
    let billed = tokens["in"].as_u64().unwrap() * 1_000 + tokens["out"].as_u64().unwrap() * 2_000;
    if kills == 0 {
        assert_eq!((billed, count.unknown, count.warned), (count.answered, 0, 1), "{count:?}");
    } else {
        assert!((count.answered..=count.answered + count.unknown).contains(&billed), "{billed}: {count:?}");
        // What is over counts as what goes on does.
        node.kill();
        let node = Node::start(&options);
        assert_eq!(settled(&mut node.client())["spent_usd"], standing["spent_usd"]);
    }
}

// N6, F384, F404, F403
#[test]
fn a_thousand_calls_of_many_runs_at_once_never_spend_more_than_their_workspace_may_in_an_hour() {
    played(0);
}

#[test]
fn neither_do_they_when_the_node_is_killed_among_them_and_the_ledger_is_made_again_from_the_runs() {
    played(3);
}

/// A node whose budgets stand in a file.
fn start_with(options: &Options, file: &Path, budgets: &str) -> Node {
    std::fs::write(file, format!("budgets = {budgets}\n")).unwrap();
    let mut command = options.clone().wanted().command();
    command.arg("--config").arg(file);
    Node::from_command(command).unwrap_or_else(|(status, stderr)| panic!("no node: {status}\n{stderr}"))
}

fn paused(client: &mut Client, run_id: &str) -> Value {
    loop {
        let run = client.get(&format!("/v1/runs/{run_id}")).expect(200).json();
        assert!(run["status"] == "running" || run["status"] == "paused", "{run}");
        if run["status"] == "paused" {
            return run["pauses"][0].clone();
        }
    }
}

fn begin(client: &mut Client, workflow: &str) -> String {
    let run = client.post("/v1/runs", &json!({"workflow": workflow})).expect(202).json();
    run["run_id"].as_str().unwrap().to_owned()
}

fn ended(client: &mut Client, run_id: &str) -> Value {
    let path = format!("/v1/runs/{run_id}");
    client.request("GET", &path, &[("prefer", "wait=60")], b"").unwrap().expect(200).json()
}

fn of_type<'e>(events: &'e [Value], kind: &str) -> Vec<&'e Value> {
    events.iter().filter(|event| event["type"] == kind).collect()
}

// F403, F404, F407, N7: the second run would go over its workspace's hour; it waits until the operator gives more, also across a restart.
#[test]
fn a_workspaces_budget_pauses_a_run_until_the_configuration_gives_more() {
    let (directory, stub) = (tempfile::tempdir().unwrap(), stub());
    let file = directory.path().join("aob.toml");
    let options = options(&directory.path().join("data"), &stub);
    // An answer may cost $0.002, and what is read $0.001; this one costs $0.00181.
    let with = |usd: &str| {
        format!(
            r#"[{{scope = "workspace:default", per = "hour", usd = "{usd}", warn_at = 0.5, on_breach = "pause"}}]"#
        )
    };
    let budgets = with("0.0040");
    let node = start_with(&options, &file, &budgets);
    let mut client = node.client();
    let agent = json!({"type": "agent", "with": {"task": "[[say: hello]] [[usage: 10, 900]]"}});
    client.post("/v1/workflows", &json!({"name": "ask", "nodes": {"ask": agent}})).expect(201);
    let first = begin(&mut client, "ask");
    assert_eq!(ended(&mut client, &first)["status"], "completed");
    let warned = whole_timeline(&mut client, &first);
    let [warned] = of_type(&warned, "budget.warned")[..] else { panic!("{warned:?}") };
    assert_eq!((&warned["scope"], &warned["usd"]), (&json!("workspace:default"), &json!("0.004")));
    node.says("the budget of workspace:default per hour is nearly used up");
    assert_eq!(settled(&mut client)["spent_usd"], "0.00181");
    let second = begin(&mut client, "ask");
    let pause = paused(&mut client, &second);
    assert_eq!(pause["reason"], "budget", "{pause}");
    let why = pause["why"].as_str().unwrap();
    assert!(why.contains("$0.00219 of $0.004 are left to workspace:default"), "{why}");
    assert!(pause["needed"].as_str().unwrap().contains("[[budgets]]"), "{pause}");
    let cost = client.get(&format!("/v1/runs/{second}/cost")).expect(200).json();
    assert_eq!((&cost["refused_by"]["scope"], &cost["usd"]), (&json!("workspace:default"), &json!("0.00")));
    let metrics = String::from_utf8(client.get("/metrics").expect(200).body).unwrap();
    for line in [
        r#"aob_budget_remaining_usd{scope="workspace:default",per="hour"} 0.00219"#,
        r#"aob_budget_refusals_total{scope="workspace:default",per="hour"} 1"#,
        r#"aob_budget_warnings_total{scope="workspace:default",per="hour"} 1"#,
    ] {
        assert!(metrics.contains(line), "{line} is not in the metrics");
    }
    node.kill();
    let node = start_with(&options, &file, &budgets);
    let mut client = node.client();
    assert_eq!(settled(&mut client)["spent_usd"], "0.00181");
    let resume = format!("/v1/runs/{second}/resume");
    client.post(&resume, &json!({})).expect(202);
    // It asks again, and is paused again.
    loop {
        paused(&mut client, &second);
        if of_type(&whole_timeline(&mut client, &second), "budget.exceeded").len() == 2 {
            break;
        }
    }
    std::fs::write(&file, format!("budgets = {}\n", with("1.00"))).unwrap();
    node.hang_up();
    node.says("SIGHUP, reloaded");
    client.post(&resume, &json!({})).expect(202);
    assert_eq!(ended(&mut client, &second)["status"], "completed");
    assert_eq!(settled(&mut client)["spent_usd"], "0.00362");
    assert_eq!(stub.stats()["calls"], 2, "nobody was asked for what was refused");
}

// F404, F407
#[test]
fn a_roles_budget_sends_its_agents_down_their_ladder_and_stops_those_who_have_none() {
    let (directory, stub) = (tempfile::tempdir().unwrap(), stub());
    let small = r#"{provider = "anthropic", model = "small-1", context_tokens = 100000, max_output_tokens = 1000, price = {input_per_million = "0.1", output_per_million = "0.2"}}"#;
    let options = options(directory.path(), &stub)
        .set("models.names.small", small)
        .set("budgets", &budget("agent:writer", "0.0015", "degrade"));
    let node = Node::start(&options);
    let mut client = node.client();
    for (name, role) in
        [("ladder", json!({"model": "big", "fallback": ["small"]})), ("none", json!({"model": "big"}))]
    {
        let agent = json!({"type": "agent", "with": {"role": "writer", "task": "[[say: cheap]]"}});
        let workflow = json!({"name": name, "agents": {"writer": role}, "nodes": {"ask": agent}});
        client.post("/v1/workflows", &workflow).expect(201);
    }
    let run_id = begin(&mut client, "ladder");
    assert_eq!(ended(&mut client, &run_id)["outputs"], json!({"ask": "cheap"}));
    let events = whole_timeline(&mut client, &run_id);
    let [degraded] = of_type(&events, "model.degraded")[..] else { panic!("{events:?}") };
    let message = degraded["error"]["message"].as_str().unwrap();
    assert!(message.contains("$0.0015 of $0.0015 are left to agent:writer"), "{message}");
    assert_eq!(of_type(&events, "model.answered")[0]["model"], "small");
    let run_id = begin(&mut client, "none");
    let run = ended(&mut client, &run_id);
    assert_eq!(
        (&run["status"], &run["error"]["code"]),
        (&json!("failed"), &json!("budget_exceeded")),
        "{run}"
    );
    let message = run["error"]["message"].as_str().unwrap();
    assert!(message.contains(r#"usd in [[budgets]] with scope = "agent:writer", per = "hour""#), "{message}");
    assert_eq!(stub.stats()["calls"], 1);
    // Others are not concerned.
    let agent = json!({"type": "agent", "with": {"task": "[[say: free]]"}});
    client.post("/v1/workflows", &json!({"name": "other", "nodes": {"ask": agent}})).expect(201);
    let run_id = begin(&mut client, "other");
    assert_eq!(ended(&mut client, &run_id)["status"], "completed");
}

// N6: what is reserved for a call that is given up is not held for ever.
#[test]
fn a_call_that_is_given_up_or_cancelled_leaves_nothing_reserved() {
    let (directory, stub) = (tempfile::tempdir().unwrap(), stub());
    stub.script(&json!({"rules": [{"do": {"delay_ms": 30_000}}]})).unwrap();
    let options =
        options(directory.path(), &stub).set("budgets", &budget("workspace:default", "1.00", "stop"));
    let node = Node::start(&options);
    let mut client = node.client();
    let agent = |timeout: &str| json!({"type": "agent", "timeout": timeout, "retry": {"max_attempts": 1}, "with": {"task": "wait"}});
    client.post("/v1/workflows", &json!({"name": "late", "nodes": {"ask": agent("200ms")}})).expect(201);
    client.post("/v1/workflows", &json!({"name": "ever", "nodes": {"ask": agent("1h")}})).expect(201);
    let late = begin(&mut client, "late");
    assert_eq!(ended(&mut client, &late)["error"]["code"], "timeout");
    let held = nanos(&client.get(&format!("/v1/runs/{late}/cost")).expect(200).json()["unknown_usd"]);
    assert!(held > 0);
    assert_eq!(nanos(&settled(&mut client)["spent_usd"]), held, "nobody knows what it took");
    let ever = begin(&mut client, "ever");
    while stub.stats()["calls"] != 2 {}
    client.post(&format!("/v1/runs/{ever}/terminate"), &json!({})).expect(200);
    let unknown = nanos(&client.get(&format!("/v1/runs/{ever}/cost")).expect(200).json()["unknown_usd"]);
    assert_eq!(nanos(&settled(&mut client)["spent_usd"]), held + unknown);
}
