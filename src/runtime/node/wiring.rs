//! Makes the queues and starts the threads, from the back to the front: index, shards, watchdog, fanout, control.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tokio::sync::watch;

use super::{Machine, Stops, View, Watched};
use crate::api::{self, Catalog, Entropy, Gate, ServiceParts, Services};
use crate::engine::command::{Envelope, Reply, ReplyTo};
use crate::fanout::{Hub, Push, hub};
use crate::io::Driver;
use crate::io::ring::{RingConfig, RingThread};
use crate::queue::{FullPolicy, Receiver, Sender, Stats, bounded};
use crate::runtime::drive::{self, ShardStart};
use crate::runtime::index::{self, IndexJob};
use crate::runtime::plane::runner::{Doors, Indexed};
use crate::runtime::shard::ShardConfig;
use crate::runtime::shutdown::Life;
use crate::runtime::storage::{StoredRuns, StoredWorkflows};
use crate::runtime::thread::{Plane, Threads};
use crate::runtime::{Config, Error, recover, watchdog};
use crate::store::index::Index;
use crate::store::{Archive, Error as StoreError, Registry, log};
use crate::telemetry::{Cell, ShardCells};
use crate::time::SystemClock;
use crate::wire::stream::ToHub;
use crate::{io, limits};

/// What runs.
pub(super) struct Wired {
    pub(super) threads: Threads,
    pub(super) rings: Vec<RingThread>,
    pub(super) stops: Stops,
}

type Replies = (Sender<(ReplyTo, Reply)>, Receiver<(ReplyTo, Reply)>);

/// Everything that more than one plane holds an end of.
struct Shared {
    catalog: Arc<Catalog>,
    runs: Arc<StoredRuns>,
    cells: Vec<Arc<ShardCells>>,
    commands: Vec<Sender<Envelope>>,
    queues: Vec<Arc<Stats>>,
    subscribers: Vec<Arc<Cell>>,
    hubs: Vec<Sender<ToHub>>,
    epoch: Arc<Cell>,
}

