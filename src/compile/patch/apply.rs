//! Applying operations to a document, one after the other, on a copy: a patch that fails has changed nothing.
//!
//! The library's own way back out of a half applied patch is not used: it cannot undo a `move` whose target is not there.
//! What `copy` makes is bounded before it is made, or a hundred of them would double a document a hundred times.

use json_patch::jsonptr::PointerBuf;
use json_patch::{
    AddOperation, CopyOperation, MoveOperation, PatchErrorKind, PatchOperation, RemoveOperation,
    ReplaceOperation, TestOperation,
};
use serde_json::Value as Json;

use super::operation::{Operation, Path, Root, Verb};
use super::read::too_deep;
use super::{Finding, Layer, Refusal};
use crate::compile::fields::shown;
use crate::compile::finding::quoted;
use crate::limits;
use crate::model::Value;

pub(super) fn apply(operations: &[Operation], document: &Value) -> Result<Value, Refusal> {
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
