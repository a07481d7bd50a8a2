//! A node among others on the same store: it waits for the lease, passes requests on meanwhile, and keeps the lease once it has it.
//!
//! ```text
//!   stand by ──► take the lease ──► claim, recover, serve ──► give it up (drained) ──► end
//!      ▲                                    │
//!      └──────── begin again ◄──── it is another's (paused, cut off), or a journal has ended (the store was away for too long)
//! ```
//!
//! A thread of its own, so that nothing a node does keeps it from renewing. Must hold: the store is claimed only with the lease, and the lease
//! is given up only when the shards have ended. What the node may answer without asking anybody ends with the time that it last
//! asked for ([`Standing::is_live`]).

mod keeper;
mod term;
#[cfg(test)]
mod term_tests;

use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{oneshot, watch};

use self::keeper::Keeper;
use self::term::Contender;
use super::shutdown::{Life, Phase};
use super::thread::{Plane, Threads};
use super::{Config, Error, Membership};
use crate::api::front::{Counters, FrontParts, HopKey, Owner};
use crate::auth::Door;
use crate::store::Error as StoreError;
use crate::store::layout::DataDir;
use crate::store::redis::lease::{Leases, NodeId, Seen};
use crate::store::redis::{Config as Store, Tag};
use crate::telemetry::log::{self as say, Target};
use crate::time::{Clock as _, SystemClock};
use crate::wire::node::{ClusterInfo, ClusterNode, NodeInfo};
use crate::{io, limits};

/// Of the time that a lease is good for, how often it is renewed.
const RENEWED_IN_PARTS: u32 = 4;
/// How often whoever waits looks.
const LOOKS: Duration = Duration::from_millis(100);
/// Times of a lease after which a node that says nothing is forgotten.
const FORGOTTEN_AFTER: u32 = 3;
/// How long an end waits for a store that does not answer.
const GIVEN_UP_WITHIN: Duration = Duration::from_secs(1);

/// What others see of how the node stands.
pub(super) struct Standing {
    node: NodeId,
    live_until_us: AtomicU64,
    /// It is about to be another's.
    is_leaving: AtomicBool,
    /// Says whether the node can serve no longer; set once it serves.
    broken: OnceLock<Box<dyn Fn() -> bool + Send + Sync>>,
    seen: ArcSwap<Seen>,
    hop: HopKey,
    counters: Arc<Counters>,
}

impl Standing {
    /// May it be counted on that nobody else owns the store?
    pub(super) fn is_live(&self) -> bool {
        SystemClock.monotonic_us() < self.live_until_us.load(Ordering::Acquire)
    }

    /// Are requests to go elsewhere from now on?
    pub(super) fn is_leaving(&self) -> bool {
        self.is_leaving.load(Ordering::Acquire)
    }

    /// What says that a journal, or the index, has ended while the node goes on.
    pub(super) fn watch(&self, broken: impl Fn() -> bool + Send + Sync + 'static) {
        let _ = self.broken.set(Box::new(broken));
    }

    fn is_broken(&self) -> bool {
        self.broken.get().is_some_and(|broken| broken())
    }

    pub(super) fn hop_key(&self) -> &HopKey {
        &self.hop
    }

    pub(super) fn info(&self) -> ClusterInfo {
        let seen = self.seen.load();
        let held = seen.row.as_ref().filter(|row| row.is_held);
        let nodes = seen.nodes.iter().map(|(node, address)| ClusterNode {
            node: node.to_string(),
            address: address.clone(),
            owns: held.is_some_and(|row| row.node == *node),
        });
        ClusterInfo {
            node: self.node.to_string(),
            owns: held.is_some_and(|row| row.node == self.node),
            turn: seen.row.as_ref().map_or(0, |row| row.turn),
            lease_seconds: held.map_or(0, |row| row.lasts.as_secs()),
            forwarded: self.counters.passed.value(),
            nodes: nodes.collect(),
        }
    }

