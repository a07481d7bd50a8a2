//! Answers that are wrong on the wire, slow, or never end.

use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Answer, CHAT, MESSAGES, ask, post, request, said, scripted, started, streamed, try_send};

const BOTH: [&str; 2] = [CHAT, MESSAGES];

/// What is said with a fault, in both APIs, plain and as a stream; and without it.
async fn with(behaviour: Value) -> Vec<(Option<Answer>, Answer)> {
    let mut answers = Vec::new();
    let (stub, good) = (scripted(json!([{"do": behaviour}])).await, started().await);
    for path in BOTH {
        for body in [ask(path, "hello"), streamed(ask(path, "hello"))] {
            let broken = try_send(stub.address, request("POST", path, &[], &body.to_string())).await;
            answers.push((broken, post(&good, path, &body).await));
        }
    }
    let stats = stub.stats();
    assert_eq!(
        (&stats["in_flight"], &stats["tokens"]["out"]),
        (&json!(0), &json!(0)),
        "nothing of it is paid: {stats}"
    );
    answers
}

#[tokio::test]
async fn garbage_comes_with_status_200() {
    for (answer, _) in with(json!({"fault": "html"})).await {
        let answer = answer.unwrap();
        assert_eq!((answer.status, answer.header("content-type")), (200, "text/html; charset=utf-8"));
        assert!(answer.text().starts_with("<!DOCTYPE html>"));
    }
    for (answer, _) in with(json!({"fault": "empty"})).await {
        let answer = answer.unwrap();
        assert_eq!((answer.status, answer.body.len(), answer.broken), (200, 0, false));
    }
    for (answer, good) in with(json!({"fault": "truncated"})).await {
        let answer = answer.unwrap();
        assert!(!answer.broken && answer.body.len() == good.body.len() / 2, "it ends as if it were whole");
        assert!(good.body.starts_with(&answer.body));
    }
}

#[tokio::test]
async fn lengths_lie_and_connections_close() {
    for (answer, good) in with(json!({"fault": "longer_length"})).await {
        let answer = answer.unwrap();
        assert!(answer.broken && answer.body == good.body, "{}", answer.text());
        assert_eq!(answer.header("content-length"), (good.body.len() + 16).to_string());
    }
    for (answer, good) in with(json!({"fault": "shorter_length"})).await {
        let answer = answer.unwrap();
        assert!(!answer.broken && answer.body == good.body[..good.body.len() / 2]);
    }
    for (answer, good) in with(json!({"fault": "closed"})).await {
        let answer = answer.unwrap();
        assert!(answer.broken && answer.body == good.body[..good.body.len() / 2], "{}", answer.text());
    }
    for (answer, _) in with(json!({"fault": "no_answer"})).await {
        assert!(answer.is_none());
    }
}

#[tokio::test]
async fn an_endless_answer_goes_on_until_the_caller_leaves() {
    let stub = scripted(json!([{"do": {"fault": "endless"}}])).await;
    for path in BOTH {
        for body in [ask(path, "hello"), streamed(ask(path, "hello"))] {
            let stream = tokio::net::TcpStream::connect(stub.address).await.unwrap();
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
            let connection = tokio::spawn(connection);
            let answer = sender.send_request(request("POST", path, &[], &body.to_string())).await.unwrap();
            let (mut body, mut read) = (answer.into_body(), Vec::new());
            while read.len() < 1 << 20 {
                read.extend_from_slice(&body.frame().await.unwrap().unwrap().into_data().unwrap());
            }
            assert!(String::from_utf8_lossy(&read).matches("amber basin cedar delta ").count() > 3_000);
            connection.abort();
        }
    }
    // The stub learns of it when it writes.
    while stub.stats()["in_flight"] != 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!((&stub.stats()["unfinished"], &stub.stats()["finished"]), (&json!(4), &json!(0)));
}

#[tokio::test]
async fn a_stream_can_break_off_with_an_error() {
    for path in BOTH {
        let stub = scripted(json!([{"do": {"stream_error": 529}}])).await;
        let answer = post(&stub, path, &streamed(ask(path, "hello"))).await;
        let last = answer.events().pop().unwrap();
        assert!(answer.status == 200 && !answer.broken && !answer.text().contains("[DONE]"));
        let kind = if path == CHAT { "service_unavailable_error" } else { "overloaded_error" };
        assert_eq!(last["error"]["type"], kind);
        assert_eq!(answer.text().contains("event: error\n"), path == MESSAGES);
        assert_eq!(
            post(&stub, path, &ask(path, "hello")).await.status,
            529,
            "without a stream it is the answer"
        );
    }
}

