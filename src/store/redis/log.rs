//! The journal of a partition in Redis, as a shard's committer writes it.
//!
//! ```text
//!   shard's core                               a thread within tokio
//!   Committer ─► RedisLog ══ batches ══════► Writing ─► RedisJournal ─► server
//!                         ◄═ acknowledged ══
//! ```
//!
//! Batches lie in segments, as they do in files: what is forgotten is forgotten by the segment. One is called by the position of its
//! first batch, and the place of a batch in it is how many come before it there. It ends when it holds `segment_bytes`, and with its owner.
//!
//! Must hold: one request at a time. What is acknowledged is durable at the level of the server. After an error nothing more is written:
//! nobody knows what became of the last batches, and the next owner reads what is there. Full: while a server without memory or disk
//! refuses, batches wait here and behind them the shard (`limits::JOURNAL_BACKLOG_BYTES_MAX`), for [`Config::outage`] at most.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{self, Instant};

use super::journal::{ENTRIES_AT_ONCE_MAX, Entry, Known};
use super::{Config, RedisJournal, damaged};
use crate::limits;
use crate::model::FrameRef;
use crate::store::Error;
use crate::store::journal::{Durability, Fence, Journal, Position};
use crate::store::log::{Sealed, Sink};

/// Between two tries while the server has no room.
const REFUSED_PAUSE: Duration = Duration::from_millis(50);

/// What is shown of each batch that is there: its place and its bytes.
pub type Visit<'a> = dyn FnMut(FrameRef, &[u8]) -> Result<(), Error> + 'a;

/// What the thread is asked for.
enum Ask {
    Append { at: (u64, Position), batches: Vec<Vec<u8>>, answer: oneshot::Sender<Appended> },
    Trim { before: Position, answer: oneshot::Sender<Result<(), Error>> },
}

/// The batches back, and the checksum of the last one once they are durable.
type Appended = (Vec<Vec<u8>>, Result<u32, Error>);

/// The end on the shard's core, on whatever runtime that has.
pub struct RedisLog {
    asks: mpsc::Sender<Ask>,
    fence: Fence,
    segment_bytes: u64,
    next: Position,
    current: Current,
    sealed: VecDeque<Sealed>,
    sealed_version: u64,
    given_back: BTreeSet<u64>,
    trimmed: Position,
    failure: Option<Arc<str>>,
}

/// The segment that is written.
struct Current {
    segment: u64,
    bytes: u64,
    last_crc: u32,
}

/// The end that speaks to the server.
pub struct Writing {
    journal: RedisJournal,
    outage: Duration,
    asks: mpsc::Receiver<Ask>,
}

/// Takes a partition over and shows what it holds, in order. Nothing of an older owner is appended from then on. Within tokio; the second
/// of what it gives has to [`run`](Writing::run) there.
///
/// # Errors
/// As [`RedisJournal::open`] and its claim; `StoreDamaged`; the visitor's.
pub async fn open(
    config: &Config,
    (known, nonce): (Known, u64),
    segment_bytes: u64,
    visit: &mut Visit<'_>,
) -> Result<(RedisLog, Writing), Error> {
    let mut journal = RedisJournal::open(config, known).await?;
    let fence = journal.claim(nonce).await?;
    let sealed = read(&mut journal, visit).await?;
    let (sender, asks) = mpsc::channel(1);
    let next = journal.next();
    let log = RedisLog {
        asks: sender,
        fence,
        segment_bytes,
        next,
        current: Current { segment: next, bytes: 0, last_crc: 0 },
        sealed,
        sealed_version: 0,
        given_back: BTreeSet::new(),
        trimmed: journal.first(),
        failure: None,
    };
    Ok((log, Writing { journal, outage: config.outage, asks }))
}

/// Shows every batch and gives their segments.
async fn read(journal: &mut RedisJournal, visit: &mut Visit<'_>) -> Result<VecDeque<Sealed>, Error> {
    let mut segments: VecDeque<Sealed> = VecDeque::new();
    let mut next = journal.first();
    loop {
        let page = journal.entries(next, ENTRIES_AT_ONCE_MAX).await?;
        if page.is_empty() {
            return Ok(segments);
        }
        for Entry { position, segment, fence, checksum, batch } in page {
            let place = u32::try_from(position - segment).map(|offset| FrameRef { segment, offset });
            let goes_on = segments.back().is_some_and(|last| last.segment == segment);
            let Some(place) = place.ok().filter(|place| goes_on || place.offset == 0) else {
                let why = format!("position {position} says that it is in segment {segment}");
                return Err(damaged(&journal.keys.log, why));
            };
            visit(place, &batch)?;
            let first =
                if goes_on { segments.pop_back().map_or(position, |last| last.first) } else { position };
            segments.push_back(Sealed { segment, first, last: position, last_crc: checksum, fence });
            next = position + 1;
        }
    }
}

impl Writing {
    /// Sends what is asked for, and answers, until the other end is dropped.
    pub async fn run(mut self) {
        while let Some(ask) = self.asks.recv().await {
            match ask {
                Ask::Append { at, batches, answer } => {
                    let appended = self.append(at, &batches).await;
                    // Whoever is gone has nothing acknowledged.
                    let _ = answer.send((batches, appended));
                }
                Ask::Trim { before, answer } => {
                    let _ = answer.send(self.journal.trim(before).await);
                }
            }
        }
    }

