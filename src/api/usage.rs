//! `GET /v1/usage`: what the finished runs of a workspace spent on models, by workflow, role, model or day (F399, F405).
//!
//! Sums come from the index, where each run is counted once, when it has ended (`store::index::usage`). What runs that go on have
//! spent so far is not among them; `GET /v1/runs/{id}/cost` tells it of one.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::request::Parts;
use http::{Response, StatusCode};
use serde::Serialize;

use super::cost::Sums;
use super::respond::{Body, json};
use super::services::Services;
use super::{admission, request};
use crate::limits;
use crate::model::usage::{DayUsage, Part};
use crate::model::workspace::shown;
use crate::time::Clock as _;
use crate::wire::problem::Problem;

const DAY_SECONDS: u64 = 86_400;
/// Days that are told when nothing is said, today included.
const DAYS_DEFAULT: u32 = 30;

/// By what sums are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum By {
    Workflow,
    Agent,
    Model,
    Day,
}

#[derive(Serialize)]
struct Shape {
    from: String,
    to: String,
    /// There are more sums than are looked at: a shorter time tells them all.
    cut: bool,
    #[serde(flatten)]
    total: Sums,
    usage: Vec<Row>,
}

#[derive(Serialize, PartialEq, Eq, PartialOrd, Ord)]
struct Name {
    #[serde(skip_serializing_if = "Option::is_none")]
    day: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    workflow: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<Arc<str>>,
}

#[derive(Serialize)]
struct Row {
    #[serde(flatten)]
    name: Name,
    #[serde(flatten)]
    sums: Sums,
}

/// `GET /v1/usage`
pub(super) async fn usage(services: &Services, head: &Parts) -> Result<Response<Body>, Box<Problem>> {
    request::require_accept(&head.headers, "application/json")?;
    let [from, to, by] = request::parameters(head, ["from", "to", "by"])?;
    let by = by.as_deref().map_or(Ok(vec![By::Workflow]), read_by)?;
    let today = services.clock.now().as_micros() / 1_000_000 / DAY_SECONDS;
    let to = match to {
        Some(text) => read_day("to", &text)?,
        None => u32::try_from(today).unwrap_or(u32::MAX),
    };
    let from = match from {
        Some(text) => read_day("from", &text)?,
        None => to.saturating_sub(DAYS_DEFAULT - 1),
    };
    if from > to {
        let detail = format!("from ({}) is after to ({})", day(from), day(to));
        return Err(Problem::new(400, "invalid_parameter", detail));
    }
    let (runs, workspace) = (services.runs.clone(), admission::workspace(head).clone());
    let rows = services.read(move || runs.usage(&workspace, (from, to), limits::USAGE_ROWS_MAX + 1)).await?;
    Ok(json(StatusCode::OK, &shape((from, to), &by, &rows)))
}

fn shape((from, to): (u32, u32), by: &[By], rows: &[DayUsage]) -> Shape {
    let has = |one| by.contains(&one);
    let (mut groups, mut total) = (BTreeMap::<Name, Part>::new(), Part::default());
    for row in rows.iter().take(limits::USAGE_ROWS_MAX) {
        let name = Name {
            day: has(By::Day).then(|| day(row.day)),
            workflow: has(By::Workflow).then(|| shown(&row.workflow).into()),
            agent: has(By::Agent).then(|| row.role.clone()),
            model: has(By::Model).then(|| row.model.clone()),
        };
        groups.entry(name).or_default().add(&row.part);
        total.add(&row.part);
    }
    let row = |(name, part): (Name, Part)| Row { name, sums: (&part).into() };
    Shape {
        from: day(from),
        to: day(to),
        cut: rows.len() > limits::USAGE_ROWS_MAX,
        total: (&total).into(),
        usage: groups.into_iter().map(row).collect(),
    }
}

fn read_by(text: &str) -> Result<Vec<By>, Box<Problem>> {
    let one = |name: &str| match name {
        "workflow" => Ok(By::Workflow),
        "agent" => Ok(By::Agent),
        "model" => Ok(By::Model),
        "day" => Ok(By::Day),
        other => {
            let other: String = other.chars().take(64).collect();
            let detail = format!("by={other:?}: workflow, agent, model, day, with commas between");
            Err(Problem::new(422, "invalid_parameter", detail))
        }
    };
    text.split(',').map(one).collect()
}

/// A day as its number since 1970-01-01.
fn read_day(name: &str, text: &str) -> Result<u32, Box<Problem>> {
    let wrong = || {
        let text: String = text.chars().take(64).collect();
        let detail = format!("{name}={text:?} is no day: 2026-01-31 is expected, not before 1970");
        Problem::new(400, "invalid_parameter", detail)
    };
    let date: jiff::civil::Date = text.parse().map_err(|_| wrong())?;
    let since = date.since(jiff::civil::date(1970, 1, 1)).map_err(|_| wrong())?;
    u32::try_from(since.get_days()).map_err(|_| wrong())
}

fn day(number: u32) -> String {
    let days = jiff::Span::new().try_days(number).ok();
    let date = days.and_then(|days| jiff::civil::date(1970, 1, 1).checked_add(days).ok());
    date.unwrap_or(jiff::civil::Date::MAX).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::money::Usd;

    #[test]
    fn days_are_read_and_written() {
        for (text, number) in [("1970-01-01", 0), ("1970-02-01", 31), ("2026-11-22", 20_779)] {
            assert_eq!((read_day("from", text).unwrap(), day(number)), (number, text.to_owned()));
        }
        for text in ["", "1969-12-31", "2026-13-01", "yesterday", "2026-11-22T00:00:00Z#"] {
            assert_eq!(read_day("from", text).unwrap_err().status, 400, "{text}");
        }
        assert_eq!(day(u32::MAX), "9999-12-31");
    }

    // F405
    #[test]
    fn sums_are_told_apart_as_is_asked_and_come_to_the_total() {
        let row = |day, workflow: &str, role: &str, nanos| DayUsage {
            day,
            workflow: workflow.into(),
            role: role.into(),
            model: "m".into(),
            runs: 1,
            part: Part { usd: Usd::from_nanos(nanos), answers: 1, ..Part::default() },
        };
        let rows = [row(1, "x/a", "w", 1), row(1, "x/b", "w", 2), row(2, "x/a", "c", 4)];
        for (by, wanted) in [
            ("workflow", vec![("a", 5), ("b", 2)]),
            ("agent", vec![("c", 4), ("w", 3)]),
            ("day", vec![("1970-01-02", 3), ("1970-01-03", 4)]),
            ("model", vec![("m", 7)]),
        ] {
            let told = serde_json::to_value(shape((0, 9), &read_by(by).unwrap(), &rows)).unwrap();
            let groups: Vec<(&str, u64)> = told["usage"]
                .as_array()
                .unwrap()
                .iter()
                .map(|group| {
                    let usd: Usd = group["usd"].as_str().unwrap().parse().unwrap();
                    (group[by].as_str().unwrap(), usd.as_nanos())
                })
                .collect();
            assert_eq!(groups, wanted, "{by}");
            assert_eq!((&told["usd"], &told["answers"]), (&"0.000000007".into(), &3.into()));
        }
        let told = serde_json::to_value(shape((0, 9), &read_by("agent,day").unwrap(), &rows)).unwrap();
        assert_eq!(told["usage"].as_array().unwrap().len(), 2);
        assert!(read_by("agent,node").is_err());
    }
}
