//! Which event says what (F335 to F345), held to the table of docs/agents.md; and edges, named where they can be.

use serde_json::Value as Json;

use super::*;
use crate::compile::{self, Compiled, Format, Options};
use crate::model::agent::{Answer, Capture, Quote, Returned, Stop, ToolCall};
use crate::model::money::{Tokens, Usd};
use crate::model::{Failure, Place, Value};
use crate::time::Timestamp;
use crate::wire::event::Row;

fn graph() -> Compiled {
    let text = br#"{"name": "w", "nodes": {"a": {"type": "function"}, "b": {"type": "function"}, "c": {"type": "function"}},
        "edges": [{"from": "a", "to": "b"}, {"from": "a", "to": "c", "on": "error"}]}"#;
    let options = Options { file: None, name: None, version: None, require_name: true };
    compile::compile(text, Format::Json, &options).unwrap()
}

/// The row of an event about the node `a`, with its edges and its summary.
fn row(body: EventBody, patched: bool) -> Json {
    let event = Event { seq: 7, at: Timestamp::from_micros(0), body };
    let compiled = graph();
    let row = Row { seq: event.seq, at: event.at, node: event.body.place().map(|_| "a"), body: &event.body };
    let text = String::from_utf8(crate::wire::to_json(&row)).unwrap();
    let row = RawValue::from_string(text).unwrap();
    let wanted = Wanted { edges: true, summaries: true, told: None };
    let graph: &Ir = &compiled.ir;
    serde_json::from_str(widened(row, &event, (Some(graph), patched), &wanted).get()).unwrap()
}

fn place() -> Place {
    let nodes = graph().ir.root().nodes.iter().position(|node| &*node.id == "a").unwrap();
    Place::root(u32::try_from(nodes).unwrap())
}

fn samples() -> Vec<Json> {
    let call =
        ToolCall { id: "c1".into(), name: "find".into(), arguments: Value::string("x"), refused: None };
    let answer = Answer {
        model: "big".into(),
        provider: "p".into(),
        answered_by: "big-1".into(),
        response_id: "r1".into(),
        content: "found".into(),
        calls: vec![call.clone()],
        stop: Stop::Tools,
        tokens: Tokens { input: 3, output: 2, cache_read: 1, cache_write: 1 },
        measured: true,
        cost: Some(Usd::from_nanos(5)),
        took_ms: 9,
    };
    let returned = |name: &str, outcome| Returned { id: name.into(), name: name.into(), outcome, took_ms: 4 };
    let failure = || Failure::transient("timeout", "too late");
    let results = vec![returned("find", Ok(Value::string("y"))), returned("lose", Err(failure()))];
    let (place, capture) = (place(), Capture::Full);
    let quote = Box::new(Quote { model: "big".into(), cost: Some(Usd::from_nanos(9)), tokens: 40 });
    let events = [
        EventBody::NodeStarted { place: place.clone(), attempt: 1 },
        EventBody::NodeCompleted {
            place: place.clone(),
            output: Value::string("done"),
            edges: [true, false].into_iter().collect(),
        },
        EventBody::NodeFailed {
            place: place.clone(),
            failure: failure(),
            edges: [false, true].into_iter().collect(),
            continued: false,
        },
        EventBody::NodeSkipped { place: place.clone() },
        EventBody::ModelCalled { place: place.clone(), quote },
        EventBody::ModelAnswered { place: place.clone(), answer: Box::new(answer), capture },
        EventBody::ToolCalled { place: place.clone(), calls: vec![call], capture },
        EventBody::ToolReturned { place, results, capture },
    ];
    events.into_iter().map(|body| row(body, false)).collect()
}

/// The rows of the table: what, event, members, name in OpenTelemetry.
fn table() -> Vec<[String; 4]> {
    let text = include_str!("../../docs/agents.md");
    let (_, part) = text.split_once("## What is recorded of what").unwrap();
    let rows =
        part.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    let cells = |line: &str| {
        let cells: Vec<String> =
            line.trim_matches('|').split('|').map(|cell| cell.trim().replace('`', "")).collect();
        <[String; 4]>::try_from(cells).unwrap_or_else(|cells| panic!("{cells:?}"))
    };
    rows.skip(2).map(cells).collect()
}

// F335, F336, F337, F338, F339, F343, F344, F345
#[test]
fn every_row_of_the_table_of_what_is_recorded_is_a_member_of_its_event() {
    let (table, samples) = (table(), samples());
    for [what, event, members, _] in &table {
        let sample = samples.iter().find(|sample| sample["type"] == event.as_str());
        let sample = sample.unwrap_or_else(|| panic!("{what}: no event {event}"));
        for member in members.split(", ") {
            let pointer = format!("/{}", member.replace("[]", ".0").replace('.', "/"));
            let value = sample.pointer(&pointer);
            assert!(value.is_some_and(|value| !value.is_null()), "{what}: {pointer} of {sample}");
        }
    }
    let whats: Vec<&str> = table.iter().map(|[what, ..]| what.as_str()).collect();
    for needed in [
        "a step begins",
        "a step ends",
        "a step fails",
        "a tool is used",
        "a tool has returned",
        "cost",
        "transitions",
    ] {
        assert!(whats.contains(&needed), "{needed} is in no row");
    }
    let names: Vec<&str> = table.iter().map(|[.., name]| name.as_str()).collect();
    for needed in [
        "gen_ai.provider.name",
        "gen_ai.request.model",
        "gen_ai.response.model",
        "gen_ai.response.id",
        "gen_ai.response.finish_reasons",
        "gen_ai.usage.input_tokens",
        "gen_ai.usage.output_tokens",
        "gen_ai.tool.name",
        "gen_ai.tool.call.id",
        "error.type",
    ] {
        assert!(
            names.iter().any(|name| name.split(", ").any(|name| name == needed)),
            "{needed} is in no row"
        );
    }
}

// F345
#[test]
fn edges_are_told_with_their_verdicts_and_with_their_names_unless_a_patch_may_have_moved_them() {
    let samples = samples();
    let of = |kind: &str| samples.iter().find(|sample| sample["type"] == kind).unwrap();
    let told = |first: bool, second: bool| serde_json::json!([{"to": "b", "on": "success", "live": first}, {"to": "c", "on": "error", "live": second}]);
    assert_eq!(of("node.completed")["edges"], told(true, false));
    assert_eq!(of("node.failed")["edges"], told(false, true));
    assert_eq!(of("node.skipped")["edges"], told(false, false));
    assert_eq!(of("node.started").get("edges"), None);
    assert_eq!(of("node.failed")["summary"], "a failed with timeout");
    let body = EventBody::NodeCompleted {
        place: place(),
        output: Value::Null,
        edges: [true, false].into_iter().collect(),
    };
    assert_eq!(row(body, true)["edges"], serde_json::json!([{"live": true}, {"live": false}]));
}

#[test]
fn a_row_is_as_it_was_when_nothing_more_is_asked_for() {
    let event = Event { seq: 1, at: Timestamp::from_micros(0), body: EventBody::RunResumed };
    let row = RawValue::from_string(r#"{"seq":1}"#.into()).unwrap();
    let same = widened(row, &event, (None, false), &Wanted::default());
    assert_eq!(same.get(), r#"{"seq":1}"#);
}
