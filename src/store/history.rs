//! Reads the events of one run back from the frames that hold them: timelines, replay, lagging subscribers.
//!
//! A frame is named by (segment, offset) for ever. It stands in the journal ([`Frames`]) until its segment is moved, then, split by
//! retention class, in history files ([`file`](HistoryFile), `docs/formats/history.md`); a reader that comes in between
//! finds it in one of the two. Blocking; for the small pools of the control and fanout planes. It shares nothing with the
//! writers but what they keep: everything is checked before a byte of it is believed, and what was given back meanwhile is
//! [`Error::Gone`], never another run's events. Memory: one frame, or the tables and one block of a history file.

pub mod chain;
mod file;
pub mod format;
mod moving;
pub mod seal;
pub mod verify;
mod writer;

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Error;
use super::files::{DiskFiles, Files};
use super::frames::{DiskFrames, FrameReader, Frames};
use super::layout::{history_dir, shard_dir};
use super::log::frame::Identity;
use super::record::{Burst, Bursts};
use crate::model::{Event, FrameRef, RetentionClass, RunId, Seq};

pub use chain::{Finding, RunAudit};
pub use file::HistoryFile;
pub use format::FileId;
pub use moving::{Fate, Fates, Move, Moved, MovedFile};
pub use writer::{HistoryWriter, Written};

/// The name of the history file of a segment's runs of one class.
pub fn name(segment: u64, class: RetentionClass) -> String {
    format!("{segment:016x}-{}.hist", class.name())
}

/// Which file a name among them is of; `None` for names that are not ours.
pub fn parse_name(name: &str) -> Option<(u64, RetentionClass)> {
    let (segment, class) = name.strip_suffix(".hist")?.split_once('-')?;
    let segment = (segment.len() == 16).then(|| u64::from_str_radix(segment, 16).ok())??;
    Some((segment, RetentionClass::named(class)?))
}

/// Where a node keeps the events of its shards.
pub trait Places: fmt::Debug + Send + Sync {
    /// The journal of a shard.
    fn frames(&self, shard: u16) -> Arc<dyn Frames>;

    /// Its history files and their seals.
    fn files(&self, shard: u16) -> Arc<dyn Files>;
}

/// In a data directory.
#[derive(Debug)]
struct OnDisk {
    root: PathBuf,
    cluster: [u8; 16],
}

impl Places for OnDisk {
    fn frames(&self, shard: u16) -> Arc<dyn Frames> {
        let identity = Identity { cluster: self.cluster, shard };
        Arc::new(DiskFrames::new(shard_dir(&self.root, shard), identity))
    }

    fn files(&self, shard: u16) -> Arc<dyn Files> {
        Arc::new(DiskFiles::new(history_dir(&self.root, shard)))
    }
}

/// Reads the histories of one node.
#[derive(Clone, Debug)]
pub struct History {
    places: Arc<dyn Places>,
    cluster: [u8; 16],
}

/// Which events.
#[derive(Clone, Copy, Debug)]
pub struct Query<'a> {
    /// Of which run.
    pub run_id: RunId,
    /// The shard whose journal holds them.
    pub shard: u16,
    /// The frames that hold them, in order.
    pub frames: &'a [FrameRef],
    /// The class it is kept by, when that is known: its file is looked into first.
    pub class: Option<RetentionClass>,
    /// Only events after this one.
    pub after: Seq,
    /// At most this many.
    pub limit: usize,
}

/// Is shown a burst and the frame it is of; false: it has seen enough.
pub type VisitBurst<'a> = dyn FnMut(FrameRef, &Burst<'_>) -> Result<bool, Error> + 'a;

impl History {
    /// Of the data directory at `root`, whose id is `cluster`.
    pub fn new(root: &Path, cluster: [u8; 16]) -> Self {
        Self::over(Arc::new(OnDisk { root: root.into(), cluster }), cluster)
    }

    /// Of what is kept there.
    pub fn over(places: Arc<dyn Places>, cluster: [u8; 16]) -> Self {
        Self { places, cluster }
    }

    /// The history files of a shard.
    pub fn files(&self, shard: u16) -> Arc<dyn Files> {
        self.places.files(shard)
    }

    /// The journal of a shard.
    pub fn frames(&self, shard: u16) -> Arc<dyn Frames> {
        self.places.frames(shard)
    }

    /// The id of the data directory and a shard.
    pub fn identity(&self, shard: u16) -> Identity {
        Identity { cluster: self.cluster, shard }
    }

