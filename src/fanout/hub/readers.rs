//! Readers come and go: into the groups of their runs or into the feed, and out of all of them at once.

use std::rc::Rc;

use super::{Entry, Hub};
use crate::fanout::group::Group;
use crate::fanout::reader::Reader;
use crate::limits;
use crate::model::RunId;
use crate::time::Clock as _;
use crate::wire::stream::{Of, Subscribe};

/// A reader, and what it reads.
pub(super) struct Known {
    pub(super) reader: Rc<Reader>,
    /// None: the feed.
    pub(super) runs: Vec<RunId>,
    /// Runs of which it has yet to get events.
    left: usize,
}

impl Hub {
    /// Lets those that stood in line for a page or for room have it.
    pub(super) fn take_turns(&mut self, id: u64) {
        let turns = self.readers.get(&id).map(|known| known.reader.turns()).unwrap_or_default();
        for run_id in turns {
            self.with_group(run_id, None, |group, actions| group.pump(id, actions));
        }
    }

    pub(super) fn subscribe(&mut self, subscribe: Subscribe) {
        let Subscribe { of, filter, sink } = subscribe;
        if sink.is_gone() || self.readers.len() >= limits::SUBSCRIBERS_PER_CORE_MAX {
            return;
        }
        self.next_id += 1;
        let (id, now_us) = (self.next_id, self.clock.monotonic_us());
        let is_set = !matches!(&of, Of::Runs(runs) if runs.len() == 1);
        let reader = Rc::new(Reader::new(id, sink, (filter, is_set), now_us));
        match of {
            Of::Feed(of) => {
                self.readers.insert(id, Known { reader: reader.clone(), runs: Vec::new(), left: 0 });
                let over = self.feed.subscribe(id, reader, of);
                self.forget_all(over);
                self.ask_for_feeds();
            }
            Of::Runs(runs) => {
                let run_ids: Vec<RunId> = runs.iter().map(|(run_id, _)| *run_id).collect();
                let known = Known { reader: reader.clone(), left: run_ids.len(), runs: run_ids };
                self.readers.insert(id, known);
                for (run_id, from) in runs {
                    if !self.readers.contains_key(&id) {
                        // One of them broke it off.
                        break;
                    }
                    let group = Group::new(run_id);
                    self.groups.entry(run_id).or_insert_with(|| Entry { number: id, group });
                    let wish = (reader.clone(), from);
                    self.with_group(run_id, None, |group, actions| group.subscribe(id, wish, actions));
                }
            }
        }
        self.parts.subscribers.open.set(self.readers.len() as u64);
    }

    /// The reader has left, or is broken off: it is taken out of everything.
    pub(super) fn forget(&mut self, id: u64) {
        let Some(known) = self.readers.remove(&id) else { return };
        self.feed.leave(id);
        for run_id in known.runs {
            self.with_group(run_id, None, |group, _| group.leave(id));
        }
        self.parts.subscribers.open.set(self.readers.len() as u64);
    }

    pub(super) fn forget_all(&mut self, ids: Vec<u64>) {
        ids.into_iter().for_each(|id| self.forget(id));
    }

    /// A group has no more to say to a reader.
    pub(super) fn closed(&mut self, id: u64, ended: bool) {
        let Some(known) = self.readers.get_mut(&id) else { return };
        known.left = known.left.saturating_sub(1);
        if !ended || known.left == 0 {
            self.forget(id);
        } else {
            self.turns.push_back(id);
        }
    }
}
