//! The journal of a partition, as a stream of one server.
//!
//! Must hold: the obligations of [`store::journal`](crate::store::journal), all of them by the three scripts beside this file. What is
//! known here of the server's position is only ever what it acknowledged; a server that is behind that has lost something, and the
//! journal ends.

use std::str::FromStr;
use std::sync::{Arc, LazyLock};

use redis::{FromRedisValue, Script, Value};

use super::link::{Link, Request, Unanswered};
use super::{Config, Keys, damaged};
use crate::limits;
use crate::store::Error;
use crate::store::journal::{Fence, Journal, Position};

static CLAIM: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("claim.lua")));
static APPEND: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("append.lua")));
static TRIM: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("trim.lua")));

/// Bytes of the checksum before a batch: CRC-32C, little-endian.
const CHECKSUM_BYTES: usize = 4;
/// Entries asked for at once.
pub(super) const ENTRIES_AT_ONCE_MAX: usize = 256;

/// What a partition is known to have had, from a source beside the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Of its last claim.
    pub epoch: u64,
    /// Last position that was acknowledged.
    pub position: Position,
}

/// A batch as it stands in the stream.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) position: Position,
    /// Position of the first batch of its segment.
    pub(super) segment: u64,
    pub(super) fence: Fence,
    pub(super) checksum: u32,
    pub(super) batch: Vec<u8>,
}

/// A journal in Redis. Used by one task, within tokio.
pub struct RedisJournal {
    link: Link,
    pub(super) keys: Keys,
    fence: Fence,
    known: Known,
    first: Position,
    failure: Option<Arc<str>>,
}

impl RedisJournal {
    /// Connects and looks at what is there, which is no less than what is `known`.
    ///
    /// # Errors
    /// As [`server::connect`](super::server::connect); `StoreRegressed`; `StoreDamaged`.
    pub async fn open(config: &Config, known: Known) -> Result<Self, Error> {
        let link = Link::connect(config).await?;
        let keys = Keys::of(config.tag);
        let mut journal = Self { link, keys, fence: Fence::default(), known, first: 1, failure: None };
        let mut command = redis::cmd("HMGET");
        command.arg(&journal.keys.state).arg("epoch").arg("last").arg("first");
        let answer = journal.ask(Request::Read(command)).await?;
        let held: [Option<u64>; 3] = journal.parsed(answer)?;
        let [epoch, last, first] = [held[0].unwrap_or(0), held[1].unwrap_or(0), held[2].unwrap_or(1)];
        journal.no_less(epoch, last)?;
        (journal.known, journal.first) = (Known { epoch, position: last }, first);
        Ok(journal)
    }

    /// What the server is known to have: keep it elsewhere, and bring it to the next [`open`](Self::open).
    pub fn known(&self) -> Known {
        self.known
    }

    /// Requests sent so far.
    pub fn requests(&self) -> u64 {
        self.link.requests()
    }

    fn check(&self) -> Result<(), Error> {
        self.failure.as_ref().map_or(Ok(()), |cause| Err(Error::Fenced { cause: cause.clone() }))
    }

    /// An answer, or the end of the journal where nobody knows what became of the request.
    async fn ask(&mut self, request: Request<'_>) -> Result<Value, Error> {
        match self.link.ask(request).await {
            Ok(answer) => Ok(answer),
            Err(Unanswered::Refused(error)) => Err(error),
            Err(Unanswered::Unknown(error)) => {
                let cause: Arc<str> = error.to_string().into();
                self.failure = Some(cause.clone());
                Err(Error::Fenced { cause })
            }
        }
    }

    /// Does the server still have what it once acknowledged?
    fn no_less(&mut self, epoch: u64, last: Position) -> Result<(), Error> {
        if epoch >= self.known.epoch && last >= self.known.position {
            return Ok(());
        }
        let error = Error::StoreRegressed {
            server: self.link.server().to_owned(),
            found: format!("position {last} of epoch {epoch}"),
            known: format!("position {} of epoch {}", self.known.position, self.known.epoch),
        };
        self.failure = Some(error.to_string().into());
        Err(error)
    }

    fn parsed<T: FromRedisValue>(&self, answer: Value) -> Result<T, Error> {
        redis::from_redis_value(answer).map_err(|error| damaged(&self.keys.state, error.to_string()))
    }

    /// The word that an answer of a script begins with, and what follows.
    fn word(&self, answer: Value) -> Result<(String, Vec<Value>), Error> {
        let mut parts: Vec<Value> = self.parsed(answer)?;
        if parts.is_empty() {
            return Err(damaged(&self.keys.state, "an empty answer"));
        }
        let rest = parts.split_off(1);
        Ok((self.parsed(parts.remove(0))?, rest))
    }

