//! Which segments of the log are still needed, and by whom.
//!
//! A sealed segment moves through: `live` (a run has events in it of which the index knows nothing: neither the run's row
//! nor an image that holds them) -> `archived` (recovery may skip it) -> `expired` (all its runs have ended, and retention
//! has passed for all of them; the index forgets the runs) -> recycled. The index thread does the work; the shard decides.
//! A segment that was archived while runs in it went on is marked anew when the last of them is in the index: only then is
//! it known when it may expire.

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
    /// Runs with events in it that are in no image, and that are not yet in the index.
    live: u64,
    /// Runs that are unfinished or not yet in the index.
    held: u64,
    /// When the last of its finished runs may be forgotten.
    expires_at: Timestamp,
    stage: Stage,
    /// The mark says that a run in it goes on.
    open: bool,
    /// What became of its runs before the last start is not known: its term begins when the last of them has ended.
    unknown: bool,
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

    /// A run with these frames, of which an image holds the first `settled`, has more events in `frame`.
    pub(super) fn touch(&mut self, (frames, settled): (&[FrameRef], usize), frame: FrameRef) {
        let is_here = |last: Option<&FrameRef>| last.is_some_and(|last| last.segment == frame.segment);
        let (held, live) = (is_here(frames.last()), is_here(frames.get(settled..).and_then(<[_]>::last)));
        if !held || !live {
            let usage = self.uses.entry(frame.segment).or_default();
            usage.held += u64::from(!held);
            usage.live += u64::from(!live);
        }
    }

    /// A run that came back from an image: the first `settled` of its frames need not be read.
    pub(super) fn restored(&mut self, frames: &[FrameRef], settled: usize) {
        for at in 0..frames.len() {
            let (before, rest) = frames.split_at(at);
            let Some(frame) = rest.first() else { continue };
            if at < settled {
                if before.last().is_none_or(|last| last.segment != frame.segment) {
                    self.uses.entry(frame.segment).or_default().held += 1;
                }
            } else {
                self.touch((before, settled), *frame);
            }
        }
    }

    /// An image in the index holds the run's frames from `from` to before `to`.
    pub(super) fn settled(&mut self, frames: &[FrameRef], from: usize, to: usize) {
        let left = frames.get(to).map(|frame| frame.segment);
        for segment in segments(frames.get(from..to).unwrap_or_default()).filter(|at| Some(*at) != left) {
            if let Some(usage) = self.uses.get_mut(&segment) {
                usage.live = usage.live.saturating_sub(1);
            }
        }
    }

    /// A finished run with events in `frames`, of which an image held the first `settled`, is in the index. One that was
    /// started under an idempotency key stays as long as the key answers.
    pub(super) fn indexed(&mut self, frames: &[FrameRef], settled: usize, (ended_at, keyed): Ended) {
        let kept = if keyed { self.kept_longest() } else { self.retention };
        for segment in segments(frames) {
            if let Some(usage) = self.uses.get_mut(&segment) {
                usage.held = usage.held.saturating_sub(1);
                usage.expires_at = usage.expires_at.max(ended_at.saturating_add(kept));
            }
        }
        self.settled(frames, settled, frames.len());
    }

    /// How long any run may be kept after its end.
    fn kept_longest(&self) -> Duration {
        self.retention.max(Duration::from_secs(limits::IDEMPOTENCY_KEY_SECONDS))
    }

    /// A segment that was found archived at start.
    pub(super) fn archived(&mut self, segment: u64, expires_at: Timestamp) {
        let usage = self.uses.entry(segment).or_default();
        usage.stage = Stage::Archived;
        let open = expires_at == Timestamp::MAX;
        (usage.open, usage.unknown) = (open, open);
        usage.expires_at = if open { Timestamp::default() } else { expires_at };
    }

    /// What can be done now for the segments that take no more frames, oldest first. A segment that no run ever touched
    /// (it holds claims only) is archived at once. None expires before an older one: the beginning of a run must not be
    /// read again when nobody knows any more that it has ended.
    pub(super) fn steps(&mut self, sealed: &[Sealed], now: Timestamp, steps: &mut Vec<SegmentStep>) {
        let kept_longest = self.kept_longest();
        let mut is_oldest = true;
        for sealed in sealed {
            let segment = sealed.segment;
            let usage = self.uses.entry(segment).or_default();
            let over = usage.held == 0;
            let archives = usage.stage == Stage::Live && usage.live == 0;
            if archives || (usage.stage == Stage::Archived && usage.open && over) {
                usage.stage = Stage::Archived;
                usage.open = !over;
                if over && std::mem::take(&mut usage.unknown) {
                    usage.expires_at = usage.expires_at.max(now.saturating_add(kept_longest));
                }
                let expires_at = if over { usage.expires_at } else { Timestamp::MAX };
                steps.push(SegmentStep::Archive(SegmentMark { sealed: *sealed, expires_at }));
            }
            if is_oldest && over && usage.stage == Stage::Archived && usage.expires_at <= now {
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

/// The segments that frames lie in, each once.
fn segments(frames: &[FrameRef]) -> impl Iterator<Item = u64> {
    let mut last = None;
    frames.iter().map(|frame| frame.segment).filter(move |segment| last.replace(*segment) != Some(*segment))
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
        segments.touch((&[], 0), frame(1, 0));
        segments.touch((&[], 0), frame(1, 4096));
        segments.touch((&[frame(1, 4096)], 0), frame(1, 8192));
        segments.touch((&[frame(1, 8192)], 0), frame(2, 0));
        segments.indexed(&[frame(1, 0)], 0, (Timestamp::from_micros(10), false));
        assert_eq!(steps(&mut segments, 3, 1_000), [], "one run still lives in both");
        let frames = [frame(1, 4096), frame(1, 8192), frame(2, 0)];
        segments.indexed(&frames, 0, (Timestamp::from_micros(50), false));
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
        segments.touch((&[], 0), frame(1, 0));
        segments.touch((&[], 0), frame(2, 0));
        segments.indexed(&[frame(2, 0)], 0, (Timestamp::from_micros(10), false));
        let archived =
            |steps: &[SegmentStep]| steps.iter().all(|step| matches!(step, SegmentStep::Archive(_)));
        assert!(archived(&steps(&mut segments, 3, 1_000)), "a run still lives in the first");
        segments.indexed(&[frame(1, 0)], 0, (Timestamp::from_micros(20), true));
        assert!(archived(&steps(&mut segments, 3, 1_000)));
        let key_us = limits::IDEMPOTENCY_KEY_SECONDS * 1_000_000;
        assert_eq!(steps(&mut segments, 3, key_us), []);
        let both = [SegmentStep::Expire { segment: 1 }, SegmentStep::Expire { segment: 2 }];
        assert_eq!(steps(&mut segments, 3, key_us + 20), both);
    }

    // RELIABILITY 2.7
    #[test]
    fn an_image_frees_a_segment_for_reading_and_only_the_end_of_the_run_for_forgetting() {
        let mut segments = Segments::new(Duration::from_micros(100));
        let frames = [frame(1, 0), frame(1, 4096), frame(2, 0)];
        for at in 0..3 {
            segments.touch((&frames[..at], 0), frames[at]);
        }
        assert_eq!(steps(&mut segments, 2, 1_000), [], "no image yet");
        segments.settled(&frames, 0, 1);
        assert_eq!(steps(&mut segments, 2, 1_000), [], "the image holds one of its two frames");
        segments.settled(&frames, 1, 2);
        let mark = |expires_at| SegmentStep::Archive(SegmentMark { sealed: sealed(1), expires_at });
        assert_eq!(steps(&mut segments, 2, 1_000), [mark(Timestamp::MAX)]);
        assert_eq!(steps(&mut segments, 2, 1_000), [], "the run goes on");
        segments.indexed(&frames, 2, (Timestamp::from_micros(1_000), false));
        assert_eq!(steps(&mut segments, 2, 1_050), [mark(Timestamp::from_micros(1_100))]);
        assert_eq!(steps(&mut segments, 2, 1_100), [SegmentStep::Expire { segment: 1 }]);
    }

    #[test]
    fn events_after_an_image_hold_the_segment_again() {
        let mut segments = Segments::new(Duration::ZERO);
        let frames = [frame(1, 0), frame(1, 4096)];
        segments.touch((&[], 0), frames[0]);
        segments.settled(&frames[..1], 0, 1);
        segments.touch((&frames[..1], 1), frames[1]);
        assert_eq!(steps(&mut segments, 2, 1_000), []);
        segments.settled(&frames, 1, 2);
        assert_eq!(steps(&mut segments, 2, 1_000).len(), 1);
    }

    #[test]
    fn what_was_archived_while_a_run_went_on_gets_its_term_after_a_restart() {
        let mut segments = Segments::new(Duration::from_micros(100));
        let frames = [frame(1, 0), frame(2, 0)];
        segments.restored(&frames, 1);
        segments.archived(1, Timestamp::MAX);
        assert_eq!(steps(&mut segments, 2, 5_000), [], "the run goes on");
        segments.indexed(&frames, 1, (Timestamp::from_micros(6_000), false));
        let key_us = limits::IDEMPOTENCY_KEY_SECONDS * 1_000_000;
        let expires_at = Timestamp::from_micros(7_000 + key_us);
        let again = steps(&mut segments, 2, 7_000);
        assert_eq!(again, [SegmentStep::Archive(SegmentMark { sealed: sealed(1), expires_at })]);
        assert_eq!(steps(&mut segments, 2, 7_000 + key_us), [SegmentStep::Expire { segment: 1 }]);
    }
}
