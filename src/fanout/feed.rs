//! The feed of a fanout core: all events of all runs, in the order in which they came to it, for readers of whole workspaces.
//!
//! A state machine without I/O, like a group. Shards push to it only while it is wanted ([`Feed::wish`]). It is *live* from when all
//! of them have said that they do; readers begin there, or behind an event that the ring still holds. What must hold: a reader gets
//! every event that comes into the ring behind its place; where the shards had to drop some, or the ring is too short for who reads
//! slowly, its stream is broken off with words that say so. A reader from the start is walked through all runs before
//! ([`super::walk`]). Full: [`limits::FEED_EVENTS_MAX`], [`limits::FEED_BYTES_MAX`]; the
//! oldest events go.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use super::reader::Reader;
use super::walk::{Need, SIZES, Seen, Sizes, Walk, Way};
use crate::limits;
use crate::model::{RunFilter, RunId, Seq, Workspace};
use crate::wire::frame::Frame;
use crate::wire::stream::{OfFeed, Since};

/// What a shard has been told, or is being told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shard {
    Off,
    Told,
    On,
}

/// Are feeds wanted of the shards?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// No, and nothing of theirs is on its way.
    Closed,
    Open,
    /// No longer; what was pushed meanwhile may still come, and belongs to nobody.
    Closing,
}

#[derive(Debug)]
struct Member {
    reader: Rc<Reader>,
    of: OfFeed,
    /// Number in the ring of what it gets next; `None` until the feed is live and its walk over.
    next: Option<u64>,
    /// It is told what was before.
    walk: Option<Walk>,
    /// `live` is said when it has come to this number in the ring.
    live_at: Option<u64>,
}

#[derive(Debug)]
struct Told {
    event: (RunId, Seq),
    workflow: Arc<str>,
    frame: Frame,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Feed {
    members: BTreeMap<u64, Member>,
    shards: Vec<Shard>,
    ring: VecDeque<Told>,
    bytes: usize,
    /// Number of the first event in the ring.
    first: u64,
    stage: Stage,
    /// When it last had a reader (monotonic microseconds).
    read_us: u64,
    /// Readers whose walks are under way; others wait.
    walking: BTreeSet<u64>,
    needs: Vec<(u64, Need)>,
    sizes: Sizes,
    /// Pushes that were taken from the queue.
    taken: u64,
    /// Readers that were overrun, until that is counted.
    slow: u64,
    /// Milliseconds since the epoch, as they were looked at last.
    now_millis: u64,
}

impl Feed {
    pub(super) fn new(shards: usize) -> Self {
        Self {
            members: BTreeMap::new(),
            shards: vec![Shard::Off; shards],
            ring: VecDeque::new(),
            bytes: 0,
            first: 0,
            stage: Stage::Closed,
            read_us: 0,
            walking: BTreeSet::new(),
            needs: Vec::new(),
            sizes: SIZES,
            taken: 0,
            slow: 0,
            now_millis: 0,
        }
    }

    /// With walks of these sizes.
    #[cfg(test)]
    pub(super) fn walking_by(mut self, sizes: Sizes) -> Self {
        self.sizes = sizes;
        self
    }

    /// Do all shards push?
    pub(super) fn is_live(&self) -> bool {
        self.stage == Stage::Open && self.shards.iter().all(|shard| *shard == Shard::On)
    }

    /// A new reader. It is to be removed when it is in the answer.
    #[must_use]
    pub(super) fn subscribe(&mut self, id: u64, reader: Rc<Reader>, of: OfFeed) -> Vec<u64> {
        let next = match of.since {
            // Whoever was here cannot see that nothing is missing unless the event is found.
            Since::After(event) => match self.ring.iter().rposition(|told| told.event == event) {
                Some(at) => Some(self.first + at as u64 + 1),
                None => {
                    reader.say_last(Frame::parting("resync"));
                    return vec![id];
                }
            },
            Since::Now => self.is_live().then(|| self.end()),
            Since::Start => None,
        };
        let walk = (of.since == Since::Start).then(|| Walk::new(self.sizes));
        self.members.insert(id, Member { reader, of, next, walk, live_at: next });
        self.pump(id)
    }

