//! Bringing a shard back before it serves: its images are read, what its log has after them is folded, its finished runs go
//! into the index again.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::origin::Origin;
use super::shard::{Counts, Recovery, Shard, ShardConfig, Sources};
use crate::api::{Catalog, catalog};
use crate::cas::{self, Blobs};
use crate::engine::Graphs;
use crate::failpoint;
use crate::ir::Ir;
use crate::model::event::DocumentHash;
use crate::model::patch::{Change, Layer};
use crate::model::{Content, FrameRef, RunId, Value};
use crate::store::archive::SegmentMark;
use crate::store::history::History;
use crate::store::images::Tally;
use crate::store::log::Sealed;
use crate::store::record::Burst;
use crate::store::{Archive, Artifacts, Error};
use crate::telemetry::ShardCells;
use crate::telemetry::log::{self, Target};
use crate::time::{Clock as _, SystemClock, Timestamp};

/// Rows put into the index at once.
const ROWS_PER_WRITE: usize = 8_192;
/// Changes of graphs noted at once.
const PATCHES_PER_WRITE: usize = 256;

/// A folded shard and where its log ends.
pub(crate) struct Folded {
    pub(crate) shard: Shard,
    /// Its journal, read to its end.
    pub(crate) origin: Origin,
    pub(crate) last_at: Timestamp,
    pub(crate) counts: Counts,
    /// Why the images that were there were not used.
    pub(crate) dropped: Option<String>,
    /// How long it took.
    pub(crate) took_us: u64,
}

impl Folded {
    /// Tells the operator what it took to bring the shard back.
    pub(crate) fn say(&self, shard: u16) {
        if let Some(why) = &self.dropped {
            let line =
                format_args!("shard {shard}: the checkpoint was dropped and the whole journal read: {why}");
            log::warn(Target::Store, line);
        }
        if !self.origin.is_new() {
            let Counts { images, events, skipped } = self.counts;
            let millis = self.took_us / 1_000;
            log::info(
                Target::Store,
                format_args!(
                    "shard {shard}: back in {millis} ms: {images} runs from images, {events} events folded, {skipped} bursts skipped"
                ),
            );
        }
    }
}

/// Where recovery looks things up.
#[derive(Clone, Copy)]
pub(crate) struct Stores<'a> {
    pub(crate) catalog: &'a Catalog,
    pub(crate) archive: &'a dyn Archive,
    pub(crate) blobs: &'a dyn Blobs,
    pub(crate) history: &'a History,
    /// Where it is noted what patches made; `None`: whoever looks only.
    pub(crate) artifacts: Option<&'a dyn Artifacts>,
}

impl<'a> Stores<'a> {
    /// What images and events are understood with.
    pub(crate) fn sources(self) -> impl Sources + use<'a> {
        Lookups { stores: self, last: None, failed: None }
    }
}

struct Lookups<'a> {
    stores: Stores<'a>,
    /// One document runs many times.
    last: Option<(DocumentHash, Arc<Ir>)>,
    /// A store could not be read: that says nothing of what is in it.
    failed: Option<Error>,
}

impl Lookups<'_> {
    fn looked_up<T>(&mut self, found: Result<T, catalog::Error>) -> Option<T> {
        if let Err(catalog::Error::Storage(error)) = &found {
            let source = std::io::Error::other(error.to_string());
            self.failed.get_or_insert(Error::Io { doing: "look up the document of a run".into(), source });
        }
        found.ok()
    }
}

impl Graphs for Lookups<'_> {
    fn of(&mut self, document: &DocumentHash) -> Option<Arc<Ir>> {
        match &self.last {
            Some((hash, ir)) if hash == document => Some(ir.clone()),
            _ => {
                let entry = self.looked_up(self.stores.catalog.load_hash(document))??;
                self.last = Some((*document, entry.compiled.ir.clone()));
                Some(entry.compiled.ir.clone())
            }
        }
    }

    fn after(
        &mut self,
        base: &DocumentHash,
        layers: &[Arc<Layer>],
        change: &Change,
        document: &DocumentHash,
    ) -> Option<Arc<Ir>> {
        let entry = self.looked_up(self.stores.catalog.after(base, layers, change, document))?;
        Some(entry.compiled.ir.clone())
    }
}

