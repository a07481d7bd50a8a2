//! The socket of one fanout core: what belongs to another core's connection is handed to that core.
//!
//! The kernel spreads datagrams over the cores' sockets by the addresses of both sides. A client whose address changed may so come
//! to another core; the [id of its connection](super::identity) says whose it is. A core whose queue is full
//! ([`limits::QUIC_FORWARDED_MAX`]) loses the datagram, as the network may, and it is counted.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use quinn::udp::{EcnCodepoint, RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use tokio::sync::Mutex;

use super::doubted::Doubted;
use super::identity::core_of;
use crate::limits;
use crate::queue::{Receiver, Sender};
use crate::telemetry::QuicCells;

/// A datagram on its way to its core.
#[derive(Debug)]
pub struct Forwarded {
    bytes: Bytes,
    from: SocketAddr,
    to: Option<IpAddr>,
    ecn: Option<EcnCodepoint>,
}

/// Receives whose datagrams are all other cores' before it lets others work.
const ROUNDS_MAX: usize = 8;

/// See the module.
#[derive(Debug)]
pub(super) struct Steered {
    inner: Arc<dyn AsyncUdpSocket>,
    core: u16,
    /// The queues of all cores, by index.
    cores: Vec<Sender<Forwarded>>,
    /// Only the endpoint's driver receives, so this is never waited for.
    handed: Mutex<Receiver<Forwarded>>,
    /// Whose turn it is: what others handed over, or the socket. Neither can keep the other waiting.
    handed_first: AtomicBool,
    cells: Arc<QuicCells>,
    doubted: Arc<Doubted>,
}

impl Steered {
    pub(super) fn new(
        inner: Arc<dyn AsyncUdpSocket>,
        core: u16,
        (cores, handed): (Vec<Sender<Forwarded>>, Receiver<Forwarded>),
        (cells, doubted): (Arc<QuicCells>, Arc<Doubted>),
    ) -> Self {
        Self {
            inner,
            core,
            cores,
            handed: Mutex::new(handed),
            handed_first: AtomicBool::new(false),
            cells,
            doubted,
        }
    }

