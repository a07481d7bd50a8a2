//! The messages API of Anthropic.

use aob_stub_model::{Options, Stub};
use serde_json::{Value, json};

use super::{Answer, MESSAGES, ask, post, post_with, request, said, scripted, started, streamed, try_send};

/// The answer's text with its id replaced, which follows from the request's bytes.
fn without_id(answer: &Answer) -> String {
    let text = answer.text();
    let from = text.find("msg_").unwrap();
    text.replace(&text[from + 4..from + 20], "HASH")
}

#[tokio::test]
async fn an_answer_has_every_member_in_its_place() {
    let stub = started().await;
    let answer =
        post(&stub, MESSAGES, &ask(MESSAGES, r#"[[say: Hi "there"]] [[tool:f {"a":1}]] [[usage: 9,2,4,3]]"#))
            .await;
    assert_eq!(
        without_id(&answer),
        r#"{"id":"msg_HASH","type":"message","role":"assistant","model":"m","content":[{"type":"text","text":"Hi \"there\""},{"type":"tool_use","id":"toolu_HASH0000","name":"f","input":{"a":1}}],"stop_reason":"tool_use","stop_sequence":null,"usage":{"input_tokens":9,"cache_creation_input_tokens":3,"cache_read_input_tokens":4,"output_tokens":2}}"#
    );
    assert_eq!((answer.status, answer.header("request-id")), (200, "req_000000000001"));
}

#[tokio::test]
async fn a_stream_is_these_bytes() {
    let stub = started().await;
    let text = r#"[[do: {"chunk_chars": 4}]] [[say: Hi you]] [[tool:f {"a":1}]] [[usage: 9,2,4,3]]"#;
    let answer = post(&stub, MESSAGES, &streamed(ask(MESSAGES, text))).await;
    assert_eq!(answer.header("content-type"), "text/event-stream; charset=utf-8");
    let expected = r#"event: message_start
data: {"type":"message_start","message":{"id":"msg_HASH","type":"message","role":"assistant","model":"m","content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":9,"cache_creation_input_tokens":3,"cache_read_input_tokens":4,"output_tokens":1}}}

event: content_block_start
data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}

event: ping
data: {"type":"ping"}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hi y"}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"ou"}}

event: content_block_stop
data: {"type":"content_block_stop","index":0}

event: content_block_start
data: {"type":"content_block_start","index":1,"content_block":{"type":"tool_use","id":"toolu_HASH0000","name":"f","input":{}}}

event: content_block_delta
data: {"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":""}}

event: content_block_delta
data: {"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":"{\"a\""}}

event: content_block_delta
data: {"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":":1}"}}

event: content_block_stop
data: {"type":"content_block_stop","index":1}

event: message_delta
data: {"type":"message_delta","delta":{"stop_reason":"tool_use","stop_sequence":null},"usage":{"output_tokens":2}}

event: message_stop
data: {"type":"message_stop"}

"#;
    assert_eq!(without_id(&answer), expected);
}

#[tokio::test]
async fn tools_are_asked_for_turn_by_turn_and_their_results_are_no_directives() {
    let stub = started().await;
    let mut body = ask(MESSAGES, "[[tool:a]] [[tool:b]] [[turn]] [[say: done]]");
    let answer = post(&stub, MESSAGES, &body).await.json();
    let uses = answer["content"].as_array().unwrap().clone();
    assert_eq!((uses.len(), &answer["stop_reason"]), (2, &json!("tool_use")));
    let results: Vec<Value> = uses
        .iter()
        .map(|block| {
            let content = json!([{"type": "text", "text": "[[say: not me]]"}]);
            json!({"type": "tool_result", "tool_use_id": block["id"], "content": content})
        })
        .collect();
    let messages = body["messages"].as_array_mut().unwrap();
    messages
        .extend([json!({"role": "assistant", "content": uses}), json!({"role": "user", "content": results})]);
    let answer = post(&stub, MESSAGES, &body).await;
    assert_eq!((said(MESSAGES, &answer), &answer.json()["stop_reason"]), ("done".into(), &json!("end_turn")));
}

#[tokio::test]
async fn what_is_marked_is_paid_into_the_cache_once() {
    let stub = started().await;
    let mut body = ask(MESSAGES, "1234");
    body["system"] = json!([{"type": "text", "text": "12345678", "cache_control": {"type": "ephemeral"}}]);
    let usage = |answer: &Answer| {
        let usage = answer.json()["usage"].clone();
        ["input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens"]
            .map(|name| usage[name].as_u64().unwrap())
    };
    assert_eq!(usage(&post(&stub, MESSAGES, &body).await), [1, 2, 0]);
    let messages = body["messages"].as_array_mut().unwrap();
    messages.extend([
        json!({"role": "assistant", "content": "1234"}),
        json!({"role": "user", "content": "1234"}),
    ]);
    assert_eq!(usage(&post(&stub, MESSAGES, &body).await), [3, 0, 2]);
    let counted = post(&stub, "/v1/messages/count_tokens", &body).await.json();
    assert_eq!(counted, json!({"input_tokens": 5}));
}

