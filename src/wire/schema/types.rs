//! The workflow document as Rust types, for its JSON Schema only: comments become descriptions that editors show.
//!
//! The compiler takes documents apart by hand, to say more than "does not fit"; these types follow it. What it leaves
//! unchecked is [`Any`] here.

#![expect(dead_code, reason = "schemars takes the shape of the fields; nobody reads them")]

use std::collections::BTreeMap;

use schemars::transform::{RecursiveTransform, Transform};
use schemars::{JsonSchema, Schema, SchemaGenerator, generate::SchemaSettings, json_schema};
use serde_json::{Value as Json, json};

use crate::limits;

/// The whole schema.
pub(super) fn workflow() -> Json {
    let generator = SchemaSettings::draft2020_12().into_generator();
    let mut schema = generator.into_root_schema_for::<Workflow>();
    RecursiveTransform(plain).transform(&mut schema);
    schema.insert("title".into(), "aob workflow".into());
    schema.into()
}

/// A key that may be left out may not be null, and keys of your own pass everywhere.
fn plain(schema: &mut Schema) {
    let null = json!({"type": "null"});
    if let Some(Json::Array(types)) = schema.get_mut("type")
        && types.len() == 2
        && types.get(1) == Some(&json!("null"))
    {
        let one = types.swap_remove(0);
        schema.insert("type".into(), one);
    }
    if let Some(Json::Array(any)) = schema.get_mut("anyOf")
        && any.len() == 2
        && any.get(1) == Some(&null)
        && let Json::Object(one) = any.swap_remove(0)
    {
        schema.remove("anyOf");
        for (key, value) in one {
            schema.insert(key, value);
        }
    }
    if schema.get("additionalProperties") == Some(&Json::Bool(false)) {
        schema.insert("patternProperties".into(), json!({"^x-": true}));
    }
    // Formats of Rust's numbers say nothing to others.
    schema.remove("format");
}

/// The properties and required keys of `more` beside those of `schema`.
fn with(mut schema: Schema, mut more: Schema) -> Schema {
    if let (Some(Json::Object(own)), Some(Json::Object(added))) =
        (schema.get_mut("properties"), more.get_mut("properties"))
    {
        own.append(added);
    }
    if let Some(Json::Array(added)) = more.get_mut("required") {
        let own = schema.ensure_object().entry("required").or_insert_with(|| json!([]));
        own.as_array_mut().into_iter().for_each(|own| own.append(added));
    }
    schema
}

/// A workflow: nodes and edges, or a list of steps.
struct Workflow;

impl JsonSchema for Workflow {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Workflow".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A workflow: `nodes` and `edges`, or a list of `steps`.",
            "type": "object",
            "if": {"required": ["steps"]},
            "then": generator.subschema_for::<StepsDocument>(),
            "else": generator.subschema_for::<GraphDocument>(),
        })
    }
}

/// A document with nodes and edges.
struct GraphDocument;
/// A document with steps.
struct StepsDocument;

impl JsonSchema for GraphDocument {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "GraphDocument".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        with(Top::json_schema(generator), OfGraph::json_schema(generator))
    }
}

impl JsonSchema for StepsDocument {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "StepsDocument".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        with(Top::json_schema(generator), OfSteps::json_schema(generator))
    }
}

/// Anything: a template whose texts may hold `${ cel }`, or what is not checked.
struct Any;

impl JsonSchema for Any {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Any".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({})
    }
}

