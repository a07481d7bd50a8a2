//! Reviews as they are remembered when they wait no more: one [`Row`] for each ticket, made of what happened ([`Noted`]).
//!
//! What must hold: a row follows from the run's durable events alone, in their order. An event that is told again changes
//! nothing ([`Row::after`]), so rows may be made anew from any part of a history that begins where they left off.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::letter::GaveUp;
use super::{Place, RunId, Seq, Ticket};
use crate::time::Timestamp;

/// What happened to a review, or to work that was given up.
#[derive(Clone, Debug, PartialEq)]
pub struct Noted {
    /// Of this run.
    pub run_id: RunId,
    /// Number of the event.
    pub seq: Seq,
    /// When.
    pub at: Timestamp,
    /// Its node.
    pub place: Place,
    /// What.
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// Humans are asked.
    Asked(Box<Request>),
    /// The next ones are asked besides: the so many-eth time.
    Escalated(u32),
    /// One of them decided.
    Decided(Box<Verdict>),
    /// None of them did, in time.
    Expired,
    /// Not of a review: a node's work was given up, and nobody took care of it ([`super::letter`]).
    GaveUp(Box<GaveUp>),
    /// Not of a review: the run begins here as a fork; what came before is another run's.
    Forked,
}

/// What is asked, without what is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Name of the workflow, as inside the node.
    pub workflow: Arc<str>,
    /// Path of its node.
    pub node: Arc<str>,
    /// Who is asked first; nobody by name when anybody may decide.
    pub reviewers: Vec<Arc<str>>,
    /// Who is asked later, in that order.
    pub escalations: Vec<Vec<Arc<str>>>,
    /// When nobody is waited for any more.
    pub due: Option<Timestamp>,
}

/// What was decided, without what was filled in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Or rejected.
    pub approved: bool,
    /// Who decided.
    pub reviewer: Arc<str>,
    /// In the reviewer's words.
    pub reason: Option<Arc<str>>,
}

/// How a review stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// Nobody has decided, as far as is noted.
    Pending,
    /// Somebody said yes.
    Approved,
    /// Somebody said no.
    Rejected,
    /// Nobody did, in time.
    Expired,
}

impl State {
    /// Those in which it waits no more.
    pub const OVER: [Self; 3] = [Self::Approved, Self::Rejected, Self::Expired];

    /// As clients see it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Approved => "approved",
            Self::Rejected => "rejected",
            Self::Expired => "expired",
        }
    }
}

/// A review, in one line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// What it is called.
    pub ticket: Ticket,
    /// What is asked.
    pub request: Request,
    /// When it was asked.
    pub since: Timestamp,
    /// Escalations so far.
    pub level: u32,
    /// How it stands.
    pub state: State,
    /// What was decided.
    pub verdict: Option<Verdict>,
    /// Number and time of the event that it was last changed by.
    pub last: (Seq, Timestamp),
}

impl Row {
    /// What a row becomes; `None` when nothing is to be changed: the event is known, or nobody had asked.
    pub fn after(before: Option<Self>, noted: &Noted) -> Option<Self> {
        if matches!(noted.what, What::GaveUp(_) | What::Forked) {
            return None;
        }
        let last = (noted.seq, noted.at);
        if let What::Asked(request) = &noted.what {
            let ticket = Ticket { run_id: noted.run_id, seq: noted.seq };
            let known = before.is_some_and(|row| row.last.0 >= noted.seq);
            return (!known).then(|| Self {
                ticket,
                request: (**request).clone(),
                since: noted.at,
                level: 0,
                state: State::Pending,
                verdict: None,
                last,
            });
        }
        let row = before.filter(|row| row.last.0 < noted.seq && row.state == State::Pending)?;
        Some(match &noted.what {
            What::Escalated(level) => Self { level: *level, last, ..row },
            What::Decided(verdict) => {
                let state = if verdict.approved { State::Approved } else { State::Rejected };
                Self { state, verdict: Some((**verdict).clone()), last, ..row }
            }
            _ => Self { state: State::Expired, last, ..row },
        })
    }

    /// Everybody who was asked so far.
    pub fn reviewers(&self) -> Vec<Arc<str>> {
        let later = self.request.escalations.iter().take(self.level as usize).flatten();
        self.request.reviewers.iter().chain(later).cloned().collect()
    }

    /// Might this one have decided?
    pub fn asks(&self, reviewer: &str) -> bool {
        self.request.reviewers.is_empty() || self.reviewers().iter().any(|name| **name == *reviewer)
    }

    /// The name under which its last change is told.
    pub fn event(&self) -> &'static str {
        match (self.state, self.level) {
            (State::Pending, 0) => "approval.requested",
            (State::Pending, _) => "approval.escalated",
            _ => "approval.decided",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Partition;

    fn noted(seq: Seq, what: What) -> Noted {
        let run_id = RunId::new(Timestamp::from_micros(1), Partition::new(1), [1; 10]);
        Noted { run_id, seq, at: Timestamp::from_micros(seq), place: Place::root(0), what }
    }

    fn asked(seq: Seq) -> Noted {
        let request = Request {
            workflow: "w".into(),
            node: "review".into(),
            reviewers: vec!["ops".into()],
            escalations: vec![vec!["lead".into()]],
            due: None,
        };
        noted(seq, What::Asked(Box::new(request)))
    }

    // RELIABILITY 2.6, F321
    #[test]
    fn what_is_told_twice_changes_nothing_and_the_first_end_stands() {
        let row = Row::after(None, &asked(4)).unwrap();
        assert_eq!((row.event(), row.asks("ops"), row.asks("lead")), ("approval.requested", true, false));
        assert_eq!(Row::after(Some(row.clone()), &asked(4)), None);
        let row = Row::after(Some(row), &noted(6, What::Escalated(1))).unwrap();
        assert_eq!((row.event(), row.asks("lead")), ("approval.escalated", true));
        assert_eq!(Row::after(Some(row.clone()), &noted(6, What::Escalated(1))), None);
        let verdict = Verdict { approved: false, reviewer: "lead".into(), reason: Some("no".into()) };
        let decided = noted(9, What::Decided(Box::new(verdict)));
        let over = Row::after(Some(row.clone()), &decided).unwrap();
        assert_eq!((over.state, over.event()), (State::Rejected, "approval.decided"));
        assert_eq!(Row::after(Some(over.clone()), &noted(10, What::Expired)), None);
        assert_eq!(Row::after(Some(over), &decided), None);
        assert_eq!(Row::after(Some(row), &noted(10, What::Expired)).unwrap().state, State::Expired);
        assert_eq!(Row::after(None, &decided), None, "nobody had asked");
    }
}
