//! `composite` with `workflow`: another workflow as a run of its own, with an id drawn for the attempt, so that starting it
//! twice starts it once. The table is that of `machine::call`; the answer is the child's outputs, its failure the child's.

use super::At;
use crate::engine::check::check;
use crate::engine::env::Surroundings;
use crate::engine::retry;
use crate::model::Failure;
use crate::model::event::Waiting;

pub(super) fn step(at: At<'_>, surroundings: Surroundings<'_>) -> Result<Waiting, Failure> {
    let run_id = retry::child(at.run.id(), at.run.started.seed, at.place, at.next_seq(), at.now);
    let due = at.node.timeout.map(|timeout| at.now.saturating_add(timeout));
    if at.state.call().is_some() {
        return Ok(Waiting::Child { run_id, inputs: None, due });
    }
    check("the child's inputs", &surroundings.input)?;
    Ok(Waiting::Child { run_id, inputs: Some(surroundings.input), due })
}
