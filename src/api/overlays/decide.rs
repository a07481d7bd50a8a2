//! What becomes of a workflow's patches: approved, rejected, taken back. Each is noted once and stands for ever.

use std::collections::BTreeSet;
use std::sync::Arc;

use http::StatusCode;
use http::request::Parts;

use super::super::catalog::overlays::{Changes, Mark, Once, Overlay, Overlays, State};
use super::super::catalog::{Catalog, Entry};
use super::super::patches::{Refused, reasons};
use super::super::request::Incoming;
use super::super::respond::json;
use super::super::services::{Services, blocking};
use super::super::{admission, keys, request, start};
use super::{Answer, Changed, Shape, done_before, missing, since};
use crate::compile::patch;
use crate::model::event::Idempotency;
use crate::model::workspace::shown;
use crate::time::Clock as _;
use crate::wire::Hash;
use crate::wire::problem::Problem;

/// `POST /v1/workflows/{name}/patches/{patch}/approve` and `/reject`
pub(in crate::api) async fn decide(
    services: &Services,
    head: &Parts,
    incoming: Incoming,
    (name, patch_id, approved): (&str, &str, bool),
) -> Answer {
    services.refuse_when_stopping()?;
    let bytes = request::body(head, incoming).await?;
    let (reason, _) = reasons(head, &bytes, false)?;
    let entry = start::find(services, admission::workspace(head), name, None).await?;
    let (catalog, holding) = (services.catalog.clone(), services.door.holding.clone());
    let (caller, patch_id) = (admission::caller(head).clone(), patch_id.to_owned());
    let at = services.clock.now().as_micros();
    let by: Arc<str> = admission::who(head).into();
    blocking(move || {
        let name = entry.name.clone();
        let (row, made) = catalog.amend_overlays(&name, |overlays| {
            let row = overlays.find(&patch_id).ok_or_else(|| missing(&entry, &patch_id))?;
            if row.state != State::Held {
                decided_before(row, approved)?;
                return Ok((Changes::default(), (Overlay::clone(row), false)));
            }
            let may = if approved {
                holding.may_approve(&caller, &row.author)
            } else {
                holding.may_decline(&caller, &row.author)
            };
            may.map_err(|why| Problem::new(403, "forbidden", why))?;
            let mut next = Overlay::clone(row);
            next.state = if approved { State::Applied } else { State::Rejected };
            if approved {
                still_fits(&catalog, &entry, overlays, row)?;
                next.version = Some(overlays.version().saturating_add(1));
            }
            next.decided = Some(Mark { by, reason, at, version: next.version, once: None });
            let changes = Changes { rows: vec![next.clone()], ..Changes::default() };
            Ok::<_, Box<Problem>>((changes, (next, true)))
        })?;
        let status = if made && approved { StatusCode::ACCEPTED } else { StatusCode::OK };
        Ok(json(status, &Shape::of(&row, shown(&name))))
    })
    .await?
}

/// The same again is nothing new; the other one is refused.
fn decided_before(row: &Overlay, approved: bool) -> Result<(), Box<Problem>> {
    let patch_id = &row.patch_id;
    let detail = match &row.decided {
        Some(_) if approved == (row.state != State::Rejected) => return Ok(()),
        Some(mark) => {
            let verdict = if approved { "rejected" } else { "approved" };
            format!("{patch_id} was {verdict} already, by {}", mark.by)
        }
        None => format!("{patch_id} did not wait for a decision"),
    };
    Err(Problem::new(409, "patch_decided", detail))
}

/// Can it be put on the latest version with the patches in force by now?
fn still_fits(
    catalog: &Catalog,
    entry: &Arc<Entry>,
    overlays: &Overlays,
    row: &Arc<Overlay>,
) -> Result<(), Box<Problem>> {
    let patch = patch::read(&row.operations).map_err(|refusal| Refused::from(refusal).problem)?;
    if let Some((_, version)) = &row.held {
        since(overlays, *version, &patch, &row.patch_id)?;
    }
    let mut wanted = overlays.in_force();
    wanted.push(row.clone());
    let laid = catalog.put_on(entry, &wanted)?;
    let mut left_out = laid.layered.iter().flat_map(|layered| &layered.left_out);
    match left_out.find(|(patch_id, _)| *patch_id == row.patch_id) {
        Some((patch_id, why)) => {
            let detail = format!("{patch_id} does not fit version {} by now: {why}", entry.version);
            Err(Problem::new(409, "patch_conflict", detail))
        }
        None => Ok(()),
    }
}

