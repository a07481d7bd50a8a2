//! Events on their way to the fanout cores.
//!
//! A full queue holds no shard up: the push is dropped, and what is known of it is told as soon as there is room: by the run's
//! next push, and for feeds, which cannot see what they miss, by a push of its own when there is no next one.

use std::collections::{BTreeMap, BTreeSet};

use crate::failpoint;
use crate::fanout::{Cores, Push};
use crate::model::RunId;
use crate::queue::Sender;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Pushing {
    /// Watched runs of which a push to this core was dropped: the next one says so. Who watches asks again anyway.
    lagging: BTreeSet<(u16, RunId)>,
    /// Cores whose feeds miss events, and one of the runs.
    feeds_lagging: BTreeMap<u16, RunId>,
}

impl Pushing {
    /// Sends each to those that asked for it.
    pub(super) fn deliver(&mut self, doors: &[Sender<Push>], pushes: &mut Vec<Push>) {
        for push in pushes.drain(..) {
            failpoint::pass("fanout::push");
            let feeds = push.feed.as_ref().map_or_else(Cores::default, |feed| feed.cores);
            let mut cores = push.watchers.and(feeds);
            // One core is what there mostly is: nothing is copied then.
            let mut next = cores.pop();
            let mut push = Some(push);
            while let Some(core) = next {
                next = cores.pop();
                let copy = if next.is_some() { push.clone() } else { push.take() };
                if let (Some(door), Some(push)) = (doors.get(usize::from(core)), copy) {
                    self.send((core, door), push);
                }
            }
        }
        if !self.feeds_lagging.is_empty() {
            self.feeds_lagging.retain(|core, run_id| {
                let door = doors.get(usize::from(*core));
                door.is_some_and(|door| door.send(Push::gap(*run_id)).is_err())
            });
        }
    }

    fn send(&mut self, (core, door): (u16, &Sender<Push>), mut push: Push) {
        push.lagged = self.lagging.remove(&(core, push.run_id));
        push.feed_lagged = self.feeds_lagging.remove(&core).is_some();
        if let Err(push) = door.send(push) {
            if push.lagged || push.watchers.has(core) {
                self.lagging.insert((core, push.run_id));
            }
            if push.feed_lagged || push.feed.is_some_and(|feed| feed.cores.has(core)) {
                self.feeds_lagging.insert(core, push.run_id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fanout::Whose;
    use crate::model::Partition;
    use crate::queue::{FullPolicy, bounded};
    use crate::time::Timestamp;

    fn push(watched_by: &[u16], fed: &[u16]) -> Push {
        let cores = |list: &[u16]| {
            let mut cores = Cores::default();
            list.iter().for_each(|core| cores.set(*core, true));
            cores
        };
        let source = "{name: w, version: \"1\", nodes: {a: {type: function, with: {expr: \"1\"}}}}";
        let options = crate::compile::Options::default();
        let graph =
            crate::compile::compile(source.as_bytes(), crate::compile::Format::Yaml, &options).unwrap().ir;
        let run_id = RunId::new(Timestamp::from_micros(1), Partition::new(0), [1; 10]);
        let feed = Whose { workflow: "w".into(), graph, cores: cores(fed) };
        let feed = (!fed.is_empty()).then_some(feed);
        Push { first_seq: 1, watchers: cores(watched_by), feed, feed_lagged: false, ..Push::gap(run_id) }
    }

    #[test]
    fn each_core_gets_what_it_asked_for_and_hears_of_what_was_dropped() {
        let (first, mut at_first) = bounded("first", 2, FullPolicy::DropAndResync);
        let (second, mut at_second) = bounded("second", 1, FullPolicy::DropAndResync);
        let doors = [first, second];
        let mut pushing = Pushing::default();
        pushing.deliver(&doors, &mut vec![push(&[0], &[1]), push(&[1], &[]), push(&[0], &[1])]);
        let flags = |push: &Push| (push.lagged, push.feed_lagged);
        assert_eq!(at_first.try_recv().as_ref().map(flags), Some((false, false)));
        assert_eq!(at_first.try_recv().as_ref().map(flags), Some((false, false)));
        assert!(at_first.try_recv().is_none());
        assert_eq!(at_second.try_recv().as_ref().map(flags), Some((false, false)));
        assert!(at_second.try_recv().is_none(), "two were dropped");
        // Nothing happens any more, and still the feed hears of it, once.
        pushing.deliver(&doors, &mut Vec::new());
        pushing.deliver(&doors, &mut Vec::new());
        let gap = at_second.try_recv().unwrap();
        assert!(gap.feed_lagged && gap.events.is_empty() && at_second.try_recv().is_none());
        pushing.deliver(&doors, &mut vec![push(&[1], &[])]);
        assert_eq!(at_second.try_recv().as_ref().map(flags), Some((true, false)));
    }
}
