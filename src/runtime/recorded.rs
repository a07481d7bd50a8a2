//! The record of a run, read from its journal or its history: its bursts as they lie there, and what they name.
//!
//! Blocking. Memory: the bytes that the caller allows, and the contents that they name.

use std::collections::BTreeSet;

use crate::api::Catalog;
use crate::api::ports::{Location, StorageError};
use crate::cas::Blobs;
use crate::limits;
use crate::model::event::{DocumentHash, Forked};
use crate::model::patch;
use crate::model::{ContentHash, Event, EventBody, RetentionClass, Seq, kept};
use crate::replay::Bundle;
use crate::store::Error;
use crate::store::history::{History, Query};
use crate::store::record::VERSION;

fn failed(error: &impl std::fmt::Display) -> StorageError {
    StorageError(error.to_string())
}

/// Events of a run, and the names of what belongs to them.
pub(super) struct Read {
    bundle: Bundle,
    document: Option<DocumentHash>,
    /// Documents that stand for the operations that made them.
    made: BTreeSet<DocumentHash>,
    contents: BTreeSet<ContentHash>,
}

/// Reads the bursts of a run up to the one with event `upto`; `None` when they have more than `most` bytes.
pub(super) fn bundle(
    (history, class): (&History, Option<RetentionClass>),
    location: &Location,
    (upto, most): (Seq, usize),
) -> Result<Option<Read>, StorageError> {
    let Location { summary, shard, frames, .. } = location;
    let bundle = Bundle::new(summary.run_id);
    let mut read = Read { bundle, document: None, made: BTreeSet::new(), contents: BTreeSet::new() };
    let query = Query { run_id: summary.run_id, shard: *shard, frames, class, after: 0, limit: usize::MAX };
    let mut fits = true;
    read.bundle.events.push(VERSION);
    history
        .bursts(&query, &mut |burst| {
            if burst.head.first_seq > upto {
                return Ok(false);
            }
            read.bundle.events.extend_from_slice(burst.bytes);
            fits = read.bundle.events.len() <= most;
            let (events, contents) = kept::noting(|| burst.events().collect::<Result<Vec<Event>, Error>>());
            let events = events?;
            if let Some(EventBody::RunStarted(started)) = events.first().map(|event| &event.body) {
                read.document = Some(started.document);
            }
            read.made.extend(patch::unkept(&events));
            read.contents.extend(contents.iter().map(|content| content.sha256));
            Ok(fits)
        })
        .map_err(|error| failed(&error))?;
    Ok(fits.then_some(read))
}

impl Read {
    /// With what its events name.
    pub(super) fn with(mut self, catalog: &Catalog, blobs: &dyn Blobs) -> Result<Bundle, StorageError> {
        if let Some(document) = self.document {
            let entry = catalog.load_hash(&document).map_err(|error| failed(&error))?;
            let entry = entry.ok_or_else(|| StorageError("the document of the run is missing".into()))?;
            self.bundle.documents.insert(document, entry.compiled.canonical.as_bytes().to_vec());
        }
        for document in self.made {
            let bytes = blobs.get(&document).map_err(|error| failed(&error))?;
            let name = kept::name(&document);
            let bytes = bytes.ok_or_else(|| StorageError(format!("the document {name} is gone")))?;
            self.bundle.documents.insert(document, bytes);
        }
        for sha256 in self.contents {
            let bytes = blobs.get(&sha256).map_err(|error| failed(&error))?;
            let name = kept::name(&sha256);
            let bytes = bytes.ok_or_else(|| StorageError(format!("the content {name} is gone")))?;
            self.bundle.blobs.insert(sha256, bytes);
            if self.bundle.size() > limits::BUNDLE_BYTES_MAX {
                break;
            }
        }
        Ok(self.bundle)
    }
}

/// The event that says where the run was forked from, with the inputs that hold from then on. It begins a burst of the run's
/// first frame, and so do those of the forks that it goes on from.
pub(super) fn forked(
    (history, class): (&History, Option<RetentionClass>),
    location: &Location,
) -> Result<Option<Box<Forked>>, StorageError> {
    let Location { summary, shard, frames, .. } = location;
    let first = frames.get(..1).unwrap_or_default();
    let query =
        Query { run_id: summary.run_id, shard: *shard, frames: first, class, after: 0, limit: usize::MAX };
    let mut found: Option<Box<Forked>> = None;
    history
        .bursts(&query, &mut |burst| {
            if let Some(Event { body: EventBody::RunForked(mut forked), .. }) =
                burst.shown().next().transpose()?
            {
                let given = found.take().and_then(|before| before.inputs);
                forked.inputs = forked.inputs.or(given);
                found = Some(forked);
            }
            Ok(true)
        })
        .map_err(|error| failed(&error))?;
    Ok(found)
}
