//! The committed schema is the one the types make, and it agrees with the compiler: what compiles fits it, and what it
//! says about shapes the compiler says too.

use granit_parser::{Event, Parser, ScalarStyle};
use serde_json::{Map, Value as Json, json};

use super::{WORKFLOW, types};
use crate::compile::{Format, Options, compile};

#[test]
fn the_committed_schema_is_the_one_of_the_types() {
    let made = format!("{:#}\n", types::workflow());
    if made != WORKFLOW {
        let place = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/workflow.schema.json");
        let blessing = std::env::var("AOB_TIDY_BLESS").is_ok_and(|value| value == "1");
        assert!(
            blessing,
            "docs/workflow.schema.json is stale; run: AOB_TIDY_BLESS=1 cargo test --lib schema"
        );
        std::fs::write(place, made).unwrap();
    }
}

/// What the schema has against a document; empty when it fits.
fn against(document: &Json) -> Vec<String> {
    let schema = jsonschema::draft202012::new(&types::workflow()).unwrap();
    schema.iter_errors(document).map(|error| format!("{}: {error}", error.instance_path())).collect()
}

/// A YAML text as JSON. Enough of YAML for tests: no anchors, no tags.
fn json_of(text: &str) -> Json {
    fn value<'i>(parser: &mut Parser<'i, granit_parser::StrInput<'i>>, event: Event<'i>) -> Json {
        let next = |parser: &mut Parser<'i, granit_parser::StrInput<'i>>| loop {
            match parser.next_event() {
                Some(Ok((Event::Comment(..), _))) => {}
                Some(Ok((event, _))) => return event,
                other => panic!("{other:?}"),
            }
        };
        match event {
            Event::Scalar(text, ScalarStyle::Plain, ..) => {
                serde_json::from_str(&text).unwrap_or_else(|_| json!(if text == "~" { "" } else { &*text }))
            }
            Event::Scalar(text, ..) => json!(&*text),
            Event::SequenceStart(..) => {
                let mut items = Vec::new();
                loop {
                    match next(parser) {
                        Event::SequenceEnd => return Json::Array(items),
                        event => items.push(value(parser, event)),
                    }
                }
            }
            Event::MappingStart(..) => {
                let mut map = Map::new();
                loop {
                    match next(parser) {
                        Event::MappingEnd => return Json::Object(map),
                        Event::Scalar(key, ..) => {
                            let event = next(parser);
                            map.insert(key.to_string(), value(parser, event));
                        }
                        other => panic!("{other:?}"),
                    }
                }
            }
            other => panic!("{other:?}"),
        }
    }
    let mut parser = Parser::new_from_str(text);
    loop {
        match parser.next_event() {
            Some(Ok((Event::StreamStart | Event::DocumentStart(..) | Event::Comment(..), _))) => {}
            Some(Ok((event, _))) => {
                return value(&mut parser, event);
            }
            other => panic!("{other:?}"),
        }
    }
}

fn compiles(text: &str) -> Result<Json, Vec<&'static str>> {
    let found = compile(text.as_bytes(), Format::detect(text.as_bytes()), &Options::default());
    let found = found.map_err(|found| found.errors.iter().map(|error| error.code).collect::<Vec<_>>())?;
    Ok(serde_json::from_str(&found.canonical).unwrap())
}

#[test]
fn every_example_fits_as_written_and_in_its_canonical_form() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/examples");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            let text = std::fs::read_to_string(&path).unwrap();
            let canonical = compiles(&text).unwrap();
            assert_eq!(against(&json_of(&text)), [""; 0], "{}", path.display());
            assert_eq!(against(&canonical), [""; 0], "{}, canonical", path.display());
            seen += 1;
        }
    }
    assert!(seen >= 6, "{seen}");
}

