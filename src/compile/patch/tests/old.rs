//! Old path against new: what a patch makes of a document, and what is said against it, when the document goes through the
//! library for JSON Patch and through its JSON text, and when neither is needed and nothing is compiled twice.

use json_patch::jsonptr::PointerBuf;
use json_patch::{
    AddOperation, CopyOperation, MoveOperation, PatchErrorKind, PatchOperation, RemoveOperation,
    ReplaceOperation, TestOperation,
};
use proptest::prelude::*;
use serde_json::Value as Json;

use super::super::candidate::wrong;
use super::super::operation::{Path, Root};
use super::super::read::too_deep;
use super::*;
use crate::compile::fields::shown;
use crate::compile::finding::quoted;
use crate::compile::{Compiled, Diagnostics, compile_canonical, compile_made};

/// As it was done by the library.
fn by_library(operations: &[Operation], document: &Value) -> Result<Value, Refusal> {
    let mut json = to_json(document);
    let made = open_roots(operations, &mut json);
    let mut copied = 0;
    for (index, operation) in operations.iter().enumerate() {
        if let Some(from) = &operation.from {
            bound(index, operation, json.pointer(&from.text), &mut copied)?;
        }
        if operation.fresh && json.pointer(&operation.path.text).is_some() {
            return Err(exists(index, &operation.path));
        }
        // On a copy that is thrown away when anything fails.
        json_patch::patch_unsafe(&mut json, std::slice::from_ref(&native(operation)))
            .map_err(|failure| refuse(index, operation, &failure.kind, &json))?;
    }
    if let Json::Object(map) = &mut json {
        let is_empty = |value: &Json| value.as_object().is_some_and(serde_json::Map::is_empty);
        map.retain(|key, value| !is_empty(value) || !(key == "edges" || made.contains(&key.as_str())));
    }
    serde_json::from_value(json).map_err(|failure| {
        let message = format!("the document that follows: {failure}");
        Refusal::one(Layer::Limit, Finding::new("value_count_max", None, "", message))
    })
}

/// A canonical document leaves out `edges` when there are none, and `metadata` need not be there; a path below them
/// finds an empty map.
fn open_roots(operations: &[Operation], json: &mut Json) -> Vec<&'static str> {
    let mut made = Vec::new();
    let Json::Object(map) = json else { return made };
    for (key, root) in [("edges", Root::Edges), ("metadata", Root::Metadata)] {
        let below = |path: &Path| path.root == root && !path.below.is_empty();
        let mut paths =
            operations.iter().flat_map(|operation| [Some(&operation.path), operation.from.as_ref()]);
        if !map.contains_key(key) && paths.any(|path| path.is_some_and(below)) {
            map.insert(key.into(), Json::Object(serde_json::Map::new()));
            made.push(key);
        }
    }
    made
}

fn to_json(value: &Value) -> Json {
    serde_json::to_value(value).unwrap_or_default()
}

fn pointer(path: &Path) -> PointerBuf {
    PointerBuf::parse(path.text.clone()).unwrap_or_default()
}

fn native(operation: &Operation) -> PatchOperation {
    let path = pointer(&operation.path);
    let from = operation.from.as_ref().map(pointer).unwrap_or_default();
    let value = operation.value.as_ref().map(to_json).unwrap_or_default();
    match operation.verb {
        Verb::Add => PatchOperation::Add(AddOperation { path, value }),
        Verb::Remove => PatchOperation::Remove(RemoveOperation { path }),
        Verb::Replace => PatchOperation::Replace(ReplaceOperation { path, value }),
        Verb::Move => PatchOperation::Move(MoveOperation { from, path }),
        Verb::Copy => PatchOperation::Copy(CopyOperation { from, path }),
        Verb::Test => PatchOperation::Test(TestOperation { path, value }),
    }
}