impl Sources for Lookups<'_> {
    fn content(&mut self, content: &Content) -> Result<Value, String> {
        let bytes = self.stores.blobs.get(&content.sha256).map_err(|error| {
            let why = error.to_string();
            if let cas::Error::Io { doing, source } = error {
                self.failed.get_or_insert(Error::Io { doing, source });
            }
            why
        })?;
        let file = || self.stores.blobs.place(&content.sha256).display().to_string();
        let bytes = bytes.ok_or_else(|| format!("its content {content} is gone: there is no {}", file()))?;
        Value::from_json(&bytes).map_err(|error| format!("its content {content} in {}: {error}", file()))
    }

    fn ended(&mut self, run_id: RunId) -> Result<Option<Timestamp>, String> {
        self.stores.archive.ended(run_id).map_err(|error| error.to_string())
    }
}

/// Reads the images of one shard and folds what its log has after them. When an image is missing or damaged, or does not fit
/// the log, none is used: history and log are folded from their beginning, and new images take the place of the old.
///
/// # Errors
/// The log is damaged, or does not fold: the shard is refused and nothing is guessed.
pub(crate) fn fold(
    config: ShardConfig,
    mut origin: Origin,
    cells: Arc<ShardCells>,
    stores: Stores<'_>,
) -> Result<Folded, Error> {
    let shard = config.index;
    failpoint::pass("recovery::begin");
    let since_us = SystemClock.monotonic_us();
    let took_us = || SystemClock.monotonic_us().saturating_sub(since_us);
    let mut attempt = Attempt { config, origin: &mut origin, cells, stores };
    let why = match attempt.with_images() {
        Ok(found) => return Ok(found.folded(origin, None, took_us())),
        Err(Failed::Final(error)) => return Err(error),
        Err(Failed::Images(why)) => why,
    };
    let mut found = attempt.without_images().map_err(|failed| match failed {
        Failed::Final(error) => error,
        Failed::Images(and) => Error::Record {
            why: format!(
                "shard {shard}: its checkpoint cannot be used ({why}), and journal and history do not tell all without it \
                 ({and}); restore the data directory from a backup"
            ),
        },
    })?;
    if found.shard.unreadable_runs().next().is_some() {
        // New images would leave these runs out for good: everything is read again at the next start, too.
        return Ok(found.folded(origin, Some(why), took_us()));
    }
    let images = found
        .shard
        .all_images(found.last_at)
        .map(|image| image.map_err(|error| Error::Record { why: format!("a run has no image: {error}") }));
    stores.archive.replace_images(shard, &mut { images })?;
    found.shard.all_saved();
    Ok(found.folded(origin, Some(why), took_us()))
}

/// What an attempt comes to.
struct Found {
    shard: Shard,
    last_at: Timestamp,
    counts: Counts,
}

impl Found {
    fn folded(self, origin: Origin, dropped: Option<String>, took_us: u64) -> Folded {
        let Self { shard, last_at, counts } = self;
        Folded { shard, origin, last_at, counts, dropped, took_us }
    }
}

/// Why an attempt came to nothing.
enum Failed {
    /// It may go without images.
    Images(String),
    /// It will not go at all.
    Final(Error),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::Final(error)
    }
}

/// Folds bursts one after the other, and puts rows of what ended into the index as they come.
struct Folding<'a> {
    recovery: Recovery,
    lookups: Lookups<'a>,
    archive: &'a dyn Archive,
    /// Their heartbeat moves with every image and burst: recovery that takes long is told from one that stands still.
    cells: Arc<ShardCells>,
    /// Why the images are not to be used.
    spoilt: Option<String>,
}

impl Folding<'_> {
    fn burst(&mut self, frame: FrameRef, burst: &Burst<'_>) -> Result<(), Error> {
        self.cells.heartbeat_us.increment();
        self.recovery.burst(burst, frame, &mut self.lookups).map_err(|error| {
            let why = error.to_string();
            self.spoilt = error.spoils_images().then(|| why.clone());
            Error::Record { why }
        })?;
        self.note_patched(PATCHES_PER_WRITE)?;
        if self.recovery.rows_waiting() >= ROWS_PER_WRITE {
            self.archive.put_reviews(&self.recovery.take_noted())?;
            self.note_patched(1)?;
            self.archive.put(&self.recovery.take_rows())?;
        }
        Ok(())
    }

    /// Before the rows of their runs, as while the node ran.
    fn note_patched(&mut self, least: usize) -> Result<(), Error> {
        let patched = self.recovery.take_patched(least);
        match self.lookups.stores.artifacts {
            Some(artifacts) if !patched.is_empty() => artifacts.note(&patched).map(drop),
            _ => Ok(()),
        }
    }

    /// What an end before the last burst means for the attempt.
    fn failed(&mut self, error: Error) -> Failed {
        if let Some(failed) = self.lookups.failed.take() {
            // Neither log nor image is at fault.
            return Failed::Final(failed);
        }
        self.spoilt.take().map_or(Failed::Final(error), Failed::Images)
    }
}

