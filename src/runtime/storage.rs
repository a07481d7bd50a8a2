//! The stores as the API and the fanout plane ask for them: small blocking ports over the embedded index and journals.

use std::sync::Arc;

use super::patched::Layers;
use super::recorded;
use super::refold;
use crate::api::Catalog;
use crate::api::ports::{
    Amendment, Ending, Location, Notes, Outcome, Overlay, Registration, Runs, StorageError, Tags, Workflows,
};
use crate::cas::Blobs;
use crate::engine::command::{ListQuery, Located, Stretch};
use crate::fanout::source::{self, Source, SourceError};
use crate::ir::Ir;
use crate::limits;
use crate::model::event::{DocumentHash, Forked, Idempotency};
use crate::model::usage::DayUsage;
use crate::model::{
    Event, EventBody, FrameRef, Kept, RetentionClass, RunFilter, RunId, RunSummary, Seq, Value, Workspace,
    kept,
};
use crate::replay::Bundle;
use crate::store::archive::{ArchiveQuery, ArchiveRow, KeyAnswer};
use crate::store::history::{History, Query, RunAudit};
use crate::store::signing::PublicKey;
use crate::store::{Archive, Error, Registry};
use crate::time::{Clock as _, SystemClock};

/// Events read at a time.
const EVENTS_AT_ONCE: usize = 1_000;
/// Rows of finished runs that are counted at a time.
const ENDINGS_AT_ONCE: usize = 4_096;
/// Rows of the index looked at for one page of a listing that filters.
const LIST_SCAN_MAX: usize = 100_000;

fn failed(error: &Error) -> StorageError {
    StorageError(error.to_string())
}

/// Registered workflows, and the store with the documents that runs in fast mode were patched to.
pub(crate) struct StoredWorkflows(pub(crate) Arc<dyn Registry>, pub(crate) Arc<dyn Blobs>);

impl StoredWorkflows {
    fn whole(&self, found: crate::store::archive::Registration) -> Result<Registration, StorageError> {
        let canonical = self.0.by_hash(&found.hash).map_err(|error| failed(&error))?.ok_or_else(|| {
            StorageError(format!(
                "the document of {}@{} is missing in the registry",
                found.name, found.version
            ))
        })?;
        Ok(Registration {
            name: found.name.to_string(),
            version: found.version.to_string(),
            hash: found.hash,
            canonical,
        })
    }
}

impl Workflows for StoredWorkflows {
    fn register(
        &self,
        name: &str,
        version: Option<&str>,
        canonical: &[u8],
        hash: &DocumentHash,
    ) -> Result<Outcome, StorageError> {
        match self.0.register(name, version, canonical, *hash) {
            Ok(done) => Ok(Outcome::Registered { version: done.version.to_string(), created: done.created }),
            Err(Error::Conflict { .. }) => {
                let existing = self.0.get(name, version).map_err(|error| failed(&error))?;
                Ok(Outcome::Conflict { existing: existing.map_or([0; 32], |found| found.hash) })
            }
            Err(error) => Err(failed(&error)),
        }
    }

    fn get(&self, name: &str, version: Option<&str>) -> Result<Option<Registration>, StorageError> {
        let found = self.0.get(name, version).map_err(|error| failed(&error))?;
        found.map(|found| self.whole(found)).transpose()
    }

    fn amend(&self, name: &str, amendment: &Amendment<'_>) -> Result<(), StorageError> {
        self.0.amend(name, amendment).map_err(|error| failed(&error))
    }

    fn notes(&self, name: &str, prefix: &[u8]) -> Result<Notes, StorageError> {
        self.0.notes(name, prefix).map_err(|error| failed(&error))
    }

    fn tags(&self, name: &str) -> Result<Tags, StorageError> {
        self.0.tags(name).map_err(|error| failed(&error))
    }

    fn keep(&self, name: &str, canonical: &[u8], hash: &DocumentHash) -> Result<(), StorageError> {
        self.0.keep(name, canonical, hash).map_err(|error| failed(&error))
    }

    fn by_hash(&self, hash: &DocumentHash) -> Result<Option<Registration>, StorageError> {
        let canonical = self.0.by_hash(hash).map_err(|error| failed(&error))?;
        // Several names may share a document; a run knows its own name, so none is needed here.
        Ok(canonical.map(|canonical| Registration {
            name: String::new(),
            version: String::new(),
            hash: *hash,
            canonical,
        }))
    }

    fn patched(&self, hash: &DocumentHash) -> Result<Option<Vec<u8>>, StorageError> {
        self.1.get(hash).map_err(|error| StorageError(error.to_string()))
    }

    fn list(&self, after: Option<(&str, &str)>, limit: usize) -> Result<Vec<Registration>, StorageError> {
        let found = self.0.list(after, limit).map_err(|error| failed(&error))?;
        let listed = found.into_iter().map(|found| Registration {
            name: found.name.to_string(),
            version: found.version.to_string(),
            hash: found.hash,
            canonical: Vec::new(),
        });
        Ok(listed.collect())
    }
}