    fn saw(&self, mut seen: Seen) {
        seen.nodes.sort_by(|(_, one), (_, other)| one.cmp(other));
        self.seen.store(Arc::new(seen));
    }
}

/// How far the node has come with the lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Waiting,
    Taken,
    /// It is another's, or given up by a node that cannot serve any more.
    Lost,
    /// It was given up, or never taken, and the thread ends.
    Left,
}

/// What a node that has the lease holds on to.
pub(super) struct Member {
    pub(super) standing: Arc<Standing>,
    /// What leases of workers are sealed with, on all nodes.
    pub(super) key: [u8; 32],
    owner: Arc<watch::Sender<Owner>>,
    leave: Option<oneshot::Sender<()>>,
    /// There until signals are heard elsewhere.
    listens: Option<oneshot::Sender<()>>,
    stage: watch::Receiver<Stage>,
}

impl Member {
    /// Requests are taken by the control cores from now on.
    pub(super) fn serves(&self, address: SocketAddr) {
        self.owner.send_replace(Owner::Own(address.to_string().into()));
    }

    /// Signals are heard by whoever calls.
    pub(super) fn listens(&mut self) {
        self.listens = None;
    }

    /// Ends when the lease is another's, or free for a node that can serve.
    pub(super) async fn lost(&self) {
        self.until(Stage::Lost).await;
    }

    async fn until(&self, stage: Stage) {
        if self.stage.clone().wait_for(|at| *at == stage).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Ends when the node is told to hand the store over (SIGUSR1) and whoever asks whether it is ready had time to hear that it is
    /// not. One that is alone stays.
    pub(super) async fn told_to_hand_over(&self) {
        let Ok(mut orders) = io::net::Handovers::new() else { return std::future::pending().await };
        loop {
            orders.next().await;
            if self.standing.seen.load().nodes.len() > 1 {
                break;
            }
            say::warn(
                Target::Node,
                format_args!("SIGUSR1: there is no other node to hand the store over to"),
            );
        }
        say::info(Target::Node, format_args!("SIGUSR1: the store is handed over"));
        self.standing.is_leaving.store(true, Ordering::Release);
        let notice = Duration::from_millis(limits::HANDOVER_NOTICE_MILLIS);
        io::net::within(notice, std::future::pending::<()>()).await;
    }

    /// Has the lease given up; the thread ends then.
    pub(super) fn leave(&mut self) {
        if let Some(leave) = self.leave.take() {
            let _ = leave.send(());
        }
    }

    /// The same for a node that did not come to serve.
    pub(super) fn give_up(mut self) {
        self.leave();
        // Where that is not heard of in time, others wait until it has run out.
        let _ = io::net::block_on(async {
            io::net::within(GIVEN_UP_WITHIN, self.until(Stage::Left)).await;
        });
    }
}

/// What whoever waits for the lease has at hand.
pub(super) struct Place<'a> {
    pub(super) config: &'a Config,
    pub(super) data_dir: &'a DataDir,
    pub(super) listeners: &'a [TcpListener],
    pub(super) address: SocketAddr,
    pub(super) door: &'a Arc<Door>,
}

