//! Contents in memory: the reference of what [`Blobs`] owes, for tests. Gone with the process.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::PoisonError;

use super::{Blobs, Error, Put, hash};
use crate::model::{ContentHash, kept};

/// A store in memory.
#[derive(Debug, Default)]
pub struct MemoryBlobs {
    #[expect(clippy::disallowed_types, reason = "blocking threads only, and held for a look at a map")]
    blobs: std::sync::Mutex<BTreeMap<ContentHash, Vec<u8>>>,
}

impl MemoryBlobs {
    fn blobs(&self) -> std::sync::MutexGuard<'_, BTreeMap<ContentHash, Vec<u8>>> {
        self.blobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Damages a blob; says whether there was one.
    pub fn damage(&self, sha256: &ContentHash) -> bool {
        self.blobs().get_mut(sha256).is_some_and(|bytes| {
            bytes.push(b' ');
            true
        })
    }
}

impl Blobs for MemoryBlobs {
    fn put(&self, bytes: &[u8]) -> Result<Put, Error> {
        let sha256 = hash(bytes);
        let is_new = self.blobs().insert(sha256, bytes.to_vec()).is_none();
        Ok(Put { sha256, is_new })
    }

    fn get(&self, sha256: &ContentHash) -> Result<Option<Vec<u8>>, Error> {
        let found = self.blobs().get(sha256).cloned();
        match found {
            Some(bytes) if hash(&bytes) != *sha256 => Err(Error::Corrupt {
                sha256: *sha256,
                file: self.place(sha256),
                why: "holds other bytes".into(),
            }),
            found => Ok(found),
        }
    }

    fn stat(&self, sha256: &ContentHash) -> Result<Option<u64>, Error> {
        Ok(self.blobs().get(sha256).map(|bytes| bytes.len() as u64))
    }

    fn list(&self, after: Option<&ContentHash>, limit: usize) -> Result<Vec<(ContentHash, u64)>, Error> {
        let blobs = self.blobs();
        let rest = blobs.iter().filter(|(sha256, _)| after.is_none_or(|after| *sha256 > after));
        Ok(rest.take(limit).map(|(sha256, bytes)| (*sha256, bytes.len() as u64)).collect())
    }

    fn remove(&self, sha256: &ContentHash) -> Result<bool, Error> {
        Ok(self.blobs().remove(sha256).is_some())
    }

    fn place(&self, sha256: &ContentHash) -> PathBuf {
        PathBuf::from(format!("memory/{}", kept::name(sha256)))
    }
}
