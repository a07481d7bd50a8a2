//! `with` of every type of node.

#![expect(dead_code, reason = "schemars takes the shape of the fields; nobody reads them")]

use std::collections::BTreeMap;

use schemars::JsonSchema;

use super::{Any, Body, Cel, Duration, Id, id_pattern};

/// `with` of a function. Without `expr` its output is its input.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Function {
    /// What it gives.
    expr: Option<Cel>,
    /// A WASM module; not available yet.
    wasm: Option<Any>,
    /// The function of the module.
    export: Option<Any>,
}

/// `with` of a map.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Map {
    /// The list.
    over: Cel,
    /// What runs for every item; it sees `item` and `index`.
    body: Body,
    /// Items under way at the same time.
    #[schemars(range(min = 1, max = 10_000))]
    max_concurrency: Option<u32>,
    /// What a failed item does.
    on_item_error: Option<OnItemError>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
enum OnItemError {
    /// The map fails.
    Fail,
    /// Its result is `{error: ...}`.
    Collect,
    /// It has no result.
    Skip,
}

/// `with` of a join.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Join {
    /// How many live edges it waits for.
    wait: Option<JoinWait>,
    /// How what arrives becomes one value.
    merge: Option<Merge>,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum JoinWait {
    Word(JoinWord),
    AtLeast(AtLeast),
}

