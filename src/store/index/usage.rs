//! What runs used, summed by workspace, day, workflow, role and model; and by minute, workflow and role, for a day, for whoever has
//! to know after a restart what was spent lately (`exec::ledger`).
//!
//! What must hold: a run counts once. Its sums are added in the very batch that puts its row, and only when it has no row yet; a
//! crash keeps both or neither, and a row that comes again from the log adds nothing. Sums are kept for
//! [`limits::USAGE_DAYS_MAX`] days: longer than runs are, for they are small. Older ones go when a day's first sum is written.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest as _, Sha256};

use super::{Index, decode, encode};
use crate::limits;
use crate::model::usage::{DayUsage, MinuteUsage, Used};
use crate::model::{RunId, Workspace};
use crate::store::Error;
use crate::store::archive::ArchiveRow;
use crate::store::keyspaces::Batch;

const DAY_SECONDS: u64 = 86_400;

/// What keys of minutes begin with; those of days begin with the name of a workspace.
const MINUTES: u8 = 0;

/// Sums to be written with a batch of rows.
#[derive(Default)]
pub(super) struct Sums {
    /// By key, as `rows`.
    minutes: BTreeMap<Vec<u8>, MinuteUsage>,
    /// By key; as stored, with what these rows add.
    rows: BTreeMap<Vec<u8>, DayUsage>,
    /// Runs of this batch.
    runs: BTreeSet<RunId>,
}

/// All days of a workspace, up to one.
fn until(workspace: &Workspace, day: u32) -> Vec<u8> {
    [workspace.name().as_bytes(), &[0], &day.to_be_bytes()].concat()
}

fn key(workspace: &Workspace, row: &DayUsage) -> Result<Vec<u8>, Error> {
    let name = Sha256::digest(encode(&(&row.workflow, &row.role, &row.model))?);
    Ok([&until(workspace, row.day)[..], name.get(..16).unwrap_or_default()].concat())
}

/// All minutes up to one.
fn before(minute: u32) -> Vec<u8> {
    [&[MINUTES][..], &minute.to_be_bytes()].concat()
}

impl Sums {
    fn add_minute(&mut self, index: &Index, ended: u64, row: &ArchiveRow) -> Result<(), Error> {
        let minute = u32::try_from(ended / 60).unwrap_or(u32::MAX);
        for Used { role, part, .. } in &row.used {
            let (workflow, role) = (row.summary.workflow.clone(), role.clone());
            let name = Sha256::digest(encode(&(&workflow, &role))?);
            let key = [&before(minute)[..], name.get(..16).unwrap_or_default()].concat();
            if !self.minutes.contains_key(&key) {
                let stored: Option<MinuteUsage> = index.row_of(&index.usage, &key)?;
                let none = MinuteUsage { minute, workflow, role, usd: Default::default(), tokens: 0 };
                self.minutes.insert(key.clone(), stored.unwrap_or(none));
            }
            if let Some(sum) = self.minutes.get_mut(&key) {
                sum.usd = sum.usd.plus(part.usd);
                sum.tokens = sum.tokens.saturating_add(part.tokens_taken());
            }
        }
        Ok(())
    }

    fn write_minutes(
        index: &Index,
        minutes: BTreeMap<Vec<u8>, MinuteUsage>,
        batch: &mut Batch,
    ) -> Result<(), Error> {
        for (key, row) in minutes {
            if index.usage.prefix(before(row.minute)).next().is_none() {
                let oldest = row.minute.saturating_sub(limits::USAGE_MINUTES_MAX);
                for guard in index.usage.range(before(0)..before(oldest)).take(limits::USAGE_ROWS_MAX) {
                    batch.remove(&index.usage, guard.key()?);
                }
            }
            batch.insert(&index.usage, key, encode(&row)?);
        }
        Ok(())
    }

