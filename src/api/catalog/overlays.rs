//! Patches of a workflow's scope: what is noted about them, and the documents that its runs begin with.
//!
//! A note has all that is known of one patch, and what becomes of it replaces the note. A run begins with the registered
//! version that it names and the patches in force on it, in the order in which they came into force. One that was made for
//! another version is put on this one when what differs between the two is apart from what it touches; otherwise it is left out
//! with the reason, which the run's record keeps. A document that patches made is stored before a run may name it.
//!
//! Notes are read once and kept in memory for at most [`limits::CATALOG_DOCUMENTS_MAX`] workflows; above that all are forgotten
//! and read again. Whoever changes notes takes turns. Reads of what is at hand take no lock.

use std::sync::{Arc, PoisonError};

use ahash::AHashMap;
use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::super::ports::Amendment;
use super::{Catalog, Entry, Error, Turn};
use crate::compile::patch::{self, Patch};
use crate::limits;
use crate::model::Value;
use crate::model::event::{DocumentHash, Idempotency};
use crate::model::patch::Layered;
use crate::time::Timestamp;

/// What notes of patches begin with.
const PATCHES: &[u8] = b"patch/";
/// What notes of patch sets begin with.
const SETS: &[u8] = b"set/";

/// Named patches of a workflow: an arm of an experiment. A patch that stands in a set is for runs of that set only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PatchSet {
    /// Its name.
    pub name: Arc<str>,
    /// Ids of its patches.
    pub patches: Vec<Arc<str>>,
    /// Its share of the starts that name no set.
    pub weight: u32,
}

/// What becomes of a workflow's overlay.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// Patches as they are now; one with a new order is added.
    pub rows: Vec<Overlay>,
    /// Sets as they are now.
    pub sets: Vec<PatchSet>,
    /// Names of sets that are no more.
    pub gone: Vec<Arc<str>>,
}

/// One patch of a workflow's scope.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Overlay {
    /// Its id.
    pub patch_id: Arc<str>,
    /// Where it stands among the patches of the workflow: 1, 2, 3, ...
    pub order: u64,
    /// What has become of it.
    pub state: State,
    /// Who wants it.
    pub author: Arc<str>,
    /// Why, in the author's words.
    pub justification: Arc<str>,
    /// RFC 6902, on the canonical document; nodes and edges by id.
    pub operations: Value,
    /// The registered version that it was made for.
    pub base: Made,
    /// When it was proposed, in microseconds.
    pub at: u64,
    /// Version of the overlay that it made.
    pub version: Option<u32>,
    /// Why it waits for a human, or did, and for which version of the overlay it was found good.
    pub held: Option<(Arc<str>, u32)>,
    /// What a human decided.
    pub decided: Option<Mark>,
    /// By whom it was taken back.
    pub revoked: Option<Mark>,
    /// Under which key it was proposed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub once: Option<Once>,
}

/// What was done under an `Idempotency-Key`, and how it was answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Once {
    /// The key and what was asked for.
    #[serde(flatten)]
    pub idempotency: Idempotency,
    /// What runs began with then.
    pub hash: Arc<str>,
}

/// A registered version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    /// Its version.
    pub version: Arc<str>,
    /// Hash of its document.
    pub hash: DocumentHash,
}

/// What has become of a patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Runs begin with it.
    Applied,
    /// It waits for a human.
    Held,
    /// A human did not want it.
    Rejected,
    /// It was taken back.
    Revoked,
}

/// Who did something, why and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Who.
    pub by: Arc<str>,
    /// Why, in his own words.
    pub reason: Arc<str>,
    /// When, in microseconds.
    pub at: u64,
    /// Version of the overlay that followed, when one did.
    pub version: Option<u32>,
    /// Under which key it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub once: Option<Once>,
}

/// A registered version, and the patch set of a run.
type Arm = (DocumentHash, Option<Arc<str>>);

