//! Circuit breakers, told: which services are left alone (`GET /v1/breakers`), and what `/metrics` has of it.
//!
//! A workspace sees its own. Nothing is decided here.

use std::fmt::Error;

use http::request::Parts;
use http::{Response, StatusCode};
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::respond::{Body, json};
use super::services::Services;
use super::{admission, allow, request};
use crate::exec::breakers::{Breakers, Standing, number};
use crate::limits;
use crate::resilience::State;
use crate::wire::Shown;
use crate::wire::breaker::{Breaker, List};
use crate::wire::problem::Problem;

/// `GET /v1/breakers`
pub(super) fn list(services: &Services, head: &Parts) -> Result<Response<Body>, Box<Problem>> {
    allow(head, "GET, HEAD")?;
    request::require_accept(&head.headers, "application/json")?;
    let breakers = services.executors.http.breakers();
    let mut standings = breakers.standings(Some(admission::workspace(head).name()));
    // Everybody's.
    standings.extend(services.store());
    let list = List { enabled: breakers.policy().enabled, breakers: standings.iter().map(shown).collect() };
    Ok(json(StatusCode::OK, &list))
}

fn shown(standing: &Standing) -> Breaker<'_> {
    let millis = standing.retry_after.as_micros().div_ceil(1_000);
    let [_, _, opened] = standing.transitions;
    Breaker {
        service: &standing.key.1,
        state: standing.state.as_str(),
        last_failure_at: Shown(standing.last_failure_at),
        opened,
        retry_after_ms: (standing.state == State::Open).then(|| u64::try_from(millis).unwrap_or(u64::MAX)),
    }
}

/// Names of services come from documents: only so many are told apart, the rest is one, as bad as the worst of it.
pub(super) fn encode(breakers: &Breakers, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
    let standings = breakers.standings(None);
    let (told, rest) = standings.split_at(standings.len().min(limits::METRIC_BREAKERS_MAX));
    let told = told.iter().map(|standing| {
        let (workspace, service) = &standing.key;
        (&**workspace, &**service, number(standing.state), standing.transitions)
    });
    let rest = rest.iter().map(|standing| ("*", "*", number(standing.state), standing.transitions));
    let rest = rest.reduce(|(.., worst, [a, b, c]), (.., state, [d, e, f])| {
        ("*", "*", worst.max(state), [a + d, b + e, c + f])
    });
    let rows: Vec<_> = told.chain(rest).collect();
    let kind = ConstGauge::new(0i64).metric_type();
    let help = "Circuit breakers of services: 0 closed, 1 half open, 2 open";
    let mut metric = encoder.encode_descriptor("aob_breaker_state", help, None, kind)?;
    for (workspace, service, state, _) in &rows {
        let gauge = ConstGauge::new(i64::try_from(*state).unwrap_or(i64::MAX));
        gauge.encode(metric.encode_family(&[("workspace", *workspace), ("service", *service)])?)?;
    }
    let kind = ConstCounter::new(0u64).metric_type();
    let help = "How often circuit breakers changed";
    let mut metric = encoder.encode_descriptor("aob_breaker_transitions", help, None, kind)?;
    for (workspace, service, _, transitions) in &rows {
        for (to, count) in ["closed", "half_open", "open"].into_iter().zip(transitions) {
            let labels = [("workspace", *workspace), ("service", *service), ("to", to)];
            ConstCounter::new(*count).encode(metric.encode_family(&labels)?)?;
        }
    }
    Ok(())
}
