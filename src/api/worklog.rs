//! Log lines about what is done for nodes of runs. What happens in a run is its events; a line says which node, attempt and
//! code, so that whoever runs the machine finds them. No outputs, no addresses, no words of services or workers but the code.

use crate::engine::command::{Dispatch, Executor, Work};
use crate::exec::pool::{Attempt, Expired, Job};
use crate::model::{Class, Failure, RunId};
use crate::telemetry::log::{self, About, Level, Target};

/// A call of the node's own has ended: `debug`, or `info` when it failed.
pub(super) fn called(run_id: RunId, dispatch: &Dispatch, failure: Option<&Failure>, took_us: u64) {
    let about = About { took_us: Some(took_us), ..about(&run_id, &dispatch.path, dispatch.attempt) };
    let words = match is_turn(dispatch) {
        true => ("turn of an agent done", "turn of an agent failed"),
        false => ("http call done", "http call failed"),
    };
    ended(&about, failure, words);
}

/// A call is no longer wanted.
pub(super) fn given_up(run_id: RunId, dispatch: &Dispatch) {
    let about = about(&run_id, &dispatch.path, dispatch.attempt);
    let what = if is_turn(dispatch) { "turn of an agent" } else { "http call" };
    log::line(Level::Debug, Target::Work, &about, format_args!("{what} given up"));
}

fn is_turn(dispatch: &Dispatch) -> bool {
    matches!(dispatch.work, Work::Agent(_) | Work::Call { executor: Executor::Agent, .. })
}

/// A worker has a job.
pub(super) fn leased(job: &Job, worker: &str) {
    let about = about(&job.run_id, &job.path, job.attempt);
    log::line(Level::Debug, Target::Work, &about, format_args!("job leased to {worker:?}"));
}

/// A worker has said how a job ended.
pub(super) fn settled(run_id: RunId, attempt: Option<&Attempt>, failure: Option<&Failure>) {
    // Without a lease here the node is known to the run alone.
    let about = match attempt {
        Some(Attempt { path, attempt }) => about(&run_id, path, *attempt),
        None => About { run_id: Some(&run_id), ..About::default() },
    };
    ended(&about, failure, ("job done", "job failed"));
}

/// A worker is silent.
pub(super) fn expired(expired: &Expired, message: &str) {
    let about = about(&expired.run_id, &expired.path, expired.attempt);
    let about = About { error: Some(("lease_expired", message)), ..about };
    log::line(Level::Warn, Target::Work, &about, format_args!("job lost"));
}

fn about<'a>(run_id: &'a RunId, node: &'a str, attempt: u32) -> About<'a> {
    About { run_id: Some(run_id), node: Some(node), attempt: Some(attempt), ..About::default() }
}

fn ended(about: &About<'_>, failure: Option<&Failure>, (done, failed): (&str, &str)) {
    match failure {
        None => log::line(Level::Debug, Target::Work, about, format_args!("{done}")),
        Some(failure) => {
            let about = About { error: Some((&failure.code, class(failure.class))), ..*about };
            log::line(Level::Info, Target::Work, &about, format_args!("{failed}"));
        }
    }
}

fn class(class: Class) -> &'static str {
    match class {
        Class::Transient => "transient",
        Class::Recoverable => "recoverable",
        Class::Fatal => "fatal",
    }
}
