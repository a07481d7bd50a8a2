//! The subscribers of one run: where each of them stands, and what to do so that each gets the next event.
//!
//! A state machine without I/O: the hub feeds it what happened and does what it asks for ([`Action`]). It relies on
//! one rule only: a subscriber whose cursor is `n` is handed event `n + 1` and no other, wherever that event comes from
//! (a push, the recent ring, a page of history). Pushes and replies may therefore come in any order, twice or not at
//! all; what is missing is located and read again.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::push::Push;
use super::source::Location;
use crate::engine::command::Located;
use crate::ir::Ir;
use crate::limits;
use crate::model::{Event, EventBody, RunId, Seq, kept};
use crate::time::Timestamp;
use crate::wire::event::Row;
use crate::wire::frame::Frame;
use crate::wire::stream::Sink;

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
    /// A subscriber is done with.
    Closed(u64),
}

#[derive(Debug)]
enum Names {
    Unknown,
    Asked,
    /// `None`: the document is not to be had, so nodes go unnamed.
    Known(Option<Arc<Ir>>),
}

#[derive(Debug)]
struct Subscriber {
    sink: Sink,
    /// The last event handed over.
    cursor: Seq,
    /// Asks sent before it joined; the answer to a later one tells whether its cursor is ahead of the log.
    joined: u64,
    /// A page is being read: the events after this one.
    reading: Option<Seq>,
    /// Frames unread and since when their number did not fall (monotonic microseconds).
    depth: usize,
    moved_us: u64,
    heard_us: u64,
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
    subscribers: BTreeMap<u64, Subscriber>,
    names: Names,
    location: Option<Arc<Location>>,
    /// Consecutive events, the newest last.
    recent: VecDeque<Recent>,
    recent_bytes: usize,
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
            subscribers: BTreeMap::new(),
            names: Names::Unknown,
            location: None,
            recent: VecDeque::new(),
            recent_bytes: 0,
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
        self.subscribers.is_empty()
    }

    /// Has the run ended, as far as is known?
    pub(super) fn has_ended(&self) -> bool {
        self.end.is_some()
    }

    pub(super) fn subscribe(
        &mut self,
        id: u64,
        (after, sink): (Seq, Sink),
        now_us: u64,
        actions: &mut Vec<Action>,
    ) {
        sink.set_id(id);
        let subscriber = Subscriber {
            sink,
            cursor: after,
            joined: self.asks,
            reading: None,
            depth: 0,
            moved_us: now_us,
            heard_us: now_us,
        };
        self.subscribers.insert(id, subscriber);
        self.pump(id, actions);
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
        for subscriber in self.subscribers.values() {
            let is_live = subscriber.reading.is_none() && subscriber.cursor >= self.head;
            if is_live && subscriber.sink.room() > limits::SUBSCRIBER_EVENTS_MAX / 2 {
                // Whoever has no room misses it.
                let _ = subscriber.sink.push(frame);
            }
        }
    }

    pub(super) fn on_page(
        &mut self,
        id: u64,
        page: Result<Vec<Event>, super::source::SourceError>,
        actions: &mut Vec<Action>,
    ) {
        let Some(subscriber) = self.subscribers.get_mut(&id) else { return };
        let asked_after = subscriber.reading.take();
        let before = subscriber.cursor;
        let Ok(events) = page else {
            // The reader comes back by itself and may find the storage well again.
            return self.close(id, None, actions);
        };
        // A patch came while the page was read: it is read again when nodes can be named.
        let Names::Known(ir) = &self.names else { return };
        let ir = ir.as_deref();
        for event in &events {
            if event.seq != subscriber.cursor + 1 {
                continue;
            }
            let frame = frame(self.run_id, ir, (event.seq, event.at), &event.body);
            if subscriber.sink.push(&frame).is_err() {
                break;
            }
            subscriber.cursor = event.seq;
        }
        // Meanwhile the ring may have brought it further than the page goes.
        let still_there = asked_after == Some(before) && subscriber.cursor == before;
        let oldest = events.first().map(|event| event.seq);
        if still_there && oldest != Some(before + 1) {
            // The log has events that history does not hold: never a silent jump.
            let last = Frame::closing("resync", self.run_id, oldest.unwrap_or(self.head));
            return self.close(id, Some(last), actions);
        }
        self.pump(id, actions);
    }

    pub(super) fn on_drained(&mut self, id: u64, actions: &mut Vec<Action>) {
        self.pump(id, actions);
    }

    pub(super) fn on_gone(&mut self, id: u64, actions: &mut Vec<Action>) {
        if self.subscribers.get(&id).is_some_and(|subscriber| subscriber.sink.is_gone()) {
            self.close(id, None, actions);
        }
    }

    /// Looks after what no event reports: readers that left or stand still, idle streams, pushes that were lost.
    pub(super) fn stir(&mut self, now_us: u64, actions: &mut Vec<Action>) {
        const SECOND: u64 = 1_000_000;
        let (mut closing, heartbeat) = (Vec::new(), Frame::heartbeat());
        for (id, subscriber) in &mut self.subscribers {
            let depth = subscriber.sink.depth();
            if depth < subscriber.depth || depth == 0 {
                subscriber.moved_us = now_us;
            }
            if depth != subscriber.depth {
                subscriber.heard_us = now_us;
            }
            subscriber.depth = depth;
            let full = subscriber.sink.room() == 0;
            let still =
                now_us.saturating_sub(subscriber.moved_us) > limits::SUBSCRIBER_STALL_SECONDS_MAX * SECOND;
            if subscriber.sink.is_gone() {
                closing.push((*id, None));
            } else if full && still {
                closing.push((*id, Some(Frame::closing("slow_consumer", self.run_id, subscriber.cursor))));
            } else if now_us.saturating_sub(subscriber.heard_us) >= limits::HEARTBEAT_SECONDS * SECOND {
                subscriber.heard_us = now_us;
                subscriber.sink.mention(&heartbeat);
            }
        }
        for (id, last) in closing {
            self.close(id, last, actions);
        }
        if now_us.saturating_sub(self.stirred_us) >= limits::HEARTBEAT_SECONDS * SECOND && self.end.is_none()
        {
            // Even the last push of a run may have been dropped.
            self.stirred_us = now_us;
            self.ask(actions);
        }
        self.pump_all(actions);
    }

    /// Ends every stream; readers come back by themselves.
    pub(super) fn close_all(&mut self, actions: &mut Vec<Action>) {
        let all: Vec<u64> = self.subscribers.keys().copied().collect();
        all.into_iter().for_each(|id| self.close(id, None, actions));
    }

    fn pump_all(&mut self, actions: &mut Vec<Action>) {
        let all: Vec<u64> = self.subscribers.keys().copied().collect();
        all.into_iter().for_each(|id| self.pump(id, actions));
    }

    /// Moves one subscriber as far as it can go now, and asks for what it needs to go further.
    fn pump(&mut self, id: u64, actions: &mut Vec<Action>) {
        let Some(subscriber) = self.subscribers.get_mut(&id) else { return };
        if subscriber.cursor > self.head {
            // Ahead of all we know. Only an answer to a question asked since it joined can judge that.
            if self.answered > subscriber.joined && !self.asking {
                let last = Frame::closing("resync", self.run_id, self.head);
                self.close(id, Some(last), actions);
            } else {
                self.ask(actions);
            }
            return;
        }
        if subscriber.cursor == self.head {
            match self.end {
                Some(end) if end == self.head => self.close(id, None, actions),
                _ if self.location.is_none() => self.ask(actions),
                _ => {}
            }
            return;
        }
        if hand_over(&self.recent, subscriber) {
            return self.pump(id, actions);
        }
        if subscriber.reading.is_some() || !matches!(self.names, Names::Known(_)) {
            return;
        }
        if subscriber.sink.room() == 0 && subscriber.sink.ask_for_room() {
            // Told when there is room.
            return;
        }
        match &self.location {
            Some(location) if location.located.summary.seq > subscriber.cursor => {
                let missing = location.located.summary.seq - subscriber.cursor;
                let limit = subscriber.sink.room().min(usize::try_from(missing).unwrap_or(usize::MAX)).max(1);
                subscriber.reading = Some(subscriber.cursor);
                let (location, after) = (location.clone(), subscriber.cursor);
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

    fn close(&mut self, id: u64, last: Option<Frame>, actions: &mut Vec<Action>) {
        if let Some(subscriber) = self.subscribers.remove(&id) {
            subscriber.sink.close(last);
            actions.push(Action::Closed(id));
        }
    }
}

/// Hands over what the ring has for this subscriber. True when its cursor moved.
fn hand_over(recent: &VecDeque<Recent>, subscriber: &mut Subscriber) -> bool {
    let Some(first) = recent.front() else { return false };
    let Some(skip) = (subscriber.cursor + 1).checked_sub(first.seq) else { return false };
    let before = subscriber.cursor;
    for recent in recent.iter().skip(usize::try_from(skip).unwrap_or(usize::MAX)) {
        if subscriber.sink.push(&recent.frame).is_err() {
            break;
        }
        subscriber.cursor = recent.seq;
    }
    subscriber.cursor != before
}

fn frame(run_id: RunId, ir: Option<&Ir>, (seq, at): (Seq, Timestamp), body: &EventBody) -> Frame {
    let node = body.place().zip(ir).map(|(place, ir)| ir.path(place));
    Frame::event(run_id, &Row { seq, at, node: node.as_deref(), body })
}

#[cfg(test)]
mod tests;
