//! The watchdog: gives lost wakes again, and counts them.
//!
//! glommio 0.9 can park an executor that has runnable tasks; only an event on its ring frees it (docs/adr/0003). So one
//! thread looks at every shard: while its queue is not empty and its heartbeat stands still, it is woken, every
//! [`BUSY`]. With nothing waiting anywhere it looks every [`IDLE`], which is the most a lost wake can cost then.
//!
//! A shard whose loop has not gone round for [`limits::SHARD_STILL_SECONDS_MAX`] is blocked, for its loop goes round every
//! second: that is said once, and again when it moves (RELIABILITY A6).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::io::ring::Nudge;
use crate::limits;
use crate::queue::Stats;
use crate::telemetry::ShardCells;
use crate::telemetry::log::{self, Target};
use crate::time::{Clock as _, SystemClock};

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
    /// Since when its heartbeat stands still, and whether that was said.
    still: Option<(u64, bool)>,
}

/// What there is to say of a shard; for how many seconds it has stood still.
#[derive(Debug, PartialEq, Eq)]
enum News {
    Still(u64),
    Moves(u64),
}

impl Watched {
    /// Watches these queues of a shard.
    pub fn new(queues: Vec<Arc<Stats>>, cells: Arc<ShardCells>, nudge: Option<Arc<Nudge>>) -> Self {
        Self { queues, cells, nudge, last_heartbeat_us: 0, still: None }
    }

    /// What is to be said of its heartbeat at this time; called after [`look`](Self::look).
    fn news(&mut self, moved: bool, now_us: u64) -> Option<News> {
        if moved {
            let (since_us, said) = self.still.take()?;
            return said.then(|| News::Moves(now_us.saturating_sub(since_us) / 1_000_000));
        }
        let (since_us, said) = self.still.get_or_insert((now_us, false));
        let seconds = now_us.saturating_sub(*since_us) / 1_000_000;
        if *said || seconds < limits::SHARD_STILL_SECONDS_MAX {
            return None;
        }
        *said = true;
        Some(News::Still(seconds))
    }

    /// Wakes the shard if it sleeps with something to do. Returns whether something waits.
    ///
    /// A shard that stands still is nudged in any case: what it waits for may be a helper thread of its log, which no
    /// queue shows. A nudge without need costs a read of one byte.
    fn look(&mut self) -> (bool, bool) {
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
        (waits, !still)
    }
}

/// Watches until told to stop.
pub async fn watch(mut shards: Vec<Watched>, stop: Arc<AtomicBool>) {
    while !stop.load(Ordering::Acquire) {
        let mut waits = false;
        let now_us = SystemClock.monotonic_us();
        for (index, shard) in shards.iter_mut().enumerate() {
            let (waiting, moved) = shard.look();
            waits |= waiting;
            match shard.news(moved, now_us) {
                Some(News::Still(seconds)) => log::warn(
                    Target::Node,
                    format_args!(
                        "shard {index} has not moved for {seconds} s: its runs stand still, others go on"
                    ),
                ),
                Some(News::Moves(seconds)) => {
                    log::warn(Target::Node, format_args!("shard {index} moves again, after {seconds} s"));
                }
                None => {}
            }
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
        let look = |watched: &mut Watched| watched.look().0;
        assert!(!look(&mut watched) && !look(&mut watched));
        sender.send(()).unwrap();
        cells.heartbeat_us.set(2);
        assert!(look(&mut watched), "it moves");
        assert_eq!(cells.watchdog_wakes.value(), 0);
        assert!(look(&mut watched), "it stands still");
        assert_eq!(cells.watchdog_wakes.value(), 1);
        receiver.try_recv();
        assert!(!look(&mut watched));
    }

    // RELIABILITY A6
    #[test]
    fn a_blocked_shard_is_told_of_once_and_so_is_its_moving_again() {
        let mut watched = Watched::new(Vec::new(), Arc::default(), None);
        let second = 1_000_000;
        let max = limits::SHARD_STILL_SECONDS_MAX;
        assert_eq!(watched.news(true, 0), None);
        assert_eq!(watched.news(false, second), None);
        assert_eq!(watched.news(false, second * max), None);
        assert_eq!(watched.news(false, second * (max + 1)), Some(News::Still(max)));
        assert_eq!(watched.news(false, second * (max + 9)), None, "once");
        assert_eq!(watched.news(true, second * (max + 10)), Some(News::Moves(max + 9)));
        assert_eq!(watched.news(false, second * 100), None);
        assert_eq!(watched.news(true, second * 101), None, "a short one is nobody's business");
    }
}
