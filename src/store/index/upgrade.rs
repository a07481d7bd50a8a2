//! What an index of format 1 lacks is derived when it is opened: rows by workflow and status, tombstones.
//!
//! Done once, in bounded batches; a start that is interrupted does it again.

use fjall::{KeyspaceCreateOptions, PersistMode};
use serde::{Deserialize, Serialize};

use super::files::Tombstone;
use super::{Index, decode, decode_row, encode};
use crate::model::RunId;
use crate::store::Error;
use crate::time::Timestamp;

/// Rows of one batch.
const BATCH_ROWS: usize = 8_192;
/// What this version keeps.
const LEVEL: u8 = 2;

/// A run that was forgotten while later segments had frames of it, as format 1 wrote it.
#[derive(Serialize, Deserialize)]
struct EndedRow {
    ended_at: Timestamp,
    last_segment: u64,
}

pub(super) fn upgrade(index: &Index) -> Result<(), Error> {
    let meta = index.db.keyspace("meta", KeyspaceCreateOptions::default)?;
    if meta.get("level")?.is_some_and(|level| level.first() >= Some(&LEVEL)) {
        return Ok(());
    }
    let mut batch = index.db.batch();
    for (at, guard) in index.runs.iter().enumerate() {
        let row = decode_row(&guard.value()?)?;
        for (keyspace, key) in index.secondary(&row) {
            batch.insert(keyspace, key, []);
        }
        if at % BATCH_ROWS == BATCH_ROWS - 1 {
            std::mem::replace(&mut batch, index.db.batch()).commit()?;
        }
    }
    let ended = index.db.keyspace("ended", KeyspaceCreateOptions::default)?;
    for guard in ended.iter() {
        let (key, value) = guard.into_inner()?;
        let EndedRow { ended_at, last_segment } = decode(&value)?;
        if let Some(run_id) = key.first_chunk::<16>() {
            // Its events in segments before the last are dropped when those are moved, for it has a tombstone.
            let left = Tombstone { ended_at, shard: None, left: vec![last_segment], erased: false };
            batch.insert(&index.tombstones, *RunId::from_bytes(*run_id).as_bytes(), encode(&left)?);
        }
        batch.remove(&ended, key);
    }
    batch.insert(&meta, "level", [LEVEL]);
    batch.durability(Some(PersistMode::SyncAll)).commit()?;
    Ok(())
}
