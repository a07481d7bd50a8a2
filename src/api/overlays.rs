//! Patches of a workflow's scope: runs that start from now on begin with them. Proposed, listed, shown; `decide` has the rest.
//!
//! A patch is put on the version that its author names (the latest one when none is named) with the patches in force on it,
//! and checked by the same three layers as a patch of a run. What is found good is noted durably and then seen by all cores at
//! once; running runs are untouched. One that does not fit another version of the workflow is left out there, and said so in
//! the list and in the record of every run that begins without it.

mod decide;
mod experiments;
mod sets;

use std::sync::Arc;

use http::request::Parts;
use http::{Response, StatusCode, header};
use serde::Serialize;

pub(super) use self::decide::{decide, revoke};
pub(super) use self::experiments::experiments;
pub(super) use self::sets::{list as list_sets, put as put_set, unknown as unknown_set};
use super::catalog::overlays::{Changes, Made, Mark, Once, Overlay, Overlays, PatchSet, State};
use super::catalog::{Catalog, Entry};
use super::patches::{Envelope, Refused, base_required};
use super::request::Incoming;
use super::respond::{Body, json, with};
use super::services::{Services, blocking};
use super::{admission, keys, request, start};
use crate::auth::{Caller, Holding};
use crate::compile::patch::{self, Patch};
use crate::exec::Reach;
use crate::limits;
use crate::model::Value;
use crate::model::event::Idempotency;
use crate::model::workspace::shown;
use crate::time::Clock as _;
use crate::time::Timestamp;
use crate::wire::problem::Problem;
use crate::wire::{Hash, Shown};

type Answer = Result<Response<Body>, Box<Problem>>;

/// What ids begin with.
const ID: &str = "wpatch_";

/// What is answered about a change.
#[derive(Serialize)]
struct Changed<'a> {
    workflow: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch_id: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<State>,
    overlay_version: u32,
    /// Hash of what runs of the version that the patch was made for begin with.
    hash: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    revoked: Vec<Arc<str>>,
}

/// One patch.
#[derive(Serialize)]
struct Shape<'a> {
    patch_id: &'a str,
    workflow: &'a str,
    state: State,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u32>,
    base: Base<'a>,
    author: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    justification: &'a str,
    at: Shown<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    held: Option<Waits<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    decided: Option<MarkShape<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    revoked: Option<MarkShape<'a>>,
    /// Why runs of the latest version begin without it, though it is in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    left_out: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    operations: Option<&'a Value>,
}

#[derive(Serialize)]
struct Base<'a> {
    version: &'a str,
    hash: String,
}

#[derive(Serialize)]
struct Waits<'a> {
    reason: &'a str,
    version: u32,
}

#[derive(Serialize)]
struct MarkShape<'a> {
    by: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    reason: &'a str,
    at: Shown<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u32>,
}

impl<'a> MarkShape<'a> {
    fn of(mark: &'a Mark) -> Self {
        let at = Shown(Timestamp::from_micros(mark.at));
        Self { by: &mark.by, reason: &mark.reason, at, version: mark.version }
    }
}

impl<'a> Shape<'a> {
    fn of(row: &'a Overlay, workflow: &'a str) -> Self {
        Self {
            patch_id: &row.patch_id,
            workflow,
            state: row.state,
            version: row.version,
            base: Base { version: &row.base.version, hash: Hash(&row.base.hash).to_string() },
            author: &row.author,
            justification: &row.justification,
            at: Shown(row.proposed_at()),
            held: row.held.as_ref().map(|(reason, version)| Waits { reason, version: *version }),
            decided: row.decided.as_ref().map(MarkShape::of),
            revoked: row.revoked.as_ref().map(MarkShape::of),
            left_out: None,
            operations: None,
        }
    }
}

/// A patch that is proposed.
struct Wanted {
    envelope: Envelope,
    patch: Patch,
    patch_id: Arc<str>,
    caller: Caller,
    at: u64,
    /// Where calls may go.
    reach: Arc<Reach>,
    /// Makes it once.
    key: Option<Idempotency>,
}

