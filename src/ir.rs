//! The compiled form of a workflow: flat arrays, `u32` indexes, compiled expressions. Made by `compile`, run by
//! `engine`, shared by every run of the document as an `Arc`, never changed.
//!
//! A scope is a DAG of nodes: the workflow itself is scope 0, each body of a `map` is another. Edges of a scope are
//! kept in one array; a node knows its outgoing and incoming ones by index, in document order.

use std::sync::Arc;
use std::time::Duration;

use crate::expr::Program;
use crate::model::Value;
use crate::model::event::DocumentHash;

/// Version of what documents mean. It stands in every `run.started`.
pub const SEMANTICS_VERSION: u32 = 1;

/// One compiled document.
#[derive(Debug)]
pub struct Ir {
    /// Name of the workflow.
    pub name: Arc<str>,
    /// Its version.
    pub version: Arc<str>,
    /// Hash of the canonical document.
    pub document: DocumentHash,
    /// Scope 0 is the workflow.
    pub scopes: Vec<Scope>,
    /// `limits.deadline`.
    pub deadline: Option<Duration>,
    /// `outputs`, evaluated when the run completes; empty: outputs of the nodes nothing follows.
    pub outputs: Vec<(Arc<str>, Template)>,
}

/// A DAG of nodes.
#[derive(Debug, Default)]
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
#[derive(Debug)]
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
    /// Named results: `outputs.<name>` is member `<name>` of this node's output.
    pub outputs: Vec<Arc<str>>,
    /// Indexes into the scope's edges.
    pub incoming: Vec<u32>,
    /// Indexes into the scope's edges; verdicts in events follow this order.
    pub outgoing: Vec<u32>,
}

/// From one node to another.
#[derive(Debug)]
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

/// What a node does.
#[derive(Debug)]
pub enum Kind {
    /// A pure value: `None` is the identity.
    Function {
        /// Root `input` is the node's input.
        expr: Option<Expr>,
    },
    /// A body for each item of a list.
    Map {
        /// Gives the list.
        over: Expr,
        /// Index of the body's scope.
        body: u32,
        /// Items under way at once; `None`: all.
        max_concurrency: Option<u32>,
        /// What a failed item does.
        on_item_error: OnItemError,
    },
    /// Brings branches together. Its policy is in [`Node::policy`].
    Join {
        /// How.
        merge: Merge,
    },
    /// Chooses a branch; output is its input.
    Conditional {
        /// In order; the first that holds is taken.
        branches: Vec<(Arc<str>, Expr)>,
        /// Taken when none holds; without it such a node fails with `no_branch`.
        default: Option<Arc<str>>,
    },
    /// Lets time pass; output null.
    Delay {
        /// How long.
        span: Span,
    },
    /// Waits for a signal; output is its payload.
    Wait {
        /// The signal's name.
        signal: Template,
        /// How long; afterwards the node fails with `wait_timeout` and its `timeout` edges are live.
        timeout: Option<Duration>,
    },
}

/// How long a delay takes.
#[derive(Debug)]
pub enum Span {
    /// From the node's start.
    For(Duration),
    /// A template that gives a duration as text (`90s`, `PT90S`) or as a number of seconds.
    ForExpr(Template),
    /// A template that gives a point in time, RFC 3339.
    Until(Template),
}

/// What a failed item of a map does (`on_item_error`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnItemError {
    /// The map fails.
    Fail,
    /// Its place in the list holds `{error: {...}}`.
    Collect,
    /// Its place is left out.
    Skip,
}

/// How a join merges what arrived, in document order of its incoming live edges.
#[derive(Debug)]
pub enum Merge {
    /// An object by predecessor id.
    Object,
    /// A list.
    Array,
    /// An expression; root `input` is the object.
    Cel(Expr),
}

/// A compiled expression and where each name in it finds its value.
#[derive(Debug)]
pub struct Expr {
    /// The program.
    pub program: Program,
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
    /// The item, `up` bodies outwards (0: the innermost).
    Item {
        /// Bodies outwards.
        up: u32,
    },
    /// The item's index.
    Index {
        /// Bodies outwards.
        up: u32,
    },
    /// `run`: `{id, workflow, version, started_at}`.
    Run,
}

/// A value that may hold expressions.
#[derive(Debug)]
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
#[derive(Debug)]
pub enum Part {
    /// As it stands.
    Text(Arc<str>),
    /// A string as it is, anything else as JSON.
    Expr(Expr),
}

impl Ir {
    /// The scope of the workflow itself.
    pub fn root(&self) -> &Scope {
        static EMPTY: Scope = Scope { nodes: Vec::new(), edges: Vec::new(), output: None, anonymous: false };
        self.scopes.first().unwrap_or(&EMPTY)
    }

    /// `each[3].score` for a place, as users see it; `?` where the place does not fit this IR.
    pub fn path(&self, place: &crate::model::Place) -> String {
        use std::fmt::Write as _;
        let mut path = String::new();
        let mut scope = self.root();
        for (owner, item) in &place.scopes {
            let Some(node) = scope.nodes.get(*owner as usize) else { return String::from("?") };
            if !path.is_empty() && !scope.anonymous {
                path.push('.');
            }
            if !scope.anonymous {
                path.push_str(&node.id);
            }
            let _ = write!(path, "[{item}]");
            match node.kind {
                Kind::Map { body, .. } => match self.scopes.get(body as usize) {
                    Some(inner) => scope = inner,
                    None => return String::from("?"),
                },
                _ => return String::from("?"),
            }
        }
        if !scope.anonymous && place.node != crate::model::Place::PASS {
            if !path.is_empty() {
                path.push('.');
            }
            path.push_str(scope.nodes.get(place.node as usize).map_or("?", |node| &node.id));
        }
        path
    }
}