/// Finished runs, and the events of all.
pub(crate) struct StoredRuns {
    catalog: Arc<Catalog>,
    archive: Arc<dyn Archive>,
    history: History,
    blobs: Arc<dyn Blobs>,
    /// Whose signature seals must bear.
    key: Option<PublicKey>,
}

impl StoredRuns {
    pub(crate) fn new(
        catalog: &Arc<Catalog>,
        archive: Arc<dyn Archive>,
        (history, key): (History, Option<PublicKey>),
        blobs: Arc<dyn Blobs>,
    ) -> Arc<Self> {
        Arc::new(Self { catalog: catalog.clone(), archive, history, blobs, key })
    }

    fn row(&self, run_id: RunId) -> Result<Option<ArchiveRow>, StorageError> {
        self.archive.get(run_id).map_err(|error| failed(&error))
    }

    fn read(
        &self,
        run_id: RunId,
        (shard, frames): (u16, &[FrameRef]),
        after: Seq,
        limit: usize,
    ) -> Result<Vec<Event>, StorageError> {
        let query = Query { run_id, shard, frames, class: self.class(run_id), after, limit };
        kept::showing(|| self.history.events(&query)).map_err(|error| failed(&error))
    }

    /// The same with all values in full.
    fn read_in_full(&self, query: &Query<'_>) -> Result<Vec<Event>, StorageError> {
        let (events, contents) = kept::noting(|| self.history.events(query));
        if contents.is_empty() {
            return events.map_err(|error| failed(&error));
        }
        let mut table = Kept::default();
        for content in contents {
            let bytes = self.blobs.get(&content.sha256).map_err(|error| StorageError(error.to_string()))?;
            let bytes = bytes.ok_or_else(|| StorageError(format!("the content {content} is gone")))?;
            let value = Value::from_json(&bytes);
            let value = value.map_err(|error| StorageError(format!("the content {content}: {error}")))?;
            table.add(content, value);
        }
        kept::loading(&Arc::new(table), || self.history.events(query)).map_err(|error| failed(&error))
    }
}

impl Runs for StoredRuns {
    fn audit(&self, location: &Location, after: Seq, limit: usize) -> Result<RunAudit, StorageError> {
        let Location { summary, shard, frames, .. } = location;
        let (run_id, shard) = (summary.run_id, *shard);
        let query = Query { run_id, shard, frames, class: self.class(run_id), after, limit };
        self.history.audit(&query, summary.seq, self.key.as_ref()).map_err(|error| failed(&error))
    }

    fn graph(&self, location: &Location) -> Result<Option<Arc<Ir>>, StorageError> {
        let failed = |error: crate::api::catalog::Error| StorageError(error.to_string());
        match &location.graph {
            Some(graph) => Ok(Some(graph.clone())),
            None if location.version == 1 => {
                let entry = self.catalog.load_hash(&location.document).map_err(failed)?;
                Ok(entry.map(|entry| entry.compiled.ir.clone()))
            }
            None => self.layers(location)?.graph(&self.catalog).map(Some).map_err(failed),
        }
    }

    fn overlay(&self, location: &Location) -> Result<Overlay, StorageError> {
        let Layers { base, layers, .. } = self.layers(location)?;
        Ok((base, layers))
    }

    fn get(&self, run_id: RunId) -> Result<Option<Location>, StorageError> {
        let row = self.row(run_id)?;
        Ok(row.map(|row| Location {
            summary: row.summary,
            document: row.document,
            graph: None,
            version: row.version.unwrap_or(1),
            shard: row.shard,
            frames: row.frames,
        }))
    }

    fn list(&self, query: &ListQuery) -> Result<(Vec<RunSummary>, Option<RunId>), StorageError> {
        let page = self.archive.list(&ArchiveQuery {
            before: query.before,
            from: None,
            filter: query.filter.clone(),
            limit: query.limit,
            scan_limit: LIST_SCAN_MAX,
        });
        let page = page.map_err(|error| failed(&error))?;
        Ok((page.rows.into_iter().map(|row| row.summary).collect(), page.next))
    }