    /// Adds what a run used, unless its row is in the index already.
    pub(super) fn add(&mut self, index: &Index, row: &ArchiveRow) -> Result<(), Error> {
        let (summary, run_id) = (&row.summary, row.summary.run_id);
        if row.used.is_empty() || !self.runs.insert(run_id) || index.run(run_id)?.is_some() {
            return Ok(());
        }
        let ended = summary.ended_at.unwrap_or(summary.started_at).as_micros() / 1_000_000;
        self.add_minute(index, ended, row)?;
        let day = u32::try_from(ended / DAY_SECONDS).unwrap_or(u32::MAX);
        let workspace = Workspace::of(&summary.workflow);
        for Used { role, model, part } in &row.used {
            let workflow = summary.workflow.clone();
            let (role, model) = (role.clone(), model.clone());
            let none = DayUsage { day, workflow, role, model, runs: 0, part: Default::default() };
            let key = key(&workspace, &none)?;
            if !self.rows.contains_key(&key) {
                let stored: Option<DayUsage> = index.row_of(&index.usage, &key)?;
                self.rows.insert(key.clone(), stored.unwrap_or(none));
            }
            if let Some(sum) = self.rows.get_mut(&key) {
                sum.runs = sum.runs.saturating_add(1);
                sum.part.add(part);
            }
        }
        Ok(())
    }

    pub(super) fn write(self, index: &Index, batch: &mut Batch) -> Result<(), Error> {
        Self::write_minutes(index, self.minutes, batch)?;
        for (key, row) in self.rows {
            let workspace = Workspace::of(&row.workflow);
            let today = until(&workspace, row.day);
            if index.usage.prefix(&today).next().is_none() {
                let oldest = row.day.saturating_sub(limits::USAGE_DAYS_MAX);
                let old = index.usage.range(until(&workspace, 0)..until(&workspace, oldest));
                for guard in old.take(limits::USAGE_ROWS_MAX) {
                    batch.remove(&index.usage, guard.key()?);
                }
            }
            batch.insert(&index.usage, key, encode(&row)?);
        }
        Ok(())
    }
}

impl Index {
    /// Sums of a workspace from one day to another, both included, oldest first; `limit` at most.
    pub(super) fn usage_of(
        &self,
        workspace: &Workspace,
        (from, to): (u32, u32),
        limit: usize,
    ) -> Result<Vec<DayUsage>, Error> {
        let range = until(workspace, from)..until(workspace, to.saturating_add(1));
        self.usage.range(range).take(limit).map(|guard| decode(&guard.value()?)).collect()
    }

    /// Sums of minutes, from one on, oldest first.
    pub(super) fn usage_since(&self, minute: u32, seen: &mut dyn FnMut(MinuteUsage)) -> Result<(), Error> {
        let range = before(minute)..vec![MINUTES + 1];
        self.usage.range(range).try_for_each(|guard| decode(&guard.value()?).map(&mut *seen))
    }

