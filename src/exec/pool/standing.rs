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
        let lines = self.lock(&room.1);
        let max = self.limits.get(&room.1).copied();
        let part = lines.get(&room.1).and_then(|line| line.parts.get(&room.0));
        let Some(queue) = part else { return Standing { ahead: None, leased: 0, max } };
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::pool::{Job, Workers};
    use crate::model::{Partition, Place, Priority, Value};
    use crate::time::Timestamp;

    fn job(number: u8, priority: Priority) -> Job {
        Job {
            run_id: RunId::new(Timestamp::from_micros(1), Partition::new(0), [number; 10]),
            place: Place::root(0),
            seq: 3,
            path: "a".into(),
            workflow: "w".into(),
            document: [0; 32],
            attempt: 1,
            epoch: 1,
            priority,
            queue: "q".into(),
            payload: Value::Null,
            due: None,
            worker: None,
        }
    }

    #[test]
    fn as_many_are_ahead_as_are_offered_before() {
        let limits = [("q".into(), 4)].into();
        let pool = Pool::new(Workers { queue_limits: limits, ..Workers::default() });
        let room: Room = ("default".into(), "q".into());
        for (number, priority, came_us) in [
            (1, Priority::Low, 0),
            (2, Priority::Medium, 0),
            (3, Priority::High, 1),
            (4, Priority::High, 3 * AGEING_US),
        ] {
            pool.add(&room, job(number, priority), came_us);
        }
        let name = |number| (job(number, Priority::Low).run_id, 3);
        let standing = |number| pool.standing(&room, name(number));
        let ahead: Vec<_> = [3, 2, 1, 4].into_iter().map(|number| standing(number).ahead).collect();
        assert_eq!(ahead, [Some(0), Some(1), Some(2), Some(3)]);
        assert_eq!(standing(1), Standing { ahead: Some(2), leased: 0, max: Some(4) });
        for wanted in [3, 2, 1, 4] {
            let offered = pool.offer(&room, 1);
            assert_eq!(offered[0].run_id, name(wanted).0, "the order that was told");
        }
        assert_eq!(standing(4), Standing { ahead: None, leased: 4, max: Some(4) });
        assert_eq!(standing(9).ahead, None);
    }
}
