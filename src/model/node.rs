//! Kinds of nodes and their settings, as written.
//!
//! What this node cannot do yet keeps `with` whole ([`Kind::Other`]), so that its documents can be checked and shown.

mod canonical;

use std::sync::Arc;
use std::time::Duration;

use super::workflow::{Graph, Written};
use super::{Priority, Value};

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
    /// What is said about retries.
    pub retry: Option<Retry>,
    /// `timeout`.
    pub timeout: Option<Duration>,
    /// JSON Schema of its output.
    pub output_schema: Option<Written>,
    /// What takes its place when its attempts are used up.
    pub fallback: Option<Fallback>,
    /// `at_most_once: true`.
    pub at_most_once: bool,
    /// `priority`.
    pub priority: Option<Priority>,
    /// `x-...` of `with`, as written.
    pub with_rest: Vec<(Arc<str>, Value)>,
    /// Every other common key, as written: `timeout`, `priority`, `cache`, `metadata`, `x-...`.
    pub rest: Vec<(Arc<str>, Value)>,
    /// Where the node stood in the source.
    pub at: String,
}

/// What is said about retries; the rest is the defaults' business.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Retry {
    /// Calls in all; `u32::MAX` for `unlimited: true`.
    pub max_attempts: Option<u32>,
    /// `exponential`, `linear` or `fixed`.
    pub backoff: Option<Arc<str>>,
    /// The first delay.
    pub initial: Option<Duration>,
    /// The longest delay.
    pub max: Option<Duration>,
    /// What each exponential delay is of the one before.
    pub multiplier: Option<f64>,
    /// Whether delays are spread.
    pub jitter: Option<bool>,
    /// In the document, under the names of the language.
    pub written: Value,
}

/// What takes the place of a node whose attempts are used up.
#[derive(Clone, Debug)]
pub enum Fallback {
    /// Its output, a template.
    Value(Written),
    /// A body.
    Body(Box<Graph>),
    /// What the same call brought before.
    Cached {
        /// How long ago at most.
        max_age: Duration,
        /// In the document.
        written: Value,
    },
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
        /// JSON Schema of what the signal brings.
        accepts: Option<Written>,
        /// Id of the node whose output answers an update.
        reply: Option<Written>,
    },
    /// Bodies side by side.
    Parallel {
        /// By name, in order of their names.
        branches: Vec<(Arc<str>, Graph)>,
        /// The output is `{parallel_results: [...]}`, with the branches in this order (`results`).
        results: Option<Vec<Arc<str>>>,
    },
    /// A body while a condition holds.
    Loop {
        /// CEL.
        condition: Written,
        /// The body.
        body: Box<Graph>,
        /// Most passes.
        max_iterations: u32,
        /// `fail` or `continue`, when said.
        on_exhausted: Option<Arc<str>>,
    },
    /// A body as one node.
    Composite {
        /// The body.
        body: Box<Graph>,
    },
    /// Another workflow.
    Child {
        /// `name`, `name@version` or `name@tag`.
        workflow: Arc<str>,
        /// `cancel` or `abandon`, when said.
        parent_close: Option<Arc<str>>,
    },
    /// Asks a human.
    HumanReview {
        /// Template of their names.
        reviewers: Option<Written>,
        /// Duration.
        timeout: Option<Written>,
        /// Who is asked later.
        escalate: Vec<Escalation>,
        /// `reject`, `approve` or `fail`, when said.
        on_timeout: Option<Arc<str>>,
        /// JSON Schema of the answer.
        form: Option<Value>,
        /// Template of what they are shown.
        data: Option<Written>,
        /// `optional` or `required`, when said.
        reason: Option<Arc<str>>,
        /// The rule that put it there (docs/policy.md).
        policy: Option<Arc<str>>,
    },
    /// `http`, `task`, `agent`: done by somebody else.
    Call {
        /// Which of them.
        name: &'static str,
        /// Its settings, as written.
        with: Written,
    },
    /// A known kind with settings that this node cannot honour.
    Other {
        /// Its name, never an alias.
        name: &'static str,
        /// Its settings, as written.
        with: Written,
    },
}

/// One step of an escalation.
#[derive(Clone, Debug)]
pub struct Escalation {
    /// Duration from the start.
    pub after: Written,
    /// Template of their names.
    pub to: Written,
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
