//! The embedded journal: one per shard, in a directory of segment files (`docs/formats/journal.md`).
//!
//! The life of a log: [`recover`] reads what is there and says where it ends; [`Log::open`] makes the last
//! segment ready and syncs it; `claim` writes the new owner's fence; [`Committer::start`] takes the log and
//! hands out a [`CommitHandle`], through which the shard appends. [`frame`] owns the bytes, [`segment`] the
//! files' names and preparation, [`reader`] reading back.
//!
//! Must hold: nothing is acknowledged before it is durable at the configured level; one failed write or sync
//! ends it all ([`Error::Fenced`](super::Error::Fenced)). A full disk shows when a segment is prepared, a
//! whole segment ahead of need; it ends the journal only when that segment is needed and still can not be
//! had.

pub mod commit;
pub mod frame;
pub mod reader;
pub mod recovery;
pub mod segment;
pub mod sink;
pub mod writer;

use std::path::PathBuf;

pub use commit::{CommitHandle, Committer};
pub use frame::Identity;
pub use recovery::{Cut, Recovered, Source, recover, recover_frames};
pub use sink::Sink;
pub use writer::Log;

use super::journal::{Durability, Fence, Position};
use crate::failpoint;
use crate::io::file::{FileKind, Writes};

/// How a log is written.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its directory.
    pub dir: PathBuf,
    /// Whose it is.
    pub identity: Identity,
    /// Bytes of a segment: a multiple of 4096, below 4 GiB. Segments of another size are read, and not used
    /// again.
    pub segment_bytes: u64,
    /// When batches are acknowledged.
    pub durability: Durability,
    /// Through the ring, or plain.
    pub file_kind: FileKind,
}

impl Config {
    /// Where a batch is acknowledged once it is synced, a write is durable when it completes. Bugs that are planted in a sync want
    /// one.
    fn writes(&self) -> Writes {
        let planted = ["acknowledge_before_sync", "never_sync", "sync_again_after_failure"];
        match self.durability {
            Durability::Fsync if !planted.into_iter().any(failpoint::mutant) => Writes::Durable,
            Durability::Fsync | Durability::Os => Writes::Cached,
        }
    }
}

/// A segment that takes no more frames. Also the mark from which recovery goes on without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Sealed {
    /// Its number.
    pub segment: u64,
    /// Position of its first frame.
    pub first: Position,
    /// Position of its last frame.
    pub last: Position,
    /// Checksum of its last frame.
    pub last_crc: u32,
    /// Owner of its last frame.
    pub fence: Fence,
}

#[cfg(test)]
mod tests;
