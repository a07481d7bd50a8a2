//! `function`: a pure value.
//!
//! | phase | input | events | next |
//! | --- | --- | --- | --- |
//! | ready | continue | `node.started`, `node.completed` with the value | completed |
//! | ready | continue, the expression fails | `node.started`, `node.failed` with its code | failed |
//! | running | continue (cut history) | as for ready, without `node.started` | completed, failed |
//! | any | timer | - (stale) | same |
//! | any | signal | - (for a `wait`, or kept) | same |

use super::{Step, Way};
use crate::engine::env::Surroundings;
use crate::ir::Expr;

pub(super) fn step(expr: Option<&Expr>, surroundings: Surroundings<'_>) -> Step {
    match expr {
        Some(expr) => surroundings.evaluate(expr).into(),
        None => Step::Done(surroundings.input, Way::Plain),
    }
}
