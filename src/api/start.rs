//! Starting a run: the path that is measured. One parse, one lookup, one command, one answer.

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderName, Response, StatusCode, header};
use sha2::{Digest as _, Sha256};
use std::sync::Arc;

use super::catalog::overlays::{Choice, Laid};
use super::catalog::{Entry, effective};
use super::request::Incoming;
use super::respond::{Body, json, with};
use super::services::{Services, blocking, unexpected};
use super::{admission, agents, body, keys, overlays, rate, request, runs, workflows};
use crate::auth::tiers::Taken;
use crate::engine::command::{Command, OnConflict, Reply, Start};
use crate::limits;
use crate::model::event::Idempotency;
use crate::model::workspace::shown;
use crate::model::{Map, Mode, Partition, RunId, RunKey, RunSummary, Value, Workspace, run_key};
use crate::wire::problem::{Problem, Wrong};
use crate::wire::run::Line;

/// What keys are unique within, with the workspace: the route.
const KEY_SCOPE: &str = "/v1/runs";

/// `POST /v1/runs`
pub(super) async fn start(
    services: &Services,
    head: &Parts,
    incoming: Incoming,
) -> Result<Response<Body>, Box<Problem>> {
    request::require_json(&head.headers)?;
    services.refuse_when_stopping()?;
    let key = request::idempotency_key(&head.headers)?;
    let wait = request::prefer_wait(&head.headers);
    let bytes: Bytes = request::body(head, incoming).await?;
    let known = ["workflow", "tag", "version", "inputs", "run_key", "on_conflict", "mode", "patch_set"];
    let [workflow, tag, version, inputs, run_key, on_conflict, mode, patch_set] =
        body::members(&bytes, known)?;
    let mut version = body::text("version", version)?;
    let workflow = match (workflow, body::only_text("tag", tag)?) {
        // The tag of the workflow that is named: the run keeps the version that it stands for now.
        (Some(named @ Value::String(_)), Some(tag)) if version.is_none() && !tag.contains('@') => {
            version = Some(tag);
            Some(named)
        }
        (Some(_), Some(_)) => {
            let detail = "either \"workflow\" or \"tag\", not both: each says what is to be run";
            return Err(Problem::new(400, "invalid_body", detail));
        }
        (workflow, tag) => workflow.or(tag.map(Value::String)),
    };
    let run_key =
        business_key(body::only_text("run_key", run_key)?, body::only_text("on_conflict", on_conflict)?)?;
    let mode = body::only_text("mode", mode)?.map(|text| parse_mode(&text)).transpose()?;
    let patch_set = body::only_text("patch_set", patch_set)?;
    let asked = Asked { key, workflow, version, inputs, run_key, mode, patch_set };
    let launched = launch(services, head, asked).await?;
    answer(services, launched, wait).await
}

fn wrong(member: &str, detail: String) -> Box<Problem> {
    let wrong = Wrong { pointer: Some(format!("/{member}")), detail: detail.clone(), ..Wrong::default() };
    Problem::new(400, "invalid_body", detail).at(&wrong)
}

fn parse_mode(text: &str) -> Result<Mode, Box<Problem>> {
    Mode::ALL.into_iter().find(|mode| mode.as_str() == text).ok_or_else(|| {
        let text: String = text.chars().take(64).collect();
        wrong("mode", format!("mode {text:?} is none of full, fast"))
    })
}