/// What a `move` or a `copy` takes must not end up too deep; what copies make together must fit a document.
fn bound(
    index: usize,
    operation: &Operation,
    source: Option<&Json>,
    copied: &mut usize,
) -> Result<(), Refusal> {
    let Some(source) = source else { return Ok(()) };
    if operation.path.depth() + depth(source) > limits::VALUE_DEPTH_MAX {
        let finding = too_deep(index, operation.path.text.clone());
        return Err(Refusal::one(Layer::Limit, finding));
    }
    if operation.verb == Verb::Copy {
        *copied += source.to_string().len();
    }
    if *copied > limits::DOCUMENT_BYTES_MAX {
        let message = format!(
            "the copies have {copied} bytes together; at most {} are allowed (limit document_bytes_max)",
            limits::DOCUMENT_BYTES_MAX
        );
        let finding = Finding::new("document_bytes_max", index, operation.path.text.clone(), message);
        return Err(Refusal::one(Layer::Limit, finding));
    }
    Ok(())
}

fn depth(value: &Json) -> usize {
    match value {
        Json::Array(items) => 1 + items.iter().map(depth).max().unwrap_or_default(),
        Json::Object(map) => 1 + map.values().map(depth).max().unwrap_or_default(),
        _ => 0,
    }
}

fn exists(index: usize, path: &Path) -> Refusal {
    let message = format!("{} is there already: an add at - replaces nothing", quoted(&path.text));
    Refusal::one(Layer::Conflict, Finding::new("patch_exists", index, path.text.clone(), message))
}

fn refuse(index: usize, operation: &Operation, kind: &PatchErrorKind, json: &Json) -> Refusal {
    let path = &operation.path;
    let name = operation.verb.name();
    let missing = |path: &Path| {
        let message = format!("{name}: there is no {} in the document", quoted(&path.text));
        Finding::new("patch_path_missing", index, path.text.clone(), message)
    };
    let finding = match (kind, &operation.from) {
        (PatchErrorKind::TestFailed, _) => {
            let is = json.pointer(&path.text).and_then(|is| serde_json::from_value::<Value>(is.clone()).ok());
            let message = format!(
                "{} is {}, not {}",
                quoted(&path.text),
                is.as_ref().map_or_else(|| "something else".into(), shown),
                operation.value.as_ref().map_or_else(String::new, shown)
            );
            Finding::new("patch_test_failed", index, path.text.clone(), message)
        }
        (PatchErrorKind::InvalidFromPointer, Some(from)) => missing(from),
        _ if matches!(operation.verb, Verb::Add | Verb::Copy | Verb::Move) => {
            let message = format!(
                "{name}: nothing in the document can hold {}: what it stands in must be there, and be a map, or a list that \
                 is as long",
                quoted(&path.text)
            );
            Finding::new("patch_path_missing", index, path.text.clone(), message)
        }
        _ => missing(path),
    };
    Refusal::one(Layer::Conflict, finding)
}

/// Everything that is known of a document that was compiled, and of one that was refused.
fn all(compiled: &Result<Compiled, Diagnostics>) -> String {
    match compiled {
        Ok(made) => {
            let Compiled {
                ir, canonical, document, hash, warnings, unavailable, unstartable, inputs, ..
            } = made;
            format!(
                "{ir:?} {canonical} {document:?} {hash:?} {warnings:?} {unavailable:?} {unstartable:?} {inputs:?}"
            )
        }
        Err(refused) => format!("{refused:?}"),
    }
}

/// Compares both ways for one patch; gives the document that follows.
fn compare(base: &Compiled, patch: &Patch) -> Result<Option<Compiled>, TestCaseError> {
    let new = patch.apply(&base.document);
    prop_assert_eq!(&new, &by_library(&patch.parsed, &base.document), "{}", patch.operations);
    let Ok(next) = new else { return Ok(None) };
    let old = compile_canonical(next.to_json().as_bytes());
    for known in [None, Some(&base.known)] {
        let made = compile_made(&next, known);
        prop_assert_eq!(all(&made), all(&old), "{}", patch.operations);
    }
    let (fresh, known) = (candidate(&base.document, patch), candidate(base, patch));
    let told = |made: &Result<Candidate, Refusal>| match made {
        Ok(made) => Ok((made.compiled.hash, made.touched.clone(), made.added.clone(), made.removed.clone())),
        Err(refused) => Err(refused.clone()),
    };
    prop_assert_eq!(told(&fresh), told(&known), "{}", patch.operations);
    if let Err(refused) = old {
        prop_assert_eq!(told(&known), Err(wrong(&patch.parsed, &refused.errors)), "{}", patch.operations);
    }
    // What is known of it is what is known of a document that nothing was known of.
    Ok(compile_made(&next, Some(&base.known)).ok())
}