/// All patches of a workflow.
#[derive(Debug, Default)]
pub struct Overlays {
    /// In order.
    pub rows: Vec<Arc<Overlay>>,
    /// By name.
    pub sets: Vec<PatchSet>,
    /// What runs of each version, and of each set, begin with.
    laid: ArcSwap<AHashMap<Arm, Laid>>,
}

/// What a run begins with.
#[derive(Clone, Debug)]
pub struct Laid {
    /// The document.
    pub entry: Arc<Entry>,
    /// What it is made of; `None`: just the registered version.
    pub layered: Option<Arc<Layered>>,
}

impl Overlays {
    /// Those that runs begin with, in the order in which they came into force.
    pub fn in_force(&self) -> Vec<Arc<Overlay>> {
        let mut all: Vec<_> = self.rows.iter().filter(|row| row.state == State::Applied).cloned().collect();
        all.sort_by_key(|row| row.version);
        all
    }

    /// Those that runs of this set begin with, or those of none: what stands in no set, and what stands in this one.
    pub fn of_set(&self, set: Option<&str>) -> Vec<Arc<Overlay>> {
        let mut all = self.in_force();
        all.retain(|row| {
            let mut sets = self.sets.iter().filter(|set| set.patches.contains(&row.patch_id)).peekable();
            sets.peek().is_none() || sets.any(|own| Some(&*own.name) == set)
        });
        all
    }

    /// One set.
    pub fn set(&self, name: &str) -> Option<&PatchSet> {
        self.sets.iter().find(|set| *set.name == *name)
    }

    /// The set of a start that names none: by weight, and the same one for the same key for as long as the weights stand.
    pub fn draw(&self, key: &[u8]) -> Option<&PatchSet> {
        let total: u64 = self.sets.iter().map(|set| u64::from(set.weight)).sum();
        let hash = Sha256::new().chain_update(b"patch set\0").chain_update(key).finalize();
        let drawn = u64::from_be_bytes(*hash.first_chunk()?).checked_rem(total)?;
        let mut upto = 0;
        self.sets.iter().find(|set| {
            upto += u64::from(set.weight);
            drawn < upto
        })
    }

    /// Of the overlay: 1, and one more with each patch that is made or taken back.
    pub fn version(&self) -> u32 {
        let revoked = |row: &Overlay| row.revoked.as_ref().and_then(|mark| mark.version);
        let versions = self.rows.iter().flat_map(|row| [row.version, revoked(row)]);
        versions.flatten().max().unwrap_or(1)
    }

    /// One patch.
    pub fn find(&self, patch_id: &str) -> Option<&Arc<Overlay>> {
        self.rows.iter().find(|row| *row.patch_id == *patch_id)
    }

    /// With these rows as they are now; a row with a new order is added.
    #[must_use]
    pub fn with(&self, changes: &Changes) -> Self {
        let mut rows = self.rows.clone();
        for row in &changes.rows {
            match rows.iter_mut().find(|known| known.order == row.order) {
                Some(known) => *known = Arc::new(row.clone()),
                None => rows.push(Arc::new(row.clone())),
            }
        }
        let changed = |set: &&PatchSet| {
            !changes.gone.contains(&set.name) && changes.sets.iter().all(|other| other.name != set.name)
        };
        let mut sets: Vec<_> = self.sets.iter().filter(changed).chain(&changes.sets).cloned().collect();
        sets.sort_by(|a, b| a.name.cmp(&b.name));
        Self { rows, sets, laid: ArcSwap::default() }
    }
}

/// Notes of overlays in memory, and whose turn it is to change them.
#[derive(Default)]
pub(super) struct Noted {
    known: ArcSwap<AHashMap<Arc<str>, Arc<Overlays>>>,
    #[expect(clippy::disallowed_types, reason = "held on blocking threads, by those who change notes")]
    turn: std::sync::Mutex<()>,
}

