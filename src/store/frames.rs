//! The frames of a shard's journal, read back by whoever does not write it, wherever the journal is.
//!
//! A frame is named by (segment, offset) for ever. Must hold: everything is checked before a byte of it is believed; what was given back
//! meanwhile is [`Gone`](Error::Gone), never another run's events. Everything blocks. Memory: a frame, or a segment where all is read.

mod disk;

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

pub use disk::DiskFrames;

use super::Error;
use super::log::Sealed;
use super::record::Burst;
use crate::model::FrameRef;

/// Is shown a burst and its frame.
pub type VisitFrames<'a> = dyn FnMut(FrameRef, &Burst<'_>) -> Result<(), Error> + 'a;

/// The frames of one shard. The module says what is owed.
pub trait Frames: fmt::Debug + Send + Sync {
    /// For frames here and there.
    fn reader(&self) -> Box<dyn FrameReader>;

    /// For all frames of a segment that takes no more of them.
    fn sealed(&self, sealed: Sealed) -> Result<Box<dyn SealedReader>, Error>;

    /// Segments that were not given back.
    fn segments(&self) -> Result<BTreeSet<u64>, Error>;

    /// Is this one of them?
    fn has(&self, segment: u64) -> Result<bool, Error>;

    /// Shows every burst that is there, in order.
    fn each(&self, visit: &mut VisitFrames<'_>) -> Result<(), Error>;

    /// Bytes that are in use, and bytes that are kept for later use.
    fn bytes(&self) -> Result<(u64, u64), Error>;

    /// Where a segment is, or all of them, for messages.
    fn place(&self, segment: Option<u64>) -> PathBuf;
}

/// Reads frames here and there.
pub trait FrameReader {
    /// What a frame holds: `Gone` where its segment was given back, `Corrupt` where it is damaged.
    fn payload(&mut self, frame: FrameRef) -> Result<Vec<u8>, Error>;
}

/// Reads a segment, which must be what its seal says, to the last checksum.
pub trait SealedReader: fmt::Debug {
    /// The offset and the payload of the next frame, `None` for one that holds no batch; and whether it is the last.
    fn next(&mut self) -> Result<(u32, Option<Vec<u8>>, bool), Error>;

    /// Why something in the frame that was read last cannot be used.
    fn corrupt(&self, why: &str) -> Error;
}
