//! The chain of hashes over a run's events, and whether they are what the seals of their segments say (docs/adr/0025).
//!
//! `h(0) = sha256("aob chain v1" || run id)`, `h(n) = sha256(h(n-1) || n || time || bytes)`, the bytes as they are stored. It is
//! computed when it is asked for: nothing of it is on the path of a run. Blocking; one frame in memory, and a few bytes for each
//! burst.

use std::time::Duration;

use sha2::{Digest as _, Sha256};

use super::seal::{self, Digest, Part, Parts, Seal};
use super::{History, Query};
use crate::model::{FrameRef, RetentionClass, RunId, Seq};
use crate::store::Error;
use crate::store::record::Burst;
use crate::store::signing::PublicKey;
use crate::time::Timestamp;

/// What the first link is made of, with the run's id.
pub const DOMAIN: &[u8] = b"aob chain v1";

/// The chain before the first event.
pub fn genesis(run_id: RunId) -> Digest {
    Sha256::new().chain_update(DOMAIN).chain_update(run_id.as_bytes()).finalize().into()
}

/// The chain with one more event.
pub fn link(before: &Digest, (seq, at): (Seq, Timestamp), bytes: &[u8]) -> Digest {
    let begun = Sha256::new().chain_update(before).chain_update(seq.to_le_bytes());
    begun.chain_update(at.as_micros().to_le_bytes()).chain_update(bytes).finalize().into()
}

/// Something that does not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Stable name of what is wrong.
    pub code: &'static str,
    /// Whose, when it is a run's.
    pub run_id: Option<RunId>,
    /// The first event that does not fit, when it is known.
    pub seq: Option<Seq>,
    /// In words, with the place.
    pub what: String,
}

/// One link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Number of the event.
    pub seq: Seq,
    /// When it was decided.
    pub at: Timestamp,
    /// The chain up to it.
    pub hash: Digest,
}

/// A part of a run that a seal speaks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SealedPart {
    /// The segment.
    pub segment: u64,
    /// Its first event there.
    pub first: Seq,
    /// Its last event there.
    pub last: Seq,
    /// When it was sealed.
    pub at: Timestamp,
    /// By which key.
    pub key: PublicKey,
}

/// A run, looked over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunAudit {
    /// Events that are there.
    pub events: u64,
    /// The chain up to the last of them.
    pub head: Digest,
    /// The links that were asked for.
    pub links: Vec<Link>,
    /// Parts that are sealed, and are what their seal says.
    pub sealed: Vec<SealedPart>,
    /// The first thing that does not fit.
    pub finding: Option<Finding>,
}

/// Bursts of one run in one segment, as they were found.
#[derive(Clone, Debug, Default)]
pub(super) struct Bursts {
    pub(super) parts: Parts,
    /// First event of each.
    pub(super) firsts: Vec<Seq>,
}

/// The first event that is not what the seal says.
pub(super) fn misfit(sealed: &Part, found: &Part, firsts: &[Seq]) -> Option<Seq> {
    let same = (sealed.digest, sealed.first, sealed.last) == (found.digest, found.first, found.last);
    if same && sealed.tags == found.tags {
        return None;
    }
    let differs = sealed.tags.iter().zip(&found.tags).position(|(sealed, found)| sealed != found);
    match differs {
        Some(at) => firsts.get(at).copied(),
        // All that both have fits: one of them goes on.
        None if found.tags.len() > sealed.tags.len() => firsts.get(sealed.tags.len()).copied(),
        None if found.tags.len() < sealed.tags.len() => Some(found.last + 1),
        None => Some(found.first),
    }
}

/// What a seal that cannot be trusted is told as.
pub(super) fn distrusted(seal: &Seal, key: Option<&PublicKey>) -> Option<(&'static str, &'static str)> {
    if !seal.signed {
        return Some(("seal_forged", "its signature is not that of its key"));
    }
    if key.is_some_and(|key| *key != seal.key) {
        return Some(("seal_forged", "it was signed with another key"));
    }
    (!seal.whole).then_some(("seal_broken", "its body is not the one that was signed"))
}

