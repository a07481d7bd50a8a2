//! How nodes settled that somebody waits for: noted as the events of a step go by, whether they are written down or only
//! counted ([`Mode::Fast`](crate::model::Mode::Fast)). Nothing of it is state; without a watch it costs one look.

use super::Outcome;
use super::run::Run;
use super::scope::Phase;
use crate::model::{EventBody, Failure, Place, Value};

/// How a node settled.
#[derive(Clone, Debug, PartialEq)]
pub enum Settled {
    /// With this output.
    Completed(Value),
    /// With this failure; an edge or its `on_error` may have taken care of it.
    Failed(Failure),
    /// It never began.
    Skipped,
    /// Nobody waits for it any more: its run has ended, or goes on without it. Or it failed long ago.
    Gone,
}

impl Settled {
    /// As this event of the node says; `None` when the node goes on.
    pub fn of(event: &EventBody) -> Option<Self> {
        match event {
            EventBody::NodeCompleted { output, .. } => Some(Self::Completed(output.clone())),
            EventBody::NodeFailed { failure, .. } => Some(Self::Failed(failure.clone())),
            EventBody::NodeSkipped { .. } => Some(Self::Skipped),
            _ => None,
        }
    }
}

impl Run {
    /// How a node has settled, as far as the run remembers; `None` while it may still settle.
    pub fn settled(&self, place: &Place) -> Option<Settled> {
        let Some(node) = self.node(place) else { return Some(Settled::Gone) };
        match node.phase {
            Phase::Completed => Some(Settled::Completed(node.output.clone())),
            Phase::Skipped => Some(Settled::Skipped),
            Phase::Failed => Some(Settled::Gone),
            _ => self.status().is_terminal().then_some(Settled::Gone),
        }
    }
}

impl Outcome {
    /// Notes the end of a node that is watched.
    pub(super) fn observe(&mut self, event: &EventBody) {
        if !self.watched.is_empty()
            && let Some(place) = event.place().filter(|place| self.watched.contains(place))
            && let Some(how) = Settled::of(event)
        {
            self.settled.push((place.clone(), how));
        }
    }

    /// The same of all events from this one on.
    pub(super) fn observe_from(&mut self, first: usize) {
        if !self.watched.is_empty() {
            let events = std::mem::take(&mut self.events);
            events.iter().skip(first).for_each(|event| self.observe(event));
            self.events = events;
        }
    }
}