    /// Sums of all days and workspaces.
    pub(super) fn usage_of_all(&self, seen: &mut dyn FnMut(DayUsage)) -> Result<(), Error> {
        self.usage.range(vec![MINUTES + 1]..).try_for_each(|guard| decode(&guard.value()?).map(&mut *seen))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::model::money::Usd;
    use crate::model::usage::Part;
    use crate::model::{Partition, RunSummary, Status};
    use crate::store::Archive as _;
    use crate::store::index::testing::open;
    use crate::time::Timestamp;

    fn row(number: u8, workflow: &str, day: u64, nanos: u64) -> ArchiveRow {
        let ended = Timestamp::from_micros((day * DAY_SECONDS + 5) * 1_000_000);
        let part = Part { usd: Usd::from_nanos(nanos), answers: 1, ..Part::default() };
        ArchiveRow {
            summary: RunSummary {
                run_id: RunId::new(ended, Partition::new(1), [number; 10]),
                workflow: workflow.into(),
                version: "1".into(),
                status: Status::Completed,
                seq: 9,
                epoch: 1,
                started_at: ended,
                ended_at: Some(ended),
                run_key: None,
            },
            document: [0; 32],
            shard: 0,
            frames: Vec::new(),
            idempotency: None,
            acknowledged: (Status::Running, 2),
            run_key: None,
            class: None,
            version: Some(1),
            arm: None,
            imaged: false,
            used: vec![Used { role: "writer".into(), model: "big".into(), part }],
        }
    }

    fn sums(index: &Index, workspace: &str, days: (u32, u32)) -> Vec<(u32, String, u64, u64)> {
        let rows = index.usage(&workspace.parse().unwrap(), days, 100).unwrap();
        let sum = |row: DayUsage| (row.day, row.workflow.to_string(), row.runs, row.part.usd.as_nanos());
        rows.into_iter().map(sum).collect()
    }

    // F399, F405
    #[test]
    pub(crate) fn a_run_counts_once_for_its_workspace_and_day_whatever_is_put_again() {
        let directory = tempfile::tempdir().unwrap();
        let index = open(directory.path());
        let rows = [
            row(1, "a", 20_000, 5),
            row(2, "a", 20_000, 7),
            row(3, "a", 20_001, 1),
            row(4, "x/a", 20_000, 9),
        ];
        index.put(&rows[..2]).unwrap();
        index.put(&[rows[1].clone(), rows[2].clone(), rows[2].clone(), rows[3].clone()]).unwrap();
        drop(index);
        let index = open(directory.path());
        index.put(&rows).unwrap();
        let all = [(20_000, String::from("a"), 2, 12), (20_001, String::from("a"), 1, 1)];
        assert_eq!(sums(&index, "default", (0, 30_000)), all);
        assert_eq!(sums(&index, "default", (20_001, 20_001)), all[1..]);
        assert_eq!(sums(&index, "x", (20_000, 20_000)), [(20_000, String::from("x/a"), 1, 9)]);
        assert_eq!(sums(&index, "y", (0, 30_000)), []);
    }

    // F384: what was spent lately is known after a restart, and once.
    #[test]
    pub(crate) fn what_was_used_lately_is_known_by_the_minute() {
        let directory = tempfile::tempdir().unwrap();
        let index = open(directory.path());
        let at = |number, workflow: &str, minute: u64, nanos| {
            let mut row = row(number, workflow, 0, nanos);
            row.summary.ended_at = Some(Timestamp::from_micros((minute * 60 + 59) * 1_000_000));
            row
        };
        let kept = u64::from(limits::USAGE_MINUTES_MAX);
        let rows = [at(1, "a", 1_000, 5), at(2, "a", 1_000, 7), at(3, "x/a", 1_001, 1), at(4, "a", 1_002, 2)];
        index.put(&rows[..2]).unwrap();
        index.put(&rows).unwrap();
        let since = |minute| {
            let mut seen = Vec::new();
            index.usage_since(minute, &mut |row| seen.push((row.minute, row.usd.as_nanos()))).unwrap();
            seen
        };
        assert_eq!(since(0), [(1_000, 12), (1_001, 1), (1_002, 2)]);
        assert_eq!(since(1_001), [(1_001, 1), (1_002, 2)]);
        index.put(&[at(5, "a", 1_001 + kept, 9)]).unwrap();
        assert_eq!(since(0), [(1_001, 1), (1_002, 2), (1_001 + u32::try_from(kept).unwrap(), 9)]);
        let (mut all, mut days) = (0, 0);
        index
            .usage_of_all(&mut |row| {
                all += row.part.usd.as_nanos();
                days += 1;
            })
            .unwrap();
        assert_eq!((all, days), (24, 3), "minutes are not among the days");
    }

    #[test]
    pub(crate) fn sums_go_when_they_are_old() {
        let directory = tempfile::tempdir().unwrap();
        let index = open(directory.path());
        let kept = u64::from(limits::USAGE_DAYS_MAX);
        index.put(&[row(1, "a", 20_000, 5), row(2, "a", 20_001, 5), row(3, "x/a", 20_000, 5)]).unwrap();
        index.put(&[row(4, "a", 20_001 + kept, 5)]).unwrap();
        let days = sums(&index, "default", (0, 30_000)).into_iter().map(|(day, ..)| u64::from(day));
        assert_eq!(days.collect::<Vec<_>>(), [20_001, 20_001 + kept]);
        assert_eq!(sums(&index, "x", (0, 30_000)).len(), 1, "another workspace's stay");
    }
}
