//! Reads a log from its first segment to its end and says what is there (`docs/formats/journal.md`, "What a
//! torn write leaves").
//!
//! Only reads; reading twice gives the same. Blocking, for start-up and tools. A torn end is cut and
//! reported, damage before it is refused with file, offset and position. Memory: one segment.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};

use super::frame::{ALIGN_BYTES, Frame, Identity, Kind, decode};
use super::segment::{self, Listing};
use super::{Fence, Position, Sealed};
use crate::io::disk::{self, OpenFile};
use crate::model::FrameRef;
use crate::store::Error;
use crate::store::record::{Burst, Bursts};

/// What to read.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// Directory of the log.
    pub dir: &'a Path,
    /// Whose it must be.
    pub identity: Identity,
    /// Segments that need not be read, because everything in them is finished and indexed.
    pub marks: &'a BTreeMap<u64, Sealed>,
}

/// Where a log ends, and all that its next owner needs.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// Whose it is.
    pub identity: Identity,
    /// The position the next frame takes.
    pub next: Position,
    /// Checksum of the last frame; 0 when there is none.
    pub chain: u32,
    /// The last owner; the next claim must have a higher epoch.
    pub fence: Fence,
    /// Segments before the last, oldest first.
    pub sealed: Vec<Sealed>,
    /// The last segment with frames, and where they end in it.
    pub tail: Option<Tail>,
    /// What was cut off, when something was.
    pub cut: Option<Cut>,
    /// Frames read, claims included.
    pub frames: u64,
    pub(super) listing: Listing,
}

impl Recovered {
    /// The first segment that is there.
    pub fn first_segment(&self) -> u64 {
        self.listing.segments.keys().next().copied().unwrap_or(0)
    }
}

/// The last segment with frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tail {
    /// Its number.
    pub segment: u64,
    /// Position of its first frame.
    pub first: Position,
    /// Where the next frame goes.
    pub offset: u64,
    /// From here on no frame says that what is there had been synced.
    pub unsynced: u64,
}

/// A torn end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Segment in which the log ends.
    pub segment: u64,
    /// Where in it.
    pub offset: u64,
    /// The first position that is not there.
    pub position: Position,
    /// Whole frames after it that had never been synced, and are dropped with it.
    pub dropped: u64,
}

/// What is shown of each batch: its frame and its payload.
type Visit<'a> = dyn FnMut(FrameRef, &[u8]) -> Result<(), Error> + 'a;

/// Reads the log and shows every burst with its frame to `visit`, in order.
///
/// # Errors
/// `Corrupt` when something that had been synced is missing or the files do not belong together; `Io`; and
/// whatever `visit` returns.
pub fn recover(
    source: Source<'_>,
    visit: &mut dyn FnMut(FrameRef, Burst<'_>) -> Result<(), Error>,
) -> Result<Recovered, Error> {
    recover_frames(source, &mut |frame, payload| {
        Bursts::new(payload)?.try_for_each(|burst| visit(frame, burst?))
    })
}

/// As [`recover`], without a look at what the batches hold.
///
/// # Errors
/// As [`recover`].
pub fn recover_frames(source: Source<'_>, visit: &mut Visit<'_>) -> Result<Recovered, Error> {
    let listing = segment::list(source.dir)?;
    let mut reading = Reading { source, listing: &listing, state: State::default(), sealed: Vec::new() };
    let (tail, cut) = reading.read(visit)?;
    let State { next, chain, fence, frames, .. } = reading.state;
    let sealed = reading.sealed;
    let next = next.unwrap_or(1);
    Ok(Recovered { identity: source.identity, next, chain, fence, sealed, tail, cut, frames, listing })
}

/// What the last good frame leaves to expect.
#[derive(Clone, Copy, Debug, Default)]
struct State {
    /// `None` before the first frame of a log whose beginning has been given back.
    next: Option<Position>,
    chain: u32,
    fence: Fence,
    oldest: u64,
    frames: u64,
}

/// The frames of one segment.
struct Run {
    /// Position of the first one.
    first: Option<Position>,
    /// Where they end.
    offset: usize,
    /// Where those begin that no frame says to be synced.
    unsynced: usize,
}

/// What a sound frame is at the place it was found.
enum Verdict {
    Next,
    End,
    Refused(String),
}

struct Reading<'a> {
    source: Source<'a>,
    listing: &'a Listing,
    state: State,
    sealed: Vec<Sealed>,
}

