//! The HTTP interface of one control core: what a client may ask, and what it is answered.
//!
//! [`serve`] runs on the core's own thread until it is told to stop. It never does a node's work: it checks, asks the
//! owning shard through the [`Gate`], and writes the answer down. Everything from outside is bounded; whatever is not
//! a success is a problem document that names the place, the limit, and whether the request may be sent again.

pub mod artifacts;
mod breakers;
mod cached;
pub mod catalog;
pub mod entropy;
pub mod gate;
pub mod ports;

mod admission;
mod agents;
mod allowances;
mod approvals;
mod asked;
mod audit;
mod batch;
mod body;
mod budget;
mod coding;
mod compat;
mod conditions;
mod contents;
mod cost;
mod errands;
mod filter;
pub mod front;
mod handover;
mod history;
mod hooks;
mod keys;
mod letters;
mod metered;
mod metrics;
mod multiplexed;
mod node;
mod openapi;
mod overlays;
mod patches;
mod plain;
mod rate;
mod records;
mod replay;
mod request;
mod respond;
mod reviews;
mod routes;
mod runs;
mod schedules;
mod server;
mod services;
mod signals;
mod slots;
mod socket;
mod start;
mod store;
mod streams;
mod tags;
mod told;
mod transitions;
mod triggers;
mod untaken;
mod usage;
mod waits;
mod webhooks;
mod websocket;
mod workers;
mod workflows;
mod worklog;

#[cfg(any(test, fuzzing))]
#[path = "../tests/fuzz/bodies.rs"]
pub(crate) mod fuzzed;

use std::net::IpAddr;

use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Request, Response};
use hyper::body::{Body as _, Incoming as Received};

pub use asked::answer_streams;
pub use batch::run_batches;
pub use catalog::Catalog;
pub use contents::collect_contents;
pub use entropy::Entropy;
pub use errands::run_errands;
pub use gate::Gate;
pub use schedules::run_schedules;
#[cfg(test)]
pub(crate) use server::serve_stream;
pub use server::{Shutdown, serve};
pub use services::{NodeView, Parts as ServiceParts, Services};
pub use slots::open as open_slots;
pub use triggers::Triggers;
pub use webhooks::{Reviewing, deliver_webhooks};
pub use workers::watch_leases;

use crate::limits;
use crate::telemetry::log::{self, Level};
use crate::time::Clock as _;
use crate::wire::problem::Problem;
use request::Incoming;
use respond::Body;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Segments of the longest path there is, and one more to see that a path is longer.
const SEGMENTS_MAX: usize = 7;

/// Answers one request.
async fn dispatch(services: &Services, peer: IpAddr, request: Request<Received>) -> Response<Body> {
    let (mut head, body) = request.into_parts();
    websocket::offered(&mut head, !body.is_end_stream());
    let by_hop = front::hop::came(&mut head, services.node.hop_key());
    let peer = by_hop.unwrap_or(peer);
    let request_id = request_id(services, &head);
    let began_us = log::enabled(Level::Debug).then(|| services.clock.monotonic_us());
    let (answered, standing) = answer(services, peer, (&mut head, Incoming::Wire(body)), &request_id).await;
    let answered = answered.map(|response| websocket::accept(&head, peer, response));
    let mut response = answered.unwrap_or_else(|problem| front::refused(&problem, by_hop.is_some()));
    if let Some(standing) = standing {
        rate::tell(&standing, &mut response);
    }
    if coding::concerns(&response) {
        response = Box::pin(coding::packed(&head.headers, response)).await;
    }
    if let Some(began_us) = began_us {
        let took_us = services.clock.monotonic_us().saturating_sub(began_us);
        records::answered(&head, &response, (&request_id, took_us));
    }
    response.headers_mut().insert(REQUEST_ID, request_id);
    response
}

/// Lets a request in, has it answered, and notes what is to be noted of it; and how its sender stands with its rates.
async fn answer(
    services: &Services,
    peer: IpAddr,
    (head, body): (&mut Parts, Incoming),
    request_id: &HeaderValue,
) -> (Result<Response<Body>, Box<Problem>>, Option<crate::auth::rate::Standing>) {
    let admitted = admission::admit(services, head);
    let standing = rate::count(services, head, peer);
    let within = standing.as_ref().map_or(Ok(()), |standing| rate::check(standing, head));
    let allowed = within.and(admitted).and_then(|()| websocket::check(services, head));
    let allowed = allowed.and_then(|()| audit::check(services, head));
    let mut answered = match allowed {
        Ok(()) => route(services, head, body).await,
        Err(problem) => Err(problem),
    };
    // What was read may be another node's by now; what was done is done.
    if head.method.is_safe() && !services.node.may_read() && node::is_of_runs(head) {
        answered = Err(node::lease_expired());
    }
    if audit::concerns(services, head, &answered) {
        answered = Box::pin(audit::record(services, head, (peer, request_id), answered)).await;
    }
    if let Err(problem) = &mut answered {
        problem.instance = Some(head.uri.path().chars().take(256).collect());
        problem.request_id = request_id.to_str().ok().map(str::to_owned);
        if problem.status >= 500 {
            records::failed(head, problem);
        }
    }
    (answered, standing)
}

