//! A record as one file, `docs/formats/bundle.md`: what the journal has of a run, the contents that it names, the document
//! that it began with. Everything that a replay needs, and no secret: the journal has none.
//!
//! A file may come from anybody. Nothing is read of it before its length and checksum are right, no length in it is
//! believed that goes beyond its end, and what it holds is judged by whoever folds it.

use std::collections::BTreeMap;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::{Burst, Documents, Error, Record};
use crate::ir;
use crate::limits;
use crate::model::{Content, ContentHash, EventBody, Kept, RunId, Seq, Value, kept};
use crate::store::record::Bursts;

/// Version of the layout.
pub const BUNDLE_VERSION: u8 = 1;

const MAGIC: &[u8; 4] = b"aobB";
const HEAD_BYTES: usize = 64;
const SUM_BYTES: usize = 32;

/// Bytes by their sha-256.
pub type Parts = BTreeMap<ContentHash, Vec<u8>>;

/// Everything about one run, as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle {
    /// Whose.
    pub run_id: RunId,
    /// Version of the engine's meaning under which it was written.
    pub semantics: u32,
    /// Steps of a slice there.
    pub steps: u32,
    /// Bytes of values after which a slice ends there.
    pub slice_bytes: u64,
    /// Canonical documents by their hash: the one that the run began with.
    pub documents: Parts,
    /// Contents that the events name, by their hash: JSON texts of values.
    pub blobs: Parts,
    /// Its events: a payload of the journal with the bursts of this run only.
    pub events: Vec<u8>,
}

impl Bundle {
    /// Of a run, by this program; empty.
    pub fn new(run_id: RunId) -> Self {
        Self {
            run_id,
            semantics: ir::SEMANTICS_VERSION,
            steps: limits::STEPS_PER_SLICE,
            slice_bytes: limits::SLICE_BYTES_MAX as u64,
            documents: Parts::new(),
            blobs: Parts::new(),
            events: Vec::new(),
        }
    }

    /// Bytes of the file.
    pub fn size(&self) -> usize {
        let parts = self.documents.values().chain(self.blobs.values());
        HEAD_BYTES + parts.map(|part| 36 + part.len()).sum::<usize>() + 8 + self.events.len() + SUM_BYTES
    }

