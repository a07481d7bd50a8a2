//! The keyspaces of an index, in Redis: of each a hash with the values, and a sorted set with the keys.
//!
//! Must hold: a batch is one script, so it is there whole or not at all, and it is written under the fence where one is given: whoever owned
//! the partition before changes nothing. Changes say what stands there then, not what is added, so a batch without an
//! answer is sent again as it is.
//!
//! Whoever calls blocks, as a [`Client`] does.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, LazyLock, OnceLock};

use redis::{Cmd, FromRedisValue, Script, Value};

use super::client::Client;
use super::journal::fence_of;
use super::link::{Link, Request};
use super::{Keys, damaged};
use crate::limits;
use crate::store::Error;
use crate::store::journal::Fence;
use crate::store::keyspaces::{Batch, Bounds, Bytes, Guard, Keyspaces, Number, Rows};

static WRITE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("write.lua")));
static SCAN: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scan.lua")));

/// Rows asked for first, and at most: who takes one row pays for few.
const PAGE_ROWS: (usize, usize) = (16, 512);
/// Bytes of a page, about.
const PAGE_BYTES: usize = 1 << 20;

/// Keyspaces of a partition.
pub struct RedisKeyspaces(Arc<Inner>);

struct Inner {
    client: Client,
    state: String,
    /// Values and keys of each keyspace.
    names: Vec<[String; 2]>,
    fence: String,
    /// Somebody else owns it now.
    stale: OnceLock<Arc<str>>,
}

impl RedisKeyspaces {
    /// Keyspaces of these names among what the client's tag names, written under a fence where one is given. Nothing is asked yet.
    pub fn over(client: Client, names: &[&str], fence: Option<Fence>) -> Self {
        let of = |kind: &str, name: &str| format!("aob:{{{}}}:{kind}:{name}", client.tag());
        let inner = Inner {
            state: Keys::of(client.tag()).state,
            names: names.iter().map(|name| [of("v", name), of("k", name)]).collect(),
            fence: fence.map(|fence| fence.to_string()).unwrap_or_default(),
            stale: OnceLock::new(),
            client,
        };
        Self(Arc::new(inner))
    }
}

impl Inner {
    fn names(&self, keyspace: Number) -> Result<&[String; 2], Error> {
        self.names
            .get(keyspace)
            .ok_or_else(|| Error::Index { why: format!("there is no keyspace {keyspace}") })
    }

    fn parsed<T: FromRedisValue>(key: &str, answer: Value) -> Result<T, Error> {
        redis::from_redis_value(answer).map_err(|error| damaged(key, error.to_string()))
    }

    /// Rows of a page in its order, and whether there are more.
    fn page(
        &self,
        keyspace: Number,
        bounds: &Bounds,
        (up, rows): (bool, usize),
    ) -> Result<(Vec<(Bytes, Bytes)>, bool), Error> {
        let names @ [values, _] = self.names(keyspace)?;
        let mut command = Link::script(&SCAN, &names.each_ref().map(String::as_str));
        command.arg(bound(&bounds.0, b"-")).arg(bound(&bounds.1, b"+"));
        command.arg(if up { "up" } else { "down" }).arg(rows).arg(PAGE_BYTES);
        let answer: Vec<Vec<u8>> = Self::parsed(values, self.client.ask(Request::Query(&SCAN, command))?)?;
        let Some((word, rows)) = answer.split_first() else { return Err(damaged(values, "an empty answer")) };
        let more = match word.as_slice() {
            b"more" => true,
            b"all" => false,
            b"missing" => return Err(damaged(values, format!("no value of {:02x?}", rows.first()))),
            other => return Err(damaged(values, format!("an answer that begins with {other:02x?}"))),
        };
        let (rows, rest) = rows.as_chunks::<2>();
        if !rest.is_empty() {
            return Err(damaged(values, "a key without a value"));
        }
        Ok((rows.iter().map(|[key, value]| (key.as_slice().into(), value.as_slice().into())).collect(), more))
    }
}

/// As `ZRANGE BYLEX` has it.
fn bound(bound: &Bound<Bytes>, none: &[u8]) -> Vec<u8> {
    match bound {
        Bound::Included(key) => [b"[", &**key].concat(),
        Bound::Excluded(key) => [b"(", &**key].concat(),
        Bound::Unbounded => none.to_vec(),
    }
}

impl Keyspaces for RedisKeyspaces {
    fn get(&self, keyspace: Number, key: &[u8]) -> Result<Option<Bytes>, Error> {
        let [values, _] = self.0.names(keyspace)?;
        let mut command = redis::cmd("HGET");
        command.arg(values).arg(key);
        let found: Option<Vec<u8>> = Inner::parsed(values, self.0.client.ask(Request::Read(command))?)?;
        Ok(found.map(Bytes::from))
    }