/// A workflow document.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Top {
    /// Version of the language.
    #[schemars(extend("const" = "1"))]
    aob: Option<String>,
    /// Name of the workflow.
    name: Option<Name>,
    /// Version of the workflow; registering another document under it is a conflict. Without one, versions are counted.
    version: Option<Version>,
    /// Free-form: description, labels.
    metadata: Option<BTreeMap<String, Json>>,
    /// JSON Schema (2020-12) of what a run is given. Expressions see it as `inputs`.
    #[schemars(extend("type" = ["object", "boolean"]))]
    inputs: Option<Any>,
    /// `full` keeps every event; `fast` is not available yet.
    mode: Option<Mode>,
    /// How long a finished run is kept.
    retention: Option<Duration>,
    /// What holds for every node that does not say otherwise.
    defaults: Option<Defaults>,
    /// Bounds of a run.
    limits: Option<Limits>,
    /// Who may patch a run, and which patches need approval.
    patches: Option<Any>,
    /// Roles that agents take: model, fallback, tools, system.
    agents: Option<Any>,
    /// What a run gives: names to templates, such as `${ nodes.each.output }`.
    outputs: Option<BTreeMap<String, Json>>,
}

#[derive(JsonSchema)]
struct OfGraph {
    nodes: Nodes,
    edges: Option<Edges>,
}

#[derive(JsonSchema)]
struct OfSteps {
    /// Nodes in order. Without any `next_steps` each leads to the next.
    #[schemars(length(min = 1))]
    steps: Vec<Step>,
}

struct Name;

impl JsonSchema for Name {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Name".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": format!("^[A-Za-z0-9_.-]{{1,{}}}$", limits::NAME_BYTES_MAX)})
    }
}

/// Text; a number is taken as it is written.
struct Version;

impl JsonSchema for Version {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Version".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let pattern = format!("^[A-Za-z0-9_.-]{{1,{}}}$", limits::NAME_BYTES_MAX);
        json_schema!({"type": ["string", "number"], "pattern": pattern, "examples": ["1.0"]})
    }
}

/// `90s`, `1h30m`, `500ms`, `7d`, `PT90S`, or a number of seconds.
struct Duration;

impl JsonSchema for Duration {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let parts = "(\\d+w)?(\\d+d)?(\\d+h)?(\\d+m)?(\\d+s)?(\\d+ms)?";
        json_schema!({
            "description": "`90s`, `1h30m`, `500ms`, `7d`, `PT90S`, or a number of seconds.",
            "type": ["string", "number"],
            "pattern": format!("^(P.+|{parts})$"),
            "minLength": 1,
            "minimum": 0,
            "maximum": limits::DURATION_SECONDS_MAX,
            "examples": ["90s", "1h30m"],
        })
    }
}

/// A bare CEL expression, without `${ }`.
struct Cel;

impl JsonSchema for Cel {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Cel".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A bare CEL expression, without `${ }`. Names: inputs, nodes.<id>.output, outputs.<name>, input, \
                            output (on edges), item, index, iteration, run.",
            "type": ["string", "number", "boolean", "null"],
        })
    }
}

/// Names of nodes.
struct Id;

fn id_pattern() -> String {
    format!("^[A-Za-z0-9_-]{{1,{}}}$", limits::NODE_ID_BYTES_MAX)
}

impl JsonSchema for Id {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Id".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"description": "The id of a node.", "type": "string", "pattern": id_pattern()})
    }
}

