//! Compiled workflows in memory, shared by all cores: reads take no lock, misses are filled from the registry.
//!
//! A snapshot is replaced as a whole by whoever adds to it. Writers (registration, a miss) take turns, so that "the
//! version registered last" is never overwritten by an older answer; they run on blocking threads, because the
//! registry may touch the disk. The cache holds at most [`limits::CATALOG_DOCUMENTS_MAX`] documents; above that it
//! is emptied and fills again.

mod effective;
pub mod overlays;
mod patched;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use ahash::AHashMap;
use arc_swap::ArcSwap;

pub(in crate::api) use self::effective::{at_hand, effective};
pub use self::patched::Turn;
use super::ports::{Amendment, Outcome, Registration, StorageError, Workflows};
use crate::compile::{self, Compiled};
use crate::limits;
use crate::model::Workspace;
use crate::model::event::DocumentHash;
use crate::model::workspace::shown;
use crate::wire::Hash;

/// One registered document, compiled.
#[derive(Debug)]
pub struct Entry {
    /// Name of the workflow.
    pub name: Arc<str>,
    /// Its version.
    pub version: Arc<str>,
    /// The document, its IR and its checks.
    pub compiled: Compiled,
}

/// The catalog. One for the whole node.
pub struct Catalog {
    snapshot: ArcSwap<Snapshot>,
    registry: Arc<dyn Workflows>,
    /// Documents that patches made.
    patched: patched::Recent,
    /// Patches of workflows.
    overlays: overlays::Noted,
    /// Documents with the gates of a policy.
    governed: effective::Governed,
    /// Writers take turns. Never touched by a hit.
    #[expect(clippy::disallowed_types, reason = "held on blocking threads, by those who add")]
    turn: std::sync::Mutex<()>,
}

impl std::fmt::Debug for Catalog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Catalog")
            .field("documents", &self.snapshot.load().hashes.len())
            .finish_non_exhaustive()
    }
}

#[derive(Clone, Default)]
struct Snapshot {
    names: BTreeMap<Arc<str>, Versions>,
    hashes: AHashMap<DocumentHash, Arc<Entry>>,
}

#[derive(Clone, Default)]
struct Versions {
    latest: Option<Arc<Entry>>,
    all: BTreeMap<Arc<str>, Arc<Entry>>,
    /// Tags that were asked for, and the versions they stand for.
    tags: BTreeMap<Arc<str>, Arc<str>>,
}

/// A tag stands for a version; versions go first.
fn tagged(versions: &Versions, wanted: &str) -> Option<Arc<Entry>> {
    versions.all.get(wanted).or_else(|| versions.all.get(versions.tags.get(wanted)?)).cloned()
}

/// Why a document is not to be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The registry failed.
    #[error("the workflow registry failed: {0}")]
    Storage(#[from] StorageError),
    /// Another document stands under this name and version.
    #[error("workflow {}@{version} is registered with another document ({existing})", shown(name))]
    Conflict {
        /// Name of the workflow.
        name: String,
        /// The version asked for.
        version: String,
        /// Hash of the document that stands there.
        existing: String,
    },
    /// There is no such version.
    #[error("there is no workflow {}@{version}", shown(name))]
    NoVersion {
        /// Name of the workflow.
        name: String,
        /// The version asked for.
        version: String,
    },
    /// A version and a tag would have one name.
    #[error("{} has a version and a tag {tag:?} then; one of them needs another name", shown(name))]
    TagIsVersion {
        /// Name of the workflow.
        name: String,
        /// The tag asked for.
        tag: String,
    },
    /// There is no room for another tag.
    #[error("{} has {count} tags, no room for more (limit tags_per_workflow_max)", shown(name))]
    TooManyTags {
        /// Name of the workflow.
        name: String,
        /// How many it has.
        count: usize,
    },
    /// The document of a run is not in the registry.
    #[error("the document {0} is not in the registry")]
    NoDocument(String),
    /// A document that a patch made cannot be made again.
    #[error("the document {0} cannot be made again from its patches: {1}")]
    Underivable(String, String),
    /// What is noted about a workflow cannot be read.
    #[error("a note about {} cannot be read: {}", shown(.0), .1)]
    Note(String, String),
    /// With the gates of the policy in force it is beyond a limit.
    #[error("the policy's gates do not fit into {0}: {1}")]
    Unfit(String, String),
    /// A registered document does not compile any more.
    #[error("registered workflow {} does not compile under this version of the node: {}", shown(.0), .1)]
    Stale(String, String),
}

