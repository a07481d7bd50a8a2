//! What stands against a patch, as a problem document. Each layer of the checks has a code of its own.

use std::sync::Arc;

use serde_json::json;

use super::super::services::{Services, unexpected};
use crate::compile::patch::{self, Layer as Check};
use crate::engine::command::{PatchRefusal, Refusal, Reply};
use crate::model::patch::{Change, Layer};
use crate::model::{RunId, Value};
use crate::wire::problem::Problem;

/// A verdict on a patch, to be written down.
pub(in crate::api) struct Refused {
    pub(in crate::api) problem: Box<Problem>,
}

impl Refused {
    pub(super) fn new(problem: Box<Problem>) -> Self {
        Self { problem }
    }
}

impl From<patch::Refusal> for Refused {
    fn from(refusal: patch::Refusal) -> Self {
        let detail = refusal.to_string();
        let spawned = refusal.findings.iter().any(|finding| finding.code == "spawn_limit");
        let mut problem = match refusal.layer {
            Check::Limit if spawned => Problem::new(422, "spawn_limit", detail),
            Check::Limit => Problem::new(422, "limit_exceeded", detail),
            Check::Syntax => Problem::new(422, "patch_invalid", detail),
            Check::Conflict => Problem::new(409, "patch_conflict", detail),
            Check::Schema => Problem::new(422, "patch_graph_invalid", detail),
            Check::Security => Problem::new(403, "patch_forbidden", detail),
        };
        for finding in &refusal.findings {
            problem = problem.at(&json!({
                "code": finding.code,
                "detail": finding.message,
                "operation": finding.operation,
                "pointer": finding.pointer,
            }));
        }
        Self { problem }
    }
}

/// The problem that a shard's refusal is.
pub(in crate::api) fn refused(refusal: PatchRefusal) -> Box<Problem> {
    let detail = refusal.to_string();
    match refusal {
        PatchRefusal::Over => Problem::new(409, "run_finished", detail),
        PatchRefusal::Started { .. } => Problem::new(409, "node_started", detail),
        PatchRefusal::Limit { limit: limit @ "run_graph_nodes_max", .. } => {
            Problem::new(422, "spawn_limit", detail).limit(limit)
        }
        PatchRefusal::Limit { limit, .. } => Problem::new(422, "limit_exceeded", detail).limit(limit),
        PatchRefusal::NotHeld(_) => Problem::new(409, "patch_decided", detail),
        PatchRefusal::Unaligned => Problem::new(500, "internal", detail),
        PatchRefusal::Unjudged { .. } => Problem::new(422, "patch_graph_invalid", detail),
    }
}

/// The graph has changed since the version that the author knew, where the patch wants to change it.
pub(super) fn conflict(
    (base, current): (u32, u32),
    since: &[Arc<Layer>],
    operations: &Value,
) -> Box<Problem> {
    let count = since.len();
    let detail = format!(
        "the graph has version {current}; {count} changes since version {base} touch what this patch touches"
    );
    let mut problem = Problem::new(409, "patch_conflict", detail);
    problem = problem.at(&json!({"yours": operations, "version": current}));
    for layer in since {
        let patch_id = match &layer.change {
            Change::Patch(proposal) => Some(proposal.patch_id.to_string()),
            Change::Revoked(_) => None,
        };
        problem = problem.at(&json!({"patch_id": patch_id, "operations": layer.change.operations()}));
    }
    problem
}

/// The run takes no patch any more.
pub(super) async fn over(services: &Services, run_id: RunId) -> Box<Problem> {
    match services.finished(run_id).await {
        Ok(location) => {
            let refusal = Refusal::Finished { run_id, status: location.summary.status };
            unexpected(Reply::Refused(refusal))
        }
        Err(problem) => problem,
    }
}