#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
enum Mode {
    Full,
    Fast,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Defaults {
    /// Longest time of an attempt of a call (http, task, agent, child run).
    timeout: Option<Duration>,
    /// How calls are retried.
    retry: Option<Retry>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Limits {
    /// Longest time of a run; it fails with `deadline_exceeded` after that.
    deadline: Option<Duration>,
    /// Agents that a run may spawn, counted across patches.
    agents: Option<u32>,
    /// Nodes that a run may have.
    nodes: Option<u32>,
    /// Runs with the same key at the same time: `{key, max}`.
    concurrency: Option<Any>,
    /// What a run may cost: `{usd, tokens, warn_at, on_breach}`.
    budget: Option<Any>,
}

/// Which calls are made again, and when. Only failures of class transient and recoverable are retried.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Retry {
    /// Calls in all; 3 when nothing is said.
    #[schemars(range(min = 1, max = 1_000))]
    max_attempts: Option<u32>,
    /// Calls after the first.
    #[schemars(range(min = 0, max = 1_000))]
    max_retries: Option<u32>,
    /// Call without end.
    unlimited: Option<bool>,
    /// How delays grow; exponential when nothing is said.
    backoff: Option<Backoff>,
    /// The first delay; 1s when nothing is said.
    initial: Option<Duration>,
    /// The longest delay; 60s when nothing is said.
    max: Option<Duration>,
    /// What delays grow by; 2 when nothing is said.
    multiplier: Option<Factor>,
    /// Multiply delays by a draw from 0.5 to 1.5; true when nothing is said.
    jitter: Option<bool>,
    /// Another word for `multiplier`; without jitter.
    backoff_base: Option<Factor>,
    /// Another word for `max`.
    max_backoff: Option<Duration>,
    /// Another word for `initial`; `max_retries` then counts calls.
    base_delay: Option<Duration>,
    /// Another word for `max`; `max_retries` then counts calls.
    max_delay: Option<Duration>,
    /// Another word for `multiplier`; `max_retries` then counts calls.
    exponential_base: Option<Factor>,
}

/// A number from 1 to 1000.
struct Factor;

impl JsonSchema for Factor {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Factor".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "number", "minimum": 1, "maximum": 1_000})
    }
}

#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
enum Backoff {
    /// `min(initial * multiplier^n, max)`
    Exponential,
    /// `min(initial * n, max)`
    Linear,
    /// `initial`
    Fixed,
}

/// Nodes by id, or a list of nodes with an `id` each.
struct Nodes;

impl JsonSchema for Nodes {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Nodes".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let node = generator.subschema_for::<Node>();
        json_schema!({
            "description": "Nodes by id, or a list of nodes with an `id` each.",
            "type": ["object", "array"],
            "minProperties": 1,
            "propertyNames": {"pattern": id_pattern()},
            "additionalProperties": node,
            "minItems": 1,
            "items": {"allOf": [node, {"required": ["id"], "properties": {"id": generator.subschema_for::<Id>()}}]},
        })
    }
}

/// Edges by `from/to` or `from/to:on`, or a list of edges.
struct Edges;

impl JsonSchema for Edges {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Edges".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let edge = generator.subschema_for::<Edge>();
        json_schema!({
            "description": "Edges by `from/to` or `from/to:on`, or a list of edges with `from` and `to`.",
            "type": ["object", "array", "null"],
            "additionalProperties": edge,
            "items": {"allOf": [edge, {"required": ["from", "to"]}]},
        })
    }
}

/// From one node to another.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Edge {
    /// The node it leaves.
    from: Option<Id>,
    /// The node it leads to.
    to: Option<Id>,
    /// The end of the source it waits for: success (when nothing is said), error, timeout, approved, rejected, or a branch.
    on: Option<String>,
    /// And only when this holds; `output` is what the source gave.
    when: Option<Cel>,
    /// Free-form.
    metadata: Option<Any>,
}

/// A body: one node, or nodes and edges of a scope of its own.
struct Body;

impl JsonSchema for Body {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Body".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "One node, or `{nodes, edges, outputs}`.",
            "type": "object",
            "if": {"required": ["nodes"]},
            "then": generator.subschema_for::<Inner>(),
            "else": generator.subschema_for::<Node>(),
        })
    }
}

/// Nodes and edges inside a node.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Inner {
    nodes: Nodes,
    edges: Option<Edges>,
    /// What the body gives; otherwise the outputs of its last nodes.
    outputs: Option<Any>,
}

