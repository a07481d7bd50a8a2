//! RFC 6902, appendix A, example by example, and what its sections say beyond them. Paths are restricted, so every document
//! stands under `/metadata`.

use super::*;

/// Document, operations, and the document that follows; `Err` holds the code.
type Example = (&'static str, &'static str, &'static str, Result<&'static str, &'static str>);

const EXAMPLES: &[Example] = &[
    (
        "A.1. Adding an Object Member",
        r#"{"foo": "bar"}"#,
        r#"[{"op": "add", "path": "/baz", "value": "qux"}]"#,
        Ok(r#"{"baz": "qux", "foo": "bar"}"#),
    ),
    (
        "A.2. Adding an Array Element",
        r#"{"foo": ["bar", "baz"]}"#,
        r#"[{"op": "add", "path": "/foo/1", "value": "qux"}]"#,
        Ok(r#"{"foo": ["bar", "qux", "baz"]}"#),
    ),
    (
        "A.3. Removing an Object Member",
        r#"{"baz": "qux", "foo": "bar"}"#,
        r#"[{"op": "remove", "path": "/baz"}]"#,
        Ok(r#"{"foo": "bar"}"#),
    ),
    (
        "A.4. Removing an Array Element",
        r#"{"foo": ["bar", "qux", "baz"]}"#,
        r#"[{"op": "remove", "path": "/foo/1"}]"#,
        Ok(r#"{"foo": ["bar", "baz"]}"#),
    ),
    (
        "A.5. Replacing a Value",
        r#"{"baz": "qux", "foo": "bar"}"#,
        r#"[{"op": "replace", "path": "/baz", "value": "boo"}]"#,
        Ok(r#"{"baz": "boo", "foo": "bar"}"#),
    ),
    (
        "A.6. Moving a Value",
        r#"{"foo": {"bar": "baz", "waldo": "fred"}, "qux": {"corge": "grault"}}"#,
        r#"[{"op": "move", "from": "/foo/waldo", "path": "/qux/thud"}]"#,
        Ok(r#"{"foo": {"bar": "baz"}, "qux": {"corge": "grault", "thud": "fred"}}"#),
    ),
    (
        "A.7. Moving an Array Element",
        r#"{"foo": ["all", "grass", "cows", "eat"]}"#,
        r#"[{"op": "move", "from": "/foo/1", "path": "/foo/3"}]"#,
        Ok(r#"{"foo": ["all", "cows", "eat", "grass"]}"#),
    ),
    (
        "A.8. Testing a Value: Success",
        r#"{"baz": "qux", "foo": ["a", 2, "c"]}"#,
        r#"[{"op": "test", "path": "/baz", "value": "qux"}, {"op": "test", "path": "/foo/1", "value": 2}]"#,
        Ok(r#"{"baz": "qux", "foo": ["a", 2, "c"]}"#),
    ),
    (
        "A.9. Testing a Value: Error",
        r#"{"baz": "qux"}"#,
        r#"[{"op": "test", "path": "/baz", "value": "bar"}]"#,
        Err("patch_test_failed"),
    ),
    (
        "A.10. Adding a Nested Member Object",
        r#"{"foo": "bar"}"#,
        r#"[{"op": "add", "path": "/child", "value": {"grandchild": {}}}]"#,
        Ok(r#"{"foo": "bar", "child": {"grandchild": {}}}"#),
    ),
    (
        "A.11. Ignoring Unrecognized Elements",
        r#"{"foo": "bar"}"#,
        r#"[{"op": "add", "path": "/baz", "value": "qux", "xyz": 123}]"#,
        Ok(r#"{"foo": "bar", "baz": "qux"}"#),
    ),
    (
        "A.12. Adding to a Nonexistent Target",
        r#"{"foo": "bar"}"#,
        r#"[{"op": "add", "path": "/baz/bat", "value": "qux"}]"#,
        Err("patch_path_missing"),
    ),
    (
        "A.14. ~ Escape Ordering",
        r#"{"/": 9, "~1": 10}"#,
        r#"[{"op": "test", "path": "/~01", "value": 10}]"#,
        Ok(r#"{"/": 9, "~1": 10}"#),
    ),
    (
        "A.15. Comparing Strings and Numbers",
        r#"{"/": 9, "~1": 10}"#,
        r#"[{"op": "test", "path": "/~01", "value": "10"}]"#,
        Err("patch_test_failed"),
    ),
    (
        "A.16. Adding an Array Value",
        r#"{"foo": ["bar"]}"#,
        r#"[{"op": "add", "path": "/foo/-", "value": ["abc", "def"]}]"#,
        Ok(r#"{"foo": ["bar", ["abc", "def"]]}"#),
    ),
];

/// What the sections say, and what goes wrong, for each of the six.
const SECTIONS: &[Example] = &[
    (
        "4.1 add replaces a member",
        "{\"a\": 1}",
        r#"[{"op": "add", "path": "/a", "value": 2}]"#,
        Ok("{\"a\": 2}"),
    ),
    (
        "4.1 add of the whole",
        "{\"a\": 1}",
        r#"[{"op": "add", "path": "", "value": {"b": 1}}]"#,
        Ok("{\"b\": 1}"),
    ),
    (
        "4.1 add at the end",
        "{\"a\": [1]}",
        r#"[{"op": "add", "path": "/a/1", "value": 2}]"#,
        Ok("{\"a\": [1, 2]}"),
    ),
    ("4.1 add null", "{}", r#"[{"op": "add", "path": "/a", "value": null}]"#, Ok("{\"a\": null}")),
    ("4.1 add under the empty key", "{}", r#"[{"op": "add", "path": "/", "value": 1}]"#, Ok("{\"\": 1}")),
    (
        "4.1 add beyond the end",
        "{\"a\": [1]}",
        r#"[{"op": "add", "path": "/a/2", "value": 2}]"#,
        Err("patch_path_missing"),
    ),
    (
        "4.1 add at no number",
        "{\"a\": [1]}",
        r#"[{"op": "add", "path": "/a/x", "value": 2}]"#,
        Err("patch_path_missing"),
    ),
    (
        "4.1 add at 01",
        "{\"a\": [1]}",
        r#"[{"op": "add", "path": "/a/01", "value": 2}]"#,
        Err("patch_path_missing"),
    ),
    (
        "4.1 add at -1",
        "{\"a\": [1]}",
        r#"[{"op": "add", "path": "/a/-1", "value": 2}]"#,
        Err("patch_path_missing"),
    ),
    (
        "4.1 add into a text",
        "{\"a\": \"b\"}",
        r#"[{"op": "add", "path": "/a/b", "value": 2}]"#,
        Err("patch_path_missing"),
    ),
    ("4.2 remove what is not there", "{}", r#"[{"op": "remove", "path": "/a"}]"#, Err("patch_path_missing")),
    (
        "4.2 remove beyond the end",
        "{\"a\": [1]}",
        r#"[{"op": "remove", "path": "/a/1"}]"#,
        Err("patch_path_missing"),
    ),
    (
        "4.2 remove past the last",
        "{\"a\": [1]}",
        r#"[{"op": "remove", "path": "/a/-"}]"#,
        Err("patch_path_missing"),
    ),
    (
        "4.2 remove of the whole",
        "{\"a\": 1}",
        r#"[{"op": "remove", "path": ""}, {"op": "add", "path": "", "value": {}}]"#,
        Ok("{}"),
    ),
    (
        "4.3 replace of the whole",
        "{\"a\": 1}",
        r#"[{"op": "replace", "path": "", "value": {"b": 1}}]"#,
        Ok("{\"b\": 1}"),
    ),
    (
        "4.3 replace what is not there",
        "{}",
        r#"[{"op": "replace", "path": "/a", "value": 1}]"#,
        Err("patch_path_missing"),
    ),
    (
        "4.3 replace past the last",
        "{\"a\": [1]}",
        r#"[{"op": "replace", "path": "/a/-", "value": 1}]"#,
        Err("patch_path_missing"),
    ),
    (
        "4.3 replace changes the type",
        "{\"a\": [1]}",
        r#"[{"op": "replace", "path": "/a", "value": "b"}]"#,
        Ok("{\"a\": \"b\"}"),
    ),
    (
        "4.4 move onto itself",
        "{\"a\": 1}",
        r#"[{"op": "move", "from": "/a", "path": "/a"}]"#,
        Ok("{\"a\": 1}"),
    ),
    (
        "4.4 move onto another",
        "{\"a\": 1, \"b\": 2}",
        r#"[{"op": "move", "from": "/a", "path": "/b"}]"#,
        Ok("{\"b\": 1}"),
    ),
    (
        "4.4 move next to a longer name",
        "{\"a\": 1, \"ab\": {}}",
        r#"[{"op": "move", "from": "/a", "path": "/ab/c"}]"#,
        Ok("{\"ab\": {\"c\": 1}}"),
    ),
    (
        "4.4 move what is not there",
        "{}",
        r#"[{"op": "move", "from": "/a", "path": "/b"}]"#,
        Err("patch_path_missing"),
    ),
    (
        "4.4 move to nowhere",
        "{\"a\": 1}",
        r#"[{"op": "move", "from": "/a", "path": "/b/c"}]"#,
        Err("patch_path_missing"),
    ),
    (
        "4.4 move into itself",
        "{\"a\": {}}",
        r#"[{"op": "move", "from": "/a", "path": "/a/b"}]"#,
        Err("patch_path"),
    ),
    (
        "4.5 copy",
        "{\"a\": [1]}",
        r#"[{"op": "copy", "from": "/a", "path": "/b"}]"#,
        Ok("{\"a\": [1], \"b\": [1]}"),
    ),
    (
        "4.5 copy into itself",
        "{\"a\": {}}",
        r#"[{"op": "copy", "from": "/a", "path": "/a/b"}]"#,
        Ok("{\"a\": {\"b\": {}}}"),
    ),
    (
        "4.5 copy what is not there",
        "{}",
        r#"[{"op": "copy", "from": "/a", "path": "/b"}]"#,
        Err("patch_path_missing"),
    ),
    (
        "4.5 copy to nowhere",
        "{\"a\": 1}",
        r#"[{"op": "copy", "from": "/a", "path": "/b/c"}]"#,
        Err("patch_path_missing"),
    ),
    (
        "4.6 test of numbers",
        "{\"a\": 1}",
        r#"[{"op": "test", "path": "/a", "value": 1.0}]"#,
        Ok("{\"a\": 1}"),
    ),
    (
        "4.6 test of an object",
        "{\"a\": {\"b\": 1, \"c\": [2]}}",
        r#"[{"op": "test", "path": "/a", "value": {"c": [2], "b": 1e0}}]"#,
        Ok("{\"a\": {\"b\": 1, \"c\": [2]}}"),
    ),
    (
        "4.6 test of an array",
        "{\"a\": [1, 2]}",
        r#"[{"op": "test", "path": "/a", "value": [2, 1]}]"#,
        Err("patch_test_failed"),
    ),
    (
        "4.6 test of null",
        "{\"a\": null}",
        r#"[{"op": "test", "path": "/a", "value": null}]"#,
        Ok("{\"a\": null}"),
    ),
    (
        "4.6 test for null of what is not there",
        "{}",
        r#"[{"op": "test", "path": "/a", "value": null}]"#,
        Err("patch_path_missing"),
    ),
    (
        "4.6 test of false",
        "{\"a\": 0}",
        r#"[{"op": "test", "path": "/a", "value": false}]"#,
        Err("patch_test_failed"),
    ),
    (
        "3. in order",
        "{}",
        r#"[{"op": "add", "path": "/a", "value": {}}, {"op": "add", "path": "/a/b", "value": 1}, {"op": "move", "from": "/a/b", "path": "/c"}]"#,
        Ok("{\"a\": {}, \"c\": 1}"),
    ),
    (
        "5. the last fails",
        "{\"a\": 1}",
        r#"[{"op": "replace", "path": "/a", "value": 2}, {"op": "test", "path": "/a", "value": 1}]"#,
        Err("patch_test_failed"),
    ),
];

/// The operations with every path below `/metadata`.
fn below(operations: &str) -> Value {
    let Value::List(items) = value(operations) else { panic!("{operations}") };
    let moved = items.iter().map(|item| {
        let Value::Map(members) = item else { panic!("{operations}") };
        Value::map(members.iter().map(|(key, member)| match &**key {
            "path" | "from" => (key.clone(), Value::string(format!("/metadata{}", member.as_str().unwrap()))),
            _ => (key.clone(), member.clone()),
        }))
    });
    Value::list(moved.collect())
}

#[test]
fn every_example_of_the_rfc_does_what_it_says() {
    // F098
    for (name, before, operations, after) in EXAMPLES.iter().chain(SECTIONS) {
        let base = |metadata: &str| {
            value(&format!(r#"{{"nodes": {{"a": {{"type": "function"}}}}, "metadata": {metadata}}}"#))
        };
        let document = base(before);
        let done = read(&below(operations)).and_then(|patch| patch.apply(&document));
        match (done, after) {
            // Metadata that were taken out whole and put back in are what they were.
            (Ok(done), Ok(after)) => assert_eq!(done, base(after), "{name}"),
            (Err(refused), Err(code)) => {
                assert_eq!(refused.findings.len(), 1, "{name}: {refused}");
                let layer = if *code == "patch_path" { Layer::Syntax } else { Layer::Conflict };
                assert_eq!((refused.findings[0].code, refused.layer), (*code, layer), "{name}: {refused}");
                let last = value(operations).clone();
                let Value::List(items) = &last else { panic!("{name}") };
                assert_eq!(refused.findings[0].operation, Some(items.len() - 1), "{name}");
            }
            (done, _) => panic!("{name}: {done:?}"),
        }
        assert_eq!(document, base(before), "{name}: what was there is what it was");
    }
}

#[test]
fn an_operation_with_two_ops_is_no_json_of_ours() {
    // A.13. Invalid JSON Patch Document
    let text = br#"[{"op": "add", "path": "/baz", "value": "qux", "op": "remove"}]"#;
    assert!(Value::from_json(text).unwrap_err().to_string().contains("stands twice"));
}
