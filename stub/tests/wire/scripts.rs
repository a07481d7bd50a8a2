//! Scripts over the wire.

use serde_json::json;

use super::{CHAT, MESSAGES, ask, get, post, post_with, said, scripted, started};

#[tokio::test]
async fn fail_twice_then_answer() {
    let stub = started().await;
    let rule = json!({"name": "busy", "when": {"text": "flaky", "nth": {"to": 2}}, "do": {"status": 529}});
    assert_eq!(post(&stub, "/script", &json!({"rules": [rule]})).await.status, 200);
    let mut statuses = Vec::new();
    for text in ["flaky", "steady", "flaky", "flaky"] {
        statuses.push(post(&stub, MESSAGES, &ask(MESSAGES, text)).await.status);
    }
    assert_eq!(statuses, [529, 200, 529, 200]);
    let stats = get(&stub, "/stats").await;
    assert_eq!(stats["rules"], json!([{"name": "busy", "matched": 3, "taken": 2}]));
    assert_eq!(stats["by_status"], json!({"200": 2, "529": 2}));
}

#[tokio::test]
async fn each_run_can_fail_once() {
    let stub = scripted(json!([{"when": {"nth": 1, "per": "aob-run-id"}, "do": {"status": 503}}])).await;
    for (run, status) in [("a", 503), ("b", 503), ("a", 200), ("b", 200), ("a", 200)] {
        assert_eq!(post_with(&stub, CHAT, &[("aob-run-id", run)], &ask(CHAT, "x")).await.status, status);
    }
}

#[tokio::test]
async fn turns_and_what_was_said_last_choose_the_answer() {
    let stub = scripted(json!([
        {"when": {"turn": 1, "system": "reviewer"}, "do": {"json": {"verdict": "fix"}}},
        {"when": {"last": "passed", "model": "m"}, "do": {"text": "ship it"}},
        {"when": {"api": "messages"}, "do": {"text": "other api"}},
    ]))
    .await;
    let mut body = ask(CHAT, "look at this");
    body["messages"]
        .as_array_mut()
        .unwrap()
        .insert(0, json!({"role": "system", "content": "You are a reviewer."}));
    assert_eq!(said(CHAT, &post(&stub, CHAT, &body).await), r#"{"verdict":"fix"}"#);
    let messages = body["messages"].as_array_mut().unwrap();
    messages.extend([
        json!({"role": "assistant", "content": "fix"}),
        json!({"role": "user", "content": "tests passed"}),
    ]);
    assert_eq!(said(CHAT, &post(&stub, CHAT, &body).await), "ship it");
    assert_eq!(said(MESSAGES, &post(&stub, MESSAGES, &ask(MESSAGES, "x")).await), "other api");
    assert!(said(CHAT, &post(&stub, CHAT, &ask(CHAT, "x")).await).starts_with("Answer "), "no rule fits");
    let mut body = ask(MESSAGES, "x");
    let used = json!([{"type": "tool_use", "id": "a", "name": "f", "input": {}}]);
    let result = json!([{"type": "tool_result", "tool_use_id": "a", "content": "tests passed"}]);
    let messages = body["messages"].as_array_mut().unwrap();
    messages
        .extend([json!({"role": "assistant", "content": used}), json!({"role": "user", "content": result})]);
    assert_eq!(
        said(MESSAGES, &post(&stub, MESSAGES, &body).await),
        "ship it",
        "what a tool says counts as last"
    );
}

#[tokio::test]
async fn the_script_beside_the_examples_makes_each_run_go_round_once() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/agents/stub.json");
    let script: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let stub = scripted(script["rules"].clone()).await;
    let verdict = json!({"enum": ["approved", "changes"]});
    let schema = json!({"type": "object", "required": ["verdict"], "properties": {"verdict": verdict}});
    let mut body = ask(CHAT, "Review this: a clock");
    body["response_format"] =
        json!({"type": "json_schema", "json_schema": {"name": "review", "schema": schema}});
    let system = json!({"role": "system", "content": "You are the reviewer. You look for what is wrong."});
    body["messages"].as_array_mut().unwrap().insert(0, system);
    for (run, verdict) in [("a", "changes"), ("b", "changes"), ("a", "approved"), ("b", "approved")] {
        let answer = post_with(&stub, CHAT, &[("aob-run-id", run)], &body).await;
        let said: serde_json::Value = serde_json::from_str(&said(CHAT, &answer)).unwrap();
        assert_eq!(said["verdict"], verdict, "{run}");
    }
}

#[tokio::test]
async fn a_broken_script_is_refused_and_the_old_one_stays() {
    let stub = scripted(json!([{"do": {"text": "old"}}])).await;
    let answer = post(&stub, "/script", &json!({"rules": [{"do": {"status": 1}}]})).await;
    assert_eq!(
        (answer.status, &answer.json()["error"]["message"]),
        (400, &json!("rules[0]: `status`: a number from 400 to 599"))
    );
    assert_eq!(said(CHAT, &post(&stub, CHAT, &ask(CHAT, "x")).await), "old");
    let wrong = aob_stub_model::Options { script: Some(json!({"rules": 1})), ..Default::default() };
    let error = aob_stub_model::Stub::start(wrong).await.unwrap_err();
    assert_eq!(error.to_string(), "the script: `rules` is a list");
    assert!(stub.script(&json!([])).is_err() && stub.script(&json!({"rules": []})).is_ok());
    assert!(said(CHAT, &post(&stub, CHAT, &ask(CHAT, "x")).await).starts_with("Answer "));
}

#[tokio::test]
async fn a_reset_makes_it_as_it_was_or_keeps_the_rules() {
    let stub = scripted(json!([{"when": {"nth": 1}, "do": {"text": "first"}}])).await;
    let asked = ask(CHAT, "x");
    assert_eq!(said(CHAT, &post(&stub, CHAT, &asked).await), "first");
    stub.script(&json!({"rules": [{"name": "new", "do": {"text": "new"}}]})).unwrap();
    assert_eq!(said(CHAT, &post(&stub, CHAT, &asked).await), "new");
    assert_eq!(post(&stub, "/reset?keep=script", &json!({})).await.status, 200);
    let stats = stub.stats();
    assert_eq!(
        (&stats["calls"], &stats["rules"][0]),
        (&json!(0), &json!({"name": "new", "matched": 0, "taken": 0}))
    );
    assert_eq!(get(&stub, "/requests").await, json!({"requests": []}));
    post(&stub, "/reset", &json!({})).await;
    assert_eq!(said(CHAT, &post(&stub, CHAT, &asked).await), "first", "it counts from the beginning");
}
