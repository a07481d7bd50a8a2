//! One life of the node, from recovery to its end: its own code, wired on one thread.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio::sync::mpsc;

use super::world::World;
use super::{agents, held, outside};
use crate::api::artifacts::Artifacts;
use crate::api::{self, Entropy, Gate, NodeView, ServiceParts, Services};
use crate::cas::Blobs;
use crate::cas::disk::FileBlobs;
use crate::exec::pool::Workers;
use crate::exec::{Executors, Http, Leases, Models, Pool, Slots, Tools};
use crate::io::file::FileKind;
use crate::limits;
use crate::model::RetentionClass;
use crate::queue::{FullPolicy, bounded};
use crate::runtime::clock::ShardClock;
use crate::runtime::contents::{self, StoredContents};
use crate::runtime::drive::{self, ShardStart};
use crate::runtime::history::Keeper;
use crate::runtime::materializer::{self, Intake, Maker};
use crate::runtime::origin::Origin;
use crate::runtime::plane::runner::Doors;
use crate::runtime::shard::ShardConfig;
use crate::runtime::storage::StoredRuns;
use crate::runtime::{index, recover};
use crate::store::history::History;
use crate::store::log::Identity;
use crate::store::{Archive, Durability, Error, log};
use crate::telemetry::ShardCells;
use crate::time::SystemClock;
use crate::wire::node::NodeInfo;

pub(super) const ROOT: &str = "/data";
const CLUSTER: [u8; 16] = *b"a simulated node";

struct View;

impl NodeView for View {
    fn info(&self) -> NodeInfo {
        NodeInfo::default()
    }

    fn ready(&self) -> Result<(), String> {
        Ok(())
    }
}

/// A node that serves.
pub(super) struct Serving {
    pub(super) cells: Vec<Arc<ShardCells>>,
}

pub(super) fn shard_dir(shard: u16) -> PathBuf {
    crate::store::layout::shard_dir(Path::new(ROOT), shard)
}

pub(super) fn identity(shard: u16) -> Identity {
    Identity { cluster: CLUSTER, shard }
}

/// Starts a node on this `LocalSet` and opens its door.
///
/// # Errors
/// A shard cannot be had.
pub(super) async fn start(world: &Rc<World>) -> Result<Serving, Error> {
    let shards = usize::from(world.options.shards);
    let archive: Arc<dyn Archive> = world.archive.clone();
    let opened = FileBlobs::open(&Path::new(ROOT).join("cas"));
    let blobs: Arc<dyn Blobs> = Arc::new(opened.map_err(|error| Error::Index { why: error.to_string() })?);
    let (commands, command_ends): (Vec<_>, Vec<_>) = (0..shards)
        .map(|at| bounded(format!("shard {at}"), limits::SHARD_QUEUE_COMMANDS_MAX, FullPolicy::RefuseCaller))
        .unzip();
    let (indexed, indexed_ends): (Vec<_>, Vec<_>) = (0..shards)
        .map(|at| bounded(format!("indexed {at}"), limits::INDEX_QUEUE_MAX, FullPolicy::Reserved))
        .unzip();
    let (reply, replies) = bounded("replies", limits::REPLY_QUEUE_MAX, FullPolicy::Reserved);
    let (errand, errands) = bounded("errands", limits::ERRANDS_QUEUE_MAX, FullPolicy::RefuseCaller);
    let (jobs, job_ends) = bounded("index", limits::INDEX_QUEUE_MAX, FullPolicy::RefuseCaller);
    let cells: Vec<Arc<ShardCells>> = (0..shards).map(|_| Arc::default()).collect();

    let slots = Arc::new(Slots::default());
    let mut starts = Vec::new();
    for (at, (commands, indexed)) in command_ends.into_iter().zip(indexed_ends).enumerate() {
        let doors = Doors {
            commands,
            replies: vec![reply.clone()],
            pushes: Vec::new(),
            errands: vec![errand.clone()],
            index: jobs.clone(),
            indexed,
        };
        let start = fold(world, (at, cells[at].clone()), doors, &*blobs)?;
        for (run_id, claim, held) in start.shard.claims() {
            slots.restore(run_id, claim, held);
        }
        slots.restarted();
        starts.push(start);
    }
    drive::share_clock(&mut starts);
    let stores = contents::Stores {
        blobs: blobs.clone(),
        references: world.archive.references.clone(),
        archive: archive.clone(),
        registry: None,
    };
    let settings = contents::Settings {
        inline_max: world.options.inline_max,
        grace: Duration::from_millis(world.options.grace_ms),
    };
    let contents = StoredContents::new(stores, settings);
    let artifacts = Artifacts::new(world.artifacts.clone(), false);
    let intake = materialize(world, &contents, &artifacts);
    let report = |problem: String| panic!("the index: {problem}");
    let keeper = Keeper {
        noticed: Arc::default(),
        intake,
        archive: archive.clone(),
        history: History::new(Path::new(ROOT), CLUSTER),
        catalog: world.catalog.clone(),
        class: RetentionClass::of(Duration::from_millis(world.options.retention_ms)),
        room: Arc::default(),
        index_dir: None,
        key: crate::store::signing::SigningKey::from_seed(&[7; 32]).ok().map(Arc::new),
        // A disk that fails or is full: tried again.
        report: |_| {},
    };
    tokio::task::spawn_local(index::run(job_ends, indexed, archive.clone(), keeper, report));
    let (ready, mut readies) = bounded("ready", shards, FullPolicy::Reserved);
    tokio::task::spawn_local(drive::shards(starts, ready, Arc::new(AtomicBool::new(false))));
    for _ in 0..shards {
        readies.recv().await?;
    }

    let history = History::new(Path::new(ROOT), CLUSTER);
    let (http, calls) = Http::new();
    tokio::task::spawn_local(outside::forward(world.clone(), calls));
    let (models, asked) = Models::new(&agents::models());
    let (tools, used) = Tools::new();
    agents::forward(world, asked, used);
    let gate = Gate::new(0, commands.clone());
    tokio::task::spawn_local(gate.clone().deliver(replies));
    tokio::task::spawn_local(gate.clone().watch_overdue(SystemClock));
    let workers = Workers { lease_seconds: world.options.lease_seconds, ..Workers::default() };
    let services = Services::new(ServiceParts {
        gate,
        catalog: world.catalog.clone(),
        runs: StoredRuns::new(&world.catalog, archive, (history, None), blobs),
        contents,
        artifacts,
        hubs: Vec::new(),
        node: Arc::new(View),
        cells: cells.clone(),
        subscribers: Vec::new(),
        quic_cells: Vec::new(),
        queues: Vec::new(),
        durability: "fsync".into(),
        executors: Executors {
            http,
            models,
            pool: Arc::new(Pool::new(workers)),
            slots,
            ledger: Arc::default(),
            leases: Leases::new([7; 32]),
            reach: Arc::default(),
            tools,
            cached: Arc::default(),
            summaries: None,
        },
        reviewing: api::Reviewing {
            approvals: world.archive.clone(),
            noticed: Arc::default(),
            url: "http://node".into(),
            attempts: (3, Duration::from_secs(1)),
        },
        letters: world.archive.clone(),
        entropy: Entropy::from_key(world.disk.random_bytes()),
        door: Arc::new(held::door(world)),
        triggers: api::Triggers::new(Arc::new(crate::store::triggers::InMemory::default()), [7; 32]),
        connections_max: limits::CONNECTIONS_PER_CORE_MAX,
        drain: Duration::from_secs(5),
    });
    tokio::task::spawn_local(api::watch_leases(services.clone()));
    tokio::task::spawn_local(api::collect_contents(services.clone()));
    api::open_slots(&services);
    tokio::task::spawn_local(api::run_errands(services.clone(), errands));
    let (door, mut connections) = mpsc::unbounded_channel();
    world.door.replace(Some(door));
    tokio::task::spawn_local(async move {
        while let Some(stream) = connections.recv().await {
            tokio::task::spawn_local(api::serve_stream(stream, services.clone()));
        }
    });
    Ok(Serving { cells })
}

