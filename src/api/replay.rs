//! What a run's record gives: the record as one file, the state after any of its events. Forks are beside (`fork`).
//!
//! A record may be large, so few are read at a time: [`limits::RECORDS_PER_CORE_MAX`] by a control core, each at most
//! [`limits::BUNDLE_BYTES_MAX`]. All of it is done on blocking threads.

mod fork;
mod letter;

use std::cell::Cell;

use http::request::Parts;
use http::{Response, StatusCode, header};

pub(super) use self::fork::{fork, redrive, redriven, replay, retry};
pub(super) use self::letter::{Given, given_up};
use super::ports::Location;
use super::request;
use super::respond::{Body, bytes, json, with};
use super::services::{Services, blocking};
use crate::engine::command::{Origin, Refusal, RunView};
use crate::limits;
use crate::model::event::Forked;
use crate::model::{RunId, Seq};
use crate::replay::{self, Bundle, Error};
use crate::wire::problem::Problem;

type Answer = Result<Response<Body>, Box<Problem>>;

thread_local! {
    /// Records that this core is having read.
    static READING: Cell<u32> = const { Cell::new(0) };
}

/// One of few.
struct Place;

impl Place {
    fn take() -> Result<Self, Box<Problem>> {
        let taken = READING.get();
        if taken >= limits::RECORDS_PER_CORE_MAX {
            let detail = format!("{taken} records of runs are being read on this core; send it again");
            return Err(Problem::unavailable("overloaded", detail).limit("records_per_core_max"));
        }
        READING.set(taken + 1);
        Ok(Self)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        READING.set(READING.get().saturating_sub(1));
    }
}

/// `GET /v1/runs/{id}/bundle`
pub(super) async fn bundle(services: &Services, head: &Parts, run_id: RunId) -> Answer {
    request::require_accept(&head.headers, "application/octet-stream")?;
    let _place = Place::take()?;
    let location = services.locate(run_id).await?;
    let runs = services.runs.clone();
    let seq = location.summary.seq;
    let file = blocking(move || {
        let bundle = read(&*runs, &location, Seq::MAX, limits::BUNDLE_BYTES_MAX)?;
        bundle.to_bytes().map_err(|error| problem(run_id, &error))
    })
    .await??;
    let response = bytes(StatusCode::OK, "application/octet-stream", file);
    let name = format!("attachment; filename=\"{run_id}-{seq}.aob\"");
    let response = with(response, header::CONTENT_DISPOSITION, name);
    Ok(with(response, header::CACHE_CONTROL, "no-store"))
}

/// `GET /v1/runs/{id}/state`
pub(super) async fn state(services: &Services, head: &Parts, run_id: RunId) -> Answer {
    request::require_accept(&head.headers, "application/json")?;
    let [seq] = request::parameters(head, ["seq"])?;
    let seq = super::history::number(seq)?;
    let _place = Place::take()?;
    let location = services.locate(run_id).await?;
    let runs = services.runs.clone();
    let state = blocking(move || {
        let seq = seq.unwrap_or(location.summary.seq);
        if seq == 0 || seq > location.summary.seq {
            return Err(problem(run_id, &Error::NoEvent { seq, last: location.summary.seq }));
        }
        let bundle = read(&*runs, &location, seq, limits::BUNDLE_BYTES_MAX)?;
        state_of(&bundle, seq).map_err(|error| problem(run_id, &error))
    })
    .await??;
    Ok(json(StatusCode::OK, &state))
}

fn state_of(bundle: &Bundle, seq: Seq) -> Result<replay::state::State, Error> {
    let (record, _) = bundle.record()?;
    let mut documents = bundle.documents(&record)?;
    replay::state::State::of(&replay::state::at(&record, &mut documents, seq)?)
}

/// Reads a record, or says that it is too large. Blocks.
fn read(
    runs: &dyn super::ports::Runs,
    location: &Location,
    upto: Seq,
    most: usize,
) -> Result<Bundle, Box<Problem>> {
    let run_id = location.summary.run_id;
    runs.bundle(location, upto, most)?.ok_or_else(|| {
        let what = "bytes of the run's events";
        let limit = if most == limits::BUNDLE_BYTES_MAX { "bundle_bytes_max" } else { "fork_bytes_max" };
        let most = most as u64;
        problem(run_id, &Error::Limit { what, value: most.saturating_add(1), most, limit })
    })
}

/// What a finished run is shown with that was forked.
pub(super) fn forked(view: &mut RunView, forked: Forked) {
    let Forked { run_id, seq, replay, inputs, deadline, .. } = forked;
    view.origin = Some(Origin { run_id, seq, replay });
    (view.parent, view.deadline) = (None, deadline);
    if let Some(inputs) = inputs {
        view.inputs = inputs;
    }
}

/// What stands against a replay.
fn problem(run_id: RunId, error: &Error) -> Box<Problem> {
    let detail = format!("{run_id}: {error}");
    match error {
        Error::NoEvent { .. } => Problem::new(404, "event_not_found", detail),
        Error::Limit { limit, .. } => Problem::new(422, "limit_exceeded", detail).limit(*limit),
        Error::NoNode(_) | Error::NotBegun(_) => Problem::new(422, "unknown_node", detail),
        Error::NoFork { .. } => Problem::new(409, "not_forkable", detail),
        _ => super::services::unexpected(crate::engine::command::Reply::Refused(Refusal::Unreadable {
            run_id,
            why: error.to_string().into(),
        })),
    }
}
