//! Moves one sealed segment of a journal into history files, a class each.
//!
//! The segment is read frame by frame and must be what its seal says, to the last checksum: what is damaged stays where it is.
//! A move that is not finished leaves nothing but files of another name, and can be made again: the same segment gives the same
//! files. Whoever drives it ([`Move::step`]) decides how fast it goes.

use std::collections::{BTreeMap, BTreeSet};

use super::seal::Parts;
use super::{FileId, History, HistoryWriter};
use crate::model::{RetentionClass, RunId};
use crate::store::Error;
use crate::store::frames::SealedReader;
use crate::store::log::Sealed;
use crate::store::record::{Burst, Bursts};
use crate::time::Timestamp;

/// Frames moved in one step, and bytes of them, about: the index is asked once for all of them, which is far away or not, and nobody else is
/// served meanwhile.
const FRAMES_PER_STEP: usize = 64;
const BYTES_PER_STEP: usize = 256 << 10;

/// What becomes of a run's events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It has ended then; its events go into the file of its class.
    Ended(RetentionClass, Timestamp),
    /// It has not; its events go there too, and the file stays as long as it lives.
    Live(RetentionClass),
    /// It is forgotten already; its events go nowhere.
    Forgotten,
}

/// Says of runs, by their first bursts, what becomes of each; in their order.
pub type Fates<'a> = dyn FnMut(&[&Burst<'_>]) -> Result<Vec<Fate>, Error> + 'a;

/// A file that a move has written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MovedFile {
    /// Which.
    pub file: FileId,
    /// Its bytes.
    pub bytes: u64,
    /// Runs with events in it that have ended.
    pub ended: Vec<RunId>,
    /// When the last of these did.
    pub last_ended: Timestamp,
    /// Runs with events in it that have not ended.
    pub live: Vec<RunId>,
}

/// A segment whose files are durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    /// Whose.
    pub shard: u16,
    /// Which.
    pub sealed: Sealed,
    /// The files, by class. None when nothing in it was to be kept.
    pub files: Vec<MovedFile>,
    /// Runs whose events were dropped.
    pub forgotten: Vec<RunId>,
}

/// A segment being moved.
#[derive(Debug)]
pub struct Move {
    history: History,
    shard: u16,
    sealed: Sealed,
    source: Box<dyn SealedReader>,
    fates: BTreeMap<RunId, Fate>,
    writers: BTreeMap<RetentionClass, HistoryWriter>,
    parts: Parts,
}

impl Move {
    /// Begins; nothing is written yet.
    ///
    /// # Errors
    /// The segment can not be opened.
    pub fn begin(history: &History, shard: u16, sealed: Sealed) -> Result<Self, Error> {
        Ok(Self {
            history: history.clone(),
            shard,
            sealed,
            source: history.frames(shard).sealed(sealed)?,
            fates: BTreeMap::new(),
            writers: BTreeMap::new(),
            parts: Parts::default(),
        })
    }

    /// Moves some frames. `fates` is asked once for each run, with the first of its bursts in the segment; for those of these frames
    /// together. False: there are no more.
    ///
    /// # Errors
    /// `Corrupt` when the segment is not what its seal says; the store's; whatever `fates` returns.
    pub fn step(&mut self, fates: &mut Fates<'_>) -> Result<bool, Error> {
        let (mut frames, mut bytes, mut is_last) = (Vec::new(), 0, false);
        while !is_last && frames.len() < FRAMES_PER_STEP && bytes < BYTES_PER_STEP {
            let (offset, payload, last) = self.source.next()?;
            is_last = last;
            let Some(payload) = payload else { continue };
            let sound = Bursts::new(&payload)?.try_for_each(|burst| burst.map(drop));
            sound.map_err(|error| self.source.corrupt(&error.to_string()))?;
            bytes += payload.len();
            frames.push((offset, payload));
        }
        let mut bursts = Vec::new();
        for (offset, payload) in &frames {
            for burst in Bursts::new(payload)? {
                bursts.push((*offset, burst?));
            }
        }
        self.meet(&bursts, fates)?;
        bursts.iter().try_for_each(|(offset, burst)| self.burst(*offset, burst))?;
        Ok(!is_last)
    }

    /// Asks for those that were not met before.
    fn meet(&mut self, bursts: &[(u32, Burst<'_>)], fates: &mut Fates<'_>) -> Result<(), Error> {
        let mut met = BTreeSet::new();
        let is_new = |burst: &&Burst<'_>| {
            !self.fates.contains_key(&burst.head.run_id) && met.insert(burst.head.run_id)
        };
        let new: Vec<&Burst<'_>> = bursts.iter().map(|(_, burst)| burst).filter(is_new).collect();
        if !new.is_empty() {
            let found = fates(&new)?;
            self.fates.extend(new.iter().map(|burst| burst.head.run_id).zip(found));
        }
        Ok(())
    }

    fn burst(&mut self, offset: u32, burst: &Burst<'_>) -> Result<(), Error> {
        let run_id = burst.head.run_id;
        let Some(Fate::Ended(class, _) | Fate::Live(class)) = self.fates.get(&run_id).copied() else {
            return Ok(());
        };
        let writer = match self.writers.entry(class) {
            std::collections::btree_map::Entry::Occupied(open) => open.into_mut(),
            std::collections::btree_map::Entry::Vacant(none) => {
                let file = FileId { shard: self.shard, segment: self.sealed.segment, class };
                none.insert(HistoryWriter::create(&self.history, file, self.sealed)?)
            }
        };
        writer.burst(offset, run_id, burst.bytes)?;
        self.parts.add(self.sealed.segment, class, burst);
        Ok(())
    }

    /// What was moved, for its seal; taken once, before the end.
    pub fn take_parts(&mut self) -> Parts {
        std::mem::take(&mut self.parts)
    }

    /// Makes the files durable under their names.
    ///
    /// # Errors
    /// The store's.
    pub fn finish(mut self) -> Result<Moved, Error> {
        let (shard, sealed) = (self.shard, self.sealed);
        let mut moved = Moved { shard, sealed, files: Vec::new(), forgotten: Vec::new() };
        while let Some((class, writer)) = self.writers.pop_first() {
            let written = match writer.finish() {
                Ok(written) => written,
                Err(error) => {
                    self.abandon();
                    return Err(error);
                }
            };
            let file = FileId { shard, segment: sealed.segment, class };
            moved.files.push(MovedFile {
                file,
                bytes: written.bytes,
                ended: Vec::new(),
                last_ended: Timestamp::default(),
                live: Vec::new(),
            });
        }
        for (run_id, fate) in &self.fates {
            let (Fate::Ended(class, _) | Fate::Live(class)) = fate else {
                moved.forgotten.push(*run_id);
                continue;
            };
            let Some(file) = moved.files.iter_mut().find(|moved| moved.file.class == *class) else {
                continue;
            };
            match fate {
                Fate::Ended(_, ended_at) => {
                    file.last_ended = file.last_ended.max(*ended_at);
                    file.ended.push(*run_id);
                }
                _ => file.live.push(*run_id),
            }
        }
        Ok(moved)
    }

    /// Gives up: what was begun is removed.
    pub fn abandon(self) {
        self.writers.into_values().for_each(HistoryWriter::abandon);
    }
}
