//! Which segments of the log are still needed, and by whom.
//!
//! A sealed segment moves through: `live` (a run has events in it that are nowhere else) -> `moving` (the index thread moves it to
//! history) -> given back to the log. Oldest first: that is the order in which the log takes them, and a run's later events
//! never go before its first ones. How long history is kept is nothing that a shard knows.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::model::FrameRef;
use crate::store::log::Sealed;
use crate::time::Timestamp;

/// After this time a segment that could not be moved is tried again; after each further failure twice as long.
const TRY_AGAIN: Duration = Duration::from_secs(2);
/// At most as long as this times [`TRY_AGAIN`].
const LONGER_MAX: u32 = 32;

/// What a segment is needed for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Use {
    /// Runs that are neither in the index nor saved elsewhere.
    live: u64,
    stage: Stage,
    /// Not moved before.
    not_before: Timestamp,
    /// How often it could not be moved.
    failures: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Live,
    Moving,
    Moved,
}

/// What is to be done for a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SegmentStep {
    /// Move it to history.
    Move(Sealed),
    /// It was moved in an earlier life: give it back.
    Release {
        /// Which.
        segment: u64,
    },
}

/// Book-keeping over one shard's segments.
#[derive(Debug, Default)]
pub(super) struct Segments {
    uses: BTreeMap<u64, Use>,
}

impl Segments {
    /// A run with these frames, of which an image holds the first `saved`, has more events in `frame`.
    pub(super) fn touch(&mut self, (frames, saved): (&[FrameRef], usize), frame: FrameRef) {
        let last = frames.get(saved..).and_then(<[_]>::last);
        if last.is_none_or(|last| last.segment != frame.segment) {
            self.uses.entry(frame.segment).or_default().live += 1;
        }
    }

    /// A run that came back from an image: the first `saved` of its frames need not be read.
    pub(super) fn restored(&mut self, frames: &[FrameRef], saved: usize) {
        for at in saved..frames.len() {
            let (before, rest) = frames.split_at(at);
            if let Some(frame) = rest.first() {
                self.touch((before, saved), *frame);
            }
        }
    }

    /// What the events in the frames of one run say, from `from` to before `to`, is in the index: in its row, or in an image.
    pub(super) fn settled(&mut self, frames: &[FrameRef], from: usize, to: usize) {
        let left = frames.get(to).map(|frame| frame.segment);
        let mut last = None;
        for frame in frames.get(from..to).unwrap_or_default() {
            if last.replace(frame.segment) != Some(frame.segment)
                && left != Some(frame.segment)
                && let Some(usage) = self.uses.get_mut(&frame.segment)
            {
                usage.live = usage.live.saturating_sub(1);
            }
        }
    }

    /// A segment that was found marked at start: moved, or (by format 1) left where it was.
    pub(super) fn archived(&mut self, segment: u64, moved: bool) {
        let stage = if moved { Stage::Moved } else { Stage::Live };
        self.uses.entry(segment).or_default().stage = stage;
    }

    /// What can be done now for the segments that take no more frames, oldest first, up to the first that must stay. One that no
    /// run ever touched (it holds claims only) is moved at once.
    pub(super) fn steps(&mut self, sealed: &[Sealed], now: Timestamp, steps: &mut Vec<SegmentStep>) {
        for sealed in sealed {
            let usage = self.uses.entry(sealed.segment).or_default();
            match usage.stage {
                Stage::Moved => steps.push(SegmentStep::Release { segment: sealed.segment }),
                Stage::Moving => {}
                Stage::Live if usage.live == 0 && usage.not_before <= now => {
                    usage.stage = Stage::Moving;
                    steps.push(SegmentStep::Move(*sealed));
                }
                Stage::Live => return,
            }
        }
    }

    /// The segment could not be moved.
    pub(super) fn stays(&mut self, segment: u64, now: Timestamp) {
        if let Some(usage) = self.uses.get_mut(&segment) {
            let longer = 1_u32.checked_shl(usage.failures).unwrap_or(LONGER_MAX).min(LONGER_MAX);
            usage.failures = usage.failures.saturating_add(1);
            (usage.stage, usage.not_before) = (Stage::Live, now.saturating_add(TRY_AGAIN * longer));
        }
    }

