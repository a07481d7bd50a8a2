//! Requests for vectors and the answers to them, those that are none included.

use std::sync::Arc;

use super::super::estimate;
use super::super::prompt::tests::ask;
use super::super::settings::tests::model;
use super::*;
use crate::model::money::Usd;

fn body(json: &str) -> Json {
    serde_json::from_str(json).unwrap()
}

/// An answer with these `data`.
fn answered(data: &str) -> Json {
    body(&format!(
        r#"{{"model": "their-m", "data": {data}, "usage": {{"prompt_tokens": 9, "total_tokens": 9}}}}"#
    ))
}

// F430
#[test]
fn texts_are_sent_and_their_vectors_come_back_in_their_order() {
    let model = model(Kind::OpenAi, "http://127.0.0.1:1");
    let two = ask(r#"{"embed": ["a", "b"], "dimensions": 2}"#, vec![]);
    assert_eq!(
        request(&two, &model).unwrap(),
        json!({"model": "their-m", "input": ["a", "b"], "dimensions": 2})
    );
    let one = ask(r#"{"embed": "a"}"#, vec![]);
    assert_eq!(request(&one, &model).unwrap(), json!({"model": "their-m", "input": ["a"]}));
    let data = r#"[{"index": 1, "embedding": [1, -0.5]}, {"index": 0, "embedding": [0.1, 1e-30]}]"#;
    let raw = read(&two, &answered(data)).unwrap();
    assert_eq!((&*raw.text, &*raw.model, raw.stop), ("[[0.1,1e-30],[1.0,-0.5]]", "their-m", Some(Stop::End)));
    assert_eq!(raw.usage, json!({"prompt_tokens": 9, "completion_tokens": 0}));
    let unnumbered = r#"[{"embedding": [1, 2, 3]}]"#;
    assert_eq!(read(&one, &answered(unnumbered)).unwrap().text, "[[1.0,2.0,3.0]]");
    let silent = read(&one, &body(r#"{"data": [{"embedding": [1]}]}"#)).unwrap();
    assert_eq!(silent.usage, Json::Null, "what is not said is not guessed");
}

#[test]
fn what_is_no_list_of_vectors_of_the_length_asked_for_is_no_answer() {
    let two = ask(r#"{"embed": ["a", "b"], "dimensions": 2}"#, vec![]);
    for data in [
        "null",
        "[]",
        r#"[{"embedding": [1, 2]}]"#,
        r#"[{"embedding": [1, 2]}, {"embedding": [1, 2, 3]}]"#,
        r#"[{"embedding": [1]}, {"embedding": [1]}]"#,
        r#"[{"embedding": [1, 2]}, {"embedding": [1, "2"]}]"#,
        r#"[{"embedding": [1, 2]}, {"embedding": [1, 1e300]}]"#,
        r#"[{"embedding": [1, 2]}, {"embedding": "AACAPw=="}]"#,
        r#"[{"index": 0, "embedding": [1, 2]}, {"index": 0, "embedding": [1, 2]}]"#,
        r#"[{"index": 0, "embedding": [1, 2]}, {"index": 2, "embedding": [1, 2]}]"#,
        r#"[{"index": 0, "embedding": [1, 2]}, {"index": 18446744073709551615, "embedding": [1, 2]}]"#,
    ] {
        let failure = read(&two, &answered(data)).unwrap_err();
        assert_eq!((&*failure.code, failure.retryable()), ("model_answer_invalid", true), "{data}");
    }
    let free = ask(r#"{"embed": ["a", "b"]}"#, vec![]);
    let uneven = r#"[{"embedding": [1, 2]}, {"embedding": [1]}]"#;
    assert_eq!(&*read(&free, &answered(uneven)).unwrap_err().code, "model_answer_invalid");
    let long = vec!["0"; limits::EMBED_NUMBERS_MAX / 2 + 1].join(",");
    let long = format!(r#"[{{"embedding": [{long}]}}, {{"embedding": [{long}]}}]"#);
    let failure = read(&free, &answered(&long)).unwrap_err();
    assert_eq!((&*failure.code, failure.retryable()), ("answer_too_large", false), "{failure}");
    assert!(failure.message.contains("embed_numbers_max"), "{failure}");
}

#[test]
fn the_longest_vectors_fit_in_an_answer() {
    let many = limits::EMBED_NUMBERS_MAX / limits::EMBED_TEXTS_MAX;
    let vector = vec!["-1.17549435e-38"; many].join(",");
    let data = vec![format!(r#"{{"embedding": [{vector}]}}"#); limits::EMBED_TEXTS_MAX].join(",");
    let asked = Ask {
        request: Value::map([("embed", Value::list(vec!["x".into(); limits::EMBED_TEXTS_MAX]))]),
        ..ask("{}", vec![])
    };
    let raw = read(&asked, &answered(&format!("[{data}]"))).unwrap();
    assert!(raw.text.len() < limits::AGENT_ANSWER_BYTES_MAX, "{}", raw.text.len());
    assert!(Value::from_json(raw.text.as_bytes()).is_ok());
}

#[test]
fn what_is_no_text_is_not_sent() {
    let model = model(Kind::OpenAi, "http://127.0.0.1:1");
    for request in [
        r#"{"embed": null}"#,
        r#"{"embed": []}"#,
        r#"{"embed": [1]}"#,
        r#"{"embed": ["a", " "]}"#,
        r#"{"embed": {"a": "b"}}"#,
        r#"{"embed": "a", "dimensions": 0}"#,
        r#"{"embed": "a", "dimensions": 16385}"#,
        r#"{"embed": ["a", "b", "c", "d"], "dimensions": 16384}"#,
    ] {
        let failure = super::request(&ask(request, vec![]), &model).unwrap_err();
        assert_eq!((&*failure.code, failure.retryable()), ("model_request_invalid", false), "{request}");
    }
    let texts = vec!["x".into(); limits::EMBED_TEXTS_MAX + 1];
    let many = Ask { request: Value::map([("embed", Value::list(texts))]), ..ask("{}", vec![]) };
    let failure = request(&many, &model).unwrap_err();
    assert!(failure.message.contains("embed_texts_max"), "{failure}");
    let other = super::super::settings::tests::model(Kind::Anthropic, "http://127.0.0.1:1");
    let failure = request(&ask(r#"{"embed": "a"}"#, vec![]), &other).unwrap_err();
    assert!(
        &*failure.code == "model_request_invalid" && failure.message.contains("no embeddings"),
        "{failure}"
    );
}

// D16
#[test]
fn nothing_is_reserved_for_what_is_not_written_and_every_text_is_read_by_itself() {
    let mut model = model(Kind::OpenAi, "http://127.0.0.1:1");
    let asked = ask(r#"{"embed": ["aaaa", "bbbb", "cccc"]}"#, vec![]);
    let written = estimate::write(&model, &asked, &[]).unwrap();
    let input = written.body.len() as u64 + limits::MODEL_OVERHEAD_TOKENS;
    assert_eq!((written.bound.input, written.bound.output), (input, 0));
    let quote = estimate::quote(&model, written.bound);
    assert_eq!((quote.tokens, quote.cost), (input, Some(Usd::from_nanos(input * 3_000))));
    // Three texts of at most ten tokens each.
    model.context_tokens = 10;
    assert_eq!(estimate::write(&model, &asked, &[]).unwrap().bound.input, 30);
    let asked = Arc::new(ask(r#"{"task": "Well?"}"#, vec![]));
    model.max_output_tokens = 0;
    let failure = estimate::write(&model, &asked, &[]).err().unwrap();
    assert_eq!(&*failure.code, "model_request_invalid", "a model of vectors says nothing: {failure}");
}
