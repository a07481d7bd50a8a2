//! Looks over what a shard keeps: every seal, every history file against its seal, every frame of the journal.
//!
//! From the files alone, without an index. What is found is named with its first event; at most [`FINDINGS_MAX`] of it. Blocking;
//! in memory: one segment's parts, and of the journal's runs their last numbers.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::chain::{self, Bursts as Found, Finding, distrusted, misfit};
use super::seal::{self, Digest, Parts, Seal};
use super::{FileId, History, HistoryFile, parse_name};
use crate::model::{FrameRef, RetentionClass, RunId, Seq};
use crate::store::Error;
use crate::store::record::{Burst, Bursts};
use crate::store::signing::PublicKey;
use crate::time::Timestamp;

/// Findings that are told; more are counted.
pub const FINDINGS_MAX: usize = 1_000;

/// What was looked at, and what does not fit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Seals.
    pub seals: u64,
    /// Parts of runs that are what their seal says.
    pub parts: u64,
    /// Bursts of the journal, which are not sealed yet.
    pub journal_bursts: u64,
    /// Parts whose file has gone with the time it was kept for.
    pub forgotten: u64,
    /// Runs taken out of a file that is there: whoever keeps the audit log can say whether somebody asked for it.
    pub taken_out: Vec<(RunId, Timestamp)>,
    /// Files that were moved before there were seals.
    pub unsealed_files: u64,
    /// What does not fit.
    pub findings: Vec<Finding>,
    /// What does not fit and is not told.
    pub more: u64,
}

impl Report {
    /// Something that does not fit.
    pub fn found(&mut self, finding: Finding) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding);
        } else {
            self.more += 1;
        }
    }
}

fn of_file(code: &'static str, path: &Path, why: &str) -> Finding {
    Finding { code, run_id: None, seq: None, what: format!("{}: {why}", path.display()) }
}

