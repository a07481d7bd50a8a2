//! One pass through a graph, and the nodes in it: the workflow itself, an item of a map, a branch, an iteration, a fallback.
//! A scope is kept inside the node that owns it and is gone with its pass.
//!
//! Every field and variant in here stands in images (`engine::image`): a change of their order or number is a new version.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::agenda::Agenda;
use crate::ir::{Executor, Ir, ParentClose};
use crate::model::agent::{Quote, Said};
use crate::model::event::{Decision, Review};
use crate::model::{Failure, Place, RunId, Seq, Value};
use crate::time::Timestamp;

/// One pass through a graph.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Scope {
    /// Index of its graph in the IR.
    pub(super) graph: u32,
    /// Nodes that are ready or under way: the tokens of this pass.
    pub(super) open: u32,
    /// What the pass is given: the item, the loop's value, the owner's input. `None` for the workflow itself.
    pub(super) given: Option<Value>,
    /// Number of the pass: the item's index, the iteration, the branch.
    pub(super) index: u32,
    pub(super) nodes: Vec<Node>,
    /// A node that ended and the position of its edge whose `when` gave no verdict: the pass fails.
    pub(super) unjudged: Option<(u32, u32)>,
    /// Weight of everything in here and further in.
    pub(super) bytes: usize,
}

/// One node of a scope.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Node {
    pub(super) phase: Phase,
    pub(super) attempts: u32,
    /// Incoming edges that settled.
    pub(super) settled: u32,
    /// Sources of the live ones among them, in order of arrival. What comes after the node was ready is not in here.
    pub(super) live: SmallVec<[u32; 4]>,
    pub(super) output: Value,
    /// The next point in time that means something to it.
    pub(super) due: Option<Timestamp>,
    /// What its kind keeps while it is under way.
    pub(super) own: Option<Box<Own>>,
}

/// Where a node stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Phase {
    /// Not all that it waits for has settled.
    #[default]
    Pending,
    /// To be started, or to be skipped when nothing live arrived.
    Ready,
    /// Begun; its step follows.
    Running,
    /// For time, a signal, its passes, an answer or a human.
    Waiting,
    /// Its time has come; what follows from it comes next.
    Fired,
    /// A signal was handed to it and stands in its output; its end comes next.
    Handed,
    /// Its passes are done (a loop's last one), or one failed for all, or a model has answered it; what follows from it comes
    /// next.
    Gathered,
    /// An attempt failed; the next one begins when it is due.
    Backoff,
    /// Its attempts are used up; the value of its fallback comes next.
    FellBack,
    /// Nobody knows what became of its only call.
    Uncertain,
    Completed,
    Failed,
    Skipped,
}

impl Phase {
    /// Can something be done about such a node without anyone?
    pub(super) fn is_due(self) -> bool {
        matches!(
            self,
            Self::Ready | Self::Running | Self::Fired | Self::Handed | Self::Gathered | Self::FellBack
        )
    }

    pub(super) fn is_settled(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Skipped)
    }
}

/// What a node keeps while it is under way, by kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Own {
    /// `map`, `parallel`, `loop`, `composite`, and a fallback that is a body.
    Passes(Passes),
    /// `http`, `task`, child runs; kept between attempts.
    Call(Call),
    /// `human_review`.
    Review(Asked),
    /// `agent`; kept between attempts.
    Agent(Box<Agent>),
}

/// An agent's conversation, and the call that is its next turn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Agent {
    /// Its request is what the agent was asked for; its number changes with every turn.
    pub(super) call: Call,
    /// Oldest first.
    pub(super) said: Arc<Vec<Said>>,
    /// Weight of it.
    pub(super) bytes: usize,
    /// Position on the ladder of models.
    pub(super) rung: u32,
    /// What is reserved for the model's call under way.
    pub(super) quote: Option<Quote>,
    /// Attempts that were over when its turn began: a turn has all of its node's attempts.
    pub(super) earlier: u32,
}

