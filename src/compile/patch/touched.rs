//! What a patch changes and what it looks at: whether two patches can both be applied, in either order, with the same end.
//!
//! Judged by the operations alone, on the safe side: what a node says about edges (`needs`, `goto`, branches with `to`)
//! counts as those edges.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::operation::{Operation, Path, Root, Verb, ends, is_index};
use crate::model::Value;

/// What a patch touches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// Ids of nodes of the outermost scope that it changes, adds or takes out.
    pub nodes: BTreeSet<Arc<str>>,
    /// Keys of edges of the outermost scope, likewise.
    pub edges: BTreeSet<Arc<str>>,
    /// Does it change `metadata`?
    pub metadata: bool,
    /// It changes `/nodes`, `/edges` as a whole.
    whole: Whole,
    /// What a `test` or a `copy` looks at.
    looks: Looks,
}

/// Both maps as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Whole {
    nodes: bool,
    edges: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Looks {
    nodes: BTreeSet<Arc<str>>,
    edges: BTreeSet<Arc<str>>,
    metadata: bool,
    whole: Whole,
}

impl Looks {
    fn at(&mut self, path: &Path) {
        match (path.root, path.below.first()) {
            (Root::Metadata, _) => self.metadata = true,
            (Root::Nodes, None) => self.whole.nodes = true,
            (Root::Edges, None) => self.whole.edges = true,
            (Root::Nodes, Some(id)) => drop(self.nodes.insert(id.clone())),
            (Root::Edges, Some(key)) => drop(self.edges.insert(key.clone())),
        }
    }
}

impl Touched {
    /// Of what differs between two documents.
    pub fn between(diff: &super::Diff) -> Self {
        let keys = |items: &[super::Item]| items.iter().map(|item| item.key.clone()).collect();
        let (nodes, edges) = (keys(&diff.nodes), keys(&diff.edges));
        Self { nodes, edges, metadata: !diff.metadata.is_empty(), ..Self::default() }
    }

    /// Do the two get in each other's way? An edge that one touches does so with a node at its end that the other touches;
    /// edges to a node that neither touches do not.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.metadata && (other.metadata || other.looks.metadata)
            || other.metadata && self.looks.metadata
            || self.disturbs(other)
            || other.disturbs(self)
    }

    /// Does what this one changes change what the other relies on?
    fn disturbs(&self, other: &Self) -> bool {
        let meets = |a: &BTreeSet<Arc<str>>, b: &BTreeSet<Arc<str>>| !a.is_disjoint(b);
        let (nodes, edges) = (other.has_nodes(), other.has_edges());
        if self.whole.nodes && (nodes || edges) || self.whole.edges && edges {
            return true;
        }
        if other.looks.whole.nodes && self.has_changed_nodes()
            || other.looks.whole.edges && self.has_changed_edges()
        {
            return true;
        }
        let at_end = |key: &Arc<str>| {
            ends(key).is_some_and(|(from, to)| self.nodes.contains(from) || self.nodes.contains(to))
        };
        meets(&self.nodes, &other.nodes)
            || meets(&self.nodes, &other.looks.nodes)
            || meets(&self.edges, &other.edges)
            || meets(&self.edges, &other.looks.edges)
            || other.edges.iter().any(at_end)
    }

    fn has_changed_nodes(&self) -> bool {
        self.whole.nodes || !self.nodes.is_empty()
    }

    fn has_changed_edges(&self) -> bool {
        self.whole.edges || !self.edges.is_empty()
    }

    fn has_nodes(&self) -> bool {
        self.has_changed_nodes() || self.looks.whole.nodes || !self.looks.nodes.is_empty()
    }

    fn has_edges(&self) -> bool {
        self.has_changed_edges() || self.looks.whole.edges || !self.looks.edges.is_empty()
    }

    fn changes(&mut self, path: &Path, value: Option<&Value>) {
        match (path.root, path.below.split_first()) {
            (Root::Metadata, _) => self.metadata = true,
            (Root::Nodes, None) => self.whole.nodes = true,
            (Root::Edges, None) => self.whole.edges = true,
            (Root::Nodes, Some((id, rest))) => {
                self.nodes.insert(id.clone());
                if let Some(value) = value {
                    self.edges.extend(sugar(id, &wrapped(rest, value)));
                }
            }
            (Root::Edges, Some((key, _))) => drop(self.edges.insert(key.clone())),
        }
    }
}

pub(super) fn of(operations: &[Operation]) -> Touched {
    let mut touched = Touched::default();
    for operation in operations {
        match (operation.verb, &operation.from) {
            (Verb::Test, _) => {
                touched.looks.at(&operation.path);
                continue;
            }
            (Verb::Move, Some(from)) => touched.changes(from, None),
            (_, Some(from)) => touched.looks.at(from),
            (_, None) => {}
        }
        touched.changes(&operation.path, operation.value.as_ref());
    }
    touched
}

/// As much of a node as a value that is put at `steps` below it says.
fn wrapped(steps: &[Arc<str>], value: &Value) -> Value {
    steps.iter().rev().fold(value.clone(), |inner, step| {
        if is_index(step) || &**step == "-" {
            Value::list(vec![inner])
        } else {
            Value::map([(step.clone(), inner)])
        }
    })
}

/// Keys of the edges that a node asks for itself.
fn sugar(id: &str, node: &Value) -> Vec<Arc<str>> {
    let mut keys: Vec<String> = Vec::new();
    let items = |value: Option<&Value>| match value {
        Some(Value::List(items)) => items.to_vec(),
        _ => Vec::new(),
    };
    let with = node.get("with");
    keys.extend(items(node.get("needs")).iter().filter_map(Value::as_str).map(|from| format!("{from}/{id}")));
    let goto = node.get("on_error").and_then(|on_error| on_error.get("goto")).and_then(Value::as_str);
    keys.extend(goto.map(|to| format!("{id}/{to}:error")));
    let branches = items(with.and_then(|with| with.get("branches")));
    keys.extend(branches.iter().filter_map(|branch| {
        let to = branch.get("to")?.as_str()?;
        let name = branch.get("name").and_then(Value::as_str).unwrap_or(to);
        Some(format!("{id}/{to}:{name}"))
    }));
    let default = with.and_then(|with| with.get("default")).and_then(Value::as_str);
    keys.extend(default.map(|to| format!("{id}/{to}:{to}")));
    keys.into_iter().map(Arc::from).collect()
}
