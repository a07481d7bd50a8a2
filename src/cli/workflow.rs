//! `aob workflow`: make from a pattern, validate, draw, register, list, tag, get; and the schema of documents.

use std::collections::BTreeMap;
use std::path::Path;

use clap::Subcommand;
use serde_json::Value;

use super::output::{Output, say};
use super::{Error, graph, patterns, policy, read};
use crate::client::{Call, Client, percent_encoded};
use crate::compile::{self, Format, Options};

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Check a document here, without a node
    Validate {
        /// A JSON or YAML file; - is standard input
        file: String,
        /// Show where the rules of this configuration put gates
        #[arg(long, value_name = "FILE")]
        policy: Option<String>,
    },
    /// Draw the graph of a document, without a node
    Graph(graph::Draw),
    /// Print the JSON Schema of documents, for editors
    Schema,
    /// Make a document from a pattern, without a node
    New(patterns::New),
    /// List the patterns that documents are made from, and what can be set in them
    Patterns(patterns::List),
    /// Register a document
    Register {
        /// A JSON or YAML file; - is standard input
        file: String,
    },
    /// List registered workflows
    List {
        /// At most so many
        #[arg(long, default_value_t = 100)]
        limit: usize,
    },
    /// Let a tag stand for a version: starts of name@tag take it from now on
    Tag {
        /// The workflow's name
        name: String,
        /// The tag
        tag: String,
        /// The version
        #[arg(required_unless_present = "history", conflicts_with = "history")]
        version: Option<String>,
        /// Show how it was moved instead: who, when, from where to where
        #[arg(long)]
        history: bool,
    },
    /// Take a tag away; runs that started by it go on
    Untag {
        /// The workflow's name
        name: String,
        /// The tag
        tag: String,
    },
    /// List the tags of a workflow
    Tags {
        /// The workflow's name
        name: String,
    },
    /// Compare the patch sets of a workflow: runs that are over, success and latency of each
    Experiment {
        /// The workflow's name
        name: String,
    },
    /// Show a registered document
    Get {
        /// Name, or name@version
        #[arg(required_unless_present = "hash", conflicts_with = "hash")]
        name: Option<String>,
        /// The very bytes that have this hash, sha256:...
        #[arg(long)]
        hash: Option<String>,
    },
}

impl Verb {
    /// Must a node be asked?
    pub(super) fn needs_node(&self) -> bool {
        !matches!(
            self,
            Self::Validate { .. } | Self::Graph(_) | Self::Schema | Self::New(_) | Self::Patterns(_)
        )
    }

    /// Does what was asked, without a node.
    pub(super) fn offline(self, output: &mut Output) -> Result<(), Error> {
        match self {
            Self::Validate { file, policy } => validate(&file, policy.as_deref(), output),
            Self::Graph(draw) => draw.execute(output),
            Self::Schema => output.line(crate::wire::schema::WORKFLOW.trim_end()),
            Self::New(new) => new.execute(output),
            Self::Patterns(list) => list.execute(output),
            _ => Err(Error::Usage(String::from("this command needs a node"))),
        }
    }

    pub(super) async fn execute(self, mut client: Client, output: &mut Output) -> Result<(), Error> {
        match self {
            Self::Validate { .. } | Self::Graph(_) | Self::Schema | Self::New(_) | Self::Patterns(_) => {
                self.offline(output)
            }
            Self::Register { file } => {
                let answer = register(&mut client, &file, read(&file)?).await?;
                if !output.is_table() {
                    return output.document(&answer);
                }
                let of =
                    |member: &str| answer.get(member).and_then(Value::as_str).unwrap_or_default().to_owned();
                output.line(&format!("{}@{}  {}", of("name"), of("version"), of("hash")))
            }
            Self::List { limit } => {
                let mut answer: Value =
                    client.json(Call::get(format!("/v1/workflows?limit={limit}"))).await?;
                tagged(&mut client, &mut answer).await?;
                output.rows(&answer, "workflows", &["name", "version", "tags", "hash"])
            }
            Self::Tag { name, tag, history: true, .. } => moves(&mut client, (name, tag), output).await,
            Self::Tag { name, tag, version, .. } => {
                let version = version.unwrap_or_default();
                let path = format!("/v1/workflows/{}/tags/{}", percent_encoded(&name), percent_encoded(&tag));
                let body = serde_json::json!({"version": version}).to_string();
                let answer: Value = client.json(Call::put(path, "application/json", body)).await?;
                if !output.is_table() {
                    return output.document(&answer);
                }
                output.line(&format!("{name}@{tag} is {name}@{version}"))
            }
            Self::Untag { name, tag } => {
                let path = format!("/v1/workflows/{}/tags/{}", percent_encoded(&name), percent_encoded(&tag));
                let answer: Value = client.json(Call::delete(path)).await?;
                if !output.is_table() {
                    return output.document(&answer);
                }
                output.line(&format!("{name}@{tag} is no more"))
            }
            Self::Tags { name } => {
                let path = format!("/v1/workflows/{}/tags", percent_encoded(&name));
                let answer: Value = client.json(Call::get(path)).await?;
                output.rows(&answer, "tags", &["name", "tag", "version"])
            }
            Self::Experiment { name } => experiment(&mut client, &name, output).await,
            Self::Get { hash: Some(hash), .. } => super::cas::get(&mut client, &hash, output).await,
            Self::Get { name, .. } => {
                let name = name.unwrap_or_default();
                let path = match name.split_once('@') {
                    Some((name, version)) => {
                        format!(
                            "/v1/workflows/{}/versions/{}",
                            percent_encoded(name),
                            percent_encoded(version)
                        )
                    }
                    None => format!("/v1/workflows/{}", percent_encoded(&name)),
                };
                let answer: Value = client.json(Call::get(path)).await?;
                match answer.get("document").filter(|_| output.is_table()) {
                    Some(document) => output.line(&format!("{document:#}")),
                    None => output.document(&answer),
                }
            }
        }
    }
}