impl History {
    /// Looks a run over: all that the query's frames hold of it, and the links after `query.after`, at most `query.limit`. It should
    /// have events up to `last`. With a key, seals must bear its signature.
    ///
    /// # Errors
    /// The operating system's. Damage is a finding.
    pub fn audit(&self, query: &Query<'_>, last: Seq, key: Option<&PublicKey>) -> Result<RunAudit, Error> {
        let run_id = query.run_id;
        let mut audit = RunAudit {
            events: 0,
            head: genesis(run_id),
            links: Vec::new(),
            sealed: Vec::new(),
            finding: None,
        };
        let mut open: Option<(u64, Bursts)> = None;
        let mut parts = Vec::new();
        let read = self.each_of_run(query, &mut |frame, burst| {
            if open.as_ref().is_none_or(|(segment, _)| *segment != frame.segment) {
                parts.extend(open.take());
            }
            let (_, bursts) = open.get_or_insert_with(|| (frame.segment, Bursts::default()));
            bursts.firsts.push(burst.head.first_seq);
            // The class is not looked at here: it decides which file, not what is in it.
            bursts.parts.add(frame.segment, RetentionClass::of(Duration::ZERO), burst);
            extend(&mut audit, query, burst)?;
            Ok(true)
        });
        parts.extend(open);
        for (segment, bursts) in &parts {
            if audit.finding.is_none() {
                self.against_seal(query, (*segment, bursts), key, &mut audit)?;
            }
        }
        let next = audit.events + 1;
        let missing = |code, what| Finding { code, run_id: Some(run_id), seq: Some(next), what };
        match read {
            Ok(()) if audit.events < last => {
                let what = format!("events {next} to {last} of {run_id} are missing");
                audit.finding.get_or_insert(missing("events_cut", what));
            }
            Ok(()) => {}
            Err(error) if error.is_unread() => return Err(error),
            Err(error) => {
                audit.finding.get_or_insert(missing(error.code(), error.to_string()));
            }
        }
        Ok(audit)
    }

    /// Is this part what its seal says?
    fn against_seal(
        &self,
        query: &Query<'_>,
        (segment, bursts): (u64, &Bursts),
        key: Option<&PublicKey>,
        audit: &mut RunAudit,
    ) -> Result<(), Error> {
        let files = self.files(query.shard);
        let run_id = query.run_id;
        let Some(found) = bursts.parts.0.get(&run_id) else { return Ok(()) };
        let mut finding = |code, seq, what: String| {
            audit.finding = Some(Finding { code, run_id: Some(run_id), seq: Some(seq), what });
        };
        let seal = match seal::read(&*files, segment) {
            Ok(Some(seal)) => seal,
            Ok(None) => {
                if should_be_sealed(self, query.shard, segment)? {
                    let what =
                        format!("there is no seal of segment {segment}, and there were seals before it");
                    finding("seal_missing", found.first, what);
                }
                return Ok(());
            }
            Err(error @ Error::HistoryCorrupt { .. }) => {
                finding("seal_broken", found.first, error.to_string());
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let file = files.place(&seal::name(segment));
        if let Some((code, why)) = distrusted(&seal, key) {
            finding(code, found.first, format!("{}: {why}", file.display()));
            return Ok(());
        }
        let sealed = seal.parts.as_ref().and_then(|parts| parts.0.get(&run_id));
        let Some(sealed) = sealed else {
            let what = format!("{} does not know of {run_id}", file.display());
            finding("event_changed", found.first, what);
            return Ok(());
        };
        if let Some(seq) = misfit(sealed, found, &bursts.firsts) {
            let what = format!("event {seq} of {run_id} is not the one that was sealed ({})", file.display());
            finding("event_changed", seq, what);
            return Ok(());
        }
        let (first, last) = (found.first, found.last);
        audit.sealed.push(SealedPart { segment, first, last, at: seal.at, key: seal.key });
        Ok(())
    }
}

fn extend(audit: &mut RunAudit, query: &Query<'_>, burst: &Burst<'_>) -> Result<(), Error> {
    let at = burst.head.at;
    for (seq, bytes) in burst.encoded()? {
        audit.head = link(&audit.head, (seq, at), bytes);
        audit.events += 1;
        if seq > query.after && audit.links.len() < query.limit {
            audit.links.push(Link { seq, at, hash: audit.head });
        }
    }
    Ok(())
}

/// What was moved after the first seal that there was, was sealed.
pub(super) fn should_be_sealed(history: &History, shard: u16, segment: u64) -> Result<bool, Error> {
    let files = history.files(shard);
    let in_journal = history.frames(shard).has(segment)?;
    let Some(first) = seal::list(&*files)?.first().copied().filter(|_| !in_journal) else { return Ok(false) };
    if first < segment {
        return Ok(true);
    }
    // The oldest seals go with what they spoke for, not before it.
    let before = seal::read(&*files, first).ok().flatten().and_then(|seal| seal.previous);
    Ok(before.is_some_and(|(before, _)| before >= segment))
}

/// Frames of a run in a shard, from files and journal alone: for when there is no index to ask.
///
/// # Errors
/// The operating system's, or damage.
pub fn frames_of(history: &History, shard: u16, run_id: RunId) -> Result<(Vec<FrameRef>, Seq), Error> {
    let (mut frames, mut last) = (Vec::new(), 0);
    history.each_kept(shard, &mut |frame, burst| {
        if burst.head.run_id == run_id {
            if frames.last() != Some(&frame) {
                frames.push(frame);
            }
            last = Ord::max(last, burst.last_seq());
        }
        Ok(())
    })?;
    Ok((frames, last))
}

#[cfg(test)]
mod tests;