    /// What other cores have handed over, one datagram to a buffer.
    fn poll_handed(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<usize> {
        let Ok(mut handed) = self.handed.try_lock() else { return Poll::Pending };
        if handed.poll_ready(context).is_pending() {
            return Poll::Pending;
        }
        let mut count = 0;
        for (buffer, meta) in buffers.iter_mut().zip(metas) {
            let Some(datagram) = handed.try_recv() else { break };
            let length = datagram.bytes.len();
            // A buffer takes what an endpoint may be sent; what was handed over is smaller.
            let fits = buffer.get_mut(..length).map(|space| space.copy_from_slice(&datagram.bytes)).is_some();
            *meta = RecvMeta {
                addr: datagram.from,
                len: if fits { length } else { 0 },
                stride: length.max(1),
                ecn: datagram.ecn,
                dst_ip: datagram.to,
            };
            count += 1;
        }
        if count == 0 { Poll::Pending } else { Poll::Ready(count) }
    }

    fn poll_socket(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        for _ in 0..ROUNDS_MAX {
            let count = match self.inner.poll_recv(context, buffers, metas) {
                Poll::Ready(Ok(count)) => count,
                other => return other,
            };
            let mut own = false;
            for (buffer, meta) in buffers.iter_mut().zip(metas.iter_mut()).take(count) {
                self.doubted.heard(meta.addr, meta.len);
                self.sort(buffer, meta);
                own |= meta.len > 0;
            }
            if own {
                return Poll::Ready(Ok(count));
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    /// Hands on what is not ours; the rest moves to the front of its buffer. Datagrams of one buffer are `stride` long, but for
    /// the last.
    fn sort(&self, buffer: &mut [u8], meta: &mut RecvMeta) {
        let (end, stride) = (meta.len.min(buffer.len()), meta.stride.max(1));
        let mut kept = 0;
        for start in (0..end).step_by(stride) {
            let range = start..end.min(start + stride);
            let Some(datagram) = buffer.get(range.clone()) else { break };
            if self.hand_on(datagram, meta) {
                continue;
            }
            let length = range.len();
            if kept != start {
                buffer.copy_within(range, kept);
            }
            kept += length;
        }
        meta.len = kept;
    }

    /// True when the datagram is another core's.
    fn hand_on(&self, datagram: &[u8], meta: &RecvMeta) -> bool {
        let Some(core) = core_of(datagram).filter(|core| *core != self.core) else { return false };
        // A core that is not there: an id of before a restart, or none of ours. It is answered here.
        let Some(queue) = self.cores.get(usize::from(core)) else { return false };
        let taken = datagram.len() <= limits::QUIC_FORWARDED_BYTES_MAX && {
            let bytes = Bytes::copy_from_slice(datagram);
            queue.send(Forwarded { bytes, from: meta.addr, to: meta.dst_ip, ecn: meta.ecn }).is_ok()
        };
        let cell = if taken { &self.cells.forwarded } else { &self.cells.forwards_dropped };
        cell.increment();
        true
    }
}

impl AsyncUdpSocket for Steered {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.inner.clone().create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        if !self.doubted.may_send(transmit.destination, transmit.contents.len()) {
            return Ok(());
        }
        self.inner.try_send(transmit)
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let handed_first = self.handed_first.fetch_xor(true, Ordering::Relaxed);
        if handed_first && let Poll::Ready(count) = self.poll_handed(context, buffers, metas) {
            return Poll::Ready(Ok(count));
        }
        match self.poll_socket(context, buffers, metas) {
            Poll::Pending if !handed_first => self.poll_handed(context, buffers, metas).map(Ok),
            polled => polled,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.inner.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.inner.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}

#[cfg(test)]
mod tests {
    use quinn::{Runtime as _, TokioRuntime};

    use super::*;
    use crate::queue::{FullPolicy, bounded};

    fn packet(core: u16, length: usize) -> Vec<u8> {
        let mut packet = vec![0x40];
        packet.extend_from_slice(&core.to_be_bytes());
        packet.resize(length, 7);
        packet
    }

    // F235
    #[tokio::test]
    async fn of_datagrams_that_came_together_each_goes_to_its_core() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        let (own, handed) = bounded("own", 4, FullPolicy::DropAndResync);
        let (other, mut at_other) = bounded("other", 2, FullPolicy::DropAndResync);
        let inner = TokioRuntime.wrap_udp_socket(socket).unwrap();
        let steered = Steered::new(inner, 0, (vec![own.clone(), other], handed), Default::default());
        let parts =
            [packet(0, 100), packet(1, 100), packet(9, 100), packet(1, 100), packet(1, 100), packet(0, 60)];
        let mut buffer = parts.concat();
        let from = "192.0.2.1:5".parse().unwrap();
        let mut meta = RecvMeta { addr: from, len: buffer.len(), stride: 100, ..RecvMeta::default() };
        steered.sort(&mut buffer, &mut meta);
        // A core that is not there is answered here.
        assert_eq!(buffer[..meta.len], [packet(0, 100), packet(9, 100), packet(0, 60)].concat());
        assert_eq!((steered.cells.forwarded.value(), steered.cells.forwards_dropped.value()), (2, 1));
        let datagram = at_other.try_recv().unwrap();
        assert_eq!((&datagram.bytes[..], datagram.from), (&packet(1, 100)[..], from));
        // What came to the other way round is received like what the socket gave.
        assert!(own.send(datagram).is_ok());
        let (mut first, mut second) = ([0; 200], [0; 200]);
        let mut buffers = [IoSliceMut::new(&mut first), IoSliceMut::new(&mut second)];
        let mut metas = [RecvMeta::default(); 2];
        let mut context = Context::from_waker(std::task::Waker::noop());
        let received = steered.poll_recv(&mut context, &mut buffers, &mut metas);
        assert!(matches!(received, Poll::Ready(Ok(1))));
        assert_eq!((metas[0].addr, metas[0].len, metas[0].stride), (from, 100, 100));
        assert_eq!(buffers[0][..100], packet(1, 100));
        assert!(steered.poll_recv(&mut context, &mut buffers, &mut metas).is_pending());
        let large = packet(1, limits::QUIC_FORWARDED_BYTES_MAX + 1);
        assert!(steered.hand_on(&large, &meta));
        assert_eq!(steered.cells.forwards_dropped.value(), 2);
    }
}
