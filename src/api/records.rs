//! What is logged about requests: at `debug` a line for each, at `warn` one for each that the node could not serve.

use http::request::Parts;
use http::{HeaderValue, Response, header};

use super::admission;
use crate::model::RunId;
use crate::telemetry::log::{self, About, Level, Target};
use crate::wire::problem::Problem;

/// An answer of the class 5xx.
pub(super) fn failed(head: &Parts, problem: &Problem) {
    let run_id = run_in(head.uri.path());
    let about = About {
        request_id: problem.request_id.as_deref(),
        error: Some((&problem.code, &problem.detail)),
        ..about(head, run_id.as_ref())
    };
    log::line(Level::Warn, Target::Api, &about, format_args!("{} {}", head.method, head.uri.path()));
}

/// Something that nobody asked for did not work; it is tried again.
pub(super) fn background(what: &str, problem: &Problem) {
    log::warn(Target::Store, format_args!("{what}: {}: {}", problem.code, problem.detail));
}

/// Any answer, as its head is ready.
pub(super) fn answered<B>(head: &Parts, response: &Response<B>, (request_id, took_us): (&HeaderValue, u64)) {
    // A start names its run in the answer only.
    let location = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
    let run_id = run_in(head.uri.path()).or_else(|| run_in(location?));
    let about = About {
        request_id: request_id.to_str().ok(),
        answer: Some((response.status().as_u16(), took_us)),
        ..about(head, run_id.as_ref())
    };
    log::line(Level::Debug, Target::Access, &about, format_args!("{} {}", head.method, head.uri.path()));
}

fn about<'a>(head: &'a Parts, run_id: Option<&'a RunId>) -> About<'a> {
    let run_id = run_id.map(|run_id| run_id as &dyn std::fmt::Display);
    About { run_id, token: admission::caller(head).token.as_deref(), ..About::default() }
}

/// The run that a path is about.
fn run_in(path: &str) -> Option<RunId> {
    path.strip_prefix("/v1/runs/")?.split('/').next()?.parse().ok()
}
