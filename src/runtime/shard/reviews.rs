//! Reviews of the shard's runs: listed, shown, decided.
//!
//! A listing must not unpack parked runs, nor walk through every run. So the shard keeps a line for each review that waits,
//! by run. What must hold: the lines of a run are those of its state, unless it is noted as changed; then they are made
//! anew before they are shown, or when it is parked. Costs one set entry for a run that had a review when it changed; a run
//! that has ended has neither.

use std::collections::BTreeMap;

use super::outbox::{Held, Release};
use super::{IdMap, Shard, letters};
use crate::engine::Input;
use crate::engine::Run;
use crate::engine::command::{
    ApprovalQuery, Command, Decide, ListedReview, OpenReview, Refusal, Reply, ReplyTo, TicketView, Which,
};
use crate::failpoint;
use crate::limits;
use crate::model::approval::{Noted, Request, Verdict, What};
use crate::model::event::{Decision, EventBody, Waiting};
use crate::model::{Event, Place, RunId, Seq, Status};
use crate::time::Timestamp;

/// The reviews that wait, by run.
#[derive(Debug, Default)]
pub(super) struct Reviews {
    /// Of a run the one asked last comes first.
    open: BTreeMap<RunId, Box<[OpenReview]>>,
    /// Runs whose lines may be wrong.
    changed: IdMap<RunId, ()>,
}

impl Reviews {
    /// These events have happened in a run.
    pub(super) fn happened(&mut self, run_id: RunId, events: &[EventBody]) {
        let asks =
            |event: &EventBody| matches!(event, EventBody::NodeWaiting { waiting: Waiting::Review(_), .. });
        if self.open.contains_key(&run_id) || events.iter().any(asks) {
            self.changed.insert(run_id, ());
        }
    }

    /// The run has ended.
    pub(super) fn gone(&mut self, run_id: RunId) {
        self.open.remove(&run_id);
        self.changed.remove(&run_id);
    }

    /// Makes the lines of a run anew.
    pub(super) fn note(&mut self, run: &Run) {
        self.changed.remove(&run.id());
        let mut lines = run.open_reviews(usize::MAX);
        if lines.is_empty() {
            self.open.remove(&run.id());
            return;
        }
        lines.sort_unstable_by_key(|line| std::cmp::Reverse(line.seq));
        self.open.insert(run.id(), lines.into());
    }

    /// Is it noted as changed?
    pub(super) fn is_changed(&self, run_id: RunId) -> bool {
        self.changed.contains_key(&run_id)
    }

    /// All that wait, the newest run's first, from before this one on.
    fn from(&self, before: Option<(RunId, Seq)>) -> impl Iterator<Item = (RunId, &OpenReview)> {
        let runs = match before {
            Some((run_id, _)) => self.open.range(..=run_id),
            None => self.open.range(..),
        };
        let all = runs.rev().flat_map(|(run_id, lines)| lines.iter().map(|line| (*run_id, line)));
        all.filter(move |(run_id, line)| before.is_none_or(|before| (*run_id, line.seq) < before))
    }
}

/// What happened to the run's reviews, and which work was given up.
pub(super) fn noted<'e>(
    run: &Run,
    events: impl Iterator<Item = (Seq, Timestamp, &'e EventBody)>,
) -> impl Iterator<Item = Noted> {
    events.filter_map(move |(seq, at, event)| {
        let (place, what) = match event {
            EventBody::NodeWaiting { place, waiting: Waiting::Review(review) } => {
                let request = Request {
                    workflow: run.workflow().into(),
                    node: run.ir().path(place).into(),
                    reviewers: review.reviewers.clone(),
                    escalations: review.escalations.iter().map(|step| step.to.clone()).collect(),
                    due: review.due,
                };
                (place, What::Asked(Box::new(request)))
            }
            EventBody::NodeFailed { place, failure, edges, continued } => {
                let cared_for = !continued && edges.iter().any(|live| *live);
                let what = (!cared_for).then(|| letters::letter(run, place, failure, *continued));
                (place, What::GaveUp(Box::new(what.flatten()?)))
            }
            EventBody::RunForked(_) => {
                return Some(Noted { run_id: run.id(), seq, at, place: Place::root(0), what: What::Forked });
            }
            EventBody::ApprovalEscalated { place, level } => (place, What::Escalated(*level)),
            EventBody::ApprovalExpired { place } => (place, What::Expired),
            EventBody::ApprovalDecided { place, decision } => {
                let Decision { approved, reviewer, reason, .. } = &**decision;
                let verdict =
                    Verdict { approved: *approved, reviewer: reviewer.clone(), reason: reason.clone() };
                (place, What::Decided(Box::new(verdict)))
            }
            _ => return None,
        };
        Some(Noted { run_id: run.id(), seq, at, place: place.clone(), what })
    })
}