/// How it was answered when it was done under this key before; `None`: it was not.
fn done_before(once: Option<&Once>, key: Option<&Idempotency>) -> Result<Option<Arc<str>>, Box<Problem>> {
    match (once, key) {
        (Some(once), Some(key)) if once.idempotency == *key => Ok(Some(once.hash.clone())),
        (Some(once), Some(key)) if once.idempotency.key == key.key => {
            let detail = "this Idempotency-Key stands for another change of the workflow";
            Err(Problem::new(422, "idempotency_key_reused", detail))
        }
        _ => Ok(None),
    }
}

/// `POST /v1/workflows/{name}/patches`
pub(super) async fn propose(services: &Services, head: &Parts, incoming: Incoming, name: &str) -> Answer {
    services.refuse_when_stopping()?;
    let bytes = request::body(head, incoming).await?;
    let envelope = Envelope::of_workflow(&head.headers, &bytes)?;
    let entry = start::find(services, admission::workspace(head), name, envelope.base.as_deref()).await?;
    let key = request::idempotency_key(&head.headers)?.map(|given| {
        let [operations, justification, version] = envelope.meaning();
        let (base, set) = (envelope.base.as_deref(), envelope.patch_set.as_deref());
        let meaning =
            [&operations, &justification, &version, base.unwrap_or_default(), set.unwrap_or_default()];
        keys::within(given, &format!("/v1/workflows/{}/patches", entry.name), &meaning)
    });
    start::check_startable(&entry)?;
    if let Some(no_room) = services.node.no_room() {
        return Err(no_room.into());
    }
    let patch = patch::read(&envelope.operations).map_err(|refusal| Refused::from(refusal).problem)?;
    let patch_id = format!("{ID}{:016x}_{}", services.draw_number(), shown(&entry.name)).into();
    let caller = admission::caller(head).clone();
    let at = services.clock.now().as_micros();
    let reach = services.executors.reach.clone();
    let wanted = Wanted { envelope, patch, patch_id, caller, at, reach, key };
    let (catalog, holding) = (services.catalog.clone(), services.door.holding.clone());
    let (entry, (row, version, hash, again)) = blocking(move || {
        let made = catalog.amend_overlays(&entry.name, |overlays| {
            if let Some((row, hash)) = wanted.before(overlays)? {
                let made = row.version.or(row.held.as_ref().map(|(_, version)| *version)).unwrap_or_default();
                return Ok((Changes::default(), (Some(row), made, hash, true)));
            }
            let (row, hash) = wanted.put(&catalog, &entry, overlays, &holding)?;
            let sets = row.as_ref().map_or_else(Vec::new, |row| wanted.joined(overlays, row));
            let made = row.as_ref().and_then(|row| row.version).unwrap_or_else(|| overlays.version());
            let changes = Changes { rows: row.iter().cloned().collect(), sets, gone: Vec::new() };
            Ok::<_, Box<Problem>>((changes, (row, made, hash, false)))
        })?;
        Ok::<_, Box<Problem>>((entry, made))
    })
    .await??;
    let body = Changed {
        workflow: shown(&entry.name),
        patch_id: row.as_ref().map(|row| row.patch_id.clone()),
        state: row.as_ref().map(|row| row.state),
        overlay_version: version,
        hash,
        revoked: Vec::new(),
    };
    Ok(match &row {
        None => json(StatusCode::OK, &body),
        Some(row) => {
            let place = format!("/v1/workflows/{}/patches/{}", shown(&entry.name), row.patch_id);
            let response = with(json(StatusCode::ACCEPTED, &body), header::LOCATION, place);
            if again { keys::replayed(response) } else { response }
        }
    })
}

impl Wanted {
    /// The patch that the same key made.
    fn before(&self, overlays: &Overlays) -> Result<Option<(Overlay, String)>, Box<Problem>> {
        for row in &overlays.rows {
            if let Some(hash) = done_before(row.once.as_ref(), self.key.as_ref())? {
                return Ok(Some((Overlay::clone(row), hash.to_string())));
            }
        }
        Ok(None)
    }

