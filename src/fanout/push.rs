//! What a shard sends to the fanout plane for a run that is watched.

use std::sync::Arc;

use crate::ir::Ir;
use crate::model::{EventBody, Kept, RunId, Seq};
use crate::time::Timestamp;

/// Durable events of one burst of one run, in order.
///
/// Sent only after they are durable. When the queue is full the shard drops the push, remembers that it did, and sets
/// `lagged` on the next push of that run; a push may then have no events at all. The hub reads again what is missing.
#[derive(Clone, Debug)]
pub struct Push {
    /// Whose events.
    pub run_id: RunId,
    /// Number of the first of them.
    pub first_seq: Seq,
    /// When they were decided.
    pub at: Timestamp,
    /// What happened.
    pub events: Vec<EventBody>,
    /// Which values in them are shown by reference.
    pub kept: Option<Arc<Kept>>,
    /// Pushes of this run before this one were dropped.
    pub lagged: bool,
    /// Which fanout cores watch the run.
    pub watchers: Cores,
    /// What feeds must know of the run; only when there are any.
    pub feed: Option<Whose>,
    /// Pushes for the feeds of that fanout core were dropped before this one.
    pub feed_lagged: bool,
}

/// What a feed must know of a run to tell its events.
#[derive(Clone, Debug)]
pub struct Whose {
    /// Its workflow, by the name inside the node.
    pub workflow: Arc<str>,
    /// Its graph, which names its nodes.
    pub graph: Arc<Ir>,
    /// Which fanout cores have feeds.
    pub cores: Cores,
}

impl Push {
    /// No event, only the word that feeds have missed some.
    pub fn gap(run_id: RunId) -> Self {
        Self {
            run_id,
            first_seq: 0,
            at: Timestamp::default(),
            events: Vec::new(),
            kept: None,
            lagged: false,
            watchers: Cores::default(),
            feed: None,
            feed_lagged: true,
        }
    }
}

/// Some of the fanout cores, of which there are at most [`limits::FANOUT_CORES_MAX`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cores(u64);

impl Cores {
    /// Adds one, or takes it out.
    pub fn set(&mut self, core: u16, is_in: bool) {
        let bit = 1_u64.checked_shl(u32::from(core)).unwrap_or(0);
        self.0 = if is_in { self.0 | bit } else { self.0 & !bit };
    }

    /// Is this one in?
    pub fn has(self, core: u16) -> bool {
        1_u64.checked_shl(u32::from(core)).is_some_and(|bit| self.0 & bit != 0)
    }

    /// Is none in?
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Those in either.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The lowest one, taken out.
    pub fn pop(&mut self) -> Option<u16> {
        let core = u16::try_from(self.0.trailing_zeros()).ok().filter(|core| *core < 64)?;
        self.0 &= self.0 - 1;
        Some(core)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_come_out_as_they_went_in() {
        let mut cores = Cores::default();
        for core in [63, 0, 5, 64] {
            cores.set(core, true);
        }
        cores.set(5, false);
        assert!(cores.has(63) && !cores.has(5) && !cores.has(64) && !cores.is_empty());
        assert_eq!(std::iter::from_fn(|| cores.pop()).collect::<Vec<_>>(), [0, 63]);
        assert!(cores.is_empty());
    }
}
