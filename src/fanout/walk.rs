//! The walk of one reader through all runs that are kept, from the first to where its feed goes on.
//!
//! A state machine without I/O: the hub does what it needs ([`Need`]) and tells it every event that comes to the feed
//! ([`Walk::note`]). It goes by *windows*. At the beginning of each the shards say which unfinished runs they have from where the walk
//! stands on; these and the finished ones are told in the order of their ids, each as far as it stood when it was looked up (its
//! *cut*). An event that comes meanwhile is
//! - let go when the walk will come to its run: whoever looks that up finds it, for it is durable;
//! - told already when it is not behind the cut of its run;
//! - otherwise *noted*: its run, what of it was told, and how far it is known to go. The next window begins with the runs that were noted.
//!
//! While a run is being looked up its events are noted too: the answer may have been on its way already, with an earlier cut.
//!
//! So no event is kept here, and the ring of the feed may go on without the walk. When the last window, which has no end, was told
//! and the ring still holds all that came since it began, the feed goes on from there, without what the cuts say was told.
//!
//! What must hold: an event that the hub has yet to take from its queue is not noted as untold when it was told. So cuts are kept
//! until shards have answered a question that was asked after them, and the queue has been read to where it ended then: all that
//! they had pushed before is through. Full: [`limits::FEED_WALK_NOTES_MAX`]; the stream ends with `resync`.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use super::reader::Reader;
use super::source::Location;
use crate::ir::Ir;
use crate::limits;
use crate::model::{RunId, Seq};
use crate::wire::frame::Frame;

/// How many runs are dealt with at a time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    /// Taken up at once.
    pub(super) page: usize,
    /// Walked through before shards are asked again.
    pub(super) window: usize,
    /// A window with fewer is followed by the last one: the walk is near the end.
    pub(super) few: usize,
    /// Noted.
    pub(super) notes: usize,
}

/// Those of a node.
pub(super) const SIZES: Sizes = Sizes {
    page: limits::FEED_WALK_PAGE,
    window: limits::FEED_WALK_WINDOW,
    few: 512,
    notes: limits::FEED_WALK_NOTES_MAX,
};

/// What is to be done for a walk, and how it is answered.
#[derive(Clone, Debug)]
pub(super) enum Need {
    /// Ask a shard for the ids of unfinished runs: [`Walk::on_listed`].
    List {
        /// Which.
        shard: u16,
        /// From this id on.
        from: RunId,
        /// Ids below this one.
        before: RunId,
        /// So many at most; none when it is only to answer.
        limit: usize,
    },
    /// Ask its shard where a run stands: [`Walk::on_located`] or [`Walk::on_unlocated`].
    Locate(RunId),
    /// Read the finished runs of a stretch, oldest first: [`Walk::on_finished`].
    Finished {
        /// From this id on.
        from: RunId,
        /// Ids below this one.
        before: RunId,
        /// So many at most.
        limit: usize,
    },
    /// Look for runs that their shards no longer have: [`Walk::on_found`].
    Find(Vec<RunId>),
    /// Read events of these runs, so many at most: [`Walk::on_read`].
    Read(Vec<Parcel>, usize),
}

/// A run whose events are to be told.
#[derive(Clone, Debug)]
pub(super) struct Parcel {
    pub(super) location: Arc<Location>,
    /// Those after this number.
    pub(super) after: Seq,
    /// Its graph, once it was looked up.
    pub(super) graph: Arc<OnceLock<Option<Arc<Ir>>>>,
}

/// A part of what was read, in order.
#[derive(Debug)]
pub(super) enum Piece {
    /// The next event of the first run that has more to tell.
    Event(Seq, Frame),
    /// That run was forgotten meanwhile.
    Gone,
    /// Events of it are missing.
    Missing,
    /// The storage failed.
    Failed,
}

/// What a walk looks at when it goes on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    /// Number of the first event in the ring, and of the one that comes next.
    pub(super) ring: (u64, u64),
    /// Pushes that were taken from the queue.
    pub(super) taken: u64,
    /// Milliseconds since the epoch, as in ids.
    pub(super) now_millis: u64,
    /// How many shards there are.
    pub(super) shards: usize,
}