/// Waits until this node has the lease; `None` when it is asked to end before. `told` hears where it listens when it has to wait.
pub(super) fn enter(
    (store, membership): (&Store, &Membership),
    place: &Place<'_>,
    (life, threads): (&Life, &mut Threads),
    told: &mut dyn FnMut(SocketAddr),
) -> Result<Option<Member>, Error> {
    let lease = membership.lease;
    let address = membership.address.clone().unwrap_or_else(|| reachable(place.address));
    let scheme = if place.door.tls.is_some() { "https" } else { "http" };
    let me = (NodeId(place.data_dir.node_id()?), format!("{scheme}://{address}"));
    let proposed = place.data_dir.lease_key()?;
    let leases = |outage| {
        let config = Store { tag: Tag::Index, outage, ..store.clone() };
        Leases::new(&config, (me.0, &me.1), proposed, lease * FORGOTTEN_AFTER)
    };
    // Whatever is wrong with the store is said before anybody is let in.
    let seen = first(leases(store.outage))?;
    let key = seen.key;
    let standing = Arc::new(Standing {
        node: me.0,
        live_until_us: AtomicU64::new(0),
        is_leaving: AtomicBool::new(false),
        broken: OnceLock::new(),
        hop: HopKey::new(key),
        seen: ArcSwap::from_pointee(seen),
        counters: Arc::default(),
    });
    let owner = Arc::new(watch::Sender::new(Owner::Unknown));
    let (reached, mut stage) = watch::channel(Stage::Waiting);
    let (leave, left) = oneshot::channel();
    let (listens, others_listen) = oneshot::channel();
    let front = front(place, (&standing, &owner))?;
    let contender = Contender::new(me.clone(), lease);
    let contender = if membership.stands_back { contender.standing_back() } else { contender };
    let keeper = Keeper {
        // Renewals are not to wait behind one that nobody answers.
        leases: leases(lease / RENEWED_IN_PARTS),
        standing: standing.clone(),
        owner: owner.clone(),
        life: life.clone(),
        stage: reached,
        complaint: false,
    };
    let ends = (left, others_listen);
    threads.spawn(Plane::Side, "aob-cluster", None, move || keeper.run(contender, front, ends))?;
    io::net::block_on(async {
        let taken = async { drop(stage.wait_for(|stage| *stage != Stage::Waiting).await) };
        let mut taken = std::pin::pin!(taken);
        if io::net::within(LOOKS * 2, taken.as_mut()).await.is_none() {
            told(place.address);
            taken.await;
        }
    })
    .map_err(|error| Error::Ended(error.to_string()))?;
    let is_taken = *stage.borrow() == Stage::Taken;
    let member = Member { standing, key, owner, leave: Some(leave), listens: Some(listens), stage };
    Ok(is_taken.then_some(member))
}

/// Looks for the first time.
fn first(mut leases: Leases) -> Result<Seen, Error> {
    let mut seen = None;
    let looked = io::net::block_on(async { seen = Some(leases.look().await) });
    looked.map_err(|error| StoreError::io("wait for the store", error))?;
    Ok(seen.ok_or(StoreError::Fenced { cause: "nobody looked".into() })??)
}

/// Where others reach a node that listens at `address`: by the name of the machine when that says nothing.
fn reachable(address: SocketAddr) -> String {
    if !address.ip().is_unspecified() {
        return address.to_string();
    }
    let name = rustix::system::uname();
    format!("{}:{}", name.nodename().to_string_lossy(), address.port())
}

type Front = Box<dyn FnOnce() -> (Vec<TcpListener>, FrontParts) + Send>;

/// What takes requests until the control cores do.
fn front(
    place: &Place<'_>,
    (standing, owner): (&Arc<Standing>, &Arc<watch::Sender<Owner>>),
) -> Result<Front, Error> {
    let clones: std::io::Result<Vec<_>> = place.listeners.iter().map(TcpListener::try_clone).collect();
    let listeners = clones.map_err(|error| Error::Ended(format!("a listener cannot be shared: {error}")))?;
    let (standing, door, owner) = (standing.clone(), place.door.clone(), owner.subscribe());
    let data_dir = place.config.data_dir.display().to_string();
    let durability = place.config.store.durability();
    let connections_max = place.config.connections_per_core_max;
    Ok(Box::new(move || {
        let (key, counters) = (standing.hop.clone(), standing.counters.clone());
        let info = move || NodeInfo {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            phase: Phase::StandingBy.as_str().to_owned(),
            data_dir: data_dir.clone(),
            durability: durability.clone(),
            mode: String::from("full"),
            cluster: Some(standing.info()),
            ..NodeInfo::default()
        };
        let info = Box::new(info);
        (listeners, FrontParts { owner, key, door, counters, info, connections_max })
    }))
}
