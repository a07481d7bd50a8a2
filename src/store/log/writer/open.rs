//! Opening a recovered log: everything on disk becomes as the writer expects it.
//!
//! Must hold on return: what recovery read is synced, the last segment is of full length, leftovers are gone.

use std::collections::{BTreeSet, VecDeque};
use std::path::PathBuf;

use super::super::{Config, Position, Recovered, frame, segment};
use super::{Current, Log};
use crate::io::disk::{self, sync_directory};
use crate::io::file::{Helper, LogFile};
use crate::store::Error;

impl Log {
    /// Makes the end of a recovered log ready for frames: what was read is synced, a file that was cut short
    /// is filled up, the next segment is under preparation. A new log waits here for its first segment;
    /// nothing else ever does while there is room.
    ///
    /// # Errors
    /// A file can not be made, opened or synced.
    pub async fn open(config: Config, recovered: Recovered) -> Result<Self, Error> {
        let helper = Helper::start(&format!("log-{}", config.identity.shard))
            .map_err(|error| Error::io("start the journal's helper thread", error))?;
        let ready = Ready::from(&recovered, &config);
        let (kept_config, listing) = (config.clone(), recovered.listing);
        let made = helper.run(move || make_ready(&kept_config, ready, listing)).await;
        let (ready, mut free) = made.map_err(|error| Error::io("prepare the journal", error))??;
        free.truncate(segment::FREE_SEGMENTS_MAX);
        let path = segment::path(&config.dir, ready.segment);
        let opened = LogFile::open(&path, config.file_kind, config.writes(), &helper).await;
        let file = opened.map_err(|error| Error::io(format!("open {}", path.display()), error))?;
        let current = Current {
            segment: ready.segment,
            first: ready.first,
            file,
            offset: ready.offset,
            bytes: ready.bytes,
        };
        let oldest = recovered.sealed.first().map_or(ready.segment, |sealed| sealed.segment);
        let mut log = Self {
            config,
            helper,
            fence: None,
            last_fence: recovered.fence,
            next: recovered.next,
            chain: recovered.chain,
            synced: recovered.next - 1,
            current,
            spare: None,
            sealed: recovered.sealed.into(),
            sealed_version: 0,
            given_back: BTreeSet::new(),
            retiring: VecDeque::new(),
            oldest_noted: oldest,
            oldest_synced: oldest,
            free,
            memory: None,
            failure: None,
        };
        log.begin_spare();
        Ok(log)
    }
}

/// Where the next frame goes.
#[derive(Clone, Copy, Debug)]
struct Ready {
    segment: u64,
    first: Position,
    offset: u64,
    /// From here to `offset` nobody knows whether it was synced.
    unsynced: u64,
    bytes: u64,
}

impl Ready {
    fn from(recovered: &Recovered, config: &Config) -> Self {
        let (segment, first, offset, unsynced) = recovered
            .tail
            .map_or((1, recovered.next, 0, 0), |tail| (tail.segment, tail.first, tail.offset, tail.unsynced));
        let found = recovered.listing.segments.get(&segment).copied().unwrap_or(0);
        Self { segment, first, offset, unsynced, bytes: found.max(config.segment_bytes) }
    }
}

/// The blocking part of opening: everything on disk is as the writer expects it.
fn make_ready(
    config: &Config,
    ready: Ready,
    listing: segment::Listing,
) -> Result<(Ready, Vec<PathBuf>), Error> {
    let dir = &config.dir;
    let failed = |doing: &str, error| Error::io(format!("{doing} in {}", dir.display()), error);
    disk::make_directory(dir).map_err(|error| failed("make the journal's directory", error))?;
    for path in &listing.leftovers {
        match disk::remove(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(failed("remove a leftover", error));
            }
            _ => {}
        }
    }
    for (&id, &length) in listing.segments.range(ready.segment + 1..) {
        // Prepared under another configuration; nothing is in it.
        if length != config.segment_bytes || id > ready.segment + 1 {
            disk::remove(&segment::path(dir, id)).map_err(|error| failed("remove a segment", error))?;
        }
    }
    let mut free = listing.free;
    let path = segment::path(dir, ready.segment);
    if listing.segments.contains_key(&ready.segment) {
        let bytes = ready.bytes - ready.bytes % frame::ALIGN_BYTES as u64;
        // What recovery read may have been in the page cache only, and others are about to see it. After a sync that failed
        // the cache holds pages that it takes for clean; only what is written again is written at all.
        disk::write_again(&path, ready.unsynced, ready.offset)
            .map_err(|error| failed("write the end of the last segment again", error))?;
        disk::fill_up(&path, bytes).map_err(|error| failed("fill up and sync the last segment", error))?;
        sync_directory(dir).map_err(|error| failed("sync", error))?;
        return Ok((Ready { bytes, ..ready }, free));
    }
    let recycled = free.pop();
    let prepared = segment::prepare(dir, ready.segment, config.segment_bytes, recycled.as_deref());
    prepared.map_err(|error| failed("prepare the first segment", error))?;
    Ok((ready, free))
}
