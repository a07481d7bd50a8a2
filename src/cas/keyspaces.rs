//! Contents in keyspaces of a store: the bytes in one, how many they are in another, so that nobody reads them to count them.
//!
//! Must hold: what [`Blobs`] owes; both rows of a content are written in one batch. What a `put` finds there is written anew: it may be
//! damaged. Full: as the store is; nothing is there then.

use std::ops::Bound;
use std::path::PathBuf;
use std::sync::Arc;

use super::{Blobs, Error, Put, hash};
use crate::model::{ContentHash, kept};
use crate::store::keyspaces::{Batch, Keyspace, Keyspaces};

/// Their names.
pub const NAMES: [&str; 2] = ["contents", "content_bytes"];

/// A store in keyspaces.
pub struct KeyspaceBlobs {
    of: Arc<dyn Keyspaces>,
    contents: Keyspace,
    lengths: Keyspace,
    /// What they are in, for messages.
    place: String,
}

impl KeyspaceBlobs {
    /// In keyspaces that are numbered as their [`NAMES`] are; `place` says what they are in.
    pub fn over(of: Arc<dyn Keyspaces>, place: impl Into<String>) -> Self {
        let [contents, lengths] = [0, 1].map(|number| Keyspace::new(&of, number));
        Self { of, contents, lengths, place: place.into() }
    }

    fn add(&self, batch: &mut Batch, bytes: &[u8]) -> Result<Put, Error> {
        let sha256 = hash(bytes);
        let is_new = !self.lengths.contains_key(sha256)?;
        batch.insert(&self.contents, sha256, bytes);
        batch.insert(&self.lengths, sha256, (bytes.len() as u64).to_be_bytes());
        Ok(Put { sha256, is_new })
    }

    fn corrupt(&self, sha256: &ContentHash, why: &str) -> Error {
        Error::Corrupt { sha256: *sha256, file: self.place(sha256), why: why.into() }
    }

    fn length(&self, sha256: &ContentHash, stored: &[u8]) -> Result<u64, Error> {
        let stored =
            stored.try_into().map_err(|_| self.corrupt(sha256, "does not say how many bytes it has"))?;
        Ok(u64::from_be_bytes(stored))
    }
}

impl Blobs for KeyspaceBlobs {
    fn put(&self, bytes: &[u8]) -> Result<Put, Error> {
        let mut batch = Batch::durable();
        let put = self.add(&mut batch, bytes)?;
        self.of.commit(batch)?;
        Ok(put)
    }

    fn get(&self, sha256: &ContentHash) -> Result<Option<Vec<u8>>, Error> {
        match self.contents.get(sha256)? {
            Some(bytes) if hash(&bytes) != *sha256 => Err(self.corrupt(sha256, "holds other bytes")),
            found => Ok(found.map(|bytes| bytes.to_vec())),
        }
    }

    fn stat(&self, sha256: &ContentHash) -> Result<Option<u64>, Error> {
        self.lengths.get(sha256)?.map(|stored| self.length(sha256, &stored)).transpose()
    }

    fn list(&self, after: Option<&ContentHash>, limit: usize) -> Result<Vec<(ContentHash, u64)>, Error> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let rows = self.lengths.range::<ContentHash>((from, Bound::Unbounded)).take(limit);
        rows.map(|row| {
            let (key, stored) = row.into_inner()?;
            let sha256 = ContentHash::try_from(&*key)
                .map_err(|_| self.corrupt(&[0; 32], "has a key that is no hash"))?;
            Ok((sha256, self.length(&sha256, &stored)?))
        })
        .collect()
    }

    fn remove(&self, sha256: &ContentHash) -> Result<bool, Error> {
        let is_there = self.lengths.contains_key(sha256)?;
        let mut batch = Batch::default();
        batch.remove(&self.contents, *sha256);
        batch.remove(&self.lengths, *sha256);
        self.of.commit(batch)?;
        Ok(is_there)
    }

    fn place(&self, sha256: &ContentHash) -> PathBuf {
        PathBuf::from(format!("{}/{}", self.place, kept::name(sha256)))
    }
}

// F057, F060, F065
#[cfg(test)]
#[test]
fn keyspaces_do_as_they_should() {
    crate::store::testing::in_each_back_end(&NAMES, &|keyspaces| {
        let blobs: Arc<dyn Blobs> = Arc::new(KeyspaceBlobs::over(keyspaces.clone(), "a store"));
        let contents = Keyspace::new(&keyspaces, 0);
        super::conformance::suite(&blobs, &|sha256| contents.insert(*sha256, "other bytes").unwrap());
    });
}