    fn number(&self, parts: &[Value], nth: usize) -> Result<u64, Error> {
        self.parsed(parts.get(nth).cloned().unwrap_or(Value::Nil))
    }

    /// What the server answers in place of doing it.
    fn not_done(&mut self, word: &str, rest: &[Value], given: Fence, position: Position) -> Error {
        let said = || -> Result<(Fence, Position), Error> {
            Ok(match word {
                "stale" => {
                    let held: String = self.parsed(rest.first().cloned().unwrap_or(Value::Nil))?;
                    let held =
                        fence_of(&held).ok_or_else(|| damaged(&self.keys.state, format!("fence {held}")))?;
                    (held, self.number(rest, 1)?)
                }
                "position" => (given, self.number(rest, 0)?),
                "different" => (given, u64::MAX),
                _ => return Err(damaged(&self.keys.state, format!("an answer that begins with {word}"))),
            })
        };
        let (held, last) = match said() {
            Ok(said) => said,
            Err(error) => return error,
        };
        if let Err(error) = self.no_less(if word == "stale" { held.epoch } else { u64::MAX }, last) {
            return error;
        }
        match word {
            "stale" => Error::StaleFence { held, given },
            "position" => Error::WrongPosition { expected: last + 1, given: position },
            _ => Error::DifferentBatch { position },
        }
    }

    /// Appends batches from a position on, all of them in one segment and one step, and waits until they are durable. Gives the checksum of
    /// the last one.
    ///
    /// # Errors
    /// As [`append`](Journal::append), of all of them: none is there when one is refused.
    pub(super) async fn append_all(
        &mut self,
        fence: Fence,
        (segment, position): (u64, Position),
        batches: &[Vec<u8>],
    ) -> Result<u32, Error> {
        self.check()?;
        let max = limits::JOURNAL_BATCH_BYTES_MAX;
        if let Some(batch) = batches.iter().find(|batch| batch.len() > max) {
            return Err(Error::BatchTooLarge { bytes: batch.len(), max });
        }
        let mut command = Link::script(&APPEND, &[&self.keys.log, &self.keys.state]);
        command.arg(fence.to_string()).arg(position).arg(segment);
        let mut last_checksum = 0;
        for batch in batches {
            last_checksum = crc32c::crc32c(batch);
            command.arg(packed(last_checksum, batch));
        }
        let answer = self.ask(Request::Write(&APPEND, command)).await?;
        let (word, rest) = self.word(answer)?;
        if word != "appended" {
            return Err(self.not_done(&word, &rest, fence, position));
        }
        self.known.position = self.number(&rest, 0)?;
        Ok(last_checksum)
    }

    /// The fence under which it is held; before a claim none that anybody has.
    pub(super) fn fence(&self) -> Fence {
        self.fence
    }

    /// The first position that is kept.
    pub(super) fn first(&self) -> Position {
        self.first
    }

    /// The next entries from a position on, some at once; none behind the last durable position.
    pub(super) async fn entries(&mut self, from: Position, at_once: usize) -> Result<Vec<Entry>, Error> {
        if from < self.first {
            return Err(Error::Trimmed { first: self.first, wanted: from });
        }
        if from > self.known.position {
            return Ok(Vec::new());
        }
        let command = range(&self.keys.log, (from, self.known.position), at_once);
        let answer = self.ask(Request::Read(command)).await?;
        let page = entries_of(&self.keys.log, answer, from)?;
        if page.is_empty() {
            return Err(damaged(&self.keys.log, format!("nothing at position {from}")));
        }
        Ok(page)
    }
}

impl Journal for RedisJournal {
    async fn claim(&mut self, nonce: u64) -> Result<Fence, Error> {
        self.check()?;
        let mut command = Link::script(&CLAIM, &[&self.keys.state]);
        command.arg(format!("{nonce:016x}")).arg(self.known.epoch).arg(self.known.position);
        let answer = self.ask(Request::Write(&CLAIM, command)).await?;
        let (word, rest) = self.word(answer)?;
        let (epoch, last) = (self.number(&rest, 0)?, self.number(&rest, 1)?);
        self.no_less(epoch, last)?;
        if word != "claimed" {
            return Err(damaged(&self.keys.state, format!("an answer that begins with {word}")));
        }
        self.first = self.number(&rest, 2)?;
        self.known = Known { epoch, position: last };
        self.fence = Fence { epoch, nonce };
        Ok(self.fence)
    }

    async fn append(&mut self, fence: Fence, position: Position, batch: &[u8]) -> Result<(), Error> {
        // A segment of its own: who appends one by one gives back one by one.
        self.append_all(fence, (position, position), &[batch.to_vec()]).await.map(drop)
    }

