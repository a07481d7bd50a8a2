//! `aob run`: start, get, list, explain, cost, audit, export, erase, pause, resume, cancel, terminate, watch, wait, signal, update.

mod evidence;
mod explain;
mod export;
mod fork;
mod tree;
mod update;
mod watch;

use std::path::Path;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::output::{Output, harmless, say};
use super::{Error, keyed, read, read_json, workflow};
use crate::client::{Call, Client, Streamed, Transport, Wanted, percent_encoded};

/// Seconds asked for at a time while waiting for a run's end.
const WAIT_SLICE_SECONDS: u64 = 60;

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Start a run of a workflow: a file (registered first), a name, or name@version
    Start(Start),
    /// Show one run
    Get {
        /// The run's id
        run: String,
    },
    /// List runs, newest first
    List {
        /// Only in this status
        #[arg(long)]
        status: Option<String>,
        /// Only of this workflow
        #[arg(long)]
        workflow: Option<String>,
        /// At most so many
        #[arg(long, default_value_t = 100)]
        limit: usize,
        /// Go on from an earlier page's `next_cursor`
        #[arg(long)]
        cursor: Option<String>,
    },
    /// Tell what a run did, why, what it cost and where it failed
    Explain {
        /// The run's id
        run: String,
    },
    /// Show what a run has spent, by node, role and model
    Cost {
        /// The run's id
        run: String,
    },
    /// Print all there is about a run as JSON Lines: the run, its document, every event, and how many there were
    Export {
        /// The run's id
        run: String,
    },
    /// Show the chain of hashes over a run's events, and what is sealed of it
    Audit {
        /// The run's id
        run: String,
    },
    /// Start a new run that goes on after an event of this one
    Fork(fork::Fork),
    /// Show the state of a run after one of its events, with its hash
    State(fork::State),
    /// Forget a run that has ended, and its events, for good
    Erase {
        /// The run's id
        run: String,
    },
    /// Pause a run: nothing of it starts until it is resumed
    Pause(Steer),
    /// Resume a paused run
    Resume(Steer),
    /// Cancel a run: what is under way is told, and waited for
    Cancel(Steer),
    /// Cancel a run without waiting for anything
    Terminate(Steer),
    /// Show a run until it ends: a live picture in a terminal, its events otherwise
    Watch {
        /// The run's id
        run: String,
        /// Only events after this number
        #[arg(long, default_value_t = 0)]
        after: u64,
        /// Over what events come
        #[arg(long, value_enum, default_value_t)]
        transport: Over,
    },
    /// Wait for a run's end and show it
    Wait {
        /// The run's id
        run: String,
    },
    /// Send a signal to a run
    Signal {
        /// The run's id
        run: String,
        /// The signal's name
        name: String,
        /// A JSON file with what the signal brings; - is standard input
        #[arg(long)]
        payload: Option<String>,
        /// Sent again with the same key, it is one signal
        #[arg(long)]
        idempotency_key: Option<String>,
    },
    /// Bring a run what it waits for now, and show what came of it; refused when it waits for nothing of the kind
    Update(update::Update),
}

#[derive(Debug, Args)]
pub(super) struct Steer {
    /// The run's id
    run: String,
    /// Why; kept with the run
    #[arg(long)]
    reason: Option<String>,
}

impl Steer {
    async fn execute(self, mut client: Client, route: &str, output: &mut Output) -> Result<(), Error> {
        let body = self.reason.map_or_else(|| json!({}), |reason| json!({"reason": reason}));
        let answer = client.json(post(&path(&self.run, route), &body)).await?;
        show(&answer, output)
    }
}

#[derive(Debug, Args)]
pub(super) struct Start {
    /// A file, a workflow's name, or name@version
    target: String,
    /// A JSON file with the run's inputs; - is standard input
    #[arg(long)]
    inputs: Option<String>,
    /// Wait for the run's end
    #[arg(long, conflicts_with = "follow")]
    wait: bool,
    /// Print the run's events until it ends
    #[arg(long)]
    follow: bool,
    /// Sent again with the same key, a start never makes a second run
    #[arg(long)]
    idempotency_key: Option<String>,
    /// The caller's own name for the run, which one unfinished run of the workflow has at a time
    #[arg(long)]
    run_key: Option<String>,
    /// What to do when a run has the key: reject, return it, or replace it
    #[arg(long, requires = "run_key", value_parser = ["reject", "return", "replace"])]
    on_conflict: Option<String>,
    /// What is written down of the run: everything (full), or what cannot be decided again (fast) [default: the document's]
    #[arg(long, value_parser = ["full", "fast"])]
    mode: Option<String>,
}

impl Verb {
    /// Does it wait for the end of a run, as long as it is given?
    pub(super) fn waits(&self) -> bool {
        matches!(self, Self::Wait { .. }) || matches!(self, Self::Start(start) if start.wait)
    }

