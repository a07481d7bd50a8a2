//! `aob audit list`, `aob audit verify` and `aob run audit`: who did what, and whether what is stored is what was written.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::Error;
use super::output::{Output, say};
use crate::audit::offline;
use crate::client::{Call, Client, percent_encoded};
use crate::model::RunId;
use crate::store::history::{Finding, RunAudit};
use crate::store::signing::{PublicKey, from_hex, hex};

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// List what was done and what was refused, oldest first (takes the role admin)
    List {
        /// Only records after this number
        #[arg(long, default_value_t = 0)]
        after: u64,
        /// At most so many
        #[arg(long, default_value_t = 100)]
        limit: usize,
        /// Of all workspaces, and of requests from nobody that is known
        #[arg(long)]
        all: bool,
    },
    /// Recompute chains and signatures from what is stored: of a run, of the audit log, or of everything
    Verify(Verify),
}

#[derive(Debug, Args)]
pub(super) struct Verify {
    /// A run; the audit log without one
    run: Option<String>,
    /// The audit log and every run
    #[arg(long, conflicts_with = "run")]
    all: bool,
    /// Read the files of a node that is stopped
    #[arg(long, requires = "data_dir")]
    offline: bool,
    /// Its data directory
    #[arg(long, value_name = "DIR", requires = "offline")]
    data_dir: Option<PathBuf>,
    /// The public key that signatures must be of, when it was written down elsewhere [default: audit.pub in the directory]
    #[arg(long, value_name = "HEX", requires = "offline", value_parser = public_key)]
    key: Option<PublicKey>,
    /// The head that the run's chain must have, when it was written down
    #[arg(long, value_name = "HEX", requires = "run")]
    head: Option<String>,
}

fn public_key(text: &str) -> Result<PublicKey, String> {
    from_hex(text).ok_or_else(|| String::from("64 hexadecimal digits are expected"))
}

impl Verb {
    /// Must a node be asked?
    pub(super) fn needs_node(&self) -> bool {
        !matches!(self, Self::Verify(verify) if verify.offline)
    }

    /// Does it without a node.
    pub(super) fn offline(self, output: &mut Output) -> Result<(), Error> {
        match self {
            Self::Verify(Verify { data_dir: Some(dir), run, key, head, .. }) => match run {
                Some(run) => one(&dir, (&run, key, head.as_deref()), output),
                None => everything(&dir, key, output),
            },
            _ => Err(Error::Usage(String::from("this command needs a node"))),
        }
    }

    pub(super) async fn execute(self, mut client: Client, output: &mut Output) -> Result<(), Error> {
        match self {
            Self::List { after, limit, all } => {
                let answer = client
                    .json(Call::get(format!("/v1/audit?after={after}&limit={limit}&all={all}")))
                    .await?;
                let columns = ["seq", "at", "who", "workspace", "action", "target", "status", "outcome"];
                output.rows(&answer, "records", &columns)
            }
            Self::Verify(verify) => match &verify.run {
                Some(run) => run_of_a_node(&mut client, (run, verify.head.as_deref()), output).await,
                None => log_of_a_node(&mut client, verify.all, output).await,
            },
        }
    }
}

/// `aob run audit RUN`
pub(super) async fn run(mut client: Client, run: &str, output: &mut Output) -> Result<(), Error> {
    let answer: Value = client.json(Call::get(path(run))).await?;
    if !output.is_table() {
        return output.document(&answer);
    }
    for member in ["run_id", "events", "head", "sound", "algorithm"] {
        output.line(&format!("{member:10}{}", plain(&answer, member)))?;
    }
    for part in answer.get("sealed").and_then(Value::as_array).into_iter().flatten() {
        let [first, last, at] = ["first", "last", "at"].map(|member| plain(part, member));
        output.line(&format!("sealed    events {first} to {last} at {at}"))?;
    }
    if let Some(finding) = answer.get("finding").filter(|finding| !finding.is_null()) {
        output.line(&format!("finding   {}: {}", plain(finding, "code"), plain(finding, "detail")))?;
    }
    output.rows(&answer, "chain", &["seq", "at", "hash"])
}

fn plain(value: &Value, member: &str) -> String {
    match value.get(member) {
        Some(Value::String(text)) => super::output::harmless(text),
        Some(other) => other.to_string(),
        None => String::from("-"),
    }
}

fn path(run: &str) -> String {
    format!("/v1/runs/{}/audit", percent_encoded(run))
}

async fn run_of_a_node(
    client: &mut Client,
    (run, head): (&str, Option<&str>),
    output: &mut Output,
) -> Result<(), Error> {
    let answer: Value = client.json(Call::get(format!("{}?limit=1", path(run)))).await?;
    let finding = answer.get("finding").filter(|finding| !finding.is_null());
    let finding = finding.map(|finding| plain(finding, "detail"));
    let found = plain(&answer, "head");
    tell(
        output,
        &json!({"run_id": run, "events": answer.get("events"), "head": found, "sealed": answer.get("sealed")}),
    )?;
    judged(finding, (&found, head))
}

