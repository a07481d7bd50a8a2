//! Frames in the segment files of a [`Log`](crate::store::log::Log), which may be written, renamed and written over meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use super::{FrameReader, Frames, SealedReader, VisitFrames};
use crate::io::disk::{self, OpenFile};
use crate::model::FrameRef;
use crate::store::Error;
use crate::store::log::frame::{Kind, decode};
use crate::store::log::{Identity, Sealed, Source, recover, segment};

/// Frames in a directory of segments.
#[derive(Clone, Debug)]
pub struct DiskFrames {
    directory: PathBuf,
    identity: Identity,
}

impl DiskFrames {
    /// Of the journal in this directory, which is this shard's.
    pub fn new(directory: PathBuf, identity: Identity) -> Self {
        Self { directory, identity }
    }

    /// Names and bytes; none where the shard has yet to make its directory.
    fn list(&self) -> Result<Vec<(String, u64)>, Error> {
        match disk::list(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            names => names.map_err(|error| Error::io(format!("read {}", self.directory.display()), error)),
        }
    }
}

impl Frames for DiskFrames {
    fn reader(&self) -> Box<dyn FrameReader> {
        Box::new(DiskReader { of: self.clone(), open: None, bytes: Vec::new() })
    }

    fn sealed(&self, sealed: Sealed) -> Result<Box<dyn SealedReader>, Error> {
        let path = segment::path(&self.directory, sealed.segment);
        let source =
            OpenFile::open(&path).map_err(|error| Error::io(format!("open {}", path.display()), error))?;
        let (identity, position) = (self.identity, sealed.first);
        Ok(Box::new(DiskSegment {
            path,
            source,
            identity,
            sealed,
            offset: 0,
            position,
            chain: None,
            bytes: Vec::new(),
        }))
    }

    fn segments(&self) -> Result<BTreeSet<u64>, Error> {
        Ok(segment::list(&self.directory)?.segments.into_keys().collect())
    }

    fn has(&self, segment: u64) -> Result<bool, Error> {
        Ok(disk::length(&segment::path(&self.directory, segment)).is_ok())
    }

    fn each(&self, visit: &mut VisitFrames<'_>) -> Result<(), Error> {
        if self.list()?.is_empty() {
            return Ok(());
        }
        // Without marks every segment that is there is read.
        let marks = BTreeMap::new();
        let source = Source { dir: &self.directory, identity: self.identity, marks: &marks };
        recover(source, &mut |frame, burst| visit(frame, &burst)).map(drop)
    }

    fn bytes(&self) -> Result<(u64, u64), Error> {
        let (mut used, mut free) = (0, 0);
        for (name, bytes) in self.list()? {
            *(if name.starts_with("free-") { &mut free } else { &mut used }) += bytes;
        }
        Ok((used, free))
    }

    fn place(&self, segment: Option<u64>) -> PathBuf {
        segment.map_or_else(|| self.directory.clone(), |segment| segment::path(&self.directory, segment))
    }
}

/// Keeps the segment open that it read last.
struct DiskReader {
    of: DiskFrames,
    open: Option<(u64, OpenFile)>,
    bytes: Vec<u8>,
}

impl DiskReader {
    fn read(&mut self, frame: FrameRef, path: &Path) -> io::Result<()> {
        if self.open.as_ref().is_none_or(|(segment, _)| *segment != frame.segment) {
            self.open = Some((frame.segment, OpenFile::open(path)?));
        }
        let Some((_, file)) = &self.open else { return Err(io::ErrorKind::NotFound.into()) };
        segment::read_frame(file, u64::from(frame.offset), &mut self.bytes)
    }
}

impl FrameReader for DiskReader {
    fn payload(&mut self, frame: FrameRef) -> Result<Vec<u8>, Error> {
        let path = segment::path(&self.of.directory, frame.segment);
        match self.read(frame, &path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Error::Gone { segment: frame.segment });
            }
            read => read.map_err(|error| Error::io(format!("read {}", path.display()), error))?,
        }
        let found = decode(&self.bytes);
        let ours = found.filter(|found| {
            let header = &found.header;
            (header.identity, header.segment, header.offset)
                == (self.of.identity, frame.segment, frame.offset)
        });
        match ours {
            Some(found) => Ok(found.payload.to_vec()),
            // An open file may have been renamed and written over since.
            None if disk::length(&path).is_err()
                || found.is_some_and(|found| found.header.segment > frame.segment) =>
            {
                Err(Error::Gone { segment: frame.segment })
            }
            None => Err(Error::Corrupt {
                file: path,
                offset: u64::from(frame.offset),
                position: 0,
                why: "no sound frame stands here".into(),
            }),
        }
    }
}

/// A segment on its way to history.
#[derive(Debug)]
struct DiskSegment {
    path: PathBuf,
    source: OpenFile,
    identity: Identity,
    sealed: Sealed,
    /// Of the next frame.
    offset: u64,
    position: u64,
    /// Checksum of the frame before.
    chain: Option<u32>,
    bytes: Vec<u8>,
}

impl SealedReader for DiskSegment {
    fn next(&mut self) -> Result<(u32, Option<Vec<u8>>, bool), Error> {
        let mut bytes = std::mem::take(&mut self.bytes);
        let read = segment::read_frame(&self.source, self.offset, &mut bytes);
        read.map_err(|error| Error::io(format!("read segment {}", self.sealed.segment), error))?;
        let Some(frame) = decode(&bytes) else { return Err(self.corrupt("no sound frame stands here")) };
        let header = &frame.header;
        let place = (header.identity, header.segment, u64::from(header.offset), header.position);
        let ours = (self.identity, self.sealed.segment, self.offset, self.position);
        if place != ours || self.chain.is_some_and(|chain| chain != header.chain) {
            return Err(self.corrupt("another frame stands here"));
        }
        if header.position == self.sealed.last && frame.crc != self.sealed.last_crc {
            return Err(self.corrupt("the last frame is another one"));
        }
        let is_last = header.position >= self.sealed.last;
        let read = (header.offset, (header.kind == Kind::Batch).then(|| frame.payload.to_vec()), is_last);
        self.offset += frame.bytes as u64;
        (self.position, self.chain) = (self.position + 1, Some(frame.crc));
        self.bytes = bytes;
        Ok(read)
    }

    fn corrupt(&self, why: &str) -> Error {
        Error::Corrupt {
            file: self.path.clone(),
            offset: self.offset,
            position: self.position,
            why: why.into(),
        }
    }
}
