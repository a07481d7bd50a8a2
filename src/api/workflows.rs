//! Workflows: validate, register, show.

use std::sync::Arc;

use http::request::Parts;
use http::{Response, StatusCode, header};
use serde::Serialize;

use super::catalog::{self, Catalog, Entry};
use super::ports::Registration;
use super::request::Incoming;
use super::respond::{self, Body, json, with};
use super::services::{Services, blocking};
use super::start::find;
use super::{admission, agents, conditions, request};
use crate::compile::{self, Diagnostic, Diagnostics, Format, Options};
use crate::limits;
use crate::model::workspace::shown;
use crate::model::{Value, Workspace};
use crate::wire::problem::Problem;
use crate::wire::workflow::{Registered, Verdict};
use crate::wire::{Hash, Shown};

type Answer = Result<Response<Body>, Box<Problem>>;

/// `POST /v1/workflows`
pub(super) async fn register(services: &Services, head: &Parts, body: Incoming) -> Answer {
    services.refuse_when_stopping()?;
    let format = format(head)?;
    let [name, version] = request::parameters(head, ["name", "version"])?;
    let source = request::body(head, body).await?.to_vec();
    let workspace = admission::workspace(head);
    let options = options(name, version);
    let (entry, created) = register_source(services, workspace, (source, format), options).await?;
    let status = if created { StatusCode::CREATED } else { StatusCode::OK };
    let registered = Registered {
        name: shown(&entry.name),
        version: &entry.version,
        hash: Shown(Hash(&entry.compiled.hash)),
        created,
        warnings: &entry.compiled.warnings,
    };
    let location = format!("/v1/workflows/{}/versions/{}", shown(&entry.name), entry.version);
    Ok(with(json(status, &registered), header::LOCATION, location))
}

/// Options of a registration: `name` and `version` stand in for what the document leaves out.
pub(super) fn options(name: Option<String>, version: Option<String>) -> Options {
    Options { file: None, name, version, require_name: true }
}

/// Compiles and registers a document; what cannot run on this node is refused, each by name.
pub(super) async fn register_source(
    services: &Services,
    workspace: &Workspace,
    (source, format): (Vec<u8>, Format),
    options: Options,
) -> Result<(Arc<Entry>, bool), Box<Problem>> {
    document_size(source.len())?;
    let (catalog, workspace) = (services.catalog.clone(), workspace.clone());
    let no_room = services.node.no_room();
    blocking(move || {
        let compiled =
            compile::compile(&source, format, &options).map_err(|found| invalid(&found, &found.errors))?;
        if !compiled.unavailable.is_empty() {
            let detail =
                format!("{} part(s) of this workflow cannot run on this node", compiled.unavailable.len());
            let problem = Problem::new(422, "workflow_unavailable", detail);
            return Err(compiled.unavailable.iter().fold(problem, |problem, wrong| problem.at(wrong)));
        }
        if let Some(no_room) = no_room
            && !catalog.has(&workspace, &compiled)?
        {
            return Err(no_room.into());
        }
        catalog.register(&workspace, compiled).map_err(|error: catalog::Error| Box::<Problem>::from(error))
    })
    .await?
}

/// `POST /v1/workflows/validate`
pub(super) async fn validate(services: &Services, head: &Parts, body: Incoming) -> Answer {
    let format = format(head)?;
    let [] = request::parameters(head, [])?;
    let source = request::body(head, body).await?.to_vec();
    document_size(source.len())?;
    let models = services.executors.models.clone();
    blocking(move || {
        let options = Options { require_name: false, ..options(None, None) };
        match compile::compile(&source, format, &options) {
            Ok(compiled) => {
                let without_model = agents::without_model(&models, &compiled);
                let warnings = compiled
                    .warnings
                    .iter()
                    .chain(&compiled.unavailable)
                    .chain(&compiled.unstartable)
                    .chain(&without_model)
                    .collect();
                Ok(json(StatusCode::OK, &Verdict { valid: true, errors: &[], warnings }))
            }
            Err(found) => {
                let mut problem = invalid(&found, &found.errors);
                problem.valid = Some(false);
                Err(problem)
            }
        }
    })
    .await?
}

fn invalid(found: &Diagnostics, errors: &[Diagnostic]) -> Box<Problem> {
    let detail = format!("the document has {} error(s)", errors.len());
    let mut problem =
        errors.iter().fold(Problem::new(422, "workflow_invalid", detail), |problem, wrong| problem.at(wrong));
    problem.warnings =
        found.warnings.iter().filter_map(|warning| serde_json::to_value(warning).ok()).collect();
    problem
}

fn document_size(bytes: usize) -> Result<(), Box<Problem>> {
    if bytes > limits::DOCUMENT_BYTES_MAX {
        let detail = format!("a document of {bytes} bytes; at most {}", limits::DOCUMENT_BYTES_MAX);
        return Err(Problem::new(413, "document_too_large", detail).limit("document_bytes_max"));
    }
    Ok(())
}