/// A document with expressions, schemas, bodies, a review, and numbers that texts spell in several ways.
const RICH: &str = r#"
name: rich
metadata: {a: 1, b: {c: [1, 2.5, 1e300, 9007199254740991], "é\u0001": "\u2028"}, "\ue000": 1, "\U0001F600": 2}
inputs: {type: object, properties: {n: {type: integer}}}
limits: {nodes: 12, deadline: 2h}
nodes:
  n0: {type: task, with: {queue: q, payload: {x: "${ inputs.n + 1 }"}}}
  n1: {type: function, with: {expr: "1"}, output_schema: {type: integer}}
  n2: {type: task, metadata: {list: [1, 2, 3]}, needs: [n1]}
  n3: {type: map, with: {over: "[1, 2]", body: {type: function, with: {expr: "item + 1"}}}}
  n4: {type: function, with: {expr: "nodes.n1.output + inputs.n"}, needs: [n1], output_schema: {type: integer}}
  n6: {type: human_review, with: {reviewers: [ann]}}
edges: [{from: n0, to: n1}, {from: n1, to: n3, when: "inputs.n > 1"}, {from: n0, to: n6}]
outputs: {x: "${ nodes.n4.output }"}
"#;

fn rich() -> Compiled {
    let text = document(RICH).to_json();
    compile_canonical(text.as_bytes()).unwrap()
}

fn path() -> impl Strategy<Value = String> {
    let known = [
        "/nodes/n0",
        "/nodes/n1/with/expr",
        "/nodes/n1/output_schema",
        "/nodes/n1/output_schema/type",
        "/nodes/n2/metadata/list/0",
        "/nodes/n2/metadata/list/00",
        "/nodes/n2/metadata/list/1",
        "/nodes/n2/metadata/list/3",
        "/nodes/n2/metadata/list/4",
        "/nodes/n2/metadata/list/-",
        "/nodes/n2/metadata/list/x",
        "/nodes/n2/metadata/list/0/x",
        "/nodes/n2/metadata",
        "/nodes/n3/with/body",
        "/nodes/n3/with/body/with/expr",
        "/nodes/n3/with/over",
        "/nodes/n4",
        "/nodes/n4/with/expr",
        "/nodes/n4/needs",
        "/nodes/n5",
        "/nodes/n5/with",
        "/nodes/n6",
        "/nodes/n6/with/reviewers/0",
        "/nodes/n7",
        "/edges/n0~1n1",
        "/edges/n1~1n3/when",
        "/edges/n1~1n4",
        "/edges/n4~1n5",
        "/edges/n5~1n0",
        "/edges/n0~1n6",
        "/metadata/a",
        "/metadata/b/c/1",
        "/metadata/b/c/-",
        "/metadata/d",
        "/metadata/b",
        "/metadata",
        "/edges",
        "/nodes",
    ];
    prop::sample::select(known.to_vec()).prop_map(str::to_owned)
}

fn small() -> impl Strategy<Value = Value> {
    let known = [
        "1",
        "2.0",
        "-0.0",
        "1e400000000000000000000",
        "2.5",
        "1e300",
        "9007199254740992",
        "9007199254740993",
        "18446744073709549568",
        "null",
        "{}",
        "[]",
        "true",
        r#""true""#,
        r#""1""#,
        r#""item + 1""#,
        r#""inputs.n + 2""#,
        r#""inputs.n +""#,
        r#""nodes.n9.output""#,
        r#""${ inputs.n }""#,
        r#"["n1"]"#,
        r#"["n9"]"#,
        r#"{"type": "task"}"#,
        r#"{"type": "task", "with": {"queue": "q"}, "needs": ["n0"]}"#,
        r#"{"type": "function", "with": {"expr": "inputs.n + 1"}, "needs": ["n4"]}"#,
        r#"{"type": "function", "with": {"expr": "nodes.n1.output"}, "output_schema": {"type": "integer"}}"#,
        r#"{"type": "function", "with": {"expr": "1"}, "output_schema": {"type": "nothing"}}"#,
        r#"{"type": "human_review", "with": {"reviewers": []}}"#,
        r#"{"type": "nonsense"}"#,
        r#"{"from": "n1", "to": "n4"}"#,
        r#"{"when": "inputs.n > 1"}"#,
        r#"{"x": [null, "y", 1.5]}"#,
        r#"{"type": "map", "with": {"over": "[1]", "body": {"type": "function", "with": {"expr": "item + 1"}}}}"#,
    ];
    prop::sample::select(known.to_vec())
        .prop_filter_map("is JSON", |text| Value::from_json(text.as_bytes()).ok())
}

