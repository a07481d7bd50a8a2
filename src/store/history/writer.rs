//! Writes one history file: bursts in the order of their frames, packed in blocks.
//!
//! A file is written under another name, synced, renamed, and its directory synced: it is there whole or not at all. One that
//! was not finished is removed ([`HistoryWriter::abandon`], or at the next start).

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::format::{self, FileId, Place, RECORD_HEAD_BYTES, Tables, Trailer};
use super::path;
use crate::io::disk::{self, NewFile, sync_directory};
use crate::model::RunId;
use crate::store::Error;
use crate::store::log::Sealed;
use crate::store::record;

/// Bytes of a block, unpacked, above which the next record begins another.
pub(super) const BLOCK_BYTES: usize = 128 << 10;

/// A file being written.
#[derive(Debug)]
pub struct HistoryWriter {
    temporary: PathBuf,
    target: PathBuf,
    file: NewFile,
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
    /// Begins the file in `dir`, the history directory of its shard.
    ///
    /// # Errors
    /// The operating system's.
    pub fn create(dir: &Path, cluster: [u8; 16], file: FileId, sealed: Sealed) -> Result<Self, Error> {
        let target = path(dir, file.segment, file.class);
        let temporary = target.with_extension("tmp");
        let begun = NewFile::create(&temporary).and_then(|mut begun| {
            let header = format::header(cluster, file);
            begun.append(&header).map(|()| (begun, header.len() as u64))
        });
        let (file, written) =
            begun.map_err(|error| Error::io(format!("write {}", temporary.display()), error))?;
        let tables = Tables { sealed, blocks: Vec::new(), frames: Vec::new() };
        Ok(Self {
            temporary,
            target,
            file,
            written,
            block: Vec::new(),
            record: 0,
            tables,
            runs: BTreeSet::new(),
        })
    }

    /// Adds a burst (its bytes as in the journal) of the frame at `offset`. Frames come in order.
    ///
    /// # Errors
    /// The operating system's.
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
    /// The operating system's; nothing has its name then that had it not before.
    pub fn finish(mut self) -> Result<Written, Error> {
        self.flush()?;
        let tables = self.written;
        self.part(&self.tables.encode())?;
        let runs = self.written;
        self.part(&format::encode_runs(&self.runs))?;
        let bytes = self.written + format::TRAILER_BYTES as u64;
        let trailer = Trailer { tables, runs, bytes }.encode();
        let Self { temporary, target, mut file, runs, .. } = self;
        let done = file.append(&trailer).and_then(|()| file.sync());
        let done = done.and_then(|()| disk::rename(&temporary, &target));
        let done = done.and_then(|()| sync_directory(target.parent().unwrap_or(Path::new("."))));
        if done.is_err() {
            let _ = disk::remove(&temporary);
        }
        done.map_err(|error| Error::io(format!("write {}", target.display()), error))?;
        Ok(Written { bytes, runs: runs.len() as u64 })
    }

    /// Gives up; the room is free again.
    pub fn abandon(self) {
        drop(self.file);
        let _ = disk::remove(&self.temporary);
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
        let packed = format::pack(bytes).and_then(|packed| self.file.append(&packed).map(|()| packed.len()));
        let packed =
            packed.map_err(|error| Error::io(format!("write {}", self.temporary.display()), error))?;
        self.written += packed as u64;
        Ok(())
    }
}
