//! `GET /v1/budgets`: how the budgets wider than a run stand (F404), and what `/metrics` has of them.
//!
//! A caller sees those of its own workspace and of the workflows in it; the node's and those of roles, which are about all
//! workspaces, take the role `admin`. Nothing is decided here.

use std::fmt::Error;

use http::request::Parts;
use http::{Response, StatusCode};
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use serde::Serialize;

use super::respond::{Body, json};
use super::services::Services;
use super::{admission, allow, request};
use crate::auth::Role;
use crate::exec::ledger::Standing;
use crate::model::money::Usd;
use crate::time::Clock as _;
use crate::wire::problem::Problem;

#[derive(Serialize)]
struct List {
    budgets: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    scope: String,
    per: &'static str,
    usd: Option<Usd>,
    spent_usd: Usd,
    reserved_usd: Usd,
    left_usd: Option<Usd>,
    tokens: Option<u64>,
    spent_tokens: u64,
    reserved_tokens: u64,
    left_tokens: Option<u64>,
    window_seconds: Option<u64>,
    warn_at: f64,
    warned: bool,
    on_breach: &'static str,
    allow_unpriced: bool,
    refused: u64,
}

/// `GET /v1/budgets`
pub(super) fn list(services: &Services, head: &Parts) -> Result<Response<Body>, Box<Problem>> {
    allow(head, "GET, HEAD")?;
    request::require_accept(&head.headers, "application/json")?;
    let [] = request::parameters(head, [])?;
    let caller = admission::caller(head);
    let seen = |standing: &Standing| {
        caller.role >= Role::Admin || standing.limit.scope.is_of(admission::workspace(head))
    };
    let standings = services.executors.ledger.standings(services.clock.now());
    let budgets = standings.iter().filter(|standing| seen(standing)).map(row).collect();
    Ok(json(StatusCode::OK, &List { budgets }))
}

fn row(standing: &Standing) -> Row {
    let limit = &standing.limit;
    Row {
        scope: limit.scope.to_string(),
        per: limit.per.as_str(),
        usd: limit.usd,
        spent_usd: standing.usd,
        reserved_usd: standing.reserved,
        left_usd: standing.left(),
        tokens: limit.tokens,
        spent_tokens: standing.tokens,
        reserved_tokens: standing.tokens_reserved,
        left_tokens: standing.tokens_left(),
        window_seconds: limit.per.window().map(|window| window.as_secs()),
        warn_at: f64::from(limit.warn_at_permille) / 1_000.0,
        warned: standing.warned,
        on_breach: limit.on_breach.as_str(),
        allow_unpriced: limit.allow_unpriced,
        refused: standing.refusals,
    }
}

/// As many rows as the configuration has budgets.
pub(super) fn encode(standings: &[Standing], encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
    let labels = |standing: &Standing| (standing.limit.scope.to_string(), standing.limit.per.as_str());
    let kind = ConstGauge::new(0.0_f64).metric_type();
    let help = "Dollars that are left of a budget";
    let mut metric = encoder.encode_descriptor("aob_budget_remaining_usd", help, None, kind)?;
    for standing in standings {
        let (Some(left), (scope, per)) = (standing.left(), labels(standing)) else { continue };
        let family = [("scope", &*scope), ("per", per)];
        ConstGauge::new(left.as_nanos() as f64 / 1e9).encode(metric.encode_family(&family)?)?;
    }
    let kind = ConstCounter::new(0_u64).metric_type();
    type Count = fn(&Standing) -> u64;
    let counts: [(&str, &str, Count); 2] = [
        ("aob_budget_warnings", "How often a budget was nearly used up", |standing| standing.warnings),
        ("aob_budget_refusals", "Calls of models that a budget refused", |standing| standing.refusals),
    ];
    for (name, help, count) in counts {
        let mut metric = encoder.encode_descriptor(name, help, None, kind)?;
        for standing in standings {
            let (scope, per) = labels(standing);
            let family = [("scope", &*scope), ("per", per)];
            ConstCounter::new(count(standing)).encode(metric.encode_family(&family)?)?;
        }
    }
    Ok(())
}
