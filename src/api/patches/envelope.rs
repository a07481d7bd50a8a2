//! The body of a patch: the envelope, or a bare list of operations as `application/json-patch+json`.

use std::sync::Arc;

use http::HeaderMap;

use super::super::{body, request};
use crate::limits;
use crate::model::Value;
use crate::wire::problem::Problem;

type Refused = Box<Problem>;

/// What its author says.
pub(super) struct Envelope {
    pub(super) operations: Value,
    pub(super) justification: Arc<str>,
    pub(super) base_version: Option<u32>,
}

const JSON_PATCH: &str = "application/json-patch+json";

impl Envelope {
    pub(super) fn read(headers: &HeaderMap, bytes: &[u8]) -> Result<Self, Refused> {
        if request::media_type(headers) == Some(JSON_PATCH) {
            let operations = Value::from_json(bytes)
                .map_err(|error| Problem::new(400, "malformed_json", error.to_string()))?;
            return Ok(Self { operations, justification: "".into(), base_version: None });
        }
        request::require_json(headers)?;
        let [operations, justification, base_version, scope] =
            body::members(bytes, ["operations", "justification", "base_version", "scope"])?;
        match body::text("scope", scope)?.as_deref() {
            None | Some("run") => {}
            Some("workflow") => {
                let detail =
                    "scope: workflow is not available on this node yet; register a new version instead";
                return Err(Problem::new(422, "scope_unavailable", detail));
            }
            Some(other) => {
                let other: String = other.chars().take(64).collect();
                let detail = format!("scope {other:?} is none of run, workflow");
                return Err(Problem::new(422, "invalid_parameter", detail));
            }
        }
        let operations = operations.ok_or_else(|| {
            Problem::new(422, "patch_invalid", "a patch has `operations`, a list of RFC 6902 operations")
        })?;
        Ok(Self {
            operations,
            justification: words("justification", justification)?,
            base_version: version(base_version)?,
        })
    }
}

/// Somebody's reasons, within their limit.
pub(super) fn words(member: &str, value: Option<Value>) -> Result<Arc<str>, Refused> {
    let words = body::text(member, value)?.unwrap_or_default();
    let most = limits::JUSTIFICATION_BYTES_MAX;
    if words.len() > most {
        let detail = format!("a {member} of {} bytes; at most {most}", words.len());
        return Err(Problem::new(422, "limit_exceeded", detail).limit("justification_bytes_max"));
    }
    Ok(words)
}

fn version(value: Option<Value>) -> Result<Option<u32>, Refused> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Int(version)) if u32::try_from(version).is_ok() => Ok(u32::try_from(version).ok()),
        // 2.0 is an integer to JSON Schema.
        Some(Value::Float(version))
            if version.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&version) =>
        {
            Ok(Some(version as u32))
        }
        Some(other) => Err(body::wrong_type("base_version", "a version of the graph, 1, 2, ...", &other)),
    }
}
