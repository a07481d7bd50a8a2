//! `aob batch`: one action on every run that fits, asked about first, done by the node.

use std::io::IsTerminal as _;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Map, Value};

use super::output::{Output, harmless, say};
use super::{Error, keyed};
use crate::client::{Call, Client, line, pause, percent_encoded};

/// Between two looks at a batch that is waited for.
const LOOK: Duration = Duration::from_millis(300);

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Cancel runs: what is under way is told, and waited for
    Cancel(Many),
    /// Cancel runs without waiting for anything
    Terminate(Many),
    /// Pause runs: nothing of them starts until they are resumed
    Pause(Many),
    /// Resume paused runs
    Resume(Many),
    /// Do the work of failed or cancelled runs again, each in a new run
    Retry(Many),
    /// Forget runs that have ended, and their events, for good
    Delete(Many),
    /// List batches, newest first
    List {
        /// At most so many
        #[arg(long, default_value_t = 100)]
        limit: usize,
        /// Go on from an earlier page's `next_cursor`
        #[arg(long)]
        cursor: Option<String>,
    },
    /// Show a batch: how far it is, and what was refused
    Show {
        /// batch_...
        batch: String,
    },
    /// Stop a batch; remove one that is over
    Stop {
        /// batch_...
        batch: String,
    },
}

#[derive(Debug, Args)]
pub(super) struct Many {
    /// Only in one of these, with commas between them
    #[arg(long)]
    status: Option<String>,
    /// Only of this workflow
    #[arg(long)]
    workflow: Option<String>,
    /// Only of this version of it
    #[arg(long)]
    version: Option<String>,
    /// Only with this key
    #[arg(long)]
    run_key: Option<String>,
    /// Only started then or later, for example 2026-01-31T12:00:00Z
    #[arg(long, value_name = "TIME")]
    started_after: Option<String>,
    /// Only started earlier
    #[arg(long, value_name = "TIME")]
    started_before: Option<String>,
    /// Every run of the workspace, when no condition is given
    #[arg(long)]
    all: bool,
    /// Why; kept with the runs that are cancelled, terminated or paused
    #[arg(long)]
    reason: Option<String>,
    /// At most so many runs [default: 10000]
    #[arg(long)]
    limit: Option<u64>,
    /// At most so many runs in a second [default: 100]
    #[arg(long, value_name = "RUNS")]
    rate_per_second: Option<u32>,
    /// Sent again with the same key, it never makes a second batch
    #[arg(long)]
    idempotency_key: Option<String>,
    /// Only say how many runs there are, and which are the first
    #[arg(long, conflicts_with_all = ["yes", "wait"])]
    dry_run: bool,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    /// Wait for its end
    #[arg(long)]
    wait: bool,
}

impl Many {
    fn body(&self, action: &str, dry_run: bool) -> Value {
        let conditions = [
            ("status", &self.status),
            ("workflow", &self.workflow),
            ("version", &self.version),
            ("run_key", &self.run_key),
            ("started_after", &self.started_after),
            ("started_before", &self.started_before),
        ];
        let given = |(name, text): (&str, &Option<String>)| Some((name.to_owned(), text.clone()?.into()));
        let filter: Map<String, Value> = conditions.into_iter().filter_map(given).collect();
        let members = [
            ("action", Some(Value::from(action))),
            ("filter", Some(Value::Object(filter))),
            ("all", self.all.then(|| true.into())),
            ("reason", self.reason.clone().map(Value::from)),
            ("limit", self.limit.map(Value::from)),
            ("rate_per_second", self.rate_per_second.map(Value::from)),
            ("dry_run", dry_run.then(|| true.into())),
        ];
        members.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
    }

    async fn execute(self, mut client: Client, action: &str, output: &mut Output) -> Result<(), Error> {
        if self.dry_run || !self.yes {
            let counted: Value = client.json(post(&self.body(action, true), None)).await?;
            if self.dry_run {
                return count(&counted, output);
            }
            confirm(action, &counted).await?;
        }
        let call = post(&self.body(action, false), self.idempotency_key.as_deref());
        let made: Value = client.json(call).await?;
        let id = text(&made, "id");
        if !self.wait {
            return if output.is_table() { output.line(&id) } else { output.document(&made) };
        }
        let done = over(&mut client, &id).await?;
        show(&done, output)?;
        ended(&done)
    }
}

fn post(body: &Value, key: Option<&str>) -> Call {
    keyed(Call::post("/v1/batch", "application/json", body.to_string()), key)
}

fn text(value: &Value, member: &str) -> String {
    harmless(value.get(member).and_then(Value::as_str).unwrap_or_default())
}

fn number(value: &Value, member: &str) -> u64 {
    value.get(member).and_then(Value::as_u64).unwrap_or_default()
}

/// How many runs a dry run has found that the action is for, as words.
fn runs(counted: &Value) -> String {
    let runs = number(counted, "matched").saturating_sub(number(counted, "skipped"));
    let more = counted.get("more").and_then(Value::as_bool).unwrap_or_default();
    format!("{}{runs} {}", if more { "at least " } else { "" }, if runs == 1 { "run" } else { "runs" })
}

