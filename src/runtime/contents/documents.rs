//! Documents that patches made, as contents: stored with the rows that name them, read back to go on from.

use std::sync::{Arc, PoisonError};

use super::StoredContents;
use crate::model::event::DocumentHash;
use crate::model::{RunId, Value, Workspace};
use crate::store::Error;

impl StoredContents {
    /// Stores documents, all of them durably, then does `put`, which refers to them: nothing is collected in between.
    ///
    /// # Errors
    /// A document could not be stored, and `put` was not done; or it failed.
    pub(crate) fn keep_documents(
        &self,
        texts: &[&[u8]],
        put: impl FnOnce() -> Result<(), Error>,
    ) -> Result<(), String> {
        let _nothing_is_removed = self.keeping.read().unwrap_or_else(PoisonError::into_inner);
        let stored = self.stores.blobs.put_all(texts).map_err(|error| error.to_string())?;
        put().map_err(|error| error.to_string())?;
        let mut state = self.state();
        for (put, text) in stored.iter().zip(texts) {
            state.unused.remove(&put.sha256);
            if put.is_new {
                self.cells.blobs.increment();
                self.cells.bytes.add(text.len() as u64);
            } else {
                self.cells.shared.increment();
            }
        }
        Ok(())
    }

    /// The same for one document that a run is about to name.
    ///
    /// # Errors
    /// As above: nothing may name it.
    pub(super) fn refer_to_document(
        &self,
        (run_id, workspace): (RunId, &Workspace),
        (hash, text): (&DocumentHash, &str),
    ) -> Result<(), String> {
        let refer = || self.stores.references.refer(run_id, workspace, &[*hash]);
        self.keep_documents(&[text.as_bytes()], refer)?;
        self.state().nowhere.remove(&run_id);
        Ok(())
    }

    /// A document that was stored, or registered: its text, and what it says.
    ///
    /// # Errors
    /// It is damaged, or cannot be read.
    pub(crate) fn stored_document(&self, hash: &DocumentHash) -> Result<Option<(Arc<str>, Value)>, String> {
        let mut found = self.stores.blobs.get(hash).map_err(|error| error.to_string())?;
        if let (None, Some(registry)) = (&found, &self.stores.registry) {
            found = registry.by_hash(hash).map_err(|error| error.to_string())?;
        }
        let Some(bytes) = found else { return Ok(None) };
        let value = Value::from_json(&bytes).map_err(|error| error.to_string())?;
        let text = String::from_utf8(bytes).map_err(|error| error.to_string())?;
        Ok(Some((text.into(), value)))
    }
}
