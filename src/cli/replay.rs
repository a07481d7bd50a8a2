//! `aob replay`: a run's record, decided again here (`freeze`), run again without effects (`shadow`), or done again by the
//! node as a new run (`live`); and the record as one file, which needs no node.

pub(super) mod report;

use clap::{Args, ValueEnum};
use serde_json::{Value as Json, json};

use super::output::{Output, say};
use super::{Error, read, read_json};
use crate::client::{Call, Client, percent_encoded};
use crate::compile::{self, Format, Options};
use crate::model::{Map, Value};
use crate::replay::shadow::{Change, shadow};
use crate::replay::state::{State, at};
use crate::replay::{self, Bundle, Record};
use crate::wire::Hash;

/// How a run is replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// The engine decides the record again, here, and must come to the same events; nothing is called
    Freeze,
    /// The node does the work again, as a new run
    Live,
    /// The run is made again here with other inputs or another document, effects suppressed; shows what would differ
    Shadow,
}

#[derive(Debug, Args)]
pub(super) struct Replay {
    /// The run's id; left out when --bundle names a file to be read
    run: Option<String>,
    /// Take everything before this node begins from the record
    #[arg(long, value_name = "NODE")]
    from: Option<String>,
    /// How [default: freeze]
    #[arg(long, value_enum)]
    mode: Option<Mode>,
    /// With a run: write its record to this file. Without: read it from there, no node needed
    #[arg(long, value_name = "FILE")]
    bundle: Option<String>,
    /// Show the state after this event, with its hash, and nothing else
    #[arg(long, value_name = "SEQ", conflicts_with_all = ["from", "mode"])]
    at: Option<u64>,
    /// shadow, live: one input, as NAME=JSON or NAME=TEXT; instead of the run's
    #[arg(long = "input", value_name = "NAME=VALUE")]
    input: Vec<String>,
    /// shadow, live: a JSON file with all inputs; - is standard input
    #[arg(long, value_name = "FILE")]
    inputs: Option<String>,
    /// shadow: another document
    #[arg(long, value_name = "FILE")]
    workflow: Option<String>,
}

impl Replay {
    pub(super) fn needs_node(&self) -> bool {
        self.run.is_some()
    }

    /// With a record from a file.
    pub(super) fn offline(self, output: &mut Output) -> Result<(), Error> {
        let Some(path) = &self.bundle else {
            return Err(Error::Usage("which run? Give its id, or a file by --bundle".into()));
        };
        let bytes = read(path)?;
        let bundle = Bundle::from_bytes(&bytes).map_err(|error| wrong(path, &error))?;
        self.replay(&bundle, output)
    }

    pub(super) async fn execute(self, mut client: Client, output: &mut Output) -> Result<(), Error> {
        let Some(run) = &self.run else { return self.offline(output) };
        if self.mode == Some(Mode::Live) {
            return self.live(client, run, output).await;
        }
        let bundle = fetched(&mut client, run).await?;
        if let Some(path) = &self.bundle {
            let failed = |error: std::io::Error| Error::File { path: path.clone(), why: error.to_string() };
            let bytes = bundle.to_bytes().map_err(|error| wrong(run, &error))?;
            std::fs::write(path, &bytes).map_err(failed)?;
            say(&format!("{path}: the record of {run}, {} bytes", bytes.len()));
            if self.mode.is_none() && self.from.is_none() && self.at.is_none() {
                return Ok(());
            }
        }
        self.replay(&bundle, output)
    }

    fn replay(&self, bundle: &Bundle, output: &mut Output) -> Result<(), Error> {
        let run = bundle.run_id.to_string();
        let unusable = |error: replay::Error| wrong(&run, &error);
        let (record, _) = bundle.record().map_err(unusable)?;
        let documents = bundle.documents(&record).map_err(unusable)?;
        let mut documents = documents;
        if let Some(seq) = self.at {
            let folded = at(&record, &mut documents, seq).and_then(|run| State::of(&run));
            return report::state(&json!(folded.map_err(unusable)?), output);
        }
        match self.mode.unwrap_or(Mode::Freeze) {
            Mode::Freeze => self.freeze(&record, &mut documents, output),
            Mode::Live => Err(Error::Usage("a live replay needs a node and the id of a run".into())),
            Mode::Shadow => {
                if self.from.is_some() {
                    let why = "shadow makes a run again from its beginning; --from goes with freeze and live";
                    return Err(Error::Usage(why.into()));
                }
                let inputs = self.given(record_inputs(&record))?;
                let workflow = self.workflow.as_deref().map(compiled).transpose()?;
                let report = shadow(&record, documents, Change { inputs, workflow }).map_err(unusable)?;
                report::shadow(&report, output)
            }
        }
    }

