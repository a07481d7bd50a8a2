//! `run.forked`: a run goes on where another one was. Everything before the event is the other run's history, word for word;
//! with it the state becomes this run's own.
//!
//! | what the other run had | then |
//! | --- | --- |
//! | nodes that settled, values, signals kept, patches | stay |
//! | timers, reviews | keep their due times |
//! | attempts under way | are made again, with the time that they had left; what was reserved for a model is free |
//! | work that was given up next, when it is redriven (`node.redriven`) | begins again with attempt 1 |
//! | a deadline | is as far from the fork as it was from the start |
//! | inputs | stay, unless others are given |
//! | a parent, a business key, calls back of children, requests it remembers by their keys | are not this run's |
//! | a place in the line to be admitted, or a slot | is asked for anew; until then nothing of it goes on, and attempts under way begin again with it |

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::fold::{settle_down, unfit};
use super::route::{charge, graph_node, node_mut};
use super::run::Run;
use super::scope::Phase;
use super::{Effects, FoldError, Outcome, Work, admission, agenda};
use crate::model::event::Forked;
use crate::model::{EventBody, Place, RunId, Seq, Status};
use crate::time::Timestamp;

/// Where a run came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The other run.
    pub run_id: RunId,
    /// Its event after which this one goes on.
    pub seq: Seq,
    /// It was made to do that run's work again.
    pub replay: bool,
}

impl Run {
    /// Where it was forked from.
    pub fn origin(&self) -> Option<Origin> {
        self.origin
    }

    /// May another run go on from here?
    ///
    /// # Errors
    /// What stands against it, in words.
    pub fn may_fork(&self) -> Result<(), &'static str> {
        if self.status.is_terminal() {
            return Err("the run is over there; choose an earlier event");
        }
        if self.cancel.is_some() || self.is_ending() {
            return Err("its end is decided there; choose an earlier event");
        }
        if self.proposed().is_some() {
            return Err("its graph is about to change there; choose the next event");
        }
        let child = |dispatch: &super::Dispatch| matches!(dispatch.work, Work::Child { .. });
        if self.dispatches().iter().any(child) {
            return Err(
                "child runs are under way there, and they are its own; choose an event before or after them",
            );
        }
        Ok(())
    }

    /// Has a call at `place` been made, or is about to be said to have failed, so that it can be made again?
    pub fn may_redrive(&self, place: &Place) -> bool {
        self.node(place).is_some_and(|node| match node.phase {
            Phase::Waiting => node.call_under_way().is_some(),
            Phase::Ready => node.call().is_some(),
            Phase::Fired | Phase::Uncertain | Phase::Gathered => node.call().is_some(),
            _ => false,
        })
    }

    /// Attempts of the node at `place` so far; those lost with the node that made them are not counted.
    pub fn attempts(&self, place: &Place) -> u32 {
        self.node(place).map_or(0, |node| node.attempts)
    }

    /// The node that asks a human since event `seq`, and its attempt.
    pub fn review_at(&self, seq: Seq) -> Option<(Place, u32)> {
        let mut found = None;
        self.root.walk(&mut SmallVec::new(), &mut |scopes, node, state| {
            if state.open_review().is_some_and(|asked| asked.seq == seq) {
                found = Some((Place { scopes: scopes.clone(), node }, state.attempts));
            }
            found.is_none()
        });
        found
    }

    /// When a fork made now fails by itself: as long after its beginning as this run.
    pub fn deadline_of_fork(&self, now: Timestamp) -> Option<Timestamp> {
        self.started.deadline.map(|deadline| now.saturating_add(self.started_at.until(deadline)))
    }
}

/// Folds `run.forked`; what it asks of the world is left in `out`.
///
/// # Errors
/// No run can go on from there.
pub fn fork(run: &mut Run, body: &EventBody, at: Timestamp, out: &mut Outcome) -> Result<(), FoldError> {
    super::fold::fold(run, body, at, &mut out.effects)
}

