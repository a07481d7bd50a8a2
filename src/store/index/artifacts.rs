//! Artifacts of patches in the index: what is due, and what was made, both by run and version.

use std::sync::atomic::Ordering;

use super::{Index, decode, encode, keys};
use crate::model::{RunId, Workspace};
use crate::store::Error;
use crate::store::artifacts::{Artifact, Artifacts, Due, Which};
use crate::store::keyspaces::{Batch, Gaps};

impl Index {
    /// Takes everything about a run's artifacts away in `batch`: whoever forgets a run does this in the same step. Their
    /// references go with those of the run.
    pub(super) fn drop_artifacts(
        &self,
        (batch, gaps): (&mut Batch, &mut Gaps),
        run_id: RunId,
    ) -> Result<(), Error> {
        for (key, _) in gaps.rows(&self.artifacts, run_id.as_bytes())? {
            batch.remove(&self.artifacts, key);
        }
        for (key, _) in gaps.rows(&self.artifacts_due, run_id.as_bytes())? {
            batch.remove(&self.artifacts_due, key);
            self.due_count.fetch_sub(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Counts what an earlier life of the node left to be made.
    pub(super) fn count_due(&self) -> Result<(), Error> {
        let mut count = 0;
        for guard in self.artifacts_due.iter() {
            guard.key()?;
            count += 1;
        }
        self.due_count.store(count, Ordering::Relaxed);
        Ok(())
    }
}

impl Artifacts for Index {
    fn note(&self, due: &[Due]) -> Result<Vec<Due>, Error> {
        let _nobody_forgets = self.forgetting();
        let mut batch = Batch::default();
        let mut new = Vec::with_capacity(due.len());
        for due in due {
            let key = keys::artifact(due.which());
            let known = self.artifacts.contains_key(key)? || self.artifacts_due.contains_key(key)?;
            // A run that is forgotten may be read once more from a segment that has not been moved.
            if known || self.tombstone(due.run_id)?.is_some() {
                continue;
            }
            batch.insert(&self.artifacts_due, key, encode(due)?);
            new.push(due.clone());
        }
        self.commit(batch)?;
        self.due_count.fetch_add(new.len() as u64, Ordering::Relaxed);
        Ok(new)
    }

    fn noted(&self, which: Which) -> Result<Option<Due>, Error> {
        self.row_of(&self.artifacts_due, &keys::artifact(which))
    }

    fn waiting(&self, after: Option<Which>, limit: usize) -> Result<Vec<Due>, Error> {
        let from = after.map_or_else(Vec::new, |after| [&keys::artifact(after)[..], &[0]].concat());
        self.artifacts_due.range(from..).take(limit).map(|guard| decode(&guard.value()?)).collect()
    }

    fn put_artifacts(&self, made: &[Artifact]) -> Result<(), Error> {
        let _nobody_forgets = self.forgetting();
        let mut batch = Batch::durable();
        for artifact in made {
            let key = keys::artifact((artifact.run_id, artifact.version));
            if self.artifacts.contains_key(key)? || !self.artifacts_due.contains_key(key)? {
                continue;
            }
            batch.insert(&self.artifacts, key, encode(artifact)?);
            let of = keys::content(&artifact.document, Some(&Workspace::of(&artifact.workflow)));
            let run_id = artifact.run_id.as_bytes();
            batch.insert(&self.run_blobs, [run_id, &of[..]].concat(), []);
            batch.insert(&self.blob_refs, [&of[..], run_id].concat(), []);
        }
        self.commit(batch)
    }

    fn settle(&self, which: &[Which]) -> Result<(), Error> {
        let _nobody_forgets = self.forgetting();
        let (mut batch, mut settled) = (Batch::default(), 0);
        for which in which {
            let key = keys::artifact(*which);
            if self.artifacts_due.contains_key(key)? {
                batch.remove(&self.artifacts_due, key);
                settled += 1;
            }
        }
        self.commit(batch)?;
        self.due_count.fetch_sub(settled, Ordering::Relaxed);
        Ok(())
    }

    fn lag(&self) -> u64 {
        self.due_count.load(Ordering::Relaxed)
    }

    fn artifacts_of(&self, run_id: RunId) -> Result<Vec<Artifact>, Error> {
        self.artifacts.prefix(run_id.as_bytes()).map(|guard| decode(&guard.value()?)).collect()
    }

    fn artifact(&self, which: Which) -> Result<Option<Artifact>, Error> {
        self.row_of(&self.artifacts, &keys::artifact(which))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::model::{Status, Value};
    use crate::store::index::testing::open;
    use crate::store::index::tests::row;
    use crate::store::testing::run_id;
    use crate::store::{Archive as _, References as _};
    use crate::time::Timestamp;

    fn due(run: RunId, version: u32) -> Due {
        let document = [u8::try_from(version).unwrap(); 32];
        let operations = Value::list(vec![Value::String("operations".into())]);
        Due { run_id: run, version, workflow: "acme/w".into(), before: [0; 32], document, operations }
    }

    fn made(due: &Due, at: u64) -> Artifact {
        Artifact {
            run_id: due.run_id,
            version: due.version,
            workflow: due.workflow.clone(),
            document: due.document,
            bytes: 7,
            materialised_at: Timestamp::from_micros(at),
        }
    }

    // F125, F126: a crash between the batch and the position means the same rows once more; and duplicates change nothing.
    #[test]
    pub(crate) fn what_is_delivered_again_is_put_once_and_settled() {
        let dir = tempfile::tempdir().unwrap();
        let all: Vec<Due> = (2..102).map(|version| due(run_id(1), version)).collect();
        let rows = |at| -> Vec<Artifact> { all.iter().map(|due| made(due, at)).collect() };
        {
            let index = open(dir.path());
            assert_eq!(index.note(&all).unwrap().len(), 100);
            assert_eq!(index.note(&all).unwrap(), []);
            index.put_artifacts(&rows(1)).unwrap();
        }
        // As after a crash before the position: due still, and there.
        let index = open(dir.path());
        assert_eq!((index.lag(), index.artifacts_of(run_id(1)).unwrap()), (100, rows(1)));
        assert_eq!(index.waiting(None, 1_000).unwrap(), all);
        index.put_artifacts(&rows(2)).unwrap();
        assert_eq!(index.artifacts_of(run_id(1)).unwrap(), rows(1), "the first rows stay");
        index.settle(&all.iter().map(Due::which).collect::<Vec<_>>()).unwrap();
        assert_eq!((index.lag(), index.waiting(None, 1_000).unwrap()), (0, Vec::new()));
        assert_eq!(index.noted((run_id(1), 57)).unwrap(), None);
        // Recovery notes everything that the journal has, again.
        assert_eq!(index.note(&all).unwrap(), []);
        assert_eq!(index.artifact((run_id(1), 57)).unwrap(), Some(made(&due(run_id(1), 57), 1)));
        let acme: Workspace = "acme".parse().unwrap();
        assert_eq!(index.referrers(&[9; 32], Some(&acme), 9).unwrap(), [run_id(1)]);
        assert_eq!(index.referrers(&[9; 32], Some(&Workspace::DEFAULT), 9).unwrap(), []);
    }

    // F131
    #[test]
    pub(crate) fn versions_are_shown_in_order_in_whatever_order_they_were_made() {
        let dir = tempfile::tempdir().unwrap();
        let index = open(dir.path());
        let (a, b) = (run_id(1), run_id(2));
        let all = [due(b, 2), due(a, 300 - 50), due(a, 2), due(b, 3)];
        index.note(&all).unwrap();
        let order = [(a, 2), (a, 250), (b, 2), (b, 3)];
        let which = |due: Vec<Due>| due.iter().map(Due::which).collect::<Vec<_>>();
        assert_eq!(which(index.waiting(None, 9).unwrap()), order);
        assert_eq!(which(index.waiting(Some((a, 2)), 2).unwrap()), [(a, 250), (b, 2)]);
        index.put_artifacts(&[made(&all[1], 1)]).unwrap();
        index.settle(&[(a, 250)]).unwrap();
        index.put_artifacts(&[made(&all[2], 2)]).unwrap();
        let versions: Vec<u32> = index.artifacts_of(a).unwrap().iter().map(|row| row.version).collect();
        assert_eq!(versions, [2, 250]);
    }

    // F125: rows go with the run, with what is due of it and with its references; a late batch does not bring it back.
    #[test]
    pub(crate) fn a_forgotten_run_keeps_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let index = open(dir.path());
        let ended = row(7, "acme/w", Status::Completed, &[1]);
        let run = ended.summary.run_id;
        let (first, second) = (due(run, 2), due(run, 3));
        index.note(&[first.clone(), second.clone()]).unwrap();
        index.put_artifacts(&[made(&first, 1)]).unwrap();
        index.settle(&[first.which()]).unwrap();
        crate::store::Archive::put(&index, &[ended]).unwrap();
        assert!(index.erase(run).unwrap());
        assert_eq!(
            (index.artifacts_of(run).unwrap(), index.waiting(None, 9).unwrap()),
            (Vec::new(), Vec::new())
        );
        assert_eq!(index.lag(), 0);
        assert_eq!(index.referrers(&first.document, None, 9).unwrap(), []);
        index.put_artifacts(&[made(&first, 2), made(&second, 2)]).unwrap();
        assert_eq!(index.note(&[first, second]).unwrap(), []);
        assert_eq!(
            (index.artifacts_of(run).unwrap(), index.waiting(None, 9).unwrap()),
            (Vec::new(), Vec::new())
        );
        assert_eq!(index.referring(None, 9).unwrap(), []);
    }
}
