//! What runs of a registered document run: the document with the gates of the policy that is in force (docs/policy.md).
//!
//! A run's document is in the registry before the run is, so recovery, history and patches find it by its hash as they find
//! any other. Whether a policy is about a document is worked out once for each document and version, on a blocking thread;
//! after that a start looks it up and takes no lock. New rules begin with an empty memory, so that no run starts under old
//! ones; above [`limits::CATALOG_DOCUMENTS_MAX`] it is emptied too.

use std::sync::{Arc, PoisonError};

use ahash::AHashMap;
use arc_swap::ArcSwap;

use super::{Catalog, Entry, Error, named};
use crate::api::services::{Services, blocking};
use crate::compile::policy::{self, Rules};
use crate::limits;
use crate::model::Value;
use crate::model::event::DocumentHash;
use crate::model::workspace::shown;
use crate::wire::problem::Problem;

/// By whose document it was, and under which name and version.
type Key = (DocumentHash, Arc<str>, Arc<str>);

/// The rules in force, and what they made of documents so far.
#[derive(Clone, Default)]
struct Made {
    rules: Arc<Rules>,
    entries: AHashMap<Key, Arc<Entry>>,
}

/// What a catalog knows of policies.
#[derive(Default)]
pub(super) struct Governed(ArcSwap<Made>);

fn key(entry: &Entry) -> Key {
    (entry.compiled.hash, entry.name.clone(), entry.version.clone())
}

impl Catalog {
    /// From now on runs start under these rules; those that have started keep theirs.
    pub fn govern(&self, rules: Arc<Rules>) {
        if self.governed.0.load().rules != rules {
            self.governed.0.store(Arc::new(Made { rules, entries: AHashMap::new() }));
        }
    }

    /// What a policy made of the document with this hash, from memory alone.
    pub(in crate::api) fn policy_of(&self, document: &DocumentHash) -> Option<Value> {
        self.at_hand(document)?.compiled.document.get("policy").cloned()
    }

    /// What a run of this document would run now, from memory alone.
    fn effective_at_hand(&self, entry: &Arc<Entry>) -> Option<Arc<Entry>> {
        let made = self.governed.0.load();
        if made.rules.is_empty() { Some(entry.clone()) } else { made.entries.get(&key(entry)).cloned() }
    }

    /// What a run of this document would run now; durably registered. Blocks; not for a core's thread.
    ///
    /// # Errors
    /// The registry failed, or the document does not fit its limits with its gates.
    fn effective(&self, entry: &Arc<Entry>) -> Result<Arc<Entry>, Error> {
        if let Some(made) = self.effective_at_hand(entry) {
            return Ok(made);
        }
        let rules = self.governed.0.load().rules.clone();
        let compiled = policy::materialise(&entry.compiled, &entry.name, &rules)
            .map_err(|refused| Error::Unfit(shown(&entry.name).to_owned(), refused.to_string()))?;
        let effective = match compiled {
            None => entry.clone(),
            Some(compiled) => {
                let made = Arc::new(named(compiled, &entry.name, &entry.version));
                let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
                self.registry.keep(&entry.name, made.compiled.canonical.as_bytes(), &made.compiled.hash)?;
                let mut snapshot = self.with_room();
                snapshot.hashes.insert(made.compiled.hash, made.clone());
                self.snapshot.store(Arc::new(snapshot));
                made
            }
        };
        self.governed.0.rcu(|now| {
            let mut next = Made::clone(now);
            if next.rules == rules {
                if next.entries.len() >= limits::CATALOG_DOCUMENTS_MAX {
                    next.entries.clear();
                }
                next.entries.insert(key(entry), effective.clone());
            }
            next
        });
        Ok(effective)
    }
}

/// What a run of this document is to run.
pub(in crate::api) async fn effective(
    services: &Services,
    entry: Arc<Entry>,
) -> Result<Arc<Entry>, Box<Problem>> {
    if let Some(made) = services.catalog.effective_at_hand(&entry) {
        return Ok(made);
    }
    let catalog = services.catalog.clone();
    Ok(blocking(move || catalog.effective(&entry)).await??)
}

/// Has the document of a run in memory, if it is to be had, for what is said about it.
pub(in crate::api) async fn at_hand(
    services: &Services,
    document: &DocumentHash,
) -> Result<(), Box<Problem>> {
    if services.catalog.at_hand(document).is_some() {
        return Ok(());
    }
    let (catalog, document) = (services.catalog.clone(), *document);
    blocking(move || catalog.load_hash(&document).map(drop)).await??;
    Ok(())
}
