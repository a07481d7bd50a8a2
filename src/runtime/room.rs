//! Is there room on the disk for new work? Measured by the thread that keeps history, judged here, told to whoever begins something.
//!
//! What must hold: only what comes from outside and begins something is refused (starts, registrations); runs that were accepted
//! go on, for only so can they end and be moved away. Nothing is measured on the core of a shard or of a request: these read what
//! was found last. Each bound has a mark at which work is taken up again, so that the answer does not change with every look.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};

use crate::io::disk;
use crate::model::{Lack, NoRoom};
use crate::telemetry::log::{self, Target};
use crate::telemetry::{Cell, ShardCells};
use crate::wire::node::{NoRoomInfo, StorageInfo};

/// How often the file system is looked at.
const EVERY: Duration = Duration::from_millis(100);

/// `history.when_full`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenFull {
    /// New work is refused.
    #[default]
    Refuse,
    /// The runs that finished first are forgotten before their time.
    DropOldest,
}

/// What the disk may be used for. 0: no bound.
#[derive(Clone, Copy, Debug, Default)]
pub struct Settings {
    /// Bytes that stay free on the file system of the data directory.
    pub free_bytes_min: u64,
    /// Bytes of history files.
    pub history_bytes_max: u64,
    /// What happens when there are more.
    pub when_full: WhenFull,
    /// Bytes of segments that wait to be moved to history.
    pub unmoved_bytes_max: u64,
}

/// What was measured.
#[derive(Clone, Copy, Debug)]
struct Levels {
    free: u64,
    history: u64,
    unmoved: u64,
}

impl Settings {
    /// Judges what was measured. What was refused before is refused until it is clearly better.
    fn judge(&self, levels: Levels, before: Option<Lack>) -> Option<NoRoom> {
        let lacks = Lack::ALL.into_iter().filter_map(|lack| {
            let (value, limit, again) = match lack {
                Lack::Disk => {
                    let limit = self.free_bytes_min;
                    (levels.free, limit, limit.saturating_add(limit / 8))
                }
                Lack::History => {
                    let limit = self.history_bytes_max;
                    let drops = self.when_full == WhenFull::DropOldest;
                    // What is dropped is never more than must be: so that is room enough.
                    (levels.history, limit, if drops { limit } else { limit - limit / 16 })
                }
                Lack::Journal => {
                    let limit = self.unmoved_bytes_max;
                    (levels.unmoved, limit, limit - limit / 4)
                }
            };
            let mark = if before == Some(lack) { again } else { limit };
            let over = if lack == Lack::Disk { value < mark } else { value > mark };
            (limit > 0 && over).then_some(NoRoom { lack, value, limit, again })
        });
        lacks.into_iter().next()
    }
}

/// The room of one node. Shared by all threads.
#[derive(Debug, Default)]
pub(crate) struct Room {
    settings: Settings,
    /// `None`: nothing is looked at.
    data_dir: Option<PathBuf>,
    segment_bytes: u64,
    shards: Vec<Arc<ShardCells>>,
    free: Cell,
    /// 1 when the file system could not be asked.
    unseen: Cell,
    history: Cell,
    /// What is on disk, a second old.
    usage: ArcSwap<StorageInfo>,
    /// Runs forgotten before their time, and the files they were in.
    dropped: [Cell; 2],
    now: ArcSwapOption<NoRoom>,
}

impl Room {
    /// Looks at once, so that a node without room never begins something; `history`: bytes of its files.
    pub(crate) fn new(
        settings: Settings,
        (data_dir, segment_bytes, history): (PathBuf, u64, u64),
        shards: Vec<Arc<ShardCells>>,
    ) -> Arc<Self> {
        // A shard always has a segment that is about to be moved.
        let least = (2 * shards.len() as u64).saturating_mul(segment_bytes);
        let unmoved_bytes_max = match settings.unmoved_bytes_max {
            0 => 0,
            max => max.max(least),
        };
        let settings = Settings { unmoved_bytes_max, ..settings };
        let room = Self { settings, data_dir: Some(data_dir), segment_bytes, shards, ..Self::default() };
        room.history.set(history);
        room.look();
        Arc::new(room)
    }

    /// Why nothing new is begun.
    pub(crate) fn lacking(&self) -> Option<NoRoom> {
        self.now.load().as_deref().copied()
    }

    /// The bytes that history files may have when the oldest are to go.
    pub(crate) fn drop_above(&self) -> Option<u64> {
        let Settings { history_bytes_max, when_full, .. } = self.settings;
        (history_bytes_max > 0 && when_full == WhenFull::DropOldest).then_some(history_bytes_max)
    }

    /// Runs were forgotten before their time.
    pub(crate) fn dropped(&self, runs: usize, files: usize) {
        let [of_runs, of_files] = &self.dropped;
        of_runs.add(runs as u64);
        of_files.add(files as u64);
    }

    /// This is on disk.
    pub(crate) fn measured(&self, found: StorageInfo) {
        self.history.set(found.history_bytes.values().sum());
        self.usage.store(Arc::new(found));
    }

