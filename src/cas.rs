//! Contents by their hash: immutable, stored once, verified on every read.
//!
//! [`Blobs`] is what a store of contents owes, [`disk`] the one over files, [`keyspaces`] the one in a store elsewhere, [`memory`] its reference. Who refers to what is
//! none of its business: whoever removes a blob has made sure that nobody does. Everything blocks, and is called from
//! blocking threads only, never on a shard's core.
//!
//! Obligations:
//! 1. `put` returns only when the blob is durable, also when it was there before. Putting the same bytes twice, from
//!    several threads at once as well, is putting them once. A blob whose bytes have been damaged is whole again after it.
//! 2. `get` gives the very bytes that were put, verified against the hash, or says why not: `None` when there is no such
//!    blob, `Corrupt` when there is one that is not what its name says. Damaged bytes are never given out.
//! 3. `stat` does not read the bytes; `list` gives hashes in order, each blob that was there all the time exactly once.
//! 4. `remove` need not be durable: a blob may be there again after a crash, and is then whole.
//! 5. After `Err` from `put` the blob is there, whole, or it is not; another `put` may be tried.

#[cfg(test)]
pub(crate) mod conformance;
pub mod disk;
pub mod keyspaces;
pub mod memory;

use std::path::PathBuf;

use sha2::{Digest as _, Sha256};

use crate::model::{ContentHash, kept};

/// What can go wrong with contents.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The bytes are not what the name says.
    #[error("{} is damaged: {file} {why}; put the content there again, or remove the file", kept::name(.sha256))]
    Corrupt {
        /// Which.
        sha256: ContentHash,
        /// Where it lies.
        file: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The operating system refused.
    #[error("cannot {doing}: {source}")]
    Io {
        /// What was tried, with the path.
        doing: String,
        /// Its answer.
        source: std::io::Error,
    },
    /// The store that they are in refused.
    #[error("contents: {0}")]
    Store(#[from] crate::store::Error),
}

impl Error {
    /// Stable, snake_case.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Corrupt { .. } => "blob_corrupt",
            Self::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => "disk_full",
            Self::Io { .. } => "io",
            Self::Store(error) => error.code(),
        }
    }
}

/// What came of a `put`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Put {
    /// What the bytes are called.
    pub sha256: ContentHash,
    /// They were not there before.
    pub is_new: bool,
}

/// A store of contents. The module says what is owed.
pub trait Blobs: Send + Sync {
    /// Stores these bytes. Durable on return.
    ///
    /// # Errors
    /// They could not be stored.
    fn put(&self, bytes: &[u8]) -> Result<Put, Error>;

    /// Stores several, each once. Durable on return; after an error some of them may be there.
    ///
    /// # Errors
    /// One could not be stored.
    fn put_all(&self, all: &[&[u8]]) -> Result<Vec<Put>, Error> {
        all.iter().map(|bytes| self.put(bytes)).collect()
    }

    /// The bytes with this hash.
    ///
    /// # Errors
    /// They are damaged, or cannot be read.
    fn get(&self, sha256: &ContentHash) -> Result<Option<Vec<u8>>, Error>;

    /// How many bytes there are, unread.
    ///
    /// # Errors
    /// Nobody can say.
    fn stat(&self, sha256: &ContentHash) -> Result<Option<u64>, Error>;

    /// At most `limit` blobs with hashes above `after`, with their bytes, in order.
    ///
    /// # Errors
    /// The store cannot be read.
    fn list(&self, after: Option<&ContentHash>, limit: usize) -> Result<Vec<(ContentHash, u64)>, Error>;

    /// Removes a blob; says whether there was one.
    ///
    /// # Errors
    /// It could not be removed.
    fn remove(&self, sha256: &ContentHash) -> Result<bool, Error>;

    /// Where the blob lies, for messages.
    fn place(&self, sha256: &ContentHash) -> PathBuf;
}

/// The hash of these bytes.
pub fn hash(bytes: &[u8]) -> ContentHash {
    Sha256::digest(bytes).into()
}
