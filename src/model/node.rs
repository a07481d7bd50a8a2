//! Kinds of nodes and their settings, as written.
//!
//! Kinds that this node runs have their settings taken apart; those that it knows but cannot run yet keep `with`
//! whole ([`Kind::Other`]), so that their documents can be checked, stored and shown.

use std::sync::Arc;

use super::Value;
use super::workflow::{Graph, Written};

/// One node.
#[derive(Clone, Debug)]
pub struct Node {
    /// What it does.
    pub kind: Kind,
    /// Template of its input.
    pub input: Option<Written>,
    /// Named results.
    pub outputs: Vec<Arc<str>>,
    /// `on_error: continue`.
    pub continues: bool,
    /// `x-...` of `with`, as written.
    pub with_rest: Vec<(Arc<str>, Value)>,
    /// Every other common key, as written: `retry`, `timeout`, `cache`, `metadata`, `x-...`.
    pub rest: Vec<(Arc<str>, Value)>,
    /// Where the node stood in the source.
    pub at: String,
}

/// What a node does.
#[derive(Clone, Debug)]
pub enum Kind {
    /// A pure value.
    Function {
        /// CEL.
        expr: Option<Written>,
    },
    /// A body for each item.
    Map {
        /// CEL.
        over: Written,
        /// The body.
        body: Box<Graph>,
        /// Items under way at once.
        max_concurrency: Option<u32>,
        /// `fail`, `collect` or `skip`, when said.
        on_item_error: Option<Arc<str>>,
    },
    /// Brings branches together.
    Join {
        /// When it is ready.
        wait: Option<Wait>,
        /// How it merges.
        merge: Option<Merge>,
    },
    /// Chooses a branch.
    Conditional {
        /// In order.
        branches: Vec<Branch>,
        /// Name of the branch taken when none holds.
        default: Option<Arc<str>>,
    },
    /// Lets time pass.
    Delay {
        /// Duration text, seconds or a template.
        span: Option<Written>,
        /// A time, or a template of one.
        until: Option<Written>,
    },
    /// Waits for a signal.
    Wait {
        /// Template of its name.
        signal: Written,
        /// Duration.
        timeout: Option<Written>,
    },
    /// A kind of the language that this node does not run, or a known one with settings that it cannot honour.
    Other {
        /// Its name, never an alias.
        name: &'static str,
        /// Its settings, as written.
        with: Written,
    },
}

/// `wait` of a join.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Every incoming edge settled.
    All,
    /// The first live one.
    Any,
    /// The k-th live one.
    AtLeast(u32),
}

/// `merge` of a join.
#[derive(Clone, Debug)]
pub enum Merge {
    /// By predecessor id.
    Object,
    /// A list.
    Array,
    /// CEL.
    Cel(Written),
}

/// A branch of a conditional. Where it leads is said by edges.
#[derive(Clone, Debug)]
pub struct Branch {
    /// Its name.
    pub name: Arc<str>,
    /// CEL.
    pub when: Written,
    /// `x-...`, as written.
    pub rest: Vec<(Arc<str>, Value)>,
}

type Entries = Vec<(Arc<str>, Value)>;

impl Kind {
    /// The kind's name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Function { .. } => "function",
            Self::Map { .. } => "map",
            Self::Join { .. } => "join",
            Self::Conditional { .. } => "conditional",
            Self::Delay { .. } => "delay",
            Self::Wait { .. } => "wait",
            Self::Other { name, .. } => name,
        }
    }

    fn with(&self) -> Entries {
        let mut entries = Entries::new();
        let mut put =
            |key: &str, value: Option<Value>| entries.extend(value.map(|value| (Arc::from(key), value)));
        let written = |written: &Option<Written>| written.as_ref().map(|written| written.value.clone());
        match self {
            Self::Function { expr } => put("expr", written(expr)),
            Self::Map { over, body, max_concurrency, on_item_error } => {
                put("over", Some(over.value.clone()));
                put("body", Some(body.to_value()));
                put("max_concurrency", max_concurrency.map(|limit| Value::Int(limit.into())));
                put("on_item_error", on_item_error.clone().map(Value::String));
            }
            Self::Join { wait, merge } => {
                put("wait", wait.map(Wait::to_value));
                put("merge", merge.as_ref().map(Merge::to_value));
            }
            Self::Conditional { branches, default } => {
                put("branches", Some(Value::list(branches.iter().map(Branch::to_value).collect())));
                put("default", default.clone().map(Value::String));
            }
            Self::Delay { span, until } => {
                put("for", written(span));
                put("until", written(until));
            }
            Self::Wait { signal, timeout } => {
                put("signal", Some(signal.value.clone()));
                put("timeout", written(timeout));
            }
            Self::Other { with, .. } => {
                if let Value::Map(map) = &with.value {
                    entries.extend(map.iter().map(|(key, value)| (key.clone(), value.clone())));
                }
            }
        }
        entries
    }
}

impl Wait {
    fn to_value(self) -> Value {
        match self {
            Self::All => "all".into(),
            Self::Any => "any".into(),
            Self::AtLeast(count) => Value::map([("at_least", Value::Int(count.into()))]),
        }
    }
}

impl Merge {
    fn to_value(&self) -> Value {
        match self {
            Self::Object => "object".into(),
            Self::Array => "array".into(),
            Self::Cel(written) => Value::map([("cel", written.value.clone())]),
        }
    }
}

impl Branch {
    fn to_value(&self) -> Value {
        let own =
            [("name".into(), Value::String(self.name.clone())), ("when".into(), self.when.value.clone())];
        Value::map(self.rest.iter().cloned().chain(own))
    }
}

impl Node {
    /// The node in the canonical document.
    pub fn to_value(&self) -> Value {
        let mut entries = self.rest.clone();
        entries.push(("type".into(), self.kind.name().into()));
        let mut with = self.kind.with();
        with.extend(self.with_rest.iter().cloned());
        if !with.is_empty() {
            entries.push(("with".into(), Value::map(with)));
        }
        if let Some(input) = &self.input {
            entries.push(("input".into(), input.value.clone()));
        }
        if !self.outputs.is_empty() {
            entries.push((
                "outputs".into(),
                Value::list(self.outputs.iter().cloned().map(Value::String).collect()),
            ));
        }
        if self.continues {
            entries.push(("on_error".into(), "continue".into()));
        }
        Value::map(entries)
    }
}