    fn endings(&self, filter: &RunFilter, seen: &mut dyn FnMut(Ending)) -> Result<bool, StorageError> {
        let (mut before, mut left) = (None, limits::EXPERIMENT_RUNS_MAX);
        while left > 0 {
            let (filter, limit) = (filter.clone(), ENDINGS_AT_ONCE.min(left));
            let query = ArchiveQuery { before, from: None, filter, limit, scan_limit: LIST_SCAN_MAX };
            let page = self.archive.list(&query).map_err(|error| failed(&error))?;
            left = left.saturating_sub(page.rows.len());
            for row in page.rows {
                let summary = &row.summary;
                let ended_at = summary.ended_at.unwrap_or(summary.started_at);
                let took_us = ended_at.as_micros().saturating_sub(summary.started_at.as_micros());
                seen(Ending { status: summary.status, arm: row.arm, took_us });
            }
            before = page.next;
            if before.is_none() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn by_key(&self, key: &[u8; 16]) -> Result<Option<(RunSummary, Idempotency)>, StorageError> {
        let found = self.archive.key(key, SystemClock.now()).map_err(|error| failed(&error))?;
        let Some(KeyAnswer { run_id, fingerprint, summary }) = found else { return Ok(None) };
        let idempotency = Idempotency { key: *key, fingerprint };
        if let Some(summary) = summary {
            return Ok(Some((summary, idempotency)));
        }
        let Some(row) = self.row(run_id)? else { return Ok(None) };
        // What the first acknowledgement said, not what has become of the run since.
        let (status, seq) = row.acknowledged;
        let ended_at = row.summary.ended_at.filter(|_| row.summary.seq == seq);
        Ok(Some((RunSummary { status, seq, ended_at, ..row.summary }, idempotency)))
    }

    fn erase(&self, run_id: RunId) -> Result<bool, StorageError> {
        self.archive.erase(run_id).map_err(|error| failed(&error))
    }

    fn events(&self, location: &Location, after: Seq, limit: usize) -> Result<Vec<Event>, StorageError> {
        self.read(location.summary.run_id, (location.shard, &location.frames), after, limit)
    }

    fn usage(
        &self,
        workspace: &Workspace,
        days: (u32, u32),
        limit: usize,
    ) -> Result<Vec<DayUsage>, StorageError> {
        self.archive.usage(workspace, days, limit).map_err(|error| failed(&error))
    }

    fn each(&self, location: &Location, seen: &mut dyn FnMut(&EventBody)) -> Result<(), StorageError> {
        let Location { summary, shard, frames, .. } = location;
        let mut page = |after, limit, in_full: bool| {
            let (run_id, shard) = (summary.run_id, *shard);
            let query = Query { run_id, shard, frames, class: self.class(run_id), after, limit };
            if in_full { self.read_in_full(&query) } else { Runs::events(self, location, after, limit) }
        };
        refold::each((&mut page, &self.catalog), location.summary.run_id, seen)
    }

    fn bundle(&self, location: &Location, upto: Seq, most: usize) -> Result<Option<Bundle>, StorageError> {
        recorded::bundle((&self.history, self.class(location.summary.run_id)), location, (upto, most))
            .and_then(|read| read.map(|read| read.with(&self.catalog, &*self.blobs)).transpose())
    }

    fn forked(&self, location: &Location) -> Result<Option<Box<Forked>>, StorageError> {
        recorded::forked((&self.history, self.class(location.summary.run_id)), location)
    }

    fn last_event(&self, location: &Location) -> Result<Option<Event>, StorageError> {
        let Location { summary, shard, frames, .. } = location;
        let after = summary.seq.saturating_sub(1);
        let (run_id, shard) = (summary.run_id, *shard);
        let query = Query { run_id, shard, frames, class: self.class(run_id), after, limit: 1 };
        Ok(self.read_in_full(&query)?.pop())
    }
}

impl StoredRuns {
    fn layers(&self, location: &Location) -> Result<Layers, StorageError> {
        let (mut layers, mut after) = (Layers::default(), 0);
        loop {
            let events = Runs::events(self, location, after, EVENTS_AT_ONCE)?;
            let Some(last) = events.last() else { return Ok(layers) };
            after = last.seq;
            events.iter().for_each(|event| layers.event(event));
        }
    }

    /// The class of the files that its events are in once they are moved.
    fn class(&self, run_id: RunId) -> Option<RetentionClass> {
        self.archive.get(run_id).ok().flatten().and_then(|row| row.class)
    }
}

/// Where a finished run is.
fn found(row: ArchiveRow) -> source::Location {
    let version = row.version.unwrap_or(1);
    let ArchiveRow { summary, document, shard, frames, .. } = row;
    source::Location { shard, located: Located { summary, document, graph: None, version, frames } }
}

impl Source for StoredRuns {
    fn graph(&self, location: &source::Location) -> Result<Option<Arc<Ir>>, SourceError> {
        let source::Location { shard, located } = location.clone();
        let Located { summary, document, graph, version, frames } = located;
        let location = Location { summary, document, graph, version, shard, frames };
        Runs::graph(self, &location).map_err(|error| SourceError(error.0))
    }

    fn finished(&self, run_id: RunId) -> Result<Option<source::Location>, SourceError> {
        let row = self.row(run_id).map_err(|error| SourceError(error.0))?;
        Ok(row.map(found))
    }

    fn stretch(&self, stretch: &Stretch) -> Result<(Vec<source::Location>, Option<RunId>), SourceError> {
        let page = self.archive.list(&ArchiveQuery {
            before: Some(stretch.before),
            from: Some(stretch.from),
            filter: stretch.filter.clone(),
            limit: stretch.limit,
            scan_limit: LIST_SCAN_MAX,
        });
        let page = page.map_err(|error| SourceError(error.to_string()))?;
        Ok((page.rows.into_iter().map(found).collect(), page.next))
    }

    fn events(
        &self,
        location: &source::Location,
        after: Seq,
        limit: usize,
    ) -> Result<Vec<Event>, SourceError> {
        let located = &location.located;
        let place = (location.shard, located.frames.as_slice());
        self.read(located.summary.run_id, place, after, limit).map_err(|error| SourceError(error.0))
    }
}
