//! Tags: names for versions of a workflow that may be moved. A start with `name@tag` takes the version that the tag stands for
//! then; what has started keeps its version.

use std::sync::Arc;

use http::request::Parts;
use http::{Method, StatusCode};
use serde::Serialize;

use super::catalog::TagMove;
use super::request::Incoming;
use super::respond::{Body, json};
use super::services::{Services, blocking};
use super::{admission, body, request};
use crate::limits;
use crate::time::{Clock as _, Timestamp};
use crate::wire::Shown;
use crate::wire::problem::Problem;

type Answer = Result<http::Response<Body>, Box<Problem>>;

#[derive(Serialize)]
struct Tag<'a> {
    name: &'a str,
    tag: &'a str,
    version: &'a str,
}

#[derive(Serialize)]
struct Tags<'a> {
    name: &'a str,
    tags: Vec<Tag<'a>>,
}

/// `PUT` and `DELETE /v1/workflows/{name}/tags/{tag}`
pub(super) async fn put(
    services: &Services,
    head: &Parts,
    incoming: Incoming,
    (name, tag): (&str, &str),
) -> Answer {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    if tag.is_empty() || tag.len() > limits::NAME_BYTES_MAX || !tag.bytes().all(fits) {
        let most = limits::NAME_BYTES_MAX;
        let shown: String = tag.chars().take(60).collect();
        let detail = format!("the tag {shown:?} does not fit [A-Za-z0-9_.-]{{1,{most}}}");
        return Err(Problem::new(422, "invalid_name", detail).limit("name_bytes_max"));
    }
    if tag.bytes().all(|byte| byte.is_ascii_digit()) {
        let detail = format!("the tag {tag} is a number; those are names of versions");
        return Err(Problem::new(422, "invalid_name", detail));
    }
    let version = if head.method == Method::PUT {
        let bytes = request::body(head, incoming).await?;
        request::require_json(&head.headers)?;
        let [version] = body::members(&bytes, ["version"])?;
        let version = body::text("version", version)?;
        let missing = || Problem::new(400, "invalid_body", "\"version\" is missing: the version to tag");
        Some(version.ok_or_else(missing)?)
    } else {
        None
    };
    let owned = inside(services, head, name).await?;
    let catalog = services.catalog.clone();
    let (owned_tag, wanted) = (tag.to_owned(), version.clone());
    let moved = (admission::who(head).into(), services.clock.now().as_micros());
    blocking(move || catalog.tag(&owned, &owned_tag, wanted.as_deref(), moved)).await??;
    Ok(json(StatusCode::OK, &Tag { name, tag, version: version.as_deref().unwrap_or_default() }))
}

/// `GET /v1/workflows/{name}/tags`
pub(super) async fn list(services: &Services, head: &Parts, name: &str) -> Answer {
    let owned = inside(services, head, name).await?;
    let catalog = services.catalog.clone();
    let found = services.read(move || catalog.tags(&owned)).await?;
    let tags = found.iter().map(|(tag, version)| Tag { name, tag, version }).collect();
    Ok(json(StatusCode::OK, &Tags { name, tags }))
}

#[derive(Serialize)]
struct History<'a> {
    name: &'a str,
    tag: &'a str,
    moves: Vec<Move>,
}

#[derive(Serialize)]
struct Move {
    by: Arc<str>,
    at: Shown<Timestamp>,
    /// Left out when there was no such tag.
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<Arc<str>>,
    /// Left out when it was taken away.
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<Arc<str>>,
}

/// `GET /v1/workflows/{name}/tags/{tag}/history`
pub(super) async fn history(services: &Services, head: &Parts, (name, tag): (&str, &str)) -> Answer {
    request::require_accept(&head.headers, "application/json")?;
    let owned = inside(services, head, name).await?;
    let (catalog, owned_tag) = (services.catalog.clone(), tag.to_owned());
    let moves = services.read(move || catalog.tag_moves(&owned, &owned_tag)).await?;
    if moves.is_empty() {
        let tag: String = tag.chars().take(60).collect();
        return Err(Problem::new(404, "tag_not_found", format!("{name} never had a tag {tag:?}")));
    }
    let shape = |moved: TagMove| {
        let at = Shown(Timestamp::from_micros(moved.at));
        Move { by: moved.by, at, from: moved.from, to: moved.to }
    };
    Ok(json(StatusCode::OK, &History { name, tag, moves: moves.into_iter().map(shape).collect() }))
}

/// What the caller's workflow is called inside the node, when there is one.
async fn inside(services: &Services, head: &Parts, name: &str) -> Result<String, Box<Problem>> {
    let entry = super::start::find(services, admission::workspace(head), name, None).await?;
    Ok(entry.name.to_string())
}
