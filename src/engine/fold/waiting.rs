//! `node.waiting`, and what happens to a node while it waits for a signal or a human.

use std::sync::Arc;

use super::misplaced;
use super::node::{astray, change, expect};
use crate::engine::route::{charge, graph_node, node_mut};
use crate::engine::run::Run;
use crate::engine::scope::{Agent, Asked, Call, Callee, Given, Own, Phase, answer_weight, weight_of};
use crate::engine::spend::Taken;
use crate::engine::{Effects, FoldError, Timer, fast, passes};
use crate::ir::{Executor, Kind};
use crate::model::event::{Decision, Review, Waiting};
use crate::model::{EventBody, Place, Value};
use crate::time::Timestamp;

pub(super) fn wait(
    run: &mut Run,
    body: &EventBody,
    (place, waiting, at): (&Place, &Waiting, Timestamp),
    effects: &mut Effects,
) -> Result<(), FoldError> {
    if let Some(begun) = fast::begun(run, place) {
        super::node::fold(run, &begun, at, effects)?;
        run.derived += 1;
    }
    expect(run, body, place, &[Phase::Running])?;
    let wrong = || misplaced(run, body, place, "a node of this kind waits for something else");
    let kind = graph_node(run, place).map(|node| &node.kind).ok_or_else(wrong)?;
    match (waiting, kind) {
        (Waiting::Timer { due }, Kind::Delay { .. }) => wait_until(run, place, Some(*due), effects),
        (Waiting::Signal { name, due }, Kind::Wait { .. }) => {
            if let Some(at) = run.kept.iter().position(|(kept, _)| kept == name)
                && let Some((_, payload)) = run.kept.remove(at)
            {
                run.own_bytes = run.own_bytes.saturating_sub(payload.weight());
                hand(run, place, payload);
                return Ok(());
            }
            run.waiting.entry(name.clone()).or_default().push_back(place.clone());
            wait_until(run, place, *due, effects);
        }
        (Waiting::Items { items: Value::List(list) }, Kind::Map { .. }) => {
            let given = Given::Each(list.clone());
            change(run, place, |node| node.phase = Phase::Waiting);
            passes::begin(run, place, given, false);
        }
        (Waiting::Passes { input }, Kind::Parallel { .. } | Kind::Loop { .. } | Kind::Composite { .. }) => {
            let given = Given::All(input.clone());
            change(run, place, |node| node.phase = Phase::Waiting);
            passes::begin(run, place, given, false);
        }
        (Waiting::Call { request, due }, Kind::Call { executor, .. }) => {
            let to = Callee::Executor(*executor);
            call(run, body, place, (request.as_ref(), to, Some(*due)), effects)?;
        }
        (Waiting::Child { run_id, inputs, due }, Kind::Child { parent_close, .. }) => {
            let to = Callee::Child(*run_id, *parent_close);
            call(run, body, place, (inputs.as_ref(), to, *due), effects)?;
        }
        (Waiting::Review(review), Kind::HumanReview(_)) => {
            charge(&mut run.root, &place.scopes, weight_of(review), 0);
            let due = next_due(review, 0);
            let asked =
                Asked { review: review.clone(), level: 0, seq: run.seq + 1, since: at, decision: None };
            change(run, place, |node| node.own = Some(Box::new(Own::Review(asked))));
            wait_until(run, place, due, effects);
        }
        _ => return Err(wrong()),
    }
    Ok(())
}

fn wait_until(run: &mut Run, place: &Place, due: Option<Timestamp>, effects: &mut Effects) {
    effects.timers.extend(due.map(|due| (due, Timer::Node(place.clone()))));
    change(run, place, |node| {
        node.phase = Phase::Waiting;
        node.due = due;
    });
}

/// An attempt is handed out. Its request is that of the attempt before when none is given.
fn call(
    run: &mut Run,
    body: &EventBody,
    place: &Place,
    (request, to, due): (Option<&Value>, Callee, Option<Timestamp>),
    effects: &mut Effects,
) -> Result<(), FoldError> {
    let before = run.node(place).and_then(|node| node.call());
    let Some(request) = request.or(before.map(|call| &call.request)).cloned() else {
        return Err(misplaced(run, body, place, "there was no attempt before"));
    };
    let less = before.map_or(0, |call| call.request.weight());
    let lost = before.map_or(0, |call| call.lost);
    charge(&mut run.root, &place.scopes, request.weight(), less);
    let call = Call { request, to, seq: run.seq + 1, under_way: true, worker: None, lost };
    change(run, place, |node| match node.agent_mut() {
        // What was said before stands.
        Some(agent) => agent.call = call,
        None if to == Callee::Executor(Executor::Agent) => {
            let (said, bytes) = (Arc::default(), 0);
            let agent = Agent { call, said, bytes, rung: 0, quote: None, earlier: 0 };
            node.own = Some(Box::new(Own::Agent(Box::new(agent))));
        }
        None => node.own = Some(Box::new(Own::Call(call))),
    });
    super::agent::begins_again(run, place);
    run.under_way += 1;
    wait_until(run, place, due, effects);
    effects.dispatches.extend(run.dispatch(place));
    Ok(())
}

