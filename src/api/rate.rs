//! What a caller is told of the requests it may send: 429 when it has sent too many, and headers on every answer. The same of
//! starts of one workflow, by its tier, on answers to starts.

use std::net::IpAddr;

use http::Response;
use http::header::{HeaderName, HeaderValue};
use http::request::Parts;

use super::admission;
use super::catalog::Entry;
use super::respond::Body;
use super::services::Services;
use crate::auth::rate::{Policy, Standing, Who};
use crate::auth::tiers::Taken;
use crate::model::workspace::shown;
use crate::model::{Value, Workspace};
use crate::time::Clock as _;
use crate::wire::problem::Problem;

const SECOND_NS: u64 = 1_000_000_000;

/// Counts a request, and says where its sender stands then; `None` when nobody is counted, and for probes. One with a
/// token that is not known counts as its address.
pub(super) fn count(services: &Services, head: &Parts, peer: IpAddr) -> Option<Standing> {
    let allowances = services.door.allowances.as_ref()?;
    if admission::is_probe(head.uri.path()) {
        return None;
    }
    Some(allowances.take(Who::of(admission::caller(head), peer), services.clock.monotonic_us()))
}

/// 429 when it has sent too many.
pub(super) fn check(standing: &Standing, head: &Parts) -> Result<(), Box<Problem>> {
    let Some(wait) = standing.refused_for_ns else { return Ok(()) };
    let who = match &admission::caller(head).token {
        Some(name) => format!("token {name:?}"),
        None => String::from("this address"),
    };
    let Policy { per_second, burst } = standing.policy;
    let detail = format!(
        "{who} has sent more than {per_second} requests a second and {burst} at once \
         (limits.requests_per_second, limits.requests_burst)"
    );
    Err(refused(detail, "requests_per_second", wait))
}

fn refused(detail: String, limit: &'static str, wait_ns: u64) -> Box<Problem> {
    let mut problem = Problem::new(429, "rate_limited", detail).limit(limit);
    problem.retryable = true;
    problem.outcome = Some("not_applied".into());
    problem.retry_after_ms = Some(wait_ns.div_ceil(1_000_000).max(1));
    problem
}

/// Counts a start of a workflow; 429 when its tier allows no more now.
pub(super) fn start(services: &Services, entry: &Entry) -> Result<Option<Taken>, Box<Problem>> {
    let Some(tiers) = &services.door.tiers else { return Ok(None) };
    let (workspace, name) = (Workspace::of(&entry.name), shown(&entry.name));
    let named = tiers.reads_documents().then(|| tier_of(&entry.compiled.document)).flatten();
    let now_us = services.clock.monotonic_us();
    let Some(taken) = tiers.take((workspace.name(), name), named, now_us) else { return Ok(None) };
    let Some(wait) = taken.standing.refused_for_ns else { return Ok(Some(taken)) };
    let Policy { per_second, burst } = taken.standing.policy;
    let (workspace, tier) = (workspace.name(), &taken.tier);
    let detail = format!(
        "workflow {name:?} of workspace {workspace:?} was started more than {per_second} times a second and {burst} at once \
         (tier {tier:?} of rate.tiers)"
    );
    Err(refused(detail, "rate_tiers", wait))
}

/// The tier that a document names.
fn tier_of(document: &Value) -> Option<&str> {
    let Value::Map(document) = document else { return None };
    let Value::Map(metadata) = document.get("metadata")? else { return None };
    match metadata.get("rate_tier") {
        Some(Value::String(tier)) => Some(tier),
        _ => None,
    }
}

/// Says on an answer to a start what is left of its workflow's tier.
pub(super) fn tell_start(taken: Option<&Taken>, response: &mut Response<Body>) {
    if let Some(taken) = taken {
        append(&taken.tier, &taken.standing, response);
    }
}

/// Says on an answer what is allowed and what is left (draft-ietf-httpapi-ratelimit-headers-10). The policy is told as so
/// many in a window: the burst in the time in which it grows again, at least a second's worth.
pub(super) fn tell(standing: &Standing, response: &mut Response<Body>) {
    append("requests", standing, response);
}

/// Each policy has a name, and a header of its own.
fn append(name: &str, standing: &Standing, response: &mut Response<Body>) {
    let Policy { per_second, burst } = standing.policy;
    let quota = burst.max(per_second);
    let policy = format!("\"{name}\";q={quota};w={}", quota.div_ceil(per_second.max(1)));
    let left = format!("\"{name}\";r={};t={}", standing.left, standing.whole_in_ns.div_ceil(SECOND_NS));
    for (header, value) in [("ratelimit-policy", policy), ("ratelimit", left)] {
        if let Ok(value) = HeaderValue::try_from(value) {
            response.headers_mut().append(HeaderName::from_static(header), value);
        }
    }
}
