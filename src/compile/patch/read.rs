//! Layer 1: is every operation one of RFC 6902, within the limits? All are looked at, and every finding is told.

use std::sync::Arc;

use super::operation::{Operation, Path, Root, Verb, is_index};
use super::{Finding, Layer, Refusal};
use crate::compile::document::is_id;
use crate::compile::fields::shown;
use crate::compile::finding::quoted;
use crate::compile::{pointer, read as source};
use crate::limits;
use crate::model::workflow::ON_SUCCESS;
use crate::model::{Map, Value};

/// Findings so far, and the layer that they are of: the first one that refuses.
struct Reading {
    findings: Vec<Finding>,
    layer: Layer,
}

impl Reading {
    fn syntax(&mut self, finding: Finding) {
        self.layer = self.layer.min(Layer::Syntax);
        self.findings.push(finding);
    }

    fn limit(&mut self, finding: Finding) {
        self.findings.push(finding);
    }
}

pub(super) fn read(operations: &Value) -> Result<Vec<Operation>, Refusal> {
    const AT: &str = "/operations";
    let Value::List(items) = operations else {
        let message = format!("operations must be a list, not {}", shown(operations));
        return Err(Refusal::one(Layer::Syntax, Finding::new("patch_operation", None, AT, message)));
    };
    if items.len() > limits::PATCH_OPERATIONS_MAX {
        let message = format!(
            "{} operations; at most {} are allowed (limit patch_operations_max)",
            items.len(),
            limits::PATCH_OPERATIONS_MAX
        );
        return Err(Refusal::one(Layer::Limit, Finding::new("patch_operations_max", None, AT, message)));
    }
    let bytes = operations.to_json().len();
    if bytes > limits::PATCH_BYTES_MAX {
        let message = format!(
            "the operations have {bytes} bytes; at most {} are allowed (limit patch_bytes_max)",
            limits::PATCH_BYTES_MAX
        );
        return Err(Refusal::one(Layer::Limit, Finding::new("patch_bytes_max", None, AT, message)));
    }
    let mut reading = Reading { findings: Vec::new(), layer: Layer::Limit };
    let mut read = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        let at = pointer::index(AT, index);
        let Value::Map(members) = item else {
            let message = format!("an operation must be a map, not {}", shown(item));
            reading.syntax(Finding::new("patch_operation", index, at, message));
            continue;
        };
        read.extend(Member { members, index, at }.operation(&mut reading));
    }
    if reading.findings.is_empty() { Ok(read) } else { Err(Refusal::of(reading.layer, reading.findings)) }
}

/// One operation as written.
struct Member<'v> {
    members: &'v Map,
    index: usize,
    at: String,
}

