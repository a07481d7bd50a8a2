//! What can be done without anyone: places in the order in which the fold found them.
//!
//! Ends (a timer fired, a signal came, a pass is over) go before starts, and starts go by priority. A paused run does its
//! ends and starts nothing. An entry whose place has been dealt with, or is gone with its pass, is stale; the fold keeps
//! the front of each queue fresh (`route::freshen`), so an agenda with something in front has something to do.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::model::{Place, Priority};

/// The agenda of one run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Agenda {
    ends: VecDeque<Place>,
    starts: [VecDeque<Place>; 3],
}

/// Number of queues.
pub(super) const QUEUES: usize = 4;

impl Agenda {
    /// Something came to its end; it is looked at before anything else.
    pub(super) fn end_first(&mut self, place: Place) {
        self.ends.push_front(place);
    }

    /// Something came to its end; it is looked at after what ended before it.
    pub(super) fn end_next(&mut self, place: Place) {
        self.ends.push_back(place);
    }

    /// A node is ready.
    pub(super) fn start(&mut self, place: Place, priority: Priority) {
        let [high, medium, low] = &mut self.starts;
        match priority {
            Priority::High => high.push_back(place),
            Priority::Medium => medium.push_back(place),
            Priority::Low => low.push_back(place),
        }
    }

    /// The next thing to do; `begun` says of a place that its node has begun, which a pause does not hold up.
    pub(super) fn front(&self, paused: bool, begun: impl Fn(&Place) -> bool) -> Option<&Place> {
        let starts = self.starts.iter().filter_map(VecDeque::front);
        self.ends.front().or_else(|| starts.into_iter().find(|place| !paused || begun(place)))
    }

    /// Queue `index` of [`QUEUES`].
    pub(super) fn queue_mut(&mut self, index: usize) -> &mut VecDeque<Place> {
        match index.checked_sub(1).and_then(|index| self.starts.get_mut(index)) {
            Some(starts) => starts,
            None => &mut self.ends,
        }
    }

    /// Nothing is to be done any more.
    pub(super) fn clear(&mut self) {
        self.ends.clear();
        self.starts.iter_mut().for_each(VecDeque::clear);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_go_first_then_starts_by_priority_and_a_pause_holds_up_starts_only() {
        // F047
        let mut agenda = Agenda::default();
        let place = Place::root;
        agenda.start(place(1), Priority::Low);
        agenda.start(place(2), Priority::Medium);
        agenda.start(place(3), Priority::High);
        agenda.end_next(place(4));
        agenda.end_first(place(5));
        let mut order = Vec::new();
        while let Some(next) = agenda.front(false, |_| false).cloned() {
            order.push(next.node);
            (0..QUEUES).for_each(|queue| {
                let queue = agenda.queue_mut(queue);
                if queue.front() == Some(&next) {
                    queue.pop_front();
                }
            });
        }
        assert_eq!(order, [5, 4, 3, 2, 1]);
        agenda.start(place(1), Priority::Medium);
        assert_eq!(agenda.front(true, |_| false), None);
        assert_eq!(agenda.front(true, |_| true), Some(&place(1)));
    }
}
