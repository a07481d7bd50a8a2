//! Children that were called back, until their owners have heard.
//!
//! A recall follows from the events of its run, so after a crash it is asked for again while these are read. A segment of
//! runs that are all in the index is not read: so a run that has ended keeps its segments as if it had not, until nothing
//! of it is open here. Whoever tells the child says when it has heard ([`Command::Recalled`]). One entry for each run with
//! something open; with a child's shard out of order for long, segments stay longer. For the same reason the image of such
//! a run, which stands for segments that are read no more, outlives its row: when the last child has heard, the row is put
//! once more, and takes the image away.
//!
//! [`Command::Recalled`]: crate::engine::command::Command::Recalled

use smallvec::SmallVec;

use super::{Entry, IdMap, Shard, ShardConfig};
use crate::engine::{Recall, Recalled};
use crate::model::{FrameRef, RunId};
use crate::store::archive::ArchiveRow;

/// What is open, by run.
#[derive(Debug, Default)]
pub(super) struct Recalls(IdMap<RunId, Open>);

/// Recalls of one run that nobody has heard yet.
#[derive(Debug, Default)]
struct Open {
    count: usize,
    /// What the run has left, once it is in the index.
    indexed: Option<Left>,
    /// Its row went to the index without taking its image away.
    withheld: bool,
    /// Nothing is open any more; the image is being taken away.
    closing: bool,
}

/// What is left of a run that has ended.
#[derive(Debug)]
pub(super) struct Left {
    /// Where its events stand.
    frames: SmallVec<[FrameRef; 2]>,
    /// So many of the frames an image holds.
    saved: usize,
    /// Its row, when it has an image.
    row: Option<Box<ArchiveRow>>,
}

impl Left {
    /// Of a run of this shard.
    pub(super) fn of(entry: &Entry, config: &ShardConfig) -> Self {
        Self {
            frames: entry.frames.clone(),
            saved: entry.saved.frames,
            row: entry.saved.is_any().then(|| Box::new(entry.row(config))),
        }
    }

    /// Of a run of which an image holds the first `saved` frames.
    pub(super) fn of_row(row: &ArchiveRow, saved: usize) -> Self {
        Self {
            frames: row.frames.iter().copied().collect(),
            saved,
            row: row.imaged.then(|| Box::new(row.clone())),
        }
    }
}

/// How many of these are of children.
pub(super) fn of_children<'r>(recalls: impl IntoIterator<Item = &'r Recall>) -> usize {
    recalls.into_iter().filter(|recall| matches!(recall.whom, Recalled::Child(_))).count()
}

impl Recalls {
    /// So many more children are called back by a run.
    pub(super) fn opened(&mut self, run_id: RunId, count: usize) {
        if count > 0 {
            self.0.entry(run_id).or_default().count += count;
        }
    }

    /// A run with an image has ended. Is the image kept, because a child has yet to hear?
    pub(super) fn withhold(&mut self, run_id: RunId) -> bool {
        let open = self.0.get_mut(&run_id);
        open.map(|open| open.withheld = true).is_some()
    }

    /// The run is in the index.
    fn indexed(&mut self, run_id: RunId, left: Left) -> Next {
        let Some(open) = self.0.get_mut(&run_id) else { return Next::Free(left) };
        open.indexed = Some(left);
        self.next(run_id)
    }

    /// A child has heard.
    fn heard(&mut self, run_id: RunId) -> Next {
        if let Some(open) = self.0.get_mut(&run_id) {
            open.count = open.count.saturating_sub(1);
        }
        self.next(run_id)
    }

    fn next(&mut self, run_id: RunId) -> Next {
        let Some(open) = self.0.get_mut(&run_id).filter(|open| open.count == 0 && !open.closing) else {
            return Next::Nothing;
        };
        if open.withheld {
            let row = open.indexed.as_mut().and_then(|left| left.row.take());
            open.closing = row.is_some();
            return row.map_or(Next::Nothing, Next::Image);
        }
        match self.0.remove(&run_id).and_then(|open| open.indexed) {
            Some(left) => Next::Free(left),
            None => Next::Nothing,
        }
    }

    /// The image of a run is gone.
    fn closed(&mut self, run_id: RunId) -> Option<Left> {
        if !self.0.get(&run_id)?.closing {
            return None;
        }
        self.0.remove(&run_id)?.indexed
    }
}

/// What follows.
enum Next {
    /// A child has yet to hear, or the run is not in the index.
    Nothing,
    /// Its image is to be taken away first.
    Image(Box<ArchiveRow>),
    /// Nothing is needed of it any more.
    Free(Left),
}

impl Shard {
    /// The run is in the index: its segments are free of it, unless a child has yet to hear of it.
    pub(super) fn free_segments(&mut self, run_id: RunId, left: Left) {
        let next = self.recalls.indexed(run_id, left);
        self.follow(next);
    }

    /// A child that was called back has heard, or is not there.
    pub(super) fn recalled(&mut self, run_id: RunId) {
        let next = self.recalls.heard(run_id);
        self.follow(next);
    }

    /// The row of a run that is not here is in the index: it was put again to take the image away.
    pub(super) fn image_gone(&mut self, run_id: RunId) {
        let next = self.recalls.closed(run_id).map_or(Next::Nothing, Next::Free);
        self.follow(next);
    }

