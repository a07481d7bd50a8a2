//! The feed of a fanout core: all events of all runs, in the order in which they came to it, for readers of whole workspaces.
//!
//! A state machine without I/O, like a group. Shards push to it only while it is wanted ([`Feed::wish`]). It is *live* from when all
//! of them have said that they do; readers begin there, or behind an event that the ring still holds. What must hold: a reader gets
//! every event that comes into the ring behind its place; where the shards had to drop some, or the ring is too short for who reads
//! slowly, its stream is broken off with words that say so. Full: [`limits::FEED_EVENTS_MAX`], [`limits::FEED_BYTES_MAX`]; the
//! oldest events go.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use super::reader::Reader;
use crate::limits;
use crate::model::{RunId, Seq, Workspace};
use crate::wire::frame::Frame;
use crate::wire::stream::OfFeed;

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
    /// Number in the ring of what it gets next; `None` until the feed is live.
    next: Option<u64>,
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
        }
    }

    /// Do all shards push?
    pub(super) fn is_live(&self) -> bool {
        self.stage == Stage::Open && self.shards.iter().all(|shard| *shard == Shard::On)
    }

    /// A new reader. It is to be removed when it is in the answer.
    #[must_use]
    pub(super) fn subscribe(&mut self, id: u64, reader: Rc<Reader>, of: OfFeed) -> Vec<u64> {
        let next = match of.after {
            // Whoever was here cannot see that nothing is missing unless the event is found.
            Some(event) => match self.ring.iter().rposition(|told| told.event == event) {
                Some(at) => Some(self.first + at as u64 + 1),
                None => {
                    reader.say_last(Frame::parting("resync"));
                    return vec![id];
                }
            },
            None => self.is_live().then(|| self.end()),
        };
        if next.is_some() {
            reader.say_live();
        }
        self.members.insert(id, Member { reader, of, next });
        self.pump(id)
    }

    pub(super) fn leave(&mut self, id: u64) {
        self.members.remove(&id);
    }

    /// All readers, which are broken off.
    #[must_use]
    pub(super) fn close_all(&mut self) -> Vec<u64> {
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
        for member in self.members.values_mut().filter(|member| member.next.is_none()) {
            member.next = Some(end);
            member.reader.say_live();
        }
    }

    /// An event. Before the feed is live nobody wants it.
    pub(super) fn tell(&mut self, event: (RunId, Seq), workflow: &Arc<str>, frame: Frame) {
        if !self.is_live() {
            return;
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

    /// Hands over what there is to all readers. Who is to be removed.
    #[must_use]
    pub(super) fn pump_all(&mut self) -> Vec<u64> {
        let all: Vec<u64> = self.members.keys().copied().collect();
        all.into_iter().flat_map(|id| self.pump(id)).collect()
    }

    /// Hands over what there is to one reader, which is to be removed when it is in the answer.
    #[must_use]
    pub(super) fn pump(&mut self, id: u64) -> Vec<u64> {
        let end = self.end();
        let Some(member) = self.members.get_mut(&id) else { return Vec::new() };
        let Some(next) = &mut member.next else { return Vec::new() };
        while *next < end {
            let at = next.checked_sub(self.first).and_then(|skip| usize::try_from(skip).ok());
            let Some(told) = at.and_then(|at| self.ring.get(at)) else {
                // The ring has gone on without it.
                member.reader.say_last(Frame::parting("slow_consumer"));
                self.members.remove(&id);
                return vec![id];
            };
            while is_of(&told.workflow, &member.of) && member.reader.take(&told.frame, told.event).is_err() {
                if member.reader.must_wait() {
                    return Vec::new();
                }
            }
            *next += 1;
        }
        Vec::new()
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
