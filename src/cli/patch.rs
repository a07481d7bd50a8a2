//! `aob patch`: changes of a run's graph, and of what runs of a workflow begin with. A patch's id says whose it is.

use clap::Subcommand;
use serde_json::{Value, json};

use super::output::{Output, say};
use super::{Error, keyed, read};
use crate::client::{Call, Client, percent_encoded};
use crate::model::RunId;
use crate::model::patch::PatchId;

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// List the patches of a run or a workflow: those made, taken back, refused, and waiting for a human
    List {
        /// The run's id, or the workflow's name
        of: String,
    },
    /// Show a patch: its operations, what became of it, and what it changed
    Show {
        /// The patch's id
        patch: Patch,
    },
    /// What a patch changed, or what differs between two versions of a run's graph
    Diff(Diff),
    /// Which layer put each node and edge of a run's graph there
    Blame {
        /// The run's id
        run: String,
    },
    /// Change the graph of a run, or what runs of a workflow begin with
    Propose {
        /// The run's id, or the workflow's name
        of: String,
        /// A JSON file: a list of RFC 6902 operations, or {"operations": ...}; - is standard input
        file: String,
        /// Why; kept with the patch
        #[arg(long)]
        justification: Option<String>,
        /// The version of the graph that the patch was made for
        #[arg(long)]
        base_version: Option<u32>,
        /// Of a workflow: the version or tag that the patch was made for
        #[arg(long)]
        base: Option<String>,
        /// Of a run: sent again with the same key, it is one patch
        #[arg(long)]
        idempotency_key: Option<String>,
    },
    /// Make a patch that waits for a human; never one's own
    Approve(Decision),
    /// Refuse a patch that waits for a human
    Reject(Decision),
    /// Take a patch back: the graph goes on without it
    Revoke {
        /// The patch's id
        patch: Patch,
        /// Why; kept with the run
        #[arg(long)]
        reason: Option<String>,
        /// Take those back too that build on it
        #[arg(long)]
        cascade: bool,
        /// Of a run: sent again with the same key, it is taken back once
        #[arg(long)]
        idempotency_key: Option<String>,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct Decision {
    /// The patch's id
    patch: Patch,
    /// Why; kept with the run
    #[arg(long)]
    reason: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(super) struct Diff {
    /// A patch's id, or a run's
    of: String,
    /// Of a run: the version before; the first when left out
    #[arg(long)]
    from: Option<u32>,
    /// Of a run: the version after; the latest when left out
    #[arg(long)]
    to: Option<u32>,
    /// Draw the graph with what differs into this file
    #[arg(long, value_name = "FILE")]
    svg: Option<String>,
}

impl Verb {
    pub(super) async fn execute(self, mut client: Client, output: &mut Output) -> Result<(), Error> {
        match self {
            Self::List { of } => {
                let answer: Value = client.json(Call::get(path(&of))).await?;
                output.rows(&answer, "patches", &["patch_id", "state", "version", "author", "at"])?;
                super::artifacts::footer(client, &of, &answer, output).await
            }
            Self::Show { patch } => {
                let answer: Value = client.json(Call::get(patch.path(""))).await?;
                if !output.is_table() {
                    return output.document(&answer);
                }
                // A refused patch made nothing that could differ.
                let diff = text(&mut client, patch.path("/diff")).await.unwrap_or_default();
                output.line(shown(&answer, &diff).trim_end())
            }
            Self::Diff(diff) => diff.execute(client, output).await,
            Self::Blame { run } => {
                let path = format!("/v1/runs/{}/blame", percent_encoded(&run));
                let answer: Value = client.json(Call::get(path)).await?;
                if !output.is_table() {
                    return output.document(&answer);
                }
                let columns = ["what", "id", "layer", "version", "author", "justification"];
                output.rows(&json!({"rows": blamed(&answer)}), "rows", &columns)
            }
            Self::Propose { of, file, justification, base_version, base, idempotency_key } => {
                let mut body = body(&file)?;
                for (member, value) in [
                    ("justification", justification.map(Value::from)),
                    ("base_version", base_version.map(Value::from)),
                    ("base", base.map(Value::from)),
                ] {
                    if let (Some(value), Some(body)) = (value, body.as_object_mut()) {
                        body.insert(member.to_owned(), value);
                    }
                }
                if idempotency_key.is_some() && !is_run(&of) {
                    return Err(of_runs_only());
                }
                let call = Call::post(path(&of), "application/json", body.to_string());
                let answer: Value = client.json(keyed(call, idempotency_key.as_deref())).await?;
                changed(&answer, output)
            }
            Self::Approve(decision) => decision.send("/approve", client, output).await,
            Self::Reject(decision) => decision.send("/reject", client, output).await,
            Self::Revoke { patch, reason, cascade, idempotency_key } => {
                if idempotency_key.is_some() && !matches!(patch, Patch::OfRun(_)) {
                    return Err(of_runs_only());
                }
                let body = json!({"reason": reason, "cascade": cascade}).to_string();
                let call = Call::post(patch.path("/revoke"), "application/json", body);
                let answer: Value = client.json(keyed(call, idempotency_key.as_deref())).await?;
                changed(&answer, output)
            }
        }
    }
}

impl Decision {
    async fn send(self, verb: &str, mut client: Client, output: &mut Output) -> Result<(), Error> {
        let body = json!({"reason": self.reason}).to_string();
        let call = Call::post(self.patch.path(verb), "application/json", body);
        let answer: Value = client.json(call).await?;
        changed(&answer, output)
    }
}

impl Diff {
    async fn execute(self, mut client: Client, output: &mut Output) -> Result<(), Error> {
        let path = match self.of.parse::<PatchId>() {
            Ok(patch) if self.from.is_none() && self.to.is_none() => Patch::OfRun(patch).path("/diff"),
            Ok(_) => return Err(Error::Usage("--from and --to are versions of a run's graph".into())),
            Err(_) => {
                let side =
                    |name: &str, version: Option<u32>| version.map(|version| format!("{name}={version}"));
                let query: Vec<_> =
                    [side("from", self.from), side("to", self.to)].into_iter().flatten().collect();
                format!("/v1/runs/{}/graph/diff?{}", percent_encoded(&self.of), query.join("&"))
            }
        };
        if let Some(file) = self.svg {
            let (_, picture) = client.call(Call::get(path).header("accept", "image/svg+xml")).await?;
            std::fs::write(&file, picture)
                .map_err(|error| Error::File { path: file.clone(), why: error.to_string() })?;
            say(&format!("{file}: written"));
            return Ok(());
        }
        if !output.is_table() {
            let answer: Value = client.json(Call::get(path)).await?;
            return output.document(&answer);
        }
        let diff = text(&mut client, path).await?;
        output.line(if diff.is_empty() { "nothing differs" } else { diff.trim_end() })
    }
}

async fn text(client: &mut Client, path: String) -> Result<String, Error> {
    let (_, bytes) = client.call(Call::get(path).header("accept", "text/plain")).await?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Where the patches of a run or a workflow are. What is no id of a run or an execution is a name.
fn path(of: &str) -> String {
    let nouns = if is_run(of) { "runs" } else { "workflows" };
    format!("/v1/{nouns}/{}/patches", percent_encoded(of))
}

fn is_run(of: &str) -> bool {
    of.parse::<RunId>().is_ok() || of.starts_with("exec_")
}

/// A key that nobody remembers would promise what it does not keep.
fn of_runs_only() -> Error {
    Error::Usage(
        "--idempotency-key is for patches of runs; those of a workflow are not remembered by keys".into(),
    )
}

/// A patch by its id, which says whose it is.
#[derive(Clone, Debug)]
pub(super) enum Patch {
    OfRun(PatchId),
    /// Its id, and the workflow's name.
    OfWorkflow(String, String),
}

impl std::str::FromStr for Patch {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let Some(rest) = text.strip_prefix("wpatch_") else { return text.parse().map(Self::OfRun) };
        let named = rest.split_once('_').filter(|(number, name)| number.len() == 16 && !name.is_empty());
        let (_, name) =
            named.ok_or("a workflow's patch has an id like wpatch_, 16 digits, _ and its name")?;
        Ok(Self::OfWorkflow(text.to_owned(), name.to_owned()))
    }
}

impl Patch {
    fn path(&self, rest: &str) -> String {
        match self {
            Self::OfRun(patch) => format!("{}/{patch}{rest}", path(&patch.run_id().to_string())),
            Self::OfWorkflow(patch, name) => {
                let (name, patch) = (percent_encoded(name), percent_encoded(patch));
                format!("/v1/workflows/{name}/patches/{patch}{rest}")
            }
        }
    }
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
    let of = |member: &str| answer.get(member).and_then(Value::as_str);
    let versions = ["graph_version", "overlay_version", "version"];
    let version = versions.into_iter().find_map(|member| answer.get(member)?.as_u64());
    let version = version.map(|version| format!("version {version}"));
    // Applied goes without saying.
    let state = of("state").filter(|state| *state != "applied").map(str::to_owned);
    let words = [of("patch_id").map(str::to_owned), state, version];
    output.line(&words.into_iter().flatten().collect::<Vec<_>>().join("  "))
}

/// Nodes and edges as rows of one table.
fn blamed(answer: &Value) -> Vec<Value> {
    let rows = |member: &'static str, what: &'static str| {
        let rows = answer.get(member).and_then(Value::as_array).into_iter().flatten();
        rows.map(move |row| {
            let mut row = row.clone();
            if let Some(row) = row.as_object_mut() {
                row.insert("what".into(), what.into());
            }
            row
        })
    };
    rows("nodes", "node").chain(rows("edges", "edge")).collect()
}

/// A patch for people: its members, one a line, its operations, one a line, and what it changed.
fn shown(answer: &Value, diff: &str) -> String {
    let mut text = String::new();
    let one = |value: &Value| value.as_str().map_or_else(|| value.to_string(), super::output::harmless);
    for (member, value) in answer.as_object().into_iter().flatten() {
        if member != "operations" {
            text.push_str(&format!("{member:<14} {}\n", one(value)));
        }
    }
    let operations = answer.get("operations").and_then(Value::as_array);
    for (at, operation) in operations.into_iter().flatten().enumerate() {
        text.push_str(&format!("{:<14} {operation}\n", if at == 0 { "operations" } else { "" }));
    }
    for (at, line) in diff.lines().enumerate() {
        text.push_str(&format!("{:<14} {line}\n", if at == 0 { "changes" } else { "" }));
    }
    text
}
