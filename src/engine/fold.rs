//! The fold: one event in, the state after it out. Evaluates nothing; refuses what could not have happened, and then
//! changes nothing.
//!
//! | event of the run | when | then |
//! | --- | --- | --- |
//! | `run.linked` | directly after `run.started` | it is a child |
//! | `run.keyed` | directly after `run.started` | it has a business key |
//! | `run.layered` | the last before `run.waiting` and anything that starts | its document has patches of its workflow |
//! | `mode.changed` | before `run.waiting` and anything that starts | full, fast |
//! | `events.derived` | - (`fast::replay`: what it stands for is decided again) | |
//! | `run.waiting` | before anything but `run.linked` and `run.keyed` | pending |
//! | `run.admitted` | pending, not being cancelled | running |
//! | `run.paused` | pending or running, not being cancelled | paused |
//! | `run.resumed` | paused, not being cancelled | running; pending when it was not admitted yet |
//! | `run.cancel_requested` | not asked for yet | nothing starts; attempts under way are told |
//! | `run.cancelled` | asked for | cancelled |
//! | `run.completed` | nothing open, its end not decided, neither paused nor waiting to be admitted | completed |
//! | `run.failed` | any time | failed |
//! | `signal.received` | for who has waited longest, else to be kept | handed, kept |
//! | `run.forked` | its end is not decided, no child is under way (`fork`) | its own; pending when it was admitted |
//! | `node.redriven` | directly after `run.forked` | a call begins again with attempt 1 |
//! | `patch.created`, `patch.revoked` | any time | the graph is about to change |
//! | `patch.held`, `patch.decided` | not waiting yet; waiting | it waits for a human; it waits no more |
//! | `patch.rejected` | any time | nothing |
//! | `request.remembered` | behind what was done, its key not remembered, with room (`keys`) | it is answered from here |
//! | `budget.warned`, `budget.raised` | any time | it was told; it has more |
//! | `patch.applied` | - (`patch::apply`: it needs the new graph) | |
//! | anything else | it is about a node of a run that was admitted: `fold::node` | |

mod agent;
mod node;
mod waiting;

use std::sync::Arc;
use std::time::Duration;

use super::admission;
use super::calls;
use super::fork;
use super::keys;
use super::patch;
use super::route::freshen;
use super::run::{Cancel, Run};
use super::spend::Taken;
use super::{Effects, FoldError, Timer};
use crate::limits;
use crate::model::event::Parent;
use crate::model::patch::Change;
use crate::model::{EventBody, Place, Status, Value};
use crate::time::Timestamp;

/// Folds one event; what it asks of the world is appended to `effects`.
pub(super) fn fold(
    run: &mut Run,
    body: &EventBody,
    at: Timestamp,
    effects: &mut Effects,
) -> Result<(), FoldError> {
    if run.status.is_terminal() {
        return Err(FoldError::Ended { event: body.type_name() });
    }
    match body {
        EventBody::RunStarted(_) => return Err(unfit(body, "a run starts once")),
        EventBody::RunLinked { parent } => linked(run, body, parent)?,
        EventBody::RunKeyed { run_key, .. } if run.seq == 1 => run.run_key = Some(run_key.clone()),
        EventBody::RunLayered(layered) if run.layered.is_none() && run.seq == admission::first(run) => {
            run.layered = Some(layered.clone());
        }
        EventBody::RunLayered(_) => return Err(unfit(body, "it comes before anything that starts")),
        EventBody::RunKeyed { .. } => return Err(unfit(body, "it comes directly after run.started")),
        EventBody::ModeChanged { mode } if run.seq == admission::first(run) && *mode != run.mode => {
            (run.mode, run.mode_given) = (*mode, true);
        }
        EventBody::ModeChanged { .. } => return Err(unfit(body, "it comes before anything starts, once")),
        EventBody::EventsDerived { .. } => return Err(unfit(body, "it is not folded but decided again")),
        EventBody::RunWaiting(wanted) => admission::waits(run, body, wanted, effects)?,
        EventBody::RunAdmitted => admission::admitted(run, body, effects)?,
        EventBody::RunPaused { .. } if !run.is_paused() && run.cancel.is_none() => pause(run, effects),
        EventBody::RunPaused { .. } => return Err(unfit(body, "it is paused or being cancelled already")),
        EventBody::RunResumed if run.is_paused() && run.cancel.is_none() => resume(run, effects),
        EventBody::RunResumed => return Err(unfit(body, "it is not paused, or is being cancelled")),
        EventBody::RunCancelRequested { reason } if run.cancel.is_none() => {
            cancel(run, reason.clone(), at, effects);
        }
        EventBody::RunCancelRequested { .. } => return Err(unfit(body, "it was asked for already")),
        EventBody::RunCompleted { outputs } if may_complete(run) => {
            run.outputs = Some(outputs.clone());
            end(run, Status::Completed, at, effects);
        }
        EventBody::RunCompleted { .. } => {
            return Err(unfit(body, "nodes are ready or under way, or its end is decided, or it is paused"));
        }
        EventBody::RunFailed { failure, place } => {
            run.failure = Some(failure.clone());
            run.failed_at.clone_from(place);
            end(run, Status::Failed, at, effects);
        }
        EventBody::RunCancelled { .. } if run.cancel.is_some() => end(run, Status::Cancelled, at, effects),
        EventBody::RunCancelled { .. } => return Err(unfit(body, "nobody asked for it")),
        EventBody::SignalReceived { name, payload, waiter } => {
            signalled(run, body, (name, payload), waiter.as_ref())?;
        }
        EventBody::PatchCreated(proposal) => propose(run, Change::Patch(proposal.clone())),
        EventBody::PatchRevoked(revocation) => propose(run, Change::Revoked(revocation.clone())),
        EventBody::PatchHeld(_) | EventBody::PatchDecided(_) => patch::waits(run, body)?,
        EventBody::PatchRejected(_) => run.rejections = run.rejections.saturating_add(1),
        EventBody::PatchApplied(_) => return Err(unfit(body, "it is folded together with its graph")),
        EventBody::RequestRemembered(request) => keys::remember(run, body, request, at)?,
        EventBody::BudgetWarned { .. } => run.spend.warned(),
        EventBody::BudgetRaised { usd, tokens, .. } => run.spend.raise(*usd, *tokens),
        EventBody::RunForked(forked) => return fork::forked(run, body, forked, at, effects),
        EventBody::NodeRedriven { place } => fork::redriven(run, body, place, effects)?,
        _ if run.is_outside() => return Err(unfit(body, "nothing starts before the run is admitted")),
        _ => node::fold(run, body, at, effects)?,
    }
    settle_down(run);
    Ok(())
}

