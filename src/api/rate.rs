//! What a caller is told of the requests it may send: 429 when it has sent too many, and headers on every answer.

use std::net::IpAddr;

use http::Response;
use http::header::{HeaderName, HeaderValue};
use http::request::Parts;

use super::admission;
use super::respond::Body;
use super::services::Services;
use crate::auth::rate::{Policy, Standing, Who};
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
    let mut problem = Problem::new(429, "rate_limited", detail).limit("requests_per_second");
    problem.retryable = true;
    problem.outcome = Some("not_applied".into());
    problem.retry_after_ms = Some(wait.div_ceil(1_000_000).max(1));
    Err(problem)
}

/// Says on an answer what is allowed and what is left (draft-ietf-httpapi-ratelimit-headers-10). The policy is told as so
/// many in a window: the burst in the time in which it grows again, at least a second's worth.
pub(super) fn tell(standing: &Standing, response: &mut Response<Body>) {
    let Policy { per_second, burst } = standing.policy;
    let quota = burst.max(per_second);
    let policy = format!("\"requests\";q={quota};w={}", quota.div_ceil(per_second.max(1)));
    let left = format!("\"requests\";r={};t={}", standing.left, standing.whole_in_ns.div_ceil(SECOND_NS));
    for (name, value) in [("ratelimit-policy", policy), ("ratelimit", left)] {
        if let Ok(value) = HeaderValue::try_from(value) {
            response.headers_mut().insert(HeaderName::from_static(name), value);
        }
    }
}
