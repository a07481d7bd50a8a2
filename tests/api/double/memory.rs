//! What runs and workflows are kept in: memory, in place of the journal, the index and the registry.

use std::collections::BTreeMap;
use std::sync::Arc;

use aob::api::Catalog;
use aob::api::ports::{
    Amendment, Ending, Location, Notes, Outcome, Overlay, Registration, Runs, StorageError, Workflows,
};
use aob::engine::command::{ListQuery, Located, RunView, Stretch};
use aob::fanout;
use aob::model::event::{DocumentHash, Forked, Idempotency};
use aob::model::patch::{Change, Layer};
use aob::model::{Event, EventBody, FrameRef, RunFilter, RunId, RunSummary, Seq};
use aob::replay::Bundle;
use aob::store::history::RunAudit;
use aob::store::history::chain::{Link, genesis, link};
use aob::store::record::BurstHead;

/// Of workflows: name and key, value.
type Noted = BTreeMap<(String, Vec<u8>), Vec<u8>>;

/// State that the doubles share.
#[derive(Default)]
#[expect(clippy::disallowed_types, reason = "a double that no plane uses")]
pub(crate) struct Memory {
    registered: std::sync::Mutex<Vec<Registration>>,
    kept: std::sync::Mutex<Vec<Registration>>,
    tags: std::sync::Mutex<BTreeMap<(String, String), String>>,
    notes: std::sync::Mutex<Noted>,
    /// Documents that patches made of workflows.
    patched: std::sync::Mutex<BTreeMap<DocumentHash, Vec<u8>>>,
    pub(super) histories: std::sync::Mutex<BTreeMap<RunId, (RunView, Vec<Event>)>>,
    pub(super) archive: std::sync::Mutex<BTreeMap<RunId, Option<Idempotency>>>,
}

impl Memory {
    pub(super) fn location(&self, run_id: RunId) -> Option<Location> {
        let histories = self.histories.lock().unwrap();
        let (view, _) = histories.get(&run_id)?;
        let frames = vec![FrameRef { segment: 1, offset: 0 }];
        let (summary, document) = (view.summary.clone(), view.document);
        Some(Location { summary, document, graph: None, version: 1, shard: 0, frames })
    }
}

impl Workflows for Memory {
    fn register(
        &self,
        name: &str,
        version: Option<&str>,
        canonical: &[u8],
        hash: &DocumentHash,
    ) -> Result<Outcome, StorageError> {
        let mut all = self.registered.lock().unwrap();
        let same =
            |row: &&Registration| row.name == name && version.is_none_or(|version| row.version == version);
        if let Some(found) = all.iter().filter(same).find(|row| row.hash == *hash) {
            return Ok(Outcome::Registered { version: found.version.clone(), created: false });
        }
        if let (Some(_), Some(found)) = (version, all.iter().find(same)) {
            return Ok(Outcome::Conflict { existing: found.hash });
        }
        let version = version.map_or_else(|| (all.len() + 1).to_string(), str::to_owned);
        all.push(Registration {
            name: name.into(),
            version: version.clone(),
            hash: *hash,
            canonical: canonical.to_vec(),
        });
        Ok(Outcome::Registered { version, created: true })
    }

    fn get(&self, name: &str, version: Option<&str>) -> Result<Option<Registration>, StorageError> {
        let all = self.registered.lock().unwrap();
        let same =
            |row: &&Registration| row.name == name && version.is_none_or(|version| row.version == version);
        Ok(all.iter().rev().find(same).cloned())
    }

    fn amend(&self, name: &str, amendment: &Amendment<'_>) -> Result<(), StorageError> {
        let mut notes = self.notes.lock().unwrap();
        for (key, value) in &amendment.notes {
            let key = (name.to_owned(), key.clone());
            match value {
                Some(value) => drop(notes.insert(key, value.clone())),
                None => drop(notes.remove(&key)),
            }
        }
        let mut tags = self.tags.lock().unwrap();
        for (tag, version) in &amendment.tags {
            let key = (name.to_owned(), (*tag).to_owned());
            match version {
                Some(version) => drop(tags.insert(key, (*version).to_owned())),
                None => drop(tags.remove(&key)),
            }
        }
        let documents = amendment.documents.iter();
        self.patched.lock().unwrap().extend(documents.map(|(hash, text)| (**hash, text.to_vec())));
        Ok(())
    }

    fn notes(&self, name: &str, prefix: &[u8]) -> Result<Notes, StorageError> {
        let notes = self.notes.lock().unwrap();
        let own = notes.iter().filter(|((of, key), _)| of == name && key.starts_with(prefix));
        Ok(own.map(|((_, key), value)| (key.clone(), value.clone())).collect())
    }