/// `POST /v1/workflows/{name}/patches/{patch}/revoke`
pub(in crate::api) async fn revoke(
    services: &Services,
    head: &Parts,
    incoming: Incoming,
    (name, patch_id): (&str, &str),
) -> Answer {
    services.refuse_when_stopping()?;
    let bytes = request::body(head, incoming).await?;
    let (reason, cascade) = reasons(head, &bytes, true)?;
    let entry = start::find(services, admission::workspace(head), name, None).await?;
    let key = request::idempotency_key(&head.headers)?.map(|given| {
        let path = format!("/v1/workflows/{}/patches/{patch_id}/revoke", entry.name);
        keys::within(given, &path, &[&*reason, if cascade { "cascade" } else { "" }])
    });
    let (caller, holding) = (admission::caller(head), &services.door.holding);
    if holding.why(caller, || None).is_some() && caller.role < holding.decider {
        let detail = "whose patches wait for a human takes none back; whoever may approve them does";
        return Err(Problem::new(403, "forbidden", detail));
    }
    let (catalog, patch_id) = (services.catalog.clone(), patch_id.to_owned());
    let at = services.clock.now().as_micros();
    let by: Arc<str> = admission::who(head).into();
    blocking(move || {
        let name = entry.name.clone();
        let Taken { gone, version, hash, again } = catalog.amend_overlays(&name, |overlays| {
            if let Some(before) = revoked_before(overlays, &patch_id, key.as_ref())? {
                return Ok((Changes::default(), before));
            }
            let gone = going(&entry, overlays, &patch_id, cascade)?;
            let ids: BTreeSet<&str> = gone.iter().map(|row| &*row.patch_id).collect();
            let left: Vec<_> =
                overlays.in_force().into_iter().filter(|row| !ids.contains(&*row.patch_id)).collect();
            let hash = stand_alone(&catalog, &entry, overlays, &left)?;
            let version = overlays.version().saturating_add(1);
            let once = key.map(|idempotency| Once { idempotency, hash: hash.as_str().into() });
            let mark = Mark { by, reason, at, version: Some(version), once };
            let taken = gone.iter().map(|row| Overlay {
                state: State::Revoked,
                revoked: Some(mark.clone()),
                ..Overlay::clone(row)
            });
            let gone = gone.iter().map(|row| row.patch_id.clone()).collect();
            let changes = Changes { rows: taken.collect(), ..Changes::default() };
            Ok::<_, Box<Problem>>((changes, Taken { gone, version, hash, again: false }))
        })?;
        let (workflow, overlay_version) = (shown(&name), version);
        let body = Changed { workflow, patch_id: None, state: None, overlay_version, hash, revoked: gone };
        let response = json(StatusCode::ACCEPTED, &body);
        Ok(if again { keys::replayed(response) } else { response })
    })
    .await?
}

/// What was taken back.
struct Taken {
    gone: Vec<Arc<str>>,
    /// Of the overlay, after it.
    version: u32,
    /// What runs begin with then.
    hash: String,
    /// It was done before.
    again: bool,
}

/// What was taken back under this key before, the version that followed, and what runs began with then.
fn revoked_before(
    overlays: &Overlays,
    patch_id: &str,
    key: Option<&Idempotency>,
) -> Result<Option<Taken>, Box<Problem>> {
    let mark = overlays.find(patch_id).and_then(|row| row.revoked.as_ref());
    let Some((mark, hash)) =
        mark.and_then(|mark| Some((mark, done_before(mark.once.as_ref(), key).transpose()?)))
    else {
        return Ok(None);
    };
    let with_it = overlays
        .rows
        .iter()
        .filter(|row| row.revoked.as_ref().is_some_and(|revoked| revoked.version == mark.version));
    let gone = with_it.map(|row| row.patch_id.clone()).collect();
    Ok(Some(Taken { gone, version: mark.version.unwrap_or_default(), hash: hash?.to_string(), again: true }))
}

/// The patches that go: the one that is named, and those that build on it.
fn going(
    entry: &Entry,
    overlays: &Overlays,
    patch_id: &str,
    cascade: bool,
) -> Result<Vec<Arc<Overlay>>, Box<Problem>> {
    let row = overlays.find(patch_id).ok_or_else(|| missing(entry, patch_id))?;
    match row.state {
        State::Applied => {}
        State::Revoked => {
            return Err(Problem::new(409, "patch_revoked", format!("{patch_id} was taken back already")));
        }
        State::Held | State::Rejected => {
            let detail = format!("{patch_id} is not in force: nothing begins with it");
            return Err(Problem::new(409, "patch_not_applied", detail));
        }
    }
    let touched = |row: &Overlay| patch::read(&row.operations).map(|patch| patch.touched());
    let overlap = |a: &Overlay, b: &Overlay| match (touched(a), touched(b)) {
        (Ok(a), Ok(b)) => a.overlaps(&b),
        _ => true,
    };
    let mut gone: Vec<Arc<Overlay>> = vec![row.clone()];
    for later in overlays.in_force().into_iter().filter(|later| later.version > row.version) {
        if gone.iter().any(|gone| overlap(&later, gone)) {
            gone.push(later);
        }
    }
    if gone.len() > 1 && !cascade {
        let dependants: Vec<&str> = gone.iter().skip(1).map(|row| &*row.patch_id).collect();
        let detail = format!(
            "{} build on {patch_id}; take these back too with \"cascade\": true",
            dependants.join(", ")
        );
        return Err(Problem::new(409, "patch_has_dependants", detail));
    }
    Ok(gone)
}

/// Those that are left must fit as they did before; gives the hash of what runs of this version begin with then.
fn stand_alone(
    catalog: &Catalog,
    entry: &Arc<Entry>,
    overlays: &Overlays,
    left: &[Arc<Overlay>],
) -> Result<String, Box<Problem>> {
    let before = catalog.put_on(entry, &overlays.in_force())?;
    let after = catalog.put_on(entry, left)?;
    let did_fit = |patch_id: &Arc<str>| {
        before.layered.as_ref().is_some_and(|layered| layered.patches.contains(patch_id))
    };
    let mut left_out = after.layered.iter().flat_map(|layered| &layered.left_out);
    if let Some((patch_id, why)) = left_out.find(|(patch_id, _)| did_fit(patch_id)) {
        let detail = format!("{patch_id} does not stand without what is taken back: {why}");
        return Err(Problem::new(409, "patch_has_dependants", detail));
    }
    Ok(Hash(&after.entry.compiled.hash).to_string())
}
