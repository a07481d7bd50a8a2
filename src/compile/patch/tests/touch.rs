//! Which patches get in each other's way.

use super::*;

const NODE: &str = r#"{"op": "add", "path": "/nodes/-", "value": {"id": "n", "type": "task"}}"#;
const OTHER: &str = r#"{"op": "add", "path": "/nodes/-", "value": {"id": "m", "type": "task"}}"#;
const TO_NODE: &str = r#"{"op": "add", "path": "/edges/-", "value": {"from": "p", "to": "n"}}"#;
const TO_OTHER: &str = r#"{"op": "add", "path": "/edges/-", "value": {"from": "p", "to": "m"}}"#;
const CHANGE: &str = r#"{"op": "replace", "path": "/nodes/p/with/expr", "value": "1"}"#;
const TAKE: &str = r#"{"op": "remove", "path": "/nodes/p"}"#;
const NOTE: &str = r#"{"op": "add", "path": "/metadata/a", "value": 1}"#;
const SEE: &str = r#"{"op": "test", "path": "/nodes/p/type", "value": "task"}"#;
const ALL: &str = r#"{"op": "test", "path": "/nodes", "value": {}}"#;
const WHOLE: &str = r#"{"op": "replace", "path": "/edges", "value": {}}"#;
const COPY: &str = r#"{"op": "copy", "from": "/nodes/p", "path": "/nodes/q"}"#;
const MOVE: &str = r#"{"op": "move", "from": "/nodes/p", "path": "/nodes/r"}"#;
const NEEDS: &str = r#"{"op": "add", "path": "/nodes/k", "value": {"type": "task", "needs": ["p"]}}"#;
const NEEDS_LATE: &str = r#"{"op": "add", "path": "/nodes/k/needs", "value": ["p"]}"#;
const BRANCH: &str =
    r#"{"op": "add", "path": "/nodes/k/with/branches/-", "value": {"when": "true", "to": "p"}}"#;
const GOTO: &str = r#"{"op": "add", "path": "/nodes/k/on_error/goto", "value": "p"}"#;
const SEE_EDGE: &str = r#"{"op": "test", "path": "/edges/p~1n", "value": {}}"#;
const SEE_NOTE: &str = r#"{"op": "test", "path": "/metadata/b", "value": 1}"#;

fn touched(operations: &str) -> Touched {
    patch(&format!("[{operations}]")).touched()
}

#[test]
fn a_patch_says_what_it_touches() {
    let both = touched(&format!("{NODE}, {TO_NODE}, {NOTE}, {SEE}"));
    let names = |names: &std::collections::BTreeSet<std::sync::Arc<str>>| -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    };
    assert_eq!(
        (names(&both.nodes), names(&both.edges), both.metadata),
        (vec!["n".into()], vec!["p/n".into()], true)
    );
    let moved = touched(&format!("{MOVE}, {COPY}"));
    assert_eq!(names(&moved.nodes), ["p", "q", "r"]);
    let sugar = touched(&format!("{NEEDS}, {BRANCH}, {GOTO}"));
    assert_eq!(names(&sugar.edges), ["k/p:error", "k/p:p", "p/k"]);
    let none = touched(&format!("{SEE}, {ALL}"));
    assert!(none.nodes.is_empty() && none.edges.is_empty() && !none.metadata);
}

#[test]
fn patches_overlap_where_one_changes_what_the_other_relies_on() {
    // D3
    let cases = [
        (NODE, OTHER, false),
        (NODE, NODE, true),
        // Two edges from one node that nobody touches.
        (TO_NODE, TO_OTHER, false),
        (TO_NODE, TO_NODE, true),
        (TO_NODE, CHANGE, true),
        (TO_NODE, TAKE, true),
        (TO_OTHER, NODE, false),
        (NOTE, NOTE, true),
        (NOTE, NODE, false),
        (NOTE, SEE_NOTE, true),
        (SEE_NOTE, SEE_NOTE, false),
        (SEE, SEE, false),
        (SEE, CHANGE, true),
        (SEE, TO_NODE, false),
        (SEE_EDGE, TO_NODE, true),
        (SEE_EDGE, TO_OTHER, false),
        (ALL, NODE, true),
        (ALL, TO_NODE, false),
        (WHOLE, TO_NODE, true),
        (WHOLE, NODE, false),
        (WHOLE, NEEDS, true),
        (COPY, SEE, false),
        (COPY, CHANGE, true),
        (COPY, COPY, true),
        (MOVE, SEE, true),
        (NEEDS, TAKE, true),
        (NEEDS_LATE, TAKE, true),
        (BRANCH, TAKE, true),
        (GOTO, TAKE, true),
        (NEEDS, NODE, false),
    ];
    for (a, b, overlap) in cases {
        assert_eq!(touched(a).overlaps(&touched(b)), overlap, "{a}\n{b}");
        assert_eq!(touched(b).overlaps(&touched(a)), overlap, "{b}\n{a}");
    }
}
