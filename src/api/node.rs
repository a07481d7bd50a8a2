//! The node about itself: alive, ready, version, planes and queues, counters.

use http::request::Parts;
use http::{Response, StatusCode};

use super::respond::{Body, bytes, json};
use super::services::Services;
use super::{metrics, openapi, store};
use crate::wire::problem::Problem;
use crate::wire::schema;

/// Media type of metrics.
pub(super) const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What the binary is.
pub(super) fn version() -> serde_json::Value {
    serde_json::json!({"name": "aobd", "version": env!("CARGO_PKG_VERSION")})
}

/// `/v1/node`, `/livez`, `/healthz`, `/readyz`, `/metrics`, `/version`, `/v1/schema/workflow.json`,
/// `/openapi.json`
pub(super) fn answer(services: &Services, path: &str) -> Result<Response<Body>, Box<Problem>> {
    Ok(match path {
        "/v1/node" => {
            let mut info = services.node.info();
            info.queues = services.queues.iter().map(|stats| (&**stats).into()).collect();
            info.materializer = services.artifacts.info();
            info.stream_subscribers = services.subscribers.iter().map(|cells| cells.open.value()).sum();
            json(StatusCode::OK, &info)
        }
        "/metrics" => bytes(StatusCode::OK, METRICS_TYPE, metrics::scrape(services)),
        "/v1/schema/workflow.json" => bytes(StatusCode::OK, schema::MEDIA_TYPE, schema::WORKFLOW),
        "/openapi.json" => bytes(StatusCode::OK, openapi::MEDIA_TYPE, openapi::DOCUMENT),
        "/version" => json(StatusCode::OK, &version()),
        "/readyz" => {
            services.refuse_when_stopping()?;
            services.node.ready().map_err(|why| Problem::unavailable("not_ready", why))?;
            // Whoever sends the results of runs that go on must find this node: that it begins nothing is said, not more.
            let no_room = services.node.no_room();
            let no_room =
                no_room.map(|no_room| format!("no new work is taken ({}): {no_room}", no_room.lack.code()));
            let but: Vec<String> =
                no_room.into_iter().chain(store::told(services.store().as_ref())).collect();
            let text = match but.is_empty() {
                true => String::from("ok\n"),
                false => format!("ok, but {}\n", but.join("; ")),
            };
            bytes(StatusCode::OK, "text/plain; charset=utf-8", text)
        }
        // A process that answers is alive.
        _ => bytes(StatusCode::OK, "text/plain; charset=utf-8", "ok\n"),
    })
}

/// Is more asked for than what this process is?
pub(super) fn is_of_runs(head: &Parts) -> bool {
    const OWN: [&str; 7] =
        ["/livez", "/healthz", "/readyz", "/version", "/metrics", "/v1/node", "/openapi.json"];
    !OWN.contains(&head.uri.path())
}

/// Another node may own the store by now.
pub(super) fn lease_expired() -> Box<Problem> {
    let why = "this node could not renew its lease of the store in time; another may own it by now";
    Problem::unavailable("store_lease_expired", why)
}
