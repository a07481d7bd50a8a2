//! The tools of agents: what a model is told of them, and the calls it asks for.
//!
//! Servers that speak the Model Context Protocol ([`mcp`]), and HTTP calls that a document describes ([`http`]), which leave by
//! the same door as all others. Everything is done on a thread of its own; whoever asks waits for an answer. Patches and
//! workflows are told of here and performed by whoever runs the agent ([`Tools::names_of_others`]).
//!
//! What must hold: an agent uses what its list names and nothing else (F414); what a server or a model says is data, bounded, and
//! never passes with a secret in it; a call always gives a [`Returned`], whatever becomes of it.

#![cfg_attr(not(feature = "mcp"), allow(dead_code, reason = "what only servers need"))]

mod arguments;
mod counts;
mod guard;
mod http;
#[cfg(feature = "mcp")]
mod mcp;
#[cfg(not(feature = "mcp"))]
#[path = "tools/without_mcp.rs"]
mod mcp;
mod pace;
mod result;
#[cfg(test)]
mod tests;
mod tether;
mod work;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::connect::{Lookup, system};
use super::{Http, Secrets};
use crate::limits;
use crate::model::agent::{Returned, ToolCall, ToolSpec};
use crate::model::tools::{self as list, Entry, Other};
use crate::model::{Failure, Place, RunId, Seq, Value};
pub use counts::{BUCKETS, Counts, OUTCOMES, ToolCells};
pub use tether::{TETHER, tether};

/// What the node's tool servers are, and what is counted.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// By name.
    pub servers: BTreeMap<Arc<str>, Server>,
    /// Calls of HTTP tools that one host gets in a minute; 0: as many as are made.
    pub http_calls_per_minute: u64,
    /// A program that ends with this process and becomes what it is given ([`tether`]): servers are started through it.
    pub launcher: Option<PathBuf>,
}

/// One tool server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Where it is.
    pub at: At,
    /// How long a call may take.
    pub timeout: Duration,
    /// Calls under way at once.
    pub max_in_flight: usize,
    /// 0: as many as are made.
    pub calls_per_minute: u64,
}

/// Where a tool server is. Texts may hold `${secret:NAME}`, of the workspace `default`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum At {
    /// A program that is started, and spoken to over its standard input and output.
    Command {
        /// The program, and its arguments.
        command: Vec<String>,
        /// Its environment, beside `PATH` and `HOME`.
        environment: BTreeMap<String, String>,
        /// Where it runs; `None`: where the node does.
        directory: Option<PathBuf>,
    },
    /// Streamable HTTP.
    Url {
        /// Of its one endpoint.
        url: String,
        /// Sent with every request.
        headers: BTreeMap<String, String>,
    },
}

/// Whose call it is.
#[derive(Clone, Debug)]
pub struct CallName {
    /// Of which run.
    pub run_id: RunId,
    /// Of which node.
    pub place: Place,
    /// The node's path.
    pub path: String,
    /// Number of the event that handed it out.
    pub seq: Seq,
    /// Answers of models before the one that asks for it.
    pub turn: u32,
    /// Which attempt, from 1.
    pub attempt: u32,
    /// Of the shard.
    pub epoch: u64,
    /// It was under way before when a node went down.
    pub lost: bool,
    /// The workflow's name inside the node.
    pub workflow: Arc<str>,
}

/// What a workflow is, to a model that may use it as a tool.
#[derive(Clone, Debug, PartialEq)]
pub struct Described {
    /// What it does.
    pub description: Arc<str>,
    /// JSON Schema of its inputs; `Null` when it has none.
    pub inputs: Value,
}

/// Finds a workflow by name and version, in the workspace of the agent's.
pub type Workflows<'w> = &'w (dyn Fn(&str, Option<&str>) -> Option<Described> + Sync);

type Specs = Result<Vec<ToolSpec>, Failure>;

