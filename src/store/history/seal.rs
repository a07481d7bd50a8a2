//! Seals of history: what was moved from a segment, by hashes, signed and chained (`docs/formats/audit.md`, docs/adr/0025).
//!
//! A seal is written as a segment is moved, over the very bytes that go into history files: for each run a digest over its
//! bursts, and a tag for each burst, by which the first one that does not fit is found. Its head names the seal before it. What
//! is forgotten later is seen from which files are left; the seal of a segment whose files are all gone is cut to its head, so
//! that the chain of heads stays whole. Above [`limits::SEALS_PER_SHARD_MAX`] the oldest cut ones go.

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};

use super::parse_name;
use crate::limits;
use crate::model::{RetentionClass, RunId, Seq};
use crate::store::Error;
use crate::store::files::{self, Files};
use crate::store::log::frame::Identity;
use crate::store::record::Burst;
use crate::store::signing::{PublicKey, Signature, SigningKey, is_signed};
use crate::time::Timestamp;

/// First bytes of a seal.
pub const MAGIC: [u8; 4] = *b"aobS";
/// Version of the format.
pub const VERSION: u8 = 1;
/// Bytes of a head: what is signed, and the signature.
pub const HEAD_BYTES: usize = SIGNED_BYTES + 64;
const SIGNED_BYTES: usize = 152;
/// Bytes of a run in the body, its tags aside.
const ENTRY_BYTES: usize = 16 + 1 + 8 + 8 + 4 + 32;
const DOMAIN: &[u8] = b"aob seal v1";
/// `previous_segment` of the first seal.
const NONE: u64 = u64::MAX;

/// A SHA-256.
pub type Digest = [u8; 32];

/// What a segment holds of one run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The class it is kept by.
    pub class: RetentionClass,
    /// Number of the first event.
    pub first: Seq,
    /// Number of the last.
    pub last: Seq,
    /// Over all its bursts, in order.
    pub digest: Digest,
    /// First bytes of the digest after each burst.
    pub tags: Vec<[u8; 4]>,
}

/// What a segment holds, by runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parts(pub BTreeMap<RunId, Part>);

impl Parts {
    /// Adds the next burst of a run in `segment`.
    pub fn add(&mut self, segment: u64, class: RetentionClass, burst: &Burst<'_>) {
        let run_id = burst.head.run_id;
        let part = self.0.entry(run_id).or_insert_with(|| {
            let begun = Sha256::new().chain_update(DOMAIN).chain_update(run_id.as_bytes());
            let digest = begun.chain_update(segment.to_le_bytes()).finalize().into();
            Part { class, first: burst.head.first_seq, last: 0, digest, tags: Vec::new() }
        });
        part.digest = Sha256::new().chain_update(part.digest).chain_update(burst.bytes).finalize().into();
        part.last = burst.last_seq();
        part.tags.extend(part.digest.first_chunk::<4>());
    }

    fn encode(&self) -> Vec<u8> {
        let tags: usize = self.0.values().map(|part| 4 * part.tags.len()).sum();
        let mut out = Vec::with_capacity(self.0.len() * ENTRY_BYTES + tags);
        for (run_id, part) in &self.0 {
            out.extend_from_slice(run_id.as_bytes());
            out.push(part.class.into());
            out.extend_from_slice(&part.first.to_le_bytes());
            out.extend_from_slice(&part.last.to_le_bytes());
            out.extend_from_slice(&u32::try_from(part.tags.len()).unwrap_or(u32::MAX).to_le_bytes());
            out.extend_from_slice(&part.digest);
            out.extend(part.tags.iter().flatten());
        }
        out
    }

    fn decode(bytes: &[u8], runs: u32) -> Option<Self> {
        let (mut parts, mut rest) = (BTreeMap::new(), bytes);
        for _ in 0..runs {
            let run_id = RunId::from_bytes(take(&mut rest)?);
            let [class] = take(&mut rest)?;
            let (first, last) = (number(&mut rest)?, number(&mut rest)?);
            let count = usize::try_from(u32::from_le_bytes(take(&mut rest)?)).ok()?;
            let digest = take(&mut rest)?;
            let tags = rest.get(..count.checked_mul(4)?)?;
            rest = rest.get(tags.len()..)?;
            let tags = tags.chunks_exact(4).filter_map(|tag| tag.first_chunk().copied()).collect();
            let class = RetentionClass::try_from(class).ok()?;
            parts.insert(run_id, Part { class, first, last, digest, tags });
        }
        (rest.is_empty() && parts.len() == runs as usize).then_some(Self(parts))
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, behind) = rest.split_first_chunk::<N>()?;
    *rest = behind;
    Some(*taken)
}

fn number(rest: &mut &[u8]) -> Option<u64> {
    take(rest).map(u64::from_le_bytes)
}

/// A seal as it was read. Nothing of it has been judged but its form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seal {
    /// Of which data directory and shard.
    pub identity: Identity,
    /// Of which segment.
    pub segment: u64,
    /// When it was moved.
    pub at: Timestamp,
    /// The seal before it: segment, and hash of its head.
    pub previous: Option<(u64, Digest)>,
    /// Whose signature it bears.
    pub key: PublicKey,
    /// What was moved; `None` once all of it has been forgotten.
    pub parts: Option<Parts>,
    /// Hash of its head: what the next one names.
    pub digest: Digest,
    /// The signature is that key's.
    pub signed: bool,
    /// The body is the one that the head names.
    pub whole: bool,
}

