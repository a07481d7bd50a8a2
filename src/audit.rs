//! The audit log: who did what through the interface, and what was refused (docs/adr/0025, `docs/formats/audit.md`).
//!
//! Records are lines of text in files under `audit/`, appended once, chained by hash, with checkpoints that the node's key has
//! signed. [`Log::note`] puts one into memory and never blocks long; [`Log::flush`] returns when it is durable, and one write
//! serves all that wait. A failed write is final until a restart: whatever must be recorded is refused then. The files together
//! have a bound; when the oldest goes, a signed anchor says where the rest begins. When memory is full a record is refused.

mod line;
mod log;
pub mod offline;
mod read;

pub use line::Record;
pub use log::{Entry, Log, Settings};
pub use read::{LogReport, Page};

/// What can go wrong with the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The operating system refused, now or before.
    #[error("the audit log cannot be written until a restart: {0}")]
    Failed(String),
    /// Too much waits to be written.
    #[error("{0} bytes of audit records wait to be written (limit audit_pending_bytes_max)")]
    Full(usize),
}

impl Error {
    /// Stable, snake_case.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Failed(_) => "audit_failed",
            Self::Full(_) => "audit_full",
        }
    }
}
