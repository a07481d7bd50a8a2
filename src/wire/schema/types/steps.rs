//! A node in the steps spelling.

#![expect(dead_code, reason = "schemars takes the shape of the fields; nobody reads them")]

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::json;

use super::node::{OnError, Outputs, Tags, Type};
use super::{Any, Duration, Id, Retry};

/// A node in the steps spelling.
pub(super) struct Step;

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
    /// Words about what it does, for rules of the node that ask a human first.
    tags: Option<Any>,
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
    tags: Option<Tags>,
}