impl Noted {
    fn put(&self, name: &str, overlays: &Arc<Overlays>) {
        let known = self.known.load();
        let full = known.len() >= limits::CATALOG_DOCUMENTS_MAX;
        let mut next = if full { AHashMap::default() } else { AHashMap::clone(&known) };
        next.insert(name.into(), overlays.clone());
        self.known.store(Arc::new(next));
    }
}

impl Catalog {
    /// What a run of this version begins with, from memory alone.
    pub fn laid_cached(&self, entry: &Arc<Entry>, choice: Choice<'_>) -> Option<Laid> {
        let known = self.overlays.known.load();
        let overlays = known.get(&entry.name)?;
        if overlays.rows.is_empty() && overlays.sets.is_empty() {
            return Some(Laid { entry: entry.clone(), layered: None });
        }
        let set = overlays.chosen(choice);
        overlays.laid.load().get(&(entry.compiled.hash, set)).cloned()
    }

    /// What a run of this version begins with; its document is stored. Blocks.
    ///
    /// # Errors
    /// The registry failed.
    pub fn lay(&self, entry: &Arc<Entry>, choice: Choice<'_>) -> Result<Laid, Error> {
        if let Some(laid) = self.laid_cached(entry, choice) {
            return Ok(laid);
        }
        let overlays = self.overlays(&entry.name)?;
        let set = overlays.chosen(choice);
        let mut laid = self.put_on(entry, &overlays.of_set(set.as_deref()))?;
        if let Some(set) = &set {
            let base = entry.compiled.hash;
            let none = || Arc::new(Layered { base, patches: Vec::new(), left_out: Vec::new(), set: None });
            let mut layered = laid.layered.take().unwrap_or_else(none);
            Arc::make_mut(&mut layered).set = Some(set.clone());
            laid.layered = Some(layered);
        }
        if laid.entry.compiled.hash != entry.compiled.hash {
            let document = (&laid.entry.compiled.hash, laid.entry.compiled.canonical.as_bytes());
            let documents = vec![document];
            self.registry.amend(&entry.name, &Amendment { documents, ..Amendment::default() })?;
        }
        overlays.laid.rcu(|known| {
            let mut known = AHashMap::clone(known);
            known.insert((entry.compiled.hash, set.clone()), laid.clone());
            known
        });
        Ok(laid)
    }

    /// All patches of a workflow. Blocks.
    ///
    /// # Errors
    /// The registry failed.
    pub fn overlays(&self, name: &str) -> Result<Arc<Overlays>, Error> {
        let _turn = self.overlays.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.noted(name)
    }

    fn noted(&self, name: &str) -> Result<Arc<Overlays>, Error> {
        if let Some(known) = self.overlays.known.load().get(name) {
            return Ok(known.clone());
        }
        let mut rows = Vec::new();
        for (_, note) in self.registry.notes(name, PATCHES)? {
            let row: Overlay = serde_json::from_slice(&note).map_err(|error| {
                Error::Note(crate::model::workspace::shown(name).into(), error.to_string())
            })?;
            rows.push(Arc::new(row));
        }
        let mut sets = Vec::new();
        for (_, note) in self.registry.notes(name, SETS)? {
            let set: PatchSet = serde_json::from_slice(&note).map_err(|error| {
                Error::Note(crate::model::workspace::shown(name).into(), error.to_string())
            })?;
            sets.push(set);
        }
        let overlays = Arc::new(Overlays { rows, sets, laid: ArcSwap::default() });
        self.overlays.put(name, &overlays);
        Ok(overlays)
    }

