//! `aob dlq`: work that was given up, done again or put away.

use clap::Subcommand;
use serde_json::Value;

use super::Error;
use super::output::{Output, harmless};
use crate::client::{Call, Client, percent_encoded};

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// List dead letters, those of the newest runs first
    List {
        /// Only of this workflow
        #[arg(long)]
        workflow: Option<String>,
        /// Only with this code, for example http_status
        #[arg(long)]
        code: Option<String>,
        /// Those that were redriven, in place of those that nobody has seen to
        #[arg(long)]
        redriven: bool,
        /// At most so many
        #[arg(long, default_value_t = 100)]
        limit: usize,
        /// Go on from an earlier page's `next_cursor`
        #[arg(long)]
        cursor: Option<String>,
    },
    /// Show a dead letter: how it failed, and what was asked for
    Show {
        /// dead_...
        letter: String,
    },
    /// Do the work again, in a new run that goes on where the other failed; once for each letter
    Redrive {
        /// dead_...
        #[arg(required = true)]
        letters: Vec<String>,
    },
    /// Put dead letters away: these, or all that fit
    #[command(group = clap::ArgGroup::new("which").required(true).multiple(true))]
    Purge {
        /// dead_...
        #[arg(group = "which", conflicts_with_all = ["workflow", "code", "all"])]
        letters: Vec<String>,
        /// Those of this workflow
        #[arg(long, group = "which")]
        workflow: Option<String>,
        /// Those with this code
        #[arg(long, group = "which")]
        code: Option<String>,
        /// Every one of the workspace
        #[arg(long, group = "which")]
        all: bool,
    },
}

impl Verb {
    pub(super) async fn execute(self, mut client: Client, output: &mut Output) -> Result<(), Error> {
        match self {
            Self::List { workflow, code, redriven, limit, cursor } => {
                let status = redriven.then(|| String::from("redriven"));
                let given = [("workflow", workflow), ("code", code), ("status", status), ("cursor", cursor)];
                let call = Call::get(format!("/v1/dlq?limit={limit}{}", query(&given)));
                let answer: Value = client.json(call).await?;
                let columns = ["id", "workflow", "node", "code", "failed_at", "redriven_as"];
                output.rows(&answer, "letters", &columns)
            }
            Self::Show { letter } => {
                let answer: Value = client.json(Call::get(path(&letter, ""))).await?;
                output.document(&answer)
            }
            Self::Redrive { letters } => {
                for letter in letters {
                    let call = Call::post(path(&letter, "/redrive"), "application/json", "{}");
                    let run: Value = client.json(call).await?;
                    if output.is_table() {
                        let run_id = run.get("run_id").and_then(Value::as_str).unwrap_or_default();
                        output.line(&format!("{}  {}", harmless(&letter), harmless(run_id)))?;
                    } else {
                        output.document(&run)?;
                    }
                }
                Ok(())
            }
            Self::Purge { letters, workflow, code, all } => {
                let mut purged = 0;
                for letter in &letters {
                    client.call(Call::delete(path(letter, ""))).await?;
                    purged += 1;
                }
                let all = all.then(|| String::from("true"));
                let given = query(&[("workflow", workflow), ("code", code), ("all", all)]);
                let mut more = letters.is_empty();
                while more {
                    let call = Call::delete(format!("/v1/dlq?{}", given.trim_start_matches('&')));
                    let answer: Value = client.json(call).await?;
                    purged += answer.get("purged").and_then(Value::as_u64).unwrap_or_default();
                    more = answer.get("more").and_then(Value::as_bool).unwrap_or_default();
                }
                output.line(&format!("{purged} purged"))
            }
        }
    }
}

fn path(letter: &str, rest: &str) -> String {
    format!("/v1/dlq/{}{rest}", percent_encoded(letter))
}

fn query(given: &[(&str, Option<String>)]) -> String {
    let given = given.iter().filter_map(|(name, value)| Some((name, value.as_ref()?)));
    given.map(|(name, value)| format!("&{name}={}", percent_encoded(value))).collect()
}
