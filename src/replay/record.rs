//! All events of one run, in the bursts in which they were decided, with all values in full.

use crate::limits;
use crate::model::event::DocumentHash;
use crate::model::{Event, EventBody, RunId, Seq};
use crate::time::Timestamp;

/// What one input made of the run.
#[derive(Clone, Debug, PartialEq)]
pub struct Burst {
    /// Number of its first event.
    pub first_seq: Seq,
    /// When it was decided.
    pub at: Timestamp,
    /// At least one.
    pub events: Vec<EventBody>,
}

impl Burst {
    /// Number of its last event.
    pub fn last_seq(&self) -> Seq {
        (self.first_seq + self.events.len() as u64).saturating_sub(1)
    }

    /// Its events, numbered.
    pub fn events(&self) -> impl Iterator<Item = Event> {
        let numbered = (self.first_seq..).zip(&self.events);
        numbered.map(|(seq, body)| Event { seq, at: self.at, body: body.clone() })
    }
}

/// The record of a run.
#[derive(Clone, Debug)]
pub struct Record {
    /// Whose.
    pub run_id: RunId,
    /// Gapless from event 1.
    pub bursts: Vec<Burst>,
    /// Steps of a slice where it was decided.
    pub steps: u32,
}

impl Record {
    /// Of this run, decided by this program.
    pub fn new(run_id: RunId) -> Self {
        Self { run_id, bursts: Vec::new(), steps: limits::STEPS_PER_SLICE }
    }

    /// Number of its last event.
    pub fn last_seq(&self) -> Seq {
        self.bursts.last().map_or(0, Burst::last_seq)
    }

    /// Its events, in order.
    pub fn events(&self) -> impl Iterator<Item = Event> {
        self.bursts.iter().flat_map(Burst::events)
    }

    /// Hash of the document that it began with.
    pub fn document(&self) -> Option<DocumentHash> {
        match self.bursts.first()?.events.first()? {
            EventBody::RunStarted(started) => Some(started.document),
            _ => None,
        }
    }
}