async fn moves(client: &mut Client, (name, tag): (String, String), output: &mut Output) -> Result<(), Error> {
    let (name, tag) = (percent_encoded(&name), percent_encoded(&tag));
    let call = Call::get(format!("/v1/workflows/{name}/tags/{tag}/history"));
    let answer: Value = client.json(call).await?;
    output.rows(&answer, "moves", &["at", "by", "from", "to"])
}

async fn experiment(client: &mut Client, name: &str, output: &mut Output) -> Result<(), Error> {
    let path = format!("/v1/workflows/{}/experiments", percent_encoded(name));
    let mut answer: Value = client.json(Call::get(path)).await?;
    if !output.is_table() {
        return output.document(&answer);
    }
    flattened(&mut answer);
    let columns =
        ["patch_set", "weight", "runs", "completed", "failed", "success_rate", "p50_us", "p99_us", "cost"];
    output.rows(&answer, "arms", &columns)
}

/// Latencies as columns of their own.
fn flattened(answer: &mut Value) {
    for arm in answer.get_mut("arms").and_then(Value::as_array_mut).into_iter().flatten() {
        let latency = arm.get("latency_us").cloned().unwrap_or_default();
        if let Some(arm) = arm.as_object_mut() {
            for (from, to) in [("p50", "p50_us"), ("p99", "p99_us")] {
                arm.insert(to.into(), latency.get(from).cloned().unwrap_or_default());
            }
        }
    }
}

/// Gives every row the tags that stand for its version; each workflow is asked once.
async fn tagged(client: &mut Client, answer: &mut Value) -> Result<(), Error> {
    let rows = answer.get_mut("workflows").and_then(Value::as_array_mut);
    let mut known: BTreeMap<String, Value> = BTreeMap::new();
    for row in rows.into_iter().flatten().filter_map(Value::as_object_mut) {
        let of = |member: &str| row.get(member).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (name, version) = (of("name"), of("version"));
        if !known.contains_key(&name) {
            let call = Call::get(format!("/v1/workflows/{}/tags", percent_encoded(&name)));
            known.insert(name.clone(), client.json(call).await?);
        }
        let all = known.get(&name).and_then(|tags| tags.get("tags")?.as_array());
        let own = all.into_iter().flatten().filter(|tag| tag.get("version") == Some(&Value::from(&*version)));
        let own: Vec<&str> = own.filter_map(|tag| tag.get("tag")?.as_str()).collect();
        row.insert(String::from("tags"), Value::from(own));
    }
    Ok(())
}

/// `aob workflow validate FILE`: exit 0 or 1, each finding with file, line and column.
fn validate(file: &str, policy: Option<&str>, output: &mut Output) -> Result<(), Error> {
    let source = read(file)?;
    let options = Options { file: Some(file.to_owned()), name: None, version: None, require_name: false };
    let verdict = compile::compile(&source, Format::detect(&source), &options);
    let rules = policy.map(policy::rules).transpose()?;
    let gates = match (&verdict, &rules) {
        (Ok(found), Some(rules)) => policy::gates(found, rules)?,
        _ => Vec::new(),
    };
    if !output.is_table() {
        let body = match &verdict {
            Ok(found) => {
                let lists = [&found.warnings, &found.unavailable, &found.unstartable];
                let warnings = lists.map(|list| json(list)).concat();
                let mut body = serde_json::json!({"valid": true, "errors": [], "warnings": warnings});
                if let (Some(body), Some(_)) = (body.as_object_mut(), &rules) {
                    let gates =
                        gates.iter().map(|(at, why)| serde_json::json!({"pointer": at, "policy": why}));
                    body.insert("gates".into(), gates.collect());
                }
                body
            }
            Err(found) => serde_json::json!({
                "valid": false,
                "errors": json(&found.errors),
                "warnings": json(&found.warnings),
            }),
        };
        output.document(&body)?;
    }
    match verdict {
        Ok(found) => {
            for warning in found.warnings.iter().chain(&found.unavailable).chain(&found.unstartable) {
                say(&format!("{file}: warning: {}", warning.message));
            }
            if !output.is_table() {
                return Ok(());
            }
            output.line(&format!("{file}: valid"))?;
            gates.iter().try_for_each(|(at, why)| output.line(&format!("{file}: gate {at} ({why})")))
        }
        Err(found) => Err(Error::Invalid(found.to_string().trim_end().to_owned())),
    }
}

fn json(found: &[compile::Diagnostic]) -> Vec<Value> {
    found.iter().filter_map(|diagnostic| serde_json::to_value(diagnostic).ok()).collect()
}

/// Registers a file. A document without a name takes the file's.
pub(super) async fn register(client: &mut Client, file: &str, source: Vec<u8>) -> Result<Value, Error> {
    let media_type = match Format::detect(&source) {
        Format::Json => "application/json",
        Format::Yaml => "application/yaml",
    };
    let stem = Path::new(file).file_stem().and_then(|stem| stem.to_str()).filter(|_| file != "-");
    let path = match stem {
        Some(stem) => format!("/v1/workflows?name={}", percent_encoded(stem)),
        None => String::from("/v1/workflows"),
    };
    Ok(client.json(Call::post(path, media_type, source)).await?)
}