/// The verdict on a run: an error names what does not fit.
fn judged(finding: Option<String>, (found, wanted): (&str, Option<&str>)) -> Result<(), Error> {
    match (finding, wanted) {
        (Some(finding), _) => Err(Error::Invalid(finding)),
        (None, Some(wanted)) if wanted != found => {
            Err(Error::Invalid(format!("the chain ends in {found}, not in {wanted}")))
        }
        _ => Ok(()),
    }
}

async fn log_of_a_node(client: &mut Client, all: bool, output: &mut Output) -> Result<(), Error> {
    let log: Value = client.json(Call::get("/v1/audit/verify")).await?;
    let mut findings: Vec<String> = texts(&log, "findings");
    let runs = if all { every_run(client, &mut findings).await? } else { 0 };
    tell(output, &json!({"log": log, "runs": runs, "findings": findings}))?;
    fits(&findings)
}

/// Has the node look over each of its runs; how many there are.
async fn every_run(client: &mut Client, findings: &mut Vec<String>) -> Result<u64, Error> {
    let (mut runs, mut query) = (0, String::from("/v1/runs?limit=1000"));
    loop {
        let page: Value = client.json(Call::get(query)).await?;
        for run in page.get("runs").and_then(Value::as_array).into_iter().flatten() {
            let id = plain(run, "run_id");
            let answer: Value = client.json(Call::get(format!("{}?limit=1", path(&id)))).await?;
            runs += 1;
            let finding = answer.get("finding").filter(|finding| !finding.is_null());
            findings.extend(finding.map(|finding| plain(finding, "detail")));
        }
        let Some(cursor) = page.get("next_cursor").and_then(Value::as_str) else { return Ok(runs) };
        query = format!("/v1/runs?limit=1000&cursor={cursor}");
    }
}

fn texts(value: &Value, member: &str) -> Vec<String> {
    let list = value.get(member).and_then(Value::as_array).into_iter().flatten();
    list.filter_map(Value::as_str).map(str::to_owned).collect()
}

fn fits(findings: &[String]) -> Result<(), Error> {
    match findings {
        [] => {
            say("everything fits");
            Ok(())
        }
        found => Err(Error::Invalid(found.join("\n"))),
    }
}

fn tell(output: &mut Output, value: &Value) -> Result<(), Error> {
    output.document(value)
}

fn unreadable(dir: &Path, error: &crate::store::Error) -> Error {
    Error::File { path: dir.display().to_string(), why: error.to_string() }
}

fn one(
    dir: &Path,
    (run, key, head): (&str, Option<PublicKey>, Option<&str>),
    output: &mut Output,
) -> Result<(), Error> {
    let run_id: RunId = run.parse().map_err(|error| Error::Usage(format!("{run}: {error}")))?;
    let found = offline::verify_run(dir, run_id, key).map_err(|error| unreadable(dir, &error))?;
    let Some(RunAudit { events, head: found, sealed, finding, .. }) = found else {
        return Err(Error::NotFound(format!("nothing of {run} is in {}", dir.display())));
    };
    let sealed: Vec<Value> = sealed
        .iter()
        .map(|part| json!({"segment": part.segment, "first": part.first, "last": part.last, "at": part.at.to_string(), "key": hex(&part.key)}))
        .collect();
    let found = hex(&found);
    tell(output, &json!({"run_id": run, "events": events, "head": found, "sealed": sealed}))?;
    judged(finding.map(|finding| finding.what), (&found, head))
}

fn everything(dir: &Path, key: Option<PublicKey>, output: &mut Output) -> Result<(), Error> {
    let report = offline::verify(dir, key).map_err(|error| unreadable(dir, &error))?;
    let offline::Report { log, kept, key } = report;
    let found = kept.findings.iter().map(|Finding { code, what, .. }| format!("{code}: {what}"));
    let findings: Vec<String> = log.findings.iter().cloned().chain(found).collect();
    let told = json!({
        "key": key.map(|key| hex(&key)),
        "log": {"first": log.first, "last": log.last, "head": log.head, "checkpoints": log.checkpoints,
            "set_aside": log.set_aside},
        "seals": kept.seals,
        "sealed_parts": kept.parts,
        "journal_bursts": kept.journal_bursts,
        "forgotten_parts": kept.forgotten,
        "unsealed_files": kept.unsealed_files,
        "findings": findings,
        "more_findings": kept.more,
    });
    tell(output, &told)?;
    fits(&findings)
}