    fn next(&self) -> Position {
        self.known.position + 1
    }

    fn durable(&self) -> Position {
        self.known.position
    }

    async fn read(&mut self, from: Position, bytes_max: usize) -> Result<Vec<(Position, Vec<u8>)>, Error> {
        let at_once = (bytes_max / limits::JOURNAL_BATCH_BYTES_FULL).clamp(1, ENTRIES_AT_ONCE_MAX);
        let (mut found, mut bytes, mut next) = (Vec::new(), 0, from);
        loop {
            let page = self.entries(next, at_once).await?;
            if page.is_empty() {
                return Ok(found);
            }
            for Entry { position, batch, .. } in page {
                (bytes, next) = (bytes + batch.len(), position + 1);
                found.push((position, batch));
                if bytes >= bytes_max {
                    return Ok(found);
                }
            }
        }
    }

    async fn trim(&mut self, before: Position) -> Result<(), Error> {
        self.check()?;
        let mut command = Link::script(&TRIM, &[&self.keys.log, &self.keys.state]);
        command.arg(self.fence.to_string()).arg(before);
        let answer = self.ask(Request::Write(&TRIM, command)).await?;
        let (word, rest) = self.word(answer)?;
        if word != "trimmed" {
            return Err(self.not_done(&word, &rest, self.fence, before));
        }
        self.first = self.first.max(self.number(&rest, 0)?);
        Ok(())
    }
}

/// Asks for the entries from one position to another, so many at most.
pub(super) fn range(log: &str, (from, to): (Position, Position), at_once: usize) -> redis::Cmd {
    let mut command = redis::cmd("XRANGE");
    command.arg(log).arg(format!("{from}-0")).arg(format!("{to}-0")).arg("COUNT").arg(at_once);
    command
}

/// The entries of an answer, which must begin with `from` and have no gap.
pub(super) fn entries_of(log: &str, answer: Value, from: Position) -> Result<Vec<Entry>, Error> {
    let wrong = |position: Position, why: &str| damaged(log, format!("{why} at position {position}"));
    let parsed = |error: redis::ParsingError| damaged(log, error.to_string());
    let entries: Vec<Vec<Value>> = redis::from_redis_value(answer).map_err(parsed)?;
    let mut found = Vec::with_capacity(entries.len());
    for (entry, position) in entries.into_iter().zip(from..) {
        let [id, fields] = <[Value; 2]>::try_from(entry).map_err(|_| wrong(position, "no entry"))?;
        let id: String = redis::from_redis_value(id).map_err(parsed)?;
        let fields: Vec<Vec<u8>> = redis::from_redis_value(fields).map_err(parsed)?;
        if id != format!("{position}-0") {
            return Err(wrong(position, "a gap"));
        }
        let fields: Vec<(&[u8], &[u8])> =
            fields.as_chunks::<2>().0.iter().map(|[name, value]| (&**name, &**value)).collect();
        let [(b"f", fence), (b"b", stored), (b"s", segment)] = fields.as_slice() else {
            return Err(wrong(position, "other fields"));
        };
        let text = |bytes| std::str::from_utf8(bytes).ok();
        let fence = text(fence).and_then(fence_of).ok_or_else(|| wrong(position, "no fence"))?;
        let segment = text(segment).and_then(|segment| segment.parse().ok());
        // Segments are called by their first position.
        let segment = segment.filter(|segment| (1..=position).contains(segment));
        let segment = segment.ok_or_else(|| wrong(position, "no segment"))?;
        let (checksum, batch) = unpacked(stored).ok_or_else(|| wrong(position, "a wrong checksum"))?;
        found.push(Entry { position, segment, fence, checksum, batch: batch.to_vec() });
    }
    Ok(found)
}

/// A batch as it is stored.
fn packed(checksum: u32, batch: &[u8]) -> Vec<u8> {
    let mut stored = Vec::with_capacity(CHECKSUM_BYTES + batch.len());
    stored.extend_from_slice(&checksum.to_le_bytes());
    stored.extend_from_slice(batch);
    stored
}

/// The batch and its checksum, when it is what was stored.
fn unpacked(stored: &[u8]) -> Option<(u32, &[u8])> {
    let (checksum, batch) = stored.split_first_chunk::<CHECKSUM_BYTES>()?;
    let checksum = u32::from_le_bytes(*checksum);
    (checksum == crc32c::crc32c(batch)).then_some((checksum, batch))
}

pub(super) fn fence_of(text: &str) -> Option<Fence> {
    let (epoch, nonce) = text.split_once('/')?;
    Some(Fence { epoch: u64::from_str(epoch).ok()?, nonce: u64::from_str_radix(nonce, 16).ok()? })
}
