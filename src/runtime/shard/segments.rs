//! Which segments of the log are still needed, and by whom.
//!
//! A sealed segment moves through: `live` (an unfinished or not yet indexed run has events in it) -> `archived` (all
//! its runs are in the index; recovery may skip it) -> `expired` (retention has passed for all of them; the index
//! forgets the runs) -> recycled. The index thread does the work; the shard decides.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::limits;
use crate::model::FrameRef;
use crate::store::archive::SegmentMark;
use crate::store::log::Sealed;
use crate::time::Timestamp;

/// What a segment is needed for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Use {
    /// Runs that are unfinished or not yet in the index.
    live: u64,
    /// When the last of its finished runs may be forgotten.
    expires_at: Timestamp,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Live,
    Archived,
    Expiring,
}

/// What is to be done for a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SegmentStep {
    /// Mark it in the index: every run in it is there.
    Archive(SegmentMark),
    /// Drop its runs from the index, then recycle it.
    Expire {
        /// Which.
        segment: u64,
    },
}

/// When a run ended, and whether it was started under an idempotency key.
pub(super) type Ended = (Timestamp, bool);

/// Book-keeping over one shard's segments.
#[derive(Debug)]
pub(super) struct Segments {
    uses: BTreeMap<u64, Use>,
    retention: Duration,
}

impl Segments {
    pub(super) fn new(retention: Duration) -> Self {
        Self { uses: BTreeMap::new(), retention }
    }

    /// A run has events in `frame`; `previous` is its frame before that.
    pub(super) fn touch(&mut self, previous: Option<FrameRef>, frame: FrameRef) {
        if previous.is_none_or(|previous| previous.segment != frame.segment) {
            self.uses.entry(frame.segment).or_default().live += 1;
        }
    }

    /// A finished run with events in `frames` is in the index. One that was started under an idempotency key stays as long
    /// as the key answers.
    pub(super) fn indexed(&mut self, frames: &[FrameRef], (ended_at, keyed): Ended) {
        let key = Duration::from_secs(limits::IDEMPOTENCY_KEY_SECONDS);
        let kept = if keyed { self.retention.max(key) } else { self.retention };
        let mut last = None;
        for frame in frames.iter().filter(|frame| last.replace(frame.segment) != Some(frame.segment)) {
            if let Some(segment) = self.uses.get_mut(&frame.segment) {
                segment.live = segment.live.saturating_sub(1);
                segment.expires_at = segment.expires_at.max(ended_at.saturating_add(kept));
            }
        }
    }

    /// A segment that was found archived at start.
    pub(super) fn archived(&mut self, segment: u64, expires_at: Timestamp) {
        self.uses.insert(segment, Use { live: 0, expires_at, stage: Stage::Archived });
    }

    /// What can be done now for the segments that take no more frames, oldest first. A segment that no run ever touched
    /// (it holds claims only) is archived at once. None expires before an older one: the beginning of a run must not be
    /// read again when nobody knows any more that it has ended.
    pub(super) fn steps(&mut self, sealed: &[Sealed], now: Timestamp, steps: &mut Vec<SegmentStep>) {
        let mut is_oldest = true;
        for sealed in sealed {
            let segment = sealed.segment;
            let usage = self.uses.entry(segment).or_default();
            if usage.stage == Stage::Live && usage.live == 0 {
                usage.stage = Stage::Archived;
                steps.push(SegmentStep::Archive(SegmentMark {
                    sealed: *sealed,
                    expires_at: usage.expires_at,
                }));
            }
            if is_oldest && usage.stage == Stage::Archived && usage.expires_at <= now {
                usage.stage = Stage::Expiring;
                steps.push(SegmentStep::Expire { segment });
            }
            is_oldest &= usage.stage == Stage::Expiring;
        }
    }

    /// The segment went back to the log.
    pub(super) fn recycled(&mut self, segment: u64) {
        self.uses.remove(&segment);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(segment: u64, offset: u32) -> FrameRef {
        FrameRef { segment, offset }
    }

    fn sealed(segment: u64) -> Sealed {
        Sealed { segment, first: segment, last: segment, last_crc: 0, fence: crate::store::Fence::default() }
    }

    /// Steps when everything before `current` is sealed.
    fn steps(segments: &mut Segments, current: u64, now: u64) -> Vec<SegmentStep> {
        let mut steps = Vec::new();
        let sealed: Vec<_> = (1..current).map(sealed).collect();
        segments.steps(&sealed, Timestamp::from_micros(now), &mut steps);
        steps
    }

    #[test]
    fn a_segment_is_kept_until_its_last_run_is_indexed_and_forgotten() {
        let mut segments = Segments::new(Duration::from_micros(100));
        segments.touch(None, frame(1, 0));
        segments.touch(None, frame(1, 4096));
        segments.touch(Some(frame(1, 4096)), frame(1, 8192));
        segments.touch(Some(frame(1, 8192)), frame(2, 0));
        segments.indexed(&[frame(1, 0)], (Timestamp::from_micros(10), false));
        assert_eq!(steps(&mut segments, 3, 1_000), [], "one run still lives in both");
        segments.indexed(&[frame(1, 4096), frame(1, 8192), frame(2, 0)], (Timestamp::from_micros(50), false));
        let expires_at = Timestamp::from_micros(150);
        assert_eq!(
            steps(&mut segments, 2, 100),
            [SegmentStep::Archive(SegmentMark { sealed: sealed(1), expires_at })]
        );
        assert_eq!(steps(&mut segments, 2, 149), []);
        assert_eq!(steps(&mut segments, 2, 150), [SegmentStep::Expire { segment: 1 }]);
        assert_eq!(steps(&mut segments, 2, 151), [], "each step once; the current segment is never touched");
        segments.recycled(1);
    }

    #[test]
    fn no_segment_expires_before_an_older_one_and_a_key_is_kept() {
        let mut segments = Segments::new(Duration::from_micros(100));
        segments.touch(None, frame(1, 0));
        segments.touch(None, frame(2, 0));
        segments.indexed(&[frame(2, 0)], (Timestamp::from_micros(10), false));
        let archived =
            |steps: &[SegmentStep]| steps.iter().all(|step| matches!(step, SegmentStep::Archive(_)));
        assert!(archived(&steps(&mut segments, 3, 1_000)), "a run still lives in the first");
        segments.indexed(&[frame(1, 0)], (Timestamp::from_micros(20), true));
        assert!(archived(&steps(&mut segments, 3, 1_000)));
        let key_us = limits::IDEMPOTENCY_KEY_SECONDS * 1_000_000;
        assert_eq!(steps(&mut segments, 3, key_us), []);
        let both = [SegmentStep::Expire { segment: 1 }, SegmentStep::Expire { segment: 2 }];
        assert_eq!(steps(&mut segments, 3, key_us + 20), both);
    }
}