/// What every node may say.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Common {
    /// What it does.
    #[schemars(rename = "type")]
    kind: Type,
    /// Settings of its type.
    with: Option<BTreeMap<String, Json>>,
    /// What it is given. Otherwise the output of its predecessor, or of all by id, or the inputs of the run.
    input: Option<Any>,
    /// Names under which its output is known: `outputs.<name>`.
    outputs: Option<Outputs>,
    /// JSON Schema that its output must fit.
    output_schema: Option<Any>,
    /// Longest time: of an attempt for calls, of the whole for map, loop, parallel, composite and review.
    timeout: Option<Duration>,
    /// Which failures are tried again.
    retry: Option<Retry>,
    /// Whether an earlier result may be used.
    cache: Option<Cache>,
    /// Who goes first when there is much to do.
    priority: Option<Priority>,
    /// `fail` the run, `continue` with null, or go to another node.
    on_error: Option<OnError>,
    /// What stands in when its attempts are used up: `{value: ...}`, a body, or a value.
    fallback: Option<Any>,
    /// Never call twice, even when nobody knows whether the first call arrived.
    at_most_once: Option<bool>,
    /// Nodes before it: edges on success.
    needs: Option<Vec<Id>>,
    /// Free-form.
    metadata: Option<Any>,
    /// Free text.
    description: Option<Any>,
    /// Its id, in a list of nodes.
    id: Option<Any>,
    /// A name for people.
    name: Option<Any>,
}

/// Names of outputs.
struct Outputs;

impl JsonSchema for Outputs {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Outputs".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "array",
            "items": {"type": "string", "minLength": 1, "maxLength": limits::KEY_BYTES_MAX},
            "uniqueItems": true,
        })
    }
}

