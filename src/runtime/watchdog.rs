//! The watchdog: gives lost wakes again, and counts them.
//!
//! glommio 0.9 can park an executor that has runnable tasks; only an event on its ring frees it (docs/adr/0003). So one
//! thread looks at every shard: while its queue is not empty and its heartbeat stands still, it is woken, every
//! [`BUSY`]. With nothing waiting anywhere it looks every [`IDLE`], which is the most a lost wake can cost then.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::io::ring::Nudge;
use crate::queue::Stats;
use crate::telemetry::ShardCells;

/// Between looks while something waits.
const BUSY: Duration = Duration::from_millis(1);
/// Between looks while nothing waits.
const IDLE: Duration = Duration::from_millis(10);

/// One shard, as the watchdog sees it.
#[derive(Debug)]
pub struct Watched {
    /// Its command queue and the queue from the index: whatever it might sleep through.
    pub queues: Vec<Arc<Stats>>,
    /// Its heartbeat and where wakes are counted.
    pub cells: Arc<ShardCells>,
    /// Wakes its executor; `None` on a driver that loses no wakes.
    pub nudge: Option<Arc<Nudge>>,
    last_heartbeat_us: u64,
}

impl Watched {
    /// Watches these queues of a shard.
    pub fn new(queues: Vec<Arc<Stats>>, cells: Arc<ShardCells>, nudge: Option<Arc<Nudge>>) -> Self {
        Self { queues, cells, nudge, last_heartbeat_us: 0 }
    }

    /// Wakes the shard if it sleeps with something to do. Returns whether something waits.
    ///
    /// A shard that stands still is nudged in any case: what it waits for may be a helper thread of its log, which no
    /// queue shows. A nudge without need costs a read of one byte.
    fn look(&mut self) -> bool {
        let heartbeat = self.cells.heartbeat_us.value();
        let still = heartbeat == self.last_heartbeat_us;
        self.last_heartbeat_us = heartbeat;
        let mut waits = false;
        for queue in &self.queues {
            if queue.depth() > 0 {
                waits = true;
                if still {
                    queue.wake();
                    self.cells.watchdog_wakes.increment();
                }
            }
        }
        if still && let Some(nudge) = &self.nudge {
            nudge.give();
        }
        waits
    }
}

/// Watches until told to stop.
pub async fn watch(mut shards: Vec<Watched>, stop: Arc<AtomicBool>) {
    while !stop.load(Ordering::Acquire) {
        let mut waits = false;
        for shard in &mut shards {
            waits |= shard.look();
        }
        crate::io::sleep(if waits { BUSY } else { IDLE }).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::{FullPolicy, bounded};

    #[test]
    fn only_a_shard_that_stands_still_with_work_is_woken() {
        let cells = Arc::new(ShardCells::default());
        let (sender, mut receiver) = bounded("q", 4, FullPolicy::RefuseCaller);
        let mut watched = Watched::new(vec![sender.stats().clone()], cells.clone(), None);
        cells.heartbeat_us.set(1);
        assert!(!watched.look() && !watched.look());
        sender.send(()).unwrap();
        cells.heartbeat_us.set(2);
        assert!(watched.look(), "it moves");
        assert_eq!(cells.watchdog_wakes.value(), 0);
        assert!(watched.look(), "it stands still");
        assert_eq!(cells.watchdog_wakes.value(), 1);
        receiver.try_recv();
        assert!(!watched.look());
    }
}