/// The attempt under way at `place`.
fn under_way<'r>(run: &'r mut Run, body: &EventBody, place: &Place) -> Result<&'r mut Call, FoldError> {
    let wrong = misplaced(run, body, place, "no attempt of it is under way");
    match node_mut(&mut run.root, place).and_then(|node| node.call_mut()) {
        Some(call) if call.under_way && matches!(call.to, Callee::Executor(_)) => Ok(call),
        _ => Err(wrong),
    }
}

/// The attempt under way was lost and is handed out again.
pub(super) fn lost(
    run: &mut Run,
    body: &EventBody,
    place: &Place,
    effects: &mut Effects,
) -> Result<(), FoldError> {
    let seq = run.seq + 1;
    under_way(run, body, place)?;
    super::agent::settle(run, place, Taken::Unknown);
    let call = under_way(run, body, place)?;
    call.seq = seq;
    call.lost = call.lost.saturating_add(1);
    call.worker = None;
    effects.dispatches.extend(run.dispatch(place));
    Ok(())
}

/// A worker has taken the attempt under way.
pub(super) fn leased(
    run: &mut Run,
    body: &EventBody,
    place: &Place,
    worker: &Arc<str>,
) -> Result<(), FoldError> {
    under_way(run, body, place)?.worker = Some(worker.clone());
    Ok(())
}

/// A signal's payload goes to the node at `place`, whose end is the next thing to decide.
pub(super) fn hand(run: &mut Run, place: &Place, payload: Value) {
    charge(&mut run.root, &place.scopes, payload.weight(), 0);
    change(run, place, |node| {
        node.phase = Phase::Handed;
        node.due = None;
        node.output = payload;
    });
    run.agenda.end_first(place.clone());
}

/// What comes next for a review after `level` escalations.
fn next_due(review: &Review, level: u32) -> Option<Timestamp> {
    let next = review.escalations.get(level as usize).map(|step| step.at);
    match (next, review.due) {
        (Some(next), Some(due)) => Some(next.min(due)),
        (next, due) => next.or(due),
    }
}

pub(super) fn escalated(
    run: &mut Run,
    body: &EventBody,
    (place, level): (&Place, u32),
    effects: &mut Effects,
) -> Result<(), FoldError> {
    let node = expect(run, body, place, &[Phase::Waiting])?;
    let Asked { review, level: before, .. } = node.asked().ok_or_else(|| astray(run, body, place))?;
    if level != before + 1 || level as usize > review.escalations.len() {
        return Err(misplaced(run, body, place, "its escalations are 1, 2, 3, ..."));
    }
    let due = next_due(review, level);
    change(run, place, |node| {
        if let Some(Own::Review(asked)) = node.own.as_deref_mut() {
            asked.level = level;
        }
    });
    wait_until(run, place, due, effects);
    Ok(())
}

pub(super) fn expired(run: &mut Run, body: &EventBody, place: &Place) -> Result<(), FoldError> {
    let node = expect(run, body, place, &[Phase::Waiting])?;
    if node.asked().is_none_or(|asked| asked.review.due.is_none()) {
        return Err(astray(run, body, place));
    }
    change(run, place, |node| {
        node.phase = Phase::Fired;
        node.due = None;
    });
    run.agenda.end_first(place.clone());
    Ok(())
}

pub(super) fn decided(
    run: &mut Run,
    body: &EventBody,
    place: &Place,
    decision: &Decision,
) -> Result<(), FoldError> {
    let node = expect(run, body, place, &[Phase::Waiting])?;
    if node.asked().is_none() {
        return Err(astray(run, body, place));
    }
    charge(&mut run.root, &place.scopes, answer_weight(decision), 0);
    change(run, place, |node| {
        node.phase = Phase::Fired;
        node.due = None;
        if let Some(Own::Review(asked)) = node.own.as_deref_mut() {
            asked.decision = Some(Box::new(decision.clone()));
        }
    });
    run.agenda.end_first(place.clone());
    Ok(())
}
