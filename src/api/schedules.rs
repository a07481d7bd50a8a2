//! Schedules as clients see them: made, looked at, changed, paused, resumed, triggered, removed.
//!
//! A schedule belongs to a workspace and is known there by its name. Everything that is answered with a success is synced.
//! What the clock brings about is in [`drive`]; both change a schedule by one read and write that nobody comes between.

mod change;
mod drive;
mod fire;
mod show;

use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::{Response, StatusCode};
use sha2::{Digest as _, Sha256};

pub use drive::run_schedules;
pub(super) use fire::named;

use super::request::Incoming;
use super::respond::{Body, json};
use super::services::{Services, blocking};
use super::{admission, allow, body, no_route, request, start, triggers};
use crate::compile::parse_duration;
use crate::limits;
use crate::model::{Map, Value, Workspace};
use crate::schedule::{Calendar, Fire, Invalid, Overlap, Schedule, Spec};
use crate::store::triggers::{Change, Table};
use crate::time::{Clock as _, Timestamp};
use crate::wire::problem::{Problem, Wrong};
use crate::wire::run::Line;

type Answer = Result<Response<Body>, Box<Problem>>;

const MEMBERS: [&str; 9] =
    ["name", "workflow", "inputs", "cron", "timezone", "overlap", "catch_up", "jitter", "paused"];

/// What is served below `/v1/schedules`.
pub(super) async fn route(services: &Services, head: &Parts, incoming: Incoming, rest: &[&str]) -> Answer {
    match rest {
        [] => {
            allow(head, "GET, HEAD, POST")?;
            all(services, head, incoming).await
        }
        [name] => {
            allow(head, "GET, HEAD, PATCH, DELETE")?;
            if head.method == http::Method::PATCH {
                return change::change(services, head, incoming, name).await;
            }
            one(services, head, name).await
        }
        [name, verb @ ("pause" | "resume" | "trigger")] => {
            allow(head, "POST")?;
            steer(services, head, (name, verb)).await
        }
        _ => Err(no_route(head.uri.path())),
    }
}

/// 422 for a member.
fn unfit(member: &str, detail: String) -> Box<Problem> {
    let wrong = Wrong { pointer: Some(format!("/{member}")), detail: detail.clone(), ..Wrong::default() };
    Problem::new(422, "invalid_schedule", detail).at(&wrong)
}

fn missing(member: &str) -> Box<Problem> {
    Problem::new(400, "invalid_body", format!("{member:?} is missing"))
}

fn no_schedule(name: &str) -> Box<Problem> {
    let name: String = name.chars().take(64).collect();
    Problem::new(404, "schedule_not_found", format!("there is no schedule {name:?}"))
}

/// Names are as those of tags.
pub(super) fn check_name(what: &str, name: &str) -> Result<(), Box<Problem>> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    if !name.is_empty() && name.len() <= limits::NAME_BYTES_MAX && name.bytes().all(fits) {
        return Ok(());
    }
    let shown: String = name.chars().take(60).collect();
    let most = limits::NAME_BYTES_MAX;
    let detail = format!("the {what} {shown:?} does not fit [A-Za-z0-9_.-]{{1,{most}}}");
    Err(Problem::new(422, "invalid_name", detail).limit("name_bytes_max"))
}

/// Microseconds of a member, between two numbers of seconds.
fn duration(
    member: &str,
    text: Option<&str>,
    (least, most, usual): (u64, u64, u64),
) -> Result<u64, Box<Problem>> {
    let Some(text) = text else { return Ok(usual * 1_000_000) };
    let shown: String = text.chars().take(60).collect();
    let read = parse_duration(text)
        .filter(|found| (Duration::from_secs(least)..=Duration::from_secs(most)).contains(found));
    let read = read.and_then(|found| u64::try_from(found.as_micros()).ok());
    read.ok_or_else(|| unfit(member, format!("{member} {shown:?} is no duration from {least}s to {most}s")))
}