    /// The file.
    ///
    /// # Errors
    /// It would be larger than a file may be.
    pub fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        let size = self.size();
        within(size)?;
        let mut out = Vec::with_capacity(size);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&[BUNDLE_VERSION, 0, 0, 0]);
        out.extend_from_slice(&(size as u64).to_le_bytes());
        out.extend_from_slice(self.run_id.as_bytes());
        out.extend_from_slice(&self.semantics.to_le_bytes());
        out.extend_from_slice(&self.steps.to_le_bytes());
        out.extend_from_slice(&self.slice_bytes.to_le_bytes());
        for parts in [&self.documents, &self.blobs] {
            out.extend_from_slice(&u32::try_from(parts.len()).unwrap_or(u32::MAX).to_le_bytes());
        }
        out.extend_from_slice(&[0; 8]);
        for (sum, part) in self.documents.iter().chain(&self.blobs) {
            out.extend_from_slice(sum);
            out.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_le_bytes());
            out.extend_from_slice(part);
        }
        out.extend_from_slice(&(self.events.len() as u64).to_le_bytes());
        out.extend_from_slice(&self.events);
        out.extend_from_slice(&Sha256::digest(&out));
        Ok(out)
    }

    /// Reads a file.
    ///
    /// # Errors
    /// It is none, is damaged, or larger than it may be.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        within(bytes.len())?;
        let mut rest = Rest(bytes);
        let bad = |why: &str| Error::Bundle(why.to_owned());
        if rest.take(4)? != MAGIC {
            return Err(bad("it does not begin as one"));
        }
        let version = rest.take(4)?;
        if version != [BUNDLE_VERSION, 0, 0, 0] {
            let found = version.first().copied().unwrap_or_default();
            return Err(Error::Bundle(format!(
                "it has version {found}; this program knows {BUNDLE_VERSION}"
            )));
        }
        if rest.number(8)? != bytes.len() as u64 || bytes.len() < HEAD_BYTES + 8 + SUM_BYTES {
            return Err(bad("it is not as long as it says: a part of it is missing"));
        }
        let (whole, sum) = bytes.split_at(bytes.len() - SUM_BYTES);
        if Sha256::digest(whole).as_slice() != sum {
            return Err(bad("its checksum does not fit: it is damaged"));
        }
        let run_id = rest.take(16)?.first_chunk().copied().unwrap_or_default();
        let semantics = rest.small()?;
        let steps = rest.small()?;
        let slice_bytes = rest.number(8)?;
        let (documents, blobs) = (rest.small()?, rest.small()?);
        if rest.take(8)? != [0; 8] {
            return Err(bad("its head has bytes that this program does not know"));
        }
        let documents = rest.parts(documents)?;
        let blobs = rest.parts(blobs)?;
        let length = usize::try_from(rest.number(8)?).unwrap_or(usize::MAX);
        let events = rest.take(length)?.to_vec();
        if rest.0.len() != SUM_BYTES {
            return Err(bad("it has bytes that belong to nothing"));
        }
        let run_id = RunId::from_bytes(run_id);
        Ok(Self { run_id, semantics, steps, slice_bytes, documents, blobs, events })
    }

    /// Its events, with all values in full.
    ///
    /// # Errors
    /// They do not decode, have gaps, are another run's or too many; a content is missing; or the run was decided under
    /// another meaning, or other slices than this program makes.
    pub fn record(&self) -> Result<(Record, Option<Arc<Kept>>), Error> {
        if self.semantics != ir::SEMANTICS_VERSION {
            return Err(Error::Semantics { found: self.semantics });
        }
        if self.slice_bytes != limits::SLICE_BYTES_MAX as u64 || self.steps == 0 {
            let known = limits::SLICE_BYTES_MAX;
            let found = self.slice_bytes;
            return Err(Error::Bundle(format!(
                "it was decided in slices of {found} bytes; this program makes slices of {known}"
            )));
        }
        let bad = |error: crate::store::Error| Error::Bundle(error.to_string());
        let mut record = Record { run_id: self.run_id, bursts: Vec::new(), steps: self.steps };
        let mut table: Option<Arc<Kept>> = None;
        let mut load = |content: &Content| self.blob(&content.sha256);
        let mut next = 1;
        for burst in Bursts::new(&self.events).map_err(bad)? {
            let burst = burst.map_err(bad)?;
            let head = burst.head;
            if head.run_id != self.run_id || head.first_seq != next {
                let found = head.first_seq;
                return Err(Error::Bundle(format!(
                    "event {found} of {} stands where event {next} should",
                    head.run_id
                )));
            }
            next = burst.last_seq().saturating_add(1);
            limit("events of the run", burst.last_seq(), limits::RUN_EVENTS_MAX, "run_events_max")?;
            let events: Vec<_> = burst.hydrated::<Broken>(&mut table, &mut load)?;
            let events: Vec<EventBody> = events.into_iter().map(|event| event.body).collect();
            record.bursts.push(Burst { first_seq: head.first_seq, at: head.at, events });
        }
        Ok((record, table))
    }

    /// Are the events up to this one within so many bytes?
    ///
    /// # Errors
    /// They are not.
    pub fn check_size(&self, seq: Seq, most: usize, name: &'static str) -> Result<(), Error> {
        let bursts = Bursts::new(&self.events).map_err(|error| Error::Bundle(error.to_string()))?;
        let taken = bursts.map_while(Result::ok).take_while(|burst| burst.head.first_seq <= seq);
        let bytes: usize = taken.map(|burst| burst.bytes.len()).sum();
        limit("bytes of the run's events", bytes as u64, most as u64, name)
    }

    /// The graphs of its events.
    ///
    /// # Errors
    /// There is no document, or it does not compile.
    pub fn documents(&self, record: &Record) -> Result<Documents, Error> {
        let wanted = record.document().ok_or(Error::NoEvent { seq: 1, last: 0 })?;
        let found = self.documents.get(&wanted);
        let found = found.ok_or_else(|| Error::Document { seq: 1, why: "it is not in the bundle".into() })?;
        let missing = |why| Error::Document { seq: 1, why };
        let mut documents = Documents::new(found).map_err(missing)?;
        for (hash, canonical) in self.documents.iter().filter(|(hash, _)| **hash != wanted) {
            documents = documents.with_made(*hash, canonical).map_err(missing)?;
        }
        match record.bursts.first().and_then(|burst| burst.events.first()) {
            Some(EventBody::RunStarted(started)) => Ok(documents.named(started)),
            _ => Ok(documents),
        }
    }

    fn blob(&self, sha256: &ContentHash) -> Result<Value, Broken> {
        let found = self.blobs.get(sha256);
        let name = || kept::name(sha256);
        let found = found.ok_or_else(|| Broken(format!("the content {} is not in it", name())))?;
        Value::from_json(found).map_err(|error| Broken(format!("the content {}: {error}", name())))
    }
}

/// What is wrong with a bundle.
#[derive(Debug)]
struct Broken(String);

impl From<crate::store::Error> for Broken {
    fn from(error: crate::store::Error) -> Self {
        Self(error.to_string())
    }
}

impl From<Broken> for Error {
    fn from(broken: Broken) -> Self {
        Self::Bundle(broken.0)
    }
}

fn limit(what: &'static str, value: u64, most: u64, limit: &'static str) -> Result<(), Error> {
    if value > most { Err(Error::Limit { what, value, most, limit }) } else { Ok(()) }
}

fn within(size: usize) -> Result<(), Error> {
    limit("bytes of the bundle", size as u64, limits::BUNDLE_BYTES_MAX as u64, "bundle_bytes_max")
}

/// What has not been read yet.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Error> {
        let taken = self.0.split_at_checked(count);
        let (taken, rest) = taken.ok_or_else(|| Error::Bundle("it ends before its end".into()))?;
        self.0 = rest;
        Ok(taken)
    }

    fn number(&mut self, bytes: usize) -> Result<u64, Error> {
        let taken = self.take(bytes)?;
        Ok(taken.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn small(&mut self) -> Result<u32, Error> {
        Ok(u32::try_from(self.number(4)?).unwrap_or(u32::MAX))
    }

    /// Parts with their hashes.
    fn parts(&mut self, count: u32) -> Result<Parts, Error> {
        let mut parts = Parts::new();
        for _ in 0..count {
            let sum: ContentHash = self.take(32)?.first_chunk().copied().unwrap_or_default();
            let length = self.small()? as usize;
            let part = self.take(length)?;
            if Sha256::digest(part).as_slice() != sum {
                return Err(Error::Bundle("a document or content is not what its hash says".into()));
            }
            parts.insert(sum, part.to_vec());
        }
        Ok(parts)
    }
}
