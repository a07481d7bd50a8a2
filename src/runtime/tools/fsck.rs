//! Looks a data directory over: every frame, every history file, every row and image of the index. Changes nothing but what
//! opening the index does by itself (it replays its own journal).
//!
//! A problem names the file, the place, and what is lost with it. A warning is about what is wrong and loses nothing. Notes are
//! what a crash may leave and the next start clears up.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use super::images::Images;
use crate::api::Catalog;
use crate::cas::disk::FileBlobs;
use crate::model::{FrameRef, RunId};
use crate::runtime::recover::Stores;
use crate::runtime::storage::StoredWorkflows;
use crate::store::archive::ArchiveRow;
use crate::store::history::{FileId, History, HistoryFile, Query, name, parse_name};
use crate::store::index::{self, Index};
use crate::store::layout::{DataDir, FORMAT};
use crate::store::log::{Source, recover};
use crate::store::record::Bursts;
use crate::store::{Archive, Error};

/// Problems of the same file are told up to this many times.
const PROBLEMS_MAX: usize = 10_000;

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Its stable code.
    pub code: &'static str,
    /// Where, when it is in a file.
    pub file: Option<PathBuf>,
    /// Where in it.
    pub offset: Option<u64>,
    /// In words.
    pub what: String,
    /// What cannot be read any more.
    pub lost: String,
}

/// What was found.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// What is wrong.
    pub problems: Vec<Problem>,
    /// What is wrong, and can be done without.
    pub warnings: Vec<Problem>,
    /// What a crash may leave.
    pub notes: Vec<String>,
    /// Frames of journals.
    pub frames: u64,
    /// Bursts of events in journals.
    pub bursts: u64,
    /// History files.
    pub history_files: u64,
    /// Bytes of them.
    pub history_bytes: u64,
    /// Finished runs.
    pub runs: u64,
    /// Images of unfinished runs.
    pub images: u64,
}

impl Report {
    pub(super) fn problem(&mut self, error: &Error, lost: String) {
        let (file, offset) = match error {
            Error::Corrupt { file, offset, .. } | Error::HistoryCorrupt { file, offset, .. } => {
                (Some(file.clone()), Some(*offset))
            }
            _ => (None, None),
        };
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(Problem { code: error.code(), file, offset, what: error.to_string(), lost });
        }
    }

    pub(super) fn warn(&mut self, problem: Problem) {
        if self.warnings.len() < PROBLEMS_MAX {
            self.warnings.push(problem);
        }
    }

    /// 0: nothing is lost; 1: something is.
    pub fn exit_code(&self) -> u8 {
        u8::from(!self.problems.is_empty())
    }
}

/// As people read it.
impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for Problem { what, lost, .. } in &self.problems {
            writeln!(f, "problem: {what}\n    lost: {lost}")?;
        }
        for Problem { what, lost, .. } in &self.warnings {
            writeln!(f, "warning: {what}\n    lost: {lost}")?;
        }
        for note in &self.notes {
            writeln!(f, "note: {note}")?;
        }
        let Self { frames, bursts, history_files, history_bytes, runs, images, problems, .. } = self;
        writeln!(
            f,
            "{} problems; {frames} frames with {bursts} bursts, {history_files} history files ({history_bytes} bytes), {runs} finished runs, {images} images of others",
            problems.len()
        )
    }
}

/// Looks over the directory at `root`.
///
/// # Errors
/// It cannot be looked at: it is in use, of another format, or its index does not open.
pub fn fsck(root: &Path) -> Result<Report, Error> {
    let dir = DataDir::existing(root)?.here()?;
    let mut report = Report::default();
    if dir.format() < FORMAT {
        report.notes.push(format!("format {}; a node of this version upgrades it to {FORMAT}", dir.format()));
    }
    let index = Arc::new(Index::open(&dir.index_dir())?);
    cut_off(&index, &dir, &mut report)?;
    let blobs = Arc::new(FileBlobs::existing(&dir.cas_dir()));
    let catalog = Catalog::new(Arc::new(StoredWorkflows(index.clone(), blobs.clone())));
    let history = History::new(root, dir.cluster());
    let mut shards: BTreeSet<u16> = dir.shards_on_disk()?.into_iter().collect();
    shards.extend(0..dir.shards().unwrap_or(0));
    for shard in shards {
        let (archive, blobs) = (&*index, &*blobs);
        let stores = Stores { catalog: &catalog, archive, blobs, history: &history, artifacts: None };
        let mut images = Images::read(&index, shard, &mut stores.sources());
        report.images += images.count();
        journal(&dir, shard, (&mut report, &mut images));
        files((&index, &history), shard, (&mut report, &mut images))?;
        images.judge(&mut report);
    }
    index.each_row(&mut |row| {
        report.runs += 1;
        if let Err(error) = run(&history, &row) {
            report.problem(&error, format!("events of {}", row.summary.run_id));
        }
        Ok(())
    })?;
    Ok(report)
}

