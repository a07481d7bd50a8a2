//! Documents that patches made: derived from the registered one and the operations in the log.
//!
//! They are never registered: what is not at hand is made again. A document that comes out with another hash than the log
//! says is refused, so a change of the compiler cannot change what a run does. The latest are kept, at most
//! [`limits::PATCHED_DOCUMENTS_MAX`] with [`limits::PATCHED_DOCUMENTS_BYTES_MAX`] of text; above that the oldest goes. What may
//! wait is for blocking threads. A core looks and keeps only if nobody else does so at this moment ([`Turn::Core`]): what it does
//! not find is left to a blocking thread, and what it does not keep is made again.

use std::collections::VecDeque;
use std::sync::{Arc, MutexGuard, PoisonError, TryLockError};

use ahash::AHashMap;

use super::{Catalog, Entry, Error};
use crate::compile::{self, Compiled};
use crate::limits;
use crate::model::event::DocumentHash;
use crate::model::patch::{Change, Layer};
use crate::wire::Hash;

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// A thread that may wait.
    Blocking,
    /// A core's, which waits for nobody.
    Core,
}

/// The latest documents.
#[derive(Default)]
pub(super) struct Recent {
    #[expect(clippy::disallowed_types, reason = "held for a look at a map; cores only try")]
    state: std::sync::Mutex<State>,
}

#[derive(Default)]
struct State {
    entries: AHashMap<DocumentHash, Arc<Entry>>,
    oldest_first: VecDeque<DocumentHash>,
    bytes: usize,
}

impl Recent {
    fn state(&self, turn: Turn) -> Option<MutexGuard<'_, State>> {
        match (turn, self.state.try_lock()) {
            (_, Ok(state)) => Some(state),
            (_, Err(TryLockError::Poisoned(poisoned))) => Some(poisoned.into_inner()),
            (Turn::Core, Err(TryLockError::WouldBlock)) => None,
            (Turn::Blocking, Err(TryLockError::WouldBlock)) => {
                Some(self.state.lock().unwrap_or_else(PoisonError::into_inner))
            }
        }
    }

    fn get(&self, document: &DocumentHash, turn: Turn) -> Option<Arc<Entry>> {
        self.state(turn)?.entries.get(document).cloned()
    }

    fn put(&self, entry: &Arc<Entry>, turn: Turn) {
        // Freed when nobody waits for it.
        let mut gone = Vec::new();
        let Some(mut state) = self.state(turn) else { return };
        let hash = entry.compiled.hash;
        if let Some(same) = state.entries.insert(hash, entry.clone()) {
            gone.push(same);
        } else {
            state.oldest_first.push_back(hash);
            state.bytes += entry.compiled.canonical.len();
        }
        while state.entries.len() > limits::PATCHED_DOCUMENTS_MAX
            || state.bytes > limits::PATCHED_DOCUMENTS_BYTES_MAX
        {
            let Some(oldest) = state.oldest_first.pop_front() else { break };
            if let Some(oldest) = state.entries.remove(&oldest) {
                state.bytes = state.bytes.saturating_sub(oldest.compiled.canonical.len());
                gone.push(oldest);
            }
        }
        drop(state);
    }
}

impl Catalog {
    /// The document that a base and its layers become by a change. Blocks.
    ///
    /// # Errors
    /// The base is not to be had, or the change gives another document than `document`.
    pub fn after(
        &self,
        base: &DocumentHash,
        layers: &[Arc<Layer>],
        change: &Change,
        document: &DocumentHash,
    ) -> Result<Arc<Entry>, Error> {
        match self.at_hand(document) {
            Some(entry) => Ok(entry),
            None => {
                let before = self.with_layers(base, layers)?;
                self.derived(&before, change, document)
            }
        }
    }

    /// The document that a base is with these layers. Blocks.
    ///
    /// # Errors
    /// As [`after`](Self::after).
    pub fn with_layers(&self, base: &DocumentHash, layers: &[Arc<Layer>]) -> Result<Arc<Entry>, Error> {
        let latest = layers
            .iter()
            .enumerate()
            .rev()
            .find_map(|(at, layer)| self.at_hand(&layer.document).map(|entry| (at + 1, entry)));
        let (done, mut entry) = match latest {
            Some(latest) => latest,
            None => (0, self.load_hash(base)?.ok_or_else(|| Error::NoDocument(Hash(base).to_string()))?),
        };
        for layer in layers.get(done..).unwrap_or_default() {
            entry = self.derived(&entry, &layer.change, &layer.document)?;
        }
        Ok(entry)
    }