/// The business key that a body asks for, and what to do when it is taken.
pub(super) fn business_key(
    run_key: Option<Arc<str>>,
    on_conflict: Option<Arc<str>>,
) -> Result<Option<(RunKey, OnConflict)>, Box<Problem>> {
    let how = match on_conflict.as_deref() {
        None => OnConflict::default(),
        Some(text) => OnConflict::ALL.into_iter().find(|how| how.as_str() == text).ok_or_else(|| {
            let known = OnConflict::ALL.map(OnConflict::as_str).join(", ");
            let text: String = text.chars().take(64).collect();
            wrong("on_conflict", format!("on_conflict {text:?} is none of {known}"))
        })?,
    };
    match run_key {
        None if on_conflict.is_some() => {
            Err(wrong("on_conflict", "\"on_conflict\" needs a \"run_key\"".into()))
        }
        None => Ok(None),
        Some(text) => match RunKey::new(&text) {
            Ok(key) => Ok(Some((key, how))),
            Err(error @ run_key::Invalid::TooLong(_)) => {
                Err(Problem::new(422, "limit_exceeded", error.to_string()).limit("run_key_bytes_max"))
            }
            Err(error) => Err(wrong("run_key", error.to_string())),
        },
    }
}

/// What is to be run.
pub(super) struct Asked<'a> {
    /// Of the request's `Idempotency-Key`.
    pub(super) key: Option<&'a [u8]>,
    /// A name, `name@version`, `name@tag` or a whole document.
    pub(super) workflow: Option<Value>,
    pub(super) version: Option<Arc<str>>,
    pub(super) inputs: Option<Value>,
    /// Its business key, and what to do when an unfinished run has it.
    pub(super) run_key: Option<(RunKey, OnConflict)>,
    /// What is to be written down of it, when not what the document says.
    pub(super) mode: Option<Mode>,
    /// The patch set that it is an arm of; drawn by weight when none is named.
    pub(super) patch_set: Option<Arc<str>>,
}

/// How it came that a run answers a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// It was started.
    Started,
    /// The Idempotency-Key had started it before.
    Replayed,
    /// It has the `run_key`, and is not finished.
    Existing,
}

/// A run that answers a start.
pub(super) struct Launched {
    pub(super) summary: RunSummary,
    pub(super) origin: Origin,
    /// Where its workflow stands, when starts of it are counted.
    pub(super) taken: Option<Taken>,
}

/// Starts a run in the caller's workspace, once for each Idempotency-Key.
pub(super) async fn launch(
    services: &Services,
    head: &Parts,
    asked: Asked<'_>,
) -> Result<Launched, Box<Problem>> {
    let workspace = admission::workspace(head);
    let entry = resolve(services, workspace, asked.workflow, asked.version).await?;
    let inputs = asked.inputs.unwrap_or_else(|| Value::Map(Arc::new(Map::default())));
    check(&entry, &inputs)?;
    agents::check_models(services, &entry)?;
    let mut wanted = Wanted {
        inputs,
        mode: asked.mode,
        idempotency: None,
        run_key: asked.run_key,
        patch_set: asked.patch_set,
    };
    wanted.idempotency = asked.key.map(|key| idempotency(key, &entry, &wanted));
    let launched = once(services, &entry, wanted).await?;
    services.remember(launched.summary.run_id, workspace);
    Ok(launched)
}

/// A start that a schedule or a hook brings about.
pub(super) struct Triggered {
    /// Name, name@version or name@tag.
    pub(super) workflow: Arc<str>,
    pub(super) inputs: Value,
    /// Says what brought it about. Whatever is started under it later is the run that was started first.
    pub(super) run_key: RunKey,
}

/// Starts a run in a workspace, once for each `run_key`.
pub(super) async fn triggered(
    services: &Services,
    workspace: &Workspace,
    asked: Triggered,
) -> Result<(RunSummary, Origin), Box<Problem>> {
    let entry = resolve(services, workspace, Some(Value::String(asked.workflow)), None).await?;
    check(&entry, &asked.inputs)?;
    agents::check_models(services, &entry)?;
    let claim = asked.run_key.claim(&entry.name);
    let key = first_half(&Sha256::new_with_prefix(b"trigger\0").chain_update(claim).finalize());
    let run_key = Some((asked.run_key, OnConflict::Return));
    // The workflow may have another version by then: what was started first is the answer all the same.
    let idempotency = Some(Idempotency { key, fingerprint: key });
    let wanted = Wanted { inputs: asked.inputs, mode: None, idempotency, run_key, patch_set: None };
    let Launched { summary, origin, .. } = once(services, &entry, wanted).await?;
    services.remember(summary.run_id, workspace);
    Ok((summary, origin))
}

