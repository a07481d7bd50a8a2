//! What the node says about itself.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::api::NodeView;
use crate::api::front::HopKey;
use crate::io::Driver;
use crate::model::NoRoom;
use crate::runtime::cluster::Standing;
use crate::runtime::room::Room;
use crate::runtime::shutdown::{Life, Phase};
use crate::runtime::thread::{Plane, ThreadInfo};
use crate::store::Archive;
use crate::telemetry::ShardCells;
use crate::wire;

/// For `/v1/node` and `/readyz`.
pub(super) struct View {
    pub(super) life: Life,
    pub(super) threads: Arc<ArcSwap<Vec<ThreadInfo>>>,
    pub(super) cells: Vec<Arc<ShardCells>>,
    pub(super) data_dir: String,
    pub(super) durability: String,
    pub(super) epoch: Arc<crate::telemetry::Cell>,
    pub(super) room: Arc<Room>,
    pub(super) archive: Arc<dyn Archive>,
    pub(super) quic: Option<super::hubs::Shown>,
    pub(super) standing: Option<Arc<Standing>>,
}

impl NodeView for View {
    fn info(&self) -> wire::node::NodeInfo {
        let threads = self.threads.load();
        let planes = [Plane::Control, Plane::Runner, Plane::Fanout, Plane::Side].map(|plane| {
            let of_plane: Vec<_> = threads.iter().filter(|thread| thread.plane == plane).collect();
            let ring = of_plane.iter().any(|thread| thread.driver == Driver::Ring);
            wire::node::PlaneInfo {
                name: plane.as_str().to_owned(),
                runtime: String::from(if ring { "glommio" } else { "tokio" }),
                threads: of_plane
                    .iter()
                    .map(|thread| wire::node::ThreadInfo { name: thread.name.clone(), core: thread.core })
                    .collect(),
            }
        });
        wire::node::NodeInfo {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            phase: self.life.phase().as_str().to_owned(),
            data_dir: self.data_dir.clone(),
            durability: self.durability.clone(),
            mode: String::from("full"),
            epoch: self.epoch.value(),
            cpu_us: cpu_us(),
            planes: planes.into(),
            storage: self.room.info(),
            quic: self.quic.as_ref().map(super::hubs::Shown::info),
            cluster: self.standing.as_ref().map(|standing| standing.info()),
            ..wire::node::NodeInfo::default()
        }
    }

    fn no_room(&self) -> Option<NoRoom> {
        self.room.lacking()
    }

    fn may_read(&self) -> bool {
        self.standing.as_ref().is_none_or(|standing| standing.is_live())
    }

    fn hop_key(&self) -> Option<&HopKey> {
        self.standing.as_ref().map(|standing| standing.hop_key())
    }

    fn ready(&self) -> Result<(), String> {
        if self.standing.as_ref().is_some_and(|standing| standing.is_leaving()) {
            return Err(String::from("the store is handed over to another node"));
        }
        if let Some(why) = self.broken() {
            return Err(why);
        }
        if !self.may_read() {
            return Err(String::from("the lease of the store could not be renewed in time"));
        }
        match self.life.phase() {
            Phase::Serving => Ok(()),
            phase => Err(format!("the node is {}", phase.as_str())),
        }
    }
}

impl View {
    /// What has ended while the node goes on.
    pub(super) fn broken(&self) -> Option<String> {
        if let Some(shard) = self.cells.iter().position(|cells| cells.fenced.value() > 0) {
            return Some(format!("the journal of shard {shard} has failed; restart the node"));
        }
        self.archive.fenced().map(|cause| format!("the index has failed; restart the node: {cause}"))
    }
}

/// Processor time of this process, user and system, in microseconds.
fn cpu_us() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds.saturating_mul(1_000_000).saturating_add(u64::try_from(time.tv_nsec).unwrap_or(0) / 1_000)
}