fn operation() -> impl Strategy<Value = Value> {
    let six = prop::sample::select(Verb::ALL.to_vec());
    let plain = (six, path(), path(), small()).prop_map(|(verb, path, from, value)| {
        Value::map([
            ("op", Value::from(verb.name())),
            ("path", Value::string(path)),
            ("from", Value::string(from)),
            ("value", value),
        ])
    });
    let node = (0_u8..9, small()).prop_map(|(n, node)| {
        let id = [("id".into(), Value::string(format!("n{n}")))];
        let members = match &node {
            Value::Map(map) => map.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
            _ => vec![(std::sync::Arc::from("type"), Value::from("task"))],
        };
        Value::map([
            ("op", Value::from("add")),
            ("path", Value::from("/nodes/-")),
            ("value", Value::map(members.into_iter().chain(id))),
        ])
    });
    let edge = (0_u8..9, 0_u8..9).prop_map(|(a, b)| {
        value(&format!(r#"{{"op": "add", "path": "/edges/-", "value": {{"from": "n{a}", "to": "n{b}"}}}}"#))
    });
    prop_oneof![4 => plain, 2 => node, 1 => edge]
}

fn patches() -> impl Strategy<Value = Patch> {
    prop::collection::vec(operation(), 1..5)
        .prop_filter_map("is one", |operations| read(&Value::list(operations)).ok())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    // F095, F098
    #[test]
    fn a_patch_gives_what_it_gave_through_the_library_and_through_text(drawn in prop::collection::vec(patches(), 1..6)) {
        let mut base = rich();
        for patch in drawn {
            // A document that patches made is what the next one is put on.
            if let Some(next) = compare(&base, &patch)? {
                base = next;
            }
        }
    }
}

// F095, F098
#[test]
fn what_is_too_much_is_refused_as_it_was() {
    let base = rich();
    let mut checked = 0;
    let mut same = |operations: &str| {
        let patch = patch(operations);
        compare(&base, &patch).unwrap();
        checked += usize::from(candidate(&base, &patch).is_err());
    };
    // Copies that grow beyond a document, and by numbers of values.
    let many = vec!["0"; 50_000].join(",");
    let double = r#"{"op": "copy", "from": "/metadata/d", "path": "/metadata/e"}, {"op": "add", "path": "/metadata/f", "value": {}}"#;
    let copies: Vec<String> = (0..6)
        .map(|n| format!(r#"{{"op": "copy", "from": "/metadata/d", "path": "/metadata/f/x{n}"}}"#))
        .collect();
    same(&format!(
        r#"[{{"op": "add", "path": "/metadata/d", "value": [{many}]}}, {double}, {}]"#,
        copies.join(",")
    ));
    // Text of a document that is a little too long, all of it escapes.
    let long = "\\u0001".repeat(20_000);
    let add = |n: usize| format!(r#"{{"op": "add", "path": "/metadata/x{n}", "value": "{long}"}}"#);
    same(&format!("[{}, {}]", add(0), r#"{"op": "copy", "from": "/metadata/x0", "path": "/metadata/y0"}"#));
    let more: Vec<String> = (0..9)
        .map(|n| format!(r#"{{"op": "copy", "from": "/metadata/x0", "path": "/metadata/y{n}"}}"#))
        .collect();
    same(&format!("[{}, {}]", add(0), more.get(..8).unwrap().join(",")));
    same(&format!("[{}, {}]", add(0), more.join(",")));
    // Too deep.
    let deep = format!("{}1{}", "[".repeat(40), "]".repeat(40));
    same(&format!(
        r#"[{{"op": "add", "path": "/metadata/d", "value": {deep}}},
            {{"op": "copy", "from": "/metadata/d", "path": "/metadata/d/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0"}}]"#
    ));
    assert!(checked >= 3, "{checked} refused");
}