/// What a node does.
#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum Type {
    /// Evaluates an expression.
    Function,
    /// Runs a body for every item of a list.
    Map,
    /// Brings branches together.
    Join,
    /// Runs several bodies at the same time.
    Parallel,
    /// Takes one of several ways.
    Conditional,
    /// Runs a body while a condition holds.
    Loop,
    /// Runs a body, or another workflow as a child run.
    Composite,
    /// Asks people.
    HumanReview,
    /// Another word for `human_review`.
    Approval,
    /// Waits for a time.
    Delay,
    /// Waits for a signal.
    Wait,
    /// Sends an HTTP request.
    Http,
    /// Another word for `http`.
    HttpRequest,
    /// Asks a model.
    Agent,
    /// Another word for `agent`.
    AgentTask,
    /// Has a worker do something.
    Task,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Cache {
    /// Whether to read and write the cache.
    policy: Option<CachePolicy>,
    /// How long a result may be used.
    ttl: Option<Duration>,
    /// What the result depends on; otherwise the input.
    key: Option<Any>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum CachePolicy {
    Off,
    ReadOnly,
    ReadThrough,
    WriteOnly,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
enum Priority {
    High,
    Medium,
    Low,
}

/// What follows when it fails.
#[derive(JsonSchema)]
#[schemars(untagged)]
enum OnError {
    Word(OnErrorWord),
    Goto(Goto),
}

#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
enum OnErrorWord {
    Fail,
    Continue,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Goto {
    /// The node that goes on: an edge on error.
    goto: Id,
}

/// One node. Its `type` says which settings `with` has.
struct Node;

impl JsonSchema for Node {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Node".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = Common::json_schema(generator);
        let g = generator;
        let kinds: [(&[&str], Schema, bool); 13] = [
            (&["function"], g.subschema_for::<Function>(), false),
            (&["map"], g.subschema_for::<Map>(), true),
            (&["join"], g.subschema_for::<Join>(), false),
            (&["parallel"], g.subschema_for::<Parallel>(), true),
            (&["conditional"], g.subschema_for::<Conditional>(), true),
            (&["loop"], g.subschema_for::<Loop>(), true),
            (&["composite"], g.subschema_for::<Composite>(), true),
            (&["human_review", "approval"], g.subschema_for::<Review>(), false),
            (&["delay"], g.subschema_for::<Delay>(), true),
            (&["wait"], g.subschema_for::<Wait>(), true),
            (&["http", "http_request"], g.subschema_for::<Http>(), false),
            (&["agent", "agent_task"], g.subschema_for::<Agent>(), false),
            (&["task"], g.subschema_for::<Task>(), false),
        ];
        let cases = kinds.into_iter().map(|(names, settings, required)| {
            let mut then = json!({"properties": {"with": settings}});
            if required && let Some(then) = then.as_object_mut() {
                then.insert("required".into(), json!(["with"]));
            }
            json!({"if": {"properties": {"type": {"enum": names}}, "required": ["type"]}, "then": then})
        });
        schema.insert("allOf".into(), cases.collect());
        schema
    }
}

/// `with` of a function. Without `expr` its output is its input.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Function {
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
struct Map {
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
struct Join {
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
struct Parallel {
    /// Bodies by name; each is given the input of the node.
    #[schemars(extend("minProperties" = 1, "maxProperties" = 256, "propertyNames" = {"pattern": id_pattern()}))]
    branches: BTreeMap<String, Body>,
    /// Order of the results, as a list.
    results: Option<Vec<String>>,
}

/// `with` of a conditional: the first branch whose `when` holds is taken.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Conditional {
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
struct Loop {
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
struct Composite {
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
struct Review {
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
struct Delay {
    /// A duration, or a template that gives one.
    #[schemars(rename = "for")]
    span: Option<Any>,
    /// A point in time (RFC 3339), or a template that gives one.
    until: Option<Any>,
}

/// `with` of a wait.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Wait {
    /// Name of the signal.
    signal: String,
    /// How long it waits; then it fails with `wait_timeout`, and edges on timeout are live.
    timeout: Option<Duration>,
}

/// `with` of an http.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Http {
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
struct Agent {
    /// A role of `agents`.
    #[schemars(length(min = 1))]
    role: Option<String>,
    /// What it is to do. `{name}` is an earlier output or an input.
    task: Option<String>,
    /// Tools it may use.
    tools: Option<Any>,
    /// JSON Schema of what it gives.
    output_schema: Option<Any>,
    /// Most turns of the conversation.
    #[schemars(range(min = 1, max = 10_000))]
    max_turns: Option<u32>,
    /// What is kept of the conversation.
    capture: Option<Any>,
}

/// `with` of a task.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Task {
    /// Workers of this queue take it; the id of the node when nothing is said.
    queue: Option<String>,
    /// What the worker is given; otherwise the input of the node.
    payload: Option<Any>,
}

/// A node in the steps spelling.
struct Step;

impl JsonSchema for Step {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Step".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = AnyStep::json_schema(generator);
        // Of a conditional only the condition is read.
        schema.insert("if".into(), json!({"properties": {"type": {"const": "conditional"}}}));
        let checked = PlainStep::json_schema(generator);
        schema.insert("else".into(), json!({"properties": checked.get("properties")}));
        schema
    }
}

/// What every step may say.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct AnyStep {
    /// Its id.
    id: Id,
    /// What it does.
    #[schemars(rename = "type")]
    kind: Type,
    /// Role of an agent.
    agent_role: Option<Any>,
    /// What an agent is to do, or what reviewers are shown.
    task: Option<Any>,
    /// What it is given.
    inputs: Option<Any>,
    /// Names under which its output is known.
    outputs: Option<Any>,
    /// Where it leads. Of a conditional: first when the condition holds, second when not. Of a parallel: its branches.
    next_steps: Option<Vec<Id>>,
    /// Which failures are tried again; `max_retries` counts calls after the first.
    retry_policy: Option<Any>,
    /// Of a conditional or a loop.
    condition: Option<Any>,
    /// Settings of its type, as in a node.
    with: Option<Any>,
    /// Longest time.
    timeout: Option<Any>,
    /// What it is given.
    input: Option<Any>,
    /// `fail` the run, `continue` with null, or go to another node.
    on_error: Option<Any>,
    /// A name for people.
    name: Option<Any>,
    /// Free text.
    description: Option<Any>,
    /// Free-form.
    metadata: Option<Any>,
    /// Most passes of a loop.
    max_iterations: Option<Any>,
}

/// Keys of a step that is no conditional.
#[derive(JsonSchema)]
struct PlainStep {
    outputs: Option<Outputs>,
    retry_policy: Option<Retry>,
    timeout: Option<Duration>,
    on_error: Option<OnError>,
}
