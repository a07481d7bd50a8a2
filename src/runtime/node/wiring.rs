//! Makes the queues and starts the threads, from the back to the front: index, shards, watchdog, fanout, control.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::backing::Backing;
use super::{Machine, Stops, Watched, control, hubs, side, spent, stores};
use crate::api::{Catalog, Reviewing, Triggers};
use crate::auth::Door;
use crate::cas::Blobs;
use crate::engine::command::{Envelope, Errand, Reply, ReplyTo};
use crate::exec::{Executors, Ledger};
use crate::fanout::Push;
use crate::io::Driver;
use crate::io::ring::{RingConfig, RingThread};
use crate::queue::{FullPolicy, Receiver, Sender, Stats, bounded};
use crate::runtime::clock::ShardClock;
use crate::runtime::contents::StoredContents;
use crate::runtime::drive::{self, ShardStart};
use crate::runtime::index::IndexJob;
use crate::runtime::origin::Origin;
use crate::runtime::plane::runner::{Doors, Indexed};
use crate::runtime::room::Room;
use crate::runtime::shard::ShardConfig;
use crate::runtime::shutdown::Life;
use crate::runtime::storage::StoredRuns;
use crate::runtime::thread::{Plane, Threads};
use crate::runtime::{Config, Error, logs, recover, watchdog};
use crate::store::history::History;
use crate::store::signing::SigningKey;
use crate::store::{Archive, Error as StoreError, Letters, Registry};
use crate::telemetry::log::{self as say, Target};
use crate::telemetry::{Cell, ShardCells, StreamCells};
use crate::time::{Clock as _, SystemClock};
use crate::wire::asked::Asked;
use crate::wire::stream::ToHub;
use crate::{io, limits};

const ERRANDS: usize = limits::ERRANDS_QUEUE_MAX;

/// What runs.
pub(super) struct Wired {
    pub(super) threads: Threads,
    pub(super) rings: Vec<RingThread>,
    pub(super) stops: Stops,
    pub(super) catalog: Arc<Catalog>,
    pub(super) ledger: Arc<Ledger>,
}

/// The ends of a queue, one for each core or shard.
type Ends<T> = (Vec<Sender<T>>, Vec<Receiver<T>>);

/// Every queue between the planes: capacity and what happens when full stand here and nowhere else.
struct Queues {
    commands: Ends<Envelope>,
    control_replies: Ends<(ReplyTo, Reply)>,
    fanout_replies: Ends<(ReplyTo, Reply)>,
    pushes: Ends<Push>,
    errands: Ends<Errand>,
    hubs: Ends<ToHub>,
    asked: Ends<Asked>,
    indexed: Ends<Indexed>,
    index: (Sender<IndexJob>, Receiver<IndexJob>),
}

fn ends<T: Send + 'static>(
    count: usize,
    name: impl Fn(usize) -> String,
    capacity: usize,
    full_policy: FullPolicy,
) -> Ends<T> {
    (0..count).map(|index| bounded(name(index), capacity, full_policy)).unzip()
}

impl Queues {
    fn new(shards: usize, control: usize, fanout: usize) -> Self {
        use FullPolicy::{DropAndResync, RefuseCaller, Reserved};
        Self {
            commands: ends(
                shards,
                |shard| format!("shard {shard} commands"),
                limits::SHARD_QUEUE_COMMANDS_MAX,
                RefuseCaller,
            ),
            control_replies: ends(
                control,
                |core| format!("control {core} replies"),
                limits::REPLY_QUEUE_MAX,
                Reserved,
            ),
            fanout_replies: ends(
                fanout,
                |core| format!("fanout {core} replies"),
                limits::REPLY_QUEUE_MAX,
                Reserved,
            ),
            pushes: ends(
                fanout,
                |core| format!("fanout {core} pushes"),
                limits::FANOUT_QUEUE_MAX,
                DropAndResync,
            ),
            errands: ends(control, |core| format!("control {core} errands"), ERRANDS, RefuseCaller),
            hubs: ends(fanout, |core| format!("fanout {core} requests"), limits::HUB_QUEUE_MAX, RefuseCaller),
            asked: ends(
                control,
                |core| format!("control {core} streams"),
                limits::STREAMS_ASKED_MAX,
                RefuseCaller,
            ),
            indexed: ends(
                shards,
                |shard| format!("shard {shard} indexed"),
                limits::INDEX_QUEUE_MAX,
                Reserved,
            ),
            index: bounded("index", limits::INDEX_QUEUE_MAX, RefuseCaller),
        }
    }