fn count(counted: &Value, output: &mut Output) -> Result<(), Error> {
    if !output.is_table() {
        return output.document(counted);
    }
    output.line(&format!("{} {}", text(counted, "action"), runs(counted)))?;
    let shown = counted.get("runs").and_then(Value::as_array).into_iter().flatten();
    shown.filter_map(Value::as_str).try_for_each(|run| output.line(&harmless(run)))
}

/// Whoever sits at the terminal says yes; where nobody does, `--yes` has to.
async fn confirm(action: &str, counted: &Value) -> Result<(), Error> {
    let found = runs(counted);
    if !std::io::stdin().is_terminal() {
        return Err(Error::Usage(format!("{action} {found}: nobody can be asked here; --yes says so")));
    }
    say(&format!("{action} {found}? [y/N]"));
    let said = line().await.unwrap_or_default().to_ascii_lowercase();
    if matches!(said.as_str(), "y" | "yes") {
        return Ok(());
    }
    Err(Error::Invalid(String::from("nothing is done")))
}

/// A batch once it is over.
async fn over(client: &mut Client, id: &str) -> Result<Value, Error> {
    loop {
        let shown: Value = client.json(Call::get(path(id))).await?;
        if shown.get("ended_at").is_some_and(Value::is_string) {
            return Ok(shown);
        }
        pause(LOOK).await;
    }
}

fn ended(batch: &Value) -> Result<(), Error> {
    let (state, failed) = (text(batch, "state"), number(batch, "failed"));
    match state.as_str() {
        "done" if failed == 0 => Ok(()),
        "done" => Err(Error::Invalid(format!("{failed} runs refused"))),
        _ => Err(Error::Invalid(format!("the batch is {state}"))),
    }
}

fn path(batch: &str) -> String {
    format!("/v1/batch/{}", percent_encoded(batch))
}

fn show(batch: &Value, output: &mut Output) -> Result<(), Error> {
    if !output.is_table() {
        return output.document(batch);
    }
    let members = [
        "id",
        "action",
        "filter",
        "reason",
        "by",
        "state",
        "matched",
        "done",
        "skipped",
        "failed",
        "limited",
        "waits",
        "failure",
        "created_at",
        "started_at",
        "ended_at",
    ];
    for member in members {
        match batch.get(member) {
            None | Some(Value::Null | Value::Bool(false)) => {}
            Some(Value::String(text)) => output.line(&format!("{member:12}{}", harmless(text)))?,
            Some(other) => output.line(&format!("{member:12}{}", harmless(&other.to_string())))?,
        }
    }
    let failures = batch.get("failures").and_then(Value::as_array).into_iter().flatten();
    failures
        .map(|failure| format!("{:12}{}  {}", "refused", text(failure, "run_id"), text(failure, "code")))
        .try_for_each(|line| output.line(&line))
}

impl Verb {
    pub(super) async fn execute(self, mut client: Client, output: &mut Output) -> Result<(), Error> {
        match self {
            Self::Cancel(many) => many.execute(client, "cancel", output).await,
            Self::Terminate(many) => many.execute(client, "terminate", output).await,
            Self::Pause(many) => many.execute(client, "pause", output).await,
            Self::Resume(many) => many.execute(client, "resume", output).await,
            Self::Retry(many) => many.execute(client, "retry", output).await,
            Self::Delete(many) => many.execute(client, "delete", output).await,
            Self::List { limit, cursor } => {
                let cursor = cursor.map(|cursor| format!("&cursor={}", percent_encoded(&cursor)));
                let path = format!("/v1/batch?limit={limit}{}", cursor.unwrap_or_default());
                let answer: Value = client.json(Call::get(path)).await?;
                let columns =
                    ["id", "action", "state", "matched", "done", "skipped", "failed", "by", "created_at"];
                output.rows(&answer, "batches", &columns)
            }
            Self::Show { batch } => show(&client.json(Call::get(path(&batch))).await?, output),
            Self::Stop { batch } => {
                let (_, body) = client.call(Call::delete(path(&batch))).await?;
                let stopped = if body.is_empty() { "is removed" } else { "is stopped" };
                say(&format!("batch {} {stopped}", harmless(&batch)));
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_was_not_given_is_not_sent() {
        let many = Many {
            status: Some("failed,cancelled".into()),
            workflow: None,
            version: None,
            run_key: None,
            started_after: None,
            started_before: None,
            all: false,
            reason: None,
            limit: Some(3),
            rate_per_second: None,
            idempotency_key: None,
            dry_run: false,
            yes: false,
            wait: false,
        };
        let expected = json!({"action": "retry", "filter": {"status": "failed,cancelled"}, "limit": 3});
        assert_eq!(many.body("retry", false), expected);
        assert_eq!(many.body("retry", true)["dry_run"], true);
    }

    #[test]
    fn how_many_is_said_in_words() {
        for (matched, skipped, more, words) in
            [(1, 0, false, "1 run"), (5, 2, false, "3 runs"), (7, 0, true, "at least 7 runs")]
        {
            let counted = json!({"matched": matched, "skipped": skipped, "more": more});
            assert_eq!(runs(&counted), words);
        }
        for (state, failed, well) in [("done", 0, true), ("done", 2, false), ("cancelled", 0, false)] {
            assert_eq!(ended(&json!({"state": state, "failed": failed})).is_ok(), well, "{state} {failed}");
        }
    }
}
