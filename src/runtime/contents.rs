//! The content store as the interface asks for it: blobs and the references to them, in the order that keeps both true.
//!
//! What must hold: a content that a durable event names is there, whole, and referred to. So `keep` stores the bytes first,
//! then the references, both durably, and only then may anybody name them; and a content is removed only when it has had
//! no reference for the time of grace, all that time under our eyes. The lock keeps a content from being removed between
//! the two steps of a `keep` that found it there. References of a run that never came to be go after the same time.
//!
//! Everything blocks, but where [`Contents`] says otherwise; it is called from blocking threads.

mod documents;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use crate::api::ports::{Content as Found, ContentCells, Contents, StorageError};
use crate::cas::{Blobs, Error, hash};
use crate::limits;
use crate::model::{Content, ContentHash, Kept, RunId, Value, Workspace};
use crate::store::{Archive, References, Registry};

/// What the store is told.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Bytes of a value up to which it stands in events.
    pub inline_max: usize,
    /// How long a content without a reference is kept at least.
    pub grace: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self { inline_max: limits::INLINE_VALUE_BYTES_MAX, grace: Duration::from_secs(3_600) }
    }
}

/// Where things are kept.
#[derive(Clone)]
pub(crate) struct Stores {
    pub(crate) blobs: Arc<dyn Blobs>,
    pub(crate) references: Arc<dyn References>,
    pub(crate) archive: Arc<dyn Archive>,
    /// Documents; the simulation has none.
    pub(crate) registry: Option<Arc<dyn Registry>>,
}

/// What the collector has seen so far.
#[derive(Debug, Default)]
struct Seen {
    /// Contents that nothing refers to, since when.
    unused: BTreeMap<ContentHash, u64>,
    /// Runs with references that are nowhere, since when.
    nowhere: BTreeMap<RunId, u64>,
    /// Where the next turns go on.
    next_content: Option<ContentHash>,
    next_run: Option<RunId>,
    /// Blobs and bytes of the round under way.
    counted: (u64, u64),
}

/// The content store of a node.
pub(crate) struct StoredContents {
    stores: Stores,
    settings: Settings,
    cells: Arc<ContentCells>,
    /// Read by whoever keeps, written by the collector.
    #[expect(clippy::disallowed_types, reason = "blocking threads only")]
    keeping: std::sync::RwLock<()>,
    #[expect(clippy::disallowed_types, reason = "blocking threads only, and held for a look at a map")]
    state: std::sync::Mutex<Seen>,
}

fn failed(error: &impl std::fmt::Display) -> StorageError {
    StorageError(error.to_string())
}

impl StoredContents {
    pub(crate) fn new(stores: Stores, settings: Settings) -> Arc<Self> {
        Arc::new(Self {
            stores,
            settings,
            cells: Arc::default(),
            keeping: Default::default(),
            state: Default::default(),
        })
    }

    fn state(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn grace_us(&self) -> u64 {
        u64::try_from(self.settings.grace.as_micros()).unwrap_or(u64::MAX)
    }

    fn store(&self, part: &Value) -> Result<Content, Error> {
        let json = part.to_json();
        let put = self.stores.blobs.put(json.as_bytes())?;
        let content = Content::of(part, put.sha256, json.len() as u64);
        if put.is_new {
            self.cells.blobs.increment();
            self.cells.bytes.add(content.bytes);
        } else {
            self.cells.shared.increment();
        }
        Ok(content)
    }

    /// Removes a content if nothing refers to it, and nobody is about to.
    fn remove(&self, sha256: &ContentHash) -> Result<(), StorageError> {
        let _nobody_keeps = self.keeping.write().unwrap_or_else(PoisonError::into_inner);
        let used = self.stores.references.referrers(sha256, None, 1).map_err(|error| failed(&error))?;
        if used.is_empty() && self.stores.blobs.remove(sha256).map_err(|error| failed(&error))? {
            self.cells.collected.increment();
        }
        Ok(())
    }

    /// Says which of these contents have had no reference for long enough.
    fn unused(&self, page: &[(ContentHash, u64)], now_us: u64) -> Result<Vec<ContentHash>, StorageError> {
        let mut due = Vec::new();
        for (sha256, _) in page {
            let used = self.stores.references.referrers(sha256, None, 1).map_err(|error| failed(&error))?;
            let mut state = self.state();
            if !used.is_empty() {
                state.unused.remove(sha256);
            } else if state.unused.contains_key(sha256) || state.unused.len() < limits::CONTENTS_UNUSED_MAX {
                let since = *state.unused.entry(*sha256).or_insert(now_us);
                if now_us.saturating_sub(since) >= self.grace_us() {
                    state.unused.remove(sha256);
                    due.push(*sha256);
                }
            }
        }
        Ok(due)
    }
}

impl Contents for StoredContents {
    fn inline_max(&self) -> usize {
        self.settings.inline_max
    }

    fn cells(&self) -> &Arc<ContentCells> {
        &self.cells
    }

    fn grace(&self) -> Duration {
        self.settings.grace
    }

