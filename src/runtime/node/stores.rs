//! What a node keeps beside its journals and its index, opened.

use std::sync::Arc;

use super::Machine;
use super::wiring::Shared;
use crate::cas::Blobs;
use crate::cas::disk::FileBlobs;
use crate::model::RetentionClass;
use crate::runtime::contents::{self, StoredContents};
use crate::runtime::history::Keeper;
use crate::runtime::room::Room;
use crate::runtime::{Config, Error};
use crate::store::Archive;
use crate::store::history::History;
use crate::store::index::Index;
use crate::telemetry::ShardCells;
use crate::telemetry::log::{self as say, Target};

/// The content store's files, and what is made of them.
pub(super) fn contents(
    config: &Config,
    machine: &Machine<'_>,
    index: &Arc<Index>,
) -> Result<OpenContents, Error> {
    let blobs: Arc<dyn Blobs> = Arc::new(FileBlobs::open(&machine.data_dir.cas_dir())?);
    let stores = contents::Stores {
        blobs: blobs.clone(),
        references: index.clone(),
        archive: index.clone(),
        registry: Some(index.clone()),
    };
    Ok((blobs, StoredContents::new(stores, config.contents)))
}

/// The files, and what is made of them.
type OpenContents = (Arc<dyn Blobs>, Arc<StoredContents>);

/// Its history files.
pub(super) fn history(machine: &Machine<'_>) -> History {
    History::new(machine.data_dir.root(), machine.data_dir.cluster())
}

/// What there is room for.
pub(super) fn room(
    config: &Config,
    machine: &Machine<'_>,
    archive: &dyn Archive,
    cells: &[Arc<ShardCells>],
) -> Result<Arc<Room>, Error> {
    let mut bytes = 0;
    for shard in 0..machine.data_dir.shards().unwrap_or(1) {
        bytes += archive.files(shard)?.iter().map(|row| row.bytes).sum::<u64>();
    }
    let root = machine.data_dir.root().to_owned();
    Ok(Room::new(config.room, (root, config.segment_bytes, bytes), cells.to_vec()))
}

/// What keeps it.
pub(super) fn keeper(config: &Config, machine: &Machine<'_>, shared: &Shared) -> Keeper {
    Keeper {
        archive: shared.archive.clone(),
        history: history(machine),
        catalog: shared.catalog.clone(),
        class: RetentionClass::of(config.retention),
        room: shared.room.clone(),
        index_dir: Some(machine.data_dir.index_dir()),
        report: |problem| say::warn(Target::Store, format_args!("{problem}")),
    }
}
