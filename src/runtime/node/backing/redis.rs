//! State in Redis: everything is claimed, so that whoever owned it before changes nothing any more, and a thread talks to the server.
//!
//! ```text
//!   claim the index ─► whose store is it, of how many shards? ─► claim each partition ─► open
//! ```
//!
//! Must hold: what the store had when this directory last knew is there ([`water`]); a directory that belongs to another store, or holds
//! state of its own, is refused.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use super::Backing;
use crate::cas::keyspaces::{self as contents, KeyspaceBlobs};
use crate::queue::{FullPolicy, Receiver, Sender, bounded};
use crate::runtime::origin::{Origin, nonce};
use crate::runtime::thread::{Plane, Threads};
use crate::runtime::{Config, Error};
use crate::store::Error as StoreError;
use crate::store::files::{self, Files, KeyspaceFiles};
use crate::store::frames::Frames;
use crate::store::history::{History, Places};
use crate::store::index::{self, Index};
use crate::store::journal::Fence;
use crate::store::keyspaces::{Batch, Keyspace, Keyspaces};
use crate::store::layout::DataDir;
use crate::store::log::Sink as _;
use crate::store::redis::water::{self, Levels, Water};
use crate::store::redis::{Client, Config as Store, RedisFrames, RedisKeyspaces, RedisLog, Tag, log};
use crate::telemetry::log::{self as say, Target};
use crate::{io, limits};

/// How often it is written down what the store has.
const NOTED_EVERY: Duration = Duration::from_secs(1);
/// Where the store says whose it is.
const ABOUT: &str = "about";
/// The row that says it.
const NODE: &str = "node";

/// What runs on the thread that talks to the server.
enum Job {
    Run(Box<dyn FnOnce() -> Pin<Box<dyn Future<Output = ()>>> + Send>),
    Note(Tag, Arc<log::HighWater>),
    Stop,
}

/// The thread, from outside.
struct Talker<'a> {
    jobs: Sender<Job>,
    store: &'a Store,
    known: Levels,
    segment_bytes: u64,
}

pub(super) fn open(
    config: &Config,
    store: &Store,
    (data_dir, born_with): (&mut DataDir, u16),
    threads: &mut Threads,
) -> Result<Backing, Error> {
    let talker = Talker {
        jobs: start(data_dir, threads)?,
        store,
        known: water::read(data_dir.root())?,
        segment_bytes: config.segment_bytes,
    };
    let (_, fence) = talker.claim(Tag::Index)?;
    let rows = talker.client(Tag::Index)?;
    belongs(&rows, fence, (data_dir, born_with))?;
    let (mut origins, mut shards) = (Vec::new(), Vec::new());
    for shard in 0..data_dir.shards().unwrap_or(1) {
        let (log, fence) = talker.claim(Tag::Partition(shard))?;
        let client = talker.client(Tag::Partition(shard))?;
        origins.push(Origin::Redis(Box::new(log)));
        let place = place(&client);
        let kept = RedisKeyspaces::over(client.clone(), &files::NAMES, Some(fence));
        shards.push((RedisFrames::new(client), KeyspaceFiles::over(Arc::new(kept), place)));
    }
    let kept = talker.client(Tag::Contents)?;
    let place = place(&kept);
    let blobs = KeyspaceBlobs::over(Arc::new(RedisKeyspaces::over(kept, &contents::NAMES, None)), place);
    let last = shards.last().cloned().ok_or_else(|| Error::Ended(String::from("the store has no shards")))?;
    let jobs = talker.jobs;
    Ok(Backing {
        index: Arc::new(Index::over(Arc::new(RedisKeyspaces::over(rows, &index::NAMES, Some(fence))))?),
        blobs: Arc::new(blobs),
        history: History::over(Arc::new(InRedis { shards, last }), data_dir.cluster()),
        origins,
        index_dir: None,
        end: Some(Box::new(move || drop(jobs.send(Job::Stop)))),
    })
}

/// What the keys of a tag are called together, for messages.
fn place(client: &Client) -> String {
    format!("{} aob:{{{}}}", client.server(), client.tag())
}

impl Talker<'_> {
    fn config(&self, tag: Tag) -> Store {
        Store { tag, ..self.store.clone() }
    }

    /// Has the thread run something.
    fn run(&self, job: Job) -> Result<(), Error> {
        let full = |_| Error::Ended(format!("the store is asked for more than {JOBS_MAX} things at once"));
        self.jobs.send(job).map_err(full)
    }

    fn client(&self, tag: Tag) -> Result<Client, Error> {
        let (client, serving) = Client::new(&self.config(tag));
        self.run(Job::Run(Box::new(move || Box::pin(serving().run()))))?;
        Ok(client)
    }

    /// Takes over what has this tag; nothing of an older owner is written to it from then on.
    fn claim(&self, tag: Tag) -> Result<(RedisLog, Fence), Error> {
        let (unclaimed, level, writing) = log::ends(&self.config(tag), self.segment_bytes);
        self.run(Job::Run(Box::new(move || Box::pin(writing().run()))))?;
        let known = self.known.get(&tag.to_string()).copied().unwrap_or_default();
        let (nonce, mut claimed) = (nonce()?, None);
        let ran = io::net::block_on(async { claimed = Some(unclaimed.claim(known, nonce).await) });
        ran.map_err(|error| StoreError::io("wait for the store", error))?;
        let log = claimed.ok_or(StoreError::Fenced { cause: "nobody claimed it".into() })??;
        self.run(Job::Note(tag, level))?;
        let fence = log.fence().unwrap_or_default();
        Ok((log, fence))
    }
}