    pub(super) async fn execute(
        self,
        mut client: Client,
        output: &mut Output,
        timeout: Option<u64>,
    ) -> Result<(), Error> {
        match self {
            Self::Start(start) => start.execute(client, output, timeout).await,
            Self::Wait { run } => {
                let run = wait(&mut client, &run, timeout).await?;
                show(&run, output)?;
                ended(&run)
            }
            Self::Get { run } => {
                let answer = client.json(Call::get(path(&run, ""))).await?;
                show(&answer, output)
            }
            Self::List { status, workflow, limit, cursor } => {
                let mut query = format!("/v1/runs?limit={limit}");
                for (name, value) in [("status", status), ("workflow", workflow), ("cursor", cursor)] {
                    if let Some(value) = value {
                        query.push_str(&format!("&{name}={}", percent_encoded(&value)));
                    }
                }
                let answer: Value = client.json(Call::get(query)).await?;
                output.rows(
                    &answer,
                    "runs",
                    &["run_id", "workflow", "version", "status", "seq", "started_at"],
                )
            }
            Self::Explain { run } => explain::execute(client, &run, output).await,
            Self::Cost { run } => super::budget::cost(client, &run, output).await,
            Self::Audit { run } => super::audit::run(client, &run, output).await,
            Self::Export { run } => export::execute(client, &run, output).await,
            Self::Fork(fork) => fork.execute(client, output).await,
            Self::State(state) => state.execute(client, output).await,
            Self::Erase { run } => {
                client.call(Call::delete(path(&run, ""))).await?;
                say(&format!("run {run} is erased"));
                Ok(())
            }
            Self::Pause(steer) => steer.execute(client, "/pause", output).await,
            Self::Resume(steer) => steer.execute(client, "/resume", output).await,
            Self::Cancel(steer) => steer.execute(client, "/cancel", output).await,
            Self::Terminate(steer) => steer.execute(client, "/terminate", output).await,
            Self::Update(update) => update.execute(client, output).await,
            Self::Watch { run, after, transport } => {
                watch::execute(client, &run, (after, transport), output).await
            }
            Self::Signal { run, name, payload, idempotency_key } => {
                let payload = payload.as_deref().map(read_json).transpose()?.unwrap_or_default();
                let body = format!("{{\"payload\":{}}}", payload.to_json());
                let path = path(&run, &format!("/signals/{}", percent_encoded(&name)));
                let call = keyed(Call::post(path, "application/json", body), idempotency_key.as_deref());
                let answer = client.json(call).await?;
                show(&answer, output)
            }
        }
    }
}

impl Start {
    async fn execute(
        self,
        mut client: Client,
        output: &mut Output,
        timeout: Option<u64>,
    ) -> Result<(), Error> {
        let inputs = self.inputs.as_deref().map(read_json).transpose()?;
        let workflow = if is_file(&self.target) {
            let source = read(&self.target)?;
            let registered = workflow::register(&mut client, &self.target, source).await?;
            let part = |member: &str| registered.get(member).and_then(Value::as_str).unwrap_or_default();
            format!("{}@{}", part("name"), part("version"))
        } else {
            self.target.clone()
        };
        let inputs = inputs.map(|inputs| inputs.to_json()).unwrap_or_else(|| String::from("{}"));
        let mut body = format!("{{\"workflow\":{},\"inputs\":{inputs}", Value::from(workflow));
        for (member, value) in
            [("run_key", &self.run_key), ("on_conflict", &self.on_conflict), ("mode", &self.mode)]
        {
            if let Some(value) = value {
                body.push_str(&format!(",\"{member}\":{}", Value::from(value.as_str())));
            }
        }
        body.push('}');
        let call = keyed(Call::post("/v1/runs", "application/json", body), self.idempotency_key.as_deref());
        let started: Value = client.json(call).await?;
        let run_id = started.get("run_id").and_then(Value::as_str).unwrap_or_default().to_owned();
        if self.follow {
            say(&format!("run {run_id} started"));
            let client = follow(client, &run_id, &Which::default(), output).await?;
            return ended(&get(client, &run_id).await?);
        }
        if self.wait {
            let run = wait(&mut client, &run_id, timeout).await?;
            show(&run, output)?;
            return ended(&run);
        }
        if output.is_table() { output.line(&run_id) } else { output.document(&started) }
    }
}

fn is_file(target: &str) -> bool {
    target.contains('/')
        || Path::new(target).is_file()
        || Path::new(target)
            .extension()
            .is_some_and(|end| ["json", "yaml", "yml"].iter().any(|known| end == *known))
}

fn path(run: &str, rest: &str) -> String {
    format!("/v1/runs/{}{rest}", percent_encoded(run))
}

fn post(path: &str, body: &Value) -> Call {
    Call::post(path, "application/json", body.to_string())
}

async fn get(mut client: Client, run_id: &str) -> Result<Value, Error> {
    Ok(client.json(Call::get(path(run_id, ""))).await?)
}

/// The run once it has ended.
async fn wait(client: &mut Client, run_id: &str, timeout: Option<u64>) -> Result<Value, Error> {
    let mut left = timeout.unwrap_or(u64::MAX);
    loop {
        let slice = left.min(WAIT_SLICE_SECONDS);
        let call = Call::get(path(run_id, "")).header("prefer", format!("wait={slice}"));
        let run: Value = client.json(call).await?;
        if ended_well(&run).is_some() {
            return Ok(run);
        }
        left -= slice;
        if left == 0 {
            return Err(late(client, run_id).await);
        }
    }
}