    fn stats(&self, quic: Option<&hubs::Quic>) -> Vec<Arc<Stats>> {
        fn of<T>((senders, _): &Ends<T>) -> impl Iterator<Item = Arc<Stats>> {
            senders.iter().map(|sender| sender.stats().clone())
        }
        let replies = of(&self.control_replies).chain(of(&self.fanout_replies));
        let streams = of(&self.pushes).chain(of(&self.hubs)).chain(of(&self.asked)).chain(of(&self.errands));
        let streams = streams.chain(quic.into_iter().flat_map(hubs::Quic::stats));
        let index = of(&self.indexed).chain([self.index.0.stats().clone()]);
        of(&self.commands).chain(replies).chain(streams).chain(index).collect()
    }
}

/// Everything that more than one plane holds an end of.
pub(super) struct Shared {
    pub(super) catalog: Arc<Catalog>,
    pub(super) runs: Arc<StoredRuns>,
    pub(super) history: History,
    pub(super) contents: Arc<StoredContents>,
    pub(super) artifacts: stores::Artifacts,
    pub(super) blobs: Arc<dyn Blobs>,
    pub(super) archive: Arc<dyn Archive>,
    pub(super) cells: Vec<Arc<ShardCells>>,
    pub(super) commands: Vec<Sender<Envelope>>,
    pub(super) queues: Vec<Arc<Stats>>,
    pub(super) subscribers: Vec<Arc<StreamCells>>,
    pub(super) quic: Option<hubs::Shown>,
    pub(super) hubs: Vec<Sender<ToHub>>,
    pub(super) asked: Vec<Sender<Asked>>,
    pub(super) epoch: Arc<Cell>,
    pub(super) executors: Executors,
    pub(super) reviewing: Reviewing,
    pub(super) letters: Arc<dyn Letters>,
    pub(super) door: Arc<Door>,
    pub(super) key: Arc<SigningKey>,
    pub(super) triggers: Arc<Triggers>,
    pub(super) room: Arc<Room>,
}

/// What each shard takes from, and where it sends to.
fn doors(
    (commands, indexed): (Vec<Receiver<Envelope>>, Vec<Receiver<Indexed>>),
    replies: &[Sender<(ReplyTo, Reply)>],
    (pushes, errands, index): (&[Sender<Push>], &[Sender<Errand>], &Sender<IndexJob>),
) -> Vec<Doors> {
    let ends = commands.into_iter().zip(indexed);
    let doors = ends.map(|(commands, indexed)| Doors {
        commands,
        replies: replies.to_vec(),
        pushes: pushes.to_vec(),
        errands: errands.to_vec(),
        index: index.clone(),
        indexed,
    });
    doors.collect()
}