impl Reading<'_> {
    fn read(&mut self, visit: &mut Visit<'_>) -> Result<(Option<Tail>, Option<Cut>), Error> {
        let ids: Vec<u64> = self.listing.segments.keys().copied().collect();
        let Some(&lowest) = ids.first() else { return Ok((None, None)) };
        if let Some((below, above)) = ids.iter().zip(ids.iter().skip(1)).find(|(a, b)| **a + 1 != **b) {
            return Err(self.corrupt(below + 1, 0, format!("segment missing (the next one is {above})")));
        }
        if lowest == 1 {
            self.state.next = Some(1);
        }
        let mut id = lowest;
        loop {
            let following = self.listing.segments.contains_key(&(id + 1)).then_some(id + 1);
            if let (Some(next), Some(mark)) = (following, self.mark(id))
                && self.skip(next, mark)?
            {
                id = next;
                continue;
            }
            let bytes = self.load(id)?;
            let Run { first, offset, unsynced } = self.frames_of(id, &bytes, visit)?;
            if let Some(next) = following
                && self.begins_next(next)?
            {
                let Some(first) = first else {
                    return Err(self.corrupt(id, 0, "the segment has no first frame".into()));
                };
                self.seal(id, first);
                id = next;
                continue;
            }
            let cut = self.end(id, offset, bytes)?;
            self.check_oldest(lowest)?;
            let tail = first.map(|first| Tail {
                segment: id,
                first,
                offset: offset as u64,
                unsynced: unsynced as u64,
            });
            if tail.is_none() && lowest != 1 {
                return Err(self.corrupt(id, 0, "the first segment has no first frame".into()));
            }
            return Ok((tail, cut));
        }
    }

    /// Goes on after a marked segment without reading it, when the next one is marked too or continues it.
    /// `false`: the log may end in the marked segment, so it has to be read.
    fn skip(&mut self, next: u64, mark: Sealed) -> Result<bool, Error> {
        let before = self.state;
        self.state = State { next: Some(mark.last + 1), chain: mark.last_crc, fence: mark.fence, ..before };
        let marked = self.mark(next).is_some() && self.listing.segments.contains_key(&(next + 1));
        let skipped = marked || self.begins_next(next)?;
        if skipped {
            self.sealed.push(mark);
        } else {
            self.state = before;
        }
        Ok(skipped)
    }

    /// The mark of a segment, when it goes on where the log stands.
    fn mark(&self, id: u64) -> Option<Sealed> {
        let mark = self.source.marks.get(&id)?;
        self.state.next.is_none_or(|next| next == mark.first).then_some(*mark)
    }

    fn seal(&mut self, id: u64, first: Position) {
        let State { next, chain, fence, .. } = self.state;
        let last = next.unwrap_or(1) - 1;
        self.sealed.push(Sealed { segment: id, first, last, last_crc: chain, fence });
    }

    /// Visits the frames of one segment.
    fn frames_of(&mut self, id: u64, bytes: &[u8], visit: &mut Visit<'_>) -> Result<Run, Error> {
        let (mut first, mut offset) = (None, 0);
        // Where frames begin that none says to be synced; their positions have no gaps.
        let mut unsynced: VecDeque<(Position, usize)> = VecDeque::new();
        while let Some(frame) = bytes.get(offset..).and_then(decode) {
            match self.verdict(&frame, id, offset) {
                Verdict::End => break,
                Verdict::Refused(why) => return Err(self.corrupt(id, offset, why)),
                Verdict::Next => {}
            }
            let header = &frame.header;
            first = first.or(Some(header.position));
            let frame_ref = FrameRef { segment: id, offset: header.offset };
            if header.kind == Kind::Batch {
                visit(frame_ref, frame.payload).map_err(|error| match error {
                    Error::Record { why } => self.corrupt(id, offset, why),
                    other => other,
                })?;
            }
            self.state = State {
                next: Some(header.position + 1),
                chain: frame.crc,
                fence: header.fence,
                oldest: header.oldest,
                frames: self.state.frames + 1,
            };
            unsynced.push_back((header.position, offset));
            while unsynced.front().is_some_and(|(position, _)| *position <= header.durable) {
                unsynced.pop_front();
            }
            offset += frame.bytes;
        }
        let unsynced = unsynced.front().map_or(offset, |(_, at)| *at);
        Ok(Run { first, offset, unsynced })
    }

    /// Does the log go on at the beginning of segment `id`?
    fn begins_next(&self, id: u64) -> Result<bool, Error> {
        let path = self.path(id);
        let mut bytes = Vec::new();
        let read = OpenFile::open(&path).and_then(|file| segment::read_frame(&file, 0, &mut bytes));
        read.map_err(|error| Error::io(format!("read {}", path.display()), error))?;
        let Some(frame) = decode(&bytes) else { return Ok(false) };
        match self.verdict(&frame, id, 0) {
            Verdict::Next => Ok(true),
            Verdict::End => Ok(false),
            Verdict::Refused(why) => Err(self.corrupt(id, 0, why)),
        }
    }

    /// What a sound frame at (`id`, `offset`) means for the log so far.
    fn verdict(&self, frame: &Frame<'_>, id: u64, offset: usize) -> Verdict {
        let header = &frame.header;
        if header.identity != self.source.identity {
            return Verdict::Refused(format!(
                "the frame belongs to another journal (shard {} of data directory {})",
                header.identity.shard,
                hex(&header.identity.cluster)
            ));
        }
        if header.segment > id || (header.segment < id && self.listing.segments.contains_key(&header.segment))
        {
            return Verdict::Refused(format!(
                "the file holds segment {}: files were swapped or copied",
                header.segment
            ));
        }
        if header.segment < id || header.fence.epoch < self.state.fence.epoch {
            return Verdict::End;
        }
        if usize::try_from(header.offset) != Ok(offset) {
            return Verdict::Refused(format!("the frame was written at byte {}", header.offset));
        }
        let Some(next) = self.state.next else { return Verdict::Next };
        if header.position != next || header.chain != self.state.chain {
            return Verdict::Refused(format!(
                "frame {} follows checksum {:08x}, not {:08x}: frames are missing or doubled",
                header.position, header.chain, self.state.chain
            ));
        }
        let claims = header.kind == Kind::Claim && header.fence.epoch > self.state.fence.epoch;
        if header.fence != self.state.fence && !claims {
            return Verdict::Refused(format!("owner {} never claimed the journal", header.fence));
        }
        Verdict::Next
    }

    /// The log ends at (`id`, `offset`), unless a later frame says that what is missing had been synced.
    fn end(&self, id: u64, offset: usize, bytes: Vec<u8>) -> Result<Option<Cut>, Error> {
        let position = self.state.next.unwrap_or(1);
        let mut dropped = self.later_frames(id, offset, &bytes)?;
        let header = bytes.get(offset..).unwrap_or_default();
        // A frame of this very place that is not sound was being written when the process or the machine
        // died.
        let torn = header.starts_with(&super::frame::MAGIC)
            && header.get(32..40) == Some(&id.to_le_bytes()[..])
            && header.get(40..48) == Some(&position.to_le_bytes()[..]);
        let short = !bytes.len().is_multiple_of(ALIGN_BYTES);
        drop(bytes);
        for &later in self.listing.segments.range(id + 1..).map(|(later, _)| later) {
            self.begins_next(later)?;
            dropped += self.later_frames(later, 0, &self.load(later)?)?;
        }
        let cut = Cut { segment: id, offset: offset as u64, position, dropped };
        Ok((torn || short || dropped > 0).then_some(cut))
    }

    /// Counts sound frames of this journal in segment `id` from `offset` on.
    fn later_frames(&self, id: u64, offset: usize, bytes: &[u8]) -> Result<u64, Error> {
        let position = self.state.next.unwrap_or(1);
        let mut found = 0;
        for at in (offset..bytes.len()).step_by(ALIGN_BYTES) {
            let Some(frame) = bytes.get(at..).and_then(decode) else { continue };
            let header = &frame.header;
            let ours = header.identity == self.source.identity
                && header.segment == id
                && usize::try_from(header.offset) == Ok(at)
                && header.position >= position
                && header.fence.epoch >= self.state.fence.epoch;
            if ours && header.durable >= position {
                let why = format!("frame {} says that position {position} had been synced", header.position);
                return Err(self.corrupt(id, at, why));
            }
            found += u64::from(ours);
        }
        Ok(found)
    }

    fn check_oldest(&self, lowest: u64) -> Result<(), Error> {
        let oldest = self.state.oldest;
        if self.state.frames > 0 && oldest < lowest {
            return Err(self.corrupt(oldest, 0, format!("segment missing (the first one is {lowest})")));
        }
        Ok(())
    }

    fn load(&self, id: u64) -> Result<Vec<u8>, Error> {
        let path = self.path(id);
        disk::read(&path).map_err(|error| Error::io(format!("read {}", path.display()), error))
    }

    fn path(&self, id: u64) -> PathBuf {
        segment::path(self.source.dir, id)
    }

    fn corrupt(&self, id: u64, offset: usize, why: String) -> Error {
        let position = self.state.next.unwrap_or(1);
        Error::Corrupt { file: self.path(id), offset: offset as u64, position, why }
    }
}

/// Hexadecimal digits of `bytes`.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