    fn follow(&mut self, next: Next) {
        match next {
            Next::Nothing => {}
            Next::Image(mut row) => {
                row.imaged = true;
                self.releases.rows.push(*row);
            }
            Next::Free(left) => self.segments.settled(&left.frames, left.saved, left.frames.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use crate::engine::command::{Command, Envelope, Errand, Recalled, ReplyTo, Start};
    use crate::model::{FrameRef, Partition, RunId, Value};
    use crate::runtime::shard::{Recovery, SegmentStep, Shard, ShardConfig, Sources};
    use crate::store::log::Sealed;
    use crate::time::Timestamp;

    const NOW: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);

    fn shard() -> Shard {
        let config = ShardConfig { index: 0, epoch: 1, retention: Duration::ZERO, runs_live_max: 9 };
        Shard::new(config, Arc::default())
    }

    fn parent() -> Start {
        let document =
            br#"{"name": "parent", "nodes": {"sub": {"type": "composite", "with": {"workflow": "child"}}}}"#;
        let compiled =
            crate::compile::compile(document, crate::compile::Format::Json, &Default::default()).unwrap();
        Start {
            run_id: RunId::new(NOW, Partition::new(0), [7; 10]),
            ir: compiled.ir,
            inputs: Value::Null,
            seed: 1,
            idempotency: None,
            run_key: None,
            mode: None,
            layered: None,
            deadline: None,
            parent: None,
        }
    }

    fn give(shard: &mut Shard, command: Command) {
        let reply_to = ReplyTo { core: 0, slot: 0, generation: 0 };
        shard.command(Envelope { reply_to, command }, NOW);
    }

    /// What is in the open batch becomes durable in segment 1.
    fn commit(shard: &mut Shard, offset: u32) {
        shard.seal(Vec::new()).unwrap();
        shard.committed(FrameRef { segment: 1, offset });
    }

    fn steps(shard: &mut Shard) -> Vec<SegmentStep> {
        let fence = crate::store::Fence::default();
        let sealed = Sealed { segment: 1, first: 1, last: 1, last_crc: 0, fence };
        let mut steps = Vec::new();
        shard.segment_steps(&[sealed], NOW, &mut steps);
        steps
    }

    fn recalled(shard: &mut Shard) -> usize {
        let errands = shard.releases().errands.drain(..);
        let child = |errand: &Errand| matches!(errand, Errand::Recall { recall, .. } if matches!(recall.whom, Recalled::Child(_)));
        errands.filter(child).count()
    }

    #[test]
    fn a_segment_is_kept_until_the_child_that_was_called_back_in_it_has_heard() {
        let (mut shard, start) = (shard(), parent());
        let run_id = start.run_id;
        give(&mut shard, Command::Start(Box::new(start)));
        commit(&mut shard, 0);
        give(&mut shard, Command::Terminate { run_id, reason: "enough".into() });
        commit(&mut shard, 4096);
        assert_eq!(recalled(&mut shard), 1);
        assert_eq!(steps(&mut shard), [], "its row is on its way to the index");
        shard.indexed(&[run_id], NOW);
        assert_eq!(steps(&mut shard), [], "a crash now must find the recall in the segment");
        give(&mut shard, Command::Recalled(run_id));
        assert!(matches!(steps(&mut shard).as_slice(), [SegmentStep::Move(_)]));
        give(&mut shard, Command::Recalled(run_id));
        assert!(shard.recalls.0.is_empty(), "nothing is kept of what is over");
    }

    #[test]
    fn a_run_whose_child_has_heard_before_it_was_indexed_keeps_nothing() {
        let (mut shard, start) = (shard(), parent());
        let run_id = start.run_id;
        give(&mut shard, Command::Start(Box::new(start)));
        give(&mut shard, Command::Terminate { run_id, reason: "enough".into() });
        commit(&mut shard, 0);
        give(&mut shard, Command::Recalled(run_id));
        shard.indexed(&[run_id], NOW);
        assert_eq!(steps(&mut shard).len(), 1);
    }

    #[test]
    fn what_was_open_before_a_crash_is_open_after_it() {
        let (run_id, ir) = (parent().run_id, parent().ir);
        let mut bytes = Vec::new();
        {
            let mut shard = shard();
            give(&mut shard, Command::Start(Box::new(parent())));
            give(&mut shard, Command::Terminate { run_id, reason: "enough".into() });
            bytes.extend(shard.seal(Vec::new()).unwrap());
        }
        let config = ShardConfig { index: 0, epoch: 1, retention: Duration::ZERO, runs_live_max: 9 };
        let mut recovery = Recovery::new(config, Arc::default());
        for burst in crate::store::record::Bursts::new(&bytes).unwrap() {
            let frame = FrameRef { segment: 1, offset: 0 };
            recovery.burst(&burst.unwrap(), frame, &mut Only(ir.clone())).unwrap();
        }
        assert_eq!(recovery.take_rows().len(), 1, "its row goes to the index again");
        let mut shard = recovery.finish(&mut Only(ir)).unwrap();
        assert_eq!(recalled(&mut shard), 1, "the child is told again");
        assert_eq!(steps(&mut shard), []);
        give(&mut shard, Command::Recalled(run_id));
        assert_eq!(steps(&mut shard).len(), 1);
    }

    /// Knows one document.
    struct Only(Arc<crate::ir::Ir>);

    impl crate::engine::Graphs for Only {
        fn of(&mut self, _: &crate::model::event::DocumentHash) -> Option<Arc<crate::ir::Ir>> {
            Some(self.0.clone())
        }
    }

    impl Sources for Only {
        fn content(&mut self, content: &crate::model::Content) -> Result<Value, String> {
            Err(content.to_string())
        }

        fn ended(&mut self, _: RunId) -> Result<Option<Timestamp>, String> {
            Ok(None)
        }
    }
}
