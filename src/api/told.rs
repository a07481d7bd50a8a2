//! The timeline with summaries that a model made (F340), where the node has a model for that (`models.summaries`).
//!
//! Where a summary was made it takes the place of the rule's; where it was not, the rule's stays and one is asked for, and
//! nobody waits for it. Whatever the model said, no more than fifteen words of it are told, and nothing that looks like a key.

use http::Response;
use http::request::Parts;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::history;
use super::respond::{Body, json};
use super::services::Services;
use crate::exec::models::summaries::{Event, Summaries};
use crate::model::{RunId, Seq};
use crate::wire::problem::Problem;
use crate::wire::summary;

#[derive(Deserialize, Serialize)]
struct Page {
    events: Vec<Box<RawValue>>,
    next_cursor: Option<String>,
}

#[derive(Deserialize)]
struct Row {
    seq: Seq,
    summary: String,
}

/// `GET /v1/runs/{id}/timeline`
pub(super) async fn timeline(
    services: &Services,
    head: &Parts,
    run_id: RunId,
) -> Result<Response<Body>, Box<Problem>> {
    let answer = history::timeline(services, head, run_id).await?;
    let wanted = || head.uri.query().is_some_and(|query| query.split('&').any(|one| one == "summaries=true"));
    let Some(summaries) = services.executors.summaries.as_ref().filter(|_| wanted()) else {
        return Ok(answer);
    };
    let Body::Whole(Some(bytes)) = answer.body() else { return Ok(answer) };
    let Ok(mut page) = serde_json::from_slice::<Page>(bytes) else { return Ok(answer) };
    let workspace = services.workspace_of(run_id).await?;
    let workflow = workspace.qualified("summaries").unwrap_or_default();
    for row in &mut page.events {
        if let Some(told) = told(summaries, (run_id, &workflow), row) {
            *row = told;
        }
    }
    Ok(json(answer.status(), &page))
}

/// The row with the model's summary; `None`: as it is, and the model's is asked for.
fn told(summaries: &Summaries, (run_id, workflow): (RunId, &str), row: &RawValue) -> Option<Box<RawValue>> {
    let Row { seq, summary: rule } = serde_json::from_str(row.get()).ok()?;
    let member = format!(",\"summary\":{}", serde_json::Value::from(rule));
    // It was put behind all that the event has.
    let at = row.get().rfind(&member)?;
    let (event, behind) = (row.get().get(..at)?, row.get().get(at + member.len()..)?);
    let Some(said) = summaries.find(run_id, seq) else {
        let workflow = workflow.into();
        summaries.want(run_id, seq, || Event { run_id, seq, workflow, data: format!("{event}}}") });
        return None;
    };
    let said = serde_json::Value::from(summary::said(&said));
    RawValue::from_string(format!("{event},\"summary\":{said}{behind}")).ok()
}
