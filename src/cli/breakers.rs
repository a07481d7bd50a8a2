//! `aob breakers`: which services are left alone because their calls fail.

use clap::Args;
use serde_json::Value;

use super::Error;
use super::output::Output;
use crate::client::{Call, Client};

#[derive(Debug, Args)]
pub(super) struct Breakers;

impl Breakers {
    pub(super) async fn execute(self, mut client: Client, output: &mut Output) -> Result<(), Error> {
        let answer: Value = client.json(Call::get("/v1/breakers")).await?;
        let columns = ["service", "state", "last_failure_at", "retry_after_ms", "opened"];
        output.rows(&answer, "breakers", &columns)
    }
}
