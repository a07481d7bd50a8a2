//! How many connections of whom are open on one core, and who may come.
//!
//! An address that is not proven may be a lie: it takes none of the places but [`limits::QUIC_HANDSHAKES_UNPROVEN_MAX`], and when
//! these are taken whoever comes has to prove his first (Retry), which costs nothing here.

use std::cell::RefCell;
use std::net::{IpAddr, Ipv6Addr};
use std::rc::Rc;
use std::sync::Arc;

use ahash::AHashMap;

use crate::limits;
use crate::telemetry::QuicCells;

/// What is done with a handshake.
#[derive(Debug)]
pub(super) enum Verdict {
    /// It goes on.
    Accept(Place),
    /// Who comes proves the address, and comes again.
    Retry,
    /// There is no room.
    Refuse,
}

#[derive(Debug, Default)]
struct Counts {
    open: usize,
    handshakes: usize,
    unproven: usize,
    peers: AHashMap<IpAddr, usize>,
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Census {
    counts: Rc<RefCell<Counts>>,
    cells: Arc<QuicCells>,
    per_peer_max: usize,
}

/// The place of a connection; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    census: Census,
    peer: IpAddr,
    /// In its handshake still; and was its address proven when that began?
    handshake: Option<bool>,
}

impl Census {
    /// At most so many connections of one address (IPv6: of one /64).
    pub(super) fn new(cells: Arc<QuicCells>, per_peer_max: usize) -> Self {
        Self { counts: Rc::default(), cells, per_peer_max }
    }

    /// May whoever comes from there come in?
    pub(super) fn ask(&self, peer: IpAddr, proven: bool) -> Verdict {
        let peer = network(peer);
        let mut counts = self.counts.borrow_mut();
        let of_peer = counts.peers.get(&peer).copied().unwrap_or(0);
        let full = counts.open >= limits::QUIC_CONNECTIONS_PER_CORE_MAX
            || counts.handshakes >= limits::QUIC_HANDSHAKES_MAX
            // Of an address that is not proven this says nothing.
            || (proven && of_peer >= self.per_peer_max);
        if full {
            self.cells.refused.increment();
            return Verdict::Refuse;
        }
        let doubtful =
            counts.unproven >= limits::QUIC_HANDSHAKES_UNPROVEN_MAX || of_peer >= self.per_peer_max;
        if !proven && doubtful {
            self.cells.retried.increment();
            return Verdict::Retry;
        }
        counts.open += 1;
        counts.handshakes += 1;
        counts.unproven += usize::from(!proven);
        *counts.peers.entry(peer).or_default() += 1;
        self.cells.open.set(counts.open as u64);
        Verdict::Accept(Place { census: self.clone(), peer, handshake: Some(proven) })
    }

    /// Connections that are open, those in their handshake counted.
    pub(super) fn open(&self) -> usize {
        self.counts.borrow().open
    }
}

impl Place {
    /// The handshake is done.
    pub(super) fn shaken(&mut self) {
        let Some(proven) = self.handshake.take() else { return };
        let mut counts = self.census.counts.borrow_mut();
        counts.handshakes = counts.handshakes.saturating_sub(1);
        counts.unproven = counts.unproven.saturating_sub(usize::from(!proven));
        self.census.cells.accepted.increment();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.census.counts.borrow_mut();
        if let Some(proven) = self.handshake {
            counts.handshakes = counts.handshakes.saturating_sub(1);
            counts.unproven = counts.unproven.saturating_sub(usize::from(!proven));
            self.census.cells.unfinished.increment();
        }
        counts.open = counts.open.saturating_sub(1);
        if let Some(of_peer) = counts.peers.get_mut(&self.peer) {
            *of_peer = of_peer.saturating_sub(1);
            if *of_peer == 0 {
                counts.peers.remove(&self.peer);
            }
        }
        self.census.cells.open.set(counts.open as u64);
    }
}

/// Whoever has one address of IPv6 has a whole /64.
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(census: &Census, peer: &str, proven: bool) -> Vec<Place> {
        std::iter::from_fn(|| match census.ask(peer.parse().unwrap(), proven) {
            Verdict::Accept(mut place) => {
                if proven {
                    place.shaken();
                }
                Some(place)
            }
            _ => None,
        })
        .take(2 * limits::QUIC_CONNECTIONS_PER_CORE_MAX)
        .collect()
    }

    #[test]
    fn addresses_that_are_not_proven_take_few_places_and_who_proves_his_comes_in() {
        let census = Census::new(Arc::default(), 1_000);
        let spoofed = places(&census, "192.0.2.1", false);
        assert_eq!(spoofed.len(), limits::QUIC_HANDSHAKES_UNPROVEN_MAX);
        assert!(matches!(census.ask("192.0.2.2".parse().unwrap(), false), Verdict::Retry));
        assert!(matches!(census.ask("192.0.2.2".parse().unwrap(), true), Verdict::Accept(_)));
        drop(spoofed);
        assert!(matches!(census.ask("192.0.2.2".parse().unwrap(), false), Verdict::Accept(_)));
        assert_eq!((census.open(), census.counts.borrow().peers.len()), (0, 0));
        assert_eq!(census.counts.borrow().handshakes + census.counts.borrow().unproven, 0);
    }

    #[test]
    fn one_peer_has_its_share_whatever_its_address_and_others_have_theirs() {
        let census = Census::new(Arc::default(), 1_000);
        let first = places(&census, "2001:db8::1", true);
        assert_eq!(first.len(), 1_000);
        assert!(matches!(census.ask("2001:db8::2".parse().unwrap(), true), Verdict::Refuse));
        // Somebody may only say that he is that peer.
        assert!(matches!(census.ask("2001:db8::2".parse().unwrap(), false), Verdict::Retry));
        let mut all = first;
        for other in 0..20 {
            all.extend(places(&census, &format!("192.0.2.{other}"), true));
        }
        assert_eq!(all.len(), limits::QUIC_CONNECTIONS_PER_CORE_MAX);
        assert!(matches!(census.ask("198.51.100.1".parse().unwrap(), true), Verdict::Refuse));
        assert_eq!(census.cells.open.value(), all.len() as u64);
    }
}
