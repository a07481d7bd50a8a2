//! The subscribers of one run: where each of them stands, and what to do so that each gets the next event.
//!
//! A state machine without I/O: the hub feeds it what happened and does what it asks for ([`Action`]). It relies on
//! one rule only: a subscriber whose cursor is `n` is handed event `n + 1` and no other, wherever that event comes from
//! (a push, the recent ring, a page of history). Pushes and replies may therefore come in any order, twice or not at
//! all; what is missing is located and read again.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use super::push::Push;
use super::reader::Reader;
use super::source::Location;
use crate::engine::command::Located;
use crate::ir::Ir;
use crate::limits;
use crate::model::{Event, EventBody, RunId, Seq, kept};
use crate::time::Timestamp;
use crate::wire::event::Row;
use crate::wire::frame::Frame;
use crate::wire::stream::From;

/// What the group needs done. Each is answered by the method named.
#[derive(Clone, Debug)]
pub(super) enum Action {
    /// Ask the shard where the run stands and to push from there: [`Group::on_located`] or [`Group::on_missing`].
    Watch,
    /// The run is not on its shard: look in the archive. Same answers.
    Finished,
    /// Get the graph, for naming nodes: [`Group::on_names`].
    Names(Arc<Location>),
    /// Read history for a subscriber: [`Group::on_page`].
    Read {
        /// For whom.
        subscriber: u64,
        /// From where.
        location: Arc<Location>,
        /// After this event.
        after: Seq,
        /// At most so many.
        limit: usize,
    },
    /// This reader has all events of the run, or its stream is broken off; then it leaves the other groups too.
    Closed {
        /// Who.
        subscriber: u64,
        /// It has all events of the run.
        ended: bool,
    },
}

#[derive(Debug)]
enum Names {
    Unknown,
    Asked,
    /// `None`: the document is not to be had, so nodes go unnamed.
    Known(Option<Arc<Ir>>),
}

/// A reader as far as this run is concerned.
#[derive(Debug)]
struct Member {
    reader: Rc<Reader>,
    /// The last event handed over, or kept back by its filter.
    cursor: Seq,
    /// Its cursor is where the log stands when that is known.
    from_now: bool,
    /// Asks sent before it joined; the answer to a later one tells whether its cursor is ahead of the log.
    joined: u64,
}

/// A page of history that is being read: for one member, and for all who stand where it goes.
#[derive(Debug)]
struct Page {
    member: u64,
    after: Seq,
    upto: Seq,
}

impl Page {
    fn is_for(&self, cursor: Seq) -> bool {
        (self.after..self.upto).contains(&cursor)
    }
}

#[derive(Debug)]
struct Recent {
    seq: Seq,
    frame: Frame,
}

/// The subscribers of one run.
#[derive(Debug)]
pub(super) struct Group {
    run_id: RunId,
    members: BTreeMap<u64, Member>,
    names: Names,
    location: Option<Arc<Location>>,
    /// Consecutive events, the newest last.
    recent: VecDeque<Recent>,
    recent_bytes: usize,
    /// For different places of the run, so they are few.
    reads: Vec<Page>,
    /// Number of the newest event known to exist.
    head: Seq,
    /// Number of the run's last event, once it has one.
    end: Option<Seq>,
    /// The graph has this version, or a later one.
    version: u32,
    /// Where the run stands is being asked.
    asking: bool,
    asks: u64,
    answered: u64,
    stirred_us: u64,
}

