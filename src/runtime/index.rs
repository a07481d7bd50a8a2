//! The index thread: finished runs and images of unfinished ones into the archive, in bulk, away from every token's path.
//!
//! One unpinned thread for all shards. What comes within some milliseconds is written at once. Its queue full:
//! the shard keeps the rows and tries again, and takes no further commands above `limits::UNINDEXED_RUNS_MAX`. Segments go on
//! to the task that keeps history ([`super::history`]), behind the rows that came before them.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use crate::failpoint;
use crate::model::approval::Noted;
use crate::queue::{Receiver, Sender};
use crate::runtime::history::Keeper;
use crate::runtime::materializer::Intake;
use crate::runtime::plane::runner::Indexed;
use crate::runtime::shard::image::{Saved, Taken};
use crate::store::Archive;
use crate::store::archive::ArchiveRow;
use crate::store::artifacts::Due;
use crate::store::log::Sealed;

/// What a shard wants of the index.
#[derive(Debug)]
pub(crate) enum IndexJob {
    /// What happened to reviews, in order.
    Reviews(Vec<Noted>),
    /// Finished runs.
    Rows {
        /// Whose.
        shard: u16,
        /// In the order in which they ended.
        rows: Vec<ArchiveRow>,
    },
    /// Unfinished runs.
    Images {
        /// Whose.
        shard: u16,
        /// As they were; each run once.
        images: Vec<Taken>,
    },
    /// Changes of graphs, to be made into artifacts.
    Patched(Vec<Due>),
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
/// How long rows wait for others: a row of a list that a busy node writes is then written twice or thrice, not fifty times.
const GATHER: Duration = Duration::from_millis(25);
/// The most parcels of images written before the rows that came with them.
const IMAGES_PER_WRITE: usize = 16;
/// How long the index is left alone after an error.
const AGAIN_AFTER: Duration = Duration::from_millis(200);

async fn put_patched(intake: &Intake, patched: &[Due], report: &mut impl FnMut(String)) {
    while let Err(error) = intake.take(patched) {
        report(format!("the index refuses patches, trying again: {error}"));
        crate::io::sleep(AGAIN_AFTER).await;
    }
}

/// Works until told to stop. An error of the index is reported and the rows are tried again: the log still has them.
pub(crate) async fn run(
    mut jobs: Receiver<IndexJob>,
    shards: Vec<Sender<Indexed>>,
    archive: Arc<dyn Archive>,
    keeper: Keeper,
    mut report: impl FnMut(String),
) {
    let noticed = keeper.noticed.clone();
    let intake = keeper.intake.clone();
    let moves = keeper.start(shards.clone());
    let mut batch: Vec<ArchiveRow> = Vec::new();
    let mut owners: Vec<(u16, Vec<crate::model::RunId>)> = Vec::new();
    loop {
        let mut next = Some(jobs.recv().await);
        if matches!(next, Some(IndexJob::Rows { .. })) {
            crate::io::sleep(GATHER).await;
        }
        let mut stop = false;
        let (mut noted, mut segments, mut images, mut patched) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        while let Some(job) = next.take() {
            match job {
                IndexJob::Reviews(more) => noted.extend(more),
                IndexJob::Rows { shard, rows } => {
                    owners.push((shard, rows.iter().map(|row| row.summary.run_id).collect()));
                    batch.extend(rows);
                }
                IndexJob::Images { shard, images: more } => images.push((shard, more)),
                IndexJob::Patched(patches) => patched.extend(patches),
                IndexJob::Move { shard, sealed } => segments.push((shard, sealed)),
                IndexJob::Stop => stop = true,
            }
            if batch.len() < ROWS_PER_WRITE && images.len() < IMAGES_PER_WRITE && segments.is_empty() && !stop
            {
                next = jobs.try_recv();
            }
        }
        // Before images and rows: what these hold of a run is not read again.
        put_reviews(&*archive, &noted, &noticed, &mut report).await;
        // Before images and rows: whatever is not read again at a start is noted.
        put_patched(&intake, &patched, &mut report).await;
        // Before the rows: a row takes its run's image away.
        for (shard, taken) in images {
            let saved = put_images(&*archive, (shard, taken), &mut report).await;
            tell(&shards, shard, Indexed::Images(saved)).await;
        }
        while !batch.is_empty() {
            failpoint::pass("index::before_put");
            match archive.put(&batch) {
                Ok(()) => batch.clear(),
                Err(error) => {
                    report(format!("the index refuses rows, trying again: {error}"));
                    crate::io::sleep(AGAIN_AFTER).await;
                }
            }
        }
        if !owners.is_empty() {
            failpoint::pass("index::after_put");
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

/// Puts what happened to reviews into the index, and wakes whoever tells others of it.
async fn put_reviews(
    archive: &dyn Archive,
    noted: &[Noted],
    noticed: &Notify,
    report: &mut impl FnMut(String),
) {
    while !noted.is_empty() {
        match archive.put_reviews(noted) {
            Ok(true) => return noticed.notify_one(),
            Ok(false) => return,
            Err(error) => {
                report(format!("the index refuses reviews, trying again: {error}"));
                crate::io::sleep(AGAIN_AFTER).await;
            }
        }
    }
}

/// Makes the bytes of images and puts them into the index.
async fn put_images(
    archive: &dyn Archive,
    (shard, taken): (u16, Vec<Taken>),
    report: &mut impl FnMut(String),
) -> Vec<Saved> {
    let (mut images, mut saved) = (Vec::with_capacity(taken.len()), Vec::with_capacity(taken.len()));
    for one in taken {
        match one.encode() {
            Ok((image, done)) => {
                images.push(image);
                saved.push(done);
            }
            Err(error) => report(format!("a run has no image: {error}")),
        }
    }
    failpoint::pass("index::before_images");
    while let Err(error) = archive.put_images(shard, &images) {
        report(format!("the index refuses images, trying again: {error}"));
        crate::io::sleep(AGAIN_AFTER).await;
    }
    failpoint::pass("index::after_images");
    saved
}

/// Tells a shard; its queue has room by and by.
pub(crate) async fn tell(shards: &[Sender<Indexed>], shard: u16, indexed: Indexed) {
    let Some(sender) = shards.get(usize::from(shard)) else { return };
    let mut message = indexed;
    while let Err(back) = sender.send(message) {
        message = back;
        crate::io::sleep(Duration::from_millis(1)).await;
    }
}
