//! A run's reviews as others see them: those that wait, and whom they ask. Reads the state, changes nothing.

use std::sync::Arc;

use smallvec::SmallVec;

use super::command::{OpenReview, TicketView, Which};
use super::route::graph_node;
use super::run::Run;
use super::scope::Asked;
use crate::ir::{Kind, Review};
use crate::model::{Place, Seq};

impl Run {
    /// Looks at every review that waits, until told to stop.
    fn each_open(&self, mut seen: impl FnMut(Place, &Asked) -> bool) {
        if self.status.is_terminal() {
            return;
        }
        self.root.walk(&mut SmallVec::new(), &mut |scopes, node, state| match state.open_review() {
            Some(asked) => seen(Place { scopes: scopes.clone(), node }, asked),
            None => true,
        });
    }

    /// What the graph says about the review at `place`.
    fn asks(&self, place: &Place) -> Option<&Review> {
        match &graph_node(self, place)?.kind {
            Kind::HumanReview(review) => Some(review),
            _ => None,
        }
    }

    fn open_review(&self, place: &Place, asked: &Asked) -> OpenReview {
        OpenReview {
            seq: asked.seq,
            node: self.ir.path(place),
            reviewers: asked.whom().cloned().collect(),
            anybody: asked.review.reviewers.is_empty(),
            since: asked.since,
            until: asked.review.due,
            policy: self.asks(place).and_then(|review| review.policy.clone()),
        }
    }

    /// At most so many of its reviews that wait, in the order of their nodes.
    pub fn open_reviews(&self, count_max: usize) -> Vec<OpenReview> {
        let mut found = Vec::new();
        self.each_open(|place, asked| {
            found.push(self.open_review(&place, asked));
            found.len() < count_max
        });
        found
    }

    /// A review that waits, in full.
    pub fn ticket(&self, which: &Which) -> Option<TicketView> {
        let mut found = None;
        self.each_open(|place, asked| {
            let is_it = match which {
                Which::Asked(seq) => asked.seq == *seq,
                Which::At(path) => self.ir.path(&place) == **path,
            };
            if is_it {
                let asks = self.asks(&place);
                found = Some(TicketView {
                    run: self.summary(),
                    document: self.ir.document,
                    open: self.open_review(&place, asked),
                    place,
                    review: (*asked.review).clone(),
                    level: asked.level,
                    reason_required: asks.is_some_and(|review| review.reason_required),
                    form: asks.and_then(|review| review.form.clone()),
                    kept: None,
                });
            }
            found.is_none()
        });
        found
    }

    /// May this one decide the review that event `seq` asked for at `place`? The error says who was asked; `None`: nobody
    /// waits for it.
    pub fn may_decide(&self, place: &Place, seq: Seq, reviewer: &str) -> Option<Result<(), String>> {
        let asked = self.node(place)?.open_review().filter(|asked| asked.seq == seq)?;
        if asked.review.reviewers.is_empty() || asked.whom().any(|name| **name == *reviewer) {
            return Some(Ok(()));
        }
        let names: Vec<&str> = asked.whom().map(Arc::as_ref).collect();
        Some(Err(names.join(", ")))
    }
}
