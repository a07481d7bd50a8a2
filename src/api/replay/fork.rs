//! New runs out of old ones: a fork goes on from any event of a run, a replay does its work again from a node on. The old
//! run never changes.
//!
//! What a fork begins with is read and folded here; the shard of the new run writes it down with `run.forked` in one step
//! of its log. The new run lives where its Idempotency-Key says, or anywhere.

use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{Response, StatusCode};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::super::request::Incoming;
use super::super::respond::{Body, json};
use super::super::services::{Services, blocking, unexpected};
use super::super::{body, request, start};
use super::{Answer, Place, problem, read};
use crate::engine::command::{Command, Fork, Reply};
use crate::limits;
use crate::model::event::Idempotency;
use crate::model::letter::Letter;
use crate::model::{
    EventBody, Kept, Partition, Place as NodePlace, RunId, RunSummary, Seq, Ticket, Value, Workspace, kept,
};
use crate::replay::fork::{Prefix, before, prefix};
use crate::wire::problem::{Problem, Wrong};
use crate::wire::run::{Forked, Line};

/// What is asked for.
struct Asked {
    source: RunId,
    /// After which event.
    at: At,
    /// What begins again there.
    redriven: Option<NodePlace>,
    inputs: Option<Value>,
}

#[derive(Clone, Debug)]
enum At {
    /// A fork.
    Seq(Seq),
    /// A replay, from this node on.
    Node(String),
    /// A replay of all of it.
    Beginning,
}

impl At {
    fn is_replay(&self) -> bool {
        !matches!(self, Self::Seq(_))
    }
}

/// What is answered about a run that was made.
#[derive(Serialize)]
struct Made<'a> {
    #[serde(flatten)]
    line: Line<'a>,
    #[serde(flatten)]
    forked: Forked,
}

/// `POST /v1/runs/{id}/fork`
pub(in crate::api) async fn fork(
    services: &Services,
    head: &Parts,
    incoming: Incoming,
    source: RunId,
) -> Answer {
    request::require_json(&head.headers)?;
    services.refuse_when_stopping()?;
    let bytes = request::body(head, incoming).await?;
    let [at, inputs] = body::members(&bytes, ["at", "inputs"])?;
    let at = match at {
        Some(Value::Int(at)) if at >= 0 => At::Seq(at.unsigned_abs()),
        Some(Value::UInt(at)) => At::Seq(at),
        // A whole number is one however it is written (JSON Schema, 6.1.1).
        Some(Value::Float(at)) if at.fract() == 0.0 && (0.0..9e15).contains(&at) => At::Seq(at as u64),
        Some(other) => return Err(body::wrong_type("at", "the number of an event", &other)),
        None => return Err(missing("at", "the number of the event after which the fork goes on")),
    };
    let inputs = inputs.filter(|inputs| *inputs != Value::Null);
    make(services, head, Asked { source, at, redriven: None, inputs }).await
}

/// `POST /v1/runs/{id}/replay`
pub(in crate::api) async fn replay(
    services: &Services,
    head: &Parts,
    incoming: Incoming,
    source: RunId,
) -> Answer {
    services.refuse_when_stopping()?;
    let bytes: Bytes = request::body(head, incoming).await?;
    let [from, inputs] = if bytes.is_empty() {
        [None, None]
    } else {
        request::require_json(&head.headers)?;
        body::members(&bytes, ["from", "inputs"])?
    };
    let at = body::text("from", from)?.map_or(At::Beginning, |node| At::Node(node.to_string()));
    let inputs = inputs.filter(|inputs| *inputs != Value::Null);
    make(services, head, Asked { source, at, redriven: None, inputs }).await
}

fn missing(member: &str, what: &str) -> Box<Problem> {
    let detail = format!("{member:?} is missing: {what}");
    let wrong = Wrong { pointer: Some(format!("/{member}")), detail: detail.clone(), ..Wrong::default() };
    Problem::new(400, "invalid_body", detail).at(&wrong)
}

async fn make(services: &Services, head: &Parts, asked: Asked) -> Answer {
    let workspace = services.workspace_of(asked.source).await?;
    let key = request::idempotency_key(&head.headers)?;
    let idempotency = key.map(|key| idempotency(key, &asked, &workspace));
    let begun = begin(services, &workspace, asked, idempotency).await?;
    answer(services, (&begun.summary, begun.origin), begun.forked)
}

