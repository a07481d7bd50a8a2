//! The end of writing: after a write that failed none goes through the same open database, until the index is opened again.
//!
//! The database refuses by itself; here stands why. A part of the failed write may be in the file, and is cut off by the next
//! start ([`super::mending`]); or all of it, when the sync failed: then it is there again. Reads go on.

use std::sync::{Arc, OnceLock};

use fjall::{OwnedWriteBatch, PersistMode};

use super::Index;
use crate::store::Error;

/// The first failure, once there was one.
pub(super) type Fence = OnceLock<Arc<str>>;

impl Index {
    /// Writes a batch, all of it or nothing. Every write of the index comes here.
    pub(super) fn commit(&self, batch: OwnedWriteBatch) -> Result<(), Error> {
        self.write(|| batch.commit())
    }

    /// Syncs what was written.
    pub(super) fn sync(&self) -> Result<(), Error> {
        self.write(|| self.db.persist(PersistMode::SyncAll))
    }

    fn write(&self, write: impl FnOnce() -> fjall::Result<()>) -> Result<(), Error> {
        if let Some(cause) = self.fence.get() {
            return Err(Error::IndexFenced { cause: cause.clone() });
        }
        write().map_err(|error| {
            let error = Error::from(error);
            if self.fence.set(error.to_string().into()).is_ok() {
                // The rest of the write is in the database's memory: dropped, it would write that, though whoever asked for
                // it was refused.
                std::mem::forget(self.db.clone());
            }
            error
        })
    }
}