/// Every spelling and every key.
const RIGHT: [&str; 10] = [
    r#"{"nodes": {"a": {"type": "function"}}}"#,
    r#"{"aob": "1", "name": "n", "version": 1.0, "metadata": {"x": [1]}, "inputs": {"type": "object", "properties": {"topic": {}}}, "retention": "7d",
        "defaults": {"timeout": 60, "retry": {"max_attempts": 3, "backoff": "linear", "initial": "1s", "max": "PT1M", "multiplier": 1.5, "jitter": false}},
        "limits": {"deadline": "2h", "agents": 5, "nodes": 500}, "patches": {"allow": ["agent"]}, "agents": {"r": {"model": "m"}},
        "nodes": {"a": {"type": "agent", "with": {"role": "r", "task": "Look at {topic}", "tools": ["patch"], "max_turns": 3}, "outputs": ["o"],
                        "output_schema": {"type": "object"}, "retry": {"max_retries": 2}, "timeout": "1m", "priority": "high",
                        "on_error": "continue", "fallback": {"value": 1}, "at_most_once": true, "metadata": 1, "x-own": {}}},
        "outputs": {"o": "${ outputs.o }"}, "x-any": 1}"#,
    r#"{"nodes": {"a": {"type": "agent", "with": {"embed": ["x", "${ inputs.y }"], "dimensions": 8, "capture": "none"}},
                  "b": {"type": "agent", "with": {"role": "r", "embed": "${ inputs.all }"}}}}"#,
    r#"{"nodes": [{"id": "a", "type": "function"}, {"id": "b", "type": "join", "with": {"wait": {"at_least": 1}, "merge": {"cel": "input"}}}],
        "edges": [{"from": "a", "to": "b", "when": true, "metadata": {}}]}"#,
    r#"{"nodes": {"a": {"type": "function"}, "b": {"type": "function", "on_error": {"goto": "c"}}, "c": {"type": "function", "needs": ["a"]}},
        "edges": {"a/b": {}, "a/c:error": {"from": "a", "to": "c", "on": "error"}}}"#,
    r#"{"nodes": {"m": {"type": "map", "with": {"over": "[1]", "max_concurrency": 8, "on_item_error": "skip",
                        "body": {"nodes": {"x": {"type": "function"}}, "edges": null, "outputs": "${ nodes.x.output }"}}},
                  "l": {"type": "loop", "with": {"while": "iteration < 3", "max_iterations": 3, "on_exhausted": "continue", "body": {"type": "function"}}},
                  "p": {"type": "parallel", "with": {"branches": {"one": {"type": "delay", "with": {"for": 1}}, "two": {"nodes": {"x": {"type": "function"}}}}}},
                  "c": {"type": "composite", "with": {"workflow": "other@1", "parent_close": "abandon"}},
                  "d": {"type": "composite", "with": {"body": {"type": "function"}}, "fallback": {"type": "function"}},
                  "s": {"type": "conditional", "with": {"branches": [{"name": "yes", "when": "true"}], "default": "no"}}, "no": {"type": "function"}}}"#,
    r#"{"nodes": {"r": {"type": "approval", "with": {"reviewers": ["a"], "timeout": "1h", "escalate": [{"after": "30m", "to": ["b"]}],
                        "on_timeout": "reject", "form": {"type": "object"}, "data": {"a": 1}}},
                  "w": {"type": "wait", "with": {"signal": "s", "timeout": 5}}, "u": {"type": "delay", "with": {"until": "2030-01-01T00:00:00Z"}},
                  "h": {"type": "http_request", "with": {"method": "POST", "url": "https://x", "query": {"a": 1}, "headers": {"k": "${secret:K}"}, "body": {}, "expect": [200, "2xx"]}},
                  "t": {"type": "task", "with": {"queue": "q", "payload": [1]}, "retry": {"max_attempts": 3, "backoff_base": 2.0, "max_backoff": 60}}}}"#,
    r#"{"name": "s", "version": 1.0, "steps": [
        {"id": "a", "type": "agent_task", "agent_role": "r", "task": "do", "outputs": ["x"], "next_steps": ["c"], "retry_policy": {"max_retries": 2}},
        {"id": "c", "type": "conditional", "condition": "true", "next_steps": ["d", "e"], "outputs": 5},
        {"id": "d", "type": "function"}, {"id": "e", "type": "human_review", "task": "look", "timeout": "5m", "on_error": "fail", "with": {}}]}"#,
    r#"{"steps": [{"id": "a", "type": "function", "x-own": 1}, {"id": "b", "type": "loop", "condition": "iteration < 2", "max_iterations": 2, "with": {"body": {"type": "function"}}}]}"#,
    r#"{"nodes": {"a": {"type": "function", "cache": {"policy": "off", "ttl": "1h"}}}, "inputs": true}"#,
];

#[test]
fn what_compiles_fits_in_every_spelling() {
    for text in RIGHT {
        let canonical = compiles(text).unwrap_or_else(|codes| panic!("{codes:?}: {text}"));
        assert_eq!(against(&serde_json::from_str(text).unwrap()), [""; 0], "{text}");
        assert_eq!(against(&canonical), [""; 0], "canonical form of {text}");
    }
}

