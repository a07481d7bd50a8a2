//! Reads frames of a running log back by position. Blocking; not on any hot path.

use std::path::PathBuf;

use super::frame::{Identity, Kind, decode};
use super::{Fence, Position, segment};
use crate::io::disk;
use crate::store::Error;

/// What to read.
#[derive(Clone, Debug)]
pub(super) struct Query {
    pub(super) dir: PathBuf,
    pub(super) identity: Identity,
    /// (segment, position of its first frame), oldest first.
    pub(super) segments: Vec<(u64, Position)>,
    pub(super) from: Position,
    /// The first position not to be read.
    pub(super) end: Position,
    pub(super) bytes_max: usize,
}

/// A frame that was read.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) position: Position,
    pub(super) fence: Fence,
    pub(super) kind: Kind,
    pub(super) payload: Vec<u8>,
}

/// Frames from `from` on until `bytes_max` bytes of payload are passed.
pub(super) fn read(query: &Query) -> Result<Vec<Stored>, Error> {
    let first = query.segments.first().map_or(1, |(_, first)| *first);
    if query.from < first {
        return Err(Error::Trimmed { first, wanted: query.from });
    }
    let begin = query.segments.partition_point(|(_, first)| *first <= query.from).saturating_sub(1);
    let (mut found, mut bytes) = (Vec::new(), 0);
    for &(id, first) in query.segments.get(begin..).unwrap_or_default() {
        let path = segment::path(&query.dir, id);
        let file = disk::read(&path).map_err(|error| Error::io(format!("read {}", path.display()), error))?;
        let (mut offset, mut position) = (0, first);
        let past = query.segments.iter().find(|(other, _)| *other == id + 1).map_or(query.end, |next| next.1);
        while position < past {
            let frame = file.get(offset..).and_then(decode).filter(|frame| {
                let header = &frame.header;
                (header.identity, header.segment, header.position) == (query.identity, id, position)
            });
            let Some(frame) = frame else {
                let why = "the frame cannot be read back".into();
                return Err(Error::Corrupt { file: path, offset: offset as u64, position, why });
            };
            if position >= query.from {
                let (fence, kind) = (frame.header.fence, frame.header.kind);
                found.push(Stored { position, fence, kind, payload: frame.payload.to_vec() });
                bytes += frame.payload.len();
                if bytes >= query.bytes_max && kind == Kind::Batch {
                    return Ok(found);
                }
            }
            (offset, position) = (offset + frame.bytes, position + 1);
        }
    }
    Ok(found)
}
