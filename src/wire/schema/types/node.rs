//! A node: what every type may say, and which settings each has.

#![expect(dead_code, reason = "schemars takes the shape of the fields; nobody reads them")]

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Value as Json, json};

use super::settings::{
    Agent, Composite, Conditional, Delay, Function, Http, Join, Loop, Map, Parallel, Review, Task, Wait,
};
use super::{Any, Duration, Id, Retry};
use crate::limits;

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
    /// What stands in when its attempts are used up: `{value: ...}`, a body, `{cache: {max_age: ...}}` for what the same call brought
    /// before, or a value.
    fallback: Option<Any>,
    /// Never call twice, even when nobody knows whether the first call arrived.
    at_most_once: Option<bool>,
    /// Nodes before it: edges on success.
    needs: Option<Vec<Id>>,
    /// Words about what it does (`money`, `deletion`, `legal`), for rules of the node that ask a human first.
    tags: Option<Tags>,
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
pub(super) struct Outputs;

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

/// Words about a node.
pub(super) struct Tags;

impl JsonSchema for Tags {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Tags".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "array",
            "items": {"type": "string", "pattern": format!("^[A-Za-z0-9_.:-]{{1,{}}}$", limits::TAG_BYTES_MAX)},
            "maxItems": limits::TAGS_PER_NODE_MAX,
        })
    }
}

/// What a node does.
#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
pub(super) enum Type {
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
pub(super) enum OnError {
    Word(OnErrorWord),
    Goto(Goto),
}

#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
pub(super) enum OnErrorWord {
    Fail,
    Continue,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Goto {
    /// The node that goes on: an edge on error.
    goto: Id,
}

/// One node. Its `type` says which settings `with` has.
pub(super) struct Node;

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
