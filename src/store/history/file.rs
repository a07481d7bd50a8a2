//! Reads one history file: the record of a frame, or all of it in order. Nothing is believed before its checksum holds.

use std::path::{Path, PathBuf};

use super::format::{
    self, FileId, HEADER_BYTES, PART_HEAD_BYTES, RECORD_HEAD_BYTES, TRAILER_BYTES, Tables, Trailer,
};
use super::{History, name};
use crate::model::RunId;
use crate::store::Error;
use crate::store::files::Opened;

/// What is shown of each frame: its offset in the segment, and its payload.
type VisitFrame<'a> = dyn FnMut(u32, &[u8]) -> Result<(), Error> + 'a;

/// An open history file.
#[derive(Debug)]
pub struct HistoryFile {
    place: PathBuf,
    file: Box<dyn Opened>,
    trailer: Trailer,
    tables: Tables,
    /// The block read last, unpacked.
    block: Option<(u32, Vec<u8>)>,
}

impl HistoryFile {
    /// Opens the file among those of its shard; `None` when there is none.
    ///
    /// # Errors
    /// `HistoryCorrupt`, or the store's.
    pub fn open(history: &History, file: FileId) -> Result<Option<Self>, Error> {
        let (files, name) = (history.files(file.shard), name(file.segment, file.class));
        let Some(opened) = files.open(&name)? else { return Ok(None) };
        let place = files.place(&name);
        let corrupt = |offset: u64, why: String| Error::HistoryCorrupt { file: place.clone(), offset, why };
        let length = opened.length();
        if length < (HEADER_BYTES + TRAILER_BYTES) as u64 {
            return Err(corrupt(length, "it is too short".into()));
        }
        let header = opened.read(0, HEADER_BYTES)?;
        format::check_header(&header, history.identity(file.shard), file).map_err(|why| corrupt(0, why))?;
        let at = length - TRAILER_BYTES as u64;
        let trailer =
            Trailer::decode(&opened.read(at, TRAILER_BYTES)?, length).map_err(|why| corrupt(at, why))?;
        let bytes = usize::try_from(trailer.runs - trailer.tables).unwrap_or(usize::MAX);
        let tables = format::unpack(&opened.read(trailer.tables, bytes)?)
            .and_then(|bytes| Tables::decode(&bytes, file.segment).ok_or("the tables do not fit".into()))
            .map_err(|why| corrupt(trailer.tables, why))?;
        Ok(Some(Self { place, file: opened, trailer, tables, block: None }))
    }

    /// Where it is.
    pub fn place(&self) -> &Path {
        &self.place
    }

    /// What it says about itself.
    pub fn tables(&self) -> &Tables {
        &self.tables
    }

    /// The payload of the frame at `offset` as far as it is here; `None` when nothing of it is.
    ///
    /// # Errors
    /// `HistoryCorrupt`, or the store's.
    pub fn frame(&mut self, offset: u32) -> Result<Option<&[u8]>, Error> {
        let Some(place) = self.tables.place(offset) else { return Ok(None) };
        if self.block.as_ref().is_none_or(|(block, _)| *block != place.block) {
            self.block = Some((place.block, self.load(place.block)?));
        }
        let (begin, file) = (self.begin(place.block), &self.place);
        let corrupt = || Error::HistoryCorrupt {
            file: file.clone(),
            offset: begin,
            why: format!("frame {offset} is not in its block"),
        };
        let block = self.block.as_ref().map_or(&[][..], |(_, bytes)| bytes);
        let record = usize::try_from(place.at).ok().and_then(|at| block.get(at..)).and_then(record);
        let (found, payload, _) = record.ok_or_else(corrupt)?;
        if found == offset { Ok(Some(payload)) } else { Err(corrupt()) }
    }

    /// Shows the payload of every frame, in order.
    ///
    /// # Errors
    /// `HistoryCorrupt`, the store's, or the visitor's.
    pub fn each_frame(&self, visit: &mut VisitFrame<'_>) -> Result<(), Error> {
        let mut seen = 0;
        for block in 0..u32::try_from(self.tables.blocks.len()).unwrap_or(u32::MAX) {
            let bytes = self.load(block)?;
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let (offset, payload, after) = record(rest)
                    .filter(|(offset, ..)| self.tables.place(*offset).is_some())
                    .ok_or_else(|| self.corrupt(self.begin(block), "a record does not fit"))?;
                visit(offset, payload)?;
                (rest, seen) = (after, seen + 1);
            }
        }
        if seen == self.tables.frames.len() {
            return Ok(());
        }
        Err(self.corrupt(self.trailer.tables, "the tables name frames that are not in the blocks"))
    }

    /// The runs that have events in it, in order.
    ///
    /// # Errors
    /// `HistoryCorrupt`, or the store's.
    pub fn runs(&self) -> Result<Vec<RunId>, Error> {
        let end = self.trailer.bytes - TRAILER_BYTES as u64;
        let bytes = usize::try_from(end - self.trailer.runs).unwrap_or(usize::MAX);
        let part = self.file.read(self.trailer.runs, bytes)?;
        let runs = format::unpack(&part);
        let runs = runs.and_then(|bytes| format::decode_runs(&bytes).ok_or("the runs do not fit".into()));
        runs.map_err(|why| self.corrupt(self.trailer.runs, &why))
    }

    fn begin(&self, block: u32) -> u64 {
        let at = usize::try_from(block).unwrap_or(usize::MAX);
        self.tables.blocks.get(at).copied().unwrap_or(self.trailer.tables)
    }

    /// One block, unpacked.
    fn load(&self, block: u32) -> Result<Vec<u8>, Error> {
        let begin = self.begin(block);
        let room = usize::try_from(self.trailer.tables.saturating_sub(begin)).unwrap_or(usize::MAX);
        if room < PART_HEAD_BYTES {
            return Err(self.corrupt(begin, "there is no block here"));
        }
        let head = self.file.read(begin, PART_HEAD_BYTES)?;
        let bytes = format::part_bytes(&head).filter(|bytes| *bytes <= room);
        let bytes = bytes.ok_or_else(|| self.corrupt(begin, "a block is longer than the file"))?;
        let part = self.file.read(begin, bytes)?;
        format::unpack(&part).map_err(|why| self.corrupt(begin, &why))
    }

    fn corrupt(&self, offset: u64, why: &str) -> Error {
        Error::HistoryCorrupt { file: self.place.clone(), offset, why: why.into() }
    }
}

/// The record that begins here: offset of its frame, payload, what follows.
fn record(bytes: &[u8]) -> Option<(u32, &[u8], &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<RECORD_HEAD_BYTES>()?;
    let (offset, length) = head.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_le_bytes(*length.first_chunk()?)).ok()?;
    let (payload, after) = rest.split_at_checked(length)?;
    Some((u32::from_le_bytes(*offset), payload, after))
}
