//! What it says it has served, and what was sent to it.

use aob_stub_model::Options;
use serde_json::json;

use super::{CHAT, MESSAGES, Stub, ask, get, post_with, scripted, started};

#[tokio::test]
async fn the_ledger_is_what_answers_said_they_cost() {
    let stub = started().await;
    let mut sums = [0_u64; 2];
    for n in 0..5 {
        let text = format!("question {}", "x".repeat(n));
        let usage = super::post(&stub, MESSAGES, &ask(MESSAGES, &text)).await.json()["usage"].clone();
        sums[0] += usage["input_tokens"].as_u64().unwrap();
        sums[1] += usage["output_tokens"].as_u64().unwrap();
    }
    super::post(&stub, MESSAGES, &ask(MESSAGES, r#"[[do: {"status": 500}]]"#)).await;
    let line = get(&stub, "/stats").await["by_model"]["m"].clone();
    assert_eq!((&line["calls"], &line["paid"]), (&json!(6), &json!(5)));
    assert_eq!((&line["tokens"]["in"], &line["tokens"]["out"]), (&json!(sums[0]), &json!(sums[1])));
}

#[tokio::test]
async fn an_answer_that_was_paid_twice_is_seen() {
    let stub = scripted(json!([{"when": {"nth": 1}, "do": {"fault": "closed"}}])).await;
    let call = |key: &'static str| {
        let stub = &stub;
        async move {
            post_with(stub, CHAT, &[("idempotency-key", key), ("aob-node", "plan")], &ask(CHAT, "x")).await
        }
    };
    assert!(call("a").await.broken);
    call("a").await;
    call("b").await;
    let keys = stub.stats()["keys"].clone();
    let key = &keys["idempotency-key"];
    assert_eq!((&key["distinct"], &key["repeated"], &key["paid_twice"]), (&json!(2), &json!(1), &json!(0)));
    assert_eq!(
        key["list"],
        json!([{"value": "a", "calls": 2, "paid": 1}, {"value": "b", "calls": 1, "paid": 1}])
    );
    assert_eq!(keys["aob-node"]["list"][0], json!({"value": "plan", "calls": 3, "paid": 2}));
    call("b").await;
    let stats = get(&stub, "/stats?keys=1").await;
    assert_eq!(stats["keys"]["idempotency-key"]["paid_twice"], 1);
    assert_eq!(stats["keys"]["idempotency-key"]["list"], json!([{"value": "b", "calls": 2, "paid": 2}]));
    assert_eq!(stats["by_model"]["m"]["unfinished"]["calls"], 1);
}

#[tokio::test]
async fn calls_in_flight_are_counted() {
    let stub = Stub::start(Options { latency_ms: 50, ..Options::default() }).await.unwrap();
    let asked = ask(CHAT, "x");
    let call = || super::post(&stub, CHAT, &asked);
    tokio::join!(call(), call(), call());
    call().await;
    let stats = stub.stats();
    assert_eq!(
        (&stats["in_flight"], &stats["in_flight_max"], &stats["finished"]),
        (&json!(0), &json!(3), &json!(4))
    );
}

#[tokio::test]
async fn requests_are_kept_without_credentials() {
    let stub = started().await;
    for text in ["one", "two", "three"] {
        post_with(
            &stub,
            CHAT,
            &[("authorization", "Bearer sk-abcdefghijk"), ("x-request-id", text)],
            &ask(CHAT, text),
        )
        .await;
    }
    let shown = get(&stub, "/requests?limit=2").await;
    let requests = shown["requests"].as_array().unwrap();
    assert_eq!((requests.len(), &requests[0]["number"]), (2, &json!(2)));
    let last = &requests[1];
    assert_eq!((&last["path"], &last["body"]), (&json!(CHAT), &ask(CHAT, "three")));
    assert_eq!(
        (&last["headers"]["authorization"], &last["headers"]["x-request-id"]),
        (&json!("Bearer ***hijk"), &json!("three"))
    );
    assert!(last["at_us"].as_u64() > requests[0]["at_us"].as_u64());
    assert_eq!(stub.requests(1)["requests"][0], *last);
}
