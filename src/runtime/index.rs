//! The index thread: finished runs into the archive, in bulk, away from every token's path.
//!
//! One unpinned thread for all shards. What comes while it writes is taken together in the next write. Its queue full:
//! the shard keeps the rows and tries again, and takes no further commands above `limits::UNINDEXED_RUNS_MAX`.

use std::sync::Arc;

use crate::failpoint;
use crate::queue::{Receiver, Sender};
use crate::runtime::plane::runner::Indexed;
use crate::runtime::shard::SegmentStep;
use crate::store::archive::ArchiveRow;
use crate::store::{Archive, Error};

/// What a shard wants of the index.
#[derive(Debug)]
pub(crate) enum IndexJob {
    /// Finished runs.
    Rows {
        /// Whose.
        shard: u16,
        /// In the order in which they ended.
        rows: Vec<ArchiveRow>,
    },
    /// A segment's next step.
    Segment {
        /// Whose.
        shard: u16,
        /// Which step.
        step: SegmentStep,
    },
    /// Nothing more comes.
    Stop,
}

/// The most rows written at once.
const ROWS_PER_WRITE: usize = 8_192;

/// Works until told to stop. An error of the index is reported and the rows are tried again: the log still has them.
pub(crate) async fn run(
    mut jobs: Receiver<IndexJob>,
    shards: Vec<Sender<Indexed>>,
    archive: Arc<dyn Archive>,
    mut report: impl FnMut(String),
) {
    let mut batch: Vec<ArchiveRow> = Vec::new();
    let mut owners: Vec<(u16, Vec<crate::model::RunId>)> = Vec::new();
    loop {
        let mut next = Some(jobs.recv().await);
        let mut stop = false;
        let mut segments = Vec::new();
        while let Some(job) = next.take() {
            match job {
                IndexJob::Rows { shard, rows } => {
                    owners.push((shard, rows.iter().map(|row| row.summary.run_id).collect()));
                    batch.extend(rows);
                }
                IndexJob::Segment { shard, step } => segments.push((shard, step)),
                IndexJob::Stop => stop = true,
            }
            if batch.len() < ROWS_PER_WRITE && segments.is_empty() && !stop {
                next = jobs.try_recv();
            }
        }
        while !batch.is_empty() {
            failpoint::pass("index::before_put");
            match archive.put(&batch) {
                Ok(()) => batch.clear(),
                Err(error) => {
                    report(format!("the index refuses rows, trying again: {error}"));
                    crate::io::sleep(std::time::Duration::from_millis(200)).await;
                }
            }
        }
        if !owners.is_empty() {
            failpoint::pass("index::after_put");
        }
        for (shard, run_ids) in owners.drain(..) {
            tell(&shards, shard, Indexed::Rows(run_ids)).await;
        }
        for (shard, step) in segments {
            let done = settle(&*archive, shard, &step);
            match done {
                Ok(Some(segment)) => tell(&shards, shard, Indexed::Expired(segment)).await,
                Ok(None) => {}
                Err(error) => report(format!("the index could not settle a segment: {error}")),
            }
        }
        if stop {
            return;
        }
    }
}

/// The segment to be given back, once nobody can find a run in it.
fn settle(archive: &dyn Archive, shard: u16, step: &SegmentStep) -> Result<Option<u64>, Error> {
    match step {
        SegmentStep::Archive(mark) => {
            failpoint::pass("index::before_mark");
            archive.mark_segment(shard, mark)?;
            failpoint::pass("index::after_mark");
            Ok(None)
        }
        SegmentStep::Expire { segment } => {
            failpoint::pass("index::before_expire");
            archive.expire(shard, *segment)?;
            failpoint::pass("index::after_expire");
            Ok(Some(*segment))
        }
    }
}

async fn tell(shards: &[Sender<Indexed>], shard: u16, indexed: Indexed) {
    let Some(sender) = shards.get(usize::from(shard)) else { return };
    let mut message = indexed;
    while let Err(back) = sender.send(message) {
        message = back;
        crate::io::sleep(std::time::Duration::from_millis(1)).await;
    }
}