/// What a body asks for, and whether it begins paused.
fn asked(bytes: &[u8]) -> Result<(Spec, bool, Value), Box<Problem>> {
    let [name, workflow, inputs, cron, timezone, overlap, catch_up, jitter, paused] =
        body::members(bytes, MEMBERS)?;
    let name = body::only_text("name", name)?.ok_or_else(|| missing("name"))?;
    let workflow = body::only_text("workflow", workflow)?.ok_or_else(|| missing("workflow"))?;
    let cron = body::only_text("cron", cron)?.ok_or_else(|| missing("cron"))?;
    check_name("schedule", &name)?;
    let timezone = body::text("timezone", timezone)?.unwrap_or_else(|| "UTC".into());
    let overlap = match body::text("overlap", overlap)? {
        None => Overlap::default(),
        Some(text) => Overlap::ALL.into_iter().find(|how| how.as_str() == &*text).ok_or_else(|| {
            let known = Overlap::ALL.map(Overlap::as_str).join(", ");
            let text: String = text.chars().take(64).collect();
            unfit("overlap", format!("overlap {text:?} is none of {known}"))
        })?,
    };
    let catch_up = body::text("catch_up", catch_up)?;
    let catch_up_us = duration(
        "catch_up",
        catch_up.as_deref(),
        (
            limits::SCHEDULE_CATCH_UP_SECONDS_MIN,
            limits::SCHEDULE_CATCH_UP_SECONDS_MAX,
            limits::SCHEDULE_CATCH_UP_SECONDS,
        ),
    )?;
    let jitter = body::text("jitter", jitter)?;
    let jitter_us = duration("jitter", jitter.as_deref(), (0, limits::SCHEDULE_JITTER_SECONDS_MAX, 0))?;
    let paused = match paused {
        None | Some(Value::Null) => false,
        Some(Value::Bool(paused)) => paused,
        Some(other) => return Err(body::wrong_type("paused", "true or false", &other)),
    };
    let inputs = inputs.unwrap_or_else(|| Value::Map(Arc::new(Map::default())));
    let text = inputs.to_json();
    if text.len() > limits::SCHEDULE_INPUTS_BYTES_MAX {
        let detail = format!("inputs of {} bytes; at most {}", text.len(), limits::SCHEDULE_INPUTS_BYTES_MAX);
        return Err(Problem::new(422, "limit_exceeded", detail).limit("schedule_inputs_bytes_max"));
    }
    let spec = Spec { name, workflow, inputs: text.into(), cron, timezone, overlap, catch_up_us, jitter_us };
    Ok((spec, paused, inputs))
}

/// The calendar of a schedule, which must be due some day. Looking for that may take a while: not on a core's thread.
async fn calendar(spec: &Spec, now: Timestamp) -> Result<Calendar, Box<Problem>> {
    let (cron, timezone) = (spec.cron.clone(), spec.timezone.clone());
    let read = blocking(move || {
        let calendar = Calendar::parse(&cron, &timezone)?;
        let never = Invalid::Never(cron.to_string());
        calendar.next_after(now).map(|_| calendar).ok_or(never)
    });
    read.await?.map_err(|invalid| unfit(invalid.member(), invalid.to_string()))
}

