//! The body of a patch: the envelope, or a bare list of operations as `application/json-patch+json`.

use std::sync::Arc;

use http::HeaderMap;

use super::super::{body, request};
use crate::limits;
use crate::model::Value;
use crate::wire::problem::Problem;

type Refused = Box<Problem>;

/// What its author says.
pub(in crate::api) struct Envelope {
    pub(in crate::api) operations: Value,
    pub(in crate::api) justification: Arc<str>,
    pub(in crate::api) base_version: Option<u32>,
    /// Of a workflow's patch: the version or tag that it is made for.
    pub(in crate::api) base: Option<Arc<str>>,
    /// Of a workflow's patch: the set that it is for.
    pub(in crate::api) patch_set: Option<Arc<str>>,
}

const JSON_PATCH: &str = "application/json-patch+json";

impl Envelope {
    /// Of a patch of a run.
    pub(super) fn read(headers: &HeaderMap, bytes: &[u8]) -> Result<Self, Refused> {
        let envelope = Self::whole(headers, bytes, "run")?;
        if envelope.base.is_some() || envelope.patch_set.is_some() {
            let detail = "`base` and `patch_set` are for patches of a workflow";
            return Err(Problem::new(422, "invalid_parameter", detail));
        }
        Ok(envelope)
    }

    /// Of a patch of a workflow.
    pub(in crate::api) fn of_workflow(headers: &HeaderMap, bytes: &[u8]) -> Result<Self, Refused> {
        Self::whole(headers, bytes, "workflow")
    }

    /// What it asks for, as a key stands for it.
    pub(in crate::api) fn meaning(&self) -> [String; 3] {
        let version = self.base_version.map(|version| version.to_string());
        [self.operations.to_json(), self.justification.to_string(), version.unwrap_or_default()]
    }

    fn whole(headers: &HeaderMap, bytes: &[u8], own: &str) -> Result<Self, Refused> {
        if request::media_type(headers) == Some(JSON_PATCH) {
            let operations = Value::from_json(bytes)
                .map_err(|error| Problem::new(400, "malformed_json", error.to_string()))?;
            return Ok(Self {
                operations,
                justification: "".into(),
                base_version: None,
                base: None,
                patch_set: None,
            });
        }
        request::require_json(headers)?;
        let known = ["operations", "justification", "base_version", "scope", "base", "patch_set"];
        let [operations, justification, base_version, scope, base, patch_set] = body::members(bytes, known)?;
        scoped(body::text("scope", scope)?.as_deref(), own)?;
        let operations = operations.ok_or_else(|| {
            Problem::new(422, "patch_invalid", "a patch has `operations`, a list of RFC 6902 operations")
        })?;
        Ok(Self {
            operations,
            justification: words("justification", justification)?,
            base_version: version(base_version)?,
            base: body::text("base", base)?,
            patch_set: body::text("patch_set", patch_set)?,
        })
    }
}

/// A patch is posted where its scope is.
fn scoped(scope: Option<&str>, own: &str) -> Result<(), Refused> {
    let detail = match scope {
        None => return Ok(()),
        Some(scope) if scope == own => return Ok(()),
        Some("workflow") => "a patch of scope workflow is posted to /v1/workflows/{name}/patches",
        Some("run") => "a patch of scope run is posted to /v1/runs/{run_id}/patches",
        Some(other) => {
            let other: String = other.chars().take(64).collect();
            let detail = format!("scope {other:?} is none of run, workflow");
            return Err(Problem::new(422, "invalid_parameter", detail));
        }
    };
    Err(Problem::new(422, "scope_unavailable", detail))
}

/// The body of a decision, or of taking back: `reason`, and where it makes sense `cascade`.
pub(in crate::api) fn reasons(
    head: &http::request::Parts,
    bytes: &[u8],
    cascades: bool,
) -> Result<(Arc<str>, bool), Refused> {
    if bytes.is_empty() {
        return Ok(("".into(), false));
    }
    request::require_json(&head.headers)?;
    let (reason, cascade) = if cascades {
        let [reason, cascade] = body::members(bytes, ["reason", "cascade"])?;
        (reason, cascade)
    } else {
        let [reason] = body::members(bytes, ["reason"])?;
        (reason, None)
    };
    let cascade = match cascade {
        None | Some(Value::Null) => false,
        Some(Value::Bool(cascade)) => cascade,
        Some(other) => return Err(body::wrong_type("cascade", "true or false", &other)),
    };
    Ok((words("reason", reason)?, cascade))
}

/// Somebody's reasons, within their limit.
fn words(member: &str, value: Option<Value>) -> Result<Arc<str>, Refused> {
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