    pub(super) fn leave(&mut self, id: u64) {
        self.walking.remove(&id);
        self.members.remove(&id);
    }

    /// All readers, which are broken off.
    #[must_use]
    pub(super) fn close_all(&mut self) -> Vec<u64> {
        self.walking.clear();
        std::mem::take(&mut self.members).into_keys().collect()
    }

    /// What shards are to be told now: which, and whether it is wanted. Each is answered by [`Self::on_told`].
    pub(super) fn wish(&mut self, now_us: u64, pushes: usize) -> Vec<(u16, bool)> {
        if !self.members.is_empty() {
            self.read_us = now_us;
        }
        let lingers = now_us.saturating_sub(self.read_us) < limits::FEED_LINGER_SECONDS * 1_000_000;
        match self.stage {
            Stage::Closed if !self.members.is_empty() => self.stage = Stage::Open,
            Stage::Open if self.members.is_empty() && !lingers => {
                self.stage = Stage::Closing;
                self.forget();
            }
            Stage::Closing if pushes == 0 && self.shards.iter().all(|shard| *shard == Shard::Off) => {
                self.stage = if self.members.is_empty() { Stage::Closed } else { Stage::Open };
            }
            _ => {}
        }
        let wanted = self.stage == Stage::Open;
        let from = if wanted { Shard::Off } else { Shard::On };
        let mut telling = Vec::new();
        for (index, shard) in (0_u16..).zip(&mut self.shards).filter(|(_, shard)| **shard == from) {
            *shard = Shard::Told;
            telling.push((index, wanted));
        }
        telling
    }

    /// A shard has been told whether it is wanted, and has heard it or not.
    pub(super) fn on_told(&mut self, shard: u16, (wanted, heard): (bool, bool)) {
        let Some(state) = self.shards.get_mut(usize::from(shard)) else { return };
        *state = if wanted == heard { Shard::On } else { Shard::Off };
        if !self.is_live() {
            return;
        }
        let end = self.end();
        let waiting = |member: &&mut Member| member.next.is_none() && member.walk.is_none();
        for member in self.members.values_mut().filter(waiting) {
            (member.next, member.live_at) = (Some(end), Some(end));
        }
    }

    /// An event. Before the feed is live nobody wants it.
    pub(super) fn tell(&mut self, event: (RunId, Seq), workflow: &Arc<str>, frame: Frame) {
        if !self.is_live() {
            return;
        }
        for id in &self.walking {
            if let Some(Member { of, walk: Some(walk), .. }) = self.members.get_mut(id)
                && is_of(workflow, of)
            {
                walk.note(event, frame.begins_run());
            }
        }
        self.bytes += frame.size_bytes();
        self.ring.push_back(Told { event, workflow: workflow.clone(), frame });
        while self.ring.len() > limits::FEED_EVENTS_MAX || self.bytes > limits::FEED_BYTES_MAX {
            let Some(oldest) = self.ring.pop_front() else { break };
            self.bytes -= oldest.frame.size_bytes();
            self.first += 1;
        }
    }

    /// A shard had to drop events: whoever reads is told, and comes back. Who is to be removed.
    #[must_use]
    pub(super) fn on_gap(&mut self) -> Vec<u64> {
        self.forget();
        for member in self.members.values() {
            member.reader.say_last(Frame::parting("resync"));
        }
        self.close_all()
    }

    /// Hands over what there is to all readers, now (milliseconds since the epoch). Who is to be removed.
    #[must_use]
    pub(super) fn pump_all(&mut self, now_millis: u64) -> Vec<u64> {
        self.now_millis = now_millis;
        let all: Vec<u64> = self.members.keys().copied().collect();
        all.into_iter().flat_map(|id| self.pump(id)).collect()
    }

    /// Readers that were overrun by what they did not read, since this was asked last.
    pub(super) fn slow(&mut self) -> u64 {
        std::mem::take(&mut self.slow)
    }

    /// A push was taken from the queue.
    pub(super) fn took(&mut self) {
        self.taken += 1;
    }

    /// Pushes that were taken.
    pub(super) fn taken(&self) -> u64 {
        self.taken
    }

