//! Answers that are none: broken, endless, slow, packed too small, of another kind.

use std::io::Write as _;

use super::service::{Act, STREAM_HEAD, events, ok, service, status, stream};
use super::{OPENAI, Secrets, allowed, answer, run, settings};
use crate::exec::models::{Kind, openai};
use crate::model::agent::is_billed;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    packed.write_all(bytes).unwrap();
    packed.finish().unwrap()
}

fn packed(body: &[u8]) -> Vec<Act> {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n\r\n", body.len());
    vec![Act::Say(head.into_bytes()), Act::Say(body.to_vec())]
}

fn cut(mut acts: Vec<Act>) -> Vec<Act> {
    acts.push(Act::Close);
    acts
}

/// One chunk of so many letters, over and over.
fn endless(line: &str) -> Vec<Act> {
    let chunk = format!("{:x}\r\n{line}\r\n", line.len());
    vec![Act::Say(STREAM_HEAD.into()), Act::Repeat(chunk.into_bytes())]
}

fn fails_with(acts: Vec<Act>, (streams, expected): (bool, &str)) -> String {
    let service = service(vec![acts]);
    let settings = settings(&service, Kind::OpenAi, |_, provider| provider.stream = streams);
    let mut message = String::new();
    run((settings, allowed(&service), Secrets::default()), async |models| {
        let failure = answer(&models).await.unwrap_err();
        assert_eq!(&*failure.code, expected, "{failure}");
        assert!(is_billed(&failure.code), "it may have been billed: {failure}");
        assert_eq!(failure.retryable(), expected != "answer_too_large", "{failure}");
        message = failure.message.to_string();
    });
    message
}

#[test]
fn an_answer_that_is_garbage_or_cut_off_is_none() {
    let data = openai::tests::STREAM;
    let headless =
        || Act::Say(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n{\"choices\": [".to_vec());
    for (acts, streams, code) in [
        (status(200, "content-type: text/html\r\n", "<html>Welcome</html>"), false, "model_answer_invalid"),
        (ok(""), false, "model_answer_invalid"),
        (status(204, "", ""), false, "model_answer_invalid"),
        (ok("{"), false, "model_answer_invalid"),
        (ok("{}"), false, "model_answer_invalid"),
        (vec![headless(), Act::Close], false, "model_answer_invalid"),
        (ok(&"[".repeat(100_000)), false, "model_answer_invalid"),
        (status(200, "content-encoding: br\r\n", "x"), false, "model_answer_invalid"),
        (packed(b"not packed at all"), false, "model_answer_invalid"),
        (
            vec![Act::Say(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{}".to_vec()), Act::Close],
            false,
            "connection_lost",
        ),
        (vec![Act::Close], false, "connection_lost"),
        (vec![Act::Say(b"I am no server\r\n\r\n".to_vec()), Act::Close], false, "connection_lost"),
        (stream(&data[..4]), true, "model_answer_invalid"),
        (stream(&[]), true, "model_answer_invalid"),
        (stream(&["nonsense"]), true, "model_answer_invalid"),
        (stream(&["[DONE]"]), true, "model_answer_invalid"),
        (cut(events(&data[..4])), true, "connection_lost"),
        (
            stream(&[
                r#"{"choices": [{"delta": {"content": "a"}}]}"#,
                r#"{"error": {"code": "overloaded"}}"#,
            ]),
            true,
            "api_error",
        ),
        (
            status(200, "content-type: text/event-stream\r\ncontent-encoding: gzip\r\n", "x"),
            true,
            "model_answer_invalid",
        ),
    ] {
        fails_with(acts, (streams, code));
    }
}

#[test]
fn an_answer_without_end_is_given_up() {
    let line = endless(&"x".repeat(1 << 16));
    assert!(fails_with(line, (true, "model_answer_invalid")).contains("model_line_bytes_max"));
    let comments = endless(&format!(": {}\n\n", "x".repeat(1 << 16)));
    assert!(fails_with(comments, (true, "answer_too_large")).contains("model_stream_bytes_max"));
    let text =
        format!("data: {{\"choices\": [{{\"delta\": {{\"content\": \"{}\"}}}}]}}\n\n", "x".repeat(1 << 16));
    assert!(fails_with(endless(&text), (true, "answer_too_large")).contains("model_answer_bytes_max"));
    let bomb = gzip(&vec![b' '; crate::limits::HTTP_ANSWER_BYTES_MAX + 1]);
    assert!(fails_with(packed(&bomb), (false, "answer_too_large")).contains("http_answer_bytes_max"));
}

#[test]
fn an_answer_that_is_late_is_not_waited_for() {
    let data = openai::tests::STREAM;
    let wait = || events(&data[..2]).into_iter().chain([Act::Wait]).collect();
    let slow = std::time::Duration::from_millis(50);
    for (acts, streams, said) in [
        (vec![Act::Wait], false, "a whole answer"),
        (wait(), true, "more of its answer"),
        (endless(": still thinking\n\n"), true, "a whole answer"),
    ] {
        let service = service(vec![acts]);
        let settings = settings(&service, Kind::OpenAi, |_, provider| {
            provider.stream = streams;
            if said == "a whole answer" {
                provider.timeout = slow;
            } else {
                provider.idle_timeout = slow;
            }
        });
        run((settings, allowed(&service), Secrets::default()), async |models| {
            let failure = answer(&models).await.unwrap_err();
            assert_eq!((&*failure.code, failure.retryable()), ("timeout", true), "{failure}");
            assert!(failure.message.contains(said) && is_billed(&failure.code), "{failure}");
        });
    }
}

#[test]
fn what_is_odd_but_whole_is_read() {
    let mut unended = openai::tests::STREAM.to_vec();
    unended.pop();
    let wait: Vec<Act> = events(&openai::tests::STREAM).into_iter().chain([Act::Wait]).collect();
    for (acts, streams, said, measured) in [
        (packed(&gzip(OPENAI.as_bytes())), false, "Yes.", true),
        (ok(OPENAI), true, "Yes.", true),
        (stream(&unended), true, "Let me.", true),
        (stream(&unended[..unended.len() - 1]), true, "Let me.", false),
        (wait, true, "Let me.", true),
    ] {
        let service = service(vec![acts]);
        let settings = settings(&service, Kind::OpenAi, |_, provider| provider.stream = streams);
        run((settings, allowed(&service), Secrets::default()), async |models| {
            let answer = answer(&models).await.unwrap();
            assert_eq!((&*answer.content, answer.measured), (said, measured));
            assert!(answer.cost.unwrap() > crate::model::money::Usd::ZERO);
        });
    }
}
