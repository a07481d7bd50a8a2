//! Pages of finished runs, newest first, without a look at runs of other workflows or statuses.
//!
//! Runs of a workspace, and of a workflow, stand by status and id. A page is merged from one range for each status asked for;
//! what is left to filter (a version, the last seconds of a span) is judged row by row, at most `scan_limit` of them.

use fjall::{Iter, Keyspace};

use super::{Index, keys};
use crate::model::{RunId, Status};
use crate::store::Error;
use crate::store::archive::{ArchivePage, ArchiveQuery};

/// One range, and the newest id of it that has not been taken.
struct Source {
    rows: std::iter::Rev<Iter>,
    head: Option<RunId>,
}

impl Source {
    fn new(keyspace: &Keyspace, from: Vec<u8>, end: Vec<u8>) -> Result<Self, Error> {
        let mut source = Self { rows: keyspace.range(from..end).rev(), head: None };
        source.advance()?;
        Ok(source)
    }

    fn advance(&mut self) -> Result<(), Error> {
        self.head = match self.rows.next() {
            Some(guard) => keys::parse_member(&guard.key()?),
            None => None,
        };
        Ok(())
    }
}

impl Index {
    pub(super) fn page(&self, query: &ArchiveQuery) -> Result<ArchivePage, Error> {
        let mut sources = self.sources(query)?;
        let mut page = ArchivePage::default();
        let mut last = None;
        while let Some(newest) = sources.iter_mut().max_by_key(|source| source.head) {
            let Some(run_id) = newest.head else { break };
            if page.rows.len() >= query.limit || page.looked_at >= query.scan_limit {
                page.next = last;
                break;
            }
            newest.advance()?;
            last = Some(run_id);
            page.looked_at += 1;
            page.rows.extend(self.run(run_id)?.filter(|row| query.filter.fits_summary(&row.summary)));
        }
        Ok(page)
    }

    /// The ranges that hold what is asked for.
    fn sources(&self, query: &ArchiveQuery) -> Result<Vec<Source>, Error> {
        let (from, end) = bounds(query);
        let filter = &query.filter;
        if let Some(run_key) = &filter.run_key {
            let key = |run_id| keys::run_key(&filter.workspace, run_key, run_id);
            return Ok(vec![Source::new(&self.run_keys, key(from), key(end))?]);
        }
        let (keyspace, name) = match &filter.workflow {
            Some(workflow) => (&self.by_workflow, &**workflow),
            None => (&self.by_status, filter.workspace.name()),
        };
        let ended = [Status::Completed, Status::Failed, Status::Cancelled];
        let wanted =
            ended.into_iter().filter(|status| filter.statuses.is_empty() || filter.statuses.contains(status));
        let key = |status, run_id| keys::by_status(name, status, run_id);
        wanted.map(|status| Source::new(keyspace, key(status, from), key(status, end))).collect()
    }
}

/// The ids that a page may have: from the first on, before the second. Times narrow them, so that what is older or newer
/// is not looked at.
fn bounds(query: &ArchiveQuery) -> (RunId, RunId) {
    let last = RunId::from_bytes([0xff; 16]);
    let (from, end) = query.filter.ids();
    let end = end.unwrap_or(last).min(query.before.unwrap_or(last));
    (from.unwrap_or(RunId::from_bytes([0; 16])).min(end), end)
}
