//! `conditional`: takes the first branch that holds; its output is its input.
//!
//! | phase | input | events | next |
//! | --- | --- | --- | --- |
//! | ready | continue, a branch holds | `node.started`, `node.completed`; edges of the branch live | completed |
//! | ready | continue, none holds, a default | the same, by the default | completed |
//! | ready | continue, none holds, no default | `node.started`, `node.failed` `no_branch` | failed |
//! | ready | continue, a branch's `when` fails | `node.started`, `node.failed` with its code | failed |
//! | running | continue (cut history) | as for ready, without `node.started` | completed, failed |
//! | any | timer | - (stale) | same |
//! | any | signal | - (for a `wait`, or kept) | same |

use std::sync::Arc;

use super::{Step, Way};
use crate::engine::env::Surroundings;
use crate::ir::Expr;
use crate::model::Failure;

pub(super) fn step(
    branches: &[(Arc<str>, Expr)],
    default: Option<&Arc<str>>,
    surroundings: Surroundings<'_>,
) -> Step {
    for (name, when) in branches {
        match surroundings.holds(when) {
            Ok(true) => return Step::Done(surroundings.input, Way::Branch(name.clone())),
            Ok(false) => {}
            Err(failure) => {
                let message = format!("branch {name}: {}", failure.message);
                return Step::Failed(Failure { message: message.into(), ..failure }, false);
            }
        }
    }
    match default {
        Some(name) => Step::Done(surroundings.input, Way::Branch(name.clone())),
        None => Step::Failed(Failure::fatal("no_branch", "no branch holds and there is no default"), false),
    }
}