/// A tag was moved.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct TagMove {
    /// By whom.
    pub by: Arc<str>,
    /// When, in microseconds.
    pub at: u64,
    /// The version that it stood for; `None`: there was no such tag.
    pub from: Option<Arc<str>>,
    /// The version that it stands for since; `None`: it was taken away.
    pub to: Option<Arc<str>>,
}

/// What notes of a tag's moves begin with. No tag has a slash in it.
fn moves_of(tag: &str) -> Vec<u8> {
    format!("tag/{tag}/").into_bytes()
}

impl Catalog {
    /// An empty catalog in front of `registry`.
    pub fn new(registry: Arc<dyn Workflows>) -> Arc<Self> {
        Arc::new(Self {
            snapshot: ArcSwap::from_pointee(Snapshot::default()),
            registry,
            patched: patched::Recent::default(),
            overlays: overlays::Noted::default(),
            governed: effective::Governed::default(),
            turn: Default::default(),
        })
    }

    /// From memory alone.
    pub fn cached(&self, name: &str, version: Option<&str>) -> Option<Arc<Entry>> {
        let snapshot = self.snapshot.load();
        let versions = snapshot.names.get(name)?;
        match version {
            Some(version) => tagged(versions, version),
            None => versions.latest.clone(),
        }
    }

    /// From memory alone, by hash.
    pub fn cached_hash(&self, hash: &DocumentHash) -> Option<Arc<Entry>> {
        self.snapshot.load().hashes.get(hash).cloned()
    }