impl Group {
    pub(super) fn new(run_id: RunId) -> Self {
        Self {
            run_id,
            members: BTreeMap::new(),
            names: Names::Unknown,
            location: None,
            recent: VecDeque::new(),
            recent_bytes: 0,
            reads: Vec::new(),
            head: 0,
            end: None,
            version: 1,
            asking: false,
            asks: 0,
            answered: 0,
            stirred_us: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Has the run ended, as far as is known?
    pub(super) fn has_ended(&self) -> bool {
        self.end.is_some()
    }

    /// A new reader. It gets no event twice, and none that is not after `from`.
    pub(super) fn subscribe(
        &mut self,
        id: u64,
        (reader, from): (Rc<Reader>, From),
        actions: &mut Vec<Action>,
    ) {
        let (cursor, from_now) = match from {
            From::After(seq) => (seq, false),
            From::Now => (Seq::MAX, true),
        };
        self.members.insert(id, Member { reader, cursor, from_now, joined: self.asks });
        self.pump(id, actions);
    }

    /// The reader left, for whatever reason.
    pub(super) fn leave(&mut self, id: u64) {
        if let Some(member) = self.members.remove(&id)
            && self.reads.iter().any(|page| page.member == id)
        {
            // It is read all the same, for others who wait for it.
            member.reader.end_page();
        }
    }

    /// What is said of this event, when it is one of the latest.
    pub(super) fn recent(&self, seq: Seq) -> Option<&Frame> {
        let skip = seq.checked_sub(self.recent.front()?.seq)?;
        self.recent.get(usize::try_from(skip).ok()?).map(|recent| &recent.frame)
    }

    pub(super) fn on_located(&mut self, location: Location, actions: &mut Vec<Action>) {
        self.asking = false;
        self.answered = self.asks;
        let summary = &location.located.summary;
        self.head = self.head.max(summary.seq);
        if summary.status.is_terminal() {
            self.end = Some(summary.seq);
        }
        let location = Arc::new(location);
        self.location = Some(location.clone());
        let Located { graph, version, .. } = &location.located;
        if *version < self.version {
            // The answer is older than the patch.
            self.ask(actions);
        } else if graph.is_some() {
            self.names = Names::Known(graph.clone());
        } else if matches!(self.names, Names::Unknown) {
            self.names = Names::Asked;
            actions.push(Action::Names(location));
        }
        self.pump_all(actions);
    }

    /// The run is not on its shard; then, not in the archive either.
    pub(super) fn on_missing(&mut self, archived_too: bool, actions: &mut Vec<Action>) {
        if archived_too {
            self.asking = false;
            self.close_all(actions);
        } else {
            actions.push(Action::Finished);
        }
    }

    /// Where the run stands could not be asked; the next stir tries again.
    pub(super) fn on_not_asked(&mut self) {
        self.asking = false;
    }

    pub(super) fn on_names(&mut self, ir: Option<Arc<Ir>>, actions: &mut Vec<Action>) {
        self.names = Names::Known(ir);
        self.pump_all(actions);
    }

    pub(super) fn on_push(&mut self, push: Push, now_us: u64, actions: &mut Vec<Action>) {
        self.stirred_us = now_us;
        let next = self.recent.back().map(|recent| recent.seq + 1);
        if push.first_seq > 0 && next.is_some_and(|next| push.first_seq > next) {
            // A gap: the ring holds consecutive events only.
            self.recent.clear();
            self.recent_bytes = 0;
        }
        for (seq, body) in (push.first_seq..).zip(&push.events) {
            self.head = self.head.max(seq);
            if let EventBody::PatchApplied(patched) = body {
                // There may be nodes now that nobody here can name.
                (self.version, self.names) = (patched.version, Names::Unknown);
            }
            if body.ends_run() {
                self.end = Some(seq);
            }
            // Before nodes can be named, and what came already, is left to history.
            let wanted = self.recent.back().is_none_or(|recent| recent.seq + 1 == seq);
            if wanted && let Names::Known(ir) = &self.names {
                let at = (seq, push.at);
                let frame = kept::naming(push.kept.as_ref(), || frame(self.run_id, ir.as_deref(), at, body));
                self.remember(seq, frame);
            }
        }
        if push.lagged || matches!(self.names, Names::Unknown) {
            self.ask(actions);
        }
        self.pump_all(actions);
    }

    /// Something that is no event: for readers who have all events there are, and room to spare.
    pub(super) fn on_delta(&self, frame: &Frame) {
        for member in self.members.values() {
            // Who waits for a page is not there yet.
            if member.cursor >= self.head && !member.from_now {
                member.reader.mention(frame);
            }
        }
    }

    /// A page was read for this member. Whoever stands where it goes gets it too: it is read, and encoded, once.
    pub(super) fn on_page(
        &mut self,
        id: u64,
        page: Result<Vec<Event>, super::source::SourceError>,
        actions: &mut Vec<Action>,
    ) {
        let Some(at) = self.reads.iter().position(|page| page.member == id) else { return };
        let asked = self.reads.swap_remove(at);
        if let Some(member) = self.members.get(&id) {
            member.reader.end_page();
        }
        let Ok(events) = page else {
            // The reader comes back by itself and may find the storage well again.
            self.break_off(id, None, actions);
            return self.pump_all(actions);
        };
        // A patch came while the page was read: it is read again when nodes can be named.
        let Names::Known(ir) = &self.names else { return };
        let oldest = events.first().map(|event| event.seq);
        let named = |event: &Event| frame(self.run_id, ir.as_deref(), (event.seq, event.at), &event.body);
        let in_order = (asked.after + 1..).zip(&events).take_while(|(seq, event)| *seq == event.seq);
        let page: VecDeque<Recent> =
            in_order.map(|(seq, event)| Recent { seq, frame: named(event) }).collect();
        // The one it was read for may have gone on meanwhile, with what was pushed.
        let waiting =
            self.members.iter_mut().filter(|(other, member)| **other == id || asked.is_for(member.cursor));
        let waiting: Vec<(u64, bool)> =
            waiting.map(|(other, member)| (*other, hand_over(self.run_id, &page, member))).collect();
        for (other, moved) in waiting {
            let Some(member) = self.members.get(&other) else { continue };
            if other == id && !moved && member.cursor == asked.after && oldest != Some(asked.after + 1) {
                // The log has events that history does not hold: never a silent jump.
                let last = Frame::closing("resync", self.run_id, oldest.unwrap_or(self.head));
                self.break_off(id, Some(last), actions);
            } else if other == id && member.reader.has_waiting() {
                // Its other runs first.
                member.reader.wait(self.run_id);
            } else {
                self.pump(other, actions);
            }
        }
    }

    /// Looks after what no event reports: pushes that were lost.
    pub(super) fn stir(&mut self, now_us: u64, actions: &mut Vec<Action>) {
        const SECOND: u64 = 1_000_000;
        if now_us.saturating_sub(self.stirred_us) >= limits::HEARTBEAT_SECONDS * SECOND && self.end.is_none()
        {
            // Even the last push of a run may have been dropped.
            self.stirred_us = now_us;
            self.ask(actions);
        }
        self.pump_all(actions);
    }

    /// Breaks every stream off; readers come back by themselves.
    pub(super) fn close_all(&mut self, actions: &mut Vec<Action>) {
        let all: Vec<u64> = self.members.keys().copied().collect();
        all.into_iter().for_each(|id| self.break_off(id, None, actions));
    }

    fn pump_all(&mut self, actions: &mut Vec<Action>) {
        let all: Vec<u64> = self.members.keys().copied().collect();
        all.into_iter().for_each(|id| self.pump(id, actions));
    }

    /// Moves one reader as far as it can go now, and asks for what it needs to go further.
    pub(super) fn pump(&mut self, id: u64, actions: &mut Vec<Action>) {
        let Some(member) = self.members.get_mut(&id) else { return };
        if member.cursor > self.head {
            // Ahead of all we know. Only an answer to a question asked since it joined can judge that.
            if self.answered <= member.joined || self.asking {
                self.ask(actions);
            } else if std::mem::take(&mut member.from_now) {
                member.cursor = self.head;
                self.pump(id, actions);
            } else {
                let last = Frame::closing("resync", self.run_id, self.head);
                self.break_off(id, Some(last), actions);
            }
            return;
        }
        if member.cursor == self.head {
            match self.end {
                Some(end) if end == self.head => {
                    self.leave(id);
                    actions.push(Action::Closed { subscriber: id, ended: true });
                }
                _ if self.location.is_none() => self.ask(actions),
                _ => {}
            }
            return;
        }
        if hand_over(self.run_id, &self.recent, member) {
            return self.pump(id, actions);
        }
        if self.reads.iter().any(|page| page.is_for(member.cursor)) || !matches!(self.names, Names::Known(_))
        {
            return;
        }
        if member.reader.must_wait() {
            // Told when there is room.
            return member.reader.wait(self.run_id);
        }
        match &self.location {
            Some(location) if location.located.summary.seq > member.cursor => {
                if !member.reader.begin_page() {
                    return member.reader.wait(self.run_id);
                }
                let missing = location.located.summary.seq - member.cursor;
                let limit = member.reader.room().min(usize::try_from(missing).unwrap_or(usize::MAX)).max(1);
                let (location, after) = (location.clone(), member.cursor);
                self.reads.push(Page { member: id, after, upto: after + limit as Seq });
                actions.push(Action::Read { subscriber: id, location, after, limit });
            }
            _ => self.ask(actions),
        }
    }

    fn ask(&mut self, actions: &mut Vec<Action>) {
        if !self.asking {
            self.asking = true;
            self.asks += 1;
            actions.push(Action::Watch);
        }
    }

    fn remember(&mut self, seq: Seq, frame: Frame) {
        self.recent_bytes += frame.size_bytes();
        self.recent.push_back(Recent { seq, frame });
        while self.recent.len() > limits::SUBSCRIBER_EVENTS_MAX
            || self.recent_bytes > limits::SUBSCRIBER_BYTES_MAX
        {
            let Some(oldest) = self.recent.pop_front() else { break };
            self.recent_bytes -= oldest.frame.size_bytes();
        }
    }

    /// Ends a reader's stream before all is said.
    fn break_off(&mut self, id: u64, last: Option<Frame>, actions: &mut Vec<Action>) {
        if let Some(member) = self.members.get(&id) {
            last.into_iter().for_each(|last| member.reader.say_last(last));
            self.leave(id);
            actions.push(Action::Closed { subscriber: id, ended: false });
        }
    }
}

/// Hands over what the ring has for this reader. True when its cursor moved.
fn hand_over(run_id: RunId, recent: &VecDeque<Recent>, member: &mut Member) -> bool {
    let Some(first) = recent.front() else { return false };
    let Some(skip) = (member.cursor + 1).checked_sub(first.seq) else { return false };
    let before = member.cursor;
    for recent in recent.iter().skip(usize::try_from(skip).unwrap_or(usize::MAX)) {
        if member.reader.take(&recent.frame, (run_id, recent.seq)).is_err() {
            break;
        }
        member.cursor = recent.seq;
    }
    member.cursor != before
}

/// An event, its node named.
pub(super) fn frame(run_id: RunId, ir: Option<&Ir>, (seq, at): (Seq, Timestamp), body: &EventBody) -> Frame {
    let node = body.place().zip(ir).map(|(place, ir)| ir.path(place));
    Frame::event(run_id, &Row { seq, at, node: node.as_deref(), body })
}

#[cfg(test)]
mod tests;