    /// What is to be noted, `None` when nothing would change; and the hash that runs of this version begin with then.
    fn put(
        &self,
        catalog: &Catalog,
        entry: &Arc<Entry>,
        overlays: &Overlays,
        holding: &Holding,
    ) -> Result<(Option<Overlay>, String), Box<Problem>> {
        self.within(overlays)?;
        let set = self.envelope.patch_set.as_deref();
        if let Some(set) = set.filter(|set| overlays.set(set).is_none()) {
            return Err(sets::unknown(set, entry));
        }
        let before = catalog.put_on(entry, &overlays.of_set(set))?.entry;
        let based = self.envelope.base_version.is_some();
        if !based && (self.patch.needs_base() || self.patch.overwrites(&before.compiled.document)) {
            return Err(base_required().problem);
        }
        if let Some(base) = self.envelope.base_version {
            since(overlays, base, &self.patch, &self.patch_id)?;
        }
        let refused = |refusal| Refused::from(refusal).problem;
        let document = &before.compiled.document;
        // The rules in force are put on when a run begins; nothing else may speak as they do.
        patch::with_gates(document, &self.patch, patch::Aim::Make).map_err(refused)?;
        let candidate = patch::candidate(document, &self.patch).map_err(refused)?;
        patch::reach(document, &candidate.compiled.document, &self.patch, &|url| self.reach.refuses_url(url))
            .map_err(refused)?;
        if candidate.compiled.hash == before.compiled.hash {
            return Ok((None, Hash(&before.compiled.hash).to_string()));
        }
        let documents = (&before.compiled.document, &candidate.compiled.document);
        let why = holding.why(&self.caller, || patch::only_adds(documents.0, documents.1));
        let hash = if why.is_some() { &before.compiled.hash } else { &candidate.compiled.hash };
        let (state, version) = match &why {
            Some(_) => (State::Held, None),
            None => (State::Applied, Some(overlays.version().saturating_add(1))),
        };
        let hash = Hash(hash).to_string();
        let row = Overlay {
            patch_id: self.patch_id.clone(),
            order: overlays.rows.last().map_or(0, |row| row.order).saturating_add(1),
            state,
            author: self.caller.token.clone().unwrap_or_else(|| "anyone".into()),
            justification: self.envelope.justification.clone(),
            operations: self.patch.operations.clone(),
            base: Made { version: entry.version.clone(), hash: entry.compiled.hash },
            at: self.at,
            version,
            held: why.map(|why| (why.into(), overlays.version())),
            decided: None,
            revoked: None,
            once: self.key.clone().map(|idempotency| Once { idempotency, hash: hash.as_str().into() }),
        };
        Ok((Some(row), hash))
    }

    /// The set that the patch is for, with it.
    fn joined(&self, overlays: &Overlays, row: &Overlay) -> Vec<PatchSet> {
        let set = self.envelope.patch_set.as_deref().and_then(|set| overlays.set(set));
        let with = |set: &PatchSet| {
            let mut set = set.clone();
            set.patches.push(row.patch_id.clone());
            set
        };
        set.map(with).into_iter().collect()
    }

    fn within(&self, overlays: &Overlays) -> Result<(), Box<Problem>> {
        let count = overlays.rows.len();
        if count >= limits::PATCHES_PER_WORKFLOW_MAX {
            let detail = format!("the workflow has {count} patches, no room for more");
            return Err(Problem::new(422, "limit_exceeded", detail).limit("patches_per_workflow_max"));
        }
        let bytes: usize = overlays.rows.iter().map(|row| row.operations.weight()).sum();
        let bytes = bytes.saturating_add(self.patch.operations.weight());
        if bytes > limits::PATCH_BYTES_PER_WORKFLOW_MAX {
            let most = limits::PATCH_BYTES_PER_WORKFLOW_MAX;
            let detail = format!("the workflow's patches would have {bytes} bytes; at most {most}");
            return Err(Problem::new(422, "limit_exceeded", detail).limit("patch_bytes_per_workflow_max"));
        }
        Ok(())
    }
}

