//! Which run refers to which contents of the content store ([`References`]), and a reference in memory of what that owes.
//!
//! Obligations:
//! 1. `refer` is durable on return, all of it or none. It comes before whatever makes the run refer, so a content that a
//!    run's events name always has its reference here.
//! 2. A reference holds until `forget`, or until the archive forgets the run (`Archive::expire`, in the same batch).
//! 3. References of a workspace are found without looking at those of others.
//!
//! Used by several threads at once; blocking.

use std::collections::BTreeSet;
use std::sync::PoisonError;

use super::Error;
use crate::model::{ContentHash, RunId, Workspace};

/// References of runs to contents. The module says what is owed.
pub trait References: Send + Sync {
    /// The run, of this workspace, refers to these contents.
    ///
    /// # Errors
    /// It could not be written down.
    fn refer(&self, run_id: RunId, workspace: &Workspace, contents: &[ContentHash]) -> Result<(), Error>;

    /// At most `limit` runs that refer to a content; of one workspace, when one is given.
    ///
    /// # Errors
    /// The store cannot be read.
    fn referrers(
        &self,
        content: &ContentHash,
        workspace: Option<&Workspace>,
        limit: usize,
    ) -> Result<Vec<RunId>, Error>;

    /// At most `limit` runs with references, those after `after`, in order.
    ///
    /// # Errors
    /// The store cannot be read.
    fn referring(&self, after: Option<RunId>, limit: usize) -> Result<Vec<RunId>, Error>;

    /// The run refers to nothing any more. Need not be durable.
    ///
    /// # Errors
    /// It could not be written down.
    fn forget(&self, run_id: RunId) -> Result<(), Error>;
}

type Row = (ContentHash, Workspace, RunId);

/// References in memory, gone with the process.
#[derive(Debug, Default)]
pub struct MemoryReferences {
    #[expect(clippy::disallowed_types, reason = "blocking threads only, and held for a look at a set")]
    rows: std::sync::Mutex<BTreeSet<Row>>,
}

impl MemoryReferences {
    fn rows(&self) -> std::sync::MutexGuard<'_, BTreeSet<Row>> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl References for MemoryReferences {
    fn refer(&self, run_id: RunId, workspace: &Workspace, contents: &[ContentHash]) -> Result<(), Error> {
        self.rows().extend(contents.iter().map(|content| (*content, workspace.clone(), run_id)));
        Ok(())
    }

    fn referrers(
        &self,
        content: &ContentHash,
        workspace: Option<&Workspace>,
        limit: usize,
    ) -> Result<Vec<RunId>, Error> {
        let rows = self.rows();
        let rows = rows
            .iter()
            .filter(|(of, within, _)| of == content && workspace.is_none_or(|workspace| workspace == within));
        Ok(rows.map(|(_, _, run_id)| *run_id).take(limit).collect())
    }

    fn referring(&self, after: Option<RunId>, limit: usize) -> Result<Vec<RunId>, Error> {
        let runs: BTreeSet<RunId> = self.rows().iter().map(|(_, _, run_id)| *run_id).collect();
        Ok(runs.into_iter().filter(|run_id| after.is_none_or(|after| *run_id > after)).take(limit).collect())
    }

    fn forget(&self, run_id: RunId) -> Result<(), Error> {
        self.rows().retain(|(_, _, referring)| *referring != run_id);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::index::Index;
    use crate::store::testing::run_id;

    fn suite(references: &dyn References) {
        let acme: Workspace = "acme".parse().unwrap();
        let (a, b): (ContentHash, ContentHash) = ([1; 32], [2; 32]);
        references.refer(run_id(1), &Workspace::DEFAULT, &[a, b]).unwrap();
        references.refer(run_id(2), &acme, &[a]).unwrap();
        references.refer(run_id(2), &acme, &[a]).unwrap();
        references.refer(run_id(3), &acme, &[a, b]).unwrap();
        let of = |content, workspace| references.referrers(content, workspace, 10).unwrap();
        assert_eq!(of(&a, Some(&acme)), [run_id(2), run_id(3)]);
        assert_eq!(of(&b, Some(&Workspace::DEFAULT)), [run_id(1)]);
        assert_eq!(of(&a, None).len(), 3);
        assert_eq!(of(&[3; 32], None), []);
        assert_eq!(references.referrers(&a, None, 2).unwrap().len(), 2);
        assert_eq!(references.referring(None, 2).unwrap(), [run_id(1), run_id(2)]);
        assert_eq!(references.referring(Some(run_id(2)), 2).unwrap(), [run_id(3)]);
        references.forget(run_id(1)).unwrap();
        references.forget(run_id(1)).unwrap();
        assert_eq!(of(&b, None), [run_id(3)]);
        assert_eq!(references.referring(None, 9).unwrap(), [run_id(2), run_id(3)]);
        // `ac` is the beginning of another workspace's name.
        assert_eq!(of(&a, Some(&"ac".parse().unwrap())), []);
    }

    // F060
    #[test]
    fn both_do_as_they_should() {
        suite(&MemoryReferences::default());
        let dir = tempfile::tempdir().unwrap();
        suite(&Index::open(dir.path()).unwrap());
        // And what was written is there again.
        let again = Index::open(dir.path()).unwrap();
        assert_eq!(again.referring(None, 9).unwrap(), [run_id(2), run_id(3)]);
    }
}