    /// Changes what is noted about patches of a workflow: what `change` gives back of those there are is durable before
    /// anybody sees it. One change at a time. Blocks.
    ///
    /// # Errors
    /// Those of `change`; or the registry failed, and nothing has changed.
    pub fn amend_overlays<T, E: From<Error>>(
        &self,
        name: &str,
        change: impl FnOnce(&Overlays) -> Result<(Changes, T), E>,
    ) -> Result<T, E> {
        let _turn = self.overlays.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.noted(name)?;
        let (changes, told) = change(&before)?;
        let mut amendment = Amendment::default();
        let unwritable = |error: serde_json::Error| Error::Note(name.to_owned(), error.to_string());
        for row in &changes.rows {
            let key = [PATCHES, &row.order.to_be_bytes()].concat();
            amendment.notes.push((key, Some(serde_json::to_vec(row).map_err(unwritable)?)));
        }
        for set in &changes.sets {
            let key = [SETS, set.name.as_bytes()].concat();
            amendment.notes.push((key, Some(serde_json::to_vec(set).map_err(unwritable)?)));
        }
        amendment.notes.extend(changes.gone.iter().map(|name| ([SETS, name.as_bytes()].concat(), None)));
        if amendment.notes.is_empty() {
            return Ok(told);
        }
        crate::failpoint::pass("registry::before_put");
        self.registry.amend(name, &amendment).map_err(Error::from)?;
        crate::failpoint::pass("registry::after_put");
        self.overlays.put(name, &Arc::new(before.with(&changes)));
        Ok(told)
    }

    /// A registered version with these patches on it, as far as they fit. Blocks.
    ///
    /// # Errors
    /// A document is not to be had.
    pub fn put_on(&self, entry: &Arc<Entry>, patches: &[Arc<Overlay>]) -> Result<Laid, Error> {
        if patches.is_empty() {
            return Ok(Laid { entry: entry.clone(), layered: None });
        }
        let mut made = entry.clone();
        let (mut on, mut left_out) = (Vec::new(), Vec::new());
        for row in patches {
            match self.one_on(entry, &made, row)? {
                Ok(next) => {
                    made = next;
                    on.push(row.patch_id.clone());
                }
                Err(why) => left_out.push((row.patch_id.clone(), why.into())),
            }
        }
        let base = entry.compiled.hash;
        let layered = Arc::new(Layered { base, patches: on, left_out, set: None });
        Ok(Laid { entry: made, layered: Some(layered) })
    }

    /// One patch on what those before it made; the inner error says why it does not fit.
    fn one_on(
        &self,
        base: &Arc<Entry>,
        before: &Arc<Entry>,
        row: &Overlay,
    ) -> Result<Result<Arc<Entry>, String>, Error> {
        let patch = match patch::read(&row.operations) {
            Ok(patch) => patch,
            Err(refusal) => return Ok(Err(refusal.to_string())),
        };
        if row.base.hash != base.compiled.hash && self.meets(base, row, &patch)? {
            let (from, to) = (&row.base.version, &base.version);
            return Ok(Err(format!("what differs between the versions {from} and {to} is what it touches")));
        }
        Ok(match patch::candidate(&before.compiled, &patch) {
            Ok(candidate) => Ok(self.hold(before, candidate.compiled, Turn::Blocking)),
            Err(refusal) => Err(refusal.to_string()),
        })
    }

    /// Does what differs between the version that a patch was made for and this one meet what it touches?
    fn meets(&self, base: &Arc<Entry>, row: &Overlay, patch: &Patch) -> Result<bool, Error> {
        let Some(known) = self.load_hash(&row.base.hash)? else { return Ok(true) };
        let (before, after) = (&known.compiled.document, &base.compiled.document);
        Ok(patch.touched().overlaps(&patch::Touched::between(&patch::diff(before, after))))
    }
}

/// Which patch set a start is of.
#[derive(Clone, Copy, Debug)]
pub enum Choice<'a> {
    /// The caller names it.
    Named(&'a str),
    /// It is drawn by weight, from these bytes.
    Drawn(&'a [u8]),
}

impl Overlays {
    fn chosen(&self, choice: Choice<'_>) -> Option<Arc<str>> {
        let set = match choice {
            Choice::Named(name) => self.set(name),
            Choice::Drawn(key) => self.draw(key),
        };
        set.map(|set| set.name.clone())
    }
}

impl Overlay {
    /// When it was proposed.
    pub fn proposed_at(&self) -> Timestamp {
        Timestamp::from_micros(self.at)
    }
}
