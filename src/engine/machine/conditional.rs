//! `conditional`: takes the first branch that holds; its output is its input.
//!
//! | state | input | event | next |
//! | --- | --- | --- | --- |
//! | ready | continue, a branch holds | `node.started`, `node.completed`; edges of the branch live | completed |
//! | ready | continue, none holds, a default | the same, by the default | completed |
//! | ready | continue, none holds, no default | `node.started`, `node.failed` `no_branch` | failed |
//! | ready | continue, a `when` fails | `node.started`, `node.failed` with its code | failed |
//! | any | timer, signal | - (stale) | same |

use std::sync::Arc;

use super::Step;
use crate::engine::env::Surroundings;
use crate::ir::Expr;
use crate::model::Failure;

pub(crate) fn step(
    branches: &[(Arc<str>, Expr)],
    default: Option<&Arc<str>>,
    surroundings: &Surroundings<'_>,
) -> Step {
    for (name, when) in branches {
        match surroundings.holds(when) {
            Ok(true) => return Step::Done(surroundings.input.clone(), Some(name.clone())),
            Ok(false) => {}
            Err(failure) => return Step::Failed(failure, false),
        }
    }
    match default {
        Some(name) => Step::Done(surroundings.input.clone(), Some(name.clone())),
        None => Step::Failed(Failure::fatal("no_branch", "no branch holds and there is no default"), false),
    }
}
