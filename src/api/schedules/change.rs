//! Schedules changed where they stand: a JSON Merge Patch (RFC 7396) over what the author said, checked as when one is made.
//!
//! The name stays. Runs, history and starts that were decided stay; what is due by another `cron` or `timezone` is due from now on.
//! What is checked is what is written down: a schedule that was changed by somebody else meanwhile is read and checked again.

use http::StatusCode;
use http::request::Parts;
use serde_json::{Map, Value as Json};

use super::super::request::Incoming;
use super::{Answer, asked, calendar, fire, no_schedule, show, unfit};
use crate::api::respond::json;
use crate::api::services::Services;
use crate::api::{admission, body, request, start, triggers};
use crate::schedule::Schedule;
use crate::store::triggers::{Change, Table};
use crate::time::Clock as _;
use crate::wire::problem::Problem;

/// Times that a schedule is read again which somebody else changes all the time.
const TRIES: usize = 8;

/// `PATCH /v1/schedules/{schedule}`
pub(super) async fn change(services: &Services, head: &Parts, incoming: Incoming, name: &str) -> Answer {
    match request::media_type(&head.headers) {
        Some("application/merge-patch+json" | "application/json") => {}
        other => return Err(request::unsupported(other, "application/merge-patch+json")),
    }
    services.refuse_when_stopping()?;
    let bytes = request::body(head, incoming).await?;
    // Names and spelling are judged as those of a schedule that is made.
    body::members(&bytes, super::MEMBERS)?;
    let patch: Json = serde_json::from_slice(&bytes)
        .map_err(|error| Problem::new(400, "malformed_json", error.to_string()))?;
    let workspace = admission::workspace(head).clone();
    let key = triggers::key(&workspace, name);
    for _ in 0..TRIES {
        let found = triggers::get(&services.triggers, Table::Schedules, key.clone()).await?;
        let known: Schedule = found.ok_or_else(|| no_schedule(name))?;
        let (spec, paused, inputs) = asked(&merged(&known, &patch))?;
        if spec.name != known.spec.name {
            return Err(unfit("name", "a schedule keeps its name; make another".into()));
        }
        let now = services.clock.now();
        let calendar = calendar(&spec, now).await?;
        let (workflow, version) = fire::named(&spec.workflow);
        let entry = start::find(services, &workspace, workflow, version).await?;
        start::check(&entry, &inputs)?;
        let changed = triggers::update(&services.triggers, Table::Schedules, key.clone(), move |row| {
            let Some(row) = row else { return Ok((Change::Keep, None)) };
            let mut schedule: Schedule = triggers::decode(row)?;
            let is_same = schedule.id == known.id && schedule.spec == known.spec;
            if !is_same || schedule.paused != known.paused {
                return Ok((Change::Keep, None));
            }
            schedule.change(spec, paused, now);
            // Whatever it has to do it finds out when it is looked at.
            Ok((Change::Put { row: triggers::encode(&schedule), look_at: Some(now) }, Some(schedule)))
        });
        if let Some(schedule) = changed.await? {
            return Ok(json(StatusCode::OK, &show::whole(&schedule, Some(&calendar), now)));
        }
    }
    Err(Problem::unavailable("overloaded", "others change this schedule all the time; send it again"))
}

/// What the author of a schedule said, with the patch on it.
fn merged(known: &Schedule, patch: &Json) -> Vec<u8> {
    let mut document = show::said(known);
    merge(&mut document, patch);
    document.to_string().into_bytes()
}

/// RFC 7396, section 2.
fn merge(target: &mut Json, patch: &Json) {
    let Json::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Json::Object(Map::new());
    }
    let Some(members) = target.as_object_mut() else { return };
    for (name, value) in patch {
        if value.is_null() {
            members.remove(name);
        } else {
            merge(members.entry(name.clone()).or_insert(Json::Null), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    // RFC 7396, appendix A.
    #[test]
    fn the_examples_of_the_rfc_are_merged_as_it_says() {
        for (target, patch, result) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]})),
            (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
            (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
            (json!(["a", "b"]), json!(["c", "d"]), json!(["c", "d"])),
            (json!({"a": "b"}), json!(["c"]), json!(["c"])),
            (json!({"a": "foo"}), json!(null), json!(null)),
            (json!({"a": "foo"}), json!("bar"), json!("bar")),
            (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
            (json!([1, 2]), json!({"a": "b", "c": null}), json!({"a": "b"})),
            (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
        ] {
            let mut merged = target.clone();
            merge(&mut merged, &patch);
            assert_eq!(merged, result, "{target} with {patch}");
        }
    }
}
