//! Which calls wait for a place among those under way, and at which limit: kept while a call lasts, read by whoever shows
//! why a node waits.

#![expect(
    clippy::disallowed_types,
    reason = "one insert and one remove for each call, away from the runners"
)]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::model::{RunId, Seq};

/// An attempt.
type Name = (RunId, Seq);

/// What a call waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Its executor has not looked at it yet.
    Handed,
    /// As many calls go to its host as may.
    Host {
        /// Name or address, and port.
        host: String,
        /// `http.calls_per_host_max`
        max: usize,
    },
    /// As many calls are under way as may be.
    All {
        /// `http.calls_max`
        max: usize,
    },
    /// The answer.
    Answer {
        /// Name or address, and port.
        host: String,
    },
}

/// Calls that were handed out and have not ended.
#[derive(Debug, Default)]
pub struct Places {
    calls: Mutex<BTreeMap<Name, Stage>>,
    all_max: AtomicUsize,
    per_host_max: AtomicUsize,
}

/// A call; it is forgotten when this is dropped.
pub(super) struct Kept {
    places: Arc<Places>,
    name: Name,
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.places.lock().remove(&self.name);
    }
}

impl Places {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Name, Stage>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn limit(&self, all_max: usize, per_host_max: usize) {
        self.all_max.store(all_max, Ordering::Relaxed);
        self.per_host_max.store(per_host_max, Ordering::Relaxed);
    }

    pub(super) fn keep(self: &Arc<Self>, name: Name) -> Kept {
        self.lock().insert(name, Stage::Handed);
        Kept { places: self.clone(), name }
    }

    fn set(&self, name: Name, stage: Stage) {
        // One that was given up meanwhile is not brought back.
        if let Some(known) = self.lock().get_mut(&name) {
            *known = stage;
        }
    }

    pub(super) fn waits_for_host(&self, name: Name, host: &str) {
        self.set(name, Stage::Host { host: host.to_owned(), max: self.per_host_max.load(Ordering::Relaxed) });
    }

    pub(super) fn waits_for_all(&self, name: Name) {
        self.set(name, Stage::All { max: self.all_max.load(Ordering::Relaxed) });
    }

    pub(super) fn under_way(&self, name: Name, host: &str) {
        self.set(name, Stage::Answer { host: host.to_owned() });
    }

    /// What the call of an attempt waits for; `None` when there is none.
    pub fn stage(&self, name: Name) -> Option<Stage> {
        self.lock().get(&name).cloned()
    }
}