/// Starts everything.
pub(super) fn wire(
    config: &Config,
    machine: &Machine<'_>,
    (listeners, quic): (Vec<TcpListener>, Option<hubs::Quic>),
    (backing, mut threads): (Backing, Threads),
    life: &Life,
) -> Result<Wired, Error> {
    let Backing { index, blobs, history, origins, index_dir, end } = backing;
    let (shards, fanout) = (origins.len(), machine.plan.fanout.len());
    let contents = stores::contents(config, &blobs, &index);
    let (reviewing, letters) = stores::reviewing(config, &listeners, index.clone());
    let triggers = Triggers::new(index.clone(), machine.lease_key);
    let (archive, registry): (Arc<dyn Archive>, Arc<dyn Registry>) = (index.clone(), index.clone());
    let catalog = stores::catalog(config, (registry, &blobs));
    let (artifacts, materializer) = stores::materializer(config, index, &contents, &catalog);
    let queues = Queues::new(shards, machine.plan.control.len(), fanout);
    let executors = side::executors(&mut threads, config, machine)?;
    let key = stores::audit(config, machine)?;
    let cells = machine.supervisor.sees(shards);
    let shared = Shared {
        room: stores::room(config, machine, &*archive, &cells)?,
        runs: stores::runs(&history, &catalog, (&archive, &blobs), &key),
        history,
        contents,
        artifacts,
        blobs,
        catalog,
        archive,
        cells,
        commands: queues.commands.0.clone(),
        queues: queues.stats(quic.as_ref()).into_iter().chain(materializer.intake.stats()).collect(),
        subscribers: (0..fanout).map(|_| Arc::default()).collect(),
        quic: quic.as_ref().map(hubs::Quic::shown),
        hubs: queues.hubs.0.clone(),
        asked: queues.asked.0.clone(),
        epoch: Arc::default(),
        executors,
        reviewing,
        letters,
        door: machine.door.clone(),
        key,
        triggers,
    };
    let Queues { commands, control_replies, fanout_replies, pushes, errands, hubs, asked, indexed, index } =
        queues;
    let replies: Vec<_> = control_replies.0.iter().chain(&fanout_replies.0).cloned().collect();
    let doors = doors((commands.1, indexed.1), &replies, (&pushes.0, &errands.0, &index.0));
    let logs = logs::start(&mut threads)?;
    let runner_stop = Arc::new(AtomicBool::new(false));
    let starts = fold_shards(config, &shared, (origins, doors))?;
    let keeper = stores::keeper(config, index_dir, &shared, materializer.intake);
    side::start_index(&mut threads, (index.1, indexed.0), keeper, materializer.workers)?;
    let (rings, readies) = start_runners(config, machine, &mut threads, (starts, &runner_stop))?;
    // Before the shards are waited for: opening a log waits for helper threads, whose wakes can be lost as well.
    start_watchdog(&mut threads, &shared, &rings, runner_stop.clone())?;
    await_shards(shards, readies, &mut threads, &shared.epoch)?;
    let hubs_stop = hubs::start(&mut threads, machine, (fanout_replies.1, pushes.1, hubs.1, quic), &shared)?;
    let ends = control_replies.1.into_iter().zip(errands.1).zip(asked.1).zip(listeners);
    let control_stop = control::start(&mut threads, (config, machine, life), ends, &shared)?;
    let stops = Stops {
        control: control_stop,
        fanout: hubs_stop,
        runner: runner_stop,
        shards: shared.commands.iter().map(|queue| queue.stats().clone()).collect(),
        index: index.0,
        materializer: materializer.stop,
        store: end,
        logs,
    };
    Ok(Wired { threads, rings, stops, catalog: shared.catalog, ledger: shared.executors.ledger })
}

/// Reads and folds the log of every shard.
fn fold_shards(
    config: &Config,
    shared: &Shared,
    (origins, doors): (Vec<Origin>, Vec<Doors>),
) -> Result<Vec<ShardStart>, Error> {
    let mut starts = Vec::with_capacity(doors.len());
    for (shard, (origin, doors)) in origins.into_iter().zip(doors).enumerate() {
        let index = u16::try_from(shard).unwrap_or(u16::MAX);
        let cells = shared.cells.get(shard).cloned().unwrap_or_default();
        let shard_config = ShardConfig {
            index,
            epoch: 0,
            retention: config.retention,
            runs_live_max: config.runs_live_per_shard_max,
        };
        let stores = recover::Stores {
            catalog: &shared.catalog,
            archive: shared.archive.as_ref(),
            blobs: shared.blobs.as_ref(),
            history: &shared.history,
            artifacts: Some(shared.artifacts.0.as_ref()),
        };
        let folded = recover::fold(shard_config, origin, cells.clone(), stores)?;
        folded.say(index);
        if let Some(cut) = folded.origin.cut() {
            let (segment, offset) = (cut.segment, cut.offset);
            say::warn(
                Target::Store,
                format_args!(
                    "shard {index}: the log ended in a torn write, cut at segment {segment} byte {offset}"
                ),
            );
        }
        let recover::Folded { shard, origin, last_at, .. } = folded;
        // All of them before anybody is admitted: the control cores start later.
        for (run_id, claim, held) in shard.claims() {
            shared.executors.slots.restore(run_id, claim, held);
        }
        if !origin.is_new() {
            shared.executors.slots.restarted();
        }
        let clock = ShardClock::start(last_at);
        starts.push(ShardStart { shard, doors, origin, clock, cells });
    }
    drive::share_clock(&mut starts);
    let shards = starts.iter().map(|start| &start.shard);
    spent::restore((&shared.executors.ledger, &*shared.archive), shards, SystemClock.now())?;
    Ok(starts)
}

