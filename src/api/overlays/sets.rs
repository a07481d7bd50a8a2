//! Patch sets: named patches of a workflow, the arms of an experiment.
//!
//! A patch that stands in a set is for runs of that set; what stands in none is for all. A start says which set it is of, or
//! draws one by weight; a set without patches is the arm to compare with.

use std::sync::Arc;

use http::request::Parts;
use http::{Method, StatusCode};
use serde::Serialize;

use super::super::catalog::Entry;
use super::super::catalog::overlays::{Changes, Overlays, PatchSet, State};
use super::super::request::Incoming;
use super::super::respond::json;
use super::super::services::{Services, blocking};
use super::super::{admission, body, request, start};
use super::Answer;
use crate::limits;
use crate::model::Value;
use crate::model::workspace::shown;
use crate::wire::problem::Problem;

#[derive(Serialize)]
struct Shape<'a> {
    patch_set: &'a str,
    patches: &'a [Arc<str>],
    weight: u32,
}

#[derive(Serialize)]
struct List<'a> {
    workflow: &'a str,
    patch_sets: Vec<Shape<'a>>,
}

fn shape(set: &PatchSet) -> Shape<'_> {
    Shape { patch_set: &set.name, patches: &set.patches, weight: set.weight }
}

/// 422 for a set that a body names.
pub(in crate::api) fn unknown(set: &str, entry: &Entry) -> Box<Problem> {
    let set: String = set.chars().take(60).collect();
    let detail = format!("workflow {} has no patch set {set:?}", shown(&entry.name));
    Problem::new(422, "patch_set_unknown", detail)
}

/// `GET /v1/workflows/{name}/patch-sets`
pub(in crate::api) async fn list(services: &Services, head: &Parts, name: &str) -> Answer {
    request::require_accept(&head.headers, "application/json")?;
    let entry = start::find(services, admission::workspace(head), name, None).await?;
    let catalog = services.catalog.clone();
    blocking(move || {
        let overlays = catalog.overlays(&entry.name)?;
        let patch_sets = overlays.sets.iter().map(shape).collect();
        Ok(json(StatusCode::OK, &List { workflow: shown(&entry.name), patch_sets }))
    })
    .await?
}

/// `PUT` and `DELETE /v1/workflows/{name}/patch-sets/{set}`
pub(in crate::api) async fn put(
    services: &Services,
    head: &Parts,
    incoming: Incoming,
    (name, set): (&str, &str),
) -> Answer {
    services.refuse_when_stopping()?;
    let removes = head.method == Method::DELETE;
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    if set.is_empty() || set.len() > limits::NAME_BYTES_MAX || !set.bytes().all(fits) {
        let (most, set) = (limits::NAME_BYTES_MAX, set.chars().take(60).collect::<String>());
        let detail = format!("the patch set {set:?} does not fit [A-Za-z0-9_.-]{{1,{most}}}");
        return Err(Problem::new(422, "invalid_name", detail).limit("name_bytes_max"));
    }
    let mut wanted = PatchSet { name: set.into(), patches: Vec::new(), weight: 0 };
    if !removes {
        let bytes = request::body(head, incoming).await?;
        request::require_json(&head.headers)?;
        let [patches, weight] = body::members(&bytes, ["patches", "weight"])?;
        wanted.patches = ids(patches)?;
        wanted.weight = share(weight)?;
    }
    let entry = start::find(services, admission::workspace(head), name, None).await?;
    let catalog = services.catalog.clone();
    blocking(move || {
        let name = entry.name.clone();
        catalog.amend_overlays(&name, |overlays| {
            if removes {
                if overlays.set(&wanted.name).is_none() {
                    let detail = format!("workflow {} has no patch set {:?}", shown(&name), wanted.name);
                    return Err(Problem::new(404, "patch_set_not_found", detail));
                }
                return Ok((Changes { gone: vec![wanted.name.clone()], ..Changes::default() }, ()));
            }
            check(&wanted, overlays, &entry)?;
            let laid = catalog.put_on(&entry, &overlays.with(&put_in(&wanted)).of_set(Some(&wanted.name)))?;
            let mut left_out = laid.layered.iter().flat_map(|layered| &layered.left_out);
            if let Some((patch_id, why)) = left_out.find(|(patch_id, _)| wanted.patches.contains(patch_id)) {
                let detail = format!("{patch_id} does not fit version {} in this set: {why}", entry.version);
                return Err(Problem::new(409, "patch_conflict", detail));
            }
            Ok::<_, Box<Problem>>((put_in(&wanted), ()))
        })?;
        Ok(json(StatusCode::OK, &shape(&wanted)))
    })
    .await?
}

fn put_in(set: &PatchSet) -> Changes {
    Changes { sets: vec![set.clone()], ..Changes::default() }
}

fn check(wanted: &PatchSet, overlays: &Overlays, entry: &Entry) -> Result<(), Box<Problem>> {
    let count = overlays.sets.len();
    if overlays.set(&wanted.name).is_none() && count >= limits::PATCH_SETS_PER_WORKFLOW_MAX {
        let detail = format!("{} has {count} patch sets, no room for more", shown(&entry.name));
        return Err(Problem::new(422, "limit_exceeded", detail).limit("patch_sets_per_workflow_max"));
    }
    let unfit = wanted.patches.iter().find(|patch_id| {
        overlays.find(patch_id).is_none_or(|row| !matches!(row.state, State::Applied | State::Held))
    });
    match unfit {
        Some(patch_id) => {
            let patch_id: String = patch_id.chars().take(200).collect();
            let detail =
                format!("{patch_id:?} is no patch of {} that runs could begin with", shown(&entry.name));
            Err(Problem::new(422, "patch_set_invalid", detail))
        }
        None => Ok(()),
    }
}

fn ids(patches: Option<Value>) -> Result<Vec<Arc<str>>, Box<Problem>> {
    let wrong = || Problem::new(422, "patch_set_invalid", "`patches` is a list of ids of patches, each once");
    let Some(Value::List(items)) = patches else { return Err(wrong()) };
    let mut found: Vec<Arc<str>> = Vec::new();
    for item in items.iter() {
        let id: Arc<str> = item.as_str().ok_or_else(wrong)?.into();
        if found.contains(&id) || found.len() >= limits::PATCHES_PER_WORKFLOW_MAX {
            return Err(wrong());
        }
        found.push(id);
    }
    Ok(found)
}

fn share(weight: Option<Value>) -> Result<u32, Box<Problem>> {
    let most = limits::PATCH_SET_WEIGHT_MAX;
    let number = match weight {
        None | Some(Value::Null) => return Ok(0),
        Some(Value::Int(number)) => u32::try_from(number).ok(),
        // 2.0 is an integer to JSON Schema.
        Some(Value::Float(number)) if number.fract() == 0.0 && (0.0..=f64::from(most)).contains(&number) => {
            Some(number as u32)
        }
        Some(_) => None,
    };
    number.filter(|number| *number <= most).ok_or_else(|| {
        let detail = format!("`weight` is a whole number from 0 to {most}");
        Problem::new(422, "patch_set_invalid", detail).limit("patch_set_weight_max")
    })
}
