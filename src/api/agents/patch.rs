//! A patch that an agent proposes of its own run (F031): as any patch, under a key of its own, so that a call that is made again
//! patches once. What stands against it is told to the model.

use std::sync::Arc;

use super::Under;
use crate::api::keys;
use crate::api::patches::{self, Envelope, Forwarded, Proposing};
use crate::auth::holding::AGENT;
use crate::auth::{Caller, Role};
use crate::limits;
use crate::model::agent::ToolCall;
use crate::model::event::Done;
use crate::model::{Failure, Value};
use crate::wire::problem::Problem;

/// Proposes what the call says.
pub(super) async fn propose(under: &Under<'_>, turn: u32, call: &ToolCall) -> Result<Value, Failure> {
    let envelope = envelope(&call.arguments)?;
    let role = under.ask.request.get("role").and_then(Value::as_str).unwrap_or(&under.dispatch.path);
    let author: Arc<str> = format!("{AGENT}{role}").into();
    let caller = Caller {
        token: Some(author.clone()),
        workspace: under.workspace(),
        role: Role::Write,
        reviewer: None,
    };
    let given = format!("agent {} {turn} {}", under.dispatch.path, call.id);
    let key = keys::of(given.as_bytes(), (under.run_id, "patches"), &envelope.meaning());
    let (run_id, key, tools) = (under.run_id, Some(key), Some(under.allowed()));
    let proposing = Proposing { run_id, author, caller, envelope, key, tools };
    let forwarded = patches::forward(under.services, proposing).await;
    crate::failpoint::pass("agent::patched");
    match forwarded {
        Ok(Forwarded::Made { version, patch_id, is_held, .. }) => {
            Ok(made(version, Some(patch_id.to_string()), is_held))
        }
        Ok(Forwarded::Again(again)) => match &again.done {
            Done::Patch { patch_id, held, version, .. } => {
                Ok(made(*version, patch_id.map(|patch_id| patch_id.to_string()), *held))
            }
            Done::Signal { .. } | Done::Budget { .. } => {
                Err(Failure::fatal("internal", "a patch was remembered as something else"))
            }
        },
        Ok(Forwarded::Unchanged(view)) => Ok(made(view.version, None, false)),
        Err(problem) => Err(refused(&problem)),
    }
}

/// As the model is told.
fn made(version: u32, patch_id: Option<String>, is_held: bool) -> Value {
    let state = match (&patch_id, is_held) {
        (None, _) => "unchanged",
        (_, true) => "held for a human; nothing has changed yet",
        (_, false) => "applied",
    };
    Value::map([
        ("patch_id", patch_id.map_or(Value::Null, Value::string)),
        ("state", Value::string(state)),
        ("graph_version", Value::Int(version.into())),
    ])
}

fn envelope(arguments: &Value) -> Result<Envelope, Failure> {
    let invalid = |message: String| Failure::fatal("tool_arguments_invalid", message);
    let operations = arguments.get("operations").cloned();
    let operations = operations.ok_or_else(|| invalid("`operations` is missing".into()))?;
    let justification: Arc<str> = match arguments.get("justification") {
        Some(Value::String(text)) => text.clone(),
        None => "".into(),
        Some(_) => return Err(invalid("`justification` is a text".into())),
    };
    if justification.len() > limits::JUSTIFICATION_BYTES_MAX {
        let most = limits::JUSTIFICATION_BYTES_MAX;
        return Err(invalid(format!(
            "a justification of {} bytes; at most {most} (limit justification_bytes_max)",
            justification.len()
        )));
    }
    let base_version = match arguments.get("base_version") {
        None | Some(Value::Null) => None,
        Some(Value::Int(version)) => {
            Some(u32::try_from(*version).map_err(|_| invalid("`base_version` is no version".into()))?)
        }
        Some(_) => return Err(invalid("`base_version` is a whole number".into())),
    };
    Ok(Envelope { operations, justification, base_version, base: None, patch_set: None })
}

/// What stands against a patch, with its findings, so that a model may propose a better one.
fn refused(problem: &Problem) -> Failure {
    let findings = serde_json::Value::from(problem.errors.clone());
    let details = Value::from_json(findings.to_string().as_bytes()).unwrap_or_default();
    let message = format!("the patch was refused: {}", problem.detail);
    Failure { details, ..Failure::fatal(&problem.code, message) }
}
