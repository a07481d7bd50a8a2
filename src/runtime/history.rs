//! Keeps history: moves segments, forgets what is over, takes out what is to be erased.
//!
//! A task of the index thread. It works in small steps with pauses between them, so that rows of finished runs never wait for it
//! long. All it does can be interrupted and is done again: files first, then the index, which alone says what is there; files
//! that it does not know are removed at start. What fails is reported, and tried again.

use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use super::index::tell;
use crate::api::Catalog;
use crate::failpoint;
use crate::limits;
use crate::model::{EventBody, RetentionClass, RunId};
use crate::queue::{FullPolicy, Receiver, Sender, bounded};
use crate::runtime::materializer::Intake;
use crate::runtime::plane::runner::Indexed;
use crate::runtime::room::Room;
use crate::store::archive::{Erasure, Expiry, Known};
use crate::store::files::UNFINISHED;
use crate::store::history::{
    Fate, FileId, History, HistoryFile, HistoryWriter, Move, name, parse_name, seal,
};
use crate::store::index;
use crate::store::log::Sealed;
use crate::store::record::{Burst, Bursts};
use crate::store::signing::SigningKey;
use crate::store::{Archive, Error};
use crate::time::{Clock as _, SystemClock};
use crate::wire::node::StorageInfo;

/// How often it looks for what is due.
const EVERY: Duration = Duration::from_secs(1);
/// Rest after a step of a move or a sweep.
const REST: Duration = Duration::from_millis(1);
/// Segments moved before it is looked for what is due.
const MOVES_PER_ROUND: usize = 4;
/// Runs forgotten in one write of the index.
const RUNS_PER_STEP: usize = 2_048;
/// Files looked at in one round.
const FILES_PER_ROUND: usize = 64;
/// Keys forgotten in one round.
const KEYS_PER_ROUND: usize = 8_192;

/// What keeping history takes.
pub(crate) struct Keeper {
    pub(crate) archive: Arc<dyn Archive>,
    pub(crate) history: History,
    pub(crate) catalog: Arc<Catalog>,
    /// Of runs whose document does not say.
    pub(crate) class: RetentionClass,
    /// What patches made goes there.
    pub(crate) intake: Intake,
    /// What is on disk, and whether there is room for new work: looked after by this thread.
    pub(crate) room: Arc<Room>,
    /// Where the index is; `None`: it is not on disk.
    pub(crate) index_dir: Option<PathBuf>,
    /// What seals what is moved; without, nothing is sealed.
    pub(crate) key: Option<Arc<SigningKey>>,
    /// Who is woken when something is to be told of reviews.
    pub(crate) noticed: Arc<tokio::sync::Notify>,
    /// What goes wrong is told here.
    pub(crate) report: fn(String),
}

impl Keeper {
    /// Starts the task on this thread; segments to be moved go to the end that is given.
    pub(crate) fn start(self, shards: Vec<Sender<Indexed>>) -> Sender<(u16, Sealed)> {
        let (sender, moves) =
            bounded("segments to move", limits::SEGMENTS_TO_MOVE_MAX, FullPolicy::RefuseCaller);
        crate::io::spawn_local(self.room.clone().watch());
        crate::io::spawn_local(self.keep(moves, shards));
        sender
    }

