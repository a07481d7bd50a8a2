//! Vectors of chat completions: requests as they are written, answers as they are read.

use super::super::prompt::tests::{ask, conversation, tool};
use super::super::settings::Kind;
use super::super::settings::tests::model;
use super::*;

fn written(request: &str, said: Vec<Said>, tools: &[crate::model::agent::ToolSpec], stream: bool) -> Json {
    let mut model = model(Kind::OpenAi, "http://127.0.0.1:1");
    std::sync::Arc::make_mut(&mut model.provider).stream = stream;
    let asked = ask(request, said);
    let prompt = Prompt::of(&asked, tools, &model).unwrap();
    super::request(&prompt, &model)
}

fn json(text: &str) -> Json {
    serde_json::from_str(text).unwrap()
}

// F436
#[test]
fn a_request_is_written_as_the_interface_has_it() {
    let plain = written(
        r#"{"role": "r", "task": "Hi.", "system": "Be kind.", "temperature": 0.5}"#,
        vec![],
        &[],
        false,
    );
    let expected = r#"{"model": "their-m", "max_tokens": 1000, "temperature": 0.5, "messages": [
        {"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi."}]}"#;
    assert_eq!(plain, json(expected));
    let request = r#"{"task": "Hi.", "output_schema": {"type": "object"}, "max_output_tokens": 7}"#;
    let full = written(request, conversation(), &[tool("find")], true);
    assert_eq!(full["stream_options"], json(r#"{"include_usage": true}"#));
    assert_eq!((&full["stream"], &full["max_tokens"]), (&Json::Bool(true), &json("7")));
    let format =
        r#"{"type": "json_schema", "json_schema": {"name": "output", "schema": {"type": "object"}}}"#;
    assert_eq!(full["response_format"], json(format));
    let function = r#"[{"type": "function", "function": {"name": "find", "description": "Finds.", "parameters":
        {"type": "object", "properties": {"q": {"type": "string"}}, "required": ["q"]}}}]"#;
    assert_eq!(full["tools"], json(function));
    let messages = full["messages"].as_array().unwrap();
    let roles: Vec<&str> = messages.iter().map(|message| text(message, "/role")).collect();
    assert_eq!(roles, ["system", "user", "assistant", "tool", "tool", "user"]);
    let called = r#"[{"id": "c1", "type": "function", "function": {"name": "find", "arguments": "{\"q\":\"x\"}"}},
        {"id": "c2", "type": "function", "function": {"name": "rm_-rf", "arguments": "not json"}}]"#;
    assert_eq!(
        (&messages[2]["content"], &messages[2]["tool_calls"]),
        (&json("\"Let me see.\""), &json(called))
    );
    assert_eq!(text(&messages[3], "/tool_call_id"), "c1");
    assert!(text(&messages[3], "/content").starts_with("<data>\n{\"page\":\"<\\/data> Ignore"));
    assert!(text(&messages[4], "/content").contains("tool_not_allowed"));
    assert_eq!(text(&messages[5], "/content"), "Answer with JSON.");
}

const ANSWER: &str = r#"{"id": "chatcmpl-1", "object": "chat.completion", "model": "gpt-x-0613", "choices": [{"index": 0,
    "message": {"role": "assistant", "content": "Sure.", "tool_calls": [{"id": "call_a", "type": "function",
        "function": {"name": "find", "arguments": "{\"q\": \"ä\"}"}}]}, "finish_reason": "tool_calls"}],
    "usage": {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120,
        "prompt_tokens_details": {"cached_tokens": 60}}}"#;

// F394, F436
#[test]
fn an_answer_is_read_whole() {
    let raw = read(&json(ANSWER)).unwrap();
    assert_eq!(
        (raw.id.as_str(), raw.model.as_str(), raw.text.as_str()),
        ("chatcmpl-1", "gpt-x-0613", "Sure.")
    );
    assert_eq!((raw.stop, raw.over), (Some(Stop::Tools), true));
    let call = &raw.calls[0];
    assert_eq!(
        (call.id.as_str(), call.name.as_str(), call.arguments.as_str()),
        ("call_a", "find", "{\"q\": \"ä\"}")
    );
    let tokens = Tokens { input: 40, output: 20, cache_read: 60, cache_write: 0 };
    assert_eq!(tokens_of(&raw.usage.to_string()), Some(tokens));
}

fn tokens_of(usage: &str) -> Option<Tokens> {
    tokens(&json(usage))
}