    /// What is to be done for walks.
    pub(super) fn needs(&mut self) -> Vec<(u64, Need)> {
        std::mem::take(&mut self.needs)
    }

    /// This could not be done yet.
    pub(super) fn still_needs(&mut self, id: u64, need: Need) {
        self.needs.push((id, need));
    }

    /// Whose runs a reader is walked through.
    pub(super) fn filter_of(&self, id: u64) -> Option<RunFilter> {
        let OfFeed { workspace, workflow, .. } = &self.members.get(&id)?.of;
        let (workspace, workflow) = (workspace.clone(), workflow.clone());
        Some(RunFilter { workspace, workflow, ..RunFilter::default() })
    }

    /// Lets a walk hear of what was done for it.
    pub(super) fn with_walk(&mut self, id: u64, act: impl FnOnce(&mut Walk, &Reader, &mut Vec<Need>)) {
        let Some(Member { reader, walk: Some(walk), .. }) = self.members.get_mut(&id) else { return };
        let mut more = Vec::new();
        act(walk, reader, &mut more);
        self.needs.extend(more.into_iter().map(|need| (id, need)));
    }

    /// Lets a walk go on. True when it ends its reader's stream.
    fn walk(&mut self, id: u64) -> bool {
        let free = self.is_live() && self.walking.len() < limits::FEED_WALKS_MAX;
        let ring = (self.first, self.end());
        let Some(member) = self.members.get_mut(&id) else { return false };
        let Some(walk) = &mut member.walk else { return false };
        if member.next.is_some() || !(self.walking.contains(&id) || free) {
            return false;
        }
        self.walking.insert(id);
        let (taken, now_millis) = (self.taken, self.now_millis);
        let seen = Seen { ring, taken, now_millis, shards: self.shards.len() };
        let mut more = Vec::new();
        let way = walk.go(&member.reader, &seen, &mut more);
        self.needs.extend(more.into_iter().map(|need| (id, need)));
        match way {
            Way::On => return false,
            Way::Joined(next, upto) => {
                (member.next, member.live_at) = (Some(next), Some(upto));
                self.walking.remove(&id);
                return false;
            }
            Way::Over(words) => {
                words.into_iter().for_each(|words| member.reader.say_last(Frame::parting(words)))
            }
        }
        self.leave(id);
        true
    }

    /// Hands over what there is to one reader, which is to be removed when it is in the answer.
    #[must_use]
    pub(super) fn pump(&mut self, id: u64) -> Vec<u64> {
        if self.walk(id) {
            return vec![id];
        }
        let end = self.end();
        let Some(member) = self.members.get_mut(&id) else { return Vec::new() };
        let Some(next) = &mut member.next else { return Vec::new() };
        loop {
            if member.live_at.is_some_and(|at| at <= *next) {
                while member.reader.say_live().is_err() {
                    if member.reader.must_wait() {
                        return Vec::new();
                    }
                }
                // What comes now was not told by the walk.
                (member.live_at, member.walk) = (None, None);
            }
            if *next >= end {
                return Vec::new();
            }
            let at = next.checked_sub(self.first).and_then(|skip| usize::try_from(skip).ok());
            let Some(told) = at.and_then(|at| self.ring.get(at)) else {
                // The ring has gone on without it.
                self.slow += 1;
                member.reader.say_last(Frame::parting("slow_consumer"));
                self.leave(id);
                return vec![id];
            };
            let told_before = member.walk.as_ref().is_some_and(|walk| walk.has_told(told.event));
            let wanted = !told_before && is_of(&told.workflow, &member.of);
            while wanted && member.reader.take(&told.frame, told.event).is_err() {
                if member.reader.must_wait() {
                    return Vec::new();
                }
            }
            *next += 1;
        }
    }

    /// Number of the event that comes next.
    fn end(&self) -> u64 {
        self.first + self.ring.len() as u64
    }

    fn forget(&mut self) {
        self.first = self.end();
        self.ring.clear();
        self.bytes = 0;
    }
}

fn is_of(workflow: &str, of: &OfFeed) -> bool {
    match &of.workflow {
        Some(wanted) => **wanted == *workflow,
        None => Workspace::of(workflow) == of.workspace,
    }
}

#[cfg(test)]
mod tests;