    async fn keep(self, mut moves: Receiver<(u16, Sealed)>, shards: Vec<Sender<Indexed>>) {
        for shard in 0..u16::try_from(shards.len()).unwrap_or(u16::MAX) {
            self.done("look over history", self.clean(shard));
        }
        let mut swept_us = 0;
        let mut order = Order::default();
        loop {
            for _ in 0..MOVES_PER_ROUND {
                let Some((shard, sealed)) = moves.try_recv() else { break };
                let segment = sealed.segment;
                let mut done = false;
                if order.admits(shard, segment) {
                    // Also where new work waits for room: a move gives back more than it takes.
                    let hurry = moves.stats().depth() > 0 || self.room.lacking().is_some();
                    let moved = self.move_segment(shard, sealed, hurry).await;
                    done = self.done(&format!("move segment {segment} to history"), moved).is_some();
                    order.tried(shard, segment, done);
                }
                tell(&shards, shard, if done { Indexed::Moved(segment) } else { Indexed::Stays(segment) })
                    .await;
            }
            // However many segments wait: what is over must go, or the disk fills.
            let now_us = SystemClock.monotonic_us();
            if swept_us == 0 || now_us.saturating_sub(swept_us) >= EVERY.as_micros() as u64 {
                swept_us = now_us;
                let swept = self.sweep().await;
                self.done("forget history", swept);
                let shrunk = self.shrink(u16::try_from(shards.len()).unwrap_or(u16::MAX)).await;
                self.done("make room in history", shrunk);
                let erased = self.erase().await;
                self.done("erase history", erased);
                let measured = self.measure(u16::try_from(shards.len()).unwrap_or(u16::MAX));
                self.done("measure what is on disk", measured);
            }
            let mut sleep = pin!(crate::io::sleep(EVERY));
            poll_fn(|context| {
                let ready = moves.poll_ready(context).is_ready() || sleep.as_mut().poll(context).is_ready();
                if ready { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
        }
    }

    /// Looks at lengths of files only.
    fn measure(&self, shards: u16) -> Result<(), Error> {
        let mut found = StorageInfo::default();
        for shard in 0..shards {
            let (used, free) = self.history.frames(shard).bytes()?;
            found.journal_bytes += used;
            found.journal_free_bytes += free;
            for row in self.archive.files(shard)? {
                *found.history_bytes.entry(row.file.class.name().to_owned()).or_default() += row.bytes;
            }
        }
        found.index_bytes = self.index_dir.as_deref().map_or(0, bytes_below);
        self.room.measured(found);
        Ok(())
    }

    fn done<T>(&self, doing: &str, result: Result<T, Error>) -> Option<T> {
        result.map_err(|error| (self.report)(format!("cannot {doing}, trying again: {error}"))).ok()
    }

    /// Removes what no one knows: files half written, and those whose move or removal was not finished. Those stay when the index
    /// has lost something: it may have known them, and they are the only ones left.
    fn clean(&self, shard: u16) -> Result<(), Error> {
        let files = self.history.files(shard);
        let known: Vec<FileId> = self.archive.files(shard)?.iter().map(|row| row.file).collect();
        let kept = self.index_dir.as_deref().map(index::kept).transpose()?.unwrap_or_default();
        for (name, _) in files.list()? {
            let orphan = kept.is_empty()
                && parse_name(&name)
                    .is_some_and(|(segment, class)| !known.contains(&FileId { shard, segment, class }));
            if orphan || name.ends_with(UNFINISHED) {
                files.remove(&name)?;
            }
        }
        Ok(())
    }

    /// Moves it step by step, resting in between unless others wait: then moves must keep up with what is written.
    async fn move_segment(&self, shard: u16, sealed: Sealed, hurry: bool) -> Result<(), Error> {
        let mut moving = Move::begin(&self.history, shard, sealed)?;
        loop {
            match moving.step(&mut |bursts| self.fates(bursts)) {
                Ok(true) if hurry => crate::io::yield_now().await,
                Ok(true) => crate::io::sleep(REST).await,
                Ok(false) => break,
                Err(error) => {
                    moving.abandon();
                    return Err(error);
                }
            }
        }
        failpoint::pass("history::before_files");
        let parts = moving.take_parts();
        let moved = moving.finish()?;
        if let Some(key) = &self.key {
            // Before the index knows of the move: what is in history is sealed.
            let (files, identity) = (self.history.files(shard), self.history.identity(shard));
            seal::write(&*files, (identity, sealed.segment), &parts, (SystemClock.now(), key))?;
        }
        failpoint::pass("history::after_files");
        crate::io::sleep(REST).await;
        self.archive.moved(&moved, SystemClock.now())?;
        failpoint::pass("history::moved");
        Ok(())
    }

    fn fates(&self, bursts: &[&Burst<'_>]) -> Result<Vec<Fate>, Error> {
        let run_ids: Vec<RunId> = bursts.iter().map(|burst| burst.head.run_id).collect();
        let known = self.archive.known(&run_ids)?;
        bursts.iter().zip(known).map(|(burst, known)| self.fate(burst, known)).collect()
    }

    fn fate(&self, burst: &Burst<'_>, known: Known) -> Result<Fate, Error> {
        let run_id = burst.head.run_id;
        Ok(match known {
            Known::Ended(at, Some(class)) => Fate::Ended(class, at),
            Known::Ended(at, None) => {
                // A row of format 1: from now on it says by which class it is kept.
                let row = self.archive.get(run_id)?.into_iter();
                let row: Vec<_> = row
                    .map(|mut row| {
                        row.class = Some(self.class);
                        row
                    })
                    .collect();
                self.archive.put(&row)?;
                Fate::Ended(self.class, at)
            }
            Known::Live(class) => Fate::Live(class),
            Known::Forgotten => Fate::Forgotten,
            Known::Nothing => Fate::Live(self.class_of(burst)),
        })
    }

    /// The class of a run that lives, from its first events.
    fn class_of(&self, burst: &Burst<'_>) -> RetentionClass {
        let (mut document, mut child) = (None, false);
        // `run.started`, and of a child `run.linked` right behind it.
        for event in burst.shown().take(2).map_while(Result::ok) {
            match event.body {
                EventBody::RunStarted(started) => document = Some(started.document),
                EventBody::RunLinked { .. } => child = true,
                _ => {}
            }
        }
        let entry = document.and_then(|document| self.catalog.load_hash(&document).ok()?);
        let class =
            entry.and_then(|entry| entry.compiled.ir.retention).map_or(self.class, RetentionClass::of);
        if child { class.of_child() } else { class }
    }

    /// Forgets what is over, the oldest first.
    async fn sweep(&self) -> Result<(), Error> {
        let now = SystemClock.now();
        for file in self.archive.due(now, FILES_PER_ROUND)? {
            failpoint::pass("history::before_expire");
            let gone = loop {
                match self.archive.expire(file, now, RUNS_PER_STEP)? {
                    Expiry::Some(_) => crate::io::sleep(REST).await,
                    Expiry::All(_) => break true,
                    Expiry::Later(_) => break false,
                }
            };
            if gone {
                failpoint::pass("history::after_expire");
                self.remove(file)?;
            }
            crate::io::sleep(REST).await;
        }
        self.archive.sweep_keys(now, KEYS_PER_ROUND).map(drop)
    }

    /// Forgets runs before their time, those that finished first before others, until history has no more bytes than it may.
    async fn shrink(&self, shards: u16) -> Result<(), Error> {
        let Some(most) = self.room.drop_above() else { return Ok(()) };
        let mut files = Vec::new();
        for shard in 0..shards {
            files.extend(self.archive.files(shard)?);
        }
        let mut bytes: u64 = files.iter().map(|row| row.bytes).sum();
        if bytes > most {
            // When the last of its runs ended, as far as is known.
            files.sort_unstable_by_key(|row| {
                let kept = u64::try_from(row.file.class.duration().as_micros()).unwrap_or(u64::MAX);
                (row.expires_at.as_micros().saturating_sub(kept), row.file)
            });
        }
        for row in files {
            if bytes <= most {
                break;
            }
            let (file, mut runs) = (row.file, 0);
            failpoint::pass("history::before_expire");
            let gone = loop {
                match self.archive.expire_early(file, RUNS_PER_STEP)? {
                    Expiry::Some(count) => runs += count,
                    Expiry::All(count) => {
                        runs += count;
                        break true;
                    }
                    // It has events of runs that go on.
                    Expiry::Later(_) => break false,
                }
                crate::io::sleep(REST).await;
            };
            crate::io::yield_now().await;
            if gone {
                failpoint::pass("history::after_expire");
                self.remove(file)?;
                bytes = bytes.saturating_sub(row.bytes);
                let (shard, segment, class) = (file.shard, file.segment, file.class.name());
                (self.report)(format!(
                    "history is above history.bytes_max ({most}): {runs} runs of shard {shard}, segment {segment}, class {class} are forgotten before their time"
                ));
            }
            self.room.dropped(runs, usize::from(gone));
        }
        Ok(())
    }

    fn remove(&self, file: FileId) -> Result<(), Error> {
        let files = self.history.files(file.shard);
        files.remove(&name(file.segment, file.class))?;
        seal::file_gone(&*files, file.segment)
    }

    /// Writes files anew without the runs that are to be taken out of them.
    async fn erase(&self) -> Result<(), Error> {
        while let Some(erasure) = self.archive.erasure()? {
            let left = self.without(&erasure)?;
            crate::io::sleep(REST).await;
            self.archive.erased(&erasure, left)?;
            if left.is_none() {
                self.remove(erasure.file)?;
            }
            crate::io::sleep(REST).await;
        }
        Ok(())
    }

    /// Bytes and runs of the file that is left; `None` when nothing is.
    fn without(&self, erasure: &Erasure) -> Result<Option<(u64, u64)>, Error> {
        let file = &erasure.file;
        let runs: BTreeSet<RunId> = erasure.runs.iter().copied().collect();
        let Some(open) = HistoryFile::open(&self.history, *file)? else { return Ok(None) };
        let mut writer = HistoryWriter::create(&self.history, *file, open.tables().sealed)?;
        let copied = open.each_frame(&mut |offset, payload| {
            for burst in Bursts::new(payload)? {
                let burst = burst?;
                if !runs.contains(&burst.head.run_id) {
                    writer.burst(offset, burst.head.run_id, burst.bytes)?;
                }
            }
            Ok(())
        });
        match copied {
            Ok(()) if writer.is_empty() => {
                writer.abandon();
                Ok(None)
            }
            Ok(()) => writer.finish().map(|written| Some((written.bytes, written.runs))),
            Err(error) => {
                writer.abandon();
                Err(error)
            }
        }
    }
}

/// What is in history is the beginning of a journal, whatever fails: a run's later events never stand there before its first
/// ones, which say how long it is kept, and which are read first when no image is.
#[derive(Debug, Default)]
struct Order {
    /// The segment of a shard that could not be moved.
    stuck: BTreeMap<u16, u64>,
}

impl Order {
    /// Has everything before it been moved?
    fn admits(&self, shard: u16, segment: u64) -> bool {
        self.stuck.get(&shard).is_none_or(|stuck| segment <= *stuck)
    }

    fn tried(&mut self, shard: u16, segment: u64, moved: bool) {
        if moved {
            self.stuck.remove(&shard);
        } else {
            self.stuck.insert(shard, segment);
        }
    }
}

/// Bytes of all files below a directory; what cannot be read counts nothing.
fn bytes_below(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let bytes = entries.map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path()),
        // What is allocated: files of the index are made larger than what is in them.
        Ok(metadata) => std::os::unix::fs::MetadataExt::blocks(&metadata) * 512,
        Err(_) => 0,
    });
    bytes.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    // Found by simulation: later segments were moved past one that could not be, and without images the run whose first events
    // it held was folded from its middle.
    #[test]
    fn nothing_is_moved_past_a_segment_that_could_not_be() {
        let mut order = Order::default();
        assert!(order.admits(0, 13));
        order.tried(0, 13, false);
        assert!(!order.admits(0, 14));
        assert!(order.admits(1, 14), "another shard's");
        assert!(order.admits(0, 13), "tried again");
        order.tried(0, 13, true);
        assert!(order.admits(0, 14));
    }
}