/// Names what could not be read of the index's own journal, now or before.
fn cut_off(index: &Index, dir: &DataDir, report: &mut Report) -> Result<(), Error> {
    let unfinished = index.cuts().iter().filter(|cut| cut.kept.is_none());
    report.notes.extend(unfinished.map(|cut| format!("the index was mended: {cut}")));
    for kept in index::kept(&dir.index_dir())? {
        let why = format!("{} was cut off the index's journal and cannot be read", kept.display());
        let lost =
            "writes of the index after the place in its name; none that was synced, if the power went then";
        report.problem(&Error::Index { why }, lost.into());
    }
    Ok(())
}

/// Reads all segments that are there, whether they are marked or not.
fn journal(dir: &DataDir, shard: u16, (report, images): (&mut Report, &mut Images)) {
    let (path, none) = (dir.shard_dir(shard), BTreeMap::new());
    let source = Source { dir: &path, identity: dir.identity(shard), marks: &none };
    let mut bursts = 0;
    let read = recover(source, &mut |frame, burst| {
        bursts += 1;
        images.burst(frame, &burst);
        burst.events().try_for_each(|event| event.map(drop))
    });
    report.bursts += bursts;
    match read {
        Ok(recovered) => {
            report.frames += recovered.frames;
            if let Some(cut) = recovered.cut {
                let (segment, offset) = (cut.segment, cut.offset);
                report.notes.push(format!(
                    "shard {shard}: the log ends in a torn write at segment {segment} byte {offset}; it was never acknowledged"
                ));
            }
        }
        Err(error) => {
            let lost =
                format!("what follows in the journal of shard {shard}; the node does not start with it");
            report.problem(&error, lost);
        }
    }
}

/// Reads all history files that the index knows, and names those it does not.
fn files(
    (index, history): (&Index, &History),
    shard: u16,
    (report, images): (&mut Report, &mut Images),
) -> Result<(), Error> {
    let mut known = BTreeSet::new();
    for row in index.files(shard)? {
        known.insert(row.file);
        report.history_files += 1;
        report.history_bytes += row.bytes;
        if let Err(error) = file(history, row.file, images) {
            let (segment, class) = (row.file.segment, row.file.class.name());
            report.problem(
                &error,
                format!("events of up to {} runs of class {class} in segment {segment}", row.runs),
            );
        }
    }
    let own = history.files(shard);
    for (name, _) in own.list()? {
        if name.ends_with(".seal") {
            // `aob audit verify --offline` looks at those.
            continue;
        }
        let file = parse_name(&name).map(|(segment, class)| FileId { shard, segment, class });
        if file.is_none_or(|file| !known.contains(&file)) {
            let name = own.place(&name);
            report.notes.push(format!("{} is in no index; the next start removes it", name.display()));
        }
    }
    Ok(())
}

fn file(history: &History, file: FileId, images: &mut Images) -> Result<(), Error> {
    let corrupt = |why: String| {
        let file = history.files(file.shard).place(&name(file.segment, file.class));
        Error::HistoryCorrupt { file, offset: 0, why }
    };
    let open = HistoryFile::open(history, file)?;
    let open = open.ok_or_else(|| corrupt("the file is missing".into()))?;
    let named: BTreeSet<RunId> = open.runs()?.into_iter().collect();
    let mut seen = BTreeSet::new();
    open.each_frame(&mut |offset, payload| {
        for burst in Bursts::new(payload)? {
            let burst = burst?;
            seen.insert(burst.head.run_id);
            images.burst(FrameRef { segment: file.segment, offset }, &burst);
            burst
                .events()
                .try_for_each(|event| event.map(drop))
                .map_err(|error| corrupt(format!("frame {offset}: {error}")))?;
        }
        Ok(())
    })?;
    if seen == named { Ok(()) } else { Err(corrupt("the runs it names are not those in it".into())) }
}

/// The run's events are there, to the last.
fn run(history: &History, row: &ArchiveRow) -> Result<(), Error> {
    let (run_id, last) = (row.summary.run_id, row.summary.seq);
    let query = Query {
        run_id,
        shard: row.shard,
        frames: &row.frames,
        class: row.class,
        after: last.saturating_sub(1),
        limit: 2,
    };
    let events = history.events(&query)?;
    if events.last().is_some_and(|event| event.seq == last) {
        return Ok(());
    }
    Err(Error::Index { why: format!("{run_id} should end with event {last}, and that is not there") })
}