impl Member<'_> {
    fn wrong(&self, member: &str, message: impl Into<String>) -> Finding {
        let at = if member.is_empty() { self.at.clone() } else { pointer::join(&self.at, member) };
        Finding::new("patch_operation", self.index, at, message)
    }

    /// `None`, and a finding at least, when it is none.
    fn operation(&self, reading: &mut Reading) -> Option<Operation> {
        let verb = self.verb(reading)?;
        let value = if verb.has_value() { self.value(verb, reading) } else { None };
        let from = if verb.has_from() { self.path("from", verb, reading) } else { None };
        let appended = self.appended(verb);
        let (path, value, fresh) = match appended {
            Some(root) => {
                let (path, value) = self.append(root, value?, reading)?;
                (path, Some(value), true)
            }
            None => (self.path("path", verb, reading)?, value, false),
        };
        if value.is_none() == verb.has_value() || from.is_none() == verb.has_from() {
            return None;
        }
        if let Some(from) = from.as_ref().filter(|from| verb == Verb::Move && path.is_below(from)) {
            let message = format!("{} cannot be moved into itself", quoted(&from.text));
            let at = pointer::join(&self.at, "path");
            reading.syntax(Finding::new("patch_path", self.index, at, message));
            return None;
        }
        if !self.is_flat(&path, value.as_ref(), reading) {
            return None;
        }
        Some(Operation { verb, path, from, value, fresh })
    }

    fn verb(&self, reading: &mut Reading) -> Option<Verb> {
        let names = Verb::ALL.map(Verb::name).join(", ");
        let Some(op) = self.members.get("op") else {
            reading.syntax(self.wrong("", format!("an operation has no `op`, which is one of {names}")));
            return None;
        };
        let verb = Verb::ALL.into_iter().find(|verb| op.as_str() == Some(verb.name()));
        if verb.is_none() {
            reading.syntax(self.wrong("op", format!("op must be one of {names}, not {}", shown(op))));
        }
        verb
    }

    /// `value` with numbers as a canonical document has them, so that a `test` compares what they are worth.
    fn value(&self, verb: Verb, reading: &mut Reading) -> Option<Value> {
        let Some(value) = self.members.get("value") else {
            reading.syntax(self.wrong("", format!("{} has no `value`", verb.name())));
            return None;
        };
        if self.is_too_deep(depth(value), reading) {
            return None;
        }
        match source::normal(value, &mut pointer::join(&self.at, "value")) {
            Ok(changed) => Some(changed.unwrap_or_else(|| value.clone())),
            Err(refused) => {
                reading.syntax(Finding::new(
                    refused.code,
                    self.index,
                    refused.pointer.clone(),
                    refused.message.clone(),
                ));
                None
            }
        }
    }

    fn path(&self, member: &str, verb: Verb, reading: &mut Reading) -> Option<Path> {
        let Some(written) = self.members.get(member) else {
            reading.syntax(self.wrong("", format!("{} has no `{member}`", verb.name())));
            return None;
        };
        let Some(text) = written.as_str() else {
            let message = format!("{member} must be a JSON Pointer, not {}", shown(written));
            reading.syntax(self.wrong(member, message));
            return None;
        };
        let at = pointer::join(&self.at, member);
        match Path::parse(text) {
            Err(message) => {
                reading.syntax(Finding::new("patch_path", self.index, at, message));
                None
            }
            Ok(path) => match path.overlong() {
                Some(length) => {
                    let most = limits::KEY_BYTES_MAX;
                    let message =
                        format!("a step of {length} bytes; at most {most} are allowed (limit key_bytes_max)");
                    reading.limit(Finding::new("key_bytes_max", self.index, at, message));
                    None
                }
                None => Some(path),
            },
        }
    }

    /// Is it an add at the end of the nodes or the edges?
    fn appended(&self, verb: Verb) -> Option<Root> {
        match self.members.get("path")?.as_str()? {
            "/nodes/-" if verb == Verb::Add => Some(Root::Nodes),
            "/edges/-" if verb == Verb::Add => Some(Root::Edges),
            _ => None,
        }
    }

    /// A node or an edge at its own place.
    fn append(&self, root: Root, value: Value, reading: &mut Reading) -> Option<(Path, Value)> {
        let at = pointer::join(&self.at, "value");
        let what = if root == Root::Nodes { "a node" } else { "an edge" };
        let Value::Map(members) = &value else {
            reading.syntax(self.wrong("value", format!("{what} must be a map, not {}", shown(&value))));
            return None;
        };
        let mut name = |key: &str| -> Option<&Arc<str>> {
            let message = match members.get(key) {
                Some(Value::String(id)) if is_id(id) && !(root == Root::Nodes && is_index(id)) => {
                    return Some(id);
                }
                Some(Value::String(id)) if is_index(id) => format!(
                    "the id {} has digits only: a path to it would be taken for a place in a list",
                    quoted(id)
                ),
                Some(other) => format!(
                    "{key} must fit [A-Za-z0-9_-]{{1,{}}}, not {}",
                    limits::NODE_ID_BYTES_MAX,
                    shown(other)
                ),
                None => {
                    let message = format!("{what} added at - has no `{key}`, which says where it goes");
                    reading.syntax(Finding::new("patch_operation", self.index, at.clone(), message));
                    return None;
                }
            };
            reading.syntax(Finding::new("patch_operation", self.index, pointer::join(&at, key), message));
            None
        };
        if root == Root::Nodes {
            let id = name("id")?.clone();
            let rest = members.iter().filter(|(key, _)| &***key != "id");
            let rest = Value::map(rest.map(|(key, value)| (key.clone(), value.clone())));
            return Some((Path::of(root, &id), rest));
        }
        let (from, to) = (name("from"), name("to"));
        let on = if members.get("on").is_some() { Some(name("on")?) } else { None };
        let mut key = format!("{}/{}", from?, to?);
        if let Some(on) = on.filter(|on| &***on != ON_SUCCESS) {
            key = format!("{key}:{on}");
        }
        Some((Path::of(root, &key), value))
    }

    /// Where the value goes it may not be nested deeper than any value may.
    fn is_flat(&self, path: &Path, value: Option<&Value>, reading: &mut Reading) -> bool {
        !self.is_too_deep(path.depth() + value.map_or(0, depth), reading)
    }

    fn is_too_deep(&self, depth: usize, reading: &mut Reading) -> bool {
        let is_too_deep = depth > limits::VALUE_DEPTH_MAX;
        if is_too_deep {
            reading.limit(too_deep(self.index, self.at.clone()));
        }
        is_too_deep
    }
}

pub(super) fn too_deep(index: usize, at: String) -> Finding {
    let message = format!(
        "this would be nested deeper than {} levels (limit value_depth_max)",
        limits::VALUE_DEPTH_MAX
    );
    Finding::new("value_depth_max", index, at, message)
}

/// Levels of lists and maps.
pub(super) fn depth(value: &Value) -> usize {
    match value {
        Value::List(items) => 1 + items.iter().map(depth).max().unwrap_or_default(),
        Value::Map(map) => 1 + map.iter().map(|(_, item)| depth(item)).max().unwrap_or_default(),
        _ => 0,
    }
}
