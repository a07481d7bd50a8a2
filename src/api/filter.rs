//! Which runs are meant: the conditions of `GET /v1/runs` and of a batch, read by the same code.

use std::sync::Arc;

use super::body;
use crate::limits;
use crate::model::{RunFilter, Status, Value, Workspace};
use crate::time::Timestamp;
use crate::wire::problem::{Problem, Wrong};

type Refused = Box<Problem>;

/// What may be asked of runs.
pub(super) const CONDITIONS: [&str; 6] =
    ["status", "workflow", "version", "run_key", "started_after", "started_before"];

/// Reads conditions, in the order of [`CONDITIONS`]. `None`: nothing can be called so, and no run fits.
pub(super) fn read(workspace: &Workspace, given: [Option<&str>; 6]) -> Result<Option<RunFilter>, Refused> {
    let [status, workflow, version, run_key, after, before] = given;
    let filter = RunFilter {
        workspace: workspace.clone(),
        workflow: None,
        version: version.map(Arc::from),
        run_key: run_key.map(Arc::from),
        statuses: status.map(statuses).transpose()?.unwrap_or_default(),
        started_after: after.map(|text| time("started_after", text)).transpose()?,
        started_before: before.map(|text| time("started_before", text)).transpose()?,
    };
    let Some(name) = workflow else { return Ok(Some(filter)) };
    let inside = workspace.qualified(name);
    Ok(inside.map(|inside| RunFilter { workflow: Some(Arc::from(inside)), ..filter }))
}

/// The same out of a JSON object; a list of statuses may be one.
pub(super) fn of_body(workspace: &Workspace, given: Option<Value>) -> Result<RunFilter, Refused> {
    let object = match given {
        None | Some(Value::Null) => Value::Map(Arc::default()),
        Some(object @ Value::Map(_)) => object,
        Some(other) => return Err(body::wrong_type("filter", "an object of conditions", &other)),
    };
    let found = body::members(object.to_json().as_bytes(), CONDITIONS).map_err(inside)?;
    let mut texts: [Option<Arc<str>>; 6] = Default::default();
    for ((name, value), text) in CONDITIONS.iter().zip(found).zip(&mut texts) {
        *text = match value {
            Some(Value::List(items)) if *name == "status" => Some(joined(&items).map_err(inside)?),
            value => body::text(name, value).map_err(inside)?,
        };
        let (most, limit) = longest(name);
        if let Some(long) = text.as_ref().filter(|text| text.len() > most) {
            let detail = format!("{name:?} of {} bytes; at most {most}", long.len());
            let pointer = Some(format!("/filter/{name}"));
            let wrong = Wrong { pointer, detail: detail.clone(), ..Wrong::default() };
            return Err(Problem::new(422, "limit_exceeded", detail).limit(limit).at(&wrong));
        }
    }
    let read = read(workspace, texts.each_ref().map(Option::as_deref)).map_err(|problem| {
        let wrong =
            Wrong { pointer: Some("/filter".into()), detail: problem.detail.clone(), ..Wrong::default() };
        problem.at(&wrong)
    })?;
    read.ok_or_else(|| {
        let name: String = texts.get(1).cloned().flatten().unwrap_or_default().chars().take(64).collect();
        let detail = format!("nothing can be called {name:?} in this workspace");
        let pointer = Some("/filter/workflow".into());
        let wrong = Wrong { pointer, detail: detail.clone(), ..Wrong::default() };
        Problem::new(422, "invalid_name", detail).at(&wrong)
    })
}

/// Bytes of a condition that is written down, and the name of that limit.
fn longest(name: &str) -> (usize, &'static str) {
    match name {
        "run_key" => (limits::RUN_KEY_BYTES_MAX, "run_key_bytes_max"),
        _ => (limits::NAME_BYTES_MAX, "name_bytes_max"),
    }
}

