//! QUIC on a fanout core: streams of events over `aob/1` and over WebTransport (`docs/formats/stream.md`).
//!
//! Each core has an endpoint and a socket of its own, all on one port; a connection stays on the core that took it up, also when its
//! client's address changes ([`steer`]). Nothing is judged here: what a client asks for, the control cores answer ([`Asking`]).
//! The events come through the same subscriptions as everywhere, from the hub of whichever core.
//!
//! Full: a client beyond [`limits::QUIC_CONNECTIONS_PER_CORE_MAX`] is refused in the handshake; when many handshakes are under way,
//! who comes has to prove his address first ([`census`]). What one connection may have is in [`line`].

mod census;
mod doubted;
mod identity;
mod line;
mod native;
mod session;
mod steer;
mod subscription;

use std::net::{SocketAddr, UdpSocket};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::{HandshakeData, NoInitialCipherSuite, QuicServerConfig};
use quinn::{Endpoint, EndpointConfig, Incoming, Runtime as _, TokioRuntime, TransportConfig, VarInt};
use tokio::sync::watch;

pub use steer::Forwarded;

use super::asking::Asking;
use crate::limits;
use crate::queue::{Receiver, Sender};
use crate::telemetry::QuicCells;
use crate::telemetry::log::{self, Target};
use crate::wire::origin::Origins;
use crate::wire::quic::{ALPN, Code};
use census::{Census, Place, Verdict};
use doubted::Doubted;
use identity::Identities;
use line::Line;
use steer::Steered;

/// The protocols that a client may choose (ALPN).
pub const PROTOCOLS: [&[u8]; 2] = [ALPN, session::ALPN];

/// What the endpoints of all cores have in common.
#[derive(Clone, Debug)]
pub struct Common {
    /// With the same key for what clients bring back, whichever core they come to.
    server: quinn::ServerConfig,
    /// What resets of connections are made with that are not there any more: the same after a restart, so that clients hear of it.
    reset_key: [u8; 32],
    /// What ids of connections are made with: another one after every start.
    identity_key: [u8; 32],
    origins: Origins,
    connections_per_peer_max: usize,
}

impl Common {
    /// For handshakes with this TLS, and pages of these origins.
    ///
    /// # Errors
    /// The TLS has no cipher that QUIC needs.
    pub fn new(
        tls: rustls::ServerConfig,
        (reset_key, identity_key): ([u8; 32], [u8; 32]),
        (origins, connections_per_peer_max): (Origins, usize),
    ) -> Result<Self, NoInitialCipherSuite> {
        let mut server = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
        server
            .transport_config(Arc::new(transport()))
            .max_incoming(limits::QUIC_HANDSHAKES_MAX)
            .incoming_buffer_size(limits::QUIC_CONTROL_FRAME_BYTES_MAX as u64)
            .incoming_buffer_size_total(
                (limits::QUIC_HANDSHAKES_MAX * 2 * limits::QUIC_FORWARDED_BYTES_MAX) as u64,
            );
        Ok(Self { server, reset_key, identity_key, origins, connections_per_peer_max })
    }
}

/// What one connection may take.
fn transport() -> TransportConfig {
    let mut transport = TransportConfig::default();
    let (stream, connection) = limits::QUIC_RECEIVE_BYTES_MAX;
    let idle = VarInt::from_u32(u32::try_from(limits::QUIC_IDLE_SECONDS_MAX * 1_000).unwrap_or(u32::MAX));
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(limits::QUIC_STREAMS_PER_CONNECTION_MAX))
        .max_concurrent_uni_streams(VarInt::from_u32(limits::QUIC_CLIENT_STREAMS_MAX))
        .stream_receive_window(VarInt::from_u32(stream))
        .receive_window(VarInt::from_u32(connection))
        .send_window(limits::QUIC_SEND_BYTES_MAX)
        .max_idle_timeout(Some(idle.into()))
        // HTTP/3 wants datagrams allowed; what a client sends is dropped.
        .datagram_receive_buffer_size(Some(limits::QUIC_CLIENT_DATAGRAM_BYTES))
        .datagram_send_buffer_size(limits::QUIC_DATAGRAM_SEND_BYTES_MAX);
    transport
}

/// What one core's endpoint is built from.
pub struct Parts {
    /// Index among the fanout cores.
    pub core: u16,
    /// Its socket.
    pub socket: UdpSocket,
    /// What all have in common.
    pub common: Common,
    /// Where streams are asked for.
    pub asking: Asking,
    /// The queues of all fanout cores for datagrams of their connections, by index.
    pub cores: Vec<Sender<Forwarded>>,
    /// This core's.
    pub forwarded: Receiver<Forwarded>,
    /// What is counted.
    pub cells: Arc<QuicCells>,
}

