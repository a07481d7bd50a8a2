//! One operation, and the paths in it: JSON Pointers (RFC 6901) to `/nodes`, `/edges`, `/metadata` and below.

use std::sync::Arc;

use crate::compile::finding::quoted;
use crate::compile::pointer;
use crate::limits;
use crate::model::Value;

/// The six of RFC 6902.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Add,
    Remove,
    Replace,
    Move,
    Copy,
    Test,
}

impl Verb {
    pub(super) const ALL: [Self; 6] =
        [Self::Add, Self::Remove, Self::Replace, Self::Move, Self::Copy, Self::Test];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Remove => "remove",
            Self::Replace => "replace",
            Self::Move => "move",
            Self::Copy => "copy",
            Self::Test => "test",
        }
    }

    pub(super) fn has_value(self) -> bool {
        matches!(self, Self::Add | Self::Replace | Self::Test)
    }

    pub(super) fn has_from(self) -> bool {
        matches!(self, Self::Move | Self::Copy)
    }
}

/// One operation.
#[derive(Clone, Debug)]
pub(super) struct Operation {
    pub(super) verb: Verb,
    pub(super) path: Path,
    /// Of a `move` or a `copy`.
    pub(super) from: Option<Path>,
    /// Of an `add`, a `replace` or a `test`.
    pub(super) value: Option<Value>,
    /// Was written as an add at `-`: what has that id or key already is not replaced.
    pub(super) fresh: bool,
}

impl Operation {
    /// As it is stored.
    pub(super) fn to_value(&self) -> Value {
        let from = self.from.as_ref().map(|from| ("from", from.to_value()));
        let value = self.value.clone().map(|value| ("value", value));
        let all = [("op", Value::from(self.verb.name())), ("path", self.path.to_value())];
        Value::map(all.into_iter().chain(from).chain(value))
    }
}

/// What a path begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Root {
    Nodes,
    Edges,
    Metadata,
}

impl Root {
    /// As a document names it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Nodes => "nodes",
            Self::Edges => "edges",
            Self::Metadata => "metadata",
        }
    }
}

/// A JSON Pointer that a patch may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Path {
    /// As written.
    pub(super) text: String,
    pub(super) root: Root,
    /// What comes after the root, unescaped.
    pub(super) below: Vec<Arc<str>>,
}

