//! `parallel`: several bodies side by side, each given the node's input; output is an object by branch, or
//! `{parallel_results: [...]}` in the steps spelling. Its passes are kept by the fold (`engine::passes`).
//!
//! | phase | input | events | next |
//! | --- | --- | --- | --- |
//! | ready | continue | `node.started`, (`timer.set`,) `node.waiting` with the input | waiting |
//! | running | continue (cut history) | as for ready, without `node.started` | waiting |
//! | waiting | a branch has nothing open | `node.completed` at the pass, or `node.failed` | waiting |
//! | waiting | a branch failed | - (the others are dropped) | gathered |
//! | waiting | the last branch is done | - | gathered |
//! | gathered | continue | `node.completed` with the object | completed |
//! | gathered by a failure | continue | `node.failed`, or as `machine::end` says | failed, backoff, ... |
//! | waiting | timer, due | `timer.fired`; the branches are dropped | fired |
//! | fired | continue | `node.failed` `timeout`, or as `machine::end` says | failed, backoff, ... |
//! | any other | timer | - (stale) | same |
//! | any | signal, answer | - (not its own) | same |

use std::sync::Arc;

use super::{Step, Way, pass};
use crate::engine::env::Surroundings;
use crate::engine::passes;
use crate::engine::scope::Passes;
use crate::model::Value;
use crate::model::event::Waiting;

pub(super) fn step(surroundings: Surroundings<'_>) -> Step {
    Step::Wait(Waiting::Passes { input: surroundings.input })
}

/// All branches are done, or one has failed for all.
pub(super) fn finish(passes: &Passes, branches: &[(Arc<str>, u32)], results: bool) -> Step {
    let name = |pass: u32| branches.get(pass as usize).map_or("?", |(name, _)| name);
    if let Some(failed) = pass::failure(passes, |pass| format!("branch {}", name(pass))) {
        return failed;
    }
    let output = if results {
        Value::map([("parallel_results", Value::list(passes::results(passes).cloned().collect()))])
    } else {
        let names = branches.iter().map(|(name, _)| name.clone());
        Value::map(names.zip(passes::results(passes).cloned()))
    };
    Step::Done(output, Way::Plain)
}
