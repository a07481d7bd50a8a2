//! Which patches are made into artifacts together, and when: so many, or all that came within so much time. No clock here.

use std::collections::BTreeSet;
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use crate::limits;
use crate::store::artifacts::Which;

/// When a batch is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Policy {
    /// It has so many patches.
    pub(crate) patches: usize,
    /// Its first patch has waited so long.
    pub(crate) window: Duration,
}

/// The batch that is being filled. What is delivered twice is in it once.
#[derive(Debug)]
pub(crate) struct Batch {
    policy: Policy,
    patches: BTreeSet<Which>,
    /// When its first patch came, in monotonic microseconds.
    since_us: u64,
}

impl Batch {
    pub(crate) fn new(policy: Policy) -> Self {
        Self { policy, patches: BTreeSet::new(), since_us: 0 }
    }

    /// One more; not called when it is full.
    pub(crate) fn push(&mut self, which: Which, now_us: u64) {
        if self.patches.is_empty() {
            self.since_us = now_us;
        }
        self.patches.insert(which);
    }

    pub(crate) fn is_full(&self) -> bool {
        self.patches.len() >= self.policy.patches
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.patches.is_empty()
    }

    /// How long it still waits for more; `None` while there is nothing in it.
    pub(crate) fn waits(&self, now_us: u64) -> Option<Duration> {
        if self.patches.is_empty() {
            return None;
        }
        let waited = Duration::from_micros(now_us.saturating_sub(self.since_us));
        Some(if self.is_full() { Duration::ZERO } else { self.policy.window.saturating_sub(waited) })
    }

    /// What is in it, by run and version; then it is empty.
    pub(crate) fn take(&mut self) -> Vec<Which> {
        std::mem::take(&mut self.patches).into_iter().collect()
    }
}

/// The partition of a workflow: the same on every node, in every release.
pub(crate) fn partition(workflow: &str) -> usize {
    let digest = Sha256::digest(workflow.as_bytes());
    let number = digest.first_chunk::<8>().map_or(0, |bytes| u64::from_be_bytes(*bytes));
    usize::try_from(number % limits::MATERIALIZER_PARTITIONS as u64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::run_id;

    const POLICY: Policy = Policy { patches: 100, window: Duration::from_secs(5) };

    // F123
    #[test]
    fn the_hundredth_patch_fills_a_batch_at_once_and_a_lone_one_waits_for_five_seconds() {
        let mut batch = Batch::new(POLICY);
        assert_eq!(batch.waits(7), None);
        for version in 2..101 {
            batch.push((run_id(1), version), 10_000_000);
            assert!(!batch.is_full());
        }
        assert_eq!(batch.waits(10_000_000), Some(Duration::from_secs(5)));
        batch.push((run_id(1), 101), 10_000_001);
        assert!(batch.is_full());
        assert_eq!(batch.waits(10_000_001), Some(Duration::ZERO));
        assert_eq!(batch.take().len(), 100);
        assert_eq!(batch.waits(10_000_001), None);
        // The window begins with the first patch, not with the last one.
        batch.push((run_id(1), 102), 20_000_000);
        batch.push((run_id(1), 103), 24_000_000);
        assert_eq!(batch.waits(24_999_999), Some(Duration::from_micros(1)));
        assert_eq!(batch.waits(25_000_000), Some(Duration::ZERO));
        assert_eq!(batch.take(), [(run_id(1), 102), (run_id(1), 103)]);
    }

    // F131
    #[test]
    fn what_comes_twice_or_out_of_order_is_taken_once_and_in_order() {
        let mut batch = Batch::new(POLICY);
        for version in [4, 2, 4, 3, 2] {
            batch.push((run_id(2), version), 1);
            batch.push((run_id(1), version), 1);
        }
        let wanted: Vec<Which> =
            [1, 2].into_iter().flat_map(|run| (2..5).map(move |version| (run_id(run), version))).collect();
        assert_eq!(batch.take(), wanted);
    }

    // F127
    #[test]
    fn workflows_are_spread_evenly_and_always_alike() {
        let count = 100_000;
        let mut found = vec![0_usize; limits::MATERIALIZER_PARTITIONS];
        for number in 0..count {
            found[partition(&format!("acme/workflow-{number}"))] += 1;
        }
        let even = count / limits::MATERIALIZER_PARTITIONS;
        for (at, found) in found.iter().enumerate() {
            assert!(found.abs_diff(even) * 100 <= even * 5, "partition {at} has {found}, {even} are even");
        }
        // Never to change: what is in flight would change hands.
        assert_eq!(["", "order", "acme/order"].map(partition), [20, 15, 2]);
    }
}
