//! Reads the events of one run back from the frames that hold them: timelines, replay, lagging subscribers.
//!
//! Blocking; for the small pools of the control and fanout planes. It shares nothing with the writer but the files: every
//! frame is checked before a byte of it is believed, and a segment that was used again meanwhile is [`Error::Gone`], never
//! another run's events. Memory: one frame.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::Error;
use super::layout::shard_dir;
use super::log::frame::{ALIGN_BYTES, Identity, claimed_bytes, decode};
use super::log::segment;
use super::record::Bursts;
use crate::model::{Event, FrameRef, RunId, Seq};

/// Largest frame that is read: a segment can not hold more.
const FRAME_BYTES_MAX: usize = u32::MAX as usize;

/// Reads histories under one data directory.
#[derive(Clone, Debug)]
pub struct History {
    root: PathBuf,
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
    /// Only events after this one.
    pub after: Seq,
    /// At most this many.
    pub limit: usize,
}

impl History {
    /// Of the data directory at `root`, whose id is `cluster`.
    pub fn new(root: &Path, cluster: [u8; 16]) -> Self {
        Self { root: root.into(), cluster }
    }

    /// The run's events after `after`, in order, at most `limit`. Blocking.
    ///
    /// # Errors
    /// `Gone` when a frame's segment has been given back; `Corrupt` when a frame is damaged or the events have a gap.
    pub fn events(&self, query: &Query<'_>) -> Result<Vec<Event>, Error> {
        let dir = shard_dir(&self.root, query.shard);
        let identity = Identity { cluster: self.cluster, shard: query.shard };
        let mut events = Vec::new();
        let mut reader = FrameReader { dir, identity, open: None, bytes: Vec::new() };
        let mut last = None;
        for &frame in query.frames {
            if events.len() >= query.limit {
                break;
            }
            let corrupt = |reader: &FrameReader, why: String| Error::Corrupt {
                file: segment::path(&reader.dir, frame.segment),
                offset: u64::from(frame.offset),
                position: 0,
                why,
            };
            let payload = reader.payload(frame)?.to_vec();
            let bursts = Bursts::new(&payload)?;
            for burst in bursts {
                let burst = burst.map_err(|error| corrupt(&reader, error.to_string()))?;
                if burst.head.run_id != query.run_id {
                    continue;
                }
                if last.is_some_and(|last: Seq| last + 1 != burst.head.first_seq) {
                    return Err(corrupt(&reader, format!("{} has a gap before its event {}", query.run_id, burst.head.first_seq)));
                }
                last = Some(burst.last_seq());
                if burst.last_seq() <= query.after {
                    continue;
                }
                for event in burst.events() {
                    let event = event.map_err(|error| corrupt(&reader, error.to_string()))?;
                    if event.seq > query.after && events.len() < query.limit {
                        events.push(event);
                    }
                }
            }
        }
        Ok(events)
    }
}

struct FrameReader {
    dir: PathBuf,
    identity: Identity,
    open: Option<(u64, File)>,
    bytes: Vec<u8>,
}

impl FrameReader {
    /// The payload of one frame, after every check.
    fn payload(&mut self, frame: FrameRef) -> Result<&[u8], Error> {
        let path = segment::path(&self.dir, frame.segment);
        let read = self.read(frame, &path);
        match read {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Error::Gone { segment: frame.segment });
            }
            read => read.map_err(|error| Error::io(format!("read {}", path.display()), error))?,
        }
        let found = decode(&self.bytes);
        let ours = found.filter(|found| {
            let header = &found.header;
            (header.identity, header.segment, header.offset) == (self.identity, frame.segment, frame.offset)
        });
        match ours {
            Some(found) => Ok(found.payload),
            // An open file may have been renamed and written over since.
            None if !path.exists() || found.is_some_and(|found| found.header.segment > frame.segment) => {
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

    fn read(&mut self, frame: FrameRef, path: &Path) -> io::Result<()> {
        if self.open.as_ref().is_none_or(|(segment, _)| *segment != frame.segment) {
            self.open = Some((frame.segment, File::open(path)?));
        }
        let Some((_, file)) = &self.open else { return Err(io::ErrorKind::NotFound.into()) };
        self.bytes.resize(ALIGN_BYTES, 0);
        let offset = u64::from(frame.offset);
        let read = read_up_to(file, &mut self.bytes, offset)?;
        self.bytes.truncate(read);
        let length = file.metadata()?.len().saturating_sub(offset);
        let wanted = claimed_bytes(&self.bytes).unwrap_or(0).min(FRAME_BYTES_MAX);
        if wanted > read && wanted as u64 <= length {
            self.bytes.resize(wanted, 0);
            let rest = self.bytes.get_mut(read..).unwrap_or_default();
            file.read_exact_at(rest, offset + read as u64)?;
        }
        Ok(())
    }
}

fn read_up_to(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
