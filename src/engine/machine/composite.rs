//! `composite`: a body as one node, given the node's input. What fails in it fails the node, and is tried again as one.
//!
//! | phase | input | events | next |
//! | --- | --- | --- | --- |
//! | ready | continue | `node.started`, (`timer.set`,) `node.waiting` with the input | waiting |
//! | running | continue (cut history) | as for ready, without `node.started` | waiting |
//! | waiting | its pass has nothing open | `node.completed` at the pass, or `node.failed` | waiting |
//! | waiting | its pass is over | - | gathered |
//! | gathered | continue | `node.completed` with the body's output | completed |
//! | gathered by a failure | continue | `node.failed`, or as `machine::end` says | failed, backoff, ... |
//! | waiting | timer, due | `timer.fired`; the pass is dropped | fired |
//! | fired | continue | `node.failed` `timeout`, or as `machine::end` says | failed, backoff, ... |
//! | any other | timer | - (stale) | same |
//! | any | signal, answer | - (not its own) | same |

use super::Step;
use crate::engine::env::Surroundings;
use crate::model::event::Waiting;

pub(super) fn step(surroundings: Surroundings<'_>) -> Step {
    Step::Wait(Waiting::Passes { input: surroundings.input })
}