    fn keep(&self, run_id: RunId, workspace: &Workspace, parts: Vec<Value>) -> Result<Kept, StorageError> {
        let _nothing_is_removed = self.keeping.read().unwrap_or_else(PoisonError::into_inner);
        let (mut kept, mut hashes) = (Kept::default(), Vec::with_capacity(parts.len()));
        for part in parts {
            let content = self.store(&part).map_err(|error| failed(&error))?;
            hashes.push(content.sha256);
            kept.add(content, part);
        }
        self.stores.references.refer(run_id, workspace, &hashes).map_err(|error| failed(&error))?;
        // Whatever was thought of it, it has a new beginning.
        let mut state = self.state();
        state.nowhere.remove(&run_id);
        for sha256 in &hashes {
            state.unused.remove(sha256);
        }
        Ok(kept)
    }

    fn keep_document(
        &self,
        run: (RunId, &Workspace),
        document: (&ContentHash, &str),
    ) -> Result<(), StorageError> {
        self.refer_to_document(run, document).map_err(StorageError)
    }

    fn read(&self, sha256: &ContentHash, workspace: &Workspace) -> Result<Found, StorageError> {
        let referrers = self.stores.references.referrers(sha256, Some(workspace), 1);
        if referrers.map_err(|error| failed(&error))?.is_empty() {
            return self.document(sha256, workspace);
        }
        match self.stores.blobs.get(sha256) {
            Ok(Some(bytes)) => Ok(Found::Whole(bytes)),
            Ok(None) => {
                let file = self.stores.blobs.place(sha256);
                Ok(Found::Missing(format!("it is referred to, and there is no {}", file.display())))
            }
            Err(error @ Error::Corrupt { .. }) => {
                self.cells.damaged.increment();
                Ok(Found::Damaged(error.to_string()))
            }
            Err(error) => Err(failed(&error)),
        }
    }

    fn references(&self, sha256: &ContentHash, workspace: &Workspace) -> Result<usize, StorageError> {
        let most = limits::CONTENT_REFERENCES_COUNTED_MAX;
        let runs = self.stores.references.referrers(sha256, Some(workspace), most);
        Ok(runs.map_err(|error| failed(&error))?.len())
    }

    fn unarchived(&self) -> Result<Vec<RunId>, StorageError> {
        let after = self.state().next_run;
        let page = self.stores.references.referring(after, limits::CONTENTS_PER_TURN);
        let page = page.map_err(|error| failed(&error))?;
        // A page that is not full was the last one: the next turn begins anew.
        self.state().next_run = page.last().copied().filter(|_| page.len() == limits::CONTENTS_PER_TURN);
        let mut found = Vec::new();
        for run_id in page {
            if self.stores.archive.ended(run_id).map_err(|error| failed(&error))?.is_none() {
                found.push(run_id);
            }
        }
        Ok(found)
    }

    fn nowhere(&self, run_id: RunId, now_us: u64) -> Result<(), StorageError> {
        // It may have ended since the shard was asked.
        if self.stores.archive.ended(run_id).map_err(|error| failed(&error))?.is_some() {
            return Ok(());
        }
        let since = *self.state().nowhere.entry(run_id).or_insert(now_us);
        if now_us.saturating_sub(since) < self.grace_us() {
            return Ok(());
        }
        let _nobody_keeps = self.keeping.write().unwrap_or_else(PoisonError::into_inner);
        // Unless somebody has kept something for it just now.
        if self.state().nowhere.remove(&run_id).is_some() {
            self.stores.references.forget(run_id).map_err(|error| failed(&error))?;
        }
        Ok(())
    }

    fn sweep(&self, now_us: u64) -> Result<(), StorageError> {
        let after = self.state().next_content;
        let page = self.stores.blobs.list(after.as_ref(), limits::CONTENTS_PER_TURN);
        let page = page.map_err(|error| failed(&error))?;
        for sha256 in self.unused(&page, now_us)? {
            self.remove(&sha256)?;
        }
        let mut state = self.state();
        state.counted.0 += page.len() as u64;
        state.counted.1 += page.iter().map(|(_, bytes)| bytes).sum::<u64>();
        state.next_content = page.last().map(|(sha256, _)| *sha256);
        if page.len() < limits::CONTENTS_PER_TURN {
            // Once round: what is there is known again, whatever was added and removed meanwhile.
            let (blobs, bytes) = std::mem::take(&mut state.counted);
            state.next_content = None;
            self.cells.blobs.set(blobs);
            self.cells.bytes.set(bytes);
        }
        Ok(())
    }
}

impl StoredContents {
    fn document(&self, sha256: &ContentHash, workspace: &Workspace) -> Result<Found, StorageError> {
        let Some(registry) = &self.stores.registry else { return Ok(Found::Unknown) };
        if !registry.is_registered(sha256, workspace).map_err(|error| failed(&error))? {
            return Ok(Found::Unknown);
        }
        let bytes = registry.by_hash(sha256).map_err(|error| failed(&error))?;
        Ok(match bytes {
            Some(bytes) if hash(&bytes) == *sha256 => Found::Whole(bytes),
            Some(_) => Found::Damaged(String::from("the registry holds another document under this hash")),
            None => Found::Missing(String::from("the document is registered, and the registry has it not")),
        })
    }
}

#[cfg(test)]
mod tests;