/// Does the work of a run of this workspace again from its beginning, in a new run; once for each key.
pub(in crate::api) async fn retry(
    services: &Services,
    workspace: &Workspace,
    source: RunId,
    key: Idempotency,
) -> Result<RunSummary, Box<Problem>> {
    if let Some(summary) = start::before(services, &key)? {
        return Ok(summary);
    }
    let inputs = inputs_of_fork(services, source).await?;
    let asked = Asked { source, at: At::Beginning, redriven: None, inputs };
    Ok(begin(services, workspace, asked, Some(key)).await?.summary)
}

/// Does work that was given up again, and what comes after it, in a new run; once for each key. A call goes on from the moment
/// before it was given up, whatever else had been done by then, with as many attempts as it had; other nodes begin anew.
pub(in crate::api) async fn redrive(
    services: &Services,
    workspace: &Workspace,
    letter: &Letter,
    key: Idempotency,
) -> Result<(RunId, Response<Body>), Box<Problem>> {
    let Ticket { run_id: source, seq } = letter.id.0;
    let (at, redriven) = match letter.what.call {
        true => (At::Seq(seq.saturating_sub(1)), Some(letter.place.clone())),
        false => (At::Node(letter.what.node.to_string()), None),
    };
    let asked = Asked { source, at, redriven, inputs: None };
    let begun = begin(services, workspace, asked, Some(key)).await?;
    let run_id = begun.summary.run_id;
    Ok((run_id, answer(services, (&begun.summary, begun.origin), begun.forked)?))
}

/// What is answered when it is asked for again.
pub(in crate::api) fn redriven(services: &Services, run: &RunSummary) -> Answer {
    answer(services, (run, start::Origin::Replayed), None)
}

/// The inputs that a run was given when it was forked, which are not those that its record begins with.
async fn inputs_of_fork(services: &Services, source: RunId) -> Result<Option<Value>, Box<Problem>> {
    let location = services.locate(source).await?;
    let runs = services.runs.clone();
    blocking(move || {
        let Some(forked) = runs.forked(&location)? else { return Ok(None) };
        let upto = forked.seq.saturating_add(1);
        let bundle = read(&*runs, &location, upto, limits::FORK_BYTES_MAX)?;
        let (record, _) = bundle.record().map_err(|error| problem(source, &error))?;
        // The last that was given: a fork without inputs has those of the one before it.
        let mut newest_first = record.bursts.iter().flat_map(|burst| &burst.events).rev();
        Ok(newest_first.find_map(|body| match body {
            EventBody::RunForked(forked) => forked.inputs.clone(),
            _ => None,
        }))
    })
    .await?
}

/// A run that answers a fork.
struct Begun {
    summary: RunSummary,
    origin: start::Origin,
    /// Where it was forked, when it was made now.
    forked: Option<Forked>,
}

async fn begin(
    services: &Services,
    workspace: &Workspace,
    asked: Asked,
    idempotency: Option<Idempotency>,
) -> Result<Begun, Box<Problem>> {
    let before = |summary| Begun { summary, origin: start::Origin::Replayed, forked: None };
    if let Some(known) = &idempotency
        && let Some(summary) = start::before(services, known)?
    {
        return Ok(before(summary));
    }
    let _place = Place::take()?;
    let (run_id, _) =
        services.new_run(idempotency.as_ref().map(|idempotency| Partition::of_key(&idempotency.key)));
    let (made, seq, replay) = made(services, (run_id, workspace), asked, idempotency.clone()).await?;
    let source = made.source;
    let reply = services.ask(run_id, made.command).await?;
    services.remember(run_id, workspace);
    match reply {
        Reply::Started { run, replayed: false } => Ok(Begun {
            summary: run,
            origin: start::Origin::Started,
            forked: Some(Forked::new(source, seq, replay)),
        }),
        Reply::Started { run, replayed: true } => Ok(before(run)),
        other => match idempotency.map(|known| start::before(services, &known)).transpose()?.flatten() {
            // Its key was used, and that run is over and in the index since.
            Some(summary) => Ok(before(summary)),
            None => Err(unexpected(other)),
        },
    }
}