/// How a walk stands.
#[derive(Debug)]
pub(super) enum Way {
    /// It goes on by itself, or when its reader has room.
    On,
    /// The feed goes on from this number of the ring. Once it has come to the second one nothing is told twice any more.
    Joined(u64, u64),
    /// It ends; with these last words, or without any when the reader shall just come back.
    Over(Option<&'static str>),
}

/// A run of which something came that is to be told later.
#[derive(Clone, Copy, Debug)]
struct Note {
    /// Up to here it was told.
    told: Seq,
    /// The last that came.
    seen: Seq,
}

#[derive(Debug)]
enum Step {
    /// A window is to begin.
    Asking,
    /// Shards have yet to answer.
    Listing(usize),
    /// So many pushes are to be taken from the queue before cuts may be forgotten.
    Settling(u64),
    /// The next runs are to be taken up.
    Paging,
    /// Finished runs, or runs that left their shards, are being looked up.
    Searching,
    /// Runs are being located.
    Locating,
    /// There are events to be read.
    Telling,
    /// They are being read.
    Reading,
    Over(Option<&'static str>),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Walk {
    sizes: Sizes,
    step: Step,
    /// Runs with smaller ids were walked through. The window has those from here on...
    from: RunId,
    /// ...below this.
    before: RunId,
    /// What the shards have listed; runs from `before` on are left to the next window.
    listed: Vec<RunId>,
    listed_before: RunId,
    /// Runs of this window that are to be located, and what of each was told.
    pending: BTreeMap<RunId, Seq>,
    /// Those that are being looked up, likewise.
    asked: BTreeMap<RunId, Seq>,
    /// Those of them that have left their shard.
    moved: Vec<RunId>,
    page: BTreeMap<RunId, Parcel>,
    cuts: BTreeMap<RunId, Seq>,
    notes: BTreeMap<RunId, Note>,
    /// Runs of this window, without those that were noted.
    walked: usize,
    /// Where the ring ended when the window began; `None` when that was not the last one.
    mark: Option<u64>,
}

impl Walk {
    pub(super) fn new(sizes: Sizes) -> Self {
        Self {
            sizes,
            step: Step::Asking,
            from: RunId::FIRST,
            before: RunId::FIRST,
            listed: Vec::new(),
            listed_before: RunId::LAST,
            pending: BTreeMap::new(),
            asked: BTreeMap::new(),
            moved: Vec::new(),
            page: BTreeMap::new(),
            cuts: BTreeMap::new(),
            notes: BTreeMap::new(),
            walked: usize::MAX,
            mark: None,
        }
    }

    /// Has this event been told?
    pub(super) fn has_told(&self, (run_id, seq): (RunId, Seq)) -> bool {
        self.cuts.get(&run_id).is_some_and(|cut| seq <= *cut)
    }

    /// An event of a run that the reader wants came to the feed.
    pub(super) fn note(&mut self, (run_id, seq): (RunId, Seq), begins: bool) {
        let comes_to_it = run_id >= self.before || self.pending.contains_key(&run_id);
        if comes_to_it || self.has_told((run_id, seq)) {
            return;
        }
        if let Some(note) = self.notes.get_mut(&run_id) {
            note.seen = note.seen.max(seq);
            return;
        }
        if self.notes.len() >= self.sizes.notes {
            self.step = Step::Over(Some("resync"));
            return;
        }
        let told = match self.asked.get(&run_id).or_else(|| self.cuts.get(&run_id)) {
            Some(told) => *told,
            // Whatever its id, it was not there when the walk came by.
            None if begins || run_id >= self.from => 0,
            None => seq.saturating_sub(1),
        };
        self.notes.insert(run_id, Note { told, seen: seq });
    }

