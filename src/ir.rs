//! The compiled form of a workflow: flat arrays, `u32` indexes, compiled expressions. Made by `compile`, run by
//! `engine`, shared by every run of the document as an `Arc`, never changed.
//!
//! A scope is a DAG of nodes: the workflow itself is scope 0, each body of a `map`, `parallel`, `loop` or `composite` and
//! each fallback is another. Edges of a scope are kept in one array; a node knows its outgoing and incoming ones by
//! index, in document order.

mod admission;
mod align;
mod kind;
mod schema;

use std::sync::Arc;
use std::time::Duration;

use crate::expr::Program;
pub use crate::model::budget::{Budget, OnBreach};
use crate::model::event::DocumentHash;
use crate::model::{Mode, Place, Priority, Value};

pub use admission::{Admission, Limited};
pub use kind::{Executor, Form, Kind, Merge, OnExhausted, OnItemError, OnTimeout, ParentClose, Review, Span};
pub use schema::{Schema, Violation};

/// Version of what documents mean. It stands in every `run.started`.
pub const SEMANTICS_VERSION: u32 = 1;

/// One compiled document.
#[derive(Clone, Debug)]
pub struct Ir {
    /// Name of the workflow.
    pub name: Arc<str>,
    /// Its version.
    pub version: Arc<str>,
    /// Hash of the canonical document.
    pub document: DocumentHash,
    /// Scope 0 is the workflow.
    pub scopes: Vec<Scope>,
    /// `mode`
    pub mode: Mode,
    /// `limits.deadline`.
    pub deadline: Option<Duration>,
    /// `retention`: how long a finished run is kept, at least. `None`: as the node's configuration says.
    pub retention: Option<Duration>,
    /// `limits.concurrency` and `limits.rate`
    pub admission: Option<Box<Admission>>,
    /// `limits.budget`
    pub budget: Option<Box<Budget>>,
    /// `outputs`, evaluated when the run completes; empty: outputs of the nodes nothing follows.
    pub outputs: Vec<(Arc<str>, Template)>,
}

/// A DAG of nodes.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    /// In an order in which every edge goes forward.
    pub nodes: Vec<Node>,
    /// In document order.
    pub edges: Vec<Edge>,
    /// For a body: what one pass through it gives. `None`: the output of its only last node, or an object of the last
    /// nodes' outputs by id when there are several.
    pub output: Option<Template>,
    /// A body that is one node has no name for it: its path is the owner's item alone.
    pub anonymous: bool,
}

/// One node.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its id in the document.
    pub id: Arc<str>,
    /// What it does.
    pub kind: Kind,
    /// The node's input; `None`: the single live predecessor's output, an object by predecessor id when several are
    /// live, for an entry node the run's inputs (in a body: the item).
    pub input: Option<Template>,
    /// When it is ready.
    pub policy: Policy,
    /// What a failure means when no `error` edge leaves the node.
    pub on_error: OnError,
    /// Whether and when a failed attempt is followed by another. `None`: there is one attempt.
    pub retry: Option<Retry>,
    /// How long an attempt may take: of a call or a child run from its dispatch, of a node with bodies from its start, of
    /// a review until it expires.
    pub timeout: Option<Duration>,
    /// What its output must look like; a node whose output does not fails with `output_schema`.
    pub output_schema: Option<Schema>,
    /// Takes the node's place when its attempts are used up.
    pub fallback: Option<Fallback>,
    /// The call is never made twice, not even when nobody knows what became of it (`node.uncertain`).
    pub at_most_once: bool,
    /// Goes before others when there is more to do than can be done.
    pub priority: Priority,
    /// Named results: `outputs.<name>` is member `<name>` of this node's output.
    pub outputs: Vec<Arc<str>>,
    /// Indexes into the scope's edges.
    pub incoming: Vec<u32>,
    /// Indexes into the scope's edges; verdicts in events follow this order.
    pub outgoing: Vec<u32>,
}

/// From one node to another.
#[derive(Clone, Debug)]
pub struct Edge {
    /// Index of the source.
    pub from: u32,
    /// Index of the target.
    pub to: u32,
    /// How the source must have ended.
    pub on: On,
    /// And what must hold; roots `output` (the source's) and all others.
    pub when: Option<Expr>,
}

/// How the source of an edge must have ended for the edge to be live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum On {
    /// Completed.
    Success,
    /// Failed.
    Error,
    /// Its time ran out. Such an edge is live instead of the `error` ones.
    Timeout,
    /// A conditional took the branch of this name.
    Branch(Arc<str>),
    /// A review was approved. So is `Success` of a review: a gate lets nothing through that was not approved.
    Approved,
    /// A review was rejected.
    Rejected,
}

impl On {
    /// As documents have it.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Success => "success",
            Self::Error => "error",
            Self::Timeout => "timeout",
            Self::Branch(name) => name,
            Self::Approved => "approved",
            Self::Rejected => "rejected",
        }
    }
}

/// When a failed attempt is followed by another (WORKFLOW.md, "Retry and errors"; D11).
#[derive(Clone, Debug, PartialEq)]
pub struct Retry {
    /// Calls in all; `u32::MAX` when unlimited was asked for in so many words.
    pub max_attempts: u32,
    /// How delays grow.
    pub backoff: Backoff,
    /// The first delay.
    pub initial: Duration,
    /// No delay is longer.
    pub max: Duration,
    /// What each exponential delay is of the one before.
    pub multiplier: f64,
    /// Whether delays are multiplied by a draw from 0.5 to 1.5.
    pub jitter: bool,
}

/// How delays grow from retry to retry (n = 0, 1, ...).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backoff {
    /// `initial * multiplier^n`
    Exponential,
    /// `initial * n`
    Linear,
    /// `initial`
    Fixed,
}

