//! What every journal owes its owner.
//!
//! ```text
//!   claim(nonce) ──► fence (epoch, nonce), next position
//!   append(fence, p, batch) ──► durable at p    │ p + 1 │ p + 2 │ ...        one batch a position, no gaps
//!        wrong fence: refused      p already holds the same batch of this fence: acknowledged again
//!        wrong position: refused   p holds something else: refused
//!   read(from) ──► (position, batch) in order        trim(p) ──► below p may be forgotten
//! ```
//!
//! Obligations:
//! 1. `append` returns `Ok` only after the batch is durable at the configured level, whole and unchanged,
//!    and everything before it too.
//! 2. Fence and position are checked in the same step that appends. After a claim nothing of an older fence
//!    is ever appended.
//! 3. A repeated batch (same fence, position and bytes) is acknowledged, not doubled.
//! 4. `Err` from `append` is one of two things: refused (`StaleFence`, `WrongPosition`, `DifferentBatch`,
//!    `BatchTooLarge`: nothing was written), or unknown (anything else: the batch may be there after
//!    recovery, whole or not at all; the journal takes nothing more).
//! 5. A failed write or sync is never tried again.
//! 6. What is read is what was appended. Durable batches come back after a crash, in order, without gaps; a
//!    batch that was never acknowledged may come back too, after all acknowledged ones. Damage is reported,
//!    never skipped.
//! 7. Epochs grow: every claim's epoch is higher than every epoch ever seen.
//!
//! Journals are used on one core by one task; nothing needs to be `Send`.

use std::fmt;
use std::future::Future;

use super::Error;

/// Number of a batch in its journal: 1, 2, 3, ... 0 is "before the first". Claims take positions too.
pub type Position = u64;

/// Who may append.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Fence {
    /// Grows with every claim.
    pub epoch: u64,
    /// Random; tells two claimants of one epoch apart.
    pub nonce: u64,
}

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{:016x}", self.epoch, self.nonce)
    }
}

/// When a batch is acknowledged (RELIABILITY 2.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// Once it is synced.
    #[default]
    Fsync,
    /// Once it is written; a sync follows within `limits::JOURNAL_UNSYNCED_MILLIS_MAX`.
    Os,
}

impl Durability {
    /// As in the configuration and in replies.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fsync => "fsync",
            Self::Os => "os",
        }
    }
}

/// An append-only sequence of batches with one owner at a time. The module says what is owed.
pub trait Journal {
    /// Takes the journal over: from now on only the fence returned may append. The claim is durable.
    fn claim(&mut self, nonce: u64) -> impl Future<Output = Result<Fence, Error>>;

    /// Appends `batch` at `position`, which must be [`next`](Self::next), and waits until it is durable.
    fn append(
        &mut self,
        fence: Fence,
        position: Position,
        batch: &[u8],
    ) -> impl Future<Output = Result<(), Error>>;

    /// The position that the next append must name.
    fn next(&self) -> Position;

    /// The last durable position; 0 when there is none.
    fn durable(&self) -> Position;

    /// Durable batches from `from` on, in order, until `bytes_max` is passed (at least one). Claims are not
    /// shown.
    ///
    /// `Trimmed` when `from` has been given back.
    fn read(
        &mut self,
        from: Position,
        bytes_max: usize,
    ) -> impl Future<Output = Result<Vec<(Position, Vec<u8>)>, Error>>;

    /// Batches below `before` are no longer needed. They may stay readable: a journal forgets in pieces of
    /// its own size.
    fn trim(&mut self, before: Position) -> impl Future<Output = Result<(), Error>>;
}