    fn tags(&self, name: &str) -> Result<aob::api::ports::Tags, StorageError> {
        let tags = self.tags.lock().unwrap();
        let own = tags.iter().filter(|((of, _), _)| of == name);
        Ok(own.map(|((_, tag), version)| (tag.as_str().into(), version.as_str().into())).collect())
    }

    fn keep(&self, name: &str, canonical: &[u8], hash: &DocumentHash) -> Result<(), StorageError> {
        let (name, version, canonical) = (name.into(), String::new(), canonical.to_vec());
        self.kept.lock().unwrap().push(Registration { name, version, hash: *hash, canonical });
        Ok(())
    }

    fn by_hash(&self, hash: &DocumentHash) -> Result<Option<Registration>, StorageError> {
        let (registered, kept) = (self.registered.lock().unwrap(), self.kept.lock().unwrap());
        let found = registered.iter().chain(kept.iter()).find(|row| row.hash == *hash).cloned();
        let patched = self.patched.lock().unwrap().get(hash).cloned();
        Ok(found.or(patched.map(|canonical| Registration {
            name: String::new(),
            version: String::new(),
            hash: *hash,
            canonical,
        })))
    }

    fn list(&self, after: Option<(&str, &str)>, limit: usize) -> Result<Vec<Registration>, StorageError> {
        let mut all = self.registered.lock().unwrap().clone();
        all.sort_by(|a, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
        all.retain(|row| after.is_none_or(|after| (row.name.as_str(), row.version.as_str()) > after));
        all.truncate(limit);
        Ok(all)
    }
}

impl Runs for Memory {
    fn audit(&self, location: &Location, after: Seq, limit: usize) -> Result<RunAudit, StorageError> {
        let run_id = location.summary.run_id;
        let mut audit = RunAudit {
            events: 0,
            head: genesis(run_id),
            links: Vec::new(),
            sealed: Vec::new(),
            finding: None,
        };
        for event in Runs::events(self, location, 0, usize::MAX)? {
            let (seq, at) = (event.seq, event.at);
            audit.head = link(&audit.head, (seq, at), &postcard::to_stdvec(&event.body).unwrap());
            audit.events += 1;
            if seq > after && audit.links.len() < limit {
                audit.links.push(Link { seq, at, hash: audit.head });
            }
        }
        Ok(audit)
    }

    fn graph(&self, location: &Location) -> Result<Option<Arc<aob::ir::Ir>>, StorageError> {
        let found = Workflows::by_hash(self, &location.document)?;
        Ok(found.map(|found| aob::compile::compile_canonical(&found.canonical).unwrap().ir))
    }

    fn overlay(&self, location: &Location) -> Result<Overlay, StorageError> {
        let (mut layers, mut proposed) = (Vec::new(), None);
        let histories = self.histories.lock().unwrap();
        for event in histories.get(&location.summary.run_id).into_iter().flat_map(|(_, events)| events) {
            match &event.body {
                EventBody::PatchCreated(proposal) => proposed = Some(Change::Patch(proposal.clone())),
                EventBody::PatchRevoked(revocation) => proposed = Some(Change::Revoked(revocation.clone())),
                EventBody::PatchApplied(patched) => {
                    let change = proposed.take().unwrap();
                    layers.push(Arc::new(Layer { change, at: event.at, document: patched.document }));
                }
                _ => {}
            }
        }
        Ok((location.document, layers))
    }

    fn get(&self, run_id: RunId) -> Result<Option<Location>, StorageError> {
        let archived = self.archive.lock().unwrap().contains_key(&run_id);
        Ok(self.location(run_id).filter(|_| archived))
    }

    fn list(&self, query: &ListQuery) -> Result<(Vec<RunSummary>, Option<RunId>), StorageError> {
        let archive = self.archive.lock().unwrap();
        let histories = self.histories.lock().unwrap();
        let all = archive.keys().rev().map(|run_id| histories[run_id].0.summary.clone());
        Ok((all.filter(|run| fits(query, run)).take(query.limit).collect(), None))
    }

    fn endings(&self, filter: &RunFilter, seen: &mut dyn FnMut(Ending)) -> Result<bool, StorageError> {
        let archive = self.archive.lock().unwrap();
        let histories = self.histories.lock().unwrap();
        let all = archive.keys().map(|run_id| &histories[run_id].0);
        for view in all.filter(|view| filter.fits_summary(&view.summary)) {
            let arm = view.layered.as_ref().and_then(|layered| layered.set.clone());
            seen(Ending { arm, status: view.summary.status, took_us: 1 });
        }
        Ok(true)
    }

