//! One subscriber, whatever it reads: its buffer, its filter, and how it keeps up.
//!
//! A reader of several runs is a member of the group of each, and all of them write into its one buffer. Only one page of history
//! is read for it at a time; members that need one, or room, stand in line.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use crate::limits;
use crate::model::{RunId, Seq};
use crate::wire::filter::Filter;
use crate::wire::frame::Frame;
use crate::wire::stream::{Full, Sink};

const SECOND_US: u64 = 1_000_000;

/// See the module. The stream ends when the last of those that share it lets go.
#[derive(Debug)]
pub(super) struct Reader {
    sink: Sink,
    filter: Filter,
    /// Of more than one run.
    is_set: bool,
    /// The last event that it was handed, or that its filter kept back.
    last: Cell<Option<(RunId, Seq)>>,
    /// A page is being read for it.
    reading: Cell<bool>,
    waiting: RefCell<VecDeque<RunId>>,
    /// Frames unread and since when their number did not fall (monotonic microseconds).
    depth: Cell<usize>,
    moved_us: Cell<u64>,
    heard_us: Cell<u64>,
}

/// What a look at a reader shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Nothing.
    Well,
    /// It left.
    Gone,
    /// It stood still with a full buffer for too long.
    Slow,
}

impl Reader {
    pub(super) fn new(id: u64, sink: Sink, (filter, is_set): (Filter, bool), now_us: u64) -> Self {
        sink.set_id(id);
        Self {
            sink,
            filter,
            is_set,
            last: Cell::new(None),
            reading: Cell::new(false),
            waiting: RefCell::default(),
            depth: Cell::new(0),
            moved_us: Cell::new(now_us),
            heard_us: Cell::new(now_us),
        }
    }

    /// Hands over an event that it wants; one that it does not want is as good as handed over.
    pub(super) fn take(&self, frame: &Frame, event: (RunId, Seq)) -> Result<(), Full> {
        if !frame.is_kept_back(&self.filter) {
            self.sink.push(frame)?;
        }
        self.last.set(Some(event));
        Ok(())
    }

    /// Something that is no event, when there is room to spare. Who has none misses it, and so do readers of several runs: they may
    /// be fed by another core than the one that hears of it.
    pub(super) fn mention(&self, frame: &Frame) {
        let wanted = !self.is_set && !frame.is_kept_back(&self.filter);
        if wanted && self.sink.room() > limits::SUBSCRIBER_EVENTS_MAX / 2 {
            let _ = self.sink.push(frame);
        }
    }

    /// Events that fit.
    pub(super) fn room(&self) -> usize {
        self.sink.room()
    }

    /// Is there no room, and will it be told when there is?
    pub(super) fn must_wait(&self) -> bool {
        self.sink.room() == 0 && self.sink.ask_for_room()
    }

    /// Is more than half of the buffer full, and will it be told when it is not? Who reads history by itself need not do it in
    /// small pieces.
    pub(super) fn must_wait_for_half(&self) -> bool {
        let is_full = || self.sink.room() < limits::SUBSCRIBER_EVENTS_MAX / 2;
        is_full() && {
            self.sink.ask_for_room();
            is_full()
        }
    }

    /// Stands in line for a member.
    pub(super) fn wait(&self, run_id: RunId) {
        if self.is_set {
            self.waiting.borrow_mut().push_back(run_id);
        }
    }

    /// Members whose turn it is: all that stand in line.
    pub(super) fn turns(&self) -> VecDeque<RunId> {
        self.waiting.take()
    }

    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.borrow().is_empty()
    }

    /// Begins to read a page. False while another is read.
    pub(super) fn begin_page(&self) -> bool {
        !self.reading.replace(true)
    }

    pub(super) fn end_page(&self) {
        self.reading.set(false);
    }

    pub(super) fn is_gone(&self) -> bool {
        self.sink.is_gone()
    }

    pub(super) fn say_last(&self, last: Frame) {
        self.sink.say_last(last);
    }

    /// Why it is closed when it is too slow.
    pub(super) fn too_slow(&self) -> Frame {
        match self.last.get() {
            Some((run_id, seq)) if !self.is_set => Frame::closing("slow_consumer", run_id, seq),
            _ => Frame::parting("slow_consumer"),
        }
    }

    /// Looks after it, and lets an idle stream say that it lives.
    pub(super) fn stir(&self, now_us: u64, heartbeat: &Frame) -> Found {
        let (depth, before) = (self.sink.depth(), self.depth.get());
        if depth < before || depth == 0 {
            self.moved_us.set(now_us);
        }
        if depth != before {
            self.heard_us.set(now_us);
        }
        self.depth.set(depth);
        let still = now_us.saturating_sub(self.moved_us.get());
        if self.sink.is_gone() {
            return Found::Gone;
        }
        if self.sink.room() == 0 && still > limits::SUBSCRIBER_STALL_SECONDS_MAX * SECOND_US {
            return Found::Slow;
        }
        if now_us.saturating_sub(self.heard_us.get()) >= limits::HEARTBEAT_SECONDS * SECOND_US {
            self.heard_us.set(now_us);
            self.sink.mention(heartbeat);
        }
        Found::Well
    }

    /// Says that nothing is missing from here on.
    pub(super) fn say_live(&self) -> Result<(), Full> {
        self.sink.push(&Frame::live())
    }
}
