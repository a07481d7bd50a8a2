//! Patches: what they may say, what they make of a document, and what is refused.

mod build;
mod gates;
mod old;
mod operations;
mod property;
mod rfc;
mod touch;

use super::*;

/// A value of JSON text.
fn value(text: &str) -> Value {
    Value::from_json(text.as_bytes()).unwrap_or_else(|failure| panic!("{text}: {failure}"))
}

/// The canonical document of a text in YAML.
fn document(yaml: &str) -> Value {
    let options = crate::compile::Options::default();
    crate::compile::compile(yaml.as_bytes(), crate::compile::Format::Yaml, &options)
        .unwrap_or_else(|refused| panic!("{yaml}\n{refused}"))
        .document
}

fn patch(operations: &str) -> Patch {
    read(&value(operations)).unwrap_or_else(|refused| panic!("{operations}\n{refused}"))
}

/// Code, operation and pointer of each finding.
fn told(refusal: &Refusal) -> Vec<(&'static str, Option<usize>, &str)> {
    refusal
        .findings
        .iter()
        .map(|finding| (finding.code, finding.operation, finding.pointer.as_str()))
        .collect()
}

/// What the seed starts from, with what an `http` needs to be run.
const SEED: &str = r#"
name: seed
version: "1"
nodes:
  - {id: fetch, type: http, with: {url: "https://example.com/"}}
  - {id: process, type: function}
edges:
  - {from: fetch, to: process}
"#;

/// The patch of the seed, letter by letter.
const EMAIL: &str = r#"[
    {"op": "add", "path": "/nodes/-", "value": {"id": "email", "type": "task"}},
    {"op": "add", "path": "/edges/-", "value": {"from": "process", "to": "email"}}
]"#;

#[test]
fn the_example_of_the_seed_applies_as_it_stands() {
    // F098: its document has an `http` without a url, so it can be patched but not started.
    let base = document(
        r#"{"nodes": [{"id": "fetch", "type": "http"}, {"id": "process", "type": "function"}],
            "edges": [{"from": "fetch", "to": "process"}]}"#,
    );
    let patch = patch(EMAIL);
    let expected = value(
        r#"[{"op": "add", "path": "/nodes/email", "value": {"type": "task"}},
            {"op": "add", "path": "/edges/process~1email", "value": {"from": "process", "to": "email"}}]"#,
    );
    assert_eq!(patch.operations, expected, "what is stored names ids");
    assert!(!patch.is_test_only() && !patch.needs_base() && !patch.overwrites(&base));
    let next = patch.apply(&base).unwrap();
    let expected = document(
        r#"{"nodes": [{"id": "fetch", "type": "http"}, {"id": "process", "type": "function"}, {"id": "email", "type": "task"}],
            "edges": [{"from": "fetch", "to": "process"}, {"from": "process", "to": "email"}]}"#,
    );
    assert_eq!(next, expected);
    let refused = candidate(&base, &patch).unwrap_err();
    assert_eq!(refused.layer, Layer::Schema);
    assert_eq!(told(&refused), [("missing_key", None, "/nodes/fetch/with")], "no fault of the patch");
}

#[test]
fn a_candidate_says_what_was_added_changed_and_taken_out() {
    // F098
    let base = document(SEED);
    let made = candidate(&base, &patch(EMAIL)).unwrap();
    let ids = |ids: &std::collections::BTreeSet<std::sync::Arc<str>>| -> Vec<String> {
        ids.iter().map(ToString::to_string).collect()
    };
    assert_eq!(ids(&made.added), ["email"]);
    assert!(made.touched.is_empty() && made.removed.is_empty());
    let root = made.compiled.ir.root();
    let of = |id: &str| root.nodes.iter().position(|node| &*node.id == id).unwrap();
    let is_new = |edge: &&crate::ir::Edge| edge.to as usize == of("email");
    assert_eq!(
        root.edges.iter().filter(is_new).map(|edge| edge.from as usize).collect::<Vec<_>>(),
        [of("process")]
    );
    let again = crate::compile::compile_canonical(made.compiled.canonical.as_bytes()).unwrap();
    assert_eq!(again.hash, made.compiled.hash);

    let second = patch(
        r#"[{"op": "remove", "path": "/edges/process~1email"}, {"op": "remove", "path": "/nodes/email"},
            {"op": "replace", "path": "/nodes/fetch/with/url", "value": "https://example.com/2"},
            {"op": "add", "path": "/edges/fetch~1process/when", "value": "output.status == 200"},
            {"op": "add", "path": "/nodes/-", "value": {"id": "log", "type": "task", "needs": ["process"]}}]"#,
    );
    assert!(second.needs_base());
    let next = candidate(&made.compiled.document, &second).unwrap();
    assert_eq!(ids(&next.touched), ["fetch"]);
    assert_eq!(ids(&next.added), ["log"]);
    assert_eq!(ids(&next.removed), ["email"]);
    let edges = next.compiled.document.get("edges").unwrap();
    assert!(edges.get("process/log").is_some(), "what a node says about edges is edges: {edges}");
}

