//! What a node keeps beside its journals and its index, opened.

use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;

use super::Machine;
use super::wiring::Shared;
use crate::api::{self, Catalog, Reviewing};
use crate::audit;
use crate::cas::Blobs;
use crate::model::RetentionClass;
use crate::runtime::contents::{self, StoredContents};
use crate::runtime::history::Keeper;
use crate::runtime::materializer;
use crate::runtime::room::Room;
use crate::runtime::storage::{StoredRuns, StoredWorkflows};
use crate::runtime::{Config, Error};
use crate::store::history::History;
use crate::store::index::Index;
use crate::store::signing::SigningKey;
use crate::store::{self, Archive, Letters, Registry};
use crate::telemetry::ShardCells;
use crate::telemetry::log::{self as say, Target};
use crate::time::{Clock as _, SystemClock};

/// What is made of the content store.
pub(super) fn contents(config: &Config, blobs: &Arc<dyn Blobs>, index: &Arc<Index>) -> Arc<StoredContents> {
    let stores = contents::Stores {
        blobs: blobs.clone(),
        references: index.clone(),
        archive: index.clone(),
        registry: Some(index.clone()),
    };
    StoredContents::new(stores, config.contents)
}

/// Finished runs, and the events of all.
pub(super) fn runs(
    history: &History,
    catalog: &Arc<Catalog>,
    (archive, blobs): (&Arc<dyn Archive>, &Arc<dyn Blobs>),
    key: &SigningKey,
) -> Arc<StoredRuns> {
    StoredRuns::new(catalog, archive.clone(), (history.clone(), Some(key.public())), blobs.clone())
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

/// The node's key, and the audit log, which the door holds from now on.
pub(super) fn audit(config: &Config, machine: &Machine<'_>) -> Result<Arc<SigningKey>, Error> {
    let (root, cluster) = (machine.data_dir.root(), machine.data_dir.cluster());
    let key = Arc::new(SigningKey::open(root)?);
    let log = audit::Log::open((root, cluster), key.clone(), config.audit, SystemClock.now());
    let log = log.map_err(|error| store::Error::io("open the audit log", std::io::Error::other(error)))?;
    // There is one node in a process, and one door of a node.
    let _ = machine.door.audit.set(log);
    Ok(key)
}

/// What is known of reviews, and where reviewers reach the node; and what is known of work that was given up.
pub(super) fn reviewing(
    config: &Config,
    listeners: &[TcpListener],
    index: Arc<Index>,
) -> (Reviewing, Arc<dyn Letters>) {
    let scheme = if config.auth.tls.is_some() { "https" } else { "http" };
    let bound = || {
        let address = listeners.first().and_then(|listener| listener.local_addr().ok());
        format!("{scheme}://{}", address.unwrap_or(config.listen))
    };
    let url = config.reviews_url.clone().unwrap_or_else(bound);
    let reviewing = Reviewing {
        approvals: index.clone(),
        noticed: Arc::default(),
        url: url.trim_end_matches('/').into(),
        attempts: config.webhook_attempts,
    };
    (reviewing, index)
}

/// What keeps it.
pub(super) fn keeper(
    config: &Config,
    index_dir: Option<PathBuf>,
    shared: &Shared,
    intake: materializer::Intake,
) -> Keeper {
    Keeper {
        intake,
        archive: shared.archive.clone(),
        history: shared.history.clone(),
        catalog: shared.catalog.clone(),
        class: RetentionClass::of(config.retention),
        room: shared.room.clone(),
        key: Some(shared.key.clone()),
        index_dir,
        noticed: shared.reviewing.noticed.clone(),
        report,
    }
}

/// The store of artifacts, and what the interface knows of them.
pub(super) type Artifacts = (Arc<dyn store::Artifacts>, Arc<api::artifacts::Artifacts>);

/// What stores the products of patches, to be started.
pub(super) fn materializer(
    config: &Config,
    index: Arc<Index>,
    contents: &Arc<StoredContents>,
    catalog: &Arc<Catalog>,
) -> (Artifacts, materializer::Parts) {
    let told = api::artifacts::Artifacts::new(index.clone(), config.materializer.at_once);
    let maker = materializer::Maker {
        artifacts: index,
        contents: contents.clone(),
        catalog: catalog.clone(),
        told: told.clone(),
    };
    let parts = materializer::parts(&maker, config.materializer, report);
    ((maker.artifacts, told), parts)
}

/// What fails and is tried again is said.
pub(super) fn report(problem: String) {
    say::warn(Target::Store, format_args!("{problem}"));
}

/// Registered workflows, and the policy that their runs begin under.
pub(super) fn catalog(
    config: &Config,
    (registry, blobs): (Arc<dyn Registry>, &Arc<dyn Blobs>),
) -> Arc<Catalog> {
    let catalog = Catalog::new(Arc::new(StoredWorkflows(registry, blobs.clone())));
    catalog.govern(config.policy.clone());
    catalog
}