/// A run to be started, and the keys it is started under. With a `run_key` both hash to its partition.
struct Wanted {
    inputs: Value,
    mode: Option<Mode>,
    idempotency: Option<Idempotency>,
    run_key: Option<(RunKey, OnConflict)>,
    patch_set: Option<Arc<str>>,
}

/// What a run of this version begins with, in the patch set that is named, or that is drawn by the key: the workflow's patches on
/// the version that was asked for, and then the gates of the policy in force.
pub(super) async fn laid(
    services: &Services,
    entry: &Arc<Entry>,
    patch_set: Option<Arc<str>>,
    key: &[u8],
) -> Result<Laid, Box<Problem>> {
    let choice = patch_set.as_deref().map_or(Choice::Drawn(key), Choice::Named);
    let laid = match services.catalog.laid_cached(entry, choice) {
        Some(laid) => laid,
        None => {
            let (catalog, entry) = (services.catalog.clone(), entry.clone());
            let (patch_set, key) = (patch_set.clone(), key.to_vec());
            blocking(move || {
                let choice = patch_set.as_deref().map_or(Choice::Drawn(&key), Choice::Named);
                catalog.lay(&entry, choice)
            })
            .await??
        }
    };
    match patch_set {
        Some(set) if laid.layered.as_ref().and_then(|layered| layered.set.as_ref()) != Some(&set) => {
            Err(overlays::unknown_set(&set, entry))
        }
        _ => Ok(Laid { entry: effective(services, laid.entry).await?, layered: laid.layered }),
    }
}

/// Starts the run, unless its key has started one before: the index is asked first, then the key's owner. Between the two
/// a run may end, be indexed and be forgotten by its owner; then the index has it, and is asked again.
async fn once(services: &Services, entry: &Arc<Entry>, wanted: Wanted) -> Result<Launched, Box<Problem>> {
    let replayed = |summary| Launched { summary, origin: Origin::Replayed, taken: None };
    let asked = wanted.idempotency.clone();
    if let Some(asked) = &asked
        && let Some(summary) = before(services, asked)?
    {
        return Ok(replayed(summary));
    }
    let taken = rate::start(services, entry)?;
    match (send(services, entry, wanted).await, &asked) {
        (Ok((summary, origin)), _) => Ok(Launched { summary, origin, taken }),
        (Err(problem), Some(asked)) if problem.status == 404 => {
            before(services, asked)?.map(replayed).ok_or(problem)
        }
        (Err(problem), _) => Err(problem),
    }
}

async fn send(
    services: &Services,
    entry: &Arc<Entry>,
    wanted: Wanted,
) -> Result<(RunSummary, Origin), Box<Problem>> {
    let Wanted { inputs, mode, idempotency, run_key, patch_set } = wanted;
    // A run started with a key lives on the key's partition, so that both have one owner.
    let partition = match &run_key {
        Some((key, _)) => Some(run_key::partition(&key.claim(&entry.name))),
        None => idempotency.as_ref().map(|idempotency| Partition::of_key(&idempotency.key)),
    };
    let (run_id, seed) = services.new_run(partition);
    // The same business key is always of the same arm.
    let laid = match &run_key {
        Some((key, _)) => laid(services, entry, patch_set, &key.claim(&entry.name)).await?,
        None => laid(services, entry, patch_set, run_id.as_bytes()).await?,
    };
    let ir = laid.entry.compiled.ir.clone();
    let no_room = services.node.no_room();
    let kept = match no_room {
        None => services.keep(run_id, &Workspace::of(&entry.name), &inputs).await?,
        Some(_) => None,
    };
    let (deadline, parent, layered) = (None, None, laid.layered);
    let start =
        Box::new(Start { run_id, ir, inputs, seed, idempotency, deadline, parent, run_key, mode, layered });
    let command = match no_room {
        None => Command::Start(start).keeping(run_id, kept),
        // Whoever asks again for what was begun is answered; nothing is written.
        Some(no_room) => Command::StartedBefore { start, no_room },
    };
    match services.ask(run_id, command).await? {
        Reply::Started { run, replayed: false } => Ok((run, Origin::Started)),
        Reply::Started { run, replayed: true } => Ok((run, Origin::Replayed)),
        Reply::Existing(run) => Ok((run, Origin::Existing)),
        other => Err(unexpected(other)),
    }
}

