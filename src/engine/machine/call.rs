//! `http`, `task`, `agent`: work that somebody else does. The machine is the same for all three; what is asked for and who
//! does it differ. (`child` is the fourth of its kind.)
//!
//! | phase | input | events | next |
//! | --- | --- | --- | --- |
//! | ready, first attempt | continue | `node.started`, `node.waiting` with the request | waiting |
//! | ready, later attempt | continue | `node.started`, `node.waiting` without (it is the same) | waiting |
//! | ready | continue, its settings fail | `node.started`, `node.failed` with the code | failed |
//! | running | continue (cut history) | as for ready, without `node.started` | as for ready |
//! | waiting | answer of this attempt | `node.completed` with it | completed |
//! | waiting | failure of this attempt, may be tried again | `node.retry_scheduled` | backoff |
//! | waiting | failure of this attempt | `node.failed`, or its fallback | failed, ... |
//! | waiting | timer, due | `timer.fired`; the attempt is given up | fired |
//! | fired | continue | as for a failure with `timeout` | backoff, failed, ... |
//! | fired | continue, made at most once | `node.uncertain` | uncertain |
//! | waiting | lost in a crash | `node.lost`; the same attempt under a new number | waiting |
//! | waiting | lost in a crash, made at most once | `node.uncertain` | uncertain |
//! | waiting | a worker takes it (`task`) | `node.leased` | waiting |
//! | waiting | another worker wants it, or its lease has run out | - (stale), or as for a failure | same |
//! | uncertain | answer or failure of its attempt | `node.completed`, `node.failed`, or its fallback | completed, failed, ... |
//! | backoff | timer, due | `timer.fired` | ready |
//! | any other | answer, failure, of any attempt | - (stale) | same |
//! | any other | timer | - (stale) | same |
//! | any | signal | - (for a `wait`, or kept) | same |

use std::time::Duration;

use super::At;
use crate::engine::check::check;
use crate::engine::env::Surroundings;
use crate::ir::{Executor, Template};
use crate::limits;
use crate::model::Failure;
use crate::model::event::Waiting;

pub(super) fn step(
    at: At<'_>,
    executor: Executor,
    request: &Template,
    surroundings: &Surroundings<'_>,
) -> Result<Waiting, Failure> {
    let timeout = at.node.timeout.unwrap_or(Duration::from_secs(match executor {
        Executor::Http => limits::HTTP_SECONDS_DEFAULT,
        Executor::Task => limits::TASK_SECONDS_DEFAULT,
        Executor::Agent => limits::AGENT_SECONDS_DEFAULT,
        Executor::Cached => limits::CACHED_SECONDS_MAX,
    }));
    let due = at.now.saturating_add(timeout);
    if at.state.call().is_some() {
        return Ok(Waiting::Call { request: None, due });
    }
    let request = surroundings.fill(request)?;
    check("its request", &request)?;
    Ok(Waiting::Call { request: Some(request), due })
}
