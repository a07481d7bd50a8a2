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

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{self, Instant};

use super::journal::{ENTRIES_AT_ONCE_MAX, Entry, Known};
use super::{Config, Keys, RedisJournal, damaged};
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
    Claim { known: Known, nonce: u64, answer: oneshot::Sender<Result<Claimed, Error>> },
    Read { from: Position, answer: oneshot::Sender<Result<Vec<Entry>, Error>> },
    Append { at: (u64, Position), batches: Vec<Vec<u8>>, answer: oneshot::Sender<Appended> },
    Trim { before: Position, answer: oneshot::Sender<Result<(), Error>> },
}

/// What the new owner finds.
struct Claimed {
    fence: Fence,
    first: Position,
    next: Position,
}

/// The batches back, and the checksum of the last one once they are durable.
type Appended = (Vec<Vec<u8>>, Result<u32, Error>);

/// A journal that nobody here owns yet.
pub struct Unclaimed {
    asks: mpsc::Sender<Ask>,
    segment_bytes: u64,
    log: String,
}

/// The end on the shard's core, on whatever runtime that has.
pub struct RedisLog {
    asks: mpsc::Sender<Ask>,
    /// Its key, for messages.
    log: String,
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
    config: Config,
    journal: Option<RedisJournal>,
    asks: mpsc::Receiver<Ask>,
    known: Arc<HighWater>,
}

/// What a server is known to have, for whoever writes it down.
#[derive(Debug, Default)]
pub struct HighWater {
    epoch: AtomicU64,
    position: AtomicU64,
}

impl HighWater {
    /// As far as it was acknowledged.
    pub fn known(&self) -> Known {
        // The position first: an epoch that is too high for it is one that was claimed behind it.
        let position = self.position.load(Ordering::Acquire);
        Known { epoch: self.epoch.load(Ordering::Acquire), position }
    }

    pub(super) fn rises(&self, known: Known) {
        self.epoch.fetch_max(known.epoch, Ordering::AcqRel);
        self.position.fetch_max(known.position, Ordering::AcqRel);
    }
}

/// Both ends of the journal of the partition that the configuration names. Nothing is asked yet; what the second makes has to
/// [`run`](Writing::run) on a thread within tokio.
pub fn ends(
    config: &Config,
    segment_bytes: u64,
) -> (Unclaimed, Arc<HighWater>, impl FnOnce() -> Writing + Send + use<>) {
    let (sender, asks) = mpsc::channel(1);
    let unclaimed = Unclaimed { asks: sender, segment_bytes, log: Keys::of(config.tag).log };
    let known = Arc::<HighWater>::default();
    let (config, noted) = (config.clone(), known.clone());
    (unclaimed, known, move || Writing { config, journal: None, asks, known: noted })
}

/// Asks the thread, wherever it is asked from.
async fn asked<T>(asks: &mpsc::Sender<Ask>, ask: impl FnOnce(oneshot::Sender<T>) -> Ask) -> Result<T, Error> {
    let (answer, answered) = oneshot::channel();
    let answer = match asks.send(ask(answer)).await {
        Ok(()) => answered.await.ok(),
        Err(_) => None,
    };
    answer.ok_or_else(|| Error::Fenced { cause: "nobody speaks to the store any more".into() })
}

impl Unclaimed {
    /// Takes the partition over: nothing of an older owner is appended from then on.
    ///
    /// # Errors
    /// As [`RedisJournal::open`] and its claim.
    pub async fn claim(self, known: Known, nonce: u64) -> Result<RedisLog, Error> {
        let Self { asks, segment_bytes, log } = self;
        let claimed = asked(&asks, |answer| Ask::Claim { known, nonce, answer }).await??;
        let Claimed { fence, first, next } = claimed;
        Ok(RedisLog {
            asks,
            log,
            fence,
            segment_bytes,
            next,
            current: Current { segment: next, bytes: 0, last_crc: 0 },
            sealed: VecDeque::new(),
            sealed_version: 0,
            given_back: BTreeSet::new(),
            trimmed: first,
            failure: None,
        })
    }
}

impl Writing {
    /// Sends what is asked for, and answers, until the other end is dropped.
    pub async fn run(mut self) {
        while let Some(ask) = self.asks.recv().await {
            // Whoever is gone has nothing acknowledged.
            match ask {
                Ask::Claim { known, nonce, answer } => drop(answer.send(self.claim(known, nonce).await)),
                Ask::Read { from, answer } => drop(answer.send(self.read(from).await)),
                Ask::Append { at, batches, answer } => {
                    let appended = self.append(at, &batches).await;
                    drop(answer.send((batches, appended)));
                }
                Ask::Trim { before, answer } => drop(answer.send(self.trim(before).await)),
            }
        }
    }

