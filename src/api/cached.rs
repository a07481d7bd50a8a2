//! Answers kept for nodes that fall back on them, and the calls of such fallbacks: both done at once, in memory.

use std::rc::Rc;

use super::errands::{is_call, tell};
use super::services::Services;
use crate::engine::command::{Dispatch, Errand, Executor, Keep, Settle, Work};
use crate::exec::Answer;
use crate::time::Clock as _;

/// Does what is about kept answers; gives back all else.
pub(super) fn at_once(services: &Rc<Services>, errand: Errand) -> Option<Errand> {
    let now_us = services.clock.monotonic_us();
    let cached = &services.executors.cached;
    match errand {
        Errand::Keep { run_id, keep } => {
            let Keep { workflow, node, request, output } = &*keep;
            cached.keep(run_id, Answer { workflow, node, request, output }, now_us);
            None
        }
        Errand::Dispatch { run_id, dispatch, .. } if is_call(&dispatch, Executor::Cached) => {
            let Dispatch { place, seq, work, workflow, .. } = dispatch;
            let Work::Call { request, .. } = work else { return None };
            let result = cached.find(&workflow, &request, now_us);
            let services = services.clone();
            crate::io::spawn_local(async move {
                tell(&services, Settle { run_id, place, seq, result }).await;
            });
            None
        }
        other => Some(other),
    }
}