/// Refuses a patch when what came into force, or was taken back, since this version of the overlay meets what it touches.
fn since(overlays: &Overlays, base: u32, patch: &Patch, own: &str) -> Result<(), Box<Problem>> {
    let current = overlays.version();
    if base == 0 || base > current {
        let detail = format!("base_version {base}: the overlay has the versions 1 to {current}");
        return Err(Problem::new(422, "invalid_base_version", detail));
    }
    let touched = patch.touched();
    let is_since = |row: &&Arc<Overlay>| {
        let revoked = row.revoked.as_ref().and_then(|mark| mark.version);
        *row.patch_id != *own && row.version.max(revoked).is_some_and(|version| version > base)
    };
    let overlapping =
        overlays.rows.iter().filter(is_since).filter(|row| {
            patch::read(&row.operations).map_or(true, |other| other.touched().overlaps(&touched))
        });
    let overlapping: Vec<_> = overlapping.collect();
    if overlapping.is_empty() {
        return Ok(());
    }
    let count = overlapping.len();
    let detail = format!(
        "the overlay has version {current}; {count} changes since version {base} touch what this patch touches"
    );
    let mut problem = Problem::new(409, "patch_conflict", detail);
    problem = problem.at(&serde_json::json!({"yours": &patch.operations, "version": current}));
    for row in overlapping {
        problem = problem.at(&serde_json::json!({"patch_id": &row.patch_id, "operations": &row.operations}));
    }
    Err(problem)
}

#[derive(Serialize)]
struct List<'a> {
    workflow: &'a str,
    overlay_version: u32,
    /// What runs of the latest version begin with.
    latest: Latest<'a>,
    patches: Vec<Shape<'a>>,
}

#[derive(Serialize)]
struct Latest<'a> {
    version: &'a str,
    base: String,
    hash: String,
}

/// `GET /v1/workflows/{name}/patches`
pub(super) async fn list(services: &Services, head: &Parts, name: &str) -> Answer {
    request::require_accept(&head.headers, "application/json")?;
    let entry = start::find(services, admission::workspace(head), name, None).await?;
    let catalog = services.catalog.clone();
    blocking(move || {
        let overlays = catalog.overlays(&entry.name)?;
        let laid = catalog.put_on(&entry, &overlays.in_force())?;
        let left_out = |row: &Overlay| {
            let mut all = laid.layered.iter().flat_map(|layered| &layered.left_out);
            all.find(|(patch_id, _)| *patch_id == row.patch_id).map(|(_, why)| why.clone())
        };
        let name = shown(&entry.name);
        let patches = overlays
            .rows
            .iter()
            .map(|row| Shape { left_out: left_out(row), ..Shape::of(row, name) })
            .collect();
        let latest = Latest {
            version: &entry.version,
            base: Hash(&entry.compiled.hash).to_string(),
            hash: Hash(&laid.entry.compiled.hash).to_string(),
        };
        let overlay_version = overlays.version();
        Ok(json(StatusCode::OK, &List { workflow: name, overlay_version, latest, patches }))
    })
    .await?
}

/// `GET /v1/workflows/{name}/patches/{patch}`
pub(super) async fn show(services: &Services, head: &Parts, (name, patch_id): (&str, &str)) -> Answer {
    request::require_accept(&head.headers, "application/json")?;
    let entry = start::find(services, admission::workspace(head), name, None).await?;
    let (catalog, patch_id) = (services.catalog.clone(), patch_id.to_owned());
    blocking(move || {
        let overlays = catalog.overlays(&entry.name)?;
        let row = overlays.find(&patch_id).ok_or_else(|| missing(&entry, &patch_id))?;
        let shape = Shape::of(row, shown(&entry.name));
        Ok(json(StatusCode::OK, &Shape { operations: Some(&row.operations), ..shape }))
    })
    .await?
}

fn missing(entry: &Entry, patch_id: &str) -> Box<Problem> {
    let patch_id: String = patch_id.chars().take(200).collect();
    let detail = format!("workflow {} has no patch {patch_id:?}", shown(&entry.name));
    Problem::new(404, "patch_not_found", detail)
}