/// What the thread is asked.
enum Job {
    Offered(Vec<Entry>, oneshot::Sender<Specs>),
    Call(Box<Asked>, oneshot::Sender<Returned>),
}

struct Asked {
    name: CallName,
    allowed: Value,
    call: ToolCall,
}

/// The door for whoever runs an agent. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Tools {
    jobs: mpsc::UnboundedSender<Job>,
    counts: Arc<Counts>,
}

/// Where the thread gets its calls from.
pub struct Jobs(mpsc::UnboundedReceiver<Job>, Arc<Counts>);

fn invalid(wrong: &list::Wrong) -> Failure {
    Failure::fatal(
        "tools_invalid",
        format!("the tools of the agent, at {:?}: {}", wrong.pointer, wrong.message),
    )
}

fn stopping() -> Failure {
    Failure::transient("executor_stopped", "the node is stopping")
}

impl Tools {
    /// A door, and what [`serve`] serves. Jobs are as many as calls under way: bounded by the unfinished runs.
    pub fn new() -> (Self, Jobs) {
        let (jobs, receiver) = mpsc::unbounded_channel();
        let counts = Arc::<Counts>::default();
        (Self { jobs, counts: counts.clone() }, Jobs(receiver, counts))
    }

    /// What became of calls so far.
    pub fn counts(&self) -> &Arc<Counts> {
        &self.counts
    }

    /// What an agent with this list may use, as models are told of it. What servers list is kept for as long as they say.
    ///
    /// # Errors
    /// `tool_unavailable`: a server cannot be reached, or does not have the tool, or there is no such workflow; `tools_max`;
    /// `tools_invalid`.
    pub async fn offered(&self, allowed: &Value) -> Result<Arc<[ToolSpec]>, Failure> {
        self.offered_with(allowed, &|_, _| None).await
    }

    /// As [`Self::offered`], for a list that names workflows.
    ///
    /// # Errors
    /// As there.
    pub async fn offered_with(
        &self,
        allowed: &Value,
        workflows: Workflows<'_>,
    ) -> Result<Arc<[ToolSpec]>, Failure> {
        let entries = list::read(allowed).map_err(|wrong| invalid(&wrong))?;
        let mut specs = Vec::new();
        let mut asked = Vec::new();
        for entry in entries {
            match &entry {
                Entry::Mcp { .. } => asked.push(entry),
                Entry::Patch => specs.push(patch()),
                Entry::Http(tool) => specs.push(tool.spec.clone()),
                Entry::Workflow { name, version } => {
                    let found = workflows(name, version.as_deref()).ok_or_else(|| {
                        let message = format!("there is no workflow {name} that could be used as a tool");
                        Failure::fatal("tool_unavailable", message)
                    })?;
                    specs.push(described(entry.name(), found));
                }
            }
        }
        if !asked.is_empty() {
            let (reply, answer) = oneshot::channel();
            self.jobs.send(Job::Offered(asked, reply)).map_err(|_| stopping())?;
            specs.extend(answer.await.unwrap_or_else(|_| Err(stopping()))?);
        }
        if specs.len() > limits::TOOLS_PER_AGENT_MAX {
            let message = format!(
                "the agent's list gives it {} tools; {} are allowed (limit tools_per_agent_max): name the ones it needs",
                specs.len(),
                limits::TOOLS_PER_AGENT_MAX
            );
            return Err(Failure::fatal("tools_max", message));
        }
        specs.sort_by(|a, b| a.name.cmp(&b.name));
        specs.dedup_by(|a, b| a.name == b.name);
        Ok(specs.into())
    }