fn format(head: &Parts) -> Result<Format, Box<Problem>> {
    match request::media_type(&head.headers) {
        Some("application/json") => Ok(Format::Json),
        Some("application/yaml" | "application/x-yaml" | "text/yaml") => Ok(Format::Yaml),
        other => Err(request::unsupported(other, "application/json or application/yaml")),
    }
}

#[derive(Serialize)]
struct Shape<'a> {
    name: &'a str,
    version: &'a str,
    hash: Shown<Hash<'a>>,
    document: &'a Value,
}

/// `GET /v1/workflows/{name}` and `GET /v1/workflows/{name}/versions/{v}`
pub(super) async fn get(services: &Services, head: &Parts, name: &str, version: Option<&str>) -> Answer {
    request::require_accept(&head.headers, "application/json")?;
    let [effective] = request::parameters(head, ["effective"])?;
    let mut entry = find(services, admission::workspace(head), name, version).await?;
    match effective.as_deref() {
        None | Some("false") => {}
        Some("true") => entry = catalog::effective(services, entry).await?,
        Some(_) => return Err(Problem::new(400, "invalid_parameter", "effective is true or false")),
    }
    let tag = format!("\"{}\"", Hash(&entry.compiled.hash));
    if let Some(known) = conditions::known(&head.headers, &tag) {
        return Ok(respond::not_modified(&known));
    }
    let hash = Shown(Hash(&entry.compiled.hash));
    let document = &entry.compiled.document;
    let shape = Shape { name: shown(&entry.name), version: &entry.version, hash, document };
    Ok(with(json(StatusCode::OK, &shape), header::ETAG, tag))
}

#[derive(Serialize)]
struct Listed<'a> {
    name: &'a str,
    version: &'a str,
    hash: Shown<Hash<'a>>,
}

#[derive(Serialize)]
struct Page<'a> {
    workflows: Vec<Listed<'a>>,
    next_cursor: Option<String>,
}

/// `GET /v1/workflows`
pub(super) async fn list(services: &Services, head: &Parts) -> Answer {
    request::require_accept(&head.headers, "application/json")?;
    let [limit, cursor] = request::parameters(head, ["limit", "cursor"])?;
    let limit = request::page_limit(limit.as_deref())?;
    if cursor.as_deref().is_some_and(|cursor| !cursor.contains('@')) {
        return Err(Problem::new(400, "invalid_cursor", "a cursor of this listing is name@version"));
    }
    let (catalog, workspace) = (services.catalog.clone(), admission::workspace(head).clone());
    let mut found = blocking(move || {
        let after = cursor.as_deref().and_then(|cursor| cursor.split_once('@'));
        own(&catalog, &workspace, after, limit + 1)
    })
    .await??;
    let more = found.len() > limit;
    found.truncate(limit);
    let next_cursor =
        found.last().filter(|_| more).map(|last| format!("{}@{}", shown(&last.name), last.version));
    let workflows = found
        .iter()
        .map(|row| Listed { name: shown(&row.name), version: &row.version, hash: Shown(Hash(&row.hash)) })
        .collect();
    let response = json(StatusCode::OK, &Page { workflows, next_cursor: next_cursor.clone() });
    Ok(match next_cursor {
        Some(next) => {
            with(response, header::LINK, format!("</v1/workflows?cursor={next}&limit={limit}>; rel=\"next\""))
        }
        None => response,
    })
}

/// The first `count` versions in this workspace after a name and a version. Names of a workspace stand together, and those of
/// others are skipped as a whole.
pub(super) fn own(
    catalog: &Catalog,
    workspace: &Workspace,
    after: Option<(&str, &str)>,
    count: usize,
) -> Result<Vec<Registration>, catalog::Error> {
    let (name, version) = after.unwrap_or_default();
    let Some(name) = workspace.qualified(name) else { return Ok(Vec::new()) };
    let mut after = (name.into_owned(), version.to_owned());
    let mut found = Vec::new();
    loop {
        let rows = catalog.list(Some((&after.0, &after.1)), count)?;
        let last = rows.last().filter(|_| rows.len() == count);
        let next = last.map(|row| match row.name.split_once('/') {
            // No name goes beyond this one, which no name can be.
            Some((other, _)) if !workspace.owns(&row.name) => (format!("{other}/\u{7f}"), String::new()),
            _ => (row.name.clone(), row.version.clone()),
        });
        let beyond = *workspace != Workspace::DEFAULT && last.is_some_and(|row| !workspace.owns(&row.name));
        found.extend(rows.into_iter().filter(|row| workspace.owns(&row.name)));
        match next {
            Some(next) if found.len() < count && !beyond => after = next,
            _ => break,
        }
    }
    found.truncate(count);
    Ok(found)
}