/// The client's own id when it is short and plain, else one of ours.
fn request_id(services: &Services, head: &Parts) -> HeaderValue {
    let plain = |value: &&HeaderValue| {
        (1..=limits::REQUEST_ID_BYTES_MAX).contains(&value.len())
            && value.as_bytes().iter().all(|byte| (0x21..=0x7e).contains(byte))
    };
    match head.headers.get(REQUEST_ID).filter(plain) {
        Some(value) => value.clone(),
        None => HeaderValue::from_str(&services.request_id()).unwrap_or(HeaderValue::from_static("req")),
    }
}

async fn route(services: &Services, head: &Parts, body: Incoming) -> Result<Response<Body>, Box<Problem>> {
    head_size(head)?;
    let path = head.uri.path();
    let mut segments = [""; SEGMENTS_MAX];
    let mut count = 0;
    for segment in path.strip_prefix('/').unwrap_or(path).split('/') {
        let Some(slot) = segments.get_mut(count) else { return Err(no_route(path)) };
        *slot = segment;
        count += 1;
    }
    match segments.get(..count).unwrap_or_default() {
        // Starts come first: they are the path that is measured, and the only one not boxed.
        ["v1", "runs"] | ["runs"] if head.method == Method::POST => start::start(services, head, body).await,
        ["v1", "runs"] => {
            allow(head, "GET, HEAD, POST")?;
            Box::pin(runs::list(services, head)).await
        }
        ["runs"] => allow(head, "POST").and_then(|()| Err(no_route(path))),
        ["v1", "runs", id, rest @ ..] => Box::pin(routes::run_route(services, head, body, (id, rest))).await,
        ["runs", id, "patch"] => Box::pin(routes::run_route(services, head, body, (id, &["patch"]))).await,
        ["v1", "workflows", rest @ ..] => Box::pin(routes::workflow_route(services, head, body, rest)).await,
        ["workflows", rest @ ..] => Box::pin(routes::compat_route(services, head, body, rest)).await,
        ["v1", "approvals", rest @ ..] => Box::pin(routes::approval_route(services, head, body, rest)).await,
        ["v1", "events"] => Box::pin(streams::of_many(services, head)).await,
        ["v1", "audit", rest @ ..] => Box::pin(routes::audit_route(services, head, rest)).await,
        ["v1", "webhooks", rest @ ..] => Box::pin(routes::webhook_route(services, head, body, rest)).await,
        ["v1", "dlq", rest @ ..] => Box::pin(routes::letter_route(services, head, rest)).await,
        ["reviews", review] => {
            allow(head, "GET, HEAD, POST")?;
            Box::pin(reviews::route(services, head, body, review)).await
        }
        ["v1", "schedules", rest @ ..] => Box::pin(schedules::route(services, head, body, rest)).await,
        ["v1", "batch", rest @ ..] => Box::pin(batch::route(services, head, body, rest)).await,
        ["v1", "hooks", rest @ ..] => Box::pin(hooks::route(services, head, body, rest)).await,
        ["v1", "cas", hash] => Box::pin(contents::get(services, head, hash)).await,
        ["v1", "agents", rest @ ..] => Box::pin(agents::list::route(services, head, rest)).await,
        ["v1", "breakers"] => breakers::list(services, head),
        ["v1", "budgets"] => allowances::list(services, head),
        ["v1", "usage"] => {
            allow(head, "GET, HEAD")?;
            Box::pin(usage::usage(services, head)).await
        }
        ["v1", "workers", "queues"] => {
            allow(head, "GET, HEAD")?;
            workers::queues(services, head)
        }
        ["v1", "workers", verb @ ("poll" | "complete" | "fail" | "heartbeat")] => {
            allow(head, "POST")?;
            Box::pin(workers::answer(services, head, body, verb)).await
        }
        ["v1", "callbacks", lease] => {
            allow(head, "POST")?;
            Box::pin(workers::callback(services, head, body, lease)).await
        }
        other => {
            let known = matches!(
                other,
                ["v1", "node"]
                    | ["v1", "schema", "workflow.json"]
                    | ["openapi.json"]
                    | ["livez" | "healthz" | "readyz" | "metrics" | "version"]
            );
            if !known {
                return Err(no_route(path));
            }
            allow(head, "GET, HEAD")?;
            node::answer(services, path)
        }
    }
}

fn allow(head: &Parts, methods: &'static str) -> Result<(), Box<Problem>> {
    if methods.split(", ").any(|method| method == head.method.as_str()) {
        return Ok(());
    }
    let method: String = head.method.as_str().chars().take(32).collect();
    let mut problem =
        Problem::new(405, "method_not_allowed", format!("{method} is not served here; {methods} is"));
    problem.allow = Some(methods);
    Err(problem)
}

fn no_route(path: &str) -> Box<Problem> {
    let path: String = path.chars().take(256).collect();
    Problem::new(404, "route_not_found", format!("nothing is served at {path:?}"))
}

/// hyper stops at a hard bound of its own, twice this; here the client is told why.
fn head_size(head: &Parts) -> Result<(), Box<Problem>> {
    let headers: usize = head.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    let uri = head.uri.path().len() + head.uri.query().map_or(0, str::len);
    let size = headers + uri + 32;
    if size > limits::REQUEST_HEAD_BYTES_MAX {
        let detail =
            format!("a request head of some {size} bytes; at most {}", limits::REQUEST_HEAD_BYTES_MAX);
        return Err(Problem::new(431, "head_too_large", detail).limit("request_head_bytes_max"));
    }
    Ok(())
}
