//! `aob patch`: changes of a run's graph. A patch's id says whose it is.

use clap::Subcommand;
use serde_json::{Value, json};

use super::output::Output;
use super::{Error, read};
use crate::client::{Call, Client, percent_encoded};
use crate::model::patch::PatchId;

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// List the patches of a run: those made, taken back and refused
    List {
        /// The run's id
        run: String,
    },
    /// Show a patch: its operations, and what became of it
    Show {
        /// The patch's id
        patch: PatchId,
    },
    /// Change the graph of a run
    Propose {
        /// The run's id
        run: String,
        /// A JSON file: a list of RFC 6902 operations, or {"operations": ...}; - is standard input
        file: String,
        /// Why; kept with the patch
        #[arg(long)]
        justification: Option<String>,
        /// The version of the graph that the patch was made for
        #[arg(long)]
        base_version: Option<u32>,
    },
    /// Take a patch back: the graph goes on without it
    Revoke {
        /// The patch's id
        patch: PatchId,
        /// Why; kept with the run
        #[arg(long)]
        reason: Option<String>,
        /// Take those back too that build on it
        #[arg(long)]
        cascade: bool,
    },
}

impl Verb {
    pub(super) async fn execute(self, mut client: Client, output: &mut Output) -> Result<(), Error> {
        match self {
            Self::List { run } => {
                let answer: Value = client.json(Call::get(path(&run))).await?;
                output.rows(&answer, "patches", &["patch_id", "state", "version", "author", "at"])
            }
            Self::Show { patch } => {
                let answer: Value = client.json(Call::get(path_of(patch, ""))).await?;
                shown(&answer, output)
            }
            Self::Propose { run, file, justification, base_version } => {
                let mut body = body(&file)?;
                for (member, value) in [
                    ("justification", justification.map(Value::from)),
                    ("base_version", base_version.map(Value::from)),
                ] {
                    if let (Some(value), Some(body)) = (value, body.as_object_mut()) {
                        body.insert(member.to_owned(), value);
                    }
                }
                let call = Call::post(path(&run), "application/json", body.to_string());
                let answer: Value = client.json(call).await?;
                changed(&answer, output)
            }
            Self::Revoke { patch, reason, cascade } => {
                let body = json!({"reason": reason, "cascade": cascade}).to_string();
                let call = Call::post(path_of(patch, "/revoke"), "application/json", body);
                let answer: Value = client.json(call).await?;
                changed(&answer, output)
            }
        }
    }
}

fn path(run: &str) -> String {
    format!("/v1/runs/{}/patches", percent_encoded(run))
}

fn path_of(patch: PatchId, rest: &str) -> String {
    format!("{}/{patch}{rest}", path(&patch.run_id().to_string()))
}

/// The envelope in a file, or around the list in it.
fn body(file: &str) -> Result<Value, Error> {
    let bytes = read(file)?;
    let value: Value =
        serde_json::from_slice(&bytes).map_err(|error| Error::Usage(format!("{file}: {error}")))?;
    match value {
        Value::Array(_) => Ok(json!({"operations": value})),
        Value::Object(_) => Ok(value),
        _ => Err(Error::Usage(format!("{file}: neither a list of operations nor an object with one"))),
    }
}

fn changed(answer: &Value, output: &mut Output) -> Result<(), Error> {
    if !output.is_table() {
        return output.document(answer);
    }
    let version = answer.get("graph_version").and_then(Value::as_u64).unwrap_or_default();
    match answer.get("patch_id").and_then(Value::as_str) {
        Some(patch_id) => output.line(&format!("{patch_id}  version {version}")),
        None => output.line(&format!("version {version}")),
    }
}

fn shown(answer: &Value, output: &mut Output) -> Result<(), Error> {
    if output.is_table() { output.line(&format!("{answer:#}")) } else { output.document(answer) }
}