/// What takes the place of a node whose attempts are used up.
#[derive(Clone, Debug)]
pub enum Fallback {
    /// Its output.
    Value(Template),
    /// Index of the scope of a body; its output is the node's.
    Body(u32),
}

/// When a node with several incoming edges is ready (WORKFLOW.md, "When does a node run").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// All settled, at least one live.
    All,
    /// The first live one.
    Any,
    /// The k-th live one.
    AtLeast(u32),
}

/// What a failed node does to its run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnError {
    /// The run fails.
    Fail,
    /// The node counts as completed with output null.
    Continue,
}

/// A compiled expression and where each name in it finds its value.
#[derive(Clone, Debug)]
pub struct Expr {
    /// The program.
    pub program: Arc<Program>,
    /// One per entry of `program.references()`.
    pub slots: Vec<Slot>,
}

/// Where a name in an expression finds its value, seen from the scope the expression stands in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Slot {
    /// The run's inputs.
    Inputs,
    /// Output of a node: `up` scopes outwards, node `node` there. Null when it was skipped.
    Node {
        /// 0 is the same scope.
        up: u32,
        /// Index in that scope.
        node: u32,
    },
    /// Member of a node's output, by the node's declared `outputs`.
    Output {
        /// 0 is the same scope.
        up: u32,
        /// Index in that scope.
        node: u32,
        /// Which.
        member: Arc<str>,
    },
    /// The node's input.
    Input,
    /// The source's output, on an edge.
    EdgeOutput,
    /// The item, `up` bodies of any kind outwards (0: the innermost), where a map's is.
    Item {
        /// Bodies outwards.
        up: u32,
    },
    /// The item's index.
    Index {
        /// Bodies outwards.
        up: u32,
    },
    /// The iteration of a loop's pass.
    Iteration {
        /// Bodies outwards.
        up: u32,
    },
    /// In a loop's condition: the iteration that would begin.
    NextIteration,
    /// `run`: `{id, workflow, version, started_at}`.
    Run,
}

/// A value that may hold expressions.
#[derive(Clone, Debug)]
pub enum Template {
    /// No expression in it.
    Value(Value),
    /// Exactly one `${ }`: the value keeps its type.
    Expr(Expr),
    /// Text with `${ }` in it.
    Text(Vec<Part>),
    /// A list with templates in it.
    List(Vec<Template>),
    /// A map with templates in it.
    Map(Vec<(Arc<str>, Template)>),
}

/// A piece of text with expressions.
#[derive(Clone, Debug)]
pub enum Part {
    /// As it stands.
    Text(Arc<str>),
    /// A string as it is, anything else as JSON.
    Expr(Expr),
}

impl Node {
    /// Index of the scope that pass number `pass` of this node goes through.
    pub fn body(&self, pass: u32) -> Option<u32> {
        if pass == Place::FALLBACK {
            return match &self.fallback {
                Some(Fallback::Body(body)) => Some(*body),
                _ => None,
            };
        }
        match &self.kind {
            Kind::Map { body, .. } | Kind::Loop { body, .. } => Some(*body),
            Kind::Composite { body } => (pass == 0).then_some(*body),
            Kind::Parallel { branches, .. } => branches.get(pass as usize).map(|(_, body)| *body),
            _ => None,
        }
    }

    /// Did a patch take the node out?
    pub fn is_removed(&self) -> bool {
        matches!(self.kind, Kind::Removed)
    }

    /// Does the node hand its work to somebody else and wait for the answer?
    pub fn is_call(&self) -> bool {
        matches!(self.kind, Kind::Call { .. } | Kind::Child { .. })
    }
}

impl Ir {
    /// The scope of the workflow itself.
    pub fn root(&self) -> &Scope {
        static EMPTY: Scope = Scope { nodes: Vec::new(), edges: Vec::new(), output: None, anonymous: false };
        self.scopes.first().unwrap_or(&EMPTY)
    }

    /// The node at a place, and its scope; `None` where the place does not fit this IR, or is a pass.
    pub fn at(&self, place: &Place) -> Option<(&Scope, &Node)> {
        let mut scope = self.root();
        for (owner, pass) in &place.scopes {
            let body = scope.nodes.get(*owner as usize)?.body(*pass)?;
            scope = self.scopes.get(body as usize)?;
        }
        Some((scope, scope.nodes.get(place.node as usize)?))
    }

    /// `each[3].score` for a place, as users see it; `?` where the place does not fit this IR.
    ///
    /// A pass is shown as `each[3]`, `retry_loop[2]`, `fan[left]`, `fetch[fallback]`; that of a composite has no number.
    pub fn path(&self, place: &Place) -> String {
        use std::fmt::Write as _;
        let mut path = String::new();
        let mut scope = self.root();
        for (owner, pass) in &place.scopes {
            let Some(node) = scope.nodes.get(*owner as usize) else { return String::from("?") };
            if !path.is_empty() && !scope.anonymous {
                path.push('.');
            }
            if !scope.anonymous {
                path.push_str(&node.id);
            }
            let _ = match &node.kind {
                _ if *pass == Place::FALLBACK => write!(path, "[fallback]"),
                Kind::Composite { .. } => Ok(()),
                Kind::Parallel { branches, .. } => {
                    write!(path, "[{}]", branches.get(*pass as usize).map_or("?", |(name, _)| name))
                }
                _ => write!(path, "[{pass}]"),
            };
            match node.body(*pass).and_then(|body| self.scopes.get(body as usize)) {
                Some(inner) => scope = inner,
                None => return String::from("?"),
            }
        }
        if !scope.anonymous && place.node != Place::PASS {
            if !path.is_empty() {
                path.push('.');
            }
            path.push_str(scope.nodes.get(place.node as usize).map_or("?", |node| &node.id));
        }
        path
    }
}
