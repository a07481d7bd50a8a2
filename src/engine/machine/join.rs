//! `join`: brings branches together. When it is ready is its policy's business (`engine::route`).
//!
//! | state | input | event | next |
//! | --- | --- | --- | --- |
//! | ready | continue | `node.started`, `node.completed` with what arrived, merged | completed |
//! | ready, too few can arrive | continue | `node.failed` `join_unsatisfiable` | failed |
//! | completed | a later arrival | - (recorded in the edge's verdict, ignored) | completed |
//! | any | timer, signal | - (stale) | same |

use super::{Step, sources};
use crate::engine::env::Surroundings;
use crate::engine::route::graph_node;
use crate::engine::run::Run;
use crate::ir::Merge;
use crate::model::{Place, Value};

pub(crate) fn step(run: &Run, place: &Place, merge: &Merge, surroundings: &mut Surroundings<'_>) -> Step {
    match merge {
        Merge::Object => Step::Done(surroundings.input.clone(), None),
        Merge::Array => {
            let (Some(node), Some(state)) = (graph_node(run, place), run.node(place)) else {
                return Step::Done(Value::Null, None);
            };
            let arrived = sources(run, place, node, state).map(|(_, output)| output.clone());
            Step::Done(Value::list(arrived.collect()), None)
        }
        Merge::Cel(expr) => surroundings.evaluate(expr).into(),
    }
}