async fn answer(
    services: &Services,
    Launched { summary, origin, taken }: Launched,
    wait: Option<u64>,
) -> Result<Response<Body>, Box<Problem>> {
    let run_id = summary.run_id;
    let ended = match wait {
        Some(seconds) => runs::ended_within(services, summary.run_id, seconds).await,
        None => None,
    };
    let response = match ended {
        Some(view) => {
            let full = runs::whole(services, &view);
            with(full, HeaderName::from_static("preference-applied"), preference(wait))
        }
        None => {
            // Nothing was accepted when nothing was started.
            let status = if origin == Origin::Existing { StatusCode::OK } else { StatusCode::ACCEPTED };
            json(status, &Line::new(&summary, &services.durability))
        }
    };
    let mut response = located(response, run_id, origin);
    rate::tell_start(taken.as_ref(), &mut response);
    Ok(response)
}

/// The answer to a start says where the run is, and whether it had been started before.
pub(super) fn located(response: Response<Body>, run_id: RunId, origin: Origin) -> Response<Body> {
    let response = with(response, header::LOCATION, format!("/v1/runs/{run_id}"));
    match origin {
        Origin::Started => response,
        Origin::Replayed => keys::replayed(response),
        Origin::Existing => with(response, HeaderName::from_static("aob-existing-run"), "true"),
    }
}

/// The value of `Preference-Applied`.
pub(super) fn preference(wait: Option<u64>) -> String {
    format!("wait={}", wait.unwrap_or_default())
}

fn idempotency(key: &[u8], entry: &Entry, wanted: &Wanted) -> Idempotency {
    let Wanted { inputs, mode, run_key, patch_set, .. } = wanted;
    // The meaning of the request: which document, which inputs. Maps are sorted, so equal inputs are equal bytes.
    let mut meaning =
        Sha256::new().chain_update(entry.compiled.hash).chain_update(inputs.to_json().as_bytes());
    let scope = match Workspace::of(&entry.name) {
        Workspace::DEFAULT => format!("{KEY_SCOPE}\0"),
        workspace => format!("{KEY_SCOPE}@{}\0", workspace.name()),
    };
    if let Some(mode) = mode {
        meaning.update(mode.as_str());
    }
    if let Some(set) = patch_set {
        meaning.update(b"patch set\0");
        meaning.update(set.as_bytes());
    }
    let mut hash = Sha256::new().chain_update(scope);
    if let Some((run_key, how)) = run_key {
        // It is looked up where the run_key lives, so it is one of that run_key's keys.
        meaning.update(how.as_str());
        hash.update(b"run_key\0");
        hash.update(run_key.claim(&entry.name));
    }
    let (key, meaning) = (hash.chain_update(key).finalize(), meaning.finalize());
    Idempotency { key: first_half(&key), fingerprint: first_half(&meaning) }
}

pub(super) fn first_half(hash: &[u8]) -> [u8; 16] {
    hash.first_chunk().copied().unwrap_or_default()
}

/// The finished run that this key started; unfinished ones the shard knows.
pub(super) fn before(services: &Services, asked: &Idempotency) -> Result<Option<RunSummary>, Box<Problem>> {
    let Some((summary, stored)) = services.runs.by_key(&asked.key)? else { return Ok(None) };
    if stored.fingerprint != asked.fingerprint {
        return Err(Problem::new(
            422,
            "idempotency_key_reused",
            format!("this Idempotency-Key started {} with another request", summary.run_id),
        ));
    }
    Ok(Some(summary))
}