pub(super) fn forked(
    run: &mut Run,
    body: &EventBody,
    forked: &Forked,
    at: Timestamp,
    effects: &mut Effects,
) -> Result<(), FoldError> {
    run.may_fork().map_err(|why| unfit(body, why))?;
    if forked.seq != run.seq {
        return Err(unfit(body, "it comes directly after the event that it names"));
    }
    // What has not asked to be admitted yet does so next.
    let begins = run.seq <= admission::first(run);
    (run.parent, run.run_key) = (None, None);
    run.recalled.clear();
    run.keys.clear();
    run.spend.forked();
    run.origin = Some(Origin { run_id: forked.run_id, seq: forked.seq, replay: forked.replay });
    run.asks_at = begins.then_some(run.seq + 1);
    run.started_at = at;
    run.started.deadline = forked.deadline;
    run.started.epoch = forked.epoch;
    run.started.idempotency.clone_from(&forked.idempotency);
    if let Some(inputs) = &forked.inputs {
        let (less, more) = (run.started.inputs.weight(), inputs.weight());
        run.own_bytes = run.own_bytes.saturating_sub(less).saturating_add(more);
        run.started.inputs = inputs.clone();
    }
    again(run, forked.since, at);
    stand_in_line(run);
    if run.turn.is_some() && run.status == Status::Pending {
        admission::claim(run, effects);
    }
    effects.timers.extend(run.timers());
    // Of a paused run too, as after a restart: no worker is given any of it before it goes on.
    effects.dispatches.extend(run.dispatches());
    settle_down(run);
    Ok(())
}

/// Attempts under way are nobody's, and have the time left that they had then.
fn again(run: &mut Run, since: Timestamp, at: Timestamp) {
    let mut places = Vec::new();
    run.root.walk(&mut SmallVec::new(), &mut |scopes, node, state| {
        if state.call_under_way().is_some() {
            places.push(Place { scopes: scopes.clone(), node });
        }
        true
    });
    let later = since.until(at);
    for place in places {
        if let Some(node) = node_mut(&mut run.root, &place) {
            node.due = node.due.map(|due| due.saturating_add(later));
            node.free();
            // The other run pays for its call, this one reserves its own.
            if let Some(agent) = node.agent_mut() {
                agent.quote = None;
            }
        }
    }
}

/// The other run's slot is not this one's: what was admitted waits for one of its own, and hands nothing out before. Its keys are
/// evaluated anew, for it may have other inputs; in a pause those that it had count.
fn stand_in_line(run: &mut Run) {
    let Some(turn) = run.turn.as_mut().filter(|turn| turn.admitted) else { return };
    turn.admitted = false;
    if run.status == Status::Running && run.ir.admission.is_some() {
        (run.turn, run.asks_at) = (None, Some(run.seq + 1));
    } else if run.status == Status::Running {
        run.status = Status::Pending;
    }
    let mut under_way = Vec::new();
    run.root.walk(&mut SmallVec::new(), &mut |scopes, node, state| {
        if state.call_under_way().is_some() {
            under_way.push((Place { scopes: scopes.clone(), node }, state.attempts.saturating_sub(1)));
        }
        true
    });
    under_way.iter().for_each(|(place, attempts)| put_back(run, place, *attempts));
}

/// Folds `node.redriven`.
pub(super) fn redriven(
    run: &mut Run,
    body: &EventBody,
    place: &Place,
    effects: &mut Effects,
) -> Result<(), FoldError> {
    if run.origin.is_none_or(|origin| run.seq != origin.seq + 1) {
        return Err(unfit(body, "it comes directly after run.forked"));
    }
    if !run.may_redrive(place) {
        return Err(unfit(body, "no attempt of it has been made that could be made again"));
    }
    // An agent whose last answer was no good has nothing to go on with: it is asked anew.
    let mut less = 0;
    if let Some(node) = node_mut(&mut run.root, place).filter(|node| node.phase == Phase::Gathered) {
        less = node.own.take().map_or(0, |own| own.weight());
    }
    charge(&mut run.root, &place.scopes, 0, less);
    put_back(run, place, 0);
    run.asks_at = run.asks_at.filter(|seq| *seq == run.seq).map(|seq| seq + 1);
    effects.dispatches.retain(|dispatch| dispatch.place != *place);
    Ok(())
}

/// The node at `place` is ready once more, after so many attempts; nobody makes one.
fn put_back(run: &mut Run, place: &Place, attempts: u32) {
    let Some(node) = node_mut(&mut run.root, place) else { return };
    if let Some(call) = node.call_mut() {
        run.under_way = run.under_way.saturating_sub(u32::from(call.under_way));
        (call.under_way, call.lost) = (false, 0);
    }
    (node.phase, node.attempts, node.due) = (Phase::Ready, attempts, None);
    node.free();
    for queue in 0..agenda::QUEUES {
        run.agenda.queue_mut(queue).retain(|other| other != place);
    }
    let priority = graph_node(run, place).map(|node| node.priority).unwrap_or_default();
    run.agenda.start(place.clone(), priority);
}
