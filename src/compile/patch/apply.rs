//! Applying operations to a document, one after the other, on a copy: a patch that fails has changed nothing.
//!
//! The copy shares with the document whatever no operation leads to: each step down to a place copies one list or map of
//! references, so what a patch costs follows from the maps it goes through, not from the size of the document. What must hold
//! is what the library for JSON Patch does with the same operations (`tests/old.rs` compares them). What `copy` makes is bounded
//! before it is made, or a hundred of them would double a document a hundred times.

use std::sync::Arc;

use super::operation::{Operation, Path, Root, Verb, place};
use super::read::{depth, too_deep};
use super::{Finding, Layer, Refusal};
use crate::compile::fields::shown;
use crate::compile::finding::quoted;
use crate::limits;
use crate::model::Value;

/// Why an operation does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Misfit {
    /// What stands there is not what was tested for.
    Test,
    /// There is nothing to take.
    From,
    /// There is no such place, or it holds nothing.
    Place,
}

pub(super) fn apply(operations: &[Operation], document: &Value) -> Result<Value, Refusal> {
    let mut next = document.clone();
    let made = open_roots(operations, &mut next);
    let mut copied = 0;
    for (index, operation) in operations.iter().enumerate() {
        if let Some(from) = &operation.from {
            bound(index, operation, from.find(&next), &mut copied)?;
        }
        if operation.fresh && operation.path.find(&next).is_some() {
            return Err(exists(index, &operation.path));
        }
        one(operation, &mut next).map_err(|misfit| refuse(index, operation, misfit, &next))?;
    }
    let is_empty = |value: Option<&Value>| matches!(value, Some(Value::Map(map)) if map.is_empty());
    for key in made.into_iter().chain(["edges"]) {
        if is_empty(next.get(key))
            && let Value::Map(map) = &mut next
        {
            Arc::make_mut(map).remove(key);
        }
    }
    let mut left = limits::VALUE_COUNT_MAX;
    if fits(&next, &mut left) {
        return Ok(next);
    }
    let most = limits::VALUE_COUNT_MAX;
    let message = format!("the document that follows: more than {most} values (limit value_count_max)");
    Err(Refusal::one(Layer::Limit, Finding::new("value_count_max", None, "", message)))
}

/// Are there no more values in it than are left?
fn fits(value: &Value, left: &mut usize) -> bool {
    let Some(rest) = left.checked_sub(1) else { return false };
    *left = rest;
    match value {
        Value::List(items) => items.iter().all(|item| fits(item, left)),
        Value::Map(map) => map.iter().all(|(_, item)| fits(item, left)),
        _ => true,
    }
}

/// A canonical document leaves out `edges` when there are none, and `metadata` need not be there; a path below them
/// finds an empty map.
fn open_roots(operations: &[Operation], document: &mut Value) -> Vec<&'static str> {
    let mut made = Vec::new();
    let Value::Map(map) = document else { return made };
    for root in [Root::Edges, Root::Metadata] {
        let below = |path: &Path| path.root == root && !path.below.is_empty();
        let mut paths =
            operations.iter().flat_map(|operation| [Some(&operation.path), operation.from.as_ref()]);
        if map.get(root.name()).is_none() && paths.any(|path| path.is_some_and(below)) {
            Arc::make_mut(map).insert(root.name().into(), Value::Map(Arc::default()));
            made.push(root.name());
        }
    }
    made
}

/// Applies one operation, by RFC 6902.
fn one(operation: &Operation, document: &mut Value) -> Result<(), Misfit> {
    let path = &operation.path;
    let value = || operation.value.clone().unwrap_or_default();
    let from = || operation.from.as_ref().ok_or(Misfit::From);
    match operation.verb {
        Verb::Add => add(document, path, value()),
        Verb::Remove => remove(document, path).map(drop).ok_or(Misfit::Place),
        Verb::Replace => path.find_mut(document).map(|at| *at = value()).ok_or(Misfit::Place),
        Verb::Move => {
            let moved = remove(document, from()?).ok_or(Misfit::From)?;
            add(document, path, moved)
        }
        Verb::Copy => {
            let copied = from()?.find(document).cloned().ok_or(Misfit::From)?;
            add(document, path, copied)
        }
        Verb::Test => match path.find(document) {
            Some(is) if Some(is) == operation.value.as_ref() => Ok(()),
            Some(_) => Err(Misfit::Test),
            None => Err(Misfit::Place),
        },
    }
}

fn add(document: &mut Value, path: &Path, value: Value) -> Result<(), Misfit> {
    match path.holder_mut(document) {
        Some((Value::Map(map), last)) => Arc::make_mut(map).insert(last.into(), value),
        Some((Value::List(items), last)) => {
            let at = if last == "-" { items.len() } else { place(last).ok_or(Misfit::Place)? };
            let (Some(before), Some(after)) = (items.get(..at), items.get(at..)) else {
                return Err(Misfit::Place);
            };
            let all = before.iter().cloned().chain([value]).chain(after.iter().cloned());
            *items = all.collect();
        }
        _ => return Err(Misfit::Place),
    }
    Ok(())
}

/// Takes out what is there.
fn remove(document: &mut Value, path: &Path) -> Option<Value> {
    match path.holder_mut(document)? {
        (Value::Map(map), last) if map.get(last).is_some() => Arc::make_mut(map).remove(last),
        (Value::List(items), last) => {
            let at = place(last)?;
            let gone = items.get(at).cloned()?;
            let rest = items.iter().enumerate().filter(|(index, _)| *index != at);
            *items = rest.map(|(_, item)| item.clone()).collect();
            Some(gone)
        }
        _ => None,
    }
}

/// What a `move` or a `copy` takes must not end up too deep; what copies make together must fit a document.
fn bound(
    index: usize,
    operation: &Operation,
    source: Option<&Value>,
    copied: &mut usize,
) -> Result<(), Refusal> {
    let Some(source) = source else { return Ok(()) };
    if operation.path.depth() + depth(source) > limits::VALUE_DEPTH_MAX {
        let finding = too_deep(index, operation.path.text.clone());
        return Err(Refusal::one(Layer::Limit, finding));
    }
    if operation.verb == Verb::Copy {
        *copied += source.to_json().len();
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

fn exists(index: usize, path: &Path) -> Refusal {
    let message = format!("{} is there already: an add at - replaces nothing", quoted(&path.text));
    Refusal::one(Layer::Conflict, Finding::new("patch_exists", index, path.text.clone(), message))
}

fn refuse(index: usize, operation: &Operation, misfit: Misfit, document: &Value) -> Refusal {
    let path = &operation.path;
    let name = operation.verb.name();
    let missing = |path: &Path| {
        let message = format!("{name}: there is no {} in the document", quoted(&path.text));
        Finding::new("patch_path_missing", index, path.text.clone(), message)
    };
    let finding = match (misfit, &operation.from) {
        (Misfit::Test, _) => {
            let message = format!(
                "{} is {}, not {}",
                quoted(&path.text),
                path.find(document).map_or_else(|| "something else".into(), shown),
                operation.value.as_ref().map_or_else(String::new, shown)
            );
            Finding::new("patch_test_failed", index, path.text.clone(), message)
        }
        (Misfit::From, Some(from)) => missing(from),
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
