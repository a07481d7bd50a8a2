//! Pages of finished runs, newest or oldest first, without a look at runs of other workflows or statuses.
//!
//! The runs of a workspace, and of a workflow, are listed by status in *slots*: a row for each 64 ms has the ids that were
//! made in them, in order. A busy node writes one row where it would write hundreds, an idle one no more than it would
//! anyway. A page is merged from one range of slots for each status asked for; what is left to filter (a version, the last
//! seconds of a span) is judged row by row, at most `scan_limit` of them.

use std::collections::{BTreeMap, BTreeSet};

use super::keys::Whose;
use super::{Index, keys, unreadable};
use crate::model::{RunId, Status, Workspace};
use crate::store::Error;
use crate::store::archive::{ArchivePage, ArchiveQuery, ArchiveRow};
use crate::store::keyspaces::{Batch, Guard, Keyspace};

/// What is to change in lists. Whoever has one holds the lock of forgetting: slots are read and written anew.
#[derive(Default)]
pub(super) struct Lists {
    slots: BTreeMap<Vec<u8>, Change>,
}

#[derive(Default)]
struct Change {
    put: Vec<RunId>,
    removed: BTreeSet<RunId>,
}

impl Lists {
    /// Lists a run. One that is listed already stays so.
    pub(super) fn put(&mut self, row: &ArchiveRow) {
        for key in slots_of(row) {
            self.slots.entry(key).or_default().put.push(row.summary.run_id);
        }
    }

    pub(super) fn remove(&mut self, row: &ArchiveRow) {
        for key in slots_of(row) {
            self.slots.entry(key).or_default().removed.insert(row.summary.run_id);
        }
    }

    /// Makes the changes a part of the batch.
    pub(super) fn write(self, index: &Index, batch: &mut Batch) -> Result<(), Error> {
        let keys: Vec<&[u8]> = self.slots.keys().map(Vec::as_slice).collect();
        let slots = index.lists.get_all(&keys)?;
        for ((key, Change { put, removed }), slot) in self.slots.into_iter().zip(slots) {
            let mut run_ids = slot.map_or_else(|| Ok(Vec::new()), |slot| read_ids(&slot))?;
            run_ids.extend(put);
            // Nearly in order as it is.
            run_ids.sort();
            run_ids.dedup();
            if !removed.is_empty() {
                run_ids.retain(|run_id| !removed.contains(run_id));
            }
            if run_ids.is_empty() {
                batch.remove(&index.lists, key);
            } else {
                batch.insert(&index.lists, key, write_ids(&run_ids));
            }
        }
        Ok(())
    }
}

/// Rows that are read at once: many of them may not be asked for.
const ROWS_AT_ONCE: usize = 256;

/// Where a run is listed: with its workspace and with its workflow.
fn slots_of(row: &ArchiveRow) -> [Vec<u8>; 2] {
    let ArchiveRow { summary, .. } = row;
    let (workspace, slot) = (Workspace::of(&summary.workflow), keys::slot(summary.run_id));
    [Whose::Workspace(workspace.name()), Whose::Workflow(&summary.workflow)]
        .map(|whose| keys::list(whose, summary.status, slot))
}

pub(super) fn read_ids(bytes: &[u8]) -> Result<Vec<RunId>, Error> {
    let (run_ids, rest) = bytes.as_chunks::<16>();
    if !rest.is_empty() {
        return Err(unreadable("a list of runs"));
    }
    Ok(run_ids.iter().map(|run_id| RunId::from_bytes(*run_id)).collect())
}

pub(super) fn write_ids(run_ids: &[RunId]) -> Vec<u8> {
    run_ids.iter().flat_map(RunId::as_bytes).copied().collect()
}

/// One range of ids, and the next that has not been taken.
struct Source {
    rows: Box<dyn Iterator<Item = Guard>>,
    /// The oldest first, not the newest.
    rising: bool,
    /// From the first on, before the second.
    bounds: (RunId, RunId),
    /// Of the slots that were read; the next one last.
    run_ids: Vec<RunId>,
}