    fn freeze(
        &self,
        record: &Record,
        documents: &mut replay::Documents,
        output: &mut Output,
    ) -> Result<(), Error> {
        if !self.input.is_empty() || self.inputs.is_some() || self.workflow.is_some() {
            let why = "freeze replays what happened; other inputs and documents go with --mode shadow";
            return Err(Error::Usage(why.into()));
        }
        let run = record.run_id.to_string();
        match replay::freeze(record, documents, self.from.as_deref()) {
            Ok(verified) => {
                let hash = Hash(&verified.hash).to_string();
                if output.is_table() {
                    let (from, to) = (verified.from, verified.to);
                    return output.line(&format!("{run}  verified  events {from} to {to}  {hash}"));
                }
                output.document(&json!({"run_id": run, "mode": "freeze", "verified": true,
                    "from": verified.from, "to": verified.to, "hash": hash}))
            }
            Err(replay::Error::Diverged(divergence)) => {
                if !output.is_table() {
                    output.document(
                        &json!({"run_id": run, "mode": "freeze", "verified": false, "divergence": divergence}),
                    )?;
                }
                Err(Error::Invalid(format!("{run}: {divergence}")))
            }
            Err(error) => Err(wrong(&run, &error)),
        }
    }

    async fn live(&self, mut client: Client, run: &str, output: &mut Output) -> Result<(), Error> {
        if self.workflow.is_some() || self.bundle.is_some() {
            return Err(Error::Usage("live goes on with the run's own document, on the node".into()));
        }
        let mut inputs = None;
        if !self.input.is_empty() || self.inputs.is_some() {
            let bundle = fetched(&mut client, run).await?;
            let (record, _) = bundle.record().map_err(|error| wrong(run, &error))?;
            inputs = self.given(record_inputs(&record))?;
        }
        let body = json!({"from": self.from, "inputs": inputs});
        let path = format!("/v1/runs/{}/replay", percent_encoded(run));
        let made: Json = client.json(Call::post(path, "application/json", body.to_string())).await?;
        report::made(&made, output)
    }

    /// The inputs asked for; none when nobody asked for others.
    fn given(&self, before: Value) -> Result<Option<Value>, Error> {
        let mut inputs = match &self.inputs {
            Some(path) => read_json(path)?,
            None if self.input.is_empty() => return Ok(None),
            None => before,
        };
        for text in &self.input {
            let (name, value) = text
                .split_once('=')
                .ok_or_else(|| Error::Usage(format!("--input {text:?}: NAME=VALUE is expected")))?;
            let value =
                Value::from_json(value.as_bytes()).unwrap_or_else(|_| Value::string(value.to_owned()));
            let mut members: Vec<_> = match &inputs {
                Value::Map(map) => map.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
                Value::Null => Vec::new(),
                _ => return Err(Error::Usage("--input needs inputs that are an object".into())),
            };
            members.retain(|(known, _)| **known != *name);
            members.push((name.into(), value));
            let map =
                Map::new(members).map_err(|error| Error::Usage(format!("--input {text:?}: {error:?}")))?;
            inputs = Value::Map(map.into());
        }
        Ok(Some(inputs))
    }
}

/// The record of a run, from the node.
async fn fetched(client: &mut Client, run: &str) -> Result<Bundle, Error> {
    let path = format!("/v1/runs/{}/bundle", percent_encoded(run));
    let (_, bytes) = client.call(Call::get(path)).await?;
    Bundle::from_bytes(&bytes).map_err(|error| wrong(run, &error))
}

fn record_inputs(record: &Record) -> Value {
    let first = record.bursts.first().and_then(|burst| burst.events.first());
    match first {
        Some(crate::model::EventBody::RunStarted(started)) => started.inputs.clone(),
        _ => Value::Null,
    }
}

fn compiled(path: &str) -> Result<compile::Compiled, Error> {
    let source = read(path)?;
    let options = Options { file: Some(path.to_owned()), ..Options::default() };
    compile::compile(&source, Format::detect(&source), &options)
        .map_err(|findings| Error::Invalid(findings.to_string()))
}

fn wrong(of: &str, error: &replay::Error) -> Error {
    let text = format!("{of}: {error}");
    match error {
        replay::Error::NoNode(_) | replay::Error::NoEvent { .. } => Error::NotFound(text),
        _ => Error::Invalid(text),
    }
}