    async fn claim(&mut self, known: Known, nonce: u64) -> Result<Claimed, Error> {
        let mut journal = RedisJournal::open(&self.config, known).await?;
        let fence = journal.claim(nonce).await?;
        self.known.rises(journal.known());
        let claimed = Claimed { fence, first: journal.first(), next: journal.next() };
        self.journal = Some(journal);
        Ok(claimed)
    }

    fn claimed(&mut self) -> Result<&mut RedisJournal, Error> {
        self.journal.as_mut().ok_or_else(|| Error::Fenced { cause: "it is not claimed".into() })
    }

    async fn read(&mut self, from: Position) -> Result<Vec<Entry>, Error> {
        self.claimed()?.entries(from, ENTRIES_AT_ONCE_MAX).await
    }

    async fn trim(&mut self, before: Position) -> Result<(), Error> {
        self.claimed()?.trim(before).await
    }

    /// Goes on asking while the server says that it has no room: then nothing was written.
    async fn append(&mut self, at: (u64, Position), batches: &[Vec<u8>]) -> Result<u32, Error> {
        let until = Instant::now() + self.config.outage;
        let journal = self.claimed()?;
        let fence = journal.fence();
        loop {
            match journal.append_all(fence, at, batches).await {
                Err(Error::StoreRefused { .. }) if Instant::now() < until => time::sleep(REFUSED_PAUSE).await,
                appended => {
                    let known = journal.known();
                    self.known.rises(known);
                    return appended;
                }
            }
        }
    }
}

impl RedisLog {
    /// Shows every batch that is there, in order, but those of segments that are marked; how many it showed. Before the first write; may be
    /// called again.
    ///
    /// # Errors
    /// `StoreDamaged`; the store's; the visitor's.
    pub async fn read(&mut self, marks: &BTreeMap<u64, Sealed>, visit: &mut Visit<'_>) -> Result<u64, Error> {
        let (mut at, mut shown) = (self.trimmed, 0);
        self.sealed.clear();
        while let Some(mark) = marks.get(&at).filter(|mark| mark.last < self.next) {
            self.sealed.push_back(*mark);
            at = mark.last + 1;
        }
        let asks = &self.asks;
        let page = |from| asked(asks, move |answer| Ask::Read { from, answer });
        loop {
            let entries = page(at).await??;
            let Some(last) = entries.last() else { return Ok(shown) };
            at = last.position + 1;
            for entry in entries {
                shown += 1;
                shows(&mut self.sealed, &self.log, entry, visit)?;
            }
        }
    }

    /// The first segment that is there.
    pub fn first_segment(&self) -> u64 {
        self.sealed.front().map_or(self.current.segment, |first| first.segment)
    }

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
            let trimmed = asked(&self.asks, |answer| Ask::Trim { before, answer }).await;
            trimmed.flatten().map_err(|error| self.fail(&error))?;
            self.trimmed = before;
        }
        Ok(())
    }

    /// The first failure stands; everything later is refused with it.
    fn fail(&mut self, error: &Error) -> Error {
        Error::Fenced { cause: self.failure.get_or_insert_with(|| error.to_string().into()).clone() }
    }

    fn check(&self) -> Result<(), Error> {
        self.failure.as_ref().map_or(Ok(()), |cause| Err(Error::Fenced { cause: cause.clone() }))
    }
}

/// Shows a batch, and adds it to its segment.
fn shows(
    segments: &mut VecDeque<Sealed>,
    log: &str,
    entry: Entry,
    visit: &mut Visit<'_>,
) -> Result<(), Error> {
    let Entry { position, segment, fence, checksum, batch } = entry;
    let place = u32::try_from(position - segment).map(|offset| FrameRef { segment, offset });
    let goes_on = segments.back().is_some_and(|last| last.segment == segment);
    let Some(place) = place.ok().filter(|place| goes_on || place.offset == 0) else {
        return Err(damaged(log, format!("position {position} says that it is in segment {segment}")));
    };
    visit(place, &batch)?;
    let first = if goes_on { segments.pop_back().map_or(position, |last| last.first) } else { position };
    segments.push_back(Sealed { segment, first, last: position, last_crc: checksum, fence });
    Ok(())
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
        let at = (self.current.segment, self.next);
        let sent = asked(&self.asks, |answer| Ask::Append { at, batches, answer }).await;
        let (batches, appended) = sent.map_err(|error| self.fail(&error))?;
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
