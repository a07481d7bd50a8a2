//! `map`: a body for each item of a list, at most `max_concurrency` at once; output is the list of their outputs, in
//! order. The items themselves are kept by the fold (`engine::items`).
//!
//! | phase | input | events | next |
//! | --- | --- | --- | --- |
//! | ready | continue | `node.started`, `node.waiting` with the list | waiting; gathered when it is empty |
//! | ready | continue, no list, or too long | `node.started`, `node.failed` | failed |
//! | running | continue (cut history) | as for ready, without `node.started` | as for ready |
//! | waiting | events of its items | - (theirs) | waiting |
//! | waiting | a pass has nothing open | `node.completed` at the pass, or `node.failed` | waiting |
//! | waiting | an item failed, `collect` or `skip` | - (its place holds the error, or is left out) | waiting |
//! | waiting | an item failed, `fail` | - (the other items are dropped) | gathered |
//! | waiting | the last item is done | - | gathered |
//! | gathered | continue | `node.completed` with the list | completed |
//! | gathered by a failure | continue | `node.failed` with the item's failure | failed |
//! | any | timer | - (stale) | same |
//! | any | signal | - (for a `wait`, or kept) | same |

use super::{Step, unjudged};
use crate::engine::Outcome;
use crate::engine::check::check;
use crate::engine::env::Surroundings;
use crate::engine::run::{Node, Phase, Run};
use crate::ir::Expr;
use crate::limits;
use crate::model::event::{Verdicts, Waiting};
use crate::model::{EventBody, Failure, Place, Value};

pub(super) fn step(over: &Expr, surroundings: &Surroundings<'_>) -> Step {
    let failure = match surroundings.evaluate(over) {
        Ok(Value::List(items)) if items.len() > limits::MAP_ITEMS_MAX => {
            let most = limits::MAP_ITEMS_MAX;
            let message = format!("{} items; at most {most} are allowed (limit map_items_max)", items.len());
            Failure::fatal("map_items_max", message)
        }
        Ok(items @ Value::List(_)) => match check("its list", &items) {
            Ok(()) => return Step::Wait(Waiting::Items { items }),
            Err(failure) => failure,
        },
        Ok(other) => {
            let message = format!("`over` gave {}, a list is expected", other.type_name());
            Failure::fatal("expression_type", message)
        }
        Err(failure) => failure,
    };
    Step::Failed(failure, false)
}

/// All items are done, or one has failed for all.
pub(super) fn finish(state: &Node) -> Step {
    let Some(items) = &state.items else { return Step::Done(Value::Null, None) };
    match &items.failure {
        Some((index, failure)) => {
            let message = format!("item {index}: {}", failure.message);
            Step::Failed(Failure { message: message.into(), ..failure.clone() }, false)
        }
        None => Step::Done(Value::list(items.results.iter().flatten().cloned().collect()), None),
    }
}

/// A pass is over. Its output is the body's template, its only last node's, or an object of its last nodes'.
pub(super) fn finish_pass(run: &Run, pass: &Place, out: &mut Outcome) {
    let output = match unjudged(run, pass) {
        Some((failure, _)) => Err(failure),
        None => pass_output(run, pass).and_then(|output| check("its output", &output).map(|()| output)),
    };
    let (place, edges) = (pass.clone(), Verdicts::new());
    out.push(match output {
        Ok(output) => EventBody::NodeCompleted { place, output, edges },
        Err(failure) => EventBody::NodeFailed { place, failure, edges, continued: false },
    });
}

fn pass_output(run: &Run, pass: &Place) -> Result<Value, Failure> {
    let (Some(scope), Some(graph)) = (run.scope(pass), run.graph_of(pass)) else { return Ok(Value::Null) };
    if let Some(template) = &graph.output {
        return Surroundings::new(run, pass).fill(template);
    }
    let mut last = graph.nodes.iter().zip(&scope.nodes).filter(|(node, _)| node.outgoing.is_empty());
    Ok(match (last.next(), last.next()) {
        (Some((_, only)), None) => only.output.clone(),
        _ => last_outputs(run, pass),
    })
}

/// Outputs of the nodes of a scope that nothing follows, by id; those that did not complete are left out.
pub(super) fn last_outputs(run: &Run, place: &Place) -> Value {
    let (Some(scope), Some(graph)) = (run.scope(place), run.graph_of(place)) else { return Value::Null };
    let last = graph.nodes.iter().zip(&scope.nodes);
    let last = last.filter(|(node, state)| node.outgoing.is_empty() && state.phase == Phase::Completed);
    Value::map(last.map(|(node, state)| (node.id.clone(), state.output.clone())))
}