/// The same of events that are read.
pub(super) fn noted_in(run: &Run, events: &[Event]) -> impl Iterator<Item = Noted> {
    noted(run, events.iter().map(|event| (event.seq, event.at, &event.body)))
}

/// Holds it back until its batch is durable.
pub(super) fn hold(held: &mut Held, noted: impl Iterator<Item = Noted>) {
    held.releases.extend(noted.map(|noted| Release::Review(Box::new(noted))));
}

impl Shard {
    /// Does what is asked about reviews.
    pub(super) fn reviewed(&mut self, reply_to: ReplyTo, command: Command, now: Timestamp) {
        match command {
            Command::Approvals(query) => self.approvals(reply_to, &query),
            Command::Ticket { run_id, which } => self.ticket(reply_to, run_id, &which),
            Command::Decide(decide) => self.decide(reply_to, &decide, now),
            _ => {}
        }
    }

    /// The reviews that wait and match, those of the newest runs first.
    fn approvals(&mut self, reply_to: ReplyTo, query: &ApprovalQuery) {
        let changed: Vec<RunId> = self.reviews.changed.drain().map(|(run_id, ())| run_id).collect();
        for run_id in changed {
            match self.runs.get(&run_id) {
                Some(entry) => self.reviews.note(&entry.run),
                // A parked run's were made anew when it was parked.
                None if self.parking.contains(run_id) => {}
                None => self.reviews.gone(run_id),
            }
        }
        let limit = query.limit.min(limits::PAGE_ROWS_MAX + 1);
        let found = self.reviews.from(query.before).filter_map(|(run_id, review)| {
            if query.reviewer.as_deref().is_some_and(|reviewer| !review.asks(reviewer)) {
                return None;
            }
            let workflow = match self.runs.get(&run_id) {
                Some(entry) => query.filter.fits(entry.run.facts()).then(|| entry.run.workflow().into()),
                None => self
                    .parking
                    .summary(run_id)
                    .and_then(|summary| query.filter.fits_summary(summary).then(|| summary.workflow.clone())),
            };
            Some(ListedReview { run_id, workflow: workflow?, review: review.clone() })
        });
        let rows: Vec<_> = found.take(limit).collect();
        self.reply_as_of_now(reply_to, Reply::Approvals(rows));
    }

    /// A review that waits, in full.
    fn ticket(&mut self, reply_to: ReplyTo, run_id: RunId, which: &Which) {
        self.read(reply_to, run_id, |entry| match entry.run.ticket(which) {
            Some(view) => Reply::Ticket(Box::new(TicketView { kept: entry.kept.clone(), ..view })),
            None => Reply::Refused(Refusal::NoReview { run_id }),
        });
    }

    /// A human decides. What is refused has changed nothing, with one exception: a review whose time has run out expires.
    fn decide(&mut self, reply_to: ReplyTo, decide: &Decide, now: Timestamp) {
        let Decide { run_id, place, seq, decision } = decide;
        let run_id = *run_id;
        let gone = Refusal::NoReview { run_id };
        let Some(entry) = self.runs.get(&run_id) else {
            return self.reply_now(reply_to, Reply::Refused(Refusal::NotFound(run_id)));
        };
        match entry.run.may_decide(place, *seq, &decision.reviewer) {
            Some(Ok(())) => {}
            Some(Err(asked)) => {
                let refusal = Refusal::NotAsked { reviewer: decision.reviewer.clone(), asked };
                return self.reply_after(entry.batch, reply_to, Reply::Refused(refusal));
            }
            None => return self.reply_after(entry.batch, reply_to, Reply::Refused(gone)),
        }
        if let (status @ Status::Pending, batch) = (entry.run.status(), entry.batch) {
            let refusal = Refusal::Illegal { run_id, status, verb: "decided about" };
            return self.reply_after(batch, reply_to, Reply::Refused(refusal));
        }
        failpoint::pass("shard::decide");
        self.input(run_id, Input::Decide { place, seq: *seq, decision }, now);
        failpoint::pass("shard::decided");
        if self.is_fenced() {
            return self.refuse_fenced(reply_to);
        }
        let stale = self.outcome.stale;
        self.read(reply_to, run_id, |entry| match stale {
            true => Reply::Refused(gone),
            false => Reply::Accepted(entry.run.summary()),
        });
    }
}
