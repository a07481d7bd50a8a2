//! `map`: a body for each item of a list, at most `max_concurrency` at once; output is the list of their outputs, in order.
//!
//! | state | input | event | next |
//! | --- | --- | --- | --- |
//! | ready | continue | `node.started`, `node.waiting` with the list | waiting |
//! | ready | continue, no list, or too long | `node.started`, `node.failed` | failed |
//! | waiting, items under way | continue | events of the items | waiting |
//! | waiting, a pass has nothing open | continue | `node.completed` at the pass with its output | waiting |
//! | waiting, an item failed, `fail` | continue | `node.failed` with the item's failure | failed |
//! | waiting, an item failed, `collect` or `skip` | continue | - (its place holds the error, or is left out) | waiting |
//! | waiting, all items done | continue | `node.completed` with the list | completed |
//! | any | timer, signal | - (stale) | same |

use std::sync::Arc;

use super::{Step, end, last_outputs};
use crate::engine::Outcome;
use crate::engine::env::Surroundings;
use crate::engine::run::{Phase, Run};
use crate::ir::{self, Expr};
use crate::limits;
use crate::model::event::{Verdicts, Waiting};
use crate::model::{EventBody, Failure, Place, Value};

pub(crate) fn step(over: &Expr, surroundings: &Surroundings<'_>) -> Step {
    match surroundings.evaluate(over) {
        Ok(Value::List(items)) if items.len() <= limits::MAP_ITEMS_MAX => {
            Step::Wait(Waiting::Items { items: Value::List(items) })
        }
        Ok(Value::List(items)) => {
            let message =
                format!("{} items; at most {} are allowed (limit map_items_max)", items.len(), limits::MAP_ITEMS_MAX);
            Step::Failed(Failure::fatal("map_items_max", message), false)
        }
        Ok(other) => {
            let message = format!("`over` gave {}, a list is expected", other.type_name());
            Step::Failed(Failure::fatal("expression_type", message), false)
        }
        Err(failure) => Step::Failed(failure, false),
    }
}

/// All items are done, or one has failed for all.
pub(crate) fn finish(run: &Run, place: &Place, _node: &ir::Node, out: &mut Outcome) {
    let Some(items) = run.node(place).and_then(|node| node.items.as_ref()) else { return };
    let step = match &items.failure {
        Some((index, failure)) => {
            let message: Arc<str> = format!("item {index}: {}", failure.message).into();
            Step::Failed(Failure { message, ..failure.clone() }, false)
        }
        None => Step::Done(Value::list(items.results.iter().flatten().cloned().collect()), None),
    };
    end(run, place, step, out);
}

/// Nothing is open in a pass: its output is the body's template, its only last node's, or an object of its last nodes'.
pub(crate) fn finish_pass(run: &Run, pass: &Place, out: &mut Outcome) {
    let Some(scope) = run.scope(pass) else { return };
    let Some(graph) = run.ir.scopes.get(scope.graph as usize) else { return };
    let last = || graph.nodes.iter().zip(&scope.nodes).filter(|(node, _)| node.outgoing.is_empty());
    let output = match &graph.output {
        Some(template) => Surroundings::new(run, pass).fill(template),
        None if last().count() == 1 => {
            let done = last().find(|(_, state)| state.phase == Phase::Completed);
            Ok(done.map_or(Value::Null, |(_, state)| state.output.clone()))
        }
        None => Ok(last_outputs(run, pass)),
    };
    let (place, edges) = (pass.clone(), Verdicts::new());
    out.push(match output {
        Ok(output) => EventBody::NodeCompleted { place, output, edges },
        Err(failure) => EventBody::NodeFailed { place, failure, edges, continued: false },
    });
}
