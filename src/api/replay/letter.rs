//! What the record of a run says of work that was given up: its last request, and how it failed.

use super::super::services::{Services, blocking};
use super::{Place, problem, read};
use crate::engine::command::Work;
use crate::limits;
use crate::model::letter::Letter;
use crate::model::{EventBody, Failure, Ticket, Value};
use crate::replay::{self, Bundle, Error};
use crate::wire::problem::Problem;

/// What was asked for, and what came of it.
pub(in crate::api) struct Given {
    /// Attempts that were made.
    pub(in crate::api) attempts: u32,
    /// How the last one failed.
    pub(in crate::api) failure: Option<Failure>,
    /// What it asked for, secrets by their names; null when nothing was under way.
    pub(in crate::api) request: Value,
}

/// Reads it.
///
/// # Errors
/// The record cannot be read.
pub(in crate::api) async fn given_up(services: &Services, letter: &Letter) -> Result<Given, Box<Problem>> {
    let _place = Place::take()?;
    let run_id = letter.id.0.run_id;
    let location = services.locate(run_id).await?;
    let (runs, letter) = (services.runs.clone(), letter.clone());
    blocking(move || {
        let bundle = read(&*runs, &location, letter.id.0.seq, limits::BUNDLE_BYTES_MAX)?;
        given_of(&bundle, &letter).map_err(|error| problem(run_id, &error))
    })
    .await?
}

fn given_of(bundle: &Bundle, letter: &Letter) -> Result<Given, Error> {
    let Ticket { seq, .. } = letter.id.0;
    let (record, _) = bundle.record()?;
    let mut documents = bundle.documents(&record)?;
    let before = replay::state::at(&record, &mut documents, seq.saturating_sub(1))?;
    let under_way = before.dispatches().into_iter().find(|dispatch| dispatch.place == letter.place);
    let request = match under_way.map(|dispatch| dispatch.work) {
        Some(Work::Call { request, .. }) => request,
        Some(Work::Child { inputs, .. }) => inputs,
        Some(Work::Agent(ask)) => ask.request,
        None => Value::Null,
    };
    let event = record.events().find(|event| event.seq == seq);
    let failure = event.and_then(|event| match event.body {
        EventBody::NodeFailed { failure, .. } => Some(failure),
        _ => None,
    });
    Ok(Given { attempts: before.attempts(&letter.place), failure, request })
}
