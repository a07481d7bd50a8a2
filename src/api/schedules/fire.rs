//! Making one start that was decided.
//!
//! The decision is on the disk before this begins, and is taken off when the run is known. The run has a `run_key` made of the
//! schedule and the due time, and is started under a key made of the same, so a start that is made again finds the first.

use std::sync::Arc;

use super::show;
use crate::api::services::Services;
use crate::api::{start, triggers};
use crate::engine::command::Command;
use crate::limits;
use crate::model::{RunId, RunKey, Value, Workspace};
use crate::schedule::{Fire, Outcome, Overlap, Schedule};
use crate::store::triggers::{Change, Table};
use crate::time::Clock as _;
use crate::wire::problem::Problem;

/// Name and version of `name@version`.
pub(in crate::api) fn named(workflow: &str) -> (&str, Option<&str>) {
    workflow.split_once('@').map_or((workflow, None), |(name, version)| (name, Some(version)))
}

/// Will the same start meet other circumstances?
pub(super) fn is_passing(problem: &Problem) -> bool {
    problem.retryable || problem.status >= 500
}

/// What the run is known by: what started it, and for when.
fn run_key(schedule: &Schedule, fire: Fire) -> Result<RunKey, Box<Problem>> {
    let (name, id, due) = (&schedule.spec.name, show::id(schedule), fire.due);
    let text = if fire.manual {
        format!("schedule/{name}/{id}/manual/{}", due.as_micros())
    } else {
        format!("schedule/{name}/{id}/{due}")
    };
    RunKey::new(&text.into()).map_err(|error| Problem::new(500, "internal", error.to_string()))
}

/// Makes a start, and notes what came of it. One that met a passing trouble stays decided.
pub(super) async fn carry_out(
    services: &Services,
    (workspace, key): (&Workspace, &[u8]),
    schedule: &Schedule,
    fire: Fire,
) -> Result<RunId, Box<Problem>> {
    let made = make(services, workspace, schedule, fire).await;
    let outcome = match &made {
        Ok(run_id) => Outcome::Started { run_id: *run_id, manual: fire.manual },
        Err(problem) if is_passing(problem) => return made,
        Err(problem) => Outcome::Failed {
            code: problem.code.as_ref().into(),
            detail: problem.detail.chars().take(limits::SCHEDULE_DETAIL_CHARS_MAX).collect::<String>().into(),
        },
    };
    let (id, now) = (schedule.id, services.clock.now());
    let noted = triggers::update(&services.triggers, Table::Schedules, key.to_vec(), move |row| {
        let Some(row) = row else { return Ok((Change::Keep, ())) };
        let mut schedule: Schedule = triggers::decode(row)?;
        // It may have been removed and made anew, or somebody else has noted it.
        if schedule.id != id || !schedule.settle(fire, outcome, now) {
            return Ok((Change::Keep, ()));
        }
        Ok((Change::Put { row: triggers::encode(&schedule), look_at: Some(now) }, ()))
    });
    noted.await?;
    made
}

async fn make(
    services: &Services,
    workspace: &Workspace,
    schedule: &Schedule,
    fire: Fire,
) -> Result<RunId, Box<Problem>> {
    let spec = &schedule.spec;
    let run_key = run_key(schedule, fire)?;
    let (name, _) = named(&spec.workflow);
    let inside = workspace.inside(&Arc::from(name));
    // Keys of starts are forgotten some time after a run has ended; a node may have been down for longer.
    let claim = run_key.claim(&inside);
    if let Some(run_id) = services.keyed(workspace, (run_key.as_str(), &claim)).await? {
        return Ok(run_id);
    }
    if spec.overlap == Overlap::CancelOther && !fire.manual {
        cancel_others(services, schedule).await?;
    }
    let inputs = Value::from_json(spec.inputs.as_bytes())
        .map_err(|error| Problem::new(422, "invalid_inputs", error.to_string()))?;
    let workflow = spec.workflow.clone();
    let wanted = start::Triggered { workflow, inputs, run_key };
    let (summary, _) = start::triggered(services, workspace, wanted).await?;
    Ok(summary.run_id)
}

/// Whoever has ended meanwhile refuses, and that is as well.
async fn cancel_others(services: &Services, schedule: &Schedule) -> Result<(), Box<Problem>> {
    let reason: Arc<str> = format!("the schedule {} starts another run", schedule.spec.name).into();
    for run_id in &schedule.runs {
        services.ask(*run_id, Command::Cancel { run_id: *run_id, reason: reason.clone() }).await?;
    }
    Ok(())
}