    /// Goes as far as it can.
    pub(super) fn go(&mut self, reader: &Reader, seen: &Seen, need: &mut Vec<Need>) -> Way {
        loop {
            match self.step {
                Step::Asking => self.ask(seen, need),
                Step::Settling(until) if seen.taken >= until => match self.mark {
                    Some(mark) if mark >= seen.ring.0 => {
                        self.notes.clear();
                        return Way::Joined(mark, seen.ring.1);
                    }
                    _ => self.begin(seen),
                },
                Step::Paging => self.take_up(need),
                Step::Telling if self.page.is_empty() => self.step = Step::Paging,
                Step::Telling if !reader.must_wait_for_half() => {
                    let limit = reader.room();
                    let few = self.page.values().take(limit).cloned().collect();
                    need.push(Need::Read(few, limit));
                    self.step = Step::Reading;
                }
                Step::Over(words) => return Way::Over(words),
                _ => return Way::On,
            }
        }
    }

    /// Asks the shards for the next window, or, behind the last one, only for an answer.
    fn ask(&mut self, seen: &Seen, need: &mut Vec<Need>) {
        let near = self.walked < self.sizes.few;
        let (from, mut limit) = (self.from, 0);
        if from != RunId::LAST {
            // Runs that start while this window is told belong to the next one, until it is short.
            let now = RunId::first_of(seen.now_millis).max(from);
            self.before = if near { RunId::LAST } else { now };
            limit = (self.sizes.window / seen.shards.max(1)).max(self.sizes.page);
        }
        self.listed_before = self.before;
        let (before, shards) = (self.before, u16::try_from(seen.shards).unwrap_or(u16::MAX));
        need.extend((0..shards).map(|shard| Need::List { shard, from, before, limit }));
        self.step = Step::Listing(seen.shards);
    }

    /// A shard's unfinished runs, at most as many as were asked for; `upto`: pushes that had come to the queue when this was heard.
    pub(super) fn on_listed(&mut self, run_ids: Vec<RunId>, limit: usize, upto: u64) {
        let Step::Listing(missing) = &mut self.step else { return };
        *missing -= 1;
        if *missing == 0 {
            self.step = Step::Settling(upto);
        }
        if let Some(last) = run_ids.last().filter(|_| run_ids.len() >= limit) {
            // It may have more behind these.
            self.listed_before = self.listed_before.min(last.next());
        }
        self.listed.extend(run_ids);
    }

    /// All that was pushed before the shards were asked is through: nothing that was told can come any more.
    fn begin(&mut self, seen: &Seen) {
        self.cuts.clear();
        self.before = self.listed_before;
        let before = self.before;
        // The walk will come to the others.
        let noted = std::mem::take(&mut self.notes).into_iter().filter(|(run_id, _)| *run_id < before);
        self.pending = noted.map(|(run_id, note)| (run_id, note.told)).collect();
        for run_id in self.listed.drain(..).filter(|run_id| *run_id < before) {
            self.pending.entry(run_id).or_insert(0);
        }
        self.walked = 0;
        self.mark = (before == RunId::LAST).then_some(seen.ring.1);
        self.step = Step::Paging;
    }

    /// Takes up the next runs: first those that were noted, of which each was walked through once.
    fn take_up(&mut self, need: &mut Vec<Need>) {
        let first = self.pending.first_key_value().map(|(run_id, _)| *run_id);
        if first.is_some_and(|first| first < self.from) {
            self.locate(self.from, need);
        } else if self.from == self.before {
            self.step = Step::Asking;
        } else if self.walked >= self.sizes.window {
            // What the shards have said has grown old.
            self.before = self.from;
            self.pending.clear();
            self.mark = None;
            self.step = Step::Asking;
        } else {
            need.push(Need::Finished { from: self.from, before: self.before, limit: self.sizes.page });
            self.step = Step::Searching;
        }
    }

    /// Finished runs from where the walk stands on, oldest first, and the last that was looked at when there are more.
    pub(super) fn on_finished(&mut self, found: Vec<Location>, last: Option<RunId>, need: &mut Vec<Need>) {
        let Step::Searching = self.step else { return };
        let mut end = last.map_or(self.before, RunId::next).min(self.before);
        if let Some((run_id, _)) = self.pending.range(..end).nth(self.sizes.page) {
            end = *run_id;
        }
        for location in found {
            let run_id = location.located.summary.run_id;
            if run_id < end {
                self.pending.remove(&run_id);
                self.walked += 1;
                self.put(location, 0);
            }
        }
        self.from = end;
        self.walked += self.locate(end, need);
    }