/// The name of a segment's seal.
pub fn name(segment: u64) -> String {
    format!("{segment:016x}.seal")
}

/// Segments with a seal among a shard's history files, in order.
///
/// # Errors
/// The store's.
pub fn list(files: &dyn Files) -> Result<Vec<u64>, Error> {
    let names = files.list()?;
    let digits = names.iter().filter_map(|(name, _)| name.strip_suffix(".seal"));
    let digits = digits.filter(|digits| digits.len() == 16);
    let mut found: Vec<u64> = digits.filter_map(|digits| u64::from_str_radix(digits, 16).ok()).collect();
    found.sort_unstable();
    Ok(found)
}

/// Writes the seal of a segment that is being moved; durable on return. Nothing is written for a segment that held nothing. Made
/// again, it takes the place of the one before.
///
/// # Errors
/// The store's; `HistoryCorrupt` when the seal before it cannot be read.
pub fn write(
    files: &dyn Files,
    (identity, segment): (Identity, u64),
    parts: &Parts,
    (now, key): (Timestamp, &SigningKey),
) -> Result<(), Error> {
    if parts.0.is_empty() {
        return Ok(());
    }
    let before = list(files)?.into_iter().rfind(|other| *other < segment);
    let previous = before.map(|before| read(files, before)).transpose()?.flatten();
    let body = parts.encode();
    let mut bytes = Vec::with_capacity(HEAD_BYTES + body.len());
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&[VERSION, 0]);
    bytes.extend_from_slice(&identity.shard.to_le_bytes());
    bytes.extend_from_slice(&identity.cluster);
    bytes.extend_from_slice(&segment.to_le_bytes());
    bytes.extend_from_slice(&now.as_micros().to_le_bytes());
    bytes.extend_from_slice(&previous.as_ref().map_or(NONE, |seal| seal.segment).to_le_bytes());
    bytes.extend_from_slice(&previous.map_or([0; 32], |seal| seal.digest));
    bytes.extend_from_slice(&u32::try_from(parts.0.len()).unwrap_or(u32::MAX).to_le_bytes());
    bytes.extend_from_slice(&u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes());
    bytes.extend_from_slice(&Sha256::digest(&body));
    bytes.extend_from_slice(&key.public());
    bytes.extend_from_slice(&key.sign(&bytes));
    bytes.extend_from_slice(&body);
    files::write(files, &name(segment), &bytes)
}

/// The seal of a segment; `None` when there is none.
///
/// # Errors
/// The store's; `HistoryCorrupt` when it is no seal.
pub fn read(files: &dyn Files, segment: u64) -> Result<Option<Seal>, Error> {
    let name = name(segment);
    let Some(bytes) = files::read(files, &name)? else { return Ok(None) };
    let seal = decode(&bytes).filter(|seal| seal.segment == segment);
    let why = String::from("it is no seal of this segment");
    seal.map(Some).ok_or(Error::HistoryCorrupt { file: files.place(&name), offset: 0, why })
}

fn decode(bytes: &[u8]) -> Option<Seal> {
    let (head, body) = bytes.split_first_chunk::<HEAD_BYTES>()?;
    let (signed, signature) = head.split_first_chunk::<SIGNED_BYTES>()?;
    let signature: Signature = signature.try_into().ok()?;
    let mut rest = &signed[..];
    if take::<4>(&mut rest)? != MAGIC || take::<2>(&mut rest)? != [VERSION, 0] {
        return None;
    }
    let shard = u16::from_le_bytes(take(&mut rest)?);
    let identity = Identity { cluster: take(&mut rest)?, shard };
    let (segment, at) = (number(&mut rest)?, Timestamp::from_micros(number(&mut rest)?));
    let previous = (number(&mut rest)?, take(&mut rest)?);
    let runs = u32::from_le_bytes(take(&mut rest)?);
    let length = u32::from_le_bytes(take(&mut rest)?) as usize;
    let (body_digest, key): (Digest, PublicKey) = (take(&mut rest)?, take(&mut rest)?);
    let is_cut = body.is_empty();
    let whole = is_cut || (body.len() == length && Digest::from(Sha256::digest(body)) == body_digest);
    let parts = if is_cut { None } else { Parts::decode(body, runs) };
    Some(Seal {
        identity,
        segment,
        at,
        previous: (previous.0 != NONE).then_some(previous),
        key,
        whole: whole && (is_cut || parts.is_some()),
        parts,
        digest: Sha256::digest(head).into(),
        signed: is_signed(&key, signed, &signature),
    })
}

/// A file of this segment is gone: when it was the last one, its seal is cut to its head, and what is too old goes.
///
/// # Errors
/// The store's.
pub fn file_gone(files: &dyn Files, segment: u64) -> Result<(), Error> {
    let mut names = files.list()?.into_iter();
    if names.any(|(name, _)| parse_name(&name).is_some_and(|(other, _)| other == segment)) {
        return Ok(());
    }
    let of_segment = name(segment);
    match files::read(files, &of_segment)? {
        Some(bytes) if bytes.len() > HEAD_BYTES => {
            files::write(files, &of_segment, bytes.get(..HEAD_BYTES).unwrap_or_default())?;
        }
        _ => {}
    }
    let seals = list(files)?;
    for old in seals.iter().take(seals.len().saturating_sub(limits::SEALS_PER_SHARD_MAX)) {
        let old = name(*old);
        // The first one with a body ends it: those behind it are needed to get to it.
        if files.open(&old)?.is_some_and(|opened| opened.length() > HEAD_BYTES as u64) {
            break;
        }
        files.remove(&old)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