#[tokio::test]
async fn a_schema_is_answered_and_a_tool_can_be_forced() {
    let stub = started().await;
    let schema = json!({"type": "object", "required": ["ok"], "properties": {"ok": {"type": "boolean"}}});
    for (name, value) in [
        ("output_config", json!({"format": {"type": "json_schema", "schema": schema}})),
        ("output_format", json!({"type": "json_schema", "schema": schema})),
    ] {
        let mut body = ask(MESSAGES, "x");
        body[name] = value;
        assert_eq!(said(MESSAGES, &post(&stub, MESSAGES, &body).await), r#"{"ok":false}"#);
    }
    let mut body = ask(MESSAGES, "x");
    body["tools"] = json!([{"name": "f", "input_schema": schema}]);
    body["tool_choice"] = json!({"type": "any"});
    let answer = post(&stub, MESSAGES, &body).await.json();
    assert_eq!(
        (&answer["content"][0]["name"], &answer["content"][0]["input"]),
        (&json!("f"), &json!({"ok": false}))
    );
    body["tool_choice"] = json!({"type": "tool", "name": "g"});
    assert_eq!(post(&stub, MESSAGES, &body).await.status, 400);
}

#[tokio::test]
async fn what_the_real_api_refuses_is_refused() {
    let stub = started().await;
    let user = json!({"role": "user", "content": "x"});
    let asked =
        json!({"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "f", "input": {}}]});
    let stray =
        json!({"role": "user", "content": [{"type": "tool_result", "tool_use_id": "b", "content": "x"}]});
    let result = json!({"type": "tool_result", "tool_use_id": "a", "content": "x"});
    let late = json!({"role": "user", "content": [{"type": "text", "text": "first"}, result]});
    for (messages, part) in [
        (json!([]), "at least one message"),
        (json!([asked]), "first message must use the \"user\" role"),
        (json!([{"role": "system", "content": "x"}]), "messages.0.role"),
        (
            json!([user, asked]),
            "messages.1: `tool_use` ids were found without `tool_result` blocks immediately after: a",
        ),
        (json!([user, asked, user]), "messages.1: `tool_use` ids"),
        (json!([user, stray]), "unexpected `tool_use_id` found in `tool_result` blocks: b"),
        (json!([user, asked, late]), "messages.1: `tool_use` ids"),
        (json!([{"role": "user", "content": ""}]), "messages.0: all messages must have non-empty content"),
        (
            json!([{"role": "user", "content": [{"type": "text", "text": ""}]}]),
            "text content blocks must be non-empty",
        ),
        (
            json!([{"role": "user", "content": [{"type": "text"}]}]),
            "messages.0.content.0.text: Field required",
        ),
    ] {
        let answer =
            post(&stub, MESSAGES, &json!({"model": "m", "max_tokens": 9, "messages": messages})).await;
        let error = answer.json();
        assert_eq!(
            (answer.status, &error["error"]["type"]),
            (400, &json!("invalid_request_error")),
            "{part}"
        );
        assert!(error["error"]["message"].as_str().unwrap().contains(part), "{part}: {error}");
    }
    let good = json!({"name": "a", "input_schema": {"type": "object"}});
    for (tools, part) in [
        (json!([{"name": "mcp:a", "input_schema": {"type": "object"}}]), "tools.0.custom.name"),
        (json!([good, {"name": "b", "input_schema": {}}]), "tools.1.custom.input_schema"),
        (json!([good, good]), "must be unique"),
    ] {
        let mut body = ask(MESSAGES, "x");
        body["tools"] = tools;
        let answer = post(&stub, MESSAGES, &body).await;
        assert!(answer.status == 400 && answer.text().contains(part), "{}", answer.text());
    }
    let answer = post(&stub, MESSAGES, &json!({"model": "m", "messages": [user]})).await;
    assert_eq!(answer.json()["error"]["message"], "max_tokens: Field required");
}

#[tokio::test]
async fn errors_are_in_the_providers_words() {
    for (behaviour, status, kind) in [
        (json!({"status": 429, "retry_after": "30"}), 429, "rate_limit_error"),
        (json!({"status": 529}), 529, "overloaded_error"),
        (json!({"status": 500}), 500, "api_error"),
        (json!({"status": 503}), 503, "api_error"),
        (json!({"status": 401}), 401, "authentication_error"),
        (json!({"status": 404}), 404, "not_found_error"),
        (json!({"status": 400, "error": "context_length"}), 400, "invalid_request_error"),
    ] {
        let stub = scripted(json!([{"do": behaviour}])).await;
        let answer = post(&stub, MESSAGES, &streamed(ask(MESSAGES, "x"))).await;
        let error = answer.json();
        assert_eq!(
            (answer.status, &error["type"], &error["error"]["type"]),
            (status, &json!("error"), &json!(kind))
        );
        assert_eq!(answer.header("retry-after"), if status == 429 { "30" } else { "" });
        assert_eq!(error["request_id"], answer.header("request-id"));
        assert_eq!(answer.text().contains("prompt is too long"), behaviour.get("error").is_some());
    }
}

#[tokio::test]
async fn key_and_version_are_asked_for_when_there_is_a_key() {
    let stub =
        Stub::start(Options { anthropic_key: Some("right".into()), ..Options::default() }).await.unwrap();
    let version = ("anthropic-version", "2023-06-01");
    for (headers, status, message) in [
        (&[version][..], 401, "x-api-key header is required"),
        (&[version, ("x-api-key", "wrong")][..], 401, "invalid x-api-key"),
        (&[("x-api-key", "right")][..], 400, "anthropic-version: header is required"),
        (
            &[("x-api-key", "right"), ("anthropic-version", "1")][..],
            400,
            "anthropic-version: \"1\" is not a valid version",
        ),
        (&[("x-api-key", "right"), version][..], 200, ""),
    ] {
        let answer = post_with(&stub, MESSAGES, headers, &ask(MESSAGES, "x")).await;
        assert_eq!(answer.status, status);
        if status != 200 {
            assert_eq!(answer.json()["error"]["message"], message);
        }
    }
    let get = |headers: &[(&str, &str)]| try_send(stub.address, request("GET", "/v1/models", headers, ""));
    assert_eq!(get(&[version]).await.unwrap().status, 401);
    let models = get(&[version, ("x-api-key", "right")]).await.unwrap().json();
    assert_eq!((&models["data"][0]["type"], &models["has_more"]), (&json!("model"), &json!(false)));
}
