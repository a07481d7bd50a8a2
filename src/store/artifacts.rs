//! The durable products of patches: which are still to be made ([`Due`]), and those that were ([`Artifact`]).
//!
//! Obligations:
//! 1. `note` is one batch, in order with rows and images of the archive, and need not be durable: what was noted is derived
//!    from the journal, as rows of finished runs are, and noted again by recovery. Noting twice is noting once. What was made
//!    is not due again, nor is anything of a run that is forgotten.
//! 2. `put_artifacts` is one batch, all rows with the references to their contents, or none, and durable on return. Only what is still
//!    due is put: so a run that was forgotten meanwhile does not come back. A row that is there stays as it is.
//! 3. `settle` is the position: what was put is not due any more. It need not be durable; what is due again after a crash is
//!    put again, which changes nothing.
//! 4. Whoever forgets a run forgets its rows and what is due of it in the same step.
//!
//! Used by several threads at once; blocking.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use serde::{Deserialize, Serialize};

use super::Error;
use crate::model::event::DocumentHash;
use crate::model::{RunId, Value};
use crate::time::Timestamp;

/// A change of a run's graph whose document is still to be stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Due {
    /// Whose.
    pub run_id: RunId,
    /// Version of the graph that it made.
    pub version: u32,
    /// The run's workflow, as inside the node.
    pub workflow: Arc<str>,
    /// Hash of the document before it.
    pub before: DocumentHash,
    /// Hash of the document after it.
    pub document: DocumentHash,
    /// What turns the one into the other; null where only the document was kept.
    pub operations: Value,
}

/// Which change of which run.
pub type Which = (RunId, u32);

impl Due {
    /// Its name.
    pub fn which(&self) -> Which {
        (self.run_id, self.version)
    }
}

/// A version of a run's graph whose document is in the content store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    /// Whose.
    pub run_id: RunId,
    /// 2 for the first patch.
    pub version: u32,
    /// The run's workflow, as inside the node.
    pub workflow: Arc<str>,
    /// Its name in the content store.
    pub document: DocumentHash,
    /// Bytes of the document.
    pub bytes: u64,
    /// When it was made.
    pub materialised_at: Timestamp,
}

/// Artifacts of runs. The module says what is owed.
pub trait Artifacts: Send + Sync {
    /// Notes what is to be made; gives those that were not noted before.
    ///
    /// # Errors
    /// It could not be written down.
    fn note(&self, due: &[Due]) -> Result<Vec<Due>, Error>;

    /// One that is due.
    ///
    /// # Errors
    /// The store cannot be read.
    fn noted(&self, which: Which) -> Result<Option<Due>, Error>;

    /// At most `limit` that are due, those after `after`, in the order of runs and versions.
    ///
    /// # Errors
    /// The store cannot be read.
    fn waiting(&self, after: Option<Which>, limit: usize) -> Result<Vec<Due>, Error>;

    /// Puts what was made. Their contents are durable.
    ///
    /// # Errors
    /// It could not be written down: nothing of it is there.
    fn put_artifacts(&self, made: &[Artifact]) -> Result<(), Error>;

    /// These are due no more.
    ///
    /// # Errors
    /// It could not be written down.
    fn settle(&self, which: &[Which]) -> Result<(), Error>;

    /// How many are due. Not blocking.
    fn lag(&self) -> u64;

    /// The artifacts of a run, by version.
    ///
    /// # Errors
    /// The store cannot be read.
    fn artifacts_of(&self, run_id: RunId) -> Result<Vec<Artifact>, Error>;

    /// One of them.
    ///
    /// # Errors
    /// The store cannot be read.
    fn artifact(&self, which: Which) -> Result<Option<Artifact>, Error>;
}

/// Artifacts in memory, gone with the process.
#[derive(Debug, Default)]
pub struct MemoryArtifacts {
    #[expect(clippy::disallowed_types, reason = "blocking threads only, and held for a look at a map")]
    rows: std::sync::Mutex<Rows>,
}

#[derive(Debug, Default)]
struct Rows {
    due: BTreeMap<Which, Due>,
    made: BTreeMap<Which, Artifact>,
}

impl MemoryArtifacts {
    fn rows(&self) -> std::sync::MutexGuard<'_, Rows> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Artifacts for MemoryArtifacts {
    fn note(&self, due: &[Due]) -> Result<Vec<Due>, Error> {
        let mut rows = self.rows();
        let mut new = Vec::new();
        for due in due {
            let which = due.which();
            if !rows.made.contains_key(&which) && rows.due.insert(which, due.clone()).is_none() {
                new.push(due.clone());
            }
        }
        Ok(new)
    }

    fn noted(&self, which: Which) -> Result<Option<Due>, Error> {
        Ok(self.rows().due.get(&which).cloned())
    }

    fn waiting(&self, after: Option<Which>, limit: usize) -> Result<Vec<Due>, Error> {
        let rows = self.rows();
        let all = rows.due.iter().filter(|(which, _)| after.is_none_or(|after| **which > after));
        Ok(all.map(|(_, due)| due.clone()).take(limit).collect())
    }

    fn put_artifacts(&self, made: &[Artifact]) -> Result<(), Error> {
        let mut rows = self.rows();
        for artifact in made {
            let which = (artifact.run_id, artifact.version);
            if rows.due.contains_key(&which) {
                rows.made.entry(which).or_insert_with(|| artifact.clone());
            }
        }
        Ok(())
    }

    fn settle(&self, which: &[Which]) -> Result<(), Error> {
        let mut rows = self.rows();
        for which in which {
            rows.due.remove(which);
        }
        Ok(())
    }

    fn lag(&self) -> u64 {
        self.rows().due.len() as u64
    }

    fn artifacts_of(&self, run_id: RunId) -> Result<Vec<Artifact>, Error> {
        let rows = self.rows();
        Ok(rows.made.range((run_id, 0)..=(run_id, u32::MAX)).map(|(_, made)| made.clone()).collect())
    }

    fn artifact(&self, which: Which) -> Result<Option<Artifact>, Error> {
        Ok(self.rows().made.get(&which).cloned())
    }
}
