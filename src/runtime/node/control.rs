//! One control core: what it is handed, and what it runs: the gate, the errands, the interface.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use super::view::View;
use crate::api::{self, Catalog, Entropy, Gate, ServiceParts, Services};
use crate::auth::Door;
use crate::engine::command::{Envelope, Errand, Reply, ReplyTo};
use crate::exec::Executors;
use crate::io;
use crate::queue::{Receiver, Sender, Stats};
use crate::runtime::contents::StoredContents;
use crate::runtime::storage::StoredRuns;
use crate::telemetry::log::{self, Target};
use crate::telemetry::{Cell, ShardCells};
use crate::time::SystemClock;
use crate::wire::stream::ToHub;

/// What a control core's services share with all others.
pub(super) struct ControlParts {
    pub(super) catalog: Arc<Catalog>,
    pub(super) runs: Arc<StoredRuns>,
    pub(super) contents: Arc<StoredContents>,
    pub(super) hubs: Vec<Sender<ToHub>>,
    pub(super) commands: Vec<Sender<Envelope>>,
    pub(super) view: Arc<View>,
    pub(super) cells: Vec<Arc<ShardCells>>,
    pub(super) subscribers: Vec<Arc<Cell>>,
    pub(super) queues: Vec<Arc<Stats>>,
    pub(super) durability: Arc<str>,
    pub(super) executors: Executors,
    pub(super) door: Arc<Door>,
    pub(super) connections_max: usize,
    pub(super) drain: Duration,
}

/// A core before it runs.
pub(super) struct ControlStart {
    pub(super) core: usize,
    pub(super) parts: ControlParts,
    pub(super) replies: Receiver<(ReplyTo, Reply)>,
    pub(super) errands: Receiver<Errand>,
    pub(super) listener: TcpListener,
    pub(super) stopped: api::Shutdown,
}

impl ControlStart {
    pub(super) async fn run(self) {
        let Self { core, parts, replies, errands, listener, stopped } = self;
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
            hubs: parts.hubs,
            node: parts.view,
            cells: parts.cells,
            subscribers: parts.subscribers,
            queues: parts.queues,
            durability: parts.durability,
            executors: parts.executors,
            entropy,
            door: parts.door,
            connections_max: parts.connections_max,
            drain: parts.drain,
        });
        if core == 0 {
            io::spawn_local(api::watch_leases(services.clone()));
            io::spawn_local(api::collect_contents(services.clone()));
            api::open_slots(&services);
        }
        io::spawn_local(api::run_errands(services.clone(), errands));
        if let Err(error) = api::serve(listener, services, stopped).await {
            log::warn(Target::Node, format_args!("control core {core}: {error}"));
        }
    }
}