    /// Keeps what a patch made of `before`; who may not wait for others may keep it in vain.
    pub fn hold(&self, before: &Entry, compiled: Compiled, turn: Turn) -> Arc<Entry> {
        let entry = Arc::new(super::named(compiled, &before.name, &before.version));
        self.patched.put(&entry, turn);
        entry
    }

    /// Forgets them all, as when the process ends.
    #[cfg(test)]
    pub(crate) fn forget_patched(&self) {
        *self.patched.state.lock().unwrap() = State::default();
    }

    /// From memory. Blocks for a moment.
    pub fn at_hand(&self, document: &DocumentHash) -> Option<Arc<Entry>> {
        self.patched.get(document, Turn::Blocking).or_else(|| self.cached_hash(document))
    }

    /// The same for a core: `None` also when others are looking.
    pub fn at_hand_at_once(&self, document: &DocumentHash) -> Option<Arc<Entry>> {
        self.patched.get(document, Turn::Core).or_else(|| self.cached_hash(document))
    }

    /// One that was stored instead of the operations that make it. Blocks.
    fn stored(&self, before: &Entry, document: &DocumentHash) -> Result<Arc<Entry>, Error> {
        let text = self.registry.patched(document)?;
        let text = text.ok_or_else(|| Error::NoDocument(Hash(document).to_string()))?;
        let made = compile::compile_canonical(&text)
            .map_err(|refused| Error::Underivable(Hash(document).to_string(), refused.to_string()))?;
        if made.hash != *document {
            let why = format!("it came out as {}", Hash(&made.hash));
            return Err(Error::Underivable(Hash(document).to_string(), why));
        }
        Ok(self.hold(before, made, Turn::Blocking))
    }

    /// The layers, each with operations: where none are kept, with what its document differs by from the one before. Blocks.
    ///
    /// # Errors
    /// As [`after`](Self::after).
    pub fn with_operations(
        &self,
        base: &DocumentHash,
        layers: &[Arc<Layer>],
    ) -> Result<Vec<Arc<Layer>>, Error> {
        let mut whole = Vec::with_capacity(layers.len());
        let mut before = self.with_layers(base, &[])?;
        for layer in layers {
            let after = self.derived_or_at_hand(&before, layer)?;
            whole.push(if layer.change.is_kept() {
                layer.clone()
            } else {
                let difference =
                    compile::patch::difference(&before.compiled.document, &after.compiled.document);
                let change = layer.change.clone().with_operations(difference);
                Arc::new(Layer { change, ..Layer::clone(layer) })
            });
            before = after;
        }
        Ok(whole)
    }

    fn derived_or_at_hand(&self, before: &Entry, layer: &Layer) -> Result<Arc<Entry>, Error> {
        match self.at_hand(&layer.document) {
            Some(entry) => Ok(entry),
            None => self.derived(before, &layer.change, &layer.document),
        }
    }

    fn derived(&self, before: &Entry, change: &Change, document: &DocumentHash) -> Result<Arc<Entry>, Error> {
        if !change.is_kept() {
            return self.stored(before, document);
        }
        let underivable = |why: String| Error::Underivable(Hash(document).to_string(), why);
        let made = compile::patch::read(change.operations())
            .and_then(|patch| compile::patch::remake(&before.compiled, &patch))
            .map_err(|refusal| underivable(refusal.to_string()))?;
        if made.hash != *document {
            return Err(underivable(format!("it came out as {}", Hash(&made.hash))));
        }
        Ok(self.hold(before, made, Turn::Blocking))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_core_waits_for_nobody() {
        let text = br#"{"name": "w", "nodes": {"a": {"type": "function"}}}"#;
        let compiled = compile::compile_canonical(text).unwrap();
        let entry = Arc::new(super::super::named(compiled, "w", "1"));
        let (recent, hash) = (Recent::default(), entry.compiled.hash);
        let looking = recent.state(Turn::Blocking).unwrap();
        assert!(recent.state(Turn::Core).is_none());
        assert!(recent.get(&hash, Turn::Core).is_none());
        recent.put(&entry, Turn::Core);
        drop(looking);
        assert!(recent.get(&hash, Turn::Blocking).is_none(), "it was not kept");
        recent.put(&entry, Turn::Core);
        assert!(recent.get(&hash, Turn::Core).is_some());
    }
}