/// Starts everything.
pub(super) fn wire(
    config: &Config,
    machine: &Machine<'_>,
    listeners: Vec<TcpListener>,
    life: &Life,
) -> Result<Wired, Error> {
    let shards = usize::from(machine.data_dir.shards().unwrap_or(1));
    let (control, fanout) = (machine.plan.control.len(), machine.plan.fanout.len());
    let index = Arc::new(Index::open(&machine.data_dir.index_dir())?);
    let (archive, registry): (Arc<dyn Archive>, Arc<dyn Registry>) = (index.clone(), index);
    let catalog = Catalog::new(Arc::new(StoredWorkflows(registry)));
    let runs = StoredRuns::new(&catalog, archive.clone(), machine.data_dir);

    let (commands, command_ends): (Vec<_>, Vec<_>) = (0..shards)
        .map(|shard| {
            let name = format!("shard {shard} commands");
            bounded::<Envelope>(name, limits::SHARD_QUEUE_COMMANDS_MAX, FullPolicy::RefuseCaller)
        })
        .unzip();
    let replies = |kind: &str, count: usize| -> Vec<Replies> {
        (0..count)
            .map(|core| {
                bounded(format!("{kind} {core} replies"), limits::REPLY_QUEUE_MAX, FullPolicy::Reserved)
            })
            .collect()
    };
    let (control_replies, fanout_replies) = (replies("control", control), replies("fanout", fanout));
    let (push_senders, push_ends): (Vec<_>, Vec<_>) = (0..fanout)
        .map(|core| {
            bounded::<Push>(
                format!("fanout {core} pushes"),
                limits::FANOUT_QUEUE_MAX,
                FullPolicy::DropAndResync,
            )
        })
        .unzip();
    let (hubs, hub_ends): (Vec<_>, Vec<_>) = (0..fanout)
        .map(|core| {
            bounded::<ToHub>(
                format!("fanout {core} requests"),
                limits::HUB_QUEUE_MAX,
                FullPolicy::RefuseCaller,
            )
        })
        .unzip();
    let (index_jobs, index_end) =
        bounded::<IndexJob>("index", limits::INDEX_QUEUE_MAX, FullPolicy::DropAndResync);
    let (indexed, indexed_ends): (Vec<_>, Vec<_>) = (0..shards)
        .map(|shard| {
            let name = format!("shard {shard} indexed");
            bounded::<Indexed>(name, limits::INDEX_QUEUE_MAX, FullPolicy::Reserved)
        })
        .unzip();

    let cells: Vec<Arc<ShardCells>> = (0..shards).map(|_| Arc::default()).collect();
    let mut queues: Vec<Arc<Stats>> = commands.iter().map(|queue| queue.stats().clone()).collect();
    queues.extend(control_replies.iter().chain(&fanout_replies).map(|(sender, _)| sender.stats().clone()));
    queues.extend(push_senders.iter().map(|queue| queue.stats().clone()));
    queues.extend(hubs.iter().map(|queue| queue.stats().clone()));
    queues.push(index_jobs.stats().clone());
    queues.extend(indexed.iter().map(|queue| queue.stats().clone()));

    let shared = Shared {
        catalog,
        runs,
        cells,
        commands,
        queues,
        subscribers: (0..fanout).map(|_| Arc::default()).collect(),
        hubs,
        epoch: Arc::default(),
    };
    let reply_senders: Vec<_> =
        control_replies.iter().chain(&fanout_replies).map(|(sender, _)| sender.clone()).collect();
    let doors: Vec<Doors> = command_ends
        .into_iter()
        .zip(indexed_ends)
        .map(|(commands, indexed)| Doors {
            commands,
            replies: reply_senders.clone(),
            pushes: push_senders.clone(),
            index: index_jobs.clone(),
            indexed,
        })
        .collect();

    let mut threads = Threads::default();
    let runner_stop = Arc::new(AtomicBool::new(false));
    start_index(&mut threads, index_end, indexed, &archive)?;
    let rings = start_runners(config, machine, &mut threads, (&shared, &archive, doors, &runner_stop))?;
    start_watchdog(&mut threads, &shared, runner_stop.clone())?;
    let (fanout_stop, fanout_stopped) = watch::channel(false);
    let hub_parts = fanout_replies.into_iter().zip(push_ends).zip(hub_ends);
    for (core, ((reply, pushes), requests)) in hub_parts.enumerate() {
        let parts = hub::Parts {
            core: u16::try_from(control + core).unwrap_or(u16::MAX),
            shards: shared.commands.clone(),
            replies: reply.1,
            pushes,
            requests,
            source: shared.runs.clone(),
            subscribers: shared.subscribers.get(core).cloned().unwrap_or_default(),
        };
        let mut stopped = fanout_stopped.clone();
        let on = machine.plan.fanout.get(core).copied();
        threads.spawn(Plane::Fanout, &format!("aob-fanout-{core}"), on, move || async move {
            let stop = async move {
                let _ = stopped.wait_for(|stop| *stop).await;
            };
            Hub::new(parts).run(stop).await;
        })?;
    }
    let (control_stop, control_stopped) = watch::channel(false);
    let view = Arc::new(View {
        life: life.clone(),
        threads: threads.infos(),
        cells: shared.cells.clone(),
        data_dir: config.data_dir.display().to_string(),
        durability: config.durability.as_str(),
        epoch: shared.epoch.clone(),
    });
    for (core, ((_, replies), listener)) in control_replies.into_iter().zip(listeners).enumerate() {
        let start = ControlStart {
            core,
            parts: control_parts(&shared, view.clone(), config.durability.as_str()),
            replies,
            listener,
            stopped: control_stopped.clone(),
        };
        let on = machine.plan.control.get(core).copied();
        threads.spawn(Plane::Control, &format!("aob-control-{core}"), on, move || start.run())?;
    }
    let stops = Stops {
        control: control_stop,
        fanout: fanout_stop,
        runner: runner_stop,
        shards: shared.commands.iter().map(|queue| queue.stats().clone()).collect(),
        index: index_jobs,
    };
    Ok(Wired { threads, rings, stops })
}

fn start_index(
    threads: &mut Threads,
    jobs: Receiver<IndexJob>,
    shards: Vec<Sender<Indexed>>,
    archive: &Arc<dyn Archive>,
) -> Result<(), Error> {
    let archive = archive.clone();
    let report = |problem: String| anstream::eprintln!("aobd: warning: {problem}");
    Ok(threads.spawn(Plane::Side, "aob-index", None, move || index::run(jobs, shards, archive, report))?)
}

type RunnerParts<'a> = (&'a Shared, &'a Arc<dyn Archive>, Vec<Doors>, &'a Arc<AtomicBool>);

