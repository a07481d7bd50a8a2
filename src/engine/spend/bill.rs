//! What a run has spent, by node, role and model: a fold over its events alone, for whoever has its history and not its state.
//!
//! | event at a place | its reservation |
//! | --- | --- |
//! | `model.called` | is made |
//! | `model.answered` | is settled by the answer |
//! | `context.trimmed` | is free |
//! | `node.retry_scheduled`, `node.fell_back`, `node.failed`, `model.degraded` | is free when such a failure bills nothing, else taken whole |
//! | `timer.fired`, `node.lost`, `node.uncertain`, `node.completed` | is taken whole |
//! | any but `model.degraded` and `node.lost`, at a node around it; the failure of its pass, or of another one of the same node, unless a map goes on without; the end of the run | is taken whole |
//!
//! What must hold (F396): the sum of the parts is what [`Spend`](super::Spend) says of the run, to the billionth: spent and
//! reserved together after every event, each of both whenever the run has nothing left to decide. A fork's parts from before
//! it was one are kept apart: another run has paid them. Memory: a row for each node of the document and model that it asked,
//! and one for each call under way.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::ir::{Ir, Kind, OnItemError};
use crate::model::agent::{Answer, Quote, is_billed};
use crate::model::budget::Wider;
use crate::model::event::Waiting;
use crate::model::money::Usd;
use crate::model::usage::Part;
use crate::model::{EventBody, Failure, Place, Value};

/// Whose part it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Whose {
    /// The node, as [`Bill::take`] was told.
    pub node: Arc<str>,
    /// The agent's role; empty without one.
    pub role: Arc<str>,
    /// The model's name in the node's configuration.
    pub model: Arc<str>,
}

/// Takes events, in order, and has the parts.
#[derive(Clone, Debug, Default)]
pub struct Bill {
    /// What the run took itself.
    pub own: BTreeMap<Whose, Part>,
    /// What was taken before it was forked.
    pub inherited: BTreeMap<Whose, Part>,
    /// More dollars and tokens than its document says, given by hand.
    pub raised: (Usd, u64),
    /// The call for which too little was left last; `None` once the run was given more.
    pub refused: Option<Quote>,
    /// The budget that refused it, when it was not the run's own.
    pub refused_by: Option<Wider>,
    /// Tokens of each node's last answer, read and written: how full its context is.
    pub context: BTreeMap<Arc<str>, u64>,
    open: BTreeMap<Place, (Whose, Quote)>,
    roles: BTreeMap<Arc<str>, Arc<str>>,
    cancelling: bool,
}

impl Bill {
    /// All of it.
    pub fn total(&self) -> Part {
        let mut total = Part::default();
        self.own.values().chain(self.inherited.values()).for_each(|part| total.add(part));
        total
    }

    /// The next event. `graph` is the run's, if it is known: without it what is reserved in a map that fails is taken only when the map's
    /// own failure says so. `name` says what a node is called in the parts: the same for all passes through it, so that there are
    /// no more parts than nodes.
    pub fn take(&mut self, body: &EventBody, graph: Option<&Ir>, name: &dyn Fn(&Place) -> Arc<str>) {
        match body {
            EventBody::NodeWaiting { place, waiting: Waiting::Call { request: Some(request), .. } } => {
                if let Some(Value::String(role)) = request.get("role") {
                    self.roles.insert(name(place), role.clone());
                }
            }
            EventBody::ModelCalled { place, quote } => self.called(place, quote, name(place)),
            EventBody::ModelAnswered { place, answer, .. } => self.answered(place, answer),
            EventBody::NodeRetryScheduled { place, failure, .. }
            | EventBody::NodeFellBack { place, failure, .. } => {
                self.ended(place, Some(failure));
                self.dropped(place);
            }
            EventBody::NodeFailed { place, failure, edges, continued } => {
                self.ended(place, Some(failure));
                self.dropped(place);
                let is_unjudged = graph
                    .and_then(|graph| graph.at(place))
                    .is_some_and(|(_, node)| edges.len() < node.outgoing.len());
                let goes_on = *continued || edges.contains(&true) || self.cancelling || is_unjudged;
                if !goes_on || place.node == Place::PASS {
                    self.pass_failed(graph, place);
                }
            }
            EventBody::ModelDegraded { place, failure, .. } => self.ended(place, Some(failure)),
            // A call that does not fit is not made: no provider bills it.
            EventBody::ContextTrimmed { place, .. } => {
                self.ended(place, Some(&Failure::fatal("context_overflow", "")));
            }
            EventBody::NodeLost { place } => self.ended(place, None),
            EventBody::TimerFired { place }
            | EventBody::NodeUncertain { place, .. }
            | EventBody::NodeCompleted { place, .. } => {
                self.ended(place, None);
                self.dropped(place);
            }
            EventBody::BudgetExceeded { quote, .. } => {
                (self.refused, self.refused_by) = (Some(Quote::clone(quote)), None);
            }
            EventBody::WiderExceeded { over, .. } => {
                (self.refused, self.refused_by) = (Some(over.quote.clone()), Some(over.by.clone()));
            }
            EventBody::BudgetRaised { usd, tokens, .. } => {
                self.raised = (self.raised.0.plus(*usd), self.raised.1.saturating_add(*tokens));
                if self.refused_by.is_none() {
                    self.refused = None;
                }
            }
            EventBody::RunCancelRequested { .. } => self.cancelling = true,
            EventBody::RunForked(_) => self.forked(),
            body if body.ends_run() => self.lost(|_| true),
            _ => {}
        }
    }