/// `POST /v1/schedules`
async fn create(services: &Services, head: &Parts, incoming: Incoming) -> Answer {
    request::require_json(&head.headers)?;
    services.refuse_when_stopping()?;
    let bytes = request::body(head, incoming).await?;
    let (spec, paused, inputs) = asked(&bytes)?;
    let workspace = admission::workspace(head).clone();
    let now = services.clock.now();
    let calendar = calendar(&spec, now).await?;
    // What cannot be started now is refused now, not in the night.
    let (name, version) = named(&spec.workflow);
    let entry = start::find(services, &workspace, name, version).await?;
    start::check(&entry, &inputs)?;
    let mut wanted = Schedule::new(spec, services.new_run(None).1, now);
    wanted.paused = paused;
    let look_at = (!paused).then(|| calendar.next_after(now)).flatten();
    let (shared, key) = (services.triggers.clone(), triggers::key(&workspace, &wanted.spec.name));
    let made = triggers::update(&services.triggers, Table::Schedules, key, move |row| {
        if let Some(row) = row {
            return same(triggers::decode(row)?, &wanted).map(|known| (Change::Keep, (known, false)));
        }
        let most = limits::SCHEDULES_PER_WORKSPACE_MAX;
        if triggers::count(&shared, Table::Schedules, &workspace, most)? >= most {
            let detail = format!("this workspace has {most} schedules; remove one first");
            return Err(Problem::new(422, "limit_exceeded", detail).limit("schedules_per_workspace_max"));
        }
        Ok((Change::Put { row: triggers::encode(&wanted), look_at }, (wanted, true)))
    });
    let (made, created) = made.await?;
    let status = if created { StatusCode::CREATED } else { StatusCode::OK };
    Ok(json(status, &show::whole(&made, Some(&calendar), now)))
}

/// The schedule that is there, when it is what is wanted.
fn same(known: Schedule, wanted: &Schedule) -> Result<Schedule, Box<Problem>> {
    if known.spec == wanted.spec {
        return Ok(known);
    }
    let detail = format!("there is another schedule {:?}; delete it first", known.spec.name);
    Err(Problem::new(409, "schedule_exists", detail))
}

/// `GET` and `POST /v1/schedules`
async fn all(services: &Services, head: &Parts, incoming: Incoming) -> Answer {
    if head.method == http::Method::POST {
        return create(services, head, incoming).await;
    }
    let [limit, cursor] = request::parameters(head, ["limit", "cursor"])?;
    let limit = request::page_limit(limit.as_deref())?;
    let place = (admission::workspace(head), cursor.as_deref().unwrap_or_default());
    let mut rows: Vec<Schedule> =
        triggers::page(&services.triggers, Table::Schedules, place, limit.saturating_add(1)).await?;
    let more = rows.len() > limit;
    rows.truncate(limit);
    let next = rows.last().filter(|_| more).map(|last| last.spec.name.to_string());
    let now = services.clock.now();
    // Each has to be read, and asked for its next time.
    let shown = blocking(move || rows.iter().map(|row| show::line(row, now)).collect::<Vec<_>>()).await?;
    let page = serde_json::json!({"schedules": shown, "next_cursor": next});
    Ok(triggers::linked(json(StatusCode::OK, &page), ("/v1/schedules", limit), next.as_deref()))
}

/// `GET` and `DELETE /v1/schedules/{schedule}`
async fn one(services: &Services, head: &Parts, name: &str) -> Answer {
    let key = triggers::key(admission::workspace(head), name);
    if head.method == http::Method::DELETE {
        let removed = triggers::update(&services.triggers, Table::Schedules, key, |row| {
            Ok((if row.is_some() { Change::Remove } else { Change::Keep }, row.is_some()))
        });
        let removed = removed.await?;
        return if removed { Ok(nothing()) } else { Err(no_schedule(name)) };
    }
    let found: Option<Schedule> = triggers::get(&services.triggers, Table::Schedules, key).await?;
    let found = found.ok_or_else(|| no_schedule(name))?;
    let calendar = Calendar::parse(&found.spec.cron, &found.spec.timezone).ok();
    Ok(json(StatusCode::OK, &show::whole(&found, calendar.as_ref(), services.clock.now())))
}

