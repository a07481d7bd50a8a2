//! The writing end of a log: frames into segments, one write at a time, then the sync.
//!
//! Must hold: a sync is submitted only after its write has completed, or is a part of it
//! ([`Writes::Durable`](crate::io::file::Writes)); positions have no gaps; a segment is synced before the
//! next is begun; a segment that was given back keeps its name until a synced frame says so. After one
//! failure nothing is written or synced again.

mod journal;
mod open;

use std::collections::{BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;

use super::frame::{self, HEADER_BYTES, Header, Kind, frame_bytes};
use super::{Config, Durability, Fence, Position, Sealed, segment};
use crate::failpoint;
use crate::io;
use crate::io::file::{Helper, LogFile, WriteBuffer, in_background, oneshot};
use crate::limits;
use crate::model::FrameRef;
use crate::store::Error;

/// An open log. It takes batches once it is claimed.
#[derive(Debug)]
pub struct Log {
    config: Config,
    helper: Helper,
    fence: Option<Fence>,
    last_fence: Fence,
    next: Position,
    chain: u32,
    synced: Position,
    current: Current,
    spare: Option<oneshot::Receiver<Result<LogFile, Error>>>,
    sealed: VecDeque<Sealed>,
    sealed_version: u64,
    given_back: BTreeSet<u64>,
    retiring: VecDeque<u64>,
    oldest_noted: u64,
    oldest_synced: u64,
    free: Vec<PathBuf>,
    memory: Option<WriteBuffer>,
    failure: Option<Arc<str>>,
}

#[derive(Debug)]
struct Current {
    segment: u64,
    first: Position,
    file: LogFile,
    offset: u64,
    bytes: u64,
}

impl Log {
    /// Waits for the segment under preparation and closes the files. Nothing is synced.
    pub async fn close(mut self) {
        if let Ok(spare) = self.take_spare().await {
            let _ = spare.close().await;
        }
        let _ = self.current.file.close().await;
    }

    /// As given at opening.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The owner, once claimed.
    pub fn fence(&self) -> Option<Fence> {
        self.fence
    }

    /// The last position that is synced.
    pub fn synced(&self) -> Position {
        self.synced
    }

    /// Segments that take no more frames, oldest first; without those given back.
    pub fn sealed(&self) -> impl Iterator<Item = &Sealed> {
        self.sealed.iter().filter(|sealed| !self.given_back.contains(&sealed.segment))
    }

    /// Grows whenever a segment is sealed.
    pub(super) fn sealed_version(&self) -> u64 {
        self.sealed_version
    }

    /// Nobody needs this sealed segment any more. It is used again once all older ones are given back too.
    pub fn release(&mut self, segment: u64) {
        if self.sealed.iter().any(|sealed| sealed.segment == segment) {
            self.given_back.insert(segment);
        }
        while let Some(front) = self.sealed.front()
            && self.given_back.remove(&front.segment)
        {
            self.retiring.push_back(front.segment);
            self.sealed.pop_front();
        }
    }

    /// Largest batch that one frame takes.
    pub(super) fn batch_bytes_max(config: &Config) -> usize {
        usize::try_from(config.segment_bytes).unwrap_or(usize::MAX).saturating_sub(HEADER_BYTES)
    }

    /// Writes batches from the front of `queue`, one frame each, as many as one write takes, and syncs them
    /// when `sync`. Their memory goes to `spent`, their places to `done`.
    pub(super) async fn write(
        &mut self,
        queue: &mut VecDeque<Vec<u8>>,
        spent: &mut Vec<Vec<u8>>,
        done: &mut Vec<(Position, FrameRef)>,
    ) -> Result<(), Error> {
        self.check()?;
        let Some(fence) = self.fence else { return Err(self.fail("the journal is not claimed".into())) };
        let (count, _) = self.fitting(queue);
        if count == 0 || failpoint::fails("journal::roll_early") {
            self.roll().await?;
        }
        let (count, total) = self.fitting(queue);
        if count == 0 {
            return Err(self.fail("a batch is larger than its segment".into()));
        }
        let mut write = Write::new(self, fence, total);
        for batch in queue.drain(..count) {
            write.add(Kind::Batch, &batch, done).ok_or_else(|| self.fail("a frame was not built".into()))?;
            spent.push(batch);
        }
        self.put(write).await?;
        match self.config.durability {
            Durability::Fsync if failpoint::mutant("acknowledge_before_sync") => self.acknowledge_unsynced(),
            Durability::Fsync => self.sync().await,
            Durability::Os => Ok(()),
        }
    }

    /// How many batches the next write takes, and how many bytes that is.
    fn fitting(&self, queue: &VecDeque<Vec<u8>>) -> (usize, usize) {
        let room = usize::try_from(self.current.bytes - self.current.offset).unwrap_or(usize::MAX);
        let (mut count, mut total) = (0, 0);
        for batch in queue {
            let bytes = total + frame_bytes(batch.len());
            if bytes > room || (count > 0 && bytes > limits::JOURNAL_BATCH_BYTES_MAX) {
                break;
            }
            (count, total) = (count + 1, bytes);
        }
        (count, total)
    }

    async fn put(&mut self, write: Write) -> Result<(), Error> {
        let Write { buffer, header, offset, filled, next, chain, oldest } = write;
        let written = match failpoint::io("journal::before_write") {
            Ok(()) => self.current.file.write_at(buffer, offset).await,
            Err(error) => Err(error),
        };
        failpoint::pass("journal::after_write");
        let doing = || format!("write {}", self.current.file.path().display());
        match written {
            Ok(memory) => self.memory = memory,
            Err(error) => {
                let error = Error::io(doing(), error);
                return Err(self.fail(error.to_string()));
            }
        }
        self.current.offset += filled as u64;
        (self.next, self.chain, self.oldest_noted) = (next, chain, oldest);
        self.last_fence = header.fence;
        Ok(())
    }

    /// Makes everything written durable.
    pub(super) async fn sync(&mut self) -> Result<(), Error> {
        self.check()?;
        if self.synced + 1 == self.next {
            return Ok(());
        }
        let synced = self.sync_file().await;
        failpoint::pass("journal::after_sync");
        if let Err(error) = synced {
            let error = Error::io(format!("sync {}", self.current.file.path().display()), error);
            return Err(self.fail(error.to_string()));
        }
        self.synced = self.next - 1;
        self.oldest_synced = self.oldest_noted;
        self.retire().await
    }

    async fn sync_file(&self) -> std::io::Result<()> {
        failpoint::io("journal::before_sync")?;
        if failpoint::mutant("never_sync") {
            return Ok(());
        }
        match self.current.file.fdatasync().await {
            Err(_) if failpoint::mutant("sync_again_after_failure") => self.current.file.fdatasync().await,
            synced => synced,
        }
    }

    /// For a planted bug.
    fn acknowledge_unsynced(&mut self) -> Result<(), Error> {
        self.synced = self.next - 1;
        Ok(())
    }

    /// Takes the names of segments that a synced frame has said goodbye to.
    async fn retire(&mut self) -> Result<(), Error> {
        while let Some(&id) = self.retiring.front().filter(|id| **id < self.oldest_synced) {
            let keep = self.free.len() < segment::FREE_SEGMENTS_MAX;
            let (dir, bytes) = (self.config.dir.clone(), self.config.segment_bytes);
            failpoint::pass("journal::before_retire");
            let retire = move || {
                let keep = keep && segment::has_plenty(&dir, bytes);
                segment::retire(&dir, id, keep).map(|()| keep)
            };
            let retired = self.helper.run(retire).await;
            failpoint::pass("journal::after_retire");
            let kept = retired.and_then(|result| result).map_err(|error| {
                let error = Error::io(format!("give segment {id} back"), error);
                self.fail(error.to_string())
            })?;
            self.retiring.pop_front();
            if kept {
                self.free.push(segment::free_path(&self.config.dir, id));
            }
        }
        Ok(())
    }

    /// Goes on in the next segment.
    async fn roll(&mut self) -> Result<(), Error> {
        failpoint::pass("journal::before_roll");
        self.sync().await?;
        let file = match self.take_spare().await {
            Ok(file) => file,
            // Room may have come back since the preparation failed.
            Err(_) => {
                self.begin_spare();
                match self.take_spare().await {
                    Ok(file) => file,
                    Err(error) => return Err(self.fail(error.to_string())),
                }
            }
        };
        let segment = self.current.segment + 1;
        let bytes = self.config.segment_bytes;
        let first = self.next;
        let old = std::mem::replace(&mut self.current, Current { segment, first, file, offset: 0, bytes });
        let (last_crc, fence) = (self.chain, self.last_fence);
        if self.next > old.first {
            let last = self.next - 1;
            self.sealed_version += 1;
            self.sealed.push_back(Sealed { segment: old.segment, first: old.first, last, last_crc, fence });
        }
        self.begin_spare();
        failpoint::pass("journal::after_roll");
        // Everything in it is synced; how closing ends makes no difference.
        let _ = old.file.close().await;
        Ok(())
    }

    fn begin_spare(&mut self) {
        let (sender, receiver) = oneshot::channel();
        self.spare = Some(receiver);
        let id = self.current.segment + 1;
        let Config { dir, segment_bytes, file_kind, .. } = self.config.clone();
        let path = segment::path(&dir, id);
        let ready = io::disk::length(&path).is_ok_and(|found| found == segment_bytes);
        let recycled = if ready { None } else { self.free.pop() };
        let prepared = (!ready).then(|| {
            let prepare = move || {
                failpoint::pass("journal::prepare");
                let prepared = segment::prepare(&dir, id, segment_bytes, recycled.as_deref());
                failpoint::pass("journal::prepared");
                prepared
            };
            in_background(format!("segment-{}", self.config.identity.shard), prepare)
        });
        let (writes, helper) = (self.config.writes(), self.helper.clone());
        io::spawn_local(async move {
            let opened = async {
                if let Some(prepared) = prepared {
                    let failed = |error| Error::io(format!("prepare segment {}", path.display()), error);
                    prepared.await.map_err(failed)?;
                }
                if sender.is_closed() {
                    return Err(Error::Fenced { cause: "the journal is gone".into() });
                }
                // Opened ahead too: a lack of descriptors shows while there is still room.
                let opened = LogFile::open(&path, file_kind, writes, &helper).await;
                opened.map_err(|error| Error::io(format!("open {}", path.display()), error))
            };
            let opened = opened.await;
            drop(sender.send(opened));
        });
    }

    async fn take_spare(&mut self) -> Result<LogFile, Error> {
        match self.spare.take() {
            Some(spare) => spare
                .await
                .map_err(|_| Error::Fenced { cause: "the preparation of a segment died".into() })?,
            None => Err(Error::Fenced { cause: "no segment is being prepared".into() }),
        }
    }

    fn check(&self) -> Result<(), Error> {
        self.failure.as_ref().map_or(Ok(()), |cause| Err(Error::Fenced { cause: cause.clone() }))
    }

    /// The first failure stands; everything later is refused with it.
    fn fail(&mut self, cause: String) -> Error {
        Error::Fenced { cause: self.failure.get_or_insert_with(|| cause.into()).clone() }
    }
}

/// Frames on their way into one write.
struct Write {
    buffer: WriteBuffer,
    header: Header,
    offset: u64,
    filled: usize,
    next: Position,
    chain: u32,
    oldest: u64,
}

impl Write {
    fn new(log: &mut Log, fence: Fence, total: usize) -> Self {
        let memory = log.memory.take();
        let oldest = log.sealed.front().map_or(log.current.segment, |sealed| sealed.segment);
        Self {
            buffer: log.current.file.buffer(total, memory),
            header: Header {
                kind: Kind::Batch,
                identity: log.config.identity,
                segment: log.current.segment,
                offset: 0,
                position: log.next,
                fence,
                durable: log.synced,
                oldest,
                chain: log.chain,
            },
            offset: log.current.offset,
            filled: 0,
            next: log.next,
            chain: log.chain,
            oldest,
        }
    }

    fn add(&mut self, kind: Kind, batch: &[u8], done: &mut Vec<(Position, FrameRef)>) -> Option<()> {
        let end = self.filled + frame_bytes(batch.len());
        let offset = u32::try_from(self.offset + self.filled as u64).ok()?;
        let header = Header { kind, offset, position: self.next, chain: self.chain, ..self.header };
        self.chain = frame::encode(self.buffer.as_mut_slice().get_mut(self.filled..end)?, &header, batch)?;
        done.push((self.next, FrameRef { segment: header.segment, offset }));
        (self.filled, self.next) = (end, self.next + 1);
        Some(())
    }
}
