//! What runs on a runner thread: its shards, from their logs to their loops.
//!
//! Recovery has folded the shards before; here each log is opened on the thread's own driver and claimed, so that from
//! then on nothing of an older owner can be appended. A shard whose log cannot be had ends the start.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::task::Poll;

use super::clock::ShardClock;
use super::origin::Origin;
use super::plane::runner::{Doors, Runner};
use super::shard::Shard;
use crate::queue::Sender;
use crate::store::Error;
use crate::telemetry::ShardCells;

/// A folded shard on its way to its thread.
pub(crate) struct ShardStart {
    pub(crate) shard: Shard,
    pub(crate) doors: Doors,
    /// Its journal, read to its end.
    pub(crate) origin: Origin,
    /// Does not start before the last event of the log.
    pub(crate) clock: ShardClock,
    pub(crate) cells: Arc<ShardCells>,
}

/// All shards go by the clock that is the furthest: a run may go on where one of another shard was, and its time must not go
/// back there.
pub(crate) fn share_clock(starts: &mut [ShardStart]) {
    let latest = starts.iter().map(|start| &start.clock).max_by_key(|clock| clock.now()).cloned();
    if let Some(latest) = latest {
        starts.iter_mut().for_each(|start| start.clock.clone_from(&latest));
    }
}

/// Says that a shard serves, under which epoch, or why it does not.
pub(crate) type Ready = Sender<Result<u64, Error>>;

/// Runs the shards of one thread until they are told to stop.
pub(crate) async fn shards(starts: Vec<ShardStart>, ready: Ready, stop: Arc<AtomicBool>) {
    let mut tasks: Vec<Option<Pin<Box<dyn Future<Output = ()>>>>> = Vec::new();
    for start in starts {
        match open(start, stop.clone()).await {
            Ok((runner, epoch)) => {
                crate::failpoint::pass("recovery::serving");
                let _ = ready.send(Ok(epoch));
                tasks.push(Some(Box::pin(runner.run())));
            }
            Err(error) => {
                let _ = ready.send(Err(error));
                return;
            }
        }
    }
    // A shard's loop yields every turn, so on one thread they take turns by being polled one after the other.
    std::future::poll_fn(|context| {
        for task in &mut tasks {
            if task.as_mut().is_some_and(|running| running.as_mut().poll(context).is_ready()) {
                *task = None;
            }
        }
        if tasks.iter().all(Option::is_none) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

async fn open(start: ShardStart, stop: Arc<AtomicBool>) -> Result<(Runner, u64), Error> {
    let ShardStart { mut shard, doors, origin, clock, cells } = start;
    let (handle, fence) = origin.start().await?;
    shard.set_epoch(fence.epoch);
    Ok((Runner::new(shard, doors, handle, clock, (cells, stop)), fence.epoch))
}
