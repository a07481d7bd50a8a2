//! Addresses that are not proven, and how much may still be sent there: three times what came from there (RFC 9000, 8.1).
//!
//! The library ends a datagram that it began below that bound, so it may go over it by one; here that one is lost, as the network
//! may lose it, and sent again when the client has answered. There are never many: [`limits::QUIC_HANDSHAKES_UNPROVEN_MAX`], and those
//! that have just ended.
//!
//! [`limits::QUIC_HANDSHAKES_UNPROVEN_MAX`]: crate::limits::QUIC_HANDSHAKES_UNPROVEN_MAX

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use ahash::AHashMap;
use tokio::sync::Mutex;

/// How often what came is what may be sent.
const TIMES: u64 = 3;
/// Bytes of a first datagram, at least: a shorter one begins nothing.
const FIRST_BYTES: u64 = 1_200;

/// See the module. One core's, so nobody ever waits for it.
#[derive(Debug, Default)]
pub(super) struct Doubted {
    handshakes: AtomicUsize,
    peers: Mutex<AHashMap<SocketAddr, Left>>,
}

#[derive(Debug, Default)]
struct Left {
    handshakes: usize,
    bytes: u64,
}

impl Doubted {
    /// A handshake begins from there.
    pub(super) fn begin(&self, peer: SocketAddr) {
        if let Ok(mut peers) = self.peers.try_lock() {
            let left = peers.entry(peer).or_default();
            left.handshakes += 1;
            left.bytes += TIMES * FIRST_BYTES;
            self.handshakes.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// So much came from there.
    pub(super) fn heard(&self, peer: SocketAddr, bytes: usize) {
        if self.handshakes.load(Ordering::Relaxed) > 0
            && let Ok(mut peers) = self.peers.try_lock()
            && let Some(left) = peers.get_mut(&peer)
        {
            left.bytes += TIMES * bytes as u64;
        }
    }

    /// May this be sent there? Then it is.
    pub(super) fn may_send(&self, peer: SocketAddr, bytes: usize) -> bool {
        if self.handshakes.load(Ordering::Relaxed) == 0 {
            return true;
        }
        let Ok(mut peers) = self.peers.try_lock() else { return true };
        let Some(left) = peers.get_mut(&peer) else { return true };
        let rest = left.bytes.checked_sub(bytes as u64);
        left.bytes = rest.unwrap_or(left.bytes);
        rest.is_some()
    }

    /// A handshake from there has ended; well, so that the address is proven.
    pub(super) fn end(&self, peer: SocketAddr, well: bool) {
        let Ok(mut peers) = self.peers.try_lock() else { return };
        let Some(left) = peers.get_mut(&peer) else { return };
        let ended = if well { left.handshakes } else { 1 };
        left.handshakes = left.handshakes.saturating_sub(ended);
        if left.handshakes == 0 {
            peers.remove(&peer);
        }
        self.handshakes.fetch_sub(ended, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_three_times_goes_where_nobody_has_answered() {
        let doubted = Doubted::default();
        let (peer, other) = ("192.0.2.1:1".parse().unwrap(), "192.0.2.2:1".parse().unwrap());
        doubted.begin(peer);
        assert!(doubted.may_send(peer, 2_400) && doubted.may_send(other, 1 << 20));
        assert!(!doubted.may_send(peer, 1_201) && doubted.may_send(peer, 1_200));
        assert!(!doubted.may_send(peer, 1));
        doubted.heard(peer, 50);
        assert!(doubted.may_send(peer, 150) && !doubted.may_send(peer, 1));
        doubted.begin(peer);
        doubted.end(peer, false);
        assert!(!doubted.may_send(peer, 1 << 20), "the other one is under way still");
        doubted.end(peer, true);
        assert!(doubted.may_send(peer, 1 << 20));
        assert_eq!(doubted.handshakes.load(Ordering::Relaxed), 0);
    }
}