/// 204.
pub(super) fn nothing() -> Response<Body> {
    let mut response = Response::new(Body::Whole(None));
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

/// `POST /v1/schedules/{schedule}/{pause,resume,trigger}`
async fn steer(services: &Services, head: &Parts, (name, verb): (&str, &str)) -> Answer {
    let workspace = admission::workspace(head).clone();
    let key = triggers::key(&workspace, name);
    if verb == "trigger" {
        let once = request::idempotency_key(&head.headers)?;
        return trigger(services, &workspace, (key, name), once).await;
    }
    let (now, resumes, owned) = (services.clock.now(), verb == "resume", name.to_owned());
    let steered = triggers::update(&services.triggers, Table::Schedules, key, move |row| {
        let mut schedule: Schedule = triggers::decode(row.ok_or_else(|| no_schedule(&owned))?)?;
        if resumes {
            schedule.resume(now)
        } else {
            schedule.pause(now)
        }
        // Whatever it has to do it finds out when it is looked at.
        Ok((Change::Put { row: triggers::encode(&schedule), look_at: Some(now) }, schedule))
    });
    let schedule = steered.await?;
    let calendar = Calendar::parse(&schedule.spec.cron, &schedule.spec.timezone).ok();
    Ok(json(StatusCode::OK, &show::whole(&schedule, calendar.as_ref(), now)))
}

/// A start that is asked for, whatever lives. It is written down first: it is made even if this node falls down now.
/// With a key it is decided once: the row remembers which start that was, and who asks again gets its run.
async fn trigger(
    services: &Services,
    workspace: &Workspace,
    (key, name): (Vec<u8>, &str),
    once: Option<&[u8]>,
) -> Answer {
    services.refuse_when_stopping()?;
    let (now, owned) = (services.clock.now(), name.to_owned());
    let once = once.map(|given| start::first_half(&Sha256::digest(given)));
    let decided = triggers::update(&services.triggers, Table::Schedules, key.clone(), move |row| {
        let mut schedule: Schedule = triggers::decode(row.ok_or_else(|| no_schedule(&owned))?)?;
        if let Some(asked) = once.and_then(|once| schedule.triggered(&once)) {
            let fire = Fire { due: asked.due, manual: true };
            return Ok((Change::Keep, (schedule, fire, start::Origin::Replayed, asked.run_id)));
        }
        let fire = match once {
            Some(once) => schedule.trigger_once(once, now),
            None => schedule.trigger(now),
        };
        let Some(fire) = fire else { return Err(crowded(&schedule)) };
        // Made here and now; by whoever comes after a crash.
        let look_at = Some(now.saturating_add(Duration::from_millis(limits::SCHEDULE_RETRY_MILLIS)));
        let row = triggers::encode(&schedule);
        Ok((Change::Put { row, look_at }, (schedule, fire, start::Origin::Started, None)))
    });
    let (schedule, fire, origin, known) = decided.await?;
    let made = match known {
        // Even if it has been forgotten since: that is no reason for another one.
        Some(run_id) => Ok(run_id),
        None => fire::carry_out(services, (workspace, &key), &schedule, fire).await,
    };
    let run_id = made.map_err(|mut problem| {
        if fire::is_passing(&problem) {
            problem.outcome = Some("unknown".into());
        }
        problem
    })?;
    let summary = services.locate(run_id).await?.summary;
    let line = json(StatusCode::ACCEPTED, &Line::new(&summary, &services.durability));
    Ok(start::located(line, run_id, origin))
}

/// Why a start that is asked for is not decided.
fn crowded(schedule: &Schedule) -> Box<Problem> {
    let most = limits::SCHEDULE_RUNS_KEPT_MAX;
    if schedule.decided.len() >= most {
        let detail = format!("{most} starts of this schedule wait to be made");
        return Problem::unavailable("overloaded", detail).limit("schedule_runs_kept_max");
    }
    let most = limits::SCHEDULE_KEYS_MAX;
    let detail = format!("this schedule remembers {most} keys of the last 24 hours");
    let mut problem = Problem::new(429, "limit_reached", detail).limit("schedule_keys_max");
    (problem.retryable, problem.outcome) = (true, Some("not_applied".into()));
    problem
}