impl History {
    /// Shows every burst that a shard keeps with its frame, in order: history files, then the journal. A segment that is in both is
    /// shown as it is in the journal.
    ///
    /// # Errors
    /// The store's, damage, the visitor's.
    pub fn each_kept(
        &self,
        shard: u16,
        visit: &mut dyn FnMut(FrameRef, &Burst<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let in_journal = self.frames(shard).segments()?;
        let files: Vec<FileId> =
            self.files_of(shard)?.into_iter().filter(|file| !in_journal.contains(&file.segment)).collect();
        self.each_burst(shard, &files, &mut |frame, burst| visit(frame, &burst))?;
        self.frames(shard).each(visit)
    }

    fn files_of(&self, shard: u16) -> Result<Vec<FileId>, Error> {
        let names = self.files(shard).list()?;
        let parsed = names.iter().filter_map(|(name, _)| parse_name(name));
        Ok(parsed.map(|(segment, class)| FileId { shard, segment, class }).collect())
    }

    /// Looks a shard over. With a key, seals must bear its signature.
    ///
    /// # Errors
    /// The store's. Damage is a finding.
    pub fn verify(&self, shard: u16, key: Option<&PublicKey>, report: &mut Report) -> Result<(), Error> {
        let own = self.files(shard);
        let files: BTreeSet<FileId> = self.files_of(shard)?.into_iter().collect();
        let mut previous: Option<(u64, Digest)> = None;
        let mut sealed = BTreeSet::new();
        for segment in seal::list(&*own)? {
            let path = own.place(&seal::name(segment));
            report.seals += 1;
            sealed.insert(segment);
            let seal = match seal::read(&*own, segment) {
                Ok(Some(seal)) => seal,
                Ok(None) => continue,
                Err(error) => {
                    report.found(of_file("seal_broken", &path, &error.to_string()));
                    previous = None;
                    continue;
                }
            };
            if let Some((code, why)) = distrusted(&seal, key) {
                report.found(of_file(code, &path, why));
            } else if seal.identity != self.identity(shard) {
                report.found(of_file("seal_forged", &path, "it is of another data directory or shard"));
            } else if previous.is_some() && seal.previous != previous {
                report.found(of_file("seal_missing", &path, "it does not follow the seal before it"));
            } else {
                self.against(shard, &seal, &files, report)?;
            }
            previous = Some((segment, seal.digest));
        }
        for file in files.iter().filter(|file| !sealed.contains(&file.segment)) {
            if chain::should_be_sealed(self, shard, file.segment)? {
                let path = own.place(&super::name(file.segment, file.class));
                report.found(of_file(
                    "seal_missing",
                    &path,
                    "there is no seal of it, and there were seals before it",
                ));
            } else {
                report.unsealed_files += 1;
            }
        }
        self.verify_journal(shard, report)
    }

    /// The files of a seal's segment against it.
    fn against(
        &self,
        shard: u16,
        seal: &Seal,
        files: &BTreeSet<FileId>,
        report: &mut Report,
    ) -> Result<(), Error> {
        let Some(sealed) = &seal.parts else { return Ok(()) };
        let classes: BTreeSet<RetentionClass> = sealed.0.values().map(|part| part.class).collect();
        for class in classes {
            let file = FileId { shard, segment: seal.segment, class };
            let of_class = sealed.0.iter().filter(|(_, part)| part.class == class);
            if !files.contains(&file) {
                report.forgotten += of_class.count() as u64;
                continue;
            }
            let mut found = match self.parts_of(file) {
                Ok(found) => found,
                Err(error) if error.is_unread() => return Err(error),
                Err(error) => {
                    report.found(of_file(
                        error.code(),
                        &self.files(shard).place(&super::name(file.segment, class)),
                        &error.to_string(),
                    ));
                    continue;
                }
            };
            for (run_id, part) in of_class {
                let Some((own, firsts)) = found.remove(run_id) else {
                    report.taken_out.push((*run_id, seal.at));
                    continue;
                };
                let Some(seq) = misfit(part, &own, &firsts) else {
                    report.parts += 1;
                    continue;
                };
                let what = format!(
                    "event {seq} of {run_id} is not the one that was sealed (segment {})",
                    seal.segment
                );
                report.found(Finding { code: "event_changed", run_id: Some(*run_id), seq: Some(seq), what });
            }
            for (run_id, (own, _)) in found {
                let what = format!("{run_id} stands in segment {} and was not sealed there", seal.segment);
                report.found(Finding {
                    code: "event_changed",
                    run_id: Some(run_id),
                    seq: Some(own.first),
                    what,
                });
            }
        }
        Ok(())
    }

    fn parts_of(&self, file: FileId) -> Result<FileParts, Error> {
        let open = HistoryFile::open(self, file)?;
        let open = open.ok_or(Error::Gone { segment: file.segment })?;
        let mut found: BTreeMap<RunId, Found> = BTreeMap::new();
        open.each_frame(&mut |_, payload| {
            for burst in Bursts::new(payload)? {
                let burst = burst?;
                let own = found.entry(burst.head.run_id).or_default();
                own.parts.add(file.segment, file.class, &burst);
                own.firsts.push(burst.head.first_seq);
            }
            Ok(())
        })?;
        let whole = found.into_iter().filter_map(|(run_id, found)| {
            let Found { parts: Parts(mut parts), firsts } = found;
            parts.remove(&run_id).map(|part| (run_id, (part, firsts)))
        });
        Ok(whole.collect())
    }

    /// What is not moved yet has checksums only: that it is whole, and each run without a gap.
    fn verify_journal(&self, shard: u16, report: &mut Report) -> Result<(), Error> {
        let mut last: BTreeMap<RunId, Seq> = BTreeMap::new();
        let mut bursts = 0;
        let read = self.frames(shard).each(&mut |frame, burst| {
            bursts += 1;
            let (run_id, first) = (burst.head.run_id, burst.head.first_seq);
            if let Some(before) = last.insert(run_id, burst.last_seq())
                && before + 1 != first
            {
                let what = format!(
                    "event {first} of {run_id} follows its event {before} (segment {}, offset {})",
                    frame.segment, frame.offset
                );
                report.found(Finding {
                    code: "events_cut",
                    run_id: Some(run_id),
                    seq: Some(before + 1),
                    what,
                });
            }
            Ok(())
        });
        report.journal_bursts += bursts;
        match read {
            Err(error) if error.is_unread() => Err(error),
            Err(error) => {
                report.found(of_file(error.code(), &self.frames(shard).place(None), &error.to_string()));
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }
}

/// Of each run in a file: its part, and the first events of its bursts.
type FileParts = BTreeMap<RunId, (seal::Part, Vec<Seq>)>;

#[cfg(test)]
mod tests;