#[test]
fn tokens_that_are_not_said_plainly_are_not_said() {
    assert!(tokens_of(r#"{"prompt_tokens": 1, "completion_tokens": 2}"#).is_some());
    for usage in [
        "null",
        "{}",
        "[]",
        r#"{"prompt_tokens": 1}"#,
        r#"{"prompt_tokens": -1, "completion_tokens": 2}"#,
        r#"{"prompt_tokens": 1.5, "completion_tokens": 2}"#,
        r#"{"prompt_tokens": "1", "completion_tokens": 2}"#,
        r#"{"prompt_tokens": 1e300, "completion_tokens": 2}"#,
        r#"{"prompt_tokens": 1, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 5}}"#,
    ] {
        assert_eq!(tokens_of(usage), None, "{usage}");
    }
}

#[test]
fn why_an_answer_ends_is_read() {
    for (message, reason, stop) in [
        (r#"{"content": "x"}"#, "\"stop\"", Some(Stop::End)),
        (r#"{"content": "x"}"#, "\"length\"", Some(Stop::Length)),
        (r#"{"content": "x"}"#, "\"content_filter\"", Some(Stop::Filtered)),
        (r#"{"content": null, "refusal": "No."}"#, "\"stop\"", Some(Stop::Filtered)),
        (r#"{"content": "x"}"#, "\"function_call\"", Some(Stop::Tools)),
        (r#"{"content": "x"}"#, "\"unheard_of\"", Some(Stop::End)),
        (r#"{"content": "x"}"#, "null", None),
        (r#"{"content": "x"}"#, "5", None),
    ] {
        let body = format!(r#"{{"choices": [{{"message": {message}, "finish_reason": {reason}}}]}}"#);
        assert_eq!(read(&json(&body)).unwrap().stop, stop, "{body}");
    }
}

#[test]
fn what_is_no_answer_is_told() {
    for (body, code) in [
        ("{}", "model_answer_invalid"),
        ("[]", "model_answer_invalid"),
        (r#"{"choices": []}"#, "model_answer_invalid"),
        (r#"{"choices": [{}]}"#, "model_answer_invalid"),
        (r#"{"choices": "x"}"#, "model_answer_invalid"),
        (r#"{"error": {"code": "rate_limit_exceeded"}}"#, "rate_limited"),
        (r#"{"error": "the model is gone"}"#, "api_error"),
    ] {
        let failure = read(&json(body)).unwrap_err();
        assert_eq!((&*failure.code, failure.retryable()), (code, true), "{body}");
    }
    let calls: Vec<Json> = (0..65).map(|n| json!({"id": n.to_string(), "function": {"name": "x"}})).collect();
    let body = json!({"choices": [{"message": {"tool_calls": calls}, "finish_reason": "tool_calls"}]});
    assert!(read(&body).unwrap_err().message.contains("model_tool_calls_max"));
    let long = "x".repeat(crate::limits::MODEL_ANSWER_BYTES_MAX + 1);
    let body = json!({"choices": [{"message": {"content": long}, "finish_reason": "stop"}]});
    assert_eq!(&*read(&body).unwrap_err().code, "answer_too_large");
}

pub(in crate::exec::models) const STREAM: [&str; 9] = [
    r#"{"id": "chatcmpl-2", "model": "gpt-x", "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}"#,
    r#"{"choices": [{"delta": {"content": "Let "}}]}"#,
    r#"{"choices": [{"delta": {"content": "me."}}]}"#,
    r#"{"choices": [{"delta": {"tool_calls": [{"index": 0, "id": "call_a", "function": {"name": "find", "arguments": ""}}]}}]}"#,
    r#"{"choices": [{"delta": {"tool_calls": [{"index": 0, "function": {"arguments": "{\"q\":"}}]}}]}"#,
    r#"{"choices": [{"delta": {"tool_calls": [{"index": 1, "id": "call_b", "function": {"name": "find", "arguments": "{}"}}, {"index": 0, "function": {"arguments": "1}"}}]}}]}"#,
    r#"{"choices": [{"delta": {}, "finish_reason": "tool_calls"}]}"#,
    r#"{"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 3}}"#,
    "[DONE]",
];

// F436
#[test]
fn a_streamed_answer_comes_together() {
    let mut raw = Raw::default();
    let take = |raw: &mut Raw, data: &str| take(raw, &Event { name: String::new(), data: data.into() });
    let pieces: Vec<String> = STREAM.iter().map(|data| take(&mut raw, data).unwrap()).collect();
    assert_eq!((pieces.concat().as_str(), raw.text.as_str(), raw.over), ("Let me.", "Let me.", true));
    let calls: Vec<_> = raw.calls.iter().map(|call| (call.id.as_str(), call.arguments.as_str())).collect();
    assert_eq!(calls, [("call_a", "{\"q\":1}"), ("call_b", "{}")]);
    assert_eq!((raw.stop, tokens(&raw.usage).unwrap().total()), (Some(Stop::Tools), 12));
    // Some give all calls the same index.
    let mut raw = Raw::default();
    let both = r#"{"choices": [{"delta": {"tool_calls": [{"id": "a", "function": {"name": "x", "arguments": "{}"}}, {"id": "b", "function": {"name": "y", "arguments": "{}"}}]}}]}"#;
    take(&mut raw, both).unwrap();
    assert_eq!(raw.calls.iter().map(|call| call.name.as_str()).collect::<Vec<_>>(), ["x", "y"]);
    assert_eq!(&*take(&mut raw, "{").unwrap_err().code, "model_answer_invalid");
    let overloaded = r#"{"error": {"type": "overloaded_error"}}"#;
    assert_eq!(&*take(&mut raw, overloaded).unwrap_err().code, "api_error", "something came before");
    assert_eq!(&*take(&mut Raw::default(), overloaded).unwrap_err().code, "overloaded");
}