fn pause(run: &mut Run, effects: &mut Effects) {
    if run.is_outside() {
        admission::release(run, effects);
    }
    run.status = Status::Paused;
}

fn resume(run: &mut Run, effects: &mut Effects) {
    run.spend.resume();
    run.status = run.status_resumed();
    if run.is_outside() {
        admission::claim(run, effects);
    } else {
        effects.dispatches.extend(run.untaken());
    }
}

/// What `patch.applied`, which comes next, is about.
fn propose(run: &mut Run, change: Change) {
    run.own_bytes = run.own_bytes.saturating_add(change.operations().weight());
    run.proposed = Some((run.seq + 1, change));
}

fn may_complete(run: &Run) -> bool {
    run.is_drained() && !run.is_ending() && !run.is_paused() && !run.is_outside()
}

/// What follows every event.
pub(super) fn settle_down(run: &mut Run) {
    freshen(run);
    run.seq += 1;
}

fn linked(run: &mut Run, body: &EventBody, parent: &Parent) -> Result<(), FoldError> {
    if run.seq != 1 {
        return Err(unfit(body, "it comes directly after run.started"));
    }
    run.parent = Some(parent.clone());
    Ok(())
}

fn cancel(run: &mut Run, reason: Arc<str>, at: Timestamp, effects: &mut Effects) {
    calls::tell_all(run, effects);
    let until = at.saturating_add(Duration::from_secs(limits::CANCEL_GRACE_SECONDS_MAX));
    if run.under_way > 0 {
        effects.timers.push((until, Timer::Grace));
    }
    run.cancel = Some(Cancel { reason, until });
}

fn end(run: &mut Run, status: Status, at: Timestamp, effects: &mut Effects) {
    if run.cancel.is_none() {
        calls::tell_all(run, effects);
    }
    admission::release(run, effects);
    calls::write_off(run);
    run.under_way = 0;
    run.status = status;
    run.ended_at = Some(at);
    run.agenda.clear();
    run.waiting.clear();
    run.kept.clear();
}

/// Nobody knows what the call under way at `place` takes.
pub(super) fn lost(run: &mut Run, place: &Place) {
    agent::settle(run, place, Taken::Unknown);
}

pub(super) fn unfit(body: &EventBody, problem: &'static str) -> FoldError {
    FoldError::Unfit { event: body.type_name(), problem }
}

pub(super) fn misplaced(run: &Run, body: &EventBody, place: &Place, problem: &'static str) -> FoldError {
    FoldError::Misplaced { event: body.type_name(), place: run.ir.path(place), problem }
}

fn signalled(
    run: &mut Run,
    body: &EventBody,
    (name, payload): (&Arc<str>, &Value),
    waiter: Option<&Place>,
) -> Result<(), FoldError> {
    if run.waiter(name) != waiter {
        return Err(unfit(body, "it goes to the node that has waited longest, and is kept when none waits"));
    }
    let Some(place) = waiter else {
        run.waiting.remove(name);
        run.own_bytes = run.own_bytes.saturating_add(payload.weight());
        run.kept.push_back((name.clone(), payload.clone()));
        return Ok(());
    };
    // Those before it wait no more: their time ran out, or their passes have ended.
    if let Some(places) = run.waiting.get_mut(name) {
        while places.pop_front().is_some_and(|other| other != *place) {}
        if places.is_empty() {
            run.waiting.remove(name);
        }
    }
    waiting::hand(run, place, payload.clone());
    Ok(())
}