/// A human who is asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Asked {
    pub(super) review: Box<Review>,
    /// Escalations so far.
    pub(super) level: u32,
    /// Number of the event that asked.
    pub(super) seq: Seq,
    /// When it was.
    pub(super) since: Timestamp,
    /// The answer.
    pub(super) decision: Option<Box<Decision>>,
}

impl Asked {
    /// Everybody who was asked so far, in that order. Nobody: whoever may write may answer.
    pub(super) fn whom(&self) -> impl Iterator<Item = &Arc<str>> {
        let later = self.review.escalations.iter().take(self.level as usize).flat_map(|step| &step.to);
        self.review.reviewers.iter().chain(later)
    }
}

/// Passes of a node that are under way, waiting for their turn, or over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Passes {
    pub(super) given: Given,
    /// How many there are; a loop's grows with each iteration.
    pub(super) count: u32,
    /// The next one to begin.
    pub(super) next: u32,
    /// Those that ended.
    pub(super) done: u32,
    /// By pass; `None` where it was left out, or is not done. Of a loop the last one only.
    pub(super) results: Vec<Option<Value>>,
    /// Under way.
    pub(super) scopes: BTreeMap<u32, Scope>,
    /// The first failure that counts for all.
    pub(super) failure: Option<(u32, Failure)>,
    /// Weight of what is given and of the results.
    pub(super) bytes: usize,
    /// These are not the node's own bodies but its fallback.
    pub(super) fallback: bool,
}

/// What passes are given.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Given {
    /// Each its item.
    Each(Arc<[Value]>),
    /// All the same.
    All(Value),
}

/// The attempt of a call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Call {
    /// The request, or the inputs of the child.
    pub(super) request: Value,
    pub(super) to: Callee,
    /// Number of the event that handed the attempt out.
    pub(super) seq: Seq,
    /// Somebody works on it, and its answer counts.
    pub(super) under_way: bool,
    /// Who has taken it, for work that workers ask for.
    pub(super) worker: Option<Arc<str>>,
    /// How often it was lost with the node that made it.
    pub(super) lost: u32,
}

/// Who is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Callee {
    Executor(Executor),
    Child(RunId, ParentClose),
}

impl Own {
    /// Everything that goes when the node settles.
    pub(super) fn weight(&self) -> usize {
        match self {
            Self::Passes(passes) => passes.weight(),
            Self::Call(call) => call.request.weight(),
            Self::Agent(agent) => agent.call.request.weight() + agent.bytes,
            Self::Review(asked) => {
                weight_of(&asked.review)
                    + asked.decision.as_ref().map_or(0, |decision| answer_weight(decision))
            }
        }
    }
}

/// Weight of what a review keeps.
pub(super) fn weight_of(review: &Review) -> usize {
    let names = |names: &[Arc<str>]| names.iter().map(|name| name.len() + 16).sum::<usize>();
    let later = review.escalations.iter().map(|step| names(&step.to) + 32).sum::<usize>();
    review.data.weight() + names(&review.reviewers) + later
}

/// Weight of what a reviewer answered.
pub(super) fn answer_weight(decision: &Decision) -> usize {
    let reason = decision.reason.as_ref().map_or(0, |reason| reason.len());
    decision.form.weight() + decision.reviewer.len() + reason + size_of::<Decision>()
}

impl Passes {
    pub(super) fn weight(&self) -> usize {
        self.bytes + self.scopes.values().map(|scope| scope.bytes).sum::<usize>()
    }
}

impl Node {
    pub(super) fn passes(&self) -> Option<&Passes> {
        match self.own.as_deref() {
            Some(Own::Passes(passes)) => Some(passes),
            _ => None,
        }
    }

    pub(super) fn passes_mut(&mut self) -> Option<&mut Passes> {
        match self.own.as_deref_mut() {
            Some(Own::Passes(passes)) => Some(passes),
            _ => None,
        }
    }

