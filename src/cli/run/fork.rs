//! `aob run fork`, `aob run state`: a run as it was after one of its events, and a new run that goes on from there.

use clap::Args;
use serde_json::{Value, json};

use super::super::output::Output;
use super::super::replay::report;
use super::super::{Error, keyed, read_json};
use super::path;
use crate::client::{Call, Client};

#[derive(Debug, Args)]
pub(in crate::cli) struct Fork {
    /// The run's id
    run: String,
    /// After which of its events the new run goes on
    #[arg(long, value_name = "SEQ")]
    at: u64,
    /// A JSON file with other inputs; - is standard input
    #[arg(long)]
    inputs: Option<String>,
    /// Sent again with the same key, a fork never makes a second run
    #[arg(long)]
    idempotency_key: Option<String>,
}

impl Fork {
    pub(super) async fn execute(self, mut client: Client, output: &mut Output) -> Result<(), Error> {
        let inputs = self.inputs.as_deref().map(read_json).transpose()?;
        let body = json!({"at": self.at, "inputs": inputs});
        let call = Call::post(path(&self.run, "/fork"), "application/json", body.to_string());
        let call = keyed(call, self.idempotency_key.as_deref());
        let made: Value = client.json(call).await?;
        report::made(&made, output)
    }
}

#[derive(Debug, Args)]
pub(in crate::cli) struct State {
    /// The run's id
    run: String,
    /// After which of its events [default: the last one]
    #[arg(long, value_name = "SEQ")]
    at: Option<u64>,
}

impl State {
    pub(super) async fn execute(self, mut client: Client, output: &mut Output) -> Result<(), Error> {
        let seq = self.at.map(|seq| format!("?seq={seq}")).unwrap_or_default();
        let state: Value = client.json(Call::get(path(&self.run, &format!("/state{seq}")))).await?;
        report::state(&state, output)
    }
}