#[test]
fn shapes_that_the_schema_refuses_the_compiler_refuses_too() {
    for (text, code) in [
        (r#"{"nodes": {}}"#, "empty_nodes"),
        (r#"{"nodes": {"a": {"type": "function"}}, "nods": 1}"#, "unknown_key"),
        (r#"{"aob": 1, "nodes": {"a": {"type": "function"}}}"#, "language_version"),
        (r#"{"name": "a b", "nodes": {"a": {"type": "function"}}}"#, "invalid_name"),
        (r#"{"nodes": {"a b": {"type": "function"}}}"#, "node_id"),
        (r#"{"nodes": {"a": {}}}"#, "missing_key"),
        (r#"{"nodes": {"a": {"type": "funktion"}}}"#, "unknown_kind"),
        (r#"{"nodes": {"a": {"type": "function", "ouputs": []}}}"#, "unknown_key"),
        (r#"{"nodes": {"a": {"type": "function", "outputs": "x"}}}"#, "wrong_type"),
        (r#"{"nodes": {"a": {"type": "function", "outputs": ["x", "x"]}}}"#, "duplicate_output"),
        (r#"{"nodes": {"a": {"type": "function", "priority": "urgent"}}}"#, "unknown_value"),
        (r#"{"nodes": {"a": {"type": "function", "on_error": "ignore"}}}"#, "unknown_value"),
        (r#"{"nodes": {"a": {"type": "function", "on_error": {"got": "b"}}}}"#, "unknown_key"),
        (r#"{"nodes": {"a": {"type": "task", "timeout": "5 minutes"}}}"#, "duration"),
        (r#"{"nodes": {"a": {"type": "task", "timeout": null}}}"#, "duration"),
        (r#"{"nodes": {"a": {"type": "task", "retry": {"max_attempts": 0}}}}"#, "out_of_range"),
        (r#"{"nodes": {"a": {"type": "task", "retry": {"backoff": "slow"}}}}"#, "unknown_value"),
        (r#"{"nodes": {"a": {"type": "task", "with": {"que": "q"}}}}"#, "unknown_key"),
        (r#"{"nodes": {"a": {"type": "map"}}}"#, "missing_key"),
        (r#"{"nodes": {"a": {"type": "map", "with": {"over": "[1]"}}}}"#, "missing_key"),
        (
            r#"{"nodes": {"a": {"type": "map", "with": {"over": "[1]", "body": {"nodes": {"x": {"type": "nothing"}}}}}}}"#,
            "unknown_kind",
        ),
        (
            r#"{"nodes": {"a": {"type": "map", "with": {"over": [1], "body": {"type": "function"}}}}}"#,
            "wrong_type",
        ),
        (
            r#"{"nodes": {"a": {"type": "loop", "with": {"while": "true", "body": {"type": "function"}}}}}"#,
            "missing_key",
        ),
        (r#"{"nodes": {"a": {"type": "parallel", "with": {"branches": {}}}}}"#, "parallel_branches_max"),
        (r#"{"nodes": {"a": {"type": "composite", "with": {}}}}"#, "missing_key"),
        (r#"{"nodes": {"a": {"type": "delay", "with": {"for": 1, "until": "x"}}}}"#, "missing_key"),
        (r#"{"nodes": {"a": {"type": "wait", "with": {}}}}"#, "missing_key"),
        (r#"{"nodes": {"a": {"type": "join", "with": {"wait": "some"}}}}"#, "unknown_value"),
        (
            r#"{"nodes": {"a": {"type": "conditional", "with": {"branches": [{"when": "true"}]}}}}"#,
            "missing_key",
        ),
        (r#"{"nodes": [{"type": "function"}]}"#, "missing_key"),
        (r#"{"nodes": {"a": {"type": "function"}}, "edges": [{"from": "a"}]}"#, "missing_key"),
        (r#"{"nodes": {"a": {"type": "function"}}, "edges": 5}"#, "wrong_type"),
        (r#"{"nodes": {"a": {"type": "function"}}, "outputs": []}"#, "wrong_type"),
        (r#"{"steps": []}"#, "empty_nodes"),
        (r#"{"steps": [{"type": "function"}]}"#, "missing_key"),
        (r#"{"steps": [{"id": "a", "type": "function", "nextsteps": []}]}"#, "unknown_key"),
        (r#"{"steps": [{"id": "a", "type": "function", "outputs": 5}]}"#, "wrong_type"),
        (r#"{"steps": [{"id": "a", "type": "function"}], "nodes": {}}"#, "unknown_key"),
    ] {
        let codes = compiles(text).expect_err(text);
        assert!(codes.contains(&code), "{codes:?} for {text}");
        assert_ne!(against(&serde_json::from_str(text).unwrap()), [""; 0], "the schema lets {text} through");
    }
}

#[test]
fn what_only_the_compiler_can_know_fits() {
    for (text, code) in [
        (r#"{"nodes": {"a": {"type": "function", "needs": ["b"]}}}"#, "dangling_edge"),
        (r#"{"nodes": {"a": {"type": "function", "with": {"expr": "1 +"}}}}"#, "expression_syntax"),
        (
            r#"{"nodes": {"a": {"type": "function", "needs": ["b"]}, "b": {"type": "function", "needs": ["a"]}}}"#,
            "cycle",
        ),
    ] {
        assert!(compiles(text).expect_err(text).contains(&code), "{text}");
        assert_eq!(against(&serde_json::from_str(text).unwrap()), [""; 0], "{text}");
    }
}

#[test]
fn editors_are_told_what_keys_mean() {
    let schema = types::workflow();
    let of = |pointer: &str| schema.pointer(pointer).unwrap_or_else(|| panic!("{pointer}")).clone();
    assert_eq!(of("/$schema"), "https://json-schema.org/draft/2020-12/schema");
    assert!(of("/$defs/Node/properties/needs/description").as_str().unwrap().starts_with("Nodes before it"));
    assert!(of("/$defs/Map/properties/over/description").as_str().unwrap().starts_with("The list"));
    assert_eq!(of("/$defs/Map/patternProperties"), json!({"^x-": true}));
    let text = schema.to_string();
    assert!(!text.contains("\"null\"]") || text.matches("\"null\"]").count() <= 2, "keys may not be null");
}
