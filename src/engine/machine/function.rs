//! `function`: a pure value.
//!
//! | state | input | event | next |
//! | --- | --- | --- | --- |
//! | ready | continue | `node.started`, `node.completed` with the value | completed |
//! | ready | continue, the expression fails | `node.started`, `node.failed` with its code | failed |
//! | any | timer, signal | - (stale) | same |

use super::Step;
use crate::engine::env::Surroundings;
use crate::ir::Expr;

pub(crate) fn step(expr: Option<&Expr>, surroundings: &Surroundings<'_>) -> Step {
    match expr {
        Some(expr) => surroundings.evaluate(expr).into(),
        None => Step::Done(surroundings.input.clone(), None),
    }
}