/// What QUIC is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where it listens.
    pub address: SocketAddr,
    /// Connections of one address (IPv6: of one /64) on one fanout core.
    pub connections_per_peer_max: usize,
}

/// What the connections of a core share.
struct Core {
    asking: Asking,
    origins: Origins,
    cells: Arc<QuicCells>,
    census: Census,
    doubted: Arc<Doubted>,
    stop: watch::Receiver<bool>,
    one_closed: tokio::sync::Notify,
}

/// Serves until `stop` becomes true; then the streams, which their hubs end at the same time, are written to their ends.
pub async fn serve(parts: Parts, mut stop: watch::Receiver<bool>) {
    let (core, cells) = (parts.core, parts.cells.clone());
    let shared = Rc::new(Core {
        asking: parts.asking.clone(),
        origins: parts.common.origins.clone(),
        census: Census::new(cells.clone(), parts.common.connections_per_peer_max),
        cells,
        doubted: Arc::default(),
        stop: stop.clone(),
        one_closed: tokio::sync::Notify::new(),
    });
    let endpoint = match endpoint(parts, shared.doubted.clone()) {
        Ok(endpoint) => endpoint,
        Err(error) => {
            return log::warn(Target::Node, format_args!("fanout core {core} serves no QUIC: {error}"));
        }
    };
    loop {
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => break,
            incoming = endpoint.accept() => match incoming {
                Some(incoming) => admit(&shared, incoming),
                None => break,
            },
        }
    }
    endpoint.set_server_config(None);
    let closed = async {
        while shared.census.open() > 0 {
            shared.one_closed.notified().await;
        }
    };
    let _ = tokio::time::timeout(Duration::from_millis(2 * limits::DRAIN_GRACE_MILLIS), closed).await;
    endpoint.close(code(Code::Stopping), b"stopping");
    // The last packets leave; who did not hear them finds out by himself.
    let _ =
        tokio::time::timeout(Duration::from_millis(limits::DRAIN_GRACE_MILLIS), endpoint.wait_idle()).await;
}

fn endpoint(parts: Parts, doubted: Arc<Doubted>) -> std::io::Result<Endpoint> {
    let Parts { core, socket, common, cores, forwarded, cells, .. } = parts;
    socket.set_nonblocking(true)?;
    let socket = TokioRuntime.wrap_udp_socket(socket)?;
    let socket = Arc::new(Steered::new(socket, core, (cores, forwarded), (cells, doubted)));
    let mut config =
        EndpointConfig::new(Arc::new(ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &common.reset_key)));
    let key = common.identity_key;
    config.cid_generator(move || Box::new(Identities::new(core, key)));
    Endpoint::new_with_abstract_socket(config, Some(common.server), socket, Arc::new(TokioRuntime))
}

/// Takes a connection up, or not.
fn admit(core: &Rc<Core>, incoming: Incoming) {
    match core.census.ask(incoming.remote_address().ip(), incoming.remote_address_validated()) {
        Verdict::Refuse => incoming.refuse(),
        // It may be retried as long as the address is not proven.
        Verdict::Retry => drop(incoming.retry()),
        Verdict::Accept(place) => {
            let core = core.clone();
            tokio::task::spawn_local(async move {
                connection(&core, incoming, place).await;
                core.one_closed.notify_one();
            });
        }
    }
}

async fn connection(core: &Rc<Core>, incoming: Incoming, mut place: Place) {
    let (peer, proven) = (incoming.remote_address(), incoming.remote_address_validated());
    if !proven {
        core.doubted.begin(peer);
    }
    let Ok(connecting) = incoming.accept() else {
        if !proven {
            core.doubted.end(peer, false);
        }
        return;
    };
    let within = Duration::from_secs(limits::QUIC_FIRST_ASK_SECONDS_MAX);
    let Ok(Ok(connection)) = tokio::time::timeout(within, connecting).await else {
        drop(place);
        core.one_closed.notify_one();
        if !proven {
            // What is sent to close it counts still.
            tokio::time::sleep(Duration::from_secs(1)).await;
            core.doubted.end(peer, false);
        }
        return;
    };
    if !proven {
        core.doubted.end(peer, true);
    }
    place.shaken();
    let data = connection.handshake_data().and_then(|data| data.downcast::<HandshakeData>().ok());
    let protocol = data.and_then(|data| data.protocol).unwrap_or_default();
    let line = Rc::new(Line::new(core.clone(), connection));
    // Boxed: a connection is large, and most wait.
    if protocol == session::ALPN {
        Box::pin(session::serve(&line)).await;
    } else {
        Box::pin(native::serve(&line)).await;
    }
    // The place is free again when the streams have noticed.
    line.closed().await;
    drop(place);
}

fn code(code: Code) -> VarInt {
    VarInt::from_u32(code as u32)
}