impl Source {
    fn new(
        keyspace: &Keyspace,
        [from, to]: [Vec<u8>; 2],
        (bounds, rising): ((RunId, RunId), bool),
    ) -> Result<Self, Error> {
        let range = keyspace.range(from..=to);
        let rows: Box<dyn Iterator<Item = Guard>> =
            if rising { Box::new(range) } else { Box::new(range.rev()) };
        let mut source = Self { rows, rising, bounds, run_ids: Vec::new() };
        source.fill()?;
        Ok(source)
    }

    fn head(&self) -> Option<RunId> {
        self.run_ids.last().copied()
    }

    fn advance(&mut self) -> Result<(), Error> {
        self.run_ids.pop();
        self.fill()
    }

    /// Reads slots until there is an id. Only those at the two ends can have none that is asked for.
    fn fill(&mut self) -> Result<(), Error> {
        while self.run_ids.is_empty() {
            let Some(guard) = self.rows.next() else { break };
            let (key, slot) = guard.into_inner()?;
            // A business key's row is the run's own.
            self.run_ids = match keys::parse_run(&key) {
                Some(run_id) if slot.is_empty() => vec![run_id],
                _ => read_ids(&slot)?,
            };
            let (from, end) = self.bounds;
            self.run_ids.retain(|run_id| (from..end).contains(run_id));
            if self.rising {
                self.run_ids.reverse();
            }
        }
        Ok(())
    }
}

impl Index {
    pub(super) fn page(&self, query: &ArchiveQuery) -> Result<ArchivePage, Error> {
        let mut sources = self.sources(query)?;
        let mut page = ArchivePage::default();
        let mut last = None;
        let rising = query.from.is_some();
        loop {
            let room = query.limit.saturating_sub(page.rows.len());
            let ids =
                taken(&mut sources, rising, room.min(query.scan_limit - page.looked_at).min(ROWS_AT_ONCE))?;
            if ids.is_empty() {
                break;
            }
            last = ids.last().copied();
            page.looked_at += ids.len();
            let rows = self.runs(&ids)?.into_iter();
            page.rows.extend(rows.filter(|row| query.filter.fits_summary(&row.summary)));
        }
        if next_of(&mut sources, rising).is_some() {
            page.next = last;
        }
        Ok(page)
    }

    /// The ranges that hold what is asked for.
    fn sources(&self, query: &ArchiveQuery) -> Result<Vec<Source>, Error> {
        let (from, end) = bounds(query);
        let within = ((from, end), query.from.is_some());
        let filter = &query.filter;
        if let Some(run_key) = &filter.run_key {
            let keys = [from, end].map(|run_id| keys::run_key(&filter.workspace, run_key, run_id));
            return Ok(vec![Source::new(&self.run_keys, keys, within)?]);
        }
        let whose = match &filter.workflow {
            Some(workflow) => Whose::Workflow(workflow),
            None => Whose::Workspace(filter.workspace.name()),
        };
        let ended = [Status::Completed, Status::Failed, Status::Cancelled];
        let wanted =
            ended.into_iter().filter(|status| filter.statuses.is_empty() || filter.statuses.contains(status));
        wanted
            .map(|status| {
                let keys = [from, end].map(|run_id| keys::list(whose, status, keys::slot(run_id)));
                Source::new(&self.lists, keys, within)
            })
            .collect()
    }
}

/// The next runs of all, so many at most.
fn taken(sources: &mut [Source], rising: bool, most: usize) -> Result<Vec<RunId>, Error> {
    let mut ids = Vec::new();
    while ids.len() < most
        && let Some((run_id, source)) = next_of(sources, rising)
    {
        source.advance()?;
        ids.push(run_id);
    }
    Ok(ids)
}

/// The next run of all, and whose it is.
fn next_of(sources: &mut [Source], rising: bool) -> Option<(RunId, &mut Source)> {
    let heads = sources.iter_mut().filter_map(|source| Some((source.head()?, source)));
    if rising { heads.min_by_key(|(run_id, _)| *run_id) } else { heads.max_by_key(|(run_id, _)| *run_id) }
}

