//! `run.forked`: a run goes on where another one was. Everything before the event is the other run's history, word for word;
//! with it the state becomes this run's own.
//!
//! | what the other run had | then |
//! | --- | --- |
//! | nodes that settled, values, signals kept, patches | stay |
//! | timers, reviews | keep their due times |
//! | attempts under way | are made again, with the time that they had left |
//! | a deadline | is as far from the fork as it was from the start |
//! | inputs | stay, unless others are given |
//! | a parent, a business key, calls back of children, requests it remembers by their keys | are not this run's |
//! | a place in the line to be admitted | is asked for anew |

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::fold::{settle_down, unfit};
use super::route::node_mut;
use super::run::Run;
use super::{Effects, FoldError, Outcome, Work, admission};
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
        if self.turn.as_ref().is_some_and(|turn| turn.admitted) {
            return Err(
                "it runs under limits.concurrency or limits.rate and has been admitted; choose an event before run.admitted",
            );
        }
        let child = |dispatch: &super::Dispatch| matches!(dispatch.work, Work::Child { .. });
        if self.dispatches().iter().any(child) {
            return Err(
                "child runs are under way there, and they are its own; choose an event before or after them",
            );
        }
        Ok(())
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
        }
    }
}
