//! Writes one history file: bursts in the order of their frames, packed in blocks.
//!
//! It is there whole or not at all ([`files`](crate::store::files)). One that was not finished is removed ([`HistoryWriter::abandon`],
//! or at the next start).

use std::collections::BTreeSet;

use super::format::{self, FileId, Place, RECORD_HEAD_BYTES, Tables, Trailer};
use super::{History, name};
use crate::model::RunId;
use crate::store::Error;
use crate::store::files::Begun;
use crate::store::log::Sealed;
use crate::store::record;

/// Bytes of a block, unpacked, above which the next record begins another.
pub(super) const BLOCK_BYTES: usize = 128 << 10;

/// A file being written.
#[derive(Debug)]
pub struct HistoryWriter {
    file: Box<dyn Begun>,
    written: u64,
    /// The block under way, unpacked.
    block: Vec<u8>,
    /// Where the record under way begins in it.
    record: usize,
    tables: Tables,
    runs: BTreeSet<RunId>,
}

/// A file that is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Its bytes.
    pub bytes: u64,
    /// How many runs have events in it.
    pub runs: u64,
}

impl HistoryWriter {
    /// Begins the file among those of its shard.
    ///
    /// # Errors
    /// The store's.
    pub fn create(history: &History, file: FileId, sealed: Sealed) -> Result<Self, Error> {
        let mut begun = history.files(file.shard).begin(&name(file.segment, file.class))?;
        let header = format::header(history.cluster, file);
        if let Err(error) = begun.append(&header) {
            begun.abandon();
            return Err(error);
        }
        let tables = Tables { sealed, blocks: Vec::new(), frames: Vec::new() };
        Ok(Self {
            file: begun,
            written: header.len() as u64,
            block: Vec::new(),
            record: 0,
            tables,
            runs: BTreeSet::new(),
        })
    }

    /// Adds a burst (its bytes as in the journal) of the frame at `offset`. Frames come in order.
    ///
    /// # Errors
    /// The store's.
    pub fn burst(&mut self, offset: u32, run_id: RunId, bytes: &[u8]) -> Result<(), Error> {
        if self.tables.frames.last().is_none_or(|last| last.offset != offset) {
            if self.block.len() >= BLOCK_BYTES {
                self.flush()?;
            }
            self.record = self.block.len();
            let narrow = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
            let (block, at) = (narrow(self.tables.blocks.len()), narrow(self.record));
            self.tables.frames.push(Place { offset, block, at });
            self.block.extend_from_slice(&offset.to_le_bytes());
            self.block.extend_from_slice(&0_u32.to_le_bytes());
            self.block.push(record::VERSION);
        }
        self.block.extend_from_slice(bytes);
        let length = self.block.len() - self.record - RECORD_HEAD_BYTES;
        if let Some(place) = self.block.get_mut(self.record + 4..).and_then(<[u8]>::first_chunk_mut::<4>) {
            *place = u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes();
        }
        self.runs.insert(run_id);
        Ok(())
    }

    /// Is nothing in it so far?
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Writes what is left, and makes the file durable under its name.
    ///
    /// # Errors
    /// The store's; nothing has its name then that had it not before.
    pub fn finish(mut self) -> Result<Written, Error> {
        self.flush()?;
        let tables = self.written;
        self.part(&self.tables.encode())?;
        let runs = self.written;
        self.part(&format::encode_runs(&self.runs))?;
        let bytes = self.written + format::TRAILER_BYTES as u64;
        let trailer = Trailer { tables, runs, bytes }.encode();
        let Self { mut file, runs, .. } = self;
        match file.append(&trailer) {
            Ok(()) => file.finish()?,
            Err(error) => {
                file.abandon();
                return Err(error);
            }
        }
        Ok(Written { bytes, runs: runs.len() as u64 })
    }

    /// Gives up; the room is free again.
    pub fn abandon(self) {
        self.file.abandon();
    }

    fn flush(&mut self) -> Result<(), Error> {
        if self.block.is_empty() {
            return Ok(());
        }
        self.tables.blocks.push(self.written);
        let block = std::mem::take(&mut self.block);
        self.part(&block)?;
        self.block = block;
        self.block.clear();
        Ok(())
    }

    fn part(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let packed = format::pack(bytes).map_err(|error| Error::io(String::from("pack history"), error))?;
        self.file.append(&packed)?;
        self.written += packed.len() as u64;
        Ok(())
    }
}
