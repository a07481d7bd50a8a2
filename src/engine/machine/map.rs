//! `map`: a body for each item of a list, at most `max_concurrency` at once; output is the list of their outputs, in
//! order. The items themselves are kept by the fold (`engine::passes`).
//!
//! | phase | input | events | next |
//! | --- | --- | --- | --- |
//! | ready | continue | `node.started`, (`timer.set`,) `node.waiting` with the list | waiting; gathered when it is empty |
//! | ready | continue, no list, or too long | `node.started`, `node.failed` | failed |
//! | running | continue (cut history) | as for ready, without `node.started` | as for ready |
//! | waiting | events of its items | - (theirs) | waiting |
//! | waiting | a pass has nothing open | `node.completed` at the pass, or `node.failed` | waiting |
//! | waiting | an item failed, `collect` or `skip` | - (its place holds the error, or is left out) | waiting |
//! | waiting | an item failed, `fail` | - (the other items are dropped) | gathered |
//! | waiting | the last item is done | - | gathered |
//! | gathered | continue | `node.completed` with the list | completed |
//! | gathered by a failure | continue | `node.failed`, or as `machine::end` says | failed, backoff, ... |
//! | waiting | timer, due | `timer.fired`; the items are dropped | fired |
//! | fired | continue | `node.failed` `timeout`, or as `machine::end` says | failed, backoff, ... |
//! | any other | timer | - (stale) | same |
//! | any | signal | - (for a `wait`, or kept) | same |

use super::{Step, Way, pass};
use crate::engine::check::check;
use crate::engine::env::Surroundings;
use crate::engine::passes;
use crate::engine::scope::Passes;
use crate::ir::Expr;
use crate::limits;
use crate::model::event::Waiting;
use crate::model::{Failure, Value};

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
pub(super) fn finish(passes: &Passes) -> Step {
    pass::failure(passes, |item| format!("item {item}"))
        .unwrap_or_else(|| Step::Done(Value::list(passes::results(passes).cloned().collect()), Way::Plain))
}
