//! The chat API of OpenAI.

use serde_json::{Value, json};

use super::{Answer, CHAT, ask, get, post, post_with, said, scripted, started, streamed};

/// The answer's text with its id replaced, which follows from the request's bytes.
fn without_id(answer: &Answer) -> String {
    let text = answer.text();
    let from = text.find("chatcmpl-").unwrap();
    text.replace(&text[from..from + 25], "ID")
}

#[tokio::test]
async fn an_answer_has_every_member_in_its_place() {
    let stub = started().await;
    let answer = post(&stub, CHAT, &ask(CHAT, "[[say: Hi \"there\"]] [[usage: 9,2,4,0]]")).await;
    assert_eq!(
        without_id(&answer),
        r#"{"id":"ID","object":"chat.completion","created":1767225600,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"Hi \"there\"","refusal":null},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":13,"completion_tokens":2,"total_tokens":15,"prompt_tokens_details":{"cached_tokens":4},"completion_tokens_details":{"reasoning_tokens":0}},"system_fingerprint":"fp_stub"}"#
    );
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"));
    assert_eq!(
        (answer.header("x-request-id"), answer.header("content-length").is_empty()),
        ("req_000000000001", false)
    );
}

#[tokio::test]
async fn a_stream_is_these_bytes() {
    let stub = started().await;
    let text = r#"[[do: {"chunk_chars": 4}]] [[say: Hi you]] [[tool:f {"a":1}]] [[tool:g]] [[usage: 9,2]]"#;
    let mut body = streamed(ask(CHAT, text));
    body["stream_options"] = json!({"include_usage": true});
    let answer = post(&stub, CHAT, &body).await;
    assert_eq!(answer.header("content-type"), "text/event-stream; charset=utf-8");
    assert_eq!((answer.header("transfer-encoding"), answer.header("content-length")), ("chunked", ""));
    let hash = answer.text()[answer.text().find("chatcmpl-").unwrap() + 9..][..16].to_owned();
    let chunk = |delta: &str, finish: &str| {
        format!(
            "data: {{\"id\":\"ID\",\"object\":\"chat.completion.chunk\",\"created\":1767225600,\"model\":\"m\",\"system_fingerprint\":\"fp_stub\",\
             \"choices\":[{{\"index\":0,\"delta\":{{{delta}}},\"logprobs\":null,\"finish_reason\":{finish}}}],\"usage\":null}}\n\n"
        )
    };
    let tool = |index, id, name| {
        format!(
            r#""tool_calls":[{{"index":{index},"id":"call_{hash}{id}","type":"function","function":{{"name":"{name}","arguments":""}}}}]"#
        )
    };
    let more =
        |index, text| format!(r#""tool_calls":[{{"index":{index},"function":{{"arguments":{text}}}}}]"#);
    let expected = [
        chunk(r#""role":"assistant","content":"","refusal":null"#, "null"),
        chunk(r#""content":"Hi y""#, "null"),
        chunk(r#""content":"ou""#, "null"),
        chunk(&tool(0, "0000", "f"), "null"),
        chunk(&more(0, r#""{\"a\"""#), "null"),
        chunk(&more(0, r#"":1}""#), "null"),
        chunk(&tool(1, "0001", "g"), "null"),
        chunk(&more(1, r#""{}""#), "null"),
        chunk("", r#""tool_calls""#),
        "data: {\"id\":\"ID\",\"object\":\"chat.completion.chunk\",\"created\":1767225600,\"model\":\"m\",\"system_fingerprint\":\"fp_stub\",\
         \"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":2,\"total_tokens\":11,\"prompt_tokens_details\":{\"cached_tokens\":0},\
         \"completion_tokens_details\":{\"reasoning_tokens\":0}}}\n\n"
            .into(),
        "data: [DONE]\n\n".into(),
    ];
    assert_eq!(without_id(&answer), expected.concat());
}

#[tokio::test]
async fn a_stream_without_usage_does_not_name_it() {
    let stub = started().await;
    let answer = post(&stub, CHAT, &streamed(ask(CHAT, "hello"))).await;
    assert!(!answer.text().contains("usage") && answer.text().ends_with("data: [DONE]\n\n"));
    let text: String = answer
        .events()
        .iter()
        .filter_map(|event| event.pointer("/choices/0/delta/content")?.as_str())
        .collect();
    let plain = post(&stub, CHAT, &ask(CHAT, "hello")).await;
    assert_eq!(text, said(CHAT, &plain), "streamed or not, the same is said");
}

#[tokio::test]
async fn the_same_request_has_the_same_answer_and_tokens_follow_from_bytes() {
    let (one, other) = (started().await, started().await);
    let body = ask(CHAT, "twelve bytes");
    let answer = post(&one, CHAT, &body).await;
    assert_eq!(answer.body, post(&other, CHAT, &body).await.body);
    assert_ne!(said(CHAT, &answer), said(CHAT, &post(&one, CHAT, &ask(CHAT, "others")).await));
    let usage = &answer.json()["usage"];
    assert_eq!(usage["prompt_tokens"], 3);
    assert_eq!(usage["completion_tokens"], said(CHAT, &answer).len().div_ceil(4));
    let mut short = body;
    short["max_completion_tokens"] = json!(2);
    let answer = post(&one, CHAT, &short).await;
    assert_eq!(answer.json()["choices"][0]["finish_reason"], "length");
    assert_eq!((said(CHAT, &answer).len(), &answer.json()["usage"]["completion_tokens"]), (8, &json!(2)));
}

#[tokio::test]
async fn tools_are_asked_for_turn_by_turn() {
    let stub = started().await;
    let text = r#"[[tool:a {"x":1}]] [[tool:b]] [[turn]] [[say: done]]"#;
    let mut body = ask(CHAT, text);
    let answer = post(&stub, CHAT, &body).await.json();
    let message = &answer["choices"][0]["message"];
    assert_eq!(
        (&message["content"], &answer["choices"][0]["finish_reason"]),
        (&Value::Null, &json!("tool_calls"))
    );
    let calls = message["tool_calls"].as_array().unwrap();
    let functions: Vec<&Value> = calls.iter().map(|call| &call["function"]).collect();
    assert_eq!(
        json!(functions),
        json!([{"name": "a", "arguments": "{\"x\":1}"}, {"name": "b", "arguments": "{}"}])
    );
    assert_ne!(calls[0]["id"], calls[1]["id"]);

    let result =
        |call: &Value| json!({"role": "tool", "tool_call_id": call["id"], "content": "[[say: not me]]"});
    let messages = body["messages"].as_array_mut().unwrap();
    messages.extend([message.clone(), result(&calls[1]), result(&calls[0])]);
    assert_eq!(said(CHAT, &post(&stub, CHAT, &body).await), "done", "what tools say is no directive");

    let mut one = ask(CHAT, text);
    one["parallel_tool_calls"] = json!(false);
    let answer = post(&stub, CHAT, &one).await.json();
    assert_eq!(answer["choices"][0]["message"]["tool_calls"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_schema_is_answered_and_a_tool_can_be_forced() {
    let stub = started().await;
    let schema =
        json!({"type": "object", "required": ["n"], "properties": {"n": {"type": "integer", "minimum": 3}}});
    let mut body = ask(CHAT, "hello");
    body["response_format"] = json!({"type": "json_schema", "json_schema": {"name": "a", "schema": schema}});
    assert_eq!(said(CHAT, &post(&stub, CHAT, &body).await), r#"{"n":3}"#);
    let mut body = ask(CHAT, "hello");
    body["tools"] = json!([{"type": "function", "function": {"name": "f", "parameters": schema}}]);
    body["tool_choice"] = json!({"type": "function", "function": {"name": "f"}});
    let answer = post(&stub, CHAT, &body).await.json();
    assert_eq!(
        answer["choices"][0]["message"]["tool_calls"][0]["function"],
        json!({"name": "f", "arguments": "{\"n\":3}"})
    );
}

#[tokio::test]
async fn what_the_real_api_refuses_is_refused() {
    let stub = started().await;
    let call = json!({"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}});
    let asked = json!({"role": "assistant", "tool_calls": [call]});
    let user = json!({"role": "user", "content": "x"});
    let tool = json!({"role": "tool", "tool_call_id": "b", "content": "x"});
    for (messages, part) in [
        (json!([]), "'messages'"),
        (json!([{"role": "robot", "content": "x"}]), "'messages[0].role'"),
        (json!([{"role": "user"}]), "'messages[0].content'"),
        (json!([user, asked]), "did not have response messages: a"),
        (json!([user, asked, user]), "did not have response messages: a"),
        (json!([user, asked, tool]), "role 'tool' must be a response"),
    ] {
        let answer = post(&stub, CHAT, &json!({"model": "m", "messages": messages})).await;
        let error = answer.json()["error"].clone();
        assert_eq!((answer.status, &error["type"]), (400, &json!("invalid_request_error")), "{part}");
        assert!(error["message"].as_str().unwrap().contains(part), "{part}: {error}");
    }
    let tool = |name: &str| json!({"type": "function", "function": {"name": name, "strict": name == "strict", "parameters": {"type": "object"}}});
    for (tools, part) in [
        (json!([tool("a.b")]), "'tools[0].function.name'"),
        (json!([tool("a"), tool("a")]), "two of them are called 'a'"),
        (json!([tool("strict")]), "'additionalProperties' is required"),
        (json!([{"type": "function"}]), "'tools[0].function'"),
    ] {
        let mut body = ask(CHAT, "x");
        body["tools"] = tools;
        let answer = post(&stub, CHAT, &body).await;
        assert!(answer.status == 400 && answer.text().contains(part), "{}", answer.text());
    }
    let mut body = ask(CHAT, "x");
    body["response_format"] = json!({"type": "json_schema", "json_schema": {"name": "a", "strict": true, "schema": {"type": "object"}}});
    assert!(post(&stub, CHAT, &body).await.text().contains("Invalid schema for response_format 'a'"));
    assert_eq!(post(&stub, CHAT, &json!({"messages": [user]})).await.status, 400, "a model is named");
    let answer = post(&stub, CHAT, &ask(CHAT, "[[tool:f {]]")).await;
    assert!(answer.status == 400 && answer.text().contains("stub: [[tool: ...]]"), "{}", answer.text());
    assert_eq!(post(&stub, "/v1/other", &json!({})).await.status, 404);
}

#[tokio::test]
async fn errors_are_in_the_providers_words() {
    for (behaviour, status, members) in [
        (
            json!({"status": 429, "retry_after": 7}),
            429,
            json!({"type": "requests", "code": "rate_limit_exceeded"}),
        ),
        (
            json!({"status": 429, "error": "quota"}),
            429,
            json!({"type": "insufficient_quota", "code": "insufficient_quota"}),
        ),
        (
            json!({"status": 400, "error": "context_length"}),
            400,
            json!({"param": "messages", "code": "context_length_exceeded"}),
        ),
        (json!({"status": 401}), 401, json!({"code": "invalid_api_key"})),
        (json!({"status": 500}), 500, json!({"type": "server_error"})),
        (json!({"status": 503, "message": "Come back later"}), 503, json!({"message": "Come back later"})),
        (json!({"status": 404}), 404, json!({"code": "model_not_found"})),
    ] {
        let stub = scripted(json!([{"do": behaviour}])).await;
        let answer = post(&stub, CHAT, &streamed(ask(CHAT, "x"))).await;
        assert_eq!((answer.status, answer.header("content-type")), (status, "application/json"));
        assert_eq!(
            answer.header("retry-after"),
            if behaviour.get("retry_after").is_some() { "7" } else { "" }
        );
        let error = &answer.json()["error"];
        for (name, value) in members.as_object().unwrap() {
            assert_eq!(&error[name], value, "{behaviour}");
        }
        assert!(error["message"].as_str().is_some_and(|message| message.len() > 5), "{error}");
    }
}

#[tokio::test]
async fn a_key_is_asked_for_when_there_is_one() {
    let options = aob_stub_model::Options { openai_key: Some("sk-right".into()), ..Default::default() };
    let stub = aob_stub_model::Stub::start(options).await.unwrap();
    for (headers, status) in [
        (&[][..], 401),
        (&[("authorization", "Bearer sk-wrong")][..], 401),
        (&[("authorization", "Bearer sk-right")][..], 200),
    ] {
        assert_eq!(post_with(&stub, CHAT, headers, &ask(CHAT, "x")).await.status, status);
    }
    assert_eq!(get(&stub, "/v1/models").await["error"]["code"], "invalid_api_key");
    let models = get(&started().await, "/v1/models").await;
    assert_eq!((&models["object"], &models["data"][0]["object"]), (&json!("list"), &json!("model")));
}
