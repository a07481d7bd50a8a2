//! `aob logs stream RUN` and `tail RUN`: what a run does, a line an event, as it happens; taken up again where a connection broke.

use serde_json::Value;

use super::Error;
use super::output::{Output, harmless};
use super::run::{Over, Which, follow, follow_with};
use crate::client::{Call, Client, Wanted, percent_encoded};
use crate::wire::summary;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Verb {
    /// Print what happens in a run until it ends
    Stream {
        /// Only events after this number
        #[arg(long, default_value_t = 0)]
        after: u64,
        #[command(flatten)]
        how: How,
    },
    /// Print what happens in a run from now on, and the last that did
    Tail {
        /// So many of the last events
        #[arg(long, short = 'n', default_value_t = 10)]
        lines: u64,
        #[command(flatten)]
        how: How,
    },
}

/// Whose events, and how they are shown.
#[derive(Debug, clap::Args)]
pub(super) struct How {
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
    /// What happened in fifteen words at most, in place of its parts
    #[arg(long)]
    summaries: bool,
    /// Over what events come
    #[arg(long, value_enum, default_value_t)]
    transport: Over,
}

impl Verb {
    pub(super) async fn execute(self, mut client: Client, output: &mut Output) -> Result<(), Error> {
        let (after, how) = match self {
            Self::Stream { after, how } => (after, how),
            Self::Tail { lines, how } => {
                let call = Call::get(format!("/v1/runs/{}", percent_encoded(&how.run)));
                let run: Value = client.json(call).await?;
                let seq = run.get("seq").and_then(Value::as_u64).unwrap_or_default();
                (seq.saturating_sub(lines), how)
            }
        };
        let wanted = Wanted { nodes: how.node, kinds: how.kind, level: how.level.into_iter().collect() };
        let which = Which { after, over: how.transport, wanted };
        if !how.summaries {
            return follow(client, &how.run, &which, output).await.map(drop);
        }
        follow_with(client, &how.run, &which, &mut |data| summarised(data, output)).await.map(drop)
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