    /// The run's events after `after`, in order, at most `limit`. Blocking.
    ///
    /// # Errors
    /// `Gone` when a frame's segment has been given back; `Corrupt` or `HistoryCorrupt` when it is damaged or the events
    /// have a gap.
    pub fn events(&self, query: &Query<'_>) -> Result<Vec<Event>, Error> {
        let mut events = Vec::new();
        self.each_wanted(query, &mut |_, burst| {
            if burst.last_seq() > query.after {
                for event in burst.events() {
                    let event = event?;
                    if event.seq > query.after && events.len() < query.limit {
                        events.push(event);
                    }
                }
            }
            Ok(events.len() < query.limit)
        })?;
        Ok(events)
    }

    /// Shows the run's bursts that have events after `after`, in order, as they lie in their frames, until the visitor has
    /// enough. Blocking.
    ///
    /// # Errors
    /// As [`events`](Self::events); what the visitor cannot decode is damaged.
    pub fn bursts(
        &self,
        query: &Query<'_>,
        visit: &mut dyn FnMut(&Burst<'_>) -> Result<bool, Error>,
    ) -> Result<(), Error> {
        self.each_wanted(query, &mut |_, burst| match burst.last_seq() > query.after {
            true => visit(burst),
            false => Ok(true),
        })
    }

    /// Shows the run's bursts with their frames, in order, until the visitor has seen enough (false). Blocking.
    ///
    /// # Errors
    /// As for [`events`](Self::events); the visitor's, where records that cannot be read are damage of their file.
    pub fn each_of_run(&self, query: &Query<'_>, visit: &mut VisitBurst<'_>) -> Result<(), Error> {
        self.reader(query).each(0, visit)
    }

    /// The same from the frame with the event after `query.after` on; there may be some before it still.
    fn each_wanted(&self, query: &Query<'_>, visit: &mut VisitBurst<'_>) -> Result<(), Error> {
        let mut reader = self.reader(query);
        let from = reader.first_wanted();
        reader.each(from, visit)
    }

    fn reader<'a>(&'a self, query: &Query<'a>) -> FramesOfRun<'a> {
        FramesOfRun { history: self, query: *query, journal: None, moved: Vec::new() }
    }

    /// Shows every burst of these files of a shard with its frame, in the order of segments and frames. Bursts of one frame
    /// come class by class: those of one run are in order. For recovery when no checkpoint can be had, and for tools.
    ///
    /// # Errors
    /// `Gone` when a file is missing, `HistoryCorrupt` when one is damaged; the visitor's.
    pub fn each_burst(
        &self,
        shard: u16,
        files: &[FileId],
        visit: &mut dyn FnMut(FrameRef, Burst<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut files: Vec<FileId> = files.iter().copied().filter(|file| file.shard == shard).collect();
        files.sort_unstable();
        for of_segment in files.chunk_by(|a, b| a.segment == b.segment) {
            let mut open = Vec::new();
            for file in of_segment {
                let found = HistoryFile::open(self, *file)?;
                open.push((file.segment, found.ok_or(Error::Gone { segment: file.segment })?));
            }
            let frames = open.iter().flat_map(|(_, file)| file.tables().frames.iter());
            let offsets: BTreeSet<u32> = frames.map(|place| place.offset).collect();
            for offset in offsets {
                for (segment, file) in &mut open {
                    let frame = FrameRef { segment: *segment, offset };
                    let Some(payload) = file.frame(offset)? else { continue };
                    Bursts::new(payload)?.try_for_each(|burst| visit(frame, burst?))?;
                }
            }
        }
        Ok(())
    }
}

/// The payload of a frame, or a part of it, and where it was found.
struct Found {
    payload: Vec<u8>,
    file: PathBuf,
    offset: u64,
    moved: bool,
}

impl Found {
    fn corrupt(&self, why: String) -> Error {
        let (file, offset) = (self.file.clone(), self.offset);
        if self.moved {
            Error::HistoryCorrupt { file, offset, why }
        } else {
            Error::Corrupt { file, offset, position: 0, why }
        }
    }
}

struct FramesOfRun<'a> {
    history: &'a History,
    query: Query<'a>,
    journal: Option<Box<dyn FrameReader>>,
    /// History files of the segment read last.
    moved: Vec<(u64, HistoryFile)>,
}

impl FramesOfRun<'_> {
    /// Shows the bursts of the frames from this one on, until the visitor has seen enough.
    fn each(&mut self, from: usize, visit: &mut VisitBurst<'_>) -> Result<(), Error> {
        let query = self.query;
        let mut last = None;
        for &frame in query.frames.iter().skip(from) {
            let found = self.payload(frame)?;
            let corrupt = |error: Error| match error {
                Error::Record { why } => found.corrupt(why),
                other => other,
            };
            for burst in Bursts::new(&found.payload).map_err(corrupt)? {
                let burst = burst.map_err(corrupt)?;
                if burst.head.run_id != query.run_id {
                    continue;
                }
                if last.is_some_and(|last: Seq| last + 1 != burst.head.first_seq) {
                    let (run_id, first) = (query.run_id, burst.head.first_seq);
                    return Err(found.corrupt(format!("{run_id} has a gap before its event {first}")));
                }
                last = Some(burst.last_seq());
                if !visit(frame, &burst).map_err(corrupt)? {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// The frame to begin with, so that a page far into a long run does not cost the reading of all before it. Frames that cannot be
    /// read are for whoever reads them in order to judge, so such a run is read from its first.
    fn first_wanted(&mut self) -> usize {
        const FEW: usize = 8;
        let Query { frames, after, .. } = self.query;
        // `frames[low]` begins at or before the event wanted, `frames[high]` after it.
        let (mut low, mut high) = (0, frames.len());
        while after > 0 && high - low > FEW {
            let middle = low.midpoint(high);
            let Some(first) = frames.get(middle).and_then(|frame| self.first_seq(*frame)) else { return 0 };
            if first <= after.saturating_add(1) {
                low = middle;
            } else {
                high = middle;
            }
        }
        low
    }

    /// The number of the run's first event in this frame.
    fn first_seq(&mut self, frame: FrameRef) -> Option<Seq> {
        let run_id = self.query.run_id;
        let found = self.payload(frame).ok()?;
        let mut bursts = Bursts::new(&found.payload).ok()?.filter_map(Result::ok);
        bursts.find(|burst| burst.head.run_id == run_id).map(|burst| burst.head.first_seq)
    }

    /// The payload of one frame, after every check: from the journal, or from history when it was moved.
    fn payload(&mut self, frame: FrameRef) -> Result<Found, Error> {
        let (history, shard) = (self.history, self.query.shard);
        // A segment that has begun to be read in history is not asked for in the journal again.
        let journal = if self.moved.iter().any(|(segment, _)| *segment == frame.segment) {
            Err(Error::Gone { segment: frame.segment })
        } else {
            self.journal.get_or_insert_with(|| history.frames(shard).reader()).payload(frame)
        };
        match journal {
            Ok(payload) => {
                let file = history.frames(shard).place(Some(frame.segment));
                Ok(Found { payload, file, offset: u64::from(frame.offset), moved: false })
            }
            Err(Error::Gone { .. }) => self.in_history(frame),
            Err(error) => Err(error),
        }
    }

    /// The run's bursts of a frame in the history file that has them.
    fn in_history(&mut self, frame: FrameRef) -> Result<Found, Error> {
        self.moved.retain(|(segment, _)| *segment == frame.segment);
        if self.moved.is_empty() {
            let (shard, hint) = (self.query.shard, self.query.class);
            for class in hint.into_iter().chain(RetentionClass::all().filter(|class| Some(*class) != hint)) {
                let file = FileId { shard, segment: frame.segment, class };
                if let Some(open) = HistoryFile::open(self.history, file)? {
                    self.moved.push((frame.segment, open));
                    // The rest is only asked when the run is not where it should be.
                    if hint == Some(class) && self.find(frame)?.is_some() {
                        break;
                    }
                }
            }
        }
        self.find(frame)?.ok_or(Error::Gone { segment: frame.segment })
    }

    fn find(&mut self, frame: FrameRef) -> Result<Option<Found>, Error> {
        let run_id = self.query.run_id;
        for (_, open) in &mut self.moved {
            let file = open.place().to_path_buf();
            let Some(payload) = open.frame(frame.offset)? else { continue };
            let found =
                Found { payload: payload.to_vec(), file, offset: u64::from(frame.offset), moved: true };
            let mut bursts = Bursts::new(&found.payload).map_err(|error| found.corrupt(error.to_string()))?;
            if bursts.any(|burst| burst.is_ok_and(|burst| burst.head.run_id == run_id)) {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests;