    fn get_all(&self, keyspace: Number, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, Error> {
        let [values, _] = self.0.names(keyspace)?;
        let mut all = Vec::with_capacity(keys.len());
        for keys in keys.chunks(PAGE_ROWS.1) {
            let mut command = redis::cmd("HMGET");
            command.arg(values).arg(keys);
            let found: Vec<Option<Vec<u8>>> =
                Inner::parsed(values, self.0.client.ask(Request::Read(command))?)?;
            all.extend(found.into_iter().map(|value| value.map(Bytes::from)));
        }
        Ok(all)
    }

    fn rows(&self, keyspace: Number, bounds: Bounds) -> Rows {
        let (front, back) = Default::default();
        let page = PAGE_ROWS.0;
        Box::new(Paging { of: self.0.clone(), keyspace, bounds, front, back, page, over: false })
    }

    fn commit(&self, batch: Batch) -> Result<(), Error> {
        let mut changes: BTreeMap<Number, BTreeMap<Bytes, Option<Bytes>>> = BTreeMap::new();
        let (count, max) = (batch.changes.len(), limits::STORE_CHANGES_MAX);
        if count > max {
            let why = format!("{count} changes at once (limit store_changes_max is {max})");
            return Err(Error::StoreRefused { server: self.0.client.server().to_owned(), why });
        }
        for change in batch.changes {
            changes.entry(change.keyspace).or_default().insert(change.key, change.value);
        }
        if changes.is_empty() {
            return Ok(());
        }
        let mut keys = vec![self.0.state.as_str()];
        for keyspace in changes.keys() {
            keys.extend(self.0.names(*keyspace)?.each_ref().map(String::as_str));
        }
        let mut command = Link::script(&WRITE, &keys);
        command.arg(&self.0.fence);
        changes.values().for_each(|changes| add(&mut command, changes));
        let answer: Vec<String> =
            Inner::parsed(&self.0.state, self.0.client.ask(Request::Write(&WRITE, command))?)?;
        match answer.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
            ["written"] => Ok(()),
            ["stale", held] => {
                let held = fence_of(held).ok_or_else(|| damaged(&self.0.state, format!("fence {held}")))?;
                let error = Error::StaleFence { held, given: fence_of(&self.0.fence).unwrap_or_default() };
                self.0.stale.get_or_init(|| error.to_string().into());
                Err(error)
            }
            other => Err(damaged(&self.0.state, format!("an answer {other:?}"))),
        }
    }

    fn sync(&self) -> Result<(), Error> {
        // What was committed was acknowledged at the level of the server.
        Ok(())
    }

    fn fenced(&self) -> Option<Arc<str>> {
        self.0.stale.get().cloned()
    }
}

/// The changes of one keyspace, as `write.lua` wants them.
fn add(command: &mut Cmd, changes: &BTreeMap<Bytes, Option<Bytes>>) {
    let put = changes.values().flatten().count();
    command.arg(put).arg(changes.len() - put);
    for (key, value) in changes {
        if let Some(value) = value {
            command.arg(&**key).arg(&**value);
        }
    }
    for (key, _) in changes.iter().filter(|(_, value)| value.is_none()) {
        command.arg(&**key);
    }
}

/// Rows, a page at a time from either end.
struct Paging {
    of: Arc<Inner>,
    keyspace: Number,
    /// Where nothing was read yet.
    bounds: Bounds,
    /// Read from the front: the next one first.
    front: VecDeque<(Bytes, Bytes)>,
    /// Read from the back: the last one first.
    back: VecDeque<(Bytes, Bytes)>,
    page: usize,
    /// All was read.
    over: bool,
}

impl Paging {
    /// Reads a page at one end. What cannot be read ends it.
    fn read(&mut self, up: bool) -> Result<(), Error> {
        let page = self.of.page(self.keyspace, &self.bounds, (up, self.page));
        let (rows, more) = page.inspect_err(|_| self.over = true)?;
        self.page = (self.page * 2).min(PAGE_ROWS.1);
        self.over = !more;
        if let Some((key, _)) = rows.last() {
            let end = if up { &mut self.bounds.0 } else { &mut self.bounds.1 };
            *end = Bound::Excluded(key.clone());
        }
        if up {
            self.front.extend(rows)
        } else {
            self.back.extend(rows)
        }
        Ok(())
    }

    fn take(&mut self, up: bool) -> Option<Guard> {
        let own = if up { &self.front } else { &self.back };
        if own.is_empty()
            && !self.over
            && let Err(error) = self.read(up)
        {
            return Some(Guard::new(Err(error)));
        }
        let (own, other) =
            if up { (&mut self.front, &mut self.back) } else { (&mut self.back, &mut self.front) };
        own.pop_front().or_else(|| other.pop_back()).map(|row| Guard::new(Ok(row)))
    }
}

impl Iterator for Paging {
    type Item = Guard;

    fn next(&mut self) -> Option<Guard> {
        self.take(true)
    }
}

impl DoubleEndedIterator for Paging {
    fn next_back(&mut self) -> Option<Guard> {
        self.take(false)
    }
}

#[cfg(test)]
#[path = "keyspaces_tests.rs"]
mod tests;
