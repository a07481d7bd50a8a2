//! Reviews: what may be asked of a shard about them, and what it answers.

use std::sync::Arc;

use crate::engine::Short;
use crate::ir::Form;
use crate::model::event::{Decision, DocumentHash, Review};
use crate::model::{Kept, Place, RunFilter, RunId, RunSummary, Seq};
use crate::time::Timestamp;

/// Which review of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// The one that this event asked for.
    Asked(Seq),
    /// The one that waits at the node with this path.
    At(Arc<str>),
}

/// A human's answer, on its way to the run that waits for it.
#[derive(Debug)]
pub struct Decide {
    /// Which run.
    pub run_id: RunId,
    /// Its node.
    pub place: Place,
    /// Number of the event that asked.
    pub seq: Seq,
    /// What was decided, and by whom.
    pub decision: Decision,
}

/// A review that waits, in one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenReview {
    /// Number of the event that asked.
    pub seq: Seq,
    /// Path of its node.
    pub node: String,
    /// Who was asked so far.
    pub reviewers: Vec<Arc<str>>,
    /// Nobody was named in the beginning: whoever may write may answer.
    pub anybody: bool,
    /// Since when.
    pub since: Timestamp,
    /// When nobody is waited for any more.
    pub until: Option<Timestamp>,
    /// The rule that asks, when it is no node of the author's.
    pub policy: Option<Arc<str>>,
}

impl OpenReview {
    /// May this one answer?
    pub fn asks(&self, reviewer: &str) -> bool {
        self.anybody || self.reviewers.iter().any(|name| **name == *reviewer)
    }
}

/// What a run waits for that is no review: somebody has to do something, or it never goes on.
#[derive(Clone, Debug, PartialEq)]
pub struct Pause {
    /// Where; `None`: all of the run.
    pub at: Option<(Place, String)>,
    /// For what.
    pub why: Paused,
    /// When waiting is over, however it goes.
    pub until: Option<Timestamp>,
    /// Since when; who reads the run's history fills it in.
    pub since: Option<Timestamp>,
}

/// For what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Paused {
    /// Somebody paused the run.
    ByHand,
    /// A signal with this name.
    Signal(Arc<str>),
    /// Somebody who knows what became of a call.
    Outcome,
    /// More to spend, or that somebody resumes it as it is.
    Budget(Box<Short>),
}

/// A review that waits, in full.
#[derive(Clone, Debug)]
pub struct TicketView {
    /// Its run.
    pub run: RunSummary,
    /// Hash of the run's document.
    pub document: DocumentHash,
    /// In one line.
    pub open: OpenReview,
    /// Its node.
    pub place: Place,
    /// What was asked.
    pub review: Review,
    /// How many escalations there have been.
    pub level: u32,
    /// A decision needs a reason.
    pub reason_required: bool,
    /// What is to be filled in.
    pub form: Option<Form>,
    /// Which of the run's values are shown by reference.
    pub kept: Option<Arc<Kept>>,
}

/// Which reviews to list.
#[derive(Clone, Debug)]
pub struct ApprovalQuery {
    /// Before this one: of a run with a smaller id, or asked earlier in the same.
    pub before: Option<(RunId, Seq)>,
    /// Of runs like this.
    pub filter: RunFilter,
    /// That this one may answer.
    pub reviewer: Option<Arc<str>>,
    /// At most this many.
    pub limit: usize,
}

/// A review in a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedReview {
    /// Of this run.
    pub run_id: RunId,
    /// Of this workflow, named as inside the node.
    pub workflow: Arc<str>,
    /// What is asked.
    pub review: OpenReview,
}
