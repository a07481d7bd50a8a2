//! Opens what a node's state is in: files of its data directory, or Redis.
//!
//! Must hold: a directory whose state is in one of them is never taken for an empty one of the other. Nothing is written to the journals
//! here.

#[cfg(feature = "redis")]
mod redis;

use std::path::PathBuf;
use std::sync::Arc;

use super::stores::report;
use crate::cas::Blobs;
use crate::cas::disk::FileBlobs;
use crate::runtime::origin::Origin;
use crate::runtime::startup::Allowed;
use crate::runtime::thread::Threads;
use crate::runtime::{Config, Error, StoreChoice};
use crate::store::history::History;
use crate::store::index::{self, Index};
use crate::store::layout::{DataDir, FORMAT};
use crate::store::{Durability, Error as StoreError, log};
use crate::telemetry::log::{self as say, Target};

/// What was opened.
pub(super) struct Backing {
    pub(super) index: Arc<Index>,
    pub(super) blobs: Arc<dyn Blobs>,
    pub(super) history: History,
    /// Of each shard.
    pub(super) origins: Vec<Origin>,
    /// Where the index is, when it is on disk.
    pub(super) index_dir: Option<PathBuf>,
    /// Ends the thread that talks to a store elsewhere, when there is one.
    pub(super) end: Option<Box<dyn Fn() + Send>>,
}

/// Opens it. A new directory gets as many shards as `born_with` says.
pub(super) fn open(
    config: &Config,
    allowed: Allowed,
    (data_dir, born_with): (&mut DataDir, u16),
    #[cfg_attr(
        not(feature = "redis"),
        expect(unused_variables, reason = "only a store elsewhere has a thread")
    )]
    threads: &mut Threads,
) -> Result<Backing, Error> {
    match &config.store {
        StoreChoice::Embedded(durability) => embedded(config, *durability, allowed, (data_dir, born_with)),
        #[cfg(feature = "redis")]
        StoreChoice::Redis(store, _) => redis::open(config, store, (data_dir, born_with), threads),
    }
}

fn embedded(
    config: &Config,
    durability: Durability,
    allowed: Allowed,
    (data_dir, born_with): (&mut DataDir, u16),
) -> Result<Backing, Error> {
    if data_dir.is_elsewhere() {
        return Err(StoreError::Elsewhere { dir: data_dir.root().into() }.into());
    }
    if data_dir.format() < FORMAT {
        let (dir, from) = (data_dir.root().display(), data_dir.format());
        say::info(Target::Node, format_args!("{dir} is upgraded from format {from} to {FORMAT}"));
        data_dir.upgrade()?;
    }
    if data_dir.shards().is_none() {
        data_dir.record_shards(born_with)?;
    }
    let index_dir = data_dir.index_dir();
    let origins = (0..data_dir.shards().unwrap_or(1)).map(|shard| {
        Origin::files(log::Config {
            dir: data_dir.shard_dir(shard),
            identity: data_dir.identity(shard),
            segment_bytes: config.segment_bytes,
            durability,
            file_kind: allowed.driver.into(),
        })
    });
    Ok(Backing {
        origins: origins.collect(),
        index: Arc::new(index(&index_dir)?),
        blobs: Arc::new(FileBlobs::open(&data_dir.cas_dir())?),
        history: History::new(data_dir.root(), data_dir.cluster()),
        index_dir: Some(index_dir),
        end: None,
    })
}

/// Finished runs, registered workflows and what else is in the index, opened. What could not be read of it is said.
fn index(dir: &std::path::Path) -> Result<Index, StoreError> {
    let index = Index::open(dir)?;
    for cut in index.cuts() {
        report(format!("the index was mended: {cut}"));
    }
    for kept in index::kept(dir)? {
        report(format!(
            "{} holds what could not be read of the index; until it is gone, history files stay that the index does not know",
            kept.display()
        ));
    }
    Ok(index)
}