/// Starts what stores the products of patches; the way in.
fn materialize(world: &World, contents: &Arc<StoredContents>, artifacts: &Arc<Artifacts>) -> Intake {
    let maker = Maker {
        artifacts: world.artifacts.clone(),
        contents: contents.clone(),
        catalog: world.catalog.clone(),
        told: artifacts.clone(),
    };
    let settings = materializer::Settings {
        threads: 1,
        batch_patches: 100,
        window: Duration::from_secs(5),
        at_once: false,
    };
    // A disk that fails or is full: tried again.
    let materializer::Parts { intake, workers, .. } = materializer::parts(&maker, settings, |_| {});
    for worker in workers {
        tokio::task::spawn_local(worker.run());
    }
    intake
}

fn fold(
    world: &World,
    (at, cells): (usize, Arc<ShardCells>),
    doors: Doors,
    blobs: &dyn Blobs,
) -> Result<ShardStart, Error> {
    let index = u16::try_from(at).unwrap();
    let config = ShardConfig {
        index,
        epoch: 0,
        retention: Duration::from_millis(world.options.retention_ms),
        runs_live_max: 10_000,
    };
    let log = log::Config {
        dir: shard_dir(index),
        identity: identity(index),
        segment_bytes: world.options.segment_bytes,
        durability: if world.options.unsynced { Durability::Os } else { Durability::Fsync },
        file_kind: FileKind::Plain,
    };
    let history = History::new(Path::new(ROOT), CLUSTER);
    let stores = recover::Stores {
        catalog: &world.catalog,
        archive: &*world.archive,
        blobs,
        history: &history,
        artifacts: Some(&*world.artifacts),
    };
    let folded = recover::fold(config, Origin::files(log), cells.clone(), stores)?;
    assert_eq!(folded.shard.unreadable_runs().next(), None, "a content is gone");
    world.sometimes_so_often("a run came back from an image", folded.counts.images);
    match &folded.dropped {
        Some(why) => {
            world.sometimes("a damaged checkpoint was dropped");
            world.tell(format_args!("shard {index} dropped its images: {why}"));
        }
        // RELIABILITY B11
        None => assert!(!world.archive.is_damaged(index), "damaged images of shard {index} were used"),
    }
    Ok(ShardStart {
        shard: folded.shard,
        doors,
        origin: folded.origin,
        clock: ShardClock::start(folded.last_at),
        cells,
    })
}
