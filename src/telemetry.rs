//! Counters of the node: one cell per shard, written by its core alone, merged when somebody looks.
//!
//! Cells are relaxed atomics: a reader may see one counter a moment before another, never a torn or a lost one.

pub mod log;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only grows, or a level.
#[derive(Debug, Default)]
pub struct Cell(AtomicU64);

impl Cell {
    /// One more.
    pub fn increment(&self) {
        self.add(1);
    }

    /// `n` more.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// Now this.
    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// `n` less, of a level.
    pub fn subtract(&self, n: u64) {
        self.0.fetch_sub(n, Ordering::Relaxed);
    }

    /// The number.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What one shard counts.
#[derive(Debug, Default)]
pub struct ShardCells {
    /// Runs started.
    pub runs_started: Cell,
    /// Runs that are not finished (a level).
    pub runs_active: Cell,
    /// Attempts of nodes begun.
    pub nodes_started: Cell,
    /// Nodes completed.
    pub nodes_completed: Cell,
    /// Nodes failed.
    pub nodes_failed: Cell,
    /// Events appended.
    pub events: Cell,
    /// Batches made durable.
    pub batches: Cell,
    /// Bytes of those batches, without padding.
    pub batch_bytes: Cell,
    /// Microseconds from handing a batch to the log until it is durable, summed over batches.
    pub sync_us: Cell,
    /// Tokens, timers and replies that came too late and were dropped.
    pub stale_dropped: Cell,
    /// Runs finished, by workflow. Names come from registered documents, which bounds them.
    pub finished: Finished,
    /// Last turn of the shard's loop (monotonic microseconds): the watchdog's heartbeat.
    pub heartbeat_us: Cell,
    /// 1 when the log has failed and the shard refuses everything.
    pub fenced: Cell,
    /// Wakes the watchdog had to give.
    pub watchdog_wakes: Cell,
    /// Segments that take no more frames and are not given back yet (a level).
    pub unmoved_segments: Cell,
}

/// What one fanout core counts of its streams.
#[derive(Debug, Default)]
pub struct StreamCells {
    /// Open now (a level).
    pub open: Cell,
    /// Closed because their client did not read.
    pub slow: Cell,
}

/// Whole answers over HTTP/2 that wait for clients to take them, of all control cores.
#[derive(Debug, Default)]
pub struct UntakenCells {
    /// Bytes of them (a level).
    pub bytes: Cell,
    /// Answers that were not kept, because too much waited.
    pub refused: Cell,
    /// Connections closed because nothing was taken for too long.
    pub stalled: Cell,
}

/// What one fanout core counts of QUIC.
#[derive(Debug, Default)]
pub struct QuicCells {
    /// Connections open now, those in their handshake counted (a level).
    pub open: Cell,
    /// Handshakes done.
    pub accepted: Cell,
    /// Handshakes refused, because there were too many connections or handshakes.
    pub refused: Cell,
    /// Handshakes that had to prove their address first.
    pub retried: Cell,
    /// Handshakes that were begun and not ended in time, or not well.
    pub unfinished: Cell,
    /// Connections closed because they asked for nothing, or for too much.
    pub closed: Cell,
    /// Streams that came to nothing.
    pub wasted: Cell,
    /// Datagrams of clients, all dropped.
    pub client_datagrams: Cell,
    /// Datagrams that came to this core and were handed to another.
    pub forwarded: Cell,
    /// Such that were dropped, because the other core's queue was full or they were too large.
    pub forwards_dropped: Cell,
}

/// Runs finished, by workflow and status: completed, failed, cancelled.
#[derive(Debug, Default)]
pub struct Finished(arc_swap::ArcSwap<std::collections::BTreeMap<Arc<str>, Arc<[Cell; 3]>>>);

impl Finished {
    /// The three cells of a workflow; the caller keeps them, so this is not on a hot path.
    pub fn cells(&self, workflow: &Arc<str>) -> Arc<[Cell; 3]> {
        if let Some(cells) = self.0.load().get(workflow) {
            return cells.clone();
        }
        let cells = Arc::new([Cell::default(), Cell::default(), Cell::default()]);
        let mut map = self.0.load().as_ref().clone();
        map.insert(workflow.clone(), cells.clone());
        self.0.store(Arc::new(map));
        cells
    }

    /// (workflow, completed, failed, cancelled).
    pub fn snapshot(&self) -> Vec<(Arc<str>, [u64; 3])> {
        self.0.load().iter().map(|(name, cells)| (name.clone(), cells.each_ref().map(Cell::value))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finished_runs_are_counted_by_workflow_and_status() {
        let finished = Finished::default();
        let name: Arc<str> = "w".into();
        finished.cells(&name)[0].increment();
        finished.cells(&name)[2].add(2);
        assert_eq!(finished.snapshot(), [(name, [1, 0, 2])]);
    }
}