/// Places of the object as places of the whole body. Lines and columns are of a text that nobody has sent.
fn inside(mut problem: Refused) -> Refused {
    for error in problem.errors.iter_mut().filter_map(serde_json::Value::as_object_mut) {
        error.remove("line");
        error.remove("column");
        let pointer = error.get("pointer").and_then(serde_json::Value::as_str).unwrap_or_default();
        let pointer = format!("/filter{pointer}");
        error.insert("pointer".into(), pointer.into());
    }
    problem
}

fn joined(items: &[Value]) -> Result<Arc<str>, Refused> {
    let text = |item: &Value| match item {
        Value::String(text) => Ok(text.to_string()),
        other => Err(body::wrong_type("status", "a status or a list of them", other)),
    };
    let texts: Vec<String> = items.iter().take(STATUSES.len() + 1).map(text).collect::<Result<_, _>>()?;
    Ok(texts.join(",").into())
}

const STATUSES: [Status; 6] =
    [Status::Pending, Status::Running, Status::Paused, Status::Completed, Status::Failed, Status::Cancelled];

/// One status, or several with commas between them.
fn statuses(text: &str) -> Result<Vec<Status>, Refused> {
    let parse = |text: &str| {
        STATUSES.into_iter().find(|status| status.as_str() == text).ok_or_else(|| {
            let known = STATUSES.map(Status::as_str).join(", ");
            let text: String = text.chars().take(64).collect();
            Problem::new(400, "invalid_parameter", format!("status {text:?} is none of {known}"))
        })
    };
    text.split(',').take(STATUSES.len() + 1).map(parse).collect()
}

fn time(name: &str, text: &str) -> Result<Timestamp, Refused> {
    text.parse().map_err(|error| {
        let text: String = text.chars().take(64).collect();
        Problem::new(400, "invalid_parameter", format!("parameter {name:?} is {text:?}; {error}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<RunFilter, Refused> {
        of_body(&"acme".parse().unwrap(), Some(Value::from_json(text.as_bytes()).unwrap()))
    }

    #[test]
    fn a_body_means_what_the_parameters_mean() {
        let workspace: Workspace = "acme".parse().unwrap();
        let texts = ["failed,cancelled", "pay", "2", "k", "2026-01-02T03:04:05Z", "2026-02-02T03:04:05Z"];
        let asked = read(&workspace, texts.map(Some)).unwrap().unwrap();
        assert_eq!(asked.workflow.as_deref(), Some("acme/pay"));
        for status in [r#""failed,cancelled""#, r#"["failed","cancelled"]"#] {
            let body = format!(
                r#"{{"status":{status},"workflow":"pay","version":"2","run_key":"k",
                "started_after":"2026-01-02T03:04:05Z","started_before":"2026-02-02T03:04:05Z"}}"#
            );
            assert_eq!(parsed(&body).unwrap(), asked);
        }
        assert_eq!(parsed("{}").unwrap(), RunFilter { workspace, ..RunFilter::default() });
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        let long = format!(r#"{{"run_key":"{}"}}"#, "k".repeat(limits::RUN_KEY_BYTES_MAX + 1));
        for (body, status, code, pointer) in [
            (r#"{"state":"x"}"#, 400, "unknown_member", "/filter/state"),
            (r#"{"status":"gone"}"#, 400, "invalid_parameter", "/filter"),
            (r#"{"status":[1]}"#, 400, "invalid_body", "/filter/status"),
            (r#"{"version":1}"#, 400, "invalid_body", "/filter/version"),
            (r#"{"started_before":"soon"}"#, 400, "invalid_parameter", "/filter"),
            (&long, 422, "limit_exceeded", "/filter/run_key"),
            (r#"{"workflow":"other/pay"}"#, 422, "invalid_name", "/filter/workflow"),
            ("[1]", 400, "invalid_body", "/filter"),
        ] {
            let problem = parsed(body).unwrap_err();
            let found = (problem.status, &*problem.code, problem.errors[0]["pointer"].as_str().unwrap());
            assert_eq!(found, (status, code, pointer), "{body}");
        }
        assert_eq!(read(&Workspace::DEFAULT, [None, Some("a/b"), None, None, None, None]).unwrap(), None);
    }
}