    /// Locates the first runs that are to be, below this id; how many.
    fn locate(&mut self, end: RunId, need: &mut Vec<Need>) -> usize {
        for _ in 0..self.sizes.page {
            let Some(entry) = self.pending.first_entry().filter(|entry| *entry.key() < end) else { break };
            let (run_id, told) = entry.remove_entry();
            self.asked.insert(run_id, told);
            need.push(Need::Locate(run_id));
        }
        self.step = if self.asked.is_empty() { Step::Telling } else { Step::Locating };
        self.asked.len()
    }

    pub(super) fn on_located(&mut self, location: Location, need: &mut Vec<Need>) {
        if let Some(told) = self.asked.remove(&location.located.summary.run_id) {
            self.put(location, told);
            self.looked_up(need);
        }
    }

    /// Its shard does not have it.
    pub(super) fn on_unlocated(&mut self, run_id: RunId, need: &mut Vec<Need>) {
        if self.asked.contains_key(&run_id) {
            self.moved.push(run_id);
            self.looked_up(need);
        }
    }

    fn looked_up(&mut self, need: &mut Vec<Need>) {
        let Step::Locating = self.step else { return };
        if self.asked.len() > self.moved.len() {
            return;
        }
        let moved = std::mem::take(&mut self.moved);
        self.step = if moved.is_empty() { Step::Telling } else { Step::Searching };
        if !moved.is_empty() {
            need.push(Need::Find(moved));
        }
    }

    /// What was found of those that were looked for. The others are forgotten: what may still come of them is told to nobody, for
    /// what was before it is gone.
    pub(super) fn on_found(&mut self, found: Vec<Location>) {
        let Step::Searching = self.step else { return };
        for location in found {
            if let Some(told) = self.asked.remove(&location.located.summary.run_id) {
                self.put(location, told);
            }
        }
        for (run_id, _) in std::mem::take(&mut self.asked) {
            self.forget(run_id);
        }
        self.step = Step::Telling;
    }

    fn forget(&mut self, run_id: RunId) {
        self.notes.remove(&run_id);
        self.cuts.insert(run_id, Seq::MAX);
    }

    /// The run is to be told up to where it stands.
    fn put(&mut self, location: Location, after: Seq) {
        let summary = &location.located.summary;
        let (run_id, cut) = (summary.run_id, summary.seq);
        self.cuts.insert(run_id, cut.max(after));
        match self.notes.get_mut(&run_id) {
            // It came after the answer had been given.
            Some(note) if note.seen > cut => note.told = cut.max(after),
            _ => drop(self.notes.remove(&run_id)),
        }
        if cut > after {
            let graph = Arc::default();
            self.page.insert(run_id, Parcel { location: Arc::new(location), after, graph });
        }
    }

    /// Hands over what was read, as far as it fits; the rest is read again.
    pub(super) fn on_read(&mut self, pieces: Vec<Piece>, reader: &Reader) {
        let Step::Reading = self.step else { return };
        self.step = Step::Telling;
        for piece in pieces {
            let Some(mut first) = self.page.first_entry() else { return };
            let run_id = *first.key();
            match piece {
                Piece::Event(seq, frame) => {
                    if reader.take(&frame, (run_id, seq)).is_err() {
                        return;
                    }
                    first.get_mut().after = seq;
                    if seq >= first.get().location.located.summary.seq {
                        first.remove();
                    }
                }
                Piece::Gone => {
                    first.remove();
                    self.forget(run_id);
                }
                Piece::Missing => return self.step = Step::Over(Some("resync")),
                Piece::Failed => return self.step = Step::Over(None),
            }
        }
    }

    /// It cannot go on: the reader comes back.
    pub(super) fn give_up(&mut self) {
        self.step = Step::Over(None);
    }
}

#[cfg(test)]
mod tests;
