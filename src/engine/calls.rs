//! Attempts under way: work that somebody else does for a node. Counted by run, so that a run that is to be cancelled
//! knows for how many answers it still waits.
//!
//! An attempt is under way from its `node.waiting` until its answer is folded, its time has run out, or its node is gone.
//! Only an attempt that is under way is listened to; one that ends in another way is called back. With an agent's turn go the
//! runs that its tools are: whoever makes the turn forgets them in a crash, the run does not.

use std::collections::BTreeMap;

use smallvec::SmallVec;

use super::effect::{Dispatch, Effects, Recall, Recalled, Work};
use super::route::node_mut;
use super::run::Run;
use super::scope::{Callee, Node, Scope};
use super::spend::Taken;
use crate::ir::{Executor, Kind, ParentClose};
use crate::model::Place;
use crate::model::money::Usd;

/// What is called back with one attempt.
type Recalls = SmallVec<[Recall; 1]>;

/// Whom to tell that an attempt is given up; nobody when its child is to go on.
fn recall(run: &Run, place: &Place, state: &Node) -> Recalls {
    let mut recalls = Recalls::new();
    let Some(call) = state.call_under_way() else { return recalls };
    let mut tell = |whom| recalls.push(Recall { place: place.clone(), seq: call.seq, whom });
    match call.to {
        Callee::Executor(executor) => tell(Recalled::Executor(executor)),
        Callee::Child(run_id, ParentClose::Cancel) => tell(Recalled::Child(run_id)),
        Callee::Child(_, ParentClose::Abandon) => {}
    }
    if let Some(agent) = state.agent() {
        let path = run.ir.path(place);
        agent.runs_of_tools(run.id(), &path).for_each(|child| tell(Recalled::Child(child)));
    }
    recalls
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
    let recalls = run.node(place).map(|state| recall(run, place, state)).unwrap_or_default();
    end(run, place);
    recalls.into_iter().for_each(|recall| tell(run, recall, effects));
}

fn end(run: &mut Run, place: &Place) {
    let Some(node) = node_mut(&mut run.root, place) else { return };
    let was_under_way = node.call_mut().is_some_and(|call| std::mem::replace(&mut call.under_way, false));
    if !was_under_way {
        return;
    }
    run.under_way = run.under_way.saturating_sub(1);
    // Whoever ends it otherwise has settled it before: nobody knows what this one took.
    let open = node.agent_mut().and_then(|agent| Some((agent.quote.take()?, agent.role())));
    if let Some((quote, role)) = open {
        run.spend.settle(&quote, Taken::Unknown, &role);
    }
}

/// These passes of the node at `owner` are gone: everything under way in them is called back.
pub(super) fn abandon(run: &mut Run, owner: &Place, scopes: &BTreeMap<u32, Scope>, effects: &mut Effects) {
    if run.under_way == 0 {
        return;
    }
    let (mut gone, mut recalls, mut quotes) = (0_u32, Vec::new(), Vec::new());
    let mut path = owner.scopes.clone();
    for (pass, scope) in scopes {
        path.push((owner.node, *pass));
        scope.walk(&mut path, &mut |scopes, node, state| {
            if state.call_under_way().is_some() {
                let place = Place { scopes: scopes.clone(), node };
                gone = gone.saturating_add(1);
                recalls.extend(recall(run, &place, state));
                quotes.extend(state.agent().and_then(|agent| Some((agent.quote.clone()?, agent.role()))));
            }
            true
        });
        path.pop();
    }
    quotes.iter().for_each(|(quote, role)| run.spend.settle(quote, Taken::Unknown, role));
    run.under_way = run.under_way.saturating_sub(gone);
    recalls.into_iter().for_each(|recall| tell(run, recall, effects));
}

/// The run ends, or is to end: everybody is told. A child that is to go on is no longer waited for.
pub(super) fn tell_all(run: &mut Run, effects: &mut Effects) {
    if run.under_way == 0 {
        return;
    }
    let mut told = Vec::new();
    let mut left = Vec::new();
    run.root.walk(&mut SmallVec::new(), &mut |scopes, node, state| {
        if state.call_under_way().is_some() {
            let place = Place { scopes: scopes.clone(), node };
            let recalls = recall(run, &place, state);
            if recalls.is_empty() {
                left.push(place);
            }
            told.extend(recalls);
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