    /// From memory, else from the registry. Blocks; not for a core's thread.
    ///
    /// # Errors
    /// The registry failed, or what it holds does not compile.
    pub fn load(&self, name: &str, version: Option<&str>) -> Result<Option<Arc<Entry>>, Error> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = self.cached(name, version) {
            return Ok(Some(entry));
        }
        if let Some(found) = self.registry.get(name, version)? {
            let entry = self.compiled(&found)?;
            self.add(&entry, version.is_none());
            return Ok(Some(entry));
        }
        let Some(wanted) = version else { return Ok(None) };
        let Some((tag, version)) = self.registry.tags(name)?.into_iter().find(|(tag, _)| **tag == *wanted)
        else {
            return Ok(None);
        };
        let Some(found) = self.registry.get(name, Some(&version))? else { return Ok(None) };
        let entry = self.compiled(&found)?;
        self.add(&entry, false);
        self.remember(name, &tag, Some(version));
        Ok(Some(entry))
    }

    /// Points a tag at a version (`None`: takes it away), durably, and for every core at once. Runs that have started keep
    /// their version. Blocks; not for a core's thread.
    ///
    /// # Errors
    /// The registry failed, the workflow has no such version, or it has too many tags.
    pub fn tag(
        &self,
        name: &str,
        tag: &str,
        version: Option<&str>,
        (by, at): (Arc<str>, u64),
    ) -> Result<(), Error> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let tags = self.registry.tags(name)?;
        if version.is_some() {
            if self.registry.get(name, Some(tag))?.is_some() {
                return Err(Error::TagIsVersion { name: name.into(), tag: tag.into() });
            }
            if tags.len() >= limits::TAGS_PER_WORKFLOW_MAX && !tags.iter().any(|(known, _)| **known == *tag) {
                return Err(Error::TooManyTags { name: name.into(), count: tags.len() });
            }
        }
        if let Some(version) = version
            && self.registry.get(name, Some(version))?.is_none()
        {
            return Err(Error::NoVersion { name: name.into(), version: version.into() });
        }
        let was = tags.into_iter().find(|(known, _)| **known == *tag).map(|(_, version)| version);
        if was.as_deref() == version {
            return Ok(());
        }
        let mut amendment = Amendment { tags: vec![(tag, version)], ..Amendment::default() };
        let key = moves_of(tag);
        let moves = self.registry.notes(name, &key)?;
        let last = moves.last().and_then(|(key, _)| Some(u64::from_be_bytes(*key.last_chunk()?)));
        let next = last.unwrap_or(0).saturating_add(1);
        let move_ = TagMove { by, at, from: was, to: version.map(Arc::from) };
        let note = serde_json::to_vec(&move_).map_err(|error| Error::Note(name.into(), error.to_string()))?;
        amendment.notes.push(([&key[..], &next.to_be_bytes()].concat(), Some(note)));
        if let Some((oldest, _)) = moves.first().filter(|_| moves.len() >= limits::TAG_MOVES_MAX) {
            amendment.notes.push((oldest.clone(), None));
        }
        self.registry.amend(name, &amendment)?;
        self.remember(name, &tag.into(), version.map(Arc::from));
        Ok(())
    }

    /// Tags of a workflow with their versions. Blocks; not for a core's thread.
    ///
    /// # Errors
    /// The registry failed.
    pub fn tags(&self, name: &str) -> Result<super::ports::Tags, Error> {
        Ok(self.registry.tags(name)?)
    }

    /// How a tag was moved, oldest first: the latest [`limits::TAG_MOVES_MAX`] times. Blocks; not for a core's thread.
    ///
    /// # Errors
    /// The registry failed.
    pub fn tag_moves(&self, name: &str, tag: &str) -> Result<Vec<TagMove>, Error> {
        let notes = self.registry.notes(name, &moves_of(tag))?;
        let read = |(_, note): (Vec<u8>, Vec<u8>)| {
            serde_json::from_slice(&note).map_err(|error| Error::Note(name.into(), error.to_string()))
        };
        notes.into_iter().map(read).collect()
    }

    /// What a tag stands for from now on.
    fn remember(&self, name: &str, tag: &Arc<str>, version: Option<Arc<str>>) {
        let mut snapshot = Snapshot::clone(&self.snapshot.load());
        if let Some(versions) = snapshot.names.get_mut(name) {
            match version {
                Some(version) => drop(versions.tags.insert(tag.clone(), version)),
                None => drop(versions.tags.remove(tag)),
            }
            self.snapshot.store(Arc::new(snapshot));
        }
    }

    /// From memory, else from the registry, by hash. Blocks; not for a core's thread while it serves.
    ///
    /// # Errors
    /// The registry failed, or what it holds does not compile.
    pub fn load_hash(&self, hash: &DocumentHash) -> Result<Option<Arc<Entry>>, Error> {
        if let Some(entry) = self.cached_hash(hash) {
            return Ok(Some(entry));
        }
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = self.cached_hash(hash) {
            return Ok(Some(entry));
        }
        let Some(found) = self.registry.by_hash(hash)? else { return Ok(None) };
        let entry = self.compiled(&found)?;
        // Not under a name: which ones it has, in which workspaces, the hash does not tell.
        let mut snapshot = self.with_room();
        snapshot.hashes.insert(entry.compiled.hash, entry.clone());
        self.snapshot.store(Arc::new(snapshot));
        Ok(Some(entry))
    }

    /// Would registering this document change nothing? Blocks; not for a core's thread.
    ///
    /// # Errors
    /// The registry failed.
    pub fn has(&self, workspace: &Workspace, compiled: &Compiled) -> Result<bool, Error> {
        let asked = compiled.document.get("version").and_then(crate::model::Value::as_str);
        let found = self.registry.get(&workspace.inside(&compiled.ir.name), asked)?;
        Ok(found.is_some_and(|found| found.hash == compiled.hash))
    }

    /// Registers a compiled document under its name and version in a workspace, durably. Blocks; not for a core's thread.
    ///
    /// # Errors
    /// Another document stands there, a tag has the name of the version, or the registry failed.
    pub fn register(&self, workspace: &Workspace, compiled: Compiled) -> Result<(Arc<Entry>, bool), Error> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let name = workspace.inside(&compiled.ir.name);
        let asked = compiled.document.get("version").and_then(crate::model::Value::as_str);
        if let Some(version) = asked
            && self.registry.tags(&name)?.iter().any(|(tag, _)| **tag == *version)
        {
            return Err(Error::TagIsVersion { name: name.to_string(), tag: version.into() });
        }
        crate::failpoint::pass("registry::before_put");
        let outcome = self.registry.register(&name, asked, compiled.canonical.as_bytes(), &compiled.hash)?;
        crate::failpoint::pass("registry::after_put");
        let (version, created) = match outcome {
            Outcome::Registered { version, created } => (version, created),
            Outcome::Conflict { existing } => {
                return Err(Error::Conflict {
                    name: name.to_string(),
                    version: asked.unwrap_or_default().to_owned(),
                    existing: Hash(&existing).to_string(),
                });
            }
        };
        let entry = Arc::new(named(compiled, &name, &version));
        let is_latest = self.registry.get(&name, None)?.is_none_or(|latest| latest.version == version);
        self.add(&entry, is_latest);
        Ok((entry, created))
    }

    /// Registered versions in the order of their names. Blocks; not for a core's thread.
    ///
    /// # Errors
    /// The registry failed.
    pub fn list(&self, after: Option<(&str, &str)>, limit: usize) -> Result<Vec<Registration>, Error> {
        Ok(self.registry.list(after, limit)?)
    }

    /// The version of a workflow that was registered last, as it is stored. Blocks; not for a core's thread.
    ///
    /// # Errors
    /// The registry failed.
    pub fn newest(&self, name: &str) -> Result<Option<Registration>, Error> {
        Ok(self.registry.get(name, None)?)
    }

    fn compiled(&self, found: &Registration) -> Result<Arc<Entry>, Error> {
        let compiled = compile::compile_canonical(&found.canonical).map_err(|diagnostics| {
            Error::Stale(format!("{}@{}", found.name, found.version), diagnostics.to_string())
        })?;
        Ok(Arc::new(named(compiled, &found.name, &found.version)))
    }

    /// A copy that has room for one more.
    fn with_room(&self) -> Snapshot {
        let snapshot = self.snapshot.load();
        let full = snapshot.hashes.len() >= limits::CATALOG_DOCUMENTS_MAX;
        if full { Snapshot::default() } else { Snapshot::clone(&snapshot) }
    }

    fn add(&self, entry: &Arc<Entry>, is_latest: bool) {
        let mut snapshot = self.with_room();
        let versions = snapshot.names.entry(entry.name.clone()).or_default();
        versions.all.insert(entry.version.clone(), entry.clone());
        if is_latest {
            versions.latest = Some(entry.clone());
        }
        snapshot.hashes.insert(entry.compiled.hash, entry.clone());
        self.snapshot.store(Arc::new(snapshot));
    }
}

/// The version may have been assigned by the registry, so the IR learns its final name here.
fn named(mut compiled: Compiled, name: &str, version: &str) -> Entry {
    // Looked up by hash, a document brings no name: then what it says itself has to do.
    let known = |given: &str, own: &Arc<str>| if given.is_empty() { own.clone() } else { given.into() };
    let (name, version) = (known(name, &compiled.ir.name), known(version, &compiled.ir.version));
    // Just compiled, so nobody else holds it.
    if let Some(ir) = Arc::get_mut(&mut compiled.ir) {
        ir.name = name.clone();
        ir.version = version.clone();
    }
    Entry { name, version, compiled }
}
