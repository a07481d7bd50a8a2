//! Looks over a data directory that no node has open: the audit log, every seal, every history file, every journal.

use std::collections::BTreeSet;
use std::path::Path;

use super::line::Record;
use super::read::{self, LogReport};
use crate::model::RunId;
use crate::store::Error;
use crate::store::history::chain::{frames_of, genesis};
use crate::store::history::verify::Report as ShardReport;
use crate::store::history::{Finding, History, Query, RunAudit};
use crate::store::layout::DataDir;
use crate::store::signing::{PublicKey, public_of};

/// What was looked at, and what does not fit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The audit log.
    pub log: LogReport,
    /// History and journals, all shards in one.
    pub kept: ShardReport,
    /// The key that signatures were held against; none was to be had without.
    pub key: Option<PublicKey>,
}

impl Report {
    /// Does everything fit?
    pub fn is_sound(&self) -> bool {
        self.log.findings.is_empty() && self.kept.findings.is_empty()
    }
}

fn open(root: &Path) -> Result<(DataDir, History), Error> {
    let dir = DataDir::existing(root)?.here()?;
    let history = History::new(root, dir.cluster());
    Ok((dir, history))
}

fn shards(dir: &DataDir) -> Result<BTreeSet<u16>, Error> {
    let mut shards: BTreeSet<u16> = dir.shards_on_disk()?.into_iter().collect();
    shards.extend(0..dir.shards().unwrap_or(0));
    Ok(shards)
}

/// Looks everything over. Signatures must be of `key`, or of the key that the directory names.
///
/// # Errors
/// It cannot be looked at: a node has it open, or the operating system's. What does not fit is in the report.
pub fn verify(root: &Path, key: Option<PublicKey>) -> Result<Report, Error> {
    let (dir, history) = open(root)?;
    let key = key.or_else(|| public_of(root));
    let mut report = Report { key, ..Report::default() };
    let mut erased = BTreeSet::new();
    let read = read::verify(root, dir.cluster(), key.as_ref(), &mut |record| erased.extend(erases(record)));
    report.log = read.map_err(|error| Error::io("read the audit log", error))?;
    for shard in shards(&dir)? {
        history.verify(shard, key.as_ref(), &mut report.kept)?;
    }
    // As long as the log is whole, it knows of everything that somebody asked to take out.
    if report.log.first == 1 {
        for (run_id, _) in std::mem::take(&mut report.kept.taken_out) {
            if !erased.contains(&run_id) {
                let what = format!("{run_id} was sealed and is gone, and nobody asked for that");
                report.kept.found(Finding { code: "run_removed", run_id: Some(run_id), seq: Some(1), what });
            }
        }
    }
    Ok(report)
}

/// The run that an accepted request erased.
fn erases(record: &Record) -> Option<RunId> {
    let asked = record.action == "DELETE /v1/runs/{id}" && record.outcome == "accepted";
    let path = record.target.as_deref().filter(|_| asked)?;
    path.strip_prefix("/v1/runs/")?.parse().ok()
}

/// Looks one run over; `None` when nothing of it is kept.
///
/// # Errors
/// As for [`verify`].
pub fn verify_run(root: &Path, run_id: RunId, key: Option<PublicKey>) -> Result<Option<RunAudit>, Error> {
    let (dir, history) = open(root)?;
    let key = key.or_else(|| public_of(root));
    for shard in shards(&dir)? {
        let (frames, last) = match frames_of(&history, shard, run_id) {
            Ok(found) => found,
            Err(error) if error.is_unread() => return Err(error),
            Err(error) => {
                let finding =
                    Finding { code: error.code(), run_id: None, seq: None, what: error.to_string() };
                let head = genesis(run_id);
                return Ok(Some(RunAudit {
                    events: 0,
                    head,
                    links: Vec::new(),
                    sealed: Vec::new(),
                    finding: Some(finding),
                }));
            }
        };
        if !frames.is_empty() {
            let query = Query { run_id, shard, frames: &frames, class: None, after: 0, limit: 0 };
            return history.audit(&query, last, key.as_ref()).map(Some);
        }
    }
    Ok(None)
}