type RunnerParts<'a> = (Vec<ShardStart>, &'a Arc<AtomicBool>);
type Readies = Receiver<Result<u64, StoreError>>;

/// Starts the threads that own the shards; each shard says when it serves.
fn start_runners(
    config: &Config,
    machine: &Machine<'_>,
    threads: &mut Threads,
    (starts, stop): RunnerParts<'_>,
) -> Result<(Vec<RingThread>, Readies), Error> {
    let count = starts.len();
    // Shards go to threads in turns; a thread without a shard is not started (docs/adr/0004).
    let cores: Vec<usize> = machine.plan.runner.iter().copied().take(count).collect();
    let mut by_thread: BTreeMap<usize, Vec<ShardStart>> = BTreeMap::new();
    for (shard, start) in starts.into_iter().enumerate() {
        by_thread.entry(shard % cores.len().max(1)).or_default().push(start);
    }
    let (ready, readies) = bounded("shards ready", count.max(1), FullPolicy::Reserved);
    let mut rings = Vec::new();
    for (thread, starts) in by_thread {
        let core = cores.get(thread).copied().unwrap_or_default();
        let (name, ready, stop) = (format!("aob-runner-{thread}"), ready.clone(), stop.clone());
        let main = move || drive::shards(starts, ready, stop);
        match machine.allowed.driver {
            Driver::Tokio => threads.spawn(Plane::Runner, &name, Some(core), main)?,
            Driver::Ring => {
                let (preempt, spin) = (config.preempt, config.spin);
                let small_memory = machine.allowed.small_memory;
                rings
                    .push(threads.spawn_ring(&RingConfig { name, core, preempt, spin, small_memory }, main)?);
            }
        }
    }
    Ok((rings, readies))
}

/// Waits until every shard has claimed its log, or one cannot, or a thread is gone.
fn await_shards(
    count: usize,
    mut readies: Readies,
    threads: &mut Threads,
    epoch: &Cell,
) -> Result<(), Error> {
    let mut result = Ok(());
    let waited = io::net::block_on(async {
        for _ in 0..count {
            let ready = tokio::select! {
                // A thread that ends says first what kept it from serving.
                biased;
                ready = readies.recv() => ready.map_err(Error::from),
                ended = threads.next_end() => Err(Error::Ended(ended.problem())),
            };
            match ready {
                Ok(claimed) => epoch.set(epoch.value().max(claimed)),
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
        }
    });
    waited.map_err(|error| Error::Ended(error.to_string()))?;
    result
}

fn start_watchdog(
    threads: &mut Threads,
    shared: &Shared,
    rings: &[RingThread],
    stop: Arc<AtomicBool>,
) -> Result<(), Error> {
    let watched = shared.commands.iter().zip(&shared.cells).enumerate().map(|(shard, (queue, cells))| {
        let nudge = rings.get(shard % rings.len().max(1)).map(RingThread::nudge);
        Watched::new(vec![queue.stats().clone()], cells.clone(), nudge)
    });
    let watched = watched.collect();
    Ok(threads.spawn(Plane::Side, "aob-watchdog", None, move || watchdog::watch(watched, stop))?)
}
