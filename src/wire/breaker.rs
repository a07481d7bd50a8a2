//! Bodies about circuit breakers: which services are left alone, and until when.

use serde::Serialize;

use super::Shown;
use crate::time::Timestamp;

/// The breakers of a workspace.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "BreakerList"))]
pub struct List<'a> {
    /// Are calls refused at all? `http.breaker.enabled`
    pub enabled: bool,
    /// Services whose calls have failed since the node started, by name.
    pub breakers: Vec<Breaker<'a>>,
}

/// The breaker of a service.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Breaker"))]
pub struct Breaker<'a> {
    /// Host and port, as in the URL of its calls.
    pub service: &'a str,
    /// `closed`: calls are made; `open`: none are; `half_open`: one at a time is.
    pub state: &'static str,
    /// When a call failed last.
    pub last_failure_at: Shown<Timestamp>,
    /// How often it has opened.
    pub opened: u64,
    /// Until calls may be made again; only while it is open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}
