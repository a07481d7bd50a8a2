//! What a document may cost: expressions, schemas, steps.

use std::time::Duration;

use super::*;
use crate::limits;
use crate::time::{Clock as _, SystemClock};

/// Far above what is meant (200 ms on a core of its own), for this one may be shared and its code is not optimised.
const LONG: Duration = Duration::from_secs(5);

fn soon<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let start = SystemClock.monotonic_us();
    let done = work();
    let took = Duration::from_micros(SystemClock.monotonic_us() - start);
    println!("{what}: {took:?}");
    assert!(took < LONG, "{what} took {took:?}");
    done
}

fn timed(what: &str, text: &str) -> Result<Compiled, Diagnostics> {
    soon(what, || json(text))
}

fn document(exprs: impl Iterator<Item = String>) -> String {
    let nodes: Vec<String> = (0..)
        .zip(exprs)
        .map(|(n, expr)| {
            format!(
                "\"n{n}\":{{\"type\":\"function\",\"with\":{{\"expr\":{}}}}}",
                Value::string(expr).to_json()
            )
        })
        .collect();
    format!("{{\"nodes\":{{{}}}}}", nodes.join(","))
}

#[test]
fn all_expressions_of_a_document_are_bounded_together() {
    let short = |count: usize| document((0..count).map(|n| format!("{n}")));
    assert!(timed("as many as there may be", &short(limits::EXPRESSIONS_MAX)).is_ok());
    let refused = timed("one more", &short(limits::EXPRESSIONS_MAX + 4_000)).unwrap_err();
    let codes: Vec<&str> = refused.errors.iter().map(|found| found.code).collect();
    assert_eq!(codes, ["expressions_max"], "said once");
    // Large ones, some of the kind that takes long.
    for unit in ["1+", "[1,2].size()+", "(((((1)))))+", "inputs.a.b.c.d+", "{'a':{'b':1}}.a.b+"] {
        let count = 240 / unit.matches(['+', '.', '(']).count();
        let long = format!("{}1", unit.repeat(count));
        let many = limits::EXPRESSIONS_BYTES_MAX / (long.len() + 7);
        let text = document((0..many).map(|n| format!("{long}+{n:05}")));
        drop(timed(unit, &text));
    }
    let long = format!("'{}'", "x".repeat(limits::EXPRESSION_BYTES_MAX - 10));
    let text = document((0..60).map(|n| format!("{long}+'{n:02}'")));
    let refused = timed("too many bytes", &text).unwrap_err();
    assert_eq!(refused.errors[0].code, "expressions_bytes_max");
    // What stands in many places is parsed once.
    assert!(timed("one in many", &document((0..3_000).map(|_| "inputs.x + 1".into()))).is_ok());
}

#[test]
fn a_schema_whose_references_double_is_refused() {
    let chain = |at: &str| {
        let mut schema = String::from("{\"$ref\":\"#/$defs/a0\",\"$defs\":{");
        for level in 0..40 {
            let next = format!("{{\"$ref\":\"#/$defs/a{}\"}}", level + 1);
            let applied = at.replace("NEXT", &next);
            schema.push_str(&format!("\"a{level}\":{applied},"));
        }
        schema + "\"a40\":{\"type\":\"integer\"}}}"
    };
    for at in [
        "{\"allOf\":[NEXT,NEXT]}",
        "{\"anyOf\":[NEXT,{\"not\":NEXT}]}",
        "{\"items\":NEXT,\"contains\":NEXT}",
        "{\"properties\":{\"a\":NEXT},\"patternProperties\":{\"a\":NEXT}}",
        "{\"if\":NEXT,\"then\":NEXT,\"else\":NEXT}",
    ] {
        for place in ["inputs", "output_schema"] {
            let schema = chain(at);
            let text = match place {
                "inputs" => format!("{{\"inputs\":{schema},\"nodes\":{{\"a\":{{\"type\":\"function\"}}}}}}"),
                _ => format!("{{\"nodes\":{{\"a\":{{\"type\":\"function\",\"output_schema\":{schema}}}}}}}"),
            };
            let refused = timed(at, &text).unwrap_err();
            assert_eq!(refused.errors[0].code, "schema_visits_max", "{at}");
        }
    }
    // Through itself, from level to level of the value.
    let itself = r##"{"nodes":{"a":{"type":"function","output_schema":{"properties":{"a":{"allOf":[{"$ref":"#"},{"$ref":"#"}]}}}}}}"##;
    assert_eq!(timed("itself", itself).unwrap_err().errors[0].code, "schema_visits_max");
}

#[test]
fn patterns_of_a_schema_are_bounded() {
    let schema = |count: usize, pattern: &str| {
        let properties: Vec<String> = (0..count)
            .map(|n| format!("\"p{n}\":{{\"pattern\":{}}}", Value::string(format!("{pattern}{n}")).to_json()))
            .collect();
        format!(
            "{{\"inputs\":{{\"properties\":{{{}}}}},\"nodes\":{{\"a\":{{\"type\":\"function\"}}}}}}",
            properties.join(",")
        )
    };
    assert!(timed("patterns", &schema(limits::SCHEMA_PATTERNS_MAX, "^[a-z]{3}\\w+")).is_ok());
    let refused = timed("too many", &schema(limits::SCHEMA_PATTERNS_MAX + 1, "a")).unwrap_err();
    assert_eq!(refused.errors[0].code, "schema_patterns_max");
    for large in ["(\\w{50}){50}", "(a{99}){99}"] {
        let refused = timed("a large one", &schema(1, large)).unwrap_err();
        assert_eq!(refused.errors[0].code, "inputs_schema", "{large}");
    }
    let many = limits::SCHEMA_BYTES_MAX / 30;
    let plain = schema(many, "").replace("\"pattern\":", "\"title\":");
    drop(timed("as large as a schema may be", &plain));
}

#[test]
fn a_schema_of_a_tree_is_no_such_thing() {
    for schema in [
        "{properties: {left: {$ref: '#'}, right: {$ref: '#'}}}",
        "{anyOf: [{type: string}, {type: array, items: {$ref: '#'}}, {type: object, additionalProperties: {$ref: '#'}}]}",
        "{$ref: '#/$defs/a~1b', $defs: {a/b: {type: object, properties: {n: {$ref: '#/$defs/a~1b'}}}}}",
        "{prefixItems: [{$ref: '#'}, {$ref: '#'}]}",
    ] {
        let compiled = good(&format!("inputs: {schema}\nnodes: {{a: {{type: function}}}}"));
        let mut deep = Value::Int(1);
        for _ in 0..60 {
            deep = Value::map([("left", deep.clone())]);
        }
        let _ = soon(schema, || compiled.inputs.check(&deep));
    }
    let properties: String = (0..9_000).map(|n| format!("p{n}: {{type: integer}},")).collect();
    let large = format!("inputs: {{properties: {{{properties}}}}}\nnodes: {{a: {{type: function}}}}");
    let refused = yaml(&large).unwrap_err();
    assert_eq!(refused.errors[0].code, "schema_bytes_max");
}
