//! The document that follows must be one: findings name the operation, and what may be added has an end.

use super::*;

const BASE: &str = r#"
nodes:
  fetch: {type: http, with: {url: "https://example.com/"}}
  each: {type: map, with: {over: "nodes.fetch.output.body", body: {type: function, with: {expr: item}}}}
  join: {type: join}
edges: [{from: fetch, to: each}, {from: each, to: join}]
"#;

const ADD: &str = r#"{"op": "add", "path": "/nodes/-", "value": {"id": "email", "type": "task"}}"#;

#[test]
fn what_does_not_compile_names_the_operation_and_the_place() {
    // F106, F109
    let base = document(BASE);
    let cases = [
        (
            "an unknown kind",
            r#"{"op": "add", "path": "/nodes/x", "value": {"type": "functon"}}"#,
            "unknown_kind",
            Some(1),
            "/nodes/x/type",
        ),
        (
            "no kind",
            r#"{"op": "remove", "path": "/nodes/fetch/type"}"#,
            "missing_key",
            Some(1),
            "/nodes/fetch",
        ),
        ("no node", r#"{"op": "add", "path": "/nodes/x", "value": 3}"#, "wrong_type", Some(1), "/nodes/x"),
        (
            "an unknown key",
            r#"{"op": "add", "path": "/nodes/join/wiht", "value": {}}"#,
            "unknown_key",
            Some(1),
            "/nodes/join/wiht",
        ),
        (
            "a bad id",
            r#"{"op": "add", "path": "/nodes/a.b", "value": {"type": "task"}}"#,
            "node_id",
            Some(1),
            "/nodes/a.b",
        ),
        (
            "a dangling edge",
            r#"{"op": "add", "path": "/edges/-", "value": {"from": "email", "to": "emial"}}"#,
            "dangling_edge",
            Some(1),
            "/edges/email~1emial/to",
        ),
        (
            "a node that edges lead to",
            r#"{"op": "remove", "path": "/nodes/join"}"#,
            "dangling_edge",
            Some(1),
            "/edges/each~1join/to",
        ),
        (
            "a cycle",
            r#"{"op": "add", "path": "/edges/-", "value": {"from": "join", "to": "fetch"}}"#,
            "cycle",
            None,
            "/edges/each~1join",
        ),
        (
            "an edge to itself",
            r#"{"op": "add", "path": "/edges/-", "value": {"from": "email", "to": "email"}}"#,
            "self_edge",
            Some(1),
            "/edges/email~1email",
        ),
        (
            "another edge under its key",
            r#"{"op": "add", "path": "/edges/fetch~1join", "value": {"from": "each", "to": "join"}}"#,
            "edge_key",
            Some(1),
            "/edges/fetch~1join",
        ),
        (
            "an end that is none",
            r#"{"op": "add", "path": "/edges/-", "value": {"from": "email", "to": "join", "on": "approved"}}"#,
            "unknown_branch",
            Some(1),
            "/edges/email~1join:approved/on",
        ),
        (
            "a join that waits for more than there is",
            r#"{"op": "add", "path": "/nodes/join/with", "value": {"wait": {"at_least": 2}}}"#,
            "join_unsatisfiable",
            Some(1),
            "/nodes/join/with/wait",
        ),
        (
            "an expression",
            r#"{"op": "replace", "path": "/nodes/each/with/body/with/expr", "value": "item +"}"#,
            "expression_syntax",
            Some(1),
            "/nodes/each/with/body/with/expr",
        ),
        (
            "a name from behind",
            r#"{"op": "replace", "path": "/nodes/each/with/over", "value": "nodes.join.output"}"#,
            "not_an_ancestor",
            Some(1),
            "/nodes/each/with/over",
        ),
        (
            "a need that is not there",
            r#"{"op": "add", "path": "/nodes/join/needs", "value": ["fetch", "nobody"]}"#,
            "dangling_edge",
            Some(1),
            "/nodes/join/needs/1",
        ),
        (
            "metadata that are no map",
            r#"{"op": "add", "path": "/metadata", "value": 1}"#,
            "wrong_type",
            Some(1),
            "/metadata",
        ),
        (
            "what this node cannot do yet",
            r#"{"op": "add", "path": "/nodes/join/cache", "value": {}}"#,
            "key_not_available",
            Some(1),
            "/nodes/join/cache",
        ),
        (
            "what cannot be started",
            r#"{"op": "remove", "path": "/nodes/fetch/with/url"}"#,
            "missing_key",
            Some(1),
            "/nodes/fetch/with",
        ),
        (
            "what needs a URL and has none",
            r#"{"op": "add", "path": "/nodes/x", "value": {"type": "http", "with": {}}}"#,
            "missing_key",
            Some(1),
            "/nodes/x/with",
        ),
        (
            "a literal secret",
            r#"{"op": "add", "path": "/nodes/fetch/with/headers", "value": {"authorization": "Bearer abcdefghijklmnop"}}"#,
            "literal_secret",
            Some(1),
            "/nodes/fetch/with/headers/authorization",
        ),
    ];
    for (name, operation, code, by, at) in cases {
        let refused = candidate(&base, &patch(&format!("[{ADD}, {operation}]"))).expect_err(name);
        assert_eq!(refused.layer, Layer::Schema, "{name}: {refused}");
        assert!(told(&refused).contains(&(code, by, at)), "{name}: {:?}", told(&refused));
    }
}

#[test]
fn an_operation_behind_another_is_the_one_that_is_named() {
    let base = document(BASE);
    let twice = r#"[{"op": "add", "path": "/nodes/x", "value": {"type": "nothing", "with": {}}},
                    {"op": "replace", "path": "/nodes/x/type", "value": "nobody"},
                    {"op": "replace", "path": "/nodes/x", "value": {"type": "noone", "wiht": 1}}]"#;
    let refused = candidate(&base, &patch(twice)).unwrap_err();
    // The longest path wins; among equals the last.
    assert_eq!(
        told(&refused),
        [("unknown_key", Some(2), "/nodes/x/wiht"), ("unknown_kind", Some(1), "/nodes/x/type")]
    );
}