    pub(super) fn call(&self) -> Option<&Call> {
        match self.own.as_deref() {
            Some(Own::Call(call)) => Some(call),
            Some(Own::Agent(agent)) => Some(&agent.call),
            _ => None,
        }
    }

    pub(super) fn call_mut(&mut self) -> Option<&mut Call> {
        match self.own.as_deref_mut() {
            Some(Own::Call(call)) => Some(call),
            Some(Own::Agent(agent)) => Some(&mut agent.call),
            _ => None,
        }
    }

    pub(super) fn agent(&self) -> Option<&Agent> {
        match self.own.as_deref() {
            Some(Own::Agent(agent)) => Some(agent),
            _ => None,
        }
    }

    pub(super) fn agent_mut(&mut self) -> Option<&mut Agent> {
        match self.own.as_deref_mut() {
            Some(Own::Agent(agent)) => Some(agent),
            _ => None,
        }
    }

    /// Nobody has taken its attempt any more.
    pub(super) fn free(&mut self) {
        if let Some(call) = self.call_mut() {
            call.worker = None;
        }
    }

    /// The call whose answer would count now.
    pub(super) fn call_under_way(&self) -> Option<&Call> {
        self.call().filter(|call| call.under_way)
    }

    pub(super) fn asked(&self) -> Option<&Asked> {
        match self.own.as_deref() {
            Some(Own::Review(asked)) => Some(asked),
            _ => None,
        }
    }

    /// The human whose answer would count now.
    pub(super) fn open_review(&self) -> Option<&Asked> {
        self.asked().filter(|_| self.phase == Phase::Waiting)
    }

    /// The scope of pass `pass`.
    pub(super) fn pass(&self, pass: u32) -> Option<&Scope> {
        self.passes()?.scopes.get(&pass)
    }
}

/// Looks at a node in the scopes of a path; false ends the walk.
pub(super) type Seen<'a> = dyn FnMut(&SmallVec<[(u32, u32); 2]>, u32, &Node) -> bool + 'a;

impl Scope {
    /// A fresh pass through graph `graph`; its entry nodes go on the agenda, or the pass itself when it has no nodes.
    pub(super) fn open(
        ir: &Ir,
        graph: u32,
        (given, index): (Option<Value>, u32),
        scopes: &[(u32, u32)],
        agenda: &mut Agenda,
    ) -> Self {
        let nodes = ir.scopes.get(graph as usize).map_or(&[][..], |graph| &graph.nodes);
        let count = nodes.len();
        let mut scope = Self {
            graph,
            open: 0,
            given,
            index,
            nodes: vec![Node::default(); count],
            unjudged: None,
            bytes: size_of::<Self>() + count * size_of::<Node>(),
        };
        for (index, (node, state)) in (0..).zip(nodes.iter().zip(&mut scope.nodes)) {
            if node.incoming.is_empty() && !node.is_removed() {
                state.phase = Phase::Ready;
                scope.open += 1;
                agenda.start(Place { scopes: scopes.into(), node: index }, node.priority);
            }
        }
        if scope.open == 0 && !scopes.is_empty() {
            agenda.end_next(Place { scopes: scopes.into(), node: Place::PASS });
        }
        scope
    }

    /// Calls `seen` for every node in here and further in, until it says no. As deep as scopes are
    /// ([`crate::limits::SCOPE_DEPTH_MAX`]).
    pub(super) fn walk(&self, scopes: &mut SmallVec<[(u32, u32); 2]>, seen: &mut Seen<'_>) -> bool {
        (0..).zip(&self.nodes).all(|(index, node)| {
            seen(scopes, index, node)
                && node.passes().iter().flat_map(|passes| &passes.scopes).all(|(pass, scope)| {
                    scopes.push((index, *pass));
                    let go_on = scope.walk(scopes, seen);
                    scopes.pop();
                    go_on
                })
        })
    }
}
