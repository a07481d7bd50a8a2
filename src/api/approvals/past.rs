//! Reviews that wait no more, from the events of their runs: a shard knows those only that wait.

use std::sync::Arc;

use crate::api::ports::{Location, Runs, StorageError};
use crate::engine::command::{Ir, Which};
use crate::limits;
use crate::model::event::{Decision, Review, Waiting};
use crate::model::{Event, EventBody, Place, Seq};
use crate::time::Timestamp;

/// A review that was asked for once.
#[derive(Clone, Debug)]
pub(in crate::api) struct Past {
    pub(in crate::api) seq: Seq,
    pub(super) place: Place,
    /// Path of its node.
    pub(in crate::api) node: String,
    pub(in crate::api) review: Review,
    pub(super) since: Timestamp,
    /// Escalations.
    pub(super) level: u32,
    pub(in crate::api) end: End,
}

/// How it ended.
#[derive(Clone, Debug)]
pub(in crate::api) enum End {
    /// A human decided.
    Decided(Box<Decision>, Timestamp),
    /// Nobody did, in time.
    Expired,
    /// Its run went on without it, or ended.
    Cancelled,
}

impl Past {
    /// Everybody who was asked.
    pub(super) fn reviewers(&self) -> Vec<Arc<str>> {
        let later = self.review.escalations.iter().take(self.level as usize).flat_map(|step| &step.to);
        self.review.reviewers.iter().chain(later).cloned().collect()
    }

    /// Might this one have decided it?
    pub(super) fn asked(&self, reviewer: &str) -> bool {
        self.review.reviewers.is_empty() || self.reviewers().iter().any(|name| **name == *reviewer)
    }
}

/// Looks for a review in the history of its run; of several at one node it is the last. Blocks.
pub(super) fn find(
    runs: &dyn Runs,
    location: &Location,
    which: &Which,
    graph: Option<&Ir>,
) -> Result<Option<Past>, StorageError> {
    let path = |place: &Place| graph.map_or_else(|| String::from("?"), |graph| graph.path(place));
    let mut after = if let Which::Asked(seq) = which { seq.saturating_sub(1) } else { 0 };
    let mut found: Option<Past> = None;
    loop {
        let events = runs.events(location, after, limits::PAGE_ROWS_MAX)?;
        let Some(last) = events.last() else { return Ok(found) };
        after = last.seq;
        for event in events {
            look(&mut found, event, which, &path);
            let over = |past: &Past| matches!(which, Which::Asked(_)) && !matches!(past.end, End::Cancelled);
            if found.as_ref().is_some_and(over) {
                return Ok(found);
            }
        }
        if found.is_none() && matches!(which, Which::Asked(_)) {
            return Ok(None);
        }
    }
}

fn look(found: &mut Option<Past>, event: Event, which: &Which, path: &impl Fn(&Place) -> String) {
    let Event { seq, at, body } = event;
    match body {
        EventBody::NodeWaiting { place, waiting: Waiting::Review(review) } => {
            let node = path(&place);
            let is_it = match which {
                Which::Asked(asked) => *asked == seq,
                Which::At(path) => **path == *node,
            };
            if is_it {
                let (level, end) = (0, End::Cancelled);
                *found = Some(Past { seq, place, node, review: *review, since: at, level, end });
            }
        }
        EventBody::ApprovalEscalated { place, level } => {
            if let Some(past) = open_at(found, &place) {
                past.level = level;
            }
        }
        EventBody::ApprovalExpired { place } => {
            if let Some(past) = open_at(found, &place) {
                past.end = End::Expired;
            }
        }
        EventBody::ApprovalDecided { place, decision } => {
            if let Some(past) = open_at(found, &place) {
                past.end = End::Decided(decision, at);
            }
        }
        _ => {}
    }
}

fn open_at<'p>(found: &'p mut Option<Past>, place: &Place) -> Option<&'p mut Past> {
    found.as_mut().filter(|past| past.place == *place && matches!(past.end, End::Cancelled))
}
