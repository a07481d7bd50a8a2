//! What nodes do: one variant a kind, with its settings compiled.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Expr, Schema, Template};
use crate::model::Value;

/// What a node does.
#[derive(Clone, Debug)]
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
    /// Several bodies side by side; output is an object by branch.
    Parallel {
        /// Name and index of the body's scope, in document order.
        branches: Vec<(Arc<str>, u32)>,
        /// The output is `{parallel_results: [...]}` instead (steps spelling).
        results: bool,
    },
    /// A body again and again while a condition holds; output is that of the last pass, null without any.
    Loop {
        /// Evaluated before each pass; roots `iteration` (of the pass that would begin), `input` (what it would be given) and
        /// `output` (the last pass's, null before the first).
        condition: Expr,
        /// Index of the body's scope.
        body: u32,
        /// Most passes.
        max_iterations: u32,
        /// What happens when the condition still holds after them.
        on_exhausted: OnExhausted,
    },
    /// A body as one node.
    Composite {
        /// Index of the body's scope.
        body: u32,
    },
    /// Another workflow as a run of its own; the node's input is its inputs, its outputs are the node's output.
    Child {
        /// `name`, `name@version` or `name@tag`.
        workflow: Arc<str>,
        /// What becomes of it when nobody waits for it any more.
        parent_close: ParentClose,
    },
    /// Asks a human; output `{approved, reviewer, feedback, form}`.
    HumanReview(Box<Review>),
    /// Something done elsewhere; output is its answer.
    Call {
        /// By whom.
        executor: Executor,
        /// The settings, evaluated into one object. Secrets stay names in it.
        request: Template,
    },
    /// Was in the graph before a patch took it out; keeps its place so that places stay what they were.
    Removed,
    /// Waits for a signal; output is its payload.
    Wait {
        /// The signal's name.
        signal: Template,
        /// How long; afterwards the node fails with `wait_timeout` and its `timeout` edges are live.
        timeout: Option<Duration>,
        /// What the payload must look like.
        accepts: Option<Schema>,
        /// Index, in the same scope, of the node whose output answers an update; `None`: this one's.
        reply: Option<u32>,
    },
}

/// What happens to a loop whose condition still holds after its last pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnExhausted {
    /// It fails with `loop_exhausted`.
    Fail,
    /// Its output is that of the last pass.
    Continue,
}

/// What becomes of a child run when nobody waits for it any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ParentClose {
    /// It is cancelled.
    Cancel,
    /// It goes on.
    Abandon,
}

/// What a review asks for and what becomes of it when nobody answers. Its timeout is the node's.
#[derive(Clone, Debug)]
pub struct Review {
    /// Gives a list of names.
    pub reviewers: Template,
    /// What the reviewers are shown; `None`: the node's input.
    pub data: Option<Template>,
    /// Who is asked after how long, measured from the start; rising.
    pub escalate: Vec<(Duration, Template)>,
    /// What happens when nobody decides in time.
    pub on_timeout: OnTimeout,
    /// What reviewers fill in.
    pub form: Option<Form>,
    /// Nobody may decide without saying why.
    pub reason_required: bool,
    /// The rule that put it there: it fails the node when it is rejected, so that nothing goes on without an approval.
    pub policy: Option<Arc<str>>,
}

/// What reviewers fill in.
#[derive(Clone, Debug)]
pub struct Form {
    /// The JSON Schema as written.
    pub written: Value,
    /// What it says.
    pub schema: Schema,
}

/// What happens to a review that nobody decides in time. Edges `on: timeout` are live in each case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnTimeout {
    /// As if it had been rejected.
    Reject,
    /// As if it had been approved.
    Approve,
    /// It fails with `review_timeout`.
    Fail,
}

/// Who does what a run cannot do itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Executor {
    /// HTTP calls.
    Http,
    /// Workers that ask for jobs.
    Task,
    /// Models with tools.
    Agent,
    /// What the same call brought before.
    Cached,
}

impl Executor {
    /// The kind of node that needs it.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Task => "task",
            Self::Agent => "agent",
            Self::Cached => "cache",
        }
    }
}

/// How long a delay takes.
#[derive(Clone, Debug)]
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
#[derive(Clone, Debug)]
pub enum Merge {
    /// An object by predecessor id.
    Object,
    /// A list.
    Array,
    /// An expression; root `input` is the object.
    Cel(Expr),
}
