//! One control core: what it is handed, and what it runs: the gate, the errands, the interface.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::Machine;
use super::view::View;
use super::wiring::Shared;
use crate::api::artifacts::Artifacts;
use crate::api::{self, Catalog, Entropy, Gate, Reviewing, ServiceParts, Services};
use crate::auth::Door;
use crate::engine::command::{Envelope, Errand, Reply, ReplyTo};
use crate::exec::Executors;
use crate::io;
use crate::queue::{Receiver, Sender, Stats};
use crate::runtime::contents::StoredContents;
use crate::runtime::shutdown::Life;
use crate::runtime::storage::StoredRuns;
use crate::runtime::thread::{Plane, Threads};
use crate::runtime::{Config, Error};
use crate::store::Letters;
use crate::telemetry::log::{self, Target};
use crate::telemetry::{QuicCells, ShardCells, StreamCells};
use crate::time::SystemClock;
use crate::wire::asked::Asked;
use crate::wire::stream::ToHub;

/// What a control core's services share with all others.
pub(super) struct ControlParts {
    pub(super) catalog: Arc<Catalog>,
    pub(super) runs: Arc<StoredRuns>,
    pub(super) contents: Arc<StoredContents>,
    pub(super) artifacts: Arc<Artifacts>,
    pub(super) hubs: Vec<Sender<ToHub>>,
    pub(super) commands: Vec<Sender<Envelope>>,
    pub(super) view: Arc<View>,
    pub(super) cells: Vec<Arc<ShardCells>>,
    pub(super) subscribers: Vec<Arc<StreamCells>>,
    pub(super) quic_cells: Vec<Arc<QuicCells>>,
    pub(super) queues: Vec<Arc<Stats>>,
    pub(super) durability: Arc<str>,
    pub(super) executors: Executors,
    pub(super) reviewing: Reviewing,
    pub(super) letters: Arc<dyn Letters>,
    pub(super) door: Arc<Door>,
    pub(super) triggers: Arc<api::Triggers>,
    pub(super) connections_max: usize,
    pub(super) drain: Duration,
}

/// A core before it runs.
struct ControlStart {
    pub(super) core: usize,
    pub(super) parts: ControlParts,
    pub(super) replies: Receiver<(ReplyTo, Reply)>,
    pub(super) errands: Receiver<Errand>,
    pub(super) asked: Receiver<Asked>,
    pub(super) listener: TcpListener,
    pub(super) stopped: api::Shutdown,
}

impl ControlStart {
    pub(super) async fn run(self) {
        let Self { core, parts, replies, errands, asked, listener, stopped } = self;
        let entropy = match Entropy::from_system() {
            Ok(entropy) => entropy,
            Err(error) => {
                return log::warn(
                    Target::Node,
                    format_args!("control core {core} has no random bytes: {error}"),
                );
            }
        };
        let gate = Gate::new(u16::try_from(core).unwrap_or(u16::MAX), parts.commands);
        io::spawn_local(gate.clone().deliver(replies));
        io::spawn_local(gate.clone().watch_overdue(SystemClock));
        let services = Services::new(ServiceParts {
            gate,
            catalog: parts.catalog,
            runs: parts.runs,
            contents: parts.contents,
            artifacts: parts.artifacts,
            hubs: parts.hubs,
            node: parts.view,
            cells: parts.cells,
            subscribers: parts.subscribers,
            quic_cells: parts.quic_cells,
            queues: parts.queues,
            durability: parts.durability,
            executors: parts.executors,
            reviewing: parts.reviewing,
            letters: parts.letters,
            entropy,
            door: parts.door,
            triggers: parts.triggers,
            connections_max: parts.connections_max,
            drain: parts.drain,
        });
        if core == 0 {
            io::spawn_local(api::watch_leases(services.clone()));
            io::spawn_local(api::collect_contents(services.clone()));
            io::spawn_local(api::deliver_webhooks(services.clone()));
            io::spawn_local(api::run_schedules(services.clone()));
            io::spawn_local(api::run_batches(services.clone()));
            api::open_slots(&services);
        }
        io::spawn_local(api::run_errands(services.clone(), errands));
        io::spawn_local(api::answer_streams(services.clone(), asked));
        if let Err(error) = api::serve(listener, services, stopped).await {
            log::warn(Target::Node, format_args!("control core {core}: {error}"));
        }
    }
}

/// What one core holds alone.
type ControlEnds = (((Receiver<(ReplyTo, Reply)>, Receiver<Errand>), Receiver<Asked>), TcpListener);

/// Starts the control cores; what stops them.
pub(super) fn start(
    threads: &mut Threads,
    (config, machine, life): (&Config, &Machine<'_>, &Life),
    ends: impl Iterator<Item = ControlEnds>,
    shared: &Shared,
) -> Result<watch::Sender<bool>, Error> {
    let (stop, stopped) = watch::channel(false);
    let view = view((config, machine), life, threads, shared);
    if let Some(standing) = &machine.standing {
        let view = view.clone();
        standing.watch(move || view.broken().is_some());
    }
    for (core, (((replies, errands), asked), listener)) in ends.enumerate() {
        let parts = control_parts(shared, view.clone(), config);
        let start = ControlStart { core, parts, replies, errands, asked, listener, stopped: stopped.clone() };
        let on = machine.plan.control.get(core).copied();
        threads.spawn(Plane::Control, &format!("aob-control-{core}"), on, move || start.run())?;
    }
    Ok(stop)
}

/// What a control core is given.
fn control_parts(shared: &Shared, view: Arc<View>, config: &Config) -> ControlParts {
    ControlParts {
        catalog: shared.catalog.clone(),
        runs: shared.runs.clone(),
        contents: shared.contents.clone(),
        artifacts: shared.artifacts.1.clone(),
        hubs: shared.hubs.clone(),
        commands: shared.commands.clone(),
        view,
        cells: shared.cells.clone(),
        subscribers: shared.subscribers.clone(),
        quic_cells: shared.quic.as_ref().map(|quic| quic.cells.clone()).unwrap_or_default(),
        queues: shared.queues.clone(),
        durability: config.store.durability().into(),
        executors: shared.executors.clone(),
        reviewing: shared.reviewing.clone(),
        letters: shared.letters.clone(),
        door: shared.door.clone(),
        triggers: shared.triggers.clone(),
        connections_max: config.connections_per_core_max,
        drain: config.drain,
    }
}

/// What the node says about itself.
fn view(
    (config, machine): (&Config, &Machine<'_>),
    life: &Life,
    threads: &Threads,
    shared: &Shared,
) -> Arc<View> {
    Arc::new(View {
        life: life.clone(),
        threads: threads.infos(),
        cells: shared.cells.clone(),
        data_dir: config.data_dir.display().to_string(),
        durability: config.store.durability(),
        epoch: shared.epoch.clone(),
        room: shared.room.clone(),
        archive: shared.archive.clone(),
        quic: shared.quic.clone(),
        standing: machine.standing.clone(),
    })
}