impl Path {
    /// Reads a pointer; the error says what is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        const ROOTS: &str = "a patch may change /nodes, /edges and /metadata, and what is below them";
        let Some(rest) = text.strip_prefix('/') else {
            return Err(match text {
                "" => format!("the whole document cannot be meant: {ROOTS}"),
                other => format!("{} is no JSON Pointer (RFC 6901): it begins with a slash", quoted(other)),
            });
        };
        let mut steps = rest.split('/');
        if let Some(step) = rest.split('/').find(|step| !is_escaped(step)) {
            return Err(format!("{} is no step of a JSON Pointer: ~ is written ~0, / is ~1", quoted(step)));
        }
        let root = match steps.next().map(pointer::unescape).as_deref() {
            Some("nodes") => Root::Nodes,
            Some("edges") => Root::Edges,
            Some("metadata") => Root::Metadata,
            _ => return Err(format!("{} is closed to patches: {ROOTS}", quoted(text))),
        };
        let below: Vec<Arc<str>> = steps.map(|step| pointer::unescape(step).into()).collect();
        let path = Self { text: text.to_owned(), root, below };
        path.named()?;
        Ok(path)
    }

    /// Nodes go by id, edges by key; a place in a list means something else after every patch.
    fn named(&self) -> Result<(), String> {
        let Some(step) = self.below.first() else { return Ok(()) };
        let is_index = is_index(step);
        match self.root {
            Root::Nodes if is_index => Err(format!(
                "{} is a place in a list: nodes go by id, such as /nodes/email",
                quoted(&self.text)
            )),
            Root::Nodes if &**step == "-" => Err(format!(
                "{} names no node: only an `add` of a whole node may leave its place open, others name the id, such as \
                 /nodes/email",
                quoted(&self.text)
            )),
            Root::Edges if ends(step).is_none() => {
                let what = if is_index { "a place in a list" } else { "no edge" };
                Err(format!(
                    "{} is {what}: edges go by from/to, or from/to:on, with the slash written ~1, such as \
                     /edges/process~1email; only an `add` of a whole edge may leave it open",
                    quoted(&self.text)
                ))
            }
            _ => Ok(()),
        }
    }

    /// The path of a node or an edge.
    pub(super) fn of(root: Root, name: &str) -> Self {
        Self { text: pointer::join(&format!("/{}", root.name()), name), root, below: vec![name.into()] }
    }

    /// Steps in all.
    pub(super) fn depth(&self) -> usize {
        1 + self.below.len()
    }

    /// The longest step, when it is longer than a key may be.
    pub(super) fn overlong(&self) -> Option<usize> {
        self.below.iter().map(|step| step.len()).find(|length| *length > limits::KEY_BYTES_MAX)
    }

    /// Is this path strictly below `other`?
    pub(super) fn is_below(&self, other: &Self) -> bool {
        self.root == other.root
            && self.below.len() > other.below.len()
            && self.below.starts_with(&other.below)
    }

    /// Does a map of `document` have a member at this path? What is added to a list takes nobody's place.
    pub(super) fn is_member(&self, document: &Value) -> bool {
        let (mut parents, last) = self.split();
        let parent = parents.try_fold(document, |at, step| match at {
            Value::List(items) => items.get(step.parse::<usize>().ok()?),
            other => other.get(step),
        });
        parent.is_some_and(|parent| parent.get(last).is_some())
    }

    /// Every step but the last, and the last.
    fn split(&self) -> (impl Iterator<Item = &str>, &str) {
        let root = self.root.name();
        let (parents, last) = match self.below.split_last() {
            Some((last, below)) => (Some((root, below)), &**last),
            None => (None, root),
        };
        let parents = parents
            .into_iter()
            .flat_map(|(root, below)| std::iter::once(root).chain(below.iter().map(|step| &**step)));
        (parents, last)
    }

    fn steps(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.root.name()).chain(self.below.iter().map(|step| &**step))
    }

    /// What stands there.
    pub(super) fn find<'d>(&self, document: &'d Value) -> Option<&'d Value> {
        self.steps().try_fold(document, |at, step| match at {
            Value::Map(map) => map.get(step),
            Value::List(items) => items.get(place(step)?),
            _ => None,
        })
    }

    /// What stands there, to be changed: whatever leads there is this document's own then.
    pub(super) fn find_mut<'d>(&self, document: &'d mut Value) -> Option<&'d mut Value> {
        down(document, self.steps())
    }

    /// What holds it, or would, to be changed, and the last step.
    pub(super) fn holder_mut<'d>(&self, document: &'d mut Value) -> Option<(&'d mut Value, &str)> {
        let (parents, last) = self.split();
        Some((down(document, parents)?, last))
    }

    fn to_value(&self) -> Value {
        Value::string(self.text.as_str())
    }
}

fn down<'d, 's>(document: &'d mut Value, steps: impl Iterator<Item = &'s str>) -> Option<&'d mut Value> {
    let mut steps = steps;
    steps.try_fold(document, |at, step| match at {
        Value::Map(map) => Arc::make_mut(map).get_mut(step),
        Value::List(items) => Arc::make_mut(items).get_mut(place(step)?),
        _ => None,
    })
}

/// A place in a list, by RFC 6901: digits without a leading zero.
pub(super) fn place(step: &str) -> Option<usize> {
    let is_index = is_index(step) && (step == "0" || !step.starts_with('0'));
    is_index.then(|| step.parse().ok()).flatten()
}

fn is_escaped(step: &str) -> bool {
    step.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']))
}

/// A step that a list would take for an index.
pub(super) fn is_index(step: &str) -> bool {
    !step.is_empty() && step.bytes().all(|byte| byte.is_ascii_digit())
}

/// The nodes that an edge's key names.
pub(super) fn ends(key: &str) -> Option<(&str, &str)> {
    key.split_once(':').map_or(key, |(ends, _)| ends).split_once('/')
}