/// Why the run has not ended: it goes on, or waits for a human.
async fn late(client: &mut Client, run_id: &str) -> Error {
    let graph: Result<Value, _> = client.json(Call::get(path(run_id, "/graph"))).await;
    let nodes = graph.as_ref().ok().and_then(|graph| graph.get("nodes")?.as_object());
    let by_human = nodes.into_iter().flatten().find(|(_, node)| {
        node.get("waiting_for").and_then(Value::as_str).is_some_and(|what| what.starts_with("a human"))
    });
    let run_id = run_id.to_owned();
    match by_human {
        Some((node, _)) => Error::Approval { run_id, node: node.clone() },
        None => Error::TimedOut(run_id),
    }
}

/// Over what events come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Over {
    /// Server-sent events over HTTP
    #[default]
    Sse,
    /// WebSocket
    Ws,
    /// QUIC
    Quic,
}

impl From<Over> for Transport {
    fn from(over: Over) -> Self {
        match over {
            Over::Sse => Self::Sse,
            Over::Ws => Self::WebSocket,
            Over::Quic => Self::Quic,
        }
    }
}

/// Which events of a run, and over what.
#[derive(Clone, Debug, Default)]
pub(super) struct Which {
    /// Those after this number.
    pub(super) after: u64,
    pub(super) over: Over,
    pub(super) wanted: Wanted,
}

/// Prints events until the run ends; gives back a client for more.
pub(super) async fn follow(
    client: Client,
    run: &str,
    from: &Which,
    output: &mut Output,
) -> Result<Client, Error> {
    follow_with(client, run, from, &mut |data| output.event(data)).await
}

/// The same, with each event shown as the caller likes it.
pub(super) async fn follow_with(
    client: Client,
    run: &str,
    from: &Which,
    show: &mut dyn FnMut(&str) -> Result<(), Error>,
) -> Result<Client, Error> {
    let (again, of_nodes) = (client.another(), !from.wanted.nodes.is_empty());
    let mut events = client.events_over(from.over.into(), run, from.after).only(&from.wanted);
    while let Some(streamed) = events.next().await? {
        match streamed {
            // The end comes in any case, and is no event of the node.
            Streamed::Event(event) if !of_nodes || is_of(&event.data) => show(&event.data)?,
            Streamed::Event(_) | Streamed::Aside(_) => {}
            Streamed::Reconnecting { why } => say(&format!("coming back: {why}")),
        }
    }
    Ok(again)
}

/// Is the event about a node?
fn is_of(data: &str) -> bool {
    serde_json::from_str::<Value>(data).is_ok_and(|row| row.get("node").is_some())
}

/// `None` while it runs.
fn ended_well(run: &Value) -> Option<bool> {
    match run.get("status").and_then(Value::as_str) {
        Some("completed") => Some(true),
        Some("failed" | "cancelled") => Some(false),
        _ => None,
    }
}

fn ended(run: &Value) -> Result<(), Error> {
    if ended_well(run) != Some(false) {
        return Ok(());
    }
    let of = |member: &str| run.get(member).and_then(Value::as_str).unwrap_or_default().to_owned();
    let failure = run.get("error").and_then(|error| error.get("message")).and_then(Value::as_str);
    Err(Error::RunFailed {
        run_id: of("run_id"),
        status: if of("status") == "failed" { "failed" } else { "was cancelled" },
        why: failure.map(|failure| format!(": {failure}")).unwrap_or_default(),
    })
}

fn show(run: &Value, output: &mut Output) -> Result<(), Error> {
    if !output.is_table() {
        return output.document(run);
    }
    let members = ["run_id", "workflow", "version", "status", "seq", "started_at", "ended_at", "failed_node"];
    for member in members {
        match run.get(member) {
            None | Some(Value::Null) => {}
            Some(Value::String(text)) => output.line(&format!("{member:12}{}", harmless(text)))?,
            Some(other) => output.line(&format!("{member:12}{other}"))?,
        }
    }
    for pause in run.get("pauses").and_then(Value::as_array).into_iter().flatten() {
        let text = |member: &str| pause.get(member).and_then(Value::as_str).map(harmless).unwrap_or_default();
        let due = pause
            .get("due_at")
            .and_then(Value::as_str)
            .map(|due| format!(", until {due}"))
            .unwrap_or_default();
        output.line(&format!("{:12}{} {}", "waits", text("node"), text("why")))?;
        output.line(&format!("{:12}needs {} (since {}{due})", "", text("needed"), text("since")))?;
    }
    for member in ["current_nodes", "error", "outputs"] {
        match run.get(member) {
            None | Some(Value::Null) => {}
            Some(Value::Array(empty)) if empty.is_empty() => {}
            Some(value) => output.line(&format!("{member}\n{value:#}"))?,
        }
    }
    Ok(())
}