/// Jobs that wait for the thread.
const JOBS_MAX: usize = 4 * limits::STORE_PARTITIONS_MAX;

/// Starts the thread.
fn start(data_dir: &DataDir, threads: &mut Threads) -> Result<Sender<Job>, Error> {
    let (jobs, asked) = bounded("store", JOBS_MAX, FullPolicy::RefuseCaller);
    let water = Water::new(data_dir.root());
    threads.spawn(Plane::Side, "aob-store", None, move || talk(asked, water))?;
    Ok(jobs)
}

async fn talk(mut jobs: Receiver<Job>, mut water: Water) {
    let mut failed = false;
    loop {
        match io::net::within(NOTED_EVERY, jobs.recv()).await {
            Some(Job::Run(job)) => io::spawn_local(job()),
            Some(Job::Note(tag, level)) => water.add(tag, level),
            Some(Job::Stop) => break,
            None => failed = note(&mut water, failed),
        }
    }
    note(&mut water, failed);
}

/// Writes down what the store has; whether that failed. It is said once.
fn note(water: &mut Water, failed_before: bool) -> bool {
    let written = water.write();
    if let (Err(error), false) = (&written, failed_before) {
        say::warn(Target::Store, format_args!("it is not written down what the store has: {error}"));
    }
    written.is_err()
}

/// Whose store is it? The directory belongs to it from then on.
fn belongs(rows: &Client, fence: Fence, (data_dir, born_with): (&mut DataDir, u16)) -> Result<(), Error> {
    let other = |why: String| {
        let (dir, server) = (data_dir.root().into(), rows.server().to_owned());
        StoreError::OtherStore { dir, server, why }
    };
    let is_new = data_dir.shards().is_none();
    if !is_new && !data_dir.is_elsewhere() {
        return Err(other(String::from("it holds state of its own (store.url = \"embedded\")")).into());
    }
    let of: Arc<dyn Keyspaces> = Arc::new(RedisKeyspaces::over(rows.clone(), &[ABOUT], Some(fence)));
    let about = Keyspace::new(&of, 0);
    let damaged = || StoreError::StoreDamaged {
        key: format!("{} {ABOUT} {NODE}", place(rows)),
        why: String::from("it does not say whose store this is"),
    };
    let (cluster, shards) = match about.get(NODE)? {
        Some(row) => parse(&row).ok_or_else(damaged)?,
        None => {
            let (cluster, shards) = (data_dir.cluster(), data_dir.shards().unwrap_or(born_with));
            let mut batch = Batch::durable();
            batch.insert(&about, NODE, written(cluster, shards));
            of.commit(batch)?;
            (cluster, shards)
        }
    };
    if !is_new && cluster != data_dir.cluster() {
        return Err(other(String::from("they have different ids")).into());
    }
    if is_new || data_dir.shards() != Some(shards) {
        data_dir.record_elsewhere(cluster, shards)?;
    }
    Ok(())
}

fn written(cluster: [u8; 16], shards: u16) -> String {
    format!("cluster {:032x} shards {shards}", u128::from_be_bytes(cluster))
}

fn parse(row: &[u8]) -> Option<([u8; 16], u16)> {
    let words: Vec<&str> = std::str::from_utf8(row).ok()?.split(' ').collect();
    let ["cluster", cluster, "shards", shards] = words.as_slice() else { return None };
    let shards = shards
        .parse()
        .ok()
        .filter(|shards| (1..=limits::STORE_PARTITIONS_MAX).contains(&usize::from(*shards)))?;
    Some((u128::from_str_radix(cluster, 16).ok()?.to_be_bytes(), shards))
}

/// Journals as streams, history files in keyspaces, by shard.
#[derive(Debug)]
struct InRedis {
    shards: Vec<Kept>,
    /// There is one for every shard of the store; whoever names another finds nothing of his here.
    last: Kept,
}

/// The journal of a shard, and its files.
type Kept = (RedisFrames, KeyspaceFiles);

impl InRedis {
    fn of(&self, shard: u16) -> &Kept {
        self.shards.get(usize::from(shard)).unwrap_or(&self.last)
    }
}

impl Places for InRedis {
    fn frames(&self, shard: u16) -> Arc<dyn Frames> {
        Arc::new(self.of(shard).0.clone())
    }

    fn files(&self, shard: u16) -> Arc<dyn Files> {
        Arc::new(self.of(shard).1.clone())
    }
}

#[cfg(test)]
#[test]
fn a_store_says_whose_it_is() {
    let row = written([7; 16], 4);
    assert_eq!(parse(row.as_bytes()), Some(([7; 16], 4)));
    for wrong in ["", "cluster 7 shards 0", "cluster x shards 1", "cluster 7", "cluster 7 shards 1 more"] {
        assert_eq!(parse(wrong.as_bytes()), None, "{wrong}");
    }
}