/// The ids that a page may have: from the first on, before the second. Times narrow them, so that what is older or newer
/// is not looked at.
fn bounds(query: &ArchiveQuery) -> (RunId, RunId) {
    let last = RunId::LAST;
    let (from, end) = query.filter.ids();
    let end = end.unwrap_or(last).min(query.before.unwrap_or(last));
    (from.max(query.from).unwrap_or(RunId::FIRST).min(end), end)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::model::RunFilter;
    use crate::store::Archive as _;
    use crate::store::index::testing::open;
    use crate::store::index::tests::row;

    fn listed(index: &Index, filter: RunFilter) -> Vec<RunId> {
        let query = ArchiveQuery { before: None, from: None, filter, limit: 10_000, scan_limit: 10_000 };
        index.list(&query).unwrap().rows.iter().map(|row| row.summary.run_id).collect()
    }

    #[test]
    pub(crate) fn a_workspace_and_a_workflow_of_one_name_have_lists_of_their_own() {
        let dir = tempfile::tempdir().unwrap();
        let index = open(dir.path());
        let rows = [row(1, "acme", Status::Completed, &[1]), row(2, "acme/w", Status::Completed, &[1])];
        index.put(&rows).unwrap();
        let [of_default, of_acme] = rows.map(|row| row.summary.run_id);
        let acme = RunFilter { workspace: "acme".parse().unwrap(), ..RunFilter::default() };
        assert_eq!(listed(&index, acme), [of_acme]);
        let workflow = RunFilter { workflow: Some("acme".into()), ..RunFilter::default() };
        assert_eq!(listed(&index, workflow), [of_default]);
    }

    // F036
    #[test]
    pub(crate) fn pages_go_up_from_an_id_as_they_go_down() {
        let dir = tempfile::tempdir().unwrap();
        let index = open(dir.path());
        let status = |n: u64| if n.is_multiple_of(3) { Status::Failed } else { Status::Completed };
        let name = |n: u64| if n.is_multiple_of(2) { "w" } else { "v" };
        let rows: Vec<_> = (0..400).map(|n| row(n, name(n), status(n), &[1])).collect();
        index.put(&rows).unwrap();
        let all: Vec<_> = rows.iter().map(|row| row.summary.run_id).collect();
        for (workflow, step) in [(None, 1), (Some("w".into()), 2)] {
            let filter = RunFilter { workflow, ..RunFilter::default() };
            let (mut from, mut found) = (all[10], Vec::new());
            loop {
                let (before, filter) = (Some(all[371]), filter.clone());
                let query = ArchiveQuery { before, from: Some(from), filter, limit: 33, scan_limit: 40 };
                let page = index.list(&query).unwrap();
                found.extend(page.rows.iter().map(|row| row.summary.run_id));
                let Some(last) = page.next else { break };
                from = last.next();
            }
            let expected: Vec<_> = all[10..371].iter().step_by(step).copied().collect();
            assert_eq!(found, expected);
        }
    }

    // Rows are derived again after a crash, cut into other batches.
    #[test]
    pub(crate) fn runs_are_listed_once_however_often_and_in_whatever_order_they_are_put() {
        let dir = tempfile::tempdir().unwrap();
        let index = open(dir.path());
        let rows: Vec<_> = (0..500).map(|n| row(n, "w", Status::Failed, &[1])).collect();
        for chunk in rows.rchunks(7).chain(rows.chunks(90)) {
            index.put(chunk).unwrap();
        }
        let newest_first: Vec<_> = rows.iter().rev().map(|row| row.summary.run_id).collect();
        assert_eq!(listed(&index, RunFilter::default()), newest_first);
        // 500 ids, a millisecond each: eight slots and what the edges add, of two lists.
        assert!(index.lists.iter().count() <= 20);
        let mut before = None;
        for expected in newest_first.chunks(33) {
            let query =
                ArchiveQuery { before, from: None, filter: RunFilter::default(), limit: 33, scan_limit: 33 };
            let page = index.list(&query).unwrap();
            assert_eq!(page.rows.iter().map(|row| row.summary.run_id).collect::<Vec<_>>(), expected);
            before = page.next;
        }
        assert_eq!(before, None);
    }
}
