//! Keyspaces in one fjall database of this machine.
//!
//! Small on purpose: one worker thread, small caches and memtables. A write that failed is the last one until the database is
//! opened again: it refuses by itself, and here stands why. A part of the failed write may be in the file, and is cut off by the next
//! start (`index::mending`); or all of it, when the sync failed: then it is there again. Reads go on.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use fjall::{Database, KeyspaceCreateOptions, PersistMode};

use super::{Batch, Bounds, Bytes, Guard, Keyspaces, Number, Rows};
use crate::store::Error;

/// Bytes of blocks kept in memory.
const CACHE_BYTES: u64 = 16 << 20;
/// Bytes of new rows of one keyspace kept in memory.
const MEMTABLE_BYTES: u64 = 8 << 20;
/// Bytes of the database's own journals.
const JOURNAL_BYTES: u64 = 64 << 20;
/// Descriptors it may keep open.
const FILES_MAX: usize = 64;

/// An open database.
pub(in crate::store) struct Embedded {
    db: Database,
    keyspaces: Vec<fjall::Keyspace>,
    /// The first failure, once there was one.
    fence: OnceLock<Arc<str>>,
}

impl Embedded {
    /// Opens the database in `dir`, made when there is none, with keyspaces of these names.
    ///
    /// # Errors
    /// It cannot be opened or recovered.
    pub(in crate::store) fn open(dir: &Path, names: &[&str]) -> Result<Self, Error> {
        let db = Database::builder(dir)
            .cache_size(CACHE_BYTES)
            .worker_threads(1)
            .max_cached_files(Some(FILES_MAX))
            .max_journaling_size(JOURNAL_BYTES)
            .open()?;
        let options = || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES);
        let keyspaces = names.iter().map(|name| db.keyspace(name, options)).collect::<Result<_, _>>()?;
        Ok(Self { db, keyspaces, fence: OnceLock::new() })
    }

    /// A keyspace beside those it was opened with, when it is there.
    pub(in crate::store) fn other(&self, name: &str) -> Result<Option<fjall::Keyspace>, Error> {
        let there = self.db.keyspace_exists(name);
        Ok(there.then(|| self.db.keyspace(name, KeyspaceCreateOptions::default)).transpose()?)
    }

    /// Takes it away, with all that is in it.
    pub(in crate::store) fn drop_other(&self, keyspace: fjall::Keyspace) -> Result<(), Error> {
        Ok(self.db.delete_keyspace(keyspace)?)
    }

    /// The database.
    #[cfg(test)]
    pub(in crate::store) fn database(&self) -> &Database {
        &self.db
    }

    fn keyspace(&self, number: Number) -> Result<&fjall::Keyspace, Error> {
        self.keyspaces
            .get(number)
            .ok_or_else(|| Error::Index { why: format!("there is no keyspace {number}") })
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

impl Keyspaces for Embedded {
    fn get(&self, keyspace: Number, key: &[u8]) -> Result<Option<Bytes>, Error> {
        Ok(self.keyspace(keyspace)?.get(key)?)
    }

    fn rows(&self, keyspace: Number, bounds: Bounds) -> Rows {
        match self.keyspace(keyspace) {
            Ok(keyspace) => {
                let rows = keyspace.range(bounds);
                Box::new(rows.map(|guard| Guard::new(guard.into_inner().map_err(Error::from))))
            }
            Err(error) => Box::new(std::iter::once(Guard::new(Err(error)))),
        }
    }

    fn commit(&self, batch: Batch) -> Result<(), Error> {
        // Otherwise it is with the operating system when this returns, as the database has it: a kill of the node takes nothing.
        let all = self.db.batch();
        let mut all = if batch.synced { all.durability(Some(PersistMode::SyncAll)) } else { all };
        for change in batch.changes {
            let keyspace = self.keyspace(change.keyspace)?;
            match change.value {
                Some(value) => all.insert(keyspace, change.key, value),
                None => all.remove(keyspace, change.key),
            }
        }
        self.write(|| all.commit())
    }

    fn sync(&self) -> Result<(), Error> {
        self.write(|| self.db.persist(PersistMode::SyncAll))
    }

    fn fenced(&self) -> Option<Arc<str>> {
        self.fence.get().cloned()
    }
}
