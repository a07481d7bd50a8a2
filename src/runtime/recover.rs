//! Bringing a shard back before it serves: its log is read and folded, its finished runs go into the index again.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::shard::{Recovery, Shard, ShardConfig, Sources};
use crate::api::Catalog;
use crate::ir::Ir;
use crate::model::RunId;
use crate::model::event::DocumentHash;
use crate::store::log::{self, Recovered, Sealed};
use crate::store::{Archive, Error};
use crate::telemetry::ShardCells;
use crate::time::Timestamp;

/// Rows put into the index at once.
const ROWS_PER_WRITE: usize = 8_192;

/// A folded shard and where its log ends.
pub(crate) struct Folded {
    pub(crate) shard: Shard,
    pub(crate) recovered: Recovered,
    pub(crate) last_at: Timestamp,
}

struct Lookups<'a> {
    catalog: &'a Catalog,
    archive: &'a dyn Archive,
    /// One document runs many times.
    last: Option<(DocumentHash, Arc<Ir>)>,
}

impl Sources for Lookups<'_> {
    fn ir(&mut self, document: &DocumentHash) -> Option<Arc<Ir>> {
        match &self.last {
            Some((hash, ir)) if hash == document => Some(ir.clone()),
            _ => {
                let entry = self.catalog.load_hash(document).ok()??;
                self.last = Some((*document, entry.compiled.ir.clone()));
                Some(entry.compiled.ir.clone())
            }
        }
    }

    fn ended(&mut self, run_id: RunId) -> Result<Option<Timestamp>, String> {
        self.archive.ended(run_id).map_err(|error| error.to_string())
    }
}

/// Reads and folds the log of one shard.
///
/// # Errors
/// The log is damaged, or does not fold: the shard is refused and nothing is guessed.
pub(crate) fn fold(
    config: ShardConfig,
    log: &log::Config,
    cells: Arc<ShardCells>,
    catalog: &Catalog,
    archive: &dyn Archive,
) -> Result<Folded, Error> {
    let index = config.index;
    let mut recovery = Recovery::new(config, cells);
    let mut marks: BTreeMap<u64, Sealed> = BTreeMap::new();
    for mark in archive.marks(index)? {
        recovery.archived(mark.sealed.segment, mark.moved);
        marks.insert(mark.sealed.segment, mark.sealed);
    }
    let mut lookups = Lookups { catalog, archive, last: None };
    let source = log::Source { dir: &log.dir, identity: log.identity, marks: &marks };
    let recovered = log::recover(source, &mut |frame, burst| {
        recovery
            .burst(&burst, frame, &mut lookups)
            .map_err(|error| Error::Record { why: error.to_string() })?;
        if recovery.rows_waiting() >= ROWS_PER_WRITE {
            archive.put(&recovery.take_rows())?;
        }
        Ok(())
    })?;
    archive.put(&recovery.take_rows())?;
    archive.unmark(index, recovered.first_segment())?;
    let last_at = recovery.last_at();
    let shard = recovery.finish(&mut lookups).map_err(|error| Error::Index { why: error.to_string() })?;
    Ok(Folded { shard, recovered, last_at })
}
