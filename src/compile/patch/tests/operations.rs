//! What is no operation, and what is too much.

use super::*;

/// Operations, and the findings: code, operation, pointer.
type Case = (&'static str, &'static [(&'static str, Option<usize>, &'static str)]);

const WRONG: &[Case] = &[
    ("{}", &[("patch_operation", None, "/operations")]),
    ("null", &[("patch_operation", None, "/operations")]),
    ("[1]", &[("patch_operation", Some(0), "/operations/0")]),
    ("[{}]", &[("patch_operation", Some(0), "/operations/0")]),
    (
        r#"[{"op": "ADD", "path": "/nodes/a", "value": 1}]"#,
        &[("patch_operation", Some(0), "/operations/0/op")],
    ),
    (r#"[{"op": 1, "path": "/nodes/a", "value": 1}]"#, &[("patch_operation", Some(0), "/operations/0/op")]),
    (r#"[{"op": "add", "path": "/nodes/a"}]"#, &[("patch_operation", Some(0), "/operations/0")]),
    (r#"[{"op": "replace", "path": "/nodes/a"}]"#, &[("patch_operation", Some(0), "/operations/0")]),
    (r#"[{"op": "test", "path": "/nodes/a"}]"#, &[("patch_operation", Some(0), "/operations/0")]),
    (r#"[{"op": "add", "value": 1}]"#, &[("patch_operation", Some(0), "/operations/0")]),
    (r#"[{"op": "remove"}]"#, &[("patch_operation", Some(0), "/operations/0")]),
    (r#"[{"op": "remove", "path": 3}]"#, &[("patch_operation", Some(0), "/operations/0/path")]),
    (r#"[{"op": "move", "path": "/nodes/a"}]"#, &[("patch_operation", Some(0), "/operations/0")]),
    (r#"[{"op": "copy", "path": "/nodes/a"}]"#, &[("patch_operation", Some(0), "/operations/0")]),
    (
        r#"[{"op": "copy", "path": "/nodes/a", "from": []}]"#,
        &[("patch_operation", Some(0), "/operations/0/from")],
    ),
    (r#"[{"op": "remove", "path": ""}]"#, &[("patch_path", Some(0), "/operations/0/path")]),
    (r#"[{"op": "remove", "path": "nodes/a"}]"#, &[("patch_path", Some(0), "/operations/0/path")]),
    (r#"[{"op": "remove", "path": "/nodes/a~"}]"#, &[("patch_path", Some(0), "/operations/0/path")]),
    (r#"[{"op": "remove", "path": "/nodes/a~2"}]"#, &[("patch_path", Some(0), "/operations/0/path")]),
    (r#"[{"op": "remove", "path": "/node~0s/a"}]"#, &[("patch_path", Some(0), "/operations/0/path")]),
    (r#"[{"op": "remove", "path": "/name"}]"#, &[("patch_path", Some(0), "/operations/0/path")]),
    (r#"[{"op": "remove", "path": "/"}]"#, &[("patch_path", Some(0), "/operations/0/path")]),
    (r#"[{"op": "remove", "path": "//nodes/a"}]"#, &[("patch_path", Some(0), "/operations/0/path")]),
    (r#"[{"op": "remove", "path": "/limits/nodes"}]"#, &[("patch_path", Some(0), "/operations/0/path")]),
    (r#"[{"op": "remove", "path": "/nodes/3"}]"#, &[("patch_path", Some(0), "/operations/0/path")]),
    (r#"[{"op": "remove", "path": "/nodes/3/with"}]"#, &[("patch_path", Some(0), "/operations/0/path")]),
    (r#"[{"op": "remove", "path": "/nodes/-"}]"#, &[("patch_path", Some(0), "/operations/0/path")]),
    (
        r#"[{"op": "add", "path": "/nodes/-/with", "value": {}}]"#,
        &[("patch_path", Some(0), "/operations/0/path")],
    ),
    (
        r#"[{"op": "copy", "from": "/nodes/a", "path": "/nodes/-"}]"#,
        &[("patch_path", Some(0), "/operations/0/path")],
    ),
    (r#"[{"op": "remove", "path": "/edges/0"}]"#, &[("patch_path", Some(0), "/operations/0/path")]),
    (r#"[{"op": "remove", "path": "/edges/a/b"}]"#, &[("patch_path", Some(0), "/operations/0/path")]),
    (r#"[{"op": "test", "path": "/edges/-", "value": 1}]"#, &[("patch_path", Some(0), "/operations/0/path")]),
    (
        r#"[{"op": "copy", "from": "/name", "path": "/nodes/b"}]"#,
        &[("patch_path", Some(0), "/operations/0/from")],
    ),
    (
        r#"[{"op": "move", "from": "/outputs/x", "path": "/metadata/x"}]"#,
        &[("patch_path", Some(0), "/operations/0/from")],
    ),
    (
        r#"[{"op": "move", "from": "", "path": "/metadata/x"}]"#,
        &[("patch_path", Some(0), "/operations/0/from")],
    ),
    (
        r#"[{"op": "move", "from": "/nodes/a", "path": "/nodes/a/with"}]"#,
        &[("patch_path", Some(0), "/operations/0/path")],
    ),
    (
        r#"[{"op": "add", "path": "/nodes/-", "value": 1}]"#,
        &[("patch_operation", Some(0), "/operations/0/value")],
    ),
    (
        r#"[{"op": "add", "path": "/nodes/-", "value": {"type": "task"}}]"#,
        &[("patch_operation", Some(0), "/operations/0/value")],
    ),
    (
        r#"[{"op": "add", "path": "/nodes/-", "value": {"id": 7}}]"#,
        &[("patch_operation", Some(0), "/operations/0/value/id")],
    ),
    (
        r#"[{"op": "add", "path": "/nodes/-", "value": {"id": "7"}}]"#,
        &[("patch_operation", Some(0), "/operations/0/value/id")],
    ),
    (
        r#"[{"op": "add", "path": "/nodes/-", "value": {"id": "a/b"}}]"#,
        &[("patch_operation", Some(0), "/operations/0/value/id")],
    ),
    (
        r#"[{"op": "add", "path": "/edges/-", "value": []}]"#,
        &[("patch_operation", Some(0), "/operations/0/value")],
    ),
    (
        r#"[{"op": "add", "path": "/edges/-", "value": {"from": "a/b"}}]"#,
        &[
            ("patch_operation", Some(0), "/operations/0/value/from"),
            ("patch_operation", Some(0), "/operations/0/value"),
        ],
    ),
    (
        r#"[{"op": "add", "path": "/edges/-", "value": {"from": "a", "to": "b", "on": "x:y"}}]"#,
        &[("patch_operation", Some(0), "/operations/0/value/on")],
    ),
    (
        r#"[{"op": "add", "path": "/metadata/a", "value": [1, 9007199254740993]}]"#,
        &[("number_precision", Some(0), "/operations/0/value/1")],
    ),
    (
        r#"[{"op": "remove", "path": "/nodes/a"}, {"op": "no"}, {"op": "remove", "path": "/name"}]"#,
        &[("patch_operation", Some(1), "/operations/1/op"), ("patch_path", Some(2), "/operations/2/path")],
    ),
];

#[test]
fn what_is_no_operation_is_refused_where_it_stands() {
    // F106, F109
    for (operations, expected) in WRONG {
        let refused = read(&value(operations)).expect_err(operations);
        assert_eq!(told(&refused), *expected, "{operations}: {refused}");
        assert_eq!(refused.layer, Layer::Syntax, "{operations}");
    }
}

#[test]
fn a_place_in_a_list_is_answered_with_what_to_write() {
    let message = |operations: &str| read(&value(operations)).unwrap_err().findings.remove(0).message;
    assert!(message(r#"[{"op": "remove", "path": "/nodes/3"}]"#).contains("/nodes/email"));
    assert!(message(r#"[{"op": "remove", "path": "/edges/3"}]"#).contains("/edges/process~1email"));
    assert!(message(r#"[{"op": "remove", "path": "/edges/process/email"}]"#).contains("~1"));
    assert!(message(r#"[{"op": "remove", "path": "/inputs"}]"#).contains("/metadata"));
}

#[test]
fn limits_are_named_before_anything_is_applied() {
    // F106
    let operation = r#"{"op": "test", "path": "/nodes/a", "value": 1}"#;
    let list = |count: usize| value(&format!("[{}]", vec![operation; count].join(",")));
    assert!(read(&list(limits::PATCH_OPERATIONS_MAX)).is_ok());
    let long = |bytes: usize| {
        value(&format!(r#"[{{"op":"add","path":"/metadata/a","value":"{}"}}]"#, "x".repeat(bytes)))
    };
    let frame = long(0).to_json().len();
    assert!(read(&long(limits::PATCH_BYTES_MAX - frame)).is_ok());
    let nested = |levels: usize| {
        let text = format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        value(&format!(r#"[{{"op":"add","path":"/metadata/a","value":{text}}}]"#))
    };
    assert!(read(&nested(limits::VALUE_DEPTH_MAX - 3)).is_ok());
    let step = "k".repeat(limits::KEY_BYTES_MAX + 1);
    let key = value(&format!(r#"[{{"op":"remove","path":"/metadata/{step}"}}]"#));
    for (operations, code, operation, at) in [
        (list(limits::PATCH_OPERATIONS_MAX + 1), "patch_operations_max", None, "/operations"),
        (long(limits::PATCH_BYTES_MAX - frame + 1), "patch_bytes_max", None, "/operations"),
        // The path goes two levels down, and the operation and the list around it take two of what a request may have.
        (Value::list(vec![deep(limits::VALUE_DEPTH_MAX - 1)]), "value_depth_max", Some(0), "/operations/0"),
        (key, "key_bytes_max", Some(0), "/operations/0/path"),
    ] {
        let refused = read(&operations).unwrap_err();
        assert_eq!(told(&refused), [(code, operation, at)], "{refused}");
        assert_eq!(refused.layer, Layer::Limit);
        assert!(refused.findings[0].message.contains(code), "{refused}");
    }
}

/// An add below `/metadata` of so many lists within each other.
fn deep(levels: usize) -> Value {
    let nested = (1..levels).fold(Value::list(Vec::new()), |inner, _| Value::list(vec![inner]));
    Value::map([("op", "add".into()), ("path", "/metadata/a".into()), ("value", nested)])
}

#[test]
fn reading_what_was_read_changes_nothing() {
    let once = patch(
        r#"[{"op": "add", "path": "/nodes/-", "value": {"id": "b", "type": "task"}, "comment": "x"},
            {"op": "add", "path": "/edges/-", "value": {"from": "a", "to": "b", "on": "success"}},
            {"op": "add", "path": "/edges/-", "value": {"from": "a", "to": "b", "on": "error"}},
            {"op": "test", "path": "/metadata/n", "value": 2.0},
            {"op": "move", "path": "/metadata/x~1y", "from": "/metadata/n", "value": 3},
            {"op": "remove", "path": "/metadata/x~1y", "from": "/name", "value": 3}]"#,
    );
    let expected = value(
        r#"[{"op": "add", "path": "/nodes/b", "value": {"type": "task"}},
            {"op": "add", "path": "/edges/a~1b", "value": {"from": "a", "to": "b", "on": "success"}},
            {"op": "add", "path": "/edges/a~1b:error", "value": {"from": "a", "to": "b", "on": "error"}},
            {"op": "test", "path": "/metadata/n", "value": 2},
            {"op": "move", "path": "/metadata/x~1y", "from": "/metadata/n"},
            {"op": "remove", "path": "/metadata/x~1y"}]"#,
    );
    assert_eq!(once.operations, expected);
    assert_eq!(read(&once.operations).unwrap().operations, expected);
}

#[test]
fn an_add_at_the_end_replaces_nothing() {
    // D3
    let base = document(SEED);
    for (name, operations, at) in [
        (
            "node",
            r#"[{"op": "add", "path": "/nodes/-", "value": {"id": "process", "type": "task"}}]"#,
            "/nodes/process",
        ),
        (
            "edge",
            r#"[{"op": "add", "path": "/edges/-", "value": {"from": "fetch", "to": "process"}}]"#,
            "/edges/fetch~1process",
        ),
    ] {
        let refused = patch(operations).apply(&base).unwrap_err();
        assert_eq!(
            (refused.layer, told(&refused)),
            (Layer::Conflict, vec![("patch_exists", Some(0), at)]),
            "{name}"
        );
    }
    let twice = r#"[{"op": "add", "path": "/nodes/-", "value": {"id": "x", "type": "task"}},
                    {"op": "add", "path": "/nodes/-", "value": {"id": "x", "type": "task"}}]"#;
    assert_eq!(told(&patch(twice).apply(&base).unwrap_err()), [("patch_exists", Some(1), "/nodes/x")]);
}

#[test]
fn what_needs_a_base_is_told_by_the_operations() {
    // D3
    let base = document(SEED);
    let test = r#"{"op": "test", "path": "/nodes/process/type", "value": "function"}"#;
    for (operation, needs, overwrites) in [
        (r#"{"op": "replace", "path": "/nodes/process", "value": {"type": "task"}}"#, true, false),
        (r#"{"op": "remove", "path": "/edges/fetch~1process"}"#, true, false),
        (r#"{"op": "move", "from": "/nodes/process", "path": "/nodes/other"}"#, true, false),
        (r#"{"op": "copy", "from": "/nodes/process", "path": "/nodes/other"}"#, false, false),
        (r#"{"op": "copy", "from": "/nodes/process", "path": "/nodes/fetch"}"#, false, true),
        (r#"{"op": "add", "path": "/nodes/other", "value": {"type": "task"}}"#, false, false),
        (r#"{"op": "add", "path": "/nodes/process", "value": {"type": "task"}}"#, false, true),
        (r#"{"op": "add", "path": "/nodes/process/type", "value": "task"}"#, false, true),
        (r#"{"op": "add", "path": "/nodes/process/timeout", "value": "1s"}"#, false, false),
    ] {
        let alone = patch(&format!("[{operation}]"));
        assert_eq!((alone.needs_base(), alone.overwrites(&base)), (needs, overwrites), "{operation}");
        let tested = patch(&format!("[{test}, {operation}]"));
        assert_eq!((tested.needs_base(), tested.overwrites(&base)), (false, false), "{operation}");
        assert!(!alone.is_test_only() && !tested.is_test_only());
    }
    assert!(patch("[]").is_test_only() && patch(&format!("[{test}]")).is_test_only());
    assert_eq!(patch(&format!("[{test}]")).apply(&base).unwrap(), base);
}

#[test]
fn copies_of_copies_end_soon() {
    let base = document(r#"{"nodes": {"a": {"type": "function"}}, "metadata": {"x": "0123456789"}}"#);
    let wide = r#"{"op": "copy", "from": "/metadata", "path": "/metadata/y"},
                  {"op": "copy", "from": "/metadata", "path": "/metadata/z"},
                  {"op": "copy", "from": "/metadata/y", "path": "/metadata/z/y"}"#;
    let wide = patch(&format!("[{}]", vec![wide; 33].join(",")));
    let refused = wide.apply(&base).unwrap_err();
    assert_eq!(refused.layer, Layer::Limit);
    assert!(["document_bytes_max", "value_depth_max"].contains(&refused.findings[0].code), "{refused}");
    let flat: Vec<String> = (0..90)
        .map(|n| format!(r#"{{"op": "copy", "from": "/metadata/big", "path": "/metadata/n{n}"}}"#))
        .collect();
    let big = format!(r#"{{"op": "add", "path": "/metadata/big", "value": "{}"}}"#, "x".repeat(20_000));
    let refused = patch(&format!("[{big}, {}]", flat.join(","))).apply(&base).unwrap_err();
    assert_eq!(told(&refused), [("document_bytes_max", Some(53), "/metadata/n52")]);
    // Moving deeper and deeper.
    let mut path = String::from("/metadata");
    let mut steps = Vec::new();
    for _ in 0..limits::VALUE_DEPTH_MAX {
        let to = format!("{path}/d");
        steps.push(format!(r#"{{"op": "add", "path": "{to}", "value": {{}}}}"#));
        path = to;
    }
    let refused = read(&value(&format!("[{}]", steps.join(",")))).unwrap_err();
    assert_eq!((refused.layer, refused.findings[0].code), (Layer::Limit, "value_depth_max"));
}
