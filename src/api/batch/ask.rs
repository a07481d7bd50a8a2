//! What a body asks of a batch. Every refusal names the member, and the limit where there is one.

use crate::api::{body, filter};
use crate::limits;
use crate::model::batch::{self, Action, BatchId, Spec};
use crate::model::{RunFilter, Value, Workspace};
use crate::time::Timestamp;
use crate::wire::problem::{Problem, Wrong};

type Refused = Box<Problem>;

const MEMBERS: [&str; 7] = ["action", "filter", "all", "reason", "limit", "rate_per_second", "dry_run"];

/// A batch that is asked for.
#[derive(Debug, PartialEq)]
pub(in crate::api) struct Asked {
    pub(in crate::api) spec: Spec,
    /// Only counted.
    pub(super) dry_run: bool,
}

fn wrong_member(status: u16, code: &'static str, (member, detail): (&str, String)) -> Refused {
    let wrong = Wrong { pointer: Some(format!("/{member}")), detail: detail.clone(), ..Wrong::default() };
    Problem::new(status, code, detail).at(&wrong)
}

fn flag(member: &str, value: Option<Value>) -> Result<bool, Refused> {
    match value {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(flag)) => Ok(flag),
        Some(other) => Err(body::wrong_type(member, "true or false", &other)),
    }
}

/// A whole number from 1 up to a limit.
fn number(
    member: &str,
    value: Option<Value>,
    (usual, most, limit): (u64, u64, &'static str),
) -> Result<u64, Refused> {
    let number = match value {
        None | Some(Value::Null) => return Ok(usual),
        Some(Value::Int(number)) => u64::try_from(number).unwrap_or(0),
        Some(Value::UInt(number)) => number,
        // A whole number is one however it is written (JSON Schema, 6.1.1).
        Some(Value::Float(number)) if number.fract() == 0.0 && (0.0..9e15).contains(&number) => number as u64,
        Some(other) => return Err(body::wrong_type(member, "a whole number", &other)),
    };
    if (1..=most).contains(&number) {
        return Ok(number);
    }
    let detail = format!("{member:?} is {number}; 1 to {most}");
    Err(wrong_member(422, "limit_exceeded", (member, detail)).limit(limit))
}

/// Reads a body.
pub(in crate::api) fn read(bytes: &[u8], workspace: &Workspace) -> Result<Asked, Refused> {
    let [action, given, all, reason, limit, rate, dry_run] = body::members(bytes, MEMBERS)?;
    let action = body::only_text("action", action)?.ok_or_else(|| {
        wrong_member(
            400,
            "invalid_body",
            ("action", String::from("\"action\" is missing: what is done to each run")),
        )
    })?;
    let action = Action::ALL.into_iter().find(|known| known.as_str() == &*action).ok_or_else(|| {
        let known = Action::ALL.map(Action::as_str).join(", ");
        let action: String = action.chars().take(64).collect();
        wrong_member(422, "invalid_parameter", ("action", format!("action {action:?} is none of {known}")))
    })?;
    let filter = filter::of_body(workspace, given)?;
    let everything = RunFilter { workspace: workspace.clone(), ..RunFilter::default() };
    if !flag("all", all)? && filter == everything {
        let detail = "the filter names no condition, so every run of the workspace fits; \"all\": true if that is meant";
        return Err(wrong_member(422, "batch_fits_all", ("filter", detail.into())));
    }
    let reason = body::text("reason", reason)?;
    let longest = batch::reason(BatchId::new(Timestamp::default(), [0; 16]), reason.as_deref()).len();
    if longest > limits::REASON_BYTES_MAX {
        let detail = format!(
            "a reason of {longest} bytes with the name of the batch; at most {}",
            limits::REASON_BYTES_MAX
        );
        return Err(wrong_member(422, "limit_exceeded", ("reason", detail)).limit("reason_bytes_max"));
    }
    if reason.is_some() && !action.has_reason() {
        let detail = format!("{} leaves no reason with the runs", action.as_str());
        return Err(wrong_member(422, "invalid_parameter", ("reason", detail)));
    }
    let runs_max = number("limit", limit, (limits::BATCH_RUNS, limits::BATCH_RUNS_MAX, "batch_runs_max"))?;
    let rates = (
        u64::from(limits::BATCH_RUNS_PER_SECOND),
        u64::from(limits::BATCH_RUNS_PER_SECOND_MAX),
        "batch_runs_per_second_max",
    );
    let per_second = u32::try_from(number("rate_per_second", rate, rates)?).unwrap_or(u32::MAX);
    let spec = Spec { action, filter, reason, runs_max, per_second };
    Ok(Asked { spec, dry_run: flag("dry_run", dry_run)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(body: &str) -> Result<Asked, Refused> {
        read(body.as_bytes(), &Workspace::DEFAULT)
    }

    #[test]
    fn what_is_left_out_has_its_default() {
        let Asked { spec, dry_run } =
            asked(r#"{"action":"cancel","filter":{"workflow":"w"},"reason":"r"}"#).unwrap();
        assert_eq!((spec.action, dry_run), (Action::Cancel, false));
        assert_eq!((spec.runs_max, spec.per_second), (limits::BATCH_RUNS, limits::BATCH_RUNS_PER_SECOND));
        assert_eq!((spec.filter.workflow.as_deref(), spec.reason.as_deref()), (Some("w"), Some("r")));
        let all =
            asked(r#"{"action":"retry","all":true,"limit":7.0,"rate_per_second":3,"dry_run":true}"#).unwrap();
        assert_eq!((all.spec.runs_max, all.spec.per_second, all.dry_run), (7, 3, true));
    }

    #[test]
    fn what_cannot_be_done_is_refused_with_its_member() {
        let long = format!(r#"{{"action":"cancel","all":true,"reason":"{}"}}"#, "x".repeat(1_000));
        for (body, status, code, pointer) in [
            ("{}", 400, "invalid_body", "/action"),
            (r#"{"action":"explode","all":true}"#, 422, "invalid_parameter", "/action"),
            (r#"{"action":"cancel"}"#, 422, "batch_fits_all", "/filter"),
            (r#"{"action":"cancel","filter":{}}"#, 422, "batch_fits_all", "/filter"),
            (
                r#"{"action":"cancel","filter":{"status":[]},"all":false}"#,
                400,
                "invalid_parameter",
                "/filter",
            ),
            (r#"{"action":"cancel","all":1}"#, 400, "invalid_body", "/all"),
            (r#"{"action":"delete","all":true,"reason":"r"}"#, 422, "invalid_parameter", "/reason"),
            (r#"{"action":"cancel","all":true,"limit":0}"#, 422, "limit_exceeded", "/limit"),
            (r#"{"action":"cancel","all":true,"limit":1000001}"#, 422, "limit_exceeded", "/limit"),
            (r#"{"action":"cancel","all":true,"limit":"x"}"#, 400, "invalid_body", "/limit"),
            (
                r#"{"action":"cancel","all":true,"rate_per_second":1001}"#,
                422,
                "limit_exceeded",
                "/rate_per_second",
            ),
            (&long, 422, "limit_exceeded", "/reason"),
        ] {
            let problem = asked(body).unwrap_err();
            let found = (problem.status, &*problem.code, problem.errors[0]["pointer"].as_str().unwrap());
            assert_eq!(found, (status, code, pointer), "{body}");
        }
    }
}