    /// The segment goes back to the log.
    pub(super) fn forget(&mut self, segment: u64) {
        self.uses.remove(&segment);
        // Those behind it may have been held up by it alone.
        for usage in self.uses.values_mut() {
            (usage.not_before, usage.failures) = (Timestamp::default(), 0);
        }
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

    fn moves(segment: u64) -> SegmentStep {
        SegmentStep::Move(sealed(segment))
    }

    #[test]
    fn a_segment_is_moved_when_its_last_run_is_settled_and_none_before_an_older_one() {
        let mut segments = Segments::default();
        segments.touch((&[], 0), frame(1, 0));
        segments.touch((&[], 0), frame(1, 4096));
        segments.touch((&[frame(1, 4096)], 0), frame(1, 8192));
        segments.touch((&[frame(1, 8192)], 0), frame(2, 0));
        segments.touch((&[], 0), frame(3, 0));
        segments.settled(&[frame(1, 0)], 0, 1);
        segments.settled(&[frame(3, 0)], 0, 1);
        assert_eq!(steps(&mut segments, 4, 1), [], "one run still lives in the first two");
        segments.settled(&[frame(1, 4096), frame(1, 8192), frame(2, 0)], 0, 3);
        assert_eq!(steps(&mut segments, 2, 1), [moves(1)]);
        assert_eq!(steps(&mut segments, 4, 1), [moves(2), moves(3)], "each step once");
        segments.forget(1);
    }

    // RELIABILITY 2.7
    #[test]
    fn an_image_frees_a_segment_and_events_after_it_hold_it_again() {
        let mut segments = Segments::default();
        let frames = [frame(1, 0), frame(1, 4096), frame(1, 8192)];
        segments.touch((&[], 0), frames[0]);
        segments.touch((&frames[..1], 0), frames[1]);
        segments.settled(&frames[..2], 0, 1);
        assert_eq!(steps(&mut segments, 2, 1), [], "the image holds one of its two frames");
        segments.settled(&frames[..2], 1, 2);
        segments.touch((&frames[..2], 2), frames[2]);
        assert_eq!(steps(&mut segments, 2, 1), [], "it goes on in the same segment");
        segments.settled(&frames, 2, 3);
        assert_eq!(steps(&mut segments, 2, 1), [moves(1)]);
        let mut segments = Segments::default();
        segments.restored(&[frame(1, 0), frame(2, 0)], 1);
        assert_eq!(steps(&mut segments, 3, 1), [moves(1)], "what an image holds need not stay");
    }

    #[test]
    fn one_that_could_not_be_moved_is_tried_again_later_and_holds_up_the_rest() {
        let mut segments = Segments::default();
        assert_eq!(steps(&mut segments, 2, 1), [moves(1)]);
        segments.stays(1, Timestamp::from_micros(5));
        assert_eq!(steps(&mut segments, 3, 2_000_004), []);
        assert_eq!(steps(&mut segments, 3, 2_000_005), [moves(1), moves(2)]);
        // Less and less often, but not never.
        for (tried, after) in (1..40).zip([4, 8, 16, 32, 64].into_iter().chain(std::iter::repeat(64))) {
            let mut now = 0;
            segments.stays(1, Timestamp::from_micros(now));
            while steps(&mut segments, 2, now).is_empty() {
                now += 1_000_000;
            }
            assert_eq!(now, after * 1_000_000, "{tried}");
        }
        segments.stays(1, Timestamp::from_micros(5));
        segments.stays(2, Timestamp::from_micros(5));
        segments.forget(1);
        assert_eq!(steps(&mut segments, 3, 6), [moves(1), moves(2)], "one that went lets others go at once");
    }

    #[test]
    fn what_was_moved_before_the_start_is_given_back_and_what_was_only_marked_is_moved() {
        let mut segments = Segments::default();
        segments.archived(1, true);
        segments.archived(2, false);
        assert_eq!(steps(&mut segments, 3, 1), [SegmentStep::Release { segment: 1 }, moves(2)]);
    }
}
