//! The index thread: finished runs into the archive, in bulk, away from every token's path.
//!
//! One unpinned thread for all shards. What comes while it writes is taken together in the next write. Its queue full:
//! the shard keeps the rows and tries again, and takes no further commands above `limits::UNINDEXED_RUNS_MAX`. Segments go on
//! to the task that keeps history ([`super::history`]), behind the rows that came before them.

use std::sync::Arc;

use crate::queue::{Receiver, Sender};
use crate::runtime::history::Keeper;
use crate::runtime::plane::runner::Indexed;
use crate::store::Archive;
use crate::store::archive::ArchiveRow;
use crate::store::log::Sealed;

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
    /// A segment that can be moved to history.
    Move {
        /// Whose.
        shard: u16,
        /// Which.
        sealed: Sealed,
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
    keeper: Keeper,
    mut report: impl FnMut(String),
) {
    let moves = keeper.start(shards.clone());
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
                IndexJob::Move { shard, sealed } => segments.push((shard, sealed)),
                IndexJob::Stop => stop = true,
            }
            if batch.len() < ROWS_PER_WRITE && segments.is_empty() && !stop {
                next = jobs.try_recv();
            }
        }
        while !batch.is_empty() {
            match archive.put(&batch) {
                Ok(()) => batch.clear(),
                Err(error) => {
                    report(format!("the index refuses rows, trying again: {error}"));
                    crate::io::sleep(std::time::Duration::from_millis(200)).await;
                }
            }
        }
        for (shard, run_ids) in owners.drain(..) {
            tell(&shards, shard, Indexed::Rows(run_ids)).await;
        }
        for (shard, sealed) in segments {
            if moves.send((shard, sealed)).is_err() {
                tell(&shards, shard, Indexed::Stays(sealed.segment)).await;
            }
        }
        if stop {
            return;
        }
    }
}

/// Tells a shard; its queue has room by and by.
pub(crate) async fn tell(shards: &[Sender<Indexed>], shard: u16, indexed: Indexed) {
    let Some(sender) = shards.get(usize::from(shard)) else { return };
    let mut message = indexed;
    while let Err(back) = sender.send(message) {
        message = back;
        crate::io::sleep(std::time::Duration::from_millis(1)).await;
    }
}
