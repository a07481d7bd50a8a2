//! Explanations of the recorded timelines of the examples, and of events made for one case.

use serde_json::{Value, json};

use super::super::explain::told;
use super::*;

fn explained(run: &Value, graph: &Value, events: &Value) -> Explanation {
    let mut evidence = Evidence::default();
    events.as_array().unwrap().iter().for_each(|row| evidence.take(row));
    evidence.told(run, graph)
}

/// A timeline that the golden tests keep true.
fn golden(name: &str) -> Value {
    let path = format!("{}/tests/golden/timelines/{name}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn ended(status: &str, seq: u64) -> Value {
    json!({"run_id": "run_1", "workflow": "w", "version": "1", "status": status, "seq": seq})
}

fn plain(text: &str) -> String {
    anstream::adapter::strip_str(text).to_string()
}

// F341
#[test]
fn retries_are_told_with_their_code_and_delay() {
    let graph = json!({
        "document": {"edges": {"weather/warm": {"when": "output.status == 200"}}},
        "nodes": {"weather": {"state": "completed"}, "warm": {"state": "completed"}},
    });
    let explanation = explained(&ended("completed", 16), &graph, &golden("kinds-http"));
    assert_eq!(
        plain(&told(&explanation)),
        "w@1  completed, 21.5 s  run_1

What it did
  weather  completed  3 attempts  21.5 s
  warm     completed  0 ms

Why
  edge   weather -> warm  taken  when output.status == 200
  retry  weather  again after 610 ms: connection_reset: it failed
  retry  weather  again after 963 ms: timeout: attempt 2 was not done within 20 s (timeout)

What came from outside
  no signal, pause, cancel or patch is recorded

What it cost
  no cost recorded

Where it failed
  it did not fail
"
    );
}

#[test]
fn waits_are_measured_and_a_failure_points_to_its_page() {
    let run = json!({"run_id": "run_1", "workflow": "w", "version": "1", "status": "failed", "seq": 8,
        "failed_node": "answer", "error": {"code": "wait_timeout", "message": "no signal came in time"}});
    let explanation = explained(&run, &json!({}), &golden("kinds-wait"));
    let wait = &explanation.why.waits[0];
    assert_eq!((wait.waited_for.as_str(), wait.waited_ms), ("signal answer", Some(300_000)));
    let text = plain(&told(&explanation));
    assert!(text.contains("wait   answer  signal answer, 5 min 0 s\n"), "{text}");
    assert!(
        text.ends_with(
            "Where it failed\n  answer  wait_timeout: no signal came in time\n  what to do: aob explain wait_timeout\n"
        ),
        "{text}"
    );
}

#[test]
fn what_came_from_outside_is_told_in_order_with_its_words() {
    let at = "2027-01-15T08:00:00.000Z";
    let events = json!([
        {"seq": 1, "type": "run.started", "at": at},
        {"seq": 2, "type": "node.started", "node": "a", "at": at, "attempt": 1, "worker": "w-7"},
        {"seq": 3, "type": "run.paused", "at": at, "reason": "lunch"},
        {"seq": 4, "type": "run.resumed", "at": at},
        {"seq": 5, "type": "signal.received", "at": at, "signal": "go", "payload": 1},
        {"seq": 6, "type": "run.cancelled", "at": at, "reason": "enough", "cost": {"usd": "0.02"}},
    ]);
    let explanation = explained(&ended("cancelled", 6), &json!({}), &events);
    let outside: Vec<_> =
        explanation.outside.iter().map(|event| (event.what.as_str(), event.detail.as_deref())).collect();
    assert_eq!(
        outside,
        [
            ("run.paused", Some("lunch")),
            ("run.resumed", None),
            ("signal.received", Some("go")),
            ("run.cancelled", Some("enough"))
        ]
    );
    assert_eq!(explanation.did[0].worker.as_deref(), Some("w-7"));
    assert_eq!((explanation.cost.len(), &explanation.cost[0].recorded), (1, &json!({"usd": "0.02"})));
    assert!(!serde_json::to_string(&explanation).unwrap().contains("payload"));
}

#[test]
fn a_run_that_waited_to_be_admitted_says_for_what_and_how_long() {
    let events = json!([
        {"seq": 1, "type": "run.started", "at": "2027-01-15T08:00:00.000Z"},
        {"seq": 2, "type": "run.waiting", "at": "2027-01-15T08:00:00.000Z",
         "concurrency": {"key": "acme", "max": 3}, "rate": {"key": "all", "max": 2, "per_ms": 1000}},
        {"seq": 3, "type": "run.admitted", "at": "2027-01-15T08:00:01.500Z"},
    ]);
    let explanation = explained(&ended("completed", 3), &json!({}), &events);
    let waited = "wait   run  concurrency of key \"acme\", then rate of key \"all\", 1.5 s";
    assert!(plain(&told(&explanation)).contains(waited), "{}", plain(&told(&explanation)));
    for (waiting, said) in [
        (
            json!({"reason": "concurrency", "key": "acme", "max": 3, "held": 3, "ahead": 7, "holders": ["r1", "r2"]}),
            "it waits for a slot: key acme has 3, 3 taken (by r1, r2), 7 ahead of it",
        ),
        (
            json!({"reason": "rate", "key": "all", "max": 2, "per_ms": 1000, "ahead": 0}),
            "it waits for its turn: key all has 2 in 1.0 s, 0 ahead of it",
        ),
    ] {
        let run = json!({"run_id": "r", "status": "pending", "seq": 2, "waiting": waiting});
        let text = plain(&told(&explained(&run, &json!({}), &json!([events[0], events[1]]))));
        assert!(text.contains(said) && text.contains("still waits"), "{text}");
    }
}

// F341, F344: what the agents did, why, what it cost, what failed and where, and who made it so.
#[test]
fn agents_are_told_with_their_turns_and_a_failed_node_with_its_author() {
    let at = "2027-01-15T08:00:00.000Z";
    let events = json!([
        {"seq": 1, "type": "run.started", "at": at},
        {"seq": 2, "type": "node.started", "node": "ask", "at": at, "attempt": 1},
        {"seq": 3, "type": "model.called", "node": "ask", "at": at, "model": "big", "reserved_usd": "0.10"},
        {"seq": 4, "type": "model.answered", "node": "ask", "at": at, "model": "big", "cost_usd": "0.04"},
        {"seq": 5, "type": "tool.called", "node": "ask", "at": at, "calls": [{"tool": "find"}]},
        {"seq": 6, "type": "tool.returned", "node": "ask", "at": at, "results": [{"tool": "find", "ok": true},
            {"tool": "rm", "ok": false, "error": {"code": "tool_not_allowed", "message": "not its\u{1b} to use"}}]},
        {"seq": 7, "type": "model.degraded", "node": "ask", "at": at, "to": 1,
            "error": {"code": "overloaded", "message": "busy"}},
        {"seq": 8, "type": "model.answered", "node": "ask", "at": at, "model": "small", "cost_usd": "0.01"},
        {"seq": 9, "type": "agent.corrected", "node": "ask", "at": at, "message": "no JSON"},
        {"seq": 10, "type": "model.answered", "node": "ask", "at": at, "model": "small", "cost_usd": "0.01"},
        {"seq": 11, "type": "budget.exceeded", "node": "ask", "at": at, "model": "small", "reserved_usd": "0.10",
            "reserved_tokens": 9},
        {"seq": 13, "type": "budget.exceeded", "node": "ask", "at": at, "model": "big", "reserved_usd": "0.30", "reserved_tokens": 7,
            "scope": "workspace:acme", "per": "hour", "usd": "5.00", "left_usd": "0.20"},
        {"seq": 14, "type": "budget.warned", "node": "ask", "at": at, "used_usd": "4.00", "scope": "node", "per": "day"},
        {"seq": 12, "type": "budget.raised", "at": at, "usd": "1", "reason": "worth it", "by": "ada"},
    ]);
    let run = json!({"run_id": "run_1", "workflow": "w", "version": "1", "status": "failed", "seq": 12,
        "failed_node": "ask[2].x", "error": {"code": "output_schema", "message": "no"}});
    let mut explanation = explained(&run, &json!({}), &events);
    explanation.spent = Some(json!({"usd": "0.06", "answers": 3, "unpriced_answers": 1,
        "tokens": {"input": 5, "cache_read": 2, "output": 4}, "by_node": [{"name": "ask", "usd": "0.06", "answers": 3}]}));
    let blame = json!({"nodes": [{"id": "as", "author": "eve"},
        {"id": "ask", "layer": "patch_1", "author": "bob", "justification": "faster"}]});
    explanation.patched = agents::patched(&blame, "ask[2].x").cloned();
    let text = plain(&told(&explanation));
    for line in [
        "  agent  ask  asked big, small x2; used find, rm\n",
        "  agent  ask  tool failed rm: tool_not_allowed: not its",
        "  agent  ask  degraded: overloaded: busy\n",
        "  agent  ask  corrected: no JSON\n",
        "  agent  ask  budget exceeded small: its next call may take $0.10, 9 tokens\n",
        "  agent  ask  budget exceeded big: its next call may take $0.30, 7 tokens; workspace:acme per hour, $0.20 of $5.00 are left\n",
        "budget.warned  node\n",
        "budget.raised  worth it\n",
        "  run  $0.06  3 answers, 1 without a price, 7 tokens read, 4 written\n",
        "  ask  $0.06  3 answers, 0 tokens read, 0 written\n",
        "  as it is since patch_1 by bob: faster\n",
    ] {
        assert!(text.contains(line), "{line:?} in {text}");
    }
    assert!(!text.contains('\u{1b}'), "{text:?}");
    assert_eq!(agents::patched(&json!({"nodes": [{"id": "ask", "layer": "base"}]}), "ask"), None);
}

#[test]
fn what_was_not_read_is_said() {
    let explanation = explained(&ended("completed", 9), &json!({}), &json!([{"type": "run.started"}]));
    assert!(explanation.cut);
    assert!(plain(&told(&explanation)).contains("the first 1 of 9 events (limit explain_events_max)"));
}

#[test]
fn an_edge_is_called_taken_only_where_the_record_tells() {
    let edge = |on: &str, when: Option<&str>| Edge {
        from: "a".into(),
        to: "b".into(),
        on: on.into(),
        when: when.map(str::to_owned),
        taken: None,
    };
    for (on, when, source, target, alone, wanted) in [
        ("success", None, "completed", "running", false, Some(true)),
        ("success", None, "failed", "skipped", true, Some(false)),
        ("success", None, "running", "pending", true, None),
        ("success", Some("x"), "completed", "completed", true, Some(true)),
        ("success", Some("x"), "completed", "skipped", true, Some(false)),
        ("success", Some("x"), "completed", "completed", false, None),
        ("error", None, "failed", "running", false, Some(true)),
        ("error", None, "completed", "skipped", true, Some(false)),
        ("timeout", None, "failed", "completed", false, None),
        ("large", None, "completed", "skipped", true, Some(false)),
        ("large", None, "skipped", "skipped", false, Some(false)),
    ] {
        let edge = edge(on, when);
        assert_eq!(taken(&edge, source, target, alone), wanted, "{on} {when:?} {source} {target} {alone}");
    }
}

#[test]
fn every_recorded_timeline_is_explained_and_its_nodes_end() {
    let folder = format!("{}/tests/golden/timelines", env!("CARGO_MANIFEST_DIR"));
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let Some(name) = name.strip_suffix(".json").filter(|name| !name.ends_with(".script")) else {
            continue;
        };
        let events = golden(name);
        let count = events.as_array().unwrap().len() as u64;
        let explanation = explained(&ended("completed", count), &json!({}), &events);
        assert!(!explanation.cut && !explanation.did.is_empty(), "{name}");
        for step in &explanation.did {
            assert!(
                ["completed", "failed", "skipped", "stopped"].contains(&&*step.outcome),
                "{name}: {step:?}"
            );
        }
        seen += 1;
    }
    assert!(seen > 15, "{seen}");
}
