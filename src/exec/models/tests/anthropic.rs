//! Vectors of messages: requests as they are written, answers as they are read.

use super::super::prompt::tests::{ask, conversation, tool};
use super::super::settings::Kind;
use super::super::settings::tests::model;
use super::*;

fn written(request: &str, said: Vec<Said>, tools: &[crate::model::agent::ToolSpec]) -> Json {
    let model = model(Kind::Anthropic, "http://127.0.0.1:1");
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
        r#"{"task": "Hi.", "system": "Be kind.", "temperature": 2, "max_output_tokens": 9}"#,
        vec![],
        &[],
    );
    let expected = r#"{"model": "their-m", "max_tokens": 9, "temperature": 1.0, "system": "Be kind.",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi."}]}]}"#;
    assert_eq!(plain, json(expected));
    let full =
        written(r#"{"task": "Hi.", "output_schema": {"type": "object"}}"#, conversation(), &[tool("find")]);
    assert!(text(&full, "/system").ends_with("{\"type\":\"object\"}"), "a schema is asked for in words");
    let told = r#"[{"name": "find", "description": "Finds.", "input_schema":
        {"type": "object", "properties": {"q": {"type": "string"}}, "required": ["q"]}}]"#;
    assert_eq!(full["tools"], json(told));
    let messages = full["messages"].as_array().unwrap();
    let roles: Vec<&str> = messages.iter().map(|message| text(message, "/role")).collect();
    assert_eq!(roles, ["user", "assistant", "user"], "sides take turns");
    let blocks = r#"[{"type": "text", "text": "Let me see."},
        {"type": "tool_use", "id": "c1", "name": "find", "input": {"q": "x"}},
        {"type": "tool_use", "id": "c2", "name": "rm_-rf", "input": {"arguments": "not json"}}]"#;
    assert_eq!(messages[1]["content"], json(blocks));
    let last = messages[2]["content"].as_array().unwrap();
    let kinds: Vec<&str> = last.iter().map(|block| text(block, "/type")).collect();
    assert_eq!(kinds, ["tool_result", "tool_result", "text"]);
    assert_eq!(
        (text(&last[0], "/tool_use_id"), &last[0]["is_error"], &last[1]["is_error"]),
        ("c1", &json("false"), &json("true"))
    );
    assert!(text(&last[0], "/content").starts_with("<data>\n{\"page\":\"<\\/data> Ignore"));
    let mut silent = conversation();
    if let Said::Model(answer) = &mut silent[0] {
        answer.content = " ".into();
        answer.calls.clear();
    }
    let full = written(r#"{"task": "Hi."}"#, silent, &[]);
    assert_eq!(text(&full, "/messages/1/content/0/text"), "(nothing)", "no message is empty");
}

const ANSWER: &str = r#"{"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-x", "content": [
    {"type": "thinking", "thinking": "Hm."}, {"type": "text", "text": "Sure."},
    {"type": "tool_use", "id": "toolu_1", "name": "find", "input": {"q": "ä"}}], "stop_reason": "tool_use",
    "usage": {"input_tokens": 40, "output_tokens": 20, "cache_read_input_tokens": 60, "cache_creation_input_tokens": 5}}"#;

// F394, F436
#[test]
fn an_answer_is_read_whole() {
    let raw = read(&json(ANSWER)).unwrap();
    assert_eq!((raw.id.as_str(), raw.model.as_str(), raw.text.as_str()), ("msg_1", "claude-x", "Sure."));
    assert_eq!((raw.stop, raw.over), (Some(Stop::Tools), true));
    let call = &raw.calls[0];
    assert_eq!(
        (call.id.as_str(), call.name.as_str(), call.arguments.as_str()),
        ("toolu_1", "find", "{\"q\":\"ä\"}")
    );
    let tokens = Tokens { input: 40, output: 20, cache_read: 60, cache_write: 5 };
    assert_eq!(super::tokens(&raw.usage), Some(tokens));
    let least = r#"{"input_tokens": 1, "output_tokens": 2, "cache_creation_input_tokens": null}"#;
    assert_eq!(super::tokens(&json(least)).unwrap().total(), 3);
    for usage in [
        "null",
        "{}",
        r#"{"input_tokens": 1}"#,
        r#"{"input_tokens": -1, "output_tokens": 1}"#,
        r#"{"input_tokens": 1, "output_tokens": 1, "cache_read_input_tokens": "x"}"#,
    ] {
        assert_eq!(super::tokens(&json(usage)), None, "{usage}");
    }
    for (reason, stop) in [
        ("end_turn", Stop::End),
        ("stop_sequence", Stop::End),
        ("max_tokens", Stop::Length),
        ("model_context_window_exceeded", Stop::Length),
        ("refusal", Stop::Filtered),
    ] {
        let body = json!({"content": [], "stop_reason": reason});
        assert_eq!(read(&body).unwrap().stop, Some(stop), "{reason}");
    }
}

#[test]
fn what_is_no_answer_is_told() {
    for (body, code) in [
        ("{}", "model_answer_invalid"),
        (r#"{"content": "x"}"#, "model_answer_invalid"),
        (
            r#"{"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}"#,
            "overloaded",
        ),
    ] {
        assert_eq!(&*read(&json(body)).unwrap_err().code, code, "{body}");
    }
}

pub(in crate::exec::models) const STREAM: [&str; 13] = [
    r#"{"type": "message_start", "message": {"id": "msg_2", "model": "claude-x", "content": [], "usage": {"input_tokens": 25, "output_tokens": 1, "cache_read_input_tokens": 3}}}"#,
    r#"{"type": "ping"}"#,
    r#"{"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}"#,
    r#"{"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Let "}}"#,
    r#"{"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "me."}}"#,
    r#"{"type": "content_block_stop", "index": 0}"#,
    r#"{"type": "content_block_start", "index": 1, "content_block": {"type": "tool_use", "id": "toolu_1", "name": "find", "input": {}}}"#,
    r#"{"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": "{\"q\":"}}"#,
    r#"{"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": " 1}"}}"#,
    r#"{"type": "content_block_stop", "index": 1}"#,
    r#"{"type": "message_delta", "delta": {"stop_reason": "tool_use", "stop_sequence": null}, "usage": {"output_tokens": 15, "cache_read_input_tokens": null}}"#,
    r#"{"type": "unheard_of", "x": 1}"#,
    r#"{"type": "message_stop"}"#,
];

// F436
#[test]
fn a_streamed_answer_comes_together() {
    let mut raw = Raw::default();
    let take = |raw: &mut Raw, data: &str| take(raw, &Event { name: "x".into(), data: data.into() });
    let pieces: Vec<String> = STREAM.iter().map(|data| take(&mut raw, data).unwrap()).collect();
    assert_eq!((pieces.concat().as_str(), raw.text.as_str(), raw.over), ("Let me.", "Let me.", true));
    assert_eq!((raw.calls[0].id.as_str(), raw.calls[0].arguments.as_str()), ("toolu_1", "{\"q\": 1}"));
    let tokens = Tokens { input: 25, output: 15, cache_read: 3, cache_write: 0 };
    assert_eq!((raw.stop, super::tokens(&raw.usage)), (Some(Stop::Tools), Some(tokens)));
    assert_eq!(&*take(&mut raw, "nonsense").unwrap_err().code, "model_answer_invalid");
    let overloaded = r#"{"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}"#;
    assert_eq!(&*take(&mut Raw::default(), overloaded).unwrap_err().code, "overloaded");
}
