//! Attempts under way: work that somebody else does for a node. Counted by run, so that a run that is to be cancelled
//! knows for how many answers it still waits.
//!
//! An attempt is under way from its `node.waiting` until its answer is folded, its time has run out, or its node is gone.
//! Only an attempt that is under way is listened to; one that ends in another way is called back.

use std::collections::BTreeMap;

use smallvec::SmallVec;

use super::effect::{Dispatch, Effects, Recall, Recalled, Work};
use super::route::node_mut;
use super::run::Run;
use super::scope::{Call, Callee, Scope};
use super::spend::Taken;
use crate::ir::{Executor, Kind, ParentClose};
use crate::model::Place;
use crate::model::money::Usd;

/// Whom to tell that an attempt is given up; nobody when its child is to go on.
fn recall(place: Place, call: &Call) -> Option<Recall> {
    let whom = match call.to {
        Callee::Executor(executor) => Recalled::Executor(executor),
        Callee::Child(run_id, ParentClose::Cancel) => Recalled::Child(run_id),
        Callee::Child(_, ParentClose::Abandon) => return None,
    };
    Some(Recall { place, seq: call.seq, whom })
}

/// Executors forget what was under way in a crash; a child run does not.
fn tell(run: &mut Run, recall: Recall, effects: &mut Effects) {
    if matches!(recall.whom, Recalled::Child(_)) {
        run.recalled.push(recall.clone());
    }
    effects.recalls.push(recall);
}

/// The attempt at `place` was answered.
pub(super) fn answered(run: &mut Run, place: &Place) {
    end(run, place);
}

/// The attempt at `place` is given up.
pub(super) fn give_up(run: &mut Run, place: &Place, effects: &mut Effects) {
    if let Some(recall) = end(run, place) {
        tell(run, recall, effects);
    }
}

fn end(run: &mut Run, place: &Place) -> Option<Recall> {
    let node = node_mut(&mut run.root, place)?;
    let call = node.call_mut()?;
    if !std::mem::replace(&mut call.under_way, false) {
        return None;
    }
    let recall = recall(place.clone(), call);
    run.under_way = run.under_way.saturating_sub(1);
    // Whoever ends it otherwise has settled it before: nobody knows what this one took.
    let open = node.agent_mut().and_then(|agent| Some((agent.quote.take()?, agent.role())));
    if let Some((quote, role)) = open {
        run.spend.settle(&quote, Taken::Unknown, &role);
    }
    recall
}

/// These passes of the node at `owner` are gone: everything under way in them is called back.
pub(super) fn abandon(run: &mut Run, owner: &Place, scopes: &BTreeMap<u32, Scope>, effects: &mut Effects) {
    if run.under_way == 0 {
        return;
    }
    let (mut gone, mut quotes) = (Vec::new(), Vec::new());
    let mut path = owner.scopes.clone();
    for (pass, scope) in scopes {
        path.push((owner.node, *pass));
        scope.walk(&mut path, &mut |scopes, node, state| {
            if let Some(call) = state.call_under_way() {
                let place = Place { scopes: scopes.clone(), node };
                gone.push(recall(place, call));
                quotes.extend(state.agent().and_then(|agent| Some((agent.quote.clone()?, agent.role()))));
            }
            true
        });
        path.pop();
    }
    quotes.iter().for_each(|(quote, role)| run.spend.settle(quote, Taken::Unknown, role));
    run.under_way = run.under_way.saturating_sub(u32::try_from(gone.len()).unwrap_or(u32::MAX));
    gone.into_iter().flatten().for_each(|recall| tell(run, recall, effects));
}

/// The run ends, or is to end: everybody is told. A child that is to go on is no longer waited for.
pub(super) fn tell_all(run: &mut Run, effects: &mut Effects) {
    if run.under_way == 0 {
        return;
    }
    let mut told = Vec::new();
    let mut left = Vec::new();
    run.root.walk(&mut SmallVec::new(), &mut |scopes, node, state| {
        if let Some(call) = state.call_under_way() {
            let place = Place { scopes: scopes.clone(), node };
            match recall(place.clone(), call) {
                Some(recall) => told.push(recall),
                None => left.push(place),
            }
        }
        true
    });
    for place in left {
        end(run, &place);
    }
    told.into_iter().for_each(|recall| tell(run, recall, effects));
}

/// The run has ended: of calls of models that are still under way nobody knows what they take.
pub(super) fn write_off(run: &mut Run) {
    if run.spend.get().is_none_or(|spend| spend.reserved == Usd::ZERO && spend.tokens_reserved == 0) {
        return;
    }
    let mut places = Vec::new();
    run.root.walk(&mut SmallVec::new(), &mut |scopes, node, state| {
        if state.agent().is_some_and(|agent| agent.quote.is_some()) {
            places.push(Place { scopes: scopes.clone(), node });
        }
        true
    });
    places.iter().for_each(|place| super::fold::lost(run, place));
}

impl Run {
    /// Attempts under way, for handing them out again after a restart. None once the run is to end.
    pub fn dispatches(&self) -> Vec<Dispatch> {
        let mut dispatches = Vec::new();
        if self.status().is_terminal() || self.cancel.is_some() || self.under_way == 0 {
            return dispatches;
        }
        self.root.walk(&mut SmallVec::new(), &mut |scopes, node, state| {
            if state.call_under_way().is_some() {
                dispatches.extend(self.dispatch(&Place { scopes: scopes.clone(), node }));
            }
            true
        });
        dispatches
    }

    /// Work that nobody has begun, for handing it out again when the run goes on after a pause: jobs that no worker has taken,
    /// turns of agents.
    pub(super) fn untaken(&self) -> Vec<Dispatch> {
        let mut dispatches = self.dispatches();
        dispatches.retain(|dispatch| match &dispatch.work {
            Work::Call { executor, .. } => *executor == Executor::Task && dispatch.worker.is_none(),
            // Those that began before the pause are known by their number.
            Work::Agent(_) => true,
            Work::Child { .. } => false,
        });
        dispatches
    }

    /// Child runs that were called back so far, for telling them again after a restart. They may have ended since.
    pub fn recalls(&self) -> &[Recall] {
        &self.recalled
    }

    /// The attempt under way at `place`.
    pub(super) fn dispatch(&self, place: &Place) -> Option<Dispatch> {
        let state = self.node(place)?;
        let call = state.call_under_way()?;
        let node = super::route::graph_node(self, place)?;
        let work = match (call.to, &node.kind) {
            _ if let Some(agent) = state.agent() => Work::Agent(Box::new(agent.ask())),
            (Callee::Executor(executor), _) => Work::Call { executor, request: call.request.clone() },
            (Callee::Child(run_id, parent_close), Kind::Child { workflow, .. }) => {
                Work::Child { run_id, workflow: workflow.clone(), inputs: call.request.clone(), parent_close }
            }
            (Callee::Child(..), _) => return None,
        };
        Some(Dispatch {
            place: place.clone(),
            attempt: state.attempts.saturating_add(call.lost),
            seq: call.seq,
            work,
            path: self.ir.path(place),
            workflow: self.started.workflow.clone(),
            document: self.ir.document,
            priority: node.priority,
            worker: call.worker.clone(),
            lost: call.lost,
            due: state.due,
            at_most_once: node.at_most_once,
        })
    }
}
