//! The log as it is read: pages of it, and whether it is what was written.

use std::fs;
use std::path::Path;

use serde::Deserialize;

use super::line::{self, Digest, Record, Signed};
use super::log::{ANCHOR, DIRECTORY, path};
use crate::limits;
use crate::store::signing::{PublicKey, from_hex, hex};

/// A page of the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Each with the chain's hash up to it.
    pub records: Vec<(String, Record)>,
    /// Where to go on (`after`), when there is more to look at.
    pub next: Option<u64>,
}

/// The whole log, looked over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogReport {
    /// Number of the first record that is kept.
    pub first: u64,
    /// Number of the last.
    pub last: u64,
    /// The chain's hash up to it.
    pub head: String,
    /// Sound signatures met.
    pub checkpoints: u64,
    /// Files whose records were set aside at a start.
    pub set_aside: Vec<String>,
    /// What does not fit, in words. After the first in a file the rest of that file says nothing.
    pub findings: Vec<String>,
}

/// Where the log begins, when it does not begin with its first record.
pub(super) struct Anchor {
    pub(super) first: u64,
    pub(super) before: Digest,
    signed: Signed,
}

#[derive(Deserialize)]
struct AnchorFile {
    first: u64,
    before: String,
    signed: Signed,
}

/// First records of the files, in order.
pub(super) fn files(root: &Path) -> std::io::Result<Vec<u64>> {
    let mut found = Vec::new();
    let entries = match fs::read_dir(root.join(DIRECTORY)) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(found),
        entries => entries?,
    };
    for entry in entries {
        let name = entry?.file_name();
        let digits = name.to_str().and_then(|name| name.strip_suffix(".log"));
        found
            .extend(digits.filter(|digits| digits.len() == 16).and_then(|d| u64::from_str_radix(d, 16).ok()));
    }
    found.sort_unstable();
    Ok(found)
}

pub(super) fn anchor(root: &Path) -> Option<Anchor> {
    let text = fs::read(root.join(DIRECTORY).join(ANCHOR)).ok()?;
    let AnchorFile { first, before, signed } = serde_json::from_slice(&text).ok()?;
    Some(Anchor { first, before: from_hex(&before)?, signed })
}

/// The hash on the last whole line.
pub(super) fn last_hash(bytes: &[u8]) -> Option<Digest> {
    let lines = bytes.strip_suffix(b"\n")?;
    let from = lines.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    line::parse(lines.get(from..)?).map(|(hash, _)| hash)
}

/// Whole lines: what a crash left of a last one is none.
fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    bytes
        .get(..whole)
        .unwrap_or_default()
        .split_inclusive(|byte| *byte == b'\n')
        .map(|line| line.strip_suffix(b"\n").unwrap_or(line))
}

/// Records after `after` that fit, at most `limit`, looking at [`limits::AUDIT_SCAN_RECORDS_MAX`] at most.
pub(super) fn page(
    root: &Path,
    (after, limit): (u64, usize),
    fits: &mut dyn FnMut(&Record) -> bool,
) -> std::io::Result<Page> {
    let files = files(root)?;
    let from = files.iter().rposition(|first| *first <= after.saturating_add(1)).unwrap_or(0);
    let (mut page, mut looked_at) = (Page::default(), 0);
    for first in files.get(from..).unwrap_or_default() {
        let bytes = match fs::read(path(root, *first)) {
            // It went meanwhile.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            bytes => bytes?,
        };
        for line in lines(&bytes) {
            let Some((hash, record)) = line::parse(line) else { continue };
            if record.seq <= after {
                continue;
            }
            if page.records.len() >= limit || looked_at >= limits::AUDIT_SCAN_RECORDS_MAX {
                page.next = Some(record.seq - 1);
                return Ok(page);
            }
            looked_at += 1;
            if fits(&record) {
                page.records.push((hex(&hash), record));
            }
        }
    }
    Ok(page)
}

/// Recomputes the whole chain; with a key, signatures must be its.
pub(super) fn verify(
    root: &Path,
    cluster: [u8; 16],
    key: Option<&PublicKey>,
    seen: &mut dyn FnMut(&Record),
) -> std::io::Result<LogReport> {
    let mut report = LogReport::default();
    let (mut next, mut head) = (1, line::genesis(cluster));
    if root.join(DIRECTORY).join(ANCHOR).exists() {
        match anchor(root) {
            Some(anchor)
                if anchor.signed.is_over(&line::anchor_message(anchor.first, &anchor.before), key) =>
            {
                (next, head) = (anchor.first, anchor.before);
            }
            _ => report.findings.push("the anchor is not one that the node's key has signed".into()),
        }
    }
    let files = files(root)?;
    // The file before the anchor is removed after the anchor is written: a crash in between leaves it.
    let files: Vec<u64> = files.into_iter().filter(|first| *first >= next).collect();
    report.first = next;
    for first in files {
        if first != next {
            report.findings.push(format!("records {next} to {} are missing", first.saturating_sub(1)));
            next = first;
        }
        let bytes = fs::read(path(root, first))?;
        for line in lines(&bytes) {
            match line::check(line, &head, next) {
                Ok((hash, record)) => {
                    let message = line::checkpoint_message(record.seq, &head);
                    match &record.signed {
                        Some(signed) if signed.is_over(&message, key) => report.checkpoints += 1,
                        Some(_) => {
                            report
                                .findings
                                .push(format!("checkpoint {next} is not signed by the node's key"));
                        }
                        None => {}
                    }
                    seen(&record);
                    (head, next) = (hash, next + 1);
                }
                Err(why) => {
                    let name = path(root, first);
                    report.findings.push(format!("{}: {why}", name.display()));
                    // The next file goes on from what its first line says.
                    let last = bytes.split(|byte| *byte == b'\n').rfind(|line| !line.is_empty());
                    let last = last.and_then(line::parse);
                    next = last.as_ref().map_or(next, |(_, record)| record.seq + 1);
                    head = last.map_or(head, |(hash, _)| hash);
                    break;
                }
            }
        }
    }
    (report.last, report.head) = (next - 1, hex(&head));
    for entry in fs::read_dir(root.join(DIRECTORY)).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(".aside") {
            report.set_aside.push(name);
        }
    }
    Ok(report)
}