#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
enum JoinWord {
    All,
    Any,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct AtLeast {
    #[schemars(range(min = 1, max = 50_000))]
    at_least: Option<u32>,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum Merge {
    Word(MergeWord),
    Cel(MergeCel),
}

#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
enum MergeWord {
    /// By id of the predecessor.
    Object,
    /// In the order of the edges.
    Array,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct MergeCel {
    /// `input` is what arrived, by id.
    cel: Cel,
}

/// `with` of a parallel.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Parallel {
    /// Bodies by name; each is given the input of the node.
    #[schemars(extend("minProperties" = 1, "maxProperties" = 256, "propertyNames" = {"pattern": id_pattern()}))]
    branches: BTreeMap<String, Body>,
    /// Order of the results, as a list.
    results: Option<Vec<String>>,
}

/// `with` of a conditional: the first branch whose `when` holds is taken.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Conditional {
    #[schemars(length(max = 256))]
    branches: Vec<Branch>,
    /// The branch, or the node, for everything else.
    default: Option<String>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[schemars(extend("anyOf" = [{"required": ["name"]}, {"required": ["to"]}]))]
struct Branch {
    /// Its name; otherwise that of `to`.
    name: Option<Id>,
    /// The condition.
    when: Cel,
    /// The node it leads to: an edge on this branch.
    to: Option<Id>,
}

/// `with` of a loop.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Loop {
    /// Whether there is another pass. Sees `iteration` (from 0), `input` and `output` of the last pass.
    #[schemars(rename = "while")]
    condition: Cel,
    /// What runs in every pass; it sees `iteration`.
    body: Body,
    /// Most passes.
    #[schemars(range(min = 1, max = 10_000))]
    max_iterations: u32,
    /// What happens when the condition still holds after the last pass.
    on_exhausted: Option<OnExhausted>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
enum OnExhausted {
    Fail,
    Continue,
}

/// `with` of a composite: either a body or a workflow.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[schemars(extend("oneOf" = [{"required": ["body"]}, {"required": ["workflow"]}]))]
pub(super) struct Composite {
    /// A scope of its own, retried as one.
    body: Option<Body>,
    /// `name`, `name@version` or `name@tag`: a child run, whose inputs are the input of the node.
    workflow: Option<String>,
    /// What happens to the child when this run ends.
    parent_close: Option<ParentClose>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
enum ParentClose {
    Cancel,
    Abandon,
}

/// `with` of a human_review.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Review {
    /// Who may decide: a list of names.
    reviewers: Option<Any>,
    /// How long they have.
    timeout: Option<Duration>,
    /// Who is asked later.
    #[schemars(length(max = 16))]
    escalate: Option<Vec<Escalation>>,
    /// What counts when nobody decides.
    on_timeout: Option<OnTimeout>,
    /// JSON Schema of what reviewers fill in.
    form: Option<Any>,
    /// What reviewers are shown.
    data: Option<Any>,
    /// `required`: no decision without a reason.
    reason: Option<ReviewReason>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
enum ReviewReason {
    Optional,
    Required,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Escalation {
    /// How long after the review began; before its timeout.
    after: Duration,
    /// Who is asked then.
    to: Any,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
enum OnTimeout {
    Reject,
    Approve,
    Fail,
}

/// `with` of a delay: either `for` or `until`.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[schemars(extend("oneOf" = [{"required": ["for"]}, {"required": ["until"]}]))]
pub(super) struct Delay {
    /// A duration, or a template that gives one.
    #[schemars(rename = "for")]
    span: Option<Any>,
    /// A point in time (RFC 3339), or a template that gives one.
    until: Option<Any>,
}

/// `with` of a wait.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Wait {
    /// Name of the signal.
    signal: String,
    /// How long it waits; then it fails with `wait_timeout`, and edges on timeout are live.
    timeout: Option<Duration>,
    /// JSON Schema of what the signal brings: what does not fit is refused, or fails the node with `payload_invalid`.
    accepts: Option<Any>,
    /// The node behind this one, in the same scope, whose output answers an update; this one's output otherwise.
    reply: Option<Id>,
}

/// `with` of an http.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Http {
    /// GET when nothing is said.
    method: Option<String>,
    /// Where to.
    url: Option<String>,
    /// Parameters of the query.
    query: Option<Any>,
    /// Headers; `${secret:NAME}` is put in as the request is sent.
    headers: Option<Any>,
    /// Body; anything but text is sent as JSON.
    body: Option<Any>,
    /// Which answers count as success.
    expect: Option<Any>,
}

/// `with` of an agent.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Agent {
    /// A role of `agents`.
    #[schemars(length(min = 1))]
    role: Option<String>,
    /// What it is to do. `{name}` is an earlier output or an input.
    task: Option<String>,
    /// Tools it may use, of those that its role lists if it lists any.
    tools: Option<Vec<Any>>,
    /// JSON Schema of what it gives.
    output_schema: Option<Any>,
    /// Most answers of models; 20 when nothing is said.
    #[schemars(range(min = 1, max = 1_000))]
    max_turns: Option<u32>,
    /// Most tokens of one answer.
    #[schemars(range(min = 1, max = 1_000_000))]
    max_output_tokens: Option<u32>,
    /// How freely a model answers, from 0 to 2.
    #[schemars(range(min = 0, max = 2))]
    temperature: Option<f64>,
    /// What every model is told before the task.
    system: Option<String>,
    /// How much is shown of the conversation; `redacted` when nothing is said, `hash` of vectors.
    capture: Option<Capture>,
    /// Texts that become vectors, one for each, in place of a task: nothing is said then.
    embed: Option<Texts>,
    /// Numbers of each vector; the model's own choice when nothing is said.
    #[schemars(range(min = 1, max = 16_384))]
    dimensions: Option<u32>,
    /// How much of the conversation a model is told.
    memory: Option<Memory>,
}

/// A text or several; an expression may give either.
#[derive(JsonSchema)]
#[schemars(untagged)]
enum Texts {
    One(String),
    Several(Vec<String>),
}

/// How much of a conversation a model is told. What is more is left out, the oldest first.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Memory {
    /// Most tokens of a call, as estimated; all that the model reads when nothing is said.
    #[schemars(range(min = 1, max = 100_000_000))]
    max_tokens: Option<u32>,
    /// Answers that always stay, with what their tools brought; 2 when nothing is said.
    #[schemars(range(min = 1, max = 1_000))]
    keep_turns: Option<u32>,
}

/// How much is shown of a conversation.
#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
pub(super) enum Capture {
    None,
    Hash,
    Redacted,
    Full,
}

/// `with` of a task.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Task {
    /// Workers of this queue take it; the id of the node when nothing is said.
    queue: Option<String>,
    /// What the worker is given; otherwise the input of the node.
    payload: Option<Any>,
}
