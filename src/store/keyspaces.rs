//! Ordered keyspaces of bytes: what the index keeps its rows in, wherever that is.
//!
//! ```text
//!   get(key) ──► value      rows(from..to) ──► (key, value) in order, from either end
//!   commit(batch) ──► all of it or nothing      sync() ──► what was committed is durable
//! ```
//!
//! Keys have 1 to 65,535 bytes. What must hold: a batch that is [`synced`](Batch::synced), or followed by a [`sync`](Keyspaces::sync), is durable when the call
//! returns `Ok`, and all before it too. After an error a batch is there whole or not at all; whoever goes on reads before it writes.
//! Everything blocks: it is used from helper threads. Changes that depend on what is read are made by one thread at a time, which
//! is its caller's to see to.

mod embedded;
mod gaps;

use std::fmt;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

pub(super) use self::embedded::Embedded;
pub use self::gaps::Gaps;
use super::Error;

/// Keys and values: cheap to clone.
pub type Bytes = fjall::Slice;

/// Rows in the order of their keys.
pub type Rows = Box<dyn DoubleEndedIterator<Item = Guard>>;

/// From where to where, by key.
pub type Bounds = (Bound<Bytes>, Bound<Bytes>);

/// Number of a keyspace, in the list of names that its owner opened it with.
pub type Number = usize;

/// A back end. The module says what is owed.
pub trait Keyspaces: Send + Sync {
    /// The value under a key.
    fn get(&self, keyspace: Number, key: &[u8]) -> Result<Option<Bytes>, Error>;

    /// The values under keys, in their order.
    fn get_all(&self, keyspace: Number, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, Error> {
        keys.iter().map(|key| self.get(keyspace, key)).collect()
    }

    /// The rows within bounds; read as they are taken. What is written meanwhile may be among them or not.
    fn rows(&self, keyspace: Number, bounds: Bounds) -> Rows;

    /// Writes a batch. Of two changes of one key the later one counts.
    fn commit(&self, batch: Batch) -> Result<(), Error>;

    /// Makes everything that was committed durable.
    fn sync(&self) -> Result<(), Error>;

    /// Why nothing more is written until it is opened again; `None`: it is.
    fn fenced(&self) -> Option<Arc<str>>;
}

/// One keyspace of a back end.
#[derive(Clone)]
pub struct Keyspace {
    number: Number,
    of: Arc<dyn Keyspaces>,
}

impl fmt::Debug for Keyspace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Keyspace").field(&self.number).finish()
    }
}

impl Keyspace {
    /// The keyspace of this number.
    pub fn new(of: &Arc<dyn Keyspaces>, number: Number) -> Self {
        Self { number, of: of.clone() }
    }

    /// The value under a key.
    ///
    /// # Errors
    /// The back end's, here and below.
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Bytes>, Error> {
        self.of.get(self.number, key.as_ref())
    }

    /// The values under keys, in their order: one question to a store that is far away.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn get_all(&self, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, Error> {
        self.of.get_all(self.number, keys)
    }

    /// Is there something under a key?
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn contains_key(&self, key: impl AsRef<[u8]>) -> Result<bool, Error> {
        Ok(self.get(key)?.is_some())
    }

    /// Rows from one key to another.
    pub fn range<K: AsRef<[u8]>>(&self, range: impl RangeBounds<K>) -> Rows {
        let bytes = |bound: Bound<&K>| bound.map(|key| Bytes::from(key.as_ref()));
        let bounds = (bytes(range.start_bound()), bytes(range.end_bound()));
        if is_empty(&bounds) { Box::new(std::iter::empty()) } else { self.of.rows(self.number, bounds) }
    }

    /// Rows whose keys begin so.
    pub fn prefix(&self, prefix: impl AsRef<[u8]>) -> Rows {
        let prefix = prefix.as_ref();
        let end = behind(prefix).map_or(Bound::Unbounded, |end| Bound::Excluded(end.into()));
        self.of.rows(self.number, (Bound::Included(prefix.into()), end))
    }

    /// All rows.
    pub fn iter(&self) -> Rows {
        self.of.rows(self.number, (Bound::Unbounded, Bound::Unbounded))
    }

    /// The first row.
    pub fn first_key_value(&self) -> Option<Guard> {
        self.iter().next()
    }

    /// The last row.
    pub fn last_key_value(&self) -> Option<Guard> {
        self.iter().next_back()
    }
}

#[cfg(test)]
impl Keyspace {
    /// One row, at once.
    pub fn insert(&self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Result<(), Error> {
        let mut batch = Batch::default();
        batch.insert(self, key, value);
        self.of.commit(batch)
    }

    /// The same the other way round.
    pub fn remove(&self, key: impl Into<Bytes>) -> Result<(), Error> {
        let mut batch = Batch::default();
        batch.remove(self, key);
        self.of.commit(batch)
    }
}

/// Can no key be within these bounds?
fn is_empty(bounds: &Bounds) -> bool {
    match bounds {
        (Bound::Included(from), Bound::Included(to)) => from > to,
        (Bound::Included(from) | Bound::Excluded(from), Bound::Included(to) | Bound::Excluded(to)) => {
            from >= to
        }
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
    }
}

/// The first key behind all that begin so; `None`: there is none.
fn behind(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte < u8::MAX)?;
    let mut end = prefix.get(..=last)?.to_vec();
    *end.last_mut()? += 1;
    Some(end)
}

/// A row, or why it cannot be read.
#[derive(Debug)]
pub struct Guard(Result<(Bytes, Bytes), Error>);

impl Guard {
    /// What was read.
    pub fn new(row: Result<(Bytes, Bytes), Error>) -> Self {
        Self(row)
    }

    /// Its key.
    ///
    /// # Errors
    /// It cannot be read, here and below.
    pub fn key(self) -> Result<Bytes, Error> {
        Ok(self.0?.0)
    }

    /// Its value.
    ///
    /// # Errors
    /// As [`key`](Self::key).
    pub fn value(self) -> Result<Bytes, Error> {
        Ok(self.0?.1)
    }

    /// Was it read?
    #[cfg(test)]
    pub fn is_ok(&self) -> bool {
        self.0.is_ok()
    }

    /// Key and value.
    ///
    /// # Errors
    /// As [`key`](Self::key).
    pub fn into_inner(self) -> Result<(Bytes, Bytes), Error> {
        self.0
    }
}

/// One change of a batch.
#[derive(Debug)]
pub struct Change {
    /// Where.
    pub keyspace: Number,
    /// Of what.
    pub key: Bytes,
    /// What stands there then; `None`: nothing.
    pub value: Option<Bytes>,
}

/// Changes that are made together.
#[derive(Debug, Default)]
pub struct Batch {
    /// In the order in which they were asked for.
    pub changes: Vec<Change>,
    /// Durable when it is committed.
    pub synced: bool,
}

impl Batch {
    /// One that is durable when it is committed.
    pub fn durable() -> Self {
        Self { synced: true, ..Self::default() }
    }

    /// The same, and durable when it is committed.
    #[must_use]
    pub fn synced(self, synced: bool) -> Self {
        Self { synced, ..self }
    }

    /// Puts a value.
    pub fn insert(&mut self, keyspace: &Keyspace, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        let (key, value) = (key.into(), Some(value.into()));
        self.changes.push(Change { keyspace: keyspace.number, key, value });
    }

    /// Takes a value away.
    pub fn remove(&mut self, keyspace: &Keyspace, key: impl Into<Bytes>) {
        self.changes.push(Change { keyspace: keyspace.number, key: key.into(), value: None });
    }
}

#[cfg(test)]
pub(crate) mod conformance;
