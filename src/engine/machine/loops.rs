//! `loop`: a body again and again while a condition holds, one pass at a time. The first pass is given the node's input,
//! each later one the output of the pass before; output is that of the last pass, null without any.
//!
//! | phase | input | events | next |
//! | --- | --- | --- | --- |
//! | ready | continue, the condition holds | `node.started`, (`timer.set`,) `node.waiting` with the input | waiting |
//! | ready | continue, it does not | `node.started`, `node.completed` with null | completed |
//! | ready | continue, it fails | `node.started`, `node.failed` with its code | failed |
//! | running | continue (cut history) | as for ready, without `node.started` | as for ready |
//! | waiting | its pass has nothing open | `node.completed` at the pass, or `node.failed` | waiting |
//! | waiting | its pass is over | - | gathered |
//! | gathered | continue, the condition holds | `node.progress` with the iteration | waiting |
//! | gathered | continue, it does not | `node.completed` with the last output | completed |
//! | gathered | continue, it holds, `max_iterations` are over | `node.failed` `loop_exhausted`, or `node.completed` | failed, completed |
//! | gathered | continue, it fails | `node.failed` with its code | failed |
//! | gathered by a failure | continue | `node.failed`, or as `machine::end` says | failed, backoff, ... |
//! | waiting, gathered | timer, due | `timer.fired`; the pass is dropped | fired |
//! | fired | continue | `node.failed` `timeout`, or as `machine::end` says | failed, backoff, ... |
//! | any other | timer | - (stale) | same |
//! | any | signal, answer | - (not its own) | same |

use super::{At, Step, Way, pass};
use crate::engine::env::Surroundings;
use crate::engine::scope::{Given, Passes};
use crate::ir::{Expr, OnExhausted};
use crate::model::event::Waiting;
use crate::model::{Failure, Value};

pub(super) fn step(condition: &Expr, mut surroundings: Surroundings<'_>) -> Step {
    surroundings.next_iteration = Some(0);
    surroundings.edge_output = Some(Value::Null);
    match surroundings.holds(condition) {
        Ok(true) => Step::Wait(Waiting::Passes { input: surroundings.input }),
        Ok(false) => Step::Done(Value::Null, Way::Plain),
        Err(failure) => Step::Failed(failure, false),
    }
}

/// A pass is over: is there another?
pub(super) fn next(
    at: At<'_>,
    passes: &Passes,
    condition: &Expr,
    (max_iterations, on_exhausted): (u32, OnExhausted),
) -> Step {
    if let Some(failed) = pass::failure(passes, |iteration| format!("iteration {iteration}")) {
        return failed;
    }
    let last = passes.results.first().and_then(Option::clone).unwrap_or_default();
    let mut surroundings = Surroundings::new(at.run, at.place);
    surroundings.next_iteration = Some(passes.next);
    surroundings.edge_output = Some(last.clone());
    surroundings.input = match (passes.results.first(), &passes.given) {
        (Some(Some(_)), _) | (_, Given::Each(_)) => last.clone(),
        (_, Given::All(given)) => given.clone(),
    };
    match (surroundings.holds(condition), on_exhausted) {
        (Err(failure), _) => Step::Failed(failure, false),
        (Ok(true), _) if passes.next < max_iterations => Step::Again(passes.next),
        (Ok(true), OnExhausted::Fail) => {
            let message =
                format!("its condition still holds after {} iterations (max_iterations)", passes.next);
            Step::Failed(Failure::fatal("loop_exhausted", message), false)
        }
        (Ok(_), _) => Step::Done(last, Way::Plain),
    }
}
