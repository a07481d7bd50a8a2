//! The workflow document as Rust types, for its JSON Schema only: comments become descriptions that editors show.
//!
//! The compiler takes documents apart by hand, to say more than "does not fit"; these types follow it. What it leaves
//! unchecked is [`Any`] here.

#![expect(dead_code, reason = "schemars takes the shape of the fields; nobody reads them")]

mod node;
mod settings;
mod steps;

use std::collections::BTreeMap;

use schemars::transform::{RecursiveTransform, Transform};
use schemars::{JsonSchema, Schema, SchemaGenerator, generate::SchemaSettings, json_schema};
use serde_json::{Value as Json, json};

use crate::limits;
use node::Node;
use steps::Step;

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
    /// Roles that agents take, by name.
    agents: Option<BTreeMap<String, Role>>,
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
    /// Runs with the same key at the same time; further ones are `pending`.
    concurrency: Option<Concurrency>,
    /// Runs with the same key that may begin in a time; further ones are `pending`.
    rate: Option<Rate>,
    /// What a run may cost.
    budget: Option<Budget>,
}

/// What a run may spend on models. Checked before each call, with the most that it may take.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Budget {
    /// Dollars in all; text keeps every digit: "5.00".
    usd: Option<Amount>,
    /// Tokens in all, both ways.
    tokens: Option<u64>,
    /// The part of it at which the run says that little is left; 0.8 when nothing is said.
    #[schemars(range(min = 0, max = 1))]
    warn_at: Option<f64>,
    /// What happens to an agent whose next call could cost more than is left; `stop` when nothing is said.
    on_breach: Option<OnBreach>,
    /// Models without a price may be asked although dollars are limited; they count as nothing.
    allow_unpriced: Option<bool>,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum Amount {
    Text(String),
    Number(f64),
}

#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum OnBreach {
    Stop,
    Pause,
    Degrade,
}

/// Who an agent is.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Role {
    /// A name of the node's `models.names`; its default model when nothing is said.
    model: Option<String>,
    /// Models that take its place, the next best first.
    fallback: Option<Models>,
    /// What its agents may use; a node may name some of them.
    tools: Option<Vec<Json>>,
    /// What every model is told before the task.
    system: Option<String>,
    /// Most answers of models; 20 when nothing is said.
    #[schemars(range(min = 1, max = 1_000))]
    max_turns: Option<u32>,
    /// Most tokens of one answer.
    #[schemars(range(min = 1, max = 1_000_000))]
    max_output_tokens: Option<u32>,
    /// How freely a model answers, from 0 to 2.
    #[schemars(range(min = 0, max = 2))]
    temperature: Option<f64>,
    /// How much is shown of the conversation; `redacted` when nothing is said.
    capture: Option<settings::Capture>,
    /// How much of the conversation a model is told.
    memory: Option<settings::Memory>,
    /// So many of its agents have a turn under way at once; the others wait.
    #[schemars(range(min = 1, max = 1_000_000))]
    max_concurrency: Option<u32>,
    /// For whoever reads the document.
    description: Option<Json>,
    /// For whoever reads the document.
    metadata: Option<Json>,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum Models {
    One(String),
    Several(Vec<String>),
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Concurrency {
    /// Text with `${ }` over `inputs` and `run`, 256 bytes at most once filled in.
    key: String,
    /// How many at once.
    #[schemars(range(min = 1, max = 1_000_000))]
    max: u32,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Rate {
    /// Text with `${ }` over `inputs` and `run`, 256 bytes at most once filled in.
    key: String,
    /// How many in the time; so many may begin at once.
    #[schemars(range(min = 1, max = 1_000_000))]
    max: u32,
    /// The time, from 1ms to 24h.
    per: Duration,
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
    /// The same as `fixed`.
    Constant,
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