    fn by_key(&self, key: &[u8; 16]) -> Result<Option<(RunSummary, Idempotency)>, StorageError> {
        let archive = self.archive.lock().unwrap();
        let found = archive.iter().find_map(|(run_id, known)| {
            known.clone().filter(|known| known.key == *key).map(|known| (*run_id, known))
        });
        Ok(found.map(|(run_id, known)| (self.histories.lock().unwrap()[&run_id].0.summary.clone(), known)))
    }

    fn last_event(&self, location: &Location) -> Result<Option<Event>, StorageError> {
        Ok(Runs::events(self, location, 0, usize::MAX)?.pop())
    }

    fn erase(&self, run_id: RunId) -> Result<bool, StorageError> {
        Ok(self.archive.lock().unwrap().remove(&run_id).is_some())
    }

    fn events(&self, location: &Location, after: Seq, limit: usize) -> Result<Vec<Event>, StorageError> {
        let histories = self.histories.lock().unwrap();
        let (_, events) = &histories[&location.summary.run_id];
        Ok(events.iter().skip(after as usize).take(limit).cloned().collect())
    }

    fn bundle(&self, location: &Location, _: Seq, _: usize) -> Result<Option<Bundle>, StorageError> {
        let run_id = location.summary.run_id;
        let histories = self.histories.lock().unwrap();
        let (_, events) = &histories[&run_id];
        let mut bundle = Bundle::new(run_id);
        let head = BurstHead { run_id, first_seq: 1, at: location.summary.started_at };
        aob::store::record::append(&mut bundle.events, head, events.iter().map(|event| &event.body)).unwrap();
        if let Some(found) = Workflows::by_hash(self, &location.document)? {
            bundle.documents.insert(found.hash, found.canonical);
        }
        Ok(Some(bundle))
    }

    fn forked(&self, _: &Location) -> Result<Option<Box<Forked>>, StorageError> {
        Ok(None)
    }

    fn each(&self, location: &Location, seen: &mut dyn FnMut(&EventBody)) -> Result<(), StorageError> {
        let histories = self.histories.lock().unwrap();
        histories[&location.summary.run_id].1.iter().for_each(|event| seen(&event.body));
        Ok(())
    }
}

pub(super) fn fits(query: &ListQuery, run: &RunSummary) -> bool {
    query.before.is_none_or(|before| run.run_id < before) && query.filter.fits_summary(run)
}

/// What the hub reads, from the same memory.
pub(super) struct Source {
    pub(super) memory: Arc<Memory>,
    pub(super) catalog: Arc<Catalog>,
}

impl fanout::Source for Source {
    fn graph(
        &self,
        location: &fanout::source::Location,
    ) -> Result<Option<Arc<aob::ir::Ir>>, fanout::source::SourceError> {
        let entry = self.catalog.load_hash(&location.located.document).unwrap();
        Ok(entry.map(|entry| entry.compiled.ir.clone()))
    }

    fn finished(&self, run: RunId) -> Result<Option<fanout::source::Location>, fanout::source::SourceError> {
        let found = Runs::get(&*self.memory, run).unwrap();
        Ok(found.map(|found| fanout::source::Location {
            shard: found.shard,
            located: Located {
                summary: found.summary,
                document: found.document,
                graph: None,
                version: 1,
                frames: found.frames,
            },
        }))
    }

    fn stretch(
        &self,
        stretch: &Stretch,
    ) -> Result<(Vec<fanout::source::Location>, Option<RunId>), fanout::source::SourceError> {
        let archived: Vec<RunId> = self
            .memory
            .archive
            .lock()
            .unwrap()
            .range(stretch.from..stretch.before)
            .map(|(run, _)| *run)
            .collect();
        let last = archived.get(stretch.limit).and_then(|_| archived.get(stretch.limit - 1)).copied();
        let found = archived.into_iter().take(stretch.limit).filter_map(|run| self.finished(run).transpose());
        let mut found = found.collect::<Result<Vec<_>, _>>()?;
        found.retain(|location| stretch.filter.fits_summary(&location.located.summary));
        Ok((found, last))
    }

    fn events(
        &self,
        location: &fanout::source::Location,
        after: Seq,
        limit: usize,
    ) -> Result<Vec<Event>, fanout::source::SourceError> {
        let location = self.memory.location(location.located.summary.run_id).unwrap();
        Ok(self.memory.events(&location, after, limit).unwrap())
    }
}
