//! A workflow as written, normalised: nodes and edges keyed by id, sugar turned into edges. What is stored, hashed,
//! shown and patched is [`Workflow::to_value`] of it (WORKFLOW.md, "Three spellings, one document").
//!
//! These are plain data: `compile` fills them from a document and has checked shapes and names by then. Every part
//! that may hold an expression remembers where it stood in the source, for findings; that is no part of the document.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::budget::Budget;
use super::node::Node;
use super::{Map, Value};

/// `on` of an edge that waits for success; it is left out of the canonical document.
pub const ON_SUCCESS: &str = "success";

/// A value as written, and the JSON Pointer to it in the source.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Written {
    /// As written.
    pub value: Value,
    /// JSON Pointer (RFC 6901) into the source.
    pub at: String,
}

/// `defaults`: what calls are given that do not say it themselves.
#[derive(Clone, Debug, Default)]
pub struct Defaults {
    /// `timeout`.
    pub timeout: Option<std::time::Duration>,
    /// `retry`.
    pub retry: Option<super::node::Retry>,
}

/// `limits.concurrency` and `limits.rate`: what runs wait for before they begin.
#[derive(Clone, Debug, Default)]
pub struct Admission {
    /// So many runs of a key at once.
    pub concurrency: Option<Limited>,
    /// So many runs of a key in a time.
    pub rate: Option<(Limited, std::time::Duration)>,
}

/// A key, and how many.
#[derive(Clone, Debug)]
pub struct Limited {
    /// Text that may hold expressions.
    pub key: Written,
    /// At most.
    pub max: u32,
}

/// One document.
#[derive(Clone, Debug, Default)]
pub struct Workflow {
    /// Its name, when it has one.
    pub name: Option<Arc<str>>,
    /// Its version, when it has one.
    pub version: Option<Arc<str>>,
    /// JSON Schema of the inputs.
    pub inputs: Option<Written>,
    /// Nodes, edges and outputs.
    pub graph: Graph,
    /// What calls are given that do not say it themselves.
    pub defaults: Defaults,
    /// What its runs wait for; part of `rest` as written.
    pub admission: Admission,
    /// What a run may spend; part of `rest` as written.
    pub budget: Option<Budget>,
    /// Who its agents are; part of `rest` as written.
    pub agents: BTreeMap<Arc<str>, Role>,
    /// Everything else at the top, as written: `metadata`, `limits`, `x-...`.
    pub rest: Vec<(Arc<str>, Value)>,
}

/// A role that agents take.
#[derive(Clone, Debug, Default)]
pub struct Role {
    /// Settings of a call, the node's own come before: `models`, `system`, `tools`, `max_turns`, ...
    pub settings: Vec<(Arc<str>, Value)>,
    /// Where it stood in the source.
    pub at: String,
}

/// A scope: the workflow's own or a body's.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    /// By id. A body that is one node has it under the empty id.
    pub nodes: BTreeMap<Arc<str>, Node>,
    /// Sorted by [`Edge::key`] once normalised.
    pub edges: Vec<Edge>,
    /// `outputs`: a map for the workflow, any template for a body.
    pub outputs: Option<Written>,
    /// A body that is one node.
    pub anonymous: bool,
    /// `x-...` of a body, as written.
    pub rest: Vec<(Arc<str>, Value)>,
}

/// From one node to another.
#[derive(Clone, Debug)]
pub struct Edge {
    /// Source.
    pub from: Arc<str>,
    /// Target.
    pub to: Arc<str>,
    /// `success`, `error`, `timeout`, `approved`, `rejected` or a branch.
    pub on: Arc<str>,
    /// CEL.
    pub when: Option<Written>,
    /// `metadata` and `x-...`, as written.
    pub rest: Vec<(Arc<str>, Value)>,
    /// Where the edge stood in the source.
    pub at: String,
}

impl Edge {
    /// `from/to`, or `from/to:on` when it waits for something else than success.
    pub fn key(&self) -> String {
        if &*self.on == ON_SUCCESS {
            format!("{}/{}", self.from, self.to)
        } else {
            format!("{}/{}:{}", self.from, self.to, self.on)
        }
    }

    fn to_value(&self) -> Value {
        let mut entries: Vec<(Arc<str>, Value)> = vec![
            ("from".into(), Value::String(self.from.clone())),
            ("to".into(), Value::String(self.to.clone())),
        ];
        if &*self.on != ON_SUCCESS {
            entries.push(("on".into(), Value::String(self.on.clone())));
        }
        if let Some(when) = &self.when {
            entries.push(("when".into(), when.value.clone()));
        }
        entries.extend(self.rest.iter().cloned());
        Value::map(entries)
    }
}

impl Graph {
    /// The members `nodes`, `edges` and `outputs`, or the only node of an anonymous body.
    pub fn to_value(&self) -> Value {
        match self.nodes.values().next() {
            Some(node) if self.anonymous => node.to_value(),
            _ => Value::map(self.entries()),
        }
    }

    fn entries(&self) -> Vec<(Arc<str>, Value)> {
        let nodes = self.nodes.iter().map(|(id, node)| (id.clone(), node.to_value()));
        let mut entries = vec![("nodes".into(), Value::Map(Arc::new(nodes.collect::<Map>())))];
        if !self.edges.is_empty() {
            entries.push((
                "edges".into(),
                Value::map(self.edges.iter().map(|edge| (edge.key(), edge.to_value()))),
            ));
        }
        if let Some(outputs) = &self.outputs {
            entries.push(("outputs".into(), outputs.value.clone()));
        }
        entries.extend(self.rest.iter().cloned());
        entries
    }
}

impl Workflow {
    /// The canonical document.
    pub fn to_value(&self) -> Value {
        let mut entries = self.graph.entries();
        entries.extend(self.rest.iter().cloned());
        for (key, text) in [("name", &self.name), ("version", &self.version)] {
            if let Some(text) = text {
                entries.push((key.into(), Value::String(text.clone())));
            }
        }
        if let Some(inputs) = &self.inputs {
            entries.push(("inputs".into(), inputs.value.clone()));
        }
        Value::map(entries)
    }
}

/// What changes of all that is noted about a workflow.
#[derive(Clone, Debug, Default)]
pub struct Amendment<'a> {
    /// Notes by key; `None` takes one away.
    pub notes: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    /// Documents that patches made of its versions, by hash.
    pub documents: Vec<(&'a super::event::DocumentHash, &'a [u8])>,
    /// Tags, each with the version that it stands for from now on; `None` takes one away.
    pub tags: Vec<(&'a str, Option<&'a str>)>,
}

/// Notes about a workflow, by key.
pub type Notes = Vec<(Vec<u8>, Vec<u8>)>;
