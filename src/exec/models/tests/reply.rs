//! What becomes of what a provider sent: which calls may be made, and what it cost.

use proptest::prelude::*;
use serde_json::json;

use super::super::prompt::tests::tool;
use super::super::settings::tests::model;
use super::*;
use crate::model::money::Usd;

const BOUND: Bound = Bound { input: 2_000, output: 100, input_possible: 5_000 };

fn raw(text: &str, stop: Stop, usage: Json) -> Raw {
    Raw { text: text.into(), stop: Some(stop), usage, over: true, ..Raw::default() }
}

fn judged(raw: Raw, tools: &[ToolSpec], secret: &str) -> Result<Answer, Failure> {
    let model = model(Kind::OpenAi, "http://127.0.0.1:1");
    let mut redactor = Redactor::default();
    if !secret.is_empty() {
        redactor.add(secret);
    }
    let quote = super::super::estimate::quote(&model, BOUND);
    assert_eq!(quote.cost, Some(Usd::from_nanos(2_000 * 3_000 + 100 * 15_000)));
    Judge { model: &model, tools, quote: &quote, bound: BOUND, redactor: &redactor }.answer(raw, 7)
}

// F394, F398, F406, D16
#[test]
fn what_a_call_cost_is_what_the_provider_says_or_the_most_it_can_be() {
    let usage = |read: Json, output: Json| json!({"prompt_tokens": read, "completion_tokens": output});
    let most = Tokens { input: 2_000, output: 100, ..Tokens::default() };
    let reserved = 2_000 * 3_000 + 100 * 15_000;
    for (usage, tokens, measured, nanos) in [
        (usage(json!(10), json!(2)), Tokens { input: 10, output: 2, ..most }, true, 10 * 3_000 + 2 * 15_000),
        (
            usage(json!(5_000), json!(100)),
            Tokens { input: 5_000, output: 100, ..most },
            true,
            5_000 * 3_000 + 100 * 15_000,
        ),
        (Json::Null, most, false, reserved),
        (usage(json!(-1), json!(2)), most, false, reserved),
        (usage(json!(0), json!(2)), most, false, reserved),
        (usage(json!(10), json!(0)), most, false, reserved),
        // Absurd: more than it can have read or written.
        (usage(json!(5_001), json!(2)), Tokens { output: 2, ..most }, false, reserved),
        (usage(json!(10), json!(u64::MAX)), Tokens { input: 10, ..most }, false, reserved),
        (usage(json!(u64::MAX), json!(u64::MAX)), most, false, reserved),
    ] {
        let answer = judged(raw("Yes.", Stop::End, usage.clone()), &[], "").unwrap();
        assert_eq!((answer.tokens, answer.measured), (tokens, measured), "{usage}");
        assert_eq!(answer.cost, Some(Usd::from_nanos(nanos)), "{usage}");
        assert_eq!((&*answer.model, &*answer.provider, answer.took_ms), ("m", "p", 7));
    }
}

fn asking(calls: &[(&str, &str, &str)]) -> Raw {
    let calls = calls.iter().enumerate().map(|(index, (id, name, arguments))| RawCall {
        index: index as u64,
        id: (*id).into(),
        name: (*name).into(),
        arguments: (*arguments).into(),
    });
    Raw { calls: calls.collect(), ..raw("", Stop::Tools, Json::Null) }
}