    /// Makes one call. What fails is told to the model like what succeeds. Dropping this future gives the call up.
    pub async fn call(&self, name: &CallName, allowed: &Value, call: &ToolCall) -> Returned {
        let returned =
            |outcome| Returned { id: call.id.clone(), name: call.name.clone(), outcome, took_ms: 0 };
        if let Some(refused) = &call.refused {
            return returned(Err((**refused).clone()));
        }
        let (reply, answer) = oneshot::channel();
        let asked = Asked { name: name.clone(), allowed: allowed.clone(), call: call.clone() };
        if self.jobs.send(Job::Call(Box::new(asked), reply)).is_err() {
            return returned(Err(stopping()));
        }
        answer.await.unwrap_or_else(|_| returned(Err(stopping())))
    }

    /// The tools of a list that whoever runs the agent performs, by the names models know them by.
    ///
    /// # Errors
    /// `tools_invalid`
    pub fn names_of_others(allowed: &Value) -> Result<BTreeMap<Arc<str>, Other>, Failure> {
        list::read(allowed).map(|entries| list::others(&entries)).map_err(|wrong| invalid(&wrong))
    }
}

fn patch() -> ToolSpec {
    let text =
        |about: &str| Value::map([("type", Value::string("string")), ("description", Value::string(about))]);
    let operations = Value::map([
        ("type", Value::string("array")),
        ("description", Value::string("RFC 6902 operations on the run's document")),
        ("items", Value::map([("type", Value::string("object"))])),
    ]);
    let properties = Value::map([
        ("operations", operations),
        ("justification", text("Why the run needs it; people read this")),
        ("base_version", text("The version of the document that the operations were written for")),
    ]);
    let needed = ["operations", "justification"].map(Value::string);
    ToolSpec {
        name: list::PATCH.into(),
        description:
            "Propose a change of the workflow that is running. It is checked, and people may be asked, \
                      before it takes effect."
                .into(),
        parameters: Value::map([
            ("type", Value::string("object")),
            ("properties", properties),
            ("required", Value::list(needed.to_vec())),
            ("additionalProperties", Value::Bool(false)),
        ]),
    }
}

fn described(name: Arc<str>, found: Described) -> ToolSpec {
    let parameters = match found.inputs {
        Value::Null => list::no_parameters(),
        inputs => inputs,
    };
    let description = result::cut(&found.description, limits::TOOL_DESCRIPTION_BYTES_MAX).into();
    ToolSpec { name, description, parameters }
}

#[cfg(test)]
impl Jobs {
    /// The next call, and where what it brings goes. Nobody lists the tools of servers.
    pub(crate) async fn next(&mut self) -> Option<(CallName, ToolCall, oneshot::Sender<Returned>)> {
        loop {
            if let Job::Call(asked, reply) = self.0.recv().await? {
                return Some((asked.name, asked.call, reply));
            }
        }
    }
}

/// What the thread works with.
pub struct Outside {
    /// What calls may reach.
    pub reach: super::Settings,
    /// Where secrets are looked for.
    pub secrets: Secrets,
    /// Makes the calls of HTTP tools.
    pub http: Http,
}

/// Makes calls until all doors are gone; then servers that were started end. Wants a `LocalSet`.
///
/// # Errors
/// What is trusted cannot be read.
pub async fn serve(settings: Settings, outside: Outside, jobs: Jobs) -> Result<(), String> {
    serve_with(settings, outside, jobs, system()).await
}

async fn serve_with(settings: Settings, outside: Outside, jobs: Jobs, lookup: Lookup) -> Result<(), String> {
    let Jobs(mut jobs, counts) = jobs;
    let work = work::Work::new(settings, outside, counts, lookup)?;
    while let Some(job) = jobs.recv().await {
        let work = work.clone();
        crate::io::spawn_local(async move {
            match job {
                Job::Offered(entries, mut reply) => tokio::select! {
                    specs = work.offered(&entries) => drop(reply.send(specs)),
                    () = reply.closed() => {}
                },
                Job::Call(asked, mut reply) => tokio::select! {
                    returned = work.call(&asked) => drop(reply.send(returned)),
                    () = reply.closed() => {}
                },
            }
        });
    }
    Ok(())
}
