//! The graph of a run at each of its events, folded from its document and its patches by other means than the node's (I-9):
//! RFC 6902 by hand on plain JSON. Nothing is judged here; [`crate::graph`] does.

use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use crate::history::{Dumped, History, Row, text};

/// A change of a run's graph, and what it gave.
pub(crate) struct Change<'a> {
    /// Its `patch.applied`.
    pub(crate) row: &'a Row,
    /// The document from then on, or why there is none.
    pub(crate) document: Result<Value, String>,
}

/// The document that a run began with, where the history has it.
pub(crate) fn base<'a>(history: &'a History, run: &Dumped) -> Option<&'a Value> {
    let hash = run.rows.first().map(|row| text(&row.event, "hash"))?;
    history.documents.get(hash)
}

/// All changes of a run's graph, up to the first that cannot be folded. Without a document there are none.
pub(crate) fn changes<'a>(history: &History, run: &'a Dumped) -> Vec<Change<'a>> {
    let mut changes: Vec<Change<'a>> = Vec::new();
    let Some(base) = base(history, run) else { return changes };
    for pair in run.rows.windows(2) {
        let [asked, row] = pair else { continue };
        if row.kind() != "patch.applied" {
            continue;
        }
        history.step();
        let last = changes.last().map_or(Ok(base), |change| change.document.as_ref());
        let Ok(last) = last else { break };
        let operations = asked.event.get("operations").unwrap_or(&Value::Null);
        let document = if operations.is_null() {
            // A run in fast mode keeps what its patches made, not how.
            let Some(made) = history.documents.get(text(&row.event, "hash")) else { break };
            Ok(made.clone())
        } else {
            patched(last, operations)
        };
        changes.push(Change { row, document });
    }
    changes
}

/// SHA-256 of the canonical form (RFC 8785), as the node writes it.
pub(crate) fn hash(document: &Value) -> String {
    let text = serde_json_canonicalizer::to_string(document).unwrap_or_default();
    let digits: String = Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{digits}")
}

fn patched(document: &Value, operations: &Value) -> Result<Value, String> {
    let mut document = document.clone();
    let operations = operations.as_array().ok_or("it has no operations")?;
    // A document without edges has no member for them.
    if let Some(members) = document.as_object_mut() {
        members.entry("edges").or_insert_with(|| Value::Object(Map::new()));
    }
    for operation in operations {
        apply(&mut document, operation).map_err(|why| format!("{operation}: {why}"))?;
    }
    if document.get("edges").and_then(Value::as_object).is_some_and(Map::is_empty)
        && let Some(members) = document.as_object_mut()
    {
        members.remove("edges");
    }
    Ok(document)
}

/// RFC 6902, 4.
fn apply(document: &mut Value, operation: &Value) -> Result<(), &'static str> {
    let path = text(operation, "path");
    let value = || operation.get("value").cloned().ok_or("it has no value");
    let from = || operation.get("from").and_then(Value::as_str).ok_or("it has no from");
    match text(operation, "op") {
        "add" => add(document, path, value()?),
        "remove" => remove(document, path).map(drop),
        "replace" => {
            let value = value()?;
            let place = document.pointer_mut(path).ok_or("there is nothing to replace")?;
            *place = value;
            Ok(())
        }
        "move" => {
            let value = remove(document, from()?)?;
            add(document, path, value)
        }
        "copy" => {
            let value = document.pointer(from()?).cloned().ok_or("there is nothing to copy")?;
            add(document, path, value)
        }
        "test" => (document.pointer(path) == operation.get("value")).then_some(()).ok_or("the test fails"),
        _ => Err("it is no operation"),
    }
}

