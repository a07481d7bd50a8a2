//! Frames of a partition's journal, read back beside the one that writes it.
//!
//! Must hold: what [`Frames`] owes. The place of a batch in its segment is how many come before it there, so a frame is asked for by its
//! position: segment and offset together.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::vec;

use super::client::Client;
use super::journal::{ENTRIES_AT_ONCE_MAX, Entry, entries_of, range};
use super::link::Request;
use super::{Keys, damaged};
use crate::model::FrameRef;
use crate::store::Error;
use crate::store::frames::{FrameReader, Frames, SealedReader, VisitFrames};
use crate::store::journal::Position;
use crate::store::log::Sealed;
use crate::store::record::Bursts;

/// Entries read at once where all are read.
const PAGE: usize = 64;

/// The frames of a partition.
#[derive(Clone, Debug)]
pub struct RedisFrames {
    client: Client,
    keys: Keys,
}

impl RedisFrames {
    /// Of the client's partition.
    pub fn new(client: Client) -> Self {
        Self { keys: Keys::of(client.tag()), client }
    }

    fn page(&self, from: Position, to: Position, at_once: usize) -> Result<Vec<Entry>, Error> {
        let answer = self.client.ask(Request::Read(range(&self.keys.log, (from, to), at_once)))?;
        entries_of(&self.keys.log, answer, from)
    }

    /// The first position that is kept, and the last one; the second below the first: none.
    fn bounds(&self) -> Result<(Position, Position), Error> {
        let mut command = redis::cmd("HMGET");
        command.arg(&self.keys.state).arg("first").arg("last");
        let answer = self.client.ask(Request::Read(command))?;
        let [first, last]: [Option<Position>; 2] =
            redis::from_redis_value(answer).map_err(|error| damaged(&self.keys.state, error.to_string()))?;
        Ok((first.unwrap_or(1), last.unwrap_or(0)))
    }

    /// Shows all entries.
    fn entries(&self, visit: &mut dyn FnMut(Entry) -> Result<(), Error>) -> Result<(), Error> {
        let (mut next, last) = self.bounds()?;
        while next <= last {
            let page = self.page(next, last, ENTRIES_AT_ONCE_MAX)?;
            if page.is_empty() {
                return Err(damaged(&self.keys.log, format!("nothing at position {next}")));
            }
            for entry in page {
                next = entry.position + 1;
                visit(entry)?;
            }
        }
        Ok(())
    }
}

/// Where a batch is in its segment.
fn place(entry: &Entry) -> Option<FrameRef> {
    let offset = u32::try_from(entry.position.checked_sub(entry.segment)?).ok()?;
    Some(FrameRef { segment: entry.segment, offset })
}

impl Frames for RedisFrames {
    fn reader(&self) -> Box<dyn FrameReader> {
        Box::new(self.clone())
    }

    fn sealed(&self, sealed: Sealed) -> Result<Box<dyn SealedReader>, Error> {
        let (of, next) = (self.clone(), sealed.first);
        Ok(Box::new(RedisSegment { of, sealed, next, page: Vec::new().into_iter() }))
    }

    fn segments(&self) -> Result<BTreeSet<u64>, Error> {
        let mut segments = BTreeSet::new();
        self.entries(&mut |entry| {
            segments.insert(entry.segment);
            Ok(())
        })?;
        Ok(segments)
    }

    fn has(&self, segment: u64) -> Result<bool, Error> {
        let (first, last) = self.bounds()?;
        Ok((first..=last).contains(&segment))
    }

    fn each(&self, visit: &mut VisitFrames<'_>) -> Result<(), Error> {
        self.entries(&mut |entry| {
            let place = place(&entry).ok_or_else(|| damaged(&self.keys.log, "a segment without end"))?;
            Bursts::new(&entry.batch)?.try_for_each(|burst| visit(place, &burst?))
        })
    }

    fn bytes(&self) -> Result<(u64, u64), Error> {
        let mut command = redis::cmd("MEMORY");
        command.arg("USAGE").arg(&self.keys.log);
        let answer = self.client.ask(Request::Read(command))?;
        let bytes: Option<u64> =
            redis::from_redis_value(answer).map_err(|error| damaged(&self.keys.log, error.to_string()))?;
        Ok((bytes.unwrap_or(0), 0))
    }

    fn place(&self, segment: Option<u64>) -> PathBuf {
        let (server, log) = (self.client.server(), &self.keys.log);
        let segment = segment.map(|segment| format!(" segment {segment}")).unwrap_or_default();
        PathBuf::from(format!("{server} {log}{segment}"))
    }
}

impl FrameReader for RedisFrames {
    fn payload(&mut self, frame: FrameRef) -> Result<Vec<u8>, Error> {
        let gone = Error::Gone { segment: frame.segment };
        let Some(position) = frame.segment.checked_add(u64::from(frame.offset)) else { return Err(gone) };
        let Some(entry) = self.page(position, position, 1)?.pop() else { return Err(gone) };
        if entry.segment == frame.segment {
            return Ok(entry.batch);
        }
        let why = format!("position {position} is in segment {}, not in {}", entry.segment, frame.segment);
        Err(damaged(&self.keys.log, why))
    }
}

/// A segment on its way to history.
#[derive(Debug)]
struct RedisSegment {
    of: RedisFrames,
    sealed: Sealed,
    next: Position,
    page: vec::IntoIter<Entry>,
}

impl SealedReader for RedisSegment {
    fn next(&mut self) -> Result<(u32, Option<Vec<u8>>, bool), Error> {
        let Sealed { segment, last, last_crc, fence, .. } = self.sealed;
        if self.page.len() == 0 {
            self.page = self.of.page(self.next, last, PAGE)?.into_iter();
        }
        let Some(entry) = self.page.next() else { return Err(self.corrupt("nothing stands here")) };
        let Some(place) = place(&entry).filter(|place| place.segment == segment) else {
            return Err(self.corrupt("a batch of another segment stands here"));
        };
        let is_last = entry.position >= last;
        if is_last && (entry.checksum, entry.fence) != (last_crc, fence) {
            return Err(self.corrupt("the last batch is another one"));
        }
        self.next = entry.position + 1;
        Ok((place.offset, Some(entry.batch), is_last))
    }

    fn corrupt(&self, why: &str) -> Error {
        damaged(&self.of.keys.log, format!("{why}, at position {}", self.next))
    }
}

#[cfg(test)]
#[path = "frames_tests.rs"]
#[expect(clippy::disallowed_methods, reason = "who speaks to the server is a thread of the test")]
mod tests;
