//! What an index of an older level lacks is derived when it is opened: lists, the runs of history files, tombstones. What
//! was in their place goes.
//!
//! Done once, in bounded batches; a start that is interrupted does it again.

use serde::{Deserialize, Serialize};

use super::files::{Tombstone, decode_file};
use super::listing::Lists;
use super::{Index, decode, decode_row, encode, keys};
use crate::store::Error;
use crate::store::keyspaces::{Batch, Embedded};
use crate::time::Timestamp;

/// Rows of one batch.
const BATCH_ROWS: usize = 8_192;
/// What this version keeps.
const LEVEL: u8 = 3;

/// A run that was forgotten while later segments had frames of it, as format 1 wrote it.
#[derive(Serialize, Deserialize)]
struct EndedRow {
    ended_at: Timestamp,
    last_segment: u64,
}

pub(super) fn upgrade(index: &Index, embedded: &Embedded) -> Result<(), Error> {
    let meta = &index.meta;
    if meta.get("level")?.is_none_or(|level| level.first() < Some(&LEVEL)) {
        list_runs(index)?;
        let mut batch = Batch::durable();
        name_runs_of_files((index, embedded), &mut batch)?;
        name_forgotten((index, embedded), &mut batch)?;
        batch.insert(meta, "level", [LEVEL]);
        index.commit(batch)?;
    }
    for name in ["by_status", "by_workflow", "members", "ended"] {
        if let Some(of_before) = embedded.other(name)? {
            embedded.drop_other(of_before)?;
        }
    }
    Ok(())
}

/// Levels 1 and 2 had no lists, or one row for a run.
fn list_runs(index: &Index) -> Result<(), Error> {
    let mut runs = index.runs.iter().peekable();
    while runs.peek().is_some() {
        let (mut batch, mut lists) = (Batch::default(), Lists::default());
        for guard in runs.by_ref().take(BATCH_ROWS) {
            lists.put(&decode_row(&guard.value()?)?);
        }
        lists.write(index, &mut batch)?;
        index.commit(batch)?;
    }
    Ok(())
}

/// Level 2 had a row for each run of a segment, which said of what class it was.
fn name_runs_of_files((index, embedded): (&Index, &Embedded), batch: &mut Batch) -> Result<(), Error> {
    let Some(members) = embedded.other("members")? else { return Ok(()) };
    for guard in index.files.iter() {
        let file = decode_file(guard)?.file;
        let mut run_ids = Vec::new();
        for guard in members.prefix(keys::segment(file.shard, file.segment)) {
            let (key, class) = guard.into_inner()?;
            if class.first() == Some(&file.class.into()) {
                run_ids.extend(keys::parse_run(&key));
            }
        }
        index.put_file_runs(batch, file, &run_ids);
    }
    Ok(())
}

/// Level 1 had another row for a run that was forgotten.
fn name_forgotten((index, embedded): (&Index, &Embedded), batch: &mut Batch) -> Result<(), Error> {
    let Some(ended) = embedded.other("ended")? else { return Ok(()) };
    for guard in ended.iter() {
        let (key, value) = guard.into_inner()?;
        let EndedRow { ended_at, last_segment } = decode(&value)?;
        if let Some(run_id) = key.first_chunk::<16>() {
            // Its events in segments before the last are dropped when those are moved, for it has a tombstone.
            let left = Tombstone { ended_at, shard: None, left: vec![last_segment], erased: false };
            batch.insert(&index.tombstones, *run_id, encode(&left)?);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{RetentionClass, RunFilter, Status};
    use crate::store::Archive as _;
    use crate::store::archive::{ArchiveQuery, Expiry};
    use crate::store::history::{FileId, Moved, MovedFile};
    use crate::store::index::tests::{row, sealed};
    use crate::time::Timestamp;

    // RELIABILITY A10
    #[test]
    fn what_the_second_level_kept_for_each_run_becomes_lists_and_goes() {
        let dir = tempfile::tempdir().unwrap();
        let rows = [1, 2, 3].map(|n| row(n, "w", Status::Completed, &[4]));
        let class = RetentionClass::named("1h").unwrap();
        let file = FileId { shard: 1, segment: 4, class };
        {
            let index = Index::open(dir.path()).unwrap();
            index.put(&rows).unwrap();
            let ended = rows.iter().map(|row| row.summary.run_id).collect();
            let files =
                vec![MovedFile { file, bytes: 1, ended, last_ended: Timestamp::default(), live: vec![] }];
            let moved = Moved { shard: 1, sealed: sealed(4), files, forgotten: vec![] };
            index.moved(&moved, Timestamp::default()).unwrap();
            // As it was before.
            for keyspace in [&index.lists, &index.file_runs] {
                keyspace.iter().for_each(|guard| keyspace.remove(guard.key().unwrap()).unwrap());
            }
            drop(index);
            let embedded = Embedded::open(dir.path(), &super::super::NAMES).unwrap();
            let members =
                embedded.database().keyspace("members", fjall::KeyspaceCreateOptions::default).unwrap();
            for row in &rows {
                let key = [&keys::segment(1, 4)[..], row.summary.run_id.as_bytes()].concat();
                members.insert(key, [u8::from(class)]).unwrap();
            }
            let meta = embedded.database().keyspace("meta", fjall::KeyspaceCreateOptions::default).unwrap();
            meta.insert("level", [2]).unwrap();
        }
        let index = Index::open(dir.path()).unwrap();
        let query =
            ArchiveQuery { before: None, from: None, filter: RunFilter::default(), limit: 9, scan_limit: 9 };
        assert_eq!(index.list(&query).unwrap().rows.len(), 3);
        let over = Timestamp::from_micros(1_700_010_000_000_000);
        assert_eq!(index.expire(file, over, 9).unwrap(), Expiry::All(3));
        assert!(index.list(&query).unwrap().rows.is_empty());
        drop(index);
        let embedded = Embedded::open(dir.path(), &super::super::NAMES).unwrap();
        assert!(embedded.other("members").unwrap().is_none());
    }
}