    /// What is known of the disk, for whoever asks.
    pub(crate) fn info(&self) -> StorageInfo {
        let mut info = StorageInfo::clone(&self.usage.load());
        let [runs, files] = &self.dropped;
        (info.dropped_runs, info.dropped_files) = (runs.value(), files.value());
        (info.free_bytes, info.unmoved_bytes) = (self.free.value(), self.unmoved());
        info.no_room = self.lacking().map(|no_room| {
            let code = no_room.lack.code().to_owned();
            NoRoomInfo { code, detail: no_room.to_string() }
        });
        info
    }

    /// Looks again and again. Blocks for a moment each time: for a thread that may.
    pub(crate) async fn watch(self: Arc<Self>) {
        while self.data_dir.is_some() {
            crate::io::sleep(EVERY).await;
            self.look();
        }
    }

    fn unmoved(&self) -> u64 {
        let segments: u64 = self.shards.iter().map(|cells| cells.unmoved_segments.value()).sum();
        segments.saturating_mul(self.segment_bytes)
    }

    fn look(&self) {
        let Some(data_dir) = &self.data_dir else { return };
        match disk::free_bytes(data_dir) {
            Ok(free) => {
                self.free.set(free);
                self.unseen.set(0);
            }
            // What was found last counts.
            Err(error) if self.unseen.value() == 0 => {
                self.unseen.set(1);
                let dir = data_dir.display();
                log::warn(Target::Store, format_args!("cannot see how much room {dir} has: {error}"));
            }
            Err(_) => {}
        }
        let levels =
            Levels { free: self.free.value(), history: self.history.value(), unmoved: self.unmoved() };
        let before = self.lacking().map(|no_room| no_room.lack);
        let found = self.settings.judge(levels, before);
        self.now.store(found.map(Arc::new));
        match (before, found) {
            (before, Some(no_room)) if before != Some(no_room.lack) => {
                log::warn(Target::Store, format_args!("no new work is taken: {no_room}"));
            }
            (Some(_), None) => log::info(Target::Store, format_args!("new work is taken again")),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: Settings = Settings {
        free_bytes_min: 800,
        history_bytes_max: 1_600,
        when_full: WhenFull::Refuse,
        unmoved_bytes_max: 400,
    };
    const FINE: Levels = Levels { free: 5_000, history: 0, unmoved: 0 };

    /// The codes of one look after the other.
    fn looks(settings: Settings, levels: &[Levels]) -> Vec<Option<&'static str>> {
        let mut before = None;
        let mut judge = |levels: &Levels| {
            before = settings.judge(*levels, before).map(|no_room| no_room.lack);
            before.map(Lack::code)
        };
        levels.iter().map(&mut judge).collect()
    }

    // RELIABILITY B4
    #[test]
    fn what_is_refused_stays_so_until_there_is_clearly_more_room() {
        let free = [800, 799, 800, 899, 900, 800].map(|free| Levels { free, ..FINE });
        let low = Some("disk_low");
        assert_eq!(looks(SETTINGS, &free), [None, low, low, low, None, None]);
        let history = [1_600, 1_601, 1_501, 1_500, 1_600].map(|history| Levels { history, ..FINE });
        let full = Some("history_full");
        assert_eq!(looks(SETTINGS, &history), [None, full, full, None, None]);
        let unmoved = [400, 401, 301, 300, 400].map(|unmoved| Levels { unmoved, ..FINE });
        let behind = Some("journal_behind");
        assert_eq!(looks(SETTINGS, &unmoved), [None, behind, behind, None, None]);
    }

    #[test]
    fn where_the_oldest_go_just_enough_room_is_enough() {
        let settings = Settings { when_full: WhenFull::DropOldest, ..SETTINGS };
        let history = [1_601, 1_600].map(|history| Levels { history, ..FINE });
        assert_eq!(looks(settings, &history), [Some("history_full"), None]);
    }

    #[test]
    fn nought_is_no_bound_and_the_disk_is_told_first() {
        let worst = Levels { free: 0, history: u64::MAX, unmoved: u64::MAX };
        assert_eq!(looks(Settings::default(), &[worst]), [None]);
        let no_room = SETTINGS.judge(worst, Some(Lack::Journal)).unwrap();
        assert_eq!(no_room, NoRoom { lack: Lack::Disk, value: 0, limit: 800, again: 900 });
        assert_eq!(looks(SETTINGS, &[worst, FINE]), [Some("disk_low"), None]);
    }

    #[test]
    fn a_bound_below_what_shards_always_hold_is_raised() {
        let settings = Settings { unmoved_bytes_max: 1, ..Settings::default() };
        let shards = vec![Arc::<ShardCells>::default(), Arc::default()];
        let room = Room::new(settings, (std::env::temp_dir(), 10, 0), shards.clone());
        shards[0].unmoved_segments.set(4);
        room.look();
        assert_eq!(room.lacking(), None);
        shards[1].unmoved_segments.set(1);
        room.look();
        assert_eq!(room.lacking().map(|no_room| (no_room.value, no_room.limit)), Some((50, 40)));
        let info = room.info();
        assert!(info.free_bytes > 0 && info.no_room.is_some_and(|told| told.code == "journal_behind"));
    }
}