// F029
#[test]
fn a_call_is_made_only_when_its_tool_is_offered_and_its_arguments_fit() {
    let wide = Value::from_json(br#"{"type": "object"}"#).unwrap();
    let mut broken = tool("broken");
    broken.parameters = Value::from_json(br#"{"$ref": "https://example.com/schema"}"#).unwrap();
    let tools = [tool("find"), ToolSpec { parameters: wide, ..tool("any") }, broken];
    let deep = "[".repeat(70) + &"]".repeat(70);
    for (name, arguments, refused, kept) in [
        ("find", r#"{"q": "x"}"#, None, r#"{"q":"x"}"#),
        ("any", "", None, "{}"),
        ("find", "", Some("tool_arguments_invalid"), "{}"),
        ("find", r#"{"q": 1}"#, Some("tool_arguments_invalid"), r#"{"q":1}"#),
        ("find", "[]", Some("tool_arguments_invalid"), "[]"),
        ("find", "{\"q\": ", Some("tool_arguments_invalid"), "\"{\\\"q\\\": \""),
        (
            "find",
            r#"{"q": "x", "q": "y"}"#,
            Some("tool_arguments_invalid"),
            r#""{\"q\": \"x\", \"q\": \"y\"}""#,
        ),
        ("any", deep.as_str(), Some("tool_arguments_invalid"), ""),
        ("rm", r#"{"q": "x"}"#, Some("tool_not_allowed"), r#"{"q":"x"}"#),
        ("Find", "{", Some("tool_not_allowed"), "\"{\""),
        ("broken", "{}", Some("tool_arguments_invalid"), "{}"),
    ] {
        let answer = judged(asking(&[("a", name, arguments)]), &tools, "").unwrap();
        let call = &answer.calls[0];
        assert_eq!(call.refused.as_ref().map(|failure| &*failure.code), refused, "{name} {arguments}");
        assert!(kept.is_empty() || call.arguments.to_json() == kept, "{}", call.arguments);
        assert_eq!(answer.stop, Stop::Tools);
    }
    let answer = judged(asking(&[("a", "find", r#"{"q": 1}"#)]), &tools, "").unwrap();
    let told = &answer.calls[0].refused.as_ref().unwrap().message;
    assert!(told.contains("\"/q\""), "the model is told where: {told}");
}

#[test]
fn ids_are_unique_and_such_as_every_provider_takes() {
    let long = "x".repeat(200);
    let ids = ["a", "a", "", "call_2", "ä b", &long, "call_9"];
    let calls: Vec<_> = ids.iter().map(|id| (*id, "find", "{}")).collect();
    let answer = judged(asking(&calls), &[], "").unwrap();
    let ids: Vec<&str> = answer.calls.iter().map(|call| &*call.id).collect();
    assert_eq!(ids, ["a", "call_2", "call_3", "call_4", "call_5", "call_6", "call_9"]);
}

#[test]
fn an_answer_that_is_not_whole_or_says_nothing_is_none() {
    let bad = [
        Raw { over: false, ..raw("Yes.", Stop::End, Json::Null) },
        Raw { stop: None, ..raw("Yes.", Stop::End, Json::Null) },
        raw(" \n", Stop::End, Json::Null),
        raw("", Stop::Tools, Json::Null),
    ];
    for raw in bad {
        let failure = judged(raw, &[], "").unwrap_err();
        assert_eq!((&*failure.code, failure.class), ("model_answer_invalid", Class::Recoverable));
    }
    let cut = Raw { stop: Some(Stop::Length), ..asking(&[("a", "find", "{\"q\"")]) };
    let answer = judged(cut, &[tool("find")], "").unwrap();
    assert_eq!((answer.stop, answer.calls.len()), (Stop::Length, 0), "a call that was cut off is none");
    assert_eq!(judged(raw("", Stop::Filtered, Json::Null), &[], "").unwrap().stop, Stop::Filtered);
    let said_stop = Raw { stop: Some(Stop::End), ..asking(&[("a", "find", "{}")]) };
    assert_eq!(judged(said_stop, &[], "").unwrap().stop, Stop::Tools);
}

// F411
#[test]
fn no_part_of_an_answer_holds_a_secret() {
    let secret = "cAnary-0123456789";
    let quoted = format!("{{\"q\": \"{secret}\", \"{secret}\": 1}}");
    let mut asking = asking(&[(secret, secret, &quoted), ("b", "find", secret), ("c", "find", &quoted)]);
    asking.text = format!("Your key is {secret}.");
    (asking.id, asking.model) = (secret.into(), secret.into());
    let answer = judged(asking, &[tool("find")], secret).unwrap();
    let shown = format!("{answer:?}");
    assert!(!shown.contains("cAnary"), "{shown}");
    assert!(shown.contains("[redacted]"));
}

// F411
#[test]
fn no_cut_of_a_name_leaves_a_part_of_a_secret() {
    for at in 0..=NAME_BYTES_MAX {
        let long = format!("{}cAnary-0123456789", "x".repeat(at));
        let mut asking = asking(&[("a", &long, "{}")]);
        (asking.id, asking.model) = (long.clone(), long);
        let shown = format!("{:?}", judged(asking, &[tool("find")], "cAnary-0123456789").unwrap());
        assert!(!shown.contains("cAn"), "{at}: {shown}");
    }
}

proptest! {
    // D16
    #[test]
    fn whatever_usage_says_the_cost_is_never_nothing_and_never_over_the_bound(
        read in any::<i64>(), output in any::<i64>(), cached in any::<i64>(),
    ) {
        let usage = json!({
            "prompt_tokens": read, "completion_tokens": output, "prompt_tokens_details": {"cached_tokens": cached},
        });
        let answer = judged(raw("Yes.", Stop::End, usage), &[], "").unwrap();
        let cost = answer.cost.unwrap();
        prop_assert!(cost > Usd::ZERO);
        prop_assert!(cost <= Usd::from_nanos(5_000 * 3_000 + 100 * 15_000));
        prop_assert!(answer.tokens.total() <= 5_100);
    }
}

/// JSON of the members that both interfaces have, with values of any type in any place.
fn any_json() -> impl Strategy<Value = Json> {
    let keys = [
        "choices",
        "message",
        "delta",
        "content",
        "tool_calls",
        "function",
        "name",
        "arguments",
        "id",
        "index",
        "type",
        "finish_reason",
        "stop_reason",
        "usage",
        "prompt_tokens",
        "completion_tokens",
        "input_tokens",
        "output_tokens",
        "content_block",
        "text",
        "partial_json",
        "error",
        "code",
        "refusal",
        "input",
    ];
    let texts = [
        "",
        "stop",
        "tool_calls",
        "end_turn",
        "tool_use",
        "text",
        "find",
        "{\"q\": \"x\"}",
        "message_start",
        "content_block_start",
        "content_block_delta",
        "input_json_delta",
        "text_delta",
        "message_delta",
        "message_stop",
    ];
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any::<u64>().prop_map(Json::from),
        any::<f64>().prop_map(Json::from),
        prop::sample::select(texts.to_vec()).prop_map(Json::from),
    ];
    leaf.prop_recursive(6, 60, 6, move |inner| {
        let member = (prop::sample::select(keys.to_vec()), inner.clone());
        prop_oneof![
            prop::collection::vec(inner, 0..4).prop_map(Json::from),
            prop::collection::vec(member, 0..6).prop_map(|members| members
                .into_iter()
                .map(|(key, value)| (key.to_owned(), value))
                .collect()),
        ]
    })
}

proptest! {
    #[test]
    fn whatever_a_provider_sends_is_an_answer_or_a_failure(
        bodies in prop::collection::vec(any_json(), 1..6),
        anthropic in any::<bool>(),
    ) {
        use super::super::events::Event;
        let whole = match anthropic {
            true => anthropic::read(&bodies[0]),
            false => openai::read(&bodies[0]),
        };
        let mut raw = Raw::default();
        for body in &bodies {
            let event = Event { name: String::new(), data: body.to_string() };
            let _ = match anthropic {
                true => anthropic::take(&mut raw, &event),
                false => openai::take(&mut raw, &event),
            };
        }
        raw.over = true;
        for raw in whole.into_iter().chain([raw]) {
            if let Ok(answer) = judged(raw, &[tool("find")], "") {
                prop_assert!(answer.cost.unwrap() > Usd::ZERO);
                prop_assert!(answer.calls.iter().all(|call| !call.id.is_empty()));
            }
        }
    }
}