struct Attempt<'a> {
    config: ShardConfig,
    origin: &'a mut Origin,
    cells: Arc<ShardCells>,
    stores: Stores<'a>,
}

impl<'a> Attempt<'a> {
    fn with_images(&mut self) -> Result<Found, Failed> {
        let index = self.config.index;
        let mut folding = self.begin();
        let Folding { recovery, lookups, cells, .. } = &mut folding;
        let (mut found, mut unusable) = (Tally::default(), None);
        let expected = self.stores.archive.images(index, &mut |run_id, bytes| {
            cells.heartbeat_us.increment();
            found.add(run_id, bytes);
            recovery.image(run_id, bytes, lookups).map_err(|error| {
                let why = error.to_string();
                unusable = Some(why.clone());
                Error::Record { why }
            })
        });
        // Also when the index cannot read its own blocks.
        let expected = expected.map_err(|error| match lookups.failed.take() {
            Some(failed) => Failed::Final(failed),
            None => Failed::Images(unusable.unwrap_or(error.to_string())),
        })?;
        if found != expected {
            let why =
                format!("{} images are there, {} were put, or some are old", found.count, expected.count);
            return Err(Failed::Images(why));
        }
        let marks = self.stores.archive.marks(index)?;
        self.fold(folding, &marks)
    }

    fn begin(&self) -> Folding<'a> {
        let recovery = Recovery::new(self.config.clone(), self.cells.clone());
        let lookups = Lookups { stores: self.stores, last: None, failed: None };
        Folding { recovery, lookups, archive: self.stores.archive, cells: self.cells.clone(), spoilt: None }
    }

    /// Reads everything that is there: what was moved to history, then what is in the journal.
    fn without_images(&mut self) -> Result<Found, Failed> {
        let Stores { archive, history, .. } = self.stores;
        let index = self.config.index;
        let mut folding = self.begin();
        let files: Vec<_> = archive.files(index)?.iter().map(|row| row.file).collect();
        let moved: Vec<_> = archive.marks(index)?.into_iter().filter(|mark| mark.moved).collect();
        if !files.is_empty() {
            folding.recovery.forgets();
        }
        let read = history.each_burst(index, &files, &mut |frame, burst| folding.burst(frame, &burst));
        read.map_err(|error| folding.failed(error))?;
        self.fold(folding, &moved)
    }

    fn fold(&mut self, mut folding: Folding<'_>, marks: &[SegmentMark]) -> Result<Found, Failed> {
        for mark in marks {
            folding.recovery.archived(mark.sealed.segment, mark.moved);
        }
        let sealed: BTreeMap<u64, Sealed> =
            marks.iter().map(|mark| (mark.sealed.segment, mark.sealed)).collect();
        let read = self.origin.read(&sealed, &mut |frame, burst| {
            failpoint::pass("recovery::burst");
            folding.burst(frame, &burst)
        });
        read.map_err(|error| folding.failed(error))?;
        folding.note_patched(1)?;
        let Folding { mut recovery, mut lookups, archive, .. } = folding;
        failpoint::pass("recovery::rows");
        archive.put_reviews(&recovery.take_noted())?;
        archive.put(&recovery.take_rows())?;
        archive.unmark(self.config.index, self.origin.first_segment())?;
        if let Some(error) = lookups.failed {
            // Not the runs are at fault; the next start may read them.
            return Err(Failed::Final(error));
        }
        let (last_at, counts) = (recovery.last_at(), recovery.counts());
        let shard = recovery.finish(&mut lookups).map_err(|error| Error::Index { why: error.to_string() })?;
        for (run_id, why) in shard.unreadable_runs() {
            log::warn(Target::Store, format_args!("run {run_id} cannot be read and is set aside: {why}"));
        }
        failpoint::pass("recovery::folded");
        Ok(Found { shard, last_at, counts })
    }
}