#[test]
fn what_does_not_fit_the_document_is_a_conflict() {
    // F106
    let base = document(BASE);
    for (operation, code, at) in [
        (
            r#"{"op": "test", "path": "/nodes/fetch/type", "value": "task"}"#,
            "patch_test_failed",
            "/nodes/fetch/type",
        ),
        (
            r#"{"op": "replace", "path": "/nodes/nobody", "value": {"type": "task"}}"#,
            "patch_path_missing",
            "/nodes/nobody",
        ),
        (r#"{"op": "remove", "path": "/edges/fetch~1join"}"#, "patch_path_missing", "/edges/fetch~1join"),
        (
            r#"{"op": "move", "from": "/nodes/nobody", "path": "/nodes/x"}"#,
            "patch_path_missing",
            "/nodes/nobody",
        ),
        (
            r#"{"op": "add", "path": "/nodes/nobody/with", "value": {}}"#,
            "patch_path_missing",
            "/nodes/nobody/with",
        ),
    ] {
        let refused = candidate(&base, &patch(&format!("[{ADD}, {operation}]"))).expect_err(operation);
        assert_eq!(
            (refused.layer, told(&refused)),
            (Layer::Conflict, vec![(code, Some(1), at)]),
            "{operation}"
        );
    }
}

fn adds(count: usize) -> Patch {
    let add = |n: usize| {
        format!(r#"{{"op": "add", "path": "/nodes/-", "value": {{"id": "n{n}", "type": "task"}}}}"#)
    };
    patch(&format!("[{}]", (0..count).map(add).collect::<Vec<_>>().join(",")))
}

#[test]
fn one_patch_adds_so_many_nodes_and_no_more_whatever_scope_they_are_in() {
    // F106, F107
    let base = document(BASE);
    assert_eq!(candidate(&base, &adds(100)).unwrap().added.len(), limits::PATCH_NODES_ADDED_MAX);
    let body = |count: usize| {
        let nodes: Vec<String> = (0..count).map(|n| format!(r#""n{n}": {{"type": "task"}}"#)).collect();
        format!(r#"{{"nodes": {{{}}}}}"#, nodes.join(","))
    };
    let map = |count: usize| {
        patch(&format!(
            r#"[{{"op": "add", "path": "/nodes/all", "value": {{"type": "map", "with": {{"over": "[1]", "body": {}}}}}}}]"#,
            body(count)
        ))
    };
    assert!(candidate(&base, &map(99)).is_ok());
    let grown = |count: usize| {
        patch(&format!(r#"[{{"op": "replace", "path": "/nodes/each/with/body", "value": {}}}]"#, body(count)))
    };
    assert!(candidate(&base, &grown(101)).is_ok(), "one of them was there");
    let fallback =
        patch(&format!(r#"[{{"op": "add", "path": "/nodes/fetch/fallback", "value": {}}}]"#, body(101)));
    for (too_many, at) in [(map(100), "/nodes/all"), (grown(102), "/nodes/each"), (fallback, "/nodes/fetch")]
    {
        let refused = candidate(&base, &too_many).unwrap_err();
        assert_eq!((refused.layer, told(&refused)), (Layer::Limit, vec![("spawn_limit", Some(0), at)]));
        assert!(refused.findings[0].message.contains("patch_nodes_added_max"), "{refused}");
    }
}

#[test]
fn all_patches_together_stay_within_what_the_workflow_says() {
    // F107: the document is what counts across patches.
    let limited = |nodes: usize| document(&format!("{BASE}limits: {{nodes: {nodes}}}\n"));
    let first = candidate(&limited(6), &adds(2)).unwrap().compiled.document;
    let one = patch(&format!("[{ADD}]"));
    let refused = candidate(&first, &one).unwrap_err();
    assert_eq!((refused.layer, told(&refused)), (Layer::Limit, vec![("spawn_limit", None, "/nodes")]));
    assert!(refused.findings[0].message.contains("limits.nodes"), "{refused}");
    let less = patch(
        r#"[{"op": "remove", "path": "/nodes/n0"}, {"op": "add", "path": "/nodes/-", "value": {"id": "n3", "type": "task"}}]"#,
    );
    assert!(candidate(&first, &less).is_ok(), "one goes, one comes");
    // What stood above it from the start may shrink or change.
    let above = limited(2);
    assert!(candidate(&above, &patch(r#"[{"op": "add", "path": "/metadata/a", "value": 1}]"#)).is_ok());
    assert!(candidate(&above, &one).is_err());
}

#[test]
fn agents_are_counted_by_themselves() {
    // F107
    let base = document(&format!("{BASE}  \nlimits: {{agents: 1}}\n"));
    let agent = |id: &str| {
        format!(
            r#"{{"op": "add", "path": "/nodes/{id}", "value": {{"type": "agent", "with": {{"task": "x"}}}}}}"#
        )
    };
    let two = format!("[{ADD}, {}, {}]", agent("one"), agent("two"));
    let refused = candidate(&base, &patch(&two)).unwrap_err();
    assert_eq!((refused.layer, told(&refused)), (Layer::Limit, vec![("spawn_limit", None, "/nodes")]));
    assert!(refused.findings[0].message.contains("limits.agents allows 1"), "{refused}");
    assert!(candidate(&base, &patch(&format!("[{ADD}, {}]", agent("one")))).is_ok());
}

#[test]
fn a_document_that_grows_over_its_limits_is_refused_as_such() {
    let add = format!(r#"[{{"op": "add", "path": "/metadata/a", "value": "{}"}}]"#, "x".repeat(200_000));
    let text = format!("metadata: {{b: {}}}\n{BASE}", "x".repeat(900_000));
    let refused = candidate(&document(&text), &patch(&add)).unwrap_err();
    assert_eq!((refused.layer, refused.findings[0].code), (Layer::Limit, "document_bytes_max"));
}