/// Folds every shard, then starts the threads that own them, and waits until all serve.
fn start_runners(
    config: &Config,
    machine: &Machine<'_>,
    threads: &mut Threads,
    (shared, archive, doors, stop): RunnerParts<'_>,
) -> Result<Vec<RingThread>, Error> {
    let count = doors.len();
    // Shards go to threads in turns; a thread without a shard is not started (docs/adr/0004).
    let cores: Vec<usize> = machine.plan.runner.iter().copied().take(count).collect();
    let mut by_thread: BTreeMap<usize, Vec<ShardStart>> = BTreeMap::new();
    for (shard, doors) in doors.into_iter().enumerate() {
        let index = u16::try_from(shard).unwrap_or(u16::MAX);
        let cells = shared.cells.get(shard).cloned().unwrap_or_default();
        let log = log::Config {
            dir: machine.data_dir.shard_dir(index),
            identity: machine.data_dir.identity(index),
            segment_bytes: config.segment_bytes,
            durability: config.durability,
            file_kind: match machine.allowed.driver {
                Driver::Ring => io::file::FileKind::Direct,
                Driver::Tokio => io::file::FileKind::Plain,
            },
        };
        let shard_config = ShardConfig {
            index,
            epoch: 0,
            retention: config.retention,
            runs_live_max: config.runs_live_per_shard_max,
        };
        let folded = recover::fold(shard_config, &log, cells.clone(), &shared.catalog, archive.as_ref())?;
        if let Some(cut) = &folded.recovered.cut {
            anstream::eprintln!(
                "aobd: warning: shard {index}: the log ended in a torn write, cut at segment {} byte {}",
                cut.segment,
                cut.offset
            );
        }
        by_thread.entry(shard % cores.len().max(1)).or_default().push(ShardStart {
            shard: folded.shard,
            doors,
            log,
            recovered: folded.recovered,
            not_before: folded.last_at,
            cells,
        });
    }
    let (ready, mut readies) =
        bounded::<Result<u64, StoreError>>("shards ready", count.max(1), FullPolicy::Reserved);
    let mut rings = Vec::new();
    for (thread, starts) in by_thread {
        let core = cores.get(thread).copied().unwrap_or_default();
        let (name, ready, stop) = (format!("aob-runner-{thread}"), ready.clone(), stop.clone());
        let main = move || drive::shards(starts, ready, stop);
        match machine.allowed.driver {
            Driver::Tokio => threads.spawn(Plane::Runner, &name, Some(core), main)?,
            Driver::Ring => {
                let ring = RingConfig {
                    name,
                    core,
                    preempt: config.preempt,
                    spin: config.spin,
                    small_memory: machine.allowed.small_memory,
                };
                rings.push(threads.spawn_ring(&ring, main)?);
            }
        }
    }
    let mut result = Ok(());
    let waited = io::net::block_on(async {
        for _ in 0..count {
            match readies.recv().await {
                Ok(epoch) => shared.epoch.set(shared.epoch.value().max(epoch)),
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
        }
    });
    waited.map_err(|error| Error::Ended(error.to_string()))?;
    result?;
    Ok(rings)
}

fn start_watchdog(threads: &mut Threads, shared: &Shared, stop: Arc<AtomicBool>) -> Result<(), Error> {
    let watched = shared.commands.iter().zip(&shared.cells);
    let watched =
        watched.map(|(queue, cells)| Watched::new(vec![queue.stats().clone()], cells.clone())).collect();
    Ok(threads.spawn(Plane::Side, "aob-watchdog", None, move || watchdog::watch(watched, stop))?)
}

/// What a control core's services share with all others.
struct ControlParts {
    catalog: Arc<Catalog>,
    runs: Arc<StoredRuns>,
    hubs: Vec<Sender<ToHub>>,
    commands: Vec<Sender<Envelope>>,
    view: Arc<View>,
    cells: Vec<Arc<ShardCells>>,
    subscribers: Vec<Arc<Cell>>,
    queues: Vec<Arc<Stats>>,
    durability: Arc<str>,
}

fn control_parts(shared: &Shared, view: Arc<View>, durability: &str) -> ControlParts {
    ControlParts {
        catalog: shared.catalog.clone(),
        runs: shared.runs.clone(),
        hubs: shared.hubs.clone(),
        commands: shared.commands.clone(),
        view,
        cells: shared.cells.clone(),
        subscribers: shared.subscribers.clone(),
        queues: shared.queues.clone(),
        durability: durability.into(),
    }
}

struct ControlStart {
    core: usize,
    parts: ControlParts,
    replies: Receiver<(ReplyTo, Reply)>,
    listener: TcpListener,
    stopped: api::Shutdown,
}

impl ControlStart {
    async fn run(self) {
        let Self { core, parts, replies, listener, stopped } = self;
        let entropy = match Entropy::from_system() {
            Ok(entropy) => entropy,
            Err(error) => {
                return anstream::eprintln!("aobd: control core {core} has no random bytes: {error}");
            }
        };
        let gate = Gate::new(u16::try_from(core).unwrap_or(u16::MAX), parts.commands);
        io::spawn_local(gate.clone().deliver(replies));
        io::spawn_local(gate.clone().watch_overdue(SystemClock));
        let services = Services::new(ServiceParts {
            gate,
            catalog: parts.catalog,
            runs: parts.runs,
            hubs: parts.hubs,
            node: parts.view,
            cells: parts.cells,
            subscribers: parts.subscribers,
            queues: parts.queues,
            durability: parts.durability,
            entropy,
        });
        if let Err(error) = api::serve(listener, services, stopped).await {
            anstream::eprintln!("aobd: control core {core}: {error}");
        }
    }
}
