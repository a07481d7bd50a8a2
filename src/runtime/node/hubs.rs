//! Starts the fanout cores, each with its socket for QUIC when that is on.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

use super::Machine;
use super::wiring::Shared;
use crate::api::Entropy;
use crate::auth::{self, Door};
use crate::engine::command::{Reply, ReplyTo};
use crate::fanout::quic::{self, Forwarded};
use crate::fanout::{Asking, Hub, Push, hub};
use crate::io::socket;
use crate::limits;
use crate::queue::{FullPolicy, Receiver, Sender, Stats, bounded};
use crate::runtime::Error;
use crate::runtime::thread::{Plane, Threads};
use crate::telemetry::QuicCells;
use crate::wire::node::QuicInfo;
use crate::wire::stream::ToHub;

type Receivers = (Vec<Receiver<(ReplyTo, Reply)>>, Vec<Receiver<Push>>, Vec<Receiver<ToHub>>, Option<Quic>);

/// QUIC, bound and not served yet.
pub(super) struct Quic {
    sockets: Vec<UdpSocket>,
    /// Datagrams that one core has for another. Full: dropped, and repaired as what the network loses.
    cores: Vec<Sender<Forwarded>>,
    forwarded: Vec<Receiver<Forwarded>>,
    shown: Shown,
    connections_per_peer_max: usize,
}

/// What the node says of it.
#[derive(Clone)]
pub(super) struct Shown {
    address: SocketAddr,
    certificate: Arc<auth::quic::Shown>,
    pub(super) cells: Vec<Arc<QuicCells>>,
}

impl Quic {
    /// Takes the port, when QUIC is on, for so many cores.
    pub(super) fn listen(
        settings: Option<quic::Settings>,
        count: usize,
        door: &Arc<Door>,
    ) -> Result<Option<Self>, Error> {
        let Some(settings) = settings else { return Ok(None) };
        let sockets = socket::listen_for_datagrams(settings.address, count)?;
        let address = sockets.first().and_then(|one| one.local_addr().ok()).unwrap_or(settings.address);
        let certificate = auth::quic::Shown::new(door.clone()).map_err(failed)?;
        let queue = |core| {
            let name = format!("fanout {core} datagrams");
            bounded(name, limits::QUIC_FORWARDED_MAX, FullPolicy::DropAndResync)
        };
        let (cores, forwarded) = (0..count).map(queue).unzip();
        let cells = (0..count).map(|_| Arc::default()).collect();
        let shown = Shown { address, certificate: Arc::new(certificate), cells };
        Ok(Some(Self {
            sockets,
            cores,
            forwarded,
            shown,
            connections_per_peer_max: settings.connections_per_peer_max,
        }))
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.shown.address
    }

    pub(super) fn shown(&self) -> Shown {
        self.shown.clone()
    }

    pub(super) fn stats(&self) -> impl Iterator<Item = Arc<Stats>> {
        self.cores.iter().map(|queue| queue.stats().clone())
    }

    /// What each core's endpoint is made from.
    fn endpoints(self, machine: &Machine<'_>, shared: &Shared) -> Result<Vec<quic::Parts>, Error> {
        let tls = self.shown.certificate.config(&quic::PROTOCOLS).map_err(failed)?;
        // Not the key of leases itself: what is shown of the one must say nothing about the other.
        let reset_key = Sha256::new().chain_update(machine.lease_key).chain_update("quic reset");
        let identity_key = Entropy::from_system().map_err(failed)?.draw();
        let keys = (reset_key.finalize().into(), identity_key);
        let common = (machine.door.origins.clone(), self.connections_per_peer_max);
        let common = quic::Common::new(tls, keys, common).map_err(failed)?;
        let ends = self.sockets.into_iter().zip(self.forwarded).zip(&self.shown.cells);
        let parts = ends.enumerate().map(|(at, ((socket, forwarded), cells))| quic::Parts {
            core: u16::try_from(at).unwrap_or(u16::MAX),
            socket,
            common: common.clone(),
            asking: Asking::new(shared.asked.clone()),
            cores: self.cores.clone(),
            forwarded,
            cells: cells.clone(),
        });
        Ok(parts.collect())
    }
}

fn failed(error: impl std::fmt::Display) -> Error {
    Error::Ended(format!("QUIC: {error}"))
}

impl Shown {
    pub(super) fn info(&self) -> QuicInfo {
        QuicInfo { address: self.address.to_string(), certificate_sha256: self.certificate.own_sha256() }
    }
}

/// Starts the hubs; what stops them.
pub(super) fn start(
    threads: &mut Threads,
    machine: &Machine<'_>,
    (replies, pushes, requests, quic): Receivers,
    shared: &Shared,
) -> Result<watch::Sender<bool>, Error> {
    let (stop, stopped) = watch::channel(false);
    let first = u16::try_from(machine.plan.control.len()).unwrap_or(u16::MAX);
    let ends = replies.into_iter().zip(pushes).zip(requests);
    let endpoints = quic.map(|quic| quic.endpoints(machine, shared)).transpose()?;
    let mut endpoints = endpoints.unwrap_or_default().into_iter();
    for ((at, core), ((replies, pushes), requests)) in machine.plan.fanout.iter().enumerate().zip(ends) {
        let ends = Ends { replies, pushes, requests, stopped: stopped.clone(), endpoint: endpoints.next() };
        start_hub(threads, (at, *core, first), ends, shared)?;
    }
    Ok(stop)
}

/// What one hub holds alone.
struct Ends {
    replies: Receiver<(ReplyTo, Reply)>,
    pushes: Receiver<Push>,
    requests: Receiver<ToHub>,
    stopped: watch::Receiver<bool>,
    endpoint: Option<quic::Parts>,
}

/// Starts hub `at` on `core`; its reply queue comes after the `first` ones, which are the control cores'.
fn start_hub(
    threads: &mut Threads,
    (at, core, first): (usize, usize, u16),
    ends: Ends,
    shared: &Shared,
) -> Result<(), Error> {
    let Ends { replies, pushes, requests, mut stopped, endpoint } = ends;
    let parts = hub::Parts {
        core: first.saturating_add(u16::try_from(at).unwrap_or(u16::MAX)),
        index: u16::try_from(at).unwrap_or(u16::MAX),
        shards: shared.commands.clone(),
        replies,
        pushes,
        requests,
        asking: Asking::new(shared.asked.clone()),
        source: shared.runs.clone(),
        subscribers: shared.subscribers.get(at).cloned().unwrap_or_default(),
    };
    let main = move || async move {
        let streams = stopped.clone();
        let stop = async move {
            let _ = stopped.wait_for(|stop| *stop).await;
        };
        let served = async {
            if let Some(endpoint) = endpoint {
                quic::serve(endpoint, streams).await;
            }
        };
        tokio::join!(Hub::new(parts).run(stop), served);
    };
    Ok(threads.spawn(Plane::Fanout, &format!("aob-fanout-{at}"), Some(core), main)?)
}
