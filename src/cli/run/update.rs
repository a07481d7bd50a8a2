//! `aob run update`: brings a run what it waits for now, and shows what came of it.

use clap::Args;
use serde_json::Value;

use super::super::output::{Output, harmless};
use super::super::{Error, keyed, read_json};
use super::path;
use crate::client::{Call, Client, percent_encoded};
use crate::limits;
use crate::model;

#[derive(Debug, Args)]
pub(in crate::cli) struct Update {
    /// The run's id
    run: String,
    /// Name of the signal that the run waits for
    name: String,
    /// What it brings: JSON, or @ and a JSON file; - is standard input
    #[arg(long)]
    payload: Option<String>,
    /// Wait so many seconds for the node that answers
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=limits::WAIT_SECONDS_MAX))]
    wait: Option<u64>,
    /// Sent again with the same key, it is one update, and has the first one's answer
    #[arg(long)]
    idempotency_key: Option<String>,
}

impl Update {
    pub(super) async fn execute(self, mut client: Client, output: &mut Output) -> Result<(), Error> {
        let payload = self.payload.as_deref().map(payload).transpose()?.unwrap_or_default();
        let body = format!("{{\"payload\":{}}}", payload.to_json());
        let path = path(&self.run, &format!("/updates/{}", percent_encoded(&self.name)));
        let call = Call::post(path, "application/json", body);
        let mut call = keyed(call, self.idempotency_key.as_deref());
        if let Some(seconds) = self.wait {
            call = call.header("prefer", format!("wait={seconds}"));
        }
        let answer: Value = client.json(call).await?;
        show(&answer, output)?;
        self.ended(&answer)
    }

    /// Did it come to what the caller wants to hear?
    fn ended(self, answer: &Value) -> Result<(), Error> {
        let state = member(answer, "state");
        let node = answer.get("reply").or_else(|| answer.get("node")).and_then(Value::as_str);
        let node = node.map(harmless).unwrap_or_default();
        match state.as_str() {
            "waiting" if self.wait.is_some() => {
                Err(Error::Unanswered { run_id: member(answer, "run_id"), node })
            }
            "failed" | "skipped" | "cancelled" => {
                let failure = answer.get("error").and_then(|error| error.get("message")?.as_str());
                let why = failure.map(|failure| format!(": {}", harmless(failure))).unwrap_or_default();
                Err(Error::UpdateFailed { node, state, why })
            }
            _ => Ok(()),
        }
    }
}

/// JSON as it stands, or from a file.
fn payload(text: &str) -> Result<model::Value, Error> {
    match text.strip_prefix('@') {
        Some(file) => read_json(file),
        None if text == "-" => read_json(text),
        None => model::Value::from_json(text.as_bytes()).map_err(|error| {
            Error::Invalid(format!("--payload is no JSON ({error}); @FILE reads it from a file"))
        }),
    }
}

fn member(answer: &Value, name: &str) -> String {
    answer.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn show(answer: &Value, output: &mut Output) -> Result<(), Error> {
    if !output.is_table() {
        return output.document(answer);
    }
    for member in ["run_id", "workflow", "version", "status", "received_seq", "node", "reply", "state"] {
        match answer.get(member) {
            None | Some(Value::Null) => {}
            Some(Value::String(text)) => output.line(&format!("{member:14}{}", harmless(text)))?,
            Some(other) => output.line(&format!("{member:14}{other}"))?,
        }
    }
    for member in ["output", "error"] {
        if let Some(value) = answer.get(member) {
            output.line(&format!("{member}\n{value:#}"))?;
        }
    }
    Ok(())
}