    fn called(&mut self, place: &Place, quote: &Quote, node: Arc<str>) {
        let role = self.roles.get(&node).cloned().unwrap_or_default();
        let whose = Whose { node, role, model: quote.model.clone() };
        let part = self.own.entry(whose.clone()).or_default();
        part.calls = part.calls.saturating_add(1);
        part.reserve(quote);
        (self.refused, self.refused_by) = (None, None);
        self.open.insert(place.clone(), (whose, quote.clone()));
    }

    fn answered(&mut self, place: &Place, answer: &Answer) {
        let Some((whose, quote)) = self.open.remove(place) else { return };
        self.part(&whose).free(&quote);
        self.context.insert(whose.node.clone(), answer.tokens.total());
        self.part(&whose).answered(answer);
    }

    fn part(&mut self, whose: &Whose) -> &mut Part {
        self.own.entry(whose.clone()).or_default()
    }

    /// The call that may be under way at `place` ended otherwise than with an answer.
    fn ended(&mut self, place: &Place, failure: Option<&Failure>) {
        let Some((whose, quote)) = self.open.remove(place) else { return };
        let part = self.part(&whose);
        part.free(&quote);
        if failure.is_none_or(|failure| is_billed(&failure.code)) {
            part.lost(&quote);
        }
    }

    /// The pass around `place` failed: with it the others of its node, unless those go on without it.
    fn pass_failed(&mut self, graph: Option<&Ir>, place: &Place) {
        let Some((owner, pass)) = place.node_of_pass() else { return };
        self.lost(|other| other.scopes.starts_with(&place.scopes));
        let goes_on = graph.and_then(|graph| graph.at(&owner)).is_none_or(|(_, node)| {
            matches!(&node.kind, Kind::Map { on_item_error, .. } if *on_item_error != OnItemError::Fail)
        });
        if !goes_on || pass == Place::FALLBACK {
            self.dropped(&owner);
        }
    }

    /// The passes of the node at `place` are gone.
    fn dropped(&mut self, place: &Place) {
        let depth = place.scopes.len();
        self.lost(|other| {
            let inner = other.scopes.get(depth).is_some_and(|(owner, _)| *owner == place.node);
            inner && other.scopes.starts_with(&place.scopes)
        });
    }

    fn lost(&mut self, is_lost: impl Fn(&Place) -> bool) {
        let places: Vec<Place> = self.open.keys().filter(|place| is_lost(place)).cloned().collect();
        places.iter().for_each(|place| self.ended(place, None));
    }

    /// What was taken until now is another run's. What is reserved is taken over.
    fn forked(&mut self) {
        for (whose, mut part) in std::mem::take(&mut self.own) {
            (part.reserved, part.tokens_reserved) = (Usd::ZERO, 0);
            self.inherited.entry(whose).or_default().add(&part);
        }
        // The calls under way were the other run's; this one reserves its own.
        self.open.clear();
    }
}
