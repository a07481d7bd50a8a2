//! References of runs to contents, in two keyspaces: by content, and by run.

use super::{Index, keys};
use crate::model::{ContentHash, RunId, Workspace};
use crate::store::Error;
use crate::store::keyspaces::{Batch, Gaps};
use crate::store::references::References;

impl Index {
    /// Takes a run's references away in `batch`: whoever forgets a run does this in the same step.
    pub(super) fn drop_references(
        &self,
        (batch, gaps): (&mut Batch, &mut Gaps),
        run_id: RunId,
    ) -> Result<(), Error> {
        for (key, _) in gaps.rows(&self.run_blobs, run_id.as_bytes())? {
            let rest = key.get(16..).unwrap_or_default();
            batch.remove(&self.blob_refs, [rest, run_id.as_bytes()].concat());
            batch.remove(&self.run_blobs, key);
        }
        Ok(())
    }
}

impl Index {
    /// Directories from before documents were found by hash have none of these rows: they are made once.
    pub(super) fn name_documents(&self) -> Result<(), Error> {
        if self.document_names.first_key_value().is_some() {
            return Ok(());
        }
        let mut batch = Batch::durable();
        for guard in self.by_document.iter() {
            let key = guard.key()?;
            if let Some(hash) = key.last_chunk::<32>() {
                batch.insert(&self.document_names, keys::document_name(hash, &keys::name(&key)), []);
            }
        }
        self.commit(batch)
    }
}

impl References for Index {
    fn refer(&self, run_id: RunId, workspace: &Workspace, contents: &[ContentHash]) -> Result<(), Error> {
        let mut batch = Batch::durable();
        for content in contents {
            let of = keys::content(content, Some(workspace));
            batch.insert(&self.run_blobs, [run_id.as_bytes(), &of[..]].concat(), []);
            batch.insert(&self.blob_refs, [&of[..], run_id.as_bytes()].concat(), []);
        }
        self.commit(batch)
    }

    fn referrers(
        &self,
        content: &ContentHash,
        workspace: Option<&Workspace>,
        limit: usize,
    ) -> Result<Vec<RunId>, Error> {
        let rows = self.blob_refs.prefix(keys::content(content, workspace)).take(limit);
        let runs = rows.map(|guard| Ok(keys::parse_run(&guard.key()?)));
        Ok(runs.collect::<Result<Vec<_>, Error>>()?.into_iter().flatten().collect())
    }

    fn referring(&self, after: Option<RunId>, limit: usize) -> Result<Vec<RunId>, Error> {
        // After every content of that run: a name of a workspace begins lower than 0xff.
        let mut from = after.map_or_else(Vec::new, |after| [&after.as_bytes()[..], &[0xff; 33]].concat());
        let mut found = Vec::new();
        while found.len() < limit {
            let Some(guard) = self.run_blobs.range(from..).next() else { break };
            let key = guard.key()?;
            let Some(run_id) = key.first_chunk::<16>().map(|bytes| RunId::from_bytes(*bytes)) else { break };
            found.push(run_id);
            from = [&run_id.as_bytes()[..], &[0xff; 33]].concat();
        }
        Ok(found)
    }

    fn forget(&self, run_id: RunId) -> Result<(), Error> {
        let mut batch = Batch::default();
        self.drop_references((&mut batch, &mut Gaps::default()), run_id)?;
        self.commit(batch)
    }
}
