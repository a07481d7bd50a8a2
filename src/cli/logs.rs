//! `aob logs stream RUN`: what a run does, a line an event, as it happens; taken up again where a connection broke.

use serde_json::Value;

use super::Error;
use super::output::{Output, harmless};
use super::run::{follow, follow_with};
use crate::client::{Client, Wanted};
use crate::wire::summary;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Verb {
    /// Print what happens in a run until it ends
    Stream {
        /// The run's id
        run: String,
        /// Only of this node, and of those inside it
        #[arg(long)]
        node: Vec<String>,
        /// Only events of this type, such as node.failed or model.*
        #[arg(long)]
        kind: Vec<String>,
        /// Only events from this level on: debug, info, warn, error
        #[arg(long)]
        level: Option<String>,
        /// Only events after this number
        #[arg(long, default_value_t = 0)]
        after: u64,
        /// What happened in fifteen words at most, in place of its parts
        #[arg(long)]
        summaries: bool,
    },
}

impl Verb {
    pub(super) async fn execute(self, client: Client, output: &mut Output) -> Result<(), Error> {
        let Self::Stream { run, node, kind, level, after, summaries } = self;
        let wanted = Wanted { nodes: node, kinds: kind, level: level.into_iter().collect() };
        let from = (after, &wanted);
        if !summaries {
            return follow(client, &run, from, output).await.map(drop);
        }
        follow_with(client, &run, from, &mut |data| summarised(data, output)).await.map(drop)
    }
}

/// A line for a person; for programs the event with its `summary`.
fn summarised(data: &str, output: &mut Output) -> Result<(), Error> {
    let mut row: Value = serde_json::from_str(data).unwrap_or_default();
    let told = summary::of(&row);
    if output.is_table() {
        let seq = row.get("seq").and_then(Value::as_u64).unwrap_or_default();
        return output.line(&format!("{seq:>6}  {}", harmless(&told)));
    }
    if let Some(members) = row.as_object_mut() {
        members.insert(String::from("summary"), told.into());
    }
    output.event(&row.to_string())
}
