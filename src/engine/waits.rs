//! Why a node that does not run does not: what of it the run's own state tells. What others know (how many jobs are ahead,
//! whether a call has a place) is added by those who show it.

use std::sync::Arc;

use smallvec::SmallVec;

use super::command::{Pause, Paused};
use super::run::Run;
use super::scope::{Callee, Node, Phase};
use crate::ir::{self, Executor, Kind};
use crate::model::{Place, RunId, Seq, Value};
use crate::time::Timestamp;

/// For what a node waits, and how long at most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waits {
    /// For what.
    pub why: Why,
    /// When waiting is over, however it goes.
    pub until: Option<Timestamp>,
}

/// For what a node waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// These nodes have not settled, and their edges lead to it.
    Edges(Vec<Arc<str>>),
    /// The run has not been admitted.
    Admission,
    /// The run is paused.
    Paused,
    /// The run is to be cancelled: it never starts.
    Cancelling,
    /// It is ready; its shard has other things to do first.
    Turn,
    /// A point in time.
    Timer,
    /// A signal.
    Signal(Arc<str>),
    /// A human's decision.
    Human {
        /// Who was asked so far.
        reviewers: Vec<Arc<str>>,
        /// Number of the event that asked.
        seq: Seq,
    },
    /// The time of its next attempt.
    Retry,
    /// Its passes: items, branches, iterations, a body, its fallback.
    Passes,
    /// A worker who takes the job.
    Worker {
        /// Of which queue.
        queue: Arc<str>,
        /// Number of the event that handed the job out.
        seq: Seq,
    },
    /// A call of its own: for a place, or for the answer.
    Call {
        /// By whom.
        executor: Executor,
        /// Number of the event that handed it out.
        seq: Seq,
    },
    /// The end of a child run.
    Child(RunId),
    /// A human who knows what became of its call.
    Outcome,
}

impl Run {
    /// At most so many things it waits for that do not come by themselves, reviews left out.
    pub(super) fn pauses(&self, count_max: usize) -> Vec<Pause> {
        let mut found = Vec::new();
        if self.status().is_terminal() {
            return found;
        }
        let pause = |at: Option<&Place>, why, until| {
            let at = at.map(|place| (place.clone(), self.ir.path(place)));
            Pause { at, why, until, since: None }
        };
        if self.is_paused() {
            let short = self.spend.short(self.ir.budget.as_deref());
            let why = short.map_or(Paused::ByHand, |short| Paused::Budget(Box::new(short)));
            found.push(pause(None, why, None));
        }
        for (name, places) in &self.waiting {
            for place in places {
                let until = self.node(place).and_then(|node| node.due);
                found.push(pause(Some(place), Paused::Signal(name.clone()), until));
            }
        }
        self.root.walk(&mut SmallVec::new(), &mut |scopes, node, state| {
            if state.phase == Phase::Uncertain {
                let place = Place { scopes: scopes.clone(), node };
                found.push(pause(Some(&place), Paused::Outcome, state.due));
            }
            found.len() < count_max
        });
        found.truncate(count_max);
        found
    }

    /// Why this node of the outermost scope does not run; `None` when it runs, or has settled.
    pub(super) fn waits(&self, index: u32, graph: &ir::Node, node: &Node) -> Option<Waits> {
        if self.status().is_terminal() || node.phase.is_settled() {
            return None;
        }
        let idle = matches!(node.phase, Phase::Pending | Phase::Ready);
        let why = match node.phase {
            _ if idle && self.cancel.is_some() => Why::Cancelling,
            Phase::Pending => Why::Edges(self.unsettled(graph)),
            Phase::Ready if self.is_paused() => Why::Paused,
            Phase::Ready if self.is_outside() => Why::Admission,
            Phase::Ready => Why::Turn,
            Phase::Backoff => Why::Retry,
            Phase::Uncertain => Why::Outcome,
            Phase::Waiting => self.inside(index, graph, node)?,
            _ => return None,
        };
        // Of a review that is when the next one is asked, too.
        let until = node.open_review().map_or(node.due, |asked| asked.review.due);
        Some(Waits { why, until })
    }

    /// Sources of its edges that have not settled.
    fn unsettled(&self, graph: &ir::Node) -> Vec<Arc<str>> {
        let scope = self.ir.root();
        let mut sources: Vec<u32> =
            graph.incoming.iter().filter_map(|edge| Some(scope.edges.get(*edge as usize)?.from)).collect();
        sources.sort_unstable();
        sources.dedup();
        let open =
            |source: &u32| self.root.nodes.get(*source as usize).is_some_and(|node| !node.phase.is_settled());
        let open = sources.into_iter().filter(open);
        open.filter_map(|source| Some(scope.nodes.get(source as usize)?.id.clone())).collect()
    }

    /// For what a node waits that has begun.
    fn inside(&self, index: u32, graph: &ir::Node, node: &Node) -> Option<Why> {
        if node.passes().is_some() {
            return Some(Why::Passes);
        }
        Some(match &graph.kind {
            Kind::Delay { .. } => Why::Timer,
            Kind::Wait { .. } => {
                let here = Place::root(index);
                let (name, _) = self.waiting.iter().find(|(_, places)| places.contains(&here))?;
                Why::Signal(name.clone())
            }
            Kind::HumanReview(_) => {
                let asked = node.asked()?;
                Why::Human { reviewers: asked.whom().cloned().collect(), seq: asked.seq }
            }
            Kind::Call { executor: Executor::Task, .. } => {
                let call = node.call()?;
                match &call.worker {
                    Some(_) => return None,
                    None if self.is_paused() => Why::Paused,
                    None => {
                        let queue = call.request.get("queue").and_then(Value::as_str);
                        let queue = queue.map_or_else(|| graph.id.clone(), Arc::from);
                        Why::Worker { queue, seq: call.seq }
                    }
                }
            }
            Kind::Call { executor, .. } => Why::Call { executor: *executor, seq: node.call()?.seq },
            Kind::Child { .. } => match node.call()?.to {
                Callee::Child(run_id, _) => Why::Child(run_id),
                Callee::Executor(_) => return None,
            },
            _ => return None,
        })
    }
}
