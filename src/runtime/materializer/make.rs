//! One batch: documents from memory or made again, contents, then rows, then the position.
//!
//! What must hold: contents are durable before the rows that name them, rows before the position, and the collector takes
//! nothing between the two first. A step that fails is tried again as it is; each may be done twice.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::api::Catalog;
use crate::api::artifacts::Artifacts as Told;
use crate::cas::Blobs;
use crate::compile;
use crate::model::Value;
use crate::model::event::DocumentHash;
use crate::runtime::contents::{self, StoredContents};
use crate::runtime::storage::StoredWorkflows;
use crate::store::artifacts::{Artifact, Artifacts, Due, Which};
use crate::store::index::Index;
use crate::time::Timestamp;
use crate::wire::Hash;

/// What a batch is made with.
#[derive(Clone)]
pub struct Maker {
    pub(crate) artifacts: Arc<dyn Artifacts>,
    pub(crate) contents: Arc<StoredContents>,
    pub(crate) catalog: Arc<Catalog>,
    /// Who waits for artifacts is told there.
    pub(crate) told: Arc<Told>,
}

/// A document and what it is called.
struct Document {
    canonical: Arc<str>,
    value: Value,
}

/// Documents of one batch, each made once, and what could not be made.
#[derive(Default)]
struct Made {
    documents: BTreeMap<DocumentHash, Document>,
    unmade: Vec<String>,
}

impl Maker {
    /// Over an index and a content store that nobody else has.
    pub fn over(index: &Arc<Index>, blobs: Arc<dyn Blobs>) -> Self {
        let stores = contents::Stores {
            blobs: blobs.clone(),
            references: index.clone(),
            archive: index.clone(),
            registry: Some(index.clone()),
        };
        Self {
            artifacts: index.clone(),
            contents: StoredContents::new(stores, contents::Settings::default()),
            catalog: Catalog::new(Arc::new(StoredWorkflows(index.clone(), blobs))),
            told: Told::new(index.clone(), false),
        }
    }

    /// Makes a batch, all of it or nothing; in words, what of it can never be made.
    ///
    /// # Errors
    /// A store failed: to be tried again.
    pub fn make(&self, batch: &[Which], now: Timestamp) -> Result<Vec<String>, String> {
        let mut due = Vec::with_capacity(batch.len());
        for which in batch {
            // What is not noted any more was made, or its run is forgotten.
            due.extend(self.artifacts.noted(*which).map_err(|error| error.to_string())?);
        }
        due.sort_by(|a, b| (&a.workflow, a.which()).cmp(&(&b.workflow, b.which())));
        let mut made = Made::default();
        let mut rows = Vec::with_capacity(due.len());
        for due in &due {
            match self.document(due, &mut made)? {
                Ok(()) => rows.extend(made.documents.get(&due.document).map(|document| Artifact {
                    run_id: due.run_id,
                    version: due.version,
                    workflow: due.workflow.clone(),
                    document: due.document,
                    bytes: document.canonical.len() as u64,
                    materialised_at: now,
                })),
                Err(why) => made.unmade.push(why),
            }
        }
        let wanted: std::collections::BTreeSet<_> = rows.iter().map(|row| row.document).collect();
        let texts: Vec<&[u8]> = wanted
            .iter()
            .filter_map(|hash| made.documents.get(hash))
            .map(|document| document.canonical.as_bytes())
            .collect();
        self.contents.keep_documents(&texts, || self.artifacts.put_artifacts(&rows))?;
        // The position: from here on none of it comes again.
        self.artifacts.settle(batch).map_err(|error| error.to_string())?;
        self.told.batch(batch.len(), rows.len(), made.unmade.len());
        Ok(made.unmade)
    }

    /// Has the document after a change in `made`. The inner error says why there never will be one.
    fn document(&self, due: &Due, made: &mut Made) -> Result<Result<(), String>, String> {
        // Back to a document that is there; versions before this one may be in no batch yet.
        let (mut chain, mut at) = (Vec::new(), due.clone());
        while !self.is_there(&at.document, made)? {
            if self.is_there(&at.before, made)? {
                chain.push(at);
                break;
            }
            let earlier = self.artifacts.noted((at.run_id, at.version.saturating_sub(1)));
            let earlier = earlier.map_err(|error| error.to_string())?;
            chain.push(at);
            match earlier {
                Some(earlier) => at = earlier,
                None => return Ok(Err(unmade(due, "the document before it is not there"))),
            }
        }
        while let Some(next) = chain.pop() {
            let Some(before) = made.documents.get(&next.before) else { continue };
            let remade = compile::patch::read(&next.operations)
                .and_then(|patch| compile::patch::remake(&before.value, &patch));
            match remade {
                Ok(after) if after.hash == next.document => {
                    let document = Document { canonical: after.canonical, value: after.document };
                    made.documents.insert(next.document, document);
                }
                Ok(after) => {
                    return Ok(Err(unmade(&next, &format!("it comes out as {}", Hash(&after.hash)))));
                }
                Err(refusal) => return Ok(Err(unmade(&next, &refusal.to_string()))),
            }
        }
        Ok(Ok(()))
    }

    /// Is the document in `made`, or can it be had without making it?
    fn is_there(&self, hash: &DocumentHash, made: &mut Made) -> Result<bool, String> {
        if made.documents.contains_key(hash) {
            return Ok(true);
        }
        let document = match self.catalog.at_hand(hash) {
            Some(entry) => Document {
                canonical: entry.compiled.canonical.clone(),
                value: entry.compiled.document.clone(),
            },
            None => match self.contents.stored_document(hash)? {
                Some((canonical, value)) => Document { canonical, value },
                None => return Ok(false),
            },
        };
        made.documents.insert(*hash, document);
        Ok(true)
    }
}

fn unmade(due: &Due, why: &str) -> String {
    let Due { run_id, version, document, .. } = due;
    format!("version {version} of the graph of {run_id}, {}, cannot be made again: {why}", Hash(document))
}
