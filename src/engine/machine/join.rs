//! `join`: brings branches together. When it is ready is its policy's business (`engine::route`); what arrives later is
//! not part of it.
//!
//! | phase | input | events | next |
//! | --- | --- | --- | --- |
//! | ready | continue | `node.started`, `node.completed` with what arrived, merged | completed |
//! | ready | continue, the merge's expression fails | `node.started`, `node.failed` with its code | failed |
//! | ready, too few can arrive | continue | `node.failed` `join_unsatisfiable` | failed |
//! | running | continue (cut history) | as for ready, without `node.started` | completed, failed |
//! | ready or later | an edge settles | - (its verdict stands in its source's event, ignored) | same |
//! | any | timer | - (stale) | same |
//! | any | signal | - (for a `wait`, or kept) | same |

use super::{At, Step, Way, sources};
use crate::engine::env::Surroundings;
use crate::ir::Merge;
use crate::model::Value;

pub(super) fn step(at: At<'_>, merge: &Merge, surroundings: Surroundings<'_>) -> Step {
    match merge {
        Merge::Object => Step::Done(surroundings.input, Way::Plain),
        Merge::Array => {
            let arrived = sources(at).into_iter().map(|(_, output)| output.clone());
            Step::Done(Value::list(arrived.collect()), Way::Plain)
        }
        Merge::Cel(expr) => surroundings.evaluate(expr).into(),
    }
}