    /// Goes on asking while the server says that it has no room: then nothing was written.
    async fn append(&mut self, at: (u64, Position), batches: &[Vec<u8>]) -> Result<u32, Error> {
        let until = Instant::now() + self.outage;
        loop {
            let fence = self.journal.fence();
            match self.journal.append_all(fence, at, batches).await {
                Err(Error::StoreRefused { .. }) if Instant::now() < until => time::sleep(REFUSED_PAUSE).await,
                appended => return appended,
            }
        }
    }
}

impl RedisLog {
    /// How many batches the next write takes.
    fn fitting(&self, queue: &VecDeque<Vec<u8>>) -> usize {
        let room = self.segment_bytes.saturating_sub(self.current.bytes);
        let (mut count, mut total) = (0, 0);
        for batch in queue {
            total += batch.len();
            let is_over = total as u64 > room || total > limits::JOURNAL_BATCH_BYTES_MAX;
            if count > 0 && is_over {
                break;
            }
            count += 1;
        }
        count
    }

    /// The next batch begins a new segment where this one has no room for it.
    fn roll(&mut self, batch_bytes: usize) {
        let Current { segment, bytes, last_crc } = self.current;
        if self.next > segment && bytes + batch_bytes as u64 > self.segment_bytes {
            let last = self.next - 1;
            self.sealed.push_back(Sealed { segment, first: segment, last, last_crc, fence: self.fence });
            self.sealed_version += 1;
            self.current = Current { segment: self.next, bytes: 0, last_crc: 0 };
        }
    }

    /// Has the server forget what nobody needs any more.
    async fn trim(&mut self) -> Result<(), Error> {
        let before = self.sealed.front().map_or(self.current.segment, |sealed| sealed.first);
        if before > self.trimmed {
            let (answer, answered) = oneshot::channel();
            let trimmed = self.asked(Ask::Trim { before, answer }, answered).await?;
            trimmed.map_err(|error| self.fail(&error))?;
            self.trimmed = before;
        }
        Ok(())
    }

    async fn asked<T>(&mut self, ask: Ask, answered: oneshot::Receiver<T>) -> Result<T, Error> {
        let answer = match self.asks.send(ask).await {
            Ok(()) => answered.await.ok(),
            Err(_) => None,
        };
        let gone = || Error::Fenced { cause: "nobody speaks to the store any more".into() };
        answer.ok_or_else(|| self.fail(&gone()))
    }

    /// The first failure stands; everything later is refused with it.
    fn fail(&mut self, error: &Error) -> Error {
        Error::Fenced { cause: self.failure.get_or_insert_with(|| error.to_string().into()).clone() }
    }

    fn check(&self) -> Result<(), Error> {
        self.failure.as_ref().map_or(Ok(()), |cause| Err(Error::Fenced { cause: cause.clone() }))
    }
}

impl Sink for RedisLog {
    fn fence(&self) -> Option<Fence> {
        Some(self.fence)
    }

    fn durability(&self) -> Durability {
        // Acknowledged once the server has it at its level, and never before.
        Durability::Fsync
    }

    fn batch_bytes_max(&self) -> usize {
        limits::JOURNAL_BATCH_BYTES_MAX
    }

    fn next_position(&self) -> Position {
        self.next
    }

    fn synced(&self) -> Position {
        self.next - 1
    }

    fn sealed(&self) -> Vec<Sealed> {
        self.sealed.iter().filter(|sealed| !self.given_back.contains(&sealed.segment)).copied().collect()
    }

    fn sealed_version(&self) -> u64 {
        self.sealed_version
    }

    fn release(&mut self, segment: u64) {
        if self.sealed.iter().any(|sealed| sealed.segment == segment) {
            self.given_back.insert(segment);
        }
        while self.sealed.front().is_some_and(|front| self.given_back.remove(&front.segment)) {
            self.sealed.pop_front();
        }
    }

    async fn write(
        &mut self,
        queue: &mut VecDeque<Vec<u8>>,
        spent: &mut Vec<Vec<u8>>,
        done: &mut Vec<(Position, FrameRef)>,
    ) -> Result<(), Error> {
        self.check()?;
        self.trim().await?;
        let Some(first) = queue.front().map(Vec::len) else { return Ok(()) };
        self.roll(first);
        let batches: Vec<Vec<u8>> = queue.drain(..self.fitting(queue)).collect();
        let (at, (answer, answered)) = ((self.current.segment, self.next), oneshot::channel());
        let (batches, appended) = self.asked(Ask::Append { at, batches, answer }, answered).await?;
        self.current.last_crc = appended.map_err(|error| self.fail(&error))?;
        for batch in batches {
            let offset = u32::try_from(self.next - self.current.segment);
            let offset = offset.map_err(|error| self.fail(&Error::Record { why: error.to_string() }))?;
            done.push((self.next, FrameRef { segment: self.current.segment, offset }));
            self.next += 1;
            self.current.bytes += batch.len() as u64;
            spent.push(batch);
        }
        Ok(())
    }

    async fn sync(&mut self) -> Result<(), Error> {
        self.check()
    }

    async fn close(self) {}
}

#[cfg(test)]
#[path = "log_tests.rs"]
#[expect(clippy::disallowed_methods, reason = "who speaks to the server is a thread of the test")]
mod tests;