#[tokio::test]
async fn slow_answers_take_their_time_and_are_the_same() {
    let stub = scripted(json!([
        {"when": {"text": "late"}, "do": {"delay_ms": 60}},
        {"when": {"text": "slow"}, "do": {"chunk_delay_ms": 10}},
    ]))
    .await;
    let good = started().await;
    for path in BOTH {
        for (body, least_ms) in [
            (ask(path, "late"), 60),
            (streamed(ask(path, "late")), 60),
            // 3 pieces and more, with a pause after each but the last.
            (ask(path, "slow"), 20),
            (streamed(ask(path, "slow")), 50),
        ] {
            let began = Instant::now();
            let answer = post(&stub, path, &body).await;
            let took = began.elapsed();
            assert!(took >= Duration::from_millis(least_ms), "{took:?} for {body}");
            assert_eq!(answer.body, post(&good, path, &body).await.body);
        }
    }
}

#[tokio::test]
async fn tools_can_be_asked_for_wrongly() {
    let calls = json!([{"name": "f", "raw": "{not json"}, {"name": "g"}, {"name": "h", "id": "mine"}]);
    let stub = scripted(json!([{"do": {"tools": calls, "same_tool_id": true}}])).await;
    let chat = post(&stub, CHAT, &ask(CHAT, "x")).await.json();
    let calls = &chat["choices"][0]["message"]["tool_calls"];
    assert_eq!((&calls[0]["id"], &calls[2]["id"]), (&calls[1]["id"], &json!("mine")));
    assert_eq!(calls[0]["function"]["arguments"], "{not json");
    let messages = post(&stub, MESSAGES, &ask(MESSAGES, "x")).await.json();
    assert_eq!(messages["content"][0]["id"], messages["content"][1]["id"]);
    assert_eq!(messages["content"][0]["input"], "{not json", "a text where an object should be");
    let events = post(&stub, MESSAGES, &streamed(ask(MESSAGES, "x"))).await.events();
    let fragments: String = events
        .iter()
        .filter(|event| event["index"] == 0)
        .filter_map(|event| event.pointer("/delta/partial_json")?.as_str())
        .collect();
    assert_eq!(fragments, "{not json");
}

#[tokio::test]
async fn usage_can_be_missing_or_huge() {
    for path in BOTH {
        let stub = scripted(json!([
            {"when": {"nth": {"to": 2}}, "do": {"usage": "missing"}},
            {"do": {"usage": "huge"}},
        ]))
        .await;
        let mut body = streamed(ask(path, "x"));
        body["stream_options"] = json!({"include_usage": true});
        assert!(post(&stub, path, &ask(path, "x")).await.json().get("usage").is_none());
        assert!(!post(&stub, path, &body).await.text().contains("output_tokens"));
        let counted = stub.stats()["tokens"].clone();
        assert_eq!(counted["in"], 2, "it has cost something all the same");
        let usage = post(&stub, path, &ask(path, "x")).await.json()["usage"].clone();
        let name = if path == CHAT { "completion_tokens" } else { "output_tokens" };
        assert_eq!(usage[name], i64::MAX);
    }
}

#[tokio::test]
async fn a_patch_is_a_call_of_its_tool() {
    let operations = json!([{"op": "add", "path": "/nodes/x", "value": {"type": "function"}}]);
    let stub = started().await;
    for path in BOTH {
        let answer = post(&stub, path, &ask(path, &format!("[[patch: {operations}]]"))).await.json();
        let (name, arguments) = if path == CHAT {
            let function = &answer["choices"][0]["message"]["tool_calls"][0]["function"];
            (&function["name"], serde_json::from_str(function["arguments"].as_str().unwrap()).unwrap())
        } else {
            (&answer["content"][0]["name"], answer["content"][0]["input"].clone())
        };
        assert_eq!((name, &arguments["operations"]), (&json!("propose_patch"), &operations));
    }
}

#[tokio::test]
async fn an_answer_says_why_it_ended_in_whatever_words_are_given() {
    let stub = scripted(json!([{"do": {"text": "no", "stop": "content_filter"}}])).await;
    let answer = post(&stub, CHAT, &ask(CHAT, "x")).await;
    assert_eq!(
        (said(CHAT, &answer), &answer.json()["choices"][0]["finish_reason"]),
        ("no".into(), &json!("content_filter"))
    );
}