/// May this workflow be started here, with these inputs?
pub(super) fn check(entry: &Entry, inputs: &Value) -> Result<(), Box<Problem>> {
    check_startable(entry)?;
    entry.compiled.inputs.check(inputs).map_err(|found| {
        let count = found.len();
        let detail =
            format!("inputs do not fit {}@{}: {count} finding(s)", shown(&entry.name), entry.version);
        found
            .iter()
            .take(limits::DIAGNOSTICS_MAX)
            .fold(Problem::new(422, "invalid_inputs", detail), |problem, wrong| problem.at(wrong))
    })
}

/// May this workflow be started here?
pub(super) fn check_startable(entry: &Entry) -> Result<(), Box<Problem>> {
    if !entry.compiled.unstartable.is_empty() {
        let (name, version) = (shown(&entry.name), &entry.version);
        let detail = format!("{name}@{version} cannot be run on this node as it stands");
        let problem = Problem::new(422, "workflow_unstartable", detail);
        return Err(entry.compiled.unstartable.iter().fold(problem, |problem, wrong| problem.at(wrong)));
    }
    Ok(())
}

/// Finds what is to be run: a name, `name@version`, or a whole document, which is registered first.
async fn resolve(
    services: &Services,
    workspace: &Workspace,
    workflow: Option<Value>,
    version: Option<Arc<str>>,
) -> Result<Arc<Entry>, Box<Problem>> {
    match workflow {
        Some(Value::String(text)) => {
            let (name, tagged) = match text.split_once('@') {
                Some((name, version)) => (name, Some(version)),
                None => (&*text, None),
            };
            if let (Some(tagged), Some(version)) = (tagged, version.as_deref())
                && tagged != version
            {
                return Err(Problem::new(
                    422,
                    "version_mismatch",
                    format!("\"workflow\" names version {tagged:?} and \"version\" names {version:?}"),
                ));
            }
            find(services, workspace, name, tagged.or(version.as_deref())).await
        }
        Some(document @ Value::Map(_)) => {
            let source = document.to_json().into_bytes();
            let options = workflows::options(None, version.as_deref().map(str::to_owned));
            workflows::register_source(services, workspace, (source, crate::compile::Format::Json), options)
                .await
                .map(|(entry, _)| entry)
        }
        Some(other) => Err(body::wrong_type("workflow", "a name or a document", &other)),
        None => Err(Problem::new(
            400,
            "invalid_body",
            "\"workflow\" is missing: a name, name@version or a document",
        )),
    }
}

/// A registered workflow, or 404.
pub(super) async fn find(
    services: &Services,
    workspace: &Workspace,
    name: &str,
    version: Option<&str>,
) -> Result<Arc<Entry>, Box<Problem>> {
    let missing = || {
        let shown = version.map_or_else(|| name.to_owned(), |version| format!("{name}@{version}"));
        Problem::new(404, "workflow_not_found", format!("there is no workflow {shown:?}"))
    };
    let inside = workspace.qualified(name).ok_or_else(missing)?;
    if let Some(entry) = services.catalog.cached(&inside, version) {
        return Ok(entry);
    }
    if name.len() > limits::NAME_BYTES_MAX || version.is_some_and(|text| text.len() > limits::NAME_BYTES_MAX)
    {
        return Err(Problem::new(
            422,
            "limit_exceeded",
            format!("a workflow's name and version have at most {} bytes", limits::NAME_BYTES_MAX),
        )
        .limit("name_bytes_max"));
    }
    let catalog = services.catalog.clone();
    let (owned, owned_version) = (inside.into_owned(), version.map(str::to_owned));
    services.read(move || catalog.load(&owned, owned_version.as_deref())).await?.ok_or_else(missing)
}