/// What holds the member, and its name.
fn place<'a>(document: &'a mut Value, path: &str) -> Result<(&'a mut Value, String), &'static str> {
    let (holder, member) = path.rsplit_once('/').ok_or("the whole document is none of a patch's")?;
    let holder = document.pointer_mut(holder).ok_or("there is nothing that could hold it")?;
    Ok((holder, member.replace("~1", "/").replace("~0", "~")))
}

fn add(document: &mut Value, path: &str, value: Value) -> Result<(), &'static str> {
    match place(document, path)? {
        (Value::Object(members), member) => drop(members.insert(member, value)),
        (Value::Array(items), member) if member == "-" => items.push(value),
        (Value::Array(items), member) => {
            let at = member.parse().ok().filter(|at| *at <= items.len()).ok_or("there is no such place")?;
            items.insert(at, value);
        }
        _ => return Err("nothing can be added there"),
    }
    Ok(())
}

fn remove(document: &mut Value, path: &str) -> Result<Value, &'static str> {
    match place(document, path)? {
        (Value::Object(members), member) => members.remove(&member),
        (Value::Array(items), member) => {
            let at = member.parse().ok().filter(|at| *at < items.len());
            at.map(|at: usize| items.remove(at))
        }
        _ => None,
    }
    .ok_or("there is nothing to remove")
}

/// The edges of the outermost scope.
pub(crate) fn edges(document: &Value) -> impl Iterator<Item = &Value> {
    let edges = document.get("edges");
    let by_id = edges.and_then(Value::as_object).into_iter().flat_map(Map::values);
    by_id.chain(edges.and_then(Value::as_array).into_iter().flatten())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    // RFC 6902, appendix A
    #[test]
    fn the_six_operations_do_what_the_rfc_says() {
        let cases = [
            (
                json!({"a": {"b": 1}}),
                json!([{"op": "add", "path": "/a/x~1y", "value": 2}]),
                json!({"a": {"b": 1, "x/y": 2}}),
            ),
            (
                json!({"a": [1, 3]}),
                json!([{"op": "add", "path": "/a/1", "value": 2}]),
                json!({"a": [1, 2, 3]}),
            ),
            (json!({"a": [1]}), json!([{"op": "add", "path": "/a/-", "value": 2}]), json!({"a": [1, 2]})),
            (json!({"a": 1, "b": 2}), json!([{"op": "remove", "path": "/b"}]), json!({"a": 1})),
            (json!({"a": [1, 2]}), json!([{"op": "remove", "path": "/a/0"}]), json!({"a": [2]})),
            (json!({"a~b": 1}), json!([{"op": "replace", "path": "/a~0b", "value": 2}]), json!({"a~b": 2})),
            (
                json!({"a": {"x": 1}, "b": {}}),
                json!([{"op": "move", "from": "/a/x", "path": "/b/y"}]),
                json!({"a": {}, "b": {"y": 1}}),
            ),
            (json!({"a": 1}), json!([{"op": "copy", "from": "/a", "path": "/b"}]), json!({"a": 1, "b": 1})),
            (json!({"a": 1}), json!([{"op": "test", "path": "/a", "value": 1}]), json!({"a": 1})),
        ];
        for (before, operations, after) in cases {
            assert_eq!(patched(&before, &operations), Ok(after), "{operations}");
        }
    }

    #[test]
    fn what_cannot_be_done_is_said() {
        for operation in [
            json!({"op": "add", "path": "/x/y", "value": 1}),
            json!({"op": "add", "path": "/l/2", "value": 1}),
            json!({"op": "add", "path": "/a"}),
            json!({"op": "remove", "path": "/x"}),
            json!({"op": "remove", "path": "/l/1"}),
            json!({"op": "replace", "path": "/x", "value": 1}),
            json!({"op": "move", "from": "/x", "path": "/y"}),
            json!({"op": "copy", "from": "/x", "path": "/y"}),
            json!({"op": "test", "path": "/a", "value": 2}),
            json!({"op": "other", "path": "/a"}),
        ] {
            assert!(patched(&json!({"a": 1, "l": [1]}), &json!([operation])).is_err(), "{operation}");
        }
    }
}
