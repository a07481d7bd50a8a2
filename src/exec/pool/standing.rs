//! Where a job stands in its queue, for whoever asks why nobody works on it.

use super::{AGEING_US, Pool, Room};
use crate::limits;
use crate::model::{RunId, Seq};

/// Where a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Jobs that go first, those called back among them; `None`: it is not in line, but on its way to it or to a worker.
    /// [`limits::AHEAD_COUNTED_MAX`] stands for more.
    pub ahead: Option<usize>,
    /// Jobs of the queue that workers have.
    pub leased: usize,
    /// Most of these at once, when the configuration says so.
    pub max: Option<usize>,
}

impl Pool {
    /// Where the job of this attempt stands. Looks at so many jobs of each level at most as are counted.
    pub fn standing(&self, room: &Room, name: (RunId, Seq)) -> Standing {
        let rooms = self.lock(room);
        let max = self.limits.get(&room.1).copied();
        let Some(queue) = rooms.get(room) else { return Standing { ahead: None, leased: 0, max } };
        let score =
            |level: usize, came_us: u64| came_us.saturating_add(AGEING_US.saturating_mul(level as u64));
        let most = limits::AHEAD_COUNTED_MAX;
        let own = queue.waiting.iter().enumerate().find_map(|(level, jobs)| {
            let mut jobs = jobs.iter().take(most).enumerate();
            let (at, (came_us, _)) = jobs.find(|(_, (_, job))| super::name(job) == name)?;
            Some((level, at, score(level, *came_us)))
        });
        let ahead = own.map(|(own_level, at, own_score)| {
            let others = queue.waiting.iter().enumerate().filter(|(level, _)| *level != own_level);
            let before = others.map(|(level, jobs)| {
                jobs.iter().take(most).take_while(|(came_us, _)| score(level, *came_us) < own_score).count()
            });
            (at + before.sum::<usize>()).min(most)
        });
        let far = queue.wanted.contains(&name).then_some(most);
        Standing { ahead: ahead.or(far), leased: queue.out(), max }
    }
}