/// A fork on its way to its shard.
struct Sending {
    command: Command,
    source: RunId,
}

async fn made(
    services: &Services,
    (run_id, workspace): (RunId, &Workspace),
    asked: Asked,
    idempotency: Option<Idempotency>,
) -> Result<(Sending, Seq, bool), Box<Problem>> {
    let Asked { source, at, redriven, inputs } = asked;
    let location = services.locate(source).await?;
    let (runs, catalog) = (services.runs.clone(), services.catalog.clone());
    let (replay, given) = (at.is_replay(), inputs.clone());
    let (prefix, table, seq) = blocking(move || {
        let upto = match at {
            At::Seq(seq) => seq,
            At::Beginning => 1,
            At::Node(_) => Seq::MAX,
        };
        let most = if upto == Seq::MAX { limits::BUNDLE_BYTES_MAX } else { limits::FORK_BYTES_MAX };
        let bundle = read(&*runs, &location, upto, most)?;
        let folded = folded(&bundle, &at, run_id).map_err(|error| problem(source, &error))?;
        if let Some(inputs) = &given {
            let base = folded.0.run.base_document();
            let entry = catalog.load_hash(base)?.ok_or_else(|| super::super::services::no_run(source))?;
            start::check(&entry, inputs)?;
        }
        Ok::<_, Box<Problem>>(folded)
    })
    .await??;
    let no_room = services.node.no_room();
    let mut parts: Vec<Value> = table.iter().flat_map(|table| table.values()).cloned().collect();
    parts.extend(inputs.iter().flat_map(|inputs| kept::parts(inputs, services.contents.inline_max())));
    let kept = match no_room {
        None if !parts.is_empty() => services.keep_parts(run_id, workspace, parts).await?,
        _ => None,
    };
    let Prefix { run, bursts, since } = prefix;
    let bursts = bursts.into_iter().map(|burst| (burst.first_seq, burst.at, burst.events)).collect();
    let fork = Fork { run, bursts, source, seq, since, replay, redriven, inputs, idempotency, no_room };
    let command = Command::Fork(Box::new(fork)).keeping(run_id, kept);
    Ok((Sending { command, source }, seq, replay))
}

type Folded = (Prefix, Option<Arc<Kept>>, Seq);

/// What the fork begins with. Blocks.
fn folded(bundle: &crate::replay::Bundle, at: &At, run_id: RunId) -> Result<Folded, crate::replay::Error> {
    let (record, table) = bundle.record()?;
    let mut documents = bundle.documents(&record)?;
    let seq = match at {
        At::Seq(seq) => *seq,
        At::Node(node) => before(&record, &mut documents, node)?,
        At::Beginning => 1,
    };
    let prefix = prefix(&record, &mut documents, (run_id, seq))?;
    bundle.check_size(seq, limits::FORK_BYTES_MAX, "fork_bytes_max")?;
    Ok((prefix, table, seq))
}

fn answer(
    services: &Services,
    (summary, origin): (&RunSummary, start::Origin),
    forked: Option<Forked>,
) -> Answer {
    let line = Line::new(summary, &services.durability);
    let response: Response<Body> = match forked {
        Some(forked) => json(StatusCode::ACCEPTED, &Made { line, forked }),
        None => json(StatusCode::ACCEPTED, &line),
    };
    Ok(start::located(response, summary.run_id, origin))
}

/// What the request means: which run, from where, given what.
fn idempotency(key: &[u8], asked: &Asked, workspace: &Workspace) -> Idempotency {
    let mut meaning = Sha256::new().chain_update(asked.source.as_bytes());
    meaning.update(format!("{:?}", asked.at));
    if let Some(inputs) = &asked.inputs {
        meaning.update(inputs.to_json());
    }
    // Keys are unique within the workspace and the route.
    let route = if asked.at.is_replay() { "replay" } else { "fork" };
    let scope = format!("/v1/runs/{route}@{}\0", workspace.name());
    let hash = Sha256::new().chain_update(scope).chain_update(key);
    let (key, meaning) = (hash.finalize(), meaning.finalize());
    let half = |hash: &[u8]| hash.first_chunk().copied().unwrap_or_default();
    Idempotency { key: half(&key), fingerprint: half(&meaning) }
}