#[test]
fn an_edge_that_asks_for_something_else_touches_where_it_comes_from() {
    let base = document(SEED);
    let when = r#"[{"op": "add", "path": "/edges/fetch~1process/when", "value": "false"}]"#;
    let made = candidate(&base, &patch(when)).unwrap();
    assert_eq!(made.touched.iter().map(|id| &**id).collect::<Vec<_>>(), ["fetch"]);
    let noted = r#"[{"op": "add", "path": "/edges/fetch~1process/metadata", "value": {"why": "so"}}]"#;
    assert!(candidate(&base, &patch(noted)).unwrap().touched.is_empty());
}

#[test]
fn nothing_but_nodes_edges_and_metadata_can_change() {
    let base = document(
        r#"
name: a
version: "2"
mode: full
retention: 7d
metadata: {owner: me}
inputs: {type: object}
defaults: {timeout: 60s}
limits: {deadline: 2h}
x-own: 1
nodes: {a: {type: function}, b: {type: function}}
edges: [{from: a, to: b}]
outputs: {out: "${ nodes.b.output }"}
"#,
    );
    let Value::Map(map) = &base else { panic!("a document is a map") };
    for (key, _) in map.iter() {
        let open = ["nodes", "edges", "metadata"].contains(&&**key);
        for (verb, rest) in [
            ("add", r#","value":{}"#),
            ("replace", r#","value":{}"#),
            ("remove", ""),
            ("test", r#","value":1"#),
            ("move", r#","from":"/metadata/owner""#),
            ("copy", r#","from":"/metadata/owner""#),
        ] {
            let at = format!(r#"[{{"op":"{verb}","path":"/{key}"{rest}}}]"#);
            assert_eq!(read(&value(&at)).is_ok(), open, "{at}");
            let below = format!(r#"[{{"op":"{verb}","path":"/{key}/x~1y"{rest}}}]"#);
            assert_eq!(read(&value(&below)).is_ok(), open, "{below}");
            let like = format!(r#"[{{"op":"{verb}","path":"/{key}s"{rest}}}]"#);
            assert!(read(&value(&like)).is_err(), "{like}");
        }
        for verb in ["move", "copy"] {
            let taken = format!(r#"[{{"op":"{verb}","path":"/nodes/x/with","from":"/{key}"}}]"#);
            let read = read(&value(&taken));
            assert_eq!(read.is_ok(), open && (*verb == *"copy" || &**key != "nodes"), "{taken}");
        }
    }
    let all = patch(
        r#"[{"op": "add", "path": "/nodes/c", "value": {"type": "function"}},
            {"op": "add", "path": "/edges/b~1c", "value": {}},
            {"op": "replace", "path": "/metadata", "value": {"owner": "you"}}]"#,
    );
    let made = candidate(&base, &all).unwrap().compiled.document;
    for (key, member) in map.iter().filter(|(key, _)| !["nodes", "edges", "metadata"].contains(&&***key)) {
        assert_eq!(made.get(key), Some(member), "{key}");
    }
    assert_eq!(made.get("metadata"), Some(&value(r#"{"owner": "you"}"#)));
}

#[test]
fn a_document_without_edges_and_metadata_takes_both() {
    let base = document("nodes: {a: {type: function}, b: {type: function}}");
    assert!(base.get("edges").is_none() && base.get("metadata").is_none());
    let both = r#"[{"op": "add", "path": "/edges/-", "value": {"from": "a", "to": "b", "on": "error"}},
                   {"op": "add", "path": "/metadata/why", "value": "so"}]"#;
    let next = patch(both).apply(&base).unwrap();
    let expected = value(
        r#"{"edges": {"a/b:error": {"from": "a", "to": "b", "on": "error"}}, "metadata": {"why": "so"}}"#,
    );
    assert_eq!(next.get("edges"), expected.get("edges"));
    assert_eq!(next.get("metadata"), expected.get("metadata"));
    let back = r#"[{"op": "remove", "path": "/edges/a~1b:error"}]"#;
    assert!(patch(back).apply(&next).unwrap().get("edges").is_none());
}
