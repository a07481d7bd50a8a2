//! `aob agent`: the agents of registered workflows, and what they do.

use clap::Subcommand;
use serde_json::{Map, Value};

use super::Error;
use super::output::Output;
use crate::client::{Call, Client, percent_encoded};

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// List agents, by workflow and role
    List {
        /// Only of this workflow
        #[arg(long)]
        workflow: Option<String>,
        /// At most so many
        #[arg(long, default_value_t = 100)]
        limit: usize,
        /// Go on from an earlier page's `next_cursor`
        #[arg(long)]
        cursor: Option<String>,
    },
    /// Show an agent: its models and their breakers, its tools and limits, what it spent and how it failed last
    Show {
        /// Name of the workflow
        workflow: String,
        /// A role of its `agents`
        role: String,
    },
}

impl Verb {
    pub(super) async fn execute(self, mut client: Client, output: &mut Output) -> Result<(), Error> {
        match self {
            Self::List { workflow, limit, cursor } => {
                let given = [("workflow", workflow), ("cursor", cursor)];
                let given = given.iter().filter_map(|(name, value)| Some((name, value.as_ref()?)));
                let query: String =
                    given.map(|(name, value)| format!("&{name}={}", percent_encoded(value))).collect();
                let answer: Value =
                    client.json(Call::get(format!("/v1/agents?limit={limit}{query}"))).await?;
                if !output.is_table() {
                    return output.rows(&answer, "agents", &[]);
                }
                let columns =
                    ["workflow", "role", "models", "under_way", "calls", "usd", "context_tokens", "failed"];
                output.rows(&widened(&answer), "agents", &columns)
            }
            Self::Show { workflow, role } => {
                let path = format!("/v1/agents/{}/{}", percent_encoded(&workflow), percent_encoded(&role));
                let answer: Value = client.json(Call::get(path)).await?;
                output.document(&answer)
            }
        }
    }
}

/// What goes on beside what each agent is, as columns of one table.
fn widened(answer: &Value) -> Value {
    let row = |agent: &Value| {
        let mut row = Map::new();
        for member in ["workflow", "role"] {
            row.insert(member.into(), agent.get(member).cloned().unwrap_or_default());
        }
        let models = agent.get("models").and_then(Value::as_array).into_iter().flatten();
        let models: Vec<&str> = models.filter_map(Value::as_str).collect();
        row.insert("models".into(), models.join(",").into());
        for member in ["under_way", "calls", "usd", "context_tokens"] {
            let value = agent.get("live").and_then(|live| live.get(member));
            row.insert(member.into(), value.cloned().unwrap_or_default());
        }
        let code = agent.pointer("/live/last_failure/code");
        row.insert("failed".into(), code.cloned().unwrap_or_default());
        Value::Object(row)
    };
    let agents = answer.get("agents").and_then(Value::as_array).into_iter().flatten();
    let mut wide = answer.clone();
    if let Some(answer) = wide.as_object_mut() {
        answer.insert("agents".into(), agents.map(row).collect());
    }
    wide
}
